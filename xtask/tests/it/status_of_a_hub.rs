//! `status CLUSTER HUB`: the cause of whatever keeps a hub from being ready, on one screen, without kubectl.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Command,
    sync::{Arc, Mutex, Weak},
};

use serde_json::{Value, json};

use crate::{
    generate::git,
    repo::{Repo, Shared, assert_succeeded, shared, tool, wait_until},
};

/// Hubs that are deployed from one commit, each for one test.
const HUBS: [&str; 10] = [
    "seen-cert",
    "seen-claim",
    "seen-dns",
    "seen-full",
    "seen-gone",
    "seen-hand",
    "seen-helm",
    "seen-lease",
    "seen-scaled",
    "seen-users",
];

struct Hubs {
    cluster: Arc<Shared>,
    repo: Repo,
}

fn hubs() -> Arc<Hubs> {
    static UP: Mutex<Weak<Hubs>> = Mutex::new(Weak::new());
    shared(&UP, || {
        let cluster = Shared::cluster();
        // While no test had these hubs, others may have kept the cluster up.
        let hubs = HUBS.join(" ");
        cluster.kubectl(&format!("delete namespace --ignore-not-found {hubs}"));
        let mut repo = Repo::on(&cluster, &HUBS);
        repo.env.push(("GITHUB_ACTOR".into(), "ann".into()));
        commit_all(&repo);
        repo.ok("deploy lake --skip-hub-health-check");
        Hubs { cluster, repo }
    })
}

fn commit_all(repo: &Repo) {
    git(&repo.root, &["init", "--quiet"]);
    git(&repo.root, &["add", "--all"]);
    git(&repo.root, &["commit", "--quiet", "--message", "all"]);
}

/// The screen, whose lines fit a terminal; lines that were broken are put together again.
fn screen(repo: &Repo, hub: &str) -> String {
    let text = repo.ok(&format!("status lake {hub}")).stdout;
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line:?} in\n{text}");
    }
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ")
}

#[track_caller]
fn shows(screen: &str, parts: &[&str]) {
    for part in parts {
        assert!(screen.contains(part), "no {part:?} in\n{screen}");
    }
}

/// The fields of the table's row of a release.
fn row(repo: &Repo, hub: &str) -> Vec<String> {
    let table = repo.ok("status lake").stdout;
    let row = table
        .lines()
        .find(|it| it.split_whitespace().nth(1) == Some(hub));
    let row = row.unwrap_or_else(|| panic!("no {hub} in {table}"));
    let cells = row.split("  ").map(str::trim).filter(|it| !it.is_empty());
    cells.map(str::to_owned).collect()
}

impl Hubs {
    fn patch(&self, hub: &str, patch: &Value) {
        // Its words must have no blanks.
        self.cluster.kubectl(&format!(
            "patch deployment pond -n {hub} --type strategic -p {patch}"
        ));
    }

    /// The name and the uid of the newest pod of the hub's Deployment.
    fn newest_pod(&self, hub: &str) -> [String; 2] {
        let sorted = "get pods -l app=pond --sort-by=.metadata.creationTimestamp";
        let field = |name: &str| {
            self.cluster.kubectl(&format!(
                "{sorted} -n {hub} -o jsonpath={{.items[-1:].metadata.{name}}}"
            ))
        };
        [field("name"), field("uid")]
    }

    fn event(&self, hub: &str, pod: [&str; 2], kind: &str, reason: &str, message: &str) {
        let [name, uid] = pod;
        let now = Command::new("date")
            .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
            .output()
            .unwrap();
        let now = String::from_utf8(now.stdout).unwrap();
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "type": kind, "reason": reason, "message": message,
            "metadata": {"name": format!("{name}-{}", reason.to_lowercase()), "namespace": hub},
            "involvedObject": {"kind": "Pod", "name": name, "namespace": hub, "uid": uid},
            "lastTimestamp": now.trim(),
        });
        self.cluster.kubectl_apply(&event.to_string());
    }
}

