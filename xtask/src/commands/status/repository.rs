//! A release beside the repository: what has changed since the commit that it was deployed from.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{
    charts::source,
    kubernetes::history::{self, Revision},
    machine::{process, tree::Tree},
    repository::{fleet::Fleet, jsonnet, release_config::ReleaseConfig},
};

/// How many commits HEAD has that this one does not have; `None` if git does not know the commit.
pub(super) fn behind(sh: &Shell, tree: &Tree, commit: &str) -> Option<u64> {
    let range = format!("{commit}..HEAD");
    let root = tree.root();
    let count = process::read(sh, cmd!(sh, "git -C {root} rev-list --count {range}"));
    count.ok()?.trim().parse().ok()
}

/// What is shown of a revision: its state in these words, who made it, and from what.
pub(super) fn shown(state: String, revision: &Revision, behind: Option<u64>) -> [String; 3] {
    let commit = shown_commit(revision, behind);
    [state, revision.who().to_owned(), commit]
}

/// `0123456789ab + changes (2 behind)`
fn shown_commit(revision: &Revision, behind: Option<u64>) -> String {
    let Some(commit) = revision.own_commit() else {
        return "-".to_owned();
    };
    let mut text = history::short(commit).to_owned();
    if revision.has_changes {
        text += " + changes";
    }
    if let Some(count) = behind.filter(|it| *it > 0) {
        text += &format!(" ({count} behind)");
    }
    text
}

/// `2026-01-31 12:00` for `2026-01-31T12:00:05Z`.
pub(super) fn to_the_minute(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}

/// The files of a release that are not as they were in a commit, from the root. An error if git cannot tell.
pub(super) fn changed_files(
    sh: &Shell,
    fleet: &Fleet,
    config: &ReleaseConfig,
    commit: &str,
) -> Result<BTreeSet<String>> {
    let tree = &fleet.tree;
    let mut paths: Vec<PathBuf> = config.values_files().map(PathBuf::from).collect();
    paths.extend(config.domain_override.iter().map(|(path, _)| path.clone()));
    paths.extend(jsonnet::sources(&fleet.made, config.cluster, config.hub).cloned());
    paths.push(config.cluster.file());
    paths.extend(config.chart.chart_override.clone());
    paths.extend(source::folders(tree, &config.chart));
    paths.extend(config.images().map(|it| it.image.path.clone()));
    let root = tree.root();
    let files = |what: &[&str]| -> Result<String> {
        let git = cmd!(
            sh,
            "git -C {root} --literal-pathspecs -c core.quotePath=false {what...} --"
        );
        process::read(sh, git.args(&paths))
    };
    let differing = files(&["diff", "--name-only", commit])
        .with_context(|| format!("git does not know commit `{}`", history::short(commit)))?;
    let new = files(&["ls-files", "--others", "--exclude-standard"])?;
    Ok(differing
        .lines()
        .chain(new.lines())
        .map(str::to_owned)
        .collect())
}
