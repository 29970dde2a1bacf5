//! `validate --images`: whether the images exist that hubs name.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    registry::{BOTH, Program, Registry},
    repo::{Ran, Repo},
    upstream::{Answer, Request, Server, free_address},
};

/// A repository with one chart, whose hub has an image, and hubs of these names with one values file each.
fn repo(hubs: &[&str]) -> Repo {
    let repo = Repo::new();
    repo.write(
        "helm-charts/pool/Chart.yaml",
        "apiVersion: v2\nname: pool\nversion: 0.1.0\n",
    );
    repo.write("helm-charts/pool/values.yaml", "singleuser: {}\npods: []\n");
    let template = "{{- range $i, $image := .Values.pods }}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: pod-{{ $i }}}\n\
        spec: {initContainers: [{name: a, image: {{ $image | quote }}}], containers: []}\n{{- end }}\n";
    repo.write("helm-charts/pool/templates/pods.yaml", template);
    let mut yaml =
        "name: lake\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs:\n".to_owned();
    for hub in hubs {
        yaml += &format!(
            "- {{name: {hub}, domain: {hub}.example.org, helm_chart: pool, helm_chart_values_files: [{hub}.values.yaml]}}\n"
        );
    }
    repo.write("config/clusters/lake/cluster.yaml", &yaml);
    for file in ["common", "staging", "prod"] {
        std::fs::remove_file(
            repo.root
                .join(format!("config/clusters/lake/{file}.values.yaml")),
        )
        .unwrap();
    }
    repo
}

fn values(repo: &Repo, hub: &str, text: &str) {
    repo.write(&format!("config/clusters/lake/{hub}.values.yaml"), text);
}

/// Has all images of these registries asked for at the address.
fn mirror(repo: &Repo, prefixes: &[&str], address: &str) {
    let mirrors: String = prefixes
        .iter()
        .map(|it| format!("  {it}: http://{address}\n"))
        .collect();
    repo.write("config/xtask.yaml", &format!("image_mirrors:\n{mirrors}"));
}

/// Has the images of quay.io asked for at a server.
fn mirror_at(repo: &Repo, server: &Server) {
    let address = server.address.trim_start_matches("http://");
    mirror(repo, &["quay.io"], address);
}

/// What is printed, without the ports of servers.
fn printed(ran: &Ran, address: &str) -> String {
    ran.stdout.replace(address, "REGISTRY")
}

/// Checks one hub's images, without more.
fn validate(repo: &Repo) -> Ran {
    repo.run("validate hub-config lake --images")
}

