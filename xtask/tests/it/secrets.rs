//! One value of an encrypted file is changed, and nothing else of it.

use std::{io::Write, path::Path, process::Stdio};

use crate::{
    generate::git,
    repo::{Key, Ran, Repo, assert_succeeded, tool},
};

const FILE: &str = "config/clusters/lake/enc-prod.secret.values.yaml";
const MARKER: &str = "wandering-albatross-to-be-found";
const NEW: &str = "correct-horse battery'\"staple: #1";

/// A repository whose hub `prod` lists an encrypted file with this content.
fn repo(content: &str) -> Repo {
    let mut repo = Repo::new();
    let key = Key::new();
    repo.has_key(&key);
    repo.write(FILE, content);
    repo.encrypt(FILE, &key);
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "prod.values.yaml]",
        "prod.values.yaml, enc-prod.secret.values.yaml]",
    );
    repo
}

fn piped(repo: &Repo, args: &str, value: &str) -> Ran {
    let mut child = repo.command(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(value.as_bytes()).unwrap();
    drop(stdin);
    child.into()
}

fn set(repo: &Repo, args: &str, value: &str) -> Ran {
    let ran = piped(repo, &format!("secrets set {args}"), value);
    assert_eq!(ran.code, Some(0), "{args}\n{}{}", ran.stdout, ran.stderr);
    assert!(
        !(ran.stdout.clone() + &ran.stderr).contains("correct-horse"),
        "{}",
        ran.stderr
    );
    ran
}

/// What `secrets get` prints of a key.
fn get(repo: &Repo, key: &str) -> String {
    repo.ok(&format!("secrets get lake prod {key}")).stdout
}

/// The lines of a text that another one does not have at all.
fn only_in<'a>(text: &'a str, other: &str) -> Vec<&'a str> {
    let known: Vec<_> = other.lines().collect();
    text.lines().filter(|it| !known.contains(it)).collect()
}

const ODD: &str = "\
# What people wrote above
hub:    # beside
    token: first    # of the hub
    empty: ''
    off: false
    count: 7

    list:
    - a
    # between
    - b: deep
      c: deeper
'quoted key':
        far: \"1.10\"
text: |
  several
  lines
last: end
";

/// Comments, blank lines and indentation stay, which sops moves when it sets a value.
#[test]
fn all_else_stays_byte_for_byte() {
    let repo = repo(ODD);
    for (key, value, read) in [
        ("hub.token", NEW, NEW),
        ("hub.list[1].c", "x", "x"),
        ("hub.count", "12", "12"),
        ("hub.off", "true", "true"),
        ("hub.empty", "no more", "no more"),
        ("text", "one\ntwo\n", "one\ntwo"),
        ("last", "12345", "12345"),
    ] {
        let before = repo.read(FILE);
        let said = set(&repo, &format!("lake prod {key}"), value).stderr;
        assert!(
            said.contains(&format!("{FILE}: `{key}` has a new value")),
            "{said}"
        );
        let after = repo.read(FILE);
        let changed = only_in(&after, &before);
        assert!(
            changed.len() <= 3
                && changed[1..].iter().all(|it| {
                    it.trim_start().starts_with("lastmodified:")
                        || it.trim_start().starts_with("mac:")
                }),
            "{key}: {changed:#?}"
        );
        assert_eq!(after.lines().count(), before.lines().count(), "{key}");
        assert_eq!(get(&repo, key).trim_end(), read, "{key}");
    }
    assert_eq!(get(&repo, "hub.list[0]"), "a\n");
    assert!(
        repo.ok("validate cluster-config lake")
            .stdout
            .contains("no problems")
    );
}

/// A number that was a number is one, and a text stays a text.
#[test]
fn types_stay() {
    let repo = repo(ODD);
    let types = |key: &str| {
        let text = repo.read(FILE);
        let line = text
            .lines()
            .find(|it| it.trim_start().starts_with(&format!("{key}:")));
        let line = line.unwrap().to_owned();
        line[line.find("type:").unwrap()..line.find(']').unwrap()].to_owned()
    };
    set(&repo, "lake prod hub.count", "8");
    // As sops reads a number.
    assert_eq!(types("count"), "type:float");
    assert_eq!(get(&repo, "hub.count"), "8\n");
    set(&repo, "lake prod hub.token", "8");
    assert_eq!(types("token"), "type:str");
    set(&repo, "lake prod hub.count", "many");
    assert_eq!(types("count"), "type:str");
}

