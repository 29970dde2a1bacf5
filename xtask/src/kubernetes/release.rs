//! One Helm release: brought to what its chart and values say and followed until it stands, or shown as it would be.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::{
        api::{self, Api},
        history::{self, Revision},
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

/// A release as it is to be.
pub(crate) struct Release<'a> {
    /// Of the release and of its namespace.
    pub(crate) name: &'a str,
    /// The folder or archive of a chart that has its dependencies.
    pub(crate) chart: &'a Path,
    /// Values files that helm can read; the last one wins.
    pub(crate) values: Vec<PathBuf>,
    /// What else helm is told.
    pub(crate) flags: Vec<&'a str>,
}

/// How helm runs for every release of a command.
pub(crate) struct Helm<'a> {
    pub(crate) sh: &'a Shell,
    pub(crate) mask: &'a Mask,
    /// Whether helm tells more of what it does.
    pub(crate) debug: bool,
    /// How long one release may take.
    pub(crate) timeout: Duration,
    /// Whether one that fails is returned to its last good revision.
    pub(crate) rolls_back: bool,
    /// Whether an older commit than the live one may be deployed.
    pub(crate) force_older: bool,
    /// What `helm upgrade` is told besides.
    pub(crate) flags: Vec<&'static str>,
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
    manifest: String,
}

impl Release<'_> {
    fn values_args(&self) -> impl Iterator<Item = &Path> {
        self.values
            .iter()
            .flat_map(|it| [Path::new("--values"), it])
    }
}

