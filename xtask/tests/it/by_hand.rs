//! What a person starts by hand in CI, with the variables that the workflow and the pipeline set.

use std::{env, fs, os::unix::process::CommandExt, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    generate::{commit, git},
    repo::{Key, Ran, Repo, Shared, wait_until, workspace},
    stop::{leases, newest},
};

/// What a job of GitHub's has besides.
const GITHUB: [(&str, &str); 4] = [
    ("CI", "true"),
    ("GITHUB_ACTIONS", "true"),
    ("GITHUB_ACTOR", "bob"),
    ("GITHUB_TRIGGERING_ACTOR", "ann"),
];

/// What a job of GitLab's has besides.
const GITLAB: [(&str, &str); 3] = [
    ("CI", "true"),
    ("GITLAB_CI", "true"),
    ("GITLAB_USER_LOGIN", "ann"),
];

fn file(path: &str) -> Value {
    serde_yaml::from_str(&fs::read_to_string(workspace().join(path)).unwrap()).unwrap()
}

/// Runs the lines of a step as a runner does, with these variables.
fn step(repo: &Repo, lines: &str, variables: &[(String, String)]) -> Ran {
    let program = Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap();
    let path = format!("{}:{}", program.display(), env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command
        .args(["-e", "-o", "pipefail", "-c", lines])
        .current_dir(&repo.root)
        .env_clear()
        .env("PATH", path)
        .env("HOME", repo.home())
        .env("XDG_CACHE_HOME", repo.cache())
        .env("GIT_CEILING_DIRECTORIES", env!("CARGO_TARGET_TMPDIR"))
        .envs(variables.iter().cloned())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    command.spawn().unwrap().into()
}

/// The step of a job of the workflow that calls us, with its variables for these inputs.
fn step_of(job: &Value, inputs: &[(&str, &str)], cluster: &str) -> (String, Vec<(String, String)>) {
    let mut steps = job["steps"].as_array().unwrap().iter();
    let step = steps.find(|it| it["run"].is_string()).unwrap();
    let mut variables = Vec::new();
    for (name, value) in step["env"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        let value = value
            .strip_prefix("${{ ")
            .and_then(|it| it.strip_suffix(" }}"));
        let value = match value.unwrap().split_once('.').unwrap() {
            // Promotion by branches is off.
            ("vars", _) => "",
            ("inputs", input) => inputs.iter().find(|it| it.0 == input).map_or("", |it| it.1),
            ("matrix", "jobs.cluster_name") => cluster,
            ("secrets", _) => "",
            other => panic!("{other:?}"),
        };
        variables.push((name.clone(), value.to_owned()));
    }
    (step["run"].as_str().unwrap().to_owned(), variables)
}

/// A run of the workflow with these inputs: the check, and then the jobs that it lists, as long as they succeed.
fn on_github(repo: &Repo, inputs: &[(&str, &str)]) -> Ran {
    let workflow = file(".github/workflows/by-hand.yaml");
    let run = |job: &str, cluster: &str| {
        let (lines, mut variables) = step_of(&workflow["jobs"][job], inputs, cluster);
        let output = repo.root.join("output").display().to_string();
        variables.extend(GITHUB.map(|(name, value)| (name.to_owned(), value.to_owned())));
        variables.push(("GITHUB_OUTPUT".to_owned(), output));
        step(repo, &lines, &variables)
    };
    repo.write("output", "");
    let mut ran = run("plan", "");
    let output = repo.read("output");
    let jobs = output.lines().find(|it| it.starts_with('['));
    let jobs: Value = serde_json::from_str(jobs.unwrap_or("[]")).unwrap();
    for job in jobs.as_array().unwrap() {
        if ran.code == Some(0) {
            let next = run("by-hand", job["cluster_name"].as_str().unwrap());
            ran.code = next.code;
            ran.stdout += &next.stdout;
            ran.stderr += &next.stderr;
        }
    }
    ran
}

/// The job of a pipeline that was started with these variables.
fn on_gitlab(repo: &Repo, variables: &[(&str, &str)]) -> Ran {
    let pipeline = file(".gitlab-ci.yml");
    let mut all: Vec<_> = GITLAB
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    for (name, variable) in pipeline["variables"].as_object().unwrap() {
        let given = variables.iter().find(|it| it.0 == name).map(|it| it.1);
        let value = given.or(variable["value"].as_str()).unwrap();
        all.push((name.clone(), value.to_owned()));
    }
    assert_eq!(pipeline["by-hand"]["script"], json!(["xtask by-hand"]));
    step(repo, "xtask by-hand", &all)
}

fn succeeds(ran: Ran) -> String {
    let said = ran.stdout + &ran.stderr;
    assert_eq!(ran.code, Some(0), "{said}");
    said
}

fn fails(ran: Ran) -> String {
    let said = ran.stdout + &ran.stderr;
    assert_eq!(ran.code, Some(1), "{said}");
    said
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// A repository in git with these hubs on the shared cluster.
fn in_git(cluster: &Shared, hubs: &[&str]) -> Repo {
    let repo = Repo::on(cluster, hubs);
    fs::remove_dir_all(repo.root.join("config/clusters/river")).unwrap();
    repo.write(".gitignore", "/output\n");
    git(&repo.root, &["init", "--quiet"]);
    commit(&repo, "first");
    repo
}

/// One test, from top to bottom: each action on what the one before has left.
#[test]
fn each_action() {
    let cluster = Shared::cluster();
    let repo = in_git(&cluster, &["hand-staging", "hand-prod"]);
    deploying(&cluster, &repo);
    looking(&repo);
    going_back(&cluster, &repo);
    going_on_without_staging(&cluster, &repo);
}

fn note(cluster: &Shared, hub: &str) -> String {
    cluster.kubectl(&format!(
        "get configmap pond -n {hub} -o jsonpath={{.data.note}}"
    ))
}

fn set_note(repo: &Repo, note: &str) -> String {
    repo.write(
        "config/clusters/lake/hand-prod.values.yaml",
        &format!("note: {note}\n"),
    );
    commit(repo, note)
}

fn deploying(cluster: &Shared, repo: &Repo) {
    // Whatever a reason looks like, it is only text.
    let reason =
        "`x` $(touch pwned), a=b,c\n::set-output name=jobs::[]\u{1b}[31m\t--delete-volumes";
    let said = succeeds(on_github(
        repo,
        &[
            ("action", "deploy"),
            ("cluster", "lake"),
            ("reason", reason),
        ],
    ));
    has(&said, &["hand-staging: deployed", "hand-prod: deployed"]);
    let history = cluster.history("hand-prod");
    let kept = "reason: `x` $(touch pwned), a=b,c ::set-output name=jobs::[] [31m --delete-volumes";
    has(&history, &["deployed by ann, commit ", kept]);
    assert!(!repo.root.join("pwned").exists());
    // Without names only what would change is deployed.
    set_note(repo, "new");
    let said = succeeds(on_github(
        repo,
        &[("action", "deploy"), ("cluster", "lake")],
    ));
    has(&said, &["hand-staging: unchanged", "hand-prod: deployed"]);
    let named = [
        ("ACTION", "deploy"),
        ("CLUSTER", "lake"),
        ("HUBS", "hand-staging"),
        ("REASON", "why not"),
    ];
    has(
        &succeeds(on_gitlab(repo, &named)),
        &["hand-staging         deployed"],
    );
    has(
        &cluster.history("hand-staging"),
        &["\n2 ", "reason: why not"],
    );
    let support = [("ACTION", "deploy-support"), ("CLUSTER", "lake")];
    has(
        &succeeds(on_gitlab(repo, &support)),
        &["has no `support`: nothing to do"],
    );
    // All clusters, and all of their hubs.
    let said = succeeds(on_github(repo, &[("action", "deploy-everything")]));
    has(
        &said,
        &[
            "nothing to do",
            "hand-staging: deployed",
            "hand-prod: deployed",
        ],
    );
    has(&cluster.history("hand-prod"), &["\n3 "]);
}

fn looking(repo: &Repo) {
    let said = succeeds(on_github(repo, &[("action", "status")]));
    has(&said, &["hand-staging", "hand-prod"]);
    let two = [
        ("ACTION", "status"),
        ("CLUSTER", "lake"),
        ("HUBS", "hand-prod, hand-staging hand-prod"),
    ];
    let said = succeeds(on_gitlab(repo, &two));
    has(
        &said,
        &[
            "xtask status -- lake hand-prod\n",
            "xtask status -- lake hand-staging\n",
        ],
    );
    assert_eq!(said.matches("xtask status").count(), 2, "{said}");
    // Each hub is checked, whatever became of the one before.
    let said = fails(on_github(
        repo,
        &[("action", "health-check"), ("cluster", "lake")],
    ));
    has(
        &said,
        &[
            "nobody can check `hand-staging`",
            "nobody can check `hand-prod`",
        ],
    );
}

fn going_back(cluster: &Shared, repo: &Repo) {
    let inputs = [
        ("action", "rollback"),
        ("cluster", "lake"),
        ("hubs", "hand-prod"),
        ("revision", "1"),
        ("reason", "users lost their notes"),
    ];
    let ran = on_github(repo, &inputs);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    has(&ran.stdout, &["hand-prod is as in revision 1, and ready\n"]);
    assert_eq!(note(cluster, "hand-prod"), "");
    has(
        &cluster.history("hand-prod"),
        &[
            "xtask rolled back to revision 1 by ann",
            "reason: users lost their notes",
        ],
    );
}

fn going_on_without_staging(cluster: &Shared, repo: &Repo) {
    repo.write(
        "config/clusters/lake/hand-staging.values.yaml",
        "fail: because\n",
    );
    commit(repo, "a bad staging hub");
    let said = fails(on_gitlab(
        repo,
        &[("ACTION", "deploy"), ("CLUSTER", "lake")],
    ));
    has(
        &said,
        &[
            "held back: `hand-prod`\n\nhint: a pipeline with the variable `OPTIONS=ignore-staging` and a reason deploys them all the same",
        ],
    );
    let inputs = [
        ("action", "deploy"),
        ("cluster", "lake"),
        ("options", "ignore-staging, skip-hub-health-check"),
        ("reason", "-- it burns"),
    ];
    has(
        &fails(on_github(repo, &inputs)),
        &["1 of 2 hubs of `lake` failed: `hand-staging`"],
    );
    assert_eq!(note(cluster, "hand-prod"), "new");
    let history = cluster.history("hand-prod");
    has(&history, &["staging ignored: -- it burns"]);
    assert!(!history.contains("reason: -- it burns"), "{history}");
}

/// The variables of a request, in the order of `NAMES`.
const NAMES: [&str; 6] = ["ACTION", "CLUSTER", "HUBS", "OPTIONS", "REVISION", "REASON"];

fn refused(repo: &Repo, values: [&str; 6]) -> String {
    let variables: Vec<_> = NAMES.into_iter().zip(values).collect();
    fails(on_gitlab(repo, &variables))
}

#[test]
fn what_does_not_fit() {
    let repo = Repo::new();
    let all = "`ignore-staging`, `skip-hub-health-check`, `ignore-freeze`, `force-older`, `heal`, `take-over`, \
               `force-conflicts`";
    for (values, message) in [
        (
            ["", "", "", "", "", ""],
            "there is no action ``; there are: `deploy`, `deploy-support`, ",
        ),
        (
            ["retire", "lake", "prod", "", "", ""],
            "there is no action `retire`",
        ),
        (
            ["Deploy", "lake", "", "", "", ""],
            "there is no action `Deploy`",
        ),
        (
            ["deploy", "", "", "", "", ""],
            "`CLUSTER` is empty, and this is for one cluster; there are: `lake`, `river`",
        ),
        (["deploy-support", "", "", "", "", ""], "`CLUSTER` is empty"),
        (["status", "", "prod", "", "", ""], "`CLUSTER` is empty"),
        (
            ["deploy-everything", "", "", "take-over=pond", "", "why"],
            "`CLUSTER` is empty",
        ),
        (
            ["deploy", "lake river", "", "", "", ""],
            "`CLUSTER` may name one cluster, and has `lake`, `river`",
        ),
        (
            ["deploy", "sea", "", "", "", ""],
            "there are: `lake`, `river`",
        ),
        (
            ["deploy", "lake", "prod sea", "", "", ""],
            "cluster `lake` has no hub `sea`; it has: `staging`, `prod`",
        ),
        (
            ["health-check", "lake", "support", "", "", ""],
            "cluster `lake` has no hub `support`",
        ),
        (
            ["deploy-everything", "lake", "prod", "", "", ""],
            "takes no hubs, and `HUBS` has `prod`",
        ),
        (
            ["deploy-support", "lake", "prod", "", "", ""],
            "takes no hubs",
        ),
        (["rollback", "lake", "", "", "", ""], "and `HUBS` has 0"),
        (
            ["rollback", "lake", "staging prod", "", "", ""],
            "and `HUBS` has 2",
        ),
        (
            ["rollback", "lake", "prod", "", "two", ""],
            "`REVISION` is no revision's number: `two`",
        ),
        (
            ["rollback", "lake", "prod", "", "-1", ""],
            "`REVISION` is no revision's number: `-1`",
        ),
        (
            ["deploy", "lake", "prod", "", "2", ""],
            "takes no `REVISION`",
        ),
        (
            ["deploy", "lake", "", "ignore-staging", "", " \n"],
            "the option `ignore-staging` needs a reason",
        ),
        (
            ["deploy", "lake", "", "force-older", "", ""],
            "the option `force-older` needs a reason",
        ),
        (
            ["deploy-support", "lake", "", "ignore-freeze", "", ""],
            "the option `ignore-freeze` needs a reason",
        ),
        (
            ["deploy", "lake", "", "take-over=pond", "", ""],
            "the option `take-over` needs a reason",
        ),
        (
            ["deploy", "lake", "", "take-over", "", "why"],
            "`take-over=NAME`, and this is `take-over`",
        ),
        (
            ["deploy", "lake", "", "heal=yes", "", ""],
            "and this is `heal=yes`",
        ),
        (
            ["deploy", "lake", "", "heal heal", "", ""],
            "the option `heal` is there twice",
        ),
        (["deploy", "lake", "", "hael", "", ""], all),
        (["deploy", "lake", "", "yes", "", ""], all),
        (
            ["rollback", "lake", "prod", "heal", "", ""],
            "does not take the option `heal`: it takes only `force-conflicts`",
        ),
        (
            ["deploy-support", "lake", "", "ignore-staging", "", "why"],
            "does not take the option `ignore-staging`",
        ),
        (
            ["status", "lake", "", "heal", "", ""],
            "does not take the option `heal`: it takes no options",
        ),
        (
            ["health-check", "lake", "", "skip-hub-health-check", "", ""],
            "it takes no options",
        ),
    ] {
        let said = refused(&repo, values);
        assert!(
            said.contains(message),
            "{values:?}: no {message:?} in {said}"
        );
    }
}

/// None of these is a name, and nothing is done with them but to say so.
#[test]
fn what_is_no_name() {
    let repo = Repo::new();
    let good = ["deploy", "lake", "prod", "heal", "", "why"];
    let bad = [
        "--help",
        "-x",
        "--delete-volumes",
        "--delete-volumes=hub-db-dir",
        "retire",
        "lake;touch${IFS}pwned",
        "$(touch pwned)",
        "`touch pwned`",
        "|| touch pwned",
        "../lake",
        "lake\n::set-output name=jobs::[]",
        "\u{1b}]0;title\u{7}",
        "take-over=--delete-volumes",
        "take-over=a/b",
        "%0A::error::x",
    ];
    for position in 0..5 {
        for text in bad {
            let mut values = good;
            values[position] = text;
            let names = ["action", "cluster", "hubs", "options", "revision", "reason"];
            let inputs: Vec<_> = names.into_iter().zip(values).collect();
            let said = fails(on_github(&repo, &inputs));
            assert!(said.starts_with("error: "), "{values:?}: {said}");
            assert!(!said.contains('\u{1b}') && !said.contains("\n::"), "{said}");
        }
    }
    assert!(!repo.root.join("pwned").exists());
}

/// A folder may be called anything.
#[test]
fn a_cluster_that_is_called_like_an_option() {
    let repo = Repo::new();
    let yaml = repo
        .read("config/clusters/lake/cluster.yaml")
        .replace("lake", "--help");
    repo.write("config/clusters/--help/cluster.yaml", &yaml);
    let said = fails(on_gitlab(
        &repo,
        &[("ACTION", "deploy"), ("CLUSTER", "--help")],
    ));
    assert!(!said.contains("Usage:"), "{said}");
}

/// Clusters whose cluster.yaml has problems are told at the end, and the others are served.
#[test]
fn a_cluster_with_problems_among_all() {
    let repo = Repo::new();
    repo.write(
        "config/clusters/river/cluster.yaml",
        "name: river\nprovider: gpc\n",
    );
    repo.write("output", "");
    let said = fails(on_github(&repo, &[("action", "status")]));
    has(&said, &["river", "provider"]);
    let jobs = repo.read("output");
    has(
        &jobs,
        &["[{\"cluster_name\":\"lake\",\"provider\":\"kubeconfig\"}]"],
    );
}

/// What is paused is named and left out, unless a person names it. Earlier waves come first.
#[test]
fn pauses_and_waves() {
    let repo = Repo::new();
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "hubs:\n",
        "wave: 2\nhubs:\n",
    );
    let paused = "paused: {until: 2999-12-01, reason: new nodes}";
    repo.edit(
        "config/clusters/lake/cluster.yaml",
        "  - name: prod",
        &format!(
            "  - name: old\n    {paused}\n    domain: old.example.org\n    helm_chart: pond\n    \
                  helm_chart_values_files: []\n  - name: prod"
        ),
    );
    let all = [("ACTION", "health-check")];
    let said = fails(on_gitlab(&repo, &all));
    let [river, lake] =
        ["check -- river", "check -- lake staging"].map(|it| said.find(it).unwrap());
    assert!(river < lake, "{said}");
    has(&said, &["lake/old: paused until 2999-12-01: new nodes\n"]);
    assert!(!said.contains("check -- lake old"), "{said}");
    let named = [
        ("ACTION", "health-check"),
        ("CLUSTER", "lake"),
        ("HUBS", "old"),
    ];
    has(
        &fails(on_gitlab(&repo, &named)),
        &["xtask run-hub-health-check -- lake old\n"],
    );
    repo.edit(
        "config/clusters/river/cluster.yaml",
        "hubs:\n",
        &format!("{paused}\nhubs:\n"),
    );
    let said = fails(on_gitlab(&repo, &all));
    has(&said, &["river: paused until 2999-12-01: new nodes\n"]);
    assert!(!said.contains("check -- river"), "{said}");
    for action in ["deploy", "deploy-everything", "health-check"] {
        let ran = on_gitlab(&repo, &[("ACTION", action), ("CLUSTER", "river")]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let paused = "river/prod: paused until 2999-12-01: new nodes\n";
        assert!(ran.stderr.contains(paused), "{}", ran.stderr);
        assert!(!ran.stderr.contains("xtask "), "{}", ran.stderr);
    }
}

/// Where groups promote by branches, each deploys its own hubs.
#[test]
fn a_branch_deploys_its_own_hubs() {
    let mut repo = Repo::new();
    let mut run = |stage: &str, action: &str, hubs: &str| {
        let variables = [
            ("STAGE", stage),
            ("ACTION", action),
            ("CLUSTER", "lake"),
            ("HUBS", hubs),
        ];
        repo.env = variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        fails(repo.run("by-hand"))
    };
    has(
        &run("staging", "deploy", "prod"),
        &["hub `prod` is not deployed from the branch `staging`"],
    );
    has(
        &run("production", "deploy", "staging"),
        &["hub `staging` is not deployed from the branch `production`"],
    );
    has(
        &run("production", "deploy-support", ""),
        &["support is deployed from the branch `staging`"],
    );
    has(
        &run("staging", "deploy", ""),
        &["xtask deploy --skip-unchanged -- lake staging\n"],
    );
    has(
        &run("production", "deploy", ""),
        &["xtask deploy --skip-unchanged -- lake prod\n"],
    );
    has(
        &run("staging", "rollback", "prod"),
        &["xtask rollback --yes -- lake prod\n"],
    );
}

/// A runner that cancels a job sends its signal to all processes at once: the deploy ends in order, and is not cut off.
#[test]
fn a_job_that_is_cancelled() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["cancelled"]);
    repo.write(
        "config/clusters/lake/cancelled.values.yaml",
        "fate: stuck\n",
    );
    let variables = [("ACTION", "deploy"), ("CLUSTER", "lake"), ("CI", "true")];
    repo.env = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let child = repo.command("by-hand").process_group(0).spawn().unwrap();
    wait_until("the release", || newest(&cluster, "cancelled").0 == 1);
    let group = format!("kill -TERM -{}", child.id());
    let sent = Command::new("bash").args(["-c", &group]).status();
    assert!(sent.unwrap().success());
    let said = fails(child.into());
    has(
        &said,
        &[
            "stopping; a second signal ends it at once\n",
            "1 of 1 hubs of `lake` failed: `cancelled`",
        ],
    );
    assert_eq!(leases(&cluster, "cancelled"), "");
}

