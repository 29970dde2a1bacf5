//! What is encrypted in the repository: decrypted into memory only, and hidden in whatever is shown.

mod in_memory;
mod mask;
mod sops;

pub(crate) use self::{
    in_memory::InMemory,
    mask::{Mask, Unmasked},
    sops::{decrypt, decrypt_binary, not_encrypted, open},
};
