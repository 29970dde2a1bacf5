//! Images that a file names without a version: what they run changes without a deploy.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    charts::values::EnabledChart,
    repository::{
        fleet::Fleet,
        problem::{Problem, Problems},
        release_config::ReleaseConfig,
    },
    yaml::{Data, Map, Node, Place},
};

/// How many images of one file are told of one by one.
const MOST_ALONE: usize = 3;

/// What a file may call a text that is no image for containers.
const PICTURES: [&str; 6] = [".gif", ".ico", ".jpg", ".jpeg", ".png", ".svg"];

/// An image without a tag, or with the tag `latest`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LooseImage<'a> {
    /// Where people set it.
    at: Place,
    name: String,
    has_tag: bool,
    cluster: &'a str,
}

/// Looks through the values of a release.
struct Search<'s, 'a> {
    fleet: &'s Fleet,
    release: &'s ReleaseConfig<'a>,
    found: Vec<LooseImage<'a>>,
}

/// The images without a version that the files of a release name. What charts have as their defaults is not looked at.
pub(crate) fn loose<'a>(
    fleet: &Fleet,
    release: &ReleaseConfig<'a>,
    enabled: &EnabledChart,
    values: &Node,
) -> Vec<LooseImage<'a>> {
    let mut search = Search {
        fleet,
        release,
        found: Vec::new(),
    };
    let is_known = fleet.knows_all_of(release);
    search.chart(enabled, values, is_known);
    search.found
}

/// What there is to say of the images of all releases: each once, and many of one file together.
pub(crate) fn told(fleet: &Fleet, images: &BTreeSet<LooseImage>) -> Vec<Problem> {
    let mut by_file: BTreeMap<u32, BTreeMap<(Place, &str), &LooseImage>> = BTreeMap::new();
    for image in images {
        let of_file = by_file.entry(image.at.file).or_default();
        of_file.insert((image.at, &image.name), image);
    }
    let mut found = Vec::new();
    for (file, images) in by_file {
        let images: Vec<_> = images.into_values().collect();
        let mut problems = fleet.problems(None, Place::start_of(file));
        let cluster = images[0].cluster;
        let is_of_one = images.iter().all(|it| it.cluster == cluster);
        problems.cluster = is_of_one.then_some(cluster);
        tell(&images, &mut problems);
        found.append(&mut problems.found);
    }
    found
}

/// Adds what there is to say of the images that one file names.
fn tell(images: &[&LooseImage], problems: &mut Problems) {
    const REMEDY: &str = "what runs can change without a deploy; name one version";
    if images.len() <= MOST_ALONE {
        for image in images {
            let message = format!("{}: {REMEDY}", image.shown());
            problems.warning("image-tag", Some(image.at), message);
        }
        return;
    }
    let lines: BTreeSet<_> = images.iter().map(|it| it.at.line).collect();
    let lines: Vec<_> = lines.into_iter().skip(1).map(|it| it.to_string()).collect();
    let lines = match &lines[..] {
        [] => String::new(),
        lines => format!(" (lines {})", lines.join(", ")),
    };
    let message = format!(
        "{}, and {} more images of this file have no tag or `latest`{lines}: {REMEDY} of each",
        images[0].shown(),
        images.len() - 1
    );
    problems.warning("image-tag", Some(images[0].at), message);
}

impl LooseImage<'_> {
    fn shown(&self) -> String {
        if self.has_tag {
            format!("`{}:latest`", self.name)
        } else {
            format!("`{}` has no tag", self.name)
        }
    }
}

impl Search<'_, '_> {
    /// Looks through the values of a chart, and through those of its subcharts that are enabled. `is_known` says
    /// whether what is not there is set nowhere.
    fn chart(&mut self, enabled: &EnabledChart, values: &Node, is_known: bool) {
        let is_known = is_known && !enabled.chart.is_missing;
        for (key, node) in values.as_map().into_iter().flatten() {
            let mut parts = enabled.parts.iter();
            if let Some(part) = parts.find(|it| it.name == &**key) {
                self.chart(part, node, is_known);
            } else if !enabled.has_disabled(key) {
                self.value(key, node, values.as_map(), is_known);
            }
        }
    }

    /// Looks through the value of a key in a map.
    fn value(&mut self, key: &str, node: &Node, siblings: Option<&Map>, is_known: bool) {
        match &node.data {
            Data::Text(text) if key == "image" => self.text(text, node, siblings),
            Data::List(items) => items
                .iter()
                .for_each(|it| self.value("", it, None, is_known)),
            Data::Map(map) if !is_off(map) => {
                if key == "image" {
                    self.map(map, is_known);
                }
                for (key_below, below) in map {
                    if let Some(image) = below.as_map().filter(|_| key == "extraImages") {
                        self.map(image, is_known);
                    }
                    self.value(key_below, below, Some(map), is_known);
                }
            }
            _ => {}
        }
    }

    /// An image in a text of its own. Something beside it may hold its version.
    fn text(&mut self, text: &str, node: &Node, siblings: Option<&Map>) {
        let is_elsewhere = siblings.is_some_and(|it| version(it).is_some());
        if let Some((name, has_tag)) = loose_reference(text).filter(|_| !is_elsewhere) {
            self.add(name, has_tag, node.at);
        }
    }

    /// An image as a map with its name and tag.
    fn map(&mut self, map: &Map, is_known: bool) {
        let name = ["name", "repository"].iter().find_map(|it| map.get(*it));
        let Some((name, text)) = name.and_then(|it| Some((it, it.as_text()?))) else {
            return;
        };
        match (version(map), loose_reference(text)) {
            (Some(tag), _) if tag.as_text() == Some("latest") => self.add(text, true, tag.at),
            (None, Some((own, has_tag))) if is_known => self.add(own, has_tag, name.at),
            _ => {}
        }
    }

    /// Adds an image that people set there, and no chart.
    fn add(&mut self, name: &str, has_tag: bool, at: Option<Place>) {
        if let Some(at) = at.filter(|it| self.fleet.is_set(self.release, *it)) {
            self.found.push(LooseImage {
                at,
                name: name.to_owned(),
                has_tag,
                cluster: &self.release.cluster.name,
            });
        }
    }
}

/// Whether a map says that what it is about is not used.
fn is_off(map: &Map) -> bool {
    let enabled = map.get("enabled");
    enabled.is_some_and(|it| matches!(it.data, Data::Bool(false)))
}

/// The version of an image that stands in another key than its name. It may be an empty text: then the chart has one.
fn version(map: &Map) -> Option<&Node> {
    let keys = ["digest", "sha", "imageTag", "version", "tag"];
    let mut found = keys.iter().filter_map(|it| map.get(*it));
    found.find(|it| !it.is_null())
}

/// The name of an image that has no version, and whether it has the tag `latest`. None for any other text, as one that
/// a program fills in.
fn loose_reference(text: &str) -> Option<(&str, bool)> {
    let after_host = text.rfind('/').map_or(0, |it| it + 1);
    let (name, tag) = match text[after_host..].find(':') {
        Some(colon) => {
            let (name, tag) = text.split_at(after_host + colon);
            (name, Some(&tag[1..]))
        }
        None => (text, None),
    };
    let is_of_name =
        |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "._-/:".contains(it);
    let is_name = name.starts_with(|it: char| it.is_ascii_alphanumeric())
        && name.chars().all(is_of_name)
        && !name.contains("//")
        && !name.ends_with('/');
    let is_picture = PICTURES.iter().any(|it| name.ends_with(it));
    let is_loose = tag.is_none_or(|it| it == "latest");
    (is_name && is_loose && !is_picture).then_some((name, tag.is_some()))
}
