//! The rules, each a small function.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{
    charts::{
        fetch,
        values::{self, EnabledChart},
    },
    machine::{parallel, terminal},
    repository::{
        authenticator,
        cluster::{Cluster, Hub},
        encrypted,
        fleet::{Fleet, ReadFinding},
        problem::{Level, NOT_CHECKED, Problem, Problems, What, count, once, text},
        release_config::ReleaseConfig,
        values_file::{ValuesContent, ValuesFile},
    },
    schema::Unusable,
    settings::Settings,
    yaml::{Data, Node, Place},
};

type ClusterRule = fn(&Fleet, &Cluster, &mut Problems);
type ReleaseRule = fn(&Fleet, &ReleaseConfig, &mut Problems);

/// Beside config/cluster.schema.json and the hubs' names, without which there is no `Cluster`. Each with what it belongs
/// to.
const CLUSTER_RULES: &[(&[What], ClusterRule)] = &[
    (&[What::Clusters], name_is_the_folders),
    (&[What::Clusters], domains_are_unique),
    (&[What::Clusters], staging_before_prod),
    (&[What::Clusters], unlisted_secrets_are_encrypted),
    (&[What::Hubs, What::Support], values_files_are_listed),
];

/// For hubs and for what they share.
const RELEASE_RULES: &[ReleaseRule] = &[
    chart_exists,
    nothing_in_jsonnet,
    files_are_listed_once,
    files_can_be_read,
    secrets_are_encrypted,
    no_secrets_in_plain_text,
];

/// Runs all rules.
pub(crate) fn check(fleet: &Fleet, sh: &Shell) -> Vec<Problem> {
    let mut found = Vec::new();
    for ReadFinding {
        file,
        finding,
        cluster,
    } in &fleet.findings
    {
        let mut problems = fleet.problems(
            None,
            Place {
                file: *file,
                line: 1,
                column: 1,
            },
        );
        problems.cluster = cluster.as_deref();
        problems.finding(*file, finding);
        found.extend(problems.found);
    }
    for cluster in fleet.selected_clusters() {
        let mut problems = fleet.problems(Some(cluster), cluster.at());
        check_cluster(fleet, cluster, &mut problems);
        found.extend(problems.found);
    }
    let releases = fleet.releases();
    let checked = parallel::side_by_side(sh, &releases, |_, release| {
        let mut problems = fleet.problems_of(release);
        check_release(fleet, release, &mut problems);
        problems.found
    });
    found.extend(checked.into_iter().flatten());
    found
}
pub(crate) fn check_cluster(fleet: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    for (belongs_to, rule) in CLUSTER_RULES {
        if belongs_to.iter().any(|it| fleet.wants(*it)) {
            rule(fleet, cluster, problems);
        }
    }
}

pub(crate) fn check_release(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    let config = if release.hub.is_some() {
        What::Hubs
    } else {
        What::Support
    };
    if fleet.wants(config) {
        RELEASE_RULES
            .iter()
            .for_each(|rule| rule(fleet, release, problems));
    }
    let Some(Ok(chart)) = fleet.charts.get(&release.chart) else {
        return;
    };
    let set = fleet.set(release);
    let (values, part) = match values::compute(chart, &set) {
        Ok((values, part)) => (Node::nowhere(Data::Map(values)), part),
        Err(subchart) => {
            if fleet.wants(config) {
                let at = set.get(subchart.as_str()).and_then(|it| it.at);
                problems.problem(
                    "values",
                    at,
                    format!("`{subchart}` holds the values of a subchart, and must be a map"),
                );
            }
            return;
        }
    };
    if fleet.wants(config) {
        values_fit_schemas(fleet, release, &part, &values, &mut Vec::new(), problems);
    }
    if fleet.wants(What::Authenticators)
        && fleet.is_readable(release)
        && let Some(hub) = release.hub
        && let Some(config) = authenticator::AuthenticatorConfig::find(&values, &hub.name, |at| {
            fleet.is_set(release, *at)
        })
    {
        authenticator::RULES
            .iter()
            .for_each(|rule| rule(&config, problems));
    }
}

fn name_is_the_folders(_: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    if let Some(name) = cluster.yaml.get(&["name"])
        && let Some(text) = name.as_text()
        && text != cluster.name
    {
        problems.warning(
            "cluster-name",
            name.at,
            format!("the name is `{text}`, and the folder is `{}`", cluster.name),
        );
    }
}

