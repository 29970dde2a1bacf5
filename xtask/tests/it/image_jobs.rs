//! Images that are built from folders of the repository: which hubs a change of one redeploys, and which jobs build it before.

use std::fs;

use serde_json::{Value, json};

use crate::{
    generate::{commit, git},
    gitlab::pipeline,
    repo::{Repo, Shared},
    upstream::{Running, start_registry},
    workflows::{GitHub, run, with_history},
};

/// Where the image is that the hubs of two clusters share.
const SHARED: &str = "../../../images/user";

/// Lake's staging and production hubs and river's hub use one image, the latter another one besides.
fn fleet() -> Repo {
    let repo = Repo::new();
    let user = format!("{{name: ghcr.io/lake/user, path: {SHARED}}}");
    let gpu = "{name: ghcr.io/lake/gpu, path: ../../../images/gpu, build: repo2docker, registry: {provider: gcloud}}";
    let lake = "config/clusters/lake/cluster.yaml";
    for hub in ["staging", "prod"] {
        let entry = format!("- name: {hub}\n");
        repo.edit(lake, &entry, &format!("{entry}    images: [{user}]\n"));
    }
    let river = "config/clusters/river/cluster.yaml";
    let entry = "- name: prod\n";
    repo.edit(
        river,
        entry,
        &format!("{entry}    images: [{user}, {gpu}]\n"),
    );
    repo.write("images/user/Dockerfile", "FROM scratch\n");
    repo.write("images/gpu/environment.yml", "{}\n");
    repo
}

fn lists(repo: &Repo, args: &str) -> Value {
    let command = format!("generate helm-upgrade-jobs --format json {args}");
    serde_json::from_str(&repo.ok(&command).stdout).unwrap()
}

/// `RELEASES: REASON` of each hub's job.
fn reasons(lists: &Value) -> Vec<String> {
    let jobs = ["staging-jobs", "prod-jobs"].map(|it| lists[it].as_array().unwrap());
    let jobs = jobs.into_iter().flatten();
    let text = |it: &Value| it.as_str().unwrap().to_owned();
    jobs.map(|it| format!("{}: {}", text(&it["releases"]), text(&it["choice_reason"])))
        .collect()
}

#[test]
fn a_change_of_an_image_redeploys_the_hubs_that_use_it() {
    let repo = fleet();
    let both = lists(&repo, "images/user/Dockerfile,images/gpu/environment.yml");
    let user = "Following image folders were modified: images/user";
    assert_eq!(
        reasons(&both),
        [
            format!("lake/staging: {user}"),
            "river/staging: Following prod hubs require redeploy: prod".to_owned(),
            format!("lake/prod: {user}"),
            "river/prod: Following image folders were modified: images/gpu, images/user".to_owned(),
        ]
    );
    // Neither is it part of the other one, nor of what is named like it.
    let gpu = lists(&repo, "images/gpu/environment.yml");
    assert_eq!(gpu["prod-jobs"].as_array().unwrap().len(), 1);
    repo.write("images/user-2/Dockerfile", "FROM scratch\n");
    let other = lists(&repo, "images/user-2/Dockerfile");
    assert!(reasons(&other).is_empty(), "{other}");
}

#[test]
fn the_folder_of_an_image_behind_a_link() {
    let repo = fleet();
    let [user, old] = ["images/user", "images/old"].map(|it| repo.root.join(it));
    fs::rename(&user, old).unwrap();
    std::os::unix::fs::symlink("old", user).unwrap();
    for changed in ["images/user", "images/old/Dockerfile"] {
        let lists = lists(&repo, changed);
        assert_eq!(reasons(&lists).len(), 4, "{changed}: {lists}");
    }
}

/// How to log in to push an image changes no hub.
#[test]
fn edits_of_cluster_yaml() {
    let repo = fleet();
    git(&repo.root, &["init", "--quiet"]);
    commit(&repo, "first");
    let lake = "config/clusters/lake/cluster.yaml";
    repo.edit(
        lake,
        "provider: kubeconfig\n",
        "provider: kubeconfig\narchitecture: arm64\nregistry: {provider: aws}\n",
    );
    commit(&repo, "a registry");
    assert!(reasons(&lists(&repo, "--base HEAD~1")).is_empty());
    let prod = "- name: prod\n    images: [{name: ghcr.io/lake/user";
    repo.edit(lake, prod, &prod.replace("user", "another"));
    commit(&repo, "prod has another image");
    let staging = "lake/staging: Following prod hubs require redeploy: prod";
    let prod = "lake/prod: cluster.yaml: the entry of this hub was modified";
    assert_eq!(reasons(&lists(&repo, "--base HEAD~1")), [staging, prod]);
}

