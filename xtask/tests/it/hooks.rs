//! Hooks that can't finish: helm would wait for them until its time is over, and tell nothing.

use std::time::Instant;

use crate::{
    repo::{Repo, Shared},
    rollout::logs,
    stop::newest,
};

/// How long a test may take that would take ten minutes if helm waited for its hook.
const SOON: u64 = 240;

/// Makes a hook of a template that has one object, whose pods have this fate.
fn hook(repo: &Repo, name: &str, annotations: &str, kind: &str, fate: &str) {
    let pod = format!(
        "{{restartPolicy: {}, containers: [{{name: pond, image: pond}}]}}",
        if kind == "DaemonSet" {
            "Always"
        } else {
            "Never"
        }
    );
    let version = match kind {
        "Job" => "batch/v1",
        "DaemonSet" => "apps/v1",
        _ => "v1",
    };
    let labels = format!("labels: {{app: {name}, fate: {fate}}}");
    let template = format!("template: {{metadata: {{{labels}}}, spec: {pod}}}");
    let spec = match kind {
        "Job" => format!("{{backoffLimit: 0, {template}}}"),
        "DaemonSet" => format!("{{selector: {{matchLabels: {{app: {name}}}}}, {template}}}"),
        _ => pod.clone(),
    };
    repo.write(
        &format!("helm-charts/pond/templates/{name}.yaml"),
        &format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: {name}\n  {labels}\n  \
             annotations: {{{annotations}}}\nspec: {spec}\n"
        ),
    );
}

/// A command that must fail soon: what it says.
fn fails_soon(repo: &Repo, args: &str) -> String {
    let started = Instant::now();
    let said = repo.fails(args);
    let seconds = started.elapsed().as_secs();
    assert!(seconds < SOON, "after {seconds} s: {said}");
    said
}

#[track_caller]
fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

const BEFORE: &str = "helm.sh/hook: \"pre-install,pre-upgrade\"";

#[test]
fn a_hook_whose_image_cannot_be_pulled_ends_helm() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["hook-pull"]);
    hook(&repo, "fetch", BEFORE, "Job", "pull");
    let said = fails_soon(&repo, "deploy lake");
    assert_says(
        &said,
        &[
            "`hook-pull` failed: hook `job/fetch` failed: container `pond` of pod `fetch-",
            ": ImagePullBackOff: Back-off pulling image \"pond\"",
            "hint: `cargo xtask status lake hook-pull` tells more",
        ],
    );
    assert!(!said.contains("context canceled"), "{said}");
    assert_eq!(newest(&cluster, "hook-pull"), (1, "failed".to_owned()));

    // What it has left does not count any more.
    hook(&repo, "fetch", BEFORE, "Job", "fine");
    repo.ok("deploy lake");
}

/// As z2jh does it: a job waits for a DaemonSet that pulls the images, and for which helm does not wait.
#[test]
fn an_image_puller_that_its_awaiter_waits_for_in_vain() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["hook-puller"]);
    let weight = |it: &str| format!("{BEFORE}, helm.sh/hook-weight: \"{it}\"");
    // The awaiter is there by then.
    hook(&repo, "puller", &weight("-10"), "DaemonSet", "pull-late");
    hook(&repo, "awaiter", &weight("10"), "Job", "stuck");
    let said = fails_soon(&repo, "deploy lake");
    assert_says(
        &said,
        &[
            "hook `daemonset/puller` failed: container `pond` of pod `puller-",
            ": ImagePullBackOff: ",
            "\nhook `job/awaiter` is not ready yet: 0 of 1 pods are done\n",
        ],
    );
}

