//! Which jobs a change makes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::{
    repo::{Repo, assert_succeeded},
    upstream::{Answer, Server},
};

/// Numbers that nobody foresees, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn is(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// A hub as the test knows it.
struct Hub {
    cluster: String,
    name: String,
    is_staging: bool,
    gates: Option<Vec<String>>,
    /// Files and folders that it's deployed from.
    made_of: Vec<String>,
}

const CHARTS: [(&str, &[&str]); 3] = [("base", &[]), ("dask", &["base"]), ("lone", &[])];

/// A repository of random clusters: its hubs, and what each cluster's support is made of.
fn fleet(dice: &mut Dice) -> (Repo, Vec<Hub>, BTreeMap<String, Vec<String>>) {
    let repo = Repo::new();
    fs::remove_dir_all(repo.root.join("config/clusters")).unwrap();
    for (chart, needs) in CHARTS {
        let needs: Vec<_> = needs
            .iter()
            .map(|it| json!({"name": it, "version": "0.1.0", "repository": format!("file://../{it}")}))
            .collect();
        let text =
            json!({"apiVersion": "v2", "name": chart, "version": "0.1.0", "dependencies": needs});
        repo.write(
            &format!("helm-charts/{chart}/Chart.yaml"),
            &text.to_string(),
        );
        repo.write(&format!("helm-charts/{chart}/.helmignore"), "drafts/\n");
    }
    let (mut hubs, mut supports) = (Vec::new(), BTreeMap::new());
    for number in 0..1 + dice.below(4) {
        let cluster = format!("c{number}");
        let folder = format!("config/clusters/{cluster}");
        let mut yaml = json!({
            "name": cluster, "provider": "aws", "aws": {"clusterName": cluster, "region": "r"}, "hubs": [],
        });
        if dice.is() {
            yaml["support"] = json!({"helm_chart_values_files": ["support.values.yaml"]});
            let files = ["cluster.yaml", "support.values.yaml"].map(|it| format!("{folder}/{it}"));
            supports.insert(
                cluster.clone(),
                [&files[..], &["helm-charts/support/".to_owned()]].concat(),
            );
        }
        let names: Vec<_> =
            ["staging", "prod", "dask-staging", "reef", "tried"][..1 + dice.below(5)].to_vec();
        let is_staging = |name: &str| name.contains("staging") || name == "tried";
        for name in &names {
            let (chart, needs) = CHARTS[dice.below(CHARTS.len())];
            let mut files = vec![format!("{name}.values.yaml")];
            for shared in [
                "common.values.yaml",
                "../common/all.values.yaml",
                "../../shared, by all.yaml",
            ] {
                if dice.is() {
                    files.push(shared.to_owned());
                }
            }
            let mut hub = json!({
                "name": name, "domain": format!("{name}.{cluster}.org"), "helm_chart": chart,
                "helm_chart_values_files": files,
            });
            if *name == "tried" {
                hub["stage"] = "staging".into();
            }
            let mut gates = None;
            if !is_staging(name) && dice.is() {
                let chosen = names
                    .iter()
                    .filter(|it| is_staging(it) && dice.is())
                    .map(|it| (*it).to_owned());
                gates = Some(chosen.collect::<Vec<_>>());
                hub["gates"] = json!(gates);
            }
            yaml["hubs"].as_array_mut().unwrap().push(hub);
            let files = files.iter().map(|it| match it.as_str() {
                "../common/all.values.yaml" => "config/clusters/common/all.values.yaml".to_owned(),
                "../../shared, by all.yaml" => "config/shared, by all.yaml".to_owned(),
                it => format!("{folder}/{it}"),
            });
            let charts = [&[chart], needs]
                .concat()
                .into_iter()
                .map(|it| format!("helm-charts/{it}/"));
            let core = ["xtask/src/kubernetes/helm.rs", "xtask/src/charts/format.rs"];
            let made_of = files.chain(charts).chain(core.map(str::to_owned));
            let made_of = made_of.chain([format!("{folder}/cluster.yaml")]).collect();
            let (cluster, name) = (cluster.clone(), (*name).to_owned());
            hubs.push(Hub {
                is_staging: is_staging(&name),
                cluster,
                name,
                gates,
                made_of,
            });
        }
        repo.write(&format!("{folder}/cluster.yaml"), &yaml.to_string());
    }
    (repo, hubs, supports)
}

/// What may change, and what of it is in no release.
fn some_files(dice: &mut Dice) -> Vec<String> {
    const FILES: [&str; 25] = [
        "config/clusters/c0/cluster.yaml",
        "config/clusters/c1/cluster.yaml",
        "config/clusters/c0/staging.values.yaml",
        "config/clusters/c0/prod.values.yaml",
        "config/clusters/c1/prod.values.yaml",
        "config/clusters/c2/reef.values.yaml",
        "config/clusters/c3/tried.values.yaml",
        "config/clusters/c1/dask-staging.values.yaml",
        "config/clusters/c2/common.values.yaml",
        "config/clusters/c1/support.values.yaml",
        "config/clusters/common/all.values.yaml",
        "config/shared, by all.yaml",
        "helm-charts/base/templates/hub.yaml",
        "helm-charts/dask/values.yaml",
        "helm-charts/lone/files/deep/in/it.py",
        "helm-charts/support/values.yaml",
        "xtask/src/kubernetes/helm.rs",
        "xtask/src/commands/status.rs",
        ".github/actions/setup-deploy/action.yml",
        "requirements.txt",
        "helm-charts/base/README.md",
        "helm-charts/dask/drafts/new.yaml",
        "helm-charts/based/values.yaml",
        "xtask/tests/it/main.rs",
        "docs/guide.md",
    ];
    (0..1 + dice.below(3))
        .map(|_| FILES[dice.below(FILES.len())].to_owned())
        .collect()
}

/// Whether any of these files and folders has any of the changed files, but what no chart reads.
fn touches(made_of: &[String], changed: &[String]) -> bool {
    let is_read = |it: &String| !it.ends_with("/README.md") && !it.contains("/drafts/");
    let of = |file: &String| {
        made_of
            .iter()
            .any(|it| file == it || it.ends_with('/') && file.starts_with(it.as_str()))
    };
    changed.iter().filter(|it| is_read(it)).any(of)
}

