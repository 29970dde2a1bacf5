//! The formats that helm checks where a schema names one, with the verdicts of its library
//! (format.go of github.com/santhosh-tekuri/jsonschema/v6, with Go's net/url, net/netip, strconv and time).

use std::net::Ipv6Addr;

use crate::schema::pattern;

type Check = fn(&str) -> bool;

/// Each format that the library knows; it takes anything for any other.
pub(crate) const FORMATS: &[(&str, Check)] = &[
    ("date", date),
    ("date-time", date_time),
    ("duration", duration),
    ("email", email),
    ("hostname", hostname),
    ("ipv4", ipv4),
    ("ipv6", ipv6),
    ("iri", uri),
    ("iri-reference", uri_reference),
    ("json-pointer", json_pointer),
    ("period", period),
    ("regex", regex),
    ("relative-json-pointer", relative_json_pointer),
    ("semver", semver),
    ("time", time),
    ("uri", uri),
    ("uri-reference", uri_reference),
    ("uri-template", uri_template),
    ("uuid", uuid),
];

fn regex(text: &str) -> bool {
    pattern::to_rust(text).is_ok()
}

fn json_pointer(text: &str) -> bool {
    let escaped = text.split('~').skip(1).all(|it| it.starts_with(['0', '1']));
    text.is_empty() || text.starts_with('/') && escaped
}

fn relative_json_pointer(text: &str) -> bool {
    let (steps, pointer) = leading_digits(text);
    natural(steps) && (pointer == "#" || json_pointer(pointer))
}

fn uuid(text: &str) -> bool {
    let groups = text.split('-');
    groups.clone().map(str::len).eq([8, 4, 4, 4, 12])
        && groups.flat_map(str::bytes).all(|it| it.is_ascii_hexdigit())
}

fn duration(text: &str) -> bool {
    let Some(text) = text.strip_prefix('P').filter(|it| !it.is_empty()) else {
        return false;
    };
    if let Some(weeks) = text.strip_suffix('W') {
        return digits(weeks);
    }
    let (date, time) = text
        .split_once('T')
        .map_or((text, None), |(date, time)| (date, Some(time)));
    in_units(date, "YMD") && time.is_none_or(|it| !it.is_empty() && in_units(it, "HMS"))
}

/// Numbers, each with one of the units, in their order.
fn in_units(mut text: &str, mut units: &str) -> bool {
    while !text.is_empty() {
        let (number, rest) = leading_digits(text);
        let unit = rest.chars().next().and_then(|it| units.find(it));
        let Some(unit) = unit.filter(|_| !number.is_empty()) else {
            return false;
        };
        units = &units[unit + 1..];
        text = &rest[1..];
    }
    true
}

fn period(text: &str) -> bool {
    let Some((start, end)) = text.split_once('/') else {
        return false;
    };
    if start.starts_with('P') {
        return duration(start) && date_time(end);
    }
    date_time(start)
        && if end.starts_with('P') {
            duration(end)
        } else {
            date_time(end)
        }
}

fn ipv4(text: &str) -> bool {
    let group = |it: &str| {
        !(it.len() > 1 && it.starts_with('0')) && integer(it).is_some_and(|it| it <= 255)
    };
    text.split('.').count() == 4 && text.split('.').all(group)
}

/// Without a zone, as std reads it, too.
fn ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

fn hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |it: &str| {
        (1..=63).contains(&it.len())
            && !it.starts_with('-')
            && !it.ends_with('-')
            && it
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The part before the `@` may be empty.
fn email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let quoted = local.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let local_is_valid = match quoted {
        Some(inner) => !inner.contains(['\\', '"']),
        None => {
            !local.starts_with('.')
                && !local.ends_with('.')
                && !local.contains("..")
                && local
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&it))
        }
    };
    let domain_is_valid = match domain.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(address) => address
            .strip_prefix("IPv6:")
            .map_or_else(|| ipv4(address), ipv6),
        None => hostname(domain),
    };
    text.len() <= 254 && local.len() <= 64 && local_is_valid && domain_is_valid
}

fn date(text: &str) -> bool {
    let field = |from, to| text.get(from..to).filter(|it| digits(it)).and_then(integer);
    let (Some(year), Some(month), Some(day)) = (field(0, 4), field(5, 7), field(8, 10)) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => 31,
    };
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && (1..=12).contains(&month)
        && (1..=days).contains(&day)
}

/// A leap second must be the last of its day, by the clock that is left when the offset is taken off.
fn time(text: &str) -> bool {
    let Some((hour, minute)) = hour_and_minute(text) else {
        return false;
    };
    let Some(second) = text
        .get(5..8)
        .and_then(|it| it.strip_prefix(':'))
        .and_then(integer)
    else {
        return false;
    };
    let mut rest = &text[8..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let (digits, after) = leading_digits(fraction);
        if digits.is_empty() {
            return false;
        }
        rest = after;
    }
    let mut minutes = hour * 60 + minute;
    if !matches!(rest, "z" | "Z") {
        let sign = if rest.starts_with('+') { -1 } else { 1 };
        let offset = rest
            .strip_prefix(['+', '-'])
            .filter(|it| it.len() == 5)
            .and_then(hour_and_minute);
        let Some((hour, minute)) = offset else {
            return false;
        };
        minutes += sign * (hour * 60 + minute);
        if minutes < 0 {
            minutes += 24 * 60;
        }
    }
    second < 60 || second == 60 && minutes == 23 * 60 + 59
}

/// The time that the text begins with.
fn hour_and_minute(text: &str) -> Option<(i64, i64)> {
    let hour = integer(text.get(..2)?).filter(|it| *it < 24)?;
    let minute = integer(text.get(2..5)?.strip_prefix(':')?).filter(|it| *it < 60)?;
    Some((hour, minute))
}

