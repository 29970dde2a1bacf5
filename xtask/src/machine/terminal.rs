//! How work on releases gets on: on a terminal a line for each one that is rewritten, else plain lines.

use std::{
    cell::Cell,
    env, fmt,
    io::{self, BufRead, IsTerminal, Write},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// There is none where nobody sees lines change.
static BARS: OnceLock<Option<MultiProgress>> = OnceLock::new();

fn bars() -> Option<&'static MultiProgress> {
    let start = || {
        let is_dumb =
            env::var_os("TERM").is_none_or(|it| it == "dumb") || env::var_os("CI").is_some();
        (std::io::stderr().is_terminal() && !is_dumb).then(MultiProgress::new)
    };
    BARS.get_or_init(start).as_ref()
}

/// A line on stderr, above those that change.
pub fn say(line: fmt::Arguments) {
    match BARS.get() {
        Some(Some(bars)) => bars.suspend(|| write(line)),
        _ => write(line),
    }
}

/// Work goes on when nobody reads it.
fn write(line: fmt::Arguments) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Work on one release, until this is dropped.
pub(crate) struct Progress<'a> {
    release: &'a str,
    bar: Option<ProgressBar>,
    pods: Cell<Pods>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(release: &'a str) -> Progress<'a> {
        let bar = bars().map(|bars| {
            let style = ProgressStyle::with_template("{prefix:<20} {msg} {elapsed}")
                .expect("it's a template");
            let bar = bars.add(
                ProgressBar::new_spinner()
                    .with_style(style)
                    .with_prefix(release.to_owned()),
            );
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Progress {
            release,
            bar,
            pods: Cell::default(),
        }
    }

    pub(crate) fn phase(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => say!("{}: {text}", self.release),
        }
    }

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

/// Goes on only if `--yes` was given, or a person at a terminal says so.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    ensure!(
        can_ask(),
        "{question}: nobody can be asked here\nhint: `--yes` answers"
    );
    match ask(&format!("{question}? [y/N]"))?.to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was done"),
    }
}

/// Whether a person is at a terminal.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// What the person at the terminal says to a question.
pub(crate) fn ask(question: &str) -> Result<String> {
    let _ = write!(std::io::stderr(), "{question} ");
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("no answer")?;
    Ok(answer.trim().to_owned())
}

/// "`a`, `b`, `c`", for messages.
pub(crate) fn list(names: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    let quoted: Vec<_> = names.into_iter().map(|it| format!("`{it}`")).collect();
    quoted.join(", ")
}

/// "1 hub", "2 hubs".
pub(crate) fn number_of(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// As a diff is shown on a terminal.
pub(crate) fn coloured(diff: &str) -> String {
    let line = |line: &str| {
        let colour = match line.as_bytes() {
            [b'-', b'-', b'-', ..] | [b'+', b'+', b'+', ..] => "1",
            [b'-', ..] => "31",
            [b'+', ..] => "32",
            [b'@', ..] => "36",
            _ => return line.to_owned() + "\n",
        };
        format!("\x1b[{colour}m{line}\x1b[0m\n")
    };
    diff.lines().map(line).collect()
}

/// Data, on stdout. All else goes to stderr.
pub fn print(data: &(impl AsRef<[u8]> + ?Sized)) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data.as_ref())?;
    Ok(stdout.flush()?)
}

/// Pods of a release's newest revisions, and how many there are to be.
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
