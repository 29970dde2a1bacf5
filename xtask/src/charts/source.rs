//! A chart of the repository with all that goes into its prepared form.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    charts::{
        archive::Content,
        fetch::Remote,
        files::{children, read_files},
        format::FORMAT,
        ignore::Ignore,
        metadata::{Dependency, Lock, Metadata},
        version::satisfies,
    },
    machine::{digest::PartsDigest, name::Name, paths},
    services::http,
};

/// A chart in the repository, with all that goes into its prepared form.
pub(crate) struct ChartSource {
    /// What people know it by, in messages.
    pub(crate) shown: String,
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
    Folder(ChartSource),
    /// An archive or folder in charts/ that has the right version.
    InCharts(PathBuf),
    /// To be fetched from a repository.
    Remote(Remote),
}

/// The folders, from the root, whose files make up a chart: its own, and those that it depends on by `file://`, however
/// deep. A chart that is not there has just its own.
pub(crate) fn folders(root: &Path, chart: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut folders = BTreeSet::new();
    let mut left = vec![paths::lexical(chart)];
    while let Some(chart) = left.pop() {
        let folder = root.join(&chart);
        if !folders.insert(chart.clone()) || !folder.join("Chart.yaml").exists() {
            continue;
        }
        let metadata = read_metadata(&folder, &chart.display().to_string())?;
        let near = metadata
            .dependencies()
            .iter()
            .filter_map(|it| it.repository.strip_prefix("file://"));
        left.extend(near.map(|it| paths::lexical(&chart.join(it))));
    }
    Ok(folders)
}

/// The metadata of the chart in a folder, which messages call `shown`.
fn read_metadata(folder: &Path, shown: &str) -> Result<Metadata> {
    Metadata::of_folder(folder)
        .with_context(|| format!("{shown}/Chart.yaml: not the description of a chart"))
}

/// Whether helm reads any of these files of a chart, by their paths in it. It does not read files that .helmignore names,
/// and no template reads those that tell people about the chart.
pub(crate) fn reads_any<'a>(
    root: &Path,
    chart: &Path,
    mut files: impl Iterator<Item = &'a Path>,
) -> bool {
    let for_people = ["README.md", "CHANGELOG.md", "LICENSE"].map(Path::new);
    let rules = fs::read(root.join(chart).join(".helmignore")).unwrap_or_default();
    let ignore = Ignore::parse(&rules);
    files.any(|file| !for_people.contains(&file) && !ignore.ignores(file))
}

impl ChartSource {
    /// Reads the chart in the folder `dir`, which messages call `shown` until it is found. `above` holds the charts that
    /// depend on this one.
    pub(crate) fn read(
        dir: &Path,
        shown: &str,
        root: &Path,
        above: &mut Vec<PathBuf>,
    ) -> Result<ChartSource> {
        let dir = dir
            .canonicalize()
            .with_context(|| format!("there is no chart `{shown}`"))?;
        let shown = dir.strip_prefix(root).unwrap_or(&dir).display().to_string();
        ensure!(
            !above.contains(&dir),
            "the chart `{shown}` depends on itself"
        );
        let metadata = read_metadata(&dir, &shown)?;
        let files = read_own_files(&dir, &shown, &metadata)?;
        let search = Search {
            dir: &dir,
            root,
            lock: read_lock(&dir, &shown, &metadata)?,
            vendored: children(&dir.join("charts"))?,
        };
        let (parts, problems) = search.find_all(metadata.dependencies(), above);
        let name = format!("{}-{}", metadata.name, key(&files, &parts)?);
        Ok(ChartSource {
            shown,
            files,
            metadata,
            parts,
            problems,
            prepared: paths::cache()?.join("charts").join(name),
        })
    }

    /// All dependencies to be fetched, also those of folders, each with the chart that wants it.
    pub(crate) fn remotes(&self) -> Vec<(&str, &Remote)> {
        let mut remotes = Vec::new();
        for part in &self.parts {
            match part {
                DependencySource::Folder(source) => remotes.extend(source.remotes()),
                DependencySource::InCharts(_) => {}
                DependencySource::Remote(remote) => remotes.push((self.shown.as_str(), remote)),
            }
        }
        remotes
    }
}

