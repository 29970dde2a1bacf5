//! What git would commit is checked, and nothing is read that a link leads to outside of the repository.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use crate::{
    generate::git,
    repo::{Key, Ran, Repo, executable, tool_path},
};

const STAGED: &str = "validate --staged";

/// A repository of git's, with everything committed.
fn committed() -> Repo {
    let repo = Repo::new();
    git(&repo.root, &["init", "--quiet"]);
    repo.write(".gitignore", "kubeconfig.yaml\n*.tgz\n");
    commit_all(&repo);
    repo
}

fn commit_all(repo: &Repo) {
    git(&repo.root, &["add", "."]);
    git(
        &repo.root,
        &["commit", "--quiet", "--no-verify", "--message", "all"],
    );
}

/// The repository with the hook of this one, which runs the program that is tested.
fn with_hook() -> Repo {
    let repo = committed();
    let program = env!("CARGO_BIN_EXE_xtask");
    executable(
        &repo.root.join(".git/hooks/pre-commit"),
        &format!("exec {program} validate --staged"),
    );
    repo
}

/// Commits as a person does, with the hook.
fn commit(repo: &Repo, args: &[&str]) -> Ran {
    let identity = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"];
    Command::new("git")
        .args(identity)
        .args(["commit", "--quiet", "--message", "more"])
        .args(args)
        .current_dir(&repo.root)
        .env("XDG_CACHE_HOME", repo.cache())
        .env("GIT_CEILING_DIRECTORIES", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .into()
}

const SECRET: &str = "config/clusters/lake/enc-lake.secret.yaml";

/// The file is encrypted in the work tree, and still plain in what would be committed.
#[test]
fn what_is_committed_counts() {
    let repo = with_hook();
    let key = Key::new();
    repo.write(SECRET, "password: correct-horse\n");
    git(&repo.root, &["add", SECRET]);
    let refused = commit(&repo, &[]);
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.stderr.contains("this is called secret")
            || refused.stdout.contains("this is called secret"),
        "{}{}",
        refused.stdout,
        refused.stderr
    );
    repo.encrypt(SECRET, &key);
    assert_ne!(commit(&repo, &[]).code, Some(0));
    git(&repo.root, &["add", SECRET]);
    let done = commit(&repo, &[]);
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
}

/// git makes another index for these, and names it in a variable.
#[test]
fn the_index_is_that_of_the_commit() {
    let values = "config/clusters/lake/prod.values.yaml";
    for args in [
        &["--all"][..],
        &[values],
        &["--only", values],
        &["--include", values],
    ] {
        let repo = with_hook();
        repo.write(values, "depth: deep\nno-such-key: 1\n");
        let refused = commit(&repo, args);
        assert_ne!(refused.code, Some(0), "{args:?}");
        // What is not committed does not matter.
        repo.write(
            "config/clusters/lake/common.values.yaml",
            "greeting: hallo\n",
        );
        let done = commit(&repo, &["config/clusters/lake/common.values.yaml"]);
        assert_eq!(
            done.code,
            Some(0),
            "{args:?}: {}{}",
            done.stdout,
            done.stderr
        );
    }
}

#[test]
fn a_commit_that_only_deletes_is_checked() {
    let repo = with_hook();
    git(
        &repo.root,
        &["rm", "--quiet", "config/clusters/lake/prod.values.yaml"],
    );
    let refused = commit(&repo, &[]);
    assert_ne!(refused.code, Some(0));
    let said = refused.stdout + &refused.stderr;
    assert!(
        said.contains("prod.values.yaml` isn't in git's index"),
        "{said}"
    );
}

