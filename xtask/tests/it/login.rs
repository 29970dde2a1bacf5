//! Logging in to clusters of each provider, as they would be asked: gcloud and aws are the real ones, and behind each stands
//! the rehearsal cluster's API server.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::SystemTime,
};

use base64::{Engine, prelude::*};
use serde_json::{Value, json};

use crate::{
    leaks::{in_arguments, on_disk},
    repo::{Key, Repo, Shared, assert_succeeded, kubectl, persons_cache, tool_path, wait_until},
    upstream::{Answer, Request, Running, Server, free_address},
};

/// A repository whose cluster `lake` is at this provider, with the key `key.secret.json` encrypted for us, and with things of
/// the person's own that a log-in must neither read nor change.
fn repo(cluster: &Shared, provider: &str, key: &Value) -> Repo {
    let mut repo = Repo::on(cluster, &["login"]);
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "provider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\n",
        provider,
    );
    let sops = Key::new();
    repo.has_key(&sops);
    repo.write("config/clusters/lake/key.secret.json", &key.to_string());
    repo.encrypt("config/clusters/lake/key.secret.json", &sops);
    // Broken ones: whoever read them would say so.
    for file in [
        ".kube/config",
        ".aws/config",
        ".aws/credentials",
        ".config/gcloud/active_config",
    ] {
        let file = repo.home().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "{[broken").unwrap();
    }
    repo
}

/// All files below a folder, with what they hold.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => _ = found.insert(entry.path(), fs::read(entry.path()).unwrap_or_default()),
        }
    }
    found
}

/// A secret that nobody else on this machine has, such as another run of the tests or the compiler's output.
fn of_this_run(secret: &str) -> String {
    format!("{secret}-{}", std::process::id())
}

/// Where private folders of log-ins are.
fn folders() -> Vec<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let there = fs::read_dir(format!("/dev/shm/xtask-{uid}"))
        .unwrap()
        .map(|it| it.unwrap().path());
    there
        .filter(|it| {
            it.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("login-")
        })
        .collect()
}

/// What is true of a login with a key, whoever gave it: it works, also as long as a deploy lasts; nothing of the key is on a
/// disk, in an argument or in the private folder; HOME stays as it is; the login goes with us.
fn holds(repo: &Repo, secret: &str) {
    let before = files(&repo.home());
    let start = SystemTime::now();
    assert_eq!(
        repo.ok("use-cluster-credentials lake kubectl get --raw /readyz")
            .stdout,
        "ok"
    );
    let ran = repo.ok("deploy lake --debug");
    assert!(
        ran.stdout.contains("login                deployed"),
        "{}",
        ran.stdout
    );
    assert!(!(ran.stdout + &ran.stderr).contains(secret));
    assert_eq!(files(&repo.home()), before);

    let (at, go) = (repo.cache().join("at"), repo.cache().join("go"));
    let script = repo.cache().join("wait.sh");
    let lines = format!(
        "helm list -n login -q\nkubectl config set-context --current --namespace login\nkubectl get configmap pond -o name\n\
         echo $KUBECONFIG > {at}.part; mv {at}.part {at}\nuntil [ -e {go} ]; do sleep 0.05; done\nexit 5\n",
        at = at.display(),
        go = go.display()
    );
    fs::write(&script, lines).unwrap();
    let command = format!("use-cluster-credentials lake sh {}", script.display());
    let child = repo.start(&command);
    wait_until("the shell", || at.exists());
    let folder = PathBuf::from(fs::read_to_string(&at).unwrap().trim())
        .parent()
        .unwrap()
        .to_owned();
    assert!(folders().contains(&folder), "{}", folder.display());
    let in_folder: Vec<_> = files(&folder)
        .into_iter()
        .filter(|(_, it)| String::from_utf8_lossy(it).contains(secret))
        .collect();
    assert_eq!(
        (on_disk(secret, start), in_arguments(secret), in_folder),
        (vec![], vec![], vec![])
    );
    fs::write(&go, "").unwrap();
    let ran = crate::repo::Ran::from(child);
    assert_eq!(ran.code, Some(5), "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stdout.starts_with("login\n") && ran.stdout.ends_with("configmap/pond\n"),
        "{}",
        ran.stdout
    );
    assert!(!folder.exists());

    // Whatever ends us.
    fs::remove_file(&at).unwrap();
    fs::remove_file(&go).unwrap();
    let mut child = repo.start(&command);
    wait_until("the shell", || at.exists());
    let folder = PathBuf::from(fs::read_to_string(&at).unwrap().trim())
        .parent()
        .unwrap()
        .to_owned();
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of the private folder", || !folder.exists());
    fs::write(&go, "").unwrap();
    assert_eq!(
        on_disk(secret, start),
        Vec::<PathBuf>::new(),
        "after kill -9"
    );
    assert_eq!(files(&repo.home()), before);
}

