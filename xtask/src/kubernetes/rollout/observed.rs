//! The objects of a release that are followed, as far as they are known, and what they tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    kubernetes::{
        api::Api,
        objects::{Event, ObjectMeta, PartialObject, Pod, WorkloadObject},
        rollout::{
            pods, told,
            watch::{Change, ListChange, Source, Update},
            workloads::{self, RolloutStatus, Workload, WorkloadKind, WorkloadState},
        },
    },
    machine::workflow,
};

/// Objects of one kind by their names, by the paths of their lists.
struct Lists<T>(BTreeMap<String, BTreeMap<String, T>>);

impl<T> Lists<T> {
    fn get(&self, path: &str, name: &str) -> Option<&T> {
        self.0.get(path)?.get(name)
    }

    /// All that is listed at a path, in the order of the names.
    fn at(&self, path: &str) -> impl Iterator<Item = &T> {
        self.0.get(path).into_iter().flat_map(BTreeMap::values)
    }

    fn apply(&mut self, change: ListChange<T>, name: fn(&T) -> &str) {
        let list = self.0.entry(change.path).or_default();
        match change.update {
            Update::All(objects) => {
                let named = objects.into_iter().map(|it| (name(&it).to_owned(), it));
                *list = named.collect();
            }
            Update::Set(object) => _ = list.insert(name(&object).to_owned(), object),
            Update::Removed(object) => _ = list.remove(name(&object)),
        }
    }
}

pub(crate) struct Observed<'a> {
    api: &'a Api,
    /// How long a pod may be without a node.
    grace: Duration,
    workloads: Lists<WorkloadObject>,
    replica_sets: Lists<PartialObject>,
    pods: Lists<Pod>,
    events: Lists<Event>,
    /// Since when pods are seen to have no node, by their uids.
    without_node: BTreeMap<String, Instant>,
    /// The last crash of each workload that ends, by its path: its pods may be deleted once it has failed.
    crashes: BTreeMap<String, Crash>,
}

/// A crash of a pod.
struct Crash {
    pod: String,
    restarts: u64,
    described: String,
}

impl<'a> Observed<'a> {
    /// Where nothing is known yet. `timeout` is how long the release may take.
    pub(crate) fn new(api: &'a Api, timeout: Duration) -> Observed<'a> {
        Observed {
            api,
            grace: pods::GRACE.min(timeout / 3),
            workloads: Lists(BTreeMap::new()),
            replica_sets: Lists(BTreeMap::new()),
            pods: Lists(BTreeMap::new()),
            events: Lists(BTreeMap::new()),
            without_node: BTreeMap::new(),
            crashes: BTreeMap::new(),
        }
    }

    /// Looks at workloads once.
    pub(crate) fn load(&mut self, workloads: &[Workload]) -> Result<()> {
        let paths: BTreeSet<_> = workloads.iter().map(Workload::list_path).collect();
        for path in paths {
            let update = Update::All(self.api.list(&path)?.items);
            self.workloads
                .apply(ListChange { path, update }, workload_name);
        }
        Ok(())
    }

    /// Looks at the pods of a workload once.
    pub(crate) fn load_pods(&mut self, workload: &Workload) -> Result<()> {
        let Some(object) = self.object(workload) else {
            return Ok(());
        };
        let path = workload.pods_path(&object.spec.selector);
        let update = Update::All(self.api.list(&path)?.items);
        self.apply(Change::Pods(ListChange { path, update }));
        Ok(())
    }

    /// Whether a workload is in the cluster.
    pub(crate) fn exists(&self, workload: &Workload) -> bool {
        self.object(workload).is_some()
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Workloads(change) => self.workloads.apply(change, workload_name),
            Change::ReplicaSets(change) => {
                self.replica_sets.apply(change, |it| &it.metadata.name);
            }
            Change::Pods(change) => self.pods.apply(change, |it| &it.metadata.name),
            Change::Events(change) => self.events.apply(change, |it| &it.metadata.name),
        }
    }

    /// The lists that have to be watched to tell how a workload is doing.
    pub(crate) fn sources(&self, workload: &Workload) -> Vec<Source> {
        let mut sources = vec![
            Source::Workloads(workload.list_path()),
            Source::Events(workload.events_path("FailedCreate")),
            Source::Events(workload.events_path("NotTriggerScaleUp")),
        ];
        if let Some(object) = self.object(workload) {
            let path = workload.pods_path(&object.spec.selector);
            sources.push(Source::Pods(path));
        }
        if workload.kind == WorkloadKind::Deployment {
            sources.push(Source::ReplicaSets(workload.replica_sets_path()));
        }
        sources
    }

    /// How far a workload is from what its release wants of it.
    pub(crate) fn status_in_release(&mut self, workload: &Workload) -> RolloutStatus {
        let status = self.status(workload);
        workloads::unless_scaled_down(workload, self.object(workload), status)
    }

