//! Logging in to the registries of own images. What docker, podman and buildah read of it is in a private folder: nothing of
//! the person's own logins changes.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use xshell::Shell;

use crate::{
    kubernetes::credentials::{
        passwords::{self, Passwords},
        persons_registries::PersonsConfig,
    },
    machine::{paths, private::PrivateFolder, tree::Tree},
    repository::cluster::{Cluster, OwnImage, RegistryLogin},
    secrets::{Decrypter, Mask, Secret},
    services::registry::{Logins, reference::Reference},
};

/// docker.io as configurations of docker call it.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A login to registries, as long as this lives.
pub(crate) struct RegistrySession {
    /// Runs docker, podman and buildah with it.
    pub(crate) sh: Shell,
    /// The same for who asks a registry itself.
    pub(crate) logins: Logins,
    /// Of what must not show of it.
    pub(crate) mask: Mask,
    pub(crate) folder: PrivateFolder,
}

/// The users and passwords for the registries of these images of a cluster: by the `registry` in cluster.yaml, or else those of
/// the person's own docker or podman. One that cannot be had is left out, and the person is told why.
pub(crate) fn logins<'a>(
    decrypter: &Decrypter,
    tree: &Tree,
    cluster: &Cluster,
    images: impl IntoIterator<Item = &'a OwnImage>,
) -> Logins {
    let mut logins = Logins::new();
    let persons = PersonsConfig::load();
    for image in images {
        let host = host_of(image);
        if logins.contains_key(&host) {
            continue;
        }
        let found = match cluster.registry_of(image) {
            Some(login) => passwords::of(decrypter, tree, cluster, login, &hosts_of([image])),
            None => Ok(persons.passwords(decrypter.sh(), &hosts_of([image]))),
        };
        match found {
            Ok(found) => logins.extend(found.logins),
            Err(err) => say!("warning: cannot log in to {host}: {err:#}"),
        }
    }
    logins
}

/// The registries of images, as their names begin.
pub(crate) fn hosts_of<'a>(images: impl IntoIterator<Item = &'a OwnImage>) -> BTreeSet<String> {
    images.into_iter().map(host_of).collect()
}

fn host_of(image: &OwnImage) -> String {
    let name = Reference::parse(&image.name).map(|it| it.full_name());
    let name = name.unwrap_or_else(|_| image.name.clone());
    name.split('/').next().unwrap_or_default().to_owned()
}

impl RegistrySession {
    /// With what the person's own docker and podman know.
    pub(crate) fn of_person(sh: &Shell, hosts: &BTreeSet<String>) -> Result<RegistrySession> {
        let persons = PersonsConfig::load();
        let passwords = persons.passwords(sh, hosts);
        RegistrySession::new(sh, persons, &Logins::new(), passwords)
    }

    /// Logs in to registries as cluster.yaml says it; to others as the person would be.
    pub(crate) fn open(
        decrypter: &Decrypter,
        tree: &Tree,
        cluster: &Cluster,
        login: &RegistryLogin,
        hosts: &BTreeSet<String>,
    ) -> Result<RegistrySession> {
        let passwords = passwords::of(decrypter, tree, cluster, login, hosts)?;
        let own = passwords.logins.clone();
        RegistrySession::new(decrypter.sh(), PersonsConfig::load(), &own, passwords)
    }

    /// `own` are the logins that the person's configuration lacks.
    fn new(
        sh: &Shell,
        persons: PersonsConfig,
        own: &Logins,
        passwords: Passwords,
    ) -> Result<RegistrySession> {
        let folder = PrivateFolder::new(sh)?;
        let docker = folder.path.join("docker");
        fs::create_dir(&docker).context("cannot make a folder for docker")?;
        let sh = sh.clone();
        sh.set_var("DOCKER_CONFIG", &docker);
        sh.set_var("BUILDX_CONFIG", docker.join("buildx"));
        let config = docker.join("config.json");
        sh.set_var("REGISTRY_AUTH_FILE", &config);
        persons.lend(&docker)?;
        let content = with_logins(persons.config, own).to_string();
        paths::write_whole(&config, content.as_bytes())?;
        Ok(RegistrySession {
            sh,
            mask: mask(&passwords),
            logins: passwords.logins,
            folder,
        })
    }
}

/// A mask of the passwords, and of what docker makes of them.
fn mask(passwords: &Passwords) -> Mask {
    let mut secrets = BTreeSet::new();
    for (user, password) in passwords.logins.values() {
        secrets.insert(password.exposed().to_owned());
        secrets.insert(encoded(user, password));
    }
    Mask::new(&passwords.keys).and(secrets)
}

/// docker's configuration with these logins as well. A helper that has the logins of all registries would be asked for these,
/// too: from now on it is asked for those alone that it has a login for.
fn with_logins(mut config: Map<String, Value>, own: &Logins) -> Value {
    if own.is_empty() {
        return config.into();
    }
    let helper = config.remove("credsStore");
    let mut auths = object(config.remove("auths"));
    let mut helpers = object(config.remove("credHelpers"));
    for (host, entry) in &auths {
        let is_elsewhere = entry.get("auth").is_none();
        if let Some(helper) = helper.as_ref().filter(|_| is_elsewhere) {
            helpers.entry(host.clone()).or_insert(helper.clone());
        }
    }
    for (host, (user, password)) in own {
        let key = if host == "docker.io" {
            DOCKER_HUB_KEY
        } else {
            host
        };
        helpers.remove(key);
        auths.insert(key.to_owned(), json!({"auth": encoded(user, password)}));
    }
    config.insert("auths".to_owned(), auths.into());
    config.insert("credHelpers".to_owned(), helpers.into());
    config.into()
}

fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn encoded(user: &str, password: &Secret) -> String {
    BASE64_STANDARD.encode(format!("{user}:{}", password.exposed()))
}

/// Puts a link to a file or folder of the person's own into the private folder, if it is there.
pub(super) fn link(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    symlink(from, to).with_context(|| format!("cannot make `{}`", to.display()))
}

/// The user and password that docker keeps as one text.
pub(super) fn decoded(auth: &str) -> Result<(String, Secret)> {
    let bytes = BASE64_STANDARD.decode(auth.trim());
    let text = bytes.ok().and_then(|it| String::from_utf8(it).ok());
    let text = text.context("`auth` is not base64")?;
    let (user, password) = text.split_once(':').context("`auth` has no `:`")?;
    ensure!(!password.is_empty(), "`auth` has no password");
    let password = password.trim_end_matches('\0').to_owned();
    Ok((user.to_owned(), Secret::new(password)))
}
