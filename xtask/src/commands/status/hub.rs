//! All about one release: everything is asked side by side.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::{
    commands::status::{address::Address, kubernetes, releases, repository},
    kubernetes::{
        api::Api,
        by_hand::{self, ByHand},
        credentials::{self, login::Login},
        history::{self, Revision},
        lease,
        objects::{Event, Pod},
        resources::Resources,
        rollout,
        servers::{self, Servers},
    },
    machine::{programs::Tools, terminal::Pods, tree::Tree, workflow},
    repository::{
        cluster::{Cluster, SHARED},
        fleet::Fleet,
        hub_traits,
    },
    secrets::Mask,
};

/// How long the hub's log may take.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// How many warnings and revisions are shown.
const LAST: usize = 5;

/// One release of a cluster that we are logged in to.
pub(super) struct OneRelease<'a> {
    tools: &'a Tools,
    tree: &'a Tree,
    cluster: &'a Cluster,
    name: &'a str,
    login: Login,
    api: Api,
}

/// What is known of a release.
#[derive(Default, Serialize)]
pub(super) struct State {
    pub(super) cluster: String,
    pub(super) release: String,
    /// When all this was found, as `2026-11-26T05:28:21Z`.
    pub(super) time: String,
    pub(super) is_ready: bool,
    pub(super) pods_ready: u64,
    pub(super) pods_wanted: u64,
    pub(super) chart: Option<String>,
    /// What keeps it from being ready, or people from finding it.
    pub(super) problems: Vec<String>,
    /// All but those of users.
    pub(super) pods: Vec<PodState>,
    /// The last ones that are not about users' pods, the newest first.
    pub(super) warnings: Vec<Warning>,
    /// The last ones, the newest first.
    pub(super) revisions: Vec<RevisionState>,
    /// What in the repository has changed since the commit that is deployed.
    pub(super) repository: Differences,
    /// What in the cluster is not as the newest revision made it.
    pub(super) by_hand: Differences,
    /// The command that deploys it.
    #[serde(skip)]
    command: String,
    /// The command that shows both.
    pub(super) diff: String,
    /// How the cluster's Kubernetes differs from the one that manifests are rendered for.
    pub(super) other_kubernetes: Option<String>,
    /// Who is deploying it now, and whether that was cut off.
    pub(super) at_work: Option<String>,
    pub(super) is_cut_off: bool,
    pub(super) address: Address,
    pub(super) servers: Servers,
    /// What could not be read, and why.
    pub(super) unread: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct PodState {
    pub(super) name: String,
    /// `ready`, or why it is not: `CrashLoopBackOff`, `no node`.
    pub(super) reason: String,
    pub(super) restarts: u64,
    pub(super) created: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Warning {
    pub(super) time: String,
    pub(super) reason: String,
    /// `pod/hub-0`
    pub(super) object: String,
    pub(super) message: String,
}

#[derive(Serialize)]
pub(super) struct RevisionState {
    pub(super) revision: u32,
    pub(super) created: Option<String>,
    pub(super) actor: Option<String>,
    pub(super) commit: Option<String>,
    pub(super) has_changes: bool,
    /// helm's status.
    pub(super) status: String,
    pub(super) outcome: Option<&'static str>,
    #[serde(skip)]
    pub(super) shown: [String; 3],
}

/// Whether something differs; none if that cannot be told.
#[derive(Default, Serialize)]
pub(super) struct Differences {
    pub(super) differs: Option<bool>,
    /// What differs, or why that cannot be told.
    pub(super) what: Vec<String>,
}

impl<'a> OneRelease<'a> {
    /// Logs in to the cluster.
    pub(super) fn open(
        tools: &'a Tools,
        tree: &'a Tree,
        cluster: &'a Cluster,
        name: &'a str,
    ) -> Result<OneRelease<'a>> {
        credentials::refuse_down(tree, cluster)?;
        let login = credentials::open_by(tools, tree, cluster)?;
        Ok(OneRelease {
            tools,
            tree,
            cluster,
            name,
            api: Api::start(&login.sh)?,
            login,
        })
    }

    /// What is known of the release now.
    pub(super) fn state(&self) -> Result<State> {
        let (api, name) = (&self.api, self.name);
        let hubs = &self.cluster.hubs;
        let hub = hubs.iter().find(|it| it.name == name);
        let cluster = self.cluster;
        thread::scope(|scope| {
            let pods = scope.spawn(|| in_namespace::<Pod>(api, name, "pods"));
            let events = scope.spawn(|| in_namespace::<Event>(api, name, "events"));
            let at_work = scope.spawn(|| lease::at_work(api, name));
            let kubernetes = scope.spawn(|| kubernetes::difference(api, cluster));
            let address = hub.map(|hub| scope.spawn(|| Address::find(api, cluster, hub)));
            let revisions = history::revisions(api, name)?;
            let mut state = self.begin();
            let fleet = self.fleet();
            let content = self.read_release(&mut state, &fleet, &revisions)?;
            state.address = address.map(joined).unwrap_or_default();
            state.unread.extend(state.address.unread.take());
            state.problems.append(&mut state.address.problems.clone());
            let pods = state.read("its pods", joined(pods));
            let mut events = state.read("its events", joined(events));
            events.sort_by(|a, b| a.time().cmp(b.time()));
            let log = hub_log(api, name, &pods);
            state.servers = Servers::find(&pods, &events, &log);
            state.add_pods(&pods);
            state.add_warnings(&events);
            if let Some(found) = state.read("who is deploying it", joined(at_work)) {
                state.is_cut_off = found.is_cut_off;
                state.at_work = Some(found.who);
            }
            state.other_kubernetes = state.read("its Kubernetes version", joined(kubernetes));
            state.hide(&self.mask(&fleet, &content));
            Ok(state)
        })
    }

    fn begin(&self) -> State {
        let (cluster, release) = (&self.cluster.name, self.name);
        let command = if SHARED.contains(&release) {
            format!("cargo xtask deploy-support {cluster}")
        } else {
            format!("cargo xtask deploy {cluster} {release}")
        };
        State {
            cluster: cluster.clone(),
            release: release.to_owned(),
            time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            diff: format!("{command} --dry-run --diff"),
            command,
            ..State::default()
        }
    }

    /// Reads how far the newest revision is, and what has become of it since. Returns what helm keeps of it.
    fn read_release(
        &self,
        state: &mut State,
        fleet: &Result<Fleet>,
        revisions: &[Revision],
    ) -> Result<Value> {
        let (api, name) = (&self.api, self.name);
        let cluster = &self.cluster.name;
        let (sh, tree) = (self.tools.sh(), self.tree);
        for revision in revisions.iter().rev().take(LAST) {
            let behind = revision.own_commit();
            let behind = behind.and_then(|it| repository::behind(sh, tree, it));
            state.revisions.push(RevisionState::of(revision, behind));
        }
        let Some(newest) = revisions.last() else {
            let deploy = workflow::action(&state.command);
            let problem = format!("it is not deployed\nhint: {deploy}");
            state.problems.push(problem);
            return Ok(Value::Null);
        };
        let content = newest.content(api, name)?;
        state.chart = Some(releases::chart(&content));
        let resources = Resources::new(api);
        thread::scope(|scope| {
            let manifest = history::manifest(&content);
            let inspected = scope.spawn(|| rollout::inspect(api, cluster, name, manifest));
            let by_hand = scope.spawn(|| by_hand::changed_by_hand(&resources, name, &content));
            state.repository = self.differences(fleet, newest);
            state.add_rollout(joined(inspected));
            let by_hand = joined(by_hand);
            if newest.was_not_applied() || newest.is_pending() {
                let why = format!("revision {} was not applied", newest.number);
                state.by_hand = Differences::unknown(&why);
            } else {
                state.add_by_hand(by_hand);
            }
        });
        Ok(content)
    }

    /// How the release's files differ from those that it was deployed from.
    fn differences(&self, fleet: &Result<Fleet>, newest: &Revision) -> Differences {
        let Some(commit) = newest.own_commit() else {
            return Differences::unknown("nobody knows which commit it was deployed from");
        };
        let fleet = match fleet {
            Ok(fleet) => fleet,
            Err(err) => return Differences::unknown(&format!("{err:#}")),
        };
        let Some(config) = fleet.releases().into_iter().next() else {
            return Differences::unknown("no files of the repository belong to it");
        };
        let changed = repository::changed_files(self.tools.sh(), fleet, &config, commit);
        match changed {
            Err(err) => Differences::unknown(&format!("{err:#}")),
            Ok(files) if files.is_empty() && newest.has_changes => {
                Differences::unknown("it was deployed with changes that are in no commit")
            }
            Ok(files) => Differences::of(files.into_iter().collect()),
        }
    }

    /// What the repository says of the release. cert-manager has nothing there.
    fn fleet(&self) -> Result<Fleet> {
        let cluster = &self.cluster.name;
        Fleet::of_release(self.tools.sh(), self.tree, cluster, self.name)
    }

    /// Hides what the login holds, and the values of the newest revision that are in no plain file.
    fn mask(&self, fleet: &Result<Fleet>, content: &Value) -> Mask {
        let releases = fleet.iter().flat_map(Fleet::releases);
        let config = releases.into_iter().next();
        let plain = fleet.as_ref().ok().zip(config);
        let plain = plain.map(|(fleet, config)| hub_traits::plain_values(fleet, &config));
        let plain = plain.unwrap_or_default();
        let secrets = history::secret_texts(content, |path, value| plain.has_at(path, value));
        self.login.mask().and(secrets)
    }
}

impl State {
    /// What was read; what it is by default, if that failed.
    fn read<T: Default>(&mut self, what: &str, found: Result<T>) -> T {
        found.unwrap_or_else(|err| {
            self.unread.push(format!("{what}: {err:#}"));
            T::default()
        })
    }

