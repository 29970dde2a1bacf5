//! Our own charts with stand-ins for the public ones, on the rehearsal cluster: hubs, cert-manager and support.

use std::{fs, path::Path};

use crate::{
    repo::{Key, Repo, Shared, copy, kubeconfig, kubectl, tool, workspace},
    upstream::{Running, Upstream, free_address},
};

/// A repository with our own charts, whose cluster `lake` has these hubs, each with the chart of its name.
fn hubs(cluster: &Shared, upstream: &Upstream, hubs: &[(&str, &str)]) -> Repo {
    let repo = Repo::on(cluster, &[]);
    upstream.serve(&repo);
    let mut yaml =
        "name: lake\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs:\n".to_owned();
    for (hub, chart) in hubs {
        yaml += &format!(
            "- {{name: {hub}, domain: {hub}.example.org, helm_chart: {chart}, helm_chart_values_files: [{hub}.values.yaml], \
             health_check: false}}\n"
        );
        let values = format!(
            "nfs: {{pv: {{serverIP: 10.0.0.9, baseShareName: /homes/}}}}\n\
             jupyterhub: {{ingress: {{hosts: [{hub}.example.org], tls: [{{secretName: tls, hosts: [{hub}.example.org]}}]}}}}\n"
        );
        let values = match *chart {
            "daskhub" => format!("basehub:\n  {}", values.replace('\n', "\n  ")),
            _ => values,
        };
        repo.write(&format!("config/clusters/lake/{hub}.values.yaml"), &values);
    }
    repo.write("config/clusters/lake/cluster.yaml", &yaml);
    repo
}

/// One test, from top to bottom: dask-gateway's CRDs are the cluster's.
#[test]
fn basehub_and_daskhub() {
    let cluster = Shared::cluster();
    let upstream = Upstream::shared();
    let repo = hubs(
        &cluster,
        &upstream,
        &[("own-base", "basehub"), ("own-dask", "daskhub")],
    );
    let before = locks(&repo);
    a_dry_run_before_anything_is_there(&cluster, &repo);
    both_are_deployed(&cluster, &repo);
    for hub in ["own-base", "own-dask"] {
        what_basehub_makes(&cluster, hub);
    }
    an_upgrade_brings_back_crds_and_changes_nothing_else(&cluster, &repo);
    crds_of_another_version(&cluster, &upstream, &repo);

    assert_eq!(locks(&repo), before);
    assert!(before[0].contains("https://hub.jupyter.org/helm-chart/"));
    assert!(
        !repo.root.join("helm-charts/basehub/charts").exists(),
        "something was written into the work tree"
    );
    dask_gateway_by_its_values(&cluster, &upstream);
    dask_clusters_end_with_their_hub(&cluster, &repo);
}

fn dask_clusters_end_with_their_hub(cluster: &Shared, repo: &Repo) {
    cluster.kubectl_apply(
        "{apiVersion: gateway.dask.org/v1alpha1, kind: DaskCluster, metadata: {name: ann, namespace: own-dask}}",
    );
    let said = repo.fails("retire lake own-dask");
    assert!(said.contains("the Dask clusters `ann`"), "{said}");
    repo.ok("retire lake own-dask --yes");
    let left = cluster.kubectl("get daskclusters --namespace own-dask -o name");
    assert_eq!(left, "");
}

fn locks(repo: &Repo) -> [String; 2] {
    ["basehub", "daskhub"].map(|it| repo.read(&format!("helm-charts/{it}/Chart.lock")))
}

/// The versions of dask-gateway's CRDs.
fn crds(cluster: &Shared) -> String {
    let of = "-o jsonpath={.items[*].metadata.labels.of}";
    cluster.kubectl(&format!("get crd -l of {of}"))
}

fn a_dry_run_before_anything_is_there(cluster: &Shared, repo: &Repo) {
    let dry = repo.ok("deploy lake --dry-run");
    assert!(
        dry.stderr.contains(
            "the cluster has no dask-gateway yet: rendering `own-dask` without asking it"
        )
    );
    assert!(
        dry.stdout.contains("kind: IngressRoute") && dry.stdout.contains("name: nfs-share-creator")
    );
    assert_eq!(crds(cluster), "", "a dry run applied CRDs");
}

