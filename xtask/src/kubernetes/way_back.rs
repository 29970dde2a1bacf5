//! To which revision a release goes back.
//!
//! helm calls a revision `deployed` once it has applied it, whether or not it became ready. Back means the newest revision
//! that we have seen ready and that is not the same as the live one.

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::Shell;

use crate::{
    kubernetes::{
        api::Api,
        history::{self, Outcome, Revision},
        record::Record,
        session::Session,
        volumes,
    },
    machine::terminal::list,
};

/// A release's way back to an earlier revision.
pub(crate) struct WayBack<'a> {
    pub(crate) release: &'a str,
    revisions: Vec<Revision>,
    /// Where among them the one is that is left, and the one that is returned to.
    left: usize,
    target: usize,
    /// Where the newest one up to that is which is no rollback: the repository still has what it brought.
    brought: Option<usize>,
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
        let live_content = last.content(api, release)?;
        let (left, left_content) = left(api, release, &revisions, &live_content)?;
        let origin = origin(api, release, &revisions, &revisions[left], &left_content)?;
        let kinds: [fn(&Revision) -> bool; 2] =
            [Revision::is_ready, Revision::was_deployed_by_others];
        for is_wanted in kinds {
            for (target, revision) in revisions.iter().enumerate().rev() {
                if revision.number >= origin || !is_wanted(revision) {
                    continue;
                }
                let content = revision.content(api, release)?;
                if !is_same(&content, &left_content)? {
                    return Ok(Some(WayBack {
                        release,
                        brought: brought(api, release, &revisions[..=left], &left_content)?,
                        revisions,
                        left,
                        target,
                        content,
                        live_content,
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
        let live_content = last.content(api, release)?;
        let (left, left_content) = left(api, release, &revisions, &live_content)?;
        Ok(WayBack {
            release,
            left,
            brought: brought(api, release, &revisions[..=left], &left_content)?,
            content: revisions[target].content(api, release)?,
            live_content,
            revisions,
            target,
        })
    }

    pub(crate) fn target(&self) -> &Revision {
        &self.revisions[self.target]
    }

    /// The revision that is left: the newest one, but for rollbacks that helm could not apply.
    pub(crate) fn left(&self) -> &Revision {
        &self.revisions[self.left]
    }

    /// What to say of the repository once the release is back: it is not changed.
    pub(crate) fn left_in_repository(&self, sh: &Shell, record: &Record) -> String {
        let brought = self.brought.map(|it| &self.revisions[it]);
        let brought = brought.filter(|it| it.outcome != Outcome::Unknown);
        let Some((revision, commit)) = brought.and_then(|it| Some((it, it.commit.as_deref()?)))
        else {
            return "The repository still has another version, of a commit that is not recorded, and the next deploy brings \
                    that"
                .to_owned();
        };
        let what = format!(
            "The repository still has what revision {} brought (commit {}",
            revision.number,
            history::short(commit)
        );
        if revision.has_changes {
            return format!(
                "{what} with changes that were in no commit), unless somebody has taken them back, and the next deploy \
                 brings that"
            );
        }
        let way = record.way_to_revert(sh, self.target().own_commit(), commit);
        let way = way.unwrap_or_else(|| "revert it".to_owned());
        format!("{what}): {way}, or the next deploy brings it again")
    }

    /// The number of a ready revision that is the same as the one that is left.
    pub(crate) fn same_ready(&self) -> Option<u32> {
        let mut between = self.revisions[self.target + 1..self.left].iter().rev();
        between.find(|it| it.is_ready()).map(|it| it.number)
    }

    /// Whether this is still the newest revision.
    pub(crate) fn is_newest(&self, revision: &Revision) -> bool {
        self.revisions.last().is_some_and(|it| it.is(revision))
    }

    /// The names of the values that become others and that `is_wanted`.
    pub(crate) fn changed_values(&self, is_wanted: impl Fn(&[&str]) -> bool) -> Vec<String> {
        let mut names = Vec::new();
        history::each_leaf(&self.content["config"], &[], &mut |path, value| {
            let live = history::at(&self.live_content["config"], path);
            if live != Some(value) && is_wanted(path) {
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

/// Where the newest revision is that is no rollback which helm could not apply, and what helm keeps of it. `live` is what
/// it keeps of the newest one of all.
fn left(api: &Api, release: &str, revisions: &[Revision], live: &Value) -> Result<(usize, Value)> {
    let last = revisions.len().saturating_sub(1);
    let mut content = live.clone();
    for (position, revision) in revisions.iter().enumerate().rev() {
        if position != last {
            content = revision.content(api, release)?;
        }
        // helm calls also one that it could not apply `superseded`, once the next one came.
        let is_applied = !revision.is_pending() && !revision.was_not_applied();
        if is_applied || rolled_back_to(&content).is_none() {
            return Ok((position, content));
        }
    }
    Ok((last, live.clone()))
}

/// Where the newest of these revisions is that was not made of an earlier one. `newest` is what helm keeps of the last one.
fn brought(
    api: &Api,
    release: &str,
    revisions: &[Revision],
    newest: &Value,
) -> Result<Option<usize>> {
    let mut is_rollback = rolled_back_to(newest).is_some();
    for (position, revision) in revisions.iter().enumerate().rev() {
        if position + 1 < revisions.len() {
            is_rollback = rolled_back_to(&revision.content(api, release)?).is_some();
        }
        if !is_rollback {
            return Ok(Some(position));
        }
    }
    Ok(None)
}

/// The number of the revision that a revision was made of, if it is a rollback.
fn rolled_back_to(content: &Value) -> Option<u64> {
    let number = content["info"]["rollback_revision"].as_u64();
    number.filter(|it| *it > 0)
}

/// The number of the revision that this one is the same as, if it is a rollback: what came after that one was left
/// before.
fn origin(
    api: &Api,
    release: &str,
    revisions: &[Revision],
    revision: &Revision,
    content: &Value,
) -> Result<u32> {
    let mut number = revision.number;
    let mut next = rolled_back_to(content);
    while let Some(earlier) = next.filter(|it| *it < u64::from(number)) {
        number = u32::try_from(earlier)?;
        let revision = revisions.iter().find(|it| it.number == number);
        let content = revision.map(|it| it.content(api, release)).transpose()?;
        next = content.as_ref().and_then(rolled_back_to);
    }
    Ok(number)
}

/// Whether two revisions make the same objects.
fn is_same(one: &Value, other: &Value) -> Result<bool> {
    Ok(kept_manifest(one)? == kept_manifest(other)? && hooks(one).eq(hooks(other)))
}

fn kept_manifest(content: &Value) -> Result<String> {
    volumes::with_kept(history::manifest(content))
}

fn hooks(content: &Value) -> impl Iterator<Item = &Value> {
    history::hooks(content).map(|it| &it["manifest"])
}
