//! What helm keeps of a release in its namespace: a Secret for each revision.

use std::io::Read;

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::{api::Api, release::Helm};

/// A revision by its Secret's labels.
pub(crate) struct Revision {
    pub(crate) number: u32,
    /// `deployed`, `superseded`, `failed`, `pending-upgrade`, …
    pub(crate) status: String,
    secret: String,
}

/// The revisions that the cluster has of a release, the newest one last.
pub(crate) fn revisions(api: &Api, release: &str) -> Result<Vec<Revision>> {
    let path = format!("/api/v1/namespaces/{release}/secrets?labelSelector=owner%3Dhelm%2Cname%3D{release}");
    let list = api.metadata(&path)?;
    let found = list["items"].as_array().into_iter().flatten().filter_map(|it| {
        let labels = &it["metadata"]["labels"];
        Some(Revision {
            number: labels["version"].as_str()?.parse().ok()?,
            status: labels["status"].as_str()?.to_owned(),
            secret: it["metadata"]["name"].as_str()?.to_owned(),
        })
    });
    let mut revisions: Vec<_> = found.collect();
    revisions.sort_by_key(|it| it.number);
    Ok(revisions)
}

/// Makes a release whose last deploy was cut off one that helm upgrades again: rolled back, or, where nothing ever stood,
/// without the revision that was cut off. For who holds its Lease.
pub(crate) fn heal(api: &Api, helm: &Helm, release: &str) -> Result<()> {
    let revisions = revisions(api, release)?;
    let Some(last) = revisions.last().filter(|it| it.status.starts_with("pending-")) else { return Ok(()) };
    let is_good = |status: &str| revisions.iter().rev().find(|it| it.status == status);
    let secret = format!("/api/v1/namespaces/{release}/secrets/{}", last.secret);
    let cut_off = format!("revision {} was cut off ({})", last.number, last.status);
    remove_hook_jobs(api, release, &api.get(&secret)?).with_context(|| cut_off.clone())?;
    match is_good("deployed").or_else(|| is_good("superseded")) {
        Some(good) => {
            say!("{release}: {cut_off}: rolling back to revision {}", good.number);
            helm.roll_back(release, good.number).with_context(|| cut_off)
        }
        None => {
            say!("{release}: {cut_off}, and nothing stood before: removing what helm keeps of it");
            api.send("DELETE", &secret, &json!({})).with_context(|| cut_off)?;
            Ok(())
        }
    }
}

/// Removes jobs that hooks of a revision have left: helm makes them anew, and would find them in its way.
fn remove_hook_jobs(api: &Api, release: &str, secret: &Value) -> Result<()> {
    let data = secret["data"]["release"].as_str().context("its Secret has no `release`")?;
    // The API server's base64, helm's, and gzip.
    let packed = BASE64_STANDARD.decode(BASE64_STANDARD.decode(data)?)?;
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text)?;
    let content: Value = serde_json::from_str(&text)?;
    let hooks = content["hooks"].as_array().into_iter().flatten();
    for name in hooks.filter(|it| it["kind"] == "Job").filter_map(|it| it["name"].as_str()) {
        let path = format!("/apis/batch/v1/namespaces/{release}/jobs/{name}");
        if api.find(&path)?.is_some() {
            say!("{release}: removing the job `{name}` of a hook that was cut off");
            api.send("DELETE", &path, &json!({ "propagationPolicy": "Background" }))?;
        }
    }
    Ok(())
}
