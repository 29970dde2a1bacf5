//! The files of git's index, read without a checkout: that would run the filters that a repository names.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::machine::{
    conversation::{Conversation, converse},
    inherited::{with_git, without_git},
    process,
    tree::limits::{Kind, LARGEST, OUTSIDE, refuse_large},
};

/// The most links that a path may lead over, as on Linux.
pub(crate) const MOST_LINKS: usize = 40;

/// The hashes of an empty file, by SHA-1 and SHA-256.
const EMPTY: [&str; 2] = [
    "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
];

/// The files of the index. All paths are from the top of the work tree.
pub(crate) struct Snapshot {
    /// Its git is that of the index.
    sh: Mutex<Shell>,
    top: PathBuf,
    entries: Folder,
    /// `git cat-file` of the repository and of each submodule, by its path.
    blobs: BTreeMap<PathBuf, Mutex<Conversation>>,
}

type Folder = BTreeMap<OsString, Entry>;

enum Entry {
    Folder(Folder),
    File(Object),
    Link(Object),
}

/// A blob.
struct Object {
    hash: String,
    /// The submodule that has it; empty for the repository itself.
    submodule: PathBuf,
}

/// A line of `git ls-files --stage` or `git ls-tree`.
struct Listed {
    mode: String,
    hash: String,
    path: PathBuf,
}

impl Snapshot {
    /// What git would commit. In a hook git says by variables which index that is.
    pub(crate) fn of_index(sh: &Shell, top: &Path) -> Result<Snapshot> {
        let sh = with_git(sh);
        if let Some(index) = env::var_os("GIT_INDEX_FILE").filter(|it| !it.is_empty()) {
            sh.set_var("GIT_INDEX_FILE", env::current_dir()?.join(index));
        }
        let list = process::read_bytes(&sh, cmd!(sh, "git -C {top} ls-files --stage -z"))
            .context("cannot read git's index")?;
        let mut snapshot = Snapshot {
            sh: Mutex::new(sh.clone()),
            top: top.to_owned(),
            entries: Folder::new(),
            blobs: BTreeMap::new(),
        };
        let mut files = Listed::parse_all(&list);
        if files.iter().any(|it| EMPTY.contains(&it.hash.as_str())) {
            let intended = intended(&sh, top)?;
            files.retain(|it| !intended.contains(&it.path));
        }
        snapshot.add(&sh, Path::new(""), files)?;
        Ok(snapshot)
    }

    /// A `Shell` whose git is that of the index.
    pub(crate) fn sh(&self) -> Shell {
        self.sh.lock().expect("nobody panics with it").clone()
    }

    /// Adds the files of the repository or of a submodule.
    fn add(&mut self, sh: &Shell, submodule: &Path, files: Vec<Listed>) -> Result<()> {
        let folder = self.top.join(submodule);
        let blobs = converse(sh, cmd!(sh, "git -C {folder} cat-file --batch"))?;
        self.blobs.insert(submodule.to_owned(), Mutex::new(blobs));
        for listed in files {
            let path = submodule.join(&listed.path);
            match listed.mode.as_str() {
                "160000" => self.add_submodule(sh, &path, &listed.hash)?,
                mode => {
                    let object = Object {
                        hash: listed.hash,
                        submodule: submodule.to_owned(),
                    };
                    let is_link = mode == "120000";
                    let entry = if is_link { Entry::Link } else { Entry::File };
                    insert(&mut self.entries, &path, entry(object));
                }
            }
        }
        Ok(())
    }

    /// Adds the files of a submodule at the commit that the index has. One that isn't checked out has none.
    fn add_submodule(&mut self, sh: &Shell, path: &Path, commit: &str) -> Result<()> {
        let folder = self.top.join(path);
        if folder.join(".git").symlink_metadata().is_err() {
            return Ok(());
        }
        let sh = without_git(sh);
        let list = cmd!(sh, "git -C {folder} ls-tree -r -z {commit}");
        let list = process::read_bytes(&sh, list)
            .with_context(|| format!("cannot read the submodule `{}`", path.display()))?;
        self.add(&sh, path, Listed::parse_all(&list))
    }

    /// Where a path leads, links followed, and what is there; none if nothing is.
    pub(crate) fn find(&self, path: &Path) -> Result<Option<(PathBuf, Kind)>> {
        let mut left = steps(path);
        let mut here = PathBuf::new();
        let mut links = 0;
        while let Some(step) = left.pop_front() {
            if step == ".." {
                ensure!(here.pop(), "it leads to what is {OUTSIDE}");
                continue;
            }
            match self.entry(&here.join(&step)) {
                None => return Ok(None),
                Some(Entry::Link(target)) => {
                    links += 1;
                    ensure!(links <= MOST_LINKS, "its links lead nowhere");
                    let target = PathBuf::from(OsString::from_vec(self.content(target)?));
                    let target = self.follow(&mut here, &target)?;
                    target.into_iter().rev().for_each(|it| left.push_front(it));
                }
                Some(_) => here.push(step),
            }
        }
        let kind = match self.entry(&here) {
            Some(Entry::File(_)) => Kind::File,
            _ => Kind::Folder,
        };
        Ok(Some((here, kind)))
    }

