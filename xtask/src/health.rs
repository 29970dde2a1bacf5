//! Whether a person could work on a hub just now.

mod hub;
mod kernel;
mod notebook;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::ValueEnum;
use serde::Serialize;
use xshell::Shell;

use crate::{
    api::Api,
    cluster::{Cluster, Hub, Nodes},
    credentials, deploy, process,
    secrets::{self, Mask},
    setup,
};
use hub::{Address, TestUser};
use notebook::Notebook;

/// Check that a person can work on a hub
///
/// A server starts for the user `deployment-service-check`, and a kernel in it runs a notebook from its first to its last
/// cell; then the server is stopped and the user deleted. The hub's service `hub-health` does that, by its token in the
/// Secret `hub`. Ends with 1 if no attempt got through.
#[derive(clap::Args)]
pub(crate) struct RunHubHealthCheck {
    /// A folder in config/clusters/
    cluster: String,
    /// One of its hubs
    hub: String,
    /// How often to try before the hub counts as broken
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    attempts: u32,
    /// How long one attempt may take
    #[arg(long, default_value = "10m", value_name = "TIME")]
    attempt_timeout: humantime::Duration,
    /// Reach the hub through `kubectl port-forward` to its service `proxy-public`, not by its address
    #[arg(long)]
    port_forward: bool,
    /// Run this notebook, too
    #[arg(long, value_name = "FILE")]
    notebook: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What came of it.
#[derive(Serialize)]
struct Report<'a> {
    cluster: &'a str,
    hub: &'a str,
    address: String,
    healthy: bool,
    attempts: Vec<Attempt>,
}

#[derive(Default, Serialize)]
struct Attempt {
    phases: Vec<Phase>,
    failure: Option<String>,
}

#[derive(Serialize)]
struct Phase {
    name: String,
    seconds: f64,
}

/// When an attempt ends, and whether a signal ends it before: not where it's cleared up.
#[derive(Clone, Copy)]
struct Until {
    at: Instant,
    heeds_signals: bool,
}

impl Until {
    /// When a phase ends that may take so long.
    fn within(self, limit: Duration) -> Until {
        Until { at: self.at.min(Instant::now() + limit), ..self }
    }

    fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// An error when it's over, or when somebody wants us to stop.
    fn check(self, what: &str) -> Result<()> {
        if self.heeds_signals {
            process::check_stopped()?;
        }
        ensure!(!self.left().is_zero(), "{what} took too long");
        Ok(())
    }
}

pub(crate) fn run_hub_health_check(sh: &Shell, root: &Path, args: &RunHubHealthCheck) -> Result<ExitCode> {
    let cluster = Cluster::load(root, &args.cluster)?;
    let hub = cluster.select_hubs(std::slice::from_ref(&args.hub))?[0];
    let mut notebooks = vec![Notebook::simple()];
    if let Some(file) = &args.notebook {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
        notebooks.push(Notebook::read(&file.display().to_string(), &text)?);
    }
    let login = credentials::open(sh, root, &cluster)?;

    ensure!(
        login.rehearsal != Some(Nodes::Simulated),
        "`{}` has simulated nodes, where nothing runs: there's nothing to check\nhint: `cargo xtask local up --real`",
        cluster.name
    );
    let api = Api::start(&login.sh)?;
    process::end_in_order();
    let token = token(&api, hub)?;
    let mask = Mask::new([]);
    let address = match (args.port_forward, login.rehearsal, &hub.domain_override_file) {
        (true, ..) => Address::forwarded(&login.sh, &hub.name)?,
        (_, Some(_), _) => Address::public(
            deploy::node_port(&api, hub).with_context(|| {
                format!("`{}` has no port on the node, where it could be reached", hub.name)
            })?,
            &mask,
        ),
        (_, None, Some(file)) => {
            let sh = &setup::provide(sh, &["sops"], false)?;
            let file = secrets::open(sh, root, &cluster.dir.join(file))?;
            Address::public(format!("https://{}", deploy::domain_in(&file)?), &Mask::new([&file]))
        }
        (_, None, None) => Address::public(format!("https://{}", hub.domain), &mask),
    };

    let mut report = Report {
        cluster: &cluster.name,
        hub: &hub.name,
        address: address.shown.clone(),
        healthy: false,
        attempts: Vec::new(),
    };
    for number in 1..=args.attempts {
        let mut attempt = Attempt::default();
        let until = Until { at: Instant::now() + *args.attempt_timeout, heeds_signals: true };
        let result = attempt.run(&address, &token, &notebooks, until);
        report.healthy = result.is_ok();
        attempt.failure = result.err().map(|err| format!("{err:#}"));
        let failure = attempt.failure.clone();
        report.attempts.push(attempt);
        let Some(failure) = failure else { break };
        process::check_stopped()?;
        say!("attempt {number} of {}: {failure}", args.attempts);
        if number < args.attempts {
            thread::sleep(Duration::from_secs(2 << number.min(5)));
        }
    }
    crate::print(&match args.format {
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
        Format::Text => report.text(),
    })?;
    Ok(if report.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The token of the service that checks, as z2jh's chart keeps it.
fn token(api: &Api, hub: &Hub) -> Result<String> {
    const KEY: &str = "hub.services.hub-health.apiToken";
    let secret = api.find(&format!("/api/v1/namespaces/{}/secrets/hub", hub.name))?;
    let Some(secret) = secret else { bail!("`{0}` has no Secret `hub`: it isn't deployed", hub.name) };
    let token = secret["data"][KEY].as_str().unwrap_or_default();
    let token = BASE64_STANDARD.decode(token).unwrap_or_default();
    let token = String::from_utf8(token).unwrap_or_default();
    ensure!(
        !token.is_empty(),
        "the Secret `hub` of `{}` has no `{KEY}`, so nobody can check it\nhint: define the service `hub-health` in the \
         hub's values (`hub.services`), and a role for it (`hub.loadRoles`), as helm-charts/basehub does",
        hub.name
    );
    Ok(token)
}

impl Attempt {
    fn run(&mut self, address: &Address, token: &str, notebooks: &[Notebook], until: Until) -> Result<()> {
        let user = self.phase("user", || TestUser::make(address, token, until))?;
        self.phase("server", || user.start_server(until))?;
        for notebook in notebooks {
            let mut kernel = self.phase("kernel", || user.start_kernel(until))?;
            self.phase(&notebook.name, || notebook.run(&mut kernel, until))?;
        }
        self.phase("end", || user.remove(until))
    }

    fn phase<T>(&mut self, name: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = f();
        self.phases.push(Phase { name: name.to_owned(), seconds: started.elapsed().as_secs_f64() });
        result
    }
}

impl Report<'_> {
    fn text(&self) -> String {
        let last = self.attempts.last();
        let phases = last.iter().flat_map(|it| &it.phases);
        let phases: Vec<_> = phases.map(|it| format!("{} {:.1} s", it.name, it.seconds)).collect();
        let how = if self.healthy { "is healthy" } else { "isn't healthy" };
        let how = match self.attempts.len() {
            1 => how.to_owned(),
            attempts => format!("{how}, at attempt {attempts}"),
        };
        format!("`{}` of `{}` {how}: {}\n", self.hub, self.cluster, phases.join(", "))
    }
}