pub(crate) fn pairs(list: &Value, name: &str) -> BTreeSet<(String, String)> {
    let text = |it: &Value| it.as_str().unwrap().to_owned();
    let jobs = list.as_array().unwrap().iter();
    jobs.flat_map(|job| {
        let hubs = job[name].as_str().map_or_else(
            || {
                job[name]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(text)
                    .collect()
            },
            |it| it.split(' ').map(str::to_owned).collect::<Vec<_>>(),
        );
        hubs.into_iter()
            .map(move |it| (text(&job["cluster_name"]), it))
    })
    .collect()
}

fn lists(repo: &Repo, changed: &[String], more: &[&str]) -> Value {
    let changed: Vec<_> = changed
        .iter()
        .map(|it| format!("\"{}\"", it.replace('"', "\"\"")))
        .collect();
    let mut command = repo.command("generate helm-upgrade-jobs --format json");
    let output = command.arg(changed.join(",")).args(more).output().unwrap();
    assert_succeeded(&output);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The jobs of random changes in random repositories are those that a simple definition wants.
#[test]
fn jobs_are_what_they_must_be() {
    let mut dice = Dice(7);
    for _ in 0..25 {
        let (repo, hubs, supports) = fleet(&mut dice);
        for _ in 0..6 {
            let changed = some_files(&mut dice);
            let lists = lists(&repo, &changed, &[]);
            let wanted: Vec<_> = hubs
                .iter()
                .filter(|it| touches(&it.made_of, &changed))
                .collect();
            let holds_back = |gate: &Hub, hub: &Hub| {
                gate.cluster == hub.cluster
                    && hub.gates.as_ref().is_none_or(|it| it.contains(&gate.name))
            };
            let staging = hubs.iter().filter(|it| it.is_staging).filter(|gate| {
                touches(&gate.made_of, &changed)
                    || wanted
                        .iter()
                        .any(|it| !it.is_staging && holds_back(gate, it))
            });
            let named = |it: &Hub| (it.cluster.clone(), it.name.clone());
            let staging: BTreeSet<_> = staging.map(named).collect();
            let prod: BTreeSet<_> = wanted
                .iter()
                .filter(|it| !it.is_staging)
                .map(|it| named(it))
                .collect();
            let supported: BTreeSet<_> = supports
                .iter()
                .filter(|(_, it)| touches(it, &changed))
                .map(|(it, _)| it.clone())
                .collect();
            assert_eq!(pairs(&lists["prod-jobs"], "hub_names"), prod, "{changed:?}");
            assert_eq!(
                pairs(&lists["prod-hub-matrix-jobs"], "hub_name"),
                prod,
                "{changed:?}"
            );
            assert_eq!(
                pairs(&lists["staging-jobs"], "hub_names"),
                staging,
                "{changed:?}"
            );
            assert_eq!(
                pairs(&lists["support-and-staging-matrix-jobs"], "staging_hubs"),
                staging,
                "{changed:?}"
            );
            let names = |list: &str, is: &dyn Fn(&Value) -> bool| -> BTreeSet<String> {
                let jobs = lists[list].as_array().unwrap().iter().filter(|it| is(it));
                jobs.map(|it| it["cluster_name"].as_str().unwrap().to_owned())
                    .collect()
            };
            assert_eq!(names("support-jobs", &|_| true), supported, "{changed:?}");
            let both = "support-and-staging-matrix-jobs";
            assert_eq!(
                names(both, &|it| it["upgrade_support"] == true),
                supported,
                "{changed:?}"
            );
            let all: BTreeSet<_> = staging.iter().chain(&prod).map(|it| it.0.clone()).collect();
            assert_eq!(names(both, &|_| true), &all | &supported, "{changed:?}");
        }
    }
}

#[test]
fn labels_steer() {
    let (repo, hubs, supports) = fleet(&mut Dice(3));
    assert!(!supports.is_empty());
    let changed = [
        "xtask/src/kubernetes/helm.rs".to_owned(),
        "helm-charts/support/values.yaml".to_owned(),
    ];
    let counts = |changed: &[String], labels: &str| {
        let lists = lists(&repo, changed, &["--labels", labels]);
        ["support-jobs", "staging-jobs", "prod-jobs"].map(|it| lists[it].as_array().unwrap().len())
    };
    let staging = hubs.iter().filter(|it| it.is_staging).count();
    let all = [supports.len(), staging, hubs.len() - staging];
    assert_eq!(counts(&changed, "null"), all);
    assert_eq!(
        counts(&changed, r#"["bug", "deployer:skip-deploy-hubs"]"#),
        [supports.len(), 0, 0]
    );
    assert_eq!(
        counts(
            &changed,
            r#"["deployer:skip-deploy", "deployer:deploy-hubs"]"#
        ),
        [0, 0, 0]
    );
    assert_eq!(counts(&[], "[]"), [0, 0, 0]);
    assert_eq!(
        counts(&[], r#"["deployer:deploy-support"]"#),
        [supports.len(), 0, 0]
    );
    assert_eq!(
        counts(&[], r#"["deployer:deploy-hubs"]"#),
        [0, all[1], all[2]]
    );
}

pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args([
        "-c",
        "user.name=ada",
        "-c",
        "user.email=ada@example.org",
        "-c",
        "init.defaultBranch=main",
    ]);
    let output = command
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_DIR")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn commit(repo: &Repo, message: &str) -> String {
    git(&repo.root, &["add", "--all"]);
    git(
        &repo.root,
        &["commit", "--quiet", "--allow-empty", "--message", message],
    );
    git(&repo.root, &["rev-parse", "HEAD"])
}

/// A repository in git whose files have names that people shouldn't give.
fn odd_names() -> Repo {
    let repo = Repo::new();
    git(&repo.root, &["init", "--quiet"]);
    let odd = [
        "with blanks.yaml",
        "a,b.yaml",
        "line\nbreak.yaml",
        "\"quoted\".yaml",
        "moved.yaml",
        "gone.yaml",
    ];
    let hubs = odd.iter().enumerate().map(|(number, file)| {
        repo.write(&format!("config/clusters/lake/{file}"), &format!("note: {number}\n"));
        json!({"name": format!("hub-{number}"), "domain": format!("{number}.org"), "helm_chart": "pond", "helm_chart_values_files": [file]})
    });
    let yaml = json!({
        "name": "lake", "provider": "kubeconfig", "kubeconfig": {"file": "kubeconfig.yaml"},
        "hubs": hubs.collect::<Vec<_>>(),
    });
    repo.write("config/clusters/lake/cluster.yaml", &yaml.to_string());
    commit(&repo, "first");
    repo
}

fn prod(repo: &Repo, args: &str) -> Vec<String> {
    let lists: Value = serde_json::from_str(
        &repo
            .ok(&format!("generate helm-upgrade-jobs --format json {args}"))
            .stdout,
    )
    .unwrap();
    pairs(&lists["prod-jobs"], "hub_names")
        .into_iter()
        .map(|(cluster, hub)| format!("{cluster}/{hub}"))
        .collect()
}

/// The same, with a branch on which each of these files is another one; `main` went on meanwhile.
fn odd_names_changed() -> Repo {
    let repo = odd_names();
    let folder = repo.root.join("config/clusters/lake");
    git(&repo.root, &["checkout", "--quiet", "-b", "change"]);
    for file in [
        "with blanks.yaml",
        "a,b.yaml",
        "line\nbreak.yaml",
        "\"quoted\".yaml",
    ] {
        fs::write(folder.join(file), "note: new\n").unwrap();
    }
    fs::rename(folder.join("moved.yaml"), folder.join("elsewhere.yaml")).unwrap();
    fs::remove_file(folder.join("gone.yaml")).unwrap();
    commit(&repo, "all of them");
    // What others did meanwhile isn't this branch's.
    git(&repo.root, &["checkout", "--quiet", "main"]);
    repo.write(
        "config/clusters/river/river.values.yaml",
        "note: of others\n",
    );
    commit(&repo, "of others");
    git(&repo.root, &["checkout", "--quiet", "change"]);
    repo
}

#[test]
fn git_says_what_changed() {
    assert!(prod(&odd_names(), "--base main").is_empty());
    let repo = odd_names_changed();
    let all: Vec<_> = (0..6).map(|it| format!("lake/hub-{it}")).collect();
    assert_eq!(prod(&repo, "--base main"), all);
    assert_eq!(prod(&repo, "--base HEAD~1"), all);
}

/// As a workflow's filter writes it.
#[test]
fn a_list_says_what_changed() {
    let repo = odd_names_changed();
    let quoted = "config/clusters/lake/with blanks.yaml,\"config/clusters/lake/a,b.yaml\",\"config/clusters/lake/\"\"quoted\"\".yaml\"";
    let blanks = "config/clusters/lake/with blanks.yaml, config/clusters/lake/elsewhere.yaml,config/clusters/lake/gone.yaml\n";
    for (list, count) in [(quoted, 3), (blanks, 2)] {
        let output = repo
            .command("generate helm-upgrade-jobs --format json")
            .arg(list)
            .output()
            .unwrap();
        let lists: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            pairs(&lists["prod-jobs"], "hub_name").len(),
            count,
            "{list}"
        );
    }
    let said = repo.fails("generate helm-upgrade-jobs /config/clusters/lake/cluster.yaml");
    assert!(
        said.contains("`/config/clusters/lake/cluster.yaml` is not a path from the root"),
        "{said}"
    );
}

#[test]
fn commits_that_nothing_can_be_compared_with() {
    let repo = odd_names();
    let said = repo.fails("generate helm-upgrade-jobs --base nowhere");
    assert!(
        said.contains("git knows no commit `nowhere`\n\nhint: `git fetch origin` first?"),
        "{said}"
    );
    git(&repo.root, &["checkout", "--quiet", "--orphan", "another"]);
    commit(&repo, "another root");
    let said = repo.fails("generate helm-upgrade-jobs --base main");
    assert!(said.contains("have nothing in common"), "{said}");
    let said = Repo::new().fails("generate helm-upgrade-jobs --base main");
    assert!(said.contains("this is not a git repository"), "{said}");
}

#[test]
fn a_clone_without_history_cannot_tell() {
    let repo = odd_names_changed();
    let shallow = Repo::new();
    fs::remove_dir_all(&shallow.root).unwrap();
    let from = format!("file://{}", repo.root.display());
    git(
        &repo.root,
        &[
            "clone",
            "--quiet",
            "--depth",
            "1",
            "--no-single-branch",
            &from,
            shallow.root.to_str().unwrap(),
        ],
    );
    for base in ["HEAD~1", "origin/main"] {
        let said = shallow.fails(&format!("generate helm-upgrade-jobs --base {base}"));
        assert!(
            said.contains(": this clone is shallow\n\nhint: `fetch-depth: 0`"),
            "{said}"
        );
    }
}

/// What a hub is made of needn't be where its cluster.yaml says, nor be all in our folder.
#[test]
fn files_that_are_elsewhere() {
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt, fs::symlink},
    };
    let repo = Repo::new();
    let all = repo.root.join("all");
    fs::create_dir(&all).unwrap();
    for folder in ["config", "helm-charts"] {
        fs::rename(repo.root.join(folder), all.join(folder)).unwrap();
    }
    let lake = all.join("config/clusters/lake");
    let hubs = ["../../../../beside/hub.yaml", "linked.yaml", "secrets/hub.yaml"].iter().enumerate().map(|(number, file)| {
        json!({"name": format!("hub-{number}"), "domain": format!("{number}.org"), "helm_chart": "pond", "helm_chart_values_files": [file]})
    });
    let hubs = hubs.chain([
        json!({"name": "hub-3", "domain": "3.org", "helm_chart": "linked", "helm_chart_values_files": []}),
    ]);
    let yaml = json!({
        "name": "lake", "provider": "kubeconfig", "kubeconfig": {"file": "kubeconfig.yaml"},
        "hubs": hubs.collect::<Vec<_>>(),
    });
    fs::write(lake.join("cluster.yaml"), yaml.to_string()).unwrap();
    repo.write("beside/hub.yaml", "note: old\n");
    repo.write(
        "beside/chart/Chart.yaml",
        "apiVersion: v2\nname: linked\nversion: 0.1.0\n",
    );
    repo.write("all/config/shared.yaml", "note: old\n");
    symlink("../../shared.yaml", lake.join("linked.yaml")).unwrap();
    symlink("../../beside/chart", all.join("helm-charts/linked")).unwrap();
    // A submodule.
    let secrets = lake.join("secrets");
    fs::create_dir(&secrets).unwrap();
    fs::write(secrets.join("hub.yaml"), "note: old\n").unwrap();
    for dir in [&secrets, &repo.root] {
        git(dir, &["init", "--quiet"]);
        git(dir, &["add", "--all"]);
        git(dir, &["commit", "--quiet", "--message", "first"]);
    }

    let changed = |base: &str| {
        let mut command = repo.command("generate helm-upgrade-jobs --format json --base");
        let output = command
            .args([base, "--root", all.to_str().unwrap()])
            .output()
            .unwrap();
        assert_succeeded(&output);
        let lists: Value = serde_json::from_slice(&output.stdout).unwrap();
        pairs(&lists["prod-jobs"], "hub_names")
            .into_iter()
            .map(|it| it.1)
            .collect::<Vec<_>>()
    };
    assert!(changed("HEAD").is_empty());
    for (file, hub) in [
        ("beside/hub.yaml", "hub-0"),
        ("all/config/shared.yaml", "hub-1"),
        ("beside/chart/values.yaml", "hub-3"),
    ] {
        repo.write(file, "note: new\n");
        // Nobody's, in an encoding of old.
        fs::write(repo.root.join(OsStr::from_bytes(b"caf\xe9")), file).unwrap();
        commit(&repo, file);
        assert_eq!(changed("HEAD~1"), [hub], "{file}");
    }
    fs::write(secrets.join("hub.yaml"), "note: new\n").unwrap();
    git(
        &secrets,
        &["commit", "--quiet", "--all", "--message", "new"],
    );
    commit(&repo, "secrets");
    assert_eq!(changed("HEAD~1"), ["hub-2"]);
    assert_eq!(changed("HEAD~4"), ["hub-0", "hub-1", "hub-2", "hub-3"]);
}

