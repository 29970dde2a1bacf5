//! Decrypted values hidden in text.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use serde_json::Value;

use crate::{
    machine::terminal,
    secrets::in_memory::{InMemory, LONG_ENOUGH},
};

/// Hides decrypted values in what programs write, and calls private files by the names of their sources.
pub(crate) struct Mask {
    /// What to look for and what to show for it, the longest first.
    replacements: Vec<(String, String)>,
}

impl Mask {
    pub(crate) fn new<'a>(files: impl IntoIterator<Item = &'a InMemory>) -> Mask {
        let mut replacements = Vec::new();
        for file in files {
            let path = file.file.path().display().to_string();
            replacements.push((path, file.source.display().to_string()));
            replacements.extend(hidden(&file.secrets));
        }
        Mask::replacing(replacements)
    }

    /// Hides all values of which nobody can tell any more whether they were plain.
    pub(crate) fn of_values(values: &Value) -> Mask {
        let mut secrets = BTreeSet::new();
        leaves_of_json(values, &mut secrets);
        Mask::replacing(hidden(&secrets).collect())
    }

    fn replacing(mut replacements: Vec<(String, String)>) -> Mask {
        replacements.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        replacements.dedup();
        Mask { replacements }
    }

    /// Tells a GitHub workflow's runner what to hide in its log, where others write to it, too.
    pub(crate) fn announce(&self) {
        if terminal::is_in_workflow() {
            for (secret, _) in self.replacements.iter().filter(|(_, shown)| shown == "***") {
                for line in secret.lines().filter(|it| it.trim().len() >= LONG_ENOUGH) {
                    terminal::say_as_it_is(&terminal::workflow_command("add-mask", line.trim()));
                }
            }
        }
    }

    pub(crate) fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.replacements {
            if text.contains(from) {
                text = text.replace(from, to);
            }
        }
        text
    }
}

/// Collects all scalars that are long enough to be told from ordinary words.
fn leaves_of_json(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|it| leaves_of_json(it, found)),
        Value::Object(fields) => fields.values().for_each(|it| leaves_of_json(it, found)),
        Value::String(text) if text.trim().len() >= LONG_ENOUGH => {
            found.insert(text.trim().to_owned());
        }
        Value::Number(number) if number.to_string().len() >= LONG_ENOUGH => {
            found.insert(number.to_string());
        }
        _ => {}
    }
}

/// What to look for, and what to show for it.
fn hidden<'a>(
    secrets: impl IntoIterator<Item = &'a String>,
) -> impl Iterator<Item = (String, String)> {
    secrets
        .into_iter()
        .flat_map(|it| forms(it))
        .map(|it| (it, "***".to_owned()))
}

/// How a secret may appear in text: as it is, line by line, escaped, and in base64 at any position.
fn forms(secret: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::from([secret.to_owned()]);
    forms.extend(secret.lines().map(|it| it.trim().to_owned()));
    // Programs that write YAML fold a long text at its blanks.
    if secret.len() > 60 {
        forms.extend(secret.split_whitespace().map(str::to_owned));
    }
    for form in forms.clone() {
        forms.extend(escaped(&form));
    }
    for before in 0..3 {
        forms.insert(in_base64(secret, before));
    }
    forms.retain(|it| it.len() >= LONG_ENOUGH);
    forms
}

/// A text as JSON has it, as Go's JSON has it, and as YAML has it in single quotes.
fn escaped(text: &str) -> [String; 3] {
    let json = serde_json::to_string(text).expect("a string is JSON");
    let json = json[1..json.len() - 1].to_owned();
    // Go also escapes what could end a script element.
    let go = json
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026");
    [json, go, text.replace('\'', "''")]
}

/// What is certain of a secret's base64 where it follows on so many bytes, beyond a multiple of three.
fn in_base64(secret: &str, before: usize) -> String {
    let mut bytes = vec![0; before];
    bytes.extend(secret.as_bytes());
    let text = BASE64_STANDARD_NO_PAD.encode(&bytes);
    // The first characters also hold bits of what comes before, the last one of what follows.
    let end = text.len() - usize::from(!bytes.len().is_multiple_of(3));
    text[[0, 2, 3][before]..end].to_owned()
}
