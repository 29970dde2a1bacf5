//! What somebody meets who has never used the deployer: their mistakes in the words of the mistake, and README.md.

use std::{fs, process::Command};

use crate::{
    generate::git,
    repo::{Key, Repo, Shared, workspace},
    upstream::Upstream,
};

const LAKE: &str = "config/clusters/lake";

/// The cluster `lake` with these hubs of basehub or another chart of ours: their names, charts and values.
fn lake(hubs: &[(&str, &str, &str)]) -> Repo {
    let mut repo = Repo::own();
    // Nothing here brings up its rehearsal cluster.
    repo.local = false;
    let mut yaml =
        "name: lake\nprovider: gcp\ngcp: {project: p, cluster: c, zone: z}\nhubs:\n".to_owned();
    for (name, chart, values) in hubs {
        yaml += &format!(
            "- name: {name}\n  domain: {name}.example.org\n  helm_chart: {chart}\n  \
             helm_chart_values_files: [common.values.yaml, {name}.values.yaml]\n"
        );
        repo.write(&format!("{LAKE}/{name}.values.yaml"), values);
    }
    if hubs.is_empty() {
        yaml = yaml.replace("hubs:", "hubs: []");
    }
    repo.write(&format!("{LAKE}/cluster.yaml"), &yaml);
    repo.write(
        &format!("{LAKE}/common.values.yaml"),
        "nfs: {pv: {serverIP: 10.0.0.9}}\n",
    );
    repo
}

/// What `validate lake` finds, without what could not be checked, and without that nobody said who gets in.
fn found(repo: &Repo) -> Vec<String> {
    let ran = repo.run("validate lake");
    let others = ["not checked", "lets everybody in"];
    let lines = ran.stdout.lines();
    let lines = lines.filter(|line| !others.iter().any(|it| line.contains(it)));
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    assert!(
        lines.pop().is_some_and(|it| it.starts_with("1 cluster")),
        "{}",
        ran.stderr
    );
    lines
}

#[test]
fn what_a_hub_has_to_set_is_told_at_its_own_file() {
    let repo = lake(&[
        ("staging", "basehub", "{}"),
        ("prod", "basehub", "jupyterhub: {}"),
    ]);
    repo.write(&format!("{LAKE}/common.values.yaml"), "{}\n");
    assert_eq!(
        found(&repo),
        [
            "config/clusters/lake/prod.values.yaml:1:1: hub `prod` of `lake`: `nfs.pv.serverIP`: it must not be empty \
             (a default of the chart `basehub`)",
            "config/clusters/lake/staging.values.yaml:1:1: hub `staging` of `lake`: `nfs.pv.serverIP`: it must not be \
             empty (a default of the chart `basehub`)",
        ]
    );
}

#[test]
fn what_hubs_of_one_file_lack_is_told_once() {
    let repo = lake(&[("staging", "pond", "{}"), ("prod", "pond", "{}")]);
    repo.write(
        "helm-charts/pond/Chart.yaml",
        "apiVersion: v2\nname: pond\nversion: 0.1.0\n",
    );
    repo.write(
        "helm-charts/pond/values.schema.yaml",
        "properties: {fish: {required: [kind]}}\n",
    );
    repo.write(&format!("{LAKE}/common.values.yaml"), "fish: {}\n");
    assert_eq!(
        found(&repo),
        [
            "config/clusters/lake/common.values.yaml:1:1: hub `prod` of `lake`: `fish`: the key `kind` is missing (and so \
          for `staging`)"
        ]
    );
}

#[test]
fn a_subcharts_key_at_the_top_is_told_with_its_place() {
    let repo = lake(&[
        ("staging", "basehub", "singleuser: {}\n"),
        ("prod", "daskhub", "jupyterhub: {}\n"),
    ]);
    repo.write(&format!("{LAKE}/common.values.yaml"), "{}\n");
    let said = found(&repo).join("\n");
    assert!(
        said.contains("staging.values.yaml:1:1: there is no key `singleuser`: it is `jupyterhub.singleuser` here"),
        "{said}"
    );
    assert!(
        said.contains(
            "prod.values.yaml:1:1: there is no key `jupyterhub`: it is `basehub.jupyterhub` here"
        ),
        "{said}"
    );
}