fn domains_are_unique(fleet: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    let mut taken: BTreeMap<String, Vec<(&str, &str)>> = BTreeMap::new();
    for other in &fleet.clusters {
        for hub in &other.hubs {
            taken
                .entry(hub.domain.to_ascii_lowercase())
                .or_default()
                .push((&other.name, &hub.name));
        }
    }
    for (index, hub) in cluster.hubs.iter().enumerate() {
        let others = &taken[&hub.domain.to_ascii_lowercase()];
        let me = (cluster.name.as_str(), hub.name.as_str());
        if let Some((other_cluster, other)) = others.iter().find(|it| **it != me) {
            let at = cluster
                .yaml
                .get(&["hubs", &index.to_string(), "domain"])
                .and_then(|it| it.at);
            let of = format!(
                "hub `{other}` of `{other_cluster}` has the same domain `{}`",
                hub.domain
            );
            problems.problem("domains", at, format!("hub `{}`: {of}", hub.name));
        }
    }
}

/// Staging hubs are upgraded before the others of their cluster.
fn staging_before_prod(_: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    if !cluster.hubs.is_empty() && !cluster.hubs.iter().any(Hub::is_staging) {
        let at = cluster.yaml.get(&["hubs"]).and_then(|it| it.at);
        problems.warning(
            "no-staging",
            at,
            "no hub has `staging` in its name, or as its `stage`: nothing is tried before the others",
        );
    }
}

/// Keys of providers, tokens and what else lies beside cluster.yaml.
fn unlisted_secrets_are_encrypted(fleet: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    for (path, file) in fleet.unlisted(cluster) {
        secret_is_encrypted(fleet, path, file, problems);
    }
}

fn values_files_are_listed(fleet: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    for (path, file) in fleet.unlisted(cluster).filter(|_| fleet.is_whole()) {
        if path
            .file_name()
            .is_some_and(|it| it.to_string_lossy().contains("values"))
        {
            let at = Place {
                file: file.number,
                line: 1,
                column: 1,
            };
            problems.warning(
                "unlisted-file",
                Some(at),
                "no hub and no `support` lists this values file",
            );
        }
    }
}

fn chart_exists(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    if let Some(hub) = release.hub
        && hub.chart_override.is_some()
    {
        let message = format!("hub `{}`: `chart_override` isn't supported yet", hub.name);
        problems.problem("not-yet", None, message);
    }
    if !fleet.root.join(&release.chart).join("Chart.yaml").is_file() {
        let message = format!(
            "{}: there is no chart in `{}`",
            release.shown(),
            release.chart.display()
        );
        problems.problem("chart-exists", None, message);
    }
}

fn nothing_in_jsonnet(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    for (path, at) in release
        .listed
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|it| it == "jsonnet"))
    {
        let message = format!(
            "{}: `{}`: values in jsonnet aren't supported yet",
            release.shown(),
            path.display()
        );
        problems.problem("not-yet", *at, message);
    }
    if fleet
        .root
        .join(&release.chart)
        .join("values.jsonnet")
        .is_file()
    {
        let message = format!(
            "`{}/values.jsonnet`: values in jsonnet aren't supported yet",
            release.chart.display()
        );
        problems.problem("not-yet", None, message);
    }
}

fn files_are_listed_once(_: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (path, at) in &release.listed {
        if !seen.insert(path) {
            problems.problem(
                "listed-once",
                *at,
                format!("{}: `{}` is listed twice", release.shown(), path.display()),
            );
        }
    }
}

fn files_can_be_read(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    for (path, at, file) in fleet.files_of(release) {
        match &file.state {
            // Jsonnet isn't read, and said so elsewhere.
            _ if path.extension().is_some_and(|it| it == "jsonnet") => {}
            ValuesContent::Unreadable(why) => {
                problems.problem("file-exists", at, format!("{}: {why}", release.shown()))
            }
            ValuesContent::Broken(finding) => problems.finding(file.number, finding),
            ValuesContent::Plain(_, findings) => findings
                .iter()
                .for_each(|it| problems.finding(file.number, it)),
            ValuesContent::Encrypted(..) | ValuesContent::Exposed => {}
        }
    }
}

fn secrets_are_encrypted(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    for (path, _, file) in fleet.files_of(release) {
        secret_is_encrypted(fleet, path, file, problems);
    }
}

fn secret_is_encrypted(fleet: &Fleet, path: &Path, file: &ValuesFile, problems: &mut Problems) {
    let at = Some(Place {
        file: file.number,
        line: 1,
        column: 1,
    });
    match &file.state {
        ValuesContent::Exposed => problems.problem(
            "not-encrypted",
            at,
            format!(
                "this is called secret and isn't what sops writes: it has no `sops` block. If it was ever committed or shared, \
                 take its content as leaked and replace it where it came from; then `sops encrypt --in-place {}`",
                path.display()
            ),
        ),
        ValuesContent::Encrypted(_, sops) => {
            if let Some(message) = encrypted::other_recipients(&fleet.recipients, path, sops) {
                problems.problem("recipients", at, message);
            }
        }
        _ => {}
    }
}

