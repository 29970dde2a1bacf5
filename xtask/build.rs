//! Notes the commit that the program is built from, for `--version`.

use std::process::Command;

/// What `--version` is about. Cargo runs this again when one of them changes, and not for each commit of configuration.
const SOURCES: [&str; 3] = ["src", "build.rs", "Cargo.toml"];

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let commit = git(&["log", "-1", "--format=%h", "--abbrev=10", "--", "."]);
    let changes = git(&[
        "status",
        "--porcelain",
        "--",
        "src",
        "build.rs",
        "Cargo.toml",
    ]);
    let changed = if changes.is_some() { ", changed" } else { "" };
    let commit = commit.map(|it| format!(" ({it}{changed})"));
    println!(
        "cargo::rustc-env=XTASK_COMMIT={}",
        commit.unwrap_or_default()
    );
}

/// What git prints about this folder, if anything. A hook of git runs us with variables about another one.
#[allow(
    clippy::disallowed_methods,
    reason = "the library that starts programs isn't built yet"
)]
fn git(args: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    let output = command.args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
