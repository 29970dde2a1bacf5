//! The real node of a rehearsal cluster: containerd, kubelet, kube-proxy and CoreDNS in namespaces of their own.
//!
//! The control plane runs in them too. All of it hangs on one process: when that ends, so do all others, and the kernel
//! takes their mounts, network links and iptables rules away. Outside there is one end of a network link, and
//! control groups.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, geteuid};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::rehearsal::{image, processes},
    machine::{paths, process, programs, terminal::list},
};

/// Where the API server and NodePorts answer. Only this machine gets there.
pub(crate) const ADDRESS: &str = "10.213.88.2";
/// The machine's end of the link to the node. Its alias says whose it is.
const LINK: &str = "xtask0";
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
const CONTROL_GROUP: &str = "xtask-node";
/// Debian's, Fedora's, and where the plugins' own releases go.
const CNI_PLUGINS: [&str; 3] = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"];
/// Their package on Debian and Ubuntu.
pub(crate) const CNI_PACKAGE: &str = "containernetworking-plugins";

/// What kwokctl is to make inside of the node.
pub(crate) const CONFIG: &str = include_str!("node/kwokctl.yaml");
/// What runs beside the control plane as long as the node is up. `sh` is its first process.
pub(crate) const PROGRAMS: [&str; 5] = ["sh", "containerd", "coredns", "kube-proxy", "kubelet"];
/// What the node's programs read, by its place in the cluster's folder.
const FILES: [(&str, &str); 7] = [
    ("init.sh", include_str!("node/init.sh")),
    ("containerd.toml", include_str!("node/containerd.toml")),
    ("cni/10-node.conflist", include_str!("node/cni.conflist")),
    ("kubelet.yaml", include_str!("node/kubelet.yaml")),
    ("kube-proxy.yaml", include_str!("node/kube-proxy.yaml")),
    ("Corefile", include_str!("node/Corefile")),
    (
        "volume-plugins/xtask~folder/folder",
        include_str!("node/folder.sh"),
    ),
];

/// A real node that can be started: all that it needs is there.
pub(crate) struct Node {
    /// The rehearsal cluster and the checkout that it belongs to.
    id: String,
    root: PathBuf,
    image: PathBuf,
    cni: &'static str,
}

/// Whether this machine and its user can have a real node at all.
pub(crate) fn possible() -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!(
            "a real node needs Linux\nhint: simulated nodes, which `local up` makes without `--real`, don't"
        );
    }
    if !geteuid().is_root() {
        bail!(
            "a real node needs root\nhint: simulated nodes, which `local up` makes without `--real`, don't"
        );
    }
    Ok(())
}

/// A `Shell` that finds what a real node takes from the system, which must all be there.
pub(crate) fn system(sh: &Shell) -> Result<Shell> {
    possible()?;
    let sh = sh.clone();
    // Debian's `su` keeps the PATH of a user who isn't root.
    let path = sh.var_os("PATH").unwrap_or_default();
    let with_sbin = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    sh.set_var("PATH", env::join_paths(with_sbin)?);
    programs::refuse_without(&sh, programs::SYSTEM_FOR_REAL_NODES)?;
    cni_plugins()?;
    Ok(sh)
}

/// Where the system has its CNI plugins.
fn cni_plugins() -> Result<&'static str> {
    let plugins = ["host-local", "loopback", "portmap", "ptp"];
    let has_all = |dir: &&str| plugins.iter().all(|it| Path::new(dir).join(it).exists());
    CNI_PLUGINS.into_iter().find(has_all).with_context(|| {
        format!(
            "the CNI plugins {} are in none of {}\n\
             hint: on Debian and Ubuntu, `apt-get install {CNI_PACKAGE}`",
            list(plugins),
            list(CNI_PLUGINS)
        )
    })
}

