//! A values file as it lies in the repository: plain, or encrypted by sops.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use crate::{
    machine::{paths::is_called_secret, tree::Tree},
    repository::{encrypted, encrypted_values},
    secrets::{self, Content, Decrypter, Form, InMemory, git_crypt},
    yaml::{self, Data, Finding, Map, Node, Place},
};

/// A file that was read once, whatever becomes of it later.
pub(crate) struct ValuesFile {
    /// Of the file, in places.
    pub(crate) number: u32,
    pub(crate) content: Vec<u8>,
    pub(crate) state: ValuesContent,
}

pub(crate) enum ValuesContent {
    /// There is nothing to read, and why.
    Unreadable(String),
    /// It is called secret and isn't encrypted: what it holds isn't looked at, lest a message show it.
    Exposed,
    /// It isn't YAML, or none that helm takes; or what jsonnet would make of it cannot be made.
    Broken(Finding),
    /// What it makes depends on the release.
    Jsonnet,
    Plain(Node, Vec<Finding>),
    Encrypted(EncryptedContent),
    /// git-crypt encrypts it, and it lies here as plain text: placeholders for all that it holds, and what helm would not
    /// mention.
    Unlocked(Node, Vec<Finding>),
    /// git-crypt has encrypted it.
    Locked,
}

/// What can be told of a file without decrypting it.
pub(crate) struct EncryptedContent {
    pub(crate) form: Form,
    /// With placeholders for what is encrypted.
    values: Node,
    /// The `sops` block by itself.
    pub(crate) sops: Node,
    /// What should be encrypted and is not, and why sops would not decrypt it.
    pub(crate) findings: Vec<Finding>,
    /// What helm would not mention if these are values.
    pub(crate) findings_of_values: Vec<Finding>,
}

/// Whether a values file is in jsonnet.
pub(crate) fn is_jsonnet(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "jsonnet")
}

impl ValuesFile {
    /// Reads a file; `path` is its path from the root.
    pub(crate) fn read(tree: &Tree, path: &Path, number: u32) -> ValuesFile {
        let shown = path.display();
        let (content, state) = match tree.read_if_there(path) {
            Ok(Some(content)) => return ValuesFile::of(path, content, number),
            Ok(None) => {
                let why = format!("`{shown}` {}", tree.missing());
                (Vec::new(), ValuesContent::Unreadable(why))
            }
            Err(err) => {
                let why = format!("`{shown}`: {err:#}");
                (Vec::new(), ValuesContent::Unreadable(why))
            }
        };
        ValuesFile {
            number,
            content,
            state,
        }
    }

    /// A file with this content.
    pub(crate) fn of(path: &Path, content: Vec<u8>, number: u32) -> ValuesFile {
        let state = if is_jsonnet(path) {
            ValuesContent::of_jsonnet(path, &content, number)
        } else {
            ValuesContent::of(path, &content, number)
        };
        ValuesFile {
            number,
            content,
            state,
        }
    }

    /// Reads a file that git-crypt encrypts if it is among these.
    pub(crate) fn read_kept(
        tree: &Tree,
        path: &Path,
        number: u32,
        git_crypt: &BTreeSet<PathBuf>,
    ) -> ValuesFile {
        let file = ValuesFile::read(tree, path, number);
        if git_crypt.contains(path) {
            file.kept_by_git_crypt(tree)
        } else {
            file
        }
    }

    /// The same file as one that `.gitattributes` has git-crypt encrypt.
    fn kept_by_git_crypt(mut self, tree: &Tree) -> ValuesFile {
        self.state = match self.state {
            state @ (ValuesContent::Unreadable(_)
            | ValuesContent::Encrypted(..)
            | ValuesContent::Locked) => state,
            _ if tree.is_index() => {
                let message = "`.gitattributes` has git-crypt encrypt this file, and git would commit it in plain text: \
                               `git-crypt status -f` mends that. If it was ever committed, take its content as leaked";
                ValuesContent::Broken(Finding::problem("not-encrypted", None, message))
            }
            ValuesContent::Jsonnet => {
                let message = "git-crypt encrypts this file, and what evaluates jsonnet gets no secrets: write its values as YAML";
                ValuesContent::Broken(Finding::problem("jsonnet", None, message))
            }
            _ => unlocked(&self.content, self.number),
        };
        self
    }

    /// The values that a file in jsonnet makes. Of their places only the file is known.
    pub(crate) fn made(json: String, number: u32) -> ValuesFile {
        let at = Place::start_of(number);
        // In a file of YAML it is there by mistake. Here it is part of a value, and helm takes it.
        let json = json.replace('\u{feff}', "\\ufeff");
        let state = match yaml::read(json.as_bytes(), number) {
            Ok((mut values, mut findings)) => {
                values.move_to(at);
                findings.extend(encrypted_values::stray(&values, true));
                for finding in &mut findings {
                    finding.move_to(at);
                }
                ValuesContent::Plain(values, findings)
            }
            Err(mut finding) => {
                finding.move_to(at);
                ValuesContent::Broken(finding)
            }
        };
        ValuesFile {
            number,
            content: json.into_bytes(),
            state,
        }
    }

