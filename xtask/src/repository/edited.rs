//! Values files with a new text: what differs, what `validate` says of it, and how it is written.

use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use similar::TextDiff;
use xshell::Shell;

use crate::{
    machine::{
        digest::digest_of,
        paths::{self, Replacement},
        tree::Tree,
    },
    repository::{
        cluster_yaml,
        fleet::Fleet,
        problem::{Level, Problem, once, text},
        readers::Readers,
        rules,
        values_file::ValuesFile,
    },
};

/// A file with its new text.
pub(crate) struct Edited {
    /// As the file is listed.
    pub(crate) file: PathBuf,
    /// Where it is, without links.
    real: PathBuf,
    /// All the ways in which it is listed.
    names: Vec<PathBuf>,
    /// The text that it had when it was read.
    old: Vec<u8>,
    pub(crate) text: String,
    /// The releases that it is for.
    pub(crate) readers: BTreeSet<String>,
}

impl Edited {
    /// A file of the fleet as it is.
    pub(crate) fn new(fleet: &Fleet, readers: &Readers, file: &Path) -> Edited {
        let old = fleet.values[file].content.clone();
        Edited {
            file: file.to_owned(),
            real: readers.real(file),
            names: readers.names(fleet, file),
            text: String::from_utf8_lossy(&old).into_owned(),
            old,
            readers: readers.of(file).clone(),
        }
    }

    pub(crate) fn differs(&self) -> bool {
        self.text.as_bytes() != self.old
    }

    fn diff(&self) -> String {
        let path = self.file.display();
        TextDiff::from_lines(&*String::from_utf8_lossy(&self.old), &self.text)
            .unified_diff()
            .header(&format!("a/{path}"), &format!("b/{path}"))
            .to_string()
    }
}

/// What differs in files.
pub(crate) fn diffs(edited: &[&Edited]) -> String {
    edited.iter().map(|it| it.diff()).collect()
}

/// Says whose hubs may share a file without our knowing it.
pub(crate) fn warn_of_unknown_clusters(fleet: &Fleet) -> Result<()> {
    for file in cluster_yaml::files(&fleet.tree)? {
        if fleet.cluster(cluster_yaml::folder_name(&file)).is_err() {
            let file = file.display();
            say!(
                "warning: `{file}` cannot be read, and so it is not known which files its hubs share"
            );
        }
    }
    Ok(())
}

/// Puts the new texts into the fleet, and refuses them if they make a problem.
pub(crate) fn check(sh: &Shell, fleet: &mut Fleet, edited: &[&Edited]) -> Result<()> {
    let before: BTreeSet<_> = problems(sh, fleet, edited).iter().map(essence).collect();
    for file in edited {
        for path in &file.names {
            let number = fleet.values[path].number;
            let content = file.text.clone().into_bytes();
            let file = ValuesFile::of(path, content, number);
            fleet.values.insert(path.clone(), file);
        }
    }
    let mut new = problems(sh, fleet, edited);
    new.retain(|it| !before.contains(&essence(it)) && it.level != Level::Suggestion);
    let new = once(new, false);
    let is_problem = new.iter().any(|it| it.level == Level::Problem);
    ensure!(
        !is_problem,
        "nothing was written, for `validate` would say:\n{}",
        text(&new).trim_end()
    );
    for warning in new {
        say!("warning: {}", warning.message);
    }
    Ok(())
}

/// The problems of all releases that read one of these files.
fn problems(sh: &Shell, fleet: &Fleet, edited: &[&Edited]) -> Vec<Problem> {
    let mut releases = fleet.releases();
    releases.retain(|it| {
        edited
            .iter()
            .any(|edited| edited.readers.contains(&it.path()))
    });
    rules::problems_of_releases(fleet, sh, &releases)
}

/// What makes a problem the same one, wherever it is now.
fn essence(problem: &Problem) -> (Option<String>, Option<String>, String) {
    (
        problem.cluster.clone(),
        problem.hub.clone(),
        problem.message.clone(),
    )
}

/// Writes the files, if they are still as they were read. Meanwhile no other process of this user does so here.
pub(crate) fn write(tree: &Tree, edited: &[&Edited]) -> Result<()> {
    let _lock = lock(tree)?;
    let mut files = Vec::new();
    for edited in edited {
        let now = tree
            .read(&edited.real)
            .with_context(|| format!("`{}`", edited.file.display()))?;
        ensure!(
            now == edited.old,
            "`{}` was changed meanwhile: nothing was written",
            edited.file.display()
        );
        files.push(Replacement {
            file: tree.root().join(&edited.real),
            old: &edited.old,
            new: edited.text.as_bytes(),
        });
    }
    paths::replace_all(&files)
}

/// Locks the repository's files against others who set values.
pub(crate) fn lock(tree: &Tree) -> Result<File> {
    let root = tree.root().canonicalize();
    let root = root.with_context(|| format!("cannot open `{}`", tree.root().display()))?;
    let name = digest_of([root.as_os_str().as_bytes()]);
    let file = paths::cache()?.join("config-set").join(name);
    paths::lock(&file, "sets a value")
}

/// The command that shows what a deploy of these releases would change, in one cluster.
pub(crate) fn next<'a>(releases: impl IntoIterator<Item = &'a str>) -> String {
    let releases = releases.into_iter();
    let releases: BTreeSet<_> = releases.filter_map(|it| it.split_once('/')).collect();
    let Some((cluster, first)) = releases.first() else {
        return String::new();
    };
    let hubs = releases
        .iter()
        .filter(|it| it.0 == *cluster && it.1 != "support");
    let hubs: Vec<_> = hubs.map(|it| it.1).collect();
    if *first == "support" && hubs.is_empty() {
        return format!("`cargo xtask deploy-support {cluster} --diff --dry-run`");
    }
    format!(
        "`cargo xtask deploy {cluster} {} --diff --dry-run`",
        hubs.join(" ")
    )
}
