//! A release's values as helm 4.3 computes them: a chart with its subcharts, of which some are disabled or have other
//! names, their defaults, `global`, and what people set over all that. Every value keeps the place where it was set.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    charts::version::satisfies,
    schema::{Schema, Unusable},
    yaml::{Data, Map, Node, Place},
};

/// A chart as helm loads it, read once for all its releases.
pub(crate) struct Chart {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Its Chart.yaml, or the dependency that names it.
    pub(crate) at: Place,
    /// Its values.yaml.
    pub(crate) defaults: Map,
    /// Its values.yaml cannot be read.
    pub(crate) lacks_defaults: bool,
    /// Where it is, and whether it's usable.
    pub(crate) schema: Option<(Place, Arc<Result<Schema, Unusable>>)>,
    /// Those that Chart.yaml lists, if it has a list.
    pub(crate) dependencies: Option<Vec<Dependency>>,
    /// All in charts/, also those that Chart.yaml doesn't list.
    pub(crate) subcharts: Vec<Chart>,
    /// It stands for a dependency that isn't there.
    pub(crate) is_missing: bool,
    /// Its makers say that nobody should use it any more.
    pub(crate) is_deprecated: bool,
}

impl Chart {
    /// Whether its defaults and those of all its subcharts could be read.
    pub(crate) fn has_all_defaults(&self) -> bool {
        !self.lacks_defaults && self.subcharts.iter().all(Chart::has_all_defaults)
    }
}

/// A dependency in Chart.yaml.
#[derive(Default)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) alias: String,
    /// Paths in the values, the first one of which is a boolean decides.
    pub(crate) condition: String,
    pub(crate) tags: Vec<String>,
    pub(crate) imports: Vec<Import>,
}

/// An entry of `import-values`: what to take over from a subchart's values.
pub(crate) struct Import {
    /// The path with dots in the subchart's values.
    pub(crate) child: String,
    /// The path with dots in the parent's values, or `.` for all of them.
    pub(crate) parent: String,
}

/// A chart in one release.
pub(crate) struct EnabledChart<'a> {
    pub(crate) chart: &'a Chart,
    /// The alias, if it has one.
    pub(crate) name: &'a str,
    defaults: Map,
    dependencies: Option<Vec<&'a Dependency>>,
    pub(crate) parts: Vec<EnabledChart<'a>>,
}

/// The values of a chart with what people `set`, and the parts that are enabled by them. The error is helm's: a
/// subchart's key that holds something else than a map.
pub(crate) fn compute<'a>(chart: &'a Chart, set: &Map) -> Result<(Map, EnabledChart<'a>), String> {
    let mut part = EnabledChart::new(chart, &chart.name);
    part.enable(set, "")?;
    part.import()?;
    let mut values = set.clone();
    part.coalesce(&mut values, false)?;
    Ok((values, part))
}

impl Dependency {
    /// What its subchart is called in the values.
    fn known_as(&self) -> &str {
        if self.alias.is_empty() {
            &self.name
        } else {
            &self.alias
        }
    }

    /// Takes over into `imported` what `import-values` names in the values.
    fn import(&self, values: &Map, imported: &mut Map) {
        for import in &self.imports {
            let child = format!("{}.{}", self.known_as(), import.child);
            if let Some(found) = table(values, &child) {
                let tree = tree_at(&import.parent, found.clone());
                lay_under(imported, tree, true);
            }
        }
    }

    /// Whether helm takes a subchart for this dependency, which needs a version then.
    fn fits(&self, chart: &Chart) -> bool {
        self.name == chart.name
            && !self.version.is_empty()
            && satisfies(&chart.version, &self.version).unwrap_or(false)
    }
}

