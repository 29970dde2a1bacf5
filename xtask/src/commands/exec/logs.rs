//! Logs of a hub's components and of users' servers.

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    commands::exec::{
        docker_proxy::{self, StartDockerProxy},
        pods,
        target::open,
    },
    kubernetes::api::Api,
    machine::{
        process,
        terminal::{hint_of_name, list, nearest},
        tree::Tree,
    },
};

/// Show logs, or connect to the Docker that runs in a cluster
#[derive(clap::Subcommand)]
pub enum Debug {
    ComponentLogs(ComponentLogs),
    UserLogs(UserLogs),
    StartDockerProxy(StartDockerProxy),
}

/// Show the logs of a component of a hub
///
/// Shows the logs of all its pods. If these have more than one container, each line begins with its pod and container.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask exec debug component-logs lake prod hub             the hub's log, and what is added to it\n\
\x20 cargo xtask exec debug component-logs lake prod hub --previous  why it was restarted")]
pub struct ComponentLogs {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// Hub of the cluster
    hub: String,
    /// hub, proxy, autohttps, traefik (of autohttps), user-scheduler, dask-gateway-api, dask-gateway-controller or
    /// dask-gateway-traefik
    #[arg(add = ArgValueCandidates::new(components))]
    component: String,
    #[command(flatten)]
    which: Which,
}

/// Show the logs of a user's server
#[derive(clap::Args)]
pub struct UserLogs {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// Hub of the cluster
    hub: String,
    /// The user's name, also in its escaped form (`user-402i2c-2eorg`); followed by `/NAME` for a named server
    username: String,
    #[command(flatten)]
    which: Which,
}

/// Which lines to show.
#[derive(clap::Args)]
struct Which {
    /// Continue with new lines until Ctrl-C, which is the default
    #[arg(long, overrides_with = "no_follow")]
    follow: bool,
    /// Stop after the newest line that there is now
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,
    /// Show the logs of the container that ran before the last restart
    #[arg(long, overrides_with = "no_previous")]
    previous: bool,
    /// Show the logs of the container that runs now, which is the default
    #[arg(long, overrides_with = "previous")]
    no_previous: bool,
    /// Begin with the last lines of each container [default: with the first line]
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
    /// Begin with lines that are not older than this, as in 1h or 10m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
}

impl Which {
    fn flags(&self) -> Vec<String> {
        // kubectl shows ten lines of each container that a selector finds, unless told otherwise.
        let tail = self.tail.map_or(-1, i64::from);
        let mut flags = vec![format!("--tail={tail}")];
        flags.extend(self.since.map(|it| format!("--since={}s", it.as_secs())));
        if self.previous {
            flags.push("--previous".to_owned());
        } else if !self.no_follow {
            flags.push("--follow".to_owned());
        }
        flags
    }
}

/// A component of a hub, by the labels that the charts jupyterhub and dask-gateway give its pods.
struct Component {
    name: &'static str,
    labels: &'static str,
    /// The container, if it is not all of them.
    container: Option<&'static str>,
}

impl Component {
    /// The flags with which kubectl shows its containers.
    fn flags(&self) -> Vec<String> {
        match self.container {
            Some(container) => vec![format!("--container={container}")],
            None => vec!["--all-containers".to_owned()],
        }
    }

    /// How many containers of these pods belong to it.
    fn count_containers(&self, pods: &[Value]) -> usize {
        match self.container {
            Some(_) => pods.len(),
            None => pods.iter().map(|pod| pods::containers(pod).len()).sum(),
        }
    }
}

const COMPONENTS: &[Component] = &[
    whole_pod("autohttps", "component=autohttps"),
    whole_pod("dask-gateway-api", "app.kubernetes.io/component=gateway"),
    whole_pod(
        "dask-gateway-controller",
        "app.kubernetes.io/component=controller",
    ),
    whole_pod(
        "dask-gateway-traefik",
        "app.kubernetes.io/component=traefik",
    ),
    Component {
        container: Some("hub"),
        ..whole_pod("hub", "component=hub")
    },
    whole_pod("proxy", "component=proxy"),
    Component {
        container: Some("traefik"),
        ..whole_pod("traefik", "component=autohttps")
    },
    whole_pod("user-scheduler", "component=user-scheduler"),
];

const fn whole_pod(name: &'static str, labels: &'static str) -> Component {
    Component {
        name,
        labels,
        container: None,
    }
}

/// For completion.
fn components() -> Vec<CompletionCandidate> {
    let names = COMPONENTS.iter().map(|it| it.name);
    names.map(CompletionCandidate::new).collect()
}

