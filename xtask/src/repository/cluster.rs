//! `config/clusters/NAME/cluster.yaml` as types.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    charts::ChartPath,
    machine::{
        date::{self, Date},
        paths,
        terminal::{hint_of_name, list, nearest},
        tree::Tree,
    },
    repository::kubernetes_version::Kubernetes,
    yaml::{Node, Place, unquoted},
};

/// One cluster and its hubs.
///
/// config/cluster.schema.json, compiled in, says which keys there are and refuses others; the types here hold
/// the ones that a command reads.
pub(crate) struct Cluster {
    /// The name of the folder, which is what people type.
    pub(crate) name: String,
    /// `config/clusters/NAME` from the root.
    pub(crate) dir: PathBuf,
    pub(crate) provider: Provider,
    /// What it runs, as far as the repository knows.
    pub(crate) kubernetes: Kubernetes,
    pub(crate) support: Option<Support>,
    /// From 1: what deploys several clusters begins with this one once those of earlier waves went well.
    pub(crate) wave: u8,
    pub(crate) paused: Option<Paused>,
    /// Of the nodes.
    pub(crate) architecture: Architecture,
    /// How to log in to the registry of its hubs' own images.
    pub(crate) registry: Option<RegistryLogin>,
    /// In the file's order.
    pub(crate) hubs: Vec<Hub>,
    /// cluster.yaml itself, which has the place of each of these.
    pub(crate) yaml: Node,
}

/// How to log in.
pub(crate) enum Provider {
    /// The rehearsal cluster, and what its nodes must be, if that matters.
    Local(Option<Nodes>),
    /// The path of a kubeconfig from the root.
    Kubeconfig(PathBuf),
    Gcp(Gcp),
    Aws(Aws),
    Azure(Azure),
}

/// What `provider` can be in cluster.yaml.
pub(crate) const PROVIDERS: [&str; 5] = ["gcp", "aws", "azure", "kubeconfig", "local"];

/// The provider that is probably meant by another word.
pub(crate) fn provider_meant(name: &str) -> Option<&'static str> {
    match name.to_lowercase().as_str() {
        "gke" | "google" => Some("gcp"),
        "eks" | "amazon" => Some("aws"),
        "aks" | "microsoft" => Some("azure"),
        "kind" | "minikube" | "kubernetes" => Some("kubeconfig"),
        name => nearest(name, PROVIDERS),
    }
}

/// A cluster of Google Kubernetes Engine. `key`, here and below, is the path of the key file from the root.
#[derive(Deserialize)]
pub(crate) struct Gcp {
    pub(crate) key: Option<PathBuf>,
    pub(crate) project: String,
    pub(crate) cluster: String,
    /// Or a region.
    pub(crate) zone: Option<String>,
    pub(crate) region: Option<String>,
}

/// A cluster of Amazon's EKS.
#[derive(Deserialize)]
pub(crate) struct Aws {
    pub(crate) key: Option<PathBuf>,
    #[serde(rename = "clusterName")]
    pub(crate) cluster: String,
    pub(crate) region: String,
}

/// A cluster of Azure's AKS.
#[derive(Deserialize)]
pub(crate) struct Azure {
    pub(crate) key: Option<PathBuf>,
    pub(crate) resource_group: String,
    pub(crate) cluster: String,
}

/// What a rehearsal cluster's pods run on.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Nodes {
    Simulated,
    Real,
}

#[derive(Deserialize)]
pub(crate) struct Hub {
    /// Its position in cluster.yaml.
    #[serde(skip)]
    pub(crate) index: usize,
    /// Of the hub, its namespace and its Helm release.
    pub(crate) name: String,
    pub(crate) domain: String,
    /// From the root.
    pub(crate) domain_override_file: Option<PathBuf>,
    helm_chart: String,
    /// A file beside cluster.yaml, or with a `/` a path from the root.
    chart_override: Option<String>,
    /// From the root; the last one wins.
    pub(crate) helm_chart_values_files: Vec<PathBuf>,
    stage: Option<Stage>,
    /// The staging hubs that must be ready before this one is deployed; all of the cluster's by default.
    pub(crate) gates: Option<Vec<String>>,
    /// Whether a deploy checks its health; it does by default.
    pub(crate) health_check: Option<bool>,
    uptime_check: Option<UptimeCheck>,
    /// Those that are built from folders of the repository.
    #[serde(default)]
    pub(crate) images: Vec<OwnImage>,
    pub(crate) paused: Option<Paused>,
}

/// An image that is built from a folder of the repository. Its tag is the last commit that changed the folder.
#[derive(Clone, Deserialize, PartialEq, Eq)]
pub(crate) struct OwnImage {
    /// With its registry, without a tag.
    pub(crate) name: String,
    /// The folder, from the root.
    pub(crate) path: PathBuf,
    /// The values whose `name` and `tag` are this image's.
    #[serde(default)]
    values_path: ValuesPaths,
    #[serde(default, rename = "build")]
    pub(crate) builder: Builder,
    /// What repo2docker builds on.
    pub(crate) base_image: Option<String>,
    pub(crate) registry: Option<RegistryLogin>,
}

