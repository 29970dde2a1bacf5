//! The images of hubs that come from folders of the repository: each once, with the hubs that use it.

use std::{collections::BTreeSet, fmt};

use anyhow::{Result, ensure};
use xshell::Shell;

use crate::{
    kubernetes::rehearsal::{Rehearsal, registry},
    machine::tree::Tree,
    repository::{
        cluster::{Builder, Cluster, Hub, OwnImage},
        own_images,
    },
    services::registry::reference::Reference,
};

/// An image to build, once for all hubs that use it.
pub(crate) struct ImageToBuild<'a> {
    pub(crate) image: &'a OwnImage,
    /// The name under which it is pushed: its own, but for a rehearsal cluster that has a registry.
    name: String,
    /// With `-dirty` at its end if the folder has changes that no commit has.
    pub(crate) tag: String,
    pub(crate) is_dirty: bool,
    /// The hubs that use it.
    pub(crate) hubs: Vec<&'a str>,
}

/// What became of an image.
pub(crate) struct BuiltImage<'a> {
    pub(crate) image: &'a ImageToBuild<'a>,
    pub(crate) result: Result<Outcome>,
}

/// What was done for an image, and did not fail.
pub(crate) enum Outcome {
    NotBuilt,
    Built,
    Pushed {
        /// `sha256:…`
        digest: String,
    },
}

impl ImageToBuild<'_> {
    /// Its name with the tag.
    pub(crate) fn reference(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }

    /// What lines about it begin with.
    pub(super) fn short_name(&self) -> &str {
        let name = &self.image.name;
        name.rsplit('/').next().unwrap_or(name)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::NotBuilt => f.write_str("not built"),
            Outcome::Built => f.write_str("built"),
            Outcome::Pushed { digest } => write!(f, "pushed, {digest}"),
        }
    }
}

/// The images of these hubs of a cluster, each once. An error if hubs build images of the same name from something else, or if
/// a tag cannot be known.
pub(crate) fn of_hubs<'a>(
    sh: &Shell,
    tree: &Tree,
    cluster: &'a Cluster,
    hubs: &[&'a Hub],
) -> Result<Vec<ImageToBuild<'a>>> {
    let registry = registry_of_node(tree, cluster)?;
    let mut problems = refuse_differing(cluster);
    let mut images: Vec<ImageToBuild> = Vec::new();
    let mut failed = BTreeSet::new();
    for hub in hubs {
        for image in &hub.images {
            if let Some(known) = images.iter_mut().find(|it| it.image.name == image.name) {
                known.hubs.push(&hub.name);
                continue;
            }
            match ImageToBuild::of(sh, tree, image, &hub.name, registry) {
                Ok(image) => images.push(image),
                Err(err) if failed.insert(&image.name) => {
                    let hub = cluster.path_of(&hub.name);
                    problems.push(format!("{hub}: `{}`: {err:#}", image.name));
                }
                Err(_) => {}
            }
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(images)
}

/// The registry that the nodes of a rehearsal cluster pull all images from. None if it has none, or is another cluster.
pub(crate) fn registry_of_node(tree: &Tree, cluster: &Cluster) -> Result<Option<&'static str>> {
    if !cluster.is_local() {
        return Ok(None);
    }
    Rehearsal::of(tree.root(), cluster)?.registry()
}

/// The name under which an image is pushed: its own, or that in the registry of a node.
pub(crate) fn pushed_name(image: &OwnImage, registry: Option<&str>) -> Result<String> {
    let name = Reference::parse(&image.name)?;
    Ok(match registry {
        Some(registry) => format!("{registry}/{}", registry::repository(&name)),
        None => image.name.clone(),
    })
}

/// What is wrong where two images of a cluster have one name, and are not the same.
fn refuse_differing(cluster: &Cluster) -> Vec<String> {
    let mut seen: Vec<(&Hub, &OwnImage)> = Vec::new();
    let mut problems = Vec::new();
    for hub in &cluster.hubs {
        for image in &hub.images {
            match seen.iter().find(|(_, it)| it.name == image.name) {
                None => seen.push((hub, image)),
                Some((first, known)) if !is_same(cluster, known, image) => problems.push(format!(
                    "`{}` is built in two ways: for `{}` {}, and for `{}` {}\nhint: give one of them another name",
                    image.name,
                    first.name,
                    shown(known),
                    hub.name,
                    shown(image)
                )),
                Some(_) => {}
            }
        }
    }
    problems
}

fn is_same(cluster: &Cluster, a: &OwnImage, b: &OwnImage) -> bool {
    a.path == b.path
        && a.builder == b.builder
        && a.base_image == b.base_image
        && cluster.registry_of(a) == cluster.registry_of(b)
}

/// What an image is built from, and how.
fn shown(image: &OwnImage) -> String {
    let path = image.path.display();
    let base = image.base_image.as_ref();
    let base = base.map_or_else(String::new, |it| format!(" on `{it}`"));
    let builder = match image.builder {
        Builder::Docker => "docker",
        Builder::Repo2docker => "repo2docker",
    };
    let registry = match image.registry {
        None => "",
        Some(_) => ", with a `registry` of its own",
    };
    format!("from `{path}` by {builder}{base}{registry}")
}

impl<'a> ImageToBuild<'a> {
    fn of(
        sh: &Shell,
        tree: &Tree,
        image: &'a OwnImage,
        hub: &'a str,
        registry: Option<&str>,
    ) -> Result<ImageToBuild<'a>> {
        let name = pushed_name(image, registry)?;
        let tag = own_images::tag(sh, tree, &image.path)?;
        let is_dirty = own_images::is_dirty(sh, tree, &image.path)?;
        Ok(ImageToBuild {
            image,
            name,
            tag: if is_dirty { tag + "-dirty" } else { tag },
            is_dirty,
            hubs: vec![hub],
        })
    }
}
