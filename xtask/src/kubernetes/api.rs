//! The API server of the cluster that we are logged in to. A `kubectl proxy` of ours has the login's credentials and
//! renews them, however many requests we send. It listens on a socket that only this user can open.
//!
//! The requests are HTTP/1.0: the end of an answer is the end of its connection, and a watch sends lines until then.

use std::{
    fmt, fs,
    io::{BufRead, BufReader, ErrorKind, Lines, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Once,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::{
    kubernetes::objects::{self, List, PartialObject},
    machine::{
        paths,
        process::{self, Beside, Output},
        until::Until,
    },
    services::http::percent_encoded,
};

const JSON: &str = "application/json";

/// How long an answer may take: kubectl may first have to ask for a credential.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a request is sent again, and the longest pause before that.
const REPEATED_FOR: Duration = Duration::from_secs(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// In whose name we apply fields: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers>
pub(crate) const MANAGER: &str = "xtask";

pub(crate) struct Api {
    // It ends before its socket is removed.
    _proxy: Beside,
    socket: PathBuf,
}

/// A watch that is under way. It lasts until somebody shuts its connection down.
pub(crate) struct Watch {
    pub(crate) connection: UnixStream,
    /// An event each, in JSON.
    pub(crate) lines: Lines<BufReader<UnixStream>>,
}

/// An answer with an error in it.
#[derive(Debug)]
struct ErrorAnswer {
    /// The HTTP status.
    status: u16,
    message: String,
}

impl fmt::Display for ErrorAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the API server answers {}: {}",
            self.status,
            self.message.trim()
        )
    }
}

impl std::error::Error for ErrorAnswer {}

/// An answer that broke off, or is none of an API server. What it was to answer may have been done.
#[derive(Debug)]
struct BrokenAnswer(String);

impl fmt::Display for BrokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BrokenAnswer {}

impl Api {
    /// Starts a proxy to the cluster that `sh` is logged in to.
    pub(crate) fn start(sh: &Shell) -> Result<Api> {
        let socket = paths::of_this_process("proxy")?;
        let mut proxy = process::start(sh, cmd!(sh, "kubectl proxy --unix-socket {socket}"))?;
        let until = Until::after_in_any_case(PATIENCE);
        while UnixStream::connect(&socket).is_err() {
            if let Some(output) = proxy.ended()? {
                bail!("`kubectl proxy` ended: {}", output.trim());
            }
            until
                .check("the start of `kubectl proxy`")
                .with_context(|| format!("cannot connect to `{}`", socket.display()))?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(Api {
            _proxy: proxy,
            socket,
        })
    }

    /// The object or list at a path such as `/api/v1/namespaces`.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        self.request("GET", path, JSON, None, read)
    }

