//! Shows what is deployed where, as the clusters themselves record it, and how one hub is.

mod address;
mod hub;
mod kubernetes;
mod releases;
mod repository;
mod screen;
mod selected;

use std::{process::ExitCode, thread, time::Duration};

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{
    commands::status::{hub::OneRelease, selected::Selected},
    machine::{
        process,
        programs::{self, Tools},
        terminal::{self, Format, list},
        tree::Tree,
    },
    repository::{cluster::Cluster, cluster_yaml},
};

/// How long to wait between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Show what is deployed on clusters, or all about one hub
///
/// Each release has a row with its newest revision, its chart and status, how many of the pods that it wants are ready,
/// when and by whom it was deployed, from which commit, and how many commits HEAD is ahead of that one. There are also
/// rows for hubs that are not deployed, for releases that no cluster.yaml names, and for clusters that cannot be
/// reached or whose cluster.yaml has problems. The exit status is 1 if a cluster that was named cannot be read, or if none can be.
///
/// `status CLUSTER HUB` shows one hub on one screen: what keeps it from being ready, its pods, the last warnings and
/// revisions, how it differs from the repository, who is deploying it, its address and certificate, and its users'
/// servers.
///
/// Nothing is changed, and nothing is decrypted but what the login needs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask status                     every release of every cluster\n\
\x20 cargo xtask status lake --format json  one cluster, for programs")]
pub struct Status {
    /// Clusters, by their folders in config/clusters/ [default: all of them]; or a cluster and one of its hubs
    #[arg(value_name = "CLUSTER")]
    names: Vec<String>,
    /// How to print it: for people, or as JSON
    #[arg(long, default_value = "text")]
    format: Format,
    /// Look again every two seconds until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// Prints what is deployed.
pub fn status(sh: &Shell, tree: &Tree, args: &Status) -> Result<ExitCode> {
    if let Some((cluster, release)) = one_release(tree, &args.names)? {
        let tools = provide(sh, &[&cluster])?;
        let one = OneRelease::open(&tools, tree, &cluster, release)?;
        return repeat(args, || {
            let state = one.state()?;
            let text = match args.format {
                Format::Text => screen::text(&state),
                Format::Json => serde_json::to_string_pretty(&state)? + "\n",
            };
            Ok((text, ExitCode::SUCCESS))
        });
    }
    let selected = Selected::read(tree, &args.names)?;
    let tools = provide(sh, &selected.clusters.iter().collect::<Vec<_>>())?;
    repeat(args, || {
        releases::look(&tools, tree, &selected, args.format)
    })
}

fn provide(sh: &Shell, clusters: &[&Cluster]) -> Result<Tools> {
    let needs_rehearsal = clusters.iter().any(|it| it.is_local());
    programs::provide(sh, programs::FOR_HUBS, needs_rehearsal)
}

/// The release that is meant by two names, if the second one is no cluster's.
fn one_release<'a>(tree: &Tree, names: &'a [String]) -> Result<Option<(Cluster, &'a str)>> {
    let [cluster, name] = names else {
        return Ok(None);
    };
    let first = Cluster::load(tree, cluster);
    if first.as_ref().is_ok_and(|it| it.release(name).is_ok()) {
        return Ok(Some((first?, name)));
    }
    let Err(err) = cluster_yaml::only_file(&cluster_yaml::files(tree)?, name) else {
        return Ok(None);
    };
    let cluster = first?;
    bail!(
        "cluster `{}` has no hub `{name}`; it has: {}\nand as a cluster: {err:#}",
        cluster.name,
        list(cluster.releases())
    )
}

/// Prints what `look` returns, again and again with `--watch`. Then a failure is only shown: it may pass.
fn repeat(args: &Status, look: impl Fn() -> Result<(String, ExitCode)>) -> Result<ExitCode> {
    if !args.watch {
        let (text, code) = look()?;
        terminal::print(&text)?;
        return Ok(code);
    }
    loop {
        match look() {
            Ok((text, _)) => terminal::redraw(&text)?,
            Err(err) => terminal::redraw(&format!("error: {err:#}\n"))?,
        }
        thread::sleep(INTERVAL);
        process::check_stopped()?;
    }
}
