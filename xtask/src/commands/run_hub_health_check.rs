//! Whether a person could work on a hub just now, asked by a person.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use xshell::Shell;

use crate::{
    charts::{fetch, prepare},
    health::{
        address::{self, Address},
        check::{ATTEMPTS, Attempt, Check, Way, token},
        notebook::Notebook,
    },
    kubernetes::session::Session,
    machine::{
        programs,
        terminal::{self, Format},
        workflow,
    },
    repository::{
        cluster::{Cluster, Hub, Nodes},
        fleet::Fleet,
        hub_traits::HubTraits,
        problem::What,
    },
    secrets::{self, Mask},
    settings::Settings,
};

/// Check that a person can work on a hub
///
/// A server starts for the user `deployment-service-check`, and kernels in it run notebooks from their first to their last
/// cell; then the server is stopped and the user deleted. The hub's service `hub-health` does that, by its token in the
/// Secret `hub`. On a hub with dask-gateway a worker computes, too. A hub on which nobody logs in, as BinderHub's, is only
/// asked whether it's well. Ends with 1 if no attempt got through.
#[derive(clap::Args)]
pub struct RunHubHealthCheck {
    /// A folder in config/clusters/
    cluster: String,
    /// One of its hubs
    hub: String,
    /// Check that Dask's workers come when there's more to do, and go
    #[arg(long, overrides_with = "no_check_dask_scaling")]
    check_dask_scaling: bool,
    #[arg(long, hide = true)]
    no_check_dask_scaling: bool,
    /// How often to try before the hub counts as broken
    #[arg(long, default_value_t = ATTEMPTS, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    attempts: u32,
    /// How long one attempt may take
    #[arg(long, default_value = "10m", value_parser = attempt_timeout, value_name = "TIME")]
    attempt_timeout: Duration,
    /// Reach the hub through `kubectl port-forward` to its service `proxy-public`, not by its address
    #[arg(long)]
    port_forward: bool,
    /// Run this notebook, too
    #[arg(long, value_name = "FILE")]
    notebook: Option<PathBuf>,
    /// How to print the outcome; `json` has all attempts and their phases
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn attempt_timeout(text: &str) -> Result<Duration> {
    let time = humantime::parse_duration(text)?;
    ensure!(
        (1..=24 * 60 * 60).contains(&time.as_secs()),
        "it must be between 1s and 1d"
    );
    Ok(time)
}

/// What came of it.
#[derive(Serialize)]
struct HealthReport<'a> {
    cluster: &'a str,
    hub: &'a str,
    address: String,
    healthy: bool,
    attempts: Vec<Attempt>,
}

