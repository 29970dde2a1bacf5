//! A kernel, by its messages: <https://jupyter-client.readthedocs.io/en/stable/messaging.html>.

use std::{
    io, mem,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::{
    health::address::{Address, Stream},
    machine::until::Until,
};

/// How long a cell that is interrupted may take to end in order: a Dask cluster goes with it.
const GRACE: Duration = Duration::from_secs(8);

pub(crate) struct Kernel<'a> {
    address: &'a Address,
    /// Of the server's API.
    path: String,
    token: String,
    socket: WebSocket<Box<dyn Stream>>,
    cells: usize,
}

/// What a cell wrote and showed, as a notebook has it.
pub(crate) type Output = Result<Vec<Value>, Failure>;

/// How a cell failed: in its own words, without a terminal's codes.
pub(crate) struct Failure(pub(crate) String);

impl Kernel<'_> {
    /// To the channels of a kernel that was just started. A server opens them when the kernel answers, and tries one that
    /// dies a few times anew before it forgets it.
    pub(crate) fn connect(
        address: &Address,
        path: String,
        token: String,
        until: Until,
    ) -> Result<Kernel<'_>> {
        let state = || {
            until.check("the kernel's start")?;
            let mut answer = address.ask("GET", &path, &token, None, until)?;
            ensure!(
                answer.status() != 404,
                "the kernel doesn't start: it dies each time the server tries it"
            );
            let kernel = answer.body_mut().read_to_string().unwrap_or_default();
            let kernel: Value = serde_json::from_str(&kernel).unwrap_or_default();
            Ok(kernel["execution_state"]
                .as_str()
                .unwrap_or("unknown")
                .to_owned())
        };
        let socket = address.websocket(&format!("{path}/channels"), &token, until, || {
            state().map(|_| ())
        });
        let socket = socket.map_err(|err| match state() {
            Ok(state) => err.context(format!(
                "the kernel doesn't start, and is `{state}` to the server"
            )),
            Err(err) => err,
        })?;
        Ok(Kernel {
            address,
            path,
            token,
            socket,
            cells: 0,
        })
    }

    /// Runs a cell until it's answered and the kernel is idle again. An error means that the kernel isn't there any more, or
    /// still at work when the time is over.
    pub(crate) fn run(&mut self, code: &str, until: Until) -> Result<Output> {
        self.cells += 1;
        let id = format!("cell-{}", self.cells);
        let request = json!({
            "channel": "shell",
            "header": {
                "msg_id": id, "msg_type": "execute_request", "version": "5.3", "username": "", "session": "xtask",
                "date": "2000-01-01T00:00:00Z",
            },
            "parent_header": {}, "metadata": {}, "buffers": [],
            "content": {
                "code": code, "silent": false, "store_history": true, "user_expressions": {}, "allow_stdin": false,
                "stop_on_error": true,
            },
        });
        self.socket
            .send(request.to_string().into())
            .context("the kernel's websocket is closed")?;
        let output = self.output(&id, until);
        // Not of a kernel that is away.
        if output.is_err() && until.check("it").is_err() {
            let until = Until {
                at: Instant::now() + GRACE,
                heeds_signals: false,
            };
            let path = format!("{}/interrupt", self.path);
            if self
                .address
                .ask("POST", &path, &self.token, None, until)
                .is_ok()
            {
                let _ = self.output(&id, until);
            }
        }
        output
    }

    fn output(&mut self, id: &str, until: Until) -> Result<Output> {
        let (mut outputs, mut failure) = (Vec::<Value>::new(), None);
        // When there's something new.
        let mut is_to_clear = false;
        let (mut is_answered, mut is_idle) = (false, false);
        while !(is_answered && is_idle) {
            let Some(message) = self.next(until)? else {
                continue;
            };
            let (kind, content) = (
                message["msg_type"].as_str().unwrap_or_default(),
                &message["content"],
            );
            let state = content["execution_state"].as_str().unwrap_or_default();
            if kind == "status" && ["dead", "restarting", "autorestarting"].contains(&state) {
                bail!("the kernel died");
            }
            if message["parent_header"]["msg_id"] != id {
                continue;
            }
            match kind {
                "stream" | "execute_result" | "display_data" => {
                    if mem::take(&mut is_to_clear) {
                        outputs.clear();
                    }
                    outputs.push(content.clone());
                }
                "update_display_data" => {
                    let id = &content["transient"]["display_id"];
                    for output in outputs
                        .iter_mut()
                        .filter(|it| it["transient"]["display_id"] == *id)
                    {
                        output["data"] = content["data"].clone();
                    }
                }
                "clear_output" if content["wait"] == true => is_to_clear = true,
                "clear_output" => outputs.clear(),
                "error" => failure = Some(told(content)),
                "input_request" => {
                    failure = Some("it asks for input, and nobody is there".to_owned())
                }
                "execute_reply" => {
                    is_answered = true;
                    if content["status"] != "ok" && failure.is_none() {
                        failure = Some(told(content));
                    }
                }
                "status" if state == "idle" => is_idle = true,
                _ => {}
            }
        }
        Ok(match failure {
            Some(failure) => Err(Failure(failure)),
            None => Ok(outputs),
        })
    }

    /// The next message, if one comes soon.
    fn next(&mut self, until: Until) -> Result<Option<Value>> {
        until.check("the cell")?;
        match self.socket.read() {
            Ok(Message::Text(text)) => Ok(serde_json::from_str(&text).ok()),
            Ok(Message::Close(_)) => {
                bail!("the kernel's websocket was closed in the middle of a cell")
            }
            Ok(_) => Ok(None),
            Err(tungstenite::Error::Io(err))
                if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&err.kind()) =>
            {
                Ok(None)
            }
            Err(err) => bail!("the kernel's websocket broke off in the middle of a cell: {err}"),
        }
    }
}

/// The name, value and traceback of an exception.
fn told(content: &Value) -> String {
    let text = |key: &str| content[key].as_str().unwrap_or_default();
    let traceback = content["traceback"].as_array().into_iter().flatten();
    let traceback: Vec<_> = traceback.filter_map(Value::as_str).collect();
    let codes = regex::Regex::new("\x1b\\[[0-9;]*[A-Za-z]").expect("it's a pattern");
    codes
        .replace_all(
            &format!(
                "{}: {}\n{}",
                text("ename"),
                text("evalue"),
                traceback.join("\n")
            ),
            "",
        )
        .into_owned()
}
