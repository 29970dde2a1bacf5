//! Which commits are new in a run of a workflow.

use std::{env, fs};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xshell::Shell;

use crate::{
    machine::{tree::Tree, workflow::variable},
    repository::own_images,
};

/// The commits that decide which images are built.
pub(super) enum Range {
    /// As git writes it.
    Of(String),
    /// Nothing is known of what there was before; why.
    Unknown(String),
}

/// This range of commits; the workflow's own if it is empty.
pub(super) fn of(sh: &Shell, tree: &Tree, range: &str) -> Result<Range> {
    if !range.is_empty() {
        own_images::refuse_unknown(sh, tree, range)?;
        return Ok(Range::Of(range.to_owned()));
    }
    let found = of_workflow()?;
    if let Range::Of(range) = &found {
        own_images::refuse_unknown(sh, tree, range)?;
    }
    Ok(found)
}

fn of_workflow() -> Result<Range> {
    if let Some(file) = variable("GITHUB_EVENT_PATH") {
        let event = fs::read(&file).with_context(|| format!("cannot read `{file}`"))?;
        let event = serde_json::from_slice(&event);
        let event = event.with_context(|| format!("`{file}` is not JSON"))?;
        return Ok(on_github(&event));
    }
    if env::var_os("GITLAB_CI").is_some() {
        return Ok(on_gitlab());
    }
    bail!(
        "outside of a workflow `--commit-range` needs a range\nhint: `--commit-range main...HEAD`"
    )
}

/// <https://docs.github.com/webhooks/webhook-events-and-payloads>
fn on_github(event: &Value) -> Range {
    if let Some(base) = event["pull_request"]["base"]["sha"].as_str() {
        return Range::Of(format!("{base}...HEAD"));
    }
    since(event["before"].as_str())
}

/// <https://docs.gitlab.com/ci/variables/predefined_variables/>
fn on_gitlab() -> Range {
    if let Some(base) = variable("CI_MERGE_REQUEST_DIFF_BASE_SHA") {
        return Range::Of(format!("{base}...HEAD"));
    }
    since(variable("CI_COMMIT_BEFORE_SHA").as_deref())
}

/// The commits since the one that a branch was at before. Zeros stand for none.
fn since(before: Option<&str>) -> Range {
    match before {
        Some(before) if before.bytes().any(|it| it != b'0') => Range::Of(format!("{before}..HEAD")),
        Some(_) => Range::Unknown("the branch is new".to_owned()),
        None => Range::Unknown("no push and no pull request started this run".to_owned()),
    }
}
