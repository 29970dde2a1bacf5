//! Prints names for scripts, and finds and sets values.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use xshell::Shell;

use self::{
    get_values::{GetValues, get_values},
    set::{Set, set},
};
use crate::{
    machine::{
        terminal::{self, did_you_mean, list},
        tree::Tree,
    },
    repository::cluster::{Cluster, PROVIDERS, provider_meant},
};

mod get_values;
mod set;

#[doc(hidden)]
pub use self::set::set_in;

/// Print the names of clusters and hubs, and find and set their values
///
/// A cluster whose cluster.yaml has problems is a warning, and the others are printed.
#[derive(clap::Subcommand)]
#[allow(missing_docs, reason = "clap takes the help of what some of them hold")]
pub enum Config {
    /// Print the names of all clusters
    GetClusters {
        /// Only clusters with this `provider` in cluster.yaml
        #[arg(
            long,
            value_name = "PROVIDER",
            value_parser = provider,
            add = ArgValueCandidates::new(providers)
        )]
        provider: Option<String>,
    },
    /// Print the names of a cluster's hubs, or of all hubs as CLUSTER/HUB
    GetHubs {
        /// Cluster, by its folder in config/clusters/
        cluster: Option<String>,
    },
    GetValues(GetValues),
    Set(Set),
}

fn provider(name: &str) -> Result<String> {
    ensure!(
        PROVIDERS.contains(&name),
        "there are {}{}",
        list(PROVIDERS),
        did_you_mean(provider_meant(name))
    );
    Ok(name.to_owned())
}

/// For completion.
fn providers() -> Vec<CompletionCandidate> {
    PROVIDERS.map(CompletionCandidate::new).into()
}

/// Prints names or values, or sets a value.
pub fn config(sh: &Shell, tree: &Tree, command: &Config) -> Result<ExitCode> {
    let names = match command {
        Config::GetClusters { provider } => clusters(tree, provider.as_deref())?,
        Config::GetHubs { cluster: None } => all_hubs(tree)?,
        Config::GetHubs {
            cluster: Some(name),
        } => Cluster::load(tree, name)?
            .hubs
            .into_iter()
            .map(|it| it.name)
            .collect(),
        Config::GetValues(args) => return get_values(sh, tree, args),
        Config::Set(args) => return set(sh, tree, args),
    };
    let lines: String = names.iter().map(|it| format!("{it}\n")).collect();
    terminal::print(&lines)?;
    Ok(ExitCode::SUCCESS)
}

fn clusters(tree: &Tree, provider: Option<&str>) -> Result<Vec<String>> {
    let mut clusters = Cluster::usable(tree)?;
    if provider.is_some() {
        clusters.retain(|it| it.provider_name() == provider);
    }
    Ok(clusters.into_iter().map(|it| it.name).collect())
}

fn all_hubs(tree: &Tree) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for cluster in Cluster::usable(tree)? {
        for hub in &cluster.hubs {
            names.push(cluster.path_of(&hub.name));
        }
    }
    Ok(names)
}
