//! Finds the hubs and support charts that a change makes redeploy.

mod edits;
mod gitlab;
mod held;
mod images;
mod lists;
mod part;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{ArgGroup, ValueEnum};
use xshell::Shell;

use crate::{
    commands::generate::{
        changed::{ChangeSource, Changed, Step, refuse_unknown},
        helm_upgrade_jobs::{
            edits::EditFinder,
            held::Held,
            lists::lists,
            part::Part,
            plan::{Change, Labels, Plan, Upgrades, plan, release_names, sources},
        },
        jobs::{Table, as_json, clusters, names, reasons, tell_left_out},
    },
    machine::{
        terminal::{self, number_of},
        tree::Tree,
        workflow,
    },
    repository::{cluster::Cluster, cluster_yaml::UnusableCluster},
    services::github,
    settings::Settings,
};

/// List the hubs and support charts that have to be redeployed after a change
///
/// A hub is redeployed if there is a change in its values files, what they import in jsonnet, a folder that one of its `images`
/// is built from, its entry in cluster.yaml, what cluster.yaml says of logging in to the cluster, its chart, a chart that this depends on by `file://`, or one of the `core_files` of
/// config/xtask.yaml: the code that upgrades. Both versions of a cluster.yaml are compared, as far as git has them: given by a
/// list of files, it redeploys all of its cluster. Staging hubs are upgraded first: those that are redeployed themselves, and those that a redeployed production hub waits for. In a workflow the lists of
/// jobs become its outputs and variables, and comment-body.txt is written for the pull request.
///
/// A cluster whose cluster.yaml has problems is reported and has no jobs; those of the other clusters are printed, and the
/// exit status is 1. A pipeline of `--format gitlab` then has a job that fails.
#[derive(clap::Args)]
#[command(group = ArgGroup::new("change").required(true).args(["changed_filepaths", "base"]))]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask generate helm-upgrade-jobs --base main                            what merging this branch deploys\n\
\x20 cargo xtask generate helm-upgrade-jobs config/clusters/lake/prod.values.yaml  what one file deploys")]
pub struct HelmUpgradeJobs {
    #[command(flatten)]
    source: ChangeSource,
    /// Labels of the pull request, as a JSON list. `deployer:skip-deploy` and `deployer:skip-deploy-hubs` leave out what the
    /// pull request changes; `deployer:deploy-support` and `deployer:deploy-hubs` add the support charts or the hubs of all
    /// clusters. With `merged`, GitHub is asked for the labels of the pull request that brought each commit
    #[arg(long, value_name = "JSON", default_value = "[]")]
    labels: String,
    /// The branch that is deployed, or that a pull request is for. From `staging` only support charts and staging hubs are
    /// deployed, from `production` only the other hubs, as promote.yaml does
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
    /// How to print the jobs
    #[arg(long, default_value = "text")]
    format: JobsFormat,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum JobsFormat {
    /// Two tables
    Text,
    /// An object with the lists for the matrices of a GitHub workflow
    Json,
    /// A child pipeline of GitLab: see .gitlab-ci.yml
    Gitlab,
}

/// The arguments of the deployer's first version: paths separated by blanks.
#[derive(clap::Args)]
pub struct GenerateHelmUpgradeJobs {
    paths: Vec<String>,
}

pub(crate) fn helm_upgrade_jobs(
    sh: &Shell,
    tree: &Tree,
    args: &HelmUpgradeJobs,
) -> Result<ExitCode> {
    let given = given_labels(&args.labels)?;
    let clusters = clusters(tree)?;
    let all = args.source.by_release(sh, release_names(&clusters.0))?;
    let merged = match given {
        Some(_) => BTreeMap::new(),
        None => merged_labels(all.iter().flat_map(|it| &it.steps))?,
    };
    let steps = all.iter().flat_map(|it| &it.steps);
    let finder = EditFinder::new(sh, tree, &clusters.0, steps)?;
    let mut changes = Vec::new();
    for since in &all {
        let mut change = Change::of(since.releases.clone());
        for step in &since.steps {
            let commit = step.commit.as_deref();
            let of_commit = commit.and_then(|it| merged.get(it).copied());
            let labels = given.or(of_commit).unwrap_or_default();
            change.add(&step.changed, &finder.edits(step), labels);
        }
        changes.push(change);
    }
    let part = Part::of_branch(args.branch.as_deref());
    print(sh, tree, &clusters, &changes, part, args.format)
}

/// The labels in `--labels`; `None` for `merged`.
fn given_labels(labels: &str) -> Result<Option<Labels>> {
    if labels == "merged" {
        return Ok(None);
    }
    let names: Option<Vec<String>> = serde_json::from_str(labels)
        .with_context(|| format!("`--labels` must be a JSON list, not `{labels}`"))?;
    // A workflow without a pull request has `null`.
    Labels::read(&names.unwrap_or_default()).map(Some)
}

/// The labels of the pull requests that brought the commits of these steps. Wrong labels were an error in the pull request's
/// own workflow; here they are only a warning.
fn merged_labels<'a>(steps: impl Iterator<Item = &'a Step>) -> Result<BTreeMap<&'a str, Labels>> {
    let commits: BTreeSet<_> = steps.filter_map(|it| it.commit.as_deref()).collect();
    let commits: Vec<_> = commits.into_iter().collect();
    let names = github::labels(&commits)?;
    let labels = names.iter().map(|it| {
        Labels::read(it).unwrap_or_else(|err| {
            say!("{err:#}");
            Labels::default()
        })
    });
    Ok(commits.into_iter().zip(labels).collect())
}

