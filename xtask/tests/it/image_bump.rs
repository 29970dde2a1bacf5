//! What `image bump` makes of values files, with a real registry.

use std::fs;

use crate::{
    registry::{BASIC, Program, Registry},
    repo::{Key, Repo},
};

const OLD_DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Values as they are before and after a bump of `quay.io/pool/scipy`. `<tag>` is the tag wherever it may be written as it
/// is, `<plain>` without quotes where YAML takes it for a text, `<new>` only the new one behind a `:`, and `<hex>` the digits of the digest.
const WRITTEN: &[&str] = &[
    "singleuser:\n  # why\n  image:\n    name: quay.io/pool/scipy # 2024.9\n    tag: \"<tag>\" # 2024.9\n    # end\n",
    "singleuser:\n    image:\n        tag: '<tag>'\n        name: 'quay.io/pool/scipy'\n        pullPolicy: Always\n",
    "singleuser: { image: {name: quay.io/pool/scipy, tag: <plain>}, memory: {limit: 1G} }\n",
    "singleuser: {image: {tag: <plain>,name: quay.io/pool/scipy}}",
    "hub:\n  image: {name: quay.io/pool/hub, tag: \"2024.9\"}\nsingleuser:\n  image: {name: quay.io/pool/scipy, tag: \"<tag>\"}\n",
    "list:\n- image: quay.io/pool/scipy:<tag>   # quay.io/pool/scipy:2024.9\n-   image:    \"quay.io/pool/scipy:<tag>\"\n- {image: 'quay.io/pool/scipy:<tag>', name: x}\n- image: busybox:2024.9\n",
    "singleuser:\n  profileList:\n    - kubespawner_override:\n        image: >-\n          quay.io/pool/scipy:<tag>\n        cpu: 1\n    - kubespawner_override: # below\n        image: |- # x\n          quay.io/pool/scipy:<tag>\n\n",
    "a:\n  image:\n    quay.io/pool/scipy:<tag>\n  env: {IMAGE: \"quay.io/pool/scipy:2024.9\"}\n",
    "a: {image: &image quay.io/pool/scipy:<tag>}\nb: {image: *image}\nc:\n  - image: *image # x\n",
    "a:\n  image: {name: quay.io/pool/scipy, tag: &tag \"<tag>\"}\nb:\n  image: {name: quay.io/pool/scipy, tag: *tag}\n",
    "version: &tag 2024.9\nimage:\n  name: quay.io/pool/scipy\n  tag: <alias>\n",
    "one:\n  image: &choice\n    choices:\n      a: {kubespawner_override: {image: \"quay.io/pool/scipy:<tag>\"}}\n      b: {kubespawner_override: {image: \"{value}\"}}\ntwo:\n  image: *choice\nthree:\n  <<: *choice\n  other: 1\n",
    "base: &base\n  image:\n    name: quay.io/pool/scipy\n    tag: <plain>\nuse:\n  <<: *base\n",
    "prePuller:\n  extraImages:\n    scipy:\n      name: quay.io/pool/scipy\n      tag: !!str <tag>\n",
    "app: {image: {repository: quay.io/pool/scipy, tag: \"<tag>\"}}\nb: {image: {registry: quay.io, repository: pool/scipy, tag: <plain>}}\n",
    "a: {image: quay.io/pool/scipy<new>}\nb: {image: \"quay.io/pool/scipy<new>\"}\n",
    "a: {image: {name: \"quay.io/pool/scipy:<tag>\", version: 3}}\nb: {image: quay.io/pool/scipy, imageTag: \"<tag>\"}\n",
    "a: {image: {name: quay.io/pool/scipy, tag: \"<tag>@<digest>\"}}\nb: {image: \"quay.io/pool/scipy:<tag>@<digest>\"}\nc: {image: quay.io/pool/scipy<new>@<digest>}\n",
    "a:\n  image:\n    name: quay.io/pool/scipy\n    digest: <digest> # of it\n    tag: \"<tag>\"\nb:\n  image: {name: quay.io/pool/scipy, tag: \"<tag>\", sha: \"<hex>\"}\n",
    "{\"singleuser\": {\"image\": {\"name\": \"quay.io/pool/scipy\", \"tag\": \"<tag>\"}},\n \"a\": {\"image\": \"quay.io/pool/scipy:<tag>\"}}\n",
    "# ü\na: {image: {name: quay.io/pool/scipy, tag: \"2024.9\"}}\n---\n# second\na: {image: {tag: \"<tag>\"}} # é\n",
    "\u{feff}é: [{image: 'quay.io/pool/scipy:<tag>'}, {image: \"quay.io\\u002fpool/scipy:2024.9\"}, {image: \"quay.io/pool/scipy:<tag>\"}]\n",
    "a:\n  image: {name: quay.io/pool/scipy, tag: \"1\"}\n  image: {name: quay.io/pool/scipy, tag: \"<tag>\"}\n",
    "build_image: quay.io/pool/scipy:<tag>\nshellImage: {name: quay.io/pool/scipy, tag: '<tag>'}\n",
];

