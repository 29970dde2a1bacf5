//! Which commits may be deployed over the live one, in clones that know more or less of it.

use std::{fs, os::unix::fs::chown};

use crate::{
    generate::git,
    repo::{Ran, Repo, Shared},
};

const DEPLOY: &str = "deploy lake --skip-hub-health-check";

/// A repository that clones are made of and that is pushed to, and a clone that has all of it.
struct Project {
    remote: Repo,
    whole: Repo,
}

impl Project {
    /// With a first commit, which is on the branch `main` of the remote.
    fn new(cluster: &Shared, hubs: [&str; 2]) -> Project {
        let remote = Repo::new();
        fs::remove_dir_all(&remote.root).unwrap();
        let mut whole = Repo::on(cluster, &hubs);
        whole.env.push(("USER".to_owned(), "ann".to_owned()));
        git(&whole.root, &["init", "--quiet"]);
        git(&whole.root, &["add", "--all"]);
        git(
            &whole.root,
            &["init", "--quiet", "--bare", remote.root.to_str().unwrap()],
        );
        let project = Project { remote, whole };
        let address = project.address();
        git(&project.whole.root, &["remote", "add", "origin", &address]);
        project.commit("first");
        project
    }

    fn address(&self) -> String {
        format!("file://{}", self.remote.root.display())
    }

    /// Adds a commit, and pushes the branch that it's on.
    fn commit(&self, message: &str) {
        let commit = ["commit", "--quiet", "--allow-empty", "--message", message];
        git(&self.whole.root, &commit);
        git(&self.whole.root, &["push", "--quiet", "origin", "HEAD"]);
    }

    fn clone(&self, options: &[&str]) -> Repo {
        let clone = Repo::new();
        fs::remove_dir_all(&clone.root).unwrap();
        let address = self.address();
        let root = clone.root.to_str().unwrap();
        let command = [&["clone", "--quiet"], options, &[&address, root]].concat();
        git(&self.remote.root, &command);
        clone
    }
}

/// How often a command asked a remote.
fn fetches(ran: &Ran) -> usize {
    ran.stderr.matches("fetching the branches of").count()
}

