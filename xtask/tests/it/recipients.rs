//! Encrypted files are for whom the nearest .sops.yaml says, as `sops updatekeys` would make them.

use std::fs;

use crate::repo::{Key, Repo, assert_succeeded, tool};

const VALUES: &str = "config/clusters/lake/enc-prod.values.yaml";

/// A hub whose third values file is not yet encrypted.
fn with_values() -> Repo {
    let repo = Repo::new();
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "prod.values.yaml]",
        "prod.values.yaml, enc-prod.values.yaml]",
    );
    repo.write("helm-charts/pond/values.schema.yaml", "{}\n");
    repo.write(VALUES, "token: opensesame\n");
    repo
}

/// Runs sops in a folder of the repository.
fn sops(repo: &Repo, folder: &str, args: &str) {
    let output = tool("sops")
        .args(args.split_whitespace())
        .current_dir(repo.root.join(folder))
        .envs(repo.env.iter().cloned())
        .output()
        .unwrap();
    assert_succeeded(&output);
}

#[test]
fn the_nearest_config_counts() {
    let mut repo = with_values();
    let ours = Key::new();
    let theirs = Key::new();
    repo.has_key(&ours);
    repo.write(
        ".sops.yaml",
        &format!("creation_rules: [{{age: {}}}]\n", ours.public),
    );
    sops(&repo, "", &format!("encrypt --in-place {VALUES}"));
    repo.ok("validate");
    // The path is from the folder of the file that counts.
    let rules = format!(
        "creation_rules: [{{path_regex: ^config/, age: age1nobody}}, {{path_regex: ^enc-, age: {}}}]\n",
        theirs.public
    );
    repo.write("config/clusters/lake/.sops.yaml", &rules);
    let said = repo.fails("validate");
    let remedy = format!("--config config/clusters/lake/.sops.yaml updatekeys {VALUES}");
    let (ours, theirs) = (&ours.public, &theirs.public);
    assert!(
        said.contains(&format!(
            "{VALUES}:1:1: recipient `{theirs}` of config/clusters/lake/.sops.yaml is missing, and recipient `{ours}` is \
             not in config/clusters/lake/.sops.yaml: `sops {remedy}`"
        )),
        "{said}"
    );
    let remedy = remedy.replace("updatekeys", "updatekeys --yes");
    sops(&repo, "", &remedy);
    repo.ok("validate");
}

/// What cluster.yaml logs in with is checked whatever its name, and once.
#[test]
fn keys_of_clusters() {
    for file in ["enc-kubeconfig", "enc-kubeconfig.secret.yaml"] {
        let repo = Repo::new();
        let cluster = "config/clusters/lake/cluster.yaml";
        repo.edit(cluster, "kubeconfig.yaml", file);
        let path = format!("config/clusters/lake/{file}");
        repo.write(&path, "users: []\n");
        repo.encrypt(&path, &Key::new());
        repo.ok("validate");
        repo.write(".sops.yaml", "creation_rules: [{age: age1other}]\n");
        let said = repo.fails("validate");
        assert_eq!(
            said.matches("`age1other` of .sops.yaml is missing").count(),
            1,
            "{said}"
        );
    }
}

#[test]
fn a_config_above_the_root() {
    let repo = with_values();
    let key = Key::new();
    repo.encrypt(VALUES, &key);
    let base = repo.root.join("..");
    fs::create_dir(base.join(".git")).unwrap();
    fs::remove_file(repo.root.join(".sops.yaml")).unwrap();
    let rule = "creation_rules: [{path_regex: ^repo/config/, age: age1other}]\n";
    fs::write(base.join(".sops.yaml"), rule).unwrap();
    let said = repo.fails("validate");
    assert!(
        said.contains("recipient `age1other` of ../.sops.yaml is missing"),
        "{said}"
    );
}

#[test]
fn a_nested_config_that_is_broken() {
    let repo = with_values();
    repo.encrypt(VALUES, &Key::new());
    repo.write(
        "config/clusters/.sops.yaml",
        "creation_rules: [{path_regex: '('}]\n",
    );
    let said = repo.fails("validate");
    assert!(
        said.contains("config/clusters/.sops.yaml:1:31: `path_regex`:"),
        "{said}"
    );
}

/// Two that are the same up to their first plus.
#[test]
fn ssh_keys_are_compared_whole() {
    let repo = with_values();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBXf1cA01vldrWhai8zyHLCZ+5Elb5QtmybrmlGtlnop ann@example.org";
    let rule = |key: &str| format!("creation_rules: [{{age: '{key}'}}]\n");
    repo.write(".sops.yaml", &rule(key));
    sops(&repo, "", &format!("encrypt --in-place {VALUES}"));
    repo.ok("validate");
    let other = key.replace("+5Elb", "+6Elb");
    repo.write(".sops.yaml", &rule(&other));
    let said = repo.fails("validate");
    assert!(
        said.contains(&format!(
            "recipient `{other}` of .sops.yaml is missing, and recipient `{key}` is not in .sops.yaml"
        )),
        "{said}"
    );
}

