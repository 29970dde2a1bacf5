//! Builds or lists the pinned programs.

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use xshell::Shell;

use crate::machine::{
    parallel,
    programs::{
        FOR_HUBS, FOR_REAL_NODES, FOR_REHEARSALS, Found, JSONNET, PROGRAMS, Program, Version,
        probe, which,
    },
    terminal,
};

/// Build the programs that are missing from PATH: helm, sops, kubectl and others
///
/// These are the programs that a deploy and the rehearsal cluster need. A version on PATH that is good enough is used as it
/// is. Everything else is built with Go into `$XDG_CACHE_HOME/xtask/tools`, one folder for each version, where every command
/// finds it.
#[derive(clap::Args, Default)]
pub struct Setup {
    /// Only the programs that these need; separate more than one by commas [default: all programs]
    #[arg(long = "for", value_name = "WHAT", value_delimiter = ',')]
    uses: Vec<Use>,
    /// Build nothing: print a table of the programs, and exit with 1 if one is missing or too old
    #[arg(long)]
    check: bool,
    /// Build nothing: print the folders of the programs that are built, joined by `:`, for your own PATH
    #[arg(long, conflicts_with = "check")]
    print_path: bool,
}

/// What programs are for.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Use {
    /// Every command on clusters elsewhere: helm, sops and kubectl, and what evaluates values in jsonnet
    Deploy,
    /// The same, and the rehearsal cluster on simulated nodes
    Rehearsal,
    /// The same, and the rehearsal cluster on a real node
    RealNode,
    /// `cargo xtask ci`: all programs
    #[value(alias = "all")]
    Ci,
}

impl Use {
    fn needs(self, program: &Program) -> bool {
        let lists: &[&[&str]] = match self {
            Use::Deploy => &[FOR_HUBS, &[JSONNET]],
            Use::Rehearsal => &[FOR_HUBS, &[JSONNET], FOR_REHEARSALS],
            Use::RealNode => &[FOR_HUBS, &[JSONNET], FOR_REHEARSALS, FOR_REAL_NODES],
            Use::Ci => return true,
        };
        lists.iter().any(|it| it.contains(&program.name))
    }
}

impl Setup {
    fn programs(&self) -> Vec<&'static Program> {
        let programs = PROGRAMS.iter();
        let wanted = programs
            .filter(|program| self.uses.is_empty() || self.uses.iter().any(|it| it.needs(program)));
        wanted.collect()
    }
}

/// Builds or lists the pinned programs.
pub fn setup(sh: &Shell, args: &Setup) -> Result<ExitCode> {
    let programs = args.programs();
    if args.check {
        check(sh, &programs)?;
        return Ok(ExitCode::SUCCESS);
    }
    let count = programs.len();
    let found = Found::look(sh, programs)?;
    if args.print_path {
        let folders = env::join_paths(found.built_folders()?).context(
            "the cache's path cannot be on PATH\nhint: `XDG_CACHE_HOME` names another place",
        )?;
        terminal::print(&format!("{}\n", folders.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    found.build_missing(sh)?;
    say!("all {count} programs are installed");
    Ok(ExitCode::SUCCESS)
}

/// Prints the table of these programs. An error if one is missing.
fn check(sh: &Shell, programs: &[&Program]) -> Result<()> {
    let found = parallel::side_by_side(sh, programs, |sh, program| find(sh, program));
    let mut rows = vec![
        ["PROGRAM", "WANTED", "FOUND", "WHERE"]
            .map(String::from)
            .into(),
    ];
    let mut missing = 0;
    for (program, found) in programs.iter().zip(found) {
        let found = found?;
        missing += usize::from(!found.is_good);
        let name = program.name.to_owned();
        rows.push(vec![name, program.wanted(), found.version, found.place]);
    }
    terminal::print(&terminal::table(&rows))?;
    if missing > 0 {
        bail!(
            "{missing} of {} programs are missing\nhint: run `cargo xtask setup` to build them",
            programs.len()
        );
    }
    Ok(())
}

/// What the table says of a program.
struct Row {
    version: String,
    /// The file, or why it cannot be used.
    place: String,
    is_good: bool,
}

/// Finds the program on PATH, or else in the cache.
fn find(sh: &Shell, program: &Program) -> Result<Row> {
    let on_path = which(sh, program.name).map(|file| (probe(sh, program, &file), file));
    if let Some((Some(version), file)) = &on_path
        && program.is_good(*version)
    {
        return Ok(good(*version, file.clone()));
    }
    let cached = program.folder()?.join(program.name);
    if probe(sh, program, &cached) == Some(program.version) {
        return Ok(good(program.version, cached));
    }
    Ok(match on_path {
        Some((Some(version), file)) => {
            let why = format!("{} is not a version that works", file.display());
            unusable(&version.to_string(), why)
        }
        Some((None, file)) => {
            let why = format!("{} does not report its version", file.display());
            unusable("?", why)
        }
        None => unusable("missing", String::new()),
    })
}

fn unusable(version: &str, why: String) -> Row {
    Row {
        version: version.to_owned(),
        place: why,
        is_good: false,
    }
}

fn good(version: Version, file: PathBuf) -> Row {
    Row {
        version: version.to_string(),
        place: file.display().to_string(),
        is_good: true,
    }
}
