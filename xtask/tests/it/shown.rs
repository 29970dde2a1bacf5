//! What people see of secrets, however a chart writes them: nothing.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output},
};

use crate::repo::{Key, Repo, Shared, assert_succeeded, copy, tool};

/// Secrets of several kinds, as YAML.
const SECRETS: [&str; 6] = [
    "1234567890123",
    "|\n  the first of these lines is long\n  pelican\n  tern\n  heron 17\n  gannet\n",
    "'{\"login\": \"cormorant\", \"password\": \"hunter-in-the-reeds\", \"ports\": [4711, 4712]}'",
    "'it''s \"quoted\" \\n and \\\"escaped\\\" <b>&amp; $HOME'",
    "Prüfung-der-Möwen-ünd-東京タワー-🐦-fünfzig",
    "The snowy plover and the whimbrel walked along the tidal flats until the evening came and the water rose again.",
];

/// A secret that has nothing in common with the others.
const OTHER: &str = "Zzz9-QQQ";

/// What is shown of that chart all the same.
const VISIBLE: [&str; 12] = [
    "plain-01: an ordinary sentence that anybody may read\n",
    "plain-02: GREEN\n",
    "  # a comment that stays\n  plain-04: visible-words\n",
    "way-01: '***'\n",
    "name: COLOR\n          value: green\n",
    "- --color=green\n",
    "image: ways-image:1.2.3\n",
    "image: hook-image:1.2.3\n",
    "visible: part-is-visible\n",
    "plain: visible-in-a-list\n",
    "plain: below-a-secret-name\n",
    "# Source: sixty-ways/templates/ways.yaml\n",
];

/// Hubs with the chart that prints their one secret in all ways.
fn hubs(cluster: &Shared, names: &[&str], secret: &str) -> (Repo, Key) {
    let mut repo = Repo::on(cluster, names);
    let key = Key::new();
    repo.has_key(&key);
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sixty_ways");
    copy(&chart, &repo.root.join("helm-charts/sixty-ways"));
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "helm_chart: pond",
        "helm_chart: sixty-ways",
    );
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "[common.values.yaml,",
        "[enc.secret.values.yaml,",
    );
    repo.write(
        "config/clusters/lake/enc.secret.values.yaml",
        &values(secret),
    );
    repo.encrypt("config/clusters/lake/enc.secret.values.yaml", &key);
    (repo, key)
}

fn values(secret: &str) -> String {
    format!(
        "secret: &secret {secret}\nflag: true\nglobal: {{secret: *secret}}\npart: {{own: *secret}}\n"
    )
}

