//! What helm keeps of a release in its namespace: a Secret for each revision.
//! <https://helm.sh/docs/topics/advanced/#storage-backends>

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::{Value, json};

use crate::{
    kubernetes::{
        api::{self, Api},
        objects::{self, PartialObject},
    },
    machine::process,
    secrets::texts,
};

/// How many revisions of a release are kept, as helm itself does.
const REVISIONS_KEPT: usize = 10;

/// How the description begins of what we make of an earlier revision: `helm rollback` takes no labels.
pub(crate) const OUR_ROLLBACK: &str = "xtask rolled back";

/// Why a revision failed that helm could not apply.
pub(crate) const NOT_APPLIED: &str = "not applied";

/// A revision, as far as its Secret's labels describe it.
pub(crate) struct Revision {
    pub(crate) number: u32,
    /// `deployed`, `superseded`, `failed`, `pending-upgrade`, …
    pub(crate) status: String,
    /// The commit that it was deployed from, or that an earlier one was.
    pub(crate) commit: Option<String>,
    /// Whether the work tree had something then that no commit has.
    pub(crate) has_changes: bool,
    /// Who deployed it, if we did.
    pub(crate) actor: Option<String>,
    /// When it was made, as `2026-11-26T05:28:21Z`.
    pub(crate) created: Option<String>,
    /// Whether somebody's own helm made it after one of ours, whose labels it has.
    pub(crate) is_of_others: bool,
    /// The cluster's name in the repository that it was deployed from.
    pub(crate) cluster: Option<String>,
    /// The name of its Secret, and its uid.
    pub(crate) secret: String,
    uid: String,
    /// Which state of its Secret this is.
    pub(crate) resource_version: Option<String>,
    /// What we have recorded of it.
    pub(crate) outcome: Outcome,
    /// Whether we began to uninstall it. Until helm has begun, nothing has changed.
    pub(crate) is_retiring: bool,
    /// Whether one of our revisions came before it, or it is ours.
    pub(crate) descends_from_ours: bool,
    /// When helm last wrote it, in seconds since 1970.
    pub(crate) modified: Option<u64>,
    /// The digest of what helm was given for it, if we recorded that.
    given: Option<String>,
}

/// What we know of a revision. helm copies labels to the revision that comes next: only those that hold the revision's
/// own number tell of it.
#[derive(Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Others made it, or we did before there was such a record.
    Unknown,
    /// We began it.
    Begun,
    /// It was rolled out, and healthy if that was checked.
    Ready,
    /// It was not, for this reason.
    Failed(String),
}

impl Outcome {
    fn of(labels: &BTreeMap<String, String>, number: u32) -> Outcome {
        let label = |key: &str| labels.get(key).map(String::as_str);
        let own = number.to_string();
        if label("xtask") != Some(&own) {
            return Outcome::Unknown;
        }
        let outcome = label("outcome").and_then(|it| it.strip_suffix(&format!("-{own}")));
        match outcome {
            Some("failed") => Outcome::Failed(label("why").unwrap_or_default().replace('-', " ")),
            _ if label("ready") == Some(&own) => Outcome::Ready,
            _ => Outcome::Begun,
        }
    }

    /// What it is called in JSON.
    pub(crate) fn word(&self) -> Option<&'static str> {
        match self {
            Outcome::Unknown => None,
            Outcome::Begun => Some("unfinished"),
            Outcome::Ready => Some("ready"),
            Outcome::Failed(_) => Some("failed"),
        }
    }

    /// Why it failed, if it did.
    pub(crate) fn why(&self) -> Option<&str> {
        match self {
            Outcome::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// The labels that record it.
    fn labels(&self, number: u32) -> BTreeMap<&'static str, String> {
        if *self == Outcome::Unknown {
            return BTreeMap::new();
        }
        let mut labels = BTreeMap::from([("xtask", number.to_string())]);
        match self {
            Outcome::Ready => {
                labels.insert("ready", number.to_string());
            }
            Outcome::Failed(why) => {
                labels.insert("outcome", format!("failed-{number}"));
                labels.insert("why", why.replace(' ', "-"));
            }
            _ => {}
        }
        labels
    }
}

