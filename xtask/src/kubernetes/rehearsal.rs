//! The rehearsal cluster: a real control plane, run by kwokctl, with simulated nodes or a real one.
//!
//! Everything of one cluster lies in `/dev/shm/xtask-UID/NAME-HASH`, where HASH stands for the checkout's path:
//! no secret in its etcd reaches a disk, and a reboot takes all of it away.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::rehearsal::processes::processes,
    machine::{paths, process, programs},
    repository::cluster::{Cluster, Nodes, Provider},
};

use self::node::Node;

mod image;
pub(crate) mod node;
mod processes;

/// Where the rehearsal cluster of a `provider: local` cluster lies, up or not.
pub(crate) struct Rehearsal {
    /// For kwokctl and for our folder.
    id: String,
    dir: PathBuf,
    root: PathBuf,
    /// What cluster.yaml wants.
    pub(crate) asked: Option<Nodes>,
}

pub(crate) enum RehearsalState {
    Down,
    /// Half made, or dead in part. What is missing.
    Broken(String),
    Up(Nodes),
}

/// What kwokctl is to make, and what we put into the new cluster.
const SIMULATED_CONFIG: &str = include_str!("rehearsal/simulated/kwokctl.yaml");
const SIMULATED_NODES: &str = include_str!("rehearsal/simulated/nodes.yaml");
const VOLUMES: &str = include_str!("rehearsal/volumes.yaml");
/// As kwokctl calls them: it starts each as `clusters/ID/bin/NAME`, a link in the cluster's folder.
const CONTROL_PLANE: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok-controller",
];

