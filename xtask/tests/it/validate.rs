//! `validate` on what breaks programs, what helm renders, what can be fetched, and as a hook of git.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    repo::{Key, Ran, Repo, Shared, copy, executable, persons_cache, tool_path, workspace},
    upstream::{Server, Upstream, index, package},
};

const CLUSTER: &str = "config/clusters/lake/cluster.yaml";

/// A cluster whose hubs, of the chart `pond`, each have one values file, called as it is.
fn cluster(repo: &Repo, hubs: &[String]) {
    let mut yaml =
        "name: lake\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs:\n".to_owned();
    for hub in hubs {
        yaml += &format!(
            "- name: {hub}\n  domain: {hub}.example.org\n  helm_chart: pond\n  \
             helm_chart_values_files: [{hub}.values.yaml]\n"
        );
    }
    repo.write(CLUSTER, &yaml);
}

/// What it found, and that it ended as it ought to.
fn survives(repo: &Repo, args: &str) -> Ran {
    let ran = repo.run(args);
    assert!(
        matches!(ran.code, Some(0 | 1)) && !ran.stderr.contains("panicked"),
        "{:?}: {}",
        ran.code,
        ran.stderr
    );
    ran
}

#[test]
fn ten_runs_write_the_same_bytes() {
    let repo = Repo::new();
    let hubs: Vec<_> = (0..60).map(|it| format!("hub-{it}")).collect();
    cluster(&repo, &hubs);
    for (index, hub) in hubs.iter().enumerate() {
        let text =
            format!("detph: {index}\ngreeting: {index}\nstone: {{a: [1, {{b: yes, b: 2}}]}}\n");
        repo.write(&format!("config/clusters/lake/{hub}.values.yaml"), &text);
    }
    let first = repo.run("validate --format json");
    assert_eq!(first.code, Some(1));
    assert!(first.stdout.lines().count() > 240 * 9, "{}", first.stdout);
    for _ in 0..9 {
        let ran = repo.run("validate --format json");
        assert!(ran.stdout == first.stdout && ran.stderr == first.stderr);
    }
}

#[test]
fn files_that_nobody_should_write() {
    let repo = Repo::new();
    let lake = repo.root.join("config/clusters/lake");
    let long = |text: &str| text.repeat(10_000_000 / text.len());
    let bomb: String = (0..9)
        .map(|it| format!("a{it}: &a{it} [{}]\n", format!("*a{}, ", it - 1).repeat(9)))
        .collect();
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("binary", (0..=255).collect()),
        ("zeros", vec![0; 4096]),
        ("empty", Vec::new()),
        ("brackets", long("[").into()),
        ("braces", long("{a: ").into()),
        ("dashes", long("- ").into()),
        ("questions", long("? ").into()),
        (
            "steps",
            (0..3000)
                .map(|it| format!("{}a:\n", " ".repeat(it)))
                .collect::<String>()
                .into(),
        ),
        (
            "wide",
            format!("stone: {{a: [{}]}}\n", "a, ".repeat(1_000_000)).into(),
        ),
        ("bomb", format!("a: &a-1 x\n{}", bomb).into()),
        ("self", b"a: &a [*a]\n".to_vec()),
        ("utf-16", b"\xff\xfea\0:\0 \x001\0".to_vec()),
        ("surrogate", b"a: \"\\ud800\"\n".to_vec()),
        ("block", b"a: |".to_vec()),
        ("indicator", b"a: |9\n x\n".to_vec()),
    ];
    let mut hubs: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
    for (name, content) in &files {
        fs::write(lake.join(format!("{name}.values.yaml")), content).unwrap();
    }
    symlink("loop.values.yaml", lake.join("loop.values.yaml")).unwrap();
    symlink("/dev/zero", lake.join("endless.values.yaml")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(lake.join("pipe.values.yaml"))
            .status()
            .unwrap()
            .success()
    );
    fs::create_dir(lake.join("folder.values.yaml")).unwrap();
    fs::write(
        lake.join(std::ffi::OsStr::from_bytes(b"\xff.secret.values.yaml")),
        "a: 1\n",
    )
    .unwrap();
    symlink("..", lake.join("up")).unwrap();
    hubs.extend(["loop", "endless", "pipe", "folder"].map(str::to_owned));
    cluster(&repo, &hubs);
    let said = survives(&repo, "validate").stdout;
    let fine = ["empty", "wide"];
    for hub in &hubs {
        let is_named = said.contains(&format!("{hub}.values.yaml"));
        assert_eq!(is_named, !fine.contains(&hub.as_str()), "{hub}: {said}");
    }
    assert!(
        said.contains(
            "config/clusters/lake/\u{fffd}.secret.values.yaml:1:1: this is called secret"
        ),
        "{said}"
    );
}

