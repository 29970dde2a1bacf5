//! What becomes of a release's pods: told as soon as it's certain, and waited for as long as it isn't.

use std::{fs, time::Instant};

use crate::repo::{Repo, Shared};

/// A deploy of one hub with these values, which must fail: what it said, and after how many seconds.
fn fails(repo: &Repo, hub: &str, values: &str) -> (String, u64) {
    repo.write(&format!("config/clusters/lake/{hub}.values.yaml"), values);
    let started = Instant::now();
    let said = repo.fails(&format!("deploy lake {hub}"));
    (said, started.elapsed().as_secs())
}

/// Lets all pods of a hub have this line in their logs.
pub(crate) fn logs(cluster: &Shared, repo: &Repo, hub: &str, line: &str) {
    let log = repo.home().join("pod.log");
    fs::write(&log, format!("2026-01-01T00:00:00Z stdout F {line}\n")).unwrap();
    cluster.kubectl_apply(&format!(
        "apiVersion: kwok.x-k8s.io/v1alpha1\nkind: ClusterLogs\nmetadata: {{name: {hub}}}\nspec:\n  \
         selector: {{matchNamespaces: [{hub}]}}\n  logs: [{{logsFile: {log}, previousLogsFile: {log}}}]\n",
        log = log.display()
    ));
}

#[test]
fn pods_that_crash_are_told_at_once() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["crash"]);
    logs(&cluster, &repo, "crash", "the pond has no water");
    let (said, seconds) = fails(&repo, "crash", "fate: crash\n");
    for part in [
        "`crash` failed: revision 1 did not become ready: `deployment/pond` failed: container `pond` of pod `pond-",
        "CrashLoopBackOff, exit code 137, restarts: 3\n",
        "  event BackOff: Back-off restarting failed container pond\n",
        "  | the pond has no water\n",
        "hint: `cargo xtask status lake crash` tells more",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(
        seconds < 60,
        "after {seconds} s, and the release may take ten minutes"
    );

    // Pods of an older revision don't count: this one gets well.
    repo.write("config/clusters/lake/crash.values.yaml", "{}\n");
    repo.ok("deploy lake crash");
    let (said, _) = fails(&repo, "crash", "fate: pull\n");
    assert!(
        said.contains("ImagePullBackOff: Back-off pulling image \"pond\""),
        "{said}"
    );
}

#[test]
fn jobs_that_fail_and_jobs_that_cannot_be() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["once"]);
    let (said, _) = fails(&repo, "once", "job: fail\n");
    assert!(
        said.contains("`job/once` failed: BackoffLimitExceeded: "),
        "{said}"
    );
    cluster.kubectl("delete job once -n once");
    repo.write(
        "config/clusters/lake/once.values.yaml",
        "job: \"no label of ours\"\n",
    );
    assert!(
        repo.fails("deploy lake once")
            .contains("a valid label must")
    );
    repo.write("config/clusters/lake/once.values.yaml", "job: fine\n");
    repo.ok("deploy lake once");
}

#[test]
fn a_quota_that_leaves_no_room_for_pods() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["no-quota"]);
    cluster.kubectl("create namespace no-quota");
    cluster.kubectl("create quota none --hard=pods=0 -n no-quota");
    let (said, _) = fails(&repo, "no-quota", "{}\n");
    assert!(
        said.contains("the cluster refuses its pods: ") && said.contains("exceeded quota: none"),
        "{said}"
    );
    cluster.kubectl("delete quota none -n no-quota");
    repo.ok("deploy lake no-quota");
}

#[test]
fn a_release_says_who_deployed_it() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["leaky"]);
    repo.env.push(("GITHUB_ACTOR".into(), "ann".into()));
    repo.ok("deploy lake leaky");
    assert!(
        cluster
            .kubectl("get secrets -n leaky -l owner=helm,actor=ann -o name")
            .contains("leaky.v1")
    );
}

#[test]
fn what_may_get_well_is_waited_for() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["slow", "stuck-long"]);
    repo.write("config/clusters/lake/slow.values.yaml", "fate: slow\n");
    let ran = repo.ok("deploy lake slow");
    assert!(
        ran.stderr.contains("slow: 0 of 1 pods are ready\n"),
        "{}",
        ran.stderr
    );

    repo.write(
        "config/clusters/lake/stuck-long.values.yaml",
        "fate: stuck\n",
    );
    let said = repo.fails("deploy lake stuck-long --timeout 5s");
    assert!(
        said.contains("`deployment/pond` is not ready: 0 of 1 pods are ready; timed out"),
        "{said}"
    );
}

