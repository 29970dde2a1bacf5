//! Going back to an earlier revision of a release.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use xshell::Shell;

use crate::{
    kubernetes::{history, release::HelmRunner, session::Session},
    machine::terminal::{self, Progress, list},
    repository::cluster::Cluster,
};

/// Return a hub to an earlier revision
///
/// By default that is the last one that was deployed before. helm makes a new revision of it, and it is followed until
/// it stands. Hubs alone, and `support` and `cert-manager`, can be named.
#[derive(clap::Args)]
pub struct Rollback {
    /// A folder in config/clusters/
    cluster: String,
    /// The hub, or another release
    hub: String,
    /// As `helm history` numbers them
    revision: Option<u32>,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

/// Returns a release to an earlier revision.
pub fn rollback(sh: &Shell, root: &Path, args: &Rollback) -> Result<ExitCode> {
    let cluster = Cluster::load(root, &args.cluster)?;
    let release = cluster.release(&args.hub)?;
    let (sh, mask, session) = Session::open(sh, root, &cluster)?;
    let helm = HelmRunner::new(&sh, &mask, args.timeout);

    let revisions = history::revisions(&session.api, release)?;
    let Some(last) = revisions.last() else {
        bail!("`{release}` of `{}` was never deployed", cluster.name);
    };
    let is_good = |status: &str| ["deployed", "superseded"].contains(&status);
    let wanted = match args.revision {
        Some(wanted) => revisions
            .iter()
            .find(|it| it.number == wanted)
            .with_context(|| {
                let known = list(revisions.iter().map(|it| it.number));
                format!(
                    "`{release}` of `{}` has no revision {wanted}; it has: {known}",
                    cluster.name
                )
            })?,
        None => revisions
            .iter()
            .rev()
            .skip(1)
            .find(|it| is_good(&it.status))
            .with_context(|| {
                format!(
                    "`{release}` of `{}` has no revision before {} that stood",
                    cluster.name, last.number
                )
            })?,
    };
    let question = format!(
        "Return `{release}` of `{}` from revision {} to {}",
        cluster.name,
        last.shown(),
        wanted.shown()
    );
    terminal::confirm(&question, args.yes)?;
    let lease = session.leases.take(release);
    let progress = Progress::new(release);
    let result =
        lease.and_then(|_lease| helm.roll_back(release, wanted.number, &session, &progress));
    session
        .unless_stopped(release, result)
        .with_context(|| format!("`{release}` of `{}`", cluster.name))?;
    terminal::print(&format!(
        "{release} is as in revision {}, and stands\n",
        wanted.number
    ))?;
    Ok(ExitCode::SUCCESS)
}
