//! Files as commits have them, read without a checkout.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::machine::{process, tree::limits::LARGEST};

/// A commit, and the path of a file from the folder of a shell.
pub(crate) type Version = (String, PathBuf);

/// The contents of these files. What git cannot read, is no file, or is larger than what is read of files has none.
/// <https://git-scm.com/docs/git-cat-file#_batch_output>
pub(crate) fn read(sh: &Shell, wanted: BTreeSet<Version>) -> Result<BTreeMap<Version, Vec<u8>>> {
    let mut requests = String::new();
    let mut asked = Vec::new();
    for version in wanted {
        // Each request is a line.
        if let Some(path) = version.1.to_str().filter(|it| !it.contains('\n')) {
            requests += &format!("{}:./{path}\n", version.0);
            asked.push(version);
        }
    }
    let mut contents = BTreeMap::new();
    if asked.is_empty() {
        return Ok(contents);
    }
    let answers = process::run(sh, cmd!(sh, "git cat-file --batch"), requests.as_bytes())?.stdout;
    let mut answers = &answers[..];
    for version in asked {
        let Some(content) = next(&mut answers) else {
            break;
        };
        contents.extend(content.map(|it| (version, it.to_owned())));
    }
    Ok(contents)
}

/// Takes the next answer, and returns the file's content if it has one. None if the answer is not whole.
fn next<'a>(answers: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let end = answers.iter().position(|it| *it == b'\n')?;
    let (first, rest) = answers.split_at(end);
    *answers = &rest[1..];
    let first = String::from_utf8_lossy(first);
    let words: Vec<_> = first.split(' ').collect();
    let [_, kind, length] = words[..] else {
        return Some(None);
    };
    let Ok(length) = length.parse::<usize>() else {
        return Some(None);
    };
    let content = answers.get(..length)?;
    // A line feed follows.
    *answers = answers.get(length + 1..)?;
    let is_read = kind == "blob" && length as u64 <= LARGEST;
    Some(is_read.then_some(content))
}

/// Whether the clone is shallow; `None` if this is no git repository.
pub(crate) fn is_shallow(sh: &Shell) -> Option<bool> {
    let answer = process::read(sh, cmd!(sh, "git rev-parse --is-shallow-repository")).ok()?;
    Some(answer.trim() == "true")
}
