//! The command that opens a shell, or runs a command, with a login to a cluster.

use std::{env, process::ExitCode};

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{
    kubernetes::credentials,
    machine::{shell, tree::Tree},
    repository::cluster::Cluster,
};

/// Open a shell that is logged in to a cluster, or run a command there
///
/// There kubectl, helm and the provider's own program (gcloud, aws) use this cluster and no other, with the deployer's login.
/// Your own logins are never changed, and are not used if cluster.yaml names a key. The login ends with the shell or command,
/// whose exit status is passed on. The shell's prompt begins with the cluster's name.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask use-cluster-credentials lake                             a shell\n\
\x20 cargo xtask use-cluster-credentials lake kubectl get pods -A         one command\n\
\x20 cargo xtask use-cluster-credentials lake 'kubectl get pods | wc -l'  a line of shell")]
pub struct UseClusterCredentials {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// Allow this in a shell that is already logged in to another cluster
    #[arg(long)]
    nested: bool,
    /// A program and its arguments, or one argument with a command line for $SHELL
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs a shell or command with a login; its exit status is theirs.
pub fn use_cluster_credentials(
    sh: &Shell,
    tree: &Tree,
    args: &UseClusterCredentials,
) -> Result<ExitCode> {
    let cluster = Cluster::load(tree, &args.cluster)?;
    if let Ok(other) = env::var(shell::PLACE)
        && other != cluster.name
        && !args.nested
    {
        bail!(
            "this shell is logged in to `{other}` already\nhint: leave it first (Ctrl-D), or pass `--nested`"
        );
    }
    let mut login = credentials::open_or_up(sh, tree, &cluster)?;

    login.make_writable()?;
    shell::run(
        &login.sh,
        &cluster.name,
        &login.env,
        &login.folder.path,
        &args.command,
    )
}