/// The production hubs that are deployed for each of these paths.
fn hubs_behind(repo: &Repo, changed: &[&str]) -> Vec<Vec<String>> {
    changed.iter().map(|it| prod(repo, it)).collect()
}

fn link(repo: &Repo, path: &str, target: &str) {
    let path = repo.root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(target, path).unwrap();
}

/// Moves a file or folder, and has a chain of two links where it was.
fn behind_links(repo: &Repo, path: &str, up: &str) {
    fs::create_dir_all(repo.root.join("shared")).unwrap();
    fs::rename(repo.root.join(path), repo.root.join("shared/first")).unwrap();
    link(repo, "shared/current", "first");
    link(repo, path, &format!("{up}shared/current"));
}

#[test]
fn a_cluster_yaml_behind_two_links() {
    let repo = Repo::new();
    behind_links(&repo, "config/clusters/lake/cluster.yaml", "../../../");
    let all = [
        "config/clusters/lake/cluster.yaml",
        "shared/current",
        "shared/first",
    ];
    assert_eq!(hubs_behind(&repo, &all), [["lake/prod"]; 3]);
}

#[test]
fn a_cluster_folder_behind_two_links() {
    let repo = Repo::new();
    behind_links(&repo, "config/clusters/lake", "../../");
    let all = [
        "config/clusters/lake",
        "shared/current",
        "shared/first/prod.values.yaml",
    ];
    assert_eq!(hubs_behind(&repo, &all), [["lake/prod"]; 3]);
}

