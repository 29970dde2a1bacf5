//! A chart of the repository with all that goes into its prepared form.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::{
    charts::{
        fetch::Remote,
        files::{children, read_files, read_yaml},
        ignore::without_ignored,
        metadata::{Dependency, Lock, Metadata, metadata},
        version::satisfies,
    },
    machine::paths,
};

/// Part of each prepared chart's name: one that is prepared in another way gets another name.
const FORMAT: &str = "2";

/// A chart in the repository, with all that goes into its prepared form.
pub(crate) struct ChartSource {
    /// What people know it by, in messages.
    pub(crate) shown: String,
    pub(crate) metadata: Metadata,
    /// The chart's own files by their paths in it, without those in charts/ that a dependency provides.
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
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

/// The folders from the root whose files make up a chart: its own, and those that it depends on by `file://`, however
/// deep. A chart that isn't there has its own.
pub(crate) fn folders(root: &Path, chart: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut folders = BTreeSet::new();
    let mut left = vec![paths::lexical(chart)];
    while let Some(chart) = left.pop() {
        let file = chart.join("Chart.yaml");
        if folders.insert(chart.clone()) && root.join(&file).exists() {
            let metadata: Metadata = read_yaml(&root.join(&file))
                .with_context(|| format!("{}: not the description of a chart", file.display()))?;
            let near = metadata
                .dependencies()
                .iter()
                .filter_map(|it| it.repository.strip_prefix("file://"));
            left.extend(near.map(|it| paths::lexical(&chart.join(it))));
        }
    }
    Ok(folders)
}

/// Whether helm reads any of these files of a chart, by their paths in it. It doesn't read what .helmignore names, nor
/// does any template read what tells people of the chart.
pub(crate) fn reads_any<'a>(
    root: &Path,
    chart: &Path,
    files: impl Iterator<Item = &'a Path>,
) -> bool {
    let for_people = ["README.md", "CHANGELOG.md", "LICENSE"];
    let files = files.filter(|it| !for_people.iter().any(|name| *it == Path::new(name)));
    let files: BTreeMap<_, _> = files.map(|it| (it.to_owned(), Vec::new())).collect();
    !without_ignored(files, fs::read(root.join(chart).join(".helmignore")).ok()).is_empty()
}

impl ChartSource {
    /// `above` holds the charts that depend on this one.
    pub(crate) fn read(
        dir: &Path,
        shown: &str,
        root: &Path,
        above: &mut Vec<PathBuf>,
    ) -> Result<ChartSource> {
        let dir = dir
            .canonicalize()
            .with_context(|| format!("there is no chart `{shown}`"))?;
        let shown = dir.strip_prefix(root).unwrap_or(&dir).display();
        ensure!(
            !above.contains(&dir),
            "the chart `{shown}` depends on itself"
        );
        let metadata: Metadata = read_yaml(&dir.join("Chart.yaml"))
            .with_context(|| format!("{shown}/Chart.yaml: not the description of a chart"))?;
        let lock = match dir.join("Chart.lock") {
            file if file.exists() => read_yaml(&file)
                .with_context(|| format!("{shown}/Chart.lock: not a list of dependencies"))?,
            _ => Lock::default(),
        };
        let mut files = BTreeMap::new();
        read_files(&dir, Path::new(""), &mut files)
            .with_context(|| format!("cannot read the chart `{shown}`"))?;
        let known = |it: &Dependency| {
            metadata
                .dependencies()
                .iter()
                .any(|wanted| wanted.name == it.name && wanted.repository == it.repository)
        };
        if let Some(unknown) = lock.dependencies.iter().find(|it| !known(it)) {
            bail!(
                "{shown}/Chart.lock has `{}` from `{}`, and Chart.yaml doesn't\nhint: `helm dependency update`",
                unknown.name,
                unknown.repository
            );
        }
        let vendored: Vec<PathBuf> = children(&dir.join("charts"))?;
        above.push(dir.clone());
        let (mut parts, mut problems) = (Vec::new(), Vec::new());
        for wanted in metadata.dependencies() {
            match wanted.find(&dir, root, &lock, &vendored, above) {
                Ok(part) => parts.push(part),
                Err(err) => problems.push((wanted.name.clone(), format!("{err:#}"))),
            }
        }
        above.pop();
        let provided = |path: &Path| {
            let in_charts = path
                .strip_prefix("charts")
                .ok()
                .and_then(|it| it.iter().next());
            in_charts.is_some_and(|it| {
                metadata
                    .dependencies()
                    .iter()
                    .any(|dependency| dependency.may_be(Path::new(it)))
            })
        };
        files.retain(|path, _| !provided(path));
        let name = format!("{}-{}", metadata.name, key(&files, &parts)?);
        let prepared = paths::cache()?.join("charts").join(name);
        Ok(ChartSource {
            shown: shown.to_string(),
            files,
            metadata,
            parts,
            problems,
            prepared,
        })
    }

