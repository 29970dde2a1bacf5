//! Who is at work on a release: a Lease in its namespace, which is renewed until the work ends.
//! <https://kubernetes.io/docs/concepts/architecture/leases>
//!
//! Whether somebody else's Lease still counts is told by watching whether it's renewed, and not by clocks, which differ.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

use crate::{
    kubernetes::{
        api::{self, Api},
        objects,
        record::Record,
    },
    machine::{clock, paths, process, until::Until, workflow},
};

/// A Lease that isn't renewed for so long is nobody's.
const DURATION: Duration = Duration::from_secs(15);
const RENEWED_EVERY: Duration = Duration::from_secs(5);

/// How long a renewal may take, and how soon one that failed is tried again: often enough before the Lease is lost.
const ANSWER: Duration = Duration::from_secs(4);
const TRIED_EVERY: Duration = Duration::from_secs(1);

/// How much longer others wait before they take a Lease: who has lost it ends what is at work first.
const NOTICE: Duration = Duration::from_secs(1);

/// How long to ask who has a Lease that was lost.
const INQUIRY: Duration = Duration::from_secs(10);

/// How the names of lock files begin. The id of the process follows.
const PREFIX: &str = "at-work-";

/// How long a check waits for who is at work.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// The annotation of a check's Lease.
const IS_CHECK: &str = "xtask/is-check";

/// What a Lease is taken for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Work {
    /// To change the release. Nobody else may be doing that; a check gives way.
    Change,
    /// To check the hub, for which a change is waited for.
    Check,
}

/// The Leases that this process takes.
pub(crate) struct Leases {
    shared: Arc<Shared>,
}

struct Shared {
    api: Arc<Api>,
    lock_file: LockFile,
    /// Of each Lease: who holds it.
    annotations: Value,
}

/// The right to work on a release, which nobody else has until this is dropped or lost.
pub(crate) struct Lease {
    held: Arc<HeldLease>,
    renewer: Option<JoinHandle<()>>,
}

struct HeldLease {
    shared: Arc<Shared>,
    path: String,
    state: Mutex<LeaseState>,
    changed: Condvar,
}

struct LeaseState {
    /// As the API server has it.
    lease: Value,
    /// When, since the machine was started, the last renewal that succeeded was sent, and the last one of all.
    renewed: Duration,
    tried: Duration,
    /// Why the last renewal failed.
    failure: String,
    /// How the Lease was lost. It's never regained.
    lost: Option<String>,
    /// Whether somebody else has it, or had it meanwhile.
    is_taken: bool,
    has_ended: bool,
}

/// Who else is at work on a release that we wait for.
struct Others {
    work: Work,
    patience: Until<'static>,
    /// The Lease as it was when we first saw it, or saw it renewed.
    last_look: Option<Look>,
}

struct Look {
    renewed: Option<String>,
    at: Instant,
}

impl Leases {
    pub(crate) fn new(api: Arc<Api>, record: &Record) -> Result<Leases> {
        let lock_file = LockFile::new()?;
        let annotations = annotations(record, &lock_file);
        Ok(Leases {
            shared: Arc::new(Shared {
                api,
                lock_file,
                annotations,
            }),
        })
    }

