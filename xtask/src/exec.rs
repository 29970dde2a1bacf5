//! What people reach for when something is wrong with a hub.

mod homes;
mod logs;
mod promql;
mod shells;

use std::{
    io::{IsTerminal, stdin, stdout},
    path::Path,
    process::ExitCode,
};

use anyhow::Result;
use serde_yaml::Value as Yaml;
use xshell::Shell;

use crate::{
    cluster::Cluster,
    credentials::{self, Login},
};

/// Look into what runs: logs, shells, Prometheus
#[derive(clap::Subcommand)]
pub(crate) enum Exec {
    #[command(subcommand)]
    Debug(logs::Debug),
    #[command(subcommand)]
    Shell(shells::Shells),
    Promql(promql::Promql),
}

pub(crate) fn exec(sh: &Shell, root: &Path, command: &Exec) -> Result<ExitCode> {
    match command {
        Exec::Debug(command) => logs::debug(sh, root, command),
        Exec::Shell(command) => shells::shells(sh, root, command),
        Exec::Promql(args) => promql::promql(sh, root, args),
    }
}

/// Logs in to a cluster that has this hub.
fn open(sh: &Shell, root: &Path, cluster: &str, hub: &str) -> Result<(Cluster, Login)> {
    let cluster = Cluster::load(root, cluster)?;
    cluster.select_hubs(&[hub.to_owned()])?;
    let login = credentials::open(sh, root, &cluster)?;
    Ok((cluster, login))
}

/// What helm would take for a key: that of the last of these values files which has it.
fn last(values: &[Yaml], path: &[&str]) -> Option<Yaml> {
    let at = |it: &Yaml| {
        path.iter()
            .try_fold(it.clone(), |it, key| it.get(*key).cloned())
    };
    values.iter().rev().find_map(at)
}

/// How `kubectl exec` is to hand our stdin on: with a terminal if there is one.
fn interactive() -> &'static [&'static str] {
    match stdin().is_terminal() && stdout().is_terminal() {
        true => &["--stdin", "--tty"],
        false => &["--stdin"],
    }
}
