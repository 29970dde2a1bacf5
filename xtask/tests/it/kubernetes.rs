//! The Kubernetes that each cluster runs, as cluster.yaml names it.

use std::fs;

use serde_json::Value;

use crate::repo::{Key, Repo, Shared, workspace};

const CLUSTER: &str = "config/clusters/lake/cluster.yaml";

/// The table that `generate kubernetes-kinds` writes.
const TABLE: &str = "xtask/src/repository/kubernetes-kinds.txt";

/// What Kubernetes has had at some time, and what one may have misspelt.
const KINDS: [&str; 7] = [
    "apps/v1 Deploymnet",
    "autoscaling/v1 HorizontalPodAutoscaler",
    "autoscaling/v2beta2 HorizontalPodAutoscaler",
    "extensions/v1beta1 Ingress",
    "policy/v1beta1 PodSecurityPolicy",
    "resource.k8s.io/v1 DeviceClass",
    "resource.k8s.io/v1beta1 DeviceClass",
];

/// What `validate --render` says of these kinds on a cluster of this version.
fn said_of_kinds(repo: &Repo, version: &str) -> Vec<String> {
    repo.write(
        CLUSTER,
        &format!(
            "name: lake\nprovider: local\n{version}hubs:\n- {{name: prod, domain: prod.example.org, helm_chart: pond, \
             helm_chart_values_files: []}}\n"
        ),
    );
    let said = repo.run("validate lake --render").stdout;
    let said = said.lines().filter_map(|it| it.split_once("kinds.yaml: "));
    said.map(|(_, said)| said.to_owned()).collect()
}

#[test]
fn manifests_are_checked_for_the_kubernetes_of_their_cluster() {
    let repo = Repo::new();
    let mut template = String::new();
    for (index, kind) in KINDS.iter().enumerate() {
        let (version, kind) = kind.split_once(' ').unwrap();
        template += &format!(
            "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: kind-{index}}}\n"
        );
    }
    repo.write("helm-charts/pond/templates/kinds.yaml", &template);
    assert_eq!(
        said_of_kinds(&repo, "kubernetes: '1.33'\n"),
        [
            "Kubernetes 1.33 has no `apps/v1` Deploymnet",
            "Kubernetes 1.33 has no `autoscaling/v2beta2` HorizontalPodAutoscaler: write `apiVersion: autoscaling/v2`",
            "Kubernetes 1.33 has no `extensions/v1beta1` Ingress: write `apiVersion: networking.k8s.io/v1`",
            "Kubernetes 1.33 has no `policy/v1beta1` PodSecurityPolicy",
            "Kubernetes 1.33 has no `resource.k8s.io/v1` DeviceClass (it is in 1.34, 1.35, 1.36, 1.37): write \
             `apiVersion: resource.k8s.io/v1beta2`",
            "`resource.k8s.io/v1beta1` DeviceClass is off in Kubernetes 1.33 unless the cluster turns it on",
        ]
    );
    // Without the key it's the version of the rehearsal cluster.
    for version in ["", "kubernetes: '1.34'\n"] {
        let said = said_of_kinds(&repo, version);
        assert_eq!(said.len(), 5, "{said:#?}");
        assert!(said.iter().all(|it| it.contains("Kubernetes 1.34 ")));
    }
}

#[test]
fn what_no_cluster_is_asked_about_is_rendered_for_its_kubernetes() {
    let mut repo = Repo::new();
    repo.write(
        "helm-charts/pond/templates/version.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: version}\n\
         data: {version: '{{ .Capabilities.KubeVersion.Version }}'}\n",
    );
    repo.write(
        CLUSTER,
        "name: lake\nprovider: local\nkubernetes: '1.36'\nhubs:\n- {name: prod, domain: prod.example.org, \
         helm_chart: pond, helm_chart_values_files: [enc-prod.secret.values.yaml]}\n",
    );
    let key = Key::new();
    let secret = "config/clusters/lake/enc-prod.secret.values.yaml";
    repo.write(secret, "token: sausage-and-mash\n");
    repo.encrypt(secret, &key);
    repo.has_key(&key);
    // The renderings with placeholders that it's compared with are for the same version, or it would be hidden.
    let shown = repo.ok("deploy lake --dry-run").stdout;
    assert!(
        shown.contains("version: 'v1.36.3'") || shown.contains("version: v1.36.3"),
        "{shown}"
    );
}

