//! Differences of releases, shown to a person.

use std::{env, io::IsTerminal};

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
                terminal::print(&format!("# {name}\n{}", coloured(&mask.hide(&text))))?;
            }
            Err(err) => failures.push(format!("`{name}`: {}", mask.hide(&format!("{err:#}")))),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(differs)
}

/// In colours where a person sees them.
fn coloured(text: &str) -> String {
    let wants_colours = env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    if std::io::stdout().is_terminal() && wants_colours {
        terminal::coloured(text)
    } else {
        text.to_owned()
    }
}
