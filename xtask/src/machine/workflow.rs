//! A GitHub workflow: what it shows of our work and hands on, and what it asks GitHub itself.
//! <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>

use std::{env, fs::File, io::Write};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::machine::paths;

/// The first line of the comment with the plan, by which it's found again.
pub(crate) const PLAN: &str = "<!-- deployment-plan -->";

/// What a plan says in place of its tables.
pub(crate) const NOTHING: [&str; 2] = [
    "No support or staging upgrades will be triggered",
    "No production hub upgrades will be triggered",
];

/// In bytes, which are no fewer than the characters that GitHub counts.
pub(crate) const LONGEST_COMMENT: usize = 65_536;

/// What a job may hand on, in all. GitHub counts UTF-16.
/// <https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idoutputs>
const OUTPUTS: usize = 1 << 20;

/// Linux starts no program with a longer variable (MAX_ARG_STRLEN); its name is in it.
const VARIABLE: usize = (128 << 10) - 100;

/// Tells on stderr what failed. In a workflow a long message folds, and its first line is an annotation of the run.
pub(crate) fn tell_failure(what: &str, message: &str) {
    if env::var_os("GITHUB_ACTIONS").is_none() {
        return say!("{what}: {message}");
    }
    let first = message
        .lines()
        .next()
        .unwrap_or_default()
        .replace('%', "%25");
    say!("::error title={what}::{first}\n::group::{what}\n{message}\n::endgroup::");
}

/// Adds Markdown to the page of a workflow's run.
pub(crate) fn summarize(text: &str) -> Result<()> {
    let Some(file) = env::var_os("GITHUB_STEP_SUMMARY").filter(|it| !it.is_empty()) else {
        return Ok(());
    };
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
    let Some(file) = env::var_os(variable).filter(|it| !it.is_empty()) else {
        return Ok(());
    };
    let mut text = String::new();
    for (name, value) in values {
        let value = value.to_string();
        let end = format!("end-{}", paths::hex(&Sha256::digest(&value)[..8]));
        text += &format!("{name}<<{end}\n{value}\n{end}\n");
    }
    let longest = values
        .iter()
        .map(|(_, it)| it.to_string().len())
        .max()
        .unwrap_or_default();
    ensure!(
        text.encode_utf16().count() * 2 <= OUTPUTS && longest <= VARIABLE,
        "the lists of jobs are longer than a workflow can hand on: {longest} bytes, {} in all\n\
         hint: change fewer clusters at a time, or run `cargo xtask deploy` for each of these",
        text.len()
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
            '\\' | '`' | '*' | '_' | '[' | ']' | '(' | ')' | '~' | '!' | '$' => {
                escaped.extend(['\\', char])
            }
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}