    /// All dependencies to be fetched, also those of folders, each with the chart that wants it.
    pub(crate) fn remotes(&self) -> Vec<(&str, &Remote)> {
        let remotes = self.parts.iter().map(|part| match part {
            DependencySource::Folder(source) => source.remotes(),
            DependencySource::InCharts(_) => Vec::new(),
            DependencySource::Remote(remote) => vec![(self.shown.as_str(), remote)],
        });
        remotes.flatten().collect()
    }
}

impl Dependency {
    /// Whether something of this name in charts/ would be read as this dependency: `NAME` or `NAME-1.2.3.tgz`.
    pub(crate) fn may_be(&self, in_charts: &Path) -> bool {
        let Some(rest) = in_charts
            .to_str()
            .and_then(|it| it.strip_prefix(&self.name))
        else {
            return false;
        };
        let version = rest
            .strip_prefix('-')
            .map(|it| it.strip_prefix('v').unwrap_or(it));
        rest.is_empty()
            || version.is_some_and(|it| it.starts_with(|first: char| first.is_ascii_digit()))
    }

    pub(crate) fn find(
        &self,
        dir: &Path,
        root: &Path,
        lock: &Lock,
        vendored: &[PathBuf],
        above: &mut Vec<PathBuf>,
    ) -> Result<DependencySource> {
        let locked = lock
            .dependencies
            .iter()
            .find(|it| it.name == self.name && it.repository == self.repository);
        if let Some(locked) = locked
            && !satisfies(&locked.version, &self.version)?
        {
            bail!(
                "Chart.lock has {}, and Chart.yaml wants {}\nhint: `helm dependency update`",
                locked.version,
                self.version
            );
        }
        if locked.is_none() && !lock.dependencies.is_empty() {
            bail!("Chart.lock doesn't have it\nhint: `helm dependency update`");
        }
        if let Some(path) = self.repository.strip_prefix("file://") {
            let source = ChartSource::read(&dir.join(path), path, root, above)?;
            let version = &source.metadata.version;
            ensure!(
                satisfies(version, &self.version)?,
                "`{path}` is {version}, and {} is wanted",
                self.version
            );
            if let Some(locked) = locked {
                ensure!(
                    locked.version == *version,
                    "`{path}` is {version}, and Chart.lock has {}\nhint: `helm dependency update`",
                    locked.version
                );
            }
            return Ok(DependencySource::Folder(source));
        }
        let version = match locked {
            Some(locked) => &locked.version,
            None => &self.version,
        };
        for path in vendored {
            if self.may_be(Path::new(path.file_name().expect("it lies in charts/"))) {
                let found = metadata(path)?;
                if found.name == self.name && satisfies(&found.version, version)? {
                    return Ok(DependencySource::InCharts(path.clone()));
                }
            }
        }
        ensure!(
            semver::Version::parse(version.trim_start_matches('v')).is_ok(),
            "`{version}` isn't one version, and there is no Chart.lock\nhint: `helm dependency update` writes one"
        );
        let reachable = ["https://", "http://", "oci://"]
            .iter()
            .any(|it| self.repository.starts_with(it));
        ensure!(
            reachable,
            "charts/ doesn't hold version {version}, and the repository `{}` isn't an address",
            self.repository
        );
        Ok(DependencySource::Remote(Remote {
            name: self.name.clone(),
            version: version.clone(),
            repository: self.repository.clone(),
        }))
    }
}

/// Stands for everything that goes into a prepared chart.
pub(crate) fn key(
    files: &BTreeMap<PathBuf, Vec<u8>>,
    parts: &[DependencySource],
) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update(bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    add(FORMAT.as_bytes());
    for (path, content) in files {
        add(path.as_os_str().as_encoded_bytes());
        add(content);
    }
    for part in parts {
        match part {
            DependencySource::Folder(source) => add(source.prepared.as_os_str().as_encoded_bytes()),
            DependencySource::InCharts(path) => {
                let mut files = BTreeMap::new();
                read_files(path, Path::new(""), &mut files)?;
                for (path, content) in &files {
                    add(path.as_os_str().as_encoded_bytes());
                    add(content);
                }
            }
            DependencySource::Remote(Remote {
                name,
                version,
                repository,
            }) => {
                [name, version, repository]
                    .iter()
                    .for_each(|it| add(it.as_bytes()));
            }
        }
    }
    Ok(paths::hex(&hash.finalize()[..16]))
}
