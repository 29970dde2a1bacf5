//! Renders every release with helm, and checks whether a cluster would take its manifests. The verdict is cached until
//! something that the rendering comes from changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use xshell::{Cmd, Shell, cmd};

use crate::{
    charts::prepare::PreparedCharts,
    kubernetes::helm::{self, Release},
    machine::{digest::digest_of, parallel, paths, private::PrivateFile, process},
    repository::{
        fleet::Fleet,
        kubernetes_version::{self, Kubernetes, group_of},
        problem::{Level, Problem},
        release_config::ReleaseConfig,
        values_file::ValuesFile,
    },
    yaml::{self, Data, Node, split_documents},
};

/// Part of each verdict's name in the cache. It changes when verdicts are found or written in another way.
const FORMAT: &str = "4";

/// The beginning of the kinds that `deploy-support` adds to a cluster.
const CERT_MANAGER: &str = "cert-manager.io/v1/";

/// What there is to say of a rendering.
#[derive(Serialize, Deserialize)]
struct Verdict {
    remarks: Remarks,
    images: Vec<RenderedImage>,
}

/// The annotation of hooks.
const HOOK: [&str; 3] = ["metadata", "annotations", "helm.sh/hook"];

/// What is wrong with a rendering, sorted.
type Remarks = Vec<Remark>;

/// What all releases were rendered to.
#[derive(Default)]
pub(crate) struct Renderings {
    pub(crate) problems: Vec<Problem>,
    /// The images of each release that was rendered, by its path.
    pub(crate) images: BTreeMap<String, Vec<RenderedImage>>,
}

/// The image of a container in a release's manifests.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RenderedImage {
    pub(crate) image: String,
    /// The template that names it.
    pub(crate) source: String,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Remark {
    is_warning: bool,
    message: String,
}

/// A values file as helm gets it, from memory: what was checked, with placeholders for encrypted values.
struct Input {
    file: PrivateFile,
    content: Vec<u8>,
}

/// Renders all selected releases whose values are all known and whose chart is prepared. `sh` has helm.
pub(crate) fn render(sh: &Shell, fleet: &Fleet, prepared: &PreparedCharts) -> Result<Renderings> {
    let helm = process::read(sh, cmd!(sh, "helm version --short"))?;
    let releases = fleet.releases();
    let mut renderings = Vec::new();
    for release in &releases {
        if fleet.wants_config_of(release)
            && fleet.knows_all_of(release)
            && let Some(Ok(chart)) = prepared.get(&release.chart)
        {
            renderings.push(Rendering {
                fleet,
                release,
                chart,
                helm: &helm,
            });
        }
    }
    let verdicts = parallel::side_by_side(sh, &renderings, |sh, it| it.verdict(sh));
    let mut rendered = Renderings::default();
    for (rendering, verdict) in renderings.iter().zip(verdicts) {
        let verdict = verdict.unwrap_or_else(|err| Verdict::refused(format!("{err:#}")));
        rendered
            .problems
            .extend(rendering.problems(verdict.remarks));
        let images = rendered.images.entry(rendering.release.path());
        images.or_default().extend(verdict.images);
    }
    Ok(rendered)
}

/// A release, and what it is rendered with.
struct Rendering<'a> {
    fleet: &'a Fleet,
    release: &'a ReleaseConfig<'a>,
    /// The folder of the prepared chart.
    chart: &'a Path,
    /// The version that helm reports.
    helm: &'a str,
}

