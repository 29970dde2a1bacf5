//! One Helm release: brought to what its chart and values say and followed until it is rolled out, or shown as it
//! would be.

use std::{
    fmt::{self, Display},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::Value;
use xshell::{Cmd, Shell};

use crate::{
    kubernetes::{
        after::{self, After, NOT_CHECKED, NOT_HEALTHY, NOT_READY},
        api::{self, Api},
        helm::{self, Release},
        history::{self, Outcome, Revision},
        lease::{Lease, Work},
        losses::{self, HookObject, Objects},
        manifests::{self, Disguised, Rendering, Trials, Unmasked},
        objects::PartialObject,
        ownership,
        rollout::{self, Before, Hooks},
        session::Session,
        volumes,
    },
    machine::{
        parallel,
        process::{self, Output},
        programs,
        terminal::Progress,
        until::{Attempts, Until},
        workflow,
    },
    repository::kubernetes_version::Kubernetes,
    secrets::Mask,
};

/// How long helm may take beyond a release's time to say how it went.
const GRACE: Duration = Duration::from_secs(30);

/// How helm runs for every release of a command.
pub(crate) struct HelmRunner<'a> {
    pub(crate) sh: &'a Shell,
    pub(crate) mask: &'a Mask,
    /// What manifests are rendered for where no cluster is asked.
    pub(crate) kubernetes: Kubernetes,
    /// Whether helm tells more of what it does.
    pub(crate) debug: bool,
    /// How long one release may take.
    pub(crate) timeout: Duration,
    /// What `helm upgrade` is told besides.
    pub(crate) flags: Vec<&'static str>,
    /// A digest of all that helm is given of the release, which is recorded with its revision.
    pub(crate) given: Option<&'a str>,
    /// Under which it changes a release. Once that is lost, helm is killed.
    pub(crate) lease: Option<&'a Lease>,
}

/// What an upgrade may do beyond helm's own work.
#[derive(Clone, Copy, Default)]
pub(crate) struct UpgradePolicy<'a> {
    /// Whether a release that fails is returned to the newest revision that was ready.
    pub(crate) rollback_on_failure: bool,
    /// Whether an older commit than the deployed one may be deployed.
    pub(crate) force_older: bool,
    /// The chart or the cluster whose release may be taken over.
    pub(crate) take_over: Option<&'a str>,
    /// Whether somebody else's helm that seems to be at work is dead.
    pub(crate) heal: bool,
    /// The volume claims that may go.
    pub(crate) delete_volumes: &'a [String],
}

/// What helm would apply, with secrets.
pub(crate) struct Rendered {
    pub(crate) manifest: Unmasked,
    hooks: Vec<Hook>,
}

impl Rendered {
    /// All manifests as `helm template` writes them.
    fn whole(self) -> Unmasked {
        let mut manifest = self.manifest.with_secrets().to_owned();
        for Hook {
            path,
            manifest: hook,
            ..
        } in self.hooks
        {
            manifest += &format!("\n---\n# Source: {path}\n{hook}\n");
        }
        Unmasked::new(manifest)
    }

    fn objects(&self) -> Objects<'_> {
        let hooks = self.hooks.iter();
        Objects {
            manifest: self.manifest.with_secrets(),
            hooks: hooks.map(Hook::object).collect(),
        }
    }

    /// Whether a revision has these manifests, as helm keeps it.
    pub(crate) fn is_as_in(&self, content: &Value) -> Result<bool> {
        let hooks = history::hooks(content).map(history::manifest);
        let manifest = volumes::with_kept(self.manifest.with_secrets())?;
        Ok(content["manifest"] == *manifest && hooks.eq(self.hooks.iter().map(|it| &*it.manifest)))
    }
}

/// What `helm … --output json` tells of a release.
#[derive(Deserialize)]
struct Answer {
    version: u32,
    /// Left out if the chart makes nothing.
    #[serde(default)]
    manifest: String,
    #[serde(default)]
    hooks: Vec<Hook>,
}

impl Answer {
    /// What helm would have said of a revision that comes after the one with this number, and that it has ended without
    /// hearing of it. None if there is no such one.
    fn lost(after: &After, number: u32) -> Result<Option<Answer>> {
        let newest = after.newest()?;
        let is_done = newest.number > number && newest.is_begun() && newest.status == "deployed";
        Ok(is_done.then(|| Answer {
            version: newest.number,
            manifest: history::manifest(&after.content).to_owned(),
            hooks: Vec::new(),
        }))
    }