    /// The object or list at a path, or none if there is nothing.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.get(path) {
            Err(err) if status(&err) == Some(404) => Ok(None),
            found => found.map(Some),
        }
    }

    /// The object at a path, read as one of a known kind, or none if there is nothing.
    pub(crate) fn find_object<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        let found = self.find(path)?;
        found.map(|object| typed(object, path)).transpose()
    }

    /// The list at a path, of objects of one kind.
    pub(crate) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<List<T>> {
        typed(self.get(path)?, path)
    }

    /// The list at a path without anything but the objects' metadata.
    pub(crate) fn metadata(&self, path: &str) -> Result<List<PartialObject>> {
        let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        typed(self.request("GET", path, accept, None, read)?, path)
    }

    /// The API groups that the server has, and what they hold, as the kind `APIGroupDiscovery`:
    /// <https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery>
    pub(crate) fn discover<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        let mut groups = Vec::new();
        for path in ["/api", "/apis"] {
            let list: List<T> = typed(self.request("GET", path, accept, None, read)?, path)?;
            groups.extend(list.items);
        }
        Ok(groups)
    }

    /// Creates (`POST`), replaces (`PUT`), applies (`PATCH`) or deletes (`DELETE`) something, and returns the answer: the
    /// object as it is now.
    ///
    /// If an answer does not reach us, the request is sent again, and finds what it has done itself: what it creates is
    /// there (409), what it replaces is another version (409), and what it deletes is gone (404).
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.request(method, path, JSON, Some(body), read)
    }

    /// Deletes something that may have gone by itself.
    pub(crate) fn delete(&self, path: &str, options: &Value) -> Result<()> {
        match self.send("DELETE", path, options) {
            Err(err) if status(&err) == Some(404) => Ok(()),
            deleted => deleted.map(|_| ()),
        }
    }

    /// Makes an object have these fields, whoever set them before. They are ours then: what we do not name later goes.
    pub(crate) fn apply(&self, path: &str, object: &Value) -> Result<()> {
        let path = format!("{path}?fieldManager={MANAGER}&force=true");
        self.send("PATCH", &path, object).map(|_| ())
    }

    /// Sends a request with an answer in JSON once, and waits for each part of the answer only for so long.
    pub(crate) fn send_once(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Value> {
        refuse_unsafe(path)?;
        let body = body.map_or_else(String::new, Value::to_string);
        let request = request(method, path, JSON, &body);
        let answer = self.exchange(&request, patience);
        read(answer.with_context(|| format!("`{method} {path}`"))?)
    }

    /// What is at a path that isn't JSON, such as a container's log. It's asked for once: a node that is away gives
    /// none.
    pub(crate) fn text(&self, path: &str, patience: Duration) -> Result<String> {
        refuse_unsafe(path)?;
        let request = request("GET", path, "*/*", "");
        let content = self.exchange(&request, patience).and_then(read_bytes);
        let content = content.with_context(|| format!("`GET {path}`"))?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// Starts a watch. The path has `watch=1` in its query.
    pub(crate) fn watch(&self, path: &str) -> Result<Watch> {
        let answer = self.request("GET", path, JSON, None, Ok)?;
        answer.get_ref().set_read_timeout(None)?;
        Ok(Watch {
            connection: answer.get_ref().try_clone()?,
            lines: answer.lines(),
        })
    }

    /// Sends a request, and reads its answer. While the API server is away or busy, or answers break, the request is sent
    /// again, for some 20 s.
    fn request<T>(
        &self,
        method: &str,
        path: &str,
        accept: &str,
        body: Option<&Value>,
        read: fn(BufReader<UnixStream>) -> Result<T>,
    ) -> Result<T> {
        refuse_unsafe(path)?;
        let body = body.map_or_else(String::new, Value::to_string);
        let request = request(method, path, accept, &body);
        let until = Until::after(REPEATED_FOR);
        let mut pause = Duration::from_millis(100);
        loop {
            let answer = self.exchange(&request, PATIENCE).and_then(read);
            let answer = answer.with_context(|| format!("`{method} {path}`"));
            match &answer {
                Err(err) if is_away(err) && until.left() > pause => {
                    process::check_stopped()?;
                    say_that_it_is_away();
                    thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                _ => return answer,
            }
        }
    }

    /// Sends a request once.
    fn exchange(&self, request: &str, patience: Duration) -> Result<BufReader<UnixStream>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(request.as_bytes()).with_context(closed)?;
        let mut answer = BufReader::new(stream);
        let first = read_line(&mut answer)?;
        while !read_line(&mut answer)?.is_empty() {}
        let status = first.split(' ').nth(1).and_then(|it| it.parse().ok());
        let status: u16 = status.with_context(closed)?;
        if status < 400 {
            return Ok(answer);
        }
        // Its beginning will do.
        let mut content = Vec::new();
        let _ = answer.read_to_end(&mut content);
        let content = String::from_utf8_lossy(&content);
        let json: Value = serde_json::from_str(&content).unwrap_or_default();
        let mut message = json["message"].as_str().unwrap_or(&content).to_owned();
        message += &missing_right(&message).unwrap_or_default();
        Err(ErrorAnswer { status, message }.into())
    }
}

/// The hint at the right that a login lacks, with its line feed, if that is what a message says:
/// <https://kubernetes.io/docs/reference/access-authn-authz/rbac/>
pub(crate) fn missing_right(message: &str) -> Option<String> {
    let (verb, rest) = message
        .split_once(" cannot ")?
        .1
        .split_once(" resource \"")?;
    let (resource, rest) = rest.split_once('"')?;
    let namespace = rest.split_once("in the namespace \"");
    let place = match namespace.and_then(|it| it.1.split_once('"')) {
        Some((namespace, _)) => format!("in the namespace `{namespace}`"),
        None => "in the whole cluster".to_owned(),
    };
    Some(format!(
        "\nhint: the login lacks the right `{verb}` on `{resource}` {place}"
    ))
}

/// A name as one step of a path: an object's manifest may call it anything. An error if no object can have it
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#path-segment-names>).
pub(crate) fn step(name: &str) -> Result<String> {
    ensure!(
        !name.is_empty() && !["..", "."].contains(&name) && !name.contains(['/', '%']),
        "no object can be called `{name}`"
    );
    Ok(percent_encoded(name))
}

/// Refuses a path that is another one than it looks.
fn refuse_unsafe(path: &str) -> Result<()> {
    let steps = path.split_once('?').map_or(path, |(steps, _)| steps);
    ensure!(
        path.bytes().all(|it| it.is_ascii_graphic())
            && !steps.split('/').any(|it| [".", ".."].contains(&it)),
        "`{path}` is no path of the Kubernetes API"
    );
    Ok(())
}

/// The text of a request.
fn request(method: &str, path: &str, accept: &str, body: &str) -> String {
    let content_type = if method == "PATCH" {
        "application/apply-patch+yaml"
    } else {
        JSON
    };
    format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Whether the API server, or what is between it and us, may answer soon.
pub(crate) fn is_away(err: &anyhow::Error) -> bool {
    match status(err) {
        Some(500) => !format!("{err:#}").contains(REFUSED_BY_WEBHOOK),
        Some(status) => status == 429 || (502..=504).contains(&status),
        None => err.is::<BrokenAnswer>(),
    }
}

/// Says it once: many requests may find that at the same time.
fn say_that_it_is_away() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| say!("the API server is away or busy: asking again"));
}

