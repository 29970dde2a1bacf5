//! A shell, or one command, logged in to a cluster.

use std::{env, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use xshell::Shell;

use crate::{cluster::Cluster, credentials, secrets, setup, shell};

/// Open a shell that is logged in to a cluster, or run a command there
///
/// kubectl, helm, and the provider's own gcloud or aws, talk to this cluster in it and to no other, with the login that
/// the deployer has; your own logins aren't used where cluster.yaml names a key, and never changed. The login is gone
/// when the shell or command ends, with whose exit status this ends too. The shell's prompt begins with the cluster's name.
#[derive(clap::Args)]
pub(crate) struct UseClusterCredentials {
    /// A folder in config/clusters/
    cluster: String,
    /// Also in a shell that is logged in to another cluster
    #[arg(long)]
    nested: bool,
    /// A program and its arguments; or, in one argument, a line for $SHELL
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) fn use_credentials(sh: &Shell, root: &Path, args: &UseClusterCredentials) -> Result<ExitCode> {
    let cluster = Cluster::load(root, &args.cluster)?;
    if let Ok(other) = env::var(shell::PLACE)
        && other != cluster.name
        && !args.nested
    {
        bail!(
            "this shell is logged in to `{other}` already\nhint: leave it first (Ctrl-D), or say `--nested`"
        );
    }
    let sh = &setup::provide(sh, setup::FOR_HUBS, cluster.is_local())?;
    let sh = &secrets::with_demo_key(sh, root, &cluster)?;
    let mut login = credentials::log_in(sh, root, &cluster)
        .with_context(|| format!("cannot log in to `{}`", cluster.name))?;
    login.make_writable()?;
    shell::run(&login.sh, &cluster.name, &login.env, &login.folder.path, &args.command)
}
