//! Which production hubs are deployed after what became of the clusters' staging.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    machine::workflow,
    services::github::{Api, variable},
};

/// How the workflow calls a cluster's job before production; its name follows.
const FIRST: &str = "Support and staging of ";

pub(crate) fn filter_jobs() -> Result<()> {
    let jobs: Vec<Value> =
        serde_json::from_str(&variable("JOBS")?).context("`JOBS` is no list in JSON")?;
    let path = format!(
        "actions/runs/{}/jobs?per_page=100",
        variable("GITHUB_RUN_ID")?
    );
    let mut went_well: BTreeMap<String, bool> = BTreeMap::new();
    for job in Api::new()?.all(&path, Some("jobs"))? {
        let name = job["name"].as_str().unwrap_or_default();
        if let Some(cluster) = name.strip_prefix(FIRST) {
            *went_well.entry(cluster.to_owned()).or_insert(true) &= job["conclusion"] == "success";
        }
    }
    let cluster = |job: &Value| job["cluster_name"].as_str().unwrap_or_default().to_owned();
    let (kept, held_back): (Vec<_>, Vec<_>) = jobs
        .into_iter()
        .partition(|it| went_well.get(&cluster(it)).copied().unwrap_or(false));
    for job in &held_back {
        let cluster = cluster(job);
        let hubs = job["hub_name"].as_str().unwrap_or_default();
        match went_well.contains_key(&cluster) {
            true => say!("{cluster}: {hubs}: held back, since support or staging failed"),
            false => {
                say!("{cluster}: {hubs}: held back, since this run has no job `{FIRST}{cluster}`")
            }
        }
    }
    workflow::set("GITHUB_OUTPUT", &[("jobs", Value::Array(kept))])
}