    /// The words after `kubectl` that give a workload, which somebody has scaled down, the pods that its release wants.
    pub(crate) fn way_up(&self, workload: &Workload) -> Option<String> {
        let wanted = workloads::wanted_if_scaled_down(workload, self.object(workload)?)?;
        let namespace = &workload.namespace;
        Some(format!(
            "scale {} --namespace {namespace} --replicas {wanted}",
            workload.shown()
        ))
    }

    /// How far a workload is. One that won't become ready by itself has failed.
    pub(crate) fn status(&mut self, workload: &Workload) -> RolloutStatus {
        let object = self.object(workload);
        let mut status = workloads::rollout_status(workload.kind, object);
        // Until its controller has seen the newest revision, all that there is belongs to older ones.
        let is_observed = object.is_some_and(|it| workloads::is_observed(workload.kind, it));
        if workload.kind.ends()
            && is_observed
            && let WorkloadState::Failed(why) = &mut status.state
        {
            *why += &self.last_crash(workload);
        }
        if !is_observed || !matches!(status.state, WorkloadState::Waiting(_)) {
            return status;
        }
        self.remember_crash(workload);
        let refusal = self.refusal(workload);
        let failure = if workload.may_lack_pods() {
            self.failure_of_a_pod(workload)
        } else {
            refusal.clone().or_else(|| self.failure_of_a_pod(workload))
        };
        if let Some(why) = failure {
            status.state = WorkloadState::Failed(why);
        } else if let Some(why) = refusal {
            status.state = WorkloadState::Waiting(why);
        }
        self.remember_pods_without_node(workload);
        status
    }

    /// Describes a workload that isn't ready, for the error that says so.
    pub(crate) fn describe(
        &self,
        workload: &Workload,
        state: &WorkloadState,
        is_late: bool,
    ) -> String {
        let name = workload.shown();
        match state {
            WorkloadState::Ready => format!("`{name}` is ready"),
            WorkloadState::Failed(why) => format!("`{name}` failed: {why}"),
            WorkloadState::Waiting(why) if !is_late => format!("`{name}` is not ready yet: {why}"),
            WorkloadState::Waiting(why) => {
                let pods = self.describe_unready_pods(workload);
                format!("`{name}` is not ready: {why}; timed out{pods}")
            }
        }
    }

    /// Describes a workload that isn't ready now, whatever becomes of it.
    pub(crate) fn describe_now(&self, workload: &Workload, state: &WorkloadState) -> String {
        let mut text = self.describe(workload, state, false);
        if let WorkloadState::Waiting(_) = state {
            text += &self.describe_unready_pods(workload);
        }
        text
    }

    /// A line for each pod that isn't ready, and what is known of it.
    fn describe_unready_pods(&self, workload: &Workload) -> String {
        let mut text = String::new();
        for pod in self.newest_pods(workload) {
            if let Some(problem) = pods::problem(workload.kind, pod).or_else(|| pods::delay(pod)) {
                text += &format!("\n{}", told::with_reasons(self.api, pod, &problem));
            }
        }
        text
    }

    fn object(&self, workload: &Workload) -> Option<&WorkloadObject> {
        self.workloads.get(&workload.list_path(), &workload.name)
    }

    /// The ReplicaSet of a Deployment's newest revision. It may come later than the Deployment that has its number.
    fn newest_replica_set(&self, workload: &Workload) -> Option<&PartialObject> {
        let deployment = &self.object(workload)?.metadata;
        self.replica_sets
            .at(&workload.replica_sets_path())
            .find(|set| {
                set.metadata.controller_uid() == deployment.uid
                    && revision(&set.metadata) == revision(deployment)
            })
    }

    /// The pods of a workload's newest revision, without those that are being deleted.
    fn newest_pods(&self, workload: &Workload) -> Vec<&Pod> {
        let Some(object) = self.object(workload) else {
            return Vec::new();
        };
        let path = workload.pods_path(&object.spec.selector);
        let pods = self.pods.at(&path);
        let pods = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        if workload.kind == WorkloadKind::Pod {
            return pods
                .filter(|pod| pod.metadata.uid == object.metadata.uid)
                .collect();
        }
        let replica_set = self.newest_replica_set(workload);
        let maker = match workload.kind {
            WorkloadKind::Deployment => replica_set.map(|it| &it.metadata),
            _ => Some(&object.metadata),
        };
        let Some(maker) = maker else {
            return Vec::new();
        };
        pods.filter(|pod| pod.metadata.controller_uid() == maker.uid)
            .filter(|pod| is_of_newest_revision(workload.kind, object, pod))
            .collect()
    }

