//! What the cluster keeps of who deployed what, and what that is good for.

use std::process::Command;

use serde_json::Value;

use crate::repo::{Repo, Shared, tool};

fn git(repo: &Repo, args: &[&str]) -> String {
    let name = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"];
    let output = Command::new("git")
        .args(name)
        .args(args)
        .current_dir(&repo.root)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn releases_know_their_commits() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["known-staging", "known"]);
    repo.env.push(("GITHUB_ACTOR".into(), "ann[bot]".into()));
    repo.write(
        "config/clusters/ocean/cluster.yaml",
        "name: ocean\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs: []\n",
    );
    repo.write(
        "config/clusters/ocean/kubeconfig.yaml",
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a}}]\n\
         clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n",
    );
    git(&repo, &["init", "--quiet"]);
    git(&repo, &["add", "--all"]);
    git(&repo, &["commit", "--quiet", "--message", "first"]);
    let first = git(&repo, &["rev-parse", "HEAD"]);
    let ran = repo.ok("deploy lake known-staging");
    assert!(!ran.stderr.contains("work tree"), "{}", ran.stderr);
    git(
        &repo,
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
    let second = git(&repo, &["rev-parse", "HEAD"]);
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

    let table = repo.ok("status lake ocean").stdout;
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
    assert_eq!(row("known")[8], &second[..12]);
    assert_eq!(row("stray")[4], "deployed, in no cluster.yaml");
    let unreached = rows.iter().find(|it| it[0] == "ocean").unwrap();
    assert!(
        unreached[4].starts_with("the cluster does not answer: "),
        "{table}"
    );

    let rows: Vec<Value> =
        serde_json::from_str(&repo.ok("status lake --format json").stdout).unwrap();
    let known = rows.iter().find(|it| it["release"] == "known").unwrap();
    assert_eq!(
        (&known["commit"], &known["behind"], &known["is_ours"]),
        (&second.into(), &0.into(), &true.into())
    );

    // Back to the first commit: that would undo what somebody deployed.
    git(&repo, &["checkout", "--quiet", &first]);
    let said = repo.fails("deploy lake known");
    assert!(
        said.contains("which is newer than this one\n\nhint: `--force-older`"),
        "{said}"
    );
    repo.ok("deploy lake known --force-older");
    repo.ok("deploy lake known");
}

#[test]
fn names_for_scripts() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["b-staging", "a"]);
    repo.write(
        "config/clusters/brook/cluster.yaml",
        "name: brook\nprovider: aws\naws: {clusterName: brook, region: r}\n",
    );
    assert_eq!(
        repo.ok("config get-clusters").stdout,
        "brook\nlake\nriver\n"
    );
    assert_eq!(
        repo.ok("config get-clusters --provider aws").stdout,
        "brook\n"
    );
    assert_eq!(repo.ok("config get-hubs lake").stdout, "b-staging\na\n");
    assert!(
        repo.ok("config get-hubs")
            .stdout
            .starts_with("lake/b-staging\nlake/a\n")
    );
    assert!(
        repo.fails("config get-hubs sea")
            .contains("there is no cluster `sea`")
    );
    let table = repo.ok("status lake").stdout;
    assert!(table.contains("not deployed"), "{table}");
}
