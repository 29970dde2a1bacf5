//! The hub's API, for a user that checks the hub: <https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html>.

use std::{
    cell::{Cell, OnceCell},
    io::{BufRead, BufReader},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use ureq::http::{Response, StatusCode};

use crate::{
    health::{
        address::{self, Address, HINT},
        busy::{self, Busy},
        kernel::Kernel,
    },
    kubernetes::{
        api::Api,
        lease::Lease,
        rollout::user_pod::{PodTrouble, UserPod},
    },
    machine::{
        process::{self, Unfinished},
        until::Until,
    },
    secrets::Secret,
};

/// Nobody can log in with this name: it is blocked in the hub's configuration.
const USER: &str = "deployment-service-check";

/// How long the hub may take for an answer, and a server for its start and its end. The hub itself gives up most starts
/// before, and says so.
const ANSWER: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(540);
const STOP: Duration = Duration::from_secs(60);

/// How long that server's end may take once somebody wants us to stop.
const HURRY: Duration = Duration::from_secs(5);

/// How often to say what a server's start waits for.
const NEWS: Duration = Duration::from_secs(5);

/// How long the events of one answer are followed, and how long a hub that was there may be away.
const STREAM: Duration = Duration::from_secs(2);
const GONE: Duration = Duration::from_secs(3);

/// The name of the hub in messages, beside that of a user's server.
const HUB: &str = "hub";

/// A hub, as it is asked by its service.
#[derive(Clone, Copy)]
pub(crate) struct HubApi<'a> {
    pub(crate) address: &'a Address,
    pub(crate) token: &'a Secret,
    pub(crate) lease: Option<&'a Lease>,
    /// The cluster, and the namespace of users' pods.
    pub(crate) pods: (&'a Api, &'a str),
    pub(crate) tell: &'a dyn Fn(&str),
}

/// The user that checks. When this is dropped the user is deleted and its server stopped, unless it may be somebody
/// else's by then.
pub(crate) struct TestUser<'a> {
    hub: HubApi<'a>,
    is_there: Cell<bool>,
    _unfinished: Unfinished,
}

/// What is known of a server's start.
struct Start<'a> {
    /// The newest event's message.
    last: String,
    /// When the hub answered for the last time.
    heard: Instant,
    pod: UserPod<'a>,
    /// What keeps its pod from being ready.
    trouble: Option<PodTrouble>,
    /// What was said last of it, and when.
    told: (String, Instant),
}

