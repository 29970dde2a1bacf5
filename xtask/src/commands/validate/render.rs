//! Every release's manifests as helm makes them, and what of them a cluster wouldn't take. What was once rendered and
//! looked at isn't again until something of it changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{
    machine::{digest::PartsDigest, parallel, paths, private::PrivateFile, process, programs},
    repository::{
        fleet::{Fleet, ReleaseConfig},
        problem::{Level, Problem, What},
    },
    yaml::{self, Node, split_documents},
};

/// Part of each verdict's name in the cache: one that is found in another way gets another name.
const FORMAT: &str = "1";

/// What the pinned control plane serves, a line `GROUP/VERSION/KIND` for each kind.
const API_VERSIONS: &str = include_str!("api-versions.txt");

/// Groups of Kubernetes that are gone.
const GONE: [&str; 1] = ["extensions"];

/// What `deploy-support` brings besides.
const CERT_MANAGER: &str = "cert-manager.io/v1/";

/// What there is to say of a rendering: whether it's a warning, and what.
type Verdict = Vec<(bool, String)>;

/// A values file as helm gets it: itself, or a file in memory with placeholders for what is encrypted.
enum Input {
    Plain(PathBuf, Vec<u8>),
    Placeholders(PrivateFile, String),
}

/// Renders the releases whose values can be read with their prepared charts.
pub(crate) fn render(
    sh: &Shell,
    fleet: &Fleet,
    prepared: &BTreeMap<PathBuf, Result<PathBuf>>,
) -> Result<Vec<Problem>> {
    let sh = &programs::provide(sh, &["helm"], false)?;
    let helm = process::read(sh, cmd!(sh, "helm version --short"))?;
    let releases = fleet.releases();
    let known = |it: &&ReleaseConfig| {
        let is_config = fleet.wants(if it.hub.is_some() {
            What::Hubs
        } else {
            What::Support
        });
        is_config && fleet.is_readable(it) && matches!(prepared.get(&it.chart), Some(Ok(_)))
    };
    let releases: Vec<_> = releases.iter().filter(known).collect();
    let rendered = parallel::side_by_side(sh, &releases, |sh, release| {
        let Some(Ok(chart)) = prepared.get(&release.chart) else {
            unreachable!("others were left out")
        };
        let mut problems = fleet.problems_of(release);
        let verdict = verdict(sh, fleet, release, chart, &helm)
            .unwrap_or_else(|err| vec![(false, format!("{err:#}"))]);
        for (is_warning, message) in verdict {
            let level = if is_warning {
                Level::Warning
            } else {
                Level::Problem
            };
            problems.add(
                level,
                "render",
                None,
                format!("{}: {message}", release.shown()),
            );
        }
        problems.found
    });
    Ok(rendered.into_iter().flatten().collect())
}

fn verdict(
    sh: &Shell,
    fleet: &Fleet,
    release: &ReleaseConfig,
    chart: &Path,
    helm: &str,
) -> Result<Verdict> {
    let inputs: Vec<Input> = release
        .listed
        .iter()
        .map(|(path, _)| input(fleet, path))
        .collect::<Result<_>>()?;
    let file = paths::cache()?
        .join("rendered")
        .join(key(release, chart, helm, &inputs));
    if let Ok(known) = fs::read(&file)
        && let Ok(verdict) = serde_json::from_slice(&known)
    {
        return Ok(verdict);
    }
    let name = release.name();
    let values = inputs
        .iter()
        .flat_map(|it| [Path::new("--values"), it.path()]);
    // A placeholder has the right type, and no more of what a schema may want.
    let is_encrypted = inputs
        .iter()
        .any(|it| matches!(it, Input::Placeholders(..)));
    let no_schemas = is_encrypted.then_some("--skip-schema-validation");
    let kubernetes = programs::KUBERNETES.to_string();
    let served = served().collect::<Vec<_>>().join(",");
    let cmd = cmd!(
        sh,
        "helm template {name} {chart} --namespace {name} {values...} --include-crds {no_schemas...}
         --kube-version {kubernetes} --api-versions {served}"
    );
    let output = process::run(sh, cmd, b"")?;
    if !output.success {
        let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
        for (input, (path, _)) in inputs.iter().zip(&release.listed) {
            said = said.replace(
                &input.path().display().to_string(),
                &path.display().to_string(),
            );
        }
        let words: Vec<_> = said.split_whitespace().collect();
        return Ok(vec![(
            false,
            format!("helm can't render it: {}", words.join(" ")),
        )]);
    }
    let manifests =
        String::from_utf8(output.stdout).context("helm wrote something that isn't UTF-8")?;
    let verdict = look_at(&manifests, name);
    paths::write_whole(&file, &serde_json::to_vec(&verdict)?)?;
    Ok(verdict)
}

impl Input {
    fn path(&self) -> &Path {
        match self {
            Input::Plain(path, _) => path,
            Input::Placeholders(file, _) => file.path(),
        }
    }

    fn content(&self) -> &[u8] {
        match self {
            Input::Plain(_, content) => content,
            Input::Placeholders(_, text) => text.as_bytes(),
        }
    }
}

fn input(fleet: &Fleet, path: &Path) -> Result<Input> {
    let file = &fleet.values[path];
    if !file.is_encrypted() {
        let full = fleet.root.join(path);
        let content =
            fs::read(&full).with_context(|| format!("cannot read `{}`", path.display()))?;
        return Ok(Input::Plain(full, content));
    }
    let values = Node::nowhere(crate::yaml::Data::Map(
        file.values().cloned().unwrap_or_default(),
    ));
    let text = values.to_json().to_string();
    Ok(Input::Placeholders(
        PrivateFile::new(text.as_bytes())?,
        text,
    ))
}

