//! How a hub is reached, for HTTP and websockets.

use std::{
    cell::RefCell,
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{ClientConfig, ClientConnection, StreamOwned, crypto::ring, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use serde_json::Value;
use tungstenite::{ClientRequestBuilder, HandshakeError, WebSocket, http::Uri};
use ureq::{
    Agent, Body, Proxy, ResponseExt,
    http::{Request, Response},
};
use xshell::{Shell, cmd};

use crate::{
    health::busy::Busy,
    kubernetes::{api::Api, rehearsal::node},
    machine::{
        process::{self, Beside},
        until::Until,
    },
    repository::cluster::Hub,
    secrets::{InMemory, Secret},
    services::{dns, http},
};

/// How long `kubectl port-forward` may take to listen.
const FORWARD_START: Duration = Duration::from_secs(30);

/// The shortest time that a connection gets, and how long a read of a websocket waits.
const MOMENT: Duration = Duration::from_millis(250);

/// How long the DNS may take to answer.
const LOOK_UP: Duration = Duration::from_secs(10);

/// The hint where something else than the hub answers.
pub(crate) const HINT: &str =
    "is the domain in cluster.yaml the hub's own, with `hub.baseUrl` of the values?";

pub(crate) struct Address {
    /// Without a slash at its end.
    pub(crate) url: String,
    agent: Agent,
    /// The one that the environment names, for an address that is not on this machine.
    proxy: Option<Proxy>,
    forward: Option<Box<RefCell<Forward>>>,
}

/// A `kubectl port-forward`, and how it is started again.
struct Forward {
    sh: Shell,
    namespace: String,
    service: &'static str,
    /// The port on this machine and that of the service: `43210:8000`.
    ports: String,
    process: Beside,
}

pub(crate) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Address {
    pub(crate) fn public(url: String) -> Address {
        Address {
            proxy: Proxy::try_from_env(),
            ..Address::local(url)
        }
    }

    /// On this machine, or on its rehearsal cluster.
    pub(crate) fn local(url: String) -> Address {
        Address {
            url,
            agent: http::agent(),
            proxy: None,
            forward: None,
        }
    }

    /// Through the API server, to the service of the hub's proxy. Where z2jh's chart gets certificates itself, the service
    /// `proxy-public` redirects HTTP to the hub's own domain; `proxy-http` behind it does not.
    pub(crate) fn forwarded(sh: &Shell, api: &Api, hub: &Hub, base: &str) -> Result<Address> {
        let behind = api.find(&format!(
            "/api/v1/namespaces/{}/services/proxy-http",
            hub.name
        ))?;
        let (service, port) = if behind.is_some() {
            ("proxy-http", 8000)
        } else {
            ("proxy-public", 80)
        };
        let until = Until::after(FORWARD_START);
        let (process, own_port) = forward(sh, &hub.name, service, &format!(":{port}"), until)?;
        let forward = Forward {
            sh: sh.clone(),
            namespace: hub.name.clone(),
            service,
            ports: format!("{own_port}:{port}"),
            process,
        };
        Ok(Address {
            forward: Some(Box::new(RefCell::new(forward))),
            ..Address::local(format!("http://127.0.0.1:{own_port}{base}"))
        })
    }

    /// Starts a `kubectl port-forward` again that has lost its pod.
    fn renew(&self, until: Until) -> Result<()> {
        let Some(stderr) = self.ended()? else {
            return Ok(());
        };
        say!(
            "`kubectl port-forward` ended and is started again: {}",
            stderr.trim()
        );
        let mut it = self.forward.as_ref().context("it was there")?.borrow_mut();
        let until = until.within(FORWARD_START);
        let (process, _) = forward(&it.sh, &it.namespace, it.service, &it.ports, until)?;
        it.process = process;
        Ok(())
    }

    /// What a `kubectl port-forward` wrote to stderr, if it has ended.
    fn ended(&self) -> Result<Option<String>> {
        match &self.forward {
            Some(forward) => forward.borrow_mut().process.ended(),
            None => Ok(None),
        }
    }

    /// Asks as the owner of the token, and takes any answer but a redirection that leads elsewhere. That the hub is busy is
    /// the error `Busy`.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        token: &Secret,
        body: Option<&Value>,
        until: Until,
    ) -> Result<Response<String>> {
        let request = self.request(method, path, token, body)?;
        let answer = self.send(request, until, until.left(), with_text)?;
        refuse_busy(&format!("{method} {path}"), &answer)?;
        Ok(answer)
    }

    /// Asks the same way for lines that may have no end, of which it gets those that come within `reading`.
    pub(crate) fn stream(
        &self,
        path: &str,
        token: &Secret,
        until: Until,
        reading: Duration,
    ) -> Result<Response<Body>> {
        let request = self.request("GET", path, token, None)?;
        let answer = self.send(request, until, reading, Ok)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let answer = with_text(answer)?;
        refuse_busy(&format!("GET {path}"), &answer)?;
        bail!("GET {path}: {}", answer.status())
    }

    fn send<T: Send + 'static>(
        &self,
        request: Request<String>,
        until: Until,
        reading: Duration,
        read: fn(Response<Body>) -> Result<Response<T>, ureq::Error>,
    ) -> Result<Response<T>> {
        self.renew(until)?;
        let what = format!("{} {}", request.method(), request.uri().path());
        let left = Some(until.left());
        let request = self
            .agent
            .configure_request(request)
            .proxy(self.proxy.clone())
            .max_redirects(0)
            .timeout_global(left)
            .timeout_recv_response(left)
            .timeout_recv_body(Some(reading))
            .build();
        let agent = self.agent.clone();
        let answer = until
            .beside(move || agent.run(request).and_then(read))?
            .map_err(|err| self.unreachable(&what, &err))?;
        self.refuse_redirection(&what, &answer)?;
        Ok(answer)
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        token: &Secret,
        body: Option<&Value>,
    ) -> Result<Request<String>> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Authorization", format!("token {}", token.exposed()))
            .header("Content-Type", "application/json")
            .body(body.map_or_else(String::new, Value::to_string))
            .with_context(|| format!("`{}` is not an address", self.url))
    }

    fn refuse_redirection<T>(&self, what: &str, answer: &Response<T>) -> Result<()> {
        if answer.status().is_redirection() {
            let location = answer.headers().get("location");
            let to = location.and_then(|it| it.to_str().ok()).unwrap_or_default();
            bail!(self.elsewhere(what, to));
        }
        Ok(())
    }

    /// A page that everybody may see, at the end of all redirections within the host, with the status that is expected, or any
    /// success. A redirection that is expected is not followed.
    pub(crate) fn page(
        &self,
        path: &str,
        expected: Option<u16>,
        until: Until,
    ) -> Result<Response<String>> {
        self.renew(until)?;
        let what = format!("GET {path}");
        let is_redirection = expected.is_some_and(|it| (300..400).contains(&it));
        let redirections = if is_redirection { 0 } else { 10 };
        let (end, answer) = self
            .get(path, redirections, until)?
            .map_err(|err| self.unreachable(&what, &err))?;
        if end.host() != self.url.parse::<Uri>()?.host() {
            bail!(self.elsewhere(&what, &end.to_string()));
        }
        let status = answer.status();
        if expected == Some(status.as_u16()) {
            return Ok(answer);
        }
        refuse_busy(&what, &answer)?;
        if let Some(expected) = expected {
            let url = &self.url;
            bail!(
                "GET {url}{path} answers {status}, and cluster.yaml has `uptime_check: {{expected_status: {expected}}}`"
            );
        }
        ensure!(
            status.is_success(),
            "GET {}{path} answers {status}",
            self.url
        );
        Ok(answer)
    }

    /// What is missing of a hub that was just deployed, and may come by itself: its name, its certificate, its ingress.
    /// Nothing is if its page has the status that is expected.
    pub(crate) fn missing(&self, expected: Option<u16>, until: Until) -> Result<Option<Error>> {
        Ok(match self.get("/", 0, until)? {
            Err(err) => Some(self.unreachable("GET /", &err)),
            Ok((_, answer)) if expected == Some(answer.status().as_u16()) => None,
            Ok((_, answer)) if refuse_busy("GET /", &answer).is_err() => None,
            Ok((_, answer)) if (502..=504).contains(&answer.status().as_u16()) => {
                Some(anyhow!("GET {}/ answers {}", self.url, answer.status()))
            }
            Ok(_) => None,
        })
    }

    /// The name of its host with the reason, if this machine finds no address for it. A proxy looks names up itself.
    pub(crate) fn unknown_host(&self) -> Option<(String, Error)> {
        let uri: Uri = self.url.parse().ok()?;
        if self.proxy.as_ref().is_some_and(|it| !it.is_no_proxy(&uri)) {
            return None;
        }
        let host = uri.host()?;
        let err = dns::look_up(host, LOOK_UP).err()?;
        Some((host.to_owned(), err))
    }

    /// Asks as everybody may. Returns also the address at the end of redirections.
    fn get(
        &self,
        path: &str,
        redirects: u32,
        until: Until,
    ) -> Result<Result<(Uri, Response<String>), ureq::Error>> {
        let request = self
            .agent
            .get(format!("{}{path}", self.url))
            .config()
            .proxy(self.proxy.clone())
            .max_redirects(redirects)
            .timeout_global(Some(until.left()))
            .build();
        until.beside(move || {
            let answer = request.call()?;
            Ok((answer.get_uri().clone(), with_text(answer)?))
        })
    }

    /// The error of a redirection that leads away from the hub.
    fn elsewhere(&self, what: &str, to: &str) -> Error {
        let hint = match &self.forward {
            Some(_) => "the hub's proxy takes only HTTPS, which `--port-forward` cannot follow",
            None => HINT,
        };
        anyhow!("{what}: `{}` leads to `{to}`\nhint: {hint}", self.url)
    }

    fn unreachable(&self, what: &str, err: &ureq::Error) -> Error {
        if matches!(err, ureq::Error::Timeout(_)) {
            return anyhow!("{what}: `{}` does not answer in time", self.url);
        }
        let mut reason = err.to_string();
        if self.forward.is_some() {
            // kubectl closes the connection a moment before it ends.
            thread::sleep(MOMENT);
            if let Ok(Some(stderr)) = self.ended() {
                reason += &format!("; `kubectl port-forward` ended: {}", stderr.trim());
            }
        }
        let trouble = if reason.contains("certificate") {
            "cannot verify the hub's certificate"
        } else {
            "cannot reach the hub"
        };
        anyhow!("{trouble}: `{}`, {what}: {reason}", self.url)
    }

    /// Opens a websocket at a path, as long as `check_waiting` is no error. Its reads end after a moment, with what there is.
    pub(crate) fn websocket(
        &self,
        path: &str,
        token: &Secret,
        until: Until,
        check_waiting: impl Fn() -> Result<()>,
    ) -> Result<WebSocket<Box<dyn Stream>>> {
        let uri: Uri = format!("{}{path}", self.url)
            .replacen("http", "ws", 1)
            .parse()?;
        let stream = self.connect_to(&uri, until)?;
        let request = ClientRequestBuilder::new(uri)
            .with_header("Authorization", format!("token {}", token.exposed()));
        let mut result = tungstenite::client(request, stream);
        while let Err(HandshakeError::Interrupted(part)) = result {
            check_waiting()?;
            result = part.handshake();
        }
        match result {
            Ok((socket, _)) => Ok(socket),
            Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                let status = answer.status();
                if let Some(busy) = Busy::of(&format!("GET {path}"), status, answer.headers(), "") {
                    return Err(busy.into());
                }
                bail!("the kernel's websocket does not open: the answer is {status}")
            }
            Err(err) => bail!("the kernel's websocket does not open: {err}"),
        }
    }

    /// Connects to the host of a websocket's address, with TLS for `wss`.
    fn connect_to(&self, uri: &Uri, until: Until) -> Result<Box<dyn Stream>> {
        let host = uri.host().context("the address has no host")?;
        let is_secure = uri.scheme_str() == Some("wss");
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let tcp = self
            .connect(host, port, until)
            .context("the kernel's websocket does not open")?;
        tcp.set_read_timeout(Some(MOMENT))?;
        Ok(if is_secure {
            Box::new(with_tls(tcp, host)?)
        } else {
            Box::new(tcp)
        })
    }

    /// Connects to a port of a host, through the proxy if there is one for it: ureq does not hand out its own connections.
    fn connect(&self, host: &str, port: u16, until: Until) -> Result<TcpStream> {
        let url = self.url.parse().unwrap_or_default();
        match self.proxy.as_ref().filter(|it| !it.is_no_proxy(&url)) {
            Some(proxy) => {
                let tcp = connect_directly(proxy.host(), proxy.port(), until)?;
                tunnel(tcp, proxy, host, port)
            }
            None => connect_directly(host, port, until),
        }
    }
}

