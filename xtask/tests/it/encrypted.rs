//! What is called encrypted is encrypted, value by value; what is secret by its use has to be; and nothing quotes it.

use crate::repo::{Key, Repo};

const VALUES: &str = "config/clusters/lake/enc-prod.values.yaml";

/// A hub whose third values file, with this content, was encrypted by sops with this rule of what is encrypted.
fn with_encrypted(content: &str, rule: &str) -> Repo {
    let mut repo = Repo::new();
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "prod.values.yaml]",
        "prod.values.yaml, enc-prod.values.yaml]",
    );
    repo.write("helm-charts/pond/values.schema.yaml", "{}\n");
    repo.write(VALUES, content);
    let key = Key::new();
    repo.encrypt_by(VALUES, &key, rule);
    repo.has_key(&key);
    repo
}

/// Replaces the value of a key, which is on one line of the file.
fn type_by_hand(repo: &Repo, key: &str, value: &str) {
    let text = repo.read(VALUES);
    let is_of_key = |line: &&str| {
        let line = line.trim_start();
        line.starts_with(key) || line.starts_with(&format!("- {key}"))
    };
    let line = text.lines().find(is_of_key);
    let line = line.unwrap_or_else(|| panic!("no {key} in {text}"));
    let start = &line[..line.find(key).unwrap() + key.len()];
    repo.write(VALUES, &text.replace(line, &format!("{start}{value}")));
}

const EVERYTHING: &str = "\
# a comment
token: opensesame
nothing: null
empty: ''
number: 7
ratio: 1.5
flag: true
since: 2026-11-21T01:49:10Z
list:
  - first
  # another comment
  - {inner: second, deep: [1, [2, third]]}
map: {one: {two: three}}
plain_unencrypted: {a: b}
text: |
  of two
  lines
";

#[test]
fn what_sops_writes_is_right() {
    for (rule, content) in [
        ("", EVERYTHING),
        ("encrypted_regex: '^(token|list)$'", EVERYTHING),
        ("unencrypted_regex: '^(flag|map)$'", EVERYTHING),
        ("encrypted_suffix: 'n'", EVERYTHING),
        ("unencrypted_suffix: 'r'", EVERYTHING),
        (
            "mac_only_encrypted: true, encrypted_regex: 'token'",
            EVERYTHING,
        ),
        (
            "encrypted_comment_regex: 'hide'",
            "# hide this\ntoken: opensesame\nplain: 1\nmap:\n  a: 1\n  # hide\n  b: 2\n  list:\n  - 1\n  # hide\n  - 2\n",
        ),
        (
            "unencrypted_comment_regex: 'plain'",
            "# plain\nshown: 1\ntoken: opensesame\n# plain\nmap: {a: 1, b: [2]}\nlast: 1 # other\n",
        ),
        ("", "a: 1\n---\nb: 2\n"),
        ("", "{}\n"),
    ] {
        let repo = with_encrypted(content, rule);
        let ran = repo.run("validate hub-config lake prod");
        let said = ran.stdout + &ran.stderr;
        let about: Vec<_> = said.lines().filter(|it| it.contains("encrypted")).collect();
        assert!(about.is_empty(), "{rule}: {said}\n{}", repo.read(VALUES));
    }
}

#[test]
fn a_value_that_was_typed_by_hand() {
    for (key, value, path) in [
        ("token: ", "opensesame-by-hand", "token"),
        ("number: ", "31415926", "number"),
        ("flag: ", "false", "flag"),
        ("two: ", "opensesame-by-hand", "map.one.two"),
        ("inner: ", "opensesame-by-hand", "list.inner"),
        ("- ", "opensesame-by-hand", "list"),
        ("token: ", "ENC[AES256_GCM,data:b3BlbnNlc2FtZQ==]", "token"),
        (
            "token: ",
            "ENC[AES256_GCM,data:b3BlbnNlc2FtZQ==,iv:aXY=,tag:dGFn,type:str]",
            "token",
        ),
        (
            "token: ",
            "\"ENC[AES256_GCM,data:,iv:,tag:,type:str]\"",
            "token",
        ),
    ] {
        let repo = with_encrypted(EVERYTHING, "");
        type_by_hand(&repo, key, value);
        for command in ["validate", "deploy lake prod --dry-run"] {
            let said = repo.fails(command);
            assert!(
                said.contains(&format!(
                    "`{path}` is not encrypted, though the `sops` block of this file wants it to be"
                )),
                "{value}: {said}"
            );
            for shown in ["opensesame", "31415926", "b3BlbnNlc2FtZQ"] {
                assert!(!said.contains(shown), "{value}: {said}");
            }
        }
    }
}

