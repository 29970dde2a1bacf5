//! The repository that we work on, our cache, the folder in memory, and what is done with files and paths.

use std::{
    collections::hash_map::RandomState,
    env, fs,
    hash::{BuildHasher, Hasher},
    io::ErrorKind,
    iter,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

/// The folder of all clusters, from the root.
pub(crate) const CLUSTERS: &str = "config/clusters";

/// The repository's root: `given` by `--root`, else by `XTASK_ROOT`, else the nearest folder at or above the current one
/// that has `config/clusters/`. `cargo xtask` outside of all takes the checkout that it was built from.
pub fn root(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = given {
        return given_root(dir);
    }
    if let Some(dir) = env::var_os("XTASK_ROOT").filter(|it| !it.is_empty()) {
        return given_root(Path::new(&dir)).context("`XTASK_ROOT`");
    }
    let here = env::current_dir().context("cannot find out the current folder")?;
    // cargo sets it for the programs that it runs: an installed one has no checkout of its own.
    let own = env!("CARGO_MANIFEST_DIR");
    let is_run_by_cargo = env::var_os("CARGO_MANIFEST_DIR").is_some_and(|it| it == own);
    let built_from = Path::new(own).parent().filter(|_| is_run_by_cargo);
    let mut candidates = here.ancestors().chain(built_from);
    let found = candidates.find(|it| it.join(CLUSTERS).is_dir());
    let root = found.with_context(|| {
        format!(
            "no `{CLUSTERS}/` in `{}` or above it\nhint: go to the repository's root, or name it with `--root DIR`",
            here.display()
        )
    })?;
    Ok(root.to_owned())
}

fn given_root(dir: &Path) -> Result<PathBuf> {
    let root = dir
        .canonicalize()
        .with_context(|| format!("cannot open the root `{}`", dir.display()))?;
    if !root.join(CLUSTERS).is_dir() {
        bail!("the root `{}` has no `{CLUSTERS}/`", dir.display());
    }
    Ok(root)
}

/// `$XDG_CACHE_HOME/xtask`, by default `~/.cache/xtask`. It may be deleted at any time, and holds no secret.
pub(crate) fn cache() -> Result<PathBuf> {
    let named = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    if let Some(base) = named.filter(|it| it.is_absolute()) {
        return Ok(base.join("xtask"));
    }
    let home = env::home_dir().filter(|it| it.is_absolute());
    let home = home.context("no home folder, and `XDG_CACHE_HOME` is not set")?;
    Ok(home.join(".cache/xtask"))
}

/// A folder in memory that only this user can open, for files that outlive us: `xtask-UID` in `/dev/shm`, or in
/// `$XDG_RUNTIME_DIR` if only that is in memory. An error if neither is, because a secret must not reach a disk.
///
/// `/dev/shm` is open to all. If somebody else has made something of that name, the folder has another end to its name,
/// and all our processes find it by that.
///
/// On systems that have no such file systems (macOS) it is in the user's own temporary folder.
pub(crate) fn in_memory() -> Result<PathBuf> {
    let base = memory()?;
    let uid = rustix::process::getuid().as_raw();
    let name = format!("xtask-{uid}");
    let usual = base.join(&name);
    if is_private(&usual) {
        return Ok(usual);
    }
    if let Some(other) = private_folder(&base, &format!("{name}-")) {
        return Ok(other);
    }
    // Of processes that start at once, all come to the same one of the numbered names.
    let numbered = (2..10).map(|number| format!("{name}-{number}"));
    let random = iter::once_with(|| format!("{name}-{}", random_suffix()));
    for dir in iter::once(name.clone()).chain(numbered).chain(random) {
        let dir = base.join(dir);
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(err) if err.kind() != ErrorKind::AlreadyExists => {
                return Err(err).with_context(|| format!("cannot create `{}`", dir.display()));
            }
            _ if is_private(&dir) => return Ok(dir),
            _ => {}
        }
    }
    bail!("cannot create a private folder in `{}`", base.display())
}

/// The first private folder whose name begins like this.
fn private_folder(base: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let ours = entries.filter(|it| it.file_name().to_string_lossy().starts_with(prefix));
    ours.map(|it| it.path()).filter(|it| is_private(it)).min()
}

#[cfg(target_os = "linux")]
fn memory() -> Result<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|it| it.is_absolute());
    let mut folders = [PathBuf::from("/dev/shm")].into_iter().chain(runtime);
    folders.find(|it| is_in_memory(it)).context(
        "neither `/dev/shm` nor `XDG_RUNTIME_DIR` is a folder in memory (tmpfs), and what is decrypted must not reach a disk\n\
         hint: `mount -t tmpfs tmpfs /dev/shm` as root, or set `XDG_RUNTIME_DIR` to a folder of yours on a tmpfs",
    )
}

