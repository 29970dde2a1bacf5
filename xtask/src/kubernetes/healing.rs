//! Releases whose last change was cut off, which helm refuses to upgrade.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    kubernetes::{
        api::{self, Api},
        history::{self, OUR_ROLLBACK, Outcome, Revision},
        losses::{self, Objects},
        release::{HelmRunner, UpgradePolicy},
        session::Session,
        volumes,
    },
    machine::{process, workflow},
};

/// How long we wait for somebody else's helm.
const PATIENCE: Duration = Duration::from_secs(60);

impl HelmRunner<'_> {
    /// Makes a release whose last change was cut off one that helm upgrades again: rolled back or, where nothing was
    /// deployed before, without the revision that was cut off. For who holds its Lease. Returns the revisions that it has
    /// then; `revisions` are those that it has now.
    ///
    /// Only what our own record shows to be ours is cut off, since we hold the Lease. A helm of somebody else may be at
    /// work, and is waited for, unless `policy` says that it is dead.
    pub(crate) fn heal(
        &self,
        session: &Session,
        release: &str,
        revisions: Vec<Revision>,
        policy: UpgradePolicy,
    ) -> Result<Vec<Revision>> {
        let revisions = wait_for_others(session, release, revisions, policy.heal)?;
        let Some(last) = revisions.last().filter(|it| is_unfinished(it)) else {
            return Ok(revisions);
        };
        let cut_off = format!("revision {} was cut off ({})", last.number, last.status);
        self.heal_revision(session, release, &revisions, policy, &cut_off)
            .with_context(|| cut_off.clone())?;
        history::revisions(&session.api, release)
    }

    /// Ends what our own helm began after the revision with this number and could not end, as it no longer reached the API
    /// server. For who holds the release's Lease.
    pub(crate) fn end_unfinished(
        &self,
        session: &Session,
        release: &str,
        number: u32,
    ) -> Result<()> {
        self.check_lease()?;
        let api = &session.api;
        let last = history::revisions(api, release)?.pop();
        let Some(last) = last.filter(|it| it.number > number) else {
            return Ok(());
        };
        if last.is_pending() && is_ours(api, release, &last)? {
            history::fail(api, release, &last)?;
        }
        remove_hook_jobs(api, release, &last.content(api, release)?)
    }

    fn heal_revision(
        &self,
        session: &Session,
        release: &str,
        revisions: &[Revision],
        policy: UpgradePolicy,
        cut_off: &str,
    ) -> Result<()> {
        self.check_lease()?;
        let api = &session.api;
        let last = revisions.last().context("it is gone")?;
        let content = last.content(api, release)?;
        remove_hook_jobs(api, release, &content)?;
        let Some(good) = revision_to_heal_to(revisions, last) else {
            say!(
                "{release}: {cut_off}, and nothing was deployed before: removing what helm keeps of it"
            );
            return forget(api, release, last);
        };
        let number = good.number;
        let wanted = good.content(api, release)?;
        let named = policy.delete_volumes;
        let events = ["pre-rollback", "post-rollback"];
        let [old, new] = [&content, &wanted].map(Objects::of);
        let lost = losses::refuse_losses(api, release, &old, Some(&new), events, named);
        if last.is_pending() && lost.is_err() && revisions.iter().any(|it| it.status == "deployed")
        {
            // What it brought stays, and the next upgrade takes it over.
            say!("{release}: {cut_off}, and may have claims: removing only what helm keeps of it");
            let claims = volumes::claims_of_helm(api, release)?;
            volumes::protect(api, release, &claims, [&content, &wanted])?;
            return forget(api, release, last);
        }
        say!("{release}: {cut_off}: rolling back to revision {number}");
        let mask = self.mask_of_revisions(&[&content, &wanted]);
        let helm = self.with_mask(&mask);
        helm.run_rollback(session, release, number, [&content, &wanted], named)?;
        Ok(())
    }
}

/// Removes what helm keeps of a revision.
fn forget(api: &Api, release: &str, revision: &Revision) -> Result<()> {
    api.delete(&history::path(release, &revision.secret), &json!({}))
}

/// Whether helm has begun something with a revision, and not ended it.
fn is_unfinished(revision: &Revision) -> bool {
    revision.is_pending() || revision.status == "uninstalling"
}

/// What a release that was cut off is returned to before it is upgraded: what is known to have been good, or what was
/// deployed.
fn revision_to_heal_to<'a>(revisions: &'a [Revision], last: &'a Revision) -> Option<&'a Revision> {
    let with_status = |status: &str| revisions.iter().rev().find(|it| it.status == status);
    history::newest_good(revisions)
        .or_else(|| with_status("deployed"))
        .or_else(|| with_status("superseded"))
        .or(Some(last).filter(|it| it.status == "uninstalling"))
}

/// The revisions of a release once no helm of somebody else is at work on it. `revisions` are those that it has now. An
/// error if that does not end.
pub(crate) fn wait_for_others(
    session: &Session,
    release: &str,
    mut revisions: Vec<Revision>,
    is_dead: bool,
) -> Result<Vec<Revision>> {
    let started = Instant::now();
    let mut is_said = false;
    loop {
        let Some(last) = revisions.last().filter(|it| is_unfinished(it)) else {
            return Ok(revisions);
        };
        if is_dead || is_ours(&session.api, release, last)? {
            return Ok(revisions);
        }
        let at_work = format!(
            "somebody's helm has been at work for {} s (revision {}, {})",
            age(last).as_secs(),
            last.number,
            last.status
        );
        ensure!(
            started.elapsed() < PATIENCE,
            "{at_work}\nhint: if it is dead, {} repairs the release, and {} removes it",
            workflow::option_of("deploy", "heal"),
            workflow::at_terminal("retire --heal")
        );
        if !is_said {
            say!("{release}: {at_work}: waiting for it");
            is_said = true;
        }
        process::check_stopped()?;
        thread::sleep(Duration::from_millis(500));
        revisions = history::revisions(&session.api, release)?;
    }
}

/// Whether we began what helm has not ended.
fn is_ours(api: &Api, release: &str, revision: &Revision) -> Result<bool> {
    if revision.status == "uninstalling" {
        return Ok(revision.is_retiring);
    }
    // `helm rollback` takes no labels.
    Ok(revision.outcome != Outcome::Unknown
        || revision.status == "pending-rollback" && {
            let content = revision.content(api, release)?;
            let description = content["info"]["description"].as_str();
            description.is_some_and(|it| it.starts_with(OUR_ROLLBACK))
        })
}

/// How long ago helm wrote a revision, as far as clocks agree.
fn age(revision: &Revision) -> Duration {
    let written = revision.modified.unwrap_or_default();
    let written = SystemTime::UNIX_EPOCH + Duration::from_secs(written);
    written.elapsed().unwrap_or_default()
}

/// Removes jobs that hooks of a revision have left: helm makes them anew, and would find them in its way.
fn remove_hook_jobs(api: &Api, release: &str, content: &Value) -> Result<()> {
    for hook in history::hooks(content) {
        let Some(name) = hook["name"].as_str().filter(|_| hook["kind"] == "Job") else {
            continue;
        };
        let path = format!(
            "/apis/batch/v1/namespaces/{release}/jobs/{}",
            api::step(name)?
        );
        if api.find(&path)?.is_some() {
            say!("{release}: removing the job `{name}` of a hook that was cut off");
            let how = json!({ "propagationPolicy": "Background" });
            api.delete(&path, &how)?;
        }
    }
    Ok(())
}
