//! The order of two commits, as far as git can tell. Of a commit that it does not know, it may learn from the remotes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Result, ensure};
use xshell::{Cmd, Shell, cmd};

use crate::{
    kubernetes::history::short,
    machine::{
        process::{self, Output},
        tree::Tree,
    },
};

/// How long one remote may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How the commit that is checked out relates to another one.
#[derive(Clone)]
pub(crate) enum Order {
    /// It comes before the other one.
    Older,
    /// It is the other one, comes after it, or is on another branch.
    NotOlder,
    /// The clone has all that its remotes have, and none of them has the other one.
    Gone,
    /// Git cannot tell, and why.
    Unknown(String),
}

/// The commits of a clone.
pub(crate) struct Commits {
    root: PathBuf,
    /// Locked while git is asked, so that hubs that are deployed side by side have one answer.
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    /// By the other commit.
    orders: BTreeMap<String, Order>,
    /// What went wrong when the remotes were asked; none before that.
    failures: Option<Vec<String>>,
}

impl Commits {
    pub(crate) fn new(root: &Path) -> Commits {
        Commits {
            root: root.to_owned(),
            answers: Mutex::default(),
        }
    }

    /// The commit that is checked out, and whether the work tree has something that it does not have. None outside of
    /// git and before the first commit; an error if git refuses the repository.
    pub(crate) fn head(&self, sh: &Shell, tree: &Tree) -> Result<Option<(String, bool)>> {
        let Some(top) = tree.top_of_git() else {
            return Ok(None);
        };
        let root = &self.root;
        let top = top.display();
        let status = cmd!(sh, "git -C {root} status --porcelain=v2 --branch");
        let output = process::run(sh, status, b"")?;
        ensure!(output.success, "git refuses `{top}`: {}", words(&output));
        let status = String::from_utf8_lossy(&output.stdout);
        match header(&status, "# branch.oid ") {
            Some("(initial)") => {
                let is_broken = header(&status, "# branch.head ") == Some("(unknown)");
                ensure!(!is_broken, "git cannot read the commit of HEAD in `{top}`");
                Ok(None)
            }
            commit => {
                let is_changed = status.lines().any(|it| !it.starts_with("# "));
                Ok(commit.map(|it| (it.to_owned(), is_changed)))
            }
        }
    }

    /// Whether the commit `here` comes before another one. The remotes are asked at most once.
    pub(crate) fn order(&self, sh: &Shell, here: &str, other: &str) -> Result<Order> {
        let mut answers = self.answers.lock().expect("nobody panics with it");
        if let Some(order) = answers.orders.get(other) {
            return Ok(order.clone());
        }
        let order = self.find_order(&alone(sh), here, other, &mut answers.failures)?;
        answers.orders.insert(other.to_owned(), order.clone());
        Ok(order)
    }

    fn find_order(
        &self,
        sh: &Shell,
        here: &str,
        other: &str,
        failures: &mut Option<Vec<String>>,
    ) -> Result<Order> {
        if let Some(order) = self.certain_order(sh, here, other)? {
            return Ok(order);
        }
        if failures.is_none() {
            *failures = Some(self.fetch(sh, other)?);
            if let Some(order) = self.certain_order(sh, here, other)? {
                return Ok(order);
            }
        }
        let failures = failures.as_deref().unwrap_or_default();
        if !failures.is_empty() {
            Ok(Order::Unknown(failures.join("\n")))
        } else if self.is_shallow(sh)? {
            Ok(Order::Unknown("the clone is still shallow".to_owned()))
        } else {
            Ok(Order::Gone)
        }
    }

    /// The order if git can tell without the remotes. What a shallow clone lacks may lead from one to the other.
    fn certain_order(&self, sh: &Shell, here: &str, other: &str) -> Result<Option<Order>> {
        if here == other {
            return Ok(Some(Order::NotOlder));
        }
        if !self.knows(sh, other)? {
            return Ok(None);
        }
        let root = &self.root;
        let base = run(sh, cmd!(sh, "git -C {root} merge-base {here} {other}"))?;
        // It also fails if they have no ancestor in common, and says nothing then.
        let message = words(&base);
        ensure!(!message.contains("fatal: "), "{message}");
        match String::from_utf8_lossy(&base.stdout).trim() {
            base if base == here => Ok(Some(Order::Older)),
            base if base == other => Ok(Some(Order::NotOlder)),
            _ if self.is_shallow(sh)? => Ok(None),
            _ => Ok(Some(Order::NotOlder)),
        }
    }