#[test]
fn images_that_do_not_exist_are_found_in_each_registry() {
    for program in BOTH {
        let repo = repo(&["a", "b"]);
        let registry = Registry::open(program, &repo.root.join("../registry"));
        mirror(&repo, &["quay.io", "docker.io"], &registry.address);
        registry.push("pool/hub", "1.2.3", "amd64");
        registry.push("pool/hub", "1.3.0", "amd64");
        registry.push("library/python", "3.13", "amd64");
        let arm = registry.push("pool/arm", "1", "arm64");
        let index = registry.push_index("pool/index", "1", &["amd64", "arm64"]);
        registry.push_docker_list("pool/list", "1", &["arm64", "s390x"]);
        let missing = format!("sha256:{}", "0".repeat(64));
        values(
            &repo,
            "a",
            &format!(
                "\
singleuser:
  image: {{name: quay.io/pool/hub, tag: 1.2.3}}
  profileList:
    - display_name: A typing error
      kubespawner_override: {{image: 'quay.io/pool/hub:1.2.4'}}
    - display_name: All is well
      kubespawner_override: {{image: 'quay.io/pool/index:1@{index}'}}
    - profile_options:
        image:
          unlisted_choice: {{enabled: true, kubespawner_override: {{image: '{{value}}'}}}}
          choices:
            missing: {{kubespawner_override: {{image: 'quay.io/pool/nothing:1'}}}}
            digest: {{kubespawner_override: {{image: 'quay.io/pool/index:1@{missing}'}}}}
            map: {{kubespawner_override: {{image: {{name: python, tag: '3.14'}}}}}}
  extraImages:
    list: {{name: quay.io/pool/list, tag: '1'}}
  initContainers: [{{name: arm, image: 'quay.io/pool/arm@{arm}'}}]
  unused: {{enabled: false, image: 'quay.io/pool/unused:1'}}
pods: ['quay.io/pool/rendered:1', 'quay.io/pool/hub:1.3.0', 'python:3.13']
"
            ),
        );
        values(
            &repo,
            "b",
            "singleuser: {image: {name: quay.io/pool/hub, tag: '2'}}\n",
        );
        let ran = validate(&repo);
        assert_eq!(ran.code, Some(1), "{program:?}: {}", ran.stderr);
        let expected = format!("\
config/clusters/lake/a.values.yaml:5:37: `quay.io/pool/hub:1.2.4` does not exist: did you mean `1.2.3`?
config/clusters/lake/a.values.yaml:12:53: `quay.io/pool/nothing:1` does not exist
config/clusters/lake/a.values.yaml:13:52: `quay.io/pool/index:1@{missing}` does not exist
config/clusters/lake/a.values.yaml:14:69: `python:3.14` does not exist: did you mean `3.13`?
config/clusters/lake/a.values.yaml:16:42: `quay.io/pool/list:1` is only for `arm64`, `s390x`, and the nodes of `lake` are amd64
config/clusters/lake/a.values.yaml:17:39: `quay.io/pool/arm@{arm}` is only for `arm64`, and the nodes of `lake` are amd64
config/clusters/lake/a.values.yaml:19:8: `quay.io/pool/rendered:1` does not exist
config/clusters/lake/b.values.yaml:1:51: `quay.io/pool/hub:2` does not exist
1 cluster, 2 hubs: 8 problems
");
        assert_eq!(printed(&ran, &registry.address), expected, "{program:?}");
    }
}

#[test]
fn an_image_of_ten_hubs_is_asked_for_once() {
    let hubs = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let repo = repo(&hubs);
    let registry = Registry::open(Program::Debian, &repo.root.join("../registry"));
    let digest = registry.push_index("pool/hub", "1", &["amd64"]);
    for hub in hubs {
        values(
            &repo,
            hub,
            &format!(
                "singleuser: {{image: {{name: {}/pool/hub, tag: '1'}}}}\n",
                registry.address
            ),
        );
    }
    let head = "HEAD /v2/pool/hub/manifests/1";
    let get = format!("GET /v2/pool/hub/manifests/{digest}");
    assert_eq!(validate(&repo).code, Some(0));
    assert_eq!((registry.count(head), registry.count(&get)), (1, 1));
    // What a digest names does not change.
    assert_eq!(validate(&repo).code, Some(0));
    assert_eq!((registry.count(head), registry.count(&get)), (2, 1));
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "provider: kubeconfig",
        "architecture: arm64\nprovider: kubeconfig",
    );
    let ran = validate(&repo);
    assert!(
        ran.stdout
            .contains("is only for `amd64`, and the nodes of `lake` are arm64"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.ends_with("1 cluster, 10 hubs: 10 problems\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn what_wants_a_login_is_no_problem() {
    for program in BOTH {
        let repo = repo(&["a"]);
        let dir = repo.root.join("..");
        let with_password = Registry::with_password(program, &dir.join("password"));
        with_password.push("pool/hub", "1", "amd64");
        let (with_tokens, _server) = Registry::with_tokens(program, &dir.join("tokens"));
        with_tokens.push("public/image", "1", "amd64");
        with_tokens.push("public/image", "2", "amd64");
        with_tokens.push("private/image", "1", "amd64");
        let tokens = &with_tokens.address;
        values(
            &repo,
            "a",
            &format!(
                "\
a: {{image: '{}/pool/hub:1'}}
b: {{image: '{tokens}/private/image:1'}}
c: {{image: '{tokens}/public/image:1'}}
d: {{image: '{tokens}/public/image:2'}}
e: {{image: '{tokens}/public/image:3'}}
",
                with_password.address
            ),
        );
        let ran = repo.run("validate hub-config lake --images --strict");
        let expected = "\
config/clusters/lake/a.values.yaml:1:12: warning: PASSWORD has no such image, or wants a login for it: `PASSWORD/pool/hub:1` was not checked
config/clusters/lake/a.values.yaml:2:12: warning: REGISTRY has no such image, or wants a login for it: `REGISTRY/private/image:1` was not checked
config/clusters/lake/a.values.yaml:5:12: `REGISTRY/public/image:3` does not exist
1 cluster, 1 hub: 1 problem, 2 warnings
";
        let printed = printed(&ran, tokens).replace(&with_password.address, "PASSWORD");
        assert_eq!(printed, expected, "{program:?}");
    }
}

#[test]
fn a_registry_that_cannot_be_reached_is_asked_once() {
    let repo = repo(&["a", "b"]);
    let nobody = free_address();
    mirror(&repo, &["quay.io"], &nobody);
    values(
        &repo,
        "a",
        "a: {image: 'quay.io/a/a:1'}\nb: {image: 'quay.io/a/b:1'}\nc: {image: 'quay.io/a/c:1'}\n",
    );
    values(&repo, "b", "d: {image: 'quay.io/a/d:1'}\n");
    let ran = validate(&repo);
    let expected = "\
config/clusters/lake/a.values.yaml:1:12: warning: cannot reach REGISTRY: Connection refused (os error 111): \
4 of its images were not checked, such as `quay.io/a/a:1`
1 cluster, 2 hubs: 0 problems, 1 warning
";
    assert_eq!(printed(&ran, &nobody), expected);
    assert_eq!(ran.code, Some(0));
    let strict = repo.run("validate hub-config lake --images --strict");
    assert_eq!(strict.code, Some(1), "{}", strict.stdout);
}

/// How often a server was asked what.
type Counts = Arc<Mutex<BTreeMap<String, usize>>>;

/// A server of which the test makes the answers, which may depend on how often it was asked the same.
fn counting(
    answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
) -> (Server, Counts) {
    let counts = Counts::default();
    let counted = counts.clone();
    let server = Server::asked(move |request| {
        let mut counts = counted.lock().unwrap();
        let asked = format!("{} {}", request.method, request.path);
        let count = counts.entry(asked).or_default();
        *count += 1;
        let count = *count;
        drop(counts);
        answer(request, count)
    });
    (server, counts)
}

/// The same for a registry that wants no login.
fn registry(
    answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
) -> (Server, Counts) {
    counting(move |request, count| match request.path.as_str() {
        "v2/" => Answer::Status(200),
        _ => answer(request, count),
    })
}

#[test]
fn a_token_is_asked_for_once_for_each_name() {
    let repo = repo(&["a"]);
    let address = Arc::new(OnceLock::new());
    let own = address.clone();
    let (server, counts) = counting(move |request, _| {
        let address: &String = own.get().unwrap();
        let scope = request.path.strip_prefix("token?service=a%20b&scope=");
        if let Some(scope) = scope {
            return Answer::Json(
                200,
                serde_json::json!({"token": format!("for {scope}"), "expires_in": u64::MAX}),
            );
        }
        let name = request.path.split('/').nth(1).unwrap();
        let wanted = format!("authorization: bearer for repository%3a{name}%2fx%3apull\r\n");
        if request.headers.to_lowercase().contains(&wanted) {
            return Answer::Status(404);
        }
        let challenge = format!(
            "Negotiate abc==, Bearer realm=\"{address}/token\" , service=\"a b\",scope=\"x\""
        );
        Answer::Refused(401, format!("WWW-Authenticate: {challenge}"))
    });
    address.set(server.address.clone()).unwrap();
    mirror_at(&repo, &server);
    let images: String = (0..20)
        .map(|it| format!("a{it}: {{image: 'quay.io/name{}/x:{it}'}}\n", it % 2))
        .collect();
    values(&repo, "a", &images);
    let ran = validate(&repo);
    assert!(
        ran.stdout.ends_with("1 cluster, 1 hub: 20 problems\n"),
        "{}",
        ran.stdout
    );
    let counts = counts.lock().unwrap();
    for name in ["name0", "name1"] {
        let token = format!("GET token?service=a%20b&scope=repository%3A{name}%2Fx%3Apull");
        assert_eq!(counts[&token], 1);
    }
    let heads = counts
        .iter()
        .filter(|(asked, _)| asked.starts_with("HEAD "));
    assert!(heads.clone().all(|(_, count)| *count == 1), "{counts:?}");
    assert_eq!(heads.count(), 20);
}

#[test]
fn a_registry_that_wants_a_pause_gets_it() {
    let repo = repo(&["a"]);
    let (server, counts) = registry(|request, count| match (request.method.as_str(), count) {
        ("HEAD", 1) => Answer::Refused(429, "Retry-After: 1".to_owned()),
        _ => Answer::Status(404),
    });
    mirror_at(&repo, &server);
    values(&repo, "a", "a: {image: 'quay.io/a/a:1'}\n");
    let begun = Instant::now();
    let ran = validate(&repo);
    assert!(
        ran.stdout.contains("`quay.io/a/a:1` does not exist\n"),
        "{}",
        ran.stdout
    );
    assert_eq!(counts.lock().unwrap()["HEAD v2/a/a/manifests/1"], 2);
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_registry_that_wants_too_long_a_pause_is_left_alone() {
    let repo = repo(&["a"]);
    let (server, counts) = registry(|_, _| Answer::Refused(429, "Retry-After: 3600".to_owned()));
    mirror_at(&repo, &server);
    let images: String = (10..60)
        .map(|it| format!("a{it}: {{image: 'quay.io/a/a:{it}'}}\n"))
        .collect();
    values(&repo, "a", &images);
    let ran = validate(&repo);
    assert!(ran.stdout.contains("answers 429 Too Many Requests: 50 of its images were not checked, such as `quay.io/a/a:10`\n"), "{}", ran.stdout);
    // No more than there are at once.
    let asked = counts.lock().unwrap().len();
    assert!(asked <= 9, "{asked}");
}

#[test]
fn what_is_no_registry_says_nothing_about_images() {
    let repo = repo(&["a"]);
    let server = Server::answering(|_| Answer::Status(404));
    mirror_at(&repo, &server);
    values(&repo, "a", "a: {image: 'quay.io/a/a:1'}\n");
    let ran = validate(&repo);
    assert!(
        ran.stdout
            .contains(" is no registry: it has no `/v2/`: `quay.io/a/a:1` was not checked\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_page_in_place_of_an_image_is_none() {
    let repo = repo(&["a"]);
    let (server, _) = registry(|_, _| Answer::Page("<html>log in to the network</html>"));
    mirror_at(&repo, &server);
    values(&repo, "a", "a: {image: 'quay.io/a/a:1'}\n");
    let ran = validate(&repo);
    assert!(
        ran.stdout
            .contains(" gives something else for an image: `quay.io/a/a:1` was not checked\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn the_pages_of_tags_are_all_read_at_the_registry_itself() {
    let repo = repo(&["a"]);
    let elsewhere = Arc::new(AtomicUsize::new(0));
    let counted = elsewhere.clone();
    let other = Server::asked(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Answer::Status(404)
    });
    let next = format!("{}/v2/a/a/tags/list?last=1.0&n=1000", other.address);
    let (server, counts) = registry(move |request, _| match request.path.as_str() {
        "v2/a/a/tags/list?n=1000" => {
            Answer::Linked(serde_json::json!({"tags": ["1.0"]}), next.clone())
        }
        "v2/a/a/tags/list?last=1.0&n=1000" => {
            Answer::Json(200, serde_json::json!({"tags": ["2.0.1"]}))
        }
        _ => Answer::Status(404),
    });
    mirror_at(&repo, &server);
    values(&repo, "a", "a: {image: 'quay.io/a/a:2.0.0'}\n");
    let ran = validate(&repo);
    assert!(
        ran.stdout
            .contains("`quay.io/a/a:2.0.0` does not exist: did you mean `2.0.1`?\n"),
        "{}",
        ran.stdout
    );
    assert_eq!(elsewhere.load(Ordering::Relaxed), 0);
    assert_eq!(counts.lock().unwrap().len(), 4);
}

#[test]
fn a_registry_that_does_not_answer_is_waited_for_once() {
    let repo = repo(&["a"]);
    let server = Server::answering(|_| Answer::Silence);
    let address = server.address.trim_start_matches("http://");
    mirror(&repo, &["quay.io"], address);
    values(
        &repo,
        "a",
        "a: {image: 'quay.io/a/a:1'}\nb: {image: 'quay.io/b/b:1'}\n",
    );
    let begun = Instant::now();
    let ran = validate(&repo);
    let expected = "warning: cannot reach REGISTRY: no answer in 10 s: 2 of its images were not checked, such as `quay.io/a/a:1`\n";
    assert!(printed(&ran, address).contains(expected), "{}", ran.stdout);
    assert!(begun.elapsed() < Duration::from_secs(18));
}

#[test]
fn defaults_count_where_users_servers_come_from_them() {
    let repo = repo(&["a", "b"]);
    let registry = Registry::open(Program::Debian, &repo.root.join("../registry"));
    mirror(&repo, &["quay.io"], &registry.address);
    repo.write(
        "helm-charts/pool/values.yaml",
        "singleuser: {image: {name: quay.io/pool/default, tag: '1'}}\n\
         unused: {image: {repository: quay.io/pool/unused, tag: '1'}}\n\
         pods: [quay.io/pool/rendered]\n",
    );
    values(&repo, "a", "singleuser: {image: {name: quay.io/pool/a}}\n");
    values(&repo, "b", "{}\n");
    let ran = validate(&repo);
    let expected = "\
config/clusters/lake/a.values.yaml:1:28: `quay.io/pool/a:1` does not exist
helm-charts/pool/Chart.yaml:1:1: `quay.io/pool/default:1` does not exist (a default of the chart `pool`)
helm-charts/pool/Chart.yaml:1:1: `quay.io/pool/rendered` does not exist (pool/templates/pods.yaml)
1 cluster, 2 hubs: 3 problems
";
    assert_eq!(ran.stdout, expected);
}

#[test]
fn own_images_and_those_of_an_engine_are_not_asked_for() {
    let repo = repo(&["a"]);
    let nobody = free_address();
    mirror(&repo, &["quay.io"], &nobody);
    repo.write("images/own/Dockerfile", "FROM scratch\n");
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "{name: a, ",
        "{name: a, images: [{name: quay.io/own/image, path: ../../../images/own, values_path: singleuser.image}], ",
    );
    values(
        &repo,
        "a",
        "singleuser: {image: {name: quay.io/own/image}}\npods: ['quay.io/own/image:by-hand', 'localhost/a:1']\n",
    );
    let ran = validate(&repo);
    assert!(!ran.stderr.contains("asking"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "1 cluster, 1 hub: no problems\n");
}
