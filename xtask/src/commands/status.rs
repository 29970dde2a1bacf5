//! What is deployed where, as the clusters themselves record it.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use anyhow::Result;
use serde::Serialize;
use xshell::{Shell, cmd};

use crate::{
    kubernetes::{api::Api, credentials, history, rollout},
    machine::{
        parallel, process, programs,
        terminal::{self, Format},
    },
    repository::cluster::Cluster,
};

/// Show what is deployed on clusters: releases, revisions, commits, pods
///
/// Each release has a row: its newest revision, chart and state, how many of its pods are ready, when and by whom it was
/// deployed, from which commit and how many commits HEAD is ahead of that. A hub that isn't there has a row, too, and so
/// have releases that no cluster.yaml names and clusters that can't be reached. Nothing is changed.
#[derive(clap::Args)]
pub struct Status {
    /// Folders in config/clusters/, if not all of them
    clusters: Vec<String>,
    /// How to print the releases: a table, or a list of objects
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Default, Serialize)]
struct Row {
    cluster: String,
    release: Option<String>,
    /// Whether cluster.yaml names it.
    is_ours: bool,
    revision: Option<u32>,
    chart: Option<String>,
    /// What helm says of the revision, `not deployed`, or why nothing can be said.
    status: String,
    pods_ready: Option<u64>,
    pods_wanted: Option<u64>,
    /// In UTC.
    deployed: Option<String>,
    actor: Option<String>,
    commit: Option<String>,
    /// How many commits HEAD has that the release's commit hasn't.
    behind: Option<u64>,
    address: Option<String>,
}

/// Prints what is deployed.
pub fn status(sh: &Shell, root: &Path, args: &Status) -> Result<ExitCode> {
    let clusters = match args.clusters.is_empty() {
        true => Cluster::all(root)?,
        false => args
            .clusters
            .iter()
            .map(|it| Cluster::load(root, it))
            .collect::<Result<_>>()?,
    };
    let sh = &programs::provide(
        sh,
        programs::FOR_HUBS,
        clusters.iter().any(Cluster::is_local),
    )?;
    let rows = parallel::side_by_side(sh, &clusters, |sh, cluster| {
        of_cluster(sh, root, cluster).unwrap_or_else(|err| {
            vec![Row {
                cluster: cluster.name.clone(),
                status: format!("{err:#}"),
                ..Row::default()
            }]
        })
    });
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    terminal::print(&match args.format {
        Format::Text => table(&rows),
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
    })?;
    Ok(ExitCode::SUCCESS)
}

fn of_cluster(sh: &Shell, root: &Path, cluster: &Cluster) -> Result<Vec<Row>> {
    if credentials::is_down(root, cluster)? {
        let status = "the rehearsal cluster is down".to_owned();
        return Ok(vec![Row {
            cluster: cluster.name.clone(),
            status,
            ..Row::default()
        }]);
    }
    let login = credentials::log_in(
        &credentials::with_demo_key(sh, root, cluster)?,
        root,
        cluster,
    )?;
    let mask = login.mask();
    let api = Api::start(&login.sh)?;
    let newest = history::newest(&api)?;
    let mut rows = Vec::new();
    let addresses: BTreeMap<&str, String> = cluster
        .hubs
        .iter()
        .map(|it| (it.name.as_str(), format!("https://{}", it.domain)))
        .collect();
    let mut missing: Vec<&str> = cluster.hubs.iter().map(|it| it.name.as_str()).collect();
    missing.extend(cluster.support.as_ref().map(|_| "support"));
    for release in &newest {
        let is_ours = release.is(&release.name) && cluster.release(&release.name).is_ok();
        missing.retain(|it| *it != release.name || !is_ours);
        let content = release.content(&api)?;
        let pods = rollout::look(
            &api,
            &release.namespace,
            content["manifest"].as_str().unwrap_or_default(),
        );
        let pods = pods
            .inspect_err(|err| say!("{}: {}", release.name, mask.hide(&format!("{err:#}"))))
            .ok()
            .map(|it| it.pods);
        let chart = &content["chart"]["metadata"];
        let text = |key: &str| chart[key].as_str().unwrap_or("?");
        let deployed = content["info"]["last_deployed"]
            .as_str()
            .and_then(|it| it.get(..16));
        let commit = release.revision.commit.clone();
        rows.push(Row {
            cluster: cluster.name.clone(),
            release: Some(release.name.clone()),
            is_ours,
            revision: Some(release.revision.number),
            chart: Some(format!("{} {}", text("name"), text("version"))),
            status: release.revision.status.clone(),
            pods_ready: pods.map(|it| it.ready),
            pods_wanted: pods.map(|it| it.wanted),
            deployed: deployed.map(|it| it.replace('T', " ")),
            actor: release.revision.actor.clone(),
            behind: commit.as_ref().and_then(|it| behind(sh, root, it)),
            commit,
            address: addresses
                .get(release.name.as_str())
                .filter(|_| is_ours)
                .cloned(),
        });
    }
    rows.extend(missing.into_iter().map(|name| Row {
        cluster: cluster.name.clone(),
        release: Some(name.to_owned()),
        is_ours: true,
        status: "not deployed".to_owned(),
        ..Row::default()
    }));
    let order = |row: &Row| {
        let release = row.release.clone().unwrap_or_default();
        let position = cluster.hubs.iter().position(|it| it.name == release);
        (!row.is_ours, position.unwrap_or(usize::MAX), release)
    };
    rows.sort_by_key(order);
    Ok(rows)
}

fn behind(sh: &Shell, root: &Path, commit: &str) -> Option<u64> {
    let range = format!("{commit}..HEAD");
    process::read(sh, cmd!(sh, "git -C {root} rev-list --count {range}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn table(rows: &[Row]) -> String {
    let head = [
        "CLUSTER", "RELEASE", "REVISION", "CHART", "STATUS", "PODS", "DEPLOYED", "BY", "COMMIT",
        "ADDRESS",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        let or_none = |it: Option<String>| it.unwrap_or_else(|| "-".to_owned());
        let commit = row
            .commit
            .as_ref()
            .map(|it| it.get(..12).unwrap_or(it).to_owned());
        let commit = match row.behind {
            Some(0) | None => commit,
            Some(count) => commit.map(|it| format!("{it} ({count} behind)")),
        };
        let pods = row
            .pods_ready
            .zip(row.pods_wanted)
            .map(|(ready, wanted)| format!("{ready}/{wanted}"));
        let mut status = row.status.clone();
        if row.release.is_some() && !row.is_ours {
            status += ", in no cluster.yaml";
        }
        lines.push(vec![
            row.cluster.clone(),
            or_none(row.release.clone()),
            or_none(row.revision.map(|it| it.to_string())),
            or_none(row.chart.clone()),
            status.lines().collect::<Vec<_>>().join("; "),
            or_none(pods),
            or_none(row.deployed.clone()),
            or_none(row.actor.clone()),
            or_none(commit),
            or_none(row.address.clone()),
        ]);
    }
    // What can't be reached has a long status, and nothing after it.
    let width = |column: usize| {
        let cells = lines
            .iter()
            .filter(|it| column != 4 || it[1] != "-")
            .map(|it| it[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let is_reached = cells[1] != "-";
        let shown = if is_reached { cells.len() } else { 5 };
        let padded = cells
            .iter()
            .zip(&widths)
            .take(shown)
            .map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}
