//! Following one release until its workloads stand, or certainly won't.

use std::{
    collections::BTreeMap,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Condvar, Mutex,
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    kubernetes::api::{Api, quoted},
    machine::{
        process,
        terminal::{Pods, Progress},
    },
    yaml::split_documents,
};

/// How long a pod may be without a node before that counts as failed, unless an autoscaler is at work: a third of the
/// release's time, and no more than this.
const GRACE: Duration = Duration::from_secs(120);

/// How many of a container's last lines are shown.
const LINES: usize = 20;

/// Reasons for which a container that waits won't start by itself.
const HOPELESS: [&str; 8] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
}

/// What has to stand before a release does.
struct Workload {
    kind: WorkloadKind,
    name: String,
    namespace: String,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
}

#[derive(Default, Deserialize)]
struct ObjectMeta {
    name: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, Value>,
}

/// How far a workload is.
#[derive(Debug, PartialEq)]
enum WorkloadState {
    Stands,
    Waits(String),
    Failed(String),
}

/// What keeps a pod from getting ready.
struct Trouble {
    what: String,
    /// It won't go away by itself.
    is_certain: bool,
    /// The container whose log may tell more, and whether it's that of its last run.
    log: Option<(String, bool)>,
}

/// Follows a release until all workloads in its manifest stand. The error tells of each one that doesn't: as soon as one
/// certainly won't, or when `until` has come.
pub(crate) fn follow(
    api: &Api,
    namespace: &str,
    manifest: &str,
    until: Instant,
    progress: &Progress,
) -> Result<()> {
    let found: Result<Vec<_>> = split_documents(manifest)
        .map(|it| workload(it, namespace))
        .collect();
    let workloads: Vec<Workload> = found?.into_iter().flatten().collect();
    let started = Instant::now();
    let grace = GRACE.min(until.saturating_duration_since(started) / 3);
    let mut world = World {
        api,
        grace,
        lists: BTreeMap::new(),
        without_node: BTreeMap::new(),
    };
    // Most releases stand already.
    for source in workloads.iter().map(Workload::source) {
        if !world.lists.contains_key(&source) {
            let list = api.get(&source)?;
            world.change(WatchEvent::List(source, items(list)));
        }
    }
    let (changes, changed) = mpsc::channel();
    let watches = Watches::default();
    thread::scope(|scope| {
        let result = loop {
            let states: Vec<_> = workloads.iter().map(|it| (it, world.state(it))).collect();
            let pods = states
                .iter()
                .fold(Pods::default(), |sum, (_, (_, it))| Pods {
                    ready: sum.ready + it.ready,
                    wanted: sum.wanted + it.wanted,
                });
            progress.pods(pods);
            if let Err(err) = process::check_stopped() {
                break Err(err.context("its pods weren't waited for"));
            }
            let is_late = Instant::now() >= until;
            let waiting: Vec<_> = states
                .iter()
                .filter(|(_, (it, _))| *it != WorkloadState::Stands)
                .collect();
            let has_failed = waiting
                .iter()
                .any(|(_, (it, _))| matches!(it, WorkloadState::Failed(_)));
            if waiting.is_empty() {
                break Ok(());
            }
            if is_late || has_failed {
                let lines: Vec<_> = waiting
                    .into_iter()
                    .map(|(it, (state, _))| world.report(it, state, is_late))
                    .collect();
                let hint = format!(
                    "hint: `kubectl -n {namespace} get pods` and `… describe pod` tell more"
                );
                break Err(anyhow::anyhow!("{}\n{hint}", lines.join("\n")));
            }
            for source in waiting.iter().flat_map(|(it, _)| world.sources(it)) {
                if watches.is_new(&source) {
                    let (changes, watches) = (changes.clone(), &watches);
                    scope.spawn(move || watches.keep(api, &source, &changes));
                }
            }
            // Also looks whether somebody has waited long enough.
            let left = until
                .saturating_duration_since(Instant::now())
                .min(Duration::from_secs(1));
            if let Ok(change) = changed.recv_timeout(left) {
                world.change(change);
                changed.try_iter().for_each(|it| world.change(it));
            }
        };
        watches.end();
        result
    })
}

