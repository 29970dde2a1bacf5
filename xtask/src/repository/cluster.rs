//! `config/clusters/NAME/cluster.yaml` as types.

use std::{
    collections::BTreeSet,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    thread,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{
    machine::{paths, terminal::list},
    schema::Schema,
    yaml::{self, Finding, Node, Place},
};

/// One cluster and its hubs.
///
/// config/cluster.schema.json, compiled in, says which keys there are and refuses others; the types here hold
/// the ones that a command reads.
pub(crate) struct Cluster {
    /// The name of the folder, which is what people type.
    pub(crate) name: String,
    /// `config/clusters/NAME` from the root.
    pub(crate) dir: PathBuf,
    pub(crate) provider: Provider,
    pub(crate) support: Option<Support>,
    /// In the file's order.
    pub(crate) hubs: Vec<Hub>,
    /// cluster.yaml itself, which says where each of these stands.
    pub(crate) yaml: Node,
}

/// How to log in.
pub(crate) enum Provider {
    /// The rehearsal cluster, and what its nodes must be, if that matters.
    Local(Option<Nodes>),
    /// The path of a kubeconfig from the root.
    Kubeconfig(PathBuf),
    Gcp(Gcp),
    Aws(Aws),
    Azure(Azure),
}

/// A cluster of Google Kubernetes Engine. `key`, here and below, is the path of the key file from the root.
#[derive(Deserialize)]
pub(crate) struct Gcp {
    pub(crate) key: Option<PathBuf>,
    pub(crate) project: String,
    pub(crate) cluster: String,
    /// Or a region.
    pub(crate) zone: Option<String>,
    pub(crate) region: Option<String>,
}

/// A cluster of Amazon's EKS.
#[derive(Deserialize)]
pub(crate) struct Aws {
    pub(crate) key: Option<PathBuf>,
    #[serde(rename = "clusterName")]
    pub(crate) cluster: String,
    pub(crate) region: String,
}

/// A cluster of Azure's AKS.
#[derive(Deserialize)]
pub(crate) struct Azure {
    pub(crate) key: Option<PathBuf>,
    pub(crate) resource_group: String,
    pub(crate) cluster: String,
}

/// What a rehearsal cluster's pods run on.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Nodes {
    Simulated,
    Real,
}

#[derive(Deserialize)]
pub(crate) struct Hub {
    /// Of the hub, its namespace and its Helm release.
    pub(crate) name: String,
    pub(crate) domain: String,
    /// Relative to the cluster's folder.
    pub(crate) domain_override_file: Option<PathBuf>,
    helm_chart: String,
    pub(crate) chart_override: Option<String>,
    /// Relative to the cluster's folder; the last one wins.
    pub(crate) helm_chart_values_files: Vec<PathBuf>,
    stage: Option<Stage>,
    /// The staging hubs that have to stand before this one is deployed; all of the cluster's by default.
    pub(crate) gates: Option<Vec<String>>,
    /// Whether a deploy checks its health; it does by default.
    pub(crate) health_check: Option<bool>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Stage {
    Staging,
    Production,
}

/// The chart `support`, and cert-manager before it.
#[derive(Deserialize)]
pub(crate) struct Support {
    /// Relative to the cluster's folder; the last one wins.
    pub(crate) helm_chart_values_files: Vec<PathBuf>,
    #[serde(default = "yes")]
    pub(crate) cert_manager: bool,
}

#[derive(Deserialize)]
struct ClusterYaml {
    provider: String,
    kubeconfig: Option<KubeconfigSection>,
    local: Option<LocalSection>,
    gcp: Option<Gcp>,
    aws: Option<Aws>,
    azure: Option<Azure>,
    support: Option<Support>,
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

impl Support {
    /// The values file of all clusters from the root, if there is one; it comes before a cluster's own.
    pub(crate) fn shared_values(root: &Path) -> Option<PathBuf> {
        let shared = PathBuf::from("helm-charts/support/enc-support.secret.values.yaml");
        root.join(&shared).exists().then_some(shared)
    }
}

impl std::fmt::Display for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Nodes::Simulated => "simulated nodes",
            Nodes::Real => "a real node",
        })
    }
}

