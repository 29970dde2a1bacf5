//! GitLab pipelines: valid by its schema, and played on the rehearsal cluster as GitLab would.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value, json};

use crate::{
    generate::{commit, git},
    repo::{Ran, Repo, Shared, persons_cache, workspace},
    upstream::{Answer, Request, Server},
};

/// What a file of GitLab's says.
fn read(file: &Path) -> Map<String, Value> {
    serde_yaml::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// GitLab's own schema has nothing against these files.
fn check(files: &[&Path]) {
    let folder = persons_cache().join("xtask/tests/check-jsonschema==0.39.0");
    assert!(
        folder.is_dir(),
        "`cargo xtask ci` puts it into {}",
        folder.display()
    );
    let mut command = Command::new("python3");
    command
        .args([
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.gitlab-ci",
        ])
        .args(files);
    let output = command
        .env("PYTHONPATH", folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// The names of the jobs of a file, which aren't the keywords of all.
fn jobs(file: &Map<String, Value>) -> BTreeMap<&str, &Value> {
    let keywords = ["default", "include", "stages", "variables", "workflow"];
    file.iter()
        .map(|(name, job)| (name.as_str(), job))
        .filter(|(it, _)| !keywords.contains(it))
        .collect()
}

/// The jobs of its own pipeline that a job needs.
fn needs(job: &Value) -> Vec<&str> {
    let needs = job["needs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|it| it["pipeline"].is_null());
    needs.map(|it| it.as_str().unwrap()).collect()
}

fn lines(of: &Value) -> Vec<&str> {
    of.as_array()
        .into_iter()
        .flatten()
        .map(|it| it.as_str().unwrap())
        .collect()
}

/// All jobs that have to go well before this one.
fn all_needs<'a>(jobs: &BTreeMap<&'a str, &'a Value>, name: &str) -> BTreeSet<&'a str> {
    let direct = needs(jobs[name]);
    let further = direct.iter().flat_map(|it| all_needs(jobs, it));
    further.chain(direct.iter().copied()).collect()
}

#[test]
fn the_files_fit_gitlabs_schema() {
    let [main, shared] = [".gitlab-ci.yml", ".gitlab/xtask.yml"].map(|it| workspace().join(it));
    check(&[&main, &shared]);
    let main = read(&main);
    assert_eq!(main["default"]["image"], "$DEPLOYER_IMAGE");
    // Each job's needs are there whenever it is.
    let jobs = jobs(&main);
    for job in jobs.values() {
        for need in needs(job) {
            let rules = &jobs[need]["rules"];
            assert!(rules.is_null() || *rules == job["rules"], "{need}");
        }
    }
    assert_eq!(main["include"], json!([{"local": ".gitlab/xtask.yml"}]));
}

/// A fleet of one cluster with support, where a hub may wait for less than all staging hubs.
fn lake(staging: usize) -> Repo {
    let repo = Repo::new();
    fs::remove_dir_all(repo.root.join("config/clusters/river")).unwrap();
    let hub = |name: String, gates: Option<&[&str]>| {
        let mut hub = json!({"name": name, "domain": "a.org", "helm_chart": "pond", "helm_chart_values_files": []});
        if let Some(gates) = gates {
            hub["gates"] = json!(gates);
        }
        hub
    };
    let hubs = (0..staging).map(|it| hub(format!("staging-{it}"), None));
    let prod = [("all", None), ("some", Some(&["staging-0"][..]))];
    let hubs = hubs.chain(prod.map(|(name, gates)| hub(name.to_owned(), gates)));
    let yaml = json!({
        "name": "lake", "provider": "aws", "aws": {"clusterName": "lake", "region": "r"},
        "support": {"helm_chart_values_files": []}, "hubs": hubs.collect::<Vec<_>>(),
    });
    repo.write("config/clusters/lake/cluster.yaml", &yaml.to_string());
    repo
}

pub(crate) fn pipeline(repo: &Repo, changed: &str) -> Map<String, Value> {
    let text = repo
        .ok(&format!(
            "generate helm-upgrade-jobs {changed} --format gitlab"
        ))
        .stdout;
    repo.write("pipeline.yml", &text);
    check(&[&repo.root.join("pipeline.yml")]);
    read(&repo.root.join("pipeline.yml"))
}

#[test]
fn what_a_job_waits_for() {
    let repo = lake(2);
    let changed = "config/clusters/lake/cluster.yaml";
    let file = pipeline(&repo, changed);
    assert_eq!(file["include"], json!([{"local": ".gitlab/xtask.yml"}]));
    assert_eq!(file["default"]["image"], "$DEPLOYER_IMAGE");
    let jobs = jobs(&file);
    let waits = |name: &str| all_needs(&jobs, name).into_iter().collect::<Vec<_>>();
    assert!(waits("support lake").is_empty());
    assert_eq!(waits("staging lake staging-1"), ["support lake"]);
    // Which isn't started before what all wait for.
    assert_eq!(
        waits("approve lake"),
        ["staging lake staging-0", "support lake"]
    );
    let all = [
        "approve lake",
        "staging lake staging-0",
        "staging lake staging-1",
        "support lake",
    ];
    assert_eq!(waits("production lake all"), all);
    assert_eq!(waits("production lake some"), [all[0], all[1], all[3]]);
    assert_eq!(jobs["approve lake"]["when"], "manual");
    assert_eq!(jobs["approve lake"]["allow_failure"], false);
    for (name, script, group) in [
        ("support lake", "xtask deploy-support lake", "lake/support"),
        (
            "staging lake staging-1",
            "xtask deploy lake staging-1 --skip-unchanged",
            "lake/staging-1",
        ),
        (
            "production lake all",
            "xtask deploy lake all --skip-unchanged",
            "lake/all",
        ),
    ] {
        assert_eq!(jobs[name]["script"], json!([script]));
        assert_eq!(jobs[name]["resource_group"], group);
        assert_eq!(jobs[name]["environment"], json!({"name": group}));
        assert_eq!(
            jobs[name]["needs"][0],
            json!({"pipeline": "$PARENT_PIPELINE_ID", "job": "build"})
        );
        let retried = lines(&jobs[name]["retry"]["when"]);
        assert!(retried.contains(&"runner_system_failure") && !retried.contains(&"script_failure"));
    }
    // The same again, wherever it runs.
    let mut command = repo.command(&format!(
        "generate helm-upgrade-jobs {changed} --format gitlab"
    ));
    let output = command.env("CI", "true").output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        repo.read("pipeline.yml")
    );
    assert!(!repo.root.join("comment-body.txt").exists());

    repo.write("config/clusters/la ke/cluster.yaml", &repo.read(changed));
    let said =
        repo.fails("generate helm-upgrade-jobs xtask/src/kubernetes/helm.rs --format gitlab");
    assert!(
        said.contains(
            "config/clusters/la ke/cluster.yaml:1:1: the folder's name is the cluster's: `la ke` is not a name"
        ),
        "{said}"
    );
}

/// Every job of a later wave waits for all of the earlier ones, and for no job of a later stage.
#[test]
fn waves_wait_for_each_other() {
    let repo = lake(1);
    let lake = repo.read("config/clusters/lake/cluster.yaml");
    for (name, wave) in [("river", "2"), ("sea", "5"), ("pond", "1")] {
        let yaml = lake.replace("lake", name);
        let yaml = yaml.replacen('{', &format!("{{\"wave\": {wave}, "), 1);
        repo.write(&format!("config/clusters/{name}/cluster.yaml"), &yaml);
    }
    let file = pipeline(
        &repo,
        "xtask/src/kubernetes/helm.rs,helm-charts/support/values.yaml",
    );
    let jobs = jobs(&file);
    let of = |cluster: &'static str| {
        let names = jobs.keys().copied();
        names.filter(move |it| it.split(' ').nth(1) == Some(cluster))
    };
    for (later, earlier) in [
        ("river", "lake"),
        ("river", "pond"),
        ("sea", "river"),
        ("sea", "lake"),
    ] {
        for job in of(later) {
            let waits = all_needs(&jobs, job);
            assert!(of(earlier).all(|it| waits.contains(it)), "{job}: {waits:?}");
        }
    }
    assert!(of("lake").all(|it| all_needs(&jobs, it).iter().all(|it| !it.contains("river"))));
    let stages = lines(&file["stages"]);
    let stage = |job: &str| {
        let stage = jobs[job]["stage"].as_str().unwrap();
        stages.iter().position(|it| *it == stage).unwrap()
    };
    for (name, job) in &jobs {
        assert!(
            needs(job).iter().all(|it| stage(it) <= stage(name)),
            "{name}"
        );
    }
}

/// Then the environment of all is not given to this commit.
#[test]
fn a_pipeline_names_what_is_held() {
    let repo = lake(1);
    let freeze = "freeze: [{from: 2020-01-01, until: 2999-01-01, reason: it costs $5}]\n";
    repo.write("config/xtask.yaml", freeze);
    let file = pipeline(&repo, "xtask/src/kubernetes/helm.rs");
    let jobs = jobs(&file);
    assert!(!jobs.contains_key("deployed"));
    let held = jobs["held back"]["variables"]["HELD_000"]["value"].as_str();
    let wanted = "lake/all lake/some: frozen until 2999-01-01: it costs $5";
    assert_eq!(held, Some(wanted));
    assert_eq!(
        jobs.keys()
            .filter(|it| it.starts_with("production"))
            .count(),
        0
    );
}

/// GitLab takes 50 `needs` of a job.
#[test]
fn more_than_a_job_may_need() {
    let file = pipeline(&lake(120), "xtask/src/kubernetes/helm.rs");
    let jobs = jobs(&file);
    assert!(
        jobs.values()
            .all(|it| it["needs"].as_array().unwrap().len() <= 50)
    );
    let waits = all_needs(&jobs, "production lake all");
    assert_eq!(
        waits
            .iter()
            .filter(|it| it.starts_with("staging lake "))
            .count(),
        120
    );
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}
use Outcome::{Failed, Passed, Skipped};

/// Plays jobs in the order of their needs; one whose needs didn't all pass is skipped.
fn play<'a>(
    jobs: &BTreeMap<&'a str, &'a Value>,
    mut passes: impl FnMut(&str, &Value) -> bool,
) -> BTreeMap<&'a str, Outcome> {
    let mut outcomes = BTreeMap::new();
    while outcomes.len() < jobs.len() {
        let is_due = |(name, job): &(&&'a str, &&'a Value)| {
            !outcomes.contains_key(**name) && needs(job).iter().all(|it| outcomes.contains_key(it))
        };
        let (name, job) = jobs
            .iter()
            .find(is_due)
            .expect("no job needs itself or one that isn't there");
        let may_run = needs(job).iter().all(|it| outcomes[it] == Passed);
        let outcome = if !may_run {
            Skipped
        } else if passes(name, job) {
            Passed
        } else {
            Failed
        };
        outcomes.insert(*name, outcome);
    }
    outcomes
}

