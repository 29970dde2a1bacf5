//! A chart of the repository with its subcharts, as helm would load it once prepared, for computing values: in memory,
//! from folders, archives and the cache. A subchart that would have to be fetched is an empty one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    charts::{
        archive::{self, Content},
        chart_path::ChartPath,
        files::without_byte_order_mark,
        metadata::{Dependency, Metadata},
        source::{ChartSource, DependencySource},
        values::{self, Chart, Import},
        version::satisfies,
    },
    machine::tree::Tree,
    schema::{Retriever, Schema, Unusable},
    yaml::{self, Data, Files, Finding, Map, Node, Place, unquoted},
};

/// A schema that values are held against, shared by all charts that have the same.
type SharedSchema = Arc<Result<Schema, Unusable>>;

/// Reads charts, each schema once.
pub(crate) struct Loader<'a> {
    tree: &'a Tree,
    /// Gets the schemas that others refer to.
    retrieve: Retriever,
    files: &'a mut Files,
    schemas: BTreeMap<Vec<u8>, SharedSchema>,
    /// Problems in charts that are usable nevertheless, each with the number of its file.
    pub(crate) problems: Vec<(u32, Finding)>,
}

/// The line and column where a template reads files that are called secret, as `.Files.Get "files/secrets/key"` does.
fn secret_file_in(template: &str) -> Option<(u32, u32)> {
    let mut lines = (1..).zip(template.lines());
    lines.find_map(|(number, line)| {
        let (before, reads) = line.split_once(".Files.")?;
        let column = before.chars().count() as u32 + 1;
        reads.contains("secret").then_some((number, column))
    })
}

/// Where people find a chart's files.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// A folder, by its path from the root. helm reads no values.schema.yaml: only that of a chart of ours counts, which is
    /// prepared as JSON, and none below charts/.
    Folder { path: &'a Path, is_ours: bool },
    /// An archive, at the dependency that names it.
    Archive(Place),
}

/// The file that lists a chart's dependencies, for the places in it.
struct DependencyList {
    node: Node,
    file: u32,
}

impl DependencyList {
    /// One that cannot be read is a problem elsewhere.
    fn read(source: &ChartSource, file: u32) -> DependencyList {
        let content = source.files.get(Path::new(source.metadata.listed_in));
        let read = yaml::read(content.map_or(&[], Vec::as_slice), file);
        let node = read.map_or_else(|_| Node::nowhere(Data::Null), |(node, _)| node);
        DependencyList { node, file }
    }

    /// The name of a dependency.
    fn place(&self, dependency: &str) -> Place {
        let listed = self.node.get(&["dependencies"]).and_then(Node::as_list);
        let mut names = listed
            .into_iter()
            .flatten()
            .filter_map(|it| it.get(&["name"]));
        let name = names.find(|it| it.as_text() == Some(dependency));
        name.and_then(|it| it.at)
            .unwrap_or(Place::start_of(self.file))
    }
}