#[test]
fn clusters_that_nobody_should_write() {
    let repo = Repo::new();
    for content in [
        &b"\xff\xfe"[..],
        b"",
        b"[",
        b"- a",
        b"hubs: {a: 1}",
        b"hubs: [1, null, []]",
        b"&a [*a]",
    ] {
        fs::write(repo.root.join(CLUSTER), content).unwrap();
        let said = survives(&repo, "validate").stdout;
        assert!(
            said.contains("config/clusters/lake/cluster.yaml:"),
            "{content:?}: {said}"
        );
    }
}

#[test]
fn charts_that_nobody_should_write() {
    let chart = "helm-charts/pond";
    let references: String = (0..50_000)
        .map(|it| format!(" x{it}: {{$ref: '#/$defs/x{}'}}\n", it + 1))
        .collect();
    let breaks: Vec<(&str, Vec<u8>)> = vec![
        (
            "values.schema.yaml",
            format!("$ref: '#/$defs/x0'\n$defs:\n{references} x50000: {{}}").into(),
        ),
        ("Chart.yaml", b"\xff".to_vec()),
        ("Chart.yaml", b"name: [".to_vec()),
        ("Chart.lock", b"dependencies: 5".to_vec()),
        ("values.yaml", b"- a".to_vec()),
        ("values.yaml", b"a: \xff".to_vec()),
        ("values.schema.yaml", "[".repeat(100_000).into()),
        ("values.schema.yaml", b"$ref: '#'".to_vec()),
        (
            "values.schema.yaml",
            b"allOf: [{$ref: '#/definitions/a'}]\ndefinitions: {a: {$ref: '#/definitions/a'}}"
                .to_vec(),
        ),
        ("values.schema.yaml", b"$ref: file:///etc/passwd".to_vec()),
        ("charts/stray", b"x".to_vec()),
        ("charts/broken-1.0.0.tgz", b"\x1f\x8b\x08".to_vec()),
        ("charts/folder/values.yaml", b"a: 1".to_vec()),
    ];
    for (file, content) in breaks {
        let repo = Repo::new();
        let path = repo.root.join(chart).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &content).unwrap();
        let ran = survives(&repo, "validate");
        let is_circle = content.starts_with(b"$ref: '#'") || content.starts_with(b"allOf");
        let said = if is_circle {
            "leads back to itself"
        } else {
            chart
        };
        assert!(
            ran.stdout.contains(said) && ran.code == Some(1),
            "{file}: {}",
            ran.stdout
        );
    }
    let repo = Repo::new();
    for name in ["a", "b"] {
        symlink("..", repo.root.join(chart).join(name)).unwrap();
    }
    let ran = survives(&repo, "validate");
    assert!(
        ran.stdout.contains("helm-charts/pond/Chart.yaml:1:1: ")
            && ran.stdout.contains("leads back"),
        "{}",
        ran.stdout
    );
}