#[test]
fn each_way_to_write_a_tag_is_changed_alone() {
    let pool = Pool::new();
    let digest = pool.push("pool/scipy", &["1.10", "v2-x"]);
    for (tag, ends) in [("1.10", "\n"), ("v2-x", "\r\n")] {
        for (number, text) in WRITTEN.iter().enumerate() {
            pool.write_hub(number, &before(text).replace('\n', ends));
        }
        pool.write_cluster(WRITTEN.len());
        let args = format!("image bump lake --image scipy --tag {tag}");
        let ran = pool.repo.ok(&args);
        for (number, text) in WRITTEN.iter().enumerate() {
            let wanted = after(text, tag, &digest).replace('\n', ends);
            assert_eq!(pool.repo.read(&values_file(number)), wanted, "{text}");
        }
        assert!(
            ran.stdout
                .contains("hub0.values.yaml:5: quay.io/pool/scipy 2024.9 → ")
        );
        let again = pool.repo.ok(&args);
        assert_eq!(again.stdout, "");
        assert!(
            again.stderr.contains("nothing is to be done"),
            "{}",
            again.stderr
        );
    }
}

fn before(text: &str) -> String {
    text.replace("<tag>", "2024.9")
        .replace("<plain>", "2024.9")
        .replace("<alias>", "*tag")
        .replace("<new>", "")
        .replace("<digest>", OLD_DIGEST)
        .replace("<hex>", hex(OLD_DIGEST))
}

fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

/// A tag that YAML takes for a number gets quotes.
fn after(text: &str, tag: &str, digest: &str) -> String {
    let plain = match tag {
        "1.10" => "\"1.10\"",
        tag => tag,
    };
    let text = text
        .replace(
            "quay.io\\u002fpool/scipy:2024.9",
            &format!("quay.io/pool/scipy:{tag}"),
        )
        .replace("<tag>", tag)
        .replace("<plain>", plain)
        .replace("<alias>", plain)
        .replace("<new>", &format!(":{tag}"));
    text.replace("<digest>", digest)
        .replace("<hex>", hex(digest))
}

