//! Where the API server has the objects of a kind.

use std::{collections::BTreeMap, sync::Mutex};

use anyhow::Result;

use crate::kubernetes::{
    api::{self, Api},
    objects::{ApiResource, ApiResourceList},
};

/// What the API server knows of kinds of objects, as far as it was asked.
pub(crate) struct Resources<'a> {
    pub(crate) api: &'a Api,
    /// The kinds of API groups' versions, by the paths of these.
    known: Mutex<BTreeMap<String, Vec<ApiResource>>>,
}

impl<'a> Resources<'a> {
    pub(crate) fn new(api: &'a Api) -> Resources<'a> {
        Resources {
            api,
            known: Mutex::default(),
        }
    }

    /// The path of an object of this `apiVersion`, kind and name, in the namespace if it is in any; none if the API server
    /// does not know the kind.
    pub(crate) fn path(
        &self,
        version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<String>> {
        let base = version_path(version)?;
        let namespace = api::step(namespace)?;
        let name = api::step(name)?;
        let mut known = self.known.lock().expect("nobody panics with it");
        if !known.contains_key(&base) {
            let found: Option<ApiResourceList> = self.api.find_object(&base)?;
            known.insert(base.clone(), found.unwrap_or_default().resources);
        }
        // Subresources such as `deployments/status` are of their object's kind, too.
        let resource = known[&base]
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
}

/// The path of an API group's version: `/api/v1` or `/apis/apps/v1`.
fn version_path(version: &str) -> Result<String> {
    Ok(match version.split_once('/') {
        Some((group, version)) => format!("/apis/{}/{}", api::step(group)?, api::step(version)?),
        None => format!("/api/{}", api::step(version)?),
    })
}
