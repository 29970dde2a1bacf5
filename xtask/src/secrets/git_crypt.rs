//! git-crypt, which encrypts whole files when git takes them in, and decrypts them when it checks them out:
//! <https://github.com/AGWA/git-crypt>.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::Result;
use xshell::Shell;

use crate::machine::{attributes, tree::Tree};

/// How every file begins that it has encrypted.
const MAGIC: &[u8] = b"\0GITCRYPT\0";

/// The name of its filter; a second key's is `git-crypt-NAME`.
const FILTER: &str = "git-crypt";

/// What to do about a file that is encrypted.
pub(crate) const UNLOCK: &str = "`git-crypt unlock` decrypts the work tree; it needs your GPG key, or the repository's key as in \
                                 `git-crypt unlock KEYFILE`";

/// Whether a file is encrypted as it lies there.
pub(crate) fn is_locked(content: &[u8]) -> bool {
    content.starts_with(MAGIC)
}

/// That a file cannot be read, and what to do.
pub(crate) fn locked(file: &Path) -> String {
    format!(
        "`{}` is locked by git-crypt\nhint: {UNLOCK}",
        file.display()
    )
}

/// Those of these files, by their paths from the root, that `.gitattributes` has git-crypt encrypt.
pub(crate) fn marked<'a>(
    sh: &Shell,
    tree: &Tree,
    files: impl IntoIterator<Item = &'a Path>,
) -> Result<BTreeSet<PathBuf>> {
    attributes::filtered(sh, tree, FILTER, files)
}
