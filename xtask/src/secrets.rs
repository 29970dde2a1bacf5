//! What is encrypted in the repository: decrypted into memory only, and hidden in whatever is shown.

mod canonical;
mod decrypted;
pub(crate) mod edit;
mod form;
pub(crate) mod git_crypt;
mod in_memory;
mod mask;
mod needles;
mod placeholders;
mod sops;

pub(crate) use self::{
    decrypted::{ENCRYPTED, encrypted_type},
    form::{BROKEN, Content, Form, read},
    in_memory::{InMemory, texts},
    mask::Mask,
    placeholders::{of_domain, placeholders},
    sops::{Decrypter, decrypt, decrypt_any, not_encrypted, open, remedy},
};

/// A password, token or key. It has neither `Debug` nor `Display`, so that no message shows it by accident.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text, for whoever asks for it by its protocol.
    pub(crate) fn exposed(&self) -> &str {
        &self.0
    }
}
