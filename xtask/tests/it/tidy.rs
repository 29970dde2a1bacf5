//! Habits of this repository, and where a repository's root is found.

use std::fs;

use crate::repo::{Repo, workspace};

#[test]
fn the_root_is_given_or_found() {
    let repo = Repo::new();
    let unknown = |ran: crate::repo::Ran| {
        assert_eq!(ran.code, Some(1));
        ran.stderr
    };
    let there_are = "there are: `lake`, `river`";
    let below = repo.root.join("config/clusters/lake");
    let run = |command: &mut std::process::Command| unknown(command.spawn().unwrap().into());
    assert!(run(repo.command("deploy x").current_dir(&below)).contains(there_are));
    assert!(
        run(repo
            .command("deploy x")
            .current_dir("/")
            .env("XTASK_ROOT", &repo.root))
        .contains(there_are)
    );
    let root = format!("--root {} deploy x", repo.root.display());
    assert!(
        run(repo
            .command(&root)
            .current_dir("/")
            .env("XTASK_ROOT", "/nowhere"))
        .contains(there_are)
    );
    // Without any of these it's the checkout that the program was built from.
    assert!(run(repo.command("deploy x").current_dir("/")).contains("`local`"));
    let said = run(&mut repo.command("deploy x --root /tmp"));
    assert!(
        said.contains("the root `/tmp` has no `config/clusters/`"),
        "{said}"
    );
    // Clusters may lie deeper; templates aren't clusters.
    repo.write(
        "config/clusters/deeper/pool/cluster.yaml",
        "name: pool\nprovider: local\n",
    );
    repo.write(
        "config/clusters/templates/gcp/cluster.yaml",
        "{{ not yaml }}",
    );
    assert!(unknown(repo.run("deploy x")).contains("there are: `lake`, `pool`, `river`"));
}

#[test]
fn usage_errors_end_with_2() {
    let repo = Repo::new();
    for args in [
        "",
        "deploy",
        "deploy lake --timeout soon",
        "local sideways",
        "setup --check --print-path",
    ] {
        assert_eq!(repo.run(args).code, Some(2), "{args}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let repo = Repo::new();
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            &format!("{} setup --check 2>&1 | true", env!("CARGO_BIN_EXE_xtask")),
        ])
        .current_dir(&repo.root)
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
}

#[test]
fn the_readme_names_every_command_and_no_other() {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let help = Repo::new().ok("--help").stdout;
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands: Vec<_> = commands
        .lines()
        .take_while(|it| !it.is_empty())
        .filter(|it| it.starts_with("  ") && !it.starts_with("   "))
        .map(|it| it.split_whitespace().next().unwrap())
        .collect();
    assert!(commands.len() >= 4, "{commands:?}");
    for command in &commands {
        assert!(
            readme.contains(&format!("cargo xtask {command}")),
            "README.md doesn't name `{command}`"
        );
    }
    for named in readme.split("cargo xtask ").skip(1) {
        let word: String = named
            .chars()
            .take_while(|it| it.is_alphanumeric() || *it == '-')
            .collect();
        assert!(
            word.is_empty() || commands.contains(&word.as_str()),
            "README.md names `{word}`"
        );
    }
}

#[test]
fn the_table_of_programs_and_the_go_modules_name_one_version() {
    let check = Repo::new().ok("setup --check").stdout;
    let found = |program: &str| {
        let row = check
            .lines()
            .find(|it| it.starts_with(&format!("{program} ")))
            .unwrap();
        row.split_whitespace().nth(3).unwrap().to_owned()
    };
    let wanted = |module: &str, line: &str| {
        let text =
            fs::read_to_string(workspace().join(format!("xtask/tools/{module}/go.mod"))).unwrap();
        let line = text.lines().find_map(|it| {
            it.trim()
                .strip_prefix("require ")
                .unwrap_or(it.trim())
                .strip_prefix(line)
        });
        line.unwrap_or_else(|| panic!("{module}: no {line:?}"))
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        wanted("kubernetes", "k8s.io/kubernetes v"),
        found("kube-apiserver")
    );
    assert_eq!(wanted("etcd", "go.etcd.io/etcd/server/v3 v"), found("etcd"));
}
