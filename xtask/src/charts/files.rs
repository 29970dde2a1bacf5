//! The files of a chart: those of a folder in the repository, and those of folders and archives in the cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    charts::{
        archive::{self, Content, MAX_SIZE},
        ignore::Ignore,
    },
    machine::{
        paths::is_called_secret,
        tree::{Found, Kind, Tree},
    },
};

/// The most files of a chart that are read: links can make a folder look endless.
const MOST_FILES: usize = 20_000;

/// Reads the files of a chart, or of one of its dependencies in charts/, from the repository.
struct Reader<'a> {
    tree: &'a Tree,
    /// What helm leaves out of the chart.
    ignore: Ignore,
    files: Content,
    size: u64,
}

/// The files at a path in the repository: those of a folder by their paths in it, or a file at the empty path. Links are
/// followed. Files that are called secret are no part of a chart, unless helm would render them: the cache must not hold
/// what somebody decrypted beside the chart.
pub(crate) fn read_files(tree: &Tree, path: &Path, ignore: Ignore) -> Result<Content> {
    let mut reader = Reader {
        tree,
        ignore,
        files: Content::new(),
        size: 0,
    };
    let found = reader.find(path)?;
    reader.read(path, &found, Path::new(""))?;
    Ok(reader.files)
}

impl Reader<'_> {
    /// What is at a path in the repository.
    fn find(&self, path: &Path) -> Result<Found> {
        let found = self.tree.find(path).with_context(|| cannot_read(path))?;
        found.with_context(|| format!("{}: it {}", cannot_read(path), self.tree.missing()))
    }

    /// Reads what was found at a path, by its path `inside` the chart.
    fn read(&mut self, path: &Path, found: &Found, inside: &Path) -> Result<()> {
        match found.kind {
            Kind::File => self.read_file(path, found, inside),
            Kind::Folder => self.read_folder(path, found, inside),
        }
    }

    fn read_file(&mut self, path: &Path, found: &Found, inside: &Path) -> Result<()> {
        let content = self.tree.read_found(found);
        let content = content.with_context(|| cannot_read(path))?;
        self.size += content.len() as u64;
        ensure!(
            self.size <= MAX_SIZE && self.files.len() < MOST_FILES,
            "the chart has more than {MAX_SIZE} bytes, or more than {MOST_FILES} files"
        );
        self.files.insert(inside.to_owned(), content);
        Ok(())
    }

    fn read_folder(&mut self, path: &Path, found: &Found, inside: &Path) -> Result<()> {
        let names = self.tree.children(path);
        for name in names.with_context(|| cannot_read(path))? {
            let child = path.join(&name);
            let inside_child = inside.join(&name);
            let is_left_out = name == ".git"
                || self.ignore.ignores(&inside_child)
                || is_called_secret(&child) && !is_rendered(inside);
            if is_left_out {
                continue;
            }
            let target = self.find(&child)?;
            ensure!(
                !target.holds(&found.path),
                "`{}` leads back to a folder that it is in",
                child.display()
            );
            self.read(&child, &target, &inside_child)?;
        }
        Ok(())
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

/// A file's content as helm reads it from a chart.
pub(crate) fn without_byte_order_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content)
}

/// The files of a folder or an archive in the cache, by their paths in the chart.
pub(crate) fn cached_files(chart: &Path) -> Result<Content> {
    if !chart.is_dir() {
        return archive::files(chart);
    }
    let mut files = Content::new();
    let mut left = vec![PathBuf::new()];
    while let Some(inside) = left.pop() {
        for path in children(&chart.join(&inside))? {
            let inside = inside.join(path.file_name().expect("it lies in a folder"));
            if path.is_dir() {
                left.push(inside);
            } else {
                let content = fs::read(&path).with_context(|| cannot_read(&path))?;
                files.insert(inside, content);
            }
        }
    }
    Ok(files)
}

/// The templates and default values of a folder or an archive in the cache, and of the charts that it depends on.
pub(crate) fn cached_texts(chart: &Path) -> Result<Vec<Vec<u8>>> {
    texts(cached_files(chart)?)
}

fn texts(files: Content) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for (path, content) in files {
        let is_template = path.iter().any(|it| it == "templates");
        if path.extension().is_some_and(|it| it == "tgz") {
            found.extend(texts(archive::unpack(&content)?)?);
        } else if is_template || path.ends_with("values.yaml") {
            found.push(content);
        }
    }
    Ok(found)
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
