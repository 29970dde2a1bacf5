//! Starts, stops and shows the rehearsal clusters of this checkout.

use std::process::ExitCode;

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{
    kubernetes::rehearsal::{Rehearsal, RehearsalState},
    machine::{terminal, tree::Tree},
    repository::cluster::{Cluster, Nodes},
};

/// Start, stop or show the rehearsal clusters of this checkout
///
/// There is one for each cluster with `provider: local`. Its Kubernetes API is real. Nodes and pods are simulated: a pod is
/// ready within a second, and runs nothing. With `up --real` there is one real node, and pods are containers.
#[derive(clap::Subcommand)]
pub enum Local {
    /// Start the clusters that are down, and print the paths of all kubeconfigs
    Up {
        /// Use a real node, so that pods are containers and people can use the hubs
        ///
        /// This needs Linux, root, and the system's containerd, runc, CNI plugins and iptables. An error names the packages
        /// that are missing. The first start builds the image for the hub, the proxy and users' servers. A machine can have
        /// only one such node, and its pods cannot reach the internet.
        #[arg(long)]
        real: bool,
    },
    /// Stop the clusters and delete everything in them
    Down,
    /// Show which clusters are up, and print the paths of their kubeconfigs
    Status,
    /// List the images that the real node can pull
    ///
    /// They are in its registry, under the names that registries elsewhere have for them, and without the names of those
    /// registries: `quay.io/jupyterhub/k8s-hub` is `jupyterhub/k8s-hub`. The sizes are those of a first pull.
    Images,
}

/// Does what the command says with each rehearsal cluster of the checkout.
pub fn local(sh: &Shell, tree: &Tree, command: &Local) -> Result<ExitCode> {
    let mut clusters = Cluster::usable(tree)?;
    clusters.retain(Cluster::is_local);
    if clusters.is_empty() {
        bail!("no cluster in `config/clusters/` has `provider: local`");
    }
    if matches!(command, Local::Images) {
        return images(tree, &clusters);
    }
    let mut text = String::new();
    let mut failures = Vec::new();
    for cluster in &clusters {
        match carry_out(sh, tree, command, cluster) {
            Ok(state) => text += &format!("{}: {state}\n", cluster.name),
            Err(err) => failures.push(format!("{err:#}")),
        }
    }
    terminal::print(&text)?;
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Does what the command says with one cluster, and returns the state that it is in then.
fn carry_out(sh: &Shell, tree: &Tree, command: &Local, cluster: &Cluster) -> Result<String> {
    let rehearsal = Rehearsal::of(tree.root(), cluster)?;
    let state = match command {
        Local::Up { real: true } => up(sh, &rehearsal, Nodes::Real)?,
        Local::Up { real: false } => {
            let nodes = rehearsal.asked.unwrap_or(Nodes::Simulated);
            up(sh, &rehearsal, nodes)?
        }
        Local::Down => {
            rehearsal.down()?;
            RehearsalState::Down
        }
        Local::Status | Local::Images => rehearsal.state()?,
    };
    Ok(match state {
        RehearsalState::Down => "down".to_owned(),
        RehearsalState::Broken(why) => format!("broken, {why}"),
        RehearsalState::Up(nodes) => {
            let kubeconfig = rehearsal.kubeconfig();
            format!("up on {nodes}, KUBECONFIG={}", kubeconfig.display())
        }
    })
}

fn up(sh: &Shell, rehearsal: &Rehearsal, nodes: Nodes) -> Result<RehearsalState> {
    Ok(RehearsalState::Up(rehearsal.up(sh, Some(nodes))?))
}

/// Prints what the registry of the machine's one real node holds, which belongs to one of these clusters.
fn images(tree: &Tree, clusters: &[Cluster]) -> Result<ExitCode> {
    for cluster in clusters {
        let rehearsal = Rehearsal::of(tree.root(), cluster)?;
        let Some(storage) = rehearsal.storage()? else {
            continue;
        };
        let mut rows = vec![["NAME", "TAG", "SIZE"].map(String::from).into()];
        for image in storage.images()? {
            let size = format!("{:.1} MB", image.size as f64 / 1e6);
            rows.push(vec![image.name, image.tag, size]);
        }
        terminal::print(&terminal::table(&rows))?;
        return Ok(ExitCode::SUCCESS);
    }
    bail!(
        "no rehearsal cluster of this checkout is up on a real node, which alone pulls images\n\
         hint: `cargo xtask local up --real`"
    );
}
