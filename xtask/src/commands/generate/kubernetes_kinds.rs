//! Makes the table of the kinds that each minor version of Kubernetes has, which is part of the deployer's sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use xshell::{Shell, cmd};

use crate::machine::{
    paths, process,
    programs::{self, Version},
    tree::Tree,
};

/// The table, from the root of the deployer's repository.
const TABLE: &str = "xtask/src/repository/kubernetes-kinds.txt";

/// The oldest minor version in the table.
const OLDEST: Version = Version::of_kubernetes(32);

const MODULE: &str = "k8s.io/kubernetes";

const HEAD: &str = "\
# The kinds of Kubernetes' API, each with the minor versions that have it; without any, all of them have it. Written by
# `cargo xtask generate kubernetes-kinds` from api/openapi-spec/swagger.json of these releases:
";

/// Write the table of the kinds that each minor version of Kubernetes has
///
/// It's made from the newest release of each minor version that the Go proxy has, and of the pinned one from the pinned
/// release. Go keeps these modules in its own cache.
#[derive(clap::Args)]
pub struct KubernetesKinds {}

/// What we read of an OpenAPI description: its paths, each with what can be done there.
#[derive(Deserialize)]
struct OpenApi {
    paths: BTreeMap<String, Operations>,
}

#[derive(Deserialize)]
struct Operations {
    get: Option<Operation>,
    post: Option<Operation>,
}

#[derive(Deserialize)]
struct Operation {
    #[serde(rename = "x-kubernetes-group-version-kind")]
    kind: Option<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    group: String,
    version: String,
    kind: String,
}

/// What `go mod download -json` tells of a module.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Module {
    dir: PathBuf,
}

/// Writes the table.
pub(super) fn kubernetes_kinds(sh: &Shell, tree: &Tree) -> Result<()> {
    ensure!(
        tree.is_file(TABLE.as_ref()),
        "`{TABLE}` is not in `{}`\nhint: this is for the deployer's own repository",
        tree.root().display()
    );
    let releases = releases(sh)?;
    let mut kinds: BTreeMap<String, BTreeSet<Version>> = BTreeMap::new();
    for release in &releases {
        say!("Kubernetes {release}: reading its OpenAPI description …");
        for kind in kinds_of(sh, *release)? {
            kinds.entry(kind).or_default().insert(*release);
        }
    }
    let mut table = format!("{HEAD}{}\n", words(&releases, Version::to_string));
    for (kind, with) in kinds {
        table += &kind;
        if with != releases {
            table += &format!(" {}", words(&with, Version::minor));
        }
        table.push('\n');
    }
    paths::write_whole(&tree.root().join(TABLE), table.as_bytes())
}

fn words(versions: &BTreeSet<Version>, word: fn(&Version) -> String) -> String {
    let words: Vec<_> = versions.iter().map(word).collect();
    words.join(" ")
}

/// The release of each minor version to read.
fn releases(sh: &Shell) -> Result<BTreeSet<Version>> {
    let listed = process::read(sh, cmd!(sh, "go list -m -versions {MODULE}"))?;
    let mut newest = BTreeMap::new();
    // The oldest is listed first, and pre-releases have a `-`.
    for word in listed.split_whitespace().filter(|it| !it.contains('-')) {
        if let Some(version) = Version::in_text(word).filter(|it| *it >= OLDEST) {
            newest.insert(version.minor(), version);
        }
    }
    newest.insert(programs::KUBERNETES.minor(), programs::KUBERNETES);
    Ok(newest.into_values().collect())
}

/// `GROUP/VERSION/KIND` of all objects that the API of a release can have.
fn kinds_of(sh: &Shell, release: Version) -> Result<BTreeSet<String>> {
    let release = format!("{MODULE}@v{release}");
    let module = process::read(sh, cmd!(sh, "go mod download -json {release}"))?;
    let module: Module = serde_json::from_str(&module).context("go's answer is not known")?;
    let file = module.dir.join("api/openapi-spec/swagger.json");
    let text = fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let api: OpenApi =
        serde_json::from_slice(&text).with_context(|| format!("`{}`", file.display()))?;
    let paths = api
        .paths
        .into_iter()
        .filter(|(path, _)| is_of_objects(path));
    let operations = paths.flat_map(|(_, it)| [it.get, it.post]).flatten();
    let kinds = operations.filter_map(|it| it.kind);
    Ok(kinds.map(|it| it.path()).collect())
}

/// Whether objects are listed or created at a path, such as `/apis/apps/v1/namespaces/{namespace}/deployments`, and
/// neither parts of an object nor changes.
fn is_of_objects(path: &str) -> bool {
    let steps: Vec<_> = path.trim_matches('/').split('/').collect();
    let (["api", _, below @ ..] | ["apis", _, _, below @ ..]) = &*steps else {
        return false;
    };
    matches!(below, [_] | ["namespaces", "{namespace}", _])
}

impl Kind {
    fn path(&self) -> String {
        let steps = [&self.group, &self.version, &self.kind];
        let steps = steps.into_iter().filter(|it| !it.is_empty());
        steps.cloned().collect::<Vec<_>>().join("/")
    }
}
