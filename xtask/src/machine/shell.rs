//! A shell or command of the person's own, with a login.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use xshell::{Cmd, Shell, cmd};

use crate::machine::process::{self, Whose};

/// Environment variables for programs, by name. An empty one is removed from their environment.
pub(crate) type Env = BTreeMap<String, OsString>;

/// The variable with the place that a shell is logged in to, for prompts and for us.
pub(crate) const PLACE: &str = "XTASK_CLUSTER";

/// Runs a command with these variables in the person's own folder and terminal, or their `$SHELL` with a prompt that names
/// the place. Returns its exit status.
///
/// A single argument with blanks or other characters that shells interpret is a line for the shell. The files that the shell
/// reads at its start cannot change the variables. `folder` is a private one.
pub(crate) fn run(
    sh: &Shell,
    place: &str,
    env: &Env,
    folder: &Path,
    command: &[String],
) -> Result<ExitCode> {
    let mut env = env.clone();
    env.insert(PLACE.to_owned(), in_prompt(place).into());
    for (name, value) in &env {
        sh.set_var(name, value);
    }
    let shell = own_shell();
    let cmd = match command {
        [] => start(sh, &shell, None, &env, folder)?,
        [line] if is_line(line) => start(sh, &shell, Some(line), &env, folder)?,
        [program, args @ ..] => cmd!(sh, "{program} {args...}"),
    };
    process::in_front(sh, cmd, Whose::Theirs)
}

/// A place without what a shell would run when it shows its prompt.
fn in_prompt(place: &str) -> String {
    place.replace(is_special, "_")
}

fn is_special(char: char) -> bool {
    !char.is_alphanumeric() && !"._-@:/+".contains(char)
}

/// The shell that the person uses.
fn own_shell() -> OsString {
    let named = env::var_os("SHELL").filter(|it| !it.is_empty());
    named.unwrap_or_else(|| "/bin/sh".into())
}

/// Whether this is more than the name of a program.
fn is_line(command: &str) -> bool {
    command.contains(|it: char| it.is_whitespace() || "|&;<>()$`\\\"'*?[]#~=%!{}".contains(it))
}

/// The command that starts the shell, interactively or for a line. After it has read the person's own files it sets the
/// variables again.
fn start<'a>(
    sh: &'a Shell,
    shell: &OsString,
    line: Option<&String>,
    env: &Env,
    folder: &Path,
) -> Result<Cmd<'a>> {
    let name = Path::new(shell).file_name().and_then(OsStr::to_str);
    let name = name.unwrap_or_default();
    if let Some(line) = line
        && !["fish", "zsh"].contains(&name)
    {
        // It reads no files.
        return Ok(cmd!(sh, "{shell} -c {line}"));
    }
    for (name, value) in env {
        sh.set_var(kept(name), value);
    }
    let line: Vec<_> = line.into_iter().flat_map(|it| ["-c", it]).collect();
    Ok(match name {
        "bash" => {
            let rc = write_bashrc(env, folder)?;
            cmd!(sh, "{shell} --rcfile {rc}")
        }
        "zsh" => {
            prepare_zsh(sh, env, &folder.join("zsh"))?;
            cmd!(sh, "{shell} {line...}")
        }
        "fish" => {
            let lines = set_in_fish(env) + FISH;
            cmd!(sh, "{shell} --init-command {lines} {line...}")
        }
        _ => {
            sh.set_var("ENV", write_shrc(env, folder)?);
            cmd!(sh, "{shell}")
        }
    })
}

fn write_bashrc(env: &Env, folder: &Path) -> Result<PathBuf> {
    let rc = source("$HOME/.bashrc") + &set_finally(env) + BASH;
    write(folder, "bashrc", &rc)
}

/// What dash, ksh and others read.
fn write_shrc(env: &Env, folder: &Path) -> Result<PathBuf> {
    let own = env::var("ENV").map(|it| source(&it)).unwrap_or_default();
    let rc = own + &set_finally(env) + "PS1=\"($XTASK_CLUSTER) $PS1\"\n";
    write(folder, "shrc", &rc)
}

/// Has zsh read the files in `dir`, which read the person's own
/// (<https://zsh.sourceforge.io/Doc/Release/Files.html>).
fn prepare_zsh(sh: &Shell, env: &Env, dir: &Path) -> Result<()> {
    let home = env::home_dir().unwrap_or_default();
    let own = env::var_os("ZDOTDIR").unwrap_or_else(|| home.into());
    let back = "ZDOTDIR=$XTASK_ZDOTDIR\n";
    let zshenv = format!(
        "{back}{}XTASK_ZDOTDIR=$ZDOTDIR\n{}[[ -o interactive ]] && ZDOTDIR={}\n",
        source("$ZDOTDIR/.zshenv"),
        set_again(env),
        quoted(dir)
    );
    // /etc/zshrc of some systems keeps the history beside the file.
    let zshrc = format!(
        "[[ $HISTFILE == $ZDOTDIR/* ]] && HISTFILE=$XTASK_ZDOTDIR/.zsh_history\n{back}{}{}{ZSH}",
        source("$ZDOTDIR/.zshrc"),
        set_finally(env)
    );
    write(dir, ".zshenv", &zshenv)?;
    write(dir, ".zshrc", &zshrc)?;
    sh.set_var("XTASK_ZDOTDIR", own);
    sh.set_var("ZDOTDIR", dir);
    Ok(())
}

/// Prompts that are made anew for each line get the name of the place, too. The person's own `PROMPT_COMMAND` may be a list,
/// which bash has since 5.1, and may end in anything: ours is in a line of its own.
const BASH: &str = "\
_xtask_prompt() { case $PS1 in \"($XTASK_CLUSTER) \"*) ;; *) PS1=\"($XTASK_CLUSTER) $PS1\" ;; esac; }
if [[ $(declare -p PROMPT_COMMAND 2>/dev/null) == 'declare -a'* ]] && ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] > 500)); then
  PROMPT_COMMAND+=(_xtask_prompt)
else
  PROMPT_COMMAND+=$'\\n_xtask_prompt'
fi
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

/// The variable that keeps another one's value until the person's files are read: a secret may neither be in a file nor in
/// an argument.
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
        if value.is_empty() {
            lines += &format!("unset {name}\n");
        } else {
            lines += &format!("export {name}=\"${}\"\n", kept(name));
        }
    }
    lines
}

/// Lines that set the variables again and forget the kept values.
fn set_finally(env: &Env) -> String {
    let kept: Vec<_> = env.keys().map(|it| kept(it)).collect();
    format!("{}unset {}\n", set_again(env), kept.join(" "))
}

fn set_in_fish(env: &Env) -> String {
    let mut lines = String::new();
    for (name, value) in env {
        let kept = kept(name);
        if value.is_empty() {
            lines += &format!("set -e {name}\n");
        } else {
            lines += &format!("set -gx {name} ${kept}; set -e {kept}\n");
        }
    }
    lines
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
