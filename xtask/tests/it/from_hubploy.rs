//! hubploy's deployments as cluster.yaml files. The layouts are those of hubploy's template, and of its users of 2024 and
//! today.

use crate::repo::{Ran, Repo};

const CHART: &str = "apiVersion: v2\nname: hub\nversion: 0.1.0\n";
const GCLOUD: &str =
    "  provider: gcloud\n  gcloud: {project: p1, cluster: Fall_2026, zone: us-central1-a";

/// A repository of hubploy's with these deployments, each with its hubploy.yaml, and values for staging and prod.
fn repo(deployments: &[(&str, &str)]) -> Repo {
    let repo = Repo::new();
    repo.write("hub/Chart.yaml", CHART);
    repo.write(
        "hub/requirements.yaml",
        "dependencies: [] # name: jupyterhub\n",
    );
    for (name, hubploy) in deployments {
        let folder = format!("deployments/{name}");
        repo.write(&format!("{folder}/hubploy.yaml"), hubploy);
        repo.write(
            &format!("{folder}/config/common.yaml"),
            "jupyterhub: {singleuser: {memory: {limit: 2G}}}\n",
        );
        for environment in ["staging", "prod"] {
            repo.write(
                &format!("{folder}/config/{environment}.yaml"),
                &format!(
                    "jupyterhub: {{ingress: {{hosts: [{environment}.{name}.example.org]}}}}\n"
                ),
            );
        }
    }
    repo
}

fn converted(repo: &Repo) -> Ran {
    repo.ok("generate from-hubploy .")
}

fn yaml(repo: &Repo, cluster: &str) -> String {
    repo.read(&format!("config/clusters/{cluster}/cluster.yaml"))
}

/// Today's form has neither images nor keys.
#[test]
fn each_environment_is_a_hub() {
    let repo = repo(&[("data8", &format!("cluster:\n{GCLOUD}}}\n"))]);
    repo.write(
        "secrets/deployments/data8/secrets/prod.yaml",
        "jupyterhub: {}\n",
    );
    let said = converted(&repo).stderr;
    assert!(
        said.contains("wrote config/clusters/fall-2026/cluster.yaml: 2 hubs"),
        "{said}"
    );
    assert!(
        said.contains("secrets/deployments/data8/secrets/prod.yaml: it is in plain text here"),
        "{said}"
    );
    assert_eq!(
        yaml(&repo, "fall-2026"),
        "\
name: fall-2026
provider: gcp
gcp:
  cluster: Fall_2026
  project: p1
  zone: us-central1-a
hubs:
- name: data8-staging
  domain: staging.data8.example.org
  helm_chart: ./hub
  helm_chart_values_files:
  - ../../../deployments/data8/config/common.yaml
  - ../../../deployments/data8/config/staging.yaml
- name: data8-prod
  domain: prod.data8.example.org
  helm_chart: ./hub
  helm_chart_values_files:
  - ../../../deployments/data8/config/common.yaml
  - ../../../deployments/data8/config/prod.yaml
  - ../../../secrets/deployments/data8/secrets/prod.yaml
  gates:
  - data8-staging
"
    );
    let validated = repo.ok("validate fall-2026");
    assert!(
        validated.stdout.contains("1 cluster, 2 hubs: no problems"),
        "{}",
        validated.stdout
    );
    let values = repo
        .ok("config get-values fall-2026 data8-prod jupyterhub.singleuser")
        .stdout;
    assert!(values.contains("2G"), "{values}");
}

#[test]
fn deployments_of_one_cluster_share_its_file() {
    let other = "cluster:\n  provider: gcloud\n  gcloud: {project: p2, cluster: Fall_2026, zone: us-central1}\n";
    let repo = repo(&[
        ("data8", &format!("cluster:\n{GCLOUD}}}\n")),
        ("ocean", &format!("cluster:\n{GCLOUD}}}\n")),
        ("lone", other),
    ]);
    converted(&repo);
    let shared = yaml(&repo, "fall-2026-p1-us-central1-a");
    for hub in ["data8-staging", "data8-prod", "ocean-staging", "ocean-prod"] {
        assert!(shared.contains(&format!("- name: {hub}\n")), "{shared}");
    }
    assert!(shared.contains("gates:\n  - ocean-staging\n"), "{shared}");
    assert!(yaml(&repo, "fall-2026-p2-us-central1").contains("lone-prod"));
}

