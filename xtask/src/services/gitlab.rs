//! GitLab's API, with the token of a pipeline's job: which commit was deployed last.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{machine::workflow, secrets::Secret, services::http};

/// The environment of the job in .gitlab-ci.yml that runs after all deploys. A job's token may read deployments, but not
/// pipelines.
/// <https://docs.gitlab.com/ci/jobs/ci_job_token/#job-token-access>
const ENVIRONMENT: &str = "hubs";

/// The commit of the newest pipeline whose deploys all succeeded, if there was one.
/// <https://docs.gitlab.com/api/deployments/#list-project-deployments>
pub(crate) fn last_deployed() -> Result<Option<String>> {
    let api = variable("CI_API_V4_URL")?;
    let project = variable("CI_PROJECT_ID")?;
    let token = Secret::new(variable("CI_JOB_TOKEN")?);
    let url = format!("{api}/projects/{project}/deployments");
    let newest = [
        ("environment", ENVIRONMENT),
        ("status", "success"),
        ("order_by", "id"),
        ("sort", "desc"),
        ("per_page", "1"),
    ];
    let answer = http::agent()
        .get(&url)
        .query_pairs(newest)
        .header("JOB-TOKEN", token.exposed())
        .call()
        .with_context(|| format!("cannot reach GitLab: GET {url}"))?;
    let mut answer = http::success(answer, &format!("GET {url}"), "GitLab")?;
    newest_commit(&http::json(&mut answer, "GitLab")?)
}

/// The commit of the first deployment in a list; none if there is none.
fn newest_commit(answer: &Value) -> Result<Option<String>> {
    let deployments = answer
        .as_array()
        .context("GitLab's answer is no list of deployments")?;
    let newest = deployments.first();
    Ok(newest.and_then(|it| Some(it["sha"].as_str()?.to_owned())))
}

/// A variable that GitLab sets for each job. An error if it is empty or missing.
fn variable(name: &str) -> Result<String> {
    let value = workflow::variable(name);
    value.with_context(|| {
        format!("`--base last-deployed` asks GitLab, and `{name}` is not set as in a pipeline")
    })
}
