//! The pinned programs. One table names them; what PATH lacks is built with Go into the cache.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt,
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Cmd, Shell, cmd};

use crate::machine::{parallel, paths, process, terminal::list};

/// The programs that `deploy` runs on any cluster.
pub(crate) const FOR_HUBS: &[&str] = &["helm", "sops", "kubectl"];
/// The program that evaluates values in jsonnet, which is our own.
pub(crate) const JSONNET: &str = "xtask-jsonnet";
/// The programs that a rehearsal cluster consists of.
pub(crate) const FOR_REHEARSALS: &[&str] = &[
    "kubectl",
    "kwok",
    "kwokctl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "etcd",
];
/// The pinned programs that a real node needs besides.
pub(crate) const FOR_REAL_NODES: &[&str] = &["kubelet", "kube-proxy", "coredns", "registry"];
/// The system's programs that a real node needs, each with its package on Debian and Ubuntu.
pub(crate) const SYSTEM_FOR_REAL_NODES: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("runc", "runc"),
    ("unshare", "util-linux"),
];
/// The system's programs that building the image for a real node needs, each with its package.
pub(crate) const SYSTEM_FOR_IMAGES: &[(&str, &str)] = &[
    ("chroot", "coreutils"),
    ("ctr", "containerd"),
    ("debootstrap", "debootstrap"),
    ("setpriv", "util-linux"),
    ("tar", "tar"),
];

/// The Kubernetes of the rehearsal cluster. tools/kubernetes/go.mod names it too.
pub(crate) const KUBERNETES: Version = Version(1, 34, 4);
const KWOK: Version = Version(0, 8, 0);
const AGE: Version = Version(1, 3, 2);
const EVALUATOR: Version = Version(1, 3, 0);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct Version(u32, u32, u32);

pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// The version that we build.
    pub(crate) version: Version,
    /// The versions that work when they are on PATH: from the first one, below the second.
    good: [Version; 2],
    version_args: &'static [&'static str],
    package: &'static str,
    source: BuildSource,
}

