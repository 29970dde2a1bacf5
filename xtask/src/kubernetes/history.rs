//! What helm keeps of a release in its namespace: a Secret for each revision.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::Value;

use crate::{kubernetes::api::Api, yaml::split_documents};

/// A revision by its Secret's labels.
pub(crate) struct Revision {
    pub(crate) number: u32,
    /// `deployed`, `superseded`, `failed`, `pending-upgrade`, …
    pub(crate) status: String,
    /// Of the commit that it was deployed from.
    pub(crate) commit: Option<String>,
    /// Who deployed it.
    pub(crate) actor: Option<String>,
    pub(crate) secret: String,
}

impl Revision {
    /// "4 (superseded, commit 0123456789ab)"
    pub(crate) fn shown(&self) -> String {
        let commit = self
            .commit
            .as_ref()
            .map(|it| format!(", commit {}", it.get(..12).unwrap_or(it)));
        format!(
            "{} ({}{})",
            self.number,
            self.status,
            commit.unwrap_or_default()
        )
    }
}

/// The newest revision of a release, of whoever made it.
pub(crate) struct Newest {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) revision: Revision,
}

impl Newest {
    /// Whether it's the release of this name in the namespace of this name, as all of ours are.
    pub(crate) fn is(&self, release: &str) -> bool {
        self.namespace == release && self.name == release
    }

    /// All that helm keeps of it: `chart`, `info`, `manifest`, `hooks`, and values, which may be secret.
    pub(crate) fn content(&self, api: &Api) -> Result<Value> {
        content(&api.get(&path(&self.namespace, &self.revision.secret))?)
    }
}

/// All that helm keeps of a revision of one of our releases, as `Newest::content` has it.
pub(crate) fn content_of(api: &Api, release: &str, number: u32) -> Result<Value> {
    let revision = revisions(api, release)?
        .into_iter()
        .find(|it| it.number == number);
    let revision = revision.with_context(|| format!("revision {number} is gone"))?;
    content(&api.get(&path(release, &revision.secret))?)
}

/// The newest revisions of all releases in the cluster.
pub(crate) fn newest(api: &Api) -> Result<Vec<Newest>> {
    let list = api.metadata("/api/v1/secrets?labelSelector=owner%3Dhelm")?;
    let mut newest: BTreeMap<(String, String), Revision> = BTreeMap::new();
    for secret in list["items"].as_array().into_iter().flatten() {
        let metadata = &secret["metadata"];
        let (Some(namespace), Some(name)) = (
            metadata["namespace"].as_str(),
            metadata["labels"]["name"].as_str(),
        ) else {
            continue;
        };
        let Some(revision) = revision(secret) else {
            continue;
        };
        let key = (namespace.to_owned(), name.to_owned());
        if newest
            .get(&key)
            .is_none_or(|it| it.number < revision.number)
        {
            newest.insert(key, revision);
        }
    }
    Ok(newest
        .into_iter()
        .map(|((namespace, name), revision)| Newest {
            namespace,
            name,
            revision,
        })
        .collect())
}

/// The newest revision of one of our releases.
pub(crate) fn last(api: &Api, release: &str) -> Result<Option<Newest>> {
    let (namespace, name) = (release.to_owned(), release.to_owned());
    Ok(revisions(api, release)?.pop().map(|revision| Newest {
        namespace,
        name,
        revision,
    }))
}

/// The revisions that the cluster has of a release, the newest one last.
pub(crate) fn revisions(api: &Api, release: &str) -> Result<Vec<Revision>> {
    let path = format!(
        "/api/v1/namespaces/{release}/secrets?labelSelector=owner%3Dhelm%2Cname%3D{release}"
    );
    let list = api.metadata(&path)?;
    let mut revisions: Vec<_> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(revision)
        .collect();
    revisions.sort_by_key(|it| it.number);
    Ok(revisions)
}

fn revision(secret: &Value) -> Option<Revision> {
    let labels = &secret["metadata"]["labels"];
    let label = |name: &str| labels[name].as_str().map(str::to_owned);
    Some(Revision {
        number: label("version")?.parse().ok()?,
        status: label("status")?,
        commit: label("commit"),
        actor: label("actor"),
        secret: secret["metadata"]["name"].as_str()?.to_owned(),
    })
}

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
    let manifest = content["manifest"].as_str().unwrap_or_default();
    let kind = |document: &str| -> Option<String> {
        let yaml: serde_yaml::Value = serde_yaml::from_str(document).ok()?;
        Some(yaml.get("kind")?.as_str()?.to_owned())
    };
    let is_volume = |it: &&str| {
        kind(it)
            .is_some_and(|it| ["PersistentVolumeClaim", "PersistentVolume"].contains(&it.as_str()))
    };
    let others: Vec<_> = split_documents(manifest)
        .filter(|it| !is_volume(it))
        .collect();
    content["manifest"] = others
        .iter()
        .map(|it| format!("---\n{it}"))
        .collect::<String>()
        .into();
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(content.to_string().as_bytes())?;
    let packed = BASE64_STANDARD.encode(BASE64_STANDARD.encode(packed.finish()?));
    secret["data"]["release"] = packed.into();
    api.send("PUT", &path, &secret).map(|_| ())
}
