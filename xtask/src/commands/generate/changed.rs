//! Which files a change touches.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::{
    machine::{paths, process},
    services::{github, gitlab},
};

/// Where the changed files come from.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct ChangeSource {
    /// Changed files by their paths from the root, separated by commas; one with a comma stands in quotes, as in CSV
    pub(crate) changed_filepaths: Option<String>,
    /// All files that this commit's branch changed since it left REF, as git knows them. `last-deployed` asks GitHub
    /// or GitLab: all that was changed, or changed back, since this workflow's or pipeline's newest run that went well
    #[arg(long, value_name = "REF")]
    pub(crate) base: Option<String>,
}

pub(crate) enum Changed {
    /// What there was before isn't known.
    Everything,
    /// From the root, `../` for those beside it. Both names of a renamed file, and deleted ones.
    Files(BTreeSet<PathBuf>),
}

/// A part of a change.
pub(crate) struct Step {
    /// The commit that made it, if it's known: of a merge, the merge.
    pub(crate) commit: Option<String>,
    pub(crate) changed: Changed,
}

impl ChangeSource {
    pub(crate) fn changed(&self, sh: &Shell) -> Result<Changed> {
        let mut all = Changed::default();
        self.steps(sh)?.iter().for_each(|it| all.add(&it.changed));
        Ok(all)
    }

    /// At least one.
    pub(crate) fn steps(&self, sh: &Shell) -> Result<Vec<Step>> {
        let changed = match (&self.changed_filepaths, self.base.as_deref()) {
            (_, Some("last-deployed")) => return since_last_deployed(sh),
            (_, Some(base)) => {
                let base = known(sh, base)?;
                match process::read(sh, cmd!(sh, "git merge-base {base} HEAD")) {
                    Ok(common) => differing(sh, common.trim())?,
                    Err(_) => bail!(
                        "`{base}` and this commit have nothing in common{}",
                        remedy(sh)
                    ),
                }
            }
            (paths, None) => {
                let paths = separated(paths.as_deref().unwrap_or_default());
                if let Some(path) = paths.iter().find(|it| it.starts_with('/')) {
                    bail!("`{path}` isn't a path from the root");
                }
                Changed::of(paths.iter().map(|it| PathBuf::from(it.trim())))
            }
        };
        Ok(vec![Step {
            commit: None,
            changed,
        }])
    }
}

impl Default for Changed {
    fn default() -> Changed {
        Changed::Files(BTreeSet::new())
    }
}

impl Changed {
    pub(crate) fn of(paths: impl IntoIterator<Item = PathBuf>) -> Changed {
        let paths = paths.into_iter().filter(|it| !it.as_os_str().is_empty());
        Changed::Files(paths.map(|it| paths::lexical(&it)).collect())
    }

    pub(crate) fn add(&mut self, other: &Changed) {
        match (&mut *self, other) {
            (Changed::Files(all), Changed::Files(files)) => all.extend(files.iter().cloned()),
            _ => *self = Changed::Everything,
        }
    }

    /// Whether this file is among them.
    pub(crate) fn has(&self, path: &Path) -> bool {
        match self {
            Changed::Everything => true,
            // Of a submodule git names the folder.
            Changed::Files(files) => path.ancestors().any(|it| files.contains(it)),
        }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.from(Path::new(""))
    }

    /// Those in a folder, by their paths in it. Of a submodule that it is in, the path is empty.
    pub(crate) fn within<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        let submodule =
            matches!(self, Changed::Files(_)) && folder.parent().is_some_and(|it| self.has(it));
        // A folder's files stand together.
        let files = self
            .from(folder)
            .map_while(move |it| it.strip_prefix(folder).ok());
        submodule.then_some(Path::new("")).into_iter().chain(files)
    }

    fn from(&self, first: &Path) -> impl Iterator<Item = &PathBuf> + use<'_> {
        let files = match self {
            Changed::Everything => None,
            Changed::Files(files) => Some(files),
        };
        let first = first.to_owned();
        files
            .into_iter()
            .flat_map(move |it| it.range(first.clone()..))
    }
}

fn last_deployed() -> Result<Option<String>> {
    match env::var_os("GITLAB_CI") {
        Some(_) => gitlab::last_deployed(),
        None => github::last_deployed(),
    }
}