impl Rendering<'_> {
    fn problems(&self, remarks: Remarks) -> Vec<Problem> {
        let mut problems = self.fleet.problems_of(self.release);
        for remark in remarks {
            let level = if remark.is_warning {
                Level::Warning
            } else {
                Level::Problem
            };
            let message = format!("{}: {}", self.release.shown(), remark.message);
            problems.add(level, "render", None, message);
        }
        problems.found
    }

    /// The verdict in the cache, or a new one.
    fn verdict(&self, sh: &Shell) -> Result<Verdict> {
        let listed = self.release.listed.iter();
        let inputs: Vec<Input> = listed
            .map(|(path, _)| Input::read(self.fleet.file(self.release, path)))
            .collect::<Result<_>>()?;
        let file = paths::cache()?.join("rendered").join(self.key(&inputs));
        if let Ok(known) = fs::read(&file)
            && let Ok(verdict) = serde_json::from_slice(&known)
        {
            return Ok(verdict);
        }
        let output = process::run(sh, self.template(sh, &inputs), b"")?;
        if !output.success {
            let message = self.message_of_helm(&output.stderr, &inputs);
            return Ok(Verdict::refused(message));
        }
        let verdict = self.judge(output.stdout)?;
        paths::write_whole(&file, &serde_json::to_vec(&verdict)?)?;
        Ok(verdict)
    }

    /// What the release's cluster runs.
    fn kubernetes(&self) -> Kubernetes {
        self.release.cluster.kubernetes
    }

    /// What is wrong with the manifests that helm wrote.
    fn judge(&self, manifests: Vec<u8>) -> Result<Verdict> {
        let manifests =
            String::from_utf8(manifests).context("helm wrote something that is not UTF-8")?;
        Ok(look_at(&manifests, self.release.name(), self.kubernetes()))
    }

    /// The verdict's name in the cache: a hash of everything that the rendering comes from.
    fn key(&self, inputs: &[Input]) -> String {
        let kubernetes = self.kubernetes().to_string();
        let chart = self.chart.as_os_str().as_encoded_bytes();
        let name = self.release.name();
        let table = kubernetes_version::TABLE;
        let parts = [FORMAT, self.helm, &kubernetes, table, name].map(str::as_bytes);
        let contents = inputs.iter().map(|it| it.content.as_slice());
        digest_of(parts.into_iter().chain([chart]).chain(contents))
    }

    fn template<'a>(&self, sh: &'a Shell, inputs: &[Input]) -> Cmd<'a> {
        let mut flags = vec!["--include-crds".to_owned()];
        // A placeholder has the right type, but perhaps not what else a schema wants.
        let mut files = self.release.values_files();
        if files.any(|path| self.fleet.file(self.release, path).is_encrypted()) {
            flags.push("--skip-schema-validation".to_owned());
        }
        let served: Vec<_> = served(self.kubernetes()).into_iter().collect();
        flags.extend(["--api-versions".to_owned(), served.join(",")]);
        let release = Release {
            name: self.release.name(),
            chart: self.chart,
            values: inputs.iter().map(|it| it.file.path().to_owned()).collect(),
            flags: Vec::new(),
        };
        helm::template(sh, &release, &self.kubernetes().to_string(), &flags)
    }

    /// The message of a helm that failed, on one line, with values files as cluster.yaml lists them.
    fn message_of_helm(&self, stderr: &[u8], inputs: &[Input]) -> String {
        let mut message = String::from_utf8_lossy(stderr).into_owned();
        for (input, (path, _)) in inputs.iter().zip(&self.release.listed) {
            let given = input.file.path().display().to_string();
            message = message.replace(&given, &path.display().to_string());
        }
        let words: Vec<_> = message.split_whitespace().collect();
        format!("helm cannot render it: {}", words.join(" "))
    }
}

impl Verdict {
    /// What is not even rendered.
    fn refused(why: String) -> Verdict {
        Verdict {
            remarks: vec![Remark::problem(why)],
            images: Vec::new(),
        }
    }
}

impl Remark {
    fn problem(message: String) -> Remark {
        Remark {
            is_warning: false,
            message,
        }
    }
}

impl Input {
    fn read(file: &ValuesFile) -> Result<Input> {
        let content = if file.is_encrypted() {
            file.placeholders().into_bytes()
        } else {
            file.content.clone()
        };
        Ok(Input {
            file: PrivateFile::new(&content)?,
            content,
        })
    }
}

/// What `.Capabilities.APIVersions` of charts has: `GROUP/VERSION` and `GROUP/VERSION/KIND`.
fn served(kubernetes: Kubernetes) -> BTreeSet<&'static str> {
    let mut served = BTreeSet::new();
    for kind in kubernetes.kinds() {
        let (version, _) = kind.rsplit_once('/').expect("a kind has a version");
        if kubernetes_version::is_on_by_default(version) {
            served.extend([version, kind]);
        }
    }
    served
}