/// Each schema refers to the next one twice, so that they would be applied a million times or more.
#[test]
fn references_that_multiply_are_refused_at_once() {
    let twice = |kind: &str| {
        let each = (0..40).map(|it| {
            let next = format!("{{$ref: '#/definitions/x{}'}}", it + 1);
            format!(" x{it}: {{{}}}\n", kind.replace("NEXT", &next))
        });
        let each: String = each.collect();
        format!("$ref: '#/definitions/x0'\ndefinitions:\n{each} x40: {{type: string}}\n")
    };
    let deep = format!("{}1{}\n", "{a: ".repeat(40), "}".repeat(40));
    for (schema, values) in [
        (twice("allOf: [NEXT, NEXT]"), "{}\n"),
        (twice("anyOf: [NEXT, NEXT]"), "{}\n"),
        (twice("if: NEXT, then: NEXT"), "{}\n"),
        (
            twice("properties: {a: {allOf: [NEXT, NEXT]}}"),
            deep.as_str(),
        ),
    ] {
        let repo = Repo::new();
        repo.write("helm-charts/pond/values.schema.yaml", &schema);
        repo.write("config/clusters/lake/common.values.yaml", values);
        let started = Instant::now();
        let said = repo.fails("validate");
        assert!(
            said.contains("its references multiply, and would apply schemas more than 50000 times"),
            "{said}"
        );
        assert!(started.elapsed() < Duration::from_secs(20), "{schema}");
    }
    // What is long, and not deep, is no such schema.
    let repo = Repo::new();
    repo.write(
        "helm-charts/pond/values.schema.yaml",
        "additionalProperties: {anyOf: [{type: string}, {type: number}]}\n",
    );
    let long: String = (0..10_000).map(|it| format!("a{it}: \"b\"\n")).collect();
    repo.write("config/clusters/lake/staging.values.yaml", &long);
    let said = repo.run("validate");
    assert!(!said.stderr.contains("multiply"), "{}", said.stderr);
}

/// Values, charts and clusters with bytes changed, left out and doubled, always the same ones.
#[test]
fn no_input_panics() {
    let seeds = [
        "a: &x {b: [1, 2.50, yes], c: \"t\\u00e9xt\"}\nd: *x\n<<: *x\ne: |-\n  block\n  text\nf: >+\n folded\n",
        "---\n# a comment\nstone: {global: {a: {b: ~}}, colour: !!str 12}\n? key\n: value\n'quoted''s': !!binary aGk=\n",
        "hub:\n  config:\n    JupyterHub: {authenticator_class: dummy}\n    Authenticator: {admin_users: [ann]}\n",
    ];
    let mut state = 88172645463325252_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut mutated = |seed: &str| {
        let mut bytes = seed.as_bytes().to_vec();
        for _ in 0..1 + random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => _ = bytes.remove(at),
                1 => bytes[at] = b"{}[]:,&*!|>%@`'\"\\#-? \n\t~<=\x00\xff\xc3"[random(29)],
                2 => bytes.insert(
                    at,
                    b"{}[]:,&*!|>%@`'\"\\#-? \n\t~<=\x00\xff\xc3"[random(29)],
                ),
                _ => {
                    let end = at + random(bytes.len() - at);
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
            }
            if bytes.is_empty() {
                bytes.push(b'x');
            }
        }
        bytes
    };
    let repo = Repo::new();
    let hubs: Vec<_> = (0..1500).map(|it| format!("h{it}")).collect();
    cluster(&repo, &hubs);
    for (index, hub) in hubs.iter().enumerate() {
        let file = repo
            .root
            .join(format!("config/clusters/lake/{hub}.values.yaml"));
        fs::write(file, mutated(seeds[index % seeds.len()])).unwrap();
    }
    survives(&repo, "validate");
    for file in [
        "helm-charts/pond/values.schema.yaml",
        "helm-charts/pond/Chart.yaml",
        "helm-charts/pond/values.yaml",
        CLUSTER,
    ] {
        let repo = Repo::new();
        let seed = repo.read(file);
        for _ in 0..40 {
            fs::write(repo.root.join(file), mutated(&seed)).unwrap();
            survives(&repo, "validate");
        }
    }
}

