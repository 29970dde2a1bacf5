//! No order of commands loses a volume claim that nobody has named.

use std::{fs, process::Output, sync::Arc, thread, time::Duration};

use crate::{
    health::says,
    repo::{Ran, Repo, Shared, assert_succeeded, tool, wait_until},
    stop::{newest, signal},
};

/// A hub whose chart makes what its values say.
struct Pool {
    cluster: Arc<Shared>,
    repo: Repo,
    hub: &'static str,
}

const CONFIG: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: pool}
data: {depth: '1'}
";

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: water}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
";

/// The same claim as an object of a `List`.
const LIST: &str = "
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata: {name: water}
  spec:
    accessModes: [ReadWriteOnce]
    resources: {requests: {storage: 1Gi}}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: beside}
";

impl Pool {
    fn new(hub: &'static str) -> Pool {
        let cluster = Shared::cluster();
        let repo = Repo::on(&cluster, &[hub]);
        let yaml = repo.read("config/clusters/lake/cluster.yaml");
        repo.write(
            "config/clusters/lake/cluster.yaml",
            &yaml.replace("helm_chart: pond", "helm_chart: pool"),
        );
        repo.write("config/clusters/lake/common.values.yaml", "{}\n");
        repo.write(
            "helm-charts/pool/Chart.yaml",
            "apiVersion: v2\nname: pool\nversion: 0.1.0\n",
        );
        repo.write("helm-charts/pool/values.yaml", "objects: []\nfail: ''\n");
        repo.write(
            "helm-charts/pool/templates/all.yaml",
            "{{- range .Values.objects }}\n---\n{{ . }}\n{{- end }}\n",
        );
        Pool { cluster, repo, hub }
    }

    /// Writes what the hub is to be made of.
    fn write(&self, objects: &[&str]) {
        let values = serde_json::json!({ "objects": objects }).to_string();
        let path = format!("config/clusters/lake/{}.values.yaml", self.hub);
        self.repo.write(&path, &values);
    }

    fn deploy(&self, objects: &[&str]) -> String {
        self.write(objects);
        self.repo.ok("deploy lake").stderr
    }

    fn run(&self, command: &str, rest: &str) -> String {
        let hub = self.hub;
        self.repo.ok(&format!("{command} lake {hub} {rest}")).stderr
    }

    fn fails(&self, command: &str, rest: &str) -> String {
        let hub = self.hub;
        self.repo.fails(&format!("{command} lake {hub} {rest}"))
    }

    /// A helm of somebody who does not know us.
    fn helm(&self, args: &str) -> Output {
        let mut command = tool("helm");
        command
            .args(args.split_whitespace())
            .args(["--namespace", self.hub])
            .current_dir(&self.repo.root)
            .env("KUBECONFIG", &self.cluster.kubeconfig);
        command.output().unwrap()
    }

    /// What is there of claims, with their uids: one that is going has a `-`.
    fn claims(&self) -> String {
        let path =
            "{range .items[*]}{.metadata.name} {.metadata.uid} {.metadata.deletionTimestamp}{end}";
        let mut command = tool("kubectl");
        command
            .args(["get", "pvc", "--namespace", self.hub, "--output"])
            .arg(format!("jsonpath={path}"))
            .env("KUBECONFIG", &self.cluster.kubeconfig);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }
}

/// Upgrades, rollbacks, retiring, plain helm in between: the claim is the same one throughout.
#[test]
fn one_claim_throughout() {
    for (hub, claim) in [("claim-alone", CLAIM), ("claim-in-list", LIST)] {
        let pool = Pool::new(hub);
        pool.deploy(&[CONFIG, claim]);
        let first = pool.claims();
        assert!(first.starts_with("water "), "{first}");
        let is_same = |step: &str| assert_eq!(pool.claims(), first, "{hub}: after {step}");

        let said = pool.deploy(&[CONFIG]);
        is_same("an upgrade that drops it");
        let kept = "volume claims that the release no longer has stay: `water`; `--delete-volumes`";
        assert!(said.contains(kept), "{said}");
        pool.deploy(&[CONFIG, claim]);
        is_same("an upgrade that has it again");
        pool.run("rollback", "2 --yes");
        is_same("a rollback past it");
        pool.run("rollback", "3 --yes");
        is_same("a rollback to it");
        assert_succeeded(&pool.helm(&format!("rollback {hub} 2")));
        is_same("somebody's rollback past it");
        assert_succeeded(&pool.helm(&format!("rollback {hub} 3")));
        pool.write(&[]);
        let values = format!("config/clusters/lake/{hub}.values.yaml");
        let upgrade = format!("upgrade {hub} helm-charts/pool --values {values}");
        assert_succeeded(&pool.helm(&upgrade));
        is_same("somebody's upgrade that drops it");
        pool.deploy(&[CONFIG, claim]);
        pool.run("retire", "--yes");
        is_same("retiring");
        pool.deploy(&[CONFIG, claim]);
        is_same("a new hub of this name");
        assert_succeeded(&pool.helm(&format!("uninstall {hub}")));
        is_same("somebody's uninstall");
        pool.deploy(&[claim]);
        is_same("another new hub");
        let said = pool.run("retire", "--yes --delete-volumes water");
        assert_eq!(pool.claims(), "", "{said}");
    }
}

