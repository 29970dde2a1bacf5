//! The values of one release, for commands that look something up in them.

use anyhow::Result;

use crate::{
    charts::values::EnabledChart,
    machine::parallel,
    repository::{fleet::Fleet, hub_traits::text_at, release_config::ReleaseConfig},
    secrets::Decrypter,
    yaml::{self, Data, KeyPath, Map, Node, Step},
};

/// What helm would compute, as far as the release's chart can be read.
pub(crate) struct ReleaseValues<'a> {
    pub(crate) values: Node,
    enabled: Option<EnabledChart<'a>>,
}

impl<'a> ReleaseValues<'a> {
    /// Without what is encrypted.
    pub(crate) fn plain(fleet: &'a Fleet, release: &ReleaseConfig) -> ReleaseValues<'a> {
        ReleaseValues::of(fleet, release, fleet.set(release))
    }

    /// With all of its files decrypted.
    pub(crate) fn decrypted(
        decrypter: &Decrypter,
        fleet: &'a Fleet,
        release: &ReleaseConfig,
    ) -> Result<ReleaseValues<'a>> {
        let files: Vec<_> = release.values_files().collect();
        let read = parallel::side_by_side(decrypter, &files, |decrypter, path| {
            fleet.file(release, path).open(decrypter, path)?.values()
        });
        let mut set = Map::new();
        for values in read {
            if let Data::Map(values) = values?.data {
                yaml::merge(&mut set, values);
            }
        }
        Ok(ReleaseValues::of(fleet, release, set))
    }

    fn of(fleet: &'a Fleet, release: &ReleaseConfig, set: Map) -> ReleaseValues<'a> {
        match fleet.compute(release, &set) {
            Ok((values, enabled)) => ReleaseValues {
                values,
                enabled: Some(enabled),
            },
            Err(_) => ReleaseValues {
                values: Node::nowhere(Data::Map(set)),
                enabled: None,
            },
        }
    }

    /// The text at a path, in the values of the chart or of one of its subcharts: charts that are built on basehub have
    /// its values below its name.
    pub(crate) fn text(&self, path: &[&str]) -> Option<&str> {
        let enabled = self.enabled.as_ref();
        let found = enabled.and_then(|enabled| text_at(&self.values, enabled, path));
        let of_basehub = self.values.get(&["basehub"]);
        found
            .or_else(|| self.values.text(path))
            .or_else(|| of_basehub?.text(path))
    }
}

/// Where a key leads among the values of a release. One that has nothing there is one of its subcharts', or of theirs: a
/// chart that is built on another one has that one's values below its name.
pub(crate) fn paths_of_key(key: &KeyPath, values: &Node, enabled: &EnabledChart) -> Vec<KeyPath> {
    if key.find(values).is_some() {
        return vec![key.clone()];
    }
    let mut paths = Vec::new();
    for part in &enabled.parts {
        let Some(below) = values.get(&[part.name]) else {
            continue;
        };
        for path in paths_of_key(key, below, part) {
            let first = Step::Key(part.name.to_owned());
            paths.push(KeyPath([vec![first], path.0].concat()));
        }
    }
    paths
}
