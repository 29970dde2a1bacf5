//! The hub's API, as the user that checks it: <https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html>.

use std::{
    cell::Cell,
    io::{BufRead, BufReader},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use ureq::{Body, http::Response};

use crate::{
    health::{
        address::{Address, HINT},
        kernel::Kernel,
    },
    machine::until::Until,
    secrets::Mask,
};

/// Nobody can log in with this name: it is blocked in the hub's configuration.
const USER: &str = "deployment-service-check";

/// How long the hub may take for an answer, and a server for its start and its end. The hub itself gives most starts up
/// before, and says so.
const ANSWER: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(540);
const STOP: Duration = Duration::from_secs(60);

/// How long the events of one answer are followed, and how long it's tried to reach a hub again that was there.
const STREAM: Duration = Duration::from_secs(2);
const GONE: Duration = Duration::from_secs(3);

/// Who is asked with the service's token.
const HUB: &str = "hub";

/// The user that checks; deleted, and its server stopped, with this.
pub(crate) struct TestUser<'a> {
    address: &'a Address,
    token: &'a str,
    mask: &'a Mask,
    is_there: Cell<bool>,
}

impl<'a> TestUser<'a> {
    /// Makes it anew: what an earlier check left is removed first.
    pub(crate) fn make(
        address: &'a Address,
        token: &'a str,
        mask: &'a Mask,
        until: Until,
    ) -> Result<TestUser<'a>> {
        let user = TestUser {
            address,
            token,
            mask,
            is_there: Cell::new(false),
        };
        user.end_server(until.within(START))?;
        user.ask("DELETE", &format!("users/{USER}"), &[204, 404], until)?;
        user.is_there.set(true);

        user.ask("POST", &format!("users/{USER}"), &[201], until)?;
        Ok(user)
    }

    /// Returns when the server is ready; as soon as it certainly won't be, with the spawner's own words.
    pub(crate) fn start_server(&self, until: Until) -> Result<()> {
        let until = until.within(START);
        let asked = format!("users/{USER}/server");
        let answer = self.address.ask(
            "POST",
            &format!("/hub/api/{asked}"),
            self.token,
            None,
            until.within(ANSWER),
        )?;
        let failed = answer.status() == 500;
        match expect(HUB, "POST", &asked, answer, &[201, 202]) {
            // Of a start that failed at once the progress tells why.
            Err(err) if failed => self.progress(until).and(Err(err)),
            Err(err) => Err(err),
            Ok(_) => self.progress(until),
        }
    }

    /// Follows the server's start. A load balancer cuts what takes long, and behind a proxy a hub that is gone is only
    /// silent: the hub is asked anew again and again, and goes on where it was.
    fn progress(&self, until: Until) -> Result<()> {
        let (mut last, mut heard) = (String::new(), Instant::now());
        loop {
            let cut = match self.decision(&mut last, &mut heard, until) {
                Ok(event) if event["ready"] == true => return Ok(()),
                Ok(event) => {
                    let said = event["message"].as_str().unwrap_or_default();
                    // The spawner's events have the reason: an image that can't be pulled, nodes that are full.
                    let reason = if last.is_empty() {
                        String::new()
                    } else {
                        format!("; before that: {last}")
                    };
                    bail!("the server doesn't start: {said}{reason}");
                }
                Err(err) => err,
            };
            // Before an error that is nothing but the end of the time.
            until.check(&format!("the server's start ({last})"))?;
            ensure!(
                heard.elapsed() < GONE,
                "the hub went away in the server's start ({last}): {cut:#}"
            );
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// The event that decides a start; the `last` one before it, and until when the hub was `heard`. An error means that
    /// the stream was cut.
    fn decision(&self, last: &mut String, heard: &mut Instant, until: Until) -> Result<Value> {
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
            let Some(event) = line.strip_prefix("data: ") else {
                continue;
            };
            let event: Value =
                serde_json::from_str(event).context("the hub's progress isn't JSON")?;
            if event["ready"] == true || event["failed"] == true {
                return Ok(event);
            }
            event["message"]
                .as_str()
                .unwrap_or_default()
                .clone_into(last);
        }
        *heard = Instant::now();
        bail!("its events end")
    }

    /// A kernel of the server's own kind, with a token for nothing but that server's user.
    pub(crate) fn start_kernel(&self, until: Until) -> Result<Kernel<'_>> {
        let until = until.within(ANSWER * 2);
        let body = json!({"note": "health check", "expires_in": 3600});
        let made = self.address.ask(
            "POST",
            &format!("/hub/api/users/{USER}/tokens"),
            self.token,
            Some(&body),
            until,
        )?;
        let made = expect(HUB, "POST", "a token", made, &[200, 201])?;
        let token = made["token"]
            .as_str()
            .context("the hub gives the user no token")?;
        let server = format!("/user/{USER}/api");
        let specs =
            self.address
                .ask("GET", &format!("{server}/kernelspecs"), token, None, until)?;
        let specs = expect("server", "GET", "kernelspecs", specs, &[200])?;
        let name = specs["default"].as_str().unwrap_or_default();
        ensure!(
            specs["kernelspecs"][name].is_object(),
            "the server has no kernel: its image lacks one"
        );
        let kernel = self.address.ask(
            "POST",
            &format!("{server}/kernels"),
            token,
            Some(&json!({"name": name})),
            until,
        )?;
        let kernel = expect("server", "POST", "kernels", kernel, &[201])?;
        let id = kernel["id"].as_str().context("the kernel has no id")?;
        Kernel::connect(
            self.address,
            format!("{server}/kernels/{id}"),
            token.to_owned(),
            until,
        )
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

    /// Asks the hub as its service, which must answer with one of these.
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
        let until = Until {
            at: started + STOP,
            heeds_signals: false,
        };
        while self.is_there.get()
            && let Err(err) = self.remove(until)
        {
            if started.elapsed() > GONE {
                let said = self.mask.hide(&format!("{err:#}"));
                return say!("the user `{USER}` is left, which the next check removes: {said}");
            }
            thread::sleep(Duration::from_millis(500));
        }
    }
}

/// The content of an answer with one of these statuses, of the hub or a user's server.
fn expect(
    who: &str,
    method: &str,
    path: &str,
    mut answer: Response<Body>,
    statuses: &[u16],
) -> Result<Value> {
    let status = answer.status();
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    // Others than JupyterHub know neither its users nor its way to say so.
    let is_elsewhere = who == HUB && status == 404 && json["status"] != 404;
    if statuses.contains(&status.as_u16()) && !is_elsewhere {
        return Ok(json);
    }
    let said = match json["message"].as_str() {
        Some(said) => format!("the {who} answers {status}: {said}"),
        None => format!("the {who} answers {status}"),
    };
    match status.as_u16() {
        _ if is_elsewhere => {
            bail!("{method} {path}: who answers {status} isn't JupyterHub\nhint: {HINT}")
        }
        401 | 403 if who == HUB => {
            bail!("{method} {path}: its service `hub-health` lacks the rights for that: {said}")
        }
        502..=504 => {
            bail!(
                "{method} {path}: the proxy answers {status}: the hub or the server behind it is away"
            )
        }
        _ => bail!("{method} {path}: {said}"),
    }
}