    /// Waits until nobody else can be at work on the release, and takes its Lease. Creates the release's namespace if that
    /// is missing. An error if somebody is at work who does not give way.
    pub(crate) fn take(&self, release: &str, work: Work) -> Result<Lease> {
        let api = &self.shared.api;
        create_namespace(api, release)?;
        let path = format!("{}/{}", leases_path(release), lease_name(release));
        let until = Until::after(4 * DURATION);
        let mut others = Others::new(work);
        let mut tried: Option<(Value, Duration)> = None;
        loop {
            let found = api.find(&path)?;
            if let (Some(found), Some((wanted, sent))) = (&found, &tried)
                && holds_as(found, wanted)
            {
                // The answer did not reach us.
                return Ok(self.start(path, found.clone(), *sent));
            }
            let found: Option<objects::Lease> = found.map(objects::from_value).transpose()?;
            if let Some(found) = &found
                && !others.give_way(release, found)?
            {
                pause()?;
                continue;
            }
            let wanted = self.shared.lease(release, found.as_ref(), work);
            let sent = clock::since_boot();
            let put = self.shared.put(release, &wanted, found.is_some());
            tried = Some((wanted, sent));
            match put {
                Ok(lease) => return Ok(self.start(path, lease, sent)),
                // Somebody else was faster, or the next look waits until the API server is there.
                Err(err) if may_be_taken_yet(&err) && !until.left().is_zero() => pause()?,
                Err(err) => {
                    return Err(err).context("cannot take the Lease that says who is at work");
                }
            }
        }
    }

    fn start(&self, path: String, lease: Value, sent: Duration) -> Lease {
        Lease::start(self.shared.clone(), path, lease, sent)
    }
}

/// Who is at work on a release, as its Lease says.
pub(crate) struct AtWork {
    /// `ann (since 2026-11-21T10:00:00Z, https://…)`
    pub(crate) who: String,
    /// Whether that was cut off, as far as this machine and its clock can tell.
    pub(crate) is_cut_off: bool,
}

/// Who is at work on a release, or was cut off; none if nobody is.
pub(crate) fn at_work(api: &Api, release: &str) -> Result<Option<AtWork>> {
    let path = format!("{}/{}", leases_path(release), lease_name(release));
    let found: Option<objects::Lease> = api.find_object(&path)?;
    Ok(found.map(|lease| AtWork {
        is_cut_off: is_abandoned(&lease) || is_stale(&lease),
        who: holder(&lease),
    }))
}

/// Whether a Lease has not been renewed for so long that no two clocks differ as much.
fn is_stale(lease: &objects::Lease) -> bool {
    let renewed = lease.spec.renew_time.as_deref();
    let renewed = renewed.and_then(|it| humantime::parse_rfc3339(it).ok());
    let age = renewed.and_then(|it| it.elapsed().ok());
    age.is_some_and(|it| it > 10 * DURATION)
}

fn may_be_taken_yet(err: &anyhow::Error) -> bool {
    has_status(err, 409) || api::is_away(err)
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

impl Others {
    fn new(work: Work) -> Others {
        let patience = match work {
            Work::Change => Duration::ZERO,
            Work::Check => PATIENCE,
        };
        Others {
            work,
            patience: Until::after(patience),
            last_look: None,
        }
    }

    /// Whether the holder of a Lease is at work no more: its processes have ended, or it hasn't renewed the Lease since we
    /// looked, for as long as our Leases last, whatever this one says of itself. Or it only checks what we will change. An
    /// error if it goes on for longer than we wait.
    fn give_way(&mut self, release: &str, lease: &objects::Lease) -> Result<bool> {
        if is_abandoned(lease) {
            return Ok(true);
        }
        if self.work == Work::Change && lease.metadata.annotations.contains_key(IS_CHECK) {
            say!(
                "{release}: {} is checking its health, and begins again after this",
                holder(lease)
            );
            return Ok(true);
        }
        let renewed = &lease.spec.renew_time;
        match &self.last_look {
            Some(before) if before.renewed == *renewed => {
                return Ok(before.at.elapsed() > DURATION + NOTICE);
            }
            Some(_) => ensure!(
                !self.patience.left().is_zero(),
                "{} is at work on it\nhint: try again when that has ended",
                holder(lease)
            ),
            None => say!(
                "{release}: {} is at work on it, or was cut off: waiting to see",
                holder(lease)
            ),
        }
        self.last_look = Some(Look {
            renewed: renewed.clone(),
            at: Instant::now(),
        });
        Ok(false)
    }
}

impl Shared {
    /// Our Lease, in place of the one that was found.
    fn lease(&self, release: &str, found: Option<&objects::Lease>, work: Work) -> Value {
        let now = now();
        let mut annotations = self.annotations.clone();
        if work == Work::Check {
            annotations[IS_CHECK] = "true".into();
        }
        let actor = annotations["xtask/actor"].as_str().unwrap_or_default();
        let holder = format!("{actor}-{}", self.lock_file.name);
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": lease_name(release),
                "annotations": annotations,
                "resourceVersion": found.map(|it| &it.metadata.resource_version),
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": DURATION.as_secs(),
                "acquireTime": now,
                "renewTime": now,
            },
        })
    }

    /// Writes our Lease, in place of one that is there. A conflict (409) if that has changed since.
    fn put(&self, release: &str, lease: &Value, is_there: bool) -> Result<Value> {
        let leases = leases_path(release);
        let (method, path) = if is_there {
            ("PUT", format!("{leases}/{}", lease_name(release)))
        } else {
            ("POST", leases)
        };
        self.api.send_once(method, &path, Some(lease), DURATION)
    }
}

