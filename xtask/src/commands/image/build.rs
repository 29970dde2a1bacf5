//! Builds the images of a cluster's hubs that come from folders of the repository.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::{Result, bail, ensure};
use xshell::Shell;

use crate::{
    kubernetes::images::{
        builds::{self, BuildOptions},
        to_build::{self, BuiltImage, ImageToBuild},
    },
    machine::{
        process,
        terminal::{self, hint_of_name, list, nearest},
        tree::Tree,
    },
    repository::cluster::Cluster,
};

/// Build the images that hubs list as `images` in cluster.yaml
///
/// An image is built from a folder, by docker, podman or buildah, whichever works. Its tag is the last commit that changed the
/// folder. An image that several hubs use is built once; one that fails does not stop the others.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask image build lake                           build the images of all hubs of lake\n\
\x20 cargo xtask image build lake prod --push               build and push those of lake's hub prod\n\
\x20 cargo xtask image build lake --check-registry --push   build and push what the registry lacks")]
pub struct Build {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// Hubs whose images to build [default: all hubs]
    hubs: Vec<String>,
    /// Only the image of this name, as cluster.yaml has it
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    #[command(flatten)]
    options: BuildOptions,
}

/// Builds images. Fails if one of them did.
pub(super) fn build(sh: &Shell, tree: &Tree, args: &Build) -> Result<ExitCode> {
    process::end_in_order();
    let cluster = Cluster::load(tree, &args.cluster)?;
    let hubs = cluster.select_hubs(&args.hubs)?;
    let images = to_build::of_hubs(sh, tree, &cluster, &hubs)?;
    if images.is_empty() {
        let hubs = list(hubs.iter().map(|it| &it.name));
        bail!(
            "of the hubs of `{}`, these have no `images`: {hubs}",
            cluster.name
        );
    }
    let images = named(images, args.image.as_deref())?;
    let built = builds::build(sh, tree, &cluster, &images, &args.options)?;
    report(&cluster, &built)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what became of the images. An error that names the hubs of those that failed.
fn report(cluster: &Cluster, built: &[BuiltImage]) -> Result<()> {
    let mut text = String::new();
    let mut failed = Vec::new();
    let mut hubs = BTreeSet::new();
    for BuiltImage { image, result } in built {
        let reference = image.reference();
        match result {
            Ok(outcome) => text += &format!("{reference} {outcome}\n"),
            Err(_) => {
                text += &format!("{reference} failed\n");
                failed.push(reference);
                hubs.extend(image.hubs.iter().map(|it| cluster.path_of(it)));
            }
        }
    }
    terminal::print(&text)?;
    ensure!(
        failed.is_empty(),
        "{} failed; used by {}",
        list(failed),
        list(hubs)
    );
    Ok(())
}

/// The image of this name, or all of them without one.
fn named<'a>(
    mut images: Vec<ImageToBuild<'a>>,
    name: Option<&str>,
) -> Result<Vec<ImageToBuild<'a>>> {
    let Some(name) = name else {
        return Ok(images);
    };
    let known: Vec<_> = images.iter().map(|it| it.image.name.clone()).collect();
    images.retain(|it| it.image.name == name);
    if images.is_empty() {
        let hint = hint_of_name(nearest(name, known.iter().map(String::as_str)));
        bail!(
            "there is no image `{name}`; there are: {}{hint}",
            list(&known)
        );
    }
    Ok(images)
}