    /// How to take back what came after one commit until another one. None if git cannot tell, or if it is the same one.
    pub(crate) fn way_to_revert(&self, sh: &Shell, before: &str, commit: &str) -> Option<String> {
        let root = &self.root;
        let sh = &alone(sh);
        let range = format!("{before}..{commit}");
        let list = cmd!(
            sh,
            "git -C {root} rev-list --first-parent --parents {range}"
        );
        let list = process::read(sh, list).ok()?;
        let mut lines = list.lines();
        let parents = lines.next()?.split(' ').skip(1).count();
        let (before, commit) = (short(before), short(commit));
        Some(match (lines.next(), parents) {
            (Some(_), _) => format!("revert what brought it (`git log {before}..{commit}`)"),
            (None, 0 | 1) => format!("`git revert {commit}`"),
            (None, _) => format!("`git revert -m 1 {commit}`"),
        })
    }

    fn knows(&self, sh: &Shell, commit: &str) -> Result<bool> {
        let root = &self.root;
        let commit = format!("{commit}^{{commit}}");
        let parse = cmd!(sh, "git -C {root} rev-parse --verify --quiet {commit}");
        Ok(run(sh, parse)?.success)
    }

    fn is_shallow(&self, sh: &Shell) -> Result<bool> {
        let root = &self.root;
        let parse = cmd!(sh, "git -C {root} rev-parse --is-shallow-repository");
        Ok(process::read(sh, parse)?.trim() == "true")
    }

    /// Gets the branches of all remotes, with their whole history. Returns what went wrong.
    fn fetch(&self, sh: &Shell, wanted: &str) -> Result<Vec<String>> {
        let root = &self.root;
        let remotes = process::read(sh, cmd!(sh, "git -C {root} remote"))?;
        if remotes.is_empty() {
            return Ok(vec!["there is no remote to fetch it from".to_owned()]);
        }
        let mut failures = Vec::new();
        for remote in remotes.lines() {
            say!(
                "fetching the branches of `{remote}`: git cannot tell yet whether commit {wanted}, which is live, is \
                 newer than this one"
            );
            if let Err(err) = self.fetch_from(sh, remote) {
                let message = without_users(&format!("{err:#}"));
                failures.push(format!("cannot fetch from `{remote}`: {message}"));
            }
            process::check_stopped()?;
        }
        Ok(failures)
    }

    fn fetch_from(&self, sh: &Shell, remote: &str) -> Result<()> {
        let root = &self.root;
        let mut options = vec![
            "--quiet",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            // It would go on in the background.
            "--no-auto-maintenance",
        ];
        if self.is_shallow(sh)? {
            options.push("--unshallow");
        }
        // A clone of a single branch is set to fetch no other.
        let branches = format!("+refs/heads/*:refs/remotes/{remote}/*");
        let fetch = cmd!(
            sh,
            "git -C {root} fetch {options...} -- {remote} {branches}"
        );
        sh.set_var("GIT_SSH_COMMAND", self.ssh_that_does_not_ask(sh)?);
        let output = run(sh, fetch)?;
        ensure!(output.success, "{}", words(&output));
        Ok(())
    }

    /// The ssh that the repository wants, or the usual one.
    fn ssh_that_does_not_ask(&self, sh: &Shell) -> Result<String> {
        let root = &self.root;
        let configured = run(sh, cmd!(sh, "git -C {root} config core.sshCommand"))?;
        let ssh = String::from_utf8_lossy(&configured.stdout);
        let ssh = Some(ssh.trim()).filter(|it| !it.is_empty());
        Ok(format!("{} -o BatchMode=yes", ssh.unwrap_or("ssh")))
    }
}

/// Git may ask a remote also for objects that a partial clone lacks.
fn run(sh: &Shell, cmd: Cmd) -> Result<Output> {
    process::run_within(sh, cmd, LIMIT)
}

/// A `Shell` whose git asks nobody for a password, and whose messages are as we know them.
fn alone(sh: &Shell) -> Shell {
    let sh = sh.clone();
    sh.set_var("GIT_TERMINAL_PROMPT", "0");
    sh.set_var("LC_ALL", "C");
    sh
}

/// What a program says of its failure.
fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// What follows the name of a header in the output of `git status`.
fn header<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|it| it.strip_prefix(name))
}

/// A message without the users and passwords of addresses, which ssh shows without `ssh://`.
fn without_users(message: &str) -> String {
    let words = message.split_inclusive(ends_word);
    words.map(without_user).collect()
}

fn ends_word(char: char) -> bool {
    char.is_whitespace() || "'\"`<>".contains(char)
}

fn without_user(word: &str) -> String {
    let Some((before, host)) = word.rsplit_once('@') else {
        return word.to_owned();
    };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://***@{host}"),
        None => format!("***@{host}"),
    }
}
