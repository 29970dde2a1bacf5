//! The hub's API, as the user that checks it: <https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html>.

use std::{
    cell::Cell,
    io::{BufRead, BufReader},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use ureq::{Agent, Body, http::Response};
use xshell::{Shell, cmd};

use super::{Until, kernel::Kernel};
use crate::{
    http,
    process::{self, Beside},
    secrets::Mask,
};

/// Nobody can log in with this name: it is blocked in the hub's configuration.
const USER: &str = "deployment-service-check";

/// How long the hub may take for an answer, and a server for its start and its end.
const ANSWER: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(300);
const STOP: Duration = Duration::from_secs(60);

/// Where the hub is.
pub(super) struct Address {
    /// Without a slash at its end.
    url: String,
    /// The same for messages.
    pub(super) shown: String,
    _forward: Option<Beside>,
}

impl Address {
    pub(super) fn public(url: String, mask: &Mask) -> Address {
        Address { shown: mask.hide(&url), url, _forward: None }
    }

    /// Through the API server, to the service that the hub's proxy has.
    pub(super) fn forwarded(sh: &Shell, hub: &str) -> Result<Address> {
        let mut forward =
            process::start(sh, cmd!(sh, "kubectl port-forward --namespace {hub} service/proxy-public :80"))?;
        let until = Until { at: Instant::now() + ANSWER, heeds_signals: true };
        loop {
            if let Some(said) = forward.ended()? {
                bail!("`kubectl port-forward` ended: {}", said.trim());
            }
            // "Forwarding from 127.0.0.1:43210 -> 8000"
            let said = forward.written()?;
            if let Some(port) = said.lines().find_map(|it| it.strip_prefix("Forwarding from 127.0.0.1:")) {
                let port = port.split(' ').next().unwrap_or_default();
                let url = format!("http://127.0.0.1:{port}");
                return Ok(Address { shown: url.clone(), url, _forward: Some(forward) });
            }
            until.check("`kubectl port-forward`")?;
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The user that checks; deleted, and its server stopped, with this.
pub(super) struct TestUser<'a> {
    address: &'a Address,
    token: &'a str,
    agent: Agent,
    is_there: Cell<bool>,
}

impl<'a> TestUser<'a> {
    /// Makes it anew: what an earlier check left is removed first.
    pub(super) fn make(address: &'a Address, token: &'a str, until: Until) -> Result<TestUser<'a>> {
        let user = TestUser { address, token, agent: http::agent(), is_there: Cell::new(false) };
        user.end_server(until.within(START))?;
        user.ask("DELETE", &format!("users/{USER}"), &[204, 404], until)?;
        user.is_there.set(true);

        user.ask("POST", &format!("users/{USER}"), &[201], until)?;
        Ok(user)
    }

    /// Returns when the server is ready; as soon as it certainly won't be, with the spawner's own words.
    pub(super) fn start_server(&self, until: Until) -> Result<()> {
        let until = until.within(START);
        self.ask("POST", &format!("users/{USER}/server"), &[201, 202], until)?;
        let path = format!("/hub/api/users/{USER}/server/progress");
        let answer = self.exchange("GET", &path, self.token, None, until)?;
        ensure!(answer.status().is_success(), "`GET {path}` answers {}", answer.status());
        let mut last = String::new();
        for line in BufReader::new(answer.into_body().into_reader()).lines() {
            until.check(&format!("the server's start ({last})"))?;
            let line = line.map_err(|err| {
                anyhow!("the server's start took too long, or the hub went away ({last}): {err}")
            })?;
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
        let made =
            self.exchange("POST", &format!("/hub/api/users/{USER}/tokens"), self.token, Some(&body), until)?;
        let made = expect("POST", "a token", made, &[200, 201])?;
        let token = made["token"].as_str().context("the hub gives the user no token")?;
        let server = format!("/user/{USER}/api");
        let specs = self.exchange("GET", &format!("{server}/kernelspecs"), token, None, until)?;
        let specs = expect("GET", "kernelspecs", specs, &[200])?;
        let name = specs["default"].as_str().unwrap_or_default();
        ensure!(specs["kernelspecs"][name].is_object(), "the server has no kernel: its image lacks one");
        let kernel =
            self.exchange("POST", &format!("{server}/kernels"), token, Some(&json!({"name": name})), until)?;
        let kernel = expect("POST", "kernels", kernel, &[201])?;
        let id = kernel["id"].as_str().context("the kernel has no id")?;
        Kernel::connect(&format!("{}{server}/kernels/{id}/channels", self.address.url), token, until)
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
            self.exchange(method, &format!("/hub/api/{path}"), self.token, None, until.within(ANSWER))?;
        expect(method, path, answer, statuses)
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
        until: Until,
    ) -> Result<Response<Body>> {
        let body = body.map_or_else(String::new, Value::to_string);
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address.url))
            .header("Authorization", format!("token {token}"))
            .header("Content-Type", "application/json")
            .body(body)
            .with_context(|| format!("`{}` isn't an address", self.address.shown))?;
        let left = Some(until.left());
        let request = self.agent.configure_request(request).timeout_global(left);
        let request = request.timeout_recv_response(left).timeout_recv_body(left).build();
        self.agent.run(request).map_err(|err| self.unreachable(method, path, &err))
    }

    fn unreachable(&self, method: &str, path: &str, err: &ureq::Error) -> anyhow::Error {
        let said = err.to_string();
        let what = if said.contains("certificate") {
            "the certificate can't be verified"
        } else {
            "the hub can't be reached"
        };
        anyhow!("{what}: {method} {}{path}: {said}", self.address.shown)
    }
}

impl Drop for TestUser<'_> {
    fn drop(&mut self) {
        if self.is_there.get() {
            let until = Until { at: Instant::now() + STOP, heeds_signals: false };
            if let Err(err) = self.remove(until) {
                say!("the user `{USER}` is left, which the next check removes: {err:#}");
            }
        }
    }
}

/// The content of an answer with one of these statuses.
fn expect(method: &str, path: &str, mut answer: Response<Body>, statuses: &[u16]) -> Result<Value> {
    let status = answer.status();
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    if statuses.contains(&status.as_u16()) {
        return Ok(json);
    }
    let said = json["message"].as_str().unwrap_or_default();
    match status.as_u16() {
        401 | 403 => bail!(
            "{method} {path}: the hub answers {status}: its service `hub-health` lacks the rights for that {said}"
        ),
        502..=504 => {
            bail!("{method} {path}: the proxy answers {status}: the hub or the server behind it is away")
        }
        _ => bail!("{method} {path}: the hub answers {status} {said}"),
    }
}
