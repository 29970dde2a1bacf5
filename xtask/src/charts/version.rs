//! Versions and ranges of them, as helm reads and compares them: by the Go library Masterminds/semver v3.5.0, with its
//! surprises. `1.2` is any 1.2, `^*` is 0.0.0 alone, `1 ||2 - 3` is refused, and a pre-release is taken only if one of the
//! bounds beside it has a pre-release, too.

use std::{cmp::Ordering, sync::LazyLock};

use anyhow::{Context, Result};
use regex::Regex;

const MOST_BYTES_OF_VERSION: usize = 256;
const MOST_BYTES_OF_RANGE: usize = 512;
const MOST_ALTERNATIVES: usize = 32;

/// What Go's `\s` matches.
const BLANKS: [char; 5] = ['\t', '\n', '\x0c', '\r', ' '];

/// Longer ones first.
const OPERATORS: [(&str, Operator); 11] = [
    (">=", Operator::AtLeast),
    ("=>", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("=<", Operator::AtMost),
    ("!=", Operator::Not),
    ("~>", Operator::Tilde),
    (">", Operator::Above),
    ("<", Operator::Below),
    ("=", Operator::Like),
    ("~", Operator::Tilde),
    ("^", Operator::Caret),
];

/// `1.2 - 2`. helm looks for it before it looks for `||`, which it takes for part of a number here.
static HYPHEN: LazyLock<Regex> = LazyLock::new(|| {
    let blank = r"[\t\n\x0c\r ]";
    let numbers = r"[0-9|xX*]+(?:\.[0-9|xX*]+){0,2}";
    let names = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*";
    let bound = format!(r"v?{numbers}(?:-{names})?(?:\+{names})?");
    Regex::new(&format!(
        "{blank}*({bound}){blank}+-{blank}+({bound}){blank}*"
    ))
    .expect("the expression is whole")
});

/// A version. What follows a `+` does not count.
pub(crate) struct Version {
    numbers: [u64; 3],
    prerelease: String,
}

/// A range of versions.
pub(crate) struct Range {
    /// Bounds that hold together.
    alternatives: Vec<Vec<Bound>>,
}

struct Bound {
    operator: Operator,
    version: Version,
    /// How many of the numbers are given, if not all are: `1.x` has one.
    given: Option<usize>,
}

#[derive(Clone, Copy)]
enum Operator {
    Like,
    Not,
    Above,
    AtLeast,
    Below,
    AtMost,
    Tilde,
    Caret,
}

/// Whether a version is the wanted one, or in the wanted range. Nothing wanted takes any version.
pub(crate) fn satisfies(version: &str, wanted: &str) -> Result<bool> {
    if wanted.is_empty() || version == wanted {
        return Ok(true);
    }
    let range = range(wanted)?;
    let parsed = Version::parse(version);
    let parsed = parsed.with_context(|| format!("`{version}` is not a version"))?;
    Ok(range.takes(&parsed))
}

/// Whether people mean one version by a text: it has all its numbers, or a pre-release as `v0.7-d5a68a3`. helm takes `0.7`
/// for a range.
pub(crate) fn is_exact(text: &str) -> bool {
    let parts = Parts::of(text).filter(|_| Version::parse(text).is_some());
    parts.is_some_and(|it| it.numbers.len() == 3 || !it.prerelease.is_empty())
}

/// 3 of `3.3.8`. None of a range, and of a version between two releases, which may have more than the first.
pub(crate) fn major_of_release(text: &str) -> Option<u64> {
    let version = Version::parse(text).filter(|_| is_exact(text))?;
    version.prerelease.is_empty().then_some(version.numbers[0])
}

/// The range that a text means: one version is a range, too.
pub(crate) fn range(text: &str) -> Result<Range> {
    let range = Range::parse(text);
    range
        .with_context(|| format!("`{text}` is neither a version nor a range that helm understands"))
}

impl Version {
    pub(crate) fn new(major: u64, minor: u64, patch: u64) -> Version {
        Version {
            numbers: [major, minor, patch],
            prerelease: String::new(),
        }
    }

    /// `1.2.3-beta.4+build`, with or without a `v`. The numbers may have zeros before them, and the last ones may be missing.
    pub(crate) fn parse(text: &str) -> Option<Version> {
        let parts = Parts::of(text)?;
        let mut version = Version::new(0, 0, 0);
        for (number, written) in version.numbers.iter_mut().zip(&parts.numbers) {
            *number = number_in(written)?;
        }
        version.prerelease = parts.prerelease.to_owned();
        Some(version)
    }

    pub(crate) fn compare(&self, other: &Version) -> Ordering {
        let order = self.numbers.cmp(&other.numbers);
        order.then_with(|| compare_prereleases(&self.prerelease, &other.prerelease))
    }
}

/// What a version, or a bound of a range, consists of.
struct Parts<'a> {
    /// One to three.
    numbers: Vec<&'a str>,
    prerelease: &'a str,
}

