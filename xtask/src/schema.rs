//! Values against a JSON schema with helm's own verdict: helm 4 uses santhosh-tekuri/jsonschema v6 and Go's regular
//! expressions.

use std::{
    collections::BTreeSet,
    error::Error,
    sync::{Arc, Mutex},
};

use jsonschema::{
    JsonType, PatternOptions, Retrieve, Uri, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::{Map, Value};

use crate::yaml::{Data, Node, Place};

pub(crate) mod dialect;
mod format;
pub(crate) mod pattern;

/// The schema at an address, if it can be had.
pub(crate) type Retriever = Arc<dyn Fn(&str) -> Option<Value> + Send + Sync>;

/// A schema, ready to be held against values.
pub(crate) struct Schema {
    validator: Validator,
    /// As people wrote it, for messages.
    text: Value,
}

/// Why values can't be held against a schema.
pub(crate) enum Unusable {
    /// helm refuses the schema itself.
    Broken(String),
    /// It refers to what lies at these addresses, and not in the cache.
    Elsewhere(BTreeSet<String>),
}

/// What in values isn't as a schema has it.
pub(crate) struct Fault {
    /// Keys and numbers of items, down to the value.
    pub(crate) path: Vec<String>,
    /// The key in that value which is too much.
    pub(crate) extra: Option<String>,
    /// Whether it is about what isn't there.
    pub(crate) is_lack: bool,
    pub(crate) message: String,
}

impl Fault {
    /// Where to mend it: the key that is too much, or the innermost value on the way that was set somewhere.
    pub(crate) fn place(&self, values: &Node) -> Option<Place> {
        let mut path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        if let Some(extra) = &self.extra {
            path.push(extra);
            if let Some(node) = values.get(&path) {
                return node.key_at.or(node.at);
            }
        }
        (0..=path.len())
            .rev()
            .find_map(|end| values.get(&path[..end])?.at)
    }
}

impl Schema {
    /// `retrieve` has what it refers to elsewhere.
    pub(crate) fn compile(text: Value, retrieve: Retriever) -> Result<Schema, Unusable> {
        let mut for_rust = text.clone();
        let mut problems = dialect::for_crate(&mut for_rust);
        if text["$schema"] == "" {
            problems.push("`$schema` is empty".to_owned());
        }
        if !problems.is_empty() {
            return Err(Unusable::Broken(problems.join("\n")));
        }
        let missing = Arc::new(Mutex::new(BTreeSet::new()));
        let elsewhere = Elsewhere {
            retrieve,
            missing: missing.clone(),
        };
        let mut options = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .with_retriever(elsewhere)
            .with_base_uri("file:///values.schema.json")
            .without_content_encoding_support("base64")
            .without_content_media_type_support("application/json");
        for (name, check) in format::FORMATS {
            options = options.with_format(*name, *check);
        }
        // What Go's library doesn't know it doesn't check.
        for name in ["idn-email", "idn-hostname"] {
            options = options.with_format(name, |_: &str| true);
        }
        match options.build(&for_rust) {
            Ok(validator) => Ok(Schema { validator, text }),
            Err(err) => {
                let missing = std::mem::take(&mut *missing.lock().expect("nobody panics with it"));
                match missing.is_empty() {
                    true => Err(Unusable::Broken(short(&err.to_string()))),
                    false => Err(Unusable::Elsewhere(missing)),
                }
            }
        }
    }

    /// All faults of the values. An encrypted value is held to its type alone.
    pub(crate) fn check(&self, values: &Node) -> Vec<Fault> {
        let json = values.to_json();
        let mut faults = Vec::new();
        for err in self.validator.iter_errors(&json) {
            self.add(&err, values, &mut faults);
        }
        faults
    }

    fn add(&self, err: &ValidationError, values: &Node, faults: &mut Vec<Fault>) {
        if may_be_right(err, values) {
            return;
        }
        let path = steps(err.instance_path().as_str());
        let mut add = |extra: Option<&String>, message: String| {
            let is_lack = matches!(err.kind(), ValidationErrorKind::Required { .. });
            faults.push(Fault {
                path: path.clone(),
                extra: extra.cloned(),
                is_lack,
                message,
            });
        };
        match err.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let known = self.siblings(err);
                for key in unexpected {
                    add(
                        Some(key),
                        format!("there is no key `{key}`{}", meant(key, &known)),
                    );
                }
            }
            ValidationErrorKind::Required { property } => {
                add(
                    None,
                    format!(
                        "the key `{}` is missing",
                        property.as_str().unwrap_or_default()
                    ),
                );
            }
            ValidationErrorKind::Type { kind } => {
                add(None, wrong_kind(err.instance(), allowed(kind).into_iter()));
            }
            ValidationErrorKind::Enum { options } => {
                let options = options
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|it| format!("`{it}`"));
                add(
                    None,
                    format!(
                        "`{}` isn't one of {}",
                        short(&err.instance().to_string()),
                        options.collect::<Vec<_>>().join(", ")
                    ),
                );
            }
            ValidationErrorKind::Constant { expected_value } => {
                let text = expected_value
                    .as_str()
                    .map_or_else(|| expected_value.to_string(), str::to_owned);
                add(None, format!("only `{text}` may be here"));
            }
            ValidationErrorKind::FalseSchema => {
                add(None, "nothing may be set here".to_owned());
            }
            ValidationErrorKind::Not { schema } if schema["title"] == dialect::WITHOUT_END => {
                add(
                    None,
                    format!("its schema has {} here", dialect::WITHOUT_END),
                );
            }
            ValidationErrorKind::Pattern { .. } => {
                let pattern = self
                    .keyword(err)
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                add(
                    None,
                    format!(
                        "`{}` doesn't match `{pattern}`",
                        short(&err.instance().to_string())
                    ),
                );
            }
            ValidationErrorKind::AnyOf { context }
            | ValidationErrorKind::OneOfNotValid { context } => {
                // The one form that is of the value's own type tells more than "none of them".
                let here = err.instance_path().as_str();
                let is_other = |it: &ValidationError| {
                    it.instance_path().as_str() == here
                        && matches!(it.kind(), ValidationErrorKind::Type { .. })
                };
                let (other, near): (Vec<_>, Vec<_>) =
                    context.iter().partition(|it| it.iter().any(is_other));
                match near[..] {
                    [one] => one.iter().for_each(|it| self.add(it, values, faults)),
                    [] => {
                        let kinds = other
                            .into_iter()
                            .flatten()
                            .filter(|it| is_other(it))
                            .filter_map(|it| match it.kind() {
                                ValidationErrorKind::Type { kind } => Some(allowed(kind)),
                                _ => None,
                            });
                        add(None, wrong_kind(err.instance(), kinds.flatten()));
                    }
                    _ => add(
                        None,
                        format!("it is none of the {} things that it may be", context.len()),
                    ),
                }
            }
            _ => add(None, short(&err.masked_with("it").to_string())),
        }
    }

    /// What stands at the keyword that was violated.
    fn keyword(&self, err: &ValidationError) -> Option<&Value> {
        self.text.pointer(err.schema_path().as_str())
    }

    /// The keys that the schema knows beside an unexpected one.
    fn siblings(&self, err: &ValidationError) -> Vec<&str> {
        let path = err.schema_path().as_str();
        let parent = path
            .rsplit_once('/')
            .and_then(|(parent, _)| self.text.pointer(parent));
        let properties = parent
            .and_then(|it| it.get("properties"))
            .and_then(Value::as_object);
        properties
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
            .collect()
    }
}