    /// The answer and what helm has left, if nobody's helm has made another revision since.
    fn with(self, after: After) -> Result<(Answer, After)> {
        let newest = after.number()?;
        ensure!(
            newest == self.version,
            "somebody's helm has made revision {newest} just after revision {}",
            self.version
        );
        Ok((self, after))
    }

    fn of(output: &Output) -> Result<Answer> {
        serde_json::from_slice(&output.stdout).context("helm's answer isn't the JSON of a release")
    }
}

/// What is known of hooks that helm has failed of: nothing that passes, whatever their logs say.
#[derive(Debug)]
struct HookFailure(String);

impl Display for HookFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HookFailure {}

/// A hook, as helm tells it.
#[derive(Deserialize)]
pub(crate) struct Hook {
    /// The template that it comes from.
    path: String,
    manifest: String,
    #[serde(default)]
    events: Vec<String>,
}

impl Hook {
    fn object(&self) -> HookObject<'_> {
        HookObject {
            events: self.events.iter().map(String::as_str).collect(),
            manifest: &self.manifest,
        }
    }
}

impl<'a> HelmRunner<'a> {
    pub(crate) fn new(sh: &'a Shell, mask: &'a Mask, timeout: Duration) -> HelmRunner<'a> {
        HelmRunner {
            sh,
            mask,
            kubernetes: Kubernetes::default(),
            timeout,
            debug: false,
            flags: Vec::new(),
            given: None,
            lease: None,
        }
    }

    /// The same helm for who holds the release's Lease.
    pub(crate) fn under<'b>(&self, lease: &'b Lease) -> HelmRunner<'b>
    where
        'a: 'b,
    {
        HelmRunner {
            lease: Some(lease),
            ..self.with_mask(self.mask)
        }
    }

    pub(crate) fn check_lease(&self) -> Result<()> {
        self.lease.map_or(Ok(()), Lease::check)
    }

    /// Installs or upgrades the release, which nobody else does meanwhile, waits until it is rolled out, and checks it.
    /// Returns its new revision, and what the check says.
    pub(crate) fn upgrade<T>(
        &self,
        release: &Release,
        session: &Session,
        policy: UpgradePolicy,
        check: impl FnOnce(&Progress, &Lease) -> Result<T>,
    ) -> Result<(u32, T)> {
        let lease = session.leases.take(release.name, Work::Change)?;
        let check = |progress: &Progress| check(progress, &lease);
        let helm = self.under(&lease);
        lease.unless_lost(helm.upgrade_or_roll_back(release, session, policy, check))
    }

    /// For who holds the release's Lease.
    fn upgrade_or_roll_back<T>(
        &self,
        release: &Release,
        session: &Session,
        policy: UpgradePolicy,
        check: impl FnOnce(&Progress) -> Result<T>,
    ) -> Result<(u32, T)> {
        let found = history::revisions(&session.api, release.name)?;
        ownership::check(session, release, &found, policy.take_over)?;
        let revisions = self.heal(session, release.name, found, policy)?;
        if !policy.force_older {
            self.refuse_older(release.name, session, &revisions)?;
        }
        let claims = volumes::live_claims(&session.api, release.name)?;
        let before = content_before(session, release.name, &revisions, &claims)?;
        let flags = self.guard_volumes(session, release, before.as_ref(), &claims, policy)?;
        let helm = HelmRunner { flags, ..*self };
        let progress = Progress::new(release.name);
        let upgraded = helm.upgrade_and_follow(release, session, &revisions, &progress, check);
        let (after, checked) = match upgraded {
            Ok(upgraded) => upgraded,
            Err(err) => {
                let last = revisions.last();
                return Err(helm.after_failure(session, release.name, last, policy, err));
            }
        };
        self.check_lease()?;
        let number = after.number()?;
        after
            .settle(session, release.name, &Outcome::Ready)
            .with_context(|| {
                format!("revision {number} is deployed and ready, but that is not recorded")
            })?;
        let before = before.unwrap_or_default();
        let names = policy.delete_volumes;
        after::volumes_after(session, release.name, [&before, &after.content], names)?;
        Ok((number, checked))
    }

    /// Records that an upgrade after this revision has failed, and returns the release to a good one if that is wanted.
    /// What is to be said of it all.
    fn after_failure(
        &self,
        session: &Session,
        release: &str,
        before: Option<&Revision>,
        policy: UpgradePolicy,
        err: Error,
    ) -> Error {
        if self.check_lease().is_err() || process::check_stopped().is_err() {
            return err;
        }
        let number = before.map_or(0, |it| it.number);
        let is_ours = after::settle_failed(session, release, number, &err);
        let is_ours = is_ours.unwrap_or_else(|other| {
            say!("{release}: {other:#}");
            false
        });
        if !policy.rollback_on_failure {
            return err;
        }
        if !is_ours {
            return anyhow!(
                "{err:#}\nit was not rolled back: helm made no revision of it, or somebody has made another one since"
            );
        }
        let outcome = self.roll_back_failed(session, release);
        anyhow!("{err:#}\n{outcome}")
    }

    /// Refuses to deploy a commit that comes before the one of the newest revision, whatever became of that.
    fn refuse_older(&self, release: &str, session: &Session, revisions: &[Revision]) -> Result<()> {
        let mut newest_first = revisions.iter().rev();
        let Some(live) = newest_first.find(|it| !it.is_pending()) else {
            return Ok(());
        };
        match session.record.check_not_older(self.sh, live)? {
            Some(warning) => workflow::tell_warning(release, &warning),
            None => Ok(()),
        }
    }

    /// Sees to it that an upgrade deletes no claims but those that are named. Returns what helm may be told.
    fn guard_volumes(
        &self,
        session: &Session,
        release: &Release,
        before: Option<&Value>,
        claims: &[PartialObject],
        policy: UpgradePolicy,
    ) -> Result<Vec<&'static str>> {
        let api = &session.api;
        let mut flags = self.flags.clone();
        let old = before.map(Objects::of).unwrap_or_default();
        let cleans_up = flags.contains(&CLEANUP);
        let named = policy.delete_volumes;
        let is_at_risk = cleans_up
            || !named.is_empty()
            || claims.iter().any(volumes::is_at_risk)
            || losses::may_lose(&old)?
            || session.chart_texts.may_have_hooks(release)?;
        if !is_at_risk {
            return Ok(flags);
        }
        let rendered = self.manifests(release)?;
        let new = rendered.objects();
        let events = before.map_or(INSTALL, |_| UPGRADE);
        volumes::refuse_in_use(release.name, named, new.manifest)?;
        if claims.iter().any(volumes::is_being_deleted) {
            volumes::wait_for_deleted(api, release.name, new.manifest, || self.check_lease())?;
        }
        losses::refuse_losses(api, release.name, &old, Some(&new), events, named)?;
        if cleans_up && losses::brings_new_ones(api, release.name, new.manifest)? {
            let name = release.name;
            say!(
                "{name}: new objects will stay if the upgrade fails, because there are volume claims among them"
            );
            flags.retain(|it| *it != CLEANUP);
        }
        Ok(flags)
    }

    fn upgrade_and_follow<T>(
        &self,
        release: &Release,
        session: &Session,
        before: &[Revision],
        progress: &Progress,
        check: impl FnOnce(&Progress) -> Result<T>,
    ) -> Result<(After, T)> {
        let until = Instant::now() + self.timeout;
        let name = release.name;
        let unfinished = process::unfinished(format!(
            "{name}: helm was at work on it, and the next deploy repairs what it left"
        ));
        progress.phase("upgrading");
        let (answer, after) = self.apply(release, session, before, until, progress)?;
        let revision = answer.version;
        unfinished.change(format!(
            "{name} is left at revision {revision}, whose pods were not waited for"
        ));
        self.follow(session, name, &answer, until, progress)?;
        unfinished.change(format!(
            "{name} is left at revision {revision}, which {NOT_CHECKED}"
        ));
        let checked = check(progress).with_context(|| {
            let how = process::check_stopped().map_or(NOT_CHECKED, |()| NOT_HEALTHY);
            format!("revision {revision} {how}")
        })?;
        Ok((after, checked))
    }

    /// Waits until a revision that was applied is rolled out.
    fn follow(
        &self,
        session: &Session,
        release: &str,
        applied: &Answer,
        until: Instant,
        progress: &Progress,
    ) -> Result<()> {
        let revision = applied.version;
        progress.phase(&format!(
            "revision {revision} is applied, waiting for its pods"
        ));
        let api = &session.api;
        let cluster = &session.target.cluster;
        let until = Until {
            at: until,
            may_go_on: &|| self.check_lease(),
        };
        rollout::follow(api, cluster, release, &applied.manifest, until, progress)
            .with_context(|| format!("revision {revision} {NOT_READY}"))
    }

    /// Gives the release to helm, again if the API server was away or busy meanwhile, or if helm finds what was cut off
    /// just before.
    fn apply(
        &self,
        release: &Release,
        session: &Session,
        before: &[Revision],
        until: Instant,
        progress: &Progress,
    ) -> Result<(Answer, After)> {
        let mut attempts = Attempts::until(until);
        let mut healed;
        let mut last = before.last();
        loop {
            let number = last.map_or(0, |it| it.number);
            let (record, cluster) = (&session.record, &session.target.cluster);
            let flags = record.flags(last, cluster, self.given, self.mask);
            let upgrade = self.upgrade_command(release, flags);
            let before = Before::new(number, &[]);
            let applied = self.run_with_hooks(session, release.name, before, upgrade);
            let applied = applied.and_then(|it| Answer::of(&it));
            let after = self.after_helm(session, release.name);
            let err = match applied {
                Ok(answer) => return answer.with(after?),
                Err(err) => err,
            };
            if !may_pass(&err) {
                return Err(err);
            }
            if let Ok(after) = after
                && let Some(answer) = Answer::lost(&after, number)?
            {
                return Ok((answer, after));
            }
            wait_before_next(&mut attempts, err, |text| progress.phase(text))?;
            self.end_unfinished(session, release.name, number)?;
            let found = history::revisions(&session.api, release.name)?;
            healed = self.heal(session, release.name, found, UpgradePolicy::default())?;
            last = healed.last();
        }
    }

    /// What helm has left of a release.
    pub(crate) fn after_helm(&self, session: &Session, release: &str) -> Result<After> {
        self.check_lease()?;
        After::of(session, release)
    }

    /// A mask that also hides the secrets of revisions: they may be older than those in any file.
    pub(crate) fn mask_of_revisions(&self, contents: &[&Value]) -> Mask {
        let secrets = contents
            .iter()
            .flat_map(|it| history::secret_texts(it, |_, _| false));
        self.mask.and(secrets.collect())
    }

    /// The same helm with another mask.
    pub(crate) fn with_mask<'b>(&self, mask: &'b Mask) -> HelmRunner<'b>
    where
        'a: 'b,
    {
        HelmRunner {
            sh: self.sh,
            mask,
            kubernetes: self.kubernetes,
            debug: self.debug,
            timeout: self.timeout,
            flags: self.flags.clone(),
            given: self.given,
            lease: self.lease,
        }
    }

    /// Uninstalls a release whose newest revision has this content.
    pub(crate) fn uninstall(
        &self,
        session: &Session,
        release: &str,
        revision: u32,
        content: &Value,
    ) -> Result<()> {
        let mut attempts = Attempts::until(Instant::now() + self.timeout);
        loop {
            let uninstall = helm::uninstall(self.sh, release, self.timeout);
            let before = Before::new(revision - 1, &[content]);
            match self.run_with_hooks(session, release, before, uninstall) {
                Ok(_) => return Ok(()),
                // helm may have been about to say that it's done.
                Err(_) if history::last(&session.api, release)?.is_none() => return Ok(()),
                Err(err) => wait_before_next(&mut attempts, err, |text| say!("{release}: {text}"))?,
            }
            self.check_lease()?;
        }
    }

    /// The manifests as the cluster would take them.
    pub(crate) fn manifests(&self, release: &Release) -> Result<Rendered> {
        let mut attempts = Attempts::until(Instant::now() + self.timeout);
        loop {
            let flags = vec!["--dry-run=server".to_owned()];
            match self.run(release.name, self.upgrade_command(release, flags)) {
                Err(err) => {
                    let name = release.name;
                    wait_before_next(&mut attempts, err, |text| say!("{name}: {text}"))?;
                }
                Ok(output) => {
                    let answer = Answer::of(&output)?;
                    return Ok(Rendered {
                        manifest: Unmasked::new(answer.manifest),
                        hooks: answer.hooks,
                    });
                }
            }
        }
    }

    /// All manifests as the chart makes them for a rehearsal cluster; none if helm refuses, as it will say when it is to
    /// deploy them.
    pub(crate) fn peek(&self, release: &Release) -> Option<Unmasked> {
        let template = helm::template(self.sh, release, &programs::KUBERNETES.to_string(), &[]);
        let output = process::run_within(self.sh, template, self.timeout).ok()?;
        Some(Unmasked::new(String::from_utf8(output.stdout).ok()?))
    }

    /// All manifests as the chart makes them, without asking a cluster.
    fn template(&self, release: &Release) -> Result<Unmasked> {
        let kubernetes = self.kubernetes.to_string();
        let template = helm::template(self.sh, release, &kubernetes, &self.debug_flags());
        let output = self.run(release.name, template)?;
        Ok(Unmasked::new(String::from_utf8(output.stdout)?))
    }

    /// The manifests as the cluster of this API would take them or, without one, as the chart makes them; hooks, too. They
    /// are compared with what the release makes of placeholders for its secrets.
    pub(crate) fn rendering(
        &self,
        release: &Release,
        disguised: Option<&Disguised>,
        api: Option<&Api>,
    ) -> Result<Rendering> {
        let (manifest, trials) = self.beside_trials(disguised, api, |helm| match api {
            Some(_) => helm.manifests(release).map(Rendered::whole),
            None => helm.template(release),
        });
        Ok(Rendering {
            manifest: manifest?,
            trials,
        })
    }

    /// Does `render` while the release is rendered with placeholders.
    fn beside_trials<T>(
        &self,
        disguised: Option<&Disguised>,
        api: Option<&Api>,
        render: impl FnOnce(&Self) -> Result<T>,
    ) -> (Result<T>, Trials) {
        let sh = self.sh.clone();
        let kubernetes = self.kubernetes;
        thread::scope(|scope| {
            let trials = scope.spawn(move || manifests::render(&sh, disguised, api, kubernetes));
            let rendered = render(self);
            (rendered, trials.join().expect("a rendering panicked"))
        })
    }

    /// The helm that upgrades a release with these flags and our own.
    fn upgrade_command(&self, release: &Release, mut flags: Vec<String>) -> Cmd<'a> {
        flags.extend(self.flags.iter().map(|it| (*it).to_owned()));
        flags.extend(self.debug_flags());
        helm::upgrade(self.sh, release, self.timeout, &flags)
    }

    fn debug_flags(&self) -> Vec<String> {
        if self.debug {
            vec!["--debug".to_owned()]
        } else {
            Vec::new()
        }
    }

    /// Runs helm, and shows what it logs. A failure is helm's own message.
    pub(crate) fn run(&self, release: &str, cmd: Cmd) -> Result<Output> {
        self.run_unless(release, cmd, || false)
    }

    /// Runs a helm that changes a release, and follows the hooks that it waits for. Once one of them can't finish, helm is
    /// ended. The error tells of the hooks, too.
    pub(crate) fn run_with_hooks(
        &self,
        session: &Session,
        release: &str,
        before: Before,
        cmd: Cmd,
    ) -> Result<Output> {
        let cluster = &session.target.cluster;
        let hooks = Hooks::new(&session.api, cluster, release, before, self.timeout);
        let (ran, observed) = thread::scope(|scope| {
            let follower = parallel::thread().spawn_scoped(scope, || hooks.follow());
            let follower = follower.expect("a thread can be started");
            let ran = self.run_unless(release, cmd, || hooks.is_hopeless());
            hooks.end();
            follower.thread().unpark();
            (
                ran,
                follower.join().expect("the follower of hooks panicked"),
            )
        });
        let err = match ran {
            Ok(output) => return Ok(output),
            Err(err) => err,
        };
        if self.check_lease().is_err() || process::check_stopped().is_err() {
            return Err(err);
        }
        if let Some(why) = hooks.hopeless() {
            if let Err(err) = hooks.delete_failed() {
                say!("{release}: cannot delete the hook that failed: {err:#}");
            }
            return Err(self.hook_failure(&why));
        }
        if !may_pass(&err)
            && let Some(described) = hooks.describe_failed(observed)
        {
            return Err(self.hook_failure(&format!("{err:#}\n{described}")));
        }
        Err(err)
    }

    fn hook_failure(&self, described: &str) -> Error {
        HookFailure(self.mask.hide(described).to_string()).into()
    }

    fn run_unless(
        &self,
        release: &str,
        cmd: Cmd,
        is_hopeless: impl Fn() -> bool,
    ) -> Result<Output> {
        // helm's own limit is for each single wait.
        let limit = self.timeout + GRACE;
        let output = process::run_while(self.sh, cmd, limit, || self.check_lease(), is_hopeless)?;
        let log = self.mask.hide(&String::from_utf8_lossy(&output.stderr));
        if !output.success {
            return Err(self.failure(&log));
        }
        for line in log.lines().filter(|it| self.debug || !is_debug(it)) {
            say!("{release}: {line}");
        }
        Ok(output)
    }

    /// What helm says of its failure, which its log says once more.
    fn failure(&self, log: &str) -> Error {
        let is_said_twice = log.contains("\nError: ") && !self.debug;
        let is_needless = |line: &str| is_said_twice && line.starts_with("level=");
        let lines = log.trim().lines();
        let lines: Vec<_> = lines
            .filter(|it| !is_needless(it) || it.contains(WHY_NOT_DELETED))
            .collect();
        anyhow!("{}{}", lines.join("\n"), hint_of_failure(log))
    }
}

