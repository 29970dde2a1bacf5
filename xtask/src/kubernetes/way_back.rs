//! To which revision a release goes back.
//!
//! helm calls a revision `deployed` once it has applied it, whether or not it became ready. Back means the newest revision
//! that we have seen ready and that is not the same as the live one.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    kubernetes::{
        api::Api,
        history::{self, Revision},
        session::Session,
        volumes,
    },
    machine::terminal::list,
};

/// A release's way back to an earlier revision.
pub(crate) struct WayBack<'a> {
    pub(crate) release: &'a str,
    revisions: Vec<Revision>,
    /// Where it is among the revisions.
    target: usize,
    /// What helm keeps of that revision.
    pub(crate) content: Value,
    /// What helm keeps of the newest one.
    pub(crate) live_content: Value,
}

impl<'a> WayBack<'a> {
    /// The way to the newest earlier revision that was ready and is another one than the live one; or, where nothing is
    /// recorded as ready, to the newest one that helm deployed. None if there is none.
    pub(crate) fn find(
        session: &Session,
        release: &'a str,
        revisions: Vec<Revision>,
    ) -> Result<Option<WayBack<'a>>> {
        let api = &session.api;
        let Some(last) = revisions.last() else {
            return Ok(None);
        };
        let live = last.content(api, release)?;
        let origin = origin(api, release, &revisions, last, &live)?;
        let kinds: [fn(&Revision) -> bool; 2] =
            [Revision::is_ready, Revision::was_deployed_by_others];
        for is_wanted in kinds {
            for (position, revision) in revisions.iter().enumerate().rev() {
                if revision.number >= origin || !is_wanted(revision) {
                    continue;
                }
                let content = revision.content(api, release)?;
                if !is_same(&content, &live)? {
                    return Ok(Some(WayBack {
                        release,
                        revisions,
                        target: position,
                        content,
                        live_content: live,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The way to the revision with this number.
    pub(crate) fn to(
        session: &Session,
        release: &'a str,
        revisions: Vec<Revision>,
        number: u32,
    ) -> Result<WayBack<'a>> {
        let api = &session.api;
        let target = revisions.iter().position(|it| it.number == number);
        let target = target.with_context(|| {
            let known = list(revisions.iter().map(|it| it.number));
            format!("there is no revision {number}; there are: {known}")
        })?;
        let last = revisions.last().context("there is no revision")?;
        Ok(WayBack {
            release,
            content: revisions[target].content(api, release)?,
            live_content: last.content(api, release)?,
            revisions,
            target,
        })
    }

    pub(crate) fn target(&self) -> &Revision {
        &self.revisions[self.target]
    }

    /// The newest revision, which is left.
    pub(crate) fn left(&self) -> &Revision {
        self.revisions.last().unwrap_or(self.target())
    }

    /// The names of the values that become others and that `is_secret`.
    pub(crate) fn changed_values(&self, is_secret: impl Fn(&[&str]) -> bool) -> Vec<String> {
        let mut names = Vec::new();
        history::each_leaf(&self.content["config"], &[], &mut |path, value| {
            let live = history::at(&self.live_content["config"], path);
            if live != Some(value) && is_secret(path) {
                names.push(path.join("."));
            }
        });
        names
    }

    /// The numbers of the revisions from the target on that were tried and never became ready.
    pub(crate) fn never_ready(&self) -> Vec<u32> {
        let later = self.revisions[self.target..].iter();
        let failed = later.filter(|it| it.has_failed());
        failed.map(|it| it.number).collect()
    }
}

/// The number of the revision that the newest one is the same as, if it was rolled back to: what came after that one was
/// left before.
fn origin(
    api: &Api,
    release: &str,
    revisions: &[Revision],
    last: &Revision,
    live: &Value,
) -> Result<u32> {
    let mut number = last.number;
    let mut next = live["info"]["rollback_revision"].as_u64();
    while let Some(earlier) = next.filter(|it| *it > 0 && *it < u64::from(number)) {
        number = u32::try_from(earlier)?;
        let revision = revisions.iter().find(|it| it.number == number);
        let content = revision.map(|it| it.content(api, release)).transpose()?;
        next = content.and_then(|it| it["info"]["rollback_revision"].as_u64());
    }
    Ok(number)
}

/// Whether two revisions make the same objects.
fn is_same(one: &Value, other: &Value) -> Result<bool> {
    Ok(manifest(one)? == manifest(other)? && hooks(one).eq(hooks(other)))
}

/// A revision's manifest, as it is once its claims are to stay.
fn manifest(content: &Value) -> Result<String> {
    let manifest = content["manifest"].as_str().unwrap_or_default();
    let kept = volumes::kept_manifest(manifest)?;
    Ok(kept.unwrap_or_else(|| manifest.to_owned()))
}

fn hooks(content: &Value) -> impl Iterator<Item = &Value> {
    let hooks = content["hooks"].as_array().into_iter().flatten();
    hooks.map(|it| &it["manifest"])
}
