//! What events and logs tell of a pod.

use crate::kubernetes::{
    api::Api,
    objects::{Event, ObjectMeta, Pod},
    rollout::{
        pods::{self, ContainerLog, PodProblem},
        workloads::WorkloadKind,
    },
};

/// How many of a container's last lines are shown.
const LOG_LINES: usize = 20;

/// Asks for the events about a pod, and sorts them by time. Without an answer there are none.
pub(crate) fn events_about(api: &Api, pod: &Pod) -> Vec<Event> {
    let ObjectMeta { namespace, uid, .. } = &pod.metadata;
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

/// Describes what keeps a pod from being ready, as far as the pod, its last warning and the end of its log tell it.
pub(crate) fn why_not_ready(api: &Api, kind: WorkloadKind, pod: &Pod) -> Option<String> {
    if let Some(problem) = pods::problem(kind, pod) {
        return Some(with_reasons(api, pod, &problem));
    }
    // A volume that cannot be mounted shows in nothing else.
    let events = events_about(api, pod);
    let event = line_of_event(warning(&events)?);
    Some(format!("pod `{}` is not ready{event}", pod.metadata.name))
}

/// A pod's problem, with the pod's last warning and the end of its log.
pub(crate) fn with_reasons(api: &Api, pod: &Pod, problem: &PodProblem) -> String {
    let mut text = problem.message.clone();
    let events = events_about(api, pod);
    let warning = events.iter().rfind(|it| it.kind == "Warning");
    text.extend(warning.map(line_of_event));
    if let Some(log) = &problem.log {
        for line in end_of_log(api, pod, log).trim_end().lines() {
            text += &format!("\n  | {line}");
        }
    }
    text
}

fn line_of_event(event: &Event) -> String {
    format!("\n  event {}: {}", event.reason, event.message.trim())
}

fn end_of_log(api: &Api, pod: &Pod, log: &ContainerLog) -> String {
    let ObjectMeta {
        namespace, name, ..
    } = &pod.metadata;
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods/{name}/log?container={}&tailLines={LOG_LINES}&previous={}",
        log.container, log.is_previous
    );
    api.text(&path).unwrap_or_default()
}
