//! A release's manifests as people may see them: without what comes from a secret.
//!
//! Helm's templates can turn a secret into anything, so no search finds all of it. The chart is rendered twice more, with
//! placeholders for what was decrypted, and what is not the same each time is hidden.

mod documents;
mod trials;
mod visible;

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use crate::kubernetes::manifests::{
    documents::{Document, matches},
    visible::outline,
};

pub(crate) use crate::kubernetes::manifests::{
    documents::documents,
    trials::{Disguised, Trials, render, served},
    visible::{HIDDEN, Visible},
};

/// Manifests that hold secrets: people see them through a `Rendering` only.
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

/// A release's manifests, and what tells which parts of them people may see.
pub(crate) struct Rendering {
    pub(crate) manifest: Unmasked,
    pub(crate) trials: Trials,
}

/// An object, and how much of it people may see.
pub(crate) struct VisibleObject {
    pub(crate) object: Value,
    pub(crate) visible: Visible,
}

impl Rendering {
    /// The manifests without what depends on a secret, and without the data of any Secret.
    pub(crate) fn shown(&self) -> String {
        let ours = documents(self.manifest.with_secrets());
        let mut shown = Vec::new();
        match &self.trials {
            Trials::Unneeded => shown.extend(ours.iter().map(verbatim)),
            Trials::Rendered(trials) => {
                let theirs = trials.each_ref().map(|it| documents(it));
                let beside = beside_trials(&ours, &theirs);
                shown.extend(beside.flatten().map(|(ours, theirs)| common(ours, theirs)));
                if theirs.iter().any(|it| it.len() > shown.len()) || ours.len() > shown.len() {
                    shown.push("# (objects that depend on secrets are not shown)\n".to_owned());
                }
            }
            Trials::Refused { words, .. } => {
                shown.extend(self.notice());
                shown.extend(ours.iter().map(|it| outlined(it, words)));
            }
        }
        shown.join("---\n")
    }

    /// Why so little is shown, if the chart doesn't take placeholders.
    pub(crate) fn notice(&self) -> Option<String> {
        match &self.trials {
            Trials::Refused { why, .. } => {
                Some(format!("# (only kinds, names and keys are shown: {why})\n"))
            }
            _ => None,
        }
    }

    /// All objects but hooks, with those of a `List` by themselves.
    pub(crate) fn objects(&self) -> Result<Vec<VisibleObject>> {
        let ours = documents(self.manifest.with_secrets());
        for document in &ours {
            document.check()?;
        }
        let visible = self.trials.visible(&ours);
        let mut found = Vec::new();
        for (document, visible) in ours.iter().zip(visible) {
            add_objects(document.object().cloned(), visible, &mut found);
        }
        Ok(found)
    }
}

impl Trials {
    /// How much people may see of each of these documents.
    fn visible(&self, ours: &[Document]) -> Vec<Visible> {
        match self {
            Trials::Unneeded => ours.iter().map(|_| Visible::Whole).collect(),
            Trials::Rendered(trials) => {
                let theirs = trials.each_ref().map(|it| documents(it));
                let mut visible = Vec::new();
                for beside in beside_trials(ours, &theirs) {
                    let compared = beside.map(|(ours, theirs)| compared(ours, theirs));
                    visible.push(compared.unwrap_or(Visible::Nothing));
                }
                visible
            }
            Trials::Refused { words, .. } => {
                let objects = ours.iter().map(Document::value);
                objects.map(|it| outline(&it, words)).collect()
            }
        }
    }
}

/// A manifest's objects, with those of a `List` by themselves.
pub(crate) fn objects(manifest: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in documents(manifest) {
        document.check()?;
        objects.extend(taken_apart(document.object().cloned()));
    }
    Ok(objects)
}

/// The objects of a manifest's documents that hold one of these words. The others are not read.
pub(crate) fn objects_with(manifest: &str, words: &[&str]) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for document in documents(manifest) {
        if may_hold(document.text, words) {
            document.check()?;
            found.extend(taken_apart([document.value()]));
        }
    }
    Ok(found)
}

/// Whether YAML may hold one of these words: written out, or by an escape.
pub(crate) fn may_hold(text: &str, words: &[&str]) -> bool {
    text.contains('\\') || words.iter().any(|it| text.contains(it))
}

