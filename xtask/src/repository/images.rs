//! Images that values name.

use crate::{
    charts::values::EnabledChart,
    services::registry::reference::Reference,
    yaml::{Data, Map, Node, Place},
};

/// What a file may call a text that is no image for containers.
const PICTURES: [&str; 6] = [".gif", ".ico", ".jpg", ".jpeg", ".png", ".svg"];

/// Keys of values that the pods of users are made from, which are in no manifest: of JupyterHub and of dask-gateway.
const OF_USERS: [&str; 2] = ["singleuser", "backend"];

/// An image, as values name it.
pub(crate) struct NamedImage<'v> {
    /// Its name, perhaps with its version.
    pub(crate) text: &'v str,
    /// Where the name is set.
    pub(crate) at: Option<Place>,
    /// What else is in the map that has the name.
    beside: Option<&'v Map>,
    /// Whether that map is about the image alone.
    pub(crate) is_map: bool,
    /// The chart whose values they are.
    pub(crate) chart: &'v EnabledChart<'v>,
    /// Whether that chart, or one above it, is missing, so that its defaults are not known.
    pub(crate) is_of_missing: bool,
    /// Whether the pods of users are made from it.
    pub(crate) is_of_users: bool,
}

/// The images that the values of a chart name, and those of its subcharts that are enabled. What is `enabled: false` names
/// none.
pub(crate) fn named<'v>(enabled: &'v EnabledChart<'v>, values: &'v Node) -> Vec<NamedImage<'v>> {
    let mut search = Search { found: Vec::new() };
    let around = Around {
        chart: enabled,
        is_of_missing: false,
        is_of_users: false,
    };
    search.chart(values, around);
    search.found
}

/// Whether a text ends as the names of pictures do.
pub(crate) fn is_picture(text: &str) -> bool {
    PICTURES.iter().any(|it| text.ends_with(it))
}

impl<'v> NamedImage<'v> {
    /// What names its version in another key than its name. It may be an empty text: then the chart has one.
    pub(crate) fn version(&self) -> Option<&'v Node> {
        let keys = ["digest", "sha", "imageTag", "version", "tag"];
        let mut found = keys.iter().filter_map(|it| self.beside_name(it));
        found.find(|it| !it.is_null())
    }

    /// The image that is pulled, and where its version is set. None where only the chart knows it, and for any other text, as
    /// one that a program fills in.
    pub(crate) fn reference(&self) -> Option<(Reference, Option<Place>)> {
        let registry = self.text_beside(&["registry"]);
        let registry = registry.map_or_else(String::new, |(it, _)| format!("{it}/"));
        let name = format!("{registry}{}", self.text);
        let image = Reference::parse(&name).ok()?;
        let is_whole = image.tag.is_some() || image.digest.is_some();
        let tag = self.text_beside(&["tag", "imageTag"]);
        let digest = self.text_beside(&["digest"]);
        let Some((_, at)) = tag.or(digest) else {
            let is_latest = !self.is_map && self.version().is_none() && looks_like_image(&name);
            return (is_whole || is_latest).then_some((image, self.at));
        };
        if is_whole {
            return None;
        }
        let tag = tag.map_or_else(String::new, |(it, _)| format!(":{it}"));
        let digest = digest.map_or_else(String::new, |(it, _)| format!("@{it}"));
        let image = Reference::parse(&format!("{name}{tag}{digest}")).ok()?;
        Some((image, at))
    }

    fn beside_name(&self, key: &str) -> Option<&'v Node> {
        self.beside?.get(key)
    }

    /// The first text beside the name with one of these keys that is not empty, and its place.
    fn text_beside(&self, keys: &[&str]) -> Option<(&'v str, Option<Place>)> {
        let mut nodes = keys.iter().filter_map(|it| self.beside_name(it));
        nodes.find_map(|it| Some((it.as_text().filter(|it| !it.is_empty())?, it.at)))
    }
}

/// Whether a name without a version is an image's, and not just a word.
fn looks_like_image(name: &str) -> bool {
    name.contains('/') && !is_picture(name)
}

/// Looks through the values of a release.
struct Search<'v> {
    found: Vec<NamedImage<'v>>,
}

/// What is known of values by what is around them.
#[derive(Clone, Copy)]
struct Around<'v> {
    chart: &'v EnabledChart<'v>,
    is_of_missing: bool,
    is_of_users: bool,
}

impl<'v> Search<'v> {
    /// Looks through the values of a chart, and through those of its subcharts that are enabled.
    fn chart(&mut self, values: &'v Node, mut around: Around<'v>) {
        let enabled = around.chart;
        around.is_of_missing |= enabled.chart.is_missing;
        for (key, node) in values.as_map().into_iter().flatten() {
            let mut parts = enabled.parts.iter();
            if let Some(chart) = parts.find(|it| it.name == &**key) {
                self.chart(node, Around { chart, ..around });
            } else if !enabled.has_disabled(key) {
                self.value(key, node, values.as_map(), around);
            }
        }
    }

    /// Looks through the value of a key in a map.
    fn value(
        &mut self,
        key: &str,
        node: &'v Node,
        siblings: Option<&'v Map>,
        mut around: Around<'v>,
    ) {
        around.is_of_users |= OF_USERS.contains(&key);
        match &node.data {
            Data::Text(text) if key == "image" => self.add(text, node.at, siblings, false, around),
            Data::List(items) => {
                for item in items {
                    self.value("", item, None, around);
                }
            }
            Data::Map(map) if !is_off(map) => {
                if key == "image" {
                    self.map(map, around);
                }
                for (key_below, below) in map {
                    if let Some(image) = below.as_map().filter(|_| key == "extraImages") {
                        self.map(image, around);
                    }
                    self.value(key_below, below, Some(map), around);
                }
            }
            _ => {}
        }
    }

    /// An image as a map with its name and tag.
    fn map(&mut self, map: &'v Map, around: Around<'v>) {
        let name = ["name", "repository"].iter().find_map(|it| map.get(*it));
        if let Some(name) = name
            && let Some(text) = name.as_text()
        {
            self.add(text, name.at, Some(map), true, around);
        }
    }

    fn add(
        &mut self,
        text: &'v str,
        at: Option<Place>,
        beside: Option<&'v Map>,
        is_map: bool,
        around: Around<'v>,
    ) {
        self.found.push(NamedImage {
            text,
            at,
            beside,
            is_map,
            chart: around.chart,
            is_of_missing: around.is_of_missing,
            is_of_users: around.is_of_users,
        });
    }
}

/// Whether a map says that what it is about is not used.
fn is_off(map: &Map) -> bool {
    let enabled = map.get("enabled");
    enabled.is_some_and(|it| matches!(it.data, Data::Bool(false)))
}
