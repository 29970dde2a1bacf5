//! Azure's AKS by its REST API: `az login` would keep the key on the disk.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    kubernetes::credentials::login::{Login, read_key, refuse_without},
    repository::cluster::Azure,
    secrets::InMemory,
    services::http,
    settings::Settings,
};

/// <https://learn.microsoft.com/en-us/rest/api/aks/managed-clusters/list-cluster-user-credentials>
const VERSION: &str = "2025-10-01";

pub(crate) fn log_in(
    login: &mut Login,
    sh: &Shell,
    root: &Path,
    azure: &Azure,
    settings: &Settings,
) -> Result<()> {
    let (group, name) = (&azure.resource_group, &azure.cluster);
    let Some(file) = &azure.key else {
        refuse_without(
            &login.sh,
            &["az"],
            "name a service principal's `key` in cluster.yaml, or install Azure's CLI and log in there",
        )?;
        let (sh, kubeconfig) = (&login.sh, login.kubeconfig());
        return login.step(
            cmd!(
                sh,
                "az aks get-credentials --resource-group {group} --name {name} --file {kubeconfig}"
            ),
            "`az account show` shows whose login this is, since cluster.yaml names no `key`",
        );
    };
    let paths = [
        "/service_principal_id",
        "*/service_principal_password",
        "/tenant_id",
        "/subscription_id",
    ];
    let (key, [id, password, tenant, subscription]) = read_key(sh, root, file, paths)?;
    login.keep_to_itself();

    let management = settings.azure.management.trim_end_matches('/');
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &id),
        ("client_secret", &password),
        ("scope", &format!("{management}/.default")),
    ];
    let url = format!(
        "{}/{tenant}/oauth2/v2.0/token",
        settings.azure.login.trim_end_matches('/')
    );
    let answer = http::agent().post(&url).send_form(form);
    let answer = read(answer).map_err(|err| {
        anyhow!(
            "the service principal {id} gets no token: {err:#}\nhint: the secret in `{}` must be in force",
            file.display()
        )
    })?;
    let token = answer["access_token"]
        .as_str()
        .context("the answer to the log-in has no token")?;

    let cluster = format!(
        "subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ContainerService/managedClusters/{name}"
    );
    let url = format!(
        "{management}/{cluster}/listClusterUserCredential?api-version={VERSION}&format=exec"
    );
    let answer = http::agent()
        .post(&url)
        .header("Authorization", format!("Bearer {token}"))
        .send_empty();
    let answer = read(answer).map_err(|err| {
        anyhow!(
            "no kubeconfig for the service principal {id}: {err:#}\nhint: it needs the role `Azure Kubernetes Service \
             Cluster User Role` for {cluster}"
        )
    })?;
    let kubeconfig = answer["kubeconfigs"][0]["value"]
        .as_str()
        .context("the answer has no kubeconfig")?;
    let kubeconfig = BASE64_STANDARD
        .decode(kubeconfig)
        .context("the answer's kubeconfig isn't base64")?;
    let kubeconfig = String::from_utf8(kubeconfig).context("the answer's kubeconfig isn't text")?;
    let kubeconfig = InMemory::secret(&kubeconfig, format!("the kubeconfig of {cluster}").into())?;
    login.hold_kubeconfig(kubeconfig, root)?;
    // Where Entra ID guards the cluster, kubelogin gets tokens
    // (https://azure.github.io/kubelogin/concepts/login-modes/sp.html).
    login.take_away(|it| it.starts_with("AAD_") || it.starts_with("AZURE_"));

    login.set("AAD_LOGIN_METHOD", "spn");
    login.set("AZURE_CLIENT_ID", id);
    login.set("AZURE_CLIENT_SECRET", password);
    login.set("AZURE_TENANT_ID", tenant);
    login.keys.push(key);
    Ok(())
}

/// An answer of Azure's in JSON. An error's own words are in `error_description` or `error.message`.
fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
    let mut answer = answer?;
    let text = answer.body_mut().read_to_string()?;
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    if !answer.status().is_success() {
        let said = json["error_description"]
            .as_str()
            .or_else(|| json["error"]["message"].as_str());
        bail!(
            "Azure answers {}: {}",
            answer.status(),
            said.unwrap_or(&text).trim()
        );
    }
    ensure!(json.is_object(), "Azure's answer isn't JSON");
    Ok(json)
}
