//! What somebody meets who has never used the deployer: their mistakes in the words of the mistake, and README.md.

use crate::{generate::git, repo::Repo};

const LAKE: &str = "config/clusters/lake";

/// The cluster `lake` with these hubs of basehub or another chart of ours: their names, charts and values.
fn lake(hubs: &[(&str, &str, &str)]) -> Repo {
    let repo = Repo::own();
    let mut yaml =
        "name: lake\nprovider: gcp\ngcp: {project: p, cluster: c, zone: z}\nhubs:\n".to_owned();
    for (name, chart, values) in hubs {
        yaml += &format!(
            "- name: {name}\n  domain: {name}.example.org\n  helm_chart: {chart}\n  \
             helm_chart_values_files: [common.values.yaml, {name}.values.yaml]\n"
        );
        repo.write(&format!("{LAKE}/{name}.values.yaml"), values);
    }
    if hubs.is_empty() {
        yaml = yaml.replace("hubs:", "hubs: []");
    }
    repo.write(&format!("{LAKE}/cluster.yaml"), &yaml);
    repo.write(
        &format!("{LAKE}/common.values.yaml"),
        "nfs: {pv: {serverIP: 10.0.0.9}}\n",
    );
    repo
}

/// What `validate lake` finds, without what could not be checked.
fn found(repo: &Repo) -> Vec<String> {
    let ran = repo.run("validate lake");
    let lines = ran.stdout.lines().filter(|it| !it.contains("not checked"));
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    assert!(
        lines.pop().is_some_and(|it| it.starts_with("1 cluster")),
        "{}",
        ran.stderr
    );
    lines
}

#[test]
fn what_a_hub_has_to_set_is_told_at_its_own_file() {
    let repo = lake(&[
        ("staging", "basehub", "{}"),
        ("prod", "basehub", "jupyterhub: {}"),
    ]);
    repo.write(&format!("{LAKE}/common.values.yaml"), "{}\n");
    assert_eq!(
        found(&repo),
        [
            "config/clusters/lake/prod.values.yaml:1:1: hub `prod` of `lake`: `nfs.pv.serverIP`: it must not be empty \
             (a default of the chart `basehub`)",
            "config/clusters/lake/staging.values.yaml:1:1: hub `staging` of `lake`: `nfs.pv.serverIP`: it must not be \
             empty (a default of the chart `basehub`)",
        ]
    );
}

#[test]
fn what_hubs_of_one_file_lack_is_told_once() {
    let repo = lake(&[("staging", "pond", "{}"), ("prod", "pond", "{}")]);
    repo.write(
        "helm-charts/pond/Chart.yaml",
        "apiVersion: v2\nname: pond\nversion: 0.1.0\n",
    );
    repo.write(
        "helm-charts/pond/values.schema.yaml",
        "properties: {fish: {required: [kind]}}\n",
    );
    repo.write(&format!("{LAKE}/common.values.yaml"), "fish: {}\n");
    assert_eq!(
        found(&repo),
        [
            "config/clusters/lake/common.values.yaml:1:1: hub `prod` of `lake`: `fish`: the key `kind` is missing (and so \
          for `staging`)"
        ]
    );
}

#[test]
fn a_subcharts_key_at_the_top_is_told_with_its_place() {
    let repo = lake(&[
        ("staging", "basehub", "singleuser: {}\n"),
        ("prod", "daskhub", "jupyterhub: {}\n"),
    ]);
    repo.write(&format!("{LAKE}/common.values.yaml"), "{}\n");
    let said = found(&repo).join("\n");
    assert!(
        said.contains("staging.values.yaml:1:1: there is no key `singleuser`: it is `jupyterhub.singleuser` here"),
        "{said}"
    );
    assert!(
        said.contains(
            "prod.values.yaml:1:1: there is no key `jupyterhub`: it is `basehub.jupyterhub` here"
        ),
        "{said}"
    );
}

#[test]
fn an_ingress_answers_at_the_domain() {
    let host = |host: &str| format!("jupyterhub: {{ingress: {{hosts: [{host}], tls: [{{}}]}}}}\n");
    let repo = lake(&[
        ("staging", "basehub", &host("prod.example.org")),
        ("prod", "basehub", &host("prod.example.org")),
        ("any", "basehub", &host("'*.example.org'")),
    ]);
    assert_eq!(
        found(&repo),
        [
            "config/clusters/lake/prod.values.yaml:1:32: hub `prod` of `lake`: its ingress has the host \
             `prod.example.org`, and so has that of hub `staging` of `lake`",
            "config/clusters/lake/staging.values.yaml:1:32: hub `staging` of `lake`: its ingress has the host \
             `prod.example.org`, and so has that of hub `prod` of `lake`",
            "config/clusters/lake/staging.values.yaml:1:32: hub `staging` of `lake`: its ingress has the host \
             `prod.example.org`, but its `domain` in `config/clusters/lake/cluster.yaml` is `staging.example.org`",
        ]
    );
}