impl Revision {
    /// The revision that a Secret with these labels holds, if it's one of helm's.
    fn of(secret: PartialObject) -> Option<Revision> {
        let mut labels = secret.metadata.labels;
        let number = labels.get("version")?.parse().ok()?;
        let outcome = Outcome::of(&labels, number);
        let is_recorded = outcome != Outcome::Unknown;
        let is_of_others = !is_recorded && labels.contains_key("xtask");
        // Before there was a record, our revisions had these two.
        let had_our_labels = labels.contains_key("actor") && labels.contains_key("tree");
        Some(Revision {
            number,
            status: labels.remove("status")?,
            commit: labels.remove("commit"),
            has_changes: labels.get("tree").is_some_and(|it| it == "changed"),
            created: secret.metadata.creation_timestamp,
            is_of_others,
            // Of another revision's label nobody knows whether it still holds.
            cluster: labels.remove("cluster").filter(|_| is_recorded),
            secret: secret.metadata.name,
            uid: secret.metadata.uid,
            resource_version: secret.metadata.resource_version,
            outcome,
            is_retiring: labels.get("retiring") == labels.get("version"),
            descends_from_ours: had_our_labels || labels.contains_key("xtask"),
            modified: modified(&labels),
            given: labels.get("given").and_then(|it| own_given(it, number)),
            actor: labels.remove("actor").filter(|_| !is_of_others),
        })
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.status.starts_with("pending-")
    }

    /// When helm last wrote it, as people read it.
    pub(crate) fn time(&self) -> Option<String> {
        const YEAR_10000: u64 = 253_402_300_800;
        let seconds = self.modified.filter(|it| *it < YEAR_10000)?;
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        Some(humantime::format_rfc3339_seconds(time).to_string())
    }

    /// Whether we began it, and have not recorded how it went.
    pub(crate) fn is_begun(&self) -> bool {
        self.outcome == Outcome::Begun
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_)) || self.status == "failed"
    }

    /// Whether helm could not apply it.
    pub(crate) fn was_not_applied(&self) -> bool {
        self.status == "failed" || self.outcome == Outcome::Failed(NOT_APPLIED.to_owned())
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.outcome == Outcome::Ready
    }

    /// Whether helm deployed it, it was ready, and helm was given what has this digest.
    pub(crate) fn was_ready_as_given(&self, digest: &str) -> bool {
        self.is_ready() && self.status == "deployed" && self.given.as_deref() == Some(digest)
    }

    /// Whether this is the same revision: another one of its number may have come after an uninstallation.
    pub(crate) fn is(&self, other: &Revision) -> bool {
        self.number == other.number && self.uid == other.uid
    }

    /// Whether helm deployed it, and it was ready as far as anybody knows.
    pub(crate) fn may_be_as_it_was(&self) -> bool {
        let is_known_bad = !self.is_ready() && self.outcome != Outcome::Unknown;
        self.status == "deployed" && !is_known_bad
    }

    /// Whether helm deployed it, and nothing is recorded of how that went.
    pub(crate) fn was_deployed_by_others(&self) -> bool {
        let is_deployed = ["deployed", "superseded"].contains(&self.status.as_str());
        is_deployed && self.outcome == Outcome::Unknown
    }

    /// helm's status, with what we know besides: `failed: not ready`, `deployed, unfinished`.
    pub(crate) fn state(&self) -> String {
        match &self.outcome {
            Outcome::Failed(why) => format!("failed: {why}"),
            Outcome::Begun => format!("{}, unfinished", self.status),
            Outcome::Ready | Outcome::Unknown => self.status.clone(),
        }
    }

    /// Whether it was ready, for people: `ready`, `failed: not ready`, or helm's status if nothing is known.
    pub(crate) fn verdict(&self) -> String {
        match self.outcome {
            Outcome::Ready => "ready".to_owned(),
            _ => self.state(),
        }
    }

    /// Who made it, for people.
    pub(crate) fn who(&self) -> &str {
        match &self.actor {
            Some(actor) => actor,
            None if self.is_of_others => "somebody's helm",
            None => "-",
        }
    }

    /// The commit that it was deployed from, if that is known.
    pub(crate) fn own_commit(&self) -> Option<&str> {
        self.commit.as_deref().filter(|_| !self.is_of_others)
    }

    /// `4 (superseded, commit 0123456789ab)`
    pub(crate) fn shown(&self) -> String {
        let mut details = vec![self.status.clone()];
        match &self.outcome {
            Outcome::Ready => details.push("was ready".to_owned()),
            Outcome::Failed(why) => details.push(why.clone()),
            _ => {}
        }
        if let Some(commit) = self.own_commit() {
            details.push(format!("commit {}", short(commit)));
        }
        format!("{} ({})", self.number, details.join(", "))
    }

    /// All that helm keeps of it, as in `Newest::content`.
    pub(crate) fn content(&self, api: &Api, release: &str) -> Result<Value> {
        content(&api.get(&path(release, &self.secret))?)
    }
}

