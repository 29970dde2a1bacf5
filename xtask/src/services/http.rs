//! HTTP, as all services are asked.

use std::{
    net::IpAddr,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::crypto::ring;
use serde_json::Value;
use ureq::{Agent, Body, http::Response};

use crate::secrets::Secret;

/// How long to wait for a connection, and for the beginning of an answer.
const BEGINNING: Duration = Duration::from_secs(20);
/// How long to wait for the rest of an answer.
const BODY: Duration = Duration::from_secs(120);
/// How long a program may take that asks for us.
pub(crate) const PATIENCE: Duration = BEGINNING.saturating_add(BODY);

/// How many seconds to wait before a request that failed for a moment is repeated.
const PAUSES: [u64; 4] = [1, 2, 4, 8];
/// The longest pause that a service may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An agent to ask with. An answer with an error status is an answer, too.
pub(crate) fn agent() -> Agent {
    agent_within(BEGINNING)
}

/// An agent that waits only so long for a connection, and for the beginning of an answer.
pub(crate) fn agent_within(beginning: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_resolve(Some(beginning))
        .timeout_connect(Some(beginning))
        .timeout_recv_response(Some(beginning))
        .timeout_recv_body(Some(BODY))
        // As in helm and kubectl: an organization's own certificate authority is known to the system.
        .tls_config(
            ureq::tls::TlsConfig::builder()
                .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
                .root_certs(ureq::tls::RootCerts::PlatformVerifier)
                .build(),
        )
        .build()
        .into()
}

/// The answer to a request that changes nothing. It is repeated a few times where the service cannot be reached, fails, or
/// wants a pause.
pub(crate) fn get_patiently(
    asked: &str,
    service: &str,
    send: impl Fn() -> Result<Response<Body>, ureq::Error>,
) -> Result<Response<Body>> {
    for pause in PAUSES.map(Duration::from_secs) {
        let answer = send();
        let again = answer
            .as_ref()
            .map_or(Some(pause), |it| pause_before_next(it, pause));
        match again {
            Some(pause) => thread::sleep(pause),
            None => return ask(asked, service, || answer),
        }
    }
    ask(asked, service, send)
}

/// The answer to a request that changes nothing, also one that is no success. It is repeated a few times where the service
/// fails or wants a pause, but not where it cannot be reached.
pub(crate) fn answer_patiently(
    send: impl Fn() -> Result<Response<Body>, ureq::Error>,
) -> Result<Response<Body>, ureq::Error> {
    for pause in PAUSES.map(Duration::from_secs) {
        let answer = send()?;
        match pause_before_next(&answer, pause) {
            Some(pause) => thread::sleep(pause),
            None => return Ok(answer),
        }
    }
    send()
}

/// The answer to a request. One that is not a success is an error.
pub(crate) fn ask(
    asked: &str,
    service: &str,
    send: impl FnOnce() -> Result<Response<Body>, ureq::Error>,
) -> Result<Response<Body>> {
    let answer = send().with_context(|| format!("cannot reach {service}: {asked}"))?;
    let pause = pause_wanted(&answer).unwrap_or_default();
    let is_for_a_moment = is_for_a_moment(&answer);
    success(answer, asked, service).map_err(|err| {
        if is_for_a_moment {
            let minutes = pause.as_secs().div_ceil(60).max(1);
            anyhow!("{err:#}\nhint: run this again in {minutes} min, when {service} may answer")
        } else {
            err
        }
    })
}

/// How long to wait before a request is repeated that got this answer. None if it is not worth it.
fn pause_before_next(answer: &Response<Body>, usual: Duration) -> Option<Duration> {
    let pause = pause_wanted(answer).unwrap_or(usual);
    (is_for_a_moment(answer) && pause <= LONGEST_PAUSE).then_some(pause)
}

/// Whether a service would answer the same request later.
fn is_for_a_moment(answer: &Response<Body>) -> bool {
    let status = answer.status();
    let is_limit = status == 403 && pause_wanted(answer).is_some();
    is_limit || status == 429 || status.is_server_error()
}

/// How long a service wants us to wait:
/// <https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit>.
fn pause_wanted(answer: &Response<Body>) -> Option<Duration> {
    let number = |name: &str| -> Option<u64> {
        let value = answer.headers().get(name)?;
        value.to_str().ok()?.trim().parse().ok()
    };
    if let Some(seconds) = number("retry-after") {
        return Some(Duration::from_secs(seconds));
    }
    let reset = number("x-ratelimit-reset").filter(|_| number("x-ratelimit-remaining") == Some(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(reset?).saturating_sub(now))
}

/// The address of the next page of a list: `<https://…>; rel="next", …` in a header.
pub(crate) fn next_page(answer: &Response<Body>) -> Option<String> {
    let links = answer.headers().get("link")?.to_str().ok()?;
    let next = links.split(',').find(|it| it.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_owned())
}

/// The JSON of an answer of `service`, such as `GitHub`. An answer that is not JSON is an error.
pub(crate) fn json(answer: &mut Response<Body>, service: &str) -> Result<Value> {
    let text = answer.body_mut().read_to_string()?;
    serde_json::from_str(&text).with_context(|| format!("{service}'s answer is not JSON"))
}

/// The answer itself if its status is a success; otherwise an error with the service's own words.
pub(crate) fn success(
    mut answer: Response<Body>,
    asked: &str,
    service: &str,
) -> Result<Response<Body>> {
    let status = answer.status();
    // 304 is only for who knows the answer already.
    if status.is_success() || status == 304 {
        return Ok(answer);
    }
    // The page of a proxy says nothing that its status does not.
    let is_page = answer.body().mime_type() == Some("text/html");
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    match words(&json).unwrap_or(&text).trim() {
        "" => bail!("{asked}: {service} answers {status}"),
        _ if is_page => bail!("{asked}: {service} answers {status}"),
        words => bail!("{asked}: {service} answers {status}: {words}"),
    }
}

/// What an error says in the service's own words: `error_description` and `error.message` are Azure's, `error` is
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

/// The address of a rehearsal cluster's real node, which only this machine reaches.
pub(crate) const REAL_NODE: &str = "10.213.88.2";

/// Whether this is an address on this machine, which docker and others talk to without TLS, too.
pub(crate) fn is_loopback(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|it| it.is_ascii_digit()) => host,
        _ => authority,
    };
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    ["localhost", REAL_NODE].contains(&host) || ip.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// An address as it may be shown: without the user and password that it may hold.
pub(crate) fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://***@{}", &rest[at + 1..]),
        None => address.to_owned(),
    }
}

/// A user and password as one text, as HTTP's basic authentication has them: <https://www.rfc-editor.org/rfc/rfc7617>.
pub(crate) fn basic(user: &str, password: &Secret) -> String {
    BASE64_STANDARD.encode(format!("{user}:{}", password.exposed()))
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
