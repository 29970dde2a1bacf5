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
    let repo = frozen(&Shared::cluster(), &["fz-none"]);
    let support = "support: {helm_chart_values_files: []}\nhubs:";
    repo.edit("config/clusters/lake/cluster.yaml", "hubs:", support);
    let said = repo.fails("deploy-support lake");
    assert!(
        said.contains("held are `support`, `cert-manager`"),
        "{said}"
    );
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