#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
enum ValuesPaths {
    /// cluster.yaml has none.
    #[serde(skip)]
    OfUsers(String),
    One(String),
    Several(Vec<String>),
}

impl Default for ValuesPaths {
    fn default() -> ValuesPaths {
        ValuesPaths::OfUsers("jupyterhub.singleuser.image".to_owned())
    }
}

impl OwnImage {
    /// The values whose `name` and `tag` are this image's, as helm's `--set` names them. Where cluster.yaml has none, they are
    /// at another depth in charts that are built on other ones (see image_values.rs).
    pub(crate) fn values_paths(&self) -> &[String] {
        match &self.values_path {
            ValuesPaths::OfUsers(path) | ValuesPaths::One(path) => std::slice::from_ref(path),
            ValuesPaths::Several(paths) => paths,
        }
    }

    /// Whether cluster.yaml leaves it to the chart where the image is among its values.
    pub(crate) fn is_of_users(&self) -> bool {
        matches!(self.values_path, ValuesPaths::OfUsers(_))
    }
}

/// What makes an image of a folder.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Builder {
    /// The folder has a Dockerfile.
    #[default]
    Docker,
    Repo2docker,
}

/// How to log in to a registry.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase", tag = "provider")]
pub(crate) enum RegistryLogin {
    /// `key` is the path of a key file from the root, here and below; by default it is the cluster's.
    Gcloud {
        key: Option<PathBuf>,
    },
    Aws {
        key: Option<PathBuf>,
    },
    Azure {
        key: Option<PathBuf>,
    },
    /// A docker config.json, by its path from the root.
    Dockerconfig {
        filename: PathBuf,
    },
}

impl RegistryLogin {
    /// Whether a registry, as names of images begin, may be one that it is for.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let ends: &[&str] = match self {
            RegistryLogin::Gcloud { .. } => &[".gcr.io", "-docker.pkg.dev"],
            RegistryLogin::Aws { .. } => &[".amazonaws.com"],
            RegistryLogin::Azure { .. } => &[".azurecr.io"],
            RegistryLogin::Dockerconfig { .. } => &[""],
        };
        let host = format!(".{host}");
        ends.iter().any(|it| host.ends_with(it))
    }

    /// The file that it names.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        match self {
            RegistryLogin::Gcloud { key }
            | RegistryLogin::Aws { key }
            | RegistryLogin::Azure { key } => key.as_ref(),
            RegistryLogin::Dockerconfig { filename } => Some(filename),
        }
    }

    /// The same, to make its path plain.
    pub(crate) fn file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            RegistryLogin::Gcloud { key }
            | RegistryLogin::Aws { key }
            | RegistryLogin::Azure { key } => key.as_mut(),
            RegistryLogin::Dockerconfig { filename } => Some(filename),
        }
    }
}

/// What an image must be there for.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Architecture {
    #[default]
    Amd64,
    Arm64,
}

impl Architecture {
    /// As images have it: <https://go.dev/doc/install/source#environment>.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::Arm64 => "arm64",
        }
    }
}

/// Why a cluster or hub is left alone for a while.
#[derive(Deserialize)]
pub(crate) struct Paused {
    pub(crate) until: Date,
    reason: String,
}

impl Paused {
    /// "paused until 2026-12-01: new nodes"
    pub(crate) fn shown(&self) -> String {
        date::until("paused", &self.until, &self.reason)
    }
}

#[derive(Deserialize)]
struct UptimeCheck {
    /// A number, or its digits as a text.
    expected_status: Option<Value>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Stage {
    Staging,
    Production,
}

/// The releases of what the hubs of a cluster share.
pub(crate) const SHARED: [&str; 2] = ["support", "cert-manager"];

/// What values of `support` all clusters have, in helm's order: <https://github.com/2i2c-org/infrastructure>.
const SHARED_VALUES: [&str; 2] = [
    "helm-charts/support/enc-support.secret.values.yaml",
    "helm-charts/support/enc-cryptnono.secret.values.yaml",
];

/// The chart `support`, and cert-manager before it.
#[derive(Deserialize)]
pub(crate) struct Support {
    /// From the root; the last one wins.
    pub(crate) helm_chart_values_files: Vec<PathBuf>,
    #[serde(default = "yes")]
    pub(crate) cert_manager: bool,
}

impl Support {
    /// The encrypted values files of all clusters that are there, from the root; they come before all others.
    pub(crate) fn shared_values(tree: &Tree) -> Vec<PathBuf> {
        let shared = SHARED_VALUES.map(PathBuf::from);
        let is_there = |it: &PathBuf| !matches!(tree.find(it), Ok(None));
        shared.into_iter().filter(is_there).collect()
    }
}

impl std::fmt::Display for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Nodes::Simulated => "simulated nodes",
            Nodes::Real => "a real node",
        })
    }
}

impl Hub {
    /// Whether changes are tried on it before others get them: `stage` says it, or else the name.
    pub(crate) fn is_staging(&self) -> bool {
        self.stage
            .map_or_else(|| self.name.contains("staging"), |it| it == Stage::Staging)
    }