#[test]
fn a_values_file_behind_two_links() {
    let repo = Repo::new();
    let file = "config/clusters/lake/prod.values.yaml";
    behind_links(&repo, file, "../../../");
    let all = [file, "shared/current", "shared/first"];
    assert_eq!(hubs_behind(&repo, &all), [["lake/prod"]; 3]);
    // One that leads to itself is nobody's, and no reason to wait.
    fs::remove_file(repo.root.join("shared/current")).unwrap();
    link(&repo, "shared/current", "../shared/current");
    assert_eq!(prod(&repo, "shared/current"), ["lake/prod"]);
}

#[test]
fn a_chart_behind_two_links() {
    let repo = Repo::new();
    behind_links(&repo, "helm-charts/pond", "../");
    let all = [
        "helm-charts/pond",
        "shared/current",
        "shared/first/values.yaml",
    ];
    let hubs = ["lake/prod", "river/prod"];
    assert_eq!(hubs_behind(&repo, &all), [hubs; 3]);
}

/// Commits on `main`: of one a run went well, of a later one it failed.
struct Deployed {
    repo: Repo,
    well: String,
}

/// The runs of the workflow deploy-hubs.yaml.
#[derive(Default)]
pub(crate) struct Runs {
    /// The newest first, as GitHub has them, with their jobs under a key that it does not have.
    pub(crate) runs: Vec<Value>,
    /// `runs`, or the commit of the run whose jobs were asked for.
    pub(crate) asked: Vec<String>,
    /// What the next requests are answered with, whatever they ask: the last one first.
    pub(crate) first: Vec<Answer>,
}

impl Runs {
    /// Adds the newest run, that of this commit.
    pub(crate) fn add(&mut self, commit: &str, conclusion: &str, jobs: &[Value]) {
        let run = json!({
            "id": 100 + self.runs.len(), "head_sha": commit, "head_branch": "main", "event": "push",
            "status": "completed", "conclusion": conclusion, "run_attempt": 1, "all_jobs": jobs,
        });
        self.runs.insert(0, run);
    }

