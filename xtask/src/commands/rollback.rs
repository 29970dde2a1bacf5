//! Returns a release to an earlier revision.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use xshell::Shell;

use crate::{
    kubernetes::{
        healing, history,
        lease::Work,
        migrations, ownership,
        release::{FORCE_CONFLICTS, HelmRunner},
        session::Session,
        volumes,
        way_back::WayBack,
    },
    machine::{
        process,
        terminal::{self, list},
        tree::Tree,
        workflow,
    },
    repository::{
        cluster::Cluster,
        fleet::Fleet,
        hub_traits::{self, PlainValues},
    },
};

/// Return a hub to an earlier revision
///
/// By default that is the newest earlier revision that was ready and differs from the current one. helm makes a new revision
/// of it, and the rollout is followed until everything is ready. Volume claims stay. The repository is not changed: revert
/// the commit as well, or the next deploy brings it again. Only hubs, `support` and `cert-manager` can be named.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask rollback lake prod    back to the newest revision that was ready\n\
\x20 cargo xtask rollback lake prod 7  back to revision 7")]
pub struct Rollback {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// Hub, or `support` or `cert-manager`
    #[arg(id = "release", value_name = "HUB")]
    hub: String,
    /// Revision to return to, as `helm history` numbers them
    revision: Option<u32>,
    /// How long the rollback may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Overwrite fields that somebody set by other means, such as `kubectl edit`
    #[arg(long)]
    force_conflicts: bool,
    /// Delete these volume claims, which the earlier revision does not have
    #[arg(long, value_name = "CLAIM", value_delimiter = ',', value_parser = volumes::parse_name)]
    delete_volumes: Vec<String>,
    /// Return even across a database migration; put the database back first
    #[arg(long)]
    force: bool,
}

/// Returns a release to an earlier revision.
pub fn rollback(sh: &Shell, tree: &Tree, args: &Rollback) -> Result<ExitCode> {
    process::end_in_order();
    let cluster = Cluster::load(tree, &args.cluster)?;
    let release = cluster.release(&args.hub)?;
    let (sh, session) = Session::open(sh, tree, &cluster)?;
    let mask = session.mask();
    let mut helm = HelmRunner::new(&sh, &mask, args.timeout);
    if args.force_conflicts {
        helm.flags.push(FORCE_CONFLICTS);
    }
    let shown = format!("`{release}` of `{}`", cluster.name);
    if history::revisions(&session.api, release)?.is_empty() {
        bail!("{shown} was never deployed");
    }
    let lease = session.leases.take(release, Work::Change)?;
    let helm = helm.under(&lease);
    let way_back =
        way_back(tree, &session, &cluster, release, args).with_context(|| shown.clone())?;
    if !args.force {
        let contents = [&way_back.live_content, &way_back.content];
        migrations::refuse_way_back(&sh, &session.api, release, contents[0], contents[1])
            .with_context(|| shown.clone())?;
    }
    let plain = plain_values(&sh, tree, &args.cluster, release).unwrap_or_default();
    tell(&way_back, &plain);
    let question = format!(
        "Return {shown}, on {}, from revision {} to {}",
        session.target.place,
        way_back.left().shown(),
        way_back.target().shown()
    );
    workflow::confirm(&question, args.yes, "rollback")?;
    ensure_unchanged(&session, &way_back).with_context(|| shown.clone())?;
    let result = helm.roll_back(&way_back, &session, &args.delete_volumes);
    session
        .unless_stopped(release, lease.unless_lost(result))
        .with_context(|| shown)?;
    let left = way_back.left_in_repository(&sh, &session.record);
    let number = way_back.target().number;
    terminal::print(&format!(
        "{release} is as in revision {number}, and ready\n{left}\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The way back to the revision that is asked for.
fn way_back<'a>(
    tree: &Tree,
    session: &Session,
    cluster: &Cluster,
    release: &'a str,
    args: &Rollback,
) -> Result<WayBack<'a>> {
    let revisions = history::revisions(&session.api, release)?;
    let revisions = healing::wait_for_others(session, release, revisions, false)?;
    ownership::check_cluster(&session.target, release, &revisions)?;
    if let Some(chart) = ownership::own_chart(tree, cluster, release)? {
        ownership::check_chart(session, release, &revisions, &chart)?;
    }
    volumes::refuse_unknown(&session.api, &[release], &args.delete_volumes)?;
    if let Some(wanted) = args.revision {
        return WayBack::to(session, release, revisions, wanted);
    }
    let found = WayBack::find(session, release, revisions)?;
    let name = &cluster.name;
    found.with_context(|| {
        let status = format!("cargo xtask status {name} {release}");
        format!(
            "no earlier revision was ready and differs from what is live\n\
             hint: {} shows the last ones; with one of their numbers, `rollback` returns to that",
            workflow::action(&status)
        )
    })
}

/// What of the release's values anybody may see. An error if the repository cannot tell, which must not keep a release
/// from going back.
fn plain_values(sh: &Shell, tree: &Tree, cluster: &str, release: &str) -> Result<PlainValues> {
    let fleet = Fleet::of_release(sh, tree, cluster, release)?;
    let config = fleet.releases().into_iter().next();
    let config = config.context("it has no values")?;
    Ok(hub_traits::plain_values(&fleet, &config))
}

/// Tells what a person should know before the question.
fn tell(way_back: &WayBack, plain: &PlainValues) {
    let release = way_back.release;
    let never_ready = way_back.never_ready();
    if !never_ready.is_empty() {
        say!(
            "{release}: revisions that never became ready: {}",
            list(never_ready)
        );
    }
    let secrets = way_back.changed_values(|path| plain.has_encrypted(path));
    if !secrets.is_empty() {
        say!(
            "{release}: secrets that go back to an earlier value: {}",
            list(secrets)
        );
    }
    let unset = way_back.changed_values(|path| !plain.has_encrypted(path) && !plain.sets(path));
    if !unset.is_empty() {
        say!(
            "{release}: values that go back to an earlier value, and that no file sets now, secrets perhaps: {}",
            list(unset)
        );
    }
}

/// An error if somebody has changed the release while we asked.
fn ensure_unchanged(session: &Session, way_back: &WayBack) -> Result<()> {
    let newest = history::last(&session.api, way_back.release)?;
    ensure!(
        newest.is_some_and(|it| way_back.is_newest(&it.revision)),
        "somebody has changed it meanwhile: nothing was done"
    );
    Ok(())
}
