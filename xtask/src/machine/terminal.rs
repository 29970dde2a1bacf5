//! What people see: progress of work on releases, questions, tables, and the data on stdout.
//!
//! On a terminal the progress of each release is a line that is rewritten, elsewhere plain lines.

use std::{
    cell::Cell,
    env, fmt,
    io::{self, BufRead, IsTerminal, Write},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The lines that are rewritten. `None` where a line cannot be rewritten: no terminal, a dumb one, or a CI job's log.
static BARS: OnceLock<Option<MultiProgress>> = OnceLock::new();

fn bars() -> Option<&'static MultiProgress> {
    BARS.get_or_init(|| can_rewrite_lines().then(MultiProgress::new))
        .as_ref()
}

fn can_rewrite_lines() -> bool {
    let is_dumb = env::var_os("TERM").is_none_or(|it| it == "dumb");
    io::stderr().is_terminal() && !is_dumb && env::var_os("CI").is_none()
}

/// Writes a line to stderr, above the lines that are rewritten.
pub fn say(line: fmt::Arguments) {
    match BARS.get() {
        Some(Some(bars)) => bars.suspend(|| write(line)),
        _ => write(line),
    }
}

/// A closed stderr is no reason to stop work.
fn write(line: fmt::Arguments) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The progress of work on one release, shown until this is dropped.
pub(crate) struct Progress<'a> {
    release: &'a str,
    bar: Option<ProgressBar>,
    pods: Cell<Pods>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(release: &'a str) -> Progress<'a> {
        Progress {
            release,
            bar: bars().map(|bars| spinner(bars, release)),
            pods: Cell::default(),
        }
    }

    /// Shows what is being done now.
    pub(crate) fn phase(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => say!("{}: {text}", self.release),
        }
    }

    /// Shows how many pods are ready, when that has changed and some are not.
    pub(crate) fn pods(&self, now: Pods) {
        if self.pods.replace(now) != now && now.ready < now.wanted {
            self.phase(&format!("{} of {} pods are ready", now.ready, now.wanted));
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// It ticks only once it is among the others: before that it would draw over them.
fn spinner(bars: &MultiProgress, release: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix:<20} {msg} {elapsed}").expect("it's a template");
    let spinner = ProgressBar::new_spinner()
        .with_style(style)
        .with_prefix(release.to_owned());
    let spinner = bars.add(spinner);
    spinner.enable_steady_tick(Duration::from_millis(250));
    spinner
}

/// Returns if `yes` is set (`--yes`) or the person at the terminal agrees; any other answer, and no terminal to ask on, is
/// an error. The question has no question mark.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    ensure!(
        can_ask(),
        "{question}: cannot ask without a terminal; pass `--yes`"
    );
    match ask(&format!("{question}? [y/N]"))?.to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was done"),
    }
}

/// Whether a person can be asked: both stdin and stderr are a terminal.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on stderr and reads a line of stdin, without the blanks around it.
pub(crate) fn ask(question: &str) -> Result<String> {
    let _ = write!(io::stderr(), "{question} ");
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(answer.trim().to_owned())
}

/// "`a`, `b`, `c`", for messages.
pub(crate) fn list(names: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let quoted: Vec<_> = names.into_iter().map(|it| format!("`{it}`")).collect();
    quoted.join(", ")
}

/// "1 hub", "2 hubs".
pub(crate) fn number_of(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A table with two blanks between its columns, each as wide as its widest cell, and none at a line's end. The last cell of
/// a row does not count for its column's width: a row may end early with a long text.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        let inner = row.split_last().map(|(_, inner)| inner).unwrap_or_default();
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(inner) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter().map(|row| line_of_table(row, &widths)).collect()
}

fn line_of_table(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in row.iter().zip(widths) {
        line += &format!("{cell:<width$}  ");
    }
    format!("{}\n", line.trim_end())
}

/// An error's text with a blank line before each `hint:`.
pub fn with_hints_apart(text: &str) -> String {
    text.replace("\nhint: ", "\n\nhint: ")
}

/// A unified diff in colours, for a terminal.
pub(crate) fn coloured(diff: &str) -> String {
    diff.lines().map(coloured_line).collect()
}

fn coloured_line(line: &str) -> String {
    let colour = match line.as_bytes() {
        [b'-', b'-', b'-', ..] | [b'+', b'+', b'+', ..] => "1",
        [b'-', ..] => "31",
        [b'+', ..] => "32",
        [b'@', ..] => "36",
        _ => return format!("{line}\n"),
    };
    format!("\x1b[{colour}m{line}\x1b[0m\n")
}

/// Writes data to stdout. Everything else that we write goes to stderr.
pub fn print(data: &(impl AsRef<[u8]> + ?Sized)) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data.as_ref())?;
    Ok(stdout.flush()?)
}

/// How many pods of a release's newest revision are ready, and how many its workloads want.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pods {
    pub(crate) ready: u64,
    pub(crate) wanted: u64,
}

/// What a command prints on stdout.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people
    Text,
    /// JSON for programs
    Json,
}
