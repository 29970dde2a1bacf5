//! Whatever form sops wrote a file in, it is read as sops reads it, or the message says what it is.

use std::fs;

use crate::repo::{Key, Repo, Shared};

const FOLDER: &str = "config/clusters/lake";

/// Writes a file beside cluster.yaml, and encrypts it as sops does for its name.
fn encrypt(repo: &mut Repo, file: &str, content: &str) {
    let key = Key::new();
    let path = format!("{FOLDER}/{file}");
    repo.write(&path, content);
    repo.encrypt(&path, &key);
    repo.has_key(&key);
}

/// The hub `prod` with one values file more.
fn with_values_file(file: &str, content: &str) -> Repo {
    let mut repo = Repo::new();
    repo.write("helm-charts/pond/values.schema.yaml", "{}\n");
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "prod.values.yaml]",
        &format!("prod.values.yaml, {file}]"),
    );
    encrypt(&mut repo, file, content);
    repo
}

/// A cluster on the shared one, with a kubeconfig of another name.
fn with_kubeconfig(cluster: &Shared, file: &str) -> Repo {
    let mut repo = Repo::on(cluster, &["forms"]);
    repo.edit("config/clusters/lake/cluster.yaml", "kubeconfig.yaml", file);
    let kubeconfig = repo.read("config/clusters/lake/kubeconfig.yaml");
    encrypt(&mut repo, file, &kubeconfig);
    repo
}

#[test]
fn a_kubeconfig_without_an_extension() {
    let cluster = Shared::cluster();
    let repo = with_kubeconfig(&cluster, "enc-kubeconfig");
    let command = "use-cluster-credentials lake kubectl get --raw /readyz";
    assert!(
        repo.read(&format!("{FOLDER}/enc-kubeconfig"))
            .contains("\"data\": \"ENC[")
    );
    repo.ok("validate");
    assert_eq!(repo.ok(command).stdout, "ok");
    // Renamed, it is still no kubeconfig of its own.
    let renamed = repo.root.join(FOLDER).join("enc-kubeconfig.json");
    fs::rename(repo.root.join(FOLDER).join("enc-kubeconfig"), renamed).unwrap();
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "enc-kubeconfig",
        "enc-kubeconfig.json",
    );
    assert_eq!(repo.ok(command).stdout, "ok");
}

#[test]
fn a_kubeconfig_is_never_in_a_flat_form() {
    for file in ["enc-kubeconfig.env", "enc-kubeconfig.ini"] {
        let mut repo = Repo::new();
        repo.write(
            "config/clusters/lake/cluster.yaml",
            &format!("name: lake\nprovider: kubeconfig\nkubeconfig: {{file: {file}}}\nhubs: []\n"),
        );
        encrypt(&mut repo, file, "token = opensesame\n");
        let form = if file.ends_with("env") {
            "dotenv"
        } else {
            "ini"
        };
        for command in ["validate", "use-cluster-credentials lake true"] {
            let said = repo.fails(command);
            assert!(
                said.contains(&format!(
                    "`{FOLDER}/{file}` is in the {form} form of sops, and a kubeconfig is YAML or JSON"
                )),
                "{said}"
            );
        }
    }
}

/// What stands for `aws` here writes the kubeconfig for this access key only.
#[test]
fn an_access_key_in_each_form() {
    let cluster = Shared::cluster();
    let json = "{\"AccessKey\": {\"AccessKeyId\": \"AKIAOFTHELAKE\", \"SecretAccessKey\": \"open/sesame+1=\"}}";
    for (file, content) in [
        ("enc-key.json", json),
        ("enc-key", json),
        (
            "enc-key.yaml",
            "AccessKey:\n  AccessKeyId: AKIAOFTHELAKE\n  SecretAccessKey: open/sesame+1=\n",
        ),
        (
            "enc-key.env",
            "AWS_ACCESS_KEY_ID=AKIAOFTHELAKE\n# of 2026\nAWS_SECRET_ACCESS_KEY=open/sesame+1=\n",
        ),
        (
            "enc-key.ini",
            "; of 2026\n[default]\naws_access_key_id = AKIAOFTHELAKE\naws_secret_access_key = open/sesame+1=\n",
        ),
    ] {
        let mut repo = Repo::on(&cluster, &["keys"]);
        repo.edit(
            "config/clusters/lake/cluster.yaml",
            "provider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}",
            &format!(
                "provider: aws\naws: {{key: {file}, clusterType: eks, clusterName: c, region: r}}"
            ),
        );
        encrypt(&mut repo, file, content);
        repo.script(
            "aws",
            &format!(
                "test \"$AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY\" = 'AKIAOFTHELAKE open/sesame+1=' || exit 1\n\
                 for last; do :; done; cp {} \"$last\"",
                cluster.kubeconfig.display()
            ),
        );
        repo.ok("validate");
        let ran = repo.ok("use-cluster-credentials lake kubectl get --raw /readyz");
        assert_eq!(ran.stdout, "ok", "{file}");
    }
}

