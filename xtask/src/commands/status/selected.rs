//! Which clusters `status` shows.

use anyhow::{Result, bail};

use crate::{
    machine::tree::Tree,
    repository::{
        cluster::Cluster,
        cluster_yaml::{self, UnusableCluster},
    },
};

/// The clusters that are shown.
pub(super) struct Selected {
    pub(super) clusters: Vec<Cluster>,
    /// Those whose cluster.yaml has problems.
    pub(super) unusable: Vec<UnusableCluster>,
    /// Whether people named them.
    pub(super) is_named: bool,
}

impl Selected {
    pub(super) fn count(&self) -> usize {
        self.clusters.len() + self.unusable.len()
    }

    /// Those of these names in their order, or all of them without names.
    pub(super) fn read(tree: &Tree, names: &[String]) -> Result<Selected> {
        let (mut clusters, mut unusable) = Cluster::all(tree)?;
        if !names.is_empty() {
            let files = cluster_yaml::files(tree)?;
            for name in names {
                cluster_yaml::only_file(&files, name)?;
            }
            clusters.retain(|it| names.contains(&it.name));
            clusters.sort_by_key(|cluster| names.iter().position(|it| *it == cluster.name));
            unusable.retain(|it| names.contains(&it.name));
        }
        if clusters.is_empty() {
            bail!(cluster_yaml::no_other(&unusable));
        }
        Ok(Selected {
            clusters,
            unusable,
            is_named: !names.is_empty(),
        })
    }
}