/// The live number of pods is no wish of the release's.
#[test]
fn a_hub_that_is_scaled_to_zero() {
    let hubs = hubs();
    hubs.cluster
        .kubectl("scale deployment pond -n seen-scaled --replicas 0");
    assert_eq!(row(&hubs.repo, "seen-scaled")[4..6], ["deployed", "0/1"]);
    let hint = "use-cluster-credentials lake kubectl scale deployment/pond --namespace seen-scaled --replicas 1";
    shows(
        &screen(&hubs.repo, "seen-scaled"),
        &[
            "seen-scaled of lake: NOT READY, 0 of 1 pods are ready",
            "`deployment/pond` failed: it is scaled to 0, and the release wants 1",
            &format!("hint: `cargo xtask {hint}`"),
        ],
    );
    hubs.repo.ok(hint);
    wait_until("its pod", || {
        screen(&hubs.repo, "seen-scaled")
            .contains("seen-scaled of lake: ready, 1 of 1 pods are ready")
    });
}

#[test]
fn a_secret_that_is_gone() {
    let hubs = hubs();
    hubs.cluster.kubectl("delete secret pond -n seen-gone");
    shows(
        &screen(&hubs.repo, "seen-gone"),
        &[
            "secret/pond is gone: somebody has deleted it",
            "hint: `cargo xtask deploy lake seen-gone` makes it again",
            "by hand changed: secret/pond is gone",
        ],
    );
}

#[test]
fn a_claim_whose_storage_class_does_not_exist() {
    let hubs = hubs();
    hubs.cluster.kubectl_apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: db, namespace: seen-claim}, spec: \
         {storageClassName: fast, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}",
    );
    let volume = json!({"name": "db", "persistentVolumeClaim": {"claimName": "db"}});
    hubs.patch(
        "seen-claim",
        &json!({"spec": {"template": {"spec": {"volumes": [volume]}}}}),
    );
    wait_until("its claim", || {
        screen(&hubs.repo, "seen-claim").contains(
            "claim `db` is Pending: ProvisioningFailed: storageclass.storage.k8s.io \"fast\" not found",
        )
    });
}

#[test]
fn a_node_pool_that_is_full() {
    let hubs = hubs();
    let selector = json!({"pool": "none"});
    hubs.patch(
        "seen-full",
        &json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}}),
    );
    wait_until("its pod", || {
        screen(&hubs.repo, "seen-full").contains("has no node: 0/")
    });
    let [name, uid] = hubs.newest_pod("seen-full");
    let message = "pod didn't trigger scale-up: 1 max node group size reached";
    hubs.event(
        "seen-full",
        [&name, &uid],
        "Normal",
        "NotTriggerScaleUp",
        message,
    );
    shows(
        &screen(&hubs.repo, "seen-full"),
        &[
            "`deployment/pond` failed: pod `pond-",
            "event FailedScheduling: 0/",
            "event NotTriggerScaleUp: pod didn't trigger scale-up: 1 max node group size reached",
            "no node ",
        ],
    );
}

/// What differs from the repository and from the release, and the command that shows it.
#[test]
fn changes_in_the_repository_and_by_hand() {
    let hubs = hubs();
    let before = screen(&hubs.repo, "seen-hand");
    shows(
        &before,
        &[
            "repository no changes by hand no changes",
            "shown by cargo xtask deploy lake seen-hand --dry-run --diff",
        ],
    );
    hubs.repo.write(
        "config/clusters/lake/seen-hand.values.yaml",
        "note: other\n",
    );
    hubs.cluster
        .kubectl("set image deployment/pond pond=other -n seen-hand");
    shows(
        &screen(&hubs.repo, "seen-hand"),
        &[
            "repository changed: config/clusters/lake/seen-hand.values.yaml",
            "by hand changed: deployment/pond is changed",
        ],
    );
    let diff = hubs
        .repo
        .ok("deploy lake seen-hand --dry-run --diff")
        .stdout;
    assert!(diff.contains("image: other"), "{diff}");
}

