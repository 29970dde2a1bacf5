//! What somebody has done by hand to the objects of a release since helm made them.

use std::fmt::{self, Display};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    kubernetes::{
        applied,
        diff::{name, tidied},
        history, manifests,
        resources::Resources,
    },
    machine::parallel,
};

/// An object that somebody has deleted or changed since a revision made it.
pub(crate) struct ByHand {
    name: String,
    pub(crate) is_gone: bool,
}

impl Display for ByHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_gone { "gone" } else { "changed" };
        write!(f, "{} is {what}", self.name)
    }
}

/// The objects of a revision that are not as it made them. What the revision has is known to helm, so nothing has to be
/// rendered.
pub(crate) fn changed_by_hand(
    resources: &Resources,
    release: &str,
    content: &Value,
) -> Result<Vec<ByHand>> {
    let objects = manifests::objects(history::manifest(content))?;
    let changes = parallel::side_by_side(&(), &objects, |(), object| {
        change(resources, release, object).with_context(|| format!("`{}`", name(object, true)))
    });
    let changes: Result<Vec<_>> = changes.into_iter().collect();
    Ok(changes?.into_iter().flatten().collect())
}

fn change(resources: &Resources, release: &str, object: &Value) -> Result<Option<ByHand>> {
    let api = resources.api;
    let path = applied::path(resources, release, object)?;
    // With its kind an object is gone, too.
    let live = path.as_ref().map_or(Ok(None), |it| api.find(it))?;
    let name = name(object, true);
    let (Some(path), Some(live)) = (path, live) else {
        let is_gone = true;
        return Ok(Some(ByHand { name, is_gone }));
    };
    let wanted = applied::as_helm_has_it(object.clone(), release);
    if applied::is_untouched(&live, &wanted) {
        return Ok(None);
    }
    let applied = applied::try_apply(api, &path, wanted)?;
    let is_changed = tidied(&live) != tidied(&applied);
    let is_gone = false;
    Ok(is_changed.then_some(ByHand { name, is_gone }))
}