/// Revisions that know nothing of claims that stay, as they were made before, or by somebody's own helm.
#[test]
fn a_claim_of_a_revision_of_others() {
    let pool = Pool::new("claim-of-others");
    pool.write(&[CONFIG, CLAIM]);
    let hub = pool.hub;
    let values = format!("config/clusters/lake/{hub}.values.yaml");
    let install =
        format!("upgrade --install --create-namespace {hub} helm-charts/pool --values {values}");
    assert_succeeded(&pool.helm(&install));
    let first = pool.claims();
    // An upgrade that fails when it has dropped the claim, but only in the manifest.
    pool.deploy(&[CONFIG]);
    assert_eq!(pool.claims(), first);
    pool.run("rollback", "1 --yes");
    pool.run("rollback", "2 --yes");
    assert_eq!(pool.claims(), first);
    pool.run("retire", "--yes");
    assert_eq!(pool.claims(), first);
    assert_succeeded(&pool.helm(&install));
    assert_eq!(pool.claims(), first);
    pool.run("retire", "--yes");
    assert_eq!(pool.claims(), first);
}

/// A claim goes if a command names it, and only then.
#[test]
fn claims_that_are_named() {
    let pool = Pool::new("claim-named");
    let other = CLAIM.replace("water", "sand");
    pool.deploy(&[CONFIG, CLAIM, &other]);
    let said = pool.fails("deploy", "--delete-volumes mud");
    let unknown = "no volume claim is called `mud`; there are: `sand`, `water`";
    assert!(said.contains(unknown), "{said}");
    let said = pool.fails("deploy", "--delete-volumes water");
    let in_use = "the release still has the claim `water`, so it is not deleted";
    assert!(said.contains(in_use), "{said}");
    assert_eq!(newest(&pool.cluster, pool.hub).0, 1, "it was deployed");
    pool.write(&[CONFIG]);
    let said = pool.run("deploy", "--delete-volumes water");
    assert!(
        said.contains("deleted the volume claims `water`\n"),
        "{said}"
    );
    wait_until("its end", || !pool.claims().contains("water"));
    assert!(pool.claims().contains("sand"));
    let ran = pool.repo.run("deploy lake --delete-volumes sand,,mud");
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let said = pool.fails("retire", "--yes --delete-volumes mud");
    assert!(
        said.contains("no volume claim is called `mud`; there are: `sand`"),
        "{said}"
    );
    assert!(pool.claims().contains("sand"));
}

/// Of a list of one kind, helm knows the kind of its objects; and YAML that helm reads as text stays text.
#[test]
fn a_claim_in_a_list_of_claims() {
    let pool = Pool::new("claim-typed");
    let typed = "
apiVersion: v1
kind: PersistentVolumeClaimList
items:
- metadata: {name: water, namespace: '', labels: {backup: 'yes', since: '012'}}
  spec:
    accessModes: [ReadWriteOnce]
    resources: {requests: {storage: 1Gi}}
";
    pool.deploy(&[CONFIG, typed]);
    let first = pool.claims();
    assert!(first.starts_with("water "), "{first}");
    pool.deploy(&[CONFIG, typed]);
    pool.run("retire", "--yes");
    assert_eq!(pool.claims(), first);
}

const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: claim-annex}
";