fn both_are_deployed(cluster: &Shared, repo: &Repo) {
    let ran = repo.ok("deploy lake");
    assert!(
        ran.stderr
            .contains("own-dask: applying the CRDs of dask-gateway 2026.3.0"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("own-base: applying"), "{}", ran.stderr);
    assert_eq!(crds(cluster), "2026.3.0 2026.3.0");
}

fn what_basehub_makes(cluster: &Shared, hub: &str) {
    let get = |what: &str| cluster.kubectl(&format!("get -n {hub} {what}"));
    assert_eq!(
        get("pvc home-nfs -o jsonpath={.spec.volumeName}"),
        format!("{hub}-home-nfs")
    );
    let volume = get(&format!(
        "pv {hub}-home-nfs -o jsonpath={{.spec.nfs}}{{.spec.mountOptions}}"
    ));
    assert_eq!(
        volume,
        format!(r#"{{"path":"/homes/{hub}","server":"10.0.0.9"}}["soft","noatime","vers=4.2"]"#)
    );
    assert_eq!(
        get("serviceaccount user-sa -o jsonpath={.automountServiceAccountToken}"),
        "false"
    );
    let ingress = get("ingress jupyterhub -o jsonpath={.spec.rules[0].host}");
    assert_eq!(ingress, format!("{hub}.example.org"));
    get("configmap hub-custom-templates-config");
}

fn token_of_dask_gateway(cluster: &Shared) -> String {
    let data = cluster.kubectl("get secret hub -n own-dask -o jsonpath={.data}");
    data.split("hub.services.dask-gateway.apiToken")
        .nth(1)
        .unwrap()[..60]
        .to_owned()
}

/// Tokens of the health check and of dask-gateway stay what they are.
fn an_upgrade_brings_back_crds_and_changes_nothing_else(cluster: &Shared, repo: &Repo) {
    let first = token_of_dask_gateway(cluster);
    let pods = || cluster.kubectl("get pods -n own-dask -o name");
    let running = pods();

    // Whoever changed a CRD: the chart's version comes back. The folders on NFS are there by now.
    cluster.kubectl("label crd daskclusters.gateway.dask.org of=old --overwrite");
    repo.ok("deploy lake");
    assert_eq!(crds(cluster), "2026.3.0 2026.3.0");
    assert_eq!(token_of_dask_gateway(cluster), first);
    assert_eq!(
        pods(),
        running,
        "an upgrade that changes nothing has restarted pods"
    );
    let dry = repo.ok("deploy lake --dry-run");
    assert!(
        !dry.stdout.contains("nfs-share-creator"),
        "the folders would be made again"
    );
    assert!(!dry.stderr.contains("without asking it"), "{}", dry.stderr);
}

/// They come from their public address, and are kept.
fn crds_of_another_version(cluster: &Shared, upstream: &Upstream, repo: &Repo) {
    let ran = repo.ok("deploy lake own-dask --dask-gateway-version 2027.1.0");
    assert!(
        ran.stderr
            .contains("applying the CRDs of dask-gateway 2027.1.0"),
        "{}",
        ran.stderr
    );
    assert_eq!(crds(cluster), "2027.1.0 2027.1.0");
    let said = repo.fails("deploy lake own-dask --dask-gateway-version 1.2.3");
    let url = "https://raw.githubusercontent.com/dask/dask-gateway/1.2.3/resources/helm/dask-gateway/crds/daskclusters.yaml";
    let wanted = format!(
        "cannot get the manifest from {url} by its mirror {}/dask/",
        upstream.address
    );
    assert!(
        said.contains(&wanted) && said.contains("hint: `chart_mirrors`"),
        "{said}"
    );
    repo.ok("deploy lake own-dask --dry-run --dask-gateway-version 1.2.3");
}

/// dask-gateway behind a condition in another chart, as groups have it that merged daskhub into basehub. Its CRDs are
/// the cluster's, so that no other test may have to do with them meanwhile.
fn dask_gateway_by_its_values(cluster: &Shared, upstream: &Upstream) {
    let repo = hubs(cluster, upstream, &[("by-values", "reef")]);
    repo.write(
        "helm-charts/reef/Chart.yaml",
        "apiVersion: v2\nname: reef\nversion: 0.1.0\ndependencies:\n\
         - {name: dask-gateway, version: 2026.3.0, repository: https://helm.dask.org/, condition: dask-gateway.enabled}\n",
    );
    repo.write(
        "helm-charts/reef/values.yaml",
        "dask-gateway: {enabled: false}\n",
    );
    let values = "config/clusters/lake/by-values.values.yaml";
    repo.write(values, "{}\n");
    assert!(!repo.ok("deploy lake").stderr.contains("CRDs"));
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "by-values.values.yaml",
        "by-values.values.jsonnet",
    );
    repo.write(
        "config/clusters/lake/by-values.values.jsonnet",
        "{ 'dask-gateway': { enabled: std.extVar('XTASK_HUB_NAME') == 'by-values' } }\n",
    );
    assert!(
        repo.ok("deploy lake")
            .stderr
            .contains("applying the CRDs of dask-gateway 2026.3.0")
    );
    cluster.kubectl("get ingressroute -n by-values api-by-values-dask-gateway");
}

#[test]
fn placeholders_are_not_awaited() {
    let (cluster, upstream) = (Shared::cluster(), Upstream::shared());
    let repo = hubs(&cluster, &upstream, &[("placeholders", "basehub")]);
    let values = "config/clusters/lake/placeholders.values.yaml";
    repo.edit(
        values,
        "jupyterhub: {",
        "jupyterhub: {scheduling: {userPlaceholder: {replicas: 2}}, ",
    );
    repo.ok("deploy lake --timeout 30s");
    let ready = cluster.kubectl(
        "get statefulset user-placeholder -n placeholders -o jsonpath={.status.readyReplicas}",
    );
    assert_eq!(
        ready, "",
        "the placeholders got ready, so this shows nothing"
    );
}

#[test]
fn our_charts_refuse_what_they_do_not_know() {
    let (cluster, upstream) = (Shared::cluster(), Upstream::shared());
    let repo = hubs(
        &cluster,
        &upstream,
        &[("refused", "basehub"), ("refused-dask", "daskhub")],
    );
    let base = "config/clusters/lake/refused.values.yaml";
    let good = repo.read(base);
    for (from, to, wanted) in [
        (
            "nfs:",
            "nsf: {}\nnfs:",
            "refused.values.yaml:1:1: there is no key `nsf`: did you mean `nfs`?",
        ),
        ("/homes/", "/homes", "`\"/homes\"` doesn't match `"),
        (
            "10.0.0.9",
            "\"\"",
            "`nfs.pv.serverIP`: it must not be empty",
        ),
        (
            "hosts: [refused.example.org], tls",
            "hosts: [], tls",
            "`jupyterhub.ingress.hosts`: it must not be empty",
        ),
        (
            "jupyterhub: {",
            "jupyterhub: {custom: {homepage: {url: x}}, ",
            "`jupyterhub.custom.homepage`: there is no key `url`",
        ),
        (
            "jupyterhub: {",
            "jupyterhub: {bhu: {}, ",
            "`jupyterhub`: there is no key `bhu`",
        ),
    ] {
        repo.edit(base, from, to);
        let said = repo.fails("deploy lake refused");
        assert!(said.contains(wanted), "{said}");
        repo.write(base, &good);
    }
    let dask = "config/clusters/lake/refused-dask.values.yaml";
    repo.write(dask, &format!("{}\njupyterhub: {{}}\n", repo.read(dask)));
    let said = repo.fails("deploy lake refused-dask");
    assert!(said.contains("there is no key `jupyterhub`"), "{said}");
}

/// Users' servers aren't evicted by who drains a node.
#[test]
fn a_user_is_not_evicted() {
    let (cluster, upstream) = (Shared::cluster(), Upstream::shared());
    let repo = hubs(&cluster, &upstream, &[("evicted", "basehub")]);
    repo.ok("deploy lake");
    cluster.kubectl_apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: jupyter-jo, namespace: evicted, \
          labels: {app: jupyterhub, component: singleuser-server}}, spec: {containers: [{name: notebook, image: x}]}}",
    );
    cluster.kubectl("wait pod jupyter-jo -n evicted --for=condition=Ready --timeout=60s");
    let evict = |pod: &str| {
        let eviction = repo.root.join(format!("{pod}.json"));
        let text = format!(
            r#"{{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {{"name": "{pod}", "namespace": "evicted"}}}}"#
        );
        fs::write(&eviction, text).unwrap();
        let url = format!("/api/v1/namespaces/evicted/pods/{pod}/eviction");
        let output = tool("kubectl")
            .args(["create", "--raw", &url, "-f"])
            .arg(&eviction)
            .env("KUBECONFIG", &cluster.kubeconfig)
            .env("KUBECACHEDIR", repo.cache())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    // Until the budget's controller has seen the pod, the answer is that it doesn't know yet: also no.
    let said = evict("jupyter-jo");
    assert!(said.contains("disruption budget"), "{said}");
    let hub =
        cluster.kubectl("get pods -n evicted -l app=hub -o jsonpath={.items[0].metadata.name}");
    let said = evict(&hub);
    assert!(said.contains("Success"), "{said}");
}