#[test]
fn groups_and_how_many_of_them_are_needed() {
    let repo = with_values();
    let keys = [Key::new(), Key::new(), Key::new()];
    let [a, b, c] = keys.each_ref().map(|it| &it.public);
    // sops ignores what stands beside groups.
    let rule = |rest: &str| format!("creation_rules: [{{age: age1nobody, {rest}}}]\n");
    repo.write(
        ".sops.yaml",
        &rule(&format!(
            "shamir_threshold: 2, key_groups: [{{age: ['{a}, {b}']}}, {{merge: [{{age: [{c}]}}]}}]"
        )),
    );
    sops(&repo, "", &format!("encrypt --in-place {VALUES}"));
    repo.ok("validate");
    repo.edit(".sops.yaml", "shamir_threshold: 2", "shamir_threshold: 3");
    let said = repo.fails("validate");
    assert!(
        said.contains("`shamir_threshold` is 2 here, and 3 in .sops.yaml"),
        "{said}"
    );
    repo.write(
        ".sops.yaml",
        &rule(&format!(
            "key_groups: [{{age: [{a}]}}, {{age: [{b}, {c}]}}]"
        )),
    );
    let said = repo.fails("validate");
    assert!(
        said.contains(".sops.yaml groups its recipients otherwise: `sops updatekeys"),
        "{said}"
    );
}

/// No KMS is asked: what rules and blocks say of its keys is put together by hand.
#[test]
fn keys_of_clouds_are_compared_whole() {
    let repo = with_values();
    repo.encrypt(VALUES, &Key::new());
    let encrypted = repo.read(VALUES);
    let (values, _) = encrypted.split_once("sops:").unwrap();
    let mac = encrypted.lines().find(|it| it.contains(" mac: ")).unwrap();
    for (rule, block, wrong) in [
        (
            "kms: 'arn:aws:kms:k + arn:aws:iam:r'",
            "kms: [{arn: arn:aws:kms:k, role: arn:aws:iam:r}]",
            "",
        ),
        (
            "kms: arn:aws:kms:k",
            "kms: [{arn: arn:aws:kms:k, role: arn:aws:iam:r}]",
            "recipient `arn:aws:kms:k` of",
        ),
        (
            "kms: arn:aws:kms:k, aws_profile: p",
            "kms: [{arn: arn:aws:kms:k, aws_profile: p}]",
            "",
        ),
        (
            "kms: arn:aws:kms:k, aws_profile: p",
            "kms: [{arn: arn:aws:kms:k, aws_profile: q}]",
            "`arn:aws:kms:k||q` is not in",
        ),
        (
            "key_groups: [{kms: [{arn: arn:aws:kms:k, context: {b: '1', a: '2'}}]}]",
            "kms: [{arn: arn:aws:kms:k, context: {a: '2', b: '1'}}]",
            "",
        ),
        ("pgp: '85D7 7543 B3D6'", "pgp: [{fp: 85D77543B3D6}]", ""),
        (
            "gcp_kms: projects/p, age: ''",
            "gcp_kms: [{resource_id: projects/p}]",
            "",
        ),
        (
            "azure_keyvault: https://v.vault.azure.cn/keys/k",
            "azure_kv: [{vault_url: https://v.vault.azure.cn, name: k, version: x}]",
            "",
        ),
        (
            "azure_keyvault: https://v.vault.azure.cn/keys/k/y",
            "azure_kv: [{vault_url: https://v.vault.azure.cn, name: k, version: x}]",
            "/keys/k/y` of",
        ),
        (
            "hc_vault_transit_uri: https://v:8200/v1/transit/keys/k/",
            "hc_vault: [{vault_address: https://v:8200, engine_path: transit, key_name: k}]",
            "",
        ),
        ("hckms: ['r:k']", "hckms: [{key_id: r:k}]", ""),
        (
            "hckms: ['r:k']",
            "hckms: [{key_id: r:j}]",
            "`r:k` of .sops.yaml is missing",
        ),
    ] {
        repo.write(".sops.yaml", &format!("creation_rules: [{{{rule}}}]\n"));
        repo.write(VALUES, &format!("{values}sops:\n    {block}\n{mac}\n"));
        let ran = repo.run("validate");
        assert_eq!(
            ran.code,
            Some(i32::from(!wrong.is_empty())),
            "{rule} {}",
            ran.stdout
        );
        assert!(ran.stdout.contains(wrong), "{rule} {}", ran.stdout);
    }
}
