//! Finding and setting values.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use crate::repo::{Key, Repo};

const PROD: &str = "config/clusters/lake/prod.values.yaml";
const STAGING: &str = "config/clusters/lake/staging.values.yaml";

/// Has the cluster `lake` list one more values file for its hub `prod`, after the others.
fn list(repo: &Repo, file: &str) {
    let before = "[common.values.yaml, prod.values.yaml]";
    let after = format!("[common.values.yaml, prod.values.yaml, {file}]");
    repo.edit("config/clusters/lake/cluster.yaml", before, &after);
}

/// With a token for `prod` that is encrypted.
fn with_secret() -> Repo {
    let repo = Repo::new();
    let secret = "config/clusters/lake/enc-prod.secret.values.yaml";
    list(&repo, "enc-prod.secret.values.yaml");
    repo.write(secret, "token: hunter2\nnote_unencrypted: seen\n");
    repo.encrypt(secret, &Key::new());
    repo
}

#[test]
fn an_encrypted_value_is_told_by_its_file_alone() {
    let repo = with_secret();
    let ran = repo.ok("config get-values lake prod token");
    let wanted = "lake/prod  token  ***  config/clusters/lake/enc-prod.secret.values.yaml:1\n";
    assert_eq!(ran.stdout, wanted);
    let json = repo.ok("config get-values lake prod --format json").stdout;
    assert!(
        json.contains("\"value\": \"***\",\n    \"encrypted\": true"),
        "{json}"
    );
    // sops leaves it as it is, by its suffix.
    assert!(json.contains("\"value\": \"seen\""), "{json}");
}

#[test]
fn what_should_be_encrypted_and_is_not_stays_hidden() {
    let repo = with_secret();
    repo.edit(
        "config/clusters/lake/enc-prod.secret.values.yaml",
        "note_unencrypted: seen",
        "note: leaked",
    );
    let json = repo.ok("config get-values lake prod --format json").stdout;
    assert!(!json.contains("leaked"), "{json}");
}

#[test]
fn an_encrypted_value_is_not_set() {
    let repo = with_secret();
    let said = repo.fails("config set lake/prod token x");
    assert!(
        said.contains("enc-prod.secret.values.yaml:1 sets it, and is encrypted"),
        "{said}"
    );
    let said = repo.fails("config set lake/prod token x --file enc-prod.secret.values.yaml");
    assert!(said.contains("is encrypted\n\nhint: `sops edit"), "{said}");
    let said = repo.fails("config set lake/prod token x --file prod.values.yaml");
    assert!(said.contains("it would change nothing"), "{said}");
    assert_eq!(repo.read(PROD), "depth: 2\n");
}

