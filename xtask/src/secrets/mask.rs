//! Decrypted values hidden in text.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};

use crate::{
    machine::terminal,
    secrets::{
        in_memory::InMemory,
        needles::{LONG_ENOUGH, Needles, apart},
    },
};

/// What is shown for a line that holds a secret in another form, or a part of one.
const HIDDEN_LINE: &str = "*** (this line may hold a secret)";

/// Hides decrypted values in what programs write, and calls private files by the names of their sources.
pub(crate) struct Mask {
    /// The paths of private files, and what to show for them.
    paths: Vec<(String, String)>,
    secrets: BTreeSet<String>,
    needles: Needles,
}

impl Mask {
    pub(crate) fn new<'a>(files: impl IntoIterator<Item = &'a InMemory>) -> Mask {
        let mut paths = Vec::new();
        let mut secrets = BTreeSet::new();
        for file in files {
            let path = file.file.path().display().to_string();
            paths.push((path, file.source.display().to_string()));
            secrets.extend(file.secrets.iter().cloned());
        }
        // `/proc/1/fd/1` is the beginning of `/proc/1/fd/10`.
        paths.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        Mask {
            paths,
            secrets: BTreeSet::new(),
            needles: Needles::default(),
        }
        .and(secrets)
    }

    /// A mask that hides these as well.
    pub(crate) fn and(&self, secrets: BTreeSet<String>) -> Mask {
        let mut mask = Mask {
            paths: self.paths.clone(),
            secrets: self.secrets.clone(),
            needles: self.needles.clone(),
        };
        for secret in secrets {
            if !mask.secrets.contains(&secret) {
                mask.needles.add(&secret);
                mask.secrets.insert(secret);
            }
        }
        mask
    }

    /// Tells a GitHub workflow's runner what to hide in its log, where others write to it, too.
    pub(crate) fn announce(&self) {
        if terminal::is_in_workflow() {
            let announced: BTreeSet<_> = self.secrets.iter().flat_map(|it| announced(it)).collect();
            for text in announced {
                terminal::say_as_it_is(&terminal::workflow_command("add-mask", &text));
            }
        }
    }

    /// The text with `***` for each secret that is in it as it is, and for each line that holds one in another form, or
    /// only a part of one: nobody can tell what else of the line belongs to it.
    pub(crate) fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (path, source) in &self.paths {
            if text.contains(path) {
                text = text.replace(path, source);
            }
        }
        let mut hidden = String::new();
        let mut end = 0;
        for (range, shown) in self.hidden_in(&text) {
            hidden += &text[end..range.start];
            hidden += shown;
            end = range.end;
        }
        hidden + &text[end..]
    }

    /// The parts of a text that are hidden, and what is shown for each.
    fn hidden_in(&self, text: &str) -> Vec<(Range<usize>, &'static str)> {
        let found = self.needles.find(text);
        if found.is_empty() {
            return Vec::new();
        }
        let literal = self.literal_in(text);
        let mut hidden: Vec<Range<usize>> = Vec::new();
        for part in found {
            // One line may be all of a text.
            if hidden.last().is_some_and(|it| is_within(&part, it)) {
                continue;
            }
            let whole = before(&literal, part.start).filter(|it| is_within(&part, it));
            hidden.push(whole.cloned().unwrap_or_else(|| lines_around(text, &part)));
        }
        let hidden = apart(hidden).into_iter();
        let shown = hidden.map(|it| {
            let is_literal = before(&literal, it.start) == Some(&it);
            (it, if is_literal { "***" } else { HIDDEN_LINE })
        });
        shown.collect()
    }

    /// Where secrets and lines of secrets are in the text as they are.
    fn literal_in(&self, text: &str) -> Vec<Range<usize>> {
        let lines = self.secrets.iter().flat_map(|secret| secret.lines());
        let literals = self.secrets.iter().map(|it| it.trim());
        let literals = literals.chain(lines.map(str::trim));
        // By their beginnings and lengths: the text is read once, however many there are.
        let mut wanted: HashMap<&[u8], BTreeMap<usize, HashSet<&[u8]>>> = HashMap::new();
        for literal in literals.map(str::as_bytes) {
            if literal.len() >= LONG_ENOUGH {
                let alike = wanted.entry(&literal[..LONG_ENOUGH]).or_default();
                alike.entry(literal.len()).or_default().insert(literal);
            }
        }
        let text = text.as_bytes();
        let mut found = Vec::new();
        for (start, beginning) in text.windows(LONG_ENOUGH).enumerate() {
            for (length, literals) in wanted.get(beginning).into_iter().flatten() {
                let part = start..start + length;
                if text
                    .get(part.clone())
                    .is_some_and(|it| literals.contains(it))
                {
                    found.push(part);
                }
            }
        }
        apart(found)
    }

    /// Whether a secret is found in the text.
    pub(crate) fn finds_in(&self, text: &str) -> bool {
        !self.needles.find(text).is_empty()
    }
}

/// The last of these parts that begins at or before a place. They are in order and apart.
fn before(parts: &[Range<usize>], place: usize) -> Option<&Range<usize>> {
    parts[..parts.partition_point(|it| it.start <= place)].last()
}

fn is_within(part: &Range<usize>, whole: &Range<usize>) -> bool {
    whole.start <= part.start && part.end <= whole.end
}

/// The whole lines that a part of a text is in.
fn lines_around(text: &str, part: &Range<usize>) -> Range<usize> {
    let start = text[..part.start].rfind('\n').map_or(0, |it| it + 1);
    let end = text[part.end..].find('\n');
    start..end.map_or(text.len(), |it| part.end + it)
}

/// The lines of a secret, and its base64, which a runner looks for as they are.
fn announced(secret: &str) -> BTreeSet<String> {
    let lines = secret.lines().map(|it| it.trim().to_owned());
    let mut announced: BTreeSet<_> = lines.collect();
    announced.extend((0..3).map(|before| in_base64(secret, before)));
    announced.retain(|it| it.len() >= LONG_ENOUGH);
    announced
}

/// What is certain of a secret's base64 where it follows on so many bytes, beyond a multiple of three.
fn in_base64(secret: &str, before: usize) -> String {
    let mut bytes = vec![0; before];
    bytes.extend(secret.as_bytes());
    let text = BASE64_STANDARD_NO_PAD.encode(&bytes);
    // The first characters also hold bits of what comes before, the last one of what follows.
    let end = text.len() - usize::from(!bytes.len().is_multiple_of(3));
    text[[0, 2, 3][before]..end].to_owned()
}