/// Prints the jobs for these changed files.
pub fn generate_helm_upgrade_jobs(
    sh: &Shell,
    tree: &Tree,
    args: &GenerateHelmUpgradeJobs,
) -> Result<ExitCode> {
    let paths = args.paths.iter().flat_map(|it| it.split_whitespace());
    let changed = Changed::of(paths.map(PathBuf::from));
    refuse_unknown(sh, &changed)?;
    let clusters = clusters(tree)?;
    let mut change = Change::of(release_names(&clusters.0));
    let step = Step::of(changed);
    let finder = EditFinder::new(sh, tree, &clusters.0, [&step].into_iter())?;
    change.add(&step.changed, &finder.edits(&step), Labels::default());
    let part = Part::Everything;
    print(sh, tree, &clusters, &[change], part, JobsFormat::Text)
}

/// Prints the jobs for a change. In a GitHub workflow they are also its outputs, and comment-body.txt is written.
fn print(
    sh: &Shell,
    tree: &Tree,
    (clusters, unusable): &(Vec<Cluster>, Vec<UnusableCluster>),
    changes: &[Change],
    part: Part,
    format: JobsFormat,
) -> Result<ExitCode> {
    let settings = Settings::load(tree)?;
    let sources = sources(sh, tree, clusters)?;
    let plan = plan(tree, &settings, clusters, &sources, changes, part)?;
    // GitLab sets `CI` as well, and has none of GitHub's limits.
    let is_ci = env::var_os("CI").is_some_and(|it| !it.is_empty());
    if is_ci && format != JobsFormat::Gitlab {
        let lists = lists(&plan);
        workflow::set("GITHUB_OUTPUT", &lists)?;
        workflow::set("GITHUB_ENV", &lists[..2])?;
        fs::write("comment-body.txt", comment(&plan, part, unusable))
            .context("cannot write `comment-body.txt`")?;
    }
    terminal::print(&match format {
        JobsFormat::Gitlab => gitlab::pipeline(&plan, unusable)?,
        JobsFormat::Json => as_json(&lists(&plan))?,
        JobsFormat::Text => {
            let first = support_and_staging_table(&plan.upgrades).text();
            let second = prod_table(&plan.upgrades).text();
            let held = held_table(&plan.held);
            let held = held.map_or_else(String::new, |it| format!("\n{}", it.text()));
            format!("{first}\n{second}{held}")
        }
    })?;
    Ok(tell_left_out(tree, unusable))
}

