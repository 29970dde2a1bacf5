//! Releases that go back to an earlier revision, by a person's wish or because an upgrade failed.

use std::time::Instant;

use anyhow::{Result, anyhow};
use serde_json::Value;

use crate::{
    kubernetes::{
        after::{self, After},
        helm,
        history::{self, NOT_APPLIED, OUR_ROLLBACK, Outcome},
        losses::{self, Objects},
        migrations,
        release::{FORCE_CONFLICTS, HelmRunner, wait_before_next},
        rollout::{self, Before},
        session::Session,
        volumes,
        way_back::WayBack,
    },
    machine::{
        process,
        terminal::Progress,
        until::{Attempts, Until},
    },
};

impl HelmRunner<'_> {
    /// Returns a release that failed to the newest revision that was ready; what is to be said of that.
    pub(crate) fn roll_back_failed(&self, session: &Session, release: &str) -> String {
        let way_back = history::revisions(&session.api, release)
            .and_then(|revisions| WayBack::find(session, release, revisions));
        let way_back = match way_back {
            Ok(Some(way_back)) => way_back,
            Ok(None) => {
                return "it was not rolled back: no earlier revision that was ready differs from it".to_owned();
            }
            Err(err) => return format!("it was not rolled back: {err:#}"),
        };
        if let Some(same) = way_back.same_ready() {
            return format!(
                "it was not rolled back: it is the same as revision {same}, which was ready"
            );
        }
        let number = way_back.target().number;
        let (live, content) = (&way_back.live_content, &way_back.content);
        let api = &session.api;
        if let Err(err) = migrations::refuse_way_back(self.sh, api, release, live, content) {
            return format!("it was not rolled back to revision {number}: {err:#}");
        }
        match self.roll_back(&way_back, session, &[]) {
            Ok(()) => format!(
                "rolled back to revision {number}, which is ready again\n{}",
                way_back.left_in_repository(self.sh, &session.record)
            ),
            Err(err) => format!("rolling back to revision {number} failed: {err:#}"),
        }
    }

    /// Makes a new revision of an earlier one, and waits until that is rolled out. For who holds the release's Lease.
    pub(crate) fn roll_back(
        &self,
        way_back: &WayBack,
        session: &Session,
        delete_volumes: &[String],
    ) -> Result<()> {
        let release = way_back.release;
        let progress = Progress::new(release);
        let number = way_back.target().number;
        let until = Instant::now() + self.timeout;
        progress.phase(&format!("rolling back to revision {number}"));
        let _unfinished = process::unfinished(format!(
            "{release} was being rolled back to revision {number}, and its pods were not waited for"
        ));
        let (live, content) = (&way_back.live_content, &way_back.content);
        let api = &session.api;
        let manifest = history::manifest(content);
        volumes::refuse_in_use(release, delete_volumes, manifest)?;
        let mask = self.mask_of_revisions(&[live, content]);
        let helm = self.with_mask(&mask);
        let contents = [live, content];
        let after = helm.run_rollback(session, release, number, contents, delete_volumes)?;
        let until = Until {
            at: until,
            may_go_on: &|| self.check_lease(),
        };
        // Pods may log what the revision gives them.
        let cluster = &session.target.cluster;
        let followed = rollout::follow(api, cluster, release, manifest, until, &progress)
            .map_err(|err| anyhow!("{}", mask.hide(&format!("{err:#}"))));
        self.check_lease()?;
        let outcome = match &followed {
            Ok(()) => Outcome::Ready,
            Err(_) => Outcome::Failed("not ready".to_owned()),
        };
        after.settle(session, release, &outcome)?;
        followed?;
        after::volumes_after(session, release, [live, content], delete_volumes)
    }

    /// Has helm make a new revision of an earlier one, from the newest revision's content to that one's. Claims stay, but
    /// for those that are named.
    pub(crate) fn run_rollback(
        &self,
        session: &Session,
        release: &str,
        revision: u32,
        contents: [&Value; 2],
        named: &[String],
    ) -> Result<After> {
        let api = &session.api;
        let claims = volumes::live_claims(api, release)?;
        volumes::protect(api, release, &claims, contents)?;
        let [old, new] = contents.map(Objects::of);
        volumes::wait_for_deleted(api, release, new.manifest, || self.check_lease())?;
        let events = ["pre-rollback", "post-rollback"];
        losses::refuse_losses(api, release, &old, Some(&new), events, named)?;
        let what = format!("{OUR_ROLLBACK} to revision {revision}");
        let mut flags = vec![
            "--description".to_owned(),
            session.record.description(&what, self.mask),
        ];
        if self.flags.contains(&FORCE_CONFLICTS) {
            flags.push(FORCE_CONFLICTS.to_owned());
        }
        self.repeat_rollback(session, release, revision, &contents, &flags)
    }

    /// Runs helm's rollback until it is done, or fails for what does not pass. `contents` are as in `run_rollback`.
    fn repeat_rollback(
        &self,
        session: &Session,
        release: &str,
        revision: u32,
        contents: &[&Value],
        flags: &[String],
    ) -> Result<After> {
        let mut attempts = Attempts::until(Instant::now() + self.timeout);
        loop {
            let number = history::last(&session.api, release)?;
            let number = number.map_or(0, |it| it.revision.number);
            let rollback = helm::rollback(self.sh, release, revision, self.timeout, flags);
            let before = Before::new(number, contents);
            let rolled_back = self.run_with_hooks(session, release, before, rollback);
            let after = match self.after_helm(session, release) {
                Ok(after) => after,
                Err(err) => return Err(rolled_back.err().unwrap_or(err)),
            };
            let newest = after.newest()?;
            // helm has copied the labels of the earlier one.
            let is_new = newest.number > number && newest.outcome == Outcome::Unknown;
            let is_done = rolled_back.is_ok() || is_new && newest.status == "deployed";
            if is_new {
                let outcome = if is_done {
                    Outcome::Begun
                } else {
                    Outcome::Failed(NOT_APPLIED.to_owned())
                };
                session.mark(release, newest, &outcome)?;
            }
            match rolled_back {
                Err(err) if !is_done => {
                    wait_before_next(&mut attempts, err, |text| say!("{release}: {text}"))?;
                }
                _ => return Ok(after),
            }
            self.end_unfinished(session, release, number)?;
        }
    }
}
