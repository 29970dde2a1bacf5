//! Packaged charts, read in memory.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

/// Files by their paths in the chart.
pub(crate) type Content = BTreeMap<PathBuf, Vec<u8>>;

/// The most that helm itself takes, decompressed (MaxDecompressedChartSize).
pub(crate) const MAX_SIZE: u64 = 100 * 1024 * 1024;

/// The files of a .tgz by their paths in the chart. An incomplete archive is an error.
pub(crate) fn files(archive: &Path) -> Result<Content> {
    let packed =
        fs::read(archive).with_context(|| format!("cannot read `{}`", archive.display()))?;
    unpack(&packed)
        .with_context(|| format!("`{}` is not a whole archive of a chart", archive.display()))
}

/// The files of an archive in memory by their paths in the chart.
pub(crate) fn unpack(packed: &[u8]) -> Result<Content> {
    let tar = decompress(packed)?;
    let mut files = Content::new();
    for entry in tar::Archive::new(&*tar).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path: PathBuf = entry.path()?.iter().skip(1).collect();
        refuse_outside(&path)?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(path, content);
    }
    Ok(files)
}

/// A file of an archive may be written below a folder of ours.
fn refuse_outside(path: &Path) -> Result<()> {
    let mut steps = path.components();
    ensure!(
        steps.all(|it| matches!(it, Component::Normal(_))),
        "`{}` would lie outside of the chart",
        path.display()
    );
    Ok(())
}

/// Reads to the end, whose checksum tells that nothing is missing.
fn decompress(packed: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    GzDecoder::new(packed)
        .take(MAX_SIZE + 1)
        .read_to_end(&mut tar)?;
    ensure!(
        tar.len() as u64 <= MAX_SIZE,
        "it holds more than {MAX_SIZE} bytes"
    );
    Ok(tar)
}
