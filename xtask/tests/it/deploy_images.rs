//! Hubs whose images are built from folders of the repository: helm gets their names and tags, and a hub is left alone while its
//! registry has no such tag.

use std::{fs, os::unix::fs::symlink};

use crate::{
    generate::{commit, git},
    repo::{Repo, Shared},
    upstream::{Answer, Server, free_address, start_registry},
};

/// What shows the values of users' images.
const TEMPLATE: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata:
  name: images
data:
  users: {{ printf "%s:%s" .Values.singleuser.image.name .Values.singleuser.image.tag | quote }}
  {{- range $index, $profile := .Values.singleuser.profileList }}
  profile-{{ $index }}: {{ $profile.kubespawner_override.image | toString | quote }}
  password-{{ $index }}: {{ $profile.password | quote }}
  {{- end }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: hub
spec:
  serviceName: hub
  selector:
    matchLabels: {app: hub}
  template:
    metadata:
      labels: {app: hub}
    spec:
      containers:
        - name: hub
          image: {{ printf "%s:%s" .Values.singleuser.image.name .Values.singleuser.image.tag | quote }}
"#;

/// A hub, and its `images` as cluster.yaml has them.
type HubWith<'a> = (&'a str, &'a str);

/// A repository in git with these hubs, and the folders `images/user` and `images/gpu`.
fn with_images(cluster: &Shared, hubs: &[HubWith]) -> Repo {
    let names: Vec<_> = hubs.iter().map(|(name, _)| *name).collect();
    let repo = Repo::on(cluster, &names);
    fs::remove_dir_all(repo.root.join("config/clusters/river")).unwrap();
    let chart = "apiVersion: v2\nname: pool\nversion: 0.1.0\n";
    repo.write("helm-charts/pool/Chart.yaml", chart);
    let values = "singleuser: {image: {name: quay.io/pool/users, tag: \"1\"}, profileList: []}\n";
    repo.write("helm-charts/pool/values.yaml", values);
    repo.write("helm-charts/pool/templates/all.yaml", TEMPLATE);
    let file = "config/clusters/lake/cluster.yaml";
    repo.edit(file, "helm_chart: pond", "helm_chart: pool");
    for (name, images) in hubs {
        let listed = format!("[common.values.yaml, {name}.values.yaml]");
        let own = format!("[{name}.values.yaml]\n  images: {images}");
        repo.edit(file, &listed, &own);
    }
    fs::remove_file(repo.root.join("config/clusters/lake/common.values.yaml")).unwrap();
    for folder in ["user", "gpu"] {
        repo.write(&format!("images/{folder}/Dockerfile"), "FROM scratch\n");
    }
    repo.write(".gitignore", "kubeconfig.yaml\n");
    git(&repo.root, &["init", "--quiet"]);
    commit(&repo, "first");
    repo
}

/// One image of `images/user`, of this name.
fn image(name: &str) -> String {
    format!("[{{name: {name}, path: ../../../images/user}}]")
}

/// A registry that gives this answer about each image. Returns how it is called in names.
fn registry(answer: impl Fn() -> Answer + Send + Sync + 'static) -> String {
    let server = Server::asked(move |request| {
        if request.path == "v2/" {
            return Answer::Json(200, serde_json::json!({}));
        }
        assert!(request.path.contains("/manifests/"), "{}", request.path);
        answer()
    });
    server.address.replace("http://", "")
}

fn with_all() -> String {
    registry(|| Answer::Json(200, serde_json::json!({})))
}

/// The tag of a folder's image.
fn tag(repo: &Repo, folder: &str) -> String {
    let commit = git(&repo.root, &["log", "-1", "--format=%H", "--", folder]);
    let is_number = |it: &str| it.parse::<f64>().is_ok();
    let mut tags = (7..).map(|length| &commit[..length]);
    tags.find(|it| !is_number(it)).unwrap().to_owned()
}

fn deployed(cluster: &Shared, hub: &str, what: &str) -> String {
    cluster.kubectl(&format!(
        "get configmap images -n {hub} -o jsonpath={{.data.{what}}}"
    ))
}

#[test]
fn the_tag_is_the_last_commit_of_the_folder() {
    let cluster = Shared::cluster();
    let name = format!("{}/lake/user", with_all());
    let repo = with_images(&cluster, &[("image-tag", &image(&name))]);
    let first = format!("{name}:{}", tag(&repo, "images/user"));
    repo.ok("validate lake --render");
    let ran = repo.ok("deploy lake --dry-run");
    assert_eq!(ran.stdout.matches(&first).count(), 2, "{}", ran.stdout);
    repo.ok("deploy lake");
    assert_eq!(deployed(&cluster, "image-tag", "users"), first);
    let image = "get statefulset hub -n image-tag -o jsonpath={..image}";
    assert_eq!(cluster.kubectl(image), first);

    // Another commit is no other image.
    repo.write("images/gpu/Dockerfile", "FROM scratch\nUSER 1\n");
    commit(&repo, "second");
    let ran = repo.ok("deploy lake --skip-unchanged");
    assert!(ran.stdout.contains("unchanged"), "{}", ran.stdout);

    repo.write("images/user/Dockerfile", "FROM scratch\nUSER 1\n");
    let ran = repo.ok("deploy lake --skip-unchanged");
    assert!(ran.stdout.contains("unchanged"), "{}", ran.stdout);
    assert!(
        ran.stderr
            .contains("`images/user` has changes that no commit has"),
        "{}",
        ran.stderr
    );

    commit(&repo, "third");
    let second = format!("{name}:{}", tag(&repo, "images/user"));
    assert_ne!(first, second);
    let ran = repo.ok("deploy lake --diff --dry-run");
    // A longer text than most tags may have been a secret.
    let is_short = first.rsplit(':').next().unwrap().len() < 8;
    let old = if is_short { &*first } else { "'***'" };
    for line in [format!("-  users: {old}"), format!("+  users: {second}")] {
        assert!(ran.stdout.contains(&line), "no {line:?}: {}", ran.stdout);
    }
    let ran = repo.ok("deploy lake --skip-unchanged");
    assert!(!ran.stderr.contains("has changes"), "{}", ran.stderr);
    assert!(
        ran.stdout.contains("deployed  revision 2"),
        "{}",
        ran.stdout
    );
    assert_eq!(deployed(&cluster, "image-tag", "users"), second);
    let ran = repo.ok("deploy lake --skip-unchanged");
    assert!(ran.stdout.contains("unchanged"), "{}", ran.stdout);
    repo.ok("rollback lake image-tag 1 --yes");
    assert_eq!(deployed(&cluster, "image-tag", "users"), first);
}

/// helm replaces lists as a whole: what else is in one stays, and secret.
#[test]
fn a_profile_in_an_encrypted_list() {
    let cluster = Shared::cluster();
    let name = format!("{}/lake/user", with_all());
    let images = format!(
        "[{{name: {name}, path: ../../../images/user, values_path: [singleuser.image, \
         'singleuser.profileList[1].kubespawner_override.image', 'singleuser.profileList[2].kubespawner_override.image']}}]"
    );
    let mut repo = with_images(&cluster, &[("image-profile", &images)]);
    let key = crate::repo::Key::new();
    repo.has_key(&key);
    let file = "config/clusters/lake/enc-image-profile.secret.values.yaml";
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "image-profile.values.yaml]",
        "image-profile.values.yaml, enc-image-profile.secret.values.yaml]",
    );
    repo.write(
        file,
        "singleuser:\n  profileList:\n  - password: the-first-albatross\n    kubespawner_override: {image: 'quay.io/pool/other:2'}\n\
         \x20 - password: the-second-albatross\n    kubespawner_override: {mem_limit: 2G}\n\
         \x20 - password: the-third-albatross\n    kubespawner_override: {image: {name: x, pullPolicy: Always}}\n",
    );
    repo.encrypt(file, &key);
    let own = tag(&repo, "images/user");
    let ran = repo.ok("deploy lake --dry-run");
    assert!(
        ran.stdout.contains(&format!("profile-1: {name}:{own}")),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("albatross"), "{}", ran.stdout);
    repo.ok("deploy lake");
    let shown = |what: &str| deployed(&cluster, "image-profile", what);
    assert_eq!(shown("users"), format!("{name}:{own}"));
    assert_eq!(shown("profile-0"), "quay.io/pool/other:2");
    assert_eq!(shown("profile-1"), format!("{name}:{own}"));
    assert_eq!(
        shown("profile-2"),
        format!("map[name:{name} pullPolicy:Always tag:{own}]")
    );
    assert_eq!(shown("password-1"), "the-second-albatross");
    let ran = repo.ok("deploy lake --skip-unchanged");
    assert!(ran.stdout.contains("unchanged"), "{}", ran.stdout);
    // A revision of ours holds those values, too, and a difference shows none of them.
    repo.write("images/user/Dockerfile", "FROM scratch\nUSER 1\n");
    commit(&repo, "second");
    let new = format!("+  profile-1: {name}:{}", tag(&repo, "images/user"));
    let ran = repo.ok("deploy lake --diff --dry-run");
    assert!(ran.stdout.contains(&new), "{}", ran.stdout);
    assert!(!ran.stdout.contains("albatross"), "{}", ran.stdout);
}

