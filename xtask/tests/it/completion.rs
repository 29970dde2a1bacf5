//! What the Tab key does in people's shells.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    repo::{Ran, Repo, run_by, wait_until},
    terminal::Terminal,
};

/// A Cargo workspace with a built deployer, and `xtask` on PATH as well.
fn workspace() -> Repo {
    let mut repo = Repo::new();
    repo.write("Cargo.lock", "");
    let program = env!("CARGO_BIN_EXE_xtask");
    for folder in ["target/debug", "bin"] {
        let folder = repo.root.join(folder);
        fs::create_dir_all(&folder).unwrap();
        symlink(program, folder.join("xtask")).unwrap();
    }
    let path = env::var("PATH").unwrap();
    // Without rustup, which would look for toolchains in this home.
    let of_rust = sysroot().join("bin");
    let bin = repo.root.join("bin");
    let path = format!("{}:{}:{path}", bin.display(), of_rust.display());
    repo.env.push(("PATH".into(), path));
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "provider: kubeconfig",
        "support: {helm_chart_values_files: []}\nprovider: kubeconfig",
    );
    repo
}

/// One of the shells with its completion installed, in this folder of the repository.
fn start(repo: &mut Repo, shell: &str, folder: &str) -> Terminal {
    repo.env.retain(|(it, _)| it != "SHELL");
    repo.env.push(("SHELL".into(), format!("/usr/bin/{shell}")));
    files_of_cargo(repo);
    repo.ok("--install-completion");
    let terminal = Terminal::start(repo, &format!("cd ./{folder}; exec {shell}"));
    terminal.types(&["echo it is 'u'p", "Enter"]);
    terminal.shows("it is up");
    terminal
}

/// What a person's start-up files have, so that cargo's own completion is there: as bash-completion loads it when it is
/// needed, and on zsh's path. fish has its own.
fn files_of_cargo(repo: &Repo) {
    let of_cargo = sysroot().join("etc/bash_completion.d/cargo");
    let bashrc = format!(
        "_get_comp_words_by_ref() {{ words=(\"${{COMP_WORDS[@]}}\"); cword=$COMP_CWORD; cur=${{words[cword]}}; \
         prev=${{words[cword-1]}}; }}\n_completion_loader() {{ . {}; return 124; }}\n",
        of_cargo.display()
    );
    let functions = sysroot().join("share/zsh/site-functions");
    let zshrc = format!("fpath=({} $fpath)\n", functions.display());
    fs::write(repo.home().join(".bashrc"), bashrc).unwrap();
    fs::write(repo.home().join(".zshrc"), zshrc).unwrap();
}

fn sysroot() -> PathBuf {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let printed = String::from_utf8(output.unwrap().stdout).unwrap();
    PathBuf::from(printed.trim())
}

/// Types on an empty line, and presses Tab.
fn completes(terminal: &Terminal, typed: &str, to: &str) {
    terminal.types(&["C-u"]);
    wait_until("the empty line", || !terminal.screen().contains('!'));
    terminal.types(&["-l", typed]);
    terminal.types(&["Tab"]);
    // A blank follows what is complete.
    terminal.types(&["-l", "!"]);
    terminal.shows(&format!("{to}!"));
}

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

#[test]
fn each_shell_completes_commands_options_and_names() {
    let mut repo = workspace();
    for shell in SHELLS {
        let terminal = start(&mut repo, shell, "helm-charts");
        let completes = |typed: &str, to: &str| completes(&terminal, typed, to);
        completes("cargo xtask rollb", "cargo xtask rollback ");
        completes("cargo +stable xtask deploy riv", "deploy river ");
        completes("cargo xtask deploy lake sta", "deploy lake staging ");
        completes("cargo xtask rollback lake supp", "lake support ");
        completes("cargo xtask deploy lake --skip-unch", "--skip-unchanged ");
        completes("cargo xtask status --format js", "--format json ");
        completes("cargo xtask status --format=js", "--format=json ");
        completes(
            "xtask exec debug component-logs lake staging prox",
            "proxy ",
        );
        completes("xtask exec she", "xtask exec shell ");
    }
}

