//! The workloads of a release, and how far each of them is rolled out.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    kubernetes::{
        manifests,
        objects::{LabelSelector, LabelSelectorRequirement, WorkloadObject},
    },
    machine::terminal::Pods,
    services::http::percent_encoded,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    /// A hook that is a pod by itself.
    Pod,
}

impl WorkloadKind {
    /// As objects name it.
    fn name(self) -> &'static str {
        match self {
            WorkloadKind::Deployment => "Deployment",
            WorkloadKind::StatefulSet => "StatefulSet",
            WorkloadKind::DaemonSet => "DaemonSet",
            WorkloadKind::Job => "Job",
            WorkloadKind::Pod => "Pod",
        }
    }

    /// Whether it is done once its pods have ended.
    pub(crate) fn ends(self) -> bool {
        matches!(self, WorkloadKind::Job | WorkloadKind::Pod)
    }
}

/// What has to be ready before its release is.
pub(crate) struct Workload {
    pub(crate) kind: WorkloadKind,
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Whether helm makes it on the way, and it goes when it is done.
    pub(crate) is_hook: bool,
    /// How many pods the manifest wants of a Deployment or StatefulSet, if it says so.
    replicas: Option<u64>,
}

/// How far a workload is.
pub(crate) struct RolloutStatus {
    pub(crate) state: WorkloadState,
    pub(crate) pods: Pods,
}

#[derive(Debug, PartialEq)]
pub(crate) enum WorkloadState {
    Ready,
    /// What it waits for.
    Waiting(String),
    /// Why it won't become ready by itself.
    Failed(String),
}

impl WorkloadState {
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, WorkloadState::Failed(_))
    }
}

/// Whether nobody waits for an object: with `OnDelete` no pod is replaced, z2jh's placeholders stay pending until a node
/// is free for them, and a suspended job waits for somebody to resume it.
fn is_left_alone(object: &Value) -> bool {
    object["metadata"]["labels"]["component"] == "user-placeholder"
        || object["spec"]["updateStrategy"]["type"] == "OnDelete"
        || object["spec"]["suspend"] == true
}

/// The workloads in the manifest of a release that have to become ready.
pub(crate) fn in_manifest(manifest: &str, namespace: &str) -> Result<Vec<Workload>> {
    let kinds = [
        WorkloadKind::Deployment,
        WorkloadKind::StatefulSet,
        WorkloadKind::DaemonSet,
        WorkloadKind::Job,
    ];
    of_kinds(&kinds, manifest, namespace)
}

/// The workloads and pods in the manifest of a hook.
pub(crate) fn in_hook(manifest: &str, namespace: &str) -> Result<Vec<Workload>> {
    let kinds = [
        WorkloadKind::DaemonSet,
        WorkloadKind::Job,
        WorkloadKind::Pod,
    ];
    let mut workloads = of_kinds(&kinds, manifest, namespace)?;
    workloads.iter_mut().for_each(|it| it.is_hook = true);
    Ok(workloads)
}

fn of_kinds(kinds: &[WorkloadKind], manifest: &str, namespace: &str) -> Result<Vec<Workload>> {
    let mut workloads = Vec::new();
    for document in manifests::documents(manifest) {
        // Most documents are something else, and to read YAML takes its time.
        if !kinds.iter().any(|it| document.text.contains(it.name())) {
            continue;
        }
        document
            .check()
            .context("cannot find the workloads in the release's manifest")?;
        for object in manifests::taken_apart([document.value()]) {
            let kind = kinds.iter().find(|it| object["kind"] == it.name());
            let name = object["metadata"]["name"].as_str();
            if let (Some(kind), Some(name)) = (kind, name)
                && !is_left_alone(&object)
            {
                workloads.push(Workload {
                    kind: *kind,
                    name: name.to_owned(),
                    namespace: manifests::namespace_of(&object, namespace).to_owned(),
                    replicas: object["spec"]["replicas"].as_u64(),
                    is_hook: false,
                });
            }
        }
    }
    Ok(workloads)
}

impl Workload {
    /// Whether its release can go on though some of its pods never exist. That is so for z2jh's image puller: its nodes may
    /// be full, and the PriorityClass of its pods comes after the hooks; its awaiter gives up on pods without a node.
    pub(crate) fn may_lack_pods(&self) -> bool {
        self.is_hook && self.kind == WorkloadKind::DaemonSet
    }

