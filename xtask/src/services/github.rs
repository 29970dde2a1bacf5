//! GitHub's API, with the token of a workflow's run: <https://docs.github.com/rest>.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use ureq::{Agent, Body, http::Response};

use crate::{
    machine::{parallel::side_by_side, workflow},
    secrets::Secret,
    services::http,
};

/// The API of a workflow's repository.
pub(crate) struct Api {
    agent: Agent,
    /// `https://api.github.com/repos/OWNER/REPOSITORY`
    url: String,
    token: Secret,
}

/// A variable that GitHub or our workflow sets for each step. An error if it is empty or missing.
pub(crate) fn variable(name: &str) -> Result<String> {
    let value = workflow::variable(name);
    value.with_context(|| format!("`{name}` is not set, as it is in a step of our workflows"))
}

impl Api {
    /// Reads what it needs from the variables of a workflow's step.
    pub(crate) fn new() -> Result<Api> {
        let server = variable("GITHUB_API_URL")?;
        let repository = variable("GITHUB_REPOSITORY")?;
        Ok(Api {
            agent: http::agent(),
            url: format!("{server}/repos/{repository}"),
            token: Secret::new(variable("GITHUB_TOKEN")?),
        })
    }

    /// Gets the JSON at a path below the repository's.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let mut answer = self.ask("GET", &format!("{}/{path}", self.url), None)?;
        http::json(&mut answer, "GitHub")
    }

    /// Gets all items of a list that comes in pages. Each answer is a list, or has one under `key`.
    pub(crate) fn all(&self, path: &str, key: Option<&str>) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut next = Some(format!("{}/{path}", self.url));
        while let Some(url) = next {
            let mut answer = self.ask("GET", &url, None)?;
            next = http::next_page(&answer);
            let mut page = http::json(&mut answer, "GitHub")?;
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

    /// Creates or changes what is at a path, and returns GitHub's answer.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mut answer = self.ask(method, &format!("{}/{path}", self.url), Some(body))?;
        http::json(&mut answer, "GitHub")
    }

    /// Asks GitHub. An answer that is not a success is an error.
    fn ask(&self, method: &str, url: &str, body: Option<&Value>) -> Result<Response<Body>> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("Accept", "application/vnd.github+json")
            .header("X-GitHub-Api-Version", "2022-11-28")
            .header("Authorization", format!("Bearer {}", self.token.exposed()))
            .header("Content-Type", "application/json")
            .body(body.map_or_else(String::new, Value::to_string))
            .with_context(|| format!("`{url}` is not a URL"))?;
        let asked = format!("{method} {url}");
        let answer = if method == "GET" {
            http::get_patiently(&asked, "GitHub", || self.agent.run(request.clone()))
        } else {
            http::ask(&asked, "GitHub", || self.agent.run(request))
        };
        answer.map_err(|err| {
            let message = format!("{err:#}");
            if message.contains("answers 403") && !message.contains("\nhint:") {
                anyhow!("{message}\nhint: does the job have the `permissions` for that?")
            } else {
                err
            }
        })
    }
}

/// The labels of the pull requests that brought these commits; none, where no pull request did.
pub(crate) fn labels(commits: &[&str]) -> Result<Vec<Vec<String>>> {
    if commits.is_empty() {
        return Ok(Vec::new());
    }
    let api = &Api::new().context("`--labels merged` asks GitHub")?;
    let labels = side_by_side(&(), commits, |(), commit| labels_of(api, commit));
    labels.into_iter().collect()
}

fn labels_of(api: &Api, commit: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for pull in api.all(&format!("commits/{commit}/pulls?per_page=100"), None)? {
        let labels = pull["labels"].as_array().into_iter().flatten();
        names.extend(labels.filter_map(|label| Some(label["name"].as_str()?.to_owned())));
    }
    Ok(names)
}
