//! Values against a JSON schema with helm's own verdict: helm 4 uses santhosh-tekuri/jsonschema v6 and Go's regular
//! expressions.

use std::{
    collections::BTreeSet,
    error::Error,
    mem,
    sync::{Arc, Mutex},
};

use jsonschema::{
    JsonType, PatternOptions, Retrieve, Uri, ValidationError, ValidationOptions, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::{Map, Value};

use crate::{
    machine::terminal::{did_you_mean, nearest},
    yaml::{Data, Node, Place, unquoted},
};

mod cost;
pub(crate) mod dialect;
mod format;
pub(crate) mod pattern;

/// Gets the schema at an address, if it can.
pub(crate) type Retriever = Arc<dyn Fn(&str) -> Option<Value> + Send + Sync>;

/// Of how many unknown keys in one place it's told which ones may be meant.
const MOST_SUGGESTIONS: usize = 20;

/// A schema that values can be checked against.
pub(crate) struct Schema {
    validator: Validator,
    /// As people wrote it, for messages.
    text: Value,
}

/// Why values cannot be checked against a schema.
pub(crate) enum Unusable {
    /// helm refuses the schema itself.
    Broken(String),
    /// It refers to schemas at these addresses, which are not in the cache.
    Elsewhere(BTreeSet<String>),
}

/// A value that its schema does not allow.
pub(crate) struct Fault {
    /// Keys and numbers of items, down to the value.
    pub(crate) path: Vec<String>,
    /// The key in that value which must not be there.
    pub(crate) extra: Option<String>,
    /// The key that is probably meant by that one.
    meant: Option<String>,
    /// The key in that value which is missing.
    pub(crate) missing: Option<String>,
    pub(crate) message: String,
}

impl Fault {
    fn of(err: &ValidationError, message: String) -> Fault {
        Fault {
            path: steps(err.instance_path().as_str()),
            extra: None,
            meant: None,
            missing: match err.kind() {
                ValidationErrorKind::Required { property } => Some(unquoted(property)),
                _ => None,
            },
            message,
        }
    }

    /// The place to correct: that of the extra key, or of the innermost value on the path that was set somewhere.
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
    /// `retrieve` gets the schemas that it refers to elsewhere.
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
        let options = options().with_retriever(Elsewhere {
            retrieve,
            missing: missing.clone(),
        });
        match options.build(&for_rust) {
            Ok(validator) => Ok(Schema { validator, text }),
            Err(err) => {
                let missing = mem::take(&mut *missing.lock().expect("nobody panics with it"));
                if missing.is_empty() {
                    Err(Unusable::Broken(short(&err.to_string())))
                } else {
                    Err(Unusable::Elsewhere(missing))
                }
            }
        }
    }

    /// All faults of the values. Of an encrypted value only the type is checked.
    pub(crate) fn check(&self, values: &Node) -> Vec<Fault> {
        let json = values.to_json();
        if cost::is_too_high(&self.text, &json) {
            let message = format!(
                "the schema cannot be checked: its references multiply, and would apply schemas more than {} times",
                cost::MOST
            );
            return vec![Fault {
                path: Vec::new(),
                extra: None,
                meant: None,
                missing: None,
                message,
            }];
        }
        let mut faults = Vec::new();
        for err in self.validator.iter_errors(&json) {
            self.add(&err, values, &mut faults);
        }
        without_misspelt(faults)
    }

    /// Whether a text in the place of the value at a path is no fault, or none that isn't one without it.
    pub(crate) fn takes_text(&self, values: &Node, path: &[&str], text: &str) -> bool {
        let mut quoted = values.clone();
        quoted.replace(path, Data::Text(text.into()));
        let known = self.check(values);
        let mut faults = self.check(&quoted).into_iter();
        faults.all(|it| {
            known
                .iter()
                .any(|known| known.path == it.path && known.message == it.message)
        })
    }

    fn add(&self, err: &ValidationError, values: &Node, faults: &mut Vec<Fault>) {
        if may_be_right(err, values) {
            return;
        }
        match err.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                self.add_extra_keys(err, unexpected, faults);
            }
            ValidationErrorKind::AnyOf { context }
            | ValidationErrorKind::OneOfNotValid { context } => {
                self.add_forms(err, context, values, faults);
            }
            _ => faults.push(Fault::of(err, self.message(err))),
        }
    }

    fn add_extra_keys(&self, err: &ValidationError, keys: &[String], faults: &mut Vec<Fault>) {
        // Each suggestion takes as long as there are keys.
        let known = if keys.len() > MOST_SUGGESTIONS {
            Vec::new()
        } else {
            self.siblings(err)
        };
        for key in keys {
            let meant = nearest(key, known.iter().copied());
            let message = format!("there is no key `{key}`{}", did_you_mean(meant));
            faults.push(Fault {
                extra: Some(key.clone()),
                meant: meant.map(str::to_owned),
                ..Fault::of(err, message)
            });
        }
    }

    /// Adds why a value has none of several forms. The only form of the value's own type tells more than "none of them".
    fn add_forms(
        &self,
        err: &ValidationError,
        forms: &[Vec<ValidationError<'_>>],
        values: &Node,
        faults: &mut Vec<Fault>,
    ) {
        let here = err.instance_path().as_str();
        let (other, near): (Vec<_>, Vec<_>) = forms
            .iter()
            .partition(|form| form.iter().any(|it| types_at(it, here).is_some()));
        match near[..] {
            [form] => form.iter().for_each(|it| self.add(it, values, faults)),
            [] => {
                let types = other.into_iter().flatten();
                let types = types.filter_map(|it| types_at(it, here)).flatten();
                faults.push(Fault::of(err, wrong_kind(err.instance(), types)));
            }
            _ => {
                let message = format!("it is none of the {} things that it may be", forms.len());
                faults.push(Fault::of(err, message));
            }
        }
    }

    fn message(&self, err: &ValidationError) -> String {
        match err.kind() {
            ValidationErrorKind::Required { property } => {
                format!("the key `{}` is missing", unquoted(property))
            }
            ValidationErrorKind::Type { kind } => {
                wrong_kind(err.instance(), allowed(kind).into_iter())
            }
            ValidationErrorKind::Enum { options } => {
                let value = short(&err.instance().to_string());
                format!("`{value}` isn't one of {}", quoted(options))
            }
            ValidationErrorKind::Constant { expected_value } => {
                format!("only `{}` may be here", unquoted(expected_value))
            }
            ValidationErrorKind::MinLength { limit: 1 }
            | ValidationErrorKind::MinItems { limit: 1 } => "it must not be empty".to_owned(),
            ValidationErrorKind::FalseSchema => "nothing may be set here".to_owned(),
            ValidationErrorKind::Not { schema } if schema["title"] == dialect::WITHOUT_END => {
                format!("its schema has {} here", dialect::WITHOUT_END)
            }
            ValidationErrorKind::Not { schema } if schema["description"].is_string() => {
                let value = short(&err.instance().to_string());
                let why = schema["description"].as_str().unwrap_or_default();
                format!("`{value}` isn't allowed: {}", short(why))
            }
            ValidationErrorKind::Pattern { .. } => {
                let pattern = self.keyword(err).and_then(Value::as_str);
                let value = short(&err.instance().to_string());
                format!("`{value}` doesn't match `{}`", pattern.unwrap_or_default())
            }
            _ => short(&err.masked_with("it").to_string()),
        }
    }

    /// The schema's value at the keyword that was violated.
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

/// What helm checks, and how.
fn options() -> ValidationOptions<'static> {
    let mut options = jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .with_base_uri("file:///values.schema.json")
        .without_content_encoding_support("base64")
        .without_content_media_type_support("application/json");
    for (name, check) in format::FORMATS {
        options = options.with_format(*name, *check);
    }
    // Go's library does not check the formats that it does not know.
    for name in ["idn-email", "idn-hostname"] {
        options = options.with_format(name, |_: &str| true);
    }
    options
}

