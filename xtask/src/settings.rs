//! `config/xtask.yaml`: the deployer's own settings.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

/// From the root. A repository without it has the defaults.
const FILE: &str = "config/xtask.yaml";

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// How addresses that charts and manifests are fetched from begin, and what they begin with in their stead.
    pub(crate) chart_mirrors: BTreeMap<String, String>,
}

impl Settings {
    pub(crate) fn load(root: &Path) -> Result<Settings> {
        let text = match fs::read_to_string(root.join(FILE)) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Settings::default()),
            read => read.with_context(|| format!("cannot read `{FILE}`"))?,
        };
        // A file of comments alone is null.
        let settings: Option<Settings> =
            serde_yaml::from_str(&text).with_context(|| format!("{FILE}: not the deployer's settings"))?;
        Ok(settings.unwrap_or_default())
    }

    /// Where to fetch what is at `address`: there, or at the mirror with the longest prefix of it, in whole steps of its path.
    pub(crate) fn mirrored(&self, address: &str) -> String {
        let replaced = self.chart_mirrors.iter().filter_map(|(prefix, mirror)| {
            let prefix = prefix.trim_end_matches('/');
            let rest = address.strip_prefix(prefix)?;
            (rest.is_empty() || rest.starts_with('/'))
                .then(|| (prefix.len(), format!("{}{rest}", mirror.trim_end_matches('/'))))
        });
        replaced.max().map_or_else(|| address.to_owned(), |(_, mirrored)| mirrored)
    }
}
