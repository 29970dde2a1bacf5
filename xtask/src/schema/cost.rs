//! How much work values are for a schema. Schemas that refer to others twice double it with each step.

use std::{cell::RefCell, collections::HashMap, ptr};

use regex::Regex;
use serde_json::{Map, Value};

/// How often schemas may be applied to values, unless every one of them is applied to few values, as those of a long file
/// are. Real schemas stay far below it.
pub(crate) const MOST: u64 = 50_000;

/// How often a schema may be applied to one and the same value, on average, where there are more.
const MOST_REPEATED: u64 = 20;

/// How many schemas may lead to one another, through values too: each one is a call within a call.
const MAX_DEPTH: usize = 2000;

/// Keywords with schemas for the same value.
const FOR_SAME_VALUE: [&str; 9] = [
    "allOf",
    "anyOf",
    "dependencies",
    "dependentSchemas",
    "else",
    "if",
    "not",
    "oneOf",
    "then",
];

/// Whether it takes too long to check values against a schema, here and in helm.
pub(crate) fn is_too_high(schema: &Value, values: &Value) -> bool {
    let mut counter = Counter {
        root: schema,
        named: HashMap::new(),
        patterns: RefCell::default(),
        counted: HashMap::new(),
    };
    counter.name_all(schema);
    let number = counter.count(schema, values, 0);
    let different = u64::try_from(counter.counted.len()).unwrap_or(u64::MAX);
    number > MOST && number / MOST_REPEATED > different
}

struct Counter<'a> {
    root: &'a Value,
    /// Schemas by the references to their identifiers and anchors.
    named: HashMap<String, &'a Value>,
    patterns: RefCell<HashMap<&'a str, Option<Regex>>>,
    /// How often schemas are applied in all to check a value against a schema.
    counted: HashMap<(*const Value, *const Value), u64>,
}

impl<'a> Counter<'a> {
    fn name_all(&mut self, schema: &'a Value) {
        match schema {
            Value::Array(items) => items.iter().for_each(|it| self.name_all(it)),
            Value::Object(keywords) => {
                for (keyword, value) in keywords {
                    match (keyword.as_str(), value.as_str()) {
                        ("$id" | "id", Some(id)) => _ = self.named.insert(id.to_owned(), schema),
                        ("$anchor" | "$dynamicAnchor", Some(name)) => {
                            self.named.insert(format!("#{name}"), schema);
                        }
                        _ => self.name_all(value),
                    }
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, schema: &'a Value, value: &'a Value, depth: usize) -> u64 {
        let Value::Object(keywords) = schema else {
            return 1;
        };
        if depth > MAX_DEPTH {
            return u64::MAX;
        }
        let pair = (ptr::from_ref(schema), ptr::from_ref(value));
        if let Some(number) = self.counted.get(&pair) {
            return *number;
        }
        // A circle is refused elsewhere.
        self.counted.insert(pair, 1);
        let mut number: u64 = 1;
        for (keyword, below) in keywords {
            for (schema, value) in self.applied(keyword, below, keywords, value) {
                number = number.saturating_add(self.count(schema, value, depth + 1));
            }
        }
        self.counted.insert(pair, number);
        number
    }

    /// The schemas that a keyword applies to a value and to what is in it.
    fn applied(
        &self,
        keyword: &str,
        below: &'a Value,
        beside: &Map<String, Value>,
        value: &'a Value,
    ) -> Vec<(&'a Value, &'a Value)> {
        if let Value::Object(children) = value {
            let applied = self.applied_to_children(keyword, below, beside, children);
            if !applied.is_empty() {
                return applied;
            }
        }
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        match (keyword, below) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                let target = self.target(reference);
                target.map(|it| (it, value)).into_iter().collect()
            }
            (_, Value::Array(schemas)) if FOR_SAME_VALUE.contains(&keyword) => {
                schemas.iter().map(|it| (it, value)).collect()
            }
            ("dependencies" | "dependentSchemas", Value::Object(schemas)) => {
                schemas.values().map(|it| (it, value)).collect()
            }
            (_, schema) if FOR_SAME_VALUE.contains(&keyword) => vec![(schema, value)],
            ("items" | "prefixItems", Value::Array(schemas)) => schemas.iter().zip(items).collect(),
            ("items" | "contains" | "additionalItems" | "unevaluatedItems", schema) => {
                items.iter().map(|it| (schema, it)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The schemas that a keyword applies to the values of an object's keys.
    fn applied_to_children(
        &self,
        keyword: &str,
        below: &'a Value,
        beside: &Map<String, Value>,
        children: &'a Map<String, Value>,
    ) -> Vec<(&'a Value, &'a Value)> {
        let children = children.iter();
        match (keyword, below) {
            ("properties", Value::Object(schemas)) => children
                .filter_map(|(name, it)| Some((schemas.get(name)?, it)))
                .collect(),
            ("patternProperties", Value::Object(schemas)) => schemas
                .iter()
                .flat_map(|(pattern, schema)| {
                    let matching = children
                        .clone()
                        .filter(|(name, _)| self.matches(pattern, name));
                    matching.map(move |(_, it)| (schema, it))
                })
                .collect(),
            ("additionalProperties" | "unevaluatedProperties", schema) => {
                let known = beside.get("properties").unwrap_or(&Value::Null);
                children
                    .filter(|(name, _)| known.get(name).is_none())
                    .map(|(_, it)| (schema, it))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// What a reference within the schema refers to.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        let pointer = reference.strip_prefix('#').map(|it| it.replace("%20", " "));
        let target = pointer.and_then(|it| self.root.pointer(&it));
        target.or_else(|| self.named.get(reference).copied())
    }

    /// Whether a key matches a pattern; one that only Go understands may match.
    fn matches(&self, pattern: &'a str, key: &str) -> bool {
        let mut patterns = self.patterns.borrow_mut();
        let compiled = patterns.entry(pattern);
        let compiled = compiled.or_insert_with(|| Regex::new(pattern).ok());
        compiled.as_ref().is_none_or(|it| it.is_match(key))
    }
}