/// Whoever gives a reason may know the secrets, and may not know who reads the history.
#[test]
fn a_secret_in_a_reason() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["reason"]);
    let file = "config/clusters/lake/reason.values.yaml";
    let key = Key::new();
    repo.write(file, "note: correct-horse-battery\n");
    repo.encrypt(file, &key);
    repo.has_key(&key);
    let reason = "it said correct-horse-battery to all";
    repo.env
        .push(("XTASK_REASON".to_owned(), reason.to_owned()));
    let mut deploy = repo.command("deploy lake --ignore-staging");
    assert!(deploy.arg(reason).status().unwrap().success());
    let history = cluster.history("reason");
    has(&history, &["staging ignored: it said *** to all"]);
    assert!(
        !history.contains("horse") && !history.contains("reason: "),
        "{history}"
    );
    repo.ok("deploy lake");
    has(&cluster.history("reason"), &["reason: it said *** to all"]);
    repo.ok("rollback lake reason 1 --yes");
    assert!(!cluster.history("reason").contains("horse"));
}

#[test]
fn a_freeze() {
    let cluster = Shared::cluster();
    let repo = in_git(&cluster, &["hand-frozen"]);
    let freeze = "freeze: [{from: 2000-01-01, until: 2999-12-31, reason: exams}]\n";
    repo.write("config/xtask.yaml", freeze);
    commit(&repo, "a freeze");
    let deploy = [("action", "deploy"), ("cluster", "lake")];
    let said = fails(on_github(&repo, &deploy));
    has(
        &said,
        &[
            "exams",
            "the workflow `by-hand` with the option `ignore-freeze` and a reason deploys",
        ],
    );
    let past = [
        ("options", "ignore-freeze"),
        ("reason", "the exam's own hub"),
    ];
    succeeds(on_github(&repo, &[deploy, past].concat()));
    let history = cluster.history("hand-frozen");
    has(&history, &["freeze ignored: the exam's own hub"]);
    assert!(!history.contains("reason: "), "{history}");
}

