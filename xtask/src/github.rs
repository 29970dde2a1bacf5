//! A GitHub workflow: what it shows of our work, hands on, and deployed last.
//! <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>

use std::{env, fs::File, io::Write};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{http, paths};

/// The first line of the comment with the plan, by which it's found again.
pub(crate) const PLAN: &str = "<!-- deployment-plan -->";

/// In bytes, which are no fewer than the characters that GitHub counts.
pub(crate) const LONGEST_COMMENT: usize = 65_536;

/// What a job may hand on, in all. GitHub counts UTF-16.
/// <https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idoutputs>
const OUTPUTS: usize = 1 << 20;

/// Tells on stderr what failed. In a workflow a long message folds, and its first line is an annotation of the run.
pub(crate) fn tell_failure(what: &str, message: &str) {
    if env::var_os("GITHUB_ACTIONS").is_none() {
        return say!("{what}: {message}");
    }
    let first = message.lines().next().unwrap_or_default().replace('%', "%25");
    say!("::error title={what}::{first}\n::group::{what}\n{message}\n::endgroup::");
}

/// Adds Markdown to the page of a workflow's run.
pub(crate) fn summarize(text: &str) -> Result<()> {
    let Some(file) = env::var_os("GITHUB_STEP_SUMMARY").filter(|it| !it.is_empty()) else { return Ok(()) };
    let opened = File::options().append(true).create(true).open(&file);
    opened
        .and_then(|mut it| it.write_all(format!("{text}\n").as_bytes()))
        .context("cannot write $GITHUB_STEP_SUMMARY")
}

/// A long message on such a page, folded.
pub(crate) fn folded(title: &str, message: &str) -> String {
    format!("\n<details><summary>{title}</summary>\n\n````\n{message}\n````\n\n</details>\n")
}

/// Sets values for a workflow's later steps (`GITHUB_ENV`) or jobs (`GITHUB_OUTPUT`) in the file that this variable names, if
/// it's set. None of them can set another one.
pub(crate) fn set(variable: &str, values: &[(&str, Value)]) -> Result<()> {
    let Some(file) = env::var_os(variable).filter(|it| !it.is_empty()) else { return Ok(()) };
    let mut text = String::new();
    for (name, value) in values {
        let value = value.to_string();
        let end = format!("end-{}", paths::hex(&Sha256::digest(&value)[..8]));
        text += &format!("{name}<<{end}\n{value}\n{end}\n");
    }
    ensure!(
        text.encode_utf16().count() * 2 <= OUTPUTS,
        "the lists of jobs are larger than the megabyte that GitHub takes\n\
         hint: deploy in steps, with a part of the change at a time"
    );
    let opened = File::options().append(true).create(true).open(&file);
    opened
        .and_then(|mut it| it.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write ${variable}"))
}

/// Text that is nothing but itself in Markdown, in a cell of a table.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            // Nobody is called, and no issue is linked.
            '@' | '#' | '<' | '>' | '&' | '|' => escaped += &format!("&#{};", u32::from(char)),
            '\\' | '`' | '*' | '_' | '[' | ']' | '(' | ')' | '~' | '!' | '$' => escaped.extend(['\\', char]),
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}

/// The commit of the newest run of this workflow that went well on this branch, if there was one. Runs of pull requests
/// deploy nothing.
/// <https://docs.github.com/rest/actions/workflow-runs#list-workflow-runs-for-a-workflow>
pub(crate) fn last_deployed() -> Result<Option<String>> {
    let variable = |name: &str| {
        let value = env::var(name).ok().filter(|it| !it.is_empty());
        value.with_context(|| {
            format!("`--base last-deployed` asks GitHub, and `{name}` isn't set as in a workflow")
        })
    };
    let api = variable("GITHUB_API_URL")?;
    let [repository, workflow, branch, token] =
        ["GITHUB_REPOSITORY", "GITHUB_WORKFLOW_REF", "GITHUB_REF_NAME", "GITHUB_TOKEN"].map(variable);
    let (repository, branch, token) = (repository?, branch?, token?);
    // "owner/repository/.github/workflows/deploy-hubs.yaml@refs/heads/main"
    let workflow = workflow?;
    let file = workflow.split('@').next().and_then(|it| it.rsplit('/').next()).unwrap_or_default();
    let url = format!("{api}/repos/{repository}/actions/workflows/{file}/runs");
    let asked = http::agent()
        .get(&url)
        .query_pairs([("branch", branch.as_str()), ("status", "success"), ("per_page", "50")])
        .header("Accept", "application/vnd.github+json")
        .header("X-GitHub-Api-Version", "2022-11-28")
        .header("Authorization", format!("Bearer {token}"));
    let mut answer = asked.call().with_context(|| format!("cannot ask GitHub: GET {url}"))?;
    let status = answer.status();
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    if !status.is_success() {
        let said = answer["message"].as_str().unwrap_or_default();
        bail!(
            "GET {url}: GitHub answers {status} {said}\nhint: the job needs `permissions: {{actions: read}}`"
        );
    }
    let runs = answer["workflow_runs"].as_array().context("GitHub's answer has no `workflow_runs`")?;
    let deploy = runs.iter().find(|it| !it["event"].as_str().unwrap_or_default().starts_with("pull_request"));
    Ok(deploy.and_then(|it| Some(it["head_sha"].as_str()?.to_owned())))
}
