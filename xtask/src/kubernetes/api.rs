//! The API server of the cluster that we are logged in to, through a `kubectl proxy` of ours: one process that has
//! the login's credentials and renews them, however much is asked. It listens on a socket that only this user can open.
//!
//! The requests are HTTP/1.0, where an answer ends with its connection, and a watch is lines until then.

use std::{
    fmt, fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Once,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::machine::{
    paths,
    process::{self, Beside},
};

const JSON: &str = "application/json";

/// How long an answer may take; kubectl may first have to ask for a credential.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Api {
    // Ends before its socket is removed.
    _proxy: Beside,
    socket: PathBuf,
}

/// An answer with an error in it.
#[derive(Debug)]
struct Refused {
    /// The HTTP status.
    status: u16,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the API server answers {}: {}",
            self.status,
            self.message.trim()
        )
    }
}

impl std::error::Error for Refused {}

impl Api {
    /// For the cluster that `sh` is logged in to.
    pub(crate) fn start(sh: &Shell) -> Result<Api> {
        let socket = paths::of_this_process("proxy")?;

        let mut proxy = process::start(sh, cmd!(sh, "kubectl proxy --unix-socket {socket}"))?;
        let until = Instant::now() + PATIENCE;
        while UnixStream::connect(&socket).is_err() {
            if let Some(said) = proxy.ended()? {
                bail!("`kubectl proxy` ended: {}", said.trim());
            }
            ensure!(
                Instant::now() < until,
                "`kubectl proxy` didn't open `{}`",
                socket.display()
            );
            thread::sleep(Duration::from_millis(2));
        }
        Ok(Api {
            _proxy: proxy,
            socket,
        })
    }

    /// The object or list at a path such as `/api/v1/namespaces`.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        read(self.ask("GET", path, JSON, None)?)
    }

    /// The same with nothing but `metadata`.
    pub(crate) fn metadata(&self, path: &str) -> Result<Value> {
        let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        read(self.ask("GET", path, accept, None)?)
    }

    /// Makes, replaces, applies (`PATCH`) or removes something: the object as it is then.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        read(self.ask(method, path, JSON, Some(body))?)
    }

    /// The same, or none if there's nothing at the path.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.get(path) {
            Err(err) if status(&err) == Some(404) => Ok(None),
            found => found.map(Some),
        }
    }

    /// The same for what isn't JSON, such as logs.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        let mut answer = self.ask("GET", path, "*/*", None)?;
        let mut content = Vec::new();
        answer
            .read_to_end(&mut content)
            .with_context(|| format!("`GET {path}`"))?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// The lines of a watch, with its connection: who shuts that down ends the watch.
    pub(crate) fn watch(
        &self,
        path: &str,
    ) -> Result<(
        UnixStream,
        impl Iterator<Item = std::io::Result<String>> + use<>,
    )> {
        let answer = self.ask("GET", path, JSON, None)?;
        answer.get_ref().set_read_timeout(None)?;
        Ok((answer.get_ref().try_clone()?, answer.lines()))
    }

    /// Returns with the beginning of the answer's content. Asks again while the API server is away or busy, for a while.
    fn ask(
        &self,
        method: &str,
        path: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Result<BufReader<UnixStream>> {
        let content = if method == "PATCH" {
            "application/apply-patch+yaml"
        } else {
            JSON
        };
        let body = body.map_or_else(String::new, Value::to_string);
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\nContent-Type: {content}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut pause = Duration::from_millis(500);
        loop {
            let answer = self
                .exchange(&request)
                .with_context(|| format!("`{method} {path}`"));
            let is_away = |err: &anyhow::Error| match status(err) {
                Some(429 | 502..=504) => true,
                Some(500) => may_pass(&format!("{err:#}")),
                _ => false,
            };
            match &answer {
                Err(err) if is_away(err) && pause < Duration::from_secs(10) => {
                    process::check_stopped()?;
                    // Many may ask at once.
                    static SAID: Once = Once::new();
                    SAID.call_once(|| say!("the API server is away or busy: asking again"));
                    thread::sleep(pause);
                    pause *= 2;
                }
                _ => return answer,
            }
        }
    }

    fn exchange(&self, request: &str) -> Result<BufReader<UnixStream>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = BufReader::new(stream);
        let mut line = || -> Result<String> {
            let mut line = String::new();
            answer.read_line(&mut line)?;
            Ok(line.trim_end().to_owned())
        };
        let first = line()?;
        while !line()?.is_empty() {}
        let status = first.split(' ').nth(1).and_then(|it| it.parse().ok());
        let status: u16 = status.with_context(|| format!("`kubectl proxy` answers `{first}`"))?;
        if status < 400 {
            return Ok(answer);
        }
        let mut content = String::new();
        answer.read_to_string(&mut content)?;
        let said: Value = serde_json::from_str(&content).unwrap_or_default();
        let message = said["message"].as_str().unwrap_or(&content).to_owned();
        Err(Refused { status, message }.into())
    }
}

/// The HTTP status of an answer with an error in it.
pub(crate) fn status(err: &anyhow::Error) -> Option<u16> {
    err.downcast_ref::<Refused>().map(|it| it.status)
}

fn read(mut answer: BufReader<UnixStream>) -> Result<Value> {
    let mut content = Vec::new();
    answer
        .read_to_end(&mut content)
        .context("the API server's answer broke off")?;
    serde_json::from_slice(&content).context("the API server's answer isn't JSON")
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

/// Whether a failure is one of the connection to the API server, or of that server's own, as Go's programs say it.
pub(crate) fn may_pass(said: &str) -> bool {
    [
        "\": EOF",
        "TLS handshake timeout",
        "Too Many Requests",
        "connection refused",
        "connection reset by peer",
        "etcdserver: leader changed",
        "etcdserver: request timed out",
        "http2: client connection lost",
        "http2: server sent GOAWAY",
        "the server is currently unable to handle the request",
    ]
    .iter()
    .any(|it| said.contains(it))
}

/// A text as part of a query.
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"-._~".contains(&it);
    text.bytes()
        .map(|it| {
            if is_plain(it) {
                char::from(it).to_string()
            } else {
                format!("%{it:02X}")
            }
        })
        .collect()
}
