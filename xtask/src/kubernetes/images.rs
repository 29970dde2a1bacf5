//! Building the images of hubs that come from folders of the repository, and pushing them.

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{
    machine::tree::Tree,
    repository::cluster::{Cluster, Hub, OwnImage},
};

/// What is built of the images that somebody asks for, and how.
#[derive(clap::Args, Default)]
pub(crate) struct BuildOptions {
    /// Push each image that was built to its registry
    #[arg(long)]
    pub(crate) push: bool,
    /// Build an image only if its registry does not have it with this tag
    #[arg(long)]
    pub(crate) check_registry: bool,
    /// Build an image only if these commits changed its folder, as `A...B` or `A..B` [default without RANGE: those of the push
    /// or pull request on GitHub or GitLab]. With `--check-registry`, either reason is enough
    #[arg(long, value_name = "RANGE", num_args = 0..=1, default_missing_value = "")]
    pub(crate) commit_range: Option<String>,
    /// Build without what is known of earlier builds
    #[arg(long)]
    pub(crate) no_cache: bool,
}

/// An image to build, once for all hubs that use it.
pub(crate) struct ImageToBuild<'a> {
    pub(crate) image: &'a OwnImage,
    /// With `-dirty` at its end if the folder has changes that no commit has.
    pub(crate) tag: String,
    /// The hubs that use it.
    pub(crate) hubs: Vec<&'a str>,
}

/// What became of an image.
pub(crate) struct BuiltImage<'a> {
    pub(crate) image: &'a ImageToBuild<'a>,
    pub(crate) result: Result<Outcome>,
}

pub(crate) enum Outcome {
    /// It need not be built; why.
    NotBuilt(String),
    Built,
    Pushed {
        digest: String,
    },
}

/// The images of these hubs of a cluster, each once. An error if hubs build images of the same name from something else, or if
/// a tag cannot be known.
pub(crate) fn of_hubs<'a>(
    _sh: &Shell,
    _tree: &Tree,
    _cluster: &'a Cluster,
    _hubs: &[&'a Hub],
) -> Result<Vec<ImageToBuild<'a>>> {
    bail!("not built yet")
}

/// Builds images, one after another, and pushes them if that is asked for. One that fails does not stop the others. An error
/// if nothing can be built at all, such as without an engine.
pub(crate) fn build<'a>(
    _sh: &Shell,
    _tree: &Tree,
    _cluster: &Cluster,
    _images: &'a [ImageToBuild<'a>],
    _options: &BuildOptions,
) -> Result<Vec<BuiltImage<'a>>> {
    bail!("not built yet")
}
