//! Domains that two hubs have: people find only one of them there.

use crate::{
    repository::{
        cluster::{Cluster, Hub},
        fleet::Fleet,
        problem::{Level, Problems},
        values_file::ValuesFile,
    },
    yaml::Node,
};

/// Hubs of one cluster cannot share a domain, unless they are below different paths. On two clusters a hub that moves has
/// both for a time.
pub(crate) fn are_unique(fleet: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    for hub in &cluster.hubs {
        let beside = others(fleet, cluster, hub).find(|(it, _)| is_same(it, cluster));
        let Some((other_cluster, other)) = beside.or_else(|| fleet.elsewhere(cluster, hub)) else {
            continue;
        };
        let path = ["hubs", &hub.index.to_string(), "domain"];
        let at = cluster.yaml.get(&path).and_then(|it| it.at);
        let message = format!(
            "hub `{}`: hub `{}` of `{}` has the same domain `{}`",
            hub.name, other.name, other_cluster.name, hub.domain
        );
        problems.add(level(cluster, other_cluster), "domains", at, message);
    }
}

/// How bad it is that hubs of these clusters are at one place.
pub(crate) fn level(cluster: &Cluster, other: &Cluster) -> Level {
    if is_same(cluster, other) {
        Level::Problem
    } else {
        Level::Warning
    }
}

/// Whether two hubs have one domain, as far as cluster.yaml says.
pub(crate) fn are_same(hub: &Hub, other: &Hub) -> bool {
    let is_known = hub.domain_override_file.is_none() && other.domain_override_file.is_none();
    is_known && hub.domain.eq_ignore_ascii_case(&other.domain)
}

impl Fleet {
    /// The hub of another cluster that has the same domain.
    pub(crate) fn elsewhere(&self, cluster: &Cluster, hub: &Hub) -> Option<(&Cluster, &Hub)> {
        others(self, cluster, hub).find(|(it, _)| !is_same(it, cluster))
    }
}

/// Other hubs of the same domain. Nobody finds a hub of a rehearsal cluster by it.
fn others<'a>(
    fleet: &'a Fleet,
    cluster: &Cluster,
    hub: &Hub,
) -> impl Iterator<Item = (&'a Cluster, &'a Hub)> {
    let clusters = fleet.clusters.iter();
    let clusters = clusters.filter(|it| !it.is_local() && !cluster.is_local());
    let hubs = clusters.flat_map(|it| it.hubs.iter().map(move |hub| (it, hub)));
    hubs.filter(move |(other_cluster, other)| {
        let is_itself = || is_same(other_cluster, cluster) && other.name == hub.name;
        are_same(hub, other)
            && !is_itself()
            && !are_apart(fleet, (cluster, hub), (other_cluster, other))
    })
}

fn is_same(cluster: &Cluster, other: &Cluster) -> bool {
    cluster.dir == other.dir
}

/// Whether two hubs at one host are below different paths of it: those of one cluster are behind the same ingress
/// controller.
pub(crate) fn are_apart(fleet: &Fleet, hub: (&Cluster, &Hub), other: (&Cluster, &Hub)) -> bool {
    is_same(hub.0, other.0) && base(fleet, hub.1) != base(fleet, other.1)
}

/// The path below which a hub answers: z2jh's `hub.baseUrl` in its values files, or else in its chart's.
fn base(fleet: &Fleet, hub: &Hub) -> String {
    let listed = hub.helm_chart_values_files.iter().rev().cloned();
    let mut files = listed.chain([hub.chart_folder().join("values.yaml")]);
    let found = files.find_map(|path| {
        let file = ValuesFile::read(&fleet.tree, &path, 0);
        base_in(file.plain()?).map(str::to_owned)
    });
    found.unwrap_or_default().trim_matches('/').to_owned()
}

/// It in the values of a chart, or in those for one of its subcharts.
fn base_in(values: &Node) -> Option<&str> {
    let own = values.text(&["hub", "baseUrl"]);
    own.or_else(|| values.as_map()?.values().find_map(base_in))
}
