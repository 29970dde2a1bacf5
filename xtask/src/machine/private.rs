//! What must not reach a disk: files in memory, and folders on tmpfs that are removed when we end.

use std::{
    fs,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result};
use rustix::process::setsid;
use xshell::{Shell, cmd};

use crate::machine::paths;

pub(crate) use private_file::{PrivateFile, remove_files};

#[cfg(target_os = "linux")]
mod private_file {
    use std::{
        fs::File,
        io::Write,
        os::fd::AsRawFd,
        path::{Path, PathBuf},
    };

    use anyhow::{Context, Result};
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    /// A file in memory. It is gone when this is dropped or we end, however that comes.
    pub(crate) struct PrivateFile {
        path: PathBuf,
        _file: File,
    }

    impl PrivateFile {
        pub(crate) fn new(content: &[u8]) -> Result<PrivateFile> {
            let fd = memfd_create("xtask", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
                .context("cannot make a file in memory")?;
            let mut file = File::from(fd);
            file.write_all(content)
                .context("cannot write to a file in memory")?;
            fcntl_add_seals(
                &file,
                SealFlags::SEAL | SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK,
            )
            .context("cannot seal a file in memory")?;
            let path = PathBuf::from(format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                file.as_raw_fd()
            ));
            Ok(PrivateFile { path, _file: file })
        }

        /// Where programs that we start can read it.
        pub(crate) fn path(&self) -> &Path {
            &self.path
        }
    }

    /// Does nothing: files in memory end with us.
    pub(crate) fn remove_files() {}
}

#[cfg(not(target_os = "linux"))]
mod private_file {
    use std::{
        fs::{self, OpenOptions},
        io::Write,
        os::unix::fs::OpenOptionsExt,
        path::{Path, PathBuf},
        sync::{Mutex, Once},
    };

    use anyhow::{Context, Result};

    use crate::machine::paths;

    /// A file in the user's private temporary folder, removed when this is dropped or a signal ends us.
    pub(crate) struct PrivateFile {
        path: PathBuf,
    }

    static WRITTEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    static WARNED: Once = Once::new();

    impl PrivateFile {
        pub(crate) fn new(content: &[u8]) -> Result<PrivateFile> {
            WARNED.call_once(|| {
                say!(
                    "this system has no files in memory: decrypted files are kept in a private folder until we end"
                );
            });
            let path = paths::of_this_process("file")?;
            WRITTEN
                .lock()
                .expect("nobody panics with it")
                .push(path.clone());
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .and_then(|mut it| it.write_all(content))
                .with_context(|| format!("cannot write `{}`", path.display()))?;
            Ok(PrivateFile { path })
        }

        /// Where programs that we start can read it.
        pub(crate) fn path(&self) -> &Path {
            &self.path
        }
    }

    impl Drop for PrivateFile {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Removes all private files that are still there, before a signal ends us.
    pub(crate) fn remove_files() {
        for path in WRITTEN.lock().expect("nobody panics with it").iter() {
            let _ = fs::remove_file(path);
        }
    }
}

/// A folder in memory for what programs have to write. It is removed when this is dropped, or when we end.
pub(crate) struct PrivateFolder {
    pub(crate) path: PathBuf,
    // Removes it.
    _cleaner: Cleaner,
}

impl PrivateFolder {
    pub(crate) fn new(sh: &Shell) -> Result<PrivateFolder> {
        let path = paths::of_this_process("login")?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make `{}`", path.display()))?;
        let cleaner = Cleaner::of(sh, &path)?;
        Ok(PrivateFolder {
            path,
            _cleaner: cleaner,
        })
    }
}

/// A program that removes a folder when we end, however that comes.
pub(crate) struct Cleaner {
    shell: Child,
    /// Closed when we end, which is what the shell waits for.
    stdin: Option<ChildStdin>,
}

impl Cleaner {
    #[allow(unsafe_code)]
    pub(crate) fn of(sh: &Shell, folder: &Path) -> Result<Cleaner> {
        let script = "trap '' HUP INT TERM; read -r _; rm -rf -- \"$0\"";
        let mut command = Command::from(cmd!(sh, "sh -c {script} {folder}"));
        command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: between fork and exec there is one system call.
        unsafe { command.pre_exec(|| Ok(setsid().map(|_| ())?)) };
        let mut shell = command.spawn().context("cannot run `sh`")?;
        let stdin = shell.stdin.take();
        Ok(Cleaner { shell, stdin })
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.shell.wait();
    }
}
