//! Finding the programs on PATH or in the cache, and building them, by a Go that does what the test wants.

use std::fs;

use crate::repo::{Ran, Repo, executable};

/// A PATH with nothing on it but what shell scripts need, and an empty cache.
pub(crate) fn bare() -> Repo {
    let mut repo = Repo::new();
    repo.without_tools();
    let bin = repo.home().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["sh", "sleep", "touch", "cat", "mkdir", "cp", "chmod"] {
        let found = ["/bin", "/usr/bin"]
            .iter()
            .map(|it| std::path::Path::new(it).join(name))
            .find(|it| it.exists());
        std::os::unix::fs::symlink(found.unwrap(), bin.join(name)).unwrap();
    }
    repo.env.push(("PATH".into(), bin.display().to_string()));
    repo
}

fn put(repo: &Repo, name: &str, lines: &str) {
    crate::repo::executable(&repo.home().join("bin").join(name), lines);
}

/// A Go that makes a script which says the wanted version. It notes each call.
const GO: &str = r#"
echo "$*" >> "$HOME/go-calls"
sleep 0.05
for it in "$@"; do
  case $last in -o) out=$it ;; esac
  last=$it
done
case $1 in install) out=$GOBIN/${last%@*}; name=${out##*/}; out=$GOBIN/$name; version=${last#*@v} ;; esac
case ${out##*/} in kube*) version=1.34.4 ;; etcd) version=3.6.16 ;; coredns) version=1.15.0 ;; esac
case "$*" in *main.version=*) version=${*#*main.version=}; version=${version%% *} ;; esac
printf '#!/bin/sh\necho v%s\n' "$version" > "$out"
chmod +x "$out""#;

fn tools(repo: &Repo) -> Vec<String> {
    let Ok(entries) = fs::read_dir(repo.cache().join("xtask/tools")) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|it| it != "locks" && it != "probed.json");
    names.sort();
    names
}

#[test]
fn without_go_it_says_what_is_missing_and_how_to_get_it() {
    let repo = bare();
    put(&repo, "helm", "echo v3.14.0+g123");
    put(&repo, "sops", "echo sops 3.12.0");
    put(&repo, "kubectl", "echo 'Client Version: v1.36.1-gke.5'");
    let check = repo.run("setup --check");
    assert_eq!(check.code, Some(1));
    let row = |name: &str| {
        check
            .stdout
            .lines()
            .find(|it| it.starts_with(&format!("{name} ")))
            .unwrap()
            .to_owned()
    };
    assert!(
        row("helm").contains("3.14.0")
            && row("helm").ends_with("bin/helm is not a version that works"),
        "{}",
        check.stdout
    );
    assert!(
        row("sops").contains("3.12.0") && row("sops").ends_with("bin/sops"),
        "{}",
        check.stdout
    );
    assert!(row("kubectl").contains("1.36.1"), "{}", check.stdout);
    assert!(row("etcd").contains("missing"), "{}", check.stdout);
    assert!(
        check.stderr.contains("14 of 16 programs are missing"),
        "{}",
        check.stderr
    );
    let said = repo.fails("setup");
    assert!(
        said.contains("`helm` >=4.2 <5.0 (`") && said.contains("bin/helm` is 3.14.0)"),
        "{said}"
    );
    assert!(
        said.contains("`kwokctl` >=0.8 <0.9") && !said.contains("`sops`"),
        "{said}"
    );
    assert!(said.contains("https://go.dev/dl/"), "{said}");
    let said = repo.fails("deploy lake");
    assert!(
        said.contains("`helm`") && !said.contains("`etcd`"),
        "{said}"
    );
}

#[test]
fn builds_what_path_lacks_and_uses_it() {
    let mut repo = bare();
    put(&repo, "go", GO);
    put(&repo, "helm", "echo v4.2.0");
    let ran = repo.ok("setup");
    assert!(
        ran.stderr.contains("[1/15] sops-3.13.3: building"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("[14/15] etcd-3.6.16: built in "),
        "{}",
        ran.stderr
    );
    assert_eq!(tools(&repo).len(), 15, "{:?}", tools(&repo));
    let path = repo.ok("setup --print-path").stdout;
    let folders: Vec<_> = path.trim().split(':').collect();
    assert_eq!(folders.len(), 15);
    assert!(
        folders[0].ends_with("cache/xtask/tools/sops-3.13.3"),
        "{path}"
    );
    let check = repo.ok("setup --check").stdout;
    assert!(
        check.contains("tools/kubectl-1.34.4/kubectl") && check.contains("bin/helm"),
        "{check}"
    );

    let calls = || {
        fs::read_to_string(repo.home().join("go-calls"))
            .unwrap()
            .lines()
            .count()
    };
    assert_eq!(calls(), 15);
    repo.ok("setup");
    assert_eq!(calls(), 15, "what is there was built again");
    // The helm on PATH gets old.
    put(&repo, "helm", "echo v4.1.9");
    repo.ok("setup");
    assert_eq!(calls(), 16);
    let path = repo.ok("setup --print-path").stdout;
    assert!(path.contains("tools/helm-4.3.1"));
    // A person's PATH may have these folders already.
    let person_s = repo.env.iter_mut().find(|(it, _)| it == "PATH").unwrap();
    person_s.1 = format!("{}:{}", path.trim(), person_s.1);
    assert_eq!(repo.ok("setup --print-path").stdout, path);
}

#[test]
fn builds_only_what_is_asked_for() {
    let repo = bare();
    put(&repo, "go", GO);
    let ran = repo.ok("setup --for deploy");
    assert!(
        ran.stderr.ends_with("all 4 programs are installed\n"),
        "{}",
        ran.stderr
    );
    let names = tools(&repo);
    let names: Vec<_> = names
        .iter()
        .filter_map(|it| it.rsplit_once('-'))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["helm", "kubectl", "sops", "xtask-jsonnet"]);
    let table = repo.ok("setup --check --for deploy").stdout;
    assert_eq!(table.lines().count(), 5, "{table}");
    let path = repo.ok("setup --print-path --for deploy").stdout;
    assert_eq!(path.split(':').count(), 4, "{path}");
    let said = repo.fails("setup --check --for deploy,real-node");
    assert!(said.contains("10 of 14 programs are missing"), "{said}");
    repo.ok("setup --for deploy,rehearsal");
    assert_eq!(tools(&repo).len(), 10, "{:?}", tools(&repo));
    // Tests also need age.
    repo.ok("setup --for ci");
    repo.ok("setup --check");
}

#[test]
fn two_setups_at_once_build_once() {
    let repo = bare();
    put(&repo, "go", GO);
    let both = [repo.start("setup"), repo.start("setup")];
    for ran in both.map(Ran::from) {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    assert_eq!(
        fs::read_to_string(repo.home().join("go-calls"))
            .unwrap()
            .lines()
            .count(),
        16
    );
    repo.ok("setup --check");
}

#[test]
fn a_failed_or_killed_build_leaves_nothing_in_place() {
    let repo = bare();
    put(
        &repo,
        "go",
        "mkdir -p \"$GOBIN\"; echo half > \"$GOBIN/helm\"; echo first line >&2; echo 'go: no such host' >&2; exit 1",
    );
    let said = repo.fails("setup");
    assert!(said.contains("first line\ngo: no such host\n"), "{said}");
    assert!(said.contains("cannot build `helm-4.3.1`"), "{said}");
    assert_eq!(tools(&repo), Vec::<String>::new());

    // A Go that makes something which isn't the wanted program.
    put(
        &repo,
        "go",
        "printf '#!/bin/sh\\necho v0.0.1' > \"$GOBIN/helm\"; chmod +x \"$GOBIN/helm\"",
    );
    let said = repo.fails("setup");
    assert!(
        said.contains("reports another version than 4.3.1"),
        "{said}"
    );

    put(
        &repo,
        "go",
        "echo half > \"$GOBIN/helm\"; touch \"$HOME/at\"; sleep 30",
    );
    let mut child = repo.start("setup");
    crate::repo::wait_until("the build", || repo.home().join("at").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !tools(&repo).contains(&"helm-4.3.1".to_owned()),
        "{:?}",
        tools(&repo)
    );
    put(&repo, "go", GO);
    repo.ok("setup");
    repo.ok("setup --check");
    assert_eq!(tools(&repo).len(), 16, "{:?}", tools(&repo));
}

/// A shell takes an empty entry of PATH for the current folder.
#[test]
fn print_path_prints_the_folders_that_are_there() {
    let repo = bare();
    let tools = repo.cache().join("xtask/tools");
    assert_eq!(
        repo.ok("setup --print-path").stdout,
        format!("{}\n", tools.display())
    );
    let sops = tools.join("sops-3.13.3");
    fs::create_dir_all(&sops).unwrap();
    executable(&sops.join("sops"), "echo sops 3.13.3");
    assert_eq!(
        repo.ok("setup --print-path").stdout,
        format!("{}\n", sops.display())
    );
}

/// Neither by us nor by the programs that we start.
#[test]
fn nothing_is_started_from_the_current_folder() {
    let mut repo = bare();
    put(&repo, "helm", "echo v4.3.1");
    put(&repo, "sops", "echo sops 3.13.3");
    put(
        &repo,
        "kubectl",
        "echo \"PATH=$PATH\" >> \"$HOME/path\"\necho v1.34.4",
    );
    let planted = repo.home().join("planted");
    for name in ["helm", "kubectl", "git", "id", "etcd"] {
        let lines = format!("touch {}\necho v9.9.9", planted.display());
        executable(&repo.root.join(name), &lines);
    }
    let path = repo.env.iter_mut().find(|(it, _)| it == "PATH").unwrap();
    let fine = path.1.clone();
    path.1 = format!(":.:config/..:{fine}:");
    let check = repo.run("setup --check").stdout;
    assert!(
        check.contains("1.34.4") && !check.contains("9.9.9"),
        "{check}"
    );
    repo.run("deploy lake");
    repo.run("use-cluster-credentials lake kubectl");
    assert!(!planted.exists());
    let seen = fs::read_to_string(repo.home().join("path")).unwrap();
    assert!(
        seen.lines().all(|it| it == format!("PATH={fine}")),
        "{seen}"
    );
}