/// The whole text of an answer with it.
fn with_text(answer: Response<Body>) -> Result<Response<String>, ureq::Error> {
    let (head, mut body) = answer.into_parts();
    // A proxy's error page may be in any encoding.
    let bytes = body.read_to_vec()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Response::from_parts(head, text))
}

/// The JSON of an answer of any status; null if it is not JSON, as the error page of a proxy.
pub(crate) fn json_or_null(answer: &Response<String>) -> Value {
    serde_json::from_str(answer.body()).unwrap_or_default()
}

fn refuse_busy(what: &str, answer: &Response<String>) -> Result<(), Busy> {
    let json = json_or_null(answer);
    let message = json["message"].as_str().unwrap_or_default();
    Busy::of(what, answer.status(), answer.headers(), message).map_or(Ok(()), Err)
}

fn connect_directly(host: &str, port: u16, until: Until) -> Result<TcpStream> {
    let left = until.left().max(MOMENT);
    let host = host.to_owned();
    let tcp = until.beside(move || connect_within(&host, port, left))??;
    tcp.set_read_timeout(Some(left))?;
    Ok(tcp)
}

fn connect_within(host: &str, port: u16, limit: Duration) -> Result<TcpStream> {
    let mut last = None;
    let addresses = (host, port)
        .to_socket_addrs()
        .context("there is no such host")?;
    for address in addresses {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(tcp) => return Ok(tcp),
            Err(err) => last = Some(err),
        }
    }
    match last {
        Some(err) => bail!("nothing listens at port {port}: {err}"),
        None => bail!("nothing listens at port {port}"),
    }
}

