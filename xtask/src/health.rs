//! Whether a person could work on a hub just now.

pub(crate) mod address;
pub(crate) mod check;
mod hub;
mod kernel;
pub(crate) mod notebook;
