//! What an image is there for, by its index or manifest: <https://github.com/opencontainers/image-spec/blob/main/image-index.md>.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    machine::paths,
    services::registry::{
        address::Repository,
        connection::{Connections, Question},
        reference::is_digest,
    },
};

/// What we understand as an image: indexes before manifests, since an index names them all.
pub(crate) const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// How deep indexes may be in others.
const DEEPEST: usize = 3;

/// The architectures that what has this digest is there for on Linux, sorted; none if it does not say. The cache keeps them:
/// what a digest names does not change.
pub(crate) fn architectures(
    connections: &Connections,
    repository: &Repository,
    digest: &str,
) -> Result<Vec<String>> {
    ensure!(is_digest(digest), "`{digest}` is no digest");
    let file = paths::cache()?
        .join("architectures")
        .join(digest.replace(':', "-"));
    if let Ok(known) = fs::read(&file)
        && let Ok(known) = serde_json::from_slice(&known)
    {
        return Ok(known);
    }
    let search = Search {
        connections,
        repository,
    };
    let mut found = BTreeSet::new();
    search.manifest(digest, DEEPEST, &mut found)?;
    let found = found.into_iter().collect();
    paths::write_whole(&file, &serde_json::to_vec(&found)?)?;
    Ok(found)
}

/// Looks through what a repository has.
struct Search<'a> {
    connections: &'a Connections,
    repository: &'a Repository,
}

impl Search<'_> {
    /// Adds the architectures of an index or manifest.
    fn manifest(&self, digest: &str, depth: usize, found: &mut BTreeSet<String>) -> Result<()> {
        let manifest = self.get("manifests", digest, MANIFESTS)?;
        let Some(listed) = manifest["manifests"].as_array() else {
            let config = manifest["config"]["digest"].as_str();
            let config = self.get(
                "blobs",
                config.context("a manifest without a config")?,
                "*/*",
            )?;
            found.extend(architecture_of(&config));
            return Ok(());
        };
        for entry in listed {
            let platform = &entry["platform"];
            if platform.is_object() {
                found.extend(architecture_of(platform));
                continue;
            }
            ensure!(depth > 0, "indexes in indexes in indexes");
            let digest = entry["digest"].as_str();
            let digest = digest.context("an index with an entry without a digest")?;
            self.manifest(digest, depth - 1, found)?;
        }
        Ok(())
    }

    /// The JSON that has this digest.
    fn get(&self, kind: &str, digest: &str, accept: &str) -> Result<Value> {
        ensure!(is_digest(digest), "`{digest}` is no digest");
        let question = Question {
            method: "GET",
            path: &format!("{kind}/{digest}"),
            accept,
        };
        let Some(mut answer) = self.connections.ask(self.repository, &question)? else {
            bail!("{} lacks {digest}", self.repository.host.name);
        };
        let content = answer.body_mut().read_to_vec()?;
        let got = digest_of(&content);
        ensure!(
            got == digest,
            "{} gives {got} for {digest}",
            self.repository.host.name
        );
        Ok(serde_json::from_slice(&content)?)
    }
}

/// What this has the digest of.
pub(crate) fn digest_of(content: &[u8]) -> String {
    format!("sha256:{}", paths::hex(&Sha256::digest(content)))
}

/// The architecture of a platform or a config, if that is one of Linux. What is signed or attested has `unknown`, and some
/// programs that build images leave it out or use the kernel's names.
fn architecture_of(platform: &Value) -> Option<String> {
    let is_linux = platform["os"].as_str().is_none_or(|it| it == "linux");
    let architecture = platform["architecture"].as_str().filter(|_| is_linux)?;
    let architecture = match architecture {
        "" | "unknown" => return None,
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Some(architecture.to_owned())
}
