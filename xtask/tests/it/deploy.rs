//! Hubs on the rehearsal cluster: what stands, what fails, and that one doesn't drag the others along.

use crate::{
    repo::{Key, Ran, Repo, Shared, kubeconfig, kubectl, tool_path, wait_until},
    upstream::free_address,
};

fn note(cluster: &Shared, hub: &str) -> String {
    cluster.kubectl(&format!(
        "get configmap pond -n {hub} -o jsonpath={{.data.note}}"
    ))
}

/// Lines of the summary as words.
fn summary(ran: &Ran) -> Vec<Vec<&str>> {
    ran.stdout
        .lines()
        .map(|it| it.split_whitespace().collect())
        .collect()
}

#[test]
fn installs_upgrades_and_leaves_alone() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["install-a", "install-b"]);
    repo.write(
        "config/clusters/lake/install-a.values.yaml",
        "note: first\n",
    );
    let ran = repo.ok("deploy lake");
    let lines = summary(&ran);
    assert_eq!(
        lines[0][..4],
        ["install-a", "deployed", "revision", "1,"],
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("https://install-b.example.org"),
        "{}",
        ran.stdout
    );
    assert_eq!(note(&cluster, "install-a"), "first");
    assert_eq!(
        cluster.kubectl("get configmap pond -n install-a -o jsonpath={.data.greeting}"),
        "hello"
    );
    let pods = || cluster.kubectl("get pods -n install-a -l app=pond -o name");
    let before = pods();

    repo.write(
        "config/clusters/lake/install-a.values.yaml",
        "note: second\ngreeting: own values win\n",
    );
    let ran = repo.ok("deploy lake install-a --skip-hub-health-check");
    assert_eq!(
        summary(&ran),
        [vec![
            "install-a",
            "deployed",
            "revision",
            "2,",
            "https://install-a.example.org,",
            summary(&ran)[0][5],
            "s"
        ]]
    );
    assert_eq!(note(&cluster, "install-a"), "second");
    assert_eq!(
        cluster.kubectl("get configmap pond -n install-a -o jsonpath={.data.greeting}"),
        "own values win"
    );
    let revisions = cluster.kubectl("get secrets -n install-b -l owner=helm -o name");
    assert_eq!(
        revisions.lines().count(),
        1,
        "a hub that wasn't named was deployed: {revisions}"
    );

    repo.ok("deploy lake");
    assert_eq!(
        pods(),
        before,
        "an upgrade that changes nothing has restarted pods"
    );
    assert!(
        !repo.home().join(".kube").exists(),
        "something was written to the person's ~/.kube"
    );
    let changed = std::fs::read_dir(repo.root.join("helm-charts/pond"))
        .unwrap()
        .count();
    assert_eq!(changed, 4, "something was written into the work tree");
}

#[test]
fn a_changed_dependency_on_disk_is_deployed() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["dependency"]);
    let kind = || cluster.kubectl("get configmap stone -n dependency -o jsonpath={.data.kind}");
    repo.ok("deploy lake");
    assert_eq!(kind(), "granite");
    repo.edit(
        "helm-charts/stone/templates/stone.yaml",
        "granite",
        "basalt",
    );
    repo.ok("deploy lake");
    assert_eq!(kind(), "basalt");
}

#[test]
fn values_that_are_gone_are_gone() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["emptied"]);
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "common.values.yaml, ",
        "",
    );
    repo.write(
        "config/clusters/lake/emptied.values.yaml",
        "note: not for long\n",
    );
    repo.ok("deploy lake");
    assert_eq!(note(&cluster, "emptied"), "not for long");
    repo.write(
        "config/clusters/lake/emptied.values.yaml",
        "# Nothing any more.\n",
    );
    repo.ok("deploy lake");
    assert_eq!(note(&cluster, "emptied"), "");
}

