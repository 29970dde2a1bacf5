//! The model: values with their places, and findings about them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Number, Value};

/// The place of a value in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The number of the file, which the caller chose.
    pub(crate) file: u32,
    /// From 1, as editors count.
    pub(crate) line: u32,
    /// In characters, from 1.
    pub(crate) column: u32,
}

impl Place {
    pub(crate) fn start_of(file: u32) -> Place {
        Place {
            file,
            line: 1,
            column: 1,
        }
    }
}

/// The files that places refer to, by their numbers.
#[derive(Default)]
pub(crate) struct Files(Vec<PathBuf>);

impl Files {
    /// The number of a file, given by its path from the root.
    pub(crate) fn add(&mut self, path: &Path) -> u32 {
        let known = self.0.iter().position(|it| it == path);
        let number = known.unwrap_or_else(|| {
            self.0.push(path.to_owned());
            self.0.len() - 1
        });
        u32::try_from(number).expect("nobody has so many files")
    }

    pub(crate) fn path(&self, number: u32) -> &Path {
        &self.0[number as usize]
    }
}

/// A value, and where it was set.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) data: Data,
    /// The place of the key for a mapping or list that has one, otherwise of the value itself.
    pub(crate) at: Option<Place>,
    /// The place of the key in a mapping.
    pub(crate) key_at: Option<Place>,
}

pub(crate) type Map = BTreeMap<Arc<str>, Node>;

#[derive(Clone, Debug)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    /// helm has no other numbers in values: sigs.k8s.io/yaml goes through JSON.
    Number(f64),
    /// A whole number in anything but values.
    Integer(i64),
    Text(Arc<str>),
    List(Vec<Node>),
    Map(Map),
    /// A scalar that is encrypted. Only its type is known: `str`, `int`, `float`, `bool` or `bytes`.
    Encrypted(&'static str),
}

impl Data {
    pub(crate) fn empty_map() -> Data {
        Data::Map(Map::new())
    }
}

/// A problem or a warning about a place in a file.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) rule: &'static str,
    pub(crate) is_warning: bool,
    pub(crate) message: String,
    /// The scalar that it says should be quoted.
    pub(crate) unquoted: Option<String>,
}

impl Finding {
    /// A problem at a place, or at the beginning of the file.
    pub(crate) fn problem(
        rule: &'static str,
        at: Option<Place>,
        message: impl Into<String>,
    ) -> Finding {
        let at = at.unwrap_or(Place::start_of(0));
        Finding {
            line: at.line,
            column: at.column,
            rule,
            is_warning: false,
            message: message.into(),
            unquoted: None,
        }
    }
}

impl Finding {
    /// The same at another place.
    pub(crate) fn move_to(&mut self, at: Place) {
        self.line = at.line;
        self.column = at.column;
    }
}