#[test]
fn a_file_that_git_does_not_have() {
    let repo = committed();
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "prod.values.yaml]",
        "prod.values.yaml, more.values.yaml]",
    );
    repo.write("config/clusters/lake/more.values.yaml", "{}\n");
    repo.ok("validate");
    git(&repo.root, &["add", "config/clusters/lake/cluster.yaml"]);
    let missing = "config/clusters/lake/cluster.yaml:14:69: hub `prod`: \
                   `config/clusters/lake/more.values.yaml` isn't in git's index";
    let said = repo.fails(STAGED);
    assert!(said.contains(missing), "{said}");
    let path = "config/clusters/lake/more.values.yaml";
    git(&repo.root, &["add", "--intent-to-add", path]);
    let said = repo.fails(STAGED);
    assert!(said.contains(missing), "{said}");
    git(&repo.root, &["add", "."]);
    repo.ok(STAGED);
}

/// `helm dependency build` puts it there, and git ignores it.
#[test]
fn an_archive_that_git_ignores() {
    let repo = committed();
    repo.edit("helm-charts/pond/Chart.yaml", "file://../stone", "\"\"");
    let packaged = Command::new(tool_path("helm"))
        .args([
            "package",
            "helm-charts/stone",
            "--destination",
            "helm-charts/pond/charts",
        ])
        .current_dir(&repo.root)
        .output()
        .unwrap();
    assert!(packaged.status.success());
    git(&repo.root, &["add", "."]);
    repo.ok("validate --strict");
    repo.ok("validate --staged --strict");
    fs::remove_dir_all(repo.root.join("helm-charts/pond/charts")).unwrap();
    repo.fails(STAGED);
}

/// A checkout would run it.
#[test]
fn no_filter_is_run() {
    let repo = committed();
    repo.write(".gitattributes", "* filter=mallory\n");
    git(&repo.root, &["add", "."]);
    git(
        &repo.root,
        &["config", "filter.mallory.smudge", "touch ran; cat"],
    );
    git(
        &repo.root,
        &["config", "filter.mallory.clean", "touch ran; cat"],
    );
    let _ = fs::remove_file(repo.root.join("ran"));
    repo.ok(STAGED);
    assert!(!repo.root.join("ran").exists());
}

/// In a linked work tree git names its folder in a variable, too; in a submodule the files belong to another repository.
#[test]
fn work_trees_and_submodules() {
    let mut repo = with_hook();
    let linked = repo.home().join("linked");
    git(
        &repo.root,
        &["worktree", "add", "--quiet", linked.to_str().unwrap()],
    );
    let values = linked.join("config/clusters/lake/prod.values.yaml");
    fs::write(values, "no-such-key: 1\n").unwrap();
    repo.root = linked;
    git(&repo.root, &["add", "."]);
    assert_ne!(commit(&repo, &[]).code, Some(0));
    assert_ne!(commit(&repo, &["--all"]).code, Some(0));

    let charts = committed();
    let repo = committed();
    let url = charts.root.to_str().unwrap();
    let add = [
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        url,
        "shared",
    ];
    git(&repo.root, &add);
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "helm_chart: pond",
        "helm_chart: shared/helm-charts/pond",
    );
    git(&repo.root, &["add", "."]);
    repo.ok("validate --staged --strict");
}

#[test]
fn outside_of_git_there_is_no_index() {
    let said = Repo::new().fails(STAGED);
    assert!(said.contains("cannot read git's index"), "{said}");
}

