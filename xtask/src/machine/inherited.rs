//! What programs that work for us inherit from the person's environment.

use std::{
    env,
    ffi::{OsStr, OsString},
};

use xshell::Shell;

/// How the names of settings of the programs that we run begin. With a setting of the person's, helm would look for
/// releases elsewhere (`HELM_DRIVER`), kubectl would talk to another cluster, and git to another repository, such as the one
/// whose hook we run in.
const SETTINGS: &[&str] = &[
    "CONTAINERD_",
    "ETCD_",
    GIT,
    "HELM_",
    "KUBE",
    "KWOK_",
    "SOPS_",
];
const GIT: &str = "GIT_";

/// The settings that reach programs all the same: they say where the person's keys are and how to get at them, or where git
/// is not to look for a repository.
const KEPT: &[&str] = &[
    "GIT_CEILING_DIRECTORIES",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "SOPS_AGE_KEY",
    "SOPS_AGE_KEY_CMD",
    "SOPS_AGE_KEY_FILE",
    "SOPS_AGE_SSH_PRIVATE_KEY_CMD",
    "SOPS_AGE_SSH_PRIVATE_KEY_FILE",
    "SOPS_DECRYPTION_ORDER",
    "SOPS_ENABLE_LOCAL_KEYSERVICE",
    "SOPS_GCP_KMS_CLIENT_TYPE",
    "SOPS_GCP_KMS_ENDPOINT",
    "SOPS_GCP_KMS_UNIVERSE_DOMAIN",
    "SOPS_GPG_EXEC",
    "SOPS_HC_VAULT_ALLOWLIST",
    "SOPS_KEYSERVICE",
];

/// The variables of our own environment that programs must not inherit. One that is set on a `Shell` reaches the programs
/// that it runs, whatever its name.
pub(crate) fn unwanted() -> impl Iterator<Item = OsString> {
    let names = env::vars_os().map(|(name, _)| name);
    names.filter(|name| !KEPT.iter().any(|it| name == it) && begins_with_any(name, SETTINGS))
}

/// A `Shell` whose git works on the repository and the index that git names in a hook's environment.
pub(crate) fn with_git(sh: &Shell) -> Shell {
    let sh = sh.clone();
    for (name, value) in of_git() {
        sh.set_var(name, value);
    }
    sh
}

/// The same `Shell` for another repository, such as a submodule.
pub(crate) fn without_git(sh: &Shell) -> Shell {
    let sh = sh.clone();
    for (name, _) in of_git() {
        sh.set_var(name, "");
    }
    sh
}

fn of_git() -> impl Iterator<Item = (OsString, OsString)> {
    env::vars_os().filter(|(name, _)| begins_with_any(name, &[GIT]))
}

fn begins_with_any(name: &OsStr, prefixes: &[&str]) -> bool {
    let name = name.as_encoded_bytes();
    prefixes.iter().any(|it| name.starts_with(it.as_bytes()))
}
