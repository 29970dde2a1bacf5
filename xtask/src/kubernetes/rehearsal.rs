//! The rehearsal cluster: a real control plane, run by kwokctl, with simulated nodes or a real one.
//!
//! All files of one cluster are in `/dev/shm/xtask-UID/NAME-HASH`, or on another tmpfs; HASH is a hash of the checkout's
//! path. No secret in its etcd reaches a disk, and a reboot removes everything.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::rehearsal::{node::Node, processes::processes, registry::Storage},
    machine::{paths, process, programs, until::Until},
    repository::cluster::{Cluster, Nodes, Provider},
};

pub(crate) mod chart_images;
mod image;
mod layout;
pub(crate) mod node;
mod processes;
pub(crate) mod registry;
pub(crate) mod room;

/// The rehearsal cluster of a `provider: local` cluster, up or not.
pub(crate) struct Rehearsal {
    /// The name of the cluster for kwokctl, and of our folder.
    id: String,
    dir: PathBuf,
    root: PathBuf,
    /// The nodes that cluster.yaml asks for.
    pub(crate) asked: Option<Nodes>,
}

pub(crate) enum RehearsalState {
    Down,
    /// It was not finished, or parts of it have died: what is missing.
    Broken(String),
    Up(Nodes),
}

/// kwokctl's configuration for simulated nodes, and the objects that a new cluster gets.
const SIMULATED_CONFIG: &str = include_str!("rehearsal/simulated/kwokctl.yaml");
const SIMULATED_NODES: &str = include_str!("rehearsal/simulated/nodes.yaml");
const VOLUMES: &str = include_str!("rehearsal/volumes.yaml");
/// The names that kwokctl uses: it starts each as `clusters/ID/bin/NAME`, a link in the cluster's folder.
const CONTROL_PLANE: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok-controller",
];

/// How long kube-controller-manager may take until it works.
const CONTROLLERS_START: Duration = Duration::from_secs(60);

impl Rehearsal {
    pub(crate) fn of(root: &Path, cluster: &Cluster) -> Result<Rehearsal> {
        let path = root.to_str().context("the root's path is not UTF-8")?;
        let hash = paths::hex(&Sha256::digest(path)[..4]);
        let id = format!("{}-{hash}", cluster.name);
        let asked = match cluster.provider {
            Provider::Local(nodes) => nodes,
            _ => None,
        };
        Ok(Rehearsal {
            dir: paths::in_memory()?.join(&id),
            id,
            root: root.to_owned(),
            asked,
        })
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// kubectl and helm cache what an API server offers by its address, which another cluster may have had before.
    pub(crate) fn kube_cache(&self) -> PathBuf {
        self.dir.join("kube-cache")
    }

    /// Brings the cluster up unless it is up, and builds what that needs.
    ///
    /// `wanted` says what its nodes must be, else cluster.yaml does. If neither does, a cluster that is up stays as it is,
    /// and a new one gets the nodes that it had before.
    pub(crate) fn up(&self, sh: &Shell, wanted: Option<Nodes>) -> Result<Nodes> {
        let wanted = wanted.or(self.asked);
        if let RehearsalState::Up(nodes) = self.state()? {
            return self.accept(nodes, wanted);
        }
        let nodes = wanted.unwrap_or_else(|| previous_nodes(&self.dir));
        let (sh, node) = self.provide(sh, nodes)?;
        let _lock = lock()?;
        match self.state()? {
            // Another process was faster.
            RehearsalState::Up(nodes) => return self.accept(nodes, wanted),
            RehearsalState::Down => {}
            RehearsalState::Broken(why) => self.remove_broken(&why)?,
        }
        let started = Instant::now();
        self.create_with_retry(&sh, node.as_ref())
            .map_err(|err| self.not_created(&err))?;
        say!(
            "the rehearsal cluster `{}` is up on {nodes} after {:.1} s",
            self.id,
            started.elapsed().as_secs_f32()
        );
        Ok(nodes)
    }

    fn remove_broken(&self, why: &str) -> Result<()> {
        say!(
            "the rehearsal cluster `{}` is broken ({why}): making it again",
            self.id
        );
        remove(&self.id, &self.dir)
    }

    fn not_created(&self, err: &Error) -> Error {
        anyhow!(
            "cannot bring up the rehearsal cluster `{}`: {err:#}\nhint: its programs' logs are in `{}`",
            self.id,
            self.dir.display()
        )
    }

    /// Refuses a cluster that is up on other nodes than wanted: it has one kind of nodes all its life.
    fn accept(&self, nodes: Nodes, wanted: Option<Nodes>) -> Result<Nodes> {
        match wanted {
            Some(wanted) if wanted != nodes => bail!(
                "the rehearsal cluster `{}` is up on {nodes}, not on {wanted}\n\
                 hint: `cargo xtask local down` first, which deletes all that is in it",
                self.id
            ),
            _ => Ok(nodes),
        }
    }

    /// A `Shell` with the programs that these nodes need, and the real node if it is to be one.
    fn provide(&self, sh: &Shell, nodes: Nodes) -> Result<(Shell, Option<Node>)> {
        match nodes {
            Nodes::Simulated => {
                let tools = programs::provide(sh, programs::FOR_REHEARSALS, true)?;
                Ok((tools.sh().clone(), None))
            }
            Nodes::Real => {
                let (sh, node) = node::provide(sh, &self.id, &self.root)?;
                Ok((sh, Some(node)))
            }
        }
    }

    /// What the registry of the cluster's real node holds. None if it is not up on one.
    pub(crate) fn storage(&self) -> Result<Option<Storage>> {
        match self.state()? {
            RehearsalState::Up(Nodes::Real) => node::storage(&self.dir).map(Some),
            _ => Ok(None),
        }
    }

    /// The address of the registry that the cluster's nodes pull all images from, whatever their names. It has no TLS. None
    /// if the cluster is not up on a real node: simulated ones pull nothing.
    pub(crate) fn registry(&self) -> Result<Option<&'static str>> {
        let state = self.state()?;
        Ok(matches!(state, RehearsalState::Up(Nodes::Real)).then_some(registry::ADDRESS))
    }

