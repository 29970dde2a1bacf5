//! The way to a hub, for HTTP and websockets.

use std::{
    cell::RefCell,
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{ClientConfig, ClientConnection, StreamOwned, crypto::ring, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use serde_json::Value;
use tungstenite::{ClientRequestBuilder, HandshakeError, WebSocket, http::Uri};
use ureq::{Agent, Body, Proxy, ResponseExt, http::Response};
use xshell::{Shell, cmd};

use crate::{
    kubernetes::{api::Api, rehearsal::node},
    machine::{
        process::{self, Beside},
        until::Until,
    },
    repository::cluster::Hub,
    secrets::InMemory,
    services::http,
};

/// How long `kubectl port-forward` may take to begin.
const BEGIN: Duration = Duration::from_secs(30);

/// The shortest time that a connection gets.
const SOON: Duration = Duration::from_millis(250);

/// Where somebody else answers.
pub(crate) const HINT: &str =
    "is the domain in cluster.yaml the hub's own, with `hub.baseUrl` of the values?";

pub(crate) struct Address {
    /// Without a slash at its end.
    pub(crate) url: String,
    agent: Agent,
    /// What the environment names, for an address that isn't on this machine.
    proxy: Option<Proxy>,
    forward: Option<Box<RefCell<Forward>>>,
}

/// A `kubectl port-forward`, and how it's started.
struct Forward {
    sh: Shell,
    namespace: String,
    service: &'static str,
    /// The one here, once it's known, and the service's.
    ports: String,
    process: Beside,
}

pub(crate) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Address {
    pub(crate) fn public(url: String) -> Address {
        Address {
            proxy: Proxy::try_from_env(),
            ..Address::here(url)
        }
    }

    /// On this machine, or on its rehearsal cluster.
    pub(crate) fn here(url: String) -> Address {
        Address {
            url,
            agent: http::agent(),
            proxy: None,
            forward: None,
        }
    }

    /// Through the API server, to the service that the hub's proxy has. Where z2jh's chart gets certificates itself, that
    /// one leads from HTTP to the hub's own domain; the proxy behind it doesn't.
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
        let until = Until {
            at: Instant::now() + BEGIN,
            heeds_signals: true,
        };
        let (process, own) = forward(sh, &hub.name, service, &format!(":{port}"), until)?;
        let url = format!("http://127.0.0.1:{own}{base}");
        let ports = format!("{own}:{port}");
        let forward = Forward {
            sh: sh.clone(),
            namespace: hub.name.clone(),
            service,
            ports,
            process,
        };
        Ok(Address {
            forward: Some(Box::new(RefCell::new(forward))),
            ..Address::here(url)
        })
    }

    /// Starts a `kubectl port-forward` anew that has lost its pod.
    fn renew(&self, until: Until) -> Result<()> {
        let Some(said) = self.ended()? else {
            return Ok(());
        };
        say!(
            "`kubectl port-forward` ended and is started anew: {}",
            said.trim()
        );
        let mut it = self.forward.as_ref().context("it was there")?.borrow_mut();
        let (process, _) = forward(
            &it.sh,
            &it.namespace,
            it.service,
            &it.ports,
            until.within(BEGIN),
        )?;
        it.process = process;
        Ok(())
    }

    /// What a `kubectl port-forward` said that has ended.
    fn ended(&self) -> Result<Option<String>> {
        self.forward
            .as_ref()
            .map_or(Ok(None), |it| it.borrow_mut().process.ended())
    }

    /// Asks as whoever has the token, and takes any answer but a redirection that leads elsewhere.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
        until: Until,
    ) -> Result<Response<Body>> {
        self.send(method, path, token, body, until, until.left())
    }

    /// The same, with a time for `reading` an answer that may have no end.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
        until: Until,
        reading: Duration,
    ) -> Result<Response<Body>> {
        self.renew(until)?;
        let body = body.map_or_else(String::new, Value::to_string);
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Authorization", format!("token {token}"))
            .header("Content-Type", "application/json")
            .body(body)
            .with_context(|| format!("`{}` isn't an address", self.url))?;
        let left = Some(until.left());
        let request = self
            .agent
            .configure_request(request)
            .proxy(self.proxy.clone())
            .max_redirects(0);
        let request = request.timeout_global(left).timeout_recv_response(left);
        let request = request.timeout_recv_body(Some(reading)).build();
        let answer = self
            .agent
            .run(request)
            .map_err(|err| self.unreachable(&format!("{method} {path}"), &err))?;
        if answer.status().is_redirection() {
            let to = answer
                .headers()
                .get("location")
                .and_then(|it| it.to_str().ok())
                .unwrap_or_default();
            bail!(self.elsewhere(&format!("{method} {path}"), to));
        }
        Ok(answer)
    }

    /// What anybody gets, at the end of all redirections within the host.
    pub(crate) fn page(&self, path: &str, until: Until) -> Result<Response<Body>> {
        self.renew(until)?;
        let answer = self
            .get(path, 10, until)
            .map_err(|err| self.unreachable(&format!("GET {path}"), &err))?;
        let end = answer.get_uri();
        if end.host() != self.url.parse::<Uri>()?.host() {
            bail!(self.elsewhere(&format!("GET {path}"), &end.to_string()));
        }
        let status = answer.status();
        ensure!(
            status.is_success(),
            "GET {}{path} answers {status}",
            self.url
        );
        Ok(answer)
    }

    /// What may yet come by itself where a hub was just deployed: its name, its certificate, who listens there.
    pub(crate) fn missing(&self, until: Until) -> Option<Error> {
        match self.get("/", 0, until) {
            Err(err) => Some(self.unreachable("GET /", &err)),
            Ok(answer) if (502..=504).contains(&answer.status().as_u16()) => {
                Some(anyhow!("GET {}/ answers {}", self.url, answer.status()))
            }
            Ok(_) => None,
        }
    }

    fn get(&self, path: &str, redirects: u32, until: Until) -> Result<Response<Body>, ureq::Error> {
        let request = self
            .agent
            .get(format!("{}{path}", self.url))
            .config()
            .proxy(self.proxy.clone());
        request
            .max_redirects(redirects)
            .timeout_global(Some(until.left()))
            .build()
            .call()
    }

    fn elsewhere(&self, what: &str, to: &str) -> Error {
        let hint = match &self.forward {
            Some(_) => "the proxy takes HTTPS alone, which `--port-forward` can't follow",
            None => HINT,
        };
        anyhow!("{what}: `{}` leads to `{to}`\nhint: {hint}", self.url)
    }

    fn unreachable(&self, what: &str, err: &ureq::Error) -> Error {
        if matches!(err, ureq::Error::Timeout(_)) {
            return anyhow!("{what}: `{}` doesn't answer in time", self.url);
        }
        let mut said = err.to_string();
        if self.forward.is_some() {
            // It hangs up a moment before it ends.
            thread::sleep(SOON);
            if let Ok(Some(last)) = self.ended() {
                said += &format!("; `kubectl port-forward` ended: {}", last.trim());
            }
        }
        let trouble = match said.contains("certificate") {
            true => "its certificate can't be verified",
            false => "the hub can't be reached",
        };
        anyhow!("{trouble}: `{}`, {what}: {said}", self.url)
    }

    /// Opens a websocket at a path, as long as it's no error to go on `waiting` for it. Its reads end after a short time,
    /// with what there is.
    pub(crate) fn websocket(
        &self,
        path: &str,
        token: &str,
        until: Until,
        waiting: impl Fn() -> Result<()>,
    ) -> Result<WebSocket<Box<dyn Stream>>> {
        let uri: Uri = format!("{}{path}", self.url)
            .replacen("http", "ws", 1)
            .parse()?;
        let host = uri.host().context("the address has no host")?.to_owned();
        let is_secure = uri.scheme_str() == Some("wss");
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let tcp = self
            .connect(&host, port, until)
            .context("the kernel's websocket doesn't open")?;
        tcp.set_read_timeout(Some(SOON))?;
        let stream: Box<dyn Stream> = match is_secure {
            false => Box::new(tcp),
            true => {
                let config =
                    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                        .with_safe_default_protocol_versions()?
                        .with_platform_verifier()?
                        .with_no_client_auth();
                let name = ServerName::try_from(host).context("the hub's name")?;
                Box::new(StreamOwned::new(
                    ClientConnection::new(Arc::new(config), name)?,
                    tcp,
                ))
            }
        };
        let request =
            ClientRequestBuilder::new(uri).with_header("Authorization", format!("token {token}"));
        let mut result = tungstenite::client(request, stream);
        loop {
            result = match result {
                Ok((socket, _)) => return Ok(socket),
                Err(HandshakeError::Interrupted(part)) => {
                    waiting()?;
                    part.handshake()
                }
                Err(HandshakeError::Failure(err)) => {
                    bail!("the kernel's websocket doesn't open: {err}")
                }
            }
        }
    }

    /// To a port of a host, through the proxy if there is one for it. ureq keeps its own connections to itself.
    fn connect(&self, host: &str, port: u16, until: Until) -> Result<TcpStream> {
        let proxy = self
            .proxy
            .as_ref()
            .filter(|it| !it.is_no_proxy(&self.url.parse().unwrap_or_default()));
        let (next, next_port) = proxy.map_or((host, port), |it| (it.host(), it.port()));
        let addresses = (next, next_port)
            .to_socket_addrs()
            .context("there is no such host")?;
        let mut tried = addresses.map(|it| TcpStream::connect_timeout(&it, until.left().max(SOON)));
        let mut tcp = match tried.by_ref().find(Result::is_ok) {
            Some(tcp) => tcp?,
            None => bail!("nobody listens at port {next_port}"),
        };
        tcp.set_read_timeout(Some(until.left().max(SOON)))?;
        let Some(proxy) = proxy else { return Ok(tcp) };
        let login = proxy.username().map(|user| {
            let login =
                BASE64_STANDARD.encode(format!("{user}:{}", proxy.password().unwrap_or_default()));
            format!("Proxy-Authorization: Basic {login}\r\n")
        });
        let login = login.unwrap_or_default();
        write!(
            tcp,
            "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{login}\r\n"
        )?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tcp.read_exact(&mut byte)
                .context("the proxy of `HTTPS_PROXY` hangs up")?;
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer);
        let first = answer.lines().next().unwrap_or_default();
        ensure!(
            first.split(' ').nth(1) == Some("200"),
            "the proxy of `HTTPS_PROXY` answers {first}"
        );
        Ok(tcp)
    }
}

