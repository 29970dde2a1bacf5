//! Logs and shells in a hub that really runs, and what is wrong with names.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use crate::{
    a_real_node::Node,
    repo::{Ran, Repo, Shared, tool, tool_path, wait_until},
    stop::signal,
    terminal::Terminal,
};

/// On the hub `staging`, where ada's server runs.
pub(crate) fn people_look_into_it(repo: &Repo, node: &Node) {
    repo.write(
        "config/xtask.yaml",
        "shell_image: localhost/xtask/minihub:1\ndocker_proxy_cluster: local\n",
    );
    component_logs(repo);
    logs_of_more_pods_than_kubectl_follows(repo, node);
    user_logs(repo);
    user_logs_by_any_name(repo, node);

    a_program_in_the_hub(repo, node);
    a_shell_in_the_hub(repo);
    homes_without_their_claim(repo, node);
    a_program_beside_the_homes(repo, node);
    a_shell_beside_the_homes(repo, node);
    homes_are_left_by_signals(repo, node);
    homes_are_left_by_a_deadline(repo, node);
    homes_without_an_image(repo, node);

    copies(&Homes::start(repo, node));
    docker_proxy(repo, node);
}

/// A pod of the namespace staging with these labels and annotations, that runs a script.
fn pod(name: &str, labels: &str, annotations: &str, image: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: staging, labels: {{{labels}}}, annotations: {{{annotations}}}}}\n\
         spec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    image: localhost/xtask/{image}:1\n    \
         imagePullPolicy: Never\n    command: [sh, -c, {script:?}]\n---\n"
    )
}

fn component_logs(repo: &Repo) {
    let log = repo
        .ok("exec debug component-logs local staging hub --no-follow")
        .stdout;
    assert!(
        log.contains("JupyterHub is now running") && log.lines().count() > 10,
        "{log}"
    );
    assert!(
        repo.ok("exec debug component-logs local staging proxy --no-follow")
            .stdout
            .contains("[ConfigProxy]")
    );
    let said = repo.fails("exec debug component-logs local staging hub --previous");
    assert!(
        said.contains("previous terminated container \"hub\" in pod \"hub-"),
        "{said}"
    );
}

/// Unasked; and all lines of each.
fn logs_of_more_pods_than_kubectl_follows(repo: &Repo, node: &Node) {
    let gateway = "app.kubernetes.io/component: gateway";
    let pods: String = (0..7)
        .map(|it| {
            pod(
                &format!("gateway-{it}"),
                gateway,
                "",
                "minihub",
                &format!("seq -f '{it} says %g' 30; sleep 600"),
            )
        })
        .collect();
    node.apply(&pods);
    wait_until("the pods", || {
        node.get("get pods -n staging -l app.kubernetes.io/component=gateway")
            .matches("1/1")
            .count()
            == 7
    });
    let log = repo
        .ok("exec debug component-logs local staging dask-gateway-api --no-follow")
        .stdout;
    assert_eq!(log.lines().count(), 7 * 30, "{log}");
    assert!(log.contains("[pod/gateway-3/main] 3 says 17\n"), "{log}");
    let mut following = repo.start("exec debug component-logs local staging dask-gateway-api");
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert_eq!(lines.by_ref().take(7 * 30).count(), 7 * 30);
    signal(&following, "INT");
    assert_eq!(lines.count(), 0);
    following.wait().unwrap();
    node.get("delete pods -n staging -l app.kubernetes.io/component=gateway");
}

fn user_logs(repo: &Repo) {
    let log = repo
        .ok("exec debug user-logs local staging ada --no-follow")
        .stdout;
    assert!(log.contains("JupyterHubSingleUser"), "{log}");
    let said = repo.fails("exec debug user-logs local demo ada");
    assert!(
        said.contains("no user of `demo` has a server now"),
        "{said}"
    );
}

fn user_logs_by_any_name(repo: &Repo, node: &Node) {
    // Whatever the labels are, and however the name is written.
    let annotations = "hub.jupyter.org/username: eVe@x.org, hub.jupyter.org/servername: big";
    node.apply(&pod("jupyter-eve", "", annotations, "minihub", "sleep 600"));
    for name in ["eVe@x.org/big", "e-56e-40x-2eorg/big"] {
        let said = repo.fails(&format!("exec debug user-logs local staging {name}"));
        assert!(
            said.contains("the pod `jupyter-eve` has no container `notebook`; it has: `main`"),
            "{said}"
        );
    }
    let said = repo.fails("exec debug user-logs local staging eve");
    assert!(
        said.contains(
            "`eve` has no server on `staging` now; there are servers of: `ada`, `eVe@x.org/big`"
        ),
        "{said}"
    );
    node.get("delete pod jupyter-eve -n staging");
}