impl<'a> EnabledChart<'a> {
    fn new(chart: &'a Chart, name: &'a str) -> EnabledChart<'a> {
        EnabledChart {
            chart,
            name,
            defaults: chart.defaults.clone(),
            dependencies: chart.dependencies.as_ref().map(|it| it.iter().collect()),
            parts: chart
                .subcharts
                .iter()
                .map(|it| EnabledChart::new(it, &it.name))
                .collect(),
        }
    }

    /// Whether a subchart that is known by this name is not enabled.
    pub(crate) fn has_disabled(&self, name: &str) -> bool {
        let listed = self.chart.dependencies.iter().flatten();
        let mut names = listed.map(Dependency::known_as);
        names.any(|it| it == name) && !self.parts.iter().any(|it| it.name == name)
    }

    /// Gives the subcharts their aliases and removes the disabled ones (processDependencyEnabled).
    fn enable(&mut self, set: &Map, path: &str) -> Result<(), String> {
        let Some(dependencies) = self.dependencies.take() else {
            return Ok(());
        };
        self.parts = parts(self.chart, &dependencies);
        let mut values = set.clone();
        self.coalesce(&mut values, false)?;
        let (enabled, disabled): (Vec<_>, Vec<_>) = dependencies
            .into_iter()
            .partition(|it| is_enabled(it, &values, path));
        let disabled: BTreeSet<_> = disabled.into_iter().map(Dependency::known_as).collect();
        self.parts.retain(|it| !disabled.contains(it.name));
        for part in &mut self.parts {
            part.enable(&values, &format!("{path}{}.", part.name))?;
        }
        // Another entry may disable the same name.
        let enabled: Vec<_> = enabled
            .into_iter()
            .filter(|it| !disabled.contains(it.known_as()))
            .collect();
        self.dependencies = Some(enabled).filter(|it| !it.is_empty());
        Ok(())
    }

    /// Takes over what Chart.yaml's `import-values` name from the subcharts' defaults (processDependencyImportValues).
    fn import(&mut self) -> Result<(), String> {
        for part in &mut self.parts {
            part.import()?;
        }
        let Some(dependencies) = &self.dependencies else {
            return Ok(());
        };
        let mut values = Map::new();
        self.coalesce(&mut values, true)?;
        let mut imported = Map::new();
        for dependency in dependencies {
            dependency.import(&values, &mut imported);
        }
        lay_under(&mut values, imported, true);
        self.defaults = values;
        Ok(())
    }

    /// Lays this chart's defaults under the values, and each subchart's under its own in them. `keep_nulls` is helm's
    /// "merge": without it a null removes a default, and itself.
    fn coalesce(&self, values: &mut Map, keep_nulls: bool) -> Result<(), String> {
        for (key, default) in &self.defaults {
            self.lay_default(key, default, values, keep_nulls);
        }
        for part in &self.parts {
            part.coalesce_below(values, keep_nulls)?;
        }
        self.share_globals_below(values);
        Ok(())
    }

    /// Lays one default under the values.
    fn lay_default(&self, key: &Arc<str>, default: &Node, values: &mut Map, keep_nulls: bool) {
        let Some(set) = values.get_mut(key) else {
            if keep_nulls || !default.is_null() {
                values.insert(key.clone(), copy(default, keep_nulls));
            }
            return;
        };
        match &mut set.data {
            Data::Null if !keep_nulls => _ = values.remove(key),
            Data::Map(map) => {
                let is_part = self.parts.iter().any(|it| it.name == &**key);
                let keep_nulls = keep_nulls || is_part;
                if let Data::Map(default) = copy(default, keep_nulls).data {
                    lay_under(map, default, keep_nulls);
                }
            }
            _ => {}
        }
    }

    /// Lays this subchart's defaults under its values in those of the chart above.
    fn coalesce_below(&self, values: &mut Map, keep_nulls: bool) -> Result<(), String> {
        let own = values
            .remove(self.name)
            .unwrap_or_else(|| Node::nowhere(Data::empty_map()));
        let Data::Map(mut below) = own.data else {
            values.insert(self.name.into(), own);
            return Err(self.name.to_owned());
        };
        pass_globals(values, &mut below);
        self.coalesce(&mut below, keep_nulls)?;
        share_globals(&below, values);
        let data = Data::Map(below);
        values.insert(self.name.into(), Node { data, ..own });
        Ok(())
    }

    /// All parts have one and the same map from the second level of `global` on.
    fn share_globals_below(&self, values: &mut Map) {
        let Some(global) = values.get("global").and_then(Node::as_map) else {
            return;
        };
        let mut maps = global.values().filter_map(Node::as_map);
        if !maps.any(|map| map.values().any(|it| it.as_map().is_some())) {
            return;
        }
        for part in &self.parts {
            let Some(mut own) = values.remove(part.name) else {
                continue;
            };
            if let Data::Map(below) = &mut own.data {
                share_globals(values, below);
                part.share_globals_below(below);
            }
            values.insert(part.name.into(), own);
        }
    }
}

/// The parts of a chart: the subcharts that Chart.yaml does not list, and those that it lists under their aliases.
fn parts<'a>(chart: &'a Chart, dependencies: &[&'a Dependency]) -> Vec<EnabledChart<'a>> {
    let mut parts = Vec::new();
    for subchart in &chart.subcharts {
        if !dependencies.iter().any(|it| it.fits(subchart)) {
            parts.push(EnabledChart::new(subchart, &subchart.name));
        }
    }
    for dependency in dependencies {
        if let Some(subchart) = chart.subcharts.iter().find(|it| dependency.fits(it)) {
            parts.push(EnabledChart::new(subchart, dependency.known_as()));
        }
    }
    parts
}

/// Whether a dependency is enabled: by its condition, and without one that is set by its tags.
fn is_enabled(dependency: &Dependency, values: &Map, path: &str) -> bool {
    for condition in dependency.condition.trim().split(',') {
        let path = format!("{path}{condition}");
        if !condition.is_empty()
            && let Some(decision) = bool_at(values, &path)
        {
            return decision;
        }
    }
    let Some(tags) = table(values, "tags") else {
        return true;
    };
    let set: Vec<bool> = dependency
        .tags
        .iter()
        .filter_map(|it| as_bool(tags.get(it.as_str())?))
        .collect();
    set.contains(&true) || set.is_empty()
}

/// The boolean at a path with dots.
fn bool_at(values: &Map, path: &str) -> Option<bool> {
    match path.rsplit_once('.') {
        Some((parent, key)) => as_bool(table(values, parent)?.get(key)?),
        None => as_bool(values.get(path)?),
    }
}

fn as_bool(node: &Node) -> Option<bool> {
    match node.data {
        Data::Bool(it) => Some(it),
        // An encrypted value most likely enables something.
        Data::Encrypted("bool") => Some(true),
        _ => None,
    }
}

/// The map at a path with dots.
fn table<'m>(values: &'m Map, path: &str) -> Option<&'m Map> {
    path.split('.')
        .try_fold(values, |map, step| map.get(step)?.as_map())
}

