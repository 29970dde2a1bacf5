//! `deploy --skip-unchanged` runs no helm and decrypts nothing for a hub whose helm would be given the same again.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::{Arc, Mutex, Weak},
};

use crate::repo::{Key, Repo, Shared, assert_succeeded, shared, tool, tool_path};

const COMMAND: &str = "deploy lake --skip-unchanged --force-conflicts";

/// A hub of a cluster in which nothing else makes new kinds of objects: charts are told which ones there are.
struct Hub {
    cluster: Arc<Shared>,
    repo: Repo,
    name: &'static str,
    key: Key,
}

impl Hub {
    fn new(name: &'static str) -> Hub {
        static UP: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
        let cluster = shared(&UP, Shared::start);
        let (repo, key) = Repo::with_secret_file(&cluster, name);
        let hub = Hub {
            cluster,
            repo,
            name,
            key,
        };
        hub.write("note: hello\n");
        hub.encrypt("token: the-first-albatross\n");
        hub
    }

    fn deployed(name: &'static str) -> Hub {
        let hub = Hub::new(name);
        hub.repo.ok("deploy lake");
        hub
    }

    fn write(&self, values: &str) {
        let path = format!("config/clusters/lake/{}.values.yaml", self.name);
        self.repo.write(&path, values);
    }

    fn encrypt(&self, values: &str) {
        let path = format!("config/clusters/lake/enc-{}.secret.values.yaml", self.name);
        self.repo.write(&path, values);
        self.repo.encrypt(&path, &self.key);
    }

    /// From now on, helm tells its version and no more, and sops does nothing.
    fn break_programs(&mut self) {
        let helm = tool_path("helm").display().to_string();
        let script = format!("case $1 in version) exec {helm} \"$@\" ;; esac\nexit 7");
        self.repo.script("helm", &script);
        let sops = tool_path("sops").display().to_string();
        let script = format!("case $1 in --version) exec {sops} \"$@\" ;; esac\nexit 7");
        self.repo.script("sops", &script);
    }

    fn mend_programs(&mut self) {
        self.repo.env.retain(|(name, _)| name != "PATH");
    }

    fn is_unchanged_at(&self, revision: u32) {
        self.is("unchanged", revision);
    }

    fn is_deployed_as(&self, revision: u32) {
        self.is("deployed ", revision);
    }

    #[track_caller]
    fn is(&self, state: &str, revision: u32) {
        let ran = self.repo.ok(COMMAND);
        let line = format!("{:<20} {state} revision {revision},", self.name);
        assert!(ran.stdout.starts_with(&line), "{line}: {}", ran.stdout);
    }

    fn kubectl(&self, args: &str) -> String {
        self.cluster.kubectl(&format!("{args} -n {}", self.name))
    }
}

