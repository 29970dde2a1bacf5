//! Values in jsonnet: files that cluster.yaml lists, and a chart's own values.jsonnet.
//!
//! What a file makes depends on its release, so each is evaluated for each release. Semantics are go-jsonnet's; the
//! variables, and where a chart's own file comes, are those of 2i2c's deployer:
//! <https://infrastructure.2i2c.org/topic/jsonnet/>.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::Result;
use xshell::Shell;

use crate::{
    machine::{digest::PartsDigest, paths::is_called_secret, tree::Tree},
    repository::{
        cluster::{Cluster, Hub},
        release_config::ReleaseConfig,
        values_file::{ValuesContent, ValuesFile, is_jsonnet},
    },
    yaml::{Data, Files, Finding, Node, Place, unquoted},
};

use self::{
    cache::Cache,
    evaluator::{Evaluated, Failure, Made, Places, Sources, Wanted, evaluate},
};

mod cache;
mod evaluator;

/// The beginnings of the names that each variable has.
const PREFIXES: [&str; 2] = ["VARS_2I2C_", "XTASK_"];

/// What jsonnet made for releases.
pub(crate) type MadeFiles = BTreeMap<MadeKey, MadeFile>;

/// A release and one of its files: the folder of its cluster, its hub, and the file's path from the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MadeKey {
    cluster: PathBuf,
    hub: Option<String>,
    file: PathBuf,
}

/// What jsonnet made of a file for one release.
pub(crate) struct MadeFile {
    /// The values as a file of JSON. Its places are those of the file in jsonnet.
    pub(crate) file: ValuesFile,
    /// All that it was made from, from the root: also files that an import looked for and that are not there.
    pub(crate) sources: Sources,
}

/// What jsonnet makes with one of several domains, and from what.
pub(crate) struct MadeWithDomain {
    pub(crate) json: Result<String>,
    sources: Sources,
}

impl MadeKey {
    pub(crate) fn new(release: &ReleaseConfig, file: &Path) -> MadeKey {
        MadeKey {
            cluster: release.cluster.dir.clone(),
            hub: release.hub.map(|it| it.name.clone()),
            file: file.to_owned(),
        }
    }

    fn is_of(&self, release: &MadeKey) -> bool {
        self.cluster == release.cluster && self.hub == release.hub
    }
}

/// Evaluates the files in jsonnet of these releases, with a placeholder for each domain that is encrypted.
pub(crate) fn make(
    sh: &Shell,
    tree: &Tree,
    files: &mut Files,
    releases: &[ReleaseConfig],
) -> Result<MadeFiles> {
    let (of, wanted): (Vec<_>, Vec<_>) = wanted_by(tree, releases).into_iter().unzip();
    let evaluated = evaluate_new(sh, tree, &wanted)?;
    let mut made = MadeFiles::new();
    for ((release, wanted), evaluated) in of.into_iter().zip(&wanted).zip(evaluated) {
        let file = match evaluated.made {
            Ok(made) => values_of(made, &wanted.file, files),
            Err(failure) => failed(release, &wanted.file, &failure, files),
        };
        let sources = evaluated.sources;
        made.insert(
            MadeKey::new(release, &wanted.file),
            MadeFile { file, sources },
        );
    }
    Ok(made)
}

/// The files in jsonnet of these releases, each with the release that it is evaluated for.
fn wanted_by<'a>(
    tree: &Tree,
    releases: &'a [ReleaseConfig<'a>],
) -> Vec<(&'a ReleaseConfig<'a>, Wanted)> {
    let mut wanted = Vec::new();
    for release in releases {
        let in_jsonnet = release.values_files().filter(|it| is_jsonnet(it));
        for file in in_jsonnet.filter(|it| !is_called_secret(it) && tree.is_file(it)) {
            let domain = release.hub.map(|hub| plain_domain(release.cluster, hub));
            wanted.push((release, Wanted::new(file, release, domain.as_deref())));
        }
    }
    wanted
}

/// What the values of releases are made from in jsonnet: paths from the root.
pub(crate) struct AllSources(BTreeMap<MadeKey, BTreeSet<PathBuf>>);

