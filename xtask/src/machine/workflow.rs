//! A GitHub workflow: its annotations, its page, its outputs, and the comment with the plan.
//! <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>

use std::{env, fs::File, io::Write};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::machine::{
    paths,
    terminal::{self, is_in_workflow, only_text, say_as_it_is, with_hints_apart, workflow_command},
};

/// The first line of the comment with the plan, by which the comment is found again.
pub(crate) const PLAN: &str = "<!-- deployment-plan -->";

/// What a plan has in place of an empty table.
pub(crate) const NOTHING: [&str; 2] = [
    "No support or staging upgrades will be triggered",
    "No production hub upgrades will be triggered",
];

/// The longest comment that GitHub takes. We count bytes, which are no fewer than the characters that GitHub counts.
const LONGEST_COMMENT: usize = 65_536;

/// The longest plan: there is room in its comment for the run that made it.
pub(crate) const LONGEST_PLAN: usize = LONGEST_COMMENT - 1_000;

/// How many bytes all outputs of a job may have together, in UTF-16.
/// <https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idoutputs>
const OUTPUTS: usize = 1 << 20;

/// How many bytes a value may have: Linux starts no program with a longer variable (MAX_ARG_STRLEN, which includes its name).
const VARIABLE: usize = (128 << 10) - 100;

/// A variable of the environment that is not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|it| !it.is_empty())
}

/// Writes to stderr what failed. In a workflow the message is folded, and its first line is an annotation of the run.
pub(crate) fn tell_failure(what: &str, message: &str) {
    let message = with_hints_apart(message);
    if !is_in_workflow() {
        return say!("{what}: {message}");
    }
    let first = message.lines().next().unwrap_or_default();
    say_as_it_is(&format!(
        "{}\n{}\n{}\n::endgroup::",
        workflow_command(&format!("error title={what}"), first),
        workflow_command("group", what),
        only_text(&message)
    ));
}

/// Writes a warning to stderr, and on the page of a workflow's run, of which it is an annotation as well.
pub(crate) fn tell_warning(what: &str, message: &str) -> Result<()> {
    if is_in_workflow() {
        say_as_it_is(&workflow_command(&format!("warning title={what}"), message));
    } else {
        say!("{what}: warning: {message}");
    }
    summarize(&format!("**{}**: {}\n", escaped(what), escaped(message)))
}

/// Adds Markdown to the page of a workflow's run.
pub(crate) fn summarize(text: &str) -> Result<()> {
    append("GITHUB_STEP_SUMMARY", &format!("{text}\n"))
}

