//! Who deploys what: each revision of a release in the cluster carries it.

use std::{env, path::Path};

use xshell::{Shell, cmd};

use crate::process;

/// What one run leaves with every release that it upgrades.
pub(crate) struct Record {
    /// None outside of git.
    commit: Option<String>,
    /// Whether there is something in the work tree that the commit doesn't have.
    is_changed: bool,
    actor: String,
    /// The address of the workflow's or pipeline's run.
    run: Option<String>,
    /// Why hubs are deployed although staging hubs don't stand.
    pub(crate) ignore_staging: Option<String>,
}

impl Record {
    pub(crate) fn new(sh: &Shell, root: &Path) -> Record {
        let read = |cmd: xshell::Cmd| process::read(sh, cmd).ok().map(|it| it.trim().to_owned());
        let variable = |name: &str| env::var(name).ok().filter(|it| !it.is_empty());
        let of_github = || {
            let [server, repository, run] =
                ["GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"].map(variable);
            Some(format!("{}/{}/actions/runs/{}", server?, repository?, run?))
        };
        let actor = ["GITHUB_ACTOR", "GITLAB_USER_LOGIN", "USER", "LOGNAME"].into_iter().find_map(variable);
        let commit = read(cmd!(sh, "git -C {root} rev-parse HEAD"));
        let changes = commit.as_ref().and_then(|_| read(cmd!(sh, "git -C {root} status --porcelain")));
        Record {
            commit,
            is_changed: changes.is_some_and(|it| !it.is_empty()),
            actor: actor.or_else(|| read(cmd!(sh, "id -un"))).unwrap_or_else(|| "somebody".to_owned()),
            run: of_github().or_else(|| variable("CI_JOB_URL")),
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
            say!("the work tree has changes that are in no commit: this is recorded with the releases");
        }
    }

    /// For `helm upgrade`.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut description = format!("by {}", self.actor);
        let mut labels = vec![format!("actor={}", label(&self.actor))];
        if let Some(commit) = &self.commit {
            description += &format!(", commit {}", &commit[..commit.len().min(12)]);
            labels.push(format!("commit={commit}"));
            if self.is_changed {
                description += " with changes that are in no commit";
            }
            labels.push(format!("tree={}", if self.is_changed { "changed" } else { "clean" }));
        }
        if let Some(run) = &self.run {
            description += &format!(", {run}");
        }
        if let Some(reason) = &self.ignore_staging {
            description += &format!(", staging ignored: {reason}");
        }
        let labels = ["--labels".to_owned(), labels.join(",")];
        ["--description".to_owned(), description].into_iter().chain(labels).collect()
    }
}

/// A label's value holds letters, digits, `-`, `_` and `.`, 63 at most, and begins and ends with one of the first two:
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>
fn label(text: &str) -> String {
    let is_allowed = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
    let text: String = text.chars().map(|it| if is_allowed(it) { it } else { '-' }).take(63).collect();
    text.trim_matches(|it: char| !it.is_ascii_alphanumeric()).to_owned()
}
