//! Schemas of values as helm needs them: in JSON, and with all that they refer to in them. helm itself would fetch what
//! lies elsewhere whenever it renders, and fail where that can't be had.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::{charts::fetch, schema::dialect::join, settings::Settings};

/// What a schema refers to in other documents: JSON pointers by the documents' addresses.
type Wanted = BTreeMap<String, BTreeSet<String>>;

/// Puts into `schema` what it refers to at other addresses, and no more of these documents; whether there is any.
pub(crate) fn embed(schema: &mut Value, settings: &Settings) -> Result<bool> {
    let mut documents: BTreeMap<String, Value> = BTreeMap::new();
    let mut embedded = Wanted::new();
    let mut wanted = Wanted::new();
    references(schema, "", &mut wanted);
    wanted.remove(schema["$id"].as_str().unwrap_or_default());
    while let Some((url, pointers)) = wanted.pop_first() {
        if !documents.contains_key(&url) {
            documents.insert(url.clone(), fetch::schema(settings, &url)?);
        }
        for pointer in pointers {
            if embedded
                .entry(url.clone())
                .or_default()
                .insert(pointer.clone())
            {
                let part = documents[&url].pointer(&pointer);
                references(
                    part.with_context(|| format!("{url} has no `#{pointer}`"))?,
                    &url,
                    &mut wanted,
                );
            }
        }
    }
    if embedded.is_empty() {
        return Ok(false);
    }
    let dialect = schema["$schema"].as_str().unwrap_or("2020-12");
    let key = if ["2019-09", "2020-12"].iter().any(|it| dialect.contains(it)) {
        "$defs"
    } else {
        "definitions"
    };
    let root = schema
        .as_object_mut()
        .context("a schema that refers to others is an object")?;
    let places = root.entry(key).or_insert_with(|| Map::new().into());
    for (url, pointers) in &embedded {
        let mut part = Map::from_iter([("$id".to_owned(), Value::from(url.as_str()))]);
        for pointer in pointers {
            copy(&documents[url], pointer, &mut part);
        }
        places[url] = part.into();
    }
    Ok(true)
}

/// Adds what the `$ref`s in a schema at the address `base` name; without an address those within it are left out.
fn references(schema: &Value, base: &str, found: &mut Wanted) {
    match schema {
        Value::Array(items) => items.iter().for_each(|it| references(it, base, found)),
        Value::Object(entries) => {
            if let Some(reference) = entries.get("$ref").and_then(Value::as_str) {
                let (url, pointer) = reference.split_once('#').unwrap_or((reference, ""));
                let url = join(base, url);
                // The dialects themselves are known to helm.
                if url.starts_with("http") && !url.contains("//json-schema.org/") {
                    found.entry(url).or_default().insert(pointer.to_owned());
                }
            }
            entries.values().for_each(|it| references(it, base, found));
        }
        _ => {}
    }
}

/// Copies what is at the pointer to the same place.
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

/// Every release keeps its charts' schemas in a Secret, which can't grow beyond a megabyte.
fn remove_descriptions(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(remove_descriptions),
        Value::Object(entries) => {
            // A property may be called so, too, and is a schema then.
            if entries.get("description").is_some_and(Value::is_string) {
                entries.remove("description");
            }
            entries.values_mut().for_each(remove_descriptions);
        }
        _ => {}
    }
}
