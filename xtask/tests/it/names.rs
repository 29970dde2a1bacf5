//! Names that files, archives and clusters give to things are names, and never paths, options or commands.

use std::{fs, path::PathBuf, time::Instant};

use serde_json::json;

use crate::{
    repo::{Repo, Shared, tool_path},
    terminal::Terminal,
};

const RENDER: &str = "validate hub-config lake --render";

/// A repository with a chart beside `stone` that `stone` depends on by `file://`, and the name of that dependency.
fn with_neighbour(name: &str, dependency: &str) -> Repo {
    let repo = Repo::new();
    repo.write(
        "config/clusters/lake/cluster.yaml",
        "name: lake\nprovider: local\nhubs:\n- {name: staging, domain: d, helm_chart: stone, helm_chart_values_files: []}\n",
    );
    repo.write(
        "helm-charts/neighbour/Chart.yaml",
        &format!("apiVersion: v2\nname: {name}\nversion: 1.0.0\n"),
    );
    repo.write(
        "helm-charts/neighbour/helm",
        "#!/bin/sh\ntouch \"$0.ran\"\n",
    );
    repo.write(
        "helm-charts/stone/Chart.yaml",
        &format!(
            "apiVersion: v2\nname: stone\nversion: 0.1.0\n\
             dependencies: [{{name: \"{dependency}\", version: 1.0.0, repository: file://../neighbour}}]\n"
        ),
    );
    repo
}

/// All files below the cache and beside it, but for the programs.
fn cached(repo: &Repo) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![repo.home(), repo.cache()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn the_name_of_a_chart_is_no_path() {
    for name in [
        "../../../tools/helm-4.3.1",
        "../../../../home/.ssh",
        "/etc/boulder",
        "..",
        "--help",
        "a/b",
        "\"a\\nb\"",
    ] {
        let dependency = name.trim_matches('"');
        for dependency in [dependency, "neighbour"] {
            let repo = with_neighbour(name, dependency);
            let said = repo.fails(RENDER);
            assert!(said.contains("is not a name"), "{name}: {said}");
            assert!(said.contains("/Chart.yaml"), "{name}: {said}");
            let written = cached(&repo);
            assert!(
                !written.iter().any(|it| it.ends_with("helm")),
                "{name}: {written:?}"
            );
        }
    }
}

#[test]
fn a_dependency_has_the_name_that_its_parent_says() {
    let said = with_neighbour("boulder", "gravel").fails(RENDER);
    assert!(
        said.contains(
            "helm-charts/stone/Chart.yaml:4:23: dependency `gravel`: `../neighbour` is the chart `boulder`, and `gravel` \
             is wanted"
        ),
        "{said}"
    );
}

/// They become arguments of the jobs that `generate` makes, and part of a shell's prompt.
#[test]
fn the_folder_of_a_cluster_is_no_option_and_no_command() {
    for folder in ["--help", "$(id>x)", ".hidden", "a b", "x;y"] {
        let repo = Repo::new();
        let from = repo.root.join("config/clusters/river");
        fs::rename(from, repo.root.join("config/clusters").join(folder)).unwrap();
        let said = repo.fails("validate");
        let place = format!(
            "config/clusters/{folder}/cluster.yaml:1:1: the folder's name is the cluster's: `{folder}` is not a name"
        );
        assert!(said.contains(&place), "{said}");
        let said = repo.fails("generate helm-upgrade-jobs README.md");
        assert!(said.contains("is not a name"), "{said}");
        let ran = repo.ok("config get-clusters");
        assert_eq!(ran.stdout, "lake\n");
        assert!(ran.stderr.contains("is not a name"), "{}", ran.stderr);
        let said = repo.run("status").stdout;
        assert!(said.contains("is not a name"), "{said}");
    }
}

#[test]
fn a_host_that_begins_like_loopback_is_asked_by_tls() {
    for (host, is_plain) in [
        ("127.x.invalid", false),
        ("localhost.invalid", false),
        ("127.0.0.1:9", true),
        ("[::1]:9", true),
    ] {
        let repo = with_neighbour("neighbour", "neighbour");
        repo.edit(
            "helm-charts/stone/Chart.yaml",
            "file://../neighbour",
            &format!("\"oci://{host}/charts\""),
        );
        let said = repo
            .run("validate hub-config lake --fetch --verbose")
            .stderr;
        assert!(
            said.contains(&format!("$ helm pull oci://{host}/charts")),
            "{said}"
        );
        assert_eq!(said.contains("--plain-http"), is_plain, "{said}");
    }
}

#[test]
fn the_password_in_an_address_is_not_shown() {
    let repo = with_neighbour("neighbour", "neighbour");
    repo.edit(
        "helm-charts/stone/Chart.yaml",
        "file://../neighbour",
        "\"http://ann:opensesame@127.0.0.1:9/charts\"",
    );
    for mirrored in [false, true] {
        if mirrored {
            repo.write(
                "config/xtask.yaml",
                "chart_mirrors: {\"http://ann:opensesame@127.0.0.1:9\": \"http://bob:opensesame@127.0.0.1:19/m\"}\n",
            );
        }
        let ran = repo.run("validate hub-config lake --fetch");
        let said = ran.stdout + &ran.stderr;
        assert!(said.contains("://***@127.0.0.1:"), "{said}");
        assert!(!said.contains("opensesame"), "{said}");
    }
}

/// Nothing is fetched or prepared for a hub that cannot be deployed.
#[test]
fn a_deploy_validates_first() {
    let repo = with_neighbour("neighbour", "neighbour");
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "helm_chart_values_files: []",
        "helm_chart_values_files: [missing.yaml]",
    );
    let said = repo.fails("deploy lake --dry-run");
    assert!(said.contains("missing.yaml` doesn't exist"), "{said}");
    let written = cached(&repo);
    assert!(
        !written.iter().any(|it| it.ends_with("Chart.yaml")),
        "{written:?}"
    );
}