/// A row for each cluster.
fn support_and_staging_table(plan: &[Upgrades]) -> Table<'static> {
    let rows = plan.iter().map(|upgrades| {
        let [provider, cluster] = provider_and_cluster(upgrades);
        vec![
            provider,
            cluster,
            yes_or_no(upgrades.support.is_some()),
            upgrades.support.clone().unwrap_or_default(),
            yes_or_no(!upgrades.staging.is_empty()),
            reasons(&upgrades.staging),
        ]
    });
    Table {
        title: "Support chart and Staging hub upgrades",
        head: &[
            "Cloud Provider",
            "Cluster Name",
            "Upgrade Support?",
            "Reason for Support Redeploy",
            "Upgrade Staging?",
            "Reason for Staging Redeploy",
        ],
        rows: rows.collect(),
        none: workflow::NOTHING[0],
    }
}

fn yes_or_no(is_upgraded: bool) -> String {
    if is_upgraded { "Yes" } else { "No" }.to_owned()
}

/// A row for each production hub.
fn prod_table(plan: &[Upgrades]) -> Table<'static> {
    let mut rows = Vec::new();
    for upgrades in plan {
        for todo in &upgrades.prod {
            let [provider, cluster] = provider_and_cluster(upgrades);
            rows.push(vec![
                provider,
                cluster,
                todo.hub.name.clone(),
                todo.reason.clone(),
            ]);
        }
    }
    table_of_prod(rows)
}

/// A row for each cluster, with the names of all its production hubs and the reason of the first one.
fn short_prod_table(plan: &[Upgrades]) -> Table<'static> {
    let mut rows = Vec::new();
    for upgrades in plan {
        if let Some(first) = upgrades.prod.first() {
            let [provider, cluster] = provider_and_cluster(upgrades);
            let hubs = names(&upgrades.prod).join(", ");
            rows.push(vec![provider, cluster, hubs, first.reason.clone()]);
        }
    }
    table_of_prod(rows)
}

fn table_of_prod(rows: Vec<Vec<String>>) -> Table<'static> {
    Table {
        title: "Prod hub upgrades",
        head: &[
            "Cloud Provider",
            "Cluster Name",
            "Hub Name",
            "Reason for Redeploy",
        ],
        rows,
        none: workflow::NOTHING[1],
    }
}

fn provider_and_cluster(upgrades: &Upgrades) -> [String; 2] {
    let cluster = upgrades.cluster;
    let provider = cluster.provider_name().unwrap_or_default();
    [provider.to_owned(), cluster.name.clone()]
}

/// A row for each support chart and each staging hub.
fn table_of_first_releases(plan: &[Upgrades]) -> Table<'static> {
    let mut rows = Vec::new();
    for upgrades in plan {
        let [provider, cluster] = provider_and_cluster(upgrades);
        let support = upgrades.support.iter().map(|reason| ("support", reason));
        let staging = upgrades.staging.iter();
        let staging = staging.map(|todo| (todo.hub.name.as_str(), &todo.reason));
        for (release, reason) in support.chain(staging) {
            let [provider, cluster] = [provider.clone(), cluster.clone()];
            rows.push(vec![provider, cluster, release.to_owned(), reason.clone()]);
        }
    }
    Table {
        title: "Support chart and Staging hub upgrades",
        head: &[
            "Cloud Provider",
            "Cluster Name",
            "Support or Hub Name",
            "Reason for Redeploy",
        ],
        rows,
        none: workflow::NOTHING[0],
    }
}

