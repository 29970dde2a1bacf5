//! sops: decrypted into memory only, and hidden in whatever is shown. Nothing else runs sops.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use serde_yaml::Value;
use xshell::{Shell, cmd};

use crate::{
    machine::{paths::is_called_secret, private::PrivateFile, process},
    yaml::split_documents,
};

/// How a file that cluster.yaml names lies in the repository.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Plain,
    /// It has a top-level `sops` block, whatever its name.
    Encrypted,
}

/// What a file held when we read it, decrypted if it was encrypted. The programs that we start can read it as long as this
/// lives, whatever becomes of the file.
pub(crate) struct InMemory {
    pub(crate) file: PrivateFile,
    /// What must not show, each of eight characters or more.
    secrets: Vec<String>,
    /// Where it came from, from the root.
    pub(crate) source: PathBuf,
}

impl InMemory {
    /// What came from elsewhere, all of it secret.
    pub(crate) fn secret(text: &str, source: PathBuf) -> Result<InMemory> {
        let mut secrets = BTreeSet::new();
        leaves(
            &serde_yaml::from_str(text).unwrap_or_default(),
            &mut secrets,
        );
        let secrets = secrets.into_iter().collect();
        Ok(InMemory {
            file: PrivateFile::new(text.as_bytes())?,
            secrets,
            source,
        })
    }

    pub(crate) fn text(&self) -> Result<String> {
        let path = self.file.path();
        fs::read_to_string(path).with_context(|| format!("cannot read `{}`", self.source.display()))
    }

    /// The same with another text.
    pub(crate) fn with_text(self, text: &str) -> Result<InMemory> {
        Ok(InMemory {
            file: PrivateFile::new(text.as_bytes())?,
            ..self
        })
    }

    /// The same where nothing but this is secret.
    pub(crate) fn hiding(self, secrets: Vec<String>) -> InMemory {
        InMemory { secrets, ..self }
    }
}

/// Looks at a file without decrypting it. A file that is called secret and isn't encrypted is refused.
pub(crate) fn inspect(root: &Path, file: &Path) -> Result<Kind> {
    let shown = file.display();
    let text = match fs::read_to_string(root.join(file)) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => bail!("`{shown}` doesn't exist"),
        read => read.with_context(|| format!("cannot read `{shown}`"))?,
    };
    let yaml: Result<Value, _> = serde_yaml::from_str(&text);
    if yaml
        .as_ref()
        .is_ok_and(|it| it.get("sops").is_some_and(Value::is_mapping))
    {
        return Ok(Kind::Encrypted);
    }
    let named_secret = is_called_secret(file);
    match yaml {
        Err(err) if named_secret => {
            bail!("`{shown}` is called secret, and isn't the YAML that sops writes: {err}")
        }
        _ if named_secret => bail!(
            "`{shown}` is called secret and isn't encrypted: it has no `sops` block\n\
             hint: if it was ever committed or shared, take its content as leaked and replace it where it came from; \
             then run `sops encrypt --in-place {shown}`"
        ),
        _ => Ok(Kind::Plain),
    }
}

/// Decrypts a file that sops took for a single text.
pub(crate) fn decrypt_binary(sh: &Shell, file: &Path) -> Result<PrivateFile> {
    PrivateFile::new(&sops_decrypt(sh, file, "binary")?)
}