impl<'a> Helm<'a> {
    pub(crate) fn new(sh: &'a Shell, mask: &'a Mask, timeout: Duration) -> Helm<'a> {
        Helm {
            sh,
            mask,
            timeout,
            debug: false,
            rolls_back: false,
            force_older: false,
            flags: Vec::new(),
        }
    }

    /// Installs or upgrades the release, which nobody else does meanwhile, waits until it stands, and checks it: its new
    /// revision, and what the check says.
    pub(crate) fn upgrade<T>(
        &self,
        release: &Release,
        session: &Session,
        check: impl FnOnce(&Progress) -> Result<T>,
    ) -> Result<(u32, T)> {
        let _lease = session.leases.take(release.name)?;
        let before = heal(&session.api, self, release.name)?;
        let live = before
            .iter()
            .rfind(|it| it.status == "deployed")
            .and_then(|it| it.commit.as_deref());
        if let Some(live) =
            live.filter(|it| !self.force_older && session.record.is_older_than(self.sh, it))
        {
            bail!(
                "it is deployed from commit {live}, which is newer than this one\n\
                 hint: `--force-older` deploys it all the same"
            );
        }
        let until = Instant::now() + self.timeout;
        let progress = Progress::new(release.name);
        progress.phase("upgrading");
        let upgraded = self
            .apply(release, session, until, &progress)
            .and_then(|answer| {
                progress.phase(&format!(
                    "revision {} is applied, waiting for its pods",
                    answer.version
                ));
                rollout::follow(
                    &session.api,
                    release.name,
                    &answer.manifest,
                    until,
                    &progress,
                )
                .with_context(|| format!("revision {} doesn't stand", answer.version))?;
                let checked = check(&progress)
                    .with_context(|| format!("revision {} isn't healthy", answer.version))?;
                Ok((answer.version, checked))
            });
        match upgraded {
            Err(err) if self.rolls_back && process::check_stopped().is_ok() => {
                let said = match before.iter().rfind(|it| it.status == "deployed") {
                    None => {
                        "no revision before it stood, to which it could be rolled back".to_owned()
                    }
                    Some(good) => {
                        match self.return_to(release.name, good.number, session, &progress) {
                            Ok(()) => format!(
                                "rolled back to revision {}, which stands again",
                                good.number
                            ),
                            Err(err) => {
                                format!("rolling back to revision {} failed: {err:#}", good.number)
                            }
                        }
                    }
                };
                Err(anyhow!("{err:#}\n{said}"))
            }
            upgraded => upgraded,
        }
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
            let Some(err) = applied
                .as_ref()
                .err()
                .filter(|it| api::may_pass(&it.to_string()))
            else {
                return applied;
            };
            if pause > Duration::from_secs(8) || Instant::now() + pause > until {
                return applied;
            }
            let said = err.to_string();
            let said = said.lines().last().unwrap_or_default();
            progress.phase(&format!("trying again in {} s: {said}", pause.as_secs()));
            thread::sleep(pause);
            pause *= 2;
            process::check_stopped()?;
            heal(&session.api, self, release.name)?;
        }
    }

    /// Makes a new revision of an earlier one, which nobody else does meanwhile, and waits until that stands.
    pub(crate) fn roll_back_and_follow(
        &self,
        release: &str,
        revision: u32,
        session: &Session,
    ) -> Result<()> {
        let _lease = session.leases.take(release)?;
        self.return_to(release, revision, session, &Progress::new(release))
    }

    fn return_to(
        &self,
        release: &str,
        revision: u32,
        session: &Session,
        progress: &Progress,
    ) -> Result<()> {
        let until = Instant::now() + self.timeout;
        progress.phase(&format!("rolling back to revision {revision}"));
        self.roll_back(release, revision, Some(&session.record))?;
        let content = history::content_of(&session.api, release, revision)?;
        let manifest = content["manifest"].as_str().unwrap_or_default();
        // Its secrets may be older than those in any file, and pods may log them.
        rollout::follow(&session.api, release, manifest, until, progress).map_err(|err| {
            anyhow!(
                "{}",
                Mask::of_values(&content["config"]).hide(&format!("{err:#}"))
            )
        })
    }

    pub(crate) fn roll_back(
        &self,
        release: &str,
        revision: u32,
        record: Option<&Record>,
    ) -> Result<()> {
        let (sh, revision) = (self.sh, revision.to_string());
        let timeout = format!("{}s", self.timeout.as_secs().max(1));
        let recorded =
            record.map(|it| it.description(&format!("rolled back to revision {revision}")));
        let recorded = recorded
            .into_iter()
            .flat_map(|it| ["--description".to_owned(), it]);
        let cmd = cmd!(
            sh,
            "helm rollback {release} {revision} --namespace {release} --timeout {timeout} {recorded...}"
        );
        self.run(release, cmd).map(|_| ())
    }

    pub(crate) fn uninstall(&self, release: &str) -> Result<()> {
        let sh = self.sh;
        let timeout = format!("{}s", self.timeout.as_secs().max(1));
        let cmd = cmd!(
            sh,
            "helm uninstall {release} --namespace {release} --wait --timeout {timeout}"
        );
        self.run(release, cmd).map(|_| ())
    }

    /// The manifest as the cluster would take it, with secrets, and those of hooks.
    pub(crate) fn manifests(&self, release: &Release) -> Result<(String, Vec<String>)> {
        let answer = self.run_upgrade(release, None)?;
        Ok((
            answer.manifest,
            answer.hooks.into_iter().map(|it| it.manifest).collect(),
        ))
    }

    /// All manifests as the chart makes them, with secrets, without asking a cluster.
    pub(crate) fn template(&self, release: &Release) -> Result<String> {
        let (
            sh,
            Release {
                name, chart, flags, ..
            },
        ) = (self.sh, release);
        let values = release.values_args();
        let version = programs::KUBERNETES.to_string();
        let debug = self.debug.then_some("--debug");
        let cmd = cmd!(
            sh,
            "helm template {name} {chart} --namespace {name} {values...} {flags...} --kube-version {version} {debug...}"
        );
        Ok(String::from_utf8(self.run(name, cmd)?.stdout)?)
    }

    /// The manifests as the cluster would take them, without secrets.
    pub(crate) fn dry_run(&self, release: &Release) -> Result<String> {
        let (mut manifest, hooks) = self.manifests(release)?;
        for hook in hooks {
            manifest += &format!("\n---\n{hook}\n");
        }
        Ok(self.shown(release, &manifest))
    }

    /// The manifests as the chart makes them, without asking a cluster and without secrets.
    pub(crate) fn render(&self, release: &Release) -> Result<String> {
        Ok(self.shown(release, &self.template(release)?))
    }

    /// Without a record nothing is changed.
    fn run_upgrade(&self, release: &Release, record: Option<&Record>) -> Result<Answer> {
        let (
            sh,
            Release {
                name, chart, flags, ..
            },
        ) = (self.sh, release);
        let values = release.values_args();
        let timeout = format!("{}s", self.timeout.as_secs().max(1));
        // Without --reset-values helm takes the last release's values where the files hold none.
        let debug = self.debug.then_some("--debug");
        let own = &self.flags;
        let recorded = record.map_or_else(|| vec!["--dry-run=server".to_owned()], Record::flags);
        let cmd = cmd!(
            sh,
            "helm upgrade --install --create-namespace --namespace {name} {name} {chart} {values...} {flags...}
             --reset-values --timeout {timeout} --output json {recorded...} {own...} {debug...}"
        );
        let output = self.run(name, cmd)?;
        serde_json::from_slice(&output.stdout).context("helm's answer isn't the JSON of a release")
    }

    /// Runs helm, and shows what it logs. A failure is helm's own message.
    fn run(&self, release: &str, cmd: xshell::Cmd) -> Result<Output> {
        // helm's own limit is for each single wait.
        let output = process::run_within(self.sh, cmd, self.timeout + GRACE)?;
        let log = self.mask.hide(&String::from_utf8_lossy(&output.stderr));
        if !output.success {
            bail!("{}", self.failure(&log));
        }
        for line in log.lines() {
            say!("{release}: {line}");
        }
        Ok(output)
    }

    /// What helm says of its failure, which its log says once more.
    fn failure(&self, log: &str) -> String {
        let is_log =
            |line: &&str| line.starts_with("level=") && log.contains("\nError: ") && !self.debug;
        let lines: Vec<_> = log.trim().lines().filter(|it| !is_log(it)).collect();
        let hint = match log.contains("Apply failed with") && log.contains("conflict") {
            true => {
                "\nhint: somebody set these fields by other means; `--force-conflicts` takes them over"
            }
            false => "",
        };
        lines.join("\n") + hint
    }

    fn shown(&self, release: &Release, manifest: &str) -> String {
        let manifest = self.mask.hide_in_manifest(manifest);
        let name = release.name;
        format!(
            "# {name}: what would be applied in the namespace `{name}`\n---\n{}\n",
            manifest.trim_end()
        )
    }
}

