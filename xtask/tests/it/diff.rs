//! What a deploy would change, in words that show no secret.

use crate::repo::{Key, Ran, Repo, Shared};

fn diff(repo: &Repo, hub: &str) -> Ran {
    repo.run(&format!(
        "deploy lake {hub} --diff --dry-run --detailed-exitcode"
    ))
}

/// A repository with a hub that has values in a file that is encrypted, and in one that isn't.
struct Hub {
    name: &'static str,
    repo: Repo,
    key: Key,
}

impl Hub {
    fn new(cluster: &Shared, name: &'static str) -> Hub {
        let (repo, key) = Repo::with_secret_file(cluster, name);
        let hub = Hub { name, repo, key };
        hub.plain("note: hello\ndepth: 7\njob: fine\n");
        hub.secret("token: the-first-albatross\ngreeting: the-first-petrel\n");
        hub
    }

    fn deployed(cluster: &Shared, name: &'static str) -> Hub {
        let hub = Hub::new(cluster, name);
        hub.repo.ok("deploy lake");
        hub
    }

    fn plain(&self, values: &str) {
        let file = format!("config/clusters/lake/{}.values.yaml", self.name);
        self.repo.write(&file, values);
    }

    fn secret(&self, values: &str) {
        let file = format!("config/clusters/lake/enc-{}.secret.values.yaml", self.name);
        self.repo.write(&file, values);
        self.repo.encrypt(&file, &self.key);
    }
}

#[test]
fn shows_all_of_a_new_hub_and_then_nothing() {
    let cluster = Shared::cluster();
    let Hub { repo, .. } = Hub::new(&cluster, "shown");
    let ran = diff(&repo, "shown");
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    for part in [
        "# shown\n--- nothing\n+++ secret/pond\n",
        "\n+  note: hello\n",
        "\n+  token: '***'\n",
    ] {
        assert!(ran.stdout.contains(part), "no {part:?} in {}", ran.stdout);
    }
    assert!(
        !cluster
            .kubectl("get namespaces -o name")
            .contains("namespace/shown\n")
    );
    repo.ok("deploy lake");
    let ran = diff(&repo, "shown");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), ""),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("shown: nothing would change\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn shows_what_differs_and_no_secret() {
    let cluster = Shared::cluster();
    let hub = Hub::deployed(&cluster, "other");
    hub.plain("note: goodbye\ndepth: 7\n");
    hub.secret("token: the-second-albatross\ngreeting: the-second-petrel\n");
    cluster.kubectl("set image deployment/pond pond=by-hand -n other");
    let applied = "kubectl.kubernetes.io/last-applied-configuration=dGhlLWZpcnN0LWFsYmF0cm9zcw==";
    cluster.kubectl(&format!("annotate secret pond -n other {applied}"));
    let ran = diff(&hub.repo, "other");
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    for part in [
        "--- configmap/pond\n+++ configmap/pond\n",
        "\n-  note: hello\n",
        "\n+  note: goodbye\n",
        "\n-  greeting: '*** (old)'\n",
        "\n+  greeting: '*** (new)'\n",
        "\n-  token: '*** (old)'\n",
        "\n+  token: '*** (new)'\n",
        // What the Secret holds as YAML.
        "\n     depth: 7\n",
        "\n-    token: '*** (old)'\n",
        "\n+    note: goodbye\n",
        "--- job/once\n+++ nothing\n",
        "\n-      - image: by-hand\n",
        "\n+      - image: pond\n",
    ] {
        assert!(ran.stdout.contains(part), "no {part:?} in {}", ran.stdout);
    }
    let all = ran.stdout + &ran.stderr;
    assert!(
        !all.contains("albatross") && !all.contains("petrel"),
        "{all}"
    );
    // Base64 of "albatross" and "petrel" at all alignments.
    for part in [
        "dGhlLWZpcnN0",
        "bGJhdHJvc3",
        "YWxiYXRyb3Nz",
        "hbGJhdHJvc3",
        "cGV0cmVs",
        "BldHJlb",
        "wZXRyZW",
    ] {
        assert!(!all.contains(part), "{part} in {all}");
    }
}