fn sops_decrypt(sh: &Shell, file: &Path, format: &str) -> Result<Vec<u8>> {
    let output = process::run(
        sh,
        cmd!(
            sh,
            "sops decrypt --input-type {format} --output-type {format} {file}"
        ),
        b"",
    )?;
    if !output.success {
        bail!(
            "cannot decrypt `{}`: {}\nhint: sops needs one of the keys that the file is encrypted for; \
             an age key is named by `SOPS_AGE_KEY_FILE`",
            file.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

/// Takes in a file of either kind.
pub(crate) fn open(sh: &Shell, root: &Path, file: &Path) -> Result<InMemory> {
    match inspect(root, file)? {
        Kind::Plain => read(root, file),
        Kind::Encrypted => decrypt(sh, file),
    }
}

/// Decrypts a file of `Kind::Encrypted`; `file` is relative to the root, where `sh` works.
pub(crate) fn decrypt(sh: &Shell, file: &Path) -> Result<InMemory> {
    let shown = file.display();
    let encrypted = sh.read_file(file)?;
    let format = if encrypted.trim_start().starts_with('{') {
        "json"
    } else {
        "yaml"
    };
    let text = String::from_utf8(sops_decrypt(sh, file, format)?)
        .with_context(|| format!("`{shown}` holds something else than text"))?;
    let decrypted: Value = serde_yaml::from_str(&text).map_err(|err| {
        // The error's own text may quote what was decrypted.
        anyhow!(
            "`{shown}`, decrypted, isn't YAML: see line {}",
            err.location().map_or(1, |it| it.line())
        )
    })?;
    let mut secrets = BTreeSet::new();
    leaves(&decrypted, &mut secrets);
    let mut plain = BTreeSet::new();
    leaves(&serde_yaml::from_str(&encrypted)?, &mut plain);
    let secrets = secrets.difference(&plain).cloned().collect();
    Ok(InMemory {
        file: PrivateFile::new(text.as_bytes())?,
        secrets,
        source: file.to_owned(),
    })
}

/// Takes in a file of `Kind::Plain`.
pub(crate) fn read(root: &Path, file: &Path) -> Result<InMemory> {
    let text = fs::read_to_string(root.join(file))
        .with_context(|| format!("cannot read `{}`", file.display()))?;
    Ok(InMemory {
        file: PrivateFile::new(text.as_bytes())?,
        secrets: Vec::new(),
        source: file.to_owned(),
    })
}

/// All scalars that are long enough to be told from ordinary words.
fn leaves(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Sequence(items) => items.iter().for_each(|it| leaves(it, found)),
        Value::Mapping(entries) => entries.values().for_each(|it| leaves(it, found)),
        Value::Tagged(tagged) => leaves(&tagged.value, found),
        Value::String(text) if text.trim().len() >= 8 => _ = found.insert(text.trim().to_owned()),
        Value::Number(number) if number.to_string().len() >= 8 => {
            _ = found.insert(number.to_string())
        }
        _ => {}
    }
}

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
    pub(crate) fn of_values(values: &serde_json::Value) -> Mask {
        let mut secrets = BTreeSet::new();
        leaves(
            &serde_yaml::to_value(values).unwrap_or_default(),
            &mut secrets,
        );
        Mask::replacing(hidden(&secrets).collect())
    }

    fn replacing(mut replacements: Vec<(String, String)>) -> Mask {
        replacements.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        replacements.dedup();
        Mask { replacements }
    }

    /// Tells a GitHub workflow's runner what to hide in its log, where others write to it, too.
    pub(crate) fn announce(&self) {
        if env::var_os("GITHUB_ACTIONS").is_some_and(|it| it == "true") {
            for (secret, _) in self.replacements.iter().filter(|(_, shown)| shown == "***") {
                for line in secret.lines().filter(|it| it.trim().len() >= 8) {
                    say!("::add-mask::{}", line.trim().replace('%', "%25"));
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

    /// Manifests as helm prints them, with every Secret's data left out by its structure, however short it is.
    pub(crate) fn hide_in_manifest(&self, manifest: &str) -> String {
        let documents: Vec<_> = split_documents(manifest).map(hide_secret_data).collect();
        self.hide(&documents.join("---\n"))
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
        let json = serde_json::to_string(&form).expect("a string is JSON");
        let json = json[1..json.len() - 1].to_owned();
        // Go's JSON also escapes what could end a script element.
        forms.insert(
            json.replace('<', "\\u003c")
                .replace('>', "\\u003e")
                .replace('&', "\\u0026"),
        );
        forms.insert(json);
        forms.insert(form.replace('\'', "''"));
    }
    for before in 0..3 {
        let mut bytes = vec![0; before];
        bytes.extend(secret.as_bytes());
        let text = BASE64_STANDARD_NO_PAD.encode(&bytes);
        // The first characters also hold bits of what stands before, the last one of what follows.
        let end = text.len() - usize::from(bytes.len() % 3 != 0);
        forms.insert(text[[0, 2, 3][before]..end].to_owned());
    }
    forms.retain(|it| it.len() >= 8);
    forms
}

fn hide_secret_data(document: &str) -> String {
    // Most documents aren't Secrets, and keep their text and comments.
    if !document.contains("Secret") {
        return document.to_owned();
    }
    let Ok(mut yaml) = serde_yaml::from_str::<Value>(document) else {
        return "# (a document that isn't YAML, and may hold a Secret)\n".to_owned();
    };
    if !mask_secrets(&mut yaml) {
        return document.to_owned();
    }
    let comments: String = document
        .lines()
        .take_while(|it| it.starts_with('#'))
        .flat_map(|it| [it, "\n"])
        .collect();
    comments + &serde_yaml::to_string(&yaml).unwrap_or_default()
}

/// Replaces the data of every Secret in the value, also in a `List`; whether there was one.
fn mask_secrets(value: &mut Value) -> bool {
    let mut found = false;
    match value {
        Value::Sequence(items) => items.iter_mut().for_each(|it| found |= mask_secrets(it)),
        Value::Mapping(entries) => {
            if entries.get("kind").and_then(Value::as_str) == Some("Secret") {
                found = true;
                for key in ["data", "stringData"] {
                    if let Some(data) = entries.get_mut(key).and_then(Value::as_mapping_mut) {
                        data.values_mut().for_each(|it| *it = Value::from("***"));
                    }
                }
            } else {
                entries
                    .values_mut()
                    .for_each(|it| found |= mask_secrets(it));
            }
        }
        _ => {}
    }
    found
}