/// Makes sure that the machine's one real node can be ours, and builds all that it needs. Returns a `Shell` that has it.
pub(crate) fn provide(sh: &Shell, id: &str, root: &Path) -> Result<(Shell, Node)> {
    let sh = system(sh)?;
    let node = Node {
        id: id.to_owned(),
        root: root.to_owned(),
        image: image::folder(&sh)?,
        cni: cni_plugins()?,
    };
    node.refuse_another()?;
    // A shortened path would look like that of a checkout which is gone.
    ensure!(
        node.owner().len() < 256,
        "the path `{}` is too long for the name of a real node's owner",
        root.display()
    );
    let sh = programs::provide(
        &sh,
        &[programs::FOR_REHEARSALS, programs::FOR_REAL_NODES].concat(),
        true,
    )?;
    image::build(&sh, &node.image)?;
    Ok((sh, node))
}

impl Node {
    /// Another checkout's node is in the way, unless that checkout is gone and can't take it away any more.
    pub(crate) fn refuse_another(&self) -> Result<()> {
        if let Some((owner, root)) = self.another()
            && Path::new(&root).exists()
        {
            bail!(
                "this machine's one real node belongs to the rehearsal cluster `{owner}` of `{root}`\n\
                 hint: `cargo xtask --root {root} local down` takes it away"
            );
        }
        Ok(())
    }

    /// What the link's alias says of this node, up to 255 bytes.
    fn owner(&self) -> String {
        format!("{} {}", self.id, self.root.display())
    }

    pub(crate) fn another(&self) -> Option<(String, String)> {
        owner().filter(|(owner, _)| *owner != self.id)
    }

    /// Starts the node's first process and its containerd. Returns what to put before a command that is to run in the
    /// node's namespaces.
    pub(crate) fn start(
        &self,
        sh: &Shell,
        dir: &Path,
        control_plane: &Path,
    ) -> Result<Vec<String>> {
        image::remove_others(&self.image)?;
        for (name, content) in FILES {
            let file = dir.join(name);
            fs::create_dir_all(file.parent().expect("it lies in the cluster's folder"))?;
            fs::write(&file, content)?;
        }
        paths::make_executable(&dir.join("volume-plugins/xtask~folder/folder"))?;
        fs::create_dir(dir.join("logs"))?;
        // By these links everything that belongs to the cluster is started, and found again.
        let bin = dir.join("bin");
        fs::create_dir(&bin)?;
        for name in PROGRAMS {
            let program =
                programs::which(sh, name).with_context(|| format!("`{name}` isn't on PATH"))?;
            std::os::unix::fs::symlink(program, bin.join(name))?;
        }
        make_control_groups()?;

        let log = dir.join("logs/node.log");
        let (image, cni) = (&self.image, self.cni);
        let (init, init_sh) = (bin.join("sh"), dir.join("init.sh"));
        let unshare = "log=$1; shift; unshare --mount --net --pid --fork --mount-proc \"$@\" >\"$log\" 2>&1 </dev/null &";
        process::read(
            sh,
            cmd!(
                sh,
                "sh -c {unshare} sh {log} {init} {init_sh} {dir} {control_plane} {image} {cni}"
            ),
        )?;
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let first = || first_process(&init);
        wait_for(|| Ok(first()?.is_some()), || Ok(!said().is_empty())).with_context(|| {
            format!("the node's first process doesn't start: {}", said().trim())
        })?;
        let pid = first()?
            .with_context(|| format!("the node's first process ended: {}", said().trim()))?
            .to_string();
        process::read(
            sh,
            cmd!(
                sh,
                "ip link add {LINK} type veth peer name eth0 netns {pid}"
            ),
        )?;
        let owner = self.owner();
        process::read(sh, cmd!(sh, "ip link set {LINK} alias {owner}"))?;
        process::read(sh, cmd!(sh, "ip address add 10.213.88.1/30 dev {LINK}"))?;
        process::read(sh, cmd!(sh, "ip link set {LINK} up"))?;
        wait_for(
            || Ok(dir.join("node-is-up").exists()),
            || Ok(first()?.is_none()),
        )
        .with_context(|| format!("the node doesn't come up: {}", said().trim()))?;
        Ok([
            "nsenter", "--target", &pid, "--root", "--mount", "--net", "--pid",
        ]
        .map(str::to_owned)
        .into())
    }
}

