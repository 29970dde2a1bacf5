//! Where charts come from, on loopback: chart repositories over HTTP, good and bad ones, and an OCI registry. Those of
//! tests/charts stand in for the public charts that ours depend on, by names and versions.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::repo::{Repo, assert_succeeded, copy, shared, tool, wait_until, workspace};

/// What somebody asks a server.
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without its first slash.
    pub(crate) path: String,
    /// All but the first line, as they came.
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn has(&self, header: &str) -> bool {
        self.headers
            .lines()
            .any(|it| it.eq_ignore_ascii_case(header))
    }

    /// A field of a form.
    pub(crate) fn field(&self, name: &str) -> String {
        let mut fields = self.body.split('&').filter_map(|it| it.split_once('='));
        let value = fields
            .find(|(it, _)| *it == name)
            .map_or("", |(_, it)| it)
            .replace('+', " ");
        let mut parts = value.split('%');
        let mut text = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            text.push(u8::from_str_radix(&part[..2], 16).unwrap());
            text.extend(&part.as_bytes()[2..]);
        }
        String::from_utf8(text).unwrap()
    }
}

/// What a server says.
pub(crate) enum Answer {
    File(Vec<u8>),
    Page(&'static str),
    Json(u16, serde_json::Value),
    /// An error with a header and what it says.
    Refused(u16, String),
    /// One page of a list, with the address of the next one.
    Linked(serde_json::Value, String),
    /// With a mark of what it holds.
    Marked(serde_json::Value, String),
    Redirect(String),
    Status(u16),
    /// Nothing, ever.
    Silence,
}

/// An HTTP server as long as the tests run.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) archives_served: Arc<AtomicUsize>,
}

impl Server {
    /// One that is asked for nothing but files.
    pub(crate) fn answering(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Server {
        Server::asked(move |request| answer(&request.path))
    }

    pub(crate) fn asked(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let archives_served = Arc::new(AtomicUsize::new(0));
        let (served, answer) = (archives_served.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (served, answer, mut stream) =
                    (served.clone(), answer.clone(), stream.unwrap());
                // Each by itself: one that gets no answer doesn't keep others waiting.
                thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    served.fetch_add(
                        usize::from(request.path.ends_with(".tgz")),
                        Ordering::Relaxed,
                    );
                    let mut more = String::new();
                    let (status, kind, body) = match answer(&request) {
                        Answer::Json(status, body) => {
                            (status, "application/json", body.to_string().into())
                        }
                        Answer::Linked(body, next) => {
                            more = format!(
                                "Link: <{next}>; rel=\"next\", <{next}9>; rel=\"last\"\r\n"
                            );
                            (200, "application/json", body.to_string().into())
                        }
                        Answer::Refused(status, header) => {
                            more = format!("{header}\r\n");
                            let body = serde_json::json!({"message": "Not now"});
                            (status, "application/json", body.to_string().into())
                        }
                        Answer::Marked(body, mark) => {
                            more = format!("ETag: {mark}\r\n");
                            (200, "application/json", body.to_string().into())
                        }
                        Answer::Redirect(to) => {
                            more = format!("Location: {to}\r\n");
                            (302, "text/plain", Vec::new())
                        }
                        Answer::File(body) => (200, "application/octet-stream", body),
                        Answer::Page(body) => (200, "text/html", body.into()),
                        Answer::Status(status) => (status, "text/plain", Vec::new()),
                        Answer::Silence => return thread::sleep(Duration::from_secs(300)),
                    };
                    let head = format!(
                        "HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all(&[head.as_bytes(), &body].concat());
                });
            }
        });
        Server {
            address,
            archives_served,
        }
    }

    /// The files of a folder.
    pub(crate) fn serving(dir: &Path) -> Server {
        let dir = dir.to_owned();
        Server::answering(move |path| {
            fs::read(dir.join(path)).map_or(Answer::Status(404), Answer::File)
        })
    }
}

/// None from somebody who only looked whether the port is open.
fn read(stream: &std::net::TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut headers) = (String::new(), String::new());
    reader.read_line(&mut first).ok()?;
    while reader.read_line(&mut headers).ok()? > 2 {}
    let length = headers.lines().find_map(|it| {
        it.to_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let mut words = first.split(' ');
    Some(Request {
        method: words.next()?.to_owned(),
        path: words.next()?.trim_start_matches('/').to_owned(),
        headers,
        body: String::from_utf8(body).ok()?,
    })
}

/// Writes the index.yaml of the charts in a folder, with their addresses relative to it.
pub(crate) fn index(dir: &Path) {
    assert!(
        tool("helm")
            .args(["repo", "index"])
            .arg(dir)
            .status()
            .unwrap()
            .success()
    );
}

/// Packages the chart in a folder into another one.
pub(crate) fn package(chart: &Path, to: &Path) {
    let output = tool("helm")
        .arg("package")
        .arg(chart)
        .arg("--destination")
        .arg(to)
        .output()
        .unwrap();
    assert_succeeded(&output);
}

/// A server of Debian's that `cargo xtask ci` installs, ended with this.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(program: &str, args: &[String], address: &str) -> Running {
        Running::start_with(program, args, address, &[])
    }

    pub(crate) fn start_with(
        program: &str,
        args: &[String],
        address: &str,
        env: &[(&str, &str)],
    ) -> Running {
        let mut command = Command::new(program);
        command.envs(env.iter().copied());
        command.args(args).stdout(Stdio::null());
        Running::of(command, address)
    }

    /// One that is ready once it listens on an address.
    pub(crate) fn of(mut command: Command, address: &str) -> Running {
        let program = &command.get_program().to_string_lossy().into_owned();
        let process = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|err| panic!("{program}: {err}; `cargo xtask ci` installs it"));
        let mut running = Running(process);
        wait_until(program, || std::net::TcpStream::connect(address).is_ok());
        // Somebody else may have taken the address meanwhile.
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none(), "{program} at {address}: {ended:?}");
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address on loopback where nobody listens.
pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

