//! Returns a release to an earlier revision.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use xshell::Shell;

use crate::{
    kubernetes::{
        history::{self, Revision},
        release::HelmRunner,
        session::Session,
    },
    machine::{
        process,
        terminal::{self, Progress, list},
        tree::Tree,
    },
    repository::cluster::Cluster,
};

/// Return a hub to an earlier revision
///
/// By default that is the newest revision before the current one that was deployed. helm makes a new revision of it, and the
/// rollout is followed until everything is ready. Only hubs, `support` and `cert-manager` can be named.
#[derive(clap::Args)]
pub struct Rollback {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// Hub, or `support` or `cert-manager`
    hub: String,
    /// Revision to return to, as `helm history` numbers them
    revision: Option<u32>,
    /// How long the rollback may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

/// Returns a release to an earlier revision.
pub fn rollback(sh: &Shell, tree: &Tree, args: &Rollback) -> Result<ExitCode> {
    process::end_in_order();
    let cluster = Cluster::load(tree, &args.cluster)?;
    let release = cluster.release(&args.hub)?;
    let (sh, session) = Session::open(sh, tree, &cluster)?;
    let mask = session.mask();
    let helm = HelmRunner::new(&sh, &mask, args.timeout);

    let shown = format!("`{release}` of `{}`", cluster.name);
    let revisions = history::revisions(&session.api, release)?;
    let Some(last) = revisions.last() else {
        bail!("{shown} was never deployed");
    };
    let wanted = match args.revision {
        Some(number) => numbered(&revisions, number, &shown)?,
        None => deployed_before(&revisions, last, &shown)?,
    };
    let from = last.shown();
    let question = format!("Return {shown} from revision {from} to {}", wanted.shown());
    terminal::confirm(&question, args.yes)?;
    let number = wanted.number;
    return_to(&helm, &session, release, number).with_context(|| shown)?;
    terminal::print(&format!(
        "{release} is as in revision {number}, and ready\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the release to a revision while it holds the release's Lease.
fn return_to(helm: &HelmRunner, session: &Session, release: &str, revision: u32) -> Result<()> {
    let lease = session.leases.take(release);
    let progress = Progress::new(release);
    let result = lease.and_then(|_lease| helm.roll_back(release, revision, session, &progress));
    session.unless_stopped(release, result)
}

/// The revision with this number.
fn numbered<'a>(revisions: &'a [Revision], number: u32, shown: &str) -> Result<&'a Revision> {
    let found = revisions.iter().find(|it| it.number == number);
    found.with_context(|| {
        let known = list(revisions.iter().map(|it| it.number));
        format!("{shown} has no revision {number}; it has: {known}")
    })
}

/// The newest revision before the last one that was deployed.
fn deployed_before<'a>(
    revisions: &'a [Revision],
    last: &Revision,
    shown: &str,
) -> Result<&'a Revision> {
    let mut earlier = revisions.iter().rev().skip(1);
    let found = earlier.find(|it| ["deployed", "superseded"].contains(&it.status.as_str()));
    found.with_context(|| {
        format!(
            "{shown} has no revision before {} that was deployed",
            last.number
        )
    })
}
