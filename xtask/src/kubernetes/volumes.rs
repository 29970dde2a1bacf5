//! Volumes and the claims to them: none is deleted but by a command that names it.
//!
//! In an upgrade and a rollback helm asks the live object whether it is to stay (`helm.sh/resource-policy: keep`), and
//! when it uninstalls a release, the newest revision's manifest as it keeps it (tried with helm 4.3.1). Both say so here,
//! whatever the chart says: the live object by a field manager of our own, which helm's never overrule.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    kubernetes::{
        api::{self, Api},
        history::{self, Revision},
        manifests::{self, may_hold, objects_with},
        objects::{ObjectMeta, PartialObject},
    },
    machine::{process, terminal::list},
};

/// <https://helm.sh/docs/howto/charts_tips_and_tricks/#tell-helm-not-to-uninstall-a-resource>
pub(crate) const POLICY: &str = "helm.sh/resource-policy";

pub(crate) const CLAIM: &str = "PersistentVolumeClaim";

/// How long to wait for claims that are being deleted.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the kinds of claims, volumes and namespaces begin with.
const WORDS: [&str; 2] = ["PersistentVolume", "Namespace"];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Claim,
    Volume,
    /// Claims go with it.
    Namespace,
}

impl Kind {
    fn of(object: &Value) -> Option<Kind> {
        match object["kind"].as_str()? {
            CLAIM => Some(Kind::Claim),
            "PersistentVolume" => Some(Kind::Volume),
            "Namespace" => Some(Kind::Namespace),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Claim => CLAIM,
            Kind::Volume => "PersistentVolume",
            Kind::Namespace => "Namespace",
        }
    }
}

/// An object that holds what users have written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Volume {
    pub(crate) kind: Kind,
    /// Of a claim.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Volume {
    /// The object, if it is of one of these kinds.
    fn of(object: &Value, release: &str) -> Option<Volume> {
        Some(Volume {
            kind: Kind::of(object)?,
            namespace: manifests::namespace_of(object, release).to_owned(),
            name: object["metadata"]["name"].as_str()?.to_owned(),
        })
    }

    pub(crate) fn claim(namespace: &str, name: &str) -> Volume {
        Volume {
            kind: Kind::Claim,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// As it would be in a manifest.
    pub(crate) fn object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": self.kind.name(),
            "metadata": {"name": self.name, "namespace": self.namespace},
        })
    }

    /// A claim as `--delete-volumes` names it: with its namespace, if that isn't the release's.
    pub(crate) fn named(text: &str, release: &str) -> Volume {
        let (namespace, name) = text.split_once('/').unwrap_or((release, text));
        Volume::claim(namespace, name)
    }

    pub(crate) fn shown(&self, release: &str) -> String {
        if self.namespace == release {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }

    pub(crate) fn path(&self) -> Result<String> {
        let name = api::step(&self.name)?;
        Ok(match self.kind {
            Kind::Claim => format!("{}/{name}", claims_path(&self.namespace)?),
            Kind::Volume => format!("/api/v1/persistentvolumes/{name}"),
            Kind::Namespace => format!("/api/v1/namespaces/{name}"),
        })
    }
}

