//! Jobs of a workflow.

use std::path::Path;

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::repository::cluster::{Cluster, Hub};

/// GitHub refuses a matrix of more jobs.
/// <https://docs.github.com/actions/reference/limits>
pub(crate) const JOBS: usize = 256;

/// In characters: half of what one list may have (`github::set`).
pub(crate) const REASONS: usize = 64 << 10;

/// The clusters that a workflow's jobs can reach: the rehearsal cluster is each machine's own.
pub(crate) fn clusters(root: &Path) -> Result<Vec<Cluster>> {
    let mut clusters = Cluster::all(root)?;
    clusters.retain(|it| !it.is_local());
    clusters
        .iter_mut()
        .for_each(|it| it.hubs.sort_by(|a, b| a.name.cmp(&b.name)));
    Ok(clusters)
}

/// A hub that something is to be done with, and why.
pub(crate) struct Todo<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) reason: String,
}

/// A job for each hub, with the reason under this key. GitHub takes so many in a matrix: if there are more hubs, several of
/// a cluster share a job, and `hub_name` has all their names.
pub(crate) fn jobs<'a>(
    todos: impl Iterator<Item = (&'a Cluster, &'a [Todo<'a>])>,
    reason: &str,
) -> Result<Value> {
    let by_cluster: Vec<_> = todos.filter(|(_, it)| !it.is_empty()).collect();
    enough(by_cluster.len())?;
    let jobs = |size: usize| {
        by_cluster
            .iter()
            .map(|(_, it)| it.len().div_ceil(size))
            .sum::<usize>()
    };
    let size = (1..)
        .find(|it| jobs(*it) <= JOBS)
        .expect("one job a cluster is few enough");
    let count = jobs(size);
    let jobs = by_cluster
        .iter()
        .flat_map(|(cluster, it)| it.chunks(size).map(move |it| (*cluster, it)));
    let job = |(cluster, todos): (&Cluster, &[Todo])| {
        let names = names(todos).join(" ");
        json!({
            "cluster_name": cluster.name, "provider": cluster.provider_name(), "hub_name": names, "hub_names": names,
            reason: shortened(&reasons(todos), count),
        })
    };
    Ok(jobs.map(job).collect())
}

/// An error if there are more clusters than jobs in a matrix.
pub(crate) fn enough(clusters: usize) -> Result<()> {
    ensure!(
        clusters <= JOBS,
        "{clusters} clusters need a job each, and GitHub takes {JOBS} in a matrix\n\
         hint: change fewer clusters at a time, or run `cargo xtask deploy` for each of these"
    );
    Ok(())
}

pub(crate) fn names<'a>(todos: &[Todo<'a>]) -> Vec<&'a str> {
    todos.iter().map(|it| it.hub.name.as_str()).collect()
}

/// What hubs of one cluster are to be done for, together.
pub(crate) fn reasons(todos: &[Todo]) -> String {
    match todos {
        [] => String::new(),
        [first, rest @ ..] if rest.iter().all(|it| it.reason == first.reason) => {
            first.reason.clone()
        }
        _ => {
            let each: Vec<_> = todos
                .iter()
                .map(|it| format!("{}: {}", it.hub.name, it.reason))
                .collect();
            each.join("; ")
        }
    }
}

/// A reason in a list of so many jobs, with its end left out if the list would be longer than a workflow takes.
pub(crate) fn shortened(reason: &str, jobs: usize) -> String {
    let longest = REASONS / jobs;
    match reason.char_indices().nth(longest) {
        Some(_) => reason.chars().take(longest - 1).chain(['…']).collect(),
        None => reason.to_owned(),
    }
}

/// An object with all lists, as `--format json` prints it.
pub(crate) fn as_json(lists: &[(&str, Value)]) -> Result<String> {
    #[derive(Serialize)]
    struct Lists<'a>(#[serde(serialize_with = "in_order")] &'a [(&'a str, Value)]);
    fn in_order<S: serde::Serializer>(lists: &&[(&str, Value)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(lists.iter().map(|(name, list)| (name, list)))
    }
    Ok(serde_json::to_string_pretty(&Lists(lists))? + "\n")
}

/// A table for the terminal, its columns as wide as they need; or `none`, if it has no rows.
pub(crate) fn table(title: &str, head: &[&str], rows: &[Vec<String>], none: &str) -> String {
    if rows.is_empty() {
        return format!("{title}\n{none}\n");
    }
    let lines: Vec<Vec<&str>> = std::iter::once(head.to_vec())
        .chain(
            rows.iter()
                .map(|it| it.iter().map(String::as_str).collect()),
        )
        .collect();
    let width = |column: usize| {
        lines
            .iter()
            .map(|it| it[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &Vec<&str>| {
        let cells: Vec<_> = cells
            .iter()
            .zip(&widths)
            .map(|(it, width)| format!("{it:<width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    format!("{title}\n{}", lines.iter().map(line).collect::<String>())
}
