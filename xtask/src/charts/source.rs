//! A chart of the repository with all that goes into its prepared form.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    charts::{
        archive::{self, Content},
        chart_path::{ChartPath, Override, find_folder, on_disk, read_metadata},
        fetch::Remote,
        files::read_files,
        format::FORMAT,
        ignore::Ignore,
        metadata::{Dependency, Lock, Metadata},
        version::{self, satisfies},
    },
    machine::{
        digest::PartsDigest,
        name::Name,
        paths::{self, is_called_secret},
        tree::Tree,
    },
    services::http,
};

/// A chart in the repository, with all that goes into its prepared form.
pub(crate) struct ChartSource {
    /// What people know it by, in messages.
    pub(crate) shown: String,
    /// The file in the place of its Chart.yaml.
    chart_override: Option<PathBuf>,
    pub(crate) metadata: Metadata,
    /// The chart's own files by their paths in it, without those in charts/ that a dependency provides.
    pub(crate) files: Content,
    pub(crate) parts: Vec<DependencySource>,
    /// Dependencies by name, and what is wrong with them: then the chart can't be prepared.
    pub(crate) problems: Vec<(String, String)>,
    /// Where the prepared chart is, or will be.
    pub(crate) prepared: PathBuf,
}

/// Where one dependency comes from.
pub(crate) enum DependencySource {
    /// `file://`: another folder, prepared like this one.
    Folder(Box<ChartSource>),
    /// An archive or folder in charts/ that has the right version.
    InCharts(Vendored),
    /// To be fetched from a repository.
    Remote(Remote),
}

/// What is in a chart's folder charts/.
pub(crate) struct Vendored {
    /// The path from the root.
    pub(crate) path: PathBuf,
    /// The files of a folder, or an archive at the empty path.
    content: Content,
}

impl Vendored {
    fn read(tree: &Tree, path: PathBuf) -> Result<Vendored> {
        let content = read_files(tree, &path, Ignore::parse(b""))?;
        Ok(Vendored { path, content })
    }

    /// Its name in charts/.
    pub(crate) fn name(&self) -> &OsStr {
        self.path.file_name().expect("it lies in charts/")
    }

    /// The archive, if it is one.
    pub(crate) fn archive(&self) -> Option<&[u8]> {
        self.content.get(Path::new("")).map(Vec::as_slice)
    }

    /// The files of the chart.
    pub(crate) fn files(&self) -> Result<Cow<'_, Content>> {
        let Some(archive) = self.archive() else {
            return Ok(Cow::Borrowed(&self.content));
        };
        let files = archive::unpack(archive).with_context(|| {
            let path = self.path.display();
            format!("`{path}` is not a whole archive of a chart")
        })?;
        Ok(Cow::Owned(files))
    }
}

/// The folders, from the root, whose files make up a chart: its own, and those that it depends on by `file://`, however
/// deep. A chart that is not there, or that cannot be read, has just its own.
pub(crate) fn folders(tree: &Tree, chart: &ChartPath) -> BTreeSet<PathBuf> {
    let replaced = chart.replaced(tree).unwrap_or_default();
    let mut folders = BTreeSet::new();
    let mut left = vec![paths::lexical(&chart.folder)];
    while let Some(folder) = left.pop() {
        let chart_override = Override::of_folder(replaced.as_ref(), tree, &folder);
        let is_there = tree.is_file(&folder.join("Chart.yaml"))
            && chart_override.is_none_or(|it| tree.is_file(it));
        if !folders.insert(folder.clone()) || !is_there {
            continue;
        }
        let Ok(metadata) = read_metadata(tree, &folder, chart_override) else {
            continue;
        };
        left.extend(on_disk(&metadata, &folder).map(|(_, near)| near));
    }
    folders
}

/// Whether helm reads any of these files of a chart, by their paths in it. It does not read files that .helmignore names,
/// and no template reads those that tell people about the chart.
pub(crate) fn reads_any<'a>(
    tree: &Tree,
    chart: &Path,
    mut files: impl Iterator<Item = &'a Path>,
) -> bool {
    let for_people = ["README.md", "CHANGELOG.md", "LICENSE"].map(Path::new);
    // A chart whose rules cannot be read is a problem elsewhere.
    let ignore = Ignore::of(tree, chart).unwrap_or_else(|_| Ignore::parse(b""));
    files.any(|file| !for_people.contains(&file) && !ignore.ignores(file))
}

