//! The one way to start a program that works for us.
//!
//! An xshell `Cmd` says what to run, and duct runs it: any thread can wait for its handle, with a limit, or signal it,
//! and a signal never reaches a stranger that got the number of a process that has ended.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal},
    os::unix::{fs::FileExt, process::ExitStatusExt},
    process::{Command, ExitCode, ExitStatus},
    sync::{
        Arc, Mutex, MutexGuard, Once, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use duct::{Expression, Handle, unix::HandleExt};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpgid, getpgrp, getrlimit, kill_process_group, setrlimit,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
    low_level::{emulate_default_handler, signal_name},
};
use xshell::{Cmd, Shell};

use crate::machine::{inherited, private, stopped, terminal};

pub(crate) use crate::machine::stopped::check as check_stopped;

/// Set on our own `Shell` by `--verbose`: each program that is run is shown.
pub const VERBOSE: &str = "XTASK_VERBOSE";

/// How long a program that is late may take to end when it is asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// How often to ask whether a program may go on.
const INTERVAL: Duration = Duration::from_millis(100);

/// The person's own limit on core dumps.
static PERSONS_CORE_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// Prevents core dumps of this process and of the programs that work for us, because a dump holds all that was decrypted.
///
/// A limit of 0 would not do: the kernel does not heed it where dumps go to another program, but gives up at 1
/// (<https://man7.org/linux/man-pages/man5/core.5.html>). The hard limit stays, so that the person's own programs can get
/// theirs back.
pub fn prevent_core_dumps() {
    let persons = PERSONS_CORE_LIMIT.get_or_init(|| getrlimit(Resource::Core));
    let limit = Rlimit {
        current: Some(persons.maximum.map_or(1, |it| it.min(1))),
        maximum: persons.maximum,
    };
    // It is lower than the hard limit, so nothing can forbid it.
    let _ = setrlimit(Resource::Core, limit);
}

/// What a program that has ended wrote.
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    /// With how it ended, if it failed without a word or by a signal.
    pub(crate) stderr: Vec<u8>,
}

/// Runs a program to its end, with `stdin` as its whole input. It has no terminal, and ends with us.
///
/// An error means that the program could not be run; one that ran and failed is an `Output`.
pub(crate) fn run(sh: &Shell, cmd: Cmd, stdin: &[u8]) -> Result<Output> {
    run_until(sh, cmd, stdin, None)
}

/// Runs a program that gets no input, and ends it when it takes longer than `limit`, which is an error.
pub(crate) fn run_within(sh: &Shell, cmd: Cmd, limit: Duration) -> Result<Output> {
    run_until(sh, cmd, b"", Some(limit))
}

/// Runs a program as these two do.
pub(crate) fn run_until(
    sh: &Shell,
    cmd: Cmd,
    stdin: &[u8],
    limit: Option<Duration>,
) -> Result<Output> {
    check_stopped()?;
    let program = Beside::start(sh, cmd, stdin)?;
    end_with_first_signal(&program.handle);
    let status = match limit {
        Some(limit) => wait_within(&program.handle, limit),
        None => wait(&program.handle),
    };
    program.output(status.with_context(|| format!("`{}`", program.name))?)
}

/// Runs a program that gets no input to its end, and hands over each line that it writes soon after that.
pub(crate) fn run_following(sh: &Shell, cmd: Cmd, mut follow: impl FnMut(&str)) -> Result<Output> {
    check_stopped()?;
    let program = Beside::start(sh, cmd, b"")?;
    end_with_first_signal(&program.handle);
    let mut written = [&program.stdout, &program.stderr].map(Lines::of);
    loop {
        let ended = program.handle.wait_timeout(INTERVAL)?;
        for lines in &mut written {
            lines.hand_over(ended.is_some(), &mut follow)?;
        }
        if let Some(output) = ended {
            return program.output(output.status);
        }
    }
}

/// The lines of a file that a program goes on writing to.
struct Lines<'a> {
    file: &'a File,
    /// How many bytes have been handed over.
    length: u64,
}