#[test]
fn one_broken_hub_does_not_stop_the_others() {
    let cluster = Shared::cluster();
    let hubs = ["template", "stuck", "undecrypted", "fine"];
    let mut repo = Repo::on(&cluster, &hubs);
    let (ours, theirs) = (Key::new(), Key::new());
    repo.has_key(&ours);
    let values = |hub: &str| format!("config/clusters/lake/{hub}.values.yaml");
    repo.write(&values("template"), "fail: because\n");
    repo.write(&values("stuck"), "fate: stuck\n");
    repo.write(&values("undecrypted"), "note: a secret\n");
    repo.encrypt(&values("undecrypted"), &theirs);
    repo.write(&values("fine"), "note: fine\n");
    repo.encrypt(&values("fine"), &ours);
    // Which wants one key for both.
    std::fs::remove_file(repo.root.join(".sops.yaml")).unwrap();
    let ran = repo.run("deploy lake --timeout 10s");
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    let states: Vec<_> = summary(&ran)
        .iter()
        .map(|it| (it[0].to_owned(), it[1].to_owned()))
        .collect();
    let state = |hub: &str, state: &str| (hub.to_owned(), state.to_owned());
    assert_eq!(
        states,
        [
            state("template", "failed"),
            state("stuck", "failed"),
            state("undecrypted", "failed"),
            state("fine", "deployed")
        ]
    );
    assert_eq!(note(&cluster, "fine"), "fine");
    for message in [
        "the pond is dry: because",
        "`deployment/pond` is not ready",
        "timed out",
        "cannot decrypt `config/clusters/lake/undecrypted.values.yaml`",
        "3 of 4 hubs of `lake` failed: `template`, `stuck`, `undecrypted`",
    ] {
        assert!(
            ran.stderr.contains(message),
            "no {message:?} in\n{}",
            ran.stderr
        );
    }

    repo.write(&values("stuck"), "{}\n");
    repo.ok("deploy lake stuck fine");
}

#[test]
fn encrypted_whatever_its_name_plain_whatever_the_folder() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["names"]);
    let key = Key::new();
    repo.has_key(&key);
    // The folder is called secret, the file isn't; the encrypted one isn't called secret at all.
    repo.write(
        "config/clusters/lake/secret/plain.values.yaml",
        "greeting: plain\n",
    );
    repo.write(
        "config/clusters/lake/hidden.json",
        "{\"note\": \"from JSON\"}\n",
    );
    repo.encrypt("config/clusters/lake/hidden.json", &key);
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "common.values.yaml, ",
        "secret/plain.values.yaml, hidden.json, ",
    );
    repo.ok("deploy lake");
    assert_eq!(note(&cluster, "names"), "from JSON");
    assert_eq!(
        cluster.kubectl("get configmap pond -n names -o jsonpath={.data.greeting}"),
        "plain"
    );
}

#[test]
fn a_missing_sops_is_named_before_anything_is_done() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["no-sops"]);
    repo.without_tools();
    repo.script(
        "helm",
        &format!("exec {} \"$@\"", tool_path("helm").display()),
    );
    repo.script(
        "kubectl",
        &format!("exec {} \"$@\"", tool_path("kubectl").display()),
    );
    let said = repo.fails("deploy lake");
    assert!(
        said.contains("`sops` >=3.11 <4.0") && said.contains("cargo xtask setup"),
        "{said}"
    );
    assert!(
        !cluster
            .kubectl("get namespaces -o name")
            .contains("no-sops")
    );
    repo.script("sops", "echo sops 3.7.1");
    let said = repo.fails("deploy lake");
    assert!(said.contains("bin/sops` is 3.7.1"), "{said}");
}

#[test]
fn a_cluster_that_does_not_answer() {
    let repo = Repo::new();
    let nobody = free_address();
    repo.write("config/clusters/lake/token", "abc");
    repo.write(
        "config/clusters/lake/kubeconfig.yaml",
        &format!(
            "apiVersion: v1
kind: Config
current-context: lake
contexts: [{{name: lake, context: {{cluster: lake, user: me}}}}]
clusters: [{{name: lake, cluster: {{server: 'https://{nobody}'}}}}]
users: [{{name: me, user: {{tokenFile: token}}}}]
"
        ),
    );
    let said = repo.fails("deploy lake");
    assert!(
        said.contains("cannot log in to `lake`: the cluster does not answer"),
        "{said}"
    );
    assert!(said.contains(&nobody), "{said}");
}

