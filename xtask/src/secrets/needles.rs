//! Secrets as they are looked for in text.
//!
//! A secret is found by any twelve of its letters and digits that follow one another, or by all of them if it has eight
//! to eleven; shorter ones are ordinary words, too. Numbers are compared as numbers. What may be base64, base32 or
//! hexadecimal is decoded.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Range,
    sync::LazyLock,
};

use regex::Regex;

use crate::secrets::canonical::{Canonical, Keeps};

/// How many characters a secret has that is looked for in text.
pub(crate) const LONG_ENOUGH: usize = 8;

/// How many characters that follow one another in a secret show it.
const WINDOW: usize = 12;

/// How many significant digits a number has that is looked for: those with fewer are ordinary ones, too.
pub(crate) const DIGITS: usize = 6;

/// How often something may be encoded.
const DEPTH: u32 = 3;

/// What may be a number, and its digits in hexadecimal.
static NUMBERS: LazyLock<Regex> = LazyLock::new(|| {
    let decimal = r"[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?";
    regex(&format!(r"\b0x[0-9a-fA-F]+\b|{decimal}|\b[0-9a-fA-F]+\b"))
});

/// What may be base64, base32 or hexadecimal.
static ENCODED: LazyLock<Regex> = LazyLock::new(|| regex("[A-Za-z0-9+/_-]{11,}"));

/// What is left of a text that a program cut off: `abcdefg...`.
static CUT_OFF: LazyLock<Regex> = LazyLock::new(|| regex(r#"[^\s"'`]{4,64}?(?:\.\.\.|…)"#));

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("it is a pattern")
}

/// What is looked for.
#[derive(Clone, Default)]
pub(crate) struct Needles {
    /// By letters and digits.
    words: Index,
    /// By all but blanks and quotes, for secrets with few letters and digits.
    marks: Index,
    /// By their bits.
    numbers: HashSet<u64>,
    /// The secrets' first characters.
    beginnings: BTreeSet<String>,
}

/// What follows on the first characters of a needle, by these. Thousands of secrets may begin alike.
type Index = HashMap<Vec<char>, HashSet<Vec<char>>>;

fn is_mark(char: char) -> bool {
    !char.is_whitespace() && !['"', '\'', '`', '\\'].contains(&char)
}

impl Needles {
    pub(crate) fn add(&mut self, secret: &str) {
        if let Ok(number) = secret.parse::<f64>()
            && significant_digits(secret) >= DIGITS
        {
            self.numbers.insert(number.to_bits());
        }
        for read in [Canonical::plain, Canonical::unescaped] {
            let words = read(secret, char::is_alphanumeric).chars;
            let is_found_by_words = words.len() >= LONG_ENOUGH;
            if is_found_by_words {
                add_windows(&words, &mut self.words);
                self.beginnings.insert(words.iter().take(40).collect());
            } else {
                add_windows(&read(secret, is_mark).chars, &mut self.marks);
            }
        }
        // Each of its lines by itself, where it is too short for a window.
        for line in secret.lines().filter(|_| secret.contains('\n')) {
            let words = Canonical::plain(line, char::is_alphanumeric).chars;
            if words.len() < WINDOW {
                add_windows(&words, &mut self.words);
            }
        }
    }

    /// Where secrets are in a text, in order and apart from each other.
    pub(crate) fn find(&self, text: &str) -> Vec<Range<usize>> {
        apart(self.find_within(text, 0))
    }

    fn find_within(&self, text: &str, depth: u32) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        if self.words.is_empty() && self.marks.is_empty() && self.numbers.is_empty() {
            return found;
        }
        find_indexed(&self.words, text, char::is_alphanumeric, &mut found);
        find_indexed(&self.marks, text, is_mark, &mut found);
        self.find_numbers(text, &mut found);
        self.find_cut_off(text, &mut found);
        if depth < DEPTH {
            let encoded = ENCODED.find_iter(text).map(|it| it.range());
            found.extend(encoded.filter(|it| self.is_in_encoded(&text[it.clone()], depth)));
        }
        found
    }

    fn find_numbers(&self, text: &str, found: &mut Vec<Range<usize>>) {
        if self.numbers.is_empty() {
            return;
        }
        for number in NUMBERS.find_iter(text) {
            let meant = numbers_of(number.as_str());
            if meant.iter().any(|it| self.numbers.contains(&it.to_bits())) {
                found.push(number.range());
            }
        }
    }

    fn find_cut_off(&self, text: &str, found: &mut Vec<Range<usize>>) {
        for cut_off in CUT_OFF.find_iter(text) {
            // Something else may stand before it: `value=abcdefg...`.
            let starts = cut_off.as_str().char_indices().map(|(start, _)| start);
            let mut parts = starts.map(|start| &cut_off.as_str()[start..]);
            if parts.any(|it| self.begins_with(it)) {
                found.push(cut_off.range());
            }
        }
    }

    /// Whether a secret begins like this text, which is long enough to tell.
    fn begins_with(&self, text: &str) -> bool {
        let words = Canonical::unescaped(text, char::is_alphanumeric).chars;
        let beginning: String = words.iter().collect();
        let next = self.beginnings.range(beginning.clone()..).next();
        words.len() >= 4 && next.is_some_and(|it| it.starts_with(&beginning))
    }

    fn is_in_encoded(&self, text: &str, depth: u32) -> bool {
        decodings(text).any(|bytes| {
            // What is no encoding hardly ever becomes text.
            let mut texts = bytes.utf8_chunks().map(|it| it.valid());
            texts.any(|it| it.len() >= LONG_ENOUGH && !self.find_within(it, depth + 1).is_empty())
        })
    }
}