/// What helm makes of a secret.
fn rendered(repo: &Repo, secret: &str) -> String {
    let output = template(repo, secret, "");
    assert_succeeded(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// `helm template`, with a way in which the chart fails.
fn template(repo: &Repo, secret: &str, failure: &str) -> Output {
    let file = repo.home().join("values.yaml");
    std::fs::write(&file, values(secret)).unwrap();
    let mut helm = tool("helm");
    helm.args(["template", "ways"])
        .arg(repo.root.join("helm-charts/sixty-ways"));
    helm.arg("--values").arg(&file);
    let output = helm.args(["--set", &format!("fail={failure}")]).output();
    std::fs::remove_file(&file).unwrap();
    output.unwrap()
}

/// The words of four characters or more.
fn words(text: &str) -> BTreeSet<&str> {
    let words = text.split(|it: char| !it.is_alphanumeric());
    words.filter(|it| it.chars().count() >= 4).collect()
}

/// The words that only a secret brings into what helm makes of it.
fn telltales(repo: &Repo, secret: &str) -> BTreeSet<String> {
    let ours = rendered(repo, secret);
    let other = rendered(repo, OTHER);
    let plain = words(&other);
    let own = words(&ours).into_iter().filter(|it| !plain.contains(it));
    // In a message about the type, which sops leaves readable.
    own.filter(|it| *it != "number")
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn shows_none(args: &str, shown: &str, telltales: &BTreeSet<String>) {
    let shown_words = words(shown);
    let found: Vec<_> = telltales
        .iter()
        .filter(|it| shown_words.contains(it.as_str()))
        .collect();
    assert!(found.is_empty(), "{args} shows {found:?}:\n{shown}");
}

#[test]
fn no_way_to_print_a_secret_shows_it() {
    let cluster = Shared::cluster();
    for (number, secret) in SECRETS.iter().enumerate() {
        let (repo, _) = hubs(&cluster, &[&format!("ways-{number}")], secret);
        let telltales = telltales(&repo, secret);
        assert!(telltales.len() > 40, "{telltales:?}");
        let args = "deploy lake --dry-run --debug";
        let ran = repo.ok(args);
        shows_none(args, &(ran.stdout.clone() + &ran.stderr), &telltales);
        for plain in VISIBLE {
            assert!(ran.stdout.contains(plain), "no {plain:?} in {}", ran.stdout);
        }
        assert!(!ran.stdout.contains("indeed") && !ran.stdout.contains("has-a-pattern"));
    }
}

#[test]
fn a_chart_that_refuses_placeholders_shows_names_and_keys_only() {
    let cluster = Shared::cluster();
    let secret = SECRETS[5];
    let (repo, _) = hubs(&cluster, &["strict"], secret);
    let telltales = telltales(&repo, secret);
    let digest = sha256(secret);
    repo.edit(
        "helm-charts/sixty-ways/values.yaml",
        "strict: \"\"",
        &format!("strict: {digest}"),
    );
    let ran = repo.ok("deploy lake --dry-run");
    shows_none("dry run", &(ran.stdout.clone() + &ran.stderr), &telltales);
    for part in [
        "# (only kinds, names and keys are shown: the chart can't be rendered with placeholders for its secrets: ",
        "cannot work with ***",
        "kind: ConfigMap\nmetadata:\n  annotations:\n    annotation: '***'\n",
        "  name: untouched\ndata:\n  plain-04: '***'\n",
    ] {
        assert!(ran.stdout.contains(part), "no {part:?} in {}", ran.stdout);
    }
}

pub(crate) fn sha256(text: &str) -> String {
    let script = format!("printf %s '{text}' | sha256sum");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// How the chart quotes its secret when it fails.
const FAILURES: [&str; 8] = [
    "plain", "syntax", "json", "base64", "yaml", "url", "hex", "upper",
];

#[test]
fn a_chart_that_fails_quotes_no_secret() {
    let cluster = Shared::cluster();
    for secret in SECRETS {
        let (repo, _) = hubs(&cluster, &FAILURES, secret);
        let mut quoted = BTreeSet::new();
        for failure in FAILURES {
            let values = format!("config/clusters/lake/{failure}.values.yaml");
            repo.write(&values, &format!("fail: {failure}\n"));
            let ours = String::from_utf8(template(&repo, secret, failure).stderr).unwrap();
            let other = String::from_utf8(template(&repo, OTHER, failure).stderr).unwrap();
            let plain = words(&other);
            let own = words(&ours).into_iter().filter(|it| !plain.contains(it));
            // The exponent of a number in a URL, `e%2B12`, tells nothing.
            quoted.extend(own.filter(|it| *it != "2B12").map(str::to_owned));
        }
        assert!(!quoted.is_empty());
        let said = repo.fails("deploy lake --dry-run --jobs 8 --debug");
        shows_none(secret, &said, &quoted);
        let shown = said.matches("refused:").count() + said.matches(HIDDEN_LINE).count();
        assert!(shown >= FAILURES.len(), "{said}");
    }
}

const HIDDEN_LINE: &str = "*** (this line may hold a secret)\n";

/// Nobody can tell what else of such a line belongs to the secret.
#[test]
fn a_line_with_a_secret_in_another_form_is_hidden() {
    let cluster = Shared::cluster();
    let (repo, _) = hubs(&cluster, &["plain", "base64"], SECRETS[5]);
    for failure in ["plain", "base64"] {
        let values = format!("config/clusters/lake/{failure}.values.yaml");
        repo.write(&values, &format!("fail: {failure}\n"));
    }
    let said = repo.fails("deploy lake plain --dry-run");
    assert!(said.contains("refused: ***\n"), "{said}");
    let said = repo.fails("deploy lake base64 --dry-run");
    assert!(
        said.contains(HIDDEN_LINE) && !said.contains("refused"),
        "{said}"
    );
}

#[test]
fn no_secret_shows_in_a_diff_when_it_is_rotated_and_moved() {
    let cluster = Shared::cluster();
    let live = SECRETS[5];
    let (repo, key) = hubs(&cluster, &["moved"], live);
    repo.ok("deploy lake");
    let of_live = telltales(&repo, live);
    let diff = "deploy lake --diff --dry-run --detailed-exitcode";
    let ran = repo.run(diff);
    shows_none(diff, &(ran.stdout + &ran.stderr), &of_live);

    let chart = "helm-charts/sixty-ways/templates/ways.yaml";
    repo.edit(
        chart,
        "          env:\n",
        "          env:\n            - name: ADDED\n              value: \"plain\"\n",
    );
    repo.edit(chart, "  way-01: {{ $t | quote }}\n", "  way-01: plain\n");
    repo.edit(
        chart,
        "  plain-02: ",
        "  plain-00: {{ $t | quote }}\n  plain-02: ",
    );
    repo.edit(
        chart,
        "          args:\n",
        "          args:\n            - --moved\n",
    );
    repo.edit(chart, "data: {way: ", "data: {other: ");
    repo.edit(chart, "annotation: {{ $t | quote }}", "annotation: plain");
    repo.edit(
        chart,
        "plain-01: {{ .Values.plain.text | quote }}",
        "plain-01: another text",
    );
    // The API server takes no halves of characters.
    for secret in &SECRETS[..4] {
        let file = "config/clusters/lake/enc.secret.values.yaml";
        repo.write(file, &values(secret));
        repo.encrypt(file, &key);
        let mut all = telltales(&repo, secret);
        all.extend(of_live.iter().cloned());
        let ran = repo.run(diff);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        shows_none(diff, &(ran.stdout.clone() + &ran.stderr), &all);
        for part in [
            "\n-  way-01: '***'\n",
            "\n+  way-01: plain\n",
            "\n-  plain-01: an ordinary sentence that anybody may read\n",
            "\n+  plain-01: another text\n",
            "\n+        - name: ADDED\n",
            "\n-  way-02: '*** (old)'\n",
            "\n+  way-02: '*** (new)'\n",
        ] {
            assert!(ran.stdout.contains(part), "no {part:?} in {}", ran.stdout);
        }
    }
}
