//! The deployer of a repository of JupyterHubs. ARCHITECTURE.md describes how its code is laid out.

/// Writes a line to stderr, for the person at the terminal. A closed stderr is no error.
macro_rules! say {
    ($($arg:tt)*) => {
        crate::machine::terminal::say(format_args!($($arg)*))
    };
}

pub mod commands;
pub mod machine;

mod charts;
mod health;
mod kubernetes;
mod repository;
mod schema;
mod secrets;
mod services;
mod settings;
mod yaml;