/// What the jobs said.
const LOG: &str = "target/jobs.log";

/// Runs lines as a job on the default branch would.
fn runs(repo: &Repo, lines: &[&str]) -> bool {
    let mut command = Command::new("sh");
    command
        .args(["-ec", &lines.join("\n")])
        .current_dir(&repo.root)
        .env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command
        .env("HOME", repo.home())
        .env("XDG_CACHE_HOME", repo.cache())
        .envs(repo.env.iter().cloned());
    let output = command.output().unwrap();
    let log = format!(
        "{}$ {}\n{}",
        repo.read(LOG),
        lines.join("\n"),
        String::from_utf8_lossy(&output.stderr)
    );
    repo.write(LOG, &log);
    output.status.success()
}

/// What was deployed to which environment: its name and a commit, the oldest first.
type Deployments = Vec<(String, String)>;

/// Plays .gitlab-ci.yml for a push to the default branch, and the pipeline that it starts: the outcomes of both.
fn push(
    repo: &Repo,
    deployed: &Mutex<Deployments>,
) -> (BTreeMap<String, Outcome>, BTreeMap<String, Outcome>) {
    let main = read(&repo.root.join(".gitlab-ci.yml"));
    let shared = read(&repo.root.join(".gitlab/xtask.yml"));
    let before = lines(&shared["default"]["before_script"]);
    let runs = |job: &Value| runs(repo, &[&before[..], &lines(&job["script"])].concat());
    // A job that goes well deploys to its environment.
    let deploys = |job: &Value| {
        let passed = runs(job);
        let environment = &job["environment"];
        let name = environment.as_str().or(environment["name"].as_str());
        if let Some(name) = name.filter(|_| passed) {
            let commit = git(&repo.root, &["rev-parse", "HEAD"]);
            deployed.lock().unwrap().push((name.to_owned(), commit));
        }
        passed
    };
    let mut of_push = jobs(&main);
    let condition = json!({"if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"});
    let is_of_push = |rules: &Value| {
        rules
            .as_array()
            .is_none_or(|it| it.last() == Some(&condition))
    };
    of_push.retain(|_, it| is_of_push(&it["rules"]));
    let mut child = BTreeMap::new();
    let owned = |it: BTreeMap<&str, Outcome>| {
        it.into_iter()
            .map(|(name, it)| (name.to_owned(), it))
            .collect()
    };
    let outcomes = play(&of_push, |_, job| {
        if job["trigger"].is_null() {
            return deploys(job);
        }
        let artifact = job["trigger"]["include"][0]["artifact"].as_str().unwrap();
        let file = read(&repo.root.join(artifact));
        // Whoever may approves at once.
        child = owned(play(&jobs(&file), |_, job| deploys(job)));
        job["trigger"]["strategy"] == "depend" && child.values().all(|it| *it == Passed)
    });
    (owned(outcomes), child)
}