pub(crate) enum BuildSource {
    /// `go install PACKAGE@VERSION`.
    Install,
    /// `go install` with the version set in this variable, which otherwise only a release build of the program does.
    InstallWith { version_variable: &'static str },
    /// `go build PACKAGE` in a module of our own, because the program's go.mod has `replace` lines, it has no module that
    /// `go install` takes, or it is ours.
    Module {
        go_mod: &'static str,
        go_sum: &'static str,
        /// Those of a program of ours, by their names.
        sources: &'static [(&'static str, &'static str)],
        ldflags: &'static str,
    },
}

const KUBERNETES_MODULE: BuildSource = BuildSource::Module {
    go_mod: include_str!("../../tools/kubernetes/go.mod"),
    go_sum: include_str!("../../tools/kubernetes/go.sum"),
    sources: &[],
    // Without these the server reports version 0.0.0, and charts with a `kubeVersion` refuse it.
    ldflags: "-X k8s.io/component-base/version.gitVersion=v{version} \
              -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34",
};

/// The parts of one control plane must be of one minor version. A kubectl may be one minor older than its
/// server, and newer than it for long in practice.
const KUBERNETES_GOOD: [Version; 2] = [Version(1, 34, 0), Version(1, 35, 0)];

const KWOK_SOURCE: BuildSource = BuildSource::InstallWith {
    version_variable: "sigs.k8s.io/kwok/pkg/consts.Version",
};

#[rustfmt::skip]
pub(crate) const PROGRAMS: &[Program] = &[
    Program { name: "helm", version: Version(4, 3, 1), good: [Version(4, 2, 0), Version(5, 0, 0)],
        version_args: &["version", "--short"], package: "helm.sh/helm/v4/cmd/helm",
        source: BuildSource::InstallWith { version_variable: "helm.sh/helm/v4/internal/version.version" } },
    Program { name: "sops", version: Version(3, 13, 3), good: [Version(3, 11, 0), Version(4, 0, 0)],
        version_args: &["--version", "--disable-version-check"], package: "github.com/getsops/sops/v3/cmd/sops", source: BuildSource::Install },
    Program { name: "age", version: AGE, good: [Version(1, 1, 0), Version(2, 0, 0)],
        version_args: &["--version"], package: "filippo.io/age/cmd/age", source: BuildSource::Install },
    Program { name: "age-keygen", version: AGE, good: [Version(1, 1, 0), Version(2, 0, 0)],
        version_args: &["--version"], package: "filippo.io/age/cmd/age-keygen", source: BuildSource::Install },
    Program { name: "kubectl", version: KUBERNETES, good: [Version(1, 33, 0), Version(2, 0, 0)],
        version_args: &["version", "--client"], package: "k8s.io/kubernetes/cmd/kubectl", source: KUBERNETES_MODULE },
    Program { name: "kwok", version: KWOK, good: [KWOK, Version(0, 9, 0)],
        version_args: &["--version"], package: "sigs.k8s.io/kwok/cmd/kwok", source: KWOK_SOURCE },
    Program { name: "kwokctl", version: KWOK, good: [KWOK, Version(0, 9, 0)],
        version_args: &["--version"], package: "sigs.k8s.io/kwok/cmd/kwokctl", source: KWOK_SOURCE },
    Program { name: "kube-apiserver", version: KUBERNETES, good: KUBERNETES_GOOD,
        version_args: &["--version"], package: "k8s.io/kubernetes/cmd/kube-apiserver", source: KUBERNETES_MODULE },
    Program { name: "kube-controller-manager", version: KUBERNETES, good: KUBERNETES_GOOD,
        version_args: &["--version"], package: "k8s.io/kubernetes/cmd/kube-controller-manager", source: KUBERNETES_MODULE },
    Program { name: "kube-scheduler", version: KUBERNETES, good: KUBERNETES_GOOD,
        version_args: &["--version"], package: "k8s.io/kubernetes/cmd/kube-scheduler", source: KUBERNETES_MODULE },
    Program { name: "kubelet", version: KUBERNETES, good: KUBERNETES_GOOD,
        version_args: &["--version"], package: "k8s.io/kubernetes/cmd/kubelet", source: KUBERNETES_MODULE },
    Program { name: "kube-proxy", version: KUBERNETES, good: KUBERNETES_GOOD,
        version_args: &["--version"], package: "k8s.io/kubernetes/cmd/kube-proxy", source: KUBERNETES_MODULE },
    Program { name: "coredns", version: Version(1, 15, 0), good: [Version(1, 11, 0), Version(2, 0, 0)],
        version_args: &["-version"], package: "github.com/coredns/coredns", source: BuildSource::Install },
    Program { name: "registry", version: Version(3, 1, 2), good: [Version(3, 0, 0), Version(4, 0, 0)],
        version_args: &["--version"], package: "github.com/distribution/distribution/v3/cmd/registry",
        source: BuildSource::InstallWith { version_variable: "github.com/distribution/distribution/v3/version.version" } },
    Program { name: "etcd", version: Version(3, 6, 16), good: [Version(3, 6, 0), Version(3, 7, 0)],
        version_args: &["--version"], package: "go.etcd.io/etcd/server/v3",
        source: BuildSource::Module {
            go_mod: include_str!("../../tools/etcd/go.mod"), go_sum: include_str!("../../tools/etcd/go.sum"),
            sources: &[], ldflags: "" } },
    // A change of its files needs another version, or nobody builds it anew: a test knows which files this version has.
    Program { name: JSONNET, version: EVALUATOR, good: [EVALUATOR, Version(1, 3, 1)],
        version_args: &["--version"], package: "xtask/tools/jsonnet",
        source: BuildSource::Module {
            go_mod: include_str!("../../tools/jsonnet/go.mod"), go_sum: include_str!("../../tools/jsonnet/go.sum"),
            sources: &[("main.go", include_str!("../../tools/jsonnet/main.go")), ("places.go", include_str!("../../tools/jsonnet/places.go"))],
            ldflags: "-X main.version={version}" } },
];

/// Builds every pinned program that neither PATH nor the cache has.
pub(crate) fn build_missing(sh: &Shell) -> Result<()> {
    Found::look(sh, PROGRAMS.iter().collect())?.build_missing(sh)
}

/// A `Shell` whose PATH has the programs that somebody asked for, in versions that work.
#[derive(Clone)]
pub(crate) struct Tools(Shell);

impl Tools {
    pub(crate) fn sh(&self) -> &Shell {
        &self.0
    }
}

/// Provides programs by their names. One that is missing is built if `build` is set, and is an error otherwise.
pub(crate) fn provide(sh: &Shell, names: &[&str], build: bool) -> Result<Tools> {
    let wanted = PROGRAMS.iter().filter(|it| names.contains(&it.name));
    let found = Found::look(sh, wanted.collect())?;
    if build {
        found.build_missing(sh)?;
    } else {
        found.refuse_if_any_is_missing(sh)?;
    }
    let mut folders = found.cached_folders()?;
    folders.extend(on_path(sh));
    let sh = sh.clone();
    sh.set_var("PATH", env::join_paths(folders)?);
    Ok(Tools(sh))
}

/// The version of one of these programs, by its name. None if it reports none.
pub(crate) fn version_of(tools: &Tools, name: &str) -> Result<Option<Version>> {
    let program = PROGRAMS.iter().find(|it| it.name == name);
    let program = program.with_context(|| format!("`{name}` is none of the pinned programs"))?;
    let file = which(tools.sh(), name).unwrap_or_default();
    // What we built was asked then.
    if file.parent() == Some(&program.folder()?) {
        return Ok(Some(program.version));
    }
    Ok(Probed::load()?.look(tools.sh(), program).version)
}

/// Takes empty and relative entries off a `Shell`'s PATH. They mean the current folder or one below it, which may be that
/// of a repository: a program that lies there is not ours.
pub fn leave_relative_path(sh: &Shell) -> Result<()> {
    sh.set_var("PATH", env::join_paths(on_path(sh))?);
    Ok(())
}

/// The folders on PATH, without relative ones.
pub(crate) fn on_path(sh: &Shell) -> Vec<PathBuf> {
    let path = sh.var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter(|it| it.is_absolute())
        .collect()
}

/// The file on PATH that running `name` would start.
pub(crate) fn which(sh: &Shell, name: &str) -> Option<PathBuf> {
    on_path(sh)
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// The file on PATH that running `name` would start. An error if there is none.
pub(crate) fn find(sh: &Shell, name: &str) -> Result<PathBuf> {
    which(sh, name).with_context(|| format!("`{name}` is not on PATH"))
}

/// An error if PATH lacks any of these programs of the system: pairs of a program and its Debian package.
pub(crate) fn require_from_system(sh: &Shell, programs: &[(&str, &str)]) -> Result<()> {
    refuse_missing(&missing_from_system(sh, programs))
}

/// Those of the system's programs, each with its package, that are not there.
pub(crate) fn missing_from_system<'a>(
    sh: &Shell,
    programs: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let missing = programs.iter().copied();
    missing
        .filter(|(name, _)| which(sh, name).is_none())
        .collect()
}

/// An error that names what is missing from the system, and the packages that have it.
pub(crate) fn refuse_missing(missing: &[(&str, &str)]) -> Result<()> {
    let packages: BTreeSet<_> = missing.iter().map(|(_, package)| *package).collect();
    ensure!(
        missing.is_empty(),
        "the system lacks {}\nhint: on Debian and Ubuntu, `apt-get install {}`",
        list(missing.iter().map(|(name, _)| name)),
        packages.into_iter().collect::<Vec<_>>().join(" ")
    );
    Ok(())
}

/// Where programs were found: those that are in neither list are on PATH.
pub(crate) struct Found {
    /// Those that come from the cache, also when they are still missing there.
    cached: Vec<&'static Program>,
    missing: Vec<MissingProgram>,
}

struct MissingProgram {
    program: &'static Program,
    /// What is on PATH, and why it cannot be used.
    unfit: Option<String>,
}

impl Found {
    /// Looks for these programs on PATH and in the cache.
    pub(crate) fn look(sh: &Shell, programs: Vec<&'static Program>) -> Result<Found> {
        let known = Probed::load()?;
        let looks = parallel::side_by_side(sh, &programs, |sh, program| known.look(sh, program));
        let mut found = Found {
            cached: Vec::new(),
            missing: Vec::new(),
        };
        let mut learned = known.clone();
        for (program, look) in programs.into_iter().zip(looks) {
            if let Some((key, entry)) = look.to_remember {
                learned.0.insert(key, entry);
            }
            found.add(program, look.file, look.version)?;
        }
        if learned.0 != known.0 {
            learned.save()?;
        }
        Ok(found)
    }

