//! Google Kubernetes Engine: gcloud writes the kubeconfig, and its plugin gets tokens as long as the login is used.

use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::{
    kubernetes::credentials::login::{Login, read_key, refuse_without},
    repository::cluster::Gcp,
};

/// What in a person's environment would be taken in place of the key
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

pub(crate) fn log_in(login: &mut Login, sh: &Shell, root: &Path, gcp: &Gcp) -> Result<()> {
    refuse_without(
        &login.sh,
        &["gcloud", "gke-gcloud-auth-plugin"],
        "https://cloud.google.com/sdk/docs/install has gcloud; then `gcloud components install gke-gcloud-auth-plugin`, or \
         the package `google-cloud-cli-gke-gcloud-auth-plugin` where gcloud came as one",
    )?;
    let mut hint =
        "`gcloud auth list` shows whose login this is, since cluster.yaml names no `key`"
            .to_owned();
    if let Some(file) = &gcp.key {
        let (key, [account, ..]) = read_key(
            sh,
            root,
            file,
            ["/client_email", "*/private_key", "*/private_key_id"],
        )?;
        hint = format!(
            "the key is that of {account}: it must still be in force, and the account needs the role \
             `roles/container.developer` or one that is wider in the project"
        );
        login.take_away(|it| OTHER_LOGINS.contains(&it));
        login.set("CLOUDSDK_CONFIG", login.folder.path.join("gcloud"));
        login.set("CLOUDSDK_CORE_PROJECT", &gcp.project);
        // The plugin reads it again for each token.
        login.set("CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE", key.file.path());
        login.keep_to_itself();
        login.keys.push(key);
    }
    login.set("USE_GKE_GCLOUD_AUTH_PLUGIN", "True");
    let (name, project, sh) = (&gcp.cluster, &gcp.project, &login.sh);
    // Which takes a region, too.
    let zone = gcp.region.as_ref().or(gcp.zone.as_ref());
    let zone: Vec<_> = zone.into_iter().flat_map(|it| ["--zone", it]).collect();
    login.step(
        cmd!(
            sh,
            "gcloud container clusters get-credentials {name} {zone...} --project {project}"
        ),
        &hint,
    )
}