/// Checks one hub; the exit status is 1 if it is not healthy.
pub fn run_hub_health_check(sh: &Shell, root: &Path, args: &RunHubHealthCheck) -> Result<ExitCode> {
    let cluster = Cluster::load(root, &args.cluster)?;
    let hub = cluster.select_hubs(std::slice::from_ref(&args.hub))?[0];
    let sh = &programs::provide(sh, &["helm"], false)?;
    let settings = Settings::load(root)?;
    let fleet = Fleet::load(
        root,
        &[What::Hubs],
        Some(&cluster.name),
        std::slice::from_ref(&hub.name),
    )?;
    for prepared in prepare::prepare(sh, root, &settings, fleet.charts_wanted())?.into_values() {
        prepared?;
    }
    let fleet = fleet.with_charts(fetch::schemas(&settings));
    let releases = fleet.releases();
    let config = releases.first().context("the hub has no release")?;
    let kind = HubTraits::find(&fleet, config)?;
    let notebooks = args.notebooks(hub, &kind)?;
    let (login, _, session) = Session::open(sh, root, &cluster)?;

    ensure!(
        session.rehearsal != Some(Nodes::Simulated),
        "`{}` has simulated nodes, where nothing runs: there's nothing to check\nhint: `cargo xtask local up --real`",
        cluster.name
    );
    let api = &session.api;
    let (mut domain, mut mask) = (hub.domain.clone(), Mask::new([]));
    if let Some(file) = &hub.domain_override_file {
        let file = secrets::open(
            &programs::provide(sh, &["sops"], false)?,
            root,
            &cluster.dir.join(file),
        )?;
        domain = address::domain_in(&file)?;
        mask = Mask::new([&file]);
    }
    let address = match session.rehearsal {
        _ if args.port_forward => Address::forwarded(&login, api, hub, &kind.base)?,
        None => Address::public(kind.address(&domain)),
        Some(_) => {
            let port = address::node_port(api, hub).with_context(|| {
                format!(
                    "`{}` has no port on the node, where it could be reached",
                    hub.name
                )
            })?;
            Address::here(port + &kind.base)
        }
    };
    let way = match kind.has_login {
        true => Way::Server {
            token: token(api, hub)?.map_err(|why| no_token(hub, &why))?,
            notebooks,
        },
        false => {
            let is_public = !args.port_forward && session.rehearsal.is_none();
            Way::Pages(is_public.then(|| Address::public(kind.page(&domain))))
        }
    };
    // The user is one, for all checks of the hub.
    let _lease = match way {
        Way::Server { .. } => Some(session.leases.take(&hub.name)?),
        Way::Pages(_) => None,
    };
    let check = Check {
        address,
        way,
        attempts: args.attempts,
        limit: args.attempt_timeout,
        mask: &mask,
    };
    let attempts = check.run(|said| say!("{said}"))?;
    let report = HealthReport {
        cluster: &cluster.name,
        hub: &hub.name,
        address: mask.hide(&check.address.url),
        healthy: attempts.last().is_some_and(|it| it.failure.is_none()),
        attempts,
    };
    report.tell()?;
    terminal::print(&match args.format {
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
        Format::Text => report.text(),
    })?;
    Ok(if report.healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl RunHubHealthCheck {
    /// Those that are asked for, on a hub of this kind.
    fn notebooks(&self, hub: &Hub, kind: &HubTraits) -> Result<Vec<Notebook>> {
        let mut notebooks = Notebook::of(kind);
        if self.check_dask_scaling {
            ensure!(
                kind.has_dask,
                "`{}` has no dask-gateway in its values, whose workers could be checked",
                hub.name
            );
            notebooks.push(Notebook::scaling());
        }
        if let Some(file) = &self.notebook {
            ensure!(
                kind.has_login,
                "nobody logs in to `{}`, and so no notebook runs there",
                hub.name
            );
            let text = fs::read_to_string(file)
                .with_context(|| format!("cannot read `{}`", file.display()))?;
            notebooks.push(Notebook::read(&file.display().to_string(), &text)?);
        }
        Ok(notebooks)
    }
}

fn no_token(hub: &Hub, why: &str) -> anyhow::Error {
    anyhow!(
        "nobody can check `{}`: {why}\nhint: define the service `hub-health` in the hub's values (`hub.services`), and a \
         role for it (`hub.loadRoles`), as helm-charts/basehub does",
        hub.name
    )
}

impl HealthReport<'_> {
    fn text(&self) -> String {
        let last = self.attempts.last();
        let phases = last.iter().flat_map(|it| &it.phases);
        let phases: Vec<_> = phases
            .map(|it| format!("{} {:.1} s", it.name, it.seconds))
            .collect();
        let how = if self.healthy {
            "is healthy"
        } else {
            "isn't healthy"
        };
        let how = match self.attempts.len() {
            1 => how.to_owned(),
            attempts => format!("{how}, at attempt {attempts}"),
        };
        format!(
            "`{}` of `{}` {how}: {}\n",
            self.hub,
            self.cluster,
            phases.join(", ")
        )
    }

    /// Tells what failed, and a workflow's page how it went.
    fn tell(&self) -> Result<()> {
        let mut summary = format!("### Health\n\n{}", self.text());
        if let Some(failure) = self.attempts.last().and_then(|it| it.failure.as_ref()) {
            workflow::tell_failure(&format!("`{}` isn't healthy", self.hub), failure);
            summary += &workflow::folded(self.hub, failure);
        }
        workflow::summarize(&summary)
    }
}
