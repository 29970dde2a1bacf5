//! How work on releases gets on: on a terminal a line for each one that is rewritten, else plain lines.

use std::{
    cell::Cell,
    env, fmt,
    io::{IsTerminal, Write},
    sync::OnceLock,
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::rollout::Pods;

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
pub(crate) fn say(line: fmt::Arguments) {
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
