//! Health checks of hubs, good and bad.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    ops::Deref,
    path::Path,
    process::Child,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    a_real_node::Node,
    jupyterhub::JupyterHub,
    repo::{Key, Ran, Repo, Shared, command_lines, copy, kill_9, shared, tool_path, wait_until},
    stop::signal,
    upstream::{Answer, Running, Server, free_address, index, package},
};

fn notebook(repo: &Repo, cells: &[Value]) {
    let cells: Vec<_> = cells
        .iter()
        .map(|cell| match cell {
            Value::String(source) => {
                json!({"cell_type": "code", "source": source, "metadata": {}, "outputs": []})
            }
            cell => cell.clone(),
        })
        .collect();
    let text = json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells});
    repo.write("try.ipynb", &text.to_string());
}

/// A hub of processes, and `lake` with a hub of this name that is it.
fn hub(name: &str, with_dask: bool) -> (Arc<Shared>, Repo, JupyterHub) {
    hub_below("", name, with_dask)
}

/// The same below a path.
fn hub_below(base: &str, name: &str, with_dask: bool) -> (Arc<Shared>, Repo, JupyterHub) {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &[name]);
    let hub = JupyterHub::start(repo.root.join("hub"), base, with_dask);
    leads_to(&mut repo, name, &hub);
    namespace_with_token(&cluster, name);
    (cluster, repo, hub)
}

/// The domain of the hub of this name becomes the address of `hub`, whose certificate is known.
fn leads_to(repo: &mut Repo, name: &str, hub: &JupyterHub) {
    let domain = format!("domain: {name}.example.org");
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        &domain,
        &format!("domain: {}", hub.address),
    );
    repo.env
        .push(("SSL_CERT_FILE".to_owned(), hub.certificate()));
}

fn namespace_with_token(cluster: &Shared, name: &str) {
    cluster.kubectl_apply(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"
    ));
    // With the line's end of a file.
    token(cluster, name, "\"of-hub-health\\n\"");
}

/// Of servers and kernels, and of who answers in the hub's place.
static TROUBLED: Two = Two([
    SharedHub::new("troubled", "", Shared::cluster),
    SharedHub::new("troubled", "", Shared::another),
]);
/// Of notebooks.
static CELLS: SharedHub = SharedHub::new("cells", "", Shared::cluster);
/// Below a path.
static STEADY: SharedHub = SharedHub::new("steady", "/lakes/", Shared::cluster);

/// Hubs of one name on two clusters, for as many tests that nobody waits long for a turn.
struct Two([SharedHub; 2]);

impl Two {
    fn turn(&'static self) -> Turn {
        static TURNS: AtomicUsize = AtomicUsize::new(0);
        self.0[TURNS.fetch_add(1, Ordering::Relaxed) % 2].turn()
    }
}

/// A hub that tests share, as long as one of them has it. They take turns: there is one user for health checks on a hub.
struct SharedHub {
    name: &'static str,
    base: &'static str,
    cluster: fn() -> Arc<Shared>,
    up: Mutex<Weak<Started>>,
    turn: Mutex<()>,
}

struct Started {
    hub: JupyterHub,
    cluster: Arc<Shared>,
    _folder: Repo,
}

/// A hub that is nobody else's meanwhile, and a repository whose cluster `lake` has it.
struct Turn {
    repo: Repo,
    hub: Arc<Started>,
    _turn: MutexGuard<'static, ()>,
}

impl SharedHub {
    const fn new(
        name: &'static str,
        base: &'static str,
        cluster: fn() -> Arc<Shared>,
    ) -> SharedHub {
        SharedHub {
            name,
            base,
            cluster,
            up: Mutex::new(Weak::new()),
            turn: Mutex::new(()),
        }
    }

    /// Waits until no other test has the hub, which is free of trouble then.
    fn turn(&'static self) -> Turn {
        let hub = shared(&self.up, || self.start());
        let turn = self.turn.lock().unwrap_or_else(|it| it.into_inner());
        hub.trouble("");
        namespace_with_token(&hub.cluster, self.name);
        let mut repo = Repo::on(&hub.cluster, &[self.name]);
        leads_to(&mut repo, self.name, &hub);
        Turn {
            repo,
            hub,
            _turn: turn,
        }
    }

    fn start(&self) -> Started {
        let folder = Repo::new();
        Started {
            cluster: (self.cluster)(),
            hub: JupyterHub::start(folder.root.join("hub"), self.base, false),
            _folder: folder,
        }
    }
}

impl Deref for Started {
    type Target = JupyterHub;

    fn deref(&self) -> &JupyterHub {
        &self.hub
    }
}

/// Lays the token of a service where z2jh keeps it.
fn token(cluster: &Shared, hub: &str, token: &str) {
    cluster.kubectl_apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: hub, namespace: {hub}}}\n\
         stringData: {{hub.services.hub-health.apiToken: {token}}}\n"
    ));
}

/// Of one attempt that fails: all these parts are said, as soon as that's known, and nothing is left.
fn fails(repo: &Repo, hub: &JupyterHub, args: &str, parts: &[&str]) {
    let started = Instant::now();
    let said = repo.fails(&format!("run-hub-health-check lake {args} --attempts 1"));
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}{}", hub.log());
    }
    for part in ["of-hub-health", "\u{1b}", "is left"] {
        assert!(!said.contains(part), "{said:?}");
    }
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
}

/// Waits for a line with this part on stderr.
pub(crate) fn says(child: &mut Child, part: &str) {
    let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    assert!(
        lines.map(Result::unwrap).any(|it| it.contains(part)),
        "{part:?} isn't said"
    );
}

/// A cell whose outputs are to be as the notebook has them.
fn checked(source: Value, outputs: Value) -> Value {
    let metadata = json!({"tags": ["check-output"]});
    json!({"cell_type": "code", "source": source, "metadata": metadata, "outputs": outputs})
}

