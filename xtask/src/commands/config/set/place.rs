//! Where a value of a release is set, and whether it may be changed there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    charts::values::EnabledChart,
    machine::{paths, terminal::list},
    repository::{
        cluster::Cluster,
        fleet::Fleet,
        readers::Readers,
        release_config::ReleaseConfig,
        release_values::paths_of_key,
        values_file::{ValuesFile, is_jsonnet},
    },
    yaml::{Data, KeyPath, Node, Place},
};

/// Where a release gets a value from, or will.
pub(crate) struct Target {
    pub(crate) path: KeyPath,
    /// As cluster.yaml lists it, from the root.
    pub(crate) file: PathBuf,
    /// What counts now: that of a values file, or of a chart.
    pub(crate) old: Option<Node>,
}

/// The values of a release.
pub(crate) struct AllValues<'a> {
    /// What values files set.
    pub(crate) set: Node,
    computed: Node,
    enabled: EnabledChart<'a>,
}

impl<'a> AllValues<'a> {
    pub(crate) fn of(fleet: &'a Fleet, release: &ReleaseConfig) -> Result<AllValues<'a>> {
        let set = fleet.set(release);
        let (computed, enabled) = fleet.compute(release, &set)?;
        Ok(AllValues {
            set: Node::nowhere(Data::Map(set)),
            computed,
            enabled,
        })
    }

    /// Where a key leads, as far as it leads anywhere.
    pub(crate) fn path(&self, key: &KeyPath) -> Result<KeyPath> {
        for count in (1..=key.0.len()).rev() {
            let known = key.first(count);
            if known.find(&self.set).is_some() {
                return Ok(key.clone());
            }
            match &paths_of_key(&known, &self.computed, &self.enabled)[..] {
                [] => {}
                [path] => return Ok(KeyPath([&path.0, &key.0[count..]].concat())),
                several => bail!("`{known}` may be each of {}: name one", list(several)),
            }
        }
        Ok(key.clone())
    }
}

/// The releases that get a value, and what is known of all.
pub(crate) struct Targets<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) readers: &'a Readers,
    /// The releases by their paths.
    pub(crate) named: &'a [String],
    pub(crate) key: &'a KeyPath,
    /// What `--file` names.
    pub(crate) file: Option<&'a Path>,
}

impl Targets<'_> {
    /// Where the value of a release is to be set.
    pub(crate) fn of(&self, release: &ReleaseConfig) -> Result<Target> {
        let fleet = self.fleet;
        for (path, _, file) in fleet.files_of(release) {
            file.refuse_unreadable(path)?;
        }
        let all = AllValues::of(fleet, release)?;
        let path = all.path(self.key)?;
        let setter = setter(fleet, &path, &all)?;
        let old = path.find(&all.set).or(path.find(&all.computed)).cloned();
        let own = own_file(fleet, self.readers, self.named, release);
        let file = match (self.file, setter) {
            (Some(file), _) => file_named(fleet, release, file)?,
            (None, Some(at)) => editable(
                fleet,
                release.cluster,
                self.readers,
                self.named,
                at,
                own.ok(),
            )?,
            (None, None) => {
                if let Some(at) = old.as_ref().and_then(|it| it.at) {
                    refuse_default_of_ours(fleet, release, at, own.as_ref().ok())?;
                }
                own?
            }
        };
        Ok(Target { path, file, old })
    }
}

/// Where a values file sets a value, or the list that gets it as a new item. None if nothing sets it.
fn setter(fleet: &Fleet, path: &KeyPath, all: &AllValues) -> Result<Option<Place>> {
    for count in (0..=path.0.len()).rev() {
        let above = path.first(count);
        if let Some(node) = above.find(&all.set) {
            let is_whole = count == path.0.len();
            return match node.data {
                Data::Map(_) if !is_whole => Ok(None),
                Data::List(_) => Ok(node.at),
                _ if is_whole => Ok(node.at),
                _ => bail!(
                    "{} sets `{above}`, which is not a map",
                    node.at.map_or_else(String::new, |at| fleet.shown(at))
                ),
            };
        }
        let default = above.find(&all.computed).filter(|_| count < path.0.len());
        if let Some(list) = default.filter(|it| it.as_list().is_some_and(|it| !it.is_empty())) {
            bail!(
                "`{above}` is a default of a chart, {}, and a list replaces another one as a whole: set all of it",
                list.at.map_or_else(String::new, |at| fleet.shown(at))
            );
        }
    }
    Ok(None)
}

