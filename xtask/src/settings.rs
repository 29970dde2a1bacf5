//! `config/xtask.yaml`: the deployer's own settings.

use std::{collections::BTreeMap, ffi::OsStr, path::Path};

use anyhow::{Context, Result, ensure};
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
    /// Names of registries, or how names of images begin, and where to ask for those images in their stead.
    pub(crate) image_mirrors: BTreeMap<String, String>,
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
            image_mirrors: BTreeMap::new(),
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
        let content = content(tree).with_context(|| format!("cannot read `{FILE}`"))?;
        let wrong = || format!("{FILE}: not the deployer's settings");
        refuse_dropped(&content).with_context(wrong)?;
        // A file of comments alone is null.
        let settings: Option<Settings> = yaml::parse(&content).with_context(wrong)?;
        Ok(settings.unwrap_or_default())
    }

    /// What holds a cluster's production and its support chart now: the freeze that lasts longest.
    pub(crate) fn freeze_of(&self, cluster: &str) -> Option<&Freeze> {
        let now = self.freeze.iter().filter(|it| it.holds(cluster));
        now.max_by_key(|it| it.until.end())
    }

    /// Where to fetch what is at `address`: there, or at the mirror with the longest prefix of it, in whole steps of its path.
    pub(crate) fn mirrored(&self, address: &str) -> String {
        mirrored(&self.chart_mirrors, address)
    }

    /// Where to ask for the image of this name, which begins with its registry: there, or at a mirror.
    pub(crate) fn mirrored_image(&self, name: &str) -> String {
        mirrored(&self.image_mirrors, name)
    }
}

/// An address with what it begins with replaced: by the mirror with the longest prefix of it, in whole steps of its path.
fn mirrored(mirrors: &BTreeMap<String, String>, address: &str) -> String {
    let replaced = mirrors.iter().filter_map(|(prefix, mirror)| {
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

/// The content of the file, empty if there is none. What leads nowhere, or is called nearly like it, is no absence.
fn content(tree: &Tree) -> Result<Vec<u8>> {
    let file = Path::new(FILE);
    if let Some(content) = tree.read_if_there(file)? {
        return Ok(content);
    }
    for name in tree.children(file.parent().unwrap_or(file))? {
        ensure!(
            file.file_name() != Some(&name),
            "it is a link to a file that is not there"
        );
        ensure!(
            !is_misspelt(&name),
            "there is only `config/{}`, which is not read\nhint: rename it",
            name.display()
        );
    }
    Ok(Vec::new())
}

fn is_misspelt(name: &OsStr) -> bool {
    let names = ["xtask.yaml", "xtask.yml"];
    names.iter().any(|it| name.eq_ignore_ascii_case(it))
}

/// Refuses what would be read without a part of it: one of two keys, or a second document. A freeze may be there.
fn refuse_dropped(content: &[u8]) -> Result<()> {
    let (_, findings) = yaml::read(content, 0).map_err(yaml::refused)?;
    let Some(mut dropped) = findings.into_iter().find(|it| !it.is_warning) else {
        return Ok(());
    };
    if dropped.rule == yaml::SECOND_DOCUMENT {
        dropped.message = "a second document begins here, which is not read: join them".to_owned();
    }
    Err(yaml::refused(dropped))
}
