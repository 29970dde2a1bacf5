//! What came of each release of a command: for the person, for a workflow's page, for other programs.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::{
    commands::deploy::options::DeployOptions,
    machine::{
        process,
        terminal::{self, Format, list},
        workflow,
    },
    repository::cluster::Cluster,
    secrets::Mask,
};

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ReleaseState {
    Deployed,
    /// It was left out, since it stands as it is.
    Unchanged,
    /// In a dry run.
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
struct Whole<'a> {
    cluster: &'a str,
    releases: &'a [Outcome],
}

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
        options: &DeployOptions,
        cluster: &'a Cluster,
        releases: Vec<&'a str>,
    ) -> DeployReport<'a> {
        DeployReport {
            mask,
            cluster: &cluster.name,
            releases,
            format: options.format,
            outcomes: Mutex::default(),
        }
    }

    fn outcomes(&self) -> MutexGuard<'_, BTreeMap<usize, Outcome>> {
        self.outcomes.lock().expect("nobody panics with it")
    }

    /// Whether a release has been deployed, left out as it stands, or shown.
    pub(crate) fn stands(&self, index: usize) -> bool {
        let standing = [
            ReleaseState::Deployed,
            ReleaseState::Unchanged,
            ReleaseState::Shown,
        ];
        self.outcomes()
            .get(&index)
            .is_some_and(|it| standing.contains(&it.state))
    }

    /// A release isn't tried, since these others don't stand.
    pub(crate) fn hold_back(&self, index: usize, missing: &str) {
        let message = format!("held back by {missing}");
        say!("{}: {message}", self.releases[index]);
        self.put(
            &mut self.outcomes(),
            index,
            ReleaseState::HeldBack,
            None,
            DeployedRelease::default(),
            Some(message),
        );
    }

    /// A release isn't tried, since a signal came.
    pub(crate) fn not_begun(&self, index: usize) {
        self.put(
            &mut self.outcomes(),
            index,
            ReleaseState::NotBegun,
            None,
            DeployedRelease::default(),
            None,
        );
    }

    pub(crate) fn add(&self, index: usize, started: Instant, result: Result<DeployedRelease>) {
        match result {
            Ok(done) => {
                let state = match &done {
                    DeployedRelease {
                        is_unchanged: true, ..
                    } => ReleaseState::Unchanged,
                    DeployedRelease { shown: Some(_), .. } => ReleaseState::Shown,
                    _ => ReleaseState::Deployed,
                };
                self.put(
                    &mut self.outcomes(),
                    index,
                    state,
                    Some(started),
                    done,
                    None,
                );
            }
            Err(err) => {
                let message = self.mask.hide(&format!("{err:#}"));
                let state = if process::check_stopped().is_ok() {
                    ReleaseState::Failed
                } else {
                    ReleaseState::Stopped
                };
                let failed = format!("`{}` {}", self.releases[index], state.word());
                let mut outcomes = self.outcomes();
                // What is wrong with a chart is wrong for every hub that has it.
                match outcomes
                    .values()
                    .find(|it| it.message.as_deref() == Some(&message))
                {
                    Some(first) => say!("{failed} as `{}` did", first.release),
                    None => workflow::tell_failure(&failed, &message),
                }
                self.put(
                    &mut outcomes,
                    index,
                    state,
                    Some(started),
                    DeployedRelease::default(),
                    Some(message),
                );
            }
        }
    }

    fn put(
        &self,
        outcomes: &mut BTreeMap<usize, Outcome>,
        index: usize,
        state: ReleaseState,
        started: Option<Instant>,
        done: DeployedRelease,
        message: Option<String>,
    ) {
        let seconds = started.map_or(0.0, |it| (it.elapsed().as_secs_f64() * 10.0).round() / 10.0);
        let DeployedRelease {
            revision,
            note,
            health,
            shown,
            ..
        } = done;
        let release = self.releases[index].to_owned();
        outcomes.insert(
            index,
            Outcome {
                release,
                state,
                revision,
                note,
                health,
                seconds,
                message,
                shown,
            },
        );
    }

    /// Prints the outcomes in the releases' order. `all` is what they are called together.
    pub(crate) fn finish(self, all: &str) -> Result<()> {
        let outcomes: Vec<_> = self
            .outcomes
            .into_inner()
            .expect("nobody panics with it")
            .into_values()
            .collect();
        let text = match self.format {
            Format::Text => outcomes.iter().map(Outcome::line).collect(),
            Format::Json => {
                serde_json::to_string_pretty(&Whole {
                    cluster: self.cluster,
                    releases: &outcomes,
                })? + "\n"
            }
        };
        let printed = terminal::print(&text)
            .and_then(|()| workflow::summarize(&summary(self.cluster, &outcomes)));
        let names = |states: &[ReleaseState]| -> Vec<&str> {
            outcomes
                .iter()
                .filter(|it| states.contains(&it.state))
                .map(|it| it.release.as_str())
                .collect()
        };
        let failed = names(&[ReleaseState::Failed, ReleaseState::Stopped]);
        let (held_back, not_begun) = (
            names(&[ReleaseState::HeldBack]),
            names(&[ReleaseState::NotBegun]),
        );
        if failed.is_empty() && not_begun.is_empty() {
            return printed;
        }
        let mut said = format!("{} of {all} of `{}` failed", failed.len(), self.cluster);
        for (what, names) in [
            ("", &failed),
            ("; not begun", &not_begun),
            ("; held back", &held_back),
        ] {
            if !names.is_empty() {
                said += &format!("{what}: {}", list(names));
            }
        }
        if !held_back.is_empty() {
            said += "\nhint: `--ignore-staging REASON` deploys them all the same";
        }
        bail!("{said}")
    }
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
    /// "revision 4, https://…, healthy, 12.3 s"
    fn details(&self) -> String {
        let revision = self.revision.map(|it| format!("revision {it}"));
        let seconds = format!("{:.1} s", self.seconds);
        match self.state {
            ReleaseState::Deployed | ReleaseState::Unchanged => {
                let notes = self.note.iter().chain(&self.health).cloned();
                revision
                    .into_iter()
                    .chain(notes)
                    .chain([seconds])
                    .collect::<Vec<_>>()
                    .join(", ")
            }
            ReleaseState::HeldBack => self
                .message
                .as_deref()
                .unwrap_or_default()
                .trim_start_matches("held back ")
                .to_owned(),
            ReleaseState::Failed | ReleaseState::Stopped => format!("after {seconds}"),
            ReleaseState::Shown | ReleaseState::NotBegun => String::new(),
        }
    }

    fn line(&self) -> String {
        match &self.shown {
            Some(shown) => shown.clone(),
            None => {
                format!(
                    "{:<20} {:<9} {}",
                    self.release,
                    self.state.word(),
                    self.details()
                )
                .trim_end()
                .to_owned()
                    + "\n"
            }
        }
    }
}

/// For the page of a GitHub workflow's run.
fn summary(cluster: &str, outcomes: &[Outcome]) -> String {
    let mut text = format!("### `{cluster}`\n\n| release | | |\n| --- | --- | --- |\n");
    for it in outcomes {
        text += &format!(
            "| {} | {} | {} |\n",
            it.release,
            it.state.word(),
            it.details()
        );
    }
    for it in outcomes
        .iter()
        .filter(|it| [ReleaseState::Failed, ReleaseState::Stopped].contains(&it.state))
    {
        text += &workflow::folded(&it.release, it.message.as_deref().unwrap_or_default());
    }
    text
}