#[test]
fn an_ingress_answers_at_the_domain() {
    let host = |host: &str| format!("jupyterhub: {{ingress: {{hosts: [{host}], tls: [{{}}]}}}}\n");
    let repo = lake(&[
        ("staging", "basehub", &host("prod.example.org")),
        ("prod", "basehub", &host("prod.example.org")),
        ("any", "basehub", &host("'*.example.org'")),
    ]);
    assert_eq!(
        found(&repo),
        [
            "config/clusters/lake/prod.values.yaml:1:32: hub `prod` of `lake`: its ingress has the host \
             `prod.example.org`, and so has that of hub `staging` of `lake`",
            "config/clusters/lake/staging.values.yaml:1:32: hub `staging` of `lake`: its ingress has the host \
             `prod.example.org`, and so has that of hub `prod` of `lake`",
            "config/clusters/lake/staging.values.yaml:1:32: hub `staging` of `lake`: its ingress has the host \
             `prod.example.org`, but its `domain` in `config/clusters/lake/cluster.yaml` is `staging.example.org`",
        ]
    );
}

#[test]
fn a_domain_is_a_hosts_name() {
    let wrong = [
        "https://a.example.org",
        "a.example.org/hub",
        "a.example.org:8000",
        "'a example.org'",
        "A.example.org",
        "a..example.org",
        "a_b.example.org",
        ".example.org",
        "a.example.org.",
    ];
    for domain in wrong {
        let repo = lake(&[("prod", "minihub", "{}")]);
        repo.edit(&format!("{LAKE}/cluster.yaml"), "prod.example.org", domain);
        let said = found(&repo);
        assert!(
            said.len() == 1
                && said[0].contains("hub `prod`: `domain`: ")
                && said[0].contains("a domain is a host's name"),
            "{domain}: {said:?}"
        );
    }
}

#[test]
fn a_wrong_provider_is_one_problem() {
    let ways = [
        ("provider: gcp\n", "", "the key `provider` is missing"),
        (
            "provider:",
            "providr:",
            "there is no key `providr`: did you mean `provider`?",
        ),
        (
            "provider: gcp",
            "provider: gke",
            "`\"gke\"` isn't one of `\"gcp\"`, `\"aws\"`, `\"azure\"`, `\"kubeconfig\"`, \
         `\"local\"`: did you mean `gcp`?",
        ),
    ];
    for (from, to, message) in ways {
        let repo = lake(&[]);
        repo.edit(&format!("{LAKE}/cluster.yaml"), from, to);
        let said = found(&repo);
        assert!(said.len() == 1 && said[0].ends_with(message), "{said:?}");
    }
}

#[test]
fn a_repository_without_clusters() {
    let repo = lake(&[]);
    std::fs::remove_dir_all(repo.root.join("config/clusters")).unwrap();
    std::fs::create_dir(repo.root.join("config/clusters")).unwrap();
    for args in [
        "validate",
        "config get-clusters",
        "status",
        "local up",
        "deploy lake",
        "generate helm-upgrade-jobs x",
    ] {
        let said = repo.fails(args);
        assert!(said.contains("there is no cluster"), "{args}: {said}");
    }
}

#[test]
fn a_misspelt_cluster_yaml() {
    let repo = lake(&[]);
    let yaml = repo.read(&format!("{LAKE}/cluster.yaml"));
    repo.write("config/clusters/river/cluster.yml", &yaml);
    for args in ["validate", "config get-clusters", "deploy river"] {
        let ran = repo.run(args);
        let said = ran.stdout + &ran.stderr;
        let message = "config/clusters/river/cluster.yml:1:1: this is not read: a cluster's file is called `cluster.yaml`";
        assert!(said.contains(message), "{args}: {said}");
    }
    repo.ok("config get-hubs lake");
}

#[test]
fn a_provider_that_there_is_not() {
    let ran = lake(&[]).run("config get-clusters --provider gke");
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("did you mean `gcp`?"), "{}", ran.stderr);
}

#[test]
fn names_that_are_nearly_right() {
    let repo = lake(&[("staging", "minihub", "{}")]);
    for (args, meant) in [
        ("validate lkae", "lake"),
        ("deploy lake stagin", "staging"),
        ("run-hub-health-check lake stging", "staging"),
    ] {
        let said = repo.fails(args);
        assert!(
            said.contains(&format!("\n\nhint: did you mean `{meant}`?")),
            "{args}: {said}"
        );
    }
}

#[test]
fn changed_files_that_there_never_were() {
    let repo = lake(&[]);
    for args in [
        &["init", "--quiet"][..],
        &["add", "."],
        &["commit", "--quiet", "--message", "first"],
    ] {
        git(&repo.root, args);
    }
    std::fs::remove_file(repo.root.join("config/clusters/lake/common.values.yaml")).unwrap();
    git(
        &repo.root,
        &["commit", "--quiet", "--all", "--message", "second"],
    );
    repo.write("new.md", "");
    repo.ok("generate helm-upgrade-jobs config/clusters/lake/common.values.yaml,new.md");
    for command in [
        "generate helm-upgrade-jobs",
        "generate health-check-jobs",
        "generate-helm-upgrade-jobs",
    ] {
        let said = repo.fails(&format!("{command} config/clusters/lake/comon.values.yaml"));
        assert!(
            said.contains("there is no `config/clusters/lake/comon.values.yaml`"),
            "{said}"
        );
    }
}

