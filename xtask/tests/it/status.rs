//! What the cluster keeps of who deployed what, and what that is good for.

use serde_json::Value;

use crate::{
    generate::git,
    repo::{Repo, Shared, tool},
};

/// Two hubs are deployed from two commits, and a release that no cluster.yaml has is there besides.
#[test]
fn releases_know_their_commits() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["known-staging", "known"]);
    repo.env.push(("GITHUB_ACTOR".into(), "ann[bot]".into()));
    an_ocean_that_is_away(&repo);
    git(&repo.root, &["init", "--quiet"]);
    git(&repo.root, &["add", "--all"]);
    git(&repo.root, &["commit", "--quiet", "--message", "first"]);
    let first = git(&repo.root, &["rev-parse", "HEAD"]);
    two_commits_are_deployed(&repo);
    let second = git(&repo.root, &["rev-parse", "HEAD"]);
    a_stray_release(&cluster, &repo);
    the_table_shows_all(&repo, &first, &second);
    programs_read_of_it(&repo, &second);
    an_older_commit_is_refused(&repo, &first);
}

fn an_ocean_that_is_away(repo: &Repo) {
    repo.write(
        "config/clusters/ocean/cluster.yaml",
        "name: ocean\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs: []\n",
    );
    repo.write(
        "config/clusters/ocean/kubeconfig.yaml",
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a}}]\n\
         clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n",
    );
}

/// The second one with changes that are in no commit.
fn two_commits_are_deployed(repo: &Repo) {
    let ran = repo.ok("deploy lake known-staging");
    assert!(!ran.stderr.contains("work tree"), "{}", ran.stderr);
    git(
        &repo.root,
        &["commit", "--quiet", "--allow-empty", "--message", "second"],
    );
    repo.write("new", "");
    let ran = repo.ok("deploy lake known");
    assert!(
        ran.stderr
            .contains("the work tree has changes that are in no commit"),
        "{}",
        ran.stderr
    );
}

fn a_stray_release(cluster: &Shared, repo: &Repo) {
    let helm = tool("helm")
        .args([
            "upgrade",
            "--install",
            "stray",
            "helm-charts/stone",
            "--namespace",
            "known-stray",
            "--create-namespace",
        ])
        .current_dir(&repo.root)
        .env("KUBECONFIG", &cluster.kubeconfig)
        .output()
        .unwrap();
    assert!(
        helm.status.success(),
        "{}",
        String::from_utf8_lossy(&helm.stderr)
    );
}

fn the_table_shows_all(repo: &Repo, first: &str, second: &str) {
    let ran = repo.run("status lake ocean");
    // `ocean` was named, and cannot be read.
    assert_eq!(ran.code, Some(1));
    let table = ran.stdout;
    assert!(table.contains("DEPLOYED (UTC)"), "{table}");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|it| {
            it.split("  ")
                .filter(|it| !it.is_empty())
                .map(str::trim)
                .collect()
        })
        .collect();
    let row = |release: &str| {
        rows.iter()
            .find(|it| it[1] == release)
            .unwrap_or_else(|| panic!("no {release} in {table}"))
    };
    assert_eq!(
        row("known-staging")[2..6],
        ["1", "pond 0.1.0", "deployed", "1/1"]
    );
    assert_eq!(
        row("known-staging")[7..],
        [
            "ann-bot",
            &format!("{} (1 behind)", &first[..12]),
            "https://known-staging.example.org"
        ]
    );
    assert_eq!(row("known")[8], format!("{} + changes", &second[..12]));
    assert_eq!(row("stray")[4], "deployed, in no cluster.yaml");
    let unreached = rows.iter().find(|it| it[0] == "ocean").unwrap();
    assert!(
        unreached[4].starts_with("the cluster does not answer at "),
        "{table}"
    );
}

fn programs_read_of_it(repo: &Repo, second: &str) {
    let rows: Vec<Value> =
        serde_json::from_str(&repo.ok("status lake --format json").stdout).unwrap();
    let known = rows.iter().find(|it| it["release"] == "known").unwrap();
    assert_eq!(
        (&known["commit"], &known["behind"], &known["is_ours"]),
        (&second.into(), &0.into(), &true.into())
    );
    assert_eq!(
        (&known["outcome"], &known["has_changes"]),
        (&"ready".into(), &true.into())
    );
    assert!(
        known["deployed"].as_str().unwrap().ends_with('Z'),
        "{known}"
    );
}

/// It would undo what somebody deployed.
fn an_older_commit_is_refused(repo: &Repo, first: &str) {
    git(&repo.root, &["checkout", "--quiet", first]);
    let said = repo.fails("deploy lake known");
    assert!(
        said.contains("which is newer than this one\n\nhint: `--force-older`"),
        "{said}"
    );
    repo.ok("deploy lake known --force-older");
    repo.ok("deploy lake known");
}

/// Those that are known are in tests/cases/config-*.
#[test]
fn names_of_a_cluster_that_is_not_known() {
    let repo = Repo::new();
    assert!(
        repo.fails("config get-hubs sea")
            .contains("there is no cluster `sea`")
    );
}

#[test]
fn a_hub_that_was_never_deployed() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["never"]);
    let table = repo.ok("status lake").stdout;
    assert!(table.contains("not deployed"), "{table}");
}
