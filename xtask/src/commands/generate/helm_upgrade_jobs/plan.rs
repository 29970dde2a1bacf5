//! What a change makes redeploy, cluster by cluster.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use glob::Pattern;

use crate::{
    charts::source,
    commands::generate::{changed::Changed, jobs::Todo},
    machine::{paths, terminal::list},
    repository::cluster::{Cluster, Hub, Support},
    settings::Settings,
};

/// What is to be done on a cluster.
pub(crate) struct Upgrades<'a> {
    pub(crate) cluster: &'a Cluster,
    /// Why its support is upgraded, if it is.
    pub(crate) support: Option<String>,
    pub(crate) staging: Vec<Todo<'a>>,
    pub(crate) prod: Vec<Todo<'a>>,
}

/// Those of one pull request.
#[derive(Clone, Copy, Default)]
pub(crate) struct Labels {
    pub(crate) skip_deploy: bool,
    pub(crate) skip_deploy_hubs: bool,
    pub(crate) deploy_support: bool,
    pub(crate) deploy_hubs: bool,
}

/// The chart of what a cluster's hubs share.
pub(crate) const SUPPORT: &str = "helm-charts/support";

/// Of labels that are ours.
pub(crate) const PREFIX: &str = "deployer:";

/// What the jobs are for.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) for_support: Changed,
    pub(crate) for_hubs: Changed,
    pub(crate) deploy_support: bool,
    pub(crate) deploy_hubs: bool,
}

impl Change {
    pub(crate) fn add(&mut self, changed: &Changed, labels: Labels) {
        if !labels.skip_deploy {
            self.for_support.add(changed);
        }
        if !labels.skip_deploy_hubs {
            self.for_hubs.add(changed);
        }
        self.deploy_support |= labels.deploy_support;
        self.deploy_hubs |= labels.deploy_hubs;
    }
}

impl Labels {
    pub(crate) fn read(names: &[String]) -> Result<Labels> {
        let mut labels = Labels::default();
        for name in names {
            let Some(label) = name.strip_prefix(PREFIX) else {
                continue;
            };
            *match label {
                "skip-deploy" => &mut labels.skip_deploy,
                "skip-deploy-hubs" => &mut labels.skip_deploy_hubs,
                "deploy-support" => &mut labels.deploy_support,
                "deploy-hubs" => &mut labels.deploy_hubs,
                _ => {
                    let known = [
                        "skip-deploy",
                        "skip-deploy-hubs",
                        "deploy-support",
                        "deploy-hubs",
                    ];
                    let known = list(known.map(|it| format!("{PREFIX}{it}")));
                    bail!("there is no label `{name}`; there are: {known}")
                }
            } = true;
        }
        labels.skip_deploy_hubs |= labels.skip_deploy;
        labels.deploy_support &= !labels.skip_deploy;
        labels.deploy_hubs &= !labels.skip_deploy_hubs;
        Ok(labels)
    }
}

/// By cluster and hub.
pub(crate) fn plan<'a>(
    root: &Path,
    settings: &Settings,
    clusters: &'a [Cluster],
    change: &Change,
) -> Result<Vec<Upgrades<'a>>> {
    let links = &Links {
        root: root.canonicalize()?,
        folders: RefCell::default(),
    };
    let touched = |it| Touched::by(it, links, settings, clusters);
    let (for_support, for_hubs) = (touched(&change.for_support)?, touched(&change.for_hubs)?);
    let forced =
        |is_set: bool, name: &str| is_set.then(|| format!("{PREFIX}{name} label detected"));
    let mut plan = Vec::new();
    for cluster in clusters {
        let why = |it: &Support| {
            forced(change.deploy_support, "deploy-support")
                .or_else(|| for_support.support(cluster, it))
        };
        let support = cluster.support.as_ref().and_then(why);
        let why = |it: &Hub| {
            forced(change.deploy_hubs, "deploy-hubs").or_else(|| for_hubs.hub(cluster, it))
        };
        let todos = cluster.hubs.iter().filter_map(|hub| {
            Some(Todo {
                hub,
                reason: why(hub)?,
            })
        });
        let (staging, prod) = todos.partition(|it| it.hub.is_staging());
        let mut upgrades = Upgrades {
            cluster,
            support,
            staging,
            prod,
        };
        upgrades.add_gates();
        if upgrades.support.is_some() || !upgrades.staging.is_empty() || !upgrades.prod.is_empty() {
            plan.push(upgrades);
        }
    }
    Ok(plan)
}

/// What changed files are part of.
pub(crate) struct Touched<'a> {
    pub(crate) changed: &'a Changed,
    pub(crate) links: &'a Links,
    /// What all hubs are deployed with.
    pub(crate) core: bool,
    /// Folders from the root.
    pub(crate) charts: BTreeSet<PathBuf>,
}

impl<'a> Touched<'a> {
    pub(crate) fn by(
        changed: &'a Changed,
        links: &'a Links,
        settings: &Settings,
        clusters: &[Cluster],
    ) -> Result<Touched<'a>> {
        let root = &links.root;
        let patterns = settings.core_files.iter().map(|it| {
            Pattern::new(it)
                .with_context(|| format!("config/xtask.yaml: `core_files`: `{it}` is no pattern"))
        });
        let patterns = patterns.collect::<Result<Vec<_>>>()?;
        let core = changed
            .files()
            .any(|file| patterns.iter().any(|it| it.matches_path(file)));

