//! What keeps a pod from being ready.

use std::time::Duration;

use serde_json::Value;

use crate::kubernetes::{
    objects::{self, Condition, ContainerState, ContainerStatus, Pod, Waiting},
    rollout::workloads::WorkloadKind,
};

/// Reasons for which a waiting container won't start by itself. The kubelet's:
/// <https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/images/types.go>
/// and <https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/kuberuntime/kuberuntime_container.go>
const PERMANENT_REASONS: [&str; 8] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// How long a pod may be without a node before that counts as failed, unless an autoscaler is at work: of a release's time at
/// most a third.
pub(crate) const GRACE: Duration = Duration::from_secs(120);

/// What keeps a pod from being ready.
pub(crate) struct PodProblem {
    pub(crate) message: String,
    /// Whether it won't go away by itself.
    pub(crate) is_permanent: bool,
    /// The log that may tell more.
    pub(crate) log: Option<ContainerLog>,
}

pub(crate) struct ContainerLog {
    pub(crate) container: String,
    /// Whether it's the log of the container's last run, and not of the one that is going on.
    pub(crate) is_previous: bool,
}

/// What keeps a pod of such a workload from being ready, as far as the pod itself tells.
pub(crate) fn problem(kind: WorkloadKind, pod: &Pod) -> Option<PodProblem> {
    let name = &pod.metadata.name;
    if let Some(condition) = unscheduled(pod) {
        return Some(PodProblem {
            message: format!("pod `{name}` has no node: {}", condition.message),
            is_permanent: false,
            log: None,
        });
    }
    let status = &pod.status;
    status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .filter_map(|container| container_problem(kind, name, container))
        .min_by_key(|problem| !problem.is_permanent)
}

/// How often the containers of a pod have ended.
pub(crate) fn restarts(pod: &Pod) -> u64 {
    let status = &pod.status;
    let containers = status.init_container_statuses.iter();
    let containers = containers.chain(&status.container_statuses);
    containers.map(exits).sum()
}

/// What a pod that isn't ready is doing: nothing keeps it from becoming ready, as far as the pod itself tells.
pub(crate) fn delay(pod: &Pod) -> Option<PodProblem> {
    if pod.is_ready() || pod.status.phase == "Succeeded" {
        return None;
    }
    let name = &pod.metadata.name;
    let status = &pod.status;
    let waiting = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .find_map(|it| it.state.waiting.as_ref());
    let running = status.container_statuses.iter();
    let mut running = running.filter(|it| it.state.running.is_some());
    Some(PodProblem {
        message: match waiting {
            Some(waiting) => format!("pod `{name}` is not ready: {}", waiting.reason),
            None => format!("pod `{name}` is not ready"),
        },
        is_permanent: false,
        log: running.next().map(|it| ContainerLog {
            container: it.name.clone(),
            is_previous: false,
        }),
    })
}

/// What a pod is doing, in a word or two: `ready`, or why it is not.
pub(crate) fn reason(pod: &Pod) -> String {
    let status = &pod.status;
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    if pod.is_ready() {
        return "ready".to_owned();
    }
    if has_no_node(pod) {
        return "no node".to_owned();
    }
    let init = status.init_container_statuses.iter();
    let containers = status.container_statuses.iter();
    let mut reasons = init.chain(containers).filter_map(|it| {
        let ContainerState {
            waiting,
            terminated,
            ..
        } = &it.state;
        let waiting = waiting.as_ref().map(|it| it.reason.as_str());
        let failed = terminated.as_ref().filter(|it| it.exit_code != Some(0));
        waiting.or(failed.map(|it| it.reason.as_str()))
    });
    let reason = reasons.find(|it| *it != "PodInitializing" && !it.is_empty());
    match (reason, status.phase.as_str()) {
        (Some(reason), _) => reason.to_owned(),
        (None, "Succeeded") => "done".to_owned(),
        (None, "Failed") if !status.reason.is_empty() => status.reason.clone(),
        (None, "Failed" | "Pending") => status.phase.clone(),
        _ => "not ready".to_owned(),
    }
}