/// Has the proxy of a connection lead it to a port of a host
/// (<https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Methods/CONNECT>).
fn tunnel(mut tcp: TcpStream, proxy: &Proxy, host: &str, port: u16) -> Result<TcpStream> {
    let login = login_header(proxy).unwrap_or_default();
    write!(
        tcp,
        "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{login}\r\n"
    )?;
    let answer = read_head(&mut tcp)?;
    let first = answer.lines().next().unwrap_or_default();
    ensure!(
        first.split(' ').nth(1) == Some("200"),
        "the proxy of `HTTPS_PROXY` answers {first}"
    );
    Ok(tcp)
}

/// The header with the proxy's user and password, if it has them.
fn login_header(proxy: &Proxy) -> Option<String> {
    let user = proxy.username()?;
    let password = proxy.password().unwrap_or_default();
    let login = BASE64_STANDARD.encode(format!("{user}:{password}"));
    Some(format!("Proxy-Authorization: Basic {login}\r\n"))
}

/// Reads the status line and the headers of a proxy's answer, and nothing of what follows.
fn read_head(tcp: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte)
            .context("the proxy of `HTTPS_PROXY` closes the connection")?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn with_tls(tcp: TcpStream, host: &str) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).context("the hub's name")?;
    let connection = ClientConnection::new(Arc::new(config), name)?;
    Ok(StreamOwned::new(connection, tcp))
}

