//! Watches of lists, which are kept up whatever happens to their connections.

use std::{
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Condvar, Mutex, MutexGuard, mpsc::Sender},
    thread::Scope,
    time::Duration,
};

use anyhow::{Result, bail};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::kubernetes::{
    api::Api,
    objects::{self, Event, List, PartialObject, Pod, WorkloadObject},
};

/// How long to wait before a watch that has ended is started again.
const PAUSE: Duration = Duration::from_millis(200);

/// A list of the API server, by its path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Workloads(String),
    ReplicaSets(String),
    Pods(String),
    Events(String),
}

/// What has changed in such a list.
pub(crate) enum Change {
    Workloads(ListChange<WorkloadObject>),
    ReplicaSets(ListChange<PartialObject>),
    Pods(ListChange<Pod>),
    Events(ListChange<Event>),
}

/// A change of the list at a path.
pub(crate) struct ListChange<T> {
    pub(crate) path: String,
    pub(crate) update: Update<T>,
}

pub(crate) enum Update<T> {
    /// All that is listed now.
    All(Vec<T>),
    /// An object that is new or has changed.
    Set(T),
    Removed(T),
}

/// An event of a watch: <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>
#[derive(Deserialize)]
struct WatchEvent {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    object: Value,
}

/// All that is in a list now.
pub(crate) fn list(api: &Api, source: &Source) -> Result<Change> {
    Ok(match source {
        Source::Workloads(path) => Change::Workloads(all(api, path)?),
        Source::ReplicaSets(path) => Change::ReplicaSets(all(api, path)?),
        Source::Pods(path) => Change::Pods(all(api, path)?),
        Source::Events(path) => Change::Events(all(api, path)?),
    })
}

fn all<T: DeserializeOwned>(api: &Api, path: &str) -> Result<ListChange<T>> {
    Ok(ListChange {
        path: path.to_owned(),
        update: Update::All(api.list(path)?.items),
    })
}

#[derive(Default)]
pub(crate) struct Watches {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    has_ended: bool,
    sources: Vec<Source>,
    connections: Vec<UnixStream>,
}

impl Watches {
    /// Watches a list until the end, unless it's watched already. The first change is all that is listed.
    pub(crate) fn start<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        api: &'env Api,
        source: Source,
        changes: &Sender<Change>,
    ) {
        let mut state = self.state();
        if state.sources.contains(&source) {
            return;
        }
        state.sources.push(source.clone());
        drop(state);
        let changes = changes.clone();
        scope.spawn(move || self.keep_up(api, &source, &changes));
    }

    /// Ends all watches, and with them their threads.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.has_ended = true;
        for connection in &state.connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    fn keep_up(&self, api: &Api, source: &Source, changes: &Sender<Change>) {
        loop {
            // An API server that is away comes back, or the release's time is over.
            let _ = match source {
                Source::Workloads(path) => self.watch(api, path, changes, Change::Workloads),
                Source::ReplicaSets(path) => self.watch(api, path, changes, Change::ReplicaSets),
                Source::Pods(path) => self.watch(api, path, changes, Change::Pods),
                Source::Events(path) => self.watch(api, path, changes, Change::Events),
            };
            let state = self
                .changed
                .wait_timeout_while(self.state(), PAUSE, |it| !it.has_ended)
                .expect("nobody panics with it")
                .0;
            if state.has_ended {
                return;
            }
        }
    }

    /// Tells of all that is listed at a path, and of each change, until the connection ends.
    fn watch<T: DeserializeOwned>(
        &self,
        api: &Api,
        path: &str,
        changes: &Sender<Change>,
        change: fn(ListChange<T>) -> Change,
    ) -> Result<()> {
        let send = |update| -> Result<()> {
            let path = path.to_owned();
            Ok(changes.send(change(ListChange { path, update }))?)
        };
        let List { metadata, items } = api.list(path)?;
        send(Update::All(items))?;
        let separator = if path.contains('?') { '&' } else { '?' };
        let version = metadata.resource_version;
        let watch = api.watch(&format!(
            "{path}{separator}watch=1&resourceVersion={version}"
        ))?;
        if !self.add_connection(watch.connection) {
            return Ok(());
        }
        for line in watch.lines {
            send(update(serde_json::from_str(&line?)?)?)?;
        }
        Ok(())
    }

    /// Whether the connection will be shut down in the end; if not, this is the end.
    fn add_connection(&self, connection: UnixStream) -> bool {
        let mut state = self.state();
        if state.has_ended {
            return false;
        }
        state.connections.push(connection);
        true
    }
}

fn update<T: DeserializeOwned>(event: WatchEvent) -> Result<Update<T>> {
    let WatchEvent { kind, object } = event;
    match kind.as_str() {
        "ADDED" | "MODIFIED" => Ok(Update::Set(objects::from_value(object)?)),
        "DELETED" => Ok(Update::Removed(objects::from_value(object)?)),
        // Usually that the API server no longer knows the version with which the watch began.
        _ => bail!("the watch has ended: {object}"),
    }
}
