//! Azure's AKS by its REST API: `az login` would keep the key on the disk.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use ureq::{Body, http::Response};
use xshell::cmd;

use crate::{
    kubernetes::credentials::login::{Login, read_key, require_on_path},
    machine::tree::Tree,
    repository::cluster::Azure,
    secrets::{Decrypter, InMemory, Secret},
    services::http,
    settings::Settings,
};

/// <https://learn.microsoft.com/en-us/rest/api/aks/managed-clusters/list-cluster-user-credentials>
const API_VERSION: &str = "2025-10-01";

/// A service principal's key: who it is, and where.
struct Key<'a> {
    file: &'a Path,
    id: String,
    password: Secret,
    tenant: String,
    subscription: String,
}

/// Without a `key` it is the person's own login.
pub(crate) fn log_in(
    login: &mut Login,
    decrypter: &Decrypter,
    tree: &Tree,
    azure: &Azure,
    settings: &Settings,
) -> Result<()> {
    let Some(file) = &azure.key else {
        return log_in_without_key(login, azure);
    };
    let (in_memory, key) = Key::read(decrypter, tree, file)?;
    login.isolate();

    let token = get_token(&key, settings)?;
    let kubeconfig = get_kubeconfig(&key, azure, settings, &token)?;
    login.hold_kubeconfig(kubeconfig, tree.root())?;
    set_up_kubelogin(login, key);
    login.keys.push(in_memory);
    Ok(())
}

impl Key<'_> {
    /// Reads the key in a file. Returns also the file, which must not show.
    fn read<'a>(decrypter: &Decrypter, tree: &Tree, file: &'a Path) -> Result<(InMemory, Key<'a>)> {
        let paths = [
            "/service_principal_id",
            "*/service_principal_password",
            "/tenant_id",
            "/subscription_id",
        ];
        let (in_memory, texts) = read_key(decrypter, tree, file, &[paths])?;
        let [id, password, tenant, subscription] = texts;
        let key = Key {
            file,
            id,
            password: Secret::new(password),
            tenant,
            subscription,
        };
        Ok((in_memory, key))
    }
}

/// A service principal's key, with its user and password.
pub(super) fn read_login(
    decrypter: &Decrypter,
    tree: &Tree,
    file: &Path,
) -> Result<(InMemory, String, Secret)> {
    let (in_memory, key) = Key::read(decrypter, tree, file)?;
    Ok((in_memory, key.id, key.password))
}

/// Where Entra ID guards the cluster, kubelogin gets tokens with the key
/// (<https://azure.github.io/kubelogin/concepts/login-modes/sp.html>).
fn set_up_kubelogin(login: &mut Login, key: Key) {
    login.unset(|name| name.starts_with("AAD_") || name.starts_with("AZURE_"));

    login.set("AAD_LOGIN_METHOD", "spn");
    login.set("AZURE_CLIENT_ID", key.id);
    login.set("AZURE_CLIENT_SECRET", key.password.exposed());
    login.set("AZURE_TENANT_ID", key.tenant);
}

fn log_in_without_key(login: &Login, azure: &Azure) -> Result<()> {
    require_on_path(
        &login.sh,
        &["az"],
        "name a service principal's `key` in cluster.yaml, or install Azure's CLI and log in there",
    )?;
    let group = &azure.resource_group;
    let name = &azure.cluster;
    let kubeconfig = login.kubeconfig();
    let sh = &login.sh;
    login.run_provider(
        cmd!(
            sh,
            "az aks get-credentials --resource-group {group} --name {name} --file {kubeconfig}"
        ),
        "`az account show` shows whose login this is, since cluster.yaml names no `key`",
    )
}

/// A token for Azure's API
/// (<https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow>).
fn get_token(key: &Key, settings: &Settings) -> Result<Secret> {
    let login = settings.azure.login.trim_end_matches('/');
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &key.id),
        ("client_secret", key.password.exposed()),
        ("scope", &format!("{}/.default", management(settings))),
    ];
    let url = format!("{login}/{}/oauth2/v2.0/token", key.tenant);
    let answer = http::agent().post(&url).send_form(form);
    let answer = read(answer, &url).map_err(|err| {
        anyhow!(
            "cannot get a token for the service principal {}: {err:#}\n\
             hint: the secret in `{}` must still be valid",
            key.id,
            key.file.display()
        )
    })?;
    let token = answer["access_token"]
        .as_str()
        .context("the answer to the log-in has no token")?;
    Ok(Secret::new(token.to_owned()))
}

/// The kubeconfig that Azure makes for the service principal.
fn get_kubeconfig(
    key: &Key,
    azure: &Azure,
    settings: &Settings,
    token: &Secret,
) -> Result<InMemory> {
    let cluster = format!(
        "subscriptions/{}/resourceGroups/{}/providers/Microsoft.ContainerService/managedClusters/{}",
        key.subscription, azure.resource_group, azure.cluster
    );
    let url = format!(
        "{}/{cluster}/listClusterUserCredential?api-version={API_VERSION}&format=exec",
        management(settings)
    );
    let answer = http::agent()
        .post(&url)
        .header("Authorization", format!("Bearer {}", token.exposed()))
        .send_empty();
    let answer = read(answer, &url).map_err(|err| {
        anyhow!(
            "cannot get a kubeconfig for the service principal {}: {err:#}\n\
             hint: it needs the role `Azure Kubernetes Service Cluster User Role` for {cluster}",
            key.id
        )
    })?;
    let text = kubeconfig_in(&answer)?;
    InMemory::secret(&text, format!("the kubeconfig of {cluster}").into())
}

/// The kubeconfig in an answer of Azure, which has it in base64.
fn kubeconfig_in(answer: &Value) -> Result<String> {
    let encoded = answer["kubeconfigs"][0]["value"]
        .as_str()
        .context("the answer has no kubeconfig")?;
    let bytes = BASE64_STANDARD
        .decode(encoded)
        .context("the answer's kubeconfig is not base64")?;
    String::from_utf8(bytes).context("the answer's kubeconfig is not text")
}

fn management(settings: &Settings) -> &str {
    settings.azure.management.trim_end_matches('/')
}

fn read(answer: Result<Response<Body>, ureq::Error>, url: &str) -> Result<Value> {
    let asked = format!("POST {url}");
    let answer = answer.with_context(|| asked.clone())?;
    http::json(&mut http::success(answer, &asked, "Azure")?, "Azure")
}
