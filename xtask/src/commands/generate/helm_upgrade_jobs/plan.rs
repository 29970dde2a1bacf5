//! Plans what a change makes redeploy, cluster by cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use glob::Pattern;
use xshell::Shell;

use crate::{
    charts::{ChartPath, source},
    commands::generate::{
        changed::Changed,
        helm_upgrade_jobs::{
            edits::Edits,
            held::{Held, Holding},
            images::Images,
            part::Part,
        },
        jobs::Todo,
    },
    machine::{terminal::list, tree::Tree},
    repository::{
        cluster::{Cluster, Hub, OwnImage, Paused, SHARED, Support},
        freezes,
        jsonnet::AllSources,
        release_config::{ReleaseConfig, SUPPORT_CHART},
    },
    services::deployments::ReleaseName,
    settings::{Settings, freeze::Freeze},
};

/// The release of a support chart.
pub(crate) const SUPPORT: &str = SHARED[0];

/// What is upgraded on a cluster.
pub(crate) struct Upgrades<'a> {
    pub(crate) cluster: &'a Cluster,
    /// Why its support chart is upgraded, if it is.
    pub(crate) support: Option<String>,
    pub(crate) staging: Vec<Todo<'a>>,
    pub(crate) prod: Vec<Todo<'a>>,
    /// The names of the releases that a label lets through a freeze.
    pub(crate) past_freeze: BTreeSet<&'a str>,
}

/// What is upgraded, and what would be if nothing held it.
pub(crate) struct Plan<'a> {
    /// Of each cluster on which something is upgraded.
    pub(crate) upgrades: Vec<Upgrades<'a>>,
    pub(crate) held: Vec<Held<'a>>,
    /// What has to be built before, unless it is there already.
    pub(crate) images: Images<'a>,
    /// The images whose folders changed, also those of hubs that are held.
    pub(crate) changed_images: Images<'a>,
}

/// What the labels of one pull request ask for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Labels {
    pub(crate) skip_deploy: bool,
    pub(crate) skip_deploy_hubs: bool,
    pub(crate) deploy_support: bool,
    pub(crate) deploy_hubs: bool,
    pub(crate) ignore_freeze: bool,
}

/// The beginning of the labels that are ours.
const PREFIX: &str = "deployer:";

const LABELS: [&str; 5] = [
    "skip-deploy",
    "skip-deploy-hubs",
    "deploy-support",
    "deploy-hubs",
    "ignore-freeze",
];

/// Why a freeze is ignored.
pub(crate) const IGNORE_FREEZE: &str = "label deployer:ignore-freeze";

/// The change that jobs of some releases are made for: it begins where they were deployed last.
#[derive(Default)]
pub(crate) struct Change<'a> {
    releases: Vec<ReleaseName<'a>>,
    /// What upgrades support charts.
    for_support: ChangedParts,
    /// What redeploys hubs.
    for_hubs: ChangedParts,
    /// Whether all support charts are upgraded.
    deploy_support: bool,
    /// Whether all hubs are redeployed.
    deploy_hubs: bool,
    /// What of it a freeze does not hold.
    past_freeze: Option<Box<Change<'a>>>,
}

/// The files that changed, and what of each cluster.yaml.
#[derive(Default)]
struct ChangedParts {
    files: Changed,
    edits: Edits,
}

impl ChangedParts {
    fn add(&mut self, files: &Changed, edits: &Edits) {
        self.files.add(files);
        for (file, parts) in edits {
            let known = self.edits.entry(file.clone()).or_default();
            known.extend(parts.iter().cloned());
        }
    }
}

