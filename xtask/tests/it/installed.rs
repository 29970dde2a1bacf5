//! The program without this repository: `cargo install --git` builds it from a clone, and a group's own has no Rust.

use std::{fs, path::Path, process::Command};

use crate::{
    generate::{commit, git},
    repo::{Repo, assert_succeeded, workspace},
};

/// What `cargo install --locked --git` needs, but for the minutes that it takes: Cargo.lock fits, and all that is compiled
/// in is in git.
#[test]
fn a_clone_has_all_that_an_installation_needs() {
    let repo = Repo::new();
    let clone = repo.home().join("clone");
    let workspace = workspace().to_str().unwrap();
    git(
        &repo.home(),
        &[
            "clone",
            "--quiet",
            "--depth",
            "1",
            &format!("file://{workspace}"),
            "clone",
        ],
    );
    let mut cargo = Command::new("cargo");
    let args = ["tree", "--locked", "--offline", "--package", "xtask"];
    assert_succeeded(&cargo.args(args).current_dir(&clone).output().unwrap());
    let mut count = 0;
    included(&clone.join("xtask/src"), &mut |file| {
        count += 1;
        assert!(file.is_file(), "{} is not in git", file.display());
    });
    assert!(count > 15, "{count}");
}

/// Calls `found` with each file that sources in this folder include.
fn included(folder: &Path, found: &mut impl FnMut(&Path)) {
    for path in fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()) {
        if path.is_dir() {
            included(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for rest in text.split("include_str!(\"").skip(1) {
                let (file, _) = rest.split_once('"').unwrap();
                found(&folder.join(file));
            }
        }
    }
}

/// A group's own repository: charts outside of helm-charts/, and neither Rust nor any file of ours.
#[test]
fn a_repository_without_rust_is_validated_and_planned() {
    let repo = Repo::new();
    fs::rename(repo.root.join("helm-charts"), repo.root.join("charts")).unwrap();
    let cluster = "config/clusters/lake/cluster.yaml";
    repo.edit(cluster, "helm_chart: pond", "helm_chart: charts/pond");
    fs::remove_dir_all(repo.root.join("config/clusters/river")).unwrap();
    repo.ok("validate");
    git(&repo.root, &["init", "--quiet"]);
    let base = commit(&repo, "first");
    repo.edit("charts/pond/values.yaml", "\n", "\n# A comment.\n");
    commit(&repo, "second");
    let jobs = repo.ok(&format!(
        "generate helm-upgrade-jobs --base {base} --format json"
    ));
    assert!(
        jobs.stdout.contains("\"hub_name\": \"prod\""),
        "{}",
        jobs.stdout
    );
}
