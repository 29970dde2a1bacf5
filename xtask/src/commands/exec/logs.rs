//! Logs of a hub's parts and of users' servers, and a Docker that runs in a cluster.

use std::{collections::BTreeSet, path::Path, process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    commands::exec::target::open,
    kubernetes::{api::Api, credentials},
    machine::{
        process::{self, Whose},
        terminal::{self, list},
    },
    repository::cluster::Cluster,
    services::http::percent_encoded,
    settings::Settings,
};

/// Logs, and a connection to a Docker that runs in a cluster
#[derive(clap::Subcommand)]
pub enum Debug {
    /// Show the logs of a part of a hub
    ///
    /// All lines of all pods of it; with more than one, each line begins with its pod and container.
    ComponentLogs {
        /// A folder in config/clusters/
        cluster: String,
        /// One of its hubs
        hub: String,
        /// hub, proxy, autohttps, traefik (of autohttps), user-scheduler, dask-gateway-api, dask-gateway-controller or
        /// dask-gateway-traefik
        component: String,
        #[command(flatten)]
        which: Which,
    },
    /// Show the logs of a user's server
    UserLogs {
        /// A folder in config/clusters/
        cluster: String,
        /// One of its hubs
        hub: String,
        /// As the hub has it, or escaped (`user-402i2c-2eorg`); with `/NAME` behind it for a named server
        username: String,
        #[command(flatten)]
        which: Which,
    },
    /// Connect port 23760 of this machine to the Docker that runs in a cluster
    ///
    /// It's the deployment `dind` in the namespace `default`. Prints what to set for docker to use it, and stays connected
    /// until Ctrl-C.
    StartDockerProxy {
        /// A folder in config/clusters/; by default `docker_proxy_cluster` of config/xtask.yaml
        cluster: Option<String>,
    },
}

#[derive(clap::Args)]
pub struct Which {
    /// Go on with new lines until Ctrl-C, which is the default
    #[arg(long, overrides_with = "no_follow")]
    follow: bool,
    /// End with the last line that there is now
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,
    /// The container that ran before the last restart
    #[arg(long, overrides_with = "no_previous")]
    previous: bool,
    /// The container that runs, which is the default
    #[arg(long, overrides_with = "previous")]
    no_previous: bool,
}

impl Which {
    fn flags(&self) -> Vec<&'static str> {
        // kubectl shows ten lines of each container that a selector finds, unless told otherwise.
        let mut flags = vec!["--tail=-1"];
        if self.previous {
            flags.push("--previous");
        } else if !self.no_follow {
            flags.push("--follow");
        }
        flags
    }
}

/// The parts of a hub: labels of their pods, and the container if it isn't all of them. The charts jupyterhub and
/// dask-gateway set these labels.
const COMPONENTS: &[(&str, &str, Option<&str>)] = &[
    ("autohttps", "component=autohttps", None),
    (
        "dask-gateway-api",
        "app.kubernetes.io/component=gateway",
        None,
    ),
    (
        "dask-gateway-controller",
        "app.kubernetes.io/component=controller",
        None,
    ),
    (
        "dask-gateway-traefik",
        "app.kubernetes.io/component=traefik",
        None,
    ),
    ("hub", "component=hub", Some("hub")),
    ("proxy", "component=proxy", None),
    ("traefik", "component=autohttps", Some("traefik")),
    ("user-scheduler", "component=user-scheduler", None),
];

pub(crate) fn debug(sh: &Shell, root: &Path, command: &Debug) -> Result<ExitCode> {
    match command {
        Debug::ComponentLogs {
            cluster,
            hub,
            component,
            which,
        } => {
            let known = COMPONENTS.iter().find(|(name, ..)| name == component);
            let Some((_, labels, container)) = known else {
                let names = COMPONENTS.iter().map(|(name, ..)| name);
                bail!(
                    "there is no component `{component}`; there are: {}",
                    list(names)
                );
            };
            component_logs(sh, root, cluster, hub, labels, *container, which)
                .with_context(|| format!("the logs of {component}"))
        }
        Debug::UserLogs {
            cluster,
            hub,
            username,
            which,
        } => user_logs(sh, root, cluster, hub, username, which),
        Debug::StartDockerProxy { cluster } => start_docker_proxy(sh, root, cluster.as_deref()),
    }
}

fn component_logs(
    sh: &Shell,
    root: &Path,
    cluster: &str,
    hub: &str,
    labels: &str,
    container: Option<&str>,
    which: &Which,
) -> Result<ExitCode> {
    let (_, login) = open(sh, root, cluster, hub)?;
    let sh = &login.sh;
    let pods = pods(&Api::start(sh)?, hub, labels)?;
    if pods.is_empty() {
        bail!("`{hub}` of `{cluster}` has no pod with {labels}");
    }
    let mut flags = which.flags();
    let shown: usize = match container {
        Some(container) => {
            flags.extend(["--container", container]);
            pods.len()
        }
        None => {
            flags.push("--all-containers");
            pods.iter().map(|it| containers(it).count()).sum()
        }
    };
    if shown > 1 {
        flags.push("--prefix");
    }
    // By default kubectl refuses to follow more than five.
    let most = shown.to_string();
    let logs = cmd!(
        sh,
        "kubectl logs --namespace {hub} --selector {labels} --max-log-requests {most} {flags...}"
    );
    process::in_front(sh, logs, Whose::Ours)
}