#[test]
fn cargos_own_completion_keeps_working() {
    let mut repo = workspace();
    for shell in SHELLS {
        let terminal = start(&mut repo, shell, ".");
        completes(&terminal, "cargo metad", "cargo metadata ");
        completes(&terminal, "cargo xtask rollb", "cargo xtask rollback ");
        completes(&terminal, "cargo metad", "cargo metadata ");
    }
}

#[test]
fn nothing_is_offered_without_a_built_program() {
    let mut repo = workspace();
    fs::remove_dir_all(repo.root.join("target")).unwrap();
    for shell in SHELLS {
        let terminal = start(&mut repo, shell, ".");
        completes(&terminal, "cargo xtask deploy la", "cargo xtask deploy la");
        completes(&terminal, "cargo xtask deploy conf", "deploy conf");
        completes(&terminal, "xtask deploy la", "xtask deploy lake ");
    }
}

#[test]
fn installing_again_changes_nothing() {
    let mut repo = workspace();
    for (shell, startup) in [("bash", ".bashrc"), ("zsh", ".zshrc")] {
        drop(start(&mut repo, shell, "."));
        let text = fs::read_to_string(repo.home().join(startup)).unwrap();
        let ran = repo.ok(&format!("--install-completion {shell}"));
        assert!(
            ran.stderr.contains("has the line that reads it"),
            "{}",
            ran.stderr
        );
        assert_eq!(fs::read_to_string(repo.home().join(startup)).unwrap(), text);
        assert_eq!(text.matches("source ").count(), 1, "{text}");
    }
}

/// Its last line may lack an end, and the file may be a link into somebody's own repository.
#[test]
fn a_startup_file_keeps_what_it_has() {
    let repo = Repo::new();
    let file = repo.home().join("dotfiles");
    fs::write(&file, "alias a=b").unwrap();
    symlink(&file, repo.home().join(".bashrc")).unwrap();
    let ran = repo.ok("--install-completion bash");
    let script = repo
        .home()
        .join(".local/share/bash-completion/completions/xtask");
    let line = format!("source '{}'", script.display());
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!("alias a=b\n{line}\n")
    );
    assert!(
        ran.stderr.ends_with(&format!("present one:\n  {line}\n")),
        "{}",
        ran.stderr
    );
    assert_eq!(
        fs::read_to_string(&script).unwrap(),
        repo.ok("--show-completion bash").stdout
    );
}

/// No PowerShell can be had here that would run it.
#[test]
fn powershell_gets_a_line_in_its_profile() {
    let repo = Repo::new();
    let pwsh = repo.ok("--show-completion pwsh").stdout;
    assert_eq!(pwsh, repo.ok("--show-completion powershell").stdout);
    repo.ok("--install-completion pwsh");
    let profile = repo.home().join(".config/powershell/profile.ps1");
    let script = repo.home().join(".local/share/xtask/completion.ps1");
    assert_eq!(
        fs::read_to_string(profile).unwrap(),
        format!(". '{}'\n", script.display())
    );
    assert_eq!(fs::read_to_string(script).unwrap(), pwsh);
}

#[test]
fn the_shell_is_the_one_that_called_us() {
    let repo = Repo::new();
    let script = |shell: &str| repo.ok(&format!("--show-completion {shell}")).stdout;
    let inner = repo.command("--show-completion");
    for shell in ["bash", "zsh", "fish"] {
        let mut outer = Command::new(shell);
        // With a command after it, so that the shell is still there.
        outer.args(["-c", "$argv[1] --show-completion; true"]);
        if shell != "fish" {
            outer = Command::new(shell);
            outer.args(["-c", "\"$0\" \"$@\"; true"]);
        }
        outer.stdin(Stdio::null());
        outer.stdout(Stdio::piped());
        let ran = Ran::from(run_by(outer, &inner).spawn().unwrap());
        assert_eq!(ran.stdout, script(shell), "{shell}");
    }
}