#[test]
fn a_deploy_stops_before_anything_is_touched() {
    let shared = Shared::cluster();
    let repo = Repo::on(&shared, &["vain", "good"]);
    repo.write("config/clusters/lake/vain.values.yaml", "depth: deep\n");
    let said = repo.fails("deploy lake");
    assert!(said.contains(
        "config/clusters/lake/vain.values.yaml:1:8: `depth`: it is a string, and must be an integer"
    ));
    assert!(
        !shared
            .kubectl("get namespaces --output name")
            .contains("good"),
        "{said}"
    );
    // The other hub's files are its own.
    repo.ok("deploy lake good");
}

/// After `cp -r`, with what is different by then.
#[test]
fn a_copy_that_leads_to_the_same_cluster() {
    let shared = Shared::cluster();
    let repo = Repo::on(&shared, &["copied"]);
    let lake = repo.root.join("config/clusters/lake");
    let sea = repo.root.join("config/clusters/sea");
    copy(&lake, &sea);
    let yaml = "config/clusters/sea/cluster.yaml";
    repo.edit(yaml, "lake", "sea");
    repo.edit(yaml, "copied.example.org", "sea.example.org");
    let why = "`config/clusters/lake/cluster.yaml` leads to the same cluster";
    let problem = format!("{yaml}:2:11: {why}, and both have `copied` there");
    let said = repo.fails("deploy sea");
    assert!(said.contains(&problem), "{said}");
    let namespaces = shared.kubectl("get namespaces --output name");
    assert!(!namespaces.contains("copied"), "{namespaces}");

    repo.encrypt("config/clusters/lake/kubeconfig.yaml", &Key::new());
    repo.ok("validate sea");
    fs::copy(lake.join("kubeconfig.yaml"), sea.join("kubeconfig.yaml")).unwrap();
    let said = repo.fails("validate sea");
    assert!(said.contains(&problem), "{said}");
    repo.edit(yaml, "name: copied", "name: other");
    let ran = repo.ok("validate sea");
    let warning = format!("{yaml}:2:11: warning: {why}: if one is a copy");
    assert!(ran.stdout.contains(&warning), "{}", ran.stdout);
}

/// A helm that notes each rendering.
fn counting_helm(repo: &mut Repo) -> PathBuf {
    let log = repo.cache().join("renderings");
    let helm = tool_path("helm");
    let count = format!(
        "case \"$1\" in template) echo \"$2\" >> {};; esac",
        log.display()
    );
    repo.script("helm", &format!("{count}\nexec {} \"$@\"", helm.display()));
    log
}

#[test]
fn what_has_not_changed_is_rendered_once() {
    let mut repo = Repo::new();
    let log = counting_helm(&mut repo);
    repo.ok("validate --render");
    let rendered = || {
        let names = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        let mut names: Vec<_> = names.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(rendered(), ["prod", "prod", "staging", "staging"]);
    repo.ok("validate --render");
    assert_eq!(rendered(), [""; 0]);
    repo.write("config/clusters/lake/prod.values.yaml", "depth: 3\n");
    repo.ok("validate --render");
    assert_eq!(rendered(), ["prod"]);
    repo.ok("validate hub-config lake staging --render");
    assert_eq!(rendered(), [""; 0]);
}

/// What a cluster wouldn't take, and what it would.
const BAD: &str = "{{ if eq .Release.Name \"prod\" }}
apiVersion: v1
kind: ConfigMap
metadata: {name: twice}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: twice}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: \"\"}
---
apiVersion: policy/v1beta1
kind: PodDisruptionBudget
metadata: {name: old}
---
apiVersion: apps/v1
kind: Deploymnet
metadata: {name: misspelt}
---
apiVersion: cloud.example.org/v1
kind: Bucket
metadata: {name: foreign}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: known}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: twice, namespace: elsewhere}}
- {apiVersion: v1, kind: Secret}
---
apiVersion: v1
kind: ConfigMapList
items:
- {metadata: {name: in-a-list-of-its-kind}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: hook, annotations: {helm.sh/hook: pre-install}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: hook, annotations: {helm.sh/hook: post-install}}
{{ end }}
";