        let all: BTreeSet<_> = clusters
            .iter()
            .flat_map(|it| &it.hubs)
            .map(Hub::chart)
            .collect();
        let mut charts = BTreeSet::new();
        for chart in all.into_iter().chain([PathBuf::from(SUPPORT)]) {
            let mut folders = source::folders(root, &chart)?;
            folders.extend(
                folders
                    .iter()
                    .filter_map(|it| links.end(it))
                    .collect::<Vec<_>>(),
            );
            if folders
                .iter()
                .any(|it| source::reads_any(root, it, changed.within(it)))
            {
                charts.insert(chart);
            }
        }
        Ok(Touched {
            changed,
            links,
            core,
            charts,
        })
    }

    /// Why a cluster's support is upgraded, if it is.
    pub(crate) fn support(&self, cluster: &Cluster, support: &Support) -> Option<String> {
        let chart = || {
            let is_changed = self.charts.contains(Path::new(SUPPORT));
            is_changed.then(|| "Support helm chart has been modified".to_owned())
        };
        let own = support
            .helm_chart_values_files
            .iter()
            .map(|it| cluster.dir.join(it));
        let values = || self.values(own.chain(Support::shared_values(&self.links.root)));
        self.cluster_yaml(cluster).or_else(chart).or_else(values)
    }

    /// Why a hub is redeployed, if it is.
    pub(crate) fn hub(&self, cluster: &Cluster, hub: &Hub) -> Option<String> {
        let core = self
            .core
            .then(|| "Core infrastructure has been modified".to_owned());
        core.or_else(|| self.cluster_yaml(cluster)).or_else(|| {
            let chart = hub.chart();
            let is_changed = self.charts.contains(&chart);
            let chart = is_changed
                .then(|| format!("Following helm chart was modified: {}", chart.display()));
            let files = hub
                .helm_chart_values_files
                .iter()
                .chain(&hub.domain_override_file);
            let values = self.values(files.map(|it| cluster.dir.join(it)));
            let both: Vec<_> = chart.into_iter().chain(values).collect();
            (!both.is_empty()).then(|| both.join("; "))
        })
    }

    pub(crate) fn cluster_yaml(&self, cluster: &Cluster) -> Option<String> {
        self.changed
            .has(&cluster.file())
            .then(|| match self.changed {
                Changed::Everything => "Nothing was deployed before".to_owned(),
                Changed::Files(_) => "cluster.yaml file was modified".to_owned(),
            })
    }

    /// Which of these values files changed, in a sentence.
    pub(crate) fn values(&self, files: impl Iterator<Item = PathBuf>) -> Option<String> {
        let files = files.map(|it| paths::lexical(&it)).filter(|file| {
            self.changed.has(file) || self.links.end(file).is_some_and(|it| self.changed.has(&it))
        });
        let names = files
            .filter_map(|it| Some(it.file_name()?.to_string_lossy().escape_debug().to_string()));
        let names: Vec<_> = names.collect::<BTreeSet<_>>().into_iter().collect();
        (!names.is_empty()).then(|| {
            format!(
                "Following helm chart values files were modified: {}",
                names.join(", ")
            )
        })
    }
}

/// What is elsewhere than its path says.
pub(crate) struct Links {
    /// As the file system has it.
    pub(crate) root: PathBuf,
    /// Where folders from the root are.
    pub(crate) folders: RefCell<BTreeMap<PathBuf, PathBuf>>,
}

impl Links {
    /// Where a file or folder of the root really is, if that's behind a link.
    pub(crate) fn end(&self, path: &Path) -> Option<PathBuf> {
        let (folder, name) = (path.parent()?, path.file_name()?);
        let mut folders = self.folders.borrow_mut();
        if !folders.contains_key(folder) {
            let real = self.root.join(folder).canonicalize().ok()?;
            folders.insert(folder.to_owned(), real);
        }
        let mut real = folders[folder].join(name);
        if real.is_symlink() {
            real = real.canonicalize().ok()?;
        }
        let real = paths::from(&self.root, &real);
        (real != path).then_some(real)
    }
}

impl Upgrades<'_> {
    /// The staging hubs that have to stand before the others are upgraded, too.
    pub(crate) fn add_gates(&mut self) {
        for gate in self.cluster.hubs.iter().filter(|it| it.is_staging()) {
            let waiting = self.prod.iter().filter(|it| it.hub.waits_for(gate));
            let waiting: Vec<_> = waiting.map(|it| it.hub.name.as_str()).collect();
            if !waiting.is_empty() && !self.staging.iter().any(|it| it.hub.name == gate.name) {
                let reason = format!(
                    "Following prod hubs require redeploy: {}",
                    waiting.join(", ")
                );
                self.staging.push(Todo { hub: gate, reason });
            }
        }
        self.staging.sort_by_key(|it| &it.hub.name);
    }
}
