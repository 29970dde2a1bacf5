//! The one way to start a program that works for us.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Seek, Write},
    os::unix::{
        fs::FileExt,
        process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{
        Mutex, Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, bail};
use rustix::process::{Pid, Signal, getpgrp, kill_process, setsid};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};
use xshell::{Cmd, Shell};

use crate::machine::private;

/// Set on our own `Shell` by `--verbose`: each program that is run is shown.
pub const VERBOSE: &str = "XTASK_VERBOSE";

/// What a program that has ended wrote.
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Runs a program to its end, with `stdin` as its whole input. It has no terminal, and dies with us.
///
/// An error means that the program couldn't be run; one that ran and failed is an `Output`.
pub(crate) fn run(sh: &Shell, cmd: Cmd, stdin: &[u8]) -> Result<Output> {
    run_until(sh, cmd, stdin, None)
}

/// The same without input, for a program that could wait forever.
pub(crate) fn run_within(sh: &Shell, cmd: Cmd, limit: Duration) -> Result<Output> {
    run_until(sh, cmd, b"", Some(limit))
}

fn run_until(sh: &Shell, cmd: Cmd, stdin: &[u8], limit: Option<Duration>) -> Result<Output> {
    check_stopped()?;
    let (mut child, name, [mut stdout, mut stderr]) = spawn(sh, cmd)?;
    let _running = Running::new(child.id());
    let mut input = child.stdin.take().expect("stdin is piped");
    let status = thread::scope(|scope| {
        // A program may end without reading it all; its exit status tells whether that matters.
        scope.spawn(move || input.write_all(stdin));
        match limit {
            None => child.wait().map_err(Error::from),
            Some(limit) => wait_within(&mut child, limit),
        }
        .with_context(|| format!("`{name}`"))
    })?;
    Ok(Output {
        success: status.success(),
        stdout: whole(&mut stdout)?,
        stderr: whole(&mut stderr)?,
    })
}

/// A program that runs beside us, and ends with this.
pub(crate) struct Beside {
    child: Child,
    stdout: File,
    stderr: File,
}

/// Starts a program that works for us while we go on.
pub(crate) fn start(sh: &Shell, cmd: Cmd) -> Result<Beside> {
    let (child, _, [stdout, stderr]) = spawn(sh, cmd)?;
    Ok(Beside {
        child,
        stdout,
        stderr,
    })
}

impl Beside {
    /// What the program wrote to stderr, if it is no longer there.
    pub(crate) fn ended(&mut self) -> Result<Option<String>> {
        if self.child.try_wait()?.is_none() {
            return Ok(None);
        }
        Ok(Some(
            String::from_utf8_lossy(&whole(&mut self.stderr)?).into_owned(),
        ))
    }

    /// What the program has written to stdout so far.
    pub(crate) fn written(&self) -> Result<String> {
        let length = self.stdout.metadata()?.len();
        let mut content = vec![0; usize::try_from(length)?];
        // Where it goes on writing stays as it is.
        self.stdout.read_exact_at(&mut content, 0)?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, its name, and where its stdout and stderr go.
fn spawn(sh: &Shell, cmd: Cmd) -> Result<(Child, String, [File; 2])> {
    if sh.var_os(VERBOSE).is_some() {
        say!("$ {cmd}");
    }
    let mut command = command(cmd);
    let name = command.get_program().to_string_lossy().into_owned();
    let (stdout, stderr) = (capture()?, capture()?);
    command
        .stdin(Stdio::piped())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    die_with_us(&mut command, true);
    let child = command
        .spawn()
        .with_context(|| format!("cannot run `{name}`"))?;
    Ok((child, name, [stdout, stderr]))
}

/// A `Shell` can't take a variable away from a program: one that it has as empty isn't passed on.
fn command(cmd: Cmd) -> Command {
    let mut command = Command::from(cmd);
    let is_empty = |it: Option<&OsStr>| it.is_some_and(OsStr::is_empty);
    let empty = command
        .get_envs()
        .filter(|(_, it)| is_empty(*it))
        .map(|(name, _)| name.to_owned());
    for name in empty.collect::<Vec<_>>() {
        command.env_remove(name);
    }
    command
}

/// The program that has our terminal. Locked while one is started, so that no signal is missed.
static IN_FRONT: Mutex<Option<u32>> = Mutex::new(None);

/// Whose a program in the foreground is.
#[derive(PartialEq)]
pub(crate) enum Whose {
    /// It dies with us.
    Ours,
    /// It runs in the person's own folder, and outlives us if we are killed.
    Theirs,
}

/// Runs a program that has our stdin, stdout, stderr and terminal. Its exit status, as a shell tells it, and whatever
/// signal we get goes to it.
pub(crate) fn in_front(sh: &Shell, cmd: Cmd, whose: Whose) -> Result<ExitCode> {
    check_stopped()?;
    if sh.var_os(VERBOSE).is_some() {
        say!("$ {cmd}");
    }
    let mut command = command(cmd);
    let name = command.get_program().to_string_lossy().into_owned();
    match whose {
        Whose::Ours => die_with_us(&mut command, false),
        Whose::Theirs => _ = command.current_dir(std::env::current_dir()?),
    }
    on_signals();
    let in_front = || IN_FRONT.lock().expect("nobody panics with it");
    let mut now = in_front();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run `{name}`"))?;
    *now = Some(child.id());
    drop(now);
    let status = child.wait();
    *in_front() = None;
    let status = status.with_context(|| format!("`{name}`"))?;
    let code = status
        .code()
        .or_else(|| Some(128 + status.signal()?))
        .unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Whether a key pressed at the terminal sends its signal to all of us.
fn is_at_terminal() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|it| it == getpgrp())
}

/// Set by the first signal in a command that ends in order.
static IS_STOPPED: AtomicBool = AtomicBool::new(false);
static ENDS_IN_ORDER: AtomicBool = AtomicBool::new(false);
/// Programs that are at work for us.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Lets Ctrl-C and SIGTERM end the programs that work for us, and then this one when it has said what it leaves behind.
/// A second signal ends it at once.
pub(crate) fn end_in_order() {
    ENDS_IN_ORDER.store(true, Ordering::SeqCst);
    on_signals();
}

/// What is to be done before a signal ends us.
pub fn on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]) else {
            return;
        };
        thread::spawn(move || {
            for signal in signals.forever() {
                let in_front = *IN_FRONT.lock().expect("nobody panics with it");

                let ends_in_order = ENDS_IN_ORDER.load(Ordering::SeqCst) && signal != SIGQUIT;
                if let Some(in_front) = in_front {
                    // Keys reach it by themselves.
                    if !([SIGINT, SIGQUIT].contains(&signal) && is_at_terminal()) {
                        send(
                            in_front,
                            Signal::from_named_raw(signal).unwrap_or(Signal::TERM),
                        );
                    }
                } else if ends_in_order && !IS_STOPPED.swap(true, Ordering::SeqCst) {
                    say!("stopping; a second signal ends it at once");
                    RUNNING
                        .lock()
                        .expect("nobody panics with it")
                        .iter()
                        .for_each(|it| terminate(*it));
                } else {
                    private::remove_files();
                    let _ = emulate_default_handler(signal);
                }
            }
        });
    });
}

