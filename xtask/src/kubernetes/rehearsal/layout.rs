//! Images as they lie in the cache: <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::services::registry::digest_of;

/// The annotation by which containerd takes an image's full name.
const NAME: &str = "io.containerd.image.name";

/// A folder with images.
pub(crate) struct Layout(PathBuf);

/// An image that is made of layers which are there.
pub(crate) struct NewImage<'a> {
    pub(crate) name: &'a str,
    pub(crate) user: &'a str,
    pub(crate) folder: &'a str,
    pub(crate) path: &'a str,
    pub(crate) entrypoint: &'a [&'a str],
    pub(crate) command: &'a [&'a str],
}

impl Layout {
    pub(crate) fn at(folder: &Path) -> Layout {
        Layout(folder.join("oci"))
    }

    /// All blobs: their digests and files.
    pub(crate) fn blobs(&self) -> Result<Vec<(String, PathBuf)>> {
        let folder = self.0.join("blobs/sha256");
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
        let mut blobs = Vec::new();
        for entry in entries {
            let entry = entry?;
            let hash = entry.file_name().to_string_lossy().into_owned();
            blobs.push((format!("sha256:{hash}"), entry.path()));
        }
        Ok(blobs)
    }

    /// The names of all images, each with its manifest.
    pub(crate) fn manifests(&self) -> Result<Vec<(String, String)>> {
        let text = fs::read_to_string(self.0.join("index.json"))?;
        let index: Value = serde_json::from_str(&text)?;
        let mut manifests = Vec::new();
        for entry in index["manifests"].as_array().into_iter().flatten() {
            let digest = entry["digest"].as_str().unwrap_or_default();
            let manifest = fs::read_to_string(self.blob(digest))?;
            let name = entry["annotations"][NAME].as_str().unwrap_or_default();
            manifests.push((name.to_owned(), manifest));
        }
        Ok(manifests)
    }

    /// Takes a layer over from another folder.
    pub(crate) fn link(&self, other: &Layout, layer: &str) -> Result<()> {
        let file = other.blob(layer);
        fs::hard_link(&file, self.blob(layer))
            .with_context(|| format!("cannot link `{}`", file.display()))
    }

    /// Writes configurations and manifests of images which all have the same layers, by their digests, and the index.
    pub(crate) fn write(
        &self,
        layers: &[String],
        architecture: &str,
        images: &[NewImage],
    ) -> Result<()> {
        let mut manifests = Vec::new();
        for image in images {
            let config = self.add(
                "application/vnd.oci.image.config.v1+json",
                &image.config(layers, architecture),
            )?;
            let parts = layers.iter().map(|digest| self.layer(digest));
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config,
                "layers": parts.collect::<Result<Vec<_>>>()?,
            });
            let mut entry = self.add("application/vnd.oci.image.manifest.v1+json", &manifest)?;
            entry["annotations"] = json!({NAME: image.name});
            manifests.push(entry);
        }
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.0.join("index.json"), index.to_string())?;
        fs::write(
            self.0.join("oci-layout"),
            json!({"imageLayoutVersion": "1.0.0"}).to_string(),
        )?;
        Ok(())
    }

    /// Adds a blob, and returns its descriptor.
    fn add(&self, media_type: &str, content: &Value) -> Result<Value> {
        let text = content.to_string();
        let digest = digest_of(text.as_bytes());
        fs::write(self.blob(&digest), &text)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": text.len()}))
    }

    /// The descriptor of a layer. It is not compressed: nobody has to wait for that, neither here nor on the node.
    fn layer(&self, digest: &str) -> Result<Value> {
        let size = fs::metadata(self.blob(digest))?.len();
        let media_type = "application/vnd.oci.image.layer.v1.tar";
        Ok(json!({"mediaType": media_type, "digest": digest, "size": size}))
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.0
            .join("blobs/sha256")
            .join(digest.trim_start_matches("sha256:"))
    }
}

impl NewImage<'_> {
    /// All that makes another image of the same layers.
    pub(crate) fn recipe(&self) -> String {
        format!("{} {}", self.name, self.config(&[], ""))
    }

    fn config(&self, layers: &[String], architecture: &str) -> Value {
        json!({
            "os": "linux",
            "architecture": architecture,
            "config": {
                "User": self.user,
                "WorkingDir": self.folder,
                "Env": [format!("PATH={}", self.path)],
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
            },
            "rootfs": {"type": "layers", "diff_ids": layers},
        })
    }
}