#[test]
fn a_file_keeps_its_mode_and_the_link_to_it() {
    let repo = Repo::new();
    let real = repo.root.join("config/clusters/lake/elsewhere/prod.yaml");
    repo.write(
        "config/clusters/lake/elsewhere/prod.yaml",
        "# why\ndepth: 2 # two\n",
    );
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(repo.root.join(PROD)).unwrap();
    symlink("elsewhere/prod.yaml", repo.root.join(PROD)).unwrap();
    let ran = repo.ok("config set lake/prod depth 3");
    assert_eq!(
        ran.stdout,
        "config/clusters/lake/prod.values.yaml:2: `depth` is 3 for lake/prod (was 2)\n"
    );
    assert!(
        ran.stderr
            .contains("`cargo xtask deploy lake prod --diff --dry-run`"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        fs::read_to_string(&real).unwrap(),
        "# why\ndepth: 3 # two\n"
    );
    assert_eq!(
        fs::metadata(&real).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert!(repo.root.join(PROD).is_symlink());
    let left = fs::read_dir(real.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "something was left beside it");
}

#[test]
fn of_several_hubs_all_are_set_or_none() {
    let repo = Repo::new();
    repo.write(PROD, "depth: &two 2\nselector: {a: *two}\n");
    let said = repo.fails("config set lake/staging lake/prod depth 3");
    assert!(
        said.contains("prod.values.yaml: `depth`: line 1: nothing that could be written"),
        "{said}"
    );
    assert_eq!(repo.read(STAGING), "depth: 1\n");
    repo.write(PROD, "depth: 2\n");
    repo.ok("config set lake/staging lake/prod depth 3");
    assert_eq!(
        repo.read(STAGING) + &repo.read(PROD),
        "depth: 3\ndepth: 3\n"
    );
    let ran = repo.ok("config set lake/staging lake/prod depth 3");
    assert!(
        ran.stderr.contains("nothing is to be done"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_shared_file_is_changed_for_all_that_list_it() {
    let repo = Repo::new();
    let ran = repo.ok("config set lake/staging lake/prod greeting 2026");
    // What was a text stays one.
    assert_eq!(
        repo.read("config/clusters/lake/common.values.yaml"),
        "greeting: \"2026\"\n"
    );
    assert!(
        ran.stdout
            .contains("is \"2026\" for lake/staging, lake/prod (was \"hello\")"),
        "{}",
        ran.stdout
    );
    let ran =
        repo.ok("config set lake/prod greeting hi --file config/clusters/lake/common.values.yaml");
    assert!(
        ran.stdout
            .contains("for lake/prod, and lake/staging reads it, too (was \"2026\")"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_value_is_added_to_the_hubs_own_file() {
    let repo = Repo::new();
    repo.write(PROD, "# ours\nselector:\n    a: 1\n");
    repo.ok("config set lake/prod selector.b\\.c on");
    assert_eq!(
        repo.read(PROD),
        "# ours\nselector:\n    a: 1\n    \"b.c\": on\n".replace("\"b.c\"", "b.c")
    );
    let ran = repo.ok("config get-values lake prod selector");
    assert!(
        ran.stdout.contains("selector.b\\.c  true"),
        "{}",
        ran.stdout
    );
    let said = repo.fails("config set river/prod depth 3");
    assert!(
        said.contains("helm-charts/pond/values.yaml:2 sets it for all hubs of this chart"),
        "{said}"
    );
    repo.edit("helm-charts/pond/values.yaml", "depth: 0\n", "");
    let said = repo.fails("config set river/prod depth 3");
    assert!(said.contains("no values file is its own"), "{said}");
    repo.ok("config set river/prod river/staging depth 3");
    assert_eq!(
        repo.read("config/clusters/river/river.values.yaml"),
        "greeting: ahoy\ndepth: 3\n"
    );
}

#[test]
fn a_key_of_a_subchart_needs_no_name_of_that() {
    let repo = Repo::new();
    repo.write(PROD, "stone: {colour: red}\n");
    let ran = repo.ok("config get-values colour");
    assert_eq!(
        ran.stdout,
        format!("lake/prod  stone.colour  \"red\"  {PROD}:1\n")
    );
    repo.ok("config set lake/prod colour blue");
    assert_eq!(repo.read(PROD), "stone: {colour: blue}\n");
    let said = repo.fails("config get-values lake prod colur");
    assert!(said.contains("did you mean `colour`?"), "{said}");
}

#[test]
fn a_value_of_jsonnet_is_found_and_not_set() {
    let repo = Repo::new();
    list(&repo, "prod.jsonnet");
    repo.write(
        "config/clusters/lake/prod.jsonnet",
        "{\n  note: 'made',\n}\n",
    );
    let ran = repo.ok("config get-values note");
    assert!(
        ran.stdout
            .contains("lake/prod      note  \"made\"  config/clusters/lake/prod.jsonnet:2"),
        "{}",
        ran.stdout
    );
    let said = repo.fails("config set lake/prod note x");
    assert!(
        said.contains("config/clusters/lake/prod.jsonnet:2 makes it in jsonnet"),
        "{said}"
    );
}

#[test]
fn a_hub_and_a_cluster_that_cannot_be_read_hide_no_others() {
    let repo = Repo::new();
    repo.write(PROD, "depth: [\n");
    repo.write("config/clusters/river/cluster.yaml", "name: river\n");
    let ran = repo.run("config get-values depth");
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stdout, format!("lake/staging  depth  1  {STAGING}:1\n"));
    assert!(
        ran.stderr.contains("not shown: lake/prod"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("config/clusters/river/cluster.yaml:1"),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_words_of_set_are_three_at_least() {
    assert_eq!(Repo::new().run("config set lake/prod depth").code, Some(2));
}

#[test]
fn releases_are_completed_after_their_clusters() {
    let repo = Repo::new();
    let offered = repo.ok("complete -- config set lake/staging lake/").stdout;
    assert_eq!(offered, "lake/prod\n");
    let offered = repo.ok("complete -- config get-values lake p").stdout;
    assert_eq!(offered, "prod\n");
}
