//! What every deploy can be told.

use std::{num::NonZero, process::ExitCode, time::Duration};

use crate::machine::terminal::Format;

#[derive(clap::Args)]
#[allow(
    missing_docs,
    reason = "clap would take it for the help of the command"
)]
pub struct DeployOptions {
    /// Change nothing: print the manifests that would be applied, with secrets hidden
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Show what would change in the cluster's objects, secrets hidden, and ask before going on
    #[arg(long)]
    pub(crate) diff: bool,
    /// End with 3 if anything would change
    #[arg(long, requires = "dry_run", requires = "diff")]
    pub(crate) detailed_exitcode: bool,
    /// Don't ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Show what helm logs, with secrets hidden
    #[arg(long)]
    pub(crate) debug: bool,
    /// DeployOptions long each release may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// DeployOptions the outcome is printed; a dry run's manifests are YAML
    #[arg(long, default_value = "text", conflicts_with_all = ["dry_run", "diff"])]
    pub(crate) format: Format,
}

impl DeployOptions {
    pub(crate) fn exit_code(&self, differs: bool) -> ExitCode {
        if self.detailed_exitcode && differs {
            ExitCode::from(3)
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// Install or upgrade the hubs of a cluster
///
/// Checks cluster.yaml and the files that it lists, decrypts secrets in memory, logs in, prepares the charts, and
/// then gives the hubs to helm side by side, follows their rollouts, and checks that a person can work on them (see
/// `run-hub-health-check`). Staging hubs come first, and the others follow if those stand. A hub that fails doesn't stop
/// the others; the exit status is 1 then. With `provider: local` the rehearsal cluster is brought up first.
///
/// Ctrl-C ends in order, and says what each hub is left at. What was cut off, however that came, is healed by the next
/// deploy.
#[derive(clap::Args)]
pub struct Deploy {
    /// A folder in config/clusters/
    pub(crate) cluster: String,
    /// Deploy only these hubs, not every hub of the cluster
    pub(crate) hubs: Vec<String>,
    /// The version of dask-gateway's CRDs, for hubs that have it [default: that of the chart]
    #[arg(long, value_name = "VERSION")]
    pub(crate) dask_gateway_version: Option<String>,
    /// Deploy the other hubs even if a staging hub doesn't stand; helm's history keeps the reason
    #[arg(long, value_name = "REASON")]
    pub(crate) ignore_staging: Option<String>,
    /// DeployOptions many hubs at once [default: one a core, 8 at most]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZero<usize>>,
    /// Don't check whether a person could work on the hubs then
    #[arg(long, alias = "skip-hub-health-test")]
    pub(crate) skip_hub_health_check: bool,
    /// Leave out hubs that stand, and of which nothing would change
    #[arg(long)]
    pub(crate) skip_unchanged: bool,
    /// Deploy although the cluster has a newer commit
    #[arg(long)]
    pub(crate) force_older: bool,
    /// Take over fields that somebody set by other means, such as `kubectl edit`
    #[arg(long)]
    pub(crate) force_conflicts: bool,
    /// Replace objects rather than change them, and without server-side apply
    #[arg(long, conflicts_with = "force_conflicts")]
    pub(crate) force_replace: bool,
    /// Remove new objects of an upgrade that helm gives up
    #[arg(long)]
    pub(crate) cleanup_on_fail: bool,
    /// Return a hub that fails to its last good revision, and follow that
    #[arg(long)]
    pub(crate) rollback_on_failure: bool,
    #[command(flatten)]
    pub(crate) options: DeployOptions,
}

impl Deploy {
    /// What helm is told besides.
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        let flags: [(bool, &[&'static str]); 3] = [
            // A release that helm 3 made would keep to its way.
            (
                self.force_conflicts,
                &["--server-side=true", "--force-conflicts"],
            ),
            // Which helm doesn't do by server-side apply.
            (
                self.force_replace,
                &["--server-side=false", "--force-replace"],
            ),
            (self.cleanup_on_fail, &["--cleanup-on-fail"]),
        ];
        flags
            .into_iter()
            .filter(|(is_set, _)| *is_set)
            .flat_map(|(_, it)| it)
            .copied()
            .collect()
    }
}
