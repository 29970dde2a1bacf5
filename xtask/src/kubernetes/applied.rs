//! The objects of a release as helm applies them, and whether live ones still are like that.
//!
//! The API server keeps with each object which fields a program has set, and takes a field from helm once somebody else sets
//! it to another value: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>

use anyhow::Result;
use serde_json::{Map, Value};

use crate::kubernetes::{
    api::{self, Api},
    manifests,
    resources::Resources,
    volumes,
};

/// The field manager under which helm keeps what it set, and in whose name we ask:
/// <https://helm.sh/docs/topics/server_side_apply>
const HELM: &str = "helm";

/// The path of an object of a release; none if the API server does not know its kind.
pub(crate) fn path(resources: &Resources, release: &str, object: &Value) -> Result<Option<String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    resources.path(
        &text(&object["apiVersion"]),
        &text(&object["kind"]),
        manifests::namespace_of(object, release),
        &text(&object["metadata"]["name"]),
    )
}

/// An object of a manifest with what helm adds when it applies it.
pub(crate) fn as_helm_has_it(mut object: Value, release: &str) -> Value {
    let metadata = &mut object["metadata"];
    metadata["labels"]["app.kubernetes.io/managed-by"] = "Helm".into();
    metadata["annotations"]["meta.helm.sh/release-name"] = release.into();
    metadata["annotations"]["meta.helm.sh/release-namespace"] = release.into();
    object
}

/// What the API server would make of an object that helm applies.
pub(crate) fn try_apply(api: &Api, path: &str, object: Value) -> Result<Value> {
    let path = format!("{path}?dryRun=All&force=true&fieldManager={HELM}");
    match api.send("PATCH", &path, &object) {
        // Its namespace isn't there yet.
        Err(err) if api::status(&err) == Some(404) => Ok(object),
        applied => applied,
    }
}

/// Whether nobody has changed anything of an object that helm applied like this. If not, somebody may have, or the API
/// server writes it in another way.
pub(crate) fn is_untouched(live: &Value, applied: &Value) -> bool {
    let entries = live["metadata"]["managedFields"].as_array();
    let mut entries = entries.into_iter().flatten();
    let own = entries.find(|it| {
        it["manager"] == HELM
            && it["operation"] == "Apply"
            && it["subresource"].is_null()
            && it["apiVersion"] == applied["apiVersion"]
    });
    own.is_some_and(|own| holds(&own["fieldsV1"], &without_others(applied)))
        && has_all_of(live, applied)
}

/// An object without the fields of which the API server does not say that helm set them: nobody can change them, or we set
/// them on volume claims.
fn without_others(object: &Value) -> Value {
    let mut object = object.clone();
    for (path, keys) in [
        ("", &["apiVersion", "kind"][..]),
        ("/metadata", &["name", "namespace"]),
        ("/metadata/annotations", &[volumes::POLICY]),
    ] {
        if let Some(Value::Object(fields)) = object.pointer_mut(path) {
            fields.retain(|key, _| !keys.contains(&key.as_str()));
        }
    }
    object
}

/// Whether a live value has all of another one. It may have more: what the API server or others have added.
fn has_all_of(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            let live = live.get(key).unwrap_or(&Value::Null);
            has_all_of(live, wanted)
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            let mut pairs = live.iter().zip(wanted);
            live.len() == wanted.len() && pairs.all(|(live, wanted)| has_all_of(live, wanted))
        }
        _ => live == wanted,
    }
}

/// Whether a set of fields, in the form `FieldsV1`, has all of a value. One without any fields below it stands for all of
/// what is there, which then nobody has added to either.
fn holds(fields: &Value, value: &Value) -> bool {
    let Some(fields) = fields.as_object() else {
        return false;
    };
    match value {
        _ if fields.is_empty() => true,
        Value::Object(value) => value.iter().all(|(key, value)| {
            let field = fields.get(&format!("f:{key}"));
            value.is_null() || field.is_some_and(|it| holds(it, value))
        }),
        Value::Array(items) => items.iter().all(|item| {
            let field = item_in(fields, item);
            field.is_some_and(|it| holds(it, item))
        }),
        _ => false,
    }
}

/// The field of a list's item.
fn item_in<'a>(fields: &'a Map<String, Value>, item: &Value) -> Option<&'a Value> {
    let mut fields = fields.iter();
    let (_, field) = fields.find(|(key, _)| is_of_item(key, item))?;
    Some(field)
}

/// Whether the key of a field is that of a list's item: `v:` and the item itself, or `k:` and those of its fields by which the
/// list is merged, some of which the API server may have added.
fn is_of_item(key: &str, item: &Value) -> bool {
    let Some((kind, json)) = key.split_once(':') else {
        return false;
    };
    match (kind, serde_json::from_str(json)) {
        ("v", Ok(value)) => value == *item,
        ("k", Ok(Value::Object(keys))) => keys
            .iter()
            .all(|(key, value)| item[key].is_null() || item[key] == *value),
        _ => false,
    }
}
