//! A hub that is busy: it answers, and asks to come back later. Nothing is wrong with it.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use ureq::http::{HeaderMap, StatusCode};

use crate::machine::until::Until;

/// The pause where an answer asks for none: JupyterHub's does not when as many servers run as may.
const PAUSE: Duration = Duration::from_secs(10);
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// The error of an answer that only asks to come back later.
#[derive(Debug)]
pub(crate) struct Busy {
    said: String,
    pause: Duration,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the hub is busy: {}", self.said)
    }
}

impl std::error::Error for Busy {}

impl Busy {
    /// What an answer to `what` means if it is that of a hub that is busy. A 503 without a time means that somebody is away.
    pub(crate) fn of(
        what: &str,
        status: StatusCode,
        headers: &HeaderMap,
        message: &str,
    ) -> Option<Busy> {
        let pause = pause(headers);
        let is_busy = status == 429 || status == 503 && pause.is_some();
        let message = if message.is_empty() {
            String::new()
        } else {
            format!(": {message}")
        };
        is_busy.then(|| Busy {
            said: format!("{what} is answered {status}{message}"),
            pause: pause.unwrap_or(PAUSE).max(LEAST_PAUSE),
        })
    }
}

/// Does `work`, and does it again as often as the hub is busy, after the pause that it asks for. A pause that would end
/// after `until` is not begun: then the error is that the hub is busy.
pub(crate) fn wait_while_busy<T>(
    until: Until,
    tell: &dyn Fn(&str),
    mut work: impl FnMut() -> Result<T>,
) -> Result<T> {
    loop {
        let err = match work() {
            Err(err) => err,
            done => return done,
        };
        match err.downcast_ref::<Busy>() {
            Some(busy) if busy.pause < until.left() => {
                tell(&format!("{busy}\nwaiting {} s", busy.pause.as_secs()));
                until.pause(busy.pause)?;
            }
            _ => return Err(err),
        }
    }
}

/// The time in `Retry-After`, as seconds or as a date:
/// <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let after = text("retry-after")?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // By the clock of who has named the date.
    let now = text("date").and_then(date);
    let pause = date(after)?.duration_since(now.unwrap_or_else(SystemTime::now));
    Some(pause.unwrap_or_default())
}

/// The time in `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let [_, day, month, year, time, "GMT"] = text.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let month = 1 + MONTHS.iter().position(|it| *it == month)?;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}