/// Whoever types it out of habit is told what to type.
#[test]
fn the_command_line_of_hubploy_is_known() {
    let repo = repo(&[("data8", &format!("cluster:\n{GCLOUD}}}\n"))]);
    converted(&repo);
    let deploy = repo.fails("deploy data8 hub staging");
    assert!(
        deploy.contains("hint: `cargo xtask deploy fall-2026 data8-staging`"),
        "{deploy}"
    );
    let build = repo.fails("build data8 --push --check-registry");
    assert!(
        build.contains("`cargo xtask image build fall-2026 data8-staging data8-prod`"),
        "{build}"
    );
    let other = repo.fails("deploy ocean hub staging");
    assert!(other.contains("there is no cluster `ocean`"), "{other}");
}

/// Until 2024 the tags of images that are built elsewhere were in hubploy.yaml.
#[test]
fn tags_of_images_become_values() {
    let images = "images:\n  images:\n  - name: quay.io/lake/user:1.10\n  \
                  - {name: 'quay.io/lake/r:2', helm_substitution_path: jupyterhub.r.image}\n  \
                  - name: quay.io/lake/second:3\n";
    let repo = repo(&[("data8", &format!("{images}cluster:\n{GCLOUD}}}\n"))]);
    let said = converted(&repo).stderr;
    assert!(
        said.contains("`quay.io/lake/second:3` has the values path `jupyterhub.singleuser.image`"),
        "{said}"
    );
    assert_eq!(
        repo.read("config/clusters/fall-2026/data8.images.values.yaml"),
        "\
jupyterhub:
  r:
    image:
      name: quay.io/lake/r
      tag: '2'
  singleuser:
    image:
      name: quay.io/lake/user
      tag: '1.10'
"
    );
    assert!(yaml(&repo, "fall-2026").contains("  - data8.images.values.yaml\n"));
    repo.ok("validate fall-2026");
}

/// The template's form: hubploy builds the images, with repo2docker or from a Dockerfile.
#[test]
fn images_that_are_built_keep_their_folders() {
    let images = "images:\n  registry: {provider: gcloud, gcloud: {project: p1, service_key: push.json}}\n  \
                  images:\n  - {name: gcr.io/p1/user, path: image, repo2docker: {base_image: 'debian:12'}}\n  \
                  - {name: gcr.io/p1/r, path: r, helm_substitution_path: jupyterhub.r.image}\n";
    let repo = repo(&[(
        "data8",
        &format!("{images}cluster:\n{GCLOUD}, service_key: gke.json}}\n"),
    )]);
    repo.write("deployments/data8/image/environment.yml", "name: lake\n");
    repo.write("deployments/data8/r/Dockerfile", "FROM scratch\n");
    let said = converted(&repo).stderr;
    assert!(
        said.contains("there is no `deployments/data8/secrets/gke.json`"),
        "{said}"
    );
    let yaml = yaml(&repo, "fall-2026");
    assert!(
        yaml.contains("  key: ../../../deployments/data8/secrets/gke.json\n"),
        "{yaml}"
    );
    assert!(
        yaml.contains(
            "registry:\n  provider: gcloud\n  key: ../../../deployments/data8/secrets/push.json\n"
        ),
        "{yaml}"
    );
    assert!(
        yaml.contains(
            "  images:\n  - name: gcr.io/p1/user\n    path: ../../../deployments/data8/image\n    build: repo2docker\n    \
             base_image: debian:12\n  - name: gcr.io/p1/r\n    path: ../../../deployments/data8/r\n    \
             values_path: jupyterhub.r.image\n"
        ),
        "{yaml}"
    );
}

