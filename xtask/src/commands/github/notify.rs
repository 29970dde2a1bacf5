//! A webhook that learns of failed jobs.

use std::env;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::services::{
    github::{Api, variable},
    http,
};

/// In Slack's form, which others take too: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>.
/// The address is a secret.
pub(crate) fn notify() -> Result<()> {
    let Some(address) = env::var("WEBHOOK_URL").ok().filter(|it| !it.is_empty()) else {
        say!("`WEBHOOK_URL` isn't set: nobody is told");
        return Ok(());
    };
    let [server, repository, run, workflow] = [
        "GITHUB_SERVER_URL",
        "GITHUB_REPOSITORY",
        "GITHUB_RUN_ID",
        "GITHUB_WORKFLOW",
    ]
    .map(variable);
    let (repository, run) = (repository?, run?);
    let jobs = Api::new()?.all(
        &format!("actions/runs/{run}/jobs?per_page=100"),
        Some("jobs"),
    )?;
    let failed = jobs.iter().filter(|it| it["conclusion"] == "failure");
    let failed: Vec<_> = failed.filter_map(|it| it["name"].as_str()).collect();
    let link = format!("{}/{repository}/actions/runs/{run}", server?);
    let text = format!(
        "{} of {repository} failed: {}\n{link}",
        workflow?,
        failed.join(", ")
    );
    let sent = http::agent()
        .post(&address)
        .header("Content-Type", "application/json");
    let sent = sent.send(json!({"text": text}).to_string());
    // Its messages may have the address.
    let answer = sent
        .ok()
        .context("cannot reach the webhook in `WEBHOOK_URL`")?;
    ensure!(
        answer.status().is_success(),
        "the webhook in `WEBHOOK_URL` answers {}",
        answer.status()
    );
    Ok(())
}