#[test]
fn outputs_of_a_notebook_are_compared() {
    let Turn {
        repo,
        hub: _hub,
        _turn,
    } = CELLS.turn();
    notebook(
        &repo,
        &[
            checked(
                json!("import sys; print('one'); print('error', file=sys.stderr); print('two')"),
                json!([
                    {"output_type": "stream", "name": "stderr", "text": "error"},
                    {"output_type": "stream", "name": "stdout", "text": ["one\n", "two\n"]},
                ]),
            ),
            checked(
                json!(
                    "from IPython.display import clear_output\n\
                     print(1); clear_output(); print(2); clear_output(wait=True); print(3); clear_output(wait=True)"
                ),
                json!([{"output_type": "stream", "name": "stdout", "text": "3\n"}]),
            ),
            checked(
                json!("display(1); shown = display(2, display_id=True); shown.update(3)"),
                json!([
                    {"output_type": "display_data", "data": {"text/plain": ["1"]}},
                    {"output_type": "display_data", "data": {"text/plain": "3"}},
                ]),
            ),
            checked(
                json!("display({'text/html': 'right', 'image/png': ''}, raw=True)"),
                json!([{"output_type": "display_data", "data": {"text/html": ["right\n"]}}]),
            ),
        ],
    );
    repo.ok("run-hub-health-check lake cells --notebook try.ipynb --attempts 1");
}

#[test]
fn outputs_that_differ() {
    let Turn { repo, hub, _turn } = CELLS.turn();
    let stream = checked(
        json!(["print(6 *\n", "      7)"]),
        json!([{"output_type": "stream", "name": "stderr", "text": ["42\n"]}]),
    );
    let html = checked(
        json!("display({'text/html': ' right'}, raw=True)"),
        json!([{"output_type": "display_data", "data": {"text/html": "right"}}]),
    );
    for (cell, parts) in [
        (
            stream,
            [
                "cell 1 of the notebook `try.ipynb` gives stdout \"42\", not stderr \"42\"",
                "Its code:\nprint(6 *",
            ],
        ),
        (
            html,
            [
                "gives text/html \" right\", not text/html \"right\"",
                "Its code:\ndisplay(",
            ],
        ),
    ] {
        notebook(&repo, &[cell]);
        fails(&repo, &hub, "cells --notebook try.ipynb", &parts);
    }
}

#[test]
fn cells_that_fail() {
    let Turn { repo, hub, _turn } = CELLS.turn();
    let raises = json!("def f():\n    raise ValueError('no such lake')\nf()");
    for (cells, more, parts) in [
        (
            vec![json!("x = 1"), raises],
            "",
            [
                "cell 2 of the notebook `try.ipynb` fails: ValueError: no such lake\n",
                "Its code:\ndef f():",
            ],
        ),
        (
            vec![json!("import os; os._exit(1)")],
            "",
            [
                "cell 1 of the notebook `try.ipynb`: the kernel died",
                "`cells` of `lake` is not healthy: user ",
            ],
        ),
        (
            vec![json!("import time; time.sleep(600)")],
            "--attempt-timeout 20s",
            [
                "cell 1 of the notebook `try.ipynb`",
                "the cell took too long",
            ],
        ),
        (
            vec![json!("input('Who are you? ')")],
            "",
            ["StdinNotImplementedError", "Its code:\ninput("],
        ),
        (
            vec![json!(
                "import os, signal, time; os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)"
            )],
            "",
            [
                "cell 1 of the notebook `try.ipynb`: the kernel's websocket",
                "in the middle of a cell",
            ],
        ),
    ] {
        notebook(&repo, &cells);
        fails(
            &repo,
            &hub,
            &format!("cells --notebook try.ipynb {more}"),
            &parts,
        );
    }
}

#[test]
fn files_that_are_no_notebook_to_run() {
    let Turn { repo, hub, _turn } = CELLS.turn();
    // A source that is all right, but no notebook.
    for (text, part) in [
        ("{}", "`try.ipynb` is not a notebook of version 4"),
        (
            r##"{"nbformat": 4, "cells": [{"cell_type": "markdown", "source": "# Hi"}]}"##,
            "the notebook `try.ipynb` has no code to run",
        ),
    ] {
        repo.write("try.ipynb", text);
        fails(&repo, &hub, "cells --notebook try.ipynb", &[part]);
    }
}

#[test]
fn scaling_without_dask_gateway() {
    let Turn { repo, hub, _turn } = CELLS.turn();
    fails(
        &repo,
        &hub,
        "cells --check-dask-scaling",
        &["`cells` has no dask-gateway in its values"],
    );
}

#[test]
fn servers_and_kernels_that_do_not_start() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    for (trouble, more, part) in [
        (
            "fails",
            "",
            "the server did not start: Spawn failed: the volume of the home is gone",
        ),
        (
            "hangs",
            "--attempt-timeout 8s",
            "the server's start (0/1 nodes are available) took too long",
        ),
        ("hangs", "", "; before that: 0/1 nodes are available"),
        (
            "no access",
            "",
            "GET kernelspecs: the server answers 403 Forbidden: ",
        ),
        (
            "no kernel",
            "",
            "the server has no kernel: its image lacks one",
        ),
        (
            "kernel: false",
            "",
            "the kernel did not start: it dies each time the server tries it",
        ),
        (
            "kernel: sleep 600",
            "--attempt-timeout 25s",
            "the kernel's start took too long",
        ),
    ] {
        hub.trouble(trouble);
        fails(&repo, &hub, &format!("troubled {more}"), &[part]);
    }
}

/// The page of a workflow, at `summary.md`.
fn has_summary(repo: &mut Repo) {
    let summary = repo.root.join("summary.md").display().to_string();
    repo.env.push(("GITHUB_STEP_SUMMARY".to_owned(), summary));
}

/// The workflow's page says how it went.
#[test]
fn another_attempt_heals_what_passes() {
    let Turn {
        mut repo,
        hub,
        _turn,
    } = TROUBLED.turn();
    hub.trouble("fails");
    has_summary(&mut repo);
    let failures = || hub.log().matches("the volume of the home is gone").count();
    let before = failures();
    let ran = repo.start("run-hub-health-check lake troubled --attempts 2");
    wait_until("the first attempt", || failures() > before);
    hub.trouble("");
    let ran = Ran::from(ran);
    assert!(
        ran.stderr
            .contains("attempt 1 of 2: the server did not start: "),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("trying again in 4 s"), "{}", ran.stderr);
    assert!(
        ran.stdout
            .starts_with("`troubled` of `lake` is healthy, at attempt 2: "),
        "{}",
        ran.stdout
    );
    assert!(repo.read("summary.md").contains("is healthy, at attempt 2"));
}

