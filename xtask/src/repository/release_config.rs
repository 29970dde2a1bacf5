//! What cluster.yaml says of one release: its chart, and its values files.

use std::path::{Path, PathBuf};

use crate::{
    charts::ChartPath,
    machine::tree::Tree,
    repository::cluster::{Cluster, Hub, OwnImage, Support},
    yaml::{Node, Place},
};

/// The chart of what a cluster's hubs share.
pub(crate) const SUPPORT_CHART: &str = "helm-charts/support";

/// A file, by its path from the root, and where cluster.yaml lists it.
pub(crate) type ListedFile = (PathBuf, Option<Place>);

/// An image that is built from a folder, as cluster.yaml has it.
#[derive(Clone, Copy)]
pub(crate) struct ListedImage<'a> {
    pub(crate) image: &'a OwnImage,
    yaml: Option<&'a Node>,
}

impl ListedImage<'_> {
    /// Where cluster.yaml has one of its keys, or the image itself.
    pub(crate) fn place(&self, path: &[&str]) -> Option<Place> {
        let yaml = self.yaml?;
        yaml.get(path).map_or(yaml.at, |it| it.at)
    }

    /// Where cluster.yaml has this one of its values paths.
    pub(crate) fn place_of_path(&self, index: usize) -> Option<Place> {
        let paths = self.yaml?.get(&["values_path"]);
        let item = paths.and_then(|it| it.as_list()?.get(index));
        item.or(paths)
            .map_or_else(|| self.place(&["name"]), |it| it.at)
    }
}

/// A hub, or what a cluster's hubs share.
pub(crate) struct ReleaseConfig<'a> {
    pub(crate) cluster: &'a Cluster,
    /// None for the chart `support`.
    pub(crate) hub: Option<&'a Hub>,
    pub(crate) chart: ChartPath,
    /// Where cluster.yaml names the file that replaces a Chart.yaml.
    pub(crate) override_at: Option<Place>,
    /// The values files; for helm, the last one wins. One that its chart has, or all clusters share, has no place.
    pub(crate) listed: Vec<ListedFile>,
    /// The file that holds the hub's domain.
    pub(crate) domain_override: Option<ListedFile>,
    /// Where cluster.yaml describes it.
    pub(crate) at: Place,
}

impl<'a> ReleaseConfig<'a> {
    pub(crate) fn of_hub(tree: &Tree, cluster: &'a Cluster, hub: &'a Hub) -> ReleaseConfig<'a> {
        let path = ["hubs", &hub.index.to_string()];
        let place = |key: &str| cluster.yaml.get(&path)?.get(&[key])?.at;
        let of_chart = jsonnet_of(tree, &hub.chart_folder());
        let own = listed(cluster, &path, &hub.helm_chart_values_files);
        ReleaseConfig {
            cluster,
            hub: Some(hub),
            chart: cluster.chart(hub),
            override_at: place("chart_override"),
            listed: unplaced(of_chart).chain(own).collect(),
            domain_override: hub
                .domain_override_file
                .clone()
                .map(|file| (file, place("domain_override_file"))),
            at: place("name").unwrap_or_else(|| cluster.at()),
        }
    }

    /// What the hubs of a cluster share, if cluster.yaml has a `support`.
    pub(crate) fn of_support(tree: &Tree, cluster: &'a Cluster) -> Option<ReleaseConfig<'a>> {
        let support = cluster.support.as_ref()?;
        let shared = unplaced(Support::shared_values(tree));
        let of_chart = unplaced(jsonnet_of(tree, Path::new(SUPPORT_CHART)));
        let own = listed(cluster, &["support"], &support.helm_chart_values_files);
        let at = cluster.yaml.get(&["support"]).and_then(|it| it.at);
        Some(ReleaseConfig {
            cluster,
            hub: None,
            chart: ChartPath::of(SUPPORT_CHART),
            override_at: None,
            listed: shared.chain(of_chart).chain(own).collect(),
            domain_override: None,
            at: at.unwrap_or_else(|| cluster.at()),
        })
    }

    /// The name of the release and of its namespace.
    pub(crate) fn name(&self) -> &'a str {
        self.hub.map_or("support", |hub| &hub.name)
    }

    /// With its cluster, as people write it: "lake/prod".
    pub(crate) fn path(&self) -> String {
        self.cluster.path_of(self.name())
    }

    /// For messages: "hub `prod`".
    pub(crate) fn shown(&self) -> String {
        match self.hub {
            Some(hub) => format!("hub `{}`", hub.name),
            None => "`support`".to_owned(),
        }
    }

    /// For messages about what may differ between clusters: "hub `prod` of `lake`".
    pub(crate) fn shown_with_cluster(&self) -> String {
        format!("{} of `{}`", self.shown(), self.cluster.name)
    }

    /// Its images that are built from folders.
    pub(crate) fn images(&self) -> impl Iterator<Item = ListedImage<'a>> {
        let cluster = self.cluster;
        let hub = self.hub.into_iter();
        hub.flat_map(move |hub| {
            let section = ["hubs", &hub.index.to_string(), "images"];
            let section = cluster.yaml.get(&section).and_then(Node::as_list);
            let section = section.unwrap_or_default();
            let images = hub.images.iter().enumerate();
            images.map(|(index, image)| ListedImage {
                image,
                yaml: section.get(index),
            })
        })
    }

    /// The paths of all files that it lists, from the root.
    pub(crate) fn all_files(&self) -> impl Iterator<Item = &PathBuf> {
        let listed = self.listed.iter().chain(&self.domain_override);
        listed.map(|(path, _)| path)
    }

    /// The paths of the values files from the root.
    pub(crate) fn values_files(&self) -> impl Iterator<Item = &Path> {
        self.listed.iter().map(|(path, _)| path.as_path())
    }
}

/// The values in jsonnet of a chart, if it has any. A link that leads nowhere is such a file, too.
fn jsonnet_of(tree: &Tree, chart: &Path) -> Option<PathBuf> {
    const NAME: &str = "values.jsonnet";
    let names = tree.children(chart).unwrap_or_default();
    let is_there = names.iter().any(|it| it == NAME);
    is_there.then(|| chart.join(NAME))
}

/// Files that no cluster.yaml lists.
fn unplaced(files: impl IntoIterator<Item = PathBuf>) -> impl Iterator<Item = ListedFile> {
    files.into_iter().map(|file| (file, None))
}

/// The values files in the list at this path of cluster.yaml.
fn listed(cluster: &Cluster, path: &[&str], files: &[PathBuf]) -> Vec<ListedFile> {
    let section = cluster.yaml.get(path);
    let list = section.and_then(|it| it.get(&["helm_chart_values_files"])?.as_list());
    let places = list.unwrap_or_default().iter().map(|it| it.at);
    files.iter().cloned().zip(places).collect()
}