/// What a refusal names as the way past it is what the reader can do there.
#[test]
fn hints_say_what_can_be_done_there() {
    let cluster = Shared::cluster();
    let mut repo = in_git(&cluster, &["hint"]);
    let terminal = repo.env.clone();
    let first = git(&repo.root, &["rev-parse", "HEAD"]);
    repo.write("config/clusters/lake/hint.values.yaml", "note: new\n");
    commit(&repo, "newer");
    repo.ok("deploy lake");
    git(&repo.root, &["checkout", "--quiet", &first]);
    let places = [
        ("", &[][..]),
        ("github", &GITHUB[..]),
        ("gitlab", &GITLAB[..]),
    ];
    for (place, variables) in places {
        repo.env = terminal.clone();
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        repo.env.extend(variables);
        for (command, at_terminal, on_github, on_gitlab) in [
            (
                "deploy lake",
                "hint: `--force-older` deploys it all the same",
                "hint: the workflow `by-hand` with the option `force-older` and a reason deploys it all the same",
                "hint: a pipeline with the variable `OPTIONS=force-older` and a reason deploys it all the same",
            ),
            (
                "rollback lake hint 1",
                "cannot ask without a terminal; pass `--yes`",
                "cannot ask in CI\n\nhint: the workflow `by-hand` with the action `rollback` does not ask",
                "cannot ask in CI\n\nhint: a pipeline with the variable `ACTION=rollback` does not ask",
            ),
            (
                "deploy lake --diff --force-older",
                "cannot ask without a terminal; pass `--yes`",
                "hint: the workflow `by-hand` with the action `deploy` does not ask",
                "hint: a pipeline with the variable `ACTION=deploy` does not ask",
            ),
            (
                "retire lake hint",
                "cannot ask without a terminal; pass `--yes`",
                "hint: this is for a terminal",
                "hint: this is for a terminal",
            ),
        ] {
            let said = repo.fails(command);
            let wanted = match place {
                "" => at_terminal,
                "github" => on_github,
                _ => on_gitlab,
            };
            has(&said, &[wanted]);
        }
    }
    repo.env = terminal;
    another_cluster_of_the_same_release(&repo);
}

