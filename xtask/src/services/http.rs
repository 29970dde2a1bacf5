//! HTTP, as all services are asked.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::{Agent, Body, http::Response};

/// How long to wait for a connection, and for the beginning of an answer.
const BEGINNING: Duration = Duration::from_secs(20);
/// How long to wait for the rest of an answer.
const BODY: Duration = Duration::from_secs(120);
/// How long a program may take that asks for us.
pub(crate) const PATIENCE: Duration = BEGINNING.saturating_add(BODY);

/// An agent to ask with. An answer with an error status is an answer, too.
pub(crate) fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(BEGINNING))
        .timeout_recv_response(Some(BEGINNING))
        .timeout_recv_body(Some(BODY))
        // As in helm and kubectl: an organization's own certificate authority is known to the system.
        .tls_config(
            ureq::tls::TlsConfig::builder()
                .root_certs(ureq::tls::RootCerts::PlatformVerifier)
                .build(),
        )
        .build()
        .into()
}

/// The text of an answer that must be JSON from `service`, such as `GitHub`.
pub(crate) fn json(answer: &mut Response<Body>, service: &str) -> Result<Value> {
    let text = answer.body_mut().read_to_string()?;
    serde_json::from_str(&text).with_context(|| format!("{service}'s answer is not JSON"))
}

/// The answer itself if its status is a success; otherwise an error with the service's own `message`.
pub(crate) fn success(
    mut answer: Response<Body>,
    asked: &str,
    service: &str,
) -> Result<Response<Body>> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let error: Value = serde_json::from_str(&text).unwrap_or_default();
    let message = error["message"].as_str().unwrap_or_default();
    bail!("{asked}: {service} answers {status} {message}")
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
