//! The real node, and a hub on it that people use. As root on Linux; `cargo xtask ci` says when it's left out.
//!
//! There is one such node on a machine, so this is one test, told from top to bottom.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::{
    browser::Browser,
    exec::people_look_into_it,
    generate::git,
    health::on_a_real_node,
    hub::Person,
    repo::{
        Ran, Repo, command_lines, copy, kill_9, kubeconfig, kubectl_apply, persons_cache, tool,
        wait_until,
    },
    shown::sha256,
};

const STAGING: &str = "http://10.213.88.2:30080";
const DEMO: &str = "http://10.213.88.2:30081";
/// The registry of the node.
const REGISTRY: &str = "10.213.88.2:5000";
const PASSWORD: &str = "rehearsal";

/// Whether this machine can have a real node.
fn possible() -> bool {
    cfg!(target_os = "linux") && rustix::process::geteuid().is_root()
}

/// This repository, with the cache of the person who runs the tests: the image is in it, or is built into it.
fn own() -> Repo {
    let mut repo = Repo::own();
    // And with their ways to package registries.
    repo.env
        .extend(env::vars().filter(|(name, _)| name != "HOME"));
    repo.env.push((
        "XDG_CACHE_HOME".into(),
        persons_cache().display().to_string(),
    ));
    repo
}

#[test]
fn from_up_to_down() {
    if !possible() {
        return;
    }
    let repo = own();
    let mut machine = Machine::new();
    let up = repo.ok("local up --real").stdout;
    let node = Node {
        kubeconfig: kubeconfig(&up),
    };
    assert!(
        up.starts_with("local: up on a real node, KUBECONFIG=/dev/shm/"),
        "{up}"
    );
    assert_eq!(repo.ok("local status").stdout, up);
    assert_eq!(
        repo.ok("local up --real").stdout,
        up,
        "a second `up` keeps it"
    );

    only_one_and_of_one_kind(&repo);
    people_work_on_its_hub(&repo, &node);
    the_service_for_health_checks_may_do_what_it_needs(&node);
    what_it_writes_stays_in_it(&node);
    its_registry_has_its_images(&repo);
    a_tag_that_is_pushed_again_is_pulled_again(&node);
    pods_run_whatever_labels_they_select(&node);
    a_hub_runs_an_image_that_was_built_for_it(&repo);
    zero_to_jupyterhub_runs(&repo, &node);
    kubectl_reaches_containers(&node);
    people_look_into_it(&repo, &node);
    on_a_real_node(&repo, &node);

    users_pods_reach_nothing_of_the_cluster(&node);
    an_upgrade_leaves_users_alone(&repo, &node);
    a_new_proxy_leads_to_users_servers(&node);
    a_browser_shows_a_notebook(&node);
    idle_servers_are_culled(&repo, &node);
    what_breaks_is_named(&repo);
    what_is_in_a_volume_stays(&repo, &node);

    machine.knows(&node);
    let of_the_node = network(node.process("sh"));
    assert_ne!(of_the_node, network(std::process::id()));
    repo.ok("local down");
    machine.assert_unchanged("after `down`");
    let registries = persons_cache().join("xtask/registry");
    assert_eq!(fs::read_dir(registries).unwrap().count(), 0);
    let left: Vec<_> = command_lines()
        .into_iter()
        .filter(|(pid, _)| network(*pid) == of_the_node)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    nothing_stays_whatever_is_killed(&repo, &node, &mut machine);
}

pub(crate) struct Node {
    kubeconfig: PathBuf,
}

impl Node {
    /// One of the programs that make up the node.
    fn process(&self, program: &str) -> u32 {
        self.running(program).unwrap()
    }

