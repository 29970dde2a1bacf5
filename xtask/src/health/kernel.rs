//! A kernel and its messages: <https://jupyter-client.readthedocs.io/en/stable/messaging.html>.

use std::{io, mem, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::{
    health::{
        address::{self, Address, Stream},
        busy::Busy,
    },
    machine::{process, until::Until},
    secrets::Secret,
};

/// How long a cell that is interrupted may take to end in order: a Dask cluster goes with it. Less once somebody wants us to
/// stop.
const GRACE: Duration = Duration::from_secs(8);
const HURRY: Duration = Duration::from_secs(3);

pub(crate) struct Kernel<'a> {
    address: &'a Address,
    /// The path of the kernel in the server's API.
    path: String,
    token: Secret,
    socket: WebSocket<Box<dyn Stream>>,
    cells: usize,
    /// Says what is going on.
    tell: &'a dyn Fn(&str),
}

/// What a cell wrote and showed, in the form of a notebook's outputs; or how it failed.
pub(crate) type Output = Result<Vec<Value>, Failure>;

/// How a cell failed: in its own words, without a terminal's codes.
pub(crate) struct Failure(pub(crate) String);

impl Kernel<'_> {
    /// Connects to the channels of a kernel that was just started. A server opens them when the kernel answers; a kernel
    /// that dies is started again a few times before the server forgets it.
    pub(crate) fn connect<'a>(
        address: &'a Address,
        path: String,
        token: Secret,
        until: Until,
        tell: &'a dyn Fn(&str),
    ) -> Result<Kernel<'a>> {
        let channels = format!("{path}/channels");
        let check_waiting = || state(address, &path, &token, until).map(|_| ());
        let socket = address
            .websocket(&channels, &token, until, check_waiting)
            .map_err(|err| match state(address, &path, &token, until) {
                Ok(_) if err.is::<Busy>() => err,
                Ok(state) => err.context(format!(
                    "the kernel did not start, and is `{state}` to the server"
                )),
                Err(err) => err,
            })?;
        Ok(Kernel {
            address,
            path,
            token,
            socket,
            cells: 0,
            tell,
        })
    }

    /// Runs a cell until it has replied and the kernel is idle again. An error means that the kernel is gone, or still busy
    /// when the time is over.
    pub(crate) fn run(&mut self, code: &str, until: Until) -> Result<Output> {
        self.cells += 1;
        let id = format!("cell-{}", self.cells);
        self.socket
            .send(execute_request(&id, code).to_string().into())
            .context("the kernel's websocket is closed")?;
        let output = self.output(&id, until);
        // A kernel that is gone cannot be interrupted.
        if output.is_err() && until.check("it").is_err() {
            self.interrupt(&id);
        }
        output
    }

    /// Interrupts a cell, and gives it a moment to end in order.
    fn interrupt(&mut self, id: &str) {
        let is_stopped = process::check_stopped().is_err();
        if is_stopped {
            (self.tell)("interrupting the notebook's cell");
        }
        let until = Until::after_in_any_case(if is_stopped { HURRY } else { GRACE });
        let path = format!("{}/interrupt", self.path);
        let answer = self.address.ask("POST", &path, &self.token, None, until);
        if answer.is_ok() {
            let _ = self.output(id, until);
        }
    }

    fn output(&mut self, id: &str, until: Until) -> Result<Output> {
        let mut cell = RunningCell::default();
        while !(cell.has_replied && cell.is_idle) {
            let Some(message) = self.next(until)? else {
                continue;
            };
            let state = &message["content"]["execution_state"];
            if message["msg_type"] == "status"
                && ["dead", "restarting", "autorestarting"].contains(&state.as_str().unwrap_or(""))
            {
                bail!("the kernel died");
            }
            if message["parent_header"]["msg_id"] == id {
                cell.take(&message);
            }
        }
        Ok(match cell.failure {
            Some(failure) => Err(Failure(failure)),
            None => Ok(cell.outputs),
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

/// What the server says of a kernel that starts: `starting`, `idle`, `unknown`.
fn state(address: &Address, path: &str, token: &Secret, until: Until) -> Result<String> {
    until.check("the kernel's start")?;
    let answer = address.ask("GET", path, token, None, until)?;
    ensure!(
        answer.status() != 404,
        "the kernel did not start: it dies each time the server tries it"
    );
    let kernel = address::json_or_null(&answer);
    let state = kernel["execution_state"].as_str();
    Ok(state.unwrap_or("unknown").to_owned())
}

/// <https://jupyter-client.readthedocs.io/en/stable/messaging.html#execute>
fn execute_request(id: &str, code: &str) -> Value {
    json!({
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
    })
}

/// A cell, as far as the kernel's messages tell.
#[derive(Default)]
struct RunningCell {
    outputs: Vec<Value>,
    failure: Option<String>,
    /// The next output replaces those before it.
    is_to_clear: bool,
    has_replied: bool,
    is_idle: bool,
}

impl RunningCell {
    /// Takes what a message says of the cell.
    fn take(&mut self, message: &Value) {
        let content = &message["content"];
        match message["msg_type"].as_str().unwrap_or_default() {
            "stream" | "execute_result" | "display_data" => {
                if mem::take(&mut self.is_to_clear) {
                    self.outputs.clear();
                }
                self.outputs.push(content.clone());
            }
            "update_display_data" => self.update(content),
            "clear_output" if content["wait"] == true => self.is_to_clear = true,
            "clear_output" => self.outputs.clear(),
            "error" => self.failure = Some(exception(content)),
            "input_request" => {
                self.failure = Some("it asks for input, and nobody is there".to_owned())
            }
            "execute_reply" => {
                self.has_replied = true;
                if content["status"] != "ok" && self.failure.is_none() {
                    self.failure = Some(exception(content));
                }
            }
            "status" if content["execution_state"] == "idle" => self.is_idle = true,
            _ => {}
        }
    }

    /// Changes what was shown under the same id.
    fn update(&mut self, content: &Value) {
        let id = &content["transient"]["display_id"];
        for output in &mut self.outputs {
            if output["transient"]["display_id"] == *id {
                output["data"] = content["data"].clone();
            }
        }
    }
}

/// The name, value and traceback of an exception, without the codes that colour it on a terminal.
fn exception(content: &Value) -> String {
    let name = content["ename"].as_str().unwrap_or_default();
    let value = content["evalue"].as_str().unwrap_or_default();
    let traceback = content["traceback"].as_array().into_iter().flatten();
    let traceback: Vec<_> = traceback.filter_map(Value::as_str).collect();
    let text = format!("{name}: {value}\n{}", traceback.join("\n"));
    let codes = regex::Regex::new("\x1b\\[[0-9;]*[A-Za-z]").expect("it's a pattern");
    codes.replace_all(&text, "").into_owned()
}