#[test]
fn a_version_that_is_no_known_minor() {
    let repo = Repo::new();
    let known =
        "isn't one of `\"1.32\"`, `\"1.33\"`, `\"1.34\"`, `\"1.35\"`, `\"1.36\"`, `\"1.37\"`";
    let quotes = ": put it in quotes, since YAML reads 1.30 as 1.3";
    let text = repo.read(CLUSTER);
    for (written, shown, end) in [
        ("1.34", "1.34", quotes),
        ("1.30", "1.3", quotes),
        ("'1.31'", "\"1.31\"", ""),
        ("'1.40'", "\"1.40\"", ""),
        ("1.34.4", "\"1.34.4\"", ""),
        ("latest", "\"latest\"", ""),
        ("", "null", ""),
    ] {
        repo.write(CLUSTER, &format!("kubernetes: {written}\n{text}"));
        let said = repo.fails("validate lake");
        let wanted = format!("`kubernetes`: `{shown}` {known}{end}\n");
        assert!(said.contains(&wanted), "{wanted}{said}");
    }
}

#[test]
fn status_warns_of_another_kubernetes() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["other-kubernetes"]);
    let right = repo.ok("status lake");
    assert!(
        !right.stderr.contains("Kubernetes of `lake`"),
        "{}",
        right.stderr
    );
    repo.edit(CLUSTER, "name: lake", "kubernetes: '1.33'\nname: lake");
    let difference = "it runs 1.34, but manifests are rendered and checked for 1.33: write `kubernetes: \"1.34\"` into \
                      config/clusters/lake/cluster.yaml";
    let warned = repo.ok("status lake").stderr;
    assert!(
        warned.contains(&format!("warning: Kubernetes of `lake`: {difference}\n")),
        "{warned}"
    );
    let state = repo.ok("status lake other-kubernetes --format json").stdout;
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["other_kubernetes"], difference);
    let screen = repo.ok("status lake other-kubernetes").stdout;
    let words: Vec<_> = screen.split_whitespace().collect();
    assert!(
        words
            .join(" ")
            .contains(&format!("kubernetes {difference}")),
        "{screen}"
    );
}

/// A `go` that has these releases of Kubernetes in the folder HOME.
const GO: &str = r#"case "$*" in
"list -m -versions k8s.io/kubernetes")
    echo k8s.io/kubernetes v1.31.9 v1.32.9 v1.32.10 v1.33.0-rc.1 v1.34.4 v1.34.9 v1.35.0 v1.36.0-alpha.1 ;;
"mod download -json k8s.io/kubernetes@"*) printf '{"Version": "x", "Dir": "%s"}' "$HOME/${4##*@}" ;;
*) exit 1 ;;
esac"#;

