//! A connection to a Docker that runs in a cluster.

use std::{process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    commands::exec::pods,
    kubernetes::{api::Api, credentials},
    machine::{
        process::{self, Beside},
        terminal,
        tree::Tree,
    },
    repository::cluster::Cluster,
    settings::Settings,
};

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_secs(1);

/// Connect port 23760 of this machine to the Docker that runs in a cluster
///
/// The Docker is that of the deployment `dind` in the namespace `default`. Prints the setting that makes docker use it, and
/// stays connected until Ctrl-C.
#[derive(clap::Args)]
pub struct StartDockerProxy {
    /// Cluster, by its folder in config/clusters/ [default: `docker_proxy_cluster` of config/xtask.yaml]
    cluster: Option<String>,
}

struct DockerProxy<'a> {
    sh: &'a Shell,
    api: &'a Api,
    cluster: &'a str,
    /// The labels of the deployment's pods.
    labels: String,
    /// Whether there was a connection: the end of one is an error only before that.
    was_connected: bool,
}

pub(crate) fn start_docker_proxy(
    sh: &Shell,
    tree: &Tree,
    args: &StartDockerProxy,
) -> Result<ExitCode> {
    process::end_in_order();
    let settings = Settings::load(tree)?;
    let cluster = Cluster::load(tree, args.cluster(&settings)?)?;
    let login = credentials::open(sh, tree, &cluster)?;
    let api = Api::start(&login.sh)?;
    let mut proxy = DockerProxy {
        sh: &login.sh,
        api: &api,
        cluster: &cluster.name,
        labels: labels_of_dind(&api, &cluster)?,
        was_connected: false,
    };
    while let Some(pod) = proxy.wait_for_pod()? {
        proxy.connect(&pod)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl StartDockerProxy {
    /// The name of the cluster that is given, or else set.
    fn cluster<'a>(&'a self, settings: &'a Settings) -> Result<&'a str> {
        let default = settings.docker_proxy_cluster.as_deref();
        self.cluster.as_deref().or(default).context(
            "which cluster?\nhint: name one, or set `docker_proxy_cluster` in config/xtask.yaml",
        )
    }
}

/// The labels by which the deployment finds its pods.
fn labels_of_dind(api: &Api, cluster: &Cluster) -> Result<String> {
    let deployment = api
        .find("/apis/apps/v1/namespaces/default/deployments/dind")?
        .with_context(|| {
            format!(
                "`{}` has no deployment `dind` in the namespace `default`",
                cluster.name
            )
        })?;
    let labels = deployment["spec"]["selector"]["matchLabels"].as_object();
    let labels: Vec<_> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    Ok(labels.join(","))
}

impl DockerProxy<'_> {
    /// A pod that is ready; none once somebody wants us to stop.
    fn wait_for_pod(&self) -> Result<Option<Value>> {
        let mut told = false;
        while process::check_stopped().is_ok() {
            let pods = pods::find(self.api, "default", &self.labels)?;
            if let Some(pod) = pods::newest_ready(pods) {
                return Ok(Some(pod));
            }
            if !told {
                say!("no pod of `dind` is ready: waiting for one");
                told = true;
            }
            thread::sleep(PAUSE);
        }
        Ok(None)
    }

    /// Keeps a connection to a pod until it is lost, the pod goes away, or somebody wants us to stop.
    fn connect(&mut self, pod: &Value) -> Result<()> {
        let target = format!("pod/{}", pods::name(pod));
        let mut forward = self.start_forward(&target)?;
        let mut is_connected = false;
        while process::check_stopped().is_ok() {
            if let Some(stderr) = forward.ended()? {
                self.tell_lost(stderr.trim())?;
                thread::sleep(PAUSE);
                return Ok(());
            }
            // kubectl says where it listens.
            if !is_connected && !forward.written()?.is_empty() {
                self.tell_connected(&target)?;
                is_connected = true;
            }
            if !self.is_there(pod)? {
                say!("{target} goes away");
                return Ok(());
            }
            thread::sleep(if is_connected {
                PAUSE
            } else {
                Duration::from_millis(50)
            });
        }
        Ok(())
    }

    fn start_forward(&self, target: &str) -> Result<Beside> {
        let sh = self.sh;
        let forward = cmd!(
            sh,
            "kubectl port-forward --namespace default {target} 23760:2376"
        );
        process::start(sh, forward)
    }

    fn tell_connected(&mut self, target: &str) -> Result<()> {
        if !self.was_connected {
            terminal::print("export DOCKER_HOST=tcp://localhost:23760\n")?;
        }
        say!("connected to {target} of `{}`, until Ctrl-C", self.cluster);
        self.was_connected = true;
        Ok(())
    }

    /// Says that the connection is lost. An error if there never was one.
    fn tell_lost(&self, reason: &str) -> Result<()> {
        ensure!(self.was_connected, "`kubectl port-forward` ended: {reason}");
        say!("the connection is lost: {reason}");
        Ok(())
    }

    /// Whether the pod is neither gone, nor replaced by another one of its name, nor being deleted.
    fn is_there(&self, pod: &Value) -> Result<bool> {
        let path = format!("/api/v1/namespaces/default/pods/{}", pods::name(pod));
        let now = self.api.find(&path)?;
        Ok(now.is_some_and(|now| {
            now["metadata"]["uid"] == pod["metadata"]["uid"]
                && now["metadata"]["deletionTimestamp"].is_null()
        }))
    }
}
