//! Charts as helm needs them: dependencies of the right versions in place, schemas as JSON. They are prepared in the
//! cache, once for each content; the work tree isn't written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use semver::VersionReq;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use xshell::Shell;

use self::fetch::Remote;
use crate::{paths, process, secrets::is_called_secret, settings::Settings};

mod archive;
mod dialect;
mod embed;
pub(crate) mod fetch;
mod format;
mod load;
pub(crate) mod pattern;
mod schema;

pub(crate) use self::{
    load::Loader,
    schema::{Schema, Unusable},
};

/// Part of each prepared chart's name: one that is prepared in another way gets another name.
const FORMAT: &str = "2";

#[derive(Deserialize)]
struct Metadata {
    name: String,
    version: String,
    dependencies: Option<Vec<Dependency>>,
}

#[derive(Default, Deserialize)]
struct Lock {
    #[serde(default)]
    dependencies: Vec<Dependency>,
}

/// As in Chart.yaml, where the version may be a range, and as in Chart.lock, where it's exact.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Dependency {
    name: String,
    version: String,
    repository: String,
    alias: String,
    condition: String,
    tags: Vec<String>,
    #[serde(rename = "import-values")]
    import_values: Vec<Value>,
}

/// A chart in the repository, with all that goes into its prepared form.
struct Source {
    /// What people know it by, in messages.
    shown: String,
    metadata: Metadata,
    /// The chart's own files by their paths in it, without those in charts/ that a dependency provides.
    files: BTreeMap<PathBuf, Vec<u8>>,
    parts: Vec<Part>,
    /// Dependencies by name, and what is wrong with them: then the chart can't be prepared.
    problems: Vec<(String, String)>,
    /// Where the prepared chart is, or will be.
    prepared: PathBuf,
}

/// Where one dependency comes from.
enum Part {
    /// `file://`: another folder, prepared like this one.
    Folder(Source),
    /// An archive or folder in charts/ that has the right version.
    InCharts(PathBuf),
    /// To be fetched from a repository.
    Remote(Remote),
}

/// Prepares the charts in these folders, relative to the root, and returns for each the folder to give to helm.
/// What the cache lacks of all their dependencies is fetched at once.
pub(crate) fn prepare(
    sh: &Shell,
    root: &Path,
    settings: &Settings,
    charts: BTreeSet<PathBuf>,
) -> Result<BTreeMap<PathBuf, Result<PathBuf>>> {
    let read = |chart: &Path| {
        Source::read(
            &root.join(chart),
            &chart.display().to_string(),
            root,
            &mut Vec::new(),
        )
    };
    let sources: Vec<_> = charts.into_iter().map(|it| (read(&it), it)).collect();
    let mut missing = BTreeSet::new();
    for source in sources
        .iter()
        .filter_map(|(source, _)| source.as_ref().ok())
    {
        // A chart that is prepared is read from its archives, too, for what it is by its values.
        let is_missing =
            |it: &&Remote| !it.archive().is_ok_and(|it| it.is_file()) || !source.prepared.is_dir();
        missing.extend(
            source
                .remotes()
                .into_iter()
                .map(|(_, remote)| remote)
                .filter(is_missing),
        );
    }
    let missing: Vec<_> = missing.into_iter().collect();
    let fetched = process::side_by_side(sh, &missing, |sh, it| it.fetch(sh, settings));
    let fetched = missing.into_iter().zip(fetched).collect();
    let prepare = |source: &Result<Source>| match source {
        Ok(source) => source.prepare(settings, &fetched),
        Err(err) => bail!("{err:#}"),
    };
    Ok(sources
        .iter()
        .map(|(source, chart)| (chart.clone(), prepare(source)))
        .collect())
}

/// The dependency of this name in a prepared chart, however deep: its version, and the CRDs in it, if it has any.
pub(crate) fn dependency(prepared: &Path, name: &str) -> Result<Option<(String, String)>> {
    for path in children(&prepared.join("charts"))? {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if !path.is_dir() && !file.starts_with(name) {
            continue;
        }
        let found = metadata(&path)?;
        if found.name == name {
            let files = files_of(&path)?;
            let crds = files.iter().filter(|(path, _)| path.starts_with("crds"));
            let crds = crds.map(|(_, content)| String::from_utf8_lossy(content));
            return Ok(Some((
                found.version,
                crds.collect::<Vec<_>>().join("\n---\n"),
            )));
        }
        if path.is_dir()
            && let Some(below) = dependency(&path, name)?
        {
            return Ok(Some(below));
        }
    }
    Ok(None)
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
    !load::without_ignored(files, fs::read(root.join(chart).join(".helmignore")).ok()).is_empty()
}

impl Metadata {
    fn dependencies(&self) -> &[Dependency] {
        self.dependencies.as_deref().unwrap_or_default()
    }
}

impl Source {
    /// `above` holds the charts that depend on this one.
    fn read(dir: &Path, shown: &str, root: &Path, above: &mut Vec<PathBuf>) -> Result<Source> {
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
        Ok(Source {
            shown: shown.to_string(),
            files,
            metadata,
            parts,
            problems,
            prepared,
        })
    }

