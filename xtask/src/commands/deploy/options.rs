//! What every deploy can be told.

use std::{num::NonZero, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    kubernetes::{
        release::{CLEANUP, FORCE_CONFLICTS, UpgradePolicy},
        volumes,
    },
    machine::terminal::Format,
};

/// The headings of `--help`.
pub(crate) const PREVIEW: &str = "Preview";
pub(crate) const ON_FAILURE: &str = "On failure";
pub(crate) const OVERRIDES: &str = "Overrides";
const IMAGES: &str = "Own images";

#[derive(clap::Args)]
#[allow(
    missing_docs,
    reason = "clap would take it for the help of the command"
)]
pub struct DeployOptions {
    /// Print the manifests that would be applied, with secrets hidden, and change nothing
    #[arg(long, help_heading = PREVIEW)]
    pub(crate) dry_run: bool,
    /// Show what would change in the cluster, with secrets hidden, and ask before deploying
    #[arg(long, help_heading = PREVIEW)]
    pub(crate) diff: bool,
    /// Exit with status 3 if anything would change
    #[arg(long, requires = "dry_run", requires = "diff", help_heading = PREVIEW)]
    pub(crate) detailed_exitcode: bool,
    /// Deploy without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Show helm's log, with secrets hidden
    #[arg(long)]
    pub(crate) debug: bool,
    /// How long each release may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Take over a release of this chart that somebody else has installed, or one that was deployed from the cluster of this
    /// name
    #[arg(long, value_name = "NAME", help_heading = OVERRIDES)]
    pub(crate) take_over: Option<String>,
    /// Repair a release on which somebody else's helm seems to be at work, because that is dead
    #[arg(long, help_heading = OVERRIDES)]
    pub(crate) heal: bool,
    /// Delete these volume claims, which the releases no longer have; in another namespace as NAMESPACE/CLAIM
    #[arg(long, value_name = "CLAIM", value_delimiter = ',', value_parser = volumes::parse_name, help_heading = OVERRIDES)]
    pub(crate) delete_volumes: Vec<String>,
    /// Deploy this commit even if the cluster has a newer one
    #[arg(long, help_heading = OVERRIDES)]
    pub(crate) force_older: bool,
    /// Overwrite fields that somebody set by other means, such as `kubectl edit`
    #[arg(long, help_heading = OVERRIDES)]
    pub(crate) force_conflicts: bool,
    /// Deploy production although it is frozen, and record the reason in helm's history
    #[arg(long, value_name = "REASON", value_parser = reason, help_heading = OVERRIDES)]
    pub(crate) ignore_freeze: Option<String>,
    /// Roll a release that fails back to the newest revision that was ready
    #[arg(long, help_heading = ON_FAILURE)]
    pub(crate) rollback_on_failure: bool,
    /// How to print the outcome; the manifests of a dry run are always YAML
    #[arg(long, default_value = "text", conflicts_with_all = ["dry_run", "diff"])]
    pub(crate) format: Format,
}