fn claims_path(namespace: &str) -> Result<String> {
    let namespace = api::step(namespace)?;
    Ok(format!(
        "/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    ))
}

/// The names of a namespace's claims.
pub(crate) fn claims(api: &Api, namespace: &str) -> Result<Vec<String>> {
    let claims = api.metadata(&claims_path(namespace)?)?.items.into_iter();
    Ok(claims.map(|it| it.metadata.name).collect())
}

/// The claims, volumes and namespaces in a manifest.
pub(crate) fn in_manifest(manifest: &str, release: &str) -> Result<BTreeSet<Volume>> {
    let objects = objects_with(manifest, &WORDS)?;
    let volumes = objects.iter().filter_map(|it| Volume::of(it, release));
    Ok(volumes.collect())
}

/// The claims in a release's namespace, whoever made them.
pub(crate) fn live_claims(api: &Api, release: &str) -> Result<Vec<PartialObject>> {
    Ok(api.metadata(&claims_path(release)?)?.items)
}

/// Those that helm made.
pub(crate) fn claims_of_helm(api: &Api, release: &str) -> Result<Vec<PartialObject>> {
    let path = claims_path(release)?;
    let of_helm = format!("{path}?labelSelector=app.kubernetes.io/managed-by%3DHelm");
    Ok(api.metadata(&of_helm)?.items)
}

/// Whether a claim goes with its owners. That of a volume that a pod brings along goes with each pod, and is not looked at:
/// <https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes>
pub(crate) fn is_owned(claim: &PartialObject) -> bool {
    let ObjectMeta {
        name,
        owner_references,
        ..
    } = &claim.metadata;
    let is_of_pod = owner_references.iter().any(|owner| {
        owner.controller && owner.kind == "Pod" && name.starts_with(&format!("{}-", owner.name))
    });
    !owner_references.is_empty() && !is_of_pod
}

/// Whether an upgrade may lose a claim, or may use one that goes.
pub(crate) fn is_at_risk(claim: &PartialObject) -> bool {
    is_owned(claim) || is_being_deleted(claim)
}

/// Keeps helm from deleting the claims and volumes that are in the cluster: those in the manifests of these revisions, as
/// helm keeps them, and those of the release's namespace (`claims`) that helm made for any other revision.
pub(crate) fn protect<'a>(
    api: &Api,
    release: &str,
    claims: &[PartialObject],
    contents: impl IntoIterator<Item = &'a Value>,
) -> Result<()> {
    let mut volumes = BTreeSet::new();
    for content in contents {
        volumes.extend(in_manifest(history::manifest(content), release)?);
    }
    for claim in claims {
        let labels = &claim.metadata.labels;
        let manager = labels.get("app.kubernetes.io/managed-by");
        if manager.is_some_and(|it| it == "Helm") {
            let volume = Volume::claim(release, &claim.metadata.name);
            keep(api, &volume, claim)?;
            volumes.remove(&volume);
        }
    }
    for volume in volumes {
        if let Some(live) = api.find_object(&volume.path()?)? {
            keep(api, &volume, &live)?;
        }
    }
    Ok(())
}

/// Has a live object stay whatever helm does.
fn keep(api: &Api, volume: &Volume, live: &PartialObject) -> Result<()> {
    if is_kept_by_us(live) {
        return Ok(());
    }
    // With the uid, an object that is gone isn't made anew.
    let object = json!({
        "apiVersion": "v1",
        "kind": volume.kind.name(),
        "metadata": {
            "name": volume.name,
            "uid": live.metadata.uid,
            "annotations": {POLICY: "keep"},
        },
    });
    match api.apply(&volume.path()?, &object) {
        // It has gone by itself.
        Err(err) if [404, 409].contains(&api::status(&err).unwrap_or_default()) => Ok(()),
        applied => applied.with_context(|| format!("cannot keep `{}` from helm", volume.name)),
    }
}

/// Whether a live object has our annotation already. We set nothing else on it.
fn is_kept_by_us(live: &PartialObject) -> bool {
    let metadata = &live.metadata;
    let mut managers = metadata.managed_fields.iter();
    metadata
        .annotations
        .get(POLICY)
        .is_some_and(|it| it == "keep")
        && managers.any(|it| it.manager == api::MANAGER)
}

/// Has helm leave a revision's claims and volumes when it uninstalls that. Returns what helm keeps of the revision.
pub(crate) fn keep_in_record(api: &Api, release: &str, revision: &Revision) -> Result<Value> {
    let content = history::with_manifest(api, release, revision, kept_manifest);
    content.with_context(|| {
        format!(
            "cannot record that the claims of revision {} are to stay",
            revision.number
        )
    })
}

/// A manifest whose claims and volumes are to stay, with each object of a `List` that has some by itself; none if it is
/// that already.
fn kept_manifest(manifest: &str) -> Result<Option<String>> {
    let mut kept = String::new();
    let mut is_changed = false;
    for document in manifests::documents(manifest) {
        let mut objects = document.value();
        let may_hold_some = may_hold(document.text, &WORDS);
        let is_kept = !may_hold_some || document.object().is_none_or(is_kept);
        if is_kept {
            kept += &format!("---\n{}{}\n", document.source_line(), document.text);
            continue;
        }
        is_changed = true;
        let single = [objects.take()];
        for mut object in manifests::taken_apart(single) {
            if Kind::of(&object).is_some() {
                let annotations = &mut object["metadata"]["annotations"];
                if !annotations.is_object() {
                    *annotations = json!({});
                }
                annotations[POLICY] = "keep".into();
            }
            kept += &format!("---\n{}{}\n", document.source_line(), json_in_yaml(&object));
        }
    }
    Ok(is_changed.then_some(kept))
}

/// A manifest as it is once its claims and volumes are to stay.
pub(crate) fn with_kept(manifest: &str) -> Result<String> {
    let kept = kept_manifest(manifest)?;
    Ok(kept.unwrap_or_else(|| manifest.to_owned()))
}

/// An object as helm reads it from YAML: in JSON, since YAML 1.1 and 1.2 differ in which words are no text (`yes`, `012`),
/// without characters that end a line or may not be in YAML.
fn json_in_yaml(object: &Value) -> String {
    let mut text = String::new();
    for letter in object.to_string().chars() {
        match letter {
            '\u{7f}'..='\u{a0}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                text += &format!("\\u{:04x}", u32::from(letter));
            }
            letter => text.push(letter),
        }
    }
    text
}