/// A link that leads out of the repository would bring what is there into a chart, and by that into a cluster.
#[test]
fn links_out_of_the_repository() {
    for (link, target) in [
        ("helm-charts/pond/env", "/proc/self/environ"),
        ("helm-charts/pond/env", "../../../outside"),
        ("helm-charts/pond/folder", ".."),
        ("helm-charts/pond/templates/all.yaml", "../../../../outside"),
        ("helm-charts/pond/Chart.yaml", "/etc/passwd"),
        ("helm-charts/pond/Chart.lock", "/dev/zero"),
        ("helm-charts/pond/.helmignore", "/dev/zero"),
        ("helm-charts/pond/values.yaml", "../../.git/config"),
        (
            "config/clusters/lake/prod.values.yaml",
            "../../../../outside",
        ),
        ("config/clusters/lake/prod.values.yaml", "/dev/zero"),
        ("config/clusters/lake/cluster.yaml", "../../../../outside"),
        ("config/xtask.yaml", "/dev/zero"),
        (".sops.yaml", "/dev/urandom"),
        (".sops.yaml", "../outside"),
        ("config/clusters/sea", "/etc"),
    ] {
        let repo = committed();
        fs::write(repo.root.join("../outside"), "stolen: opensesame\n").unwrap();
        let link = repo.root.join(link);
        let base = repo.root.parent().unwrap();
        let _ = fs::remove_file(&link);
        let target = if target == ".." {
            base.to_str().unwrap()
        } else {
            target
        };
        symlink(target, &link).unwrap();
        git(&repo.root, &["add", "."]);
        for command in [
            "validate",
            STAGED,
            "validate --render",
            "deploy lake --dry-run",
        ] {
            let said = repo.fails(command);
            let is_told = [
                "outside of the repository",
                "neither a file nor a folder",
                "which is git's own",
            ];
            let is_staged = command == STAGED && said.contains("isn't in git's index");
            assert!(
                is_told.iter().any(|it| said.contains(it)) || is_staged,
                "{command}, {} -> {target}: {said}",
                link.display()
            );
            assert!(!said.contains("opensesame"), "{said}");
        }
        let stolen = Command::new("grep")
            .args(["-rlE", "opensesame|repositoryformatversion"])
            .arg(repo.cache())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&stolen.stdout), "");
    }
}

/// What cluster.yaml names may be anywhere in the repository, and nowhere else.
#[test]
fn paths_out_of_the_repository() {
    for (from, to) in [
        ("prod.values.yaml", "../../../../outside"),
        ("prod.values.yaml", "/etc/hostname"),
        ("helm_chart: pond", "helm_chart: ../outside-chart"),
        ("helm_chart: pond", "helm_chart: /tmp/chart"),
        ("kubeconfig.yaml", "../../../../outside"),
    ] {
        let repo = committed();
        fs::write(repo.root.join("../outside"), "stolen: opensesame\n").unwrap();
        repo.edit("config/clusters/lake/cluster.yaml", from, to);
        let said = repo.fails("deploy lake --dry-run");
        let is_told = ["outside of the repository", "there is no chart in"];
        assert!(is_told.iter().any(|it| said.contains(it)), "{to}: {said}");
        assert!(!said.contains("opensesame"), "{said}");
    }
    let repo = committed();
    repo.edit(
        "helm-charts/pond/Chart.yaml",
        "file://../stone",
        "file://../../../stone",
    );
    let said = repo.fails("validate");
    assert!(said.contains("stone"), "{said}");
}

/// The root may be a folder of the repository, and what is beside it belongs to it.
#[test]
fn a_folder_beside_the_root_is_inside() {
    let mut repo = committed();
    fs::create_dir(repo.root.join("deployments")).unwrap();
    for folder in ["config", "helm-charts"] {
        let to = repo.root.join("deployments").join(folder);
        fs::rename(repo.root.join(folder), to).unwrap();
    }
    let beside = repo.root.join("charts");
    fs::rename(repo.root.join("deployments/helm-charts"), beside).unwrap();
    symlink("../charts", repo.root.join("deployments/helm-charts")).unwrap();
    commit_all(&repo);
    repo.root.push("deployments");
    repo.ok("validate --strict");
    repo.ok("validate --staged --strict");
}

#[test]
fn a_file_that_is_too_large() {
    for file in [
        "config/clusters/lake/prod.values.yaml",
        "helm-charts/pond/values.yaml",
        "config/xtask.yaml",
    ] {
        let repo = committed();
        repo.write(file, &"# a line of a comment\n".repeat(300_000));
        git(&repo.root, &["add", "."]);
        for command in ["validate", STAGED] {
            let said = repo.fails(command);
            assert!(said.contains("larger than 5 MiB"), "{file}: {said}");
        }
    }
}
