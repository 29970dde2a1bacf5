//! The files of a repository: as they are in its work tree, or in git's index.
//!
//! What a repository holds is data. A link in it may lead anywhere and a file may be a device, so nothing is read but
//! plain files inside of the git work tree that holds the root, up to a limit.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs::{self, File},
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::OFlags;
use xshell::Shell;

use crate::machine::paths;

pub(crate) use self::limits::{Kind, OUTSIDE};
use self::{
    limits::{LARGEST, refuse_large, refuse_of_git},
    snapshot::{MOST_LINKS, Snapshot, steps},
};

mod limits;
mod snapshot;
pub(crate) mod versions;

/// The files of a repository at one point. All paths are from the root, and may lead to what is beside it.
#[derive(Clone, Default)]
pub struct Tree {
    root: PathBuf,
    /// The folder that holds all that may be read: the top of the git work tree, or the root where there is none. No link
    /// is part of its path.
    top: PathBuf,
    /// Of the root, below the top.
    prefix: PathBuf,
    /// None for the files as they are.
    snapshot: Option<Arc<Snapshot>>,
}

/// What a path leads to.
pub(crate) struct Found {
    /// Its path from the root, in which no step is a link.
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
}

impl Found {
    /// Whether this is a folder that another one is in, by that one's path without links: who follows a link from there to
    /// here never comes to an end.
    pub(crate) fn holds(&self, folder: &Path) -> bool {
        folder.starts_with(&self.path)
    }
}

impl Tree {
    /// The files as they are on the disk.
    pub fn work_tree(root: &Path) -> Result<Tree> {
        let real = root
            .canonicalize()
            .with_context(|| format!("cannot open the root `{}`", root.display()))?;
        let top = top(&real);
        let prefix = real.strip_prefix(&top).unwrap_or(Path::new(""));
        Ok(Tree {
            root: root.to_owned(),
            prefix: prefix.to_owned(),
            top,
            snapshot: None,
        })
    }

    /// The files that git would commit now: those in the index that `GIT_INDEX_FILE` names, or in the usual one.
    pub(crate) fn index(&self, sh: &Shell) -> Result<Tree> {
        Ok(Tree {
            root: self.root.clone(),
            top: self.top.clone(),
            prefix: self.prefix.clone(),
            snapshot: Some(Arc::new(Snapshot::of_index(sh, &self.top)?)),
        })
    }

    /// The same repository's files as they are on the disk.
    pub(crate) fn on_disk(&self) -> Tree {
        Tree {
            snapshot: None,
            ..self.clone()
        }
    }

    /// The names of what the index does not have in a folder since git ignores it. None for the files on the disk.
    pub(crate) fn ignored(&self, folder: &Path) -> Result<Vec<OsString>> {
        match &self.snapshot {
            None => Ok(Vec::new()),
            Some(snapshot) => snapshot.ignored(&self.below_top(folder)),
        }
    }

    /// Whether the index lacks a file that is on the disk, and that git does not ignore.
    pub(crate) fn lacks(&self, path: &Path) -> bool {
        if self.snapshot.is_none() || self.is_file(path) || !self.on_disk().is_file(path) {
            return false;
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let ignored = self.ignored(folder).unwrap_or_default();
        let name = path.file_name().unwrap_or_default();
        !ignored.iter().any(|it| it == name)
    }

    /// Whether these are the files that git would commit now, which no filter has changed.
    pub(crate) fn is_index(&self) -> bool {
        self.snapshot.is_some()
    }

    /// What to say of a file that is not there.
    pub(crate) fn missing(&self) -> &'static str {
        match &self.snapshot {
            None => "doesn't exist",
            Some(_) => "isn't in git's index (`git add` adds it)",
        }
    }

    /// A `Shell` whose git is that of the index, if these are its files.
    pub(crate) fn git(&self, sh: &Shell) -> Shell {
        let snapshot = self.snapshot.as_ref();
        snapshot.map_or_else(|| sh.clone(), |it| it.sh())
    }

    /// The root, for programs that work in it.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The top of the git work tree that holds the root. Git may refuse it.
    pub(crate) fn top_of_git(&self) -> Option<&Path> {
        let is_there = self.top.join(".git").symlink_metadata().is_ok();
        is_there.then_some(self.top.as_path())
    }

    /// What a path leads to, links followed; none if nothing is there. An error if it leads out of the repository, or to
    /// something that is neither a file nor a folder.
    pub(crate) fn find(&self, path: &Path) -> Result<Option<Found>> {
        let found = match &self.snapshot {
            None => self.find_on_disk(path)?,
            Some(snapshot) => snapshot.find(&self.prefix.join(path))?,
        };
        let Some((from_top, kind)) = found else {
            return Ok(None);
        };
        Ok(Some(Found {
            path: paths::from(&self.prefix, &from_top),
            kind,
        }))
    }

    /// The path from the top, in which no step is a link, and what is there.
    fn find_on_disk(&self, path: &Path) -> Result<Option<(PathBuf, Kind)>> {
        let full = self.top.join(&self.prefix).join(path);
        let real = match full.canonicalize() {
            Err(err) if is_missing(err.kind()) => return Ok(None),
            real => real.context("cannot follow it")?,
        };
        let from_top = real
            .strip_prefix(&self.top)
            .map_err(|_| anyhow!("it leads to `{}`, which is {OUTSIDE}", real.display()))?;
        refuse_of_git(from_top)?;
        let metadata = real.metadata().context("cannot look at it")?;
        if metadata.is_dir() {
            return Ok(Some((from_top.to_owned(), Kind::Folder)));
        }
        ensure!(metadata.is_file(), "it is neither a file nor a folder");
        Ok(Some((from_top.to_owned(), Kind::File)))
    }