/// Values that have this map at a path with dots; `.` is the empty path.
fn tree_at(path: &str, map: Map) -> Map {
    if path == "." {
        return map;
    }
    path.rsplit('.').fold(map, |tree, step| {
        Map::from([(step.into(), Node::nowhere(Data::Map(tree)))])
    })
}

/// Lays a map of lower rank under another one (coalesceTablesFullKey).
fn lay_under(map: &mut Map, mut lower: Map, keep_nulls: bool) {
    apply_nulls(map, &mut lower, keep_nulls);
    for (key, node) in lower {
        match (map.get_mut(&key), node.data) {
            (None, data) => _ = map.insert(key, Node { data, ..node }),
            (Some(own), Data::Map(lower)) => {
                if let Data::Map(own) = &mut own.data {
                    lay_under(own, lower, keep_nulls);
                }
            }
            _ => {}
        }
    }
}

/// Removes from `lower` what is null in the map, and that null itself if it has removed a value and nulls are not kept.
fn apply_nulls(map: &mut Map, lower: &mut Map, keep_nulls: bool) {
    map.retain(|key, node| {
        let removed = if node.is_null() {
            lower.remove(key)
        } else {
            None
        };
        keep_nulls || removed.is_none_or(|it| it.is_null())
    });
}

/// Passes `global` on to a subchart, over what it has itself (coalesceGlobals).
fn pass_globals(values: &Map, below: &mut Map) {
    let above = values.get("global");
    if above.is_some_and(|it| it.as_map().is_none()) {
        return;
    }
    let global = below
        .entry("global".into())
        .or_insert_with(|| Node::nowhere(Data::empty_map()));
    let Data::Map(global) = &mut global.data else {
        return;
    };
    for (key, node) in above.and_then(Node::as_map).into_iter().flatten() {
        if let Some(passed) = passed_on(node, global.get(key)) {
            global.insert(key.clone(), passed);
        }
    }
}

/// What a subchart that has `own` in its `global` gets of an entry of the `global` above it.
fn passed_on(above: &Node, own: Option<&Node>) -> Option<Node> {
    let own_map = own.and_then(Node::as_map);
    match (&above.data, own_map) {
        (Data::Map(from), Some(own)) => {
            let mut map = from.clone();
            lay_under(&mut map, own.clone(), true);
            Some(Node {
                data: Data::Map(map),
                ..*above
            })
        }
        (Data::Map(_), None) if own.is_some() => None,
        (_, Some(_)) => None,
        _ => Some(above.clone()),
    }
}

/// Takes over what a subchart's defaults added to `global`: helm passes the maps in the maps of `global` on as they are,
/// not copies, so that its parent and its siblings see that.
fn share_globals(from: &Map, to: &mut Map) {
    let Some(from) = from.get("global").and_then(Node::as_map) else {
        return;
    };
    let Some(Data::Map(to)) = to.get_mut("global").map(|it| &mut it.data) else {
        return;
    };
    for (key, node) in to {
        let from = from.get(key).and_then(Node::as_map);
        if let (Data::Map(to), Some(from)) = (&mut node.data, from) {
            share_maps(from, to);
        }
    }
}

/// Replaces the maps that are in both.
fn share_maps(from: &Map, to: &mut Map) {
    for (key, node) in to {
        let from = from.get(key).and_then(Node::as_map);
        if let (Data::Map(to), Some(from)) = (&mut node.data, from) {
            *to = from.clone();
        }
    }
}

fn copy(node: &Node, keep_nulls: bool) -> Node {
    let mut copy = node.clone();
    if !keep_nulls {
        remove_nulls(&mut copy);
    }
    copy
}

fn remove_nulls(node: &mut Node) {
    if let Data::Map(map) = &mut node.data {
        map.retain(|_, it| !it.is_null());
        map.values_mut().for_each(remove_nulls);
    }
}
