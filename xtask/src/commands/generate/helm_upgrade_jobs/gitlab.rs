//! The jobs as a child pipeline of GitLab. JSON is YAML, too.
//! <https://docs.gitlab.com/ci/pipelines/downstream_pipelines/#dynamic-child-pipelines>

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    commands::generate::{
        helm_upgrade_jobs::{
            images::Images,
            plan::{IGNORE_FREEZE, Plan, SUPPORT, Upgrades},
        },
        jobs::Todo,
    },
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

/// The environment of the commit of which nothing was left out, which `--base last-deployed` looks for.
const ENVIRONMENT: &str = "hubs";

/// A pipeline with a job for each support chart and each hub, and one for each cluster that waits for a person's approval
/// before production. Jobs need only jobs of their own cluster and those that build its images, so that a failure holds back no
/// other cluster of the wave, and all jobs of the waves before. If there are clusters that cannot be used, one job fails with what is wrong with them.
pub(crate) fn pipeline(plan: &Plan, unusable: &[UnusableCluster]) -> Result<String> {
    let mut jobs = Jobs::new();
    let mut stages = Vec::new();
    let mut last = None;
    if !plan.images.is_empty() {
        add_images(&mut jobs, &plan.images);
        stages.push(IMAGES.to_owned());
    }
    let waves: BTreeSet<_> = plan.upgrades.iter().map(|it| it.cluster.wave).collect();
    for wave in waves {
        let names = add_wave(&mut jobs, plan, wave, last.as_ref());
        stages.extend(STAGES.map(|it| stage(it, wave)));
        let name = format!("wave {wave}");
        let needs = gathered(&mut jobs, &name, &name, names);
        let job = json!({"stage": name, "script": ["echo all went well"], "needs": needs});
        jobs.insert(name.clone(), job);
        stages.push(name.clone());
        last = Some(name);
    }
    stages.push(DEPLOYED.to_owned());
    let mut needs = Vec::from_iter(last);
    if !unusable.is_empty() {
        let script = "xtask validate cluster-config".to_owned();
        let name = "clusters that are left out".to_owned();
        let job = deploy(DEPLOYED.to_owned(), script, "cluster-config", vec![]);
        jobs.insert(name.clone(), job);
        needs.push(name);
    }
    if plan.held.is_empty() {
        jobs.insert(DEPLOYED.to_owned(), deployed(needs));
    } else {
        jobs.insert("held back".to_owned(), held_back(plan));
    }
    jobs.insert("include".to_owned(), json!([{"local": SHARED}]));
    jobs.insert("default".to_owned(), json!({"image": "$DEPLOYER_IMAGE"}));
    jobs.insert("stages".to_owned(), json!(stages));
    Ok(serde_json::to_string_pretty(&jobs)? + "\n")
}

/// The stages of each wave. A job can only need those of its own stage and of earlier ones.
const STAGES: [&str; 4] = ["support", "staging", "approval", "production"];

/// The first stage, if images are built.
const IMAGES: &str = "images";

/// The last stage, and its job that tells GitLab that nothing was left out.
const DEPLOYED: &str = "deployed";

/// A stage of a wave.
fn stage(name: &str, wave: u8) -> String {
    match wave {
        1 => name.to_owned(),
        _ => format!("{name} of wave {wave}"),
    }
}

/// Adds the jobs of a wave, which need those of the wave before. Returns their names.
fn add_wave(jobs: &mut Jobs, plan: &Plan, wave: u8, before: Option<&String>) -> Vec<String> {
    let mut own = Jobs::new();
    for upgrades in plan.upgrades.iter().filter(|it| it.cluster.wave == wave) {
        add_support(&mut own, upgrades);
        add_staging(&mut own, upgrades, &plan.images);
        if !upgrades.prod.is_empty() {
            add_approval(&mut own, upgrades);
            add_prod(&mut own, upgrades, &plan.images);
        }
    }
    let names: BTreeSet<_> = own.keys().cloned().collect();
    for job in own.values_mut() {
        wait_for(job, &names, before);
    }
    jobs.extend(own);
    names.into_iter().collect()
}

/// Makes a job that needs no other one of its wave wait for the wave before.
fn wait_for(job: &mut Value, of_wave: &BTreeSet<String>, before: Option<&String>) {
    let is_of_wave = |need: &Value| need.as_str().is_some_and(|it| of_wave.contains(it));
    if let (Some(before), Some(needs)) = (before, job["needs"].as_array_mut())
        && !needs.iter().any(is_of_wave)
    {
        needs.push(json!(before));
    }
}

/// The job that tells GitLab that nothing was left out.
fn deployed(needs: Vec<String>) -> Value {
    json!({
        "stage": DEPLOYED,
        "script": ["echo deployed $CI_COMMIT_SHA"],
        "needs": needs,
        "environment": {"name": ENVIRONMENT},
        "variables": {"GIT_STRATEGY": "none"},
        "cache": [],
    })
}

/// The job that says what was left out, and until when.
fn held_back(plan: &Plan) -> Value {
    let mut variables = BTreeMap::new();
    for (index, held) in plan.held.iter().enumerate() {
        let text = format!("{}: {}", held.shown(), held.reason);
        let variable = json!({"value": text, "expand": false});
        variables.insert(format!("HELD_{index:03}"), variable);
    }
    let lines = variables.keys().map(|it| format!("echo \"${it}\""));
    let script: Vec<_> = lines.collect();
    json!({"stage": DEPLOYED, "script": script, "needs": [], "variables": variables, "cache": []})
}

