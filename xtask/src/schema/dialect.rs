//! A JSON schema as helm reads it, written so that the crate jsonschema comes to the same verdict: helm 4.3 has
//! santhosh-tekuri/jsonschema v6.0.3 and Go's regular expressions.
//!
//! Out of reach: numbers beyond a double, which helm takes, and a `$ref` to a dialect other than the schema's own.
//! Circles of references are found where these are `#` or JSON pointers, and identifiers are joined as paths are.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Map, Number, Value, json};

use crate::schema::pattern;

/// Replaces a reference that leads back to itself; helm refuses every value there.
pub(crate) const WITHOUT_END: &str = "a reference that leads back to itself";

/// How many schemas may apply one another to one value: the crate calls itself for each. helm has no such limit.
const MAX_DEPTH: usize = 1000;

/// Keywords that hold for the same value as the schema they are in.
const FOR_SAME_VALUE: [&str; 7] = ["allOf", "anyOf", "else", "if", "not", "oneOf", "then"];

/// Keywords with a schema, or with several, for a part of the value.
const FOR_PARTS: [&str; 8] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "items",
    "prefixItems",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords with schemas by names.
const BY_NAME: [&str; 6] = [
    "properties",
    "patternProperties",
    "definitions",
    "$defs",
    "dependencies",
    "dependentSchemas",
];

/// Rewrites a whole document. Returns the problems for which helm refuses it.
pub(crate) fn for_crate(schema: &mut Value) -> Vec<String> {
    let mut reader = Reader::default();
    let scope = Scope {
        base: String::new(),
        draft: draft(schema).unwrap_or(2020),
    };
    reader.read(schema, "", &scope);
    for pointer in reader.find_circles() {
        if let Some(reference) = schema.pointer_mut(&pointer) {
            refuse_everything(reference);
        }
    }
    reader.problems
}

