//! Our own workflows: what GitHub takes, played as GitHub would, and the comment on a pull request.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::{
    expressions::{evaluate, is_true},
    generate::{Runs, commit, git, job, set},
    repo::{Repo, Shared, persons_cache, workspace},
    upstream::{Answer, Request, Server},
};

#[test]
fn github_takes_them() {
    let actionlint = persons_cache().join("xtask/tests/actionlint@v1.7.12/actionlint");
    let output = Command::new(&actionlint)
        // Its version doesn't know that one yet.
        .args([
            "-ignore",
            "unexpected key \"queue\" for \"concurrency\" section",
            "-shellcheck=",
        ])
        .current_dir(workspace())
        .output()
        .unwrap_or_else(|err| {
            panic!(
                "{}: {err}; `cargo xtask ci` puts it there",
                actionlint.display()
            )
        });
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn zizmor_finds_no_hole() {
    let zizmor = persons_cache().join("xtask/tests/zizmor==1.32.0/bin/zizmor");
    let output = Command::new(&zizmor)
        .args(["--offline", "--no-progress", "--quiet", ".github"])
        .current_dir(workspace())
        .output()
        .unwrap_or_else(|err| {
            panic!(
                "{}: {err}; `cargo xtask ci` puts it there",
                zizmor.display()
            )
        });
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

/// The steps of a workflow's or an action's YAML, with those of the actions that they use here.
fn steps_of(yaml: &Value) -> Vec<Value> {
    let jobs = yaml["jobs"]
        .as_object()
        .into_iter()
        .flat_map(|it| it.values());
    let lists = jobs
        .chain([&yaml["runs"]])
        .filter_map(|it| it["steps"].as_array());
    let mut steps = Vec::new();
    for step in lists.flatten() {
        steps.push(step.clone());
        let uses = step["uses"].as_str().unwrap_or_default();
        if let Some(action) = uses.strip_prefix("./") {
            let file = workspace().join(action).join("action.yml");
            let action = serde_yaml::from_str(&fs::read_to_string(file).unwrap()).unwrap();
            steps.extend(steps_of(&action));
        }
    }
    steps
}

/// The keys of the caches that a workflow restores, or that a run of it for a pull request saves.
fn cache_keys(yaml: &Value, is_saved: bool) -> Vec<String> {
    let mut steps = steps_of(yaml);
    steps.retain(|it| {
        let uses = it["uses"].as_str().unwrap_or_default();
        let is_both = uses.starts_with("actions/cache@");
        let condition = it["if"].as_str().unwrap_or_default();
        if is_saved {
            let is_run = !condition.contains("github.event_name != 'pull_request' && ");
            (is_both || uses.starts_with("actions/cache/save@")) && is_run
        } else {
            is_both || uses.starts_with("actions/cache/restore@")
        }
    });
    let keys = steps.iter().map(|it| it["with"]["key"].as_str().unwrap());
    // What follows depends on files that a pull request may bring.
    keys.map(|it| it.split('$').next().unwrap().to_owned())
        .collect()
}

#[test]
fn no_secret_meets_what_a_pull_request_cached() {
    let folder = workspace().join(".github/workflows");
    let mut saved = Vec::new();
    let mut restored = Vec::new();
    for file in fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()) {
        let text = fs::read_to_string(&file).unwrap();
        let workflow: Value = serde_yaml::from_str(&text).unwrap();
        let on = &workflow["on"];
        if on == "pull_request"
            || !on["pull_request"].is_null()
            || text.contains("\n  pull_request:")
        {
            saved.extend(cache_keys(&workflow, true));
            assert!(!text.contains("secrets."), "{}", file.display());
        }
        if text.contains("secrets.") || text.contains("github.token") {
            restored.extend(cache_keys(&workflow, false));
        }
    }
    assert_eq!(saved, ["cargo-"]);
    assert!(restored.contains(&"xtask-".to_owned()), "{restored:?}");
    assert!(
        !restored.iter().any(|it| saved.contains(it)),
        "{restored:?}"
    );
}

/// Whose code runs is fixed, and each job has its rights.
#[test]
fn they_are_careful() {
    let folder = workspace().join(".github/workflows");
    for file in fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()) {
        let text = fs::read_to_string(&file).unwrap();
        for line in text
            .lines()
            .filter(|it| it.contains("uses: ") && !it.contains("uses: ./"))
        {
            let commit = line.split(['@', ' ']).find(|it| it.len() == 40);
            assert!(
                commit.is_some_and(|it| it.bytes().all(|it| it.is_ascii_hexdigit())),
                "{line}"
            );
        }
        let workflow: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(
            workflow["permissions"]["contents"],
            "read",
            "{}",
            file.display()
        );
        for step in workflow["jobs"]
            .as_object()
            .unwrap()
            .values()
            .filter_map(|it| it["steps"].as_array())
            .flatten()
        {
            let run = step["run"].as_str().unwrap_or_default();
            assert!(
                run.trim().lines().count() <= 2 && !run.contains("${{"),
                "{run}"
            );
        }
    }
    assert!(
        !fs::read_to_string(workspace().join(".github/workflows/plan.yaml"))
            .unwrap()
            .contains("secrets.")
    );
}

