//! A person's terminal, by tmux.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::repo::{Repo, assert_succeeded};

/// A terminal as long as this lives.
pub(crate) struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Runs lines of a shell script in the repository, with the environment that its programs get; `xtask` is ours.
    pub(crate) fn start(repo: &Repo, lines: &str) -> Terminal {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("tmux-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let terminal = Terminal {
            socket: repo.cache().join(name),
        };
        let command = repo.command("");
        let variables = command
            .get_envs()
            .filter_map(|(name, value)| Some(format!("{}='{}'", name.to_str()?, value?.to_str()?)));
        let variables: Vec<_> = variables.filter(|it| !it.starts_with("TERM=")).collect();
        let script = repo.cache().join("terminal.sh");
        let program = command.get_program().display();
        let lines = format!("xtask() {{ {program} \"$@\"; }}\n{lines}\nsleep 60\n");
        fs::write(&script, lines).unwrap();
        let start = format!(
            "cd {} && exec env -i TERM=screen {} sh {}",
            repo.root.display(),
            variables.join(" "),
            script.display()
        );
        terminal.tmux(&["new-session", "-d", "-x", "120", "-y", "40", &start]);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command
            .arg("-S")
            .arg(&self.socket)
            .args(args)
            .env_remove("TMUX")
            .env_remove("CI");
        let output = command.output().expect("tmux is there");
        assert_succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen with the codes of its colours.
    fn coloured_screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Types a line, or another key by its name.
    pub(crate) fn types(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Waits until this is to be seen; lines end with their last letter.
    pub(crate) fn shows(&self, text: &str) {
        let until = Instant::now() + Duration::from_secs(120);
        while !self.screen().contains(text) {
            assert!(Instant::now() < until, "no {text:?} on\n{}", self.screen());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .arg("-S")
            .arg(&self.socket)
            .arg("kill-server")
            .output();
    }
}

const RED: &str = "\x1b[31merror:";

#[test]
fn words_are_coloured_where_a_person_sees_them() {
    let lines =
        |variables: &str| format!("unset CI CLICOLOR; {variables} xtask deploy nowhere\necho done");
    for (variables, is_coloured) in [
        ("", true),
        ("NO_COLOR=1", false),
        ("CLICOLOR=0", false),
        ("TERM=dumb", false),
        ("CI=true", false),
        ("CI=true CLICOLOR_FORCE=1", true),
    ] {
        let repo = Repo::new();
        let terminal = Terminal::start(&repo, &lines(variables));
        terminal.shows("done");
        let screen = terminal.coloured_screen();
        assert_eq!(screen.contains(RED), is_coloured, "{variables}: {screen:?}");
    }
}

#[test]
fn words_in_a_pipe_are_plain() {
    let mut repo = Repo::new();
    repo.env.push(("TERM".into(), "screen".into()));
    assert!(!repo.fails("deploy nowhere").contains('\x1b'));
    repo.env.push(("CLICOLOR_FORCE".into(), "1".into()));
    assert!(repo.fails("deploy nowhere").contains(RED));
    assert!(repo.run("deploy").stderr.contains(RED));
    repo.env.push(("NO_COLOR".into(), "1".into()));
    assert!(!repo.fails("deploy nowhere").contains('\x1b'));
}
