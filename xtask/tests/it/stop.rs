//! Deploys that are stopped, killed, or not alone.

use std::{
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use crate::repo::{Ran, Repo, Shared, assert_succeeded, command_lines, is_below, wait_until};

pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{name} {}", child.id())])
        .status()
        .unwrap();
    assert!(sent.success());
}

pub(crate) fn leases(cluster: &Shared, hub: &str) -> String {
    cluster.kubectl(&format!("get leases -n {hub} -o name"))
}

/// The number and the status of a release's newest revision.
pub(crate) fn newest(cluster: &Shared, hub: &str) -> (u32, String) {
    let labels =
        "{range .items[*]}{.metadata.labels.version} {.metadata.labels.status}{\"\\n\"}{end}";
    let mut command = crate::repo::tool("kubectl");
    command.args([
        "get",
        "secrets",
        "-n",
        hub,
        "-l",
        "owner=helm",
        "-o",
        &format!("jsonpath={labels}"),
    ]);
    let found = command
        .env("KUBECONFIG", &cluster.kubeconfig)
        .output()
        .unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let revisions = found.lines().filter_map(|it| it.split_once(' '));
    revisions
        .map(|(number, status)| (number.parse().unwrap(), status.to_owned()))
        .max()
        .unwrap_or_default()
}

/// Whoever is stopped or killed at any moment leaves nothing that keeps the next one from its work.
#[test]
fn killed_at_any_moment() {
    const HUBS: [&str; 6] = ["any-a", "any-b", "any-c", "any-d", "any-e", "any-staging"];
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &HUBS);
    // The first ones are killed while they install.
    let mut state = 88172645463325252_u64;
    for round in 0..20 {
        let mut child = repo.start("deploy lake --jobs 4");
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        thread::sleep(Duration::from_millis(state % 2500));
        signal(&child, ["KILL", "INT", "TERM"][round % 3]);
        child.wait().unwrap();
        let ran = repo.run("deploy lake --jobs 4");
        assert_eq!(
            ran.code,
            Some(0),
            "round {round}: {}{}",
            ran.stdout,
            ran.stderr
        );
        assert_eq!(
            ran.stdout.matches("deployed").count(),
            HUBS.len(),
            "{}",
            ran.stdout
        );
    }
    for hub in HUBS {
        assert_eq!(newest(&cluster, hub).1, "deployed");
        assert_eq!(leases(&cluster, hub), "");
    }
}

#[test]
fn ctrl_c_says_what_is_left() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["ctrl-c", "ctrl-d"]);
    repo.write("config/clusters/lake/ctrl-c.values.yaml", "fate: stuck\n");
    let child = repo.start("deploy lake --jobs 1");
    wait_until("the release", || {
        newest(&cluster, "ctrl-c") == (1, "deployed".to_owned())
    });
    assert_ne!(leases(&cluster, "ctrl-c"), "");
    signal(&child, "INT");
    let ran = Ran::from(child);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for part in [
        "stopping; a second signal ends it at once\n",
        "`ctrl-c` stopped: it is at revision 1 (deployed): revision 1 did not become ready: stopped before its pods were ready",
        "; not begun: `ctrl-d`\n",
    ] {
        assert!(ran.stderr.contains(part), "no {part:?} in {}", ran.stderr);
    }
    assert_eq!(leases(&cluster, "ctrl-c"), "");
    assert!(!cluster.kubectl("get namespaces -o name").contains("ctrl-d"));

    // helm is at work, and ends first.
    repo.write("config/clusters/lake/ctrl-c.values.yaml", "hook: true\n");
    let child = repo.start("deploy lake ctrl-c");
    wait_until("the hook", || {
        cluster
            .kubectl("get jobs -n ctrl-c -o name")
            .contains("hook")
    });
    signal(&child, "TERM");
    let ran = Ran::from(child);
    assert!(
        ran.stderr
            .contains("`ctrl-c` stopped: it is at revision 2 (failed): "),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stdout
            .starts_with("ctrl-c               stopped   after"),
        "{}",
        ran.stdout
    );
}

