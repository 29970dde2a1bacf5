//! The one way to start a program that works for us.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, bail};
use xshell::{Cmd, Shell};

/// Set on our own `Shell` by `--verbose`: each program that is run is shown.
pub(crate) const VERBOSE: &str = "XTASK_VERBOSE";

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
    if sh.var_os(VERBOSE).is_some() {
        say!("$ {cmd}");
    }
    let mut command = Command::from(cmd);
    let name = command.get_program().to_string_lossy().into_owned();
    let (mut stdout, mut stderr) = (capture()?, capture()?);
    command.stdin(Stdio::piped()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    die_with_us(&mut command);
    let mut child = command.spawn().with_context(|| format!("cannot run `{name}`"))?;
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
    Ok(Output { success: status.success(), stdout: whole(&mut stdout)?, stderr: whole(&mut stderr)? })
}

fn wait_within(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > until {
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
    Ok(memfd_create("output", MemfdFlags::CLOEXEC).context("cannot make a file in memory")?.into())
}

/// The same where there are no files in memory: a private file without a name.
#[cfg(not(target_os = "linux"))]
fn capture() -> Result<File> {
    use std::sync::atomic::AtomicU64;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("output-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = crate::paths::in_memory()?.join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
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
    let output = run(sh, cmd, b"")?;
    if !output.success {
        bail!("`{shown}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` wrote something that isn't UTF-8"))
}

/// Runs a program that must succeed in the foreground: it has our terminal, and what it writes is shown.
pub(crate) fn show(cmd: Cmd) -> Result<()> {
    let shown = cmd.to_string();
    say!("$ {shown}");
    let status = Command::from(cmd).status().with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed");
    }
    Ok(())
}

/// Calls `f` with each item, up to eight at once, and returns the results in the items' order.
pub(crate) fn side_by_side<T: Sync, R: Send>(
    sh: &Shell,
    items: &[T],
    f: impl Fn(&Shell, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = |sh: Shell| {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return results };
            results.push((index, f(&sh, item)));
        }
    };
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let shells = (0..items.len().min(8)).map(|_| sh.clone());
        let workers: Vec<_> = shells
            .map(|sh| {
                let work = &work;
                scope.spawn(move || work(sh))
            })
            .collect();
        workers.into_iter().flat_map(|it| it.join().expect("a worker panicked")).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The child gets SIGTERM when the thread that starts it ends, however that comes: helm then marks its
/// release as failed and leaves nothing locked. A session of its own keeps it from asking on our terminal.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn die_with_us(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal, setsid};

    let parent = getpid();
    let prepare = move || {
        setsid()?;
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
fn die_with_us(_: &mut Command) {}