impl<'a> Loader<'a> {
    pub(crate) fn new(tree: &'a Tree, retrieve: Retriever, files: &'a mut Files) -> Loader<'a> {
        Loader {
            tree,
            retrieve,
            files,
            schemas: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// The chart of a release.
    pub(crate) fn load(&mut self, chart: &ChartPath) -> Result<Chart> {
        let source = ChartSource::read(self.tree, chart)?;
        self.source(source)
    }

    fn source(&mut self, source: ChartSource) -> Result<Chart> {
        let dir = PathBuf::from(&source.shown);
        let number = self.files.add(&source.listed_in());
        let written = DependencyList::read(&source, number);
        self.report_problems(&source, &written);
        self.report_secret_files(&source);
        let origin = Origin::Folder {
            path: &dir,
            is_ours: true,
        };
        let mut chart = self.chart(&source.files, origin)?;
        chart.at = Place::start_of(number);
        for part in source.parts {
            let part = self.dependency(part, &written)?;
            self.report_deprecated(part.as_ref(), &written);
            chart.subcharts.extend(part);
        }
        for wanted in source.metadata.dependencies() {
            if !chart.subcharts.iter().any(|it| fits(it, wanted)) {
                let at = written.place(&wanted.name);
                chart.subcharts.push(missing(wanted, at));
            }
        }
        Ok(chart)
    }

    /// Reports what is wrong with a chart's dependencies.
    fn report_problems(&mut self, source: &ChartSource, written: &DependencyList) {
        for (name, problem) in &source.problems {
            let message = format!("dependency `{name}`: {problem}");
            let finding = Finding::problem("chart", Some(written.place(name)), message);
            self.problems.push((written.file, finding));
        }
    }

    /// Warns of templates that read files which are called secret: a prepared chart has none.
    fn report_secret_files(&mut self, source: &ChartSource) {
        let templates = source
            .files
            .iter()
            .filter(|(path, _)| path.starts_with("templates"));
        for (path, content) in templates {
            let text = String::from_utf8_lossy(content);
            let Some((line, column)) = secret_file_in(&text) else {
                continue;
            };
            let file = self.files.add(&Path::new(&source.shown).join(path));
            let at = Place { file, line, column };
            let message = "helm gets no files of a chart that are called secret, and so this template finds none: put their \
                           content into an encrypted values file";
            self.warn("chart", at, message);
        }
    }

    fn warn(&mut self, rule: &'static str, at: Place, message: impl Into<String>) {
        let finding = Finding {
            is_warning: true,
            ..Finding::problem(rule, Some(at), message)
        };
        self.problems.push((at.file, finding));
    }

    /// Warns of a dependency that gets no updates any more.
    fn report_deprecated(&mut self, part: Option<&Chart>, written: &DependencyList) {
        let Some(part) = part.filter(|it| it.is_deprecated) else {
            return;
        };
        let message = format!(
            "dependency `{}`: its makers call {} deprecated, and mend nothing in it any more; its README says what \
             replaces it",
            part.name, part.version
        );
        self.warn("deprecated", written.place(&part.name), message);
    }

    /// The chart of a dependency. None if it would have to be fetched.
    fn dependency(
        &mut self,
        part: DependencySource,
        written: &DependencyList,
    ) -> Result<Option<Chart>> {
        let chart = match part {
            DependencySource::Folder(source) => self.source(*source)?,
            DependencySource::InCharts(vendored) if vendored.archive().is_none() => {
                let origin = Origin::Folder {
                    path: &vendored.path,
                    is_ours: false,
                };
                self.chart(&*vendored.files()?, origin)?
            }
            DependencySource::InCharts(vendored) => {
                self.archive(&vendored.path, &*vendored.files()?, written)?
            }
            DependencySource::Remote(remote) => {
                let path = remote.archive()?;
                // One that cannot be read is fetched again before a deploy.
                let Ok(files) = archive::files(&path) else {
                    return Ok(None);
                };
                self.archive(&path, &files, written)?
            }
        };
        Ok(Some(chart))
    }

    /// The chart of an archive's files.
    fn archive(&mut self, path: &Path, files: &Content, written: &DependencyList) -> Result<Chart> {
        let metadata =
            Metadata::of_files(files).with_context(|| format!("`{}`", path.display()))?;
        self.chart(files, Origin::Archive(written.place(&metadata.name)))
    }

    /// The chart of these files, with what is in its charts/.
    fn chart(&mut self, files: &Content, origin: Origin) -> Result<Chart> {
        let metadata = Metadata::of_files(files)?;
        let defaults = self.defaults(files, origin);
        let schema = self.schema(files, origin);
        let mut subcharts = Vec::new();
        for (name, content) in in_charts(files) {
            let subchart = self.subchart(&name, &content, origin);
            subcharts.push(subchart.with_context(|| format!("charts/{name}"))?);
        }
        let dependencies = metadata
            .dependencies
            .map(|listed| listed.into_iter().map(Dependency::in_values).collect());
        Ok(Chart {
            name: metadata.name.to_string(),
            version: metadata.version,
            at: self.start(origin, "Chart.yaml"),
            lacks_defaults: defaults.is_none(),
            defaults: defaults.unwrap_or_default(),
            schema,
            dependencies,
            subcharts,
            is_missing: false,
            is_deprecated: metadata.deprecated,
        })
    }

    /// A chart in charts/ by its name there.
    fn subchart(&mut self, name: &str, content: &Content, origin: Origin) -> Result<Chart> {
        if name.ends_with(".tgz") {
            let file = self.file(origin, &format!("charts/{name}"));
            let archive = content.get(Path::new(""));
            let files = archive::unpack(archive.map_or(&[], Vec::as_slice))?;
            return self.chart(&files, Origin::Archive(Place::start_of(file)));
        }
        let path;
        let origin = match origin {
            Origin::Folder { path: above, .. } => {
                path = above.join("charts").join(name);
                Origin::Folder {
                    path: &path,
                    is_ours: false,
                }
            }
            archive => archive,
        };
        self.chart(content, origin)
    }

    /// The number of a chart's file.
    fn file(&mut self, origin: Origin, name: &str) -> u32 {
        match origin {
            Origin::Folder { path, .. } => self.files.add(&path.join(name)),
            Origin::Archive(at) => at.file,
        }
    }

    /// The start of a chart's file, or the place that stands for all of an archive.
    fn start(&mut self, origin: Origin, name: &str) -> Place {
        match origin {
            Origin::Folder { path, .. } => Place::start_of(self.files.add(&path.join(name))),
            Origin::Archive(at) => at,
        }
    }

    /// What values.yaml has; none if it cannot be read.
    fn defaults(&mut self, files: &Content, origin: Origin) -> Option<Map> {
        let Some(content) = files.get(Path::new("values.yaml")) else {
            return Some(Map::new());
        };
        let number = self.file(origin, "values.yaml");
        let (read, findings) = match yaml::read(content, number) {
            Ok((read, findings)) => (read, findings),
            Err(problem) => (Node::nowhere(Data::Null), vec![problem]),
        };
        let problems = findings.into_iter().filter(|it| !it.is_warning);
        let problems = problems.filter_map(|it| to_report(it, origin));
        self.problems.extend(problems.map(|it| (number, it)));
        let Data::Map(mut defaults) = read.data else {
            return None;
        };
        if let Origin::Archive(at) = origin {
            defaults.values_mut().for_each(|it| it.move_to(at));
        }
        Some(defaults)
    }

    fn schema(&mut self, files: &Content, origin: Origin) -> Option<(Place, SharedSchema)> {
        let in_yaml = matches!(origin, Origin::Folder { is_ours: true, .. })
            && files.contains_key(Path::new("values.schema.yaml"));
        let name = if in_yaml {
            "values.schema.yaml"
        } else {
            "values.schema.json"
        };
        let content = files.get(Path::new(name))?;
        let content = without_byte_order_mark(content);
        let at = self.start(origin, name);
        if let Some(known) = self.schemas.get(content) {
            return Some((at, known.clone()));
        }
        let schema = Arc::new(compile(name, content, self.retrieve.clone()));
        self.schemas.insert(content.to_vec(), schema.clone());
        Some((at, schema))
    }
}

/// Compiles the content of values.schema.json or values.schema.yaml.
fn compile(name: &str, content: &[u8], retrieve: Retriever) -> Result<Schema, Unusable> {
    let text = if name.ends_with("json") {
        serde_json::from_slice(content).map_err(|err| err.to_string())
    } else {
        yaml::parse(content).map_err(|err| format!("{err:#}"))
    };
    Schema::compile(text.map_err(Unusable::Broken)?, retrieve)
}

/// A problem of values.yaml as people can use it. Nobody here can mend what helm takes from an archive.
fn to_report(finding: Finding, origin: Origin) -> Option<Finding> {
    match origin {
        Origin::Folder { .. } => Some(finding),
        Origin::Archive(at) if finding.rule == "yaml" => Some(in_archive(&finding, at)),
        Origin::Archive(_) => None,
    }
}

/// A problem of an archive's values.yaml, at the dependency that names the archive.
fn in_archive(finding: &Finding, at: Place) -> Finding {
    let message = format!(
        "its values.yaml, line {}: {}",
        finding.line, finding.message
    );
    Finding::problem("yaml", Some(at), message)
}

/// Whether a chart is the one that a dependency names.
fn fits(chart: &Chart, wanted: &Dependency) -> bool {
    chart.name == wanted.name && satisfies(&chart.version, &wanted.version).unwrap_or(false)
}

/// Stands for a dependency that would have to be fetched.
fn missing(wanted: &Dependency, at: Place) -> Chart {
    Chart {
        name: wanted.name.clone(),
        version: wanted.version.clone(),
        at,
        defaults: Map::new(),
        lacks_defaults: false,
        schema: None,
        dependencies: None,
        subcharts: Vec::new(),
        is_missing: true,
        is_deprecated: false,
    }
}

impl Dependency {
    fn in_values(self) -> values::Dependency {
        values::Dependency {
            imports: self.import_values.iter().filter_map(import).collect(),
            name: self.name,
            version: self.version,
            alias: self.alias,
            condition: self.condition,
            tags: self.tags,
        }
    }
}

/// An entry of `import-values`: a name below `exports`, or a pair of paths.
fn import(entry: &Value) -> Option<Import> {
    match entry {
        Value::String(name) => Some(Import {
            child: format!("exports.{name}"),
            parent: ".".to_owned(),
        }),
        Value::Object(_) => Some(Import {
            child: printed(&entry["child"]),
            parent: printed(&entry["parent"]),
        }),
        _ => None,
    }
}

/// A value as Go prints it.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        _ => unquoted(value),
    }
}

/// What is in charts/, by name: the files of a folder by their paths in it, or an archive at the empty path.
fn in_charts(files: &Content) -> BTreeMap<String, Content> {
    let mut found: BTreeMap<String, Content> = BTreeMap::new();
    for (path, content) in files {
        let Ok(path) = path.strip_prefix("charts") else {
            continue;
        };
        let mut steps = path.iter();
        let Some(name) = steps.next() else {
            continue;
        };
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(['_', '.']) && !name.ends_with(".prov") {
            let files = found.entry(name).or_default();
            files.insert(steps.collect(), content.clone());
        }
    }
    found
}
