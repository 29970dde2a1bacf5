//! Which parts of an object people may see.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::charts::words_of;

/// Shown for whatever is hidden.
pub(crate) const HIDDEN: &str = "***";

/// What of a value may be shown.
pub(crate) enum Visible {
    Whole,
    Nothing,
    /// Of these fields as much. `all` is false if there are others in one rendering or another.
    Fields {
        fields: BTreeMap<String, Visible>,
        all: bool,
    },
    Items(Vec<Visible>),
}

impl Visible {
    /// What a value has in common with those at the same place in two other renderings.
    pub(crate) fn compare(value: &Value, others: [&Value; 2]) -> Visible {
        if others.iter().all(|it| *it == value) {
            return Visible::Whole;
        }
        match (value, others) {
            (Value::Object(fields), [Value::Object(first), Value::Object(second)]) => {
                Visible::of_fields(fields, [first, second])
            }
            (Value::Array(items), [Value::Array(first), Value::Array(second)])
                if items.len() == first.len() && items.len() == second.len() =>
            {
                let others = first.iter().zip(second);
                let items = items.iter().zip(others);
                let visible = items.map(|(item, others)| Visible::compare(item, others.into()));
                Visible::Items(visible.collect())
            }
            _ => Visible::Nothing,
        }
    }

    fn of_fields(fields: &Map<String, Value>, others: [&Map<String, Value>; 2]) -> Visible {
        let mut visible = BTreeMap::new();
        for (key, value) in fields {
            if let [Some(first), Some(second)] = others.map(|it| it.get(key)) {
                visible.insert(key.clone(), Visible::compare(value, [first, second]));
            }
        }
        let sizes = [fields.len(), others[0].len(), others[1].len()];
        Visible::Fields {
            all: sizes.iter().all(|it| *it == visible.len()),
            fields: visible,
        }
    }

    /// The value without what may not be shown.
    pub(crate) fn apply(&self, value: &Value) -> Value {
        match (self, value) {
            (Visible::Whole, value) => value.clone(),
            (Visible::Fields { fields, all }, Value::Object(values)) => {
                let mut shown = Map::new();
                for (key, visible) in fields {
                    shown.insert(key.clone(), visible.apply(&values[key]));
                }
                if !all {
                    shown.insert(HIDDEN.to_owned(), HIDDEN.into());
                }
                Value::Object(shown)
            }
            (Visible::Items(visible), Value::Array(items)) => {
                let items = visible.iter().zip(items);
                items.map(|(visible, item)| visible.apply(item)).collect()
            }
            _ => HIDDEN.into(),
        }
    }
}

/// The keys of an object, its kind and its name, as far as they are made of these words.
pub(crate) fn outline(object: &Value, words: &BTreeSet<String>) -> Value {
    let mut outline = without_values(object, words);
    for path in ["/apiVersion", "/kind", "/metadata/name"] {
        if let Some(Value::String(text)) = object.pointer(path)
            && let Some(shown) = outline.pointer_mut(path)
        {
            *shown = known(text, words).into();
        }
    }
    outline
}

fn without_values(value: &Value, words: &BTreeSet<String>) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|it| without_values(it, words)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            let shown = fields.map(|(key, it)| (known(key, words), without_values(it, words)));
            Value::Object(shown.collect())
        }
        _ => HIDDEN.into(),
    }
}

/// A text that is made of these words.
fn known(text: &str, words: &BTreeSet<String>) -> String {
    if words_of(text).all(|it| words.contains(it)) {
        text.to_owned()
    } else {
        HIDDEN.to_owned()
    }
}
