//! Images that are built from folders of the repository: which hubs a change of one redeploys, and which jobs build it before.

use serde_json::{Value, json};

use crate::{
    generate::{commit, git},
    gitlab::pipeline,
    repo::Repo,
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
    std::fs::rename(&user, old).unwrap();
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

/// Names that are an image's for one hub and of another folder for the next one are built for both.
#[test]
fn one_name_for_two_folders() {
    let repo = fleet();
    let lake = "config/clusters/lake/cluster.yaml";
    let yaml = repo.read(lake);
    repo.write(lake, &yaml.replacen("images/user", "images/gpu", 1));
    let lists = lists(&repo, "images/user/Dockerfile,images/gpu/environment.yml");
    let image = "--image ghcr.io/lake/user";
    let builds = format!("lake staging {image}\nlake prod {image}");
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