/// Whether this may be an error only because the value is encrypted.
fn may_be_right(err: &ValidationError, values: &Node) -> bool {
    let path = steps(err.instance_path().as_str());
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let Some(node) = values.get(&path) else {
        return false;
    };
    if !has_encrypted(node) {
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
        kind => !is_about_shape(kind),
    }
}

fn has_encrypted(node: &Node) -> bool {
    let mut is_encrypted = false;
    node.visit(&mut |it| is_encrypted |= matches!(it.data, Data::Encrypted(_)));
    is_encrypted
}

/// Whether an error depends only on what is not encrypted: which keys and how many items there are.
fn is_about_shape(kind: &ValidationErrorKind) -> bool {
    matches!(
        kind,
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
            | ValidationErrorKind::UnevaluatedProperties { .. }
    )
}

/// The items of an `enum`, for a message.
fn quoted(options: &Value) -> String {
    let options = options.as_array().into_iter().flatten();
    let options: Vec<_> = options.map(|it| format!("`{it}`")).collect();
    options.join(", ")
}

/// Gets the schemas that a schema refers to by an address, and remembers which of them it could not get.
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
        if dialect::own_schema(url).is_none()
            && let Some(mut schema) = (self.retrieve)(url)
        {
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

/// The types that a value at this path should have, if that is the error.
fn types_at(err: &ValidationError, path: &str) -> Option<Vec<JsonType>> {
    match err.kind() {
        ValidationErrorKind::Type { kind } if err.instance_path().as_str() == path => {
            Some(allowed(kind))
        }
        _ => None,
    }
}

fn allowed(kind: &TypeKind) -> Vec<JsonType> {
    match kind {
        TypeKind::Single(kind) => vec![*kind],
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

/// Faults without the keys that are missing only because they are misspelt.
fn without_misspelt(mut faults: Vec<Fault>) -> Vec<Fault> {
    let mut meant = BTreeSet::new();
    for fault in &faults {
        meant.extend(fault.meant.clone().map(|key| (fault.path.clone(), key)));
    }
    faults.retain(|fault| {
        let missing = fault.missing.clone();
        missing.is_none_or(|key| !meant.contains(&(fault.path.clone(), key)))
    });
    faults
}

/// The beginning of a text that may be a whole chart's values.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