impl DeployOptions {
    /// What `helm upgrade` is told besides.
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        if self.force_conflicts {
            vec![FORCE_CONFLICTS]
        } else {
            Vec::new()
        }
    }

    pub(crate) fn policy(&self) -> UpgradePolicy<'_> {
        UpgradePolicy {
            rollback_on_failure: self.rollback_on_failure,
            force_older: self.force_older,
            take_over: self.take_over.as_deref(),
            heal: self.heal,
            delete_volumes: &self.delete_volumes,
        }
    }

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
/// Checks the configuration, decrypts secrets in memory, logs in to the cluster and prepares the charts. Then helm
/// upgrades the hubs in parallel, staging hubs first; the others follow once those are ready. Each rollout is followed
/// until its pods are ready, and then a test user works on the hub (see `run-hub-health-check`). A hub that fails does
/// not stop the others, but the exit status is 1. With `provider: local` the rehearsal cluster is started first. A hub that
/// is `paused` is deployed only if it is named.
///
/// Ctrl-C stops in order and reports the state of each hub. The next deploy repairs whatever was interrupted.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask deploy lake                             every hub, staging hubs first\n\
\x20 cargo xtask deploy lake staging --dry-run           show what helm would apply\n\
\x20 cargo xtask deploy lake staging --diff              show what would change, and ask\n\
\x20 cargo xtask deploy lake prod --rollback-on-failure  go back if it fails\n\
\x20 cargo xtask deploy lake --build --push --deploy     build and push own images first\n\
\x20 cargo xtask deploy local                            two hubs on this machine")]
pub struct Deploy {
    /// Cluster, by its folder in config/clusters/
    pub(crate) cluster: String,
    /// Deploy only these hubs, not every hub of the cluster
    pub(crate) hubs: Vec<String>,
    /// Deploy at most this many hubs at once [default: one per core, at most 8]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZero<usize>>,
    /// Skip hubs that are ready and would not change
    #[arg(long)]
    pub(crate) skip_unchanged: bool,
    /// Skip the health check after each rollout
    #[arg(long, alias = "skip-hub-health-test")]
    pub(crate) skip_hub_health_check: bool,
    /// The version of dask-gateway's CRDs, for hubs that have it [default: that of the chart]
    #[arg(long, value_name = "VERSION")]
    pub(crate) dask_gateway_version: Option<String>,
    #[command(flatten)]
    pub(crate) options: DeployOptions,
    /// Do not ask registries whether they have the images that are built from folders of this repository
    #[arg(long, help_heading = IMAGES)]
    pub(crate) skip_image_check: bool,
    /// Build the hubs' own images, each once, and deploy nothing without `--deploy`
    #[arg(long, conflicts_with_all = ["dry_run", "diff"], help_heading = IMAGES)]
    pub(crate) build: bool,
    /// Push the images that are built; one that its registry has already is neither built nor pushed
    #[arg(long, conflicts_with_all = ["dry_run", "diff"], help_heading = IMAGES)]
    pub(crate) push: bool,
    /// Deploy after `--build` and `--push`; a hub whose image was not built is left as it is
    #[arg(long, help_heading = IMAGES)]
    pub(crate) deploy: bool,
    /// Do not check, before anything is built, that images can be built and that registries take our login
    #[arg(long, help_heading = IMAGES)]
    pub(crate) no_setup: bool,
    /// Delete the objects that a failed upgrade created
    #[arg(long, help_heading = ON_FAILURE)]
    pub(crate) cleanup_on_fail: bool,
    /// Deploy the other hubs even if a staging hub is not ready, and record the reason in helm's history
    #[arg(long, value_name = "REASON", value_parser = reason, help_heading = OVERRIDES)]
    pub(crate) ignore_staging: Option<String>,
    /// Replace objects instead of changing them, without server-side apply
    #[arg(long, conflicts_with = "force_conflicts", help_heading = OVERRIDES)]
    pub(crate) force_replace: bool,
}

impl Deploy {
    /// Whether unchanged hubs are left out: also where differences are shown, but not of a dry run's manifests.
    pub(crate) fn skips_unchanged(&self) -> bool {
        self.skip_unchanged && (self.options.diff || !self.options.dry_run)
    }

    /// Whether no hub is to be changed.
    pub(crate) fn leaves_hubs(&self) -> bool {
        (self.build || self.push) && !self.deploy
    }

    /// What `helm upgrade` is told besides.
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        let mut flags = self.options.flags();
        if self.force_replace {
            // Which helm doesn't do by server-side apply.
            flags.extend(["--server-side=false", "--force-replace"]);
        }
        if self.cleanup_on_fail {
            flags.push(CLEANUP);
        }
        flags
    }
}

/// A reason that helm's history is to have.
fn reason(text: &str) -> Result<String> {
    ensure!(!text.trim().is_empty(), "the reason is empty");
    Ok(text.to_owned())
}