/// A resource in a release's manifests.
struct Resource<'a> {
    /// The template that it comes from.
    source: &'a str,
    node: Node,
}

impl Resource<'_> {
    /// The text at this path; empty if there is none.
    fn text(&self, path: &[&str]) -> &str {
        self.node.text(path).unwrap_or_default()
    }

    fn is_hook(&self) -> bool {
        self.node.get(&HOOK).is_some()
    }

    /// Whether it is there for `helm test` alone.
    fn is_test(&self) -> bool {
        self.text(&HOOK).starts_with("test")
    }
}

/// What a cluster would not take of a release's manifests, and the images that they name.
fn look_at(manifests: &str, namespace: &str, kubernetes: Kubernetes) -> Verdict {
    let mut remarks = Remarks::new();
    let resources = resources(manifests, &mut remarks);
    let defined = resources.iter().flat_map(|it| kinds_defined(&it.node));
    let known = KnownKinds {
        kubernetes,
        own: kubernetes.kinds().collect(),
        defined: defined.collect(),
    };
    let mut seen = BTreeSet::new();
    let mut images = BTreeSet::new();
    for resource in &resources {
        for mut remark in remarks_of(resource, namespace, &known, &mut seen) {
            remark.message = format!("{}: {}", resource.source, remark.message);
            remarks.push(remark);
        }
        if !resource.is_test() {
            add_images(&resource.node, resource.source, &mut images);
        }
    }
    remarks.sort();
    remarks.dedup();
    Verdict {
        remarks,
        images: images.into_iter().collect(),
    }
}

/// Adds the images of all containers in a resource, whatever its kind is.
fn add_images(node: &Node, source: &str, images: &mut BTreeSet<RenderedImage>) {
    for item in node.as_list().into_iter().flatten() {
        add_images(item, source, images);
    }
    for (key, below) in node.as_map().into_iter().flatten() {
        let are_containers = ["containers", "initContainers"].contains(&&**key);
        let containers = below.as_list().filter(|_| are_containers);
        let named = containers.into_iter().flatten();
        images.extend(
            named
                .filter_map(|it| it.text(&["image"]))
                .map(|image| RenderedImage {
                    image: image.to_owned(),
                    source: source.to_owned(),
                }),
        );
        add_images(below, source, images);
    }
}

/// The resources of all documents. Those that are not YAML are added to the remarks.
fn resources<'a>(manifests: &'a str, remarks: &mut Remarks) -> Vec<Resource<'a>> {
    let mut resources = Vec::new();
    for document in split_documents(manifests) {
        let mut lines = document.lines();
        let source = lines
            .find_map(|it| it.strip_prefix("# Source: "))
            .unwrap_or("a template");
        match yaml::read(document.as_bytes(), 0) {
            Ok((node, _)) => {
                let nodes = flat(node).into_iter();
                resources.extend(nodes.map(|node| Resource { source, node }));
            }
            Err(finding) => remarks.push(Remark::problem(format!(
                "{source}: not YAML in line {} of what is rendered: {}",
                finding.line, finding.message
            ))),
        }
    }
    resources
}

/// What is wrong with a resource. `seen` has the group, kind, namespace and name of those before it.
fn remarks_of<'a>(
    resource: &'a Resource,
    namespace: &'a str,
    known: &KnownKinds,
    seen: &mut BTreeSet<[&'a str; 4]>,
) -> Remarks {
    let version = resource.text(&["apiVersion"]);
    let kind = resource.text(&["kind"]);
    let name = resource.text(&["metadata", "name"]);
    if version.is_empty() || kind.is_empty() {
        let message = "a manifest without `apiVersion` or `kind`";
        return vec![Remark::problem(message.to_owned())];
    }
    let mut remarks = Vec::new();
    if name.is_empty() && resource.text(&["metadata", "generateName"]).is_empty() {
        remarks.push(Remark::problem(format!("{kind} has no name")));
    }
    let own = resource.text(&["metadata", "namespace"]);
    let namespace = if own.is_empty() { namespace } else { own };
    let identity = [group_of(version), kind, namespace, name];
    // Hooks may share a name, since each one is deleted before the next one runs.
    if !resource.is_hook() && !name.is_empty() && !seen.insert(identity) {
        remarks.push(Remark::problem(format!("a second {kind} `{name}`")));
    }
    remarks.extend(known.remark(version, kind));
    remarks
}

