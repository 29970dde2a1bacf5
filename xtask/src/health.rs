//! Checks whether a person can work on a hub.

pub(crate) mod address;
mod busy;
pub(crate) mod check;
pub(crate) mod dns;
mod hub;
mod kernel;
pub(crate) mod notebook;
