//! Shells and commands that are logged in to a cluster.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::Stdio,
};

use crate::{
    login::{amazon, aws},
    repo::{Ran, Repo, Shared, command_lines, executable, wait_until},
    terminal::Terminal,
    upstream::free_address,
};

/// Files that would lead each shell elsewhere, if what they say counted; `prompt` sets the prompt anew for each line.
fn with_files_of_their_own(repo: &Repo) {
    let posix =
        "export KUBECONFIG=/theirs AWS_PROFILE=theirs HELM_NAMESPACE=theirs\nwas_read=yes\n";
    let write = |file: &str, text: &str| {
        let file = repo.home().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write(
        ".bashrc",
        &format!("{posix}PROMPT_COMMAND='PS1=\"mine> \"'\n"),
    );
    write(".zshenv", posix);
    write(
        ".zshrc",
        &format!("{posix}PS1='mine> '\nHISTFILE=~/.history\nSAVEHIST=10\n"),
    );
    write(
        ".config/fish/config.fish",
        "set -gx KUBECONFIG /theirs\nset -gx HELM_NAMESPACE theirs\nset -g was_read yes\n\
         function fish_prompt; echo -n 'mine> '; end\nfunction fish_greeting; end\n",
    );
    write(".shrc", &format!("{posix}PS1='mine> '\n"));
}

#[test]
fn each_shell_is_logged_in() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["shells"]);
    with_files_of_their_own(&repo);
    repo.env.push(("ENV".into(), "$HOME/.shrc".into()));
    repo.env.push(("SHELL".into(), String::new()));
    for shell in ["bash", "zsh", "fish", "dash"] {
        repo.env.last_mut().unwrap().1 = format!("/usr/bin/{shell}");
        let terminal = Terminal::start(&repo, "xtask use-cluster-credentials lake\necho status $?");
        terminal.shows("(lake) mine>");
        // In a file, since a screen folds long lines.
        let out = repo.cache().join(shell);
        let is_zsh = if shell == "zsh" {
            "; echo $HISTFILE $ZDOTDIR"
        } else {
            ""
        };
        let line = format!(
            "begin; kubectl get namespace kube-system -o name; echo $KUBECONFIG; env | grep -E '^(_XTASK|HELM_NAMESPACE)'; \
             pwd; echo $was_read{is_zsh}; end > {0}.part; mv {0}.part {0}",
            out.display()
        );
        let line = if shell == "fish" {
            line
        } else {
            line.replace("begin;", "{").replace("end >", "} >")
        };
        terminal.types(&[&line, "Enter"]);
        wait_until("the answer", || out.exists());
        let said = fs::read_to_string(&out).unwrap();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[0], "namespace/kube-system", "{shell}: {said}");
        let folder = Path::new(lines[1]).parent().unwrap().to_owned();
        assert!(lines[1].contains("/login-"), "{shell}: {said}");
        assert_eq!(
            lines[2..4],
            [repo.root.to_str().unwrap(), "yes"],
            "{shell}: {said}"
        );
        if shell == "zsh" {
            assert_eq!(
                lines[4..],
                [format!("{}/.history", repo.home().display())],
                "{said}"
            );
        }

        // Ctrl-C ends what runs in it, not the shell; a context can be set.
        let sleep = format!("sleep 100.{}", std::process::id());
        terminal.types(&[&sleep, "Enter"]);
        wait_until("sleep", || {
            command_lines().iter().any(|(_, it)| it.trim_end() == sleep)
        });
        terminal.types(&["C-c"]);
        // What was typed before it is thrown away.
        terminal.shows("^C");
        terminal.types(&[
            "kubectl config set-context --current --namespace kube-system",
            "Enter",
        ]);
        terminal.shows("modified.");
        terminal.types(&["exit 7", "Enter"]);
        terminal.shows("status 7");
        assert!(!folder.exists(), "{shell}");
    }
}

#[test]
fn every_prompt_command_goes_on() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["prompts"]);
    repo.env.push(("SHELL".into(), "/usr/bin/bash".into()));
    let own = [
        "PROMPT_COMMAND='own;'",
        "PROMPT_COMMAND='own; '",
        "PROMPT_COMMAND=' '",
        "PROMPT_COMMAND=",
        "PROMPT_COMMAND='own # really'",
        "PROMPT_COMMAND=(true own)",
        "PROMPT_COMMAND=()",
    ];
    for own in own {
        let rc = format!("own() {{ PS1='mine> '; }}\nown\n{own}\n");
        fs::write(repo.home().join(".bashrc"), rc).unwrap();
        let terminal = Terminal::start(&repo, "xtask use-cluster-credentials lake");
        terminal.shows("(lake) mine>");
        terminal.types(&["echo on", "Enter"]);
        terminal.shows("\non\n(lake) mine>");
        assert!(
            !terminal.screen().contains("bash:"),
            "{own}: {}",
            terminal.screen()
        );
    }
}

/// A repository whose person has the shell `sh`.
fn with_sh(cluster: &Shared) -> Repo {
    let mut repo = Repo::on(cluster, &["commands"]);
    repo.env.push(("SHELL".into(), "/bin/sh".into()));
    repo
}

