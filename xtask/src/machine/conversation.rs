//! Programs that answer one request after another.

use std::{
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write},
    process::Command,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use duct::Handle;
use xshell::{Cmd, Shell};

use crate::machine::process::{beside_us, check_stopped, name, show_if_verbose};

/// How often to look at how much memory a program has.
const LOOK: Duration = Duration::from_millis(10);

/// A program that answers one request after another. It is killed when this is dropped.
pub(crate) struct Conversation {
    name: String,
    handle: Arc<Handle>,
    requests: PipeWriter,
    answers: BufReader<PipeReader>,
}

/// What a program may take for one answer.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Of a processor, so that a machine that is busy changes no verdict. It is ended in any case after twelve times as long.
    pub(crate) time: Duration,
    /// In bytes, as far as it is in memory and not only reserved.
    pub(crate) memory: u64,
}

/// What a program took more of than it may.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Exceeded {
    Time,
    Memory,
}

/// Starts a program that answers requests until this thread ends.
pub(crate) fn converse(sh: &Shell, cmd: Cmd) -> Result<Conversation> {
    show_if_verbose(sh, &cmd);
    let command = Command::from(cmd);
    let name = name(&command);
    let (stdin, requests) = io::pipe()?;
    let (answers, stdout) = io::pipe()?;
    let handle = beside_us(&command)
        .stdin_file(stdin)
        .stdout_file(stdout)
        .stderr_null()
        .start()
        .with_context(|| format!("cannot run `{name}`"))?;
    Ok(Conversation {
        name,
        handle: Arc::new(handle),
        requests,
        answers: BufReader::new(answers),
    })
}

impl Conversation {
    /// Writes a line, and returns the line that answers it.
    pub(crate) fn ask(&mut self, request: &str) -> Result<String> {
        self.tell(request, b"")?;
        self.hear()
    }

    /// Writes a line, and bytes after it.
    pub(crate) fn tell(&mut self, line: &str, bytes: &[u8]) -> Result<()> {
        writeln!(self.requests, "{line}")
            .and_then(|()| self.requests.write_all(bytes))
            .with_context(|| format!("`{}` does not listen", self.name))
    }

    /// The next line of the answer.
    pub(crate) fn hear(&mut self) -> Result<String> {
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .with_context(|| format!("`{}` does not answer", self.name))?;
        Ok(answer.trim_end().to_owned())
    }

    /// The next bytes of the answer, of which at most so many are kept.
    pub(crate) fn read(&mut self, length: u64, kept: u64) -> Result<Vec<u8>> {
        let mut answer = self.answers.by_ref().take(length);
        let mut content = Vec::new();
        answer.by_ref().take(kept).read_to_end(&mut content)?;
        io::copy(&mut answer, &mut io::sink())?;
        Ok(content)
    }

    /// Does something with the program, which is killed as soon as it takes more than it may. Then it answers nobody any
    /// more.
    pub(crate) fn within<T>(
        &mut self,
        limits: Limits,
        work: impl FnOnce(&mut Conversation) -> T,
    ) -> Result<T, Exceeded> {
        let (done, is_done) = mpsc::channel();
        let program = self.handle.clone();
        thread::scope(|scope| {
            let watch = scope.spawn(move || watch(&program, limits, &is_done));
            let result = work(self);
            drop(done);
            match watch.join().expect("nothing in it panics") {
                Some(exceeded) => Err(exceeded),
                None => Ok(result),
            }
        })
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let _ = self.handle.kill();
        let _ = self.handle.wait();
    }
}

/// Kills a program that takes more than it may before the other end of `is_done` is dropped, or once somebody wants us to
/// stop.
fn watch(program: &Handle, limits: Limits, is_done: &Receiver<()>) -> Option<Exceeded> {
    let start = Instant::now();
    let pid = *program.pids().first()?;
    let before = Usage::of(pid, start).unwrap_or_default();
    while is_done.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        let now = Usage::of(pid, start).unwrap_or_default();
        let is_late = start.elapsed() > 12 * limits.time;
        let exceeded = if now.memory > limits.memory {
            Some(Exceeded::Memory)
        } else if is_late || now.time.saturating_sub(before.time) > limits.time {
            Some(Exceeded::Time)
        } else if check_stopped().is_err() {
            None
        } else {
            continue;
        };
        let _ = program.kill();
        return exceeded;
    }
    None
}

/// What a process has taken.
#[derive(Default)]
struct Usage {
    /// Of processors.
    time: Duration,
    /// In bytes.
    memory: u64,
}

impl Usage {
    /// None if the process has ended. It has answered since `start`.
    #[cfg(target_os = "linux")]
    fn of(pid: u32, _start: Instant) -> Option<Usage> {
        use rustix::param::{clock_ticks_per_second, page_size};

        // <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>: what follows the name begins with the third field.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let milliseconds = (field(14)? + field(15)?) * 1000 / clock_ticks_per_second();
        Some(Usage {
            time: Duration::from_millis(milliseconds),
            memory: field(24)? * page_size() as u64,
        })
    }

    /// None if the process has ended. It has answered since `start`, and counts as busy since then.
    #[cfg(not(target_os = "linux"))]
    fn of(pid: u32, start: Instant) -> Option<Usage> {
        let sh = Shell::new().ok()?;
        let pid = pid.to_string();
        let kilobytes = crate::machine::process::read(&sh, xshell::cmd!(sh, "ps -o rss= -p {pid}"));
        Some(Usage {
            time: start.elapsed(),
            memory: kilobytes.ok()?.trim().parse::<u64>().ok()? * 1024,
        })
    }
}