    /// None if it can't be read, or not without being decrypted.
    pub(crate) fn values(&self) -> Option<&Map> {
        match &self.state {
            ValuesContent::Plain(values, _) => values.as_map(),
            ValuesContent::Unlocked(values, _) => values.as_map(),
            ValuesContent::Encrypted(it) if it.form.has_keys() => it.values.as_map(),
            _ => None,
        }
    }

    /// Its values, if it is a plain file that can be read.
    pub(crate) fn plain(&self) -> Option<&Node> {
        match &self.state {
            ValuesContent::Plain(values, _) => Some(values),
            _ => None,
        }
    }

    /// Whether it is encrypted in git.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(
            self.state,
            ValuesContent::Encrypted(..) | ValuesContent::Unlocked(..) | ValuesContent::Locked
        )
    }

    /// Whether git-crypt has encrypted it.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self.state, ValuesContent::Locked)
    }

    /// The `sops` block by itself.
    pub(crate) fn sops(&self) -> Option<&Node> {
        match &self.state {
            ValuesContent::Encrypted(it) => Some(&it.sops),
            _ => None,
        }
    }

    /// What it holds for programs that we start, decrypted if it is encrypted.
    pub(crate) fn open(&self, decrypter: &Decrypter, path: &Path) -> Result<InMemory> {
        self.refuse_unreadable(path)?;
        match &self.state {
            ValuesContent::Encrypted(..) => secrets::decrypt(decrypter, path, &self.content),
            ValuesContent::Unlocked(..) => InMemory::decrypted_whole(path, &self.content),
            _ => InMemory::plain(path, &self.content),
        }
    }

    /// An error if it has no values, and why.
    pub(crate) fn refuse_unreadable(&self, path: &Path) -> Result<()> {
        match &self.state {
            ValuesContent::Encrypted(..)
            | ValuesContent::Unlocked(..)
            | ValuesContent::Plain(..) => Ok(()),
            ValuesContent::Locked => bail!(git_crypt::locked(path)),
            ValuesContent::Exposed => bail!(secrets::not_encrypted(path)),
            ValuesContent::Unreadable(why) => bail!("{why}"),
            ValuesContent::Broken(finding) => {
                bail!("{}:{}: {}", path.display(), finding.line, finding.message)
            }
            ValuesContent::Jsonnet => bail!("`{}` was not evaluated", path.display()),
        }
    }

    /// Its values with placeholders for what is encrypted, as JSON, which helm reads as well.
    pub(crate) fn placeholders(&self) -> String {
        let values = self.values().cloned().unwrap_or_default();
        Node::nowhere(Data::Map(values)).to_json().to_string()
    }
}

impl ValuesContent {
    /// What evaluates jsonnet gets no secret, and so an encrypted file makes no values.
    fn of_jsonnet(path: &Path, content: &[u8], number: u32) -> ValuesContent {
        let is_encrypted = matches!(
            secrets::read(path, content, number),
            Ok(Content::Encrypted(..))
        );
        if git_crypt::is_locked(content) {
            ValuesContent::Locked
        } else if is_encrypted {
            let message = "sops encrypted this file, and what evaluates jsonnet gets no secrets: write its values as YAML";
            ValuesContent::Broken(Finding::problem("jsonnet", None, message))
        } else if is_called_secret(path) {
            ValuesContent::Exposed
        } else {
            ValuesContent::Jsonnet
        }
    }

    fn of(path: &Path, content: &[u8], number: u32) -> ValuesContent {
        if git_crypt::is_locked(content) {
            return ValuesContent::Locked;
        }
        let is_called_secret = is_called_secret(path);
        match secrets::read(path, content, number) {
            Err(finding) if is_called_secret && finding.rule != secrets::BROKEN => {
                ValuesContent::Exposed
            }
            Err(finding) => ValuesContent::Broken(finding),
            Ok(Content::Encrypted(encrypted)) => {
                let mut values = encrypted.values;
                let sops = encrypted.sops;
                let mut findings = encrypted.faults;
                findings.extend(encrypted_values::check(
                    &values,
                    &sops,
                    content,
                    is_called_secret,
                ));
                encrypted::put_placeholders(&mut values);
                ValuesContent::Encrypted(EncryptedContent {
                    form: encrypted.form,
                    values,
                    sops,
                    findings,
                    findings_of_values: encrypted.findings,
                })
            }
            Ok(Content::Plain(..)) if is_called_secret => ValuesContent::Exposed,
            Ok(Content::Plain(values, mut findings)) => {
                findings.extend(encrypted_values::stray(&values, false));
                ValuesContent::Plain(values, findings)
            }
        }
    }
}

/// What of an unlocked file may be known outside of it: its keys, and the types of its values.
fn unlocked(content: &[u8], number: u32) -> ValuesContent {
    match yaml::read(content, number) {
        Ok((mut values, mut findings)) => {
            encrypted::hide_all(&mut values);
            // Others quote values.
            findings.retain(|it| it.rule == "duplicate-key" || it.rule == yaml::SECOND_DOCUMENT);
            ValuesContent::Unlocked(values, findings)
        }
        Err(finding) => ValuesContent::Broken(Finding {
            message: "this is not YAML; the line is not shown, since git-crypt encrypts this file"
                .to_owned(),
            ..finding
        }),
    }
}