/// Whether all of a release stands now, and how many of its pods are ready.
pub(crate) fn look(api: &Api, namespace: &str, manifest: &str) -> Result<(bool, Pods)> {
    let (mut stands, mut sum) = (true, Pods::default());
    for document in split_documents(manifest) {
        if let Some(workload) = workload(document, namespace)? {
            let object = api
                .find(&format!("{}/{}", workload.source(), workload.name))?
                .unwrap_or_default();
            let (state, pods) = rolled_out(workload.kind, &object);
            stands &= state == WorkloadState::Stands;
            sum = Pods {
                ready: sum.ready + pods.ready,
                wanted: sum.wanted + pods.wanted,
            };
        }
    }
    Ok((stands, sum))
}

/// The workload in a document, if it has to stand: with OnDelete nothing rolls, z2jh's placeholders stay pending until a
/// node is free for them, and a suspended job waits for somebody.
fn workload(document: &str, namespace: &str) -> Result<Option<Workload>> {
    if !["Deployment", "StatefulSet", "DaemonSet", "Job"]
        .iter()
        .any(|it| document.contains(it))
    {
        return Ok(None);
    }
    let object: Option<Object> = serde_yaml::from_str(document)
        .context("cannot tell the workloads in the release's manifest")?;
    let Some(Object {
        kind,
        metadata:
            ObjectMeta {
                name: Some(name),
                namespace: own,
                labels,
            },
        spec,
    }) = object
    else {
        return Ok(None);
    };
    let is_placeholder = labels
        .get("component")
        .is_some_and(|it| it == "user-placeholder");
    if is_placeholder || spec["updateStrategy"]["type"] == "OnDelete" || spec["suspend"] == true {
        return Ok(None);
    }
    let kind = match kind.as_str() {
        "Deployment" => WorkloadKind::Deployment,
        "StatefulSet" => WorkloadKind::StatefulSet,
        "DaemonSet" => WorkloadKind::DaemonSet,
        "Job" => WorkloadKind::Job,
        _ => return Ok(None),
    };
    Ok(Some(Workload {
        kind,
        name,
        namespace: own.unwrap_or_else(|| namespace.to_owned()),
    }))
}

impl Workload {
    /// Where the API server lists it.
    fn source(&self) -> String {
        let (group, resource) = match self.kind {
            WorkloadKind::Deployment => ("apps", "deployments"),
            WorkloadKind::StatefulSet => ("apps", "statefulsets"),
            WorkloadKind::DaemonSet => ("apps", "daemonsets"),
            WorkloadKind::Job => ("batch", "jobs"),
        };
        format!("/apis/{group}/v1/namespaces/{}/{resource}", self.namespace)
    }

    /// Where it lists the ReplicaSets among which a deployment's are.
    fn replica_sets(&self) -> String {
        format!("/apis/apps/v1/namespaces/{}/replicasets", self.namespace)
    }

    /// Where it lists events of one reason.
    fn events(&self, reason: &str) -> String {
        format!(
            "/api/v1/namespaces/{}/events?fieldSelector=reason%3D{reason}",
            self.namespace
        )
    }

    /// `deployment/hub`
    fn shown(&self) -> String {
        format!("{:?}/{}", self.kind, self.name).to_lowercase()
    }
}

/// What the API server has, as far as it's watched: objects by their names, by where they are listed.
struct World<'a> {
    api: &'a Api,
    grace: Duration,
    lists: BTreeMap<String, BTreeMap<String, Value>>,
    /// Since when pods are seen to have no node, by their uid.
    without_node: BTreeMap<String, Instant>,
}

enum WatchEvent {
    List(String, Vec<Value>),
    Set(String, Value),
    Gone(String, Value),
}

