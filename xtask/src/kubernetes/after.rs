//! A release once helm has changed it: what is recorded, and what of it is left in the cluster.

use anyhow::{Context, Error, Result, ensure};
use serde_json::Value;

use crate::{
    kubernetes::{
        history::{self, NOT_APPLIED, Outcome, Revision},
        session::Session,
        volumes,
    },
    machine::{process, terminal::list, workflow},
};

/// What is said of a revision whose pods are not ready in time.
pub(crate) const NOT_READY: &str = "did not become ready";

/// What is said of one that fails its health check.
pub(crate) const NOT_HEALTHY: &str = "is not healthy";

/// What is said of one whose health check a signal cut off.
pub(crate) const NOT_CHECKED: &str = "is ready, and its health was not checked";

/// Why an upgrade failed, in few words: a label holds them, so no secret may be among them.
fn reason(err: &Error) -> &'static str {
    let message = err.to_string();
    if message.ends_with(NOT_READY) {
        "not ready"
    } else if message.ends_with(NOT_HEALTHY) {
        "not healthy"
    } else {
        NOT_APPLIED
    }
}

/// A release after helm has changed it: its claims stay whatever helm does next, ours or somebody else's.
pub(crate) struct After {
    revisions: Vec<Revision>,
    /// What helm keeps of the newest one.
    pub(crate) content: Value,
}

impl After {
    /// For who holds the release's Lease.
    pub(crate) fn of(session: &Session, release: &str) -> Result<After> {
        let api = &session.api;
        let revisions = history::revisions(api, release)?;
        let newest = revisions.last().context("helm keeps nothing of it")?;
        let content = volumes::keep_in_record(api, release, newest)?;
        let claims = volumes::claims_of_helm(api, release)?;
        volumes::protect(api, release, &claims, [&content])?;
        Ok(After { revisions, content })
    }

    pub(crate) fn newest(&self) -> Result<&Revision> {
        self.revisions.last().context("helm keeps nothing of it")
    }

    pub(crate) fn number(&self) -> Result<u32> {
        Ok(self.newest()?.number)
    }

    /// Records how the newest revision went, and forgets old ones. What a signal has cut off may become ready by itself.
    pub(crate) fn settle(&self, session: &Session, release: &str, outcome: &Outcome) -> Result<()> {
        if process::check_stopped().is_err() {
            return Ok(());
        }
        let ours = self.newest()?;
        let now = history::last(&session.api, release)?.map(|it| it.revision);
        ensure!(
            now.as_ref().is_some_and(|it| it.is(ours)),
            "somebody's helm has changed it meanwhile{}: nothing is known of revision {}",
            now.map_or_else(String::new, |it| format!(
                ", it is at revision {}",
                it.number
            )),
            ours.number
        );
        session.mark(release, ours, outcome)?;
        history::prune(&session.api, release, &self.revisions)
    }
}

/// Records that an upgrade has failed, if the newest revision is one that it made after the one with this number.
/// Returns whether it is.
pub(crate) fn settle_failed(
    session: &Session,
    release: &str,
    number: u32,
    err: &Error,
) -> Result<bool> {
    let api = &session.api;
    let revisions = history::revisions(api, release)?;
    let newest = revisions.last();
    let newest = newest.filter(|it| it.number > number && it.is_begun());
    if let Some(newest) = newest {
        session.mark(release, newest, &Outcome::Failed(reason(err).to_owned()))?;
    }
    history::prune(api, release, &revisions)?;
    Ok(newest.is_some())
}

/// Deletes the claims that a change of the release was to delete, and tells which others it has left. `contents` are what
/// helm keeps of it before and after.
pub(crate) fn volumes_after(
    session: &Session,
    release: &str,
    contents: [&Value; 2],
    delete_volumes: &[String],
) -> Result<()> {
    let api = &session.api;
    let [before, after] = contents;
    let deleted = volumes::delete(api, release, delete_volumes, Some(after))?;
    if !deleted.is_empty() {
        say!("{release}: deleted the volume claims {}", list(&deleted));
    }
    let mut left = volumes::left_over(api, release, before, after)?;
    left.retain(|it| !deleted.contains(it));
    if !left.is_empty() {
        say!(
            "{release}: volume claims that the release no longer has stay: {}; {} deletes them",
            list(&left),
            workflow::at_terminal("--delete-volumes")
        );
    }
    Ok(())
}
