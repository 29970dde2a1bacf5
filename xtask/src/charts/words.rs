//! The words of a chart, which nobody needs to hide.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;

use crate::charts::{
    archive::{self, Content},
    files,
};

/// The words of all files of a chart and of the packed charts in it.
pub(crate) fn words(chart: &Path) -> Result<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    add_words(&files::cached_files(chart)?, &mut words)?;
    Ok(words)
}

fn add_words(files: &Content, words: &mut BTreeSet<String>) -> Result<()> {
    for (path, content) in files {
        if path.extension().is_some_and(|it| it == "tgz") {
            add_words(&archive::unpack(content)?, words)?;
        } else {
            let text = String::from_utf8_lossy(content);
            words.extend(words_of(&text).map(str::to_owned));
        }
    }
    Ok(())
}

/// The words of a text: letters and digits that follow one another.
pub(crate) fn words_of(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|it: char| !it.is_alphanumeric());
    words.filter(|it| !it.is_empty())
}