impl ChartSource {
    /// Reads the chart of a release.
    pub(crate) fn read(tree: &Tree, chart: &ChartPath) -> Result<ChartSource> {
        let replaced = chart.replaced(tree)?;
        ChartSource::in_folder(tree, &chart.folder, replaced.as_ref(), &mut Vec::new())
    }

    /// Reads the chart in a folder, by its path from the root. `above` holds the charts that depend on this one.
    fn in_folder(
        tree: &Tree,
        chart: &Path,
        replaced: Option<&Override>,
        above: &mut Vec<PathBuf>,
    ) -> Result<ChartSource> {
        let dir = find_folder(tree, chart)?;
        let shown = dir.display().to_string();
        ensure!(
            !above.contains(&dir),
            "the chart `{shown}` depends on itself"
        );
        let chart_override = Override::of_folder(replaced, tree, &dir);
        let metadata = read_metadata(tree, &dir, chart_override)?;
        if above.is_empty() {
            metadata.refuse_uninstallable()?;
        }
        let (files, lock) = files_and_lock(tree, &dir, chart_override, &metadata)?;
        let search = Search {
            dir: &dir,
            tree,
            replaced,
            listed_in: metadata.listed_in,
            lock,
            vendored: tree.children(&dir.join("charts"))?,
        };
        let (parts, problems) = search.find_all(metadata.dependencies(), above);
        let name = format!("{}-{}", metadata.name, key(&files, &parts)?);
        Ok(ChartSource {
            shown,
            chart_override: chart_override.map(Path::to_owned),
            files,
            metadata,
            parts,
            problems,
            prepared: paths::cache()?.join("charts").join(name),
        })
    }

    /// The file that lists the dependencies.
    pub(crate) fn listed_in(&self) -> PathBuf {
        let own = || Path::new(&self.shown).join(self.metadata.listed_in);
        self.chart_override.clone().unwrap_or_else(own)
    }

    /// All dependencies to be fetched, also those of folders, each with the file that lists it.
    pub(crate) fn remotes(&self) -> Vec<(PathBuf, &Remote)> {
        let mut remotes = Vec::new();
        for part in &self.parts {
            match part {
                DependencySource::Folder(source) => remotes.extend(source.remotes()),
                DependencySource::InCharts(_) => {}
                DependencySource::Remote(remote) => remotes.push((self.listed_in(), remote)),
            }
        }
        remotes
    }
}

/// The files of the chart in a folder that helm reads, without those in charts/ that a dependency provides.
fn read_own_files(tree: &Tree, dir: &Path, metadata: &Metadata) -> Result<Content> {
    let mut files = read_files(tree, dir, Ignore::of(tree, dir)?)
        .with_context(|| format!("cannot read the chart `{}`", dir.display()))?;
    files.retain(|path, _| !is_dependency(path, metadata));
    Ok(files)
}

/// The own files of the chart in a folder, and its lock. With an override, whose file is in the place of Chart.yaml, there is
/// none.
fn files_and_lock(
    tree: &Tree,
    dir: &Path,
    chart_override: Option<&Path>,
    metadata: &Metadata,
) -> Result<(Content, Lock)> {
    let mut files = read_own_files(tree, dir, metadata)?;
    let Some(file) = chart_override else {
        return Ok((files, read_lock(tree, dir, metadata)?));
    };
    replace_chart_yaml(tree, dir, file, metadata, &mut files)?;
    Ok((files, Lock::default()))
}

/// Puts a file in the place of Chart.yaml among the files of the chart in a folder. What the chart has for the dependencies
/// of its own Chart.yaml is of no use to it.
fn replace_chart_yaml(
    tree: &Tree,
    dir: &Path,
    file: &Path,
    metadata: &Metadata,
    files: &mut Content,
) -> Result<()> {
    ensure!(
        !is_called_secret(file),
        "`{}` is called secret, and nothing of a chart can be: the cache holds no secrets",
        file.display()
    );
    let own = read_metadata(tree, dir, None)?;
    ensure!(
        metadata.name == own.name,
        "`{}` has the name `{}`, and takes the place of the Chart.yaml of `{}`: the name has to stay",
        file.display(),
        metadata.name,
        own.name
    );
    let others = ["Chart.lock", "requirements.yaml", "requirements.lock"].map(Path::new);
    files.retain(|path, _| !is_dependency(path, &own) && !others.contains(&path.as_path()));
    files.insert(PathBuf::from("Chart.yaml"), tree.read(file)?);
    Ok(())
}

