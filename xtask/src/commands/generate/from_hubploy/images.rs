//! The images of a deployment: some are built, and others have a tag.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    commands::generate::from_hubploy::leftovers::Leftovers,
    machine::{paths, tree::Tree},
    services::registry::reference::Reference,
    yaml::{KeyPath, edit, unquoted},
};

/// Where hubploy puts name and tag of an image if it is not told otherwise.
const VALUES_PATH: &str = "jupyterhub.singleuser.image";

#[derive(Default)]
pub(crate) struct Images {
    /// Those that are built. Their paths are from the root.
    pub(crate) own: Vec<OwnImage>,
    /// How to log in to their registry, with a path from the root.
    pub(crate) registry: Option<Registry>,
    /// The names and tags of the others, as values.
    pub(crate) values: Option<Value>,
}

/// As cluster.yaml has it.
#[derive(Clone, Serialize)]
pub(crate) struct OwnImage {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    values_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registry: Option<Registry>,
}

/// As cluster.yaml has it.
#[derive(Clone, PartialEq, Serialize)]
pub(crate) struct Registry {
    provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) filename: Option<PathBuf>,
}

impl Registry {
    /// The file that it names.
    pub(crate) fn file_mut(&mut self) -> Option<&mut PathBuf> {
        self.key.as_mut().or(self.filename.as_mut())
    }
}

impl Images {
    /// Takes the images out of the hubploy.yaml in this folder.
    pub(crate) fn take(
        tree: &Tree,
        folder: &Path,
        source: &mut Leftovers,
        left: &mut Vec<String>,
    ) -> Result<Images> {
        let mut images = Images::default();
        let file = source.file.clone();
        let mut taken = Vec::new();
        for (index, image) in listed(source).into_iter().enumerate() {
            let mut image = Image::read(image)
                .with_context(|| format!("`{}`: image {}", file.display(), index + 1))?;
            if taken.contains(&image.values_path) {
                left.push(format!(
                    "{}: `{}` has the values path `{}` of the image before it, and is left out",
                    file.display(),
                    image.name,
                    image.values_path
                ));
                continue;
            }
            taken.push(image.values_path.clone());
            match image.name.tag.take() {
                Some(tag) => images.add_values(&image, &tag)?,
                None => images.add_own(tree, folder, image, left),
            }
        }
        if !images.own.is_empty() {
            images.registry = registry(folder, source)?;
        }
        Ok(images)
    }

    fn add_values(&mut self, image: &Image, tag: &str) -> Result<()> {
        let value = json!({"name": image.name.name, "tag": tag});
        let values = self.values.get_or_insert_with(|| json!({}));
        edit::put(values, &KeyPath::parse(&image.values_path)?.0, value)
    }

    fn add_own(&mut self, tree: &Tree, folder: &Path, image: Image, left: &mut Vec<String>) {
        let path = paths::lexical(&folder.join(image.path.as_deref().unwrap_or("image")));
        if !tree.is_folder(&path) {
            left.push(format!(
                "there is no folder `{}` to build `{}` from",
                path.display(),
                image.name
            ));
        }
        let has_dockerfile = tree.is_file(&path.join("Dockerfile"));
        self.own.push(OwnImage {
            name: image.name.name,
            values_path: (image.values_path != VALUES_PATH).then_some(image.values_path),
            // hubploy has repo2docker build all of them, which takes a Dockerfile as it is.
            build: (!has_dockerfile).then_some("repo2docker"),
            base_image: image.base_image.filter(|_| !has_dockerfile),
            registry: None,
            path,
        });
    }
}

/// An image in `images`.
struct Image {
    name: Reference,
    path: Option<String>,
    values_path: String,
    base_image: Option<String>,
}

impl Image {
    fn read(image: Value) -> Result<Image> {
        let text = |key: &str| image.get(key).map(unquoted);
        let name = text("name").context("it has no `name`")?;
        let base_image = image.pointer("/repo2docker/base_image").map(unquoted);
        Ok(Image {
            name: Reference::parse(&name)?,
            path: text("path"),
            values_path: text("helm_substitution_path").unwrap_or_else(|| VALUES_PATH.to_owned()),
            base_image,
        })
    }
}

/// The images as the newer of two forms lists them.
fn listed(source: &mut Leftovers) -> Vec<Value> {
    if let Some(name) = source.take_text(&["images", "image_name"]) {
        let values_path = source.take_text(&["images", "image_config_path"]);
        let values_path = values_path.unwrap_or_else(|| VALUES_PATH.to_owned());
        return vec![json!({"name": name, "helm_substitution_path": values_path})];
    }
    match source.take(&["images", "images"]) {
        Some(Value::Array(images)) => images,
        _ => Vec::new(),
    }
}

/// Takes how hubploy logs in to the registry. What a registry is, is in the names of its images.
fn registry(folder: &Path, source: &mut Leftovers) -> Result<Option<Registry>> {
    let Some(provider) = source.take_text(&["images", "registry", "provider"]) else {
        return Ok(None);
    };
    let secrets = folder.join("secrets");
    let mut own = |key: &str| source.take_text(&["images", "registry", &provider, key]);
    for known in [
        "project",
        "zone",
        "account_id",
        "region",
        "resource_group",
        "registry",
    ] {
        own(known);
    }
    let key = own("service_key").or_else(|| own("auth_file"));
    let filename = own("filename");
    Ok(Some(Registry {
        provider,
        key: key.map(|it| secrets.join(it)),
        filename: filename.map(|it| secrets.join(it)),
    }))
}
