//! What a deploy would change in a cluster: its live objects beside those that the API server would make of the new ones,
//! so that changes by hand show, too. Of secrets it shows where they differ, and never what they are.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use similar::TextDiff;

use crate::{
    charts::words_of,
    kubernetes::{
        api::Api,
        applied, history,
        manifests::{self, HIDDEN, Rendering, Visible, VisibleObject},
        resources::Resources,
        volumes,
    },
    repository::hub_traits::PlainValues,
    secrets::Mask,
    yaml::{self, unquoted},
};

/// Where a Secret has its data.
const DATA: [&str; 2] = ["data", "stringData"];

/// Compares a release's manifest with the cluster.
pub(crate) struct Differ<'a> {
    api: &'a Api,
    /// Finds the secrets of files and of the newest revision.
    mask: Mask,
    /// Those of that revision that no plain file sets now, and their words of four characters or more: a value that nothing
    /// vouches for may hold a part of one.
    doubtful: BTreeSet<String>,
    /// What that revision made; empty if there is none.
    deployed: String,
    /// The name of the release and of its namespace.
    release: &'a str,
    /// What a Secret may show.
    plain: &'a PlainValues,
    resources: Resources<'a>,
}

/// Two versions of an object for people. One that doesn't exist is empty.
struct Versions {
    old: String,
    new: String,
}

/// The same place in two versions of an object.
#[derive(Clone, Copy)]
struct Place<'a> {
    old: &'a Value,
    new: &'a Value,
    /// What helm makes there, and how much of it is visible; none if it makes nothing.
    rendered: &'a Value,
    visible: Option<&'a Visible>,
    /// Whether it is in a Secret's data, where values are hidden already.
    holds_data: bool,
}