/// A branch that somebody may push gets none: the environment's rules say which do.
#[test]
fn secrets_are_those_of_an_environment() {
    for file in ["deploy-hubs.yaml", "promote.yaml", "wave.yaml"] {
        let text = fs::read_to_string(workspace().join(".github/workflows").join(file)).unwrap();
        let workflow: Value = serde_yaml::from_str(&text).unwrap();
        for (name, job) in workflow["jobs"].as_object().unwrap() {
            let has_secret = job["steps"].to_string().contains("secrets.");
            assert_eq!(job["environment"] == "hubs", has_secret, "{file}: {name}");
        }
    }
}

/// A change of the deployer's code builds none of the programs that it runs, and no job builds those of a rehearsal cluster.
#[test]
fn programs_are_cached_apart_from_the_deployer() {
    let file = workspace().join(".github/actions/setup-deploy/action.yml");
    let action: Value = serde_yaml::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let steps = action["runs"]["steps"].as_array().unwrap();
    let cache_of = |path: &str| {
        let cache = steps.iter().find(|it| it["with"]["path"] == path);
        cache.unwrap()["with"]["key"].as_str().unwrap()
    };
    let programs = cache_of("~/.cache/xtask/tools");
    let sources: Vec<_> = programs.split('\'').filter(|it| it.contains('/')).collect();
    assert_eq!(sources, ["xtask/src/machine/programs.rs", "xtask/tools/**"]);
    assert!(cache_of("target/release/xtask").contains("'xtask/src/**'"));
    let setup = steps.iter().filter_map(|it| it["run"].as_str());
    let setup: Vec<_> = setup.filter(|it| it.contains("setup")).collect();
    assert_eq!(setup, ["target/release/xtask setup --for deploy"]);
}

/// A text with its `${{ … }}`.
fn filled(text: &str, context: &Value) -> String {
    let mut parts = text.split("${{");
    let mut filled = parts.next().unwrap().to_owned();
    for part in parts {
        let (expression, rest) = part.split_once("}}").unwrap();
        match evaluate(expression, context) {
            Value::String(text) => filled += &text,
            Value::Null => {}
            other => filled += &other.to_string(),
        }
        filled += rest;
    }
    filled
}

/// A job of a run's only attempt.
fn ended(name: &str, conclusion: &str) -> Value {
    job(name, conclusion, 1)
}

/// A run of a workflow whose deployer is ours.
struct Play<'a> {
    repo: &'a Repo,
    github: &'a GitHub,
    branch: &'a str,
    /// What the shown names of a called workflow's jobs begin with.
    prefix: String,
    inputs: Value,
    /// What each job came to; those of a called workflow after the name of the job that calls it.
    results: BTreeMap<String, &'static str>,
    outputs: BTreeMap<String, BTreeMap<String, String>>,
}

