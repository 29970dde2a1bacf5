//! One Helm release: brought to what its chart and values say and followed until it is rolled out, or shown as it
//! would be.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use xshell::{Cmd, Shell};

use crate::{
    kubernetes::{
        api::{self, Api},
        helm::{self, Release},
        history::{self, Revision},
        manifests::{self, Disguised, Rendering, Trials, Unmasked},
        record::Record,
        rollout,
        session::Session,
    },
    machine::{
        process::{self, Output},
        programs,
        terminal::Progress,
    },
    secrets::Mask,
};

/// How long helm may take beyond a release's time to say how it went.
const GRACE: Duration = Duration::from_secs(30);

/// How helm runs for every release of a command.
pub(crate) struct HelmRunner<'a> {
    pub(crate) sh: &'a Shell,
    pub(crate) mask: &'a Mask,
    /// Whether helm tells more of what it does.
    pub(crate) debug: bool,
    /// How long one release may take.
    pub(crate) timeout: Duration,
    /// What `helm upgrade` is told besides.
    pub(crate) flags: Vec<&'static str>,
}

/// What an upgrade may do beyond helm's own work.
#[derive(Clone, Copy, Default)]
pub(crate) struct UpgradePolicy {
    /// Whether a release that fails is returned to the revision that was deployed before.
    pub(crate) rollback_on_failure: bool,
    /// Whether an older commit than the deployed one may be deployed.
    pub(crate) force_older: bool,
}

/// What helm would apply, with secrets.
pub(crate) struct Rendered {
    pub(crate) manifest: Unmasked,
    /// The templates and manifests of hooks.
    pub(crate) hooks: Vec<(String, Unmasked)>,
}

