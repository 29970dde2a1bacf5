//! Who is at work on a release: a Lease in its namespace, renewed as long as that lasts.
//!
//! Whether somebody else's still counts is told by watching whether it's renewed, not by clocks, which differ.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

use crate::{
    kubernetes::{
        api::{self, Api},
        record::Record,
    },
    machine::{paths, process},
};

/// A Lease that isn't renewed for so long is nobody's.
const DURATION: Duration = Duration::from_secs(15);
const RENEWED_EVERY: Duration = Duration::from_secs(5);

/// Of files' names; a process' number follows.
const PREFIX: &str = "at-work-";

/// The Leases that this process holds.
pub(crate) struct Leases {
    shared: Arc<Shared>,
    renewer: Option<JoinHandle<()>>,
}

struct Shared {
    api: Arc<Api>,
    at_work: AtWork,
    annotations: Value,
    state: Mutex<HeldLeases>,
    changed: Condvar,
}

#[derive(Default)]
struct HeldLeases {
    /// As the API server has them, by their paths.
    held: BTreeMap<String, Value>,
    has_ended: bool,
}

/// One release that nobody else works on, as long as this is there.
pub(crate) struct Lease<'a> {
    leases: &'a Leases,
    path: String,
}

impl Leases {
    pub(crate) fn new(api: Arc<Api>, record: &Record) -> Result<Leases> {
        let at_work = AtWork::new()?;
        let annotations = json!({
            "xtask/actor": record.actor(),
            "xtask/host": host(),
            "xtask/file": at_work.path.display().to_string(),
            "xtask/run": record.run().unwrap_or_default(),
        });
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared {
            api,
            at_work,
            annotations,
            state,
            changed,
        });
        let renewer = thread::spawn({
            let shared = shared.clone();
            move || shared.renew()
        });
        Ok(Leases {
            shared,
            renewer: Some(renewer),
        })
    }

    /// Waits until nobody else can be at work on the release. The namespace is made for it.
    pub(crate) fn take(&self, release: &str) -> Result<Lease<'_>> {
        let api = &self.shared.api;
        let is_missing = match api.find(&format!("/api/v1/namespaces/{release}")) {
            // Who may not see namespaces works in one that others made.
            Err(err) if is(&err, 403) => false,
            found => found?.is_none(),
        };
        if is_missing {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": release}});
            match api.send("POST", "/api/v1/namespaces", &namespace) {
                Err(err) if !is(&err, 409) => return Err(err).context("cannot make the namespace"),
                _ => {}
            }
        }
        let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{release}/leases");
        let (name, since) = (format!("xtask-{release}"), Instant::now());
        let path = format!("{leases}/{name}");
        let mut seen: Option<(Value, Instant)> = None;
        loop {
            let found = api.find(&path)?;
            let lease = self.shared.lease(&name, found.as_ref());
            let taken = match &found {
                None => api.send("POST", &leases, &lease),
                Some(found) if is_gone(found) => api.send("PUT", &path, &lease),
                Some(found) => {
                    let renewed = &found["spec"]["renewTime"];
                    match &seen {
                        Some((before, since)) if before == renewed => {
                            let seconds = found["spec"]["leaseDurationSeconds"].as_u64();
                            if since.elapsed() > seconds.map_or(DURATION, Duration::from_secs) {
                                api.send("PUT", &path, &lease)
                            } else {
                                pause()?;
                                continue;
                            }
                        }
                        Some(_) => {
                            bail!(
                                "{} is at work on it\nhint: try again when that has ended",
                                at_work(found)
                            )
                        }
                        None => {
                            say!(
                                "{release}: {} is at work on it, or was cut off: waiting to see",
                                at_work(found)
                            );
                            seen = Some((renewed.clone(), Instant::now()));
                            continue;
                        }
                    }
                }
            };
            match taken {
                Ok(lease) => {
                    self.shared.state().held.insert(path.clone(), lease);
                    return Ok(Lease { leases: self, path });
                }
                // Somebody else was faster.
                Err(err) if is(&err, 409) && since.elapsed() < 4 * DURATION => pause()?,
                Err(err) => {
                    return Err(err).context("cannot take the Lease that says who is at work");
                }
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, HeldLeases> {
        self.state.lock().expect("nobody panics with it")
    }

    /// Ours, in place of the one that was found.
    fn lease(&self, name: &str, found: Option<&Value>) -> Value {
        let now = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let actor = self.annotations["xtask/actor"].as_str().unwrap_or_default();
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": name,
                "annotations": self.annotations,
                "resourceVersion": found.map(|it| &it["metadata"]["resourceVersion"]),
            },
            "spec": {
                "holderIdentity": format!("{actor}-{}", self.at_work.path.display()),
                "leaseDurationSeconds": DURATION.as_secs(),
                "acquireTime": now,
                "renewTime": now,
            },
        })
    }

    fn renew(&self) {
        let mut state = self.state();
        loop {
            let wait = self
                .changed
                .wait_timeout_while(state, RENEWED_EVERY, |it| !it.has_ended);
            state = wait.expect("nobody panics with it").0;
            if state.has_ended {
                return;
            }
            for path in state.held.keys().cloned().collect::<Vec<_>>() {
                let Some(mut lease) = state.held.get(&path).cloned() else {
                    continue;
                };
                lease["spec"]["renewTime"] = humantime::format_rfc3339_micros(SystemTime::now())
                    .to_string()
                    .into();
                drop(state);
                let renewed = self.api.send("PUT", &path, &lease);
                state = self.state();
                match renewed {
                    // It may have been given back meanwhile.
                    Ok(lease) => _ = state.held.get_mut(&path).map(|it| *it = lease),
                    Err(err) if is(&err, 409) || is(&err, 404) => {
                        if state.held.remove(&path).is_some() {
                            say!("somebody else has taken {path}");
                        }
                    }
                    // An API server that is away: it's tried again.
                    Err(_) => {}
                }
            }
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let shared = &self.leases.shared;
        let held = shared.state().held.remove(&self.path);
        if let Some(lease) = held {
            let uid = &lease["metadata"]["uid"];
            let _ = shared.api.send(
                "DELETE",
                &self.path,
                &json!({ "preconditions": { "uid": uid } }),
            );
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.shared.state().has_ended = true;
        self.shared.changed.notify_all();
        if let Some(renewer) = self.renewer.take() {
            let _ = renewer.join();
        }
    }
}

fn pause() -> Result<()> {
    process::check_stopped()?;
    thread::sleep(Duration::from_millis(300));
    Ok(())
}

fn is(err: &anyhow::Error, status: u16) -> bool {
    api::status(err) == Some(status)
}

/// "ann, since 2026-11-21T10:00:00Z, https://…"
fn at_work(lease: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let annotations = &lease["metadata"]["annotations"];
    let actor = annotations["xtask/actor"]
        .as_str()
        .map_or_else(|| text(&lease["spec"]["holderIdentity"]), str::to_owned);
    let since = text(&lease["spec"]["acquireTime"]);
    let since = since
        .split_once('.')
        .map(|(seconds, _)| format!("since {seconds}Z"));
    let run = annotations["xtask/run"]
        .as_str()
        .filter(|it| !it.is_empty())
        .map(str::to_owned);
    match since.into_iter().chain(run).collect::<Vec<_>>().join(", ") {
        known if known.is_empty() => actor,
        known => format!("{actor} ({known})"),
    }
}

/// A file that is locked as long as this process or a program that it started is there: helm goes on for a moment when
/// we are killed.
struct AtWork {
    path: PathBuf,
    _file: File,
}

impl AtWork {
    fn new() -> Result<AtWork> {
        let folder = paths::in_memory()?;
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                is_free(&entry.path());
            }
        }
        // It gets its name when it's locked.
        let unnamed = folder.join(format!("new-{PREFIX}{}", std::process::id()));
        let path = folder.join(format!("{PREFIX}{}", std::process::id()));
        let made = || format!("cannot make `{}`", path.display());
        let file = File::create(&unnamed).with_context(made)?;
        file.lock()
            .and_then(|()| fs::rename(&unnamed, &path))
            .with_context(made)?;
        // Programs that we start get it.
        fcntl_setfd(&file, FdFlags::empty())?;
        Ok(AtWork { path, _file: file })
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether all that worked for the holder of a Lease was on this machine and isn't there any more.
fn is_gone(lease: &Value) -> bool {
    let annotations = &lease["metadata"]["annotations"];
    let is_here = annotations["xtask/host"]
        .as_str()
        .is_some_and(|it| !it.is_empty() && it == host());
    is_here
        && annotations["xtask/file"]
            .as_str()
            .is_some_and(|it| is_free(Path::new(it)))
}

/// Whether nobody holds such a file any more; then it's removed.
fn is_free(path: &Path) -> bool {
    let is_free = match File::open(path) {
        Ok(file) => file.try_lock().is_ok(),
        Err(err) => err.kind() == ErrorKind::NotFound,
    };
    if is_free {
        let _ = fs::remove_file(path);
    }
    is_free
}

/// Where files in memory are the same as here: this boot of the machine and, in a container, that container.
fn host() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let mounts = fs::read_link("/proc/self/ns/mnt");
    match (boot, mounts) {
        (Ok(boot), Ok(mounts)) => format!("{}-{}", boot.trim(), mounts.display()),
        _ => String::new(),
    }
}
