//! The rules, each a small function.

use std::{collections::BTreeSet, ffi::OsStr, path::Path};

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{
    charts::values::{self, EnabledChart},
    machine::{
        parallel,
        paths::is_called_secret,
        terminal::{did_you_mean, list, nearest},
        tree::Kind,
    },
    repository::{
        authenticator::{
            self,
            config::AuthenticatorConfig,
            own::{JupyterHubChart, hub_values, only_own, templates},
            programs::Programs,
        },
        cluster::{Cluster, Hub},
        coordinates, domains,
        fleet::{Fleet, ReadFinding},
        gates,
        ingress::{self, IngressHost},
        keys::KeyFile,
        loose_images::{self, LooseImage},
        plain_secrets::{kind_of_secret, looks_secret},
        problem::{Level, NOT_CHECKED, Problem, Problems, What, count, once, text},
        quotes,
        release_config::ReleaseConfig,
        values_file::{ValuesContent, ValuesFile, is_jsonnet},
        values_rules,
    },
    schema::Retriever,
    secrets::Form,
    yaml::{Data, Finding, Map, Node, Place},
};

type ClusterRule = fn(&Fleet, &Cluster, &mut Problems);
type ReleaseRule = fn(&Fleet, &ReleaseConfig, &mut Problems);

/// Beside config/cluster.schema.json and the hubs' names, without which there is no `Cluster`. Each with what it belongs
/// to.
const CLUSTER_RULES: &[(&[What], ClusterRule)] = &[
    (&[What::Clusters], name_is_the_folders),
    (&[What::Clusters], domains::are_unique),
    (&[What::Clusters], staging_before_prod),
    (&[What::Clusters], gates::suggest),
    (&[What::Clusters], unlisted_secrets_are_encrypted),
    (
        &[What::Clusters, What::Hubs, What::Support],
        keys_are_encrypted,
    ),
    (&[What::Hubs, What::Support], values_files_are_listed),
];

/// For hubs and for what they share.
const RELEASE_RULES: &[ReleaseRule] = &[
    chart_exists,
    override_exists,
    files_are_listed_once,
    files_can_be_read,
    secrets_are_encrypted,
    no_secrets_in_plain_text,
];

/// Runs all rules.
pub(crate) fn check(fleet: &Fleet, sh: &Shell) -> Vec<Problem> {
    let mut found = Vec::new();
    for read in &fleet.findings {
        found.extend(problems_of_finding(fleet, read));
    }
    for cluster in fleet.selected_clusters() {
        let mut problems = fleet.problems(Some(cluster), cluster.at());
        check_cluster(fleet, cluster, &mut problems);
        found.extend(problems.found);
    }
    found.extend(one_cluster_twice(fleet));
    let releases = fleet.releases();
    let checked = check_releases(fleet, sh, &releases);
    let mut hosts = Vec::new();
    let mut images = BTreeSet::new();
    for (problems, named) in checked {
        found.extend(problems);
        hosts.extend(named.hosts);
        images.extend(named.images);
    }
    found.extend(ingress::hosts_of_two_hubs(fleet, &hosts));
    found.extend(loose_images::told(fleet, &images));
    found
}

/// The problems of these releases, without those that several of them have together.
pub(crate) fn problems_of_releases(
    fleet: &Fleet,
    sh: &Shell,
    releases: &[ReleaseConfig],
) -> Vec<Problem> {
    let checked = check_releases(fleet, sh, releases);
    checked.into_iter().flat_map(|(found, _)| found).collect()
}

/// The problems of each of these releases, and what it names.
fn check_releases<'a>(
    fleet: &Fleet,
    sh: &Shell,
    releases: &[ReleaseConfig<'a>],
) -> Vec<(Vec<Problem>, Named<'a>)> {
    parallel::side_by_side(sh, releases, |_, release| {
        let mut problems = fleet.problems_of(release);
        let named = check_release(fleet, release, &mut problems);
        (problems.found, named)
    })
}

fn problems_of_finding(fleet: &Fleet, read: &ReadFinding) -> Vec<Problem> {
    let mut problems = fleet.problems(None, Place::start_of(read.file));
    problems.cluster = read.cluster.as_deref();
    problems.finding(read.file, &read.finding);
    problems.found
}

fn check_cluster(fleet: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    for (belongs_to, rule) in CLUSTER_RULES {
        if belongs_to.iter().any(|it| fleet.wants(*it)) {
            rule(fleet, cluster, problems);
        }
    }
}

