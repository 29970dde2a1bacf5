//! A values file as it lies in the repository: plain, or encrypted by sops.

use std::path::Path;

use crate::{
    machine::paths::is_called_secret,
    repository::encrypted,
    yaml::{self, Data, Finding, Map, Node},
};

pub(crate) struct ValuesFile {
    pub(crate) number: u32,
    pub(crate) state: ValuesContent,
}

pub(crate) enum ValuesContent {
    /// There is nothing to read, and why.
    Unreadable(String),
    /// It is called secret and isn't encrypted: what it holds isn't looked at, lest a message show it.
    Exposed,
    /// It isn't YAML, or none that helm takes.
    Broken(Finding),
    Plain(Node, Vec<Finding>),
    /// With placeholders for what is encrypted, and the `sops` block by itself.
    Encrypted(Node, Node),
}

impl ValuesFile {
    /// `path` is relative to the root.
    pub(crate) fn read(root: &Path, path: &Path, number: u32) -> ValuesFile {
        let state = match yaml::content(&root.join(path)) {
            Err(_) if !root.join(path).exists() => {
                ValuesContent::Unreadable(format!("`{}` doesn't exist", path.display()))
            }
            Err(err) => ValuesContent::Unreadable(format!("`{}`: {err:#}", path.display())),
            Ok(content) => match yaml::read(&content, number) {
                Err(_) if is_called_secret(path) => ValuesContent::Exposed,
                Err(finding) => ValuesContent::Broken(finding),
                Ok((mut node, findings)) => match encrypted::take_sops(&mut node) {
                    Some(sops) => ValuesContent::Encrypted(node, sops),
                    None if is_called_secret(path) => ValuesContent::Exposed,
                    None => ValuesContent::Plain(node, findings),
                },
            },
        };
        ValuesFile { number, state }
    }

    /// None if it can't be read.
    pub(crate) fn values(&self) -> Option<&Map> {
        match &self.state {
            ValuesContent::Plain(
                Node {
                    data: Data::Map(map),
                    ..
                },
                _,
            )
            | ValuesContent::Encrypted(
                Node {
                    data: Data::Map(map),
                    ..
                },
                _,
            ) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.state, ValuesContent::Encrypted(..))
    }
}