/// Makes a release whose last deploy was cut off one that helm upgrades again: rolled back, or, where nothing ever stood,
/// without the revision that was cut off. For who holds its Lease. The revisions that it has then.
pub(crate) fn heal(api: &Api, helm: &Helm, release: &str) -> Result<Vec<Revision>> {
    let revisions = history::revisions(api, release)?;
    let Some(last) = revisions
        .last()
        .filter(|it| it.status.starts_with("pending-"))
    else {
        return Ok(revisions);
    };
    let is_good = |status: &str| revisions.iter().rev().find(|it| it.status == status);
    let secret = history::path(release, &last.secret);
    let cut_off = format!("revision {} was cut off ({})", last.number, last.status);
    remove_hook_jobs(api, release, &api.get(&secret)?).with_context(|| cut_off.clone())?;
    match is_good("deployed").or_else(|| is_good("superseded")) {
        Some(good) => {
            say!(
                "{release}: {cut_off}: rolling back to revision {}",
                good.number
            );
            helm.roll_back(release, good.number, None)
                .with_context(|| cut_off)?;
        }
        None => {
            say!("{release}: {cut_off}, and nothing stood before: removing what helm keeps of it");
            api.send("DELETE", &secret, &json!({}))
                .with_context(|| cut_off)?;
        }
    }
    history::revisions(api, release)
}

/// Removes jobs that hooks of a revision have left: helm makes them anew, and would find them in its way.
fn remove_hook_jobs(api: &Api, release: &str, secret: &Value) -> Result<()> {
    let content = history::content(secret)?;
    let hooks = content["hooks"].as_array().into_iter().flatten();
    for name in hooks
        .filter(|it| it["kind"] == "Job")
        .filter_map(|it| it["name"].as_str())
    {
        let path = format!("/apis/batch/v1/namespaces/{release}/jobs/{name}");
        if api.find(&path)?.is_some() {
            say!("{release}: removing the job `{name}` of a hook that was cut off");
            api.send(
                "DELETE",
                &path,
                &json!({ "propagationPolicy": "Background" }),
            )?;
        }
    }
    Ok(())
}
