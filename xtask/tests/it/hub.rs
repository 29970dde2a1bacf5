//! A person at work on a hub that really runs: over HTTP and a kernel's websocket.

use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::ClientRequestBuilder;
use ureq::Agent;

use crate::repo::wait_until;

/// Somebody who is logged in, with a token of their own.
pub(crate) struct Person {
    pub(crate) name: String,
    hub: String,
    token: String,
    agent: Agent,
}

/// A kernel of a person's server.
pub(crate) struct Kernel {
    socket: tungstenite::WebSocket<std::net::TcpStream>,
    cells: usize,
}

impl Person {
    /// Logs in as a browser does: by the form, with the cookies that the hub sets.
    pub(crate) fn log_in(hub: &str, name: &str, password: &str) -> Result<Person, String> {
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        // A hub that has just become ready is reached through its Service a moment later; until then the proxy says 503.
        let page = || {
            agent
                .get(format!("{hub}/hub/login"))
                .call()
                .is_ok_and(|it| it.status() == 200)
        };
        wait_until(&format!("the login page of {hub}"), page);
        let xsrf = cookie(&agent, "_xsrf").ok_or("the login page sets no cookie")?;
        let answer = agent
            .post(format!("{hub}/hub/login"))
            .send_form([("username", name), ("password", password), ("_xsrf", &xsrf)])
            .map_err(|err| err.to_string())?;
        if answer.status() != 302 {
            return Err(format!("{}", answer.status()));
        }
        // The session has a new one.
        let xsrf = cookie(&agent, "_xsrf").unwrap();
        let mut answer = agent
            .post(format!("{hub}/hub/api/users/{name}/tokens"))
            .header("X-XSRFToken", &xsrf)
            .send_json(json!({}))
            .map_err(|err| err.to_string())?;
        let text = answer.body_mut().read_to_string().unwrap();
        let token = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|it| Some(it["token"].as_str()?.to_owned()));
        let token = token.ok_or(text)?;
        Ok(Person {
            name: name.to_owned(),
            hub: hub.to_owned(),
            token,
            agent,
        })
    }

    /// Calls an API, which must answer with success.
    pub(crate) fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.hub))
            .header("Authorization", format!("token {}", self.token))
            .body(if body.is_null() {
                String::new()
            } else {
                body.to_string()
            })
            .unwrap();
        let mut answer = self
            .agent
            .run(request)
            .unwrap_or_else(|err| panic!("{method} {path}: {err}"));
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(
            answer.status().is_success(),
            "{method} {path}: {} {text}",
            answer.status()
        );
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(crate) fn server_is_ready(&self) -> bool {
        let user = self.call("GET", &format!("/hub/api/users/{}", self.name), Value::Null);
        user["servers"][""]["ready"] == true
    }

    /// Whether the hub's proxy leads to the person's server.
    pub(crate) fn reaches_server(&self) -> bool {
        let server = self
            .agent
            .get(format!("{}/user/{}/api", self.hub, self.name))
            .header("Authorization", format!("token {}", self.token))
            .call();
        server.is_ok_and(|it| it.status() == 200)
    }

    pub(crate) fn start_server(&self) {
        self.call(
            "POST",
            &format!("/hub/api/users/{}/server", self.name),
            json!({}),
        );
        wait_until(&format!("the server of {}", self.name), || {
            self.server_is_ready()
        });
    }

    pub(crate) fn stop_server(&self) {
        self.call(
            "DELETE",
            &format!("/hub/api/users/{}/server", self.name),
            Value::Null,
        );
    }

    pub(crate) fn start_kernel(&self) -> Kernel {
        let kernel = self.call(
            "POST",
            &format!("/user/{}/api/kernels", self.name),
            json!({}),
        );
        let host = self.hub.strip_prefix("http://").unwrap();
        let (name, token, id) = (&self.name, &self.token, kernel["id"].as_str().unwrap());
        let url = format!("ws://{host}/user/{name}/api/kernels/{id}/channels");
        let request = ClientRequestBuilder::new(url.parse().unwrap())
            .with_header("Authorization", format!("token {token}"));
        let stream = std::net::TcpStream::connect(host).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        Kernel { socket, cells: 0 }
    }
}

impl Kernel {
    /// Runs a cell to its end, and returns what it wrote.
    pub(crate) fn run(&mut self, code: &str) -> String {
        self.cells += 1;
        let id = format!("cell-{}", self.cells);
        let request = json!({
            "channel": "shell",
            "header": {
                "msg_id": id, "msg_type": "execute_request", "version": "5.3", "username": "", "session": "test",
                "date": "2026-01-01T00:00:00Z",
            },
            "parent_header": {}, "metadata": {}, "buffers": [],
            "content": {
                "code": code, "silent": false, "store_history": false, "user_expressions": {}, "allow_stdin": false,
            },
        });
        self.socket.send(request.to_string().into()).unwrap();
        let mut written = String::new();
        loop {
            let message = self.socket.read().unwrap();
            let tungstenite::Message::Text(text) = message else {
                continue;
            };
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["parent_header"]["msg_id"] != id.as_str() {
                continue;
            }
            let content = &message["content"];
            match message["msg_type"].as_str().unwrap() {
                "stream" => written += content["text"].as_str().unwrap(),
                "error" => panic!("{code}: {content}"),
                "status" if content["execution_state"] == "idle" => return written,
                _ => {}
            }
        }
    }
}

fn cookie(agent: &Agent, name: &str) -> Option<String> {
    let jar = agent.cookie_jar_lock();
    // The path decides which of two is sent; the hub's own comes last.
    jar.iter()
        .filter(|it| it.name() == name)
        .last()
        .map(|it| it.value().to_owned())
}