#[test]
fn a_node_is_waited_for_if_an_autoscaler_brings_it() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["no-node"]);
    // None is at work here.
    repo.write(
        "config/clusters/lake/no-node.values.yaml",
        "selector: {nowhere: \"true\"}\n",
    );
    let said = repo.fails("deploy lake no-node --timeout 12s");
    assert!(
        said.contains("`deployment/pond` failed: pod `pond-") && said.contains("has no node: 0/"),
        "{said}"
    );
    assert!(said.contains("event FailedScheduling: "), "{said}");
    let event = |reason: &str| {
        let [uid, name] = ["uid", "name"].map(|it| {
            cluster.kubectl(&format!(
                "get pods -n no-node -l app=pond -o jsonpath={{.items[0].metadata.{it}}}"
            ))
        });
        cluster.kubectl_apply(&format!(
            "apiVersion: v1\nkind: Event\nmetadata: {{name: {}, namespace: no-node}}\nreason: {reason}\ntype: Normal\n\
             involvedObject: {{kind: Pod, name: {name}, namespace: no-node, uid: {uid}}}\nmessage: said the autoscaler\n",
            reason.to_lowercase()
        ));
    };
    event("TriggeredScaleUp");
    let said = repo.fails("deploy lake no-node --timeout 8s");
    assert!(
        said.contains("`deployment/pond` is not ready: 0 of 1 pods are ready; timed out"),
        "{said}"
    );
    assert!(said.contains("has no node: 0/"), "{said}");
    event("NotTriggerScaleUp");
    let said = repo.fails("deploy lake no-node --timeout 10m");
    assert!(
        said.contains("`deployment/pond` failed: pod `pond-"),
        "{said}"
    );
}

/// The first revision fails, the second is good, and what comes then is rolled back by itself or by a person.
#[test]
fn back_to_what_stood() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["back"]);
    repo.env.push(("GITHUB_ACTOR".into(), "ann".into()));
    nothing_good_to_return_to(&repo);
    repo.write("config/clusters/lake/back.values.yaml", "note: good\n");
    repo.ok("deploy lake");
    a_failed_upgrade_is_rolled_back(&cluster, &repo);
    repo.write("config/clusters/lake/back.values.yaml", "note: newer\n");
    repo.ok("deploy lake");
    rollbacks_that_are_not_done(&cluster, &repo);
    a_person_rolls_back(&cluster, &repo);
}

fn note_of_back(cluster: &Shared) -> String {
    cluster.kubectl("get configmap pond -n back -o jsonpath={.data.note}")
}

fn nothing_good_to_return_to(repo: &Repo) {
    let said = repo.fails("rollback lake back --yes");
    assert!(
        said.contains("`back` of `lake` was never deployed"),
        "{said}"
    );
    let (said, _) = fails(repo, "back", "fate: pull\n");
    assert!(said.contains("revision 1 did not become ready"), "{said}");
}

fn a_failed_upgrade_is_rolled_back(cluster: &Shared, repo: &Repo) {
    repo.write(
        "config/clusters/lake/back.values.yaml",
        "note: bad\nfate: pull\n",
    );
    let said = repo.fails("deploy lake --rollback-on-failure");
    assert!(
        said.contains("ImagePullBackOff")
            && said.contains("\nrolled back to revision 2, which is ready again\n"),
        "{said}"
    );
    assert_eq!(note_of_back(cluster), "good");
    repo.write(
        "config/clusters/lake/back.values.yaml",
        "note: worse\nfail: at all\n",
    );
    // Nothing was applied, so nothing is rolled back.
    let said = repo.fails("deploy lake --rollback-on-failure");
    assert!(!said.contains("rolled back"), "{said}");
    repo.ok("rollback lake back 4 --yes");
}