/// What `validate lake` says of a values file of hubs of the chart `pond`, with its place.
fn said_of_values(text: &[u8]) -> Vec<String> {
    let repo = Repo::new();
    std::fs::write(
        repo.root.join("config/clusters/lake/common.values.yaml"),
        text,
    )
    .unwrap();
    let said = found(&repo);
    let said = said
        .iter()
        .filter_map(|it| it.strip_prefix("config/clusters/lake/common.values.yaml:"));
    said.map(str::to_owned).collect()
}

#[test]
fn yaml_in_the_words_of_the_mistake() {
    let mistakes = [
        (
            "greeting: a\nstone:\n\tcolour: red\n",
            "3:1: this line is indented with a tab",
        ),
        ("\tgreeting: a\n", "1:1: this line is indented with a tab"),
        (
            "greeting: |\n\ta\n",
            "2:1: this line is indented with a tab",
        ),
        (
            "greeting: a\n<<<<<<< HEAD\ndepth: 1\n=======\ndepth: 2\n>>>>>>> main\n",
            "2:1: this line is left from a merge in git",
        ),
        (
            "greeting: a\n>>>>>>> main\n",
            "2:1: this line is left from a merge in git",
        ),
        (
            "greeting:a\ndepth: 1\n",
            "1:1: there is no blank behind the colon of `greeting:`",
        ),
        (
            "greeting:a\n",
            "1:1: there is no blank behind the colon of `greeting:`",
        ),
        ("greeting: a: b\n", "1:12: a second `: ` in this line"),
        (
            "greeting: a\n  depth: 1\n",
            "2:3: this line is indented deeper than the key before it",
        ),
        (
            "stone:\n  colour: red\n weight: 1\n",
            "3:2: the indentation of this line fits none of the lines above",
        ),
        (
            "greeting: \"a\ndepth: 1\n",
            "1:11: this quotation mark is never closed",
        ),
        (
            "greeting: 'it's'\n",
            "1:15: the text ended at the quotation mark before this",
        ),
        (
            "greeting: @a\n",
            "1:11: a text that begins with `@` has to be quoted",
        ),
        (
            "greeting: \u{201c}a\u{201d}\n",
            "1:11: warning: typographic quotation marks",
        ),
        (
            "\u{a0}greeting: a\n",
            "1:1: warning: this begins with a no-break space",
        ),
        (
            "fish:\n  kind:trout\n",
            "2:3: warning: there is no blank behind the colon of `kind:`",
        ),
    ];
    for (text, message) in mistakes {
        let said = said_of_values(text.as_bytes());
        assert!(
            said.iter().any(|it| it.starts_with(message)),
            "{text:?}: {said:?}"
        );
    }
    assert!(said_of_values(b"\xff\xfeg\0:\0")[0].contains("this is text in UTF-16"));
}

#[test]
fn what_helm_takes_is_no_mistake() {
    for text in [
        "\u{feff}greeting: a\r\nstone:\r\n  colour: red\r\n",
        "greeting: a\t\ndepth:\t1\n",
    ] {
        let none: [&str; 0] = [];
        assert_eq!(said_of_values(text.as_bytes()), none, "{text:?}");
    }
}

#[test]
fn a_cluster_yaml_in_the_words_of_the_mistake() {
    let repo = lake(&[]);
    repo.edit(
        &format!("{LAKE}/cluster.yaml"),
        "provider: gcp",
        "\tprovider: gcp",
    );
    let said = found(&repo);
    assert_eq!(
        said,
        [
            "config/clusters/lake/cluster.yaml:2:1: this line is indented with a tab: YAML takes only blanks"
        ]
    );
}

#[test]
fn an_installed_program_has_no_repository_of_its_own() {
    let repo = Repo::new();
    let in_home = |name: &str, value: &str| {
        let mut command = repo.command("config get-clusters");
        command.current_dir("/").env(name, value);
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), stderr)
    };
    for name in ["UNRELATED", "XTASK_ROOT"] {
        let (code, stderr) = in_home(name, "");
        assert!(
            code == Some(1) && stderr.contains("no `config/clusters/` in"),
            "{stderr}"
        );
    }
    assert_eq!(
        in_home("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR")).0,
        Some(0)
    );
    assert_eq!(
        in_home("XTASK_ROOT", repo.root.to_str().unwrap()).0,
        Some(0)
    );
}

