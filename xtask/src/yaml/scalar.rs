//! What a plain scalar is, as go.yaml.in/yaml/v2 resolves it: YAML 1.1 with Go's own numbers.

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

/// A scalar with its tag, or with none; the error says why helm refuses it.
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
        (TIMESTAMP, Scalar::Text(_)) => is_date(text),
        _ => false,
    };
    let short = tag.rsplit(':').next().unwrap_or_default();
    if fits {
        Ok(resolved)
    } else {
        Err(format!("`{text}` can't be read as `!!{short}`"))
    }
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
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &*lower),
    };
    if !digits.is_empty() && digits.bytes().all(|it| (it as char).is_digit(base)) {
        if let Ok(it) = i64::from_str_radix(&format!("{sign}{digits}"), base) {
            return Some(Scalar::Int(it));
        }
        if sign.is_empty()
            && let Ok(it) = u64::from_str_radix(digits, base)
        {
            return Some(Scalar::Uint(it));
        }
    }
    float(text)
}

/// Digits with a point and an exponent, either of which may be missing; what is out of range isn't a number.
fn float(text: &str) -> Option<Scalar> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)),
        ),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |it: &str| it.bytes().all(|it| it.is_ascii_digit());
    let is_float = all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|it| !it.is_empty() && all_digits(it));
    let value: f64 = is_float.then(|| text.parse().ok()).flatten()?;
    value.is_finite().then_some(Scalar::Float(value))
}

/// A float that begins with its point may have single underscores between digits (Go's ParseFloat).
fn underscored_float(text: &str) -> Option<Scalar> {
    let bytes = text.as_bytes();
    let is_digit = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_digit);
    let between = |(index, byte): (usize, &u8)| {
        *byte != b'_' || (index > 0 && is_digit(index - 1) && is_digit(index + 1))
    };
    if bytes.iter().enumerate().all(between) {
        float(&text.replace('_', ""))
    } else {
        None
    }
}

/// Whether Go reads this as a time: `2006-1-2`, and after `T`, `t` or a blank `15:4:5.9`, with a zone after a letter.
fn is_date(text: &str) -> bool {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some(&text[at..])),
        None => (text, None),
    };
    let number = |it: &str, most: u32| {
        let value = it
            .parse::<u32>()
            .ok()
            .filter(|_| it.bytes().all(|it| it.is_ascii_digit()) && it.len() <= 2);
        value.filter(|it| *it <= most)
    };
    let [year, month, day] = date.split('-').collect::<Vec<_>>()[..] else {
        return false;
    };
    let (Ok(year), 4) = (year.parse::<u32>(), year.len()) else {
        return false;
    };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match number(month, 12) {
        Some(2) => 28 + u32::from(leap),
        Some(4 | 6 | 9 | 11) => 30,
        Some(1..) => 31,
        _ => return false,
    };
    if number(day, days).is_none_or(|it| it == 0) {
        return false;
    }
    let Some(time) = time else { return true };
    let (clock, zone) = match time[1..].find(['Z', '+', '-']) {
        Some(at) => time[1..].split_at(at),
        None => (&time[1..], ""),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = clock.split(':').collect::<Vec<_>>()[..] else {
        return false;
    };
    let zone_is_right = match zone
        .strip_prefix(['+', '-'])
        .and_then(|it| it.split_once(':'))
    {
        Some((hours, minutes)) => {
            hours.len() == 2
                && minutes.len() == 2
                && number(hours, 24).is_some()
                && number(minutes, 60).is_some()
        }
        None => zone == "Z",
    };
    number(hour, 23).is_some()
        && number(minute, 59).is_some()
        && number(second, 59).is_some()
        && !fraction.is_empty()
        && fraction.bytes().all(|it| it.is_ascii_digit())
        && if time.starts_with(' ') {
            zone.is_empty()
        } else {
            zone_is_right
        }
}

/// What to say of a plain scalar, at this key, that looks like something else than helm reads.
pub(crate) fn misread(key: &str, text: &str, read: &Scalar) -> Option<String> {
    let is_version = || {
        ["tag", "version"]
            .iter()
            .any(|it| key.to_ascii_lowercase().contains(it))
    };
    let is = match read {
        Scalar::Bool(it)
            if !text.eq_ignore_ascii_case("true") && !text.eq_ignore_ascii_case("false") =>
        {
            it.to_string()
        }
        Scalar::Int(it) if text.contains('_') || has_leading_zero(text) => it.to_string(),
        Scalar::Int(it) if it.unsigned_abs() > 1 << 53 => format!("about {:e}", *it as f64),
        Scalar::Uint(it) => format!("about {:e}", *it as f64),
        // `1.10` is a version to people; `0.50` is a number to them, too, and so is `1.0`, unless it's called otherwise.
        Scalar::Float(it)
            if text.ends_with('0')
                && !text.starts_with('0')
                && !text.contains(['e', 'E'])
                && (is_version() || !text.ends_with(".0")) =>
        {
            it.to_string()
        }
        // As the first digits of a commit may be.
        Scalar::Float(it) if !text.contains('.') => it.to_string(),
        _ => return None,
    };
    Some(format!(
        "helm reads `{text}` as {is}: quote it if it is text"
    ))
}

fn has_leading_zero(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    digits.len() > 1 && digits.starts_with('0') && !digits[1..].starts_with(['x', 'X'])
}

/// As Go writes a float key: FormatFloat with format `g`, the fewest digits, and 32 bits.
pub(crate) fn float_key(value: f64) -> String {
    let value = value as f32;
    if !value.is_finite() {
        return if value.is_nan() {
            ".nan"
        } else if value > 0.0 {
            ".inf"
        } else {
            "-.inf"
        }
        .to_owned();
    }
    let shortest = format!("{value:e}");
    let (mantissa, exponent) = shortest.split_once('e').expect("it has an exponent");
    match exponent.parse::<i32>().expect("a small number") {
        -4..6 => value.to_string(),
        exponent => format!("{mantissa}e{exponent:+03}"),
    }
}