/// When helm itself is killed, its release stays pending, and helm refuses to go on with it.
#[test]
fn a_release_that_was_cut_off_is_healed() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["cut-off"]);
    let cut_off = || {
        repo.write("config/clusters/lake/cut-off.values.yaml", "hook: true\n");
        let mut child = repo.start("deploy lake");
        // Ours and that of kwok's controller: the job has a pod.
        wait_until("the hook", || {
            let made = newest(&cluster, "cut-off").1.starts_with("pending");
            made && cluster
                .kubectl("get pods -n cut-off -o name")
                .contains("pod/hook-")
        });
        let helm =
            |line: &str| line.contains("helm upgrade") && line.contains("--namespace cut-off");
        let helms: Vec<_> = command_lines()
            .into_iter()
            .filter(|(pid, line)| helm(line) && is_below(*pid, child.id()))
            .collect();
        assert!(!helms.is_empty());
        signal(&child, "STOP");
        helms.iter().for_each(|(pid, _)| {
            drop(Command::new("kill").args(["-9", &pid.to_string()]).status())
        });
        child.kill().unwrap();
        child.wait().unwrap();
        repo.write("config/clusters/lake/cut-off.values.yaml", "note: healed\n");
    };
    cut_off();
    assert_eq!(
        newest(&cluster, "cut-off"),
        (1, "pending-install".to_owned())
    );
    let ran = repo.ok("deploy lake");
    for part in [
        "cut-off: removing the job `hook` of a hook that was cut off\n",
        "cut-off: revision 1 was cut off (pending-install), and nothing was deployed before: removing what helm keeps of it\n",
    ] {
        assert!(ran.stderr.contains(part), "no {part:?} in {}", ran.stderr);
    }
    assert_eq!(newest(&cluster, "cut-off"), (1, "deployed".to_owned()));

    cut_off();
    assert_eq!(
        newest(&cluster, "cut-off"),
        (2, "pending-upgrade".to_owned())
    );
    let ran = repo.ok("deploy lake");
    let said = "cut-off: revision 2 was cut off (pending-upgrade): rolling back to revision 1\n";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert_eq!(newest(&cluster, "cut-off"), (4, "deployed".to_owned()));
}

#[test]
fn two_deploys_at_once() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["twice"]);
    repo.env.push(("GITHUB_ACTOR".into(), "ann".into()));
    repo.write("config/clusters/lake/twice.values.yaml", "fate: stuck\n");
    let mut first = repo.start("deploy lake");
    wait_until("the release", || newest(&cluster, "twice").0 == 1);
    let started = Instant::now();
    let said = repo.fails("deploy lake");
    assert!(said.contains("twice: ann (since 20"), "{said}");
    assert!(
        said.contains("`twice` failed: ann (since 20") && said.contains(") is at work on it\n"),
        "{said}"
    );
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(newest(&cluster, "twice").0, 1);
    first.kill().unwrap();
    first.wait().unwrap();

    // Somebody else's, on another machine, whom nobody hears of any more.
    let lease = |holder: &str| {
        cluster.kubectl_apply(&format!(
            "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {{name: xtask-twice, namespace: twice}}\n\
             spec: {{holderIdentity: {holder}, leaseDurationSeconds: 2, renewTime: '2096-01-01T00:00:00.000000Z'}}\n"
        ));
    };
    cluster.kubectl("delete lease xtask-twice -n twice --ignore-not-found");
    lease("bob");
    repo.write("config/clusters/lake/twice.values.yaml", "{}\n");
    let ran = repo.ok("deploy lake");
    assert!(
        ran.stderr
            .contains("twice: bob is at work on it, or was cut off"),
        "{}",
        ran.stderr
    );
    assert_eq!(leases(&cluster, "twice"), "");
}

/// The API server hangs when helm begins, goes away, and comes back: helm is started again, and the Lease is kept.
#[test]
fn an_api_server_that_comes_back() {
    let mut repo = Repo::own();
    repo.ok("deploy local");
    let kubeconfig = crate::repo::kubeconfig(&repo.ok("local status").stdout);
    let folder = kubeconfig.parent().unwrap();
    let kwokctl = |args: &[&str]| {
        let mut command = crate::repo::tool("kwokctl");
        let name = folder.file_name().unwrap().to_str().unwrap();
        command
            .args(args)
            .args(["--name", name])
            .env("KWOK_WORKDIR", folder);
        let output = command.output().unwrap();
        assert_succeeded(&output);
    };
    let (at, go) = (repo.home().join("at"), repo.home().join("go"));
    repo.script(
        "helm",
        &format!(
            "case \"$*\" in upgrade*'--namespace demo'*) touch {}; until [ -e {} ]; do sleep 0.05; done ;; esac\nexec {} \"$@\"",
            at.display(),
            go.display(),
            crate::repo::tool_path("helm").display()
        ),
    );
    let child = repo.start("deploy local");
    wait_until("helm for demo", || at.exists());
    let server = command_lines().into_iter().find(|(_, line)| {
        let is_server = line.split(' ').next().unwrap().ends_with("kube-apiserver");
        is_server && line.contains(folder.to_str().unwrap())
    });
    let server = server.expect("it's there").0.to_string();
    let send = |name: &str| Command::new("kill").args([name, &server]).status();
    assert!(send("-STOP").unwrap().success());
    thread::sleep(Duration::from_secs(11));
    assert!(send("-CONT").unwrap().success());
    thread::sleep(Duration::from_secs(6));
    kwokctl(&["stop", "cluster"]);
    std::fs::write(&go, "").unwrap();
    thread::sleep(Duration::from_secs(2));
    kwokctl(&["start", "cluster"]);
    let ran = Ran::from(child);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stderr.contains("demo: trying again in 1 s: "),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stdout
            .contains("demo                 deployed  revision 2"),
        "{}",
        ran.stdout
    );
}
