//! Whether a cluster runs the Kubernetes that the repository takes it for.

use anyhow::Result;

use crate::{
    kubernetes::api::Api,
    machine::{programs::Version, terminal::list},
    repository::{cluster::Cluster, kubernetes_version::Kubernetes},
};

/// What is wrong if the cluster runs another minor version than its manifests are rendered and checked for, and what to
/// do then.
pub(super) fn difference(api: &Api, cluster: &Cluster) -> Result<Option<String>> {
    let answer = api.get("/version")?;
    let live = answer["gitVersion"].as_str().and_then(Version::in_text);
    let rendered = cluster.kubernetes.minor();
    let live = live.map(|it| it.minor()).filter(|it| *it != rendered);
    Ok(live.map(|live| {
        let advice = advice(&live, cluster);
        format!("it runs {live}, but manifests are rendered and checked for {rendered}: {advice}")
    }))
}

fn advice(live: &str, cluster: &Cluster) -> String {
    let known: Vec<_> = Kubernetes::known().map(Kubernetes::minor).collect();
    if known.iter().any(|it| it == live) {
        let file = cluster.file();
        format!("write `kubernetes: \"{live}\"` into {}", file.display())
    } else {
        format!("this deployer knows {}", list(known))
    }
}
