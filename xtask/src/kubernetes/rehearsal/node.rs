//! The real node of a rehearsal cluster: containerd, kubelet, kube-proxy and CoreDNS in namespaces of their own.
//!
//! The control plane runs in them too. All of it depends on one process: when that ends, so do all others, and the kernel
//! removes their mounts, network links and iptables rules. What remains outside is one end of a network link, and control
//! groups.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, geteuid};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::rehearsal::{
        image,
        layout::Layout,
        processes,
        registry::{self, Storage},
    },
    machine::{paths, process, programs, terminal::list, until::Until},
    services::{http, registry::reference::Reference},
};

/// Where the API server and NodePorts answer. Only this machine reaches it.
pub(crate) const ADDRESS: &str = http::REAL_NODE;
/// The machine's end of the link to the node. Its alias names the owner of the node.
const LINK: &str = "xtask0";
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
const CONTROL_GROUP: &str = "xtask-node";
/// Where Debian, Fedora and the plugins' own releases put them.
const CNI_PLUGINS: [&str; 3] = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"];
/// The package of the CNI plugins on Debian and Ubuntu.
pub(crate) const CNI_PACKAGE: &str = "containernetworking-plugins";

/// kwokctl's configuration for a control plane inside of the node.
pub(crate) const CONFIG: &str = include_str!("node/kwokctl.yaml");
/// The objects that a new cluster with a real node gets.
pub(crate) const OBJECTS: &str = include_str!("node/objects.yaml");
/// What runs beside the control plane as long as the node is up. `sh` is the first process.
pub(crate) const PROGRAMS: [&str; 6] = [
    "sh",
    "registry",
    "containerd",
    "coredns",
    "kube-proxy",
    "kubelet",
];
/// The files that the node's programs read, by their paths in the cluster's folder.
const FILES: [(&str, &str); 9] = [
    ("init.sh", include_str!("node/init.sh")),
    ("containerd.toml", include_str!("node/containerd.toml")),
    ("registry.yaml", include_str!("node/registry.yaml")),
    (
        "registries/_default/hosts.toml",
        include_str!("node/hosts.toml"),
    ),
    ("cni/10-node.conflist", include_str!("node/cni.conflist")),
    ("kubelet.yaml", include_str!("node/kubelet.yaml")),
    ("kube-proxy.yaml", include_str!("node/kube-proxy.yaml")),
    ("Corefile", include_str!("node/Corefile")),
    (
        "volume-plugins/xtask~folder/folder",
        include_str!("node/folder.sh"),
    ),
];

/// A link to the registry's folder, in the cluster's folder.
const REGISTRY: &str = "registry";

/// The first process's program and its log, in the cluster's folder.
const FIRST_PROGRAM: &str = "bin/sh";
const LOG: &str = "logs/node.log";

/// A real node that can be started: all that it needs is there.
pub(crate) struct Node {
    owner: Owner,
    image: PathBuf,
    cni: &'static str,
}

/// Whose the machine's one real node is: the rehearsal cluster, and the root of its checkout.
pub(crate) struct Owner {
    pub(crate) id: String,
    pub(crate) root: String,
}

/// Whether this machine and its user can have a real node at all.
pub(crate) fn possible() -> Result<()> {
    const HINT: &str = "hint: simulated nodes, which `local up` makes without `--real`, need neither Linux nor root";
    ensure!(cfg!(target_os = "linux"), "a real node needs Linux\n{HINT}");
    ensure!(geteuid().is_root(), "a real node needs root\n{HINT}");
    Ok(())
}