fn a_program_in_the_hub(repo: &Repo, node: &Node) {
    // One that isn't ready stands beside the one that is, as in a rollout.
    node.apply(&pod(
        "hub-newer",
        "component: hub",
        "",
        "absent",
        "sleep 600",
    ));
    let ran: Ran = repo
        .command("exec shell hub local staging")
        .args(["sh", "-c", "hostname; exit 6"])
        .spawn()
        .unwrap()
        .into();
    assert!(
        ran.stdout.starts_with("hub-") && ran.stdout != "hub-newer\n",
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    assert_eq!(ran.code, Some(6));
    node.get("delete pod hub-newer -n staging");
}

fn a_shell_in_the_hub(repo: &Repo) {
    let terminal = Terminal::start(repo, "xtask exec shell hub local staging\necho status $?");
    terminal.shows("$");
    terminal.types(&["test -t 0 && echo a-$((40 + 2))-terminal; exit 3", "Enter"]);
    terminal.shows("a-42-terminal");
    terminal.shows("status 3");
}

/// Nothing is left of the pods that were made.
fn none_left(node: &Node) {
    wait_until("the end of the pod", || {
        !node
            .get("get jobs,pods -n staging -o name")
            .contains("xtask-homes")
    });
}

/// Which the claim is made after.
fn homes_without_their_claim(repo: &Repo, node: &Node) {
    let said = repo.fails("exec shell homes local staging ls");
    assert!(
        said.contains("`staging` of `local` has no claim `home-nfs`; it has: "),
        "{said}"
    );
    node.apply(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: home-nfs, namespace: staging}\n\
         spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}\n",
    );
}

fn a_program_beside_the_homes(repo: &Repo, node: &Node) {
    let ran: Ran = repo
        .command("exec shell homes local staging sh -c")
        .arg("id -u; pwd; ls /var/run/secrets 2>/dev/null; exit 4")
        .spawn()
        .unwrap()
        .into();
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(4), "0\n/home\n"),
        "{}",
        ran.stderr
    );
    none_left(node);
}

fn a_shell_beside_the_homes(repo: &Repo, node: &Node) {
    let terminal = Terminal::start(repo, "xtask exec shell homes local staging\necho status $?");
    terminal.shows("/home#");
    let jobs = node.get("get jobs -n staging -o json");
    let jobs: serde_json::Value = serde_json::from_str(&jobs).unwrap();
    let spec = &jobs["items"][0]["spec"];
    assert_eq!(
        (
            &spec["activeDeadlineSeconds"],
            &spec["ttlSecondsAfterFinished"]
        ),
        (&43200.into(), &0.into())
    );
    terminal.types(&["sh -c 'echo in-$((1 + 1)); sleep 500'", "Enter"]);
    // A shell that hasn't started it yet would take the key for its own.
    terminal.shows("in-2");
    terminal.types(&["C-c"]);
    // What was typed before it is thrown away.
    terminal.shows("^C\nroot@");
    terminal.types(&["exit 5", "Enter"]);
    terminal.shows("status 5");
    none_left(node);
}

fn homes_are_left_by_signals(repo: &Repo, node: &Node) {
    for name in ["TERM", "HUP"] {
        let child = repo.start("exec shell homes local staging sleep 500");
        wait_until("the pod", || {
            node.get("get pods -n staging").contains("xtask-homes")
        });
        signal(&child, name);
        assert_ne!(Ran::from(child).code, Some(0));
        none_left(node);
    }
}

