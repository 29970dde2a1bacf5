//! Reports every problem of a repository's configuration with its place, without network, credentials or helm. `--render` also
//! runs helm.

use std::process::ExitCode;

use anyhow::Result;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use xshell::Shell;

use crate::{
    charts::{fetch, prepare},
    machine::{programs, terminal, tree::Tree},
    repository::{
        fleet::Fleet,
        problem::{EVERYTHING, Level, Problem, What, count, once, text},
        rules,
    },
    settings::Settings,
};

mod images;
mod render;

/// Check clusters, hubs and their values, and report every problem with its place
///
/// Without arguments everything of every cluster is checked. Values are merged as helm merges them and checked with the
/// charts' schemas. Encrypted files are checked by the keys and types that sops leaves readable. Nothing is decrypted and no
/// network is used; a chart dependency that is missing from the cache is reported as not checked.
///
/// The exit status is 1 if there are problems. Warnings and suggestions do not change it.
#[derive(clap::Args, Default)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask validate                      everything\n\
\x20 cargo xtask validate lake prod            one hub\n\
\x20 cargo xtask validate support-config lake  what the cluster's hubs share\n\
\x20 cargo xtask validate --render --fetch     also render with helm, with all charts there")]
pub struct Validate {
    /// What to check: all, cluster-config, hub-config, support-config or authenticator-config [default: all]
    #[arg(add = ArgValueCandidates::new(words_for_what))]
    what: Option<String>,
    /// Cluster, by its folder in config/clusters/ [default: all of them]
    cluster: Option<String>,
    /// Hubs of the cluster [default: all of them]
    hubs: Vec<String>,
    /// Also render every release with helm, as it would be deployed, and check its manifests
    #[arg(long)]
    render: bool,
    /// Also ask the registries whether all images exist, for the architecture of the nodes; renders every release
    #[arg(long)]
    images: bool,
    /// Check what git would commit, and not the files in the work tree, as hooks do
    #[arg(long)]
    staged: bool,
    /// First fetch the charts that charts depend on into the cache
    #[arg(long)]
    fetch: bool,
    /// Treat what could not be checked as a problem
    #[arg(long)]
    strict: bool,
    /// How to print problems [default: text, but github in a GitHub workflow]
    #[arg(long, value_name = "FORMAT")]
    format: Option<ProblemFormat>,
}

/// For completion.
fn words_for_what() -> Vec<CompletionCandidate> {
    let words = [
        "all",
        "cluster-config",
        "hub-config",
        "support-config",
        "authenticator-config",
    ];
    words.map(CompletionCandidate::new).into()
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ProblemFormat {
    /// Lines `path:line:col: message`
    Text,
    /// A list of objects
    Json,
    /// Annotations for the pages of GitHub
    Github,
}

/// Checks the configuration; the exit status is 1 if there are problems.
pub fn validate(sh: &Shell, tree: &Tree, args: &Validate) -> Result<ExitCode> {
    let (found, size) = find(sh, tree, args)?;
    let of_level = |level: Level| found.iter().filter(|it| it.level == level).count();
    let problems = of_level(Level::Problem);
    let summary = format!("{size}: {}", count(problems, of_level(Level::Warning)));
    print(
        tree,
        &found,
        &summary,
        args.format.unwrap_or_else(default_format),
    )?;
    Ok(if problems == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The problems that `validate --fetch` reports, for tests that run it many times in their own process.
#[doc(hidden)]
pub fn report(sh: &Shell, tree: &Tree) -> Result<String> {
    let args = Validate {
        fetch: true,
        ..Validate::default()
    };
    let (found, _) = find(sh, tree, &args)?;
    Ok(text(&found))
}

/// All problems and warnings, sorted, and how much was checked.
fn find(sh: &Shell, tree: &Tree, args: &Validate) -> Result<(Vec<Problem>, String)> {
    let Selection {
        what,
        cluster,
        hubs,
    } = Selection::of(args);
    let index;
    let tree = if args.staged {
        index = tree.index(sh)?;
        &index
    } else {
        tree
    };
    let settings = Settings::load(tree)?;
    let fleet = Fleet::load(sh, tree, &what, cluster, &hubs)?;
    let size = fleet.size();
    Ok((check(sh, tree, &settings, fleet, args)?, size))
}

/// What is to be checked.
struct Selection<'a> {
    what: Vec<What>,
    cluster: Option<&'a str>,
    hubs: Vec<String>,
}

impl Selection<'_> {
    /// The first argument may also be a cluster, which the hubs follow.
    fn of(args: &Validate) -> Selection<'_> {
        let what = match args.what.as_deref() {
            None | Some("all") => EVERYTHING.to_vec(),
            Some("cluster-config") => vec![What::Clusters],
            Some("hub-config") => vec![What::Hubs],
            Some("support-config") => vec![What::Support],
            Some("authenticator-config") => vec![What::Authenticators],
            Some(cluster) => {
                return Selection {
                    what: EVERYTHING.to_vec(),
                    cluster: Some(cluster),
                    hubs: args.cluster.iter().chain(&args.hubs).cloned().collect(),
                };
            }
        };
        Selection {
            what,
            cluster: args.cluster.as_deref(),
            hubs: args.hubs.clone(),
        }
    }
}

fn check(
    sh: &Shell,
    tree: &Tree,
    settings: &Settings,
    fleet: Fleet,
    args: &Validate,
) -> Result<Vec<Problem>> {
    if !args.fetch && !args.render && !args.images {
        let fleet = fleet.with_charts(fetch::cached_schemas());
        return Ok(once(rules::check(&fleet, sh), args.strict));
    }
    let tools = programs::provide(sh, &["helm"], false)?;
    let helm = tools.sh();
    let prepared = prepare::prepare(helm, tree, settings, fleet.charts_wanted())?;
    let fleet = fleet.with_charts(fetch::schemas(settings));
    let mut found = rules::check(&fleet, sh);
    for (chart, result) in &prepared {
        if let Err(err) = result {
            fleet.not_prepared(chart, err, &mut found);
        }
    }
    if args.render || args.images {
        let rendered = render::render(helm, &fleet, &prepared)?;
        found.extend(rendered.problems);
        if args.images {
            found.extend(images::check(&fleet, settings, &rendered.images));
        }
    }
    Ok(once(found, args.strict))
}

fn default_format() -> ProblemFormat {
    if terminal::is_in_workflow() {
        ProblemFormat::Github
    } else {
        ProblemFormat::Text
    }
}

fn print(tree: &Tree, found: &[Problem], summary: &str, format: ProblemFormat) -> Result<()> {
    match format {
        ProblemFormat::Text => {
            let lines = text(found) + summary + "\n";
            return terminal::print(&terminal::only_text(&lines));
        }
        ProblemFormat::Json => terminal::print(&(serde_json::to_string_pretty(found)? + "\n"))?,
        ProblemFormat::Github => {
            let lines: String = found.iter().map(|it| it.annotation(tree) + "\n").collect();
            terminal::print(&lines)?;
        }
    }
    say!("{summary}");
    Ok(())
}
