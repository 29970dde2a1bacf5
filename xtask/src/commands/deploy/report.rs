//! The outcome of each release of a command: for the person, for a workflow's page, for other programs.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use anyhow::{Error, Result, bail};
use serde::Serialize;

use crate::{
    machine::{
        process,
        terminal::{self, Colour, Format, list},
        workflow,
    },
    secrets::Mask,
};

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ReleaseState {
    Deployed,
    /// It was left out, since it is ready and nothing of it would change.
    Unchanged,
    /// A dry run shows it.
    Shown,
    Failed,
    /// A signal came.
    Stopped,
    HeldBack,
    NotBegun,
}

/// A release that was deployed, or what a dry run has to show of it.
#[derive(Default)]
pub(crate) struct DeployedRelease {
    pub(crate) revision: Option<u32>,
    /// Its address, or the version of its chart.
    pub(crate) note: Option<String>,
    /// "healthy", or why it wasn't checked.
    pub(crate) health: Option<String>,
    pub(crate) shown: Option<String>,
    /// Nothing was done.
    pub(crate) is_unchanged: bool,
}

impl DeployedRelease {
    /// A release that is ready at this revision already.
    pub(crate) fn unchanged(revision: u32) -> DeployedRelease {
        DeployedRelease {
            revision: Some(revision),
            is_unchanged: true,
            ..DeployedRelease::default()
        }
    }
}

#[derive(Serialize)]
struct Outcome {
    release: String,
    state: ReleaseState,
    revision: Option<u32>,
    note: Option<String>,
    health: Option<String>,
    seconds: f64,
    message: Option<String>,
    #[serde(skip)]
    shown: Option<String>,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct JsonReport<'a> {
    cluster: &'a str,
    releases: &'a [Outcome],
}

/// Gathers the outcomes of releases that are deployed side by side.
pub(crate) struct DeployReport<'a> {
    mask: &'a Mask,
    cluster: &'a str,
    releases: Vec<&'a str>,
    format: Format,
    outcomes: Mutex<BTreeMap<usize, Outcome>>,
}

impl<'a> DeployReport<'a> {
    pub(crate) fn new(
        mask: &'a Mask,
        format: Format,
        cluster: &'a str,
        releases: Vec<&'a str>,
    ) -> DeployReport<'a> {
        DeployReport {
            mask,
            cluster,
            releases,
            format,
            outcomes: Mutex::default(),
        }
    }

    fn outcomes(&self) -> MutexGuard<'_, BTreeMap<usize, Outcome>> {
        self.outcomes.lock().expect("nobody panics with it")
    }

    /// Whether a release has been deployed, is ready as it is, or was shown.
    pub(crate) fn is_ready(&self, index: usize) -> bool {
        let good = [
            ReleaseState::Deployed,
            ReleaseState::Unchanged,
            ReleaseState::Shown,
        ];
        let outcomes = self.outcomes();
        outcomes
            .get(&index)
            .is_some_and(|it| good.contains(&it.state))
    }

    /// A release isn't tried, since these others aren't ready.
    pub(crate) fn hold_back(&self, index: usize, missing: &str) {
        let message = format!("held back by {missing}");
        say!("{}: {message}", self.releases[index]);
        let mut outcome = self.outcome(index, ReleaseState::HeldBack);
        outcome.message = Some(message);
        self.outcomes().insert(index, outcome);
    }

    /// A release isn't tried, since a signal came.
    pub(crate) fn not_begun(&self, index: usize) {
        let outcome = self.outcome(index, ReleaseState::NotBegun);
        self.outcomes().insert(index, outcome);
    }

    /// A release was tried.
    pub(crate) fn add(&self, index: usize, started: Instant, result: Result<DeployedRelease>) {
        let seconds = (started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        // Held until the insert: two that fail at the same time find each other.
        let mut outcomes = self.outcomes();
        let outcome = match result {
            Ok(release) => self.deployed(index, release),
            Err(err) => self.failed(index, &err, &outcomes),
        };
        let outcome = Outcome { seconds, ..outcome };
        if self.releases.len() > 1 && outcome.is_good() {
            say!("{}", outcome.told());
        }
        outcomes.insert(index, outcome);
    }

    fn outcome(&self, index: usize, state: ReleaseState) -> Outcome {
        Outcome {
            release: self.releases[index].to_owned(),
            state,
            revision: None,
            note: None,
            health: None,
            seconds: 0.0,
            message: None,
            shown: None,
        }
    }

    fn deployed(&self, index: usize, release: DeployedRelease) -> Outcome {
        let state = if release.is_unchanged {
            ReleaseState::Unchanged
        } else if release.shown.is_some() {
            ReleaseState::Shown
        } else {
            ReleaseState::Deployed
        };
        Outcome {
            revision: release.revision,
            note: release.note,
            health: release.health,
            shown: release.shown,
            ..self.outcome(index, state)
        }
    }

    /// Tells of a failure at once. What is wrong with a chart is wrong for every hub that has it, and is told once.
    fn failed(&self, index: usize, err: &Error, others: &BTreeMap<usize, Outcome>) -> Outcome {
        let message = self.mask.hide(&format!("{err:#}"));
        let state = if process::check_stopped().is_ok() {
            ReleaseState::Failed
        } else {
            ReleaseState::Stopped
        };
        let failed = format!("`{}` {}", self.releases[index], state.word());
        let mut others = others.values();
        match others.find(|it| it.message.as_deref() == Some(&message)) {
            Some(first) => say!("{failed} as `{}` did", first.release),
            None => workflow::tell_failure(&failed, &message),
        }
        Outcome {
            message: Some(message),
            ..self.outcome(index, state)
        }
    }

    /// Prints the outcomes in the releases' order. `all` is what they are called together.
    pub(crate) fn finish(self, all: &str) -> Result<()> {
        let outcomes = self.outcomes.into_inner().expect("nobody panics with it");
        let outcomes: Vec<_> = outcomes.into_values().collect();
        let text = match self.format {
            Format::Text => outcomes.iter().map(Outcome::line).collect(),
            Format::Json => {
                serde_json::to_string_pretty(&JsonReport {
                    cluster: self.cluster,
                    releases: &outcomes,
                })? + "\n"
            }
        };
        let printed = terminal::print_coloured(&text, colour_of_line)
            .and_then(|()| workflow::summarize(&summary(self.cluster, &outcomes)));
        match failures(&outcomes, all, self.cluster) {
            None => printed,
            Some(failures) => bail!("{failures}"),
        }
    }
}

