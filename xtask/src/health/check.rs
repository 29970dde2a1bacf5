//! The check of one hub: its attempts, and the phases of each.

use std::{
    iter,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use xshell::Shell;

use crate::{
    health::{
        address::{self, Address},
        busy::{self, Busy},
        dns,
        hub::{HubApi, TestUser},
        notebook::Notebook,
    },
    kubernetes::{api::Api, lease::Lease},
    machine::{process, terminal::Progress, until::Until},
    repository::{
        cluster::{Cluster, Hub, Nodes},
        hub_traits::HubTraits,
    },
    secrets::{Mask, Secret},
};

/// How often a hub is tried, and how long each attempt may take, unless options say otherwise.
pub(crate) const ATTEMPTS: u32 = 3;
const ATTEMPT: Duration = Duration::from_secs(600);

/// How long a hub's name, its certificate and its ingress may take to be there after a deploy.
const ARRIVAL: Duration = Duration::from_secs(180);

/// What came of one attempt.
#[derive(Default, Serialize)]
pub(crate) struct Attempt {
    pub(crate) phases: Vec<Phase>,
    pub(crate) failure: Option<String>,
    /// Whether it failed only because the hub was busy to its end.
    pub(crate) busy: bool,
}

#[derive(Serialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) seconds: f64,
}

/// Where a hub is: at its domain, or on a rehearsal cluster with nodes of this kind.
#[derive(Clone, Copy)]
pub(crate) struct Location<'a> {
    /// Logged in to the hub's cluster.
    pub(crate) sh: &'a Shell,
    pub(crate) api: &'a Api,
    pub(crate) rehearsal: Option<Nodes>,
    pub(crate) domain: &'a str,
    /// The hub of another cluster that has the same domain: the domain may lead there.
    pub(crate) shared_with: Option<(&'a Cluster, &'a Hub)>,
}

/// A page that everybody may see.
pub(crate) struct Page {
    pub(crate) address: Address,
    pub(crate) path: &'static str,
    /// What it must answer; any success if cluster.yaml does not say.
    pub(crate) status: Option<u16>,
}

impl Location<'_> {
    /// Where to ask a hub of this kind: at its domain, or at its own cluster where the domain leads elsewhere or lets nobody
    /// in.
    pub(crate) fn address(&self, hub: &Hub, kind: &HubTraits) -> Result<Address> {
        if let Some(why) = self.detour(hub) {
            say!(
                "{}: {why}: it is asked through `kubectl port-forward`",
                hub.name
            );
            return Address::forwarded(self.sh, self.api, hub, &kind.base);
        }
        if self.rehearsal.is_none() {
            return Ok(Address::public(kind.address(self.domain)));
        }
        let url = address::node_port(self.api, hub)
            .with_context(|| format!("`{}` has no port on the node", hub.name))?;
        Ok(Address::local(url + &kind.base))
    }

    /// Why the hub cannot be asked at its domain, if it has one.
    fn detour(&self, hub: &Hub) -> Option<String> {
        if self.rehearsal.is_some() {
            return None;
        }
        if let Some((cluster, other)) = self.shared_with {
            let cluster = &cluster.name;
            return Some(format!(
                "hub `{}` of `{cluster}` has the same domain",
                other.name
            ));
        }
        let status = hub.expected_status()?;
        let is_open = (200..300).contains(&status);
        let why = format!("its domain answers everybody {status}, as cluster.yaml expects");
        (!is_open).then_some(why)
    }

    /// What is asked first at the domain of a hub of this kind: the page of one without login, and otherwise, if cluster.yaml
    /// says what it answers, whether it is well. The pages after that may lead to whoever knows people.
    pub(crate) fn page(&self, hub: &Hub, kind: &HubTraits) -> Option<Page> {
        if self.rehearsal.is_some() || self.shared_with.is_some() {
            return None;
        }
        let status = hub.expected_status();
        let (url, path) = if kind.has_login {
            (kind.address(self.domain), "/hub/health")
        } else {
            (kind.page(self.domain), "/")
        };
        let is_asked = !kind.has_login || status.is_some();
        is_asked.then(|| Page {
            address: Address::public(url),
            path,
            status,
        })
    }
}