/// Where nobody takes the pod away.
fn homes_are_left_by_a_deadline(repo: &Repo, node: &Node) {
    let mut child = repo.start("exec shell homes local staging sleep 500");
    wait_until("the pod", || {
        node.get("get pods -n staging").contains("xtask-homes")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let job = node.get("get jobs -n staging -o name");
    node.get(&format!(
        "patch -n staging {} --type=merge -p {{\"spec\":{{\"activeDeadlineSeconds\":1}}}}",
        job.trim()
    ));
    none_left(node);
}

fn homes_without_an_image(repo: &Repo, node: &Node) {
    repo.edit("config/xtask.yaml", "minihub:1", "absent:1");
    let said = repo.fails("exec shell homes local staging ls");
    assert!(
        said.contains("ImagePull")
            && said.contains("hint: `shell_image` in config/xtask.yaml names its image"),
        "{said}"
    );
    repo.edit("config/xtask.yaml", "absent:1", "minihub:1");
    none_left(node);
}

/// The homes of `staging`, seen from a pod.
struct Homes<'a> {
    repo: &'a Repo,
    node: &'a Node,
}

impl Homes<'_> {
    /// Somebody looks on from a pod of their own.
    fn start<'a>(repo: &'a Repo, node: &'a Node) -> Homes<'a> {
        node.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: onlooker, namespace: staging}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         securityContext: {runAsUser: 0}\n  volumes: [{name: homes, persistentVolumeClaim: {claimName: home-nfs}}]\n  containers:\n  \
         - name: main\n    image: localhost/xtask/minihub:1\n    imagePullPolicy: Never\n    command: [sleep, infinity]\n    \
         workingDir: /home\n    volumeMounts: [{name: homes, mountPath: /home}]\n",
    );
        node.get("wait pod/onlooker -n staging --for=condition=Ready --timeout=60s");
        Homes { repo, node }
    }

    /// The output of a script that must succeed in the folder of all homes.
    fn run(&self, script: &str) -> String {
        let ran = self.node.kubectl(&[
            "exec", "-n", "staging", "onlooker", "--", "bash", "-c", script,
        ]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stdout
    }

    fn copy(&self, from: &str, to: &str, more: &str) -> Ran {
        self.repo.run(&format!(
            "exec shell copy-homedir-into-another local staging --source-homedir {from} --destination-homedir {to} {more}"
        ))
    }

    /// All that is to be told of a home.
    fn listing(&self, folder: &str) -> String {
        self.run(&format!(
            "cd {folder} && find . -printf '%P %U:%G %m %T@ %s %l\\n' | sort; cat 'a file'"
        ))
    }

    /// A copy of ann's home that is in the middle of it.
    fn begin(&self) -> Child {
        let child = self.repo.start(
            "exec shell copy-homedir-into-another local staging --source-homedir ann --destination-homedir ben@x.org --yes",
        );
        let pods = "get pods -n staging -o jsonpath={.items[*].metadata.name}";
        wait_until("tar", || {
            let pods = self.node.get(pods);
            let pod = pods.split(' ').find(|it| it.starts_with("xtask-homes"));
            pod.is_some_and(|it| {
                self.node
                    .kubectl(&[
                        "exec",
                        "-n",
                        "staging",
                        it,
                        "--",
                        "sh",
                        "-c",
                        "grep -qx tar /proc/[0-9]*/comm",
                    ])
                    .code
                    == Some(0)
            })
        });
        child
    }
}

fn copies(homes: &Homes) {
    homes.run(
        "mkdir -p ann/deep 'ben-40x-2eorg/ann'; cd ann; echo text > 'a file'; ln -s 'a file' link; ln 'a file' deep/hard; \
         head -c 3000000 /dev/zero > deep/big; touch -d 2001-02-03 'a file'; chown -R 1000:1000 . ; chown 4711:4712 deep/big; chmod 700 .",
    );
    a_copy_is_confirmed(homes);
    a_copy_is_whole_and_stays(homes);
    names_of_homes_that_cannot_be_copied(homes);
    a_person_is_asked_for_everything(homes);
    homes.run("mkdir ann/many && cd ann/many && seq 100000 | xargs touch");
    homes.run("rm -r ben-40x-2eorg/ann-homedir");
    a_stopped_copy_leaves_nothing(homes);
    a_killed_copy_is_cleared_up_by_the_next(homes);
    homes.run("rm -r ann ben-40x-2eorg");
    homes
        .node
        .get("delete pod/onlooker pvc/home-nfs -n staging");
}