    /// All dependencies to be fetched, also those of folders, each with the chart that wants it.
    fn remotes(&self) -> Vec<(&str, &Remote)> {
        let remotes = self.parts.iter().map(|part| match part {
            Part::Folder(source) => source.remotes(),
            Part::InCharts(_) => Vec::new(),
            Part::Remote(remote) => vec![(self.shown.as_str(), remote)],
        });
        remotes.flatten().collect()
    }

    fn with_dependency(&self, name: &str, problem: &str) -> String {
        format!("{}/Chart.yaml: dependency `{name}`: {problem}", self.shown)
    }

    /// `fetched` has the archives that the cache lacked.
    fn prepare(
        &self,
        settings: &Settings,
        fetched: &BTreeMap<&Remote, Result<PathBuf>>,
    ) -> Result<PathBuf> {
        let wrong = self
            .problems
            .iter()
            .map(|(name, problem)| self.with_dependency(name, problem));
        let wrong: Vec<_> = wrong.collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        let problem = |(chart, remote): (&str, &Remote)| {
            let err = fetched.get(remote)?.as_ref().err()?;
            Some(format!(
                "{chart}/Chart.yaml: dependency `{}`: {err:#}",
                remote.name
            ))
        };
        let problems: Vec<_> = self.remotes().into_iter().filter_map(problem).collect();
        ensure!(
            problems.is_empty(),
            "{}\n{}",
            problems.join("\n"),
            fetch::HINT
        );

        let prepared = &self.prepared;
        if prepared.is_dir() {
            return Ok(prepared.clone());
        }
        let name = prepared
            .file_name()
            .expect("it has a name")
            .to_string_lossy();
        let charts = prepared.parent().expect("it lies in the cache");
        let _lock = paths::lock(
            &charts.join("locks").join(&*name),
            &format!("prepares the chart `{}`", self.shown),
        )?;
        if prepared.is_dir() {
            return Ok(prepared.clone());
        }
        let part = charts.join(format!(".{name}.part"));
        paths::remove_dir(&part)?;
        let mut files = self.files.clone();
        self.schemas_as_json(&mut files)?;
        complete_schemas(&mut files, settings).with_context(|| self.shown.clone())?;
        write_files(&files, &part)?;
        for dependency in &self.parts {
            match dependency {
                Part::Folder(source) => {
                    let to = part.join("charts").join(&source.metadata.name);
                    write_files(&files_of(&source.prepare(settings, fetched)?)?, &to)?;
                }
                Part::InCharts(chart) => put(chart, &part.join("charts"), settings)?,
                Part::Remote(remote) => match fetched.get(remote) {
                    Some(Ok(archive)) => put(archive, &part.join("charts"), settings)?,
                    _ => bail!("the cache lost `{}` meanwhile\nhint: try again", self.shown),
                },
            }
        }
        fs::rename(&part, prepared)
            .with_context(|| format!("cannot make `{}`", prepared.display()))?;
        Ok(prepared.clone())
    }

    /// helm reads only values.schema.json; people write values.schema.yaml.
    fn schemas_as_json(&self, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
        for (path, content) in &self.files {
            if path
                .file_name()
                .is_some_and(|it| it == "values.schema.yaml")
            {
                let schema: Value = serde_yaml::from_slice(content).with_context(|| {
                    format!("{}/{}: not a schema in YAML", self.shown, path.display())
                })?;
                files.insert(
                    path.with_extension("json"),
                    serde_json::to_vec_pretty(&schema)?,
                );
            }
        }
        Ok(())
    }
}