fn rollbacks_that_are_not_done(cluster: &Shared, repo: &Repo) {
    let said = repo.fails("rollback lake back");
    for part in [
        "Return `back` of `lake`, on https://127.0.0.1:",
        "), from revision 6 (deployed, was ready) to 5 (superseded, was ready): cannot ask without a terminal",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let said = repo.fails("rollback lake back 9 --yes");
    assert!(
        said.contains(
            "`back` of `lake`: there is no revision 9; there are: `1`, `2`, `3`, `4`, `5`, `6`"
        ),
        "{said}"
    );
    let said = repo.fails("rollback lake front --yes");
    assert!(
        said.contains("cluster `lake` has no hub `front`; it has: `back`"),
        "{said}"
    );
    assert_eq!(note_of_back(cluster), "newer");
}

fn a_person_rolls_back(cluster: &Shared, repo: &Repo) {
    assert!(
        repo.ok("rollback lake back --yes")
            .stdout
            .contains("back is as in revision 5, and ready\n")
    );
    assert_eq!(note_of_back(cluster), "good");
    let history = cluster.history("back");
    assert!(
        history.contains("rolled back to revision 5 by ann"),
        "{history}"
    );
}

/// What it was given may be secret, and is in no file any more.
#[test]
fn secrets_of_an_old_revision() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["leaky-back"]);
    repo.ok("deploy lake");
    logs(
        &cluster,
        &repo,
        "leaky-back",
        "cannot log in with old-cormorant",
    );
    let (said, _) = fails(&repo, "leaky-back", "token: old-cormorant\nfate: crash\n");
    assert!(said.contains("  | cannot log in with "), "{said}");
    repo.write("config/clusters/lake/leaky-back.values.yaml", "{}\n");
    repo.ok("deploy lake");
    let said = repo.fails("rollback lake leaky-back 2 --yes");
    assert!(
        said.contains("  | cannot log in with ***") && !said.contains("cormorant"),
        "{said}"
    );
}

#[test]
fn fields_that_somebody_else_set() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["by-hand"]);
    repo.ok("deploy lake");
    cluster.kubectl("set image deployment/pond pond=other -n by-hand");
    repo.write("config/clusters/lake/by-hand.values.yaml", "note: new\n");
    let said = repo.fails("deploy lake");
    for part in [
        "conflict with \"kubectl-set\"",
        ".image",
        "hint: somebody set these fields by other means; `--force-conflicts`",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    repo.ok("deploy lake --force-conflicts");
    assert_eq!(
        cluster.kubectl("get deployment pond -n by-hand -o jsonpath={..containers[0].image}"),
        "pond"
    );
}

#[test]
fn a_hub_is_taken_away() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["retired"]);
    repo.write("config/clusters/lake/retired.values.yaml", "claim: true\n");
    repo.ok("deploy lake");
    cluster.kubectl("run jupyter-ann --image=x -n retired");
    let claim = || cluster.kubectl("get pvc pond -n retired -o jsonpath={.metadata.uid}");
    let before = claim();
    let said = repo.fails("retire lake retired");
    for part in [
        "Remove `retired` from `lake`, https://127.0.0.1:",
        "): revision 1 (deployed, was ready) of the chart `pond`, 1 server of users, 1 volume claim that will stay: ",
        "cannot ask without a terminal; pass `--yes`",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    // It need not be in cluster.yaml any more.
    let yaml = repo.read("config/clusters/lake/cluster.yaml");
    repo.write(
        "config/clusters/lake/cluster.yaml",
        yaml.split_once("- name")
            .unwrap()
            .0
            .replace("hubs:", "hubs: []")
            .as_str(),
    );
    let ran = repo.ok("retire lake retired --yes");
    assert_eq!(
        ran.stdout,
        "retired is gone; its volume claims stay: `pond`\n"
    );
    assert_eq!(
        cluster.kubectl("get pods,deployments,secrets,leases -n retired -o name"),
        ""
    );
    let said = repo.fails("retire lake retired --yes");
    assert!(
        said.contains("cluster `lake` has no release `retired`; it has: "),
        "{said}"
    );

    // The next hub of this name gets them back.
    repo.write("config/clusters/lake/cluster.yaml", &yaml);
    repo.ok("deploy lake");
    assert_eq!(claim(), before);
    let ran = repo.ok("retire lake retired --yes --delete-volumes pond");
    assert_eq!(
        ran.stdout,
        "retired is gone, with its volume claims and its namespace\n"
    );
    assert!(
        !cluster
            .kubectl("get namespaces -o name")
            .contains("namespace/retired\n")
    );
}

/// Pods that crash are no reason against the revision that mends them.
#[test]
fn what_crashes_can_be_mended() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["mended"]);
    for round in 1..=5 {
        let (said, _) = fails(&repo, "mended", "fate: crash\nset: true\n");
        assert!(said.contains("CrashLoopBackOff"), "{said}");
        repo.write(
            "config/clusters/lake/mended.values.yaml",
            &format!("note: round {round}\nset: true\n"),
        );
        repo.ok("deploy lake");
    }
}
