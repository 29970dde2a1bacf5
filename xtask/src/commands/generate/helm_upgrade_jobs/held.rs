//! What would be deployed if no freeze or pause held it.

use serde_json::{Value, json};

use crate::{
    commands::generate::{
        helm_upgrade_jobs::plan::{SUPPORT, Upgrades},
        jobs::{Todo, release},
    },
    repository::cluster::Cluster,
    settings::freeze::Freeze,
};

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
        let releases: Vec<_> = releases.map(|it| release(self.cluster, it)).collect();
        releases.join(" ")
    }
}

impl<'a> Upgrades<'a> {
    /// Takes out what is paused, and what of the rest a freeze holds.
    pub(crate) fn hold(&mut self, freeze: Option<&Freeze>) -> Vec<Held<'a>> {
        let mut held = Holding {
            cluster: self.cluster,
            held: Vec::new(),
        };
        let pause = self.cluster.pause().map(|it| it.shown());
        let freeze = freeze.map(Freeze::shown);
        let frozen = |name: &str| freeze.clone().filter(|_| !self.past_freeze.contains(name));
        if self.support.is_some()
            && let Some(reason) = pause.or_else(|| frozen(SUPPORT))
        {
            held.add(SUPPORT, reason);
            self.support = None;
        }
        let paused = |todo: &Todo| Some(self.cluster.pause_of(todo.hub)?.shown());
        self.staging.retain(|it| held.keeps(it, paused(it)));
        self.prod
            .retain(|it| held.keeps(it, paused(it).or_else(|| frozen(&it.hub.name))));
        held.held
    }
}

/// What was taken out of a cluster's upgrades so far.
struct Holding<'a> {
    cluster: &'a Cluster,
    held: Vec<Held<'a>>,
}

impl<'a> Holding<'a> {
    /// Whether there is no reason to take this hub out.
    fn keeps(&mut self, todo: &Todo<'a>, reason: Option<String>) -> bool {
        let is_held = reason.is_some();
        if let Some(reason) = reason {
            self.add(&todo.hub.name, reason);
        }
        !is_held
    }

    fn add(&mut self, release: &'a str, reason: String) {
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