impl<'a> Change<'a> {
    /// One of these releases, without any files so far.
    pub(crate) fn of(releases: Vec<ReleaseName<'a>>) -> Change<'a> {
        Change {
            releases,
            ..Change::default()
        }
    }

    /// Adds what was changed in a pull request with these labels.
    pub(crate) fn add(&mut self, files: &Changed, edits: &Edits, labels: Labels) {
        if !labels.skip_deploy {
            self.for_support.add(files, edits);
        }
        if !labels.skip_deploy_hubs {
            self.for_hubs.add(files, edits);
        }
        self.deploy_support |= labels.deploy_support;
        self.deploy_hubs |= labels.deploy_hubs;
        if labels.ignore_freeze {
            let releases = self.releases.clone();
            let new = || Box::new(Change::of(releases));
            let past_freeze = self.past_freeze.get_or_insert_with(new);
            let labels = Labels {
                ignore_freeze: false,
                ..labels
            };
            past_freeze.add(files, edits, labels);
        }
    }
}

impl Labels {
    /// An error if one of the names begins as our labels do, but is none of them.
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
                "ignore-freeze" => &mut labels.ignore_freeze,
                _ => bail!(
                    "there is no label `{name}`; there are: {}",
                    list(LABELS.map(|it| format!("{PREFIX}{it}")))
                ),
            } = true;
        }
        labels.skip_deploy_hubs |= labels.skip_deploy;
        labels.deploy_support &= !labels.skip_deploy;
        labels.deploy_hubs &= !labels.skip_deploy_hubs;
        Ok(labels)
    }
}

/// What the values of all releases of these clusters are made from in jsonnet.
pub(crate) fn sources(sh: &Shell, tree: &Tree, clusters: &[Cluster]) -> Result<AllSources> {
    let releases = clusters.iter().flat_map(|cluster| {
        let hubs = cluster.hubs.iter();
        let hubs = hubs.map(|hub| ReleaseConfig::of_hub(tree, cluster, hub));
        hubs.chain(ReleaseConfig::of_support(tree, cluster))
    });
    let releases: Vec<_> = releases.collect();
    AllSources::find(sh, tree, &releases)
}

/// The names of all releases of these clusters.
pub(crate) fn release_names(clusters: &[Cluster]) -> Vec<ReleaseName<'_>> {
    let mut names = Vec::new();
    for cluster in clusters {
        let hubs = cluster.hubs.iter();
        let hubs = hubs.map(|hub| (hub.name.as_str(), hub.is_staging()));
        let support = cluster.support.iter().map(|_| (SUPPORT, true));
        names.extend(support.chain(hubs).map(|(release, is_first)| ReleaseName {
            cluster: &cluster.name,
            release,
            is_first,
        }));
    }
    names
}

/// What is upgraded on clusters, in the order of `clusters`, as far as it belongs to that part. Each release is in one of the
/// `changes`.
pub(crate) fn plan<'a>(
    tree: &Tree,
    settings: &Settings,
    clusters: &'a [Cluster],
    sources: &AllSources,
    changes: &[Change],
    part: Part,
) -> Result<Plan<'a>> {
    freezes::refuse_unknown(tree, settings)?;
    let charts = &all_charts(clusters);
    let core = &core_patterns(settings)?;
    let find = |change| Reasons::find(tree, core, charts, sources, change);
    let all: Vec<_> = changes.iter().map(find).collect();
    let past_freeze = changes.iter().filter_map(|it| it.past_freeze.as_deref());
    let past_freeze: Vec<_> = past_freeze.map(find).collect();
    let all = by_release(&all);
    let past_freeze = by_release(&past_freeze);
    let mut plan = Plan {
        upgrades: Vec::new(),
        held: Vec::new(),
        images: Images::default(),
        changed_images: Images::default(),
    };
    for cluster in clusters {
        let mut upgrades = Upgrades::of(cluster, &all, part);
        let freeze = settings.freeze_of(&cluster.name);
        if freeze.is_some() {
            upgrades.past_freeze = Upgrades::of(cluster, &past_freeze, part).names();
        }
        plan.held.extend(upgrades.hold(freeze));
        // Production has the images that were built for the branch `staging`.
        if part != Part::Production {
            add_changed(&mut plan.changed_images, cluster, &all);
            upgrades.add_gates();
            plan.images.add_all(cluster, upgrades.hubs());
        }
        if part == Part::SupportAndStaging {
            let later = Upgrades::of(cluster, &all, Part::Production);
            plan.images.add_all(cluster, later.hubs());
        }
        if !upgrades.is_empty() {
            plan.upgrades.push(upgrades);
        }
    }
    Ok(plan)
}

