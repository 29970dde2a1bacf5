//! Claims that Kubernetes deletes with their owners:
//! <https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents>

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kubernetes::{
    api::Api,
    manifests,
    objects::{OwnerReference, PartialObject},
    resources::Resources,
    volumes::{self, Volume},
};

/// How many owners there may be above each other.
const DEPTH: usize = 16;

/// What retiring a hub deletes besides its release, if nothing owns it: users' servers and their Dask clusters.
const OF_USERS: [&str; 2] = ["Pod", "DaskCluster"];

/// The owners of a release's claims, and what becomes of them.
struct Owners<'a> {
    api: &'a Api,
    resources: Resources<'a>,
    release: &'a str,
    deleted: Vec<Value>,
    retires: bool,
}

/// What becomes of what has owners.
enum Fate {
    Stays,
    /// It goes with this object.
    Goes(String),
    /// None of its owners is there any more.
    HasNone,
}

/// The claims in the release's namespace whose owners all go, in the end, with what is `deleted` or, if the hub `retires`,
/// with what its users have; each with what it goes with.
pub(super) fn losses(
    api: &Api,
    release: &str,
    deleted: Vec<Value>,
    retires: bool,
) -> Result<Vec<(Volume, String)>> {
    let mut owners = Owners {
        api,
        resources: Resources::new(api),
        release,
        deleted,
        retires,
    };
    let mut losses = Vec::new();
    let claims = volumes::live_claims(api, release)?.into_iter();
    for claim in claims.filter(volumes::is_owned) {
        let name = &claim.metadata.name;
        let fate = owners.fate(&claim.metadata.owner_references, DEPTH);
        let fate =
            fate.with_context(|| format!("cannot tell what the claim `{name}` goes with"))?;
        if let Fate::Goes(with) = fate {
            losses.push((Volume::claim(release, name), with));
        }
    }
    Ok(losses)
}

impl Owners<'_> {
    /// What becomes of an object with these owners: it goes with the last one.
    fn fate(&mut self, owners: &[OwnerReference], depth: usize) -> Result<Fate> {
        let mut fate = Fate::HasNone;
        for owner in owners {
            match self.fate_of(owner, depth)? {
                Fate::Stays => return Ok(Fate::Stays),
                Fate::Goes(with) => fate = Fate::Goes(with),
                Fate::HasNone => {}
            }
        }
        Ok(fate)
    }

    fn fate_of(&mut self, owner: &OwnerReference, depth: usize) -> Result<Fate> {
        let OwnerReference { kind, name, .. } = owner;
        let goes = Fate::Goes(format!("the {kind} `{name}`"));
        if self.deleted.iter().any(|it| is(owner, it, self.release)) {
            return Ok(goes);
        }
        let version = &owner.api_version;
        let path = self.resources.path(version, kind, self.release, name)?;
        let Some(path) = path.filter(|_| depth > 0) else {
            return Ok(Fate::Stays);
        };
        let live: Option<PartialObject> = self.api.find_object(&path)?;
        let Some(live) = live.filter(|it| it.metadata.uid == owner.uid) else {
            return Ok(Fate::HasNone);
        };
        let owners = &live.metadata.owner_references;
        if owners.is_empty() {
            let is_of_user = OF_USERS.contains(&kind.as_str());
            return Ok(if self.retires && is_of_user {
                goes
            } else {
                Fate::Stays
            });
        }
        self.fate(owners, depth - 1)
    }
}

/// Whether an owner is this object of a manifest.
fn is(owner: &OwnerReference, object: &Value, release: &str) -> bool {
    let group = |version: &str| version.rsplit_once('/').map_or("", |it| it.0).to_owned();
    object["kind"] == owner.kind
        && object["metadata"]["name"] == owner.name
        && group(object["apiVersion"].as_str().unwrap_or_default()) == group(&owner.api_version)
        && manifests::namespace_of(object, release) == release
}
