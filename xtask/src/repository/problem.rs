//! What is to be mended in a repository's configuration.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use crate::{
    machine::{
        terminal::{self, list, number_of},
        tree::Tree,
    },
    yaml::{Files, Finding, Place},
};

/// What of the configuration is checked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum What {
    Clusters,
    Hubs,
    Support,
    Authenticators,
}

pub(crate) const EVERYTHING: [What; 4] = [
    What::Clusters,
    What::Hubs,
    What::Support,
    What::Authenticators,
];

/// Something to mend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Problem {
    /// From the root.
    pub(crate) path: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) level: Level,
    pub(crate) rule: &'static str,
    pub(crate) message: String,
    /// Of the one that it is about.
    pub(crate) cluster: Option<String>,
    pub(crate) hub: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Problem,
    Warning,
    /// All is well, and could be better: it is not counted.
    Suggestion,
}

/// Where rules put what they find.
pub(crate) struct Problems<'a> {
    pub(crate) files: &'a Files,
    pub(crate) cluster: Option<&'a str>,
    pub(crate) hub: Option<&'a str>,
    /// Where it is about all of it.
    pub(crate) at: Place,
    pub(crate) found: Vec<Problem>,
}

impl Problems<'_> {
    /// At a place, or where this cluster or release is described.
    pub(crate) fn problem(
        &mut self,
        rule: &'static str,
        at: Option<Place>,
        message: impl Into<String>,
    ) {
        self.add(Level::Problem, rule, at, message.into());
    }

    pub(crate) fn warning(
        &mut self,
        rule: &'static str,
        at: Option<Place>,
        message: impl Into<String>,
    ) {
        self.add(Level::Warning, rule, at, message.into());
    }

    pub(crate) fn suggestion(
        &mut self,
        rule: &'static str,
        at: Option<Place>,
        message: impl Into<String>,
    ) {
        self.add(Level::Suggestion, rule, at, message.into());
    }

    pub(crate) fn finding(&mut self, file: u32, finding: &Finding) {
        let line = finding.line;
        let column = finding.column;
        let at = Place { file, line, column };
        let level = if finding.is_warning {
            Level::Warning
        } else {
            Level::Problem
        };
        self.add(level, finding.rule, Some(at), finding.message.clone());
    }

    /// Whether there is something to mend at this place already.
    pub(crate) fn has_any_at(&self, at: Place) -> bool {
        let path = self.files.path(at.file).display().to_string();
        let mut found = self.found.iter();
        found.any(|it| it.path == path && it.line == at.line && it.column == at.column)
    }

    pub(crate) fn add(
        &mut self,
        level: Level,
        rule: &'static str,
        at: Option<Place>,
        message: String,
    ) {
        let at = at.unwrap_or(self.at);
        self.found.push(Problem {
            path: self.files.path(at.file).display().to_string(),
            line: at.line,
            column: at.column,
            level,
            rule,
            message: message.replace("\nhint: ", ": ").replace('\n', "; "),
            cluster: self.cluster.map(str::to_owned),
            hub: self.hub.map(str::to_owned),
        });
    }
}

/// Sorted, and what several hubs share once. It is then about none of them alone; a message that names one hub names the
/// others as well.
pub(crate) fn once(found: Vec<Problem>, strict: bool) -> Vec<Problem> {
    let mut by_place: BTreeMap<Problem, Vec<Problem>> = BTreeMap::new();
    for mut problem in found {
        if strict && problem.rule == NOT_CHECKED {
            problem.level = Level::Problem;
        }
        let shared = by_place.entry(problem.without_hub()).or_default();
        shared.push(problem);
    }
    let mut once: Vec<_> = by_place.into_values().map(of_several).collect();
    once.sort();
    once
}

/// The same problem of several hubs, at least one, as one.
fn of_several(mut problems: Vec<Problem>) -> Problem {
    problems.sort();
    problems.dedup();
    let mut first = problems.remove(0);
    let own = first.cluster.clone();
    let mut others = Vec::new();
    for other in problems {
        if other.message != first.message {
            others.extend(other.hub_shown(own.as_deref()));
        }
        if other.cluster != first.cluster {
            first.cluster = None;
        }
        if other.hub != first.hub {
            first.hub = None;
        }
    }
    if !others.is_empty() {
        first.message += &format!(" (and so for {})", some_of(&others));
    }
    first
}

/// How many hubs are named that have one problem, beside the first.
const NAMED: usize = 5;

fn some_of(hubs: &[String]) -> String {
    match hubs.split_at_checked(NAMED) {
        Some((named, more)) if more.len() > 1 => {
            format!("{} and {} others", list(named), more.len())
        }
        _ => list(hubs),
    }
}

impl Problem {
    /// As GitHub shows it beside the file, whose path it takes from the top of the git work tree:
    /// <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>
    pub(crate) fn annotation(&self, tree: &Tree) -> String {
        let command = match self.level {
            Level::Problem => "error",
            Level::Warning => "warning",
            Level::Suggestion => "notice",
        };
        let path = tree.below_top(Path::new(&self.path));
        let place = format!(
            "{command} file={},line={},col={}",
            escaped_property(&path.to_string_lossy()),
            self.line,
            self.column
        );
        terminal::workflow_command(&place, &self.message)
    }

    /// What is the same for all hubs that have it.
    fn without_hub(&self) -> Problem {
        let mut shared = self.clone();
        if let Some(hub) = &self.hub {
            shared.message = self.message.replace(&format!("hub `{hub}`"), "hub");
        }
        if let Some(cluster) = &self.cluster {
            shared.message = shared.message.replace(&format!(" of `{cluster}`"), "");
        }
        shared.cluster = None;
        shared.hub = None;
        shared
    }

    /// The name of its hub, with that of its cluster if this is another one.
    fn hub_shown(&self, cluster: Option<&str>) -> Option<String> {
        let hub = self.hub.as_deref()?;
        let own = self.cluster.as_deref();
        Some(match own.filter(|it| Some(*it) != cluster) {
            Some(own) => format!("{own}/{hub}"),
            None => hub.to_owned(),
        })
    }
}

/// The value of a property as it is written in a workflow command.
fn escaped_property(text: &str) -> String {
    terminal::escaped_in_command(text)
        .replace(':', "%3A")
        .replace(',', "%2C")
}

/// A line for each problem, with its place.
pub(crate) fn text(found: &[Problem]) -> String {
    let mut text = String::new();
    for it in found {
        let level = match it.level {
            Level::Problem => "",
            Level::Warning => "warning: ",
            Level::Suggestion => "suggestion: ",
        };
        let place = format!("{}:{}:{}", it.path, it.line, it.column);
        text += &format!("{place}: {level}{}\n", it.message);
    }
    text
}

/// "2 problems, 1 warning"
pub(crate) fn count(problems: usize, warnings: usize) -> String {
    match (problems, warnings) {
        (0, 0) => "no problems".to_owned(),
        (_, 0) => number_of(problems, "problem"),
        _ => {
            let warnings = number_of(warnings, "warning");
            format!("{}, {warnings}", number_of(problems, "problem"))
        }
    }
}

/// The rule of what couldn't be checked here.
pub(crate) const NOT_CHECKED: &str = "not-checked";