#[test]
fn an_api_server_that_dies_between_two_hubs() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["before", "after"]);
    let elsewhere = repo.cache().join("elsewhere.yaml");
    let nobody = free_address();
    // For the second hub the real helm finds an API server that is gone.
    repo.script(
        "helm",
        &format!(
                        "case \"$*\" in *\"--namespace after\"*) sed 's,server: .*,server: https://{nobody},' $KUBECONFIG > {0}; \
             export KUBECONFIG={0} ;; esac\nexec {1} \"$@\"",
            elsewhere.display(),
            tool_path("helm").display()
        ),
    );
    let ran = repo.run("deploy lake --jobs 1");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stdout.contains("before               deployed"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stderr.contains("`after` failed:") && ran.stderr.contains(&nobody),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_encrypted_kubeconfig() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["kubeconfig"]);
    let key = Key::new();
    repo.has_key(&key);
    repo.encrypt("config/clusters/lake/kubeconfig.yaml", &key);
    repo.env
        .push(("HELM_KUBECONTEXT".into(), "somewhere-else".into()));
    repo.env
        .push(("HELM_NAMESPACE".into(), "somewhere-else".into()));
    repo.ok("deploy lake");
    assert!(
        cluster
            .kubectl("get deployments -n kubeconfig -o name")
            .contains("pond")
    );

    let nowhere = "apiVersion: v1\nkind: Config\n";
    repo.write("config/clusters/lake/kubeconfig.yaml", nowhere);
    let said = repo.fails("deploy lake");
    assert!(
        said.contains(
            "`config/clusters/lake/kubeconfig.yaml`: the kubeconfig has no `current-context`\n"
        ),
        "{said}"
    );

    // kubectl's message quotes it, and names its file in memory.
    repo.write(
        "config/clusters/lake/kubeconfig.yaml",
        "apiVersion: v1\nkind: surreptitious\ncurrent-context: here\n\
         contexts: [{name: here, context: {cluster: there}}]\n\
         clusters: [{name: there, cluster: {server: 'https://127.0.0.1:1'}}]\n",
    );
    repo.encrypt("config/clusters/lake/kubeconfig.yaml", &key);
    let said = repo.fails("deploy lake --debug");
    assert!(
        said.contains("config/clusters/lake/kubeconfig.yaml") && said.contains("***"),
        "{said}"
    );
    assert!(
        !said.contains("surreptitious") && !said.contains("/proc/"),
        "{said}"
    );
}

#[test]
fn a_domain_of_its_own_file() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["domain"]);
    let key = Key::new();
    repo.has_key(&key);
    let listed = "[common.values.yaml, domain.values.yaml]";
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        listed,
        &format!("{listed}\n  domain_override_file: override.yaml"),
    );
    let said = repo.fails("deploy lake");
    assert!(
        said.contains("`config/clusters/lake/override.yaml` doesn't exist"),
        "{said}"
    );
    repo.write("config/clusters/lake/override.yaml", "domian: x\n");
    let said = repo.fails("deploy lake");
    assert!(
        said.contains("`config/clusters/lake/override.yaml` has no `domain`"),
        "{said}"
    );
    repo.write(
        "config/clusters/lake/override.yaml",
        "domain: elsewhere.example.org\n",
    );
    assert!(
        repo.ok("deploy lake")
            .stdout
            .contains("https://elsewhere.example.org")
    );
    repo.encrypt("config/clusters/lake/override.yaml", &key);
    let ran = repo.ok("deploy lake --debug");
    assert!(
        !(ran.stdout + &ran.stderr).contains("elsewhere"),
        "the hidden domain shows"
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["dry"]);
    repo.write(
        "config/clusters/lake/dry.values.yaml",
        "note: rather dry\ntoken: short\n",
    );
    let ran = repo.ok("deploy lake --dry-run");
    assert!(
        ran.stdout.contains("rather dry") && ran.stdout.contains("token: '***'"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("short"), "{}", ran.stdout);
    assert!(
        !cluster
            .kubectl("get namespaces -o name")
            .contains("namespace/dry")
    );
    repo.ok("deploy lake");
    repo.write(
        "config/clusters/lake/dry.values.yaml",
        "note: wet\nhook: true\n",
    );
    let ran = repo.ok("deploy lake --dry-run");
    assert!(
        ran.stdout.contains("wet") && ran.stdout.contains("name: hook"),
        "{}",
        ran.stdout
    );
    assert_eq!(note(&cluster, "dry"), "rather dry");
    assert_eq!(
        cluster
            .kubectl("get secrets -n dry -l owner=helm -o name")
            .lines()
            .count(),
        1
    );
}

