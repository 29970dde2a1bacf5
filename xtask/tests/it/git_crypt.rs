//! Files that git-crypt encrypts: locked, unlocked, and forgotten. The git-crypt is Debian's.

use std::{fs, path::Path, process::Command};

use crate::{
    generate::git,
    repo::{Repo, Shared, assert_succeeded},
};

const FILE: &str = "config/clusters/lake/secrets/prod.yaml";
const MARKER: &str = "wandering-albatross-of-git-crypt";

fn git_crypt(root: &Path, args: &[&str]) {
    let output = Command::new("git-crypt")
        .args(args)
        .current_dir(root)
        .output();
    assert_succeeded(&output.unwrap());
}

fn commit_all(root: &Path) {
    git(root, &["add", "."]);
    git(
        root,
        &["commit", "--quiet", "--no-verify", "--message", "all"],
    );
}

/// A repository of git's whose folder `secrets` git-crypt encrypts, unlocked, with a file that a hub lists.
fn unlocked(repo: Repo, hub: &str) -> Repo {
    let root = repo.root.clone();
    git(&root, &["init", "--quiet"]);
    git_crypt(&root, &["init"]);
    repo.write(
        ".gitattributes",
        "# As hubploy's template has it\nconfig/clusters/*/secrets/** filter=git-crypt diff=git-crypt\n",
    );
    repo.write(".gitignore", "kubeconfig.yaml\n*.tgz\n/local/\n");
    repo.write(FILE, &format!("note: {MARKER}\n"));
    let own = format!("{hub}.values.yaml");
    let both = format!("{own}, secrets/prod.yaml");
    repo.edit("config/clusters/lake/cluster.yaml", &own, &both);
    commit_all(&root);
    repo
}

fn lock(repo: &Repo) {
    git_crypt(&repo.root, &["lock"]);
    let locked = fs::read(repo.root.join(FILE)).unwrap();
    assert!(locked.starts_with(b"\0GITCRYPT\0"));
}

#[test]
fn an_unlocked_file_counts_as_encrypted() {
    let repo = unlocked(Repo::new(), "prod");
    let validated = repo.ok("validate");
    assert!(
        validated.stdout.contains("no problems"),
        "{}",
        validated.stdout
    );
    let values = repo.ok("config get-values lake prod").stdout;
    assert!(
        values.contains("secrets/prod.yaml") && !values.contains(MARKER),
        "{values}"
    );
    let refused = repo.fails("config set lake/prod note other");
    assert!(
        refused.contains("secrets/prod.yaml:1 sets it, and is encrypted")
            && refused.contains("git-crypt unlock")
            && !refused.contains(MARKER),
        "{refused}"
    );
}

/// A schema's message, a YAML error and a key that is set twice quote nothing of it.
#[test]
fn nothing_of_an_unlocked_file_is_quoted() {
    let repo = unlocked(Repo::new(), "prod");
    for content in [
        format!("note: {MARKER}\nnote: {MARKER}\n"),
        format!("note: [{MARKER}\n"),
        format!("{MARKER}\n"),
        format!("note: {{a: {MARKER}}}\n"),
        format!("- {MARKER}\n"),
    ] {
        repo.write(FILE, &content);
        let validated = repo.run("validate --render --fetch");
        assert_eq!(validated.code, Some(1), "{content}{}", validated.stdout);
        let said = validated.stdout + &validated.stderr;
        assert!(
            said.contains("secrets/prod.yaml:") && !said.contains(MARKER),
            "{said}"
        );
    }
}

#[test]
fn a_locked_file_is_named_with_the_remedy() {
    let repo = unlocked(Repo::new(), "prod");
    lock(&repo);
    let validated = repo.ok("validate --strict");
    assert!(
        validated.stdout.contains(
            "config/clusters/lake/secrets/prod.yaml:1:1: warning: this file is locked by git-crypt"
        ) && validated.stdout.contains("git-crypt unlock"),
        "{}",
        validated.stdout
    );
}

/// What git takes in is encrypted, and so it is right that `validate --staged` cannot read it.
#[test]
fn what_is_committed_locked_is_no_matter() {
    let repo = unlocked(Repo::new(), "prod");
    let validated = repo.ok("validate --staged");
    assert!(
        validated.stdout.contains("no problems"),
        "{}",
        validated.stdout
    );
}