/// Waits until one condition holds; an error if the other one does first, or nothing happens.
fn wait_for(there: impl Fn() -> Result<bool>, failed: impl Fn() -> Result<bool>) -> Result<()> {
    let given_up = Instant::now() + Duration::from_secs(20);
    while !there()? {
        ensure!(!failed()? || there()?, "it failed");
        ensure!(Instant::now() < given_up, "nothing happens");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Takes away what the kernel doesn't, once the node's processes are gone.
pub(crate) fn clean_up(id: &str) -> Result<()> {
    let given_up = Instant::now() + Duration::from_secs(10);
    loop {
        let left = match owner() {
            // A link without an alias was being made when its `up` was killed.
            Some((owner, _)) if owner == id || owner.is_empty() => {
                anyhow!("the network link `{LINK}` is still there")
            }
            // The groups are another's now.
            Some(_) => return Ok(()),
            None => match remove_control_groups() {
                Ok(()) => return Ok(()),
                Err(err) => anyhow!("cannot remove a control group: {err}"),
            },
        };
        if Instant::now() > given_up {
            return Err(left);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// All that a node is made from.
pub(crate) fn recipe() -> String {
    let files = FILES.iter().map(|(_, content)| *content);
    [CONFIG].into_iter().chain(files).collect::<String>() + &image::recipe()
}

/// The ID and the root of the rehearsal cluster that has the machine's real node now.
fn owner() -> Option<(String, String)> {
    let alias = fs::read_to_string(Path::new("/sys/class/net").join(LINK).join("ifalias")).ok()?;
    let (id, root) = alias.trim_end().split_once(' ').unwrap_or_default();
    Some((id.to_owned(), root.to_owned()))
}

fn first_process(init: &Path) -> Result<Option<Pid>> {
    let start = format!("{} ", init.display());
    Ok(processes::command_lines()?
        .into_iter()
        .find(|(_, command)| command.starts_with(&start))
        .map(|(pid, _)| pid))
}

/// The roots of the machine's control groups: one for each controller in version 1, a single one in version 2.
fn control_groups() -> Result<Vec<PathBuf>> {
    let is_root = |dir: &Path| dir.join("cgroup.procs").exists();
    let top = Path::new(CONTROL_GROUPS);
    if is_root(top) {
        return Ok(vec![top.to_owned()]);
    }
    let mut roots = Vec::new();
    for entry in fs::read_dir(top).with_context(|| format!("cannot read `{CONTROL_GROUPS}`"))? {
        let entry = entry?;
        // Two controllers in one folder have links beside it.
        if entry.file_type()?.is_dir() && is_root(&entry.path()) {
            roots.push(entry.path());
        }
    }
    Ok(roots)
}

/// kubelet wants its group made for it, with the controllers that it uses.
fn make_control_groups() -> Result<()> {
    for root in control_groups()? {
        if let Ok(controllers) = fs::read_to_string(root.join("cgroup.controllers")) {
            let wanted = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];
            for controller in controllers
                .split_whitespace()
                .filter(|it| wanted.contains(it))
            {
                // On most machines systemd has done it. Where it can't be done, kubelet says so.
                let _ = fs::write(
                    root.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                );
            }
        }
        let group = root.join(CONTROL_GROUP);
        fs::create_dir_all(&group).with_context(|| format!("cannot make `{}`", group.display()))?;
    }
    Ok(())
}

fn remove_control_groups() -> Result<()> {
    fn remove(group: &Path) -> io::Result<()> {
        let Ok(entries) = fs::read_dir(group) else {
            return Ok(());
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                remove(&entry.path())?;
            }
        }
        fs::remove_dir(group)
    }
    for root in control_groups()? {
        remove(&root.join(CONTROL_GROUP))?;
    }
    Ok(())
}