    fn running(&self, program: &str) -> Option<u32> {
        let started = format!(
            "{} ",
            self.kubeconfig
                .with_file_name("bin")
                .join(program)
                .display()
        );
        command_lines()
            .into_iter()
            .find(|(_, it)| it.starts_with(&started))
            .map(|(pid, _)| pid)
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> Ran {
        let mut command = tool("kubectl");
        command.args(args).env("KUBECONFIG", &self.kubeconfig);
        command.env("KUBECACHEDIR", self.kubeconfig.with_file_name("kube-cache"));
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .into()
    }

    pub(crate) fn apply(&self, yaml: &str) {
        kubectl_apply(&self.kubeconfig, yaml);
    }

    /// The output of a kubectl that must succeed. Arguments are split at blanks.
    pub(crate) fn get(&self, args: &str) -> String {
        let ran = self.kubectl(&args.split_whitespace().collect::<Vec<_>>());
        assert_eq!(ran.code, Some(0), "kubectl {args}: {}", ran.stderr);
        ran.stdout
    }
}

fn only_one_and_of_one_kind(repo: &Repo) {
    let said = repo.fails("local up");
    assert!(
        said.contains("is up on a real node, not on simulated nodes"),
        "{said}"
    );
    assert!(
        said.contains("hint: `cargo xtask local down` first"),
        "{said}"
    );
    let other = own();
    let said = other.fails("local up --real");
    assert!(
        said.contains(&format!("of `{}`", repo.root.display())),
        "{said}"
    );
    assert!(
        said.contains(&format!(
            "`cargo xtask --root {} local down`",
            repo.root.display()
        )),
        "{said}"
    );
    // The other checkout can have simulated nodes meanwhile, and these are of one kind too.
    other.ok("local up");
    let said = other.fails("local up --real");
    assert!(
        said.contains("is up on simulated nodes, not on a real node"),
        "{said}"
    );
    let yaml = "config/clusters/local/cluster.yaml";
    other.edit(
        yaml,
        "provider: local\n",
        "provider: local\nlocal: {nodes: real}\n",
    );
    let said = other.fails("deploy local");
    assert!(
        said.contains("cannot log in to `local`") && said.contains("not on a real node"),
        "{said}"
    );
    other.ok("local down");
    let said = other.fails("deploy local");
    assert!(
        said.contains("this machine's one real node belongs to"),
        "{said}"
    );
}

fn people_work_on_its_hub(repo: &Repo, node: &Node) {
    let deployed = repo.ok("deploy local").stdout;
    assert!(
        deployed.contains(&format!("revision 1, {STAGING}, healthy, ")),
        "{deployed}"
    );
    assert!(
        deployed.contains(&format!("revision 1, {DEMO}, healthy, ")),
        "{deployed}"
    );

    assert_eq!(
        Person::log_in(STAGING, "ada", "guess").err().unwrap(),
        "403 Forbidden"
    );
    let ada = Person::log_in(STAGING, "ada", PASSWORD).unwrap();
    ada.start_server();
    let mut kernel = ada.start_kernel();
    assert_eq!(kernel.run("x = 6 * 7\nprint(x)"), "42\n");
    assert_eq!(
        kernel.run("import os; print(os.getcwd(), os.getuid())"),
        "/home/jovyan 1000\n"
    );
    assert_eq!(
        kernel.run("import dask.array as da; print(da.ones(10).sum().compute())"),
        "10.0\n"
    );
    kernel.run("open('kept', 'w').write('by the volume')");
    ada.stop_server();
    wait_until("the end of ada's pod", || {
        !node
            .get("get pods -n staging -o name")
            .contains("jupyter-ada")
    });
    ada.start_server();
    assert_eq!(
        ada.start_kernel().run("print(open('kept').read())"),
        "by the volume\n"
    );
}

/// And no more.
fn the_service_for_health_checks_may_do_what_it_needs(node: &Node) {
    let secret = node.get(
        "get secret hub -n staging -o jsonpath={.data['hub\\.services\\.hub-health\\.apiToken']}",
    );
    let token = String::from_utf8(base64(&secret)).unwrap();
    let health = |method: &str, path: &str| {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{STAGING}/hub/api/{path}"))
            .header("Authorization", format!("token {token}"));
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        agent
            .run(request.body(()).unwrap())
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(health("POST", "users/deployment-service-check"), 201);
    assert_eq!(health("POST", "users/deployment-service-check/tokens"), 201);
    assert_eq!(health("DELETE", "users/deployment-service-check"), 204);
    for (method, path) in [
        ("GET", "users/ada"),
        ("DELETE", "users/ada/server"),
        ("POST", "users/eve"),
        ("GET", "proxy"),
    ] {
        let status = health(method, path);
        assert!([403, 404].contains(&status), "{method} {path}: {status}");
    }
}

/// What the node's programs write into the machine's folders by these names lies in the node itself. The control plane
/// would make folders of volumes in /tmp.
fn what_it_writes_stays_in_it(node: &Node) {
    let root = PathBuf::from(format!("/proc/{}/root", node.process("sh")));
    for folder in ["run", "var/lib", "var/log"] {
        let own = fs::metadata(root.join(folder)).unwrap().dev();
        let machines = fs::metadata(Path::new("/").join(folder)).unwrap().dev();
        assert_ne!(own, machines, "/{folder}");
    }
    assert_ne!(node.get("get pv -o name"), "");
    assert_eq!(
        node.get("get pv -o jsonpath={.items[*].spec.hostPath.path}"),
        ""
    );
}

fn its_registry_has_its_images(repo: &Repo) {
    let images = repo.ok("local images").stdout;
    let lines: Vec<_> = images.lines().collect();
    assert_eq!(lines.len(), 3, "{images}");
    assert!(lines[1].starts_with("xtask/minihub  1    "), "{images}");
    assert!(lines[2].starts_with("xtask/pause    1    "), "{images}");
    assert!(lines[1].ends_with(" MB"), "{images}");
}

/// Also one of another registry's name, by pods that do not ask for it.
fn a_tag_that_is_pushed_again_is_pulled_again(node: &Node) {
    for word in ["first", "second"] {
        push_image("tests/tool", word);
        node.apply(&format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {word}}}
spec:
  restartPolicy: Never
  containers:
    - name: tool
      image: quay.io/tests/tool:1
      imagePullPolicy: IfNotPresent
"#
        ));
        node.get(&format!(
            "wait pod/{word} --for=jsonpath={{.status.phase}}=Succeeded --timeout=60s"
        ));
        assert_eq!(node.get(&format!("logs {word}")), format!("{word}\n"));
    }
    node.get("delete pods first second");
}

