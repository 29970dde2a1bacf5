//! The pinned programs: one table, what of it the PATH has, and the rest built into the cache by Go.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write,
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::machine::{parallel, paths, process, terminal::list};

/// What `deploy` runs on any cluster.
pub(crate) const FOR_HUBS: &[&str] = &["helm", "sops", "kubectl"];
/// What the rehearsal cluster is made of.
pub(crate) const FOR_REHEARSALS: &[&str] = &[
    "kubectl",
    "kwok",
    "kwokctl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "etcd",
];
/// What a real node needs besides.
pub(crate) const FOR_REAL_NODES: &[&str] = &["kubelet", "kube-proxy", "coredns"];
/// What a real node takes from the system: programs, each with its package on Debian and Ubuntu.
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
/// What building the image for it takes from the system.
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

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct Version(u32, u32, u32);

pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// What we build.
    pub(crate) version: Version,
    /// What is good enough on PATH: from the first, below the second.
    good: [Version; 2],
    version_args: &'static [&'static str],
    package: &'static str,
    source: BuildSource,
}

pub(crate) enum BuildSource {
    /// `go install PACKAGE@VERSION`.
    Install,
    /// The same, with the version set in this variable, which only a release build of the program would do.
    InstallWith { version_variable: &'static str },
    /// `go build PACKAGE` in a module of our own, since its own go.mod has `replace` lines or the program has no
    /// module that `go install` takes.
    Module {
        go_mod: &'static str,
        go_sum: &'static str,
        ldflags: &'static str,
    },
}

const KUBERNETES_MODULE: BuildSource = BuildSource::Module {
    go_mod: include_str!("../../tools/kubernetes/go.mod"),
    go_sum: include_str!("../../tools/kubernetes/go.sum"),
    // Without these the server calls itself 0.0.0, and charts with a `kubeVersion` refuse it.
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
    Program { name: "etcd", version: Version(3, 6, 16), good: [Version(3, 6, 0), Version(3, 7, 0)],
        version_args: &["--version"], package: "go.etcd.io/etcd/server/v3",
        source: BuildSource::Module {
            go_mod: include_str!("../../tools/etcd/go.mod"), go_sum: include_str!("../../tools/etcd/go.sum"), ldflags: "" } },
];

/// Builds each of all programs that neither PATH nor the cache has.
pub(crate) fn build_missing(sh: &Shell) -> Result<()> {
    Found::look(sh, PROGRAMS.iter().collect())?.build_missing(sh)
}

/// A `Shell` whose PATH has these programs in good enough versions. A missing one is built when `build` says so,
/// and is an error otherwise.
pub(crate) fn provide(sh: &Shell, names: &[&str], build: bool) -> Result<Shell> {
    let found = Found::look(
        sh,
        PROGRAMS
            .iter()
            .filter(|it| names.contains(&it.name))
            .collect(),
    )?;
    if build {
        found.build_missing(sh)?;
    } else {
        found.refuse_if_any_is_missing(sh)?;
    }
    let person_s = sh.var_os("PATH").unwrap_or_default();
    let path = env::join_paths(
        found
            .cached_folders()?
            .into_iter()
            .chain(env::split_paths(&person_s)),
    )?;
    let sh = sh.clone();
    sh.set_var("PATH", path);
    Ok(sh)
}

/// The file that running `name` would start.
pub(crate) fn which(sh: &Shell, name: &str) -> Option<PathBuf> {
    let path = sh.var_os("PATH")?;
    env::split_paths(&path).map(|it| it.join(name)).find(|it| {
        it.metadata()
            .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    })
}

/// The file that running `name` would start, which must be there.
pub(crate) fn find(sh: &Shell, name: &str) -> Result<PathBuf> {
    which(sh, name).with_context(|| format!("`{name}` is not on PATH"))
}

/// Requires these programs of the system: pairs of a program and its Debian package.
pub(crate) fn require_from_system(sh: &Shell, programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(name, _)| which(sh, name).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: BTreeSet<_> = missing.iter().map(|(_, package)| *package).collect();
    bail!(
        "the system lacks {}\nhint: on Debian and Ubuntu, `apt-get install {}`",
        list(missing.iter().map(|(name, _)| name)),
        packages.into_iter().collect::<Vec<_>>().join(" ")
    )
}

/// What a look at PATH and the cache gave.
pub(crate) struct Found {
    /// Not good enough on PATH: these come from the cache.
    cached: Vec<&'static Program>,
    /// In neither, each with the version of an unfit one on PATH.
    missing: Vec<(&'static Program, Option<String>)>,
}

impl Found {
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
            // Ours on PATH, by `--print-path`, stays ours.
            let ours = look.file.as_deref().and_then(Path::parent) == Some(&program.folder()?);
            if look.version.is_some_and(|it| program.is_good(it)) && !ours {
                continue;
            }
            if !program.folder()?.join(program.name).is_file() {
                found
                    .missing
                    .push((program, look.file.map(|file| unfit(&file, look.version))));
            }
            found.cached.push(program);
        }
        if learned.0 != known.0 {
            learned.save()?;
        }
        Ok(found)
    }

