//! Which hubs a deploy would leave as they are, as far as that can be told without helm and without decrypting anything.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{
    commands::deploy::given::Given,
    kubernetes::{
        api::Api, by_hand, history, ownership, resources::Resources, rollout, session::Session,
    },
    machine::parallel,
    repository::{fleet::Fleet, hub_traits::HubTraits, release_config::ReleaseConfig},
};

/// The revisions of unchanged hubs, by the names of these.
pub(crate) type Unchanged = BTreeMap<String, u32>;

/// Finds the hubs that are ready at a revision for which helm was given the same, and in which nobody has changed anything
/// since. Hooks are not looked at: helm makes them anew each time. Of a hub that cannot be looked at nothing is known: a
/// deploy says why.
pub(crate) fn find(session: &Session, fleet: &Fleet, given: &Given) -> Unchanged {
    let releases = fleet.releases();
    let resources = Resources::new(&session.api);
    let found = parallel::side_by_side(&(), &releases, |(), config| {
        let digest = given.get(config.name())?;
        let revision = revision_as_given(session, &resources, fleet, config, digest);
        Some((config.name().to_owned(), revision.ok()??))
    });
    found.into_iter().flatten().collect()
}

fn revision_as_given(
    session: &Session,
    resources: &Resources,
    fleet: &Fleet,
    config: &ReleaseConfig,
    digest: &str,
) -> Result<Option<u32>> {
    let api = &session.api;
    let name = config.name();
    let revisions = history::revisions(api, name)?;
    let newest = revisions.last();
    let Some(newest) = newest.filter(|it| it.was_ready_as_given(digest)) else {
        return Ok(None);
    };
    if ownership::other_cluster(&session.target, &revisions).is_some()
        || HubTraits::find(fleet, config)?.has_dask && !has_dask_crds(api)?
    {
        return Ok(None);
    }
    let content = newest.content(api, name)?;
    let is_ready = rollout::look(api, name, history::manifest(&content))?.is_ready;
    let is_untouched = is_ready && by_hand::changed_by_hand(resources, name, &content)?.is_empty();
    Ok(is_untouched.then_some(newest.number))
}

/// Whether the cluster has what dask-gateway needs.
pub(crate) fn has_dask_crds(api: &Api) -> Result<bool> {
    let path =
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/daskclusters.gateway.dask.org";
    Ok(api.find(path)?.is_some())
}