/// Forwards ports to a service of a namespace, with the port here.
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
        if let Some(said) = process.ended()? {
            bail!("`kubectl port-forward` ended: {}", said.trim());
        }
        // "Forwarding from 127.0.0.1:43210 -> 8000"
        let said = process.written()?;
        if let Some(port) = said
            .lines()
            .find_map(|it| it.strip_prefix("Forwarding from 127.0.0.1:"))
        {
            return Ok((
                process,
                port.split(' ').next().unwrap_or_default().to_owned(),
            ));
        }
        until.check("`kubectl port-forward`")?;
        thread::sleep(Duration::from_millis(20));
    }
}

/// The domain in a `domain_override_file`.
pub(crate) fn domain_in(file: &InMemory) -> Result<String> {
    let shown = file.source.display();
    let yaml: serde_yaml::Value = serde_yaml::from_str(&file.text()?)
        .ok()
        .with_context(|| format!("`{shown}` isn't YAML"))?;
    let domain = yaml.get("domain").and_then(serde_yaml::Value::as_str);
    Ok(domain
        .with_context(|| format!("`{shown}` has no `domain`"))?
        .to_owned())
}

/// Where this machine reaches the hub on the real node of a rehearsal cluster, if its proxy has a port there.
pub(crate) fn node_port(api: &Api, hub: &Hub) -> Option<String> {
    let service = api.get(&format!(
        "/api/v1/namespaces/{}/services/proxy-public",
        hub.name
    ));
    let port = service.ok()?["spec"]["ports"][0]["nodePort"].as_u64()?;
    Some(format!("http://{}:{port}", node::ADDRESS))
}