/// How helm logs for those who look for faults why it could not delete something. Its error does not say that.
const WHY_NOT_DELETED: &str = "uninstall: Failed to delete release";

fn is_debug(line: &str) -> bool {
    line.starts_with("level=DEBUG")
}

/// What to do about a failure that helm has logged, with its line feed; empty if that is not known.
fn hint_of_failure(log: &str) -> String {
    let is_conflict = log.contains("Apply failed with") && log.contains("conflict");
    if log.contains("conflict with \"xtask\"") {
        "\nhint: the chart gives a volume claim another `helm.sh/resource-policy` than `keep`: leave it out there".to_owned()
    } else if is_conflict {
        format!(
            "\nhint: somebody set these fields by other means; {} takes them over",
            workflow::option("force-conflicts")
        )
    } else {
        api::missing_right(log).unwrap_or_default()
    }
}

/// Has helm take over fields that somebody set by other means.
pub(crate) const FORCE_CONFLICTS: &str = "--force-conflicts";

/// The events whose hooks helm runs.
const INSTALL: [&str; 2] = ["pre-install", "post-install"];
const UPGRADE: [&str; 2] = ["pre-upgrade", "post-upgrade"];

/// Has helm delete what a failed upgrade has made, claims too.
pub(crate) const CLEANUP: &str = "--cleanup-on-fail";

