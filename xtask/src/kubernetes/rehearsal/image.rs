//! The images for a real node: made once, and kept in the cache.
//!
//! minihub's is made from the recipe in helm-charts/minihub/image, and kept as containerd unpacked it, so that a node that
//! comes up has it at once. The node's registry has it, too.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::rehearsal::layout::{Layout, NewImage},
    machine::{paths, process, programs},
};

/// The name of the image in messages.
const IMAGE: &str = "image of hub, proxy and users' servers";

const SCRIPT: &str = include_str!("node/image.sh");

/// helm-charts/minihub/image, compiled in, so that a repository without that chart has it too.
const RECIPE: [(&str, &str); 5] = [
    (
        "install.sh",
        include_str!("../../../../helm-charts/minihub/image/install.sh"),
    ),
    (
        "package-lock.json",
        include_str!("../../../../helm-charts/minihub/image/package-lock.json"),
    ),
    (
        "package.json",
        include_str!("../../../../helm-charts/minihub/image/package.json"),
    ),
    (
        "packages",
        include_str!("../../../../helm-charts/minihub/image/packages"),
    ),
    (
        "requirements.txt",
        include_str!("../../../../helm-charts/minihub/image/requirements.txt"),
    ),
];

/// minihub's image, and the one that keeps a pod's network.
const IMAGES: [NewImage; 2] = [
    NewImage {
        name: "localhost/xtask/minihub:1",
        user: "1000",
        folder: "/home/jovyan",
        path: "/opt/minihub/bin:/usr/local/bin:/usr/bin:/bin",
        entrypoint: &["tini", "--"],
        command: &["jupyterhub-singleuser"],
    },
    NewImage {
        name: "localhost/xtask/pause:1",
        user: "1000",
        folder: "/",
        path: "/usr/bin:/bin",
        entrypoint: &["sleep"],
        command: &["infinity"],
    },
];

/// Builds the image's folder unless it is there.
pub(crate) fn build(sh: &Shell, folder: &Path) -> Result<()> {
    paths::made_once(folder, &format!("builds the {IMAGE}"), |part| {
        programs::require_from_system(sh, programs::SYSTEM_FOR_IMAGES)?;
        let started = Instant::now();
        build_in(sh, part).with_context(|| format!("cannot build the {IMAGE}"))?;
        say!("{IMAGE}: built in {} s", started.elapsed().as_secs());
        Ok(())
    })
}

fn build_in(sh: &Shell, part: &Path) -> Result<()> {
    write_recipe(part, &RECIPE)?;
    let steps = Steps {
        sh,
        part,
        image: IMAGE,
        count: 4,
    };
    steps.run(1, "installing Debian's packages", "debian", &[])?;
    steps.run(2, "installing PyPI's and npm's packages", "install", &[])?;
    steps.run(3, "packing it", "pack", &[])?;
    Layout::at(part).write(&[layer(part)?], &architecture(part)?, &IMAGES)?;
    steps.run(4, "unpacking it with containerd", "unpack", &[])?;
    remove_sources(part)
}

/// Removes what an image was made from.
pub(crate) fn remove_sources(part: &Path) -> Result<()> {
    paths::remove_dir(&part.join("rootfs"))?;
    paths::remove_dir(&part.join("recipe"))
}

/// The digest of the layer that was made in a folder.
pub(crate) fn layer(folder: &Path) -> Result<String> {
    Ok(fs::read_to_string(folder.join("layer"))?)
}

/// The architecture of the programs in that layer.
pub(crate) fn architecture(folder: &Path) -> Result<String> {
    Ok(fs::read_to_string(folder.join("architecture"))?)
}

/// The folder of the files of minihub's image.
pub(crate) fn files_of(folder: &Path) -> Result<PathBuf> {
    let snapshots = folder.join("containerd/io.containerd.snapshotter.v1.overlayfs/snapshots");
    let mut entries = fs::read_dir(&snapshots)
        .with_context(|| format!("cannot read `{}`", snapshots.display()))?;
    let only = entries.next().context("the image has no layer")??;
    Ok(only.path().join("fs"))
}

/// Writes what an image is made from into the folder that it is made in.
pub(crate) fn write_recipe(part: &Path, recipe: &[(&str, &str)]) -> Result<()> {
    let folder = part.join("recipe");
    fs::create_dir_all(&folder)?;
    for (name, content) in recipe {
        fs::write(folder.join(name), content)?;
    }
    fs::write(part.join("image.sh"), SCRIPT)?;
    Ok(())
}

/// The steps of node/image.sh, in the folder that an image is made in.
pub(crate) struct Steps<'a> {
    pub(crate) sh: &'a Shell,
    pub(crate) part: &'a Path,
    /// The image in messages.
    pub(crate) image: &'a str,
    pub(crate) count: u32,
}

impl Steps<'_> {
    pub(crate) fn run(&self, number: u32, doing: &str, step: &str, args: &[&Path]) -> Result<()> {
        say!("{} [{number}/{}]: {doing} …", self.image, self.count);
        let sh = self.sh;
        let part = self.part;
        // unshare itself would ignore the SIGTERM that it gets when we die.
        let cmd = cmd!(
            sh,
            "setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child
             sh {part}/image.sh {step} {part} {args...}"
        );
        process::read(sh, cmd).map(|_| ())
    }
}

/// Removes the images of other recipes. No real node may be up meanwhile, which would be using one.
pub(crate) fn remove_others(folder: &Path) -> Result<()> {
    let images = folder.parent().expect("it lies in images/");
    let entries =
        fs::read_dir(images).with_context(|| format!("cannot read `{}`", images.display()))?;
    for entry in entries {
        let path = entry?.path();
        // One that is being built is called `.NAME.part`, and `locks` are of those.
        let is_image = path.is_dir() && path.extension().is_none() && !path.ends_with("locks");
        if is_image && path != folder {
            paths::remove_dir(&path)?;
        }
    }
    Ok(())
}

/// The image's folder, built or not. Its name is a hash of what goes into it, and of the containerd that unpacks it.
pub(crate) fn folder(sh: &Shell) -> Result<PathBuf> {
    let containerd = process::read(sh, cmd!(sh, "containerd --version"))?;
    let hash = Sha256::digest(containerd + &recipe());
    Ok(paths::cache()?.join("images").join(paths::hex(&hash[..6])))
}

/// All that decides what the images hold, but for the versions of Debian's packages: they have the newest.
pub(crate) fn recipe() -> String {
    let files = RECIPE.iter().map(|(_, content)| (*content).to_owned());
    let configs = IMAGES.iter().map(NewImage::recipe);
    files.chain(configs).chain([SCRIPT.to_owned()]).collect()
}
