//! The jobs of a workflow, as JSON for its matrices and as tables for people.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    machine::{terminal, tree::Tree},
    repository::{
        cluster::{Cluster, Hub},
        cluster_yaml::UnusableCluster,
    },
};

/// How many jobs GitHub takes in one matrix.
/// <https://docs.github.com/actions/reference/limits>
pub(crate) const JOBS: usize = 256;

/// How many characters the reasons of one list may have together: an eighth of what a list may have (`workflow::set`).
const REASONS: usize = 16 << 10;

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

/// What one job is for: hubs of one cluster, or of several clusters of one provider. There are several only if there are more
/// clusters than jobs in a matrix.
pub(crate) struct Share<'a>(pub(crate) Vec<OfCluster<'a>>);

/// The hubs of a cluster that have something to be done, and why.
#[derive(Clone, Copy)]
pub(crate) struct OfCluster<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) todos: &'a [Todo<'a>],
}

/// A share for each hub, or for several hubs if there are more of them than there may be jobs.
pub(crate) fn shares<'a>(all: impl Iterator<Item = OfCluster<'a>>, most: usize) -> Vec<Share<'a>> {
    let all: Vec<_> = all.filter(|it| !it.todos.is_empty()).collect();
    if all.len() > most {
        let groups = by_provider(all, |it| it.cluster, most);
        return groups.into_iter().map(Share).collect();
    }
    let size = hubs_per_job(&all, most);
    let mut shares = Vec::new();
    for OfCluster { cluster, todos } in all {
        let parts = todos.chunks(size);
        shares.extend(parts.map(|todos| Share(vec![OfCluster { cluster, todos }])));
    }
    shares
}

/// Clusters in so many groups at most, if there are no more providers: each group is of one provider. Without need none has
/// several clusters.
pub(crate) fn by_provider<T>(
    all: Vec<T>,
    cluster: impl Fn(&T) -> &Cluster,
    most: usize,
) -> Vec<Vec<T>> {
    let mut by_provider: BTreeMap<_, Vec<T>> = BTreeMap::new();
    for one in all {
        let provider = cluster(&one).provider_name().map(str::to_owned);
        by_provider.entry(provider).or_default().push(one);
    }
    let jobs = |size: usize| -> usize {
        let of_providers = by_provider.values().map(|it| it.len().div_ceil(size));
        of_providers.sum()
    };
    let most = most.max(by_provider.len());
    let size = (1..)
        .find(|size| jobs(*size) <= most)
        .expect("one group for each provider is few enough");
    let mut groups = Vec::new();
    for of_provider in by_provider.into_values() {
        let mut rest = of_provider.into_iter().peekable();
        while rest.peek().is_some() {
            groups.push(rest.by_ref().take(size).collect());
        }
    }
    groups
}

/// How many hubs share a job, at least, so that no more jobs are needed.
fn hubs_per_job(all: &[OfCluster], most: usize) -> usize {
    let jobs = |size: usize| -> usize { all.iter().map(|it| it.todos.len().div_ceil(size)).sum() };
    (1..)
        .find(|size| jobs(*size) <= most)
        .expect("one job for each cluster is few enough")
}

impl Share<'_> {
    /// Its releases as jobs are named after them: `lake/a lake/b`.
    pub(crate) fn releases(&self) -> String {
        let releases = self.0.iter().flat_map(|it| {
            let names = names(it.todos).into_iter();
            names.map(|name| it.cluster.path_of(name))
        });
        releases.collect::<Vec<_>>().join(" ")
    }

    /// A line for each cluster with its name and those of its hubs, as `deploy` takes them.
    pub(crate) fn lines(&self) -> String {
        let lines = self
            .0
            .iter()
            .map(|it| format!("{} {}", it.cluster.name, names(it.todos).join(" ")));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The job, which is one of so many, with the reason under the key `reason`. `hub_name` has all names as well.
    pub(crate) fn job(&self, reason: &str, jobs: usize) -> Map<String, Value> {
        let clusters: Vec<_> = self.0.iter().map(|it| it.cluster.name.as_str()).collect();
        let hubs: Vec<_> = self.0.iter().flat_map(|it| names(it.todos)).collect();
        let hubs = hubs.join(" ");
        let reasons: Vec<_> = self.0.iter().map(|it| reasons(it.todos)).collect();
        let job = [
            ("cluster_name", json!(clusters.join(" "))),
            ("provider", json!(self.0[0].cluster.provider_name())),
            ("hub_name", json!(hubs)),
            ("hub_names", json!(hubs)),
            (reason, json!(shortened(&reasons.join("; "), jobs))),
        ];
        let job = job.map(|(key, value)| (key.to_owned(), value));
        job.into_iter().collect()
    }
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
