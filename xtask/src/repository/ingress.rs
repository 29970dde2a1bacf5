//! The hosts at which hubs' ingresses answer, beside the domains in cluster.yaml.

use crate::{
    charts::values::{Chart, EnabledChart},
    repository::{
        cluster::{Cluster, Hub},
        domains,
        fleet::Fleet,
        hub_traits::has,
        problem::{Problem, Problems},
        release_config::ReleaseConfig,
    },
    yaml::{Data, Node, Place},
};

/// The chart whose ingress leads to the hub itself, where it is among a hub's charts.
const JUPYTERHUB: &str = "jupyterhub";

/// A host of a hub's ingress.
pub(crate) struct IngressHost<'a> {
    cluster: &'a Cluster,
    hub: &'a Hub,
    name: String,
    at: Place,
}

/// The hosts of all ingresses of a hub, in its charts' order. There are none if not all are known: one may be encrypted, and
/// what a chart sets in jsonnet is not read.
pub(crate) fn hosts<'a>(
    fleet: &Fleet,
    release: &ReleaseConfig<'a>,
    enabled: &EnabledChart,
    values: &Node,
) -> Vec<IngressHost<'a>> {
    let mut found = Vec::new();
    find(enabled, values, &mut found);
    let mut charts = found.iter().map(|(chart, _)| chart.name.as_str());
    let knows_hub = !has(enabled, JUPYTERHUB) || charts.any(|it| it == JUPYTERHUB);
    let Some(hub) = release.hub.filter(|_| knows_hub) else {
        return Vec::new();
    };
    let mut hosts = Vec::new();
    for (_, node) in found {
        let Some(name) = node.as_text() else {
            return Vec::new();
        };
        let set_at = node.at.filter(|it| fleet.is_set(release, *it));
        hosts.push(IngressHost {
            cluster: release.cluster,
            hub,
            name: name.to_owned(),
            at: set_at.unwrap_or(release.at),
        });
    }
    hosts
}

/// Finds the hosts in the values of a chart and its subcharts, each with its chart.
fn find<'a>(enabled: &EnabledChart<'a>, values: &'a Node, found: &mut Vec<(&'a Chart, &'a Node)>) {
    let ingress = values.get(&["ingress"]);
    let is_enabled = ingress.and_then(|it| it.get(&["enabled"]));
    if is_enabled.is_some_and(|it| matches!(it.data, Data::Bool(true))) {
        let hosts = ingress.and_then(|it| it.get(&["hosts"])?.as_list());
        let hosts = hosts.unwrap_or_default().iter();
        found.extend(hosts.map(|it| (enabled.chart, it)));
    }
    for part in &enabled.parts {
        if let Some(values) = values.get(&[part.name]) {
            find(part, values, found);
        }
    }
}

/// Adds that a hub's domain is none of its hosts: a person would not find it there. A domain that a file overrides is not
/// looked at.
pub(crate) fn domain_is_a_host(
    release: &ReleaseConfig,
    hosts: &[IngressHost],
    problems: &mut Problems,
) {
    let (Some(hub), [first, ..]) = (release.hub, hosts) else {
        return;
    };
    let is_found = hosts.iter().any(|it| it.is_at(&hub.domain));
    if is_found || release.domain_override.is_some() {
        return;
    }
    let message = format!(
        "{}: its ingress has the host `{}`, but its `domain` in `{}` is `{}`",
        release.shown_with_cluster(),
        first.name,
        release.cluster.file().display(),
        hub.domain
    );
    problems.problem("ingress-hosts", Some(first.at), message);
}

impl IngressHost<'_> {
    /// Whether the ingress answers at a domain. Its host may begin with `*.`, for any one label.
    fn is_at(&self, domain: &str) -> bool {
        let any = self.name.strip_prefix('*');
        let suffix = domain.find('.').map(|dot| &domain[dot..]);
        self.name == domain || any.is_some() && any == suffix
    }

    /// Whether another hub has the same host, though another domain, and the same path there. Nobody looks for a rehearsal
    /// cluster's hubs there.
    fn is_taken_by(&self, fleet: &Fleet, other: &IngressHost) -> bool {
        let is_rehearsed = self.cluster.is_local() || other.cluster.is_local();
        let is_told = domains::are_same(self.hub, other.hub);
        self.name == other.name
            && !self.is_of(other)
            && !is_rehearsed
            && !is_told
            && !domains::are_apart(fleet, (self.cluster, self.hub), (other.cluster, other.hub))
    }

    fn is_of(&self, other: &IngressHost) -> bool {
        self.hub.name == other.hub.name && self.cluster.file() == other.cluster.file()
    }
}

/// Hosts that belong to another hub as well. The rule about domains tells of hubs that have one domain.
pub(crate) fn hosts_of_two_hubs(fleet: &Fleet, hosts: &[IngressHost]) -> Vec<Problem> {
    let mut found = Vec::new();
    for host in hosts {
        let others = hosts.iter().filter(|other| host.is_taken_by(fleet, other));
        // That of a hub of the same cluster first.
        if let Some(other) = others.min_by_key(|it| domains::level(host.cluster, it.cluster)) {
            let level = domains::level(host.cluster, other.cluster);
            let mut problems = fleet.problems(Some(host.cluster), host.at);
            problems.hub = Some(&host.hub.name);
            let message = format!(
                "hub `{}` of `{}`: its ingress has the host `{}`, and so has that of hub `{}` of `{}`",
                host.hub.name, host.cluster.name, host.name, other.hub.name, other.cluster.name
            );
            problems.add(level, "ingress-hosts", None, message);
            found.extend(problems.found);
        }
    }
    found
}
