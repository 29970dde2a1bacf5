//! A chart of the repository with its subcharts, as helm would load it once prepared, for computing values: in memory,
//! from folders, archives and what the cache has. A subchart that can't be had without a network is an empty one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    charts::{
        archive,
        files::{Content, files_of},
        ignore::without_ignored,
        metadata::{Dependency, Metadata},
        source::{ChartSource, DependencySource},
        values::{self, Chart},
        version::satisfies,
    },
    schema::{Retriever, Schema, Unusable},
    yaml::{self, Data, Files, Finding, Map, Node, Place},
};

/// Reads charts, and remembers what several of them have.
pub(crate) struct Loader<'a> {
    root: &'a Path,
    /// Has what schemas refer to elsewhere.
    retrieve: Retriever,
    files: &'a mut Files,
    schemas: BTreeMap<Vec<u8>, Arc<Result<Schema, Unusable>>>,
    /// What is wrong in charts that are usable nevertheless: where, and what.
    pub(crate) problems: Vec<(u32, Finding)>,
}

/// Where people find a chart's files.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// In a folder, by its path from the root. In one of ours values.schema.yaml comes first.
    Folder { path: &'a Path, is_ours: bool },
    /// In an archive: at the dependency that names it.
    Archive(Place),
}

impl<'a> Loader<'a> {
    pub(crate) fn new(root: &'a Path, retrieve: Retriever, files: &'a mut Files) -> Loader<'a> {
        Loader {
            root,
            retrieve,
            files,
            schemas: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// The chart in a folder, by its path from the root.
    pub(crate) fn load(&mut self, chart: &Path) -> Result<Chart> {
        let source = ChartSource::read(
            &self.root.join(chart),
            &chart.display().to_string(),
            self.root,
            &mut Vec::new(),
        )?;
        let rules = source.files.get(Path::new(".helmignore")).cloned();
        self.source(ChartSource {
            files: without_ignored(source.files, rules),
            ..source
        })
    }

    fn source(&mut self, source: ChartSource) -> Result<Chart> {
        let dir = PathBuf::from(&source.shown);
        let number = self.files.add(&dir.join("Chart.yaml"));
        let written = source
            .files
            .get(Path::new("Chart.yaml"))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let written = yaml::read(written, number)
            .map_or_else(|_| Node::nowhere(Data::Null), |(node, _)| node);
        let listed = written
            .get(&["dependencies"])
            .and_then(Node::as_list)
            .unwrap_or_default();
        let place = |name: &str| {
            let entry = listed
                .iter()
                .filter_map(|it| it.get(&["name"]))
                .find(|it| it.as_text() == Some(name));
            entry.and_then(|it| it.at).unwrap_or(Place {
                file: number,
                line: 1,
                column: 1,
            })
        };
        for (name, problem) in &source.problems {
            let message = format!("dependency `{name}`: {problem}");
            self.problems.push((
                number,
                Finding::problem("chart", Some(place(name)), message),
            ));
        }
        let mut chart = self.chart(
            &source.files,
            Origin::Folder {
                path: &dir,
                is_ours: true,
            },
        )?;
        for part in source.parts {
            let subchart = match part {
                DependencySource::Folder(source) => self.source(source)?,
                DependencySource::InCharts(path) if path.is_dir() => {
                    let path = path.strip_prefix(self.root).unwrap_or(&path);
                    self.chart(
                        &files_of(&self.root.join(path))?,
                        Origin::Folder {
                            path,
                            is_ours: false,
                        },
                    )?
                }
                DependencySource::InCharts(path) => self.archive(&path, place)?,
                DependencySource::Remote(remote) => match remote.archive()? {
                    path if path.is_file() => self.archive(&path, place)?,
                    _ => continue,
                },
            };
            chart.subcharts.push(subchart);
        }
        for wanted in source.metadata.dependencies() {
            let is_it = |it: &Chart| {
                it.name == wanted.name && satisfies(&it.version, &wanted.version).unwrap_or(false)
            };
            if !chart.subcharts.iter().any(is_it) {
                chart.subcharts.push(Chart {
                    name: wanted.name.clone(),
                    version: wanted.version.clone(),
                    at: place(&wanted.name),
                    defaults: Map::new(),
                    schema: None,
                    dependencies: None,
                    subcharts: Vec::new(),
                    is_missing: true,
                });
            }
        }
        Ok(chart)
    }

    fn archive(&mut self, path: &Path, place: impl Fn(&str) -> Place) -> Result<Chart> {
        let files = archive::files(path)?;
        let metadata = metadata(&files).with_context(|| format!("`{}`", path.display()))?;
        self.chart(&files, Origin::Archive(place(&metadata.name)))
    }

    /// From a chart's files by their paths in it, with what lies in charts/.
    fn chart(&mut self, files: &Content, origin: Origin) -> Result<Chart> {
        let metadata = metadata(files)?;
        let (defaults, schema) = (self.defaults(files, origin), self.schema(files, origin));
        let mut subcharts = Vec::new();
        for (name, content) in in_charts(files) {
            let subchart = match origin {
                _ if name.ends_with(".tgz") => {
                    let at = Place {
                        file: self.file(origin, &format!("charts/{name}")),
                        line: 1,
                        column: 1,
                    };
                    let archive = content
                        .get(Path::new(""))
                        .map(Vec::as_slice)
                        .unwrap_or_default();
                    archive::unpack(archive).and_then(|it| self.chart(&it, Origin::Archive(at)))
                }
                Origin::Folder { path, is_ours } => self.chart(
                    &content,
                    Origin::Folder {
                        path: &path.join("charts").join(&name),
                        is_ours,
                    },
                ),
                archive => self.chart(&content, archive),
            };
            subcharts.push(subchart.with_context(|| format!("charts/{name}"))?);
        }
        let at = match origin {
            Origin::Archive(at) => at,
            Origin::Folder { .. } => Place {
                file: self.file(origin, "Chart.yaml"),
                line: 1,
                column: 1,
            },
        };
        let dependencies = metadata
            .dependencies
            .map(|it| it.into_iter().map(Dependency::in_values).collect());
        let Metadata { name, version, .. } = metadata;
        Ok(Chart {
            name,
            version,
            at,
            defaults,
            schema,
            dependencies,
            subcharts,
            is_missing: false,
        })
    }

    fn file(&mut self, origin: Origin, name: &str) -> u32 {
        match origin {
            Origin::Folder { path, .. } => self.files.add(&path.join(name)),
            Origin::Archive(at) => at.file,
        }
    }

    fn defaults(&mut self, files: &Content, origin: Origin) -> Map {
        let Some(content) = files.get(Path::new("values.yaml")) else {
            return Map::new();
        };
        let number = self.file(origin, "values.yaml");
        let (read, findings) = match yaml::read(content, number) {
            Ok((read, findings)) => (read, findings),
            Err(problem) => (Node::nowhere(Data::Null), vec![problem]),
        };
        for finding in findings.into_iter().filter(|it| !it.is_warning) {
            match origin {
                Origin::Folder { .. } => self.problems.push((number, finding)),
                // Nobody here can mend what helm takes.
                Origin::Archive(at) if finding.rule == "yaml" => {
                    let message = format!(
                        "its values.yaml, line {}: {}",
                        finding.line, finding.message
                    );
                    self.problems
                        .push((number, Finding::problem("yaml", Some(at), message)));
                }
                Origin::Archive(_) => {}
            }
        }
        let Data::Map(mut defaults) = read.data else {
            return Map::new();
        };
        if let Origin::Archive(at) = origin {
            defaults.values_mut().for_each(|it| it.move_to(at));
        }
        defaults
    }

    fn schema(
        &mut self,
        files: &Content,
        origin: Origin,
    ) -> Option<(Place, Arc<Result<Schema, Unusable>>)> {
        let mut names = ["values.schema.json", "values.schema.yaml"];
        if let Origin::Folder { is_ours: true, .. } = origin {
            names.reverse();
        }
        let (name, content) = names
            .iter()
            .find_map(|it| Some((it, files.get(Path::new(it))?)))?;
        // helm takes a byte order mark away wherever it reads a chart.
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let at = match origin {
            Origin::Archive(at) => at,
            Origin::Folder { .. } => Place {
                file: self.file(origin, name),
                line: 1,
                column: 1,
            },
        };
        let retrieve = self.retrieve.clone();
        let compile = || {
            let text: Result<Value, String> = match name.ends_with("json") {
                true => serde_json::from_slice(content).map_err(|err| err.to_string()),
                false => serde_yaml::from_slice(content).map_err(|err| err.to_string()),
            };
            Arc::new(match text {
                Ok(text) => Schema::compile(text, retrieve),
                Err(err) => Err(Unusable::Broken(err)),
            })
        };
        let schema = self.schemas.entry(content.to_vec()).or_insert_with(compile);
        Some((at, schema.clone()))
    }
}

impl Dependency {
    fn over(self, before: Dependency) -> Dependency {
        let text = |it: String, before: String| if it.is_empty() { before } else { it };
        let list = |it: Vec<_>, before: Vec<_>| if it.is_empty() { before } else { it };
        Dependency {
            name: text(self.name, before.name),
            version: text(self.version, before.version),
            repository: text(self.repository, before.repository),
            alias: text(self.alias, before.alias),
            condition: text(self.condition, before.condition),
            tags: if self.tags.is_empty() {
                before.tags
            } else {
                self.tags
            },
            import_values: list(self.import_values, before.import_values),
        }
    }

