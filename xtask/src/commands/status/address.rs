//! Where people find a hub: its name in the DNS, and its certificate.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::{
    health::{self, address::node_port},
    kubernetes::{
        api::Api,
        certificates::{self, Certificate},
    },
    machine::until::Until,
    repository::cluster::{Cluster, Hub},
    services::dns,
};

/// How long the DNS and the hub may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The address of a hub.
#[derive(Default, Serialize)]
pub(super) struct Address {
    pub(super) url: Option<String>,
    /// Where its name leads.
    pub(super) leads_to: BTreeSet<String>,
    /// The addresses that the cluster has for it.
    pub(super) should_lead_to: BTreeSet<String>,
    pub(super) certificates: Vec<Certificate>,
    /// What keeps people from finding it.
    pub(super) problems: Vec<String>,
    /// What could not be found out.
    #[serde(skip)]
    pub(super) unread: Option<String>,
}

impl Address {
    /// Looks a hub up in the DNS and in the cluster.
    pub(super) fn find(api: &Api, cluster: &Cluster, hub: &Hub) -> Address {
        let mut address = Address::default();
        if let Err(err) = address.read(api, cluster, hub) {
            address.unread = Some(format!("its address: {err:#}"));
        }
        address
    }

    fn read(&mut self, api: &Api, cluster: &Cluster, hub: &Hub) -> Result<()> {
        if cluster.is_local() {
            self.url = node_port(api, hub);
            return Ok(());
        }
        if hub.domain_override_file.is_none() {
            self.url = Some(format!("https://{}", hub.domain));
            self.should_lead_to = addresses_in_cluster(api, hub)?;
            self.look_up(&hub.domain);
        } else {
            let why = "its address: the domain is in a file that is not decrypted for this";
            self.unread = Some(why.to_owned());
        }
        self.certificates = certificates::find(api, &hub.name)?;
        for Certificate { name, why, .. } in &self.certificates {
            if let Some(why) = why {
                let problem = format!("certificate `{name}` is not issued: {why}");
                self.problems.push(problem);
            }
        }
        Ok(())
    }

    /// Looks for the domain in the DNS, and whether something with a certificate answers there.
    fn look_up(&mut self, domain: &str) {
        match dns::look_up(domain, PATIENCE) {
            Ok(found) => {
                self.leads_to = found.iter().map(ToString::to_string).collect();
                let address = health::address::Address::public(format!("https://{domain}"));
                let missing = address.missing(Until::after(PATIENCE));
                let missing = missing.unwrap_or_else(Some);
                self.problems.extend(missing.map(|err| format!("{err:#}")));
            }
            Err(err) => {
                let hint = self.wanted_record();
                let problem = format!("`{domain}` is not in the DNS: {err:#}\nhint: {hint}");
                self.problems.push(problem);
            }
        }
    }

    fn wanted_record(&self) -> String {
        let wanted: Vec<_> = self.should_lead_to.iter().cloned().collect();
        if wanted.is_empty() {
            "the cluster has no address for it yet that a DNS record could lead to".to_owned()
        } else {
            format!(
                "a DNS record of that name should lead to {}",
                wanted.join(", ")
            )
        }
    }
}

/// The addresses of the hub's Ingress, or of the load balancer of its proxy.
fn addresses_in_cluster(api: &Api, hub: &Hub) -> Result<BTreeSet<String>> {
    let namespace = &hub.name;
    let path = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses");
    let ingresses = api.get(&path)?;
    let mut addresses = BTreeSet::new();
    for ingress in ingresses["items"].as_array().into_iter().flatten() {
        let mut rules = ingress["spec"]["rules"].as_array().into_iter().flatten();
        if rules.any(|it| it["host"] == *hub.domain) {
            addresses.extend(load_balancer(ingress));
        }
    }
    if addresses.is_empty() {
        let path = format!("/api/v1/namespaces/{namespace}/services/proxy-public");
        addresses.extend(load_balancer(&api.find(&path)?.unwrap_or_default()));
    }
    Ok(addresses)
}

/// The addresses in the status of an Ingress or a Service.
fn load_balancer(object: &Value) -> Vec<String> {
    let entries = object["status"]["loadBalancer"]["ingress"].as_array();
    let entries = entries.into_iter().flatten();
    let named = entries.filter_map(|it| it["ip"].as_str().or(it["hostname"].as_str()));
    named.map(str::to_owned).collect()
}