/// What all clusters share, which each may set otherwise.
const SHARED: &str = "helm-charts/support/enc-support.secret.values.yaml";

/// A repository whose cluster `lake` is a rehearsal cluster of its own: cert-manager and support are there once in each.
fn supported(upstream: &Upstream) -> Repo {
    let mut repo = Repo::new();
    repo.local = true;
    support(&mut repo, upstream, "provider: local");
    repo
}

/// A repository whose cluster `lake` is the shared one, for what comes to nothing there.
fn refused(cluster: &Shared, upstream: &Upstream) -> Repo {
    let mut repo = Repo::on(cluster, &[]);
    let provider = "provider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}";
    support(&mut repo, upstream, provider);
    repo
}

/// Gives the cluster `lake`, of this provider, values of support, in encrypted files and others.
fn support(repo: &mut Repo, upstream: &Upstream, provider: &str) {
    upstream.serve(repo);
    repo.write(
        "config/clusters/lake/cluster.yaml",
        &format!(
            "name: lake\n{provider}\nsupport:\n  helm_chart_values_files: [support.values.yaml, enc-support.secret.values.yaml]\n"
        ),
    );
    repo.write(
        "config/clusters/lake/support.values.yaml",
        "cluster-autoscaler: {enabled: true}\n",
    );
    let key = Key::new();
    repo.has_key(&key);
    repo.write(
        "config/clusters/lake/enc-support.secret.values.yaml",
        "prometheusAuthSecret: {username: lake}\n",
    );
    repo.encrypt("config/clusters/lake/enc-support.secret.values.yaml", &key);
    repo.write(
        SHARED,
        "grafana: {adminPassword: the-same-everywhere}\nprometheusAuthSecret: {username: shared, password: loch-ness-monster}\n",
    );
    repo.encrypt(SHARED, &key);
}

