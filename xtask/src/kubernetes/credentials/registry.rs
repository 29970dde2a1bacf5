//! Logging in to the registries of own images. What docker, podman and buildah read of it is in a private folder: nothing of
//! the person's own logins changes.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result};
use xshell::Shell;

use crate::{
    kubernetes::credentials::{
        docker_config::with_logins,
        passwords::{self, Passwords},
        persons_registries::PersonsConfig,
    },
    machine::{paths, private::PrivateFolder, tree::Tree},
    repository::cluster::{Cluster, OwnImage, RegistryLogin},
    secrets::{Decrypter, Mask},
    services::{
        http,
        registry::{Logins, reference::Reference},
    },
};

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
            None => Ok(Passwords::of_person(
                persons.logins(decrypter.sh(), &hosts_of([image])),
            )),
        };
        match found {
            Ok(found) => logins.extend(found.logins),
            Err(err) => say!("warning: cannot log in to {host}: {err:#}"),
        }
    }
    logins
}

/// The same for registries, by the names that images begin with. A cluster's `registry` is for those of its provider alone: no
/// other one gets its password.
pub(crate) fn logins_to(
    decrypter: &Decrypter,
    tree: &Tree,
    cluster: &Cluster,
    hosts: &BTreeSet<String>,
) -> Logins {
    let Some(login) = &cluster.registry else {
        return Logins::new();
    };
    let hosts = hosts.iter().filter(|it| login.is_for(it)).cloned();
    let hosts: BTreeSet<_> = hosts.collect();
    if hosts.is_empty() {
        return Logins::new();
    }
    match passwords::of(decrypter, tree, cluster, login, &hosts) {
        Ok(found) => found.logins,
        Err(err) => {
            let name = &cluster.name;
            say!("warning: cannot log in to the registry of `{name}`: {err:#}");
            Logins::new()
        }
    }
}

/// What the person's own docker and podman know of registries.
pub(crate) fn persons_logins(sh: &Shell, hosts: &BTreeSet<String>) -> Logins {
    PersonsConfig::load().logins(sh, hosts)
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
        let passwords = Passwords::of_person(persons.logins(sh, hosts));
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

/// Whether a login is with a file, which has to be decrypted.
pub(crate) fn has_key(cluster: &Cluster, login: &RegistryLogin) -> bool {
    passwords::key_of(cluster, login).is_some()
}

/// A mask of the passwords, and of what docker makes of them.
fn mask(passwords: &Passwords) -> Mask {
    let mut secrets = BTreeSet::new();
    for (user, password) in passwords.logins.values() {
        secrets.insert(password.exposed().to_owned());
        secrets.insert(http::basic(user, password));
    }
    Mask::new(&passwords.keys).and(secrets)
}