    /// The steps to a link's target from `here`, which becomes the top if the link's path is absolute.
    fn follow(&self, here: &mut PathBuf, target: &Path) -> Result<VecDeque<OsString>> {
        if !target.is_absolute() {
            return Ok(steps(target));
        }
        let inside = target.strip_prefix(&self.top);
        let inside = inside
            .with_context(|| format!("it leads to `{}`, which is {OUTSIDE}", target.display()))?;
        *here = PathBuf::new();
        Ok(steps(inside))
    }

    /// Where the link at a path leads, if there is one. No folder on the path is a link.
    pub(crate) fn link(&self, path: &Path) -> Option<PathBuf> {
        match self.entry(path) {
            Some(Entry::Link(target)) => {
                let target = self.content(target).ok()?;
                Some(PathBuf::from(OsString::from_vec(target)))
            }
            _ => None,
        }
    }

    /// What the index has at a path without links; none for the top, too.
    fn entry(&self, path: &Path) -> Option<&Entry> {
        let (folder, name) = (path.parent()?, path.file_name()?);
        self.folder(folder)?.get(name)
    }

    fn folder(&self, path: &Path) -> Option<&Folder> {
        let mut folder = &self.entries;
        for step in path {
            match folder.get(step) {
                Some(Entry::Folder(below)) => folder = below,
                _ => return None,
            }
        }
        Some(folder)
    }

    /// The content of the file at a path without links.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        match self.entry(path) {
            Some(Entry::File(object)) => self.content(object),
            _ => bail!("it is not a file"),
        }
    }

    /// The names in the folder at a path without links, sorted.
    pub(crate) fn children(&self, path: &Path) -> Vec<OsString> {
        let names = self.folder(path).into_iter().flat_map(BTreeMap::keys);
        names.cloned().collect()
    }

    /// The names of what git ignores in a folder of the work tree.
    pub(crate) fn ignored(&self, folder: &Path) -> Result<Vec<OsString>> {
        let top = &self.top;
        let sh = self.sh.lock().expect("nobody panics with it");
        let options = ["--others", "--ignored", "--exclude-standard", "-z"];
        let list = cmd!(sh, "git -C {top} ls-files {options...} -- {folder}");
        let list = process::read_bytes(&sh, list)?;
        let mut names = BTreeSet::new();
        for path in list.split(|it| *it == 0) {
            let below = Path::new(OsStr::from_bytes(path)).strip_prefix(folder);
            let name = below.ok().and_then(|it| it.iter().next());
            names.extend(name.map(OsStr::to_owned));
        }
        Ok(names.into_iter().collect())
    }

    /// <https://git-scm.com/docs/git-cat-file#_batch_output>
    fn content(&self, object: &Object) -> Result<Vec<u8>> {
        let blobs = &self.blobs[&object.submodule];
        let mut blobs = blobs.lock().expect("nobody panics with it");
        let answer = blobs.ask(&object.hash)?;
        let length = answer.rsplit_once(" blob ").map(|(_, length)| length);
        let length: u64 = length
            .and_then(|it| it.parse().ok())
            .with_context(|| format!("git does not have it: `{answer}`"))?;
        // A line feed follows.
        let read = blobs.read(length + 1, LARGEST + 1);
        refuse_large(length)?;
        let mut content = read?;
        content.pop();
        Ok(content)
    }
}

/// The files of `git add --intent-to-add`: the index has them as empty, and a commit leaves them out.
fn intended(sh: &Shell, top: &Path) -> Result<BTreeSet<PathBuf>> {
    let list = cmd!(sh, "git -C {top} diff-files --name-only --diff-filter=A -z");
    let list = process::read_bytes(sh, list).context("cannot read git's index")?;
    let paths = list.split(|it| *it == 0).map(OsStr::from_bytes);
    Ok(paths.map(PathBuf::from).collect())
}

impl Listed {
    /// The lines of a list that ends them with NUL.
    fn parse_all(list: &[u8]) -> Vec<Listed> {
        let lines = list.split(|it| *it == 0).filter(|it| !it.is_empty());
        lines.filter_map(Listed::parse).collect()
    }

    /// `MODE HASH STAGE\tPATH` or `MODE TYPE HASH\tPATH`; none for one side of a conflict.
    fn parse(line: &[u8]) -> Option<Listed> {
        let tab = line.iter().position(|it| *it == b'\t')?;
        let words = str::from_utf8(&line[..tab]).ok()?;
        let words: Vec<_> = words.split(' ').collect();
        let [mode, first, second] = words[..] else {
            return None;
        };
        let hash = match second {
            "0" => first,
            "1" | "2" | "3" => return None,
            hash => hash,
        };
        Some(Listed {
            mode: mode.to_owned(),
            hash: hash.to_owned(),
            path: PathBuf::from(OsStr::from_bytes(&line[tab + 1..])),
        })
    }
}

/// The steps of a relative path, of which `..` is one.
pub(crate) fn steps(path: &Path) -> VecDeque<OsString> {
    let steps = path.components().filter(|it| *it != Component::CurDir);
    steps.map(|it| it.as_os_str().to_owned()).collect()
}

fn insert(folder: &mut Folder, path: &Path, entry: Entry) {
    let mut folder = folder;
    for step in path.parent().into_iter().flatten() {
        let below = folder.entry(step.to_owned());
        match below.or_insert_with(|| Entry::Folder(Folder::new())) {
            Entry::Folder(below) => folder = below,
            _ => return,
        }
    }
    if let Some(name) = path.file_name() {
        folder.insert(name.to_owned(), entry);
    }
}
