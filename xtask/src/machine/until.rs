//! Deadlines.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::machine::process;

/// When an attempt ends, and whether a signal ends it before: not where it's cleared up.
#[derive(Clone, Copy)]
pub(crate) struct Until {
    pub(crate) at: Instant,
    pub(crate) heeds_signals: bool,
}

impl Until {
    /// When a phase ends that may take so long.
    pub(crate) fn within(self, limit: Duration) -> Until {
        Until {
            at: self.at.min(Instant::now() + limit),
            ..self
        }
    }

    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// An error when it's over, or when somebody wants us to stop.
    pub(crate) fn check(self, what: &str) -> Result<()> {
        if self.heeds_signals {
            process::check_stopped()?;
        }
        ensure!(!self.left().is_zero(), "{what} took too long");
        Ok(())
    }
}
