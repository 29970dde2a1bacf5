//! Volume claims that would go with what helm deletes, although helm leaves claims.

mod chart_texts;
mod owners;

use std::{collections::BTreeSet, fmt, ops::Range};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{
    kubernetes::{
        api::{self, Api},
        history,
        manifests::{self, objects_with},
        volumes::{self, CLAIM, Kind, Volume, claims, in_manifest},
    },
    machine::workflow,
};

pub(crate) use crate::kubernetes::losses::chart_texts::ChartTexts;

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
        let hooks = content["hooks"].as_array().into_iter().flatten();
        Objects {
            manifest: history::manifest(content),
            hooks: hooks.map(HookObject::of).collect(),
        }
    }

    /// The hooks of these events.
    fn hooks_of(&self, events: [&str; 2]) -> Vec<&HookObject<'a>> {
        let is_of = |hook: &&HookObject| hook.events.iter().any(|it| events.contains(it));
        self.hooks.iter().filter(is_of).collect()
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
    Ok(
        objects_with(objects.manifest, &["volumeClaimTemplates", "Namespace"])?
            .iter()
            .any(has_claims)
            || objects.hooks.iter().any(|it| it.manifest.contains(CLAIM)),
    )
}

/// Whether a manifest has claims that are not in the cluster.
pub(crate) fn brings_new_ones(api: &Api, release: &str, manifest: &str) -> Result<bool> {
    for volume in in_manifest(manifest, release)? {
        if api.find(&volume.path()?)?.is_none() {
            return Ok(true);
        }
    }
    // A StatefulSet that is new may take over claims that are there.
    let objects = objects_with(manifest, &["whenDeleted"])?;
    Ok(objects
        .iter()
        .any(|it| it["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"))
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
    let named: Vec<_> = named.iter().map(|it| Volume::named(it, release)).collect();
    let objects = manifests::objects(before.manifest)?;
    let stays = match after {
        Some(after) => manifests::objects(after.manifest)?,
        None => Vec::new(),
    };
    let mut losses = losses_of_objects(api, release, &objects, &stays)?;
    let hooks = after.unwrap_or(before).hooks_of(events);
    losses.extend(losses_of_hooks(api, release, &hooks)?);
    let deleted = deleted(release, objects, &stays, &hooks, &named)?;
    let owned = owners::losses(api, release, deleted, after.is_none())?;
    losses.extend(owned.into_iter().map(|(claim, with)| Loss { claim, with }));
    let mut claims = BTreeSet::from_iter(named);
    losses.retain(|it| claims.insert(it.claim.clone()));
    if losses.is_empty() {
        return Ok(());
    }
    let names = losses.iter().map(|it| it.claim.shown(release));
    let names: Vec<_> = names.collect();
    bail!(
        "volume claims would be deleted: {}\nhint: {} names them, if they are to go",
        losses
            .iter()
            .map(Loss::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        workflow::at_terminal(&format!("--delete-volumes {}", names.join(",")))
    )
}

/// What an operation deletes: the objects that come no more, those of hooks, which helm makes anew or deletes afterwards,
/// and the claims that are named.
fn deleted(
    release: &str,
    before: Vec<Value>,
    stays: &[Value],
    hooks: &[&HookObject],
    named: &[Volume],
) -> Result<Vec<Value>> {
    let mut deleted = before;
    deleted.retain(|object| {
        !volumes::stays(object) && !stays.iter().any(|it| is_same(it, object, release))
    });
    for hook in hooks {
        deleted.extend(manifests::objects(hook.manifest)?);
    }
    deleted.extend(named.iter().map(Volume::object));
    Ok(deleted)
}

/// The claims that go with namespaces and StatefulSets which are no more.
fn losses_of_objects(
    api: &Api,
    release: &str,
    before: &[Value],
    stays: &[Value],
) -> Result<Vec<Loss>> {
    let mut losses = Vec::new();
    for object in before {
        let next = stays.iter().find(|it| is_same(it, object, release));
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
            losses.extend(losses_of_set(api, release, object, None)?);
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
    let mut losses = Vec::new();
    for claim in claims(api, namespace)? {
        let is_lost = volumes::ordinal_of_claim(&live, &claim).is_some_and(|it| {
            !remaining.contains(&it) && are_scaled.as_ref().is_none_or(|all| all.contains(&it))
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
fn losses_of_hooks(api: &Api, release: &str, hooks: &[&HookObject]) -> Result<Vec<Loss>> {
    let mut losses = Vec::new();
    for hook in hooks {
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