/// Tags that there are, the present one, an expression, and the tag that it chooses or a part of what is said.
const NEWEST: &[(&[&str], &str, &str, &str)] = &[
    (
        &["2026.9", "2026.10", "2026.1"],
        "2026.1",
        r"\d+\.\d+",
        "2026.10",
    ),
    (
        &["1.0-rc1", "1.0-rc2", "1.0-beta5"],
        "0.9",
        r"1\.0.*",
        "1.0-rc2",
    ),
    (&["1.0-rc1", "1.0", "1.0.dev3", "0.9"], "0.9", ".*", "1.0"),
    (
        &["2024.01.02", "2024.01.10", "latest"],
        "latest",
        r"\d{4}\.\d\d\.\d\d",
        "2024.01.10",
    ),
    (
        &["2024-1-2", "2024-1-2.post1", "v2024-1-1"],
        "main",
        ".*2024.*",
        "2024-1-2.post1",
    ),
    // Only whole tags match, and only groups are compared.
    (
        &["4.1", "4.1-arm", "5.1-arm", "14.0b"],
        "4.0",
        r"\d+\.\d+",
        "4.1",
    ),
    (
        &["20240101-ffffff", "20240301-000000", "20240201-aaaaaa"],
        "20240101-ffffff",
        r"(\d{8})-[0-9a-f]{6}",
        "20240301-000000",
    ),
    (
        &["py9-1", "py10-2", "py8-3"],
        "py9-1",
        r"py\d+-(\d+)",
        "py8-3",
    ),
    // A present tag is never made older.
    (
        &["1.8", "1.9"],
        "1.10",
        r"\d+\.\d",
        "stays: the newest tag that matches, `1.9`, is older",
    ),
    (
        &["1.8", "1.9"],
        "1.9",
        r"\d+\.\d",
        "stays: `1.9` is the newest tag that matches",
    ),
    (&["1.8", "1.9"], "3f2a1bc9d", r"\d+\.\d", "1.9"),
    // What has no order.
    (
        &["a31c4f9", "31c4f9b", "f00baa1"],
        "a31c4f9",
        "[0-9a-f]{7}",
        "commits have no order",
    ),
    (
        &["2.0-r", "2.0-python", "1.0-r"],
        "1.0-r",
        ".*",
        "differ in words",
    ),
    (
        &["1.0", "1.00"],
        "0.9",
        ".*",
        "`1.0`, `1.00` have the same numbers",
    ),
    (
        &["1.0", "1.00"],
        "1.00",
        ".*",
        "stays: `1.00` is the newest tag that matches",
    ),
    (
        &["1.0", "1.1"],
        "1.0",
        r"2\..*",
        "none of its 2 tags matches `2\\..*` as a whole; the last ones are `1.0`, `1.1`",
    ),
];

#[test]
fn the_newest_tag_has_the_highest_numbers() {
    let pool = Pool::new();
    pool.write_cluster(NEWEST.len());
    for (number, (tags, now, _, _)) in NEWEST.iter().enumerate() {
        pool.push(&format!("newest/a{number}"), tags);
        let text = format!("a: {{image: \"quay.io/newest/a{number}:{now}\"}}\n");
        pool.write_hub(number, &text);
    }
    for (number, (tags, now, regex, wanted)) in NEWEST.iter().enumerate() {
        let ran = pool
            .repo
            .run(&format!("image bump lake hub{number} --newest {regex}"));
        let text = pool.repo.read(&values_file(number));
        let tag = if tags.contains(wanted) { wanted } else { now };
        assert_eq!(
            text,
            format!("a: {{image: \"quay.io/newest/a{number}:{tag}\"}}\n")
        );
        assert!(
            tag == wanted || ran.stderr.contains(wanted),
            "{}",
            ran.stderr
        );
        let is_wrong = tag == now && !wanted.starts_with("stays");
        assert_eq!(ran.code, Some(i32::from(is_wrong)), "{}", ran.stderr);
    }
}

