//! The images that the charts of Zero to JupyterHub and Dask Gateway name, for a real node, which cannot reach the registries
//! that have them: made here from PyPI, npm and Debian when a release needs the first one, and kept in the cache.
//!
//! All of them have the same two layers: that of minihub's image, and one more.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use xshell::Shell;

use crate::{
    kubernetes::{
        manifests,
        rehearsal::{
            image::{self, Steps},
            layout::{Layout, NewImage},
            node, registry, room,
        },
    },
    machine::{paths, programs, terminal::list},
    services::registry::reference::Reference,
};

/// The name of the images in messages.
const IMAGES_OF_CHARTS: &str = "images of z2jh and Dask Gateway";

/// What is added to minihub's image.
const RECIPE: [(&str, &str); 4] = [
    ("image-awaiter", include_str!("node/z2jh/image-awaiter")),
    ("install.sh", include_str!("node/z2jh/install.sh")),
    ("packages", include_str!("node/z2jh/packages")),
    (
        "requirements.txt",
        include_str!("node/z2jh/requirements.txt"),
    ),
];

const HUB: NewImage = NewImage {
    name: "quay.io/jupyterhub/k8s-hub",
    user: "1000",
    folder: "/srv/jupyterhub",
    path: "/opt/z2jh/bin:/opt/minihub/bin:/usr/local/bin:/usr/bin:/bin",
    entrypoint: &["tini", "--"],
    command: &[
        "jupyterhub",
        "--config",
        "/usr/local/etc/jupyterhub/jupyterhub_config.py",
    ],
};

const SERVER: NewImage = NewImage {
    name: "quay.io/jupyterhub/k8s-singleuser-sample",
    folder: "/home/jovyan",
    command: &["jupyterhub-singleuser"],
    ..HUB
};

const TOOL: NewImage = NewImage {
    name: "quay.io/jupyterhub/k8s-network-tools",
    user: "0",
    folder: "/",
    path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    entrypoint: &[],
    command: &["sh"],
};

const IMAGES: [NewImage; 10] = [
    HUB,
    SERVER,
    // What basehub gives users, in place of hundreds of packages.
    NewImage {
        name: "quay.io/jupyter/scipy-notebook",
        ..SERVER
    },
    TOOL,
    NewImage {
        name: "quay.io/jupyterhub/k8s-image-awaiter",
        user: "1000",
        ..TOOL
    },
    NewImage {
        name: "quay.io/jupyterhub/configurable-http-proxy",
        command: &["configurable-http-proxy"],
        ..HUB
    },
    NewImage {
        name: "registry.k8s.io/pause",
        entrypoint: &["sleep"],
        command: &["infinity"],
        ..TOOL
    },
    NewImage {
        name: "registry.k8s.io/kube-scheduler",
        ..TOOL
    },
    NewImage {
        name: "ghcr.io/dask/dask-gateway-server",
        folder: "/",
        command: &["dask-gateway-server"],
        ..HUB
    },
    NewImage {
        name: "ghcr.io/dask/dask-gateway",
        ..SERVER
    },
];

/// Gives the node's registry those images of a release that are made here, under the tags that the release names.
pub(crate) fn provide(sh: &Shell, release: &str, manifest: &str) -> Result<()> {
    let storage = node::storage_of_machine()?;
    let wanted = images_in(manifest).into_iter().filter(|image| {
        // One with a digest is exactly that one.
        let is_made_here = image.digest.is_none() && IMAGES.iter().any(|it| it.name == image.name);
        is_made_here && !storage.has(&registry::repository(image), registry::tag(image))
    });
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let layout = Layout::at(&build(sh)?);
    storage.add_blobs(&layout)?;
    for (name, manifest) in layout.manifests()? {
        for image in wanted.iter().filter(|it| it.name == name) {
            storage.tag(
                &registry::repository(image),
                registry::tag(image),
                &manifest,
            )?;
        }
    }
    let tagged = wanted.iter().map(Reference::to_string);
    say!(
        "{release}: the node's registry has {}, made here",
        list(tagged)
    );
    Ok(())
}

/// All images that a release names, in its manifest and in the values that charts hand to the hub in a Secret.
fn images_in(manifest: &str) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    for document in manifests::documents(manifest) {
        // helm says what is wrong with a manifest.
        for object in manifests::taken_apart(document.object().cloned()) {
            add_images(&object, &mut found);
            if object["kind"] == "Secret" {
                room::values_in(&object)
                    .iter()
                    .for_each(|it| add_images(it, &mut found));
            }
        }
    }
    found
}

/// Adds the images in a part of an object or of values: a text, or a name with a tag.
fn add_images(part: &Value, found: &mut BTreeSet<Reference>) {
    match part {
        Value::Array(items) => items.iter().for_each(|it| add_images(it, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                let image = match (value["name"].as_str(), value["tag"].as_str()) {
                    (Some(name), Some(tag)) => Some(format!("{name}:{tag}")),
                    _ => value.as_str().map(str::to_owned),
                };
                if key == "image" {
                    found.extend(image.and_then(|it| Reference::parse(&it).ok()));
                }
                add_images(value, found);
            }
        }
        _ => {}
    }
}

/// The folder of the images, which are built unless they are there.
fn build(sh: &Shell) -> Result<PathBuf> {
    let sh = &node::system(sh, programs::SYSTEM_FOR_IMAGES)?;
    let sh = programs::provide(sh, &["kube-scheduler"], true)?;
    let base = image::folder(sh.sh())?;
    let folder = folder(&base)?;
    let work = format!("builds the {IMAGES_OF_CHARTS}");
    paths::made_once(&folder, &work, |part| {
        let started = Instant::now();
        build_in(sh.sh(), part, &base)
            .with_context(|| format!("cannot build the {IMAGES_OF_CHARTS}"))?;
        let seconds = started.elapsed().as_secs();
        say!("{IMAGES_OF_CHARTS}: built in {seconds} s");
        Ok(())
    })?;
    image::remove_others(&folder)?;
    Ok(folder)
}

/// Its name is a hash of what the images are made from.
fn folder(base: &Path) -> Result<PathBuf> {
    let mut recipe = format!("{} {}", base.display(), programs::KUBERNETES);
    recipe.extend(RECIPE.map(|(_, content)| content));
    recipe.extend(IMAGES.iter().map(NewImage::recipe));
    let hash = paths::hex(&Sha256::digest(recipe)[..6]);
    Ok(paths::cache()?.join("chart-images").join(hash))
}

fn build_in(sh: &Shell, part: &Path, base: &Path) -> Result<()> {
    image::write_recipe(part, &RECIPE)?;
    let scheduler = programs::find(sh, "kube-scheduler")?;
    fs::copy(scheduler, part.join("recipe/kube-scheduler"))?;
    let steps = Steps {
        sh,
        part,
        image: IMAGES_OF_CHARTS,
        count: 3,
    };
    let files = image::files_of(base)?;
    steps.run(1, "copying minihub's image", "copy", &[&files])?;
    steps.run(2, "installing packages of Debian and PyPI", "install", &[])?;
    steps.run(3, "packing them", "pack", &[])?;
    let below = image::layer(base)?;
    let layout = Layout::at(part);
    layout.link(&Layout::at(base), &below)?;
    let architecture = image::architecture(base)?;
    layout.write(&[below, image::layer(part)?], &architecture, &IMAGES)?;
    image::remove_sources(part)
}