/// Where git-crypt is not set up in a clone, git takes the file in as it is.
#[test]
fn what_would_be_committed_in_plain_text_is_a_problem() {
    let repo = unlocked(Repo::new(), "prod");
    git(&repo.root, &["config", "filter.git-crypt.clean", "cat"]);
    repo.write(FILE, &format!("note: {MARKER} again\n"));
    git(&repo.root, &["add", "."]);
    let refused = repo.run("validate --staged");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .stdout
            .contains("secrets/prod.yaml:1:1: `.gitattributes` has git-crypt encrypt this file")
            && !refused.stdout.contains(MARKER),
        "{}",
        refused.stdout
    );
}

/// A kubeconfig with a token that git-crypt encrypts is no plain one; a locked one is named before anything else is tried.
#[test]
fn a_kubeconfig_may_be_encrypted_so() {
    let repo = unlocked(Repo::new(), "prod");
    let kubeconfig = "config/clusters/lake/secrets/kubeconfig.yaml";
    let user = format!("{{name: ada, user: {{token: {MARKER}}}}}");
    let context = "{name: lake, context: {cluster: lake, user: ada}}";
    let cluster = "{name: lake, cluster: {server: 'https://127.0.0.1:1'}}";
    repo.write(".gitignore", "/local/\n");
    repo.write(
        kubeconfig,
        &format!(
            "current-context: lake\nusers: [{user}]\ncontexts: [{context}]\nclusters: [{cluster}]\n"
        ),
    );
    let file = "config/clusters/lake/cluster.yaml";
    repo.edit(
        file,
        "file: kubeconfig.yaml",
        "file: secrets/kubeconfig.yaml",
    );
    commit_all(&repo.root);
    assert!(repo.ok("validate").stdout.contains("no problems"));
    let unreachable = repo.fails("deploy lake prod");
    assert!(
        unreachable.contains("127.0.0.1:1") && !unreachable.contains(MARKER),
        "{unreachable}"
    );
    lock(&repo);
    let locked = repo.fails("deploy lake prod");
    assert!(
        locked.contains("`config/clusters/lake/secrets/kubeconfig.yaml` is locked by git-crypt"),
        "{locked}"
    );
}

#[test]
fn jsonnet_gets_nothing_of_it() {
    let repo = unlocked(Repo::new(), "prod");
    repo.write(
        "config/clusters/lake/prod.jsonnet",
        "(import 'secrets/more.json') + {greeting: 'hello'}\n",
    );
    repo.write(
        "config/clusters/lake/secrets/more.json",
        &format!("{{\"note\": \"{MARKER}\"}}\n"),
    );
    let file = "config/clusters/lake/cluster.yaml";
    repo.edit(file, "secrets/prod.yaml", "prod.jsonnet");
    let refused = repo.run("validate");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .stdout
            .contains("git-crypt encrypts it, and what evaluates jsonnet gets no secrets")
            && !refused.stdout.contains(MARKER),
        "{}",
        refused.stdout
    );
}

/// helm gets it, and no output has it; locked, it stops the hub that lists it and no other.
#[test]
fn it_is_deployed_and_masked() {
    let cluster = Shared::cluster();
    let repo = unlocked(
        Repo::on(&cluster, &["crypt-staging", "crypt-prod"]),
        "crypt-prod",
    );
    let shown = repo.ok("deploy lake crypt-prod --dry-run");
    assert!(
        !(shown.stdout + &shown.stderr).contains(MARKER),
        "the dry run shows it"
    );
    let deployed = repo.ok("deploy lake");
    assert!(!(deployed.stdout + &deployed.stderr).contains(MARKER));
    let values = cluster.kubectl("get configmap -n crypt-prod -o yaml");
    assert!(values.contains(MARKER), "{values}");
    lock(&repo);
    let locked = repo.run("deploy lake");
    assert_eq!(locked.code, Some(1));
    assert!(
        locked
            .stderr
            .contains("`config/clusters/lake/secrets/prod.yaml` is locked by git-crypt"),
        "{}",
        locked.stderr
    );
    let history = cluster.history("crypt-staging");
    assert!(history.contains("\n2 "), "{history}");
}
