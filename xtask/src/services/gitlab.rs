//! A GitLab pipeline: what the last one deployed that went well.

use std::env;

use anyhow::{Context, Result};

use crate::services::http;

/// The environment of the job in .gitlab-ci.yml that comes after all deploys. Its deployments are what the token of a job
/// may read, unlike pipelines.
/// <https://docs.gitlab.com/ci/jobs/ci_job_token/#job-token-access>
const ENVIRONMENT: &str = "hubs";

/// The commit of the newest pipeline whose deploys all went well, if there was one.
/// <https://docs.gitlab.com/api/deployments/#list-project-deployments>
pub(crate) fn last_deployed() -> Result<Option<String>> {
    let variable = |name: &str| {
        let value = env::var(name).ok().filter(|it| !it.is_empty());
        value.with_context(|| {
            format!("`--base last-deployed` asks GitLab, and `{name}` isn't set as in a pipeline")
        })
    };
    let [api, project, token] = ["CI_API_V4_URL", "CI_PROJECT_ID", "CI_JOB_TOKEN"].map(variable);
    let (api, project, token) = (api?, project?, token?);
    let url = format!("{api}/projects/{project}/deployments");
    let newest = [("order_by", "id"), ("sort", "desc"), ("per_page", "1")];
    let asked = http::agent()
        .get(&url)
        .query_pairs(
            [("environment", ENVIRONMENT), ("status", "success")]
                .into_iter()
                .chain(newest),
        )
        .header("JOB-TOKEN", token);
    let answer = asked
        .call()
        .with_context(|| format!("cannot ask GitLab: GET {url}"))?;
    let answer = http::json("GitLab", answer).with_context(|| format!("GET {url}"))?;
    let deployments = answer
        .as_array()
        .context("GitLab's answer is no list of deployments")?;
    Ok(deployments
        .first()
        .and_then(|it| Some(it["sha"].as_str()?.to_owned())))
}
