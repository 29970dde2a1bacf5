//! Logins as docker keeps them, in a config.json:
//! <https://docs.docker.com/reference/cli/docker/#docker-cli-configuration-file-configjson-properties>.

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    secrets::Secret,
    services::{http, registry::Logins},
};

/// What docker.io is called there.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a registry, as names of images begin with it, is called there.
pub(super) fn key_of(host: &str) -> &str {
    if host == "docker.io" {
        DOCKER_HUB_KEY
    } else {
        host
    }
}

/// The other way round.
pub(super) fn as_in_names(host: &str) -> String {
    if host == DOCKER_HUB_KEY {
        return "docker.io".to_owned();
    }
    let rest = host.split_once("://").map_or(host, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest).to_owned()
}

/// The user and password of an entry.
pub(super) fn login_in(entry: &Value) -> Result<(String, Secret)> {
    if let Some(auth) = entry["auth"].as_str() {
        return decoded(auth);
    }
    let user = entry["username"].as_str().context("it has no `auth`")?;
    let password = entry["password"].as_str().context("it has no `password`")?;
    Ok((user.to_owned(), Secret::new(password.to_owned())))
}

/// docker's configuration with these logins as well. A helper that has the logins of all registries would be asked for these,
/// too: from now on it is asked for those alone that it has a login for.
pub(super) fn with_logins(mut config: Map<String, Value>, own: &Logins) -> Value {
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
        let key = key_of(host);
        helpers.remove(key);
        auths.insert(key.to_owned(), json!({"auth": http::basic(user, password)}));
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

/// The user and password that docker keeps as one text.
fn decoded(auth: &str) -> Result<(String, Secret)> {
    let bytes = BASE64_STANDARD.decode(auth.trim());
    let text = bytes.ok().and_then(|it| String::from_utf8(it).ok());
    let text = text.context("`auth` is not base64")?;
    let (user, password) = text.split_once(':').context("`auth` has no `:`")?;
    ensure!(!password.is_empty(), "`auth` has no password");
    let password = password.trim_end_matches('\0').to_owned();
    Ok((user.to_owned(), Secret::new(password)))
}
