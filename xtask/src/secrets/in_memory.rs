//! Files that are kept in memory.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};

use serde_json::Value;

use crate::{
    machine::private::PrivateFile,
    secrets::{
        decrypted::Decrypted,
        needles::{DIGITS, LONG_ENOUGH},
    },
    yaml::{self, Data, Node},
};

/// What a file held when it was read, decrypted if it was encrypted. The programs that we start can read it as long as
/// this lives, whatever becomes of the file.
pub(crate) struct InMemory {
    pub(crate) file: PrivateFile,
    /// What must not show, as far as it is long enough to be found in text.
    pub(crate) secrets: Vec<String>,
    /// Where it came from, by its path from the root.
    pub(crate) source: PathBuf,
    /// Its values, if it was encrypted.
    pub(crate) decrypted: Option<Decrypted>,
}

impl InMemory {
    /// The content of a file that is not encrypted.
    pub(crate) fn plain(source: &Path, content: &[u8]) -> Result<InMemory> {
        Ok(InMemory {
            file: PrivateFile::new(content)?,
            secrets: Vec::new(),
            source: source.to_owned(),
            decrypted: None,
        })
    }

    /// What an encrypted file holds.
    pub(crate) fn decrypted(source: &Path, text: &str, values: Decrypted) -> Result<InMemory> {
        let mut secrets = BTreeSet::new();
        values.each_secret(|it| texts(&it.to_json(), &mut secrets));
        Ok(InMemory {
            secrets: secrets.into_iter().collect(),
            decrypted: Some(values),
            ..InMemory::plain(source, text.as_bytes())?
        })
    }

    /// What a file holds that was encrypted as one text.
    pub(crate) fn decrypted_whole(source: &Path, content: &[u8]) -> Result<InMemory> {
        let text = String::from_utf8_lossy(content);
        if let Ok((values, _)) = yaml::read(content, 0) {
            let was_encrypted = Decrypted::new(values, Node::nowhere(Data::Null));
            return InMemory::decrypted(source, &text, was_encrypted);
        }
        let mut secrets = BTreeSet::new();
        for line in text.lines() {
            texts(&Value::from(line), &mut secrets);
        }
        Ok(InMemory {
            secrets: secrets.into_iter().collect(),
            ..InMemory::plain(source, content)?
        })
    }

    /// YAML that came from elsewhere, all of it secret.
    pub(crate) fn secret(text: &str, source: PathBuf) -> Result<InMemory> {
        let mut secrets = BTreeSet::new();
        if let Ok((values, _)) = yaml::read(text.as_bytes(), 0) {
            texts(&values.to_json(), &mut secrets);
        }
        Ok(InMemory {
            file: PrivateFile::new(text.as_bytes())?,
            secrets: secrets.into_iter().collect(),
            source,
            decrypted: None,
        })
    }

    pub(crate) fn text(&self) -> Result<String> {
        let path = self.file.path();
        fs::read_to_string(path).with_context(|| format!("cannot read `{}`", self.source.display()))
    }

    /// The values in it. The error does not quote what it holds.
    pub(crate) fn values(&self) -> Result<Node> {
        let shown = self.source.display();
        let (values, _) = yaml::read(self.text()?.as_bytes(), 0)
            .map_err(|finding| anyhow!("{shown}:{}: this is not YAML", finding.line))?;
        Ok(values)
    }

    /// The same file with another text.
    pub(crate) fn with_text(self, text: &str) -> Result<InMemory> {
        Ok(InMemory {
            file: PrivateFile::new(text.as_bytes())?,
            ..self
        })
    }

    /// The same file, where nothing but these texts is secret.
    pub(crate) fn hiding(self, secrets: Vec<String>) -> InMemory {
        InMemory { secrets, ..self }
    }
}

/// Collects all texts and numbers in a value that are long enough to be told from ordinary ones, also those in a text that
/// is YAML or JSON.
pub(crate) fn texts(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|it| texts(it, found)),
        Value::Object(fields) => fields.values().for_each(|it| texts(it, found)),
        Value::String(text) if text.trim().chars().count() >= LONG_ENOUGH => {
            found.insert(text.trim().to_owned());
            if text.contains(['\n', '{', '['])
                && let Ok(inner @ (Value::Object(_) | Value::Array(_))) =
                    yaml::parse(text.as_bytes())
            {
                texts(&inner, found);
            }
        }
        Value::Number(number) if number.to_string().len() >= DIGITS => {
            found.insert(number.to_string());
        }
        _ => {}
    }
}
