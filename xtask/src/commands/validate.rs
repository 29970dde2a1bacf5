//! All that is wrong in a repository's configuration, said at once and with its place: without a network, credentials
//! or helm. `--render` also runs helm.

use std::{collections::BTreeMap, env, path::Path, process::ExitCode};

use anyhow::Result;
use xshell::Shell;

use crate::{
    charts::{fetch, prepare},
    machine::{programs, terminal},
    repository::{
        fleet::Fleet,
        problem::{EVERYTHING, Level, Problem, What, count, once, text},
        rules,
    },
    settings::Settings,
};

mod render;

/// Check clusters, hubs and their values, and name every problem with its place
///
/// Without arguments everything of every cluster is checked. Values are computed as helm computes them and held against
/// the charts' schemas, encrypted files by the keys and types that sops leaves readable. Nothing is decrypted, and nobody
/// is asked: a chart that a chart depends on, and that isn't in the cache, is named as not checked.
///
/// The exit status is 1 if there are problems; warnings alone are fine.
#[derive(clap::Args)]
pub struct Validate {
    /// all, cluster-config, hub-config, support-config or authenticator-config [default: all]
    what: Option<String>,
    /// A folder in config/clusters/, if not all of them
    cluster: Option<String>,
    /// Only these hubs of the cluster
    hubs: Vec<String>,
    /// Also render every chart with helm, as it would be deployed, and check the manifests
    #[arg(long)]
    render: bool,
    /// Get what charts depend on into the cache first
    #[arg(long)]
    fetch: bool,
    /// Take what couldn't be checked as a problem
    #[arg(long)]
    strict: bool,
    /// How problems are written [default: text, and github in a workflow]
    #[arg(long, value_name = "FORMAT")]
    format: Option<ProblemFormat>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ProblemFormat {
    /// Lines `path:line:col: message`
    Text,
    /// A list of objects
    Json,
    /// Annotations for GitHub's pages
    Github,
}

/// Checks the configuration; the exit status is 1 if there are problems.
pub fn validate(sh: &Shell, root: &Path, args: &Validate) -> Result<ExitCode> {
    let (what, cluster, hubs) = selection(args);
    let settings = Settings::load(root)?;
    let fleet = Fleet::load(root, &what, cluster, &hubs)?;
    let prepared = match args.fetch || args.render {
        true => {
            let sh = &programs::provide(sh, &["helm"], false)?;
            prepare::prepare(sh, root, &settings, fleet.charts_wanted())?
        }
        false => BTreeMap::new(),
    };
    let fleet = fleet.with_charts(match args.fetch || args.render {
        true => fetch::schemas(&settings),
        false => fetch::cached_schemas(),
    });
    let mut found = rules::check(&fleet, sh);
    for (chart, err) in prepared
        .iter()
        .filter_map(|(chart, it)| Some((chart, it.as_ref().err()?)))
    {
        fleet.not_prepared(chart, err, &mut found);
    }
    if args.render {
        found.extend(render::render(sh, &fleet, &prepared)?);
    }
    let found = once(found, args.strict);
    let problems = found.iter().filter(|it| it.level == Level::Problem).count();
    let in_workflow = env::var_os("GITHUB_ACTIONS").is_some_and(|it| !it.is_empty());
    let format = args.format.unwrap_or(if in_workflow {
        ProblemFormat::Github
    } else {
        ProblemFormat::Text
    });
    let count = format!(
        "{}: {}",
        fleet.size(),
        count(problems, found.len() - problems)
    );
    match format {
        ProblemFormat::Text => terminal::print(&(text(&found) + &count + "\n"))?,
        ProblemFormat::Json => terminal::print(&(serde_json::to_string_pretty(&found)? + "\n"))?,
        ProblemFormat::Github => terminal::print(&github(&found))?,
    }
    if !matches!(format, ProblemFormat::Text) {
        say!("{count}");
    }
    Ok(if problems == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The first word may also be a cluster.
fn selection(args: &Validate) -> (Vec<What>, Option<&str>, Vec<String>) {
    let what = match args.what.as_deref() {
        None | Some("all") => EVERYTHING.to_vec(),
        Some("cluster-config") => vec![What::Clusters],
        Some("hub-config") => vec![What::Hubs],
        Some("support-config") => vec![What::Support],
        Some("authenticator-config") => vec![What::Authenticators],
        Some(cluster) => {
            let hubs = args.cluster.iter().chain(&args.hubs).cloned().collect();
            return (EVERYTHING.to_vec(), Some(cluster), hubs);
        }
    };
    (what, args.cluster.as_deref(), args.hubs.clone())
}

/// <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>
fn github(found: &[Problem]) -> String {
    let data = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let line = |it: &Problem| {
        let command = if it.level == Level::Warning {
            "warning"
        } else {
            "error"
        };
        let (path, line, column) = (property(&it.path), it.line, it.column);
        format!(
            "::{command} file={path},line={line},col={column}::{}\n",
            data(&it.message)
        )
    };
    found.iter().map(line).collect()
}
