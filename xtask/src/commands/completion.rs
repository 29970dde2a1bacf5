//! Completion in people's shells. A shell's function asks the built program what may follow the words on its command line.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, ValueEnum};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use crate::{
    machine::{paths, terminal, tree::Tree},
    repository::cluster_yaml,
};

/// Options that are given in place of a command.
#[derive(clap::Args)]
#[group(multiple = false)]
pub struct Completion {
    /// Have your shell complete `cargo xtask` and `xtask` with the Tab key [default: the shell that you use]
    #[arg(long, value_name = "SHELL", num_args = 0..=1, display_order = 101)]
    install_completion: Option<Option<Shell>>,
    /// Print what `--install-completion` installs
    #[arg(long, value_name = "SHELL", num_args = 0..=1, display_order = 101)]
    show_completion: Option<Option<Shell>>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    #[value(alias = "pwsh")]
    Powershell,
}

/// Prints what may be typed next, for a shell: one on each line, with a tab and its help
#[derive(clap::Args)]
pub struct Complete {
    /// The words after the program's name up to the cursor; the last one may be empty
    #[arg(last = true)]
    words: Vec<OsString>,
}

/// Installs or prints a shell's part. Returns none if neither was asked for.
pub fn completion(args: &Completion) -> Result<Option<ExitCode>> {
    if let Some(shell) = args.show_completion {
        terminal::print(chosen(shell)?.script())?;
    } else if let Some(shell) = args.install_completion {
        chosen(shell)?.install()?;
    } else {
        return Ok(None);
    }
    Ok(Some(ExitCode::SUCCESS))
}

/// The shell that was named, else the one that the person uses.
fn chosen(named: Option<Shell>) -> Result<Shell> {
    let shell = named.or_else(|| Shell::called(&env::var_os("SHELL")?));
    shell.or_else(running_shell).context(
        "cannot tell which shell you use: neither `SHELL` nor the program that called this is bash, zsh, fish or powershell\n\
         hint: name it, as in `--install-completion bash`",
    )
}

/// The nearest shell among the processes that called us, where /proc shows them.
fn running_shell() -> Option<Shell> {
    let mut pid = std::os::unix::process::parent_id();
    while pid > 1 {
        let folder = Path::new("/proc").join(pid.to_string());
        let program = fs::read_link(folder.join("exe")).ok()?;
        if let Some(shell) = Shell::called(&program.into_os_string()) {
            return Some(shell);
        }
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let parent = status.lines().find_map(|it| it.strip_prefix("PPid:"))?;
        pid = parent.trim().parse().ok()?;
    }
    None
}

impl Shell {
    /// The shell whose program this is.
    fn called(program: &OsString) -> Option<Shell> {
        let name = Path::new(program).file_name()?.to_str()?;
        Shell::from_str(name, false).ok()
    }

