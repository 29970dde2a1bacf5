//! Finds the hubs to check after a change of cloud resources.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

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
    repository::cluster::{Cluster, Hub, Provider},
};

/// List the hubs to check after a change to Terraform or eksctl files
///
/// These are the hubs of each cluster whose own file changed (terraform/*/projects/CLUSTER.tfvars or
/// eksctl/CLUSTER.jsonnet), and the hubs of all clusters of a provider, or with a file in that folder, whose shared files
/// changed. In a workflow the lists of jobs become its outputs.
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
        .filter_map(|cluster| checks(tree, cluster, &changed))
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
fn checks<'a>(tree: &Tree, cluster: &'a Cluster, changed: &Changed) -> Option<Checks<'a>> {
    let reason = reason(tree, cluster, changed)?;
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
fn reason(tree: &Tree, cluster: &Cluster, changed: &Changed) -> Option<String> {
    if matches!(changed, Changed::Everything) {
        return Some("Nothing was checked before".to_owned());
    }
    let is_aws = cluster.provider_name() == Some("aws");
    let terraform = terraform(tree, cluster, changed);
    let own = terraform.iter().map(|it| own_tfvars(it, cluster));
    if let Some(own) = own.into_iter().find(|it| changed.has(it)) {
        return Some(own_file(&own));
    }
    let own = Path::new("eksctl").join(format!("{}.jsonnet", cluster.name));
    if is_aws && changed.has(&own) {
        return Some(own_file(&own));
    }
    let is_shared = |file: &Path| !file.starts_with("projects");
    let mut terraform = terraform.iter();
    if let Some(folder) = terraform.find(|it| changed.within(it).any(is_shared)) {
        return Some(format!(
            "Terraform of all clusters was modified: {}",
            folder.display()
        ));
    }
    (is_aws && has_shared_eksctl(changed))
        .then(|| "eksctl files of all clusters were modified".to_owned())
}

/// The folders of Terraform files that make a cluster: its provider's, and each that has a file of the cluster's own, as
/// terraform/openstack for one that is logged in to with a kubeconfig. For that one a file that is gone counts as well.
fn terraform(tree: &Tree, cluster: &Cluster, changed: &Changed) -> BTreeSet<PathBuf> {
    let all = Path::new("terraform");
    let of_changed = changed.within(all).filter_map(|it| it.iter().next());
    let mut names: BTreeSet<OsString> = of_changed.map(OsString::from).collect();
    names.extend(tree.children(all).unwrap_or_default());
    let mut folders: BTreeSet<_> = names.into_iter().map(|it| all.join(it)).collect();
    let is_anywhere = matches!(cluster.provider, Provider::Kubeconfig(_));
    folders.retain(|folder| {
        let own = own_tfvars(folder, cluster);
        tree.is_file(&own) || is_anywhere && changed.files().any(|it| *it == own)
    });
    folders.extend(cluster.provider_name().map(|it| all.join(it)));
    folders
}

fn own_tfvars(terraform: &Path, cluster: &Cluster) -> PathBuf {
    terraform.join(format!("projects/{}.tfvars", cluster.name))
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
