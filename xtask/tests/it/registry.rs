//! Registries of images on loopback, and images that are pushed to them without an engine.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use ureq::{
    Agent, Body,
    http::{Request, Response},
};

use crate::{
    repo::tool,
    upstream::{Answer, Running, Server, free_address},
};

/// The same service by two programs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// docker-registry 2.8, from Debian.
    Debian,
    /// distribution 3.1, which `setup` builds.
    V3,
}

pub(crate) const BOTH: [Program; 2] = [Program::Debian, Program::V3];

/// How the user `reader` of registries that want a login says that the password is `pa:ss wörd`.
pub(crate) const BASIC: &str = "Basic cmVhZGVyOnBhOnNzIHfDtnJk";
/// They know its hash by bcrypt.
const HTPASSWD: &str = "reader:$2y$05$abcdefghijklmnopqrstuuHYAqSTZaD2G3ZsfHYCUGgOo5vA33Sre\n";

const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry as long as the test has it.
pub(crate) struct Registry {
    /// `127.0.0.1:PORT`, as names of images begin.
    pub(crate) address: String,
    /// The `Authorization` with which this file pushes.
    authorization: Option<String>,
    log: PathBuf,
    _process: Running,
}

impl Registry {
    /// One that everybody may push to, with its data in a folder.
    pub(crate) fn open(program: Program, dir: &Path) -> Registry {
        Registry::start(program, dir, "{}", None)
    }

    /// One that wants the user's password.
    pub(crate) fn with_password(program: Program, dir: &Path) -> Registry {
        fs::create_dir_all(dir).unwrap();
        let file = dir.join("htpasswd");
        fs::write(&file, HTPASSWD).unwrap();
        let auth = format!("{{htpasswd: {{realm: here, path: {}}}}}", file.display());
        Registry::start(program, dir, &auth, Some(BASIC.to_owned()))
    }

    /// One that wants tokens of a server, which gives them to everybody for what is below `public/`, and to the user for all.
    pub(crate) fn with_tokens(program: Program, dir: &Path) -> (Registry, Server) {
        let tokens = Tokens::new(dir);
        let certificate = tokens.certificate.clone();
        let push = tokens.signed(&json!([
            {"type": "repository", "name": "public/image", "actions": ["pull", "push"]},
            {"type": "repository", "name": "private/image", "actions": ["pull", "push"]}]));
        let server = Server::asked(move |request| tokens.answer(request));
        let auth = format!(
            "{{token: {{realm: {}/token, service: the registry, issuer: the tests, rootcertbundle: {}}}}}",
            server.address,
            certificate.display()
        );
        let push = format!("Bearer {push}");
        (Registry::start(program, dir, &auth, Some(push)), server)
    }

