//! Selects the jobs to run after others of which some failed.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    machine::{
        terminal::list,
        until::Until,
        workflow::{self, variable as given},
    },
    services::{
        github::{Api, Pages, variable},
        workflow_runs::releases,
    },
};

/// How many seconds GitHub may take until it knows how a job ended, if `PATIENCE` does not say it.
const PATIENCE: u64 = 5 * 60;

/// The longest pause between two questions, in seconds.
const LONGEST_PAUSE: u64 = 16;

/// How a release's own job ended, by what GitHub says now.
#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    WentWell,
    Failed,
}

/// Keeps those of `JOBS` whose `needs` went well in this run, and names the releases of the others: in the output `held`, which
/// a later step gets as `HELD`. Waits while GitHub doesn't know how a job ended that decides.
pub(crate) fn filter_jobs() -> Result<()> {
    let jobs: Vec<Value> =
        serde_json::from_str(&variable("JOBS")?).context("`JOBS` is not a list in JSON")?;
    let held_before = given("HELD").unwrap_or_else(|| "[]".to_owned());
    let mut held: Vec<String> =
        serde_json::from_str(&held_before).context("`HELD` is not a list in JSON")?;
    let outcomes = known_outcomes(&jobs, &held)?;
    let mut kept = Vec::new();
    for job in jobs {
        let failed: Vec<_> = needs(&job)
            .into_iter()
            .filter(|it| outcomes.get(*it) == Some(&Outcome::Failed))
            .collect();
        if failed.is_empty() {
            kept.push(job);
            continue;
        }
        let releases = text(&job, "releases");
        say!(
            "{releases}: held back, since {} did not go well",
            list(&failed)
        );
        held.extend(releases.split(' ').map(str::to_owned));
    }
    let outputs = [("jobs", Value::Array(kept)), ("held", json!(held))];
    workflow::set("GITHUB_OUTPUT", &outputs)
}

/// How the releases' jobs ended that decide about these jobs. Those that were held back before did not go well.
fn known_outcomes(jobs: &[Value], held_before: &[String]) -> Result<BTreeMap<String, Outcome>> {
    let api = Api::new()?;
    let mut known = Pages::default();
    let seconds = given("PATIENCE").and_then(|it| it.parse().ok());
    let until = Until::after(Duration::from_secs(seconds.unwrap_or(PATIENCE)));
    let mut pause = 1;
    loop {
        let mut outcomes = outcomes(&api, &mut known)?;
        let held = held_before.iter();
        outcomes.extend(held.map(|it| (it.clone(), Outcome::Failed)));
        let open = open(jobs, &outcomes);
        if open.is_empty() {
            return Ok(outcomes);
        }
        ensure!(!until.left().is_zero(), not_known(&open));
        until.pause(Duration::from_secs(pause).min(until.left()))?;
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}

/// The needed releases without a known end, of jobs about which no other one decides.
fn open<'a>(jobs: &'a [Value], outcomes: &BTreeMap<String, Outcome>) -> Vec<&'a str> {
    let mut open = Vec::new();
    for job in jobs {
        let needs = needs(job);
        let is_held = needs
            .iter()
            .any(|it| outcomes.get(*it) == Some(&Outcome::Failed));
        if !is_held {
            open.extend(needs.into_iter().filter(|it| !outcomes.contains_key(*it)));
        }
    }
    open.sort_unstable();
    open.dedup();
    open
}

fn not_known(open: &[&str]) -> String {
    format!(
        "GitHub does not say how the jobs of {} ended, which jobs after them need to know: nothing after them was deployed\n\
         hint: \"Re-run all jobs\" of this run; what is deployed already is skipped",
        list(open)
    )
}

/// How the jobs of this run ended, by the releases that they are named after. Of several attempts the newest counts; that one
/// failed in an earlier attempt says nothing, since it may be about to succeed in this one.
fn outcomes(api: &Api, known: &mut Pages) -> Result<BTreeMap<String, Outcome>> {
    let run = variable("GITHUB_RUN_ID")?;
    let attempt: Option<u64> = given("GITHUB_RUN_ATTEMPT").and_then(|it| it.parse().ok());
    let path = format!("actions/runs/{run}/jobs?filter=all&per_page=100");
    let mut jobs = api.all_again(&path, Some("jobs"), known)?;
    jobs.sort_by_key(|it| it["run_attempt"].as_u64());
    let mut outcomes = BTreeMap::new();
    for job in &jobs {
        let is_current = job["run_attempt"]
            .as_u64()
            .is_none_or(|it| Some(it) >= attempt);
        let outcome = match job["conclusion"].as_str() {
            Some("success") => Some(Outcome::WentWell),
            Some(_) if is_current => Some(Outcome::Failed),
            _ => None,
        };
        for release in releases(text(job, "name")) {
            match outcome {
                Some(outcome) => outcomes.insert(release, outcome),
                None => outcomes.remove(&release),
            };
        }
    }
    Ok(outcomes)
}

/// The releases whose jobs have to go well before this job runs.
fn needs(job: &Value) -> Vec<&str> {
    let needs = job["needs"].as_array().into_iter().flatten();
    needs.filter_map(Value::as_str).collect()
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_default()
}
