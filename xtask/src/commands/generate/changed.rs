//! Finds the files that a change touches.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow, bail, ensure};
use xshell::{Shell, cmd};

use crate::{
    machine::{paths, process, terminal::list, tree::versions::is_shallow},
    repository::cluster_yaml::CLUSTER_YAML,
    services::{
        deployments::{LastDeployed, ReleaseName},
        gitlab, workflow_runs,
    },
};

/// How many releases a message names.
const SHOWN: usize = 10;
/// What a message calls all releases.
const EVERYTHING: &str = "everything";

/// Where the changed files come from.
#[derive(clap::Args)]
#[group(multiple = false)]
pub(super) struct ChangeSource {
    /// Changed files as paths from the root, separated by commas. A path that has a comma is quoted, as in CSV
    pub(crate) changed_filepaths: Option<String>,
    /// Take the files that differ between HEAD and its common ancestor with REF. With `last-deployed`, GitHub or GitLab is
    /// asked when each hub and each support chart was deployed last: by the newest job of its own that succeeded, or a newer
    /// run that left nothing out. Every file that a commit since then changed is taken, even if a later one changed it back
    #[arg(long, value_name = "REF")]
    pub(crate) base: Option<String>,
}

/// The files that a change touches.
#[derive(Clone)]
pub(crate) enum Changed {
    /// All of them: what there was before is not known.
    Everything,
    /// Paths from the root; they begin with `../` for files outside. Deleted files are included, and both names of a renamed one.
    Files(BTreeSet<PathBuf>),
}

/// A part of a change.
#[derive(Clone)]
pub(crate) struct Step {
    /// The commit that made it, if that is known. For what a merge brought it is the merge.
    pub(crate) commit: Option<String>,
    pub(crate) changed: Changed,
    /// The commits with the files before it and after it, if they are known.
    pub(crate) versions: Option<[String; 2]>,
}

/// Releases that the same steps are to be considered for.
pub(crate) struct Since<'a> {
    pub(crate) releases: Vec<ReleaseName<'a>>,
    pub(crate) steps: Vec<Step>,
}

impl ChangeSource {
    /// The files of all steps. With `last-deployed` they are those since the newest run that left nothing out.
    pub(crate) fn changed(&self, sh: &Shell) -> Result<Changed> {
        let steps = match self.same_steps(sh)? {
            Some(steps) => steps,
            None => {
                let last = last_deployed()?;
                since_last_deployed(sh, &last, last.whole.as_deref(), EVERYTHING)?
            }
        };
        let mut all = Changed::default();
        for step in steps {
            all.add(&step.changed);
        }
        Ok(all)
    }

    /// The steps of the change for each of these releases.
    pub(crate) fn by_release<'a>(
        &self,
        sh: &Shell,
        releases: Vec<ReleaseName<'a>>,
    ) -> Result<Vec<Since<'a>>> {
        if let Some(steps) = self.same_steps(sh)? {
            return Ok(vec![Since { releases, steps }]);
        }
        let last = last_deployed()?;
        let count = releases.len();
        let mut by_base: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for release in releases {
            by_base.entry(last.of(release)).or_default().push(release);
        }
        // Most of these commits follow one another: git tells them all at once.
        let oldest = last.oldest().filter(|it| known(sh, it).is_ok());
        let chain = oldest.map_or(Ok(Vec::new()), |it| steps_since(sh, it))?;
        let mut all = Vec::new();
        for (base, releases) in by_base {
            let of_base = chain.iter().position(|it| it.commit.as_deref() == base);
            let steps = match of_base {
                Some(index) if base.is_some() => chain[..index].to_vec(),
                None if base.is_some() && base == oldest => chain.clone(),
                _ => since_last_deployed(sh, &last, base, &shown(&releases, count))?,
            };
            all.push(Since { releases, steps });
        }
        Ok(all)
    }

    /// The steps of the change if they are the same for all releases, at least one.
    fn same_steps(&self, sh: &Shell) -> Result<Option<Vec<Step>>> {
        let step = match self.base.as_deref() {
            Some("last-deployed") => return Ok(None),
            Some(base) => since_common_ancestor(sh, base)?,
            None => {
                let changed = named(self.changed_filepaths.as_deref().unwrap_or_default())?;
                refuse_unknown(sh, &changed)?;
                Step::of(changed)
            }
        };
        Ok(Some(vec![step]))
    }
}

