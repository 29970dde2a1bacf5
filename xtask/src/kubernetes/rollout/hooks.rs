//! Follows the hooks of a release while helm waits for them: helm itself sees only whether a job or a pod has ended, and
//! waits for one that never will until its time is over.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::kubernetes::{
    api::Api,
    history::{self, Revision},
    rollout::{
        observed::{Observed, hint},
        watch::Watches,
        workloads::{self, Workload, WorkloadState},
    },
};

/// How often to ask helm's record which hooks are at work.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often to look at what has changed.
const TICK: Duration = Duration::from_millis(200);

/// How long a hook takes before it is said that helm waits for it.
const SILENCE: Duration = Duration::from_secs(10);

/// What helm had recorded of a release before it began.
pub(crate) struct Before {
    /// The newest revision that helm does not work on.
    pub(crate) revision: u32,
    /// When hooks were run that the next revision has, too.
    runs: BTreeSet<String>,
}

impl Before {
    /// `contents` are what helm keeps of the revisions that the next one may be a copy of.
    pub(crate) fn new(revision: u32, contents: &[&Value]) -> Before {
        let hooks = contents.iter().flat_map(|it| history::hooks(it));
        Before {
            revision,
            runs: hooks.filter_map(started_at).map(str::to_owned).collect(),
        }
    }

    /// Whether helm has begun a hook since.
    fn is_begun(&self, hook: &Value) -> bool {
        started_at(hook).is_some_and(|it| !self.runs.contains(it))
    }
}

fn started_at(hook: &Value) -> Option<&str> {
    hook["last_run"]["started_at"].as_str()
}

/// The hooks of a release while helm is at work on it.
pub(crate) struct Hooks<'a> {
    api: &'a Api,
    cluster: &'a str,
    release: &'a str,
    before: Before,
    timeout: Duration,
    has_ended: AtomicBool,
    /// Why one of them can't finish.
    hopeless: Mutex<Option<String>>,
}

/// What helm has recorded of the hooks.
#[derive(Default)]
struct Recorded {
    /// The state of the Secret that this was read from.
    version: Option<String>,
    /// Whether there is anything to follow.
    has_none: bool,
    /// Those that helm has begun.
    begun: Vec<BegunHook>,
}

struct BegunHook {
    workloads: Vec<Workload>,
    /// Whether helm has not seen it succeed.
    is_at_work: bool,
    deletes_failed: bool,
}

