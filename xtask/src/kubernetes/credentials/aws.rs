//! Amazon's EKS: the aws command writes the kubeconfig, and makes tokens from the key as long as the login is used.

use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::{
    kubernetes::credentials::login::{Login, read_key, refuse_without},
    repository::cluster::Aws,
};

pub(crate) fn log_in(login: &mut Login, sh: &Shell, root: &Path, aws: &Aws) -> Result<()> {
    refuse_without(
        &login.sh,
        &["aws"],
        "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html, or the package `awscli`",
    )?;
    let mut hint =
        "`aws sts get-caller-identity` shows whose login this is, since cluster.yaml names no `key`"
            .to_owned();
    if let Some(file) = &aws.key {
        let paths = ["/AccessKey/AccessKeyId", "*/AccessKey/SecretAccessKey"];
        let (key, [id, secret]) = read_key(sh, root, file, paths)?;
        hint = format!(
            "the access key is {id}: it must still be active, and its user must be let into the cluster \
             (`eks:DescribeCluster`, and an access entry)"
        );
        // Where Amazon is, and whom to trust there, isn't a login.
        let is_address = |it: &str| {
            ["AWS_CA_BUNDLE", "AWS_ENDPOINT_URL", "AWS_USE_"]
                .iter()
                .any(|prefix| it.starts_with(prefix))
        };
        login.take_away(|it| it.starts_with("AWS_") && !is_address(it));

        login.set("AWS_ACCESS_KEY_ID", id);
        login.set("AWS_SECRET_ACCESS_KEY", secret);
        login.set("AWS_CONFIG_FILE", login.folder.path.join("aws/config"));
        login.set(
            "AWS_SHARED_CREDENTIALS_FILE",
            login.folder.path.join("aws/credentials"),
        );
        login.set("AWS_DEFAULT_REGION", &aws.region);
        login.keep_to_itself();
        login.keys.push(key);
    }
    let (name, region, kubeconfig, sh) = (&aws.cluster, &aws.region, login.kubeconfig(), &login.sh);
    login.step(
        cmd!(
            sh,
            "aws eks update-kubeconfig --name {name} --region {region} --kubeconfig {kubeconfig}"
        ),
        &hint,
    )
}
