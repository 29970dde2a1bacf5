//! sops, which nothing else runs. It gets files on its stdin and writes into memory.

use std::{cmp::Reverse, collections::BTreeSet, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use xshell::{Shell, cmd};

use crate::{
    machine::{
        paths::is_called_secret, private::PrivateFile, process, programs::Tools, tree::Tree,
    },
    secrets::{decrypted::Decrypted, in_memory::InMemory, needles::LONG_ENOUGH},
    yaml::{self, Data, Node, unquoted},
};

/// Decrypts with the person's own keys and, for a rehearsal cluster, with its demo key.
#[derive(Clone)]
pub(crate) struct Decrypter(Shell);

impl Decrypter {
    /// `tools` has sops. `demo_key` is a rehearsal cluster's key.
    pub(crate) fn new(tools: &Tools, demo_key: Option<&str>) -> Decrypter {
        let sh = tools.sh().clone();
        if let Some(key) = demo_key {
            let own = sh.var("SOPS_AGE_KEY").unwrap_or_default();
            sh.set_var("SOPS_AGE_KEY", format!("{own}\n{key}"));
        }
        Decrypter(sh)
    }

    /// Finds the same programs.
    pub(crate) fn sh(&self) -> &Shell {
        &self.0
    }
}

/// Reads a file, given by its path from the root, and decrypts it if it is encrypted. One that is called secret and is not
/// encrypted is refused.
pub(crate) fn open(decrypter: &Decrypter, tree: &Tree, file: &Path) -> Result<InMemory> {
    let shown = file.display();
    let content = tree
        .read_if_there(file)
        .with_context(|| format!("`{shown}`"))?;
    let content = content.with_context(|| format!("`{shown}` doesn't exist"))?;
    match yaml::read(&content, 0) {
        Ok((values, _)) if is_encrypted(&values) => decrypt(decrypter, file, &content),
        Err(finding) if is_called_secret(file) => bail!(
            "{shown}:{}: this is called secret, and isn't the YAML that sops writes",
            finding.line
        ),
        Ok(_) if is_called_secret(file) => bail!(not_encrypted(file)),
        _ => InMemory::plain(file, &content),
    }
}

/// Whether values are what sops writes: they have a `sops` block.
fn is_encrypted(values: &Node) -> bool {
    values
        .get(&["sops"])
        .is_some_and(|it| it.as_map().is_some())
}

/// What to say of a file that is called secret and has no `sops` block.
pub(crate) fn not_encrypted(file: &Path) -> String {
    let shown = file.display();
    let remedy = remedy(file);
    format!(
        "`{shown}` is called secret and isn't encrypted: it has no `sops` block\nhint: {remedy}"
    )
}

/// What to do about a file that should be encrypted.
pub(crate) fn remedy(file: &Path) -> String {
    let shown = file.display();
    format!(
        "if it was ever committed or shared, take its content as leaked and replace it where it came from; \
         then run `sops encrypt --in-place {shown}`"
    )
}

/// Decrypts what an encrypted file holds; `file` is its path from the root.
pub(crate) fn decrypt(decrypter: &Decrypter, file: &Path, encrypted: &[u8]) -> Result<InMemory> {
    let shown = file.display();
    let format = if encrypted.trim_ascii_start().starts_with(b"{") {
        "json"
    } else {
        "yaml"
    };
    let text = String::from_utf8(run(decrypter, file, encrypted, format)?)
        .with_context(|| format!("`{shown}` holds something else than text"))?;
    // The problem's own text may quote what was decrypted.
    let (values, _) = yaml::read(text.as_bytes(), 0)
        .map_err(|it| anyhow!("`{shown}`, decrypted, isn't YAML: see line {}", it.line))?;
    let encrypted = match yaml::read(encrypted, 0) {
        Ok((encrypted, _)) => encrypted,
        Err(_) => bail!("`{shown}` isn't YAML"),
    };
    InMemory::decrypted(file, &text, Decrypted::new(values, encrypted))
}

/// Decrypts a file that sops took for a single text.
pub(crate) fn decrypt_binary(
    decrypter: &Decrypter,
    tree: &Tree,
    file: &Path,
) -> Result<PrivateFile> {
    let encrypted = tree
        .read(file)
        .with_context(|| format!("`{}`", file.display()))?;
    PrivateFile::new(&run(decrypter, file, &encrypted, "binary")?)
}

fn run(decrypter: &Decrypter, file: &Path, encrypted: &[u8], format: &str) -> Result<Vec<u8>> {
    let sh = decrypter.sh();
    let sops = cmd!(
        sh,
        "sops decrypt --input-type {format} --output-type {format}"
    );
    let output = process::run(sh, sops, encrypted)?;
    if !output.success {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!(
            "cannot decrypt `{}`: {}\nhint: sops needs one of the keys that the file is encrypted for; \
             an age key is named by `SOPS_AGE_KEY_FILE`",
            file.display(),
            without_values(&condensed(message.trim()), encrypted)
        );
    }
    Ok(output.stdout)
}

/// A message of sops with one line for each key that the file is encrypted for: sops breaks these lines, and adds where it
/// has looked for keys and what it says of every file.
fn condensed(message: &str) -> String {
    let own = message.split("\n\nRecovery failed because").next();
    let mut lines: Vec<String> = Vec::new();
    for line in own.unwrap_or_default().lines().map(str::trim) {
        let more = line.strip_prefix("- | ").or(line.strip_prefix("| "));
        match (more, lines.last_mut()) {
            (Some(more), Some(last)) => *last += &format!(" {more}"),
            _ if line.is_empty() || line.starts_with("Group ") => {}
            _ => lines.push(line.to_owned()),
        }
    }
    let lines = lines.iter().map(|line| match line.split_once(": FAILED") {
        Some((key, why)) => {
            let why = why.split(". Did not find keys in locations").next();
            format!("  {key}:{}", why.unwrap_or_default())
        }
        None => line.clone(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A message of sops without the values of the file that it may quote: one that somebody wrote into an encrypted file is a
/// secret in plain text. Recipients, which the file's `sops` block has, stay.
fn without_values(message: &str, encrypted: &[u8]) -> String {
    let mut texts = BTreeSet::new();
    if let Ok((
        Node {
            data: Data::Map(mut values),
            ..
        },
        _,
    )) = yaml::read(encrypted, 0)
    {
        values.remove("sops");
        Node::nowhere(Data::Map(values)).visit(&mut |node| {
            let text = unquoted(&node.to_json());
            texts.insert((Reverse(text.len()), text));
        });
    }
    let mut message = message.to_owned();
    for (_, text) in texts.iter().filter(|(_, text)| !text.is_empty()) {
        message = message.replace(&format!(" {text} "), " *** ");
        if text.len() >= LONG_ENOUGH {
            message = message.replace(text, "***");
        }
    }
    message
}