/// The lock of the chart in a folder. A dependency in it that the chart does not have is an error.
fn read_lock(tree: &Tree, dir: &Path, metadata: &Metadata) -> Result<Lock> {
    let lock = Lock::of_folder(tree, dir, metadata)?;
    for locked in &lock.dependencies {
        let is_known = metadata
            .dependencies()
            .iter()
            .any(|it| it.name == locked.name && it.repository == locked.repository);
        ensure!(
            is_known,
            "{}/{} has `{}` from `{}`, and {} does not\nhint: `helm dependency update`",
            dir.display(),
            lock.file,
            locked.name,
            http::without_password(&locked.repository),
            metadata.listed_in
        );
    }
    Ok(lock)
}

/// Whether a file, by its path in the chart, is part of a dependency in charts/.
fn is_dependency(path: &Path, metadata: &Metadata) -> bool {
    let in_charts = path.strip_prefix("charts").ok();
    let Some(name) = in_charts.and_then(|it| it.iter().next()) else {
        return false;
    };
    let dependencies = metadata.dependencies();
    dependencies.iter().any(|it| it.may_be(Path::new(name)))
}

/// Where the dependencies of one chart are looked for.
struct Search<'a> {
    /// The chart's folder, from the root.
    dir: &'a Path,
    tree: &'a Tree,
    replaced: Option<&'a Override>,
    /// The file that lists the dependencies.
    listed_in: &'static str,
    lock: Lock,
    /// The names of what is in charts/.
    vendored: Vec<OsString>,
}

impl Search<'_> {
    /// The dependencies that are found, and what is wrong with the others by their names.
    fn find_all(
        &self,
        wanted: &[Dependency],
        above: &mut Vec<PathBuf>,
    ) -> (Vec<DependencySource>, Vec<(String, String)>) {
        let mut parts = Vec::new();
        let mut problems = Vec::new();
        above.push(self.dir.to_owned());
        for wanted in wanted {
            match self.find(wanted, above) {
                Ok(part) => parts.push(part),
                Err(err) => problems.push((wanted.name.clone(), format!("{err:#}"))),
            }
        }
        above.pop();
        (parts, problems)
    }

    fn find(&self, wanted: &Dependency, above: &mut Vec<PathBuf>) -> Result<DependencySource> {
        let locked = self.locked_version(wanted)?;
        if let Some(path) = wanted.repository.strip_prefix("file://") {
            let folder = paths::lexical(&self.dir.join(path));
            let source = ChartSource::in_folder(self.tree, &folder, self.replaced, above)?;
            check_name(path, &source.metadata.name, &wanted.name)?;
            let version = &source.metadata.version;
            match &source.chart_override {
                Some(file) => {
                    let file = file.display().to_string();
                    check_version(&file, version, &wanted.version, self.lock.file, None)?;
                }
                None => check_version(path, version, &wanted.version, self.lock.file, locked)?,
            }
            return Ok(DependencySource::Folder(Box::new(source)));
        }
        let version = locked.unwrap_or(&wanted.version);
        if let Some(vendored) = self.find_in_charts(self.tree, &self.vendored, wanted, version)? {
            return Ok(DependencySource::InCharts(vendored));
        }
        if let Some(vendored) = self.find_ignored(wanted, version)? {
            return Ok(DependencySource::InCharts(vendored));
        }
        if locked.is_none() {
            wanted.refuse_range(self.lock.file)?;
        }
        Ok(DependencySource::Remote(wanted.remote(version)?))
    }

    /// The version in the lock, which has to be there if the lock lists anything.
    fn locked_version(&self, wanted: &Dependency) -> Result<Option<&str>> {
        let mut locked = self.lock.dependencies.iter();
        let locked = locked.find(|it| it.name == wanted.name && it.repository == wanted.repository);
        let Some(locked) = locked else {
            ensure!(
                self.lock.dependencies.is_empty(),
                "{} does not list it\nhint: `helm dependency update`",
                self.lock.file
            );
            return Ok(None);
        };
        ensure!(
            !locked.version.is_empty(),
            "{} has no version of it\nhint: `helm dependency update`",
            self.lock.file
        );
        ensure!(
            satisfies(&locked.version, &wanted.version)?,
            "{} has {}, and {} wants {}\nhint: `helm dependency update`",
            self.lock.file,
            locked.version,
            self.listed_in,
            wanted.version
        );
        Ok(Some(&locked.version))
    }

    /// What `helm dependency build` has put into charts/ of the work tree, where git ignores it. For the index that isn't
    /// missing: everybody has it built.
    fn find_ignored(&self, wanted: &Dependency, version: &str) -> Result<Option<Vendored>> {
        let names = self.tree.ignored(&self.dir.join("charts"))?;
        self.find_in_charts(&self.tree.on_disk(), &names, wanted, version)
    }

    fn find_in_charts(
        &self,
        tree: &Tree,
        names: &[OsString],
        wanted: &Dependency,
        version: &str,
    ) -> Result<Option<Vendored>> {
        for name in names {
            if !wanted.may_be(Path::new(name)) {
                continue;
            }
            let vendored = Vendored::read(tree, self.dir.join("charts").join(name))?;
            let found = Metadata::of_files(&*vendored.files()?)
                .with_context(|| format!("`{}`", vendored.path.display()))?;
            if *found.name == *wanted.name && satisfies(&found.version, version)? {
                return Ok(Some(vendored));
            }
        }
        Ok(None)
    }
}

