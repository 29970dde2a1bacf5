//! Files with new values in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use similar::TextDiff;
use xshell::Shell;

use crate::{
    commands::config::set::place::{Readers, shown},
    machine::{
        digest::digest_of,
        paths::{self, Replacement},
        tree::Tree,
    },
    repository::{
        fleet::Fleet,
        problem::{Level, Problem, once, text},
        rules,
        values_file::ValuesFile,
    },
    yaml::{
        Data, KeyPath, Node,
        edit::{self, NewValue},
    },
};

/// A file with its new text.
pub(crate) struct Change {
    /// As the file is listed.
    file: PathBuf,
    /// Where it is, without links.
    real: PathBuf,
    /// All the ways in which it is listed.
    names: Vec<PathBuf>,
    text: String,
    /// The releases that it is for.
    readers: BTreeSet<String>,
    /// The values in it, each with the releases that it is for.
    pub(crate) values: BTreeMap<KeyPath, NewInFile>,
}

pub(crate) struct NewInFile {
    pub(crate) value: NewValue,
    pub(crate) old: Option<Node>,
    pub(crate) releases: Vec<String>,
}

impl Change {
    pub(crate) fn new(fleet: &Fleet, readers: &Readers, file: &Path) -> Change {
        Change {
            file: file.to_owned(),
            real: readers.real(file),
            names: readers.names(fleet, file),
            text: old_text(fleet, file),
            readers: readers.of(file).clone(),
            values: BTreeMap::new(),
        }
    }

    /// Writes the values into the text.
    pub(crate) fn edit(&mut self) -> Result<()> {
        for (path, new) in &self.values {
            self.text = edit::set(&self.text, path, &new.value)
                .with_context(|| format!("{}: `{path}`", self.file.display()))?;
        }
        Ok(())
    }

    pub(crate) fn differs(&self, fleet: &Fleet) -> bool {
        self.text != old_text(fleet, &self.file)
    }

    pub(crate) fn diff(&self, fleet: &Fleet) -> String {
        let path = self.file.display();
        TextDiff::from_lines(old_text(fleet, &self.file).as_str(), &self.text)
            .unified_diff()
            .header(&format!("a/{path}"), &format!("b/{path}"))
            .to_string()
    }

    /// What was written where; the fleet has it already.
    pub(crate) fn told(&self, fleet: &Fleet) -> String {
        let mut lines = String::new();
        for (path, new) in &self.values {
            let now = fleet.values[&self.file]
                .plain()
                .and_then(|it| path.find(it));
            let line = now.and_then(|it| it.at).map_or(1, |it| it.line);
            let file = self.file.display();
            let value = new.value.node.to_json();
            let wanted = new.releases.join(", ");
            let mut others: Vec<_> = self.readers.iter().cloned().collect();
            others.retain(|it| !new.releases.contains(it));
            let others = match &others[..] {
                [] => String::new(),
                [other] => format!(", and {other} reads it, too"),
                others => format!(", and {} read it, too", others.join(", ")),
            };
            let old = new.old.as_ref().map(|it| shown_value(fleet, it));
            let old = old.as_deref().unwrap_or("nothing");
            lines +=
                &format!("{file}:{line}: `{path}` is {value} for {wanted}{others} (was {old})\n");
        }
        lines
    }
}

/// A value as people may see it: nothing of an encrypted file is shown.
fn shown_value(fleet: &Fleet, node: &Node) -> String {
    let file = node.at.map(|at| fleet.files.path(at.file));
    let file = file.and_then(|it| fleet.values.get(it));
    if file.is_some_and(ValuesFile::is_encrypted) {
        return "***".to_owned();
    }
    node.to_json().to_string()
}

fn old_text(fleet: &Fleet, file: &Path) -> String {
    String::from_utf8_lossy(&fleet.values[file].content).into_owned()
}

/// What the files had when they were read.
pub(crate) fn with_old_content(fleet: &Fleet, changed: &[Change]) -> Vec<Vec<u8>> {
    let files = changed.iter();
    files
        .map(|it| fleet.values[&it.file].content.clone())
        .collect()
}

/// Puts the new texts into the fleet, and refuses them if they make a problem, or have no effect.
pub(crate) fn check(sh: &Shell, fleet: &mut Fleet, changed: &[Change]) -> Result<()> {
    let before: BTreeSet<_> = problems(sh, fleet, changed).iter().map(essence).collect();
    for change in changed {
        for path in &change.names {
            let number = fleet.values[path].number;
            let content = change.text.clone().into_bytes();
            let file = ValuesFile::of(path, content, number);
            fleet.values.insert(path.clone(), file);
        }
    }
    let mut new = problems(sh, fleet, changed);
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
    has_effect(fleet, changed)
}

/// The problems of all releases that read one of these files.
fn problems(sh: &Shell, fleet: &Fleet, changed: &[Change]) -> Vec<Problem> {
    let mut releases = fleet.releases();
    releases.retain(|it| {
        changed
            .iter()
            .any(|change| change.readers.contains(&it.path()))
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

/// Refuses what another file sets again.
fn has_effect(fleet: &Fleet, changed: &[Change]) -> Result<()> {
    for release in fleet.releases() {
        let set = Node::nowhere(Data::Map(fleet.set(&release)));
        for change in changed {
            for (path, new) in &change.values {
                if !new.releases.contains(&release.path()) {
                    continue;
                }
                let now = path.find(&set);
                if now.is_none_or(|it| it.to_json() != new.value.node.to_json()) {
                    let place = now.and_then(|it| it.at).map(|it| shown(fleet, it));
                    bail!(
                        "`{}`: nothing was written, for it would change nothing: {} sets `{path}` after `{}`",
                        release.path(),
                        place.unwrap_or_else(|| "another file".to_owned()),
                        change.file.display()
                    );
                }
            }
        }
    }
    Ok(())
}

/// Writes the files, if they are still as they were read. Meanwhile no other process of this user does so here.
pub(crate) fn write(tree: &Tree, changed: &[Change], before: &[Vec<u8>]) -> Result<()> {
    let _lock = lock(tree)?;
    let mut files = Vec::new();
    for (change, old) in changed.iter().zip(before) {
        let now = tree
            .read(&change.real)
            .with_context(|| format!("`{}`", change.file.display()))?;
        ensure!(
            now == *old,
            "`{}` was changed meanwhile: nothing was written",
            change.file.display()
        );
        files.push(Replacement {
            file: tree.root().join(&change.real),
            old,
            new: change.text.as_bytes(),
        });
    }
    paths::replace_all(&files)
}

/// Locks the repository's files against others who set values.
fn lock(tree: &Tree) -> Result<File> {
    let root = tree.root().canonicalize();
    let root = root.with_context(|| format!("cannot open `{}`", tree.root().display()))?;
    let name = digest_of([root.as_os_str().as_bytes()]);
    let file = paths::cache()?.join("config-set").join(name);
    paths::lock(&file, "sets a value")
}
