//! A document's tree as the values that helm reads from it: go.yaml.in/yaml/v2's resolution, aliases and merges.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::yaml::{
    documents::Document,
    mistakes,
    node::{Data, Finding, Map, Node, Place},
    scalar::{self, Scalar},
    tree::{Raw, RawScalar, Tree},
};

/// What a document holds.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Content {
    /// Values for a chart. All their numbers are floats.
    Values,
    /// A manifest, or anything else: whole numbers keep all their digits.
    Object,
}

impl Content {
    /// Far deeper than anybody's, and safe for recursion. helm itself allows 10,000.
    fn max_depth(self) -> usize {
        match self {
            Content::Values => 200,
            Content::Object => 500,
        }
    }
}

/// A document that is not empty.
pub(crate) struct ReadDocument {
    pub(crate) node: Node,
    pub(crate) findings: Vec<Finding>,
}

/// The value of a document, if it has one. The error is what helm refuses.
pub(crate) fn read_document(
    document: &Document,
    file: u32,
    content: Content,
) -> Result<Option<ReadDocument>, Finding> {
    let mut tree = Tree::parse(document, content.max_depth())?;
    let Some(root) = tree.root else {
        return Ok(None);
    };
    let findings = tree.dropped.take().into_iter().collect();
    let mut reader = Reader {
        tree: &tree,
        file,
        content,
        findings,
        key: "".into(),
        within: Vec::new(),
        read: 0,
        read_in_aliases: 0,
    };
    let node = reader.node(root)?;
    Ok(Some(ReadDocument {
        node,
        findings: reader.findings,
    }))
}

struct Reader<'t> {
    tree: &'t Tree,
    file: u32,
    content: Content,
    findings: Vec<Finding>,
    /// The key whose value is being read.
    key: Arc<str>,
    /// The aliases that are being read, the innermost last.
    within: Vec<usize>,
    /// How many values were read, and how many of them in aliases.
    read: usize,
    read_in_aliases: usize,
}

impl<'t> Reader<'t> {
    fn node(&mut self, index: usize) -> Result<Node, Finding> {
        self.count(index)?;
        let at = Some(self.place(index));
        let data = match self.raw(index) {
            Raw::Alias { target, .. } => {
                let node = self.in_alias(index, |reader| reader.node(*target))?;
                return Ok(Node { at, ..node });
            }
            Raw::Scalar(scalar) => self.value(index, scalar)?,
            Raw::List(items) => {
                let items = items.iter().map(|it| self.node(*it));
                Data::List(items.collect::<Result<_, _>>()?)
            }
            Raw::Map(entries) => {
                let mut map = Map::new();
                self.fill(entries, &mut map)?;
                Data::Map(map)
            }
        };
        Ok(Node {
            data,
            at,
            key_at: None,
        })
    }