/// Checks a hub that was just deployed, at its domain or at a rehearsal cluster's real node. Returns "healthy", or
/// "unchecked" and why; an error if it is not healthy. A hub that is busy to the end is unchecked: that people come to it is
/// no reason to roll it back. For who holds the hub's Lease.
pub(crate) fn after_rollout(
    lease: &Lease,
    progress: &Progress,
    hub: &Hub,
    kind: &HubTraits,
    location: Location,
    mask: &Mask,
) -> Result<String> {
    let api = location.api;
    let (address, way) = match target(hub, kind, location)? {
        Ok(target) => target,
        Err(why) => return Ok(format!("unchecked: {why}")),
    };
    progress.phase("its pods are ready, checking its health");
    let page = location.page(hub, kind);
    let check = Check {
        lease: Some(lease),
        pods: (api, &hub.name),
        address: &address,
        page: page.as_ref(),
        way: &way,
        attempts: ATTEMPTS,
        limit: ATTEMPT,
        mask,
        tell: &|line| say!("{}: {line}", hub.name),
    };
    check.wait_for_arrival(api, hub)?;
    let last = check.run()?.pop().unwrap_or_default();
    match last.failure {
        None => Ok("healthy".to_owned()),
        Some(busy) if last.busy => Ok(format!("unchecked: {busy}")),
        Some(failure) => bail!("{failure}"),
    }
}

/// What to check of a hub that was just deployed, or why nothing can be checked.
fn target(
    hub: &Hub,
    kind: &HubTraits,
    location: Location,
) -> Result<Result<(Address, Way), String>> {
    if hub.health_check == Some(false) {
        return Ok(Err("cluster.yaml has `health_check: false`".to_owned()));
    }
    if location.rehearsal == Some(Nodes::Simulated) {
        return Ok(Err("nodes are simulated".to_owned()));
    }
    let way = if kind.has_login {
        let notebooks = Notebook::of(kind);
        match token(location.api, hub)? {
            Ok(token) => Way::Server { token, notebooks },
            Err(why) => return Ok(Err(why)),
        }
    } else {
        Way::Pages
    };
    let address = location.address(hub, kind);
    process::check_stopped()?;
    Ok(match address {
        Ok(address) => Ok((address, way)),
        Err(err) => Err(format!("{err:#}")),
    })
}

/// What is checked on a hub, how, and how often.
pub(crate) struct Check<'a> {
    /// Under which the test user is used; none if nobody logs in.
    pub(crate) lease: Option<&'a Lease>,
    /// The cluster, and the namespace of users' pods.
    pub(crate) pods: (&'a Api, &'a str),
    pub(crate) address: &'a Address,
    /// What is asked for besides. BinderHub's page is not behind a node's port, nor behind `kubectl port-forward`.
    pub(crate) page: Option<&'a Page>,
    pub(crate) way: &'a Way,
    pub(crate) attempts: u32,
    /// How long each attempt may take.
    pub(crate) limit: Duration,
    /// A hub's address may be a secret.
    pub(crate) mask: &'a Mask,
    /// Says what is going on.
    pub(crate) tell: &'a dyn Fn(&str),
}

pub(crate) enum Way {
    /// Start a server for the test user, with the token of the hub's service, and run these notebooks in it.
    Server {
        token: Secret,
        notebooks: Vec<Notebook>,
    },
    /// Ask the hub whether it is well.
    Pages,
}

impl Check<'_> {
    /// An error once somebody wants us to stop, or the Lease is lost.
    fn may_go_on(&self) -> Result<()> {
        process::check_stopped()?;
        self.lease.map_or(Ok(()), Lease::check)
    }

    fn tell(&self, text: &str) {
        (self.tell)(&self.mask.hide(text));
    }

    /// Waits until the hub's addresses answer. What is still missing when the time is over fails the check, and at once if it
    /// is the hub's name, without which no attempt can succeed.
    fn wait_for_arrival(&self, api: &Api, hub: &Hub) -> Result<()> {
        let until = Until {
            may_go_on: &|| self.may_go_on(),
            ..Until::after(ARRIVAL)
        };
        let mut told = String::new();
        let hub_itself = iter::once((self.address, None));
        let page = self.page.iter().map(|it| (&it.address, it.status));
        for (address, status) in hub_itself.chain(page) {
            while let Some(missing) = address.missing(status, until)? {
                let unknown = dns::missing_record(api, hub, address);
                let is_over = until.left().is_zero();
                let missing = unknown.clone().unwrap_or_else(|| format!("{missing:#}"));
                let hidden = self.mask.hide(&missing);
                ensure!(!is_over || unknown.is_none(), "{hidden}");
                if is_over {
                    break;
                }
                if missing != told {
                    self.tell(&format!(
                        "waiting, at most 3 min, for its address: {missing}"
                    ));
                    told = missing;
                }
                until.pause(Duration::from_secs(1))?;
            }
        }
        self.may_go_on()
    }

    /// Tries until an attempt succeeds, or the hub was busy to the end of one. Returns all attempts: each failed, but
    /// perhaps the last. An error means that we have to stop.
    pub(crate) fn run(&self) -> Result<Vec<Attempt>> {
        let mut attempts = Vec::new();
        for number in 1..=self.attempts {
            let attempt = self.attempt()?;
            let failure = attempt.failure.clone().filter(|_| !attempt.busy);
            attempts.push(attempt);
            let Some(failure) = failure else { break };
            if number < self.attempts {
                let pause = Duration::from_secs(2 << number.min(5));
                self.tell(&format!(
                    "attempt {number} of {}: {failure}\ntrying again in {} s",
                    self.attempts,
                    pause.as_secs()
                ));
                let until = Until {
                    may_go_on: &|| self.may_go_on(),
                    ..Until::after(pause)
                };
                until.pause(pause)?;
            }
        }
        Ok(attempts)
    }

    fn attempt(&self) -> Result<Attempt> {
        let tell = |text: &str| self.tell(text);
        let until = Until {
            may_go_on: &|| self.may_go_on(),
            ..Until::after(self.limit)
        };
        let mut phases = Phases {
            done: Vec::new(),
            until,
            tell: &tell,
        };
        let result = match self.way {
            Way::Server { token, notebooks } => {
                let hub = HubApi {
                    address: self.address,
                    token,
                    lease: self.lease,
                    pods: self.pods,
                    tell: &tell,
                };
                let page = phases.get_page(self.page);
                page.and_then(|()| phases.use_server(hub, notebooks))
            }
            Way::Pages => {
                let hub = phases.get_health(self.address);
                hub.and_then(|()| phases.get_page(self.page))
            }
        };
        self.may_go_on()?;
        let err = result.err();
        Ok(Attempt {
            phases: phases.done,
            busy: err.as_ref().is_some_and(|it| it.is::<Busy>()),
            failure: err.map(|it| self.mask.hide(&format!("{it:#}"))),
        })
    }
}

