//! A shell or command of the person's own, logged in somewhere.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::machine::process::{self, Whose};

/// Environment variables for programs, by name; an empty one is taken away.
pub(crate) type Env = BTreeMap<String, OsString>;

/// Names the place that a shell is logged in to, for prompts and for us.
pub(crate) const PLACE: &str = "XTASK_CLUSTER";

/// Runs a command in the person's folder and terminal with these variables, or their `$SHELL` with a prompt that names
/// the place: the exit status. One argument that no program is called is for the shell. What the shell reads at its start
/// changes none of the variables. `folder` is a private one.
pub(crate) fn run(
    sh: &Shell,
    place: &str,
    env: &Env,
    folder: &Path,
    command: &[String],
) -> Result<ExitCode> {
    let mut env = env.clone();
    env.insert(PLACE.to_owned(), place.into());
    env.iter().for_each(|(name, value)| sh.set_var(name, value));
    let shell = env::var_os("SHELL")
        .filter(|it| !it.is_empty())
        .unwrap_or_else(|| "/bin/sh".into());
    let is_for_shell = |it: &str| {
        it.contains(|it: char| it.is_whitespace() || "|&;<>()$`\\\"'*?[]#~=%!{}".contains(it))
    };
    let cmd = match command {
        [] => start(sh, &shell, None, &env, folder)?,
        [line] if is_for_shell(line) => start(sh, &shell, Some(line), &env, folder)?,
        [program, args @ ..] => cmd!(sh, "{program} {args...}"),
    };
    process::in_front(sh, cmd, Whose::Theirs)
}

/// The shell, told what to do after it has read the person's own files, for a line or for a person.
fn start<'a>(
    sh: &'a Shell,
    shell: &OsString,
    line: Option<&String>,
    env: &Env,
    folder: &Path,
) -> Result<xshell::Cmd<'a>> {
    let name = Path::new(shell)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let line: Vec<_> = line.into_iter().flat_map(|it| ["-c", it]).collect();
    if !line.is_empty() && !["fish", "zsh"].contains(&name.as_str()) {
        // It reads no files.
        return Ok(cmd!(sh, "{shell} {line...}"));
    }
    for (name, value) in env {
        sh.set_var(kept(name), value);
    }
    let home = env::home_dir().unwrap_or_default();
    Ok(match name.as_str() {
        "bash" => {
            let rc = write(
                folder,
                "bashrc",
                &(source("$HOME/.bashrc") + &restored(env) + BASH),
            )?;
            cmd!(sh, "{shell} --rcfile {rc}")
        }
        "zsh" => {
            let own = env::var_os("ZDOTDIR").unwrap_or_else(|| home.into());
            let dir = folder.join("zsh");
            let back = "ZDOTDIR=$XTASK_ZDOTDIR\n";
            let zshenv = format!(
                "{back}{}XTASK_ZDOTDIR=$ZDOTDIR\n{}[[ -o interactive ]] && ZDOTDIR={}\n",
                source("$ZDOTDIR/.zshenv"),
                set_again(env),
                quoted(&dir)
            );
            // /etc/zshrc of some systems keeps the history beside the file.
            let zshrc = format!(
                "[[ $HISTFILE == $ZDOTDIR/* ]] && HISTFILE=$XTASK_ZDOTDIR/.zsh_history\n{back}{}{}{ZSH}",
                source("$ZDOTDIR/.zshrc"),
                restored(env)
            );
            write(&dir, ".zshenv", &zshenv)?;
            write(&dir, ".zshrc", &zshrc)?;
            sh.set_var("XTASK_ZDOTDIR", own);
            sh.set_var("ZDOTDIR", dir);
            cmd!(sh, "{shell} {line...}")
        }
        "fish" => {
            let mut lines = String::new();
            for (name, value) in env {
                let kept = kept(name);
                let _ = match value.is_empty() {
                    true => writeln!(lines, "set -e {name}"),
                    false => writeln!(lines, "set -gx {name} ${kept}; set -e {kept}"),
                };
            }
            lines += FISH;
            cmd!(sh, "{shell} --init-command {lines} {line...}")
        }
        // What dash, ksh and others read.
        _ => {
            let own = env::var("ENV").map(|it| source(&it)).unwrap_or_default();
            let rc = write(
                folder,
                "shrc",
                &(own + &restored(env) + "PS1=\"($XTASK_CLUSTER) $PS1\"\n"),
            )?;
            sh.set_var("ENV", rc);
            cmd!(sh, "{shell}")
        }
    })
}

/// Prompts that are made anew for each line get the name, too.
const BASH: &str = "\
_xtask_prompt() { case $PS1 in \"($XTASK_CLUSTER) \"*) ;; *) PS1=\"($XTASK_CLUSTER) $PS1\" ;; esac; }
PROMPT_COMMAND=\"${PROMPT_COMMAND:+$PROMPT_COMMAND; }_xtask_prompt\"
";

const ZSH: &str = "\
_xtask_prompt() { case $PS1 in \"($XTASK_CLUSTER) \"*) ;; *) PS1=\"($XTASK_CLUSTER) $PS1\" ;; esac; }
precmd_functions+=(_xtask_prompt)
[[ $ZDOTDIR == $HOME ]] && unset ZDOTDIR
unset XTASK_ZDOTDIR
";

const FISH: &str = "\
functions -q fish_prompt; and functions -c fish_prompt _xtask_prompt
function fish_prompt; echo -n \"($XTASK_CLUSTER) \"; functions -q _xtask_prompt; and _xtask_prompt; end
";

/// Where a variable's value waits until the person's files are read: nothing of it may stand in a file or an argument.
fn kept(name: &str) -> String {
    format!("_XTASK_{name}")
}

fn source(file: &str) -> String {
    format!("[ -f \"{file}\" ] && . \"{file}\"\n")
}

/// Lines for a POSIX shell that set the variables again.
fn set_again(env: &Env) -> String {
    let mut lines = String::new();
    for (name, value) in env {
        let _ = match value.is_empty() {
            true => writeln!(lines, "unset {name}"),
            false => writeln!(lines, "export {name}=\"${}\"", kept(name)),
        };
    }
    lines
}

/// The same for the last time.
fn restored(env: &Env) -> String {
    let kept: Vec<_> = env.keys().map(|it| kept(it)).collect();
    format!("{}unset {}\n", set_again(env), kept.join(" "))
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = dir.join(name);
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&file, text))
        .with_context(|| format!("cannot write `{}`", file.display()))?;
    Ok(file)
}
