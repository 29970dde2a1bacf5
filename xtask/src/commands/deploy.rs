//! Installing and upgrading hubs, and in support.rs what a cluster's hubs share.

use std::{
    collections::BTreeSet, num::NonZero, process::ExitCode, sync::Mutex, thread, time::Instant,
};

use anyhow::{Result, anyhow, bail, ensure};
use xshell::Shell;

use crate::{
    commands::deploy::{
        images::Refusals,
        options::Deploy,
        report::DeployReport,
        run::{HubToDeploy, Prepared, Run},
    },
    kubernetes::volumes,
    machine::{
        parallel, process,
        programs::{self, Tools},
        terminal::{list, number_of},
        tree::Tree,
        workflow,
    },
    repository::{
        cluster::{Cluster, Hub, Nodes},
        fleet::Fleet,
        hubploy,
        problem::What,
    },
    settings::Settings,
};

mod diffs;
mod freeze;
mod given;
mod images;
pub mod options;
mod report;
mod run;
pub mod support;
mod unchanged;
mod values;

/// Deploys hubs. Fails if one of them did.
pub fn deploy(sh: &Shell, tree: &Tree, args: &Deploy) -> Result<ExitCode> {
    if !args.options.dry_run {
        process::end_in_order();
    }
    refuse_hubploys(tree, args)?;
    let what = [What::Hubs, What::Authenticators];
    let select = |cluster: &Cluster| selected(cluster, args);
    let Some(fleet) = Fleet::load_selected(sh, tree, &what, &args.cluster, select)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let fleet = fleet.with_image_tags(sh);
    let cluster = fleet.cluster(&args.cluster)?;
    cluster.select_hubs(&args.hubs)?;
    if args.leaves_hubs() {
        return build_only(sh, &fleet, args);
    }
    let hubs = fleet.releases().into_iter().filter_map(|it| it.hub);
    let settings = Settings::load(tree)?;
    if !args.options.diff {
        args.options
            .refuse_frozen(tree, &settings, cluster, &production(hubs))?;
    }
    let tools = programs::provide(sh, programs::FOR_HUBS, cluster.is_local())?;
    let prepared = Prepared::new(&tools, tree, settings, fleet, &args.cluster, &args.options)?;
    let (sh, mut run) = prepared.for_hubs(&tools, args)?;
    images::warn_of_changes(&sh, &run.fleet, &args.cluster)?;
    if let Some(session) = &mut run.session {
        session.record.ignore_staging = args.ignore_staging.clone();
        args.options
            .record_ignored_freeze(&run.settings, &args.cluster, &mut session.record);
    }
    let hubs = run.hubs();

    if args.options.diff {
        let differs = show_diffs(&sh, &run, &hubs, args)?;
        if args.options.dry_run {
            return Ok(args.options.exit_code(differs));
        }
        confirm(&run, &hubs, args)?;
    }
    if let Some(session) = run.session.as_ref().filter(|_| !args.options.dry_run) {
        let names: Vec<_> = hubs.iter().map(HubToDeploy::name).collect();
        volumes::refuse_unknown(&session.api, &names, &args.options.delete_volumes)?;
    }
    let not_built = if args.build || args.push {
        images::build(&sh, &run.fleet, args, hubs.iter().map(|it| it.hub))?
    } else {
        Refusals::new()
    };
    let mut refusals = missing_images(&tools, &run, &hubs, args)?;
    refusals.extend(not_built);
    deploy_hubs(&sh, &run, &hubs, &refusals, args)?;
    if let Some(nodes) = run.rehearsal().filter(|_| !args.options.dry_run) {
        tell_what_next(&args.cluster, nodes);
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses hubploy's `deploy DEPLOYMENT CHART ENVIRONMENT`, and says what it is here.
fn refuse_hubploys(tree: &Tree, args: &Deploy) -> Result<()> {
    let [_chart, environment] = &args.hubs[..] else {
        return Ok(());
    };
    if hubploy::ENVIRONMENTS.contains(&environment.as_str())
        && let Some(hub) = hubploy::hubs_of(tree, &args.cluster, &[environment])?
    {
        bail!(
            "there is no cluster `{}`: this is hubploy's command line\nhint: `cargo xtask deploy {hub}`",
            args.cluster
        );
    }
    Ok(())
}

/// Builds images, and leaves the hubs as they are.
fn build_only(sh: &Shell, fleet: &Fleet, args: &Deploy) -> Result<ExitCode> {
    let hubs = fleet.releases().into_iter().filter_map(|it| it.hub);
    let failed = images::build(sh, fleet, args, hubs)?;
    say!("no hub was deployed, since `--deploy` is not given");
    ensure!(
        failed.is_empty(),
        "no image for {} of `{}`",
        list(failed.keys()),
        args.cluster
    );
    Ok(ExitCode::SUCCESS)
}

/// The hubs whose own images are not in their registries, and why. Nobody pulls images on simulated nodes.
fn missing_images(
    tools: &Tools,
    run: &Run,
    hubs: &[HubToDeploy],
    args: &Deploy,
) -> Result<Refusals> {
    let is_simulated = run.rehearsal() == Some(Nodes::Simulated);
    if args.options.dry_run || args.skip_image_check || is_simulated {
        return Ok(Refusals::new());
    }
    images::missing(tools, run, run.fleet.cluster(&args.cluster)?, hubs)
}

/// Has the person confirm what the differences have shown.
fn confirm(run: &Run, hubs: &[HubToDeploy], args: &Deploy) -> Result<()> {
    let cluster = run.fleet.cluster(&args.cluster)?;
    let frozen = production(hubs.iter().map(|it| it.hub));
    let tree = &run.fleet.tree;
    args.options
        .refuse_frozen(tree, &run.settings, cluster, &frozen)?;
    let hubs = number_of(hubs.len(), "hub");
    let question = format!("Deploy {hubs} of `{}`", args.cluster);
    workflow::confirm(&question, args.options.yes, "deploy")
}

/// The hubs that are named, or else all that are not paused; empty for all. None if there is nothing else, and the person is
/// told.
fn selected(cluster: &Cluster, args: &Deploy) -> Option<Vec<String>> {
    if !args.hubs.is_empty() {
        return Some(args.hubs.clone());
    }
    let mut names = Vec::new();
    for hub in &cluster.hubs {
        match cluster.pause_of(hub) {
            None => names.push(hub.name.clone()),
            Some(pause) => say!(
                "{}: {}: left out, since it is not named",
                hub.name,
                pause.shown()
            ),
        }
    }
    if names.len() == cluster.hubs.len() {
        return Some(Vec::new());
    }
    if names.is_empty() {
        say!("every hub of `{}` is paused: nothing to do", cluster.name);
        return None;
    }
    Some(names)
}

/// The names of those that are no staging hubs.
fn production<'a>(hubs: impl IntoIterator<Item = &'a Hub>) -> Vec<&'a str> {
    let hubs = hubs.into_iter().filter(|it| !it.is_staging());
    hubs.map(|it| it.name.as_str()).collect()
}

