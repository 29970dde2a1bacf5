//! What a fleet has in common: a cluster with a problem that stops no other, and hubs that are in each other's way.

use std::{fs, process::Output};

use serde_json::Value;

use crate::{
    generate::git,
    repo::{Repo, Shared},
};

const SEA: &str = "config/clusters/sea/cluster.yaml";

/// What is wrong with this cluster.yaml.
const BAD: &str = "name: sea\nprovider: gpc\nhubs: []\n";
const PROBLEM: &str = "config/clusters/sea/cluster.yaml:2:11: `provider`: `\"gpc\"` isn't one of";

#[test]
fn scripts_get_the_names_of_the_other_clusters() {
    let repo = Repo::new();
    repo.write(SEA, BAD);
    let ran = repo.ok("config get-clusters");
    assert_eq!(ran.stdout, "lake\nriver\n");
    assert!(ran.stderr.contains(PROBLEM), "{}", ran.stderr);
    let said = repo.fails("config get-hubs sea");
    assert!(said.contains(PROBLEM), "{said}");
}

#[test]
fn names_of_no_cluster_are_an_error() {
    let repo = Repo::new();
    for cluster in ["lake", "river"] {
        fs::remove_dir_all(repo.root.join("config/clusters").join(cluster)).unwrap();
    }
    repo.write(SEA, BAD);
    let said = repo.fails("config get-clusters");
    assert!(said.contains(PROBLEM), "{said}");
}

#[test]
fn a_rehearsal_cluster_beside_a_bad_cluster() {
    let repo = Repo::own();
    repo.write(SEA, BAD);
    let ran = repo.ok("local status");
    assert!(
        ran.stdout.starts_with("local: ") && ran.stderr.contains(PROBLEM),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
}

/// The program in a workflow, with the folder of its work tree as the root.
fn in_a_workflow(repo: &Repo, args: &str) -> Output {
    let mut command = repo.command(args);
    command.env("GITHUB_ACTIONS", "true").env("CI", "true");
    command
        .env("GITHUB_OUTPUT", repo.root.join("output"))
        .output()
        .unwrap()
}

#[test]
fn a_workflow_gets_the_jobs_of_the_others_and_an_annotation() {
    let repo = Repo::new();
    repo.write(SEA, BAD);
    let args = "generate helm-upgrade-jobs config/clusters/lake/prod.values.yaml --format json";
    let output = in_a_workflow(&repo, args);
    assert_eq!(output.status.code(), Some(1));
    let lists: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(lists["prod-jobs"][0]["cluster_name"], "lake");
    let said = String::from_utf8_lossy(&output.stderr);
    let annotation = format!("\n::error file={SEA},line=2,col=11::`provider`: ");
    assert!(said.contains(&annotation), "{said}");
    assert!(repo.read("output").contains("prod-jobs<<"));
    let comment = repo.read("comment-body.txt");
    assert!(
        comment.contains("has problems: sea") && comment.contains("| kubeconfig | lake | prod |"),
        "{comment}"
    );
}

/// A folder's name is shown, and is no line of a script.
#[test]
fn a_pipeline_fails_for_a_bad_cluster() {
    let repo = Repo::new();
    repo.write("config/clusters/a;reboot/cluster.yaml", BAD);
    let ran = repo.run("generate helm-upgrade-jobs README.md --format gitlab");
    assert_eq!(ran.code, Some(1));
    let text = ran.stdout;
    let pipeline: Value = serde_json::from_str(&text).unwrap();
    let job = &pipeline["clusters that are left out"];
    assert_eq!(job["script"][0], "xtask validate cluster-config");
    assert!(!text.contains("reboot"), "{text}");
    assert_eq!(repo.run("validate cluster-config").code, Some(1));
}

/// Their jobs then say what is wrong with the chart.
#[test]
fn a_chart_that_cannot_be_read_stops_no_other_chart() {
    let repo = Repo::new();
    let yaml = repo.read("config/clusters/lake/cluster.yaml");
    let yaml = yaml
        .replace("name: lake", "name: sea")
        .replace("pond", "mud")
        .replace("lake.example", "sea.example");
    repo.write(SEA, &yaml);
    repo.write("helm-charts/mud/Chart.yaml", "name: [\n");
    repo.write("README.md", "");
    for (changed, hubs) in [
        ("helm-charts/mud/Chart.yaml", ["sea", "sea"].as_slice()),
        ("config/clusters/lake/prod.values.yaml", &["lake", "lake"]),
        ("README.md", &[]),
    ] {
        let args = format!("generate helm-upgrade-jobs {changed} --format json");
        let lists: Value = serde_json::from_str(&repo.ok(&args).stdout).unwrap();
        let both = ["staging-jobs", "prod-jobs"].map(|it| lists[it].as_array().unwrap().clone());
        let clusters: Vec<_> = both
            .iter()
            .flatten()
            .map(|it| &it["cluster_name"])
            .collect();
        assert_eq!(clusters, hubs, "{changed}");
    }
}

#[test]
fn status_has_a_row_for_a_bad_cluster() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["fleet-status"]);
    fs::remove_dir_all(repo.root.join("config/clusters/river")).unwrap();
    repo.write(SEA, BAD);
    let table = repo.ok("status").stdout;
    let row = table.lines().find(|it| it.starts_with("sea "));
    assert!(row.is_some_and(|it| it.contains(PROBLEM)), "{table}");
    assert!(table.contains("not deployed"), "{table}");
    for args in ["status sea lake", "status lake sea"] {
        let ran = repo.run(args);
        assert_eq!(ran.code, Some(1), "{args}");
        assert!(
            ran.stdout.contains("not deployed"),
            "{args}: {}",
            ran.stderr
        );
    }
    let said = repo.fails("status sea");
    assert!(said.contains(PROBLEM), "{said}");
}

