//! Follows a release until all its workloads are ready, or one of them certainly won't be.

mod hooks;
mod observed;
mod pods;
mod told;
pub(crate) mod user_pod;
mod watch;
mod workloads;

use std::{
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{
    kubernetes::{
        api::Api,
        rollout::{
            observed::{Observed, hint},
            watch::{Change, Watches},
            workloads::{RolloutStatus, Workload, WorkloadState},
        },
    },
    machine::{
        parallel, process,
        terminal::{Pods, Progress},
        until::Until,
    },
};

pub(crate) use crate::kubernetes::rollout::{
    hooks::{Before, Hooks},
    pods::{is_refusal, reason, trouble, trouble_of_job},
};

/// How often to look whether a pod has been without a node for too long, or we have to stop.
const INTERVAL: Duration = Duration::from_secs(1);

/// How far all of a release is.
pub(crate) struct ReleaseStatus {
    pub(crate) is_ready: bool,
    pub(crate) pods: Pods,
}

impl ReleaseStatus {
    fn of<'a>(workloads: impl IntoIterator<Item = &'a RolloutStatus>) -> ReleaseStatus {
        let mut status = ReleaseStatus {
            is_ready: true,
            pods: Pods::default(),
        };
        for workload in workloads {
            status.is_ready &= workload.state == WorkloadState::Ready;
            status.pods.ready += workload.pods.ready;
            status.pods.wanted += workload.pods.wanted;
        }
        status
    }
}

/// Follows a release of the cluster of this name until all workloads in its manifest are ready. The error describes
/// each one that isn't: as soon as one certainly won't be, or when `until` has come.
pub(crate) fn follow(
    api: &Api,
    cluster: &str,
    namespace: &str,
    manifest: &str,
    until: Until,
    progress: &Progress,
) -> Result<()> {
    let workloads = workloads::in_manifest(manifest, namespace)?;
    // Most releases are ready already, and need no watches.
    let mut observed = Observed::new(api, until.left());
    observed.load(&workloads)?;
    let hint = hint(cluster, namespace);
    let watches = Watches::default();
    let (sender, changes) = mpsc::channel();
    thread::scope(|scope| {
        let result = loop {
            let statuses: Vec<_> = workloads.iter().map(|it| observed.status(it)).collect();
            progress.pods(ReleaseStatus::of(&statuses).pods);
            let unready = unready(&workloads, &statuses);
            match is_over(&observed, &unready, &hint, until) {
                Ok(true) => break Ok(()),
                Ok(false) => {}
                Err(err) => break Err(err),
            }
            for source in unready.iter().flat_map(|(it, _)| observed.sources(it)) {
                watches.start(scope, api, source, &sender);
            }
            wait_for_changes(&mut observed, &changes, until);
        };
        watches.end();
        result
    })
}

/// Whether all of a release is ready now, and how many of the pods that it wants are.
pub(crate) fn look(api: &Api, namespace: &str, manifest: &str) -> Result<ReleaseStatus> {
    let mut statuses = Vec::new();
    for workload in workloads::in_manifest(manifest, namespace)? {
        let object = api.find_object(&workload.object_path())?;
        let status = workloads::rollout_status(workload.kind, object.as_ref());
        statuses.push(workloads::unless_scaled_down(
            &workload,
            object.as_ref(),
            status,
        ));
    }
    Ok(ReleaseStatus::of(&statuses))
}

/// Looks at a release of the cluster of this name once. Returns how far it is, and what keeps each workload that isn't
/// ready from being so, in the words of `follow`.
pub(crate) fn inspect(
    api: &Api,
    cluster: &str,
    namespace: &str,
    manifest: &str,
) -> Result<(ReleaseStatus, Vec<String>)> {
    let workloads = workloads::in_manifest(manifest, namespace)?;
    let mut observed = Observed::new(api, pods::GRACE);
    observed.load(&workloads)?;
    let mut sources = Vec::new();
    for workload in &workloads {
        if observed.status_in_release(workload).state != WorkloadState::Ready {
            sources.extend(observed.sources(workload));
        }
    }
    sources.sort();
    sources.dedup();
    for change in parallel::side_by_side(&(), &sources, |(), source| watch::list(api, source)) {
        observed.apply(change?);
    }
    let statuses: Vec<_> = workloads
        .iter()
        .map(|it| observed.status_in_release(it))
        .collect();
    let mut problems = Vec::new();
    for (workload, state) in unready(&workloads, &statuses) {
        let mut problem = observed.describe_now(workload, state);
        if let Some(words) = observed.way_up(workload) {
            problem +=
                &format!("\nhint: `cargo xtask use-cluster-credentials {cluster} kubectl {words}`");
        }
        problems.push(problem);
    }
    Ok((ReleaseStatus::of(&statuses), problems))
}

fn unready<'a>(
    workloads: &'a [Workload],
    statuses: &'a [RolloutStatus],
) -> Vec<(&'a Workload, &'a WorkloadState)> {
    workloads
        .iter()
        .zip(statuses.iter().map(|it| &it.state))
        .filter(|(_, state)| **state != WorkloadState::Ready)
        .collect()
}

/// Whether nothing is left to wait for. An error if we have to stop, if a workload has failed, or if it's late.
fn is_over(
    observed: &Observed,
    unready: &[(&Workload, &WorkloadState)],
    hint: &str,
    until: Until,
) -> Result<bool> {
    if process::check_stopped().is_err() {
        bail!("stopped before its pods were ready");
    }
    (until.may_go_on)()?;
    let is_late = until.left().is_zero();
    let has_failed = unready.iter().any(|(_, state)| state.is_failure());
    if unready.is_empty() {
        return Ok(true);
    }
    if !is_late && !has_failed {
        return Ok(false);
    }
    let described: Vec<_> = unready
        .iter()
        .map(|(workload, state)| observed.describe(workload, state, is_late))
        .collect();
    bail!("{}{hint}", described.join("\n"))
}

/// Takes over what has changed, as soon as something has, or after a while.
fn wait_for_changes(observed: &mut Observed, changes: &Receiver<Change>, until: Until) {
    if let Ok(change) = changes.recv_timeout(until.left().min(INTERVAL)) {
        observed.apply(change);
        changes.try_iter().for_each(|it| observed.apply(it));
    }
}