    /// Adds a program by what is on PATH, and that one's version.
    fn add(
        &mut self,
        program: &'static Program,
        on_path: Option<PathBuf>,
        version: Option<Version>,
    ) -> Result<()> {
        let folder = program.folder()?;
        // A folder of the cache may be on PATH (`setup --print-path`): its program still counts as cached.
        let is_ours = on_path.as_deref().and_then(Path::parent) == Some(&folder);
        if version.is_some_and(|it| program.is_good(it)) && !is_ours {
            return Ok(());
        }
        if !folder.join(program.name).is_file() {
            let unfit = on_path.map(|file| why_unfit(&file, version));
            self.missing.push(MissingProgram { program, unfit });
        }
        self.cached.push(program);
        Ok(())
    }

    /// The folders of the cache that belong on PATH.
    pub(crate) fn cached_folders(&self) -> Result<Vec<PathBuf>> {
        self.cached.iter().map(|it| it.folder()).collect()
    }

    /// The folders of the cache that have their program; that of all these folders if none has. It is never nothing: an
    /// empty entry of PATH is the current folder.
    pub(crate) fn built_folders(&self) -> Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for program in &self.cached {
            let folder = program.folder()?;
            if folder.join(program.name).is_file() {
                folders.push(folder);
            }
        }
        if folders.is_empty() {
            folders.push(tools()?);
        }
        Ok(folders)
    }

