//! Which hubs and supports a change makes redeploy.

mod gitlab;
mod plan;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};
use xshell::Shell;

use crate::{
    commands::generate::{
        changed::{ChangeSource, Changed},
        helm_upgrade_jobs::plan::{Change, Labels, Upgrades, plan},
        jobs::{as_json, clusters, enough, jobs, names, reasons, shortened, table},
    },
    machine::{terminal, workflow},
    services::github,
    settings::Settings,
};

/// Which hubs and supports a change makes redeploy
///
/// A hub is redeployed if one of its values files or its cluster.yaml changed, its chart or one that this has by `file://`,
/// or the deployer itself (`core_files` in config/xtask.yaml). Staging hubs come first: those that changed, and those that a
/// changed hub waits for. In a workflow the lists of jobs become its outputs and variables, and comment-body.txt is written
/// for the pull request.
#[derive(clap::Args)]
pub struct HelmUpgradeJobs {
    #[command(flatten)]
    source: ChangeSource,
    /// The labels of the pull request, as a list in JSON: `deployer:skip-deploy` and `deployer:skip-deploy-hubs` leave out
    /// what it changes, `deployer:deploy-support` and `deployer:deploy-hubs` add those of all clusters. With `merged` each
    /// commit has those of the pull request that brought it, as GitHub has it
    #[arg(long, value_name = "JSON", default_value = "[]")]
    labels: String,
    #[arg(long, default_value = "text")]
    format: JobsFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum JobsFormat {
    /// Two tables
    Text,
    /// An object with the lists that a GitHub workflow's matrices take
    Json,
    /// A child pipeline of GitLab: see .gitlab-ci.yml
    Gitlab,
}

/// As the deployer's first version had it: paths separated by blanks.
#[derive(clap::Args)]
pub struct GenerateHelmUpgradeJobs {
    paths: Vec<String>,
}

pub(crate) fn helm_upgrade_jobs(sh: &Shell, root: &Path, args: &HelmUpgradeJobs) -> Result<()> {
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

/// Prints the jobs that these changed files make.
pub fn generate_helm_upgrade_jobs(root: &Path, args: &GenerateHelmUpgradeJobs) -> Result<ExitCode> {
    let paths = args
        .paths
        .iter()
        .flat_map(|it| it.split_whitespace())
        .map(PathBuf::from);
    let mut change = Change::default();
    change.add(&Changed::of(paths), Labels::default());
    show(root, &change, JobsFormat::Text)?;
    Ok(ExitCode::SUCCESS)
}

fn show(root: &Path, change: &Change, format: JobsFormat) -> Result<()> {
    let settings = Settings::load(root)?;
    let clusters = clusters(root)?;
    let plan = plan(root, &settings, &clusters, change)?;
    // GitLab sets it as well, and has none of GitHub's limits.
    let in_workflow =
        env::var_os("CI").is_some_and(|it| !it.is_empty()) && !matches!(format, JobsFormat::Gitlab);
    let lists = match in_workflow || matches!(format, JobsFormat::Json) {
        true => lists(&plan)?,
        false => Vec::new(),
    };
    if in_workflow {
        workflow::set("GITHUB_OUTPUT", &lists)?;
        workflow::set("GITHUB_ENV", &lists[..2])?;
        fs::write("comment-body.txt", comment(&plan)).context("cannot write `comment-body.txt`")?;
    }
    terminal::print(&match format {
        JobsFormat::Gitlab => gitlab::pipeline(&plan)?,
        JobsFormat::Json => as_json(&lists)?,
        JobsFormat::Text => {
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
const NO_SUPPORT_OR_STAGING: &str = workflow::NOTHING[0];
const NO_PROD: &str = workflow::NOTHING[1];

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
            workflow::PLAN
        )
    };
    let first = markdown(&FIRST_HEAD, &first, NO_SUPPORT_OR_STAGING);
    let text = whole(&first, &markdown(&SECOND_HEAD, &second, NO_PROD));
    if text.len() <= workflow::LONGEST_COMMENT {
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
    if text.len() <= workflow::LONGEST_COMMENT {
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
        .map(|it| it.iter().map(|it| workflow::escaped(it)).collect());
    head.into_iter()
        .chain(rows)
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}
