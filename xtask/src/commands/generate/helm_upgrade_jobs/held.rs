//! What would be deployed if no freeze or pause held it.

use serde_json::{Value, json};

use crate::{commands::generate::jobs::Todo, repository::cluster::Cluster};

/// Releases of a cluster that stay as they are for one reason.
pub(crate) struct Held<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) releases: Vec<&'a str>,
    pub(crate) reason: String,
}

impl Held<'_> {
    pub(crate) fn as_json(&self) -> Value {
        json!({"releases": self.shown(), "reason": self.reason})
    }

    /// `lake/a lake/b`
    pub(crate) fn shown(&self) -> String {
        let releases = self.releases.iter();
        let releases: Vec<_> = releases.map(|it| self.cluster.path_of(it)).collect();
        releases.join(" ")
    }
}

/// What was taken out of a cluster's upgrades so far.
pub(crate) struct Holding<'a> {
    cluster: &'a Cluster,
    pub(crate) held: Vec<Held<'a>>,
}

impl<'a> Holding<'a> {
    pub(crate) fn of(cluster: &'a Cluster) -> Holding<'a> {
        Holding {
            cluster,
            held: Vec::new(),
        }
    }

    /// Whether there is no reason to take this hub out.
    pub(crate) fn keeps(&mut self, todo: &Todo<'a>, reason: Option<String>) -> bool {
        let is_held = reason.is_some();
        if let Some(reason) = reason {
            self.add(&todo.hub.name, reason);
        }
        !is_held
    }

    pub(crate) fn add(&mut self, release: &'a str, reason: String) {
        match self.held.iter_mut().find(|it| it.reason == reason) {
            Some(held) => held.releases.push(release),
            None => self.held.push(Held {
                cluster: self.cluster,
                releases: vec![release],
                reason,
            }),
        }
    }
}