    /// What GitHub has at a path below `actions/`, and what it calls that list; none at others.
    pub(crate) fn list(&mut self, at: &str, query: &str) -> Option<(Vec<Value>, &'static str)> {
        let has = |it: &str| query.split('&').any(|pair| pair == it);
        if at == "workflows/deploy-hubs.yaml/runs" {
            assert!(has("status=completed") && has("per_page=100"), "{query}");
            self.asked.push("runs".to_owned());
            let is_wanted = |it: &&Value| {
                let branch = it["head_branch"].as_str().unwrap();
                has(&format!("branch={branch}")) && it["status"] == "completed"
            };
            let runs = self.runs.iter().filter(is_wanted).take(100);
            return Some((runs.cloned().collect(), "workflow_runs"));
        }
        let id = at.strip_prefix("runs/")?.strip_suffix("/jobs")?;
        let id: u64 = id.parse().ok()?;
        let run = self.runs.iter().find(|it| it["id"] == id)?;
        self.asked
            .push(run["head_sha"].as_str().unwrap().to_owned());
        let newest = &run["run_attempt"];
        let jobs = run["all_jobs"].as_array().unwrap().iter();
        let jobs = jobs.filter(|it| has("filter=all") || it["run_attempt"] == *newest);
        Some((jobs.cloned().collect(), "jobs"))
    }
}

/// Has this repository's program ask a GitHub with these runs.
pub(crate) fn with_runs(repo: &mut Repo) -> Arc<Mutex<Runs>> {
    let runs = Arc::new(Mutex::new(Runs::default()));
    let known = runs.clone();
    let server = Server::asked(move |it| {
        if !it.has("authorization: Bearer of-the-run") {
            let message = json!({"message": "Resource not accessible by integration"});
            return Answer::Json(403, message);
        }
        let path = it.path.strip_prefix("repos/ada/hubs/actions/");
        if let Some(answer) = known.lock().unwrap().first.pop() {
            return answer;
        }
        let asked = path.and_then(|it| it.split_once('?'));
        match asked.and_then(|(at, query)| known.lock().unwrap().list(at, query)) {
            Some((list, key)) => Answer::Json(200, json!({"total_count": list.len(), key: list})),
            None => Answer::Json(404, json!({"message": "Not Found"})),
        }
    });
    for (name, value) in [
        ("GITHUB_API_URL", server.address.as_str()),
        ("GITHUB_REPOSITORY", "ada/hubs"),
        (
            "GITHUB_WORKFLOW_REF",
            "ada/hubs/.github/workflows/deploy-hubs.yaml@refs/heads/main",
        ),
        ("GITHUB_REF_NAME", "main"),
        ("GITHUB_TOKEN", "of-the-run"),
    ] {
        repo.env.push((name.to_owned(), value.to_owned()));
    }
    runs
}

/// A job of a run's attempt.
pub(crate) fn job(name: &str, conclusion: &str, attempt: usize) -> Value {
    json!({"name": name, "status": "completed", "conclusion": conclusion, "run_attempt": attempt})
}

/// What the failed run deployed was taken back since, and so was what a branch did that was merged.
fn deployed() -> Deployed {
    let mut repo = odd_names();
    let change = |file: &str| {
        repo.write(&format!("config/clusters/lake/{file}"), "note: new\n");
        commit(&repo, file)
    };
    let (well, failed) = (change("with blanks.yaml"), change("a,b.yaml"));
    change("moved.yaml");
    git(&repo.root, &["revert", "--no-edit", &failed]);
    // A branch that was merged, with what it changed and took back itself.
    git(&repo.root, &["checkout", "--quiet", "-b", "merged", &well]);
    change("\"quoted\".yaml");
    change("gone.yaml");
    git(&repo.root, &["revert", "--no-edit", "HEAD"]);
    git(&repo.root, &["checkout", "--quiet", "main"]);
    git(&repo.root, &["merge", "--quiet", "--no-edit", "merged"]);
    let mut runs = Runs::default();
    runs.add(&well, "success", &[]);
    runs.add(&failed, "failure", &[]);
    runs.add("f0f0", "success", &[]);
    runs.runs[0]["event"] = "pull_request".into();
    *with_runs(&mut repo).lock().unwrap() = runs;
    Deployed { repo, well }
}

#[test]
fn the_last_deploy_is_asked_of_github() {
    let said = odd_names().fails("generate helm-upgrade-jobs --base last-deployed");
    assert!(
        said.contains("`--base last-deployed` asks GitHub: `GITHUB_API_URL` is not set"),
        "{said}"
    );
    let mut repo = deployed().repo;
    repo.env.retain(|(name, _)| name != "GITHUB_TOKEN");
    let guessed = ("GITHUB_TOKEN".to_owned(), "guessed".to_owned());
    repo.env.push(guessed);
    let said = repo.fails("generate helm-upgrade-jobs --base last-deployed");
    assert!(
        said.contains("GitHub answers 403 Forbidden: Resource not accessible"),
        "{said}"
    );
    assert!(
        said.contains("hint: does the job have the `permissions` for that?"),
        "{said}"
    );
}

/// The hubs of a run that failed come back in the next one, also when what it deployed was taken back.
#[test]
fn since_the_last_deploy_that_went_well() {
    let repo = deployed().repo;
    assert_eq!(
        prod(&repo, "--base last-deployed"),
        ["lake/hub-1", "lake/hub-3", "lake/hub-4"]
    );
}

/// As long as git knows what was deployed, the difference tells.
#[test]
fn somebody_wrote_the_history_anew() {
    let Deployed { repo, well } = deployed();
    let earlier = format!("{well}~1");
    git(&repo.root, &["checkout", "--quiet", "-b", "anew", &earlier]);
    assert_eq!(prod(&repo, "--base last-deployed"), ["lake/hub-0"]);
    let elsewhere = Repo::new();
    fs::remove_dir_all(&elsewhere.root).unwrap();
    let [from, to] = [&repo.root, &elsewhere.root].map(|it| it.to_str().unwrap());
    git(
        &repo.root,
        &[
            "clone",
            "--quiet",
            "--no-local",
            "--single-branch",
            from,
            to,
        ],
    );
    let mut clone = repo.command("generate helm-upgrade-jobs --base last-deployed --root");
    let output = clone.arg(to).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(", where it was deployed last: everything"),
        "{said}"
    );
}