impl Parts<'_> {
    fn of(text: &str) -> Option<Parts<'_>> {
        if text.len() > MOST_BYTES_OF_VERSION {
            return None;
        }
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, build) = text.split_once('+').unwrap_or((text, "0"));
        let (numbers, prerelease) = match text.split_once('-') {
            Some((numbers, prerelease)) => (numbers, Some(prerelease)),
            None => (text, None),
        };
        let numbers: Vec<_> = numbers.split('.').collect();
        let is_whole = numbers.len() <= 3
            && build.split('.').all(is_name)
            && prerelease.is_none_or(|it| it.split('.').all(is_name_or_number));
        is_whole.then(|| Parts {
            numbers,
            prerelease: prerelease.unwrap_or_default(),
        })
    }
}

fn is_name(text: &str) -> bool {
    let is_allowed = |it: u8| it.is_ascii_alphanumeric() || it == b'-';
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// A number has no zeros before it.
fn is_name_or_number(text: &str) -> bool {
    let has_zeros = text.len() > 1 && text.starts_with('0') && is_digits(text);
    is_name(text) && !has_zeros
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|it| it.is_ascii_digit())
}

/// Whether helm looks at a part of a bound any further.
fn may_be_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| b"0123456789|xX*".contains(&it))
}

fn number_in(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| is_digits(text))
}

/// A version without a pre-release comes after those with one.
fn compare_prereleases(one: &str, other: &str) -> Ordering {
    if one.is_empty() || other.is_empty() {
        return one.is_empty().cmp(&other.is_empty());
    }
    let names = one.split('.').zip(other.split('.'));
    let mut orders = names.map(|(one, other)| compare_names(one, other));
    let lengths = one.split('.').count().cmp(&other.split('.').count());
    orders.find(|it| it.is_ne()).unwrap_or(lengths)
}