#[test]
fn rendering_finds_what_a_cluster_would_not_take() {
    let repo = Repo::new();
    repo.write("helm-charts/pond/templates/bad.yaml", BAD);
    repo.write("config/clusters/lake/prod.values.yaml", "depth: 3\n");
    let ran = repo.run("validate lake --render");
    let found: Vec<_> = ran
        .stdout
        .lines()
        .map(|it| it.trim_start_matches("config/clusters/lake/cluster.yaml:"))
        .collect();
    let bad = "pond/templates/bad.yaml";
    assert_eq!(
        found,
        [
            format!("10:11: hub `prod`: {bad}: ConfigMap has no name"),
            format!("10:11: hub `prod`: {bad}: Kubernetes 1.34 has no `apps/v1` Deploymnet"),
            format!(
                "10:11: hub `prod`: {bad}: Kubernetes 1.34 has no `policy/v1beta1` PodDisruptionBudget: write `apiVersion: policy/v1`"
            ),
            format!("10:11: hub `prod`: {bad}: Secret has no name"),
            format!("10:11: hub `prod`: {bad}: a second ConfigMap `twice`"),
            format!(
                "10:11: warning: hub `prod`: {bad}: nothing here defines `cloud.example.org/v1` Bucket: the cluster must have it"
            ),
            "1 cluster, 2 hubs: 5 problems, 1 warning".to_owned(),
        ]
    );
}

#[test]
fn a_hub_that_helm_cannot_render() {
    let repo = Repo::new();
    repo.write("config/clusters/lake/staging.values.yaml", "fail: no way\n");
    let said = survives(&repo, "validate lake staging --render").stdout;
    assert!(
        said.contains("hub `staging`: helm cannot render it: ") && said.contains("no way"),
        "{said}"
    );
}

#[test]
fn encrypted_files_are_rendered_with_placeholders() {
    let mut repo = Repo::new();
    let key = Key::new();
    let secret = "sausage-and-mash-4711";
    let file = "config/clusters/lake/enc-prod.secret.values.yaml";
    repo.write(file, &format!("token: {secret}\ndepth: 4711\n"));
    repo.encrypt(file, &key);
    repo.edit(
        CLUSTER,
        "prod.values.yaml]",
        "prod.values.yaml, enc-prod.secret.values.yaml]",
    );
    repo.edit(
        "helm-charts/pond/values.schema.yaml",
        "token: {type: string}",
        "token: {type: string, pattern: '^(sausage.*)?$'}",
    );
    let no_sops = "echo 'nobody decrypts here' >&2; exit 1";
    repo.script("sops", no_sops);
    repo.ok("validate --render --strict");
    let mut held = Vec::new();
    let mut folders = vec![repo.cache().join("xtask/rendered")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                held.push(fs::read_to_string(path).unwrap())
            }
        }
    }
    assert!(held.len() >= 4 && !held.iter().any(|it| it.contains(secret)));
    // A misspelt key and a wrong type show without the key that could decrypt them.
    repo.write(file, "tokne: sausage-and-mash\ndepth: deep-and-dark\n");
    repo.encrypt(file, &key);
    let said = repo.fails("validate");
    assert!(
        said.contains(&format!(
            "{file}:1:1: there is no key `tokne`: did you mean `token`?"
        )),
        "{said}"
    );
    assert!(
        said.contains(&format!(
            "{file}:2:8: `depth`: it is a string, and must be an integer"
        )),
        "{said}"
    );
}

