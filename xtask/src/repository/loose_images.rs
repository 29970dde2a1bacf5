//! Images that a file names without a version: what they run changes without a deploy.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    charts::values::EnabledChart,
    repository::{
        fleet::Fleet,
        images::{self, NamedImage},
        problem::{Problem, Problems},
        release_config::ReleaseConfig,
    },
    yaml::{Node, Place},
};

/// How many images of one file are told of one by one.
const MOST_ALONE: usize = 3;

/// An image without a tag, or with the tag `latest`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LooseImage<'a> {
    /// Where people set it.
    at: Place,
    name: String,
    has_tag: bool,
    cluster: &'a str,
}

/// The images without a version that the files of a release name. What charts have as their defaults is not looked at.
pub(crate) fn loose<'a>(
    fleet: &Fleet,
    release: &ReleaseConfig<'a>,
    enabled: &EnabledChart,
    values: &Node,
) -> Vec<LooseImage<'a>> {
    let is_known = fleet.knows_all_of(release);
    let mut found = Vec::new();
    for image in images::named(enabled, values) {
        let loose = if image.is_map {
            of_map(&image, is_known)
        } else {
            of_text(&image)
        };
        // One that people set there, and no chart.
        if let Some((name, has_tag, at)) = loose
            && let Some(at) = at.filter(|it| fleet.is_set(release, *it))
        {
            found.push(LooseImage {
                at,
                name: name.to_owned(),
                has_tag,
                cluster: &release.cluster.name,
            });
        }
    }
    found
}

/// The name of an image without a version, whether it has the tag `latest`, and where that is set.
type Loose<'v> = (&'v str, bool, Option<Place>);

/// An image in a text of its own. Something beside it may hold its version.
fn of_text<'v>(image: &NamedImage<'v>) -> Option<Loose<'v>> {
    let (name, has_tag) = loose_reference(image.text)?;
    image
        .version()
        .is_none()
        .then_some((name, has_tag, image.at))
}

/// An image as a map with its name and tag. `is_known` says whether what is not there is set nowhere.
fn of_map<'v>(image: &NamedImage<'v>, is_known: bool) -> Option<Loose<'v>> {
    let is_known = is_known && !image.is_of_missing;
    match (image.version(), loose_reference(image.text)) {
        (Some(tag), _) if tag.as_text() == Some("latest") => Some((image.text, true, tag.at)),
        (None, Some((name, has_tag))) if is_known => Some((name, has_tag, image.at)),
        _ => None,
    }
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
    let is_loose = tag.is_none_or(|it| it == "latest");
    (is_name && is_loose && !images::is_picture(name)).then_some((name, tag.is_some()))
}
