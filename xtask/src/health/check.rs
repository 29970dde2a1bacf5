//! The check of one hub: attempts, and what each of them does.

use std::{
    iter, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;

use crate::{
    health::{
        address::{self, Address},
        hub::TestUser,
        notebook::Notebook,
    },
    kubernetes::api::Api,
    machine::{process, until::Until},
    repository::{
        cluster::{Hub, Nodes},
        hub_traits::HubTraits,
    },
    secrets::Mask,
};

/// What a hub gets after a deploy, and without options.
pub(crate) const ATTEMPTS: u32 = 3;
pub(crate) const ATTEMPT: Duration = Duration::from_secs(600);

/// How long a hub's name, its certificate and its ingress may take to be there after a deploy.
pub(crate) const ARRIVAL: Duration = Duration::from_secs(180);

#[derive(Default, Serialize)]
pub(crate) struct Attempt {
    pub(crate) phases: Vec<Phase>,
    pub(crate) failure: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) seconds: f64,
}

/// Checks a hub that was just deployed: "healthy", or why it couldn't be checked. It is at this domain, or at a
/// rehearsal cluster's real node.
pub(crate) fn after_rollout(
    api: &Api,
    hub: &Hub,
    kind: &HubTraits,
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
        Some(Nodes::Real) => match address::node_port(api, hub) {
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
pub(crate) struct Check<'a> {
    pub(crate) address: Address,
    pub(crate) way: Way,
    pub(crate) attempts: u32,
    /// Of each.
    pub(crate) limit: Duration,
    /// A hub's address may be a secret.
    pub(crate) mask: &'a Mask,
}

pub(crate) enum Way {
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
    pub(crate) fn run(&self, tell: impl Fn(&str)) -> Result<Vec<Attempt>> {
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
pub(crate) fn token(api: &Api, hub: &Hub) -> Result<Result<String, String>> {
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

impl Attempt {
    pub(crate) fn work<'a>(
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

    pub(crate) fn look(
        &mut self,
        hub: &Address,
        page: Option<&Address>,
        until: Until,
    ) -> Result<()> {
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

    pub(crate) fn phase<T>(&mut self, name: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = f();
        self.phases.push(Phase {
            name: name.to_owned(),
            seconds: started.elapsed().as_secs_f64(),
        });
        result
    }
}
