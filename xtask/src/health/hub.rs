//! The hub's API, for a user that checks the hub: <https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html>.

use std::{
    cell::Cell,
    io::{BufRead, BufReader},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use ureq::{
    Body,
    http::{Response, StatusCode},
};

use crate::{
    health::{
        address::{Address, HINT},
        kernel::Kernel,
    },
    kubernetes::lease::Lease,
    machine::until::Until,
    secrets::{Mask, Secret},
    services::http,
};

/// Nobody can log in with this name: it is blocked in the hub's configuration.
const USER: &str = "deployment-service-check";

/// How long the hub may take for an answer, and a server for its start and its end. The hub itself gives up most starts
/// before, and says so.
const ANSWER: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(540);
const STOP: Duration = Duration::from_secs(60);

/// How long the events of one answer are followed, and how long a hub that was there may be away.
const STREAM: Duration = Duration::from_secs(2);
const GONE: Duration = Duration::from_secs(3);

/// The name of the hub in messages, beside that of a user's server.
const HUB: &str = "hub";

/// The user that checks. When this is dropped the user is deleted and its server stopped, unless it may be somebody
/// else's by then.
pub(crate) struct TestUser<'a> {
    address: &'a Address,
    token: &'a Secret,
    mask: &'a Mask,
    lease: Option<&'a Lease>,
    is_there: Cell<bool>,
}

/// What is known of a server's start.
struct Start {
    /// The newest event's message.
    last: String,
    /// When the hub answered for the last time.
    heard: Instant,
}

impl Start {
    /// The error of a start that failed with this event.
    fn failed(&self, event: &Value) -> Error {
        let message = event["message"].as_str().unwrap_or_default();
        // The spawner's events have the reason: an image that can't be pulled, nodes that are full.
        let reason = match self.last.as_str() {
            "" => String::new(),
            last => format!("; before that: {last}"),
        };
        anyhow!("the server did not start: {message}{reason}")
    }
}

impl<'a> TestUser<'a> {
    /// Creates the user. What an earlier check left is removed first.
    pub(crate) fn make(
        address: &'a Address,
        token: &'a Secret,
        mask: &'a Mask,
        lease: Option<&'a Lease>,
        until: Until,
    ) -> Result<TestUser<'a>> {
        let user = TestUser {
            address,
            token,
            mask,
            lease,
            is_there: Cell::new(false),
        };
        user.end_server(until.within(START))?;
        user.ask("DELETE", &format!("users/{USER}"), &[204, 404], until)?;
        user.is_there.set(true);

        user.ask("POST", &format!("users/{USER}"), &[201], until)?;
        Ok(user)
    }

    /// Returns when the server is ready; with an error in the spawner's own words as soon as it certainly will not be.
    pub(crate) fn start_server(&self, until: Until) -> Result<()> {
        let until = until.within(START);
        let path = format!("users/{USER}/server");
        let answer = self.address.ask(
            "POST",
            &format!("/hub/api/{path}"),
            self.token,
            None,
            until.within(ANSWER),
        )?;
        let failed = answer.status() == 500;
        match expect(HUB, "POST", &path, answer, &[201, 202]) {
            // If a start failed at once, its progress tells why.
            Err(err) if failed => self.follow_start(until).and(Err(err)),
            Err(err) => Err(err),
            Ok(_) => self.follow_start(until),
        }
    }

    /// Follows the server's start. A load balancer cuts long answers, and behind a proxy a hub that is gone is only silent:
    /// so the hub is asked again and again, and continues where it was.
    fn follow_start(&self, until: Until) -> Result<()> {
        let mut start = Start {
            last: String::new(),
            heard: Instant::now(),
        };
        loop {
            let cut = match self.decisive_event(&mut start, until) {
                Ok(event) if event["ready"] == true => return Ok(()),
                Ok(event) => return Err(start.failed(&event)),
                Err(err) => err,
            };
            // Before an error that is nothing but the end of the time.
            until.check(&format!("the server's start ({})", start.last))?;
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
        let answer =
            self.address
                .send("GET", &path, self.token, None, until.within(ANSWER), STREAM)?;
        if !answer.status().is_success() {
            return expect(HUB, "GET", &path, answer, &[]);
        }
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
        Kernel::connect(self.address, path, token, until)
    }

    /// A token that can do nothing but what the user can: use its server.
    fn make_token(&self, until: Until) -> Result<Secret> {
        let answer = self.address.ask(
            "POST",
            &format!("/hub/api/users/{USER}/tokens"),
            self.token,
            Some(&json!({"note": "health check", "expires_in": 3600})),
            until,
        )?;
        let made = expect(HUB, "POST", "a token", answer, &[200, 201])?;
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
        let answer = self.address.ask(method, &whole, token, body, until)?;
        expect("server", method, path, answer, &[200, 201])
    }

    /// Stops the server and deletes the user.
    pub(crate) fn remove(&self, until: Until) -> Result<()> {
        self.end_server(until.within(STOP))?;
        self.ask("DELETE", &format!("users/{USER}"), &[204, 404], until)?;
        self.is_there.set(false);
        Ok(())
    }

    /// Waits for a server that is about to start or to stop, and stops it.
    fn end_server(&self, until: Until) -> Result<()> {
        loop {
            let user = self.ask("GET", &format!("users/{USER}"), &[200, 404], until)?;
            let server = &user["servers"][""];
            if !server.is_object() {
                return Ok(());
            }
            if server["pending"].is_null() {
                self.ask(
                    "DELETE",
                    &format!("users/{USER}/server"),
                    &[202, 204, 400, 404],
                    until,
                )?;
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
        let answer = self.address.ask(
            method,
            &format!("/hub/api/{path}"),
            self.token,
            None,
            until.within(ANSWER),
        )?;
        expect(HUB, method, path, answer, statuses)
    }
}

impl Drop for TestUser<'_> {
    fn drop(&mut self) {
        let started = Instant::now();
        let until = Until::after_in_any_case(STOP);
        while self.is_there.get()
            && self.lease.is_none_or(|it| it.check().is_ok())
            && let Err(err) = self.remove(until)
        {
            if started.elapsed() > GONE {
                let reason = self.mask.hide(&format!("{err:#}"));
                return say!(
                    "cannot remove the user `{USER}`, which the next check does: {reason}"
                );
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
    mut answer: Response<Body>,
    statuses: &[u16],
) -> Result<Value> {
    let status = answer.status();
    let json = http::json_or_null(&mut answer);
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