#[test]
fn a_domain_is_a_hosts_name() {
    let wrong = [
        "https://a.example.org",
        "a.example.org/hub",
        "a.example.org:8000",
        "'a example.org'",
        "A.example.org",
        "a..example.org",
        "a_b.example.org",
        ".example.org",
        "a.example.org.",
    ];
    for domain in wrong {
        let repo = lake(&[("prod", "minihub", "{}")]);
        repo.edit(&format!("{LAKE}/cluster.yaml"), "prod.example.org", domain);
        let said = found(&repo);
        assert!(
            said.len() == 1
                && said[0].contains("hub `prod`: `domain`: ")
                && said[0].contains("a domain is a host's name"),
            "{domain}: {said:?}"
        );
    }
}

#[test]
fn a_wrong_provider_is_one_problem() {
    let ways = [
        ("provider: gcp\n", "", "the key `provider` is missing"),
        (
            "provider:",
            "providr:",
            "there is no key `providr`: did you mean `provider`?",
        ),
        (
            "provider: gcp",
            "provider: gke",
            "`\"gke\"` isn't one of `\"gcp\"`, `\"aws\"`, `\"azure\"`, `\"kubeconfig\"`, \
         `\"local\"`: did you mean `gcp`?",
        ),
    ];
    for (from, to, message) in ways {
        let repo = lake(&[]);
        repo.edit(&format!("{LAKE}/cluster.yaml"), from, to);
        let said = found(&repo);
        assert!(said.len() == 1 && said[0].ends_with(message), "{said:?}");
    }
}

#[test]
fn a_repository_without_clusters() {
    let repo = Repo::own();
    std::fs::remove_dir_all(repo.root.join("config/clusters/local")).unwrap();
    for args in [
        "validate",
        "config get-clusters",
        "status",
        "local up",
        "deploy lake",
        "generate helm-upgrade-jobs x",
    ] {
        let said = repo.fails(args);
        assert!(said.contains("there is no cluster"), "{args}: {said}");
    }
}

#[test]
fn a_misspelt_cluster_yaml() {
    let repo = lake(&[]);
    let yaml = repo.read(&format!("{LAKE}/cluster.yaml"));
    repo.write("config/clusters/river/cluster.yml", &yaml);
    for args in ["validate", "config get-clusters", "deploy river"] {
        let said = repo.fails(args);
        let message = "config/clusters/river/cluster.yml:1:1: this is not read: a cluster's file is called `cluster.yaml`";
        assert!(said.contains(message), "{args}: {said}");
    }
    repo.ok("config get-hubs lake");
}

#[test]
fn a_provider_that_there_is_not() {
    let ran = lake(&[]).run("config get-clusters --provider gke");
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("did you mean `gcp`?"), "{}", ran.stderr);
}

#[test]
fn names_that_are_nearly_right() {
    let repo = lake(&[("staging", "minihub", "{}")]);
    for (args, meant) in [
        ("validate lkae", "lake"),
        ("deploy lake stagin", "staging"),
        ("run-hub-health-check lake stging", "staging"),
    ] {
        let said = repo.fails(args);
        assert!(
            said.contains(&format!("\n\nhint: did you mean `{meant}`?")),
            "{args}: {said}"
        );
    }
}

#[test]
fn changed_files_that_there_never_were() {
    let repo = lake(&[]);
    for args in [
        &["init", "--quiet"][..],
        &["add", "."],
        &["commit", "--quiet", "--message", "first"],
    ] {
        git(&repo.root, args);
    }
    std::fs::remove_file(repo.root.join("config/clusters/lake/common.values.yaml")).unwrap();
    git(
        &repo.root,
        &["commit", "--quiet", "--all", "--message", "second"],
    );
    repo.write("new.md", "");
    repo.ok("generate helm-upgrade-jobs config/clusters/lake/common.values.yaml,new.md");
    for command in [
        "generate helm-upgrade-jobs",
        "generate health-check-jobs",
        "generate-helm-upgrade-jobs",
    ] {
        let said = repo.fails(&format!("{command} config/clusters/lake/comon.values.yaml"));
        assert!(
            said.contains("there is no `config/clusters/lake/comon.values.yaml`"),
            "{said}"
        );
    }
}
