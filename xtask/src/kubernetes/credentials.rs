//! Logging in to a cluster. Nothing else makes a KUBECONFIG.

mod aws;
mod azure;
mod gcp;
pub(crate) mod login;

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::{
        credentials::login::Login,
        rehearsal::{Rehearsal, RehearsalState},
    },
    machine::{process, programs},
    repository::cluster::{Cluster, Provider},
    secrets,
    settings::Settings,
};

/// Logs in to a cluster, and makes sure that it answers. A rehearsal cluster is brought up for that.
///
/// `sh` is the person's own environment, which sops needs. With a `key` in cluster.yaml nothing of the person's own logins
/// is used; without one it is their own login, or that of the machine.
pub(crate) fn log_in(sh: &Shell, root: &Path, cluster: &Cluster) -> Result<Login> {
    let mut login = Login::new(sh)?;
    match &cluster.provider {
        Provider::Local(_) => {
            let rehearsal = Rehearsal::of(root, cluster)?;
            login.rehearsal = Some(rehearsal.up(sh, None)?);
            login.set("KUBECONFIG", rehearsal.kubeconfig());
            login.set("KUBECACHEDIR", rehearsal.kube_cache());
            // `up` has seen it answer.
            return Ok(login);
        }
        Provider::Kubeconfig(file) => {
            let kubeconfig = secrets::open(sh, root, file)?;
            login.hold_kubeconfig(kubeconfig, root.join(file).parent().unwrap_or(root))?;
            login.isolate();
        }
        Provider::Gcp(gcp) => gcp::log_in(&mut login, sh, root, gcp)?,
        Provider::Aws(aws) => aws::log_in(&mut login, sh, root, aws)?,
        Provider::Azure(azure) => {
            azure::log_in(&mut login, sh, root, azure, &Settings::load(root)?)?
        }
    }
    ask_for_version(&login)?;
    Ok(login)
}

/// Asks the cluster once, so that one that is away costs one timeout, and not one for each hub.
fn ask_for_version(login: &Login) -> Result<()> {
    let sh = &login.sh;
    let ask = cmd!(sh, "kubectl get --raw /version --request-timeout 20s");
    let answer = process::run(sh, ask, b"")?;
    if answer.success {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&answer.stderr);
    let reason = login.mask().hide(stderr.trim());
    let hint = if reason.contains("Unauthorized") || reason.contains("provide credentials") {
        "the cluster does not know this account: give it access to the cluster, or make a new key"
    } else {
        "is the cluster up, and does it accept connections from this machine?"
    };
    bail!("the cluster does not answer: {reason}\nhint: {hint}");
}

/// Provides the programs that a hub's cluster needs, and logs in: for a command that runs nothing else before.
pub(crate) fn open(sh: &Shell, root: &Path, cluster: &Cluster) -> Result<Login> {
    let sh = &programs::provide(sh, programs::FOR_HUBS, cluster.is_local())?;
    let sh = &with_demo_key(sh, root, cluster)?;
    log_in(sh, root, cluster).with_context(|| format!("cannot log in to `{}`", cluster.name))
}

/// Whether logging in would first have to bring up a rehearsal cluster.
pub(crate) fn is_down(root: &Path, cluster: &Cluster) -> Result<bool> {
    if !cluster.is_local() {
        return Ok(false);
    }
    let state = Rehearsal::of(root, cluster)?.state()?;
    Ok(!matches!(state, RehearsalState::Up(_)))
}

/// A `Shell` in which sops finds the demo key of a rehearsal cluster, beside the person's own keys.
pub(crate) fn with_demo_key(sh: &Shell, root: &Path, cluster: &Cluster) -> Result<Shell> {
    let sh = sh.clone();
    let file = root.join(&cluster.dir).join("demo.age.key");
    if !file.is_file() {
        return Ok(sh);
    }
    if sh.var_os("SOPS_AGE_KEY_FILE").is_none() {
        sh.set_var("SOPS_AGE_KEY_FILE", file);
    } else {
        let key = fs::read_to_string(&file)
            .with_context(|| format!("cannot read `{}`", file.display()))?;
        let own = sh.var("SOPS_AGE_KEY").unwrap_or_default();
        sh.set_var("SOPS_AGE_KEY", format!("{own}\n{key}"));
    }
    Ok(sh)
}
