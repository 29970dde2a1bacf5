//! Habits of this repository, and where a repository's root is found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

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
    assert!(
        run(repo
            .command("deploy x")
            .current_dir("/")
            .env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR")))
        .contains("`local`")
    );
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
            word.is_empty() || word.starts_with('-') || commands.contains(&word.as_str()),
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

/// The floors of the house, from the top down: see xtask/ARCHITECTURE.md.
const FLOORS: [&str; 11] = [
    "commands",
    "health",
    "kubernetes",
    "repository",
    "charts",
    "services",
    "schema",
    "secrets",
    "settings",
    "yaml",
    "machine",
];

#[test]
fn each_floor_knows_only_the_floors_below_it() {
    let imports = imports();
    assert!(imports.len() > 60, "{} modules", imports.len());
    let floor = |module: &str| {
        FLOORS
            .iter()
            .position(|it| Some(*it) == module.split("::").next())
    };
    let mut wrong = Vec::new();
    for (module, imported) in &imports {
        for it in imported {
            let is_up = floor(it) < floor(module);
            let is_other_command = floor(it) == Some(0) && command_of(it) != command_of(module);
            if is_up || is_other_command && module != "commands" {
                wrong.push(format!("{module} imports {it}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut left = imports();
    // What imports nothing that is left is in no circle.
    loop {
        let before = left.len();
        let names: BTreeSet<String> = left.keys().cloned().collect();
        left.retain(|_, imported| imported.iter().any(|it| names.contains(it)));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "in or above a circle: {left:#?}");
}

/// `deploy` for `commands::deploy::report`.
fn command_of(module: &str) -> Option<&str> {
    module.split("::").nth(1)
}

/// The modules of xtask/src, each with those that it declares, imports or names by their paths.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources();
    let module_of = |path: &str| {
        let steps: Vec<&str> = path.split("::").collect();
        (1..=steps.len())
            .rev()
            .map(|end| steps[..end].join("::"))
            .find(|it| sources.contains_key(it))
    };
    let mut imports = BTreeMap::new();
    for (module, text) in &sources {
        let declared = text.lines().filter_map(|line| {
            let name = line.split_once("mod ")?.1.strip_suffix(';')?;
            Some(format!("{module}::{name}"))
        });
        let mut named: BTreeSet<String> = declared.filter(|it| sources.contains_key(it)).collect();
        for (at, _) in text.match_indices("crate::") {
            let paths = leaves(&text[at + "crate::".len()..]);
            named.extend(paths.iter().filter_map(|it| module_of(it)));
        }
        assert!(
            !text.contains("super::"),
            "{module}: name modules from the crate, as `crate::…`"
        );
        named.remove(module);
        imports.insert(module.clone(), named);
    }
    imports
}

/// The texts of the modules by their paths, without comments.
fn sources() -> BTreeMap<String, String> {
    let src = workspace().join("xtask/src");
    let mut sources = BTreeMap::new();
    for file in rust_files(&src) {
        let path = file.strip_prefix(&src).unwrap().with_extension("");
        let module = path.to_str().unwrap().replace('/', "::");
        if !["lib", "main"].contains(&module.as_str()) {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.lines().filter(|it| !it.trim_start().starts_with("//"));
            sources.insert(module, code.collect::<Vec<_>>().join("\n"));
        }
    }
    sources
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
    files
}

/// The paths in a tree such as `a::{self, b::c}`.
fn leaves(tree: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut outer = vec![String::new()];
    let mut path = String::new();
    // In `c as d` nothing is read of ` as d`.
    let mut is_alias = false;
    for char in tree.chars() {
        match char {
            it if it.is_whitespace() => is_alias = !path.is_empty(),
            '{' => {
                let whole = outer.last().unwrap().clone() + &std::mem::take(&mut path);
                outer.push(whole);
            }
            ',' | '}' if outer.len() > 1 => {
                if !path.is_empty() {
                    found.push(outer.last().unwrap().clone() + &std::mem::take(&mut path));
                }
                is_alias = false;
                if char == '}' {
                    outer.pop();
                }
            }
            it if it.is_alphanumeric() || "_:".contains(it) => {
                if !is_alias {
                    path.push(it);
                }
            }
            _ => break,
        }
    }
    if !path.is_empty() {
        found.push(path);
    }
    found
}

#[test]
fn what_always_holds_is_so() {
    for (module, text) in sources() {
        let is_secrets = module.starts_with("secrets");
        assert!(
            is_secrets || !text.contains("cmd!(sh, \"sops"),
            "{module} runs sops"
        );
        let may_log_in = ["kubernetes::credentials", "kubernetes::rehearsal"];
        let sets = ["set_var(\"KUBECONFIG\"", ".set(\"KUBECONFIG\""];
        let is_login = may_log_in.iter().any(|it| module.starts_with(it));
        assert!(
            is_login || !sets.iter().any(|it| text.contains(it)),
            "{module} sets KUBECONFIG"
        );
    }
}

#[test]
fn the_core_files_are_there() {
    let settings = fs::read_to_string(workspace().join("xtask/src/settings.rs")).unwrap();
    let strings = settings.split('"');
    let core: Vec<_> = strings.filter_map(|it| it.strip_prefix("xtask/")).collect();
    assert_eq!(core.len(), 2, "{core:?}");
    for file in core {
        assert!(workspace().join("xtask").join(file).is_file(), "{file}");
    }
}
