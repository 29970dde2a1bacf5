//! A JSON schema as helm reads it, written so that the crate jsonschema comes to the same verdict: helm 4.3 has
//! santhosh-tekuri/jsonschema v6.0.3 and Go's regular expressions.
//!
//! Out of reach: numbers beyond a double, which helm takes, and a `$ref` to a dialect other than the schema's own.
//! Circles of references are found where these are `#` or JSON pointers, and identifiers are joined as paths are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::schema::pattern;

/// What stands in place of a reference that leads back to itself; helm refuses every value there.
pub(crate) const WITHOUT_END: &str = "a reference that leads back to itself";

/// How many schemas may apply one another to one value: the crate calls itself for each. helm has no such limit.
const MAX_DEPTH: usize = 1000;

/// Rewrites a whole document. What is returned are problems for which helm refuses it.
pub(crate) fn for_crate(schema: &mut Value) -> Vec<String> {
    let mut reader = Reader::default();
    let draft = draft(schema).unwrap_or(2020);
    reader.read(schema, "", "", draft);
    let (mut seen, mut circles) = (BTreeSet::new(), BTreeSet::new());
    let mut is_endless = false;
    for start in reader.applied.keys() {
        is_endless |= reader
            .follow(start, &mut Vec::new(), &mut seen, &mut circles)
            .is_err();
    }
    if is_endless {
        reader.problems.push(format!(
            "its references lead on more than {MAX_DEPTH} times"
        ));
    }
    for pointer in circles {
        if let Some(reference) = schema.pointer_mut(&pointer) {
            let dialect = reference.get("$schema").cloned();
            *reference = json!({"not": {"title": WITHOUT_END}});
            if let Some(dialect) = dialect {
                reference["$schema"] = dialect;
            }
        }
    }
    reader.problems
}

#[derive(Default)]
struct Reader {
    problems: Vec<String>,
    ids: BTreeSet<String>,
    /// With the identifiers that they are in.
    anchors: BTreeSet<(String, String)>,
    /// For each schema's pointer those of the schemas that hold for the same value.
    applied: BTreeMap<String, Vec<String>>,
}

impl Reader {
    fn read(&mut self, schema: &mut Value, pointer: &str, base: &str, draft: u32) {
        let Value::Object(keywords) = schema else {
            return;
        };
        let (base, draft) = self.identify(keywords, pointer, base, draft);
        // The crate doesn't know it there, and Go does.
        if draft == 2020
            && let Some(reference) = keywords.remove("$recursiveRef")
            && let Value::Array(all) = keywords.entry("allOf").or_insert_with(|| json!([]))
        {
            all.push(json!({ "$ref": reference }));
        }
        let (mut applied, mut reference) = (Vec::new(), None);
        for (keyword, value) in keywords {
            let at = format!("{pointer}/{keyword}");
            match (keyword.as_str(), value) {
                ("$ref", Value::String(text)) => {
                    if text.replace("~0", "").replace("~1", "").contains('~') {
                        self.problems
                            .push(format!("`{text}` isn't a JSON pointer: `~` has to be `~0`"));
                    }
                    *text = text.replace(' ', "%20");
                    reference = text.strip_prefix('#').map(|it| it.replace("%20", " "));
                }
                ("enum", Value::Array(items)) if draft < 2019 => {
                    let is_double = |(nth, it): (usize, &Value)| items[..nth].contains(it);
                    if items.is_empty() || items.iter().enumerate().any(is_double) {
                        self.problems
                            .push("an `enum` is empty or has something twice".to_owned());
                    }
                }
                ("pattern", Value::String(pattern)) => *pattern = self.translated(pattern, draft),
                // Whole numbers may be written as floats.
                (_, Value::Number(number)) => {
                    if let Some(float) = number
                        .as_f64()
                        .filter(|it| it.fract() == 0.0 && it.abs() < 1e15)
                    {
                        *number = (float as i64).into();
                    }
                }
                (
                    "properties" | "patternProperties" | "definitions" | "$defs" | "dependencies"
                    | "dependentSchemas",
                    Value::Object(schemas),
                ) => {
                    for (name, schema) in &mut *schemas {
                        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                        self.read(schema, &at, &base, draft);
                        if keyword.starts_with("depend") {
                            applied.push(at);
                        }
                    }
                    if keyword == "patternProperties" {
                        self.translate_keys(schemas, draft);
                    }
                }
                (
                    "additionalItems"
                    | "additionalProperties"
                    | "allOf"
                    | "anyOf"
                    | "contains"
                    | "else"
                    | "if"
                    | "items"
                    | "not"
                    | "oneOf"
                    | "prefixItems"
                    | "propertyNames"
                    | "then"
                    | "unevaluatedItems"
                    | "unevaluatedProperties",
                    value,
                ) => {
                    let is_same_value = ["allOf", "anyOf", "else", "if", "not", "oneOf", "then"]
                        .contains(&keyword.as_str());
                    let mut read = |at: String, schema: &mut Value| {
                        self.read(schema, &at, &base, draft);
                        applied.extend(is_same_value.then_some(at));
                    };
                    match value {
                        Value::Array(schemas) => {
                            schemas
                                .iter_mut()
                                .enumerate()
                                .for_each(|(nth, it)| read(format!("{at}/{nth}"), it));
                        }
                        schema => read(at, schema),
                    }
                }
                _ => {}
            }
        }
        if draft < 2019 && reference.is_some() {
            applied.clear();
        }
        applied.extend(reference);
        self.applied.insert(pointer.to_owned(), applied);
    }