    pub(crate) fn cached_folders(&self) -> Result<Vec<PathBuf>> {
        self.cached.iter().map(|it| it.folder()).collect()
    }

    pub(crate) fn refuse_if_any_is_missing(&self, sh: &Shell) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let hint = match which(sh, "go") {
            Some(_) => "`cargo xtask setup` builds what is missing",
            None => {
                "install Go from https://go.dev/dl/, and `cargo xtask setup` builds what is missing"
            }
        };
        bail!("{}\nhint: {hint}", self.name_missing());
    }

    pub(crate) fn build_missing(&self, sh: &Shell) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        if which(sh, "go").is_none() {
            bail!(
                "{}\nhint: they are built by Go, which isn't on PATH: install it from https://go.dev/dl/, or put \
                 good enough versions of these programs on PATH",
                self.name_missing()
            );
        }
        let total = self.missing.len();
        for (index, (program, _)) in self.missing.iter().enumerate() {
            program.build(sh, &format!("[{}/{total}]", index + 1))?;
        }
        Ok(())
    }

    fn name_missing(&self) -> String {
        let mut text = String::from("programs are missing:");
        for (program, unfit) in &self.missing {
            write!(text, "\n  `{}` {}", program.name, program.wanted())
                .expect("a String takes all");
            if let Some(unfit) = unfit {
                write!(text, " ({unfit})").expect("a String takes all");
            }
        }
        text
    }
}

fn unfit(file: &Path, version: Option<Version>) -> String {
    match version {
        Some(version) => format!("`{}` is {version}", file.display()),
        None => format!("`{}` doesn't tell its version", file.display()),
    }
}

/// The versions of programs on PATH by their files, so that a deploy needn't start each of them first.
#[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Probed(BTreeMap<String, Probe>);

#[derive(Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Probe {
    /// Size, and seconds and nanoseconds of the last change: another file has others.
    stat: (u64, i64, i64),
    version: Option<Version>,
}

#[derive(Default)]
pub(crate) struct Look {
    file: Option<PathBuf>,
    version: Option<Version>,
    to_remember: Option<(String, Probe)>,
}

impl Probed {
    fn file() -> Result<PathBuf> {
        Ok(paths::cache()?.join("tools/probed.json"))
    }

    fn load() -> Result<Probed> {
        let text = fs::read(Probed::file()?).unwrap_or_default();
        Ok(serde_json::from_slice(&text).unwrap_or_default())
    }

    fn save(&self) -> Result<()> {
        paths::write_whole(&Probed::file()?, &serde_json::to_vec(self)?)
    }

