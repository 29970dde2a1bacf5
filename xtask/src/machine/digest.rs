//! Names made from contents.

use sha2::{Digest, Sha256};

use crate::machine::paths;

/// A hash of several parts. Each is preceded by its length, so that none can run into the next.
#[derive(Default)]
pub(crate) struct PartsDigest(Sha256);

impl PartsDigest {
    pub(crate) fn add(&mut self, part: &[u8]) {
        self.0.update(part.len().to_le_bytes());
        self.0.update(part);
    }

    /// 32 hexadecimal digits.
    pub(crate) fn name(self) -> String {
        paths::hex(&self.0.finalize()[..16])
    }
}

/// The name of some parts.
pub(crate) fn digest_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = PartsDigest::default();
    parts.into_iter().for_each(|it| digest.add(it));
    digest.name()
}
