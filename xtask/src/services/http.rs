//! HTTP with whoever has something for us.

use std::{sync::Arc, time::Duration};

use rustls::crypto::ring;
use ureq::Agent;

/// How long to wait for a connection or the beginning of an answer, and for the rest of it.
pub(crate) const PATIENCE: (Duration, Duration) =
    (Duration::from_secs(20), Duration::from_secs(120));

/// An answer with an error in it is an answer.
pub(crate) fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(PATIENCE.0))
        .timeout_recv_response(Some(PATIENCE.0))
        .timeout_recv_body(Some(PATIENCE.1))
        // As helm and kubectl do it: a group's own authority is known to the system.
        .tls_config(
            ureq::tls::TlsConfig::builder()
                .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
                .root_certs(ureq::tls::RootCerts::PlatformVerifier)
                .build(),
        )
        .build()
        .into()
}