    fn raw(&self, index: usize) -> &'t Raw {
        &self.tree.nodes[index].raw
    }

    fn place(&self, index: usize) -> Place {
        self.tree.place(index, self.file)
    }

    /// Refuses a document that its aliases make too large, by go.yaml.in/yaml/v2's own limits.
    fn count(&mut self, index: usize) -> Result<(), Finding> {
        self.read += 1;
        self.read_in_aliases += usize::from(!self.within.is_empty());
        let allowed = match self.read {
            ..=400_000 => 0.99,
            4_000_000.. => 0.10,
            read => 0.99 - 0.89 * ((read - 400_000) as f64 / 3_600_000.0),
        };
        let ratio = self.read_in_aliases as f64 / self.read as f64;
        if self.read_in_aliases > 100 && self.read > 1000 && ratio > allowed {
            let message = "aliases make this document excessively large";
            return Err(self.tree.problem_at(index, message));
        }
        Ok(())
    }

    /// Reads what an alias refers to.
    fn in_alias<T>(
        &mut self,
        alias: usize,
        read: impl FnOnce(&mut Reader<'t>) -> Result<T, Finding>,
    ) -> Result<T, Finding> {
        if self.within.contains(&alias) {
            let Raw::Alias { name, .. } = self.raw(alias) else {
                unreachable!("only aliases are entered")
            };
            let message = format!("the value of `*{name}` contains itself");
            return Err(self.tree.problem_at(alias, message));
        }
        let max_depth = self.tree.max_depth;
        if self.within.len() > max_depth {
            let message = format!("aliases lead to aliases more than {max_depth} times");
            return Err(self.tree.problem_at(alias, message));
        }
        self.within.push(alias);
        let read = read(self)?;
        self.within.pop();
        Ok(read)
    }

    fn value(&mut self, index: usize, scalar: &RawScalar) -> Result<Data, Finding> {
        let data = match self.scalar(index, scalar)? {
            Scalar::Null => Data::Null,
            Scalar::Bool(it) => Data::Bool(it),
            Scalar::Int(it) if self.content == Content::Object => Data::Integer(it),
            Scalar::Int(it) => Data::Number(it as f64),
            Scalar::Uint(it) => Data::Number(it as f64),
            Scalar::Float(it) if it.is_finite() => Data::Number(it),
            Scalar::Float(_) => {
                let message = "helm cannot take infinity or not-a-number";
                return Err(self.tree.problem_at(index, message));
            }
            Scalar::Text(it) => Data::Text(it.into()),
        };
        Ok(data)
    }

    fn scalar(&mut self, index: usize, scalar: &RawScalar) -> Result<Scalar, Finding> {
        let text = &scalar.text;
        let tag = match scalar.tag.as_deref() {
            None if !scalar.is_plain => return Ok(Scalar::Text(text.clone())),
            Some("tag:yaml.org,2002:binary") => {
                return binary(text).map_err(|it| self.tree.problem_at(index, it));
            }
            tag => tag.unwrap_or_default(),
        };
        let resolved = scalar::resolve(tag, text).map_err(|it| self.tree.problem_at(index, it))?;
        // A value that many aliases refer to is reported once.
        if tag.is_empty() && self.within.is_empty() {
            self.warn_if_misread(index, text, &resolved);
        }
        Ok(resolved)
    }

    fn warn_if_misread(&mut self, index: usize, text: &str, read: &Scalar) {
        let misread = scalar::misread(&self.key, text, read);
        let unquoted = misread.as_ref().map(|_| text.to_owned());
        if let Some(message) = misread.or_else(|| mistakes::not_as_meant(text)) {
            self.findings.push(Finding {
                rule: "misread-scalar",
                is_warning: true,
                unquoted,
                ..self.tree.problem_at(index, message)
            });
        }
    }

    /// Reads a mapping's entries into `map`, one after another; the entries that `<<` refers to as well, wherever it is.
    fn fill(&mut self, entries: &[(usize, usize)], map: &mut Map) -> Result<(), Finding> {
        let mut own = BTreeSet::new();
        for (key, value) in entries.iter().copied() {
            if is_merge(self.raw(key)) {
                self.merge(value, map)?;
                continue;
            }
            let key_at = self.place(key);
            let name = self.key(key)?;
            self.key = name.clone();
            let mut node = self.node(value)?;
            self.warn_if_no_key(key, value);
            if matches!(node.data, Data::List(_) | Data::Map(_)) {
                node.at = Some(key_at);
            }
            node.key_at = Some(key_at);
            if !own.insert(name.clone()) && self.within.is_empty() {
                self.report_duplicate(key, &name);
            }
            map.insert(name, node);
        }
        Ok(())
    }

    /// A value like `key:value` in a line of its own was meant to be a key with its value.
    fn warn_if_no_key(&mut self, key: usize, value: usize) {
        let Raw::Scalar(scalar) = self.raw(value) else {
            return;
        };
        let is_below = self.place(value).line > self.place(key).line;
        if scalar.is_plain
            && is_below
            && self.within.is_empty()
            && let Some(name) = mistakes::key_without_blank(&scalar.text)
        {
            self.findings.push(Finding {
                rule: "misread-scalar",
                is_warning: true,
                ..self.tree.problem_at(value, mistakes::no_blank(name))
            });
        }
    }

    fn report_duplicate(&mut self, key: usize, name: &str) {
        let message = format!("`{name}` is set twice in this mapping; only the last value counts");
        self.findings.push(Finding {
            rule: "duplicate-key",
            ..self.tree.problem_at(key, message)
        });
    }

    /// Reads the value of a `<<` into `map`.
    fn merge(&mut self, index: usize, map: &mut Map) -> Result<(), Finding> {
        match self.raw(index) {
            Raw::List(items) => {
                // The first one wins.
                for item in items.iter().rev() {
                    self.merge_mapping(*item, map)?;
                }
                Ok(())
            }
            _ => self.merge_mapping(index, map),
        }
    }

    fn merge_mapping(&mut self, index: usize, map: &mut Map) -> Result<(), Finding> {
        match self.raw(index) {
            Raw::Map(entries) => {
                self.count(index)?;
                self.fill(entries, map)
            }
            Raw::Alias { target, .. } if matches!(self.raw(*target), Raw::Map(_)) => {
                self.count(index)?;
                self.in_alias(index, |reader| reader.merge_mapping(*target, map))
            }
            _ => {
                let message = "`<<` merges a mapping or a list of mappings";
                Err(self.tree.problem_at(index, message))
            }
        }
    }

    fn key(&mut self, index: usize) -> Result<Arc<str>, Finding> {
        self.count(index)?;
        let scalar = match self.raw(index) {
            Raw::Scalar(scalar) => self.scalar(index, scalar)?,
            Raw::Alias { target, .. } => {
                return self.in_alias(index, |reader| reader.key(*target));
            }
            _ => {
                let message = "a mapping's key cannot be a list or another mapping";
                return Err(self.tree.problem_at(index, message));
            }
        };
        key_text(scalar).map_err(|it| self.tree.problem_at(index, it))
    }
}