/// What follows these words, of which the last one may be empty.
fn offered(repo: &Repo, words: &[&str]) -> Vec<String> {
    let mut command = repo.command("complete --");
    let ran = Ran::from(command.args(words).spawn().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{words:?}");
    let values = ran.stdout.lines().map(|it| it.split('\t').next().unwrap());
    values.map(str::to_owned).collect()
}

#[test]
fn a_broken_cluster_yaml_stops_no_other_name() {
    let repo = Repo::new();
    repo.write("config/clusters/mud/cluster.yaml", "hubs: [\n");
    assert_eq!(offered(&repo, &["deploy", ""]), ["lake", "mud", "river"]);
    assert_eq!(offered(&repo, &["deploy", "lake", "st"]), ["staging"]);
    assert_eq!(
        offered(&repo, &["deploy", "mud", "s"]),
        Vec::<String>::new()
    );
    assert_eq!(
        offered(&repo, &["deploy", "puddle", "s"]),
        Vec::<String>::new()
    );
    // What a shell would take for more than a name is none.
    repo.write(
        "config/clusters/mud/cluster.yaml",
        "hubs: [{name: $(date)}, {name: fine}]\n",
    );
    assert_eq!(offered(&repo, &["deploy", "mud", ""]), ["fine"]);
}

#[test]
fn names_that_were_typed_are_not_offered_again() {
    let repo = Repo::new();
    let all = offered(&repo, &["deploy", "lake", ""]);
    assert!(all.contains(&"staging".to_owned()), "{all:?}");
    let rest = offered(&repo, &["deploy", "lake", "staging", ""]);
    assert_eq!(rest.len(), all.len() - 1, "{rest:?}");
    let after_root = offered(
        &repo,
        &["--root", ".", "deploy", "lake", "--jobs", "2", "stag"],
    );
    assert_eq!(after_root, ["staging"]);
    assert_eq!(
        offered(&repo, &["--root", "/", "deploy", "l"]),
        Vec::<String>::new()
    );
}

#[test]
fn hidden_commands_and_aliases_are_not_offered() {
    let repo = Repo::new();
    for word in ["gith", "generate-", "complet"] {
        assert_eq!(offered(&repo, &[word]), Vec::<String>::new());
    }
    assert_eq!(
        offered(&repo, &["deploy", "lake", "--skip-hub"]),
        ["--skip-hub-health-check"]
    );
    // Options are offered to who asks for them.
    assert!(
        offered(&repo, &["deploy", ""])
            .iter()
            .all(|it| !it.starts_with('-'))
    );
}

#[test]
fn files_are_offered_where_a_file_is_wanted() {
    let repo = Repo::new();
    let words = ["decrypt-age", "--encrypted-file-path", "config/cl"];
    assert_eq!(offered(&repo, &words), ["config/clusters/"]);
}

#[test]
fn a_tab_press_takes_30_ms_at_most_on_26_clusters() {
    let repo = Repo::new();
    for number in 0..24 {
        let cluster = format!("config/clusters/pond-{number}/cluster.yaml");
        repo.write(&cluster, &repo.read("config/clusters/lake/cluster.yaml"));
    }
    let quickest = (0..10).map(|_| processor_time(&repo)).min().unwrap();
    assert!(quickest <= 30, "{quickest} ms");
    assert_eq!(offered(&repo, &["deploy", ""]).len(), 26);
}

/// Of a Tab press, in milliseconds: other tests want the processors as well.
fn processor_time(repo: &Repo) -> u32 {
    let mut bash = Command::new("bash");
    let line = "TIMEFORMAT='%3U %3S'; time \"$0\" \"$@\" deploy pond-7 stag";
    bash.args(["-c", line]).stderr(Stdio::piped());
    let ran = Ran::from(run_by(bash, &repo.command("complete --")).spawn().unwrap());
    let times = ran.stderr.split_whitespace();
    times
        .map(|it| it.replace('.', "").parse::<u32>().unwrap())
        .sum()
}