/// Pushes minihub's image with another command, which prints a word, as tag 1 of a repository.
fn push_image(repository: &str, word: &str) {
    let api = format!("http://{REGISTRY}/v2");
    let manifest = http("GET", &format!("{api}/xtask/minihub/manifests/1"), "").1;
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let of = |part: &serde_json::Value| part["digest"].as_str().unwrap().to_owned();

    let layer = of(&manifest["layers"][0]);
    let uploads = format!("{api}/{repository}/blobs/uploads/");
    http(
        "POST",
        &format!("{uploads}?mount={layer}&from=xtask/minihub"),
        "",
    );

    let config = format!("{api}/xtask/minihub/blobs/{}", of(&manifest["config"]));
    let mut config: serde_json::Value = serde_json::from_str(&http("GET", &config, "").1).unwrap();
    config["config"]["Cmd"] = serde_json::json!(["echo", word]);
    let config = config.to_string();
    let digest = format!("sha256:{}", sha256(&config));
    let to = http("POST", &uploads, "").0;
    http("PUT", &format!("{to}&digest={digest}"), &config);

    manifest["config"]["digest"] = serde_json::json!(digest);
    manifest["config"]["size"] = serde_json::json!(config.len());
    let to = format!("{api}/{repository}/manifests/1");
    http("PUT", &to, &manifest.to_string());
}

/// Asks a registry, which must agree. Returns the address that it leads to, and the body.
fn http(method: &str, address: &str, body: &str) -> (String, String) {
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let kind = if address.contains("/manifests/") {
        manifest
    } else {
        "application/octet-stream"
    };
    let request = ureq::http::Request::builder().method(method).uri(address);
    let request = request
        .header("Accept", manifest)
        .header("Content-Type", kind);
    let answer = ureq::Agent::new_with_defaults().run(request.body(body).unwrap());
    let mut answer = answer.unwrap_or_else(|err| panic!("{method} {address}: {err}"));
    let location = answer.headers().get("Location");
    let location = location.map_or("", |it| it.to_str().unwrap()).to_owned();
    (location, answer.body_mut().read_to_string().unwrap())
}

/// The one node is what all of them ask for, though a label has one value.
fn pods_run_whatever_labels_they_select(node: &Node) {
    for (name, selects) in [
        ("core", "nodeSelector: {hub.jupyter.org/node-purpose: core}"),
        (
            "user",
            "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: \
             [{matchExpressions: [{key: hub.jupyter.org/node-purpose, operator: In, values: [user]}]}]}}}",
        ),
        ("elsewhere", "nodeSelector: {kubernetes.io/arch: s390x}"),
    ] {
        let spec = "containers: [{name: pause, image: localhost/xtask/pause:1}]";
        node.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, {selects}, {spec}}}}}"
        ));
    }
    node.get("wait pod/core pod/user --for=condition=Ready --timeout=60s");
    let scheduled = node.get("get pod elsewhere -o jsonpath={.spec.nodeName}");
    assert_eq!(scheduled, "", "what is asked of the machine itself counts");
    node.get("delete pods core user elsewhere");
}

