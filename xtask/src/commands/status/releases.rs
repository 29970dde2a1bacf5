//! A table of all releases of clusters.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use xshell::Shell;

use crate::{
    commands::status::{kubernetes, repository, selected::Selected},
    kubernetes::{
        api::Api,
        credentials,
        history::{self, Newest},
        rollout,
    },
    machine::{
        parallel,
        programs::Tools,
        terminal::{self, Format, Pods},
        tree::Tree,
    },
    repository::{cluster::Cluster, problem::text},
    secrets::Mask,
};

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
    /// What we know of the revision: `ready`, `failed`, `unfinished` or `retiring`.
    outcome: Option<&'static str>,
    /// Why it failed.
    why: Option<String>,
    pods_ready: Option<u64>,
    pods_wanted: Option<u64>,
    /// As `2026-01-31T12:00:00Z`.
    deployed: Option<String>,
    actor: Option<String>,
    commit: Option<String>,
    /// Whether the work tree had changes then that no commit has.
    has_changes: bool,
    /// How many commits HEAD has that the release's commit does not have.
    behind: Option<u64>,
    address: Option<String>,
    /// What the table says of the revision, of who made it, and from what.
    #[serde(skip)]
    shown: [String; 3],
    #[serde(skip)]
    is_read: bool,
}

/// What is printed of all releases of clusters, and the exit status: a failure if one that was named cannot be read, or
/// none.
pub(super) fn look(
    tools: &Tools,
    tree: &Tree,
    selected: &Selected,
    format: Format,
) -> Result<(String, ExitCode)> {
    let rows = parallel::side_by_side(tools, &selected.clusters, |tools, cluster| {
        rows_of(tools, tree, cluster)
            .unwrap_or_else(|err| vec![Row::unread(&cluster.name, format!("{err:#}"))])
    });
    let mut rows: Vec<Row> = rows.into_iter().flatten().collect();
    for cluster in &selected.unusable {
        let why = text(&cluster.problems).trim_end().to_owned();
        rows.push(Row::unread(&cluster.name, why));
    }
    let unread = rows.iter().filter(|it| !it.is_read).count();
    let is_failure = unread > 0 && (selected.is_named || unread == selected.count());
    let text = match format {
        Format::Text => table(&rows),
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
    };
    Ok((text, ExitCode::from(u8::from(is_failure))))
}

/// The rows of a cluster: its hubs in the order of cluster.yaml, its other releases, and then the releases of others.
fn rows_of(tools: &Tools, tree: &Tree, cluster: &Cluster) -> Result<Vec<Row>> {
    credentials::refuse_down(tree, cluster)?;
    let decrypter = credentials::decrypter(tools, tree, cluster)?;
    let login = credentials::log_in(&decrypter, tree, cluster)?;
    let mask = login.mask();
    let api = Api::start(&login.sh)?;
    warn_of_other_kubernetes(&api, &mask, cluster);
    let mut rows = Vec::new();
    let releases = history::newest(&api).context("its releases cannot be read")?;
    for release in &releases {
        rows.push(deployed(tools.sh(), tree, &api, &mask, cluster, release)?);
    }
    add_missing(&mut rows, cluster);
    rows.sort_by_key(|row| order(row, cluster));
    Ok(rows)
}

/// Warns if the cluster runs another Kubernetes than the repository takes it for.
fn warn_of_other_kubernetes(api: &Api, mask: &Mask, cluster: &Cluster) {
    let warning = match kubernetes::difference(api, cluster) {
        Ok(None) => return,
        Ok(Some(difference)) => difference,
        Err(err) => mask.hide(&format!("which it is cannot be read: {err:#}")),
    };
    say!("warning: Kubernetes of `{}`: {warning}", cluster.name);
}

/// The row of a release that is in the cluster.
fn deployed(
    sh: &Shell,
    tree: &Tree,
    api: &Api,
    mask: &Mask,
    cluster: &Cluster,
    release: &Newest,
) -> Result<Row> {
    let name = &release.name;
    let revision = &release.revision;
    let is_ours = release.is(name) && cluster.release(name).is_ok();
    let content = release.content(api)?;
    let pods = pods(api, mask, release, &content);
    let hub = cluster.hubs.iter().find(|it| is_ours && it.name == *name);
    let commit = revision.own_commit();
    let behind = commit.and_then(|it| repository::behind(sh, tree, it));
    Ok(Row {
        cluster: cluster.name.clone(),
        release: Some(name.clone()),
        is_ours,
        revision: Some(revision.number),
        chart: Some(chart(&content)),
        status: revision.status.clone(),
        outcome: revision.outcome.word(),
        why: revision.outcome.why().map(str::to_owned),
        pods_ready: pods.map(|it| it.ready),
        pods_wanted: pods.map(|it| it.wanted),
        deployed: revision.created.clone(),
        actor: revision.actor.clone(),
        commit: commit.map(str::to_owned),
        has_changes: commit.is_some() && revision.has_changes,
        behind,
        address: hub.map(|it| format!("https://{}", it.domain)),
        shown: repository::shown(revision.state(), revision, behind),
        is_read: true,
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
pub(super) fn chart(content: &Value) -> String {
    let chart = &content["chart"]["metadata"];
    let name = chart["name"].as_str().unwrap_or("?");
    let version = chart["version"].as_str().unwrap_or("?");
    format!("{name} {version}")
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
                is_read: true,
                ..Row::unread(&cluster.name, "not deployed".to_owned())
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

fn table(rows: &[Row]) -> String {
    let head = [
        "CLUSTER",
        "RELEASE",
        "REVISION",
        "CHART",
        "STATUS",
        "PODS",
        "DEPLOYED (UTC)",
        "BY",
        "COMMIT",
        "ADDRESS",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(Row::cells));
    terminal::table(&lines)
}

impl Row {
    /// The row of a cluster that cannot be read.
    fn unread(cluster: &str, why: String) -> Row {
        Row {
            cluster: cluster.to_owned(),
            shown: [why.clone(), "-".to_owned(), "-".to_owned()],
            status: why,
            ..Row::default()
        }
    }

    /// The cells of the table. Without a release the row ends with the status, which may be long.
    fn cells(&self) -> Vec<String> {
        let [status, actor, commit] = &self.shown;
        let mut cells = vec![
            self.cluster.clone(),
            or_dash(self.release.clone()),
            or_dash(self.revision.map(|it| it.to_string())),
            or_dash(self.chart.clone()),
            status.lines().collect::<Vec<_>>().join("; "),
        ];
        if self.release.is_none() {
            return cells;
        }
        if !self.is_ours {
            cells[4] += ", in no cluster.yaml";
        }
        let pods = self.pods_ready.zip(self.pods_wanted);
        let deployed = self.deployed.as_deref().map(repository::to_the_minute);
        cells.extend([
            or_dash(pods.map(|(ready, wanted)| format!("{ready}/{wanted}"))),
            or_dash(deployed),
            actor.clone(),
            commit.clone(),
            or_dash(self.address.clone()),
        ]);
        cells
    }
}

fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}
