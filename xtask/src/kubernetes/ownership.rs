//! Whether a release is ours to change: one of the same name may be somebody else's, and a kubeconfig may lead to another
//! cluster than the one that it lies beside.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    charts::metadata::Metadata,
    kubernetes::{
        helm::Release,
        history::{Revision, label},
        session::{Session, Target},
        volumes,
    },
    machine::{terminal::list, tree::Tree, workflow},
    repository::{cluster::Cluster, release_config::SUPPORT_CHART},
};

/// Refuses to upgrade a release that another cluster's folder has deployed, or that somebody else has installed from
/// another chart, unless it is named in `take_over`. For who holds its Lease.
pub(crate) fn check(
    session: &Session,
    release: &Release,
    revisions: &[Revision],
    take_over: Option<&str>,
) -> Result<()> {
    match objection(session, release, revisions, take_over)? {
        Some(objection) => bail!(objection),
        None => Ok(()),
    }
}

/// Why a deploy of a release would be refused by `check`.
pub(crate) fn objection(
    session: &Session,
    release: &Release,
    revisions: &[Revision],
    take_over: Option<&str>,
) -> Result<Option<String>> {
    let name = release.name;
    let Some(newest) = revisions.last().filter(|it| it.status != "uninstalled") else {
        return Ok(None);
    };
    if let Some(recorded) = other_cluster(&session.target, revisions)
        && take_over != Some(recorded)
    {
        return Ok(Some(format!(
            "{}\nhint: {} deploys it from here, if the cluster was renamed",
            is_of(name, recorded, &session.target),
            workflow::option(&format!("take-over {recorded}"))
        )));
    }
    if revisions.iter().any(|it| it.descends_from_ours) {
        return Ok(None);
    }
    let content = newest.content(&session.api, name)?;
    let chart = chart_name(&content);
    let own = Metadata::of(release.chart)?.name;
    if chart == &*own || take_over == Some(chart) {
        return Ok(None);
    }
    let claims = volumes::claims(&session.api, name)?;
    let claims = if claims.is_empty() {
        "no volume claims".to_owned()
    } else {
        format!("the volume claims {}", list(claims))
    };
    Ok(Some(format!(
        "somebody else has installed a release `{name}` of the chart `{chart}`, not `{own}`, with {claims}\n\
         hint: {} replaces it, and leaves the claims",
        workflow::option(&format!("take-over {chart}"))
    )))
}

/// Refuses to remove a release that another cluster's folder has deployed, or that somebody else has installed, unless it
/// is named in `take_over`. `own` is the name of the chart that the repository has for it, if it has one.
pub(crate) fn check_removal(
    session: &Session,
    release: &str,
    revisions: &[Revision],
    content: &Value,
    own: Option<&str>,
    take_over: Option<&str>,
) -> Result<()> {
    if let Some(recorded) = other_cluster(&session.target, revisions)
        && take_over != Some(recorded)
    {
        bail!(
            "{}\nhint: {} removes it from here, if the cluster was renamed",
            is_of(release, recorded, &session.target),
            workflow::at_terminal(&format!("--take-over {recorded}"))
        );
    }
    let chart = chart_name(content);
    let is_ours = revisions.iter().any(|it| it.descends_from_ours);
    ensure!(
        is_ours || own == Some(chart) || take_over == Some(chart),
        "somebody else has installed the release `{release}`, of the chart `{chart}`\n\
         hint: {} removes it all the same",
        workflow::at_terminal(&format!("--take-over {chart}"))
    );
    Ok(())
}

/// Refuses to change a release that another cluster's folder has deployed.
pub(crate) fn check_cluster(target: &Target, release: &str, revisions: &[Revision]) -> Result<()> {
    if let Some(recorded) = other_cluster(target, revisions) {
        bail!(
            "{}\nhint: {} makes it ours, if the cluster was renamed",
            is_of(release, recorded, target),
            workflow::option_of("deploy", &format!("take-over {recorded}"))
        );
    }
    Ok(())
}

/// Refuses to go back with a release that somebody else has installed, of another chart than `own`.
pub(crate) fn check_chart(
    session: &Session,
    release: &str,
    revisions: &[Revision],
    own: &str,
) -> Result<()> {
    let Some(newest) = revisions.last() else {
        return Ok(());
    };
    if revisions.iter().any(|it| it.descends_from_ours) {
        return Ok(());
    }
    let content = newest.content(&session.api, release)?;
    let chart = chart_name(&content);
    ensure!(
        chart == own,
        "somebody else has installed the release `{release}`, of the chart `{chart}` and not `{own}`\n\
         hint: {} returns it to an earlier revision",
        workflow::at_terminal(&format!(
            "cargo xtask use-cluster-credentials {} helm rollback {release} --namespace {release}",
            session.target.cluster
        ))
    );
    Ok(())
}

/// The name of the cluster that is recorded with the newest revision of ours, if that is another one.
pub(crate) fn other_cluster<'a>(target: &Target, revisions: &'a [Revision]) -> Option<&'a str> {
    let mut newest_first = revisions.iter().rev();
    let recorded = newest_first.find_map(|it| it.cluster.as_deref())?;
    (recorded != label(&target.cluster)).then_some(recorded)
}

fn is_of(release: &str, recorded: &str, target: &Target) -> String {
    format!(
        "the release `{release}` belongs to the cluster `{recorded}`, not to `{}`; this is {}",
        target.cluster, target.place
    )
}

/// The name of a revision's chart.
pub(crate) fn chart_name(content: &Value) -> &str {
    let name = &content["chart"]["metadata"]["name"];
    name.as_str().unwrap_or_default()
}

/// The name of the chart that the repository has for a release. None if it has none.
pub(crate) fn own_chart(tree: &Tree, cluster: &Cluster, release: &str) -> Result<Option<String>> {
    let hub = cluster.hubs.iter().find(|it| it.name == release);
    let folder = match hub {
        Some(hub) => hub.chart_folder(),
        None if release == "support" => PathBuf::from(SUPPORT_CHART),
        None if release == "cert-manager" => return Ok(Some(release.to_owned())),
        None => return Ok(None),
    };
    if tree.find(&folder.join("Chart.yaml"))?.is_none() {
        return Ok(None);
    }
    let metadata = Metadata::of_folder(tree, &folder);
    let metadata = metadata.with_context(|| format!("`{}/Chart.yaml`", folder.display()))?;
    Ok(Some(metadata.name.to_string()))
}
