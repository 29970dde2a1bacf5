//! A release's manifests as people may see them: without what comes from a secret.
//!
//! Helm's templates can turn a secret into anything, so no search finds all of it. The chart is rendered twice more, with
//! placeholders for what was decrypted, and what is not the same each time is hidden.

mod documents;
mod trials;
mod visible;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::kubernetes::manifests::{
    documents::{Document, documents, matches},
    visible::{HIDDEN, Visible, outline},
};

pub(crate) use crate::kubernetes::manifests::trials::{Disguised, Trials, render};

/// Manifests that hold secrets: people see them through `shown` only.
pub(crate) struct Unmasked(String);

impl Unmasked {
    pub(crate) fn new(manifest: String) -> Unmasked {
        Unmasked(manifest)
    }

    /// The text, for comparing and for reading in it.
    pub(crate) fn with_secrets(&self) -> &str {
        &self.0
    }
}

/// The manifests without what depends on a secret, and without the data of any Secret.
pub(crate) fn shown(manifest: &Unmasked, trials: &Trials) -> String {
    let ours = documents(manifest.with_secrets());
    let mut shown = Vec::new();
    match trials {
        Trials::Unneeded => shown.extend(ours.iter().map(verbatim)),
        Trials::Rendered(trials) => {
            let theirs = [&trials[0], &trials[1]].map(|it| documents(it));
            let matches = matches(&ours, [&theirs[0], &theirs[1]]);
            for (document, others) in ours.iter().zip(&matches) {
                let others = others.map(|[first, second]| [&theirs[0][first], &theirs[1][second]]);
                shown.extend(others.map(|others| beside(document, others)));
            }
            if theirs.iter().any(|it| it.len() > shown.len()) || ours.len() > shown.len() {
                shown.push("# (objects that depend on secrets are not shown)\n".to_owned());
            }
        }
        Trials::Refused { why, words } => {
            shown.push(format!("# (only kinds, names and keys are shown: {why})\n"));
            shown.extend(ours.iter().map(|it| outlined(it, words)));
        }
    }
    shown.join("---\n")
}

/// A document of a release that has no secrets of ours. A Secret's data are hidden all the same.
fn verbatim(document: &Document) -> String {
    if !document.text.contains("Secret") {
        return format!("{}{}\n", document.source_line(), document.text);
    }
    let Some(object) = &document.object else {
        return "# (a document that isn't YAML, and may hold a Secret)\n".to_owned();
    };
    let mut object = object.clone();
    if mask_secrets(&mut object) {
        yaml(&document.comments(), object)
    } else {
        format!("{}{}\n", document.source_line(), document.text)
    }
}

/// A document without what the same document of two trials doesn't have in common with it.
fn beside(document: &Document, others: [&Document; 2]) -> String {
    if others
        .iter()
        .all(|it| it.text == document.text && it.source == document.source)
    {
        return verbatim(document);
    }
    let comments = document.comments();
    let comments = if others.iter().all(|it| it.comments() == comments) {
        comments
    } else {
        String::new()
    };
    let object = document.object.clone().unwrap_or_default();
    let theirs = others.map(|it| it.object.as_ref().unwrap_or(&Value::Null));
    let mut object = Visible::compare(&object, theirs).apply(&object);
    mask_secrets(&mut object);
    yaml(&comments, object)
}

/// A document without any of its values, for a chart that can't be rendered with placeholders.
fn outlined(document: &Document, words: &BTreeSet<String>) -> String {
    let object = document.object.as_ref().map(|it| outline(it, words));
    yaml("", object.unwrap_or_else(|| HIDDEN.into()))
}

/// An object in YAML, with its first keys where people look for them.
fn yaml(comments: &str, object: Value) -> String {
    let Value::Object(mut fields) = object else {
        return format!(
            "{comments}{}",
            serde_yaml::to_string(&object).unwrap_or_default()
        );
    };
    let mut ordered = serde_yaml::Mapping::new();
    for key in ["apiVersion", "kind", "metadata"] {
        if let Some(value) = fields.remove(key) {
            ordered.insert(key.into(), serde_yaml::to_value(value).unwrap_or_default());
        }
    }
    for (key, value) in fields {
        ordered.insert(key.into(), serde_yaml::to_value(value).unwrap_or_default());
    }
    format!(
        "{comments}{}",
        serde_yaml::to_string(&ordered).unwrap_or_default()
    )
}

/// Hides the data of every Secret in the value, also in a `List`. Returns whether there was one.
fn mask_secrets(value: &mut Value) -> bool {
    match value {
        Value::Array(items) => items
            .iter_mut()
            .fold(false, |found, it| mask_secrets(it) | found),
        Value::Object(fields) if fields.get("kind").is_some_and(|it| it == "Secret") => {
            for key in ["data", "stringData"] {
                if let Some(data) = fields.get_mut(key) {
                    mask_data(data);
                }
            }
            true
        }
        Value::Object(fields) => fields
            .values_mut()
            .fold(false, |found, it| mask_secrets(it) | found),
        _ => false,
    }
}

fn mask_data(data: &mut Value) {
    match data {
        Value::Object(fields) => fields.values_mut().for_each(|it| *it = HIDDEN.into()),
        Value::Null => {}
        other => *other = HIDDEN.into(),
    }
}