impl<'a> Hooks<'a> {
    /// `timeout` is how long the release may take.
    pub(crate) fn new(
        api: &'a Api,
        cluster: &'a str,
        release: &'a str,
        before: Before,
        timeout: Duration,
    ) -> Hooks<'a> {
        Hooks {
            api,
            cluster,
            release,
            before,
            timeout,
            has_ended: AtomicBool::new(false),
            hopeless: Mutex::new(None),
        }
    }

    pub(crate) fn is_hopeless(&self) -> bool {
        self.hopeless().is_some()
    }

    /// Why one of the hooks can't finish, with what is known of the others.
    pub(crate) fn hopeless(&self) -> Option<String> {
        self.hopeless.lock().expect("nobody panics with it").clone()
    }

    /// Ends `follow`, whose thread has to be unparked then.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
    }

    /// Follows the hooks until `end`, or until one of them is hopeless. Returns what has been observed by then.
    pub(crate) fn follow(&self) -> Observed<'a> {
        let mut observed = Observed::new(self.api, self.timeout);
        let watches = Watches::default();
        let (sender, changes) = mpsc::channel();
        let mut recorded = Recorded::default();
        let mut asked: Option<Instant> = None;
        let mut silence = Silence::default();
        thread::scope(|scope| {
            while !self.has_ended.load(Ordering::SeqCst) && !recorded.has_none {
                if asked.is_none_or(|it| it.elapsed() > INTERVAL) {
                    // An API server that is away comes back, or helm's time is over.
                    let _ = self.read(&mut recorded);
                    asked = Some(Instant::now());
                }
                changes.try_iter().for_each(|it| observed.apply(it));
                for workload in recorded.workloads() {
                    for source in observed.sources(workload) {
                        watches.start(scope, self.api, source, &sender);
                    }
                }
                let waits = recorded.begun.iter().any(|it| it.is_at_work);
                let unready = unready(&mut observed, &recorded);
                if waits && unready.iter().any(|(_, state)| state.is_failure()) {
                    let described = self.described(&observed, &unready, false);
                    *self.hopeless.lock().expect("nobody panics with it") = described;
                    break;
                }
                silence.break_for(self.release, &unready);
                thread::park_timeout(TICK);
            }
            watches.end();
        });
        observed
    }

    /// Reads what helm has recorded, if that is new.
    fn read(&self, recorded: &mut Recorded) -> Result<()> {
        let revisions = history::revisions(self.api, self.release)?;
        let newest = revisions
            .last()
            .filter(|it| it.number > self.before.revision);
        let Some(newest) = newest else {
            return Ok(());
        };
        if newest.resource_version.is_none() || newest.resource_version != recorded.version {
            *recorded = self.recorded(newest)?;
        }
        Ok(())
    }

    fn recorded(&self, revision: &Revision) -> Result<Recorded> {
        let content = revision.content(self.api, self.release)?;
        let mut recorded = Recorded {
            version: revision.resource_version.clone(),
            has_none: true,
            begun: Vec::new(),
        };
        for hook in history::hooks(&content) {
            let workloads = workloads::in_hook(history::manifest(hook), self.release)?;
            recorded.has_none &= workloads.is_empty();
            if self.before.is_begun(hook) && !workloads.is_empty() {
                recorded.begun.push(BegunHook {
                    workloads,
                    is_at_work: hook["last_run"]["phase"] != "Succeeded",
                    deletes_failed: has_policy(hook, "hook-failed"),
                });
            }
        }
        Ok(recorded)
    }

    /// Describes the hooks that helm was waiting for when it failed, if there are any. The newest record counts: the one
    /// that `follow` knew may be a second old.
    pub(crate) fn describe_failed(&self, mut observed: Observed) -> Option<String> {
        let mut recorded = Recorded::default();
        self.read(&mut recorded).ok()?;
        recorded.begun.retain(|it| it.is_at_work);
        for hook in &recorded.begun {
            observed.load(&hook.workloads).ok()?;
            for workload in &hook.workloads {
                observed.load_pods(workload).ok()?;
            }
        }
        let unready = unready(&mut observed, &recorded);
        self.described(&observed, &unready, true)
    }

    fn described(
        &self,
        observed: &Observed,
        unready: &[(&Workload, WorkloadState)],
        is_late: bool,
    ) -> Option<String> {
        let described = unready.iter().map(|(workload, state)| {
            let described = observed.describe(workload, state, is_late);
            format!("hook {described}")
        });
        let described: Vec<_> = described.collect();
        let hint = hint(self.cluster, self.release);
        (!described.is_empty()).then(|| described.join("\n") + &hint)
    }

    /// Deletes what helm deletes of a hook that has failed, for a helm that was ended before it saw that.
    pub(crate) fn delete_failed(&self) -> Result<()> {
        let mut recorded = Recorded::default();
        self.read(&mut recorded)?;
        let failed = recorded.begun.iter();
        let failed = failed.filter(|it| it.is_at_work && it.deletes_failed);
        for workload in failed.flat_map(|it| &it.workloads) {
            let how = json!({"propagationPolicy": "Background"});
            self.api.delete(&workload.object_path(), &how)?;
        }
        Ok(())
    }
}

impl Recorded {
    fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.begun.iter().flat_map(|it| &it.workloads)
    }
}

/// Tells once of each hook that takes long.
#[derive(Default)]
struct Silence {
    hook: String,
    /// Since when helm waits for it; none once that is told.
    since: Option<Instant>,
}

impl Silence {
    fn break_for(&mut self, release: &str, unready: &[(&Workload, WorkloadState)]) {
        let job = unready.iter().find(|(it, _)| it.kind.ends());
        let Some((workload, WorkloadState::Waiting(why))) = job else {
            return;
        };
        let name = workload.shown();
        if name != self.hook {
            self.hook = name;
            self.since = Some(Instant::now());
        } else if self.since.is_some_and(|it| it.elapsed() > SILENCE) {
            say!("{release}: helm waits for the hook `{name}`: {why}");
            self.since = None;
        }
    }
}

fn has_policy(hook: &Value, policy: &str) -> bool {
    let mut policies = hook["delete_policies"].as_array().into_iter().flatten();
    policies.any(|it| it == policy)
}

/// The workloads that hooks have made, and that are not done.
fn unready<'r>(
    observed: &mut Observed,
    recorded: &'r Recorded,
) -> Vec<(&'r Workload, WorkloadState)> {
    let mut unready = Vec::new();
    for workload in recorded.workloads() {
        // helm may not have made it yet.
        if observed.exists(workload) {
            let state = observed.status(workload).state;
            if state != WorkloadState::Ready {
                unready.push((workload, state));
            }
        }
    }
    unready
}
