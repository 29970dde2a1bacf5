//! Checks whether a person can work on a hub.

pub(crate) mod address;
pub(crate) mod check;
mod hub;
mod kernel;
pub(crate) mod notebook;
