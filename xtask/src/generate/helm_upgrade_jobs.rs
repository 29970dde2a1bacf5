//! Which hubs and supports a change makes redeploy.

mod gitlab;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use glob::Pattern;
use serde_json::{Value, json};
use xshell::Shell;

use super::{
    Todo, as_json,
    changed::{Changed, Source},
    clusters, enough, jobs, names, reasons, shortened, table,
};
use crate::{
    charts,
    cluster::{Cluster, Hub, Support, list},
    github, paths,
    settings::Settings,
};

/// Which hubs and supports a change makes redeploy
///
/// A hub is redeployed if one of its values files or its cluster.yaml changed, its chart or one that this has by `file://`,
/// or the deployer itself (`core_files` in config/xtask.yaml). Staging hubs come first: those that changed, and those that a
/// changed hub waits for. In a workflow the lists of jobs become its outputs and variables, and comment-body.txt is written
/// for the pull request.
#[derive(clap::Args)]
pub(crate) struct HelmUpgradeJobs {
    #[command(flatten)]
    source: Source,
    /// The labels of the pull request, as a list in JSON: `deployer:skip-deploy` and `deployer:skip-deploy-hubs` leave out
    /// what it changes, `deployer:deploy-support` and `deployer:deploy-hubs` add those of all clusters. With `merged` each
    /// commit has those of the pull request that brought it, as GitHub has it
    #[arg(long, value_name = "JSON", default_value = "[]")]
    labels: String,
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Two tables
    Text,
    /// An object with the lists that a GitHub workflow's matrices take
    Json,
    /// A child pipeline of GitLab: see .gitlab-ci.yml
    Gitlab,
}

/// As the deployer's first version had it: paths separated by blanks.
#[derive(clap::Args)]
pub(crate) struct GenerateHelmUpgradeJobs {
    paths: Vec<String>,
}

/// What is to be done on a cluster.
struct Upgrades<'a> {
    cluster: &'a Cluster,
    /// Why its support is upgraded, if it is.
    support: Option<String>,
    staging: Vec<Todo<'a>>,
    prod: Vec<Todo<'a>>,
}

/// Those of one pull request.
#[derive(Clone, Copy, Default)]
struct Labels {
    skip_deploy: bool,
    skip_deploy_hubs: bool,
    deploy_support: bool,
    deploy_hubs: bool,
}

/// The chart of what a cluster's hubs share.
const SUPPORT: &str = "helm-charts/support";

/// Of labels that are ours.
const PREFIX: &str = "deployer:";

pub(super) fn helm_upgrade_jobs(sh: &Shell, root: &Path, args: &HelmUpgradeJobs) -> Result<()> {
    let given = match args.labels.as_str() {
        "merged" => None,
        labels => {
            let names: Option<Vec<String>> = serde_json::from_str(labels)
                .with_context(|| format!("`--labels` wants a list in JSON, not `{labels}`"))?;
            // A workflow without a pull request has `null`.
            Some(Labels::read(&names.unwrap_or_default())?)
        }
    };
    let mut change = Change::default();
    for step in args.source.steps(sh)? {
        let labels = match (given, &step.commit) {
            (Some(labels), _) => labels,
            (None, Some(commit)) => Labels::read(&github::labels(commit)?).unwrap_or_else(|err| {
                // Who merged it saw that in the plan.
                say!("{err:#}");
                Labels::default()
            }),
            (None, None) => Labels::default(),
        };
        change.add(&step.changed, labels);
    }
    show(root, &change, args.format)
}

pub(crate) fn generate_helm_upgrade_jobs(
    root: &Path,
    args: &GenerateHelmUpgradeJobs,
) -> Result<()> {
    let paths = args
        .paths
        .iter()
        .flat_map(|it| it.split_whitespace())
        .map(PathBuf::from);
    let mut change = Change::default();
    change.add(&Changed::of(paths), Labels::default());
    show(root, &change, Format::Text)
}

/// What the jobs are for.
#[derive(Default)]
struct Change {
    for_support: Changed,
    for_hubs: Changed,
    deploy_support: bool,
    deploy_hubs: bool,
}