#[test]
fn a_branch_that_was_never_deployed() {
    let mut repo = deployed().repo;
    repo.env[3].1 = "new".to_owned();
    let ran = repo.ok("generate helm-upgrade-jobs --base last-deployed");
    assert!(
        ran.stderr.contains("no run of this workflow has succeeded"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        ran.stdout.matches("Nothing was deployed before").count(),
        6 + 2,
        "{}",
        ran.stdout
    );
}

/// What a file of `name<<end`, lines, `end` sets, as GitHub reads it.
pub(crate) fn set(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let (name, end) = line.split_once("<<").unwrap();
        let value: Vec<_> = lines.by_ref().take_while(|it| *it != end).collect();
        assert!(values.insert(name.to_owned(), value.join("\n")).is_none());
    }
    values
}

/// The same in a workflow, whose files are `output` and `env`.
fn in_a_workflow() -> Repo {
    let mut repo = odd_names();
    let files = ["output", "env"].map(|it| repo.root.join(it));
    for (name, value) in [
        ("CI", "true"),
        ("GITHUB_OUTPUT", files[0].to_str().unwrap()),
        ("GITHUB_ENV", files[1].to_str().unwrap()),
    ] {
        repo.env.push((name.to_owned(), value.to_owned()));
    }
    repo.write("output", "before<<x\n1\nx\n");
    repo
}

#[test]
fn a_workflow_gets_its_lists_and_a_comment() {
    let repo = in_a_workflow();
    let changed = "config/clusters/lake/line\nbreak.yaml,config/clusters/river/river.values.yaml";
    let output = repo
        .command("generate helm-upgrade-jobs")
        .arg(changed)
        .output()
        .unwrap();
    assert_succeeded(&output);
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("modified: line\\nbreak.yaml")
    );
    let output = set(&repo.read("output"));
    let env = set(&repo.read("env"));
    assert_eq!(
        output.keys().collect::<Vec<_>>(),
        [
            "before",
            "changed-image-jobs",
            "held",
            "prod-hub-matrix-jobs",
            "prod-jobs",
            "staging-jobs",
            "support-and-staging-matrix-jobs",
            "support-jobs",
            "wave-1",
            "wave-2",
            "wave-3",
            "wave-4",
            "wave-5",
            "waves"
        ]
    );
    assert_eq!(
        env.keys().collect::<Vec<_>>(),
        ["prod-hub-matrix-jobs", "support-and-staging-matrix-jobs"]
    );
    let jobs: Value = serde_json::from_str(&output["prod-jobs"]).unwrap();
    assert_eq!(pairs(&jobs, "hub_name").len(), 2);
    let comment = repo.read("comment-body.txt");
    let wanted = "<!-- deployment-plan -->\nMerging this PR will trigger the following deployment actions.\n\n\
                  ### Support and Staging deployments\n\n| Cloud Provider | ";
    assert!(comment.starts_with(wanted), "{comment}");
    assert!(
        comment.contains(
            "\n### Production deployments\n\n| Cloud Provider | Cluster Name | Hub Name |"
        ),
        "{comment}"
    );
    assert!(comment.contains("| kubeconfig | lake | hub-2 | Following helm chart values files were modified: line\\\\nbreak.yaml |"), "{comment}");
}

/// In a comment it isn't markup, for example.
#[test]
fn nothing_in_a_name_is_anything_but_its_text() {
    let repo = in_a_workflow();
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "gone.yaml",
        "<b>|@ada [x](y)`.yaml",
    );
    let file = "config/clusters/lake/<b>|@ada [x](y)`.yaml";
    repo.write(file, "{}\n");
    repo.command("generate helm-upgrade-jobs")
        .arg(file)
        .output()
        .unwrap();
    let comment = repo.read("comment-body.txt");
    assert!(
        comment.contains("modified: &#60;b&#62;&#124;&#64;&#8203;ada \\[x\\]\\(y\\)\\`.yaml |\n"),
        "{comment}"
    );
}

#[test]
fn a_comment_where_nothing_is_upgraded() {
    let repo = in_a_workflow();
    repo.write("README.md", "");
    repo.ok("generate helm-upgrade-jobs README.md");
    let comment = repo.read("comment-body.txt");
    assert!(
        comment.contains("No support or staging upgrades will be triggered"),
        "{comment}"
    );
    assert!(
        comment.contains("No production hub upgrades will be triggered"),
        "{comment}"
    );
}

#[test]
fn resources_that_changed_have_their_hubs_checked() {
    let repo = Repo::new();
    let yaml = repo
        .read("config/clusters/river/cluster.yaml")
        .replace("gcp:", "aws:")
        .replace("gcp", "aws");
    let yaml = yaml.replace(
        "project: water\n  cluster: river\n  region",
        "clusterName: sea\n  region",
    );
    repo.write(
        "config/clusters/sea/cluster.yaml",
        &yaml.replace("river", "sea"),
    );
    repo.write(
        "config/clusters/brook/cluster.yaml",
        &yaml.replace("river", "brook"),
    );
    for (changed, wanted) in [
        ("terraform/gcp/cluster.tf", "river"),
        ("terraform/gcp/modules/nfs/main.tf,docs/x.md", "river"),
        ("terraform/gcp/projects/river.tfvars", "river"),
        ("terraform/gcp/projects/brook.tfvars", ""),
        ("terraform/aws/projects/sea.tfvars", "sea"),
        ("terraform/aws/efs.tf", "brook sea"),
        ("terraform/azure/main.tf,terraform/README.md", ""),
        ("eksctl/libsonnet/nodegroup.jsonnet", "brook sea"),
        ("eksctl/template.jsonnet", "brook sea"),
        ("eksctl/brook.jsonnet", "brook"),
        ("eksctl/river.jsonnet,eksctl/lake.jsonnet", ""),
        (
            "config/clusters/sea/cluster.yaml,xtask/src/kubernetes/helm.rs",
            "",
        ),
    ] {
        let lists = repo
            .ok(&format!(
                "generate health-check-jobs {changed} --format json"
            ))
            .stdout;
        let lists: Value = serde_json::from_str(&lists).unwrap();
        for (list, hub) in [("staging-jobs", "staging"), ("prod-jobs", "prod")] {
            let hubs: BTreeSet<_> = wanted
                .split_whitespace()
                .map(|it| (it.to_owned(), hub.to_owned()))
                .collect();
            assert_eq!(pairs(&lists[list], "hub_name"), hubs, "{changed}");
            let jobs = lists[list].as_array().unwrap().iter();
            assert!(
                jobs.into_iter()
                    .all(|it| it["reason"].is_string() && it["provider"].is_string())
            );
        }
    }
}