/// One test, from top to bottom: each cluster has them once.
#[test]
fn cert_manager_and_support() {
    let upstream = Upstream::shared();
    let repo = supported(&upstream);
    dry_while_the_cluster_is_down(&repo);
    let config = kubeconfig(&repo.ok("local up").stdout);
    let kubectl = |args: &str| kubectl(&config, args);
    dry_while_the_cluster_has_nothing(&repo, &kubectl);
    cert_manager_and_support_are_deployed(&repo, &kubectl);
    the_clusters_own_values_win(&kubectl);

    let web = secret(&kubectl, "prometheus-auth", r"web\.yml");
    prometheus_asks_for_a_password(
        &repo,
        &kubectl(
            "get configmap -n support support-prometheus-server -o jsonpath={.data.prometheus\\.yml}",
        ),
        &web,
    );
    again_nothing_restarts(&repo, &kubectl);
    assert_eq!(
        secret(&kubectl, "prometheus-auth", r"web\.yml"),
        web,
        "the hash lost its salt"
    );
    dry_runs_make_no_revision(&repo, &kubectl);
    a_password_that_nobody_sets_is_made_once(&repo, &kubectl);
    crds_of_cert_manager(&repo, &kubectl);
    a_cluster_with_a_cert_manager_of_its_own(&repo);
}

/// A value of a Secret of support.
fn secret(kubectl: &impl Fn(&str) -> String, name: &str, key: &str) -> String {
    let data = kubectl(&format!(
        "get secret -n support {name} -o jsonpath={{.data.{key}}}"
    ));
    let base64 = std::process::Command::new("sh")
        .args(["-c", &format!("echo {data} | base64 -d")])
        .output();
    String::from_utf8(base64.unwrap().stdout).unwrap()
}