/// gcloud reads its key itself, and only as JSON.
#[test]
fn a_service_accounts_key_in_a_flat_form() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["keys"]);
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "provider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}",
        "provider: gcp\ngcp: {key: enc-key.env, project: p, cluster: c, zone: z}",
    );
    let key = "client_email=d@p.iam\nprivate_key_id=of-the-key\nprivate_key=first\\nsecond\\n\n";
    encrypt(&mut repo, "enc-key.env", key);
    repo.script(
        "gcloud",
        &format!(
            "python3 -c 'import json, os\n\
             key = json.load(open(os.environ[\"CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE\"]))\n\
             assert key[\"private_key\"] == \"first\\nsecond\\n\"' && cp {} \"$KUBECONFIG\"",
            cluster.kubeconfig.display()
        ),
    );
    repo.script("gke-gcloud-auth-plugin", "exit 1");
    let ran = repo.ok("use-cluster-credentials lake kubectl get --raw /readyz");
    assert_eq!(ran.stdout, "ok");
}

/// helm gets what the file holds, not the JSON around it.
#[test]
fn values_that_are_one_text() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["text"]);
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "text.values.yaml]",
        "text.values.yaml, enc-text]",
    );
    encrypt(
        &mut repo,
        "enc-text",
        "note: opensesame-in-one-text\ngreeting: hello\n",
    );
    let warning = "config/clusters/lake/enc-text:1:1: warning: sops encrypted this file as one text, since its name ends in \
                   neither `.yaml` nor `.json`: its keys cannot be checked";
    let said = repo.ok("validate").stdout;
    assert!(said.contains(warning), "{said}");
    let ran = repo.ok("deploy lake --diff --yes");
    assert!(!(ran.stdout + &ran.stderr).contains("opensesame"));
    let note = cluster.kubectl("get configmap pond --namespace text -o jsonpath={.data.note}");
    assert_eq!(note, "opensesame-in-one-text");
}

#[test]
fn values_in_a_flat_form() {
    for (file, form) in [("enc-prod.env", "dotenv"), ("enc-prod.ini", "ini")] {
        let repo = with_values_file(file, "token=opensesame\n");
        for command in ["validate", "deploy lake prod --dry-run"] {
            let said = repo.fails(command);
            assert!(
                said.contains(&format!(
                    "{FOLDER}/{file}:1:1: this is the {form} form of sops, and helm takes values only as YAML or JSON"
                )),
                "{command}: {said}"
            );
        }
    }
}

