//! Tells a webhook about failed jobs.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    machine::workflow,
    services::{
        github::{Api, variable},
        http,
    },
};

/// Sends a message in Slack's form, which other services take, too:
/// <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>. The webhook's URL is a secret.
pub(crate) fn notify() -> Result<()> {
    let Some(url) = workflow::variable("WEBHOOK_URL") else {
        say!("`WEBHOOK_URL` is not set: no message is sent");
        return Ok(());
    };
    let text = message()?;
    let request = http::agent()
        .post(&url)
        .header("Content-Type", "application/json");
    // The error itself is dropped, since it may name the URL.
    let answer = request
        .send(json!({"text": text}).to_string())
        .ok()
        .context("cannot reach the webhook in `WEBHOOK_URL`")?;
    ensure!(
        answer.status().is_success(),
        "the webhook in `WEBHOOK_URL` answers {}",
        answer.status()
    );
    Ok(())
}

fn message() -> Result<String> {
    let server = variable("GITHUB_SERVER_URL")?;
    let repository = variable("GITHUB_REPOSITORY")?;
    let run = variable("GITHUB_RUN_ID")?;
    let workflow = variable("GITHUB_WORKFLOW")?;
    let path = format!("actions/runs/{run}/jobs?per_page=100");
    let jobs = Api::new()?.all(&path, Some("jobs"))?;
    let failed = jobs.iter().filter(|it| it["conclusion"] == "failure");
    let failed: Vec<_> = failed.filter_map(|it| it["name"].as_str()).collect();
    let failed = failed.join(", ");
    Ok(format!(
        "{workflow} of {repository} failed: {failed}\n{server}/{repository}/actions/runs/{run}"
    ))
}
