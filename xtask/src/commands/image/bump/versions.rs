//! Which version an image gets, as its registry has it.

use std::collections::BTreeMap;

use anyhow::{Context, Error, Result, anyhow, bail};

use crate::{
    commands::image::bump::newest::{Newest, Wanted},
    machine::{
        parallel,
        terminal::{hint_of_name, nearest},
    },
    services::registry::{Answer, Registries, reference::Reference},
};

/// What is asked for.
pub(crate) struct Wish<'a> {
    pub(crate) tag: Option<&'a str>,
    pub(crate) newest: Option<&'a Wanted>,
    /// Whether the digest is written behind the tag.
    pub(crate) is_pinned: bool,
}

/// What becomes of an image.
pub(crate) struct NewVersion {
    pub(crate) reference: Reference,
    /// Why it keeps its tag.
    pub(crate) why_kept: Option<String>,
    /// What could not be checked.
    pub(crate) warning: Option<String>,
}

impl Wish<'_> {
    /// The new versions of these images, each asked for once. The error has what is wrong with all of them.
    pub(crate) fn of_all<'r>(
        &self,
        registries: &Registries,
        images: impl IntoIterator<Item = &'r Reference>,
    ) -> Result<BTreeMap<&'r Reference, NewVersion>> {
        let images: BTreeMap<_, ()> = images.into_iter().map(|it| (it, ())).collect();
        let images: Vec<_> = images.into_keys().collect();
        let versions = parallel::side_by_side(&(), &images, |(), it| self.of(registries, it));
        let mut found = BTreeMap::new();
        let mut wrong = Vec::new();
        for (image, version) in images.into_iter().zip(versions) {
            match version.with_context(|| format!("`{image}`")) {
                Ok(version) => {
                    found.insert(image, version);
                }
                Err(err) => wrong.push(format!("{err:#}")),
            }
        }
        if !wrong.is_empty() {
            bail!(wrong.join("\n"));
        }
        Ok(found)
    }

    fn of(&self, registries: &Registries, image: &Reference) -> Result<NewVersion> {
        let (tag, why_kept) = self.tag_of(registries, image)?;
        let is_kept = self.tag.is_none() && image.tag.as_deref() == Some(&tag);
        let mut new = NewVersion {
            reference: Reference {
                tag: Some(tag),
                digest: None,
                ..image.clone()
            },
            why_kept,
            warning: None,
        };
        let needs_digest = self.is_pinned || image.digest.is_some() && !is_kept;
        if !needs_digest && self.tag.is_none() {
            new.reference.digest = image.digest.clone();
            return Ok(new);
        }
        match registries.look(&new.reference) {
            Answer::There { digest } if needs_digest => new.reference.digest = Some(digest),
            Answer::There { .. } => {}
            Answer::Missing => bail!(missing(registries, &new.reference)),
            Answer::Unknown(why) if needs_digest => {
                bail!(
                    "the digest of `{}` cannot be asked for: {why}",
                    new.reference
                )
            }
            Answer::Unknown(why) => {
                let image = &new.reference;
                new.warning = Some(format!("cannot check that `{image}` is there: {why}"));
            }
        }
        Ok(new)
    }

    /// The tag that it gets, and what there is to say of it.
    fn tag_of(
        &self,
        registries: &Registries,
        image: &Reference,
    ) -> Result<(String, Option<String>)> {
        if let Some(tag) = self.tag {
            return Ok((tag.to_owned(), None));
        }
        let now = image.tag.as_deref();
        let Some(wanted) = self.newest else {
            let now = now.ok_or_else(|| anyhow!("it has no tag to pin\nhint: `--tag` sets one"))?;
            return Ok((now.to_owned(), None));
        };
        let mut tags = registries.tags(image)?;
        tags.sort();
        match (wanted.newest(&tags, now)?, now) {
            (Newest::Tag(tag), _) => Ok((tag.to_owned(), None)),
            (Newest::Older(newest), Some(now)) => {
                let note =
                    format!("`{image}` stays: the newest tag that matches, `{newest}`, is older");
                Ok((now.to_owned(), Some(note)))
            }
            (_, now) => {
                let now = now.unwrap_or_default();
                let why = format!("`{now}` is the newest tag that matches");
                Ok((now.to_owned(), Some(why)))
            }
        }
    }
}

/// The error about a tag that is not there.
fn missing(registries: &Registries, image: &Reference) -> Error {
    let tags = registries.tags(image).unwrap_or_default();
    let tag = image.tag.as_deref().unwrap_or_default();
    let meant = nearest(tag, tags.iter().map(String::as_str));
    anyhow!("its registry has no tag `{tag}`{}", hint_of_name(meant))
}
