//! All that is wrong in a repository's configuration, said at once and with its place: without a network, credentials
//! or helm. `--render` also runs helm.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, bail};
use serde::Serialize;
use xshell::Shell;

use crate::{
    charts::{self, Loader},
    cluster::{self, Cluster, Hub, Support},
    process,
    settings::Settings,
    setup,
    values::Chart,
    yaml::{Files, Finding, Map, Node, Place},
};

mod authenticator;
mod encrypted;
mod files;
mod fleet;
mod render;
mod rules;

pub(crate) use self::fleet::{Fleet, Kind, Release};

/// Check clusters, hubs and their values, and name every problem with its place
///
/// Without arguments everything of every cluster is checked. Values are computed as helm computes them and held against
/// the charts' schemas, encrypted files by the keys and types that sops leaves readable. Nothing is decrypted, and nobody
/// is asked: a chart that a chart depends on, and that isn't in the cache, is named as not checked.
///
/// The exit status is 1 if there are problems; warnings alone are fine.
#[derive(clap::Args)]
pub(crate) struct Validate {
    /// all, cluster-config, hub-config, support-config or authenticator-config [default: all]
    what: Option<String>,
    /// A folder in config/clusters/, if not all of them
    cluster: Option<String>,
    /// Only these hubs of the cluster
    hubs: Vec<String>,
    /// Also render every chart with helm, as it would be deployed, and check the manifests
    #[arg(long)]
    render: bool,
    /// Get what charts depend on into the cache first
    #[arg(long)]
    fetch: bool,
    /// Take what couldn't be checked as a problem
    #[arg(long)]
    strict: bool,
    /// How problems are written [default: text, and github in a workflow]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// Lines `path:line:col: message`
    Text,
    /// A list of objects
    Json,
    /// Annotations for GitHub's pages
    Github,
}

/// What of the configuration is checked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum What {
    Clusters,
    Hubs,
    Support,
    Authenticators,
}

const EVERYTHING: [What; 4] = [
    What::Clusters,
    What::Hubs,
    What::Support,
    What::Authenticators,
];

/// Something to mend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Problem {
    /// From the root.
    path: String,
    line: u32,
    column: u32,
    level: Level,
    rule: &'static str,
    message: String,
    /// Of the one that it is about.
    cluster: Option<String>,
    hub: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Problem,
    Warning,
}

/// Where rules put what they find.
pub(crate) struct Problems<'a> {
    files: &'a Files,
    cluster: Option<&'a str>,
    hub: Option<&'a str>,
    /// Where it is about all of it.
    at: Place,
    found: Vec<Problem>,
}