    pub(crate) fn look(&self, sh: &Shell, program: &Program) -> Look {
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
        // A script may choose what it starts by folder or environment (pyenv, asdf): it's asked each time.
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

/// The version that the program says of itself.
pub(crate) fn probe(sh: &Shell, program: &Program, file: &Path) -> Option<Version> {
    if !file.is_file() {
        return None;
    }
    let args = program.version_args;
    let output = process::run(sh, cmd!(sh, "{file} {args...}"), b"").ok()?;
    Version::in_text(&String::from_utf8_lossy(&output.stdout))
}

impl Program {
    pub(crate) fn is_good(&self, version: Version) -> bool {
        let [from, below] = self.good;
        (from..below).contains(&version)
    }

    pub(crate) fn wanted(&self) -> String {
        let [Version(major, minor, _), below] = self.good;
        format!(">={major}.{minor} <{}.{}", below.0, below.1)
    }

    fn folder_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    pub(crate) fn folder(&self) -> Result<PathBuf> {
        Ok(paths::cache()?.join("tools").join(self.folder_name()))
    }

    /// Builds beside the program's folder, and moves the whole into its place: whoever finds the folder finds
    /// it complete.
    fn build(&self, sh: &Shell, progress: &str) -> Result<()> {
        let folder = self.folder()?;
        let tools = folder.parent().expect("it lies in tools/");
        let name = self.folder_name();
        let _lock = paths::lock(&tools.join("locks").join(&name), &format!("builds {name}"))?;
        if folder.join(self.name).is_file() {
            return Ok(());
        }
        say!("{progress} {name}: building …");
        let started = Instant::now();
        let part = tools.join(format!(".{name}.part"));
        paths::remove_dir(&part)?;
        paths::remove_dir(&folder)?;
        let bin = part.join("bin");
        let src = part.join("src");
        fs::create_dir_all(&bin)?;
        fs::create_dir_all(&src)?;

        let (package, version) = (self.package, self.version.to_string());
        let build = sh.clone();
        build.set_var("GOWORK", "off");
        build.set_var("CGO_ENABLED", "0");
        build.set_var("GOBIN", &bin);
        let install = |ldflags: &str| {
            let ldflags = format!("-s -w {ldflags}");
            cmd!(
                build,
                "go install -trimpath -ldflags {ldflags} {package}@v{version}"
            )
        };
        let cmd = match &self.source {
            BuildSource::Install => install(""),
            BuildSource::InstallWith { version_variable } => {
                install(&format!("-X {version_variable}=v{version}"))
            }
            BuildSource::Module {
                go_mod,
                go_sum,
                ldflags,
            } => {
                fs::write(src.join("go.mod"), go_mod)?;
                fs::write(src.join("go.sum"), go_sum)?;
                let ldflags = format!("-s -w {}", ldflags.replace("{version}", &version));
                let file = bin.join(self.name);
                cmd!(
                    build,
                    "go build -C {src} -mod=readonly -trimpath -ldflags {ldflags} -o {file} {package}"
                )
            }
        };
        let output = process::run(&build, cmd, b"")?;
        if !output.success {
            say!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
            paths::remove_dir(&part)?;
            bail!("cannot build `{name}`: Go's messages stand above");
        }
        let says = probe(sh, self, &bin.join(self.name));
        ensure!(
            says == Some(self.version),
            "`{}` was built, but doesn't call itself {version}",
            self.name
        );
        fs::rename(&bin, &folder)
            .with_context(|| format!("cannot move `{name}` into its place"))?;
        paths::remove_dir(&part)?;
        say!(
            "{progress} {name}: built in {} s",
            started.elapsed().as_secs()
        );
        Ok(())
    }
}

impl Version {
    /// The first version number in a text: `Client Version: v1.34.4-gke.1` has 1.34.4.
    fn in_text(text: &str) -> Option<Version> {
        text.split(|it: char| !it.is_ascii_digit() && it != '.')
            .find_map(|word| {
                let mut numbers = word.split('.').map(str::parse);
                let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
                Some(Version(
                    major,
                    minor,
                    numbers.next().and_then(Result::ok).unwrap_or(0),
                ))
            })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}
