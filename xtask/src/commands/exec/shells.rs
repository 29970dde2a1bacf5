//! Shells: in a hub, among its users' files, in an AWS account.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    commands::exec::{
        homes, logs,
        target::{InHub, interactive, open},
    },
    kubernetes::api::Api,
    machine::{
        private::PrivateFolder,
        process::{self, Whose},
        shell::{self, Env},
        terminal::list,
    },
};

/// Shells in a hub, among its users' files, or in an AWS account
#[derive(clap::Subcommand)]
pub enum Shells {
    /// Open a shell in the pod of a hub, or run a command there
    Hub(InHub),
    /// Open a shell, or run a command, where a hub's homes are at /home
    ///
    /// In a pod of its own with the claim `home-nfs`, which goes when this ends, and after twelve hours in any case. Its
    /// image is `shell_image` of config/xtask.yaml.
    Homes(InHub),
    /// The same with all that the NFS server of the homes has, at /root-homes
    ///
    /// Server and path are `nfs.pv.serverIP` and `nfs.pv.baseShareName` of the hub's values.
    RootHomes(InHub),
    CopyHomedirIntoAnother(homes::Copy),
    /// Open a shell that is logged in to AWS with a second factor
    Aws {
        /// A profile of ~/.aws/config
        profile: String,
        /// The ARN of the device
        mfa_device_id: String,
        /// The code that it shows now
        auth_token: String,
    },
}

pub(crate) fn shells(sh: &Shell, root: &Path, command: &Shells) -> Result<ExitCode> {
    match command {
        Shells::Hub(args) => in_hub(sh, root, args),
        Shells::Homes(args) => homes::homes(sh, root, args),
        Shells::RootHomes(args) => homes::root_homes(sh, root, args),
        Shells::CopyHomedirIntoAnother(args) => homes::copy(sh, root, args),
        Shells::Aws {
            profile,
            mfa_device_id,
            auth_token,
        } => aws(sh, profile, mfa_device_id, auth_token),
    }
}

fn in_hub(sh: &Shell, root: &Path, args: &InHub) -> Result<ExitCode> {
    let (cluster, login) = open(sh, root, &args.cluster, &args.hub)?;
    let (sh, hub, command) = (&login.sh, &args.hub, args.command());
    let pods = logs::pods(&Api::start(sh)?, hub, "component=hub")?;
    let names = pods
        .iter()
        .filter_map(|it| it["metadata"]["name"].as_str())
        .map(str::to_owned);
    let names: Vec<_> = names.collect();
    // Two of them while a new one takes over.
    let pod = logs::ready(pods).with_context(|| match names.is_empty() {
        true => format!("`{hub}` of `{}` has no hub pod", cluster.name),
        false => format!(
            "no hub pod of `{hub}` of `{}` is ready: {}",
            cluster.name,
            list(names)
        ),
    })?;
    let (pod, how) = (
        pod["metadata"]["name"].as_str().unwrap_or_default(),
        interactive(),
    );
    let exec = cmd!(
        sh,
        "kubectl exec --namespace {hub} {how...} {pod} --container hub -- {command...}"
    );
    process::in_front(sh, exec, Whose::Ours)
}

fn aws(sh: &Shell, profile: &str, device: &str, code: &str) -> Result<ExitCode> {
    let ask = cmd!(
        sh,
        "aws sts get-session-token --serial-number {device} --token-code {code} --profile {profile} --output json"
    );
    let answer = process::read(sh, ask).map_err(|err| {
        anyhow!("{err:#}\nhint: each code is good once, and the profile's own keys must be allowed to ask for a session")
    })?;
    let answer: Value = serde_json::from_str(&answer).context("the answer of `aws` isn't JSON")?;
    let mut env = Env::new();
    for (name, key) in [
        ("AWS_ACCESS_KEY_ID", "AccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"),
        ("AWS_SESSION_TOKEN", "SessionToken"),
    ] {
        let value = answer["Credentials"][key].as_str();
        env.insert(
            name.to_owned(),
            value
                .with_context(|| format!("the answer of `aws` has no {key}"))?
                .into(),
        );
    }
    env.insert("AWS_PROFILE".to_owned(), profile.into());
    if let Some(until) = answer["Credentials"]["Expiration"].as_str() {
        say!("logged in to AWS as `{profile}` until {until}");
    }
    let folder = PrivateFolder::new(sh)?;
    shell::run(sh, &format!("aws:{profile}"), &env, &folder.path, &[])
}