/// Says what a person can do now with a rehearsal cluster.
fn tell_what_next(cluster: &str, nodes: Nodes) {
    let next = match nodes {
        Nodes::Real => "open an address above and log in",
        Nodes::Simulated => {
            "nodes are simulated, so pods run nothing: `cargo xtask local down && cargo xtask local up --real` makes a real \
             one (as root on Linux)"
        }
    };
    say!(
        "next: {next}\n\
         `cargo xtask status {cluster}` shows the hubs, `cargo xtask use-cluster-credentials {cluster}` opens a shell with \
         kubectl, and `cargo xtask local down` removes all of it"
    );
}

/// Prints what would change, hub by hub. Returns whether anything would.
fn show_diffs(sh: &Shell, run: &Run, hubs: &[HubToDeploy], args: &Deploy) -> Result<bool> {
    let no_gates = vec![Vec::new(); hubs.len()];
    let diffs = parallel::in_order(sh, args.jobs(), &no_gates, |sh, index| {
        let hub = &hubs[index];
        (hub.name(), run.diff_of_hub(sh, hub, args))
    });
    diffs::show(&run.mask, diffs)
}

/// Deploys hubs side by side, each one after those that gate it.
fn deploy_hubs(
    sh: &Shell,
    run: &Run,
    hubs: &[HubToDeploy],
    refusals: &Refusals,
    args: &Deploy,
) -> Result<()> {
    let names = hubs.iter().map(HubToDeploy::name).collect();
    let report = DeployReport::new(&run.mask, args.options.format, &args.cluster, names);
    let crds = Mutex::new(BTreeSet::new());
    let gates = gates(hubs, args);
    parallel::in_order(sh, args.jobs(), &gates, |sh, index| {
        let hub = &hubs[index];
        if process::check_stopped().is_err() {
            return report.not_begun(index);
        }
        let missing = missing_gates(hubs, &gates[index], &report);
        if !missing.is_empty() {
            let missing = list(missing);
            match &args.ignore_staging {
                Some(reason) => {
                    let reason = run.mask.hide(reason);
                    say!("{}: going on without {missing}: {reason}", hub.name());
                }
                None => return report.hold_back(index, &missing),
            }
        }
        let started = Instant::now();
        let deployed = match refusals.get(hub.name()) {
            Some(why) => Err(anyhow!("{why}")),
            None => run.deploy_hub(sh, hub, args, &crds),
        };
        report.add(index, started, deployed);
    });
    report.finish(&format!("{} hubs", hubs.len()))
}

/// The names of the hubs among these gates that are not ready.
fn missing_gates<'a>(
    hubs: &'a [HubToDeploy],
    gates: &[usize],
    report: &DeployReport,
) -> Vec<&'a str> {
    let missing = gates.iter().filter(|gate| !report.is_ready(**gate));
    missing.map(|gate| hubs[*gate].name()).collect()
}

/// For each hub the numbers of those which have to be ready before it is deployed. A dry run changes nothing, and so
/// nothing has to be ready.
fn gates(hubs: &[HubToDeploy], args: &Deploy) -> Vec<Vec<usize>> {
    let mut gates = vec![Vec::new(); hubs.len()];
    if args.options.dry_run {
        return gates;
    }
    for (index, waiting) in hubs.iter().enumerate() {
        for (gate, staging) in hubs.iter().enumerate() {
            if staging.hub.is_staging() && waiting.hub.waits_for(staging.hub) {
                gates[index].push(gate);
            }
        }
    }
    gates
}

impl Deploy {
    /// How many hubs are deployed at once.
    fn jobs(&self) -> usize {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        self.jobs.map_or(cores.min(8), NonZero::get)
    }
}
