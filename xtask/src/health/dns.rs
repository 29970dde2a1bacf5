//! A hub's name that no DNS record has yet, and what the record should point to.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Error;
use serde_json::Value;

use crate::{
    health::address::Address, kubernetes::api::Api, machine::workflow, repository::cluster::Hub,
};

/// What to say of a hub whose name nobody knows; none if it is known.
pub(crate) fn missing_record(api: &Api, hub: &Hub, address: &Address) -> Option<String> {
    let (host, why) = address.unknown_host()?;
    Some(unknown(&host, &why, &entries(api, hub, &host)))
}

/// What to say of a host that nobody knows, and that should lead to one of these addresses.
pub(crate) fn unknown(host: &str, why: &Error, entries: &BTreeSet<String>) -> String {
    let hint = match entries.first() {
        Some(to) => format!("add {} for it", record(to)),
        None => format!(
            "add one that points to the load balancer of the ingress controller, which has no address in the hub's Ingress \
             yet; {} installs one",
            workflow::action("cargo xtask deploy-support")
        ),
    };
    format!("`{host}` has no DNS record ({why:#})\nhint: {hint}")
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

/// The addresses at which the cluster takes requests for a host: those of the hub's Ingress, of the hub's own load balancer,
/// or of the ingress controller. What may not be listed has none.
pub(crate) fn entries(api: &Api, hub: &Hub, host: &str) -> BTreeSet<String> {
    let namespace = &hub.name;
    let ingresses = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses");
    let of_host = |it: &Value| {
        let rules = it["spec"]["rules"].as_array();
        rules.is_some_and(|rules| rules.iter().any(|rule| rule["host"] == host))
    };
    let mut found = addresses(api, &ingresses, of_host);
    for namespace in [namespace, "support"] {
        if found.is_empty() {
            let services = format!("/api/v1/namespaces/{namespace}/services");
            found = addresses(api, &services, |_| true);
        }
    }
    found
}

/// The addresses of the load balancers of the objects that are meant.
fn addresses(api: &Api, list: &str, is_meant: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let list = api.get(list).unwrap_or_default();
    let objects = list["items"].as_array().into_iter().flatten();
    let balancers = objects
        .filter(|it| is_meant(it))
        .filter_map(|it| it["status"]["loadBalancer"]["ingress"].as_array());
    let addresses = balancers
        .flatten()
        .filter_map(|it| it["ip"].as_str().or(it["hostname"].as_str()));
    addresses.map(str::to_owned).collect()
}