#[test]
fn a_helm_of_somebody_else() {
    let hubs = hubs();
    assert_eq!(row(&hubs.repo, "seen-helm")[7], "ann");
    let charts = fs::read_dir(hubs.repo.cache().join("xtask/charts")).unwrap();
    let mut charts = charts.map(|it| it.unwrap().path().display().to_string());
    let pond = charts.find(|it| it.contains("/pond-")).unwrap();
    let helm = tool("helm")
        .args(["upgrade", "seen-helm", &pond, "--namespace", "seen-helm"])
        .args(["--reuse-values", "--set", "note=theirs"])
        .env("KUBECONFIG", &hubs.cluster.kubeconfig)
        .output();
    assert_succeeded(&helm.unwrap());
    assert_eq!(row(&hubs.repo, "seen-helm")[7..9], ["somebody's helm", "-"]);
    shows(
        &screen(&hubs.repo, "seen-helm"),
        &["repository cannot be told: nobody knows which commit it was deployed from"],
    );
}

#[test]
fn who_is_deploying_now() {
    let hubs = hubs();
    shows(
        &screen(&hubs.repo, "seen-lease"),
        &["deploying nobody repository"],
    );
    let lease = |year: u32| {
        hubs.cluster.kubectl_apply(&format!(
            "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata:\n  name: xtask-seen-lease\n  namespace: seen-lease\n  \
             annotations: {{xtask/actor: bob}}\nspec:\n  holderIdentity: bob-1\n  acquireTime: {year}-01-01T00:00:00.000000Z\n  \
             renewTime: {year}-01-01T00:00:00.000000Z\n"
        ));
    };
    // This machine's clock is far behind.
    lease(2999);
    shows(
        &screen(&hubs.repo, "seen-lease"),
        &["deploying bob (since 2999-01-01T00:00:00Z)"],
    );
    lease(2001);
    shows(
        &screen(&hubs.repo, "seen-lease"),
        &["deploying nobody; bob (since 2001-01-01T00:00:00Z) was cut off"],
    );
}

#[test]
fn a_domain_without_a_dns_record() {
    let hubs = hubs();
    hubs.cluster.kubectl_apply(
        "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: hub, namespace: seen-dns}, spec: {rules: \
         [{host: seen-dns.example.org, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: hub, \
         port: {number: 80}}}}]}}]}}",
    );
    hubs.cluster.kubectl(
        "patch ingress hub -n seen-dns --subresource status --type merge -p \
         {\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"10.1.2.3\"}]}}}",
    );
    shows(
        &screen(&hubs.repo, "seen-dns"),
        &[
            "`seen-dns.example.org` has no DNS record (",
            "hint: add an A record with `10.1.2.3` for it",
        ],
    );
}

/// What is nearest to the cause is said.
#[test]
fn a_certificate_that_is_not_issued() {
    let hubs = hubs();
    let crd = |kind: &str, group: &str| {
        let plural = format!("{}s", kind.to_lowercase());
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        })
    };
    let certificate = crd("Certificate", "cert-manager.io");
    let challenge = crd("Challenge", "acme.cert-manager.io");
    let crds = "certificates.cert-manager.io challenges.acme.cert-manager.io";
    hubs.cluster
        .kubectl_apply(&format!("{certificate}\n---\n{challenge}"));
    hubs.cluster.kubectl(&format!(
        "wait --for=condition=Established --timeout=60s crd {crds}"
    ));
    hubs.cluster.kubectl_apply(
        "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: tls, namespace: seen-cert}\n\
         spec: {dnsNames: [seen-cert.example.org]}\nstatus:\n  conditions:\n  - {type: Ready, status: 'False', reason: \
         DoesNotExist, message: Issuing certificate as Secret does not exist}\n---\n\
         apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: other, namespace: seen-cert}\n\
         status: {notAfter: '2026-12-24T18:00:00Z', conditions: [{type: Ready, status: 'True'}]}\n",
    );
    shows(
        &screen(&hubs.repo, "seen-cert"),
        &[
            "certificate `tls` is not issued: Issuing certificate as Secret does not exist",
            "certificate other, until 2026-12-24 18:00 UTC",
        ],
    );
    hubs.cluster.kubectl_apply(
        "apiVersion: acme.cert-manager.io/v1\nkind: Challenge\nmetadata: {name: tls, namespace: seen-cert}\n\
         spec: {dnsName: seen-cert.example.org}\nstatus: {state: pending, reason: 'wrong status code ''404'''}\n",
    );
    shows(
        &screen(&hubs.repo, "seen-cert"),
        &["certificate `tls` is not issued: the challenge of its issuer: wrong status code '404'"],
    );
    hubs.cluster.kubectl(&format!("delete crd {crds}"));
}