#[track_caller]
fn is_refused(repo: &Repo, why: &str) -> Ran {
    let ran = repo.run(DEPLOY);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    for part in [why, "`--force-older`", "2 of 2 hubs of `lake` failed"] {
        assert!(ran.stderr.contains(part), "no {part:?} in {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("pa55word"), "{}", ran.stderr);
    ran
}

#[track_caller]
fn is_deployed(repo: &Repo) -> Ran {
    let ran = repo.ok(DEPLOY);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    ran
}

#[test]
fn clones_that_do_not_know_the_live_commit() {
    let cluster = Shared::cluster();
    let project = Project::new(&cluster, ["older", "older-too"]);
    let shallow = project.clone(&["--depth", "1"]);
    let stale = project.clone(&[]);
    let alone = project.clone(&[]);
    let cut_off = project.clone(&["--depth", "1"]);
    git(&alone.root, &["remote", "remove", "origin"]);
    assert_eq!(fetches(&is_deployed(&project.whole)), 0);
    project.commit("second");
    let newer = project.clone(&["--depth", "1"]);
    assert_eq!(fetches(&is_deployed(&newer)), 1);

    let newer = "which is newer than this one";
    assert_eq!(fetches(&is_refused(&shallow, newer)), 1);
    assert_eq!(fetches(&is_refused(&stale, newer)), 1);
    assert_eq!(fetches(&is_refused(&stale, newer)), 0);
    is_refused(&alone, "there is no remote to fetch it from");
    a_remote_that_does_not_answer(&cut_off);
    a_failed_revision_counts(&cluster, &stale);
    cut_off.ok(&format!("{DEPLOY} --force-older"));
}

fn a_remote_that_does_not_answer(repo: &Repo) {
    let web = "http://ann:pa55word@127.0.0.1:1/hubs.git";
    git(&repo.root, &["remote", "set-url", "origin", web]);
    is_refused(repo, "cannot fetch from `origin`: fatal: unable to access");
    let ssh = "ssh://ann:pa55word@127.0.0.1/hubs.git";
    git(&repo.root, &["remote", "set-url", "origin", ssh]);
    let own_ssh = ["config", "core.sshCommand", "echo own ssh >&2"];
    git(&repo.root, &own_ssh);
    let ran = is_refused(repo, "own ssh -o BatchMode=yes");
    assert!(ran.stderr.contains("***@127.0.0.1"), "{}", ran.stderr);
}

/// After a rollback that failed, helm calls no revision deployed.
fn a_failed_revision_counts(cluster: &Shared, older: &Repo) {
    label(cluster, "older", "status=failed");
    label(cluster, "older-too", "status=failed");
    is_refused(older, "which is newer than this one");
    label(cluster, "older", "status=deployed");
    label(cluster, "older-too", "status=deployed");
}

/// Labels the second revision of a hub.
fn label(cluster: &Shared, hub: &str, label: &str) {
    let secret = format!("sh.helm.release.v1.{hub}.v2");
    cluster.kubectl(&format!(
        "label secret {secret} --namespace {hub} --overwrite {label}"
    ));
}

/// It was merged by a commit of its own, or overwritten.
#[test]
fn a_live_commit_that_is_gone() {
    let cluster = Shared::cluster();
    let project = Project::new(&cluster, ["gone", "gone-too"]);
    git(&project.whole.root, &["checkout", "--quiet", "-b", "topic"]);
    project.commit("on a branch");
    let gone = git(&project.whole.root, &["rev-parse", "HEAD"]);
    project.whole.ok(DEPLOY);
    git(&project.whole.root, &["checkout", "--quiet", "main"]);
    project.commit("on a branch (#1)");
    // They were deployed from the branch, which git knows here.
    is_deployed(&project.whole);
    git(&project.whole.root, &["checkout", "--quiet", "topic"]);
    is_deployed(&project.whole);

    git(&project.remote.root, &["branch", "-D", "topic"]);
    let mut clone = project.clone(&["--no-local"]);
    let summary = clone.home().join("summary.md");
    let summary = summary.display().to_string();
    let page = ("GITHUB_STEP_SUMMARY".to_owned(), summary.clone());
    clone.env.push(page);
    let ran = clone.ok(DEPLOY);
    let year =
        &cluster.kubectl("get namespace gone -o jsonpath={.metadata.creationTimestamp}")[..4];
    let warning = format!("gone-too: warning: it is deployed from commit {gone} by ann at {year}-");
    assert!(ran.stderr.contains(&warning), "{}", ran.stderr);
    assert_eq!(fetches(&ran), 1, "{}", ran.stderr);
    let summary = fs::read_to_string(summary).unwrap();
    assert!(summary.contains(&format!("**gone**: it is deployed from commit {gone} by")));
    is_deployed(&clone);
}

/// Its owner is somebody whom git doesn't trust, or it's broken.
#[test]
fn a_repository_that_git_refuses() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["refused"]);
    git(&repo.root, &["init", "--quiet"]);
    chown(&repo.root, Some(12345), None).unwrap();
    let said = repo.fails(DEPLOY);
    assert!(said.contains("fatal: detected dubious ownership"), "{said}");
    assert!(
        said.contains("git config --global --add safe.directory"),
        "{said}"
    );
    chown(&repo.root, Some(0), None).unwrap();
    // As a computer that lost its power may leave it.
    repo.write(".git/HEAD", "");
    let said = repo.fails(DEPLOY);
    assert!(said.contains("fatal: not a git repository"), "{said}");
    repo.write(".git/HEAD", "ref: refs/heads/main\n");
    repo.write(".git/refs/heads/main", "");
    let said = repo.fails(DEPLOY);
    assert!(said.contains("git cannot read the commit"), "{said}");
    fs::remove_file(repo.root.join(".git/refs/heads/main")).unwrap();
    let ran = repo.ok(DEPLOY);
    assert!(ran.stdout.contains("revision 1"), "{}", ran.stdout);
}
