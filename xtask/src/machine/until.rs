//! Deadlines.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::machine::process;

/// How often to look whether an attempt may go on.
const INTERVAL: Duration = Duration::from_millis(100);

/// The deadline of an attempt, and what ends it earlier.
#[derive(Clone, Copy)]
pub(crate) struct Until<'a> {
    pub(crate) at: Instant,
    /// An error says why the attempt has to end now.
    pub(crate) may_go_on: &'a dyn Fn() -> Result<()>,
}

/// Attempts at something that fails because of faults that pass.
pub(crate) struct Attempts {
    until: Instant,
    made: u32,
    /// Why the last one failed, and how many did so one after another.
    reason: String,
    alike: u32,
}

impl Attempts {
    /// Where each one fails for another reason, many may have to: what takes a hundred requests fails nine times of ten
    /// where one answer of fifty breaks.
    const MOST: u32 = 60;
    const MOST_ALIKE: u32 = 8;

    pub(crate) fn until(until: Instant) -> Attempts {
        Attempts {
            until,
            made: 0,
            reason: String::new(),
            alike: 0,
        }
    }

    /// How long to wait after an attempt that failed for this reason. None if it was the last one: there were too many, or
    /// the time is over.
    pub(crate) fn pause(&mut self, reason: &str) -> Option<Duration> {
        self.made += 1;
        self.alike = if reason == self.reason {
            self.alike + 1
        } else {
            1
        };
        reason.clone_into(&mut self.reason);
        let pause = Duration::from_secs(1 << (self.alike - 1).min(3));
        let is_last = self.made == Attempts::MOST
            || self.alike == Attempts::MOST_ALIKE
            || Instant::now() + pause > self.until;
        (!is_last).then_some(pause)
    }
}

impl<'a> Until<'a> {
    /// The end of this time, or a signal before it.
    pub(crate) fn after(limit: Duration) -> Until<'static> {
        Until {
            at: Instant::now() + limit,
            may_go_on: &process::check_stopped,
        }
    }

    /// The end of this time, whatever signals come before it: for cleaning up.
    pub(crate) fn after_in_any_case(limit: Duration) -> Until<'static> {
        Until {
            may_go_on: &|| Ok(()),
            ..Until::after(limit)
        }
    }

    /// The deadline of a phase that may take as long as `limit`: never later than that of the whole attempt.
    pub(crate) fn within(self, limit: Duration) -> Until<'a> {
        Until {
            at: self.at.min(Instant::now() + limit),
            ..self
        }
    }

    /// How much time is left.
    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// An error once the attempt has to end. If that is because the time is over, `what` took too long.
    pub(crate) fn check(self, what: &str) -> Result<()> {
        (self.may_go_on)()?;
        ensure!(!self.left().is_zero(), "{what} took too long");
        Ok(())
    }

    /// Waits as long as this. An error as soon as the attempt has to end for another reason than its time.
    pub(crate) fn pause(self, pause: Duration) -> Result<()> {
        let end = Instant::now() + pause;
        loop {
            (self.may_go_on)()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(INTERVAL));
        }
    }

    /// Does what may block, and has limits of its own, in another thread. An error as soon as the attempt has to end: then
    /// that thread is left to itself.
    pub(crate) fn beside<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, done) = mpsc::channel();
        thread::spawn(move || sender.send(work()));
        loop {
            match done.recv_timeout(INTERVAL) {
                Ok(done) => return Ok(done),
                Err(RecvTimeoutError::Timeout) => (self.may_go_on)()?,
                Err(RecvTimeoutError::Disconnected) => bail!("a request panicked"),
            }
        }
    }
}