#[test]
fn servers_of_users() {
    let hubs = hubs();
    let pod = |user: &str, more: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: jupyter-{user}, namespace: seen-users, labels: {{fate: {more}}}, \
             annotations: {{hub.jupyter.org/username: {user}}}}}\nspec: {{{spec} containers: [{{name: c, image: c}}]}}\n---\n"
        )
    };
    hubs.cluster.kubectl_apply(
        &(pod("ada", "none", "")
            + &pod("ben", "pull", "")
            + &pod("cleo", "none", "nodeSelector: {pool: none},")),
    );
    let gone = |name: &str, kind: &str, reason: &str, message: &str| {
        hubs.event("seen-users", [name, "1-2-3"], kind, reason, message);
    };
    gone("jupyter-dora", "Warning", "FailedMount", "no such disk");
    gone("jupyter-emil", "Warning", "FailedMount", "passed");
    std::thread::sleep(std::time::Duration::from_secs(1));
    gone("jupyter-emil", "Normal", "Started", "Started container");
    let shown = || screen(&hubs.repo, "seen-users");
    wait_until("their pods", || {
        shown().contains("servers 1 running, 1 starting, 2 failed in the last ten minutes")
    });
    let screen = shown();
    shows(
        &screen,
        &[
            "ben failed ",
            "ImagePullBackOff: Back-off pulling image \"pond\"",
            "jupyter-dora failed ",
            "FailedMount: no such disk",
            "cleo starting ",
            "pod `jupyter-cleo` has no node: 0/",
            "seen-users of lake: ready, 1 of 1 pods are ready",
        ],
    );
    let (pods, _) = screen.split_once("LAST REVISIONS").unwrap();
    assert!(!pods.contains("jupyter-"), "{pods}");
}

/// A deploy that failed is told as such, in the table as well.
#[test]
fn an_image_that_is_gone() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["seen-image"]);
    commit_all(&repo);
    repo.write(
        "config/clusters/lake/seen-image.values.yaml",
        "fate: pull\n",
    );
    repo.fails("deploy lake");
    let row = row(&repo, "seen-image");
    assert_eq!(row[4..6], ["failed: not ready", "0/1"]);
    assert!(row[8].ends_with(" + changes"), "{row:?}");
    shows(
        &screen(&repo, "seen-image"),
        &[
            "`deployment/pond` failed: container `pond` of pod `pond-",
            ": ImagePullBackOff: Back-off pulling image \"pond\"",
            "PODS ImagePullBackOff ",
            " failed: not ready ",
        ],
    );
    let json = repo.ok("status lake seen-image --format json").stdout;
    let state: Value = serde_json::from_str(&json).unwrap();
    let newest = &state["revisions"][0];
    assert_eq!(
        [
            &state["is_ready"],
            &state["pods_wanted"],
            &newest["outcome"]
        ],
        [&json!(false), &json!(1), &json!("failed")]
    );
}

/// The values that a revision was given may be secret, and its log may hold them.
#[test]
fn a_hub_that_crashes() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["seen-crash"]);
    let log = repo.home().join("pod.log");
    let line = "2026-01-01T00:00:00Z stdout F";
    fs::write(
        &log,
        format!("{line} Traceback (most recent call last):\n{line} NameError: sloth not defined by old-cormorant\n"),
    )
    .unwrap();
    let log = log.display();
    cluster.kubectl_apply(&format!(
        "apiVersion: kwok.x-k8s.io/v1alpha1\nkind: ClusterLogs\nmetadata: {{name: seen-crash}}\nspec:\n  \
         selector: {{matchNamespaces: [seen-crash]}}\n  logs: [{{logsFile: {log}, previousLogsFile: {log}}}]\n"
    ));
    let values = "config/clusters/lake/seen-crash.values.yaml";
    repo.write(values, "fate: crash\ntoken: old-cormorant\n");
    repo.fails("deploy lake");
    repo.write(values, "fate: crash\n");
    let screen = screen(&repo, "seen-crash");
    shows(
        &screen,
        &[
            "CrashLoopBackOff, exit code 137, restarts: 3",
            "| Traceback (most recent call last): | NameError: sloth not defined by ***",
        ],
    );
    assert!(!screen.contains("cormorant"), "{screen}");
}