fn date_time(text: &str) -> bool {
    let (Some(day), Some(separator), Some(clock)) =
        (text.get(..10), text.get(10..11), text.get(11..))
    else {
        return false;
    };
    date(day) && separator.eq_ignore_ascii_case("t") && time(clock)
}

fn uri(text: &str) -> bool {
    parse_url(text).is_some_and(|it| it.absolute)
}

fn uri_reference(text: &str) -> bool {
    !text.contains('\\') && parse_url(text).is_some()
}

/// Whether no brace is in another and each is closed. Where a path has nothing that Go would write otherwise, its
/// braces aren't looked at: `%7B` is one as `%7b` only.
fn uri_template(text: &str) -> bool {
    let braces = |segment: &str| {
        let decoded = decode(segment).unwrap_or_default();
        let braces: Vec<u8> = decoded
            .into_iter()
            .filter(|it| matches!(it, b'{' | b'}'))
            .collect();
        braces.chunks(2).all(|it| it == b"{}")
    };
    parse_url(text).is_some_and(|it| is_canonical(it.path) || it.path.split('/').all(braces))
}

/// What the checks need of Go's url.URL.
struct Url<'a> {
    absolute: bool,
    path: &'a str,
}

/// A URL as url.Parse takes it, except those that the library then refuses for the IPv6 address in them.
fn parse_url(text: &str) -> Option<Url<'_>> {
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    decode(fragment)?;
    if text.bytes().any(|it| it.is_ascii_control()) {
        return None;
    }
    let (absolute, rest) = match scheme(text) {
        "" if text.starts_with(':') => return None,
        "" => (false, text),
        scheme => (true, &text[scheme.len() + 1..]),
    };
    let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') {
        let (first, _) = rest.split_once('/').unwrap_or((rest, ""));
        if absolute {
            return Some(Url { absolute, path: "" });
        }
        let is_path = !first.contains(':') && decode(rest).is_some();
        return is_path.then_some(Url {
            absolute,
            path: rest,
        });
    }
    let authority = rest
        .strip_prefix("//")
        .filter(|it| absolute || !it.starts_with('/'));
    let path = match authority {
        Some(authority) => {
            let (authority, path) =
                authority.split_at(authority.find('/').unwrap_or(authority.len()));
            let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            if !is_user(user) || !is_host(host) {
                return None;
            }
            path
        }
        None => rest,
    };
    decode(path)?;
    Some(Url { absolute, path })
}

/// What lies before the first `:`, if that can be a scheme.
fn scheme(text: &str) -> &str {
    let (scheme, _) = text.split_once(':').unwrap_or_default();
    let letters = scheme
        .bytes()
        .all(|it| it.is_ascii_alphanumeric() || b"+-.".contains(&it));
    if letters && scheme.starts_with(|it: char| it.is_ascii_alphabetic()) {
        scheme
    } else {
        ""
    }
}

fn is_user(text: &str) -> bool {
    let known = |it: u8| it.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&it);
    text.bytes().all(known) && decode(text).is_some()
}

/// A host and maybe a port. Of more than one `:` without brackets Go lets some pass, but then the library doesn't.
fn is_host(text: &str) -> bool {
    let port = |it: &str| it.bytes().all(|it| it.is_ascii_digit());
    if let Some(bracketed) = text.strip_prefix('[') {
        let Some((address, after)) = bracketed.rsplit_once(']') else {
            return false;
        };
        return ipv6(address) && (after.is_empty() || after.strip_prefix(':').is_some_and(port));
    }
    let (host, after) = text.split_once(':').unwrap_or((text, ""));
    // Escapes are for what isn't ASCII, and for `%` itself.
    let escapes = host
        .split('%')
        .skip(1)
        .all(|it| it.starts_with("25") || it.starts_with(|it| it > '7'));
    let known = |it: u8| {
        !it.is_ascii() || it.is_ascii_alphanumeric() || b"!\"$%&'()*+,-.;<=>]_~".contains(&it)
    };
    host.bytes().all(known) && escapes && decode(host).is_some() && port(after)
}

/// Whether the path is as Go writes it: what needs no escape has none, and escapes are in capitals.
fn is_canonical(path: &str) -> bool {
    let plain = |it: u8| it.is_ascii_alphanumeric() || b"$&+,-./:;=@_~".contains(&it);
    let mut encoded = String::new();
    for byte in decode(path).unwrap_or_default() {
        match byte {
            _ if plain(byte) => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    path == encoded
}

/// The bytes that escapes such as `%2F` stand for, if all are whole.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut decoded = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let code = part
            .get(..2)
            .filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()))?;
        decoded.push(u8::from_str_radix(code, 16).ok()?);
        decoded.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(decoded)
}

fn semver(text: &str) -> bool {
    let letters = |it: &str| {
        !it.is_empty()
            && it
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'-')
    };
    let (text, build) = text
        .split_once('+')
        .map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, before) = text
        .split_once('-')
        .map_or((text, None), |(core, before)| (core, Some(before)));
    build.is_none_or(|it| it.split('.').all(letters))
        && before.is_none_or(|it| {
            it.split('.')
                .all(|it| letters(it) && (!digits(it) || natural(it)))
        })
        && core.split('.').count() == 3
        && core.split('.').all(natural)
}

/// A number of digits without zeros before it.
fn natural(text: &str) -> bool {
    digits(text) && (text.len() == 1 || !text.starts_with('0'))
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit())
}

fn leading_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// As strconv.Atoi reads one, which takes `+1` and `-0`, too; none below zero.
fn integer(text: &str) -> Option<i64> {
    text.parse().ok().filter(|it| *it >= 0)
}
