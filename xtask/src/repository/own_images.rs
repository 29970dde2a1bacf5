//! Images that are built from folders of the repository: their tags.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    machine::{
        paths, process,
        tree::{Tree, versions::is_shallow},
    },
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
    let real = real(tree, folder)?;
    let sh = in_root(sh, tree);
    let commits = commits(&sh, &real, 1)?;
    let commit = commits.first().with_context(|| {
        format!(
            "no commit has `{}`, and an image's tag is the last commit that changed its folder\n\
             hint: commit it; a submodule has commits of this repository only as a whole",
            real.display()
        )
    })?;
    refuse_end_of_shallow(&sh, folder, commit)?;
    let tag = text_of(commit);
    tag.with_context(|| format!("commit {commit} is a number"))
}

/// The tags that the image of this folder had before, the newest first, as far as the clone has their commits.
pub(crate) fn earlier_tags(
    sh: &Shell,
    tree: &Tree,
    folder: &Path,
    tag: &str,
    most: usize,
) -> Result<Vec<String>> {
    let commits = commits(&in_root(sh, tree), &real(tree, folder)?, most + 1)?;
    let mut tags: Vec<_> = commits.iter().filter_map(|it| text_of(it)).collect();
    tags.retain(|it| it != tag);
    tags.truncate(most);
    Ok(tags)
}

/// Whether the folder has files that git ignores.
pub(crate) fn has_ignored(sh: &Shell, tree: &Tree, folder: &Path) -> Result<bool> {
    let real = real(tree, folder)?;
    let sh = in_root(sh, tree);
    let options = ["--others", "--ignored", "--exclude-standard"];
    let listed = process::read(
        &sh,
        cmd!(
            sh,
            "git --literal-pathspecs ls-files {options...} -- {real}"
        ),
    )?;
    Ok(!listed.trim().is_empty())
}

/// Whether the folder has changes that no commit has, also new files that git does not ignore.
pub(crate) fn is_dirty(sh: &Shell, tree: &Tree, folder: &Path) -> Result<bool> {
    let folders = [pathspec(folder), real(tree, folder)?];
    let sh = in_root(sh, tree);
    // The person's own settings may leave these out.
    let all = ["--untracked-files=normal", "--ignore-submodules=none"];
    let git = ["--no-optional-locks", "--literal-pathspecs"];
    let status = process::read(
        &sh,
        cmd!(
            sh,
            "git {git...} status --porcelain {all...} -- {folders...}"
        ),
    )?;
    Ok(!status.trim().is_empty())
}

/// An error if git does not know all commits of a range, which is `A...B` or `A..B`.
pub(crate) fn refuse_unknown(sh: &Shell, tree: &Tree, range: &str) -> Result<()> {
    ensure!(
        range.contains("..") && !range.starts_with('-'),
        "`{range}` is no range of commits\nhint: `--commit-range main...HEAD`"
    );
    let sh = in_root(sh, tree);
    if process::read(&sh, cmd!(sh, "git diff --shortstat {range} --")).is_ok() {
        return Ok(());
    }
    let why = if is_shallow(&sh) == Some(true) {
        ", which is shallow\nhint: `git fetch --unshallow`, or in a workflow `fetch-depth: 0`"
    } else {
        "\nhint: `git fetch origin` first?"
    };
    bail!("this clone does not have all commits of `{range}`{why}")
}

/// Whether commits changed something in the folder: those of a range that git knows.
pub(crate) fn is_changed_by(sh: &Shell, tree: &Tree, range: &str, folder: &Path) -> Result<bool> {
    let folders = [pathspec(folder), real(tree, folder)?];
    let sh = in_root(sh, tree);
    let all = ["--name-only", "--no-renames", "--ignore-submodules=none"];
    let diff = cmd!(
        sh,
        "git --literal-pathspecs diff {all...} {range} -- {folders...}"
    );
    Ok(!process::read(&sh, diff)?.trim().is_empty())
}

fn in_root(sh: &Shell, tree: &Tree) -> Shell {
    let sh = sh.clone();
    sh.change_dir(tree.root());
    sh
}

/// Where a folder is when links on the way to it are followed, as git is told it.
fn real(tree: &Tree, folder: &Path) -> Result<PathBuf> {
    let shown = folder.display();
    let found = tree.find(folder).with_context(|| format!("`{shown}`"))?;
    match found {
        Some(found) if tree.is_folder(folder) => Ok(pathspec(&found.path)),
        Some(_) => bail!("`{shown}` is a file, and an image is built from a folder"),
        None => bail!("`{shown}` doesn't exist, and an image is built from it"),
    }
}

/// A path from the root as git wants it, which takes no empty one.
fn pathspec(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        path.to_owned()
    }
}

/// The hashes of the last commits that changed a folder. What is in the folder now is as the first one left it.
fn commits(sh: &Shell, folder: &Path, most: usize) -> Result<Vec<String>> {
    let most = format!("--max-count={most}");
    // Unlike `git log`, it heeds no settings of the person's own.
    let list = cmd!(
        sh,
        "git --literal-pathspecs rev-list {most} HEAD -- {folder}"
    );
    let commits = process::read(sh, list)?;
    Ok(commits.lines().map(str::to_owned).collect())
}

/// An error if a shallow clone ends with this commit: it seems to have changed everything.
fn refuse_end_of_shallow(sh: &Shell, folder: &Path, commit: &str) -> Result<()> {
    let file = process::read(sh, cmd!(sh, "git rev-parse --git-path shallow"))?;
    let ends = sh.read_file(paths::lexical(&sh.current_dir().join(file.trim())));
    let ends = ends.unwrap_or_default();
    ensure!(
        !ends.lines().any(|it| it == commit),
        "this clone is shallow: it does not have the last commit that changed `{}`, after which the image's tag is named\n\
         hint: `git fetch --unshallow`, or in a workflow `fetch-depth: 0`",
        folder.display()
    );
    Ok(())
}

/// The beginning of a commit's hash that is a tag.
fn text_of(commit: &str) -> Option<String> {
    let mut lengths = SHORT..=commit.len();
    let length = lengths.find(|it| is_text(&commit[..*it]))?;
    Some(commit[..length].to_owned())
}

/// Other readers than helm's also take for a number what is too large for one, such as `12e7597`.
fn is_text(tag: &str) -> bool {
    let read = yaml::parse::<Value>(tag.as_bytes());
    read.is_ok_and(|it| it.is_string()) && tag.parse::<f64>().is_err()
}
