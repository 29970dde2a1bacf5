//! Turns hubploy's `deployments/*/hubploy.yaml` into cluster.yaml files: <https://github.com/berkeley-dsep-infra/hubploy>.
//!
//! Values files, keys and images stay where they are, so that hubploy can go on meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    commands::generate::from_hubploy::{
        cluster::{ClusterFile, write},
        deployment::Deployment,
        provider::Place,
    },
    machine::{
        terminal::{list, number_of},
        tree::Tree,
    },
};

mod cluster;
mod deployment;
mod images;
mod leftovers;
mod provider;

/// Turn hubploy's deployments into cluster.yaml files
///
/// For each cluster that a `deployments/*/hubploy.yaml` leads to, a `config/clusters/NAME/cluster.yaml` is written, with a
/// hub for each environment: `data8-staging`, as hubploy calls its release and its namespace. Values files, keys and
/// images stay where they are. What has no place in cluster.yaml is listed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask generate from-hubploy .    with deployments/ in the root of this repository")]
pub struct FromHubploy {
    /// The folder that has `deployments/`; it is in this repository
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// Overwrite cluster.yaml files that are there
    #[arg(long)]
    force: bool,
}

/// Writes the files, and says what they lack.
pub(crate) fn from_hubploy(tree: &Tree, args: &FromHubploy) -> Result<ExitCode> {
    let dir = from_root(tree, &args.dir)?;
    let deployments = deployments(tree, &dir)?;
    let files = cluster_files(tree, &dir, &deployments);
    if !args.force {
        refuse_existing(tree, &files)?;
    }
    for file in &files {
        write(tree, file)?;
        let hubs = number_of(file.hubs.len(), "hub");
        say!("wrote {}: {hubs}", file.path().display());
    }
    let mut left: Vec<_> = deployments.iter().flat_map(|it| &it.left).collect();
    left.extend(files.iter().flat_map(|it| &it.left));
    // Some are of all clusters.
    let mut told = BTreeSet::new();
    left.retain(|it| told.insert(*it));
    if !left.is_empty() {
        say!("\nleft for you:");
        for it in left {
            say!("- {it}");
        }
    }
    say!("{NEXT}");
    Ok(ExitCode::SUCCESS)
}

const NEXT: &str = "
next:
- `cargo xtask validate --fetch` checks the new files, and `cargo xtask status` shows what hubploy has deployed.
- The first merge redeploys every hub, unless its pull request has the label `deployer:skip-deploy`.
- Health checks log in as a service: give hubs `jupyterhub.hub.services.hub-health.admin: true` in their values, or run
  `deploy --skip-hub-health-check` until they have it.
- `deploy` upgrades hubploy's releases where they are. If hubploy's workflows go on beside, each of the two replaces what
  the other one has deployed: disable them before you merge.";

/// A folder by its path from the root. An error if it is outside of the repository.
fn from_root(tree: &Tree, dir: &Path) -> Result<PathBuf> {
    let shown = dir.display();
    let real = env::current_dir()?.join(dir).canonicalize();
    let real = real.with_context(|| format!("cannot open `{shown}`"))?;
    let root = tree.root().canonicalize()?;
    let from_root = real.strip_prefix(&root).ok().with_context(|| {
        format!(
            "`{shown}` is not in `{}`, and cluster.yaml names only files of its own repository\n\
             hint: copy `deployments/`, the chart and the images there first",
            root.display()
        )
    })?;
    Ok(from_root.to_owned())
}

/// The deployments in a folder, sorted. The error has all that is wrong with them.
fn deployments(tree: &Tree, dir: &Path) -> Result<Vec<Deployment>> {
    let folder = dir.join("deployments");
    let shown = folder.display();
    let names = tree.children(&folder);
    let names = names.with_context(|| format!("cannot look through `{shown}`"))?;
    let mut deployments = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        let Some(name) = name.to_str() else { continue };
        match Deployment::read(tree, dir, name) {
            Ok(deployment) => deployments.extend(deployment),
            Err(err) => problems.push(format!("{err:#}")),
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    ensure!(
        !deployments.is_empty(),
        "no folder in `{shown}` has a `hubploy.yaml`"
    );
    Ok(deployments)
}

/// One file for each cluster that deployments lead to, sorted by name.
fn cluster_files(tree: &Tree, dir: &Path, deployments: &[Deployment]) -> Vec<ClusterFile> {
    let mut by_place: BTreeMap<&Place, Vec<&Deployment>> = BTreeMap::new();
    for deployment in deployments {
        let of_place = by_place.entry(&deployment.place).or_default();
        of_place.push(deployment);
    }
    let named = by_place.iter();
    let names: Vec<_> = named
        .map(|(place, on_it)| place.name(&on_it[0].name))
        .collect();
    let mut files = Vec::new();
    for ((place, deployments), name) in by_place.into_iter().zip(&names) {
        let is_shared = names.iter().filter(|it| *it == name).count() > 1;
        let name = if is_shared {
            place.long_name(&deployments[0].name)
        } else {
            name.clone()
        };
        files.push(ClusterFile::new(tree, dir, name, place, &deployments));
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

fn refuse_existing(tree: &Tree, files: &[ClusterFile]) -> Result<()> {
    let existing = files.iter().map(ClusterFile::path);
    let existing: Vec<_> = existing.filter(|it| tree.is_file(it)).collect();
    if existing.is_empty() {
        return Ok(());
    }
    bail!(
        "there is already {}\nhint: `--force` overwrites it",
        list(existing.iter().map(|it| it.display()))
    );
}
