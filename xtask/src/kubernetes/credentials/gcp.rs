//! Google Kubernetes Engine: `gcloud` writes the kubeconfig, and its plugin gets tokens as long as the login is used.

use std::path::Path;

use anyhow::Result;
use xshell::cmd;

use crate::{
    kubernetes::credentials::login::{Login, read_key, require_on_path},
    machine::tree::Tree,
    repository::cluster::Gcp,
    secrets::{Decrypter, InMemory},
};

/// Variables of a person's environment that gcloud would prefer to the key
/// (<https://cloud.google.com/sdk/docs/properties>: each property has a variable).
const OTHER_LOGINS: &[&str] = &[
    "CLOUDSDK_ACTIVE_CONFIG_NAME",
    "CLOUDSDK_AUTH_ACCESS_TOKEN",
    "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE",
    "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT",
    "CLOUDSDK_CONTAINER_CLUSTER",
    "CLOUDSDK_CONTAINER_USE_APPLICATION_DEFAULT_CREDENTIALS",
    "CLOUDSDK_CORE_ACCOUNT",
];

/// Without a `key` it is the person's own login, or that of the machine.
pub(crate) fn log_in(
    login: &mut Login,
    decrypter: &Decrypter,
    tree: &Tree,
    gcp: &Gcp,
) -> Result<()> {
    require_on_path(
        &login.sh,
        &["gcloud", "gke-gcloud-auth-plugin"],
        "https://cloud.google.com/sdk/docs/install has gcloud; then `gcloud components install gke-gcloud-auth-plugin`, or \
         the package `google-cloud-cli-gke-gcloud-auth-plugin` where gcloud came as one",
    )?;
    let hint = match &gcp.key {
        Some(file) => use_key(login, decrypter, tree, file, &gcp.project)?,
        None => "`gcloud auth list` shows whose login this is, since cluster.yaml names no `key`"
            .to_owned(),
    };
    login.set("USE_GKE_GCLOUD_AUTH_PLUGIN", "True");
    write_kubeconfig(login, gcp, &hint)
}

/// Has `gcloud` write the kubeconfig; `hint` is what to do if it does not.
fn write_kubeconfig(login: &Login, gcp: &Gcp, hint: &str) -> Result<()> {
    let name = &gcp.cluster;
    let project = &gcp.project;
    // `--zone` accepts a region, too.
    let zone = gcp.region.as_ref().or(gcp.zone.as_ref());
    let zone: Vec<_> = zone.into_iter().flat_map(|it| ["--zone", it]).collect();
    let sh = &login.sh;
    login.run_provider(
        cmd!(
            sh,
            "gcloud container clusters get-credentials {name} {zone...} --project {project}"
        ),
        hint,
    )
}

/// Takes the service account's key in a file for the login. Returns what to check if it is refused.
fn use_key(
    login: &mut Login,
    decrypter: &Decrypter,
    tree: &Tree,
    file: &Path,
    project: &str,
) -> Result<String> {
    let (key, account) = read(decrypter, tree, file)?;
    login.unset(|name| OTHER_LOGINS.contains(&name));
    login.set("CLOUDSDK_CONFIG", login.folder.path.join("gcloud"));
    login.set("CLOUDSDK_CORE_PROJECT", project);
    // The plugin reads it again for each token.
    login.set("CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE", key.file.path());
    login.isolate();
    login.keys.push(key);
    Ok(format!(
        "the key is that of {account}: it must still be valid, and the account needs the role \
         `roles/container.developer` or a wider one in the project"
    ))
}

/// Reads a service account's key, and whose it is.
pub(super) fn read(decrypter: &Decrypter, tree: &Tree, file: &Path) -> Result<(InMemory, String)> {
    let paths = ["/client_email", "*/private_key", "*/private_key_id"];
    let (key, [account, ..]) = read_key(decrypter, tree, file, &[paths])?;
    Ok((key, account))
}