/// Appends to the file that this variable of a workflow names, if it is set.
fn append(variable: &str, text: &str) -> Result<()> {
    let Some(file) = env::var_os(variable).filter(|it| !it.is_empty()) else {
        return Ok(());
    };
    let opened = File::options().append(true).create(true).open(&file);
    opened
        .and_then(|mut it| it.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write ${variable}"))
}

/// Markdown of a long message, folded below its title.
pub(crate) fn folded(title: &str, message: &str) -> String {
    let mut fence = "````".to_owned();
    while message.contains(&fence) {
        fence.push('`');
    }
    format!("\n<details><summary>{title}</summary>\n\n{fence}\n{message}\n{fence}\n\n</details>\n")
}

/// Sets values for a workflow's later steps (`GITHUB_ENV`) or jobs (`GITHUB_OUTPUT`) in the file that this variable names.
/// Does nothing if the variable is not set. An error if the values are longer than GitHub takes, or those that are no objects
/// longer than Linux takes as a program's variable.
pub(crate) fn set(variable: &str, values: &[(&str, Value)]) -> Result<()> {
    if env::var_os(variable).is_none_or(|it| it.is_empty()) {
        return Ok(());
    }
    let mut text = String::new();
    let mut longest = 0;
    for (name, value) in values {
        let may_be_variable = !value.is_object();
        let value = value.to_string();
        // A value cannot contain its own delimiter, and so cannot set another one.
        let end = format!("end-{}", paths::hex(&Sha256::digest(&value)[..8]));
        text += &format!("{name}<<{end}\n{value}\n{end}\n");
        if may_be_variable {
            longest = longest.max(value.len());
        }
    }
    ensure!(
        text.encode_utf16().count() * 2 <= OUTPUTS && longest <= VARIABLE,
        "the lists of jobs are longer than a workflow can pass on: {longest} bytes, {} in all\n\
         hint: change fewer clusters at a time, or run {} for each of these",
        text.len(),
        action("cargo xtask deploy")
    );
    append(variable, &text)
}

/// What runs us, if it is not a person.
enum Ci {
    GitHub,
    GitLab,
}

impl Ci {
    fn find() -> Option<Ci> {
        if is_in_workflow() {
            return Some(Ci::GitHub);
        }
        (variable("GITLAB_CI")? == "true").then_some(Ci::GitLab)
    }
}

/// The options that `by-hand` takes only with a reason: they go past what protects a hub.
pub(crate) const WITH_REASON: [&str; 4] = [
    "ignore-staging",
    "ignore-freeze",
    "force-older",
    "take-over",
];

/// How a person passes an option, with its value after a blank: the subject of a hint's sentence. Who reads it in CI may
/// have no keys, and starts the workflow `by-hand` or a pipeline with variables.
pub(crate) fn option(option: &str) -> String {
    option_of("", option)
}

/// The same where the command has to be named.
pub(crate) fn option_of(command: &str, option: &str) -> String {
    let (name, value) = option.split_once(' ').unwrap_or((option, ""));
    let passed = match value {
        "" | "REASON" => name.to_owned(),
        value => format!("{name}={value}"),
    };
    let reason = if WITH_REASON.contains(&name) {
        " and a reason"
    } else {
        ""
    };
    match Ci::find() {
        None => format!("`{}`", format!("{command} --{option}").trim_start()),
        Some(Ci::GitHub) => format!("the workflow `by-hand` with the option `{passed}`{reason}"),
        Some(Ci::GitLab) => format!("a pipeline with the variable `OPTIONS={passed}`{reason}"),
    }
}

/// How a person runs a command of ours that is an action of `by-hand`: the subject of a hint's sentence.
pub(crate) fn action(command: &str) -> String {
    let action = command.split(' ').nth(2).unwrap_or_default();
    match Ci::find() {
        None => format!("`{command}`"),
        Some(Ci::GitHub) => format!("the workflow `by-hand` with the action `{action}`"),
        Some(Ci::GitLab) => format!("a pipeline with the variable `ACTION={action}`"),
    }
}

/// Asks as `terminal::confirm` does. In CI nobody can answer, and the command's action of `by-hand` does not ask.
pub(crate) fn confirm(question: &str, yes: bool, command: &str) -> Result<()> {
    ensure!(
        yes || Ci::find().is_none(),
        "{question}: cannot ask in CI\nhint: {} does not ask",
        action(&format!("cargo xtask {command}"))
    );
    terminal::confirm(question, yes)
}

/// Asks as `terminal::confirm_by_name` does, for what nobody can start from CI.
pub(crate) fn confirm_by_name(question: &str, name: &str, yes: bool) -> Result<()> {
    ensure!(
        yes || Ci::find().is_none(),
        "{question}: cannot ask in CI\nhint: this is for a terminal"
    );
    terminal::confirm_by_name(question, name, yes)
}

/// A command, or an option of one, that nobody can start from CI: the subject of a hint's sentence.
pub(crate) fn at_terminal(command: &str) -> String {
    match Ci::find() {
        None => format!("`{command}`"),
        Some(_) => format!("`{command}` at a terminal"),
    }
}

/// Text as it is written in a cell of a Markdown table, so that nothing of it is taken for Markdown.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '<' | '>' | '&' | '|' => escaped += &format!("&#{};", u32::from(char)),
            // GitHub looks for people, issues and addresses in what it has made of Markdown, where all this is plain again.
            '@' | '#' => escaped += &format!("&#{};{BREAK}", u32::from(char)),
            ':' if chars.peek() == Some(&'/') => escaped += &format!(":{BREAK}"),
            '.' if escaped.to_lowercase().ends_with("www") => escaped += &format!("{BREAK}."),
            char if ESCAPED.contains(char) => escaped.extend(['\\', char]),
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}

/// A space without width.
const BREAK: &str = "&#8203;";

/// What means something in Markdown, unless a backslash precedes it.
const ESCAPED: &str = "\\`*_[]()~!$";

/// The text that was escaped, as far as it was.
fn unescaped(text: &str) -> String {
    let mut plain = text.replace(BREAK, "");
    for char in ['@', '#', '<', '>', '|'] {
        plain = plain.replace(&format!("&#{};", u32::from(char)), &char.to_string());
    }
    for char in ESCAPED.chars().skip(1) {
        plain = plain.replace(&format!("\\{char}"), &char.to_string());
    }
    plain.replace("\\\\", "\\").replace("&#38;", "&")
}

/// Markdown that somebody else's code has made, of which only headings, lists and tables are kept.
pub(crate) fn neutral(markdown: &str) -> String {
    let lines = markdown.lines().map(neutral_line);
    lines.collect::<Vec<_>>().join("\n")
}

fn neutral_line(line: &str) -> String {
    if let Some(cells) = line.strip_prefix("| ").and_then(|it| it.strip_suffix(" |")) {
        let cells = cells.split(" | ").map(neutral_text);
        return format!("| {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    let prefix = ["### ", "- "].into_iter().find(|it| line.starts_with(it));
    let prefix = prefix.unwrap_or_default();
    format!("{prefix}{}", neutral_text(&line[prefix.len()..]))
}

fn neutral_text(text: &str) -> String {
    escaped(&unescaped(text))
}
