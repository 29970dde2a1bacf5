//! Reading cluster.yaml files, and what is wrong in them.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    iter,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    thread,
};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use serde::Deserialize;

use crate::{
    machine::{
        name::Name,
        paths::{self, CLUSTERS},
        terminal::{did_you_mean, hint_of_name, list, nearest},
        tree::{Found, Kind, Tree},
    },
    repository::{
        cluster::{
            Architecture, Aws, Azure, Cluster, Gcp, Hub, Nodes, Paused, Provider, RegistryLogin,
            SHARED, Support, provider_meant,
        },
        kubernetes_version::Kubernetes,
        pauses,
        problem::{Problem, Problems, text},
        retired_keys,
    },
    schema::Schema,
    yaml::{self, Data, Files, Finding, Node, Place},
};

impl Cluster {
    /// Reads and checks the cluster.yaml in the folder `name`, somewhere in `config/clusters/`.
    pub(crate) fn load(tree: &Tree, name: &str) -> Result<Cluster> {
        let files = files(tree)?;
        let file = only_file(&files, name)?;
        let (cluster, findings) = read(tree, file, 0);
        cluster.ok_or_else(|| unusable(file, &findings))
    }

    /// All clusters that can be used, sorted by name, for a command that goes on without the others: each of those is a
    /// warning. An error if there is no other.
    pub(crate) fn usable(tree: &Tree) -> Result<Vec<Cluster>> {
        let (clusters, unusable) = Cluster::all(tree)?;
        if clusters.is_empty() {
            bail!(no_other(&unusable));
        }
        for cluster in &unusable {
            say!("warning: {}", cluster.left_out());
        }
        Ok(clusters)
    }

    /// All clusters, sorted by name: those that can be used, and the others.
    pub(crate) fn all(tree: &Tree) -> Result<(Vec<Cluster>, Vec<UnusableCluster>)> {
        let files = files(tree)?;
        let mut clusters = Vec::new();
        let mut unusable = Vec::new();
        for (file, (cluster, findings)) in files.iter().zip(read_all(tree, &files)) {
            match cluster {
                Some(cluster) => clusters.push(cluster),
                None => unusable.push(UnusableCluster::new(file, &findings)),
            }
        }
        clusters.sort_by(|a, b| a.name.cmp(&b.name));
        unusable.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((clusters, unusable))
    }
}

/// An error with the problems of clusters where there is no other to go on with.
pub(crate) fn no_other(unusable: &[UnusableCluster]) -> Error {
    let lines: String = unusable.iter().map(|it| text(&it.problems)).collect();
    anyhow!("{}", lines.trim_end())
}

/// A cluster whose cluster.yaml has problems, of which nothing else is known.
pub(crate) struct UnusableCluster {
    pub(crate) name: String,
    /// At least one.
    pub(crate) problems: Vec<Problem>,
}

impl UnusableCluster {
    fn new(file: &Path, findings: &[Finding]) -> UnusableCluster {
        let name = folder_name(file);
        let mut files = Files::default();
        let number = files.add(file);
        let mut problems = Problems {
            files: &files,
            cluster: Some(name),
            hub: None,
            at: Place::start_of(number),
            found: Vec::new(),
        };
        for finding in findings.iter().filter(|it| !it.is_warning) {
            problems.finding(number, finding);
        }
        problems.found.sort_by_key(|it| (it.line, it.column));
        UnusableCluster {
            // It may be no name, and have several lines.
            name: name.escape_debug().to_string(),
            problems: problems.found,
        }
    }

    /// That the others go on without it, and why.
    pub(crate) fn left_out(&self) -> String {
        let lines = text(&self.problems);
        format!("cluster `{}` is left out:\n{}", self.name, lines.trim_end())
    }
}

/// The names of all clusters, for completion: what cannot be read has none.
pub(crate) fn names(tree: &Tree) -> Vec<String> {
    let files = files(tree).unwrap_or_default();
    let names: BTreeSet<_> = files.iter().map(|it| folder_name(it)).collect();
    names.into_iter().filter_map(plain_name).collect()
}

/// The names of a cluster's hubs, and those of all its releases, for completion: what cannot be read has none.
pub(crate) fn names_of_releases(tree: &Tree, cluster: &str) -> (Vec<String>, Vec<String>) {
    let content = files(tree).and_then(|it| tree.read(only_file(&it, cluster)?));
    let Ok((yaml, _)) = yaml::read(&content.unwrap_or_default(), 0) else {
        return Default::default();
    };
    let hubs = yaml.get(&["hubs"]).and_then(Node::as_list);
    let hubs = hubs.unwrap_or_default().iter();
    let hubs: Vec<_> = hubs
        .filter_map(|it| plain_name(it.text(&["name"])?))
        .collect();
    let mut releases = hubs.clone();
    if yaml.get(&["support"]).is_some() {
        releases.extend(SHARED.map(str::to_owned));
    }
    (hubs, releases)
}

