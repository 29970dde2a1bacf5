//! Amazon's EKS: `aws` writes the kubeconfig, and gets tokens with the key as long as the login is used.

use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::{
    kubernetes::credentials::login::{Login, read_key, require_on_path},
    machine::tree::Tree,
    repository::cluster::Aws,
    secrets::Decrypter,
};

/// Where an access key has its two texts: as `aws iam create-access-key` prints it, as variables of the environment, and
/// in a file of credentials.
const FORMS: [[&str; 2]; 3] = [
    ["/AccessKey/AccessKeyId", "*/AccessKey/SecretAccessKey"],
    ["/AWS_ACCESS_KEY_ID", "*/AWS_SECRET_ACCESS_KEY"],
    [
        "/default/aws_access_key_id",
        "*/default/aws_secret_access_key",
    ],
];

/// Without a `key` it is the person's own login, or that of the machine.
pub(crate) fn log_in(
    login: &mut Login,
    decrypter: &Decrypter,
    tree: &Tree,
    aws: &Aws,
) -> Result<()> {
    require(&login.sh)?;
    let hint = match &aws.key {
        Some(file) => use_key(login, decrypter, tree, file, &aws.region)?,
        None => {
            "`aws sts get-caller-identity` shows whose login this is, since cluster.yaml names no `key`"
                .to_owned()
        }
    };
    write_kubeconfig(login, aws, &hint)
}

pub(super) fn require(sh: &Shell) -> Result<()> {
    require_on_path(
        sh,
        &["aws"],
        "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html, or the package `awscli`",
    )
}

/// Has `aws` write the kubeconfig; `hint` is what to do if it does not.
fn write_kubeconfig(login: &Login, aws: &Aws, hint: &str) -> Result<()> {
    let name = &aws.cluster;
    let region = &aws.region;
    let kubeconfig = login.kubeconfig();
    let sh = &login.sh;
    login.run_provider(
        cmd!(
            sh,
            "aws eks update-kubeconfig --name {name} --region {region} --kubeconfig {kubeconfig}"
        ),
        hint,
    )
}

/// Takes the access key in a file for the login. Returns what to check if it is refused.
pub(super) fn use_key(
    login: &mut Login,
    decrypter: &Decrypter,
    tree: &Tree,
    file: &Path,
    region: &str,
) -> Result<String> {
    let (key, [id, secret]) = read_key(decrypter, tree, file, &FORMS)?;
    let hint = format!(
        "the access key is {id}: it must still be active, and its user needs access to the cluster \
         (`eks:DescribeCluster`, and an access entry)"
    );
    login.unset(|name| name.starts_with("AWS_") && !is_endpoint(name));

    login.set("AWS_ACCESS_KEY_ID", id);
    login.set("AWS_SECRET_ACCESS_KEY", secret);
    login.set("AWS_CONFIG_FILE", login.folder.path.join("aws/config"));
    login.set(
        "AWS_SHARED_CREDENTIALS_FILE",
        login.folder.path.join("aws/credentials"),
    );
    login.set("AWS_DEFAULT_REGION", region);
    login.isolate();
    login.keys.push(key);
    Ok(hint)
}

/// Whether a variable says where Amazon's services are and whom to trust there, which is no login.
fn is_endpoint(variable: &str) -> bool {
    ["AWS_CA_BUNDLE", "AWS_ENDPOINT_URL", "AWS_USE_"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
}