#[test]
fn what_registries_say() {
    let cluster = Shared::cluster();
    let without = format!("{}/lake/user", registry(|| Answer::Status(404)));
    let busy = registry(|| Answer::Refused(429, "Retry-After: 3600".to_owned()));
    let busy = format!("{busy}/lake/user");
    let down = format!("{}/lake/user", free_address());
    let fine = format!("{}/lake/user", with_all());
    let hubs = [
        ("image-lost", image(&without)),
        ("image-lost-too", image(&without)),
        ("image-busy", image(&busy)),
        ("image-down", image(&down)),
        ("image-fine", image(&fine)),
    ];
    let hubs: Vec<_> = hubs.iter().map(|(name, it)| (*name, it.as_str())).collect();
    let repo = with_images(&cluster, &hubs);
    let tag = tag(&repo, "images/user");
    let ran = repo.run("deploy lake");
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    let said = &ran.stderr;
    for part in [
        format!(
            "`{without}` has no tag `{tag}`, the last commit that changed `images/user`\n\n\
             hint: `cargo xtask image build lake image-lost --push` builds it"
        ),
        "hint: `cargo xtask image build lake image-lost-too --push`".to_owned(),
        format!("lake: warning: whether `{busy}:{tag}` is there is not known"),
        format!("lake: warning: whether `{down}:{tag}` is there is not known"),
        "2 of 5 hubs of `lake` failed: `image-lost`, `image-lost-too`".to_owned(),
    ] {
        assert!(said.contains(&part), "no {part:?}: {said}");
    }
    for hub in ["image-busy", "image-down", "image-fine"] {
        let image = deployed(&cluster, hub, "users");
        assert!(image.ends_with(&tag), "{hub}: {image}");
    }
    let namespaces = cluster.kubectl("get namespaces -o name");
    assert!(!namespaces.contains("image-lost"), "{namespaces}");

    // Others wait for a staging hub that is refused.
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "- name: image-lost\n",
        "- name: image-lost\n  stage: staging\n",
    );
    let ran = repo.run("deploy lake image-lost image-fine");
    assert!(ran.stdout.contains("held back"), "{}", ran.stdout);
    repo.ok("deploy lake image-lost --skip-image-check");
    assert_eq!(
        deployed(&cluster, "image-lost", "users"),
        format!("{without}:{tag}")
    );
}