#[test]
fn what_a_chart_depends_on_is_fetched_when_asked() {
    let ingress = |hub: &str| {
        format!(
            "{{hosts: [{hub}.example.org], tls: [{{hosts: [{hub}.example.org], secretName: a}}]}}"
        )
    };
    let (repo, upstream) = (Repo::own(), Upstream::shared());
    upstream.serve(&repo);
    let base = "nfs: {pv: {serverIP: 10.0.0.9}}";
    let hub = |name: &str, chart: &str| {
        format!(
            "- {{name: {name}, domain: {name}.example.org, helm_chart: {chart}, helm_chart_values_files: [{name}.values.yaml]}}\n"
        )
    };
    let start = "name: sea\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\n";
    let support = "support: {helm_chart_values_files: [support.values.yaml]}\n";
    let hubs = hub("staging", "basehub") + &hub("dask", "daskhub");
    repo.write(
        "config/clusters/sea/cluster.yaml",
        &format!("{start}{support}hubs:\n{hubs}"),
    );
    repo.write(
        "config/clusters/sea/staging.values.yaml",
        &format!(
            "{base}\njupyterhub: {{ingress: {}, hub: {{nonsense: 1}}}}\n",
            ingress("staging")
        ),
    );
    repo.write(
        "config/clusters/sea/dask.values.yaml",
        &format!(
            "basehub: {{{base}, jupyterhub: {{ingress: {}}}}}\n",
            ingress("dask")
        ),
    );
    repo.write("config/clusters/sea/support.values.yaml", "{}\n");
    let before = repo.ok("validate").stdout;
    assert!(
        before.contains("helm-charts/basehub/Chart.yaml:")
            && before.contains("warning: the values of `jupyterhub` 4.4.0 were not checked")
    );
    assert!(!before.contains("nonsense"), "{before}");
    assert_eq!(repo.run("validate --strict").code, Some(1));
    let after = repo.run("validate --fetch --strict");
    assert!(
        !after.stdout.contains("were not checked"),
        "{}",
        after.stdout
    );
    // From now on no network is needed.
    repo.write(
        "config/xtask.yaml",
        "chart_mirrors: {\"https://hub.jupyter.org\": \"http://127.0.0.1:1\"}\n",
    );
    assert_eq!(repo.run("validate --strict").stdout, after.stdout);
}

/// The default class of JupyterHub's chart is the same whether the chart is there or not.
#[test]
fn who_gets_into_a_hub_is_told_alike_with_an_empty_cache_and_a_full_one() {
    let upstream = Repo::new();
    upstream.write(
        "jupyterhub/Chart.yaml",
        "apiVersion: v2\nname: jupyterhub\nversion: 4.4.0\n",
    );
    upstream.write(
        "jupyterhub/values.yaml",
        "hub:\n  config:\n    JupyterHub: {authenticator_class: dummy}\n  extraConfig: {}\n",
    );
    let served = upstream.root.join("served");
    package(&upstream.root.join("jupyterhub"), &served);
    index(&served);
    let server = Server::serving(&served);
    let repo = Repo::new();
    let hubs = ["unset", "program", "taken-away"].map(str::to_owned);
    cluster(&repo, &hubs);
    repo.write(
        "helm-charts/pond/Chart.yaml",
        &format!(
            "apiVersion: v2\nname: pond\nversion: 0.1.0\ndependencies:\n- name: jupyterhub\n  version: 4.4.0\n  \
             repository: {}\n",
            server.address
        ),
    );
    fs::remove_file(repo.root.join("helm-charts/pond/values.schema.yaml")).unwrap();
    let admins = "jupyterhub:\n  hub:\n    config:\n      Authenticator: {admin_users: [ann]}\n";
    let rest = [
        "",
        "    extraConfig: {lake: c.JupyterHub.authenticator_class = LakeAuthenticator}\n",
        "      JupyterHub: {authenticator_class: null}\n",
    ];
    for (hub, rest) in hubs.iter().zip(rest) {
        repo.write(
            &format!("config/clusters/lake/{hub}.values.yaml"),
            &format!("{admins}{rest}"),
        );
    }
    let before = repo.fails("validate authenticator-config lake");
    assert!(
        before.contains("anybody can be an admin of hub `unset`"),
        "{before}"
    );
    for other in ["program", "taken-away"] {
        assert!(!before.contains(other), "{before}");
    }
    let fetched = repo.run("validate lake --fetch").stdout;
    assert!(!fetched.contains("were not checked"), "{fetched}");
    assert_eq!(repo.fails("validate authenticator-config lake"), before);
}

