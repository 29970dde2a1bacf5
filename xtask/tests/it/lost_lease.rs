//! Who loses the Lease of a release stops working on it, and leaves it to whoever has it then.

use std::{
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use crate::{
    repo::{Ran, Repo, Shared, command_lines, is_below, tool_path, wait_until},
    stop::{leases, newest, signal},
};

/// The programs that a command has started for one of these hubs.
fn helms(child: &Child, hubs: &[&str]) -> Vec<u32> {
    let works = |line: &str| {
        let mut hubs = hubs.iter();
        line.contains("helm") && hubs.any(|it| line.contains(&format!("--namespace {it} ")))
    };
    let found = command_lines()
        .into_iter()
        .filter(|(pid, line)| *pid != child.id() && works(line) && is_below(*pid, child.id()));
    found.map(|(pid, _)| pid).collect()
}

fn are_there(pids: &[u32]) -> bool {
    let is_there = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        status.is_ok_and(|it| !it.contains("State:\tZ"))
    };
    pids.iter().any(is_there)
}

fn send(pids: &[u32], name: &str) {
    for pid in pids {
        let mut command = std::process::Command::new("kill");
        assert!(
            command
                .arg(format!("-{name}"))
                .arg(pid.to_string())
                .status()
                .unwrap()
                .success()
        );
    }
}

fn by(cluster: &Shared, hubs: &[&str], actor: &str) -> Repo {
    let mut repo = Repo::on(cluster, hubs);
    repo.env.push(("GITHUB_ACTOR".into(), actor.into()));
    repo
}

fn values(repo: &Repo, hub: &str, values: &str) {
    repo.write(&format!("config/clusters/lake/{hub}.values.yaml"), values);
}

/// Lets helm wait for ever before it rolls a release back.
fn hold_rollbacks(repo: &mut Repo) -> std::path::PathBuf {
    let at = repo.home().join("rolls-back");
    repo.script(
        "helm",
        &format!(
            "case \"$*\" in rollback*) touch {}; while :; do sleep 0.1; done ;; esac\nexec {} \"$@\"",
            at.display(),
            tool_path("helm").display()
        ),
    );
    at
}

fn has_hook(cluster: &Shared, hub: &str) -> bool {
    newest(cluster, hub) == (2, "pending-upgrade".to_owned())
        && cluster
            .kubectl(&format!("get jobs -n {hub} -o name"))
            .contains("hook")
}

fn is_followed(cluster: &Shared, hub: &str) -> bool {
    newest(cluster, hub) == (2, "deployed".to_owned())
}

fn is_rolled_back(cluster: &Shared, hub: &str, at: &Path) -> bool {
    is_followed(cluster, hub) && at.exists()
}

/// The releases that a command with `--format json` fails with, each with its message.
fn failures(child: Child) -> Vec<(String, String)> {
    let ran = Ran::from(child);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let releases = report["releases"].as_array().unwrap().iter();
    let text = |it: &serde_json::Value| it.as_str().unwrap_or_default().to_owned();
    releases
        .map(|it| (text(&it["release"]), text(&it["message"])))
        .collect()
}