/// A folder that no commit has, or whose last commit a shallow clone does not have, holds back only its hub.
#[test]
fn a_folder_without_a_commit() {
    let cluster = Shared::cluster();
    let name = format!("{}/lake/user", with_all());
    let new = format!("[{{name: {name}-new, path: ../../../images/new}}]");
    let hubs = [("image-known", image(&name)), ("image-new", new)];
    let hubs: Vec<_> = hubs.iter().map(|(name, it)| (*name, it.as_str())).collect();
    let repo = with_images(&cluster, &hubs);
    repo.write("images/new/Dockerfile", "FROM scratch\n");
    let ran = repo.ok("validate");
    let line = "config/clusters/lake/cluster.yaml:14:56: warning: no commit has `images/new`";
    assert!(ran.stdout.contains(line), "{}", ran.stdout);
    let said = repo.fails("deploy lake");
    assert!(said.contains("no commit has `images/new`"), "{said}");
    assert!(
        said.contains("1 of 2 hubs of `lake` failed: `image-new`"),
        "{said}"
    );
    git(&repo.root, &["add", "images/new"]);
    let ran = repo.ok("validate --staged");
    assert!(!ran.stdout.contains("no commit"), "{}", ran.stdout);
    let tag = tag(&repo, "images/user");
    let ran = repo.ok("config get-values lake image-known singleuser.image");
    let place = "config/clusters/lake/cluster.yaml:9 (built from images/user)";
    for (key, value) in [("name", &name), ("tag", &tag)] {
        let mut lines = ran.stdout.lines();
        let line = lines.find(|it| it.contains(&format!("singleuser.image.{key} ")));
        let line = line.unwrap_or_else(|| panic!("no {key}: {}", ran.stdout));
        assert!(
            line.contains(&format!("\"{value}\"")) && line.ends_with(place),
            "{line}"
        );
    }
    let said = repo.fails("config set lake/image-known singleuser.image.tag other");
    assert!(
        said.contains("cluster.yaml:9 sets it: it is an image that is built"),
        "{said}"
    );
}

