//! Builds the images of a cluster's hubs that come from folders of the repository.

use std::process::ExitCode;

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{
    kubernetes::images::{self, BuildOptions},
    machine::{process, tree::Tree},
    repository::cluster::Cluster,
};

/// Build the images that hubs list as `images` in cluster.yaml
///
/// An image is built from a folder, by docker, podman or buildah. Its tag is the last commit that changed the folder. An image
/// that several hubs use is built once; one that fails does not stop the others.
#[derive(clap::Args)]
pub struct Build {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// Hubs whose images to build [default: all hubs]
    hubs: Vec<String>,
    /// Only the image of this name, as cluster.yaml has it
    #[arg(long = "image", value_name = "NAME")]
    images: Vec<String>,
    #[command(flatten)]
    options: BuildOptions,
}

/// Builds images. Fails if one of them did.
pub(super) fn build(sh: &Shell, tree: &Tree, args: &Build) -> Result<ExitCode> {
    process::end_in_order();
    let cluster = Cluster::load(tree, &args.cluster)?;
    let hubs = cluster.select_hubs(&args.hubs)?;
    let images = images::of_hubs(sh, tree, &cluster, &hubs)?;
    if images.is_empty() {
        bail!("no hub of `{}` has `images`", cluster.name);
    }
    images::build(sh, tree, &cluster, &images, &args.options)?;
    Ok(ExitCode::SUCCESS)
}
