//! The image for the real node, from the recipe in helm-charts/minihub/image: built once, and kept as containerd
//! unpacked it.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::{paths, process, setup};

const SCRIPT: &str = include_str!("node/image.sh");

/// helm-charts/minihub/image, compiled in, so that a repository without that chart has it too.
const RECIPE: [(&str, &str); 5] = [
    ("install.sh", include_str!("../../../helm-charts/minihub/image/install.sh")),
    ("package-lock.json", include_str!("../../../helm-charts/minihub/image/package-lock.json")),
    ("package.json", include_str!("../../../helm-charts/minihub/image/package.json")),
    ("packages", include_str!("../../../helm-charts/minihub/image/packages")),
    ("requirements.txt", include_str!("../../../helm-charts/minihub/image/requirements.txt")),
];

/// The folder with what containerd made of the image, built unless it's there. Nobody else builds meanwhile: the
/// caller holds the lock on rehearsal clusters.
pub(super) fn provide(sh: &Shell) -> Result<PathBuf> {
    let folder = folder(sh)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    setup::refuse_without(sh, setup::SYSTEM_FOR_IMAGES)?;
    let images = folder.parent().expect("it lies in images/");
    // Nobody has a real node now, so an older image isn't in use.
    paths::remove_dir(images)?;
    let part = images.join(".part");
    fs::create_dir_all(part.join("recipe")).with_context(|| format!("cannot make `{}`", part.display()))?;
    for (name, content) in RECIPE {
        fs::write(part.join("recipe").join(name), content)?;
    }
    let started = Instant::now();
    let steps = [
        ("debian", "Debian's packages"),
        ("install", "PyPI's and npm's packages"),
        ("import", "packing it, and unpacking it by containerd"),
    ];
    for (index, (step, doing)) in steps.iter().enumerate() {
        say!("image of hub, proxy and users' servers [{}/{}]: {doing} …", index + 1, steps.len());
        process::read(
            sh,
            cmd!(sh, "unshare --mount --pid --fork --kill-child sh -c {SCRIPT} sh {step} {part}"),
        )
        .context("cannot build the image of hub, proxy and users' servers")?;
    }
    fs::rename(part.join("containerd"), &folder)?;
    paths::remove_dir(&part)?;
    say!("image of hub, proxy and users' servers: built in {} s", started.elapsed().as_secs());
    Ok(folder)
}

/// Named for what goes into it, and for the containerd that unpacked it.
fn folder(sh: &Shell) -> Result<PathBuf> {
    let containerd = process::read(sh, cmd!(sh, "containerd --version"))?;
    let hash = Sha256::digest(containerd + &recipe());
    Ok(paths::cache()?.join("images").join(paths::hex(&hash[..6])))
}

/// All that decides what the image holds. Of Debian's packages it has the newest.
pub(super) fn recipe() -> String {
    RECIPE.iter().map(|(_, content)| *content).chain([SCRIPT]).collect()
}
