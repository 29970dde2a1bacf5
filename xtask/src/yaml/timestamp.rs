//! Timestamps as go.yaml.in/yaml/v2 reads them.

use std::sync::LazyLock;

use regex::Regex;

/// Whether Go reads this as a time: `2006-1-2`, and after `T`, `t` or a blank `15:4:5.9`, with a zone after a letter.
pub(crate) fn is_timestamp(text: &str) -> bool {
    let Some(at) = text.find(['T', 't', ' ']) else {
        return is_date(text);
    };
    let (date, time) = text.split_at(at);
    let (separator, time) = time.split_at(1);
    let (clock, zone) = time.split_at(time.find(['Z', '+', '-']).unwrap_or(time.len()));
    let zone_fits = if separator == " " {
        zone.is_empty()
    } else {
        is_zone(zone)
    };
    is_date(date) && is_clock(clock) && zone_fits
}

/// Whether Go reads this as a time in JSON, which it means to be RFC 3339.
pub(crate) fn is_time_in_json(text: &str) -> bool {
    const FORM: &str = r"^\d{4}-\d\d-\d\dT\d\d?:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:\d\d)$";
    static IS_OF_FORM: LazyLock<Regex> = LazyLock::new(|| Regex::new(FORM).expect("a pattern"));
    IS_OF_FORM.is_match(text) && is_timestamp(&text.replace(',', "."))
}

fn is_date(text: &str) -> bool {
    let [year, month, day] = text.split('-').collect::<Vec<_>>()[..] else {
        return false;
    };
    let Some(year) = year.parse::<u32>().ok().filter(|_| year.len() == 4) else {
        return false;
    };
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match number(month, 12) {
        Some(2) => 28 + u32::from(is_leap),
        Some(4 | 6 | 9 | 11) => 30,
        Some(1..) => 31,
        _ => return false,
    };
    number(day, days).is_some_and(|it| it > 0)
}

fn is_clock(text: &str) -> bool {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let [hour, minute, second] = clock.split(':').collect::<Vec<_>>()[..] else {
        return false;
    };
    number(hour, 23).is_some()
        && number(minute, 59).is_some()
        && number(second, 59).is_some()
        && !fraction.is_empty()
        && fraction.bytes().all(|it| it.is_ascii_digit())
}

fn is_zone(text: &str) -> bool {
    let offset = text.strip_prefix(['+', '-']);
    let Some((hours, minutes)) = offset.and_then(|it| it.split_once(':')) else {
        return text == "Z";
    };
    hours.len() == 2
        && minutes.len() == 2
        && number(hours, 24).is_some()
        && number(minutes, 60).is_some()
}

/// A number of one or two digits that is at most `most`.
fn number(text: &str, most: u32) -> Option<u32> {
    let is_number = text.len() <= 2 && text.bytes().all(|it| it.is_ascii_digit());
    let value = text.parse().ok().filter(|_| is_number)?;
    (value <= most).then_some(value)
}
