//! Production that a freeze of config/xtask.yaml holds.

use anyhow::{Result, bail};

use crate::{
    commands::deploy::options::DeployOptions,
    kubernetes::record::Record,
    machine::{terminal::list, tree::Tree, workflow},
    repository::{cluster::Cluster, freezes},
    settings::Settings,
};

impl DeployOptions {
    /// Refuses to deploy these releases while a freeze holds them, unless a reason is given to ignore it. Only what changes
    /// nothing may go on.
    pub(crate) fn refuse_frozen(
        &self,
        tree: &Tree,
        settings: &Settings,
        cluster: &Cluster,
        releases: &[&str],
    ) -> Result<()> {
        if self.dry_run || self.ignore_freeze.is_some() {
            return Ok(());
        }
        if cluster.is_local() || releases.is_empty() {
            return Ok(());
        }
        freezes::refuse_unknown(tree, settings)?;
        let Some(freeze) = settings.freeze_of(&cluster.name) else {
            return Ok(());
        };
        bail!(
            "production of `{}` is {}\nnothing was deployed; held are {}\n\
             hint: staging hubs can be deployed by name; {} deploys production all the same, and records why",
            cluster.name,
            freeze.shown(),
            list(releases),
            workflow::option("ignore-freeze REASON")
        )
    }

    /// Has the reason recorded for which a freeze is ignored, if there is one now.
    pub(crate) fn record_ignored_freeze(
        &self,
        settings: &Settings,
        cluster: &str,
        record: &mut Record,
    ) {
        if settings.freeze_of(cluster).is_some() {
            record.ignore_freeze.clone_from(&self.ignore_freeze);
        }
    }
}
