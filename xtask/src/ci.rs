//! All that `.ci/run` runs.

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::{
    process::show,
    setup::{self, Setup},
};

/// Check this repository's own code as its CI does: formatting, lints, docs and all tests
pub(crate) fn ci(sh: &Shell) -> Result<()> {
    setup::setup(sh, &Setup::default())?;
    show(cmd!(sh, "cargo fmt --all --check"))?;
    show(cmd!(sh, "cargo clippy --workspace --all-targets --locked -- --deny warnings"))?;
    show(
        cmd!(sh, "cargo doc --workspace --no-deps --document-private-items --locked")
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )?;
    show(cmd!(sh, "cargo test --workspace --locked"))
}
