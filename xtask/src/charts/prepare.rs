//! Charts as helm needs them: dependencies of the right versions in place, schemas as JSON. They are prepared in the
//! cache, once for each content; the work tree isn't written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xshell::Shell;

use crate::{
    charts::{
        embed,
        fetch::{self, Remote},
        files::{children, files_of, write, write_files},
        metadata::metadata,
        source::{ChartSource, DependencySource},
    },
    machine::{parallel, paths},
    settings::Settings,
};

/// Prepares the charts in these folders, relative to the root, and returns for each the folder to give to helm.
/// What the cache lacks of all their dependencies is fetched at once.
pub(crate) fn prepare(
    sh: &Shell,
    root: &Path,
    settings: &Settings,
    charts: BTreeSet<PathBuf>,
) -> Result<BTreeMap<PathBuf, Result<PathBuf>>> {
    let read = |chart: &Path| {
        ChartSource::read(
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
    let fetched = parallel::side_by_side(sh, &missing, |sh, it| it.fetch(sh, settings));
    let fetched = missing.into_iter().zip(fetched).collect();
    let prepare = |source: &Result<ChartSource>| match source {
        Ok(source) => source.prepare(settings, &fetched),
        Err(err) => bail!("{err:#}"),
    };
    Ok(sources
        .iter()
        .map(|(source, chart)| (chart.clone(), prepare(source)))
        .collect())
}

impl ChartSource {
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
                DependencySource::Folder(source) => {
                    let to = part.join("charts").join(&source.metadata.name);
                    write_files(&files_of(&source.prepare(settings, fetched)?)?, &to)?;
                }
                DependencySource::InCharts(chart) => put(chart, &part.join("charts"), settings)?,
                DependencySource::Remote(remote) => match fetched.get(remote) {
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

/// Puts into the schemas among a chart's files what they refer to elsewhere; whether there is any.
pub(crate) fn complete_schemas(
    files: &mut BTreeMap<PathBuf, Vec<u8>>,
    settings: &Settings,
) -> Result<bool> {
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
pub(crate) fn put(chart: &Path, charts: &Path, settings: &Settings) -> Result<()> {
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