/// Adds the images of a cluster's hubs whose folders changed.
fn add_changed<'a>(images: &mut Images<'a>, cluster: &'a Cluster, reasons: &ByRelease) {
    for hub in &cluster.hubs {
        let reasons = reasons.get(&(cluster.name.as_str(), hub.name.as_str()));
        let is_changed = |image: &OwnImage| reasons.is_some_and(|it| it.for_hubs.has_image(image));
        let changed = hub.images.iter().filter(|it| is_changed(it));
        changed.for_each(|it| images.add(cluster, hub, it));
    }
}

/// Why releases are upgraded by a change.
struct Reasons<'a> {
    change: &'a Change<'a>,
    for_support: Touched<'a>,
    for_hubs: Touched<'a>,
}

impl<'a> Reasons<'a> {
    fn find(
        tree: &'a Tree,
        core: &[Pattern],
        charts: &BTreeSet<ChartPath>,
        sources: &'a AllSources,
        change: &'a Change<'a>,
    ) -> Reasons<'a> {
        let find = |changed| Touched::find(changed, tree, core, charts, sources);
        Reasons {
            change,
            for_support: find(&change.for_support),
            for_hubs: find(&change.for_hubs),
        }
    }

    /// Why a cluster's support chart is upgraded, if it is.
    fn of_support(&self, cluster: &Cluster) -> Option<String> {
        let support = cluster.support.as_ref()?;
        forced(self.change.deploy_support, "deploy-support")
            .or_else(|| self.for_support.support(cluster, support))
    }

    /// Why a hub is redeployed, if it is.
    fn of_hub(&self, cluster: &Cluster, hub: &Hub) -> Option<String> {
        forced(self.change.deploy_hubs, "deploy-hubs").or_else(|| self.for_hubs.hub(cluster, hub))
    }
}

/// The reasons by the names of a cluster and of its release.
type ByRelease<'a> = BTreeMap<(&'a str, &'a str), &'a Reasons<'a>>;

fn by_release<'a>(all: &'a [Reasons<'a>]) -> ByRelease<'a> {
    let mut by_release = BTreeMap::new();
    for reasons in all {
        let releases = reasons.change.releases.iter();
        by_release.extend(releases.map(|it| ((it.cluster, it.release), reasons)));
    }
    by_release
}

/// The reason that a label gives.
fn forced(is_set: bool, label: &str) -> Option<String> {
    is_set.then(|| format!("{PREFIX}{label} label detected"))
}

/// What changed files belong to.
struct Touched<'a> {
    changed: &'a Changed,
    edits: &'a Edits,
    tree: &'a Tree,
    sources: &'a AllSources,
    /// Whether one is of `core_files`, with which all hubs are deployed.
    core: bool,
    /// The charts that a file belongs to.
    charts: BTreeSet<ChartPath>,
}