/// Waits before helm is run again. Its error if another attempt would be none too many, or would fail as well.
pub(crate) fn wait_before_next(
    attempts: &mut Attempts,
    err: Error,
    tell: impl FnOnce(&str),
) -> Result<()> {
    let message = err.to_string();
    let reason = message.lines().last().unwrap_or_default();
    let pause = attempts.pause(reason).filter(|_| may_pass(&err));
    let pause = pause.ok_or(err)?;
    tell(&format!("trying again in {} s: {reason}", pause.as_secs()));
    thread::sleep(pause);
    process::check_stopped()
}

/// Whether another attempt may succeed where helm failed like this.
fn may_pass(err: &Error) -> bool {
    let message = err.to_string();
    // A helm that got SIGTERM may have written its last words after we had looked.
    let is_passing =
        api::may_pass(&message) || message.contains("another operation (install/upgrade/rollback)");
    is_passing && !err.is::<HookFailure>()
}

/// What helm keeps of the revision that it compares the next one with: the newest one that it calls deployed or, without
/// one, the newest of all. None if the release is not there. Claims of both are kept from helm.
fn content_before(
    session: &Session,
    release: &str,
    revisions: &[Revision],
    claims: &[PartialObject],
) -> Result<Option<Value>> {
    let api = &session.api;
    let Some(last) = revisions.last().filter(|it| it.status != "uninstalled") else {
        return Ok(None);
    };
    let mut newest_first = revisions.iter().rev();
    let compared = newest_first.find(|it| it.status == "deployed");
    let compared = compared.unwrap_or(last);
    let content = compared.content(api, release)?;
    let newest = if compared.number == last.number {
        None
    } else {
        Some(last.content(api, release)?)
    };
    volumes::protect(api, release, claims, newest.iter().chain([&content]))?;
    Ok(Some(content))
}