/// The label that records with a revision what helm was given for it.
pub(crate) fn given_label(digest: &str, number: u32) -> String {
    format!("{digest}-{number}")
}

/// The digest in such a label, unless it came from another revision.
fn own_given(label: &str, number: u32) -> Option<String> {
    let digest = label.strip_suffix(&format!("-{number}"));
    digest.map(str::to_owned)
}

/// A commit as people read it.
pub(crate) fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// When helm last wrote a Secret with these labels.
fn modified(labels: &BTreeMap<String, String>) -> Option<u64> {
    let label = labels.get("modifiedAt").or(labels.get("createdAt"));
    label?.parse().ok()
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
        self.revision.content(api, &self.namespace)
    }
}

/// The manifest in what helm keeps of a revision, or of a hook.
pub(crate) fn manifest(content: &Value) -> &str {
    content["manifest"].as_str().unwrap_or_default()
}

/// The hooks in what helm keeps of a revision.
pub(crate) fn hooks(content: &Value) -> impl Iterator<Item = &Value> {
    content["hooks"].as_array().into_iter().flatten()
}

/// The values of a revision that may be secret: all that people set, but for what the chart has by default or `is_plain` at
/// its path. Nobody can tell any more which files they came from.
pub(crate) fn secrets(content: &Value, is_plain: impl Fn(&[&str], &Value) -> bool) -> Vec<Value> {
    let defaults = &content["chart"]["values"];
    let mut found = Vec::new();
    each_leaf(&content["config"], &[], &mut |path, value| {
        if at(defaults, path) != Some(value) && !is_plain(path, value) {
            found.push(value.clone());
        }
    });
    found
}

/// Calls `f` with each text, number and boolean, and its path of keys and of numbers from 0.
pub(crate) fn each_leaf(value: &Value, path: &[&str], f: &mut impl FnMut(&[&str], &Value)) {
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

/// What is at a path of keys and numbers.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |it, step| child(it, step))
}

fn child<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        value => value.get(step),
    }
}

/// The texts of those values that are long enough to be found in others.
pub(crate) fn secret_texts(
    content: &Value,
    is_plain: impl Fn(&[&str], &Value) -> bool,
) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for value in secrets(content, is_plain) {
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

/// The names of the releases in a namespace.
pub(crate) fn releases_in(api: &Api, namespace: &str) -> Result<BTreeSet<String>> {
    let secrets = api.metadata(&format!(
        "/api/v1/namespaces/{namespace}/secrets?labelSelector=owner%3Dhelm"
    ))?;
    let labels = secrets.items.into_iter().map(|it| it.metadata.labels);
    Ok(labels.filter_map(|mut it| it.remove("name")).collect())
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
    let mut json = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut json)?;
    Ok(objects::from_json(&json)?)
}

/// Records how a revision of one of our releases went. Unless one of us has made it already, `actor` does so now.
/// `more` is another label, with its value.
pub(crate) fn mark(
    api: &Api,
    release: &str,
    revision: &Revision,
    cluster: &str,
    actor: &str,
    outcome: &Outcome,
    more: Option<(&'static str, String)>,
) -> Result<()> {
    let number = revision.number;
    let mut labels = outcome.labels(number);
    if !labels.is_empty() {
        let is_recorded = revision.outcome != Outcome::Unknown;
        let recorded = revision.actor.as_deref().filter(|_| is_recorded);
        labels.insert("cluster", label(cluster));
        labels.insert("actor", label(recorded.unwrap_or(actor)));
    }
    labels.extend(more);
    // With the uid, a Secret that is gone isn't made anew.
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": revision.secret, "uid": revision.uid, "labels": labels},
    });
    let path = path(release, &revision.secret);
    api.apply(&path, &secret)
        .with_context(|| format!("cannot record how revision {number} went"))
}

