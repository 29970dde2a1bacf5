//! What helm keeps of a release in its namespace: a Secret for each revision.
//! <https://helm.sh/docs/topics/advanced/#storage-backends>

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::Value;

use crate::{
    kubernetes::{api::Api, objects::PartialObject},
    secrets::texts,
    yaml::{self, split_documents},
};

/// A revision, as far as its Secret's labels describe it.
pub(crate) struct Revision {
    pub(crate) number: u32,
    /// `deployed`, `superseded`, `failed`, `pending-upgrade`, …
    pub(crate) status: String,
    /// The commit that it was deployed from.
    pub(crate) commit: Option<String>,
    /// Who deployed it.
    pub(crate) actor: Option<String>,
    /// The name of its Secret.
    pub(crate) secret: String,
}

impl Revision {
    /// The revision that a Secret with these labels holds, if it's one of helm's.
    fn of(secret: PartialObject) -> Option<Revision> {
        let mut labels = secret.metadata.labels;
        Some(Revision {
            number: labels.get("version")?.parse().ok()?,
            status: labels.remove("status")?,
            commit: labels.remove("commit"),
            actor: labels.remove("actor"),
            secret: secret.metadata.name,
        })
    }

    /// `4 (superseded, commit 0123456789ab)`
    pub(crate) fn shown(&self) -> String {
        let Revision { number, status, .. } = self;
        match &self.commit {
            Some(commit) => {
                let short = commit.get(..12).unwrap_or(commit);
                format!("{number} ({status}, commit {short})")
            }
            None => format!("{number} ({status})"),
        }
    }
}

/// The newest revision of a release, whoever deployed it.
pub(crate) struct Newest {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) revision: Revision,
}

impl Newest {
    /// Whether it's the release of this name in the namespace of the same name, as all of ours are.
    pub(crate) fn is(&self, release: &str) -> bool {
        self.namespace == release && self.name == release
    }

    /// All that helm keeps of it: `chart`, `info`, `manifest`, `hooks`, and `config`, the values, which may be secret.
    pub(crate) fn content(&self, api: &Api) -> Result<Value> {
        content(&api.get(&path(&self.namespace, &self.revision.secret))?)
    }
}

/// All that helm keeps of a revision of one of our releases, as in `Newest::content`.
pub(crate) fn content_of(api: &Api, release: &str, number: u32) -> Result<Value> {
    let revisions = revisions(api, release)?;
    let revision = revisions
        .iter()
        .find(|it| it.number == number)
        .with_context(|| format!("revision {number} is gone"))?;
    content(&api.get(&path(release, &revision.secret))?)
}

/// The values of a revision that may be secret: all that people set, but for what the chart has by default or `is_plain` at
/// its path. Nobody can tell any more which files they came from.
pub(crate) fn secrets(content: &Value, is_plain: impl Fn(&[&str], &Value) -> bool) -> Vec<Value> {
    let defaults = &content["chart"]["values"];
    let mut found = Vec::new();
    each_leaf(&content["config"], &[], &mut |path, value| {
        let default = path.iter().try_fold(defaults, |it, step| child(it, step));
        if default != Some(value) && !is_plain(path, value) {
            found.push(value.clone());
        }
    });
    found
}

/// Calls `f` with each text, number and boolean, and its path of keys and of numbers from 0.
fn each_leaf(value: &Value, path: &[&str], f: &mut impl FnMut(&[&str], &Value)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                each_leaf(value, &[path, &[key.as_str()]].concat(), f);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                each_leaf(value, &[path, &[index.to_string().as_str()]].concat(), f);
            }
        }
        value => f(path, value),
    }
}

fn child<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        value => value.get(step),
    }
}

/// The texts of a revision's values that may be secret, and that are long enough to be found in others.
pub(crate) fn secret_texts(content: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for value in secrets(content, |_, _| false) {
        texts(&value, &mut found);
    }
    found
}

/// The newest revisions of all releases in the cluster.
pub(crate) fn newest(api: &Api) -> Result<Vec<Newest>> {
    let secrets = api.metadata("/api/v1/secrets?labelSelector=owner%3Dhelm")?;
    let mut newest: BTreeMap<(String, String), Newest> = BTreeMap::new();
    for secret in secrets.items {
        let namespace = secret.metadata.namespace.clone();
        let Some(name) = secret.metadata.labels.get("name").cloned() else {
            continue;
        };
        let Some(revision) = Revision::of(secret) else {
            continue;
        };
        let key = (namespace.clone(), name.clone());
        let before = newest.get(&key).map(|it| it.revision.number);
        if before.is_none_or(|number| number < revision.number) {
            let found = Newest {
                namespace,
                name,
                revision,
            };
            newest.insert(key, found);
        }
    }
    Ok(newest.into_values().collect())
}

/// The newest revision of one of our releases.
pub(crate) fn last(api: &Api, release: &str) -> Result<Option<Newest>> {
    let revision = revisions(api, release)?.pop();
    Ok(revision.map(|revision| Newest {
        namespace: release.to_owned(),
        name: release.to_owned(),
        revision,
    }))
}

/// The revisions of one of our releases that the cluster still has, the newest one last.
pub(crate) fn revisions(api: &Api, release: &str) -> Result<Vec<Revision>> {
    let secrets = api.metadata(&format!(
        "/api/v1/namespaces/{release}/secrets?labelSelector=owner%3Dhelm%2Cname%3D{release}"
    ))?;
    let revisions = secrets.items.into_iter().filter_map(Revision::of);
    let mut revisions: Vec<_> = revisions.collect();
    revisions.sort_by_key(|it| it.number);
    Ok(revisions)
}

/// The path of a revision's Secret.
pub(crate) fn path(namespace: &str, secret: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{secret}")
}

/// What is in a revision's Secret: JSON in gzip, in helm's base64 and the API server's.
pub(crate) fn content(secret: &Value) -> Result<Value> {
    let data = secret["data"]["release"]
        .as_str()
        .context("the release's Secret has no `release`")?;
    let packed = BASE64_STANDARD.decode(BASE64_STANDARD.decode(data)?)?;
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// Makes helm forget the volumes and claims of a release's newest revision, so that it leaves them when it uninstalls. A
/// release that is installed under this name again takes them over, since they keep their labels.
pub(crate) fn forget_volumes(api: &Api, newest: &Newest) -> Result<()> {
    let path = path(&newest.namespace, &newest.revision.secret);
    let mut secret = api.get(&path)?;
    let mut content = content(&secret)?;
    let mut others = String::new();
    for document in split_documents(content["manifest"].as_str().unwrap_or_default()) {
        if !is_volume(document) {
            others += &format!("---\n{document}");
        }
    }
    content["manifest"] = others.into();
    secret["data"]["release"] = packed(&content)?.into();
    api.send("PUT", &path, &secret).map(|_| ())
}

fn is_volume(document: &str) -> bool {
    let object: Value = yaml::parse(document.as_bytes()).unwrap_or_default();
    matches!(
        object["kind"].as_str(),
        Some("PersistentVolumeClaim" | "PersistentVolume")
    )
}

/// The opposite of `content`.
fn packed(content: &Value) -> Result<String> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(content.to_string().as_bytes())?;
    Ok(BASE64_STANDARD.encode(BASE64_STANDARD.encode(gzip.finish()?)))
}
