//! What of a repository is read: plain files inside of it, up to a limit.

use std::path::Path;

use anyhow::{Result, ensure};

/// The largest file that is read, in bytes: what helm reads of a chart's files (its MaxDecompressedFileSize).
pub(crate) const LARGEST: u64 = 5 << 20;

/// How messages call all that must not be read.
pub(crate) const OUTSIDE: &str = "outside of the repository";

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
}

/// Refuses a file of more than `LARGEST` bytes.
pub(crate) fn refuse_large(length: u64) -> Result<()> {
    ensure!(
        length <= LARGEST,
        "it is larger than {} MiB, the most that is read",
        LARGEST >> 20
    );
    Ok(())
}

/// Refuses what is in a folder `.git`: that is not the repository's, and may hold a token.
pub(crate) fn refuse_of_git(path: &Path) -> Result<()> {
    let is_of_git = path.iter().any(|it| it.eq_ignore_ascii_case(".git"));
    ensure!(
        !is_of_git,
        "it leads to `{}`, which is git's own",
        path.display()
    );
    Ok(())
}
