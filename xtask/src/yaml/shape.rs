//! The types that helm's structs give to the keys of a file, and how a file is read over what was read before it: as
//! sigs.k8s.io/yaml and Go's JSON do.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::yaml::{
    node::{self, Data, Node},
    scalar::float_text,
    timestamp::is_time_in_json,
};

/// What may stand in a place.
pub(crate) enum Shape {
    /// A number or a boolean may stand for a text.
    Text,
    Bool,
    Time,
    Anything,
    List(&'static Shape),
    /// A mapping with any keys.
    Map(&'static Shape),
    /// A mapping whose other keys mean nothing. Capitals and small letters are the same in its keys.
    Struct(&'static Fields),
}

/// Keys, and what may stand in their places.
type Fields = [(&'static str, Shape)];

impl Shape {
    /// Reads a document over what `into` has of another one. In both, null stands for nothing. An error names the line, but
    /// not the file.
    pub(crate) fn read(&self, document: &Node, into: &mut Value) -> Result<()> {
        if document.is_null() {
            return Ok(());
        }
        self.read_node(document, into)
    }

    fn read_node(&self, node: &Node, into: &mut Value) -> Result<()> {
        match (self, &node.data) {
            (Shape::Anything, _) => *into = node.to_json(),
            (Shape::Text, Data::Null) if into.is_null() => *into = Value::from(""),
            (Shape::Text | Shape::Bool | Shape::Time, Data::Null) => {}
            (_, Data::Null) => *into = Value::Null,
            (Shape::Text, Data::Number(it)) => *into = float_text(*it).into(),
            (Shape::Text, Data::Text(_) | Data::Bool(_) | Data::Integer(_)) => {
                *into = text(node).into();
            }
            (Shape::Bool, Data::Bool(it)) => *into = (*it).into(),
            (Shape::Time, Data::Text(it)) if is_time_in_json(it) => *into = text(node).into(),
            (Shape::List(item), Data::List(nodes)) => read_list(item, nodes, into)?,
            (Shape::Map(shape), Data::Map(nodes)) => read_map(shape, nodes, into)?,
            (Shape::Struct(fields), Data::Map(nodes)) => read_struct(fields, nodes, into)?,
            _ => bail!(
                "line {}: it is {}, and must be {}",
                node.at.map_or(1, |it| it.line),
                kind_of(&node.data),
                self.kind()
            ),
        }
        Ok(())
    }

    fn kind(&self) -> &'static str {
        match self {
            Shape::Text | Shape::Anything => "a string",
            Shape::Bool => "a boolean",
            Shape::Time => "a string with a time like `2006-01-02T15:04:05Z`",
            Shape::List(_) => "a list",
            Shape::Map(_) | Shape::Struct(_) => "a mapping",
        }
    }
}

/// Each item is read over the one that was in its place.
fn read_list(shape: &Shape, nodes: &[Node], into: &mut Value) -> Result<()> {
    let mut items = match into.take() {
        Value::Array(before) => before,
        _ => Vec::new(),
    };
    items.resize(nodes.len(), Value::Null);
    for (node, item) in nodes.iter().zip(&mut items) {
        shape.read_node(node, item)?;
    }
    *into = items.into();
    Ok(())
}

fn read_map(shape: &Shape, nodes: &node::Map, into: &mut Value) -> Result<()> {
    let mut read = object(into);
    for (key, node) in nodes {
        shape.read_node(node, read.entry(&**key).or_insert(Value::Null))?;
    }
    *into = read.into();
    Ok(())
}

fn read_struct(fields: &'static Fields, nodes: &node::Map, into: &mut Value) -> Result<()> {
    let mut read = object(into);
    for (key, node) in nodes {
        let Some((name, shape)) = field(fields, key) else {
            continue;
        };
        let mut value = read.remove(*name).unwrap_or_default();
        let fits = shape.read_node(node, &mut value);
        fits.with_context(|| format!("`{name}`"))?;
        if !value.is_null() {
            read.insert((*name).to_owned(), value);
        }
    }
    *into = read.into();
    Ok(())
}

/// The field of a struct that a key names.
fn field(fields: &'static Fields, key: &str) -> Option<&'static (&'static str, Shape)> {
    let exact = fields.iter().find(|(name, _)| *name == key);
    exact.or_else(|| fields.iter().find(|(name, _)| folded(name) == folded(key)))
}

/// Text without the difference of capitals and small letters, to which Go counts `ſ` and the sign of Kelvin.
fn folded(text: &str) -> String {
    text.to_lowercase().to_uppercase()
}

fn object(value: &mut Value) -> Map<String, Value> {
    match value.take() {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn text(node: &Node) -> String {
    match &node.data {
        Data::Text(it) => it.to_string(),
        _ => node.to_json().to_string(),
    }
}

fn kind_of(data: &Data) -> &'static str {
    match data {
        Data::Null => "null",
        Data::Bool(_) => "a boolean",
        Data::Number(_) | Data::Integer(_) => "a number",
        Data::Text(_) | Data::Encrypted(_) => "a string",
        Data::List(_) => "a list",
        Data::Map(_) => "a mapping",
    }
}
