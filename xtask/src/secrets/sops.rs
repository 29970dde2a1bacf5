//! sops, which nothing else runs. It gets files on its stdin and writes into memory.

use std::{cmp::Reverse, collections::BTreeSet, path::Path};

use anyhow::{Context, Result, anyhow, bail, ensure};
use xshell::{Shell, cmd};

use crate::{
    machine::{paths::is_called_secret, process, programs::Tools, tree::Tree},
    secrets::{
        decrypted::Decrypted,
        form::{self, BROKEN, Content, Encrypted, Form},
        git_crypt,
        in_memory::InMemory,
        needles::LONG_ENOUGH,
    },
    yaml::{self, Node, unquoted},
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
    ensure!(!git_crypt::is_locked(&content), git_crypt::locked(file));
    let read = form::read(file, &content, 0);
    if !matches!(read, Ok(Content::Encrypted(_)))
        && !git_crypt::marked(decrypter.sh(), tree, [file])?.is_empty()
    {
        return InMemory::decrypted_whole(file, &content);
    }
    match read {
        Ok(Content::Encrypted(it)) => decrypt_content(decrypter, file, &content, it.for_key()),
        Err(finding) if finding.rule == BROKEN => {
            bail!("{shown}:{}: {}", finding.line, finding.message)
        }
        Err(finding) if is_called_secret(file) => bail!(
            "{shown}:{}: this is called secret, and isn't the YAML that sops writes",
            finding.line
        ),
        Ok(_) if is_called_secret(file) => bail!(not_encrypted(file)),
        _ => InMemory::plain(file, &content),
    }
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

/// Decrypts the values in an encrypted file; `file` is its path from the root.
pub(crate) fn decrypt(decrypter: &Decrypter, file: &Path, content: &[u8]) -> Result<InMemory> {
    let Ok(Content::Encrypted(encrypted)) = form::read(file, content, 0) else {
        bail!(not_encrypted(file));
    };
    let values = decrypt_content(decrypter, file, content, encrypted)?;
    ensure!(
        values.decrypted.is_some(),
        "`{}`, decrypted, isn't YAML",
        file.display()
    );
    Ok(values)
}

/// Decrypts a file of any form; `file` is its path from the root.
pub(crate) fn decrypt_any(decrypter: &Decrypter, file: &Path, content: &[u8]) -> Result<InMemory> {
    match form::read(file, content, 0) {
        Ok(Content::Encrypted(it)) => decrypt_content(decrypter, file, content, it.for_key()),
        _ => bail!(not_encrypted(file)),
    }
}

/// Decrypts a file's content, which was read. What is neither YAML nor one text becomes JSON.
fn decrypt_content(
    decrypter: &Decrypter,
    file: &Path,
    content: &[u8],
    encrypted: Encrypted,
) -> Result<InMemory> {
    let shown = file.display();
    let decrypted = run(decrypter, file, content, &encrypted)?;
    if encrypted.form == Form::Binary {
        return InMemory::decrypted_whole(file, &decrypted);
    }
    let text = String::from_utf8(decrypted)
        .with_context(|| format!("`{shown}` holds something else than text"))?;
    // The problem's own text may quote what was decrypted.
    let (values, _) = yaml::read(text.as_bytes(), 0)
        .map_err(|it| anyhow!("`{shown}`, decrypted, isn't YAML: see line {}", it.line))?;
    InMemory::decrypted(file, &text, Decrypted::new(values, encrypted.values))
}

fn run(
    decrypter: &Decrypter,
    file: &Path,
    content: &[u8],
    encrypted: &Encrypted,
) -> Result<Vec<u8>> {
    let sh = decrypter.sh();
    let input = encrypted.form.name();
    let output = match encrypted.form {
        Form::Dotenv | Form::Ini => Form::Json.name(),
        _ => input,
    };
    let sops = cmd!(
        sh,
        "sops decrypt --input-type {input} --output-type {output}"
    );
    let output = process::run(sh, sops, content)?;
    if !output.success {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!(not_decrypted(file, message.trim(), &encrypted.values));
    }
    Ok(output.stdout)
}

/// Why sops did not decrypt a file with these values, by its own message.
pub(crate) fn not_decrypted(file: &Path, message: &str, values: &Node) -> String {
    let shown = file.display();
    if CHANGED.iter().any(|it| message.contains(it)) {
        let keep = if message.contains("MAC mismatch") {
            format!("; or keep what is there: `sops --rotate --ignore-mac --in-place {shown}`")
        } else {
            String::new()
        };
        // The message itself may have a digest of what was decrypted.
        return format!(
            "cannot decrypt `{shown}`: it was changed after sops encrypted it, by hand or by a merge\n\
             hint: `git log -p {shown}` shows the change. Restore the version that sops wrote, and make the change with \
             `sops edit {shown}`{keep}"
        );
    }
    let why = without_values(&condensed(message), values);
    let hint = if message.contains("data key") {
        "sops needs one of the keys that the file is encrypted for; an age key is named by `SOPS_AGE_KEY_FILE`"
    } else {
        "restore the version that sops wrote, and make the change with `sops edit`"
    };
    format!("cannot decrypt `{shown}`: {why}\nhint: {hint}")
}

/// What sops says of a file whose content is not what it wrote.
const CHANGED: [&str; 5] = [
    "MAC mismatch",
    "Cannot decrypt MAC",
    "message authentication failed",
    "does not match sops' data format",
    "Expected encrypted value",
];

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
fn without_values(message: &str, values: &Node) -> String {
    let mut texts = BTreeSet::new();
    values.visit(&mut |node| {
        let text = unquoted(&node.to_json());
        texts.insert((Reverse(text.len()), text));
    });
    let mut message = message.to_owned();
    for (_, text) in texts.iter().filter(|(_, text)| !text.is_empty()) {
        message = message.replace(&format!(" {text} "), " *** ");
        if text.len() >= LONG_ENOUGH {
            message = message.replace(text, "***");
        }
    }
    message
}
