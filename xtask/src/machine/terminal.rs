//! What people see: progress of work on releases, questions, tables, and the data on stdout.
//!
//! On a terminal the progress of each release is a line that is rewritten, elsewhere plain lines.

use std::{
    borrow::Cow,
    cell::Cell,
    env, fmt,
    io::{self, BufRead, IsTerminal, Write},
    sync::{
        OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rustix::termios::{self, LocalModes, OptionalActions};

use crate::machine::stopped;

/// How often to look whether we have to stop while a person thinks.
const INTERVAL: Duration = Duration::from_millis(100);

/// The lines that are rewritten. `None` where a line cannot be rewritten: no terminal, a dumb one, or a CI job's log.
static BARS: OnceLock<Option<MultiProgress>> = OnceLock::new();

fn bars() -> Option<&'static MultiProgress> {
    BARS.get_or_init(|| can_rewrite_lines().then(MultiProgress::new))
        .as_ref()
}

fn can_rewrite_lines() -> bool {
    io::stderr().is_terminal() && !is_dumb() && env::var_os("CI").is_none()
}

/// Writes a line to stderr, above the lines that are rewritten. Whatever it quotes, it is only text: control characters
/// are made visible, and in a GitHub workflow no line of it is a command.
///
/// On a terminal the words `error:`, `warning:` and `hint:` are coloured at the beginning of a line.
pub fn say(line: fmt::Arguments) {
    let text = only_text(&line.to_string());
    if wants_colours(&io::stderr()) {
        say_as_it_is(&with_coloured_words(&text));
    } else {
        say_as_it_is(&text);
    }
}

/// The colours of a terminal, by their numbers in <https://man7.org/linux/man-pages/man4/console_codes.4.html>.
#[derive(Clone, Copy)]
pub(crate) enum Colour {
    Bold = 1,
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
}

impl Colour {
    fn paint(self, text: &str) -> String {
        format!("\x1b[{}m{text}\x1b[0m", self as u8)
    }
}

/// Whether what is written there is coloured: on a terminal, unless the environment says otherwise
/// (<https://no-color.org>, <https://bixense.com/clicolors>).
fn wants_colours(stream: &impl IsTerminal) -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|it| !it.is_empty());
    let is_zero = |name: &str| env::var_os(name).is_some_and(|it| it == "0");
    if is_set("NO_COLOR") {
        return false;
    }
    if is_set("CLICOLOR_FORCE") && !is_zero("CLICOLOR_FORCE") {
        return true;
    }
    stream.is_terminal() && !is_dumb() && !is_set("CI") && !is_zero("CLICOLOR")
}

fn is_dumb() -> bool {
    env::var_os("TERM").is_none_or(|it| it == "dumb")
}

fn with_coloured_words(text: &str) -> String {
    let words = [
        ("error:", Colour::Red),
        ("warning:", Colour::Yellow),
        ("hint:", Colour::Cyan),
    ];
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let found = words.iter().find(|(word, _)| line.starts_with(word));
        lines.push(found.map_or_else(
            || line.to_owned(),
            |(word, colour)| colour.paint(word) + &line[word.len()..],
        ));
    }
    lines.join("\n")
}

/// Writes lines to stderr that hold commands of a GitHub workflow.
pub(crate) fn say_as_it_is(lines: &str) {
    let write = || _ = writeln!(io::stderr(), "{lines}");
    // A closed stderr is no reason to stop work.
    match BARS.get() {
        Some(Some(bars)) => bars.suspend(write),
        _ => write(),
    }
}

/// A command of a GitHub workflow: `::error title=…` for the `name` "error title=…". Its `text` stays on the line.
pub(crate) fn workflow_command(name: &str, text: &str) -> String {
    format!("::{name}::{}", escaped_in_command(text))
}

/// A text as it is written in a command of a GitHub workflow.
pub(crate) fn escaped_in_command(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// A text that does nothing to a terminal, and nothing in a GitHub workflow.
pub(crate) fn only_text(text: &str) -> String {
    let text = visible(text);
    if is_in_workflow() {
        without_commands(&text)
    } else {
        text.into_owned()
    }
}

/// Whether this is a job of a GitHub workflow.
pub(crate) fn is_in_workflow() -> bool {
    env::var_os("GITHUB_ACTIONS").is_some_and(|it| it == "true")
}

/// A text of which GitHub takes no line for a command:
/// <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>. The runner also knows an older form,
/// `##[…]`, anywhere in a line.
fn without_commands(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.replace("##[", "# #[").split('\n') {
        let rest = line.trim_start().strip_prefix("::");
        lines.push(rest.map_or_else(|| line.to_owned(), |rest| format!(": :{rest}")));
    }
    lines.join("\n")
}

/// A text in which no character does anything to a terminal: control characters other than line feeds and tabs, and those
/// that change the direction of a text, are shown by their codes.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut visible = String::new();
    for char in text.replace("\r\n", "\n").chars() {
        if is_control(char) {
            visible.extend(char.escape_unicode());
        } else {
            visible.push(char);
        }
    }
    Cow::Owned(visible)
}