    /// The path of the list that it is in.
    pub(crate) fn list_path(&self) -> String {
        match self.kind {
            WorkloadKind::Deployment => self.path("apps", "deployments"),
            WorkloadKind::StatefulSet => self.path("apps", "statefulsets"),
            WorkloadKind::DaemonSet => self.path("apps", "daemonsets"),
            WorkloadKind::Job => self.path("batch", "jobs"),
            WorkloadKind::Pod => format!(
                "/api/v1/namespaces/{}/pods?fieldSelector=metadata.name%3D{}",
                self.namespace, self.name
            ),
        }
    }

    /// The path that it has itself.
    pub(crate) fn object_path(&self) -> String {
        let list = self.list_path();
        let list = list.split_once('?').map_or(&*list, |(list, _)| list);
        format!("{list}/{}", self.name)
    }

    /// The path of the list in which the ReplicaSets of a Deployment are.
    pub(crate) fn replica_sets_path(&self) -> String {
        self.path("apps", "replicasets")
    }

    fn path(&self, group: &str, resource: &str) -> String {
        format!("/apis/{group}/v1/namespaces/{}/{resource}", self.namespace)
    }

    /// The path of the list of events that have this reason.
    pub(crate) fn events_path(&self, reason: &str) -> String {
        format!(
            "/api/v1/namespaces/{}/events?fieldSelector=reason%3D{reason}",
            self.namespace
        )
    }

    /// The path of the list of pods that have the labels of the workload's pods.
    pub(crate) fn pods_path(&self, selector: &LabelSelector) -> String {
        if self.kind == WorkloadKind::Pod {
            return self.list_path();
        }
        let labels = selector.match_labels.iter();
        let mut parts: Vec<String> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        parts.extend(selector.match_expressions.iter().map(requirement));
        format!(
            "/api/v1/namespaces/{}/pods?labelSelector={}",
            self.namespace,
            percent_encoded(&parts.join(","))
        )
    }

    /// `deployment/hub`
    pub(crate) fn shown(&self) -> String {
        format!("{:?}/{}", self.kind, self.name).to_lowercase()
    }
}

/// A part of a selector, as a query has it: `key in (a,b)`.
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>
fn requirement(requirement: &LabelSelectorRequirement) -> String {
    let key = &requirement.key;
    match requirement.operator.as_str() {
        "Exists" => key.clone(),
        "DoesNotExist" => format!("!{key}"),
        operator => {
            let operator = operator.to_lowercase();
            format!("{key} {operator} ({})", requirement.values.join(","))
        }
    }
}

/// Whether the controller of a workload has seen its newest revision. What ends has only one.
pub(crate) fn is_observed(kind: WorkloadKind, object: &WorkloadObject) -> bool {
    kind.ends() || object.metadata.generation <= object.status.observed_generation
}

/// How far a workload is, by the same questions that `kubectl rollout status` asks.
/// <https://github.com/kubernetes/kubectl/blob/master/pkg/polymorphichelpers/rollout_status.go>
pub(crate) fn rollout_status(kind: WorkloadKind, object: Option<&WorkloadObject>) -> RolloutStatus {
    let Some(object) = object else {
        // A job may be deleted when it is done.
        let state = if kind.ends() {
            WorkloadState::Ready
        } else {
            WorkloadState::Failed("it does not exist".to_owned())
        };
        let pods = pods(kind, &WorkloadObject::default());
        return RolloutStatus { state, pods };
    };
    let pods = pods(kind, object);
    let state = match kind {
        WorkloadKind::Job => state_of_job(object, pods),
        WorkloadKind::Pod => state_of_pod(object),
        _ => state_of_replicas(kind, object, pods),
    };
    RolloutStatus { state, pods }
}

/// How far a workload is from what its release wants of it, which somebody may have scaled down since.
pub(crate) fn unless_scaled_down(
    workload: &Workload,
    object: Option<&WorkloadObject>,
    mut status: RolloutStatus,
) -> RolloutStatus {
    if let Some(object) = object
        && let Some(wanted) = wanted_if_scaled_down(workload, object)
    {
        let live = object.spec.replicas.unwrap_or_default();
        let why = format!("it is scaled to {live}, and the release wants {wanted}");
        status.state = WorkloadState::Failed(why);
        status.pods.wanted = wanted;
    }
    status
}

