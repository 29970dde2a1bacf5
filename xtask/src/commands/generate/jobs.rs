//! The jobs of a workflow, as JSON for its matrices and as tables for people.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    machine::{terminal, tree::Tree},
    repository::{
        cluster::{Cluster, Hub},
        cluster_yaml::UnusableCluster,
    },
};

/// How many jobs GitHub takes in one matrix.
/// <https://docs.github.com/actions/reference/limits>
const JOBS: usize = 256;

/// How many characters the reasons of one list may have together: half of what a list may have (`workflow::set`).
const REASONS: usize = 64 << 10;

/// The clusters that a workflow's jobs can reach, their hubs sorted by name, and those that cannot be used. A rehearsal
/// cluster is not among them: each machine has its own.
pub(crate) fn clusters(tree: &Tree) -> Result<(Vec<Cluster>, Vec<UnusableCluster>)> {
    let (mut clusters, unusable) = Cluster::all(tree)?;
    clusters.retain(|it| !it.is_local());
    for cluster in &mut clusters {
        cluster.hubs.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok((clusters, unusable))
}

/// Says on stderr which clusters have no jobs because of their cluster.yaml, and why. Then the exit status is 1: otherwise
/// the run would go well, and nobody would notice that nothing of them was deployed.
pub(crate) fn tell_left_out(tree: &Tree, unusable: &[UnusableCluster]) -> ExitCode {
    for cluster in unusable {
        if terminal::is_in_workflow() {
            say!("cluster `{}` is left out:", cluster.name);
            for problem in &cluster.problems {
                terminal::say_as_it_is(&problem.annotation(tree));
            }
        } else {
            say!("error: {}", cluster.left_out());
        }
    }
    ExitCode::from(u8::from(!unusable.is_empty()))
}

/// A hub that has something to be done, and why.
pub(crate) struct Todo<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) reason: String,
}

/// A job for each hub, with the reason under the key `reason`. If there are more hubs than GitHub takes in a matrix, several
/// hubs of a cluster share a job, and `hub_name` has all their names.
pub(crate) fn jobs<'a>(
    todos: impl Iterator<Item = (&'a Cluster, &'a [Todo<'a>])>,
    reason: &str,
) -> Result<Value> {
    let by_cluster: Vec<_> = todos.filter(|(_, todos)| !todos.is_empty()).collect();
    refuse_too_many(by_cluster.len())?;
    let size = hubs_per_job(&by_cluster);
    let mut shares = Vec::new();
    for (cluster, todos) in by_cluster {
        shares.extend(todos.chunks(size).map(|share| (cluster, share)));
    }
    let jobs = shares.iter().map(|(cluster, share)| {
        let names = names(share).join(" ");
        json!({
            "cluster_name": cluster.name,
            "provider": cluster.provider_name(),
            "hub_name": names,
            "hub_names": names,
            reason: shortened(&reasons(share), shares.len()),
        })
    });
    Ok(jobs.collect())
}

/// An error if there are more clusters than jobs in a matrix.
pub(crate) fn refuse_too_many(clusters: usize) -> Result<()> {
    ensure!(
        clusters <= JOBS,
        "{clusters} clusters need a job each, and GitHub takes {JOBS} in a matrix\n\
         hint: change fewer clusters at a time, or run `cargo xtask deploy` for each of these"
    );
    Ok(())
}

/// How many hubs share a job, at least, so that no more than `JOBS` jobs are needed.
fn hubs_per_job(by_cluster: &[(&Cluster, &[Todo])]) -> usize {
    let jobs = |size: usize| -> usize {
        let of_clusters = by_cluster
            .iter()
            .map(|(_, todos)| todos.len().div_ceil(size));
        of_clusters.sum()
    };
    (1..)
        .find(|size| jobs(*size) <= JOBS)
        .expect("one job for each cluster is few enough")
}

/// The names of the hubs.
pub(crate) fn names<'a>(todos: &[Todo<'a>]) -> Vec<&'a str> {
    todos.iter().map(|it| it.hub.name.as_str()).collect()
}

/// The reasons of several hubs of one cluster in one text: each with its hub's name, unless they are all the same.
pub(crate) fn reasons(todos: &[Todo]) -> String {
    let Some(first) = todos.first() else {
        return String::new();
    };
    if todos.iter().all(|it| it.reason == first.reason) {
        return first.reason.clone();
    }
    let each = todos
        .iter()
        .map(|it| format!("{}: {}", it.hub.name, it.reason));
    each.collect::<Vec<_>>().join("; ")
}

/// A reason in a list of `jobs` jobs. Its end is left out if the list would otherwise be longer than a workflow takes.
pub(crate) fn shortened(reason: &str, jobs: usize) -> String {
    let longest = REASONS / jobs;
    if reason.chars().count() <= longest {
        return reason.to_owned();
    }
    reason.chars().take(longest - 1).chain(['…']).collect()
}

/// An object with all lists in this order, as `--format json` prints it.
pub(crate) fn as_json(lists: &[(&str, Value)]) -> Result<String> {
    #[derive(Serialize)]
    struct Lists<'a>(#[serde(serialize_with = "in_order")] &'a [(&'a str, Value)]);
    fn in_order<S: serde::Serializer>(lists: &&[(&str, Value)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(lists.iter().map(|(name, list)| (name, list)))
    }
    Ok(serde_json::to_string_pretty(&Lists(lists))? + "\n")
}

/// Rows below a head, with a title. If there are no rows, `none` is in their place.
pub(crate) struct Table<'a> {
    pub(crate) title: &'a str,
    pub(crate) head: &'a [&'a str],
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) none: &'a str,
}

impl Table<'_> {
    /// As it is shown on a terminal.
    pub(crate) fn text(&self) -> String {
        if self.rows.is_empty() {
            return format!("{}\n{}\n", self.title, self.none);
        }
        let head = self.head.iter().map(|it| (*it).to_owned()).collect();
        let lines = [vec![head], self.rows.clone()].concat();
        format!("{}\n{}", self.title, terminal::table(&lines))
    }
}
