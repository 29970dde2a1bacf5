//! Which hubs are meant by names of clusters and hubs.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, bail};

use crate::{
    machine::terminal::list,
    repository::{cluster::Cluster, cluster_yaml, fleet::Fleet},
};

/// A cluster, and its releases that were named; none for all of its hubs.
type Named<'a> = (&'a Cluster, Vec<&'a str>);

/// The releases of these names, as in "lake/prod": each name is a cluster's, or that of a hub of the cluster before it.
pub(crate) fn releases(fleet: &Fleet, names: &[String]) -> Result<BTreeSet<String>> {
    let mut named: Vec<Named> = Vec::new();
    let mut wrong = Vec::new();
    for name in names {
        if let Err(err) = add(fleet, name, &mut named) {
            wrong.push(format!("{err:#}"));
        }
    }
    if !wrong.is_empty() {
        bail!(wrong.join("\n"));
    }
    let mut releases = BTreeSet::new();
    for (cluster, of_cluster) in named {
        if of_cluster.is_empty() {
            let hubs = cluster.select_hubs(&[])?;
            releases.extend(hubs.iter().map(|it| cluster.path_of(&it.name)));
        }
        releases.extend(of_cluster.iter().map(|it| cluster.path_of(it)));
    }
    Ok(releases)
}

fn add<'a>(fleet: &'a Fleet, name: &'a str, named: &mut Vec<Named<'a>>) -> Result<()> {
    if let Some((cluster, hub)) = name.split_once('/') {
        let cluster = fleet.cluster(cluster)?;
        named.push((cluster, vec![cluster.release(hub)?]));
        return Ok(());
    }
    let is_cluster = cluster_yaml::names(&fleet.tree).iter().any(|it| it == name);
    if name == "all" && !is_cluster {
        named.extend(fleet.clusters.iter().map(|it| (it, Vec::new())));
        return Ok(());
    }
    let is_named = named.iter().any(|(it, _)| it.name == name);
    let Some((cluster, hubs)) = named.last_mut() else {
        named.push((fleet.cluster(name)?, Vec::new()));
        return Ok(());
    };
    match (cluster.release(name), is_cluster) {
        (Ok(_), true) if !is_named => bail!(
            "`{name}` is a cluster, and a hub of `{}`\nhint: write `{}` for the hub, or name the cluster before `{0}`",
            cluster.name,
            cluster.path_of(name)
        ),
        (Ok(hub), _) => hubs.push(hub),
        (Err(_), true) => named.push((fleet.cluster(name)?, Vec::new())),
        (Err(_), false) => bail!(neither(fleet, cluster, name)),
    }
    Ok(())
}

/// The error about a name that is neither a hub's nor a cluster's.
fn neither(fleet: &Fleet, cluster: &Cluster, name: &str) -> anyhow::Error {
    anyhow!(
        "cluster `{}` has no hub `{name}`; it has: {}\nand there is no cluster of that name; there are: {}",
        cluster.name,
        list(cluster.releases()),
        list(cluster_yaml::names(&fleet.tree))
    )
}