/// All stand-ins: a chart repository, whose server also has what lies at raw.githubusercontent.com, and a registry.
pub(crate) struct Upstream {
    pub(crate) address: String,
    registry: String,
    _process: Running,
    _work: Repo,
}

/// This one lies in the registry only.
const IN_REGISTRY: &str = "nginx-ingress";

impl Upstream {
    /// The ones that tests share: there as long as one of them has them.
    pub(crate) fn shared() -> Arc<Upstream> {
        static UP: Mutex<Weak<Upstream>> = Mutex::new(Weak::new());
        shared(&UP, Upstream::start)
    }

    fn start() -> Upstream {
        let work = Repo::new();
        let dir = &work.root;
        let served = dir.join("served");
        fs::create_dir_all(&served).unwrap();
        let (_process, registry) = start_registry(dir);
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/charts");
        for chart in fs::read_dir(charts).unwrap() {
            let chart = chart.unwrap().path();
            let to = if chart.ends_with(IN_REGISTRY) {
                dir
            } else {
                &served
            };
            package(&chart, to);
        }
        index(&served);
        push(
            &dir.join("nginx-ingress-2.6.4.tgz"),
            &format!("{registry}/nginx/charts"),
        );

        // The one definition that the stand-in's schema wants, which wants another one.
        let definitions =
            served.join("nginxinc/kubernetes-json-schema/master/v1.36.1/_definitions.json");
        fs::create_dir_all(definitions.parent().unwrap()).unwrap();
        let text = r##"{"definitions": {
            "io.k8s.api.core.v1.Toleration": {"type": "object", "description": "left out", "properties": {
                "key": {"$ref": "#/definitions/text"}, "description": {"type": "string"}}},
            "text": {"type": ["string", "null"]},
            "unused": {"type": "string"}}}"##;
        fs::write(definitions, text).unwrap();
        // CRDs of a version whose chart has none in it.
        let crds = served.join("dask/dask-gateway/2027.1.0/resources/helm/dask-gateway/crds");
        fs::create_dir_all(&crds).unwrap();
        for file in ["daskclusters.yaml", "traefik.yaml"] {
            let own = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/charts/dask-gateway/crds")
                .join(file);
            fs::write(
                crds.join(file),
                fs::read_to_string(own)
                    .unwrap()
                    .replace("2026.3.0", "2027.1.0"),
            )
            .unwrap();
        }
        let address = Server::serving(&served).address;
        Upstream {
            address,
            registry,
            _process,
            _work: work,
        }
    }

    /// Gives a repository our own charts, and the mirrors that lead to their dependencies.
    pub(crate) fn serve(&self, repo: &Repo) {
        for chart in ["basehub", "daskhub", "support"] {
            let name = format!("helm-charts/{chart}");
            copy(&workspace().join(&name), &repo.root.join(&name));
        }
        repo.write("config/xtask.yaml", &self.settings());
    }

    /// config/xtask.yaml with all mirrors.
    pub(crate) fn settings(&self) -> String {
        let (address, registry) = (&self.address, &self.registry);
        format!(
            "chart_mirrors:
  https://hub.jupyter.org/helm-chart: {address}
  https://helm.dask.org/: {address}/
  https://prometheus-community.github.io/helm-charts: {address}
  https://grafana.github.io: {address}/nowhere
  https://grafana.github.io/helm-charts: {address}
  https://kubernetes.github.io/autoscaler: {address}
  https://charts.jetstack.io: {address}
  https://raw.githubusercontent.com: {address}
  oci://ghcr.io: {registry}
"
        )
    }
}

/// Debian's docker-registry with its data in a folder; its address with `oci://`.
pub(crate) fn start_registry(dir: &Path) -> (Running, String) {
    let address = free_address();
    let config = dir.join("registry.yaml");
    let data = dir.join("registry");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
        data.display()
    );
    fs::write(&config, text).unwrap();
    let args = ["serve".to_owned(), config.display().to_string()];
    (
        Running::start("docker-registry", &args, &address),
        format!("oci://{address}"),
    )
}

pub(crate) fn push(archive: &Path, to: &str) {
    let output = tool("helm")
        .arg("push")
        .arg(archive)
        .args([to, "--plain-http"])
        .output()
        .unwrap();
    assert_succeeded(&output);
}
