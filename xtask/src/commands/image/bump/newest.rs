//! Which of an image's tags is the newest: by the numbers in them, since registries do not say when one was pushed.

use std::cmp::Ordering;

use anyhow::{Error, Result, anyhow, bail, ensure};
use regex::Regex;

use crate::machine::terminal::{list, number_of};

/// How many tags an error names.
const MOST_SHOWN: usize = 5;

/// From how many digits on a tag may be a commit's hash.
const SHORTEST_COMMIT: usize = 7;

/// What says that a version is not out yet, the earliest first.
const BEFORE_RELEASE: [&[&str]; 4] = [
    &["dev"],
    &["a", "alpha"],
    &["b", "beta"],
    &["c", "rc", "pre", "preview"],
];

/// What says that a version comes after the release of the same numbers.
const AFTER_RELEASE: &str = "post";

/// Which tags are in question.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    spelt: String,
    /// Matches a whole tag.
    regex: Regex,
}

/// What the newest of the tags that match is beside the present one.
pub(crate) enum Newest<'a> {
    /// It takes the place of the present one.
    Tag(&'a str),
    /// The present one is as new.
    Present,
    /// The present one is newer than this one.
    Older(&'a str),
}

/// A tag, and what of it is compared.
struct Candidate<'a> {
    tag: &'a str,
    compared: String,
}

/// What a version consists of; what is between these does not matter.
#[derive(PartialEq)]
enum Part<'a> {
    /// Digits, without zeros before them.
    Number(&'a str),
    Word(&'a str),
}

impl Wanted {
    pub(crate) fn parse(spelt: &str) -> Result<Wanted> {
        // By itself first, so that an error shows what was typed.
        Regex::new(spelt)?;
        Ok(Wanted {
            spelt: spelt.to_owned(),
            regex: Regex::new(&format!("^(?:{spelt})$"))?,
        })
    }

    /// The newest of the tags that match, beside the present one.
    pub(crate) fn newest<'a>(&self, tags: &'a [String], now: Option<&str>) -> Result<Newest<'a>> {
        let candidates: Vec<_> = tags.iter().filter_map(|it| self.candidate(it)).collect();
        ensure!(!candidates.is_empty(), "{}", self.none_of(tags));
        let newest = newest_of(&candidates)?;
        if newest.iter().any(|it| Some(it.tag) == now) {
            return Ok(Newest::Present);
        }
        let first = newest[0];
        if let Some(now) = now
            && self.is_newer(now, first)?
        {
            return Ok(Newest::Older(first.tag));
        }
        ensure!(
            newest.len() == 1,
            "{} have the same numbers\nhint: a narrower `--newest`, or `--tag`",
            list(newest.iter().map(|it| it.tag))
        );
        Ok(Newest::Tag(first.tag))
    }

    fn none_of(&self, tags: &[String]) -> String {
        if tags.is_empty() {
            return "it has no tags".to_owned();
        }
        let last = &tags[tags.len().saturating_sub(MOST_SHOWN)..];
        format!(
            "none of its {} matches `{}` as a whole; the last ones are {}",
            number_of(tags.len(), "tag"),
            self.spelt,
            list(last)
        )
    }

    /// Whether the present tag is newer than another one. One without numbers, and a commit's hash, have no age.
    fn is_newer(&self, now: &str, other: &Candidate) -> Result<bool> {
        if is_commit(now) || !now.contains(|it: char| it.is_ascii_digit()) {
            return Ok(false);
        }
        let matching = self.candidate(now);
        let order = match &matching {
            Some(now) => compare(&now.compared, &other.compared),
            None => compare(now, other.tag),
        };
        if order.is_none() && matching.is_some() {
            bail!(cannot_tell(now, other.tag));
        }
        Ok(order == Some(Ordering::Greater))
    }

    /// A tag that matches. If the expression has groups, what they match is compared.
    fn candidate<'a>(&self, tag: &'a str) -> Option<Candidate<'a>> {
        let found = self.regex.captures(tag)?;
        let groups = found.iter().skip(1).flatten();
        let groups: Vec<_> = groups.map(|it| it.as_str()).collect();
        let compared = if groups.is_empty() {
            tag.to_owned()
        } else {
            groups.join(".")
        };
        Some(Candidate { tag, compared })
    }
}

