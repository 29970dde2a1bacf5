//! The cluster.yaml that is written for several deployments.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    commands::generate::from_hubploy::{
        deployment::{Deployment, Environment},
        images::{OwnImage, Registry},
        provider::Place,
    },
    machine::{
        paths::{self, CLUSTERS},
        tree::Tree,
    },
};

/// What a cluster's folder is to have.
pub(crate) struct ClusterFile {
    pub(crate) name: String,
    provider: &'static str,
    /// What belongs to the provider.
    section: Value,
    registry: Option<Registry>,
    pub(crate) hubs: Vec<HubEntry>,
    /// Values files with the tags of images, by their names.
    values: Vec<(String, Value)>,
    /// What people have to see to.
    pub(crate) left: Vec<String>,
}

/// A hub as cluster.yaml has it.
#[derive(Serialize)]
pub(crate) struct HubEntry {
    name: String,
    domain: String,
    helm_chart: PathBuf,
    helm_chart_values_files: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gates: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<OwnImage>,
}

impl ClusterFile {
    pub(crate) fn new(
        tree: &Tree,
        dir: &Path,
        name: String,
        place: &Place,
        deployments: &[&Deployment],
    ) -> ClusterFile {
        let keys = deployments.iter().filter_map(|it| it.key.as_ref());
        let key = keys.map(|it| from_cluster(&name, it)).next();
        let registries = deployments
            .iter()
            .filter_map(|it| it.images.registry.as_ref());
        let (provider, section) = section(place, key.as_deref());
        let mut file = ClusterFile {
            provider,
            section,
            registry: registries.map(|it| it.named_by(&name)).next(),
            hubs: Vec::new(),
            values: Vec::new(),
            left: Vec::new(),
            name,
        };
        let chart = chart(tree, dir, &mut file.left);
        for deployment in deployments {
            file.add(deployment, &chart);
        }
        file
    }

    /// From the root.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new(CLUSTERS).join(&self.name).join("cluster.yaml")
    }

    /// Adds the hubs of a deployment.
    fn add(&mut self, deployment: &Deployment, chart: &Path) {
        let images = self.images(deployment);
        let tags = deployment.images.values.clone().map(|values| {
            let file = format!("{}.images.values.yaml", deployment.name);
            self.values.push((file.clone(), values));
            PathBuf::from(file)
        });
        for environment in &deployment.environments {
            let name = format!("{}-{}", deployment.name, environment.name);
            let domain = self.domain(environment, &name);
            let mut files = Vec::new();
            for file in &environment.files {
                files.push(from_cluster(&self.name, file));
            }
            files.extend(tags.clone());
            let hub = HubEntry {
                domain,
                helm_chart: chart.to_owned(),
                helm_chart_values_files: files,
                stage: (environment.name == "develop").then_some("staging"),
                gates: gates(deployment, environment),
                images: images.clone(),
                name,
            };
            self.hubs.push(hub);
        }
    }

    /// The images that a deployment builds, with their registry where it is another one than the cluster's.
    fn images(&self, deployment: &Deployment) -> Vec<OwnImage> {
        let registry = deployment.images.registry.as_ref();
        let registry = registry.map(|it| it.named_by(&self.name));
        let registry = registry.filter(|it| self.registry.as_ref() != Some(it));
        let mut images = deployment.images.own.clone();
        for image in &mut images {
            image.path = from_cluster(&self.name, &image.path);
            image.registry = registry.clone();
        }
        images
    }

    /// The host that a hub's values name. hubploy's own files don't need it.
    fn domain(&mut self, environment: &Environment, hub: &str) -> String {
        if let Some(domain) = &environment.domain {
            return domain.clone();
        }
        self.left.push(format!(
            "{}: no host of `{hub}` is in its plain values files: write its `domain`",
            self.path().display()
        ));
        format!("{hub}.example.org")
    }

    fn yaml(&self) -> Result<String> {
        let mut yaml = serde_yaml::Mapping::new();
        yaml.insert("name".into(), self.name.as_str().into());
        yaml.insert("provider".into(), self.provider.into());
        yaml.insert(self.provider.into(), serde_yaml::to_value(&self.section)?);
        if let Some(registry) = &self.registry {
            yaml.insert("registry".into(), serde_yaml::to_value(registry)?);
        }
        yaml.insert("hubs".into(), serde_yaml::to_value(&self.hubs)?);
        Ok(serde_yaml::to_string(&yaml)?)
    }
}