#[test]
fn killed_at_work_it_takes_helm_along_and_locks_nothing() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["killed"]);
    repo.ok("deploy lake");
    repo.write("config/clusters/lake/killed.values.yaml", "hook: true\n");
    let mut child = repo.start("deploy lake");
    let status = || {
        cluster.kubectl(
            "get secrets -n killed -l owner=helm,version=2 -o jsonpath={.items[*].metadata.labels.status}",
        )
    };
    wait_until("the upgrade", || status() == "pending-upgrade");
    wait_until("the hook", || {
        cluster
            .kubectl("get jobs -n killed -o name")
            .contains("hook")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("helm's own end", || status() == "failed");
    repo.write("config/clusters/lake/killed.values.yaml", "note: alive\n");
    repo.ok("deploy lake");
    assert_eq!(note(&cluster, "killed"), "alive");
}

#[test]
fn its_own_config_with_tokens_that_stay() {
    let repo = Repo::own();
    let first = repo.ok("deploy local");
    assert_eq!(
        summary(&first).iter().map(|it| it[1]).collect::<Vec<_>>(),
        ["deployed", "deployed"]
    );
    let kubeconfig = kubeconfig(&repo.ok("local status").stdout);
    let secret = |hub: &str| {
        kubectl(
            &kubeconfig,
            &format!("get secret hub -n {hub} -o jsonpath={{.data}}"),
        )
    };
    let pods = || kubectl(&kubeconfig, "get pods -A -o name");
    let (staging, demo, running) = (secret("staging"), secret("demo"), pods());
    assert!(
        staging.contains("hub.services.hub-health.apiToken"),
        "{staging}"
    );
    assert_ne!(staging, demo);
    repo.ok("deploy local");
    assert_eq!(
        (secret("staging"), secret("demo"), pods()),
        (staging.clone(), demo, running)
    );

    // A changed value restarts the hub, and its token stays.
    repo.edit("config/clusters/local/staging.values.yaml", "512M", "700M");
    repo.ok("deploy local staging");
    let token =
        |data: &str| data.split_once("hub-health.apiToken\":\"").unwrap().1[..40].to_owned();
    let changed = secret("staging");
    assert_ne!(changed, staging);
    assert_eq!(token(&changed), token(&staging));

    // A misspelt value is refused by minihub's schema.
    repo.edit(
        "config/clusters/local/demo.values.yaml",
        "memory:",
        "memroy:",
    );
    let said = repo.fails("deploy local");
    let wanted = "config/clusters/local/demo.values.yaml:5:3: `singleuser`: there is no key `memroy`: did you mean `memory`?";
    assert!(said.contains(wanted) && !said.contains("staging"), "{said}");
}

#[test]
fn staging_hubs_gate_the_others() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(
        &cluster,
        &["gate-prod", "gate-staging", "gate-free", "gate-other"],
    );
    repo.env.push(("GITHUB_ACTOR".into(), "ann".into()));
    let yaml = "config/clusters/lake/cluster.yaml";
    repo.edit(
        yaml,
        "- name: gate-other",
        "- name: gate-other\n  stage: staging",
    );
    repo.edit(
        yaml,
        "- name: gate-free",
        "- name: gate-free\n  gates: [gate-other]",
    );
    repo.write(
        "config/clusters/lake/gate-staging.values.yaml",
        "fail: it has to\n",
    );
    let ran = repo.run("deploy lake --jobs 4");
    assert_eq!(ran.code, Some(1));
    let states: Vec<_> = summary(&ran).iter().map(|it| (it[0], it[1])).collect();
    let expected = [
        ("gate-prod", "held"),
        ("gate-staging", "failed"),
        ("gate-free", "deployed"),
        ("gate-other", "deployed"),
    ];
    assert_eq!(states, expected, "{}", ran.stderr);
    let order = |part: &str| {
        ran.stderr
            .find(part)
            .unwrap_or_else(|| panic!("no {part:?} in {}", ran.stderr))
    };
    assert!(order("gate-other: upgrading") < order("gate-free: upgrading"));
    assert!(
        ran.stderr
            .contains("gate-prod: held back by `gate-staging`\n"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("held back: `gate-prod`\n\nhint: `--ignore-staging REASON`"),
        "{}",
        ran.stderr
    );
    assert!(
        !cluster
            .kubectl("get namespaces -o name")
            .contains("gate-prod")
    );

    let ran = repo.run("deploy lake gate-prod gate-staging --ignore-staging exams");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stdout.starts_with("gate-prod            deployed"),
        "{}",
        ran.stdout
    );
    let history = cluster.history("gate-prod");
    assert!(
        history.contains("by ann") && history.contains("staging ignored: exams"),
        "{history}"
    );
    // Gates hold among the hubs of one run.
    repo.ok("deploy lake gate-prod");
    // In a dry run nothing has to stand, and what is shown has the order of cluster.yaml.
    repo.write("config/clusters/lake/gate-staging.values.yaml", "{}\n");
    let shown = repo.ok("deploy lake --dry-run").stdout;
    let at = |hub: &str| {
        shown
            .find(&format!("# {hub}: what would be applied"))
            .unwrap()
    };
    assert!(at("gate-prod") < at("gate-staging") && at("gate-staging") < at("gate-free"));
}

#[test]
fn a_values_file_changed_under_way() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["edited-first", "edited"]);
    repo.write(
        "config/clusters/lake/edited.values.yaml",
        "note: as it was checked\n",
    );
    let values = repo.root.join("config/clusters/lake/edited.values.yaml");
    repo.script(
        "helm",
        &format!(
            "case \"$*\" in *'--namespace edited-first'*) echo 'note: [half' > {} ;; esac\nexec {} \"$@\"",
            values.display(),
            tool_path("helm").display()
        ),
    );
    repo.ok("deploy lake --jobs 1");
    assert_eq!(
        repo.read("config/clusters/lake/edited.values.yaml"),
        "note: [half\n"
    );
    assert_eq!(note(&cluster, "edited"), "as it was checked");
}
