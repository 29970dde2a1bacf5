//! How an image is written in values files, and what its parts become with another version.

use anyhow::{Result, bail};

use crate::{
    repository::{fleet::Fleet, images::NamedImage, release_config::ReleaseConfig},
    services::registry::reference::Reference,
    yaml::{Data, Node, Place, unquoted},
};

/// Keys with an image's tag beside its name. An empty one says that the chart has one.
const TAG: [&str; 3] = ["tag", "imageTag", "version"];

/// Keys with its digest.
const DIGEST: [&str; 2] = ["digest", "sha"];

/// What a digest begins with, if it is written as a whole.
const ALGORITHM: &str = "sha256:";

/// An image in the values of a release.
pub(crate) struct WrittenImage {
    /// Its name, which may have its tag and digest behind it.
    name: Written,
    /// Its registry, tag and digest in keys of their own that are not empty.
    registry: Option<Written>,
    tag: Option<Written>,
    digest: Option<Written>,
    /// Whether the name is there to have the tag behind it.
    is_text: bool,
}

/// A text in values, or a number that stands for one.
pub(crate) struct Written {
    pub(crate) text: String,
    /// Where people set it; none if a chart does.
    pub(crate) at: Option<Place>,
}

/// A part of an image, and what it becomes.
pub(crate) struct Part<'i> {
    pub(crate) written: &'i Written,
    pub(crate) new: String,
}

impl WrittenImage {
    pub(crate) fn of(fleet: &Fleet, release: &ReleaseConfig, image: &NamedImage) -> WrittenImage {
        let parts = Parts {
            fleet,
            release,
            image,
        };
        // Beside what is there as a whole, the same keys say something else.
        let is_whole = is_whole(image.text);
        let tag = parts.beside(&TAG).filter(|_| !is_whole);
        let digest = parts.beside(&DIGEST).filter(|_| !is_whole);
        WrittenImage {
            name: parts.written(image.text, image.at),
            registry: parts.beside(&["registry"]).filter(|_| image.is_map),
            is_text: is_whole || !image.is_map && tag.is_none() && digest.is_none(),
            tag,
            digest,
        }
    }

    /// What it is called, with its registry, tag and digest. None if that is no image's name, as one that a program fills in.
    pub(crate) fn reference(&self) -> Option<Reference> {
        let mut text = self.name.text.clone();
        if let Some(registry) = &self.registry {
            text = format!("{}/{text}", registry.text);
        }
        if let Some(tag) = &self.tag {
            text = format!("{text}:{}", tag.text);
        }
        if let Some(digest) = &self.digest {
            let bare = digest.text.trim_start_matches(ALGORITHM);
            text = format!("{text}@{ALGORITHM}{bare}");
        }
        Reference::parse(&text).ok()
    }

    /// Where people set parts of it.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        let parts = [Some(&self.name), self.tag.as_ref(), self.digest.as_ref()];
        parts.into_iter().flatten().filter_map(|it| it.at)
    }

    /// What its parts become with another version.
    pub(crate) fn parts(&self, new: &Reference) -> Result<Vec<Part<'_>>> {
        let tag = new.tag.as_deref().unwrap_or_default();
        let version = match &new.digest {
            Some(digest) if self.digest.is_none() => format!("{tag}@{digest}"),
            _ => tag.to_owned(),
        };
        let mut parts = Vec::new();
        if let Some(written) = &self.tag {
            let new = version;
            parts.push(Part { written, new });
        } else if self.is_text {
            let name = Reference::parse(&self.name.text)?.name;
            let new = format!("{name}:{version}");
            let written = &self.name;
            parts.push(Part { written, new });
        } else {
            let name = &self.name.text;
            bail!("no values file sets a tag for `{name}`\nhint: `config set` does");
        }
        if let (Some(written), Some(digest)) = (&self.digest, &new.digest) {
            let bare = digest.trim_start_matches(ALGORITHM);
            let is_bare = !written.text.starts_with(ALGORITHM);
            let new = if is_bare { bare } else { digest }.to_owned();
            parts.push(Part { written, new });
        }
        parts.retain(|it| it.written.text != it.new);
        Ok(parts)
    }
}

/// What the parts of an image are read from.
struct Parts<'p> {
    fleet: &'p Fleet,
    release: &'p ReleaseConfig<'p>,
    image: &'p NamedImage<'p>,
}

impl Parts<'_> {
    /// What one of these keys beside the name has, if it is not empty.
    fn beside(&self, keys: &[&str]) -> Option<Written> {
        let nodes = keys.iter().filter_map(|it| self.image.beside_name(it));
        let mut written = nodes.filter_map(|it| Some(self.written(&text_of(it)?, it.at)));
        written.find(|it| !it.text.is_empty())
    }

    fn written(&self, text: &str, at: Option<Place>) -> Written {
        Written {
            text: text.to_owned(),
            at: at.filter(|it| self.fleet.is_set(self.release, *it)),
        }
    }
}

/// A text, or a number as a text.
fn text_of(node: &Node) -> Option<String> {
    let is_text = matches!(node.data, Data::Text(_) | Data::Number(_));
    is_text.then(|| unquoted(&node.to_json()))
}

/// Whether a text has a tag or digest behind the name of an image.
fn is_whole(text: &str) -> bool {
    Reference::parse(text).is_ok_and(|it| it.tag.is_some() || it.digest.is_some())
}
