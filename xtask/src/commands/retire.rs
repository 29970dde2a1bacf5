//! Removes a hub from its cluster.

use std::{process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use xshell::Shell;

use crate::{
    kubernetes::{
        api::{self, Api},
        healing,
        history::{self, Newest, Outcome},
        losses::{self, Objects},
        objects::{List, PartialObject},
        ownership,
        release::HelmRunner,
        session::Session,
        volumes,
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
/// The hub's release is uninstalled, and its users' servers and Dask clusters are stopped. Volume claims stay, together with
/// their namespace, so that a hub of this name finds them again; `--delete-volumes` deletes those that it names, and the
/// namespace once no claim is left in it. cluster.yaml need not name the hub any more, and is not changed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask retire lake old                              uninstall the hub and keep its volume claims\n\
\x20 cargo xtask retire lake old --delete-volumes hub-db-dir  delete this claim as well")]
pub struct Retire {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// Hub, or another release
    #[arg(id = "release", value_name = "HUB")]
    hub: String,
    /// How long the uninstallation may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Also delete these volume claims; in another namespace as NAMESPACE/CLAIM
    #[arg(long, value_name = "CLAIM", value_delimiter = ',', value_parser = volumes::parse_name)]
    delete_volumes: Vec<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

/// Removes a release.
pub fn retire(sh: &Shell, tree: &Tree, args: &Retire) -> Result<ExitCode> {
    process::end_in_order();
    let cluster = Cluster::load(tree, &args.cluster)?;
    let (sh, session) = Session::open(sh, tree, &cluster)?;
    let hub = &args.hub;
    newest(&session.api, &cluster, hub)?;
    let lease = session.leases.take(hub)?;
    let asked_about = newest_at_rest(&session, &cluster, hub)?;
    let content = asked_about.content(&session.api)?;
    check(&session, args, &content)?;
    let question = question(
        &session,
        &asked_about,
        args,
        ownership::chart_name(&content),
    )?;
    terminal::confirm_by_name(&question, hub, args.yes)?;
    let newest = newest(&session.api, &cluster, hub)?;
    ensure!(
        newest.revision.number == asked_about.revision.number,
        "somebody has changed `{hub}` of `{}` meanwhile: nothing was done",
        cluster.name
    );

    let mask = session.mask().and(history::secret_texts(&content));
    let helm = HelmRunner::new(&sh, &mask, args.timeout).under(&lease);
    let uninstalled = uninstall(&helm, &session, &newest, &content);
    session
        .unless_stopped(hub, lease.unless_lost(uninstalled))
        .with_context(|| format!("`{hub}` of `{}`", cluster.name))?;
    lease.check()?;
    // After the hub, which would only start them again.
    delete_servers(&session.api, hub)?;
    lease.check()?;
    let rest = delete_volumes(&session.api, args)?;
    drop(lease);
    terminal::print(&format!("{hub} is gone{rest}\n"))?;
    Ok(ExitCode::SUCCESS)
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

/// The newest revision once nobody else is at work on the release. For who holds its Lease.
fn newest_at_rest(session: &Session, cluster: &Cluster, hub: &str) -> Result<Newest> {
    let revisions = history::revisions(&session.api, hub)?;
    let revisions = healing::wait_for_others(session, hub, revisions, false)?;
    let newest = newest(&session.api, cluster, hub)?;
    ownership::check_cluster(&session.target, hub, &revisions)?;
    Ok(newest)
}

/// Refuses claims that nobody has, and what would delete others than those.
fn check(session: &Session, args: &Retire, content: &Value) -> Result<()> {
    let (api, hub) = (&session.api, args.hub.as_str());
    volumes::refuse_unknown(api, &[hub], &args.delete_volumes)?;
    let events = ["pre-delete", "post-delete"];
    let objects = Objects::of(content);
    losses::refuse_losses(api, hub, &objects, None, events, &args.delete_volumes)
}

fn question(session: &Session, newest: &Newest, args: &Retire, chart: &str) -> Result<String> {
    let (api, hub) = (&session.api, &args.hub);
    let mut claims = volumes::claims(api, hub)?;
    claims.retain(|it| !args.delete_volumes.contains(it));
    let deleted = if args.delete_volumes.is_empty() {
        String::new()
    } else {
        format!(
            ", the volume claims {} that will be deleted",
            list(&args.delete_volumes)
        )
    };
    let dask = dask_clusters(api, hub)?;
    let dask = if dask.is_empty() {
        String::new()
    } else {
        format!(", the Dask clusters {}", list(dask))
    };
    Ok(format!(
        "Remove `{hub}` from `{}`, {}: revision {} of the chart `{chart}`, {} of users{dask}{deleted}, {} that will stay",
        session.target.cluster,
        session.target.place(),
        newest.revision.shown(),
        number_of(servers(api, hub)?.len(), "server"),
        number_of(claims.len(), "volume claim"),
    ))
}

/// Uninstalls the release, but for its claims and volumes.
fn uninstall(helm: &HelmRunner, session: &Session, newest: &Newest, content: &Value) -> Result<()> {
    let (api, name) = (&session.api, &newest.name);
    let claims = volumes::claims_of_helm(api, name)?;
    volumes::protect(api, name, &claims, [content])?;
    volumes::keep_in_record(api, name, &newest.revision)?;
    process::check_stopped()?;
    let was_ready = newest.revision.is_ready();
    session.mark(name, &newest.revision, &Outcome::Retiring { was_ready })?;
    let uninstalled = helm.uninstall(session, name, newest.revision.number, content);
    if uninstalled.is_err()
        && let Some(now) = history::last(api, name)?
        && now.revision.status != "uninstalling"
    {
        session.mark(name, &now.revision, &newest.revision.outcome)?;
    }
    uninstalled
}

/// Deletes the users' servers and their Dask clusters, whose pods go with them.
fn delete_servers(api: &Api, namespace: &str) -> Result<()> {
    for name in servers(api, namespace)? {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{}", api::step(&name)?);
        api.delete(&path, &json!({}))?;
    }
    for name in dask_clusters(api, namespace)? {
        let path = format!("{}/{}", dask_path(namespace), api::step(&name)?);
        let how = json!({"propagationPolicy": "Background"});
        api.delete(&path, &how)?;
    }
    Ok(())
}

/// Deletes the claims that are named, and then the namespace if it has no others. Returns the end of the message.
fn delete_volumes(api: &Api, args: &Retire) -> Result<String> {
    let hub = &args.hub;
    let deleted = volumes::delete(api, hub, &args.delete_volumes, None)?;
    let mut left = volumes::claims(api, hub)?;
    left.retain(|it| !deleted.contains(it));
    if !left.is_empty() {
        return Ok(format!("; its volume claims stay: {}", list(left)));
    }
    if deleted.is_empty() {
        return Ok(String::new());
    }
    let others = history::newest(api)?.into_iter();
    let others: Vec<_> = others
        .filter(|it| it.namespace == *hub)
        .map(|it| it.name)
        .collect();
    if !others.is_empty() {
        let others = list(others);
        return Ok(format!(
            ", with its volume claims; its namespace stays, for it has the releases {others}"
        ));
    }
    delete_namespace(api, hub)?;
    Ok(", with its volume claims and its namespace".to_owned())
}

/// Deletes the namespace, and waits until it is gone.
fn delete_namespace(api: &Api, name: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/{name}");
    api.delete(&path, &json!({}))?;
    let until = Until::after(TIMEOUT);
    while api.find(&path)?.is_some() {
        until.check(&format!("deleting the namespace `{name}`"))?;
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The servers of users: pods that the hub created itself, so that no other object owns them.
fn servers(api: &Api, namespace: &str) -> Result<Vec<String>> {
    let pods = api.metadata(&format!("/api/v1/namespaces/{namespace}/pods"))?;
    let pods = pods.items.into_iter().map(|it| it.metadata);
    let without_owner = pods.filter(|it| it.owner_references.is_empty());
    Ok(without_owner.map(|it| it.name).collect())
}

/// The Dask clusters of users. Without dask-gateway there are none.
fn dask_clusters(api: &Api, namespace: &str) -> Result<Vec<String>> {
    let found = match api.find_object::<List<PartialObject>>(&dask_path(namespace)) {
        // Who has no rights on them uses none.
        Err(err) if api::status(&err) == Some(403) => None,
        found => found?,
    };
    let found = found.map_or_else(Vec::new, |it| it.items);
    Ok(found.into_iter().map(|it| it.metadata.name).collect())
}

fn dask_path(namespace: &str) -> String {
    format!("/apis/gateway.dask.org/v1alpha1/namespaces/{namespace}/daskclusters")
}
