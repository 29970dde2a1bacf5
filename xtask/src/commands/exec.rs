//! The commands that look into what runs.

mod copy_homedir;
mod docker_proxy;
mod helper;
mod homes;
mod logs;
mod pods;
mod promql;
mod shells;
mod target;

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use xshell::Shell;

/// Inspect what runs on a cluster, with logs, shells and Prometheus
#[derive(clap::Subcommand)]
#[allow(
    missing_docs,
    reason = "clap takes the help from what each variant holds"
)]
pub enum Exec {
    #[command(subcommand)]
    Debug(logs::Debug),
    #[command(subcommand)]
    Shell(shells::Shells),
    Promql(promql::Promql),
}

/// Runs one of the `exec` commands. The exit status is that of the program that it runs.
pub fn exec(sh: &Shell, root: &Path, command: &Exec) -> Result<ExitCode> {
    match command {
        Exec::Debug(command) => logs::debug(sh, root, command),
        Exec::Shell(command) => shells::shells(sh, root, command),
        Exec::Promql(args) => promql::promql(sh, root, args),
    }
}
