//! Programs, files and the person at the terminal: what knows nothing of clusters and hubs.

pub(crate) mod clock;
pub(crate) mod conversation;
pub(crate) mod date;
pub(crate) mod digest;
pub(crate) mod inherited;
pub(crate) mod name;
pub(crate) mod once;
pub(crate) mod parallel;
pub mod paths;
pub(crate) mod private;
pub mod process;
pub mod programs;
pub(crate) mod shell;
pub(crate) mod stopped;
pub mod terminal;
pub mod tree;
pub(crate) mod until;
pub(crate) mod workflow;