/// A label's value holds letters, digits, `-`, `_` and `.`, 63 at most, and begins and ends with one of the first two:
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>
pub(crate) fn label(text: &str) -> String {
    let is_allowed = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
    let text: String = text
        .chars()
        .map(|it| if is_allowed(it) { it } else { '-' })
        .take(63)
        .collect();
    text.trim_matches(|it: char| !it.is_ascii_alphanumeric())
        .to_owned()
}

/// What helm keeps of a revision, after a change of its manifest; none leaves it as it is.
pub(crate) fn with_manifest(
    api: &Api,
    release: &str,
    revision: &Revision,
    change: impl Fn(&str) -> Result<Option<String>>,
) -> Result<Value> {
    rewrite(api, release, revision, |kept| {
        let Some(changed) = change(manifest(kept))? else {
            return Ok(false);
        };
        kept["manifest"] = changed.into();
        Ok(true)
    })
}

/// Marks a revision as failed that our own helm could not end because it no longer reached the API server, as helm would
/// have done. The next upgrade or rollback then finds nothing pending.
pub(crate) fn fail(api: &Api, release: &str, revision: &Revision) -> Result<Value> {
    rewrite(api, release, revision, |kept| {
        kept["info"]["status"] = "failed".into();
        kept["info"]["description"] = "helm lost the API server".into();
        Ok(true)
    })
}

/// What helm keeps of a revision, after a change. `change` says whether there is one.
fn rewrite(
    api: &Api,
    release: &str,
    revision: &Revision,
    change: impl Fn(&mut Value) -> Result<bool>,
) -> Result<Value> {
    let path = path(release, &revision.secret);
    loop {
        let mut secret = api.get(&path)?;
        let mut kept = content(&secret)?;
        if !change(&mut kept)? {
            return Ok(kept);
        }
        secret["metadata"]["labels"]["status"] = kept["info"]["status"].clone();
        secret["data"]["release"] = packed(&kept)?.into();
        let read_back = match api.send("PUT", &path, &secret) {
            // Somebody has changed it, or we have, and the answer did not reach us.
            Err(err) if api::status(&err) == Some(409) => {
                process::check_stopped()?;
                continue;
            }
            changed => content(&changed?)?,
        };
        ensure!(
            manifest(&read_back) == manifest(&kept),
            "helm's Secret was not changed"
        );
        return Ok(read_back);
    }
}

/// Forgets the oldest revisions of a release, but never the newest ready one nor one that is deployed: helm itself
/// would forget the last good revision after ten bad ones.
pub(crate) fn prune(api: &Api, release: &str, revisions: &[Revision]) -> Result<()> {
    let good = newest_good(revisions).map(|it| it.number);
    let excess = revisions.len().saturating_sub(REVISIONS_KEPT);
    for revision in &revisions[..excess] {
        if Some(revision.number) != good && revision.status != "deployed" {
            let options = json!({"preconditions": {"uid": revision.uid}});
            api.delete(&path(release, &revision.secret), &options)?;
        }
    }
    Ok(())
}

/// The newest ready revision or, if none is recorded as ready, the newest one of others that helm deployed.
pub(crate) fn newest_good(revisions: &[Revision]) -> Option<&Revision> {
    let newest_first = || revisions.iter().rev();
    let ready = newest_first().find(|it| it.is_ready());
    ready.or_else(|| newest_first().find(|it| it.was_deployed_by_others()))
}

/// The opposite of `content`.
fn packed(content: &Value) -> Result<String> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(content.to_string().as_bytes())?;
    Ok(BASE64_STANDARD.encode(BASE64_STANDARD.encode(gzip.finish()?)))
}