fn a_copy_is_confirmed(homes: &Homes) {
    let said = homes.copy("ann", "ben@x.org", "").stderr;
    for part in [
        "from /home/ann: 2.86 MiB in 5 files and folders\n",
        "into /home/ben-40x-2eorg: 0 B in 1 files and folders\n",
        "free in /home: ",
        "Copy /home/ann to /home/ben-40x-2eorg/ann-homedir: cannot ask without a terminal; pass `--yes`\n",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

fn a_copy_is_whole_and_stays(homes: &Homes) {
    let ran = homes.copy("ann", "ben@x.org", "--yes");
    assert_eq!(
        ran.stdout,
        "copied /home/ann to /home/ben-40x-2eorg/ann-homedir: 2.86 MiB in 5 files and folders\n",
        "{}",
        ran.stderr
    );
    assert_eq!(
        homes.listing("ann"),
        homes.listing("ben-40x-2eorg/ann-homedir")
    );
    homes.run("echo mine > ben-40x-2eorg/ann-homedir/'a file'");
    let said = homes.copy("ann", "ben@x.org", "--yes").stderr;
    assert!(
        said.contains("/home/ben-40x-2eorg/ann-homedir exists already, and is left as it is"),
        "{said}"
    );
    assert_eq!(homes.run("cat ben-40x-2eorg/ann-homedir/*file"), "mine\n");
}

fn names_of_homes_that_cannot_be_copied(homes: &Homes) {
    for (from, to, part) in [
        (
            "nobody",
            "ann",
            "there is no /home/nobody; the latest there are: `",
        ),
        (
            "../home",
            "ann",
            "`../home` is not the name of a folder in /home",
        ),
        ("ann", "ann", "/home/ann cannot be copied into itself"),
    ] {
        let said = homes.copy(from, to, "--yes").stderr;
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

fn a_person_is_asked_for_everything(homes: &Homes) {
    let terminal = Terminal::start(
        homes.repo,
        "xtask exec shell copy-homedir-into-another local staging\necho status $?",
    );
    terminal.shows("Whose home is to be copied");
    terminal.types(&["ben@x.org", "Enter"]);
    terminal.shows("Into whose home");
    terminal.types(&["ann", "Enter"]);
    terminal.shows("Copy /home/ben-40x-2eorg to /home/ann/ben-40x-2eorg-homedir? [y/N]");
    terminal.types(&["n", "Enter"]);
    terminal.shows("error: nothing was done");
}

fn a_stopped_copy_leaves_nothing(homes: &Homes) {
    let child = homes.begin();
    signal(&child, "TERM");
    let ran = Ran::from(child);
    assert!(
        ran.stderr.contains("/home/ann was not copied\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(homes.run("ls -A ben-40x-2eorg"), "ann\n");
    none_left(homes.node);
}

fn a_killed_copy_is_cleared_up_by_the_next(homes: &Homes) {
    let mut child = homes.begin();
    child.kill().unwrap();
    child.wait().unwrap();
    homes
        .node
        .get("delete jobs -n staging --all --cascade=foreground");
    none_left(homes.node);
    let left = homes.run("ls -A ben-40x-2eorg");
    assert!(left.starts_with(".ann-homedir.xtask-homes-"), "{left}");
    let ran = homes.copy("ann", "ben@x.org", "--yes");
    assert!(
        ran.stderr.contains("which a copy left that was cut off"),
        "{}",
        ran.stderr
    );
    assert_eq!(homes.run("ls -A ben-40x-2eorg"), "ann\nann-homedir\n");
}

fn docker_proxy(repo: &Repo, node: &Node) {
    let said = repo.fails("exec debug start-docker-proxy");
    assert!(
        said.contains("`local` has no deployment `dind` in the namespace `default`"),
        "{said}"
    );
    node.apply(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: dind, namespace: default}\nspec:\n  selector: {matchLabels: {app: dind}}\n  \
         template:\n    metadata: {labels: {app: dind}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n      - name: dind\n        \
         image: localhost/xtask/minihub:1\n        command: [python3, -m, http.server, '2376']\n        readinessProbe: {tcpSocket: {port: 2376}}\n",
    );
    let mut child = repo.start("exec debug start-docker-proxy");
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert_eq!(said, "export DOCKER_HOST=tcp://localhost:23760\n");
    let answers = || ureq::get("http://localhost:23760/").call().is_ok();
    wait_until("an answer", answers);
    let taken = repo.fails("exec debug start-docker-proxy");
    assert!(
        taken.contains("`kubectl port-forward` ended: ") && taken.contains("23760"),
        "{taken}"
    );
    let told = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut connections = told.filter(|it| it.starts_with("connected to pod/dind-"));
    let first = connections.next();
    node.get("delete pods -n default -l app=dind");
    assert_ne!(connections.next(), first);
    wait_until("an answer of the next pod", answers);
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!answers());
    node.get("delete deployment dind -n default");
}

#[test]
fn logs_begin_where_they_are_told_to() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["logged-late"]);
    cluster.kubectl_apply(
        "{apiVersion: v1, kind: Namespace, metadata: {name: logged-late}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: door, namespace: logged-late, labels: {component: proxy}, annotations: \
         {hub.jupyter.org/username: ann}}, spec: {containers: [{name: notebook, image: c}]}}\n",
    );
    let kubectl = tool_path("kubectl");
    let kubectl = kubectl.display();
    repo.script(
        "kubectl",
        &format!("case \"$1\" in logs) echo \"$@\" ;; *) exec {kubectl} \"$@\" ;; esac"),
    );
    for logs in [
        "component-logs lake logged-late proxy",
        "user-logs lake logged-late ann",
    ] {
        let told = |args: &str| {
            repo.ok(&format!("exec debug {logs} --no-follow {args}"))
                .stdout
        };
        let some = told("--tail 5 --since 1h");
        assert!(some.contains(" --tail=5 --since=3600s"), "{some}");
        let all = told("");
        assert!(
            all.contains(" --tail=-1") && !all.contains("--since"),
            "{all}"
        );
    }
}

#[test]
fn names_that_match_nothing() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["looked-at"]);
    cluster.kubectl("create namespace looked-at");
    for (args, part) in [
        (
            "exec debug component-logs lake looked-at door",
            "there is no component `door`; there are: `autohttps`, `dask-gateway-api`, ",
        ),
        (
            "exec debug component-logs lake looked-at traefik",
            "the logs of traefik: `looked-at` of `lake` has no pod with component=autohttps",
        ),
        (
            "exec debug component-logs lake door hub",
            "cluster `lake` has no hub `door`; it has: `looked-at`",
        ),
        (
            "exec debug component-logs sea looked-at hub",
            "there is no cluster `sea`",
        ),
        (
            "exec debug start-docker-proxy",
            "which cluster?\n\nhint: name one, or set `docker_proxy_cluster`",
        ),
        (
            "exec shell hub lake looked-at",
            "`looked-at` of `lake` has no hub pod",
        ),
        (
            "exec shell homes lake looked-at",
            "`looked-at` of `lake` has no claim `home-nfs`, nor any other",
        ),
        (
            "exec shell root-homes lake looked-at",
            "the values of `looked-at` of `lake` have no `nfs.pv.serverIP`",
        ),
        (
            "exec shell copy-homedir-into-another lake looked-at",
            "`--source-homedir` and `--destination-homedir` are required without a terminal",
        ),
        (
            "exec promql lake up",
            "config/clusters/lake/cluster.yaml has no `support`",
        ),
    ] {
        let said = repo.fails(args);
        assert!(said.contains(part), "{args}: no {part:?} in {said}");
    }
}

/// The API server checks the pod; simulated nodes let it be ready, and run nothing in it.
#[test]
fn all_homes_of_an_nfs_server() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["nfs"]);
    repo.write(
        "config/clusters/lake/common.values.yaml",
        "basehub: {nfs: {pv: {serverIP: 10.0.0.2, baseShareName: /elsewhere/}}}\n",
    );
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "nfs.values.yaml",
        "nfs.values.jsonnet",
    );
    repo.write(
        "config/clusters/lake/nfs.values.jsonnet",
        "{ basehub: { nfs: { pv: { baseShareName: '/export/homes/' } } } }\n",
    );
    cluster.kubectl("create namespace nfs");
    let mut watch = tool("kubectl")
        .args(["get", "pods", "-n", "nfs", "--watch", "-o", "json"])
        .arg("--request-timeout=90s")
        .env("KUBECONFIG", &cluster.kubeconfig)
        .env("KUBECACHEDIR", repo.cache())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = repo.start("exec shell root-homes lake nfs");
    let pods = serde_json::Deserializer::from_reader(watch.stdout.take().unwrap());
    let pod: serde_json::Value = pods.into_iter().next().unwrap().unwrap();
    watch.kill().unwrap();
    watch.wait().unwrap();
    let spec = &pod["spec"];
    let volume = serde_json::json!({"name": "homes", "nfs": {"server": "10.0.0.2", "path": "/export/homes/"}});
    assert_eq!(spec["volumes"], serde_json::json!([volume]));
    assert_eq!(
        spec["containers"][0]["volumeMounts"][0]["mountPath"],
        "/root-homes"
    );
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_ne!(
        child.wait().unwrap().code(),
        Some(0),
        "a simulated node has no shells"
    );
    wait_until("the end of the pod", || {
        cluster.kubectl("get jobs,pods -n nfs -o name").is_empty()
    });
}

#[test]
fn a_quota_that_leaves_no_room_for_homes() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["nfs-full"]);
    repo.write(
        "config/clusters/lake/nfs-full.values.yaml",
        "basehub: {nfs: {pv: {serverIP: 10.0.0.2, baseShareName: /export/homes/}}}\n",
    );
    cluster.kubectl("create namespace nfs-full");
    cluster.kubectl("create quota none -n nfs-full --hard=pods=0");
    wait_until("the quota", || {
        cluster
            .kubectl("get quota none -n nfs-full -o jsonpath={.status.hard}")
            .contains("pods")
    });
    let said = repo.fails("exec shell root-homes lake nfs-full");
    assert!(
        said.contains("the pod for it cannot be made: ") && said.contains("exceeded quota: none"),
        "{said}"
    );
    assert_eq!(cluster.kubectl("get jobs -n nfs-full -o name"), "");
}