#[test]
fn a_workflow_shows_why() {
    let Turn {
        mut repo,
        hub,
        _turn,
    } = TROUBLED.turn();
    has_summary(&mut repo);
    hub.trouble("fails");
    repo.env
        .push(("GITHUB_ACTIONS".to_owned(), "true".to_owned()));
    fails(
        &repo,
        &hub,
        "troubled",
        &["::error title=`troubled` is not healthy::the server did not start: "],
    );
    assert!(
        repo.read("summary.md")
            .contains("<summary>troubled</summary>")
    );
}

/// How often a server was about to start in this way.
fn starts(hub: &JupyterHub, how: &str) -> usize {
    hub.log().matches(&format!("This start is {how}")).count()
}

/// JupyterHub asks to come back later, by seconds or by a date, when many log in at once.
#[test]
fn a_busy_hub_is_waited_for() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    hub.trouble("busy 2");
    let ran = repo.ok("run-hub-health-check lake troubled --attempts 1");
    let users = "/hub/api/users/deployment-service-check";
    for what in [
        format!("GET {users}"),
        format!("DELETE {users}"),
        format!("POST {users}"),
        format!("POST {users}/server"),
        format!("GET {users}/server/progress"),
        format!("POST {users}/tokens"),
    ] {
        let part = format!(
            "the hub is busy: {what} is answered 429 Too Many Requests: Too many users trying to log in right now.\n\
             waiting "
        );
        assert!(ran.stderr.contains(&part), "no {part:?} in {}", ran.stderr);
    }
}

/// A pause that ends after the attempt is not begun, and no other attempt is made.
#[test]
fn a_hub_that_is_busy_to_the_end_is_not_broken() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    hub.trouble("busy 3600");
    let ran = repo.run("run-hub-health-check lake troubled");
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let busy = "`troubled` of `lake` is busy, which says nothing of its health: user ";
    assert!(ran.stdout.starts_with(busy), "{}", ran.stdout);
    assert!(!ran.stderr.contains("attempt 1"), "{}", ran.stderr);
}

#[test]
fn a_hub_that_is_busy_to_the_end_is_not_rolled_back() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    hub.trouble("busy 3600");
    let said = repo.ok("deploy lake troubled --rollback-on-failure").stdout;
    for part in [
        "deployed  revision ",
        "unchecked: the hub is busy: ",
        " /hub/api/users/deployment-service-check is answered 429",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

/// Makes the pod of the check's user, as a hub would whose start is stuck.
fn users_pod(cluster: &Shared, name: &str, fate: &str, scheduler: &str) {
    cluster.kubectl_apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: troubled, labels: {{fate: {fate}, \
         hub.jupyter.org/username: deployment-service-check}}}}, \
         spec: {{schedulerName: {scheduler}, containers: [{{name: pond, image: pond}}]}}}}"
    ));
}

/// The check of a hub whose servers are stuck fails within this time, and says this.
fn stuck(repo: &Repo, hub: &Started, pod: &str, seconds: u64, part: &str) {
    hub.trouble("stuck");
    let started = Instant::now();
    fails(repo, hub, "troubled", &[part]);
    assert!(
        started.elapsed() < Duration::from_secs(seconds),
        "{:?}",
        started.elapsed()
    );
    hub.cluster.kubectl(&format!(
        "delete pod {pod} -n troubled --force --grace-period 0"
    ));
}

/// The hub itself gives it up after a minute.
#[test]
fn a_users_pod_that_cannot_start_is_told_at_once() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    users_pod(&hub.cluster, "crashing", "crash", "default-scheduler");
    let crash = "the server did not start: container `pond` of pod `crashing` (image `pond`): CrashLoopBackOff, exit code 137, \
                 restarts: 3\n  event BackOff: Back-off restarting failed container pond";
    stuck(&repo, &hub, "crashing", 15, crash);
}

#[test]
fn a_users_pod_without_its_volume_is_told_soon() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    users_pod(&hub.cluster, "mountless", "none", "nobody");
    let uid = "get pod mountless -n troubled -o jsonpath={.metadata.uid}";
    let uid = hub.cluster.kubectl(uid);
    hub.cluster.kubectl_apply(&format!(
        "{{apiVersion: v1, kind: Event, metadata: {{name: mountless, namespace: troubled}}, reason: FailedMount, \
         type: Warning, involvedObject: {{kind: Pod, name: mountless, namespace: troubled, uid: {uid}}}, \
         message: 'MountVolume.SetUp failed for volume \"home\" : configmap \"home\" not found'}}"
    ));
    let mount = "the server did not start: pod `mountless` is not ready\n  event FailedMount: MountVolume.SetUp failed";
    stuck(&repo, &hub, "mountless", 25, mount);
}

/// What is told while a server starts.
#[test]
fn a_start_that_takes_long_says_what_it_waits_for() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    hub.trouble("hangs");
    fails(
        &repo,
        &hub,
        "troubled",
        &["waiting for the server: 0/1 nodes are available\n"],
    );
}

/// The server that starts is stopped in seconds, and the next check finds nothing of it.
#[test]
fn ctrl_c_says_that_the_server_is_stopped() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    hub.trouble("stuck");
    let before = starts(&hub, "stuck");
    let child = repo.start("deploy lake troubled");
    wait_until("the server", || starts(&hub, "stuck") > before);
    let started = Instant::now();
    signal(&child, "INT");
    let said = Ran::from(child).stderr;
    for part in [
        "troubled: stopping the server of the user `deployment-service-check`, 5 s at most\n",
        "`troubled` stopped: it is at revision ",
        "is ready, and its health was not checked: stopped\n",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
    hub.trouble("");
    repo.ok("run-hub-health-check lake troubled --attempts 1");
}

/// A hub that takes its time to stop a server keeps nobody waiting, and a second signal says what is left.
#[test]
fn two_signals_say_what_is_left() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    hub.trouble("stuck for ever");
    let before = starts(&hub, "stuck for ever");
    let mut child = repo.start("deploy lake troubled");
    wait_until("the server", || starts(&hub, "stuck for ever") > before);
    signal(&child, "INT");
    says(&mut child, "stopping the server of the user");
    signal(&child, "INT");
    let said = Ran::from(child);
    assert_eq!(said.code, None);
    for part in [
        "troubled is left at revision ",
        ", which is ready, and its health was not checked\n",
        "the user `deployment-service-check` and its server are left to the next check, which removes them\n",
    ] {
        assert!(said.stderr.contains(part), "no {part:?} in {}", said.stderr);
    }
    hub.cluster.kubectl("delete leases --all -n troubled");
}

