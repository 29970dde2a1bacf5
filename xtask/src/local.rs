//! The rehearsal cluster: a real control plane on loopback with simulated nodes, run by kwokctl.
//!
//! Everything of one cluster lies in `/dev/shm/xtask-UID/NAME-HASH`, where HASH stands for the checkout's path:
//! no secret in its etcd reaches a disk, and a reboot takes all of it away.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::{
    cluster::{self, Cluster},
    paths, process, setup,
};

/// Start, stop or look at the rehearsal clusters of this checkout
///
/// There is one for each cluster with `provider: local`. The Kubernetes API is real; nodes and pods are simulated:
/// a pod is ready within a second and runs nothing.
#[derive(clap::Subcommand)]
pub(crate) enum Local {
    /// Bring them up, where they aren't, and print the paths of their kubeconfigs
    Up,
    /// Take them down, with all that is in them
    Down,
    /// Tell which are up, and print the paths of their kubeconfigs
    Status,
}

pub(crate) fn local(sh: &Shell, root: &Path, command: &Local) -> Result<String> {
    let clusters = cluster::local_clusters(root)?;
    if clusters.is_empty() {
        bail!("no cluster in `config/clusters/` has `provider: local`");
    }
    let mut text = String::new();
    for cluster in &clusters {
        let rehearsal = Rehearsal::of(root, cluster)?;
        let state = match command {
            Local::Up => {
                rehearsal.up(sh)?;
                State::Up
            }
            Local::Down => {
                rehearsal.down()?;
                State::Down
            }
            Local::Status => rehearsal.state()?,
        };
        text += &match state {
            State::Down => format!("{}: down\n", cluster.name),
            State::Broken(why) => format!("{}: broken, {why}\n", cluster.name),
            State::Up => format!("{}: up, KUBECONFIG={}\n", cluster.name, rehearsal.kubeconfig().display()),
        };
    }
    Ok(text)
}

/// Where the rehearsal cluster of a `provider: local` cluster lies, up or not.
pub(crate) struct Rehearsal {
    /// For kwokctl and for our folder.
    id: String,
    dir: PathBuf,
}

pub(crate) enum State {
    Down,
    /// Half made, or dead in part. What is missing.
    Broken(String),
    Up,
}

/// What kwokctl is to make.
const CONFIG: &str = include_str!("local/kwokctl.yaml");
/// What we put into the new cluster.
const OBJECTS: &str = include_str!("local/objects.yaml");
/// As kwokctl calls them: it starts each as `clusters/ID/bin/NAME`, a link in the cluster's folder.
const COMPONENTS: [&str; 5] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok-controller"];