/// Also where the root is a folder of the git work tree, since GitHub takes paths from the top of that.
#[test]
fn annotations_have_plain_paths() {
    let repo = Repo::new();
    let fleet = repo.root.join("fleet");
    fs::create_dir(&fleet).unwrap();
    for folder in ["config", "helm-charts"] {
        fs::rename(repo.root.join(folder), fleet.join(folder)).unwrap();
    }
    repo.write("deployments/x/common.yaml", "detph: 1\n");
    repo.edit(
        "fleet/config/clusters/lake/cluster.yaml",
        "prod.values.yaml",
        "../../../../deployments/./x/common.yaml",
    );
    git(&repo.root, &["init", "--quiet"]);
    let output = in_a_workflow(&repo, "--root fleet validate");
    let said = String::from_utf8_lossy(&output.stdout);
    let annotation = "::error file=deployments/x/common.yaml,line=1,col=1::";
    assert!(said.contains(annotation) && !said.contains("/.."), "{said}");
    let args = "--root fleet generate helm-upgrade-jobs ../deployments/x/common.yaml";
    assert!(repo.ok(args).stdout.contains("common.yaml"));
}

/// Two clusters without network and login, each with one hub of this domain; `more` is added to cluster.yaml.
fn two_hubs(provider: &str, more: &str) -> Repo {
    let repo = Repo::new();
    for (cluster, hub) in [("lake", "prod"), ("river", "moved")] {
        repo.write(
            &format!("config/clusters/{cluster}/cluster.yaml"),
            &format!(
                "name: {cluster}\nprovider: {provider}\nkubeconfig: {{file: kubeconfig.yaml}}\nhubs:\n\
                 - name: {hub}\n  stage: staging\n  domain: one.example.org\n  helm_chart: pond\n  \
                 helm_chart_values_files: []\n{more}"
            ),
        );
    }
    repo
}