/// A hub that does not answer keeps nobody waiting who wants to stop.
#[test]
fn ctrl_c_does_not_wait_for_an_answer() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    let silent = Server::answering(|_| Answer::Silence).address;
    let front = front(&hub, silent.trim_start_matches("http://"));
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        &hub.address,
        &front.address,
    );
    let mut child = repo.start("run-hub-health-check lake troubled --verbose");
    says(&mut child, "kubectl proxy");
    thread::sleep(Duration::from_secs(1));
    let started = Instant::now();
    signal(&child, "INT");
    assert_eq!(Ran::from(child).code, Some(1));
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_second_check_waits_for_the_first() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    hub.trouble("slow");
    let before = starts(&hub, "slow");
    let first = repo.start("run-hub-health-check lake troubled");
    wait_until("the server", || starts(&hub, "slow") > before);
    let said = repo.run("run-hub-health-check lake troubled").stderr;
    assert!(said.contains(" is at work on it, or was cut off"), "{said}");
    assert_eq!(Ran::from(first).code, Some(0));
    assert_eq!(starts(&hub, "slow"), before + 2);
}

#[test]
fn a_deploy_during_a_check() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    hub.trouble("slow");
    let before = starts(&hub, "slow");
    let check = repo.start("run-hub-health-check lake troubled");
    wait_until("the server", || starts(&hub, "slow") > before);
    let said = repo
        .run("deploy lake troubled --skip-hub-health-check")
        .stderr;
    assert!(
        said.contains(" is checking its health, and begins again after this"),
        "{said}"
    );
    let check = Ran::from(check);
    assert_eq!(check.code, Some(0), "{}", check.stderr);
    let again = "troubled: somebody has begun to change it: checking it again after that\n";
    assert!(check.stderr.contains(again), "{}", check.stderr);
}

/// Once another check may have taken the user, one that was asleep leaves it alone.
#[test]
fn a_check_that_lost_its_lease_leaves_the_user_to_others() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    hub.trouble("slow");
    let before = starts(&hub, "slow");
    let first = repo.start("run-hub-health-check lake troubled");
    wait_until("the server", || starts(&hub, "slow") > before);
    signal(&first, "STOP");
    let second = repo.start("run-hub-health-check lake troubled");
    wait_until("the other server", || starts(&hub, "slow") > before + 1);
    signal(&first, "CONT");
    let said = Ran::from(first).stderr;
    let lost = "the Lease was lost: it was not renewed for ";
    assert!(
        said.contains(lost) && said.contains(" is at work on it now\n"),
        "{said}"
    );
    let second = Ran::from(second);
    assert_eq!(second.code, Some(0), "{}{}", second.stdout, second.stderr);
    assert!(!second.stderr.contains("attempt 1"), "{}", second.stderr);
}

#[test]
fn a_killed_checks_server_that_is_about_to_start() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    hub.trouble("slow");
    let before = starts(&hub, "slow");
    let mut child = repo.start("run-hub-health-check lake troubled");
    wait_until("the server", || starts(&hub, "slow") > before);
    child.kill().unwrap();
    child.wait().unwrap();
    repo.ok("run-hub-health-check lake troubled --attempts 1");
}

#[test]
fn tokens_that_are_not_good_enough() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    let rights =
        ["its service `hub-health` lacks the rights for that: the hub answers 403 Forbidden: "];
    let none = [
        "its Secret `hub` has no `hub.services.hub-health.apiToken`\n\nhint: define the service `hub-health`",
    ];
    let unfit =
        ["`hub.services.hub-health.apiToken` in the Secret `hub` of `troubled` is not a token"];
    for (set, parts) in [
        ("without-rights", rights),
        ("guessed", rights),
        ("''", none),
        ("of-hub-health of-hub-health", unfit),
    ] {
        token(&hub.cluster, "troubled", set);
        fails(&repo, &hub, "troubled", &parts);
    }
}

#[test]
fn a_certificate_that_nobody_knows() {
    let Turn {
        mut repo,
        hub,
        _turn,
    } = TROUBLED.turn();
    repo.env.retain(|(name, _)| name != "SSL_CERT_FILE");
    fails(
        &repo,
        &hub,
        "troubled",
        &[
            "cannot verify the hub's certificate: `https://localhost:",
            "UnknownIssuer",
        ],
    );
}