/// An error once somebody wants us to stop.
pub(crate) fn check_stopped() -> Result<()> {
    match IS_STOPPED.load(Ordering::SeqCst) {
        true => bail!("stopped"),
        false => Ok(()),
    }
}

fn terminate(pid: u32) {
    send(pid, Signal::TERM);
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = pid.try_into().ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

struct Running(u32);

impl Running {
    fn new(pid: u32) -> Running {
        RUNNING.lock().expect("nobody panics with it").push(pid);
        // The signal may have come just before.
        if check_stopped().is_err() {
            terminate(pid);
        }
        Running(pid)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING
            .lock()
            .expect("nobody panics with it")
            .retain(|it| *it != self.0);
    }
}

/// A program that is late is asked to end, so that helm marks its release as failed, and then killed.
fn wait_within(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let (until, mut is_asked) = (Instant::now() + limit, false);
    loop {
        if let Some(status) = child.try_wait()?.filter(|_| !is_asked) {
            return Ok(status);
        }
        if Instant::now() > until && !is_asked {
            terminate(child.id());
            is_asked = true;
        }
        if is_asked
            && (child.try_wait()?.is_some() || Instant::now() > until + Duration::from_secs(5))
        {
            child.kill()?;
            child.wait()?;
            bail!("didn't end within {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// What a program writes goes into memory, and not through a pipe: when we are killed, a helm that says its last
/// words into a broken pipe would die of it before it has marked its release as failed.
#[cfg(target_os = "linux")]
fn capture() -> Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("output", MemfdFlags::CLOEXEC)
        .context("cannot make a file in memory")?
        .into())
}

/// The same where there are no files in memory: a private file without a name.
#[cfg(not(target_os = "linux"))]
fn capture() -> Result<File> {
    use std::sync::atomic::AtomicU64;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(
        "output-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let path = crate::machine::paths::in_memory()?.join(name);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn whole(file: &mut File) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut content)?;
    Ok(content)
}

/// Runs a program that must succeed, and returns what it wrote to stdout. Its stderr is in the error.
pub(crate) fn read(sh: &Shell, cmd: Cmd) -> Result<String> {
    let shown = cmd.to_string();
    String::from_utf8(read_bytes(sh, cmd)?)
        .with_context(|| format!("`{shown}` wrote something that isn't UTF-8"))
}

/// The same where it may be no text.
pub(crate) fn read_bytes(sh: &Shell, cmd: Cmd) -> Result<Vec<u8>> {
    let shown = cmd.to_string();
    let output = run(sh, cmd, b"")?;
    if !output.success {
        bail!(
            "`{shown}` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

/// Runs a program that must succeed in the foreground: it has our terminal, and what it writes is shown.
pub(crate) fn show(cmd: Cmd) -> Result<()> {
    let shown = cmd.to_string();
    say!("$ {shown}");
    let status = command(cmd)
        .status()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed");
    }
    Ok(())
}

/// The child gets SIGTERM when the thread that starts it ends, however that comes: helm then marks its
/// release as failed and leaves nothing locked. A session of its own keeps it from asking on our terminal.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn die_with_us(command: &mut Command, in_own_session: bool) {
    use rustix::process::{getpid, getppid, set_parent_process_death_signal};

    let parent = getpid();
    let prepare = move || {
        if in_own_session {
            setsid()?;
        }
        set_parent_process_death_signal(Some(Signal::TERM))?;
        if getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(prepare) };
}

/// Elsewhere the child stays in our process group, where a Ctrl-C reaches it.
#[cfg(not(target_os = "linux"))]
fn die_with_us(_: &mut Command, _: bool) {}
