//! The image for the real node, from the recipe in helm-charts/minihub/image: built once, and kept as containerd
//! unpacked it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::machine::{paths, process, programs};

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

/// Builds the image's folder unless it's there.
pub(crate) fn build(sh: &Shell, folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    programs::refuse_without(sh, programs::SYSTEM_FOR_IMAGES)?;
    let _lock = paths::lock(
        &folder.with_file_name("lock"),
        "builds the image of hub, proxy and users' servers",
    )?;
    if folder.is_dir() {
        return Ok(());
    }
    let part = folder.with_extension("part");
    paths::remove_dir(&part)?;
    fs::create_dir_all(part.join("recipe"))
        .with_context(|| format!("cannot make `{}`", part.display()))?;
    for (name, content) in RECIPE {
        fs::write(part.join("recipe").join(name), content)?;
    }
    fs::write(part.join("image.sh"), SCRIPT)?;
    let started = Instant::now();
    let steps = [
        ("debian", "Debian's packages"),
        ("install", "PyPI's and npm's packages"),
        ("import", "packing it, and unpacking it by containerd"),
    ];
    for (index, (step, doing)) in steps.iter().enumerate() {
        say!(
            "image of hub, proxy and users' servers [{}/{}]: {doing} …",
            index + 1,
            steps.len()
        );
        // unshare itself wouldn't mind the SIGTERM that comes when we die.
        process::read(
            sh,
            cmd!(
                sh,
                "setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child
                 sh {part}/image.sh {step} {part}"
            ),
        )
        .context("cannot build the image of hub, proxy and users' servers")?;
    }
    fs::rename(part.join("containerd"), folder)?;
    paths::remove_dir(&part)?;
    say!(
        "image of hub, proxy and users' servers: built in {} s",
        started.elapsed().as_secs()
    );
    Ok(())
}

/// Removes the images of other recipes. Nobody may have a real node meanwhile, which would be using one.
pub(crate) fn remove_others(folder: &Path) -> Result<()> {
    let images = folder.parent().expect("it lies in images/");
    for entry in
        fs::read_dir(images).with_context(|| format!("cannot read `{}`", images.display()))?
    {
        let path = entry?.path();
        // One that is being built is a `.part`, and the lock is a file.
        if path != folder && path.is_dir() && path.extension().is_none() {
            paths::remove_dir(&path)?;
        }
    }
    Ok(())
}

/// Where the image lies, built or not: named for what goes into it, and for the containerd that unpacks it.
pub(crate) fn folder(sh: &Shell) -> Result<PathBuf> {
    let containerd = process::read(sh, cmd!(sh, "containerd --version"))?;
    let hash = Sha256::digest(containerd + &recipe());
    Ok(paths::cache()?.join("images").join(paths::hex(&hash[..6])))
}

/// All that decides what the image holds. Of Debian's packages it has the newest.
pub(crate) fn recipe() -> String {
    RECIPE
        .iter()
        .map(|(_, content)| *content)
        .chain([SCRIPT])
        .collect()
}
