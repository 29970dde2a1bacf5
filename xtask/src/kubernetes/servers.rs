//! The servers of a hub's users, and what became of those that did not start.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::kubernetes::{
    objects::{Event, Pod},
    rollout,
};

/// How long a server that failed is told of.
pub(crate) const RECENT: Duration = Duration::from_secs(600);

/// How the names of users' pods begin, of which only events are left.
pub(crate) const PREFIX: &str = "jupyter-";

/// Reasons of events of pods that have not started or have been ended. Others, as `Unhealthy`, pass by themselves.
const FAILURES: [&str; 10] = [
    "BackOff",
    "Evicted",
    "Failed",
    "FailedAttachVolume",
    "FailedCreatePodSandBox",
    "FailedMount",
    "FailedScheduling",
    "InspectFailed",
    "NotTriggerScaleUp",
    "OOMKilling",
];

/// The servers that there are, and those that failed lately.
#[derive(Default, Serialize)]
pub(crate) struct Servers {
    pub(crate) running: usize,
    pub(crate) starting: Vec<Server>,
    pub(crate) failed: Vec<Server>,
}

/// A server that does not run.
#[derive(Serialize)]
pub(crate) struct Server {
    /// The user, with the name of a named server, or the pod if only events are left of it.
    pub(crate) name: String,
    /// What keeps it from running, as far as that is known.
    pub(crate) why: String,
    /// Since when it is starting, or when it failed: `2026-11-26T05:28:21Z`.
    pub(crate) time: Option<String>,
}

/// The user of a pod, followed by `/NAME` for a named server; none if it is no user's. Every KubeSpawner has these
/// annotations; labels differ.
pub(crate) fn user(pod: &Pod) -> Option<String> {
    let annotations = &pod.metadata.annotations;
    let user = annotations.get("hub.jupyter.org/username")?;
    let name = annotations.get("hub.jupyter.org/servername");
    Some(match name.filter(|it| !it.is_empty()) {
        Some(name) => format!("{user}/{name}"),
        None => user.clone(),
    })
}

impl Servers {
    /// Finds them among a hub's pods and events, which are sorted by time, and in what the hub itself logged lately.
    pub(crate) fn find(pods: &[Pod], events: &[Event], log: &str) -> Servers {
        let mut servers = Servers::default();
        let mut known = BTreeSet::new();
        for pod in pods {
            if let Some(name) = user(pod) {
                known.insert(pod.metadata.name.clone());
                servers.add(pod, name, events);
            }
        }
        servers.add_gone(events, &known);
        servers.add_logged(log);
        servers
    }

    fn add(&mut self, pod: &Pod, name: String, events: &[Event]) {
        if pod.is_ready() {
            self.running += 1;
            return;
        }
        let (mut why, is_permanent) = rollout::trouble(pod).unwrap_or_default();
        let is_failed = pod.status.phase == "Failed" || is_permanent;
        let mut about = events
            .iter()
            .filter(|it| it.involved_object.uid == pod.metadata.uid && is_failure(it));
        if let Some(event) = about
            .next_back()
            .filter(|it| !why.contains(it.message.trim()))
        {
            let separator = if why.is_empty() { "" } else { "; " };
            why += &format!("{separator}{}", event.words());
        }
        let server = Server {
            name,
            why,
            time: pod.metadata.creation_timestamp.clone(),
        };
        if is_failed {
            self.failed.push(server);
        } else {
            self.starting.push(server);
        }
    }

    /// Adds the servers whose pods are gone and did not start, as their events tell.
    fn add_gone(&mut self, events: &[Event], known: &BTreeSet<String>) {
        let mut last = BTreeMap::new();
        for event in events.iter().filter(|it| is_recent(it.time())) {
            let name = &event.involved_object.name;
            if event.involved_object.kind != "Pod"
                || !name.starts_with(PREFIX)
                || known.contains(name)
            {
                continue;
            }
            if is_failure(event) {
                last.insert(name, event);
            } else if event.reason == "Started" {
                last.remove(name);
            }
        }
        self.failed
            .extend(last.into_iter().map(|(name, event)| Server {
                name: name.clone(),
                why: event.words(),
                time: Some(event.time().to_owned()),
            }));
    }

    /// Adds what JupyterHub says of servers that did not start, in user.py's words.
    fn add_logged(&mut self, log: &str) {
        for line in log.lines() {
            let unhandled = line.split_once("Unhandled error starting ");
            let late = line.contains("'s server failed to start in ");
            let said = match unhandled {
                Some((_, said)) => said,
                None if late => line.rsplit_once("] ").map_or(line, |(_, said)| said),
                None => continue,
            };
            let Some((user, why)) = said.split_once("'s server") else {
                continue;
            };
            let is_known = self.failed.iter().any(|it| it.name == user);
            if !is_known {
                self.failed.push(Server {
                    name: user.to_owned(),
                    why: why.trim_start_matches(':').trim().to_owned(),
                    time: None,
                });
            }
        }
    }
}

fn is_failure(event: &Event) -> bool {
    FAILURES.contains(&event.reason.as_str())
}

fn is_recent(time: &str) -> bool {
    let time = humantime::parse_rfc3339(time).ok();
    let age = time.and_then(|it| SystemTime::now().duration_since(it).ok());
    age.is_none_or(|it| it < RECENT)
}
