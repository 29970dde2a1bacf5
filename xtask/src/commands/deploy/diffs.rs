//! Differences of releases, shown to a person.

use anyhow::{Result, ensure};

use crate::{machine::terminal, secrets::Mask};

/// Prints what would change, release by release. Returns whether anything would.
pub(crate) fn show(mask: &Mask, diffs: Vec<(&str, Result<String>)>) -> Result<bool> {
    let mut differs = false;
    let mut failures = Vec::new();
    for (name, result) in diffs {
        match result {
            Ok(text) if text.is_empty() => say!("{name}: nothing would change"),
            Ok(text) => {
                differs = true;
                terminal::print_diff(&format!("# {name}\n{text}"))?;
            }
            Err(err) => failures.push(format!("`{name}`: {}", mask.hide(&format!("{err:#}")))),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(differs)
}
