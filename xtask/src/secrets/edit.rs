//! Another value in an encrypted file, of which all else stays as it is, byte for byte.
//!
//! sops writes a whole file anew: comments move, and lines are indented by other rules. So it works on a copy, and only what it
//! has encrypted there is put into the text as it was: the value, the date and the MAC. What comes out is decrypted before
//! it counts.

use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use xshell::cmd;

use crate::{
    machine::{private::PrivateFolder, process},
    secrets::{
        decrypted::{encrypted_type, is_comment},
        form::{self, Content, Encrypted},
        in_memory::InMemory,
        sops::{Decrypter, decrypt, not_decrypted, not_encrypted},
    },
    yaml::{
        self, Data, KeyPath, Node, Step,
        edit::{self, NewValue},
    },
};

/// What sops changes of its own block with each change of a value.
const CHANGED_BY_SOPS: [&str; 2] = ["lastmodified", "mac"];

/// An encrypted file with another value.
pub(crate) struct Changed {
    pub(crate) text: String,
    /// Whether the file had no such key.
    pub(crate) is_new: bool,
}

/// The content of an encrypted file with another text at a key, which may be new. None if that is its value already. A number
/// or a boolean stays one, if JSON takes the text for one.
pub(crate) fn set(
    decrypter: &Decrypter,
    file: &Path,
    content: &[u8],
    key: &KeyPath,
    text: &str,
) -> Result<Option<Changed>> {
    refuse_own_key(key)?;
    let Ok(Content::Encrypted(encrypted)) = form::read(file, content, 0) else {
        bail!(not_encrypted(file));
    };
    refuse_other_forms(file, content, &encrypted)?;
    let old = decrypt(decrypter, file, content)?.values()?;
    let value = typed(key.find(&old), text)?;
    let read = yaml::read_value(&value.to_string()).map_err(yaml::refused)?;
    if key
        .find(&old)
        .is_some_and(|it| it.to_json() == read.to_json())
    {
        return Ok(None);
    }
    let mut wanted = old.to_json();
    edit::put(&mut wanted, &key.0, read.to_json())?;
    let key_in_file = &with_comments(&encrypted.values, key);
    let copy = set_in_copy(decrypter, file, content, &encrypted, key_in_file, &value)?;
    let text = taken_over(str::from_utf8(content)?, &copy, key_in_file)?;
    is_right(decrypter, file, &text, &wanted)?;
    let is_new = key.find(&old).is_none();
    Ok(Some(Changed { text, is_new }))
}

/// Refuses a key in the block that sops itself writes.
fn refuse_own_key(key: &KeyPath) -> Result<()> {
    let is_own = key.0.first() == Some(&Step::Key("sops".to_owned()));
    ensure!(!is_own, "`sops` is the block that sops writes itself");
    Ok(())
}

/// Refuses files in which a value has no line of its own.
fn refuse_other_forms(file: &Path, content: &[u8], encrypted: &Encrypted) -> Result<()> {
    let shown = file.display();
    let text = String::from_utf8_lossy(content);
    let documents = yaml::split_documents(&text).count();
    let form = encrypted.form;
    if !form.has_keys() {
        bail!(
            "`{shown}` is in the {} form of sops, and values are set in YAML and JSON only\n\
             hint: `sops edit {shown}` changes it",
            form.name()
        );
    }
    ensure!(
        documents < 2,
        "`{shown}` has several documents\nhint: `sops edit {shown}` changes it"
    );
    Ok(())
}

/// The same key in a file that is encrypted, where comments of lists are items.
fn with_comments(values: &Node, key: &KeyPath) -> KeyPath {
    let mut steps: Vec<Step> = Vec::new();
    for step in &key.0 {
        let above = KeyPath(steps.clone());
        let items = above.find(values).and_then(Node::as_list);
        steps.push(match (items, step.index()) {
            (Some(items), Some(wanted)) => Step::Item(with_comments_before(items, wanted)),
            _ => step.clone(),
        });
    }
    KeyPath(steps)
}

fn with_comments_before(items: &[Node], wanted: usize) -> usize {
    let real = items.iter().enumerate().filter(|(_, it)| !is_comment(it));
    let number = real.map(|(number, _)| number).nth(wanted);
    // Behind the last one.
    let count = items.iter().filter(|it| !is_comment(it)).count();
    number.unwrap_or(items.len() + wanted - count)
}

