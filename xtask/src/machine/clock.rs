//! A clock that goes on while the machine sleeps, as an `Instant` does not.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
/// On macOS this one goes on, too.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The time since the machine was started, also that of its sleep.
pub(crate) fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(CLOCK)).expect("it is not negative")
}
