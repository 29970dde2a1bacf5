//! Finds the hubs to check after a change of cloud resources.

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use serde_json::Value;
use xshell::Shell;

use crate::{
    commands::generate::{
        changed::{ChangeSource, Changed},
        jobs::{Table, Todo, as_json, clusters, jobs, tell_left_out},
    },
    machine::{
        terminal::{self, Format},
        tree::Tree,
        workflow,
    },
    repository::cluster::{Cluster, Hub},
};

/// List the hubs to check after a change to Terraform or eksctl files
///
/// These are the hubs of each cluster whose own file changed (terraform/PROVIDER/projects/CLUSTER.tfvars or
/// eksctl/CLUSTER.jsonnet), and the hubs of all clusters of a provider whose shared files changed. In a workflow the lists
/// of jobs become its outputs.
///
/// A cluster whose cluster.yaml has problems is reported and has no jobs; the exit status is 1 then.
#[derive(clap::Args)]
pub struct HealthCheckJobs {
    #[command(flatten)]
    source: ChangeSource,
    /// How to print the jobs; `json` is an object with the lists for the matrices of a workflow
    #[arg(long, default_value = "text")]
    format: Format,
}

/// The hubs of a cluster that are to be checked.
struct Checks<'a> {
    cluster: &'a Cluster,
    staging: Vec<Todo<'a>>,
    prod: Vec<Todo<'a>>,
}

pub(crate) fn health_check_jobs(
    sh: &Shell,
    tree: &Tree,
    args: &HealthCheckJobs,
) -> Result<ExitCode> {
    let changed = args.source.changed(sh)?;
    let (clusters, unusable) = clusters(tree)?;
    let checks: Vec<_> = clusters
        .iter()
        .filter_map(|cluster| checks(cluster, &changed))
        .collect();
    let staging = checks.iter().map(|it| (it.cluster, &it.staging[..]));
    let prod = checks.iter().map(|it| (it.cluster, &it.prod[..]));
    let lists: [(&str, Value); 2] = [
        ("staging-jobs", jobs(staging, "reason")?),
        ("prod-jobs", jobs(prod, "reason")?),
    ];
    workflow::set("GITHUB_OUTPUT", &lists)?;
    terminal::print(&match args.format {
        Format::Json => as_json(&lists)?,
        Format::Text => table(&checks).text(),
    })?;
    Ok(tell_left_out(tree, &unusable))
}

/// All hubs of a cluster, if there is a reason to check them.
fn checks<'a>(cluster: &'a Cluster, changed: &Changed) -> Option<Checks<'a>> {
    let reason = reason(cluster, changed)?;
    let todos = cluster.hubs.iter().map(|hub: &Hub| Todo {
        hub,
        reason: reason.clone(),
    });
    let (staging, prod) = todos.partition(|it| it.hub.is_staging());
    Some(Checks {
        cluster,
        staging,
        prod,
    })
}

fn table(checks: &[Checks]) -> Table<'static> {
    let mut rows = Vec::new();
    for Checks {
        cluster,
        staging,
        prod,
    } in checks
    {
        let provider = cluster.provider_name().unwrap_or_default();
        for todo in staging.iter().chain(prod) {
            let cells = [provider, &cluster.name, &todo.hub.name, &todo.reason];
            rows.push(cells.map(str::to_owned).to_vec());
        }
    }
    Table {
        title: "Hubs to check",
        head: &[
            "Cloud Provider",
            "Cluster Name",
            "Hub Name",
            "Reason for Check",
        ],
        rows,
        none: "No hubs",
    }
}

/// Why the hubs of a cluster are to be checked, if they are.
fn reason(cluster: &Cluster, changed: &Changed) -> Option<String> {
    if matches!(changed, Changed::Everything) {
        return Some("Nothing was checked before".to_owned());
    }
    let provider = cluster.provider_name()?;
    let is_aws = provider == "aws";
    let terraform = Path::new("terraform").join(provider);
    let own = terraform.join(format!("projects/{}.tfvars", cluster.name));
    if changed.has(&own) {
        return Some(own_file(&own));
    }
    let own = Path::new("eksctl").join(format!("{}.jsonnet", cluster.name));
    if is_aws && changed.has(&own) {
        return Some(own_file(&own));
    }
    let mut of_terraform = changed.within(&terraform);
    if of_terraform.any(|file| !file.starts_with("projects")) {
        return Some(format!(
            "Terraform of all clusters was modified: {}",
            terraform.display()
        ));
    }
    (is_aws && has_shared_eksctl(changed))
        .then(|| "eksctl files of all clusters were modified".to_owned())
}

fn own_file(file: &Path) -> String {
    format!("Following file was modified: {}", file.display())
}

/// Whether an eksctl file that all clusters share has changed.
fn has_shared_eksctl(changed: &Changed) -> bool {
    changed.has(Path::new("eksctl/template.jsonnet"))
        || changed
            .within(Path::new("eksctl/libsonnet"))
            .next()
            .is_some()
}