/// Numbers come before names. Those beyond 64 bits are names.
fn compare_names(one: &str, other: &str) -> Ordering {
    match (number_in(one), number_in(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (None, None) => one.cmp(other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    }
}

impl Range {
    pub(crate) fn parse(text: &str) -> Option<Range> {
        if text.len() > MOST_BYTES_OF_RANGE {
            return None;
        }
        let text = HYPHEN.replace_all(text, ">= $1, <= $2 ");
        let alternatives: Vec<_> = text.split("||").map(bounds).collect::<Option<_>>()?;
        (alternatives.len() <= MOST_ALTERNATIVES).then_some(Range { alternatives })
    }

    pub(crate) fn takes(&self, version: &Version) -> bool {
        let is_prerelease = !version.prerelease.is_empty();
        self.alternatives.iter().any(|bounds| {
            let takes_prereleases = bounds.iter().any(|it| !it.version.prerelease.is_empty());
            (takes_prereleases || !is_prerelease) && bounds.iter().all(|it| it.holds(version))
        })
    }
}

/// Bounds with blanks or commas between them.
fn bounds(text: &str) -> Option<Vec<Bound>> {
    let mut bounds = Vec::new();
    let mut rest = text.trim_start_matches(BLANKS);
    loop {
        let (operator, after) = operator(rest);
        let after = after.trim_start_matches(BLANKS);
        let end = after.find(|it| it == ',' || BLANKS.contains(&it));
        let (bound, after) = after.split_at(end.unwrap_or(after.len()));
        bounds.push(Bound::parse(operator, bound)?);
        rest = after.trim_start_matches(BLANKS);
        if rest.is_empty() {
            return Some(bounds);
        }
        rest = rest.strip_prefix(',').unwrap_or(rest);
        rest = rest.trim_start_matches(BLANKS);
    }
}

fn operator(text: &str) -> (Operator, &str) {
    let mut operators = OPERATORS.iter();
    let found = operators.find_map(|(sign, it)| Some((*it, text.strip_prefix(sign)?)));
    found.unwrap_or((Operator::Like, text))
}

impl Bound {
    fn parse(operator: Operator, text: &str) -> Option<Bound> {
        let parts = Parts::of(text)?;
        if !parts.numbers.iter().all(|it| may_be_number(it)) {
            return None;
        }
        let open = parts
            .numbers
            .iter()
            .position(|it| ["x", "X", "*"].contains(it));
        let given = open.unwrap_or(parts.numbers.len());
        let mut version = Version::new(0, 0, 0);
        for (number, written) in version.numbers.iter_mut().zip(&parts.numbers[..given]) {
            *number = number_in(written)?;
        }
        version.prerelease = parts.prerelease.to_owned();
        Some(Bound {
            operator,
            version,
            given: (given < 3).then_some(given),
        })
    }

    fn holds(&self, version: &Version) -> bool {
        let order = version.compare(&self.version);
        match self.operator {
            Operator::Like if self.given.is_none() => order.is_eq(),
            Operator::Like | Operator::Tilde => order.is_ge() && self.tilde(version),
            Operator::Caret => order.is_ge() && self.caret(version),
            Operator::Not => !self.is_like(version, order),
            Operator::Above => match self.given {
                None | Some(0) => order.is_gt(),
                Some(given) => version.numbers[..given] > self.version.numbers[..given],
            },
            Operator::AtLeast => order.is_ge(),
            Operator::Below => order.is_lt(),
            Operator::AtMost => match self.given {
                None => order.is_le(),
                Some(1) => version.numbers[0] <= self.version.numbers[0],
                Some(_) => version.numbers[..2] <= self.version.numbers[..2],
            },
        }
    }

    /// Whether the numbers that have to be the same are, for a `~`.
    fn tilde(&self, version: &Version) -> bool {
        match self.given {
            Some(1) => self.has_same(version, 1),
            Some(2) => self.has_same(version, 2),
            _ => self.version.numbers == [0; 3] || self.has_same(version, 2),
        }
    }

    /// Whether the numbers that have to be the same are, for a `^`: those up to the first that is not zero.
    fn caret(&self, version: &Version) -> bool {
        let first = self.version.numbers.iter().position(|it| *it > 0);
        let same = first.map_or(3, |it| it + 1);
        match self.given {
            Some(given) if given > 0 => self.has_same(version, same.min(given)),
            _ => self.has_same(version, same),
        }
    }

    fn is_like(&self, version: &Version, order: Ordering) -> bool {
        match self.given {
            Some(1) => self.has_same(version, 1),
            Some(2) => self.has_same(version, 2) && version.prerelease == self.version.prerelease,
            _ => order.is_eq(),
        }
    }

    fn has_same(&self, version: &Version, numbers: usize) -> bool {
        version.numbers[..numbers] == self.version.numbers[..numbers]
    }
}