impl World<'_> {
    fn change(&mut self, change: WatchEvent) {
        match change {
            WatchEvent::List(source, items) => {
                let named = items
                    .into_iter()
                    .map(|it| (text(&it["metadata"]["name"]).to_owned(), it));
                self.lists.insert(source, named.collect());
            }
            WatchEvent::Set(source, object) => {
                let name = text(&object["metadata"]["name"]).to_owned();
                self.lists.entry(source).or_default().insert(name, object);
            }
            WatchEvent::Gone(source, object) => {
                if let Some(list) = self.lists.get_mut(&source) {
                    list.remove(text(&object["metadata"]["name"]));
                }
            }
        }
    }

    fn object(&self, workload: &Workload) -> &Value {
        self.lists
            .get(&workload.source())
            .and_then(|it| it.get(&workload.name))
            .unwrap_or(&Value::Null)
    }

    /// What has to be watched to tell how a workload is doing.
    fn sources(&self, workload: &Workload) -> Vec<String> {
        let mut sources = vec![
            workload.source(),
            workload.events("FailedCreate"),
            workload.events("NotTriggerScaleUp"),
            pods_of(workload, self.object(workload)),
        ];
        if workload.kind == WorkloadKind::Deployment {
            sources.push(workload.replica_sets());
        }
        sources
    }

    fn state(&mut self, workload: &Workload) -> (WorkloadState, Pods) {
        let object = self.object(workload);
        let (state, pods) = rolled_out(workload.kind, object);
        // Until its controller has seen the newest revision all that there is belongs to older ones.
        if !matches!(state, WorkloadState::Waits(_)) || !is_seen(workload.kind, object) {
            return (state, pods);
        }
        if let Some(why) = self.refusal(workload) {
            return (WorkloadState::Failed(why), pods);
        }
        let troubled = self.newest_pods(workload);
        let certain = troubled.iter().find_map(|pod| {
            let pod_trouble = trouble(workload.kind, pod)?;
            let is_certain = pod_trouble.is_certain || self.finds_no_node(workload, pod);
            is_certain.then(|| (pod.clone(), pod_trouble))
        });
        let now = Instant::now();
        for pod in troubled.into_iter().filter(has_no_node) {
            self.without_node
                .entry(text(&pod["metadata"]["uid"]).to_owned())
                .or_insert(now);
        }
        match certain {
            Some((pod, trouble)) => (WorkloadState::Failed(self.tell(&pod, &trouble)), pods),
            None => (state, pods),
        }
    }

    /// The ReplicaSet of a deployment's newest revision. It may come later than the deployment that names its number.
    fn newest_set(&self, workload: &Workload) -> Option<&Value> {
        let object = self.object(workload);
        let number =
            |it: &Value| it["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone();
        let mut sets = self.lists.get(&workload.replica_sets())?.values();
        sets.find(|it| owner(it) == &object["metadata"]["uid"] && number(it) == number(object))
    }

    /// Pods of the workload's newest revision that nobody deletes.
    fn newest_pods(&self, workload: &Workload) -> Vec<Value> {
        let object = self.object(workload);
        let set = self.newest_set(workload);
        let is_newest = |pod: &&Value| {
            let is_own = *owner(pod) == object["metadata"]["uid"];
            let labels = &pod["metadata"]["labels"];
            match workload.kind {
                WorkloadKind::Deployment => {
                    set.is_some_and(|it| *owner(pod) == it["metadata"]["uid"])
                }
                WorkloadKind::DaemonSet => {
                    let generation = "deprecated.daemonset.template.generation";
                    is_own
                        && labels["pod-template-generation"]
                            == object["metadata"]["annotations"][generation]
                }
                WorkloadKind::StatefulSet => {
                    is_own
                        && labels["controller-revision-hash"] == object["status"]["updateRevision"]
                }
                WorkloadKind::Job => is_own,
            }
        };
        let pods = self
            .lists
            .get(&pods_of(workload, object))
            .into_iter()
            .flatten()
            .map(|(_, it)| it);
        pods.filter(|it| it["metadata"]["deletionTimestamp"].is_null())
            .filter(is_newest)
            .cloned()
            .collect()
    }

    /// Why the cluster takes none of the workload's pods.
    fn refusal(&self, workload: &Workload) -> Option<String> {
        let maker = match workload.kind {
            WorkloadKind::Deployment => self.newest_set(workload)?,
            _ => self.object(workload),
        };
        // Events outlive what they were about: those of before the last change don't count.
        let changes = maker["metadata"]["managedFields"]
            .as_array()
            .into_iter()
            .flatten();
        let changed = changes
            .filter(|it| it["subresource"].is_null())
            .map(|it| text(&it["time"]))
            .max()?;
        let events = self.lists.get(&workload.events("FailedCreate"))?.values();
        let about = events.filter(|it| it["involvedObject"]["uid"] == maker["metadata"]["uid"]);
        let mut new = about
            .filter(|it| text(&it["lastTimestamp"]) >= changed)
            .map(|it| text(&it["message"]));
        new.find(|it| is_refusal(it))
            .map(|it| format!("the cluster refuses its pods: {it}"))
    }

    /// Whether a pod without a node won't get one.
    fn finds_no_node(&self, workload: &Workload, pod: &Value) -> bool {
        let uid = &pod["metadata"]["uid"];
        if !has_no_node(pod) {
            return false;
        }
        let about = |reason: &str| {
            let events = self
                .lists
                .get(&workload.events(reason))
                .into_iter()
                .flatten();
            events
                .filter(|(_, it)| it["involvedObject"]["uid"] == *uid)
                .count()
                > 0
        };
        if about("NotTriggerScaleUp") {
            return true;
        }
        let waited = self
            .without_node
            .get(text(uid))
            .is_some_and(|it| it.elapsed() > self.grace);
        waited
            && !self
                .events(pod)
                .iter()
                .any(|it| it["reason"] == "TriggeredScaleUp")
    }

    /// Events about a pod, the last one last.
    fn events(&self, pod: &Value) -> Vec<Value> {
        let (namespace, uid) = (
            text(&pod["metadata"]["namespace"]),
            text(&pod["metadata"]["uid"]),
        );
        let path = format!(
            "/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.uid%3D{uid}"
        );
        let mut events = self.api.get(&path).map(items).unwrap_or_default();
        events.sort_by_key(|it| {
            let time = [
                &it["series"]["lastObservedTime"],
                &it["lastTimestamp"],
                &it["eventTime"],
            ];
            time.into_iter()
                .find_map(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        });
        events
    }

    /// A pod's trouble with all that the cluster says of it.
    fn tell(&self, pod: &Value, trouble: &Trouble) -> String {
        let (namespace, name) = (
            text(&pod["metadata"]["namespace"]),
            text(&pod["metadata"]["name"]),
        );
        let mut told = trouble.what.clone();
        if let Some(event) = self.events(pod).iter().rfind(|it| it["type"] == "Warning") {
            told += &format!(
                "\n  event {}: {}",
                text(&event["reason"]),
                text(&event["message"]).trim()
            );
        }
        if let Some((container, is_previous)) = &trouble.log {
            let path = format!(
                "/api/v1/namespaces/{namespace}/pods/{name}/log?container={container}&tailLines={LINES}&previous={is_previous}"
            );
            let log = self.api.text(&path).unwrap_or_default();
            for line in log.trim_end().lines() {
                told += &format!("\n  | {line}");
            }
        }
        told
    }

    /// What is said of a workload that doesn't stand.
    fn report(&self, workload: &Workload, state: &WorkloadState, is_late: bool) -> String {
        let name = workload.shown();
        match state {
            WorkloadState::Failed(why) => format!("`{name}` failed: {why}"),
            WorkloadState::Waits(why) if is_late => {
                let pods = self.newest_pods(workload);
                let troubles = pods
                    .iter()
                    .filter_map(|pod| Some(self.tell(pod, &trouble(workload.kind, pod)?)));
                let lines: Vec<_> = [format!("`{name}` isn't ready: {why}; timed out")]
                    .into_iter()
                    .chain(troubles)
                    .collect();
                lines.join("\n")
            }
            WorkloadState::Waits(why) => format!("`{name}` isn't ready yet: {why}"),
            WorkloadState::Stands => String::new(),
        }
    }
}

/// Watches that are kept up, whatever happens to their connections.
#[derive(Default)]
struct Watches {
    state: Mutex<Watching>,
    ended: Condvar,
}

#[derive(Default)]
struct Watching {
    has_ended: bool,
    sources: Vec<String>,
    connections: Vec<UnixStream>,
}

impl Watches {
    fn is_new(&self, source: &str) -> bool {
        let sources = &mut self.state.lock().expect("nobody panics with it").sources;
        let is_new = !sources.iter().any(|it| it == source);
        if is_new {
            sources.push(source.to_owned());
        }
        is_new
    }

    /// Tells of what is listed at `source` and changes there, until the end.
    fn keep(&self, api: &Api, source: &str, changes: &Sender<WatchEvent>) {
        loop {
            // An API server that is away comes back, or the release's time comes to its end.
            let _ = self.watch(api, source, changes);
            let state = self.state.lock().expect("nobody panics with it");
            let pause = Duration::from_millis(200);
            let (state, _) = self
                .ended
                .wait_timeout_while(state, pause, |it| !it.has_ended)
                .expect("nobody panics with it");
            if state.has_ended {
                return;
            }
        }
    }

    fn watch(&self, api: &Api, source: &str, changes: &Sender<WatchEvent>) -> Result<()> {
        let list = api.get(source)?;
        let version = text(&list["metadata"]["resourceVersion"]).to_owned();
        changes.send(WatchEvent::List(source.to_owned(), items(list)))?;
        let with = if source.contains('?') { '&' } else { '?' };
        let (connection, lines) =
            api.watch(&format!("{source}{with}watch=1&resourceVersion={version}"))?;
        {
            let mut state = self.state.lock().expect("nobody panics with it");
            if state.has_ended {
                return Ok(());
            }
            state.connections.push(connection);
        }
        for line in lines {
            let mut event: Value = serde_json::from_str(&line?)?;
            let object = event["object"].take();
            let change = match text(&event["type"]) {
                "ADDED" | "MODIFIED" => WatchEvent::Set(source.to_owned(), object),
                "DELETED" => WatchEvent::Gone(source.to_owned(), object),
                // Usually that what it began with is forgotten by now.
                _ => bail!("the watch has ended: {object}"),
            };
            changes.send(change)?;
        }
        Ok(())
    }

    fn end(&self) {
        let mut state = self.state.lock().expect("nobody panics with it");
        state.has_ended = true;
        for connection in &state.connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.ended.notify_all();
    }
}

/// Whether a workload's controller knows what it's to be. Jobs have only one revision.
fn is_seen(kind: WorkloadKind, object: &Value) -> bool {
    let seen = &object["status"]["observedGeneration"];
    kind == WorkloadKind::Job || object["metadata"]["generation"].as_u64() <= seen.as_u64()
}

/// The same questions that `kubectl rollout status` asks.
fn rolled_out(kind: WorkloadKind, object: &Value) -> (WorkloadState, Pods) {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let condition = |name: &str| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions
            .into_iter()
            .find(|it| it["type"] == name)
            .unwrap_or(&Value::Null)
    };
    let is_true = |name: &str| condition(name)["status"] == "True";
    let wanted = spec["replicas"].as_u64().unwrap_or(1);
    let (updated, pods) = match kind {
        WorkloadKind::Deployment => (
            number(&status["updatedReplicas"]),
            Pods {
                ready: number(&status["availableReplicas"]),
                wanted,
            },
        ),
        WorkloadKind::StatefulSet => (
            number(&status["updatedReplicas"]),
            Pods {
                ready: number(&status["readyReplicas"]),
                wanted,
            },
        ),
        WorkloadKind::DaemonSet => {
            let wanted = number(&status["desiredNumberScheduled"]);
            (
                number(&status["updatedNumberScheduled"]),
                Pods {
                    ready: number(&status["numberAvailable"]),
                    wanted,
                },
            )
        }
        WorkloadKind::Job => {
            let wanted = spec["completions"].as_u64().unwrap_or(1);
            (
                0,
                Pods {
                    ready: number(&status["succeeded"]),
                    wanted,
                },
            )
        }
    };
    let partition = number(&spec["updateStrategy"]["rollingUpdate"]["partition"]);
    let to_update = if kind == WorkloadKind::StatefulSet {
        pods.wanted.saturating_sub(partition)
    } else {
        pods.wanted
    };
    let progress = &condition("Progressing")["reason"];
    let state = if object.is_null() {
        // A job may be set to go when it's done.
        if kind == WorkloadKind::Job {
            WorkloadState::Stands
        } else {
            WorkloadState::Failed("it isn't there".to_owned())
        }
    } else if kind == WorkloadKind::Job {
        match (is_true("Complete"), is_true("Failed")) {
            (true, _) => WorkloadState::Stands,
            (_, true) => {
                let failed = condition("Failed");
                WorkloadState::Failed(format!(
                    "{}: {}",
                    text(&failed["reason"]),
                    text(&failed["message"])
                ))
            }
            _ => WorkloadState::Waits(format!("{} of {} pods are done", pods.ready, pods.wanted)),
        }
    } else if !is_seen(kind, object) {
        WorkloadState::Waits("its controller hasn't seen it yet".to_owned())
    } else if kind == WorkloadKind::Deployment && progress == "ProgressDeadlineExceeded" {
        WorkloadState::Failed(text(&condition("Progressing")["message"]).to_owned())
    } else if updated < to_update {
        WorkloadState::Waits(format!("{updated} of {to_update} pods are new"))
    } else if kind == WorkloadKind::Deployment && number(&status["replicas"]) > updated {
        WorkloadState::Waits(format!(
            "{} old pods have to go",
            number(&status["replicas"]) - updated
        ))
    } else if pods.ready < pods.wanted {
        WorkloadState::Waits(format!("{} of {} pods are ready", pods.ready, pods.wanted))
    } else {
        WorkloadState::Stands
    };
    (state, pods)
}