    /// Removes the cluster, or what is left of it.
    pub(crate) fn down(&self) -> Result<()> {
        let _lock = lock()?;
        remove(&self.id, &self.dir)
    }

    pub(crate) fn state(&self) -> Result<RehearsalState> {
        let running = processes(&self.dir)?;
        if !self.dir.exists() && running.is_empty() {
            return Ok(RehearsalState::Down);
        }
        let recipe_file = fs::read_to_string(self.recipe_file());
        let Ok(made_from) = recipe_file else {
            return Ok(broken("it was never finished"));
        };
        let mut kinds = [Nodes::Simulated, Nodes::Real].into_iter();
        let Some(nodes) = kinds.find(|nodes| made_from == recipe(*nodes)) else {
            return Ok(broken("another version of xtask made it"));
        };
        if let Some(program) = missing_program(&running, nodes) {
            return Ok(broken(&format!("`{program}` is not running")));
        }
        if !self.has_api_server() {
            return Ok(broken("its API server does not answer"));
        }
        Ok(RehearsalState::Up(nodes))
    }

    /// What the cluster was made from. Written last: a cluster without it was not finished.
    fn recipe_file(&self) -> PathBuf {
        self.dir.join("made")
    }

    fn workdir(&self) -> PathBuf {
        self.dir.join("clusters").join(&self.id)
    }

    fn has_api_server(&self) -> bool {
        self.api_server().is_some_and(|address| {
            TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
        })
    }

    /// The address in the kubeconfig.
    fn api_server(&self) -> Option<SocketAddr> {
        let kubeconfig = fs::read_to_string(self.kubeconfig()).ok()?;
        let server = kubeconfig
            .lines()
            .find_map(|it| it.trim().strip_prefix("server: https://"))?;
        server.parse().ok()
    }

    /// Creates the cluster; once more if kwokctl asked an API server that was not quite ready.
    fn create_with_retry(&self, sh: &Shell, node: Option<&Node>) -> Result<()> {
        match self.create(sh, node) {
            Err(err) if node.is_none() && format!("{err:#}").contains("resource not handled") => {
                say!("the API server was not ready when kwokctl asked it: making it again");
                remove(&self.id, &self.dir)?;
                self.create(sh, node)
            }
            created => created,
        }
    }