/// What GitLab says to a job with its token that asks for these deployments.
fn answer(request: &Request, deployments: &Deployments) -> Answer {
    if !request.has("job-token: of-the-job") {
        return Answer::Json(401, json!({"message": "401 Unauthorized"}));
    }
    let Some(("projects/7/deployments", query)) = request.path.split_once('?') else {
        return Answer::Json(404, json!({"message": "404 Not Found"}));
    };
    let has = |pair: &str| query.split('&').any(|it| it == pair);
    let wanted = ["status=success", "order_by=id", "sort=desc"];
    assert!(wanted.into_iter().all(has), "{query}");
    let newest = deployments.iter().rev();
    let list = newest
        .map(|(name, commit)| json!({"sha": commit, "ref": "main", "environment": {"name": name}}));
    Answer::Json(200, list.collect())
}

/// Two clusters, both on the rehearsal cluster, that pushes to GitLab deploy.
struct Lab {
    repo: Repo,
    deployed: Arc<Mutex<Deployments>>,
}

/// Of lake's staging hub.
const STAGING: &str = "config/clusters/lake/lab-staging.values.yaml";

/// One test, from top to bottom: what a run deploys depends on those before it.
#[test]
fn pushes_deploy_what_changed() {
    let cluster = Shared::cluster();
    let mut lab = Lab::start(&cluster);
    a_failed_staging_holds_its_production(&cluster, &lab);
    all_comes_again_until_all_went_well(&cluster, &lab);
    only_what_changed_is_planned(&lab);
    a_bad_cluster_yaml_stops_no_other_cluster(&lab);
    deployments_are_shown_to_the_job_only(&mut lab);
}