#[test]
fn the_table_of_kinds_is_made_from_what_go_has() {
    let mut repo = Repo::new();
    repo.script("go", GO);
    let said = repo.fails("generate kubernetes-kinds");
    assert!(
        said.contains("hint: this is for the deployer's own repository"),
        "{said}"
    );
    let operation = |group: &str, kind: &str| {
        let kind = serde_json::json!({"group": group, "version": "v1", "kind": kind});
        serde_json::json!({"x-kubernetes-group-version-kind": kind})
    };
    for release in ["v1.32.10", "v1.34.4", "v1.35.0"] {
        let mut paths = serde_json::json!({
            "/api/v1/nodes": {"get": operation("", "Node"), "parameters": []},
            "/api/v1/namespaces/{namespace}/bindings": {"post": operation("", "Binding")},
            "/api/v1/namespaces/{namespace}/pods/{name}/eviction": {"post": operation("policy", "Eviction")},
            "/api/v1/watch/nodes": {"get": operation("", "WatchEvent")},
            "/apis/apps/v1/": {"get": {"operationId": "getAppsV1APIResources"}},
            "/version/": {"get": {"operationId": "getCodeVersion"}},
        });
        if release != "v1.34.4" {
            paths["/apis/apps/v1/namespaces/{namespace}/deployments"] =
                serde_json::json!({"get": operation("apps", "Deployment")});
        }
        let folder = repo.home().join(release).join("api/openapi-spec");
        fs::create_dir_all(&folder).unwrap();
        let text = serde_json::json!({"swagger": "2.0", "paths": paths}).to_string();
        fs::write(folder.join("swagger.json"), text).unwrap();
    }
    repo.write(TABLE, "old\n");
    repo.ok("generate kubernetes-kinds");
    let table = repo.read(TABLE);
    let lines: Vec<_> = table.lines().filter(|it| !it.starts_with('#')).collect();
    assert_eq!(
        lines,
        [
            "1.32.10 1.34.4 1.35.0",
            "apps/v1/Deployment 1.32 1.35",
            "v1/Binding",
            "v1/Node"
        ]
    );
    assert!(
        !repo
            .ok("generate --help")
            .stdout
            .contains("kubernetes-kinds")
    );
}

#[test]
fn the_table_of_kinds_and_the_schema_have_the_same_versions() {
    let table = fs::read_to_string(workspace().join(TABLE)).unwrap();
    let releases = table.lines().find(|it| !it.starts_with('#')).unwrap();
    let minors: Vec<_> = releases
        .split(' ')
        .map(|it| it.rsplit_once('.').unwrap().0)
        .collect();
    let schema = fs::read(workspace().join("config/cluster.schema.json")).unwrap();
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    assert_eq!(
        schema["properties"]["kubernetes"]["enum"],
        serde_json::json!(minors),
        "see {TABLE}"
    );
    let pinned = fs::read_to_string(workspace().join("xtask/tools/kubernetes/go.mod")).unwrap();
    assert!(
        releases
            .split(' ')
            .any(|it| pinned.contains(&format!("k8s.io/kubernetes v{it} "))),
        "the pinned Kubernetes is another one: `cargo xtask generate kubernetes-kinds` writes {TABLE} anew"
    );
    assert!(table.len() < 10_000, "{} bytes", table.len());
}

/// In the minor version that the rehearsal cluster runs.
#[test]
fn the_table_of_kinds_has_what_the_control_plane_serves() {
    let cluster = Shared::cluster();
    let custom = cluster.kubectl("get crd --output jsonpath={.items[*].spec.group}");
    let mut served = Vec::new();
    for version in cluster.kubectl("api-versions").lines() {
        let group = version.split('/').next().unwrap();
        if custom.split(' ').any(|it| it == group) {
            continue;
        }
        let root = if version.contains('/') { "apis" } else { "api" };
        let found = cluster.kubectl(&format!("get --raw /{root}/{version}"));
        let found: Value = serde_json::from_str(&found).unwrap();
        let resources = found["resources"].as_array().unwrap();
        let objects = resources
            .iter()
            .filter(|it| !it["name"].as_str().unwrap().contains('/'));
        served.extend(objects.map(|it| format!("{version}/{}", it["kind"].as_str().unwrap())));
    }
    served.sort();
    let table = fs::read_to_string(workspace().join(TABLE)).unwrap();
    let rows = table.lines().filter(|it| !it.starts_with('#')).skip(1);
    let rows = rows.map(|it| it.split_once(' ').unwrap_or((it, "1.34")));
    let stable = rows.filter(|(kind, minors)| {
        minors.contains("1.34") && !kind.contains("/v1alpha") && !kind.contains("/v1beta")
    });
    let stable: Vec<_> = stable.map(|(kind, _)| kind).collect();
    assert_eq!(served, stable);
}
