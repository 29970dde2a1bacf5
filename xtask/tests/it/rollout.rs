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

#[test]
fn what_certainly_fails_is_told_at_once() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["crash", "pull", "once", "no-quota", "leaky"]);
    let log = repo.home().join("pod.log");
    fs::write(&log, "2026-01-01T00:00:00Z stdout F the pond has no water\n").unwrap();
    cluster.kubectl_apply(&format!(
        "apiVersion: kwok.x-k8s.io/v1alpha1\nkind: ClusterLogs\nmetadata: {{name: crash}}\nspec:\n  \
         selector: {{matchNamespaces: [crash]}}\n  logs: [{{logsFile: {log}, previousLogsFile: {log}}}]\n",
        log = log.display()
    ));
    let (said, seconds) = fails(&repo, "crash", "fate: crash\n");
    for part in [
        "`crash` failed: revision 1 doesn't stand: `deployment/pond` failed: container `pond` of pod `pond-",
        "CrashLoopBackOff, exit code 137, restarts: 3\n",
        "  event BackOff: Back-off restarting failed container pond\n",
        "  | the pond has no water\n",
        "hint: `kubectl -n crash get pods`",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(seconds < 60, "after {seconds} s, and the release may take ten minutes");

    // Pods of an older revision don't count: this one gets well.
    repo.write("config/clusters/lake/crash.values.yaml", "{}\n");
    repo.ok("deploy lake crash");
    let (said, _) = fails(&repo, "crash", "fate: pull\n");
    assert!(said.contains("ImagePullBackOff: Back-off pulling image \"pond\""), "{said}");

    let (said, _) = fails(&repo, "once", "job: fail\n");
    assert!(said.contains("`job/once` failed: BackoffLimitExceeded: "), "{said}");
    cluster.kubectl("delete job once -n once");
    repo.write("config/clusters/lake/once.values.yaml", "job: \"no label of ours\"\n");
    assert!(repo.fails("deploy lake once").contains("a valid label must"));
    repo.write("config/clusters/lake/once.values.yaml", "job: fine\n");
    repo.ok("deploy lake once");

    cluster.kubectl("create namespace no-quota");
    cluster.kubectl("create quota none --hard=pods=0 -n no-quota");
    let (said, _) = fails(&repo, "no-quota", "{}\n");
    assert!(
        said.contains("the cluster refuses its pods: ") && said.contains("exceeded quota: none"),
        "{said}"
    );
    cluster.kubectl("delete quota none -n no-quota");
    repo.ok("deploy lake no-quota");

    repo.env.push(("GITHUB_ACTOR".into(), "ann".into()));
    repo.ok("deploy lake leaky");
    assert!(cluster.kubectl("get secrets -n leaky -l owner=helm,actor=ann -o name").contains("leaky.v1"));
}

#[test]
fn what_may_get_well_is_waited_for() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["slow", "stuck-long", "no-node"]);
    repo.write("config/clusters/lake/slow.values.yaml", "fate: slow\n");
    let ran = repo.ok("deploy lake slow");
    assert!(ran.stderr.contains("slow: 0 of 1 pods are ready\n"), "{}", ran.stderr);

    repo.write("config/clusters/lake/stuck-long.values.yaml", "fate: stuck\n");
    let said = repo.fails("deploy lake stuck-long --timeout 5s");
    assert!(said.contains("`deployment/pond` isn't ready: 0 of 1 pods are ready; timed out"), "{said}");

    // No autoscaler is at work here.
    repo.write("config/clusters/lake/no-node.values.yaml", "selector: {nowhere: \"true\"}\n");
    let said = repo.fails("deploy lake no-node --timeout 12s");
    assert!(
        said.contains("`deployment/pond` failed: pod `pond-") && said.contains("has no node: 0/"),
        "{said}"
    );
    assert!(said.contains("event FailedScheduling: "), "{said}");
    let event = |reason: &str| {
        let [uid, name] = ["uid", "name"].map(|it| {
            cluster
                .kubectl(&format!("get pods -n no-node -l app=pond -o jsonpath={{.items[0].metadata.{it}}}"))
        });
        cluster.kubectl_apply(&format!(
            "apiVersion: v1\nkind: Event\nmetadata: {{name: {}, namespace: no-node}}\nreason: {reason}\ntype: Normal\n\
             involvedObject: {{kind: Pod, name: {name}, namespace: no-node, uid: {uid}}}\nmessage: said the autoscaler\n",
            reason.to_lowercase()
        ));
    };
    event("TriggeredScaleUp");
    let said = repo.fails("deploy lake no-node --timeout 8s");
    assert!(said.contains("`deployment/pond` isn't ready: 0 of 1 pods are ready; timed out"), "{said}");
    assert!(said.contains("has no node: 0/"), "{said}");
    event("NotTriggerScaleUp");
    let said = repo.fails("deploy lake no-node --timeout 10m");
    assert!(said.contains("`deployment/pond` failed: pod `pond-"), "{said}");
}
