//! The jobs as a child pipeline of GitLab. JSON is YAML, too.
//! <https://docs.gitlab.com/ci/pipelines/downstream_pipelines/#dynamic-child-pipelines>

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    commands::generate::{helm_upgrade_jobs::plan::Upgrades, jobs::Todo},
    repository::cluster_yaml::UnusableCluster,
};

/// The file with what these jobs and those of .gitlab-ci.yml have in common.
const SHARED: &str = ".gitlab/xtask.yml";

/// How many `needs` GitLab takes for a job.
/// <https://docs.gitlab.com/ci/yaml/#needs>
const NEEDS: usize = 50;

/// The failures after which GitLab retries a job: those of a runner, by names that older GitLabs know, too. A deploy that failed
/// is not retried.
/// <https://docs.gitlab.com/ci/yaml/#retrywhen>
const BROKEN_BY_RUNNER: [&str; 4] = [
    "api_failure",
    "runner_system_failure",
    "scheduler_failure",
    "stuck_or_timeout_failure",
];

/// A pipeline with a job for each support chart and each hub, and one for each cluster that waits for a person's approval
/// before production. Jobs need only jobs of their own cluster, so that a failure holds back no other cluster. If there are
/// clusters that cannot be used, one job fails with what is wrong with them.
pub(crate) fn pipeline(plan: &[Upgrades], unusable: &[UnusableCluster]) -> Result<String> {
    let mut jobs = BTreeMap::new();
    for upgrades in plan {
        add_support(&mut jobs, upgrades);
        add_staging(&mut jobs, upgrades);
        if !upgrades.prod.is_empty() {
            add_approval(&mut jobs, upgrades);
            add_prod(&mut jobs, upgrades);
        }
    }
    if !unusable.is_empty() {
        let script = "xtask validate cluster-config".to_owned();
        let job = deploy("support", script, "cluster-config".to_owned(), vec![]);
        jobs.insert("clusters that are left out".to_owned(), job);
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

/// Jobs by their names.
type Jobs = BTreeMap<String, Value>;

fn add_support(jobs: &mut Jobs, upgrades: &Upgrades) {
    if let Some(name) = support_job(upgrades) {
        let cluster = &upgrades.cluster.name;
        let script = format!("xtask deploy-support {cluster}");
        let group = format!("{cluster}/support");
        jobs.insert(name, deploy("support", script, group, vec![]));
    }
}

fn add_staging(jobs: &mut Jobs, upgrades: &Upgrades) {
    for todo in &upgrades.staging {
        let needs = support_job(upgrades).into_iter().collect();
        let job = deploy_hub("staging", upgrades, todo, needs);
        jobs.insert(staging_job(upgrades, todo), job);
    }
}

/// Adds the job that waits for a person. It needs only the staging hubs that all production hubs wait for, since a failure of
/// another staging hub does not hold back all of them.
fn add_approval(jobs: &mut Jobs, upgrades: &Upgrades) {
    let name = approval_job(upgrades);
    let mut needs: Vec<String> = support_job(upgrades).into_iter().collect();
    for gate in &upgrades.staging {
        if upgrades.prod.iter().all(|it| it.hub.waits_for(gate.hub)) {
            needs.push(staging_job(upgrades, gate));
        }
    }
    let needs = gathered(jobs, &name, needs);
    let job = json!({
        "stage": "approval",
        "script": ["echo \"approved by $GITLAB_USER_LOGIN\""],
        "when": "manual",
        "allow_failure": false,
        "needs": needs,
    });
    jobs.insert(name, job);
}

fn add_prod(jobs: &mut Jobs, upgrades: &Upgrades) {
    for todo in &upgrades.prod {
        let name = format!("production {} {}", upgrades.cluster.name, todo.hub.name);
        let mut needs = vec![approval_job(upgrades)];
        needs.extend(support_job(upgrades));
        for gate in &upgrades.staging {
            if todo.hub.waits_for(gate.hub) {
                needs.push(staging_job(upgrades, gate));
            }
        }
        let needs = gathered(jobs, &name, needs);
        jobs.insert(name, deploy_hub("production", upgrades, todo, needs));
    }
}

/// The name of the job that upgrades the support chart, if there is one.
fn support_job(upgrades: &Upgrades) -> Option<String> {
    upgrades.support.as_ref()?;
    Some(format!("support {}", upgrades.cluster.name))
}

fn staging_job(upgrades: &Upgrades, todo: &Todo) -> String {
    format!("staging {} {}", upgrades.cluster.name, todo.hub.name)
}

fn approval_job(upgrades: &Upgrades) -> String {
    format!("approve {}", upgrades.cluster.name)
}

/// A job that deploys a hub after the jobs that it needs.
fn deploy_hub(stage: &str, upgrades: &Upgrades, todo: &Todo, needs: Vec<String>) -> Value {
    let cluster = &upgrades.cluster.name;
    let hub = &todo.hub.name;
    let script = format!("xtask deploy {cluster} {hub}");
    deploy(stage, script, format!("{cluster}/{hub}"), needs)
}

/// A job that runs this script after the jobs that it needs. The program comes from the pipeline that starts this one.
fn deploy(stage: &str, script: String, resource_group: String, needs: Vec<String>) -> Value {
    let program = json!({"pipeline": "$PARENT_PIPELINE_ID", "job": "build"});
    let mut all = vec![program];
    all.extend(needs.into_iter().map(Value::from));
    json!({
        "stage": stage,
        "script": [script],
        "needs": all,
        "resource_group": resource_group,
        "retry": {"max": 2, "when": BROKEN_BY_RUNNER},
    })
}

/// What a job needs besides the program. If that is more than GitLab takes, jobs that do nothing are added, each of which needs
/// a part of it, and the job needs those.
fn gathered(jobs: &mut Jobs, name: &str, needs: Vec<String>) -> Vec<String> {
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