pub(crate) fn debug(sh: &Shell, tree: &Tree, command: &Debug) -> Result<ExitCode> {
    match command {
        Debug::ComponentLogs(args) => component_logs(sh, tree, args),
        Debug::UserLogs(args) => user_logs(sh, tree, args),
        Debug::StartDockerProxy(args) => docker_proxy::start_docker_proxy(sh, tree, args),
    }
}

fn component_logs(sh: &Shell, tree: &Tree, args: &ComponentLogs) -> Result<ExitCode> {
    let component = COMPONENTS.iter().find(|it| it.name == args.component);
    let component = component.with_context(|| {
        let known = COMPONENTS.iter().map(|it| it.name);
        format!(
            "there is no component `{}`; there are: {}{}",
            args.component,
            list(known.clone()),
            hint_of_name(nearest(&args.component, known))
        )
    })?;
    show_component_logs(sh, tree, args, component)
        .with_context(|| format!("the logs of {}", component.name))
}

fn show_component_logs(
    sh: &Shell,
    tree: &Tree,
    args: &ComponentLogs,
    component: &Component,
) -> Result<ExitCode> {
    let hub = &args.hub;
    let labels = component.labels;
    let (_, login) = open(sh, tree, &args.cluster, hub)?;
    let sh = &login.sh;
    let pods = pods::find(&Api::start(sh)?, hub, labels)?;
    ensure!(
        !pods.is_empty(),
        "`{hub}` of `{}` has no pod with {labels}",
        args.cluster
    );
    let count = component.count_containers(&pods);
    let mut flags = args.which.flags();
    flags.extend(component.flags());
    if count > 1 {
        flags.push("--prefix".to_owned());
    }
    // By default kubectl refuses to follow more than five.
    let most = count.to_string();
    let logs = cmd!(
        sh,
        "kubectl logs --namespace {hub} --selector {labels} --max-log-requests {most} {flags...}"
    );
    process::show_text(sh, logs)
}

fn user_logs(sh: &Shell, tree: &Tree, args: &UserLogs) -> Result<ExitCode> {
    const CONTAINER: &str = "notebook";
    let hub = &args.hub;
    let (_, login) = open(sh, tree, &args.cluster, hub)?;
    let sh = &login.sh;
    // Every KubeSpawner has the name as it is in an annotation; labels differ.
    let pods = pods::find(&Api::start(sh)?, hub, "")?;
    let pod = find_server(&pods, args)?;
    let name = pods::name(pod);
    let containers = pods::containers(pod);
    ensure!(
        containers.contains(&CONTAINER),
        "the pod `{name}` has no container `{CONTAINER}`; it has: {}",
        list(containers)
    );
    let flags = args.which.flags();
    let logs = cmd!(
        sh,
        "kubectl logs --namespace {hub} {name} --container {CONTAINER} {flags...}"
    );
    process::show_text(sh, logs)
}

/// The pod of the server that is meant.
fn find_server<'a>(pods: &'a [Value], args: &UserLogs) -> Result<&'a Value> {
    let mut there = BTreeSet::new();
    for pod in pods {
        let Some(server) = Server::of(pod) else {
            continue;
        };
        if server.is_called(&args.username) {
            return Ok(pod);
        }
        there.insert(server.full_name(server.user));
    }
    if there.is_empty() {
        bail!("no user of `{}` has a server now", args.hub);
    }
    bail!(
        "`{}` has no server on `{}` now; there are servers of: {}",
        args.username,
        args.hub,
        list(there)
    )
}

/// A user's server.
struct Server<'a> {
    user: &'a str,
    /// Empty for the one that every user has.
    name: &'a str,
}

impl Server<'_> {
    fn of(pod: &Value) -> Option<Server<'_>> {
        let annotations = &pod["metadata"]["annotations"];
        let name = annotations["hub.jupyter.org/servername"].as_str();
        Some(Server {
            user: annotations["hub.jupyter.org/username"].as_str()?,
            name: name.unwrap_or_default(),
        })
    }

    fn is_called(&self, name: &str) -> bool {
        self.full_name(self.user) == name || self.full_name(&escaped(self.user)) == name
    }

    fn full_name(&self, user: &str) -> String {
        match self.name {
            "" => user.to_owned(),
            name => format!("{user}/{name}"),
        }
    }
}

/// A user's name as older KubeSpawners have it in names of pods and folders: all but small letters and digits as `-xx`
/// (<https://github.com/minrk/escapism>).
pub(crate) fn escaped(user: &str) -> String {
    let mut escaped = String::new();
    for byte in user.bytes() {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("-{byte:02x}");
        }
    }
    escaped
}