fn dry_while_the_cluster_is_down(repo: &Repo) {
    let ran = repo.ok("deploy-support lake --dry-run");
    assert!(
        ran.stdout.contains("# cert-manager: what would be applied"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("kind: ClusterIssuer") && ran.stdout.contains("kind: IngressClass")
    );
}

fn dry_while_the_cluster_has_nothing(repo: &Repo, kubectl: &impl Fn(&str) -> String) {
    let ran = repo.ok("deploy-support lake --dry-run");
    assert!(
        ran.stderr
            .contains("the cluster has no cert-manager yet: rendering `support`"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stdout.contains("# support: what would be applied"),
        "{}",
        ran.stdout
    );
    assert!(
        !ran.stdout.contains("loch-ness") && !ran.stdout.contains("same-everywhere"),
        "{}",
        ran.stdout
    );
    let found = kubectl("get namespaces,crds -o name");
    assert!(
        !found.contains("support") && !found.contains("cert-manager"),
        "a dry run made something: {found}"
    );
}

fn cert_manager_and_support_are_deployed(repo: &Repo, kubectl: &impl Fn(&str) -> String) {
    let ran = repo.ok("deploy-support lake");
    let lines: Vec<_> = ran
        .stdout
        .lines()
        .map(|it| it.split(',').next().unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "cert-manager         deployed  revision 1",
            "support              deployed  revision 1"
        ]
    );
    assert!(ran.stdout.contains("v1.20.3"), "{}", ran.stdout);
    let all = ran.stdout + &ran.stderr;
    assert!(
        !all.contains("loch-ness") && !all.contains("same-everywhere"),
        "{all}"
    );
    assert_eq!(
        kubectl("get clusterissuer letsencrypt-prod -o jsonpath={.spec.acme.solvers}"),
        r#"[{"http01":{"ingress":{"ingressClassName":"nginx"}}}]"#
    );
    kubectl(
        "get deployment -n support support-cluster-autoscaler support-nginx-ingress-controller support-grafana",
    );
}

/// Over the shared ones, which win over the chart's.
fn the_clusters_own_values_win(kubectl: &impl Fn(&str) -> String) {
    assert_eq!(secret(kubectl, "prometheus-auth", "username"), "lake");
    assert_eq!(
        secret(kubectl, "prometheus-auth", "password"),
        "loch-ness-monster"
    );
    assert_eq!(
        secret(kubectl, "support-grafana", "admin-password"),
        "the-same-everywhere"
    );
}

fn again_nothing_restarts(repo: &Repo, kubectl: &impl Fn(&str) -> String) {
    let pods = || kubectl("get pods -A -o name");
    let running = pods();
    let ran = repo.ok("deploy-support lake");
    assert!(
        ran.stdout
            .contains("support              deployed  revision 2"),
        "{}",
        ran.stdout
    );
    assert_eq!(
        pods(),
        running,
        "an upgrade that changes nothing has restarted pods"
    );
}

fn dry_runs_make_no_revision(repo: &Repo, kubectl: &impl Fn(&str) -> String) {
    let ran = repo.ok("deploy-support lake --dry-run");
    assert!(!ran.stderr.contains("without asking it"), "{}", ran.stderr);
    let ran = repo.ok("deploy-support lake --diff --dry-run --detailed-exitcode");
    assert!(
        ran.stderr
            .contains("cert-manager: nothing would change\nsupport: nothing would change\n"),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    assert_eq!(
        kubectl("get secrets -A -l owner=helm -o name")
            .lines()
            .count(),
        4,
        "a dry run made a revision"
    );
}

fn a_password_that_nobody_sets_is_made_once(repo: &Repo, kubectl: &impl Fn(&str) -> String) {
    fs::remove_file(repo.root.join(SHARED)).unwrap();
    repo.ok("deploy-support lake");
    let password = || secret(kubectl, "prometheus-auth", "password");
    assert_eq!(password(), "loch-ness-monster");
    kubectl("delete secret -n support prometheus-auth");
    repo.ok("deploy-support lake");
    let made = password();
    assert_eq!(made.len(), 64, "{made}");
    repo.ok("deploy-support lake");
    assert_eq!(password(), made);
}

fn a_cluster_with_a_cert_manager_of_its_own(repo: &Repo) {
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "support:\n",
        "support:\n  cert_manager: false\n",
    );
    let printed = repo.ok("deploy-support lake").stdout;
    assert!(
        !printed.contains("cert-manager") && printed.starts_with("support              deployed"),
        "{printed}"
    );
}

/// Debian's prometheus, with the configuration and the web.yml that our chart makes.
fn prometheus_asks_for_a_password(repo: &Repo, config: &str, web: &str) {
    let dir = repo.root.join("prometheus");
    let address = free_address();
    for (file, text) in [
        ("web.yml", web),
        ("username", "lake"),
        ("password", "loch-ness-monster"),
    ] {
        repo.write(&format!("prometheus/{file}"), text);
    }
    assert!(config.contains("/etc/prometheus-auth/username"), "{config}");
    // Debian's is too old for a file with the user's name.
    let config = config
        .replace(
            "username_file: /etc/prometheus-auth/username",
            "username: lake",
        )
        .replace("/etc/prometheus-auth", dir.to_str().unwrap())
        .replace("localhost:9090", &address);
    repo.write(
        "prometheus/prometheus.yml",
        &format!("global: {{scrape_interval: 1s}}\n{config}"),
    );
    let args = [
        format!("--config.file={}", dir.join("prometheus.yml").display()),
        format!("--web.config.file={}", dir.join("web.yml").display()),
        format!("--storage.tsdb.path={}", dir.join("data").display()),
        format!("--web.listen-address={address}"),
    ];
    let _process = Running::start("prometheus", &args, &address);
    let status =
        |user: &str, path: &str| match ureq::get(format!("http://{user}{address}/{path}")).call() {
            Ok(answer) => (
                answer.status().as_u16(),
                answer.into_body().read_to_string().unwrap(),
            ),
            Err(ureq::Error::StatusCode(status)) => (status, String::new()),
            Err(err) => panic!("{err}"),
        };
    assert_eq!(status("", "api/v1/query?query=up").0, 401);
    assert_eq!(status("lake:wrong@", "api/v1/query?query=up").0, 401);
    assert_eq!(
        status("shared:loch-ness-monster@", "api/v1/query?query=up").0,
        401
    );
    // With it, also for the metrics that it asks itself for.
    crate::repo::wait_until("its own metrics", || {
        let (status, answer) = status("lake:loch-ness-monster@", "api/v1/query?query=up");
        assert!([200, 503].contains(&status), "{status} {answer}");
        answer.contains(r#""1"]"#)
    });
    people_ask_it(repo, &address);
}

fn people_ask_it(repo: &Repo, address: &str) {
    const VALUES: &str = "config/clusters/lake/support.values.yaml";
    let (values, settings) = (repo.read(VALUES), repo.read("config/xtask.yaml"));
    let said = repo.fails("exec promql lake up");
    assert!(
        said.contains("the support values of `lake` have no `prometheus.server.ingress.hosts`"),
        "{said}"
    );
    repo.write(
        VALUES,
        &(values.clone()
            + "prometheus: {server: {ingress: {hosts: [prometheus.lake.example.org]}}}\n"),
    );
    let mirror =
        format!("chart_mirrors:\n  https://prometheus.lake.example.org: http://{address}\n");
    repo.write(
        "config/xtask.yaml",
        &settings.replace("chart_mirrors:\n", &mirror),
    );
    let row = format!("up{{instance={address}, job=prometheus}}  1\n");
    assert_eq!(
        repo.ok("exec promql lake up{job=\"prometheus\"}")
            .stdout
            .replace('"', ""),
        row
    );
    assert_eq!(repo.ok("exec promql lake 6*7").stdout, "42\n");
    let data: serde_json::Value =
        serde_json::from_str(&repo.ok("exec promql lake vector(3) --format json").stdout).unwrap();
    assert_eq!(data["result"][0]["value"][1], "3");
    let said = repo.fails("exec promql lake sum(");
    assert!(
        said.contains("Prometheus answers 400 Bad Request: ") && said.contains("parse error"),
        "{said}"
    );

    // Where no file has the password, the cluster has.
    let shared = fs::read(repo.root.join(SHARED)).unwrap();
    fs::remove_file(repo.root.join(SHARED)).unwrap();
    assert_eq!(repo.ok("exec promql lake 6*7").stdout, "42\n");
    repo.write(
        SHARED,
        "prometheusAuthSecret: {password: not-the-password}\n",
    );
    let said = repo.fails("exec promql lake up");
    assert!(
        said.contains("is called secret and isn't encrypted"),
        "{said}"
    );
    fs::write(repo.root.join(SHARED), shared).unwrap();
    repo.write(
        VALUES,
        "prometheus: {server: {ingress: {hosts: [prometheus.lake.example.org]}}}\nprometheusAuthSecret: {username: x}\n",
    );
    let yaml = "config/clusters/lake/cluster.yaml";
    let listed = "[support.values.yaml, enc-support.secret.values.yaml]";
    repo.edit(yaml, listed, "[support.values.yaml]");
    let said = repo.fails("exec promql lake up");
    assert!(
        said.contains(
            "refuses the password of `x`\n\nhint: what `deploy-support lake` set up last counts"
        ),
        "{said}"
    );
    assert!(!said.contains("loch-ness"), "{said}");
    repo.edit(yaml, "[support.values.yaml]", listed);
    repo.write(VALUES, &values);
    repo.write("config/xtask.yaml", &settings);
}

#[test]
fn support_with_a_secret_that_cannot_be_decrypted() {
    let cluster = Shared::cluster();
    let upstream = Upstream::shared();
    let repo = refused(&cluster, &upstream);
    let own = "config/clusters/lake/enc-support.secret.values.yaml";
    let readable = repo.read(own);
    repo.write(
        own,
        &readable.replace("ENC[AES256_GCM,data:", "ENC[AES256_GCM,data:AAAA"),
    );
    let said = repo.fails("deploy-support lake");
    assert!(
        said.contains(&format!("cannot decrypt `{own}`")) && !said.contains("upgrading"),
        "{said}"
    );
}

#[test]
fn support_with_values_in_jsonnet_that_the_chart_does_not_know() {
    let cluster = Shared::cluster();
    let upstream = Upstream::shared();
    let repo = refused(&cluster, &upstream);
    let jsonnet = "helm-charts/support/values.jsonnet";
    repo.write(jsonnet, "{ [std.extVar('XTASK_CLUSTER_NAME')]: {} }\n");
    let said = repo.fails("deploy-support lake");
    assert!(
        said.contains(&format!(
            "{jsonnet}:1:1: `support` of `lake`: there is no key `lake`"
        )),
        "{said}"
    );
}

#[test]
fn support_with_a_secret_in_plain_sight() {
    let cluster = Shared::cluster();
    let upstream = Upstream::shared();
    let repo = refused(&cluster, &upstream);
    repo.write(SHARED, "prometheusAuthSecret: {password: in-plain-sight}\n");
    let said = repo.fails("deploy-support lake");
    assert!(
        said.contains(&format!(
            "{SHARED}:1:1: this is called secret and isn't what sops writes"
        )),
        "{said}"
    );
    assert!(!said.contains("in-plain-sight"), "{said}");
}

#[test]
fn values_that_support_refuses() {
    let cluster = Shared::cluster();
    let upstream = Upstream::shared();
    let repo = refused(&cluster, &upstream);
    fs::remove_file(repo.root.join(SHARED)).unwrap();
    let values = "config/clusters/lake/support.values.yaml";
    // For this the cluster's own file may not win.
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        ", enc-support.secret.values.yaml",
        "",
    );
    for (text, wanted) in [
        (
            "ingress-nginx: {controller: {}}\n",
            "its successor's values stand under `nginx-ingress:`",
        ),
        (
            "prometheusIngressAuthSecret: {enabled: true}\n",
            "it is `prometheusAuthSecret:` now",
        ),
        (
            "prometheusAuthSecret: {username: \"a:b\"}\n",
            "`prometheusAuthSecret.username`: ",
        ),
        ("cryptnono: {}\n", "there is no key `cryptnono`"),
        // By a definition that the chart's schema has elsewhere.
        (
            "nginx-ingress: {controller: {tolerations: [{key: 5}]}}\n",
            "`nginx-ingress.controller.tolerations.0.key`: it is a number, and must be null or a string",
        ),
    ] {
        repo.write(values, text);
        let said = repo.fails("deploy-support lake");
        assert!(said.contains(wanted), "{said}");
        assert!(!said.contains("upgrading"), "{said}");
    }
}

/// Of the document that a schema refers to: every release keeps the chart in a Secret.
#[test]
fn a_prepared_chart_has_what_is_used_of_a_document() {
    let cluster = Shared::cluster();
    let upstream = Upstream::shared();
    let repo = refused(&cluster, &upstream);
    repo.ok("deploy-support lake --dry-run");
    let prepared = fs::read_dir(repo.cache().join("xtask/charts")).unwrap();
    let schemas = prepared.map(|it| {
        it.unwrap()
            .path()
            .join("charts/nginx-ingress/values.schema.json")
    });
    let schemas: Vec<_> = schemas
        .filter_map(|it| fs::read_to_string(it).ok())
        .collect();
    assert!(!schemas.is_empty());
    assert!(
        schemas.iter().all(|it| it.contains("\"text\":")
            && !it.contains("unused")
            && !it.contains("left out"))
    );
}

#[test]
fn versions_of_cert_manager_that_cannot_be_had() {
    let cluster = Shared::cluster();
    let upstream = Upstream::shared();
    let repo = refused(&cluster, &upstream);
    let said = repo.fails("deploy-support lake --cert-manager-version v1.14.7");
    assert!(said.contains("isn't v1.15.0 or newer"), "{said}");
    let said = repo.fails("deploy-support lake --cert-manager-version v1.99.0");
    let wanted = "cannot get the chart `cert-manager` v1.99.0 from https://charts.jetstack.io by its mirror http://127.0.0.1";
    assert!(
        said.contains(wanted) && said.contains("the newest are: v1.20.3"),
        "{said}"
    );
}

/// Before anything is done.
#[test]
fn all_charts_that_cannot_be_had_are_named() {
    let cluster = Shared::cluster();
    let upstream = Upstream::shared();
    let repo = refused(&cluster, &upstream);
    repo.edit(
        "helm-charts/support/Chart.yaml",
        "version: 10.5.15",
        "version: 10.5.16",
    );
    repo.edit(
        "helm-charts/support/Chart.lock",
        "version: 10.5.15",
        "version: 10.5.16",
    );
    let said = repo.fails("deploy-support lake --cert-manager-version v1.99.0");
    for chart in ["`cert-manager` v1.99.0", "`grafana` 10.5.16"] {
        assert!(
            said.contains(&format!("cannot get the chart {chart} from")),
            "{said}"
        );
    }
    assert!(!said.contains("upgrading"), "{said}");
}

fn crds_of_cert_manager(repo: &Repo, kubectl: &impl Fn(&str) -> String) {
    let crd = "certificates.cert-manager.io";
    let uid = || kubectl(&format!("get crd {crd} -o jsonpath={{.metadata.uid}}"));
    let before = uid();
    repo.ok("deploy-support lake --skip-crds");
    assert_eq!(uid(), before, "the CRDs didn't stay");
    repo.ok("deploy-support lake");

    // Without its annotation helm would remove them now.
    kubectl(&format!("annotate crd {crd} helm.sh/resource-policy-"));
    let said = repo.fails("deploy-support lake --skip-crds");
    assert!(
        said.contains("helm would remove the CRDs") && said.contains("`support` wasn't tried"),
        "{said}"
    );
    assert_eq!(uid(), before);

    // Whoever applied them with kubectl, they come into the release.
    for annotation in [
        "meta.helm.sh/release-name",
        "meta.helm.sh/release-namespace",
    ] {
        for crd in [crd, "clusterissuers.cert-manager.io"] {
            kubectl(&format!("annotate crd {crd} {annotation}-"));
            kubectl(&format!("label crd {crd} app.kubernetes.io/managed-by-"));
        }
    }
    repo.ok("deploy-support lake");
    let owner = kubectl(&format!(
        "get crd {crd} -o jsonpath={{.metadata.annotations.meta\\.helm\\.sh/release-name}}"
    ));
    assert_eq!((owner.as_str(), uid()), ("cert-manager", before));
}

#[test]
fn a_cluster_without_support() {
    let repo = Repo::new();
    let ran = repo.ok("deploy-support lake");
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "config/clusters/lake/cluster.yaml has no `support`: nothing to do\n"
    );
}