/// A hub whose image cannot be built is left as it is, and an image that hubs share is built once.
#[test]
fn built_and_pushed() {
    let cluster = Shared::cluster();
    let folder = Repo::new();
    let (_registry, address) = start_registry(&folder.root);
    let host = address.replace("oci://", "");
    let name = format!("{host}/lake/user");
    let broken = format!("[{{name: {host}/lake/gpu, path: ../../../images/gpu}}]");
    let hubs = [
        ("build-a", image(&name)),
        ("build-b", image(&name)),
        ("build-broken", broken),
    ];
    let hubs: Vec<_> = hubs.iter().map(|(name, it)| (*name, it.as_str())).collect();
    let mut repo = with_images(&cluster, &hubs);
    repo.write("images/user/file", "content\n");
    let dockerfile = "FROM scratch\nCOPY file /\n";
    repo.write("images/user/Dockerfile", dockerfile);
    repo.write("images/gpu/Dockerfile", dockerfile);
    commit(&repo, "second");
    let user = format!("{name}:{}", tag(&repo, "images/user"));
    let namespaces = || cluster.kubectl("get namespaces -o name");

    let said = repo.fails("deploy lake --build --push");
    for part in [
        format!("{user} is built: "),
        "gpu: failed: ".to_owned(),
        "no hub was deployed, since `--deploy` is not given".to_owned(),
        "error: no image for `build-broken` of `lake`".to_owned(),
    ] {
        assert_eq!(said.matches(&part).count(), 1, "{part:?}: {said}");
    }
    assert!(!namespaces().contains("build-a"));
    let ran = repo.ok("deploy lake --push");
    assert!(
        ran.stderr.contains("warning: `--push` is ignored"),
        "{}",
        ran.stderr
    );
    assert!(!namespaces().contains("build-a"));

    let said = repo.fails("deploy lake --build --push --deploy");
    let part = format!("{user} is not built: its registry has it");
    assert!(said.contains(&part), "{said}");
    let part = "1 of 3 hubs of `lake` failed: `build-broken`";
    assert!(said.contains(part), "{said}");
    for hub in ["build-a", "build-b"] {
        assert_eq!(deployed(&cluster, hub, "users"), user);
    }
    assert!(!namespaces().contains("build-broken"));

    for engine in ["docker", "podman", "buildah"] {
        repo.script(engine, "exit 1");
    }
    let said = repo.fails("deploy lake build-a --build --push --deploy");
    assert!(
        said.contains("nothing works here that builds images"),
        "{said}"
    );
    let ran = repo.ok("deploy lake build-a --no-setup --build --push --deploy");
    assert!(ran.stdout.contains("deployed"), "{}", ran.stdout);
}

/// Nobody pulls images on simulated nodes, and so nobody asks for them.
#[test]
fn on_simulated_nodes() {
    let repo = Repo::own();
    let nowhere = format!("{}/user", free_address());
    repo.edit(
        "config/clusters/local/cluster.yaml",
        "  - name: staging\n",
        &format!(
            "  - name: staging\n    images: [{{name: {nowhere}, path: ../../../images/user, values_path: image}}]\n"
        ),
    );
    repo.write("images/user/Dockerfile", "FROM scratch\n");
    git(&repo.root, &["init", "--quiet"]);
    commit(&repo, "first");
    let ran = repo.ok("deploy local staging");
    assert!(!ran.stderr.contains(&nowhere), "{}", ran.stderr);
    let ran = repo.ok("deploy local staging --dry-run");
    let image = format!("image: {nowhere}:{}", tag(&repo, "images/user"));
    assert!(ran.stdout.contains(&image), "{}", ran.stdout);
}

/// git has no commits of what a link leads to.
#[test]
fn a_link_is_no_folder_of_an_image() {
    let repo = Repo::new();
    repo.write("images/user/Dockerfile", "FROM scratch\n");
    symlink("user", repo.root.join("images/link")).unwrap();
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "  - name: staging\n",
        "  - name: staging\n    images: [{name: quay.io/lake/user, path: ../../../images/link}]\n",
    );
    let said = repo.fails("validate lake");
    let line = "cluster.yaml:7:46: `images/link` is a link to `images/user`, whose commits it does not have";
    assert!(said.contains(line), "{said}");
}
