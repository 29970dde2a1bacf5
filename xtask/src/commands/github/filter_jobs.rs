//! Selects the production hubs to deploy, after the jobs for support and staging of their clusters.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    machine::workflow,
    services::github::{Api, variable},
};

/// The beginning of the name of a cluster's job before production; the cluster's name follows.
const FIRST: &str = "Support and staging of ";

pub(crate) fn filter_jobs() -> Result<()> {
    let jobs: Vec<Value> =
        serde_json::from_str(&variable("JOBS")?).context("`JOBS` is not a list in JSON")?;
    let succeeded = first_jobs()?;
    let mut kept = Vec::new();
    for job in jobs {
        let cluster = job["cluster_name"].as_str().unwrap_or_default();
        let hubs = job["hub_name"].as_str().unwrap_or_default();
        match succeeded.get(cluster) {
            Some(true) => kept.push(job),
            Some(false) => {
                say!("{cluster}: {hubs}: held back, since support or staging failed");
            }
            None => {
                say!("{cluster}: {hubs}: held back, since this run has no job `{FIRST}{cluster}`");
            }
        }
    }
    workflow::set("GITHUB_OUTPUT", &[("jobs", Value::Array(kept))])
}

/// Whether the jobs before production succeeded, by cluster.
fn first_jobs() -> Result<BTreeMap<String, bool>> {
    let run = variable("GITHUB_RUN_ID")?;
    let path = format!("actions/runs/{run}/jobs?per_page=100");
    let mut succeeded = BTreeMap::new();
    for job in Api::new()?.all(&path, Some("jobs"))? {
        let name = job["name"].as_str().unwrap_or_default();
        if let Some(cluster) = name.strip_prefix(FIRST) {
            let all = succeeded.entry(cluster.to_owned()).or_insert(true);
            *all &= job["conclusion"] == "success";
        }
    }
    Ok(succeeded)
}
