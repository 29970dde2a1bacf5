//! Which cluster a deployment is on.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{
    commands::generate::from_hubploy::leftovers::Leftovers,
    machine::{digest::digest_of, tree::Tree},
};

/// Deployments at one place are on one cluster.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Gcloud {
        project: String,
        cluster: String,
        zone: String,
    },
    Aws {
        account: Option<String>,
        cluster: String,
        region: String,
    },
    Azure {
        resource_group: String,
        cluster: String,
    },
    /// Two kubeconfigs of one content lead to one cluster.
    Kubeconfig { digest: String },
}

impl Place {
    /// Takes the cluster of a deployment out of its hubploy.yaml. Returns also the key, or the kubeconfig, from the root.
    pub(crate) fn take(
        tree: &Tree,
        source: &mut Leftovers,
        deployment: &str,
    ) -> Result<(Place, Option<PathBuf>)> {
        let provider = source.need_text(&["cluster", "provider"])?;
        let section = ["cluster", &provider];
        let own = |key| [section[0], section[1], key];
        let secrets = source.file.with_file_name("secrets");
        let key_name = match provider.as_str() {
            "kubeconfig" => Some(source.need_text(&own("filename"))?),
            "azure" => source.take_text(&own("auth_file")),
            _ => source.take_text(&own("service_key")),
        };
        let key = key_name.map(|it| secrets.join(it));
        let place = match provider.as_str() {
            "gcloud" => Place::Gcloud {
                project: source.need_text(&own("project"))?,
                cluster: source.need_text(&own("cluster"))?,
                zone: source.need_text(&own("zone"))?,
            },
            "aws" => Place::Aws {
                // As hubploy called them at first. YAML takes it for a number, which begins with no zero.
                account: source
                    .take_text(&own("account_id"))
                    .or_else(|| source.take_text(&own("project")))
                    .map(|it| format!("{it:0>12}")),
                cluster: source.need_text(&own("cluster"))?,
                region: match source.take_text(&own("zone")) {
                    Some(zone) => zone,
                    None => source.need_text(&own("region"))?,
                },
            },
            "azure" => Place::Azure {
                resource_group: source.need_text(&own("resource_group"))?,
                cluster: source.need_text(&own("cluster"))?,
            },
            "kubeconfig" => {
                let content = key.as_ref().and_then(|it| tree.read(it).ok());
                // One that is not there yet may be any cluster's.
                let content = content.unwrap_or_else(|| deployment.as_bytes().to_vec());
                Place::Kubeconfig {
                    digest: digest_of([content.as_slice()]),
                }
            }
            other => bail!(
                "`{}`: hubploy has no provider `{other}`",
                source.file.display()
            ),
        };
        Ok((place, key))
    }

    /// What to call the cluster, on which is this deployment.
    pub(crate) fn name(&self, deployment: &str) -> String {
        plain(match self {
            Place::Gcloud { cluster, .. }
            | Place::Aws { cluster, .. }
            | Place::Azure { cluster, .. } => cluster,
            Place::Kubeconfig { .. } => deployment,
        })
    }

    /// What to call it where another cluster has the same name.
    pub(crate) fn long_name(&self, deployment: &str) -> String {
        let around = match self {
            Place::Gcloud { project, zone, .. } => format!("{project}-{zone}"),
            Place::Aws { region, .. } => region.clone(),
            Place::Azure { resource_group, .. } => resource_group.clone(),
            Place::Kubeconfig { .. } => "kubeconfig".to_owned(),
        };
        format!("{}-{}", self.name(deployment), plain(&around))
    }
}

/// A name of which only what a cluster's name may have is left.
fn plain(name: &str) -> String {
    let name = name.to_lowercase();
    let name = name.replace(
        |it: char| !it.is_ascii_lowercase() && !it.is_ascii_digit(),
        "-",
    );
    name.trim_matches('-').to_owned()
}
