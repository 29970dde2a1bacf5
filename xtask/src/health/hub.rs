//! The hub's API, as the user that checks it: <https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html>.

use std::{
    cell::Cell,
    io::{BufRead, BufReader},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use ureq::{Body, http::Response};

use super::{
    Until,
    address::{Address, HINT},
    kernel::Kernel,
};
use crate::secrets::Mask;

/// Nobody can log in with this name: it is blocked in the hub's configuration.
const USER: &str = "deployment-service-check";

/// How long the hub may take for an answer, and a server for its start and its end. The hub itself gives most starts up
/// before, and says so.
const ANSWER: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(540);
const STOP: Duration = Duration::from_secs(60);

/// The user that checks; deleted, and its server stopped, with this.
pub(super) struct TestUser<'a> {
    address: &'a Address,
    token: &'a str,
    mask: &'a Mask,
    is_there: Cell<bool>,
}

impl<'a> TestUser<'a> {
    /// Makes it anew: what an earlier check left is removed first.
    pub(super) fn make(
        address: &'a Address,
        token: &'a str,
        mask: &'a Mask,
        until: Until,
    ) -> Result<TestUser<'a>> {
        let user = TestUser { address, token, mask, is_there: Cell::new(false) };
        user.end_server(until.within(START))?;
        user.ask("DELETE", &format!("users/{USER}"), &[204, 404], until)?;
        user.is_there.set(true);

        user.ask("POST", &format!("users/{USER}"), &[201], until)?;
        Ok(user)
    }

    /// Returns when the server is ready; as soon as it certainly won't be, with the spawner's own words.
    pub(super) fn start_server(&self, until: Until) -> Result<()> {
        let until = until.within(START);
        let asked = format!("users/{USER}/server");
        let answer =
            self.address.ask("POST", &format!("/hub/api/{asked}"), self.token, None, until.within(ANSWER))?;
        let failed = answer.status() == 500;
        match expect("POST", &asked, answer, &[201, 202]) {
            // Of a start that failed at once the progress tells why.
            Err(err) if failed => self.progress(until).and(Err(err)),
            Err(err) => Err(err),
            Ok(_) => self.progress(until),
        }
    }

    /// Follows the server's start.
    fn progress(&self, until: Until) -> Result<()> {
        let path = format!("/hub/api/users/{USER}/server/progress");
        let answer = self.address.ask("GET", &path, self.token, None, until)?;
        let answer = match answer.status().is_success() {
            true => answer,
            false => return expect("GET", &path, answer, &[]).map(|_| ()),
        };
        let mut last = String::new();
        for line in BufReader::new(answer.into_body().into_reader()).lines() {
            // Before an error that is nothing but the end of the time.
            until.check(&format!("the server's start ({last})"))?;
            let line =
                line.map_err(|err| anyhow!("the hub went away in the server's start ({last}): {err}"))?;
            let Some(event) = line.strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(event).context("the hub's progress isn't JSON")?;
            last = event["message"].as_str().unwrap_or_default().to_owned();
            if event["failed"] == true {
                bail!("the server doesn't start: {last}");
            }
            if event["ready"] == true {
                return Ok(());
            }
        }
        bail!("the hub no longer tells how the server's start goes on: {last}")
    }

    /// A kernel of the server's own kind, with a token for nothing but that server's user.
    pub(super) fn start_kernel(&self, until: Until) -> Result<Kernel> {
        let until = until.within(ANSWER * 2);
        let body = json!({"note": "health check", "expires_in": 3600});
        let made = self.address.ask(
            "POST",
            &format!("/hub/api/users/{USER}/tokens"),
            self.token,
            Some(&body),
            until,
        )?;
        let made = expect("POST", "a token", made, &[200, 201])?;
        let token = made["token"].as_str().context("the hub gives the user no token")?;
        let server = format!("/user/{USER}/api");
        let specs = self.address.ask("GET", &format!("{server}/kernelspecs"), token, None, until)?;
        let specs = expect("GET", "kernelspecs", specs, &[200])?;
        let name = specs["default"].as_str().unwrap_or_default();
        ensure!(specs["kernelspecs"][name].is_object(), "the server has no kernel: its image lacks one");
        let kernel = self.address.ask(
            "POST",
            &format!("{server}/kernels"),
            token,
            Some(&json!({"name": name})),
            until,
        )?;
        let kernel = expect("POST", "kernels", kernel, &[201])?;
        let id = kernel["id"].as_str().context("the kernel has no id")?;
        Kernel::connect(self.address, &format!("{server}/kernels/{id}/channels"), token, until)
    }

    /// Stops the server and deletes the user.
    pub(super) fn remove(&self, until: Until) -> Result<()> {
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
                self.ask("DELETE", &format!("users/{USER}/server"), &[202, 204, 400, 404], until)?;
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
        let answer =
            self.address.ask(method, &format!("/hub/api/{path}"), self.token, None, until.within(ANSWER))?;
        expect(method, path, answer, statuses)
    }
}

impl Drop for TestUser<'_> {
    fn drop(&mut self) {
        if self.is_there.get() {
            let until = Until { at: Instant::now() + STOP, heeds_signals: false };
            if let Err(err) = self.remove(until) {
                let said = self.mask.hide(&format!("{err:#}"));
                say!("the user `{USER}` is left, which the next check removes: {said}");
            }
        }
    }
}

/// The content of an answer with one of these statuses.
fn expect(method: &str, path: &str, mut answer: Response<Body>, statuses: &[u16]) -> Result<Value> {
    let status = answer.status();
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    // Others than JupyterHub know neither its users nor its way to say so.
    let is_elsewhere = status == 404 && json["status"] != 404;
    if statuses.contains(&status.as_u16()) && !is_elsewhere {
        return Ok(json);
    }
    let said = json["message"].as_str().unwrap_or_default();
    match status.as_u16() {
        _ if is_elsewhere => bail!("{method} {path}: who answers {status} isn't JupyterHub\nhint: {HINT}"),
        401 | 403 => bail!(
            "{method} {path}: the hub answers {status}: its service `hub-health` lacks the rights for that {said}"
        ),
        502..=504 => {
            bail!("{method} {path}: the proxy answers {status}: the hub or the server behind it is away")
        }
        _ => bail!("{method} {path}: the hub answers {status} {said}"),
    }
}
