//! Removes a hub from its cluster.

use std::{process::ExitCode, thread, time::Duration};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use xshell::Shell;

use crate::{
    kubernetes::{
        api::{self, Api},
        healing,
        history::{self, Newest, Revision},
        lease::{Lease, Work},
        losses::{self, Objects},
        objects::{List, ObjectMeta, PartialObject},
        ownership,
        release::HelmRunner,
        session::Session,
        volumes,
    },
    machine::{
        process::{self, Unfinished},
        terminal::{self, list, number_of},
        tree::Tree,
        until::Until,
        workflow,
    },
    repository::cluster::Cluster,
};

/// How long the uninstallation may take, and then the deletion of the namespace.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Remove a hub from its cluster
///
/// The hub's release is uninstalled, and its users' servers and Dask clusters are stopped. Volume claims stay, together with
/// their namespace, so that a hub of this name finds them again; `--delete-volumes` deletes those that it names, and the
/// namespace once no claim is left in it. cluster.yaml need not name the hub any more, and is not changed. Run again what
/// was cut off.
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
    /// Remove a release of this chart that somebody else has installed, or one that was deployed from the cluster of this
    /// name
    #[arg(long, value_name = "NAME")]
    take_over: Option<String>,
    /// Remove a release on which somebody else's helm seems to be at work, because that is dead
    #[arg(long)]
    heal: bool,
}

