//! One Helm release: brought to what its chart and values say and followed until it stands, or shown as it would be.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use xshell::{Shell, cmd};

use crate::{
    api::Api,
    history,
    lease::Leases,
    process::{self, Output},
    record::Record,
    rollout::{self, Pods},
    secrets::Mask,
    setup,
};

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
        self.values.iter().flat_map(|it| [Path::new("--values"), it])
    }
}

impl Helm<'_> {
    /// Installs or upgrades the release, which nobody else does meanwhile, and waits until it stands: its new revision.
    pub(crate) fn upgrade(
        &self,
        release: &Release,
        api: &Api,
        leases: &Leases,
        record: &Record,
    ) -> Result<u32> {
        let _lease = leases.take(release.name)?;
        history::heal(api, self, release.name)?;
        let until = Instant::now() + self.timeout;
        say!("{}: upgrading", release.name);
        let answer = self.run_upgrade(release, Some(record))?;
        say!("{}: revision {} is applied, waiting for its pods", release.name, answer.version);
        let pods = Cell::new(Pods::default());
        let progress = |now: Pods| {
            if pods.replace(now) != now && now.ready < now.wanted {
                say!("{}: {} of {} pods are ready", release.name, now.ready, now.wanted);
            }
        };
        rollout::follow(api, release.name, &answer.manifest, until, &progress)
            .with_context(|| format!("revision {} doesn't stand", answer.version))?;
        Ok(answer.version)
    }

    pub(crate) fn roll_back(&self, release: &str, revision: u32) -> Result<()> {
        let (sh, revision) = (self.sh, revision.to_string());
        let timeout = format!("{}s", self.timeout.as_secs().max(1));
        let cmd = cmd!(sh, "helm rollback {release} {revision} --namespace {release} --timeout {timeout}");
        let output = process::run(sh, cmd, b"")?;
        ensure!(output.success, "{}", self.mask.hide(String::from_utf8_lossy(&output.stderr).trim()));
        Ok(())
    }

    /// The manifests as the cluster would take them, without secrets.
    pub(crate) fn dry_run(&self, release: &Release) -> Result<String> {
        let answer = self.run_upgrade(release, None)?;
        let mut manifest = answer.manifest;
        for hook in answer.hooks {
            manifest += &format!("\n---\n{}\n", hook.manifest);
        }
        Ok(self.shown(release, &manifest))
    }

    /// The manifests as the chart makes them, without asking a cluster and without secrets.
    pub(crate) fn render(&self, release: &Release) -> Result<String> {
        let (sh, Release { name, chart, flags, .. }) = (self.sh, release);
        let values = release.values_args();
        let version = setup::KUBERNETES.to_string();
        let debug = self.debug.then_some("--debug");
        let cmd = cmd!(
            sh,
            "helm template {name} {chart} --namespace {name} {values...} {flags...} --kube-version {version} {debug...}"
        );
        let output = self.run(release, cmd)?;
        Ok(self.shown(release, &String::from_utf8(output.stdout)?))
    }

    /// Without a record nothing is changed.
    fn run_upgrade(&self, release: &Release, record: Option<&Record>) -> Result<Answer> {
        let (sh, Release { name, chart, flags, .. }) = (self.sh, release);
        let values = release.values_args();
        let timeout = format!("{}s", self.timeout.as_secs().max(1));
        // Without --reset-values helm takes the last release's values where the files hold none.
        let debug = self.debug.then_some("--debug");
        let recorded = record.map_or_else(|| vec!["--dry-run=server".to_owned()], Record::flags);
        let cmd = cmd!(
            sh,
            "helm upgrade --install --create-namespace --namespace {name} {name} {chart} {values...} {flags...}
             --reset-values --timeout {timeout} --output json {recorded...} {debug...}"
        );
        let output = self.run(release, cmd)?;
        serde_json::from_slice(&output.stdout).context("helm's answer isn't the JSON of a release")
    }

    /// Runs helm, and shows what it logs. A failure is helm's own message.
    fn run(&self, release: &Release, cmd: xshell::Cmd) -> Result<Output> {
        let output = process::run(self.sh, cmd, b"")?;
        let log = self.mask.hide(&String::from_utf8_lossy(&output.stderr));
        if !output.success {
            bail!("{}", log.trim());
        }
        for line in log.lines() {
            say!("{}: {line}", release.name);
        }
        Ok(output)
    }

    fn shown(&self, release: &Release, manifest: &str) -> String {
        let manifest = self.mask.hide_in_manifest(manifest);
        let name = release.name;
        format!("# {name}: what would be applied in the namespace `{name}`\n---\n{}\n", manifest.trim_end())
    }
}
