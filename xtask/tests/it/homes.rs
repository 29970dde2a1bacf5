//! A home is copied while its owner, or that of the home that it goes to, swaps folders for links. As root: the script is
//! the one that the pod runs, with homes of the test's own at /home.

use std::{
    env, fs,
    os::unix::fs::{chown, symlink},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::repo::Ran;

const COPY: &str = include_str!("../../src/commands/exec/copy_homedir.sh");
const ANN: u32 = 64001;
const BEN: u32 = 64002;
const EVE: u32 = 64003;
const FOLDERS: usize = 400;

/// The homes of ann, with many folders, ben, and eve, who has a secret.
struct Homes(PathBuf);

impl Homes {
    fn new() -> Homes {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("xtask-homes-{}-{number}", std::process::id());
        let homes = Homes(env::temp_dir().join(name));
        for (name, uid) in [("ann", ANN), ("ben", BEN), ("eve", EVE)] {
            fs::create_dir_all(homes.0.join(name)).unwrap();
            chown(homes.0.join(name), Some(uid), Some(uid)).unwrap();
        }
        fs::write(homes.0.join("eve/secret"), "eve's").unwrap();
        for number in 0..FOLDERS {
            fs::create_dir(homes.folder(number)).unwrap();
            fs::write(homes.folder(number).join("file"), "ann's").unwrap();
        }
        homes
    }

    fn folder(&self, number: usize) -> PathBuf {
        self.0.join(format!("ann/{number}"))
    }

    /// Copies ann's home into ben's as the pod does.
    fn copy(&self) -> Ran {
        let mount = r#"mount --bind "$1" /home && mount -t tmpfs tmpfs /tmp && exec bash -c "$2" bash ann ben .part 400"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "bash", "-c", mount]);
        command.arg("bash").arg(&self.0).arg(COPY);
        start(command).into()
    }

    /// Starts a script that ben runs in his home.
    fn ben_runs(&self, script: &str) -> Child {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=64002", "--regid=64002", "--clear-groups"]);
        command.args(["bash", "-c", script]);
        command.current_dir(self.0.join("ben"));
        start(command)
    }

    /// What is in a folder of the homes, sorted.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(folder)).unwrap();
        let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// The files in ben's home that hold this, without what is behind links.
    fn files_with(&self, text: &str) -> String {
        let mut command = Command::new("grep");
        command.args(["-rl", text]).current_dir(self.0.join("ben"));
        Ran::from(start(command)).stdout
    }
}

impl Drop for Homes {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn is_root() -> bool {
    cfg!(target_os = "linux") && rustix::process::geteuid().is_root()
}

/// Ben moves the copy away, and puts a link to eve's home in its place.
#[test]
fn the_destinations_owner_moves_the_copy_away() {
    if !is_root() {
        return;
    }
    let homes = Homes::new();
    let ben = homes.ben_runs(
        "until [ -d .part ]; do :; done; sleep 0.02; \
         mv .part moved && ln -s ../eve .part",
    );
    let ran = homes.copy();
    let ben = Ran::from(ben);
    assert_eq!(ben.code, Some(0), "{}", ben.stderr);
    assert_eq!(homes.names("eve"), ["secret"], "{}", ran.stderr);
    assert!(homes.0.join("ben/ann-homedir/7/file").exists());
    assert_eq!(homes.names("ben/ann-homedir").len(), FOLDERS);
}

/// Sooner than the script is in the folder that it makes.
#[test]
fn the_destinations_owner_is_quicker() {
    if !is_root() {
        return;
    }
    for _ in 0..8 {
        let homes = Homes::new();
        let mut ben = homes.ben_runs(
            "until [ -d .part ]; do :; done; mv .part moved; ln -s ../eve .part; mkdir -p ann-homedir",
        );
        let ran = homes.copy();
        ben.wait().unwrap();
        assert_eq!(homes.names("eve"), ["secret"], "{}", ran.stderr);
    }
}

/// Ben has a link to eve's home where the copy is to be in the end.
#[test]
fn a_link_has_the_copys_name() {
    if !is_root() {
        return;
    }
    let homes = Homes::new();
    symlink("../eve", homes.0.join("ben/ann-homedir")).unwrap();
    let ran = homes.copy();
    assert_ne!(ran.code, Some(0));
    assert_eq!(homes.names("eve"), ["secret"], "{}", ran.stderr);
}

/// Ann's folders are links to eve's home for moments.
#[test]
fn the_sources_owner_swaps_folders_for_links() {
    if !is_root() {
        return;
    }
    let homes = Homes::new();
    for number in 0..FOLDERS {
        symlink("../eve", homes.0.join(number.to_string())).unwrap();
    }
    let is_done = AtomicBool::new(false);
    let ran = thread::scope(|scope| {
        scope.spawn(|| swap(&homes, &is_done));
        let ran = homes.copy();
        is_done.store(true, Ordering::Relaxed);
        ran
    });
    assert_eq!(homes.files_with("eve's"), "", "{}", ran.stderr);
    assert_ne!(homes.files_with("ann's"), "");
}

/// Exchanges each of ann's folders for a link, and all of them back.
fn swap(homes: &Homes, is_done: &AtomicBool) {
    while !is_done.load(Ordering::Relaxed) {
        for number in 0..FOLDERS {
            let link = homes.0.join(number.to_string());
            let folder = homes.folder(number);
            renameat_with(CWD, link, CWD, folder, RenameFlags::EXCHANGE).unwrap();
        }
    }
}
