//! What a deploy would change in a cluster: its live objects beside those that the API server would make of the new ones,
//! so that a change by hand shows too. Secrets show where they differ, and never what they are.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value};
use similar::TextDiff;

use crate::{
    kubernetes::{
        api::{self, Api},
        history,
    },
    repository::hub_traits::PlainValues,
    secrets::Mask,
    yaml::split_documents,
};

/// Where helm, as which we ask, keeps what it set: <https://helm.sh/docs/topics/server_side_apply>
const MANAGER: &str = "helm";

pub(crate) struct Differ<'a> {
    api: &'a Api,
    mask: &'a Mask,
    /// The name of the release and of its namespace.
    release: &'a str,
    plain: PlainValues,
    /// The resources of API groups' versions, as the API server names them.
    resources: BTreeMap<String, Value>,
}

impl<'a> Differ<'a> {
    pub(crate) fn new(
        api: &'a Api,
        mask: &'a Mask,
        release: &'a str,
        plain: PlainValues,
    ) -> Differ<'a> {
        Differ {
            api,
            mask,
            release,
            plain,
            resources: BTreeMap::new(),
        }
    }

    /// The differences that a manifest makes, object by object; nothing if it makes none.
    pub(crate) fn diff(&mut self, manifest: &str) -> Result<String> {
        let new = objects(manifest)?;
        let deployed = history::last(self.api, self.release)?;
        let deployed = deployed
            .map(|it| it.content(self.api))
            .transpose()?
            .unwrap_or_default();
        let old = objects(deployed["manifest"].as_str().unwrap_or_default())?;
        let mut text = String::new();
        let mut paths = BTreeSet::new();
        for object in new {
            let named = name(&object);
            let Some((path, list)) = self.path(&object)? else {
                text += &unified(&named, "", &self.shown(&object, &Value::Null).0);
                continue;
            };
            let live = self.api.find(&path)?.unwrap_or_default();
            let made = self
                .made(&path, object)
                .with_context(|| format!("`{named}`"));
            let (after, before) = self.shown(&made?, &live);
            text += &unified(&named, &before, &after);
            paths.insert((list, path));
        }
        for object in old {
            let is_kept = object["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep";
            let Some((path, list)) = self.path(&object)?.filter(|_| !is_kept) else {
                continue;
            };
            if paths.insert((list, path.clone()))
                && let Some(live) = self.api.find(&path)?
            {
                text += &unified(&name(&object), &self.shown(&Value::Null, &live).1, "");
            }
        }
        Ok(text)
    }

    /// Where the API server has an object, and its list; nowhere if it doesn't know the kind.
    fn path(&mut self, object: &Value) -> Result<Option<(String, String)>> {
        let (version, kind) = (text(&object["apiVersion"]), &object["kind"]);
        let base = if version.contains('/') {
            format!("/apis/{version}")
        } else {
            format!("/api/{version}")
        };
        if !self.resources.contains_key(&base) {
            let found = self.api.find(&base)?.unwrap_or_default();
            self.resources.insert(base.clone(), found);
        }
        let resources = self.resources[&base]["resources"]
            .as_array()
            .into_iter()
            .flatten();
        let found = resources
            .into_iter()
            .find(|it| it["kind"] == *kind && !text(&it["name"]).contains('/'));
        let Some(found) = found else { return Ok(None) };
        let metadata = &object["metadata"];
        let list = match found["namespaced"] == true {
            true => {
                let namespace = metadata["namespace"].as_str().unwrap_or(self.release);
                format!("{base}/namespaces/{namespace}/{}", text(&found["name"]))
            }
            false => format!("{base}/{}", text(&found["name"])),
        };
        Ok(Some((format!("{list}/{}", text(&metadata["name"])), list)))
    }

    /// What the API server would make of an object that helm applies.
    fn made(&self, path: &str, mut object: Value) -> Result<Value> {
        let metadata = &mut object["metadata"];
        metadata["labels"]["app.kubernetes.io/managed-by"] = "Helm".into();
        metadata["annotations"]["meta.helm.sh/release-name"] = self.release.into();
        metadata["annotations"]["meta.helm.sh/release-namespace"] = self.release.into();
        let path = format!("{path}?dryRun=All&force=true&fieldManager={MANAGER}");
        match self.api.send("PATCH", &path, &object) {
            // Its namespace isn't there yet.
            Err(err) if api::status(&err) == Some(404) => Ok(object),
            made => made,
        }
    }

    /// Two versions of an object for people: the new and the old one. None of them is an empty text.
    fn shown(&self, new: &Value, old: &Value) -> (String, String) {
        let (mut new, mut old) = (tidied(new), tidied(old));
        if new["kind"] == "Secret" || old["kind"] == "Secret" {
            for data in ["data", "stringData"] {
                let both = [&mut new, &mut old].map(|it| decoded(it.get_mut(data)));
                let [of_new, of_old] = both;
                let (mut of_new, mut of_old) =
                    (of_new.unwrap_or_default(), of_old.unwrap_or_default());
                self.hide(data, &mut of_new, &mut of_old, true);
                for (object, hidden) in [(&mut new, of_new), (&mut old, of_old)] {
                    if let Some(place) = object.get_mut(data) {
                        *place = hidden;
                    }
                }
            }
        }
        self.hide("", &mut new, &mut old, false);
        let yaml = |it: &Value| match it {
            Value::Null => String::new(),
            it => serde_yaml::to_string(it).unwrap_or_default(),
        };
        (yaml(&new), yaml(&old))
    }

    /// Hides what is secret: in a Secret all that isn't plain elsewhere, else what was decrypted, and what stands or stood in
    /// its place.
    fn hide(&self, key: &str, new: &mut Value, old: &mut Value, is_secret: bool) {
        match (&mut *new, &mut *old) {
            (Value::Object(new), Value::Object(old)) => {
                let keys: BTreeSet<String> = new.keys().chain(old.keys()).cloned().collect();
                for key in keys {
                    let mut nothing = [Value::Null, Value::Null];
                    let [of_new, of_old] = &mut nothing;
                    let of_new = new.get_mut(&key).unwrap_or(of_new);
                    self.hide(&key, of_new, old.get_mut(&key).unwrap_or(of_old), is_secret);
                }
            }
            (Value::Object(_), Value::Null) | (Value::Null, Value::Object(_)) => {
                let mut nothing = Value::Object(Map::new());
                let (new, old) = if new.is_null() {
                    (&mut nothing, old)
                } else {
                    (new, &mut nothing)
                };
                self.hide(key, new, old, is_secret);
            }
            (Value::Array(new), Value::Array(old)) => {
                for index in 0..new.len().max(old.len()) {
                    let mut nothing = [Value::Null, Value::Null];
                    let [of_new, of_old] = &mut nothing;
                    let of_new = new.get_mut(index).unwrap_or(of_new);
                    self.hide(key, of_new, old.get_mut(index).unwrap_or(of_old), is_secret);
                }
            }
            (Value::Array(_), Value::Null) | (Value::Null, Value::Array(_)) => {
                let mut nothing = Value::Array(Vec::new());
                let (new, old) = if new.is_null() {
                    (&mut nothing, old)
                } else {
                    (new, &mut nothing)
                };
                self.hide(key, new, old, is_secret);
            }
            _ => {
                let shows = |it: &Value| match it {
                    Value::Null => true,
                    Value::Object(it) if it.is_empty() => true,
                    Value::Array(it) if it.is_empty() => true,
                    Value::Object(_) | Value::Array(_) => false,
                    it if is_secret => self.plain.contains(&(key.to_owned(), scalar(it))),
                    it => self.mask.hide(&scalar(it)) == scalar(it),
                };
                let (new_shows, old_shows) = (shows(new), shows(old));
                let differ = new != old && !new.is_null() && !old.is_null();
                for (value, shows, which) in [(new, new_shows, "new"), (old, old_shows, "old")] {
                    // What stood in a secret's place may have been an older one.
                    let is_hidden = !shows || !(is_secret || new_shows && old_shows);
                    if is_hidden && !value.is_null() {
                        *value = if differ {
                            format!("*** ({which})").into()
                        } else {
                            "***".into()
                        };
                    }
                }
            }
        }
    }
}

