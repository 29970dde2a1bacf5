//! Removes a hub from its cluster.

use std::{process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::json;
use xshell::Shell;

use crate::{
    kubernetes::{
        api::Api,
        history::{self, Newest},
        release::HelmRunner,
        session::Session,
    },
    machine::{
        process,
        terminal::{self, list, number_of},
        tree::Tree,
        until::Until,
    },
    repository::cluster::Cluster,
};

/// How long the uninstallation may take, and then the deletion of the namespace.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Remove a hub from its cluster
///
/// The hub's release is uninstalled and its users' servers are stopped. Volume claims stay, together with their namespace, so
/// that a hub of this name finds them again; `--delete-volumes` deletes both. cluster.yaml need not name the hub any more,
/// and is not changed.
#[derive(clap::Args)]
pub struct Retire {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// Hub, or another release
    hub: String,
    /// Also delete the hub's volume claims, and everything else in its namespace
    #[arg(long)]
    delete_volumes: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

/// Removes a release.
pub fn retire(sh: &Shell, tree: &Tree, args: &Retire) -> Result<ExitCode> {
    process::end_in_order();
    let cluster = Cluster::load(tree, &args.cluster)?;
    let (sh, session) = Session::open(sh, tree, &cluster)?;
    let api = &session.api;
    let hub = &args.hub;
    let newest = newest(api, &cluster, hub)?;
    let mask = session.mask();
    let mask = mask.and(history::secret_texts(&newest.content(api)?));
    terminal::confirm(&question(api, &cluster, &newest, args)?, args.yes)?;

    let _lease = session.leases.take(hub)?;
    let helm = HelmRunner::new(&sh, &mask, TIMEOUT);
    let uninstalled = uninstall(&helm, api, &newest, args.delete_volumes);
    session
        .unless_stopped(hub, uninstalled)
        .with_context(|| format!("`{hub}` of `{}`", cluster.name))?;
    // After the hub, which would only start them again.
    delete_servers(api, hub)?;
    let rest = if args.delete_volumes {
        delete_namespace(api, hub)?;
        ", with its volume claims and its namespace".to_owned()
    } else {
        claims_left(api, hub)?
    };
    terminal::print(&format!("{hub} is gone{rest}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The end of the message, where volume claims are left.
fn claims_left(api: &Api, hub: &str) -> Result<String> {
    let claims = volume_claims(api, hub)?;
    Ok(if claims.is_empty() {
        String::new()
    } else {
        format!("; its volume claims stay: {}", list(claims))
    })
}

/// The newest revision of the release. An error if it is not in the cluster.
fn newest(api: &Api, cluster: &Cluster, hub: &str) -> Result<Newest> {
    if let Some(newest) = history::last(api, hub)? {
        return Ok(newest);
    }
    let mut known = history::newest(api)?;
    known.retain(|it| it.is(&it.name));
    bail!(
        "cluster `{}` has no release `{hub}`; it has: {}",
        cluster.name,
        list(known.iter().map(|it| &it.name))
    )
}

fn question(api: &Api, cluster: &Cluster, newest: &Newest, args: &Retire) -> Result<String> {
    let hub = &args.hub;
    let volumes = if args.delete_volumes {
        "will be deleted"
    } else {
        "will stay"
    };
    Ok(format!(
        "Remove `{hub}` from `{}`: revision {}, {} of users, {} that {volumes}",
        cluster.name,
        newest.revision.shown(),
        number_of(servers(api, hub)?.len(), "server"),
        number_of(volume_claims(api, hub)?.len(), "volume claim"),
    ))
}

fn uninstall(helm: &HelmRunner, api: &Api, newest: &Newest, delete_volumes: bool) -> Result<()> {
    if !delete_volumes {
        history::forget_volumes(api, newest)?;
    }
    helm.uninstall(&newest.name)
}

fn delete_servers(api: &Api, namespace: &str) -> Result<()> {
    for name in servers(api, namespace)? {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        api.send("DELETE", &path, &json!({}))?;
    }
    Ok(())
}

/// Deletes the namespace, and waits until it is gone.
fn delete_namespace(api: &Api, name: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/{name}");
    api.send("DELETE", &path, &json!({}))?;
    let until = Until::after(TIMEOUT);
    while api.find(&path)?.is_some() {
        until.check(&format!("deleting the namespace `{name}`"))?;
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn volume_claims(api: &Api, namespace: &str) -> Result<Vec<String>> {
    let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims");
    let claims = api.metadata(&path)?.items.into_iter();
    Ok(claims.map(|it| it.metadata.name).collect())
}

/// The servers of users: pods that the hub created itself, so that no other object owns them.
fn servers(api: &Api, namespace: &str) -> Result<Vec<String>> {
    let pods = api.metadata(&format!("/api/v1/namespaces/{namespace}/pods"))?;
    let pods = pods.items.into_iter().map(|it| it.metadata);
    let without_owner = pods.filter(|it| it.owner_references.is_empty());
    Ok(without_owner.map(|it| it.name).collect())
}