/// Whether this can be an error only because an encrypted value stands for another one.
fn may_be_right(err: &ValidationError, values: &Node) -> bool {
    let path = steps(err.instance_path().as_str());
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let Some(node) = values.get(&path) else {
        return false;
    };
    let mut is_encrypted = false;
    node.visit(&mut |it| is_encrypted |= matches!(it.data, Data::Encrypted(_)));
    if !is_encrypted {
        return false;
    }
    match err.kind() {
        // A float may be a whole number.
        ValidationErrorKind::Type { kind } => {
            matches!(node.data, Data::Encrypted("float"))
                && allowed(kind).contains(&JsonType::Integer)
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            context
                .iter()
                .any(|form| form.iter().all(|it| may_be_right(it, values)))
        }
        ValidationErrorKind::AdditionalItems { .. }
        | ValidationErrorKind::AdditionalProperties { .. }
        | ValidationErrorKind::FalseSchema
        | ValidationErrorKind::MaxItems { .. }
        | ValidationErrorKind::MaxProperties { .. }
        | ValidationErrorKind::MinItems { .. }
        | ValidationErrorKind::MinProperties { .. }
        | ValidationErrorKind::PropertyNames { .. }
        | ValidationErrorKind::Required { .. }
        | ValidationErrorKind::UnevaluatedItems { .. }
        | ValidationErrorKind::UnevaluatedProperties { .. } => false,
        _ => true,
    }
}

/// What a schema refers to by an address.
struct Elsewhere {
    retrieve: Retriever,
    missing: Arc<Mutex<BTreeSet<String>>>,
}

impl Retrieve for Elsewhere {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let url = uri.as_str();
        // helm takes one that nobody resolves as a schema that allows everything.
        if url.starts_with("urn:") {
            return Ok(Value::Bool(true));
        }
        if !url.starts_with("http") {
            return Err(format!("`{url}` can't be read from a chart").into());
        }
        if let Some(mut schema) = (self.retrieve)(url) {
            dialect::for_crate(&mut schema);
            return Ok(schema);
        }
        self.missing
            .lock()
            .expect("nobody panics with it")
            .insert(url.to_owned());
        Err("it isn't in the cache".into())
    }
}

/// A JSON pointer's steps.
fn steps(pointer: &str) -> Vec<String> {
    pointer
        .split('/')
        .skip(1)
        .map(|it| it.replace("~1", "/").replace("~0", "~"))
        .collect()
}

fn allowed(kind: &TypeKind) -> Vec<JsonType> {
    match kind {
        TypeKind::Single(one) => vec![*one],
        TypeKind::Multiple(several) => several.iter().collect(),
    }
}

fn name_of(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Array => "a list",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "an integer",
        JsonType::Null => "null",
        JsonType::Number => "a number",
        JsonType::Object => "a map",
        JsonType::String => "a string",
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "a list",
        Value::Bool(_) => "a boolean",
        Value::Null => "null",
        Value::Number(_) => "a number",
        Value::Object(_) => "a map",
        Value::String(_) => "a string",
    }
}

fn wrong_kind(found: &Value, wanted: impl Iterator<Item = JsonType>) -> String {
    let mut names: Vec<_> = wanted.map(name_of).collect();
    names.dedup();
    let last = names.pop().unwrap_or_default();
    let before = if names.is_empty() {
        String::new()
    } else {
        format!("{} or ", names.join(", "))
    };
    format!("it is {}, and must be {before}{last}", kind_of(found))
}

fn meant(key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|it| (strsim::osa_distance(key, it), it));
    let nearest = near
        .filter(|(distance, it)| distance * 3 <= key.len().max(it.len()))
        .min();
    nearest.map_or_else(String::new, |(_, it)| format!(": did you mean `{it}`?"))
}

/// A text that may be a whole chart's values, for one line.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