#[test]
fn commands_and_lines() {
    let cluster = Shared::cluster();
    let repo = with_sh(&cluster);
    let run = |args: &[&str]| -> Ran {
        repo.command("use-cluster-credentials lake")
            .args(args)
            .spawn()
            .unwrap()
            .into()
    };
    // A line for the shell, a program and its arguments, one of them by itself.
    let line = run(&["echo $XTASK_CLUSTER | tr a-z A-Z; exit 3"]);
    assert_eq!((line.code, line.stdout.as_str()), (Some(3), "LAKE\n"));
    assert_eq!(
        run(&["echo", "$XTASK_CLUSTER", "a b"]).stdout,
        "$XTASK_CLUSTER a b\n"
    );
    assert_eq!(run(&["sh", "-c", "exit 200"]).code, Some(200));
    assert_eq!(run(&["sh", "-c", "kill -9 $$"]).code, Some(137));
    assert_eq!(run(&["pwd"]).stdout, format!("{}\n", repo.root.display()));
    assert_eq!(run(&["echo", "--nested"]).stdout, "--nested\n");
    let said = run(&["no-such-program"]);
    assert!(
        said.stderr.contains("cannot run `no-such-program`"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_command_has_our_stdin_and_our_folder() {
    let cluster = Shared::cluster();
    let repo = with_sh(&cluster);
    let folder = repo.root.join("helm-charts");
    let mut command = repo.command("use-cluster-credentials lake");
    command
        .arg("pwd && cat")
        .current_dir(&folder)
        .stdin(fs::File::open("/proc/version").unwrap());
    let ran = Ran::from(command.spawn().unwrap());
    assert!(
        ran.stdout
            .starts_with(&format!("{}\nLinux", folder.display())),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
}

#[test]
fn a_command_gets_our_signals() {
    let cluster = Shared::cluster();
    let repo = with_sh(&cluster);
    let script = repo.cache().join("signals");
    executable(
        &script,
        "trap 'echo got TERM; exit 9' TERM; trap 'echo got INT; exit 8' INT; echo on; while :; do sleep 0.05; done",
    );
    for (signal, code) in [("TERM", 9), ("INT", 8)] {
        let mut child = repo.start(&format!(
            "use-cluster-credentials lake {}",
            script.display()
        ));
        let mut output = child.stdout.take().unwrap();
        let mut seen = [0; 3];
        output.read_exact(&mut seen).unwrap();
        crate::stop::signal(&child, signal);
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(
            (rest, child.wait().unwrap().code()),
            (format!("got {signal}\n"), Some(code))
        );
    }
}

/// Unless it says `--nested`.
#[test]
fn no_command_in_another_clusters_shell() {
    let cluster = Shared::cluster();
    let mut repo = with_sh(&cluster);
    repo.env.push(("XTASK_CLUSTER".into(), "sea".into()));
    let said = repo.fails("use-cluster-credentials lake true");
    assert!(
        said.contains("this shell is logged in to `sea` already\n\nhint: leave it first"),
        "{said}"
    );
    repo.ok("use-cluster-credentials --nested lake true");
    repo.env.last_mut().unwrap().1 = "lake".into();
    repo.ok("use-cluster-credentials lake true");
    assert!(
        repo.fails("use-cluster-credentials puddle true")
            .contains("there is no cluster `puddle`")
    );
}

#[test]
fn aws_with_a_second_factor() {
    let mut repo = Repo::new();
    let (address, asked) = (free_address(), repo.cache().join("asked"));
    let _amazon = amazon(&address, "", "", true);
    repo.script(
        "aws",
        &format!("echo \"$*\" >> {}\n{}", asked.display(), aws()),
    );
    repo.env
        .push(("AWS_ENDPOINT_URL".into(), format!("http://{address}")));
    repo.env.push(("SHELL".into(), "/bin/sh".into()));
    fs::create_dir_all(repo.home().join(".aws")).unwrap();
    fs::write(
        repo.home().join(".aws/config"),
        "[profile lake]\nregion = us-west-2\n",
    )
    .unwrap();
    fs::write(
        repo.home().join(".aws/credentials"),
        "[lake]\naws_access_key_id = ann\naws_secret_access_key = key\n",
    )
    .unwrap();
    // A zero in front is part of the code.
    let mut child = repo
        .command("exec shell aws lake arn:aws:iam::1:mfa/ann 012345")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let line = "echo $AWS_PROFILE $AWS_ACCESS_KEY_ID $AWS_SESSION_TOKEN; aws configure get region; exit 4\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    let ran = Ran::from(child);
    let (whose, region) = ran.stdout.split_once('\n').unwrap();
    assert_eq!(
        (ran.code, region),
        (Some(4), "us-west-2\n"),
        "{}",
        ran.stderr
    );
    let whose: Vec<_> = whose.split(' ').collect();
    assert!(
        whose[0] == "lake" && whose[1].starts_with("AKIA") && whose[2].len() > 20,
        "{whose:?}"
    );
    assert!(
        ran.stderr
            .starts_with("logged in to AWS as `lake` until 20"),
        "{}",
        ran.stderr
    );
    let asked = fs::read_to_string(asked).unwrap();
    let first = "sts get-session-token --serial-number arn:aws:iam::1:mfa/ann --token-code 012345 --profile lake";
    assert!(asked.starts_with(first), "{asked}");

    let said = repo.fails("exec shell aws sea arn:aws:iam::1:mfa/ann 012345");
    assert!(
        said.contains("The config profile (sea) could not be found"),
        "{said}"
    );
    assert!(said.contains("\nhint: each code is good once"), "{said}");
}