impl Lines<'_> {
    fn of(file: &File) -> Lines<'_> {
        Lines { file, length: 0 }
    }

    /// Hands over the lines that are new; one without an end only if nothing more will come.
    fn hand_over(&mut self, is_all: bool, follow: &mut impl FnMut(&str)) -> Result<()> {
        let length = self.file.metadata()?.len();
        let mut content = vec![0; usize::try_from(length - self.length)?];
        self.file.read_exact_at(&mut content, self.length)?;
        if !is_all {
            let end = content.iter().rposition(|it| *it == b'\n');
            content.truncate(end.map_or(0, |it| it + 1));
        }
        self.length += u64::try_from(content.len())?;
        for line in String::from_utf8_lossy(&content).lines() {
            follow(line);
        }
        Ok(())
    }
}

/// Runs a program as `run_within` does, but only as long as it may go on. Then it is killed at once, with all that it
/// started: what it would do before it ends by itself is no longer ours to do. Once it `is_hopeless`, it is asked to end
/// in order.
pub(crate) fn run_while(
    sh: &Shell,
    cmd: Cmd,
    limit: Duration,
    may_go_on: impl Fn() -> Result<()>,
    is_hopeless: impl Fn() -> bool,
) -> Result<Output> {
    check_stopped()?;
    may_go_on()?;
    let program = Beside::start(sh, cmd, b"")?;
    let status = wait_while(&program.handle, limit, &may_go_on, is_hopeless);
    // Whatever came of it meanwhile.
    may_go_on()?;
    program.output(status.with_context(|| format!("`{}`", program.name))?)
}

fn wait(handle: &Handle) -> Result<ExitStatus> {
    Ok(handle.wait()?.status)
}

/// A program that is late is asked to end, so that helm marks its release as failed, and then killed.
fn wait_within(handle: &Handle, limit: Duration) -> Result<ExitStatus> {
    match handle.wait_timeout(limit)? {
        Some(output) => Ok(output.status),
        None => end_late(handle, limit),
    }
}

fn end_late(handle: &Handle, limit: Duration) -> Result<ExitStatus> {
    terminate(handle);
    handle.wait_timeout(GRACE)?;
    handle.kill()?;
    handle.wait()?;
    bail!("did not end within {} s", limit.as_secs());
}

/// Waits as `wait_within` does. The first signal ends the program here, and not as soon as it comes: it may be what wakes
/// us, and then the program may do nothing more.
fn wait_while(
    handle: &Handle,
    limit: Duration,
    may_go_on: impl Fn() -> Result<()>,
    is_hopeless: impl Fn() -> bool,
) -> Result<ExitStatus> {
    let until = Instant::now() + limit;
    let mut is_stopped = false;
    while Instant::now() < until {
        if let Err(err) = may_go_on() {
            kill_group(handle);
            return Err(err);
        }
        if !is_stopped && (check_stopped().is_err() || is_hopeless()) {
            is_stopped = true;
            terminate(handle);
        }
        if let Some(output) = handle.wait_timeout(INTERVAL)? {
            return Ok(output.status);
        }
    }
    end_late(handle, limit)
}

/// Kills a program that has not been waited for, so that nobody else has its number, with its process group. It leads one
/// where programs get sessions of their own; elsewhere it is killed when its `Beside` is dropped.
fn kill_group(program: &Handle) {
    let pids = program.pids().into_iter();
    for pid in pids.filter_map(|it| Pid::from_raw(it.try_into().ok()?)) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// A program that runs beside us. It is killed when this is dropped.
pub(crate) struct Beside {
    name: String,
    handle: Arc<Handle>,
    stdout: File,
    stderr: File,
}

/// Starts a program that works for us while we go on. It gets no input.
pub(crate) fn start(sh: &Shell, cmd: Cmd) -> Result<Beside> {
    Beside::start(sh, cmd, b"")
}

impl Beside {
    fn start(sh: &Shell, cmd: Cmd, stdin: &[u8]) -> Result<Beside> {
        show_if_verbose(sh, &cmd);
        let command = Command::from(cmd);
        let name = name(&command);
        let stdout = capture()?;
        let stderr = capture()?;
        let handle = beside_us(&command)
            .stdin_bytes(stdin)
            .stdout_file(stdout.try_clone()?)
            .stderr_file(stderr.try_clone()?)
            .start()
            .with_context(|| format!("cannot run `{name}`"))?;
        Ok(Beside {
            name,
            handle: Arc::new(handle),
            stdout,
            stderr,
        })
    }

    /// What the program, which has ended, wrote.
    fn output(&self, status: ExitStatus) -> Result<Output> {
        let mut stderr = content(&self.stderr)?;
        let is_silent = stderr.trim_ascii().is_empty();
        if let Some(signal) = status.signal() {
            let signal = signal_name(signal).unwrap_or("a signal");
            stderr.extend(format!("`{}` was ended by {signal}\n", self.name).bytes());
        } else if is_silent && !status.success() {
            stderr.extend(format!("`{}` ended with {status}\n", self.name).bytes());
        }
        Ok(Output {
            success: status.success(),
            stdout: content(&self.stdout)?,
            stderr,
        })
    }

    /// What the program wrote to stderr, if it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<String>> {
        if self.handle.try_wait()?.is_none() {
            return Ok(None);
        }
        let stderr = content(&self.stderr)?;
        Ok(Some(String::from_utf8_lossy(&stderr).into_owned()))
    }

    /// What the program has written to stdout so far.
    pub(crate) fn written(&self) -> Result<String> {
        let stdout = content(&self.stdout)?;
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.handle.kill();
        let _ = self.handle.wait();
    }
}