/// Starts a `kubectl port-forward` to a service of a namespace. Returns with it the port on this machine.
fn forward(
    sh: &Shell,
    namespace: &str,
    service: &str,
    ports: &str,
    until: Until,
) -> Result<(Beside, String)> {
    let cmd = cmd!(
        sh,
        "kubectl port-forward --namespace {namespace} service/{service} {ports}"
    );
    let mut process = process::start(sh, cmd)?;
    loop {
        if let Some(stderr) = process.ended()? {
            bail!("`kubectl port-forward` ended: {}", stderr.trim());
        }
        if let Some(port) = own_port(&process.written()?) {
            return Ok((process, port));
        }
        until.check("`kubectl port-forward`")?;
        thread::sleep(Duration::from_millis(20));
    }
}

/// 43210 in "Forwarding from 127.0.0.1:43210 -> 8000".
fn own_port(written: &str) -> Option<String> {
    let start = "Forwarding from 127.0.0.1:";
    let rest = written.lines().find_map(|it| it.strip_prefix(start))?;
    Some(rest.split(' ').next()?.to_owned())
}

/// Reads the domain in a `domain_override_file`.
pub(crate) fn domain_in(file: &InMemory) -> Result<String> {
    let shown = file.source.display();
    let values = file.values()?;
    let domain = values.text(&["domain"]);
    Ok(domain
        .with_context(|| format!("`{shown}` has no `domain`"))?
        .to_owned())
}

/// The URL by which this machine reaches a hub on the real node of a rehearsal cluster, if its proxy has a port there.
pub(crate) fn node_port(api: &Api, hub: &Hub) -> Option<String> {
    let service = api.get(&format!(
        "/api/v1/namespaces/{}/services/proxy-public",
        hub.name
    ));
    let port = service.ok()?["spec"]["ports"][0]["nodePort"].as_u64()?;
    Some(format!("http://{}:{port}", node::ADDRESS))
}
