//! GitHub's API, with the token of a workflow's run: <https://docs.github.com/rest>.

use std::collections::BTreeMap;

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

/// Pages of lists that were got before, by their addresses.
#[derive(Default)]
pub(crate) struct Pages(BTreeMap<String, Page>);

#[derive(Clone)]
struct Page {
    /// GitHub's mark of what it holds.
    etag: String,
    /// The address of the next page.
    next: Option<String>,
    json: Value,
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
        self.all_again(path, key, &mut Pages::default())
    }

    /// The same for a list that is asked for several times: GitHub's limit does not count pages that are as they were.
    pub(crate) fn all_again(
        &self,
        path: &str,
        key: Option<&str>,
        known: &mut Pages,
    ) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut next = Some(format!("{}/{path}", self.url));
        while let Some(url) = next {
            let page = self.page(&url, known)?;
            next = page.next;
            let list = match key {
                Some(key) => &page.json[key],
                None => &page.json,
            };
            let Value::Array(list) = list else {
                bail!("GET {url}: GitHub's answer has no list")
            };
            items.extend(list.iter().cloned());
        }
        Ok(items)
    }

    fn page(&self, url: &str, known: &mut Pages) -> Result<Page> {
        let before = known.0.get(url);
        let etag = before.map(|it| it.etag.as_str());
        let mut answer = self.ask_unless("GET", url, None, etag)?;
        if let Some(page) = before.filter(|_| answer.status() == 304) {
            return Ok(page.clone());
        }
        let etag = answer.headers().get("etag");
        let page = Page {
            etag: etag
                .and_then(|it| it.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            next: http::next_page(&answer),
            json: http::json(&mut answer, "GitHub")?,
        };
        if !page.etag.is_empty() {
            known.0.insert(url.to_owned(), page.clone());
        }
        Ok(page)
    }

    /// Creates or changes what is at a path, and returns GitHub's answer.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mut answer = self.ask(method, &format!("{}/{path}", self.url), Some(body))?;
        http::json(&mut answer, "GitHub")
    }

    /// Asks GitHub. An answer that is not a success is an error.
    fn ask(&self, method: &str, url: &str, body: Option<&Value>) -> Result<Response<Body>> {
        self.ask_unless(method, url, body, None)
    }

    /// The same, but the answer is only the status 304 if it would be what has this mark.
    fn ask_unless(
        &self,
        method: &str,
        url: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Response<Body>> {
        let mut request = ureq::http::Request::builder();
        if let Some(etag) = etag {
            request = request.header("If-None-Match", etag);
        }
        let request = request
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