/// The token of an account that may do everything on the rehearsal cluster.
fn token(cluster: &Shared, name: &str) -> String {
    cluster.kubectl_apply(&format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: default}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: {name}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}\n\
         subjects: [{{kind: ServiceAccount, name: {name}, namespace: default}}]\n"
    ));
    cluster
        .kubectl(&format!("create token {name}"))
        .trim()
        .to_owned()
}

/// The rehearsal cluster's kubeconfig, complete in itself.
fn flat(cluster: &Shared) -> Value {
    serde_json::from_str(&kubectl(
        &cluster.kubeconfig,
        "config view --raw --flatten -o json",
    ))
    .unwrap()
}

/// Plays Google: gives a token to whoever signs with this key, and the cluster to whoever has the token.
fn google(cluster: &Shared, public: &Path, signs: Arc<AtomicBool>) -> Server {
    let (token, public) = (token(cluster, "google"), public.to_owned());
    let api = flat(cluster)["clusters"][0]["cluster"].clone();
    let endpoint = api["server"]
        .as_str()
        .unwrap()
        .strip_prefix("https://")
        .unwrap()
        .to_owned();
    let is_signed = move |assertion: &str| {
        let (signed, signature) = assertion.rsplit_once('.').unwrap();
        let claims = BASE64_URL_SAFE_NO_PAD
            .decode(signed.split('.').nth(1).unwrap().trim_end_matches('='))
            .unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let file = public.with_file_name(format!("signature-{:?}", thread::current().id()));
        fs::write(
            &file,
            BASE64_URL_SAFE_NO_PAD
                .decode(signature.trim_end_matches('='))
                .unwrap(),
        )
        .unwrap();
        let mut openssl = Command::new("openssl");
        openssl
            .args(["dgst", "-sha256", "-verify"])
            .arg(&public)
            .arg("-signature")
            .arg(&file);
        let mut openssl = openssl
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        openssl
            .stdin
            .take()
            .unwrap()
            .write_all(signed.as_bytes())
            .unwrap();
        openssl.wait().unwrap().success()
            && claims["iss"] == "deployer@lake-1.iam.gserviceaccount.com"
    };
    Server::asked(
        move |request: &Request| match (request.method.as_str(), request.path.as_str()) {
            ("POST", "token")
                if signs.load(Ordering::SeqCst) && is_signed(&request.field("assertion")) =>
            {
                Answer::Json(
                    200,
                    json!({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}),
                )
            }
            ("POST", "token") => Answer::Json(
                400,
                json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}),
            ),
            ("GET", "v1/projects/lake-1/locations/europe-west1/clusters/shore?alt=json") => {
                if !request.has(&format!("authorization: Bearer {token}")) {
                    return Answer::Json(
                        401,
                        json!({"error": {"code": 401, "message": "who are you?", "status": "UNAUTHENTICATED"}}),
                    );
                }
                let authority = api["certificate-authority-data"].clone();
                Answer::Json(
                    200,
                    json!({"name": "shore", "status": "RUNNING", "endpoint": endpoint, "location": "europe-west1",
                       "masterAuth": {"clusterCaCertificate": authority}}),
                )
            }
            (_, path) => Answer::Json(
                403,
                json!({"error": {"code": 403, "message": format!("no permission for {path}"), "status": "PERMISSION_DENIED"}}),
            ),
        },
    )
}