/// A machine sleeps with all that works on it (the first three hubs), or one process is stopped, and somebody else deploys
/// meanwhile. Nothing of that is undone afterwards.
#[test]
fn who_wakes_up_late_leaves_all_to_others() {
    const HUBS: [&str; 5] = ["late-a", "late-b", "late-c", "late-d", "late-e"];
    let cluster = Shared::cluster();
    let mut ann = by(&cluster, &HUBS, "ann");
    ann.ok("deploy lake --jobs 5");
    let at = hold_rollbacks(&mut ann);
    let worse = [
        "hook: true",
        "fate: stuck",
        "fate: crash",
        "hook: true",
        "fate: stuck",
    ];
    for (hub, worse) in HUBS.iter().zip(worse) {
        values(&ann, hub, worse);
    }
    let deploy = "deploy lake --rollback-on-failure --format json --jobs 3";
    let asleep = ann.start(&format!("{deploy} late-a late-b late-c"));
    let stopped = ann.start(&format!("{deploy} late-d late-e"));
    wait_until("all that is under way", || {
        has_hook(&cluster, "late-a")
            && is_followed(&cluster, "late-b")
            && is_rolled_back(&cluster, "late-c", &at)
            && has_hook(&cluster, "late-d")
            && is_followed(&cluster, "late-e")
    });
    let sleeping = helms(&asleep, &HUBS);
    let working = helms(&stopped, &HUBS);
    assert!(
        sleeping.len() >= 2 && !working.is_empty(),
        "{sleeping:?} {working:?}"
    );
    signal(&asleep, "STOP");
    send(&sleeping, "STOP");
    signal(&stopped, "STOP");

    let bob = by(&cluster, &HUBS, "bob");
    HUBS.iter().for_each(|hub| values(&bob, hub, "note: bob\n"));
    values(&bob, "late-e", "note: bob\nfate: stuck\n");
    let at_work = bob.start("deploy lake late-e");
    bob.ok("deploy lake --jobs 4 late-a late-b late-c late-d");
    wait_until("bob's pods", || newest(&cluster, "late-e").0 == 3);
    let good = HUBS.map(|hub| newest(&cluster, hub));
    assert!(
        good.iter().all(|(_, status)| status == "deployed"),
        "{good:?}"
    );

    send(&sleeping, "CONT");
    signal(&asleep, "CONT");
    signal(&stopped, "CONT");
    let woken = Instant::now();
    while are_there(&sleeping) || are_there(&working) {
        assert!(woken.elapsed() < Duration::from_secs(2), "helm works on");
        thread::sleep(Duration::from_millis(20));
    }
    let mut messages = failures(asleep);
    messages.extend(failures(stopped));
    assert_eq!(messages.len(), HUBS.len(), "{messages:?}");
    for (hub, message) in messages {
        let holder = match hub.as_str() {
            "late-e" => "bob (since 20",
            _ => "nobody is at work on it now\n",
        };
        let parts = [
            "the Lease was lost: it was not renewed for ",
            &format!(" s: this process was stopped, or its machine was asleep; {holder}"),
            "\nnothing is rolled back, and what was applied until now may be in the cluster\n",
        ];
        for part in parts {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
    }
    assert_ne!(leases(&cluster, "late-e"), "", "it's bob's");
    signal(&at_work, "KILL");
    let _ = Ran::from(at_work);
    for (hub, good) in HUBS.iter().zip(good) {
        assert_eq!(newest(&cluster, hub), good, "{hub}");
        let note = cluster.kubectl(&format!(
            "get configmap pond -n {hub} -o jsonpath={{.data.note}}"
        ));
        assert_eq!(note, "bob", "{hub}");
    }
}

/// One release's Lease is deleted: the others of the command are deployed.
#[test]
fn a_lease_that_somebody_deletes_stops_its_release() {
    let cluster = Shared::cluster();
    let repo = by(&cluster, &["gone-a", "gone-b"], "ann");
    repo.ok("deploy lake");
    values(&repo, "gone-a", "hook: true\n");
    values(&repo, "gone-b", "fate: slow\n");
    let child = repo.start("deploy lake --rollback-on-failure --timeout 60s");
    wait_until("the hook", || has_hook(&cluster, "gone-a"));
    let helms = helms(&child, &["gone-a"]);
    assert!(!helms.is_empty());
    cluster.kubectl("delete lease xtask-gone-a -n gone-a");
    let ran = Ran::from(child);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    let lost = "`gone-a` failed: the Lease was lost: somebody has deleted it; nobody is at work on it now\n\
                nothing is rolled back, and what was applied until now may be in the cluster\n";
    assert!(ran.stderr.contains(lost), "{}", ran.stderr);
    assert!(
        ran.stdout
            .contains("gone-b               deployed  revision 2"),
        "{}",
        ran.stdout
    );
    assert!(!are_there(&helms));
    // helm got no time to say that it failed.
    assert_eq!(
        newest(&cluster, "gone-a"),
        (2, "pending-upgrade".to_owned())
    );
    values(&repo, "gone-a", "{}\n");
    repo.ok("deploy lake gone-a");
}