    /// An error that names the missing programs, if there are any.
    pub(crate) fn refuse_if_any_is_missing(&self, sh: &Shell) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let hint = match which(sh, "go") {
            Some(_) => "run `cargo xtask setup` to build them",
            None => {
                "install Go from https://go.dev/dl/, then run `cargo xtask setup` to build them"
            }
        };
        bail!("{}\nhint: {hint}", self.name_missing());
    }

    /// Builds the missing programs. An error if that needs Go, and PATH has none.
    pub(crate) fn build_missing(&self, sh: &Shell) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        if which(sh, "go").is_none() {
            bail!(
                "{}\nhint: install Go from https://go.dev/dl/ to build them, or put versions of these programs that work \
                 on PATH",
                self.name_missing()
            );
        }
        let total = self.missing.len();
        for (missing, number) in self.missing.iter().zip(1..) {
            missing.program.build(sh, &format!("[{number}/{total}]"))?;
        }
        Ok(())
    }

    fn name_missing(&self) -> String {
        let mut text = String::from("programs are missing:");
        for MissingProgram { program, unfit } in &self.missing {
            text += &format!("\n  `{}` {}", program.name, program.wanted());
            if let Some(unfit) = unfit {
                text += &format!(" ({unfit})");
            }
        }
        text
    }
}

/// The folder of the cache with a folder for each program.
fn tools() -> Result<PathBuf> {
    Ok(paths::cache()?.join("tools"))
}

/// Why a program on PATH cannot be used.
fn why_unfit(file: &Path, version: Option<Version>) -> String {
    match version {
        Some(version) => format!("`{}` is {version}", file.display()),
        None => format!("`{}` does not report its version", file.display()),
    }
}

