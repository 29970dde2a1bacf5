//! GitHub's API, with the token of a workflow's run: <https://docs.github.com/rest>.

use std::env;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::{Agent, Body, http::Response};

use crate::services::http;

/// A workflow's repository.
pub(crate) struct Api {
    agent: Agent,
    /// `https://api.github.com/repos/OWNER/REPOSITORY`
    url: String,
    token: String,
}

/// What GitHub sets in each step of a workflow, or the step itself.
pub(crate) fn variable(name: &str) -> Result<String> {
    let value = env::var(name).ok().filter(|it| !it.is_empty());
    value.with_context(|| format!("`{name}` isn't set, as it is in a step of our workflows"))
}

impl Api {
    pub(crate) fn new() -> Result<Api> {
        let url = format!(
            "{}/repos/{}",
            variable("GITHUB_API_URL")?,
            variable("GITHUB_REPOSITORY")?
        );
        Ok(Api {
            agent: http::agent(),
            url,
            token: variable("GITHUB_TOKEN")?,
        })
    }

    /// What is at a path of the repository.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        json(self.ask("GET", &format!("{}/{path}", self.url), None)?)
    }

    /// All items of a list that comes in pages: in answers that are lists, or have one under `key`.
    pub(crate) fn all(&self, path: &str, key: Option<&str>) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut next = Some(format!("{}/{path}", self.url));
        while let Some(url) = next {
            let answer = self.ask("GET", &url, None)?;
            next = answer
                .headers()
                .get("link")
                .and_then(|it| it.to_str().ok())
                .and_then(next_page);
            let mut page = json(answer)?;
            let page = match key {
                Some(key) => page[key].take(),
                None => page,
            };
            let Value::Array(page) = page else {
                bail!("GET {url}: GitHub's answer has no list")
            };
            items.extend(page);
        }
        Ok(items)
    }

    /// Makes or changes something.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        json(self.ask(method, &format!("{}/{path}", self.url), Some(body))?)
    }

    /// An answer of success.
    fn ask(&self, method: &str, url: &str, body: Option<&Value>) -> Result<Response<Body>> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("Accept", "application/vnd.github+json")
            .header("X-GitHub-Api-Version", "2022-11-28")
            .header("Authorization", format!("Bearer {}", self.token))
            .header("Content-Type", "application/json")
            .body(body.map_or_else(String::new, Value::to_string))
            .with_context(|| format!("`{url}` isn't an address"))?;
        let answer = self.agent.run(request);
        let mut answer = answer.with_context(|| format!("cannot ask GitHub: {method} {url}"))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        let said = said["message"].as_str().unwrap_or_default();
        let hint = if status == 403 {
            "\nhint: does the job have the `permissions` for that?"
        } else {
            ""
        };
        bail!("{method} {url}: GitHub answers {status} {said}{hint}")
    }
}

fn json(mut answer: Response<Body>) -> Result<Value> {
    let text = answer.body_mut().read_to_string()?;
    serde_json::from_str(&text).context("GitHub's answer isn't JSON")
}

/// The address in `<https://…>; rel="next", …`.
fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|it| it.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_owned())
}

/// The commit of the newest run of this workflow that went well on this branch, if there was one. Runs of pull requests
/// deploy nothing.
pub(crate) fn last_deployed() -> Result<Option<String>> {
    let api = Api::new().context("`--base last-deployed` asks GitHub")?;
    // "owner/repository/.github/workflows/deploy-hubs.yaml@refs/heads/main"
    let workflow = variable("GITHUB_WORKFLOW_REF")?;
    let file = workflow
        .split('@')
        .next()
        .and_then(|it| it.rsplit('/').next())
        .unwrap_or_default();
    let branch: String = variable("GITHUB_REF_NAME")?.bytes().map(encoded).collect();
    let path = format!("actions/workflows/{file}/runs?branch={branch}&status=success&per_page=50");
    let runs = api.get(&path)?;
    let runs = runs["workflow_runs"]
        .as_array()
        .context("GitHub's answer has no `workflow_runs`")?;
    let deploy = runs.iter().find(|it| {
        !it["event"]
            .as_str()
            .unwrap_or_default()
            .starts_with("pull_request")
    });
    Ok(deploy.and_then(|it| Some(it["head_sha"].as_str()?.to_owned())))
}

/// Those of the pull request that brought a commit; none, if it came without.
pub(crate) fn labels(commit: &str) -> Result<Vec<String>> {
    let api = Api::new().context("`--labels merged` asks GitHub")?;
    let labels = api
        .all(&format!("commits/{commit}/pulls?per_page=100"), None)?
        .into_iter()
        .flat_map(|it| {
            let labels = it["labels"].as_array().into_iter().flatten();
            labels
                .filter_map(|it| Some(it["name"].as_str()?.to_owned()))
                .collect::<Vec<_>>()
        });
    Ok(labels.collect())
}

/// A byte of a value in an address.
pub(crate) fn encoded(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    }
}
