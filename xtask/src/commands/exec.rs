//! What people reach for when something is wrong with a hub.

mod homes;
mod logs;
mod promql;
mod shells;
mod target;

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use xshell::Shell;

/// Look into what runs: logs, shells, Prometheus
#[derive(clap::Subcommand)]
#[allow(missing_docs, reason = "clap takes the help of what each one holds")]
pub enum Exec {
    #[command(subcommand)]
    Debug(logs::Debug),
    #[command(subcommand)]
    Shell(shells::Shells),
    Promql(promql::Promql),
}

/// Runs one of the `exec` commands; the exit status is that of what it ran.
pub fn exec(sh: &Shell, root: &Path, command: &Exec) -> Result<ExitCode> {
    match command {
        Exec::Debug(command) => logs::debug(sh, root, command),
        Exec::Shell(command) => shells::shells(sh, root, command),
        Exec::Promql(args) => promql::promql(sh, root, args),
    }
}
