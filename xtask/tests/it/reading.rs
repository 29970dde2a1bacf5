//! What is read of the repository: each file once, and by one reader.

use std::{collections::BTreeMap, fs, process::Command};

use crate::repo::{Key, Repo, run_by};

const CLUSTER: &str = "config/clusters/lake/cluster.yaml";
const HUB: &str = "config/clusters/lake/staging.values.yaml";
const SUPPORT: &str = "config/clusters/lake/support.values.yaml";

#[test]
fn a_deploy_opens_each_file_once() {
    let repo = Repo::own();
    let trace = repo.home().join("trace");
    let xtask = repo.command("deploy local --dry-run");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-e", "trace=open,openat", "-o"])
        .arg(&trace);
    let output = run_by(strace, &xtask).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    let opened = opened(&fs::read_to_string(trace).unwrap());
    let folder = repo.root.join("config/clusters/local");
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "cluster.yaml" || name.ends_with(".values.yaml") {
            files += 1;
            assert_eq!(opened.get(path.to_str().unwrap()), Some(&1), "{name}");
        }
    }
    assert!(files > 4, "{files} files");
    let encrypted = opened
        .keys()
        .filter(|it| it.ends_with(".secret.values.yaml"));
    assert_eq!(encrypted.count(), 2, "opened by us, and not by sops");
}

/// How often each file was opened.
fn opened(trace: &str) -> BTreeMap<String, usize> {
    let mut opened = BTreeMap::new();
    for line in trace.lines().filter(|line| !line.contains("= -1")) {
        if let Some(path) = line.split('"').nth(1) {
            *opened.entry(path.to_owned()).or_insert(0) += 1;
        }
    }
    opened
}

/// What is said where a cluster has no kubeconfig: the command got as far as logging in.
const LOGS_IN: &str = "cannot log in to `lake`";

#[test]
fn root_homes_sees_values_as_helm_does() {
    let repo = Repo::new();
    let not_on_nfs = "its homes are not on NFS";
    let said = repo.fails("exec shell root-homes lake staging");
    assert!(said.contains(not_on_nfs), "{said}");

    let server = "{serverIP: 10.0.0.2, baseShareName: /export/}";
    for values in [
        format!("base: &base {server}\nnfs:\n  pv:\n    <<: *base\n"),
        format!("greeting: hello\n---\nnfs: {{pv: {server}}}\n"),
    ] {
        repo.write(HUB, &values);
        let said = repo.fails("exec shell root-homes lake staging");
        assert!(said.contains(LOGS_IN), "{values}{said}");
    }

    repo.write(HUB, "nfs: {pv: {serverIP: 10.0.0.2}}\n");
    let said = repo.fails("exec shell root-homes lake staging");
    assert!(said.contains(not_on_nfs), "{said}");
    let defaults = repo.read("helm-charts/pond/values.yaml");
    let defaults = defaults + "\nnfs: {pv: {baseShareName: /export/}}\n";
    repo.write("helm-charts/pond/values.yaml", &defaults);
    let said = repo.fails("exec shell root-homes lake staging");
    assert!(said.contains(LOGS_IN), "{said}");
}

#[test]
fn root_homes_decrypts_what_it_needs() {
    let mut repo = Repo::new();
    let key = Key::new();
    repo.write(
        HUB,
        "nfs: {pv: {serverIP: 10.0.0.2, baseShareName: /export/}}\n",
    );
    repo.encrypt(HUB, &key);
    let said = repo.fails("exec shell root-homes lake staging");
    assert!(
        said.contains("cannot decrypt `config/clusters/lake/staging.values.yaml`"),
        "{said}"
    );
    repo.has_key(&key);
    let said = repo.fails("exec shell root-homes lake staging");
    assert!(said.contains(LOGS_IN), "{said}");
}

#[test]
fn promql_sees_values_as_helm_does() {
    let repo = Repo::new();
    let yaml = repo.read(CLUSTER) + "support: {helm_chart_values_files: [support.values.yaml]}\n";
    repo.write(CLUSTER, &yaml);
    repo.write(
        "helm-charts/support/Chart.yaml",
        "apiVersion: v2\nname: support\nversion: 1.0.0\n",
    );
    repo.write(
        "config/xtask.yaml",
        "chart_mirrors: {'https://prometheus.lake.example.org': 'http://127.0.0.1:9'}\n",
    );
    let asks = "POST http://127.0.0.1:9/api/v1/query";
    let server = "{server: {ingress: {hosts: [prometheus.lake.example.org]}}}";
    let auth = "prometheusAuthSecret: {password: open-sesame}\n";
    for values in [
        format!("{auth}base: &base {server}\nprometheus:\n  <<: *base\n"),
        format!("{auth}---\nprometheus: {server}\n"),
    ] {
        repo.write(SUPPORT, &values);
        let said = repo.fails("exec promql lake up");
        assert!(said.contains(asks), "{values}{said}");
    }
    repo.write(SUPPORT, auth);
    let said = repo.fails("exec promql lake up");
    assert!(
        said.contains("no `prometheus.server.ingress.hosts`"),
        "{said}"
    );
    repo.write(
        "helm-charts/support/values.yaml",
        &format!("prometheus: {server}\n"),
    );
    let said = repo.fails("exec promql lake up");
    assert!(said.contains(asks), "{said}");
}

/// sops breaks its lines in the middle of sentences, and adds what it says of every file.
#[test]
fn a_wrong_key_is_told_in_few_lines() {
    let mut repo = Repo::new();
    let (ours, theirs) = (Key::new(), Key::new());
    repo.write(HUB, "note: a secret\n");
    repo.encrypt(HUB, &theirs);
    repo.has_key(&ours);
    let said = repo.fails("exec shell root-homes lake staging");
    let lines: Vec<_> = said.lines().collect();
    let mismatch = format!(
        "  {}: failed to create reader for decrypting sops data key with age: identity did not match any of the \
         recipients: incorrect identity for recipient block",
        theirs.public
    );
    assert_eq!(lines[1], mismatch, "{said}");
    assert!(
        lines[3].starts_with("hint: sops needs one of the keys"),
        "{said}"
    );
}
