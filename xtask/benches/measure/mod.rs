//! How long programs take.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// From start to end of a program that has to succeed.
pub(crate) fn run(command: &mut Command) -> Duration {
    let started = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
    started.elapsed()
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