/// Files that no release lists are checked by the same rules.
#[test]
fn secrets_in_a_flat_form() {
    for (file, content, line) in [
        (
            "enc-a.secret.env",
            "# about\nTOKEN=opensesame\nEMPTY=\nplain_unencrypted=1\n",
            "TOKEN=",
        ),
        (
            "enc-a.secret.ini",
            "; about\n[x]\nTOKEN = opensesame\nlong = \"\"\"two\nlines = 2\"\"\"\n\n[y]\nplain_unencrypted = 1\n",
            "TOKEN ",
        ),
        ("enc-a.secret", "opensesame", "\t\"data\": "),
    ] {
        let mut repo = Repo::new();
        encrypt(&mut repo, file, content);
        repo.ok("validate");
        let path = format!("{FOLDER}/{file}");
        let encrypted = repo.read(&path);
        let (number, old) = (1..)
            .zip(encrypted.lines())
            .find(|(_, it)| it.starts_with(line))
            .unwrap();
        let start = &old[..old.find("ENC[").unwrap()];
        let end = if old.ends_with(',') { "\"," } else { "" };
        repo.edit(&path, old, &format!("{start}typed-by-hand{end}"));
        let said = repo.fails("validate");
        assert!(
            said.contains(&format!("{path}:{number}:"))
                && said.contains("is not encrypted, though the `sops` block"),
            "{file}: {said}"
        );
        assert!(!said.contains("typed-by-hand"), "{said}");
        // For whom it is counts as well.
        repo.write(&path, &encrypted);
        repo.write(".sops.yaml", "creation_rules: [{age: age1other}]\n");
        let said = repo.fails("validate");
        assert!(
            said.contains("recipient `age1other` of .sops.yaml is missing"),
            "{said}"
        );
    }
}

#[test]
fn a_dotenv_file_of_windows() {
    let mut repo = Repo::new();
    encrypt(&mut repo, "enc-a.secret.env", "TOKEN=opensesame\n");
    let path = format!("{FOLDER}/enc-a.secret.env");
    repo.edit(&path, "\n", "\r\n");
    let said = repo.fails("validate");
    assert!(
        said.contains("the lines of this file end in CR LF"),
        "{said}"
    );
}

#[test]
fn a_key_that_is_set_twice() {
    let repo = with_values_file("enc-prod.yaml", "token: opensesame\nnote: hello\n");
    let path = format!("{FOLDER}/enc-prod.yaml");
    let encrypted = repo.read(&path);
    let line = |start: &str| encrypted.lines().find(|it| it.starts_with(start)).unwrap();
    for (twice, at) in [(line("token:"), "2:1"), (line("    mac:"), "")] {
        repo.write(
            &path,
            &encrypted.replace(twice, &format!("{twice}\n{twice}")),
        );
        let said = repo.fails("validate");
        let place = format!("{path}:{at}");
        assert!(
            said.contains(&place)
                && said.contains(
                    "this key is set twice in its mapping, and sops decrypts no such file"
                ),
            "{said}"
        );
    }
}

/// helm merges them, and says nothing; a file that no release lists may have as many as it likes.
#[test]
fn two_documents() {
    let two = "note: hello\n---\ntoken: opensesame\n";
    let mut repo = with_values_file("enc-prod.yaml", two);
    let said = repo.fails("validate");
    assert!(
        said.contains("helm merges this second document over the one in line 1"),
        "{said}"
    );
    repo.edit("config/clusters/lake/cluster.yaml", ", enc-prod.yaml", "");
    encrypt(&mut repo, "enc-more.secret.yaml", two);
    repo.ok("validate");
}

#[test]
fn conflicts_that_a_merge_left() {
    let left = "<<<<<<< HEAD\n";
    let conflict = |text: &str, line: &str| {
        let (before, after) = text.split_once(line).unwrap();
        format!("{before}{left}{line}=======\n{line}>>>>>>> main\n{after}")
    };
    for (file, content, line) in [
        (
            "enc-a.secret.yaml",
            "token: opensesame\nnote: hello\n",
            "note:",
        ),
        (
            "enc-a.secret.json",
            "{\"token\": \"opensesame\", \"note\": \"hello\"}",
            "\t\"note\"",
        ),
        (
            "enc-a.secret.env",
            "TOKEN=opensesame\nNOTE=hello\n",
            "NOTE=",
        ),
        (
            "enc-a.secret.ini",
            "[a]\ntoken = opensesame\nnote = hello\n",
            "note ",
        ),
        ("enc-a.secret", "opensesame", "\t\"data\""),
    ] {
        let mut repo = Repo::new();
        encrypt(&mut repo, file, content);
        let path = format!("{FOLDER}/{file}");
        let text = repo.read(&path);
        let line = text.lines().find(|it| it.starts_with(line)).unwrap();
        let broken = conflict(&text, &format!("{line}\n"));
        let number = broken.split(left).next().unwrap().lines().count() + 1;
        repo.write(&path, &broken);
        let said = repo.fails("validate");
        assert_eq!(said.matches(&path).count(), 1, "{said}");
        assert!(
            said.contains(&format!(
                "{path}:{number}:1: this line is left from a merge in git, and what sops encrypted"
            )),
            "{said}"
        );
    }
    // Plain, it would be a key of this name.
    let repo = Repo::new();
    let path = format!("{FOLDER}/prod.values.yaml");
    let json = "{\n\"greeting\": \"a\",\n<<<<<<< HEAD\n\"depth\": 1\n=======\n\"depth\": 2\n>>>>>>> main\n}\n";
    repo.write(&path, json);
    let said = repo.fails("validate");
    assert!(
        said.contains(&format!(
            "{path}:3:1: this line is left from a merge in git: keep what is meant"
        )),
        "{said}"
    );
}