impl Registry {
    /// The same as the cluster.yaml of a cluster names it.
    fn named_by(&self, cluster: &str) -> Registry {
        let mut registry = self.clone();
        if let Some(file) = registry.file_mut() {
            *file = from_cluster(cluster, file);
        }
        registry
    }
}

/// Writes a cluster.yaml and the values files beside it.
pub(crate) fn write(tree: &Tree, file: &ClusterFile) -> Result<()> {
    let path = tree.root().join(file.path());
    for (name, values) in &file.values {
        let values = serde_yaml::to_string(values)?;
        paths::write_whole(&path.with_file_name(name), values.as_bytes())?;
    }
    paths::write_whole(&path, file.yaml()?.as_bytes())
}

/// The name of the provider, and its section.
fn section(place: &Place, key: Option<&Path>) -> (&'static str, Value) {
    let (provider, mut section) = match place {
        Place::Gcloud {
            project,
            cluster,
            zone,
        } => (
            "gcp",
            json!({"project": project, "cluster": cluster, "zone": zone}),
        ),
        Place::Aws {
            account: _,
            cluster,
            region,
        } => (
            "aws",
            json!({"clusterType": "eks", "clusterName": cluster, "region": region}),
        ),
        Place::Azure {
            resource_group,
            cluster,
        } => (
            "azure",
            json!({"resource_group": resource_group, "cluster": cluster}),
        ),
        Place::Kubeconfig { .. } => return ("kubeconfig", json!({"file": key})),
    };
    if let Some(key) = key {
        section["key"] = json!(key);
    }
    if let Place::Aws {
        account: Some(account),
        ..
    } = place
    {
        section["account"] = account.as_str().into();
    }
    (provider, section)
}

/// Staging of the same deployment, which hubploy deploys first; the other deployments have nothing to do with it.
fn gates(deployment: &Deployment, environment: &Environment) -> Option<Vec<String>> {
    let staging = deployment
        .environments
        .iter()
        .find(|it| it.name == "staging");
    let staging = staging.map(|it| format!("{}-{}", deployment.name, it.name));
    (environment.name == "prod").then(|| staging.into_iter().collect())
}

/// The chart of the hubs as cluster.yaml names it. hubploy gets it on its command line: usually it is called `hub`.
fn chart(tree: &Tree, dir: &Path, left: &mut Vec<String>) -> PathBuf {
    let folders = tree.children(dir).unwrap_or_default();
    let mut charts: Vec<_> = folders.into_iter().map(|it| dir.join(it)).collect();
    charts.retain(|it| has_jupyterhub(tree, it));
    let usual = dir.join("hub");
    let chart = match &charts[..] {
        [only] => only.clone(),
        _ => {
            if !charts.contains(&usual) {
                let shown = usual.display();
                left.push(format!("`{shown}` is taken for the chart of the hubs: `helm_chart` of each says which one it is"));
            }
            usual
        }
    };
    // Without a `/` it would be a folder in helm-charts/.
    if chart.components().count() == 1 {
        Path::new(".").join(chart)
    } else {
        chart
    }
}

/// Whether the chart in a folder depends on one called jupyterhub.
fn has_jupyterhub(tree: &Tree, folder: &Path) -> bool {
    let files = ["Chart.yaml", "requirements.yaml"].map(|it| folder.join(it));
    let texts = files.iter().filter_map(|it| tree.read(it).ok());
    tree.is_file(&files[0])
        && texts
            .into_iter()
            .any(|it| String::from_utf8_lossy(&it).contains("name: jupyterhub"))
}

/// A file as a cluster.yaml in `config/clusters/NAME/` names it.
fn from_cluster(cluster: &str, file: &Path) -> PathBuf {
    paths::from(&Path::new(CLUSTERS).join(cluster), file)
}