/// How many pods a release wants of a workload that has been scaled to fewer. Without a number in the release an
/// autoscaler may have chosen one, but none chooses 0.
pub(crate) fn wanted_if_scaled_down(workload: &Workload, object: &WorkloadObject) -> Option<u64> {
    let is_scalable =
        [WorkloadKind::Deployment, WorkloadKind::StatefulSet].contains(&workload.kind);
    let live = object.spec.replicas.unwrap_or(1);
    let wanted = workload.replicas.unwrap_or(1.max(live));
    (is_scalable && live < wanted).then_some(wanted)
}

/// How many pods of a workload are ready, or done if it is a Job, and how many are to be.
fn pods(kind: WorkloadKind, object: &WorkloadObject) -> Pods {
    let WorkloadObject { spec, status, .. } = object;
    let ready = match kind {
        WorkloadKind::Deployment => status.available_replicas,
        WorkloadKind::StatefulSet => status.ready_replicas,
        WorkloadKind::DaemonSet => status.number_available,
        WorkloadKind::Job => status.succeeded,
        WorkloadKind::Pod => u64::from(status.phase == "Succeeded"),
    };
    let wanted = match kind {
        WorkloadKind::Deployment | WorkloadKind::StatefulSet => spec.replicas.unwrap_or(1),
        WorkloadKind::DaemonSet => status.desired_number_scheduled,
        WorkloadKind::Job => spec.completions.unwrap_or(1),
        WorkloadKind::Pod => 1,
    };
    Pods { ready, wanted }
}

fn state_of_job(job: &WorkloadObject, pods: Pods) -> WorkloadState {
    let status = &job.status;
    if status.is_true("Complete") {
        return WorkloadState::Ready;
    }
    match status.condition("Failed") {
        Some(failed) if failed.status == "True" => {
            WorkloadState::Failed(format!("{}: {}", failed.reason, failed.message))
        }
        _ => WorkloadState::Waiting(format!("{} of {} pods are done", pods.ready, pods.wanted)),
    }
}

fn state_of_pod(pod: &WorkloadObject) -> WorkloadState {
    match pod.status.phase.as_str() {
        "Succeeded" => WorkloadState::Ready,
        "Failed" => WorkloadState::Failed("it has ended in failure".to_owned()),
        phase => WorkloadState::Waiting(format!("it is {phase}")),
    }
}

fn state_of_replicas(kind: WorkloadKind, object: &WorkloadObject, pods: Pods) -> WorkloadState {
    let status = &object.status;
    if !is_observed(kind, object) {
        return WorkloadState::Waiting("its controller has not seen it yet".to_owned());
    }
    if kind == WorkloadKind::Deployment
        && let Some(progressing) = status.condition("Progressing")
        && progressing.reason == "ProgressDeadlineExceeded"
    {
        return WorkloadState::Failed(progressing.message.clone());
    }
    let Pods { ready, wanted } = pods;
    let updated = updated_pods(kind, object);
    let to_update = pods_to_update(kind, object, wanted);
    if updated < to_update {
        return WorkloadState::Waiting(format!("{updated} of {to_update} pods are new"));
    }
    if kind == WorkloadKind::Deployment && status.replicas > updated {
        let old = status.replicas - updated;
        return WorkloadState::Waiting(format!("{old} old pods have to go"));
    }
    if ready < wanted {
        return WorkloadState::Waiting(format!("{ready} of {wanted} pods are ready"));
    }
    WorkloadState::Ready
}

/// How many pods a workload has of its newest revision.
fn updated_pods(kind: WorkloadKind, object: &WorkloadObject) -> u64 {
    match kind {
        WorkloadKind::DaemonSet => object.status.updated_number_scheduled,
        _ => object.status.updated_replicas,
    }
}

/// How many pods of the newest revision a workload is to have: not those below the partition of a StatefulSet.
fn pods_to_update(kind: WorkloadKind, object: &WorkloadObject, wanted: u64) -> u64 {
    match kind {
        WorkloadKind::StatefulSet => {
            wanted.saturating_sub(object.spec.update_strategy.rolling_update.partition)
        }
        _ => wanted,
    }
}