impl Node {
    /// A value that no file has.
    pub(crate) fn nowhere(data: Data) -> Node {
        Node {
            data,
            at: None,
            key_at: None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.data {
            Data::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Node]> {
        match &self.data {
            Data::List(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// Whether Python takes it for false.
    pub(crate) fn is_falsy(&self) -> bool {
        match &self.data {
            Data::Null | Data::Bool(false) | Data::Integer(0) => true,
            Data::Number(number) => *number == 0.0,
            Data::Text(text) => text.is_empty(),
            Data::List(items) => items.is_empty(),
            Data::Map(map) => map.is_empty(),
            _ => false,
        }
    }

    /// The value at a path of keys and, in lists, of numbers from 0.
    pub(crate) fn get(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| match &node.data {
            Data::Map(map) => map.get(*step),
            Data::List(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Puts something else in the place of the value at such a path.
    pub(crate) fn replace(&mut self, path: &[&str], data: Data) {
        let place = path
            .iter()
            .try_fold(self, |node, step| match &mut node.data {
                Data::Map(map) => map.get_mut(*step),
                Data::List(items) => items.get_mut(step.parse::<usize>().ok()?),
                _ => None,
            });
        if let Some(node) = place {
            node.data = data;
        }
    }

    /// The path to the scalar in this line and column, as `get` takes it.
    pub(crate) fn path_to(&self, line: u32, column: u32) -> Option<Vec<String>> {
        let below = |step: String, node: &Node| {
            let mut path = node.path_to(line, column)?;
            path.insert(0, step);
            Some(path)
        };
        match &self.data {
            Data::List(items) => {
                let mut items = items.iter().enumerate();
                items.find_map(|(index, it)| below(index.to_string(), it))
            }
            Data::Map(map) => map.iter().find_map(|(key, it)| below(key.to_string(), it)),
            _ => {
                let is_here = |at: Place| at.line == line && at.column == column;
                self.at.is_some_and(is_here).then(Vec::new)
            }
        }
    }

    /// The text at such a path.
    pub(crate) fn text(&self, path: &[&str]) -> Option<&str> {
        self.get(path)?.as_text()
    }

    /// The value as JSON, for a schema or for serde. An encrypted value becomes one of its type.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(it) => Value::Bool(*it),
            Data::Number(it) => Value::Number(number(*it)),
            Data::Integer(it) => Value::from(*it),
            Data::Text(text) => Value::from(&**text),
            Data::List(items) => items.iter().map(Node::to_json).collect(),
            Data::Map(map) => map
                .iter()
                .map(|(key, it)| (key.to_string(), it.to_json()))
                .collect(),
            Data::Encrypted("bool") => Value::Bool(true),
            Data::Encrypted("int") => Value::from(1),
            Data::Encrypted("float") => Value::from(1.5),
            Data::Encrypted(_) => Value::from("encrypted"),
        }
    }

    /// Sets the place of this value and of all values in it, for a file whose lines nobody sees.
    pub(crate) fn move_to(&mut self, at: Place) {
        self.at = Some(at);
        self.key_at = Some(at);
        match &mut self.data {
            Data::List(items) => items.iter_mut().for_each(|it| it.move_to(at)),
            Data::Map(map) => map.values_mut().for_each(|it| it.move_to(at)),
            _ => {}
        }
    }

    /// Calls `f` with this value and every value in it.
    pub(crate) fn visit<'a>(&'a self, f: &mut impl FnMut(&'a Node)) {
        f(self);
        match &self.data {
            Data::List(items) => items.iter().for_each(|it| it.visit(f)),
            Data::Map(map) => map.values().for_each(|it| it.visit(f)),
            _ => {}
        }
    }

    /// Calls `f` with every text in this value and the keys that lead there; `path` has those that lead to this value.
    pub(crate) fn visit_texts<'a>(
        &'a self,
        path: &mut Vec<&'a str>,
        f: &mut impl FnMut(&[&'a str], &'a str, Option<Place>),
    ) {
        match &self.data {
            Data::Text(text) => f(path, text, self.at),
            Data::List(items) => items.iter().for_each(|it| it.visit_texts(path, f)),
            Data::Map(map) => {
                for (key, value) in map {
                    path.push(key);
                    value.visit_texts(path, f);
                    path.pop();
                }
            }
            _ => {}
        }
    }
}

/// Merges a later file's values over an earlier one's, as helm merges `--values`: maps are merged by key, all else is
/// replaced.
pub(crate) fn merge(into: &mut Map, from: Map) {
    for (key, mut node) in from {
        match (into.get_mut(&key), node.data) {
            (
                Some(Node {
                    data: Data::Map(before),
                    at,
                    key_at,
                }),
                Data::Map(map),
            ) => {
                merge(before, map);
                *at = node.at;
                *key_at = node.key_at;
            }
            (_, data) => {
                node.data = data;
                into.insert(key, node);
            }
        }
    }
}

/// A value of JSON as text: a string without its quotes.
pub(crate) fn unquoted(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A JSON number. A whole number is an integer however it was written, as in Go's JSON; a large one has only the digits
/// that tell it from its neighbors.
pub(crate) fn number(value: f64) -> Number {
    let digits = value.to_string();
    if let Ok(integer) = digits.parse::<i64>() {
        return integer.into();
    }
    if let Ok(integer) = digits.parse::<u64>() {
        return integer.into();
    }
    Number::from_f64(value).expect("values are finite")
}
