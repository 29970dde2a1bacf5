//! Shells in a hub, with its users' files, and in an AWS account.

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    commands::exec::{
        copy_homedir::{self, CopyHomedirIntoAnother},
        homes, pods,
        target::{InHub, interactive, open},
    },
    kubernetes::api::Api,
    machine::{
        private::PrivateFolder,
        process::{self, Whose},
        shell::{self, Env},
        terminal::list,
        tree::Tree,
    },
};

/// Open a shell: in a hub, at its users' home directories, or with a login to AWS
#[derive(clap::Subcommand)]
pub enum Shells {
    /// Open a shell in the pod of a hub, or run a command there
    Hub(InHub),
    /// Open a shell with a hub's home directories at /home, or run a command there
    ///
    /// The shell runs in a new pod that mounts the claim `home-nfs`. The pod is deleted at the end, and after twelve hours in
    /// any case. Its image is `shell_image` of config/xtask.yaml.
    Homes(InHub),
    /// Open a shell with the root of the homes' NFS server at /root-homes
    ///
    /// The shell runs in a new pod, as for `homes`. The NFS server and the path are `nfs.pv.serverIP` and
    /// `nfs.pv.baseShareName` of the hub's values.
    RootHomes(InHub),
    CopyHomedirIntoAnother(CopyHomedirIntoAnother),
    Aws(Aws),
}

/// Open a shell that is logged in to AWS with a second factor
#[derive(clap::Args)]
pub struct Aws {
    /// A profile of ~/.aws/config
    profile: String,
    /// The ARN of the MFA device
    mfa_device_id: String,
    /// The code that the device shows now
    auth_token: String,
}

pub(crate) fn shells(sh: &Shell, tree: &Tree, command: &Shells) -> Result<ExitCode> {
    match command {
        Shells::Hub(args) => in_hub(sh, tree, args),
        Shells::Homes(args) => homes::homes(sh, tree, args),
        Shells::RootHomes(args) => homes::root_homes(sh, tree, args),
        Shells::CopyHomedirIntoAnother(args) => copy_homedir::copy(sh, tree, args),
        Shells::Aws(args) => aws(sh, args),
    }
}

fn in_hub(sh: &Shell, tree: &Tree, args: &InHub) -> Result<ExitCode> {
    let (cluster, login) = open(sh, tree, &args.cluster, &args.hub)?;
    let sh = &login.sh;
    let hub = &args.hub;
    let pods = pods::find(&Api::start(sh)?, hub, "component=hub")?;
    let names = list(pods.iter().map(pods::name));
    // There are two of them while a new one takes over.
    let pod = pods::newest_ready(pods).with_context(|| {
        if names.is_empty() {
            format!("`{hub}` of `{}` has no hub pod", cluster.name)
        } else {
            format!(
                "no hub pod of `{hub}` of `{}` is ready: {names}",
                cluster.name
            )
        }
    })?;
    let pod = pods::name(&pod);
    let stdin = interactive();
    let command = args.command();
    let exec = cmd!(
        sh,
        "kubectl exec --namespace {hub} {stdin...} {pod} --container hub -- {command...}"
    );
    process::in_front(sh, exec, Whose::Ours)
}

fn aws(sh: &Shell, args: &Aws) -> Result<ExitCode> {
    let profile = &args.profile;
    let device = &args.mfa_device_id;
    let code = &args.auth_token;
    let ask = cmd!(
        sh,
        "aws sts get-session-token --serial-number {device} --token-code {code} --profile {profile} --output json"
    );
    let answer = process::read(sh, ask).map_err(|err| {
        anyhow!("{err:#}\nhint: each code is good once, and the profile's own keys must be allowed to ask for a session")
    })?;
    let answer: Value = serde_json::from_str(&answer).context("the answer of `aws` is not JSON")?;
    let credentials = &answer["Credentials"];
    let mut env = session_variables(credentials)?;
    env.insert("AWS_PROFILE".to_owned(), profile.into());
    if let Some(until) = credentials["Expiration"].as_str() {
        say!("logged in to AWS as `{profile}` until {until}");
    }
    let folder = PrivateFolder::new(sh)?;
    shell::run(sh, &format!("aws:{profile}"), &env, &folder.path, &[])
}

fn session_variables(credentials: &Value) -> Result<Env> {
    let mut env = Env::new();
    for (variable, key) in [
        ("AWS_ACCESS_KEY_ID", "AccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"),
        ("AWS_SESSION_TOKEN", "SessionToken"),
    ] {
        let value = credentials[key].as_str();
        let value = value.with_context(|| format!("the answer of `aws` has no {key}"))?;
        env.insert(variable.to_owned(), value.into());
    }
    Ok(env)
}