    fn add_rollout(&mut self, inspected: Result<(rollout::ReleaseStatus, Vec<String>)>) {
        match inspected {
            Ok((status, problems)) => {
                let Pods { ready, wanted } = status.pods;
                self.is_ready = status.is_ready;
                self.pods_ready = ready;
                self.pods_wanted = wanted;
                self.problems.extend(problems);
            }
            Err(err) => self.unread.push(format!("its workloads: {err:#}")),
        }
    }

    /// An object that is gone keeps pods from starting, also those that run now.
    fn add_by_hand(&mut self, changed: Result<Vec<ByHand>>) {
        match changed {
            Ok(changed) => {
                for it in changed.iter().filter(|it| it.is_gone) {
                    let deploy = workflow::action(&self.command);
                    let hint = format!("hint: {deploy} makes it again");
                    let problem = format!("{it}: somebody has deleted it\n{hint}");
                    self.problems.push(problem);
                }
                self.by_hand = Differences::of(changed.iter().map(ByHand::to_string).collect());
            }
            Err(err) => self.by_hand = Differences::unknown(&format!("{err:#}")),
        }
    }

    fn add_pods(&mut self, pods: &[Pod]) {
        let own = pods.iter().filter(|it| {
            let component = it.metadata.labels.get("component");
            servers::user(it).is_none() && component.is_none_or(|it| it != "user-placeholder")
        });
        self.pods = own.map(PodState::of).collect();
        self.pods.sort_by_key(|it| it.reason == "ready");
    }

