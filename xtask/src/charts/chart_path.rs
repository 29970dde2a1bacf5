//! Which chart a release has.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    charts::metadata::Metadata,
    machine::{paths, tree::Tree},
};

/// The chart that others are built on, by a dependency of this name on a folder.
const BASE: &str = "basehub";

/// The chart of a release, by paths from the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChartPath {
    pub(crate) folder: PathBuf,
    /// The file that takes the place of a Chart.yaml: of that of the basehub that the chart is built on, or else its own.
    pub(crate) chart_override: Option<PathBuf>,
}

/// A file that takes the place of a Chart.yaml.
pub(crate) struct Override {
    /// The folder of the chart whose Chart.yaml it replaces, without links.
    folder: PathBuf,
    pub(crate) file: PathBuf,
}

impl ChartPath {
    /// A chart as it is in its folder.
    pub(crate) fn of(folder: impl Into<PathBuf>) -> ChartPath {
        ChartPath {
            folder: folder.into(),
            chart_override: None,
        }
    }

    /// The chart's own Chart.yaml.
    pub(crate) fn chart_yaml(&self) -> PathBuf {
        self.folder.join("Chart.yaml")
    }

    /// The file that people look into for what the chart depends on.
    pub(crate) fn described_in(&self) -> PathBuf {
        let replaced = self.chart_override.clone();
        replaced.unwrap_or_else(|| self.chart_yaml())
    }

    /// Whether the files that describe the chart are there.
    pub(crate) fn is_there(&self, tree: &Tree) -> bool {
        tree.is_file(&self.chart_yaml()) && tree.is_file(&self.described_in())
    }

    /// What replaces a Chart.yaml, if anything does.
    pub(crate) fn replaced(&self, tree: &Tree) -> Result<Option<Override>> {
        let Some(file) = self.chart_override.clone() else {
            return Ok(None);
        };
        let folder = base(tree, &self.folder)?;
        Ok(Some(Override {
            folder: without_links(tree, folder),
            file,
        }))
    }
}

impl Override {
    /// The file that describes the chart in a folder.
    pub(crate) fn chart_yaml(replaced: Option<&Override>, tree: &Tree, folder: &Path) -> PathBuf {
        match replaced {
            Some(it) if it.folder == without_links(tree, folder.to_owned()) => it.file.clone(),
            _ => folder.join("Chart.yaml"),
        }
    }
}

fn without_links(tree: &Tree, folder: PathBuf) -> PathBuf {
    match tree.find(&folder) {
        Ok(Some(found)) => found.path,
        _ => folder,
    }
}

/// The folder of the basehub that a chart is built on, or that of the chart itself.
fn base(tree: &Tree, chart: &Path) -> Result<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut left = vec![paths::lexical(chart)];
    while let Some(folder) = left.pop() {
        let chart_yaml = folder.join("Chart.yaml");
        if !seen.insert(folder.clone()) || !tree.is_file(&chart_yaml) {
            continue;
        }
        for (name, near) in read_metadata(tree, &chart_yaml)?.folders(&folder) {
            if name == BASE {
                return Ok(near);
            }
            left.push(near);
        }
    }
    Ok(chart.to_owned())
}

/// What a Chart.yaml, or the file in its place, says. The error names it.
pub(crate) fn read_metadata(tree: &Tree, file: &Path) -> Result<Metadata> {
    Metadata::of_file(tree, file)
        .with_context(|| format!("{}: not the description of a chart", file.display()))
}