impl<'a> Start<'a> {
    fn new(hub: HubApi<'a>) -> Start<'a> {
        let (api, namespace) = hub.pods;
        Start {
            last: String::new(),
            heard: Instant::now(),
            pod: UserPod::new(api, namespace, USER),
            trouble: None,
            told: (String::new(), Instant::now()),
        }
    }

    /// The error of a start that failed with this event.
    fn failed(&self, event: &Value) -> Error {
        let message = event["message"].as_str().unwrap_or_default();
        // The spawner's events have the reason: an image that can't be pulled, nodes that are full.
        let reason = match self.last.as_str() {
            "" => String::new(),
            last => format!("; before that: {last}"),
        };
        anyhow!(
            "the server did not start: {message}{reason}{}",
            self.of_pod()
        )
    }

    /// What was seen last of the pod, on lines of their own.
    fn of_pod(&self) -> String {
        let trouble = self.trouble.as_ref();
        trouble.map_or_else(String::new, |it| format!("\n{}", it.message))
    }

    /// Looks at the pod, and tells what the start waits for. An error if the pod won't become ready.
    fn look(&mut self, tell: &dyn Fn(&str)) -> Result<()> {
        // The hub deletes a pod that it gives up: what was seen of it stays.
        self.trouble = self.pod.trouble().or_else(|| self.trouble.take());
        if let Some(trouble) = self.trouble.as_ref().filter(|it| it.is_permanent) {
            bail!("the server did not start: {}", trouble.message);
        }
        let news = match &self.trouble {
            Some(trouble) => &trouble.message,
            None => &self.last,
        };
        let (told, at) = &self.told;
        if !news.is_empty() && news != told && at.elapsed() > NEWS {
            tell(&format!("waiting for the server: {news}"));
            self.told = (news.clone(), Instant::now());
        }
        Ok(())
    }
}

impl<'a> TestUser<'a> {
    /// Creates the user. What an earlier check left is removed first.
    pub(crate) fn make(hub: HubApi<'a>, until: Until) -> Result<TestUser<'a>> {
        let user = TestUser {
            hub,
            is_there: Cell::new(false),
            _unfinished: process::unfinished(format!(
                "the user `{USER}` and its server are left to the next check, which removes them"
            )),
        };
        user.end_server(until.within(START))?;
        user.ask("DELETE", &format!("users/{USER}"), &[204, 404], until)?;
        user.is_there.set(true);

        user.ask("POST", &format!("users/{USER}"), &[201], until)?;
        Ok(user)
    }

    /// Returns when the server is ready; with an error in the words of the spawner, or of its pod, as soon as it certainly
    /// will not be.
    pub(crate) fn start_server(&self, until: Until) -> Result<()> {
        let until = until.within(START);
        let path = format!("users/{USER}/server");
        let answer = self.hub.address.ask(
            "POST",
            &format!("/hub/api/{path}"),
            self.hub.token,
            None,
            until.within(ANSWER),
        )?;
        let failed = answer.status() == 500;
        match expect(HUB, "POST", &path, &answer, &[201, 202]) {
            // If a start failed at once, its progress tells why.
            Err(err) if failed => self.follow_start(until).and(Err(err)),
            Err(err) => Err(err),
            Ok(_) => self.follow_start(until),
        }
    }

    /// Follows the server's start. A load balancer cuts long answers, and behind a proxy a hub that is gone is only silent:
    /// so the hub is asked again and again, and continues where it was.
    fn follow_start(&self, until: Until) -> Result<()> {
        let tell = self.hub.tell;
        let mut start = Start::new(self.hub);
        loop {
            let event =
                busy::wait_while_busy(until, tell, || self.decisive_event(&mut start, until));
            let cut = match event {
                Ok(event) if event["ready"] == true => return Ok(()),
                Ok(event) => return Err(start.failed(&event)),
                Err(err) if err.is::<Busy>() => return Err(err),
                Err(err) => err,
            };
            start.look(tell)?;
            // Before an error that is nothing but the end of the time.
            let what = format!("the server's start ({})", start.last);
            until
                .check(&what)
                .map_err(|err| anyhow!("{err}{}", start.of_pod()))?;
            ensure!(
                start.heard.elapsed() < GONE,
                "the hub went away in the server's start ({}): {cut:#}",
                start.last
            );
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// The event that decides a start; what is known of the start is updated by those before it. An error means that the
    /// stream was cut.
    fn decisive_event(&self, start: &mut Start, until: Until) -> Result<Value> {
        let path = format!("/hub/api/users/{USER}/server/progress");
        let HubApi { address, token, .. } = self.hub;
        let answer = address.stream(&path, token, until.within(ANSWER), STREAM);
        let answer = answer.inspect_err(|err| {
            if err.is::<Busy>() {
                start.heard = Instant::now();
            }
        })?;
        let mut lines = BufReader::new(answer.into_body().into_reader()).lines();
        while let Some(Ok(line)) = lines.next() {
            until.check("it")?;
            let Some(event) = event_in(&line)? else {
                continue;
            };
            if event["ready"] == true || event["failed"] == true {
                return Ok(event);
            }
            let message = event["message"].as_str().unwrap_or_default();
            message.clone_into(&mut start.last);
        }
        start.heard = Instant::now();
        bail!("its events end")
    }

    /// Starts a kernel of the server's default kind.
    pub(crate) fn start_kernel(&self, until: Until) -> Result<Kernel<'_>> {
        let until = until.within(ANSWER * 2);
        let token = self.make_token(until)?;
        let specs = self.ask_server("GET", "kernelspecs", &token, None, until)?;
        let name = specs["default"].as_str().unwrap_or_default();
        ensure!(
            specs["kernelspecs"][name].is_object(),
            "the server has no kernel: its image lacks one"
        );
        let body = json!({"name": name});
        let kernel = self.ask_server("POST", "kernels", &token, Some(&body), until)?;
        let id = kernel["id"].as_str().context("the kernel has no id")?;
        let path = format!("/user/{USER}/api/kernels/{id}");
        Kernel::connect(self.hub.address, path, token, until, self.hub.tell)
    }

    /// A token that can do nothing but what the user can: use its server.
    fn make_token(&self, until: Until) -> Result<Secret> {
        let answer = self.hub.address.ask(
            "POST",
            &format!("/hub/api/users/{USER}/tokens"),
            self.hub.token,
            Some(&json!({"note": "health check", "expires_in": 3600})),
            until,
        )?;
        let made = expect(HUB, "POST", "a token", &answer, &[200, 201])?;
        let token = made["token"].as_str();
        let token = token.context("the hub gives the user no token")?;
        Ok(Secret::new(token.to_owned()))
    }

    /// Asks the user's server, which must succeed.
    fn ask_server(
        &self,
        method: &str,
        path: &str,
        token: &Secret,
        body: Option<&Value>,
        until: Until,
    ) -> Result<Value> {
        let whole = format!("/user/{USER}/api/{path}");
        let answer = self.hub.address.ask(method, &whole, token, body, until)?;
        expect("server", method, path, &answer, &[200, 201])
    }

    /// Stops the server and deletes the user.
    pub(crate) fn remove(&self, until: Until) -> Result<()> {
        self.end_server(until.within(STOP))?;
        self.ask("DELETE", &format!("users/{USER}"), &[204, 404], until)?;
        self.is_there.set(false);
        Ok(())
    }

    /// Stops the server, also while it starts, and waits for its end.
    fn end_server(&self, until: Until) -> Result<()> {
        loop {
            let user = self.ask("GET", &format!("users/{USER}"), &[200, 404], until)?;
            let server = &user["servers"][""];
            if !server.is_object() {
                return Ok(());
            }
            if server["pending"] != "stop" {
                let mut statuses = vec![202, 204, 400, 404];
                // A hub may fail to end a start, and an older one refuses to.
                statuses.extend((!server["pending"].is_null()).then_some(500));
                self.ask("DELETE", &format!("users/{USER}/server"), &statuses, until)?;
            }
            until.check(&format!(
                "the end of the server ({})",
                server["pending"].as_str().unwrap_or("stop")
            ))?;
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Asks the hub as its service. It must answer with one of these statuses.
    fn ask(&self, method: &str, path: &str, statuses: &[u16], until: Until) -> Result<Value> {
        let answer = self.hub.address.ask(
            method,
            &format!("/hub/api/{path}"),
            self.hub.token,
            None,
            until.within(ANSWER),
        )?;
        expect(HUB, method, path, &answer, statuses)
    }
}

impl Drop for TestUser<'_> {
    fn drop(&mut self) {
        let tell = self.hub.tell;
        let stopped = OnceCell::new();
        let may_go_on = || {
            if process::check_stopped().is_ok() {
                return Ok(());
            }
            let since: &Instant = stopped.get_or_init(|| {
                let limit = HURRY.as_secs();
                tell(&format!(
                    "stopping the server of the user `{USER}`, {limit} s at most"
                ));
                Instant::now()
            });
            ensure!(since.elapsed() < HURRY, "it takes too long");
            Ok(())
        };
        let started = Instant::now();
        let until = Until {
            may_go_on: &may_go_on,
            ..Until::after(STOP)
        };
        while self.is_there.get()
            && self.hub.lease.is_none_or(|it| it.check().is_ok())
            && let Err(err) = self.remove(until)
        {
            if started.elapsed() > GONE {
                return tell(&format!(
                    "cannot remove the user `{USER}`, which the next check does: {err:#}"
                ));
            }
            thread::sleep(Duration::from_millis(500));
        }
    }
}

/// The event in a line of the hub's progress; none in the lines between events.
fn event_in(line: &str) -> Result<Option<Value>> {
    let event = line.strip_prefix("data: ").map(serde_json::from_str);
    event.transpose().context("the hub's progress is not JSON")
}

/// The content of an answer of the hub or of a user's server, which must have one of these statuses.
fn expect(
    who: &str,
    method: &str,
    path: &str,
    answer: &Response<String>,
    statuses: &[u16],
) -> Result<Value> {
    let status = answer.status();
    let json = address::json_or_null(answer);
    // Others than JupyterHub know neither its users nor its way to say so.
    let is_elsewhere = who == HUB && status == 404 && json["status"] != 404;
    if is_elsewhere {
        bail!("{method} {path}: {status} is not an answer of JupyterHub\nhint: {HINT}");
    }
    if statuses.contains(&status.as_u16()) {
        return Ok(json);
    }
    bail!("{method} {path}: {}", refusal(who, status, &json))
}

/// What an answer says that has a status of failure.
fn refusal(who: &str, status: StatusCode, json: &Value) -> String {
    let answers = match json["message"].as_str() {
        Some(message) => format!("the {who} answers {status}: {message}"),
        None => format!("the {who} answers {status}"),
    };
    match status.as_u16() {
        401 | 403 if who == HUB => {
            format!("its service `hub-health` lacks the rights for that: {answers}")
        }
        502..=504 => {
            format!("the proxy answers {status}: the hub or the server behind it is away")
        }
        _ => answers,
    }
}
