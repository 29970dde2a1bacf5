//! Which releases get values from which files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    repository::{fleet::Fleet, release_config::ReleaseConfig},
    yaml::Place,
};

/// Which releases get values from which files.
pub(crate) struct Readers {
    /// By the paths as they are listed, where the files are without links.
    real: BTreeMap<PathBuf, PathBuf>,
    /// By those, the releases that list a file, or import it in jsonnet.
    releases: BTreeMap<PathBuf, BTreeSet<String>>,
}

impl Readers {
    pub(crate) fn find(fleet: &Fleet, releases: &[ReleaseConfig]) -> Readers {
        let mut readers = Readers {
            real: BTreeMap::new(),
            releases: BTreeMap::new(),
        };
        for release in releases {
            let imported = fleet.imported_by(release).map(PathBuf::as_path);
            for path in release.values_files().chain(imported) {
                let real = readers.add(fleet, path);
                let known = readers.releases.entry(real).or_default();
                known.insert(release.path());
            }
        }
        readers
    }

    /// Where a file is without links.
    fn add(&mut self, fleet: &Fleet, path: &Path) -> PathBuf {
        let real = self.real.entry(path.to_owned());
        real.or_insert_with(|| fleet.tree.real(path)).clone()
    }

    pub(crate) fn real(&self, path: &Path) -> PathBuf {
        self.real[path].clone()
    }

    /// A place, by the first of the paths under which the fleet has its file.
    pub(crate) fn one_place(&self, fleet: &Fleet, at: Place) -> Place {
        let names = self.names(fleet, fleet.files.path(at.file));
        Place {
            file: fleet.values[&names[0]].number,
            ..at
        }
    }

    /// Whether a place is another one, in a file that may have several paths.
    pub(crate) fn is_one_place(&self, fleet: &Fleet, at: Place, other: Place) -> bool {
        let [path, of_other] = [at, other].map(|it| fleet.files.path(it.file));
        (at.line, at.column) == (other.line, other.column)
            && self.real.get(path) == self.real.get(of_other)
    }

    /// The paths under which the fleet has a file.
    pub(crate) fn names(&self, fleet: &Fleet, path: &Path) -> Vec<PathBuf> {
        let real = self.real(path);
        let known = fleet.values.keys();
        let same = known.filter(|it| self.real.get(*it) == Some(&real));
        same.cloned().collect()
    }

    /// The releases that a file is for.
    pub(crate) fn of(&self, path: &Path) -> &BTreeSet<String> {
        &self.releases[&self.real[path]]
    }

    /// Those beyond these.
    pub(crate) fn others(&self, path: &Path, named: &[String]) -> Vec<&String> {
        let of = self.of(path).iter();
        of.filter(|it| !named.contains(it)).collect()
    }
}
