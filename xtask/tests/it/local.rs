//! The rehearsal cluster itself.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    thread,
    time::{Duration, Instant},
};

use crate::repo::{
    Repo, Shared, command_lines, kill_9, kubeconfig, kubectl, kubectl_apply, shared, tool_path,
    wait_until,
};

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

/// As it does if the API server takes too long on a busy machine.
#[test]
fn a_controller_manager_that_gave_up_is_started_again() {
    let mut repo = Repo::own();
    let real = tool_path("kube-controller-manager");
    let real = real.display();
    repo.script(
        "kube-controller-manager",
        &format!(
            "[ \"$*\" = --version ] && exec {real} --version\n\
             mkdir \"$HOME/gave-up\" 2> /dev/null && exit 1\n\
             exec bash -c 'exec -a \"$0\" {real} \"$@\"' \"$0\" \"$@\""
        ),
    );
    repo.local = true;
    let kubeconfig = kubeconfig(&repo.ok("local up").stdout);
    assert!(repo.home().join("gave-up").is_dir());
    assert_eq!(processes(&kubeconfig).len(), 5);
    kubectl(&kubeconfig, "get serviceaccount default");
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
    let cluster = Shared::cluster();
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

/// A claim that is bound to a volume by its name may be there before it.
#[test]
fn static_volumes_bind_at_once() {
    let cluster = Shared::cluster();
    cluster.kubectl("create namespace static");
    for name in ["first", "second", "third"] {
        cluster.kubectl_apply(&format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}, namespace: static}}, \
             spec: {{accessModes: [ReadWriteMany], storageClassName: '', volumeName: static-{name}, \
             resources: {{requests: {{storage: 1Gi}}}}}}}}"
        ));
        thread::sleep(Duration::from_millis(500));
        cluster.kubectl_apply(&format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: static-{name}}}, \
             spec: {{accessModes: [ReadWriteMany], capacity: {{storage: 1Gi}}, nfs: {{server: nfs, path: /}}}}}}"
        ));
        let started = Instant::now();
        let bound = "--for=jsonpath={.status.phase}=Bound --timeout=60s";
        cluster.kubectl(&format!("wait pvc/{name} -n static {bound}"));
        assert!(
            started.elapsed() < Duration::from_secs(8),
            "{:?}",
            started.elapsed()
        );
    }
    cluster.kubectl("delete namespace static --wait=false");
}

/// A rehearsal cluster of its own, with hubs that ask for room.
struct Room {
    repo: Repo,
    kubeconfig: PathBuf,
}

fn room() -> Arc<Room> {
    static UP: Mutex<Weak<Room>> = Mutex::new(Weak::new());
    shared(&UP, || {
        let mut repo = Repo::new();
        repo.local = true;
        let mut yaml = "name: lake\nprovider: local\nhubs:\n".to_owned();
        for hub in ["east", "west", "moving", "profiles", "classes"] {
            yaml += &format!(
                "- name: {hub}\n  domain: {hub}.example.org\n  helm_chart: pond\n  \
                 helm_chart_values_files: [{hub}.values.yaml]\n"
            );
        }
        repo.write("config/clusters/lake/cluster.yaml", &yaml);
        fs::remove_dir_all(repo.root.join("config/clusters/river")).unwrap();
        repo.edit(
            "helm-charts/pond/values.schema.yaml",
            "additionalProperties: false",
            "",
        );
        repo.write(
            "helm-charts/pond/templates/more.yaml",
            "{{ with .Values.more }}{{ toYaml . }}{{ end }}\n",
        );
        repo.write(
            "helm-charts/pond/templates/hub.yaml",
            "{apiVersion: v1, kind: Secret, metadata: {name: hub}, \
             data: {values.yaml: {{ .Values | toYaml | b64enc }}}}\n",
        );
        let kubeconfig = kubeconfig(&repo.ok("local up").stdout);
        Room { repo, kubeconfig }
    })
}

impl Room {
    fn deploy(&self, hub: &str, values: &str) {
        self.repo
            .write(&format!("config/clusters/lake/{hub}.values.yaml"), values);
        self.repo.ok(&format!("deploy lake {hub} --timeout 40s"));
    }

    /// The names of the nodes with this label.
    fn nodes(&self, label: &str) -> String {
        kubectl(&self.kubeconfig, &format!("get nodes -o name -l {label}"))
    }
}

/// Two values of one label are two nodes.
#[test]
fn hubs_find_the_nodes_that_they_select() {
    let room = room();
    room.deploy("east", "selector: {shore: east, kubernetes.io/os: linux}\n");
    room.deploy("west", "selector: {shore: west}\n");
    assert_ne!(room.nodes("shore=east"), room.nodes("shore=west"));
    // One more hub on a shore needs no more nodes.
    let before = room.nodes("shore");
    room.deploy("moving", "selector: {shore: east}\n");
    assert_eq!(room.nodes("shore"), before);
    room.deploy("moving", "selector: {shore: south}\n");
    assert_eq!(room.nodes("shore=south").lines().count(), 1);
}

/// In whichever way the values of z2jh and its profiles name them.
#[test]
fn users_find_the_nodes_of_their_profiles() {
    let room = room();
    room.deploy(
        "profiles",
        "singleuser:
  nodeSelector: {purpose: user}
  extraNodeAffinity:
    required:
    - matchExpressions: [{key: zone, operator: In, values: [a, b]}]
  profileList:
  - display_name: Large
    kubespawner_override:
      node_selector: {size: large}
      tolerations: [{key: gpu, operator: Equal, value: 'yes', effect: NoSchedule}]
",
    );
    let large = room.nodes("purpose=user,zone=a,size=large");
    assert_eq!(large.lines().count(), 1, "{large}");
    let taints = "{.spec.taints[*].key}";
    let taints = kubectl(
        &room.kubeconfig,
        &format!("get {} -o jsonpath={taints}", large.trim()),
    );
    assert!(taints.contains("gpu"), "{taints}");
    assert_eq!(
        room.nodes("purpose=user,zone=a,size!=large")
            .lines()
            .count(),
        1
    );
}

/// Those of claims, those of values, and those that a chart makes itself with a driver that is nowhere.
#[test]
fn claims_find_the_storage_classes_that_they_name() {
    let room = room();
    let claim = |name: &str, class: &str| {
        format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}, namespace: classes}}, \
             spec: {{accessModes: [ReadWriteOnce], storageClassName: {class}, \
             resources: {{requests: {{storage: 1Gi}}}}}}}}"
        )
    };
    let values = "singleuser: {storage: {dynamic: {storageClass: homes}}}\n";
    room.deploy(
        "classes",
        &format!("{values}more: {}\n", claim("hub", "fast")),
    );
    kubectl_apply(&room.kubeconfig, &claim("home", "homes"));
    let bound = |name: &str| {
        let bound = "--for=jsonpath={.status.phase}=Bound --timeout=30s";
        kubectl(
            &room.kubeconfig,
            &format!("wait pvc/{name} -n classes {bound}"),
        );
    };
    bound("hub");
    bound("home");
    // What was only named before is the chart's own now.
    let own = "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: homes}, provisioner: nowhere.example.org}";
    room.deploy("classes", &format!("{values}more: {own}\n"));
    kubectl_apply(&room.kubeconfig, &claim("next-home", "homes"));
    bound("next-home");
}
