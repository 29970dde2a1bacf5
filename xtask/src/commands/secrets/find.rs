//! Every place in the repository that holds a value: what has to be changed once it leaked.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use xshell::cmd;

use crate::{
    machine::{
        parallel, process,
        programs::Tools,
        terminal::{self, number_of},
        tree::Tree,
    },
    secrets::{Content, Decrypter, decrypt_any, git_crypt, read},
    yaml::{self, KeyPath, Node, unquoted},
};

/// Find every file and key of the repository that holds a value
///
/// The value is read from stdin, or asked for without showing it. Encrypted files are decrypted in memory and compared; a line
/// of a plain file that has it is named, too. The value itself is not shown. Files that git ignores are left out.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 pass show hub/token | cargo xtask secrets find")]
pub struct Find {}

/// What decrypts a file.
type DecrypterOf = fn(&Tools, &Tree, &Path) -> Result<Decrypter>;

/// Prints a line for each place. Fails if a file cannot be decrypted.
pub(crate) fn find(tools: &Tools, tree: &Tree, value: &str, decrypter: DecrypterOf) -> Result<()> {
    let files = files(tools, tree)?;
    let found = parallel::side_by_side(tools, &files, |tools, file| {
        in_file(tree, file, value, || decrypter(tools, tree, file))
    });
    let mut lines = String::new();
    let mut unread = Vec::new();
    let mut count = 0;
    for found in found {
        match found {
            Ok(places) => {
                count += places.len();
                lines.extend(places.into_iter().map(|it| it + "\n"));
            }
            Err(err) => unread.push(format!("{err:#}")),
        }
    }
    terminal::print(&lines)?;
    say!(
        "{} in {}",
        number_of(count, "place"),
        number_of(files.len(), "file")
    );
    ensure!(unread.is_empty(), "{}", unread.join("\n"));
    Ok(())
}

/// All files that git has or would take in, from the root.
fn files(tools: &Tools, tree: &Tree) -> Result<Vec<PathBuf>> {
    let sh = tools.sh();
    let root = tree.root();
    let options = ["--cached", "--others", "--exclude-standard", "-z"];
    let listed = process::read_bytes(sh, cmd!(sh, "git -C {root} ls-files {options...}"))?;
    let names = listed.split(|it| *it == 0).filter(|it| !it.is_empty());
    let mut files: Vec<_> = names
        .map(|it| PathBuf::from(OsStr::from_bytes(it)))
        .collect();
    files.sort();
    files.dedup();
    // Neither a submodule nor what was removed.
    files.retain(|it| tree.is_file(it));
    Ok(files)
}

/// The places in a file: `PATH: KEY` for a value that has a key, else `PATH:LINE` or `PATH`.
fn in_file(
    tree: &Tree,
    file: &Path,
    value: &str,
    decrypter: impl FnOnce() -> Result<Decrypter>,
) -> Result<Vec<String>> {
    let shown = file.display();
    let found = tree.find(file).with_context(|| format!("`{shown}`"))?;
    let real = found.map_or_else(|| file.to_owned(), |it| it.path);
    // Also those that are larger than what is read of files elsewhere.
    let content = fs::read(tree.root().join(real)).with_context(|| format!("`{shown}`"))?;
    ensure!(!git_crypt::is_locked(&content), git_crypt::locked(file));
    if !matches!(read(file, &content, 0), Ok(Content::Encrypted(_))) {
        return Ok(in_plain(file, &content, value));
    }
    let decrypted = decrypt_any(&decrypter()?, file, &content)?;
    let mut places = decrypted
        .values()
        .map_or_else(|_| Vec::new(), |it| with_keys(file, &it, value));
    // A comment, a key, or a file of one text.
    if places.is_empty() && decrypted.text()?.contains(value) {
        places.push(shown.to_string());
    }
    Ok(places)
}

/// The keys whose values hold it.
fn with_keys(file: &Path, values: &Node, value: &str) -> Vec<String> {
    let mut places = Vec::new();
    KeyPath::default().visit_leaves(values, &mut |key, node| {
        if unquoted(&node.to_json()).contains(value) {
            places.push(format!("{}: {key}", file.display()));
        }
    });
    places
}

fn in_plain(file: &Path, content: &[u8], value: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(content);
    let places = text.match_indices(value).map(|(at, _)| {
        let line = text[..at].matches('\n').count() + 1;
        format!("{}:{line}: in plain text", file.display())
    });
    let mut places: Vec<_> = places.collect();
    places.dedup();
    let is_yaml = file
        .extension()
        .is_some_and(|it| ["yaml", "yml", "json"].iter().any(|known| it == *known));
    // Values may be written with escapes, or indented.
    if places.is_empty()
        && is_yaml
        && let Ok((values, _)) = yaml::read(content, 0)
    {
        let found = with_keys(file, &values, value);
        places.extend(found.into_iter().map(|it| it + ": in plain text"));
    }
    places
}
