//! HTTP with whoever has something for us.

use std::time::Duration;

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
                .root_certs(ureq::tls::RootCerts::PlatformVerifier)
                .build(),
        )
        .build()
        .into()
}

/// A text as a value in the query of an address: <https://www.rfc-editor.org/rfc/rfc3986#section-2>
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}
