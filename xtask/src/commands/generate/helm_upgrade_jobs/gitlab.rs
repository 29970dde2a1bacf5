//! The jobs as a child pipeline of GitLab. Its YAML is JSON.
//! <https://docs.gitlab.com/ci/pipelines/downstream_pipelines/#dynamic-child-pipelines>

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::commands::generate::{helm_upgrade_jobs::plan::Upgrades, jobs::Todo};

/// What its jobs have in common with those of .gitlab-ci.yml.
const SHARED: &str = ".gitlab/xtask.yml";

/// GitLab takes no more `needs` of a job.
/// <https://docs.gitlab.com/ci/yaml/#needs>
const NEEDS: usize = 50;

/// What a runner breaks, by names that older GitLabs know, too. A deploy that failed isn't tried again.
/// <https://docs.gitlab.com/ci/yaml/#retrywhen>
const BROKEN_BY_RUNNER: [&str; 4] = [
    "api_failure",
    "runner_system_failure",
    "scheduler_failure",
    "stuck_or_timeout_failure",
];

/// A job for each support and each hub, and one for each cluster that waits for a person before production. What a cluster's
/// jobs need is of this cluster, so that one's failure holds back no other.
pub(crate) fn pipeline(plan: &[Upgrades]) -> Result<String> {
    let mut jobs = BTreeMap::new();
    for upgrades in plan {
        add(&mut jobs, upgrades)?;
    }
    if jobs.is_empty() {
        // GitLab refuses a pipeline without jobs.
        let job = json!({"stage": "production", "script": ["echo nothing to deploy"]});
        jobs.insert("nothing to deploy".to_owned(), job);
    }
    jobs.insert("include".to_owned(), json!([{"local": SHARED}]));
    jobs.insert("default".to_owned(), json!({"image": "$DEPLOYER_IMAGE"}));
    jobs.insert(
        "stages".to_owned(),
        json!(["support", "staging", "approval", "production"]),
    );
    Ok(serde_json::to_string_pretty(&jobs)? + "\n")
}

/// The jobs of a cluster by their names.
fn add(jobs: &mut BTreeMap<String, Value>, upgrades: &Upgrades) -> Result<()> {
    let cluster = &upgrades.cluster.name;
    // Hubs' names are checked with cluster.yaml; a cluster is called as its folder.
    ensure!(
        cluster
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || "-_.".contains(it)),
        "the folder `{}` can't be named in a job's script",
        upgrades.cluster.dir.display()
    );
    let staging_job = |it: &Todo| format!("staging {cluster} {}", it.hub.name);
    let support = upgrades
        .support
        .as_ref()
        .map(|_| format!("support {cluster}"));
    if let Some(name) = &support {
        let script = format!("xtask deploy-support {cluster}");
        jobs.insert(
            name.clone(),
            deploy("support", script, format!("{cluster}/support"), vec![]),
        );
    }
    for it in &upgrades.staging {
        let script = format!("xtask deploy {cluster} {}", it.hub.name);
        let group = format!("{cluster}/{}", it.hub.name);
        jobs.insert(
            staging_job(it),
            deploy("staging", script, group, support.iter().cloned().collect()),
        );
    }
    if upgrades.prod.is_empty() {
        return Ok(());
    }
    // A hub that waits for some staging hubs isn't held back by the others: the approval waits for those of all hubs.
    let approve = format!("approve {cluster}");
    let of_all = upgrades
        .staging
        .iter()
        .filter(|gate| upgrades.prod.iter().all(|it| it.hub.waits_for(gate.hub)));
    let needs = support
        .iter()
        .cloned()
        .chain(of_all.map(staging_job))
        .collect();
    let needs = gathered(jobs, &approve, needs);
    let job = json!({
        "stage": "approval",
        "script": ["echo \"approved by $GITLAB_USER_LOGIN\""],
        "when": "manual",
        "allow_failure": false,
        "needs": needs,
    });
    jobs.insert(approve.clone(), job);
    for it in &upgrades.prod {
        let name = format!("production {cluster} {}", it.hub.name);
        let gates = upgrades
            .staging
            .iter()
            .filter(|gate| it.hub.waits_for(gate.hub))
            .map(staging_job);
        let needs = [approve.clone()]
            .into_iter()
            .chain(support.clone())
            .chain(gates)
            .collect();
        let needs = gathered(jobs, &name, needs);
        let script = format!("xtask deploy {cluster} {}", it.hub.name);
        let group = format!("{cluster}/{}", it.hub.name);
        jobs.insert(name, deploy("production", script, group, needs));
    }
    Ok(())
}

/// A job that runs this after the jobs that it needs. The program is from the pipeline that starts this one.
fn deploy(stage: &str, script: String, resource_group: String, needs: Vec<String>) -> Value {
    let program = json!({"pipeline": "$PARENT_PIPELINE_ID", "job": "build"});
    let needs: Vec<_> = [program]
        .into_iter()
        .chain(needs.into_iter().map(Value::from))
        .collect();
    json!({
        "stage": stage,
        "script": [script],
        "needs": needs,
        "resource_group": resource_group,
        "retry": {"max": 2, "when": BROKEN_BY_RUNNER},
    })
}

/// What a job needs besides the program: if it's more than GitLab takes, jobs that do nothing stand for a part of it each.
fn gathered(jobs: &mut BTreeMap<String, Value>, name: &str, needs: Vec<String>) -> Vec<String> {
    if needs.len() < NEEDS {
        return needs;
    }
    let parts = needs.chunks(NEEDS).zip(1..).map(|(part, number)| {
        let gate = format!("{name}, needs {number}");
        let job = json!({"stage": "approval", "script": ["echo all went well"], "needs": part});
        jobs.insert(gate.clone(), job);
        gate
    });
    parts.collect()
}
