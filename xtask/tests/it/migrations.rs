//! Rollbacks across a migration of a hub's database.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime},
};

use crate::records::Hub;

const TEMPLATE: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: hub
  labels:
    component: hub
    app.kubernetes.io/component: hub
    chart: {{ .Chart.Name }}-{{ .Chart.Version }}
    helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {component: hub}}
  template:
    metadata: {labels: {component: hub, fate: {{ .Values.fate | quote }}}}
    spec:
      containers:
        - name: hub
          image: {{ .Values.image }}
          {{- if eq .Values.hub.db.type "sqlite-pvc" }}
          volumeMounts: [{name: pvc, mountPath: /srv/jupyterhub}]
      volumes: [{name: pvc, persistentVolumeClaim: {claimName: hub-db-dir}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: hub-db-dir}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
          {{- end }}
"#;

/// The schemas of JupyterHub 5 and 6.
const FIVE: &str = "4621fec11365";
const SIX: &str = "f460b0348206";

/// A hub whose chart depends on one that is named like Zero to JupyterHub.
struct Basin(Hub);

impl Basin {
    fn new(name: &'static str) -> Basin {
        let hub = Hub::new(name);
        let repo = &hub.repo;
        repo.edit(
            "config/clusters/lake/cluster.yaml",
            "helm_chart: pond",
            "helm_chart: basin",
        );
        repo.write("helm-charts/jupyterhub/templates/hub.yaml", TEMPLATE);
        repo.write(
            "helm-charts/jupyterhub/values.yaml",
            "fate: \"\"\nimage: hub:1\nhub: {db: {type: sqlite-pvc}}\n",
        );
        Basin(hub)
    }

    /// Has this version of Zero to JupyterHub from now on, with these values.
    fn has(&self, version: &str, values: &str) {
        let chart = format!("apiVersion: v2\nname: jupyterhub\nversion: {version}\n");
        let repo = &self.0.repo;
        repo.write("helm-charts/jupyterhub/Chart.yaml", &chart);
        let parent = format!(
            "apiVersion: v2\nname: basin\nversion: 0.1.0\ndependencies:\n\
             - {{name: jupyterhub, version: {version}, repository: \"file://../jupyterhub\"}}\n"
        );
        repo.write("helm-charts/basin/Chart.yaml", &parent);
        self.0.write(&format!("jupyterhub: {{{values}}}\n"));
    }

    fn deploy(&self, version: &str, values: &str) {
        self.has(version, values);
        self.0.repo.ok("deploy lake --skip-hub-health-check");
    }

    fn fails_to_deploy(&self, version: &str, values: &str) -> String {
        self.has(version, values);
        self.0
            .repo
            .fails("deploy lake --skip-hub-health-check --rollback-on-failure")
    }

    fn rolls_back(&self, options: &str) {
        let name = self.0.name;
        self.0
            .repo
            .ok(&format!("rollback lake {name} --yes {options}"));
    }

    fn refuses(&self) -> String {
        self.0
            .repo
            .fails(&format!("rollback lake {} --yes", self.0.name))
    }

    /// The number of the newest revision.
    fn newest(&self) -> usize {
        self.0.cluster.history(self.0.name).lines().count() - 1
    }

    /// The hub's folder, in which its pods find the database from now on.
    fn folder(&self) -> PathBuf {
        let root = self.0.repo.home().join("volume");
        let folder = root.join("srv/jupyterhub");
        if folder.exists() {
            return folder;
        }
        fs::create_dir_all(&folder).unwrap();
        let module = format!(
            "import os\nchdir = os.chdir\nos.chdir = lambda it: chdir('{}' + it)\n",
            root.display()
        );
        fs::write(root.join("sitecustomize.py"), module).unwrap();
        self.0.cluster.kubectl_apply(&format!(
            "apiVersion: kwok.x-k8s.io/v1alpha1\nkind: ClusterExec\nmetadata: {{name: {name}}}\nspec:\n  \
             selector: {{matchNamespaces: [{name}]}}\n  \
             execs: [{{local: {{envs: [{{name: PYTHONPATH, value: {root}}}]}}}}]\n",
            name = self.0.name,
            root = root.display()
        ));
        folder
    }

    /// Makes a file in the hub's folder a database of this schema, as old as that.
    fn has_database(&self, name: &str, schema: &str, age: Duration) {
        let file = self.folder().join(name);
        let script = "import sqlite3, sys\n\
                      database = sqlite3.connect(sys.argv[1])\n\
                      database.execute('drop table if exists alembic_version')\n\
                      database.execute('create table alembic_version (version_num)')\n\
                      database.execute('insert into alembic_version values (?)', sys.argv[2:])\n\
                      database.commit()\n";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(&file).arg(schema);
        assert!(command.status().unwrap().success());
        let opened = fs::OpenOptions::new().write(true).open(file).unwrap();
        opened.set_modified(SystemTime::now() - age).unwrap();
    }
}

impl Drop for Basin {
    fn drop(&mut self) {
        let name = self.0.name;
        self.0
            .cluster
            .kubectl(&format!("delete clusterexec {name} --ignore-not-found"));
    }
}

const NOW: Duration = Duration::ZERO;
const LONG_AGO: Duration = Duration::from_secs(1_000_000);

#[test]
fn an_older_jupyterhub_does_not_get_a_migrated_database() {
    let hub = Basin::new("migrated");
    hub.deploy("4.4.0", "");
    hub.deploy("5.0.0", "");
    let said = hub.refuses();
    for part in [
        "revision 1 has JupyterHub 5 (jupyterhub-4.4.0), and the hub has 6 now (jupyterhub-5.0.0): ",
        "its database could not be looked at (",
        "`jupyterhub.sqlite.YYYY-MM-DD-HHMMSS` on the claim `hub-db-dir`",
        "hint: README.md tells how to put it back; `rollback --force` returns to revision 1 then",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    hub.has_database("jupyterhub.sqlite", SIX, NOW);
    hub.has_database("jupyterhub.sqlite.2001-02-03-040506", FIVE, LONG_AGO);
    let said = hub.refuses();
    assert!(
        said.contains("there is no backup of the one of before"),
        "{said}"
    );
    hub.has_database("jupyterhub.sqlite.2026-09-11-101112", FIVE, NOW);
    hub.has_database("jupyterhub.sqlite.2026-09-11-101314", SIX, NOW);
    let said = hub.refuses();
    assert!(
        said.contains(
            "`jupyterhub.sqlite.2026-09-11-101112`, in the same folder of the claim `hub-db-dir`"
        ),
        "{said}"
    );
    assert_eq!(hub.newest(), 2);
    // As README.md has it.
    hub.0
        .cluster
        .kubectl("scale deployment/hub --replicas 0 --namespace migrated");
    hub.rolls_back("--force");
    assert_eq!(hub.newest(), 3);
    let replicas = "get deployment/hub -n migrated -o jsonpath={.spec.replicas}";
    assert_eq!(hub.0.cluster.kubectl(replicas), "1");
}

#[test]
fn a_failed_upgrade_that_migrated_stays() {
    let hub = Basin::new("stays");
    hub.deploy("3.3.8", "");
    let said = hub.fails_to_deploy("4.0.0", "fate: crash");
    assert!(
        said.contains(
            "it was not rolled back to revision 1: revision 1 has JupyterHub 4 (jupyterhub-3.3.8)"
        ),
        "{said}"
    );
    assert_eq!(hub.newest(), 2);
}

#[test]
fn a_database_that_was_never_migrated_is_no_obstacle() {
    let hub = Basin::new("unmigrated");
    hub.deploy("4.4.0", "");
    let said = hub.fails_to_deploy("5.0.0", "fate: pull");
    assert!(said.contains("rolled back to revision 1, which"), "{said}");
    hub.has_database("jupyterhub.sqlite", FIVE, NOW);
    let said = hub.fails_to_deploy("5.0.0", "fate: crash");
    assert!(said.contains("rolled back to revision 3, which"), "{said}");
}

#[test]
fn minor_versions_have_one_schema() {
    let hub = Basin::new("minor");
    hub.deploy("4.0.0", "");
    hub.deploy("4.4.0", "image: hub:2");
    hub.rolls_back("");
}

/// Its JupyterHub may be newer than that of the chart.
#[test]
fn a_hub_with_an_image_of_its_own() {
    let hub = Basin::new("own-image");
    hub.deploy("4.4.0", "image: own:5");
    hub.has_database("jupyterhub.sqlite", SIX, NOW);
    hub.has_database("jupyterhub.sqlite.2026-09-11-101112", FIVE, LONG_AGO);
    hub.deploy("4.4.0", "image: own:6");
    hub.rolls_back("");
    hub.has_database("jupyterhub.sqlite.2026-09-11-101112", FIVE, NOW);
    hub.deploy("4.4.0", "image: own:7");
    hub.has_database("jupyterhub.sqlite.2026-09-11-101112", FIVE, NOW);
    let said = hub.refuses();
    assert!(said.contains("its database is for JupyterHub 6"), "{said}");
}

#[test]
fn other_databases() {
    let hub = Basin::new("other-databases");
    hub.deploy("4.4.0", "hub: {db: {type: postgres}}");
    hub.deploy("5.0.0", "hub: {db: {type: postgres}}");
    let said = hub.refuses();
    assert!(
        said.contains("JupyterHub makes no backup of it")
            && said.contains("hint: put back your own backup"),
        "{said}"
    );
    hub.deploy("5.0.0", "hub: {db: {type: sqlite-memory}}");
    hub.rolls_back("1");
}
