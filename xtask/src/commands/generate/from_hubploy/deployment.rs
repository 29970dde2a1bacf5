//! One of hubploy's deployments: a hub for each environment.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    commands::generate::from_hubploy::{images::Images, leftovers::Leftovers, provider::Place},
    machine::tree::Tree,
    repository::hubploy::ENVIRONMENTS,
    secrets::{Content, read},
    yaml::Node,
};

/// Where charts say at which host people find a hub.
const HOSTS: [&[&str]; 4] = [
    &["jupyterhub", "ingress", "hosts", "0"],
    &["jupyterhub", "proxy", "https", "hosts", "0"],
    &["ingress", "hosts", "0"],
    &["proxy", "https", "hosts", "0"],
];

/// A folder in `deployments/`.
pub(crate) struct Deployment {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// The cluster's key or kubeconfig, from the root.
    pub(crate) key: Option<PathBuf>,
    pub(crate) images: Images,
    pub(crate) environments: Vec<Environment>,
    /// What people have to see to.
    pub(crate) left: Vec<String>,
}

/// What becomes a hub.
pub(crate) struct Environment {
    pub(crate) name: &'static str,
    /// Its values files from the root; the last one wins.
    pub(crate) files: Vec<PathBuf>,
    /// As its values have it.
    pub(crate) domain: Option<String>,
}

impl Deployment {
    /// None for a folder without a hubploy.yaml. `dir` has `deployments/`.
    pub(crate) fn read(tree: &Tree, dir: &Path, name: &str) -> Result<Option<Deployment>> {
        let folder = dir.join("deployments").join(name);
        let file = folder.join("hubploy.yaml");
        if !tree.is_file(&file) {
            return Ok(None);
        }
        let mut source = Leftovers::read(tree, &file)?;
        let (place, key) = Place::take(tree, &mut source, name)?;
        let mut left = Vec::new();
        if let Some(key) = key.as_ref().filter(|it| !tree.is_file(it)) {
            left.push(format!(
                "{}: there is no `{}`",
                file.display(),
                key.display()
            ));
        }
        if let (Place::Azure { .. }, Some(key)) = (&place, &key) {
            left.push(format!(
                "{}: its texts are called `service_principal_id`, `service_principal_password` and `tenant_id` here, and it \
                 needs a `subscription_id` besides",
                key.display()
            ));
        }
        let images = Images::take(tree, &folder, &mut source, &mut left)?;
        let environments = environments(tree, dir, name);
        if environments.is_empty() {
            left.push(format!(
                "`{}` has values of none of the environments develop, staging and prod",
                folder.display()
            ));
        }
        left.extend(plain_secrets(tree, &environments));
        left.extend(source.told());
        Ok(Some(Deployment {
            name: name.to_owned(),
            place,
            key,
            images,
            environments,
            left,
        }))
    }
}

/// The environments that have values of their own.
fn environments(tree: &Tree, dir: &Path, deployment: &str) -> Vec<Environment> {
    let folder = dir.join("deployments").join(deployment);
    // A submodule may have the secrets of all deployments.
    let elsewhere = dir.join("secrets/deployments").join(deployment);
    let mut environments = Vec::new();
    for name in ENVIRONMENTS {
        let file = format!("{name}.yaml");
        let own = [
            folder.join("config").join(&file),
            folder.join("secrets").join(&file),
            elsewhere.join("secrets").join(&file),
        ];
        if !own.iter().any(|it| tree.is_file(it)) {
            continue;
        }
        let mut files = vec![folder.join("config/common.yaml")];
        files.extend(own);
        files.retain(|it| tree.is_file(it));
        let domain = domain(tree, &files);
        environments.push(Environment {
            name,
            files,
            domain,
        });
    }
    environments
}

/// The first host that the last of these files names which names one.
fn domain(tree: &Tree, files: &[PathBuf]) -> Option<String> {
    let values = files.iter().rev().filter_map(|it| plain_values(tree, it));
    values.into_iter().find_map(|values| {
        let host = HOSTS.iter().find_map(|it| values.text(it))?;
        is_domain(host).then(|| host.to_owned())
    })
}

fn is_domain(host: &str) -> bool {
    let is_of_host = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
    host.contains('.')
        && host
            .split('.')
            .all(|it| !it.is_empty() && it.chars().all(is_of_host))
}

/// The values in a file that is not encrypted.
fn plain_values(tree: &Tree, file: &Path) -> Option<Node> {
    let content = tree.read(file).ok()?;
    match read(file, &content, 0) {
        Ok(Content::Plain(values, _)) => Some(values),
        _ => None,
    }
}

/// Files of secrets that lie there in plain text.
fn plain_secrets(tree: &Tree, environments: &[Environment]) -> Vec<String> {
    let files = environments.iter().flat_map(|it| &it.files);
    let of_secrets = files.filter(|it| it.parent().is_some_and(|it| it.ends_with("secrets")));
    let plain = of_secrets.filter(|it| plain_values(tree, it).is_some());
    let told = plain.map(|it| {
        let shown = it.display();
        format!(
            "{shown}: it is in plain text here: that is right if git-crypt encrypts it in git, else run \
             `sops encrypt --in-place {shown}`"
        )
    });
    told.collect()
}