    fn name(self) -> &'static str {
        match self {
            Shell::Bash => "bash",
            Shell::Zsh => "zsh",
            Shell::Fish => "fish",
            Shell::Powershell => "powershell",
        }
    }

    fn script(self) -> &'static str {
        match self {
            Shell::Bash => concat!(
                include_str!("completion/bash.sh"),
                "\n",
                include_str!("completion/built.sh")
            ),
            Shell::Zsh => concat!(
                include_str!("completion/zsh.sh"),
                "\n",
                include_str!("completion/built.sh")
            ),
            Shell::Fish => include_str!("completion/fish.fish"),
            Shell::Powershell => include_str!("completion/powershell.ps1"),
        }
    }

    /// The file for the script. bash-completion and fish read it there by themselves.
    fn file(self) -> Result<PathBuf> {
        Ok(match self {
            Shell::Bash => {
                let own = env::var_os("BASH_COMPLETION_USER_DIR").filter(|it| !it.is_empty());
                let folder = match own {
                    Some(folder) => PathBuf::from(folder),
                    None => folder_of("XDG_DATA_HOME", ".local/share")?.join("bash-completion"),
                };
                folder.join("completions/xtask")
            }
            Shell::Zsh => folder_of("XDG_DATA_HOME", ".local/share")?.join("xtask/completion.zsh"),
            Shell::Fish => folder_of("XDG_CONFIG_HOME", ".config")?.join("fish/conf.d/xtask.fish"),
            Shell::Powershell => {
                folder_of("XDG_DATA_HOME", ".local/share")?.join("xtask/completion.ps1")
            }
        })
    }

    /// The file that the shell reads when it starts, if the script has to be named there. bash-completion reads files by the
    /// names of commands, and `cargo` has one that is not ours.
    fn startup_file(self) -> Result<Option<PathBuf>> {
        Ok(match self {
            Shell::Bash => Some(home()?.join(".bashrc")),
            Shell::Zsh => Some(folder_of("ZDOTDIR", "")?.join(".zshrc")),
            Shell::Fish => None,
            Shell::Powershell => {
                Some(folder_of("XDG_CONFIG_HOME", ".config")?.join("powershell/profile.ps1"))
            }
        })
    }

    /// The line that reads the script.
    fn line(self, file: &Path) -> String {
        let quoted = file.display().to_string();
        match self {
            Shell::Powershell => format!(". '{}'", quoted.replace('\'', "''")),
            Shell::Bash | Shell::Zsh | Shell::Fish => {
                format!("source '{}'", quoted.replace('\'', r"'\''"))
            }
        }
    }

    /// Writes the script, and has the shell read it.
    fn install(self) -> Result<()> {
        let file = self.file()?;
        paths::write_whole(&file, self.script().as_bytes())?;
        let name = self.name();
        say!("completion for {name}: wrote `{}`", file.display());
        let line = self.line(&file);
        if let Some(startup) = self.startup_file()? {
            let shown = startup.display();
            if add_line(&startup, &line)? {
                say!("completion for {name}: added a line to `{shown}` that reads it");
            } else {
                say!("completion for {name}: `{shown}` has the line that reads it");
            }
        }
        say!("open a new {name}, or run this in the present one:\n  {line}");
        Ok(())
    }
}

/// The folder that this variable names, by default the one below the person's home.
fn folder_of(variable: &str, default: &str) -> Result<PathBuf> {
    let named = env::var_os(variable).map(PathBuf::from);
    match named.filter(|it| it.is_absolute()) {
        Some(folder) => Ok(folder),
        None => Ok(home()?.join(default)),
    }
}

fn home() -> Result<PathBuf> {
    let home = env::home_dir().filter(|it| it.is_absolute());
    home.context("there is no home folder: `HOME` is not set")
}

/// Appends a line to a person's file, which may be a link, if the file does not have it yet. Returns whether it was added.
fn add_line(file: &Path, line: &str) -> Result<bool> {
    let text = match fs::read(file) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read.with_context(|| format!("cannot read `{}`", file.display()))?,
    };
    let text = String::from_utf8_lossy(&text);
    if text.lines().any(|it| it == line) {
        return Ok(false);
    }
    let start = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let dir = file.parent().expect("a file is in a folder");
    fs::create_dir_all(dir)
        .and_then(|()| File::options().append(true).create(true).open(file))
        .and_then(|mut it| it.write_all(format!("{start}{line}\n").as_bytes()))
        .with_context(|| format!("cannot write `{}`", file.display()))?;
    Ok(true)
}

/// Prints what may be typed next. Nothing that is wrong with the repository is said, because a person is typing.
pub fn complete(command: clap::Command, args: &Complete) -> Result<ExitCode> {
    let names = Names::for_words(command.clone(), &args.words);
    let mut command = names.offered_by(command);
    let mut words = vec![OsString::from("xtask")];
    words.extend(args.words.iter().cloned());
    let last = words.len() - 1;
    let here = env::current_dir().ok();
    let offered = clap_complete::engine::complete(&mut command, words, last, here.as_deref());
    let lines = lines(offered.unwrap_or_default(), args.words.last());
    terminal::print(&lines)?;
    Ok(ExitCode::SUCCESS)
}

/// A line for each candidate. Options are left out unless one is being typed, or there is nothing else.
fn lines(mut candidates: Vec<CompletionCandidate>, current: Option<&OsString>) -> String {
    candidates.retain(|it| !it.is_hide_set());
    let wants_option = current.is_some_and(|it| it.as_encoded_bytes().starts_with(b"-"));
    if !wants_option && candidates.iter().any(|it| !is_option(it)) {
        candidates.retain(|it| !is_option(it));
    }
    let mut lines = String::new();
    for candidate in candidates {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let help = help.lines().next().unwrap_or_default();
        if value.contains(char::is_control) {
            continue;
        }
        lines += &value;
        if !help.is_empty() {
            lines += &format!("\t{help}");
        }
        lines.push('\n');
    }
    lines
}