pub(crate) fn openssl(args: &str) -> String {
    let output = Command::new("openssl")
        .args(args.split(' '))
        .output()
        .unwrap();
    assert_succeeded(&output);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn google_by_gcloud() {
    // No registry has it; `cargo xtask ci` says that it's left out.
    if !Command::new("sh")
        .args(["-c", "command -v gke-gcloud-auth-plugin"])
        .output()
        .unwrap()
        .status
        .success()
    {
        return;
    }
    let cluster = Shared::cluster();
    let private = openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048");
    let key = json!({
        "type": "service_account", "project_id": "lake-1", "private_key_id": "0123456789abcdef",
        "private_key": private, "client_email": "deployer@lake-1.iam.gserviceaccount.com", "client_id": "1",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": "https://oauth2.googleapis.com/token",
    });
    let provider = "provider: gcp\ngcp: {key: key.secret.json, project: lake-1, cluster: shore, region: europe-west1}\n";
    let mut repo = repo(&cluster, provider, &key);
    // Not where the repository is, whose files are compared with the key.
    let (secret, public) = (
        repo.cache().join("private.pem"),
        repo.cache().join("public.pem"),
    );
    fs::write(&secret, &private).unwrap();
    fs::write(
        &public,
        openssl(&format!("pkey -in {} -pubout", secret.display())),
    )
    .unwrap();
    fs::remove_file(&secret).unwrap();
    let signs = Arc::new(AtomicBool::new(true));
    let google = google(&cluster, &public, signs.clone());
    repo.env.extend(
        [
            (
                "CLOUDSDK_AUTH_TOKEN_HOST",
                format!("{}/token", google.address),
            ),
            (
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER",
                format!("{}/", google.address),
            ),
            // The person's own, which would be taken in place of the key.
            ("CLOUDSDK_CORE_ACCOUNT", "person@example.org".to_owned()),
            ("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", "/nowhere".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    holds(&repo, private.lines().nth(3).unwrap());
    // A zone may hold a region.
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "region: europe-west1",
        "zone: europe-west1",
    );
    let ran =
        repo.ok("use-cluster-credentials lake gcloud config list --format=value(core.project)");
    assert_eq!(ran.stdout, "lake-1\n", "{}", ran.stderr);

    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "cluster: shore",
        "cluster: island",
    );
    let said = repo.fails("deploy lake");
    for part in [
        "cannot log in to `lake`: `gcloud container clusters get-credentials island --zone europe-west1 --project lake-1` failed: ",
        "no permission for v1/projects/lake-1/locations/europe-west1/clusters/island",
        "\nhint: the key is that of deployer@lake-1.iam.gserviceaccount.com: it must still be valid",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    signs.store(false, Ordering::SeqCst);
    let said = repo.fails("use-cluster-credentials lake true");
    assert!(said.contains("Invalid JWT Signature."), "{said}");
    signs.store(true, Ordering::SeqCst);

    // Without a key it's the person's own login.
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "{key: key.secret.json, ",
        "{",
    );
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "cluster: island",
        "cluster: shore",
    );
    let own = repo.cache().join("own.json");
    fs::write(&own, key.to_string()).unwrap();
    let is_other =
        |name: &str| ["CLOUDSDK_CORE_ACCOUNT", "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"].contains(&name);
    repo.env.retain(|(name, _)| !is_other(name));
    repo.env.push((
        "CLOUDSDK_CONFIG".into(),
        repo.cache().join("gcloud").display().to_string(),
    ));
    let said = repo.fails("use-cluster-credentials lake true");
    assert!(
        said.contains("\nhint: `gcloud auth list` shows whose login this is"),
        "{said}"
    );
    repo.env.push((
        "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE".into(),
        own.display().to_string(),
    ));
    assert_eq!(
        repo.ok("use-cluster-credentials lake kubectl get --raw /readyz")
            .stdout,
        "ok"
    );
}

/// Plays AWS, by moto, which makes up where a cluster is, and its certificate: they are these in truth. It asks for good
/// keys only if it doesn't let everybody in.
pub(crate) fn amazon(address: &str, endpoint: &str, certificate: &str, lets_in: bool) -> Running {
    let script = "
import base64, sys, moto.eks.models as eks
from moto.server import main
make, certificate, endpoint = eks.Cluster.__init__, sys.argv.pop(), sys.argv.pop()
def init(cluster, *args, **kwargs):
    make(cluster, *args, **kwargs)
    cluster.endpoint = endpoint
    cluster.certificate_authority = {'data': base64.b64encode(certificate.encode()).decode()}
eks.Cluster.__init__ = init
main(sys.argv[1:])
";
    let port = address.rsplit_once(':').unwrap().1;
    let args = ["-c", script, "-p", port, endpoint, certificate].map(str::to_owned);
    let folder = moto();
    let calls = if lets_in { "inf" } else { "0" };
    let env = [
        ("PYTHONPATH", folder.to_str().unwrap()),
        ("INITIAL_NO_AUTH_ACTION_COUNT", calls),
    ];
    Running::start_with("python3", &args, address, &env)
}

/// Where moto and the aws command are.
fn moto() -> PathBuf {
    let folder = persons_cache().join("xtask/tests/moto==5.2.1");
    assert!(
        folder.is_dir(),
        "`cargo xtask ci` puts it into {}",
        folder.display()
    );
    folder
}

/// The lines of a script that is the aws command.
pub(crate) fn aws() -> String {
    format!(
        "PYTHONPATH={0} exec python3 {0}/bin/aws \"$@\"",
        moto().display()
    )
}

/// Lets in whoever has a token that the access key `id` made for the cluster, as EKS does, and hands what they ask on to the
/// rehearsal cluster. The signature isn't checked. Its address, its certificate, and what it is made of.
fn eks(cluster: &Shared, id: &'static str, dir: &Path) -> (String, String, [Running; 2]) {
    let behind = free_address();
    let args = ["proxy", "--port", behind.rsplit_once(':').unwrap().1].map(str::to_owned);
    let env = [("KUBECONFIG", cluster.kubeconfig.to_str().unwrap())];
    let proxy = Running::start_with(tool_path("kubectl").to_str().unwrap(), &args, &behind, &env);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let inner = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            let behind = behind.clone();
            thread::spawn(move || pass_on(&stream, &behind, id));
        }
    });
    // kubectl shows its token to nobody without TLS.
    let (certificate, key) = (dir.join("eks.crt"), dir.join("eks.key"));
    let (crt, pem) = (certificate.display(), key.display());
    openssl(&format!(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=eks -addext subjectAltName=IP:127.0.0.1 -out {crt} -keyout {pem}"
    ));
    let address = free_address();
    let port = address.rsplit_once(':').unwrap().1;
    let listen = format!(
        "OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,verify=0,cert={crt},key={pem}"
    );
    let tls = Running::start("socat", &[listen, format!("TCP:{inner}")], &address);
    (
        format!("https://{address}"),
        fs::read_to_string(certificate).unwrap(),
        [proxy, tls],
    )
}