#[test]
fn a_pinned_tag_has_the_digest_that_its_registry_says() {
    let pool = Pool::new();
    pool.write_cluster(1);
    pool.write_hub(0, "a: {image: quay.io/pool/r:1}\n");
    let pin = "image bump lake --pin";
    let first = pool.push("pool/r", &["1"]);
    pool.repo.ok(pin);
    assert_eq!(
        pool.hub(0),
        format!("a: {{image: quay.io/pool/r:1@{first}}}\n")
    );
    assert!(pool.repo.ok(pin).stderr.contains("nothing is to be done"));
    // The tag was pushed again, and another one: only what is asked for follows.
    let second = pool.push_for("pool/r", &["1"], "arm64");
    assert_ne!(first, second);
    let newest = "image bump lake --newest 1";
    assert!(
        pool.repo
            .ok(newest)
            .stderr
            .contains("nothing is to be done")
    );
    pool.repo.ok("image bump lake --tag 1");
    assert_eq!(
        pool.hub(0),
        format!("a: {{image: quay.io/pool/r:1@{second}}}\n")
    );
    let third = pool.push("pool/r", &["2"]);
    pool.repo.ok("image bump lake --newest [0-9]");
    let pinned = format!("a: {{image: quay.io/pool/r:2@{third}}}\n");
    assert_eq!(pool.hub(0), pinned);
    assert!(
        pool.repo
            .fails("image bump lake --tag 3")
            .contains("its registry has no tag `3`")
    );
    assert_eq!(pool.hub(0), pinned);
}

#[test]
fn without_an_answer_a_tag_is_set_with_a_warning_and_no_digest_is_made_up() {
    let mut pool = Pool::new();
    pool.registry.take();
    pool.write_cluster(1);
    pool.write_hub(0, "a: {image: quay.io/pool/r:1}\n");
    let said = pool.repo.fails("image bump lake --tag 2 --pin");
    assert!(
        said.contains("the digest of `quay.io/pool/r:2` cannot be asked for"),
        "{said}"
    );
    assert!(
        pool.repo
            .fails("image bump lake --newest .*")
            .contains("quay.io/pool/r:1")
    );
    assert_eq!(pool.hub(0), "a: {image: quay.io/pool/r:1}\n");
    let ran = pool.repo.ok("image bump lake --tag 2");
    assert!(
        ran.stderr
            .contains("warning: cannot check that `quay.io/pool/r:2` is there")
    );
    assert_eq!(pool.hub(0), "a: {image: quay.io/pool/r:2}\n");
}

#[test]
fn what_other_hubs_have_as_well_is_changed_only_with_them() {
    let pool = Pool::new();
    pool.push("pool/r", &["2"]);
    pool.push("pool/julia", &["2"]);
    pool.write_cluster(3);
    pool.repo.edit(
        CLUSTER,
        "[hub0.values.yaml]",
        "[common.yaml, hub0.values.yaml]",
    );
    pool.repo.edit(
        CLUSTER,
        "[hub1.values.yaml]",
        "[common.yaml, hub1.values.yaml]",
    );
    pool.repo.edit(
        CLUSTER,
        "[hub2.values.yaml]",
        "[common.yaml, hub2.values.yaml]",
    );
    let common = "config/clusters/lake/common.yaml";
    let text = "singleuser:\n  image: {name: quay.io/pool/r, tag: '1'}\n";
    pool.repo.write(common, text);
    pool.write_hub(0, "{}\n");
    pool.write_hub(1, "{}\n");
    // This one has its own.
    pool.write_hub(2, "singleuser:\n  image: {tag: '1'}\n");
    let said = pool.repo.fails("image bump lake hub0 --tag 2");
    let wanted = "config/clusters/lake/common.yaml:2 sets `quay.io/pool/r` also for `lake/hub1`\n";
    assert!(said.contains(wanted), "{said}");
    assert_eq!(pool.repo.read(common), text);
    let ran = pool.repo.ok("image bump lake hub0 hub1 --tag 2");
    let wanted = "common.yaml:2: quay.io/pool/r 1 → 2 for lake/hub0, lake/hub1\n";
    assert!(ran.stdout.ends_with(wanted), "{}", ran.stdout);
    assert_eq!(pool.repo.read(common), text.replace("'1'", "'2'"));
    assert_eq!(pool.hub(2), "singleuser:\n  image: {tag: '1'}\n");
    // A tag that another hub has for another image.
    pool.repo.write(common, text);
    pool.write_hub(1, "singleuser:\n  image: {name: quay.io/pool/julia}\n");
    let said = pool.repo.fails("image bump lake --image r --tag 2");
    assert!(
        said.contains("common.yaml:2 sets `quay.io/pool/r` also for `lake/hub1`\n"),
        "{said}"
    );
    pool.repo
        .ok("image bump lake --image r --image julia --tag 2");
    assert_eq!(pool.repo.read(common), text.replace("'1'", "'2'"));
}

