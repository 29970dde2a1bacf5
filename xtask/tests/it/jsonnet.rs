//! Values in jsonnet: what helm gets of them, what they are made from, and what they must not reach.

use std::{
    fs,
    os::unix::fs::symlink,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    generate::{commit, git, pairs},
    repo::{Key, Ran, Repo, Shared, workspace},
    setup::bare,
};

const LAKE: &str = "config/clusters/lake";
const YAML: &str = "config/clusters/lake/cluster.yaml";
const OF_CHART: &str = "helm-charts/pool/values.jsonnet";

/// A chart that puts its values into a ConfigMap.
fn chart(repo: &Repo, name: &str) {
    let folder = format!("helm-charts/{name}");
    repo.write(
        &format!("{folder}/Chart.yaml"),
        &format!("apiVersion: v2\nname: {name}\nversion: 0.1.0\n"),
    );
    repo.write(
        &format!("{folder}/templates/all.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: pool}\n\
         data: {{ omit .Values \"global\" \"ingress\" \"stone\" | toYaml | nindent 2 }}\n",
    );
}

/// A repository whose one cluster has hubs with the chart `pool`, each with its values files.
fn hubs(hubs: &[(&str, &[&str])]) -> Repo {
    let repo = Repo::new();
    fs::remove_dir_all(repo.root.join("config/clusters/river")).unwrap();
    chart(&repo, "pool");
    let list = hubs.iter().map(|(name, files)| {
        json!({
            "name": name, "domain": format!("{name}.example.org"), "helm_chart": "pool",
            "helm_chart_values_files": files, "health_check": false,
        })
    });
    let list: Vec<_> = list.collect();
    let yaml = json!({"name": "lake", "provider": "local", "hubs": list});
    repo.write(YAML, &yaml.to_string());
    for file in ["common", "prod", "staging"] {
        fs::remove_file(repo.root.join(format!("{LAKE}/{file}.values.yaml"))).unwrap();
    }
    repo
}

/// With the hub `reef`, and these files beside its cluster.yaml, all of which it lists.
fn reef(files: &[(&str, &str)]) -> Repo {
    let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
    let repo = hubs(&[("reef", &names)]);
    for (name, text) in files {
        repo.write(&format!("{LAKE}/{name}"), text);
    }
    repo
}

/// What helm renders for the hub `reef`.
fn rendered(repo: &Repo) -> String {
    repo.ok("deploy lake reef --dry-run").stdout
}

#[track_caller]
fn shows(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[track_caller]
fn is_clean(repo: &Repo, args: &str) {
    let said = repo.ok(args).stdout;
    assert!(said.ends_with(": no problems\n"), "{said}");
}

/// A chart that another one depends on has no say: only the chart of the hub is asked.
#[test]
fn the_last_file_wins() {
    let repo = reef(&[
        ("a.yaml", "{three: a, four: a, five: a}\n"),
        ("b.jsonnet", "{ four: 'b', five: 'b' }\n"),
        ("c.yaml", "five: c\n"),
    ]);
    repo.write(
        "helm-charts/pool/values.yaml",
        "{one: defaults, two: defaults, three: defaults, four: defaults, five: defaults}\n",
    );
    repo.write(
        OF_CHART,
        "{ two: 'chart', three: 'chart', four: 'chart', five: 'chart' }\n",
    );
    repo.write(
        "helm-charts/pool/Chart.yaml",
        "apiVersion: v2\nname: pool\nversion: 0.1.0\n\
         dependencies: [{name: stone, version: 0.1.0, repository: file://../stone}]\n",
    );
    repo.write(
        "helm-charts/stone/values.jsonnet",
        "error 'it was evaluated'\n",
    );
    let values = [
        "  one: defaults\n",
        "  two: chart\n",
        "  three: a\n",
        "  four: b\n",
        "  five: c\n",
    ];
    shows(&rendered(&repo), &values);
    is_clean(&repo, "validate lake --render");
}

/// The values of support that all clusters share come before those of its chart.
#[test]
fn the_last_file_of_support_wins() {
    let mut repo = hubs(&[]);
    let key = Key::new();
    repo.has_key(&key);
    let yaml = json!({
        "name": "lake", "provider": "local", "hubs": [],
        "support": {"cert_manager": false, "helm_chart_values_files": ["own.yaml"]},
    });
    repo.write(YAML, &yaml.to_string());
    chart(&repo, "support");
    for (file, values) in [
        (
            "enc-support",
            "{token: x, one: shared, two: shared, three: shared, four: shared}",
        ),
        (
            "enc-cryptnono",
            "{token: y, two: second, three: second, four: second}",
        ),
    ] {
        let file = format!("helm-charts/support/{file}.secret.values.yaml");
        repo.write(&file, values);
        repo.encrypt_by(&file, &key, "encrypted_regex: ^token$");
    }
    repo.write(
        "helm-charts/support/values.jsonnet",
        "{ three: std.extVar('XTASK_CLUSTER_NAME'), four: 'chart' }\n",
    );
    repo.write("config/clusters/lake/own.yaml", "four: own\n");
    let said = repo.ok("deploy-support lake --dry-run").stdout;
    shows(
        &said,
        &[
            "  one: shared\n",
            "  two: second\n",
            "  three: lake\n",
            "  four: own\n",
        ],
    );
    is_clean(&repo, "validate support-config lake --render");
}

/// What is told by an error that has all variables of both prefixes.
#[test]
fn every_variable_has_two_names() {
    let repo = reef(&[(
        "own.jsonnet",
        "local names = ['CLUSTER_NAME', 'HUB_NAME', 'HUB_DOMAIN', 'PROVIDER', 'ACCOUNT_ID'];\n\
         local all(prefix) = std.join(' ', [std.extVar(prefix + name) for name in names]);\n\
         assert all('VARS_2I2C_') == all('XTASK_');\n\
         error all('XTASK_')\n",
    )]);
    let mut yaml: Value = serde_json::from_str(&repo.read(YAML)).unwrap();
    for (provider, own, wanted) in [
        ("local", json!({}), "lake reef reef.example.org local None"),
        (
            "aws",
            json!({"clusterName": "eks-lake", "region": "r", "account": "012345678901"}),
            "eks-lake reef reef.example.org aws 012345678901",
        ),
        (
            "aws",
            json!({"clusterName": "eks-lake", "region": "r", "account": 123456789012_u64}),
            "eks-lake reef reef.example.org aws 123456789012",
        ),
        (
            "gcp",
            json!({"project": "waters", "cluster": "gke-lake", "zone": "z"}),
            "lake reef reef.example.org gcp waters",
        ),
        (
            "kubeconfig",
            json!({"file": "kubeconfig.yaml"}),
            "lake reef reef.example.org kubeconfig None",
        ),
    ] {
        yaml["provider"] = provider.into();
        yaml[provider] = own;
        repo.write(YAML, &yaml.to_string());
        let said = repo.fails("validate hub-config lake");
        shows(&said, &[&format!("cannot be evaluated: {wanted};")]);
    }
}

#[test]
fn support_has_no_hub() {
    let repo = hubs(&[]);
    chart(&repo, "support");
    let yaml = json!({
        "name": "lake", "provider": "local", "hubs": [], "support": {"helm_chart_values_files": []},
    });
    repo.write(YAML, &yaml.to_string());
    for name in ["HUB_NAME", "HUB_DOMAIN"] {
        for prefix in ["XTASK_", "VARS_2I2C_"] {
            let text = format!("{{\n  name: std.extVar('{prefix}{name}'),\n}}\n");
            repo.write("helm-charts/support/values.jsonnet", &text);
            let said = repo.fails("validate support-config lake");
            shows(
                &said,
                &[
                    "helm-charts/support/values.jsonnet:2:9: `support` of `lake`: ",
                    &format!(": Undefined external variable: {prefix}{name}"),
                ],
            );
        }
    }
}

/// A repository with the chart `reefs`, whose values.jsonnet is a link to that of `pool`, and asks in which folder it is.
fn linked() -> Repo {
    let repo = reef(&[]);
    repo.edit(YAML, "\"pool\"", "\"reefs\"");
    chart(&repo, "reefs");
    repo.write(
        OF_CHART,
        "local steps = std.split(std.thisFile, '/');\n\
         { file: std.thisFile, folder: steps[std.length(steps) - 2] }\n",
    );
    symlink(
        "../pool/values.jsonnet",
        repo.root.join("helm-charts/reefs/values.jsonnet"),
    )
    .unwrap();
    let schema = |folder: &str| json!({"properties": {"folder": {"const": folder}}}).to_string();
    repo.write("helm-charts/reefs/values.schema.yaml", &schema("reefs"));
    repo
}

#[test]
fn a_file_is_where_the_link_to_it_is() {
    let repo = linked();
    let file = repo.root.join("helm-charts/reefs/values.jsonnet");
    let parts = [
        &*format!("  file: {}\n", file.display()),
        "  folder: reefs\n",
    ];
    shows(&rendered(&repo), &parts);
    is_clean(&repo, "validate lake --render");

    let from_elsewhere = |args: &str, root: &str| -> Ran {
        let mut command = repo.command(args);
        command.current_dir(repo.home()).args(["--root", root]);
        command.spawn().unwrap().into()
    };
    for args in ["validate lake", "deploy lake --dry-run"] {
        let ran = from_elsewhere(args, "../repo");
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    }
    shows(
        &from_elsewhere("deploy lake --dry-run", "../repo").stdout,
        &parts,
    );

    git(&repo.root, &["init", "--quiet"]);
    git(&repo.root, &["add", "."]);
    is_clean(&repo, "validate lake --staged");
    repo.edit("helm-charts/reefs/values.schema.yaml", "reefs", "pool");
    git(&repo.root, &["add", "."]);
    for args in ["validate lake", "validate lake --staged"] {
        shows(&repo.fails(args), &["`folder`: only `pool` may be here"]);
    }
}

#[test]
fn a_link_that_leads_nowhere() {
    let repo = linked();
    fs::remove_file(repo.root.join(OF_CHART)).unwrap();
    let wanted = "hub `reef`: `helm-charts/reefs/values.jsonnet` doesn't exist";
    for args in ["validate lake", "deploy lake --dry-run"] {
        shows(&repo.fails(args), &[wanted]);
    }
    git(&repo.root, &["init", "--quiet"]);
    git(&repo.root, &["add", "."]);
    let wanted = "hub `reef`: `helm-charts/reefs/values.jsonnet` isn't in git's index";
    shows(&repo.fails("validate lake --staged"), &[wanted]);
}

/// Beside the file that imports first, and then in the folder of the file that is evaluated.
#[test]
fn where_an_import_looks() {
    let repo = reef(&[("own.jsonnet", "(import 'lib/all.libsonnet')\n")]);
    repo.write(
        &format!("{LAKE}/lib/all.libsonnet"),
        "{ both: import 'both.libsonnet', outer: import 'outer.libsonnet', text: importstr 'text.txt' }\n",
    );
    repo.write(&format!("{LAKE}/both.libsonnet"), "'outer'\n");
    repo.write(&format!("{LAKE}/lib/both.libsonnet"), "'inner'\n");
    repo.write(&format!("{LAKE}/outer.libsonnet"), "'outer'\n");
    repo.write(&format!("{LAKE}/lib/text.txt"), "of a file");
    // The current folder is no place to look in, and neither is the root.
    repo.write("text.txt", "of the root");
    let values = ["  both: inner\n", "  outer: outer\n", "  text: of a file\n"];
    shows(&rendered(&repo), &values);
}

/// Two hubs whose domains are encrypted. Their chart makes values of the domains, and of parts of them.
fn with_domains(cluster: &Shared) -> Repo {
    let mut repo = hubs(&[("hushed", &[]), ("hidden", &[])]);
    let kubeconfig = repo.root.join(LAKE).join("kubeconfig.yaml");
    fs::copy(&cluster.kubeconfig, kubeconfig).unwrap();
    let key = Key::new();
    repo.has_key(&key);
    let mut yaml: Value = serde_json::from_str(&repo.read(YAML)).unwrap();
    yaml["provider"] = "kubeconfig".into();
    yaml["kubeconfig"] = json!({"file": "kubeconfig.yaml"});
    for (index, (hub, label)) in [("hushed", "petrel"), ("hidden", "gannet")]
        .into_iter()
        .enumerate()
    {
        let file = format!("enc-{hub}.secret.yaml");
        let path = format!("{LAKE}/{file}");
        repo.write(
            &path,
            &format!("domain: {label}.nobody-knows.example.org\n"),
        );
        repo.encrypt(&path, &key);
        yaml["hubs"][index]["domain"] = "same.example.org".into();
        yaml["hubs"][index]["domain_override_file"] = file.into();
    }
    repo.write(YAML, &yaml.to_string());
    repo.write(
        OF_CHART,
        "local domain = std.extVar('XTASK_HUB_DOMAIN');\n\
         {\n\
         host: domain,\n\
         label: std.split(domain, '.')[0],\n\
         reversed: std.join('', std.reverse(std.stringChars(domain))),\n\
         plain: std.extVar('XTASK_HUB_NAME'),\n\
         ingress: { enabled: true, hosts: [domain] },\n\
         }\n",
    );
    repo
}

#[track_caller]
fn hides_domains(ran: &Ran) {
    let said = format!("{}{}", ran.stdout, ran.stderr);
    for part in [
        "petrel",
        "gannet",
        "lertep",
        "tennag",
        "nobody-knows",
        "swonk-ydobon",
    ] {
        assert!(!said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_domain_that_is_encrypted_is_shown_nowhere() {
    let cluster = Shared::cluster();
    let repo = with_domains(&cluster);
    let dry = repo.ok("deploy lake --dry-run");
    hides_domains(&dry);
    shows(&dry.stdout, &["  plain: hushed\n", "  label: '***'\n"]);
    let ran = repo.run("deploy lake --diff --dry-run");
    hides_domains(&ran);
    shows(&ran.stdout, &["+  plain: hidden\n", "+  label: '***'\n"]);

    repo.ok("deploy lake");
    let data = |hub: &str, key: &str| {
        cluster.kubectl(&format!(
            "get configmap pool -n {hub} -o jsonpath={{.data.{key}}}"
        ))
    };
    assert_eq!(data("hushed", "host"), "petrel.nobody-knows.example.org");
    assert_eq!(data("hidden", "label"), "gannet");
    assert_eq!(
        data("hidden", "reversed"),
        "gro.elpmaxe.swonk-ydobon.tennag"
    );
    no_cache_has(&repo, "nobody-knows");
    repo.edit(OF_CHART, "domain, '.')[0]", "domain, '.')[1]");
    repo.edit(OF_CHART, "plain: ", "plain: 'now ' + ");
    let ran = repo.run("deploy lake --diff --dry-run");
    hides_domains(&ran);
    shows(
        &ran.stdout,
        &["+  plain: now hidden\n", "+  label: '*** (new)'\n"],
    );
}

/// A placeholder stands for it, which is a name that a schema takes, and which no other hub has.
#[test]
fn a_domain_that_is_encrypted_is_checked_as_a_name() {
    let cluster = Shared::cluster();
    let repo = with_domains(&cluster);
    repo.write(
        "helm-charts/pool/values.schema.yaml",
        "properties: {host: {type: string, format: hostname, pattern: '^[a-z0-9.-]+$'}, label: {maxLength: 63, minLength: 1}}\n",
    );
    let said = repo.ok("validate lake --render").stdout;
    assert!(!said.contains("host"), "{said}");
    let rest = repo
        .read(OF_CHART)
        .replace("std.extVar('XTASK_HUB_DOMAIN')", "'one.example.org'");
    repo.write(OF_CHART, &rest);
    let said = repo.fails("validate lake");
    shows(&said, &["its ingress has the host `one.example.org`"]);
}

/// What a test looks for where it must not be.
const MARKER: &str = "all-that-is-on-this-machine";

#[test]
fn what_cannot_be_imported_is_in_no_output_and_no_cache() {
    let imports = [
        "import '../../../../outside.libsonnet'",
        "import 'link.libsonnet'",
        "import 'lib/up.libsonnet'",
        "importstr '/proc/self/environ'",
        "importstr '../../../.git/config'",
        "importbin '/proc/self/environ'",
        "importbin '../../../../outside.libsonnet'",
    ];
    let names: Vec<_> = (0..imports.len()).map(|it| format!("reef-{it}")).collect();
    let files: Vec<_> = names.iter().map(|it| format!("{it}.jsonnet")).collect();
    let files: Vec<_> = files.iter().map(|it| [it.as_str()]).collect();
    let all: Vec<_> = names
        .iter()
        .zip(&files)
        .map(|(name, file)| (name.as_str(), &file[..]))
        .collect();
    let mut repo = hubs(&all);
    let folder = repo.root.join(LAKE);
    for (name, import) in names.iter().zip(imports) {
        repo.write(
            &format!("{LAKE}/{name}.jsonnet"),
            &format!("{{\n  note: {import},\n}}\n"),
        );
    }
    fs::create_dir(folder.join("lib")).unwrap();
    repo.write(
        &format!("{LAKE}/lib/up.libsonnet"),
        "importstr '../../../../../outside.libsonnet'\n",
    );
    let outside = repo.root.parent().unwrap().to_owned();
    fs::write(outside.join("outside.libsonnet"), format!("'{MARKER}'\n")).unwrap();
    symlink(
        "../../../../outside.libsonnet",
        folder.join("link.libsonnet"),
    )
    .unwrap();
    git(&repo.root, &["init", "--quiet"]);
    git(&repo.root, &["config", "user.name", MARKER]);
    repo.env.push(("MARKER".into(), MARKER.into()));

    for args in [
        "validate lake --render",
        "deploy lake --dry-run",
        "generate helm-upgrade-jobs x",
    ] {
        let ran = repo.run(args);
        let said = ran.stdout + &ran.stderr;
        assert!(!said.contains(MARKER), "{args}: {said}");
        if !args.starts_with("generate") {
            every_import_is_refused(&said, &imports);
        }
    }
    no_cache_has(&repo, MARKER);
}

#[track_caller]
fn no_cache_has(repo: &Repo, text: &str) {
    let mut grep = Command::new("grep");
    grep.args([
        "--recursive",
        "--files-with-matches",
        text,
        "--exclude-dir=tools",
    ])
    .arg(repo.cache());
    let found = String::from_utf8(grep.output().unwrap().stdout).unwrap();
    assert_eq!(found, "");
}

fn every_import_is_refused(said: &str, imports: &[&str]) {
    for (number, import) in imports.iter().enumerate() {
        let of_hub = format!("hub `reef-{number}` of `lake`: ");
        let line = said.lines().find(|it| it.contains(&of_hub));
        let line = line.unwrap_or_else(|| panic!("{import}: {said}"));
        let place = match *import {
            "import 'lib/up.libsonnet'" => "lib/up.libsonnet:1:1: ".to_owned(),
            _ => format!("reef-{number}.jsonnet:2:9: "),
        };
        assert!(line.contains(&place), "{import}: {line}");
        let is_refused = line.contains(": cannot import ")
            && (line.contains("outside of the repository") || line.contains(".git"));
        assert!(is_refused, "{import}: {line}");
    }
}

/// Each with what is said of it. What needs too much memory may need too much time before.
const WITHOUT_END: [(&str, &str, &[&str]); 6] = [
    (
        "stack",
        "local f(x) = f(x) + 1;\n{ note: f(1) }\n",
        &["stack.jsonnet:1:14: ", "max stack frames exceeded"],
    ),
    (
        "loop",
        "local r = std.range(1, 100000);\n\
         std.foldl(function(sum, _) std.foldl(function(sum, _) sum + 1, r, sum), r, 0)\n",
        &["loop.jsonnet:1:1: ", "it takes more than 5 s"],
    ),
    (
        "repeat",
        "{ note: std.repeat('x', 1e9) }\n",
        &["repeat.jsonnet:1:1: ", "it takes "],
    ),
    (
        "range",
        "{ note: std.length(std.range(1, 1e8)) }\n",
        &["range.jsonnet:1:1: ", "it takes "],
    ),
    ("nested", "[", &["nested.jsonnet:1:1: "]),
    (
        "made",
        "std.foldl(function(sum, it) [sum], std.range(1, 100000), 1)\n",
        &["made.jsonnet:1:1: "],
    ),
];

#[test]
fn what_never_ends_is_ended() {
    let files: Vec<_> = WITHOUT_END
        .iter()
        .map(|(name, _, _)| format!("{name}.jsonnet"))
        .collect();
    let files: Vec<_> = files.iter().map(|it| [it.as_str()]).collect();
    let mut all = vec![("before", &["depth.jsonnet"][..])];
    all.extend(
        WITHOUT_END
            .iter()
            .zip(&files)
            .map(|((name, _, _), file)| (*name, &file[..])),
    );
    all.push(("after", &["depth.jsonnet"]));
    let repo = hubs(&all);
    repo.write(
        "helm-charts/pool/values.schema.yaml",
        "properties: {depth: {type: integer}}\n",
    );
    repo.write(
        &format!("{LAKE}/depth.jsonnet"),
        "{ depth: std.extVar('XTASK_HUB_NAME') }\n",
    );
    for (name, text, _) in WITHOUT_END {
        let text = if name == "nested" {
            text.repeat(100_000)
        } else {
            text.to_owned()
        };
        repo.write(&format!("{LAKE}/{name}.jsonnet"), &text);
    }
    let start = Instant::now();
    let said = repo.fails("validate lake");
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    for (name, _, wanted) in WITHOUT_END {
        let of_hub = format!("hub `{name}` of `lake`: ");
        let line = said.lines().find(|it| it.contains(&of_hub));
        shows(line.unwrap_or_else(|| panic!("{name}: {said}")), wanted);
    }
    shows(
        &said,
        &[
            "depth.jsonnet:1:3: hub `after` of `lake`: `depth`: it is a string, and must be an integer",
        ],
    );
}

#[test]
fn a_file_in_jsonnet_is_not_encrypted() {
    let mut repo = reef(&[("own.jsonnet", "{ note: 'out-of-sight' }\n")]);
    let key = Key::new();
    repo.has_key(&key);
    repo.encrypt(&format!("{LAKE}/own.jsonnet"), &key);
    for args in ["validate lake", "deploy lake --dry-run"] {
        let said = repo.fails(args);
        shows(
            &said,
            &[
                "own.jsonnet:1:1: sops encrypted this file, and what evaluates jsonnet gets no secrets",
            ],
        );
    }
    // Nor is what it imports decrypted.
    repo.write(&format!("{LAKE}/enc-own.yaml"), "note: out-of-sight\n");
    repo.encrypt(&format!("{LAKE}/enc-own.yaml"), &key);
    repo.write(
        &format!("{LAKE}/own.jsonnet"),
        "{ note: std.parseYaml(importstr 'enc-own.yaml').note }\n",
    );
    for args in ["validate lake", "deploy lake --dry-run"] {
        let said = repo.fails(args);
        shows(&said, &["own.jsonnet:1:", "`note` was encrypted by sops"]);
        assert!(!said.contains("out-of-sight"), "{said}");
    }
}

/// A repository in git, with hubs of three charts, and with what each release is made from by a different way.
fn changing() -> Repo {
    let repo = hubs(&[("b", &[]), ("a", &["a.jsonnet"]), ("c", &[])]);
    let mut yaml: Value = serde_json::from_str(&repo.read(YAML)).unwrap();
    yaml["hubs"][2]["helm_chart"] = "reefs".into();
    yaml["support"] = json!({"helm_chart_values_files": []});
    yaml["provider"] = "kubeconfig".into();
    yaml["kubeconfig"] = json!({"file": "kubeconfig.yaml"});
    repo.write(YAML, &yaml.to_string());
    for name in ["reefs", "support"] {
        chart(&repo, name);
    }
    let lib = format!("{LAKE}/lib");
    for (file, text) in [
        (
            &*format!("{LAKE}/a.jsonnet"),
            "import 'lib/deep.libsonnet'\n",
        ),
        (
            &format!("{lib}/deep.libsonnet"),
            "import '../lib/deeper.libsonnet'\n",
        ),
        (
            &format!("{lib}/deeper.libsonnet"),
            "std.parseYaml(importstr 'note.yaml') + import 'shared.libsonnet'\n",
        ),
        (&format!("{lib}/note.yaml"), "note: a\n"),
        (&format!("{LAKE}/shared.libsonnet"), "{ shared: 'yes' }\n"),
        (
            OF_CHART,
            "if std.extVar('XTASK_HUB_NAME') == 'b' then import '../../lib/only-b.libsonnet' else {}\n",
        ),
        ("lib/only-b.libsonnet", "{ note: 'b' }\n"),
        (
            "helm-charts/support/values.jsonnet",
            "import '../../lib/support.libsonnet'\n",
        ),
        ("lib/support.libsonnet", "{ note: 's' }\n"),
        ("lib/other.libsonnet", "{}\n"),
    ] {
        repo.write(file, text);
    }
    symlink(
        "../pool/values.jsonnet",
        repo.root.join("helm-charts/reefs/values.jsonnet"),
    )
    .unwrap();
    git(&repo.root, &["init", "--quiet"]);
    commit(&repo, "first");
    repo
}

/// What the changed files make upgrade, such as `a b support`.
fn upgraded(repo: &Repo, args: &str) -> String {
    let ran = repo.ok(&format!("generate helm-upgrade-jobs --format json {args}"));
    let lists: Value = serde_json::from_str(&ran.stdout).unwrap();
    let hubs = pairs(&lists["prod-jobs"], "hub_names");
    let mut names: Vec<_> = hubs.into_iter().map(|(_, hub)| hub).collect();
    let supports = lists["support-jobs"].as_array().unwrap();
    names.extend(supports.iter().map(|_| "support".to_owned()));
    names.join(" ")
}

#[test]
fn what_values_come_from_redeploys_whose_they_are() {
    let repo = changing();
    for (changed, wanted) in [
        ("config/clusters/lake/a.jsonnet", "a"),
        ("config/clusters/lake/lib/deep.libsonnet", "a"),
        ("config/clusters/lake/lib/deeper.libsonnet", "a"),
        ("config/clusters/lake/lib/note.yaml", "a"),
        ("config/clusters/lake/shared.libsonnet", "a"),
        ("lib/only-b.libsonnet", "b"),
        ("lib/support.libsonnet", "support"),
        ("helm-charts/support/values.jsonnet", "support"),
        ("helm-charts/pool/values.jsonnet", "a b c"),
        ("helm-charts/reefs/values.jsonnet", "c"),
        ("lib/other.libsonnet", ""),
    ] {
        assert_eq!(upgraded(&repo, changed), wanted, "{changed}");
    }
}

/// One that is new is found before the one that was found.
#[test]
fn a_file_that_shadows_another() {
    let repo = changing();
    repo.write(
        &format!("{LAKE}/lib/shared.libsonnet"),
        "{ shared: 'no' }\n",
    );
    assert_eq!(
        upgraded(&repo, &format!("{LAKE}/lib/shared.libsonnet")),
        "a"
    );
}

/// A file that is deleted, and what its import finds in its place.
#[test]
fn a_file_that_values_came_from_is_gone() {
    let repo = changing();
    fs::rename(
        repo.root.join(format!("{LAKE}/lib/note.yaml")),
        repo.root.join(format!("{LAKE}/note.yaml")),
    )
    .unwrap();
    fs::remove_file(repo.root.join("lib/only-b.libsonnet")).unwrap();
    commit(&repo, "second");
    assert_eq!(upgraded(&repo, "--base HEAD~1"), "a b");
}

/// The index counts, for the file and for what it imports.
#[test]
fn what_is_staged_is_evaluated() {
    let repo = reef(&[("own.jsonnet", "import 'lib.libsonnet'\n")]);
    let lib = format!("{LAKE}/lib.libsonnet");
    git(&repo.root, &["init", "--quiet"]);
    repo.write(&lib, "{ note: 'fine' }\n");
    git(&repo.root, &["add", "."]);
    repo.write(&lib, "error 'only on the disk'\n");
    is_clean(&repo, "validate lake --staged");
    shows(
        &repo.fails("validate lake"),
        &[
            "lib.libsonnet:1:1: hub `reef` of `lake`: ",
            ": only on the disk",
        ],
    );
    git(&repo.root, &["add", "."]);
    repo.write(&lib, "{ note: 'fine' }\n");
    shows(
        &repo.fails("validate lake --staged"),
        &[
            "lib.libsonnet:1:1: hub `reef` of `lake`: ",
            ": only on the disk",
        ],
    );
    is_clean(&repo, "validate lake");
    git(&repo.root, &["rm", "--quiet", "--cached", "-f", &lib]);
    shows(
        &repo.fails("validate lake --staged"),
        &["cannot import \"lib.libsonnet\""],
    );
}

/// Values in jsonnet are no secrets: what they were is shown beside what they would be.
#[test]
fn a_changed_import_shows_in_diff_and_status() {
    let cluster = Shared::cluster();
    let repo = reef(&[("own.jsonnet", "import 'lib.libsonnet'\n")]);
    let kubeconfig = repo.root.join(LAKE).join("kubeconfig.yaml");
    fs::copy(&cluster.kubeconfig, kubeconfig).unwrap();
    let own = "\"provider\":\"kubeconfig\",\"kubeconfig\":{\"file\":\"kubeconfig.yaml\"}";
    repo.edit(YAML, "\"provider\":\"local\"", own);
    let lib = format!("{LAKE}/lib.libsonnet");
    repo.write(&lib, "{ note: 'before' }\n");
    git(&repo.root, &["init", "--quiet"]);
    commit(&repo, "first");
    repo.ok("deploy lake");
    let status = |args: &str| repo.ok(&format!("status lake reef {args}")).stdout;
    assert!(!status("").contains("lib.libsonnet"), "{}", status(""));
    repo.write(&lib, "{ note: 'after' }\n");
    let ran = repo.run("deploy lake --diff --dry-run");
    shows(&ran.stdout, &["\n-  note: before\n", "\n+  note: after\n"]);
    shows(&status(""), &["lib.libsonnet"]);
    commit(&repo, "second");
    shows(&status(""), &["lib.libsonnet"]);
}

/// The version of the evaluator is part of the folder that it is built into. A change of its files without another version
/// would be built by nobody who has the old one.
#[test]
fn the_evaluator_has_a_version_for_its_files() {
    const KNOWN: [&str; 2] = [
        "1.3.0",
        "038d1595deb47ac9da33648ad3a3187fce51f49eadedcff300585fb6b144ef43",
    ];
    let folder = workspace().join("xtask/tools/jsonnet");
    let files = fs::read_dir(&folder).unwrap();
    let mut files: Vec<_> = files.map(|it| it.unwrap().path()).collect();
    files.sort();
    let mut digest = Sha256::new();
    files
        .iter()
        .for_each(|it| digest.update(fs::read(it).unwrap()));
    let digest = digest.finalize().into_iter().map(|it| format!("{it:02x}"));
    let digest: String = digest.collect();
    let check = Repo::new().ok("setup --check").stdout;
    let row = check.lines().find(|it| it.starts_with("xtask-jsonnet "));
    let version = row.unwrap().split_whitespace().nth(2).unwrap();
    assert_eq!(
        [version, &digest],
        KNOWN,
        "xtask/tools/jsonnet has changed: give EVALUATOR in machine/programs.rs a new version, and put both here"
    );
}

#[test]
fn without_the_evaluator_it_says_what_to_do() {
    let repo = bare();
    is_clean(&repo, "validate");
    let files = "[common.values.yaml, prod.values.yaml]";
    let own = "[common.values.yaml, prod.values.yaml, own.jsonnet]";
    repo.edit(YAML, files, own);
    repo.write(
        &format!("{LAKE}/own.jsonnet"),
        "{} + import 'x.libsonnet'\n",
    );
    for args in [
        "validate",
        "validate lake prod",
        "generate helm-upgrade-jobs x",
    ] {
        let said = repo.fails(args);
        shows(
            &said,
            &[
                "programs are missing:\n  `xtask-jsonnet` ",
                "install Go from https://go.dev/dl/",
            ],
        );
    }
    // What needs no values of that hub needs no evaluator, nor does a change need one to find that it imports nothing.
    repo.write(&format!("{LAKE}/own.jsonnet"), "{}\n");
    for args in [
        "validate lake staging",
        "validate river",
        "config get-clusters",
        "generate helm-upgrade-jobs x",
    ] {
        repo.ok(args);
    }
}