impl<'a> Differ<'a> {
    pub(crate) fn new(
        api: &'a Api,
        mask: &Mask,
        release: &'a str,
        plain: &'a PlainValues,
    ) -> Result<Differ<'a>> {
        let newest = history::last(api, release)?;
        let content = newest.map(|it| it.content(api)).transpose()?;
        let content = content.unwrap_or_default();
        let long = history::secret_texts(&content, |path, value| plain.has_at(path, value));
        let unset = history::secrets(&content, |path, _| plain.sets(path));
        Ok(Differ {
            api,
            mask: mask.and(long),
            doubtful: parts(&unset),
            deployed: text(&content["manifest"]).to_owned(),
            release,
            plain,
            resources: Resources::new(api),
        })
    }

    /// The differences that a manifest makes, object by object; empty if it makes none.
    pub(crate) fn diff(&self, rendering: &Rendering) -> Result<String> {
        let mut text = String::new();
        let mut paths = BTreeSet::new();
        for VisibleObject { object, visible } in rendering.objects()? {
            let name = name(&object, visible.shows_name());
            let Some(path) = self.path(&object)? else {
                let versions = self.versions(&Value::Null, &object, &object, Some(&visible));
                text += &unified(&name, &versions);
                continue;
            };
            let live = self.api.find(&path)?.unwrap_or_default();
            let wanted = applied::as_helm_has_it(object.clone(), self.release);
            let applied = applied::try_apply(self.api, &path, wanted);
            let applied = applied.with_context(|| format!("`{name}`"))?;
            let versions = self.versions(&live, &applied, &object, Some(&visible));
            text += &unified(&name, &versions);
            paths.insert(path);
        }
        text += &self.removed(paths)?;
        if let Some(notice) = rendering.notice().filter(|_| !text.is_empty()) {
            text = notice + &text;
        }
        Ok(text)
    }

    /// The differences of the objects that a deploy removes: those of the newest revision that are not at these paths.
    fn removed(&self, mut paths: BTreeSet<String>) -> Result<String> {
        let mut text = String::new();
        for object in manifests::objects(&self.deployed)? {
            if let Some(path) = self.path(&object)?
                && !volumes::stays(&object)
                && paths.insert(path.clone())
                && let Some(live) = self.api.find(&path)?
            {
                let name = name(&object, !self.is_doubtful(&object["metadata"]["name"]));
                let versions = self.versions(&live, &Value::Null, &Value::Null, None);
                text += &unified(&name, &versions);
            }
        }
        Ok(text)
    }

    /// The path of an object; none if the API server doesn't know its kind.
    fn path(&self, object: &Value) -> Result<Option<String>> {
        applied::path(&self.resources, self.release, object)
    }

    /// Two versions of an object for people, without what is secret. One that is null doesn't exist. `rendered` is what helm
    /// makes, which becomes `new` in the cluster, and of which so much is `visible`.
    fn versions(
        &self,
        old: &Value,
        new: &Value,
        rendered: &Value,
        visible: Option<&Visible>,
    ) -> Versions {
        let mut old = tidied(old);
        let mut new = tidied(new);
        let is_secret = old["kind"] == "Secret" || new["kind"] == "Secret";
        if is_secret {
            self.hide_data(&mut old, &mut new);
        }
        let place = Place {
            old: &old,
            new: &new,
            rendered,
            visible,
            holds_data: false,
        };
        let [old, new] = self.masked(place, is_secret);
        Versions {
            old: yaml(&old),
            new: yaml(&new),
        }
    }

    /// Both versions of a value without what is secret.
    fn masked(&self, place: Place, is_secret: bool) -> [Value; 2] {
        let Place { old, new, .. } = place;
        match (old, new) {
            _ if matches!(place.visible, Some(Visible::Nothing)) && !place.holds_data => {
                hidden(old, new)
            }
            (Value::Null, Value::Null) => [Value::Null, Value::Null],
            (Value::Object(_) | Value::Null, Value::Object(_) | Value::Null) => {
                self.masked_fields(place, is_secret)
            }
            (Value::Array(_) | Value::Null, Value::Array(_) | Value::Null) => {
                self.masked_items(place)
            }
            _ if place.holds_data => [old.clone(), new.clone()],
            _ => self.masked_leaves(place),
        }
    }

    fn masked_fields(&self, place: Place, is_secret: bool) -> [Value; 2] {
        let versions = [place.old, place.new];
        let mut shown = [Map::new(), Map::new()];
        let mut others = [Map::new(), Map::new()];
        let keys = versions.iter().filter_map(|it| it.as_object());
        let keys: BTreeSet<_> = keys.flat_map(Map::keys).collect();
        for key in keys {
            if self.shows_key(place, key) {
                let mut field = place.field(key);
                field.holds_data |= is_secret && DATA.contains(&key.as_str());
                add_field(key, versions, self.masked(field, false), &mut shown);
            } else {
                let values = versions.map(|it| it[key].clone());
                add_field(key, versions, values, &mut others);
            }
        }
        for (shown, value) in shown.iter_mut().zip(hidden_fields(others)) {
            shown.extend(value.map(|it| (HIDDEN.to_owned(), it)));
        }
        unless_absent(place, shown.map(Value::Object))
    }

    /// Whether everybody may see a key: it's the same in all renderings, or it was not rendered and holds no secret.
    fn shows_key(&self, place: Place, key: &str) -> bool {
        let is_rendered = place.rendered.get(key).is_some();
        match place.visible {
            Some(Visible::Fields { fields, .. }) if is_rendered => fields.contains_key(key),
            Some(Visible::Whole) if is_rendered => true,
            _ => !self.is_doubtful(&key.into()),
        }
    }

    fn masked_items(&self, place: Place) -> [Value; 2] {
        let old = place.old.as_array().map_or(0, Vec::len);
        let new = place.new.as_array().map_or(0, Vec::len);
        if let Some(Visible::Items(visible)) = place.visible
            && visible.len() != new
        {
            return hidden(place.old, place.new);
        }
        let mut shown = [Vec::new(), Vec::new()];
        for index in 0..old.max(new) {
            let [old_item, new_item] = self.masked(place.item(index), false);
            if index < old {
                shown[0].push(old_item);
            }
            if index < new {
                shown[1].push(new_item);
            }
        }
        unless_absent(place, shown.map(Value::Array))
    }

    /// Both versions of a value whose parts aren't compared.
    fn masked_leaves(&self, place: Place) -> [Value; 2] {
        let Place { old, new, .. } = place;
        let is_rendered = place.visible.is_some() && new == place.rendered;
        // What was in a secret's place may be another secret.
        if !is_rendered && self.is_doubtful(new) {
            return hidden(old, new);
        }
        let shows_old = old == new || !self.is_doubtful(old);
        let shown = if shows_old {
            old.clone()
        } else {
            HIDDEN.into()
        };
        [shown, new.clone()]
    }

    /// Whether a value that no rendering vouches for may hold a secret, or something that was made of one.
    fn is_doubtful(&self, value: &Value) -> bool {
        let text = unquoted(value);
        match value {
            Value::Null | Value::Bool(_) => false,
            _ => {
                let text = text.to_lowercase();
                self.doubtful.contains(&text)
                    || words_of(&text).any(|it| is_like_a_digest(it) || self.doubtful.contains(it))
                    || self.mask.finds_in(&text)
            }
        }
    }

    /// Hides what is secret in the data of two versions of a Secret.
    fn hide_data(&self, old: &mut Value, new: &mut Value) {
        for field in DATA {
            let old_data = decoded(&old[field]);
            let new_data = decoded(&new[field]);
            if let Some(data) = old.get_mut(field) {
                *data = self.masked_data(field, &old_data, &new_data, "old");
            }
            if let Some(data) = new.get_mut(field) {
                *data = self.masked_data(field, &new_data, &old_data, "new");
            }
        }
    }

    /// One version of what is in a Secret, with `***` for all that isn't plain elsewhere. `other` is the other version,
    /// which is null where it has nothing.
    fn masked_data(&self, key: &str, value: &Value, other: &Value, side: &str) -> Value {
        match (value, other) {
            (Value::Null, _) => Value::Null,
            (Value::Object(fields), Value::Object(_) | Value::Null)
                if DATA.contains(&key) || self.plain.has_keys(fields.keys()) =>
            {
                let masked = fields.iter().map(|(key, field)| {
                    let field = self.masked_data(key, field, &other[key], side);
                    (key.clone(), field)
                });
                Value::Object(masked.collect())
            }
            (Value::Array(items), Value::Array(_) | Value::Null) => items
                .iter()
                .enumerate()
                .map(|(index, item)| self.masked_data(key, item, &other[index], side))
                .collect(),
            (Value::Object(fields), _) if fields.is_empty() => value.clone(),
            _ if self.plain.contains(key, &unquoted(value)) => value.clone(),
            _ if other.is_null() || value == other => HIDDEN.into(),
            _ => format!("{HIDDEN} ({side})").into(),
        }
    }
}