impl Step {
    /// Files of which nothing more is known.
    pub(crate) fn of(changed: Changed) -> Step {
        Step {
            commit: None,
            changed,
            versions: None,
        }
    }
}

/// The files that differ between HEAD and its common ancestor with a commit.
fn since_common_ancestor(sh: &Shell, base: &str) -> Result<Step> {
    let base = known(sh, base)?;
    match process::read(sh, cmd!(sh, "git merge-base {base} HEAD")) {
        Ok(common) => difference(sh, common.trim()),
        Err(_) => bail!(
            "`{base}` and this commit have nothing in common{}",
            remedy(sh)
        ),
    }
}

/// The files of a line of CSV.
fn named(paths: &str) -> Result<Changed> {
    let paths = separated(paths);
    if let Some(path) = paths.iter().find(|it| it.starts_with('/')) {
        bail!("`{path}` is not a path from the root");
    }
    Ok(Changed::of(paths.iter().map(|it| PathBuf::from(it.trim()))))
}

/// Refuses files that are not there and that no commit has ever had. If that cannot be known, they may have been deleted.
pub(crate) fn refuse_unknown(sh: &Shell, changed: &Changed) -> Result<()> {
    let mut missing: Vec<_> = changed.files().collect();
    missing.retain(|it| fs::symlink_metadata(sh.current_dir().join(it)).is_err());
    if missing.is_empty() {
        return Ok(());
    }
    let known = match is_shallow(sh) {
        Some(false) => in_history(sh, &missing).ok(),
        _ => None,
    };
    let unknown = missing
        .iter()
        .filter(|path| known.as_ref().is_none_or(|it| !it.has_within(path)));
    let unknown: Vec<_> = unknown.map(|it| it.display()).collect();
    ensure!(
        known.is_none() || unknown.is_empty(),
        "there is no {}, and no commit before this one has it\nhint: changed files are given by their paths from the \
         repository's root, as in `config/clusters/lake/prod.values.yaml`",
        list(unknown)
    );
    if known.is_none() {
        say!(
            "warning: there is no {}: taken as deleted, because git's history is not there to ask",
            list(unknown)
        );
    }
    Ok(())
}

/// All files at these paths that a commit changed.
fn in_history(sh: &Shell, paths: &[&PathBuf]) -> Result<Changed> {
    let options = [
        "--full-history",
        "-m",
        "--format=",
        "--name-only",
        "--no-renames",
        "-z",
    ];
    let log = cmd!(sh, "git --literal-pathspecs log {options...} -- {paths...}");
    let names = process::read_bytes(sh, log)?;
    named_by_git(sh, &names)
}

impl Default for Changed {
    fn default() -> Changed {
        Changed::Files(BTreeSet::new())
    }
}

impl Changed {
    /// These files; empty paths are left out.
    pub(crate) fn of(paths: impl IntoIterator<Item = PathBuf>) -> Changed {
        let paths = paths.into_iter().filter(|it| !it.as_os_str().is_empty());
        Changed::Files(paths.map(|it| paths::lexical(&it)).collect())
    }

    /// Adds the files of another change.
    pub(crate) fn add(&mut self, other: &Changed) {
        match (&mut *self, other) {
            (Changed::Files(all), Changed::Files(files)) => all.extend(files.iter().cloned()),
            _ => *self = Changed::Everything,
        }
    }

    /// Whether this file is one of them.
    pub(crate) fn has(&self, path: &Path) -> bool {
        match self {
            Changed::Everything => true,
            // For a change in a submodule, git names only the submodule's folder.
            Changed::Files(files) => path.ancestors().any(|it| files.contains(it)),
        }
    }

