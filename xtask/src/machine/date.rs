//! Days and times in configuration: `2026-12-01`, or `2026-12-01T18:00:00+01:00` as RFC 3339 has it.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Error, Result};
use serde::Deserialize;

/// A whole day in UTC, or one moment.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Date {
    /// As somebody wrote it.
    text: String,
    begin: SystemTime,
    /// When it is over. A moment is over at once.
    end: SystemTime,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Date {
    pub(crate) fn parse(text: &str) -> Result<Date> {
        let read = if text.contains('T') {
            moment(text).map(|it| (it, it))
        } else {
            humantime::parse_rfc3339(&format!("{text}T00:00:00Z"))
                .ok()
                .map(|it| (it, it + DAY))
        };
        let (begin, end) = read.with_context(|| {
            format!(
                "`{text}` is not a date: write a day as 2026-12-01, or a time as 2026-12-01T18:00:00Z"
            )
        })?;
        Ok(Date {
            text: text.to_owned(),
            begin,
            end,
        })
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begin <= SystemTime::now()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.end <= SystemTime::now()
    }

    /// Whether this one is over before the other one begins.
    pub(crate) fn is_before(&self, other: &Date) -> bool {
        self.end <= other.begin && self.begin < other.begin
    }

    /// When it is over.
    pub(crate) fn end(&self) -> SystemTime {
        self.end
    }
}

impl TryFrom<String> for Date {
    type Error = Error;

    fn try_from(text: String) -> Result<Date> {
        Date::parse(&text)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// "paused until 2026-12-01: new nodes", in one line.
pub(crate) fn until(state: &str, date: &Date, reason: &str) -> String {
    let reason: Vec<_> = reason.split_whitespace().collect();
    format!("{state} until {date}: {}", reason.join(" "))
}

/// A time of RFC 3339. `humantime` reads those in UTC.
fn moment(text: &str) -> Option<SystemTime> {
    let Some(at) = text.len().checked_sub(6).filter(|_| !text.ends_with('Z')) else {
        return humantime::parse_rfc3339(text).ok();
    };
    let (local, offset) = text.split_at_checked(at)?;
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let seconds = two_digits(hours, 23)? * 3600 + two_digits(minutes, 59)? * 60;
    let distance = Duration::from_secs(seconds);
    match offset.as_bytes()[0] {
        b'+' => local.checked_sub(distance),
        b'-' => local.checked_add(distance),
        _ => None,
    }
}

fn two_digits(text: &str, most: u64) -> Option<u64> {
    let is_number = text.len() == 2 && text.bytes().all(|it| it.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| is_number && *number <= most)
}