/// What keeps a user's pod from being ready, and whether that won't go away by itself.
pub(crate) fn trouble(pod: &Pod) -> Option<(String, bool)> {
    let problem = problem(WorkloadKind::Deployment, pod)?;
    Some((problem.message, problem.is_permanent))
}

/// What keeps a job's pod from being ready, and whether that won't go away by itself.
pub(crate) fn trouble_of_job(pod: &Value) -> Option<(String, bool)> {
    let pod: Pod = objects::from_value(pod.clone()).ok()?;
    let problem = problem(WorkloadKind::Job, &pod)?;
    Some((problem.message, problem.is_permanent))
}

pub(crate) fn has_no_node(pod: &Pod) -> bool {
    unscheduled(pod).is_some()
}

/// Why the scheduler finds no node for a pod.
fn unscheduled(pod: &Pod) -> Option<&Condition> {
    let mut conditions = pod.status.conditions.iter();
    conditions
        .find(|it| it.kind == "PodScheduled")
        .filter(|it| it.status == "False")
}

fn container_problem(
    kind: WorkloadKind,
    pod: &str,
    container: &ContainerStatus,
) -> Option<PodProblem> {
    let ContainerStatus { name, state, .. } = container;
    let waiting = state.waiting.as_ref();
    let image = image(container, waiting);
    let described = format!("container `{name}` of pod `{pod}`{image}");
    if let Some(waiting) = waiting.filter(|it| is_permanent(it)) {
        return Some(stuck(&described, waiting));
    }
    let is_backing_off = waiting.is_some_and(|it| it.reason == "CrashLoopBackOff");
    let exits = exits(container);
    let has_crashed = exit_code(container).is_some_and(|code| code != 0 || exits > 2);
    if !is_backing_off && !has_crashed {
        return None;
    }
    Some(PodProblem {
        message: format!("{described}: {}", crash(container, is_backing_off)),
        // A job's pods may fail as often as the job allows.
        is_permanent: kind != WorkloadKind::Job && (is_backing_off || exits > 2),
        log: Some(ContainerLog {
            container: name.clone(),
            is_previous: state.terminated.is_none(),
        }),
    })
}

/// The image of a container, as a part of its problem; empty if what it waits for names it already.
fn image(container: &ContainerStatus, waiting: Option<&Waiting>) -> String {
    let image = &container.image;
    let is_named = waiting.is_some_and(|it| it.message.contains(image));
    if image.is_empty() || is_named {
        String::new()
    } else {
        format!(" (image `{image}`)")
    }
}

/// How often a container has ended.
fn exits(container: &ContainerStatus) -> u64 {
    container.restart_count + u64::from(container.state.terminated.is_some())
}

/// Whether what a container waits for will not come by itself.
fn is_permanent(waiting: &Waiting) -> bool {
    PERMANENT_REASONS.contains(&waiting.reason.as_str())
}

/// The problem of a container that waits for what will not come.
fn stuck(described: &str, waiting: &Waiting) -> PodProblem {
    let Waiting { reason, message } = waiting;
    PodProblem {
        message: format!("{described}: {reason}: {message}"),
        is_permanent: true,
        log: None,
    }
}

/// How a container has ended last.
fn exit_code(container: &ContainerStatus) -> Option<i64> {
    let states = [&container.state, &container.last_state];
    states
        .into_iter()
        .find_map(|state| state.terminated.as_ref()?.exit_code)
}

/// `CrashLoopBackOff, exit code 1, restarts: 3`
fn crash(container: &ContainerStatus, is_backing_off: bool) -> String {
    let mut parts = Vec::new();
    if is_backing_off {
        parts.push("CrashLoopBackOff".to_owned());
    }
    parts.extend(exit_code(container).map(|code| format!("exit code {code}")));
    parts.push(format!("restarts: {}", container.restart_count));
    if container.state.running.is_some() {
        parts.push("running again".to_owned());
    }
    parts.join(", ")
}

/// Whether the message of an event says that pods are refused for good: by a quota or by admission control. That a
/// service account isn't there yet passes.
pub(crate) fn is_refusal(message: &str) -> bool {
    let refusals = ["exceeded quota", "is forbidden", "denied the request"];
    refusals.iter().any(|it| message.contains(it))
        && !message.contains("error looking up service account")
}
