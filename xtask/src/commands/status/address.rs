//! Where people find a hub: its name in the DNS, and its certificate.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use serde::Serialize;

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
            self.should_lead_to = health::dns::entries(api, hub, &hub.domain);
            self.look_up(hub);
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
    fn look_up(&mut self, hub: &Hub) {
        let domain = &hub.domain;
        match dns::look_up(domain, PATIENCE) {
            Ok(found) => {
                self.leads_to = found.iter().map(ToString::to_string).collect();
                let address = health::address::Address::public(format!("https://{domain}"));
                let missing = address.missing(hub.expected_status(), Until::after(PATIENCE));
                let missing = missing.unwrap_or_else(Some);
                self.problems.extend(missing.map(|err| format!("{err:#}")));
            }
            Err(err) => {
                let problem = health::dns::unknown(domain, &err, &self.should_lead_to);
                self.problems.push(problem);
            }
        }
    }
}
