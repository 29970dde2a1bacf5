//! How long programs take.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// From start to end of a program that has to succeed.
pub(crate) fn run(command: &mut Command) -> Duration {
    output(command).0
}

/// The same, with what it writes.
pub(crate) fn output(command: &mut Command) -> (Duration, Vec<u8>) {
    let started = Instant::now();
    let output = command.stderr(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    (started.elapsed(), output.stdout)
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