impl Play<'_> {
    /// All jobs, in the order of their needs, which is the file's.
    fn workflow(&mut self, file: &str) {
        let text = fs::read_to_string(workspace().join(".github/workflows").join(file)).unwrap();
        // Its jobs in their order.
        let order: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        let workflow: Value = serde_yaml::from_str(&text).unwrap();
        for name in order["jobs"]
            .as_mapping()
            .unwrap()
            .keys()
            .map(|it| it.as_str().unwrap())
        {
            self.job(name, &workflow["jobs"][name]);
        }
    }

    fn job(&mut self, name: &str, job: &Value) {
        let needs: Vec<_> = match &job["needs"] {
            Value::String(one) => vec![one.as_str()],
            Value::Array(all) => all.iter().map(|it| it.as_str().unwrap()).collect(),
            _ => Vec::new(),
        };
        let needed = needs.iter().map(|it| {
            (
                (*it).to_owned(),
                json!({"result": self.results[*it], "outputs": self.outputs.get(*it)}),
            )
        });
        let failure = needs.iter().any(|it| self.results[*it] == "failure");
        let mut context = json!({
            "needs": needed.collect::<serde_json::Map<_, _>>(), "failure": failure,
            "github": {
                "token": "of-the-run", "ref": format!("refs/heads/{}", self.branch), "ref_name": self.branch,
                "workflow": "deploy-hubs", "repository": "ada/hubs", "server_url": "https://github.example.org", "run_id": 7,
            },
            "secrets": {"WEBHOOK_URL": format!("{}/hook", self.github.address)},
            "vars": {"PROMOTE": self.github.state().promotes.then_some("true")}, "inputs": self.inputs,
        });
        let condition = job["if"].as_str().unwrap_or("true");
        let by_itself = condition.contains("cancelled()") || condition.contains("failure()");
        let goes_on = by_itself || needs.iter().all(|it| self.results[*it] == "success");
        let holds = condition == "true" || is_true(&evaluate(condition, &context));
        let shown = job["name"].as_str().filter(|it| !it.contains("${{"));
        let shown = format!("{}{}", self.prefix, shown.unwrap_or(name));
        if !goes_on || !holds {
            self.results.insert(name.to_owned(), "skipped");
            self.github.state().jobs.push(ended(&shown, "skipped"));
            return;
        }
        if let Some(file) = job["uses"].as_str() {
            return self.call(name, file, &shown, &job["with"], &context);
        }
        let matrix = job["strategy"]["matrix"]["jobs"].as_str();
        let matrix = matrix.map(|it| {
            evaluate(
                it.trim_start_matches("${{").trim_end_matches("}}"),
                &context,
            )
        });
        let all = matrix.map_or_else(|| vec![Value::Null], |it| it.as_array().unwrap().clone());
        let mut result = "success";
        for one in all {
            context["matrix"] = json!({"jobs": one});
            let shown = filled(job["name"].as_str().unwrap_or(name), &context);
            let shown = format!("{}{shown}", self.prefix);
            let conclusion = if self.steps(name, job, &mut context) {
                "success"
            } else {
                "failure"
            };
            if conclusion == "failure" {
                result = "failure";
            }
            self.github.state().jobs.push(ended(&shown, conclusion));
        }
        self.results.insert(name.to_owned(), result);
    }

    /// The jobs of another workflow, as those of one job.
    fn call(&mut self, name: &str, file: &str, shown: &str, with: &Value, context: &Value) {
        let with = with.as_object().into_iter().flatten();
        let inputs =
            with.map(|(name, it)| (name.clone(), filled(it.as_str().unwrap(), context).into()));
        let mut called = Play {
            prefix: format!("{shown} / "),
            inputs: Value::Object(inputs.collect()),
            results: BTreeMap::new(),
            outputs: BTreeMap::new(),
            ..*self
        };
        called.workflow(file.strip_prefix("./.github/workflows/").unwrap());
        let failed = called.results.values().any(|it| *it == "failure");
        let results = called.results;
        self.results.extend(
            results
                .into_iter()
                .map(|(job, it)| (format!("{name}/{job}"), it)),
        );
        let result = if failed { "failure" } else { "success" };
        self.results.insert(name.to_owned(), result);
    }

    /// Whether all steps of a job went well; after the first that doesn't, only those are left that are for it.
    fn steps(&mut self, name: &str, job: &Value, context: &mut Value) -> bool {
        context["failure"] = false.into();
        for step in job["steps"].as_array().unwrap() {
            let condition = step["if"].as_str().unwrap_or("'yes'");
            let Some(run) = step["run"].as_str() else {
                continue;
            };
            let is_for_failures = condition.contains("failure()");
            let holds = is_true(&evaluate(condition, context));
            if context["failure"] == !is_for_failures || !holds {
                continue;
            }
            let output = self.repo.root.join("output");
            fs::write(&output, "").unwrap();
            let mut command = Command::new("bash");
            command
                .args(["-e", "-o", "pipefail", "-c", run])
                .current_dir(&self.repo.root)
                .env_clear();
            let program = Path::new(env!("CARGO_BIN_EXE_xtask"))
                .parent()
                .unwrap()
                .display();
            command.env("PATH", format!("{program}:{}", env::var("PATH").unwrap()));
            command
                .env("HOME", self.repo.home())
                .env("XDG_CACHE_HOME", self.repo.cache());
            command.envs(self.repo.env.iter().cloned());
            command.env("CI", "true").env("GITHUB_OUTPUT", &output);
            command.envs(self.github.variables());
            command.env("GITHUB_REF_NAME", self.branch);
            for (name, value) in [&job["env"], &step["env"]]
                .into_iter()
                .filter_map(Value::as_object)
                .flatten()
            {
                command.env(name, filled(value.as_str().unwrap(), context));
            }
            let ran = command.output().unwrap();
            self.github.state().log += &String::from_utf8_lossy(&ran.stderr);
            if !ran.status.success() {
                context["failure"] = true.into();
            }
            let set = set(&fs::read_to_string(&output).unwrap());
            if let Some(id) = step["id"].as_str() {
                context["steps"] = json!({id: {"outputs": set}});
            }
        }
        let outputs = job["outputs"].as_object().into_iter().flatten();
        let outputs =
            outputs.map(|(name, it)| (name.clone(), filled(it.as_str().unwrap(), context)));
        self.outputs.insert(name.to_owned(), outputs.collect());
        context["failure"] == false
    }
}

/// Plays GitHub: it keeps what it's told, and gives nothing to who has no token.
pub(crate) struct GitHub {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    /// Of this run.
    pub(crate) jobs: Vec<Value>,
    /// Those before it.
    runs: Runs,
    is_down: bool,
    /// Whether the repository's variable PROMOTE is set.
    promotes: bool,
    /// What the webhook was told.
    told: Vec<Value>,
    /// What the steps said.
    pub(crate) log: String,
    /// Of the pull requests that brought these commits.
    labels: BTreeMap<String, Vec<&'static str>>,
    /// The newest commit of the pull request.
    head: String,
    /// The newest commit of another pull request of the same branch.
    head_of_6: &'static str,
    comments: Vec<Value>,
}