    fn in_values(self) -> values::Dependency {
        let as_path = |it: &Value| match it {
            Value::String(name) => Some((format!("exports.{name}"), ".".to_owned())),
            Value::Object(_) => {
                let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
                Some((text("child"), text("parent")))
            }
            _ => None,
        };
        let imports = self.import_values.iter().filter_map(as_path).collect();
        let Dependency {
            name,
            version,
            alias,
            condition,
            tags,
            ..
        } = self;
        values::Dependency {
            name,
            version,
            alias,
            condition,
            tags,
            imports,
        }
    }
}

/// Chart.yaml, with the dependencies of requirements.yaml, where charts of Helm 2 have theirs.
fn metadata(files: &Content) -> Result<Metadata> {
    let text = files
        .get(Path::new("Chart.yaml"))
        .context("there is no Chart.yaml")?;
    let mut metadata: Metadata = serde_yaml::from_slice(text).context("Chart.yaml")?;
    if let Some(text) = files.get(Path::new("requirements.yaml")) {
        let requirements: Option<Requirements> =
            serde_yaml::from_slice(text).context("requirements.yaml")?;
        if let Some(listed) = requirements.and_then(|it| it.dependencies) {
            // Go reads it over what is there, entry by entry and field by field.
            let mut before = metadata.dependencies.unwrap_or_default().into_iter();
            let over = |it: Dependency| it.over(before.next().unwrap_or_default());
            metadata.dependencies = Some(listed.into_iter().map(over).collect());
        }
    }
    Ok(metadata)
}

#[derive(Deserialize)]
struct Requirements {
    dependencies: Option<Vec<Dependency>>,
}

/// What lies in charts/, by name: the files of a folder by their paths in it, or an archive at the empty path.
fn in_charts(files: &Content) -> BTreeMap<String, Content> {
    let mut found: BTreeMap<String, Content> = BTreeMap::new();
    for (path, content) in files {
        let Ok(path) = path.strip_prefix("charts") else {
            continue;
        };
        let Some(name) = path
            .iter()
            .next()
            .map(|it| it.to_string_lossy().into_owned())
        else {
            continue;
        };
        if !name.starts_with(['_', '.']) && !name.ends_with(".prov") {
            let within = path.iter().skip(1).collect();
            found
                .entry(name)
                .or_default()
                .insert(within, content.clone());
        }
    }
    found
}
