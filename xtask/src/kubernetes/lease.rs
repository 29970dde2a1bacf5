//! Who is at work on a release: a Lease in its namespace, which is renewed until the work ends.
//! <https://kubernetes.io/docs/concepts/architecture/leases>
//!
//! Whether somebody else's Lease still counts is told by watching whether it's renewed, and not by clocks, which differ.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

use crate::{
    kubernetes::{
        api::{self, Api},
        objects,
        record::Record,
    },
    machine::{paths, process, until::Until},
};

/// A Lease that isn't renewed for so long is nobody's.
const DURATION: Duration = Duration::from_secs(15);
const RENEWED_EVERY: Duration = Duration::from_secs(5);

/// How the names of lock files begin. The id of the process follows.
const PREFIX: &str = "at-work-";

/// The Leases that this process holds.
pub(crate) struct Leases {
    shared: Arc<Shared>,
    renewer: Option<JoinHandle<()>>,
}

struct Shared {
    api: Arc<Api>,
    lock_file: LockFile,
    /// Of each Lease: who holds it.
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

/// The right to work on a release, which nobody else has until this is dropped.
pub(crate) struct Lease<'a> {
    leases: &'a Leases,
    path: String,
}

/// The Lease of somebody else, as it was when we first saw it.
struct FirstLook {
    renewed: Option<String>,
    at: Instant,
}

impl FirstLook {
    fn at(lease: &objects::Lease) -> FirstLook {
        FirstLook {
            renewed: lease.spec.renew_time.clone(),
            at: Instant::now(),
        }
    }
}

