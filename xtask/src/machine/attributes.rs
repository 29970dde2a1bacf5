//! What `.gitattributes` files say of other files: <https://git-scm.com/docs/gitattributes>.

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::machine::{process, tree::Tree};

/// Those of these files, by their paths from the root, that git passes through a filter whose name begins so. git is asked
/// only if a `.gitattributes` above one of them has that name.
pub(crate) fn filtered<'a>(
    sh: &Shell,
    tree: &Tree,
    filter: &str,
    files: impl IntoIterator<Item = &'a Path>,
) -> Result<BTreeSet<PathBuf>> {
    let mut asked = Vec::new();
    for file in files {
        // Whoever reads it says that it is not there, or is a link out of the repository.
        if let Ok(Some(found)) = tree.find(file) {
            asked.push((file, tree.below_top(&found.path)));
        }
    }
    let Some(top) = tree.top_of_git() else {
        return Ok(BTreeSet::new());
    };
    if !is_named(tree, filter, asked.iter().map(|(file, _)| *file))? {
        return Ok(BTreeSet::new());
    }
    let names = asked.iter().map(|(_, path)| path.as_os_str().as_bytes());
    let names = names.collect::<Vec<_>>().join(&0);
    let filters = filters(&tree.git(sh), top, tree.is_index(), &names)?;
    ensure!(
        filters.len() == asked.len(),
        "`git check-attr` did not answer for each file"
    );
    let filtered = asked.into_iter().zip(filters);
    let filtered = filtered.filter(|(_, it)| it.starts_with(filter.as_bytes()));
    Ok(filtered.map(|((file, _), _)| file.to_owned()).collect())
}

/// Whether a `.gitattributes` in a folder above one of these files has this text.
fn is_named<'a>(tree: &Tree, text: &str, files: impl Iterator<Item = &'a Path>) -> Result<bool> {
    let folders = files.flat_map(|file| tree.folders_above(file));
    let folders: BTreeSet<_> = folders.map(|(folder, _)| folder).collect();
    for folder in folders {
        let file = folder.join(".gitattributes");
        let content = tree
            .read_if_there(&file)
            .with_context(|| format!("cannot read `{}`", file.display()))?;
        let content = content.unwrap_or_default();
        if String::from_utf8_lossy(&content).contains(text) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The filter of each of these files, whose paths from the top are separated by zeros.
/// <https://git-scm.com/docs/git-check-attr#_output>
fn filters(sh: &Shell, top: &Path, is_index: bool, names: &[u8]) -> Result<Vec<Vec<u8>>> {
    let source = is_index.then_some("--cached");
    let git = cmd!(sh, "git -C {top} check-attr {source...} -z --stdin filter");
    let output = process::run(sh, git, names)?;
    ensure!(
        output.success,
        "`git check-attr` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    // A path, `filter` and its value for each.
    let fields = output.stdout.split(|it| *it == 0);
    Ok(fields.skip(2).step_by(3).map(<[u8]>::to_vec).collect())
}