/// Whether a character is shown by its code. The last ones are those of <https://www.unicode.org/reports/tr9/#Table_Bidi>.
fn is_control(char: char) -> bool {
    let turns = ['\u{61c}', '\u{200e}', '\u{200f}'];
    char.is_control() && !"\n\t".contains(char)
        || turns.contains(&char)
        || ('\u{202a}'..='\u{202e}').contains(&char)
        || ('\u{2066}'..='\u{2069}').contains(&char)
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
            Some(bar) => bar.set_message(visible(text).into_owned()),
            None => say!("{}: {text}", self.release),
        }
    }

    /// Whether what it shows stays, since lines cannot be rewritten.
    pub(crate) fn keeps_lines(&self) -> bool {
        self.bar.is_none()
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

/// Like `confirm`, for what cannot be undone: the person has to type this name.
pub(crate) fn confirm_by_name(question: &str, name: &str, yes: bool) -> Result<()> {
    if yes || !can_ask() {
        return confirm(question, yes);
    }
    let answer = ask(&format!("{question}\nType `{name}` to go on:"))?;
    ensure!(answer == name, "nothing was done");
    Ok(())
}

/// Whether a person can be asked: both stdin and stderr are a terminal.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on stderr and reads a line of stdin, without the blanks around it. An error once we have to stop.
pub(crate) fn ask(question: &str) -> Result<String> {
    let _ = write!(io::stderr(), "{} ", visible(question));
    let (sender, answer) = mpsc::channel();
    // Nothing but an answer ends it: a signal does not.
    thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        let _ = sender.send(read.map(|_| line));
    });
    loop {
        match answer.recv_timeout(INTERVAL) {
            Err(RecvTimeoutError::Timeout) => stopped::check().context("nothing was done")?,
            answer => {
                let answer = answer?.context("cannot read the answer")?;
                return Ok(answer.trim().to_owned());
            }
        }
    }
}

/// Like `ask`, for what is not to be seen while it is typed.
pub(crate) fn ask_unseen(question: &str) -> Result<String> {
    let stdin = io::stdin();
    let usual = termios::tcgetattr(&stdin).context("cannot read the terminal's settings")?;
    let mut unseen = usual.clone();
    unseen.local_modes.remove(LocalModes::ECHO);
    termios::tcsetattr(&stdin, OptionalActions::Now, &unseen)
        .context("cannot hide what is typed")?;
    let answer = ask(question);
    let _ = termios::tcsetattr(&stdin, OptionalActions::Now, &usual);
    // The one that was typed did not show either.
    let _ = writeln!(io::stderr());
    answer
}

/// "`a`, `b`, `c`", for messages.
pub(crate) fn list(names: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let quoted: Vec<_> = names.into_iter().map(|it| format!("`{it}`")).collect();
    quoted.join(", ")
}

/// The name among these that is probably meant by another one.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known
        .into_iter()
        .map(|it| (strsim::osa_distance(name, it), it));
    let near = near.filter(|(distance, it)| distance * 3 <= name.len().max(it.len()));
    near.min().map(|(_, it)| it)
}

/// The end of a message about a name that does not exist: ": did you mean `it`?", or nothing.
pub(crate) fn did_you_mean(name: Option<&str>) -> String {
    name.map_or_else(String::new, |it| format!(": did you mean `{it}`?"))
}

/// The same as a hint.
pub(crate) fn hint_of_name(name: Option<&str>) -> String {
    name.map_or_else(String::new, |it| format!("\nhint: did you mean `{it}`?"))
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

/// Prints a unified diff, in colours where a person sees them.
pub(crate) fn print_diff(diff: &str) -> Result<()> {
    print_coloured(diff, |line| match line.as_bytes() {
        [b'-', b'-', b'-', ..] | [b'+', b'+', b'+', ..] => Some(Colour::Bold),
        [b'-', ..] => Some(Colour::Red),
        [b'+', ..] => Some(Colour::Green),
        [b'@', ..] => Some(Colour::Cyan),
        _ => None,
    })
}

/// Prints lines, each in its colour where a person sees it.
pub(crate) fn print_coloured(text: &str, colour: impl Fn(&str) -> Option<Colour>) -> Result<()> {
    if !wants_colours(&io::stdout()) {
        return print(text);
    }
    let mut coloured = String::new();
    for line in visible(text).lines() {
        let painted = colour(line).map(|it| it.paint(line));
        coloured += painted.as_deref().unwrap_or(line);
        coloured.push('\n');
    }
    write_out(coloured.as_bytes())
}

/// Writes data to stdout. Everything else that we write goes to stderr. On a terminal, control characters are made visible.
pub fn print(data: &(impl AsRef<[u8]> + ?Sized)) -> Result<()> {
    if !io::stdout().is_terminal() {
        return write_out(data.as_ref());
    }
    let text = String::from_utf8_lossy(data.as_ref());
    write_out(visible(&text).as_bytes())
}

/// Prints a text in place of the one before, where a person sees it; elsewhere after a blank line.
pub(crate) fn redraw(text: &str) -> Result<()> {
    if !io::stdout().is_terminal() {
        return print(&format!("{text}\n"));
    }
    // Each line clears what the one before has left of it, and the last one what is below: nothing flickers.
    let text = visible(text).replace('\n', "\x1b[K\n");
    write_out(format!("\x1b[H{text}\x1b[J").as_bytes())
}

/// A text in lines of at most `width` characters, broken at blanks where there are any. Lines that go on begin with
/// `indent`.
pub(crate) fn wrapped(line: &str, width: usize, indent: &str) -> String {
    let mut lines = Vec::new();
    let mut rest = line.to_owned();
    while rest.chars().count() > width {
        let end = rest
            .char_indices()
            .nth(width)
            .map_or(rest.len(), |(it, _)| it);
        let blank = rest[..end].rfind(' ');
        let at = match blank.filter(|it| !rest[..*it].trim().is_empty()) {
            Some(blank) if !rest[end..].starts_with(' ') => blank,
            _ => end,
        };
        let next = format!("{indent}{}", rest[at..].trim_start());
        rest.truncate(at);
        lines.push(rest.trim_end().to_owned());
        rest = next;
    }
    lines.push(rest);
    lines.join("\n")
}

fn write_out(data: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data)?;
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