/// Replaces a reference that leads back to itself.
fn refuse_everything(reference: &mut Value) {
    let dialect = reference.get("$schema").cloned();
    *reference = json!({"not": {"title": WITHOUT_END}});
    if let Some(dialect) = dialect {
        reference["$schema"] = dialect;
    }
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

/// What a schema passes on to the schemas in it.
struct Scope {
    /// Its address.
    base: String,
    /// Its dialect: 4, 6, 7, 2019 or 2020.
    draft: u32,
}

impl Reader {
    fn read(&mut self, schema: &mut Value, pointer: &str, around: &Scope) {
        let Value::Object(keywords) = schema else {
            return;
        };
        if let Some(Value::String(url)) = keywords.get_mut("$schema")
            && let Some(known) = own_schema(url)
        {
            *url = known;
        }
        let scope = self.identify(keywords, pointer, around);
        if scope.draft == 2020 {
            replace_recursive_reference(keywords);
        }
        let mut applied = Vec::new();
        let mut reference = None;
        for (keyword, value) in keywords {
            if let ("$ref", Value::String(text)) = (keyword.as_str(), &mut *value) {
                reference = self.reference(text, scope.draft);
            } else {
                let at = format!("{pointer}/{keyword}");
                applied.extend(self.read_keyword(keyword, value, at, &scope));
            }
        }
        if scope.draft < 2019 && reference.is_some() {
            applied.clear();
        }
        applied.extend(reference);
        self.applied.insert(pointer.to_owned(), applied);
    }

    /// Reads what a keyword other than `$ref` has. Returns the pointers of the schemas in it that hold for the same value.
    fn read_keyword(
        &mut self,
        keyword: &str,
        value: &mut Value,
        at: String,
        scope: &Scope,
    ) -> Vec<String> {
        match (keyword, value) {
            ("enum", Value::Array(items)) if scope.draft < 2019 => self.check_enum(items),
            ("pattern", Value::String(text)) => *text = self.translated(text, scope.draft),
            (_, Value::Number(number)) => make_whole(number),
            (_, Value::Object(schemas)) if BY_NAME.contains(&keyword) => {
                let read = self.read_named(keyword, schemas, &at, scope);
                if keyword.starts_with("depend") {
                    return read;
                }
            }
            (_, value) if FOR_SAME_VALUE.contains(&keyword) => {
                return self.read_all(value, at, scope);
            }
            (_, value) if FOR_PARTS.contains(&keyword) => _ = self.read_all(value, at, scope),
            _ => {}
        }
        Vec::new()
    }

    /// Rewrites a `$ref`. Returns the pointer in it if it refers to this document.
    fn reference(&mut self, text: &mut String, draft: u32) -> Option<String> {
        if text.replace("~0", "").replace("~1", "").contains('~') {
            self.problems
                .push(format!("`{text}` isn't a JSON pointer: `~` has to be `~0`"));
        }
        *text = text.replace(' ', "%20");
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        if let Some(known) = own_schema(url) {
            let url = if draft_named(&known) == Some(draft) {
                known
            } else {
                unknown(&known)
            };
            *text = format!("{url}#{fragment}");
        }
        text.strip_prefix('#').map(|it| it.replace("%20", " "))
    }

    fn check_enum(&mut self, items: &[Value]) {
        let different: HashSet<&Value> = items.iter().collect();
        if items.is_empty() || different.len() < items.len() {
            self.problems
                .push("an `enum` is empty or has something twice".to_owned());
        }
    }

    /// Reads schemas by names. Returns their pointers.
    fn read_named(
        &mut self,
        keyword: &str,
        schemas: &mut Map<String, Value>,
        at: &str,
        scope: &Scope,
    ) -> Vec<String> {
        let mut pointers = Vec::new();
        for (name, schema) in &mut *schemas {
            let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            self.read(schema, &at, scope);
            pointers.push(at);
        }
        if keyword == "patternProperties" {
            self.translate_keys(schemas, scope.draft);
        }
        pointers
    }

    /// Reads a schema, or a list of schemas. Returns their pointers.
    fn read_all(&mut self, value: &mut Value, at: String, scope: &Scope) -> Vec<String> {
        let Value::Array(schemas) = value else {
            self.read(value, &at, scope);
            return vec![at];
        };
        let mut pointers = Vec::new();
        for (nth, schema) in schemas.iter_mut().enumerate() {
            let at = format!("{at}/{nth}");
            self.read(schema, &at, scope);
            pointers.push(at);
        }
        pointers
    }

    /// Notes the names that a schema has for itself.
    fn identify(
        &mut self,
        keywords: &mut Map<String, Value>,
        pointer: &str,
        around: &Scope,
    ) -> Scope {
        let draft = draft_of(keywords).unwrap_or(around.draft);
        let id = identifier(keywords, draft);
        let (id, fragment) = id.split_once('#').unwrap_or((&id, ""));
        let is_part = id.is_empty() && !pointer.is_empty();
        if is_part {
            // Go does not look at it there.
            keywords.remove("$schema");
        }
        let scope = Scope {
            base: join(&around.base, id),
            draft: if is_part { around.draft } else { draft },
        };
        self.note_id(id, &scope.base);
        for anchor in anchors(keywords, fragment, scope.draft) {
            self.note_anchor(anchor, &scope.base);
        }
        scope
    }

    fn note_id(&mut self, id: &str, base: &str) {
        if !id.is_empty() && !self.ids.insert(base.to_owned()) {
            self.problems
                .push(format!("two schemas have the identifier `{id}`"));
        }
    }

    fn note_anchor(&mut self, anchor: &str, base: &str) {
        let is_new = self.anchors.insert((base.to_owned(), anchor.to_owned()));
        if !is_new {
            self.problems
                .push(format!("two schemas have the anchor `{anchor}`"));
        }
    }

    /// The pointers of the schemas whose `$ref` closes a circle.
    fn find_circles(&mut self) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut circles = BTreeSet::new();
        let mut is_endless = false;
        for start in self.applied.keys() {
            is_endless |= self
                .follow(start, &mut Vec::new(), &mut seen, &mut circles)
                .is_err();
        }
        if is_endless {
            self.problems.push(format!(
                "its references lead on more than {MAX_DEPTH} times"
            ));
        }
        circles
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
            circles.extend(closing_reference(&path[start..]).map(str::to_owned));
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

/// The last schema in a circle that leads on by its `$ref`, and not to a schema in it.
fn closing_reference<'a>(circle: &[&'a str]) -> Option<&'a str> {
    let nexts = circle.iter().cycle().skip(1);
    let mut closing = None;
    for (from, to) in circle.iter().zip(nexts) {
        if !to.starts_with(&format!("{from}/")) {
            closing = Some(*from);
        }
    }
    closing
}

