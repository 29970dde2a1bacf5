//! Where in files versions of images are written, and whether they may be changed there.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    commands::image::bump::{
        found::{AllFound, Found, lines_of},
        written::Part,
    },
    machine::terminal::list,
    repository::{edited::Edited, fleet::Fleet, readers::Readers, values_file::is_jsonnet},
    services::registry::reference::Reference,
    yaml::{Place, replace::replace},
};

/// What is to be written in one place.
pub(crate) struct Edit {
    /// The image's name.
    name: String,
    /// What the place holds, and what it gets.
    old: String,
    new: String,
    releases: BTreeSet<String>,
}

/// What is to be written in all files.
pub(crate) struct Edits<'a> {
    fleet: &'a Fleet,
    readers: &'a Readers,
    by_place: BTreeMap<Place, Edit>,
    /// Why some images stay as they are.
    pub(crate) untouched: BTreeSet<String>,
    /// What is wrong, with the releases of which it is.
    wrong: BTreeMap<String, BTreeSet<String>>,
}

impl<'a> Edits<'a> {
    pub(crate) fn new(fleet: &'a Fleet, readers: &'a Readers) -> Edits<'a> {
        Edits {
            fleet,
            readers,
            by_place: BTreeMap::new(),
            untouched: BTreeSet::new(),
            wrong: BTreeMap::new(),
        }
    }

    /// Adds what gives an image of a release its new version.
    pub(crate) fn add(&mut self, found: &Found, new: &Reference) {
        let parts = found.image.parts(new);
        let added = parts.and_then(|parts| {
            let mut parts = parts.into_iter();
            parts.try_for_each(|it| self.add_part(found, it))
        });
        if let Err(err) = added {
            let releases = self.wrong.entry(format!("{err:#}")).or_default();
            releases.insert(found.release.clone());
        }
    }

    fn add_part(&mut self, found: &Found, part: Part) -> Result<()> {
        let name = &found.reference.name;
        let Some(at) = part.written.at else {
            bail!(
                "`{name}` has `{}` from a chart, and no values file sets it\nhint: `config set` does",
                part.written.text
            );
        };
        if let Some(why) = why_untouched(self.fleet, at) {
            let place = self.fleet.shown(at);
            let untouched = format!("{place} sets `{name}` of {}: {why}", found.release);
            self.untouched.insert(untouched);
            return Ok(());
        }
        let at = self.readers.one_place(self.fleet, at);
        let edit = self.by_place.entry(at).or_insert_with(|| Edit {
            name: name.clone(),
            old: part.written.text.clone(),
            new: part.new.clone(),
            releases: BTreeSet::new(),
        });
        ensure!(
            edit.new == part.new,
            "{} is a part of `{}` and of `{name}`, which would get `{}` and `{}`",
            self.fleet.shown(at),
            edit.name,
            edit.new,
            part.new
        );
        edit.releases.insert(found.release.clone());
        Ok(())
    }

    /// Refuses what would change for other releases as well, or for another image.
    pub(crate) fn refuse_shared(&mut self, all: &AllFound) {
        let mut shared: BTreeMap<(u32, &str, BTreeSet<String>), Vec<u32>> = BTreeMap::new();
        for (at, edit) in &self.by_place {
            let mut others = self.others(*at, all);
            others.retain(|it| !edit.releases.contains(it));
            if !others.is_empty() {
                let lines = shared.entry((at.file, &edit.name, others)).or_default();
                lines.push(at.line);
            }
        }
        for ((file, name, others), lines) in shared {
            let message = format!(
                "{} sets `{name}` also for {}\n\
                 hint: name these as well; `config set` with `--file` sets another one for a hub alone",
                lines_of(self.fleet, file, lines),
                list(others),
            );
            self.wrong.insert(message, BTreeSet::new());
        }
    }

    /// The releases that have a part of an image from a place, or may have it.
    fn others(&self, at: Place, all: &AllFound) -> BTreeSet<String> {
        let path = self.fleet.files.path(at.file);
        let mut others: BTreeSet<_> = all
            .found
            .iter()
            .filter(|it| {
                it.image
                    .places()
                    .any(|it| self.readers.is_one_place(self.fleet, it, at))
            })
            .map(|it| it.release.clone())
            .collect();
        for release in self.fleet.releases() {
            let name = release.path();
            let mut listed = release.values_files();
            let is_listed = listed.any(|it| self.readers.real(it) == self.readers.real(path));
            let is_known = is_listed && !all.unknown.contains(&name);
            if !is_known && self.readers.of(path).contains(&name) {
                others.insert(name);
            }
        }
        others
    }

    /// The files with their new texts. The error has all that is wrong.
    pub(crate) fn files(&self) -> Result<Vec<Edited>> {
        let mut wrong = Vec::new();
        for (message, releases) in &self.wrong {
            let of = if releases.is_empty() {
                String::new()
            } else {
                format!("{}: ", list(releases))
            };
            wrong.push(format!("{of}{message}"));
        }
        if self.by_place.is_empty() {
            wrong.extend(self.untouched.iter().cloned());
        }
        if !wrong.is_empty() {
            bail!(wrong.join("\n"));
        }
        let mut by_file: BTreeMap<u32, BTreeMap<Place, String>> = BTreeMap::new();
        for (at, edit) in &self.by_place {
            let of_file = by_file.entry(at.file).or_default();
            of_file.insert(*at, edit.new.clone());
        }
        let mut files = Vec::new();
        for (number, new) in by_file {
            let path = self.fleet.files.path(number);
            let mut edited = Edited::new(self.fleet, self.readers, path);
            edited.text =
                replace(&edited.text, &new).with_context(|| path.display().to_string())?;
            files.push(edited);
        }
        Ok(files)
    }

    /// What is written where, a line for each place.
    pub(crate) fn told(&self) -> String {
        let mut lines = String::new();
        for (at, edit) in &self.by_place {
            let releases: Vec<_> = edit.releases.iter().map(String::as_str).collect();
            lines += &format!(
                "{}: {} {} → {} for {}\n",
                self.fleet.shown(*at),
                edit.name,
                without(&edit.name, &edit.old),
                without(&edit.name, &edit.new),
                releases.join(", ")
            );
        }
        lines
    }

    /// The releases whose values change.
    pub(crate) fn releases(&self) -> BTreeSet<&str> {
        let edits = self.by_place.values();
        let releases = edits.flat_map(|it| &it.releases);
        releases.map(String::as_str).collect()
    }
}

/// Why what is in a place is not for us to change.
fn why_untouched(fleet: &Fleet, at: Place) -> Option<String> {
    let path = fleet.files.path(at.file);
    match fleet.values.get(path).filter(|_| !is_jsonnet(path)) {
        None => Some("jsonnet makes it".to_owned()),
        Some(file) if file.is_encrypted() => Some(format!(
            "it is encrypted; `sops edit {}` changes it",
            path.display()
        )),
        Some(_) => None,
    }
}

/// A version without the image's name before it.
fn without<'t>(name: &str, text: &'t str) -> &'t str {
    let version = text.strip_prefix(name).and_then(|it| it.strip_prefix(':'));
    version.unwrap_or(text)
}
