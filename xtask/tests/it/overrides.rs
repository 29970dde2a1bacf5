//! Hubs with `chart_override`: a file in the place of the Chart.yaml of basehub.

use std::fs;

use serde_json::Value;

use crate::{
    charts::{boulder, boulder_chart, boulders},
    generate::{git, pairs},
    repo::{Repo, Shared},
};

/// A Chart.yaml of basehub that depends on this.
fn basehub(dependency: &str) -> String {
    format!("apiVersion: v2\nname: basehub\nversion: 0.1.0\ndependencies: [{dependency}]\n")
}

/// `plain` has basehub as it is, `own` another Chart.yaml beside its cluster.yaml, and `dask`, whose chart is built on
/// basehub, one that lies elsewhere.
const HUBS: [(&str, &str); 3] = [
    ("plain", "helm_chart: basehub"),
    (
        "own",
        "helm_chart: basehub\n  chart_override: newer-chart.yaml",
    ),
    (
        "dask",
        "helm_chart: daskhub\n  chart_override: helm-charts/basehub/newer-chart.yaml",
    ),
];

/// Those hubs, in the cluster.yaml of `repo`.
fn write_hubs(repo: &Repo) {
    let yaml = repo.read("config/clusters/lake/cluster.yaml");
    let (mut yaml, _) = yaml
        .split_once("hubs:")
        .map(|(a, b)| (a.to_owned(), b))
        .unwrap();
    yaml += "hubs:\n";
    for (hub, chart) in HUBS {
        yaml += &format!(
            "- name: over-{hub}\n  domain: {hub}.example.org\n  helm_chart_values_files: []\n  {chart}\n"
        );
    }
    repo.write("config/clusters/lake/cluster.yaml", &yaml);
}

/// Writes the three descriptions of basehub, which want `old`, `own` and `elsewhere`; daskhub is built on it.
fn write_charts(repo: &Repo, old: &str, own: &str, elsewhere: &str) {
    repo.write("helm-charts/basehub/Chart.yaml", &basehub(old));
    repo.write("config/clusters/lake/newer-chart.yaml", &basehub(own));
    repo.write("helm-charts/basehub/newer-chart.yaml", &basehub(elsewhere));
    repo.write(
        "helm-charts/daskhub/Chart.yaml",
        "apiVersion: v2\nname: daskhub\nversion: 0.1.0\n\
         dependencies: [{name: basehub, version: 0.1.0, repository: file://../basehub}]\n",
    );
    let lock = "dependencies: [{name: basehub, version: 0.1.0, repository: file://../basehub}]\n";
    repo.write("helm-charts/daskhub/Chart.lock", lock);
}

#[test]
fn an_override_has_its_own_dependencies_and_no_lock() {
    let work = Repo::new();
    let served = boulders(&work.root);
    let repo = Repo::new();
    repo.write(
        "config/clusters/lake/cluster.yaml",
        "name: lake\nprovider: local\nhubs:\n",
    );
    write_hubs(&repo);
    let of = |version: &str| {
        let address = &served.address;
        format!("{{name: boulder, version: {version}, repository: \"{address}\"}}")
    };
    write_charts(&repo, &of("^1.0.0"), &of("1.1.0"), &of("1.1.0"));
    let address = &served.address;
    repo.write(
        "helm-charts/basehub/Chart.lock",
        &format!("dependencies: [{{name: boulder, version: 1.0.0, repository: \"{address}\"}}]\n"),
    );
    let rendered = |hub: &str| {
        let ran = repo.ok(&format!("deploy lake over-{hub} --dry-run"));
        boulder(&ran).to_owned()
    };
    assert_eq!(rendered("plain"), "boulder-1.0.0");
    assert_eq!(rendered("own"), "boulder-1.1.0");
    assert_eq!(rendered("dask"), "boulder-1.1.0");

    // What charts/ has for the dependencies of the other Chart.yaml is no part of this one.
    let charts = repo.root.join("helm-charts/basehub/charts");
    fs::create_dir(&charts).unwrap();
    boulder_chart(&work.root, "1.0.0", &charts);
    let file = "config/clusters/lake/newer-chart.yaml";
    let with_dependency = repo.read(file);
    repo.write(file, &basehub(""));
    let ran = repo.ok("deploy lake over-own --dry-run");
    assert!(!ran.stdout.contains("boulder"), "{}", ran.stdout);

    repo.write(file, &with_dependency.replace("1.1.0", "1.2.0"));
    let said = repo.fails("validate lake --fetch");
    let wanted = "config/clusters/lake/newer-chart.yaml: dependency `boulder`: cannot get the chart `boulder` 1.2.0";
    assert!(said.contains(wanted), "{said}");
    assert!(!said.contains("basehub/Chart.yaml"), "{said}");
}