impl Lease {
    /// Starts a thread that renews the Lease, which a request took that was sent at this time since the machine's start.
    fn start(shared: Arc<Shared>, path: String, lease: Value, sent: Duration) -> Lease {
        let state = LeaseState {
            lease,
            renewed: sent,
            tried: sent,
            failure: String::new(),
            lost: None,
            is_taken: false,
            has_ended: false,
        };
        let held = Arc::new(HeldLease {
            shared,
            path,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let renewer = thread::spawn({
            let held = held.clone();
            move || held.keep()
        });
        Lease {
            held,
            renewer: Some(renewer),
        }
    }

    /// An error once the Lease is lost: whoever works on the release stops at once, and leaves it as it is.
    pub(crate) fn check(&self) -> Result<()> {
        match self.held.state().lost() {
            None => Ok(()),
            Some(how) => bail!("{}", loss(how)),
        }
    }

    /// Whether it is lost because somebody else has it, or had it meanwhile.
    pub(crate) fn is_taken(&self) -> bool {
        self.held.state().is_taken
    }

    /// What was done to the release. If that failed and the Lease is lost, the error is that, and who has it now.
    pub(crate) fn unless_lost<T>(&self, result: Result<T>) -> Result<T> {
        result.or_else(|err| {
            let how = self.held.state().lost().map(str::to_owned);
            let how = how.ok_or(err)?;
            bail!("{}", loss(&format!("{how}; {}", self.held.holder_now())))
        })
    }
}

fn loss(how: &str) -> String {
    format!(
        "the Lease was lost: {how}\n\
         nothing is rolled back, and what was applied until now may be in the cluster\n\
         hint: {} shows what is deployed; try again when nobody is at work on it",
        workflow::action("cargo xtask status")
    )
}

impl HeldLease {
    fn state(&self) -> MutexGuard<'_, LeaseState> {
        self.state.lock().expect("nobody panics with it")
    }

    /// Renews the Lease until it ends or is lost.
    fn keep(&self) {
        loop {
            let state = self.state();
            let pause = state.pause();
            let mut state = self
                .changed
                .wait_timeout_while(state, pause, |it| !it.has_ended)
                .expect("nobody panics with it")
                .0;
            if state.has_ended || state.lost().is_some() {
                return;
            }
            let sent = clock::since_boot();
            state.tried = sent;
            let mut lease = state.lease.clone();
            drop(state);
            lease["spec"]["renewTime"] = now().into();
            let renewed = self.send("PUT", Some(&lease));
            self.take_over(renewed, sent);
        }
    }

    fn send(&self, method: &str, body: Option<&Value>) -> Result<Value> {
        let api = &self.shared.api;
        api.send_once(method, &self.path, body, ANSWER)
    }

    /// Takes over what came of a renewal.
    fn take_over(&self, renewed: Result<Value>, sent: Duration) {
        match renewed {
            Ok(lease) => {
                let mut state = self.state();
                state.lease = lease;
                state.renewed = sent;
                state.failure.clear();
            }
            Err(err) if has_status(&err, 409) || has_status(&err, 404) => self.look(),
            Err(err) => self.state().failure = format!("{err:#}"),
        }
    }

    /// Looks who has changed the Lease. It may have been ourselves, when an answer didn't reach us.
    fn look(&self) {
        let found = self.send("GET", None);
        let mut state = self.state();
        match found {
            Ok(found) if is_same(&found, &state.lease) => state.lease = found,
            Ok(_) => state.lose_to("somebody else has taken it"),
            Err(err) if has_status(&err, 404) => state.lose_to("somebody has deleted it"),
            Err(err) => state.failure = format!("{err:#}"),
        }
    }

    /// Who has a Lease that we have lost, as far as that can be told.
    fn holder_now(&self) -> String {
        let until = Until::after(INQUIRY);
        loop {
            match self.send("GET", None) {
                Ok(found) if is_same(&found, &self.state().lease) => {
                    return "nobody else is at work on it yet".to_owned();
                }
                Ok(found) => {
                    let lease = objects::from_value(found).unwrap_or_default();
                    return format!("{} is at work on it now", holder(&lease));
                }
                Err(err) if has_status(&err, 404) => {
                    return "nobody is at work on it now".to_owned();
                }
                Err(_) if until.check("it").is_err() => {
                    return "who is at work on it now can't be told".to_owned();
                }
                Err(_) => thread::sleep(TRIED_EVERY),
            }
        }
    }

    fn give_back(&self) {
        let mut state = self.state();
        let metadata = &state.lease["metadata"];
        // Who has taken it has changed its version.
        let (uid, version) = (&metadata["uid"], &metadata["resourceVersion"]);
        let options = json!({"preconditions": {"uid": uid, "resourceVersion": version}});
        let is_lost = state.lost().is_some();
        drop(state);
        let _ = if is_lost {
            self.send("DELETE", Some(&options))
        } else {
            self.shared.api.send("DELETE", &self.path, &options)
        };
    }
}

impl LeaseState {
    /// How the Lease was lost, if it was. Told from the clock: after a sleep, whoever works may be awake before the thread
    /// that renews it.
    fn lost(&mut self) -> Option<&str> {
        let now = clock::since_boot();
        let age = now.saturating_sub(self.renewed);
        if self.lost.is_none() && age >= DURATION {
            let has_slept = now.saturating_sub(self.tried) >= DURATION || self.failure.is_empty();
            let why = if has_slept {
                "this process was stopped, or its machine was asleep"
            } else {
                &self.failure
            };
            let seconds = age.as_secs();
            self.lose(format!("it was not renewed for {seconds} s: {why}"));
        }
        self.lost.as_deref()
    }

    fn lose_to(&mut self, how: &str) {
        self.is_taken = true;
        self.lose(how.to_owned());
    }

    fn lose(&mut self, how: String) {
        self.lost.get_or_insert(how);
    }

    /// How long to wait before the next renewal.
    fn pause(&self) -> Duration {
        if self.tried > self.renewed {
            return TRIED_EVERY;
        }
        let age = clock::since_boot().saturating_sub(self.renewed);
        RENEWED_EVERY.saturating_sub(age)
    }
}

/// Whether a Lease that was found is one that we have taken, and nobody since.
fn is_same(found: &Value, ours: &Value) -> bool {
    found["metadata"]["uid"] == ours["metadata"]["uid"] && holds_as(found, ours)
}

/// Whether a Lease that was found says that we hold it, and since when, as ours does.
fn holds_as(found: &Value, ours: &Value) -> bool {
    found["spec"]["holderIdentity"] == ours["spec"]["holderIdentity"]
        && found["spec"]["acquireTime"] == ours["spec"]["acquireTime"]
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.state().has_ended = true;
        self.held.changed.notify_all();
        if let Some(renewer) = self.renewer.take() {
            let _ = renewer.join();
        }
        self.held.give_back();
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
