//! Charts as helm needs them: dependencies of the right versions in place, schemas as JSON. They are prepared in the
//! cache, once for each content; nothing is written to the work tree.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use xshell::Shell;

use crate::{
    charts::{
        archive::{self, Content},
        chart_path::ChartPath,
        embed,
        fetch::{self, NotPublished, Remote},
        files::{cached_files, children, without_byte_order_mark, write, write_files},
        metadata::Metadata,
        source::{ChartSource, DependencySource},
    },
    machine::{parallel, paths, tree::Tree},
    settings::Settings,
    yaml,
};

/// For each chart the folder to give to helm.
pub(crate) type PreparedCharts = BTreeMap<ChartPath, Result<PathBuf>>;

/// Prepares these charts. All dependencies that the cache lacks are fetched at once.
pub(crate) fn prepare(
    sh: &Shell,
    tree: &Tree,
    settings: &Settings,
    charts: BTreeSet<ChartPath>,
) -> Result<PreparedCharts> {
    let mut sources = BTreeMap::new();
    for chart in charts {
        let source = ChartSource::read(tree, &chart);
        sources.insert(chart, source);
    }
    let missing = sources.values().flatten().flat_map(missing).collect();
    let fetched = fetch_all(sh, settings, missing);
    let mut prepared = BTreeMap::new();
    for (chart, source) in &sources {
        let folder = match source {
            Ok(source) => source.prepare(settings, &fetched),
            Err(err) => Err(anyhow!("{err:#}")),
        };
        prepared.insert(chart.clone(), folder);
    }
    Ok(prepared)
}

/// The archives that the cache lacked.
type Fetched<'a> = BTreeMap<&'a Remote, Result<PathBuf>>;

fn fetch_all<'a>(sh: &Shell, settings: &Settings, missing: BTreeSet<&'a Remote>) -> Fetched<'a> {
    let missing: Vec<_> = missing.into_iter().collect();
    let fetched = parallel::side_by_side(sh, &missing, |sh, it| it.fetch(sh, settings));
    missing.into_iter().zip(fetched).collect()
}

/// The dependencies to fetch. The archives of a chart that is prepared may be missing, too: its values are computed from
/// them.
fn missing(source: &ChartSource) -> Vec<&Remote> {
    let is_prepared = source.prepared.is_dir();
    let remotes = source.remotes().into_iter().map(|(_, remote)| remote);
    remotes
        .filter(|it| !is_prepared || !it.is_cached())
        .collect()
}

impl ChartSource {
    fn prepare(&self, settings: &Settings, fetched: &Fetched) -> Result<PathBuf> {
        self.refuse_problems(fetched)?;
        let work = format!("prepares the chart `{}`", self.shown);
        paths::made_once(&self.prepared, &work, |part| {
            let mut files = self.files.clone();
            self.schema_as_json(&mut files)?;
            complete_schemas(&mut files, settings).with_context(|| self.shown.clone())?;
            write_files(&files, part)?;
            for dependency in &self.parts {
                self.put_dependency(dependency, &part.join("charts"), settings, fetched)?;
            }
            Ok(())
        })?;
        Ok(self.prepared.clone())
    }

    fn refuse_problems(&self, fetched: &Fetched) -> Result<()> {
        let problems: Vec<_> = self
            .problems
            .iter()
            .map(|(name, problem)| with_dependency(&self.listed_in(), name, problem))
            .collect();
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        self.refuse_unavailable(fetched)
    }

    /// An error with all dependencies that could not be fetched, and why.
    fn refuse_unavailable(&self, fetched: &Fetched) -> Result<()> {
        let mut unavailable = Vec::new();
        let mut are_published = true;
        for (listed_in, remote) in self.remotes() {
            if let Some(Err(err)) = fetched.get(remote) {
                let why = format!("{err:#}");
                unavailable.push(with_dependency(&listed_in, &remote.name, &why));
                are_published &= !err.is::<NotPublished>();
            }
        }
        let message = format!("{}\n{}", unavailable.join("\n"), fetch::HINT);
        ensure!(are_published, NotPublished(message));
        ensure!(unavailable.is_empty(), "{message}");
        Ok(())
    }

