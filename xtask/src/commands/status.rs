//! Shows what is deployed where, as the clusters themselves record it.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    kubernetes::{
        api::Api,
        credentials,
        history::{self, Newest},
        rollout,
    },
    machine::{
        parallel, process,
        programs::{self, Tools},
        terminal::{self, Format, Pods},
        tree::Tree,
    },
    repository::cluster::Cluster,
    secrets::Mask,
};

/// Show what is deployed on clusters: releases, revisions, commits, pods
///
/// Each release has a row with its newest revision, its chart and status, how many of its pods are ready, when and by whom it
/// was deployed, from which commit, and how many commits HEAD is ahead of that one. There are also rows for hubs that are not
/// deployed, for releases that no cluster.yaml names, and for clusters that cannot be reached. Nothing is changed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask status                     every release of every cluster\n\
\x20 cargo xtask status lake --format json  one cluster, for programs")]
pub struct Status {
    /// Clusters, by their folders in config/clusters/ [default: all of them]
    clusters: Vec<String>,
    /// How to print the releases: a table, or a list of objects
    #[arg(long, default_value = "text")]
    format: Format,
}

/// A release, or a cluster of which no release is known.
#[derive(Default, Serialize)]
struct Row {
    cluster: String,
    release: Option<String>,
    /// Whether cluster.yaml names the release.
    is_ours: bool,
    revision: Option<u32>,
    /// The chart's name and version.
    chart: Option<String>,
    /// helm's status of the revision, `not deployed`, or why nothing is known.
    status: String,
    pods_ready: Option<u64>,
    pods_wanted: Option<u64>,
    /// In UTC, to the minute.
    deployed: Option<String>,
    actor: Option<String>,
    commit: Option<String>,
    /// How many commits HEAD has that the release's commit does not have.
    behind: Option<u64>,
    address: Option<String>,
}

/// Prints what is deployed.
pub fn status(sh: &Shell, tree: &Tree, args: &Status) -> Result<ExitCode> {
    let clusters = selected(tree, &args.clusters)?;
    let needs_rehearsal = clusters.iter().any(Cluster::is_local);
    let tools = programs::provide(sh, programs::FOR_HUBS, needs_rehearsal)?;
    let rows = parallel::side_by_side(&tools, &clusters, |tools, cluster| {
        rows_of(tools, tree, cluster)
            .unwrap_or_else(|err| vec![Row::without_release(cluster, format!("{err:#}"))])
    });
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    terminal::print(&match args.format {
        Format::Text => table(&rows),
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
    })?;
    Ok(ExitCode::SUCCESS)
}

fn selected(tree: &Tree, names: &[String]) -> Result<Vec<Cluster>> {
    if names.is_empty() {
        return Cluster::all(tree);
    }
    names.iter().map(|name| Cluster::load(tree, name)).collect()
}

/// The rows of a cluster: its hubs in the order of cluster.yaml, its other releases, and then the releases of others.
fn rows_of(tools: &Tools, tree: &Tree, cluster: &Cluster) -> Result<Vec<Row>> {
    if credentials::is_down(tree, cluster)? {
        let status = "the rehearsal cluster is down".to_owned();
        return Ok(vec![Row::without_release(cluster, status)]);
    }
    let sh = tools.sh();
    let decrypter = credentials::decrypter(tools, tree, cluster)?;
    let login = credentials::log_in(&decrypter, tree, cluster)?;
    let mask = login.mask();
    let api = Api::start(&login.sh)?;
    let mut rows = Vec::new();
    for release in &history::newest(&api)? {
        let mut row = deployed(&api, &mask, cluster, release)?;
        row.behind = row.commit.as_ref().and_then(|it| behind(sh, tree, it));
        rows.push(row);
    }
    add_missing(&mut rows, cluster);
    rows.sort_by_key(|row| order(row, cluster));
    Ok(rows)
}

/// The row of a release that is in the cluster.
fn deployed(api: &Api, mask: &Mask, cluster: &Cluster, release: &Newest) -> Result<Row> {
    let name = &release.name;
    let revision = &release.revision;
    let is_ours = release.is(name) && cluster.release(name).is_ok();
    let content = release.content(api)?;
    let pods = pods(api, mask, release, &content);
    let hub = cluster.hubs.iter().find(|it| is_ours && it.name == *name);
    Ok(Row {
        cluster: cluster.name.clone(),
        release: Some(name.clone()),
        is_ours,
        revision: Some(revision.number),
        chart: Some(chart(&content)),
        status: revision.status.clone(),
        pods_ready: pods.map(|it| it.ready),
        pods_wanted: pods.map(|it| it.wanted),
        deployed: time_deployed(&content),
        actor: revision.actor.clone(),
        commit: revision.commit.clone(),
        behind: None,
        address: hub.map(|it| format!("https://{}", it.domain)),
    })
}

