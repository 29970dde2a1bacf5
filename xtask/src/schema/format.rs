//! The formats that helm checks where a schema names one, with the verdicts of its library
//! (format.go of github.com/santhosh-tekuri/jsonschema/v6, with Go's net/url, net/netip, strconv and time).

use std::{net::Ipv6Addr, ops::Range};

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
    text.split('.').count() == 4 && text.split('.').all(is_octet)
}

fn is_octet(text: &str) -> bool {
    let is_padded = text.len() > 1 && text.starts_with('0');
    !is_padded && integer(text).is_some_and(|it| it <= 255)
}

/// Without a zone, as std reads it, too.
fn ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

fn hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(is_label)
}

/// One part of a host's name.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(is_alphanumeric_or_dash)
}

fn is_alphanumeric_or_dash(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// The part before the `@` may be empty.
fn email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    text.len() <= 254 && local.len() <= 64 && is_mailbox(local) && is_mail_domain(domain)
}

/// Whether this may be before the `@`.
fn is_mailbox(text: &str) -> bool {
    if let Some(quoted) = text.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
        return !quoted.contains(['\\', '"']);
    }
    let has_empty_part = text.starts_with('.') || text.ends_with('.') || text.contains("..");
    let mut bytes = text.bytes();
    !has_empty_part
        && bytes.all(|it| it.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&it))
}

/// Whether this may be behind the `@`: the name of a host, or an address in brackets.
fn is_mail_domain(text: &str) -> bool {
    let Some(address) = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')) else {
        return hostname(text);
    };
    match address.strip_prefix("IPv6:") {
        Some(address) => ipv6(address),
        None => ipv4(address),
    }
}

fn date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(year), Some(month), Some(day)) =
        (field(text, 0..4), field(text, 5..7), field(text, 8..10))
    else {
        return false;
    };
    bytes.len() == 10
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && (1..=12).contains(&month)
        && (1..=days_of(month, year)).contains(&day)
}

/// The number that these bytes of a text are.
fn field(text: &str, at: Range<usize>) -> Option<i64> {
    text.get(at).filter(|it| digits(it)).and_then(integer)
}

fn days_of(month: i64, year: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        _ => 31,
    }
}

/// A leap second must be the last of its day, by the clock that is left when the offset is taken off.
fn time(text: &str) -> bool {
    utc(text)
        .is_some_and(|(minutes, second)| second < 60 || second == 60 && minutes == 23 * 60 + 59)
}

/// The minute of the day without the offset, and the second.
fn utc(text: &str) -> Option<(i64, i64)> {
    let (hour, minute) = hour_and_minute(text)?;
    let second = integer(text.get(5..8)?.strip_prefix(':')?)?;
    let offset = offset(after_fraction(&text[8..])?)?;
    let minutes = hour * 60 + minute - offset;
    Some((minutes.rem_euclid(24 * 60), second))
}

/// What follows the fraction of a second, if there is one.
fn after_fraction(text: &str) -> Option<&str> {
    let Some(fraction) = text.strip_prefix('.') else {
        return Some(text);
    };
    let (digits, rest) = leading_digits(fraction);
    (!digits.is_empty()).then_some(rest)
}

/// The minutes by which a zone such as `Z` or `+01:00` is ahead.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "z" | "Z") {
        return Some(0);
    }
    let clock = zone.strip_prefix(['+', '-']).filter(|it| it.len() == 5)?;
    let (hour, minute) = hour_and_minute(clock)?;
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    Some(sign * (hour * 60 + minute))
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
    parse_url(text)
        .is_some_and(|url| is_canonical(url.path) || url.path.split('/').all(has_closed_braces))
}

fn has_closed_braces(segment: &str) -> bool {
    let mut braces = decode(segment).unwrap_or_default();
    braces.retain(|it| matches!(it, b'{' | b'}'));
    braces.chunks(2).all(|it| it == b"{}")
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
    let (absolute, rest) = split_scheme(text)?;
    let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
    let path = if rest.starts_with('/') {
        path_after_host(rest, absolute)?
    } else if absolute {
        ""
    } else {
        relative_path(rest)?
    };
    decode(path)?;
    Some(Url { absolute, path })
}

/// Whether a URL has a scheme, and what follows that.
fn split_scheme(url: &str) -> Option<(bool, &str)> {
    match scheme(url) {
        "" if url.starts_with(':') => None,
        "" => Some((false, url)),
        scheme => Some((true, &url[scheme.len() + 1..])),
    }
}

/// The path in what begins with a `/`: all of it, or what follows the host in `//HOST/PATH`.
fn path_after_host(text: &str, absolute: bool) -> Option<&str> {
    let authority = text
        .strip_prefix("//")
        .filter(|it| absolute || !it.starts_with('/'));
    let Some(authority) = authority else {
        return Some(text);
    };
    let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    (is_user(user) && is_host(host)).then_some(path)
}

/// A path whose first step does not look like a scheme.
fn relative_path(text: &str) -> Option<&str> {
    let (first, _) = text.split_once('/').unwrap_or((text, ""));
    (!first.contains(':')).then_some(text)
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
    let mut bytes = text.bytes();
    bytes.all(|it| it.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&it))
        && decode(text).is_some()
}

/// A host and maybe a port. Of more than one `:` without brackets Go lets some pass, but then the library doesn't.
fn is_host(text: &str) -> bool {
    if let Some(bracketed) = text.strip_prefix('[') {
        let Some((address, after)) = bracketed.rsplit_once(']') else {
            return false;
        };
        return ipv6(address) && (after.is_empty() || after.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    is_host_name(name) && is_port(port)
}

/// It may be empty.
fn is_port(text: &str) -> bool {
    text.bytes().all(|it| it.is_ascii_digit())
}

fn is_host_name(text: &str) -> bool {
    // Escapes are for what isn't ASCII, and for `%` itself.
    let mut escapes = text.split('%').skip(1);
    text.bytes().all(may_be_in_host)
        && escapes.all(|it| it.starts_with("25") || it.starts_with(|it| it > '7'))
        && decode(text).is_some()
}

fn may_be_in_host(byte: u8) -> bool {
    !byte.is_ascii() || byte.is_ascii_alphanumeric() || b"!\"$%&'()*+,-.;<=>]_~".contains(&byte)
}

/// Whether the path is as Go writes it: what needs no escape has none, and escapes are in capitals.
fn is_canonical(path: &str) -> bool {
    let mut encoded = String::new();
    for byte in decode(path).unwrap_or_default() {
        match byte {
            _ if needs_no_escape(byte) => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    path == encoded
}

/// Whether Go writes this byte of a path without an escape.
fn needs_no_escape(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"$&+,-./:;=@_~".contains(&byte)
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
    let (text, build) = text
        .split_once('+')
        .map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, before) = text
        .split_once('-')
        .map_or((text, None), |(core, before)| (core, Some(before)));
    build.is_none_or(|it| it.split('.').all(is_identifier))
        && before.is_none_or(|it| it.split('.').all(is_prerelease))
        && core.split('.').count() == 3
        && core.split('.').all(natural)
}

/// One part of a version's build metadata.
fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_alphanumeric_or_dash)
}

/// One part of what is between a version's `-` and its `+`.
fn is_prerelease(text: &str) -> bool {
    is_identifier(text) && (!digits(text) || natural(text))
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
