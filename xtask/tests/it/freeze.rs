//! Production that is frozen, and what is paused, at a terminal.

use crate::{
    repo::{Repo, Shared},
    workflows::day,
};

/// A repository with these hubs whose production is frozen today.
fn frozen(cluster: &Shared, hubs: &[&str]) -> Repo {
    let repo = Repo::on(cluster, hubs);
    let today = day("now");
    let freeze = format!("freeze: [{{from: {today}, until: {today}, reason: exams}}]\n");
    repo.write("config/xtask.yaml", &freeze);
    repo
}

#[test]
fn a_frozen_hub_is_refused_before_anything_is_touched() {
    let cluster = Shared::cluster();
    let repo = frozen(&cluster, &["fz-staging", "fz-prod"]);
    let said = repo.fails("deploy lake");
    let wanted = format!(
        "production of `lake` is frozen until {}: exams\nnothing was deployed; held are `fz-prod`\n\nhint: staging hubs \
         can be deployed by name; `--ignore-freeze REASON` deploys production all the same, and records why",
        day("now")
    );
    assert!(said.contains(&wanted), "{said}");
    // What changes nothing goes on, until it would.
    repo.ok("deploy lake fz-prod --dry-run");
    let said = repo.fails("deploy lake fz-prod --diff --yes");
    assert!(said.contains("production of `lake` is frozen"), "{said}");
    let namespaces = cluster.kubectl("get namespaces -o name");
    assert!(!namespaces.contains("namespace/fz-"), "{namespaces}");
    repo.ok("deploy lake fz-staging");
    repo.ok("deploy lake fz-prod --ignore-freeze urgent");
    let history = cluster.history("fz-prod");
    assert!(history.contains("freeze ignored: urgent"), "{history}");
    // Going back is no deploy of something new.
    repo.ok("retire lake fz-prod --yes");
}

#[test]
fn a_frozen_support_chart_is_refused() {
    let cluster = Shared::cluster();
    let repo = frozen(&cluster, &["fz-none"]);
    let support = "support: {helm_chart_values_files: []}\nhubs:";
    repo.edit("config/clusters/lake/cluster.yaml", "hubs:", support);
    let said = repo.fails("deploy-support lake");
    assert!(
        said.contains("held are `support`, `cert-manager`"),
        "{said}"
    );
}

#[test]
fn a_freeze_of_an_unknown_cluster_stops_deploys() {
    let cluster = Shared::cluster();
    let repo = frozen(&cluster, &["fu-prod"]);
    let support = "support: {helm_chart_values_files: []}\nhubs:";
    repo.edit("config/clusters/lake/cluster.yaml", "hubs:", support);
    repo.edit("config/xtask.yaml", "exams", "exams, clusters: [lak]");
    for command in ["deploy lake", "deploy-support lake"] {
        let said = repo.fails(command);
        let wanted = "config/xtask.yaml: `freeze`: there is no cluster `lak`; there are: `lake`";
        assert!(said.contains(wanted), "{said}");
        assert!(said.contains("did you mean `lake`?"), "{said}");
    }
}

#[test]
fn settings_that_are_a_link_to_nothing() {
    let repo = Repo::new();
    std::os::unix::fs::symlink("gone.yaml", repo.root.join("config/xtask.yaml")).unwrap();
    let said = repo.fails("generate helm-upgrade-jobs config/clusters/lake/prod.values.yaml");
    let wanted = "cannot read `config/xtask.yaml`: it is a link to a file that is not there";
    assert!(said.contains(wanted), "{said}");
}

#[test]
fn a_reason_of_blanks_is_none() {
    let repo = Repo::new();
    for option in ["--ignore-freeze", "--ignore-staging"] {
        let mut command = repo.command("deploy lake");
        let output = command.args([option, " "]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("the reason is empty"), "{said}");
    }
}

#[test]
fn a_paused_hub_is_deployed_only_by_its_name() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["pz-staging", "pz-prod"]);
    let file = "config/clusters/lake/cluster.yaml";
    let paused = format!("paused: {{until: {}, reason: new nodes}}", day("now"));
    repo.edit(
        file,
        "- name: pz-staging",
        &format!("- name: pz-staging\n  {paused}"),
    );
    // It would fail, and hold back the other one.
    repo.write(
        "config/clusters/lake/pz-staging.values.yaml",
        "fail: no nodes\n",
    );
    let said = repo.ok("deploy lake").stderr;
    let left_out = format!(
        "pz-staging: paused until {}: new nodes: left out, since it is not named",
        day("now")
    );
    assert!(said.contains(&left_out), "{said}");
    assert!(cluster.history("pz-prod").contains("deployed by"), "{said}");
    repo.fails("deploy lake pz-staging");
    repo.edit(file, "\nhubs:", &format!("\n{paused}\nhubs:"));
    let said = repo.ok("deploy lake").stderr;
    assert!(said.contains("every hub of `lake` is paused"), "{said}");
}
