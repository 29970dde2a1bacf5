//! Packaged charts, read in memory.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

/// What helm itself takes at most, decompressed (MaxDecompressedChartSize).
const MAX_SIZE: u64 = 100 * 1024 * 1024;

/// The files of a .tgz by their paths in the chart. One that isn't whole is an error.
pub(crate) fn files(archive: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let packed =
        fs::read(archive).with_context(|| format!("cannot read `{}`", archive.display()))?;
    unpack(&packed)
        .with_context(|| format!("`{}` isn't a whole archive of a chart", archive.display()))
}

/// The same for an archive in memory.
pub(crate) fn unpack(packed: &[u8]) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut tar = Vec::new();
    // To the end, whose checksum tells that nothing is missing.
    GzDecoder::new(packed)
        .take(MAX_SIZE + 1)
        .read_to_end(&mut tar)?;
    ensure!(
        tar.len() as u64 <= MAX_SIZE,
        "it holds more than {MAX_SIZE} bytes"
    );
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(&*tar).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let path: PathBuf = entry.path()?.iter().skip(1).collect();
            // What is read here may be written below a folder of ours.
            let within = path
                .components()
                .all(|it| matches!(it, Component::Normal(_)));
            ensure!(
                within,
                "`{}` would lie outside of the chart",
                path.display()
            );
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            files.insert(path, content);
        }
    }
    Ok(files)
}