/// Jobs by their names.
type Jobs = BTreeMap<String, Value>;

/// Adds a job for each image. Its name may hold what a shell reads in its own way.
fn add_images(jobs: &mut Jobs, images: &Images) {
    for (name, hubs) in images.builds() {
        let script: Vec<_> = hubs
            .iter()
            .map(|it| format!("xtask image build {it} --image \"$IMAGE\" --check-registry --push"))
            .collect();
        let job = json!({
            "stage": IMAGES,
            "script": script,
            "needs": [program()],
            "variables": {"IMAGE": {"value": name, "expand": false}},
            "retry": retry(),
        });
        jobs.insert(image_job(name), job);
    }
}

fn add_support(jobs: &mut Jobs, upgrades: &Upgrades) {
    if let Some(name) = support_job(upgrades) {
        let script = format!("xtask deploy-support {}", upgrades.cluster.name);
        let job = deploy_release("support", script, upgrades, SUPPORT, vec![]);
        jobs.insert(name, job);
    }
}

fn add_staging(jobs: &mut Jobs, upgrades: &Upgrades, images: &Images) {
    for todo in &upgrades.staging {
        let name = staging_job(upgrades, todo);
        let mut needs = image_jobs(images, todo);
        needs.extend(support_job(upgrades));
        let stage = stage("support", upgrades.cluster.wave);
        let needs = gathered(jobs, &name, &stage, needs);
        jobs.insert(name, deploy_hub("staging", upgrades, todo, needs));
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
    let stage = stage("approval", upgrades.cluster.wave);
    let needs = gathered(jobs, &name, &stage, needs);
    let job = json!({
        "stage": stage,
        "script": ["echo \"approved by $GITLAB_USER_LOGIN\""],
        "when": "manual",
        "allow_failure": false,
        "needs": needs,
    });
    jobs.insert(name, job);
}

fn add_prod(jobs: &mut Jobs, upgrades: &Upgrades, images: &Images) {
    for todo in &upgrades.prod {
        let name = format!("production {} {}", upgrades.cluster.name, todo.hub.name);
        let mut needs = vec![approval_job(upgrades)];
        needs.extend(image_jobs(images, todo));
        needs.extend(support_job(upgrades));
        for gate in &upgrades.staging {
            if todo.hub.waits_for(gate.hub) {
                needs.push(staging_job(upgrades, gate));
            }
        }
        let stage = stage("approval", upgrades.cluster.wave);
        let needs = gathered(jobs, &name, &stage, needs);
        jobs.insert(name, deploy_hub("production", upgrades, todo, needs));
    }
}

/// The name of the job that builds an image.
fn image_job(image: &str) -> String {
    format!("image {image}")
}

/// The jobs that build a hub's images.
fn image_jobs(images: &Images, todo: &Todo) -> Vec<String> {
    let images = images.of_hub(todo.hub).into_iter();
    images.map(image_job).collect()
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
    let script = format!("xtask deploy {cluster} {hub} --skip-unchanged");
    deploy_release(stage, script, upgrades, hub, needs)
}

/// A job that deploys a release. GitLab keeps which commit was deployed in an environment of the release's own.
fn deploy_release(
    name_of_stage: &str,
    mut script: String,
    upgrades: &Upgrades,
    name: &str,
    needs: Vec<String>,
) -> Value {
    let release = upgrades.cluster.path_of(name);
    let is_past_freeze = upgrades.past_freeze.contains(name);
    if is_past_freeze {
        script += " --ignore-freeze \"$IGNORE_FREEZE\"";
    }
    let stage = stage(name_of_stage, upgrades.cluster.wave);
    let mut job = deploy(stage, script, &release, needs);
    job["environment"] = json!({"name": release});
    if is_past_freeze {
        job["variables"] = json!({"IGNORE_FREEZE": IGNORE_FREEZE});
    }
    job
}

/// What has the program: a job of the pipeline that starts this one.
fn program() -> Value {
    json!({"pipeline": "$PARENT_PIPELINE_ID", "job": "build"})
}

/// When GitLab retries a job.
fn retry() -> Value {
    json!({"max": 2, "when": BROKEN_BY_RUNNER})
}

/// A job that runs this script after the jobs that it needs.
fn deploy(stage: String, script: String, resource_group: &str, needs: Vec<String>) -> Value {
    let mut all = vec![program()];
    all.extend(needs.into_iter().map(Value::from));
    json!({
        "stage": stage,
        "script": [script],
        "needs": all,
        "resource_group": resource_group,
        "retry": retry(),
    })
}

/// What a job needs besides the program. If that is more than GitLab takes, jobs of this stage are added that do nothing, each
/// of which needs a part of it, and the job needs those.
fn gathered(jobs: &mut Jobs, name: &str, stage: &str, needs: Vec<String>) -> Vec<String> {
    if needs.len() < NEEDS {
        return needs;
    }
    let mut gates = Vec::new();
    for (part, number) in needs.chunks(NEEDS).zip(1..) {
        let gate = format!("{name}, needs {number}");
        let job = json!({"stage": stage, "script": ["echo all went well"], "needs": part});
        jobs.insert(gate.clone(), job);
        gates.push(gate);
    }
    gathered(jobs, &format!("{name} again"), stage, gates)
}