#[test]
fn version_and_help() {
    let repo = Repo::new();
    let version = repo.ok("--version").stdout;
    assert!(
        version.starts_with(&format!("cargo xtask {}", env!("CARGO_PKG_VERSION"))),
        "{version}"
    );
    let help = repo.ok("help deploy").stdout;
    assert!(
        help.contains("Examples:\n  cargo xtask deploy lake "),
        "{help}"
    );
    assert_eq!(help, repo.ok("deploy --help").stdout);
    for command in [
        "deploy-support",
        "status",
        "rollback",
        "retire",
        "validate",
        "run-hub-health-check",
        "use-cluster-credentials",
    ] {
        assert!(
            repo.ok(&format!("{command} --help"))
                .stdout
                .contains("\nExamples:\n"),
            "{command}"
        );
    }
}

#[test]
fn a_component_that_is_nearly_right() {
    let said =
        lake(&[("staging", "minihub", "{}")]).fails("exec debug component-logs lake staging hbu");
    assert!(said.contains("hint: did you mean `hub`?"), "{said}");
}

/// The files of docs/first-cluster.md: each is the first block after its path.
fn files_of_the_guide() -> Vec<(String, String)> {
    let guide = std::fs::read_to_string(workspace().join("docs/first-cluster.md")).unwrap();
    let mut files: Vec<(String, String)> = Vec::new();
    let mut is_begun = false;
    for line in guide.lines() {
        if let Some(path) = line
            .strip_prefix("`config/clusters/lake/")
            .and_then(|it| it.split_once('`'))
        {
            files.push((path.0.to_owned(), String::new()));
            is_begun = false;
        } else if let (Some((_, text)), Some(line)) = (files.last_mut(), line.strip_prefix("    "))
        {
            is_begun = true;
            *text += &format!("{line}\n");
        } else if is_begun {
            files.push(("other".to_owned(), String::new()));
        }
    }
    files.retain(|(path, _)| path.ends_with(".yaml"));
    files
}

#[test]
fn the_guide_to_a_first_cluster_gives_a_hub() {
    let cluster = Shared::cluster();
    let upstream = Upstream::shared();
    let mut repo = Repo::on(&cluster, &[]);
    upstream.serve(&repo);
    let key = Key::new();
    repo.has_key(&key);
    std::fs::remove_dir_all(repo.root.join(LAKE)).unwrap();
    let files = files_of_the_guide();
    assert_eq!(files.len(), 5, "{files:?}");
    for (path, text) in files {
        // The hub is another test's neighbour.
        let text = text
            .replace("staging", "guided-staging")
            .replace("enc-guided-staging", "enc-staging");
        let path = format!("{LAKE}/{path}").replace("/staging", "/guided-staging");
        repo.write(&path, &text);
        if path.contains("secret") {
            repo.encrypt(&path, &key);
        }
    }
    let credentials = format!("{LAKE}/enc-deployer-credentials.secret.yaml");
    std::fs::copy(&cluster.kubeconfig, repo.root.join(&credentials)).unwrap();
    repo.encrypt(&credentials, &key);
    let ran = repo.ok("validate lake --fetch");
    assert!(
        ran.stdout.ends_with("1 cluster, 1 hub: no problems\n"),
        "{}",
        ran.stdout
    );
    repo.ok("deploy-support lake --dry-run");
    repo.ok("deploy lake --skip-hub-health-check");
    let hosts = cluster.kubectl(
        "get ingress --namespace guided-staging -o jsonpath={.items[*].spec.rules[*].host}",
    );
    assert_eq!(hosts, "guided-staging.lake.example.org");
}

/// The lines of a block of README.md that begins with these words.
fn block<'a>(readme: &'a str, words: &str) -> Vec<&'a str> {
    let lines = readme.lines().map(|it| it.strip_prefix("    "));
    let lines = lines.skip_while(|it| it.is_none_or(|line| !line.starts_with(words)));
    lines.map_while(|it| it).collect()
}

/// All but the commands for a real node, which `a_real_node` has.
#[test]
fn the_first_page_works_in_its_order() {
    let repo = Repo::own();
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let mut script = vec!["set -e; cargo() { shift; \"$PROGRAM\" \"$@\"; }"];
    script.extend(block(&readme, "cargo xtask deploy local"));
    script.extend(block(&readme, "tools=$("));
    script.push("age --version");
    assert_eq!(script.len(), 7, "{script:?}");
    let ran = Command::new("bash")
        .args(["-c", &script.join("\n")])
        .env_clear()
        .envs(
            repo.command("")
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("PROGRAM", env!("CARGO_BIN_EXE_xtask"))
        .current_dir(&repo.root)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    let shown = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{shown}{told}");
    assert!(told.contains("cargo xtask status local"), "{told}");
    assert!(shown.contains("local    staging"), "{shown}{told}");
}
