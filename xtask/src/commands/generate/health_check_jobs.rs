//! Which hubs to check after a change of cloud resources.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use xshell::Shell;

use crate::{
    commands::generate::{
        changed::{ChangeSource, Changed},
        jobs::{Todo, as_json, clusters, jobs, table},
    },
    machine::{
        terminal::{self, Format},
        workflow,
    },
    repository::cluster::{Cluster, Hub},
};

/// Which hubs to check after a change of Terraform or eksctl files
///
/// Those of a cluster whose own file changed (terraform/PROVIDER/projects/CLUSTER.tfvars, eksctl/CLUSTER.jsonnet), and of all
/// clusters of a provider whose shared files did.
#[derive(clap::Args)]
pub struct HealthCheckJobs {
    #[command(flatten)]
    source: ChangeSource,
    /// How to print the jobs; `json` has the lists for the matrices of a workflow
    #[arg(long, default_value = "text")]
    format: Format,
}

pub(crate) fn health_check_jobs(sh: &Shell, root: &Path, args: &HealthCheckJobs) -> Result<()> {
    let changed = args.source.changed(sh)?;
    let clusters = clusters(root)?;
    let touched: Vec<_> = clusters
        .iter()
        .filter_map(|cluster| {
            let reason = reason(cluster, &changed)?;
            let todos = |is_staging: bool| -> Vec<Todo> {
                let hubs = cluster
                    .hubs
                    .iter()
                    .filter(|it: &&Hub| it.is_staging() == is_staging);
                hubs.map(|hub| Todo {
                    hub,
                    reason: reason.clone(),
                })
                .collect()
            };
            Some((cluster, todos(true), todos(false)))
        })
        .collect();
    let lists: [(&str, Value); 2] = [
        (
            "staging-jobs",
            jobs(
                touched.iter().map(|(cluster, it, _)| (*cluster, &it[..])),
                "reason",
            )?,
        ),
        (
            "prod-jobs",
            jobs(
                touched.iter().map(|(cluster, _, it)| (*cluster, &it[..])),
                "reason",
            )?,
        ),
    ];
    workflow::set("GITHUB_OUTPUT", &lists)?;
    terminal::print(&match args.format {
        Format::Json => as_json(&lists)?,
        Format::Text => {
            let todos = touched.iter().flat_map(|(cluster, staging, prod)| {
                staging.iter().chain(prod).map(move |it| {
                    let provider = cluster.provider_name().unwrap_or_default().to_owned();
                    vec![
                        provider,
                        cluster.name.clone(),
                        it.hub.name.clone(),
                        it.reason.clone(),
                    ]
                })
            });
            let head = [
                "Cloud Provider",
                "Cluster Name",
                "Hub Name",
                "Reason for Check",
            ];
            table(
                "Hubs to check",
                &head,
                &todos.collect::<Vec<_>>(),
                "No hubs",
            )
        }
    })
}

/// Why the hubs of a cluster are to be checked, if they are.
fn reason(cluster: &Cluster, changed: &Changed) -> Option<String> {
    if matches!(changed, Changed::Everything) {
        return Some("Nothing was checked before".to_owned());
    }
    let provider = cluster.provider_name()?;
    let terraform = Path::new("terraform").join(provider);
    let own = [
        (
            terraform
                .join("projects")
                .join(format!("{}.tfvars", cluster.name)),
            true,
        ),
        (
            Path::new("eksctl").join(format!("{}.jsonnet", cluster.name)),
            provider == "aws",
        ),
    ];
    let own = own.into_iter().find(|(file, is)| *is && changed.has(file));
    if let Some((file, _)) = own {
        return Some(format!("Following file was modified: {}", file.display()));
    }
    if changed
        .within(&terraform)
        .any(|it| !it.starts_with("projects"))
    {
        return Some(format!(
            "Terraform of all clusters was modified: {}",
            terraform.display()
        ));
    }
    let eksctl = changed.has(Path::new("eksctl/template.jsonnet"))
        || changed
            .within(Path::new("eksctl/libsonnet"))
            .next()
            .is_some();
    (provider == "aws" && eksctl).then(|| "eksctl files of all clusters were modified".to_owned())
}
