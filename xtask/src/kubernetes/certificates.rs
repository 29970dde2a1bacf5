//! cert-manager's certificates in a namespace: <https://cert-manager.io/docs/reference/api-docs/>

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::kubernetes::{api::Api, objects::named};

/// The certificate of a hub.
#[derive(Serialize)]
pub(crate) struct Certificate {
    pub(crate) name: String,
    pub(crate) is_issued: bool,
    /// As `2026-11-26T05:28:21Z`.
    pub(crate) expires: Option<String>,
    /// What keeps it from being issued.
    pub(crate) why: Option<String>,
}

/// The annotation by which requests and orders name their certificate.
const OWNER: &str = "cert-manager.io/certificate-name";

/// The certificates in a namespace; none without cert-manager.
pub(crate) fn find(api: &Api, namespace: &str) -> Result<Vec<Certificate>> {
    let found = list(api, namespace, "cert-manager.io", "certificates")?;
    let mut certificates = Vec::new();
    for certificate in &found {
        let ready = condition(certificate, "Ready");
        let is_issued = ready["status"] == "True";
        let text = |value: &Value| value.as_str().map(str::to_owned);
        certificates.push(Certificate {
            name: text(&certificate["metadata"]["name"]).unwrap_or_default(),
            is_issued,
            expires: text(&certificate["status"]["notAfter"]),
            why: if is_issued {
                None
            } else {
                Some(why(api, namespace, certificate)?)
            },
        });
    }
    Ok(certificates)
}

/// What keeps a certificate from being issued: what is nearest to the cause tells most.
fn why(api: &Api, namespace: &str, certificate: &Value) -> Result<String> {
    let domains = certificate["spec"]["dnsNames"].as_array();
    let domains = domains.map(Vec::as_slice).unwrap_or_default();
    for challenge in list(api, namespace, "acme.cert-manager.io", "challenges")? {
        let is_open = challenge["status"]["state"] != "valid";
        if let Some(reason) = text(&challenge["status"]["reason"])
            && is_open
            && domains.contains(&challenge["spec"]["dnsName"])
        {
            return Ok(format!("the challenge of its issuer: {reason}"));
        }
    }
    let is_its =
        |it: &Value| it["metadata"]["annotations"][OWNER] == certificate["metadata"]["name"];
    let orders = list(api, namespace, "acme.cert-manager.io", "orders")?;
    if let Some(order) = orders.iter().rfind(|it| is_its(it))
        && let Some(reason) = text(&order["status"]["reason"])
    {
        return Ok(format!("the order: {reason}"));
    }
    let requests = list(api, namespace, "cert-manager.io", "certificaterequests")?;
    if let Some(request) = requests.iter().rfind(|it| is_its(it))
        && let Some(message) = text(&condition(request, "Ready")["message"])
    {
        return Ok(format!("the request: {message}"));
    }
    let ready = condition(certificate, "Ready");
    Ok(text(&ready["message"])
        .unwrap_or("cert-manager has not seen it yet")
        .to_owned())
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    named(&object["status"]["conditions"], "type", kind)
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|it| !it.is_empty())
}

/// The objects of a kind, in the order of their creation; none if the API server does not know the kind.
fn list(api: &Api, namespace: &str, group: &str, plural: &str) -> Result<Vec<Value>> {
    let path = format!("/apis/{group}/v1/namespaces/{namespace}/{plural}");
    let found = api.find(&path)?.unwrap_or_default();
    let mut items = found["items"].as_array().cloned().unwrap_or_default();
    items.sort_by_key(|it| it["metadata"]["creationTimestamp"].to_string());
    Ok(items)
}