fn another_cluster_of_the_same_release(repo: &Repo) {
    let folder = repo.root.join("config/clusters");
    fs::rename(folder.join("lake"), folder.join("pool")).unwrap();
    repo.edit("config/clusters/pool/cluster.yaml", "lake", "pool");
    let said = fails(on_github(
        repo,
        &[
            ("action", "rollback"),
            ("cluster", "pool"),
            ("hubs", "hint"),
        ],
    ));
    has(
        &said,
        &[
            "hint: the workflow `by-hand` with the option `take-over=lake` and a reason makes it ours",
        ],
    );
    let inputs = [
        ("action", "deploy"),
        ("cluster", "pool"),
        ("options", "take-over=lake force-older"),
        ("reason", "it was renamed"),
    ];
    succeeds(on_github(repo, &inputs));
}

/// The last line of a rollback says what the repository still has, and how to take it back.
#[test]
fn what_a_rollback_leaves_in_the_repository() {
    let cluster = Shared::cluster();
    let repo = in_git(&cluster, &["left"]);
    let deploy = |note: &str, options: &str| {
        repo.write(
            "config/clusters/lake/left.values.yaml",
            &format!("note: {note}\n"),
        );
        let commit = commit(&repo, note)[..12].to_owned();
        repo.run(&format!("deploy lake {options}"));
        commit
    };
    let last_line = |revision: &str| {
        let said = repo
            .ok(&format!("rollback lake left {revision} --yes"))
            .stdout;
        said.trim_end().lines().last().unwrap().to_owned()
    };
    let first = deploy("first", "");
    let second = deploy("second", "");
    let said = format!(
        "The repository still has what revision 2 brought (commit {second}): `git revert {second}`, or the next deploy \
         brings it again"
    );
    assert_eq!(last_line(""), said);
    git(&repo.root, &["revert", "--no-edit", &second]);
    assert_eq!(
        repo.read("config/clusters/lake/left.values.yaml"),
        "note: first\n"
    );
    a_failed_upgrade(&repo, &deploy);
    several_commits(&repo, &deploy, &last_line, &first);
    a_merge(&repo, &last_line);
    changes_without_a_commit(&repo, &last_line);
}

