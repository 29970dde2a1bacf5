//! The pinned programs: built, or listed.

use std::process::ExitCode;

use anyhow::{Result, bail};
use xshell::Shell;

use crate::machine::{
    parallel,
    programs::{Found, PROGRAMS, probe, which},
    terminal,
};

/// Build the programs that a deploy needs and PATH lacks: helm, sops, kubectl and the rehearsal cluster's
///
/// What PATH has in a good enough version is used as it is. Everything else is built by Go into
/// `$XDG_CACHE_HOME/xtask/tools`, a folder for each version, and found there by every command.
#[derive(clap::Args, Default)]
pub struct Setup {
    /// Build nothing: print a table of the programs, and exit with 1 when one is missing or too old
    #[arg(long)]
    check: bool,
    /// Build nothing: print the folders of the built programs, joined by `:`, for your own PATH
    #[arg(long, conflicts_with = "check")]
    print_path: bool,
}

/// Builds or lists the pinned programs.
pub fn setup(sh: &Shell, args: &Setup) -> Result<ExitCode> {
    if args.check {
        terminal::print(&check(sh)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let found = Found::look(sh, PROGRAMS.iter().collect())?;
    if args.print_path {
        found.refuse_if_any_is_missing(sh)?;
        let folders: Vec<_> = found
            .cached_folders()?
            .iter()
            .map(|it| it.display().to_string())
            .collect();
        terminal::print(
            &(folders.join(":")
                + "
"),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    found.build_missing(sh)?;
    say!("all {} programs are there", PROGRAMS.len());
    Ok(ExitCode::SUCCESS)
}

/// The doctor's table.
fn check(sh: &Shell) -> Result<String> {
    let found = parallel::side_by_side(sh, PROGRAMS, |sh, program| -> Result<_> {
        let on_path = which(sh, program.name).map(|file| (probe(sh, program, &file), file));
        if let Some((Some(version), file)) = &on_path
            && program.is_good(*version)
        {
            return Ok((version.to_string(), file.display().to_string(), true));
        }
        let cached = program.folder()?.join(program.name);
        if probe(sh, program, &cached) == Some(program.version) {
            return Ok((
                program.version.to_string(),
                cached.display().to_string(),
                true,
            ));
        }
        Ok(match on_path {
            Some((Some(version), file)) => (
                version.to_string(),
                format!("{} isn't good enough", file.display()),
                false,
            ),
            Some((None, file)) => (
                "?".into(),
                format!("{} doesn't tell its version", file.display()),
                false,
            ),
            None => ("missing".into(), String::new(), false),
        })
    });
    let mut table = row("PROGRAM", "WANTED", "FOUND", "WHERE");
    let mut missing = 0;
    for (program, found) in PROGRAMS.iter().zip(found) {
        let (version, place, good) = found?;
        missing += usize::from(!good);
        table += &row(program.name, &program.wanted(), &version, &place);
    }
    if missing > 0 {
        terminal::print(&table)?;
        bail!(
            "{missing} of {} programs are missing\nhint: `cargo xtask setup` builds them",
            PROGRAMS.len()
        );
    }
    Ok(table)
}

fn row(program: &str, wanted: &str, found: &str, place: &str) -> String {
    format!("{program:<24} {wanted:<16} {found:<9} {place}")
        .trim_end()
        .to_owned()
        + "\n"
}