#[test]
fn what_is_encrypted_or_made_by_jsonnet_is_named_and_left() {
    let mut pool = Pool::new();
    pool.push("pool/r", &["2"]);
    pool.write_cluster(3);
    pool.repo
        .edit(CLUSTER, "[hub0.values.yaml]", "[hub0.values.jsonnet]");
    pool.repo.edit(
        CLUSTER,
        "[hub1.values.yaml]",
        "[hub1.values.yaml, enc-hub1.secret.values.yaml]",
    );
    let jsonnet = "{singleuser: {image: {name: 'quay.io/pool/r', tag: '1'}}}\n";
    pool.repo
        .write("config/clusters/lake/hub0.values.jsonnet", jsonnet);
    pool.write_hub(1, "singleuser: {image: {name: quay.io/pool/r}}\n");
    let secret = "config/clusters/lake/enc-hub1.secret.values.yaml";
    pool.repo
        .write(secret, "singleuser:\n  image:\n    tag: '1'\n");
    let key = Key::new();
    pool.repo.has_key(&key);
    pool.repo
        .encrypt_by(secret, &key, "encrypted_regex: ^password$");
    let encrypted = pool.repo.read(secret);
    pool.write_hub(2, "a: {image: quay.io/pool/r:1}\n");
    let ran = pool.repo.ok("image bump lake --tag 2");
    for wanted in [
        "hub0.values.jsonnet:1 sets `quay.io/pool/r` of lake/hub0: jsonnet makes it",
        "enc-hub1.secret.values.yaml:3 sets `quay.io/pool/r` of lake/hub1: it is encrypted",
    ] {
        assert!(ran.stderr.contains(wanted), "{}", ran.stderr);
    }
    assert_eq!(pool.hub(2), "a: {image: quay.io/pool/r:2}\n");
    assert_eq!(pool.repo.read(secret), encrypted);
    let said = pool.repo.fails("image bump lake hub0 --tag 2");
    assert!(
        said.starts_with("error: config/clusters/lake/hub0.values.jsonnet:1 sets"),
        "{said}"
    );
}

