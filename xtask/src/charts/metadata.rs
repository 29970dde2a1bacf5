//! Chart.yaml and Chart.lock.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::charts::{archive, files::read_yaml};

#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) dependencies: Option<Vec<Dependency>>,
}

#[derive(Default, Deserialize)]
pub(crate) struct Lock {
    #[serde(default)]
    pub(crate) dependencies: Vec<Dependency>,
}

/// As in Chart.yaml, where the version may be a range, and as in Chart.lock, where it's exact.
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
    pub(crate) fn dependencies(&self) -> &[Dependency] {
        self.dependencies.as_deref().unwrap_or_default()
    }
}

/// The Chart.yaml of a folder or an archive.
pub(crate) fn metadata(chart: &Path) -> Result<Metadata> {
    if chart.is_dir() {
        return read_yaml(&chart.join("Chart.yaml"))
            .with_context(|| format!("`{}` isn't a chart", chart.display()));
    }
    let files = archive::files(chart)?;
    let text = files.get(Path::new("Chart.yaml"));
    let text = text.with_context(|| format!("`{}` has no Chart.yaml", chart.display()))?;
    serde_yaml::from_slice(text).with_context(|| format!("`{}`: Chart.yaml", chart.display()))
}
