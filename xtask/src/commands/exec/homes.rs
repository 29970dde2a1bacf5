//! Shells with users' files.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use xshell::Shell;

use crate::{
    charts::fetch,
    commands::exec::{
        helper::Helper,
        target::{InHub, open},
    },
    kubernetes::{
        api::Api,
        credentials::{self, login::Login},
    },
    machine::{
        process,
        programs::{self, Tools},
        terminal::list,
        tree::Tree,
    },
    repository::{cluster::Cluster, fleet::Fleet, problem::What, release_values::ReleaseValues},
    settings::Settings,
};

pub(crate) fn homes(sh: &Shell, tree: &Tree, args: &InHub) -> Result<ExitCode> {
    // A signal ends the work that goes on, and what was made for it is deleted.
    process::end_in_order();
    let image = &Settings::load(tree)?.shell_image;
    let (cluster, login) = open(sh, tree, &args.cluster, &args.hub)?;
    let api = Api::start(&login.sh)?;
    with_homes(&login, &api, image, &cluster, &args.hub)?.in_front(&args.command())
}

/// A pod with a hub's homes at /home.
pub(crate) fn with_homes<'a>(
    login: &'a Login,
    api: &'a Api,
    image: &str,
    cluster: &Cluster,
    hub: &'a str,
) -> Result<Helper<'a>> {
    const CLAIM: &str = "home-nfs";
    let claims = format!("/api/v1/namespaces/{hub}/persistentvolumeclaims");
    if api.find(&format!("{claims}/{CLAIM}"))?.is_none() {
        let found = api.get(&claims)?;
        let items = found["items"].as_array().into_iter().flatten();
        let names = list(items.filter_map(|it| it["metadata"]["name"].as_str()));
        let place = format!("`{hub}` of `{}`", cluster.name);
        if names.is_empty() {
            bail!("{place} has no claim `{CLAIM}`, nor any other");
        }
        bail!("{place} has no claim `{CLAIM}`; it has: {names}");
    }
    let volume = json!({"persistentVolumeClaim": {"claimName": CLAIM}});
    Helper::start(&login.sh, api, image, hub, "/home", &volume)
}

pub(crate) fn root_homes(sh: &Shell, tree: &Tree, args: &InHub) -> Result<ExitCode> {
    // A signal ends the work that goes on, and what was made for it is deleted.
    process::end_in_order();
    let image = &Settings::load(tree)?.shell_image;
    let hubs = std::slice::from_ref(&args.hub);
    let fleet = Fleet::load(sh, tree, &[What::Hubs], Some(&args.cluster), hubs)?;
    let fleet = fleet.with_charts(fetch::cached_schemas());
    let cluster = fleet.cluster(&args.cluster)?;
    let tools = programs::provide(sh, programs::FOR_HUBS, cluster.is_local())?;
    let volume = nfs_volume(&tools, tree, &fleet, cluster)?;
    let login = credentials::open(sh, tree, cluster)?;
    let api = Api::start(&login.sh)?;
    let helper = Helper::start(&login.sh, &api, image, &args.hub, "/root-homes", &volume)?;
    helper.in_front(&args.command())
}

/// The volume with all homes of the fleet's one hub, as its values name it.
fn nfs_volume(tools: &Tools, tree: &Tree, fleet: &Fleet, cluster: &Cluster) -> Result<Value> {
    let releases = fleet.releases();
    let config = releases.first().context("the hub has no release")?;
    if let Some(volume) = nfs_volume_in(&ReleaseValues::plain(fleet, config)) {
        return Ok(volume);
    }
    if fleet
        .files_of(config)
        .any(|(_, _, file)| file.is_encrypted())
    {
        let decrypter = credentials::decrypter(tools, tree, cluster)?;
        let values = ReleaseValues::decrypted(&decrypter, fleet, config)?;
        if let Some(volume) = nfs_volume_in(&values) {
            return Ok(volume);
        }
    }
    bail!(
        "the values of `{}` of `{}` have no `nfs.pv.serverIP` and `nfs.pv.baseShareName`: its homes are not on NFS",
        config.name(),
        cluster.name
    )
}

fn nfs_volume_in(values: &ReleaseValues) -> Option<Value> {
    let server = values.text(&["nfs", "pv", "serverIP"])?;
    let path = values.text(&["nfs", "pv", "baseShareName"])?;
    Some(json!({"nfs": {"server": server, "path": path}}))
}
