//! The keys that lead to a value, as helm's `--set` writes them: `hub.config.admins[0]`, `nodes.example\.org/pool`.

use std::fmt;

use anyhow::{Result, bail, ensure};

use crate::yaml::node::{Data, Node};

/// One key, or the number of an item in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Key(String),
    Item(usize),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyPath(pub(crate) Vec<Step>);

impl KeyPath {
    /// Reads a path. A backslash takes its meaning from the `.` or `[` that follows.
    pub(crate) fn parse(text: &str) -> Result<KeyPath> {
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            let end = end_of_key(rest);
            let key = &rest[..end];
            ensure!(!key.is_empty(), "`{text}` has an empty key");
            steps.push(Step::Key(unescaped(key)));
            rest = items(&rest[end..], &mut steps, text)?;
            match rest.strip_prefix('.') {
                Some(below) => rest = below,
                None if rest.is_empty() => return Ok(KeyPath(steps)),
                None => bail!("`{text}`: a `.` or nothing follows a `]`"),
            }
        }
    }

    /// The value that it leads to.
    pub(crate) fn find<'a>(&self, node: &'a Node) -> Option<&'a Node> {
        self.0.iter().try_fold(node, |node, step| step.of(node))
    }

    /// The path of what is directly below.
    pub(crate) fn join(&self, step: Step) -> KeyPath {
        let mut path = self.clone();
        path.0.push(step);
        path
    }

    /// The path of as many of its first steps.
    pub(crate) fn first(&self, count: usize) -> KeyPath {
        KeyPath(self.0[..count].to_vec())
    }

    /// Calls `f` with each value at or below a node that has none below it, and its path. `self` is the node's.
    pub(crate) fn visit_leaves<'a>(&self, node: &'a Node, f: &mut impl FnMut(KeyPath, &'a Node)) {
        match &node.data {
            Data::Map(map) if !map.is_empty() => {
                for (key, value) in map {
                    let path = self.join(Step::Key(key.to_string()));
                    path.visit_leaves(value, f);
                }
            }
            Data::List(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    self.join(Step::Item(index)).visit_leaves(item, f);
                }
            }
            _ => f(self.clone(), node),
        }
    }
}

impl Step {
    /// The value that it leads to. An item may be written as a key, as in the messages of `validate`.
    pub(crate) fn of<'a>(&self, node: &'a Node) -> Option<&'a Node> {
        match (&node.data, self) {
            (Data::Map(map), Step::Key(key)) => map.get(key.as_str()),
            (Data::List(items), _) => items.get(self.index()?),
            _ => None,
        }
    }

    /// The number of an item.
    pub(crate) fn index(&self) -> Option<usize> {
        match self {
            Step::Key(key) => key.parse().ok(),
            Step::Item(index) => Some(*index),
        }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Item(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if position == 0 { "" } else { "." };
                    write!(f, "{dot}{}", escaped(key))?;
                }
            }
        }
        Ok(())
    }
}

/// Where the key that a text begins with ends.
fn end_of_key(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, char) in text.char_indices() {
        if !is_escaped && matches!(char, '.' | '[') {
            return at;
        }
        is_escaped = char == '\\' && !is_escaped;
    }
    text.len()
}

/// Takes the numbers of items, as in `[0][1]`, from the beginning of a text. Returns the rest.
fn items<'a>(mut rest: &'a str, steps: &mut Vec<Step>, whole: &str) -> Result<&'a str> {
    while let Some(inside) = rest.strip_prefix('[') {
        let index = inside
            .split_once(']')
            .and_then(|(index, rest)| Some((index.parse().ok()?, rest)));
        let Some((index, after)) = index else {
            bail!("`{whole}`: the number of an item, as in `list[0]`, follows a `[`");
        };
        steps.push(Step::Item(index));
        rest = after;
    }
    Ok(rest)
}

fn escaped(key: &str) -> String {
    let mut escaped = String::new();
    for char in key.chars() {
        if matches!(char, '.' | '[' | '\\') {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

fn unescaped(key: &str) -> String {
    let mut unescaped = String::new();
    let mut chars = key.chars().peekable();
    while let Some(char) = chars.next() {
        let next = chars.next_if(|it| char == '\\' && matches!(it, '.' | '[' | '\\'));
        unescaped.push(next.unwrap_or(char));
    }
    unescaped
}