/// A name that a shell takes as it is.
fn plain_name(name: &str) -> Option<String> {
    Name::new(name).ok().map(|it| it.to_string())
}

/// What `read` returns for each of these files, side by side: a fleet has many of them.
fn read_all(tree: &Tree, files: &[PathBuf]) -> Vec<(Option<Cluster>, Vec<Finding>)> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let share = files.len().div_ceil(cores).max(1);
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for files in files.chunks(share) {
            workers.push(scope.spawn(move || {
                let read: Vec<_> = files.iter().map(|file| read(tree, file, 0)).collect();
                read
            }));
        }
        let joined = workers
            .into_iter()
            .map(|it| it.join().expect("parsing does not panic"));
        joined.flatten().collect()
    })
}

/// The one cluster.yaml among these that is in a folder of this name.
pub(crate) fn only_file<'a>(files: &'a [PathBuf], name: &str) -> Result<&'a Path> {
    let named: Vec<_> = files.iter().filter(|it| folder_name(it) == name).collect();
    match named[..] {
        [file] => Ok(file),
        [] => {
            let known: BTreeSet<_> = files.iter().map(|it| folder_name(it)).collect();
            let hint = hint_of_name(nearest(name, known.iter().copied()));
            bail!(
                "there is no cluster `{name}` in `{CLUSTERS}/`; there are: {}{hint}",
                list(known)
            )
        }
        _ => bail!(
            "there is more than one cluster `{name}`: {}",
            list(named.iter().map(|it| it.display()))
        ),
    }
}

/// What the file that describes a cluster is called.
pub(crate) const CLUSTER_YAML: &str = "cluster.yaml";

/// Folders that have no clusters: one for new ones, and git's own in a submodule or a clone.
const NO_CLUSTERS: [&str; 2] = ["templates", ".git"];

/// The cluster.yaml files by their paths from the root, sorted. Those below a folder called `templates` are no clusters.
/// Misspelt ones are among them, if there is no other in their folder: `read` says what is wrong with them.
pub(crate) fn files(tree: &Tree) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(CLUSTERS)];
    while let Some(folder) = folders.pop() {
        let shown = folder.display();
        let real = tree.find(&folder).with_context(|| format!("`{shown}`"))?;
        let names = tree.children(&folder);
        let names = names.with_context(|| format!("cannot look through `{shown}`"))?;
        let has_cluster = names.iter().any(|it| it == CLUSTER_YAML);
        for name in names {
            let path = folder.join(&name);
            if name == CLUSTER_YAML || !has_cluster && is_misspelt(&name) {
                files.push(path);
            } else if !NO_CLUSTERS.iter().any(|it| name == *it) {
                let found = folder_at(tree, &path)?;
                if found.is_some_and(|it| !holds(&it, real.as_ref())) {
                    folders.push(path);
                }
            }
        }
    }
    ensure!(
        !files.is_empty(),
        "there is no cluster: no folder in `{CLUSTERS}/` has a `{CLUSTER_YAML}`\n\
         hint: \"Adding a cluster\" in the deployer's README.md shows one"
    );
    files.sort();
    Ok(files)
}

/// Whether a file is called nearly like a cluster.yaml.
fn is_misspelt(name: &OsStr) -> bool {
    let names = [CLUSTER_YAML, "cluster.yml"];
    names.iter().any(|it| name.eq_ignore_ascii_case(it))
}

/// What a path leads to, if that is a folder. An error if the folder may not be read; whatever else is there is no matter.
fn folder_at(tree: &Tree, path: &Path) -> Result<Option<Found>> {
    match tree.find(path) {
        Err(err) if tree.root().join(path).is_dir() => {
            Err(err).with_context(|| format!("`{}`", path.display()))
        }
        found => Ok(found.ok().flatten().filter(|it| it.kind == Kind::Folder)),
    }
}

/// Whether a folder is a link to one that the other folder is in: who follows it never comes to an end.
fn holds(found: &Found, other: Option<&Found>) -> bool {
    other.is_some_and(|it| found.holds(&it.path))
}

/// The name of the cluster whose cluster.yaml this is.
pub(crate) fn folder_name(file: &Path) -> &str {
    file.parent()
        .and_then(Path::file_name)
        .and_then(|it| it.to_str())
        .unwrap_or("?")
}