impl Change {
    fn add(&mut self, changed: &Changed, labels: Labels) {
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

fn show(root: &Path, change: &Change, format: Format) -> Result<()> {
    let settings = Settings::load(root)?;
    let clusters = clusters(root)?;
    let plan = plan(root, &settings, &clusters, change)?;
    // GitLab sets it as well, and has none of GitHub's limits.
    let in_workflow =
        env::var_os("CI").is_some_and(|it| !it.is_empty()) && !matches!(format, Format::Gitlab);
    let lists = match in_workflow || matches!(format, Format::Json) {
        true => lists(&plan)?,
        false => Vec::new(),
    };
    if in_workflow {
        github::set("GITHUB_OUTPUT", &lists)?;
        github::set("GITHUB_ENV", &lists[..2])?;
        fs::write("comment-body.txt", comment(&plan)).context("cannot write `comment-body.txt`")?;
    }
    crate::print(&match format {
        Format::Gitlab => gitlab::pipeline(&plan)?,
        Format::Json => as_json(&lists)?,
        Format::Text => {
            let (first, second) = rows(&plan);
            table(
                "Support chart and Staging hub upgrades",
                &FIRST_HEAD,
                &first,
                NO_SUPPORT_OR_STAGING,
            ) + "\n"
                + &table("Prod hub upgrades", &SECOND_HEAD, &second, NO_PROD)
        }
    })
}

const FIRST_HEAD: [&str; 6] = [
    "Cloud Provider",
    "Cluster Name",
    "Upgrade Support?",
    "Reason for Support Redeploy",
    "Upgrade Staging?",
    "Reason for Staging Redeploy",
];
const SECOND_HEAD: [&str; 4] = [
    "Cloud Provider",
    "Cluster Name",
    "Hub Name",
    "Reason for Redeploy",
];
const NO_SUPPORT_OR_STAGING: &str = github::NOTHING[0];
const NO_PROD: &str = github::NOTHING[1];

impl Labels {
    fn read(names: &[String]) -> Result<Labels> {
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
fn plan<'a>(
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
struct Touched<'a> {
    changed: &'a Changed,
    links: &'a Links,
    /// What all hubs are deployed with.
    core: bool,
    /// Folders from the root.
    charts: BTreeSet<PathBuf>,
}

impl<'a> Touched<'a> {
    fn by(
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
            let mut folders = charts::folders(root, &chart)?;
            folders.extend(
                folders
                    .iter()
                    .filter_map(|it| links.end(it))
                    .collect::<Vec<_>>(),
            );
            if folders
                .iter()
                .any(|it| charts::reads_any(root, it, changed.within(it)))
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
    fn support(&self, cluster: &Cluster, support: &Support) -> Option<String> {
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
    fn hub(&self, cluster: &Cluster, hub: &Hub) -> Option<String> {
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

    fn cluster_yaml(&self, cluster: &Cluster) -> Option<String> {
        self.changed
            .has(&cluster.file())
            .then(|| match self.changed {
                Changed::Everything => "Nothing was deployed before".to_owned(),
                Changed::Files(_) => "cluster.yaml file was modified".to_owned(),
            })
    }

    /// Which of these values files changed, in a sentence.
    fn values(&self, files: impl Iterator<Item = PathBuf>) -> Option<String> {
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
struct Links {
    /// As the file system has it.
    root: PathBuf,
    /// Where folders from the root are.
    folders: RefCell<BTreeMap<PathBuf, PathBuf>>,
}

impl Links {
    /// Where a file or folder of the root really is, if that's behind a link.
    fn end(&self, path: &Path) -> Option<PathBuf> {
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
    fn add_gates(&mut self) {
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

/// What a workflow's matrices get, by name: first as the deployer's first version had it, then each kind of job by itself.
fn lists(plan: &[Upgrades]) -> Result<Vec<(&'static str, Value)>> {
    enough(plan.len())?;
    let both = plan.iter().map(|it| {
        json!({
            "cluster_name": it.cluster.name,
            "provider": it.cluster.provider_name(),
            "upgrade_support": it.support.is_some(),
            "reason_for_support_redeploy": it.support.as_deref().unwrap_or_default(),
            "upgrade_staging": !it.staging.is_empty(),
            "reason_for_staging_redeploy": shortened(&reasons(&it.staging), plan.len()),
            "staging_hubs": names(&it.staging),
        })
    });
    let supports = plan.iter().filter_map(|it| {
        let reason = it.support.as_ref()?;
        Some(json!({"cluster_name": it.cluster.name, "provider": it.cluster.provider_name(), "choice_reason": reason}))
    });
    let staging = || plan.iter().map(|it| (it.cluster, &it.staging[..]));
    let prod = || plan.iter().map(|it| (it.cluster, &it.prod[..]));
    Ok(vec![
        ("support-and-staging-matrix-jobs", both.collect()),
        ("prod-hub-matrix-jobs", jobs(prod(), "reason_for_redeploy")?),
        ("support-jobs", supports.collect()),
        ("staging-jobs", jobs(staging(), "choice_reason")?),
        ("prod-jobs", jobs(prod(), "choice_reason")?),
    ])
}

/// Those of both tables.
fn rows(plan: &[Upgrades]) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let yes = |it: bool| if it { "Yes" } else { "No" }.to_owned();
    let place = |it: &Upgrades| {
        [
            it.cluster.provider_name().unwrap_or_default().to_owned(),
            it.cluster.name.clone(),
        ]
    };
    let first = plan.iter().map(|it| {
        let support = [
            yes(it.support.is_some()),
            it.support.clone().unwrap_or_default(),
        ];
        let staging = [yes(!it.staging.is_empty()), reasons(&it.staging)];
        [place(it), support, staging].concat()
    });
    let second = plan.iter().flat_map(|it| {
        it.prod
            .iter()
            .map(move |todo| [place(it), [todo.hub.name.clone(), todo.reason.clone()]].concat())
    });
    (first.collect(), second.collect())
}

/// What a pull request's readers see.
fn comment(plan: &[Upgrades]) -> String {
    let (first, second) = rows(plan);
    let whole = |first: &str, second: &str| {
        format!(
            "{}\nMerging this PR will trigger the following deployment actions.\n\n\
             ### Support and Staging deployments\n\n{first}\n\n### Production deployments\n\n{second}\n",
            github::PLAN
        )
    };
    let first = markdown(&FIRST_HEAD, &first, NO_SUPPORT_OR_STAGING);
    let text = whole(&first, &markdown(&SECOND_HEAD, &second, NO_PROD));
    if text.len() <= github::LONGEST_COMMENT {
        return text;
    }
    // Too many for GitHub: a row for each cluster.
    let short = plan.iter().filter(|it| !it.prod.is_empty()).map(|it| {
        let (provider, cluster) = (
            it.cluster.provider_name().unwrap_or_default(),
            &it.cluster.name,
        );
        vec![
            provider.to_owned(),
            cluster.clone(),
            names(&it.prod).join(", "),
            it.prod[0].reason.clone(),
        ]
    });
    let text = whole(
        &first,
        &markdown(&SECOND_HEAD, &short.collect::<Vec<_>>(), NO_PROD),
    );
    if text.len() <= github::LONGEST_COMMENT {
        return text;
    }
    let hubs: usize = plan.iter().map(|it| it.staging.len() + it.prod.len()).sum();
    let all = format!(
        "{hubs} hubs on {} clusters: the run of this workflow lists them",
        plan.len()
    );
    whole(&all, &all)
}

fn markdown(head: &[&str], rows: &[Vec<String>], none: &str) -> String {
    if rows.is_empty() {
        return none.to_owned();
    }
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let head = [
        head.iter().map(|it| (*it).to_owned()).collect(),
        vec!["---".to_owned(); head.len()],
    ];
    let rows = rows
        .iter()
        .map(|it| it.iter().map(|it| github::escaped(it)).collect());
    head.into_iter()
        .chain(rows)
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}