impl<'a> Touched<'a> {
    fn find(
        parts: &'a ChangedParts,
        tree: &'a Tree,
        core: &[Pattern],
        charts: &BTreeSet<ChartPath>,
        sources: &'a AllSources,
    ) -> Touched<'a> {
        let changed = &parts.files;
        let mut files = changed.files();
        let overrides = charts.iter().filter_map(own_override).collect();
        let changed_charts = charts.iter();
        let changed_charts = changed_charts.filter(|it| is_changed(it, &overrides, changed, tree));
        Touched {
            changed,
            edits: &parts.edits,
            tree,
            sources,
            core: files.any(|file| core.iter().any(|it| it.matches_path(file))),
            charts: changed_charts.cloned().collect(),
        }
    }

    /// Why a cluster's support chart is upgraded, if it is.
    fn support(&self, cluster: &Cluster, support: &Support) -> Option<String> {
        if let Some(reason) = self.cluster_yaml(cluster, None) {
            return Some(reason);
        }
        if self.charts.contains(&ChartPath::of(SUPPORT_CHART)) {
            return Some("Support helm chart has been modified".to_owned());
        }
        let shared = Support::shared_values(self.tree);
        let files: Vec<_> = support
            .helm_chart_values_files
            .iter()
            .chain(&shared)
            .collect();
        self.values(&files)
            .or_else(|| self.imports(cluster, None, &files))
    }

    /// Why a hub is redeployed, if it is.
    fn hub(&self, cluster: &Cluster, hub: &Hub) -> Option<String> {
        if self.core {
            return Some("Core infrastructure has been modified".to_owned());
        }
        if let Some(reason) = self.cluster_yaml(cluster, Some(&hub.name)) {
            return Some(reason);
        }
        let mut reasons = Vec::new();
        let chart = cluster.chart(hub);
        if self.charts.contains(&chart) {
            let folder = chart.folder.display();
            reasons.push(format!("Following helm chart was modified: {folder}"));
        }
        if let Some(file) = &chart.chart_override
            && self.has(file)
        {
            let file = file.display().to_string();
            let file = file.escape_debug();
            reasons.push(format!("Following chart override was modified: {file}"));
        }
        reasons.extend(self.images(hub));
        let files = hub.helm_chart_values_files.iter();
        let files: Vec<_> = files.chain(&hub.domain_override_file).collect();
        reasons.extend(self.values(&files));
        if reasons.is_empty() {
            reasons.extend(self.imports(cluster, Some(hub), &files));
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Why a hub, or `support` without one, is upgraded for its cluster.yaml, if it is.
    fn cluster_yaml(&self, cluster: &Cluster, hub: Option<&str>) -> Option<String> {
        if matches!(self.changed, Changed::Everything) {
            return Some("Nothing was deployed before".to_owned());
        }
        let parts = self.edits.get(&cluster.file())?;
        parts.iter().find_map(|it| it.reason(hub))
    }

    /// Which folders changed that the hub's own images are built from, as a reason.
    fn images(&self, hub: &Hub) -> Option<String> {
        let changed = hub.images.iter().filter(|it| self.has_image(it));
        let folders: BTreeSet<_> = changed
            .map(|it| it.path.to_string_lossy().escape_debug().to_string())
            .collect();
        let folders: Vec<_> = folders.into_iter().collect();
        (!folders.is_empty()).then(|| {
            let folders = folders.join(", ");
            format!("Following image folders were modified: {folders}")
        })
    }

    /// Whether something changed in the folder that an image is built from, or a link on the way to it.
    fn has_image(&self, image: &OwnImage) -> bool {
        let way = self.tree.way(&image.path);
        way.iter()
            .any(|it| self.changed.has(it) || self.changed.within(it).next().is_some())
    }

    /// Which of these values files changed, as a reason.
    fn values(&self, files: &[&PathBuf]) -> Option<String> {
        let names = self.names(files.iter().copied())?;
        Some(format!(
            "Following helm chart values files were modified: {names}"
        ))
    }

    /// Which files that values in jsonnet are made from changed, apart from those that are listed, as a reason.
    fn imports(&self, cluster: &Cluster, hub: Option<&Hub>, listed: &[&PathBuf]) -> Option<String> {
        let sources = self.sources.of(cluster, hub);
        let names = self.names(sources.filter(|it| !listed.contains(it)))?;
        Some(format!(
            "Following files that values in jsonnet come from were modified: {names}"
        ))
    }

    /// The names of those of these files that changed; none if no file did.
    fn names<'b>(&self, files: impl Iterator<Item = &'b PathBuf>) -> Option<String> {
        let changed = files.filter(|it| self.has(it));
        let names: BTreeSet<_> = changed
            .filter_map(|it| Some(it.file_name()?.to_string_lossy().escape_debug().to_string()))
            .collect();
        let names: Vec<_> = names.into_iter().collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Whether a file changed, or any link on the way to it.
    fn has(&self, file: &Path) -> bool {
        let way = self.tree.way(file);
        way.iter().any(|it| self.changed.has(it))
    }
}

/// The charts of all hubs, and that of what they share.
fn all_charts(clusters: &[Cluster]) -> BTreeSet<ChartPath> {
    let mut charts = BTreeSet::from([ChartPath::of(SUPPORT_CHART)]);
    for cluster in clusters {
        charts.extend(cluster.hubs.iter().map(|it| cluster.chart(it)));
    }
    charts
}

fn core_patterns(settings: &Settings) -> Result<Vec<Pattern>> {
    let patterns = settings.core_files.iter().map(|it| {
        Pattern::new(it).with_context(|| {
            format!("config/xtask.yaml: `core_files`: `{it}` is not a valid pattern")
        })
    });
    patterns.collect()
}

/// The file that replaces a Chart.yaml for some hubs, and is none to the others.
fn own_override(chart: &ChartPath) -> Option<PathBuf> {
    let file = chart.chart_override.clone();
    file.filter(|it| !it.ends_with("Chart.yaml"))
}

/// Whether a file changed that a chart is read from, also of charts that it depends on by `file://`. One of the `overrides`
/// may lie there, too, and is no part of it.
fn is_changed(
    chart: &ChartPath,
    overrides: &BTreeSet<PathBuf>,
    changed: &Changed,
    tree: &Tree,
) -> bool {
    let folders = source::folders(tree, chart);
    let ways: BTreeSet<_> = folders.iter().flat_map(|it| tree.way(it)).collect();
    ways.iter().any(|folder| {
        let files = changed.within(folder);
        let files = files.filter(|file| !overrides.contains(&folder.join(file)));
        source::reads_any(tree, folder, files)
    })
}

impl<'a> Upgrades<'a> {
    /// What is to be upgraded on a cluster, as far as it belongs to that part.
    fn of<'b>(cluster: &'a Cluster, reasons: &ByRelease<'b>, part: Part) -> Upgrades<'a>
    where
        'a: 'b,
    {
        let reasons = |release: &'a str| reasons.get(&(cluster.name.as_str(), release));
        let hubs = cluster.hubs.iter().filter(|it| part.has(it.is_staging()));
        let todos = hubs.filter_map(|hub| {
            let reason = reasons(&hub.name)?.of_hub(cluster, hub)?;
            Some(Todo { hub, reason })
        });
        let (staging, prod) = todos.partition(|it| it.hub.is_staging());
        let support = reasons(SUPPORT).and_then(|it| it.of_support(cluster));
        Upgrades {
            cluster,
            support: support.filter(|_| part.has(true)),
            staging,
            prod,
            past_freeze: BTreeSet::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.support.is_none() && self.staging.is_empty() && self.prod.is_empty()
    }

    /// Takes out what is paused, and what of the rest a freeze holds.
    fn hold(&mut self, freeze: Option<&Freeze>) -> Vec<Held<'a>> {
        let cluster = self.cluster;
        let mut holding = Holding::of(cluster);
        let pause = cluster.pause().map(Paused::shown);
        let freeze = freeze.map(Freeze::shown);
        let past_freeze = &self.past_freeze;
        let frozen = |name: &str| freeze.clone().filter(|_| !past_freeze.contains(name));
        if self.support.is_some()
            && let Some(reason) = pause.or_else(|| frozen(SUPPORT))
        {
            holding.add(SUPPORT, reason);
            self.support = None;
        }
        let paused = |todo: &Todo| cluster.pause_of(todo.hub).map(Paused::shown);
        self.staging.retain(|it| holding.keeps(it, paused(it)));
        self.prod
            .retain(|it| holding.keeps(it, paused(it).or_else(|| frozen(&it.hub.name))));
        holding.held
    }

    fn hubs(&self) -> impl Iterator<Item = &'a Hub> {
        self.staging.iter().chain(&self.prod).map(|it| it.hub)
    }

    /// The names of its releases.
    fn names(&self) -> BTreeSet<&'a str> {
        let support = self.support.iter().map(|_| SUPPORT);
        let hubs = self.hubs().map(|it| it.name.as_str());
        hubs.chain(support).collect()
    }

    /// Adds the staging hubs that are not redeployed themselves, but that must be ready before a production hub is upgraded.
    fn add_gates(&mut self) {
        for gate in self.cluster.hubs.iter().filter(|it| it.is_staging()) {
            if self.staging.iter().any(|it| it.hub.name == gate.name) {
                continue;
            }
            let waiting = self.prod.iter().filter(|it| it.hub.waits_for(gate));
            let waiting: Vec<_> = waiting.map(|it| it.hub.name.as_str()).collect();
            if !waiting.is_empty() {
                let waiting = waiting.join(", ");
                let reason = format!("Following prod hubs require redeploy: {waiting}");
                self.staging.push(Todo { hub: gate, reason });
            }
        }
        self.staging.sort_by_key(|it| &it.hub.name);
    }
}