/// No message quotes it, and none calls it plain text.
#[test]
fn an_encrypted_file_that_is_no_yaml_any_more() {
    for name in ["enc-prod.yaml", "enc-prod.secret.yaml"] {
        let repo = with_values_file(name, "token: opensesame\nnote: hello\n");
        let path = format!("{FOLDER}/{name}");
        repo.edit(&path, "\nnote:", "\n  by-hand: x\nnote:");
        for command in ["validate", "deploy lake prod --dry-run"] {
            let said = repo.fails(command);
            assert!(
                said.contains(&format!("{path}:2:"))
                    && said.contains(
                        "sops encrypted this file, and from here on it is not YAML any more"
                    ),
                "{said}"
            );
        }
    }
}

/// The commands that decrypt say so: without a key nobody can tell.
#[test]
fn what_was_changed_after_it_was_encrypted() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["prod"]);
    let path = format!("{FOLDER}/prod.values.yaml");
    repo.write("helm-charts/pond/values.schema.yaml", "{}\n");
    let values = "token: opensesame\nnote: hello\nplain_unencrypted: 1\n";
    encrypt(&mut repo, "prod.values.yaml", values);
    let encrypted = repo.read(&path);
    let line = |start: &str| encrypted.lines().find(|it| it.starts_with(start)).unwrap();
    let note = line("note:");
    let moved = line("token:").replace("token:", "note:");
    let remedy = format!("sops --rotate --ignore-mac --in-place {path}");
    for (changed, can_be_kept) in [
        (encrypted.replace(&format!("{note}\n"), ""), true),
        (
            encrypted.replace("plain_unencrypted: 1", "plain_unencrypted: 2"),
            true,
        ),
        (encrypted.replace(note, &moved), false),
        (
            encrypted.replace("lastmodified: \"20", "lastmodified: \"19"),
            false,
        ),
    ] {
        repo.write(&path, &changed);
        let said = repo.fails("deploy lake prod --dry-run");
        assert!(
            said.contains(&format!("cannot decrypt `{path}`: it was changed after sops encrypted it, by hand or by a merge")),
            "{said}"
        );
        assert_eq!(said.contains(&remedy), can_be_kept, "{said}");
        assert!(
            !said.contains("opensesame") && !said.contains("computed"),
            "{said}"
        );
    }
}

#[test]
fn each_type_is_what_it_becomes() {
    let schema = "\
properties:
  since: {type: string, format: date-time}
  day: {type: string}
  count: {type: integer}
  ratio: {type: number}
  flag: {type: boolean}
  bytes: {type: string}
";
    let values = "since: 2026-11-21T01:49:10Z\nday: 2026-11-21\ncount: 3\nratio: 1.5\nflag: true\nbytes: !!binary aGVsbG8=\n";
    let repo = with_values_file("enc-prod.yaml", values);
    repo.write("helm-charts/pond/values.schema.yaml", schema);
    repo.ok("validate");
    repo.write(
        "helm-charts/pond/values.schema.yaml",
        &schema.replace("day: {type: string}", "day: {type: integer}"),
    );
    let said = repo.fails("validate");
    assert!(
        said.contains(":2:6: `day`: it is a string, and must be an integer"),
        "{said}"
    );
}