#[test]
fn a_new_key_goes_into_its_map() {
    let repo = repo(ODD);
    for key in ["hub.more", "new", "other.deep.key"] {
        let before = repo.read(FILE);
        let said = set(&repo, &format!("lake prod {key}"), NEW).stderr;
        assert!(said.contains(&format!("`{key}` is a new key")), "{said}");
        assert_eq!(get(&repo, key).trim_end(), NEW, "{key}");
        let after = repo.read(FILE);
        let gone = only_in(&before, &after);
        let is_of_sops = |it: &&str| {
            ["lastmodified:", "mac:"]
                .iter()
                .any(|key| it.trim_start().starts_with(key))
        };
        assert!(gone.iter().all(is_of_sops), "{key}: {gone:#?}");
    }
    let text = repo.read(FILE);
    assert!(
        text.find("\nnew:").unwrap() < text.find("\nsops:").unwrap(),
        "{text}"
    );
}

#[test]
fn the_same_value_changes_nothing() {
    let repo = repo(ODD);
    let before = repo.read(FILE);
    let said = set(&repo, "lake prod hub.token", "first\n").stderr;
    assert!(said.contains("has this value already"), "{said}");
    assert_eq!(repo.read(FILE), before);
}

#[test]
fn json_is_changed_as_well() {
    let mut repo = Repo::new();
    let key = Key::new();
    repo.has_key(&key);
    let file = "config/clusters/lake/enc-prod.secret.values.json";
    repo.write(
        file,
        "{\"hub\": {\"token\": \"first\", \"off\": false}, \"n\": 1}\n",
    );
    repo.encrypt(file, &key);
    set(&repo, &format!("--file {file} hub.token"), NEW);
    let got = repo
        .ok(&format!("secrets get --file {file} hub.token"))
        .stdout;
    assert_eq!(got.trim_end(), NEW);
    let off = repo
        .ok(&format!("secrets get --file {file} hub.off"))
        .stdout;
    assert_eq!(off, "false\n");
}

/// Both hubs list it: who changes it for one must know that of the other.
#[test]
fn a_file_of_several_hubs_is_changed_for_all_of_them() {
    let repo = repo(ODD);
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "staging.values.yaml]",
        "staging.values.yaml, enc-prod.secret.values.yaml]",
    );
    let before = repo.read(FILE);
    let refused = piped(&repo, "secrets set lake prod hub.token", NEW);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("is also read by `lake/staging`"),
        "{}",
        refused.stderr
    );
    assert_eq!(repo.read(FILE), before);
    set(&repo, "lake/staging lake/prod hub.token", NEW);
    set(&repo, &format!("--file {FILE} hub.token"), "other");
    assert_eq!(get(&repo, "hub.token"), "other\n");
}

#[test]
fn what_cannot_be_changed_is_said() {
    let repo = repo(ODD);
    let before = repo.read(FILE);
    for (args, value, said) in [
        ("lake prod hub", NEW, "it is a map or a list"),
        ("lake prod hub.list[7]", NEW, "the list has 2 items"),
        ("lake prod hub.token.below", NEW, "which has no `below`"),
        ("lake prod hub.token", "\n", "the value is empty"),
        (
            "lake staging hub.token",
            NEW,
            "`lake/staging` lists no file that sops encrypted",
        ),
        (
            "lake shore hub.token",
            NEW,
            "cluster `lake` has no hub `shore`",
        ),
        ("pond prod hub.token", NEW, "there is no cluster `pond`"),
        ("lake hub.token", NEW, "before KEY come a cluster and a hub"),
        (
            "--file config/clusters/lake/prod.values.yaml hub.token",
            NEW,
            "is not encrypted",
        ),
    ] {
        let refused = piped(&repo, &format!("secrets set {args}"), value);
        assert_eq!(refused.code, Some(1), "{args}: {}", refused.stderr);
        assert!(refused.stderr.contains(said), "{args}: {}", refused.stderr);
        assert!(
            !refused.stderr.contains("correct-horse"),
            "{}",
            refused.stderr
        );
        assert_eq!(repo.read(FILE), before, "{args}");
    }
}

/// In encrypted files by their keys, and in plain ones by their lines; nothing shows it.
#[test]
fn a_value_is_found_wherever_it_is() {
    let repo = repo(&format!("a: {{b: \"x {MARKER}\"}}\nlist: [z, {MARKER}]\n"));
    git(&repo.root, &["init", "--quiet"]);
    repo.write("config/keys/deploy.key", &format!("lines\n{MARKER}\n"));
    let encrypted = tool("sops")
        .args(["encrypt", "--in-place", "config/keys/deploy.key"])
        .current_dir(&repo.root)
        .output();
    assert_succeeded(&encrypted.unwrap());
    repo.write("notes.txt", &format!("one\n{MARKER}\n"));
    repo.write(".gitignore", "ignored\n");
    repo.write("ignored", MARKER);
    let found = piped(&repo, "secrets find", MARKER);
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    assert_eq!(
        found.stdout,
        format!(
            "{FILE}: a.b\n{FILE}: list[1]\nconfig/keys/deploy.key\nnotes.txt:2: in plain text\n"
        )
    );
    assert!(!found.stderr.contains(MARKER));
}

