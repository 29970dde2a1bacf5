//! Users and passwords for registries of images, by the `registry` of cluster.yaml.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xshell::{Cmd, cmd};

use crate::{
    kubernetes::credentials::{
        aws, azure,
        docker_config::{as_in_names, login_in},
        gcp,
        login::{Login, require_on_path},
    },
    machine::{process, tree::Tree},
    repository::{
        cluster::{Cluster, Provider, RegistryLogin},
        keys::KeyFile,
    },
    secrets::{self, Decrypter, InMemory, Secret},
    services::registry::Logins,
};

/// Users and passwords, and the keys that they are from.
#[derive(Default)]
pub(super) struct Passwords {
    pub(super) logins: Logins,
    /// What must not show.
    pub(super) keys: Vec<InMemory>,
}

impl Passwords {
    pub(super) fn of_person(logins: Logins) -> Passwords {
        Passwords {
            logins,
            keys: Vec::new(),
        }
    }

    fn same(hosts: &BTreeSet<String>, user: &str, password: &Secret) -> Passwords {
        let login = (user.to_owned(), password.clone());
        Passwords {
            logins: hosts.iter().map(|it| (it.clone(), login.clone())).collect(),
            keys: Vec::new(),
        }
    }

    fn hiding(mut self, key: InMemory) -> Passwords {
        self.keys.push(key);
        self
    }
}

/// Logs in to these registries. Without a key in cluster.yaml it is as the person, or the machine.
pub(super) fn of(
    decrypter: &Decrypter,
    tree: &Tree,
    cluster: &Cluster,
    login: &RegistryLogin,
    hosts: &BTreeSet<String>,
) -> Result<Passwords> {
    let key = key_of(cluster, login);
    if let Some(key) = key {
        KeyFile::of_registry(key).refuse_plain(decrypter.sh(), tree)?;
    }
    let from = From {
        decrypter,
        tree,
        key,
    };
    match login {
        RegistryLogin::Gcloud { .. } => from.gcloud(hosts),
        RegistryLogin::Aws { .. } => from.aws(hosts),
        RegistryLogin::Azure { .. } => from.azure(hosts),
        RegistryLogin::Dockerconfig { filename } => from.docker_config(filename),
    }
}

/// The file that a login is with: that of the registry, or else that of its cluster, if it is of the same provider.
pub(super) fn key_of<'a>(cluster: &'a Cluster, login: &'a RegistryLogin) -> Option<&'a Path> {
    let (own, clusters) = match (login, &cluster.provider) {
        (RegistryLogin::Gcloud { key }, Provider::Gcp(it)) => (key, it.key.as_ref()),
        (RegistryLogin::Aws { key }, Provider::Aws(it)) => (key, it.key.as_ref()),
        (RegistryLogin::Azure { key }, Provider::Azure(it)) => (key, it.key.as_ref()),
        (RegistryLogin::Dockerconfig { filename }, _) => return Some(filename),
        (
            RegistryLogin::Gcloud { key }
            | RegistryLogin::Aws { key }
            | RegistryLogin::Azure { key },
            _,
        ) => (key, None),
    };
    own.as_ref().or(clusters).map(|it| it.as_path())
}

/// What a login is made from.
struct From<'a> {
    decrypter: &'a Decrypter,
    tree: &'a Tree,
    /// From the root.
    key: Option<&'a Path>,
}