const SET: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: rows}
spec:
  serviceName: rows
  replicas: 1
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete}
  selector: {matchLabels: {app: rows}}
  template:
    metadata: {labels: {app: rows}}
    spec: {containers: [{name: rows, image: pond}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 1Gi}}
";

/// What takes claims along is named, and refused.
#[test]
fn claims_that_would_go_with_others() {
    let pool = Pool::new("claim-along");
    let in_annex = CLAIM.replace("{name: water}", "{name: water, namespace: claim-annex}");
    pool.deploy(&[NAMESPACE, &in_annex, SET]);
    let set_claim = || pool.claims().contains("data-rows-0");
    wait_until("the set's claim", set_claim);
    let before = pool.claims();
    pool.write(&[CONFIG]);
    let said = pool.fails("deploy", "");
    for part in [
        "volume claims would be deleted: ",
        "`claim-annex/water` with the namespace `claim-annex`",
        "`claim-along/data-rows-0` with the StatefulSet `rows`",
        "hint: `--delete-volumes claim-annex/water,data-rows-0` names them",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let said = pool.fails("retire", "--yes");
    assert!(said.contains("with the StatefulSet `rows`"), "{said}");
    assert_eq!(pool.claims(), before);
    let annex = pool
        .cluster
        .kubectl("get pvc --namespace claim-annex -o name");
    assert_eq!(annex, "persistentvolumeclaim/water\n");

    // The set in the cluster decides, not its manifest.
    let retained = SET.replace("whenDeleted: Delete", "whenDeleted: Retain");
    pool.deploy(&[NAMESPACE, &in_annex, &retained]);
    let policy = r#"{"spec":{"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Delete"}}}"#;
    pool.cluster.kubectl(&format!(
        "patch statefulset rows --namespace claim-along --type merge --patch {policy}"
    ));
    let said = pool.fails("retire", "--yes");
    assert!(said.contains("with the StatefulSet `rows`"), "{said}");
    assert_eq!(pool.claims(), before);

    // A claim that becomes a hook's would be deleted before that is made.
    pool.deploy(&[NAMESPACE, &in_annex, SET, CLAIM]);
    let hook = CLAIM.replace(
        "{name: water}",
        "{name: water, annotations: {helm.sh/hook: 'pre-upgrade,post-delete'}}",
    );
    let before = pool.claims();
    pool.write(&[NAMESPACE, &in_annex, SET, &hook]);
    let said = pool.fails("deploy", "");
    let loss = "`claim-along/water` with a hook (pre-upgrade, post-delete)";
    assert!(said.contains(loss), "{said}");
    // The same by a helper in another file.
    pool.repo.write(
        "helm-charts/pool/templates/_hook.tpl",
        "{{ define \"pool.hook\" }}helm.sh/hook: pre-upgrade{{ end }}\n",
    );
    let by_helper = CLAIM.replace(
        "{name: water}",
        "{name: water, annotations: { {{ include \"pool.hook\" . }} }}",
    );
    pool.repo
        .write("helm-charts/pool/templates/claim.yaml", &by_helper);
    pool.write(&[NAMESPACE, &in_annex, SET]);
    let said = pool.fails("deploy", "");
    assert!(said.contains("`claim-along/water` with a hook"), "{said}");
    assert_eq!(pool.claims(), before);
}

/// Whatever a deploy, a rollback or a retirement is cut off at.
#[test]
fn a_claim_when_commands_are_killed() {
    let pool = Pool::new("claim-killed");
    pool.deploy(&[CONFIG, CLAIM]);
    pool.deploy(&[CONFIG]);
    let first = pool.claims();
    let hub = pool.hub;
    let commands = [
        (vec![CONFIG], "deploy lake".to_owned()),
        (vec![CONFIG, CLAIM], "deploy lake".to_owned()),
        (vec![], format!("rollback lake {hub} --yes")),
        (vec![], format!("retire lake {hub} --yes")),
    ];
    let mut state = 88172645463325252_u64;
    for round in 0..20 {
        let (objects, command) = &commands[round % commands.len()];
        if !objects.is_empty() {
            pool.write(objects);
        }
        let mut child = pool.repo.start(command);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        thread::sleep(Duration::from_millis(100 + state % 1500));
        let name = if round % 3 == 0 { "TERM" } else { "KILL" };
        signal(&child, name);
        child.wait().unwrap();
        assert_eq!(pool.claims(), first, "round {round}, {command}");
    }
    pool.deploy(&[CONFIG]);
    assert_eq!(pool.claims(), first);
}

/// A release of the same name that somebody else has installed is nobody's hub.
#[test]
fn a_release_of_others() {
    let pool = Pool::new("claim-taken");
    let hub = pool.hub;
    pool.repo.write(
        "other/Chart.yaml",
        "apiVersion: v2\nname: prometheus\nversion: 1.0.0\n",
    );
    pool.repo
        .write("other/templates/all.yaml", &format!("{CLAIM}---\n{CONFIG}"));
    assert_succeeded(&pool.helm(&format!("install {hub} other --create-namespace")));
    let before = pool.claims();
    pool.write(&[CONFIG]);
    let said = pool.fails("deploy", "");
    let refused = "somebody else has installed a release `claim-taken` of the chart `prometheus`, not `pool`, with the \
                   volume claims `water`";
    let hint = "\n\nhint: `--take-over prometheus` replaces it";
    assert!(said.contains(&format!("{refused}{hint}")), "{said}");
    pool.fails("deploy", "--take-over pool");
    for preview in ["--dry-run", "--dry-run --diff"] {
        let said = pool.run("deploy", preview);
        let warning = format!("claim-taken: warning: {refused}");
        assert!(said.contains(&warning), "{preview}: {said}");
        let said = pool.run("deploy", &format!("{preview} --take-over prometheus"));
        assert!(!said.contains("warning"), "{preview}: {said}");
    }
    let said = pool.fails("retire", "--yes");
    let kept = "somebody else has installed the release `claim-taken`, of the chart `prometheus`\n\n\
                hint: `--take-over prometheus` removes it all the same";
    assert!(said.contains(kept), "{said}");
    pool.run("retire", "--yes --take-over prometheus");
    assert_eq!(pool.claims(), before);
    assert_succeeded(&pool.helm(&format!("install {hub} other")));
    let said = pool.fails("rollback", "1 --yes");
    let refused = "somebody else has installed the release `claim-taken`, of the chart `prometheus` and not `pool`";
    assert!(said.contains(refused), "{said}");
    assert!(pool.cluster.history(hub).contains("prometheus-1.0.0"));
    pool.run("deploy", "--take-over prometheus");
    assert_eq!(pool.claims(), before);
    // From now on it is ours, whatever its chart was.
    pool.run("deploy", "");
}

/// A kubeconfig that was copied along leads to the releases of another cluster.
#[test]
fn a_release_of_another_cluster() {
    let pool = Pool::new("claim-river");
    let said = pool.deploy(&[CONFIG]);
    assert!(said.contains("lake: https://127.0.0.1:"), "{said}");
    // As if the folder had been copied from there, with its kubeconfig.
    rename(&pool, "lake", "delta");
    let hub = pool.hub;
    let refused = "the release `claim-river` belongs to the cluster `lake`, not to `delta`; this is https://127.0.0.1:";
    for command in [
        "deploy delta",
        "rollback delta HUB --yes",
        "retire delta HUB --yes",
    ] {
        let said = pool.repo.fails(&command.replace("HUB", hub));
        assert!(said.contains(refused), "{command}: {said}");
    }
    for preview in ["--dry-run", "--dry-run --diff"] {
        let ran = pool.repo.ok(&format!("deploy delta {preview}"));
        let warning = format!("claim-river: warning: {refused}");
        assert!(ran.stderr.contains(&warning), "{preview}: {}", ran.stderr);
    }
    pool.repo.ok("deploy delta --take-over lake");
    rename(&pool, "delta", "lake");
    let said = pool.fails("deploy", "");
    assert!(said.contains("belongs to the cluster `delta`"), "{said}");
}

fn rename(pool: &Pool, from: &str, to: &str) {
    let clusters = pool.repo.root.join("config/clusters");
    fs::rename(clusters.join(from), clusters.join(to)).unwrap();
    let (from, to) = (format!("name: {from}"), format!("name: {to}"));
    let path = format!("config/clusters/{}/cluster.yaml", &to[6..]);
    pool.repo.edit(&path, &from, &to);
}

/// Kubernetes deletes what an object owns along with it.
#[test]
fn claims_that_others_own() {
    let pool = Pool::new("claim-owned");
    let kubectl = |args: &str| {
        pool.cluster
            .kubectl(&format!("{args} --namespace claim-owned"))
    };
    let other = CONFIG.replace("{name: pool}", "{name: spare}");
    pool.deploy(&[CONFIG]);
    let spare = || kubectl("get configmap spare -o jsonpath={.metadata.uid}");
    let by = |kind: &str, name: &str, uid: &str| {
        format!("ownerReferences: [{{apiVersion: v1, kind: {kind}, name: {name}, uid: {uid}}}]")
    };
    let make = |object: &str, name: &str, owners: &str| {
        let named = format!("{{name: {name}, namespace: claim-owned, {owners}}}");
        let object = object
            .replace("{name: water}", &named)
            .replace("{name: pool}", &named);
        pool.cluster.kubectl_apply(&object);
    };
    pool.deploy(&[CONFIG, &other]);
    make(CLAIM, "sand", &by("ConfigMap", "spare", &spare()));
    make(CONFIG, "between", &by("ConfigMap", "spare", &spare()));
    let between = kubectl("get configmap between -o jsonpath={.metadata.uid}");
    make(CLAIM, "gravel", &by("ConfigMap", "between", &between));
    let before = pool.claims();
    let losses = [
        "volume claims would be deleted: `claim-owned/gravel` with the ConfigMap `spare`, `claim-owned/sand` with the \
         ConfigMap `spare`",
        "hint: `--delete-volumes gravel,sand` names them",
    ];
    pool.deploy(&[
        CONFIG,
        &other,
        &CONFIG.replace("{name: pool}", "{name: third}"),
    ]);
    pool.write(&[CONFIG]);
    for (command, rest) in [("deploy", ""), ("rollback", "1 --yes"), ("retire", "--yes")] {
        let said = pool.fails(command, rest);
        for part in losses {
            assert!(said.contains(part), "{command}: no {part:?} in {said}");
        }
    }
    assert_eq!(pool.claims(), before);
    // What has another owner stays.
    let owners = format!(
        "[{{\"op\":\"add\",\"path\":\"/metadata/ownerReferences/-\",\"value\":{{\"apiVersion\":\"v1\",\
         \"kind\":\"ConfigMap\",\"name\":\"pool\",\"uid\":\"{}\"}}}}]",
        kubectl("get configmap pool -o jsonpath={.metadata.uid}")
    );
    kubectl(&format!("patch pvc sand --type json --patch {owners}"));
    let said = pool.fails("deploy", "");
    assert!(
        said.contains("hint: `--delete-volumes gravel` names"),
        "{said}"
    );
    pool.run("deploy", "--delete-volumes gravel");
    wait_until("its end", || !pool.claims().contains("gravel"));
    assert!(pool.claims().contains("sand"));
}

/// A claim that is being deleted would go under the next deploy as soon as no pod uses it.
#[test]
fn claims_that_are_being_deleted() {
    let pool = Pool::new("claim-going");
    let kubectl = |args: &str| {
        pool.cluster
            .kubectl(&format!("{args} --namespace claim-going"))
    };
    let keep = |finalizers: &str| {
        kubectl(&format!(
            "patch pvc water --type merge --patch {{\"metadata\":{{\"finalizers\":{finalizers}}}}}"
        ))
    };
    pool.deploy(&[CONFIG, CLAIM, &CLAIM.replace("water", "sand")]);
    keep("[\"example.org/stay\"]");
    pool.run("retire", "--yes --delete-volumes water");
    // One that the hub does not use is no obstacle.
    pool.deploy(&[CONFIG]);
    pool.write(&[CONFIG, CLAIM]);
    let said = pool.fails("deploy", "");
    let refused =
        "somebody has deleted the volume claims `water`: they go as soon as no pod uses them";
    assert!(said.contains(refused), "{said}");
    assert_eq!(newest(&pool.cluster, pool.hub).0, 1, "it was deployed");
    let mut child = pool.repo.start("deploy lake");
    says(
        &mut child,
        "waiting for the end of the volume claims `water`, which are being deleted",
    );
    keep("[]");
    let ran = Ran::from(child);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(
        kubectl("get pvc water -o jsonpath={.metadata.deletionTimestamp}"),
        ""
    );
}

/// A retirement that was cut off after helm's part.
#[test]
fn a_retirement_is_finished() {
    let pool = Pool::new("claim-left");
    let hub = pool.hub;
    pool.deploy(&[CONFIG, CLAIM]);
    assert_succeeded(&pool.helm(&format!("uninstall {hub}")));
    let server = "run jupyter-ann --image=x --labels=component=singleuser-server";
    pool.cluster.kubectl(&format!("{server} -n {hub}"));
    let said = pool.fails("retire", "--delete-volumes water");
    for part in [
        "Remove what is left of `claim-left` in `lake`, https://127.0.0.1:",
        ": 1 server of users, the volume claims `water` that will be deleted: cannot ask",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let said = pool.fails("retire", "--yes --delete-volumes mud");
    assert!(said.contains("no volume claim is called `mud`"), "{said}");
    let ran = pool
        .repo
        .ok(&format!("retire lake {hub} --yes --delete-volumes water"));
    let gone = "claim-left is gone, with its volume claims and its namespace\n";
    assert_eq!(ran.stdout, gone);
    let said = pool.fails("retire", "--yes --delete-volumes water");
    assert!(said.contains("has no release `claim-left`"), "{said}");
}

/// One name is one claim, of whichever hub.
#[test]
fn a_claim_of_several_hubs() {
    let cluster = Shared::cluster();
    let hubs = ["claim-one", "claim-two"];
    let repo = Repo::on(&cluster, &hubs);
    for hub in hubs {
        repo.write(
            &format!("config/clusters/lake/{hub}.values.yaml"),
            "claim: true\n",
        );
    }
    repo.ok("deploy lake");
    let said = repo.fails("deploy lake --delete-volumes pond");
    let ambiguous = "several releases have a volume claim `pond`: `claim-one`, `claim-two`\n\n\
                     hint: name those that are to go as `claim-one/pond`";
    assert!(said.contains(ambiguous), "{said}");
    repo.write("config/clusters/lake/claim-one.values.yaml", "{}\n");
    let ran = repo.ok("deploy lake --delete-volumes claim-one/pond");
    assert!(
        ran.stderr
            .contains("claim-one: deleted the volume claims `pond`\n"),
        "{}",
        ran.stderr
    );
    let claims = cluster.kubectl("get pvc pond -n claim-two -o name");
    assert_eq!(claims, "persistentvolumeclaim/pond\n");
}

/// Somebody who may do what a plain helm needs, in one namespace.
#[test]
fn rights_that_are_missing() {
    let pool = Pool::new("claim-rights");
    let hub = pool.hub;
    pool.cluster.kubectl(&format!("create namespace {hub}"));
    pool.cluster.kubectl_apply(&format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: helm, namespace: {hub}}}\nrules:\n\
         - {{apiGroups: ['', apps, batch, coordination.k8s.io], verbs: ['*'],\n   \
            resources: [configmaps, persistentvolumeclaims, pods, events, deployments, statefulsets, jobs, leases]}}\n\
         - {{apiGroups: [''], resources: [secrets], verbs: [get, list, watch, create, update, delete]}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: helm, namespace: {hub}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: helm}}\n\
         subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: ann}}]\n"
    ));
    let may = |resources: &str| {
        pool.cluster.kubectl(&format!(
            "patch role helm -n {hub} --type json --patch [{{\"op\":\"add\",\"path\":\"/rules/-\",\"value\":\
             {{\"apiGroups\":[\"\"],\"verbs\":[\"*\"],\"resources\":[\"{resources}\"]}}}}]"
        ))
    };
    let kubeconfig = "config/clusters/lake/kubeconfig.yaml";
    pool.repo
        .edit(kubeconfig, "  user:\n", "  user:\n    as: ann\n");
    pool.write(&[CONFIG]);
    // helm applies the namespace itself.
    let said = pool.fails("deploy", "");
    let missing =
        "hint: the login lacks the right `patch` on `namespaces` in the namespace `claim-rights`";
    assert!(said.contains(missing), "{said}");
    may("namespaces");
    let said = pool.fails("deploy", "");
    for part in [
        "revision 1 is deployed and ready, but that is not recorded: ",
        "hint: the login lacks the right `patch` on `secrets` in the namespace `claim-rights`",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    may("secrets");
    pool.run("deploy", "");
    let said = pool.repo.fails("retire lake claim-wrong --yes");
    let unseen = "this login may not see whether cluster `lake` has a release `claim-wrong`\n";
    assert!(said.contains(unseen), "{said}");
}
