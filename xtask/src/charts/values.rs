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
    /// Where it is, and whether it's usable.
    pub(crate) schema: Option<(Place, Arc<Result<Schema, Unusable>>)>,
    /// Those that Chart.yaml lists, if it has a list.
    pub(crate) dependencies: Option<Vec<Dependency>>,
    /// All in charts/, also those that Chart.yaml doesn't list.
    pub(crate) subcharts: Vec<Chart>,
    /// It stands for a dependency that isn't there.
    pub(crate) is_missing: bool,
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
    /// Where in the subchart's values, and to where in its parent's.
    pub(crate) imports: Vec<(String, String)>,
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

    /// Gives the subcharts their aliases and takes away the disabled ones (processDependencyEnabled).
    fn enable(&mut self, set: &Map, path: &str) -> Result<(), String> {
        let Some(dependencies) = &self.dependencies else {
            return Ok(());
        };
        let is = |wanted: &Dependency, chart: &Chart| {
            let is_wanted = || satisfies(&chart.version, &wanted.version).unwrap_or(false);
            wanted.name == chart.name && !wanted.version.is_empty() && is_wanted()
        };
        let subcharts = &self.chart.subcharts;
        let listed = dependencies.iter().filter_map(|wanted| {
            let chart = subcharts.iter().find(|it| is(wanted, it))?;
            Some(EnabledChart::new(chart, wanted.known_as()))
        });
        let unlisted = subcharts
            .iter()
            .filter(|it| !dependencies.iter().any(|wanted| is(wanted, it)));
        self.parts = unlisted
            .map(|it| EnabledChart::new(it, &it.name))
            .chain(listed)
            .collect();

        let mut values = set.clone();
        self.coalesce(&mut values, false)?;
        let disabled: BTreeSet<_> = dependencies
            .iter()
            .filter(|it| !is_enabled(it, &values, path))
            .map(|it| it.known_as())
            .collect();
        self.parts.retain(|it| !disabled.contains(it.name));
        for part in &mut self.parts {
            part.enable(&values, &format!("{path}{}.", part.name))?;
        }
        let enabled: Vec<_> = dependencies
            .iter()
            .copied()
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
            for (child, parent) in &dependency.imports {
                let Some(found) = table(&values, &format!("{}.{child}", dependency.known_as()))
                else {
                    continue;
                };
                let mut tree = found.clone();
                if parent != "." {
                    for step in parent.rsplit('.') {
                        tree = Map::from([(step.into(), Node::nowhere(Data::Map(tree)))]);
                    }
                }
                lay_under(&mut imported, tree, true);
            }
        }
        lay_under(&mut values, imported, true);
        self.defaults = values;
        Ok(())
    }

    /// Lays this chart's defaults under the values, and each subchart's under its own in them. `keep_nulls` is helm's
    /// "merge": without it a null removes a default, and is gone.
    fn coalesce(&self, values: &mut Map, keep_nulls: bool) -> Result<(), String> {
        for (key, default) in &self.defaults {
            match values.get_mut(key) {
                None if keep_nulls => _ = values.insert(key.clone(), default.clone()),
                None if default.is_null() => {}
                None => {
                    let mut default = default.clone();
                    remove_nulls(&mut default);
                    values.insert(key.clone(), default);
                }
                Some(Node {
                    data: Data::Null, ..
                }) if !keep_nulls => _ = values.remove(key),
                Some(Node {
                    data: Data::Map(map),
                    ..
                }) => {
                    if let Data::Map(_) = &default.data {
                        let keep_nulls =
                            keep_nulls || self.parts.iter().any(|it| it.name == &**key);
                        let mut default = default.clone();
                        if !keep_nulls {
                            remove_nulls(&mut default);
                        }
                        let Data::Map(default) = default.data else {
                            unreachable!("it was a map")
                        };
                        lay_under(map, default, keep_nulls);
                    }
                }
                Some(_) => {}
            }
        }
        for part in &self.parts {
            let own = values
                .remove(part.name)
                .unwrap_or_else(|| Node::nowhere(Data::Map(Map::new())));
            let Data::Map(mut below) = own.data else {
                values.insert(part.name.into(), own);
                return Err(part.name.to_owned());
            };
            pass_globals(values, &mut below);
            part.coalesce(&mut below, keep_nulls)?;
            share_globals(&below, values);
            values.insert(
                part.name.into(),
                Node {
                    data: Data::Map(below),
                    ..own
                },
            );
        }
        self.share_globals_below(values);
        Ok(())
    }

    /// All parts have one and the same map from the second level of `global` on.
    fn share_globals_below(&self, values: &mut Map) {
        let Some(global) = values.get("global").and_then(Node::as_map) else {
            return;
        };
        if !global
            .values()
            .filter_map(Node::as_map)
            .any(|it| it.values().any(|it| it.as_map().is_some()))
        {
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

/// By its tags, and over them by its conditions.
fn is_enabled(dependency: &Dependency, values: &Map, path: &str) -> bool {
    let mut enabled = true;
    if let Some(tags) = table(values, "tags") {
        let set: Vec<bool> = dependency
            .tags
            .iter()
            .filter_map(|it| as_bool(tags.get(it.as_str())?))
            .collect();
        enabled = set.contains(&true) || set.is_empty();
    }
    let conditions = dependency
        .condition
        .trim()
        .split(',')
        .filter(|it| !it.is_empty());
    let decides = |condition: &str| {
        let path = format!("{path}{condition}");
        match path.rsplit_once('.') {
            Some((parent, key)) => as_bool(table(values, parent)?.get(key)?),
            None => as_bool(values.get(path.as_str())?),
        }
    };
    conditions.filter_map(decides).next().unwrap_or(enabled)
}

fn as_bool(node: &Node) -> Option<bool> {
    match node.data {
        Data::Bool(it) => Some(it),
        // What is encrypted is most likely in use.
        Data::Encrypted("bool") => Some(true),
        _ => None,
    }
}

/// The map at a path with dots.
fn table<'m>(values: &'m Map, path: &str) -> Option<&'m Map> {
    path.split('.')
        .try_fold(values, |map, step| map.get(step)?.as_map())
}

