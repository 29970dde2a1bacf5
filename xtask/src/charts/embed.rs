//! Schemas of values as helm needs them: in JSON, and complete. helm itself would fetch what they refer to elsewhere
//! whenever it renders, and fail where it cannot.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::{charts::fetch, schema::dialect::join, settings::Settings};

/// What schemas refer to in other documents: JSON pointers by the documents' addresses.
type References = BTreeMap<String, BTreeSet<String>>;

/// Other documents by their addresses, and which parts of them a schema refers to, however indirectly.
#[derive(Default)]
struct Gathered {
    documents: BTreeMap<String, Value>,
    parts: References,
}

/// Puts into `schema` the parts of documents at other addresses that it refers to. Returns whether there are any.
pub(crate) fn embed(schema: &mut Value, settings: &Settings) -> Result<bool> {
    let gathered = gather(schema, settings)?;
    if gathered.parts.is_empty() {
        return Ok(false);
    }
    let keyword = definitions_keyword(schema);
    let root = schema
        .as_object_mut()
        .context("a schema that refers to others is an object")?;
    let definitions = root.entry(keyword).or_insert_with(|| Map::new().into());
    for (url, pointers) in &gathered.parts {
        let mut part = Map::from_iter([("$id".to_owned(), Value::from(url.as_str()))]);
        for pointer in pointers {
            copy(&gathered.documents[url], pointer, &mut part);
        }
        definitions[url] = part.into();
    }
    Ok(true)
}

fn gather(schema: &Value, settings: &Settings) -> Result<Gathered> {
    let mut gathered = Gathered::default();
    let mut left = References::new();
    references(schema, "", &mut left);
    left.remove(schema["$id"].as_str().unwrap_or_default());
    while let Some((url, pointers)) = left.pop_first() {
        if !gathered.documents.contains_key(&url) {
            let document = fetch::schema(settings, &url)?;
            gathered.documents.insert(url.clone(), document);
        }
        let document = &gathered.documents[&url];
        let known = gathered.parts.entry(url.clone()).or_default();
        for pointer in pointers {
            if known.insert(pointer.clone()) {
                let part = document.pointer(&pointer);
                let part = part.with_context(|| format!("{url} has no `#{pointer}`"))?;
                references(part, &url, &mut left);
            }
        }
    }
    Ok(gathered)
}

/// The keyword for definitions in the schema's dialect.
fn definitions_keyword(schema: &Value) -> &'static str {
    let dialect = schema["$schema"].as_str().unwrap_or("2020-12");
    if dialect.contains("2019-09") || dialect.contains("2020-12") {
        "$defs"
    } else {
        "definitions"
    }
}

/// Adds what the `$ref`s in a schema at the address `base` refer to. With an empty address, references inside the schema
/// itself are left out.
fn references(schema: &Value, base: &str, found: &mut References) {
    match schema {
        Value::Array(items) => items.iter().for_each(|it| references(it, base, found)),
        Value::Object(entries) => {
            if let Some(reference) = entries.get("$ref").and_then(Value::as_str) {
                add_reference(reference, base, found);
            }
            entries.values().for_each(|it| references(it, base, found));
        }
        _ => {}
    }
}

fn add_reference(reference: &str, base: &str, found: &mut References) {
    let (url, pointer) = reference.split_once('#').unwrap_or((reference, ""));
    let url = join(base, url);
    // The dialects themselves are known to helm.
    if url.starts_with("http") && !url.contains("//json-schema.org/") {
        found.entry(url).or_default().insert(pointer.to_owned());
    }
}

/// Copies the value at the pointer to the same place in `to`.
fn copy(from: &Value, pointer: &str, to: &mut Map<String, Value>) {
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        to.extend(from.as_object().cloned().unwrap_or_default());
        return;
    };
    let mut place = to;
    for step in parent.split('/').skip(1) {
        let next = place.entry(step).or_insert_with(|| Map::new().into());
        let Some(next) = next.as_object_mut() else {
            return;
        };
        place = next;
    }
    let mut part = from.pointer(pointer).cloned().unwrap_or_default();
    remove_descriptions(&mut part);
    place.insert(key.replace("~1", "/").replace("~0", "~"), part);
}

/// Every release keeps its charts' schemas in a Secret, which cannot be larger than a megabyte.
fn remove_descriptions(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(remove_descriptions),
        Value::Object(entries) => {
            // A property may have this name, too, and is a schema then.
            if entries.get("description").is_some_and(Value::is_string) {
                entries.remove("description");
            }
            entries.values_mut().for_each(remove_descriptions);
        }
        _ => {}
    }
}
