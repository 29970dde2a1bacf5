//! GitLab's API, with the token of a pipeline's job: which commits were deployed last.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{
    machine::workflow,
    secrets::Secret,
    services::{deployments::LastDeployed, http},
};

/// The environment that a pipeline deploys to if it left nothing out. A job's token may read deployments, but not pipelines.
/// <https://docs.gitlab.com/ci/jobs/ci_job_token/#job-token-access>
const ENVIRONMENT: &str = "hubs";

/// How many pages of deployments are looked through.
const PAGES: usize = 20;

/// A deployment of a job: <https://docs.gitlab.com/api/deployments/#list-project-deployments>.
#[derive(Deserialize)]
struct Deployment {
    sha: String,
    environment: Environment,
}

/// Where something was deployed to: a release, as `lake/staging`, or `ENVIRONMENT`.
#[derive(Deserialize)]
struct Environment {
    name: String,
}

/// The commits that the jobs of pipelines deployed last.
pub(crate) fn last_deployed() -> Result<LastDeployed> {
    let api = variable("CI_API_V4_URL")?;
    let project = variable("CI_PROJECT_ID")?;
    let token = Secret::new(variable("CI_JOB_TOKEN")?);
    let newest = "status=success&order_by=id&sort=desc&per_page=100";
    let url = format!("{api}/projects/{project}/deployments?{newest}");
    find(url, &token).context("cannot tell which commits were deployed last")
}

fn find(url: String, token: &Secret) -> Result<LastDeployed> {
    let mut last = LastDeployed::default();
    let mut next = Some(url);
    for _ in 0..PAGES {
        let Some(url) = next else { return Ok(last) };
        let deployments: Vec<Deployment>;
        (deployments, next) = page(&url, token)?;
        for deployment in deployments {
            if deployment.environment.name == ENVIRONMENT {
                last.whole = Some(deployment.sha);
                return Ok(last);
            }
            last.add(&deployment.environment.name, &deployment.sha);
        }
    }
    last.only = next.map(|_| "the newest 2,000 deployments");
    Ok(last)
}

/// A page of the list, and the address of the next one.
fn page(url: &str, token: &Secret) -> Result<(Vec<Deployment>, Option<String>)> {
    let asked = format!("GET {url}");
    let mut answer = http::get_patiently(&asked, "GitLab", || {
        let request = http::agent().get(url);
        request.header("JOB-TOKEN", token.exposed()).call()
    })?;
    let next = http::next_page(&answer);
    let page = serde_json::from_value(http::json(&mut answer, "GitLab")?);
    let page = page.with_context(|| format!("{asked}: GitLab's answer is no list of deployments"));
    Ok((page?, next))
}

/// A variable that GitLab sets for each job. An error if it is empty or missing.
fn variable(name: &str) -> Result<String> {
    let value = workflow::variable(name);
    value.with_context(|| {
        format!("`--base last-deployed` asks GitLab, and `{name}` is not set as in a pipeline")
    })
}
