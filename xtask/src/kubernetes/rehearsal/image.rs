//! The image for the real node, from the recipe in helm-charts/minihub/image: built once, and kept as containerd
//! unpacked it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::machine::{paths, process, programs};

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

/// Builds the image's folder unless it is there.
pub(crate) fn build(sh: &Shell, folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    programs::require_from_system(sh, programs::SYSTEM_FOR_IMAGES)?;
    let lock = folder.with_file_name("lock");
    let _lock = paths::lock(&lock, &format!("builds the {IMAGE}"))?;
    if folder.is_dir() {
        return Ok(());
    }
    let started = Instant::now();
    let part = folder.with_extension("part");
    remove_parts(folder)?;
    let built = write_recipe(&part)
        .with_context(|| format!("cannot make `{}`", part.display()))
        .and_then(|()| run_steps(sh, &part).with_context(|| format!("cannot build the {IMAGE}")));
    if let Err(err) = built {
        paths::remove_dir(&part)?;
        return Err(err);
    }
    fs::rename(part.join("containerd"), folder)?;
    paths::remove_dir(&part)?;
    say!("{IMAGE}: built in {} s", started.elapsed().as_secs());
    Ok(())
}

/// Removes the halves that processes left which were killed. For who holds the lock.
fn remove_parts(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder.parent().expect("it lies in images/"))?;
    for entry in entries.flatten() {
        if entry.path().extension().is_some_and(|it| it == "part") {
            paths::remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

fn write_recipe(part: &Path) -> io::Result<()> {
    let recipe = part.join("recipe");
    fs::create_dir_all(&recipe)?;
    for (name, content) in RECIPE {
        fs::write(recipe.join(name), content)?;
    }
    fs::write(part.join("image.sh"), SCRIPT)
}

fn run_steps(sh: &Shell, part: &Path) -> Result<()> {
    let steps = [
        ("debian", "installing Debian's packages"),
        ("install", "installing PyPI's and npm's packages"),
        ("import", "packing it, and unpacking it with containerd"),
    ];
    for (index, (step, doing)) in steps.iter().enumerate() {
        say!("{IMAGE} [{}/{}]: {doing} …", index + 1, steps.len());
        // unshare itself would ignore the SIGTERM that it gets when we die.
        process::read(
            sh,
            cmd!(
                sh,
                "setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child
                 sh {part}/image.sh {step} {part}"
            ),
        )?;
    }
    Ok(())
}

/// Removes the images of other recipes. No real node may be up meanwhile, which would be using one.
pub(crate) fn remove_others(folder: &Path) -> Result<()> {
    let images = folder.parent().expect("it lies in images/");
    let entries =
        fs::read_dir(images).with_context(|| format!("cannot read `{}`", images.display()))?;
    for entry in entries {
        let path = entry?.path();
        // One that is being built is called `.part`, and the lock is a file.
        if path != folder && path.is_dir() && path.extension().is_none() {
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

/// All that decides what the image holds, but for the versions of Debian's packages: it has the newest.
pub(crate) fn recipe() -> String {
    RECIPE
        .iter()
        .map(|(_, content)| *content)
        .chain([SCRIPT])
        .collect()
}
