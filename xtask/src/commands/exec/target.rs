//! The hub in which a command runs.

use std::io::{IsTerminal, stdin, stdout};

use anyhow::Result;
use xshell::Shell;

use crate::{
    kubernetes::credentials::{self, login::Login},
    machine::tree::Tree,
    repository::cluster::Cluster,
};

#[derive(clap::Args)]
pub struct InHub {
    /// Cluster, by its folder in config/clusters/
    pub(crate) cluster: String,
    /// Hub of the cluster
    pub(crate) hub: String,
    /// A program and its arguments, in place of a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

impl InHub {
    /// The command to run, or a shell.
    pub(crate) fn command(&self) -> Vec<String> {
        if self.command.is_empty() {
            vec!["/bin/bash".to_owned(), "-l".to_owned()]
        } else {
            self.command.clone()
        }
    }
}

/// Logs in to a cluster that has this hub.
pub(crate) fn open(sh: &Shell, tree: &Tree, cluster: &str, hub: &str) -> Result<(Cluster, Login)> {
    let cluster = Cluster::load(tree, cluster)?;
    cluster.select_hubs(&[hub.to_owned()])?;
    let login = credentials::open(sh, tree, &cluster)?;
    Ok((cluster, login))
}

/// The options by which `kubectl exec` passes on our stdin: with a terminal if there is one.
pub(crate) fn interactive() -> &'static [&'static str] {
    if stdin().is_terminal() && stdout().is_terminal() {
        &["--stdin", "--tty"]
    } else {
        &["--stdin"]
    }
}