#[test]
fn names_are_clusters_and_hubs_of_the_cluster_before() {
    let pool = Pool::new();
    pool.push("pool/r", &["2"]);
    let image = "a: {image: quay.io/pool/r:1}\n";
    let cluster = |name: &str, hubs: &[&str]| {
        let mut text =
            format!("name: {name}\nprovider: kubeconfig\nkubeconfig: {{file: k.yaml}}\nhubs:\n");
        for hub in hubs {
            text += &hub_yaml(hub);
            pool.repo
                .write(&format!("config/clusters/{name}/{hub}.values.yaml"), image);
        }
        pool.repo
            .write(&format!("config/clusters/{name}/cluster.yaml"), &text);
    };
    cluster("lake", &["staging", "prod"]);
    cluster("river", &["river", "staging"]);
    for (names, wanted) in [
        ("lake", &["lake/prod", "lake/staging"][..]),
        ("lake staging", &["lake/staging"]),
        (
            "lake staging river",
            &["lake/staging", "river/river", "river/staging"],
        ),
        ("river river", &["river/river"]),
        (
            "river staging lake",
            &["lake/prod", "lake/staging", "river/staging"],
        ),
        (
            "river/staging lake/prod staging",
            &["lake/prod", "lake/staging", "river/staging"],
        ),
        (
            "all",
            &["lake/prod", "lake/staging", "river/river", "river/staging"],
        ),
    ] {
        let ran = pool
            .repo
            .ok(&format!("image bump {names} --tag 2 --dry-run"));
        let files = ran
            .stdout
            .lines()
            .filter_map(|it| it.strip_prefix("+++ b/config/clusters/"));
        let hubs: Vec<_> = files
            .map(|it| it.trim_end_matches(".values.yaml"))
            .collect();
        assert_eq!(hubs, wanted, "{names}");
    }
    let read = |hub: &str| {
        pool.repo
            .read(&format!("config/clusters/{hub}.values.yaml"))
    };
    assert_eq!(read("lake/prod"), image, "--dry-run writes nothing");
    let ran = pool.repo.ok("image bump lake prod river --tag 2");
    assert_eq!(
        ran.stdout,
        "config/clusters/lake/prod.values.yaml:1: quay.io/pool/r 1 → 2 for lake/prod\n\
         config/clusters/river/river.values.yaml:1: quay.io/pool/r 1 → 2 for river/river\n\
         config/clusters/river/staging.values.yaml:1: quay.io/pool/r 1 → 2 for river/staging\n"
    );
    assert_eq!(read("lake/staging"), image);
    assert_eq!(read("river/staging"), image.replace(":1", ":2"));
}

#[test]
fn no_file_is_written_if_one_cannot_be() {
    let pool = Pool::new();
    pool.push("pool/r", &["2"]);
    pool.write_cluster(3);
    let schema = "properties: {a: {properties: {image: {enum: ['quay.io/pool/r:1']}}}}\n";
    pool.repo
        .write("helm-charts/pool/values.schema.yaml", schema);
    pool.write_hub(0, "b: {image: quay.io/pool/r:1}\n");
    pool.write_hub(1, "a: {image: quay.io/pool/r:1}\n");
    pool.write_hub(
        2,
        "b: {image: quay.io/pool/r:1}\nnote: &n quay.io/pool/r:1\nc: {image: *n}\n",
    );
    let said = pool.repo.fails("image bump lake --tag 2");
    assert!(
        said.contains("nothing was written, for `validate` would say"),
        "{said}"
    );
    for hub in 0..3 {
        assert!(!pool.hub(hub).contains(":2"), "{}", pool.hub(hub));
    }
    // What an alias shares with something else than an image stays there.
    pool.repo.ok("image bump lake hub2 --tag 2");
    let wanted =
        "b: {image: quay.io/pool/r:2}\nnote: &n quay.io/pool/r:1\nc: {image: quay.io/pool/r:2}\n";
    assert_eq!(pool.hub(2), wanted);
    pool.write_hub(2, "c: {image: &n quay.io/pool/r:1}\nnote: *n\n");
    let said = pool.repo.fails("image bump lake hub2 --tag 2");
    assert!(
        said.contains(
            "hub2.values.yaml: line 1: other values of this file are aliases of this one"
        ),
        "{said}"
    );
}