/// Those that no other one is newer than: several if they have the same numbers.
fn newest_of<'c, 't>(candidates: &'c [Candidate<'t>]) -> Result<Vec<&'c Candidate<'t>>> {
    if let Some(commit) = candidates.iter().find(|it| is_commit(&it.compared)) {
        bail!(
            "`{}` looks like a commit, and commits have no order\n\
             hint: a group in `--newest` is what is compared: `([0-9.]+)-[0-9a-f]+`",
            commit.tag
        );
    }
    let mut newest = &candidates[0];
    for it in candidates {
        if compare(&it.compared, &newest.compared) == Some(Ordering::Greater) {
            newest = it;
        }
    }
    let mut same = Vec::new();
    for it in candidates {
        match compare(&it.compared, &newest.compared) {
            Some(Ordering::Less) => {}
            Some(Ordering::Equal) => same.push(it),
            _ => bail!(cannot_tell(it.tag, newest.tag)),
        }
    }
    Ok(same)
}

fn cannot_tell(one: &str, other: &str) -> Error {
    anyhow!(
        "`{one}` and `{other}` differ in words, which do not tell which one is newer\n\
         hint: write `--newest` so that only tags of one kind match"
    )
}

/// Whether a text may be a commit's hash: hex with letters.
fn is_commit(text: &str) -> bool {
    text.len() >= SHORTEST_COMMIT
        && text
            .chars()
            .all(|it| it.is_ascii_digit() || ('a'..='f').contains(&it))
        && text.contains(|it: char| it.is_ascii_alphabetic())
}

/// Compares versions by their parts. None if words differ that say nothing about it.
fn compare(one: &str, other: &str) -> Option<Ordering> {
    let [one, other] = [one, other].map(parts);
    let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    match (one[same..].split_first(), other[same..].split_first()) {
        (None, None) => Some(Ordering::Equal),
        (Some(_), None) => beyond(&one[same..]),
        (None, Some(_)) => beyond(&other[same..]).map(Ordering::reverse),
        (Some((a, _)), Some((b, _))) => a.compare(b),
    }
}

/// How a version that goes on with these parts is to the same one without them: `1.0-rc1` comes before `1.0`, and `1.0.1`
/// after it.
fn beyond(rest: &[Part]) -> Option<Ordering> {
    if rest.iter().any(|it| it.stage().is_some()) {
        return Some(Ordering::Less);
    }
    match rest[0] {
        Part::Number(_) => Some(Ordering::Greater),
        Part::Word(word) => (word == AFTER_RELEASE).then_some(Ordering::Greater),
    }
}

fn parts(version: &str) -> Vec<Part<'_>> {
    let rest = version.strip_prefix('v').unwrap_or(version);
    let mut parts = Vec::new();
    let words = rest.split(|it: char| !it.is_ascii_alphanumeric());
    for mut word in words.filter(|it| !it.is_empty()) {
        while let Some(first) = word.bytes().next() {
            let is_number = first.is_ascii_digit();
            let end = word.find(|it: char| it.is_ascii_digit() != is_number);
            let (part, after) = word.split_at(end.unwrap_or(word.len()));
            parts.push(if is_number {
                Part::Number(part.trim_start_matches('0'))
            } else {
                Part::Word(part)
            });
            word = after;
        }
    }
    parts
}

impl Part<'_> {
    /// Of those before a release, counted from the earliest.
    fn stage(&self) -> Option<usize> {
        let Part::Word(word) = self else {
            return None;
        };
        BEFORE_RELEASE.iter().position(|it| it.contains(word))
    }

    /// Compares parts that differ.
    fn compare(&self, other: &Part) -> Option<Ordering> {
        match (self, other) {
            (Part::Number(a), Part::Number(b)) => Some((a.len(), a).cmp(&(b.len(), b))),
            _ => match (self.stage(), other.stage()) {
                (None, None) => None,
                // Two names of one stage.
                (Some(a), Some(b)) if a == b => None,
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                (Some(_), None) => Some(Ordering::Less),
                (None, Some(_)) => Some(Ordering::Greater),
            },
        }
    }
}
