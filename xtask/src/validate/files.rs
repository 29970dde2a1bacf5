//! A values file as it lies in the repository: plain, or encrypted by sops.

use std::path::Path;

use super::encrypted;
use crate::{
    secrets::is_called_secret,
    yaml::{self, Data, Finding, Map, Node},
};

pub(super) struct ValuesFile {
    pub(super) number: u32,
    pub(super) state: State,
}

pub(super) enum State {
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
    pub(super) fn read(root: &Path, path: &Path, number: u32) -> ValuesFile {
        let state = match yaml::content(&root.join(path)) {
            Err(_) if !root.join(path).exists() => {
                State::Unreadable(format!("`{}` doesn't exist", path.display()))
            }
            Err(err) => State::Unreadable(format!("`{}`: {err:#}", path.display())),
            Ok(content) => match yaml::read(&content, number) {
                Err(_) if is_called_secret(path) => State::Exposed,
                Err(finding) => State::Broken(finding),
                Ok((mut node, findings)) => match encrypted::take_sops(&mut node) {
                    Some(sops) => State::Encrypted(node, sops),
                    None if is_called_secret(path) => State::Exposed,
                    None => State::Plain(node, findings),
                },
            },
        };
        ValuesFile { number, state }
    }

    /// None if it can't be read.
    pub(super) fn values(&self) -> Option<&Map> {
        match &self.state {
            State::Plain(
                Node {
                    data: Data::Map(map),
                    ..
                },
                _,
            )
            | State::Encrypted(
                Node {
                    data: Data::Map(map),
                    ..
                },
                _,
            ) => Some(map),
            _ => None,
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.state, State::Encrypted(..))
    }
}
