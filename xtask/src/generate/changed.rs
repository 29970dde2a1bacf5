//! Which files a change touches.

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::{github, gitlab, paths, process};

/// Where the changed files come from.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Source {
    /// Changed files by their paths from the root, separated by commas; one with a comma stands in quotes, as in CSV
    pub(super) changed_filepaths: Option<String>,
    /// All files that this commit's branch changed since it left REF, as git knows them. `last-deployed` asks GitHub
    /// or GitLab: all that differs from the commit of this workflow's or pipeline's newest run that went well
    #[arg(long, value_name = "REF")]
    pub(super) base: Option<String>,
}

pub(super) enum Changed {
    /// What there was before isn't known.
    Everything,
    /// From the root. Both names of a renamed file, and deleted ones.
    Files(BTreeSet<PathBuf>),
}

impl Source {
    /// Until this commit.
    pub(super) fn changed(&self, sh: &Shell) -> Result<Changed> {
        self.changed_until(sh, "HEAD")
    }

    /// Until one before it.
    pub(super) fn changed_until(&self, sh: &Shell, end: &str) -> Result<Changed> {
        match (&self.changed_filepaths, self.base.as_deref()) {
            (_, Some("last-deployed")) => match last_deployed()? {
                None => {
                    say!("no run of this workflow went well on this branch so far: all is deployed");
                    Ok(Changed::Everything)
                }
                Some(commit) => differing(sh, &known(sh, &commit)?, &known(sh, end)?),
            },
            (_, Some(base)) => {
                let (base, end) = (known(sh, base)?, known(sh, end)?);
                match process::read(sh, cmd!(sh, "git merge-base {base} {end}")) {
                    Ok(common) => differing(sh, common.trim(), &end),
                    Err(_) => bail!("`{base}` and this commit have nothing in common{}", remedy(sh)),
                }
            }
            (paths, None) => Ok(Changed::of(separated(paths.as_deref().unwrap_or_default()))),
        }
    }
}

impl Changed {
    pub(super) fn of(paths: impl IntoIterator<Item = String>) -> Changed {
        Changed::Files(
            paths.into_iter().filter(|it| !it.is_empty()).map(|it| paths::lexical(Path::new(&it))).collect(),
        )
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        match self {
            Changed::Everything => true,
            Changed::Files(files) => files.contains(path),
        }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.from(Path::new(""))
    }

    /// Those in a folder, by their paths in it.
    pub(super) fn within<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        // A folder's files stand together.
        self.from(folder).map_while(move |it| it.strip_prefix(folder).ok())
    }

    fn from(&self, first: &Path) -> impl Iterator<Item = &PathBuf> + use<'_> {
        let files = match self {
            Changed::Everything => None,
            Changed::Files(files) => Some(files),
        };
        let first = first.to_owned();
        files.into_iter().flat_map(move |it| it.range(first.clone()..))
    }
}

fn last_deployed() -> Result<Option<String>> {
    match env::var_os("GITLAB_CI") {
        Some(_) => gitlab::last_deployed(),
        None => github::last_deployed(),
    }
}

/// A commit by its name, which git must know.
fn known(sh: &Shell, name: &str) -> Result<String> {
    let name = format!("{name}^{{commit}}");
    match process::read(sh, cmd!(sh, "git rev-parse --verify --quiet --end-of-options {name}")) {
        Ok(commit) => Ok(commit.trim().to_owned()),
        Err(_) => bail!("git knows no commit `{}`{}", name.trim_end_matches("^{commit}"), remedy(sh)),
    }
}

fn remedy(sh: &Shell) -> &'static str {
    let shallow = process::read(sh, cmd!(sh, "git rev-parse --is-shallow-repository"));
    match shallow.as_deref().map(str::trim) {
        Ok("true") => {
            ": this clone is shallow\nhint: `fetch-depth: 0` for actions/checkout, `GIT_DEPTH: 0` in GitLab, or \
             `git fetch --unshallow`"
        }
        Ok(_) => "\nhint: `git fetch origin` first?",
        Err(_) => ": this is no git repository",
    }
}

/// What one commit has otherwise than another one. Files outside of the root are nobody's.
fn differing(sh: &Shell, base: &str, end: &str) -> Result<Changed> {
    let cmd = cmd!(sh, "git diff --name-only --no-renames --relative -z {base} {end}");
    Ok(Changed::of(process::read(sh, cmd)?.split('\0').map(str::to_owned)))
}

/// The fields of a line of CSV, where a quoted one may have commas, and quotes twice.
fn separated(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(char),
        }
    }
    fields.push(field);
    fields
}
