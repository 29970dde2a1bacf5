//! The minor versions of Kubernetes that a cluster may run, and the kinds of objects that each of them has.

use std::fmt;

use anyhow::{Context, Error};
use serde::Deserialize;

use crate::machine::programs::{self, Version};

/// Written by `generate kubernetes-kinds`; its first lines say how to read it.
pub(crate) const TABLE: &str = include_str!("kubernetes-kinds.txt");

/// Groups that Kubernetes had before the versions in the table.
const REMOVED_GROUPS: [&str; 3] = ["auditregistration.k8s.io", "extensions", "settings.k8s.io"];

/// A minor version of Kubernetes, known by one release of it.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Kubernetes(Version);

impl Kubernetes {
    /// All that the table has, the oldest first.
    pub(crate) fn known() -> impl Iterator<Item = Kubernetes> {
        let releases = lines().next().unwrap_or_default().split(' ');
        releases.filter_map(Version::in_text).map(Kubernetes)
    }

    /// Such as `1.34`.
    pub(crate) fn minor(self) -> String {
        self.0.minor()
    }

    /// `GROUP/VERSION/KIND` of all that its API may have, and `VERSION/KIND` in the core group.
    pub(crate) fn kinds(self) -> impl Iterator<Item = &'static str> {
        let minor = self.minor();
        let rows = rows().filter(move |(_, minors)| minors.contains(&minor));
        rows.map(|(kind, _)| kind)
    }

    /// The API version that has objects of this kind: the newest one, of the given group if that has any, and one that
    /// is on by default if there is any.
    pub(crate) fn version_of(self, kind: &str, group: &str) -> Option<&'static str> {
        let all = self.kinds().filter_map(|it| it.rsplit_once('/'));
        let versions = all
            .filter(|(_, of)| *of == kind)
            .map(|(version, _)| version);
        versions.max_by_key(|it| (group_of(it) == group, is_on_by_default(it)))
    }
}

impl Default for Kubernetes {
    /// The one that the rehearsal cluster runs.
    fn default() -> Kubernetes {
        Kubernetes(programs::KUBERNETES)
    }
}

impl TryFrom<String> for Kubernetes {
    type Error = Error;

    fn try_from(minor: String) -> Result<Kubernetes, Error> {
        let mut known = Kubernetes::known();
        let found = known.find(|it| it.minor() == minor);
        found.with_context(|| format!("Kubernetes {minor} is not known"))
    }
}

impl fmt::Display for Kubernetes {
    /// The release, such as `1.34.4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The minor versions that have a kind, written as in the table.
pub(crate) fn minors_with(kind: &str) -> Vec<String> {
    let row = rows().find(|(known, _)| *known == kind);
    row.map(|(_, minors)| minors).unwrap_or_default()
}

/// The group in `GROUP/VERSION`; empty for `VERSION`, the core group.
pub(crate) fn group_of(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether only Kubernetes itself has kinds in this group.
pub(crate) fn is_own_group(group: &str) -> bool {
    let mut kinds = rows().filter_map(|(kind, _)| kind.rsplit_once('/'));
    REMOVED_GROUPS.contains(&group) || kinds.any(|(version, _)| group_of(version) == group)
}

/// Whether a cluster has an API version unless somebody turned it off. Alpha and beta versions have to be turned on:
/// <https://kubernetes.io/docs/reference/using-api/#api-versioning>
pub(crate) fn is_on_by_default(version: &str) -> bool {
    !version.contains("alpha") && !version.contains("beta")
}

/// The kinds in the table, with the minor versions that have each of them.
fn rows() -> impl Iterator<Item = (&'static str, Vec<String>)> {
    lines().skip(1).map(|line| match line.split_once(' ') {
        Some((kind, minors)) => (kind, minors.split(' ').map(str::to_owned).collect()),
        None => (line, Kubernetes::known().map(Kubernetes::minor).collect()),
    })
}

/// The table's lines without comments: the releases that it was made from, and then a line for each kind.
fn lines() -> impl Iterator<Item = &'static str> {
    TABLE.lines().filter(|it| !it.starts_with('#'))
}
