//! Chart.yaml and Chart.lock.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    charts::{archive::Content, files::cached_files},
    machine::{name::Name, tree::Tree},
    yaml,
};

#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) name: Name,
    #[serde(default)]
    pub(crate) version: String,
    pub(crate) dependencies: Option<Vec<Dependency>>,
    /// Its makers say that nobody should use it any more.
    #[serde(default)]
    pub(crate) deprecated: bool,
}

#[derive(Default, Deserialize)]
pub(crate) struct Lock {
    #[serde(default)]
    pub(crate) dependencies: Vec<Dependency>,
}

/// The requirements.yaml of a chart of Helm 2.
#[derive(Deserialize)]
struct Requirements {
    dependencies: Option<Vec<Dependency>>,
}

/// A dependency in Chart.yaml, where the version may be a range, or in Chart.lock, where it is exact.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) repository: String,
    pub(crate) alias: String,
    pub(crate) condition: String,
    pub(crate) tags: Vec<String>,
    #[serde(rename = "import-values")]
    pub(crate) import_values: Vec<Value>,
}

impl Metadata {
    /// The content of a Chart.yaml.
    fn parse(content: &[u8]) -> Result<Metadata> {
        let metadata: Metadata = yaml::parse(content)?;
        ensure!(!metadata.version.is_empty(), "`version` is missing");
        metadata.check_dependencies()?;
        Ok(metadata)
    }

    /// The Chart.yaml of a folder or an archive in the cache.
    pub(crate) fn of(chart: &Path) -> Result<Metadata> {
        Metadata::of_files(&cached_files(chart)?).with_context(|| format!("`{}`", chart.display()))
    }

    /// The Chart.yaml of a folder in the repository. The error does not name the file.
    pub(crate) fn of_folder(tree: &Tree, chart: &Path) -> Result<Metadata> {
        let content = tree.read(&chart.join("Chart.yaml"));
        Metadata::parse(&content.context("cannot read Chart.yaml")?)
    }

    /// The Chart.yaml among a chart's files.
    pub(crate) fn of_files(files: &Content) -> Result<Metadata> {
        let content = files
            .get(Path::new("Chart.yaml"))
            .context("there is no Chart.yaml")?;
        Metadata::parse(content).context("Chart.yaml")
    }

    /// Chart.yaml, with the dependencies of requirements.yaml, where charts of Helm 2 have theirs.
    pub(crate) fn with_requirements(files: &Content) -> Result<Metadata> {
        let mut metadata = Metadata::of_files(files)?;
        let Some(content) = files.get(Path::new("requirements.yaml")) else {
            return Ok(metadata);
        };
        let requirements: Requirements = yaml::parse(content).context("requirements.yaml")?;
        if let Some(listed) = requirements.dependencies {
            // Go reads it over what is there, entry by entry and field by field.
            let mut before = metadata.dependencies.unwrap_or_default().into_iter();
            let merged = listed
                .into_iter()
                .map(|dependency| dependency.over(before.next().unwrap_or_default()));
            metadata.dependencies = Some(merged.collect());
            metadata.check_dependencies()?;
        }
        Ok(metadata)
    }

    fn check_dependencies(&self) -> Result<()> {
        for dependency in self.dependencies() {
            Name::new(&dependency.name).context("`dependencies`")?;
        }
        Ok(())
    }

    pub(crate) fn dependencies(&self) -> &[Dependency] {
        self.dependencies.as_deref().unwrap_or_default()
    }
}

impl Lock {
    /// The Chart.lock in a chart's folder. Without one it lists nothing. The error does not name the file.
    pub(crate) fn of_folder(tree: &Tree, chart: &Path) -> Result<Lock> {
        let content = tree.read_if_there(&chart.join("Chart.lock"));
        match content.context("cannot read Chart.lock")? {
            Some(content) => yaml::parse(&content),
            None => Ok(Lock::default()),
        }
    }
}

impl Dependency {
    fn over(self, before: Dependency) -> Dependency {
        Dependency {
            name: text_over(self.name, before.name),
            version: text_over(self.version, before.version),
            repository: text_over(self.repository, before.repository),
            alias: text_over(self.alias, before.alias),
            condition: text_over(self.condition, before.condition),
            tags: list_over(self.tags, before.tags),
            import_values: list_over(self.import_values, before.import_values),
        }
    }
}

fn text_over(text: String, before: String) -> String {
    if text.is_empty() { before } else { text }
}

fn list_over<T>(list: Vec<T>, before: Vec<T>) -> Vec<T> {
    if list.is_empty() { before } else { list }
}