/// A row for each cluster and reason, if something is held.
fn held_table(held: &[Held]) -> Option<Table<'static>> {
    let rows: Vec<_> = held.iter().map(row_of_held).collect();
    (!rows.is_empty()).then_some(Table {
        title: "Held back",
        head: &[
            "Cloud Provider",
            "Cluster Name",
            "Support or Hub Names",
            "Reason",
        ],
        rows,
        none: "",
    })
}

fn row_of_held(held: &Held) -> Vec<String> {
    let provider = held.cluster.provider_name().unwrap_or_default();
    let releases = held.releases.join(", ");
    let cells = [provider, &held.cluster.name, &releases, &held.reason];
    cells.map(str::to_owned).to_vec()
}

/// The comment on a pull request. What is too long for GitHub is shortened to a row for each cluster, and then to a count.
fn comment(plan: &Plan, part: Part, unusable: &[UnusableCluster]) -> String {
    let upgrades = &plan.upgrades;
    let long = [table_of_first_releases(upgrades), prod_table(upgrades)];
    let shorter = [support_and_staging_table(upgrades), prod_table(upgrades)];
    let short = [
        support_and_staging_table(upgrades),
        short_prod_table(upgrades),
    ];
    let held = held_table(&plan.held).map_or_else(String::new, |it| markdown(&it));
    for [first, second] in [long, shorter, short] {
        let first = section(&first, part, true, &held);
        let second = section(&second, part, false, &held);
        let text = comment_of(unusable, &first, &second, &held);
        if text.len() <= workflow::LONGEST_PLAN {
            return text;
        }
    }
    let hubs: usize = upgrades
        .iter()
        .map(|it| it.staging.len() + it.prod.len())
        .sum();
    let clusters = upgrades.len();
    let count = format!("{hubs} hubs on {clusters} clusters: the run of this workflow lists them");
    let held = match plan.held.iter().map(|it| it.releases.len()).sum() {
        0 => String::new(),
        held => format!("{} in all", number_of(held, "release")),
    };
    comment_of(unusable, &count, &count, &held)
}

/// What the comment says of support charts and staging hubs, or else of production hubs.
fn section(table: &Table, part: Part, is_first: bool, held: &str) -> String {
    if !part.has(is_first) {
        let from = if is_first {
            "they were deployed from `staging`"
        } else {
            "a pull request to `production` does that"
        };
        return format!("{}: {from}", table.none);
    }
    if table.rows.is_empty() && !held.is_empty() {
        return "None for now".to_owned();
    }
    markdown(table)
}

fn comment_of(unusable: &[UnusableCluster], first: &str, second: &str, held: &str) -> String {
    let names: Vec<_> = unusable
        .iter()
        .map(|it| workflow::escaped(&it.name))
        .collect();
    let left_out = match names.join(", ") {
        names if names.is_empty() => names,
        names => format!(
            "### Left out\n\nNothing of these clusters is deployed, since their cluster.yaml has problems: {names}\n\n"
        ),
    };
    let held = match held {
        "" => String::new(),
        held => format!("\n### Held back\n\nThe first run afterwards deploys them.\n\n{held}\n"),
    };
    format!(
        "{}\nMerging this PR will trigger the following deployment actions.\n\n\
         {left_out}### Support and Staging deployments\n\n{first}\n\n### Production deployments\n\n{second}\n{held}",
        workflow::PLAN
    )
}

fn markdown(table: &Table) -> String {
    if table.rows.is_empty() {
        return table.none.to_owned();
    }
    let head = table.head.iter().map(|it| (*it).to_owned()).collect();
    let mut lines = vec![
        markdown_line(head),
        markdown_line(vec!["---".to_owned(); table.head.len()]),
    ];
    for row in &table.rows {
        let cells = row.iter().map(|cell| workflow::escaped(cell));
        lines.push(markdown_line(cells.collect()));
    }
    lines.join("\n")
}

fn markdown_line(cells: Vec<String>) -> String {
    format!("| {} |", cells.join(" | "))
}
