//! Versions and ranges of them, as helm compares them.

use anyhow::{Context, Result};
use semver::{Version, VersionReq};

/// Whether a version is the wanted one, or in the wanted range as helm writes ranges: `1.2.3`, `~1.2`, `>=1.2 <2`,
/// `1.x || 2.x`. An empty range takes any version.
pub(crate) fn satisfies(version: &str, wanted: &str) -> Result<bool> {
    if wanted.is_empty() || version == wanted {
        return Ok(true);
    }
    let version = parse(version).with_context(|| format!("`{version}` is not a version"))?;
    if let Ok(wanted) = parse(wanted) {
        return Ok(version == wanted);
    }
    for range in wanted.split("||") {
        let range = parse_range(range)
            .with_context(|| format!("cannot understand the version `{wanted}`"))?;
        if range.matches(&version) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A range without `||`: bounds with blanks or commas between them.
fn parse_range(range: &str) -> Result<VersionReq, semver::Error> {
    let bounds = range.split([' ', ',']).filter(|it| !it.is_empty());
    VersionReq::parse(&bounds.collect::<Vec<_>>().join(", "))
}

fn parse(version: &str) -> Result<Version, semver::Error> {
    Version::parse(version.trim().trim_start_matches('v'))
}