/// The token of the service `hub-health`, which z2jh's chart keeps in a Secret; or why there is none.
pub(crate) fn token(api: &Api, hub: &Hub) -> Result<Result<Secret, String>> {
    const KEY: &str = "hub.services.hub-health.apiToken";
    let secret = api.find(&format!("/api/v1/namespaces/{}/secrets/hub", hub.name))?;
    let Some(secret) = secret else {
        return Ok(Err("it has no Secret `hub`".to_owned()));
    };
    let token = secret["data"][KEY].as_str().unwrap_or_default();
    let token = BASE64_STANDARD.decode(token).unwrap_or_default();
    let token = String::from_utf8_lossy(&token);
    // Somebody may have made the Secret from a file, with the end of its last line.
    let token = token.trim();
    ensure!(
        token.bytes().all(|it| it.is_ascii_graphic()),
        "`{KEY}` in the Secret `hub` of `{}` is not a token: it has characters that a header cannot have",
        hub.name
    );
    Ok(if token.is_empty() {
        Err(format!("its Secret `hub` has no `{KEY}`"))
    } else {
        Ok(Secret::new(token.to_owned()))
    })
}

/// The phases of an attempt, one after the other.
struct Phases<'a> {
    done: Vec<Phase>,
    until: Until<'a>,
    tell: &'a dyn Fn(&str),
}

impl Phases<'_> {
    fn use_server(&mut self, hub: HubApi, notebooks: &[Notebook]) -> Result<()> {
        let until = self.until;
        let user = self.run("user", || TestUser::make(hub, until))?;
        self.run("server", || user.start_server(until))?;
        for notebook in notebooks {
            let mut kernel = self.run("kernel", || user.start_kernel(until))?;
            self.run(&notebook.name, || notebook.run(&mut kernel, until))?;
        }
        self.run("end", || user.remove(until))
    }

    fn get_health(&mut self, hub: &Address) -> Result<()> {
        let until = self.until;
        let answer = self.run("hub", || hub.page("/hub/health", None, until))?;
        ensure!(
            answer.headers().contains_key("x-jupyterhub-version"),
            "GET {}/hub/health: the answer is not that of JupyterHub\nhint: {}",
            hub.url,
            address::HINT
        );
        Ok(())
    }

    fn get_page(&mut self, page: Option<&Page>) -> Result<()> {
        let until = self.until;
        let Some(page) = page else {
            return Ok(());
        };
        let answer = self.run("page", || page.address.page(page.path, page.status, until))?;
        ensure!(
            page.status.is_some() || answer.body().contains("</html>"),
            "`{}{}` is not a page",
            page.address.url,
            page.path
        );
        Ok(())
    }

    /// Does `work`, again as often as the hub is busy, and records how long that took.
    fn run<T>(&mut self, name: &str, work: impl FnMut() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = busy::wait_while_busy(self.until, self.tell, work);
        self.done.push(Phase {
            name: name.to_owned(),
            seconds: started.elapsed().as_secs_f64(),
        });
        result
    }
}