/// The versions of programs on PATH, remembered by their files so that a deploy does not start each of them first.
#[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
struct Probed(BTreeMap<String, Probe>);

#[derive(Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Probe {
    /// Size, and seconds and nanoseconds of the last change: these differ when the file is another one.
    stat: (u64, i64, i64),
    version: Option<Version>,
}

#[derive(Default)]
struct Look {
    /// The program on PATH.
    file: Option<PathBuf>,
    version: Option<Version>,
    to_remember: Option<(String, Probe)>,
}

impl Probed {
    fn file() -> Result<PathBuf> {
        Ok(tools()?.join("probed.json"))
    }

    fn load() -> Result<Probed> {
        let text = fs::read(Probed::file()?).unwrap_or_default();
        Ok(serde_json::from_slice(&text).unwrap_or_default())
    }

    fn save(&self) -> Result<()> {
        paths::write_whole(&Probed::file()?, &serde_json::to_vec(self)?)
    }

    /// Looks for a program on PATH. It is run only if its version is not remembered.
    fn look(&self, sh: &Shell, program: &Program) -> Look {
        let Some(file) = which(sh, program.name) else {
            return Look::default();
        };
        let real = file.canonicalize().unwrap_or_else(|_| file.clone());
        let Ok(stat) = real.metadata() else {
            return Look::default();
        };
        let stat = (stat.size(), stat.mtime(), stat.mtime_nsec());
        let key = format!("{}\t{}", program.name, real.display());
        if let Some(known) = self.0.get(&key).filter(|it| it.stat == stat) {
            return Look {
                file: Some(file),
                version: known.version,
                to_remember: None,
            };
        }
        let version = probe(sh, program, &file);
        // A script may choose what it starts by folder or environment (pyenv, asdf), so it is run each time.
        let to_remember = (!is_script(&real)).then_some((key, Probe { stat, version }));
        Look {
            file: Some(file),
            version,
            to_remember,
        }
    }
}

fn is_script(file: &Path) -> bool {
    let mut start = [0; 2];
    File::open(file)
        .and_then(|mut it| it.read_exact(&mut start))
        .is_ok()
        && &start == b"#!"
}

/// The version that the program reports; none if it cannot be run or reports none.
pub(crate) fn probe(sh: &Shell, program: &Program, file: &Path) -> Option<Version> {
    if !file.is_file() {
        return None;
    }
    let args = program.version_args;
    let output = process::run(sh, cmd!(sh, "{file} {args...}"), b"").ok()?;
    // Some name themselves first, by a path that may have numbers, too.
    let text = String::from_utf8_lossy(&output.stdout).replace(&file.display().to_string(), "");
    Version::in_text(&text)
}

impl Program {
    /// Whether a program on PATH with this version works.
    pub(crate) fn is_good(&self, version: Version) -> bool {
        let [from, below] = self.good;
        (from..below).contains(&version)
    }

    /// The versions that work, such as `>=4.2 <5.0`, or the only one.
    pub(crate) fn wanted(&self) -> String {
        let [from, below] = self.good;
        if from.minor() == below.minor() {
            return format!("={from}");
        }
        format!(">={} <{}", from.minor(), below.minor())
    }

