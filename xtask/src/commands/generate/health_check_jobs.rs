//! Finds the hubs to check after a change of cloud resources.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    mem,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use serde_json::{Value, json};
use xshell::Shell;

use crate::{
    charts::fetch,
    commands::generate::{
        changed::{ChangeSource, Changed},
        jobs::{
            JOBS, OfCluster, Share, Table, Todo, as_json, by_provider, clusters, shares,
            tell_left_out,
        },
    },
    machine::{
        terminal::{self, Format},
        tree::Tree,
        workflow,
    },
    repository::{
        cluster::{Cluster, Hub, Provider},
        fleet::Fleet,
        hub_traits,
        problem::What,
    },
};

/// List the hubs to check after a change to Terraform or eksctl files, or every night
///
/// After a change these are the hubs of each cluster whose own file changed (terraform/*/projects/CLUSTER.tfvars or
/// eksctl/CLUSTER.jsonnet), and the hubs of all clusters of a provider, or with a file in that folder, whose shared files
/// changed; without one they are all hubs. In a workflow the lists of jobs become its outputs, with a list of these clusters
/// and their hubs. Hubs that are paused are left out, and so are those whose health nobody can check: cluster.yaml has
/// `health_check: false`, or their values lack the service `hub-health`.
///
/// A cluster whose cluster.yaml has problems is reported and has no jobs; the exit status is 1 then.
#[derive(clap::Args)]
pub struct HealthCheckJobs {
    #[command(flatten)]
    source: Option<ChangeSource>,
    /// How to print the jobs; `json` is an object with the lists for the matrices of a workflow
    #[arg(long, default_value = "text")]
    format: Format,
}

/// What is to be checked of a cluster.
struct Checks<'a> {
    cluster: &'a Cluster,
    staging: Vec<Todo<'a>>,
    prod: Vec<Todo<'a>>,
}

/// Why hubs are not checked, by their names such as `lake/prod`.
type Unchecked = BTreeMap<String, &'static str>;

pub(crate) fn health_check_jobs(
    sh: &Shell,
    tree: &Tree,
    args: &HealthCheckJobs,
) -> Result<ExitCode> {
    let changed = args.source.as_ref().map(|it| it.changed(sh)).transpose()?;
    let (mut clusters, unusable) = clusters(tree)?;
    leave_out_paused(&mut clusters);
    let mut checks = Vec::new();
    for cluster in &clusters {
        let reason = match &changed {
            Some(changed) => reason(tree, cluster, changed),
            None => Some("All hubs are checked".to_owned()),
        };
        checks.extend(reason.map(|it| Checks::of(cluster, &it)));
    }
    let groups = by_provider(checks.iter().collect(), |it| it.cluster, JOBS);
    let comparisons = groups.iter().map(|it| comparison(it)).collect();
    if !checks.is_empty() {
        let unchecked = unchecked(sh, tree)?;
        for of_cluster in &mut checks {
            of_cluster.leave_out(&unchecked);
        }
    }
    let staging = checks.iter().map(|it| of_cluster(it, &it.staging));
    let prod = checks.iter().map(|it| of_cluster(it, &it.prod));
    let lists = [
        ("cluster-jobs", comparisons),
        ("staging-jobs", jobs(&shares(staging, JOBS))),
        ("prod-jobs", jobs(&shares(prod, JOBS))),
    ];
    workflow::set("GITHUB_OUTPUT", &lists)?;
    terminal::print(&match args.format {
        Format::Json => as_json(&lists)?,
        Format::Text => table(&checks).text(),
    })?;
    Ok(tell_left_out(tree, &unusable))
}

fn jobs(shares: &[Share]) -> Value {
    let jobs = shares.iter().map(|share| {
        let mut job = share.job("reason", shares.len());
        job.insert("releases".to_owned(), share.releases().into());
        job
    });
    jobs.collect()
}

/// A job that compares clusters of one provider with the repository: the arguments of `deploy-support` and `deploy`, a line for
/// each cluster.
fn comparison(clusters: &[&Checks]) -> Value {
    let each = || clusters.iter();
    let names: Vec<_> = each().map(|it| it.cluster.name.as_str()).collect();
    let with_support = each().filter(|it| it.cluster.support.is_some());
    let support: Vec<_> = with_support.map(|it| it.cluster.name.as_str()).collect();
    let staging: Vec<_> = each().filter_map(|it| it.line(it.staging.iter())).collect();
    let prod: Vec<_> = each().filter_map(|it| it.line(it.prod.iter())).collect();
    let hubs = each().filter_map(|it| it.line(it.staging.iter().chain(&it.prod)));
    json!({
        "cluster_names": names.join(" "),
        "provider": clusters[0].cluster.provider_name(),
        "support": support.join("\n"),
        "staging": staging.join("\n"),
        "production": prod.join("\n"),
        "all": hubs.collect::<Vec<_>>().join("\n"),
    })
}

fn of_cluster<'a>(checks: &'a Checks, todos: &'a [Todo]) -> OfCluster<'a> {
    let cluster = checks.cluster;
    OfCluster { cluster, todos }
}

/// Takes away the clusters and hubs that are paused, and says so.
fn leave_out_paused(clusters: &mut Vec<Cluster>) {
    for cluster in clusters.iter_mut() {
        let hubs = mem::take(&mut cluster.hubs);
        let (paused, others) = hubs
            .into_iter()
            .partition(|hub| cluster.pause_of(hub).is_some());
        cluster.hubs = others;
        for hub in paused {
            if let Some(pause) = cluster.pause_of(&hub) {
                let cluster = &cluster.name;
                say!(
                    "`{}` of `{cluster}` is left out: {}",
                    hub.name,
                    pause.shown()
                );
            }
        }
    }
    clusters.retain(|it| it.pause().is_none());
}

/// The hubs of the repository whose health nobody can check.
fn unchecked(sh: &Shell, tree: &Tree) -> Result<Unchecked> {
    let fleet = Fleet::load(sh, tree, &[What::Hubs], None, &[])?;
    let fleet = fleet.with_charts(fetch::cached_schemas());
    let mut unchecked = Unchecked::new();
    for release in fleet.releases() {
        if let Some(why) = hub_traits::why_unchecked(&fleet, &release) {
            unchecked.insert(release.path(), why);
        }
    }
    Ok(unchecked)
}

impl<'a> Checks<'a> {
    /// All hubs of a cluster.
    fn of(cluster: &'a Cluster, reason: &str) -> Checks<'a> {
        let todos = cluster.hubs.iter().map(|hub: &Hub| Todo {
            hub,
            reason: reason.to_owned(),
        });
        let (staging, prod) = todos.partition(|it| it.hub.is_staging());
        Checks {
            cluster,
            staging,
            prod,
        }
    }

    /// The cluster's name and those of these hubs, as `deploy` takes them; none without hubs.
    fn line<'b>(&self, todos: impl Iterator<Item = &'b Todo<'b>>) -> Option<String> {
        let names: Vec<_> = todos.map(|it| it.hub.name.as_str()).collect();
        (!names.is_empty()).then(|| format!("{} {}", self.cluster.name, names.join(" ")))
    }

    /// Takes away the hubs that nobody can check, and says why.
    fn leave_out(&mut self, unchecked: &Unchecked) {
        let cluster = &self.cluster.name;
        for todos in [&mut self.staging, &mut self.prod] {
            todos.retain(|it| {
                let name = &it.hub.name;
                let why = unchecked.get(&self.cluster.path_of(name));
                if let Some(why) = why {
                    say!("`{name}` of `{cluster}` is left out: {why}");
                }
                why.is_none()
            });
        }
    }
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
