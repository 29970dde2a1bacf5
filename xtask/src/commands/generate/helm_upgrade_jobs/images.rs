//! The images that hubs' jobs wait for, since they are built from folders of the repository.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    commands::generate::jobs::JOBS,
    repository::cluster::{Builder, Cluster, Hub, OwnImage, RegistryLogin},
};

/// Images by their names, each with all that use it. An image is built once, however many hubs that are.
#[derive(Default)]
pub(crate) struct Images<'a>(BTreeMap<&'a str, Vec<Use<'a>>>);

/// An image of a hub.
#[derive(Clone, Copy)]
struct Use<'a> {
    cluster: &'a Cluster,
    hub: &'a Hub,
    image: &'a OwnImage,
}

impl<'a> Images<'a> {
    pub(crate) fn add(&mut self, cluster: &'a Cluster, hub: &'a Hub, image: &'a OwnImage) {
        let uses = self.0.entry(&image.name).or_default();
        uses.push(Use {
            cluster,
            hub,
            image,
        });
    }

    pub(crate) fn add_all(&mut self, cluster: &'a Cluster, hubs: impl Iterator<Item = &'a Hub>) {
        for hub in hubs {
            hub.images.iter().for_each(|it| self.add(cluster, hub, it));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that a hub uses, by name.
    pub(crate) fn of_hub(&self, hub: &Hub) -> Vec<&'a str> {
        let names: BTreeSet<_> = hub.images.iter().map(|it| it.name.as_str()).collect();
        let known = self.0.keys().copied();
        known.filter(|it| names.contains(it)).collect()
    }

    /// Those that no cluster of an earlier wave uses.
    pub(crate) fn of_wave(&self, wave: u8) -> Images<'a> {
        let own = self.0.iter().filter(|(_, uses)| {
            let waves = uses.iter().map(|it| it.cluster.wave);
            waves.min() == Some(wave)
        });
        Images(own.map(|(name, uses)| (*name, uses.clone())).collect())
    }

    /// Each image with the hubs that `image build` builds it for.
    pub(crate) fn builds(&self) -> impl Iterator<Item = (&'a str, Vec<String>)> {
        self.0.iter().map(|(name, uses)| (*name, hubs(uses)))
    }

    /// A job for each image, or for several images if there are more of them than there may be jobs.
    pub(crate) fn jobs(&self) -> Value {
        let all: Vec<_> = self.0.iter().collect();
        let size = all.len().div_ceil(JOBS).max(1);
        all.chunks(size).map(job).collect()
    }
}

/// One hub for each folder that images of this name are built from, as `CLUSTER HUB`: one that says how to log in, if there is
/// one.
fn hubs(uses: &[Use]) -> Vec<String> {
    let mut uses: Vec<_> = uses.iter().collect();
    uses.sort_by_key(|it| it.login().is_none());
    let mut folders = BTreeSet::new();
    let mut hubs = Vec::new();
    for it in uses {
        let hub = format!("{} {}", it.cluster.name, it.hub.name);
        if folders.insert(&it.image.path) && !hubs.contains(&hub) {
            hubs.push(hub);
        }
    }
    hubs
}

/// The job that builds these images, with a line for each call of `image build`.
fn job(images: &[(&&str, &Vec<Use>)]) -> Value {
    let names: Vec<_> = images.iter().map(|(name, _)| **name).collect();
    let builds = images.iter().flat_map(|(name, uses)| {
        let hubs = hubs(uses).into_iter();
        hubs.map(move |hub| format!("{hub} --image {name}"))
    });
    let builds: Vec<_> = builds.collect();
    let uses = || images.iter().flat_map(|(_, uses)| *uses);
    let is_on_google = uses().any(Use::is_on_google);
    json!({
        "images": names.join(" "),
        "builds": builds.join("\n"),
        "provider": is_on_google.then_some("gcp"),
        "repo2docker": uses().any(|it| it.image.builder == Builder::Repo2docker),
    })
}

impl Use<'_> {
    fn login(&self) -> Option<&RegistryLogin> {
        self.cluster.registry_of(self.image)
    }

    /// Whether gcloud logs in to its registry.
    fn is_on_google(&self) -> bool {
        matches!(self.login(), Some(RegistryLogin::Gcloud { .. }))
    }
}