#[test]
fn the_rules_of_the_file_count() {
    let repo = with_encrypted(EVERYTHING, "encrypted_regex: '^token$'");
    type_by_hand(&repo, "token: ", "opensesame");
    let said = repo.fails("validate");
    assert!(said.contains("`token` is not encrypted"), "{said}");

    let repo = with_encrypted(EVERYTHING, "encrypted_regex: '^token$'");
    let text = repo.read(VALUES);
    let token = text.lines().find_map(|it| it.strip_prefix("token: "));
    repo.edit(VALUES, "two: three", &format!("two: {}", token.unwrap()));
    let said = repo.fails("validate");
    assert!(
        said.contains("`map.one.two` is encrypted, but by the `sops` block of this file sops would not decrypt it"),
        "{said}"
    );
}

#[test]
fn a_block_that_somebody_made_up() {
    for block in [
        "sops: {}",
        "sops: {mac: x, version: 3.9.0}",
        "sops: {age: [], mac: x}",
        "sops: {age: [{recipient: age1x}]}",
        "sops: {age: [{recipient: age1x}], encrypted_regex: ^nothing$, mac: MAC}",
        "sops: {age: [{recipient: age1x}], mac: MAC}",
    ] {
        let mac = {
            let repo = with_encrypted("a: 1\n", "");
            let text = repo.read(VALUES);
            text.lines()
                .find_map(|it| it.trim().strip_prefix("mac: ").map(str::to_owned))
                .unwrap()
        };
        let repo = Repo::new();
        repo.edit(
            "config/clusters/lake/cluster.yaml",
            "prod.values.yaml]",
            "prod.values.yaml, enc-prod.secret.values.yaml]",
        );
        let block = block.replace("MAC", &format!("\"{mac}\""));
        repo.write(
            "config/clusters/lake/enc-prod.secret.values.yaml",
            &format!("token: opensesame\n{block}\n"),
        );
        for command in ["validate", "deploy lake prod --dry-run"] {
            let said = repo.fails(command);
            assert!(
                said.contains("encrypted")
                    && said.contains("config/clusters/lake/enc-prod.secret.values.yaml:"),
                "{block}: {said}"
            );
            assert!(!said.contains("opensesame"), "{said}");
        }
    }
}

/// helm would deploy it as it is.
#[test]
fn ciphertext_in_a_plain_file() {
    let encrypted = with_encrypted("greeting: hello\n", "").read(VALUES);
    let value = encrypted.lines().next().unwrap();
    for value in [
        value.to_owned(),
        value.replace(": ", ": x "),
        "token: [\"ENC[AES256_GCM,data\"]".to_owned(),
    ] {
        let repo = Repo::new();
        repo.write(
            "config/clusters/lake/prod.values.yaml",
            &format!("{value}\n"),
        );
        let said = repo.fails("validate");
        assert!(
            said.contains("this was encrypted by sops, and the file has no `sops` block: nothing would decrypt it"),
            "{said}"
        );
    }
}

/// What cluster.yaml logs in with, whatever the file is called.
#[test]
fn keys_in_plain_text() {
    let user = |user: &str| {
        format!("apiVersion: v1\nkind: Config\nusers: [{{name: u, user: {{{user}}}}}]\n")
    };
    for (provider, file, content) in [
        (
            "gcp\ngcp: {key: login.json, project: p, cluster: c, zone: z}",
            "login.json",
            "{\"private_key\": \"opensesame\"}".to_owned(),
        ),
        (
            "aws\naws: {key: login.json, clusterType: eks, clusterName: c, region: r}",
            "login.json",
            "{\"AccessKey\": {\"SecretAccessKey\": \"opensesame\"}}".to_owned(),
        ),
        (
            "azure\nazure: {key: login.yaml, resource_group: g, cluster: c}",
            "login.yaml",
            "service_principal_password: opensesame\n".to_owned(),
        ),
        (
            "kubeconfig\nkubeconfig: {file: login.yaml}",
            "login.yaml",
            user("token: opensesame"),
        ),
        (
            "kubeconfig\nkubeconfig: {file: login.yaml}",
            "login.yaml",
            user("username: u, password: opensesame"),
        ),
        (
            "kubeconfig\nkubeconfig: {file: login.yaml}",
            "login.yaml",
            user("client-key-data: b3BlbnNlc2FtZQ=="),
        ),
        (
            "kubeconfig\nkubeconfig: {file: login.yaml}",
            "login.yaml",
            user("auth-provider: {name: oidc, config: {refresh-token: opensesame}}"),
        ),
    ] {
        let repo = Repo::new();
        repo.write(
            "config/clusters/lake/cluster.yaml",
            &format!("name: lake\nprovider: {provider}\nhubs: [{{name: staging, domain: d, helm_chart: pond, helm_chart_values_files: []}}]\n"),
        );
        repo.write(&format!("config/clusters/lake/{file}"), &content);
        for command in [
            "validate",
            "validate cluster-config",
            "deploy lake --dry-run",
            "use-cluster-credentials lake true",
        ] {
            let said = repo.fails(command);
            assert!(
                said.contains(&format!("`config/clusters/lake/{file}` holds what logs in to the cluster, and is not encrypted")),
                "{command}: {said}"
            );
            assert!(
                !said.contains("opensesame") && !said.contains("b3BlbnNlc2FtZQ"),
                "{said}"
            );
        }
        if !provider.starts_with("kubeconfig") {
            std::fs::remove_file(repo.root.join("config/clusters/lake").join(file)).unwrap();
            let said = repo.fails("validate");
            assert!(
                said.contains(&format!(
                    "cluster.yaml:3:12: `config/clusters/lake/{file}` doesn't exist"
                )) || said.contains(&format!("{file}` doesn't exist")),
                "{said}"
            );
        }
    }
}

