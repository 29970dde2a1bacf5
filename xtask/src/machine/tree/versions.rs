//! Files as commits have them.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::machine::{
    conversation::{Conversation, converse},
    tree::limits::{LARGEST, refuse_large},
};

/// Reads files of commits, without a checkout.
pub(crate) struct Versions(Conversation);

impl Versions {
    /// Those of the repository that this shell's folder is in.
    pub(crate) fn open(sh: &Shell) -> Result<Versions> {
        Ok(Versions(converse(sh, cmd!(sh, "git cat-file --batch"))?))
    }

    /// The content of the file that a commit has at a path from that folder.
    pub(crate) fn read(&mut self, commit: &str, path: &Path) -> Result<Vec<u8>> {
        let path = path.to_str().filter(|it| !it.contains('\n'));
        let path = path.context("git cannot be asked for such a path")?;
        blob(&mut self.0, &format!("{commit}:./{path}"))
    }
}

/// The content of an object that must be a file, as `git cat-file --batch` tells it:
/// <https://git-scm.com/docs/git-cat-file#_batch_output>.
pub(crate) fn blob(blobs: &mut Conversation, object: &str) -> Result<Vec<u8>> {
    let answer = blobs.ask(object)?;
    let words: Vec<_> = answer.split(' ').collect();
    let [_, kind, length] = words[..] else {
        bail!("git does not have it: `{answer}`")
    };
    let length: u64 = length
        .parse()
        .with_context(|| format!("git does not have it: `{answer}`"))?;
    // A line feed follows.
    let read = blobs.read(length + 1, LARGEST + 1);
    ensure!(kind == "blob", "it is not a file");
    refuse_large(length)?;
    let mut content = read?;
    content.pop();
    Ok(content)
}