/// All that a person needs to know of a chart's own values stands in its README.
#[test]
fn tables_of_values_are_complete() {
    for (chart, prefixes) in [
        (
            "basehub",
            &[
                "nfs",
                "userServiceAccount",
                "userPodDisruptionBudget",
                "jupyterhub.custom",
            ][..],
        ),
        ("support", &["letsencrypt", "prometheusAuthSecret"]),
    ] {
        let dir = workspace().join("helm-charts").join(chart);
        let values: serde_yaml::Value =
            serde_yaml::from_str(&fs::read_to_string(dir.join("values.yaml")).unwrap()).unwrap();
        let readme = fs::read_to_string(dir.join("README.md")).unwrap();
        let mut keys = Vec::new();
        leaves(&values, String::new(), &mut keys);
        let own: Vec<_> = keys
            .iter()
            .filter(|it| prefixes.iter().any(|prefix| it.starts_with(prefix)))
            .collect();
        assert!(own.len() >= 5, "{own:?}");
        for key in own {
            assert!(
                readme.contains(&format!("`{key}`")),
                "helm-charts/{chart}/README.md doesn't have `{key}`"
            );
        }
    }
}

/// Images that the chart jupyterhub brings along have its version.
#[test]
fn images_of_the_version_in_chart_yaml() {
    let dir = workspace().join("helm-charts/basehub");
    let chart: serde_yaml::Value =
        serde_yaml::from_str(&fs::read_to_string(dir.join("Chart.yaml")).unwrap()).unwrap();
    let version = chart["dependencies"][0]["version"].as_str().unwrap();
    let values = fs::read_to_string(dir.join("values.yaml")).unwrap();
    let images: Vec<_> = values
        .lines()
        .filter(|it| it.contains("quay.io/jupyterhub/"))
        .collect();
    assert!(images.len() >= 4, "{images:?}");
    assert!(
        images.iter().all(|it| it.ends_with(&format!(":{version}"))),
        "{images:?}"
    );
}

