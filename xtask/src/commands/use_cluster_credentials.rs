//! A shell, or one command, logged in to a cluster.

use std::{env, path::Path, process::ExitCode};

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{kubernetes::credentials, machine::shell, repository::cluster::Cluster};

/// Open a shell that is logged in to a cluster, or run a command there
///
/// kubectl, helm, and the provider's own gcloud or aws, talk to this cluster in it and to no other, with the login that
/// the deployer has; your own logins aren't used where cluster.yaml names a key, and never changed. The login is gone
/// when the shell or command ends, with whose exit status this ends too. The shell's prompt begins with the cluster's name.
#[derive(clap::Args)]
pub struct UseClusterCredentials {
    /// A folder in config/clusters/
    cluster: String,
    /// Also in a shell that is logged in to another cluster
    #[arg(long)]
    nested: bool,
    /// A program and its arguments; or, in one argument, a line for $SHELL
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs a shell or command with a login; its exit status is theirs.
pub fn use_cluster_credentials(
    sh: &Shell,
    root: &Path,
    args: &UseClusterCredentials,
) -> Result<ExitCode> {
    let cluster = Cluster::load(root, &args.cluster)?;
    if let Ok(other) = env::var(shell::PLACE)
        && other != cluster.name
        && !args.nested
    {
        bail!(
            "this shell is logged in to `{other}` already\nhint: leave it first (Ctrl-D), or say `--nested`"
        );
    }
    let mut login = credentials::open(sh, root, &cluster)?;

    login.make_writable()?;
    shell::run(
        &login.sh,
        &cluster.name,
        &login.env,
        &login.folder.path,
        &args.command,
    )
}