fn pass_on(stream: &TcpStream, behind: &str, id: &str) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).ok()? > 2 {}
    let token = head
        .lines()
        .find_map(|it| it.strip_prefix("Authorization: Bearer k8s-aws-v1."));
    let url = BASE64_URL_SAFE_NO_PAD
        .decode(token.unwrap_or_default())
        .unwrap_or_default();
    let url = String::from_utf8(url).unwrap();
    let is_known =
        url.contains(&format!("X-Amz-Credential={id}%2F")) && url.contains("x-k8s-aws-id");
    if !is_known {
        let body =
            r#"{"kind": "Status", "status": "Failure", "message": "Unauthorized", "code": 401}"#;
        let length = body.len();
        write!(
            &*stream,
            "HTTP/1.1 401 x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        return None;
    }
    let mut to = TcpStream::connect(behind).ok()?;
    to.write_all(head.as_bytes()).ok()?;
    to.write_all(reader.buffer()).ok()?;
    let (mut from, mut back) = (to.try_clone().ok()?, stream.try_clone().ok()?);
    thread::spawn(move || std::io::copy(&mut from, &mut back));
    std::io::copy(&mut reader.into_inner().try_clone().ok()?, &mut to).ok()?;
    None
}

#[test]
fn amazon_by_aws() {
    const ID: &str = "AKIAFORTHELAKE";
    let secret = of_this_run("wJalr/the-deployers-own-key");
    let cluster = Shared::cluster();
    let key = json!({"AccessKey": {"AccessKeyId": ID, "SecretAccessKey": secret, "UserName": "deployer"}});
    let provider = "provider: aws\naws: {key: key.secret.json, clusterType: eks, clusterName: shore, region: us-west-2}\n";
    let mut repo = repo(&cluster, provider, &key);
    repo.script("aws", &aws());
    let (endpoint, certificate, _processes) = eks(&cluster, ID, &repo.cache());
    let address = free_address();
    let amazon_itself = amazon(&address, &endpoint, &certificate, true);
    repo.env.extend(
        [
            ("AWS_ENDPOINT_URL", format!("http://{address}").as_str()),
            // The person's own, which would be taken in place of the key, or beside it.
            ("AWS_PROFILE", "person"),
            ("AWS_SESSION_TOKEN", "the-persons-session"),
            ("AWS_REGION", "eu-north-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let mut make = Command::new("sh");
    let args = "eks create-cluster --name shore --role-arn arn:aws:iam::123456789012:role/r --region us-west-2 \
                --resources-vpc-config subnetIds=[],securityGroupIds=[]";
    make.args(["-c", &aws(), "aws"])
        .args(args.split_whitespace())
        .env("AWS_ENDPOINT_URL", format!("http://{address}"));
    make.env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "x");
    let made = make.output().unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );

    holds(&repo, &secret);
    let ran = repo.ok("use-cluster-credentials lake aws eks list-clusters --output text");
    assert_eq!(ran.stdout, "CLUSTERS\tshore\n", "{}", ran.stderr);

    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "clusterName: shore",
        "clusterName: island",
    );
    let said = repo.fails("deploy lake");
    for part in [
        "cannot log in to `lake`: `aws eks update-kubeconfig --name island --region us-west-2 --kubeconfig ",
        "ResourceNotFoundException",
        &format!("\nhint: the access key is {ID}: it must still be active"),
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }

    // Without a key it's the person's own login.
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "clusterName: island",
        "clusterName: shore",
    );
    let keyless = repo
        .read("config/clusters/lake/cluster.yaml")
        .replace("key: key.secret.json, ", "");
    let with_key = repo.read("config/clusters/lake/cluster.yaml");
    repo.write("config/clusters/lake/cluster.yaml", &keyless);
    let said = repo.fails("use-cluster-credentials lake true");
    assert!(
        said.contains("\nhint: `aws sts get-caller-identity` shows whose login this is"),
        "{said}"
    );
    let as_given = repo.env.clone();
    repo.env
        .retain(|(name, _)| !["AWS_PROFILE", "AWS_SESSION_TOKEN"].contains(&name.as_str()));
    for (name, value) in [
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ("AWS_ACCESS_KEY_ID", ID),
        ("AWS_SECRET_ACCESS_KEY", "the-persons-own"),
    ] {
        repo.env.push((name.to_owned(), value.to_owned()));
    }
    assert_eq!(
        repo.ok("use-cluster-credentials lake kubectl get --raw /readyz")
            .stdout,
        "ok"
    );
    repo.env = as_given;
    repo.write("config/clusters/lake/cluster.yaml", &with_key);

    // Amazon no longer knows the key.
    drop(amazon_itself);
    let _amazon = amazon(&address, &endpoint, &certificate, false);
    let said = repo.fails("deploy lake");
    assert!(
        said.contains("The security token included in the request is invalid"),
        "{said}"
    );
    assert!(!said.contains(&secret), "{said}");
}

