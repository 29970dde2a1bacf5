//! The deployer of a repository of JupyterHubs. ARCHITECTURE.md tells how its code is laid out.

/// A line for the person at the terminal, on stderr. Work goes on when nobody reads it.
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
