//! What a GitHub workflow shows of our work.
//! <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>

use std::{env, fs::File, io::Write};

use anyhow::{Context, Result};

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
