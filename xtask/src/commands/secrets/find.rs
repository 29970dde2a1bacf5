//! Every place in the repository that holds a value: what has to be changed once it leaked.

use std::{
    ffi::OsStr,
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
    secrets::{Content, Decrypter, decrypt_any, read},
    yaml::{KeyPath, Node, unquoted},
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

/// The places in a file: `PATH: KEY` for an encrypted one, `PATH:LINE` for another.
fn in_file(
    tree: &Tree,
    file: &Path,
    value: &str,
    decrypter: impl FnOnce() -> Result<Decrypter>,
) -> Result<Vec<String>> {
    let shown = file.display();
    let content = tree.read(file).with_context(|| format!("`{shown}`"))?;
    if !matches!(read(file, &content, 0), Ok(Content::Encrypted(_))) {
        return Ok(in_text(file, &content, value));
    }
    let decrypted = decrypt_any(&decrypter()?, file, &content)?;
    let Ok(values) = decrypted.values() else {
        let text = decrypted.text()?;
        let has_it = text.contains(value);
        return Ok(has_it.then(|| shown.to_string()).into_iter().collect());
    };
    let mut places = Vec::new();
    KeyPath::default().visit_leaves(&values, &mut |key, node| {
        if holds(node, value) {
            places.push(format!("{shown}: {key}"));
        }
    });
    Ok(places)
}

fn holds(node: &Node, value: &str) -> bool {
    unquoted(&node.to_json()).contains(value)
}

fn in_text(file: &Path, content: &[u8], value: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(content);
    let lines = (1..).zip(text.lines());
    let with_it = lines.filter(|(_, line)| line.contains(value));
    let places = with_it.map(|(number, _)| format!("{}:{number}: in plain text", file.display()));
    places.collect()
}