impl<'a> Place<'a> {
    fn field(self, key: &str) -> Place<'a> {
        let visible = match self.visible {
            Some(Visible::Fields { fields, .. }) => fields.get(key),
            whole => whole.filter(|_| self.rendered.get(key).is_some()),
        };
        Place {
            old: &self.old[key],
            new: &self.new[key],
            rendered: &self.rendered[key],
            visible,
            ..self
        }
    }

    fn item(self, index: usize) -> Place<'a> {
        let visible = match self.visible {
            Some(Visible::Items(items)) => items.get(index),
            whole => whole.filter(|_| self.rendered.get(index).is_some()),
        };
        Place {
            old: &self.old[index],
            new: &self.new[index],
            rendered: &self.rendered[index],
            visible,
            ..self
        }
    }
}

/// Adds a field to each version that has it.
fn add_field(
    key: &str,
    versions: [&Value; 2],
    values: [Value; 2],
    fields: &mut [Map<String, Value>; 2],
) {
    for ((version, value), fields) in versions.into_iter().zip(values).zip(fields) {
        if version.get(key).is_some() {
            fields.insert(key.to_owned(), value);
        }
    }
}

/// Null for a version that has nothing at a place.
fn unless_absent(place: Place, shown: [Value; 2]) -> [Value; 2] {
    let [mut old, mut new] = shown;
    if place.old.is_null() {
        old = Value::Null;
    }
    if place.new.is_null() {
        new = Value::Null;
    }
    [old, new]
}