/// The files of the chart in a folder, without those in charts/ that a dependency provides.
fn read_own_files(dir: &Path, shown: &str, metadata: &Metadata) -> Result<Content> {
    let mut files = Content::new();
    read_files(dir, Path::new(""), &mut files)
        .with_context(|| format!("cannot read the chart `{shown}`"))?;
    files.retain(|path, _| !is_dependency(path, metadata));
    Ok(files)
}

/// The Chart.lock of the chart in a folder. A dependency in it that Chart.yaml does not have is an error.
fn read_lock(dir: &Path, shown: &str, metadata: &Metadata) -> Result<Lock> {
    let lock = Lock::of_folder(dir)
        .with_context(|| format!("{shown}/Chart.lock: not a list of dependencies"))?;
    for locked in &lock.dependencies {
        let is_known = metadata
            .dependencies()
            .iter()
            .any(|it| it.name == locked.name && it.repository == locked.repository);
        ensure!(
            is_known,
            "{shown}/Chart.lock has `{}` from `{}`, and Chart.yaml does not\nhint: `helm dependency update`",
            locked.name,
            http::without_password(&locked.repository)
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
    dir: &'a Path,
    root: &'a Path,
    lock: Lock,
    /// The paths of what is in charts/.
    vendored: Vec<PathBuf>,
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
            let source = ChartSource::read(&self.dir.join(path), path, self.root, above)?;
            check_name(path, &source.metadata.name, &wanted.name)?;
            check_version(path, &source.metadata.version, &wanted.version, locked)?;
            return Ok(DependencySource::Folder(source));
        }
        let version = locked.unwrap_or(&wanted.version);
        if let Some(path) = self.find_in_charts(wanted, version)? {
            return Ok(DependencySource::InCharts(path));
        }
        Ok(DependencySource::Remote(wanted.remote(version)?))
    }

    /// The version in Chart.lock, which has to be there if Chart.lock lists anything.
    fn locked_version(&self, wanted: &Dependency) -> Result<Option<&str>> {
        let mut locked = self.lock.dependencies.iter();
        let locked = locked.find(|it| it.name == wanted.name && it.repository == wanted.repository);
        let Some(locked) = locked else {
            ensure!(
                self.lock.dependencies.is_empty(),
                "Chart.lock does not list it\nhint: `helm dependency update`"
            );
            return Ok(None);
        };
        ensure!(
            satisfies(&locked.version, &wanted.version)?,
            "Chart.lock has {}, and Chart.yaml wants {}\nhint: `helm dependency update`",
            locked.version,
            wanted.version
        );
        Ok(Some(&locked.version))
    }

    fn find_in_charts(&self, wanted: &Dependency, version: &str) -> Result<Option<PathBuf>> {
        for path in &self.vendored {
            if wanted.may_be(Path::new(path.file_name().expect("it lies in charts/"))) {
                let found = Metadata::of(path)?;
                if *found.name == *wanted.name && satisfies(&found.version, version)? {
                    return Ok(Some(path.clone()));
                }
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

/// Refuses a chart in a folder whose version is not the wanted one.
fn check_version(path: &str, version: &str, wanted: &str, locked: Option<&str>) -> Result<()> {
    ensure!(
        satisfies(version, wanted)?,
        "`{path}` is {version}, and {wanted} is wanted"
    );
    match locked {
        Some(locked) if locked != version => bail!(
            "`{path}` is {version}, and Chart.lock has {locked}\nhint: `helm dependency update`"
        ),
        _ => Ok(()),
    }
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

    fn remote(&self, version: &str) -> Result<Remote> {
        ensure!(
            semver::Version::parse(version.trim_start_matches('v')).is_ok(),
            "`{version}` is not one version, and there is no Chart.lock\nhint: `helm dependency update` writes one"
        );
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
            digest.add(source.prepared.as_os_str().as_encoded_bytes());
        }
        DependencySource::InCharts(path) => {
            let mut files = Content::new();
            read_files(path, Path::new(""), &mut files)?;
            add_files(digest, &files);
        }
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
