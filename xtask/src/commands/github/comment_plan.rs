//! The comment of a pull request that says what merging it deploys. A workflow without any rights made its text from the
//! pull request's files; this one has a token, and runs none of its code.

use std::io::{Cursor, Read};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    machine::workflow::{LONGEST_COMMENT, NOTHING, PLAN},
    services::{
        github::{Api, variable},
        http::percent_encoded,
    },
};

/// What the run hands over: an artifact of this name, with one file.
const ARTIFACT: &str = "pr";
const FILE: &str = "comment-body.txt";

/// Who writes comments with a workflow's token.
const BOT: &str = "github-actions[bot]";

pub(crate) fn comment_plan() -> Result<()> {
    let api = Api::new()?;
    let run = variable("RUN_ID")?;
    let artifacts = api.all(
        &format!("actions/runs/{run}/artifacts?per_page=100"),
        Some("artifacts"),
    )?;
    let Some(artifact) = artifacts.iter().find(|it| it["name"] == ARTIFACT) else {
        say!("run {run} has no artifact `{ARTIFACT}`: there's nothing to say");
        return Ok(());
    };
    let packed = api.file(&format!("actions/artifacts/{}/zip", artifact["id"]))?;
    let text =
        unpacked(packed).with_context(|| format!("the artifact `{ARTIFACT}` of run {run}"))?;
    let text = text.trim();
    ensure!(
        text.starts_with(PLAN) && text.len() <= LONGEST_COMMENT,
        "the artifact `{ARTIFACT}` of run {run} has no plan in `{FILE}`"
    );
    let Some(number) = pull_request(&api, &run)? else {
        say!("run {run} belongs to no open pull request any more");
        return Ok(());
    };
    let comments = api.all(&format!("issues/{number}/comments?per_page=100"), None)?;
    let is_ours = |it: &&Value| {
        it["user"]["login"] == BOT && it["body"].as_str().is_some_and(|it| it.starts_with(PLAN))
    };
    let body = json!({"body": text});
    match comments.iter().find(is_ours) {
        None if NOTHING.iter().all(|it| text.contains(it)) => return Ok(()),
        Some(ours) => api.send("PATCH", &format!("issues/comments/{}", ours["id"]), &body)?,
        None => api.send("POST", &format!("issues/{number}/comments"), &body)?,
    };
    say!("pull request {number} has the plan of run {run}");
    Ok(())
}

/// The file in the artifact; larger ones aren't read.
fn unpacked(packed: Vec<u8>) -> Result<String> {
    let mut files = zip::ZipArchive::new(Cursor::new(packed)).context("it isn't a zip file")?;
    let file = files
        .by_name(FILE)
        .with_context(|| format!("it has no `{FILE}`"))?;
    let mut text = String::new();
    file.take(1 << 20)
        .read_to_string(&mut text)
        .with_context(|| format!("`{FILE}`"))?;
    Ok(text)
}

/// The number of the open pull request whose newest commit the run is of, by what GitHub says of that run: what the pull
/// request's own workflow wrote could name another one.
fn pull_request(api: &Api, run: &str) -> Result<Option<Value>> {
    let run = api.get(&format!("actions/runs/{run}"))?;
    let part = |path: &str| {
        run.pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let head = format!(
        "{}:{}",
        part("/head_repository/owner/login"),
        part("/head_branch")
    );
    let head = percent_encoded(&head);
    let open = api.all(&format!("pulls?state=open&head={head}&per_page=100"), None)?;
    let pull_request = open
        .into_iter()
        .find(|it| it["head"]["sha"] == run["head_sha"]);
    Ok(pull_request.map(|mut it| it["number"].take()))
}