/// Where the API server lists the pods that a workload selects.
fn pods_of(workload: &Workload, object: &Value) -> String {
    let selector = &object["spec"]["selector"];
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut parts: Vec<String> = labels
        .map(|(key, it)| format!("{key}={}", text(it)))
        .collect();
    for it in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let key = text(&it["key"]);
        let values = it["values"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect::<Vec<_>>()
            .join(",");
        parts.push(match text(&it["operator"]) {
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            operator => format!("{key} {} ({values})", operator.to_lowercase()),
        });
    }
    format!(
        "/api/v1/namespaces/{}/pods?labelSelector={}",
        workload.namespace,
        quoted(&parts.join(","))
    )
}

/// What keeps a pod from being ready, if anything does that tells of itself.
fn trouble(kind: WorkloadKind, pod: &Value) -> Option<Trouble> {
    let (name, status) = (text(&pod["metadata"]["name"]), &pod["status"]);
    if has_no_node(pod) {
        let message = text(&scheduled(pod)["message"]);
        let what = format!("pod `{name}` has no node: {message}");
        return Some(Trouble {
            what,
            is_certain: false,
            log: None,
        });
    }
    let containers = ["initContainerStatuses", "containerStatuses"].map(|it| status[it].as_array());
    let troubles = containers
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|container| {
            let (state, last) = (&container["state"], &container["lastState"]);
            let waits = text(&state["waiting"]["reason"]);
            let restarts = container["restartCount"].as_u64().unwrap_or(0);
            let exits = restarts + u64::from(state["terminated"].is_object());
            let code = [state, last]
                .into_iter()
                .find_map(|it| it["terminated"]["exitCode"].as_i64());
            let of = format!("container `{}` of pod `{name}`", text(&container["name"]));
            let log = |is_previous| Some((text(&container["name"]).to_owned(), is_previous));
            if HOPELESS.contains(&waits) {
                let what = format!("{of}: {waits}: {}", text(&state["waiting"]["message"]));
                return Some(Trouble {
                    what,
                    is_certain: true,
                    log: None,
                });
            }
            let is_back_off = waits == "CrashLoopBackOff";
            if !is_back_off && (code.is_none_or(|it| it == 0 && exits < 3)) {
                return None;
            }
            let mut what = format!("{of}: ");
            if is_back_off {
                what += "CrashLoopBackOff, ";
            }
            what += &match code {
                Some(code) => format!("exit code {code}, restarts: {restarts}"),
                None => format!("restarts: {restarts}"),
            };
            if state["running"].is_object() {
                what += ", running again";
            }
            // A job's pods may fail as often as the job allows.
            let is_certain = kind != WorkloadKind::Job && (is_back_off || exits > 2);
            Some(Trouble {
                what,
                is_certain,
                log: log(!state["terminated"].is_object()),
            })
        });
    let mut troubles: Vec<_> = troubles.collect();
    troubles.sort_by_key(|it| !it.is_certain);
    troubles.into_iter().next()
}

/// What keeps a job's pod from being ready, and whether that's certain to stay.
pub(crate) fn trouble_of_job(pod: &Value) -> Option<(String, bool)> {
    trouble(WorkloadKind::Job, pod).map(|it| (it.what, it.is_certain))
}

/// Quotas and admission don't change their mind; that an account isn't there yet passes.
pub(crate) fn is_refusal(message: &str) -> bool {
    ["exceeded quota", "is forbidden", "denied the request"]
        .iter()
        .any(|it| message.contains(it))
        && !message.contains("error looking up service account")
}

fn scheduled(pod: &Value) -> &Value {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .find(|it| it["type"] == "PodScheduled")
        .unwrap_or(&Value::Null)
}

fn has_no_node(pod: &Value) -> bool {
    scheduled(pod)["status"] == "False"
}

/// The uid of the object that made this one.
fn owner(object: &Value) -> &Value {
    let owners = object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten();
    owners
        .into_iter()
        .find(|it| it["controller"] == true)
        .map_or(&Value::Null, |it| &it["uid"])
}

fn items(mut list: Value) -> Vec<Value> {
    match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