#[test]
fn azure_by_its_api() {
    let secret = of_this_run("q8Q~the-deployers-own-key");
    const GROUP: &str = "subscriptions/sub-1/resourceGroups/water/providers/Microsoft.ContainerService/managedClusters";
    let cluster = Shared::cluster();
    let key = json!({
        "service_principal_id": "principal-1", "service_principal_password": secret, "tenant_id": "tenant-1",
        "subscription_id": "sub-1",
    });
    let provider =
        "provider: azure\nazure: {key: key.secret.json, resource_group: water, cluster: shore}\n";
    let repo = repo(&cluster, provider, &key);
    let kubeconfig = BASE64_STANDARD.encode(flat(&cluster).to_string());
    let expired = Arc::new(AtomicBool::new(false));
    let is_expired = expired.clone();
    let known = secret.clone();
    let azure = Server::asked(move |request| {
        let path = request.path.as_str();
        if path == "tenant-1/oauth2/v2.0/token" && request.method == "POST" {
            let scope = request.field("scope");
            let is_right = request.field("grant_type") == "client_credentials"
                && request.field("client_id") == "principal-1"
                && request.field("client_secret") == known
                && scope.starts_with("http://127.0.0.1:")
                && scope.ends_with("/.default");
            return match is_right && !is_expired.load(Ordering::SeqCst) {
                true => Answer::Json(
                    200,
                    json!({"access_token": "azures-token", "expires_in": 3599}),
                ),
                false => Answer::Json(
                    401,
                    json!({"error": "invalid_client", "error_description": "AADSTS7000222: The provided client secret keys are expired."}),
                ),
            };
        }
        if request.method != "POST" || !request.has("authorization: Bearer azures-token") {
            return Answer::Json(
                401,
                json!({"error": {"code": "AuthenticationFailed", "message": "no token"}}),
            );
        }
        match path.split_once('?') {
            Some((path, query)) if path == format!("{GROUP}/shore/listClusterUserCredential") => {
                assert!(query.contains("api-version=20"), "{query}");
                Answer::Json(
                    200,
                    json!({"kubeconfigs": [{"name": "clusterUser", "value": kubeconfig}]}),
                )
            }
            _ => Answer::Json(
                404,
                json!({"error": {"code": "ResourceNotFound", "message": "no such cluster in water"}}),
            ),
        }
    });
    repo.write(
        "config/xtask.yaml",
        &format!("azure: {{login: {0}, management: {0}/}}\n", azure.address),
    );
    holds(&repo, &secret);
    let ran = repo.ok("use-cluster-credentials lake env");
    for variable in [
        "AAD_LOGIN_METHOD=spn\n",
        "AZURE_CLIENT_ID=principal-1\n",
        "AZURE_TENANT_ID=tenant-1\n",
    ] {
        assert!(ran.stdout.contains(variable), "{}", ran.stdout);
    }

    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "cluster: shore",
        "cluster: island",
    );
    let said = repo.fails("deploy lake");
    for part in [
        "cannot log in to `lake`: cannot get a kubeconfig for the service principal principal-1: POST http://",
        ": Azure answers 404 Not Found: no such cluster in water\n\nhint: it needs the role `Azure",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    expired.store(true, Ordering::SeqCst);
    let said = repo.fails("deploy lake");
    assert!(
        said.contains("AADSTS7000222: The provided client secret keys are expired."),
        "{said}"
    );
    assert!(
        said.contains(
            "\nhint: the secret in `config/clusters/lake/key.secret.json` must still be valid"
        ),
        "{said}"
    );
    assert!(!said.contains(&secret), "{said}");
}