#[cfg(not(target_os = "linux"))]
fn memory() -> Result<PathBuf> {
    Ok(env::temp_dir())
}

/// Whether a folder is on tmpfs or ramfs, by their numbers in <https://man7.org/linux/man-pages/man2/statfs.2.html>.
#[cfg(target_os = "linux")]
fn is_in_memory(folder: &Path) -> bool {
    let found = rustix::fs::statfs(folder).map(|it| u32::try_from(it.f_type));
    matches!(found, Ok(Ok(0x0102_1994 | 0x8584_58f6)))
}

/// Whether this is a folder, and no link to one, that only this user can open.
fn is_private(dir: &Path) -> bool {
    let uid = rustix::process::getuid().as_raw();
    let found = fs::symlink_metadata(dir);
    found.is_ok_and(|it| it.is_dir() && it.uid() == uid && it.mode() & 0o077 == 0)
}

/// A new path in `in_memory`'s folder, named after `kind` and this process. What killed processes left under such names is
/// removed.
pub(crate) fn of_this_process(kind: &str) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let folder = in_memory()?;
    remove_left(&folder, kind);
    Ok(folder.join(format!(
        "{kind}-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )))
}

/// Removes what killed processes left in the folder under names of this kind.
fn remove_left(folder: &Path, kind: &str) {
    remove_left_where(folder, |name| process_in_name(name, kind));
}

/// Removes what is named after a process that runs no longer, which `process` finds in a name.
fn remove_left_where(folder: &Path, process: impl Fn(&str) -> Option<Pid>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let pid = process(&entry.file_name().to_string_lossy());
        if pid.is_some_and(|it| test_kill_process(it) == Err(Errno::SRCH)) {
            let left = entry.path();
            let _ = if left.is_dir() {
                fs::remove_dir_all(left)
            } else {
                fs::remove_file(left)
            };
        }
    }
}

/// The process in a name of the form KIND-PID-NUMBER.
fn process_in_name(name: &str, kind: &str) -> Option<Pid> {
    let rest = name.strip_prefix(kind)?.strip_prefix('-')?;
    let (pid, _) = rest.split_once('-')?;
    Pid::from_raw(pid.parse().ok()?)
}

/// Writes a file beside `file` and renames it, so that nobody ever reads half of it. Makes the folder if it is missing.
pub(crate) fn write_whole(file: &Path, content: &[u8]) -> Result<()> {
    let dir = file.parent().expect("a file is in a folder");
    fs::create_dir_all(dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    remove_old_parts(dir);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let part = file.with_extension(format!("{PART}{}-{number}", std::process::id()));
    let written = fs::write(&part, content).and_then(|()| fs::rename(&part, file));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written.with_context(|| format!("cannot write `{}`", file.display()))
}

/// A file that is there, with its content and another one.
pub(crate) struct Replacement<'a> {
    pub(crate) file: PathBuf,
    pub(crate) old: &'a [u8],
    pub(crate) new: &'a [u8],
}

/// Replaces the content of files, all of them or none unless we are killed meanwhile: each is written beside its file, with
/// that one's mode, before the first is renamed, and if one cannot be renamed those before it get their old content back.
pub(crate) fn replace_all(replacements: &[Replacement]) -> Result<()> {
    let mut parts = Vec::new();
    let mut written = Ok(());
    for (number, it) in replacements.iter().enumerate() {
        remove_parts_of_killed(&it.file);
        let part = it
            .file
            .with_extension(format!("{PART}{}-{number}", std::process::id()));
        written = written.and_then(|()| write_part(&it.file, &part, it.new));
        parts.push(part);
    }
    let mut renamed = 0;
    while written.is_ok() && renamed < parts.len() {
        written = rename_part(&parts[renamed], &replacements[renamed].file);
        renamed += usize::from(written.is_ok());
    }
    if written.is_err() {
        for (part, it) in parts.iter().zip(&replacements[..renamed]) {
            write_part(&it.file, part, it.old).and_then(|()| rename_part(part, &it.file))?;
        }
        for part in parts {
            let _ = fs::remove_file(part);
        }
    }
    written
}

fn rename_part(part: &Path, file: &Path) -> Result<()> {
    fs::rename(part, file).with_context(|| format!("cannot write `{}`", file.display()))
}

/// Removes what processes that run no longer left of `replace_all` beside a file.
fn remove_parts_of_killed(file: &Path) {
    let dir = file.parent().expect("a file is in a folder");
    remove_left_where(dir, |name| {
        let (_, part) = name.rsplit_once('.')?;
        process_in_name(part, PART.trim_end_matches('-'))
    });
}

fn write_part(file: &Path, part: &Path, content: &[u8]) -> Result<()> {
    let mode = fs::metadata(file).map(|it| it.permissions());
    mode.and_then(|mode| {
        fs::write(part, content)?;
        fs::set_permissions(part, mode)
    })
    .with_context(|| format!("cannot write `{}`", part.display()))
}

/// What the extension of half a file begins with.
const PART: &str = "part-";

/// Removes half files that processes left which were killed. Other machines may share the folder, so they have to be old.
fn remove_old_parts(dir: &Path) {
    const OLD: Duration = Duration::from_secs(3600);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let modified = entry.metadata().and_then(|it| it.modified());
        let age = modified.ok().and_then(|it| it.elapsed().ok());
        if extension.starts_with(PART) && age.is_some_and(|it| it > OLD) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Locks a file, and waits until no other process holds the lock. If that takes time, the person is told what the other
/// process does, as in "waiting for another process that builds helm" for the `work` "builds helm". The lock is released when
/// the result is dropped or its process dies.
pub(crate) fn lock(file: &Path, work: &str) -> Result<fs::File> {
    let dir = file.parent().expect("a file is in a folder");
    fs::create_dir_all(dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
    let lock =
        fs::File::create(file).with_context(|| format!("cannot create `{}`", file.display()))?;
    if lock.try_lock().is_err() {
        say!("waiting for another process that {work}");
        lock.lock()
            .with_context(|| format!("cannot lock `{}`", file.display()))?;
    }
    Ok(lock)
}

/// Makes a folder once: whoever finds it finds it complete. `make` fills a new folder, `.NAME.part`, which then gets the
/// name; nothing of it is left when making fails. Of several processes one makes it, and the others wait for the
/// "process that …": `work` says what.
pub(crate) fn made_once(
    dir: &Path,
    work: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let _lock = lock_to_make(dir, work)?;
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().expect("it lies in a folder");
    let name = dir.file_name().expect("it has a name").to_string_lossy();
    remove_halves(parent);
    let part = parent.join(format!(".{name}.part"));
    make_or_remove(&part, make)?;
    fs::rename(&part, dir).with_context(|| format!("cannot create `{}`", dir.display()))
}

/// Removes a folder that `made_once` made, unless another process has made it anew and `is_good` again.
pub(crate) fn remove_unless(dir: &Path, work: &str, is_good: impl FnOnce() -> bool) -> Result<()> {
    let _lock = lock_to_make(dir, work)?;
    if is_good() { Ok(()) } else { remove_dir(dir) }
}

/// Locks what only one process makes.
fn lock_to_make(dir: &Path, work: &str) -> Result<fs::File> {
    let parent = dir.parent().expect("it lies in a folder");
    let name = dir.file_name().expect("it has a name");
    lock(&parent.join("locks").join(name), work)
}

/// Removes the half folders `.NAME.part` that processes left which were killed: those that nobody has locked, since who
/// makes one has. Many names are never made again.
pub(crate) fn remove_halves(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let file = file.to_string_lossy();
        let name = file
            .strip_prefix('.')
            .and_then(|it| it.strip_suffix(".part"));
        let lock = name.map(|it| fs::File::create(parent.join("locks").join(it)));
        if let Some(Ok(lock)) = lock
            && lock.try_lock().is_ok()
        {
            let _ = remove_dir(&entry.path());
        }
    }
}

/// Makes and fills a new folder. Nothing of it is left when that fails.
fn make_or_remove(folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    remove_dir(folder)?;
    fs::create_dir(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    if let Err(err) = make(folder) {
        remove_dir(folder)?;
        return Err(err);
    }
    Ok(())
}

/// Removes a folder and everything in it. One that does not exist is fine.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() != ErrorKind::NotFound => {
            Err(err).with_context(|| format!("cannot remove `{}`", dir.display()))
        }
        _ => Ok(()),
    }
}

pub(crate) fn make_executable(file: &Path) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make `{}` executable", file.display()))
}

/// The end of a name that nobody else has chosen yet. It may be guessed.
pub(crate) fn random_suffix() -> String {
    let number = RandomState::new().build_hasher().finish();
    hex(&number.to_be_bytes()[..5])
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

/// A path without `.`, and without `..` where a folder is before it. Links are not looked at.
pub(crate) fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for step in path.components() {
        match step {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => _ = plain.pop(),
            step => plain.push(step),
        }
    }
    plain
}

/// The path that leads from `folder` to `path`, which are both relative to the same folder or both absolute.
pub(crate) fn from(folder: &Path, path: &Path) -> PathBuf {
    let shared = folder
        .components()
        .zip(path.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = folder
        .components()
        .skip(shared)
        .map(|_| Component::ParentDir);
    up.chain(path.components().skip(shared)).collect()
}

/// Whether a file's name says that its content is secret, so that it has to be encrypted.
pub(crate) fn is_called_secret(file: &Path) -> bool {
    file.file_name()
        .is_some_and(|it| it.to_string_lossy().contains("secret"))
}
