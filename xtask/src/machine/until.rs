//! Deadlines.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::machine::process;

/// The deadline of an attempt, and whether a signal ends it earlier. Cleaning up does not heed signals.
#[derive(Clone, Copy)]
pub(crate) struct Until {
    pub(crate) at: Instant,
    pub(crate) heeds_signals: bool,
}

impl Until {
    /// The end of this time, or a signal before it.
    pub(crate) fn after(limit: Duration) -> Until {
        Until {
            at: Instant::now() + limit,
            heeds_signals: true,
        }
    }

    /// The end of this time, whatever signals come before it.
    pub(crate) fn after_in_any_case(limit: Duration) -> Until {
        Until {
            heeds_signals: false,
            ..Until::after(limit)
        }
    }

    /// The deadline of a phase that may take as long as `limit`: never later than that of the whole attempt.
    pub(crate) fn within(self, limit: Duration) -> Until {
        Until {
            at: self.at.min(Instant::now() + limit),
            ..self
        }
    }

    /// How much time is left.
    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// An error once the time is over, or a signal wants us to stop. `what` took too long then.
    pub(crate) fn check(self, what: &str) -> Result<()> {
        if self.heeds_signals {
            process::check_stopped()?;
        }
        ensure!(!self.left().is_zero(), "{what} took too long");
        Ok(())
    }
}