/// What is shown of two versions of a secret.
fn hidden(old: &Value, new: &Value) -> [Value; 2] {
    let is_change = !old.is_null() && !new.is_null() && old != new;
    let shown = |value: &Value, side: &str| match value {
        Value::Null => Value::Null,
        _ if is_change => format!("{HIDDEN} ({side})").into(),
        _ => HIDDEN.into(),
    };
    [shown(old, "old"), shown(new, "new")]
}

/// What is shown of fields whose keys are secret, on each side that has some.
fn hidden_fields(fields: [Map<String, Value>; 2]) -> [Option<Value>; 2] {
    let [old, new] = fields.map(|it| Some(Value::Object(it)).filter(|it| *it != json!({})));
    let shown = hidden(&old.unwrap_or_default(), &new.unwrap_or_default());
    shown.map(|it| Some(it).filter(|it| !it.is_null()))
}

/// Texts with their words of four characters or more, in lower case.
fn parts(secrets: &[Value]) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    for secret in secrets {
        let text = unquoted(secret).to_lowercase();
        let words = words_of(&text).filter(|it| it.chars().count() >= 4);
        parts.extend(words.map(str::to_owned));
        parts.insert(text);
    }
    parts
}

/// Whether a word is like what becomes of a secret by a digest or in base64.
fn is_like_a_digest(word: &str) -> bool {
    let has = |is: fn(char) -> bool| word.contains(is);
    word.len() >= 10 && has(char::is_numeric) && has(char::is_alphabetic)
}

/// An object without what the API server adds for itself.
pub(crate) fn tidied(object: &Value) -> Value {
    let mut object = object.clone();
    let Value::Object(fields) = &mut object else {
        return object;
    };
    fields.remove("status");
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        for key in [
            "creationTimestamp",
            "generation",
            "managedFields",
            "resourceVersion",
            "uid",
        ] {
            metadata.remove(key);
        }
        tidy_annotations(metadata);
    }
    object
}

fn tidy_annotations(metadata: &mut Map<String, Value>) {
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.remove("deployment.kubernetes.io/revision");
        // It repeats the object, a Secret's data too.
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// A Secret's data as texts, and what is YAML or JSON in them as that; null if there is none.
fn decoded(data: &Value) -> Value {
    let Value::Object(fields) = data else {
        return Value::Null;
    };
    let decoded = fields.iter().map(|(key, field)| {
        let text = text(field);
        let bytes = BASE64_STANDARD.decode(text);
        let bytes = bytes.unwrap_or_else(|_| text.as_bytes().to_vec());
        (key.clone(), structured(&String::from_utf8_lossy(&bytes)))
    });
    Value::Object(decoded.collect())
}

/// What a text says if it's YAML or JSON of a map or list, else the text.
fn structured(text: &str) -> Value {
    match yaml::parse(text.as_bytes()) {
        Ok(content @ (Value::Object(_) | Value::Array(_))) => content,
        _ => text.into(),
    }
}

/// `deployment/hub`, with the namespace in front where the object names one.
pub(crate) fn name(object: &Value, is_visible: bool) -> String {
    let kind = text(&object["kind"]).to_lowercase();
    if !is_visible {
        return format!("{kind}/{HIDDEN}");
    }
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .map(|it| format!("{it}/"))
        .unwrap_or_default();
    format!("{namespace}{kind}/{}", text(&object["metadata"]["name"]))
}

/// The difference as `diff -u` shows it; empty if there is none.
fn unified(name: &str, versions: &Versions) -> String {
    let Versions { old, new } = versions;
    let before = if old.is_empty() { "nothing" } else { name };
    let after = if new.is_empty() && !old.is_empty() {
        "nothing"
    } else {
        name
    };
    TextDiff::from_lines(old, new)
        .unified_diff()
        .header(before, after)
        .to_string()
}

/// An object in YAML; empty if there is none.
fn yaml(object: &Value) -> String {
    if object.is_null() {
        return String::new();
    }
    serde_yaml::to_string(object).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
