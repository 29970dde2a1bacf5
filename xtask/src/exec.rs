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

use anyhow::{Context, Result};
use xshell::Shell;

use crate::{
    cluster::Cluster,
    credentials::{self, Login},
    secrets, setup,
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
    let login = log_in(sh, root, &cluster)?;
    Ok((cluster, login))
}

fn log_in(sh: &Shell, root: &Path, cluster: &Cluster) -> Result<Login> {
    let sh = &setup::provide(sh, setup::FOR_HUBS, cluster.is_local())?;
    let sh = &secrets::with_demo_key(sh, root, cluster)?;
    credentials::log_in(sh, root, cluster).with_context(|| format!("cannot log in to `{}`", cluster.name))
}

/// How `kubectl exec` is to hand our stdin on: with a terminal if there is one.
fn interactive() -> &'static [&'static str] {
    match stdin().is_terminal() && stdout().is_terminal() {
        true => &["--stdin", "--tty"],
        false => &["--stdin"],
    }
}
