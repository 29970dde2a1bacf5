//! The pod of a user's server, while the hub starts it.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use crate::{
    kubernetes::{
        api::Api,
        objects::{Event, Pod},
        rollout::{pods, told, workloads::WorkloadKind},
    },
    services::http::percent_encoded,
};

/// How long a pod may wait for a Secret or the like that is not there: nobody makes it for a user's pod.
const GRACE_OF_MISSING: Duration = Duration::from_secs(10);

/// The pod of a user's server.
pub(crate) struct UserPod<'a> {
    api: &'a Api,
    namespace: &'a str,
    user: &'static str,
    /// What the pod waits for that may come by itself, and since when.
    waiting: RefCell<Option<(String, Instant)>>,
}

/// What keeps a pod from being ready.
pub(crate) struct PodTrouble {
    pub(crate) message: String,
    /// Whether it won't go away by itself.
    pub(crate) is_permanent: bool,
}

impl<'a> UserPod<'a> {
    pub(crate) fn new(api: &'a Api, namespace: &'a str, user: &'static str) -> UserPod<'a> {
        UserPod {
            api,
            namespace,
            user,
            waiting: RefCell::default(),
        }
    }

    /// What keeps the pod from being ready, if something does. Without an answer of the API server nothing is known.
    pub(crate) fn trouble(&self) -> Option<PodTrouble> {
        let pod = self.find()?;
        let events = told::events_about(self.api, &pod.metadata);
        let problem = pods::problem(WorkloadKind::Deployment, &pod);
        let message = match &problem {
            Some(problem) => told::with_events(self.api, &pod, problem, &events),
            None => told::warned_of(&pod, &events)?,
        };
        let is_permanent = problem.is_some_and(|it| it.is_permanent);
        Some(PodTrouble {
            message,
            is_permanent: is_permanent || self.waits_in_vain(&pod, &events),
        })
    }

    /// The user's pod, whose label has the name as KubeSpawner writes it now, or as it did before version 7.
    fn find(&self) -> Option<Pod> {
        let older = self.user.replace('-', "-2d");
        let selector = format!("hub.jupyter.org/username in ({},{older})", self.user);
        let path = format!(
            "/api/v1/namespaces/{}/pods?labelSelector={}",
            self.namespace,
            percent_encoded(&selector)
        );
        let mut pods = self.api.list::<Pod>(&path).ok()?.items.into_iter();
        pods.find(|it| it.metadata.deletion_timestamp.is_none())
    }

    /// Whether a pod that is only about to start has waited for the same for too long.
    fn waits_in_vain(&self, pod: &Pod, events: &[Event]) -> bool {
        let warning = told::warning(events);
        let has_no_node = pods::has_no_node(pod);
        if pod.status.phase == "Failed" || has_no_node && told::is_given_up(events) {
            return true;
        }
        if pod.status.phase != "Pending" || has_no_node && told::is_scaling_up(events) {
            return false;
        }
        let is_missing = warning.is_some_and(|it| it.message.contains("not found"));
        let grace = if is_missing && !has_no_node {
            GRACE_OF_MISSING
        } else {
            pods::GRACE
        };
        let reason = warning.map_or("", |it| &it.reason);
        self.has_waited(format!("{} {reason}", pod.metadata.uid), grace)
    }

    fn has_waited(&self, what: String, grace: Duration) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        match &*waiting {
            Some((before, since)) if *before == what => since.elapsed() > grace,
            _ => {
                *waiting = Some((what, Instant::now()));
                false
            }
        }
    }
}
