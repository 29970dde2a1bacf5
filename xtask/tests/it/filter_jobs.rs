//! `github filter-jobs`: which jobs go on where others failed, and what it does when GitHub does not know it yet.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::{
    generate::{job, set},
    repo::Repo,
    upstream::{Answer, Server},
};

/// A step of a workflow's run, and what GitHub answers when it is asked for its jobs: one list after the other.
struct Step {
    repo: Repo,
    /// The marks that were sent along with each question.
    asked: Arc<Mutex<Vec<bool>>>,
}

impl Step {
    fn new(lists: Vec<Value>, jobs: &Value) -> Step {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let server = Server::asked(move |request| {
            assert!(
                request
                    .path
                    .starts_with("repos/ada/hubs/actions/runs/7/jobs?")
            );
            let mut seen = seen.lock().unwrap();
            let list = &lists[seen.len().min(lists.len() - 1)];
            let mark = format!("\"{}\"", list.to_string().len());
            let is_known = request.has(&format!("if-none-match: {mark}"));
            seen.push(is_known);
            if is_known {
                return Answer::Status(304);
            }
            Answer::Marked(json!({"total_count": 9, "jobs": list}), mark)
        });
        let mut repo = Repo::new();
        let output = repo.root.join("output").display().to_string();
        let jobs = jobs.to_string();
        for (name, value) in [
            ("GITHUB_API_URL", server.address.as_str()),
            ("GITHUB_REPOSITORY", "ada/hubs"),
            ("GITHUB_TOKEN", "of-the-run"),
            ("GITHUB_RUN_ID", "7"),
            ("GITHUB_RUN_ATTEMPT", "2"),
            ("GITHUB_OUTPUT", &output),
            ("PATIENCE", "2"),
            ("JOBS", &jobs),
        ] {
            repo.env.push((name.to_owned(), value.to_owned()));
        }
        Step { repo, asked }
    }

    /// The releases of the jobs that are left.
    fn kept(&self) -> Vec<String> {
        self.repo.ok("github filter-jobs");
        let jobs: Vec<Value> =
            serde_json::from_str(&set(&self.repo.read("output"))["jobs"]).unwrap();
        let releases = jobs.iter().map(|it| it["releases"].as_str().unwrap());
        releases.map(str::to_owned).collect()
    }
}

/// Production of two clusters.
fn production() -> Value {
    json!([
        {"releases": "lake/a lake/b", "needs": ["lake/support", "lake/staging"]},
        {"releases": "river/a", "needs": ["river/staging"]},
    ])
}

fn well(release: &str) -> Value {
    job(&format!("wave 1 / {release}"), "success", 2)
}

fn failed(release: &str, attempt: usize) -> Value {
    job(&format!("wave 1 / {release}"), "failure", attempt)
}

#[test]
fn an_answer_that_lags_is_waited_for() {
    let before = json!([well("lake/support lake/staging")]);
    let after = json!([well("lake/support lake/staging"), well("river/staging")]);
    let step = Step::new(vec![before.clone(), before, after], &production());
    assert_eq!(step.kept(), ["lake/a lake/b", "river/a"]);
    // The second one cost nothing.
    assert_eq!(*step.asked.lock().unwrap(), [false, true, false]);
}

#[test]
fn an_answer_that_never_comes_is_a_failure() {
    let list = json!([
        well("lake/support"),
        well("lake/staging"),
        job("plan", "success", 2)
    ]);
    let said = Step::new(vec![list], &production())
        .repo
        .fails("github filter-jobs");
    let wanted = "GitHub does not say how the jobs of `river/staging` ended, which jobs after them need to know: nothing \
                  after them was deployed";
    assert!(
        said.contains(wanted) && said.contains("hint: \"Re-run all jobs\""),
        "{said}"
    );
}

/// And nobody waits for others that it needs.
#[test]
fn what_needs_a_failed_job_is_left_out() {
    let list = json!([failed("lake/support", 2), well("river/staging")]);
    let step = Step::new(vec![list], &production());
    assert_eq!(step.kept(), ["river/a"]);
    let held = set(&step.repo.read("output"))["held"].clone();
    assert_eq!(held, r#"["lake/a","lake/b"]"#);
}

/// Whatever the image is called.
#[test]
fn what_needs_an_image_that_was_not_built_is_left_out() {
    let jobs = json!([
        {"releases": "lake/a", "needs": ["Image/lake/b", "lake/staging"]},
        {"releases": "lake/b", "needs": ["Image/ghcr.io/lake/user", "lake/staging"]},
        {"releases": "lake/c", "needs": ["lake/b"]},
    ]);
    let list = json!([
        failed("Image lake/b", 2),
        well("Image ghcr.io/lake/gpu ghcr.io/lake/user"),
        well("lake/staging"),
        well("lake/b")
    ]);
    let step = Step::new(vec![list], &jobs);
    assert_eq!(step.kept(), ["lake/b", "lake/c"]);
}

#[test]
fn what_needs_something_held_back_is_left_out() {
    let mut step = Step::new(vec![json!([well("river/staging")])], &production());
    let held = ("HELD".to_owned(), r#"["lake/staging"]"#.to_owned());
    step.repo.env.push(held);
    assert_eq!(step.kept(), ["river/a"]);
}

/// The first attempt's failures do not count where the job was run again, nor while it may be.
#[test]
fn the_newest_attempt_counts() {
    let first = failed("lake/staging", 1);
    let support = job("wave 1 / lake/support river/staging", "success", 1);
    let before = json!([first.clone(), support.clone()]);
    let after = json!([well("lake/staging"), first, support]);
    let step = Step::new(vec![before.clone(), after], &production());
    assert_eq!(step.kept(), ["lake/a lake/b", "river/a"]);
    let said = Step::new(vec![before], &production())
        .repo
        .fails("github filter-jobs");
    assert!(said.contains("the jobs of `lake/staging` ended"), "{said}");
}
