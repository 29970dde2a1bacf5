//! What events and logs tell of a pod.

use std::time::Duration;

use anyhow::Result;

use crate::kubernetes::{
    api::{self, Api},
    objects::{Claim, Event, ObjectMeta, Pod},
    rollout::pods::{self, ContainerLog, PodProblem},
};

/// How long a log may take.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// How many of a container's last lines are shown.
const LOG_LINES: usize = 20;

/// Asks for the events about an object, and sorts them by time. Without an answer there are none.
pub(crate) fn events_about(api: &Api, object: &ObjectMeta) -> Vec<Event> {
    let ObjectMeta { namespace, uid, .. } = object;
    let path =
        format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.uid%3D{uid}");
    let mut events = api.list(&path).map_or_else(|_| Vec::new(), |it| it.items);
    events.sort_by(|a: &Event, b| a.time().cmp(b.time()));
    events
}

/// Whether an autoscaler brings a node for the pod that these events are about.
pub(crate) fn is_scaling_up(events: &[Event]) -> bool {
    events.iter().any(|it| it.reason == "TriggeredScaleUp")
}

/// Whether an autoscaler says that it brings no node for the pod that these events are about.
pub(crate) fn is_given_up(events: &[Event]) -> bool {
    events.iter().any(|it| it.reason == "NotTriggerScaleUp")
}

/// The newest event, if it is a warning: what an older one warned of has passed.
pub(crate) fn warning(events: &[Event]) -> Option<&Event> {
    events.last().filter(|it| it.kind == "Warning")
}

/// What keeps a pod from being ready that shows in nothing but its newest event, such as a volume that cannot be mounted.
pub(crate) fn warned_of(pod: &Pod, events: &[Event]) -> Option<String> {
    let event = line_of_event(warning(events)?);
    Some(format!("pod `{}` is not ready{event}", pod.metadata.name))
}

/// A pod's problem, with the pod's last warning and the end of its log. If it has no node, also with what an autoscaler
/// says, and its claims that have no volume.
pub(crate) fn with_reasons(api: &Api, pod: &Pod, problem: &PodProblem) -> String {
    let events = events_about(api, &pod.metadata);
    with_events(api, pod, problem, &events)
}

/// The same, where the events about the pod are known.
pub(crate) fn with_events(api: &Api, pod: &Pod, problem: &PodProblem, events: &[Event]) -> String {
    let mut text = problem.message.clone();
    let warning = events.iter().rfind(|it| it.kind == "Warning");
    text.extend(warning.map(line_of_event));
    if pods::has_no_node(pod) {
        let refusal = events.iter().rfind(|it| it.reason == "NotTriggerScaleUp");
        text.extend(refusal.map(line_of_event));
        text.extend(pod.claims().filter_map(|it| line_of_claim(api, pod, it)));
    }
    if let Some(log) = &problem.log {
        for line in end_of_log(api, pod, log).trim_end().lines() {
            text += &format!("\n  | {line}");
        }
    }
    text
}

fn line_of_event(event: &Event) -> String {
    format!("\n  event {}", event.words())
}

/// A line about a claim that a pod waits for, with the newest event about it; none if the claim has its volume.
fn line_of_claim(api: &Api, pod: &Pod, name: &str) -> Option<String> {
    let namespace = &pod.metadata.namespace;
    let step = api::step(name).ok()?;
    let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{step}");
    let found: Result<Option<Claim>> = api.find_object(&path);
    let Some(claim) = found.ok()? else {
        return Some(format!("\n  claim `{name}` does not exist"));
    };
    let phase = &claim.status.phase;
    if phase == "Bound" {
        return None;
    }
    let events = events_about(api, &claim.metadata);
    let event = events.last().map(|it| format!(": {}", it.words()));
    let event = event.unwrap_or_default();
    Some(format!("\n  claim `{name}` is {phase}{event}"))
}

fn end_of_log(api: &Api, pod: &Pod, log: &ContainerLog) -> String {
    let ObjectMeta {
        namespace, name, ..
    } = &pod.metadata;
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods/{name}/log?container={}&tailLines={LOG_LINES}&previous={}",
        log.container, log.is_previous
    );
    api.text(&path, LOG_PATIENCE).unwrap_or_default()
}