/// What a release names that is looked at together with what other releases name.
#[derive(Default)]
struct Named<'a> {
    /// The hosts of its ingresses, if it is a hub.
    hosts: Vec<IngressHost<'a>>,
    images: Vec<LooseImage<'a>>,
}

/// Checks a release. Returns what it names, if its values are checked.
fn check_release<'a>(
    fleet: &Fleet,
    release: &ReleaseConfig<'a>,
    problems: &mut Problems,
) -> Named<'a> {
    let is_wanted = fleet.wants_config_of(release);
    if is_wanted {
        for rule in RELEASE_RULES {
            rule(fleet, release, problems);
        }
    }
    let Some(Ok(chart)) = fleet.charts.get(&release.chart) else {
        return Named::default();
    };
    let set = fleet.set(release);
    let mut named = Named::default();
    match values::compute(chart, &set) {
        Ok((values, enabled)) => {
            let values = Node::nowhere(Data::Map(values));
            if is_wanted {
                values_rules::check(fleet, release, &enabled, &values, problems);
                named.images = loose_images::loose(fleet, release, &enabled, &values);
                if fleet.is_readable(release) {
                    named.hosts = ingress::hosts(fleet, release, &enabled, &values);
                }
                if fleet.knows_all_of(release) {
                    ingress::domain_is_a_host(release, &named.hosts, problems);
                }
            }
            check_authenticator(fleet, release, &enabled, &values, problems);
        }
        Err(subchart) if is_wanted => no_map(&subchart, &set, problems),
        Err(_) => {}
    }
    named
}

/// Adds that the values for a subchart are something else than a map.
fn no_map(subchart: &str, set: &Map, problems: &mut Problems) {
    let at = set.get(subchart).and_then(|it| it.at);
    let message = format!("`{subchart}` holds the values of a subchart, and must be a map");
    problems.problem("values", at, message);
}

fn check_authenticator(
    fleet: &Fleet,
    release: &ReleaseConfig,
    enabled: &EnabledChart,
    values: &Node,
    problems: &mut Problems,
) {
    if !fleet.wants(What::Authenticators) || !fleet.is_readable(release) {
        return;
    }
    let Some(hub) = release.hub else { return };
    let values = only_own(fleet, release, values);
    let Some(values) = values.as_map().and_then(hub_values) else {
        return;
    };
    let chart = JupyterHubChart::find(fleet, release, enabled);
    let programs = Programs::find(values, || templates(fleet, enabled));
    if let Some(config) = AuthenticatorConfig::find(values, &hub.name, chart, programs) {
        for rule in authenticator::RULES {
            rule(&config, problems);
        }
    }
}

fn name_is_the_folders(_: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    let name = cluster.yaml.get(&["name"]);
    if let Some(text) = name.and_then(Node::as_text)
        && text != cluster.name
    {
        let message = format!("the name is `{text}`, and the folder is `{}`", cluster.name);
        problems.warning("cluster-name", name.and_then(|it| it.at), message);
    }
}

/// Clusters that are at the place of another one: files that were copied still lead there.
fn one_cluster_twice(fleet: &Fleet) -> Vec<Problem> {
    let is_wanted = [What::Clusters, What::Hubs, What::Support].map(|it| fleet.wants(it));
    if !is_wanted.contains(&true) {
        return Vec::new();
    }
    let clusters = fleet.clusters.iter();
    let places: Vec<_> = clusters
        .map(|it| (it, coordinates::of(&fleet.tree, it)))
        .collect();
    let mut found = Vec::new();
    for (cluster, place) in &places {
        let others = places
            .iter()
            .filter(|(other, at)| place.is_some() && at == place && other.file() != cluster.file());
        let mut problems = fleet.problems(Some(cluster), cluster.at());
        for (other, _) in others.filter(|_| fleet.is_selected(cluster)) {
            same_cluster(cluster, other, &mut problems);
        }
        found.extend(problems.found);
    }
    found
}

/// Adds that another cluster.yaml leads to the same cluster.
fn same_cluster(cluster: &Cluster, other: &Cluster, problems: &mut Problems) {
    let at = cluster.yaml.get(&["provider"]).and_then(|it| it.at);
    let file = other.file();
    let file = file.display();
    let mut common = other.releases();
    common.retain(|it| cluster.releases().contains(it));
    if common.is_empty() {
        let message = format!(
            "`{file}` leads to the same cluster: if one is a copy of the other, it has yet to name its own"
        );
        problems.warning("same-cluster", at, message);
    } else {
        let common = list(common);
        let message = format!(
            "`{file}` leads to the same cluster, and both have {common} there: a deploy of one would replace what the \
             other has deployed. If one is a copy of the other, it has yet to name its own cluster"
        );
        problems.problem("same-cluster", at, message);
    }
}