/// A key as helm writes it. The error says why helm refuses it.
fn key_text(key: Scalar) -> Result<Arc<str>, &'static str> {
    match key {
        Scalar::Text(it) => Ok(it.into()),
        Scalar::Bool(it) => Ok(it.to_string().into()),
        Scalar::Int(it) => Ok(it.to_string().into()),
        Scalar::Float(it) => Ok(scalar::float_text(it).into()),
        Scalar::Null => Err("a mapping's key cannot be null: quote it"),
        Scalar::Uint(_) => Err("helm does not take so large a number as a key: quote it"),
    }
}

/// The text of a key that says it itself, and is none of `<<`.
pub(crate) fn name_of_key(key: &Raw) -> Option<Arc<str>> {
    let Raw::Scalar(scalar) = key else {
        return None;
    };
    if is_merge(key) {
        return None;
    }
    if scalar.tag.is_none() && !scalar.is_plain {
        return Some(scalar.text.as_str().into());
    }
    let tag = scalar.tag.as_deref().unwrap_or_default();
    key_text(scalar::resolve(tag, &scalar.text).ok()?).ok()
}

fn is_merge(key: &Raw) -> bool {
    let Raw::Scalar(scalar) = key else {
        return false;
    };
    let is_tagged = scalar.tag.as_deref() == Some("tag:yaml.org,2002:merge");
    scalar.text == "<<" && (scalar.is_plain || is_tagged)
}

fn binary(text: &str) -> Result<Scalar, &'static str> {
    let bytes = BASE64_STANDARD
        .decode(text.replace(['\n', '\r'], ""))
        .map_err(|_| "this `!!binary` is not base64")?;
    Ok(Scalar::Text(String::from_utf8_lossy(&bytes).into_owned()))
}