    /// All paths that count for what is at this one: its own, each link on the way there, also those of folders, and the end,
    /// even if nothing is there. What is outside of the repository is left out.
    pub(crate) fn way(&self, path: &Path) -> BTreeSet<PathBuf> {
        let mut way = BTreeSet::from([paths::lexical(path)]);
        let mut here = PathBuf::new();
        let mut left = steps(&self.prefix.join(path));
        let mut links = 0;
        while let Some(step) = left.pop_front() {
            if step == ".." {
                if !here.pop() {
                    return way;
                }
                continue;
            }
            here.push(step);
            let Some(target) = self.link(&here) else {
                continue;
            };
            way.insert(paths::from(&self.prefix, &here));
            links += 1;
            here.pop();
            if target.is_absolute() {
                here = PathBuf::new();
            }
            let target = target.strip_prefix(&self.top).unwrap_or(&target);
            if target.is_absolute() || links > MOST_LINKS {
                return way;
            }
            let mut steps = steps(target);
            steps.append(&mut left);
            left = steps;
        }
        way.insert(paths::from(&self.prefix, &here));
        way
    }

    /// Where the link at a path leads, if there is one. The path is from the top, and no folder on it is a link.
    fn link(&self, path: &Path) -> Option<PathBuf> {
        match &self.snapshot {
            None => self.top.join(path).read_link().ok(),
            Some(snapshot) => snapshot.link(path),
        }
    }

    /// Whether a file is at a path, and may be read.
    pub(crate) fn is_file(&self, path: &Path) -> bool {
        self.is(path, Kind::File)
    }

    /// Whether a folder is at a path, and may be read.
    pub(crate) fn is_folder(&self, path: &Path) -> bool {
        self.is(path, Kind::Folder)
    }

    fn is(&self, path: &Path, kind: Kind) -> bool {
        matches!(self.find(path), Ok(Some(found)) if found.kind == kind)
    }

    /// The path of what a path leads to, links followed; the path itself if that is nothing in the repository.
    pub(crate) fn real(&self, path: &Path) -> PathBuf {
        let found = self.find(path).ok().flatten();
        found.map_or_else(|| path.to_owned(), |it| it.path)
    }

    /// The content of a file. The error does not name it.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        self.read_if_there(path)?
            .with_context(|| format!("it {}", self.missing()))
    }

    /// The content of a file, or none if nothing is there. The error does not name it.
    pub(crate) fn read_if_there(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let found = self.find(path)?;
        found.map(|it| self.read_found(&it)).transpose()
    }

    /// The content of a file that was found. The error does not name it.
    pub(crate) fn read_found(&self, found: &Found) -> Result<Vec<u8>> {
        ensure!(found.kind == Kind::File, "it is not a file");
        let path = self.below_top(&found.path);
        match &self.snapshot {
            None => read_file(&self.top.join(path)),
            Some(snapshot) => snapshot.read(&path),
        }
    }

    /// The folders that a file is in, the innermost first and the top of the git work tree last, each with the file's path
    /// from there.
    pub(crate) fn folders_above(&self, file: &Path) -> Vec<(PathBuf, PathBuf)> {
        let file = self.below_top(file);
        let folders = file.ancestors().skip(1);
        folders
            .filter_map(|folder| {
                let inside = file.strip_prefix(folder).ok()?;
                Some((paths::from(&self.prefix, folder), inside.to_owned()))
            })
            .collect()
    }

    /// The path from the top of the git work tree.
    pub(crate) fn below_top(&self, path: &Path) -> PathBuf {
        paths::lexical(&self.prefix.join(path))
    }

    /// The names of what is in a folder, sorted. Without the folder there are none.
    pub(crate) fn children(&self, folder: &Path) -> Result<Vec<OsString>> {
        let Some(found) = self.find(folder)?.filter(|it| it.kind == Kind::Folder) else {
            return Ok(Vec::new());
        };
        let from_top = self.below_top(&found.path);
        if let Some(snapshot) = &self.snapshot {
            return Ok(snapshot.children(&from_top));
        }
        let entries = fs::read_dir(self.top.join(from_top)).context("cannot look through it")?;
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name());
        }
        names.sort();
        Ok(names)
    }
}

/// The top of the git work tree that holds a folder, or the folder itself where there is none. Like git, this does not look
/// above the folders in `GIT_CEILING_DIRECTORIES`.
fn top(folder: &Path) -> PathBuf {
    let ceilings = env::var_os("GIT_CEILING_DIRECTORIES").unwrap_or_default();
    let ceilings: Vec<_> = env::split_paths(&ceilings).collect();
    let candidates = folder.ancestors();
    let mut candidates = candidates.take_while(|it| !ceilings.iter().any(|ceiling| ceiling == it));
    let found = candidates.find(|it| it.join(".git").symlink_metadata().is_ok());
    found.unwrap_or(folder).to_owned()
}

fn is_missing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Reads a plain file, whatever becomes of it meanwhile: opening a pipe would wait, and reading a device never end.
fn read_file(file: &Path) -> Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(file)
        .context("cannot read it")?;
    ensure!(opened.metadata()?.is_file(), "it is not a file");
    let mut content = Vec::new();
    opened
        .take(LARGEST + 1)
        .read_to_end(&mut content)
        .context("cannot read it")?;
    refuse_large(content.len() as u64)?;
    Ok(content)
}