/// Lays a map of lower rank under another one (coalesceTablesFullKey).
fn lay_under(map: &mut Map, mut lower: Map, keep_nulls: bool) {
    let nulls: Vec<_> = map
        .iter()
        .filter(|(_, it)| it.is_null())
        .map(|(key, _)| key.clone())
        .collect();
    for key in nulls {
        let removes = !keep_nulls && lower.get(&key).is_some_and(|it| !it.is_null());
        lower.remove(&key);
        if removes {
            map.remove(&key);
        }
    }
    for (key, node) in lower {
        match (map.get_mut(&key), node.data) {
            (None, data) => _ = map.insert(key, Node { data, ..node }),
            (
                Some(Node {
                    data: Data::Map(map),
                    ..
                }),
                Data::Map(lower),
            ) => lay_under(map, lower, keep_nulls),
            _ => {}
        }
    }
}

/// Passes `global` on to a subchart, over what it has itself (coalesceGlobals).
fn pass_globals(values: &Map, below: &mut Map) {
    let none = Map::new();
    let above = match values.get("global") {
        None => &none,
        Some(Node {
            data: Data::Map(map),
            ..
        }) => map,
        Some(_) => return,
    };
    let global = below
        .entry("global".into())
        .or_insert_with(|| Node::nowhere(Data::Map(Map::new())));
    let Data::Map(global) = &mut global.data else {
        return;
    };
    for (key, node) in above {
        let passed = match (&node.data, global.get(key).map(|it| &it.data)) {
            (Data::Map(from), Some(Data::Map(own))) => {
                let mut map = from.clone();
                lay_under(&mut map, own.clone(), true);
                Node {
                    data: Data::Map(map),
                    ..*node
                }
            }
            (Data::Map(_), Some(_)) | (_, Some(Data::Map(_))) => continue,
            _ => node.clone(),
        };
        global.insert(key.clone(), passed);
    }
}

/// helm passes maps in the maps of `global` on as they are, not copies: what a subchart's defaults add to them is seen
/// by its parent and its siblings.
fn share_globals(from: &Map, to: &mut Map) {
    let Some(from) = from.get("global").and_then(Node::as_map) else {
        return;
    };
    let Some(Node {
        data: Data::Map(to),
        ..
    }) = to.get_mut("global")
    else {
        return;
    };
    for (key, node) in to {
        let (Data::Map(to), Some(from)) = (&mut node.data, from.get(key).and_then(Node::as_map))
        else {
            continue;
        };
        for (key, node) in to {
            if let (Data::Map(to), Some(from)) =
                (&mut node.data, from.get(key).and_then(Node::as_map))
            {
                *to = from.clone();
            }
        }
    }
}

fn remove_nulls(node: &mut Node) {
    if let Data::Map(map) = &mut node.data {
        map.retain(|_, it| !it.is_null());
        map.values_mut().for_each(remove_nulls);
    }
}
