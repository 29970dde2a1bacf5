//! The comment of a pull request that says what merging it deploys. A workflow without any rights made its text from the
//! pull request's files; this one has a token, and runs none of its code.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};
use serde_json::{Value, json};

use crate::{
    machine::{
        terminal::list,
        workflow::{LONGEST_PLAN, NOTHING, PLAN, escaped, neutral},
    },
    services::{
        github::{Api, variable},
        http::percent_encoded,
    },
};

/// The file of the artifact that the run handed over, and the one with the pull request's number. Whoever made the pull
/// request may have written them.
const FILE: &str = "comment-body.txt";
const NUMBER: &str = "pull-request.txt";

/// How many bytes of each are read.
const LONGEST_FILE: u64 = 1 << 20;

/// Who writes comments with a workflow's token.
const BOT: &str = "github-actions[bot]";

pub(crate) fn comment_plan() -> Result<()> {
    let api = Api::new()?;
    let run = variable("RUN_ID")?;
    let folder = variable("PLAN_FOLDER")?;
    let folder = Path::new(&folder);
    if !folder.exists() {
        say!("run {run} left no plan: there is nothing to post");
        return Ok(());
    }
    let plan = plan(folder).with_context(|| format!("the artifact of run {run}"))?;
    let made_by = api.get(&format!("actions/runs/{run}"))?;
    let Some(number) = pull_request(&api, &made_by, folder)? else {
        say!("run {run} belongs to no open pull request any more");
        return Ok(());
    };
    if post(&api, number, &plan, &source(&made_by, &run)?)? {
        say!("pull request {number} has the plan of run {run}");
    }
    Ok(())
}

/// The text in the unpacked artifact, if it is a plan, without what it could do to people who read it.
fn plan(folder: &Path) -> Result<String> {
    let text = read_plain(folder, FILE)?;
    let plan = text.trim().strip_prefix(PLAN).map(neutral);
    plan.filter(|it| it.len() <= LONGEST_PLAN)
        .with_context(|| format!("it has no plan in `{FILE}`"))
}

/// The beginning of a file that somebody else wrote: a link could lead to what only we can read, and a device or a pipe
/// could have no end.
fn read_plain(folder: &Path, name: &str) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match open(folder.join(name), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => bail!("it has no `{name}`"),
        Err(Errno::LOOP) => bail!("`{name}` is a link"),
        Err(err) => return Err(err).with_context(|| format!("cannot open `{name}`")),
    };
    ensure!(file.metadata()?.is_file(), "`{name}` is not a file");
    let mut text = String::new();
    file.take(LONGEST_FILE)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read `{name}`"))?;
    Ok(text)
}

/// Makes the plan our one comment of a pull request, unless nothing is deployed and we never said anything else. Whether
/// the comment is there.
fn post(api: &Api, number: u64, plan: &str, source: &str) -> Result<bool> {
    let comments = api.all(&format!("issues/{number}/comments?per_page=100"), None)?;
    let body = json!({"body": format!("{PLAN}\n{source}\n{plan}")});
    match comments.iter().find(|comment| is_ours(comment)) {
        None if NOTHING.iter().all(|it| plan.contains(it)) => return Ok(false),
        Some(ours) => api.send("PATCH", &format!("issues/comments/{}", ours["id"]), &body)?,
        None => api.send("POST", &format!("issues/{number}/comments"), &body)?,
    };
    Ok(true)
}

/// Whose code made the plan for which commit, and in which run, by what GitHub says of that run.
fn source(made_by: &Value, run: &str) -> Result<String> {
    let commit = escaped(text_at(made_by, "/head_sha"));
    // As in 2026-11-26T16:50:00Z.
    let time = text_at(made_by, "/run_started_at").replace('T', " ");
    let time = escaped(&time.replace('Z', " UTC"));
    let server = variable("GITHUB_SERVER_URL")?;
    let repository = variable("GITHUB_REPOSITORY")?;
    let author = text_at(made_by, "/head_repository/full_name");
    let code = if author == repository {
        "this pull request's own code".to_owned()
    } else {
        format!("the code of the fork {}", escaped(author))
    };
    Ok(format!(
        "<sub>Written by {code}, at commit {commit}, in [run {run}]({server}/{repository}/actions/runs/{run}) of {time}</sub>"
    ))
}

fn is_ours(comment: &Value) -> bool {
    let body = comment["body"].as_str().unwrap_or_default();
    comment["user"]["login"] == BOT && body.starts_with(PLAN)
}

/// The number of the open pull request whose newest commit the run is of, by what GitHub says of that run. Where a branch
/// has several, the run itself has to name one of them.
fn pull_request(api: &Api, run: &Value, folder: &Path) -> Result<Option<u64>> {
    let head = format!(
        "{}:{}",
        text_at(run, "/head_repository/owner/login"),
        text_at(run, "/head_branch")
    );
    let head = percent_encoded(&head);
    let mut open = api.all(&format!("pulls?state=open&head={head}&per_page=100"), None)?;
    open.retain(|it| it["head"]["sha"] == run["head_sha"]);
    let numbers = open.iter().filter_map(|it| it["number"].as_u64());
    let numbers: Vec<_> = numbers.collect();
    if numbers.len() < 2 {
        return Ok(numbers.first().copied());
    }
    let named = read_plain(folder, NUMBER)?.trim().parse().ok();
    let named = named.filter(|it| numbers.contains(it));
    let named = named.with_context(|| {
        let numbers = list(&numbers);
        format!(
            "`{NUMBER}` names none of the pull requests {numbers}, which are open for this commit"
        )
    });
    named.map(Some)
}

fn text_at<'a>(run: &'a Value, pointer: &str) -> &'a str {
    let value = run.pointer(pointer).and_then(Value::as_str);
    value.unwrap_or_default()
}