/// The same parts of a text, in order, with those that meet made one.
pub(crate) fn apart(mut parts: Vec<Range<usize>>) -> Vec<Range<usize>> {
    parts.sort_by_key(|it| (it.start, it.end));
    let mut apart: Vec<Range<usize>> = Vec::new();
    for part in parts {
        match apart.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => apart.push(part),
        }
    }
    apart
}

/// How many digits of a decimal number count.
fn significant_digits(number: &str) -> usize {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').len()
}

/// The numbers that a text may mean.
fn numbers_of(text: &str) -> Vec<f64> {
    let digits = text.trim_start_matches("0x");
    let hexadecimal = u64::from_str_radix(digits, 16).map(|it| it as f64);
    let decimal = text.replace('_', "").parse();
    decimal.into_iter().chain(hexadecimal).collect()
}

fn add_windows(secret: &[char], index: &mut Index) {
    if secret.len() < LONG_ENOUGH {
        return;
    }
    for window in secret.windows(secret.len().min(WINDOW)) {
        let (first, rest) = window.split_at(LONG_ENOUGH);
        let rests = index.entry(first.to_vec()).or_default();
        rests.insert(rest.to_vec());
    }
}

fn find_indexed(index: &Index, text: &str, keeps: Keeps, found: &mut Vec<Range<usize>>) {
    if index.is_empty() {
        return;
    }
    let plain = Canonical::plain(text, keeps);
    find_windows(index, &plain, found);
    if text.contains(['\\', '%', '&']) {
        find_windows(index, &Canonical::unescaped(text, keeps), found);
    }
}

fn find_windows(index: &Index, text: &Canonical, found: &mut Vec<Range<usize>>) {
    for (start, first) in text.chars.windows(LONG_ENOUGH).enumerate() {
        let Some(rests) = index.get(first) else {
            continue;
        };
        let after = start + LONG_ENOUGH;
        for end in after..=text.chars.len().min(start + WINDOW) {
            if rests.contains(&text.chars[after..end]) {
                found.push(text.range(start..end));
            }
        }
    }
}

/// What a text may be an encoding of. It may begin in the middle of something encoded, or end there.
fn decodings(text: &str) -> impl Iterator<Item = Vec<u8>> {
    let base64 = (0..4).filter_map(|start| packed(text.get(start..)?, 6, base64_digit));
    let base32 = (0..8).filter_map(|start| packed(text.get(start..)?, 5, base32_digit));
    let hexadecimal = (0..2).filter_map(|start| packed(text.get(start..)?, 4, hex_digit));
    base64.chain(base32).chain(hexadecimal)
}

/// The bytes of digits that have so many bits each; none if something else is in the text.
fn packed(text: &str, bits: u32, digit: fn(char) -> Option<u32>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut pending = 0;
    let mut length = 0;
    for char in text.chars() {
        pending = (pending << bits | digit(char)?) & 0xffff;
        length += bits;
        if length >= 8 {
            length -= 8;
            bytes.push((pending >> length) as u8);
        }
    }
    Some(bytes)
}

fn base64_digit(char: char) -> Option<u32> {
    let code = char as u32;
    match char {
        'A'..='Z' => Some(code - 65),
        'a'..='z' => Some(code - 71),
        '0'..='9' => Some(code + 4),
        '+' | '-' => Some(62),
        '/' | '_' => Some(63),
        _ => None,
    }
}

fn base32_digit(char: char) -> Option<u32> {
    match char {
        'A'..='Z' => Some(char as u32 - 65),
        '2'..='7' => Some(char as u32 - 24),
        _ => None,
    }
}

fn hex_digit(char: char) -> Option<u32> {
    char.to_digit(16)
}