impl Leases {
    /// Starts a thread that renews the Leases.
    pub(crate) fn new(api: Arc<Api>, record: &Record) -> Result<Leases> {
        let lock_file = LockFile::new()?;
        let shared = Arc::new(Shared {
            api,
            annotations: annotations(record, &lock_file),
            lock_file,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let renewer = thread::spawn({
            let shared = shared.clone();
            move || shared.renew_all()
        });
        Ok(Leases {
            shared,
            renewer: Some(renewer),
        })
    }

    /// Waits until nobody else can be at work on the release, and takes its Lease. Creates the release's namespace if that
    /// is missing. An error if somebody is at work.
    pub(crate) fn take(&self, release: &str) -> Result<Lease<'_>> {
        let api = &self.shared.api;
        create_namespace(api, release)?;
        let path = format!("{}/{}", leases_path(release), lease_name(release));
        let until = Until::after(4 * DURATION);
        let mut first_look = None;
        loop {
            let found = api.find_object(&path)?;
            if let Some(found) = &found
                && !has_ended(release, found, &mut first_look)?
            {
                pause()?;
                continue;
            }
            match self.shared.put(release, found.as_ref()) {
                Ok(lease) => {
                    self.shared.state().held.insert(path.clone(), lease);
                    return Ok(Lease { leases: self, path });
                }
                // Somebody else was faster.
                Err(err) if has_status(&err, 409) && !until.left().is_zero() => pause()?,
                Err(err) => {
                    return Err(err).context("cannot take the Lease that says who is at work");
                }
            }
        }
    }
}

/// What every Lease says of who holds it.
fn annotations(record: &Record, lock_file: &LockFile) -> Value {
    json!({
        "xtask/actor": record.actor(),
        "xtask/host": host(),
        "xtask/file": lock_file.name,
        "xtask/run": record.run().unwrap_or_default(),
    })
}

fn create_namespace(api: &Api, name: &str) -> Result<()> {
    match api.find(&format!("/api/v1/namespaces/{name}")) {
        Ok(None) => {}
        Ok(Some(_)) => return Ok(()),
        // Who may not see namespaces works in one that others made.
        Err(err) if has_status(&err, 403) => return Ok(()),
        Err(err) => return Err(err),
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    match api.send("POST", "/api/v1/namespaces", &namespace) {
        // Somebody else was faster.
        Err(err) if has_status(&err, 409) => Ok(()),
        created => created.map(|_| ()).context("cannot create the namespace"),
    }
}

fn leases_path(release: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{release}/leases")
}

fn lease_name(release: &str) -> String {
    format!("xtask-{release}")
}

/// Whether the holder of a Lease is at work no more: its processes have ended, or it hasn't renewed the Lease since our
/// first look, for as long as our Leases last, whatever this one says of itself. An error if it has.
fn has_ended(
    release: &str,
    lease: &objects::Lease,
    first_look: &mut Option<FirstLook>,
) -> Result<bool> {
    if is_abandoned(lease) {
        return Ok(true);
    }
    let Some(before) = first_look else {
        say!(
            "{release}: {} is at work on it, or was cut off: waiting to see",
            holder(lease)
        );
        *first_look = Some(FirstLook::at(lease));
        return Ok(false);
    };
    ensure!(
        before.renewed == lease.spec.renew_time,
        "{} is at work on it\nhint: try again when that has ended",
        holder(lease)
    );
    Ok(before.at.elapsed() > DURATION)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, HeldLeases> {
        self.state.lock().expect("nobody panics with it")
    }

    /// Writes our Lease, in place of the one that was found. A conflict (409) if that has changed since.
    fn put(&self, release: &str, found: Option<&objects::Lease>) -> Result<Value> {
        let name = lease_name(release);
        let now = now();
        let actor = self.annotations["xtask/actor"].as_str().unwrap_or_default();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": name,
                "annotations": self.annotations,
                "resourceVersion": found.map(|it| &it.metadata.resource_version),
            },
            "spec": {
                "holderIdentity": format!("{actor}-{}", self.lock_file.name),
                "leaseDurationSeconds": DURATION.as_secs(),
                "acquireTime": now,
                "renewTime": now,
            },
        });
        let leases = leases_path(release);
        match found {
            None => self.api.send("POST", &leases, &lease),
            Some(_) => self.api.send("PUT", &format!("{leases}/{name}"), &lease),
        }
    }

    /// Renews the Leases that are held, until there will be no more.
    fn renew_all(&self) {
        loop {
            let state = self
                .changed
                .wait_timeout_while(self.state(), RENEWED_EVERY, |it| !it.has_ended)
                .expect("nobody panics with it")
                .0;
            if state.has_ended {
                return;
            }
            let paths: Vec<String> = state.held.keys().cloned().collect();
            drop(state);
            for path in paths {
                self.renew(&path);
            }
        }
    }

    fn renew(&self, path: &str) {
        let held = self.state().held.get(path).cloned();
        let Some(mut lease) = held else { return };
        lease["spec"]["renewTime"] = now().into();
        let renewed = self.api.send("PUT", path, &lease);
        let mut state = self.state();
        match renewed {
            // It may have been given back meanwhile.
            Ok(lease) => {
                if let Some(held) = state.held.get_mut(path) {
                    *held = lease;
                }
            }
            Err(err) if has_status(&err, 409) || has_status(&err, 404) => {
                if state.held.remove(path).is_some() {
                    say!("somebody else has taken {path}");
                }
            }
            // The API server is away: the next time may do.
            Err(_) => {}
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let shared = &self.leases.shared;
        let held = shared.state().held.remove(&self.path);
        if let Some(lease) = held {
            let options = json!({"preconditions": {"uid": lease["metadata"]["uid"]}});
            let _ = shared.api.send("DELETE", &self.path, &options);
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

fn has_status(err: &anyhow::Error, status: u16) -> bool {
    api::status(err) == Some(status)
}

/// The current time, as Leases have it.
fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// `ann (since 2026-11-21T10:00:00Z, https://…)`
fn holder(lease: &objects::Lease) -> String {
    let annotations = &lease.metadata.annotations;
    let mut details = Vec::new();
    if let Some((seconds, _)) = lease.spec.acquire_time.split_once('.') {
        details.push(format!("since {seconds}Z"));
    }
    let run = annotations.get("xtask/run");
    details.extend(run.filter(|it| !it.is_empty()).cloned());
    let actor = annotations
        .get("xtask/actor")
        .unwrap_or(&lease.spec.holder_identity);
    if details.is_empty() {
        actor.clone()
    } else {
        format!("{actor} ({})", details.join(", "))
    }
}

/// A file that is locked as long as this process, or a program that it started, is there: helm goes on for a moment when
/// we are killed.
struct LockFile {
    /// Its name in the folder in memory.
    name: String,
    path: PathBuf,
    _file: File,
}

impl LockFile {
    /// Locks a new file, and removes those of processes that were killed.
    fn new() -> Result<LockFile> {
        let folder = paths::in_memory()?;
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                is_free(&entry.path());
            }
        }
        let pid = std::process::id();
        let name = format!("{PREFIX}{pid}");
        let path = folder.join(&name);
        // It gets its name when it's locked.
        let unnamed = folder.join(format!("new-{PREFIX}{pid}"));
        let file = File::create(&unnamed)
            .and_then(|file| file.lock().map(|()| file))
            .and_then(|file| fs::rename(&unnamed, &path).map(|()| file))
            .with_context(|| format!("cannot make `{}`", path.display()))?;
        // Programs that we start inherit it, and with it the lock.
        fcntl_setfd(&file, FdFlags::empty())?;
        Ok(LockFile {
            name,
            path,
            _file: file,
        })
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether all that worked for the holder of a Lease was on this machine, and has ended.
fn is_abandoned(lease: &objects::Lease) -> bool {
    let annotations = &lease.metadata.annotations;
    let host = host();
    let is_here = !host.is_empty() && annotations.get("xtask/host") == Some(&host);
    let lock_file = annotations
        .get("xtask/file")
        .and_then(|it| lock_file_of(it));
    is_here && lock_file.is_some_and(|it| is_free(&it))
}

/// The path of a lock file that a Lease names. Whoever can write Leases chooses that name, so it has to be one of ours.
fn lock_file_of(name: &str) -> Option<PathBuf> {
    let pid = name.strip_prefix(PREFIX)?;
    let is_number = !pid.is_empty() && pid.bytes().all(|it| it.is_ascii_digit());
    is_number.then_some(paths::in_memory().ok()?.join(name))
}

/// Whether nobody holds such a file any more. Removes it then.
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

/// Identifies where files in memory are the same as here: this boot of the machine and, in a container, the container.
/// Empty where that can't be told.
fn host() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let mounts = fs::read_link("/proc/self/ns/mnt");
    match (boot, mounts) {
        (Ok(boot), Ok(mounts)) => format!("{}-{}", boot.trim(), mounts.display()),
        _ => String::new(),
    }
}
