//! Whether a person could work on a hub just now.

mod address;
mod hub;
mod kernel;
mod notebook;

use std::{
    fs, iter,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::ValueEnum;
use serde::Serialize;
use xshell::Shell;

use crate::{
    api::Api,
    charts,
    cluster::{Cluster, Hub, Nodes},
    deploy, github, process,
    secrets::{self, Mask},
    session::Session,
    settings::Settings,
    setup,
    validate::{Fleet, Kind, What},
};
use address::Address;
use hub::TestUser;
use notebook::Notebook;

/// Check that a person can work on a hub
///
/// A server starts for the user `deployment-service-check`, and kernels in it run notebooks from their first to their last
/// cell; then the server is stopped and the user deleted. The hub's service `hub-health` does that, by its token in the
/// Secret `hub`. On a hub with dask-gateway a worker computes, too. A hub on which nobody logs in, as BinderHub's, is only
/// asked whether it's well. Ends with 1 if no attempt got through.
#[derive(clap::Args)]
pub(crate) struct RunHubHealthCheck {
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
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What a hub gets after a deploy, and without options.
const ATTEMPTS: u32 = 3;
const ATTEMPT: Duration = Duration::from_secs(600);

/// How long a hub's name, its certificate and its ingress may take to be there after a deploy.
const ARRIVAL: Duration = Duration::from_secs(180);

fn attempt_timeout(text: &str) -> Result<Duration> {
    let time = humantime::parse_duration(text)?;
    ensure!(
        (1..=24 * 60 * 60).contains(&time.as_secs()),
        "it must be between 1s and 1d"
    );
    Ok(time)
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    /// A line
    Text,
    /// An object with all attempts and their phases
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
        Until {
            at: self.at.min(Instant::now() + limit),
            ..self
        }
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

pub(crate) fn run_hub_health_check(
    sh: &Shell,
    root: &Path,
    args: &RunHubHealthCheck,
) -> Result<ExitCode> {
    let cluster = Cluster::load(root, &args.cluster)?;
    let hub = cluster.select_hubs(std::slice::from_ref(&args.hub))?[0];
    let sh = &setup::provide(sh, &["helm"], false)?;
    let settings = Settings::load(root)?;
    let fleet = Fleet::load(
        root,
        &[What::Hubs],
        Some(&cluster.name),
        std::slice::from_ref(&hub.name),
    )?;
    for prepared in charts::prepare(sh, root, &settings, fleet.charts_wanted())?.into_values() {
        prepared?;
    }
    let kind = fleet.with_charts(Some(&settings)).kind(hub)?;
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
            &setup::provide(sh, &["sops"], false)?,
            root,
            &cluster.dir.join(file),
        )?;
        domain = deploy::domain_in(&file)?;
        mask = Mask::new([&file]);
    }
    let address = match session.rehearsal {
        _ if args.port_forward => Address::forwarded(&login, api, hub, &kind.base)?,
        None => Address::public(kind.address(&domain)),
        Some(_) => {
            let port = deploy::node_port(api, hub).with_context(|| {
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
    let report = Report {
        cluster: &cluster.name,
        hub: &hub.name,
        address: mask.hide(&check.address.url),
        healthy: attempts.last().is_some_and(|it| it.failure.is_none()),
        attempts,
    };
    report.tell()?;
    crate::print(&match args.format {
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
    fn notebooks(&self, hub: &Hub, kind: &Kind) -> Result<Vec<Notebook>> {
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

/// Checks a hub that was just deployed: "healthy", or why it couldn't be checked. It is at this domain, or at a
/// rehearsal cluster's real node.
pub(crate) fn after_rollout(
    api: &Api,
    hub: &Hub,
    kind: &Kind,
    rehearsal: Option<Nodes>,
    domain: &str,
    mask: &Mask,
) -> Result<String> {
    let unchecked = |why: &str| Ok(format!("unchecked: {why}"));
    if hub.health_check == Some(false) {
        return unchecked("cluster.yaml has `health_check: false`");
    }
    let address = match rehearsal {
        None => Address::public(kind.address(domain)),
        Some(Nodes::Real) => match deploy::node_port(api, hub) {
            Some(url) => Address::here(url + &kind.base),
            None => return unchecked("it has no port on the node"),
        },
        Some(Nodes::Simulated) => return unchecked("nodes are simulated"),
    };
    let way = match kind.has_login {
        false => Way::Pages(
            rehearsal
                .is_none()
                .then(|| Address::public(kind.page(domain))),
        ),
        true => match token(api, hub)? {
            Ok(token) => Way::Server {
                token,
                notebooks: Notebook::of(kind),
            },
            Err(why) => return unchecked(&why),
        },
    };
    let until = Until {
        at: Instant::now() + ARRIVAL,
        heeds_signals: true,
    };
    let page = if let Way::Pages(page) = &way {
        page.as_ref()
    } else {
        None
    };
    let mut told = String::new();
    for address in iter::once(&address).chain(page) {
        // What is still missing when the time is over fails the check.
        while let Some(missing) = address.missing(until)
            && until.check("it").is_ok()
        {
            let said = mask.hide(&format!("{missing:#}"));
            if said != told {
                say!(
                    "{}: waiting, at most 3 min, for its address: {said}",
                    hub.name
                );
                told = said;
            }
            thread::sleep(Duration::from_secs(1));
        }
    }
    process::check_stopped()?;
    let check = Check {
        address,
        way,
        attempts: ATTEMPTS,
        limit: ATTEMPT,
        mask,
    };
    let attempts = check.run(|said| say!("{}: {said}", hub.name))?;
    match attempts.into_iter().next_back().and_then(|it| it.failure) {
        None => Ok("healthy".to_owned()),
        Some(failure) => bail!("{failure}"),
    }
}

/// What is done to a hub, and how often.
struct Check<'a> {
    address: Address,
    way: Way,
    attempts: u32,
    /// Of each.
    limit: Duration,
    /// A hub's address may be a secret.
    mask: &'a Mask,
}

enum Way {
    /// A server for the test user, by the token of the hub's service, and in it these notebooks.
    Server {
        token: String,
        notebooks: Vec<Notebook>,
    },
    /// The hub says that it's well, and its page comes. BinderHub's isn't behind a node's port, nor `--port-forward`.
    Pages(Option<Address>),
}

impl Check<'_> {
    /// All attempts: each failed but perhaps the last. An error means that somebody wants us to stop.
    fn run(&self, tell: impl Fn(&str)) -> Result<Vec<Attempt>> {
        let mut attempts = Vec::new();
        for number in 1..=self.attempts {
            let mut attempt = Attempt::default();
            let until = Until {
                at: Instant::now() + self.limit,
                heeds_signals: true,
            };
            let result = match &self.way {
                Way::Server { token, notebooks } => {
                    let make = || TestUser::make(&self.address, token, self.mask, until);
                    attempt.work(make, notebooks, until)
                }
                Way::Pages(page) => attempt.look(&self.address, page.as_ref(), until),
            };
            process::check_stopped()?;
            attempt.failure = result.err().map(|err| self.mask.hide(&format!("{err:#}")));
            let failure = attempt.failure.clone();
            attempts.push(attempt);
            let Some(failure) = failure else { break };
            if number < self.attempts {
                let pause = Duration::from_secs(2 << number.min(5));
                tell(&format!(
                    "attempt {number} of {}: {failure}\ntrying again in {} s",
                    self.attempts,
                    pause.as_secs()
                ));
                let pause = Until {
                    at: Instant::now() + pause,
                    ..until
                };
                while pause.check("").is_ok() {
                    thread::sleep(Duration::from_millis(100));
                }
                process::check_stopped()?;
            }
        }
        Ok(attempts)
    }
}

/// The token of the service that checks, as z2jh's chart keeps it; or why there is none.
fn token(api: &Api, hub: &Hub) -> Result<Result<String, String>> {
    const KEY: &str = "hub.services.hub-health.apiToken";
    let secret = api.find(&format!("/api/v1/namespaces/{}/secrets/hub", hub.name))?;
    let Some(secret) = secret else {
        return Ok(Err("it has no Secret `hub`".to_owned()));
    };
    let token = secret["data"][KEY].as_str().unwrap_or_default();
    let token = BASE64_STANDARD.decode(token).unwrap_or_default();
    let token = String::from_utf8_lossy(&token);
    // A file's last line has an end.
    let token = token.trim();
    ensure!(
        token.bytes().all(|it| it.is_ascii_graphic()),
        "`{KEY}` in the Secret `hub` of `{}` can't be a token: it has other characters than a header takes",
        hub.name
    );
    Ok(if token.is_empty() {
        Err(format!("its Secret `hub` has no `{KEY}`"))
    } else {
        Ok(token.to_owned())
    })
}

fn no_token(hub: &Hub, why: &str) -> anyhow::Error {
    anyhow!(
        "nobody can check `{}`: {why}\nhint: define the service `hub-health` in the hub's values (`hub.services`), and a \
         role for it (`hub.loadRoles`), as helm-charts/basehub does",
        hub.name
    )
}

impl Attempt {
    fn work<'a>(
        &mut self,
        make: impl FnOnce() -> Result<TestUser<'a>>,
        notebooks: &[Notebook],
        until: Until,
    ) -> Result<()> {
        let user = self.phase("user", make)?;
        self.phase("server", || user.start_server(until))?;
        for notebook in notebooks {
            let mut kernel = self.phase("kernel", || user.start_kernel(until))?;
            self.phase(&notebook.name, || notebook.run(&mut kernel, until))?;
        }
        self.phase("end", || user.remove(until))
    }

    fn look(&mut self, hub: &Address, page: Option<&Address>, until: Until) -> Result<()> {
        let answer = self.phase("hub", || hub.page("/hub/health", until))?;
        ensure!(
            answer.headers().contains_key("x-jupyterhub-version"),
            "GET {}/hub/health: who answers isn't JupyterHub\nhint: {}",
            hub.url,
            address::HINT
        );
        if let Some(page) = page {
            let text = self.phase("page", || {
                Ok(page.page("/", until)?.body_mut().read_to_string()?)
            })?;
            ensure!(text.contains("</html>"), "`{}/` is no page", page.url);
        }
        Ok(())
    }

    fn phase<T>(&mut self, name: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = f();
        self.phases.push(Phase {
            name: name.to_owned(),
            seconds: started.elapsed().as_secs_f64(),
        });
        result
    }
}

impl Report<'_> {
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
            github::tell_failure(&format!("`{}` isn't healthy", self.hub), failure);
            summary += &github::folded(self.hub, failure);
        }
        github::summarize(&summary)
    }
}