fn user_logs(
    sh: &Shell,
    root: &Path,
    cluster: &str,
    hub: &str,
    username: &str,
    which: &Which,
) -> Result<ExitCode> {
    const CONTAINER: &str = "notebook";
    let (_, login) = open(sh, root, cluster, hub)?;
    let sh = &login.sh;
    // Every KubeSpawner has the name as it is in an annotation; labels differ.
    let pods = pods(&Api::start(sh)?, hub, "")?;
    let servers: Vec<_> = pods
        .iter()
        .filter_map(|it| Some((server(it)?, it)))
        .collect();
    let is_meant = |user: &str, server: &str| {
        [user.to_owned(), escaped(user)]
            .into_iter()
            .any(|user| match server {
                "" => user == username,
                server => format!("{user}/{server}") == username,
            })
    };
    let Some((_, pod)) = servers
        .iter()
        .find(|((user, server), _)| is_meant(user, server))
    else {
        let there: BTreeSet<_> = servers
            .iter()
            .map(|((user, server), _)| format!("{user}/{server}").trim_end_matches('/').to_owned())
            .collect();
        match there.is_empty() {
            true => bail!("no user of `{hub}` has a server now"),
            false => {
                bail!(
                    "`{username}` has no server on `{hub}` now; there are servers of: {}",
                    list(there)
                )
            }
        }
    };
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let containers: Vec<_> = containers(pod).collect();
    if !containers.contains(&CONTAINER) {
        bail!(
            "the pod `{name}` has no container `{CONTAINER}`; it has: {}",
            list(containers)
        );
    }
    let flags = which.flags();
    let logs = cmd!(
        sh,
        "kubectl logs --namespace {hub} {name} --container {CONTAINER} {flags...}"
    );
    process::in_front(sh, logs, Whose::Ours)
}

/// Whose server a pod is, and its name, which is empty for the one that every user has.
fn server(pod: &Value) -> Option<(&str, &str)> {
    let annotations = &pod["metadata"]["annotations"];
    let user = annotations["hub.jupyter.org/username"].as_str()?;
    Some((
        user,
        annotations["hub.jupyter.org/servername"]
            .as_str()
            .unwrap_or_default(),
    ))
}

/// A user's name as older KubeSpawners have it in names of pods and folders: all but small letters and digits as `-xx`.
pub(crate) fn escaped(user: &str) -> String {
    let is_safe = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    user.bytes()
        .map(|it| {
            if is_safe(it) {
                char::from(it).to_string()
            } else {
                format!("-{it:02x}")
            }
        })
        .collect()
}

/// The pods in a namespace that have these labels.
pub(crate) fn pods(api: &Api, namespace: &str, labels: &str) -> Result<Vec<Value>> {
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods?labelSelector={}",
        percent_encoded(labels)
    );
    let mut found = api.get(&path)?;
    Ok(found["items"]
        .as_array_mut()
        .map(std::mem::take)
        .unwrap_or_default())
}

fn containers(pod: &Value) -> impl Iterator<Item = &str> {
    pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it["name"].as_str())
}

/// The newest pod that is ready and stays.
pub(crate) fn ready(pods: Vec<Value>) -> Option<Value> {
    let is_ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut conditions = conditions.filter(|it| it["type"] == "Ready");
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.any(|it| it["status"] == "True")
    };
    let made = |pod: &Value| {
        pod["metadata"]["creationTimestamp"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    pods.into_iter().filter(is_ready).max_by_key(made)
}

fn start_docker_proxy(sh: &Shell, root: &Path, cluster: Option<&str>) -> Result<ExitCode> {
    const PAUSE: Duration = Duration::from_secs(1);
    let settings = Settings::load(root)?;
    let cluster = cluster
        .or(settings.docker_proxy_cluster.as_deref())
        .context(
            "which cluster?\nhint: name one, or set `docker_proxy_cluster` in config/xtask.yaml",
        )?;
    let cluster = Cluster::load(root, cluster)?;
    let login = credentials::open(sh, root, &cluster)?;
    let (sh, api) = (&login.sh, Api::start(&login.sh)?);
    process::end_in_order();
    let path = "/apis/apps/v1/namespaces/default/deployments/dind";
    let Some(deployment) = api.find(path)? else {
        bail!(
            "`{}` has no deployment `dind` in the namespace `default`",
            cluster.name
        );
    };
    let labels = deployment["spec"]["selector"]["matchLabels"]
        .as_object()
        .into_iter()
        .flatten();
    let labels: Vec<_> = labels
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    let mut was_connected = false;
    let mut waits = false;
    while process::check_stopped().is_ok() {
        let Some(pod) = ready(pods(&api, "default", &labels.join(","))?) else {
            if !waits {
                say!("no pod of `dind` is ready: waiting for one");
            }
            waits = true;
            thread::sleep(PAUSE);
            continue;
        };
        waits = false;
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let target = format!("pod/{name}");
        let mut forward = process::start(
            sh,
            cmd!(
                sh,
                "kubectl port-forward --namespace default {target} 23760:2376"
            ),
        )?;
        let mut is_connected = false;
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        while process::check_stopped().is_ok() {
            if let Some(said) = forward.ended()? {
                ensure!(
                    was_connected,
                    "`kubectl port-forward` ended: {}",
                    said.trim()
                );
                say!("the connection is lost: {}", said.trim());
                thread::sleep(PAUSE);
                break;
            }
            // kubectl says where it listens.
            if !is_connected && !forward.written()?.is_empty() {
                if !was_connected {
                    terminal::print("export DOCKER_HOST=tcp://localhost:23760\n")?;
                }
                say!("connected to {target} of `{}`, until Ctrl-C", cluster.name);
                (is_connected, was_connected) = (true, true);
            }
            let is_there = |it: &Value| {
                it["metadata"]["uid"] == pod["metadata"]["uid"]
                    && it["metadata"]["deletionTimestamp"].is_null()
            };
            if !api.find(&path)?.is_some_and(|it| is_there(&it)) {
                say!("{target} goes away");
                break;
            }
            thread::sleep(if is_connected {
                PAUSE
            } else {
                Duration::from_millis(50)
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}