/// Not even on another machine, whose cache lies elsewhere.
#[test]
fn nothing_is_rendered_or_decrypted() {
    let mut hub = Hub::deployed("same");
    hub.break_programs();
    let cache = hub.repo.home().join("another-cache");
    fs::create_dir_all(cache.join("xtask")).unwrap();
    symlink(
        hub.repo.cache().join("xtask/tools"),
        cache.join("xtask/tools"),
    )
    .unwrap();
    let cache = cache.display().to_string();
    hub.repo.env.push(("XDG_CACHE_HOME".into(), cache));
    hub.is_unchanged_at(1);
    let ran = hub.repo.ok(&format!("{COMMAND} --diff --yes"));
    assert!(
        ran.stderr.contains("same: nothing would change"),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_is_edited_is_deployed() {
    let hub = Hub::deployed("edited");
    hub.write("note: another\n");
    hub.is_deployed_as(2);
    hub.encrypt("token: the-second-albatross\n");
    hub.is_deployed_as(3);
    hub.repo.edit(
        "helm-charts/pond/templates/all.yaml",
        "image: pond\n",
        "image: pool\n",
    );
    hub.is_deployed_as(4);
    hub.is_unchanged_at(4);
}

#[test]
fn what_a_file_in_jsonnet_imports_is_deployed() {
    let mut hub = Hub::new("imported");
    hub.repo.write(
        "helm-charts/pond/values.jsonnet",
        "{fate: import 'greeting.libsonnet'}",
    );
    hub.repo
        .write("helm-charts/pond/greeting.libsonnet", "'morning'");
    hub.repo.ok("deploy lake");
    hub.repo
        .write("helm-charts/pond/greeting.libsonnet", "'night'");
    hub.is_deployed_as(2);
    hub.break_programs();
    hub.is_unchanged_at(2);
}

/// That domain is not decrypted either, and what is imported for it alone is not known without.
#[test]
fn values_in_jsonnet_for_an_encrypted_domain() {
    let mut hub = Hub::new("hidden");
    let repo = &hub.repo;
    let domain = "config/clusters/lake/domain.secret.yaml";
    let encrypt = |text: &str| {
        repo.write(domain, text);
        repo.encrypt(domain, &hub.key);
    };
    encrypt("domain: one.example.net\n");
    let own = "domain: hidden.example.org";
    let with_file = format!("{own}\n  domain_override_file: domain.secret.yaml");
    repo.edit("config/clusters/lake/cluster.yaml", own, &with_file);
    let chart = "helm-charts/pond/values.jsonnet";
    repo.write(chart, "{fate: std.extVar('XTASK_HUB_DOMAIN')}");
    repo.ok("deploy lake");
    encrypt("domain: two.example.net\n");
    hub.is_deployed_as(2);
    hub.break_programs();
    hub.is_unchanged_at(2);
    hub.mend_programs();

    let import = "{fate: if std.endsWith(std.extVar('XTASK_HUB_DOMAIN'), 'net') then import 'net.libsonnet' else ''}";
    hub.repo.write(chart, import);
    hub.repo
        .write("helm-charts/pond/net.libsonnet", "'morning'");
    hub.is_deployed_as(3);
    hub.repo.write("helm-charts/pond/net.libsonnet", "'night'");
    hub.is_deployed_as(4);
}

#[test]
fn another_chart_override_is_deployed() {
    let hub = Hub::new("overridden");
    let repo = &hub.repo;
    let yaml = "config/clusters/lake/cluster.yaml";
    repo.edit(
        yaml,
        "helm_chart: pond",
        "helm_chart: pond\n  chart_override: newer.yaml",
    );
    let own = repo.read("helm-charts/pond/Chart.yaml");
    let newer = "config/clusters/lake/newer.yaml";
    repo.write(newer, &format!("{own}appVersion: '1'\n"));
    let template = "helm-charts/pond/templates/all.yaml";
    repo.edit(
        template,
        "image: pond\n",
        "image: pond:{{ .Chart.AppVersion }}\n",
    );
    repo.ok("deploy lake");
    repo.write(newer, &format!("{own}appVersion: '2'\n"));
    hub.is_deployed_as(2);
    hub.is_unchanged_at(2);
}

/// What was deleted, fields that hold one value, and what is replaced as a whole, so that nobody may add to it.
#[test]
fn what_somebody_has_changed_is_deployed() {
    let mut hub = Hub::new("by-hand");
    hub.repo.write(
        "helm-charts/pond/templates/policy.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: pond}\nspec:\n  \
         podSelector: {}\n  ingress: [{from: [{podSelector: {}}]}]\n",
    );
    hub.repo.ok("deploy lake");
    let port = r#"[{"op":"add","path":"/spec/ingress/0/ports","value":[{"port":80}]}]"#;
    let label = r#"[{"op":"add","path":"/spec/podSelector/matchLabels","value":{"app":"pond"}}]"#;
    let patch = |patch: &str| format!("patch networkpolicy pond --type json -p {patch}");
    let changes = [
        "delete deployment pond".to_owned(),
        "delete configmap pond".to_owned(),
        "set image deployment/pond pond=other".to_owned(),
        "label configmap pond app.kubernetes.io/managed-by-".to_owned(),
        patch(port),
        patch(label),
    ];
    for (change, revision) in changes.iter().zip(2..) {
        hub.kubectl(change);
        hub.is_deployed_as(revision);
    }
    hub.break_programs();
    hub.is_unchanged_at(7);
}

#[test]
fn what_a_rollback_made_is_not_what_was_given() {
    let hub = Hub::deployed("returned");
    hub.write("note: newer\n");
    hub.is_deployed_as(2);
    hub.repo.ok("rollback lake returned --yes");
    hub.is_deployed_as(4);
}

#[test]
fn what_the_helm_of_others_made_is_not_what_was_given() {
    let hub = Hub::deployed("theirs");
    let charts = fs::read_dir(hub.repo.cache().join("xtask/charts")).unwrap();
    let mut charts = charts.map(|it| it.unwrap().path());
    let is_pond = |name: &str| name.starts_with("pond-");
    let pond = charts.find(|it| is_pond(&it.file_name().unwrap().to_string_lossy()));
    let mut helm = tool("helm");
    helm.args(["upgrade", "theirs", "--namespace", "theirs"])
        .arg(pond.unwrap())
        .args(["--reuse-values", "--set", "note=theirs"])
        .env("KUBECONFIG", &hub.cluster.kubeconfig);
    assert_succeeded(&helm.output().unwrap());
    hub.is_deployed_as(3);
}

#[test]
fn what_was_not_ready_is_deployed_again() {
    let hub = Hub::new("unready");
    hub.write("fate: pull\n");
    hub.repo.fails("deploy lake");
    let said = hub.repo.fails(COMMAND);
    assert!(said.contains("revision 2 did not become ready"), "{said}");
}

/// As those that a program before this one has made. helm is asked once.
#[test]
fn a_revision_without_a_digest() {
    let mut hub = Hub::deployed("before");
    hub.kubectl("label secret sh.helm.release.v1.before.v1 given-");
    hub.is_unchanged_at(1);
    hub.break_programs();
    hub.is_unchanged_at(1);
}

/// The same values are encrypted in another way.
#[test]
fn what_helm_makes_the_same_of_is_unchanged() {
    let mut hub = Hub::deployed("again");
    hub.encrypt("token: the-first-albatross\n");
    hub.is_unchanged_at(1);
    hub.break_programs();
    hub.is_unchanged_at(1);
}

#[test]
fn what_a_chart_makes_at_random_is_not_given() {
    let hub = Hub::new("random");
    hub.repo.write(
        "helm-charts/pond/templates/random.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: random}\ndata: {text: {{ randAlphaNum 10 }}}\n",
    );
    hub.repo.ok("deploy lake");
    hub.is_unchanged_at(1);
}

#[test]
fn what_another_cluster_has_deployed_is_refused() {
    let hub = Hub::deployed("moved");
    let clusters = hub.repo.root.join("config/clusters");
    fs::rename(clusters.join("lake"), clusters.join("sea")).unwrap();
    let yaml = "config/clusters/sea/cluster.yaml";
    hub.repo.edit(yaml, "name: lake\n", "name: sea\n");
    let said = hub.repo.fails("deploy sea --skip-unchanged");
    assert!(said.contains("hint: `--take-over lake`"), "{said}");
}