impl Rehearsal {
    pub(crate) fn of(root: &Path, cluster: &Cluster) -> Result<Rehearsal> {
        let path = root.to_str().context("the root's path isn't UTF-8")?;
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

    /// What kubectl and helm remember of the API is kept by address, and another cluster may have had this one's.
    pub(crate) fn kube_cache(&self) -> PathBuf {
        self.dir.join("kube-cache")
    }

    /// Brings the cluster up unless it is, and builds what that needs. `wanted` is what its nodes must be; without it
    /// those that cluster.yaml asks for; if it doesn't, those of a cluster that is up are right, and a new one gets
    /// what it had before.
    pub(crate) fn up(&self, sh: &Shell, wanted: Option<Nodes>) -> Result<Nodes> {
        let wanted = wanted.or(self.asked);
        if let RehearsalState::Up(nodes) = self.state()? {
            return self.right(nodes, wanted);
        }
        let nodes = wanted.unwrap_or_else(|| had(&self.dir));
        let (sh, node) = match nodes {
            Nodes::Simulated => (programs::provide(sh, programs::FOR_REHEARSALS, true)?, None),
            Nodes::Real => {
                let (sh, node) = node::provide(sh, &self.id, &self.root)?;
                (sh, Some(node))
            }
        };
        let sh = &sh;
        let _lock = lock()?;
        match self.state()? {
            RehearsalState::Up(nodes) => return self.right(nodes, wanted),
            RehearsalState::Down => {}
            RehearsalState::Broken(why) => {
                say!(
                    "the rehearsal cluster `{}` is broken ({why}): making it again",
                    self.id
                );
                remove(&self.id, &self.dir)?;
            }
        }
        let started = Instant::now();
        let mut made = self.create(sh, node);
        let is_early = |err: &anyhow::Error| format!("{err:#}").contains("resource not handled");
        if nodes == Nodes::Simulated && made.as_ref().is_err_and(is_early) {
            say!("the API server wasn't quite there when kwokctl asked it: making it again");
            remove(&self.id, &self.dir)?;
            made = self.create(sh, None);
        }
        made.map_err(|err| {
            let (id, dir) = (&self.id, self.dir.display());
            anyhow!("cannot bring up the rehearsal cluster `{id}`: {err:#}\nhint: its programs' logs are in `{dir}`")
        })?;
        say!(
            "the rehearsal cluster `{}` is up on {nodes} after {:.1} s",
            self.id,
            started.elapsed().as_secs_f32()
        );
        Ok(nodes)
    }

    /// A rehearsal cluster has one kind of nodes all its life.
    fn right(&self, nodes: Nodes, wanted: Option<Nodes>) -> Result<Nodes> {
        match wanted {
            Some(wanted) if wanted != nodes => bail!(
                "the rehearsal cluster `{}` is up on {nodes}, not on {wanted}\n\
                 hint: `cargo xtask local down` first, which takes away all that is in it",
                self.id
            ),
            _ => Ok(nodes),
        }
    }

    /// Takes the cluster away, whatever is left of it.
    pub(crate) fn down(&self) -> Result<()> {
        let _lock = lock()?;
        remove(&self.id, &self.dir)
    }

    pub(crate) fn state(&self) -> Result<RehearsalState> {
        let running = processes(&self.dir)?;
        if !self.dir.exists() && running.is_empty() {
            return Ok(RehearsalState::Down);
        }
        let broken = |why: &str| Ok(RehearsalState::Broken(why.to_owned()));
        let Ok(made) = fs::read_to_string(self.made()) else {
            return broken("it was never finished");
        };
        let Some(nodes) = [Nodes::Simulated, Nodes::Real]
            .into_iter()
            .find(|it| made == recipe(*it))
        else {
            return broken("another version of xtask made it");
        };
        let components = match nodes {
            Nodes::Simulated => &[][..],
            Nodes::Real => &node::PROGRAMS,
        };
        for component in components.iter().chain(CONTROL_PLANE) {
            let program = format!("/bin/{component}");
            let is_it = |(_, command): &(Pid, String)| {
                command
                    .split_once(' ')
                    .is_some_and(|(started, _)| started.ends_with(&program))
            };
            if !running.iter().any(is_it) {
                return broken(&format!("`{component}` isn't running"));
            }
        }
        match self.api_server() {
            Some(address)
                if TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok() =>
            {
                Ok(RehearsalState::Up(nodes))
            }
            _ => broken("its API server doesn't answer"),
        }
    }

    /// Written last, so that a cluster without it is half made.
    fn made(&self) -> PathBuf {
        self.dir.join("made")
    }

    fn workdir(&self) -> PathBuf {
        self.dir.join("clusters").join(&self.id)
    }

    fn api_server(&self) -> Option<SocketAddr> {
        let kubeconfig = fs::read_to_string(self.kubeconfig()).ok()?;
        let server = kubeconfig
            .lines()
            .find_map(|it| it.trim().strip_prefix("server: https://"))?;
        server.parse().ok()
    }

    fn create(&self, sh: &Shell, node: Option<Node>) -> Result<()> {
        let nodes = if node.is_some() {
            Nodes::Real
        } else {
            Nodes::Simulated
        };
        fs::create_dir(&self.dir)?;
        let sh = sh.clone();
        // The control plane outlives us, and must not take a proxy or a kubeconfig from our environment.
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
        let kubeconfig = self.kubeconfig();
        sh.set_var("KUBECONFIG", &kubeconfig);
        sh.set_var("KUBECACHEDIR", self.kube_cache());
        let objects = match node {
            None => {
                let config = SIMULATED_CONFIG.replace("CLUSTER", &self.dir.display().to_string());
                self.start_control_plane(&sh, &config, &[])?;
                format!("{VOLUMES}---\n{SIMULATED_NODES}")
            }
            Some(node) => {
                node.refuse_another()?;
                if let Some((owner, root)) = node.another() {
                    say!("`{root}` is gone, and so goes its rehearsal cluster `{owner}`");
                    remove(&owner, &paths::in_memory()?.join(&owner))?;
                }
                let inside = node.start(&sh, &self.dir, &self.workdir())?;
                self.start_control_plane(&sh, node::CONFIG, &inside)?;
                // kwokctl spoke to the API server on the node's own loopback.
                let there = fs::read_to_string(&kubeconfig)?;
                let here =
                    there.replace("https://127.0.0.1:", &format!("https://{}:", node::ADDRESS));
                fs::write(&kubeconfig, here)?;
                VOLUMES.to_owned()
            }
        };
        let created = process::run(
            &sh,
            cmd!(sh, "kubectl create --filename -"),
            objects.as_bytes(),
        )?;
        if !created.success {
            bail!(
                "kubectl refused the first objects: {}",
                String::from_utf8_lossy(&created.stderr)
            );
        }
        if nodes == Nodes::Real {
            fs::write(self.dir.join("control-plane-is-up"), "")?;
            process::read(
                &sh,
                cmd!(sh, "kubectl wait --for=create node/node-0 --timeout=60s"),
            )?;
        }
        process::read(
            &sh,
            cmd!(
                sh,
                "kubectl wait --for=condition=Ready nodes --all --timeout=60s"
            ),
        )?;
        fs::write(self.made(), recipe(nodes))?;
        Ok(())
    }

    /// Runs kwokctl, behind the words of `inside` if it's to run elsewhere.
    fn start_control_plane(&self, sh: &Shell, config: &str, inside: &[String]) -> Result<()> {
        let (id, kubeconfig, file) = (&self.id, self.kubeconfig(), self.dir.join("kwokctl.yaml"));
        fs::write(&file, config)?;
        let sh = sh.clone();
        sh.set_var("KWOK_WORKDIR", &self.dir);
        let program =
            |name| programs::which(&sh, name).with_context(|| format!("`{name}` isn't on PATH"));
        sh.set_var("KWOK_KUBECTL_BINARY", program("kubectl")?);
        let (etcd, apiserver) = (program("etcd")?, program("kube-apiserver")?);
        let (manager, scheduler) = (
            program("kube-controller-manager")?,
            program("kube-scheduler")?,
        );
        let kwok = program("kwok")?;
        let cmd = cmd!(
            sh,
            "env {inside...} kwokctl create cluster --v ERROR --name {id} --runtime binary --config {file}
             --kubeconfig {kubeconfig} --etcd-binary {etcd} --kube-apiserver-binary {apiserver}
             --kube-controller-manager-binary {manager} --kube-scheduler-binary {scheduler}
             --kwok-controller-binary {kwok} --wait 60s"
        );
        process::read(&sh, cmd).map(|_| ())
    }
}

/// Takes away a cluster of which the ID and the folder are known.
fn remove(id: &str, dir: &Path) -> Result<()> {
    let given_up = Instant::now() + Duration::from_secs(10);
    loop {
        let running = processes(dir)?;
        if running.is_empty() {
            break;
        }
        if Instant::now() > given_up {
            bail!("the processes of `{id}` don't end: {running:?}");
        }
        for (pid, _) in running {
            // Nothing in it is worth an orderly end. One that has gone meanwhile is fine.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if had(dir) == Nodes::Real {
        node::clean_up(id)?;
    }
    paths::remove_dir(dir)
}

/// What the cluster in this folder had; simulated nodes if there is none.
fn had(dir: &Path) -> Nodes {
    if dir.join("bin").exists() {
        Nodes::Real
    } else {
        Nodes::Simulated
    }
}

/// One for all clusters of this user: kwokctl looks for free ports and takes them later.
fn lock() -> Result<File> {
    paths::lock(
        &paths::in_memory()?.join("lock"),
        "makes or removes a rehearsal cluster",
    )
}

/// What a cluster is made from: one made from something else is made again.
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
