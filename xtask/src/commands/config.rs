//! Names for scripts.

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use crate::{machine::terminal, repository::cluster::Cluster};

/// Print the names of clusters or hubs, one a line
#[derive(clap::Subcommand)]
pub enum Config {
    /// Print the names of all clusters
    GetClusters {
        /// Only those of this provider, as cluster.yaml has it
        #[arg(long, value_name = "PROVIDER")]
        provider: Option<String>,
    },
    /// Print the names of a cluster's hubs, or of all hubs as CLUSTER/HUB
    GetHubs {
        /// A folder in config/clusters/
        cluster: Option<String>,
    },
}

/// Prints names.
pub fn config(root: &Path, command: &Config) -> Result<ExitCode> {
    let lines: Vec<String> = match command {
        Config::GetClusters { provider } => {
            let clusters = Cluster::all(root)?.into_iter();
            let is_wanted = |it: &Cluster| {
                provider
                    .as_deref()
                    .is_none_or(|wanted| it.provider_name() == Some(wanted))
            };
            clusters.filter(is_wanted).map(|it| it.name).collect()
        }
        Config::GetHubs {
            cluster: Some(name),
        } => Cluster::load(root, name)?
            .hubs
            .into_iter()
            .map(|it| it.name)
            .collect(),
        Config::GetHubs { cluster: None } => {
            let clusters = Cluster::all(root)?.into_iter();
            clusters
                .flat_map(|cluster| {
                    let of = cluster.name;
                    cluster
                        .hubs
                        .into_iter()
                        .map(move |it| format!("{of}/{}", it.name))
                })
                .collect()
        }
    };
    terminal::print(
        &lines
            .into_iter()
            .map(|it| {
                it + "
"
            })
            .collect::<String>(),
    )?;
    Ok(ExitCode::SUCCESS)
}
