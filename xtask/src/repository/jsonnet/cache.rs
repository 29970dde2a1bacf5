//! What files in jsonnet made, kept in the cache: evaluating all of a fleet's takes seconds.
//!
//! There is one entry for each file and each release, which the next one replaces. It says of what it was made, and counts
//! only as long as all of that is the same.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    machine::{digest::digest_of, paths, tree::Tree},
    repository::jsonnet::evaluator::{Evaluated, Made, Places, Sources, Wanted},
};

/// What made the entries: the program, and how they are written.
const PROGRAM: [&str; 5] = [
    "1",
    include_str!("../../../tools/jsonnet/main.go"),
    include_str!("../../../tools/jsonnet/places.go"),
    include_str!("../../../tools/jsonnet/go.mod"),
    include_str!("../../../tools/jsonnet/go.sum"),
];

/// The digest of `PROGRAM`.
pub(super) fn program() -> String {
    digest_of(PROGRAM.iter().map(|it| it.as_bytes()))
}

pub(super) struct Cache<'a> {
    tree: &'a Tree,
    folder: PathBuf,
    program: String,
    /// Digests of files, by their paths from the root. A repository does not change meanwhile.
    digests: BTreeMap<PathBuf, Option<String>>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    program: String,
    sources: Sources,
    places: Places,
    json: String,
}

impl<'a> Cache<'a> {
    pub(super) fn open(tree: &'a Tree) -> Result<Cache<'a>> {
        Ok(Cache {
            tree,
            folder: paths::cache()?.join("jsonnet"),
            program: program(),
            digests: BTreeMap::new(),
        })
    }

    /// What a file made, if it would make the same now.
    pub(super) fn find(&mut self, wanted: &Wanted) -> Option<Evaluated> {
        let entry = fs::read(self.file(wanted)).ok()?;
        let Entry {
            program,
            sources,
            places,
            json,
        } = serde_json::from_slice(&entry).ok()?;
        let is_same = program == self.program
            && sources
                .iter()
                .all(|(path, digest)| self.digest(path) == *digest);
        let made = Ok(Made { json, places });
        is_same.then_some(Evaluated { made, sources })
    }

    /// Keeps what a file made.
    pub(super) fn keep(&self, wanted: &Wanted, evaluated: &Evaluated) {
        let Evaluated { made, sources } = evaluated;
        let Ok(made) = made else { return };
        let entry = Entry {
            program: self.program.clone(),
            sources: sources.clone(),
            places: made.places.clone(),
            json: made.json.clone(),
        };
        // Without an entry it is evaluated again.
        if let Ok(entry) = serde_json::to_vec(&entry) {
            let _ = paths::write_whole(&self.file(wanted), &entry);
        }
    }

    fn file(&self, wanted: &Wanted) -> PathBuf {
        // A file may ask by which path it was found.
        let file = self.tree.root().join(&wanted.file);
        let variables = wanted.variables.iter();
        let variables = variables.flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        let parts = [file.as_os_str().as_encoded_bytes()];
        self.folder
            .join(digest_of(parts.into_iter().chain(variables)))
    }

    /// The digest of what the repository has at a path from the root now.
    fn digest(&mut self, path: &Path) -> Option<String> {
        if let Some(known) = self.digests.get(path) {
            return known.clone();
        }
        let content = self.tree.read_if_there(path).ok().flatten();
        let digest = content.as_deref().map(|it| digest_of([it]));
        self.digests.insert(path.to_owned(), digest.clone());
        digest
    }
}