/// Whether helm leaves all claims and volumes in a document of a manifest.
fn is_kept(object: &Value) -> bool {
    let is_list = object["items"].is_array();
    let mut objects = manifests::taken_apart([object.clone()]).into_iter();
    objects.all(|it| {
        let is_single = !is_list && it["metadata"]["annotations"][POLICY] == "keep";
        Kind::of(&it).is_none() || is_single
    })
}

/// Whether helm leaves an object in the cluster that the next manifest does not have.
pub(crate) fn stays(object: &Value) -> bool {
    object["metadata"]["annotations"][POLICY] == "keep" || Kind::of(object).is_some()
}

/// The claims of one revision that another one does not have, and that stay in the cluster.
pub(crate) fn left_over(
    api: &Api,
    release: &str,
    before: &Value,
    after: &Value,
) -> Result<Vec<String>> {
    let mut left = in_manifest(history::manifest(before), release)?;
    for volume in in_manifest(history::manifest(after), release)? {
        left.remove(&volume);
    }
    let mut names = Vec::new();
    for volume in left {
        if volume.kind == Kind::Claim && api.find(&volume.path()?)?.is_some() {
            names.push(volume.shown(release));
        }
    }
    Ok(names)
}

/// Refuses to delete claims that a revision of this manifest has.
pub(crate) fn refuse_in_use(release: &str, names: &[String], manifest: &str) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let in_use = in_manifest(manifest, release)?;
    for name in names {
        ensure!(
            !in_use.contains(&Volume::named(name, release)),
            "the release still has the claim `{name}`, so it is not deleted"
        );
    }
    Ok(())
}

/// Deletes these claims of a release, and the volumes that the release made for them. `content` is the newest revision,
/// which must not have them any more; none if the release is gone.
pub(crate) fn delete(
    api: &Api,
    release: &str,
    names: &[String],
    content: Option<&Value>,
) -> Result<Vec<String>> {
    if let Some(content) = content {
        refuse_in_use(release, names, history::manifest(content))?;
    }
    let named: BTreeSet<_> = names.iter().map(|it| Volume::named(it, release)).collect();
    let mut deleted = Vec::new();
    for claim in named {
        let Some(live) = api.find(&claim.path()?)? else {
            continue;
        };
        if is_of_others(api, release, &claim, &live)? {
            continue;
        }
        delete_object(api, &claim, &live["metadata"]["uid"])?;
        delete_volume_of(api, release, &live)?;
        deleted.push(claim.shown(release));
    }
    Ok(deleted)
}

/// Deletes the volume that a claim was bound to, if helm made it for the release.
fn delete_volume_of(api: &Api, release: &str, claim: &Value) -> Result<()> {
    let Some(name) = claim["spec"]["volumeName"].as_str() else {
        return Ok(());
    };
    let volume = Volume {
        kind: Kind::Volume,
        namespace: String::new(),
        name: name.to_owned(),
    };
    let live = match api.find(&volume.path()?) {
        // Who has no rights on volumes has made none.
        Err(err) if api::status(&err) == Some(403) => None,
        found => found?,
    };
    let Some(live) = live else {
        return Ok(());
    };
    if is_made_for(&live, release) {
        delete_object(api, &volume, &live["metadata"]["uid"])?;
    }
    Ok(())
}

fn delete_object(api: &Api, volume: &Volume, uid: &Value) -> Result<()> {
    let options = json!({"preconditions": {"uid": uid}});
    let deleted = api.delete(&volume.path()?, &options);
    deleted.with_context(|| format!("cannot delete `{}`", volume.name))
}

/// Whether helm made a live object for the release.
pub(crate) fn is_made_for(live: &Value, release: &str) -> bool {
    let annotations = &live["metadata"]["annotations"];
    annotations["meta.helm.sh/release-name"] == release
        && annotations["meta.helm.sh/release-namespace"] == release
}

