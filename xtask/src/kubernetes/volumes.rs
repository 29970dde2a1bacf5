//! Volumes and the claims to them: none is deleted but by a command that names it.
//!
//! In an upgrade and a rollback helm asks the live object whether it is to stay (`helm.sh/resource-policy: keep`), and
//! when it uninstalls a release, the newest revision's manifest as it keeps it (tried with helm 4.3.1). Both say so here,
//! whatever the chart says: the live object by a field manager of our own, which helm's never overrule.

use std::{collections::BTreeSet, fmt, fs, ops::Range};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    charts,
    kubernetes::{
        api::{self, Api},
        helm::Release,
        history::{self, Revision},
        manifests,
        objects::PartialObject,
    },
    machine::terminal::list,
};

/// <https://helm.sh/docs/howto/charts_tips_and_tricks/#tell-helm-not-to-uninstall-a-resource>
const POLICY: &str = "helm.sh/resource-policy";

const CLAIM: &str = "PersistentVolumeClaim";
const HOOK: &str = "helm.sh/hook";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
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
    kind: Kind,
    /// Of a claim.
    namespace: String,
    name: String,
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

    fn claim(namespace: &str, name: &str) -> Volume {
        Volume {
            kind: Kind::Claim,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// A claim as `--delete-volumes` names it: with its namespace, if that isn't the release's.
    fn named(text: &str, release: &str) -> Volume {
        let (namespace, name) = text.split_once('/').unwrap_or((release, text));
        Volume::claim(namespace, name)
    }

    fn shown(&self, release: &str) -> String {
        if self.namespace == release {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }

    fn path(&self) -> Result<String> {
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
fn in_manifest(manifest: &str, release: &str) -> Result<BTreeSet<Volume>> {
    let objects = manifests::objects(manifest)?;
    let volumes = objects.iter().filter_map(|it| Volume::of(it, release));
    Ok(volumes.collect())
}

/// Keeps helm from deleting the claims and volumes that are in the cluster: those in the manifests of these revisions, as
/// helm keeps them, and those in the release's namespace that helm made for any other revision.
pub(crate) fn protect<'a>(
    api: &Api,
    release: &str,
    contents: impl IntoIterator<Item = &'a Value>,
) -> Result<()> {
    let mut volumes = BTreeSet::new();
    for content in contents {
        volumes.extend(in_manifest(history::manifest(content), release)?);
    }
    let path = claims_path(release)?;
    let made_by_helm = api.metadata(&format!(
        "{path}?labelSelector=app.kubernetes.io/managed-by%3DHelm"
    ))?;
    for claim in made_by_helm.items {
        let volume = Volume::claim(release, &claim.metadata.name);
        keep(api, &volume, claim)?;
        volumes.remove(&volume);
    }
    for volume in volumes {
        if let Some(live) = api.find_object(&volume.path()?)? {
            keep(api, &volume, live)?;
        }
    }
    Ok(())
}

/// Has a live object stay whatever helm does.
fn keep(api: &Api, volume: &Volume, live: PartialObject) -> Result<()> {
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

/// Has helm leave a revision's claims and volumes when it uninstalls that. Returns what helm keeps of the revision.
pub(crate) fn keep_in_record(api: &Api, release: &str, revision: &Revision) -> Result<Value> {
    let content = history::with_manifest(api, release, revision, kept_manifest);
    let content = content.and_then(|content| {
        let is_kept = kept_manifest(history::manifest(&content))?.is_none();
        ensure!(is_kept, "helm's Secret was not changed");
        Ok(content)
    });
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
        let is_kept = document.object().is_none_or(is_kept);
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

/// What helm applies: the manifest and the hooks of a revision as helm keeps it, or of one that is to come.
#[derive(Default)]
pub(crate) struct Objects<'a> {
    pub(crate) manifest: &'a str,
    pub(crate) hooks: Vec<HookObject<'a>>,
}

/// A hook's object, with the events that it is made for.
pub(crate) struct HookObject<'a> {
    pub(crate) events: Vec<&'a str>,
    pub(crate) manifest: &'a str,
}

impl<'a> Objects<'a> {
    /// Those of a revision.
    pub(crate) fn of(content: &'a Value) -> Objects<'a> {
        Objects {
            manifest: history::manifest(content),
            hooks: history::hooks(content).map(HookObject::of).collect(),
        }
    }
}

impl<'a> HookObject<'a> {
    pub(crate) fn of(hook: &'a Value) -> HookObject<'a> {
        let events = hook["events"].as_array().into_iter().flatten();
        HookObject {
            events: events.filter_map(Value::as_str).collect(),
            manifest: history::manifest(hook),
        }
    }
}

/// Whether there may be claims that go with other objects than themselves: only then need it be known what comes next.
pub(crate) fn may_lose(objects: &Objects) -> Result<bool> {
    let has_claims = |object: &Value| {
        object["kind"] == "Namespace" || object["spec"]["volumeClaimTemplates"].is_array()
    };
    Ok(manifests::objects(objects.manifest)?.iter().any(has_claims)
        || objects.hooks.iter().any(|it| it.manifest.contains(CLAIM)))
}

/// Whether a manifest has claims that are not in the cluster.
pub(crate) fn brings_new_ones(api: &Api, release: &str, manifest: &str) -> Result<bool> {
    for volume in in_manifest(manifest, release)? {
        if api.find(&volume.path()?)?.is_none() {
            return Ok(true);
        }
    }
    // A StatefulSet that is new may take over claims that are there.
    let objects = manifests::objects(manifest)?;
    Ok(objects
        .iter()
        .any(|it| it["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"))
}

/// Whether a chart or the values of a release may make hooks of claims.
pub(crate) fn may_have_hooks(release: &Release) -> Result<bool> {
    let mut contents = charts::cached_texts(release.chart)?;
    for values in &release.values {
        let content = fs::read(values)
            .with_context(|| format!("cannot read the values of `{}`", release.name))?;
        contents.push(content);
    }
    let texts: Vec<_> = contents
        .iter()
        .map(|it| String::from_utf8_lossy(it))
        .collect();
    // A template may have its hook from a helper in another file.
    let with_hooks = texts.iter().filter(|it| it.contains(HOOK));
    let helpers: Vec<_> = with_hooks.flat_map(|it| helpers_in(it)).collect();
    Ok(texts.iter().any(|text| {
        let has_claims = text.contains(CLAIM) || has_kind(text, "Namespace");
        let has_hook = text.contains(HOOK) || helpers.iter().any(|it| text.contains(it));
        has_claims && has_hook || text.contains("volumeClaimTemplates")
    }))
}

/// The names, in quotes, of the helpers that a template defines.
fn helpers_in(text: &str) -> impl Iterator<Item = &str> {
    let definitions = text.split("define ").skip(1);
    definitions.filter_map(|it| {
        let end = it.trim_start().strip_prefix('"')?.find('"')?;
        it.trim_start().get(..end + 2)
    })
}

/// Whether there is an object of a kind in a text, in quotes or not.
fn has_kind(text: &str, kind: &str) -> bool {
    text.match_indices(kind).any(|(at, _)| {
        let before = text[..at].trim_end_matches(['"', '\'', '\\', ' ', '\t']);
        before.ends_with(':')
    })
}

/// A claim that goes although helm leaves claims.
struct Loss {
    claim: Volume,
    /// What it goes with.
    with: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Volume {
            namespace, name, ..
        } = &self.claim;
        write!(f, "`{namespace}/{name}` with {}", self.with)
    }
}

/// Refuses to go from one revision's objects to others' if claims would go with what helm deletes: a namespace, a
/// StatefulSet that takes its claims along, a hook. `named` are those that may go, and helm runs the hooks of `events`.
pub(crate) fn refuse_losses(
    api: &Api,
    release: &str,
    before: &Objects,
    after: Option<&Objects>,
    events: [&str; 2],
    named: &[String],
) -> Result<()> {
    let mut losses = losses_of_objects(api, release, before, after)?;
    let hooks = after.unwrap_or(before);
    losses.extend(losses_of_hooks(api, release, hooks, events)?);
    let named: Vec<_> = named.iter().map(|it| Volume::named(it, release)).collect();
    losses.retain(|it| !named.contains(&it.claim));
    if losses.is_empty() {
        return Ok(());
    }
    let names = losses.iter().map(|it| it.claim.shown(release));
    let names: Vec<_> = names.collect();
    bail!(
        "volume claims would be deleted: {}\nhint: `--delete-volumes {}` names them, if they are to go",
        losses
            .iter()
            .map(Loss::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        names.join(",")
    )
}

/// The claims that go with namespaces and StatefulSets which are no more.
fn losses_of_objects(
    api: &Api,
    release: &str,
    before: &Objects,
    after: Option<&Objects>,
) -> Result<Vec<Loss>> {
    let stays = match after {
        Some(after) => manifests::objects(after.manifest)?,
        None => Vec::new(),
    };
    let mut losses = Vec::new();
    for object in manifests::objects(before.manifest)? {
        let next = stays.iter().find(|it| is_same(it, &object, release));
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        // helm leaves namespaces, too; a hub's own one stays with its claims.
        if object["kind"] == "Namespace" && next.is_none() && name != release {
            for claim in claims(api, name)? {
                losses.push(Loss {
                    claim: Volume::claim(name, &claim),
                    with: format!("the namespace `{name}`"),
                });
            }
        } else if object["kind"] == "StatefulSet" && next.is_none() {
            losses.extend(losses_of_set(api, release, &object, None)?);
        }
    }
    // Also those that the cluster has of a revision which failed.
    for next in stays.iter().filter(|it| it["kind"] == "StatefulSet") {
        losses.extend(losses_of_set(api, release, next, Some(next))?);
    }
    Ok(losses)
}

fn is_same(one: &Value, other: &Value, release: &str) -> bool {
    let key = |it: &Value| {
        [
            it["kind"].clone(),
            it["metadata"]["name"].clone(),
            manifests::namespace_of(it, release).into(),
        ]
    };
    key(one) == key(other)
}

/// The claims that go when a StatefulSet goes, or when it gets fewer replicas:
/// <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#persistentvolumeclaim-retention>
/// The set in the cluster decides: what a manifest says of it may never have been applied.
fn losses_of_set(api: &Api, release: &str, set: &Value, next: Option<&Value>) -> Result<Vec<Loss>> {
    let name = set["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = manifests::namespace_of(set, release);
    let path = format!(
        "/apis/apps/v1/namespaces/{}/statefulsets/{}",
        api::step(namespace)?,
        api::step(name)?
    );
    let Some(live) = api.find(&path)? else {
        return Ok(Vec::new());
    };
    let policy_of = |set: &Value| set["spec"]["persistentVolumeClaimRetentionPolicy"].clone();
    let remaining = match next {
        None if policy_of(&live)["whenDeleted"] == "Delete" => 0..0,
        Some(next) if policy_of(next)["whenScaled"] == "Delete" => ordinals(next, &live),
        _ => return Ok(Vec::new()),
    };
    let are_scaled = next.map(|_| ordinals(&live, &live));
    let templates = live["spec"]["volumeClaimTemplates"].as_array();
    let mut losses = Vec::new();
    for claim in claims(api, namespace)? {
        let is_lost = templates.into_iter().flatten().any(|template| {
            let template = template["metadata"]["name"].as_str().unwrap_or_default();
            let ordinal = claim.strip_prefix(&format!("{template}-{name}-"));
            let ordinal = ordinal.and_then(|it| it.parse::<u64>().ok());
            ordinal.is_some_and(|it| {
                !remaining.contains(&it) && are_scaled.as_ref().is_none_or(|all| all.contains(&it))
            })
        });
        if is_lost {
            losses.push(Loss {
                claim: Volume::claim(namespace, &claim),
                with: format!("the StatefulSet `{name}`"),
            });
        }
    }
    Ok(losses)
}

/// The numbers of a StatefulSet's pods. Without replicas in its manifest it keeps those that it has.
fn ordinals(set: &Value, live: &Value) -> Range<u64> {
    let start = set["spec"]["ordinals"]["start"].as_u64().unwrap_or(0);
    let replicas = set["spec"]["replicas"].as_u64();
    let replicas = replicas.or(live["spec"]["replicas"].as_u64()).unwrap_or(1);
    start..start + replicas
}

/// The claims that helm deletes before it makes the hook's object anew, or after that.
fn losses_of_hooks(
    api: &Api,
    release: &str,
    objects: &Objects,
    events: [&str; 2],
) -> Result<Vec<Loss>> {
    let mut losses = Vec::new();
    for hook in &objects.hooks {
        if !hook.events.iter().any(|it| events.contains(it)) {
            continue;
        }
        for volume in in_manifest(hook.manifest, release)? {
            let claims = match volume.kind {
                Kind::Claim if api.find(&volume.path()?)?.is_some() => vec![volume.clone()],
                Kind::Namespace => {
                    let names = claims(api, &volume.name)?.into_iter();
                    names.map(|it| Volume::claim(&volume.name, &it)).collect()
                }
                _ => Vec::new(),
            };
            losses.extend(claims.into_iter().map(|claim| Loss {
                claim,
                with: format!("a hook ({})", hook.events.join(", ")),
            }));
        }
    }
    Ok(losses)
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

/// Refuses to delete claims that a revision has.
pub(crate) fn refuse_in_use(release: &str, names: &[String], content: &Value) -> Result<()> {
    let in_use = in_manifest(history::manifest(content), release)?;
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
        refuse_in_use(release, names, content)?;
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
    let annotations = &live["metadata"]["annotations"];
    let is_of_release = annotations["meta.helm.sh/release-name"] == release
        && annotations["meta.helm.sh/release-namespace"] == release;
    if is_of_release {
        delete_object(api, &volume, &live["metadata"]["uid"])?;
    }
    Ok(())
}

fn delete_object(api: &Api, volume: &Volume, uid: &Value) -> Result<()> {
    let options = json!({"preconditions": {"uid": uid}});
    let deleted = api.delete(&volume.path()?, &options);
    deleted.with_context(|| format!("cannot delete `{}`", volume.name))
}

/// Whether a claim in another namespace is not this release's.
fn is_of_others(api: &Api, release: &str, claim: &Volume, live: &Value) -> Result<bool> {
    if claim.namespace == release {
        return Ok(false);
    }
    let annotations = &live["metadata"]["annotations"];
    let owner = &annotations["meta.helm.sh/release-name"];
    if owner.is_string() {
        return Ok(owner != release || annotations["meta.helm.sh/release-namespace"] != release);
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

/// Refuses names of claims that none of these namespaces has.
pub(crate) fn refuse_unknown(api: &Api, namespaces: &[&str], names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut unknown: BTreeSet<_> = names.iter().collect();
    let mut known = Vec::new();
    for namespace in namespaces {
        for name in names {
            let claim = Volume::named(name, namespace);
            if let Some(live) = api.find(&claim.path()?)?
                && !is_of_others(api, namespace, &claim, &live)?
            {
                unknown.remove(name);
            }
        }
        known.extend(claims(api, namespace)?);
    }
    ensure!(
        unknown.is_empty(),
        "no volume claim is called {}; there are: {}",
        list(unknown),
        list(known)
    );
    Ok(())
}
