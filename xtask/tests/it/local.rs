//! The rehearsal cluster itself.

use std::fs;

use crate::repo::{Repo, command_lines, kill_9, kubeconfig, kubectl, wait_until};

/// The processes of the rehearsal cluster with this kubeconfig.
fn processes(kubeconfig: &std::path::Path) -> Vec<(u32, String)> {
    let folder = kubeconfig.parent().unwrap().to_str().unwrap();
    command_lines()
        .into_iter()
        .filter(|(_, command)| command.starts_with(folder))
        .collect()
}

fn kill(name: &str, kubeconfig: &std::path::Path) {
    let started = |(_, command): &&(u32, String)| command.contains(&format!("bin/{name} "));
    kill_9(processes(kubeconfig).iter().find(started).unwrap().0);
}

#[test]
fn up_status_down() {
    let repo = Repo::own();
    assert_eq!(repo.ok("local status").stdout, "local: down\n");
    let up = repo.ok("local up").stdout;
    let kubeconfig = kubeconfig(&up);
    assert_eq!(repo.ok("local status").stdout, up);
    assert_eq!(repo.ok("local up").stdout, up, "a second `up` keeps it");
    assert!(
        kubeconfig.starts_with("/dev/shm"),
        "{}",
        kubeconfig.display()
    );
    assert!(!repo.home().join(".kube").exists() && !repo.home().join(".kwok").exists());
    let nodes = kubectl(&kubeconfig, "get nodes");
    assert_eq!(nodes.matches(" Ready ").count(), 2, "{nodes}");
    let running = processes(&kubeconfig);
    assert_eq!(running.len(), 5, "{running:?}");
    only_on_loopback(&running);

    // A context that is set in a shell isn't that of the next one.
    let ran = repo
        .ok("use-cluster-credentials local kubectl config set-context --current --namespace demo");
    assert!(ran.stdout.ends_with(" modified.\n"), "{}", ran.stdout);
    assert!(
        !fs::read_to_string(&kubeconfig)
            .unwrap()
            .contains("namespace: demo")
    );

    // Another checkout has a cluster of its own, whatever this one does.
    let other = Repo::own();
    let other_kubeconfig = crate::repo::kubeconfig(&other.ok("local up").stdout);
    assert_ne!(kubeconfig, other_kubeconfig);
    assert_eq!(repo.ok("local down").stdout, "local: down\n");
    assert_eq!(processes(&kubeconfig), []);
    assert!(!kubeconfig.parent().unwrap().exists());
    assert_eq!(kubectl(&other_kubeconfig, "get --raw /readyz"), "ok");
    assert_eq!(
        repo.ok("local down").stdout,
        "local: down\n",
        "a second `down` is fine"
    );
}

/// By the kernel's own list of listening sockets.
fn only_on_loopback(running: &[(u32, String)]) {
    let mut sockets = 0;
    for (pid, command) in running {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let Ok(link) = fs::read_link(entry.unwrap().path()) else {
                continue;
            };
            let Some(inode) = link
                .to_str()
                .unwrap()
                .strip_prefix("socket:[")
                .and_then(|it| it.strip_suffix(']'))
            else {
                continue;
            };
            for table in ["tcp", "tcp6"] {
                let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
                for line in table.lines() {
                    let words: Vec<_> = line.split_whitespace().collect();
                    // Column 3 is the state, where 0A is listening; 10 is the socket's number.
                    if words.get(9) == Some(&inode) && words[3] == "0A" {
                        sockets += 1;
                        assert!(
                            words[1].starts_with("0100007F:"),
                            "{command} listens on {}",
                            words[1]
                        );
                    }
                }
            }
        }
    }
    assert!(sockets >= 5, "only {sockets} listening sockets were found");
}

#[test]
fn a_dead_or_half_made_one_is_made_again() {
    let repo = Repo::own();
    let kubeconfig = kubeconfig(&repo.ok("local up").stdout);
    for component in ["etcd", "kube-scheduler"] {
        kill(component, &kubeconfig);
        let status = repo.ok("local status").stdout;
        assert_eq!(
            status,
            format!("local: broken, `{component}` is not running\n")
        );
        let ran = repo.ok("deploy local demo");
        assert!(ran.stderr.contains("making it again"), "{}", ran.stderr);
        assert_eq!(processes(&kubeconfig).len(), 5);
    }
    repo.ok("local down");

    let mut child = repo.start("local up");
    wait_until("an etcd", || {
        processes(&kubeconfig)
            .iter()
            .any(|(_, it)| it.contains("bin/etcd"))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        repo.ok("local status").stdout,
        "local: broken, it was never finished\n"
    );
    repo.ok("deploy local demo");
    assert_eq!(processes(&kubeconfig).len(), 5);
}

#[test]
fn two_at_once() {
    let repo = Repo::own();
    let (first, second) = (repo.start("local up"), repo.start("local up"));
    for child in [first, second] {
        let ran = crate::repo::Ran::from(child);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(processes(&kubeconfig(&ran.stdout)).len(), 5);
    }
}

#[test]
fn volumes_bind_and_go() {
    let cluster = crate::repo::Shared::cluster();
    cluster.kubectl("create namespace volumes");
    cluster.kubectl_apply(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: home, namespace: volumes}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
",
    );
    cluster.kubectl("wait pvc/home -n volumes --for=jsonpath={.status.phase}=Bound --timeout=60s");
    let volumes = || cluster.kubectl("get pv -o jsonpath={.items[*].spec.claimRef.namespace}");
    assert!(volumes().contains("volumes"));
    cluster.kubectl("delete pvc home -n volumes --timeout=60s");
    wait_until("the volume's end", || !volumes().contains("volumes"));
}