    /// Puts a dependency into the folder `charts`.
    fn put_dependency(
        &self,
        dependency: &DependencySource,
        charts: &Path,
        settings: &Settings,
        fetched: &Fetched,
    ) -> Result<()> {
        match dependency {
            DependencySource::Folder(source) => {
                let files = cached_files(&source.prepare(settings, fetched)?)?;
                write_files(&files, &charts.join(&source.metadata.name))
            }
            DependencySource::InCharts(chart) => {
                let files = chart.files()?.into_owned();
                put(chart.name(), files, chart.archive(), charts, settings)
            }
            DependencySource::Remote(remote) => match fetched.get(remote) {
                Some(Ok(archive)) => {
                    let name = archive.file_name().expect("it lies in a folder");
                    let packed = fs::read(archive)?;
                    let files = archive::unpack(&packed)?;
                    put(name, files, Some(&packed), charts, settings)
                }
                _ => bail!("the cache lost `{}` meanwhile\nhint: try again", self.shown),
            },
        }
    }

    /// Adds a values.schema.json for the chart's values.schema.yaml: people write the latter, and helm reads only the former.
    fn schema_as_json(&self, files: &mut Content) -> Result<()> {
        let Some(content) = self.files.get(Path::new("values.schema.yaml")) else {
            return Ok(());
        };
        let schema: Value = yaml::parse(content)
            .with_context(|| format!("{}/values.schema.yaml: not a schema in YAML", self.shown))?;
        let json = serde_json::to_vec_pretty(&schema)?;
        files.insert("values.schema.json".into(), json);
        Ok(())
    }
}

fn with_dependency(listed_in: &Path, name: &str, problem: &str) -> String {
    format!("{}: dependency `{name}`: {problem}", listed_in.display())
}

/// Embeds into the schemas among a chart's files what they refer to elsewhere. Returns whether there is any.
fn complete_schemas(files: &mut Content, settings: &Settings) -> Result<bool> {
    let mut any = false;
    for (path, content) in files {
        if !path.ends_with("values.schema.json") {
            continue;
        }
        let mut schema: Value = serde_json::from_slice(without_byte_order_mark(content))
            .with_context(|| format!("{}: not a schema in JSON", path.display()))?;
        if embed::embed(&mut schema, settings).with_context(|| path.display().to_string())? {
            *content = serde_json::to_vec(&schema)?;
            any = true;
        }
    }
    Ok(any)
}

/// Puts a dependency into the folder `charts` of a prepared chart: as the archive that it comes in, if none of its schemas
/// has to change.
fn put(
    name: &OsStr,
    mut files: Content,
    archive: Option<&[u8]>,
    charts: &Path,
    settings: &Settings,
) -> Result<()> {
    let is_changed = complete_schemas(&mut files, settings)
        .with_context(|| name.to_string_lossy().into_owned())?;
    match archive {
        Some(archive) if !is_changed => write(&charts.join(name), archive),
        _ => write_files(&files, &charts.join(Metadata::of_files(&files)?.name)),
    }
}

/// The dependency of this name in a prepared chart, however deep: its version, and the CRDs in it, which may be empty.
pub(crate) fn dependency(prepared: &Path, name: &str) -> Result<Option<(String, String)>> {
    for path in children(&prepared.join("charts"))? {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if !path.is_dir() && !file.starts_with(name) {
            continue;
        }
        let found = Metadata::of(&path)?;
        if *found.name == *name {
            return Ok(Some((found.version, crds(&path)?)));
        }
        if path.is_dir()
            && let Some(below) = dependency(&path, name)?
        {
            return Ok(Some(below));
        }
    }
    Ok(None)
}

/// The CRDs of a chart as a stream of manifests.
fn crds(chart: &Path) -> Result<String> {
    let files = cached_files(chart)?;
    let crds: Vec<_> = files
        .iter()
        .filter(|(path, _)| path.starts_with("crds"))
        .map(|(_, content)| String::from_utf8_lossy(content))
        .collect();
    Ok(crds.join("\n---\n"))
}