/// The check's user goes as soon as the hub can be reached again.
#[test]
fn cut_off_from_the_hub() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    let at = repo.root.join("at");
    let cell = format!(
        "import time; open('{}', 'w').close(); time.sleep(600)",
        at.display()
    );
    notebook(&repo, &[json!(cell)]);
    let (free, to) = (free_address(), format!("OPENSSL:{},verify=0", hub.address));
    let way = front_at(&free, &hub, &to);
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        &hub.address,
        &way.address,
    );
    let child = repo.start("run-hub-health-check lake troubled --notebook try.ipynb --attempts 1");
    wait_until("the cell", || at.exists());
    drop(way);
    let listens = format!("OPENSSL-LISTEN:{},", free.rsplit_once(':').unwrap().1);
    // Those that have a connection go on.
    let certificate = hub.certificate();
    command_lines()
        .iter()
        .filter(|(_, it)| it.contains(&listens) && it.contains(&certificate))
        .for_each(|(pid, _)| kill_9(*pid));
    // The user can't be removed at once.
    thread::sleep(Duration::from_millis(300));
    let _way = front_at(&free, &hub, &to);
    let ran = Ran::from(child);
    assert!(
        ran.code == Some(1) && !ran.stderr.contains("is left"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_hub_that_goes_away_in_a_servers_start() {
    let (_cluster, repo, mut hub) = hub("going-away", false);
    hub.trouble("hangs");
    let mut child = repo.start("run-hub-health-check lake going-away");
    wait_until("the server", || starts(&hub, "hangs") > 0);
    // The hub answers that it starts, and tells of its progress.
    thread::sleep(Duration::from_secs(5));
    hub.kill();
    let started = Instant::now();
    says(
        &mut child,
        "attempt 1 of 3: the hub went away in the server's start",
    );
    // By itself within ten seconds.
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    child.kill().unwrap();
    child.wait().unwrap();
    fails(&repo, &hub, "going-away", &["the proxy answers 503"]);
}

#[test]
fn others_who_answer_at_the_domain() {
    let Turn { repo, hub, _turn } = TROUBLED.turn();
    // As a load balancer does it whose proxy is away, and somebody else's page.
    let gateway = Server::answering(|_| Answer::Status(502)).address;
    let elsewhere =
        Server::answering(|_| Answer::Redirect("https://sso.example.org/".to_owned())).address;
    let mut address = hub.address.clone();
    for (server, parts) in [
        (gateway, ["the proxy answers 502", "GET users/"]),
        (
            elsewhere,
            [
                "leads to `https://sso.example.org/`",
                "hint: is the domain in cluster.yaml the hub's own, ",
            ],
        ),
    ] {
        let front = front(&hub, server.trim_start_matches("http://"));
        repo.edit(
            "config/clusters/lake/cluster.yaml",
            &address,
            &front.address,
        );
        fails(&repo, &hub, "troubled", &parts);
        address.clone_from(&front.address);
    }
    fails(
        &repo,
        &hub,
        "troubled",
        &["cannot reach the hub: `https://localhost:"],
    );
}

/// What ends TLS before a server.
struct Front {
    address: String,
    _process: Running,
}

fn front(hub: &JupyterHub, to: &str) -> Front {
    front_at(&free_address(), hub, &format!("TCP:{to}"))
}

/// The same at an address of this machine, before one that socat knows.
fn front_at(address: &str, hub: &JupyterHub, to: &str) -> Front {
    let port = address.rsplit_once(':').unwrap().1;
    let certificate = hub.certificate();
    let key = certificate.replace("tls.crt", "tls.key");
    let listen = format!(
        "OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,verify=0,cert={certificate},key={key}"
    );
    let process = Running::start("socat", &[listen, to.to_owned()], address);
    Front {
        address: format!("localhost:{port}"),
        _process: process,
    }
}

#[test]
fn the_values_name_the_path_of_a_hub() {
    let Turn { repo, hub, _turn } = STEADY.turn();
    fails(
        &repo,
        &hub,
        "steady",
        &[
            "GET users/",
            ": 404 Not Found is not an answer of JupyterHub\n\nhint: ",
        ],
    );
}

/// Tells where the hub is below its address.
fn has_base_url(repo: &Repo) {
    repo.write(
        "config/clusters/lake/steady.values.yaml",
        "hub: {baseUrl: /lakes/}\n",
    );
    repo.edit(
        "helm-charts/pond/values.schema.yaml",
        "additionalProperties: false",
        "",
    );
}

#[test]
fn healthy_twenty_times() {
    let Turn {
        repo,
        hub: _hub,
        _turn,
    } = STEADY.turn();
    has_base_url(&repo);
    for _ in 0..20 {
        repo.ok("run-hub-health-check lake steady --attempts 1");
    }
}

/// `kubectl port-forward` leads to the hub.
fn forwards(repo: &mut Repo, hub: &JupyterHub) {
    let port = free_address();
    let port = port.rsplit_once(':').unwrap().1;
    repo.script(
        "kubectl",
        &format!(
            "case $1 in port-forward) (sleep 0.5; echo 'Forwarding from 127.0.0.1:{port} -> 8000') &\n\
             exec socat TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork OPENSSL:{},verify=0;;\n\
             *) exec {} \"$@\";; esac",
            hub.address,
            tool_path("kubectl").display()
        ),
    );
}

/// A hub below a path, and a `kubectl port-forward` that leads to it.
fn steady_behind_forwards() -> Turn {
    let mut turn = STEADY.turn();
    has_base_url(&turn.repo);
    forwards(&mut turn.repo, &turn.hub);
    turn
}

/// The domain of a hub that moves leads to one of its clusters.
#[test]
fn a_hub_that_moves_is_asked_at_its_own_cluster() {
    let Turn { repo, hub, _turn } = steady_behind_forwards();
    let elsewhere = Server::answering(|_| Answer::Status(403)).address;
    let front = front(&hub, elsewhere.trim_start_matches("http://"));
    for (file, domain) in [
        ("lake", hub.address.as_str()),
        ("river", "river.example.org"),
    ] {
        let file = format!("config/clusters/{file}/cluster.yaml");
        repo.edit(
            &file,
            &format!("domain: {domain}"),
            &format!("domain: {}", front.address),
        );
    }
    let ran = repo.ok("run-hub-health-check lake steady --attempts 1");
    let said = "steady: hub `prod` of `river` has the same domain: it is asked through `kubectl port-forward`";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert!(ran.stdout.contains("is healthy"), "{}", ran.stdout);
    let ran = repo.ok("validate cluster-config lake");
    assert!(
        ran.stdout
            .contains("warning: hub `steady`: hub `prod` of `river` has the same domain"),
        "{}",
        ran.stdout
    );
}

/// As where HTTP Basic Auth protects all of it: then the hub itself is behind `kubectl port-forward`.
#[test]
fn the_first_page_answers_what_cluster_yaml_expects() {
    let Turn { repo, hub, _turn } = steady_behind_forwards();
    let status = Arc::new(AtomicU16::new(401));
    let answered = status.clone();
    let server = Server::answering(move |_| Answer::Status(answered.load(Ordering::Relaxed)));
    let front = front(&hub, server.address.trim_start_matches("http://"));
    let domain = format!("domain: {}", hub.address);
    let protected = format!(
        "domain: {}\n  uptime_check: {{expected_status: 401}}",
        front.address
    );
    repo.edit("config/clusters/lake/cluster.yaml", &domain, &protected);
    let said = repo
        .ok("run-hub-health-check lake steady --attempts 1")
        .stdout;
    assert!(
        said.starts_with("`steady` of `lake` is healthy: page "),
        "{said}"
    );
    status.store(200, Ordering::Relaxed);
    let differs = "GET /lakes/hub/health answers 200 OK, and cluster.yaml has `uptime_check: {expected_status: 401}`";
    fails(
        &repo,
        &hub,
        "steady",
        &[&differs.replace("GET ", &format!("GET https://{}", front.address))],
    );
}

/// And is not followed: as where people log in before they see the hub.
#[test]
fn a_redirection_may_be_expected() {
    let Turn { repo, hub, _turn } = steady_behind_forwards();
    let sso = Server::answering(|_| Answer::Redirect("/sso".to_owned())).address;
    let front = front(&hub, sso.trim_start_matches("http://"));
    let domain = format!("domain: {}", hub.address);
    let expected = format!(
        "domain: {}\n  uptime_check: {{expected_status: \"302\"}}",
        front.address
    );
    repo.edit("config/clusters/lake/cluster.yaml", &domain, &expected);
    repo.ok("run-hub-health-check lake steady --attempts 1");
}

/// It is started anew, at the same port.
#[test]
fn a_forward_that_loses_its_pod_at_once() {
    let Turn {
        mut repo,
        hub,
        _turn,
    } = STEADY.turn();
    has_base_url(&repo);
    let (root, free) = (repo.root.display().to_string(), free_address());
    let forward = format!(
        "port=${{5%%:*}}; port=${{port:-{}}}; began=\"Forwarding from 127.0.0.1:$port -> 8000\"\n\
         if mkdir {root}/lost; then echo $began; sleep 0.1; echo lost connection to pod >&2; exit 1; fi\n\
         (sleep 0.5; echo $began) &\n\
         exec socat TCP-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork OPENSSL:{},verify=0",
        free.rsplit_once(':').unwrap().1,
        hub.address
    );
    let kubectl = tool_path("kubectl");
    repo.script(
        "kubectl",
        &format!(
            "case $1 in port-forward) {forward};; *) exec {} \"$@\";; esac",
            kubectl.display()
        ),
    );
    let ran = repo.ok("run-hub-health-check lake steady --port-forward --attempts 2");
    for part in [
        "attempt 1 of 2: cannot reach the hub",
        "`kubectl port-forward` ended: lost connection",
    ] {
        assert!(ran.stderr.contains(part), "no {part:?} in {}", ran.stderr);
    }
    assert!(
        ran.stdout.contains("is healthy, at attempt 2: "),
        "{}",
        ran.stdout
    );
}

#[test]
fn through_a_proxy_with_a_password() {
    let Turn {
        mut repo,
        hub,
        _turn,
    } = STEADY.turn();
    has_base_url(&repo);
    // Nobody but the proxy knows where that host is.
    let port = hub.address.rsplit_once(':').unwrap().1;
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        &hub.address,
        &format!("lake.test:{port}"),
    );
    fails(
        &repo,
        &hub,
        "steady",
        &["cannot reach the hub: `https://lake.test:"],
    );
    let proxy = connecting_proxy(port);
    repo.env.push((
        "HTTPS_PROXY".to_owned(),
        format!("http://person:of-the-proxy@{proxy}"),
    ));
    repo.ok("run-hub-health-check lake steady --attempts 1");
    repo.env.pop();
    repo.env
        .push(("HTTPS_PROXY".to_owned(), format!("http://{proxy}")));
    fails(
        &repo,
        &hub,
        "steady",
        &["cannot reach the hub: `https://lake.test:"],
    );
}

/// A proxy that connects whoever knows the password to a port of this machine.
fn connecting_proxy(port: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let to = format!("127.0.0.1:{port}");
    thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            let to = to.clone();
            thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.extend(byte);
                }
                let head = String::from_utf8(head).unwrap().to_lowercase();
                // "person:of-the-proxy"
                let login = "proxy-authorization: basic cgvyc29uom9mlxrozs1wcm94eq==";
                if !head.starts_with("connect lake.test:") || !head.contains(login) {
                    return stream.write_all(b"HTTP/1.1 407 Who?\r\n\r\n").unwrap();
                }
                let server = TcpStream::connect(to).unwrap();
                stream.write_all(b"HTTP/1.1 200 Go on\r\n\r\n").unwrap();
                let (mut up, mut there) =
                    (stream.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = io::copy(&mut up, &mut there);
                    let _ = there.shutdown(Shutdown::Write);
                });
                let _ = io::copy(&mut &server, &mut stream);
            });
        }
    });
    address
}

