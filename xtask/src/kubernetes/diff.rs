//! What a deploy would change in a cluster: its live objects beside those that the API server would make of the new ones,
//! so that changes by hand show, too. Of secrets it shows where they differ, and never what they are.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};
use similar::TextDiff;

use crate::{
    kubernetes::{
        api::{self, Api},
        history,
        objects::{ApiResource, ApiResourceList},
    },
    repository::hub_traits::PlainValues,
    secrets::Mask,
    yaml::{self, unquoted},
};

/// The field manager in whose name we ask, under which helm keeps what it set:
/// <https://helm.sh/docs/topics/server_side_apply>
const MANAGER: &str = "helm";

/// Compares a release's manifest with the cluster.
pub(crate) struct Differ<'a> {
    api: &'a Api,
    mask: &'a Mask,
    /// The name of the release and of its namespace.
    release: &'a str,
    /// What a Secret may show.
    plain: PlainValues,
    /// The kinds of objects of API groups' versions, by the paths of these.
    resources: BTreeMap<String, Vec<ApiResource>>,
}

/// Two versions of an object for people. One that doesn't exist is empty.
struct Versions {
    old: String,
    new: String,
}

/// Which of two versions of an object is at hand.
#[derive(Clone, Copy)]
struct Side {
    /// `old` or `new`
    name: &'static str,
    /// Whether it's the data of a Secret.
    is_secret: bool,
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

    /// The differences that a manifest makes, object by object; empty if it makes none.
    pub(crate) fn diff(&mut self, manifest: &str) -> Result<String> {
        let mut text = String::new();
        let mut paths = BTreeSet::new();
        for object in objects(manifest)? {
            let name = name(&object);
            let Some(path) = self.path(&object)? else {
                text += &unified(&name, &self.versions(&Value::Null, &object));
                continue;
            };
            let live = self.api.find(&path)?.unwrap_or_default();
            let applied = self
                .applied(&path, object)
                .with_context(|| format!("`{name}`"))?;
            text += &unified(&name, &self.versions(&live, &applied));
            paths.insert(path);
        }
        Ok(text + &self.removed(paths)?)
    }

    /// The differences of the objects that a deploy removes: those of the newest revision that are not at these paths.
    fn removed(&mut self, mut paths: BTreeSet<String>) -> Result<String> {
        let mut text = String::new();
        for object in objects(&self.deployed_manifest()?)? {
            if let Some(path) = self.path(&object)?
                && !is_kept(&object)
                && paths.insert(path.clone())
                && let Some(live) = self.api.find(&path)?
            {
                text += &unified(&name(&object), &self.versions(&live, &Value::Null));
            }
        }
        Ok(text)
    }

    /// The manifest of the release's newest revision; empty if there is none.
    fn deployed_manifest(&self) -> Result<String> {
        let Some(newest) = history::last(self.api, self.release)? else {
            return Ok(String::new());
        };
        let content = newest.content(self.api)?;
        Ok(text(&content["manifest"]).to_owned())
    }

    /// The path of an object; none if the API server doesn't know its kind.
    fn path(&mut self, object: &Value) -> Result<Option<String>> {
        let base = version_path(text(&object["apiVersion"]))?;
        let kind = text(&object["kind"]);
        let namespace = object["metadata"]["namespace"].as_str();
        let namespace = api::step(namespace.unwrap_or(self.release))?;
        let name = api::step(text(&object["metadata"]["name"]))?;
        let resources = self.resources(&base)?;
        // Subresources such as `deployments/status` are of their object's kind, too.
        let resource = resources
            .iter()
            .find(|it| it.kind == kind && !it.name.contains('/'));
        Ok(resource.map(|resource| {
            let plural = &resource.name;
            if resource.namespaced {
                format!("{base}/namespaces/{namespace}/{plural}/{name}")
            } else {
                format!("{base}/{plural}/{name}")
            }
        }))
    }

    /// The kinds of objects below a path such as `/apis/apps/v1`. The API server is asked once.
    fn resources(&mut self, base: &str) -> Result<&[ApiResource]> {
        if !self.resources.contains_key(base) {
            let found: Option<ApiResourceList> = self.api.find_object(base)?;
            let resources = found.unwrap_or_default().resources;
            self.resources.insert(base.to_owned(), resources);
        }
        Ok(&self.resources[base])
    }

