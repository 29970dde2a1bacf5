//! A hubploy.yaml, from which what has a place in cluster.yaml is taken: the rest is told.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    machine::tree::Tree,
    yaml::{self, unquoted},
};

/// What nobody has taken yet.
pub(crate) struct Leftovers {
    /// From the root.
    pub(crate) file: PathBuf,
    rest: Value,
}

impl Leftovers {
    pub(crate) fn read(tree: &Tree, file: &Path) -> Result<Leftovers> {
        let shown = file.display();
        let content = tree.read(file).with_context(|| format!("`{shown}`"))?;
        let rest = yaml::parse(&content).with_context(|| format!("cannot read `{shown}`"))?;
        Ok(Leftovers {
            file: file.to_owned(),
            rest,
        })
    }

    /// Takes the value at a path. A null is none.
    pub(crate) fn take(&mut self, path: &[&str]) -> Option<Value> {
        let (last, above) = path.split_last()?;
        let parent = above
            .iter()
            .try_fold(&mut self.rest, |it, key| it.get_mut(key));
        let taken = parent?.as_object_mut()?.remove(*last)?;
        (!taken.is_null()).then_some(taken)
    }

    /// Takes the text at a path, or another scalar as YAML writes it.
    pub(crate) fn take_text(&mut self, path: &[&str]) -> Option<String> {
        self.take(path).as_ref().map(unquoted)
    }

    /// The same, where hubploy fails without it.
    pub(crate) fn need_text(&mut self, path: &[&str]) -> Result<String> {
        let found = self.take_text(path);
        found.with_context(|| {
            let file = self.file.display();
            format!("`{file}` has no `{}`", path.join("."))
        })
    }

    /// Says of each value that is left that it has no place.
    pub(crate) fn told(&self) -> Vec<String> {
        let mut left = Vec::new();
        leaves("", &self.rest, &mut left);
        let file = self.file.display();
        let told = left.iter();
        told.map(|it| format!("{file}: `{it}` has no place in cluster.yaml"))
            .collect()
    }
}

/// Collects the scalars of a value with their paths: `cluster.kubeconfig.context: lake`.
fn leaves(path: &str, value: &Value, found: &mut Vec<String>) {
    let below = |key: &str| match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    };
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, it)| leaves(&below(key), it, found)),
        Value::Array(items) => {
            for (index, it) in items.iter().enumerate() {
                leaves(&format!("{path}[{index}]"), it, found);
            }
        }
        Value::Null => {}
        scalar => found.push(format!("{path}: {}", unquoted(scalar))),
    }
}