pub(crate) fn show_if_verbose(sh: &Shell, cmd: &Cmd) {
    if sh.var_os(VERBOSE).is_some() {
        say!("$ {cmd}");
    }
}

pub(crate) fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// What duct starts for a command that works for us while we go on: it has no terminal, and ends with us.
pub(crate) fn beside_us(command: &Command) -> Expression {
    end_with_us(in_own_session(in_its_folder(command, ours(command))))
}

/// What duct starts for a command that works for us: of the person's settings, it has those that its `Shell` names.
fn ours(command: &Command) -> Expression {
    // Of two such calls, duct heeds the earlier one.
    inherited::unwanted().fold(theirs(command), |it, name| it.env_remove(name))
}

/// What duct starts for a command of the person's own: in our folder and environment, with our own stdin, stdout and stderr.
/// A failed program is no error.
#[expect(clippy::disallowed_methods, reason = "this is the one way")]
fn theirs(command: &Command) -> Expression {
    let mut expression = duct::cmd(command.get_program(), command.get_args()).unchecked();
    for (name, value) in command.get_envs() {
        expression = match value.filter(|it| !it.is_empty()) {
            Some(value) => expression.env(name, value),
            // A `Shell` cannot take a variable away: one that is empty in it is not passed on.
            None => expression.env_remove(name),
        };
    }
    expression
}

fn in_its_folder(command: &Command, expression: Expression) -> Expression {
    match command.get_current_dir() {
        Some(folder) => expression.dir(folder),
        None => expression,
    }
}

/// What a program writes goes into memory, and not through a pipe: when we are killed, a helm that writes its last
/// words into a broken pipe would die of it before it has marked its release as failed.
#[cfg(target_os = "linux")]
fn capture() -> Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("output", MemfdFlags::CLOEXEC)
        .context("cannot make a file in memory")?
        .into())
}

/// Where there are no files in memory, what a program writes goes into a private file without a name.
#[cfg(not(target_os = "linux"))]
fn capture() -> Result<File> {
    let path = crate::machine::paths::of_this_process("output")?;
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("cannot make `{}`", path.display()))?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// All that is in a file. Where a program goes on writing to it stays as it is.
fn content(file: &File) -> Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let mut content = vec![0; usize::try_from(length)?];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

/// The program that has our terminal. Locked while one is started, so that no signal is missed.
static IN_FRONT: Mutex<Option<Arc<Handle>>> = Mutex::new(None);

/// Whose a program in the foreground is.
pub(crate) enum Whose {
    /// It runs in our folder without the person's settings, and ends with us.
    Ours,
    /// The same without our terminal: a signal for all of us reaches it once, from us, and so it ends in order.
    Apart,
    /// It runs in the person's own folder and environment, and outlives us if we are killed.
    Theirs,
}

/// Runs a program that has our stdin, stdout, stderr and terminal, and passes it the signals that we get. Returns its
/// exit status as a shell tells it: 128 and the number of a signal that ended it.
pub(crate) fn in_front(sh: &Shell, cmd: Cmd, whose: Whose) -> Result<ExitCode> {
    check_stopped()?;
    show_if_verbose(sh, &cmd);
    let command = Command::from(cmd);
    let name = name(&command);
    let expression = match whose {
        Whose::Ours => end_with_us(in_its_folder(&command, ours(&command))),
        Whose::Apart => beside_us(&command),
        Whose::Theirs => with_persons_core_limit(theirs(&command)),
    };
    run_in_front(&name, expression, || Ok(()))
}

