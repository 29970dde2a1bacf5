//! Which chart a release has.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    charts::{archive::Content, metadata::Metadata},
    machine::{paths, tree::Tree},
};

/// The chart that others are built on, by a dependency of this name on a folder.
const BASE: &str = "basehub";

/// The chart of a release, by paths from the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChartPath {
    pub(crate) folder: PathBuf,
    /// The file that takes the place of a Chart.yaml: of that of the basehub that the chart is built on, or else its
    /// own.
    pub(crate) chart_override: Option<PathBuf>,
}

/// A file that takes the place of a Chart.yaml.
pub(crate) struct Override {
    /// The folder of the chart whose Chart.yaml it replaces, without links.
    folder: PathBuf,
    file: PathBuf,
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
            folder: without_links(tree, &folder),
            file,
        }))
    }
}

impl Override {
    /// The file in the place of the Chart.yaml in a folder.
    pub(crate) fn of_folder<'a>(
        replaced: Option<&'a Override>,
        tree: &Tree,
        folder: &Path,
    ) -> Option<&'a Path> {
        let replaced = replaced.filter(|it| it.folder == without_links(tree, folder));
        replaced.map(|it| it.file.as_path())
    }
}

/// The path of a chart's folder without links.
pub(crate) fn find_folder(tree: &Tree, chart: &Path) -> Result<PathBuf> {
    let shown = chart.display();
    let found = tree
        .find(chart)
        .with_context(|| format!("the chart `{shown}`"))?;
    let found = found.with_context(|| format!("there is no chart `{shown}`"))?;
    Ok(found.path)
}

/// The same, or the path as it is where nothing is found.
fn without_links(tree: &Tree, folder: &Path) -> PathBuf {
    find_folder(tree, folder).unwrap_or_else(|_| folder.to_owned())
}

/// The folder of the basehub that a chart is built on, or that of the chart itself.
fn base(tree: &Tree, chart: &Path) -> Result<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut left = vec![paths::lexical(chart)];
    while let Some(folder) = left.pop() {
        if !seen.insert(folder.clone()) || !tree.is_file(&folder.join("Chart.yaml")) {
            continue;
        }
        for (name, near) in on_disk(&read_metadata(tree, &folder, None)?, &folder) {
            if name == BASE {
                return Ok(near);
            }
            left.push(near);
        }
    }
    Ok(chart.to_owned())
}

/// The charts that the one in a folder depends on by `file://`: their names and folders.
pub(crate) fn on_disk<'a>(
    metadata: &'a Metadata,
    folder: &Path,
) -> impl Iterator<Item = (&'a str, PathBuf)> {
    let dependencies = metadata.dependencies().iter();
    dependencies.filter_map(move |it| {
        let path = it.repository.strip_prefix("file://")?;
        Some((it.name.as_str(), paths::lexical(&folder.join(path))))
    })
}

/// What a chart says of itself: in its folder, or in the file that takes the place of its Chart.yaml. The error names
/// the file.
pub(crate) fn read_metadata(
    tree: &Tree,
    folder: &Path,
    chart_override: Option<&Path>,
) -> Result<Metadata> {
    let Some(file) = chart_override else {
        let file = folder.join("Chart.yaml");
        return Metadata::of_folder(tree, folder).with_context(|| no_chart(&file));
    };
    let content = tree.read(file).with_context(|| no_chart(file))?;
    let files = Content::from([(PathBuf::from("Chart.yaml"), content)]);
    Metadata::of_files(&files).with_context(|| no_chart(file))
}

fn no_chart(file: &Path) -> String {
    format!("{}: not the description of a chart", file.display())
}