impl Lab {
    fn start(cluster: &Shared) -> Lab {
        let mut repo = Repo::on(cluster, &["lab-staging", "lab-prod"]);
        let lake = repo.read("config/clusters/lake/cluster.yaml");
        repo.write(
            "config/clusters/river/cluster.yaml",
            &lake.replace("lake", "river").replace("lab-", "laby-"),
        );
        for file in ["kubeconfig.yaml", "common.values.yaml"] {
            repo.write(
                &format!("config/clusters/river/{file}"),
                &repo.read(&format!("config/clusters/lake/{file}")),
            );
        }
        for hub in ["laby-staging", "laby-prod"] {
            repo.write(&format!("config/clusters/river/{hub}.values.yaml"), "{}\n");
        }
        for file in [".gitlab-ci.yml", ".gitlab/xtask.yml"] {
            repo.write(file, &fs::read_to_string(workspace().join(file)).unwrap());
        }
        repo.write(".gitignore", "/target\n/pipeline.yml\n");
        // `build` has little to do here.
        repo.write(LOG, "");
        fs::create_dir_all(repo.root.join("target/release")).unwrap();
        std::os::unix::fs::symlink(
            env!("CARGO_BIN_EXE_xtask"),
            repo.root.join("target/release/xtask"),
        )
        .unwrap();
        repo.script("cargo", "");
        let deployed = Arc::new(Mutex::new(Vec::new()));
        let known = deployed.clone();
        let server = Server::asked(move |it| answer(it, &known.lock().unwrap()));
        for (name, value) in [
            ("CI", "true"),
            ("GITLAB_CI", "true"),
            ("CI_API_V4_URL", server.address.as_str()),
            ("CI_PROJECT_ID", "7"),
            ("CI_JOB_TOKEN", "of-the-job"),
            ("CI_PROJECT_DIR", repo.root.to_str().unwrap()),
            ("GITLAB_USER_LOGIN", "ann"),
        ] {
            repo.env.push((name.to_owned(), value.to_owned()));
        }
        git(&repo.root, &["init", "--quiet"]);
        Lab { repo, deployed }
    }