/// As every night: all hubs whose health somebody can check.
#[test]
fn hubs_that_can_be_checked() {
    let repo = Repo::new();
    let hub = |name: &str, more: &str| {
        format!(
            "\n  - name: {name}\n    domain: {name}.example.org\n    helm_chart: pond\n    helm_chart_values_files: [{name}.values.yaml]\n{more}"
        )
    };
    let hubs = [
        hub("bare", "    health_check: false\n"),
        hub("without", ""),
        hub("with", ""),
        hub("open", ""),
        hub(
            "resting",
            "    paused: {until: 2999-12-31, reason: new nodes}\n",
        ),
    ];
    let file = "config/clusters/lake/cluster.yaml";
    let with_more = repo.read(file).trim_end().to_owned() + &hubs.concat();
    repo.write(file, &with_more);
    let class =
        |name: &str| format!("hub: {{config: {{JupyterHub: {{authenticator_class: {name}}}}}}}\n");
    let service = "hub: {config: {a: {}}, services: {hub-health: {}}}\n";
    for (name, values) in [
        ("bare", "{}"),
        ("resting", "{}"),
        ("without", &*class("github")),
        ("with", service),
        ("open", &*class("'null'")),
    ] {
        repo.write(&format!("config/clusters/lake/{name}.values.yaml"), values);
    }
    let ran = repo.ok("generate health-check-jobs --format json");
    let lists: Value = serde_json::from_str(&ran.stdout).unwrap();
    let names = |list: &str| {
        let hubs = lists[list].as_array().unwrap().iter();
        let hubs = hubs.filter(|it| it["cluster_name"] == "lake");
        let names: Vec<_> = hubs.map(|it| it["hub_names"].as_str().unwrap()).collect();
        names.join(" ")
    };
    assert_eq!(names("staging-jobs"), "staging");
    assert_eq!(names("prod-jobs"), "open prod with");
    let clusters = lists["cluster-jobs"].as_array().unwrap();
    let lake = clusters.iter().find(|it| it["provider"] == "kubeconfig");
    let live = json!({
        "cluster_names": "lake", "provider": "kubeconfig", "support": "", "staging": "lake staging",
        "production": "lake bare open prod with without",
        "all": "lake staging bare open prod with without",
    });
    assert_eq!(lake, Some(&live));
    for left_out in [
        "`resting` of `lake` is left out: paused until 2999-12-31: new nodes",
        "`bare` of `lake` is left out: cluster.yaml has `health_check: false`",
        "`without` of `lake` is left out: its values have no service `hub-health`",
    ] {
        assert!(ran.stderr.contains(left_out), "{}", ran.stderr);
    }
}

/// Those of a cluster with a kubeconfig are in any folder.
#[test]
fn resources_of_a_cluster_are_in_any_folder_of_terraform() {
    let repo = Repo::new();
    repo.write("terraform/openstack/projects/lake.tfvars", "");
    repo.write("terraform/openstack/projects/river.tfvars", "");
    for (changed, clusters) in [
        (
            "terraform/openstack/projects/lake.tfvars",
            ["lake"].as_slice(),
        ),
        ("terraform/azure/projects/lake.tfvars", &["lake"]),
        ("terraform/openstack/cluster.tf", &["lake", "river"]),
        ("terraform/azure/main.tf", &[]),
        ("terraform/openstack/projects/river.tfvars", &["river"]),
        ("terraform/openstack/projects/lake.tfvars.old", &[]),
        ("terraform/gcp/main.tf", &["river"]),
    ] {
        let args = format!("generate health-check-jobs {changed} --format json");
        let lists: Value = serde_json::from_str(&repo.ok(&args).stdout).unwrap();
        let jobs = lists["prod-jobs"].as_array().unwrap().iter();
        let names: Vec<_> = jobs.map(|it| &it["cluster_name"]).collect();
        assert_eq!(names, clusters, "{changed}");
    }
}

/// As long as people's are.
fn own_values(hub: usize) -> String {
    format!(
        "what-only-the-{hub}th-hub-of-its-cluster-has-and-no-other-one-of-them-shares-with-it.values.yaml"
    )
}

fn many(clusters: usize, hubs: usize) -> Repo {
    let repo = Repo::new();
    for number in 0..clusters {
        let hubs: Vec<_> = (0..hubs)
            .map(|hub| json!({
                "name": format!("hub-{hub}"), "domain": format!("{hub}.{number}.org"), "helm_chart": "pond",
                "helm_chart_values_files": [own_values(hub)],
            }))
            .collect();
        let yaml = json!({"name": format!("c{number}"), "provider": "aws", "aws": {"clusterName": "c", "region": "r"}, "hubs": hubs});
        repo.write(
            &format!("config/clusters/c{number}/cluster.yaml"),
            &yaml.to_string(),
        );
    }
    repo
}