/// The colour of an outcome's line, by its state.
fn colour_of_line(line: &str) -> Option<Colour> {
    match line.split_whitespace().nth(1)? {
        "deployed" => Some(Colour::Green),
        "failed" | "stopped" => Some(Colour::Red),
        "held" | "not" => Some(Colour::Yellow),
        _ => None,
    }
}

/// What to say in the end if not all went well.
fn failures(outcomes: &[Outcome], all: &str, cluster: &str) -> Option<String> {
    let failed = names(outcomes, &[ReleaseState::Failed, ReleaseState::Stopped]);
    let not_begun = names(outcomes, &[ReleaseState::NotBegun]);
    let held_back = names(outcomes, &[ReleaseState::HeldBack]);
    if failed.is_empty() && not_begun.is_empty() {
        return None;
    }
    let mut text = format!("{} of {all} of `{cluster}` failed", failed.len());
    for (what, names) in [
        ("", &failed),
        ("; not begun", &not_begun),
        ("; held back", &held_back),
    ] {
        if !names.is_empty() {
            text += &format!("{what}: {}", list(names));
        }
    }
    if !held_back.is_empty() {
        let option = workflow::option("ignore-staging REASON");
        text += &format!("\nhint: {option} deploys them all the same");
    }
    Some(text)
}

/// The releases that are left in one of these states.
fn names<'a>(outcomes: &'a [Outcome], states: &[ReleaseState]) -> Vec<&'a str> {
    let those = outcomes.iter().filter(|it| states.contains(&it.state));
    those.map(|it| it.release.as_str()).collect()
}

impl ReleaseState {
    fn word(self) -> &'static str {
        match self {
            ReleaseState::Deployed => "deployed",
            ReleaseState::Unchanged => "unchanged",
            ReleaseState::Shown => "shown",
            ReleaseState::Failed => "failed",
            ReleaseState::Stopped => "stopped",
            ReleaseState::HeldBack => "held back",
            ReleaseState::NotBegun => "not begun",
        }
    }
}

impl Outcome {
    /// Whether the release is as the repository has it now.
    fn is_good(&self) -> bool {
        [ReleaseState::Deployed, ReleaseState::Unchanged].contains(&self.state)
    }

    /// "prod: deployed, revision 4, …", for the person who waits for others.
    fn told(&self) -> String {
        format!(
            "{}: {}, {}",
            self.release,
            self.state.word(),
            self.details()
        )
    }

    /// "revision 4, https://…, healthy, 12.3 s"
    fn details(&self) -> String {
        let seconds = format!("{:.1} s", self.seconds);
        match self.state {
            ReleaseState::Deployed | ReleaseState::Unchanged => {
                let mut details: Vec<_> = self
                    .revision
                    .iter()
                    .map(|it| format!("revision {it}"))
                    .collect();
                details.extend(self.note.iter().chain(&self.health).cloned());
                details.push(seconds);
                details.join(", ")
            }
            ReleaseState::HeldBack => {
                let message = self.message.as_deref().unwrap_or_default();
                message.trim_start_matches("held back ").to_owned()
            }
            ReleaseState::Failed | ReleaseState::Stopped => format!("after {seconds}"),
            ReleaseState::Shown | ReleaseState::NotBegun => String::new(),
        }
    }

    fn line(&self) -> String {
        if let Some(shown) = &self.shown {
            return shown.clone();
        }
        let state = self.state.word();
        let line = format!("{:<20} {state:<9} {}", self.release, self.details());
        format!("{}\n", line.trim_end())
    }
}

/// For the page of a GitHub workflow's run.
fn summary(cluster: &str, outcomes: &[Outcome]) -> String {
    let mut text = format!("### `{cluster}`\n\n| release | | |\n| --- | --- | --- |\n");
    for outcome in outcomes {
        let release = &outcome.release;
        let state = outcome.state.word();
        text += &format!("| {release} | {state} | {} |\n", outcome.details());
    }
    for outcome in outcomes {
        if [ReleaseState::Failed, ReleaseState::Stopped].contains(&outcome.state) {
            let message = outcome.message.as_deref().unwrap_or_default();
            text += &workflow::folded(&outcome.release, message);
        }
    }
    text
}