/// The file that sets a value, if it may be changed.
fn editable(
    fleet: &Fleet,
    cluster: &Cluster,
    readers: &Readers,
    named: &[String],
    at: Place,
    own: Option<PathBuf>,
) -> Result<PathBuf> {
    let path = fleet.files.path(at.file);
    let place = fleet.shown(at);
    if cluster.at().file == at.file {
        bail!(
            "{place} sets it: it is an image that is built from a folder, and its tag is the last commit that changed that"
        );
    }
    let own = own.map_or_else(String::new, |it| {
        format!("; `--file {}` sets it for this hub alone", it.display())
    });
    let Some(file) = fleet.values.get(path).filter(|_| !is_jsonnet(path)) else {
        bail!("{place} makes it in jsonnet\nhint: change it there{own}");
    };
    if file.is_encrypted() {
        let how = how_to_edit(file, path);
        bail!("{place} sets it, and is encrypted\nhint: {how}");
    }
    let others = readers.others(path, named);
    if !others.is_empty() {
        bail!(
            "{place} sets it, also for {}\n\
             hint: name these as well; `--file {}` changes it for all of them{own}",
            list(others),
            path.display()
        );
    }
    Ok(path.to_owned())
}

/// Refuses to set over a default that all hubs of a chart of ours have: it may be meant to change for all of them.
fn refuse_default_of_ours(
    fleet: &Fleet,
    release: &ReleaseConfig,
    at: Place,
    own: Option<&PathBuf>,
) -> Result<()> {
    if fleet.files.path(at.file) != release.chart.folder.join("values.yaml") {
        return Ok(());
    }
    let hint = own.map_or_else(
        || "`--file` names a values file that is to set it".to_owned(),
        |own| format!("`--file {}` sets it for this hub alone", own.display()),
    );
    let place = fleet.shown(at);
    bail!("{place} sets it for all hubs of this chart\nhint: {hint}")
}

/// The file of a release that `--file` names.
fn file_named(fleet: &Fleet, release: &ReleaseConfig, named: &Path) -> Result<PathBuf> {
    let from_root = named.strip_prefix(fleet.tree.root()).unwrap_or(named);
    let candidates =
        [from_root.to_owned(), release.cluster.dir.join(named)].map(|it| paths::lexical(&it));
    let mut listed = release.values_files();
    let Some(path) = listed.find(|it| candidates.iter().any(|named| named == it)) else {
        bail!(
            "no values file `{}` is listed for it; these are: {}",
            named.display(),
            list(release.values_files().map(Path::display))
        );
    };
    let file = &fleet.values[path];
    let shown = path.display();
    if file.is_encrypted() {
        bail!("`{shown}` is encrypted\nhint: {}", how_to_edit(file, path));
    }
    ensure!(
        file.plain().is_some(),
        "`{shown}` is not a file of plain values"
    );
    Ok(path.to_owned())
}

/// How people change an encrypted file.
fn how_to_edit(file: &ValuesFile, path: &Path) -> String {
    if file.sops().is_some() {
        format!("`sops edit {}` changes it there", path.display())
    } else {
        "git-crypt encrypts it: `git-crypt unlock`, and change it in an editor".to_owned()
    }
}

/// The last plain values file that no other release lists, or that no other one beyond those named does.
fn own_file(
    fleet: &Fleet,
    readers: &Readers,
    named: &[String],
    release: &ReleaseConfig,
) -> Result<PathBuf> {
    let plain = || {
        let listed = release.listed.iter().rev().filter(|(_, at)| at.is_some());
        let paths = listed.map(|(path, _)| path);
        paths.filter(|it| fleet.values[*it].plain().is_some() && !is_jsonnet(it))
    };
    let own = plain().find(|it| readers.of(it).len() == 1);
    let own = own.or_else(|| plain().find(|it| readers.others(it, named).is_empty()));
    own.cloned().with_context(|| {
        format!(
            "nothing sets it, and no values file is its own: it has {}\nhint: name one with `--file`",
            list(release.values_files().map(Path::display))
        )
    })
}
