//! Installing and upgrading hubs, and in support.rs what a cluster's hubs share.

use std::{
    collections::BTreeSet, num::NonZero, path::Path, process::ExitCode, sync::Mutex, thread,
    time::Instant,
};

use anyhow::Result;
use xshell::Shell;

use crate::{
    commands::deploy::{options::Deploy, report::DeployReport, run::Run},
    kubernetes::release::Helm,
    machine::{
        parallel, process,
        terminal::{self, list, number_of},
    },
    repository::{
        cluster::{Cluster, Hub},
        problem::What,
    },
};

pub mod options;
mod report;
mod run;
pub mod support;

/// Deploys hubs; fails if one of them did.
pub fn deploy(sh: &Shell, root: &Path, args: &Deploy) -> Result<ExitCode> {
    let cluster = Cluster::load(root, &args.cluster)?;
    let hubs = cluster.select_hubs(&args.hubs)?;
    let charts = hubs.iter().map(|it| it.chart()).collect();
    let what = [What::Hubs, What::Authenticators];
    let (sh, mut run) = Run::prepare(sh, root, &cluster, &what, &args.hubs, charts, &args.options)?;
    if let Some(session) = &mut run.session {
        session.record.ignore_staging = args.ignore_staging.clone();
    }

    let jobs = args.jobs.map_or_else(default_jobs, NonZero::get);
    if args.options.diff {
        let diffs = parallel::in_order(&sh, jobs, &vec![Vec::new(); hubs.len()], |sh, index| {
            let helm = Helm {
                flags: args.flags(),
                ..run.helm(sh, &args.options)
            };
            let diff = || {
                let release = run.release(&cluster, hubs[index])?;
                let has_dask = run.fleet.kind(hubs[index])?.has_dask;
                run.diff(&helm, &release, run.lacking(has_dask)?)
            };
            (hubs[index].name.as_str(), diff())
        });
        let differs = run.show_diffs(diffs)?;
        if args.options.dry_run {
            return Ok(args.options.exit_code(differs));
        }
        terminal::confirm(
            &format!(
                "Deploy {} of `{}`",
                number_of(hubs.len(), "hub"),
                cluster.name
            ),
            args.options.yes,
        )?;
    }
    let report = DeployReport::new(
        &run.mask,
        &args.options,
        &cluster,
        hubs.iter().map(|it| it.name.as_str()).collect(),
    );
    let crds = Mutex::new(BTreeSet::new());
    // Nothing has to stand where nothing is changed.
    let gates: Vec<_> = hubs
        .iter()
        .map(|it| {
            if args.options.dry_run {
                vec![]
            } else {
                gates(it, &hubs)
            }
        })
        .collect();
    parallel::in_order(&sh, jobs, &gates, |sh, index| {
        let hub = hubs[index];
        if process::check_stopped().is_err() {
            return report.not_begun(index);
        }
        let missing: Vec<_> = gates[index]
            .iter()
            .filter(|it| !report.stands(**it))
            .collect();
        if !missing.is_empty() {
            let missing = list(missing.into_iter().map(|it| &hubs[*it].name));
            match &args.ignore_staging {
                Some(reason) => say!("{}: going on without {missing}: {reason}", hub.name),
                None => return report.hold_back(index, &missing),
            }
        }
        let started = Instant::now();
        report.add(index, started, run.hub(sh, &cluster, hub, args, &crds));
    });
    report.finish(&format!("{} hubs", hubs.len()))?;
    Ok(ExitCode::SUCCESS)
}

fn default_jobs() -> usize {
    thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(8)
}

/// The numbers of the hubs which have to stand before this one is deployed: those among the run's that gate it.
fn gates(hub: &Hub, hubs: &[&Hub]) -> Vec<usize> {
    let gates = hubs
        .iter()
        .enumerate()
        .filter(|(_, it)| it.is_staging() && hub.waits_for(it));
    gates.map(|(index, _)| index).collect()
}