    fn start(program: Program, dir: &Path, auth: &str, authorization: Option<String>) -> Registry {
        fs::create_dir_all(dir).unwrap();
        let address = free_address();
        let config = dir.join("registry.yaml");
        let data = dir.join("data");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '{address}', secret: none}}\nauth: {auth}\n",
            data.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = match program {
            Program::Debian => Command::new("docker-registry"),
            Program::V3 => tool("registry"),
        };
        let log = dir.join("log");
        command
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none");
        command.stdout(File::create(&log).unwrap());
        Registry {
            _process: Running::of(command, &address),
            address,
            authorization,
            log,
        }
    }

    /// Pushes an image with this tag that holds nothing, for one architecture. Returns its digest.
    pub(crate) fn push(&self, name: &str, tag: &str, architecture: &str) -> String {
        let manifest = self.manifest(name, architecture);
        self.put_manifest(name, tag, MANIFEST, &manifest)
    }

    /// Pushes an index with an image for each of these architectures. Returns its digest.
    pub(crate) fn push_index(&self, name: &str, tag: &str, architectures: &[&str]) -> String {
        self.push_list(name, tag, OCI_INDEX, architectures)
    }

    /// The same as docker's own list.
    pub(crate) fn push_docker_list(&self, name: &str, tag: &str, architectures: &[&str]) -> String {
        self.push_list(name, tag, MANIFEST_LIST, architectures)
    }

    fn push_list(&self, name: &str, tag: &str, kind: &str, architectures: &[&str]) -> String {
        let mut manifests = Vec::new();
        for architecture in architectures {
            let manifest = self.manifest(name, architecture);
            let digest = digest(&manifest);
            self.put_manifest(name, &digest, MANIFEST, &manifest);
            let platform = json!({"os": "linux", "architecture": architecture});
            let size = manifest.len();
            manifests.push(json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform}));
        }
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
        self.put_manifest(name, tag, kind, index.to_string().as_bytes())
    }

    /// Uploads the configuration of an image, and returns its manifest.
    fn manifest(&self, name: &str, architecture: &str) -> Vec<u8> {
        let config = json!({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []}});
        let config = config.to_string().into_bytes();
        let described = json!({"mediaType": CONFIG, "digest": self.put_blob(name, &config), "size": config.len()});
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []});
        manifest.to_string().into_bytes()
    }

    fn put_blob(&self, name: &str, content: &[u8]) -> String {
        let digest = digest(content);
        let begun = self.ask("POST", &format!("/v2/{name}/blobs/uploads/"), "", b"");
        assert_eq!(begun.status(), 202, "{begun:?}");
        let location = begun.headers()["location"].to_str().unwrap();
        let path = location
            .split_once(&self.address)
            .map_or(location, |(_, it)| it);
        let and = if path.contains('?') { '&' } else { '?' };
        let put = self.ask(
            "PUT",
            &format!("{path}{and}digest={digest}"),
            "application/octet-stream",
            content,
        );
        assert_eq!(put.status(), 201, "{put:?}");
        digest
    }

    fn put_manifest(&self, name: &str, tag: &str, kind: &str, content: &[u8]) -> String {
        let put = self.ask("PUT", &format!("/v2/{name}/manifests/{tag}"), kind, content);
        assert_eq!(put.status(), 201, "{put:?}");
        digest(content)
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Response<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", kind);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        agent.run(request.body(body).unwrap()).unwrap()
    }

    /// How often it was asked like this: `HEAD /v2/NAME/manifests/TAG`.
    pub(crate) fn count(&self, request: &str) -> usize {
        let log = fs::read_to_string(&self.log).unwrap();
        log.matches(&format!("\"{request} ")).count()
    }
}

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|it| format!("{it:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// A server of tokens, which signs them with a key that the registry knows.
struct Tokens {
    key: PathBuf,
    certificate: PathBuf,
}

impl Tokens {
    fn new(dir: &Path) -> Tokens {
        fs::create_dir_all(dir).unwrap();
        let tokens = Tokens {
            key: dir.join("key.pem"),
            certificate: dir.join("certificate.pem"),
        };
        let args = [
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=tokens",
            "-keyout",
        ];
        let output = Command::new("openssl")
            .args(args)
            .arg(&tokens.key)
            .arg("-out")
            .arg(&tokens.certificate)
            .output()
            .unwrap();
        crate::repo::assert_succeeded(&output);
        tokens
    }

    /// As registries describe it: <https://distribution.github.io/distribution/spec/auth/token/>.
    fn answer(&self, request: &crate::upstream::Request) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap();
        assert_eq!((path, &*request.method), ("token", "GET"));
        assert!(query.contains("service=the%20registry"), "{query}");
        let headers = request.headers.to_lowercase();
        let authorization = headers
            .lines()
            .find_map(|it| it.strip_prefix("authorization: "));
        if authorization.is_some_and(|it| it != BASIC.to_lowercase()) {
            return Answer::Status(401);
        }
        let scope = query
            .split("scope=")
            .nth(1)
            .unwrap()
            .replace("%3A", ":")
            .replace("%2F", "/");
        let [kind, name, actions] = scope.split(':').collect::<Vec<_>>()[..] else {
            panic!("{scope}")
        };
        let mut granted = Vec::new();
        if authorization.is_some() || name.starts_with("public/") {
            granted.push(json!({"type": kind, "name": name, "actions": [actions]}));
        }
        Answer::Json(
            200,
            json!({"access_token": self.signed(&granted.into()), "expires_in": 300}),
        )
    }

    /// A token for this access.
    fn signed(&self, access: &Value) -> String {
        let certificate = fs::read_to_string(&self.certificate).unwrap();
        let certificate: String = certificate
            .lines()
            .filter(|it| !it.starts_with('-'))
            .collect();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
        let claims = json!({"iss": "the tests", "aud": "the registry", "sub": "", "jti": "1",
            "iat": 0, "nbf": 0, "exp": 4_102_444_800_u64, "access": access});
        let encoded = |it: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(it);
        let text = format!(
            "{}.{}",
            encoded(header.to_string().as_bytes()),
            encoded(claims.to_string().as_bytes())
        );
        let file = self
            .key
            .with_extension(digest(text.as_bytes()).replace(':', "-"));
        fs::write(&file, &text).unwrap();
        let output = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(&self.key)
            .arg(&file)
            .output()
            .unwrap();
        crate::repo::assert_succeeded(&output);
        format!("{text}.{}", encoded(&output.stdout))
    }
}