#[test]
fn every_provider_has_its_section() {
    let aws = "cluster:\n  provider: aws\n  aws: {project: 12345678, zone: us-west-2, cluster: tide, service_key: aws.yaml}\n";
    let role = "cluster:\n  provider: aws\n  \
                aws: {account_id: 012345678901, region: us-west-2, cluster: ebb, role_arn: 'arn:aws:iam::1:role/x'}\n";
    let azure = "cluster:\n  provider: azure\n  azure: {resource_group: g, cluster: reef, auth_file: sp.json}\n";
    let kubeconfig = "cluster:\n  provider: kubeconfig\n  kubeconfig: {filename: kube.yaml, context: '{namespace}'}\n";
    let repo = repo(&[
        ("a", aws),
        ("b", role),
        ("c", azure),
        ("d", kubeconfig),
        ("e", kubeconfig),
    ]);
    for name in ["d", "e"] {
        repo.write(
            &format!("deployments/{name}/secrets/kube.yaml"),
            "users: []\n",
        );
    }
    let said = converted(&repo).stderr;
    for left in [
        "deployments/b/hubploy.yaml: `cluster.aws.role_arn: arn:aws:iam::1:role/x` has no place in cluster.yaml",
        "deployments/d/hubploy.yaml: `cluster.kubeconfig.context: {namespace}` has no place in cluster.yaml",
        "deployments/c/secrets/sp.json: its texts are called `service_principal_id`",
    ] {
        assert!(said.contains(left), "{left} is not in {said}");
    }
    let tide = yaml(&repo, "tide");
    assert!(tide.contains("clusterName: tide\n"), "{tide}");
    assert!(
        tide.contains("key: ../../../deployments/a/secrets/aws.yaml\n"),
        "{tide}"
    );
    assert!(tide.contains("region: us-west-2\n"), "{tide}");
    assert!(yaml(&repo, "ebb").contains("account: '012345678901'\n"));
    assert!(yaml(&repo, "reef").contains("resource_group: g\n"));
    let both = yaml(&repo, "d");
    assert!(
        both.contains("file: ../../../deployments/d/secrets/kube.yaml\n"),
        "{both}"
    );
    assert!(both.contains("- name: e-prod\n"), "{both}");
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_nothing_is_written() {
    let repo = repo(&[
        (
            "a",
            "cluster:\n  provider: gcloud\n  gcloud: {project: p1}\n",
        ),
        ("b", "cluster: [\n"),
        ("c", "cluster: {provider: openstack}\n"),
        ("d", &format!("cluster:\n{GCLOUD}}}\n")),
        (
            "e",
            &format!("images: {{image_name: 'NOT a name'}}\ncluster:\n{GCLOUD}}}\n"),
        ),
    ]);
    let said = repo.fails("generate from-hubploy .");
    for problem in [
        "`deployments/a/hubploy.yaml` has no `cluster.gcloud.cluster`",
        "cannot read `deployments/b/hubploy.yaml`",
        "`deployments/c/hubploy.yaml`: hubploy has no provider `openstack`",
        "`deployments/e/hubploy.yaml`: image 1: `NOT a name` is no image's name",
    ] {
        assert!(said.contains(problem), "{problem} is not in {said}");
    }
    assert!(!repo.root.join("config/clusters/fall-2026").exists());
}

#[test]
fn what_is_there_is_overwritten_only_if_told() {
    let repo = repo(&[("data8", &format!("cluster:\n{GCLOUD}}}\n"))]);
    converted(&repo);
    let file = "config/clusters/fall-2026/cluster.yaml";
    let written = repo.read(file);
    repo.write(file, "mine");
    let refused = repo.fails("generate from-hubploy .");
    assert!(
        refused.contains(&format!(
            "there is already `{file}`\n\nhint: `--force` overwrites it"
        )),
        "{refused}"
    );
    assert_eq!(repo.read(file), "mine");
    repo.ok("generate from-hubploy . --force");
    assert_eq!(repo.read(file), written);
}

#[test]
fn the_deployments_are_in_this_repository() {
    let repo = repo(&[("data8", &format!("cluster:\n{GCLOUD}}}\n"))]);
    let refused = repo.fails("generate from-hubploy ..");
    assert!(
        refused.contains("names only files of its own repository"),
        "{refused}"
    );
    let refused = repo.fails("generate from-hubploy hub");
    assert!(
        refused.contains("no folder in `hub/deployments` has a `hubploy.yaml`"),
        "{refused}"
    );
}