/// Refuses a chart in a folder that has another name than its parent says: helm would not find it.
fn check_name(path: &str, name: &str, wanted: &str) -> Result<()> {
    ensure!(
        name == wanted,
        "`{path}` is the chart `{name}`, and `{wanted}` is wanted"
    );
    Ok(())
}

/// Refuses a chart in a folder whose version is not the wanted one, or not the one in the file `lock`.
fn check_version(
    path: &str,
    version: &str,
    wanted: &str,
    lock: &str,
    locked: Option<&str>,
) -> Result<()> {
    ensure!(
        satisfies(version, wanted)?,
        "`{path}` is {version}, and {wanted} is wanted"
    );
    if let Some(locked) = locked {
        ensure!(
            satisfies(version, locked)?,
            "`{path}` is {version}, and {lock} has {locked}\nhint: `helm dependency update`"
        );
    }
    Ok(())
}

impl Dependency {
    /// Whether something of this name in charts/ would be read as this dependency: `NAME` or `NAME-1.2.3.tgz`.
    fn may_be(&self, in_charts: &Path) -> bool {
        let name = in_charts.to_str();
        let Some(rest) = name.and_then(|it| it.strip_prefix(&self.name)) else {
            return false;
        };
        let version = rest
            .strip_prefix('-')
            .map(|it| it.strip_prefix('v').unwrap_or(it));
        rest.is_empty()
            || version.is_some_and(|it| it.starts_with(|first: char| first.is_ascii_digit()))
    }

    /// Refuses what is not one version. `lock` is the file that would say which one of a range.
    fn refuse_range(&self, lock: &str) -> Result<()> {
        let version = &self.version;
        version::range(version)?;
        ensure!(
            version::is_exact(version),
            "`{version}` is not one version, and no {lock} says which one\n\
             hint: `helm dependency update` writes {lock}; with `chart_override`, which has none, write the version itself"
        );
        Ok(())
    }

    /// Where to fetch it in a version.
    fn remote(&self, version: &str) -> Result<Remote> {
        let is_address = ["https://", "http://", "oci://"]
            .iter()
            .any(|it| self.repository.starts_with(it));
        ensure!(
            is_address,
            "charts/ does not have version {version}, and the repository `{}` is not an address",
            http::without_password(&self.repository)
        );
        Ok(Remote {
            name: Name::new(&self.name)?,
            version: version.to_owned(),
            repository: self.repository.clone(),
        })
    }
}

/// Identifies everything that goes into a prepared chart.
fn key(files: &Content, parts: &[DependencySource]) -> Result<String> {
    let mut digest = PartsDigest::default();
    digest.add(FORMAT.as_bytes());
    add_files(&mut digest, files);
    for part in parts {
        add_dependency(&mut digest, part)?;
    }
    Ok(digest.name())
}

fn add_dependency(digest: &mut PartsDigest, part: &DependencySource) -> Result<()> {
    match part {
        DependencySource::Folder(source) => {
            // Not the whole path: another machine has its cache elsewhere.
            let name = source.prepared.file_name().expect("it lies in the cache");
            digest.add(name.as_encoded_bytes());
        }
        DependencySource::InCharts(vendored) => add_files(digest, &vendored.content),
        DependencySource::Remote(remote) => {
            digest.add(remote.name.as_bytes());
            digest.add(remote.version.as_bytes());
            digest.add(remote.repository.as_bytes());
        }
    }
    Ok(())
}

fn add_files(digest: &mut PartsDigest, files: &Content) {
    for (path, content) in files {
        digest.add(path.as_os_str().as_encoded_bytes());
        digest.add(content);
    }
}
