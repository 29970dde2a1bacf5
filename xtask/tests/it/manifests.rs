//! Manifests are read as helm and the API server read them: what was just deployed makes no difference.

use crate::repo::{Repo, Shared};

/// What helm takes as a value in a manifest. `¦` separates.
const SCALARS: &str = "y ¦ n ¦ yes ¦ YES ¦ yEs ¦ no ¦ on ¦ oN ¦ off ¦ true ¦ tRUE ¦ ~ ¦ nULL ¦ ~~ ¦ 0777 ¦ 0755 ¦ 0o17 ¦ \
    0o8 ¦ 012 ¦ 08 ¦ -012 ¦ 8_080 ¦ _1 ¦ 1_ ¦ 0_7 ¦ 0x1F ¦ 0x_1 ¦ 0x ¦ -0x1F ¦ 0b11 ¦ 0B11 ¦ 0b2 ¦ +1 ¦ +-1 ¦ 1. ¦ .5 ¦ \
    -.5 ¦ .5_0 ¦ . ¦ 1e3 ¦ 1e ¦ 1.e1 ¦ 1e400 ¦ 1e-400 ¦ 1_0.5 ¦ 0x1p4 ¦ .iNF ¦ Infinity ¦ 1:30 ¦ 190:20:30 ¦ 2001-12-14 ¦ \
    2001-12-14T21:59:43.10-05:00 ¦ !!timestamp 2001-12-14 ¦ 'yes' ¦ \"1\" ¦ \"\\x41\\u00e9\" ¦ !!int \"12\" ¦ !!float 1 ¦ \
    !!float 0x10 ¦ !!str 1 ¦ !!str ~ ¦ !!binary aGk= ¦ !!bool \"yes\" ¦ !custom 1 ¦ ! 12 ¦ << ¦ = ¦ 9007199254740993 ¦ \
    9223372036854775807 ¦ -9223372036854775808 ¦ 9223372036854775808 ¦ 18446744073709551615 ¦ 0xFFFFFFFFFFFFFFFF ¦ \
    123456789012345678901234567890 ¦ 0.1 ¦ 1.0 ¦ -0 ¦ 1e21 ¦ 1e-7 ¦ &x 1 ¦ a#b ¦ [a,] ¦ {a} ¦ {a: 1, a: 2} ¦ [a: 1] ¦ [? a] ¦ \
    {http://x} ¦ 'it''s' ¦ 😀";

/// What helm takes as a key.
const KEYS: &str = "y ¦ on ¦ NO ¦ 1 ¦ 0777 ¦ 1_0 ¦ 1.5 ¦ 1e3 ¦ 16777217.5 ¦ 1e21 ¦ -1 ¦ 9007199254740993 ¦ .inf ¦ \
    !!int \"2\" ¦ !!binary aGk= ¦ 2001-12-14 ¦ \"<<\" ¦ a b";

/// An object of a kind without a schema, which the API server keeps as it gets it.
fn water() -> String {
    let mut text =
        "apiVersion: pond.example.org/v1\nkind: Water\nmetadata: {name: all}\nspec:\n".to_owned();
    for (number, scalar) in SCALARS.split('¦').enumerate() {
        text += &format!("  v{number}: {}\n", scalar.trim());
    }
    text += "  keys:\n";
    for key in KEYS.split('¦') {
        text += &format!("    {}: 1\n", key.trim());
    }
    text += "  base: &base {a: 1, b: yes}\n  merged: {<<: *base, b: 0o17}\n  \
             both: {b: 2, <<: [{a: 5}, *base]}\n";
    text += &format!("  deep: {}1{}\n", "{a: [".repeat(150), "]}".repeat(150));
    // Its last lines are its own.
    text + "  kept: |+\n    a\n\n\n"
}

const DEFINITION: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
    metadata: {name: waters.pond.example.org}\nspec:\n  group: pond.example.org\n  scope: Namespaced\n  \
    names: {plural: waters, singular: water, kind: Water}\n  \
    versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, \
    x-kubernetes-preserve-unknown-fields: true}}}]\n";

/// A Deployment as people write it who know YAML 1.1.
const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: modes}\nspec:\n  paused: no\n  \
    selector: {matchLabels: &labels {app: modes}}\n  template:\n    metadata: {labels: {<<: *labels}}\n    \
    spec:\n      automountServiceAccountToken: off\n      \
    volumes: [{name: data, secret: {secretName: pond, defaultMode: 0755}}]\n      \
    containers: [{name: pond, image: pond, ports: [{containerPort: 8_080}]}]\n";

#[test]
fn what_was_just_deployed_makes_no_difference() {
    let cluster = Shared::cluster();
    cluster.kubectl_apply(DEFINITION);
    let repo = Repo::on(&cluster, &["scalars"]);
    repo.write("helm-charts/pond/files/water.yaml", &water());
    repo.write(
        "helm-charts/pond/templates/water.yaml",
        "{{ .Files.Get \"files/water.yaml\" }}",
    );
    repo.write("helm-charts/pond/templates/modes.yaml", DEPLOYMENT);
    repo.ok("deploy lake");
    let ran = repo.run("deploy lake --diff --dry-run --detailed-exitcode");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), ""),
        "{}",
        ran.stderr
    );
    let ran = repo.ok("deploy lake --skip-unchanged");
    assert!(
        ran.stdout.contains("unchanged revision 1"),
        "{}",
        ran.stdout
    );
}

#[test]
fn what_is_in_lists_is_waited_for() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["listed"]);
    let listed = |kind: &str, fate: &str| {
        repo.write(
            "helm-charts/pond/templates/listed.yaml",
            &format!(
                "apiVersion: {}\nkind: {kind}\nitems:\n- {}metadata: {{name: listed}}\n  spec:\n    \
                 selector: {{matchLabels: {{app: listed}}}}\n    template:\n      \
                 metadata: {{labels: {{app: listed, fate: {fate}}}}}\n      \
                 spec: {{containers: [{{name: pond, image: pond}}]}}\n",
                if kind == "List" { "v1" } else { "apps/v1" },
                if kind == "List" { "apiVersion: apps/v1\n  kind: Deployment\n  " } else { "" },
            ),
        );
    };
    for kind in ["List", "DeploymentList"] {
        listed(kind, "pull");
        let said = repo.fails("deploy lake --timeout 60s");
        assert!(
            said.contains("`deployment/listed` failed: container `pond` of pod `listed-"),
            "{said}"
        );
    }
    listed("List", "fine");
    repo.ok("deploy lake");
}

#[test]
fn a_suspended_job_is_not_waited_for() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["suspended"]);
    repo.write(
        "helm-charts/pond/templates/later.yaml",
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: later}\nspec:\n  suspend: yes\n  template:\n    \
         spec: {restartPolicy: Never, containers: [{name: pond, image: pond}]}\n",
    );
    repo.ok("deploy lake --timeout 60s");
}
