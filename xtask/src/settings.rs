//! `config/xtask.yaml`: the deployer's own settings.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{machine::tree::Tree, settings::freeze::Freeze, yaml};

pub(crate) mod freeze;

/// From the root. A repository without it has the defaults.
pub(crate) const FILE: &str = "config/xtask.yaml";

/// What every hub is deployed with: what helm is told, and how charts are prepared. What else changes in this program
/// redeploys nothing.
const CORE_FILES: [&str; 2] = ["xtask/src/kubernetes/helm.rs", "xtask/src/charts/format.rs"];

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// How addresses that charts and manifests are fetched from begin, and what they begin with in their stead.
    pub(crate) chart_mirrors: BTreeMap<String, String>,
    /// Where Azure is.
    pub(crate) azure: Azure,
    /// Patterns of files that all hubs are deployed with, from the root, where `*` also matches folders.
    pub(crate) core_files: Vec<String>,
    /// The image of the pods that `exec shell` makes.
    pub(crate) shell_image: String,
    /// The cluster of `exec debug start-docker-proxy` if none is given.
    pub(crate) docker_proxy_cluster: Option<String>,
    /// When production is left as it is.
    pub(crate) freeze: Vec<Freeze>,
}

/// Addresses of Azure's APIs. Some countries and governments have others.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Azure {
    pub(crate) login: String,
    pub(crate) management: String,
}

impl Default for Azure {
    fn default() -> Azure {
        Azure {
            login: "https://login.microsoftonline.com".to_owned(),
            management: "https://management.azure.com".to_owned(),
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            chart_mirrors: BTreeMap::new(),
            azure: Azure::default(),
            core_files: CORE_FILES.map(str::to_owned).to_vec(),
            shell_image: "public.ecr.aws/docker/library/ubuntu:24.04".to_owned(),
            docker_proxy_cluster: None,
            freeze: Vec::new(),
        }
    }
}

impl Settings {
    pub(crate) fn load(tree: &Tree) -> Result<Settings> {
        let content = tree.read_if_there(Path::new(FILE));
        let content = content.with_context(|| format!("cannot read `{FILE}`"))?;
        // A file of comments alone is null.
        let settings: Option<Settings> = yaml::parse(&content.unwrap_or_default())
            .with_context(|| format!("{FILE}: not the deployer's settings"))?;
        Ok(settings.unwrap_or_default())
    }

    /// What holds a cluster's production and its support chart now: the freeze that lasts longest.
    pub(crate) fn freeze_of(&self, cluster: &str) -> Option<&Freeze> {
        let now = self.freeze.iter().filter(|it| it.holds(cluster));
        now.max_by_key(|it| it.until.end())
    }

    /// Where to fetch what is at `address`: there, or at the mirror with the longest prefix of it, in whole steps of its path.
    pub(crate) fn mirrored(&self, address: &str) -> String {
        let replaced = self.chart_mirrors.iter().filter_map(|(prefix, mirror)| {
            let prefix = prefix.trim_end_matches('/');
            let rest = address.strip_prefix(prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| {
                (
                    prefix.len(),
                    format!("{}{rest}", mirror.trim_end_matches('/')),
                )
            })
        });
        replaced
            .max()
            .map_or_else(|| address.to_owned(), |(_, mirrored)| mirrored)
    }
}