    /// Whether one of them is this file, or in this folder.
    fn has_within(&self, path: &Path) -> bool {
        self.from(path)
            .next()
            .is_some_and(|it| it.starts_with(path))
    }

    /// The known files: none for `Everything`.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.from(Path::new(""))
    }

    /// The known files in a folder, as paths from it. If the folder is in a submodule that changed, one path is empty.
    pub(crate) fn within<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        let submodule =
            matches!(self, Changed::Files(_)) && folder.parent().is_some_and(|it| self.has(it));
        // In their order the files of a folder follow one another.
        let files = self
            .from(folder)
            .map_while(move |it| it.strip_prefix(folder).ok());
        submodule.then_some(Path::new("")).into_iter().chain(files)
    }

    /// The known files from this path on, in their order.
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

/// Each commit from the one that was deployed last to HEAD, along first parents. Their files include those that one commit
/// changed and another one changed back: a deploy in between may have failed half-way. `what` says which releases that
/// commit is of.
fn since_last_deployed(
    sh: &Shell,
    last: &LastDeployed,
    base: Option<&str>,
    what: &str,
) -> Result<Vec<Step>> {
    let Some(base) = base else {
        tell_never_deployed(last, what);
        return everything(sh);
    };
    let base = match known(sh, base) {
        Err(_) if is_shallow(sh) == Some(false) => {
            say!(
                "deployed whatever changed, since git's history no longer has commit `{base}`, where it was \
                 deployed last: {what}"
            );
            return everything(sh);
        }
        base => base?,
    };
    steps_since(sh, &base)
}

/// Each commit from this one, named by its hash, to HEAD, and after them what no commit between them accounts for.
fn steps_since(sh: &Shell, base: &str) -> Result<Vec<Step>> {
    let mut steps = commits_since(sh, base)?;
    let first = steps.last().and_then(|it| it.versions.as_ref());
    if first.is_none_or(|[before, _]| before != base) {
        let rest = rest_of(difference(sh, base)?, &steps);
        steps.push(rest);
    }
    Ok(steps)
}

/// The differences that none of these steps made: there are some if history was rewritten. What of a cluster.yaml they made is
/// known from its content only.
fn rest_of(mut all: Step, steps: &[Step]) -> Step {
    if let Changed::Files(files) = &mut all.changed {
        let is_known = |file: &PathBuf| steps.iter().any(|it| it.changed.has(file));
        files.retain(|file| file.ends_with(CLUSTER_YAML) || !is_known(file));
    }
    all
}

/// The commits that GitHub or GitLab knows as deployed last.
fn last_deployed() -> Result<LastDeployed> {
    let last = if env::var_os("GITLAB_CI").is_some() {
        gitlab::last_deployed()
    } else {
        workflow_runs::last_deployed()
    };
    last.map_err(|err| {
        anyhow!(
            "{err:#}\nhint: `--base COMMIT` deploys what changed since a commit that you know to be \
             deployed"
        )
    })
}

/// Releases in a message, if there are `count` in all.
fn shown(releases: &[ReleaseName], count: usize) -> String {
    match releases.len() {
        all if all == count => EVERYTHING.to_owned(),
        1..=SHOWN => list(releases.iter().map(ReleaseName::shown)),
        shown => format!("{shown} of {count} hubs and support charts"),
    }
}

/// Says which releases are deployed since no deploy of them is known.
fn tell_never_deployed(last: &LastDeployed, what: &str) {
    match last.only {
        Some(runs) => {
            say!("deployed whatever changed, since none of {runs} did it without a failure: {what}")
        }
        None if what == EVERYTHING => {
            say!("no run of this workflow has succeeded on this branch so far: {what} is deployed");
        }
        None => say!("deployed whatever changed, since no job for it has succeeded so far: {what}"),
    }
}