/// It is rolled back by itself.
fn a_failed_upgrade(repo: &Repo, deploy: &dyn Fn(&str, &str) -> String) {
    deploy("third", "");
    repo.write(
        "config/clusters/lake/left.values.yaml",
        "note: bad\nfate: pull\n",
    );
    let bad = commit(repo, "bad")[..12].to_owned();
    let said = repo.fails("deploy lake --rollback-on-failure");
    let left = format!(
        "rolled back to revision 4, which is ready again\nThe repository still has what revision 5 brought (commit {bad}): \
         `git revert {bad}`, or the next deploy brings it again\n"
    );
    has(&said, &[&left]);
}

/// What was rolled back from is not what the newest commit of several brought.
fn several_commits(
    repo: &Repo,
    deploy: &dyn Fn(&str, &str) -> String,
    last_line: &dyn Fn(&str) -> String,
    first: &str,
) {
    commit(repo, "of another hub");
    let newest = deploy("fourth", "");
    let said = last_line("1");
    has(
        &said,
        &[&format!(
            "revert what brought it (`git log {first}..{newest}`), or the next deploy"
        )],
    );
    // What is left now was made of an earlier revision: the repository has what it had.
    let said = last_line("4");
    has(
        &said,
        &[&format!("what revision 7 brought (commit {newest})")],
    );
}

