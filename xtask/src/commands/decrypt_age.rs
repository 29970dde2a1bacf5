//! Decrypts what a user sent us, encrypted for our age key.

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
        process,
        programs::{self, Tools},
        terminal::{self, list},
        tree::Tree,
    },
    secrets::{self, Decrypter},
};

/// Where the private key may be, encrypted by sops: paths from the root.
const KEYS: [&str; 2] = [
    "config/keys/enc-age-secret-private.key",
    "deployer/keys/enc-age-secret-private.key",
];

/// Decrypt what a user encrypted for us with age
///
/// The encrypted text is read from a file or pasted, armoured or not, and decrypted to stdout. sops decrypts our private key,
/// config/keys/enc-age-secret-private.key, in memory. config/keys/README.md describes how users encrypt for us and how the key
/// is made.
#[derive(clap::Args)]
pub struct DecryptAge {
    /// Encrypted file [default: stdin]
    #[arg(long, value_name = "FILE")]
    encrypted_file_path: Option<PathBuf>,
}

/// Prints the decrypted text. If any of it cannot be decrypted, nothing is printed.
pub fn decrypt_age(sh: &Shell, tree: &Tree, args: &DecryptAge) -> Result<ExitCode> {
    let encrypted = match &args.encrypted_file_path {
        Some(file) => Encrypted::read(file)?,
        None => Encrypted::read_stdin()?,
    };
    ensure!(
        !encrypted.content.trim_ascii().is_empty(),
        "{} is empty: there is nothing to decrypt",
        encrypted.source
    );
    let Some(key) = KEYS.iter().find(|it| tree.is_file(Path::new(it))) else {
        bail!(
            "there is no private key: {}\nhint: config/keys/README.md describes how to make it",
            list(KEYS)
        );
    };
    let tools = programs::provide(sh, &["age", "sops"], false)?;
    terminal::print(&decrypt(&tools, tree, &encrypted, key)?)?;
    Ok(ExitCode::SUCCESS)
}

struct Encrypted {
    content: Vec<u8>,
    /// Where it comes from, for messages.
    source: String,
}

impl Encrypted {
    fn read(file: &Path) -> Result<Encrypted> {
        let source = format!("`{}`", file.display());
        let content = fs::read(file).with_context(|| format!("cannot read {source}"))?;
        Ok(Encrypted { content, source })
    }

    fn read_stdin() -> Result<Encrypted> {
        if io::stdin().is_terminal() {
            say!(
                "Paste the encrypted text with its first and last line, then press Enter and Ctrl-D:"
            );
        }
        let mut content = Vec::new();
        io::stdin()
            .lock()
            .read_to_end(&mut content)
            .context("cannot read stdin")?;
        Ok(Encrypted {
            content,
            source: "the text from stdin".to_owned(),
        })
    }
}

fn decrypt(tools: &Tools, tree: &Tree, encrypted: &Encrypted, key: &str) -> Result<Vec<u8>> {
    let decrypter = Decrypter::new(tools, None);
    let sh = tools.sh();
    let identity = secrets::open(&decrypter, tree, Path::new(key))?;
    let path = identity.file.path();
    let cmd = cmd!(sh, "age --decrypt --identity {path}");
    let output = process::run(sh, cmd, &encrypted.content)?;
    if output.success {
        return Ok(output.stdout);
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let message = message.replace(&path.display().to_string(), key);
    let mut lines: Vec<_> = message.lines().collect();
    lines.retain(|it| !it.contains("filippo.io/age/report"));
    bail!(
        "cannot decrypt {} with `{key}`: {}",
        encrypted.source,
        lines.join("\n").trim()
    )
}
