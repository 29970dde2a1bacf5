//! Other texts in the place of scalars, for everything in a file that has its value from there: an anchor's aliases as well.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

use crate::yaml::{
    edit::{Edits, NewValue, Source, apply},
    key_path::KeyPath,
    node::{Data, Node, Place},
    tree::Raw,
    values,
};

/// A scalar, and what takes its place.
struct Replaced<'a> {
    source: &'a Source<'a>,
    /// The node of the scalar.
    scalar: usize,
    /// The nodes that are asked for: the scalar, or aliases of it.
    nodes: BTreeSet<usize>,
    places: BTreeMap<Place, String>,
    text: &'a str,
}

/// The text with new scalars at these places, which are of one file. Quotes and layout stay where they can. The error says
/// why that cannot be done, and in which line.
pub(crate) fn replace(text: &str, new: &BTreeMap<Place, String>) -> Result<String> {
    let Some(first) = new.keys().next() else {
        return Ok(text.to_owned());
    };
    let old = read(text, first.file)?;
    let sources = Source::all(text, &KeyPath::default())?;
    let mut edits = Vec::new();
    for replaced in scalars(&sources, new)? {
        edits.extend(replaced.edits(text, &old)?);
    }
    let edited = apply(text, edits);
    if !is_changed_alone(&edited, &old, new) {
        bail!("these values cannot be changed at once: change them one by one");
    }
    Ok(edited)
}

/// The scalars that these places have their values from.
fn scalars<'a>(
    sources: &'a [Source<'a>],
    new: &'a BTreeMap<Place, String>,
) -> Result<Vec<Replaced<'a>>> {
    let mut found: BTreeMap<(usize, usize, &str), Replaced> = BTreeMap::new();
    for (place, text) in new {
        let here = sources.iter().enumerate();
        let mut here = here.filter_map(|(number, it)| Some((number, it, node_at(it, *place)?)));
        let Some((number, source, node)) = here.next() else {
            bail!("line {}: there is no text in this place", place.line);
        };
        let scalar = without_aliases(source, node);
        let replaced = found.entry((number, scalar, text)).or_insert(Replaced {
            source,
            scalar,
            nodes: BTreeSet::new(),
            places: BTreeMap::new(),
            text,
        });
        replaced.nodes.insert(node);
        replaced.places.insert(*place, text.clone());
    }
    Ok(found.into_values().collect())
}

/// The scalar or alias that is in a place.
fn node_at(source: &Source, place: Place) -> Option<usize> {
    let nodes = source.tree.nodes.iter().enumerate();
    let mut here = nodes.filter(|(index, _)| source.tree.place(*index, place.file) == place);
    let here = here.find(|(_, it)| matches!(it.raw, Raw::Scalar(_) | Raw::Alias { .. }));
    here.map(|(index, _)| index)
}

fn without_aliases(source: &Source, mut node: usize) -> usize {
    while let Raw::Alias { target, .. } = source.tree.nodes[node].raw {
        node = target;
    }
    node
}

impl Replaced<'_> {
    /// The first of all ways after which our reader finds the new text in these places, and all else as before.
    fn edits(&self, text: &str, old: &Node) -> Result<Edits> {
        for edits in self.ways(text)? {
            if is_changed_alone(&apply(text, edits.clone()), old, &self.places) {
                return Ok(edits);
            }
        }
        let line = self.places.keys().next().map_or(1, |it| it.line);
        if self.is_shared() {
            bail!(
                "line {line}: other values of this file are aliases of this one: change it by hand"
            );
        }
        bail!("line {line}: nothing that could be written there changes this value alone");
    }

    /// All ways to write the new text, the best one first: what is written as the old one, then what takes its place, then
    /// what takes the place of aliases.
    fn ways(&self, text: &str) -> Result<Vec<Edits>> {
        let value = NewValue {
            node: Node::nowhere(Data::Text(self.text.into())),
            spelt: self.text.to_owned(),
        };
        let mut ways: Vec<Edits> = self.within(text).into_iter().collect();
        ways.extend(self.source.replacements(self.scalar, &value)?);
        if !self.nodes.contains(&self.scalar) {
            let mut instead = Edits::new();
            for node in &self.nodes {
                let ways = self.source.replacements(*node, &value)?;
                instead.extend(ways.into_iter().next().unwrap_or_default());
            }
            ways.push(instead);
        }
        Ok(ways)
    }

    /// The new text between the quotes, or in the block, of the old one.
    fn within(&self, text: &str) -> Option<Edits> {
        let Raw::Scalar(scalar) = &self.source.tree.nodes[self.scalar].raw else {
            return None;
        };
        let span = self.source.span(self.scalar);
        let mut found = text[span.clone()].match_indices(&scalar.text);
        let (at, old) = found.next().filter(|(_, it)| !it.is_empty())?;
        let start = span.start + at;
        Some(vec![(start..start + old.len(), self.text.to_owned())])
    }

    /// Whether anything else in its document has its value from there.
    fn is_shared(&self) -> bool {
        let nodes = self.source.tree.nodes.iter().enumerate();
        let mut aliases = nodes.filter(|(_, it)| matches!(it.raw, Raw::Alias { .. }));
        aliases.any(|(index, _)| {
            without_aliases(self.source, index) == self.scalar && !self.nodes.contains(&index)
        })
    }
}

fn read(text: &str, file: u32) -> Result<Node> {
    let read = values::read(text.as_bytes(), file);
    let (node, _) = read.map_err(|it| anyhow!("line {}: {}", it.line, it.message))?;
    Ok(node)
}

/// Whether a text holds the old values with new ones in these places.
fn is_changed_alone(edited: &str, old: &Node, new: &BTreeMap<Place, String>) -> bool {
    read(edited, 0).is_ok_and(|it| it.to_json() == with(old, new))
}

/// Values with new ones in these places, as JSON.
fn with(node: &Node, new: &BTreeMap<Place, String>) -> Value {
    match &node.data {
        Data::List(items) => items.iter().map(|it| with(it, new)).collect(),
        Data::Map(map) => map
            .iter()
            .map(|(key, it)| (key.to_string(), with(it, new)))
            .collect(),
        _ => {
            let text = node.at.and_then(|it| new.get(&it));
            text.map_or_else(|| node.to_json(), |it| Value::from(it.as_str()))
        }
    }
}
