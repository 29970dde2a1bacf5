//! The image that GitLab's jobs run in, made by .gitlab/Dockerfile on a base of ours: no registry has one here.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, id},
};

use crate::repo::{Repo, assert_succeeded, persons_cache, tool_path, workspace};

/// What is built on: Debian with the packages of the image, so that apt has nothing left to fetch. It is made once for all
/// runs of the tests, in a storage of its own. DEBIAN_MIRROR may name another server than Debian's own.
const BASE: &str = r#"
buildah inspect --type image "$1" >/dev/null 2>&1 && exit
cd "$2"
packages=buildah,ca-certificates,curl,git,jq,netavark
debootstrap --variant minbase --include "$packages" trixie rootfs ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >&2
tar --create --directory rootfs --one-file-system . >rootfs.tar
container=$(buildah from scratch)
buildah add --quiet "$container" rootfs.tar /
buildah commit --quiet --rm "$container" "$1"
"#;

/// Counts up when `BASE` makes another one.
const NAME_OF_BASE: &str = "localhost/xtask/deployer-base:1";

/// A storage with an image that is removed again.
struct Image {
    name: String,
    storage: PathBuf,
}

impl Image {
    /// Builds it, with programs that are built already in place of the stage that builds them.
    fn build(repo: &Repo) -> Image {
        let image = Image {
            name: format!("localhost/xtask/deployer:{}", id()),
            storage: storage(),
        };
        let scratch = repo.cache().join("base");
        fs::create_dir_all(&scratch).unwrap();
        // Nothing stays mounted where it is killed.
        let script = ["--mount", "sh", "-euc", BASE, "sh", NAME_OF_BASE];
        let mut base = image.command("unshare", &script);
        assert_succeeded(&base.arg(scratch).output().unwrap());
        let programs = programs(&repo.cache());
        let build = format!(
            "build --quiet --file .gitlab/Dockerfile --target program --build-arg BASE={NAME_OF_BASE} \
             --build-context build={} --tag {} .",
            programs.display(),
            image.name
        );
        let words: Vec<_> = build.split(' ').collect();
        let mut build = image.command("buildah", &words);
        assert_succeeded(&build.current_dir(workspace()).output().unwrap());
        image
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("CONTAINERS_STORAGE_CONF", &self.storage)
            .env("BUILDAH_ISOLATION", "chroot");
        command
    }

    /// Runs lines in a new container, in a folder of this machine: what they print. They may mount, as on GitLab's own
    /// runners, or no image could be built.
    fn said(&self, folder: &Path, lines: &str) -> String {
        let from = self.command("buildah", &["from", &self.name]).output();
        let from = from.unwrap();
        assert_succeeded(&from);
        let container = String::from_utf8(from.stdout).unwrap();
        let container = container.trim();
        let volume = format!("{}:/work", folder.display());
        let options = ["--cap-add", "CAP_SYS_ADMIN", "--workingdir", "/work"];
        let mut run = self.command("buildah", &["run", "--volume", &volume]);
        run.args(options).args([container, "sh", "-ec", lines]);
        let output = run.output().unwrap();
        let removed = self.command("buildah", &["rm", container]).output();
        assert_succeeded(&removed.unwrap());
        assert_succeeded(&output);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = self.command("buildah", &["rmi", &self.name]).output();
    }
}

/// The configuration of a storage in the cache. Unlike vfs, overlay copies no files from layer to layer.
fn storage() -> PathBuf {
    let folder = persons_cache().join("xtask/tests/deployer-image");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("storage.conf");
    let shown = folder.display();
    let text = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{shown}/graph\"\nrunroot = \"{shown}/run\"\n"
    );
    fs::write(&file, text).unwrap();
    file
}

/// A folder with the programs where the Dockerfile looks for those that it built.
fn programs(cache: &Path) -> PathBuf {
    let stage = cache.join("stage");
    let programs = stage.join("programs");
    fs::create_dir_all(&programs).unwrap();
    let copy = |from: &Path, name: &str| fs::copy(from, programs.join(name)).unwrap();
    copy(Path::new(env!("CARGO_BIN_EXE_xtask")), "xtask");
    for name in ["helm", "kubectl", "sops", "xtask-jsonnet"] {
        copy(&tool_path(name), name);
    }
    stage
}

#[test]
fn pipelines_find_everything_in_their_image() {
    if !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
        return;
    }
    let repo = Repo::own();
    let image = Image::build(&repo);
    let said = |lines: &str| image.said(&repo.root, lines);
    let validated = said("xtask validate");
    assert!(
        validated.contains("1 cluster, 2 hubs: no problems"),
        "{validated}"
    );
    let rendered = said("xtask deploy local --dry-run");
    assert!(
        rendered.contains("# staging: what would be applied"),
        "{rendered}"
    );
    // The programs are those of the image.
    let checked = said("xtask setup --for deploy --check");
    assert_eq!(checked.matches(" /usr/local/bin/").count(), 4, "{checked}");
    repo.write(
        "images/user/Dockerfile",
        "FROM scratch\nCOPY Dockerfile /\n",
    );
    let built = said("jq --version; buildah build --tag user images/user");
    assert!(built.contains("localhost/user:latest"), "{built}");
}
