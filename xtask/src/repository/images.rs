//! The images that values name, and those without a version: what they run changes without a deploy.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    charts::values::EnabledChart,
    repository::{
        fleet::Fleet,
        problem::{Problem, Problems},
        release_config::ReleaseConfig,
    },
    services::registry::reference::Reference,
    yaml::{Data, Map, Node, Place, unquoted},
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

/// An image that the values of a release name.
pub(crate) struct NamedImage {
    /// The text with its name, which may have its registry before it, and its tag and digest behind it.
    pub(crate) name: Written,
    /// The registry in a key of its own.
    registry: Option<String>,
    /// In keys of their own, even if there is nothing in them.
    pub(crate) tag: Option<Written>,
    pub(crate) digest: Option<Written>,
    /// Whether its key is certain to be that of an image.
    is_certain: bool,
    /// Whether a key that isn't there is set nowhere.
    is_known: bool,
}

/// A text in values, or a number that stands for one.
pub(crate) struct Written {
    pub(crate) text: String,
    /// Where people set it; none if a chart does.
    pub(crate) at: Option<Place>,
}

/// Looks through the values of a release.
struct Search<'s, 'a> {
    fleet: &'s Fleet,
    release: &'s ReleaseConfig<'a>,
    found: Vec<NamedImage>,
}

/// The images of which people set a part in the files of a release.
pub(crate) fn named(
    fleet: &Fleet,
    release: &ReleaseConfig,
    enabled: &EnabledChart,
    values: &Node,
) -> Vec<NamedImage> {
    let mut search = Search {
        fleet,
        release,
        found: Vec::new(),
    };
    let is_known = fleet.knows_all_of(release);
    search.chart(enabled, values, is_known);
    search.found.retain(NamedImage::is_set);
    search.found
}

/// The images without a version that the files of a release name. What charts have as their defaults is not looked at.
pub(crate) fn loose<'a>(
    fleet: &Fleet,
    release: &ReleaseConfig<'a>,
    enabled: &EnabledChart,
    values: &Node,
) -> Vec<LooseImage<'a>> {
    let named = named(fleet, release, enabled, values);
    let loose = named.iter().filter_map(NamedImage::loose);
    loose
        .map(|(name, has_tag, at)| LooseImage {
            at,
            name: name.to_owned(),
            has_tag,
            cluster: &release.cluster.name,
        })
        .collect()
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
        let is_certain = key == "image";
        let is_image = is_certain || key.ends_with("Image") || key.ends_with("_image");
        match &node.data {
            Data::Text(_) if is_image => self.add(node, siblings, is_certain, true),
            Data::List(items) => items
                .iter()
                .for_each(|it| self.value("", it, None, is_known)),
            Data::Map(map) if !is_off(map) => {
                if is_image {
                    self.map(map, is_certain, is_known);
                }
                for (key_below, below) in map {
                    if let Some(image) = below.as_map().filter(|_| key == "extraImages") {
                        self.map(image, true, is_known);
                    }
                    self.value(key_below, below, Some(map), is_known);
                }
            }
            _ => {}
        }
    }

    /// An image as a map with its name and tag.
    fn map(&mut self, map: &Map, is_certain: bool, is_known: bool) {
        let name = ["name", "repository"].iter().find_map(|it| map.get(*it));
        if let Some(name) = name {
            self.add(name, Some(map), is_certain, is_known);
        }
    }

    /// Adds an image by its name. Beside that, unless it is there as a whole, is its version.
    fn add(&mut self, name: &Node, beside: Option<&Map>, is_certain: bool, is_known: bool) {
        let Some(name) = self.written(name) else {
            return;
        };
        let beside = beside.filter(|_| !has_version(&name.text));
        let image = NamedImage {
            registry: self.beside(beside, &["registry"]).map(|it| it.text),
            tag: self.beside(beside, &TAG),
            digest: self.beside(beside, &DIGEST),
            name,
            is_certain,
            is_known,
        };
        self.found.push(image);
    }

    /// What one of these keys has.
    fn beside(&self, map: Option<&Map>, keys: &[&str]) -> Option<Written> {
        let mut found = keys.iter().filter_map(|it| map?.get(*it));
        found.find_map(|it| self.written(it))
    }

    /// A text, or a number.
    fn written(&self, node: &Node) -> Option<Written> {
        let text = match &node.data {
            Data::Text(_) | Data::Number(_) => unquoted(&node.to_json()),
            _ => return None,
        };
        let is_set = |it: &Place| self.fleet.is_set(self.release, *it);
        Some(Written {
            text,
            at: node.at.filter(is_set),
        })
    }
}

impl NamedImage {
    /// What it is called, with its registry, tag and digest. None if that is no image's name, as one that a program fills in.
    pub(crate) fn reference(&self) -> Option<Reference> {
        let mut text = self.name.text.clone();
        if let Some(registry) = self.registry.as_ref().filter(|it| !it.is_empty()) {
            text = format!("{registry}/{text}");
        }
        if let Some(tag) = self.tag.as_ref().filter(|it| !it.text.is_empty()) {
            text = format!("{text}:{}", tag.text);
        }
        if let Some(digest) = self.digest.as_ref().filter(|it| !it.text.is_empty()) {
            let digest = digest.text.trim_start_matches(ALGORITHM);
            text = format!("{text}@{ALGORITHM}{digest}");
        }
        Reference::parse(&text).ok()
    }

    /// Whether people set a part of it.
    fn is_set(&self) -> bool {
        let parts = [Some(&self.name), self.tag.as_ref(), self.digest.as_ref()];
        let mut parts = parts.into_iter().flatten();
        parts.any(|it| it.at.is_some())
    }

    /// The name of one that has no version, whether it has the tag `latest`, and where people set that.
    fn loose(&self) -> Option<(&str, bool, Place)> {
        if !self.is_certain {
            return None;
        }
        let name = &self.name;
        match (&self.tag, &self.digest) {
            (Some(tag), None) if tag.text == "latest" => Some((&name.text, true, tag.at?)),
            (None, None) if self.is_known => {
                let (own, has_tag) = loose_reference(&name.text)?;
                Some((own, has_tag, name.at?))
            }
            _ => None,
        }
    }
}

/// What is before the digits of a digest, if a value has it.
pub(crate) const ALGORITHM: &str = "sha256:";

/// Keys with an image's tag beside its name. An empty one says that the chart has one.
const TAG: [&str; 3] = ["tag", "imageTag", "version"];

/// Keys with its digest.
const DIGEST: [&str; 2] = ["digest", "sha"];

/// Whether a text has a tag or digest behind the name of an image.
fn has_version(text: &str) -> bool {
    let last_step = text.rfind('/').map_or(0, |it| it + 1);
    text[last_step..].contains([':', '@'])
}

/// Whether a map says that what it is about is not used.
fn is_off(map: &Map) -> bool {
    let enabled = map.get("enabled");
    enabled.is_some_and(|it| matches!(it.data, Data::Bool(false)))
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
