//! The command that checks whether a person can work on a hub.

use std::{fs, path::PathBuf, process::ExitCode, slice, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use xshell::Shell;

use crate::{
    charts::{fetch, prepare},
    health::{
        address::{self, Address},
        check::{ATTEMPTS, Attempt, Check, Location, Page, Way, token},
        notebook::Notebook,
    },
    kubernetes::{
        credentials,
        lease::{Lease, Work},
        session::Session,
    },
    machine::{
        process, programs,
        terminal::{self, Format},
        tree::Tree,
        workflow,
    },
    repository::{
        cluster::{Cluster, Hub, Nodes},
        fleet::Fleet,
        hub_traits::HubTraits,
        problem::What,
        release_config::ReleaseConfig,
    },
    secrets::Mask,
    settings::Settings,
};

/// Check that a person can work on a hub
///
/// Starts a server for the user `deployment-service-check`, runs notebooks there from the first to the last cell, stops the
/// server and deletes the user. This is done as the hub's service `hub-health`, whose token is in the Secret `hub`. On a hub
/// with dask-gateway, a Dask worker computes, too. On a hub where nobody logs in, such as BinderHub's, only the health
/// endpoint and the first page are requested. With `uptime_check.expected_status` in cluster.yaml the domain must answer
/// that. A hub whose domain a hub of another cluster has as well, or lets nobody in, is asked through `kubectl port-forward`.
/// Exits with 1 if every attempt failed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:\n\
\x20 cargo xtask run-hub-health-check lake staging                 by the hub's domain\n\
\x20 cargo xtask run-hub-health-check lake staging --port-forward  before there is DNS")]
pub struct RunHubHealthCheck {
    /// Cluster, by its folder in config/clusters/
    cluster: String,
    /// Hub of the cluster
    hub: String,
    /// Also check that Dask adds workers when there is more to do, and removes them afterwards
    #[arg(long, overrides_with = "no_check_dask_scaling")]
    check_dask_scaling: bool,
    #[arg(long, hide = true)]
    no_check_dask_scaling: bool,
    /// Check up to N times before the hub counts as not healthy
    #[arg(long, default_value_t = ATTEMPTS, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    attempts: u32,
    /// How long each attempt may take
    #[arg(long, default_value = "10m", value_parser = attempt_timeout, value_name = "TIME")]
    attempt_timeout: Duration,
    /// Reach the hub through `kubectl port-forward` instead of its address
    #[arg(long)]
    port_forward: bool,
    /// Run this notebook, too
    #[arg(long, value_name = "FILE")]
    notebook: Option<PathBuf>,
    /// How to print the result: `json` has all attempts and their phases
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn attempt_timeout(text: &str) -> Result<Duration> {
    let time = humantime::parse_duration(text)?;
    ensure!(
        (1..=24 * 60 * 60).contains(&time.as_secs()),
        "the time must be between 1s and 1d"
    );
    Ok(time)
}

/// What `--format json` prints.
#[derive(Serialize)]
struct HealthReport<'a> {
    cluster: &'a str,
    hub: &'a str,
    address: String,
    healthy: bool,
    attempts: Vec<Attempt>,
}

/// Checks one hub; the exit status is 1 if it is not healthy.
pub fn run_hub_health_check(sh: &Shell, tree: &Tree, args: &RunHubHealthCheck) -> Result<ExitCode> {
    process::end_in_order();
    let fleet = args.load(sh, tree)?;
    let cluster = fleet.cluster(&args.cluster)?;
    let hub = cluster.select_hubs(args.hubs())?[0];
    let releases = fleet.releases();
    let config = releases.first().context("the hub has no release")?;
    // How a hub is checked depends on its values.
    for (path, _, file) in fleet.files_of(config) {
        file.refuse_unreadable(path)?;
    }
    let kind = HubTraits::find(&fleet, config)?;
    let notebooks = args.notebooks(hub, &kind)?;
    let (login, session) = Session::open(sh, tree, cluster)?;
    refuse_simulated_nodes(&session, cluster)?;
    let (domain, mask) = domain(sh, &fleet, config, hub)?;
    let location = Location {
        sh: &login,
        api: &session.api,
        rehearsal: session.rehearsal,
        domain: &domain,
        shared_with: fleet.elsewhere(cluster, hub),
    };
    let (address, page) = args.address(hub, &kind, location)?;
    let way = way(&session, hub, &kind, notebooks)?;
    let attempts = loop {
        let lease = lease_of_user(&session, hub, &way)?;
        let check = Check {
            lease: lease.as_ref(),
            pods: (&session.api, &hub.name),
            address: &address,
            page: page.as_ref(),
            way: &way,
            attempts: args.attempts,
            limit: args.attempt_timeout,
            mask: &mask,
            tell: &|line| say!("{line}"),
        };
        if let Some(attempts) = attempts(&check, hub)? {
            break attempts;
        }
    };
    let address = mask.hide(&address.url);
    HealthReport::new(cluster, hub, address, attempts).print(args.format)
}

/// Checks the hub. What was found while somebody else had the lease counts for nothing: none if the hub was changed meanwhile,
/// so that it has to be checked once more.
fn attempts(check: &Check, hub: &Hub) -> Result<Option<Vec<Attempt>>> {
    let attempts = check.run();
    let Some(lease) = check.lease else {
        return attempts.map(Some);
    };
    match lease.unless_lost(attempts) {
        Err(_) if lease.is_taken() => {
            process::check_stopped()?;
            let name = &hub.name;
            say!("{name}: somebody has begun to change it: checking it again after that");
            Ok(None)
        }
        attempts => attempts.map(Some),
    }
}

fn refuse_simulated_nodes(session: &Session, cluster: &Cluster) -> Result<()> {
    ensure!(
        session.rehearsal != Some(Nodes::Simulated),
        "`{}` has simulated nodes, where nothing runs: there is nothing to check\nhint: `cargo xtask local up --real`",
        cluster.name
    );
    Ok(())
}

/// Takes the hub's Lease if its test user is needed, which all checks of the hub share.
fn lease_of_user(session: &Session, hub: &Hub, way: &Way) -> Result<Option<Lease>> {
    match way {
        Way::Server { .. } => Ok(Some(session.leases.take(&hub.name, Work::Check)?)),
        Way::Pages => Ok(None),
    }
}

/// The hub's domain, and a mask that hides it if it is a secret.
fn domain(sh: &Shell, fleet: &Fleet, config: &ReleaseConfig, hub: &Hub) -> Result<(String, Mask)> {
    let Some((path, _)) = &config.domain_override else {
        return Ok((hub.domain.clone(), Mask::new([])));
    };
    let tools = programs::provide(sh, &["sops"], false)?;
    let decrypter = credentials::decrypter(&tools, &fleet.tree, config.cluster)?;
    let file = fleet.values[path].open(&decrypter, path)?;
    Ok((address::domain_in(&file)?, Mask::new([&file])))
}

/// How to check the hub: with a server of the test user, or without one where nobody logs in.
fn way(session: &Session, hub: &Hub, kind: &HubTraits, notebooks: Vec<Notebook>) -> Result<Way> {
    if !kind.has_login {
        return Ok(Way::Pages);
    }
    let token = token(&session.api, hub)?.map_err(|why| no_token(hub, &why))?;
    Ok(Way::Server { token, notebooks })
}

impl RunHubHealthCheck {
    fn hubs(&self) -> &[String] {
        slice::from_ref(&self.hub)
    }

    /// The cluster and its hub, with the hub's charts.
    fn load(&self, sh: &Shell, tree: &Tree) -> Result<Fleet> {
        let fleet = Fleet::load(sh, tree, &[What::Hubs], Some(&self.cluster), self.hubs())?;
        fleet.cluster(&self.cluster)?.select_hubs(self.hubs())?;
        let tools = programs::provide(sh, &["helm"], false)?;
        let settings = Settings::load(tree)?;
        let prepared = prepare::prepare(tools.sh(), tree, &settings, fleet.charts_wanted())?;
        for prepared in prepared.into_values() {
            prepared?;
        }
        Ok(fleet.with_charts(fetch::schemas(&settings)))
    }

    /// Where to check the hub, and its page if that is asked for.
    fn address(
        &self,
        hub: &Hub,
        kind: &HubTraits,
        location: Location,
    ) -> Result<(Address, Option<Page>)> {
        if self.port_forward {
            let address = Address::forwarded(location.sh, location.api, hub, &kind.base)?;
            return Ok((address, None));
        }
        Ok((location.address(hub, kind)?, location.page(hub, kind)))
    }

    /// The notebooks to run on a hub of this kind.
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

impl<'a> HealthReport<'a> {
    fn new(
        cluster: &'a Cluster,
        hub: &'a Hub,
        address: String,
        attempts: Vec<Attempt>,
    ) -> HealthReport<'a> {
        HealthReport {
            cluster: &cluster.name,
            hub: &hub.name,
            address,
            healthy: attempts.last().is_some_and(|it| it.failure.is_none()),
            attempts,
        }
    }

    fn state(&self) -> &'static str {
        match self.attempts.last() {
            Some(last) if last.busy => "is busy, which says nothing of its health",
            Some(last) if last.failure.is_none() => "is healthy",
            _ => "is not healthy",
        }
    }

    fn text(&self) -> String {
        let mut state = self.state().to_owned();
        if self.attempts.len() > 1 {
            state += &format!(", at attempt {}", self.attempts.len());
        }
        format!(
            "`{}` of `{}` {state}: {}\n",
            self.hub,
            self.cluster,
            self.last_phases()
        )
    }

    /// The phases of the last attempt: `user 0.1 s, server 2.0 s`.
    fn last_phases(&self) -> String {
        let last = self.attempts.last();
        let phases: Vec<_> = last
            .iter()
            .flat_map(|it| &it.phases)
            .map(|it| format!("{} {:.1} s", it.name, it.seconds))
            .collect();
        phases.join(", ")
    }

    /// Prints the report, and says on stderr and on a workflow's page what failed.
    fn print(&self, format: Format) -> Result<ExitCode> {
        self.summarize()?;
        terminal::print(&match format {
            Format::Json => serde_json::to_string_pretty(self)? + "\n",
            Format::Text => self.text(),
        })?;
        Ok(if self.healthy {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn summarize(&self) -> Result<()> {
        let mut summary = format!("### Health\n\n{}", self.text());
        if let Some(failure) = self.attempts.last().and_then(|it| it.failure.as_ref()) {
            workflow::tell_failure(&format!("`{}` {}", self.hub, self.state()), failure);
            summary += &workflow::folded(self.hub, failure);
        }
        workflow::summarize(&summary)
    }
}