/// Staging hubs are upgraded before the others of their cluster.
fn staging_before_prod(_: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    if cluster.hubs.len() > 1 && !cluster.hubs.iter().any(Hub::is_staging) {
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

/// What cluster.yaml logs in with.
fn keys_are_encrypted(fleet: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    let Some(key) = KeyFile::of(cluster) else {
        return;
    };
    let file = key.read(&fleet.tree);
    for problem in key.problems(&fleet.tree, &file) {
        problems.problem("key", key.at, problem);
    }
    // By its name it may be among the files that are checked for this already.
    let is_checked = fleet.unlisted(cluster).any(|(path, _)| path == key.path);
    if let ValuesContent::Encrypted(encrypted) = &file.state
        && !is_checked
        && let Some(message) = fleet
            .recipients
            .difference(&fleet.tree, key.path, &encrypted.sops)
    {
        let message = format!("`{}`: {message}", key.path.display());
        problems.problem("recipients", key.at, message);
    }
}

fn values_files_are_listed(fleet: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    if !fleet.is_whole() {
        return;
    }
    for (path, file) in fleet.unlisted(cluster) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.contains("values") && !fleet.is_imported(path) {
            let at = Place::start_of(file.number);
            let message = "no hub and no `support` lists this values file";
            problems.warning("unlisted-file", Some(at), message);
        }
    }
}

fn chart_exists(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    let chart = release.chart.folder.display();
    let message = match fleet.tree.find(&release.chart.chart_yaml()) {
        Ok(Some(found)) if found.kind == Kind::File => return,
        Ok(_) => format!(
            "{}: there is no chart in `{chart}`{}",
            release.shown(),
            chart_meant(fleet, &release.chart.folder)
        ),
        Err(err) => format!("{}: `{chart}/Chart.yaml`: {err:#}", release.shown()),
    };
    problems.problem("chart-exists", None, message);
}

fn override_exists(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    let Some(file) = &release.chart.chart_override else {
        return;
    };
    let why = match fleet.tree.find(file) {
        Ok(Some(found)) if found.kind == Kind::File => return,
        Ok(Some(_)) => "is not a file".to_owned(),
        Ok(None) => fleet.tree.missing().to_owned(),
        Err(err) => format!("cannot be read: {err:#}"),
    };
    let mut message = format!("{}: `{}` {why}", release.shown(), file.display());
    if file.parent() != Some(&release.cluster.dir) {
        message += "; with a `/`, `chart_override` is a path from the root";
    }
    problems.problem("file-exists", release.override_at, message);
}

/// The end of a message about a chart that is not there: the folder beside it that is probably meant.
fn chart_meant(fleet: &Fleet, chart: &Path) -> String {
    let folder = chart.parent().unwrap_or(Path::new(""));
    let folders = fleet.tree.children(folder).unwrap_or_default();
    let folders: Vec<_> = folders.iter().filter_map(|it| it.to_str()).collect();
    let name = chart.file_name().and_then(OsStr::to_str);
    did_you_mean(name.and_then(|it| nearest(it, folders)))
}

fn files_are_listed_once(_: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    // One that its chart has may be listed once more, so that it wins over others.
    let by_hand = release.listed.iter().filter(|(_, at)| at.is_some());
    for (path, at) in by_hand {
        if !seen.insert(path) {
            let message = format!("{}: `{}` is listed twice", release.shown(), path.display());
            problems.problem("listed-once", *at, message);
        }
    }
}

/// The end of a message about a file that cannot be read.
const NOT_MISSED: &str = "; keys that it may set are not reported as missing";

fn files_can_be_read(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    for (_, at, file) in fleet.files_of(release) {
        match &file.state {
            ValuesContent::Unreadable(why) => {
                let message = format!("{}: {why}{NOT_MISSED}", release.shown());
                problems.problem("file-exists", at, message);
            }
            ValuesContent::Broken(finding) => {
                let message = format!("{}{NOT_MISSED}", finding.message);
                let finding = Finding {
                    message,
                    ..finding.clone()
                };
                problems.finding(file.number, &finding);
            }
            ValuesContent::Plain(values, findings) => {
                let mut findings: Vec<_> = findings.iter().collect();
                findings.retain(|it| quotes::may_be_followed(fleet, release, values, it));
                for finding in findings {
                    problems.finding(file.number, finding);
                }
            }
            ValuesContent::Encrypted(encrypted) => {
                for finding in &encrypted.findings_of_values {
                    problems.finding(file.number, finding);
                }
                values_are_readable(encrypted.form, file.number, problems);
            }
            // An exposed file is told by another rule, and what is in jsonnet was evaluated, or is told here as unreadable.
            ValuesContent::Exposed | ValuesContent::Jsonnet => {}
        }
    }
}

/// Adds that helm cannot read the form of an encrypted file, or we cannot without decrypting it.
fn values_are_readable(form: Form, file: u32, problems: &mut Problems) {
    let at = Some(Place::start_of(file));
    match form {
        Form::Yaml | Form::Json => {}
        Form::Binary => {
            let message = "sops encrypted this file as one text, since its name ends in neither `.yaml` nor `.json`: its \
                           keys cannot be checked";
            problems.warning(NOT_CHECKED, at, message);
        }
        Form::Dotenv | Form::Ini => {
            let form = form.name();
            let message = format!(
                "this is the {form} form of sops, and helm takes values only as YAML or JSON"
            );
            problems.problem("values-form", at, message);
        }
    }
}

fn secrets_are_encrypted(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    for (path, _, file) in fleet.files_of(release) {
        secret_is_encrypted(fleet, path, file, problems);
    }
}

fn secret_is_encrypted(fleet: &Fleet, path: &Path, file: &ValuesFile, problems: &mut Problems) {
    let at = Some(Place::start_of(file.number));
    match &file.state {
        ValuesContent::Exposed => {
            let remedy = if is_jsonnet(path) {
                "write it as YAML and encrypt that: what evaluates jsonnet gets no secrets"
                    .to_owned()
            } else {
                format!("`sops encrypt --in-place {}`", path.display())
            };
            let message = format!(
                "this is called secret and isn't what sops writes: it has no `sops` block. If it was ever committed or \
                 shared, take its content as leaked and replace it where it came from; then {remedy}"
            );
            problems.problem("not-encrypted", at, message);
        }
        ValuesContent::Encrypted(encrypted) => {
            for finding in &encrypted.findings {
                problems.finding(file.number, finding);
            }
            let sops = &encrypted.sops;
            if let Some(message) = fleet.recipients.difference(&fleet.tree, path, sops) {
                problems.problem("recipients", at, message);
            }
        }
        ValuesContent::Broken(finding) if is_called_secret(path) => {
            problems.finding(file.number, finding);
        }
        _ => {}
    }
}

/// Texts that are keys by their form, whatever the file is called, and those that look like secrets. They aren't shown.
fn no_secrets_in_plain_text(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    for (path, _, file) in fleet.files_of(release) {
        if let ValuesContent::Plain(values, _) = &file.state {
            let is_made = is_jsonnet(path);
            values.visit_texts(&mut Vec::new(), &mut |path, text, at| {
                plain_secret(path, text, at, is_made, problems);
            });
        }
    }
}

/// A text below these keys. Where jsonnet made it, its place may not tell which one it is.
fn plain_secret(
    path: &[&str],
    text: &str,
    at: Option<Place>,
    is_made: bool,
    problems: &mut Problems,
) {
    const REMEDY: &str = "replace it where it came from, and keep the new one in an encrypted file";
    let key = path.last().copied().unwrap_or_default();
    let whole = is_made.then(|| format!("`{}`", path.join(".")));
    if let Some(what) = kind_of_secret(text) {
        let name = whole.unwrap_or_else(|| "this".to_owned());
        let message = format!("{name} looks like {what}: {REMEDY}");
        problems.problem("plain-secret", at, message);
    } else if looks_secret(key, text) {
        let name = whole.unwrap_or_else(|| format!("`{key}`"));
        let message = format!("{name} looks like a secret: if it is one, {REMEDY}");
        problems.warning("plain-secret", at, message);
    }
}

/// Checks what a deploy is about before anything is touched, as far as the charts are in the cache. The error has all
/// problems. `retrieve` gets the schemas that others refer to. Returns also whether anything could not be checked.
pub(crate) fn before_deploy(
    sh: &Shell,
    fleet: Fleet,
    retrieve: Retriever,
) -> Result<(Fleet, bool)> {
    let fleet = fleet.with_charts(retrieve);
    let found = once(check(&fleet, sh), false);
    let is_unchecked = found.iter().any(|it| it.rule == NOT_CHECKED);
    let problems: Vec<_> = found
        .into_iter()
        .filter(|it| it.level == Level::Problem)
        .collect();
    if !problems.is_empty() {
        let size = fleet.size();
        let count = count(problems.len(), 0);
        bail!("{}\n{size}: {count}", text(&problems).trim_end());
    }
    Ok((fleet, is_unchecked))
}
