//! Images that are built from folders of the repository: their tags.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::{
    machine::{paths, process, tree::Tree},
    yaml,
};

/// How many digits of a commit's hash a tag has.
const SHORT: usize = 7;

/// The tag of the image that is built from a folder, by its path from the root: the last commit that changed it. It is
/// lengthened until YAML reads it as a text, since `1234567` and `12345e6` are numbers.
///
/// # Errors
///
/// If no commit has the folder, or the clone is too shallow to know the last one.
pub(crate) fn tag(sh: &Shell, tree: &Tree, folder: &Path) -> Result<String> {
    let shown = folder.display();
    let sh = sh.clone();
    sh.change_dir(tree.root());
    let commit = process::read(
        &sh,
        cmd!(sh, "git log --max-count=1 --format=%H -- {folder}"),
    )?;
    let commit = commit.trim();
    ensure!(
        !commit.is_empty(),
        "no commit has `{shown}`, and an image's tag is the last commit that changed its folder\nhint: commit it"
    );
    refuse_end_of_shallow(&sh, commit)?;
    (SHORT..=commit.len())
        .map(|length| &commit[..length])
        .find(|tag| is_text(tag))
        .map(str::to_owned)
        .with_context(|| format!("commit {commit} is a number"))
}

/// Whether the folder has changes that no commit has, also new files that git does not ignore.
pub(crate) fn is_dirty(sh: &Shell, tree: &Tree, folder: &Path) -> Result<bool> {
    let sh = sh.clone();
    sh.change_dir(tree.root());
    let status = process::read(&sh, cmd!(sh, "git status --porcelain -- {folder}"))?;
    Ok(!status.trim().is_empty())
}

/// An error if a shallow clone ends with this commit: it seems to have changed everything.
fn refuse_end_of_shallow(sh: &Shell, commit: &str) -> Result<()> {
    let file = process::read(sh, cmd!(sh, "git rev-parse --git-path shallow"))?;
    let ends = sh.read_file(paths::lexical(&sh.current_dir().join(file.trim())));
    let ends = ends.unwrap_or_default();
    ensure!(
        !ends.lines().any(|it| it == commit),
        "this clone is shallow: it does not have the commit that an image's tag is named after\n\
         hint: `git fetch --unshallow`, or in a workflow `fetch-depth: 0`"
    );
    Ok(())
}

fn is_text(tag: &str) -> bool {
    yaml::read_value(tag).is_ok_and(|it| it.as_text().is_some())
}