/// Runs a program of ours in the foreground that shows text. On a terminal, control characters in it are made visible.
pub(crate) fn show_text(sh: &Shell, cmd: Cmd) -> Result<ExitCode> {
    if !io::stdout().is_terminal() {
        return in_front(sh, cmd, Whose::Ours);
    }
    check_stopped()?;
    show_if_verbose(sh, &cmd);
    let command = Command::from(cmd);
    let (text, stdout) = io::pipe()?;
    let expression = in_its_folder(&command, ours(&command)).stdout_file(stdout);
    run_in_front(&name(&command), end_with_us(expression), || {
        let mut text = BufReader::new(text);
        let mut line = Vec::new();
        while text.read_until(b'\n', &mut line)? > 0 {
            terminal::print(&line)?;
            line.clear();
        }
        Ok(())
    })
}

/// Runs a program in the foreground, and does something meanwhile.
fn run_in_front(
    name: &str,
    expression: Expression,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<ExitCode> {
    on_signals();
    let handle = start_in_front(&expression).with_context(|| format!("cannot run `{name}`"))?;
    // It holds the other end of the program's pipes.
    drop(expression);
    let done = meanwhile();
    let status = wait(&handle);
    *locked(&IN_FRONT) = None;
    done?;
    Ok(exit_code(status.with_context(|| format!("`{name}`"))?))
}

fn start_in_front(expression: &Expression) -> io::Result<Arc<Handle>> {
    let mut in_front = locked(&IN_FRONT);
    let handle = Arc::new(expression.start()?);
    *in_front = Some(handle.clone());
    Ok(handle)
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let killed = status.signal().map(|it| 128 + it);
    let code = status.code().or(killed).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Whether a key pressed at the terminal sends its signal to all of us.
fn is_at_terminal() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|it| it == getpgrp())
}

static ENDS_IN_ORDER: AtomicBool = AtomicBool::new(false);
static HAS_PASSED_ON: AtomicBool = AtomicBool::new(false);

/// Whether a signal came while a program was in the foreground.
pub(crate) fn has_passed_on_signal() -> bool {
    HAS_PASSED_ON.load(Ordering::SeqCst)
}

/// The programs that the first signal ends.
static RUNNING: Mutex<Vec<Weak<Handle>>> = Mutex::new(Vec::new());

/// What is said if a second signal ends us now.
static UNFINISHED: Mutex<Vec<Arc<Mutex<String>>>> = Mutex::new(Vec::new());

/// Something that a second signal leaves as it is, until this is dropped.
pub(crate) struct Unfinished(Arc<Mutex<String>>);

/// Says this if a second signal ends us before what is returned is dropped.
pub(crate) fn unfinished(what: String) -> Unfinished {
    let what = Arc::new(Mutex::new(what));
    locked(&UNFINISHED).push(what.clone());
    Unfinished(what)
}

impl Unfinished {
    /// Says this from now on.
    pub(crate) fn change(&self, what: String) {
        *locked(&self.0) = what;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        locked(&UNFINISHED).retain(|it| !Arc::ptr_eq(it, &self.0));
    }
}

/// Lets Ctrl-C and SIGTERM end the programs that work for us, and then this one when it has said what it leaves behind.
/// A second signal ends it at once.
pub(crate) fn end_in_order() {
    ENDS_IN_ORDER.store(true, Ordering::SeqCst);
    on_signals();
}

/// Does what is to be done before a signal ends us.
pub fn on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok(mut signals) = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]) {
            thread::spawn(move || signals.forever().for_each(on_signal));
        }
    });
}

fn on_signal(signal: i32) {
    let in_front = locked(&IN_FRONT).clone();
    if let Some(program) = in_front {
        return pass_on(signal, &program);
    }
    let ends_in_order = ENDS_IN_ORDER.load(Ordering::SeqCst) && signal != SIGQUIT;
    if ends_in_order && !stopped::stop() {
        say!("stopping; a second signal ends it at once");
        for program in locked(&RUNNING).iter().filter_map(Weak::upgrade) {
            terminate(&program);
        }
    } else {
        for what in locked(&UNFINISHED).iter() {
            say!("{}", locked(what));
        }
        private::remove_files();
        let _ = emulate_default_handler(signal);
    }
}

