//! Logging in to a cluster. Nothing else makes a KUBECONFIG.

mod aws;
mod azure;
mod docker_config;
mod gcp;
pub(crate) mod login;
mod passwords;
mod persons_registries;
pub(crate) mod registry;

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::{
        api,
        credentials::login::Login,
        rehearsal::{Rehearsal, RehearsalState},
    },
    machine::{
        process,
        programs::{self, Tools},
        tree::Tree,
    },
    repository::{
        cluster::{Cluster, Provider},
        keys,
    },
    secrets::{self, Decrypter},
    settings::Settings,
};

/// Logs in to a cluster, and makes sure that it answers. A rehearsal cluster is brought up for that.
///
/// `decrypter` has the person's own environment. With a `key` in cluster.yaml nothing of the person's own logins
/// is used; without one it is their own login, or that of the machine.
pub(crate) fn log_in(decrypter: &Decrypter, tree: &Tree, cluster: &Cluster) -> Result<Login> {
    keys::refuse_plain(tree, cluster)?;
    let sh = decrypter.sh();
    let mut login = Login::new(sh)?;
    match &cluster.provider {
        Provider::Local(_) => {
            let rehearsal = Rehearsal::of(tree.root(), cluster)?;
            login.rehearsal = Some(rehearsal.up(sh, None)?);
            login.set("KUBECONFIG", rehearsal.kubeconfig());
            login.set("KUBECACHEDIR", rehearsal.kube_cache());
            // `up` has seen it answer.
            return Ok(login);
        }
        Provider::Kubeconfig(file) => {
            let kubeconfig = secrets::open(decrypter, tree, file)?;
            login.hold_kubeconfig(
                kubeconfig,
                tree.root().join(file).parent().unwrap_or(tree.root()),
            )?;
            login.isolate();
            login
                .place()
                .with_context(|| format!("`{}`", file.display()))?;
        }
        Provider::Gcp(gcp) => gcp::log_in(&mut login, decrypter, tree, gcp)?,
        Provider::Aws(aws) => aws::log_in(&mut login, decrypter, tree, aws)?,
        Provider::Azure(azure) => {
            azure::log_in(&mut login, decrypter, tree, azure, &Settings::load(tree)?)?
        }
    }
    ask_for_version(&login)?;
    Ok(login)
}

/// Asks the cluster once, so that one that is away costs one timeout, and not one for each hub.
fn ask_for_version(login: &Login) -> Result<()> {
    let sh = &login.sh;
    let answer = api::repeated(|| {
        let ask = cmd!(sh, "kubectl get --raw /version --request-timeout 20s");
        process::run(sh, ask, b"")
    })?;
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
    let place = login.place()?;
    bail!("the cluster does not answer at {place}: {reason}\nhint: {hint}");
}

/// Logs in as `open_or_up` does, to a cluster that is up.
pub(crate) fn open(sh: &Shell, tree: &Tree, cluster: &Cluster) -> Result<Login> {
    refuse_down(tree, cluster)?;
    open_or_up(sh, tree, cluster)
}

/// Provides the programs that a hub's cluster needs, and logs in: for a command that runs nothing else before.
pub(crate) fn open_or_up(sh: &Shell, tree: &Tree, cluster: &Cluster) -> Result<Login> {
    let tools = programs::provide(sh, programs::FOR_HUBS, cluster.is_local())?;
    open_by(&tools, tree, cluster)
}

/// Logs in with programs that are provided already.
pub(crate) fn open_by(tools: &Tools, tree: &Tree, cluster: &Cluster) -> Result<Login> {
    let decrypter = decrypter(tools, tree, cluster)?;
    log_in(&decrypter, tree, cluster)
        .with_context(|| format!("cannot log in to `{}`", cluster.name))
}

/// Whether logging in would first have to bring up a rehearsal cluster.
pub(crate) fn is_down(tree: &Tree, cluster: &Cluster) -> Result<bool> {
    if !cluster.is_local() {
        return Ok(false);
    }
    let state = Rehearsal::of(tree.root(), cluster)?.state()?;
    Ok(!matches!(state, RehearsalState::Up(_)))
}

/// Refuses a rehearsal cluster that is down, for a command that would find nothing in it if it brought it up.
pub(crate) fn refuse_down(tree: &Tree, cluster: &Cluster) -> Result<()> {
    let name = &cluster.name;
    ensure!(
        !is_down(tree, cluster)?,
        "the rehearsal cluster `{name}` is down\nhint: `cargo xtask deploy {name}` brings it up with its hubs, and \
         `cargo xtask local up` without them"
    );
    Ok(())
}

/// What decrypts the files of a cluster. A rehearsal cluster has a demo key in its folder.
pub(crate) fn decrypter(tools: &Tools, tree: &Tree, cluster: &Cluster) -> Result<Decrypter> {
    let file = cluster.dir.join("demo.age.key");
    let key = tree
        .read_if_there(&file)
        .with_context(|| format!("cannot read `{}`", file.display()))?;
    let key = key.map(|it| String::from_utf8_lossy(&it).into_owned());
    Ok(Decrypter::new(tools, key.as_deref()))
}
