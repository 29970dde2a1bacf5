//! The images that people set in values files, and which of them are meant.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::{
    commands::image::bump::written::WrittenImage,
    machine::terminal::list,
    repository::{fleet::Fleet, images, release_config::ReleaseConfig},
    services::registry::reference::Reference,
};

/// An image in the values of a release.
pub(crate) struct Found {
    /// As in "lake/prod".
    pub(crate) release: String,
    pub(crate) image: WrittenImage,
    pub(crate) reference: Reference,
}

/// Those of all releases.
pub(crate) struct AllFound {
    pub(crate) found: Vec<Found>,
    /// The releases whose values are not known.
    pub(crate) unknown: BTreeSet<String>,
}

impl AllFound {
    /// Looks through the values of all releases. Those of the selected ones must be known.
    pub(crate) fn read(fleet: &Fleet, selected: &BTreeSet<String>) -> Result<AllFound> {
        let mut all = AllFound {
            found: Vec::new(),
            unknown: BTreeSet::new(),
        };
        let mut wrong = Vec::new();
        for release in fleet.releases() {
            match of_release(fleet, &release) {
                Ok(found) => all.found.extend(found),
                Err(err) if selected.contains(&release.path()) => {
                    wrong.push(format!("`{}`: {err:#}", release.path()));
                }
                Err(_) => {
                    all.unknown.insert(release.path());
                }
            }
        }
        if !wrong.is_empty() {
            bail!(wrong.join("\n"));
        }
        Ok(all)
    }

    /// Those of these releases that these names mean. Without names there may be only one.
    pub(crate) fn choose(
        &self,
        fleet: &Fleet,
        selected: &BTreeSet<String>,
        names: &[Reference],
    ) -> Result<Vec<&Found>> {
        let found = self.found.iter();
        let found: Vec<_> = found.filter(|it| selected.contains(&it.release)).collect();
        let by_name = by_name(found);
        if by_name.is_empty() {
            bail!("no values file of {} sets an image", list(selected));
        }
        if names.is_empty() && by_name.len() > 1 {
            bail!(
                "these hubs have several images: choose with `--image`{}",
                shown(fleet, &by_name, by_name.keys())
            );
        }
        if names.is_empty() {
            return Ok(by_name.into_values().flatten().collect());
        }
        let mut chosen = BTreeSet::new();
        let mut wrong = Vec::new();
        for name in names {
            match full_name(fleet, &by_name, name) {
                Ok(full) => {
                    chosen.insert(full);
                }
                Err(err) => wrong.push(format!("{err:#}")),
            }
        }
        if !wrong.is_empty() {
            bail!(wrong.join("\n"));
        }
        let chosen = by_name.into_iter().filter(|(it, _)| chosen.contains(it));
        Ok(chosen.flat_map(|(_, found)| found).collect())
    }
}

type ByName<'a> = BTreeMap<String, Vec<&'a Found>>;

/// By their full names.
fn by_name(found: Vec<&Found>) -> ByName<'_> {
    let mut by_name = ByName::new();
    for it in found {
        let name = it.reference.full_name();
        by_name.entry(name).or_default().push(it);
    }
    by_name
}

/// The image that is meant by its full name, or the end of it.
fn full_name(fleet: &Fleet, by_name: &ByName, name: &Reference) -> Result<String> {
    let full = name.full_name();
    if by_name.contains_key(&full) {
        return Ok(full);
    }
    let end = format!("/{}", name.name);
    let ending: Vec<_> = by_name.keys().filter(|it| it.ends_with(&end)).collect();
    match &ending[..] {
        [] => bail!(
            "these hubs have no image `{}`; there are:{}",
            name.name,
            shown(fleet, by_name, by_name.keys())
        ),
        [full] => Ok((*full).clone()),
        several => bail!(
            "several images' names end in `{}`: write more of it{}",
            name.name,
            shown(fleet, by_name, several.iter().copied())
        ),
    }
}

/// Names with the places where they are set, a line each.
fn shown<'a>(
    fleet: &Fleet,
    by_name: &ByName,
    names: impl IntoIterator<Item = &'a String>,
) -> String {
    let mut lines = String::new();
    for name in names {
        let found = &by_name[name];
        let mut by_file: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for at in found.iter().flat_map(|it| it.image.places()) {
            by_file.entry(at.file).or_default().push(at.line);
        }
        let places = by_file.into_iter();
        let places: Vec<_> = places
            .map(|(it, lines)| lines_of(fleet, it, lines))
            .collect();
        let name = &found[0].reference.name;
        lines += &format!("\n  {name}  {}", places.join("; "));
    }
    lines
}

/// "config/clusters/lake/prod.values.yaml:3, 7"
pub(crate) fn lines_of(fleet: &Fleet, file: u32, lines: impl IntoIterator<Item = u32>) -> String {
    let lines: BTreeSet<_> = lines.into_iter().collect();
    let lines: Vec<_> = lines.iter().map(u32::to_string).collect();
    format!("{}:{}", fleet.files.path(file).display(), lines.join(", "))
}

fn of_release(fleet: &Fleet, release: &ReleaseConfig) -> Result<Vec<Found>> {
    for (path, _, file) in fleet.files_of(release) {
        file.refuse_unreadable(path)?;
    }
    let (values, enabled) = fleet.compute(release, &fleet.set(release))?;
    let mut found = Vec::new();
    for named in images::named(&enabled, &values) {
        let image = WrittenImage::of(fleet, release, &named);
        if let Some(reference) = image.reference()
            && image.places().next().is_some()
        {
            found.push(Found {
                release: release.path(),
                image,
                reference,
            });
        }
    }
    Ok(found)
}
