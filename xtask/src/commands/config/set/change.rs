//! Files with new values in them.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail};

use crate::{
    repository::{edited::Edited, fleet::Fleet, readers::Readers, values_file::ValuesFile},
    yaml::{
        Data, KeyPath, Node,
        edit::{self, NewValue},
    },
};

/// A file with its new text.
pub(crate) struct Change {
    pub(crate) edited: Edited,
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
            edited: Edited::new(fleet, readers, file),
            values: BTreeMap::new(),
        }
    }

    /// Writes the values into the text.
    pub(crate) fn edit(&mut self) -> Result<()> {
        for (path, new) in &self.values {
            self.edited.text = edit::set(&self.edited.text, path, &new.value)
                .with_context(|| format!("{}: `{path}`", self.edited.file.display()))?;
        }
        Ok(())
    }

    /// What was written where; the fleet has it already.
    pub(crate) fn told(&self, fleet: &Fleet) -> String {
        let mut lines = String::new();
        for (path, new) in &self.values {
            let now = fleet.values[&self.edited.file]
                .plain()
                .and_then(|it| path.find(it));
            let line = now.and_then(|it| it.at).map_or(1, |it| it.line);
            let file = self.edited.file.display();
            let value = new.value.node.to_json();
            let wanted = new.releases.join(", ");
            let mut others: Vec<_> = self.edited.readers.iter().cloned().collect();
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

/// Refuses what another file sets again.
pub(crate) fn has_effect(fleet: &Fleet, changed: &[Change]) -> Result<()> {
    for release in fleet.releases() {
        let set = Node::nowhere(Data::Map(fleet.set(&release)));
        for change in changed {
            for (path, new) in &change.values {
                if !new.releases.contains(&release.path()) {
                    continue;
                }
                let now = path.find(&set);
                if now.is_none_or(|it| it.to_json() != new.value.node.to_json()) {
                    let place = now.and_then(|it| it.at).map(|it| fleet.shown(it));
                    bail!(
                        "`{}`: nothing was written, for it would change nothing: {} sets `{path}` after `{}`",
                        release.path(),
                        place.unwrap_or_else(|| "another file".to_owned()),
                        change.edited.file.display()
                    );
                }
            }
        }
    }
    Ok(())
}