    fn create(&self, sh: &Shell, node: Option<&Node>) -> Result<()> {
        fs::create_dir(&self.dir)?;
        let sh = &self.environment(sh);
        let nodes = match node {
            None => {
                self.create_simulated(sh)?;
                Nodes::Simulated
            }
            Some(node) => {
                self.create_real(sh, node)?;
                Nodes::Real
            }
        };
        process::read(
            sh,
            cmd!(
                sh,
                "kubectl wait --for=condition=Ready nodes --all --timeout=60s"
            ),
        )?;
        fs::write(self.recipe_file(), recipe(nodes))?;
        Ok(())
    }

    /// The control plane outlives us, and must not take a proxy or a kubeconfig from our environment.
    fn environment(&self, sh: &Shell) -> Shell {
        let sh = sh.clone();
        for variable in [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
        ] {
            sh.set_var(variable, "");
        }
        sh.set_var("KUBECONFIG", self.kubeconfig());
        sh.set_var("KUBECACHEDIR", self.kube_cache());
        sh
    }

    fn create_simulated(&self, sh: &Shell) -> Result<()> {
        let config = SIMULATED_CONFIG.replace("CLUSTER", &self.dir.display().to_string());
        self.start_control_plane(sh, &config, &[])?;
        self.wait_for_controllers(sh, &[])?;
        create_objects(sh, &format!("{VOLUMES}---\n{SIMULATED_NODES}"))
    }

    fn create_real(&self, sh: &Shell, node: &Node) -> Result<()> {
        node.refuse_another()?;
        remove_gone(node)?;
        let inside = node.start(sh, &self.dir, &self.workdir())?;
        self.start_control_plane(sh, node::CONFIG, &inside)?;

        self.point_kubeconfig_at_node()?;
        self.wait_for_controllers(sh, &inside)?;
        create_objects(sh, &format!("{VOLUMES}---\n{}", node::OBJECTS))?;
        fs::write(self.dir.join("control-plane-is-up"), "")?;
        process::read(
            sh,
            cmd!(sh, "kubectl wait --for=create node/node-0 --timeout=60s"),
        )?;
        Ok(())
    }

    /// Puts the node's address into the kubeconfig: kwokctl asked the API server on the node's own loopback.
    fn point_kubeconfig_at_node(&self) -> Result<()> {
        let kubeconfig = fs::read_to_string(self.kubeconfig())?;
        let here = format!("https://{}:", node::ADDRESS);
        let kubeconfig = kubeconfig.replace("https://127.0.0.1:", &here);
        fs::write(self.kubeconfig(), kubeconfig)?;
        Ok(())
    }

    /// Runs kwokctl; `inside` are the words of a command that runs it elsewhere.
    fn start_control_plane(&self, sh: &Shell, config: &str, inside: &[String]) -> Result<()> {
        let id = &self.id;
        let kubeconfig = self.kubeconfig();
        let file = self.dir.join("kwokctl.yaml");
        fs::write(&file, config)?;
        let sh = sh.clone();
        sh.set_var("KWOK_WORKDIR", &self.dir);
        sh.set_var("KWOK_KUBECTL_BINARY", programs::find(&sh, "kubectl")?);
        let etcd = programs::find(&sh, "etcd")?;
        let apiserver = programs::find(&sh, "kube-apiserver")?;
        let manager = programs::find(&sh, "kube-controller-manager")?;
        let scheduler = programs::find(&sh, "kube-scheduler")?;
        let kwok = programs::find(&sh, "kwok")?;
        let cmd = cmd!(
            sh,
            "env {inside...} kwokctl create cluster --v ERROR --name {id} --runtime binary --config {file}
             --kubeconfig {kubeconfig} --etcd-binary {etcd} --kube-apiserver-binary {apiserver}
             --kube-controller-manager-binary {manager} --kube-scheduler-binary {scheduler}
             --kwok-controller-binary {kwok} --wait 60s"
        );
        process::read(&sh, cmd).map(|_| ())
    }