    /// Why the cluster refuses to make the workload's pods, if it does.
    fn refusal(&self, workload: &Workload) -> Option<String> {
        let maker = match workload.kind {
            WorkloadKind::Deployment => &self.newest_replica_set(workload)?.metadata,
            _ => &self.object(workload)?.metadata,
        };
        // Events outlive what they are about: those from before the last change don't count.
        let last_changed = maker.last_changed()?;
        self.events
            .at(&workload.events_path("FailedCreate"))
            .filter(|event| event.involved_object.uid == maker.uid)
            .filter(|event| event.last_timestamp.as_deref() >= Some(last_changed))
            .find(|event| pods::is_refusal(&event.message))
            .map(|event| format!("the cluster refuses its pods: {}", event.message))
    }

    /// What keeps the first pod from being ready that won't become ready by itself.
    fn failure_of_a_pod(&self, workload: &Workload) -> Option<String> {
        self.newest_pods(workload).into_iter().find_map(|pod| {
            let problem = pods::problem(workload.kind, pod)?;
            let is_permanent = problem.is_permanent
                || !workload.may_lack_pods() && self.finds_no_node(workload, pod);
            is_permanent.then(|| told::with_reasons(self.api, pod, &problem))
        })
    }

    /// Remembers what the first pod tells that has crashed, and may do so again.
    fn remember_crash(&mut self, workload: &Workload) {
        if !workload.kind.ends() {
            return;
        }
        let mut crashes = self.newest_pods(workload).into_iter().filter_map(|pod| {
            let problem = pods::problem(workload.kind, pod)?;
            problem.log.is_some().then_some((pod, problem))
        });
        let Some((pod, problem)) = crashes.next() else {
            return;
        };
        let restarts = pods::restarts(pod);
        let path = workload.object_path();
        let is_known = |it: &Crash| it.pod == pod.metadata.uid && it.restarts == restarts;
        if self.crashes.get(&path).is_some_and(is_known) {
            return;
        }
        let crash = Crash {
            pod: pod.metadata.uid.clone(),
            restarts,
            described: told::with_reasons(self.api, pod, &problem),
        };
        self.crashes.insert(path, crash);
    }

    /// What the pods of a workload that has failed tell, in a line of its own; empty if that is not known.
    fn last_crash(&mut self, workload: &Workload) -> String {
        // Without an answer we know what we knew.
        let _ = self.load_pods(workload);
        self.remember_crash(workload);
        let crash = self.crashes.get(&workload.object_path());
        crash.map_or_else(String::new, |it| format!("\n{}", it.described))
    }

    fn remember_pods_without_node(&mut self, workload: &Workload) {
        let pods = self.newest_pods(workload).into_iter();
        let uids: Vec<String> = pods
            .filter(|pod| pods::has_no_node(pod))
            .map(|pod| pod.metadata.uid.clone())
            .collect();
        for uid in uids {
            self.without_node.entry(uid).or_insert_with(Instant::now);
        }
    }

    /// Whether a pod that has no node won't get one: an autoscaler says so, or there is none and it has waited long.
    fn finds_no_node(&self, workload: &Workload, pod: &Pod) -> bool {
        if !pods::has_no_node(pod) {
            return false;
        }
        let uid = &pod.metadata.uid;
        let is_given_up = self
            .events
            .at(&workload.events_path("NotTriggerScaleUp"))
            .any(|event| event.involved_object.uid == *uid);
        let has_waited = self
            .without_node
            .get(uid)
            .is_some_and(|since| since.elapsed() > self.grace);
        is_given_up || has_waited && !self.is_scaling_up_for(pod)
    }

    fn is_scaling_up_for(&self, pod: &Pod) -> bool {
        told::is_scaling_up(&told::events_about(self.api, &pod.metadata))
    }
}

/// How to learn more about a release, with its line feed.
pub(crate) fn hint(cluster: &str, release: &str) -> String {
    let status = workflow::action(&format!("cargo xtask status {cluster} {release}"));
    format!("\nhint: {status} tells more")
}

fn workload_name(object: &WorkloadObject) -> &str {
    &object.metadata.name
}

/// The number of a Deployment's revision, which its ReplicaSet has, too.
fn revision(metadata: &ObjectMeta) -> Option<&String> {
    metadata
        .annotations
        .get("deployment.kubernetes.io/revision")
}

/// Whether a pod that a workload, or its newest ReplicaSet, has made is of the newest revision.
fn is_of_newest_revision(kind: WorkloadKind, object: &WorkloadObject, pod: &Pod) -> bool {
    let labels = &pod.metadata.labels;
    match kind {
        WorkloadKind::Deployment | WorkloadKind::Job | WorkloadKind::Pod => true,
        WorkloadKind::DaemonSet => {
            let generation = "deprecated.daemonset.template.generation";
            labels.get("pod-template-generation") == object.metadata.annotations.get(generation)
        }
        WorkloadKind::StatefulSet => {
            let newest = object.status.update_revision.as_ref();
            labels.get("controller-revision-hash") == newest
        }
    }
}