/// A `Shell` that finds what a real node takes from the system, which must all be there, and so must these other programs.
pub(crate) fn system(sh: &Shell, others: &[(&str, &str)]) -> Result<Shell> {
    possible()?;
    let sh = sh.clone();
    // Debian's `su` keeps the PATH of a user who isn't root.
    let mut with_sbin = programs::on_path(&sh);
    with_sbin.extend(["/usr/sbin".into(), "/sbin".into()]);
    sh.set_var("PATH", env::join_paths(with_sbin)?);
    let needed = [programs::SYSTEM_FOR_REAL_NODES, others].concat();
    let mut missing = programs::missing_from_system(&sh, &needed);
    if cni_plugins().is_err() {
        missing.push(("CNI plugins", CNI_PACKAGE));
    }
    programs::refuse_missing(&missing)?;
    Ok(sh)
}

/// The folder that has the CNI plugins.
fn cni_plugins() -> Result<&'static str> {
    let plugins = ["host-local", "loopback", "portmap", "ptp"];
    CNI_PLUGINS
        .into_iter()
        .find(|dir| plugins.iter().all(|it| Path::new(dir).join(it).exists()))
        .with_context(|| {
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
    let has_image = image::folder(sh).is_ok_and(|it| it.is_dir());
    let for_image = if has_image {
        &[]
    } else {
        programs::SYSTEM_FOR_IMAGES
    };
    let sh = system(sh, for_image)?;
    let node = Node {
        owner: Owner {
            id: id.to_owned(),
            root: root.display().to_string(),
        },
        image: image::folder(&sh)?,
        cni: cni_plugins()?,
    };
    node.refuse_another()?;
    // An alias has up to 255 bytes. A path that was cut would look like that of a checkout which is gone.
    ensure!(
        node.owner.alias().len() < 256,
        "the path `{}` is too long to be recorded as the owner of a real node",
        root.display()
    );
    let programs = [programs::FOR_REHEARSALS, programs::FOR_REAL_NODES].concat();
    let sh = programs::provide(&sh, &programs, true)?.sh().clone();
    image::build(&sh, &node.image)?;
    Ok((sh, node))
}

impl Node {
    /// Refuses to replace another checkout's node, unless that checkout is gone and cannot remove it any more.
    pub(crate) fn refuse_another(&self) -> Result<()> {
        if let Some(Owner { id, root }) = self.another()
            && Path::new(&root).exists()
        {
            bail!(
                "this machine's one real node belongs to the rehearsal cluster `{id}` of `{root}`\n\
                 hint: `cargo xtask --root {root} local down` removes it"
            );
        }
        Ok(())
    }

    /// The owner of a node that is not this one.
    pub(crate) fn another(&self) -> Option<Owner> {
        Owner::of_link().filter(|owner| owner.id != self.owner.id)
    }

    /// Starts the node's first process and its containerd. Returns the words to put before a command that is to run in the
    /// node's namespaces.
    pub(crate) fn start(
        &self,
        sh: &Shell,
        dir: &Path,
        control_plane: &Path,
    ) -> Result<Vec<String>> {
        image::remove_others(&self.image)?;
        write_files(dir)?;
        self.fill_registry(dir)?;
        link_programs(sh, dir)?;
        make_control_groups()?;
        let pid = self
            .start_first_process(sh, dir, control_plane)?
            .to_string();
        self.make_link(sh, &pid)?;
        wait_for(
            || Ok(dir.join("node-is-up").exists()),
            || Ok(first_process(dir)?.is_none()),
        )
        .with_context(|| format!("the node does not come up: {}", log(dir)))?;
        Ok([
            "nsenter", "--target", &pid, "--root", "--mount", "--net", "--pid",
        ]
        .map(str::to_owned)
        .into())
    }

    /// Makes the registry's folder anew, with the image that the node has from the start.
    fn fill_registry(&self, dir: &Path) -> Result<()> {
        // What a machine left there that went down with its node is nobody's any more.
        paths::remove_dir(&registries()?)?;
        let folder = registries()?.join(&self.owner.id);
        std::os::unix::fs::symlink(&folder, dir.join(REGISTRY))?;
        let storage = Storage::at(&folder);
        let layout = Layout::at(&self.image);
        storage.add_blobs(&layout)?;
        for (name, manifest) in layout.manifests()? {
            let image = Reference::parse(&name)?;
            storage.tag(
                &registry::repository(&image),
                registry::tag(&image),
                &manifest,
            )?;
        }
        Ok(())
    }

    fn start_first_process(&self, sh: &Shell, dir: &Path, control_plane: &Path) -> Result<Pid> {
        let script = "log=$1; shift; unshare --mount --net --pid --fork --mount-proc \"$@\" >\"$log\" 2>&1 </dev/null &";
        let log_file = dir.join(LOG);
        let init = dir.join(FIRST_PROGRAM);
        let init_sh = dir.join("init.sh");
        let image = self.image.join("containerd");
        let cni = self.cni;
        process::read(
            sh,
            cmd!(
                sh,
                "sh -c {script} sh {log_file} {init} {init_sh} {dir} {control_plane} {image} {cni}"
            ),
        )?;
        wait_for(
            || Ok(first_process(dir)?.is_some()),
            || Ok(!log(dir).is_empty()),
        )
        .with_context(|| format!("the node's first process does not start: {}", log(dir)))?;
        first_process(dir)?.with_context(|| format!("the node's first process ended: {}", log(dir)))
    }

    /// Makes the network link between the machine and the namespaces of this process.
    fn make_link(&self, sh: &Shell, pid: &str) -> Result<()> {
        let alias = self.owner.alias();
        for cmd in [
            cmd!(
                sh,
                "ip link add {LINK} type veth peer name eth0 netns {pid}"
            ),
            cmd!(sh, "ip link set {LINK} alias {alias}"),
            cmd!(sh, "ip address add 10.213.88.1/30 dev {LINK}"),
            cmd!(sh, "ip link set {LINK} up"),
        ] {
            process::read(sh, cmd)?;
        }
        Ok(())
    }
}

impl Owner {
    /// What the link's alias says.
    fn alias(&self) -> String {
        format!("{} {}", self.id, self.root)
    }

    /// The owner of the machine's real node, if it has one. It is empty while the link is being made.
    fn of_link() -> Option<Owner> {
        let file = Path::new("/sys/class/net").join(LINK).join("ifalias");
        let alias = fs::read_to_string(file).ok()?;
        let (id, root) = alias.trim_end().split_once(' ').unwrap_or_default();
        Some(Owner {
            id: id.to_owned(),
            root: root.to_owned(),
        })
    }
}

fn write_files(dir: &Path) -> Result<()> {
    for (name, content) in FILES {
        let file = dir.join(name);
        fs::create_dir_all(file.parent().expect("it lies in the cluster's folder"))?;
        fs::write(&file, content)?;
    }
    paths::make_executable(&dir.join("volume-plugins/xtask~folder/folder"))?;
    fs::create_dir(dir.join("logs"))?;
    Ok(())
}

/// Links the node's programs into the cluster's folder. Everything that belongs to the cluster is started by such a link,
/// and found again by it.
fn link_programs(sh: &Shell, dir: &Path) -> Result<()> {
    let bin = dir.join("bin");
    fs::create_dir(&bin)?;
    for name in PROGRAMS {
        std::os::unix::fs::symlink(programs::find(sh, name)?, bin.join(name))?;
    }
    Ok(())
}

/// The process that the node in this folder depends on.
fn first_process(dir: &Path) -> Result<Option<Pid>> {
    let start = format!("{} ", dir.join(FIRST_PROGRAM).display());
    Ok(processes::command_lines()?
        .into_iter()
        .find(|(_, command)| command.starts_with(&start))
        .map(|(pid, _)| pid))
}

/// What the first process wrote.
fn log(dir: &Path) -> String {
    let log = fs::read_to_string(dir.join(LOG)).unwrap_or_default();
    log.trim().to_owned()
}

/// Waits until one condition holds. An error if the other one does before, or neither does for 20 s.
fn wait_for(is_there: impl Fn() -> Result<bool>, failed: impl Fn() -> Result<bool>) -> Result<()> {
    let until = Until::after_in_any_case(Duration::from_secs(20));
    while !is_there()? {
        ensure!(!failed()? || is_there()?, "it failed");
        until.check("it")?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Where the folders of registries are. One that is left there belongs to a node that is gone: there is one at a time.
fn registries() -> Result<PathBuf> {
    Ok(paths::cache()?.join("registry"))
}

/// What the registry of the node in this folder holds.
pub(crate) fn storage(dir: &Path) -> Result<Storage> {
    let link = dir.join(REGISTRY);
    let folder =
        fs::read_link(&link).with_context(|| format!("cannot read `{}`", link.display()))?;
    Ok(Storage::at(&folder))
}

/// What the registry of the machine's one real node holds.
pub(crate) fn storage_of_machine() -> Result<Storage> {
    let owner = Owner::of_link().context("this machine has no real node")?;
    storage(&paths::in_memory()?.join(owner.id))
}

/// Removes what the kernel does not, once the processes of the node in this folder are gone.
pub(crate) fn clean_up(id: &str, dir: &Path) -> Result<()> {
    if let Ok(folder) = fs::read_link(dir.join(REGISTRY)) {
        paths::remove_dir(&folder)?;
    }
    let until = Until::after_in_any_case(Duration::from_secs(10));
    loop {
        match try_to_clean_up(id) {
            Err(err) if until.left().is_zero() => return Err(err),
            Err(_) => thread::sleep(Duration::from_millis(10)),
            Ok(()) => return Ok(()),
        }
    }
}

fn try_to_clean_up(id: &str) -> Result<()> {
    match Owner::of_link() {
        // A link without an alias was being made when its `up` was killed.
        Some(owner) if owner.id == id || owner.id.is_empty() => {
            bail!("the network link `{LINK}` is still there")
        }
        // The control groups are another node's now.
        Some(_) => Ok(()),
        None => remove_control_groups().context("cannot remove a control group"),
    }
}

/// All that a node is made from.
pub(crate) fn recipe() -> String {
    let files = FILES.iter().map(|(_, content)| *content);
    [CONFIG, OBJECTS]
        .into_iter()
        .chain(files)
        .collect::<String>()
        + &image::recipe()
}

/// The roots of the machine's control groups: one for each controller in version 1, a single one in version 2
/// (<https://docs.kernel.org/admin-guide/cgroup-v2.html>).
fn control_groups() -> Result<Vec<PathBuf>> {
    let top = Path::new(CONTROL_GROUPS);
    if is_control_group(top) {
        return Ok(vec![top.to_owned()]);
    }
    let mut roots = Vec::new();
    for entry in fs::read_dir(top).with_context(|| format!("cannot read `{CONTROL_GROUPS}`"))? {
        let entry = entry?;
        // Where two controllers share a folder, there are links beside it.
        if entry.file_type()?.is_dir() && is_control_group(&entry.path()) {
            roots.push(entry.path());
        }
    }
    Ok(roots)
}

fn is_control_group(dir: &Path) -> bool {
    dir.join("cgroup.procs").exists()
}

/// Makes the control group that kubelet wants to find, with the controllers that it uses.
fn make_control_groups() -> Result<()> {
    for root in control_groups()? {
        enable_controllers(&root);
        let group = root.join(CONTROL_GROUP);
        fs::create_dir_all(&group).with_context(|| format!("cannot make `{}`", group.display()))?;
    }
    Ok(())
}

/// On most machines systemd has done it. Where it cannot be done, kubelet says so.
fn enable_controllers(root: &Path) {
    let available = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace() {
        if ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"].contains(&controller) {
            let _ = fs::write(
                root.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
    }
}

fn remove_control_groups() -> Result<()> {
    for root in control_groups()? {
        remove_control_group(&root.join(CONTROL_GROUP))?;
    }
    Ok(())
}

/// Removes a control group and those in it: `rmdir` alone does, their files cannot be removed.
fn remove_control_group(group: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(group) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_control_group(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