    fn add_warnings(&mut self, events: &[Event]) {
        let warnings = events.iter().rev().filter(|it| it.kind == "Warning");
        for event in warnings {
            let object = &event.involved_object;
            let warning = Warning {
                time: event.time().to_owned(),
                reason: event.reason.clone(),
                object: format!("{}/{}", object.kind.to_lowercase(), object.name),
                message: event.message.trim().to_owned(),
            };
            let is_said =
                |it: &Warning| it.reason == warning.reason && it.message == warning.message;
            if !object.name.starts_with(servers::PREFIX) && !self.warnings.iter().any(is_said) {
                self.warnings.push(warning);
            }
        }
        self.warnings.truncate(LAST);
    }

    /// Hides secrets in all that others wrote.
    fn hide(&mut self, mask: &Mask) {
        let certificates = self.address.certificates.iter_mut();
        let servers = &mut self.servers;
        let servers = servers.starting.iter_mut().chain(&mut servers.failed);
        let texts = self
            .problems
            .iter_mut()
            .chain(&mut self.address.problems)
            .chain(&mut self.unread)
            .chain(&mut self.by_hand.what)
            .chain(self.warnings.iter_mut().map(|it| &mut it.message))
            .chain(certificates.filter_map(|it| it.why.as_mut()))
            .chain(servers.map(|it| &mut it.why));
        for text in texts {
            *text = mask.hide(text);
        }
    }
}

impl PodState {
    fn of(pod: &Pod) -> PodState {
        let containers = pod.status.container_statuses.iter();
        PodState {
            name: pod.metadata.name.clone(),
            reason: rollout::reason(pod),
            restarts: containers.map(|it| it.restart_count).sum(),
            created: pod.metadata.creation_timestamp.clone(),
        }
    }
}

impl RevisionState {
    fn of(revision: &Revision, behind: Option<u64>) -> RevisionState {
        RevisionState {
            revision: revision.number,
            created: revision.created.clone(),
            actor: revision.actor.clone(),
            commit: revision.own_commit().map(str::to_owned),
            has_changes: revision.own_commit().is_some() && revision.has_changes,
            status: revision.status.clone(),
            outcome: revision.outcome.word(),
            shown: repository::shown(revision.verdict(), revision, behind),
        }
    }
}

impl Differences {
    fn of(what: Vec<String>) -> Differences {
        Differences {
            differs: Some(!what.is_empty()),
            what,
        }
    }

    fn unknown(why: &str) -> Differences {
        Differences {
            differs: None,
            what: vec![why.to_owned()],
        }
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().expect("it does not panic")
}

/// All objects of a kind in a namespace.
fn in_namespace<T: serde::de::DeserializeOwned>(
    api: &Api,
    namespace: &str,
    plural: &str,
) -> Result<Vec<T>> {
    let path = format!("/api/v1/namespaces/{namespace}/{plural}");
    Ok(api.list(&path)?.items)
}

/// What the hub itself has logged lately; nothing if it does not run.
fn hub_log(api: &Api, namespace: &str, pods: &[Pod]) -> String {
    let is_hub = |pod: &&Pod| {
        let component = pod.metadata.labels.get("component");
        component.is_some_and(|it| it == "hub") && pod.is_ready()
    };
    let Some(hub) = pods.iter().find(is_hub) else {
        return String::new();
    };
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods/{}/log?container=hub&tailLines=5000&sinceSeconds={}",
        hub.metadata.name,
        servers::RECENT.as_secs()
    );
    api.text(&path, LOG_PATIENCE).unwrap_or_default()
}
