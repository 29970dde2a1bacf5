//! Who deploys what: each revision of a release in the cluster carries it.

use std::path::{Path, PathBuf};

use xshell::{Cmd, Shell, cmd};

use crate::{
    kubernetes::history::{Revision, label},
    machine::{process, workflow::variable},
};

/// What one run leaves with every release that it upgrades.
pub(crate) struct Record {
    root: PathBuf,
    /// None outside of git.
    commit: Option<String>,
    /// Whether there is something in the work tree that the commit doesn't have.
    is_changed: bool,
    actor: String,
    /// The address of the workflow's or pipeline's run.
    run: Option<String>,
    /// Why hubs are deployed although staging hubs are not ready.
    pub(crate) ignore_staging: Option<String>,
}

impl Record {
    pub(crate) fn new(sh: &Shell, root: &Path) -> Record {
        let commit = read(sh, cmd!(sh, "git -C {root} rev-parse HEAD"));
        let changes = commit
            .as_ref()
            .and_then(|_| read(sh, cmd!(sh, "git -C {root} status --porcelain")));
        Record {
            root: root.to_owned(),
            commit,
            is_changed: changes.is_some_and(|it| !it.is_empty()),
            actor: actor(sh),
            run: run_on_github().or_else(|| variable("CI_JOB_URL")),
            ignore_staging: None,
        }
    }

    pub(crate) fn actor(&self) -> &str {
        &self.actor
    }

    pub(crate) fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// Says what the person should know before it is recorded.
    pub(crate) fn warn(&self) {
        if self.is_changed {
            say!(
                "the work tree has changes that are in no commit: this is recorded with the releases"
            );
        }
    }

    /// Whether this commit comes before another one. Not so if git doesn't know that one.
    pub(crate) fn is_older_than(&self, sh: &Shell, other: &str) -> bool {
        let (Some(commit), root) = (self.commit.as_deref().filter(|it| *it != other), &self.root)
        else {
            return false;
        };
        process::read(
            sh,
            cmd!(
                sh,
                "git -C {root} merge-base --is-ancestor {commit} {other}"
            ),
        )
        .is_ok()
    }

    /// For people who look at the release's history: 256 characters at most, as helm wants it.
    pub(crate) fn description(&self, what: &str) -> String {
        let mut parts = vec![format!("{what} by {}", self.actor)];
        if let Some(commit) = &self.commit {
            let changed = if self.is_changed {
                " with changes that are in no commit"
            } else {
                ""
            };
            let short = &commit[..commit.len().min(12)];
            parts.push(format!("commit {short}{changed}"));
        }
        parts.extend(self.run.clone());
        let ignored = self.ignore_staging.as_ref();
        parts.extend(ignored.map(|it| format!("staging ignored: {it}")));
        shortened(parts.join(", "))
    }

    /// For `helm upgrade`, which is to make another revision after this one on the cluster of this name.
    pub(crate) fn flags(&self, before: Option<&Revision>, cluster: &str) -> Vec<String> {
        let mut labels = vec![
            format!("xtask={}", before.map_or(1, |it| it.number + 1)),
            format!("cluster={}", label(cluster)),
            format!("actor={}", label(&self.actor)),
        ];
        if let Some(commit) = &self.commit {
            let tree = if self.is_changed { "changed" } else { "clean" };
            labels.extend([format!("commit={commit}"), format!("tree={tree}")]);
        } else if before.is_some_and(|it| it.commit.is_some()) {
            // That one would leave its own to this one.
            labels.extend(["commit=null".to_owned(), "tree=null".to_owned()]);
        }
        let flags = [
            "--description",
            &self.description("deployed"),
            "--labels",
            &labels.join(","),
        ];
        flags.map(str::to_owned).to_vec()
    }
}

/// A text with an ellipsis in place of what is beyond 256 characters.
fn shortened(text: String) -> String {
    match text.char_indices().nth(255) {
        Some((end, _)) if text.chars().count() > 256 => format!("{}…", &text[..end]),
        _ => text,
    }
}

/// The person who deploys, as far as the environment tells.
fn actor(sh: &Shell) -> String {
    let variables = ["GITHUB_ACTOR", "GITLAB_USER_LOGIN", "USER", "LOGNAME"];
    variables
        .into_iter()
        .find_map(variable)
        .or_else(|| read(sh, cmd!(sh, "id -un")))
        .unwrap_or_else(|| "somebody".to_owned())
}

/// The address of the run of a GitHub workflow.
fn run_on_github() -> Option<String> {
    let server = variable("GITHUB_SERVER_URL")?;
    let repository = variable("GITHUB_REPOSITORY")?;
    let run = variable("GITHUB_RUN_ID")?;
    Some(format!("{server}/{repository}/actions/runs/{run}"))
}

/// What a program writes; none if it fails.
fn read(sh: &Shell, cmd: Cmd) -> Option<String> {
    let output = process::read(sh, cmd).ok()?;
    Some(output.trim().to_owned())
}