    /// Waits until controllers work: pods need the service account that one of them makes. The program gives up if the API
    /// server is not ready within ten seconds, as happens on a busy machine, and is then started again.
    fn wait_for_controllers(&self, sh: &Shell, inside: &[String]) -> Result<()> {
        let id = &self.id;
        let sh = sh.clone();
        sh.set_var("KWOK_WORKDIR", &self.dir);
        let until = Until::after(CONTROLLERS_START);
        loop {
            let find = cmd!(
                sh,
                "kubectl get serviceaccounts --namespace default --output name"
            );
            if !process::read(&sh, find)?.is_empty() {
                return Ok(());
            }
            if missing_program(&processes(&self.dir)?, Nodes::Simulated).is_some() {
                let start = cmd!(
                    sh,
                    "env {inside...} kwokctl start cluster --v ERROR --name {id}"
                );
                process::read(&sh, start)?;
            }
            until.check("the start of kube-controller-manager")?;
            until.pause(Duration::from_millis(100))?;
        }
    }
}

fn broken(why: &str) -> RehearsalState {
    RehearsalState::Broken(why.to_owned())
}

/// A program of the cluster that has ended.
fn missing_program(running: &[(Pid, String)], nodes: Nodes) -> Option<&'static str> {
    let of_node: &[_] = match nodes {
        Nodes::Simulated => &[],
        Nodes::Real => &node::PROGRAMS,
    };
    of_node
        .iter()
        .chain(CONTROL_PLANE)
        .copied()
        .find(|program| {
            let end = format!("/bin/{program}");
            !running.iter().any(|(_, command)| {
                command
                    .split_once(' ')
                    .is_some_and(|(started, _)| started.ends_with(&end))
            })
        })
}

/// Removes the rehearsal cluster that a checkout, which is gone, has left on the node.
fn remove_gone(node: &Node) -> Result<()> {
    let Some(gone) = node.another() else {
        return Ok(());
    };
    say!(
        "`{}` is gone: removing its rehearsal cluster `{}`",
        gone.root,
        gone.id
    );
    remove(&gone.id, &paths::in_memory()?.join(&gone.id))
}

/// Puts the first objects into a new cluster.
fn create_objects(sh: &Shell, manifest: &str) -> Result<()> {
    let create = cmd!(sh, "kubectl create --filename -");
    let created = process::run(sh, create, manifest.as_bytes())?;
    if !created.success {
        bail!(
            "kubectl refused the first objects: {}",
            String::from_utf8_lossy(&created.stderr)
        );
    }
    Ok(())
}

/// Removes the cluster with this ID and folder, or what is left of it.
fn remove(id: &str, dir: &Path) -> Result<()> {
    let until = Until::after_in_any_case(Duration::from_secs(10));
    loop {
        let running = processes(dir)?;
        if running.is_empty() {
            break;
        }
        until.check(&format!("the end of the processes of `{id}` ({running:?})"))?;
        for (pid, _) in running {
            // Nothing in it is worth an orderly end. One that has gone meanwhile is fine.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(20));
    }
    if previous_nodes(dir) == Nodes::Real {
        node::clean_up(id, dir)?;
    }
    paths::remove_dir(dir)
}

/// The nodes of the cluster in this folder; simulated ones if there is none.
fn previous_nodes(dir: &Path) -> Nodes {
    if dir.join("bin").exists() {
        Nodes::Real
    } else {
        Nodes::Simulated
    }
}

/// One lock for all clusters of this user: kwokctl looks for free ports, and opens them only later.
fn lock() -> Result<File> {
    paths::lock(
        &paths::in_memory()?.join("lock"),
        "makes or removes a rehearsal cluster",
    )
}

/// What a cluster is made from. One that was made from something else is made again.
fn recipe(nodes: Nodes) -> String {
    let parts = match nodes {
        Nodes::Simulated => SIMULATED_CONFIG.to_owned() + SIMULATED_NODES,
        Nodes::Real => node::recipe(),
    };
    format!(
        "{nodes}, Kubernetes {}\n{VOLUMES}{parts}",
        programs::KUBERNETES
    )
}
