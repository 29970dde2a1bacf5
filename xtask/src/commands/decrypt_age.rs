//! What a user sent us, encrypted for our age key.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{
    machine::{
        process, programs,
        terminal::{self, list},
    },
    secrets,
};

/// Where the private key may lie, encrypted by sops, from the root.
const KEYS: [&str; 2] = [
    "config/keys/enc-age-secret-private.key",
    "deployer/keys/enc-age-secret-private.key",
];

/// Decrypt what a user encrypted for us with age, to stdout
///
/// It comes from a file or is pasted; it may be armoured or not. Our private key,
/// config/keys/enc-age-secret-private.key, is decrypted by sops in memory. config/keys/README.md says how users encrypt
/// for us, and how the key is made.
#[derive(clap::Args)]
pub struct DecryptAge {
    /// What they sent, if it isn't to be read from stdin
    #[arg(long, value_name = "FILE")]
    encrypted_file_path: Option<PathBuf>,
}

/// Prints what was decrypted: nothing, if not all of it could be.
pub fn decrypt_age(sh: &Shell, root: &Path, args: &DecryptAge) -> Result<ExitCode> {
    let (encrypted, source) = match &args.encrypted_file_path {
        Some(file) => {
            let shown = format!("`{}`", file.display());
            (
                fs::read(file).with_context(|| format!("cannot read {shown}"))?,
                shown,
            )
        }
        None => {
            if io::stdin().is_terminal() {
                say!(
                    "Paste what they sent, with its first and last line, then press Enter and Ctrl-D:"
                );
            }
            let mut pasted = Vec::new();
            io::stdin()
                .lock()
                .read_to_end(&mut pasted)
                .context("cannot read stdin")?;
            (pasted, "what came from stdin".to_owned())
        }
    };
    ensure!(
        !encrypted.trim_ascii().is_empty(),
        "{source} is empty: there's nothing to decrypt"
    );
    let Some(key) = KEYS.iter().find(|it| root.join(it).is_file()) else {
        bail!(
            "there is no private key: {}\nhint: config/keys/README.md says how to make it",
            list(KEYS)
        );
    };
    let sh = &programs::provide(sh, &["age", "sops"], false)?;
    let identity = secrets::decrypt_binary(sh, root, Path::new(key))?;
    let path = identity.path();
    let output = process::run(sh, cmd!(sh, "age --decrypt --identity {path}"), &encrypted)?;
    if !output.success {
        let said =
            String::from_utf8_lossy(&output.stderr).replace(&path.display().to_string(), key);
        let said = said
            .lines()
            .filter(|it| !it.contains("filippo.io/age/report"))
            .collect::<Vec<_>>();
        bail!(
            "cannot decrypt {source} with `{key}`: {}",
            said.join("\n").trim()
        );
    }
    terminal::print(&output.stdout)?;
    Ok(ExitCode::SUCCESS)
}