impl GitHub {
    pub(crate) fn start() -> GitHub {
        let state = Arc::new(Mutex::new(State::default()));
        let (kept, own) = (state.clone(), Arc::new(Mutex::new(String::new())));
        let address = own.clone();
        let server = Server::asked(move |request| {
            let own = address.lock().unwrap().clone();
            answer(&mut kept.lock().unwrap(), request, &own)
        });
        own.lock().unwrap().clone_from(&server.address);
        GitHub {
            address: server.address,
            state,
        }
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn variables(&self) -> [(&'static str, String); 7] {
        [
            ("GITHUB_API_URL", self.address.clone()),
            ("GITHUB_SERVER_URL", "https://github.example.org".to_owned()),
            ("GITHUB_REPOSITORY", "ada/hubs".to_owned()),
            ("GITHUB_RUN_ID", "7".to_owned()),
            ("GITHUB_REF_NAME", "main".to_owned()),
            ("GITHUB_WORKFLOW", "deploy-hubs".to_owned()),
            (
                "GITHUB_WORKFLOW_REF",
                "ada/hubs/.github/workflows/deploy-hubs.yaml@refs/heads/main".to_owned(),
            ),
        ]
    }
}

fn answer(state: &mut State, request: &Request, own: &str) -> Answer {
    let refused = |status: u16, message: &str| Answer::Json(status, json!({"message": message}));
    let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
    if request.path == "hook" {
        return match body["text"].is_string() {
            true => {
                state.told.push(body);
                Answer::Status(200)
            }
            false => refused(400, "invalid_payload"),
        };
    }
    if state.is_down {
        return refused(503, "We're having a really bad day.");
    }
    if !request.has("authorization: Bearer of-the-run") {
        return refused(401, "Requires authentication");
    }
    let Some(path) = request.path.strip_prefix("repos/ada/hubs/") else {
        return refused(404, "Not Found");
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let page = query
        .split('&')
        .find_map(|it| it.strip_prefix("page=")?.parse().ok())
        .unwrap_or(1);
    // Pages of two items, so that everything has more than one.
    let paged = |items: &[Value], key: Option<&str>| {
        let items: Vec<_> = items.iter().skip((page - 1) * 2).cloned().collect();
        let list: Value = items.iter().take(2).cloned().collect();
        let list = key.map_or_else(|| list.clone(), |key| json!({"total_count": 9, key: list}));
        match items.len() > 2 {
            true => {
                let query = query.split("&page=").next().unwrap();
                let next = format!("{own}/repos/ada/hubs/{path}?{query}&page={}", page + 1);
                Answer::Linked(list, next)
            }
            false => Answer::Json(200, list),
        }
    };
    let number = |item: &str| {
        path.strip_prefix(item)
            .and_then(|it| it.parse::<usize>().ok())
    };
    let of_runs = path.strip_prefix("actions/");
    match of_runs.and_then(|it| state.runs.list(it, query)) {
        Some((runs, key @ "workflow_runs")) => return Answer::Json(200, json!({key: runs})),
        Some((jobs, key)) => return paged(&jobs, Some(key)),
        None => {}
    }
    match (request.method.as_str(), path) {
        ("GET", path) if path.starts_with("commits/") && path.ends_with("/pulls") => {
            let commit = path.split('/').nth(1).unwrap();
            let labels: Vec<_> = state
                .labels
                .get(commit)
                .into_iter()
                .flatten()
                .map(|it| json!({"name": it}))
                .collect();
            paged(
                &[
                    json!({"number": 3, "labels": []}),
                    json!({"number": 4, "labels": labels}),
                ],
                None,
            )
        }
        ("GET", "actions/runs/7/jobs") => paged(&state.jobs, Some("jobs")),
        ("GET", "actions/runs/7") => Answer::Json(
            200,
            json!({"head_sha": state.head, "run_started_at": "2026-11-26T16:50:00Z", "head_branch": "a&b", "head_repository": {"full_name": "eve/hubs", "owner": {"login": "eve"}}}),
        ),
        ("GET", "pulls") if query.contains("head=eve%3Aa%26b&") && query.contains("state=open") => {
            paged(
                &[
                    json!({"number": 5, "head": {"sha": "f00"}}),
                    json!({"number": 6, "head": {"sha": state.head_of_6}}),
                ],
                None,
            )
        }
        ("GET", "issues/5/comments" | "issues/6/comments") => paged(&state.comments, None),
        ("POST", "issues/5/comments" | "issues/6/comments") => match body["body"].as_str() {
            Some(text) if !text.is_empty() && text.len() <= 65_536 => {
                let comment = json!({"id": state.comments.len(), "body": text, "user": {"login": "github-actions[bot]"}});
                state.comments.push(comment.clone());
                Answer::Json(201, comment)
            }
            _ => refused(422, "Validation Failed"),
        },
        ("PATCH", _) => {
            match number("issues/comments/").and_then(|it| state.comments.get_mut(it)) {
                Some(comment) if comment["user"]["login"] == "github-actions[bot]" => {
                    comment["body"] = body["body"].clone();
                    Answer::Json(200, comment.clone())
                }
                _ => refused(403, "Must have admin rights to Repository."),
            }
        }
        _ => refused(404, "Not Found"),
    }
}

/// What the jobs of a push to this branch came to, in deploy-hubs.yaml or another workflow.
pub(crate) fn run(
    repo: &Repo,
    github: &GitHub,
    branch: &str,
    file: &str,
) -> BTreeMap<String, &'static str> {
    github.state().jobs.clear();
    let mut play = Play {
        repo,
        github,
        branch,
        prefix: String::new(),
        inputs: Value::Null,
        results: BTreeMap::new(),
        outputs: BTreeMap::new(),
    };
    play.workflow(file);
    let failed = play.results.values().any(|it| *it == "failure");
    let conclusion = if failed { "failure" } else { "success" };
    let mut state = github.state();
    let jobs = state.jobs.clone();
    let commit = git(&repo.root, &["rev-parse", "HEAD"]);
    state.runs.add(&commit, conclusion, &jobs);
    play.results
}

/// The same of those of a wave: the plan, its staging hubs, the filter before production, production, and the news.
fn push_of_wave(repo: &Repo, github: &GitHub, branch: &str, wave: u8) -> [&'static str; 5] {
    let results = run(repo, github, branch, "deploy-hubs.yaml");
    let of_wave = |job: &str| {
        let job = format!("wave-{wave}/{job}");
        results.get(&job).copied().unwrap_or("skipped")
    };
    let [staging, filter, prod] = ["staging", "filter-prod", "prod"].map(of_wave);
    [results["plan"], staging, filter, prod, results["notify"]]
}

fn push(repo: &Repo, github: &GitHub, branch: &str) -> [&'static str; 5] {
    push_of_wave(repo, github, branch, 1)
}

/// A repository in git, whose work tree has what workflows write.
pub(crate) fn with_history(repo: &Repo) {
    repo.write(".gitignore", "/output\n/comment-body.txt\n");
    git(&repo.root, &["init", "--quiet"]);
    commit(repo, "first");
}

#[test]
fn a_branch_deploys_nothing() {
    let repo = Repo::new();
    with_history(&repo);
    assert_eq!(push(&repo, &GitHub::start(), "a-branch"), ["skipped"; 5]);
}

/// Nobody's branch of that name deploys anything.
#[test]
fn promotion_is_off_unless_it_is_wanted() {
    let repo = Repo::new();
    with_history(&repo);
    let github = GitHub::start();
    let results = run(&repo, &github, "production", "promote.yaml");
    assert!(results.values().all(|it| *it == "skipped"), "{results:?}");
    github.state().promotes = true;
    assert_eq!(push(&repo, &github, "main"), ["skipped"; 5]);
}

/// Somebody learns of it also where nothing of ours runs.
#[test]
fn github_is_down() {
    let repo = Repo::new();
    with_history(&repo);
    let github = GitHub::start();
    github.state().is_down = true;
    assert_eq!(
        push(&repo, &github, "main"),
        ["failure", "skipped", "skipped", "skipped", "failure"],
        "{}",
        github.state().log
    );
    let text = "deploy-hubs of ada/hubs failed https://github.example.org/ada/hubs/actions/runs/7";
    assert_eq!(github.state().told, [json!({"text": text})]);
}

/// Two clusters, lake and river, which are one in truth: their hubs are deployed by pushes.
struct Pushes {
    cluster: Arc<Shared>,
    repo: Repo,
    github: GitHub,
}

/// One test, from top to bottom: each run deploys what came since each hub was deployed last.
#[test]
fn pushes_deploy_what_changed() {
    let pushes = Pushes::start();
    a_failed_staging_hub_holds_back_its_own_cluster(&pushes);
    only_what_failed_comes_back(&pushes);
    only_what_changed_is_deployed(&pushes);
    pull_requests_that_are_not_to_be_deployed(&pushes);
    a_bad_cluster_yaml_holds_back_its_own_cluster(&pushes);
    a_label_deploys_all_hubs(&pushes);
    a_failure_holds_back_later_waves(&pushes);
    a_freeze_holds_production(&pushes);
    a_label_where_nothing_was_deployed(&pushes);
}

impl Pushes {
    fn start() -> Pushes {
        let cluster = Shared::cluster();
        let repo = Repo::on(&cluster, &["wf-lake-staging", "wf-lake"]);
        fs::copy(
            &cluster.kubeconfig,
            repo.root.join("config/clusters/river/kubeconfig.yaml"),
        )
        .unwrap();
        let yaml = repo
            .read("config/clusters/lake/cluster.yaml")
            .replace("lake", "river");
        repo.write("config/clusters/river/cluster.yaml", &yaml);
        for file in ["common", "wf-river", "wf-river-staging"] {
            repo.write(&format!("config/clusters/river/{file}.values.yaml"), "{}\n");
        }
        repo.write(
            "config/clusters/lake/wf-lake-staging.values.yaml",
            "fail: no water\n",
        );
        with_history(&repo);
        Pushes {
            cluster,
            repo,
            github: GitHub::start(),
        }
    }

    fn play(&self) -> [&'static str; 5] {
        push(&self.repo, &self.github, "main")
    }

    fn log(&self) -> String {
        self.github.state().log.clone()
    }

    fn namespaces(&self) -> String {
        self.cluster.kubectl("get namespaces -o name")
    }

    /// The pull request that brought a commit has labels.
    fn label(&self, commit: String, labels: Vec<&'static str>) {
        self.github.state().labels.insert(commit, labels);
    }
}

/// And no other hubs.
fn a_failed_staging_hub_holds_back_its_own_cluster(pushes: &Pushes) {
    let results = pushes.play();
    let said = pushes.log();
    assert_eq!(
        results,
        ["success", "failure", "success", "success", "success"],
        "{said}"
    );
    let namespaces = pushes.namespaces();
    assert!(
        namespaces.contains("/wf-river\n") && !namespaces.contains("/wf-lake\n"),
        "{said}"
    );
    assert!(
        said.contains("lake/wf-lake: held back, since `lake/wf-lake-staging` did not go well"),
        "{said}"
    );
    let told = pushes.github.state().told.clone();
    let text = "deploy-hubs of ada/hubs failed: wave 1 / lake/wf-lake-staging\nhttps://github.example.org/ada/hubs/actions/runs/7";
    assert_eq!(told, [json!({"text": text})]);
}

/// With the hub that waited for it. The river went well.
fn only_what_failed_comes_back(pushes: &Pushes) {
    let Pushes { cluster, repo, .. } = pushes;
    repo.write("config/clusters/lake/wf-lake-staging.values.yaml", "{}\n");
    commit(repo, "water");
    assert_eq!(
        pushes.play(),
        ["success", "success", "skipped", "success", "skipped"],
        "{}",
        pushes.log()
    );
    assert!(pushes.namespaces().contains("/wf-lake\n"));
    assert!(
        !cluster.history("wf-river").contains("\n2 "),
        "{}",
        cluster.history("wf-river")
    );
}

fn only_what_changed_is_deployed(pushes: &Pushes) {
    let Pushes { cluster, repo, .. } = pushes;
    repo.write(
        "config/clusters/lake/wf-lake-staging.values.yaml",
        "note: new\n",
    );
    commit(repo, "only staging");
    assert_eq!(
        pushes.play(),
        ["success", "success", "skipped", "skipped", "skipped"],
        "{}",
        pushes.log()
    );
    assert!(
        cluster.history("wf-lake-staging").contains("\n2 "),
        "{}",
        cluster.history("wf-lake-staging")
    );
    assert!(!cluster.history("wf-river").contains("\n2 "));
}

/// Also when another one came after it.
fn pull_requests_that_are_not_to_be_deployed(pushes: &Pushes) {
    let Pushes { cluster, repo, .. } = pushes;
    repo.write(
        "config/clusters/river/wf-river-staging.values.yaml",
        "note: not now\n",
    );
    let skipped = commit(repo, "labelled");
    pushes.label(skipped, vec!["bug", "deployer:skip-deploy"]);
    repo.write("docs/guide.md", "# Hubs\n");
    let another = commit(repo, "another");
    pushes.label(another, vec!["deployer:unknown"]);
    assert_eq!(
        pushes.play(),
        ["success", "skipped", "skipped", "skipped", "skipped"],
        "{}",
        pushes.log()
    );
    assert!(
        pushes
            .log()
            .contains("there is no label `deployer:unknown`"),
        "{}",
        pushes.log()
    );
    assert!(
        !cluster.history("wf-river-staging").contains("\n2 "),
        "{}",
        cluster.history("wf-river-staging")
    );
}

/// The run fails, and the jobs of the others run.
fn a_bad_cluster_yaml_holds_back_its_own_cluster(pushes: &Pushes) {
    let Pushes { cluster, repo, .. } = pushes;
    let river = "config/clusters/river/cluster.yaml";
    repo.edit(river, "provider:", "povider:");
    repo.write("config/clusters/lake/wf-lake.values.yaml", "note: sun\n");
    commit(repo, "a slip");
    let results = pushes.play();
    assert_eq!(
        results,
        ["failure", "success", "skipped", "success", "success"],
        "{}",
        pushes.log()
    );
    assert!(
        cluster.history("wf-lake").contains("\n2 "),
        "{}",
        cluster.history("wf-lake")
    );
    assert!(!cluster.history("wf-river").contains("\n2 "));
    repo.edit(river, "povider:", "provider:");
    commit(repo, "mended");
}

fn a_label_deploys_all_hubs(pushes: &Pushes) {
    let Pushes { cluster, repo, .. } = pushes;
    let forced = commit(repo, "all of them");
    pushes.label(forced, vec!["deployer:deploy-hubs"]);
    assert_eq!(
        pushes.play(),
        ["success", "success", "skipped", "success", "skipped"],
        "{}",
        pushes.log()
    );
    assert!(!cluster.history("wf-river").contains("\n2 "));
}

/// The clusters of the second wave wait for production of the first one.
fn a_failure_holds_back_later_waves(pushes: &Pushes) {
    let Pushes {
        cluster,
        repo,
        github,
    } = pushes;
    let river = "config/clusters/river/cluster.yaml";
    repo.edit(river, "hubs:", "wave: 3\nhubs:");
    let values = |hub: &str, text: &str| {
        let lake = format!("config/clusters/lake/{hub}.values.yaml");
        repo.write(&lake, text);
    };
    values("wf-lake", "fail: no sun\n");
    repo.write(
        "config/clusters/river/wf-river.values.yaml",
        "note: third\n",
    );
    commit(repo, "waves");
    let results = push_of_wave(repo, github, "main", 3);
    let skipped = "skipped";
    assert_eq!(
        results,
        ["success", skipped, skipped, skipped, "success"],
        "{}",
        pushes.log()
    );
    assert!(!cluster.history("wf-river").contains("\n2 "));
    values("wf-lake", "note: sun again\n");
    commit(repo, "sun");
    let results = push_of_wave(repo, github, "main", 3);
    assert_eq!(
        results,
        ["success", "success", skipped, "success", skipped],
        "{}",
        pushes.log()
    );
    assert!(cluster.history("wf-river").contains("\n2 "));
}

/// What was merged meanwhile is deployed by the first run after its end, but for a pull request that says so.
fn a_freeze_holds_production(pushes: &Pushes) {
    let Pushes {
        cluster,
        repo,
        github,
    } = pushes;
    let settings = "config/xtask.yaml";
    let text = format!(
        "freeze: [{{from: {0}, until: {0}, reason: exams}}]\n",
        day("now")
    );
    repo.write(settings, &text);
    repo.write("config/clusters/lake/wf-lake.values.yaml", "note: frozen\n");
    commit(repo, "in the freeze");
    let results = run(repo, github, "main", "deploy-hubs.yaml");
    let log = pushes.log();
    assert_eq!(
        [results["held-back"], results["wave-1"]],
        ["success", "skipped"],
        "{log}"
    );
    // Nor is it forgotten by a run of others.
    repo.write(
        "config/clusters/river/wf-river.values.yaml",
        "note: urgent\n",
    );
    let urgent = commit(repo, "urgent");
    pushes.label(urgent, vec!["deployer:ignore-freeze"]);
    run(repo, github, "main", "deploy-hubs.yaml");
    let history = cluster.history("wf-river");
    assert!(
        history.contains("freeze ignored: label deployer:ignore-freeze"),
        "{history}"
    );
    let before = cluster.history("wf-lake").lines().count();
    repo.write(settings, &text.replace(&day("now"), &day("yesterday")));
    commit(repo, "after it");
    let results = run(repo, github, "main", "deploy-hubs.yaml");
    let log = pushes.log();
    assert_eq!(
        [results["held-back"], results["wave-1/prod"]],
        ["skipped", "success"],
        "{log}"
    );
    assert_eq!(cluster.history("wf-lake").lines().count(), before + 1);
}

/// Today, for example.
pub(crate) fn day(which: &str) -> String {
    let output = Command::new("date")
        .args(["-u", "+%F", "-d", which])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// It says that all is deployed.
fn a_label_where_nothing_was_deployed(pushes: &Pushes) {
    pushes.github.state().runs = Runs::default();
    let adopted = commit(&pushes.repo, "these workflows");
    pushes.label(adopted, vec!["deployer:skip-deploy"]);
    assert_eq!(
        pushes.play(),
        ["success", "skipped", "skipped", "skipped", "skipped"],
        "{}",
        pushes.log()
    );
}

/// The repository of a run that comments a pull request.
struct Commenter {
    repo: Repo,
    github: GitHub,
}

/// What others wrote before.
const OTHERS: [&str; 2] = ["First!", "<!-- deployment-plan --> by me, too"];

impl Commenter {
    fn start() -> Commenter {
        let github = GitHub::start();
        let mut repo = Repo::new();
        repo.env.extend(
            github
                .variables()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        for (name, value) in [
            ("GITHUB_TOKEN", "of-the-run"),
            ("RUN_ID", "7"),
            // Where the workflow unpacks the artifact.
            ("PLAN_FOLDER", "artifact"),
            ("CI", "true"),
        ] {
            repo.env.push((name.to_owned(), value.to_owned()));
        }
        github.state().comments = OTHERS
            .map(|it| json!({"id": 0, "body": it, "user": {"login": "eve"}}))
            .to_vec();
        github.state().head = "f00".to_owned();
        Commenter { repo, github }
    }

    /// Makes the artifact of a run for these changes.
    fn plan(&self, changed: &str) {
        self.repo
            .ok(&format!("generate helm-upgrade-jobs {changed}"));
        let comment = self.repo.read("comment-body.txt");
        self.repo.write("artifact/comment-body.txt", &comment);
    }

    fn post(&self) -> String {
        self.repo.ok("github comment-plan").stderr
    }

    fn fails(&self) -> String {
        self.repo.fails("github comment-plan")
    }

    fn comments(&self) -> Vec<String> {
        self.github
            .state()
            .comments
            .iter()
            .map(|it| it["body"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn a_run_without_a_plan_comments_nothing() {
    let commenter = Commenter::start();
    assert!(
        commenter
            .post()
            .contains("run 7 left no plan: there is nothing to post")
    );
}

#[test]
fn a_pull_request_has_one_comment() {
    let commenter = Commenter::start();
    // Nothing to say, and nothing said before.
    commenter.plan("README.md");
    commenter.post();
    assert_eq!(commenter.comments(), OTHERS);
    commenter.plan("config/clusters/lake/prod.values.yaml");
    commenter.post();
    let comments = commenter.comments();
    assert_eq!(comments.len(), 3);
    assert!(comments[2].contains("| lake | prod |"), "{comments:?}");
    // What others wrote stays theirs, and ours is the same one.
    commenter.plan("README.md");
    commenter.post();
    let comments = commenter.comments();
    assert_eq!(comments[..2], OTHERS);
    assert!(
        comments[2].contains("No production hub upgrades will be triggered"),
        "{comments:?}"
    );
    assert_eq!(comments.len(), 3);
}

#[test]
fn a_comment_names_each_staging_hub_the_commit_and_the_run() {
    let commenter = Commenter::start();
    commenter.repo.edit(
        "config/clusters/lake/cluster.yaml",
        "  - name: prod",
        "  - name: test\n    stage: staging\n    domain: test.example.org\n    helm_chart: pond\n    \
         helm_chart_values_files: [common.values.yaml, staging.values.yaml]\n  - name: prod",
    );
    commenter.plan("config/clusters/lake/staging.values.yaml");
    commenter.post();
    let comment = &commenter.comments()[2];
    let reason = "Following helm chart values files were modified: staging.values.yaml";
    for hub in ["staging", "test"] {
        let row = format!("| kubeconfig | lake | {hub} | {reason} |\n");
        assert!(comment.contains(&row), "{comment}");
    }
    let source = "<!-- deployment-plan -->\n<sub>Written by the code of the fork eve/hubs, at commit f00, in \
                  [run 7](https://github.example.org/ada/hubs/actions/runs/7) of 2026-11-26 16:50:00 UTC</sub>\n";
    assert!(comment.starts_with(source), "{comment}");
}

/// Whoever made the pull request may write anything there.
#[test]
fn a_comment_mentions_nobody_and_links_nothing() {
    let commenter = Commenter::start();
    let plan = "<!-- deployment-plan -->\n# Hi @ada, see #1 <img src=x> [here](https://evil.example) www.evil.example\n\
                ### Approved by @ada\n| a | https://evil.example `x` |\n&#64;ada \\&#64;ada @<!-- -->ada";
    commenter.repo.write("artifact/comment-body.txt", plan);
    commenter.post();
    let comment = &commenter.comments()[2];
    let (_, text) = comment.split_once("</sub>\n").unwrap();
    let expected = "\n&#35;&#8203; Hi &#64;&#8203;ada, see &#35;&#8203;1 &#60;img src=x&#62; \\[here\\]\\(https:&#8203;//evil.example\\) \
                    www&#8203;.evil.example\n### Approved by &#64;&#8203;ada\n\
                    | a | https:&#8203;//evil.example \\`x\\` |\n\
                    &#64;&#8203;ada \\\\&#64;&#8203;ada &#64;&#8203;&#60;\\!-- --&#62;ada";
    assert_eq!(text, expected);
}

/// A name that means something in Markdown is the same text there after both programs.
#[test]
fn a_comment_has_names_as_they_are() {
    let commenter = Commenter::start();
    let file = "config/clusters/lake/a_b*@ada#1|`.values.yaml";
    commenter.repo.edit(
        "config/clusters/lake/cluster.yaml",
        "prod.values.yaml",
        "'a_b*@ada#1|`.values.yaml'",
    );
    commenter.repo.write(file, "{}");
    commenter.plan(file);
    commenter.post();
    let name = r"a\_b\*&#64;&#8203;ada&#35;&#8203;1&#124;\`.values.yaml |";
    let comment = &commenter.comments()[2];
    assert!(comment.contains(name), "{comment}");
}

#[test]
fn a_branch_with_two_pull_requests() {
    let commenter = Commenter::start();
    commenter.github.state().head_of_6 = "f00";
    commenter.plan("config/clusters/lake/prod.values.yaml");
    let number = |text: &str| commenter.repo.write("artifact/pull-request.txt", text);
    assert!(commenter.fails().contains("it has no `pull-request.txt`"));
    number("4\n");
    let said = commenter.fails();
    let expected = "`pull-request.txt` names none of the pull requests `5`, `6`, which are open for this commit";
    assert!(said.contains(expected), "{said}");
    number("6\n");
    let said = commenter.post();
    assert!(
        said.contains("pull request 6 has the plan of run 7"),
        "{said}"
    );
}

/// Anybody may put one there.
#[test]
fn artifacts_that_are_no_plan() {
    let commenter = Commenter::start();
    let repo = &commenter.repo;
    let file = repo.root.join("artifact/comment-body.txt");
    let refused = |part: &str| {
        let said = commenter.fails();
        assert!(said.contains("the artifact of run 7: "), "{said}");
        assert!(said.contains(part), "{said}");
    };
    repo.write("artifact/comment-body.txt", "Give me your password");
    refused("it has no plan in `comment-body.txt`");
    let long = format!("<!-- deployment-plan -->{}", "x".repeat(65_536));
    repo.write("artifact/comment-body.txt", &long);
    refused("it has no plan in `comment-body.txt`");
    fs::remove_file(&file).unwrap();
    refused("it has no `comment-body.txt`");
    repo.write("secret", "<!-- deployment-plan --> of the runner's own");
    std::os::unix::fs::symlink(repo.root.join("secret"), &file).unwrap();
    refused("`comment-body.txt` is a link");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused("`comment-body.txt` is not a file");
    assert_eq!(commenter.comments(), OTHERS);
}

#[test]
fn a_pull_request_with_a_newer_commit() {
    let commenter = Commenter::start();
    commenter.plan("README.md");
    commenter.github.state().head = "pushed since".to_owned();
    assert!(
        commenter
            .post()
            .contains("belongs to no open pull request any more")
    );
}

#[test]
fn a_comment_needs_the_token_of_the_run() {
    let mut commenter = Commenter::start();
    commenter.plan("README.md");
    let env = &mut commenter.repo.env;
    env.retain(|(name, _)| name != "GITHUB_TOKEN");
    assert!(commenter.fails().contains("`GITHUB_TOKEN` is not set"));
    let guessed = ("GITHUB_TOKEN".to_owned(), "guessed".to_owned());
    commenter.repo.env.push(guessed);
    assert!(
        commenter
            .fails()
            .contains("GitHub answers 401 Unauthorized: Requires authentication")
    );
}