/// An error with all problems of a cluster.yaml, each with its place.
pub(crate) fn unusable(file: &Path, findings: &[Finding]) -> Error {
    let problems = UnusableCluster::new(file, findings).problems;
    anyhow!("{}", text(&problems).trim_end())
}

/// Reads and checks a cluster.yaml, which gets this number in its places. Returns the cluster, if nothing is wrong with
/// it, and all that is to be said of it.
pub(crate) fn read(tree: &Tree, file: &Path, number: u32) -> (Option<Cluster>, Vec<Finding>) {
    if let Err(err) = Name::new(folder_name(file)) {
        let message = format!("the folder's name is the cluster's: {err:#}");
        return (None, vec![Finding::problem("cluster-name", None, message)]);
    }
    if file.file_name().is_some_and(|it| it != CLUSTER_YAML) {
        let message = format!("this is not read: a cluster's file is called `{CLUSTER_YAML}`");
        return (None, vec![Finding::problem("cluster-yaml", None, message)]);
    }
    let content = match tree.read(file) {
        Ok(content) => content,
        Err(err) => return (None, vec![broken(format!("{err:#}"))]),
    };
    let (yaml, mut findings) = match yaml::read(&content, number) {
        Ok(read) => read,
        Err(finding) => return (None, vec![finding]),
    };
    findings.retain(|it| may_be_followed(it, &yaml));
    findings.extend(schema_problems(&yaml));
    findings.extend(doubled_names(&yaml));
    findings.extend(pauses::unreadable(&yaml));
    if findings.iter().any(|it| !it.is_warning) {
        return (None, findings);
    }
    let parsed: ClusterYaml = match serde_json::from_value(yaml.to_json()) {
        Ok(parsed) => parsed,
        Err(err) => return (None, vec![broken(err.to_string())]),
    };
    findings.extend(wrong_gates(&parsed.hubs, &yaml));
    if findings.iter().any(|it| !it.is_warning) {
        return (None, findings);
    }
    // Only `validate` shows these: the cluster can be used.
    findings.extend(pauses::over(&yaml));
    (Some(parsed.into_cluster(file, yaml)), findings)
}

fn broken(message: String) -> Finding {
    Finding::problem("yaml", None, message)
}

#[derive(Deserialize)]
struct ClusterYaml {
    provider: String,
    #[serde(default)]
    kubernetes: Kubernetes,
    kubeconfig: Option<KubeconfigSection>,
    local: Option<LocalSection>,
    gcp: Option<Gcp>,
    aws: Option<Aws>,
    azure: Option<Azure>,
    support: Option<Support>,
    wave: Option<u8>,
    paused: Option<Paused>,
    #[serde(default)]
    architecture: Architecture,
    registry: Option<RegistryLogin>,
    #[serde(default)]
    hubs: Vec<Hub>,
}

#[derive(Deserialize)]
struct KubeconfigSection {
    file: PathBuf,
}

#[derive(Deserialize)]
struct LocalSection {
    nodes: Option<Nodes>,
}

impl ClusterYaml {
    /// The cluster whose file this is. Its paths are made plain here, and lead from the root: nobody is shown `../`.
    fn into_cluster(mut self, file: &Path, yaml: Node) -> Cluster {
        let dir = file.parent().expect("cluster.yaml lies in a folder");
        for file in self.files() {
            *file = paths::lexical(&dir.join(&*file));
        }
        for (index, hub) in self.hubs.iter_mut().enumerate() {
            hub.index = index;
        }
        let provider = match self.provider.as_str() {
            "gcp" => self.gcp.map(Provider::Gcp),
            "aws" => self.aws.map(Provider::Aws),
            "azure" => self.azure.map(Provider::Azure),
            "kubeconfig" => self.kubeconfig.map(|it| Provider::Kubeconfig(it.file)),
            _ => Some(Provider::Local(self.local.and_then(|it| it.nodes))),
        };
        Cluster {
            name: folder_name(file).to_owned(),
            dir: dir.to_owned(),
            provider: provider.expect("the schema requires each provider's own keys"),
            kubernetes: self.kubernetes,
            support: self.support,
            wave: self.wave.unwrap_or(1),
            paused: self.paused,
            architecture: self.architecture,
            registry: self.registry,
            hubs: self.hubs,
            yaml,
        }
    }

