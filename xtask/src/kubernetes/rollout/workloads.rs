//! The workloads of a release, and how far each of them is rolled out.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    kubernetes::objects::{LabelSelector, LabelSelectorRequirement, WorkloadObject},
    machine::terminal::Pods,
    services::http::percent_encoded,
    yaml::{self, split_documents},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
}

impl WorkloadKind {
    fn named(kind: &str) -> Option<WorkloadKind> {
        match kind {
            "Deployment" => Some(WorkloadKind::Deployment),
            "StatefulSet" => Some(WorkloadKind::StatefulSet),
            "DaemonSet" => Some(WorkloadKind::DaemonSet),
            "Job" => Some(WorkloadKind::Job),
            _ => None,
        }
    }
}

/// What has to be ready before its release is.
pub(crate) struct Workload {
    pub(crate) kind: WorkloadKind,
    pub(crate) name: String,
    pub(crate) namespace: String,
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

/// A document of a manifest. It may be an object of any kind.
#[derive(Deserialize)]
struct ManifestObject {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ManifestMetadata,
    #[serde(default)]
    spec: Value,
}

#[derive(Default, Deserialize)]
struct ManifestMetadata {
    name: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, Value>,
}

impl ManifestObject {
    /// Whether nobody waits for it: with `OnDelete` no pod is replaced, z2jh's placeholders stay pending until a node is
    /// free for them, and a suspended job waits for somebody to resume it.
    fn is_left_alone(&self) -> bool {
        let component = self.metadata.labels.get("component");
        component.is_some_and(|it| it == "user-placeholder")
            || self.spec["updateStrategy"]["type"] == "OnDelete"
            || self.spec["suspend"] == true
    }
}

/// The workloads in the manifest of a release that have to become ready.
pub(crate) fn in_manifest(manifest: &str, namespace: &str) -> Result<Vec<Workload>> {
    let mut workloads = Vec::new();
    for document in split_documents(manifest) {
        workloads.extend(workload(document, namespace)?);
    }
    Ok(workloads)
}

fn workload(document: &str, namespace: &str) -> Result<Option<Workload>> {
    let kinds = ["Deployment", "StatefulSet", "DaemonSet", "Job"];
    // Most documents are something else, and to read YAML takes its time.
    if !kinds.iter().any(|it| document.contains(it)) {
        return Ok(None);
    }
    let object: Option<ManifestObject> = yaml::parse(document.as_bytes())
        .context("cannot find the workloads in the release's manifest")?;
    let Some(object) = object.filter(|it| !it.is_left_alone()) else {
        return Ok(None);
    };
    let Some(kind) = WorkloadKind::named(&object.kind) else {
        return Ok(None);
    };
    let ManifestMetadata {
        name,
        namespace: own_namespace,
        ..
    } = object.metadata;
    Ok(name.map(|name| Workload {
        kind,
        name,
        namespace: own_namespace.unwrap_or_else(|| namespace.to_owned()),
    }))
}

impl Workload {
    /// The path of the list that it is in.
    pub(crate) fn list_path(&self) -> String {
        match self.kind {
            WorkloadKind::Deployment => self.path("apps", "deployments"),
            WorkloadKind::StatefulSet => self.path("apps", "statefulsets"),
            WorkloadKind::DaemonSet => self.path("apps", "daemonsets"),
            WorkloadKind::Job => self.path("batch", "jobs"),
        }
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

/// Whether the controller of a workload has seen its newest revision. Jobs have only one.
pub(crate) fn is_observed(kind: WorkloadKind, object: &WorkloadObject) -> bool {
    kind == WorkloadKind::Job || object.metadata.generation <= object.status.observed_generation
}

/// How far a workload is, by the same questions that `kubectl rollout status` asks.
/// <https://github.com/kubernetes/kubectl/blob/master/pkg/polymorphichelpers/rollout_status.go>
pub(crate) fn rollout_status(kind: WorkloadKind, object: Option<&WorkloadObject>) -> RolloutStatus {
    let Some(object) = object else {
        // A job may be deleted when it is done.
        let state = if kind == WorkloadKind::Job {
            WorkloadState::Ready
        } else {
            WorkloadState::Failed("it does not exist".to_owned())
        };
        let pods = pods(kind, &WorkloadObject::default());
        return RolloutStatus { state, pods };
    };
    let pods = pods(kind, object);
    let state = if kind == WorkloadKind::Job {
        state_of_job(object, pods)
    } else {
        state_of_replicas(kind, object, pods)
    };
    RolloutStatus { state, pods }
}

/// How many pods of a workload are ready, or done if it is a Job, and how many are to be.
fn pods(kind: WorkloadKind, object: &WorkloadObject) -> Pods {
    let WorkloadObject { spec, status, .. } = object;
    let ready = match kind {
        WorkloadKind::Deployment => status.available_replicas,
        WorkloadKind::StatefulSet => status.ready_replicas,
        WorkloadKind::DaemonSet => status.number_available,
        WorkloadKind::Job => status.succeeded,
    };
    let wanted = match kind {
        WorkloadKind::Deployment | WorkloadKind::StatefulSet => spec.replicas.unwrap_or(1),
        WorkloadKind::DaemonSet => status.desired_number_scheduled,
        WorkloadKind::Job => spec.completions.unwrap_or(1),
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
