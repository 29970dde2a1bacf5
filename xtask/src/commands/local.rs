//! The rehearsal clusters of this checkout.

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{
    kubernetes::rehearsal::{Rehearsal, RehearsalState},
    machine::terminal,
    repository::{
        cluster::{Cluster, Nodes},
        cluster_yaml,
    },
};

/// Start, stop or look at the rehearsal clusters of this checkout
///
/// There is one for each cluster with `provider: local`. The Kubernetes API is real. Nodes and pods are simulated: a
/// pod is ready within a second and runs nothing. With `--real` there is one real node, and pods are containers.
#[derive(clap::Subcommand)]
pub enum Local {
    /// Bring them up, where they aren't, and print the paths of their kubeconfigs
    Up {
        /// On a real node, where pods are containers and people can use the hubs
        ///
        /// This needs Linux, root, and from the system containerd, runc, CNI plugins and iptables: an error names the
        /// packages of what is missing. The first time it builds the image of hub, proxy and users' servers. One such
        /// node fits on a machine, and pods on it don't reach the internet.
        #[arg(long)]
        real: bool,
    },
    /// Take them down, with all that is in them
    Down,
    /// Tell which are up, and print the paths of their kubeconfigs
    Status,
}

/// Does what the command says to each rehearsal cluster of the checkout.
pub fn local(sh: &Shell, root: &Path, command: &Local) -> Result<ExitCode> {
    let clusters = cluster_yaml::local_clusters(root)?;
    if clusters.is_empty() {
        bail!("no cluster in `config/clusters/` has `provider: local`");
    }
    let mut text = String::new();
    let mut failures = Vec::new();
    for cluster in &clusters {
        match one(sh, root, command, cluster) {
            Ok(line) => text += &format!("{}: {line}\n", cluster.name),
            Err(err) => failures.push(format!("{err:#}")),
        }
    }
    if !failures.is_empty() {
        terminal::print(&text)?;
        bail!("{}", failures.join("\n"));
    }
    terminal::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Does what the command says to one cluster, and tells what became of it.
fn one(sh: &Shell, root: &Path, command: &Local, cluster: &Cluster) -> Result<String> {
    let rehearsal = Rehearsal::of(root, cluster)?;
    let state = match command {
        Local::Up { real } => {
            let nodes = if *real {
                Nodes::Real
            } else {
                rehearsal.asked.unwrap_or(Nodes::Simulated)
            };
            RehearsalState::Up(rehearsal.up(sh, Some(nodes))?)
        }
        Local::Down => {
            rehearsal.down()?;
            RehearsalState::Down
        }
        Local::Status => rehearsal.state()?,
    };
    Ok(match state {
        RehearsalState::Down => "down".to_owned(),
        RehearsalState::Broken(why) => format!("broken, {why}"),
        RehearsalState::Up(nodes) => format!(
            "up on {nodes}, KUBECONFIG={}",
            rehearsal.kubeconfig().display()
        ),
    })
}
