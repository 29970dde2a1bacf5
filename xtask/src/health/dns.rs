//! A hub's name that no DNS record has yet, and what the record should point to.

use std::net::IpAddr;

use serde_json::Value;

use crate::{health::address::Address, kubernetes::api::Api, repository::cluster::Hub};

/// What to say of a hub whose name nobody knows; none if it is known.
pub(crate) fn missing_record(api: &Api, hub: &Hub, address: &Address) -> Option<String> {
    let (host, why) = address.unknown_host()?;
    let hint = match entry(api, hub, &host) {
        Some(to) => format!("add {} for it", record(&to)),
        None => "add one that points to the load balancer of the ingress controller, which has no address in the hub's \
                 Ingress yet; `cargo xtask deploy-support` installs one"
            .to_owned(),
    };
    Some(format!("`{host}` has no DNS record ({why})\nhint: {hint}"))
}

/// "an A record with `203.0.113.7`", or that of a host's name.
fn record(to: &str) -> String {
    let kind = match to.parse() {
        Ok(IpAddr::V4(_)) => "an A record with",
        Ok(IpAddr::V6(_)) => "an AAAA record with",
        Err(_) => "a CNAME record to",
    };
    format!("{kind} `{to}`")
}

/// The address at which the cluster takes requests for a host: that of the hub's Ingress, of the ingress controller, or of
/// the hub's own load balancer.
fn entry(api: &Api, hub: &Hub, host: &str) -> Option<String> {
    let namespace = &hub.name;
    let ingresses = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses");
    let of_host = |it: &Value| {
        let rules = it["spec"]["rules"].as_array();
        rules.is_some_and(|rules| rules.iter().any(|rule| rule["host"] == host))
    };
    let own = format!("/api/v1/namespaces/{namespace}/services");
    first_address(api, &ingresses, of_host)
        .or_else(|| first_address(api, "/api/v1/namespaces/support/services", |_| true))
        .or_else(|| first_address(api, &own, |_| true))
}

/// The first address of a load balancer that one of these objects has. What may not be listed has none.
fn first_address(api: &Api, list: &str, is_meant: impl Fn(&Value) -> bool) -> Option<String> {
    let list = api.get(list).ok()?;
    let meant = list["items"].as_array()?.iter().filter(|it| is_meant(it));
    let mut addresses = meant.flat_map(|it| it["status"]["loadBalancer"]["ingress"].as_array());
    let first = addresses.find_map(|it| it.first())?;
    let address = first["ip"].as_str().or(first["hostname"].as_str())?;
    Some(address.to_owned())
}
