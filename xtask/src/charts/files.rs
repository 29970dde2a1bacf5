//! The files of a chart, in a folder or an archive.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    charts::archive::{self, Content},
    machine::paths::{self, is_called_secret},
};

/// The files of a folder or an archive by their paths in the chart.
pub(crate) fn files_of(chart: &Path) -> Result<Content> {
    if !chart.is_dir() {
        return archive::files(chart);
    }
    let mut files = Content::new();
    read_files(chart, Path::new(""), &mut files)?;
    Ok(files)
}

/// Reads all files at or below `dir`/`path`, following links. Files that are called secret are no part of a chart, unless
/// helm would render them: the cache must not hold what somebody decrypted beside the chart.
pub(crate) fn read_files(dir: &Path, path: &Path, files: &mut Content) -> Result<()> {
    let full = join(dir, path);
    ensure!(
        !paths::leads_back(&full),
        "`{}` leads back to a folder that it is in",
        full.display()
    );
    let metadata = full.metadata().with_context(|| cannot_read(&full))?;
    if metadata.is_file() {
        let content = fs::read(&full).with_context(|| cannot_read(&full))?;
        files.insert(path.to_owned(), content);
        return Ok(());
    }
    for child in children(&full)? {
        let name = child.file_name().expect("it lies in a folder");
        if name != ".git" && (is_rendered(path) || !is_called_secret(&child)) {
            read_files(dir, &path.join(name), files)?;
        }
    }
    Ok(())
}

/// Joining an empty path would add a slash, which no file's path may end with.
fn join(dir: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        dir.to_owned()
    } else {
        dir.join(path)
    }
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read `{}`", path.display())
}

fn is_rendered(folder: &Path) -> bool {
    ["templates", "charts", "crds"]
        .iter()
        .any(|it| folder.starts_with(it))
}

/// The paths of what is in a folder, sorted. Without the folder there are none.
pub(crate) fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).with_context(|| cannot_read(dir))?;
    let mut children = entries
        .map(|it| Ok(it?.path()))
        .collect::<Result<Vec<_>>>()?;
    children.sort();
    Ok(children)
}

pub(crate) fn write_files(files: &Content, to: &Path) -> Result<()> {
    files
        .iter()
        .try_for_each(|(path, content)| write(&to.join(path), content))
}

pub(crate) fn write(file: &Path, content: &[u8]) -> Result<()> {
    fs::create_dir_all(file.parent().expect("a file lies in a folder"))?;
    fs::write(file, content).with_context(|| format!("cannot write `{}`", file.display()))
}