/// dask-gateway is among the charts of the hub, by its values.
#[test]
fn dask() {
    let (_cluster, repo, hub) = hub("gated-dask", true);
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "helm_chart: pond",
        "helm_chart: reef",
    );
    repo.write(
        "helm-charts/reef/Chart.yaml",
        "apiVersion: v2\nname: reef\nversion: 0.1.0\ndependencies:\n\
         - {name: gate, version: 0.1.0, repository: https://gates.example.org}\n",
    );
    let values = "config/clusters/lake/gated-dask.values.yaml";
    repo.write(values, "gate: {dask-gateway: {enabled: false}}\n");
    // A chart that isn't here may have dask-gateway in it.
    let gates = repo.root.join("gates");
    let mirror = Server::serving(&gates).address;
    repo.write(
        "config/xtask.yaml",
        &format!("chart_mirrors: {{https://gates.example.org: {mirror}}}\n"),
    );
    fails(
        &repo,
        &hub,
        "gated-dask",
        &["cannot get the chart `gate` 0.1.0 from https://gates.example.org"],
    );
    repo.write(
        "gates/gate/Chart.yaml",
        "apiVersion: v2\nname: gate\nversion: 0.1.0\ndependencies:\n\
         - {name: dask-gateway, version: 2026.3.0, condition: dask-gateway.enabled}\n",
    );
    let gateway = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/charts/dask-gateway");
    copy(&gateway, &gates.join("gate/charts/dask-gateway"));
    package(&gates.join("gate"), &gates);
    index(&gates);
    let check = |more: &str| {
        repo.ok(&format!(
            "run-hub-health-check lake gated-dask --attempts 1 {more}"
        ))
        .stdout
    };
    assert!(!check("").contains(", dask "));
    repo.write(values, "gate: {dask-gateway: {enabled: true}}\n");
    // What the chart depends on is fetched where it's missing, as in a fresh clone.
    fs::remove_dir_all(repo.cache().join("xtask/dependencies")).unwrap();
    let said = check("--check-dask-scaling");
    assert!(
        said.contains(", dask ") && said.contains(", dask-scaling "),
        "{said}"
    );
    // A cluster that a check left goes with the next one.
    notebook(
        &repo,
        &[json!(
            "from dask_gateway import GatewayCluster; GatewayCluster(shutdown_on_close=False)"
        )],
    );
    check("--notebook try.ipynb");
    assert!(!check("--no-check-dask-scaling").contains("dask-scaling"));
    let clusters = |end: &str| {
        hub.log()
            .lines()
            .filter(|it| it.contains(" Cluster ") && it.ends_with(end))
            .count()
    };
    assert_eq!(clusters("is running"), 5);
    // The gateway takes its time after a check has ended; also after one that is stopped.
    wait_until("the end of the clusters", || clusters(" stopped") == 5);
    let cell = "import time; from dask_gateway import GatewayCluster\nwith GatewayCluster():\n    time.sleep(600)";
    notebook(&repo, &[json!(cell)]);
    let child = repo.start("run-hub-health-check lake gated-dask --notebook try.ipynb");
    wait_until("the cluster of the notebook", || {
        clusters("is running") == 7
    });
    signal(&child, "TERM");
    assert_eq!(Ran::from(child).code, Some(1));
    wait_until("the end of the clusters", || clusters(" stopped") == 7);
}