/// Passes a signal on to the program in the foreground. Keys reach it by themselves, if it has our terminal.
fn pass_on(signal: i32, program: &Handle) {
    HAS_PASSED_ON.store(true, Ordering::SeqCst);
    let is_key = [SIGINT, SIGQUIT].contains(&signal) && is_at_terminal();
    if !(is_key && is_in_our_group(program)) {
        let _ = program.send_signal(signal);
    }
}

fn is_in_our_group(program: &Handle) -> bool {
    let pids = program.pids().into_iter();
    let mut pids = pids.filter_map(|it| Pid::from_raw(it.try_into().ok()?));
    pids.any(|it| getpgid(Some(it)) == Ok(getpgrp()))
}

/// Lets the first signal end a program, even if it came while the program was started.
fn end_with_first_signal(program: &Arc<Handle>) {
    let mut running = locked(&RUNNING);
    running.retain(|it| it.strong_count() > 0);
    running.push(Arc::downgrade(program));
    drop(running);
    if check_stopped().is_err() {
        terminate(program);
    }
}

fn terminate(program: &Handle) {
    let _ = program.send_signal(SIGTERM);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

/// Runs a program that must succeed, and returns what it wrote to stdout. Its stderr is in the error.
pub(crate) fn read(sh: &Shell, cmd: Cmd) -> Result<String> {
    let shown = cmd.to_string();
    String::from_utf8(read_bytes(sh, cmd)?)
        .with_context(|| format!("`{shown}` wrote something that is not UTF-8"))
}

/// Runs a program that must succeed and may write anything, and returns what it wrote to stdout.
pub(crate) fn read_bytes(sh: &Shell, cmd: Cmd) -> Result<Vec<u8>> {
    let shown = cmd.to_string();
    let output = run(sh, cmd, b"")?;
    if !output.success {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed: {}", stderr.trim());
    }
    Ok(output.stdout)
}

/// Runs a program that must succeed in the foreground: it has our terminal, and what it writes is shown.
pub(crate) fn show(cmd: Cmd) -> Result<()> {
    let shown = cmd.to_string();
    say!("$ {shown}");
    let command = Command::from(cmd);
    let output = in_its_folder(&command, ours(&command))
        .run()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed");
    }
    Ok(())
}

/// Sends the program SIGTERM when the thread that starts it ends, however that comes: helm then marks its release as
/// failed and leaves nothing locked. duct starts programs in the thread that asks for it.
#[cfg(target_os = "linux")]
fn end_with_us(expression: Expression) -> Expression {
    use rustix::process::{getpid, getppid, set_parent_process_death_signal};

    let parent = getpid();
    before_exec(expression, move || {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        if getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    })
}

/// Lets a program of the person's own dump its core if theirs do.
fn with_persons_core_limit(expression: Expression) -> Expression {
    match PERSONS_CORE_LIMIT.get().copied() {
        Some(limit) => before_exec(expression, move || Ok(setrlimit(Resource::Core, limit)?)),
        None => expression,
    }
}

/// Keeps the program from asking on our terminal.
#[cfg(target_os = "linux")]
fn in_own_session(expression: Expression) -> Expression {
    before_exec(expression, || {
        rustix::process::setsid()?;
        Ok(())
    })
}

/// Does something in the new process before it becomes the program: system calls only, and nothing that allocates.
#[allow(unsafe_code)]
fn before_exec<F>(expression: Expression, prepare: F) -> Expression
where
    F: Fn() -> std::io::Result<()> + Copy + Send + Sync + 'static,
{
    use std::os::unix::process::CommandExt;

    expression.before_spawn(move |command| {
        // SAFETY: between fork and exec our functions make system calls, and allocate nothing.
        unsafe { command.pre_exec(prepare) };
        Ok(())
    })
}

/// Elsewhere the program stays in our process group, where a Ctrl-C reaches it.
#[cfg(not(target_os = "linux"))]
fn end_with_us(expression: Expression) -> Expression {
    expression
}

/// Elsewhere the program stays in our session.
#[cfg(not(target_os = "linux"))]
fn in_own_session(expression: Expression) -> Expression {
    expression
}