#[test]
fn what_an_override_changes_is_deployed() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &[]);
    write_hubs(&repo);
    let kind = |hub: &str| {
        let hub = format!("over-{hub}");
        cluster.kubectl(&format!(
            "get configmap stone -n {hub} -o jsonpath={{.data.kind}}"
        ))
    };
    let stone = repo.read("helm-charts/stone/templates/stone.yaml");
    for other in ["basalt", "slate"] {
        repo.write(
            &format!("helm-charts/{other}/Chart.yaml"),
            "apiVersion: v2\nname: stone\nversion: 0.1.0\n",
        );
        repo.write(
            &format!("helm-charts/{other}/templates/stone.yaml"),
            &stone.replace("granite", other),
        );
    }
    let of =
        |folder: &str| format!("{{name: stone, version: 0.1.0, repository: file://../{folder}}}");
    write_charts(&repo, &of("stone"), &of("basalt"), &of("slate"));
    repo.ok("deploy lake");
    assert_eq!(kind("plain"), "granite");
    assert_eq!(kind("own"), "basalt");
    assert_eq!(kind("dask"), "slate");

    // A hub that loses its override loses what it brought.
    repo.edit(
        "config/clusters/lake/newer-chart.yaml",
        "file://../basalt",
        "file://../slate",
    );
    let diff = repo.ok("deploy lake over-own --dry-run --diff").stdout;
    assert!(diff.contains("slate") && diff.contains("basalt"), "{diff}");
    repo.ok("deploy lake over-own");
    assert_eq!(kind("own"), "slate");
    repo.ok("rollback lake over-own --yes");
    assert_eq!(kind("own"), "basalt");
}

#[test]
fn a_changed_override_redeploys_the_hubs_that_name_it() {
    let repo = Repo::new();
    write_hubs(&repo);
    let of =
        |folder: &str| format!("{{name: stone, version: 0.1.0, repository: file://../{folder}}}");
    write_charts(&repo, "", &of("stone"), "");
    let hubs = |file: &str| {
        let ran = repo.ok(&format!("generate helm-upgrade-jobs {file} --format json"));
        let lists: Value = serde_json::from_str(&ran.stdout).unwrap();
        let all = pairs(&lists["prod-jobs"], "hub_names").into_iter();
        let of_lake = all.filter(|(cluster, _)| cluster == "lake");
        of_lake.map(|(_, hub)| hub).collect::<Vec<_>>()
    };
    let own = "config/clusters/lake/newer-chart.yaml";
    assert_eq!(hubs(own), ["over-own"]);
    let table = repo.ok(&format!("generate helm-upgrade-jobs {own}")).stdout;
    let reason = format!("Following chart override was modified: {own}");
    assert!(table.contains(&reason), "{table}");
    // This one lies in the folder of basehub, whose other hubs have nothing to do with it.
    assert_eq!(hubs("helm-charts/basehub/newer-chart.yaml"), ["over-dask"]);
    // What only an override depends on.
    assert_eq!(hubs("helm-charts/stone/Chart.yaml"), ["over-own"]);
    let all = ["over-dask", "over-own", "over-plain"];
    assert_eq!(hubs("helm-charts/basehub/Chart.yaml"), all);
    // One that cannot be read is a matter of its own hubs.
    repo.write(own, "name: [\n");
    assert_eq!(hubs(own), ["over-own"]);
    assert_eq!(hubs("helm-charts/basehub/newer-chart.yaml"), ["over-dask"]);
}

#[test]
fn an_override_that_git_would_commit_counts() {
    let repo = Repo::new();
    write_hubs(&repo);
    write_charts(&repo, "", "", "");
    git(&repo.root, &["init", "--quiet"]);
    git(&repo.root, &["add", "--all"]);
    git(
        &repo.root,
        &[
            "rm",
            "--quiet",
            "--cached",
            "config/clusters/lake/newer-chart.yaml",
        ],
    );
    let said = repo.fails("validate hub-config lake --staged");
    let wanted = "hub `over-own`: `config/clusters/lake/newer-chart.yaml` isn't in git's index";
    assert!(said.contains(wanted), "{said}");
    git(&repo.root, &["add", "--all"]);
    repo.write("config/clusters/lake/newer-chart.yaml", "name: [\n");
    repo.ok("validate hub-config lake --staged");
}