fn closed() -> BrokenAnswer {
    BrokenAnswer("the API server closed the connection".to_owned())
}

fn read_line(answer: &mut BufReader<UnixStream>) -> Result<String> {
    let mut line = String::new();
    match answer.read_line(&mut line) {
        Err(err) if err.kind() == ErrorKind::WouldBlock => bail!("the API server does not answer"),
        read => read.with_context(closed)?,
    };
    Ok(line.trim_end().to_owned())
}

/// The HTTP status of an answer with an error in it.
pub(crate) fn status(err: &anyhow::Error) -> Option<u16> {
    err.downcast_ref::<ErrorAnswer>().map(|it| it.status)
}

fn read(answer: BufReader<UnixStream>) -> Result<Value> {
    let content = read_bytes(answer)?;
    let broken = || BrokenAnswer("the API server's answer is not JSON".to_owned());
    objects::from_json(&content).with_context(broken)
}

fn read_bytes(mut answer: BufReader<UnixStream>) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let broken = || BrokenAnswer("the API server's answer broke off".to_owned());
    answer.read_to_end(&mut content).with_context(broken)?;
    Ok(content)
}

fn typed<T: DeserializeOwned>(answer: Value, path: &str) -> Result<T> {
    objects::from_value(answer)
        .with_context(|| format!("`GET {path}`: cannot read the API server's answer"))
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

/// Runs a kubectl that may be run again, while it fails because of the API server or the way to it, for some 20 s.
pub(crate) fn repeated(run: impl Fn() -> Result<Output>) -> Result<Output> {
    let until = Until::after(REPEATED_FOR);
    loop {
        let output = run()?;
        let pause = Duration::from_millis(500);
        let is_over = output.success || until.left() < pause;
        if is_over || !may_pass(&String::from_utf8_lossy(&output.stderr)) {
            return Ok(output);
        }
        process::check_stopped()?;
        thread::sleep(pause);
    }
}

/// What an API server says of a webhook that it could not ask. It says the same as long as nobody is behind that.
const REFUSED_BY_WEBHOOK: &str = "failed calling webhook";

/// Whether the message of a program written in Go tells of a failed connection to the API server, of an answer that broke,
/// or of a failure of that server itself: another attempt may succeed.
pub(crate) fn may_pass(message: &str) -> bool {
    [
        "\": EOF",
        "\": unexpected EOF",
        "TLS handshake timeout",
        "Too Many Requests",
        "asked us to try again later",
        "an error on the server (",
        "broken pipe",
        "connection refused",
        "connection reset by peer",
        "etcdserver: ",
        "http2: client connection lost",
        "http2: server sent GOAWAY",
        "i/o timeout",
        "invalid character '<' looking for beginning of value",
        "request did not complete within",
        "serializer for text/html doesn't exist",
        "server closed idle connection",
        "the server is currently unable to handle the request",
        "the server was unable to return a response in the time allotted",
        "unexpected end of JSON input",
        "when reading response body",
    ]
    .iter()
    .any(|it| message.contains(it))
}