impl Rehearsal {
    pub(crate) fn of(root: &Path, cluster: &Cluster) -> Result<Rehearsal> {
        let root = root.to_str().context("the root's path isn't UTF-8")?;
        let hash = paths::hex(&Sha256::digest(root)[..4]);
        let id = format!("{}-{hash}", cluster.name);
        Ok(Rehearsal { dir: paths::in_memory()?.join(&id), id })
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// What kubectl and helm remember of the API is kept by address, and another cluster may have had this one's.
    pub(crate) fn kube_cache(&self) -> PathBuf {
        self.dir.join("kube-cache")
    }

    /// Brings the cluster up unless it is, and builds what that needs.
    pub(crate) fn up(&self, sh: &Shell) -> Result<()> {
        if matches!(self.state()?, State::Up) {
            return Ok(());
        }
        let sh = &setup::provide(sh, setup::FOR_REHEARSALS, true)?;
        let _lock = lock()?;
        match self.state()? {
            State::Up => return Ok(()),
            State::Down => {}
            State::Broken(why) => {
                say!("the rehearsal cluster `{}` is broken ({why}): making it again", self.id);
                self.remove()?;
            }
        }
        let started = Instant::now();
        self.create(sh).with_context(|| format!("cannot bring up the rehearsal cluster `{}`", self.id))?;
        say!("the rehearsal cluster `{}` is up after {:.1} s", self.id, started.elapsed().as_secs_f32());
        Ok(())
    }

    /// Takes the cluster away, whatever is left of it.
    pub(crate) fn down(&self) -> Result<()> {
        let _lock = lock()?;
        self.remove()
    }

    pub(crate) fn state(&self) -> Result<State> {
        let running = self.processes()?;
        if !self.dir.exists() && running.is_empty() {
            return Ok(State::Down);
        }
        let broken = |why: &str| Ok(State::Broken(why.to_owned()));
        match fs::read_to_string(self.made()) {
            Err(_) => return broken("it was never finished"),
            Ok(made) if made != recipe() => return broken("another version of xtask made it"),
            Ok(_) => {}
        }
        for component in COMPONENTS {
            let program = format!("{}/bin/{component}", self.workdir().display());
            if !running.iter().any(|(_, command)| command.starts_with(&program)) {
                return broken(&format!("`{component}` isn't running"));
            }
        }
        match self.api_server() {
            Some(address) if TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok() => {
                Ok(State::Up)
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
        let server = kubeconfig.lines().find_map(|it| it.trim().strip_prefix("server: https://"))?;
        server.parse().ok()
    }

    fn create(&self, sh: &Shell) -> Result<()> {
        fs::create_dir(&self.dir)?;
        let config = self.dir.join("kwokctl.yaml");
        fs::write(&config, CONFIG)?;
        let sh = sh.clone();
        // The control plane outlives us, and must not take a proxy or a kubeconfig from our environment.
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            sh.set_var(variable, "");
        }
        let kubeconfig = self.kubeconfig();
        sh.set_var("KUBECONFIG", &kubeconfig);
        sh.set_var("KUBECACHEDIR", self.kube_cache());
        sh.set_var("KWOK_WORKDIR", &self.dir);
        let program = |name| setup::which(&sh, name).with_context(|| format!("`{name}` isn't on PATH"));
        sh.set_var("KWOK_KUBECTL_BINARY", program("kubectl")?);
        let (etcd, apiserver) = (program("etcd")?, program("kube-apiserver")?);
        let (manager, scheduler) = (program("kube-controller-manager")?, program("kube-scheduler")?);
        let kwok = program("kwok")?;
        let id = &self.id;
        process::read(
            &sh,
            cmd!(
                sh,
                "kwokctl create cluster --name {id} --runtime binary --config {config} --kubeconfig {kubeconfig}
                 --etcd-binary {etcd} --kube-apiserver-binary {apiserver}
                 --kube-controller-manager-binary {manager} --kube-scheduler-binary {scheduler}
                 --kwok-controller-binary {kwok} --wait 60s"
            ),
        )?;
        let created = process::run(&sh, cmd!(sh, "kubectl create --filename -"), OBJECTS.as_bytes())?;
        if !created.success {
            bail!("kubectl refused the first objects: {}", String::from_utf8_lossy(&created.stderr));
        }
        process::read(&sh, cmd!(sh, "kubectl wait --for=condition=Ready nodes --all --timeout=60s"))?;
        fs::write(self.made(), recipe())?;
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        let given_up = Instant::now() + Duration::from_secs(10);
        loop {
            let running = self.processes()?;
            if running.is_empty() {
                break;
            }
            if Instant::now() > given_up {
                bail!("the processes of `{}` don't end: {:?}", self.id, running);
            }
            for (pid, _) in running {
                // Nothing in it is worth an orderly end. One that has gone meanwhile is fine.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        paths::remove_dir(&self.dir)
    }

    /// The running programs of this cluster, with their command lines. All are started by paths below its folder,
    /// so that this finds them whatever was killed, and never a stranger.
    fn processes(&self) -> Result<Vec<(Pid, String)>> {
        let below = format!("{}/bin/", self.workdir().display());
        Ok(command_lines()?.into_iter().filter(|(_, command)| command.starts_with(&below)).collect())
    }
}

/// One for all clusters of this user: kwokctl looks for free ports and takes them later.
fn lock() -> Result<File> {
    paths::lock(&paths::in_memory()?.join("lock"), "makes or removes a rehearsal cluster")
}

/// What a cluster is made from: one made from something else is made again.
fn recipe() -> String {
    format!("Kubernetes {}\n{CONFIG}{OBJECTS}", setup::KUBERNETES)
}

#[cfg(target_os = "linux")]
fn command_lines() -> Result<Vec<(Pid, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read `/proc`")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // A process may be gone by now.
        if let Ok(command) = fs::read(entry.path().join("cmdline")) {
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    Ok(found)
}

#[cfg(not(target_os = "linux"))]
fn command_lines() -> Result<Vec<(Pid, String)>> {
    let sh = Shell::new()?;
    let lines = process::read(&sh, cmd!(sh, "ps -axo pid=,command="))?;
    let parsed = lines.lines().filter_map(|line| {
        let (pid, command) = line.trim_start().split_once(' ')?;
        Some((pid.parse().ok().and_then(Pid::from_raw)?, command.to_owned()))
    });
    Ok(parsed.collect())
}