    /// The HTTP status that its domain must answer everybody, if cluster.yaml says one.
    pub(crate) fn expected_status(&self) -> Option<u16> {
        let status = self.uptime_check.as_ref()?.expected_status.as_ref()?;
        unquoted(status).parse().ok()
    }

    /// The pause of this hub, as long as it lasts.
    pub(crate) fn pause(&self) -> Option<&Paused> {
        self.paused.as_ref().filter(|it| !it.until.is_over())
    }

    /// Whether that staging hub of its cluster must be ready before this one is deployed. Nobody waits for one that is paused.
    pub(crate) fn waits_for(&self, staging: &Hub) -> bool {
        !self.is_staging()
            && staging.pause().is_none()
            && self
                .gates
                .as_ref()
                .is_none_or(|gates| gates.contains(&staging.name))
    }

    /// The folder of the chart from the root: `helm-charts/NAME`, or the path that cluster.yaml gives.
    pub(crate) fn chart_folder(&self) -> PathBuf {
        paths::lexical(&path_in(Path::new("helm-charts"), &self.helm_chart))
    }
}

impl Cluster {
    /// The chart of one of its hubs.
    pub(crate) fn chart(&self, hub: &Hub) -> ChartPath {
        let chart_override = hub.chart_override.as_deref();
        ChartPath {
            folder: hub.chart_folder(),
            chart_override: chart_override.map(|it| paths::lexical(&path_in(&self.dir, it))),
        }
    }

    /// The pause of the whole cluster, as long as it lasts.
    pub(crate) fn pause(&self) -> Option<&Paused> {
        self.paused.as_ref().filter(|it| !it.until.is_over())
    }

    /// What keeps one of its hubs from being deployed unless somebody names it: the cluster's pause or the hub's own.
    pub(crate) fn pause_of<'a>(&'a self, hub: &'a Hub) -> Option<&'a Paused> {
        self.pause().or_else(|| hub.pause())
    }

    /// One of its releases as people write it, and as jobs and environments are called: "lake/prod".
    pub(crate) fn path_of(&self, release: &str) -> String {
        format!("{}/{release}", self.name)
    }

    /// How to log in to the registry of an image of its hubs.
    pub(crate) fn registry_of<'a>(&'a self, image: &'a OwnImage) -> Option<&'a RegistryLogin> {
        image.registry.as_ref().or(self.registry.as_ref())
    }

    /// cluster.yaml from the root.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join("cluster.yaml")
    }

    /// The beginning of cluster.yaml.
    pub(crate) fn at(&self) -> Place {
        self.yaml.at.unwrap_or(Place::start_of(0))
    }

    /// As cluster.yaml has it.
    pub(crate) fn provider_name(&self) -> Option<&str> {
        self.yaml.text(&["provider"])
    }

    pub(crate) fn is_local(&self) -> bool {
        matches!(self.provider, Provider::Local(_))
    }

    /// Its releases, each in the namespace of its name: the hubs, and what they share.
    pub(crate) fn releases(&self) -> Vec<&str> {
        let hubs = self.hubs.iter().map(|it| it.name.as_str());
        let support = self.support.iter();
        let shared = support.flat_map(|_| SHARED);
        hubs.chain(shared).collect()
    }

    /// The name of one of its releases: a hub, or what hubs share.
    pub(crate) fn release<'a>(&self, name: &'a str) -> Result<&'a str> {
        let known = self.releases();
        if !known.contains(&name) {
            bail!(self.no_hubs(&[name], &known));
        }
        Ok(name)
    }

    /// The error about names that none of the `known` ones is.
    fn no_hubs(&self, names: &[&str], known: &[&str]) -> Error {
        let meant = names
            .first()
            .and_then(|it| nearest(it, known.iter().copied()));
        let hint = hint_of_name(meant);
        let names = list(names);
        let known = list(known);
        anyhow!(
            "cluster `{}` has no hub {names}; it has: {known}{hint}",
            self.name
        )
    }

    /// The hubs of these names, or all of them without names, in the order of cluster.yaml.
    pub(crate) fn select_hubs(&self, names: &[String]) -> Result<Vec<&Hub>> {
        let known: Vec<_> = self.hubs.iter().map(|it| it.name.as_str()).collect();
        let unknown: Vec<_> = names
            .iter()
            .map(String::as_str)
            .filter(|it| !known.contains(it))
            .collect();
        if !unknown.is_empty() {
            bail!(self.no_hubs(&unknown, &known));
        }
        if self.hubs.is_empty() {
            bail!("cluster `{}` has no hubs", self.name);
        }
        Ok(self
            .hubs
            .iter()
            .filter(|it| names.is_empty() || names.contains(&it.name))
            .collect())
    }
}

/// A name in this folder, or with a `/` a path from the root.
fn path_in(folder: &Path, name: &str) -> PathBuf {
    if name.contains('/') {
        PathBuf::from(name)
    } else {
        folder.join(name)
    }
}

fn yes() -> bool {
    true
}