/// Before the first hub of a run that uses it; a hub's job names it among those that have to go well.
#[test]
fn an_image_is_built_once() {
    let repo = fleet();
    let river = "config/clusters/river/cluster.yaml";
    repo.edit(river, "hubs:", "wave: 3\nhubs:");
    // Whatever it is that redeploys them.
    let changed = "helm-charts/pond/values.yaml";
    let lists = lists(&repo, changed);
    let user = json!({
        "images": "ghcr.io/lake/user", "builds": "lake staging --image ghcr.io/lake/user",
        "provider": null, "repo2docker": false,
    });
    let gpu = json!({
        "images": "ghcr.io/lake/gpu", "builds": "river prod --image ghcr.io/lake/gpu",
        "provider": "gcp", "repo2docker": true,
    });
    assert_eq!(lists["wave-1"]["images"], json!([user]));
    assert_eq!(lists["wave-3"]["images"], json!([gpu]));
    assert_eq!(lists["changed-image-jobs"], json!([]));
    let needs = json!(["Image/ghcr.io/lake/user", "lake/staging"]);
    assert_eq!(lists["wave-1"]["prod"][0]["needs"], needs);
    let needs = json!([
        "Image/ghcr.io/lake/gpu",
        "Image/ghcr.io/lake/user",
        "river/staging"
    ]);
    assert_eq!(lists["wave-3"]["prod"][0]["needs"], needs);
}

/// Also those of hubs that a freeze holds.
#[test]
fn a_pull_request_builds_what_it_changes() {
    let repo = fleet();
    let freeze = "freeze: [{from: 2020-01-01, until: 2999-01-01, reason: exams}]\n";
    repo.write("config/xtask.yaml", freeze);
    let lists = lists(
        &repo,
        "images/gpu/environment.yml,helm-charts/pond/values.yaml",
    );
    let changed = &lists["changed-image-jobs"];
    assert_eq!(changed.as_array().unwrap().len(), 1, "{changed}");
    assert_eq!(changed[0]["images"], "ghcr.io/lake/gpu");
    assert_eq!(lists["prod-jobs"], json!([]));
}

/// The branch `staging` builds for production, too, which reuses what was tried there.
#[test]
fn images_are_promoted() {
    let repo = fleet();
    let images = |branch: &str| {
        let args = format!("images/gpu/environment.yml --branch {branch}");
        let lists = lists(&repo, &args);
        let images = lists["wave-1"]["images"].as_array().unwrap();
        let images = images.iter().map(|it| it["images"].as_str().unwrap());
        let images: Vec<_> = images.map(str::to_owned).collect();
        (
            lists["waves"].clone(),
            images,
            lists["changed-image-jobs"].as_array().unwrap().len(),
        )
    };
    let both = ["ghcr.io/lake/gpu", "ghcr.io/lake/user"].map(str::to_owned);
    assert_eq!(images("main"), (json!([1]), both.to_vec(), 1));
    assert_eq!(images("staging"), (json!([1]), both.to_vec(), 1));
    assert_eq!(images("production"), (json!([1]), vec![], 0));
}

/// Two clusters may call their images the same.
#[test]
fn one_name_for_two_folders() {
    let repo = fleet();
    let river = "config/clusters/river/cluster.yaml";
    let user = "user, path: ../../../images/";
    repo.edit(river, &format!("{user}user"), &format!("{user}gpu"));
    let lists = lists(&repo, "images/user/Dockerfile,images/gpu/environment.yml");
    let image = "--image ghcr.io/lake/user";
    let builds = format!("lake staging {image}\nriver prod {image}");
    assert_eq!(lists["wave-1"]["images"][1]["builds"], builds);
}

/// It is pushed for a hub that says how to log in.
#[test]
fn one_hub_has_the_login() {
    let repo = fleet();
    let river = "config/clusters/river/cluster.yaml";
    repo.edit(river, "hubs:", "registry: {provider: gcloud}\nhubs:");
    let lists = lists(&repo, "images/user/Dockerfile");
    let job = &lists["changed-image-jobs"][0];
    assert_eq!(job["builds"], "river prod --image ghcr.io/lake/user");
    assert_eq!(job["provider"], "gcp");
}

/// GitLab's jobs for the images, before all others. What a shell would make of a name does not matter.
#[test]
fn images_in_a_pipeline() {
    let repo = fleet();
    let lake = "config/clusters/lake/cluster.yaml";
    repo.edit(lake, "hubs:", "wave: 2\nhubs:");
    repo.write(lake, &repo.read(lake).replace("lake/user", "$(lake)/user"));
    let file = pipeline(&repo, "images/user/Dockerfile");
    assert_eq!(file["stages"][0], "images");
    let user = &file["image ghcr.io/$(lake)/user"];
    let script = "xtask image build lake staging --image \"$IMAGE\" --check-registry --push";
    assert_eq!(user["script"], json!([script]));
    let variable = json!({"value": "ghcr.io/$(lake)/user", "expand": false});
    assert_eq!(user["variables"]["IMAGE"], variable);
    let program = json!({"pipeline": "$PARENT_PIPELINE_ID", "job": "build"});
    assert_eq!(user["needs"], json!([program]));
    let needs = |job: &str| file[job]["needs"].as_array().unwrap()[1..].to_vec();
    let lake_waits = needs("staging lake staging");
    assert_eq!(lake_waits, ["image ghcr.io/$(lake)/user", "wave 1"]);
    let images = ["image ghcr.io/lake/gpu", "image ghcr.io/lake/user"];
    let prod = needs("production river prod");
    assert_eq!(
        prod,
        [
            "approve river",
            images[0],
            images[1],
            "staging river staging"
        ]
    );
    // A failed build holds no other hub.
    assert!(needs("staging river staging").is_empty());
    let approval = &file["approve river"]["needs"];
    assert_eq!(*approval, json!(["staging river staging"]));
}