/// How many pods of the release are ready. Why that cannot be told goes to stderr.
fn pods(api: &Api, mask: &Mask, release: &Newest, content: &Value) -> Option<Pods> {
    let manifest = history::manifest(content);
    let looked = rollout::look(api, &release.namespace, manifest);
    let looked = looked
        .inspect_err(|err| say!("{}: {}", release.name, mask.hide(&format!("{err:#}"))))
        .ok()?;
    Some(looked.pods)
}

/// The name and version of a revision's chart.
fn chart(content: &Value) -> String {
    let chart = &content["chart"]["metadata"];
    let name = chart["name"].as_str().unwrap_or("?");
    let version = chart["version"].as_str().unwrap_or("?");
    format!("{name} {version}")
}

/// When a revision was deployed, to the minute: helm has "2026-01-31T12:00:00.123456789Z".
fn time_deployed(content: &Value) -> Option<String> {
    let time = content["info"]["last_deployed"].as_str()?;
    Some(time.get(..16)?.replace('T', " "))
}

/// Adds rows for the hubs and the support chart of cluster.yaml that are not in the cluster.
fn add_missing(rows: &mut Vec<Row>, cluster: &Cluster) {
    let hubs = cluster.hubs.iter().map(|it| it.name.as_str());
    let support = cluster.support.as_ref().map(|_| "support");
    for name in hubs.chain(support) {
        let is_there = |row: &Row| row.is_ours && row.release.as_deref() == Some(name);
        if !rows.iter().any(is_there) {
            rows.push(Row {
                release: Some(name.to_owned()),
                is_ours: true,
                ..Row::without_release(cluster, "not deployed".to_owned())
            });
        }
    }
}

/// What the rows of a cluster are sorted by.
fn order(row: &Row, cluster: &Cluster) -> (bool, usize, String) {
    let release = row.release.clone().unwrap_or_default();
    let position = cluster.hubs.iter().position(|it| it.name == release);
    (!row.is_ours, position.unwrap_or(usize::MAX), release)
}

/// How many commits HEAD has that this one does not have; `None` if git does not know the commit.
fn behind(sh: &Shell, tree: &Tree, commit: &str) -> Option<u64> {
    let range = format!("{commit}..HEAD");
    let root = tree.root();
    let count = process::read(sh, cmd!(sh, "git -C {root} rev-list --count {range}"));
    count.ok()?.trim().parse().ok()
}

fn table(rows: &[Row]) -> String {
    let head = [
        "CLUSTER", "RELEASE", "REVISION", "CHART", "STATUS", "PODS", "DEPLOYED", "BY", "COMMIT",
        "ADDRESS",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(Row::cells));
    terminal::table(&lines)
}

impl Row {
    /// The row of a cluster of which no release is known.
    fn without_release(cluster: &Cluster, status: String) -> Row {
        Row {
            cluster: cluster.name.clone(),
            status,
            ..Row::default()
        }
    }

    /// The cells of the table. Without a release the row ends with the status, which may be long.
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![
            self.cluster.clone(),
            or_dash(self.release.clone()),
            or_dash(self.revision.map(|it| it.to_string())),
            or_dash(self.chart.clone()),
            self.status.lines().collect::<Vec<_>>().join("; "),
        ];
        if self.release.is_none() {
            return cells;
        }
        if !self.is_ours {
            cells[4] += ", in no cluster.yaml";
        }
        let pods = self.pods_ready.zip(self.pods_wanted);
        cells.extend([
            or_dash(pods.map(|(ready, wanted)| format!("{ready}/{wanted}"))),
            or_dash(self.deployed.clone()),
            or_dash(self.actor.clone()),
            or_dash(self.short_commit()),
            or_dash(self.address.clone()),
        ]);
        cells
    }

    fn short_commit(&self) -> Option<String> {
        let commit = self.commit.as_ref()?;
        let short = history::short(commit);
        Some(match self.behind {
            Some(0) | None => short.to_owned(),
            Some(count) => format!("{short} ({count} behind)"),
        })
    }
}

fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}
