//! What helm is told.
//!
//! A change of this file redeploys every hub (`core_files` in settings.rs): keep everything else out of it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use xshell::{Cmd, Shell, cmd};

/// A release as it is to be.
pub(crate) struct Release<'a> {
    /// The name of the release and of its namespace.
    pub(crate) name: &'a str,
    /// The folder or archive of a chart that has its dependencies.
    pub(crate) chart: &'a Path,
    /// Values files that helm can read; the last one wins.
    pub(crate) values: Vec<PathBuf>,
    /// What else helm is told of this release.
    pub(crate) flags: Vec<&'a str>,
}

impl Release<'_> {
    fn values_args(&self) -> impl Iterator<Item = &Path> {
        self.values
            .iter()
            .flat_map(|file| [Path::new("--values"), file])
    }
}

/// Installs or upgrades a release. Its answer is JSON. helm forgets no revision: it does not know which ones were good.
/// Releases that helm 3 made are no longer applied by the client, which would take annotations off that are in no chart.
pub(crate) fn upgrade<'a>(
    sh: &'a Shell,
    release: &Release,
    timeout: Duration,
    flags: &[String],
) -> Cmd<'a> {
    let Release { name, chart, .. } = release;
    let values = release.values_args();
    let own = &release.flags;
    let timeout = seconds(timeout);
    // Without --reset-values helm takes the last release's values where the files hold none.
    cmd!(
        sh,
        "helm upgrade --install --create-namespace --namespace {name} {name} {chart} {values...} {own...}
         --reset-values --history-max 0 --server-side=true --timeout {timeout} --output json {flags...}"
    )
}

/// Renders all manifests of a release without asking a cluster, for a Kubernetes of this version.
pub(crate) fn template<'a>(
    sh: &'a Shell,
    release: &Release,
    kubernetes: &str,
    flags: &[String],
) -> Cmd<'a> {
    let Release { name, chart, .. } = release;
    let values = release.values_args();
    let own = &release.flags;
    cmd!(
        sh,
        "helm template {name} {chart} --namespace {name} {values...} {own...} --kube-version {kubernetes} {flags...}"
    )
}

/// Makes a new revision of an earlier one.
pub(crate) fn rollback<'a>(
    sh: &'a Shell,
    release: &str,
    revision: u32,
    timeout: Duration,
    flags: &[String],
) -> Cmd<'a> {
    let revision = revision.to_string();
    let timeout = seconds(timeout);
    cmd!(
        sh,
        "helm rollback {release} {revision} --namespace {release} --history-max 0 --server-side=true --timeout {timeout}
         {flags...}"
    )
}

/// Removes a release, and waits until its objects are gone.
pub(crate) fn uninstall<'a>(sh: &'a Shell, release: &str, timeout: Duration) -> Cmd<'a> {
    let timeout = seconds(timeout);
    cmd!(
        sh,
        "helm uninstall {release} --namespace {release} --wait --timeout {timeout} --debug"
    )
}

fn seconds(timeout: Duration) -> String {
    format!("{}s", timeout.as_secs().max(1))
}