/// One that only says where the login is holds no secret.
#[test]
fn a_kubeconfig_without_credentials() {
    let repo = Repo::new();
    repo.write(
        "config/clusters/lake/kubeconfig.yaml",
        "users: [{name: u, user: {client-key: /k, tokenFile: /t, exec: {command: login}, token: ''}}]\n",
    );
    repo.ok("validate");
}

/// Long enough for its maker's form, and no longer.
#[test]
fn tokens_by_their_makers_forms() {
    let long = |start: &str, part: &str, length: usize| format!("{start}{}", part.repeat(length));
    let github = format!(
        "github_pat_{}_{}",
        "a1".repeat(11),
        "Zz9".repeat(20).split_at(59).0
    );
    for (text, is_secret) in [
        (long("AKIA", "ABCD2345", 2), true),
        (format!("key={}", long("ASIA", "ABCD2345", 2)), true),
        ("ASIA-PACIFIC-RESEARCH-USERS".to_owned(), false),
        ("ASIAPACIFICRESEARCHUSERS".to_owned(), false),
        (long("AKIA", "ABCD2345", 3), false),
        (long("AKIA", "abcd2345", 2), false),
        (long("ghp_", "aB3", 12), true),
        (long("ghu_", "aB3", 12), true),
        (long("ghr_", "aB3", 12), true),
        (long("ghp_", "aB3", 11), false),
        (github.clone(), true),
        (github[..60].to_owned(), false),
        (long("glpat-", "aB3_", 5), true),
        (long("glpat-", "aB3", 3), false),
        (long("AIza", "aB-_3", 7), true),
        (long("AIza", "aB-_3", 8), false),
        (long("GOCSPX-", "aB3_", 7), true),
        (
            "xoxb-123456789012-123456789012-abcdefABCDEF".to_owned(),
            true,
        ),
        ("xoxb-channel".to_owned(), false),
        (long("AGE-SECRET-KEY-1", "QZ", 29), true),
        (long("AGE-SECRET-KEY-1", "qz", 29), false),
        ("-----BEGIN RSA PRIVATE KEY-----".to_owned(), true),
        ("-----BEGIN CERTIFICATE-----".to_owned(), false),
    ] {
        let repo = Repo::new();
        repo.write(
            "config/clusters/lake/prod.values.yaml",
            &format!("note: \"{text}\"\n"),
        );
        let ran = repo.run("validate");
        assert_eq!(
            ran.stdout.contains("this looks like a"),
            is_secret,
            "{text}: {}",
            ran.stdout
        );
        assert!(!is_secret || !ran.stdout.contains(&text), "{}", ran.stdout);
    }
}

/// A warning, since nobody can be sure.
#[test]
fn what_is_called_a_secret_and_looks_like_one() {
    for (key, value, is_told) in [
        ("apiToken", "9f86d081884c7d659a2feaa0c55ad015", true),
        ("client_secret", "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA==", true),
        ("password", "kJ8#mP2$vL9qR4wX7zB1", false),
        ("password", "kJ8#mP2vL9qR4wX7zB1", true),
        ("cookieSecret", "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", true),
        ("api-key", "sk9XbT3mQ8vN2pL7wR4zK6", true),
        ("existingSecret", "grafana-admin-credentials", false),
        ("secretName", "9f86d081884c7d659a2feaa0c55ad015", false),
        ("token", "{{ .Values.something.else }}", false),
        (
            "tokenUrl",
            "https://example.org/9f86d081884c7d659a2feaa0c55ad015",
            false,
        ),
        ("password", "change-me-before-you-deploy-this", false),
        ("greeting", "9f86d081884c7d659a2feaa0c55ad015", false),
        ("imagePullSecret", "registry-2026-credentials-v2", false),
        ("password", "", false),
    ] {
        let repo = Repo::new();
        repo.write("helm-charts/pond/values.schema.yaml", "{}\n");
        repo.write(
            "config/clusters/lake/prod.values.yaml",
            &format!("a: {{\"{key}\": \"{value}\"}}\n"),
        );
        let ran = repo.ok("validate");
        assert_eq!(
            ran.stdout.contains("looks like a secret"),
            is_told,
            "{key}: {value}: {}",
            ran.stdout
        );
        assert!(!is_told || !ran.stdout.contains(value), "{}", ran.stdout);
    }
}