impl AllSources {
    /// Only files that import something are evaluated to find that.
    pub(crate) fn find(sh: &Shell, tree: &Tree, releases: &[ReleaseConfig]) -> Result<AllSources> {
        let mut keys = Vec::new();
        let mut importing = Vec::new();
        let mut all = BTreeMap::new();
        for (release, wanted) in wanted_by(tree, releases) {
            let key = MadeKey::new(release, &wanted.file);
            if may_import(tree, &wanted.file) {
                keys.push(key);
                importing.push(wanted);
            } else {
                all.insert(key, BTreeSet::from([wanted.file]));
            }
        }
        let evaluated = evaluate_new(sh, tree, &importing)?;
        let sources = evaluated
            .into_iter()
            .map(|it| it.sources.into_keys().collect());
        all.extend(keys.into_iter().zip(sources));
        Ok(AllSources(all))
    }

    /// Those of a hub, or of `support` without one.
    pub(crate) fn of(
        &self,
        cluster: &Cluster,
        hub: Option<&Hub>,
    ) -> impl Iterator<Item = &PathBuf> {
        entries_of(&self.0, cluster, hub).flatten()
    }
}

/// Whether there may be an import in a file: only a text follows that word, perhaps after a comment.
fn may_import(tree: &Tree, file: &Path) -> bool {
    let content = tree.read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&content);
    let mut words = text.match_indices("import");
    words.any(|(at, word)| {
        let rest = &text[at + word.len()..];
        let rest = rest
            .strip_prefix("str")
            .or(rest.strip_prefix("bin"))
            .unwrap_or(rest);
        rest.trim_start()
            .starts_with(['"', '\'', '@', '|', '/', '#'])
    })
}

/// Evaluates the files whose results are not in the cache. The results are in their order.
fn evaluate_new(sh: &Shell, tree: &Tree, wanted: &[Wanted]) -> Result<Vec<Evaluated>> {
    let mut cache = Cache::open(tree)?;
    let known: Vec<_> = wanted.iter().map(|it| cache.find(it)).collect();
    let is_new = wanted.iter().zip(&known).filter(|(_, it)| it.is_none());
    let new: Vec<_> = is_new.map(|(wanted, _)| wanted).collect();
    let evaluated = evaluate(sh, tree, &new)?;
    for (wanted, evaluated) in new.iter().zip(&evaluated) {
        cache.keep(wanted, evaluated);
    }
    let mut evaluated = evaluated.into_iter();
    let all = known.into_iter().map(|it| it.or_else(|| evaluated.next()));
    Ok(all.flatten().collect())
}

/// What a file in jsonnet makes for a hub with each of these domains, as JSON. They may be secret, so no cache has it.
pub(crate) fn make_with_domains<const N: usize>(
    sh: &Shell,
    tree: &Tree,
    release: &ReleaseConfig,
    file: &Path,
    domains: &[&str; N],
) -> Result<[MadeWithDomain; N]> {
    let wanted = domains.map(|domain| Wanted::new(file, release, Some(domain)));
    let evaluated = evaluate(sh, tree, &wanted.each_ref())?;
    let mut made = evaluated.into_iter().map(|it| MadeWithDomain {
        json: match it.made {
            Ok(made) => Ok(made.json),
            Err(failure) => Err(failure.error(file)),
        },
        sources: it.sources,
    });
    Ok([(); N].map(|()| made.next().expect("each has a result")))
}

impl MadeFile {
    /// A digest of all that a file makes its values of for a release, but for the hub's domain.
    pub(crate) fn digest_of_sources(&self, release: &ReleaseConfig, file: &Path) -> String {
        let mut digest = PartsDigest::default();
        digest.add(cache::program().as_bytes());
        digest.add(file.as_os_str().as_encoded_bytes());
        for (name, value) in Wanted::new(file, release, None).variables {
            digest.add(name.as_bytes());
            digest.add(value.as_bytes());
        }
        for (path, content) in &self.sources {
            digest.add(path.as_os_str().as_encoded_bytes());
            digest.add(content.as_deref().unwrap_or_default().as_bytes());
        }
        digest.name()
    }

    /// Whether nothing else was read for another domain.
    pub(crate) fn has_all_sources_of(&self, other: &MadeWithDomain) -> bool {
        other.sources.keys().all(|it| self.sources.contains_key(it))
    }
}

/// All that the values of a hub, or of `support` without one, are made from in jsonnet, from the root.
pub(crate) fn sources<'a>(
    made: &'a MadeFiles,
    cluster: &Cluster,
    hub: Option<&Hub>,
) -> impl Iterator<Item = &'a PathBuf> {
    entries_of(made, cluster, hub).flat_map(|it| it.sources.keys())
}