/// The resources of a document, which may be a list of them.
fn flat(node: Node) -> Vec<Node> {
    if node.as_map().is_none_or(|it| it.is_empty()) {
        return Vec::new();
    }
    let kind = node.text(&["kind"]);
    let kind = kind.and_then(|it| it.strip_suffix("List"));
    let items = node.get(&["items"]).and_then(Node::as_list);
    let (Some(kind), Some(items)) = (kind, items) else {
        return vec![node];
    };
    let version = node.get(&["apiVersion"]);
    let items = items.iter().map(|it| item_of(kind, version, it));
    items.flat_map(flat).collect()
}

/// An item of a list. In a list of one kind, resources need not say it.
fn item_of(kind: &str, version: Option<&Node>, item: &Node) -> Node {
    let mut item = item.clone();
    if let Data::Map(fields) = &mut item.data
        && !kind.is_empty()
        && !fields.contains_key("kind")
    {
        fields.insert("kind".into(), Node::nowhere(Data::Text(kind.into())));
        fields.extend(version.map(|it| ("apiVersion".into(), it.clone())));
    }
    item
}

/// The kinds that a CustomResourceDefinition defines, as `GROUP/VERSION/KIND`.
fn kinds_defined(resource: &Node) -> Vec<String> {
    if resource.text(&["kind"]) != Some("CustomResourceDefinition") {
        return Vec::new();
    }
    let group = resource.text(&["spec", "group"]);
    let kind = resource.text(&["spec", "names", "kind"]);
    let versions = resource.get(&["spec", "versions"]).and_then(Node::as_list);
    let (Some(group), Some(kind), Some(versions)) = (group, kind, versions) else {
        return Vec::new();
    };
    let names = versions.iter().filter_map(|it| it.text(&["name"]));
    names
        .map(|version| format!("{group}/{version}/{kind}"))
        .collect()
}

/// What kinds of objects a cluster has.
struct KnownKinds {
    kubernetes: Kubernetes,
    /// Those of Kubernetes itself.
    own: BTreeSet<&'static str>,
    /// Those that the release defines.
    defined: BTreeSet<String>,
}

impl KnownKinds {
    /// What is to be said of a kind that the cluster perhaps lacks. It is a problem in a group of Kubernetes, to which
    /// nobody else adds kinds.
    fn remark(&self, version: &str, kind: &str) -> Option<Remark> {
        let full = format!("{version}/{kind}");
        let is_own = self.own.contains(&*full);
        let is_on = is_own && kubernetes_version::is_on_by_default(version);
        if is_on || self.defined.contains(&full) || full.starts_with(CERT_MANAGER) {
            return None;
        }
        let shown = format!("`{version}` {kind}");
        if kubernetes_version::is_own_group(group_of(version)) && !is_own {
            return Some(Remark::problem(self.missing(&shown, version, kind)));
        }
        let minor = self.kubernetes.minor();
        let message = if is_own {
            format!("{shown} is off in Kubernetes {minor} unless the cluster turns it on")
        } else {
            format!("nothing here defines {shown}: the cluster must have it")
        };
        Some(Remark {
            is_warning: true,
            message,
        })
    }

    /// That this Kubernetes lacks a kind, which minor versions have it, and what this one has instead.
    fn missing(&self, shown: &str, version: &str, kind: &str) -> String {
        let mut message = format!("Kubernetes {} has no {shown}", self.kubernetes.minor());
        let others = kubernetes_version::minors_with(&format!("{version}/{kind}"));
        if !others.is_empty() {
            message += &format!(" (it is in {})", others.join(", "));
        }
        if let Some(instead) = self.kubernetes.version_of(kind, group_of(version)) {
            message += &format!(": write `apiVersion: {instead}`");
        }
        message
    }
}