/// The text as a value of the type of the old one. sops takes whole numbers for others, which helm does as well.
fn typed(old: Option<&Node>, text: &str) -> Result<Value> {
    let Some(old) = old else {
        return Ok(text.into());
    };
    let is_scalar = !matches!(old.data, Data::Map(_) | Data::List(_));
    ensure!(
        is_scalar,
        "it is a map or a list: name the key or the item in it"
    );
    let read: Option<Value> = serde_json::from_str(text).ok();
    let is_of_type = |it: &Value| match old.data {
        Data::Bool(_) => it.is_boolean(),
        Data::Number(_) => it.is_number(),
        _ => false,
    };
    Ok(read.filter(is_of_type).unwrap_or_else(|| text.into()))
}

/// The file as sops writes it with the value at the key.
fn set_in_copy(
    decrypter: &Decrypter,
    file: &Path,
    content: &[u8],
    encrypted: &Encrypted,
    key: &KeyPath,
    value: &Value,
) -> Result<Node> {
    let sh = decrypter.sh();
    let folder = PrivateFolder::new(sh)?;
    // Its rules for new files are not asked for one that has a `sops` block.
    let copy = folder.path.join("copy");
    fs::write(&copy, content).context("cannot write a copy of the file")?;
    let form = encrypted.form.name();
    let index = index(key)?;
    let sops = cmd!(
        sh,
        "sops set --input-type {form} --output-type {form} --value-stdin {copy} {index}"
    );
    let output = process::run(sh, sops, value.to_string().as_bytes())?;
    if !output.success {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!(not_decrypted(file, message.trim(), &encrypted.values));
    }
    let written = fs::read(&copy).context("cannot read what sops wrote")?;
    let (copy, _) = yaml::read(&written, 0).map_err(yaml::refused)?;
    let new = key.find(&copy).context("sops did not set it")?;
    let is_hidden = new
        .as_text()
        .is_some_and(|it| it.is_empty() || encrypted_type(it).is_some());
    ensure!(
        is_hidden,
        "the `sops` block of `{0}` leaves `{key}` in plain text\nhint: `sops edit {0}` sets it all the same",
        file.display()
    );
    Ok(copy)
}

/// The key as sops takes it: `["hub"]["admins"][0]`.
fn index(key: &KeyPath) -> Result<String> {
    let mut index = String::new();
    for step in &key.0 {
        index += &match step {
            Step::Key(key) => format!("[{}]", serde_json::to_string(key)?),
            Step::Item(number) => format!("[{number}]"),
        };
    }
    Ok(index)
}

/// The text with what sops made of the key, and of its own block.
fn taken_over(text: &str, copy: &Node, key: &KeyPath) -> Result<String> {
    let (values, block) = text.split_at(start_of_block(text));
    let mut values = with(values, copy, key)?;
    let mut block = block.to_owned();
    // JSON is one text.
    let of_sops = if block.is_empty() {
        &mut values
    } else {
        &mut block
    };
    for name in CHANGED_BY_SOPS {
        let steps = ["sops", name].map(|it| Step::Key(it.to_owned()));
        *of_sops = with(of_sops, copy, &KeyPath(steps.into()))?;
    }
    Ok(values + &block)
}

/// The text with the value that another one has at a path.
fn with(text: &str, from: &Node, path: &KeyPath) -> Result<String> {
    let node = path
        .find(from)
        .with_context(|| format!("sops wrote no `{path}`"))?;
    let spelt = node
        .as_text()
        .context("sops wrote something else than a text")?;
    let value = NewValue {
        node: node.clone(),
        spelt: format!("'{spelt}'"),
    };
    edit::set(text, path, &value).with_context(|| format!("cannot put `{path}` into the file"))
}

/// Where the `sops` block of a YAML file begins, if it is the last of its keys. New keys are to come before it.
fn start_of_block(text: &str) -> usize {
    let Some(at) = text.rfind("\nsops:").map(|it| it + 1) else {
        return if text.starts_with("sops:") {
            0
        } else {
            text.len()
        };
    };
    let mut below = text[at..].lines().skip(1);
    let is_last = below.all(|it| it.is_empty() || it.starts_with([' ', '#', '-']));
    if is_last { at } else { text.len() }
}

/// Refuses a text that sops does not decrypt to these values.
fn is_right(decrypter: &Decrypter, file: &Path, text: &str, wanted: &Value) -> Result<()> {
    let decrypted = decrypt(decrypter, file, text.as_bytes()).and_then(|it: InMemory| it.values());
    // Its message may be about a text that nobody has.
    let is_right = decrypted.is_ok_and(|it| it.to_json() == *wanted);
    is_right.then_some(()).ok_or_else(|| {
        anyhow!(
            "`{}` cannot be changed there without changing other lines\nhint: `sops edit` changes it, and writes all of the file anew",
            file.display()
        )
    })
}
