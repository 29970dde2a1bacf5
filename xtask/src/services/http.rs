//! HTTP with whoever has something for us.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::{Agent, Body, http::Response};

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

/// The JSON that a service answers with. A status of failure is an error with the service's own words.
pub(crate) fn json(service: &str, answer: Response<Body>) -> Result<Value> {
    let text = success(service, answer)?.body_mut().read_to_string()?;
    serde_json::from_str(&text).with_context(|| format!("the answer of {service} is not JSON"))
}

/// An answer of success. Another one is an error with its status and the service's own words.
pub(crate) fn success(service: &str, mut answer: Response<Body>) -> Result<Response<Body>> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    // The page of a proxy says nothing that its status does not.
    let is_page = answer.body().mime_type() == Some("text/html");
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    match words(&json).unwrap_or(&text).trim() {
        "" => bail!("{service} answers {status}"),
        _ if is_page => bail!("{service} answers {status}"),
        words => bail!("{service} answers {status}: {words}"),
    }
}

/// The content of an answer of any status; null if it is not JSON, as the error page of a proxy.
pub(crate) fn json_or_null(answer: &mut Response<Body>) -> Value {
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// What an error says in the words of the service: `error_description` and `error.message` are Azure's, `error` is
/// Prometheus's, `message` GitHub's and GitLab's.
fn words(json: &Value) -> Option<&str> {
    let error = &json["error"];
    [
        &json["error_description"],
        &error["message"],
        error,
        &json["message"],
    ]
    .into_iter()
    .find_map(Value::as_str)
}