    fn folder_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// The folder of the cache that the program is built into.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        Ok(tools()?.join(self.folder_name()))
    }

    /// Builds the program into a folder beside its own, which is then moved into its place: the program's folder is either
    /// complete or missing.
    fn build(&self, sh: &Shell, progress: &str) -> Result<()> {
        let folder = self.folder()?;
        let tools = tools()?;
        let name = self.folder_name();
        let _lock = paths::lock(&tools.join("locks").join(&name), &format!("builds {name}"))?;
        if folder.join(self.name).is_file() {
            return Ok(());
        }
        say!("{progress} {name}: building …");
        let started = Instant::now();
        let part = tools.join(format!(".{name}.part"));
        paths::remove_halves(&tools);
        paths::remove_dir(&part)?;
        paths::remove_dir(&folder)?;
        let bin = part.join("bin");
        let built = self.run_go(sh, &part, &bin);
        if let Err(err) = built.and_then(|()| self.check_version(sh, &bin)) {
            paths::remove_dir(&part)?;
            return Err(err);
        }
        fs::rename(&bin, &folder)
            .with_context(|| format!("cannot move `{name}` into its place"))?;
        paths::remove_dir(&part)?;
        let seconds = started.elapsed().as_secs();
        say!("{progress} {name}: built in {seconds} s");
        Ok(())
    }

    /// An error if the program in `bin` reports another version than the pinned one.
    fn check_version(&self, sh: &Shell, bin: &Path) -> Result<()> {
        ensure!(
            probe(sh, self, &bin.join(self.name)) == Some(self.version),
            "`{}` was built, but reports another version than {}",
            self.name,
            self.version
        );
        Ok(())
    }

    /// Builds the program into `bin`, a folder in the empty folder `part`.
    fn run_go(&self, sh: &Shell, part: &Path, bin: &Path) -> Result<()> {
        fs::create_dir_all(bin)?;
        let sh = sh.clone();
        sh.set_var("GOWORK", "off");
        sh.set_var("CGO_ENABLED", "0");
        sh.set_var("GOBIN", bin);
        let output = process::run(&sh, self.go_command(&sh, part, bin)?, b"")?;
        if !output.success {
            say!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
            bail!(
                "cannot build `{}`: see the messages of Go above",
                self.folder_name()
            );
        }
        Ok(())
    }

    fn go_command<'a>(&self, sh: &'a Shell, part: &Path, bin: &Path) -> Result<Cmd<'a>> {
        let package = self.package;
        let version = self.version.to_string();
        let mut ldflags = "-s -w ".to_owned();
        match &self.source {
            BuildSource::Install => {}
            BuildSource::InstallWith { version_variable } => {
                ldflags += &format!("-X {version_variable}=v{version}");
            }
            BuildSource::Module {
                go_mod,
                go_sum,
                sources,
                ldflags: own,
            } => {
                let src = part.join("src");
                let files = [("go.mod", *go_mod), ("go.sum", *go_sum)];
                write_module(&src, files.iter().chain(*sources))?;
                ldflags += &own.replace("{version}", &version);
                let file = bin.join(self.name);
                return Ok(cmd!(
                    sh,
                    "go build -C {src} -mod=readonly -trimpath -ldflags {ldflags} -o {file} {package}"
                ));
            }
        }
        Ok(cmd!(
            sh,
            "go install -trimpath -ldflags {ldflags} {package}@v{version}"
        ))
    }
}

/// Writes the files of a module, by their names.
fn write_module<'a>(
    folder: &Path,
    files: impl Iterator<Item = &'a (&'a str, &'a str)>,
) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (name, content) in files {
        fs::write(folder.join(name), content)?;
    }
    Ok(())
}

impl Version {
    /// The first release of a minor version of Kubernetes.
    pub(crate) const fn of_kubernetes(minor: u32) -> Version {
        Version(1, minor, 0)
    }

    /// `MAJOR.MINOR`.
    pub(crate) fn minor(&self) -> String {
        format!("{}.{}", self.0, self.1)
    }

    /// The first version number in a text: `Client Version: v1.34.4-gke.1` has 1.34.4.
    pub(crate) fn in_text(text: &str) -> Option<Version> {
        text.split(|it: char| !it.is_ascii_digit() && it != '.')
            .find_map(Version::parse)
    }

    /// `MAJOR.MINOR` or `MAJOR.MINOR.PATCH`.
    fn parse(word: &str) -> Option<Version> {
        let mut numbers = word.split('.').map(str::parse);
        let major = numbers.next()?.ok()?;
        let minor = numbers.next()?.ok()?;
        let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
        Some(Version(major, minor, patch))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}
