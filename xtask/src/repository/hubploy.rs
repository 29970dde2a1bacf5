//! hubploy's command line, which people type out of habit: <https://github.com/berkeley-dsep-infra/hubploy>.

use anyhow::Result;

use crate::{
    machine::tree::Tree,
    repository::{cluster::Cluster, cluster_yaml},
};

/// In hubploy's order.
pub(crate) const ENVIRONMENTS: [&str; 3] = ["develop", "staging", "prod"];

/// What `image build` and `deploy` are told for the hubs that some environments of a deployment became: `lake data8-prod`.
/// None if a cluster has the deployment's name, or nothing was made of it.
pub(crate) fn hubs_of(
    tree: &Tree,
    deployment: &str,
    environments: &[&str],
) -> Result<Option<String>> {
    if cluster_yaml::names(tree).iter().any(|it| it == deployment) {
        return Ok(None);
    }
    let (clusters, _) = Cluster::all(tree)?;
    for cluster in &clusters {
        let names = environments.iter().map(|it| format!("{deployment}-{it}"));
        let hubs: Vec<_> = names
            .filter(|name| cluster.hubs.iter().any(|hub| hub.name == *name))
            .collect();
        if !hubs.is_empty() {
            return Ok(Some(format!("{} {}", cluster.name, hubs.join(" "))));
        }
    }
    Ok(None)
}
