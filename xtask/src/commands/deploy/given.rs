//! What helm is given for a hub, as a digest that is recorded with the revision. Where it is still the same, nothing has to be
//! rendered to know that a deploy would change nothing.
//!
//! An encrypted file counts as it lies in the repository: from a digest of what is decrypted, a short secret could be guessed.
//! What a chart asks the cluster for (`lookup`) or makes at random is not given, and so does not count.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, anyhow};

use crate::{
    charts::prepare::PreparedCharts,
    kubernetes::{api::Api, manifests},
    machine::{
        digest::PartsDigest,
        programs::{self, Tools},
    },
    repository::{
        cluster::OwnImage, fleet::Fleet, hub_traits::HubTraits, jsonnet::MadeKey,
        release_config::ReleaseConfig,
    },
};

/// What is part of every digest: how it is made, and how helm is told. Count the first one up when a digest says the same of
/// something else.
const PROGRAM: [&str; 2] = ["1", include_str!("../../kubernetes/helm.rs")];

/// The digests of hubs, by their names.
pub(crate) type Given = BTreeMap<String, String>;

/// What all hubs of a run have in common.
pub(crate) struct Common<'a> {
    fleet: &'a Fleet,
    charts: &'a PreparedCharts,
    /// The version of dask-gateway's CRDs that the person wants.
    dask_gateway: Option<&'a str>,
    /// What renders, and what the chart is told of the cluster.
    rendered_by: Vec<String>,
}

impl<'a> Common<'a> {
    pub(crate) fn find(
        tools: &Tools,
        api: &Api,
        fleet: &'a Fleet,
        charts: &'a PreparedCharts,
        dask_gateway: Option<&'a str>,
    ) -> Result<Common<'a>> {
        let helm = programs::version_of(tools, "helm")?;
        let cluster = api.get("/version")?;
        let mut rendered_by = PROGRAM.map(str::to_owned).to_vec();
        rendered_by.extend(helm.map(|it| it.to_string()));
        rendered_by.push(cluster["gitVersion"].to_string());
        rendered_by.extend(manifests::served(api)?);
        Ok(Common {
            fleet,
            charts,
            dask_gateway,
            rendered_by,
        })
    }

    /// The digests of all hubs that can be deployed.
    pub(crate) fn digests(&self) -> Given {
        let mut given = Given::new();
        for config in self.fleet.releases() {
            // What is wrong with one is said when it is deployed.
            if let Ok(digest) = self.digest(&config) {
                given.insert(config.name().to_owned(), digest);
            }
        }
        given
    }

    fn digest(&self, config: &ReleaseConfig) -> Result<String> {
        let mut digest = PartsDigest::default();
        for part in &self.rendered_by {
            digest.add(part.as_bytes());
        }
        digest.add(config.name().as_bytes());
        let chart = self.charts[&config.chart].as_ref();
        let chart = chart.map_err(|err| anyhow!("{err:#}"))?;
        // It is named after its content.
        digest.add(chart.file_name().unwrap_or_default().as_encoded_bytes());
        for path in config.values_files() {
            self.add_values(&mut digest, config, path);
        }
        for image in config.images() {
            self.add_image(&mut digest, image.image)?;
        }
        if let Some(version) = self.dask_gateway
            && HubTraits::find(self.fleet, config)?.has_dask
        {
            digest.add(version.as_bytes());
        }
        Ok(digest.name())
    }

    /// Adds an own image, and where it is set. What else is in a list that it is in comes from values files.
    fn add_image(&self, digest: &mut PartsDigest, image: &OwnImage) -> Result<()> {
        let tag = &self.fleet.image_tags[&image.path];
        let tag = tag.as_ref().map_err(|why| anyhow!("{why}"))?;
        for part in [&image.name, tag].into_iter().chain(image.values_paths()) {
            digest.add(part.as_bytes());
        }
        Ok(())
    }

    /// Adds a values file as it lies in the repository or as jsonnet makes it, which is not known if it depends on an encrypted
    /// domain.
    fn add_values(&self, digest: &mut PartsDigest, config: &ReleaseConfig, path: &Path) {
        let made = self.fleet.made.get(&MadeKey::new(config, path));
        let (Some(made), Some((domain, _))) = (made, &config.domain_override) else {
            return digest.add(&self.fleet.file(config, path).content);
        };
        digest.add(made.digest_of_sources(config, path).as_bytes());
        digest.add(&self.fleet.values[domain].content);
    }
}