/// Removes a release.
pub fn retire(sh: &Shell, tree: &Tree, args: &Retire) -> Result<ExitCode> {
    process::end_in_order();
    let cluster = Cluster::load(tree, &args.cluster)?;
    let (sh, session) = Session::open(sh, tree, &cluster)?;
    let hub = &args.hub;
    let is_there = is_there(&session.api, &cluster, hub)?;
    if !is_there && Leftovers::find(&session.api, args)?.is_empty() {
        return Err(unknown(&session.api, &cluster, hub));
    }
    let lease = session.leases.take(hub, Work::Change)?;
    let rest = if is_there {
        let own_chart = ownership::own_chart(tree, &cluster, hub)?;
        remove(&sh, &session, &lease, own_chart.as_deref(), args)
    } else {
        finish(&session, &lease, args)
    };
    let rest = rest.with_context(|| format!("`{hub}` of `{}`", cluster.name))?;
    drop(lease);
    terminal::print(&format!("{hub} is gone{rest}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the release is in the cluster.
fn is_there(api: &Api, cluster: &Cluster, hub: &str) -> Result<bool> {
    match history::last(api, hub) {
        Err(err) if api::status(&err) == Some(403) => bail!(
            "this login may not see whether cluster `{}` has a release `{hub}`\n\
             hint: if that is the hub's name, the login needs the rights on the namespace `{hub}`: {err:#}",
            cluster.name
        ),
        found => Ok(found?.is_some()),
    }
}

/// The error that there is no such release.
fn unknown(api: &Api, cluster: &Cluster, hub: &str) -> Error {
    let cluster = &cluster.name;
    match history::newest(api) {
        Ok(mut known) => {
            known.retain(|it| it.is(&it.name));
            let known = list(known.iter().map(|it| &it.name));
            anyhow!("cluster `{cluster}` has no release `{hub}`; it has: {known}")
        }
        Err(err) if api::status(&err) == Some(403) => anyhow!(
            "cluster `{cluster}` has no release `{hub}`, and this login may not see which ones there are\n\
             hint: the names of its hubs are in cluster.yaml"
        ),
        Err(err) => err,
    }
}

/// Removes a release that is there, as far as it is ours. Returns the end of the message.
fn remove(
    sh: &Shell,
    session: &Session,
    lease: &Lease,
    own_chart: Option<&str>,
    args: &Retire,
) -> Result<String> {
    let (api, hub) = (&session.api, &args.hub);
    let revisions = history::revisions(api, hub)?;
    let revisions = healing::wait_for_others(session, hub, revisions, args.heal)?;
    let asked_about = revisions.last().context("it is gone")?;
    let content = asked_about.content(api, hub)?;
    let take_over = args.take_over.as_deref();
    ownership::check_removal(session, hub, &revisions, &content, own_chart, take_over)?;
    check(session, args, &content)?;
    let question = question(session, asked_about, args, ownership::chart_name(&content))?;
    workflow::confirm_by_name(&question, hub, args.yes)?;
    let newest = history::last(api, hub)?.filter(|it| it.revision.is(asked_about));
    let newest = newest.context("somebody has changed it meanwhile: nothing was done")?;

    let _unfinished = unfinished(hub);
    let mask = session
        .mask()
        .and(history::secret_texts(&content, |_, _| false));
    let helm = HelmRunner::new(sh, &mask, args.timeout).under(lease);
    let uninstalled = uninstall(&helm, session, &newest, &content);
    session.unless_stopped(hub, lease.unless_lost(uninstalled))?;
    lease.check()?;
    // After the hub, which would only start them again.
    delete_servers(api, hub, servers(api, hub, |_| true)?)?;
    lease.check()?;
    delete_volumes(api, args, true)
}

/// What may be left of a release that was removed, if that was cut off.
struct Leftovers {
    /// The claims that are named, and whether helm made any of them for the release.
    claims: Vec<String>,
    are_of_release: bool,
    /// The servers that KubeSpawner has started.
    servers: Vec<String>,
}

impl Leftovers {
    fn find(api: &Api, args: &Retire) -> Result<Leftovers> {
        let hub = &args.hub;
        let claims = volumes::find(api, hub, &args.delete_volumes)?;
        Ok(Leftovers {
            are_of_release: claims
                .iter()
                .any(|(_, live)| volumes::is_made_for(live, hub)),
            claims: claims.into_iter().map(|it| it.0).collect(),
            servers: servers(api, hub, |pod| {
                let component = pod.labels.get("component");
                component.is_some_and(|it| it == "singleuser-server")
            })?,
        })
    }

    fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.servers.is_empty()
    }
}

/// Removes what is left of a release that is not there any more. Returns the end of the message.
fn finish(session: &Session, lease: &Lease, args: &Retire) -> Result<String> {
    let (api, hub) = (&session.api, &args.hub);
    let left = Leftovers::find(api, args)?;
    if !left.servers.is_empty() {
        // Claims go after the servers: all of them are there yet.
        volumes::refuse_unknown(api, &[hub], &args.delete_volumes)?;
    }
    let question = format!(
        "Remove what is left of `{hub}` in `{}`, {}: {} of users{}",
        session.target.cluster,
        session.target.place,
        number_of(left.servers.len(), "server"),
        deleted_claims(&left.claims)
    );
    workflow::confirm_by_name(&question, hub, args.yes)?;
    ensure!(
        history::last(api, hub)?.is_none(),
        "somebody has deployed it meanwhile: nothing was done"
    );
    let _unfinished = unfinished(hub);
    lease.check()?;
    delete_servers(api, hub, left.servers)?;
    lease.check()?;
    delete_volumes(api, args, left.are_of_release)
}

/// What a second signal leaves.
fn unfinished(hub: &str) -> Unfinished {
    process::unfinished(format!(
        "{hub}: some of it may be gone; the same command removes the rest"
    ))
}

/// Refuses claims that nobody has, and what would delete others than those.
fn check(session: &Session, args: &Retire, content: &Value) -> Result<()> {
    let (api, hub) = (&session.api, args.hub.as_str());
    volumes::refuse_unknown(api, &[hub], &args.delete_volumes)?;
    let events = ["pre-delete", "post-delete"];
    let objects = Objects::of(content);
    losses::refuse_losses(api, hub, &objects, None, events, &args.delete_volumes)
}

fn question(session: &Session, newest: &Revision, args: &Retire, chart: &str) -> Result<String> {
    let (api, hub) = (&session.api, &args.hub);
    let mut claims = volumes::claims(api, hub)?;
    claims.retain(|it| !args.delete_volumes.contains(it));
    let deleted = deleted_claims(&args.delete_volumes);
    let dask = dask_clusters(api, hub)?;
    let dask = if dask.is_empty() {
        String::new()
    } else {
        format!(", the Dask clusters {}", list(dask))
    };
    Ok(format!(
        "Remove `{hub}` from `{}`, {}: revision {} of the chart `{chart}`, {} of users{dask}{deleted}, {} that will stay",
        session.target.cluster,
        session.target.place,
        newest.shown(),
        number_of(servers(api, hub, |_| true)?.len(), "server"),
        number_of(claims.len(), "volume claim"),
    ))
}

/// What a question says of the claims that go.
fn deleted_claims(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!(", the volume claims {} that will be deleted", list(names))
}

/// Uninstalls the release, but for its claims and volumes.
fn uninstall(helm: &HelmRunner, session: &Session, newest: &Newest, content: &Value) -> Result<()> {
    let (api, name) = (&session.api, &newest.name);
    let claims = volumes::claims_of_helm(api, name)?;
    volumes::protect(api, name, &claims, [content])?;
    volumes::keep_in_record(api, name, &newest.revision)?;
    process::check_stopped()?;
    session.mark_retiring(name, &newest.revision)?;
    let uninstalled = helm.uninstall(session, name, newest.revision.number, content);
    if uninstalled.is_err()
        && let Some(now) = history::last(api, name)?
        && now.revision.status != "uninstalling"
    {
        session.mark(name, &now.revision, &newest.revision.outcome)?;
    }
    uninstalled
}

/// Deletes these servers of users, and their Dask clusters, whose pods go with them.
fn delete_servers(api: &Api, namespace: &str, servers: Vec<String>) -> Result<()> {
    for name in servers {
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

/// Deletes the claims that are named, and then the namespace if it has no others and `is_of_release`. Returns the end of
/// the message.
fn delete_volumes(api: &Api, args: &Retire, is_of_release: bool) -> Result<String> {
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
    if !is_of_release {
        return Ok(", with its volume claims; its namespace stays".to_owned());
    }
    let others = history::releases_in(api, hub)?;
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
fn servers(
    api: &Api,
    namespace: &str,
    is_wanted: impl Fn(&ObjectMeta) -> bool,
) -> Result<Vec<String>> {
    let pods = api.metadata(&format!("/api/v1/namespaces/{namespace}/pods"))?;
    let pods = pods.items.into_iter().map(|it| it.metadata);
    let wanted = pods.filter(|it| it.owner_references.is_empty() && is_wanted(it));
    Ok(wanted.map(|it| it.name).collect())
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