/// Who runs helm without us is told of no difference between Chart.yaml and Chart.lock.
#[test]
fn locks_are_as_helm_writes_them() {
    let repo = Repo::new();
    for chart in ["basehub", "daskhub", "support"] {
        let own = workspace().join("helm-charts").join(chart);
        copy(&own, &repo.root.join("helm-charts").join(chart));
        let build = |chart: &Path| {
            let mut helm = tool("helm");
            helm.args(["dependency", "build"])
                .arg(chart)
                .env("HELM_REPOSITORY_CONFIG", "/dev/null");
            String::from_utf8(helm.output().unwrap().stderr).unwrap()
        };
        let copied = repo.root.join("helm-charts").join(chart);
        // It stops at repositories that nobody has added, after it has compared.
        let said = build(&copied);
        assert!(said.contains("no repository definition"), "{said}");
        repo.edit(
            &format!("helm-charts/{chart}/Chart.yaml"),
            "repository: https://",
            "repository: https://x",
        );
        let said = build(&copied);
        assert!(said.contains("out of sync"), "{said}");
    }
}

fn leaves(value: &serde_yaml::Value, path: String, found: &mut Vec<String>) {
    match value.as_mapping() {
        Some(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                let path = if path.is_empty() {
                    String::new()
                } else {
                    format!("{path}.")
                };
                leaves(value, path + key.as_str().unwrap(), found);
            }
        }
        _ => found.push(path),
    }
}