/// What belongs to a hub, or to `support` without one.
fn entries_of<'a, T>(
    all: &'a BTreeMap<MadeKey, T>,
    cluster: &Cluster,
    hub: Option<&Hub>,
) -> impl Iterator<Item = &'a T> {
    let first = MadeKey {
        cluster: cluster.dir.clone(),
        hub: hub.map(|it| it.name.clone()),
        file: PathBuf::new(),
    };
    let own = all
        .range(first.clone()..)
        .take_while(move |(key, _)| key.is_of(&first));
    own.map(|(_, entry)| entry)
}

/// The values that were made of a file, each with the place where jsonnet sets it, as far as that is known.
fn values_of(made: Made, file: &Path, files: &mut Files) -> ValuesFile {
    let number = files.add(file);
    let mut values = ValuesFile::made(made.json, number);
    if let ValuesContent::Plain(node, _) = &mut values.state {
        put_places(node, &made.places, number, files);
    }
    values
}

/// Puts places on the values below one whose key is in this file.
fn put_places(node: &mut Node, places: &Places, file: u32, files: &mut Files) {
    let Data::Map(map) = &mut node.data else {
        return;
    };
    for (key, value) in map {
        let Some(place) = places.get(&**key) else {
            continue;
        };
        let file = place.file.as_ref().map_or(file, |it| files.add(it));
        value.move_to(Place {
            file,
            line: place.line,
            column: place.column,
        });
        put_places(value, &place.below, file, files);
    }
}

/// What stands for a file that could not be evaluated.
fn failed(
    release: &ReleaseConfig,
    file: &Path,
    failure: &Failure,
    files: &mut Files,
) -> ValuesFile {
    let number = files.add(&failure.file);
    let at = Place {
        file: number,
        line: failure.line,
        column: failure.column,
    };
    let message = format!(
        "{}: `{}` cannot be evaluated: {}",
        release.shown_with_cluster(),
        file.display(),
        failure.message
    );
    ValuesFile {
        number,
        content: Vec::new(),
        state: ValuesContent::Broken(Finding::problem("jsonnet", Some(at), message)),
    }
}

impl Wanted {
    /// A file for a release; the domain is that of its hub.
    fn new(file: &Path, release: &ReleaseConfig, domain: Option<&str>) -> Wanted {
        let cluster = release.cluster;
        let mut variables = vec![
            ("CLUSTER_NAME", cluster_name(cluster)),
            (
                "PROVIDER",
                cluster.provider_name().unwrap_or_default().to_owned(),
            ),
            ("ACCOUNT_ID", account(cluster)),
        ];
        if let Some(hub) = release.hub {
            variables.push(("HUB_NAME", hub.name.clone()));
            variables.extend(domain.map(|it| ("HUB_DOMAIN", it.to_owned())));
        }
        let named = |prefix: &str| {
            let variables = variables.iter();
            let named = variables.map(|(name, value)| (format!("{prefix}{name}"), value.clone()));
            named.collect::<Vec<_>>()
        };
        Wanted {
            file: file.to_owned(),
            variables: PREFIXES.into_iter().flat_map(named).collect(),
        }
    }
}

/// EKS knows a cluster by a name of its own, and roles are named by that.
fn cluster_name(cluster: &Cluster) -> String {
    let of_eks = cluster.yaml.text(&["aws", "clusterName"]);
    let of_eks = of_eks.filter(|_| cluster.provider_name() == Some("aws"));
    let name = of_eks.or_else(|| cluster.yaml.text(&["name"]));
    name.unwrap_or(&cluster.name).to_owned()
}

/// The account or project that a cluster is in. Another provider has the text that Python writes for none.
fn account(cluster: &Cluster) -> String {
    let account = match cluster.provider_name() {
        Some("aws") => cluster.yaml.get(&["aws", "account"]),
        Some("gcp") => cluster.yaml.get(&["gcp", "project"]),
        _ => None,
    };
    account.map_or_else(|| "None".to_owned(), |it| unquoted(&it.to_json()))
}

/// The domain of a hub as far as it can be told without decrypting anything: a name that nobody has, if a file overrides it.
fn plain_domain(cluster: &Cluster, hub: &Hub) -> String {
    if hub.domain_override_file.is_none() {
        return hub.domain.clone();
    }
    placeholder(cluster, hub)
}

/// Stands for a domain that is encrypted. No other hub has the same.
pub(crate) fn placeholder(cluster: &Cluster, hub: &Hub) -> String {
    let name = format!("{}.{}", hub.name, cluster.name).to_lowercase();
    let is_of_name = |it: &char| it.is_ascii_alphanumeric() || ['-', '.'].contains(it);
    let name: String = name.chars().filter(is_of_name).collect();
    format!("{name}.domain-override.invalid")
}