/// An encrypted kubeconfig whose certificates are files beside it.
#[test]
fn a_kubeconfig_and_files_beside_it() {
    let cluster = Shared::cluster();
    let mut repo = repo(
        &cluster,
        "provider: kubeconfig\nkubeconfig: {file: key.secret.json}\n",
        &json!({}),
    );
    let mut kubeconfig = flat(&cluster);
    let mut beside = |list: &str, inner: &str, key: &str, file: &str| {
        let object = kubeconfig[list][0][inner].as_object_mut().unwrap();
        let data = object.remove(&format!("{key}-data")).unwrap();
        repo.write(
            &format!("config/clusters/lake/{file}"),
            &String::from_utf8(BASE64_STANDARD.decode(data.as_str().unwrap()).unwrap()).unwrap(),
        );
        object.insert(key.to_owned(), json!(file));
    };
    beside("clusters", "cluster", "certificate-authority", "ca.crt");
    beside("users", "user", "client-certificate", "client.crt");
    kubeconfig["users"][0]["user"]["username"] = Value::Null;
    let secret = kubeconfig["users"][0]["user"]["client-key-data"]
        .as_str()
        .unwrap()[100..160]
        .to_owned();
    repo.env.clear();
    let sops = Key::new();
    repo.has_key(&sops);
    repo.write(
        "config/clusters/lake/key.secret.json",
        &kubeconfig.to_string(),
    );
    repo.encrypt("config/clusters/lake/key.secret.json", &sops);
    // What a shell may write has the key in it.
    let ran = repo.ok("deploy lake");
    assert!(
        ran.stdout.contains("login                deployed"),
        "{}",
        ran.stdout
    );
    let ran = repo.ok("use-cluster-credentials lake kubectl config view --raw");
    assert!(ran.stdout.contains(&secret), "{}", ran.stdout);
    assert!(ran.stdout.contains(&format!(
        "certificate-authority: {}/config/clusters/lake/ca.crt",
        repo.root.display()
    )));
}