#[test]
fn a_person_confirms_what_differs() {
    let cluster = Shared::cluster();
    let hub = Hub::deployed(&cluster, "asked");
    hub.plain("note: goodbye\ndepth: 7\n");
    let repo = &hub.repo;
    let note = || cluster.kubectl("get configmap pond -n asked -o jsonpath={.data.note}");
    let said = repo.fails("deploy lake asked --diff --force-conflicts");
    assert!(
        said.contains("Deploy 1 hub of `lake`: cannot ask without a terminal; pass `--yes`"),
        "{said}"
    );
    assert_eq!(note(), "hello");
    let ran = repo.ok("deploy lake asked --diff --yes --force-conflicts");
    assert!(
        ran.stdout.contains("\n+  note: goodbye\n")
            && ran.stdout.contains("asked                deployed")
    );
    assert_eq!(note(), "goodbye");
    assert_eq!(repo.run("deploy lake --detailed-exitcode").code, Some(2));
}

/// Until somebody changes it.
#[test]
fn what_is_unchanged_can_be_left_out() {
    let cluster = Shared::cluster();
    let hub = Hub::deployed(&cluster, "equal");
    hub.plain("note: goodbye\ndepth: 7\n");
    let repo = &hub.repo;
    repo.ok("deploy lake");
    let deploy = || {
        repo.ok("deploy lake --skip-unchanged --force-conflicts")
            .stdout
    };
    let revision = |printed: &str| {
        printed
            .split_whitespace()
            .nth(3)
            .unwrap()
            .trim_end_matches(',')
            .to_owned()
    };
    let first = deploy();
    assert!(
        first.starts_with("equal                unchanged revision 2,"),
        "{first}"
    );
    cluster.kubectl("set image deployment/pond pond=by-hand -n equal");
    assert_eq!(revision(&deploy()), "3");
    assert_eq!(revision(&deploy()), "3");
    hub.plain("note: goodbye\ndepth: 7\nhook: true\n");
    let printed = repo.run("deploy lake --skip-unchanged --timeout 3s");
    assert!(
        printed.stderr.contains("`equal` failed"),
        "{}",
        printed.stderr
    );
    hub.plain("note: goodbye\ndepth: 7\n");
    assert!(deploy().contains("equal                deployed"));
}

/// The API server quotes the whole pod template when it refuses it.
#[test]
fn a_failed_rollback_shows_no_secret_of_an_earlier_revision() {
    let cluster = Shared::cluster();
    let hub = Hub::new(&cluster, "returned");
    hub.repo.edit(
        "helm-charts/pond/templates/all.yaml",
        "      labels: {fate: {{ .Values.job | quote }}}\n",
        "      labels: {fate: {{ .Values.job | quote }}}\n      annotations: {token: {{ .Values.token | quote }}}\n",
    );
    hub.repo.ok("deploy lake");
    hub.repo.ok("deploy lake");
    cluster.kubectl("delete job once -n returned");
    cluster.kubectl_apply(
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: once\n  namespace: returned\n  \
         labels: {app.kubernetes.io/managed-by: Helm}\n  annotations: {meta.helm.sh/release-name: returned, \
         meta.helm.sh/release-namespace: returned}\nspec:\n  backoffLimit: 0\n  template:\n    spec:\n      \
         restartPolicy: Never\n      containers: [{name: pond, image: pond}]\n",
    );
    hub.secret("token: the-second-albatross\n");
    let said = hub.repo.fails("rollback lake returned 1 --yes");
    assert!(
        said.contains("Invalid value") && said.contains("***"),
        "{said}"
    );
    assert!(!said.contains("albatross"), "{said}");
}