    /// All paths that it names.
    fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let keys = [
            self.kubeconfig.as_mut().map(|it| &mut it.file),
            self.gcp.as_mut().and_then(|it| it.key.as_mut()),
            self.aws.as_mut().and_then(|it| it.key.as_mut()),
            self.azure.as_mut().and_then(|it| it.key.as_mut()),
        ];
        let support = self.support.iter_mut();
        let support = support.flat_map(|it| &mut it.helm_chart_values_files);
        let hubs = self.hubs.iter_mut().flat_map(|it| {
            let values = it.helm_chart_values_files.iter_mut();
            let images = it.images.iter_mut().flat_map(|it| {
                let registry = it.registry.as_mut().and_then(RegistryLogin::file_mut);
                iter::once(&mut it.path).chain(registry)
            });
            values.chain(&mut it.domain_override_file).chain(images)
        });
        let registry = self.registry.as_mut().and_then(RegistryLogin::file_mut);
        let keys = keys.into_iter().flatten().chain(registry);
        keys.chain(support).chain(hubs)
    }
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let schema = serde_json::from_str(include_str!("../../../config/cluster.schema.json"));
    let schema = schema.expect("config/cluster.schema.json was JSON when this was compiled");
    let Ok(schema) = Schema::compile(schema, Arc::new(|_| None)) else {
        unreachable!("config/cluster.schema.json was right when this was compiled")
    };
    schema
});

/// Whether the schema takes a text where a finding wants something quoted.
fn may_be_followed(finding: &Finding, yaml: &Node) -> bool {
    let Some(text) = &finding.unquoted else {
        return true;
    };
    let path = yaml
        .path_to(finding.line, finding.column)
        .unwrap_or_default();
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    path.is_empty() || SCHEMA.takes_text(yaml, &path, text)
}

/// What in a cluster.yaml is not as its schema has it.
fn schema_problems(yaml: &Node) -> Vec<Finding> {
    let mut faults = SCHEMA.check(yaml);
    let mut problems = Vec::from_iter(retired_keys::take(&mut faults, yaml));
    for fault in faults {
        let mut message = place(yaml, &fault.path) + &fault.message;
        if fault.path == ["provider"] {
            let meant = yaml.text(&["provider"]).and_then(provider_meant);
            message += &did_you_mean(meant);
        }
        let kubernetes = yaml.get(&["kubernetes"]).map(|it| &it.data);
        if fault.path == ["kubernetes"] && matches!(kubernetes, Some(Data::Number(_))) {
            message += ": put it in quotes, since YAML reads 1.30 as 1.3";
        }
        let at = fault.place(yaml);
        problems.push(Finding::problem("cluster-schema", at, message));
    }
    problems
}

/// Hubs of one name.
fn doubled_names(yaml: &Node) -> Vec<Finding> {
    let hubs = yaml.get(&["hubs"]).and_then(Node::as_list);
    let names = hubs
        .unwrap_or_default()
        .iter()
        .filter_map(|it| it.get(&["name"]));
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for name in names {
        let Some(text) = name.as_text() else { continue };
        if !seen.insert(text) {
            let message = format!("two hubs are named `{text}`, and would share a namespace");
            problems.push(Finding::problem("hub-names", name.at, message));
        }
    }
    problems
}

/// Gates that do not name a staging hub, or hold back one.
fn wrong_gates(hubs: &[Hub], yaml: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, hub) in hubs.iter().enumerate() {
        for (nth, gate) in hub.gates.iter().flatten().enumerate() {
            if let Some(wrong) = wrong_gate(hub, gate, hubs) {
                let path = ["hubs", &index.to_string(), "gates", &nth.to_string()];
                let at = yaml.get(&path).and_then(|it| it.at);
                let message = format!("hub `{}`: `gates`: {wrong}", hub.name);
                findings.push(Finding::problem("gates", at, message));
            }
        }
    }
    findings
}

fn wrong_gate(hub: &Hub, gate: &str, hubs: &[Hub]) -> Option<String> {
    if hub.is_staging() {
        return Some("it is a staging hub itself, and waits for none".to_owned());
    }
    let staging = hubs.iter().filter(|it| it.is_staging());
    let names: Vec<_> = staging.map(|it| it.name.as_str()).collect();
    (!names.contains(&gate)).then(|| {
        let names = list(names);
        format!("no staging hub of this cluster is called `{gate}`; there are: {names}")
    })
}

/// `hubs.1.domain` as "hub `prod`: `domain`: ".
fn place(yaml: &Node, path: &[String]) -> String {
    let mut steps = path;
    let mut place = String::new();
    if let [hubs, index, rest @ ..] = path
        && hubs == "hubs"
    {
        place = match yaml.text(&["hubs", index, "name"]) {
            Some(name) => format!("hub `{name}`: "),
            None => {
                let index: usize = index.parse().unwrap_or_default();
                format!("hub number {}: ", index + 1)
            }
        };
        steps = rest;
    }
    if !steps.is_empty() {
        place += &format!("`{}`: ", steps.join("."));
    }
    place
}
