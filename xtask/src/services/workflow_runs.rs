//! Which commits the runs of a GitHub workflow deployed.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    machine::parallel::side_by_side,
    services::{
        deployments::LastDeployed,
        github::{Api, variable},
        http,
    },
};

/// How many runs are looked through: a page of them.
const RUNS: usize = 100;

/// For how many runs jobs are asked for at once, where the newest one that succeeded is not the last one to look at.
const AT_ONCE: usize = 8;

/// A run that left something out has a job of this name.
const HELD_BACK: &str = "Held back";

/// The beginning of the names that older workflows give the jobs of a cluster before production.
const FIRST: &str = "Support and staging of ";

/// A run of a workflow: <https://docs.github.com/rest/actions/workflow-runs>.
#[derive(Deserialize)]
struct Run {
    id: u64,
    head_sha: String,
    event: String,
    status: String,
    conclusion: Option<String>,
}

/// A job of a run: <https://docs.github.com/rest/actions/workflow-jobs>.
#[derive(Deserialize)]
struct Job {
    name: String,
    conclusion: Option<String>,
    #[serde(default)]
    run_attempt: u64,
}

/// The commits that runs of this workflow on this branch deployed last. Runs of pull requests do not count, since they deploy
/// nothing, and neither do those that are not over.
pub(crate) fn last_deployed() -> Result<LastDeployed> {
    let api = Api::new().context("`--base last-deployed` asks GitHub")?;
    find(&api).context("cannot tell which commits were deployed last")
}

fn find(api: &Api) -> Result<LastDeployed> {
    let (runs, are_all) = runs(api)?;
    let mut last = LastDeployed::default();
    let mut left = &runs[..];
    let mut least = 1;
    while last.whole.is_none() && !left.is_empty() {
        // Jobs of runs that failed do not end the search: they are asked for together with those of the next one that may.
        let next = left.iter().position(Run::succeeded);
        let count = next.map_or(left.len(), |it| it + 1);
        let (asked, older) = left.split_at(count.max(least).min(left.len()));
        let jobs = side_by_side(&(), asked, |(), run| jobs(api, run));
        for (run, jobs) in asked.iter().zip(jobs) {
            if last.whole.is_none() {
                add(&mut last, run, &jobs?);
            }
        }
        left = older;
        least = AT_ONCE;
    }
    if last.whole.is_none() && !are_all {
        last.only = Some("the newest 100 runs of this workflow");
    }
    Ok(last)
}

/// The newest runs that are over, the newest first, and whether there are no others.
fn runs(api: &Api) -> Result<(Vec<Run>, bool)> {
    // "owner/repository/.github/workflows/deploy-hubs.yaml@refs/heads/main"
    let workflow = variable("GITHUB_WORKFLOW_REF")?;
    let path = workflow.split('@').next().unwrap_or_default();
    let file = http::percent_encoded(path.rsplit('/').next().unwrap_or_default());
    let branch = http::percent_encoded(&variable("GITHUB_REF_NAME")?);
    let path = format!(
        "actions/workflows/{file}/runs?branch={branch}&status=completed&exclude_pull_requests=true&per_page={RUNS}"
    );
    let mut answer = api.get(&path)?;
    let mut runs: Vec<Run> = items(answer["workflow_runs"].take(), &path)?;
    let are_all = runs.len() < RUNS;
    runs.retain(|it| it.status == "completed" && !it.event.starts_with("pull_request"));
    Ok((runs, are_all))
}

/// All jobs of all attempts of a run.
fn jobs(api: &Api, run: &Run) -> Result<Vec<Job>> {
    let path = format!("actions/runs/{}/jobs?filter=all&per_page=100", run.id);
    items(Value::Array(api.all(&path, Some("jobs"))?), &path)
}

fn items<T: DeserializeOwned>(list: Value, path: &str) -> Result<Vec<T>> {
    serde_json::from_value(list)
        .with_context(|| format!("GET {path}: GitHub's answer is not what its documentation says"))
}

/// Adds what a run deployed. After "Re-run failed jobs", the newest attempt of each job counts.
fn add(last: &mut LastDeployed, run: &Run, jobs: &[Job]) {
    let mut newest: BTreeMap<&str, Vec<&Job>> = BTreeMap::new();
    for job in jobs {
        let same = newest.entry(&job.name).or_default();
        same.retain(|it| it.run_attempt >= job.run_attempt);
        if same.iter().all(|it| it.run_attempt == job.run_attempt) {
            same.push(job);
        }
    }
    for (name, same) in &newest {
        if same.iter().all(|it| it.is("success")) {
            let releases = releases(name);
            releases.iter().for_each(|it| last.add(it, &run.head_sha));
        }
    }
    let held_back = newest.iter().find(|(name, _)| plain(name) == HELD_BACK);
    let has_all = held_back.is_none_or(|(_, same)| same.iter().all(|it| it.is("skipped")));
    // A run that was skipped as a whole has deployed nothing.
    let is_skipped = !jobs.is_empty() && jobs.iter().all(|it| it.is("skipped"));
    if run.succeeded() && !is_skipped && has_all {
        last.whole = Some(run.head_sha.clone());
    }
}

impl Run {
    fn succeeded(&self) -> bool {
        self.conclusion.as_deref() == Some("success")
    }
}

impl Job {
    fn is(&self, conclusion: &str) -> bool {
        self.conclusion.as_deref() == Some(conclusion)
    }
}

/// A job's name without those of the jobs that call its workflow.
fn plain(name: &str) -> &str {
    name.rsplit_once(" / ").map_or(name, |(_, name)| name)
}

/// The releases that a job deploys by its name: `lake/staging`, `lake/a lake/b` or, in older workflows, `lake a b`, and for the
/// support chart and all staging hubs `Support and staging of lake`.
pub(crate) fn releases(name: &str) -> Vec<String> {
    let name = plain(name);
    if let Some(cluster) = name.strip_prefix(FIRST) {
        return vec![format!("{cluster}/")];
    }
    let words: Vec<_> = name.split_whitespace().collect();
    if words.iter().all(|it| it.contains('/')) {
        return words.into_iter().map(str::to_owned).collect();
    }
    let mut hubs = words.into_iter();
    let cluster = hubs.next().unwrap_or_default();
    hubs.map(|hub| format!("{cluster}/{hub}")).collect()
}