impl Problems<'_> {
    /// At a place, or where this cluster or release is described.
    fn problem(&mut self, rule: &'static str, at: Option<Place>, message: impl Into<String>) {
        self.add(Level::Problem, rule, at, message.into());
    }

    fn warning(&mut self, rule: &'static str, at: Option<Place>, message: impl Into<String>) {
        self.add(Level::Warning, rule, at, message.into());
    }

    fn finding(&mut self, file: u32, finding: &Finding) {
        let at = Place {
            file,
            line: finding.line,
            column: finding.column,
        };
        let level = if finding.is_warning {
            Level::Warning
        } else {
            Level::Problem
        };
        self.add(level, finding.rule, Some(at), finding.message.clone());
    }

    fn add(&mut self, level: Level, rule: &'static str, at: Option<Place>, message: String) {
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

pub(crate) fn validate(sh: &Shell, root: &Path, args: &Validate) -> Result<ExitCode> {
    let (what, cluster, hubs) = selection(args);
    let settings = Settings::load(root)?;
    let fleet = Fleet::load(root, &what, cluster, &hubs)?;
    let prepared = match args.fetch || args.render {
        true => {
            let sh = &setup::provide(sh, &["helm"], false)?;
            charts::prepare(sh, root, &settings, fleet.charts_wanted())?
        }
        false => BTreeMap::new(),
    };
    let fleet = fleet.with_charts((args.fetch || args.render).then_some(&settings));
    let mut found = fleet.check(sh);
    for (chart, err) in prepared
        .iter()
        .filter_map(|(chart, it)| Some((chart, it.as_ref().err()?)))
    {
        fleet.not_prepared(chart, err, &mut found);
    }
    if args.render {
        found.extend(render::render(sh, &fleet, &prepared)?);
    }
    let found = once(found, args.strict);
    let problems = found.iter().filter(|it| it.level == Level::Problem).count();
    let in_workflow = env::var_os("GITHUB_ACTIONS").is_some_and(|it| !it.is_empty());
    let format = args.format.unwrap_or(if in_workflow {
        Format::Github
    } else {
        Format::Text
    });
    let count = format!(
        "{}: {}",
        fleet.size(),
        count(problems, found.len() - problems)
    );
    match format {
        Format::Text => crate::print(&(text(&found) + &count + "\n"))?,
        Format::Json => crate::print(&(serde_json::to_string_pretty(&found)? + "\n"))?,
        Format::Github => crate::print(&github(&found))?,
    }
    if !matches!(format, Format::Text) {
        say!("{count}");
    }
    Ok(if problems == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The first word may also be a cluster.
fn selection(args: &Validate) -> (Vec<What>, Option<&str>, Vec<String>) {
    let what = match args.what.as_deref() {
        None | Some("all") => EVERYTHING.to_vec(),
        Some("cluster-config") => vec![What::Clusters],
        Some("hub-config") => vec![What::Hubs],
        Some("support-config") => vec![What::Support],
        Some("authenticator-config") => vec![What::Authenticators],
        Some(cluster) => {
            let hubs = args.cluster.iter().chain(&args.hubs).cloned().collect();
            return (EVERYTHING.to_vec(), Some(cluster), hubs);
        }
    };
    (what, args.cluster.as_deref(), args.hubs.clone())
}

/// Sorted, and what several hubs share once. It is then about none of them.
fn once(found: Vec<Problem>, strict: bool) -> Vec<Problem> {
    let mut by_place: BTreeMap<Problem, Problem> = BTreeMap::new();
    for mut problem in found {
        if strict && problem.rule == rules::NOT_CHECKED {
            problem.level = Level::Problem;
        }
        let key = Problem {
            cluster: None,
            hub: None,
            ..problem.clone()
        };
        by_place
            .entry(key)
            .and_modify(|it| {
                if it.cluster != problem.cluster {
                    it.cluster = None;
                }
                if it.hub != problem.hub {
                    it.hub = None;
                }
            })
            .or_insert(problem);
    }
    by_place.into_values().collect()
}

fn text(found: &[Problem]) -> String {
    let line = |it: &Problem| {
        let warning = if it.level == Level::Warning {
            "warning: "
        } else {
            ""
        };
        format!(
            "{}:{}:{}: {warning}{}\n",
            it.path, it.line, it.column, it.message
        )
    };
    found.iter().map(line).collect()
}

/// <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>
fn github(found: &[Problem]) -> String {
    let data = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let line = |it: &Problem| {
        let command = if it.level == Level::Warning {
            "warning"
        } else {
            "error"
        };
        let (path, line, column) = (property(&it.path), it.line, it.column);
        format!(
            "::{command} file={path},line={line},col={column}::{}\n",
            data(&it.message)
        )
    };
    found.iter().map(line).collect()
}

fn count(problems: usize, warnings: usize) -> String {
    match (problems, warnings) {
        (0, 0) => "no problems".to_owned(),
        (_, 0) => number_of(problems, "problem"),
        _ => format!(
            "{}, {}",
            number_of(problems, "problem"),
            number_of(warnings, "warning")
        ),
    }
}

/// "1 hub", "2 hubs".
pub(crate) fn number_of(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Checks what a deploy is about before anything is touched; the error has all problems.
pub(crate) fn before_deploy(
    sh: &Shell,
    root: &Path,
    settings: &Settings,
    what: &[What],
    cluster: &str,
    hubs: &[String],
) -> Result<Fleet> {
    let fleet = Fleet::load(root, what, Some(cluster), hubs)?.with_charts(Some(settings));
    let found = once(fleet.check(sh), false);
    let problems: Vec<_> = found
        .into_iter()
        .filter(|it| it.level == Level::Problem)
        .collect();
    if !problems.is_empty() {
        bail!(
            "{}\n{}: {}",
            text(&problems).trim_end(),
            fleet.size(),
            count(problems.len(), 0)
        );
    }
    Ok(fleet)
}