fn is_option(candidate: &CompletionCandidate) -> bool {
    candidate.get_value().as_encoded_bytes().starts_with(b"-")
}

/// The names that arguments can have.
struct Names {
    clusters: Vec<String>,
    hubs: Vec<String>,
    /// The hubs, and what they share.
    releases: Vec<String>,
    /// Those of all clusters, each after its cluster as in `lake/prod`.
    all_releases: Vec<String>,
}

impl Names {
    /// Reads the names that fit what has been typed before the last of these words. Names that have been typed are left out.
    fn for_words(command: clap::Command, words: &[OsString]) -> Names {
        let before = &words[..words.len().saturating_sub(1)];
        let program = OsString::from("xtask");
        let all = [&program].into_iter().chain(before);
        let matches = command.ignore_errors(true).try_get_matches_from(all);
        let matches = matches.unwrap_or_default();
        let root: Option<&PathBuf> = value(&matches, "root");
        let tree = paths::root(root.map(PathBuf::as_path)).and_then(|root| Tree::work_tree(&root));
        let Ok(tree) = tree else {
            return Names::none();
        };
        let arguments = innermost(&matches);
        let cluster: Option<&String> = value(arguments, "cluster").or(value(arguments, "clusters"));
        let mut names = Names::none();
        names.clusters = cluster_yaml::names(&tree);
        if let Some(cluster) = cluster {
            (names.hubs, names.releases) = cluster_yaml::names_of_releases(&tree, cluster);
        }
        if arguments.try_contains_id("releases").is_ok() {
            names.all_releases = all_releases(&tree, &names.clusters);
        }
        for typed in ["clusters", "hubs", "releases"] {
            let typed: Vec<&String> = values(arguments, typed);
            names.clusters.retain(|it| !typed.contains(&it));
            names.hubs.retain(|it| !typed.contains(&it));
            names.all_releases.retain(|it| !typed.contains(&it));
        }
        names
    }

    fn none() -> Names {
        Names {
            clusters: Vec::new(),
            hubs: Vec::new(),
            releases: Vec::new(),
            all_releases: Vec::new(),
        }
    }

    /// The command with these names as what its arguments may be, and so with each of its subcommands.
    fn offered_by(&self, command: clap::Command) -> clap::Command {
        command
            .mut_args(|arg| self.offered_as(arg))
            .mut_subcommands(|it| self.offered_by(it))
    }

    fn offered_as(&self, arg: Arg) -> Arg {
        let names = match arg.get_id().as_str() {
            "cluster" => self.clusters.clone(),
            // `status` takes a hub after its cluster.
            "clusters" => [&self.clusters[..], &self.hubs[..]].concat(),
            "hub" | "hubs" => self.hubs.clone(),
            "release" => self.releases.clone(),
            "releases" => self.all_releases.clone(),
            _ => return arg,
        };
        arg.add(ArgValueCandidates::new(move || candidates(&names)))
    }
}

/// The releases of these clusters, each after its cluster.
fn all_releases(tree: &Tree, clusters: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for cluster in clusters {
        let (hubs, releases) = cluster_yaml::names_of_releases(tree, cluster);
        let support = releases.into_iter().filter(|it| it == "support");
        all.extend(
            hubs.into_iter()
                .chain(support)
                .map(|it| format!("{cluster}/{it}")),
        );
    }
    all
}

fn candidates(names: &[String]) -> Vec<CompletionCandidate> {
    names.iter().map(CompletionCandidate::new).collect()
}

/// What was parsed for the command that the words lead to.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    match matches.subcommand() {
        Some((_, inner)) => innermost(inner),
        None => matches,
    }
}

/// The first value of an argument, if the command has it.
fn value<'a, T: Clone + Send + Sync + 'static>(matches: &'a ArgMatches, id: &str) -> Option<&'a T> {
    values(matches, id).into_iter().next()
}

/// The values of an argument: none if the command does not have it.
fn values<'a, T: Clone + Send + Sync + 'static>(matches: &'a ArgMatches, id: &str) -> Vec<&'a T> {
    let values = matches.try_get_many(id).ok().flatten();
    values.into_iter().flatten().collect()
}