/// A hub is checked when its pods are ready, and what isn't healthy did not become ready.
#[test]
fn after_a_rollout() {
    let (cluster, mut repo, hub) = hub("rolled-staging", false);
    let yaml = repo.read("config/clusters/lake/cluster.yaml");
    let prod = yaml[yaml.find("- name").unwrap()..].replace("rolled-staging", "rolled");
    let prod = prod.replace(
        &format!("domain: {}", hub.address),
        "domain: rolled.example.org",
    );
    repo.write("config/clusters/lake/cluster.yaml", &(yaml + &prod));
    repo.write("config/clusters/lake/rolled.values.yaml", "{}\n");

    // cert-manager and others are only about to do what they do for a new hub.
    let free = free_address();
    let address = free.replace("127.0.0.1", "localhost");
    repo.edit("config/clusters/lake/cluster.yaml", &hub.address, &address);
    let mut child = repo.start("deploy lake");
    let waits =
        "rolled-staging: waiting, at most 3 min, for its address: cannot reach the hub: `https://";
    says(&mut child, waits);
    let _front = front_at(&free, &hub, &format!("OPENSSL:{},verify=0", hub.address));
    let said = Ran::from(child).stdout;
    let lines: Vec<_> = said.lines().collect();
    assert!(
        lines[0].contains("deployed  revision 1, https://localhost:")
            && lines[0].contains(", healthy, "),
        "{said}"
    );
    assert!(
        lines[1].contains(", unchecked: it has no Secret `hub`, "),
        "{said}"
    );

    // The pods of the next revision are ready, and nobody can work there.
    hub.trouble("fails");
    repo.write(
        "config/clusters/lake/rolled-staging.values.yaml",
        "note: next\n",
    );
    let ran = repo.run("deploy lake --rollback-on-failure");
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for part in [
        "rolled-staging: attempt 1 of 3: the server did not start: ",
        "`rolled-staging` failed: revision 2 is not healthy: the server did not start: Spawn failed: ",
        "rolled back to revision 1, which is ready again",
        "; held back: `rolled`",
    ] {
        assert!(ran.stderr.contains(part), "no {part:?} in {}", ran.stderr);
    }
    assert!(
        cluster
            .history("rolled-staging")
            .contains("rolled back to revision 1")
    );

    // Its domain is that of another cluster's hub as well.
    hub.trouble("");
    repo.edit(
        "config/clusters/river/cluster.yaml",
        "domain: river.example.org",
        &format!("domain: {address}"),
    );
    forwards(&mut repo, &hub);
    let ran = repo.ok("deploy lake rolled-staging");
    assert!(
        ran.stderr
            .contains("hub `prod` of `river` has the same domain")
            && ran.stdout.contains(", healthy, "),
        "{}{}",
        ran.stdout,
        ran.stderr
    );

    // People can do without.
    let said = repo
        .ok("deploy lake rolled-staging --skip-hub-health-test")
        .stdout;
    assert!(
        !said.contains("healthy") && !said.contains("unchecked"),
        "{said}"
    );
    let domain = format!("domain: {address}");
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        &domain,
        &format!("{domain}\n  health_check: false"),
    );
    let said = repo.ok("deploy lake rolled-staging --format json").stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        said["releases"][0]["health"],
        "unchecked: cluster.yaml has `health_check: false`"
    );
}

/// BinderHub has the domain, and a hub of another address starts servers on which nobody logs in.
#[test]
fn a_hub_without_login() {
    let (_cluster, repo, hub) = hub("binder", false);
    let parked = Server::answering(|_| Answer::Page("<html>For sale</html>")).address;
    let is_sold = Arc::new(AtomicBool::new(false));
    let (sold, buyer) = (is_sold.clone(), parked.clone());
    let page = Server::answering(move |path| match path {
        "" if sold.load(Ordering::Relaxed) => Answer::Redirect(buyer.clone()),
        "" => Answer::Redirect("/build".to_owned()),
        "build" => Answer::Page("<html>Build a repository</html>"),
        _ => Answer::Status(404),
    });
    let stranger = front(&hub, parked.trim_start_matches("http://"));
    let front = front(&hub, page.address.trim_start_matches("http://"));
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        &hub.address,
        &front.address,
    );
    let values = "config/clusters/lake/binder.values.yaml";
    let set = |binderhub: &str| {
        repo.write(
            values,
            &format!(
                "hub: {{config: {{JupyterHub: {{authenticator_class: nullauthenticator.NullAuthenticator}}}}}}\n\
                 config: {{BinderHub: {{{binderhub}}}}}\n"
            ),
        );
    };
    set(&format!("hub_url: https://{}/", hub.address));
    let said = repo.ok("run-hub-health-check lake binder").stdout;
    assert!(
        said.starts_with("`binder` of `lake` is healthy: hub 0.") && said.contains(", page 0."),
        "{said}"
    );
    notebook(&repo, &[json!("1")]);
    fails(
        &repo,
        &hub,
        "binder --notebook try.ipynb",
        &["nobody logs in to `binder`, and so no notebook runs there"],
    );
    // The domain is BinderHub's, which isn't the hub.
    set("");
    fails(
        &repo,
        &hub,
        "binder",
        &["GET https://localhost:", "/hub/health answers 404"],
    );
    // Somebody else's page, in place of either.
    set(&format!("hub_url: https://{}", stranger.address));
    fails(
        &repo,
        &hub,
        "binder",
        &["/hub/health: the answer is not that of JupyterHub\n\nhint: "],
    );
    set(&format!("hub_url: https://{}", hub.address));
    is_sold.store(true, Ordering::Relaxed);
    fails(
        &repo,
        &hub,
        "binder",
        &[&format!(
            "GET /: `https://{}` leads to `{parked}",
            front.address
        )],
    );
    // No page.
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        &front.address,
        "localhost:1",
    );
    fails(
        &repo,
        &hub,
        "binder",
        &["cannot reach the hub: `https://localhost:1`, GET /"],
    );
}