/// A step that deploys everything.
fn everything(sh: &Shell) -> Result<Vec<Step>> {
    Ok(vec![Step {
        commit: Some(known(sh, "HEAD")?),
        ..Step::of(Changed::Everything)
    }])
}

/// The commits after this one up to HEAD, along first parents, each with all files that it changed.
fn commits_since(sh: &Shell, base: &str) -> Result<Vec<Step>> {
    let options = [
        "--first-parent",
        "-m",
        "--format=%x00%H %P",
        "--name-only",
        "--no-renames",
        "-z",
    ];
    let log = process::read_bytes(sh, cmd!(sh, "git log {options...} {base}..HEAD"))?;
    Ok(steps_in_log(&log, &prefix(sh)?))
}

/// Reads what `git log` writes of each commit: an empty field, its hash and those of its parents, and its files, the first one
/// after a line feed.
fn steps_in_log(log: &[u8], prefix: &Path) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut fields = log.split(|it| *it == 0);
    while let Some(field) = fields.next() {
        if field.is_empty() {
            steps.extend(fields.next().map(step_of_commit));
        } else if let Some(step) = steps.last_mut() {
            let file = path(field.strip_prefix(b"\n").unwrap_or(field));
            step.changed.add(&Changed::of([paths::from(prefix, file)]));
        }
    }
    steps
}

/// The step of a commit, without its files so far.
fn step_of_commit(hashes: &[u8]) -> Step {
    let hashes = String::from_utf8_lossy(hashes);
    let mut hashes = hashes.split_whitespace().map(str::to_owned);
    let commit = hashes.next();
    let parent = hashes.next();
    Step {
        versions: parent.zip(commit.clone()).map(<[String; 2]>::from),
        commit,
        changed: Changed::default(),
    }
}

/// The hash of a commit that is named in any way. An error if git does not know it.
fn known(sh: &Shell, name: &str) -> Result<String> {
    let commit = format!("{name}^{{commit}}");
    let options = ["--verify", "--quiet", "--end-of-options"];
    match process::read(sh, cmd!(sh, "git rev-parse {options...} {commit}")) {
        Ok(commit) => Ok(commit.trim().to_owned()),
        Err(_) => bail!("git knows no commit `{name}`{}", remedy(sh)),
    }
}

/// The end of a message about a commit that git does not know: why, or a hint.
fn remedy(sh: &Shell) -> &'static str {
    match is_shallow(sh) {
        Some(true) => {
            ": this clone is shallow\nhint: `fetch-depth: 0` for actions/checkout, `GIT_DEPTH: 0` in GitLab, or \
             `git fetch --unshallow`"
        }
        Some(false) => "\nhint: `git fetch origin` first?",
        None => ": this is not a git repository",
    }
}

/// What differs between a commit and HEAD.
fn difference(sh: &Shell, base: &str) -> Result<Step> {
    let names = process::read_bytes(
        sh,
        cmd!(sh, "git diff --name-only --no-renames -z {base} HEAD"),
    )?;
    Ok(Step {
        versions: Some([base.to_owned(), "HEAD".to_owned()]),
        ..Step::of(named_by_git(sh, &names)?)
    })
}

/// Files whose names git ends with a zero each.
fn named_by_git(sh: &Shell, names: &[u8]) -> Result<Changed> {
    let prefix = prefix(sh)?;
    let files = names.split(|it| *it == 0).filter(|it| !it.is_empty());
    Ok(Changed::of(files.map(|it| paths::from(&prefix, path(it)))))
}

/// A file's name as git writes it, in any encoding.
fn path(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

/// The path from git's root to ours.
fn prefix(sh: &Shell) -> Result<PathBuf> {
    let prefix = process::read(sh, cmd!(sh, "git rev-parse --show-prefix"))?;
    Ok(PathBuf::from(prefix.trim_end_matches('\n')))
}

/// The fields of a line of CSV: a quoted field may have commas, and quotes twice.
fn separated(line: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut is_quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if is_quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(char),
        }
    }
    fields.push(field);
    fields
}