/// Stands for everything that goes into a prepared chart.
fn key(files: &BTreeMap<PathBuf, Vec<u8>>, parts: &[Part]) -> Result<String> {
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
            Part::Folder(source) => add(source.prepared.as_os_str().as_encoded_bytes()),
            Part::InCharts(path) => {
                let mut files = BTreeMap::new();
                read_files(path, Path::new(""), &mut files)?;
                for (path, content) in &files {
                    add(path.as_os_str().as_encoded_bytes());
                    add(content);
                }
            }
            Part::Remote(Remote {
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

/// Puts into the schemas among a chart's files what they refer to elsewhere; whether there is any.
fn complete_schemas(files: &mut BTreeMap<PathBuf, Vec<u8>>, settings: &Settings) -> Result<bool> {
    let mut any = false;
    for (path, content) in files
        .iter_mut()
        .filter(|(path, _)| path.ends_with("values.schema.json"))
    {
        let mut schema: Value = serde_json::from_slice(content)
            .with_context(|| format!("{}: not a schema in JSON", path.display()))?;
        if embed::embed(&mut schema, settings).with_context(|| path.display().to_string())? {
            *content = serde_json::to_vec(&schema)?;
            any = true;
        }
    }
    Ok(any)
}

/// Puts a dependency into a prepared chart's folder `charts`: as it is, if nothing in it has to change.
fn put(chart: &Path, charts: &Path, settings: &Settings) -> Result<()> {
    let name = chart.file_name().expect("it lies in a folder");
    let mut files = files_of(chart)?;
    if complete_schemas(&mut files, settings)
        .with_context(|| name.to_string_lossy().into_owned())?
        || chart.is_dir()
    {
        return write_files(&files, &charts.join(metadata(chart)?.name));
    }
    write(&charts.join(name), &fs::read(chart)?)
}

impl Dependency {
    /// Whether something of this name in charts/ would be read as this dependency: `NAME` or `NAME-1.2.3.tgz`.
    fn may_be(&self, in_charts: &Path) -> bool {
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

    fn find(
        &self,
        dir: &Path,
        root: &Path,
        lock: &Lock,
        vendored: &[PathBuf],
        above: &mut Vec<PathBuf>,
    ) -> Result<Part> {
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
            let source = Source::read(&dir.join(path), path, root, above)?;
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
            return Ok(Part::Folder(source));
        }
        let version = match locked {
            Some(locked) => &locked.version,
            None => &self.version,
        };
        for path in vendored {
            if self.may_be(Path::new(path.file_name().expect("it lies in charts/"))) {
                let found = metadata(path)?;
                if found.name == self.name && satisfies(&found.version, version)? {
                    return Ok(Part::InCharts(path.clone()));
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
        Ok(Part::Remote(Remote {
            name: self.name.clone(),
            version: version.clone(),
            repository: self.repository.clone(),
        }))
    }
}

/// Whether a version is the wanted one, or in the wanted range as Helm writes ranges: `1.2.3`, `~1.2`, `>=1.2 <2`,
/// `1.x || 2.x`. No wish is any version.
pub(crate) fn satisfies(version: &str, wanted: &str) -> Result<bool> {
    if wanted.is_empty() || version == wanted {
        return Ok(true);
    }
    let plain = |it: &str| semver::Version::parse(it.trim().trim_start_matches('v'));
    let version = plain(version).with_context(|| format!("`{version}` isn't a version"))?;
    if let Ok(wanted) = plain(wanted) {
        return Ok(version == wanted);
    }
    for range in wanted.split("||") {
        let joined: Vec<_> = range
            .split([' ', ','])
            .filter(|it| !it.is_empty())
            .collect();
        let range = VersionReq::parse(&joined.join(", "))
            .with_context(|| format!("cannot understand the version `{wanted}`"))?;
        if range.matches(&version) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The Chart.yaml of a folder or an archive.
fn metadata(chart: &Path) -> Result<Metadata> {
    if chart.is_dir() {
        return read_yaml(&chart.join("Chart.yaml"))
            .with_context(|| format!("`{}` isn't a chart", chart.display()));
    }
    let files = archive::files(chart)?;
    let text = files.get(Path::new("Chart.yaml"));
    let text = text.with_context(|| format!("`{}` has no Chart.yaml", chart.display()))?;
    serde_yaml::from_slice(text).with_context(|| format!("`{}`: Chart.yaml", chart.display()))
}

/// The files of a folder or an archive by their paths in the chart.
fn files_of(chart: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    if !chart.is_dir() {
        return archive::files(chart);
    }
    let mut files = BTreeMap::new();
    read_files(chart, Path::new(""), &mut files)?;
    Ok(files)
}

fn read_yaml<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    Ok(serde_yaml::from_str(&text)?)
}

/// All files at or below `dir`/`path`, links followed. What is called secret is no part of a chart, unless helm
/// would render it: a cache must not hold what somebody decrypted beside it.
fn read_files(dir: &Path, path: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    // Joining an empty path would add a slash, which no file's path may end with.
    let full = if path.as_os_str().is_empty() {
        dir.to_owned()
    } else {
        dir.join(path)
    };
    let context = || format!("cannot read `{}`", full.display());
    ensure!(
        !paths::leads_back(&full),
        "`{}` leads back to a folder that it is in",
        full.display()
    );
    if full.metadata().with_context(context)?.is_file() {
        files.insert(path.to_owned(), fs::read(&full).with_context(context)?);
        return Ok(());
    }
    for child in children(&full)? {
        let name = child.file_name().expect("it lies in a folder");
        let rendered = ["templates", "charts", "crds"]
            .iter()
            .any(|it| path.starts_with(it));
        if name != ".git" && (rendered || !is_called_secret(&child)) {
            read_files(dir, &path.join(name), files)?;
        }
    }
    Ok(())
}

/// What lies in a folder, sorted; nothing if it isn't there.
fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read `{}`", dir.display()))?;
    let mut children = entries
        .map(|it| Ok(it?.path()))
        .collect::<Result<Vec<_>>>()?;
    children.sort();
    Ok(children)
}

fn write_files(files: &BTreeMap<PathBuf, Vec<u8>>, to: &Path) -> Result<()> {
    files
        .iter()
        .try_for_each(|(path, content)| write(&to.join(path), content))
}

fn write(file: &Path, content: &[u8]) -> Result<()> {
    fs::create_dir_all(file.parent().expect("a file lies in a folder"))?;
    fs::write(file, content).with_context(|| format!("cannot write `{}`", file.display()))
}