fn kubectl_reaches_containers(node: &Node) {
    let log = node.get("logs deployment/hub -n staging");
    assert!(log.contains("JupyterHub is now running"), "{log}");
    let exec = |script: &str| {
        node.kubectl(&[
            "exec",
            "jupyter-ada",
            "-n",
            "staging",
            "--",
            "sh",
            "-c",
            script,
        ])
    };
    let ran = exec("cat kept");
    assert_eq!(ran.stdout, "by the volume", "{:?} {}", ran.code, ran.stderr);
    assert_eq!(exec("exit 7").code, Some(7));

    let mut forward = tool("kubectl")
        .args([
            "port-forward",
            "service/proxy-public",
            "-n",
            "staging",
            ":80",
        ])
        .env("KUBECONFIG", &node.kubeconfig)
        .env("KUBECACHEDIR", node.kubeconfig.with_file_name("kube-cache"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut lines, mut line) = (
        BufReader::new(forward.stdout.take().unwrap()),
        String::new(),
    );
    lines.read_line(&mut line).unwrap();
    let address = line.split_whitespace().nth(2).unwrap();
    let answer = ureq::get(format!("http://{address}/hub/api/"))
        .call()
        .unwrap()
        .into_body()
        .read_to_string();
    forward.kill().unwrap();
    forward.wait().unwrap();
    assert_eq!(answer.unwrap(), r#"{"version": "6.1.1"}"#);
}

/// From a user's pod kubelet and the API ask for credentials, and nothing else of the control plane is there.
fn users_pods_reach_nothing_of_the_cluster(node: &Node) {
    let script = r#"
import errno, os, socket, ssl, sys, urllib.error, urllib.request
def status(url):
    try:
        return urllib.request.urlopen(url, context=ssl._create_unverified_context(), timeout=3).status
    except urllib.error.HTTPError as err:
        return err.code
print("kubelet", status("https://10.213.88.2:10250/pods"))
print("secrets", status("https://kubernetes.default.svc.cluster.local/api/v1/namespaces/staging/secrets"))
for port in [10255, 5000, int(sys.argv[1])]:
    print(socket.socket().connect_ex(("10.213.88.2", port)) == errno.ECONNREFUSED)
print("account", os.path.exists("/var/run/secrets/kubernetes.io"))
"#;
    let folder = node.kubeconfig.parent().unwrap().display().to_string();
    let is_etcd = |(_, command): &(u32, String)| {
        command.starts_with(&folder) && command.contains("/bin/etcd ")
    };
    let (_, etcd) = command_lines().into_iter().find(is_etcd).unwrap();
    let (_, port) = etcd
        .split_once("--listen-client-urls=http://127.0.0.1:")
        .unwrap();
    let port = port.split_whitespace().next().unwrap();
    let ran = node.kubectl(&[
        "exec",
        "jupyter-ada",
        "-n",
        "staging",
        "--",
        "python3",
        "-c",
        script,
        port,
    ]);
    assert_eq!(
        ran.stdout, "kubelet 401\nsecrets 403\nTrue\nTrue\nTrue\naccount False\n",
        "{}",
        ran.stderr
    );
}

fn an_upgrade_leaves_users_alone(repo: &Repo, node: &Node) {
    let ada = Person::log_in(STAGING, "ada", PASSWORD).unwrap();
    let mut kernel = ada.start_kernel();
    kernel.run("y = 'still here'");
    let pod = |selector: &str| {
        node.get(&format!(
            "get pods -n staging -l component={selector} -o jsonpath={{.items[*].metadata.uid}}"
        ))
    };
    let (hub, server) = (pod("hub"), pod("singleuser-server"));
    repo.edit(
        "config/clusters/local/staging.values.yaml",
        "singleuser:\n",
        "hub:\n  config:\n    JupyterHub: {template_vars: {announcement: Maintenance on Sunday}}\nsingleuser:\n",
    );
    repo.ok("deploy local staging");
    assert_ne!(pod("hub"), hub, "the hub has another configuration");
    assert_eq!(pod("singleuser-server"), server);
    let page = ureq::get(format!("{STAGING}/hub/login"))
        .call()
        .unwrap()
        .into_body()
        .read_to_string()
        .unwrap();
    assert!(page.contains("Maintenance on Sunday"));
    assert_eq!(kernel.run("print(y)"), "still here\n");
    wait_until("the hub's view of ada's server", || ada.server_is_ready());
}

/// As soon as the hub has seen that the proxy's pod is another one.
fn a_new_proxy_leads_to_users_servers(node: &Node) {
    let ada = Person::log_in(STAGING, "ada", PASSWORD).unwrap();
    assert!(ada.reaches_server());
    node.get("delete pod -n staging -l component=proxy");
    node.get("wait deployment/proxy -n staging --for=condition=Available --timeout=60s");
    let started = Instant::now();
    wait_until("the new proxy's route", || ada.reaches_server());
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

fn a_browser_shows_a_notebook(node: &Node) {
    let ada = Person::log_in(STAGING, "ada", PASSWORD).unwrap();
    let cell = serde_json::json!({
        "cell_type": "code", "execution_count": null, "metadata": {}, "outputs": [],
        "source": "import dask.array as da\n\nnumbers = da.arange(1_000_001, chunks=10_000)\nprint(numbers.sum().compute())",
    });
    let kernel = serde_json::json!({"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}});
    let content = serde_json::json!({"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 4});
    ada.call(
        "PUT",
        "/user/ada/api/contents/sum.ipynb",
        serde_json::json!({"type": "notebook", "content": content}),
    );

    let browser = Browser::start();
    browser.open(&format!(
        "{STAGING}/hub/login?next=/user/ada/lab/tree/sum.ipynb"
    ));
    browser.wait_for("#username_input");
    browser.screenshot("login.png");
    browser.type_into("#username_input", "ada");
    browser.type_into("#password_input", PASSWORD);
    browser.click("#login_submit");
    browser.wait_for(".jp-Notebook .cm-content");
    browser.wait_for_text("#jp-main-statusbar", "| Idle");
    // Shift and Enter, which WebDriver has as characters of their own.
    browser.type_into(".jp-Notebook .cm-content", "\u{e008}\u{e007}");
    browser.wait_for_text(".jp-OutputArea-output", "500000500000");
    browser.screenshot("notebook.png");
    assert!(
        node.get("get pods -n staging -o name")
            .contains("jupyter-ada")
    );
}

fn idle_servers_are_culled(repo: &Repo, node: &Node) {
    let values = "config/clusters/local/demo.values.yaml";
    repo.write(
        values,
        &(repo.read(values) + "cull: {timeout: 5, every: 1}\n"),
    );
    repo.ok("deploy local demo --skip-hub-health-check");
    let bob = Person::log_in(DEMO, "bob", PASSWORD).unwrap();
    bob.start_server();
    assert!(node.get("get pods -n demo -o name").contains("jupyter-bob"));
    wait_until("the end of bob's idle server", || {
        !node.get("get pods -n demo -o name").contains("jupyter-bob")
    });
    assert!(
        node.get("get pods -n staging -o name")
            .contains("jupyter-ada"),
        "the other hub culls after an hour"
    );
}

fn what_breaks_is_named(repo: &Repo) {
    let values = "config/clusters/local/demo.values.yaml";
    let good = repo.read(values);
    repo.write(
        values,
        &(good.clone() + "image: {name: localhost/xtask/absent}\n"),
    );
    let ran = repo.run("deploy local --timeout 1m --skip-hub-health-check");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stdout.contains("staging              deployed"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("demo                 failed"),
        "{}",
        ran.stdout
    );
    // Both of its pods need the image, and either may be the first to say so; nobody waits for the end of the minute.
    let failed = ["hub", "proxy"].map(|it| format!("`deployment/{it}` failed: container `"));
    assert!(
        failed.iter().any(|it| ran.stderr.contains(it)),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("timed out"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("localhost/xtask/absent:1") && ran.stderr.contains("ImagePull"),
        "{}",
        ran.stderr
    );

    repo.write(
        values,
        &(good.clone() + "hub: {config: {JupyterHub: {authenticator_class: no-such-thing}}}\n"),
    );
    let said = repo.fails("deploy local demo --timeout 2m");
    assert!(
        said.contains("container `hub` of pod `hub-") && said.contains("exit code 1, restarts: "),
        "{said}"
    );
    repo.write(values, &good);
    repo.ok("deploy local demo --skip-hub-health-check");
}

/// Whatever is done to a hub, it finds what it has written.
fn what_is_in_a_volume_stays(repo: &Repo, node: &Node) {
    let deploy = "deploy local demo --skip-hub-health-check";
    repo.ok("exec shell hub local demo touch /srv/jupyterhub/by-ada");
    let stays = |step: &str| {
        let found = repo
            .ok("exec shell hub local demo ls /srv/jupyterhub")
            .stdout;
        assert!(found.contains("by-ada"), "after {step}: {found}");
    };
    let claim = node.get("get pvc hub-db-dir -n demo -o jsonpath={.metadata.uid}");
    repo.edit(
        "config/clusters/local/demo.values.yaml",
        "limit: 1G",
        "limit: 900M",
    );
    repo.ok(deploy);
    stays("an upgrade");
    repo.ok("rollback local demo --yes");
    stays("a rollback");
    repo.ok("retire local demo --yes");
    repo.ok(deploy);
    stays("a new hub of its name");
    assert_eq!(
        node.get("get pvc hub-db-dir -n demo -o jsonpath={.metadata.uid}"),
        claim
    );
}

/// It is built on minihub's image, and pushed to the node's registry, though its name begins with another one.
fn a_hub_runs_an_image_that_was_built_for_it(repo: &Repo) {
    let cluster = "config/clusters/local/cluster.yaml";
    let without_image = repo.read(cluster);
    let image = "    images: [{name: quay.io/tests/users, path: users, values_path: image}]\n";
    let demo = "    domain: demo.localhost\n";
    repo.edit(cluster, demo, &format!("{demo}{image}"));
    repo.write(
        "config/clusters/local/users/Dockerfile",
        &format!("FROM {REGISTRY}/xtask/minihub:1\nCOPY greeting /etc/\n"),
    );
    repo.write("config/clusters/local/users/greeting", "built here");
    git(&repo.root, &["init"]);
    git(&repo.root, &["add", "config"]);
    git(&repo.root, &["commit", "--message", "users"]);

    let pushed = repo.ok("image build local demo --push").stdout;
    let (image, _) = pushed.split_once(" pushed, sha256:").unwrap();
    let tag = image
        .strip_prefix(&format!("{REGISTRY}/tests/users:"))
        .unwrap();
    assert!(
        repo.ok("local images")
            .stdout
            .contains(&format!("tests/users    {tag}"))
    );

    repo.ok("deploy local demo --skip-hub-health-check");
    let eve = Person::log_in(DEMO, "eve", PASSWORD).unwrap();
    eve.start_server();
    let said = eve
        .start_kernel()
        .run("print(open('/etc/greeting').read())");
    assert_eq!(said, "built here\n");
    eve.stop_server();
    repo.write(cluster, &without_image);
    fs::remove_dir_all(repo.root.join(".git")).unwrap();
}

/// basehub with the real chart, if `XTASK_TEST_CHARTS` is the address of a chart repository that has it. Its images are made
/// here, and core and users have one node.
fn zero_to_jupyterhub_runs(repo: &Repo, node: &Node) {
    let public = "https://hub.jupyter.org/helm-chart";
    let Ok(mirror) = env::var("XTASK_TEST_CHARTS") else {
        return;
    };
    repo.write(
        "config/xtask.yaml",
        &format!("chart_mirrors: {{{public}: '{mirror}'}}\n"),
    );
    let cluster = "config/clusters/local/cluster.yaml";
    let of_minihub = repo.read(cluster);
    let hub = "  - name: lab\n    domain: lab.localhost\n    helm_chart: basehub\n    helm_chart_values_files: [lab.values.yaml]\n";
    repo.write(cluster, &format!("{of_minihub}{hub}"));
    repo.write("config/clusters/local/lab.values.yaml", BASEHUB);
    let deployed = repo.ok("deploy local lab").stdout;
    let healthy = "revision 1, http://10.213.88.2:30082, healthy, ";
    assert!(deployed.contains(healthy), "{deployed}");
    let version = node.get("exec deployment/hub -n lab -c hub -- jupyterhub --version");
    assert_eq!(version, "5.5.0\n");
    repo.ok("retire local lab --yes");
    repo.write(cluster, &of_minihub);
}

/// A hub without NFS and an ingress controller.
const BASEHUB: &str = "
nfs: {enabled: false}
jupyterhub:
  ingress: {enabled: false}
  hub:
    config:
      JupyterHub: {authenticator_class: dummy}
      Authenticator: {allow_all: true}
  proxy:
    service: {type: NodePort, nodePorts: {http: 30082}}
  singleuser:
    storage: {type: dynamic, extraVolumeMounts: []}
    initContainers: []
";

fn nothing_stays_whatever_is_killed(repo: &Repo, node: &Node, machine: &mut Machine) {
    for program in ["sh", "containerd", "kubelet"] {
        let node = Node {
            kubeconfig: kubeconfig(&repo.ok("local up --real").stdout),
        };
        repo.ok("deploy local demo --skip-hub-health-check");
        machine.knows(&node);
        kill_9(node.process(program));
        let status = repo.ok("local status").stdout;
        assert_eq!(
            status,
            format!("local: broken, `{program}` is not running\n")
        );
        if program == "containerd" {
            let ran = repo.ok("deploy local demo --skip-hub-health-check");
            assert!(
                ran.stderr.contains("making it again") && ran.stdout.contains(DEMO),
                "{}",
                ran.stderr
            );
        }
        repo.ok("local down");
        machine.assert_unchanged(&format!("after {program} was killed"));
    }
    a_checkout_that_is_gone_cannot_take_its_node_away(repo);
    machine.assert_unchanged("after a checkout went away");
    up_is_killed(repo, node);
    machine.assert_unchanged("after `up` was killed");
    the_images_build_is_killed();
    machine.assert_unchanged("after the image's build was killed");
}

fn a_checkout_that_is_gone_cannot_take_its_node_away(repo: &Repo) {
    let gone = own();
    gone.ok("local up --real");
    let elsewhere = gone.root.with_file_name("elsewhere");
    fs::rename(&gone.root, &elsewhere).unwrap();
    let ran = repo.ok("local up --real");
    assert!(
        ran.stderr
            .contains(&format!("`{}` is gone", gone.root.display())),
        "{}",
        ran.stderr
    );
    fs::rename(&elsewhere, &gone.root).unwrap();
    assert_eq!(gone.ok("local status").stdout, "local: down\n");
    repo.ok("local down");
}

fn up_is_killed(repo: &Repo, node: &Node) {
    let mut child = repo.start("local up --real");
    wait_until("a containerd", || node.running("containerd").is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        repo.ok("local status").stdout,
        "local: broken, it was never finished\n"
    );
    repo.ok("local down");
}

fn the_images_build_is_killed() {
    // The image isn't in this cache yet.
    let mut fresh = Repo::own();
    // Nobody else's sleep.
    let sleep = format!("sleep 98765.{}", std::process::id());
    fresh.script("debootstrap", &format!("touch $HOME/at; {sleep}"));
    let mut child = fresh.start("local up --real");
    wait_until("the image's build", || fresh.home().join("at").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the build's end", || {
        !command_lines().iter().any(|(_, it)| it.contains(&sleep))
    });
}

/// What a real node could leave on the machine: mounts, links, addresses, iptables rules, control groups, the kernel's
/// settings, and folders that its programs know by name. What others have there comes and goes meanwhile, and isn't seen.
struct Machine {
    /// What only ours have in their paths, such as the names of pods and containers.
    names: BTreeSet<String>,
    before: BTreeSet<String>,
}

impl Machine {
    fn new() -> Machine {
        let names = BTreeSet::from(["xtask".to_owned()]);
        let mut before = found(&names);
        // A node that was killed leaves its control groups to the next `down`: they may be an earlier run's.
        before.retain(|it| !it.contains("/xtask-node"));
        Machine { names, before }
    }

    /// Learns the names of all that runs on a node.
    fn knows(&mut self, node: &Node) {
        let pods = node.get("get pods -A -o jsonpath={.items[*].metadata.uid}");
        let containers =
            node.get("get pods -A -o jsonpath={.items[*].status.containerStatuses[*].containerID}");
        let all = pods.split_whitespace().chain(containers.split_whitespace());
        let names: Vec<_> = all
            .map(|it| it.trim_start_matches("containerd://").to_owned())
            .collect();
        assert!(names.len() > 2, "{names:?}");
        self.names.extend(names);
    }

    fn assert_unchanged(&self, after: &str) {
        let now = found(&self.names);
        let changed: Vec<_> = now.symmetric_difference(&self.before).collect();
        assert!(changed.is_empty(), "{after}: {changed:#?}");
    }
}

/// What is on the machine now, and is ours by its names, the addresses of a node or the folder that only nodes have.
fn found(names: &BTreeSet<String>) -> BTreeSet<String> {
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        assert!(
            output.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let mut found = BTreeSet::new();
    for (what, text) in [
        ("mount", fs::read_to_string("/proc/self/mounts").unwrap()),
        ("link", run("ip", &["-brief", "link"])),
        ("address", run("ip", &["-brief", "address"])),
        ("route", run("ip", &["route"])),
        ("iptables", run("iptables-save", &[])),
    ] {
        // A node's file systems are called `node`, and what is below one of them lies in /run/node. Comments have dates.
        let lines = text.lines().filter(|it| {
            let is_ours = ["xtask", "10.213.8", "/run/node", " /run "]
                .iter()
                .any(|part| it.contains(part));
            !it.starts_with('#') && (is_ours || it.starts_with("node "))
        });
        // Without counters.
        let lines = lines.map(|it| it.split(" [").next().unwrap());
        found.extend(lines.map(|it| format!("{what}: {it}")));
    }
    for setting in [
        "vm/overcommit_memory",
        "kernel/panic",
        "kernel/panic_on_oops",
        "net/ipv4/ip_forward",
    ] {
        found.insert(format!(
            "{setting}: {}",
            fs::read_to_string(Path::new("/proc/sys").join(setting)).unwrap()
        ));
    }
    for folder in [
        "/etc/cni",
        "/opt/cni",
        "/run/containerd",
        "/run/netns",
        "/usr/libexec/kubernetes",
        "/var/lib/cni",
        "/var/lib/containerd",
        "/var/lib/kubelet",
        "/var/log/containers",
        "/var/log/pods",
    ] {
        paths_below(Path::new(folder), 4, names, &mut found);
    }
    paths_below(Path::new("/sys/fs/cgroup"), 8, names, &mut found);
    found
}

/// Folders, with what is in them, whose path has one of these names. So many levels are enough for programs of a node.
fn paths_below(folder: &Path, levels: u32, names: &BTreeSet<String>, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path().display().to_string();
        // It may be gone by now.
        if levels > 1 && entry.file_type().is_ok_and(|it| it.is_dir()) {
            paths_below(&entry.path(), levels - 1, names, found);
        }
        if names.iter().any(|it| path.contains(it)) {
            found.insert(path);
        }
    }
}

/// The network that is the node's own.
fn network(pid: u32) -> PathBuf {
    // A process may be gone by now.
    fs::read_link(format!("/proc/{pid}/ns/net")).unwrap_or_default()
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}

#[test]
fn without_root_or_its_programs_it_says_what_to_do() {
    if !possible() {
        return;
    }
    // Where somebody else gets to, too.
    let open = env::temp_dir().join(format!("xtask-test-{}", std::process::id()));
    fs::create_dir_all(&open).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_xtask"), open.join("xtask")).unwrap();
    copy(&Repo::own().root.join("config"), &open.join("config"));
    let private = Path::new("/dev/shm/xtask-65534");
    let had_private = private.exists();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "./xtask",
        "local",
        "up",
        "--real",
    ]);
    command
        .current_dir(&open)
        .env("HOME", &open)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let ran: Ran = command.spawn().unwrap().into();
    fs::remove_dir_all(open).unwrap();
    // What was there is somebody else's.
    if !had_private {
        let _ = fs::remove_dir_all(private);
    }
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .contains("a real node needs root\n\nhint: simulated nodes"),
        "{}",
        ran.stderr
    );

    let mut repo = Repo::own();
    repo.env.push(("PATH".into(), "/nowhere".into()));
    let said = repo.fails("local up --real");
    assert!(
        said.contains("the system lacks `containerd`, `containerd-shim-runc-v2`"),
        "{said}"
    );
    assert!(
        said.contains("hint: on Debian and Ubuntu, `apt-get install containerd "),
        "{said}"
    );
}