/// On the hub `staging` of a real node.
pub(crate) fn on_a_real_node(repo: &Repo, node: &Node) {
    let pods = || node.get("get pods -n staging -o name");
    let is_clean = || !pods().contains("deployment-service-check");
    let report = repo
        .ok("run-hub-health-check local staging --port-forward --format json")
        .stdout;
    assert!(is_clean(), "{}", pods());
    let report: Value = serde_json::from_str(&report).unwrap();
    let phases = report["attempts"][0]["phases"].as_array().unwrap();
    let names: Vec<_> = phases
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["user", "server", "kernel", "simple", "end"]);
    assert_eq!(
        (&report["healthy"], &report["hub"]),
        (&true.into(), &"staging".into())
    );
    // Where z2jh's chart gets certificates itself, `proxy-public` leads from HTTP to them.
    node.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: proxy-http, namespace: staging}, \
         spec: {selector: {component: proxy}, ports: [{port: 8000, targetPort: http}]}}",
    );
    let said = repo
        .ok("run-hub-health-check local staging --port-forward --verbose")
        .stderr;
    assert!(
        said.contains("kubectl port-forward --namespace staging service/proxy-http :8000"),
        "{said}"
    );
    node.get("delete service proxy-http -n staging");

    // Stopped, it clears up; killed, the next one does, also while the server is only starting.
    notebook(repo, &[json!("import time; time.sleep(600)")]);
    let child = repo.start("run-hub-health-check local staging --notebook try.ipynb");
    wait_until("the server", || !is_clean());
    signal(&child, "TERM");
    assert_eq!(Ran::from(child).code, Some(1));
    assert!(is_clean(), "{}", pods());
    let mut child = repo.start("run-hub-health-check local staging");
    wait_until("the server", || !is_clean());
    child.kill().unwrap();
    child.wait().unwrap();
    repo.ok("run-hub-health-check local staging --attempts 1");
    assert!(is_clean(), "{}", pods());
}

#[test]
fn where_nothing_can_be_checked() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["unchecked"]);
    let said = repo.fails("run-hub-health-check lake unchecked");
    assert!(
        said.contains("nobody can check `unchecked`: it has no Secret `hub`\n\nhint: "),
        "{said}"
    );
    let said = repo.fails("run-hub-health-check lake nobody");
    assert!(
        said.contains("cluster `lake` has no hub `nobody`"),
        "{said}"
    );
}

#[test]
fn times_that_cannot_be_an_attempts() {
    let repo = Repo::new();
    for time in ["0s", "999ms", "2d", "9999999999y"] {
        let ran = repo.run(&format!(
            "run-hub-health-check lake unchecked --attempt-timeout {time}"
        ));
        assert!(
            ran.code == Some(2) && ran.stderr.contains("--attempt-timeout"),
            "{time}: {}",
            ran.stderr
        );
    }
}

/// Lays a token that no hub has.
fn token_of_the_test(cluster: &Shared, hub: &str) {
    cluster.kubectl(&format!("create namespace {hub}"));
    cluster.kubectl(&format!(
        "create secret generic hub -n {hub} --from-literal=hub.services.hub-health.apiToken=of-the-test"
    ));
}

#[test]
fn nobody_behind_the_domain() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["unmanned"]);
    token_of_the_test(&cluster, "unmanned");
    let said = repo.fails("run-hub-health-check lake unmanned --attempts 1");
    assert!(
        said.contains("cannot reach the hub: `https://unmanned.example.org`, GET /hub/api/users/"),
        "{said}"
    );
    assert!(!said.contains("of-the-test"), "{said}");
}

#[test]
fn an_encrypted_domain_is_not_shown() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["concealed"]);
    token_of_the_test(&cluster, "concealed");
    // Only the cluster's demo key opens it, which `deploy` has, too.
    let key = Key::new();
    repo.write("config/clusters/lake/demo.age.key", &key.private);
    repo.write(
        "config/clusters/lake/domain.secret.yaml",
        "domain: hidden.example.org\n",
    );
    repo.encrypt("config/clusters/lake/domain.secret.yaml", &key);
    let domain = "domain: concealed.example.org";
    let own = format!("{domain}\n  domain_override_file: domain.secret.yaml");
    repo.edit("config/clusters/lake/cluster.yaml", domain, &own);
    let ran = repo.run("run-hub-health-check lake concealed --attempts 2 --format json");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains(
            "`concealed` is not healthy: cannot reach the hub: `https://***`, GET /hub/api/"
        ),
        "{}",
        ran.stderr
    );
    assert!(!(ran.stdout + &ran.stderr).contains("hidden.example"));
}

#[test]
fn a_name_without_a_record_is_told_with_what_it_should_point_to() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["nameless"]);
    repo.ok("deploy lake --skip-hub-health-check");
    token(&cluster, "nameless", "of-hub-health");
    cluster.kubectl_apply(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: hub, namespace: nameless}\n\
         spec: {rules: [{host: nameless.example.org}]}\n",
    );
    cluster.kubectl(
        "patch ingress hub --namespace nameless --subresource status --type merge \
         --patch {\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"203.0.113.7\"}]}}}",
    );
    let mut child = repo.start("deploy lake");
    says(
        &mut child,
        "hint: add an A record with `203.0.113.7` for it",
    );
    let pid = child.id().to_string();
    std::process::Command::new("kill")
        .arg(pid)
        .status()
        .unwrap();
    child.wait().unwrap();
}