/// Who rolled back has made the newest revision, of the commit of the one before.
#[test]
fn who_rolled_back() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["seen-back"]);
    let values = "config/clusters/lake/seen-back.values.yaml";
    repo.env.push(("GITHUB_ACTOR".into(), "ann".into()));
    commit_all(&repo);
    repo.ok("deploy lake");
    let first = git(&repo.root, &["rev-parse", "--short=12", "HEAD"]);
    repo.write(values, "note: newer\n");
    commit_all(&repo);
    repo.ok("deploy lake");
    repo.env[0].1 = "bob".into();
    repo.ok("rollback lake seen-back --yes");
    let row = row(&repo, "seen-back");
    assert_eq!(row[7..9], ["bob".to_owned(), format!("{first} (1 behind)")]);
    shows(
        &screen(&repo, "seen-back"),
        &[
            &format!(" bob ready {first} (1 behind)"),
            " ann ready ",
            &format!("repository changed: {values}"),
        ],
    );
}

#[test]
fn a_hub_that_is_watched() {
    let hubs = hubs();
    let mut child = hubs.repo.start("status lake seen-lease --watch");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut heads = lines
        .map(Result::unwrap)
        .filter(|it| it.starts_with("seen-lease of lake: "));
    let first = heads.next();
    assert!(first.is_some());
    assert_ne!(heads.next(), first);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_hub_that_is_not_deployed_and_one_that_does_not_exist() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["seen-never"]);
    shows(
        &screen(&repo, "seen-never"),
        &[
            "seen-never of lake: not deployed",
            "hint: `cargo xtask deploy lake seen-never`",
        ],
    );
    let said = repo.fails("status lake pond");
    for part in [
        "cluster `lake` has no hub `pond`; it has: `seen-never`",
        "and as a cluster: there is no cluster `pond`",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

/// A cluster that was asked for and cannot be read is a failure, whatever is shown of others.
#[test]
fn a_login_that_is_refused() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["seen-never"]);
    let kubeconfig = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let server = kubeconfig
        .lines()
        .find(|it| it.contains("server: "))
        .unwrap();
    repo.write(
        "config/clusters/sea/cluster.yaml",
        "name: sea\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs: []\n",
    );
    repo.write(
        "config/clusters/sea/kubeconfig.yaml",
        &format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
             users: [{{name: a, user: {{username: nobody, password: \"\"}}}}]\nclusters:\n- name: a\n  cluster:\n    \
             insecure-skip-tls-verify: true\n{server}\n"
        ),
    );
    for args in ["status sea", "status lake sea"] {
        let ran = repo.run(args);
        assert_eq!(ran.code, Some(1), "{args}: {}", ran.stdout);
        let row = ran.stdout.lines().find(|it| it.starts_with("sea "));
        let row = row.unwrap_or_else(|| panic!("{}", ran.stdout));
        shows(
            row,
            &[
                "its releases cannot be read",
                "answers 403: secrets is forbidden",
            ],
        );
    }
    repo.ok("status lake");
}

/// What would only find an empty cluster doesn't bring one up.
#[test]
fn a_cluster_that_is_down_stays_down() {
    let repo = Repo::new();
    repo.write(
        "config/clusters/pool/cluster.yaml",
        "name: pool\nprovider: local\nhubs:\n- name: deep\n  domain: deep.example.org\n  helm_chart: pond\n  \
         helm_chart_values_files: []\n",
    );
    for args in [
        "status pool",
        "status pool deep",
        "exec debug component-logs pool deep hub",
        "exec debug user-logs pool deep ann",
        "exec shell hub pool deep",
        "run-hub-health-check pool deep",
        "rollback pool deep --yes",
        "retire pool deep --yes",
    ] {
        let said = repo.fails(args);
        for part in [
            "the rehearsal cluster `pool` is down",
            "`cargo xtask deploy pool` brings it up",
        ] {
            assert!(said.contains(part), "{args}: no {part:?} in {said}");
        }
        assert_eq!(repo.ok("local status").stdout, "pool: down\n");
    }
}
