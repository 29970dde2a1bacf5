//! The documents of a manifest, and which of another rendering's documents are the same.

use std::{cell::OnceCell, collections::BTreeMap};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::yaml::{self, split_documents};

/// What helm writes above each document, before the name of its template.
const SOURCE: &str = "# Source: ";

/// A document of a manifest.
pub(crate) struct Document<'a> {
    /// The template that it comes from; empty if that is not said.
    pub(crate) source: &'a str,
    /// Without the line that names its template.
    pub(crate) text: &'a str,
    /// The same with the lines that are empty: they may belong to a block scalar.
    content: &'a str,
    object: OnceCell<Option<Value>>,
}

impl Document<'_> {
    /// The line that names its template; empty if there is none.
    pub(crate) fn source_line(&self) -> String {
        if self.source.is_empty() {
            String::new()
        } else {
            format!("{SOURCE}{}\n", self.source)
        }
    }

    /// None if it isn't the YAML of an object. Most documents are the same in all renderings, and are never read.
    pub(crate) fn object(&self) -> Option<&Value> {
        let object = self.object.get_or_init(|| {
            let object = self.read().ok();
            object.filter(Value::is_object)
        });
        object.as_ref()
    }

    /// The parser wants a line feed behind a block scalar.
    fn read(&self) -> Result<Value> {
        let content = self.content.strip_suffix('\n').unwrap_or(self.content);
        yaml::parse(format!("{content}\n").as_bytes())
    }

    /// The object; null if it isn't one.
    pub(crate) fn value(&self) -> Value {
        self.object().cloned().unwrap_or_default()
    }

    /// An error if it isn't YAML.
    pub(crate) fn check(&self) -> Result<()> {
        if self.object().is_none() {
            self.read().with_context(|| match self.source {
                "" => "a manifest is not YAML".to_owned(),
                source => format!("the manifest of `{source}` is not YAML"),
            })?;
        }
        Ok(())
    }

    /// The comments that it begins with.
    pub(crate) fn comments(&self) -> String {
        let comments = self.text.lines().take_while(|it| it.starts_with('#'));
        let comments: String = comments.flat_map(|line| [line, "\n"]).collect();
        self.source_line() + &comments
    }

    fn text_of(&self, key: &str) -> &str {
        self.field(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn field(&self, key: &str) -> Option<&Value> {
        self.object()?.get(key)
    }
}

/// By what the same document is found in another rendering.
type KeyOf = for<'a, 'b> fn(&'a Document<'b>) -> [&'a str; 4];

/// All of a document, which need not be read then.
fn whole<'a>(document: &'a Document<'_>) -> [&'a str; 4] {
    [document.source, document.text, "", ""]
}

/// What an object is known by.
fn identity<'a>(document: &'a Document<'_>) -> [&'a str; 4] {
    let metadata = document.field("metadata");
    let of_metadata = |key: &str| metadata.and_then(|it| it[key].as_str());
    [
        document.text_of("apiVersion"),
        document.text_of("kind"),
        of_metadata("namespace").unwrap_or_default(),
        of_metadata("name").unwrap_or_default(),
    ]
}

/// Where an object is from, for those whose names are not the same in each rendering.
fn origin<'a>(document: &'a Document<'_>) -> [&'a str; 4] {
    let version = document.text_of("apiVersion");
    [document.source, version, document.text_of("kind"), ""]
}

/// The documents of a stream that hold something.
pub(crate) fn documents(stream: &str) -> Vec<Document<'_>> {
    let documents = split_documents(stream).map(document);
    documents.filter(|it| !it.text.is_empty()).collect()
}

fn document(text: &str) -> Document<'_> {
    let text = text.trim_start();
    let named = text.strip_prefix(SOURCE);
    let (source, content) = named.map_or(("", text), |it| it.split_once('\n').unwrap_or((it, "")));
    Document {
        source: source.trim(),
        text: content.trim(),
        content,
        object: OnceCell::new(),
    }
}

/// For each document its positions in two other renderings, if it is in both.
pub(crate) fn matches(ours: &[Document], theirs: [&[Document]; 2]) -> Vec<Option<[usize; 2]>> {
    let mut matches = vec![None; ours.len()];
    match_by(whole, false, ours, theirs, &mut matches);
    match_by(identity, false, ours, theirs, &mut matches);
    match_by(origin, true, ours, theirs, &mut matches);
    matches
}

/// Matches documents with the same key that have no match yet, the first one with the first one. If `all_or_none`, all
/// renderings must have as many of them.
fn match_by(
    key: KeyOf,
    all_or_none: bool,
    ours: &[Document],
    theirs: [&[Document]; 2],
    matches: &mut [Option<[usize; 2]>],
) {
    let taken = |side: usize| matches.iter().flatten().map(move |it| it[side]);
    let first = by_key(key, theirs[0], &taken(0).collect::<Vec<_>>());
    let second = by_key(key, theirs[1], &taken(1).collect::<Vec<_>>());
    let own_taken = matches.iter().enumerate().filter(|(_, it)| it.is_some());
    let own_taken: Vec<_> = own_taken.map(|(index, _)| index).collect();
    for (key, positions) in by_key(key, ours, &own_taken) {
        let (Some(first), Some(second)) = (first.get(&key), second.get(&key)) else {
            continue;
        };
        let is_same = first.len() == positions.len() && second.len() == positions.len();
        if all_or_none && !is_same {
            continue;
        }
        for (position, others) in positions.iter().zip(first.iter().zip(second)) {
            matches[*position] = Some([*others.0, *others.1]);
        }
    }
}

/// The positions of all objects but those `taken`, by their keys.
fn by_key<'a>(
    key: KeyOf,
    documents: &'a [Document<'_>],
    taken: &[usize],
) -> BTreeMap<[&'a str; 4], Vec<usize>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (position, document) in documents.iter().enumerate() {
        let key = key(document);
        // What is no object has no kind.
        if !taken.contains(&position) && !key[1].is_empty() {
            found.entry(key).or_default().push(position);
        }
    }
    found
}