/// Whether a claim in another namespace is not this release's.
fn is_of_others(api: &Api, release: &str, claim: &Volume, live: &Value) -> Result<bool> {
    if claim.namespace == release {
        return Ok(false);
    }
    if live["metadata"]["annotations"]["meta.helm.sh/release-name"].is_string() {
        return Ok(!is_made_for(live, release));
    }
    Ok(!history::revisions(api, &claim.namespace)?.is_empty())
}

/// Reads an argument of `--delete-volumes`.
pub(crate) fn parse_name(text: &str) -> Result<String> {
    let name = text.trim();
    let mut steps = name.split('/');
    let is_name = steps.clone().count() <= 2 && steps.all(|it| !it.is_empty());
    ensure!(
        is_name && !name.contains(char::is_whitespace),
        "no volume claim is called `{text}`"
    );
    Ok(name.to_owned())
}

/// Those of these claims that the release's namespace has, or that are the release's own in another one.
pub(crate) fn find(api: &Api, release: &str, names: &[String]) -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    for name in names {
        let claim = Volume::named(name, release);
        if let Some(live) = api.find(&claim.path()?)?
            && !is_of_others(api, release, &claim, &live)?
        {
            found.push((name.clone(), live));
        }
    }
    Ok(found)
}

/// Refuses names of claims that none of these namespaces has, and those that several have.
pub(crate) fn refuse_unknown(api: &Api, namespaces: &[&str], names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut found: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    let mut known = Vec::new();
    for namespace in namespaces {
        for (name, _) in find(api, namespace, names)? {
            found.entry(name).or_default().push(namespace);
        }
        known.extend(claims(api, namespace)?);
    }
    let unknown: Vec<_> = names.iter().filter(|it| !found.contains_key(*it)).collect();
    ensure!(
        unknown.is_empty(),
        "no volume claim is called {}; there are: {}",
        list(unknown),
        list(known)
    );
    if let Some((name, hubs)) = found.iter().find(|it| it.1.len() > 1) {
        bail!(
            "several releases have a volume claim `{name}`: {}\nhint: name those that are to go as `{}/{name}`",
            list(hubs),
            hubs[0]
        );
    }
    Ok(())
}

/// Waits until no claim that a manifest uses is being deleted: it would go while the release has it. An error if that does
/// not end.
pub(crate) fn wait_for_deleted(
    api: &Api,
    release: &str,
    manifest: &str,
    may_go_on: impl Fn() -> Result<()>,
) -> Result<()> {
    let objects = manifests::objects(manifest)?;
    let started = Instant::now();
    let mut is_said = false;
    loop {
        let mut going = live_claims(api, release)?;
        going.retain(|it| is_being_deleted(it) && uses(&objects, release, &it.metadata.name));
        let names = list(going.iter().map(|it| &it.metadata.name));
        if going.is_empty() {
            return Ok(());
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "somebody has deleted the volume claims {names}: they go as soon as no pod uses them, and the release would \
             lose them then\nhint: deploy again when they are gone; `kubectl describe pvc` tells what still uses them"
        );
        if !is_said {
            say!(
                "{release}: waiting for the end of the volume claims {names}, which are being deleted"
            );
            is_said = true;
        }
        may_go_on()?;
        process::check_stopped()?;
        thread::sleep(Duration::from_millis(500));
    }
}

pub(crate) fn is_being_deleted(object: &PartialObject) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

/// Whether one of these objects is a claim in the release's namespace, mounts it, or makes it for its pods.
fn uses(objects: &[Value], release: &str, claim: &str) -> bool {
    objects.iter().any(|object| {
        let mut is_mounted = false;
        history::each_leaf(object, &[], &mut |path, value| {
            is_mounted |= path.last() == Some(&"claimName") && value == claim;
        });
        let volume = Volume::of(object, release);
        volume == Some(Volume::claim(release, claim))
            || is_mounted
            || ordinal_of_claim(object, claim).is_some()
    })
}

/// The number of the pod that a StatefulSet has a claim for, if it is one of its claims.
pub(crate) fn ordinal_of_claim(set: &Value, claim: &str) -> Option<u64> {
    let name = set["metadata"]["name"].as_str()?;
    let templates = set["spec"]["volumeClaimTemplates"].as_array()?;
    templates.iter().find_map(|template| {
        let template = template["metadata"]["name"].as_str()?;
        let ordinal = claim.strip_prefix(&format!("{template}-{name}-"))?;
        ordinal.parse().ok()
    })
}
