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

use std::process::ExitCode;

use anyhow::Result;
use xshell::Shell;

use crate::machine::tree::Tree;

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
pub fn exec(sh: &Shell, tree: &Tree, command: &Exec) -> Result<ExitCode> {
    match command {
        Exec::Debug(command) => logs::debug(sh, tree, command),
        Exec::Shell(command) => shells::shells(sh, tree, command),
        Exec::Promql(args) => promql::promql(sh, tree, args),
    }
}
