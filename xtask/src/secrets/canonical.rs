//! Texts reduced to their letters and digits, however they are quoted, escaped or folded.

use std::ops::Range;

/// Which characters of a text count.
pub(crate) type Keeps = fn(char) -> bool;

/// A text in which only some characters are left, in lower case.
#[derive(Default)]
pub(crate) struct Canonical {
    pub(crate) chars: Vec<char>,
    /// Where in the text each of them is.
    at: Vec<Range<usize>>,
}

impl Canonical {
    /// A text as it is.
    pub(crate) fn plain(text: &str, keeps: Keeps) -> Canonical {
        Canonical::read(text, keeps, |_| None)
    }

    /// A text whose escapes are read: those of JSON, Go, YAML, URLs and HTML.
    pub(crate) fn unescaped(text: &str, keeps: Keeps) -> Canonical {
        Canonical::read(text, keeps, unescape)
    }

    fn read(text: &str, keeps: Keeps, unescape: fn(&str) -> Option<(String, usize)>) -> Canonical {
        let mut canonical = Canonical::default();
        let mut start = 0;
        while let Some(char) = text[start..].chars().next() {
            let escaped = match char {
                '\\' | '%' | '&' => unescape(&text[start..]),
                _ => None,
            };
            let (meant, length) = escaped.unwrap_or_else(|| (char.into(), char.len_utf8()));
            for char in meant.chars().filter(|it| keeps(*it)) {
                canonical.push(char, start..start + length);
            }
            start += length;
        }
        canonical
    }

    fn push(&mut self, char: char, at: Range<usize>) {
        for lower in char.to_lowercase() {
            self.chars.push(lower);
            self.at.push(at.clone());
        }
    }

    /// The part of the text that these characters come from.
    pub(crate) fn range(&self, chars: Range<usize>) -> Range<usize> {
        self.at[chars.start].start..self.at[chars.end - 1].end
    }
}

/// What an escape at the beginning of a text means, and how long it is.
fn unescape(text: &str) -> Option<(String, usize)> {
    let bytes = escaped_bytes(text);
    if !bytes.0.is_empty() {
        return Some((String::from_utf8_lossy(&bytes.0).into_owned(), bytes.1));
    }
    if text.starts_with('&') {
        return entity(text);
    }
    // JSON in JSON has several.
    let letter = text.trim_start_matches('\\');
    let backslashes = text.len() - letter.len();
    match letter.chars().next() {
        Some('n' | 't' | 'r' | 'b' | 'f' | 'v' | 'a') if backslashes > 0 => {
            Some((" ".to_owned(), backslashes + 1))
        }
        Some('u') if backslashes > 0 => utf16(text),
        Some('U') if backslashes > 0 => {
            let code = u32::from_str_radix(letter.get(1..9)?, 16).ok()?;
            Some((char::from_u32(code)?.into(), backslashes + 9))
        }
        _ => None,
    }
}

/// The bytes of escapes such as `\xc3\xa4`, `\303\244` or `%C3%A4`, and how long these are together.
fn escaped_bytes(text: &str) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some((byte, size)) = escaped_byte(&text[length..]) {
        bytes.push(byte);
        length += size;
    }
    (bytes, length)
}

fn escaped_byte(text: &str) -> Option<(u8, usize)> {
    if let Some(code) = text.strip_prefix('%') {
        return Some((u8::from_str_radix(code.get(..2)?, 16).ok()?, 3));
    }
    let code = text.trim_start_matches('\\');
    let backslashes = text.len() - code.len();
    if backslashes == 0 {
        return None;
    }
    match code.strip_prefix('x') {
        Some(code) => Some((
            u8::from_str_radix(code.get(..2)?, 16).ok()?,
            backslashes + 3,
        )),
        None => Some((u8::from_str_radix(code.get(..3)?, 8).ok()?, backslashes + 3)),
    }
}

/// The character of one `\u00e4`, or of two for those beyond 16 bits.
fn utf16(text: &str) -> Option<(String, usize)> {
    let mut units = Vec::new();
    let mut length = 0;
    while units.len() < 2 {
        let rest = &text[length..];
        let code = rest.trim_start_matches('\\');
        let unit = code.strip_prefix('u').and_then(|it| it.get(..4));
        let Some(unit) = unit.and_then(|it| u16::from_str_radix(it, 16).ok()) else {
            break;
        };
        units.push(unit);
        length += rest.len() - code.len() + 5;
        if !(0xd800..0xdc00).contains(&unit) {
            break;
        }
    }
    let is_any = !units.is_empty();
    is_any.then(|| (String::from_utf16_lossy(&units), length))
}

/// The character of an HTML entity.
fn entity(text: &str) -> Option<(String, usize)> {
    let end = text.bytes().take(10).position(|it| it == b';')?;
    let name = &text[1..end];
    let char = match name {
        "quot" => '"',
        "apos" => '\'',
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        _ => {
            let code = name.strip_prefix('#')?;
            let code = match code.strip_prefix(['x', 'X']) {
                Some(code) => u32::from_str_radix(code, 16),
                None => code.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    };
    Some((char.into(), end + 1))
}