impl Rendered {
    /// All manifests as `helm template` writes them.
    fn whole(self) -> Unmasked {
        let mut manifest = self.manifest.with_secrets().to_owned();
        for (path, hook) in self.hooks {
            manifest += &format!("\n---\n# Source: {path}\n{}\n", hook.with_secrets());
        }
        Unmasked::new(manifest)
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

#[derive(Deserialize)]
struct Hook {
    /// The template that it comes from.
    path: String,
    manifest: String,
}

impl<'a> HelmRunner<'a> {
    pub(crate) fn new(sh: &'a Shell, mask: &'a Mask, timeout: Duration) -> HelmRunner<'a> {
        HelmRunner {
            sh,
            mask,
            timeout,
            debug: false,
            flags: Vec::new(),
        }
    }

    /// Installs or upgrades the release, which nobody else does meanwhile, waits until it is rolled out, and checks it.
    /// Returns its new revision, and what the check says.
    pub(crate) fn upgrade<T>(
        &self,
        release: &Release,
        session: &Session,
        policy: UpgradePolicy,
        check: impl FnOnce(&Progress) -> Result<T>,
    ) -> Result<(u32, T)> {
        let _lease = session.leases.take(release.name)?;
        let before = self.heal(&session.api, release.name)?;
        let deployed = newest(&before, "deployed");
        if !policy.force_older {
            self.refuse_older(session, deployed)?;
        }
        let progress = Progress::new(release.name);
        let upgraded = self.upgrade_and_follow(release, session, &progress, check);
        match upgraded {
            Err(err) if policy.rollback_on_failure && process::check_stopped().is_ok() => {
                let outcome = self.roll_back_failed(release.name, deployed, session, &progress);
                Err(anyhow!("{err:#}\n{outcome}"))
            }
            upgraded => upgraded,
        }
    }

    /// Refuses to deploy a commit that comes before the deployed one.
    fn refuse_older(&self, session: &Session, deployed: Option<&Revision>) -> Result<()> {
        let commit = deployed.and_then(|it| it.commit.as_deref());
        match commit {
            Some(commit) if session.record.is_older_than(self.sh, commit) => bail!(
                "it is deployed from commit {commit}, which is newer than this one\n\
                 hint: `--force-older` deploys it all the same"
            ),
            _ => Ok(()),
        }
    }

    fn upgrade_and_follow<T>(
        &self,
        release: &Release,
        session: &Session,
        progress: &Progress,
        check: impl FnOnce(&Progress) -> Result<T>,
    ) -> Result<(u32, T)> {
        let until = Instant::now() + self.timeout;
        progress.phase("upgrading");
        let answer = self.apply(release, session, until, progress)?;
        let revision = answer.version;
        progress.phase(&format!(
            "revision {revision} is applied, waiting for its pods"
        ));
        rollout::follow(
            &session.api,
            release.name,
            &answer.manifest,
            until,
            progress,
        )
        .with_context(|| format!("revision {revision} did not become ready"))?;
        let checked =
            check(progress).with_context(|| format!("revision {revision} is not healthy"))?;
        Ok((revision, checked))
    }

    /// Gives the release to helm, again if the API server was away or busy meanwhile.
    fn apply(
        &self,
        release: &Release,
        session: &Session,
        until: Instant,
        progress: &Progress,
    ) -> Result<Answer> {
        let mut pause = Duration::from_secs(1);
        loop {
            let applied = self.run_upgrade(release, Some(&session.record));
            let message = match &applied {
                Err(err) if api::may_pass(&err.to_string()) => err.to_string(),
                _ => return applied,
            };
            if pause > Duration::from_secs(8) || Instant::now() + pause > until {
                return applied;
            }
            let reason = message.lines().last().unwrap_or_default();
            progress.phase(&format!("trying again in {} s: {reason}", pause.as_secs()));
            thread::sleep(pause);
            pause *= 2;
            process::check_stopped()?;
            self.heal(&session.api, release.name)?;
        }
    }

    /// Returns a release that failed to the revision that was deployed before; what is to be said of that.
    fn roll_back_failed(
        &self,
        release: &str,
        deployed: Option<&Revision>,
        session: &Session,
        progress: &Progress,
    ) -> String {
        let Some(Revision { number, .. }) = deployed else {
            return "no earlier revision was deployed that it could be rolled back to".to_owned();
        };
        match self.roll_back(release, *number, session, progress) {
            Ok(()) => format!("rolled back to revision {number}, which is ready again"),
            Err(err) => format!("rolling back to revision {number} failed: {err:#}"),
        }
    }

    /// Makes a new revision of an earlier one, and waits until that is rolled out. For who holds the release's Lease.
    pub(crate) fn roll_back(
        &self,
        release: &str,
        revision: u32,
        session: &Session,
        progress: &Progress,
    ) -> Result<()> {
        let until = Instant::now() + self.timeout;
        progress.phase(&format!("rolling back to revision {revision}"));
        let content = history::content_of(&session.api, release, revision)?;
        let mask = self.mask_of_revisions(&session.api, release, &content)?;
        let helm = self.with_mask(&mask);
        helm.run_rollback(release, revision, Some(&session.record))?;
        let manifest = content["manifest"].as_str().unwrap_or_default();
        // Pods may log what the revision gives them.
        rollout::follow(&session.api, release, manifest, until, progress)
            .map_err(|err| anyhow!("{}", mask.hide(&format!("{err:#}"))))
    }

    /// A mask that also hides the secrets of a revision that is returned to, and of the newest one: they may be older than
    /// those in any file.
    fn mask_of_revisions(&self, api: &Api, release: &str, wanted: &Value) -> Result<Mask> {
        let mut secrets = history::secret_texts(wanted);
        if let Some(newest) = history::last(api, release)? {
            secrets.extend(history::secret_texts(&newest.content(api)?));
        }
        Ok(self.mask.and(secrets))
    }

    /// The same helm with another mask.
    fn with_mask<'b>(&self, mask: &'b Mask) -> HelmRunner<'b>
    where
        'a: 'b,
    {
        HelmRunner {
            sh: self.sh,
            mask,
            debug: self.debug,
            timeout: self.timeout,
            flags: self.flags.clone(),
        }
    }

    fn run_rollback(&self, release: &str, revision: u32, record: Option<&Record>) -> Result<()> {
        let mut flags = Vec::new();
        if let Some(record) = record {
            let what = format!("rolled back to revision {revision}");
            flags = vec!["--description".to_owned(), record.description(&what)];
        }
        let rollback = helm::rollback(self.sh, release, revision, self.timeout, &flags);
        self.run(release, rollback)?;
        Ok(())
    }

    pub(crate) fn uninstall(&self, release: &str) -> Result<()> {
        self.run(release, helm::uninstall(self.sh, release, self.timeout))?;
        Ok(())
    }

    /// The manifests as the cluster would take them.
    pub(crate) fn manifests(&self, release: &Release) -> Result<Rendered> {
        let answer = self.run_upgrade(release, None)?;
        let hooks = answer.hooks.into_iter();
        Ok(Rendered {
            manifest: Unmasked::new(answer.manifest),
            hooks: hooks
                .map(|it| (it.path, Unmasked::new(it.manifest)))
                .collect(),
        })
    }

