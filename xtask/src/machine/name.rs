//! Names that come from a file, an archive, a cluster or an API, and that become part of a path or a command line.

use std::{fmt, ops::Deref, path::Path};

use anyhow::{Error, Result, ensure};
use serde::Deserialize;

/// A name that is one step of a path and cannot be taken for an option: letters, digits, `.`, `_` and `-`. It begins with
/// neither `.` nor `-`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
pub(crate) struct Name(String);

impl Name {
    /// An error if the text is no such name.
    pub(crate) fn new(text: &str) -> Result<Name> {
        ensure!(
            !text.is_empty() && text.chars().all(is_plain) && !text.starts_with(['-', '.']),
            "`{text}` is not a name: it may have letters, digits, `.`, `_` and `-`, and begins with neither `.` nor `-`"
        );
        Ok(Name(text.to_owned()))
    }
}

fn is_plain(char: char) -> bool {
    char.is_ascii_alphanumeric() || "._-".contains(char)
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Name> {
        Name::new(&text)
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for Name {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
