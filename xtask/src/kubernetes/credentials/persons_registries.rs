//! The logins to registries of the person's own docker and podman.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::credentials::docker_config::{key_of, login_in},
    machine::{paths, process},
    secrets::Secret,
    services::registry::Logins,
};

/// How long a program may take that has a person's logins: it may ask them.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the person's own docker and podman know.
pub(super) struct PersonsConfig {
    /// The folder of docker's configuration.
    folder: Option<PathBuf>,
    /// docker's config.json, with the logins of podman that it lacks.
    pub(super) config: Map<String, Value>,
}

impl PersonsConfig {
    /// What cannot be read is not there: docker warns of it, too, and goes on.
    pub(super) fn load() -> PersonsConfig {
        let folder = variable("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".docker")));
        let file = folder.as_ref().map(|it| it.join("config.json"));
        let mut config = file.map(|it| read(&it)).unwrap_or_default();
        for file in of_podman() {
            let logins = read(&file);
            for key in ["auths", "credHelpers"] {
                add_missing(&mut config, key, &logins);
            }
        }
        PersonsConfig { folder, config }
    }

    /// Puts what docker needs beside its config.json into another folder. What it writes there is a copy.
    pub(super) fn lend(&self, to: &Path) -> Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        for name in ["cli-plugins", "contexts"] {
            link(&folder.join(name), &to.join(name))?;
        }
        let buildx = variable("BUILDX_CONFIG").map_or_else(|| folder.join("buildx"), PathBuf::from);
        // The builders of buildx, and which of them is used.
        for part in ["current", "defaults", "instances"] {
            copy(&buildx.join(part), &to.join("buildx").join(part))?;
        }
        Ok(())
    }

    /// The logins to these registries, as far as they are known and work for who asks a registry itself.
    pub(super) fn logins(&self, sh: &Shell, hosts: &BTreeSet<String>) -> Logins {
        let mut logins = Logins::new();
        for host in hosts {
            if let Some(login) = self.login(sh, host) {
                logins.insert(host.clone(), login);
            }
        }
        logins
    }

    fn login(&self, sh: &Shell, host: &str) -> Option<(String, Secret)> {
        let key = key_of(host);
        let helper = self.config.get("credHelpers").and_then(|it| it.get(key));
        let helper = helper.or_else(|| self.config.get("credsStore"));
        if let Some(helper) = helper.and_then(Value::as_str) {
            return ask_helper(sh, helper, key);
        }
        login_in(self.config.get("auths")?.get(key)?).ok()
    }
}

/// Asks a helper of docker's for a login: <https://github.com/docker/docker-credential-helpers#development>.
fn ask_helper(sh: &Shell, helper: &str, host: &str) -> Option<(String, Secret)> {
    let program = format!("docker-credential-{helper}");
    let asked = process::run_until(
        sh,
        cmd!(sh, "{program} get"),
        host.as_bytes(),
        Some(PATIENCE),
    );
    let answer: Value = serde_json::from_slice(&asked.ok()?.stdout).ok()?;
    let user = answer["Username"].as_str()?;
    let password = answer["Secret"].as_str()?;
    // A token of another kind is called `<token>`.
    let is_password = !user.starts_with('<');
    is_password.then(|| (user.to_owned(), Secret::new(password.to_owned())))
}

/// Where podman has its logins: <https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>.
fn of_podman() -> Vec<PathBuf> {
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file.into()];
    }
    let own = rustix::process::getuid().as_raw();
    let runtime = variable("XDG_RUNTIME_DIR").map_or_else(
        || PathBuf::from(format!("/run/containers/{own}")),
        |it| PathBuf::from(it).join("containers"),
    );
    let home = variable("HOME").map(|it| PathBuf::from(it).join(".config/containers"));
    let folders = [Some(runtime), home].into_iter().flatten();
    folders.map(|it| it.join("auth.json")).collect()
}

fn read(file: &Path) -> Map<String, Value> {
    let content = fs::read(file).unwrap_or_default();
    serde_json::from_slice(&content).unwrap_or_default()
}

/// Adds what an object below `key` lacks of another one.
fn add_missing(config: &mut Map<String, Value>, key: &str, other: &Map<String, Value>) {
    let Some(Value::Object(more)) = other.get(key) else {
        return;
    };
    let into = config.entry(key).or_insert_with(|| Map::new().into());
    if let Value::Object(into) = into {
        for (name, value) in more {
            into.entry(name.clone()).or_insert(value.clone());
        }
    }
}

/// Puts a link to a file or folder of the person's own into the private folder, if it is there.
fn link(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    symlink(from, to).with_context(|| format!("cannot make `{}`", to.display()))
}

/// Copies a file, or the files in a folder, if it is there.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Ok(content) = fs::read(from) {
        let folder = to.parent().context("it is in no folder")?;
        fs::create_dir_all(folder)?;
        return paths::write_whole(to, &content);
    }
    let Ok(entries) = fs::read_dir(from) else {
        return Ok(());
    };
    for entry in entries {
        let name = entry?.file_name();
        if let Ok(content) = fs::read(from.join(&name)) {
            fs::create_dir_all(to)?;
            paths::write_whole(&to.join(&name), &content)?;
        }
    }
    Ok(())
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|it| !it.is_empty())
}