impl Hub {
    /// Whether changes are tried on it before others get them: `stage` says it, or else the name.
    pub(crate) fn is_staging(&self) -> bool {
        self.stage
            .map_or_else(|| self.name.contains("staging"), |it| it == Stage::Staging)
    }

    /// Whether that staging hub of its cluster has to stand before this one is deployed.
    pub(crate) fn waits_for(&self, staging: &Hub) -> bool {
        !self.is_staging()
            && self
                .gates
                .as_ref()
                .is_none_or(|gates| gates.contains(&staging.name))
    }

    /// The folder of the chart from the root: `helm-charts/NAME`, or the path that cluster.yaml gives.
    pub(crate) fn chart(&self) -> PathBuf {
        if self.helm_chart.contains('/') {
            PathBuf::from(&self.helm_chart)
        } else {
            Path::new("helm-charts").join(&self.helm_chart)
        }
    }
}

fn yes() -> bool {
    true
}

impl Cluster {
    /// cluster.yaml from the root.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join("cluster.yaml")
    }

    /// The beginning of cluster.yaml.
    pub(crate) fn at(&self) -> Place {
        self.yaml.at.unwrap_or(Place {
            file: 0,
            line: 1,
            column: 1,
        })
    }

    /// Reads and checks the cluster.yaml in the folder `name`, somewhere in `config/clusters/`.
    pub(crate) fn load(root: &Path, name: &str) -> Result<Cluster> {
        let files = files(root)?;
        let named: Vec<_> = files.iter().filter(|it| folder_name(it) == name).collect();
        match named[..] {
            [file] => parse(root, file),
            [] => {
                let known: BTreeSet<_> = files.iter().map(|it| folder_name(it)).collect();
                bail!(
                    "there is no cluster `{name}` in `config/clusters/`; there are: {}",
                    list(known)
                )
            }
            _ => bail!(
                "there is more than one cluster `{name}`: {}",
                list(named.iter().map(|it| it.display()))
            ),
        }
    }

    /// All clusters, sorted. The error has what is wrong with each that can't be read.
    pub(crate) fn all(root: &Path) -> Result<Vec<Cluster>> {
        let files = files(root)?;
        let share = files
            .len()
            .div_ceil(thread::available_parallelism().map_or(1, NonZero::get))
            .max(1);
        let read: Vec<_> = thread::scope(|scope| {
            let workers = files.chunks(share).map(|files| {
                scope.spawn(move || files.iter().map(|it| parse(root, it)).collect::<Vec<_>>())
            });
            let workers: Vec<_> = workers.collect();
            workers
                .into_iter()
                .flat_map(|it| it.join().expect("it doesn't panic"))
                .collect()
        });
        let (good, bad): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
        if !bad.is_empty() {
            let lines: Vec<_> = bad
                .into_iter()
                .filter_map(|it| Some(format!("{:#}", it.err()?)))
                .collect();
            bail!("{}", lines.join("\n"));
        }
        let mut clusters: Vec<_> = good.into_iter().flatten().collect();
        clusters.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(clusters)
    }

    /// As cluster.yaml has it.
    pub(crate) fn provider_name(&self) -> Option<&str> {
        self.yaml.get(&["provider"])?.as_text()
    }

    pub(crate) fn is_local(&self) -> bool {
        matches!(self.provider, Provider::Local(_))
    }

    /// The name of one of its releases: a hub, or what hubs share.
    pub(crate) fn release<'a>(&self, name: &'a str) -> Result<&'a str> {
        let shared = self
            .support
            .iter()
            .flat_map(|_| ["support", "cert-manager"]);
        let known: Vec<_> = self
            .hubs
            .iter()
            .map(|it| it.name.as_str())
            .chain(shared)
            .collect();
        if !known.contains(&name) {
            bail!(
                "cluster `{}` has no hub `{name}`; it has: {}",
                self.name,
                list(known)
            );
        }
        Ok(name)
    }

    /// The hubs of these names, or all of them without names, in the order of cluster.yaml.
    pub(crate) fn select_hubs(&self, names: &[String]) -> Result<Vec<&Hub>> {
        let known: Vec<_> = self.hubs.iter().map(|it| it.name.as_str()).collect();
        let unknown: Vec<_> = names
            .iter()
            .filter(|it| !known.contains(&it.as_str()))
            .collect();
        if !unknown.is_empty() {
            bail!(
                "cluster `{}` has no hub {}; it has: {}",
                self.name,
                list(unknown),
                list(known)
            );
        }
        if self.hubs.is_empty() {
            bail!("cluster `{}` has no hubs", self.name);
        }
        Ok(self
            .hubs
            .iter()
            .filter(|it| names.is_empty() || names.contains(&it.name))
            .collect())
    }
}