/// Texts that are keys by their form, whatever the file is called. They aren't shown.
fn no_secrets_in_plain_text(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    for (_, _, file) in fleet.files_of(release) {
        let ValuesContent::Plain(values, _) = &file.state else {
            continue;
        };
        values.visit(&mut |node| {
            if let Some(what) = node.as_text().and_then(secret_in) {
                let message = format!(
                    "this looks like {what}: it belongs into an encrypted file, and is to be replaced"
                );
                problems.problem("plain-secret", node.at, message);
            }
        });
    }
}

/// What kind of key is in a text: by the words that its issuer begins all of them with, and enough letters and digits.
fn secret_in(text: &str) -> Option<&'static str> {
    const KEYS: &[(&str, usize, &str)] = &[
        ("AGE-SECRET-KEY-1", 58, "a private age key"),
        ("AIza", 35, "a key of Google's APIs"),
        ("AKIA", 16, "an access key of AWS"),
        ("ASIA", 16, "an access key of AWS"),
        ("GOCSPX-", 28, "a client's secret of Google"),
        ("ghp_", 36, "a token of GitHub"),
        ("gho_", 36, "a token of GitHub"),
        ("ghs_", 36, "a token of GitHub"),
        ("github_pat_", 22, "a token of GitHub"),
        ("glpat-", 20, "a token of GitLab"),
        ("xoxb-", 24, "a token of Slack"),
    ];
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
    let is_key = |(start, length, _): &&(&str, usize, &str)| {
        text.match_indices(start).any(|(at, _)| {
            let begins = !text[..at].ends_with(is_part);
            let rest = &text[at + start.len()..];
            begins && rest.chars().take_while(|it| is_part(*it)).count() >= *length
        })
    };
    KEYS.iter().find(is_key).map(|(_, _, what)| *what)
}

/// Values against the schemas of a chart and of its enabled subcharts; `path` leads to the values of this one.
fn values_fit_schemas(
    fleet: &Fleet,
    release: &ReleaseConfig,
    part: &EnabledChart,
    values: &Node,
    path: &mut Vec<String>,
    problems: &mut Problems,
) {
    if part.chart.is_missing {
        let message = format!(
            "the values of `{}` {} weren't checked: it isn't in the cache, and `--fetch` gets it",
            part.chart.name, part.chart.version
        );
        return problems.warning(NOT_CHECKED, Some(part.chart.at), message);
    }
    match part
        .chart
        .schema
        .as_ref()
        .map(|(at, schema)| (*at, &**schema))
    {
        None => {}
        Some((at, Err(Unusable::Broken(why)))) => {
            why.lines().for_each(|it| {
                problems.problem(
                    "schema",
                    Some(at),
                    format!("`{}`: its schema: {it}", part.name),
                )
            });
        }
        Some((at, Err(Unusable::Elsewhere(urls)))) => {
            let urls = terminal::list(urls);
            let message = format!(
                "the values of `{}` weren't checked: its schema refers to {urls}, and `--fetch` gets that",
                part.name
            );
            problems.warning(NOT_CHECKED, Some(at), message);
        }
        Some((_, Ok(schema))) => {
            let missing = |name: &String| {
                part.parts
                    .iter()
                    .any(|it| it.chart.is_missing && it.name == name)
            };
            for fault in schema.check(values) {
                // The defaults of a subchart that isn't here may have it, and a file that can't be read much else.
                if fault.is_lack && fault.path.first().is_some_and(missing)
                    || fault.extra.is_none() && !fleet.is_readable(release)
                {
                    continue;
                }
                let at = fault.place(values);
                let whole: Vec<_> = path.iter().chain(&fault.path).map(String::as_str).collect();
                let mut message = if whole.is_empty() {
                    String::new()
                } else {
                    format!("`{}`: ", whole.join("."))
                };
                message += &fault.message;
                match at {
                    None => message = format!("{}: {message}", release.shown()),
                    Some(at) if !fleet.is_set(release, at) => {
                        message += &format!(" (a default of the chart `{}`)", part.name)
                    }
                    _ => {}
                }
                problems.problem("values", at, message);
            }
        }
    }
    for part in &part.parts {
        if let Some(values) = values.get(&[part.name]) {
            path.push(part.name.to_owned());
            values_fit_schemas(fleet, release, part, values, path, problems);
            path.pop();
        }
    }
}

/// Checks what a deploy is about before anything is touched. The error has all problems.
pub(crate) fn before_deploy(sh: &Shell, settings: &Settings, fleet: Fleet) -> Result<Fleet> {
    let fleet = fleet.with_charts(fetch::schemas(settings));
    let found = once(check(&fleet, sh), false);
    let problems: Vec<_> = found
        .into_iter()
        .filter(|it| it.level == Level::Problem)
        .collect();
    if !problems.is_empty() {
        let size = fleet.size();
        let count = count(problems.len(), 0);
        bail!("{}\n{size}: {count}", text(&problems).trim_end());
    }
    Ok(fleet)
}