/// Without what the API server adds for itself.
fn tidied(object: &Value) -> Value {
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
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove("deployment.kubernetes.io/revision");
            // It repeats the object, a Secret's data too.
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    object
}

/// A Secret's data as texts, and what is YAML or JSON in them as that.
fn decoded(data: Option<&mut Value>) -> Option<Value> {
    let data = data?.as_object()?.iter().map(|(key, it)| {
        let text = it.as_str().unwrap_or_default();
        let bytes = BASE64_STANDARD
            .decode(text)
            .unwrap_or_else(|_| text.as_bytes().to_vec());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let content: Option<Value> = serde_yaml::from_str(&text).ok();
        (
            key.clone(),
            content
                .filter(|it| it.is_object() || it.is_array())
                .unwrap_or(Value::String(text)),
        )
    });
    Some(Value::Object(data.collect()))
}

/// A manifest's objects, with those of a `List` by themselves.
fn objects(manifest: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in split_documents(manifest) {
        for document in serde_yaml::Deserializer::from_str(document) {
            match Value::deserialize(document).context("a manifest isn't YAML")? {
                Value::Null => {}
                mut list if list["items"].is_array() && text(&list["kind"]).ends_with("List") => {
                    objects.extend(
                        list["items"]
                            .as_array_mut()
                            .into_iter()
                            .flat_map(std::mem::take),
                    );
                }
                object => objects.push(object),
            }
        }
    }
    Ok(objects)
}

/// "deployment/hub", with the namespace where that is another one.
fn name(object: &Value) -> String {
    let kind = text(&object["kind"]).to_lowercase();
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .map(|it| format!("{it}/"))
        .unwrap_or_default();
    format!("{namespace}{kind}/{}", text(&object["metadata"]["name"]))
}

fn unified(name: &str, old: &str, new: &str) -> String {
    let diff = TextDiff::from_lines(old, new);
    let (before, after) = match (old.is_empty(), new.is_empty()) {
        (true, _) => ("nothing", name),
        (_, true) => (name, "nothing"),
        _ => (name, name),
    };
    diff.unified_diff().header(before, after).to_string()
}

fn scalar(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
