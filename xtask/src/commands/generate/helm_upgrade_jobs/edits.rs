//! What edits of a cluster.yaml mean for its releases: both versions are read and compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Map, Value};
use xshell::Shell;

use crate::{
    commands::generate::changed::{Changed, Step},
    machine::tree::{
        Tree,
        versions::{self, Version},
    },
    repository::cluster::Cluster,
    yaml,
};

/// The keys of a cluster that no deploy reads. All others count, also those that nobody knows.
const NOT_DEPLOYED: [&str; 9] = [
    "account",
    "architecture",
    "kubernetes",
    "metadata",
    "paused",
    "provider_url",
    "registry",
    "tenancy",
    "wave",
];

/// Such keys in the section of a provider.
const NOT_DEPLOYED_OF_PROVIDER: [&str; 2] = ["billing", "clusterType"];

/// Such keys in the entry of a hub.
const NOT_DEPLOYED_OF_HUB: [&str; 3] = ["display_name", "gates", "paused"];

/// What is edited in a cluster.yaml.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Edit {
    /// All of it, since there are no two versions to compare.
    Whole,
    /// A key of the cluster.
    Key(String),
    /// The entry of the hub of this name.
    Hub(String),
    /// The entry of a hub that had none of this name before.
    NewHub(String),
}

/// The edited parts of each cluster.yaml, by its path from the root.
pub(crate) type Edits = BTreeMap<PathBuf, BTreeSet<Edit>>;

impl Edit {
    /// Why this part redeploys a hub, or `support` without one; none if it does not.
    pub(crate) fn reason(&self, hub: Option<&str>) -> Option<String> {
        match self {
            Edit::Whole => Some("cluster.yaml file was modified".to_owned()),
            Edit::Key(key) if key == "support" && hub.is_some() => None,
            Edit::Key(key) => Some(format!("cluster.yaml: `{key}` was modified")),
            Edit::Hub(name) if hub == Some(name) => {
                Some("cluster.yaml: the entry of this hub was modified".to_owned())
            }
            Edit::NewHub(name) if hub == Some(name) => {
                Some("cluster.yaml: this hub is new".to_owned())
            }
            _ => None,
        }
    }
}

/// Finds the edited parts of steps.
pub(crate) struct EditFinder {
    /// The path of each cluster.yaml, and all paths on the way there.
    files: Vec<(PathBuf, BTreeSet<PathBuf>)>,
    /// What steps changed, before and after it, as far as that can be compared.
    versions: BTreeMap<Version, Content>,
}

impl EditFinder {
    /// One that knows the versions of these steps.
    pub(crate) fn new<'a>(
        sh: &Shell,
        tree: &Tree,
        clusters: &[Cluster],
        steps: impl Iterator<Item = &'a Step>,
    ) -> Result<EditFinder> {
        let files = clusters.iter().map(Cluster::file);
        let files: Vec<_> = files.map(|it| (it.clone(), tree.way(&it))).collect();
        let mut wanted = BTreeSet::new();
        for step in steps {
            for commit in step.versions.iter().flatten() {
                let changed = files.iter().filter(|(file, _)| step.changed.has(file));
                wanted.extend(changed.map(|(file, _)| (commit.clone(), file.clone())));
            }
        }
        let contents = versions::read(sh, wanted)?.into_iter();
        let contents =
            contents.filter_map(|(version, it)| Some((version, Content::read(&it).ok()?)));
        Ok(EditFinder {
            files,
            versions: contents.collect(),
        })
    }

    /// What a step edits; nothing if it changes everything.
    pub(crate) fn edits(&self, step: &Step) -> Edits {
        let mut edits = Edits::new();
        if matches!(step.changed, Changed::Everything) {
            return edits;
        }
        for (file, way) in &self.files {
            if way.iter().any(|it| step.changed.has(it)) {
                let is_link = way.len() > 1;
                let versions = step.versions.as_ref().filter(|_| !is_link);
                let parts = versions.and_then(|it| self.differing(it, file));
                let parts = parts.unwrap_or_else(|| BTreeSet::from([Edit::Whole]));
                edits.insert(file.clone(), parts);
            }
        }
        edits
    }

    /// The parts of a file that differ between two commits; none if these cannot be compared.
    fn differing(&self, commits: &[String; 2], file: &Path) -> Option<BTreeSet<Edit>> {
        let [before, after] = commits.each_ref().map(|commit| {
            let version = (commit.clone(), file.to_owned());
            self.versions.get(&version)
        });
        Some(before?.parts_changed_in(after?))
    }
}

/// What deploys read of a cluster.yaml.
struct Content {
    keys: Map<String, Value>,
    /// By their names.
    hubs: BTreeMap<String, Value>,
}

impl Content {
    fn read(content: &[u8]) -> Result<Content> {
        let (yaml, _) = yaml::read(content, 0).map_err(|it| anyhow!("{}", it.message))?;
        let Value::Object(mut keys) = yaml.to_json() else {
            unreachable!("it is a mapping")
        };
        let entries = keys.remove("hubs").unwrap_or_else(|| Value::Array(vec![]));
        let mut hubs = BTreeMap::new();
        for mut entry in entries.as_array().context("`hubs` is no list")?.clone() {
            let name = entry["name"]
                .as_str()
                .context("a hub has no name")?
                .to_owned();
            drop_keys(&mut entry, &NOT_DEPLOYED_OF_HUB);
            ensure!(hubs.insert(name, entry).is_none(), "two hubs have one name");
        }
        keys.retain(|key, _| !NOT_DEPLOYED.contains(&key.as_str()));
        for section in keys.values_mut() {
            drop_keys(section, &NOT_DEPLOYED_OF_PROVIDER);
        }
        Ok(Content { keys, hubs })
    }

    /// The parts that are different in another version, which came after this one.
    fn parts_changed_in(&self, after: &Content) -> BTreeSet<Edit> {
        let keys = self.keys.keys().chain(after.keys.keys());
        let keys = keys.filter(|key| self.keys.get(*key) != after.keys.get(*key));
        let mut parts: BTreeSet<_> = keys.cloned().map(Edit::Key).collect();
        for (name, entry) in &after.hubs {
            match self.hubs.get(name) {
                None => parts.insert(Edit::NewHub(name.clone())),
                Some(before) if before != entry => parts.insert(Edit::Hub(name.clone())),
                Some(_) => false,
            };
        }
        parts
    }
}

fn drop_keys(section: &mut Value, keys: &[&str]) {
    if let Value::Object(map) = section {
        map.retain(|key, _| !keys.contains(&key.as_str()));
    }
}