/// Each commit on this branch's way from the one that was deployed. A file that one changed and another one changed back
/// is among them: who deployed in between may have failed half-way.
fn since_last_deployed(sh: &Shell) -> Result<Vec<Step>> {
    let all = |why: &str| -> Result<Vec<Step>> {
        say!("{why}: all is deployed");
        Ok(vec![Step {
            commit: Some(known(sh, "HEAD")?),
            changed: Changed::Everything,
        }])
    };
    let Some(base) = last_deployed()? else {
        return all("no run of this workflow went well on this branch so far");
    };
    let base = match known(sh, &base) {
        Err(_) if is_shallow(sh) == Some(false) => {
            return all(&format!(
                "commit `{base}`, which was deployed last, isn't in this history any more"
            ));
        }
        base => base?,
    };
    let log = [
        "--first-parent",
        "-m",
        "--format=%x00%H",
        "--name-only",
        "--no-renames",
        "-z",
    ];
    let log = process::read_bytes(sh, cmd!(sh, "git log {log...} {base}..HEAD"))?;
    let prefix = prefix(sh)?;
    let mut steps: Vec<Step> = Vec::new();
    let mut fields = log.split(|it| *it == 0);
    // An empty one, a commit, a line's end and its files.
    while let Some(field) = fields.next() {
        match (field, steps.last_mut()) {
            ([], _) => {
                let commit = fields
                    .next()
                    .map(|it| String::from_utf8_lossy(it).into_owned());
                steps.extend(commit.map(|it| Step {
                    commit: Some(it),
                    changed: Changed::default(),
                }));
            }
            (file, Some(step)) => {
                let file = path(file.strip_prefix(b"\n").unwrap_or(file));
                step.changed.add(&Changed::of([paths::from(&prefix, file)]));
            }
            (_, None) => {}
        }
    }
    // What isn't on the way, if somebody wrote the history anew.
    let mut rest = differing(sh, &base)?;
    if let Changed::Files(files) = &mut rest {
        files.retain(|file| !steps.iter().any(|it| it.changed.has(file)));
    }
    steps.push(Step {
        commit: None,
        changed: rest,
    });
    Ok(steps)
}

/// A commit by its name, which git must know.
fn known(sh: &Shell, name: &str) -> Result<String> {
    let commit = format!("{name}^{{commit}}");
    match process::read(
        sh,
        cmd!(
            sh,
            "git rev-parse --verify --quiet --end-of-options {commit}"
        ),
    ) {
        Ok(commit) => Ok(commit.trim().to_owned()),
        Err(_) => bail!("git knows no commit `{name}`{}", remedy(sh)),
    }
}

/// Nobody knows where there is no repository.
fn is_shallow(sh: &Shell) -> Option<bool> {
    let said = process::read(sh, cmd!(sh, "git rev-parse --is-shallow-repository")).ok()?;
    Some(said.trim() == "true")
}

fn remedy(sh: &Shell) -> &'static str {
    match is_shallow(sh) {
        Some(true) => {
            ": this clone is shallow\nhint: `fetch-depth: 0` for actions/checkout, `GIT_DEPTH: 0` in GitLab, or \
             `git fetch --unshallow`"
        }
        Some(false) => "\nhint: `git fetch origin` first?",
        None => ": this is no git repository",
    }
}

/// What this commit has otherwise than another one.
fn differing(sh: &Shell, base: &str) -> Result<Changed> {
    let names = process::read_bytes(
        sh,
        cmd!(sh, "git diff --name-only --no-renames -z {base} HEAD"),
    )?;
    let prefix = prefix(sh)?;
    let files = names.split(|it| *it == 0).filter(|it| !it.is_empty());
    Ok(Changed::of(files.map(|it| paths::from(&prefix, path(it)))))
}

/// A name as git has it, in any encoding.
fn path(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

/// Where in git's repository we are.
fn prefix(sh: &Shell) -> Result<PathBuf> {
    let prefix = process::read(sh, cmd!(sh, "git rev-parse --show-prefix"))?;
    Ok(PathBuf::from(prefix.trim_end_matches('\n')))
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