#[test]
fn hubs_of_two_clusters_may_share_a_domain_for_a_time() {
    let repo = two_hubs("kubeconfig", "");
    let said = repo.ok("validate cluster-config").stdout;
    for part in [
        "lake/cluster.yaml:7:11: warning: hub `prod`: hub `moved` of `river` has the same domain",
        "river/cluster.yaml:7:11: warning: hub `moved`: hub `prod` of `lake` has the same domain",
        "0 problems, 2 warnings",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn nobody_looks_for_a_hub_of_a_rehearsal_cluster() {
    let repo = two_hubs("local", "");
    assert!(
        repo.ok("validate cluster-config")
            .stdout
            .ends_with(": no problems\n")
    );
    let beside = "config/clusters/lake/cluster.yaml";
    repo.edit(beside, "provider: local", "provider: kubeconfig");
    assert!(
        repo.ok("validate cluster-config")
            .stdout
            .ends_with(": no problems\n")
    );
}

#[test]
fn hubs_of_one_cluster_cannot_share_a_domain() {
    let more = "- name: next\n  domain: one.example.org\n  helm_chart: pond\n  helm_chart_values_files: []\n";
    let repo = two_hubs("kubeconfig", more);
    let said = repo.fails("validate cluster-config lake");
    for part in [
        "7:11: hub `prod`: hub `next` of `lake` has the same domain",
        "11:11: hub `next`: hub `prod` of `lake` has the same domain",
        ": 2 problems\n",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    // What is in a file of its own may be anything.
    let own = "one.example.org\n  domain_override_file: enc-domain.secret.yaml";
    repo.edit("config/clusters/lake/cluster.yaml", "one.example.org", own);
    repo.ok("validate cluster-config lake");
}

#[test]
fn ingresses_of_two_clusters_may_share_a_host_for_a_time() {
    let ingress = "ingress: {enabled: true, hosts: [one.example.org]}\n";
    let repo = two_hubs("kubeconfig", "");
    repo.edit(
        "helm-charts/pond/values.schema.yaml",
        "additionalProperties: false",
        "",
    );
    for cluster in ["lake", "river"] {
        let yaml = format!("config/clusters/{cluster}/cluster.yaml");
        repo.edit(
            &yaml,
            "helm_chart_values_files: []",
            "helm_chart_values_files: [own.yaml]",
        );
        repo.write(&format!("config/clusters/{cluster}/own.yaml"), ingress);
    }
    let yaml = "config/clusters/river/cluster.yaml";
    repo.edit(yaml, "domain: one.", "domain: two.");
    repo.write(
        "config/clusters/river/own.yaml",
        "ingress: {enabled: true, hosts: [two.example.org, one.example.org]}\n",
    );
    let said = repo.ok("validate hub-config").stdout;
    for part in [
        "lake/own.yaml:1:34: warning: hub `prod` of `lake`: its ingress has the host `one.example.org`, and so has",
        "river/own.yaml:1:51: warning: hub `moved` of `river`: its ingress has the host `one.example.org`, and so has",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

/// z2jh's ingress leads only what is below `hub.baseUrl` to a hub.
#[test]
fn hubs_of_one_cluster_may_share_a_domain_below_different_paths() {
    let more = "- name: next\n  domain: one.example.org\n  helm_chart: pond\n  helm_chart_values_files: [next.yaml]\n";
    let repo = two_hubs("kubeconfig", more);
    repo.edit(
        "helm-charts/pond/values.schema.yaml",
        "additionalProperties: false",
        "",
    );
    let ingress = "ingress: {enabled: true, hosts: [one.example.org]}\n";
    let next = "config/clusters/lake/next.yaml";
    repo.write(next, &format!("hub: {{baseUrl: /next/}}\n{ingress}"));
    repo.write("helm-charts/pond/values.yaml", ingress);
    repo.ok("validate lake");
    repo.write(next, ingress);
    let said = repo.fails("validate cluster-config lake");
    assert!(
        said.contains(": hub `prod`: hub `next` of `lake` has the same domain"),
        "{said}"
    );
}

#[test]
fn a_cluster_with_one_hub_needs_no_staging() {
    let repo = two_hubs("kubeconfig", "");
    let yaml = "config/clusters/lake/cluster.yaml";
    repo.edit(yaml, "  stage: staging\n", "");
    let without = "no hub has `staging` in its name";
    assert!(!repo.ok("validate lake").stdout.contains(without));
    repo.edit(
        yaml,
        "hubs:\n",
        "hubs:\n- {name: next, domain: two.example.org, helm_chart: pond, helm_chart_values_files: []}\n",
    );
    assert!(repo.ok("validate lake").stdout.contains(without));
}