/// All clusters whose provider is `local`, by name. What is wrong with another cluster is said, and stops nobody.
pub(crate) fn local_clusters(root: &Path) -> Result<Vec<Cluster>> {
    let mut local = Vec::new();
    for file in files(root)? {
        match parse(root, &file) {
            Ok(cluster) if matches!(cluster.provider, Provider::Local(_)) => local.push(cluster),
            Ok(_) => {}
            Err(err) => say!("warning: {err:#}"),
        }
    }
    Ok(local)
}

/// The cluster.yaml files from the root, sorted. Those below a folder called `templates` aren't clusters.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from("config/clusters")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root.join(&folder));
        for entry in
            entries.with_context(|| format!("cannot look through `{}`", folder.display()))?
        {
            let name = entry?.file_name();
            let path = folder.join(&name);
            let full = root.join(&path);
            if name == "cluster.yaml" {
                files.push(path);
            } else if name != "templates" && full.is_dir() && !paths::leads_back(&full) {
                folders.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn parse(root: &Path, file: &Path) -> Result<Cluster> {
    match read(root, file, 0) {
        (Some(cluster), _) => Ok(cluster),
        (None, mut findings) => {
            findings.sort_by_key(|it| (it.line, it.column));
            let problems = findings.iter().filter(|it| !it.is_warning);
            let lines = problems.map(|it| {
                format!(
                    "{}:{}:{}: {}",
                    file.display(),
                    it.line,
                    it.column,
                    it.message
                )
            });
            bail!("{}", lines.collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Reads and checks a cluster.yaml, which gets this number in its places: the cluster, if nothing is wrong with it, and
/// all that is to be said of it.
pub(crate) fn read(root: &Path, file: &Path, number: u32) -> (Option<Cluster>, Vec<Finding>) {
    let broken = |message: String| Finding::problem("yaml", None, message);
    let content = match yaml::content(&root.join(file)) {
        Ok(content) => content,
        Err(err) => return (None, vec![broken(format!("{err:#}"))]),
    };
    let (yaml, mut findings) = match yaml::read(&content, number) {
        Ok(read) => read,
        Err(finding) => return (None, vec![finding]),
    };
    findings.extend(problems(&yaml));
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
    let dir = file
        .parent()
        .expect("cluster.yaml lies in a folder")
        .to_owned();
    let ClusterYaml {
        kubeconfig,
        local,
        mut gcp,
        mut aws,
        mut azure,
        support,
        hubs,
        ..
    } = parsed;
    let keys = [
        gcp.as_mut().and_then(|it| it.key.as_mut()),
        aws.as_mut().and_then(|it| it.key.as_mut()),
        azure.as_mut().and_then(|it| it.key.as_mut()),
    ];
    keys.into_iter()
        .flatten()
        .for_each(|it| *it = dir.join(&*it));
    let provider = match parsed.provider.as_str() {
        "gcp" => gcp.map(Provider::Gcp),
        "aws" => aws.map(Provider::Aws),
        "azure" => azure.map(Provider::Azure),
        "kubeconfig" => kubeconfig.map(|it| Provider::Kubeconfig(dir.join(it.file))),
        _ => Some(Provider::Local(local.and_then(|it| it.nodes))),
    };
    let provider = provider.expect("the schema requires each provider's own keys");
    (
        Some(Cluster {
            name: folder_name(file).to_owned(),
            dir,
            provider,
            support,
            hubs,
            yaml,
        }),
        findings,
    )
}

/// What in a cluster.yaml isn't as its schema has it, and hubs of one name.
fn problems(yaml: &Node) -> Vec<Finding> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let schema = serde_json::from_str(include_str!("../../../config/cluster.schema.json"));
        let schema = schema.expect("config/cluster.schema.json was JSON when this was compiled");
        let Ok(schema) = Schema::compile(schema, Arc::new(|_| None)) else {
            unreachable!("config/cluster.schema.json was right when this was compiled")
        };
        schema
    });
    let mut problems: Vec<_> = SCHEMA
        .check(yaml)
        .into_iter()
        .map(|it| {
            Finding::problem(
                "cluster-schema",
                it.place(yaml),
                place(yaml, &it.path) + &it.message,
            )
        })
        .collect();
    let hubs = yaml
        .get(&["hubs"])
        .and_then(Node::as_list)
        .unwrap_or_default();
    let mut seen = BTreeSet::new();
    for name in hubs.iter().filter_map(|it| it.get(&["name"])) {
        let Some(text) = name.as_text() else { continue };
        if !seen.insert(text) {
            let message = format!("two hubs are named `{text}`, and would share a namespace");
            problems.push(Finding::problem("hub-names", name.at, message));
        }
    }
    problems
}

/// Gates that don't name a staging hub, or hold back one.
fn wrong_gates(hubs: &[Hub], yaml: &Node) -> Vec<Finding> {
    let staging: Vec<_> = hubs
        .iter()
        .filter(|it| it.is_staging())
        .map(|it| it.name.as_str())
        .collect();
    let mut findings = Vec::new();
    for (index, hub) in hubs.iter().enumerate() {
        for (nth, gate) in hub.gates.iter().flatten().enumerate() {
            let wrong = if hub.is_staging() {
                "it is a staging hub itself, and waits for none".to_owned()
            } else if !staging.contains(&gate.as_str()) {
                format!(
                    "no staging hub of this cluster is called `{gate}`; there are: {}",
                    list(&staging)
                )
            } else {
                continue;
            };
            let path = ["hubs", &index.to_string(), "gates", &nth.to_string()];
            let at = yaml.get(&path).and_then(|it| it.at);
            findings.push(Finding::problem(
                "gates",
                at,
                format!("hub `{}`: `gates`: {wrong}", hub.name),
            ));
        }
    }
    findings
}

/// `hubs.1.domain` as "hub `prod`: `domain`: ".
fn place(yaml: &Node, path: &[String]) -> String {
    let mut steps = path;
    let mut place = String::new();
    if let [hubs, index, rest @ ..] = path
        && hubs == "hubs"
    {
        place = match yaml.get(&["hubs", index, "name"]).and_then(Node::as_text) {
            Some(name) => format!("hub `{name}`: "),
            None => format!(
                "hub number {}: ",
                index.parse().map_or(0, |it: usize| it + 1)
            ),
        };
        steps = rest;
    }
    if !steps.is_empty() {
        place += &format!("`{}`: ", steps.join("."));
    }
    place
}

/// The name of the cluster whose cluster.yaml this is.
pub(crate) fn folder_name(file: &Path) -> &str {
    file.parent()
        .and_then(Path::file_name)
        .and_then(|it| it.to_str())
        .unwrap_or("?")
}
