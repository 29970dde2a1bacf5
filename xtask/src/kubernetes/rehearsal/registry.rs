//! The registry of a real node: what it holds, as the program `registry` lays it out in its folder
//! (<https://github.com/distribution/distribution/blob/v3.1.2/registry/storage/paths.go>).
//!
//! The folder is on the disk, since images are large and hold no secrets of ours. It is removed with the node.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    kubernetes::rehearsal::layout::Layout,
    machine::paths,
    services::registry::{digest_of, reference::Reference},
};

/// Where it answers, without TLS and passwords: to this machine, and to the node's containerd.
pub(crate) const ADDRESS: &str = "10.213.88.2:5000";

/// The file that says which digest something has.
const LINK: &str = "link";
/// The folder of a repository that has the folders of its tags.
const TAGS: &str = "_manifests/tags";

/// The folder of a registry.
pub(crate) struct Storage(PathBuf);

/// An image that a registry holds.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StoredImage {
    pub(crate) name: String,
    pub(crate) tag: String,
    /// The bytes that a first pull loads, if the node has none of its layers.
    pub(crate) size: u64,
}

impl Storage {
    pub(crate) fn at(folder: &Path) -> Storage {
        Storage(folder.join("docker/registry/v2"))
    }

    /// Adds the blobs of images. Both folders have to be on one file system: nothing is copied.
    pub(crate) fn add_blobs(&self, layout: &Layout) -> Result<()> {
        for (digest, file) in layout.blobs()? {
            let blob = self.blob(&digest);
            fs::create_dir_all(blob.parent().expect("a blob has a folder"))?;
            if !blob.exists() {
                fs::hard_link(&file, &blob)
                    .with_context(|| format!("cannot link `{}`", file.display()))?;
            }
        }
        Ok(())
    }

    /// Gives an image a name and a tag. All its blobs are there.
    pub(crate) fn tag(&self, name: &str, tag: &str, manifest: &str) -> Result<()> {
        let repository = self.0.join("repositories").join(name);
        let content: Value = serde_json::from_str(manifest)?;
        let layers = content["layers"].as_array().into_iter().flatten();
        for part in layers.chain([&content["config"]]) {
            let digest = part["digest"].as_str().unwrap_or_default();
            write_link(&repository.join("_layers").join(step(digest)), digest)?;
        }
        let digest = digest_of(manifest.as_bytes());
        let hash = step(&digest);
        write_link(
            &repository.join("_manifests/revisions").join(&hash),
            &digest,
        )?;
        let tag = repository.join(TAGS).join(tag);
        write_link(&tag.join("index").join(&hash), &digest)?;
        write_link(&tag.join("current"), &digest)
    }

    pub(crate) fn has(&self, name: &str, tag: &str) -> bool {
        let repository = self.0.join("repositories").join(name);
        repository.join(TAGS).join(tag).join("current").exists()
    }

    /// All images that have a tag, sorted.
    pub(crate) fn images(&self) -> Result<Vec<StoredImage>> {
        let mut found = Vec::new();
        self.add_images("", &self.0.join("repositories"), &mut found)?;
        found.sort();
        Ok(found)
    }

    fn add_images(&self, name: &str, folder: &Path, found: &mut Vec<StoredImage>) -> Result<()> {
        for tag in folders(&folder.join(TAGS))? {
            let current = folder.join(TAGS).join(&tag).join("current").join(LINK);
            // A push may be writing it.
            if let Ok(digest) = fs::read_to_string(current) {
                let name = name.to_owned();
                let size = self.size(digest.trim());
                found.push(StoredImage { name, tag, size });
            }
        }
        for part in folders(folder)? {
            if !part.starts_with('_') {
                let below = format!("{name}{}{part}", if name.is_empty() { "" } else { "/" });
                self.add_images(&below, &folder.join(part), found)?;
            }
        }
        Ok(())
    }

    /// The bytes of all that the manifest with this digest names, or that those manifests name which it lists.
    fn size(&self, digest: &str) -> u64 {
        let content = fs::read(self.blob(digest)).unwrap_or_default();
        let manifest: Value = serde_json::from_slice(&content).unwrap_or_default();
        let layers = manifest["layers"].as_array().into_iter().flatten();
        let listed = manifest["manifests"].as_array().into_iter().flatten();
        let listed = listed.filter_map(|it| it["digest"].as_str());
        let of_layers: u64 = layers.filter_map(|it| it["size"].as_u64()).sum();
        of_layers + listed.map(|it| self.size(it)).sum::<u64>()
    }

    fn blob(&self, digest: &str) -> PathBuf {
        let hash = digest.trim_start_matches("sha256:");
        let start = hash.get(..2).unwrap_or_default();
        self.0
            .join("blobs/sha256")
            .join(start)
            .join(hash)
            .join("data")
    }
}

/// A digest as a part of a path.
fn step(digest: &str) -> String {
    digest.replacen(':', "/", 1)
}

fn write_link(folder: &Path, digest: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    paths::write_whole(&folder.join(LINK), digest.as_bytes())
}

/// The names of the folders in a folder, which may be missing.
fn folders(parent: &Path) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

/// What a registry calls an image: its name without the host of the registry that it comes from.
pub(crate) fn repository(image: &Reference) -> String {
    let name = image.full_name();
    match name.split_once('/') {
        Some((_, repository)) => repository.to_owned(),
        None => name,
    }
}

/// The tag that is pulled if an image is named so.
pub(crate) fn tag(image: &Reference) -> &str {
    image.tag.as_deref().unwrap_or("latest")
}
