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

    /// Shows what is at this path, if its keys are visible.
    fn show(&mut self, path: &[&str]) {
        match (path, self) {
            ([], visible) => *visible = Visible::Whole,
            ([key, rest @ ..], Visible::Fields { fields, .. }) => {
                if let Some(visible) = fields.get_mut(*key) {
                    visible.show(rest);
                }
            }
            _ => {}
        }
    }

    /// Whether an object's name may be shown.
    pub(crate) fn shows_name(&self) -> bool {
        let name = ["metadata", "name"]
            .iter()
            .try_fold(self, |it, key| it.field(key));
        matches!(name, Some(Visible::Whole))
    }

    /// How much of a field may be shown; none if its key may not.
    pub(crate) fn field(&self, key: &str) -> Option<&Visible> {
        match self {
            Visible::Whole => Some(self),
            Visible::Fields { fields, .. } => fields.get(key),
            _ => None,
        }
    }

    /// How much may be shown of each of so many items.
    pub(crate) fn items(self, length: usize) -> Vec<Visible> {
        match self {
            Visible::Items(items) => items,
            Visible::Whole => (0..length).map(|_| Visible::Whole).collect(),
            _ => (0..length).map(|_| Visible::Nothing).collect(),
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
pub(crate) fn outline(object: &Value, words: &BTreeSet<String>) -> Visible {
    let mut outline = keys_of(object, words);
    for path in [&["apiVersion"][..], &["kind"], &["metadata", "name"]] {
        let value = path.iter().fold(object, |it, key| &it[*key]);
        if value.as_str().is_some_and(|it| is_known(it, words)) {
            outline.show(path);
        }
    }
    outline
}

fn keys_of(value: &Value, words: &BTreeSet<String>) -> Visible {
    match value {
        Value::Array(items) => Visible::Items(items.iter().map(|it| keys_of(it, words)).collect()),
        Value::Object(fields) => {
            let known = fields.iter().filter(|(key, _)| is_known(key, words));
            let visible = known.map(|(key, it)| (key.clone(), keys_of(it, words)));
            let visible: BTreeMap<_, _> = visible.collect();
            Visible::Fields {
                all: visible.len() == fields.len(),
                fields: visible,
            }
        }
        _ => Visible::Nothing,
    }
}

/// Whether a text is made of these words.
fn is_known(text: &str, words: &BTreeSet<String>) -> bool {
    words_of(text).all(|it| words.contains(it))
}
