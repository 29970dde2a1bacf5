//! Images of users' servers: those that are built from folders of the repository.

mod build;
mod bump;

use std::process::ExitCode;

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{machine::tree::Tree, repository::hubploy};

/// Build hubs' own images, and change the tags of images
#[derive(clap::Subcommand)]
#[allow(missing_docs, reason = "clap takes the help of what each one holds")]
pub enum Image {
    Build(build::Build),
    Bump(bump::Bump),
}

/// hubploy's `build`, which is `image build` here.
#[derive(clap::Args)]
pub struct HubploysBuild {
    deployment: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _options: Vec<String>,
}

/// Says what hubploy's `build DEPLOYMENT` is here.
pub fn hubploys_build(tree: &Tree, args: &HubploysBuild) -> Result<ExitCode> {
    let hubs = hubploy::hubs_of(tree, &args.deployment, &hubploy::ENVIRONMENTS)?;
    let hubs = hubs.unwrap_or_else(|| "CLUSTER HUB…".to_owned());
    bail!(
        "there is no command `build`: it is hubploy's\nhint: `cargo xtask image build {hubs}`, with `--push` and \
         `--check-registry` as there"
    );
}

/// Runs one of the `image` commands.
pub fn image(sh: &Shell, tree: &Tree, command: &Image) -> Result<ExitCode> {
    match command {
        Image::Build(args) => build::build(sh, tree, args),
        Image::Bump(args) => bump::bump(sh, tree, args),
    }
}