/// The crate does not know `$recursiveRef` in draft 2020-12, and Go does.
fn replace_recursive_reference(keywords: &mut Map<String, Value>) {
    if let Some(reference) = keywords.remove("$recursiveRef")
        && let Value::Array(all) = keywords.entry("allOf").or_insert_with(|| json!([]))
    {
        all.push(json!({ "$ref": reference }));
    }
}

/// Whole numbers may be written as floats.
fn make_whole(number: &mut Number) {
    let float = number.as_f64();
    if let Some(float) = float.filter(|it| it.fract() == 0.0 && it.abs() < 1e15) {
        *number = (float as i64).into();
    }
}

/// The identifier that a schema gives itself, or an empty one. Draft 4 has another word for it, and up to draft 7 nothing
/// counts beside a reference.
fn identifier(keywords: &Map<String, Value>, draft: u32) -> String {
    match draft {
        ..2019 if keywords.contains_key("$ref") => String::new(),
        4 => text(keywords, "id").to_owned(),
        _ => text(keywords, "$id").to_owned(),
    }
}

/// The anchors of a schema: up to draft 7 the fragment of its identifier.
fn anchors<'a>(
    keywords: &'a Map<String, Value>,
    fragment: &'a str,
    draft: u32,
) -> BTreeSet<&'a str> {
    let mut anchors = match draft {
        ..2019 if fragment.starts_with('/') => BTreeSet::new(),
        ..2019 => BTreeSet::from([fragment]),
        // The second may repeat the first.
        _ => BTreeSet::from([text(keywords, "$anchor"), text(keywords, "$dynamicAnchor")]),
    };
    anchors.remove("");
    anchors
}

fn text<'a>(keywords: &'a Map<String, Value>, keyword: &str) -> &'a str {
    let value = keywords.get(keyword).and_then(Value::as_str);
    value.unwrap_or_default()
}

/// The dialect that `$schema` names.
fn draft(schema: &Value) -> Option<u32> {
    draft_of(schema.as_object()?)
}

/// The address by which the crate has a dialect's own schema. helm takes it by other spellings, too: with http or https, with
/// an empty fragment, and without a dialect's name, which means the newest one.
pub(crate) fn own_schema(url: &str) -> Option<String> {
    let (scheme, rest) = url.strip_suffix('#').unwrap_or(url).split_once("://")?;
    let path = rest.strip_prefix("json-schema.org/")?;
    if !["http", "https"].contains(&scheme) {
        return None;
    }
    match path {
        "schema" => Some("https://json-schema.org/draft/2020-12/schema".to_owned()),
        "draft-04/schema" | "draft-06/schema" | "draft-07/schema" => {
            Some(format!("http://json-schema.org/{path}"))
        }
        _ if path.starts_with("draft/2019-09/") || path.starts_with("draft/2020-12/") => {
            Some(format!("https://json-schema.org/{path}"))
        }
        _ => None,
    }
}

/// Another spelling of such an address, which the crate asks for: it has the schemas of one dialect at a time, and calls it
/// an error where it expects that of another one.
fn unknown(known: &str) -> String {
    match known.strip_prefix("https") {
        Some(rest) => format!("http{rest}"),
        None => known.replacen("http", "https", 1),
    }
}

fn draft_of(keywords: &Map<String, Value>) -> Option<u32> {
    draft_named(keywords.get("$schema")?.as_str()?)
}

/// The dialect that an address names.
fn draft_named(url: &str) -> Option<u32> {
    let dialects = [
        ("draft-04/", 4),
        ("draft-06/", 6),
        ("draft-07/", 7),
        ("draft/2019-09/", 2019),
        ("draft/2020-12/", 2020),
    ];
    dialects
        .into_iter()
        .find_map(|(part, draft)| url.contains(part).then_some(draft))
}

/// The address that one without a fragment means in a document at `base`.
pub(crate) fn join(base: &str, url: &str) -> String {
    match base.rsplit_once('/') {
        _ if url.is_empty() => base.to_owned(),
        Some((folder, _)) if !url.contains(':') => format!("{folder}/{url}"),
        _ => url.to_owned(),
    }
}