#[test]
fn a_registry_that_wants_a_login_gets_it() {
    let mut pool = Pool::new();
    let registry = Registry::with_password(Program::Debian, &pool.repo.home().join("private"));
    registry.push("pool/r", "2", "amd64");
    pool.write_cluster(1);
    let image = format!("a: {{image: \"{}/pool/r:1\"}}\n", registry.address);
    pool.write_hub(0, &image);
    let said = pool.repo.fails("image bump lake --newest [0-9]");
    assert!(said.contains("wants a login"), "{said}");
    let auth = BASIC.trim_start_matches("Basic ");
    let config = format!(
        "{{\"auths\": {{\"{}\": {{\"auth\": \"{auth}\"}}}}}}",
        registry.address
    );
    fs::create_dir_all(pool.repo.home().join(".docker")).unwrap();
    let docker = pool.repo.home().join(".docker/config.json");
    fs::write(&docker, config).unwrap();
    pool.repo.ok("image bump lake --newest [0-9]");
    assert_eq!(pool.hub(0), image.replace(":1\"", ":2\""));
    // The cluster's own login, from an encrypted file, without that one.
    let key = Key::new();
    pool.repo.has_key(&key);
    let secret = "config/clusters/lake/enc-docker.secret.json";
    fs::rename(&docker, pool.repo.root.join(secret)).unwrap();
    pool.repo.encrypt(secret, &key);
    let registry = "registry: {provider: dockerconfig, filename: enc-docker.secret.json}\nhubs:";
    pool.repo.edit(CLUSTER, "hubs:", registry);
    pool.write_hub(0, &image);
    pool.repo.ok("image bump lake --newest [0-9]");
    assert_eq!(pool.hub(0), image.replace(":1\"", ":2\""));
}

#[test]
fn own_images_are_left_to_deploys() {
    let pool = Pool::new();
    pool.write_cluster(1);
    pool.repo.write("images/r/Dockerfile", "FROM scratch\n");
    let own = "    images: [{name: quay.io/pool/r, path: images/r}]\n";
    let cluster = pool.repo.read(CLUSTER);
    pool.repo.write(CLUSTER, &(cluster + own));
    pool.write_hub(
        0,
        "jupyterhub: {singleuser: {image: {name: quay.io/pool/r, tag: '1'}}}\n",
    );
    let ran = pool.repo.ok("image bump lake --tag 2");
    assert!(
        ran.stderr.contains("`quay.io/pool/r` of `lake/hub0` stays"),
        "{}",
        ran.stderr
    );
    assert!(pool.hub(0).contains("'1'"));
}

const CLUSTER: &str = "config/clusters/lake/cluster.yaml";

/// A repository whose images come from a registry on loopback.
struct Pool {
    repo: Repo,
    registry: Option<Registry>,
}

impl Pool {
    fn new() -> Pool {
        let repo = Repo::new();
        let registry = Registry::open(Program::Debian, &repo.home().join("registry"));
        let settings = format!(
            "image_mirrors: {{quay.io: \"http://{}\"}}\n",
            registry.address
        );
        repo.write("config/xtask.yaml", &settings);
        let chart = "apiVersion: v2\nname: pool\nversion: 0.1.0\n";
        repo.write("helm-charts/pool/Chart.yaml", chart);
        Pool {
            repo,
            registry: Some(registry),
        }
    }

    /// Pushes an image with these tags. Returns its digest.
    fn push(&self, name: &str, tags: &[&str]) -> String {
        self.push_for(name, tags, "amd64")
    }

    fn push_for(&self, name: &str, tags: &[&str], architecture: &str) -> String {
        let registry = self.registry.as_ref().unwrap();
        let pushed = tags.iter().map(|it| registry.push(name, it, architecture));
        pushed.collect::<Vec<_>>().pop().unwrap()
    }

    /// A cluster with as many hubs, each with a file of its own.
    fn write_cluster(&self, hubs: usize) {
        let mut text =
            "name: lake\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs:\n"
                .to_owned();
        for number in 0..hubs {
            text += &hub_yaml(&format!("hub{number}"));
        }
        self.repo.write(CLUSTER, &text);
    }

    fn write_hub(&self, number: usize, text: &str) {
        self.repo.write(&values_file(number), text);
    }

    fn hub(&self, number: usize) -> String {
        self.repo.read(&values_file(number))
    }
}

fn hub_yaml(name: &str) -> String {
    format!(
        "  - name: {name}\n    domain: {name}.example.org\n    helm_chart: pool\n    helm_chart_values_files: [{name}.values.yaml]\n"
    )
}

fn values_file(number: usize) -> String {
    format!("config/clusters/lake/hub{number}.values.yaml")
}