/// The PriorityClass of z2jh's puller is a part of the release, which helm makes after the hooks. The awaiter goes on without
/// the pods that no node has.
#[test]
fn an_image_puller_whose_pods_are_refused_until_the_release_is_there() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["hook-refused"]);
    let weight = |it: &str| format!("{BEFORE}, helm.sh/hook-weight: \"{it}\"");
    hook(&repo, "puller", &weight("-10"), "DaemonSet", "fine");
    repo.edit(
        "helm-charts/pond/templates/puller.yaml",
        "containers:",
        "priorityClassName: hook-refused, containers:",
    );
    repo.write(
        "helm-charts/pond/templates/priority.yaml",
        "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: hook-refused}\nvalue: 1\n",
    );
    hook(&repo, "awaiter", &weight("10"), "Job", "fine");
    hook(&repo, "latecomer", &weight("20"), "Job", "fine");
    repo.ok("deploy lake");
}

#[test]
fn a_hook_that_crashes_tells_its_last_lines() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["hook-crash"]);
    repo.ok("deploy lake");
    logs(&cluster, &repo, "hook-crash", "the pond has no water");
    hook(&repo, "fill", "helm.sh/hook: post-upgrade", "Job", "fail");
    let said = fails_soon(&repo, "deploy lake");
    assert_says(
        &said,
        &[
            "hook `job/fill` failed: BackoffLimitExceeded: ",
            "\ncontainer `pond` of pod `fill-",
            "` (image `pond`): exit code 3, restarts: 0\n",
            "\n  | the pond has no water\n",
        ],
    );
}

#[test]
fn a_pod_by_itself_that_crashes_is_told() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["hook-pod"]);
    hook(&repo, "alone", "helm.sh/hook: pre-install", "Pod", "crash");
    let said = fails_soon(&repo, "deploy lake");
    assert_says(
        &said,
        &[
            "hook `pod/alone` failed: container `pond` of pod `alone` (image `pond`): CrashLoopBackOff, exit code 137",
            "\n  event BackOff: ",
        ],
    );
}

#[test]
fn a_hook_without_a_node_is_told() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["hook-node"]);
    repo.write("config/clusters/lake/hook-node.values.yaml", "hook: true\n");
    let said = fails_soon(&repo, "deploy lake --timeout 12s");
    assert_says(
        &said,
        &["hook `job/hook` failed: pod `hook-", " has no node: 0/"],
    );
}

#[test]
fn a_hook_that_is_late_is_told() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["hook-late"]);
    hook(&repo, "slow", BEFORE, "Job", "stuck");
    let said = fails_soon(&repo, "deploy lake --timeout 4s");
    assert_says(
        &said,
        &["hook `job/slow` is not ready: 0 of 1 pods are done; timed out"],
    );
}

#[test]
fn a_release_whose_hook_fails_is_rolled_back() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["hook-back"]);
    repo.ok("deploy lake");
    let policy = format!("{BEFORE}, helm.sh/hook-delete-policy: hook-failed");
    hook(&repo, "fetch", &policy, "Job", "pull");
    let said = fails_soon(&repo, "deploy lake --rollback-on-failure");
    assert_says(
        &said,
        &[
            "hook `job/fetch` failed: container",
            "\nrolled back to revision 1, which is ready again\n",
        ],
    );
    // As its policy says.
    assert_eq!(cluster.kubectl("get jobs -n hook-back -o name"), "");
}

#[test]
fn hooks_of_rollbacks_and_retirements_are_followed() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["hook-leave"]);
    hook(&repo, "undo", "helm.sh/hook: pre-rollback", "Job", "pull");
    hook(&repo, "leave", "helm.sh/hook: pre-delete", "Job", "pull");
    repo.ok("deploy lake");
    repo.write("config/clusters/lake/hook-leave.values.yaml", "note: new\n");
    repo.ok("deploy lake");
    let said = fails_soon(&repo, "rollback lake hook-leave --yes");
    assert_says(
        &said,
        &[
            "hook `job/undo` failed: container `pond` of pod `undo-",
            ": ImagePullBackOff: ",
        ],
    );
    for _ in 0..2 {
        let said = fails_soon(&repo, "retire lake hook-leave --yes");
        assert_says(
            &said,
            &[
                "hook `job/leave` failed: container `pond` of pod `leave-",
                ": ImagePullBackOff: ",
            ],
        );
    }
    assert_eq!(newest(&cluster, "hook-leave").1, "uninstalling");
}
