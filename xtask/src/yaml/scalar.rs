//! What a plain scalar is, as go.yaml.in/yaml/v2 resolves it: YAML 1.1 with Go's own numbers.

use crate::yaml::timestamp::is_timestamp;

pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// Beyond i64.
    Uint(u64),
    Float(f64),
    Text(String),
}

const BOOL: &str = "tag:yaml.org,2002:bool";
const FLOAT: &str = "tag:yaml.org,2002:float";
const INT: &str = "tag:yaml.org,2002:int";
const NULL: &str = "tag:yaml.org,2002:null";
const TIMESTAMP: &str = "tag:yaml.org,2002:timestamp";

/// A scalar with its tag, or with an empty one. The error says why helm refuses it.
pub(crate) fn resolve(tag: &str, text: &str) -> Result<Scalar, String> {
    if !["", BOOL, FLOAT, INT, NULL, TIMESTAMP].contains(&tag) {
        return Ok(Scalar::Text(text.to_owned()));
    }
    let resolved = plain(text);
    let fits = match (tag, &resolved) {
        ("", _) | (BOOL, Scalar::Bool(_)) | (FLOAT, Scalar::Float(_)) | (NULL, Scalar::Null) => {
            true
        }
        (INT, Scalar::Int(_) | Scalar::Uint(_)) => true,
        (FLOAT, Scalar::Int(it)) => return Ok(Scalar::Float(*it as f64)),
        (TIMESTAMP, Scalar::Text(_)) => is_timestamp(text),
        _ => false,
    };
    if fits {
        return Ok(resolved);
    }
    let short = tag.rsplit(':').next().unwrap_or_default();
    Err(format!("cannot read `{text}` as `!!{short}`"))
}

fn plain(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Scalar::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' => underscored_float(text),
        b'0'..=b'9' | b'+' | b'-' => number(&text.replace('_', "")),
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

/// Go's ParseInt and ParseUint with base 0, and then YAML's own floats.
fn number(text: &str) -> Option<Scalar> {
    let (sign, digits) = match text.as_bytes()[0] {
        b'-' => ("-", &text[1..]),
        b'+' => ("+", &text[1..]),
        _ => ("", text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = split_base(&lower);
    integer(sign, digits, base).or_else(|| float(text))
}

/// The base that a number without its sign is written in, and its digits. It has no capitals.
fn split_base(number: &str) -> (u32, &str) {
    match number.as_bytes() {
        [b'0', b'x', ..] => (16, &number[2..]),
        [b'0', b'o', ..] => (8, &number[2..]),
        [b'0', b'b', ..] => (2, &number[2..]),
        [b'0', _, ..] => (8, &number[1..]),
        _ => (10, number),
    }
}

/// A whole number that fits into 64 bits; one with a sign needs one of them for it.
fn integer(sign: &str, digits: &str, base: u32) -> Option<Scalar> {
    if digits.is_empty() || !digits.bytes().all(|it| (it as char).is_digit(base)) {
        return None;
    }
    if let Ok(it) = i64::from_str_radix(&format!("{sign}{digits}"), base) {
        return Some(Scalar::Int(it));
    }
    let unsigned = u64::from_str_radix(digits, base).ok();
    unsigned.filter(|_| sign.is_empty()).map(Scalar::Uint)
}

/// Digits with a point and an exponent, either of which may be missing. What is out of range is not a number.
fn float(text: &str) -> Option<Scalar> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_digits = !(whole.is_empty() && fraction.is_empty());
    let is_mantissa = has_digits && all_digits(whole) && all_digits(fraction);
    if !is_mantissa || !exponent.is_none_or(is_exponent) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    value.is_finite().then_some(Scalar::Float(value))
}

fn is_exponent(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && all_digits(digits)
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|it| it.is_ascii_digit())
}

/// A float that begins with its point may have single underscores between digits (Go's ParseFloat).
fn underscored_float(text: &str) -> Option<Scalar> {
    let bytes = text.as_bytes();
    for (index, _) in text.match_indices('_') {
        let before = bytes.get(index.wrapping_sub(1));
        let after = bytes.get(index + 1);
        if ![before, after]
            .into_iter()
            .all(|it| it.is_some_and(u8::is_ascii_digit))
        {
            return None;
        }
    }
    float(&text.replace('_', ""))
}

/// How the keys of amounts end.
const AMOUNTS: [&str; 9] = [
    "cpu",
    "factor",
    "gb",
    "guarantee",
    "interval",
    "limit",
    "ratio",
    "threshold",
    "weight",
];

/// A warning about a plain scalar, the value of this key, that looks like something else than helm reads.
pub(crate) fn misread(key: &str, text: &str, read: &Scalar) -> Option<String> {
    let value = match read {
        Scalar::Bool(it) if !is_true_or_false(text) => it.to_string(),
        Scalar::Int(_) if is_mode(key) => return None,
        Scalar::Int(it) if text.contains('_') || has_leading_zero(text) => it.to_string(),
        Scalar::Int(it) if it.unsigned_abs() > 1 << 53 => format!("about {:e}", *it as f64),
        Scalar::Uint(it) => format!("about {:e}", *it as f64),
        Scalar::Float(it) if looks_like_version(key, text) => it.to_string(),
        // As the first digits of a commit may be.
        Scalar::Float(it) if !text.contains('.') => it.to_string(),
        _ => return None,
    };
    Some(format!(
        "helm reads `{text}` as {value}: quote it if it is text"
    ))
}

/// Whether a key is that of a file's mode, which Kubernetes takes as a number only: `mode`, `defaultMode`.
fn is_mode(key: &str) -> bool {
    key.to_ascii_lowercase().ends_with("mode")
}

fn is_true_or_false(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

/// `1.10` is a version to people. `0.50`, `1.0`, `7.0000` and `-1.50` are numbers to them, too, unless the key says
/// otherwise.
fn looks_like_version(key: &str, float: &str) -> bool {
    if !float.ends_with('0') || float.starts_with('0') || float.contains(['e', 'E']) {
        return false;
    }
    let has_many_digits = float.split_once('.').is_some_and(|(_, it)| it.len() > 3);
    let is_amount = float.contains(".0") || float.starts_with(['-', '+']) || has_many_digits;
    is_of_version(key) || !is_amount && !is_of_amount(key)
}

/// Whether a key is that of an amount, as `cpu_limit` is.
fn is_of_amount(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    AMOUNTS.iter().any(|it| key.ends_with(it))
}

/// Whether a key is that of a version, which is a text.
pub(crate) fn is_of_version(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.contains("tag") || key.contains("version")
}

fn has_leading_zero(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    digits.len() > 1 && digits.starts_with('0') && !digits[1..].starts_with(['x', 'X'])
}

/// A float as a key or in the place of a text, as Go writes it: FormatFloat with format `g`, the fewest digits, and 32
/// bits.
pub(crate) fn float_text(value: f64) -> String {
    let value = value as f32;
    if value.is_nan() {
        return ".nan".to_owned();
    }
    if value.is_infinite() {
        let text = if value > 0.0 { ".inf" } else { "-.inf" };
        return text.to_owned();
    }
    let shortest = format!("{value:e}");
    let (mantissa, exponent) = shortest.split_once('e').expect("it has an exponent");
    match exponent.parse::<i32>().expect("a small number") {
        -4..6 => value.to_string(),
        exponent => format!("{mantissa}e{exponent:+03}"),
    }
}
