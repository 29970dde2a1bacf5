//! Images of users' servers: those that are built from folders of the repository.

mod build;

use std::process::ExitCode;

use anyhow::Result;
use xshell::Shell;

use crate::machine::tree::Tree;

/// Build hubs' own images
#[derive(clap::Subcommand)]
#[allow(missing_docs, reason = "clap takes the help of what each one holds")]
pub enum Image {
    Build(build::Build),
}

/// Runs one of the `image` commands.
pub fn image(sh: &Shell, tree: &Tree, command: &Image) -> Result<ExitCode> {
    match command {
        Image::Build(args) => build::build(sh, tree, args),
    }
}