    /// Takes the names down that a schema has for itself. Returns its address and dialect.
    fn identify(
        &mut self,
        keywords: &mut Map<String, Value>,
        pointer: &str,
        base: &str,
        before: u32,
    ) -> (String, u32) {
        let draft = draft_of(keywords).unwrap_or(before);
        let text = |keyword| {
            keywords
                .get(keyword)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        // Draft 4 has other words for it, and up to draft 7 nothing counts beside a reference.
        let id = match draft {
            ..2019 if keywords.contains_key("$ref") => String::new(),
            4 => text("id"),
            _ => text("$id"),
        };
        // The second may repeat the first.
        let anchors = BTreeSet::from([text("$anchor"), text("$dynamicAnchor")]);
        let (id, fragment) = id.split_once('#').unwrap_or((&id, ""));
        if id.is_empty() && !pointer.is_empty() {
            // Which Go doesn't look at there.
            keywords.remove("$schema");
        }
        let draft = if id.is_empty() && !pointer.is_empty() {
            before
        } else {
            draft
        };
        let base = join(base, id);
        if !id.is_empty() && !self.ids.insert(base.clone()) {
            self.problems
                .push(format!("two schemas have the identifier `{id}`"));
        }
        let anchors = match draft {
            ..2019 if fragment.starts_with('/') => BTreeSet::new(),
            ..2019 => BTreeSet::from([fragment.to_owned()]),
            _ => anchors,
        };
        for anchor in anchors.into_iter().filter(|it| !it.is_empty()) {
            if !self.anchors.insert((base.clone(), anchor.clone())) {
                self.problems
                    .push(format!("two schemas have the anchor `{anchor}`"));
            }
        }
        (base, draft)
    }

    /// Adds the schemas whose `$ref` closes a circle. The error is a path that is too long.
    fn follow<'a>(
        &'a self,
        at: &'a str,
        path: &mut Vec<&'a str>,
        seen: &mut BTreeSet<&'a str>,
        circles: &mut BTreeSet<String>,
    ) -> Result<(), ()> {
        if path.len() > MAX_DEPTH {
            return Err(());
        }
        if let Some(start) = path.iter().position(|it| *it == at) {
            let circle = &path[start..];
            let is_reference = |(from, to): &(&&str, &&str)| !to.starts_with(&format!("{from}/"));
            let closing = circle
                .iter()
                .zip(circle[1..].iter().chain([&at]))
                .filter(is_reference)
                .last();
            circles.extend(closing.map(|(from, _)| (*from).to_owned()));
        } else if seen.insert(at) {
            path.push(at);
            for next in self.applied.get(at).into_iter().flatten() {
                self.follow(next, path, seen, circles)?;
            }
            path.pop();
        }
        Ok(())
    }

    fn translated(&mut self, pattern: &str, draft: u32) -> String {
        match pattern::to_rust(pattern) {
            // In these dialects the crate wants ECMAScript's expressions: letters beyond ASCII count as parts of words there.
            Ok(rust) if draft < 2019 => {
                rust.replace(r"(?-u:\b)", r"\b").replace(r"(?-u:\B)", r"\B")
            }
            Ok(rust) => rust,
            Err(why) => {
                self.problems
                    .push(format!("helm can't use the pattern `{pattern}`: {why}"));
                String::new()
            }
        }
    }

    /// Patterns that differ may be one when they are translated.
    fn translate_keys(&mut self, schemas: &mut Map<String, Value>, draft: u32) {
        for (pattern, schema) in std::mem::take(schemas) {
            let pattern = self.translated(&pattern, draft);
            let both = match schemas.remove(&pattern) {
                Some(other) => json!({ "allOf": [other, schema] }),
                None => schema,
            };
            schemas.insert(pattern, both);
        }
    }
}

/// The dialect that `$schema` names.
fn draft(schema: &Value) -> Option<u32> {
    draft_of(schema.as_object()?)
}

fn draft_of(keywords: &Map<String, Value>) -> Option<u32> {
    let dialects = [
        ("draft-04/", 4),
        ("draft-06/", 6),
        ("draft-07/", 7),
        ("draft/2019-09/", 2019),
        ("draft/2020-12/", 2020),
    ];
    let name = keywords.get("$schema")?.as_str()?;
    dialects
        .into_iter()
        .find_map(|(part, draft)| name.contains(part).then_some(draft))
}

/// The address that one without a fragment means in a document at `base`.
pub(crate) fn join(base: &str, url: &str) -> String {
    match base.rsplit_once('/') {
        _ if url.is_empty() => base.to_owned(),
        Some((folder, _)) if !url.contains(':') => format!("{folder}/{url}"),
        _ => url.to_owned(),
    }
}
