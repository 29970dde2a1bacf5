//! Taking a hub away.

use std::{
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use xshell::Shell;

use crate::{
    kubernetes::{api::Api, history, release::HelmRunner, session::Session},
    machine::{
        process,
        terminal::{self, list, number_of},
    },
    repository::cluster::Cluster,
};

/// How long it may take.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Take a hub away from its cluster
///
/// Its release is uninstalled and its users' servers are stopped. Volume claims stay, and with them their namespace, so that
/// a hub of this name finds them again; `--delete-volumes` removes both. cluster.yaml need not name the hub any more, and
/// isn't changed.
#[derive(clap::Args)]
pub struct Retire {
    /// A folder in config/clusters/
    cluster: String,
    /// The hub, or another release
    hub: String,
    /// Also delete its volume claims, and all else in its namespace
    #[arg(long)]
    delete_volumes: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

/// Takes a release away.
pub fn retire(sh: &Shell, root: &Path, args: &Retire) -> Result<ExitCode> {
    let cluster = Cluster::load(root, &args.cluster)?;
    let (sh, mask, session) = Session::open(sh, root, &cluster)?;
    let api = &session.api;
    let hub = &args.hub;
    let Some(newest) = history::last(api, hub)? else {
        let known = history::newest(api)?
            .into_iter()
            .filter(|it| it.is(&it.name))
            .map(|it| it.name);
        bail!(
            "cluster `{}` has no release `{hub}`; it has: {}",
            cluster.name,
            list(known)
        );
    };
    let claims = names(api, hub, "persistentvolumeclaims")?;
    let servers = servers(api, hub)?;
    let question = format!(
        "Take `{hub}` of `{}` away: revision {}, {} of users, {} that {}",
        cluster.name,
        newest.revision.shown(),
        number_of(servers.len(), "server"),
        number_of(claims.len(), "volume claim"),
        if args.delete_volumes {
            "will be deleted"
        } else {
            "will stay"
        }
    );
    terminal::confirm(&question, args.yes)?;

    let _lease = session.leases.take(hub)?;
    let uninstalled = (|| {
        if !args.delete_volumes {
            history::forget_volumes(api, &newest)?;
        }
        HelmRunner::new(&sh, &mask, TIMEOUT).uninstall(hub)
    })();
    session
        .unless_stopped(hub, uninstalled)
        .with_context(|| format!("`{hub}` of `{}`", cluster.name))?;
    // The hub would only start them again, so they are the last.
    for name in self::servers(api, hub)? {
        api.send(
            "DELETE",
            &format!("/api/v1/namespaces/{hub}/pods/{name}"),
            &json!({}),
        )?;
    }
    if !args.delete_volumes {
        let kept = names(api, hub, "persistentvolumeclaims")?;
        let kept = if kept.is_empty() {
            String::new()
        } else {
            format!("; its volume claims stay: {}", list(kept))
        };
        terminal::print(&format!("{hub} is gone{kept}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let namespace = format!("/api/v1/namespaces/{hub}");
    api.send("DELETE", &namespace, &json!({}))?;
    let until = Instant::now() + TIMEOUT;
    while api.find(&namespace)?.is_some() {
        process::check_stopped()?;
        if Instant::now() > until {
            bail!("the namespace `{hub}` is still there: something in it doesn't end");
        }
        thread::sleep(Duration::from_millis(200));
    }
    terminal::print(&format!(
        "{hub} is gone, with its volume claims and its namespace\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn names(api: &Api, namespace: &str, resource: &str) -> Result<Vec<String>> {
    let list = api.metadata(&format!("/api/v1/namespaces/{namespace}/{resource}"))?;
    let items = list["items"].as_array().into_iter().flatten();
    Ok(items
        .filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned))
        .collect())
}

/// Pods that the hub made itself: nothing in the cluster owns them.
fn servers(api: &Api, namespace: &str) -> Result<Vec<String>> {
    let list = api.metadata(&format!("/api/v1/namespaces/{namespace}/pods"))?;
    let items = list["items"].as_array().into_iter().flatten();
    let bare = items.filter(|it| it["metadata"]["ownerReferences"] == Value::Null);
    Ok(bare
        .filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned))
        .collect())
}
