//! The programs of a rehearsal cluster.

use std::path::Path;

use anyhow::Result;
use rustix::process::Pid;

/// The running programs of the cluster in this folder, with their command lines. All but those in containers are started by
/// paths below the folder, so that this finds them whatever was killed, and never somebody else's.
pub(crate) fn processes(dir: &Path) -> Result<Vec<(Pid, String)>> {
    let below = format!("{}/", dir.display());
    Ok(command_lines()?
        .into_iter()
        .filter(|(_, command)| command.starts_with(&below))
        .collect())
}

/// The command lines of all running processes.
#[cfg(target_os = "linux")]
pub(crate) fn command_lines() -> Result<Vec<(Pid, String)>> {
    use std::fs;

    use anyhow::Context;

    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read `/proc`")? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|it| it.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        // A process may be gone by now.
        if let Ok(command) = fs::read(entry.path().join("cmdline")) {
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    Ok(found)
}

/// The command lines of all running processes.
#[cfg(not(target_os = "linux"))]
pub(crate) fn command_lines() -> Result<Vec<(Pid, String)>> {
    let sh = xshell::Shell::new()?;
    let lines = crate::machine::process::read(&sh, xshell::cmd!(sh, "ps -axo pid=,command="))?;
    let parsed = lines.lines().filter_map(|line| {
        let (pid, command) = line.trim_start().split_once(' ')?;
        let pid = Pid::from_raw(pid.parse().ok()?)?;
        Some((pid, command.to_owned()))
    });
    Ok(parsed.collect())
}
