//! What we read of Kubernetes' objects: <https://kubernetes.io/docs/reference/kubernetes-api>
//!
//! An API server leaves out what is empty, and so may an older or newer one what ours has: no field is required.

use std::collections::BTreeMap;

use serde::{
    Deserialize,
    de::{DeserializeOwned, Error},
};
use serde_json::Value;

/// How deep an object may be nested: as deep as we read manifests, with room for what the API server adds.
const MAX_DEPTH: usize = 600;

/// Reads JSON that may be nested deeper than serde_json itself allows.
pub(crate) fn from_json(content: &[u8]) -> serde_json::Result<Value> {
    if depth(content) > MAX_DEPTH {
        let message = format!("nested deeper than {MAX_DEPTH} levels");
        return Err(serde_json::Error::custom(message));
    }
    let mut json = serde_json::Deserializer::from_slice(content);
    json.disable_recursion_limit();
    let value = Value::deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

/// How deep JSON is nested.
fn depth(json: &[u8]) -> usize {
    let mut open = 0_usize;
    let mut deepest = 0;
    let mut is_text = false;
    let mut is_escaped = false;
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => open += 1,
            b'}' | b']' if !is_text => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

/// Reads an object of some kind. A field that is `null` counts as left out, as in Go's programs.
pub(crate) fn from_value<T: DeserializeOwned>(mut object: Value) -> serde_json::Result<T> {
    remove_nulls(&mut object);
    serde_json::from_value(object)
}

/// The item of a list that has this text at a key; null if there is none.
pub(crate) fn named<'a>(list: &'a Value, key: &str, text: &str) -> &'a Value {
    let mut items = list.as_array().into_iter().flatten();
    items.find(|it| it[key] == text).unwrap_or(&Value::Null)
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

/// What the API server lists at a path.
#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub(crate) struct List<T> {
    #[serde(default)]
    pub(crate) metadata: ListMeta,
    #[serde(default = "Vec::new")]
    pub(crate) items: Vec<T>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ListMeta {
    /// Where a watch goes on from.
    pub(crate) resource_version: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ObjectMeta {
    pub(crate) name: String,
    /// Empty for an object that is in no namespace.
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) resource_version: Option<String>,
    /// Counts the changes of `spec`.
    pub(crate) generation: Option<u64>,
    /// As `2026-11-26T05:28:21Z`.
    pub(crate) creation_timestamp: Option<String>,
    /// When somebody asked for its deletion.
    pub(crate) deletion_timestamp: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner_references: Vec<OwnerReference>,
    pub(crate) managed_fields: Vec<ManagedFields>,
}

impl ObjectMeta {
    /// The uid of the controller that made the object; empty if none did.
    pub(crate) fn controller_uid(&self) -> &str {
        self.owner_references
            .iter()
            .find(|owner| owner.controller)
            .map_or("", |owner| &owner.uid)
    }

    /// When somebody last changed more than the object's status.
    pub(crate) fn last_changed(&self) -> Option<&str> {
        self.managed_fields
            .iter()
            .filter(|change| change.subresource.is_none())
            .map(|change| change.time.as_str())
            .max()
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct OwnerReference {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) controller: bool,
}

/// What one program set, and when: <https://kubernetes.io/docs/reference/using-api/server-side-apply>
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ManagedFields {
    pub(crate) manager: String,
    /// As `2026-11-26T05:28:21Z`.
    pub(crate) time: String,
    /// `status`, for what a controller reports.
    pub(crate) subresource: Option<String>,
}

/// An object of which only the metadata matters.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct PartialObject {
    pub(crate) metadata: ObjectMeta,
}

/// A Deployment, StatefulSet, DaemonSet or Job.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct WorkloadObject {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: WorkloadSpec,
    pub(crate) status: WorkloadStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WorkloadSpec {
    pub(crate) replicas: Option<u64>,
    /// Of a Job.
    pub(crate) completions: Option<u64>,
    pub(crate) selector: LabelSelector,
    pub(crate) update_strategy: UpdateStrategy,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LabelSelector {
    pub(crate) match_labels: BTreeMap<String, String>,
    pub(crate) match_expressions: Vec<LabelSelectorRequirement>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct LabelSelectorRequirement {
    pub(crate) key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub(crate) operator: String,
    pub(crate) values: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct UpdateStrategy {
    pub(crate) rolling_update: RollingUpdate,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct RollingUpdate {
    /// How many pods of a StatefulSet keep their old revision.
    pub(crate) partition: u64,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WorkloadStatus {
    pub(crate) observed_generation: Option<u64>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) replicas: u64,
    pub(crate) updated_replicas: u64,
    pub(crate) ready_replicas: u64,
    pub(crate) available_replicas: u64,
    /// The newest revision of a StatefulSet.
    pub(crate) update_revision: Option<String>,
    /// This and the next two are a DaemonSet's.
    pub(crate) desired_number_scheduled: u64,
    pub(crate) updated_number_scheduled: u64,
    pub(crate) number_available: u64,
    /// How many pods of a Job have done their work.
    pub(crate) succeeded: u64,
    /// A pod's.
    pub(crate) phase: String,
}

impl WorkloadStatus {
    pub(crate) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|it| it.kind == kind)
    }

    pub(crate) fn is_true(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|it| it.status == "True")
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: PodSpec,
    pub(crate) status: PodStatus,
}

impl Pod {
    pub(crate) fn is_ready(&self) -> bool {
        let mut conditions = self.status.conditions.iter();
        conditions.any(|it| it.kind == "Ready" && it.status == "True")
    }

    /// The names of the volume claims that it uses.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &str> {
        let claims = self.spec.volumes.iter();
        claims.filter_map(|it| Some(it.persistent_volume_claim.as_ref()?.claim_name.as_str()))
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodSpec {
    pub(crate) volumes: Vec<Volume>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Volume {
    pub(crate) persistent_volume_claim: Option<ClaimSource>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ClaimSource {
    pub(crate) claim_name: String,
}

/// A PersistentVolumeClaim.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Claim {
    pub(crate) metadata: ObjectMeta,
    pub(crate) status: ClaimStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ClaimStatus {
    /// `Pending`, `Bound` or `Lost`.
    pub(crate) phase: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodStatus {
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub(crate) phase: String,
    /// Why the whole pod has failed, as `Evicted`.
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) init_container_statuses: Vec<ContainerStatus>,
    pub(crate) container_statuses: Vec<ContainerStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerStatus {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) restart_count: u64,
    pub(crate) state: ContainerState,
    /// How its last run ended.
    pub(crate) last_state: ContainerState,
}

/// At most one of these is there.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerState {
    pub(crate) waiting: Option<Waiting>,
    pub(crate) running: Option<Running>,
    pub(crate) terminated: Option<Terminated>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
}

#[derive(Deserialize)]
pub(crate) struct Running {}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Terminated {
    pub(crate) reason: String,
    pub(crate) exit_code: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Event {
    pub(crate) metadata: ObjectMeta,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) involved_object: ObjectReference,
    pub(crate) event_time: Option<String>,
    pub(crate) last_timestamp: Option<String>,
    pub(crate) series: EventSeries,
}

impl Event {
    /// When it last happened: clients of different ages tell it in different fields.
    pub(crate) fn time(&self) -> &str {
        self.series
            .last_observed_time
            .as_deref()
            .or(self.last_timestamp.as_deref())
            .or(self.event_time.as_deref())
            .unwrap_or_default()
    }

    /// `BackOff: Back-off restarting failed container`
    pub(crate) fn words(&self) -> String {
        format!("{}: {}", self.reason, self.message.trim())
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EventSeries {
    pub(crate) last_observed_time: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ObjectReference {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Lease {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: LeaseSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LeaseSpec {
    pub(crate) holder_identity: String,
    pub(crate) acquire_time: String,
    pub(crate) renew_time: Option<String>,
}

/// The kinds of objects of an API group's version.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ApiResourceList {
    pub(crate) resources: Vec<ApiResource>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ApiResource {
    pub(crate) kind: String,
    /// As in paths: `deployments`, or `deployments/scale`.
    pub(crate) name: String,
    pub(crate) namespaced: bool,
}
