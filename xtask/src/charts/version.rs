//! Versions and ranges of them, as helm compares them.

use anyhow::{Context, Result};
use semver::VersionReq;

/// Whether a version is the wanted one, or in the wanted range as Helm writes ranges: `1.2.3`, `~1.2`, `>=1.2 <2`,
/// `1.x || 2.x`. No wish is any version.
pub(crate) fn satisfies(version: &str, wanted: &str) -> Result<bool> {
    if wanted.is_empty() || version == wanted {
        return Ok(true);
    }
    let plain = |it: &str| semver::Version::parse(it.trim().trim_start_matches('v'));
    let version = plain(version).with_context(|| format!("`{version}` isn't a version"))?;
    if let Ok(wanted) = plain(wanted) {
        return Ok(version == wanted);
    }
    for range in wanted.split("||") {
        let joined: Vec<_> = range
            .split([' ', ','])
            .filter(|it| !it.is_empty())
            .collect();
        let range = VersionReq::parse(&joined.join(", "))
            .with_context(|| format!("cannot understand the version `{wanted}`"))?;
        if range.matches(&version) {
            return Ok(true);
        }
    }
    Ok(false)
}