/// GitHub takes 256 jobs in a matrix, and GitLab 50 `needs` of a job.
#[test]
fn more_images_than_jobs() {
    let repo = Repo::new();
    let images = (0..300).map(|it| json!({"name": format!("ghcr.io/lake/{it}"), "path": SHARED}));
    let lake = "config/clusters/lake/cluster.yaml";
    let images = Value::Array(images.collect());
    let entry = "- name: staging\n";
    repo.edit(lake, entry, &format!("{entry}    images: {images}\n"));
    repo.write("images/user/Dockerfile", "FROM scratch\n");
    let lists = lists(&repo, "images/user/Dockerfile");
    let jobs = lists["changed-image-jobs"].as_array().unwrap();
    let names = |job: &Value| job["images"].as_str().unwrap().split(' ').count();
    assert_eq!((jobs.len(), jobs.iter().map(names).sum()), (150, 300));
    let file = pipeline(&repo, "images/user/Dockerfile");
    let needs = file["staging lake staging"]["needs"].as_array().unwrap();
    assert!(needs.len() <= 50, "{needs:?}");
}

/// Has buildah keep its images with the repository, and starts a registry: its address.
fn with_registry(repo: &mut Repo) -> (Running, String) {
    let folder = repo.cache().join("images");
    fs::create_dir_all(&folder).unwrap();
    let storage = folder.join("storage.conf");
    let shown = folder.display();
    let text = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{shown}/graph\"\nrunroot = \"{shown}/run\"\n"
    );
    fs::write(&storage, text).unwrap();
    let storage = storage.display().to_string();
    repo.env
        .push(("CONTAINERS_STORAGE_CONF".to_owned(), storage));
    let (registry, address) = start_registry(&folder);
    (registry, address.trim_start_matches("oci://").to_owned())
}

/// How often jobs of this name ended in a way.
fn count(github: &GitHub, name: &str, conclusion: &str) -> usize {
    let state = github.state();
    let jobs = state.jobs.iter();
    jobs.filter(|it| it["name"] == name && it["conclusion"] == conclusion)
        .count()
}

/// And in the next run it is there, with those hubs.
#[test]
fn a_build_that_fails_holds_back_just_its_hubs() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["img-staging", "img-a", "img-b"]);
    fs::remove_dir_all(repo.root.join("config/clusters/river")).unwrap();
    let (_registry, registry) = with_registry(&mut repo);
    let lake = "config/clusters/lake/cluster.yaml";
    for (hub, image) in [("img-staging", "good"), ("img-a", "bad"), ("img-b", "good")] {
        let entry = format!("- name: {hub}\n");
        let image = format!(
            "{{name: {registry}/{image}, path: ../../../images/{image}, values_path: stone.image}}"
        );
        repo.edit(lake, &entry, &format!("{entry}  images: [{image}]\n"));
    }
    repo.write(
        "images/good/Dockerfile",
        "FROM scratch\nCOPY Dockerfile /\n",
    );
    repo.write("images/bad/Dockerfile", "FROM scratch\nCOPY missing /\n");
    with_history(&repo);
    let github = GitHub::start();
    let results = run(&repo, &github, "main", "deploy-hubs.yaml");
    let log = || github.state().log.clone();
    let jobs = ["images", "staging", "prod"].map(|it| results[&format!("wave-1/{it}")]);
    assert_eq!(jobs, ["failure", "success", "success"], "{}", log());
    let good = format!("wave 1 / Image {registry}/good");
    assert_eq!(count(&github, &good, "success"), 1, "{}", log());
    let held = format!("lake/img-a: held back, since `Image/{registry}/bad` did not go well");
    assert!(log().contains(&held), "{}", log());
    assert!(!cluster.history("img-a").contains("deployed"));
    assert!(cluster.history("img-b").contains("deployed"));

    repo.write("images/bad/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    commit(&repo, "mended");
    let results = run(&repo, &github, "main", "deploy-hubs.yaml");
    assert_eq!(results["wave-1/prod"], "success", "{}", log());
    let bad = format!("wave 1 / Image {registry}/bad");
    assert_eq!(count(&github, &bad, "success"), 1, "{}", log());
    assert!(cluster.history("img-a").contains("deployed"));
    assert!(!cluster.history("img-b").contains("\n2 "));
}