#[test]
fn programs_that_a_login_needs_are_named() {
    let cluster = Shared::cluster();
    let mut repo = repo(
        &cluster,
        "provider: gcp\ngcp: {key: key.secret.json, project: p, cluster: c, zone: z}\n",
        &json!({"client_email": "a@b"}),
    );
    // A PATH with nothing of the providers' in it.
    let bin = repo.cache().join("bin");
    fs::create_dir_all(&bin).unwrap();
    for program in ["sh", "rm"] {
        std::os::unix::fs::symlink(which(program), bin.join(program)).unwrap();
    }
    repo.env
        .push(("PATH".to_owned(), bin.display().to_string()));
    for (from, to, part) in [
        (
            "",
            "",
            "cannot log in to `lake`: PATH has no `gcloud` and no `gke-gcloud-auth-plugin`\n\nhint: https://",
        ),
        (
            "provider: gcp\ngcp: {key: key.secret.json, project: p, cluster: c, zone: z}\n",
            "provider: aws\naws: {clusterName: c, region: r}\n",
            "cannot log in to `lake`: PATH has no `aws`\n\nhint: https://",
        ),
        (
            "provider: aws\naws: {clusterName: c, region: r}\n",
            "provider: azure\nazure: {resource_group: g, cluster: c}\n",
            "cannot log in to `lake`: PATH has no `az`\n\nhint: name a service principal's `key`",
        ),
        (
            "provider: azure\nazure: {resource_group: g, cluster: c}\n",
            "provider: azure\nazure: {key: key.secret.json, resource_group: g, cluster: c}\n",
            "`config/clusters/lake/key.secret.json` is not a key of this provider: it has no text `service_principal_id`, \
             `service_principal_password`, `tenant_id`, `subscription_id`",
        ),
    ] {
        repo.edit("config/clusters/lake/cluster.yaml", from, to);
        let said = repo.fails("use-cluster-credentials lake true");
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

/// A repository whose cluster `lake` is at this address, and lets in somebody with a token, if it knows it.
fn at(cluster: &Shared, server: &str) -> Repo {
    let mut repo = Repo::on(cluster, &["away"]);
    let kubeconfig = "config/clusters/lake/kubeconfig.yaml";
    repo.write(
        kubeconfig,
        &format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: {server}, insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: u, user: {{token: nobodys}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        ),
    );
    let key = Key::new();
    repo.encrypt(kubeconfig, &key);
    repo.has_key(&key);
    repo
}

#[test]
fn a_cluster_that_is_away() {
    let cluster = Shared::cluster();
    let repo = at(&cluster, &format!("https://{}", free_address()));
    let said = repo.fails("use-cluster-credentials lake true");
    assert!(
        said.contains("cannot log in to `lake`: the cluster does not answer at https://")
            && said.contains("was refused"),
        "{said}"
    );
    assert!(
        said.contains(
            "\nhint: is the cluster up, and does it accept connections from this machine?"
        ),
        "{said}"
    );
}

#[test]
fn a_cluster_that_does_not_know_us() {
    let cluster = Shared::cluster();
    let server = flat(&cluster)["clusters"][0]["cluster"]["server"]
        .as_str()
        .unwrap()
        .to_owned();
    let repo = at(&cluster, &server);
    let said = repo.fails("use-cluster-credentials lake true");
    assert!(
        said.contains("\nhint: the cluster does not know this account"),
        "{said}"
    );
}

fn which(program: &str) -> PathBuf {
    let output = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Where the key is that README.md of config/keys has people make.
const AGE_KEY: &str = "deployer/keys/enc-age-secret-private.key";

/// A repository with such a key, which is returned.
fn with_age_key() -> (Repo, Key) {
    let mut repo = Repo::new();
    let sops = Key::new();
    let ours = Key::new();
    repo.has_key(&sops);
    repo.write(AGE_KEY, &ours.private);
    repo.encrypt(AGE_KEY, &sops);
    assert!(
        repo.read(AGE_KEY).contains("\"data\": \"ENC["),
        "sops takes .key files as they are"
    );
    (repo, ours)
}

/// What `decrypt-age` makes of what it reads: its status, its output, and what it said.
fn decrypt(repo: &Repo, input: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    let mut child = repo
        .command("decrypt-age")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        output.stdout,
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// By age itself.
fn encrypt(repo: &Repo, args: &[&str], text: &[u8]) -> Vec<u8> {
    let mut age = Command::new(tool_path("age"));
    let file = repo.cache().join("plain");
    fs::write(&file, text).unwrap();
    age.args(args)
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap()
        .stdout
}

#[test]
fn nobody_made_the_key_for_users() {
    let repo = Repo::new();
    let armoured = encrypt(
        &repo,
        &["-a", "-r", &Key::new().public],
        b"a client's secret\n",
    );
    let (code, _, said) = decrypt(&repo, &armoured);
    assert_eq!(code, Some(1));
    assert!(
        said.contains(
            "there is no private key: `config/keys/enc-age-secret-private.key`, `deployer/keys/"
        ),
        "{said}"
    );
}

#[test]
fn what_users_encrypt_for_us() {
    let (repo, ours) = with_age_key();
    let armoured = encrypt(&repo, &["-a", "-r", &ours.public], b"a client's secret\n");
    let start = SystemTime::now();
    for pasted in [
        armoured.clone(),
        [b"\n\n", &armoured[..], b"\n \n"].concat(),
    ] {
        assert_eq!(
            decrypt(&repo, &pasted),
            (Some(0), b"a client's secret\n".to_vec(), String::new())
        );
    }
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let binary = encrypt(&repo, &["-r", &ours.public], &bytes);
    assert_eq!(decrypt(&repo, &binary).1, bytes);
    repo.write("sent.age", "");
    fs::write(repo.root.join("sent.age"), &binary).unwrap();
    let output = repo
        .command("decrypt-age --encrypted-file-path sent.age")
        .output()
        .unwrap();
    assert_eq!(output.stdout, bytes);
    let private = ours.private.lines().last().unwrap();
    assert_eq!(
        (on_disk(private, start), in_arguments(private)),
        (vec![], vec![])
    );
}

#[test]
fn what_cannot_be_decrypted_with_the_key_for_users() {
    let (repo, ours) = with_age_key();
    let armoured = encrypt(&repo, &["-a", "-r", &ours.public], b"a client's secret\n");
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let binary = encrypt(&repo, &["-r", &ours.public], &bytes);
    let other = encrypt(&repo, &["-r", &Key::new().public], b"not for us");
    for (input, part) in [
        (
            &b""[..],
            "the text from stdin is empty: there is nothing to decrypt\n",
        ),
        (
            b" \n",
            "the text from stdin is empty: there is nothing to decrypt\n",
        ),
        (
            b"hello\n",
            "cannot decrypt the text from stdin with `deployer/keys/enc-age-secret-private.key`: age: error: ",
        ),
        (
            &binary[..200_000],
            "age: error: failed to decrypt and authenticate payload chunk",
        ),
        (&armoured[..150], "age: error: "),
        (
            &other,
            "age: error: no identity matched any of the recipients\n",
        ),
    ] {
        let (code, stdout, said) = decrypt(&repo, input);
        assert_eq!((code, stdout), (Some(1), vec![]), "{said}");
        assert!(
            said.contains(part) && !said.contains("/proc/"),
            "no {part:?} in {said}"
        );
    }
    let said = repo.fails("decrypt-age --encrypted-file-path nothing.age");
    assert!(said.contains("cannot read `nothing.age`"), "{said}");
}