/// Values in plain YAML may be indented or escaped; what cannot be read is no "nowhere".
#[test]
fn a_value_of_several_lines_and_a_locked_file() {
    let repo = repo("# wandering-albatross-in-a-comment\na: b\n");
    git(&repo.root, &["init", "--quiet"]);
    repo.write(
        "notes.yaml",
        "pem: |\n  BEGIN wandering\n  END albatross\nit: 'it''s wandering'\n",
    );
    let found = piped(&repo, "secrets find", "BEGIN wandering\nEND albatross\n");
    assert_eq!(
        found.stdout, "notes.yaml: pem: in plain text\n",
        "{}",
        found.stderr
    );
    let found = piped(&repo, "secrets find", "it's wandering");
    assert_eq!(found.stdout, "notes.yaml: it: in plain text\n");
    let found = piped(&repo, "secrets find", "wandering-albatross-in-a-comment");
    assert_eq!(found.stdout, format!("{FILE}\n"));
    let large = "x".repeat(6 << 20) + "\nalbatross-in-a-large-file\n";
    repo.write("large.txt", &large);
    let found = piped(&repo, "secrets find", "albatross-in-a-large-file");
    assert_eq!(found.stdout, "large.txt:2: in plain text\n");
    std::fs::write(repo.root.join("locked"), b"\0GITCRYPT\0abc").unwrap();
    let found = piped(&repo, "secrets find", "albatross");
    assert_eq!(found.code, Some(1));
    assert!(
        found.stderr.contains("`locked` is locked by git-crypt"),
        "{}",
        found.stderr
    );
}

/// Each reads what the other one has written.
#[test]
fn two_at_once_lose_nothing() {
    let repo = repo(ODD);
    let set = |key: &str| {
        let args = format!("secrets set lake prod hub.{key}");
        let mut child = repo.command(&args).stdin(Stdio::piped()).spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(NEW.as_bytes())
            .unwrap();
        child
    };
    let children = ["one", "two", "three"].map(set);
    for child in children {
        let ran: Ran = child.into();
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    for key in ["one", "two", "three"] {
        assert_eq!(get(&repo, &format!("hub.{key}")).trim_end(), NEW);
    }
}

/// The file that it leads to is changed, for all who read it.
#[test]
fn a_link_stays_a_link() {
    let repo = repo(ODD);
    let shared = repo.root.join("shared.secret.yaml");
    std::fs::rename(repo.root.join(FILE), &shared).unwrap();
    std::os::unix::fs::symlink(&shared, repo.root.join(FILE)).unwrap();
    set(&repo, "lake prod hub.token", NEW);
    assert!(repo.root.join(FILE).is_symlink());
    assert_eq!(get(&repo, "hub.token").trim_end(), NEW);
    let other = "config/clusters/lake/enc-staging.secret.values.yaml";
    std::os::unix::fs::symlink(&shared, repo.root.join(other)).unwrap();
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "staging.values.yaml]",
        "staging.values.yaml, enc-staging.secret.values.yaml]",
    );
    let refused = piped(&repo, "secrets set lake prod hub.token", "x");
    assert!(
        refused.stderr.contains("is also read by `lake/staging`"),
        "{}",
        refused.stderr
    );
}

/// Another file wins over it.
#[test]
fn what_has_no_effect_is_refused() {
    let repo = repo(ODD);
    repo.write(
        "config/clusters/lake/last.values.yaml",
        "hub: {token: plain}\n",
    );
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "enc-prod.secret.values.yaml]",
        "enc-prod.secret.values.yaml, last.values.yaml]",
    );
    let refused = piped(&repo, "secrets set lake prod hub.token", NEW);
    assert!(
        refused.stderr.contains("which has no effect"),
        "{}",
        refused.stderr
    );
    set(&repo, "lake prod hub.other", NEW);
}

/// Without its key sops says why, and the file is as it was.
#[test]
fn without_a_key_nothing_is_changed() {
    let mut repo = repo(ODD);
    repo.env.retain(|(name, _)| !name.starts_with("SOPS_"));
    let before = repo.read(FILE);
    let refused = piped(&repo, "secrets set lake prod hub.token", NEW);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("cannot decrypt"),
        "{}",
        refused.stderr
    );
    assert_eq!(repo.read(FILE), before);
}

/// The rule of its `sops` block decides what is encrypted.
#[test]
fn what_would_stay_in_plain_text_is_refused() {
    let repo = repo(ODD);
    let refused = piped(&repo, "secrets set lake prod hub.host_unencrypted", NEW);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("in plain text"),
        "{}",
        refused.stderr
    );
    assert!(!Path::new(&repo.read(FILE)).exists());
    assert!(!repo.read(FILE).contains("correct-horse"));
}