    /// The outcomes of jobs are these and no others.
    fn has(&self, outcomes: &BTreeMap<String, Outcome>, wanted: &[(&str, Outcome)]) {
        let wanted: BTreeMap<_, _> = wanted
            .iter()
            .map(|(name, it)| ((*name).to_owned(), *it))
            .collect();
        assert_eq!(*outcomes, wanted, "{}", self.repo.read(LOG));
    }

    fn plan(&self) -> Ran {
        self.repo
            .run("generate helm-upgrade-jobs --base last-deployed --format gitlab")
    }
}

/// Staging fails in one: its production isn't touched, the other's is deployed.
fn a_failed_staging_holds_its_production(cluster: &Shared, lab: &Lab) {
    lab.repo.write(STAGING, "fail: because\n");
    commit(&lab.repo, "all hubs");
    let (parent, child) = push(&lab.repo, &lab.deployed);
    lab.has(
        &parent,
        &[("build", Passed), ("plan", Passed), ("deploy", Failed)],
    );
    lab.has(
        &child,
        &[
            ("staging lake lab-staging", Failed),
            ("approve lake", Skipped),
            ("production lake lab-prod", Skipped),
            ("staging river laby-staging", Passed),
            ("approve river", Passed),
            ("production river laby-prod", Passed),
            ("wave 1", Skipped),
            ("deployed", Skipped),
        ],
    );
    let namespaces = cluster.kubectl("get namespaces -o name");
    assert!(!namespaces.contains("namespace/lab-prod"), "{namespaces}");
    assert!(
        cluster.history("laby-prod").contains("deployed by ann"),
        "{}",
        cluster.history("laby-prod")
    );
}

/// Then nothing does.
fn all_comes_again_until_all_went_well(cluster: &Shared, lab: &Lab) {
    lab.repo.write(STAGING, "{}\n");
    commit(&lab.repo, "with water");
    let (parent, child) = push(&lab.repo, &lab.deployed);
    assert_eq!(child.len(), 5, "{child:?}");
    assert!(
        parent
            .values()
            .chain(child.values())
            .all(|it| *it == Passed),
        "{}",
        lab.repo.read(LOG)
    );
    assert!(cluster.history("lab-prod").contains("deployed by ann"));
    commit(&lab.repo, "nothing of a hub");
    let (_, child) = push(&lab.repo, &lab.deployed);
    lab.has(&child, &[("deployed", Passed)]);
}

fn only_what_changed_is_planned(lab: &Lab) {
    lab.repo
        .write("config/clusters/river/laby-prod.values.yaml", "note: new\n");
    commit(&lab.repo, "one hub");
    let planned = lab.plan().stdout;
    assert!(planned.contains("production river laby-prod"));
    assert!(!planned.contains("lake"));
}

/// And nothing counts as deployed.
fn a_bad_cluster_yaml_stops_no_other_cluster(lab: &Lab) {
    let sea = "config/clusters/sea/cluster.yaml";
    lab.repo.write(sea, "name: sea\nprovider: gpc\n");
    commit(&lab.repo, "a slip");
    let (parent, child) = push(&lab.repo, &lab.deployed);
    check(&[&lab.repo.root.join("pipeline.yml")]);
    assert_eq!(
        (parent["plan"], parent["deploy"], child["deployed"]),
        (Passed, Failed, Skipped)
    );
    assert_eq!(child["clusters that are left out"], Failed);
    assert_eq!(child["production river laby-prod"], Passed);
    fs::remove_file(lab.repo.root.join(sea)).unwrap();
    commit(&lab.repo, "no sea");
}

fn deployments_are_shown_to_the_job_only(lab: &mut Lab) {
    lab.repo.env[5].1 = "guessed".to_owned();
    let said = lab.plan().stderr;
    assert!(
        said.contains("GitLab answers 401 Unauthorized: 401 Unauthorized"),
        "{said}"
    );
    lab.repo.env.remove(5);
    let said = lab.plan().stderr;
    assert!(
        said.contains("asks GitLab, and `CI_JOB_TOKEN` is not set as in a pipeline"),
        "{said}"
    );
}