/// Stands for all that a rendering comes from.
fn key(release: &ReleaseConfig, chart: &Path, helm: &str, inputs: &[Input]) -> String {
    let mut digest = PartsDigest::default();
    let kubernetes = programs::KUBERNETES.to_string();
    let chart = chart.as_os_str().as_encoded_bytes();
    let parts = [FORMAT, helm, &kubernetes, API_VERSIONS, release.name()].map(str::as_bytes);
    for part in parts
        .into_iter()
        .chain([chart])
        .chain(inputs.iter().map(Input::content))
    {
        digest.add(part);
    }
    digest.name()
}

/// Groups with their versions, alone and with each kind, as charts ask for them.
fn served() -> impl Iterator<Item = &'static str> {
    let versions: BTreeSet<_> = API_VERSIONS
        .lines()
        .filter_map(|it| Some(it.rsplit_once('/')?.0))
        .collect();
    versions.into_iter().chain(API_VERSIONS.lines())
}

/// What a cluster wouldn't take of a release's manifests.
fn look_at(manifests: &str, namespace: &str) -> Verdict {
    let mut verdict = Verdict::new();
    let mut resources = Vec::new();
    for document in split_documents(manifests) {
        let source = document
            .lines()
            .find_map(|it| it.strip_prefix("# Source: "))
            .unwrap_or("a template");
        match yaml::read(document.as_bytes(), 0) {
            Ok((node, _)) => resources.extend(flat(node).into_iter().map(|it| (source, it))),
            Err(finding) => verdict.push((
                false,
                format!(
                    "{source}: not YAML in line {} of what is rendered: {}",
                    finding.line, finding.message
                ),
            )),
        }
    }
    let defined = resources.iter().flat_map(|(_, it)| kinds_defined(it));
    let known: BTreeSet<String> = defined
        .chain(API_VERSIONS.lines().map(str::to_owned))
        .collect();
    let mut seen = BTreeSet::new();
    for (source, resource) in &resources {
        let text = |path: &[&str]| {
            resource
                .get(path)
                .and_then(Node::as_text)
                .unwrap_or_default()
        };
        let (version, kind, name) = (
            text(&["apiVersion"]),
            text(&["kind"]),
            text(&["metadata", "name"]),
        );
        if version.is_empty() || kind.is_empty() {
            verdict.push((
                false,
                format!("{source}: a manifest without `apiVersion` or `kind`"),
            ));
            continue;
        }
        if name.is_empty() && text(&["metadata", "generateName"]).is_empty() {
            verdict.push((false, format!("{source}: {kind} has no name")));
        }
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let own = text(&["metadata", "namespace"]);
        let place = if own.is_empty() { namespace } else { own };
        // A hook's resources come and go.
        let is_hook = resource
            .get(&["metadata", "annotations", "helm.sh/hook"])
            .is_some();
        if !is_hook && !name.is_empty() && !seen.insert((group, kind, place, name)) {
            verdict.push((false, format!("{source}: a second {kind} `{name}`")));
        }
        if let Some(said) = unknown(&known, version, group, kind) {
            verdict.push((said.0, format!("{source}: {}", said.1)));
        }
    }
    verdict.sort();
    verdict.dedup();
    verdict
}

/// The resources in a document, which may be a list of them.
fn flat(node: Node) -> Vec<Node> {
    if node.as_map().is_none_or(|it| it.is_empty()) {
        return Vec::new();
    }
    let is_list = node
        .get(&["kind"])
        .and_then(Node::as_text)
        .is_some_and(|it| it.ends_with("List"));
    match node.get(&["items"]).and_then(Node::as_list) {
        Some(items) if is_list => items.iter().cloned().flat_map(flat).collect(),
        _ => vec![node],
    }
}

/// What a CustomResourceDefinition adds to what the cluster serves.
fn kinds_defined(resource: &Node) -> Vec<String> {
    let text = |path: &[&str]| resource.get(path).and_then(Node::as_text);
    if text(&["kind"]) != Some("CustomResourceDefinition") {
        return Vec::new();
    }
    let (Some(group), Some(kind)) = (text(&["spec", "group"]), text(&["spec", "names", "kind"]))
    else {
        return Vec::new();
    };
    let versions = resource
        .get(&["spec", "versions"])
        .and_then(Node::as_list)
        .unwrap_or_default();
    let names = versions
        .iter()
        .filter_map(|it| it.get(&["name"])?.as_text());
    names
        .map(|version| format!("{group}/{version}/{kind}"))
        .collect()
}

/// What to say of a kind that isn't known: nobody but Kubernetes can add to its own groups.
fn unknown(
    known: &BTreeSet<String>,
    version: &str,
    group: &str,
    kind: &str,
) -> Option<(bool, String)> {
    let full = format!("{version}/{kind}");
    if known.contains(&full) || full.starts_with(CERT_MANAGER) {
        return None;
    }
    let is_kubernetes = GONE.contains(&group)
        || API_VERSIONS.lines().any(|it| {
            let (version, _) = it.rsplit_once('/').unwrap_or_default();
            version.split_once('/').map_or("", |(group, _)| group) == group
        });
    let (ours, kubernetes) = (format!("`{version}` {kind}"), programs::KUBERNETES);
    Some(match is_kubernetes {
        true => (false, format!("Kubernetes {kubernetes} has no {ours}")),
        false => (
            true,
            format!("nothing here defines {ours}: the cluster must have it"),
        ),
    })
}
