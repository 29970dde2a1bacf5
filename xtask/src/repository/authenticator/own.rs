//! What the repository itself says of a release. Charts that may or may not be in the cache have no part in it, and so it
//! is the same wherever the repository is checked.

use std::collections::BTreeMap;

use crate::{
    charts::values::EnabledChart,
    repository::{fleet::Fleet, release_config::ReleaseConfig},
    yaml::{Data, Map, Node, Place},
};

/// JupyterHub's chart, on which a chart of the repository is built.
pub(crate) struct JupyterHubChart<'a> {
    /// A version, or a range of versions.
    pub(crate) version: &'a str,
    /// Where it is listed.
    pub(crate) at: Place,
    /// Whether its own `authenticator_class` counts: nothing in the repository sets another one, or takes it away.
    pub(crate) has_own_class: bool,
}

/// The `hub` values of JupyterHub's chart, wherever among the charts that people build on it.
pub(crate) fn hub_values(values: &Map) -> Option<&Node> {
    let mut level = vec![values];
    while !level.is_empty() {
        let mut hubs = level.iter().filter_map(|it| it.get("hub"));
        let found = hubs.find(|it| it.get(&["config"]).is_some_and(|it| !it.is_falsy()));
        if found.is_some() {
            return found;
        }
        let below = level.into_iter().flat_map(|it| it.values());
        level = below.filter_map(Node::as_map).collect();
    }
    None
}

/// Of a release's values those that files of the repository set.
pub(crate) fn only_own(fleet: &Fleet, release: &ReleaseConfig, values: &Node) -> Node {
    let mut known = BTreeMap::new();
    only_of(values, &mut |at: Place| {
        let is_own = || fleet.is_set(release, at) || is_in_folder(fleet, at);
        *known.entry(at.file).or_insert_with(is_own)
    })
}

fn only_of(values: &Node, is_own: &mut impl FnMut(Place) -> bool) -> Node {
    let mut own = Map::new();
    for (key, value) in values.as_map().into_iter().flatten() {
        let is_kept = value.at.is_some_and(&mut *is_own);
        if value.as_map().is_some() {
            let below = only_of(value, is_own);
            if is_kept || below.as_map().is_some_and(|it| !it.is_empty()) {
                own.insert(key.clone(), below);
            }
        } else if is_kept {
            own.insert(key.clone(), value.clone());
        }
    }
    Node {
        data: Data::Map(own),
        ..*values
    }
}

/// Whether a default is in a chart's values.yaml, and not in an archive, whose values are where it is listed.
fn is_in_folder(fleet: &Fleet, at: Place) -> bool {
    fleet.files.path(at.file).ends_with("values.yaml")
}

impl<'a> JupyterHubChart<'a> {
    /// None if the repository has it from another chart that isn't in the repository, or not at all.
    pub(crate) fn find(
        fleet: &Fleet,
        release: &ReleaseConfig,
        enabled: &EnabledChart<'a>,
    ) -> Option<JupyterHubChart<'a>> {
        let mut found = listed(fleet, enabled)?;
        found.has_own_class =
            !names_class(&fleet.set(release)) && !default_names_class(fleet, enabled);
        Some(found)
    }
}

/// The chart `jupyterhub` where a chart of the repository lists it.
fn listed<'a>(fleet: &Fleet, enabled: &EnabledChart<'a>) -> Option<JupyterHubChart<'a>> {
    let dependencies = enabled.chart.dependencies.as_deref().unwrap_or_default();
    let dependency = dependencies.iter().find(|it| it.name == "jupyterhub");
    let part = enabled
        .parts
        .iter()
        .find(|it| it.chart.name == "jupyterhub");
    match (dependency, part) {
        (Some(dependency), Some(part)) => Some(JupyterHubChart {
            version: &dependency.version,
            at: part.chart.at,
            has_own_class: true,
        }),
        _ => folders(fleet, enabled).find_map(|it| listed(fleet, it)),
    }
}

/// The parts of a chart that are folders of the repository. What is in an archive is at the place where it is listed.
fn folders<'e, 'a>(
    fleet: &Fleet,
    enabled: &'e EnabledChart<'a>,
) -> impl Iterator<Item = &'e EnabledChart<'a>> {
    enabled.parts.iter().filter(|part| {
        let file = part.chart.at.file;
        file != enabled.chart.at.file && fleet.files.path(file).ends_with("Chart.yaml")
    })
}

fn default_names_class(fleet: &Fleet, enabled: &EnabledChart) -> bool {
    names_class(&enabled.chart.defaults)
        || folders(fleet, enabled).any(|it| default_names_class(fleet, it))
}

/// Whether values name a class, be it to take away another one with `null`.
fn names_class(values: &Map) -> bool {
    let class = ["config", "JupyterHub", "authenticator_class"];
    hub_values(values).is_some_and(|it| it.get(&class).is_some())
}

/// The templates of the charts that are folders of the repository.
pub(crate) fn templates(fleet: &Fleet, enabled: &EnabledChart) -> Vec<String> {
    let chart = fleet.files.path(enabled.chart.at.file);
    let folder = chart.with_file_name("templates");
    let names = fleet.tree.children(&folder).unwrap_or_default();
    let files = names
        .iter()
        .filter_map(|it| fleet.tree.read(&folder.join(it)).ok());
    let mut texts: Vec<_> = files
        .map(|it| String::from_utf8_lossy(&it).into_owned())
        .collect();
    for part in folders(fleet, enabled) {
        texts.extend(templates(fleet, part));
    }
    texts
}