/// Who can write Leases in a hub's namespace can name any file in one, and any time.
#[test]
fn a_lease_names_no_file_of_ours_and_no_time() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["leased"]);
    repo.write("canary", "alive");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let mounts = fs::read_link("/proc/self/ns/mnt").unwrap();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "xtask-leased",
            "namespace": "leased",
            "annotations": {
                "xtask/actor": "mallory \u{1b}[2J\u{202e}",
                "xtask/host": format!("{}-{}", boot.trim(), mounts.display()),
                "xtask/file": repo.root.join("canary").display().to_string(),
            },
        },
        "spec": {"leaseDurationSeconds": 2_000_000, "renewTime": "2026-01-01T00:00:00.000000Z"},
    });
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "leased"}});
    cluster.kubectl_apply(&namespace.to_string());
    cluster.kubectl_apply(&lease.to_string());
    let started = Instant::now();
    let ran = repo.ok("deploy lake leased");
    assert!(started.elapsed().as_secs() < 120);
    assert_eq!(repo.read("canary"), "alive");
    assert!(
        ran.stderr
            .contains("mallory \\u{1b}[2J\\u{202e} is at work on it"),
        "{}",
        ran.stderr
    );
}

/// An object's name becomes part of the address that a difference is asked at.
#[test]
fn the_name_of_an_object_is_no_path() {
    let cluster = Shared::cluster();
    for name in ["a?x=1", "../configmaps/a", "a%2fb"] {
        let repo = Repo::on(&cluster, &["steps"]);
        repo.write(
            "helm-charts/pond/templates/odd.yaml",
            &format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: \"{name}\"}}\n"),
        );
        let ran = repo.run("deploy lake steps --diff --dry-run");
        let said = ran.stdout + &ran.stderr;
        assert!(!said.contains("panicked"), "{said}");
        let there = cluster.kubectl("get configmaps -n steps -o name --ignore-not-found");
        assert!(!there.contains("configmap/a"), "{name}: {there}\n{said}");
    }
}

/// What a terminal would carry out is shown by its code.
#[test]
fn a_text_is_no_command_of_a_terminal() {
    let repo = Repo::new();
    repo.write(
        "config/clusters/lake/prod.values.yaml",
        "\"no\\e[2Jkey\\u202e\": 1\n",
    );
    let terminal = Terminal::start(&repo, "xtask validate");
    terminal.shows("there is no key `no\\u{1b}[2Jkey\\u{202e}`");
}

#[test]
fn logs_are_no_commands_of_a_terminal() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["logged"]);
    cluster.kubectl_apply(
        "{apiVersion: v1, kind: Namespace, metadata: {name: logged}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: door, namespace: logged, labels: {component: proxy}}, \
         spec: {containers: [{name: c, image: c}]}}\n",
    );
    let kubectl = tool_path("kubectl");
    let kubectl = kubectl.display();
    repo.script(
        "kubectl",
        &format!(
            "case \"$1\" in logs) printf 'door \\033[2J opens\\n' ;; *) exec {kubectl} \"$@\" ;; esac"
        ),
    );
    let logs = "exec debug component-logs lake logged proxy --no-follow";
    let terminal = Terminal::start(&repo, &format!("xtask {logs}; echo status $?"));
    terminal.shows("door \\u{1b}[2J opens\nstatus 0");
    assert_eq!(repo.ok(logs).stdout, "door \u{1b}[2J opens\n");
}

/// GitHub carries out lines of a job's log.
#[test]
fn a_text_is_no_command_of_a_workflow() {
    let mut repo = Repo::new();
    repo.env
        .push(("GITHUB_ACTIONS".to_owned(), "true".to_owned()));
    repo.write(
        "config/xtask.yaml",
        "\"\\n::stop-commands::x\\n##[add-path]y\": 1\n",
    );
    let said = repo.fails("validate");
    assert!(
        said.contains("\n: :stop-commands::x\n# #[add-path]y"),
        "{said}"
    );
}

/// They become arguments of gcloud and aws, and parts of Azure's addresses.
#[test]
fn the_name_of_a_providers_cluster_is_no_option() {
    for (provider, name) in [
        (
            "gcp\ngcp: {project: p, zone: z, cluster: NAME}",
            "--flags-file=x",
        ),
        ("gcp\ngcp: {project: NAME, zone: z, cluster: c}", "-p"),
        (
            "aws\naws: {clusterType: eks, region: NAME, clusterName: c}",
            "x@example.org/",
        ),
        (
            "aws\naws: {clusterType: eks, region: r, clusterName: NAME}",
            "--debug",
        ),
        (
            "azure\nazure: {resource_group: g, cluster: NAME}",
            "../../x",
        ),
        ("azure\nazure: {resource_group: NAME, cluster: c}", "a/b?c"),
    ] {
        let repo = Repo::new();
        let provider = provider.replace("NAME", name);
        repo.write(
            "config/clusters/lake/cluster.yaml",
            &format!("name: lake\nprovider: {provider}\nhubs: []\n"),
        );
        let said = repo.fails("use-cluster-credentials lake true");
        assert!(said.contains("doesn't match `^["), "{name}: {said}");
    }
}