    /// What the API server would make of an object that helm applies.
    fn applied(&self, path: &str, mut object: Value) -> Result<Value> {
        let metadata = &mut object["metadata"];
        metadata["labels"]["app.kubernetes.io/managed-by"] = "Helm".into();
        metadata["annotations"]["meta.helm.sh/release-name"] = self.release.into();
        metadata["annotations"]["meta.helm.sh/release-namespace"] = self.release.into();
        let path = format!("{path}?dryRun=All&force=true&fieldManager={MANAGER}");
        match self.api.send("PATCH", &path, &object) {
            // Its namespace isn't there yet.
            Err(err) if api::status(&err) == Some(404) => Ok(object),
            applied => applied,
        }
    }

    /// Two versions of an object for people, without what is secret. One that is null doesn't exist.
    fn versions(&self, old: &Value, new: &Value) -> Versions {
        let mut old = tidied(old);
        let mut new = tidied(new);
        if old["kind"] == "Secret" || new["kind"] == "Secret" {
            self.hide_data(&mut old, &mut new);
        }
        let [old_side, new_side] = sides(false);
        Versions {
            old: yaml(&self.masked("", &old, &new, old_side)),
            new: yaml(&self.masked("", &new, &old, new_side)),
        }
    }

    /// Hides what is secret in the data of two versions of a Secret.
    fn hide_data(&self, old: &mut Value, new: &mut Value) {
        let [old_side, new_side] = sides(true);
        for field in ["data", "stringData"] {
            let old_data = decoded(&old[field]);
            let new_data = decoded(&new[field]);
            if let Some(data) = old.get_mut(field) {
                *data = self.masked(field, &old_data, &new_data, old_side);
            }
            if let Some(data) = new.get_mut(field) {
                *data = self.masked(field, &new_data, &old_data, new_side);
            }
        }
    }

    /// One version of a value, with `***` for what is secret. `other` is the other version, which is null where it has nothing.
    fn masked(&self, key: &str, value: &Value, other: &Value, side: Side) -> Value {
        match (value, other) {
            (Value::Null, _) => Value::Null,
            (Value::Object(fields), Value::Object(_) | Value::Null) => {
                let masked = fields.iter().map(|(key, field)| {
                    let field = self.masked(key, field, &other[key], side);
                    (key.clone(), field)
                });
                Value::Object(masked.collect())
            }
            (Value::Array(items), Value::Array(_) | Value::Null) => {
                let masked = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.masked(key, item, &other[index], side));
                Value::Array(masked.collect())
            }
            _ => self.masked_whole(key, value, other, side),
        }
    }

    /// The same for a value whose parts aren't compared.
    fn masked_whole(&self, key: &str, value: &Value, other: &Value, side: Side) -> Value {
        // What is or was in a secret's place may be another secret. In a Secret all that isn't plain elsewhere is hidden.
        let may_show =
            self.may_show(key, value, side) && (side.is_secret || self.may_show(key, other, side));
        if may_show {
            value.clone()
        } else if other.is_null() || value == other {
            "***".into()
        } else {
            format!("*** ({})", side.name).into()
        }
    }

    /// Whether everybody may see a value: in a Secret if it's plain elsewhere, else if it wasn't decrypted.
    fn may_show(&self, key: &str, value: &Value, side: Side) -> bool {
        match value {
            Value::Null => true,
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            value if side.is_secret => self.plain.contains(&(key.to_owned(), unquoted(value))),
            value => !self.mask.finds_in(&unquoted(value)),
        }
    }
}

/// The path of an API group's version: `/api/v1` or `/apis/apps/v1`.
fn version_path(version: &str) -> Result<String> {
    Ok(match version.split_once('/') {
        Some((group, version)) => format!("/apis/{}/{}", api::step(group)?, api::step(version)?),
        None => format!("/api/{}", api::step(version)?),
    })
}

/// The old and the new side.
fn sides(is_secret: bool) -> [Side; 2] {
    ["old", "new"].map(|name| Side { name, is_secret })
}

/// Whether helm leaves an object in the cluster that the manifest no longer has:
/// <https://helm.sh/docs/howto/charts_tips_and_tricks/#tell-helm-not-to-uninstall-a-resource>
fn is_kept(object: &Value) -> bool {
    object["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
}

/// An object without what the API server adds for itself.
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

/// A manifest's objects, with those of a `List` by themselves.
fn objects(manifest: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    let read = yaml::parse_stream::<Value>(manifest.as_bytes());
    for mut object in read.context("a manifest is not YAML")? {
        let is_list = text(&object["kind"]).ends_with("List");
        if let Some(Value::Array(items)) = object.get_mut("items")
            && is_list
        {
            objects.append(items);
        } else {
            objects.push(object);
        }
    }
    Ok(objects)
}

/// `deployment/hub`, with the namespace in front where the object names one.
fn name(object: &Value) -> String {
    let kind = text(&object["kind"]).to_lowercase();
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
