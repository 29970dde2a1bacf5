//! Charts of helm's first version, whose dependencies are in requirements.yaml.

use std::{fs, path::Path};

use crate::{
    charts::{RENDER, boulder, boulders, repo},
    generate::git,
    repo::{Repo, Shared},
};

/// Moves what a chart lists in Chart.yaml to requirements.yaml.
fn to_first_version(repo: &Repo, chart: &str) {
    let chart = format!("helm-charts/{chart}");
    let text = repo.read(&format!("{chart}/Chart.yaml"));
    let (described, listed) = text.split_once("dependencies:").unwrap();
    let described = described.replace("apiVersion: v2", "apiVersion: v1");
    repo.write(&format!("{chart}/Chart.yaml"), &described);
    let listed = format!("dependencies:{listed}");
    repo.write(&format!("{chart}/requirements.yaml"), &listed);
}

/// A repository whose hubs have `pond`, which gets `stone` by requirements.yaml, and `stone` a schema.
fn pond() -> Repo {
    let repo = Repo::new();
    to_first_version(&repo, "pond");
    give_schema(&repo);
    repo
}

fn give_schema(repo: &Repo) {
    let schema = "properties: {size: {type: integer}}\n";
    repo.write("helm-charts/stone/values.schema.yaml", schema);
}

const TOO_BIG: &str = "stone: {size: big}\n";

#[test]
fn what_requirements_yaml_lists_is_fetched_and_rendered() {
    let work = Repo::new();
    let served = boulders(&work.root);
    let repo = repo(&served.address, "1.0.0");
    to_first_version(&repo, "pond");
    to_first_version(&repo, "stone");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.0.0");
}

#[test]
fn requirements_lock_has_the_version_of_a_range() {
    let work = Repo::new();
    let served = boulders(&work.root);
    let repo = repo(&served.address, ">=1.0");
    to_first_version(&repo, "stone");
    let said = repo.fails(RENDER);
    let missing = "helm-charts/stone/requirements.yaml:1:23: dependency `boulder`: `>=1.0` is not one version, and \
                   no requirements.lock says which one";
    assert!(said.contains(missing), "{said}");
    let lock = |version: &str| {
        let address = &served.address;
        let lock = format!(
            "dependencies:\n- {{name: boulder, repository: \"{address}\", version: {version}}}\n"
        );
        repo.write("helm-charts/stone/requirements.lock", &lock);
    };
    lock("1.1.0");
    assert_eq!(boulder(&repo.ok(RENDER)), "boulder-1.1.0");
    lock("0.9.0");
    let said = repo.fails(RENDER);
    let other = "helm-charts/stone/requirements.yaml:1:23: dependency `boulder`: requirements.lock has 0.9.0, and \
                 requirements.yaml wants >=1.0";
    assert!(said.contains(other), "{said}");
}

#[test]
fn values_are_held_against_the_schema_of_what_requirements_yaml_lists() {
    let repo = pond();
    repo.write("config/clusters/lake/staging.values.yaml", TOO_BIG);
    let said = repo.fails("validate");
    assert!(said.contains("`stone.size`: it is a string"), "{said}");
}

#[test]
fn what_requirements_yaml_lists_and_the_cache_lacks_is_named() {
    let repo = pond();
    let elsewhere = "https://charts.example.org";
    repo.edit(
        "helm-charts/pond/requirements.yaml",
        "file://../stone",
        elsewhere,
    );
    let said = repo.ok("validate").stdout;
    let missing =
        "the values of `stone` 0.1.0 were not checked: the chart is missing from the cache";
    assert!(said.contains(missing), "{said}");
    repo.fails("validate --strict");
}

#[test]
fn the_index_has_its_own_requirements_yaml() {
    let repo = Repo::new();
    give_schema(&repo);
    to_first_version(&repo, "pond");
    fs::remove_file(repo.root.join("helm-charts/pond/requirements.yaml")).unwrap();
    repo.write("config/clusters/lake/staging.values.yaml", TOO_BIG);
    git(&repo.root, &["init", "--quiet"]);
    git(&repo.root, &["add", "."]);
    let listed = "dependencies: [{name: stone, version: 0.1.0, repository: file://../stone}]\n";
    repo.write("helm-charts/pond/requirements.yaml", listed);
    repo.ok("validate --staged");
    git(&repo.root, &["add", "."]);
    let said = repo.fails("validate --staged");
    assert!(said.contains("`stone.size`: it is a string"), "{said}");
}

#[test]
fn a_change_below_what_requirements_yaml_lists_redeploys_the_hub() {
    let repo = pond();
    for file in [
        "pond/requirements.yaml",
        "pond/requirements.lock",
        "stone/values.yaml",
    ] {
        let ran = repo.ok(&format!(
            "generate helm-upgrade-jobs helm-charts/{file} --format json"
        ));
        assert!(
            ran.stdout.contains("helm-charts/pond"),
            "{file}: {}",
            ran.stdout
        );
    }
    repo.write("helm-charts/pond/.helmignore", "requirements.*\n");
    for file in ["pond/requirements.lock", "stone/values.yaml"] {
        let ran = repo.ok(&format!(
            "generate helm-upgrade-jobs helm-charts/{file} --format json"
        ));
        assert!(
            !ran.stdout.contains("helm-charts/pond"),
            "{file}: {}",
            ran.stdout
        );
    }
}

#[test]
fn a_hub_of_such_a_chart_is_deployed() {
    let shared = Shared::cluster();
    let repo = Repo::on(&shared, &["elder"]);
    to_first_version(&repo, "pond");
    repo.ok("deploy lake");
    let stone = shared.kubectl("get configmap stone --namespace elder --output name");
    assert_eq!(stone.trim(), "configmap/stone");
}

#[test]
fn a_schema_with_a_byte_order_mark_is_read() {
    let repo = pond();
    let file = "helm-charts/stone/values.schema.json";
    repo.write(
        file,
        "\u{feff}{\"properties\": {\"size\": {\"type\": \"integer\"}}}",
    );
    let schema = Path::new("helm-charts/stone/values.schema.yaml");
    fs::remove_file(repo.root.join(schema)).unwrap();
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "kubeconfig:\n  file: kubeconfig.yaml",
        "",
    );
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "provider: kubeconfig",
        "provider: local",
    );
    repo.ok("deploy lake --dry-run");
}
