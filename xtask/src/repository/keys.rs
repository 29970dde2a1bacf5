//! The files that cluster.yaml names to log in with.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{
    machine::tree::Tree,
    repository::{
        cluster::{Cluster, Provider},
        values_file::{ValuesContent, ValuesFile},
    },
    secrets::{self, git_crypt},
    yaml::{Node, Place},
};

/// A provider's key, or a kubeconfig.
pub(crate) struct KeyFile<'a> {
    /// From the root.
    pub(crate) path: &'a Path,
    is_kubeconfig: bool,
    /// What it logs in to.
    leads_to: &'static str,
    /// Where cluster.yaml names it.
    pub(crate) at: Option<Place>,
}

impl KeyFile<'_> {
    /// None if the cluster is logged in to without a file.
    pub(crate) fn of(cluster: &Cluster) -> Option<KeyFile<'_>> {
        let (path, keys) = match &cluster.provider {
            Provider::Local(_) => return None,
            Provider::Kubeconfig(path) => (path, ["kubeconfig", "file"]),
            Provider::Gcp(gcp) => (gcp.key.as_ref()?, ["gcp", "key"]),
            Provider::Aws(aws) => (aws.key.as_ref()?, ["aws", "key"]),
            Provider::Azure(azure) => (azure.key.as_ref()?, ["azure", "key"]),
        };
        Some(KeyFile {
            path,
            is_kubeconfig: keys[0] == "kubeconfig",
            leads_to: "the cluster",
            at: cluster.yaml.get(&keys).and_then(|it| it.at),
        })
    }

    /// A file that logs in to a registry of images.
    pub(crate) fn of_registry(path: &Path) -> KeyFile<'_> {
        KeyFile {
            path,
            is_kubeconfig: false,
            leads_to: "a registry of images",
            at: None,
        }
    }

    /// Refuses it if it should be encrypted, and is not.
    pub(crate) fn refuse_plain(&self, sh: &Shell, tree: &Tree) -> Result<()> {
        let git_crypt = git_crypt::marked(sh, tree, [self.path])?;
        match self.problems(tree, &self.read(tree, &git_crypt)) {
            problems if problems.is_empty() => Ok(()),
            problems => bail!("{}", problems.join("\n")),
        }
    }

    /// What it holds. `git_crypt` has it if git-crypt encrypts it.
    pub(crate) fn read(&self, tree: &Tree, git_crypt: &BTreeSet<PathBuf>) -> ValuesFile {
        ValuesFile::read_kept(tree, self.path, 0, git_crypt)
    }

    /// What is wrong with it as it lies in the repository. A kubeconfig that is not there may be put there later.
    pub(crate) fn problems(&self, tree: &Tree, file: &ValuesFile) -> Vec<String> {
        let shown = self.path.display();
        match &file.state {
            ValuesContent::Unreadable(_) if self.may_come_later(tree) => Vec::new(),
            ValuesContent::Unreadable(why) => vec![why.clone()],
            ValuesContent::Plain(values, _) if self.is_kubeconfig && !has_credentials(values) => {
                Vec::new()
            }
            ValuesContent::Broken(finding)
                if self.is_kubeconfig || finding.rule == secrets::BROKEN =>
            {
                vec![format!("{shown}:{}: {}", finding.line, finding.message)]
            }
            ValuesContent::Encrypted(encrypted)
                if self.is_kubeconfig && encrypted.form.is_flat() =>
            {
                let form = encrypted.form.name();
                vec![format!(
                    "`{shown}` is in the {form} form of sops, and a kubeconfig is YAML or JSON"
                )]
            }
            ValuesContent::Locked | ValuesContent::Unlocked(..) => Vec::new(),
            ValuesContent::Encrypted(encrypted) => {
                let findings = encrypted.findings.iter();
                findings
                    .map(|it| format!("{shown}:{}: {}", it.line, it.message))
                    .collect()
            }
            _ => vec![format!(
                "`{shown}` holds what logs in to {}, and is not encrypted\nhint: {}",
                self.leads_to,
                secrets::remedy(self.path)
            )],
        }
    }

    fn may_come_later(&self, tree: &Tree) -> bool {
        let is_missing = matches!(tree.find(self.path), Ok(None));
        self.is_kubeconfig && is_missing && !tree.lacks(self.path)
    }
}

/// Refuses a login with a file that should be encrypted, and is not.
pub(crate) fn refuse_plain(sh: &Shell, tree: &Tree, cluster: &Cluster) -> Result<()> {
    KeyFile::of(cluster).map_or(Ok(()), |it| it.refuse_plain(sh, tree))
}

/// What a user of a kubeconfig has that is secret itself:
/// <https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/#AuthInfo>
const CREDENTIALS: [&[&str]; 7] = [
    &["token"],
    &["password"],
    &["client-key-data"],
    &["auth-provider", "config", "access-token"],
    &["auth-provider", "config", "client-secret"],
    &["auth-provider", "config", "id-token"],
    &["auth-provider", "config", "refresh-token"],
];

/// Whether a kubeconfig holds what logs in by itself, and does not only say where that is.
fn has_credentials(kubeconfig: &Node) -> bool {
    let users = kubeconfig.get(&["users"]).and_then(Node::as_list);
    let mut users = users
        .into_iter()
        .flatten()
        .filter_map(|it| it.get(&["user"]));
    users.any(|user| {
        CREDENTIALS
            .iter()
            .any(|path| user.text(path).is_some_and(|it| !it.is_empty()))
    })
}