/// GitHub takes 256 jobs in a matrix.
#[test]
fn a_large_fleet_shares_jobs_and_loses_none() {
    let repo = many(30, 20);
    let lists = lists(&repo, &["xtask/src/kubernetes/helm.rs".to_owned()], &[]);
    let jobs = &lists["prod-jobs"];
    assert!(jobs.as_array().unwrap().len() <= 256);
    assert_eq!(pairs(jobs, "hub_names").len(), 30 * 20 + 2);
    // Nor where each has a long reason of its own.
    let repo = many(60, 12);
    let changed = (0..60)
        .flat_map(|c| (0..12).map(move |hub| format!("config/clusters/c{c}/{}", own_values(hub))));
    let listed = changed.collect::<Vec<_>>().join(",");
    let mut command = repo.command("generate helm-upgrade-jobs");
    let output = command
        .args([&listed])
        .env("CI", "true")
        .env("GITHUB_OUTPUT", repo.root.join("output"))
        .output();
    let output = output.unwrap();
    assert_succeeded(&output);
    let jobs = serde_json::from_str(&set(&repo.read("output"))["prod-jobs"]).unwrap();
    assert_eq!(pairs(&jobs, "hub_names").len(), 60 * 12);
}

/// More clusters than that share jobs, too.
#[test]
fn clusters_share_jobs_where_there_are_too_many() {
    let repo = many(299, 2);
    let lists = lists(&repo, &["xtask/src/kubernetes/helm.rs".to_owned()], &[]);
    let wave = &lists["wave-1"];
    let jobs = wave["prod"].as_array().unwrap();
    assert!(jobs.len() <= 256, "{}", jobs.len());
    let words = |key: &str| -> Vec<&str> {
        let all = jobs.iter().map(|it| it[key].as_str().unwrap());
        all.flat_map(str::split_whitespace).collect()
    };
    let releases: BTreeSet<_> = words("releases").into_iter().collect();
    assert_eq!(releases.len(), 299 * 2 + 2);
    let shared = jobs
        .iter()
        .find(|it| it["releases"].as_str().unwrap().contains("c1/"));
    let shared = shared.unwrap()["deploys"].as_str().unwrap();
    assert!(
        shared.lines().count() == 2 && shared.contains("c1 "),
        "{shared}"
    );
    assert!(lists["prod-jobs"].as_array().unwrap().len() <= 256);
}

/// A workflow can pass on what has two thousand hubs, each of which waits for many.
#[test]
fn two_thousand_hubs_fit_into_a_workflow() {
    let repo = many(40, 50);
    for cluster in 0..40 {
        let file = format!("config/clusters/c{cluster}/cluster.yaml");
        let mut yaml: Value = serde_json::from_str(&repo.read(&file)).unwrap();
        for hub in &mut yaml["hubs"].as_array_mut().unwrap()[..10] {
            hub["stage"] = "staging".into();
        }
        repo.write(&file, &yaml.to_string());
    }
    let mut command = repo.command("generate helm-upgrade-jobs xtask/src/kubernetes/helm.rs");
    command.env("CI", "true");
    let output = command
        .env("GITHUB_OUTPUT", repo.root.join("output"))
        .output();
    assert_succeeded(&output.unwrap());
    let output = set(&repo.read("output"));
    let wave: Value = serde_json::from_str(&output["wave-1"]).unwrap();
    let jobs = wave["prod"].as_array().unwrap();
    assert!((64..=256).contains(&jobs.len()), "{}", jobs.len());
    let releases = jobs.iter().map(|it| it["releases"].as_str().unwrap());
    assert_eq!(
        releases.flat_map(str::split_whitespace).count(),
        40 * 40 + 2
    );
}

/// A staging hub is broken for a week.
#[test]
fn a_paused_hub_holds_nobody_and_is_named() {
    let repo = Repo::new();
    let file = "config/clusters/lake/cluster.yaml";
    let paused = "paused: {until: 2999-01-01, reason: new nodes}";
    repo.edit(
        file,
        "- name: staging",
        &format!("- name: staging\n    {paused}"),
    );
    let changed = ["config/clusters/lake/common.values.yaml".to_owned()];
    let both = lists(&repo, &changed, &[]);
    assert_eq!(both["staging-jobs"], json!([]));
    assert_eq!(both["prod-jobs"][0]["releases"], "lake/prod");
    assert_eq!(both["prod-jobs"][0]["needs"], json!([]));
    let held =
        json!([{"releases": "lake/staging", "reason": "paused until 2999-01-01: new nodes"}]);
    assert_eq!(both["held"], held);
    // It would not have been deployed.
    let changed = ["config/clusters/lake/prod.values.yaml".to_owned()];
    assert_eq!(lists(&repo, &changed, &[])["held"], json!([]));
    repo.edit(
        file,
        paused,
        "paused: {until: 2020-01-01, reason: new nodes}",
    );
    assert_eq!(
        lists(&repo, &changed, &[])["staging-jobs"][0]["releases"],
        "lake/staging"
    );
}

/// Each of the branches that groups promote between deploys its part.
#[test]
fn a_branch_deploys_its_part() {
    let repo = Repo::new();
    let changed = ["config/clusters/lake/common.values.yaml".to_owned()];
    let of = |branch: &str| {
        let lists = lists(&repo, &changed, &["--branch", branch]);
        ["staging-jobs", "prod-jobs"].map(|it| lists[it].as_array().unwrap().len())
    };
    assert_eq!(of("main"), [1, 1]);
    assert_eq!(of("staging"), [1, 0]);
    assert_eq!(of("production"), [0, 1]);
}

/// Its comment names what is held, though nothing is deployed.
#[test]
fn a_comment_names_what_a_freeze_holds() {
    let repo = in_a_workflow();
    let freeze =
        "freeze: [{from: 2020-01-01, until: 2999-01-01, reason: exams, clusters: [river]}]\n";
    repo.write("config/xtask.yaml", freeze);
    repo.ok("generate helm-upgrade-jobs config/clusters/river/river.values.yaml");
    let comment = repo.read("comment-body.txt");
    let row = "| gcp | river | prod | frozen until 2999-01-01: exams |";
    assert!(
        comment.contains("### Held back") && comment.contains(row),
        "{comment}"
    );
    assert!(
        !comment.contains("No production hub upgrades will be triggered"),
        "{comment}"
    );
}