impl From<'_> {
    /// A key is a password of its own for Google's registries, so that nothing has to be installed, and nothing ends during a
    /// long build: <https://cloud.google.com/artifact-registry/docs/docker/authentication#json-key>.
    fn gcloud(&self, hosts: &BTreeSet<String>) -> Result<Passwords> {
        if let Some(file) = self.key {
            let (key, _) = gcp::read(self.decrypter, self.tree, file)?;
            let password = Secret::new(key.text()?);
            return Ok(Passwords::same(hosts, "_json_key", &password).hiding(key));
        }
        let login = Login::new(self.decrypter.sh())?;
        require_on_path(
            &login.sh,
            &["gcloud"],
            "name a `key` in cluster.yaml, or install gcloud: https://cloud.google.com/sdk/docs/install",
        )?;
        let sh = &login.sh;
        let token = password_from(
            &login,
            cmd!(sh, "gcloud auth print-access-token"),
            "`gcloud auth list` shows whose login this is, since cluster.yaml names no `key`",
        )?;
        Ok(Passwords::same(hosts, "oauth2accesstoken", &token))
    }

    fn aws(&self, hosts: &BTreeSet<String>) -> Result<Passwords> {
        let mut passwords = Passwords::default();
        for host in hosts {
            let (service, region) = of_amazon(host)?;
            let mut login = Login::new(self.decrypter.sh())?;
            aws::require(&login.sh)?;
            if let Some(file) = self.key {
                aws::use_key(&mut login, self.decrypter, self.tree, file, region)?;
            }
            let hint = match self.key {
                Some(file) => format!(
                    "the access key in `{}` must still be active, and its user needs `ecr:GetAuthorizationToken`",
                    file.display()
                ),
                None => "`aws sts get-caller-identity` shows whose login this is, since cluster.yaml names no `key`".to_owned(),
            };
            let sh = &login.sh;
            let ask = cmd!(sh, "aws {service} get-login-password --region {region}");
            let password = password_from(&login, ask, &hint)?;
            let login_to_it = ("AWS".to_owned(), password);
            passwords.logins.insert(host.clone(), login_to_it);
            passwords.keys.append(&mut login.keys);
        }
        Ok(passwords)
    }

    fn azure(&self, hosts: &BTreeSet<String>) -> Result<Passwords> {
        if let Some(file) = self.key {
            let (key, user, password) = azure::read_login(self.decrypter, self.tree, file)?;
            return Ok(Passwords::same(hosts, &user, &password).hiding(key));
        }
        let login = Login::new(self.decrypter.sh())?;
        require_on_path(
            &login.sh,
            &["az"],
            "name a service principal's `key` in cluster.yaml, or install Azure's CLI and log in there",
        )?;
        let mut passwords = Passwords::default();
        let sh = &login.sh;
        for host in hosts {
            let name = host.split('.').next().unwrap_or(host);
            let query = [
                "--expose-token",
                "--query",
                "accessToken",
                "--output",
                "tsv",
            ];
            let token = password_from(
                &login,
                cmd!(sh, "az acr login --name {name} {query...}"),
                "`az account show` shows whose login this is, since cluster.yaml names no `key`",
            )?;
            passwords
                .logins
                .insert(host.clone(), (NOBODY.to_owned(), token));
        }
        Ok(passwords)
    }

    /// The logins in a config.json of docker's.
    fn docker_config(&self, file: &Path) -> Result<Passwords> {
        let shown = file.display();
        let content = secrets::open(self.decrypter, self.tree, file)?;
        let config: Value = serde_json::from_str(&content.text()?).unwrap_or_default();
        for key in ["credHelpers", "credsStore"] {
            ensure!(
                config.get(key).is_none(),
                "`{shown}` has `{key}`: the logins themselves are on the machine where it was made\n\
                 hint: write them into it, as `{{\"auths\": {{\"REGISTRY\": {{\"username\": \"…\", \"password\": \"…\"}}}}}}`"
            );
        }
        let auths = config["auths"].as_object().filter(|it| !it.is_empty());
        let auths = auths.with_context(|| {
            format!("`{shown}` has no login in `auths`: is it a config.json of docker?")
        })?;
        let mut passwords = Passwords::default();
        for (host, entry) in auths {
            let login =
                login_in(entry).with_context(|| format!("`{shown}`: the login to `{host}`"))?;
            passwords.logins.insert(as_in_names(host), login);
        }
        Ok(passwords.hiding(content))
    }
}

/// The user whose password is a token of Azure's:
/// <https://learn.microsoft.com/en-us/azure/container-registry/container-registry-authentication#az-acr-login-with---expose-token>.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// A password that a provider's own program prints; `hint` is what to do if it does not.
fn password_from(login: &Login, cmd: Cmd, hint: &str) -> Result<Secret> {
    match process::read(&login.sh, cmd) {
        Ok(text) if !text.trim().is_empty() => Ok(Secret::new(text.trim().to_owned())),
        Ok(_) => bail!("no password came\nhint: {hint}"),
        Err(err) => bail!("{}\nhint: {hint}", login.mask().hide(&format!("{err:#}"))),
    }
}

/// Which service of Amazon's has the passwords for a registry, and where:
/// <https://docs.aws.amazon.com/AmazonECR/latest/userguide/registry_auth.html>.
fn of_amazon(host: &str) -> Result<(&'static str, &str)> {
    if host == "public.ecr.aws" {
        // Its passwords come from one region alone.
        return Ok(("ecr-public", "us-east-1"));
    }
    let parts: Vec<_> = host.split('.').collect();
    match parts[..] {
        [_, "dkr", "ecr" | "ecr-fips", region, "amazonaws", ..] => Ok(("ecr", region)),
        _ => bail!(
            "`{host}` is no registry of Amazon's, such as `123456789012.dkr.ecr.us-west-2.amazonaws.com`"
        ),
    }
}