/// Objects, with those of a `List` by themselves.
pub(crate) fn taken_apart(objects: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut found = Vec::new();
    for mut object in objects {
        let kind = object["kind"].as_str().unwrap_or_default();
        let kind = kind.strip_suffix("List").unwrap_or_default().to_owned();
        let version = object["apiVersion"].clone();
        let Some(items) = items(&mut object) else {
            found.push(object);
            continue;
        };
        // In a list of one kind, objects need not say it.
        for item in items.iter_mut().filter(|it| it.is_object()) {
            if !kind.is_empty() && item["kind"].is_null() {
                item["kind"] = kind.clone().into();
                item["apiVersion"] = version.clone();
            }
        }
        found.extend(taken_apart(items.drain(..)));
    }
    found
}

/// The namespace of an object in a manifest. An empty one counts as none, as in helm.
pub(crate) fn namespace_of<'a>(object: &'a Value, release: &'a str) -> &'a str {
    let namespace = object["metadata"]["namespace"].as_str();
    namespace.filter(|it| !it.is_empty()).unwrap_or(release)
}

/// The objects of a `List`; none if it isn't one.
fn items(object: &mut Value) -> Option<&mut Vec<Value>> {
    let is_list = object["kind"]
        .as_str()
        .is_some_and(|it| it.ends_with("List"));
    let items = object.get_mut("items").filter(|_| is_list)?;
    items.as_array_mut()
}

/// Adds an object, or those of a `List`, unless it's a hook.
fn add_objects(object: Option<Value>, visible: Visible, found: &mut Vec<VisibleObject>) {
    let Some(mut object) = object else { return };
    if let Some(items) = items(&mut object) {
        let visible = match visible {
            Visible::Fields { mut fields, .. } => fields.remove("items"),
            visible => Some(visible),
        };
        let visible = visible.unwrap_or(Visible::Nothing).items(items.len());
        for (object, visible) in items.drain(..).zip(visible) {
            found.push(VisibleObject { object, visible });
        }
    } else if !object["metadata"]["annotations"]["helm.sh/hook"].is_string() {
        found.push(VisibleObject { object, visible });
    }
}

/// A document with the same one of each trial.
type Beside<'a> = (&'a Document<'a>, [&'a Document<'a>; 2]);

/// Each document with the same one of each trial, if both have it.
fn beside_trials<'a>(
    ours: &'a [Document<'a>],
    theirs: &'a [Vec<Document<'a>>; 2],
) -> impl Iterator<Item = Option<Beside<'a>>> {
    let matches = matches(ours, [&theirs[0], &theirs[1]]);
    ours.iter().zip(matches).map(|(document, others)| {
        let [first, second] = others?;
        Some((document, [&theirs[0][first], &theirs[1][second]]))
    })
}

/// What a document has in common with the same one of the trials.
fn compared(document: &Document, others: [&Document; 2]) -> Visible {
    let is_same = |it: &&Document| it.text == document.text;
    if others.iter().all(is_same) {
        return Visible::Whole;
    }
    let others = others.map(Document::value);
    Visible::compare(&document.value(), [&others[0], &others[1]])
}

/// A document of a release that has no secrets of ours. A Secret's data are hidden all the same.
fn verbatim(document: &Document) -> String {
    if !document.text.contains("Secret") {
        return format!("{}{}\n", document.source_line(), document.text);
    }
    let Some(object) = document.object() else {
        return "# (a document that isn't YAML, and may hold a Secret)\n".to_owned();
    };
    let mut object = object.clone();
    if mask_secrets(&mut object) {
        yaml(&document.comments(), object)
    } else {
        format!("{}{}\n", document.source_line(), document.text)
    }
}

/// A document without what it doesn't have in common with the same one of the trials.
fn common(document: &Document, others: [&Document; 2]) -> String {
    let is_same = |it: &&Document| it.text == document.text && it.source == document.source;
    if others.iter().all(is_same) {
        return verbatim(document);
    }
    let mut comments = document.comments();
    if others.iter().any(|it| it.comments() != comments) {
        comments = String::new();
    }
    let mut object = compared(document, others).apply(&document.value());
    mask_secrets(&mut object);
    yaml(&comments, object)
}

/// A document without any of its values, for a chart that can't be rendered with placeholders.
fn outlined(document: &Document, words: &BTreeSet<String>) -> String {
    let object = document.value();
    yaml("", outline(&object, words).apply(&object))
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