fn a_merge(repo: &Repo, last_line: &dyn Fn(&str) -> String) {
    repo.ok("deploy lake");
    git(&repo.root, &["checkout", "--quiet", "-b", "change"]);
    repo.write("config/clusters/lake/left.values.yaml", "note: merged\n");
    commit(repo, "one of a pull request");
    commit(repo, "another one");
    git(&repo.root, &["checkout", "--quiet", "main"]);
    git(
        &repo.root,
        &["merge", "--quiet", "--no-ff", "--no-edit", "change"],
    );
    repo.ok("deploy lake");
    let merge = git(&repo.root, &["rev-parse", "HEAD"])[..12].to_owned();
    has(
        &last_line(""),
        &[&format!(
            "(commit {merge}): `git revert -m 1 {merge}`, or the next deploy"
        )],
    );
    git(&repo.root, &["revert", "-m", "1", "--no-edit", &merge]);
    assert_eq!(
        repo.read("config/clusters/lake/left.values.yaml"),
        "note: fourth\n"
    );
}

fn changes_without_a_commit(repo: &Repo, last_line: &dyn Fn(&str) -> String) {
    repo.ok("deploy lake");
    repo.write("config/clusters/lake/left.values.yaml", "note: by me\n");
    repo.ok("deploy lake");
    has(
        &last_line(""),
        &[
            "with changes that were in no commit), unless somebody has taken them back, and the next deploy brings that",
        ],
    );
}
