//! Who deploys what: each revision of a release in the cluster carries it.

use anyhow::{Result, bail};
use xshell::{Cmd, Shell, cmd};

use crate::{
    kubernetes::{
        commits::{Commits, Order},
        history::{Revision, given_label, label, short},
    },
    machine::{
        process, terminal,
        tree::Tree,
        workflow::{self, variable},
    },
    secrets::Mask,
};

/// The variable that says why a person started this.
pub(crate) const REASON: &str = "XTASK_REASON";

/// What one run leaves with every release that it upgrades.
pub(crate) struct Record {
    commits: Commits,
    /// None outside of git.
    commit: Option<String>,
    /// Whether there is something in the work tree that the commit doesn't have.
    is_changed: bool,
    actor: String,
    /// The address of the workflow's or pipeline's run.
    run: Option<String>,
    /// Why hubs are deployed although staging hubs are not ready.
    pub(crate) ignore_staging: Option<String>,
    /// Why releases are deployed although production is frozen.
    pub(crate) ignore_freeze: Option<String>,
    /// Why a person started this, in one line.
    reason: Option<String>,
}

impl Record {
    /// An error if git refuses the repository.
    pub(crate) fn new(sh: &Shell, tree: &Tree) -> Result<Record> {
        let commits = Commits::new(tree.root());
        let head = commits.head(sh, tree)?;
        Ok(Record {
            is_changed: head.as_ref().is_some_and(|(_, is_changed)| *is_changed),
            commit: head.map(|(commit, _)| commit),
            commits,
            actor: actor(sh),
            run: run_on_github().or_else(|| variable("CI_JOB_URL")),
            ignore_staging: None,
            ignore_freeze: None,
            reason: variable(REASON).map(|it| in_one_line(&it)),
        })
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

    /// Refuses to deploy this commit over a newer one, or over one that may be newer. Returns what is to be said if the
    /// live commit is gone.
    pub(crate) fn check_not_older(&self, sh: &Shell, live: &Revision) -> Result<Option<String>> {
        let hint = format!(
            "{} deploys it all the same",
            workflow::option("force-older")
        );
        let Some(here) = &self.commit else {
            return Ok(None);
        };
        let Some(commit) = live.commit.as_deref().filter(|it| is_hash(it)) else {
            return Ok(None);
        };
        match self.commits.order(sh, here, commit)? {
            Order::NotOlder => Ok(None),
            Order::Older => bail!(
                "it is deployed from commit {commit}, which is newer than this one\nhint: {hint}"
            ),
            Order::Unknown(reason) => bail!(
                "it is deployed from commit {commit}, and git cannot tell whether that is newer than this one: \
                 {reason}\nhint: `git fetch` first, with `--unshallow` in a shallow clone; {hint}"
            ),
            Order::Gone => Ok(Some(format!(
                "it is deployed from {}, and no branch of a remote has that commit any more. If its branch was deleted \
                 or overwritten without being merged, this deploy takes back what it changed",
                of_revision(commit, live)
            ))),
        }
    }

    /// What a person can do to take back what a commit brought since the commit `before`, as far as git can tell.
    pub(crate) fn way_to_revert(
        &self,
        sh: &Shell,
        before: Option<&str>,
        commit: &str,
    ) -> Option<String> {
        let before = before.filter(|it| is_hash(it) && is_hash(commit))?;
        self.commits.way_to_revert(sh, before, commit)
    }

    /// For people who look at the release's history: 256 characters at most, as helm wants it.
    /// What people wrote into it is shown without secrets.
    pub(crate) fn description(&self, what: &str, mask: &Mask) -> String {
        let mut parts = vec![format!("{what} by {}", self.actor)];
        if let Some(commit) = &self.commit {
            let changed = if self.is_changed {
                " with changes that are in no commit"
            } else {
                ""
            };
            let short = short(commit);
            parts.push(format!("commit {short}{changed}"));
        }
        parts.extend(self.run.clone());
        let staging = self.ignore_staging.as_deref().map(in_one_line);
        let freeze = self.ignore_freeze.as_deref().map(in_one_line);
        let is_told = [&staging, &freeze].contains(&&self.reason);
        let ignored = [("staging", staging), ("freeze", freeze)];
        for (what, why) in ignored {
            parts.extend(why.map(|it| format!("{what} ignored: {}", mask.hide(&it))));
        }
        let reason = self.reason.iter().filter(|_| !is_told);
        parts.extend(reason.map(|it| format!("reason: {}", mask.hide(it))));
        shortened(parts.join(", "))
    }

    /// For `helm upgrade`, which is to make another revision after this one on the cluster of this name. `given` is the
    /// digest of what it is given, if somebody is to know that.
    pub(crate) fn flags(
        &self,
        before: Option<&Revision>,
        cluster: &str,
        given: Option<&str>,
        mask: &Mask,
    ) -> Vec<String> {
        let number = before.map_or(1, |it| it.number + 1);
        let mut labels = vec![
            format!("xtask={number}"),
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
        labels.extend(given.map(|it| format!("given={}", given_label(it, number))));
        let flags = [
            "--description",
            &self.description("deployed", mask),
            "--labels",
            &labels.join(","),
        ];
        flags.map(str::to_owned).to_vec()
    }
}

/// Whether a label holds what git calls a commit, and no other name.
fn is_hash(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|it| it.is_ascii_hexdigit())
}

/// `commit 0123… by ann at 2026-01-31T12:00:00Z`
fn of_revision(commit: &str, revision: &Revision) -> String {
    let mut text = format!("commit {commit}");
    if let Some(actor) = &revision.actor {
        text += &format!(" by {actor}");
    }
    if let Some(time) = revision.time() {
        text += &format!(" at {time}");
    }
    text
}

/// A text with an ellipsis in place of what is beyond 256 characters.
fn shortened(text: String) -> String {
    match text.char_indices().nth(255) {
        Some((end, _)) if text.chars().count() > 256 => format!("{}…", &text[..end]),
        _ => text,
    }
}

/// A text without line breaks and other control characters, which a log or a terminal could heed.
fn in_one_line(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    let words: Vec<_> = text.split_whitespace().collect();
    terminal::visible(&words.join(" ")).into_owned()
}

/// The person who deploys, as far as the environment tells. On GitHub somebody may have run again what somebody else
/// had started.
fn actor(sh: &Shell) -> String {
    let variables = [
        "GITHUB_TRIGGERING_ACTOR",
        "GITHUB_ACTOR",
        "GITLAB_USER_LOGIN",
        "USER",
        "LOGNAME",
    ];
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