#[test]
fn this_repository_is_clean() {
    let repo = Repo::own();
    fs::copy(workspace().join(".sops.yaml"), repo.root.join(".sops.yaml")).unwrap();
    assert_eq!(
        repo.ok("validate --render --strict").stdout,
        "1 cluster, 2 hubs: no problems\n"
    );
}

/// A git repository in which `cargo xtask` is the program.
fn in_git(repo: &mut Repo, pre_commit: &Path) -> impl Fn(&str) -> (bool, String) + use<> {
    for file in [".pre-commit-config.yaml", ".githooks/pre-commit"] {
        fs::create_dir_all(repo.root.join(file).parent().unwrap()).unwrap();
        fs::copy(workspace().join(file), repo.root.join(file)).unwrap();
    }
    repo.script(
        "cargo",
        &format!(
            "[ \"$1\" = xtask ] && shift && exec {} \"$@\"",
            env!("CARGO_BIN_EXE_xtask")
        ),
    );
    let bin = repo.home().parent().unwrap().join("bin");
    executable(&bin.join("pre-commit"), "exec python3 -m pre_commit \"$@\"");
    let env = repo.env.clone();
    let (root, home, pre_commit) = (repo.root.clone(), repo.home(), pre_commit.to_owned());
    move |script: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-ec", script])
            .current_dir(&root)
            .env("HOME", &home)
            .envs(env.iter().cloned());
        let name = [
            "GIT_AUTHOR_NAME",
            "GIT_AUTHOR_EMAIL",
            "GIT_COMMITTER_NAME",
            "GIT_COMMITTER_EMAIL",
        ];
        command
            .envs(name.map(|it| (it, "ann")))
            .env("PYTHONPATH", &pre_commit)
            .env_remove("XTASK_ROOT");
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr]
            .map(|it| String::from_utf8_lossy(&it).into_owned())
            .concat();
        (output.status.success(), text)
    }
}

#[test]
fn hooks_block_a_bad_commit() {
    let mut repo = Repo::new();
    let pre_commit = persons_cache().join("xtask/tests/pre-commit==4.6.0");
    assert!(pre_commit.is_dir(), "`cargo xtask ci` installs pre-commit");
    let git = in_git(&mut repo, &pre_commit);
    for install in [
        "pre-commit install",
        "pre-commit uninstall && git config core.hooksPath .githooks",
    ] {
        let (installed, said) = git(&format!("git init --quiet && git add --all && {install}"));
        assert!(installed, "{said}");
        repo.write("config/clusters/lake/prod.values.yaml", "depth: 2\n");
        let (committed, said) =
            git("git add --all && git commit --quiet --allow-empty --message fine");
        assert!(committed, "{said}");
        repo.write("config/clusters/lake/prod.values.yaml", "depht: 2\n");
        let (committed, said) = git("git add --all && git commit --quiet --message bad");
        assert!(!committed, "{said}");
        assert!(
            said.contains("config/clusters/lake/prod.values.yaml:1:1: there is no key `depht`"),
            "{said}"
        );
    }
    let manifest = workspace().join(".pre-commit-hooks.yaml");
    let (valid, said) = git(&format!(
        "pre-commit validate-manifest {}",
        manifest.display()
    ));
    assert!(valid, "{said}");
}