    /// All manifests as the chart makes them, without asking a cluster.
    fn template(&self, release: &Release) -> Result<Unmasked> {
        let kubernetes = programs::KUBERNETES.to_string();
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
        thread::scope(|scope| {
            let trials = scope.spawn(move || manifests::render(&sh, disguised, api));
            let rendered = render(self);
            (rendered, trials.join().expect("a rendering panicked"))
        })
    }

    /// Without a record nothing is changed.
    fn run_upgrade(&self, release: &Release, record: Option<&Record>) -> Result<Answer> {
        let mut flags = match record {
            Some(record) => record.flags(),
            None => vec!["--dry-run=server".to_owned()],
        };
        flags.extend(self.flags.iter().map(|it| (*it).to_owned()));
        flags.extend(self.debug_flags());
        let upgrade = helm::upgrade(self.sh, release, self.timeout, &flags);
        let output = self.run(release.name, upgrade)?;
        serde_json::from_slice(&output.stdout).context("helm's answer isn't the JSON of a release")
    }

    fn debug_flags(&self) -> Vec<String> {
        if self.debug {
            vec!["--debug".to_owned()]
        } else {
            Vec::new()
        }
    }

    /// Runs helm, and shows what it logs. A failure is helm's own message.
    fn run(&self, release: &str, cmd: Cmd) -> Result<Output> {
        // helm's own limit is for each single wait.
        let output = process::run_within(self.sh, cmd, self.timeout + GRACE)?;
        let log = self.mask.hide(&String::from_utf8_lossy(&output.stderr));
        if !output.success {
            return Err(self.failure(&log));
        }
        for line in log.lines() {
            say!("{release}: {line}");
        }
        Ok(output)
    }

    /// What helm says of its failure, which its log says once more.
    fn failure(&self, log: &str) -> Error {
        let is_said_twice = log.contains("\nError: ") && !self.debug;
        let lines = log.trim().lines();
        let lines: Vec<_> = lines
            .filter(|line| !(is_said_twice && line.starts_with("level=")))
            .collect();
        anyhow!("{}{}", lines.join("\n"), hint_of_failure(log))
    }

    /// Makes a release whose last deploy was cut off one that helm upgrades again: rolled back or, where nothing was
    /// deployed before, without the revision that was cut off. For who holds its Lease. Returns the revisions that it has
    /// then.
    fn heal(&self, api: &Api, release: &str) -> Result<Vec<Revision>> {
        let revisions = history::revisions(api, release)?;
        let last = revisions.last();
        let Some(last) = last.filter(|it| it.status.starts_with("pending-")) else {
            return Ok(revisions);
        };
        let cut_off = format!("revision {} was cut off ({})", last.number, last.status);
        self.heal_revision(api, release, last, &revisions, &cut_off)
            .with_context(|| cut_off.clone())?;
        history::revisions(api, release)
    }

    fn heal_revision(
        &self,
        api: &Api,
        release: &str,
        last: &Revision,
        revisions: &[Revision],
        cut_off: &str,
    ) -> Result<()> {
        let secret = history::path(release, &last.secret);
        remove_hook_jobs(api, release, &api.get(&secret)?)?;
        let good = newest(revisions, "deployed").or_else(|| newest(revisions, "superseded"));
        match good {
            Some(good) => {
                say!(
                    "{release}: {cut_off}: rolling back to revision {}",
                    good.number
                );
                let content = history::content_of(api, release, good.number)?;
                let mask = self.mask_of_revisions(api, release, &content)?;
                self.with_mask(&mask)
                    .run_rollback(release, good.number, None)
            }
            None => {
                say!(
                    "{release}: {cut_off}, and nothing was deployed before: removing what helm keeps of it"
                );
                api.send("DELETE", &secret, &json!({}))?;
                Ok(())
            }
        }
    }
}

/// What to do about a failure that helm has logged, with its line feed; empty if that is not known.
fn hint_of_failure(log: &str) -> &'static str {
    let is_conflict = log.contains("Apply failed with") && log.contains("conflict");
    if is_conflict {
        "\nhint: somebody set these fields by other means; `--force-conflicts` takes them over"
    } else {
        ""
    }
}

/// The newest revision with this status.
fn newest<'a>(revisions: &'a [Revision], status: &str) -> Option<&'a Revision> {
    revisions.iter().rev().find(|it| it.status == status)
}

/// Removes jobs that hooks of a revision have left: helm makes them anew, and would find them in its way.
fn remove_hook_jobs(api: &Api, release: &str, secret: &Value) -> Result<()> {
    let content = history::content(secret)?;
    for hook in content["hooks"].as_array().into_iter().flatten() {
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
            api.send("DELETE", &path, &how)?;
        }
    }
    Ok(())
}
