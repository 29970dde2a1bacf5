//! What has to be redeployed since each hub was deployed last, and what an edit of cluster.yaml means.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::Value;

use crate::{
    generate::{Runs, commit, git, job, pairs, with_runs},
    repo::{Ran, Repo},
    upstream::{Answer, Server},
};

const LAKE: &str = "config/clusters/lake/cluster.yaml";

/// Two clusters in git, and what GitHub knows of the runs that deployed them.
struct Fleet {
    repo: Repo,
    runs: Arc<Mutex<Runs>>,
}

impl Fleet {
    fn new() -> Fleet {
        let mut repo = Repo::new();
        for cluster in ["lake", "river"] {
            let file = format!("config/clusters/{cluster}/cluster.yaml");
            let mut yaml = format!(
                "name: {cluster}\nprovider: aws\naws:\n  clusterName: {cluster}\n  region: r\n\
                 support:\n  helm_chart_values_files: [support.values.yaml]\nhubs:\n"
            );
            for hub in ["staging", "a", "b"] {
                yaml += &entry(cluster, hub);
            }
            repo.write(&file, &yaml);
        }
        git(&repo.root, &["init", "--quiet"]);
        commit(&repo, "first");
        let runs = with_runs(&mut repo);
        Fleet { repo, runs }
    }

    /// The same, all of it deployed.
    fn deployed() -> Fleet {
        let fleet = Fleet::new();
        fleet.run("success", &[]);
        fleet
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap()
    }

    /// Adds the run of the newest commit.
    fn run(&self, conclusion: &str, jobs: &[(&str, &str)]) {
        let head = git(&self.repo.root, &["rev-parse", "HEAD"]);
        let jobs: Vec<_> = jobs.iter().map(|(name, it)| job(name, it, 1)).collect();
        self.runs().add(&head, conclusion, &jobs);
    }

    /// Changes a hub's own values, or those of a support chart.
    fn change(&self, release: &str, text: &str) {
        let (cluster, hub) = release.split_once('/').unwrap();
        let file = format!("config/clusters/{cluster}/{hub}.values.yaml");
        self.repo.write(&file, &format!("note: {text}\n"));
        commit(&self.repo, text);
    }

    fn edit(&self, from: &str, to: &str) {
        self.repo.edit(LAKE, from, to);
        commit(&self.repo, "an edit");
    }

    fn generate(&self, args: &str) -> Ran {
        self.repo
            .run(&format!("generate helm-upgrade-jobs --format json {args}"))
    }

    /// The releases that have a job: hubs without those that only gate others.
    fn planned(&self, args: &str) -> Vec<String> {
        let ran = self.generate(args);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let lists: Value = serde_json::from_str(&ran.stdout).unwrap();
        let hubs = ["staging-jobs", "prod-jobs"].map(|it| {
            let mut jobs = lists[it].clone();
            let gates = "Following prod hubs require redeploy";
            let jobs = jobs.as_array_mut().unwrap();
            jobs.retain(|it| !it["choice_reason"].as_str().unwrap().starts_with(gates));
            pairs(&jobs.clone().into(), "hub_names")
        });
        let hubs = hubs.into_iter().flatten();
        let mut names: BTreeSet<_> = hubs.map(|(c, hub)| format!("{c}/{hub}")).collect();
        for job in lists["support-jobs"].as_array().unwrap() {
            names.insert(format!("{}/support", job["cluster_name"].as_str().unwrap()));
        }
        names.into_iter().collect()
    }

    fn since_deployed(&self) -> Vec<String> {
        self.planned("--base last-deployed")
    }
}

/// Of a hub in cluster.yaml.
fn entry(cluster: &str, hub: &str) -> String {
    format!(
        "- name: {hub}\n  domain: {hub}.{cluster}.org\n  helm_chart: pond\n  \
         helm_chart_values_files: [{hub}.values.yaml]\n"
    )
}

const ALL: [&str; 8] = [
    "lake/a",
    "lake/b",
    "lake/staging",
    "lake/support",
    "river/a",
    "river/b",
    "river/staging",
    "river/support",
];

/// All releases of lake.
fn of_lake() -> Vec<&'static str> {
    ALL[..4].to_vec()
}

const GREEN: &str = "success";
const RED: &str = "failure";

#[test]
fn a_staging_hub_that_is_red_for_three_merges_comes_back_alone() {
    let fleet = Fleet::deployed();
    fleet.change("lake/staging", "broken");
    fleet.run(RED, &[("lake/staging", RED)]);
    for (nth, hub) in ["river/a", "river/support", "river/staging"]
        .into_iter()
        .enumerate()
    {
        fleet.change(hub, &format!("note {nth}"));
        assert_eq!(fleet.since_deployed(), ["lake/staging", hub]);
        fleet.run(RED, &[(hub, GREEN), ("lake/staging", RED)]);
    }
    fleet.change("lake/staging", "mended");
    assert_eq!(fleet.since_deployed(), ["lake/staging"]);
    fleet.run(GREEN, &[("lake/staging", GREEN)]);
    assert!(fleet.since_deployed().is_empty());
}

#[test]
fn production_that_was_held_back_comes_with_what_held_it() {
    let fleet = Fleet::deployed();
    fleet.change("lake/staging", "broken");
    fleet.change("lake/a", "waits");
    fleet.run(RED, &[("lake/staging", RED)]);
    fleet.change("docs/page", "mended elsewhere");
    assert_eq!(fleet.since_deployed(), ["lake/a", "lake/staging"]);
}

/// GitHub lists all attempts of a job, under its name.
#[test]
fn jobs_of_a_run_that_was_run_again() {
    let fleet = Fleet::deployed();
    for hub in ["lake/a", "lake/b", "river/a"] {
        fleet.change(hub, hub);
    }
    fleet.run(
        RED,
        &[("lake/a", GREEN), ("lake/b", RED), ("river/a", GREEN)],
    );
    let mut runs = fleet.runs();
    runs.runs[0]["run_attempt"] = 2.into();
    let jobs = runs.runs[0]["all_jobs"].as_array_mut().unwrap();
    jobs.push(job("lake/b", GREEN, 2));
    jobs.push(job("river/a", RED, 2));
    drop(runs);
    assert_eq!(fleet.since_deployed(), ["river/a"]);
}

#[test]
fn a_job_of_several_hubs_that_failed_proves_nothing() {
    let fleet = Fleet::deployed();
    for hub in ["lake/a", "lake/b", "river/a", "river/b"] {
        fleet.change(hub, hub);
    }
    let jobs = [
        ("wave 1 / river/a river/b", GREEN),
        ("wave 1 / lake/a lake/b", RED),
    ];
    fleet.run(RED, &jobs);
    assert_eq!(fleet.since_deployed(), ["lake/a", "lake/b"]);
}

/// As the workflows before this one called them.
#[test]
fn jobs_of_older_workflows_are_known_by_their_names() {
    let fleet = Fleet::deployed();
    for hub in ALL {
        fleet.change(hub, hub);
    }
    let jobs = [
        ("Support and staging of lake", GREEN),
        ("lake a b", GREEN),
        ("Support and staging of river", RED),
        ("river b", GREEN),
        ("plan", GREEN),
    ];
    fleet.run(RED, &jobs);
    assert_eq!(
        fleet.since_deployed(),
        ["river/a", "river/staging", "river/support"]
    );
}

#[test]
fn a_run_that_held_something_back_is_not_complete() {
    let fleet = Fleet::deployed();
    for hub in ["lake/a", "river/a"] {
        fleet.change(hub, hub);
    }
    fleet.run(GREEN, &[("Held back", GREEN), ("lake/a", GREEN)]);
    assert_eq!(fleet.since_deployed(), ["river/a"]);
    fleet.run(GREEN, &[("plan", GREEN), ("Held back", "skipped")]);
    assert!(fleet.since_deployed().is_empty());
}

#[test]
fn runs_that_are_not_over_and_those_of_pull_requests_do_not_count() {
    let fleet = Fleet::deployed();
    fleet.change("lake/a", "new");
    for (key, value) in [
        ("status", "in_progress"),
        ("event", "pull_request_target"),
        ("head_branch", "other"),
    ] {
        fleet.run(GREEN, &[("lake/a", GREEN)]);
        fleet.runs().runs[0][key] = value.into();
    }
    assert_eq!(fleet.since_deployed(), ["lake/a"]);
}

/// One for the list of runs, and one for each run down to the newest complete one.
#[test]
fn github_is_asked_little() {
    let fleet = Fleet::deployed();
    fleet.change("lake/a", "newer");
    fleet.run(GREEN, &[]);
    let complete = git(&fleet.repo.root, &["rev-parse", "HEAD"]);
    fleet.since_deployed();
    assert_eq!(fleet.runs().asked, ["runs", &complete]);
    fleet.change("lake/a", "newest");
    fleet.run(RED, &[]);
    fleet.runs().asked.clear();
    fleet.since_deployed();
    assert_eq!(fleet.runs().asked.len(), 3);
}

#[test]
fn more_runs_than_are_looked_through() {
    let fleet = Fleet::deployed();
    for _ in 0..100 {
        fleet.run(RED, &[("lake/a", GREEN), ("river/b", RED)]);
    }
    let ran = fleet.generate("--base last-deployed");
    let wanted = "none of the newest 100 runs of this workflow did it without a failure: `lake/support`, `lake/b`, ";
    assert!(ran.stderr.contains(wanted), "{}", ran.stderr);
    let mut others = ALL.to_vec();
    others.retain(|it| *it != "lake/a");
    assert_eq!(fleet.since_deployed(), others);
}

/// Somebody wrote the history anew since.
#[test]
fn a_hub_whose_commit_is_gone_is_deployed() {
    let fleet = Fleet::deployed();
    let gone = "1234567890123456789012345678901234567890";
    fleet.runs().add(gone, RED, &[job("lake/b", GREEN, 1)]);
    let ran = fleet.generate("--base last-deployed");
    let wanted = format!("`{gone}`, where it was deployed last: `lake/b`\n");
    assert!(ran.stderr.contains(&wanted), "{}", ran.stderr);
    assert_eq!(fleet.since_deployed(), ["lake/b"]);
}

#[test]
fn a_service_that_fails_for_a_moment_is_asked_again() {
    let fleet = Fleet::deployed();
    fleet.change("lake/a", "new");
    let now = "Retry-After: 0".to_owned();
    let limit = "X-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 1".to_owned();
    fleet.runs().first = vec![
        Answer::Refused(502, now.clone()),
        Answer::Refused(429, now),
        Answer::Refused(403, limit),
    ];
    assert_eq!(fleet.since_deployed(), ["lake/a"]);
}

#[test]
fn a_service_that_wants_a_long_pause_is_an_error() {
    let fleet = Fleet::deployed();
    fleet.runs().first = vec![Answer::Refused(429, "Retry-After: 1900".to_owned())];
    let said = fleet.generate("--base last-deployed").stderr;
    for part in [
        "cannot tell which commits were deployed last: GET http",
        "/runs?branch=main",
        "GitHub answers 429 Too Many Requests: Not now",
        "hint: run this again in 32 min, when GitHub may answer",
        "hint: `--base COMMIT` deploys what changed since a commit that you know to be deployed",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn deployments_of_gitlab_tell_it_too() {
    let mut fleet = Fleet::new();
    let mut deployments = vec![("hubs", git(&fleet.repo.root, &["rev-parse", "HEAD"]))];
    for hub in ["lake/a", "lake/b", "river/support"] {
        fleet.change(hub, hub);
    }
    let head = git(&fleet.repo.root, &["rev-parse", "HEAD"]);
    deployments.extend([("lake/a", head.clone()), ("river/support", head)]);
    let asked = Arc::new(Mutex::new(String::new()));
    let own = asked.clone();
    // One on each page.
    let server = Server::asked(move |request| {
        let (path, query) = request.path.split_once('?').unwrap();
        assert_eq!(path, "projects/7/deployments");
        let page = query
            .split_once("&page=")
            .map_or(0, |(_, it)| it.parse().unwrap());
        let (environment, commit) = deployments.iter().rev().nth(page).unwrap();
        let list = serde_json::json!([{"sha": commit, "environment": {"name": environment}}]);
        let address = own.lock().unwrap();
        Answer::Linked(
            list,
            format!("{address}/{path}?status=success&page={}", page + 1),
        )
    });
    asked.lock().unwrap().clone_from(&server.address);
    for (name, value) in [
        ("GITLAB_CI", "true"),
        ("CI_API_V4_URL", server.address.as_str()),
        ("CI_PROJECT_ID", "7"),
        ("CI_JOB_TOKEN", "of-the-job"),
    ] {
        fleet.repo.env.push((name.to_owned(), value.to_owned()));
    }
    assert_eq!(fleet.since_deployed(), ["lake/b"]);
}

#[test]
fn hubs_are_checked_since_the_newest_complete_run() {
    let fleet = Fleet::deployed();
    fleet.repo.write("terraform/aws/projects/lake.tfvars", "");
    commit(&fleet.repo, "terraform");
    let checked = || {
        fleet
            .repo
            .ok("generate health-check-jobs --base last-deployed")
            .stdout
    };
    fleet.run(RED, &[("lake a", GREEN)]);
    assert!(checked().contains(" lake "));
    fleet.run(GREEN, &[]);
    assert!(!checked().contains(" lake "));
}

#[test]
fn a_new_hub_redeploys_only_itself() {
    let fleet = Fleet::deployed();
    fleet.edit("hubs:\n", &format!("hubs:\n{}", entry("lake", "c")));
    assert_eq!(fleet.planned("--base HEAD~1"), ["lake/c"]);
    assert_eq!(fleet.since_deployed(), ["lake/c"]);
    fleet.edit("name: c", "name: d");
    assert_eq!(fleet.planned("--base HEAD~1"), ["lake/d"]);
}

#[test]
fn an_entry_of_a_hub_redeploys_only_that() {
    let fleet = Fleet::deployed();
    fleet.edit("domain: a.lake.org", "domain: new.lake.org");
    assert_eq!(fleet.since_deployed(), ["lake/a"]);
    let plan = fleet
        .repo
        .ok("generate helm-upgrade-jobs --base HEAD~1")
        .stdout;
    assert!(
        plan.contains("cluster.yaml: the entry of this hub was modified"),
        "{plan}"
    );
}

#[test]
fn edits_that_change_nothing_that_is_deployed() {
    let fleet = Fleet::deployed();
    let b = entry("lake", "b");
    for (from, to) in [
        ("hubs:\n", "# What people use.\nhubs:\n"),
        ("provider: aws\n", "provider: aws\nkubernetes: \"1.34\"\n"),
        (
            "provider: aws\n",
            "provider: aws\nprovider_url: https://example.org\naccount: us\n",
        ),
        (
            "provider: aws\n",
            "provider: aws\ntenancy: shared\nmetadata: {x: 1}\n",
        ),
        (
            "  region: r\n",
            "  region: 'r'\n  billing: {paid_by_us: true}\n  clusterType: eks\n",
        ),
        ("- name: a\n", "- name: a\n  display_name: The A\n"),
        ("- name: a\n", "- name: a\n  gates: []\n"),
        (
            "  domain: a.lake.org\n  helm_chart: pond\n",
            "  helm_chart: pond\n  domain: a.lake.org\n",
        ),
        ("[a.values.yaml]", "\n  - a.values.yaml"),
        (&b, ""),
        ("hubs:\n", &format!("hubs:\n{b}")),
    ] {
        fleet.edit(from, to);
        if !to.is_empty() && to.contains("name: b") {
            // It was gone meanwhile.
            assert_eq!(fleet.planned("--base HEAD~1"), ["lake/b"], "{to}");
            assert!(fleet.planned("--base HEAD~2").is_empty(), "{to}");
        } else {
            assert!(fleet.planned("--base HEAD~1").is_empty(), "{to}");
        }
    }
}

/// None of them means anything.
#[test]
fn line_ends_modes_and_documents() {
    use std::os::unix::fs::PermissionsExt;
    let fleet = Fleet::new();
    let text = fleet.repo.read(LAKE);
    fleet.repo.write(LAKE, &text.replace('\n', "\r\n"));
    commit(&fleet.repo, "of Windows");
    let file = fleet.repo.root.join(LAKE);
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    commit(&fleet.repo, "a mode");
    fleet.repo.write(LAKE, &format!("---\n{text}"));
    commit(&fleet.repo, "a document");
    assert!(fleet.planned("--base HEAD~3").is_empty());
    for base in ["HEAD~1", "HEAD~2"] {
        assert!(
            fleet.planned(&format!("--base {base}")).is_empty(),
            "{base}"
        );
    }
}

#[test]
fn a_new_cluster_redeploys_no_other() {
    let fleet = Fleet::deployed();
    let yaml = fleet.repo.read(LAKE).replace("lake", "sea");
    fleet.repo.write("config/clusters/sea/cluster.yaml", &yaml);
    commit(&fleet.repo, "sea");
    let of_sea = ["sea/a", "sea/b", "sea/staging", "sea/support"];
    assert_eq!(fleet.since_deployed(), of_sea);
    assert_eq!(fleet.planned("--base HEAD~1"), of_sea);
}

/// Also where it was deployed alone before, by a run that failed.
#[test]
fn a_hub_that_was_new_and_failed_comes_back_alone() {
    let fleet = Fleet::deployed();
    fleet.edit("hubs:\n", &format!("hubs:\n{}", entry("lake", "c")));
    fleet.run(RED, &[("lake/staging", GREEN), ("lake/c", RED)]);
    fleet.change("docs/page", "nothing of a hub");
    assert_eq!(fleet.since_deployed(), ["lake/c"]);
}

#[test]
fn keys_that_all_deploys_of_a_cluster_use() {
    let fleet = Fleet::deployed();
    for (from, to) in [
        ("region: r", "region: s"),
        ("  region: s", "  account: 123456789012\n  region: s"),
        ("name: lake\n", "name: the-lake\n"),
    ] {
        fleet.edit(from, to);
        assert_eq!(fleet.planned("--base HEAD~1"), of_lake(), "{to}");
    }
    let plan = fleet
        .repo
        .ok("generate helm-upgrade-jobs --base HEAD~2")
        .stdout;
    assert!(plan.contains("cluster.yaml: `aws` was modified"), "{plan}");
}

#[test]
fn only_support_uses_its_own_section() {
    let fleet = Fleet::deployed();
    fleet.edit("[support.values.yaml]", "[other.values.yaml]");
    assert_eq!(fleet.since_deployed(), ["lake/support"]);
    fleet.edit("support:\n", "support:\n  cert_manager: false\n");
    assert_eq!(fleet.planned("--base HEAD~1"), ["lake/support"]);
}

/// A deploy in between may have failed half-way.
#[test]
fn an_edit_that_was_taken_back_still_counts() {
    let fleet = Fleet::deployed();
    fleet.edit("domain: a.lake.org", "domain: new.lake.org");
    fleet.edit("domain: new.lake.org", "domain: a.lake.org");
    assert_eq!(fleet.since_deployed(), ["lake/a"]);
    assert!(fleet.planned("--base HEAD~2").is_empty());
}

#[test]
fn an_edit_that_a_merge_brought() {
    let fleet = Fleet::deployed();
    git(&fleet.repo.root, &["checkout", "--quiet", "-b", "change"]);
    fleet.edit("domain: b.lake.org", "domain: new.lake.org");
    git(&fleet.repo.root, &["checkout", "--quiet", "main"]);
    fleet.edit("name: a\n", "name: a\n  display_name: A\n");
    git(
        &fleet.repo.root,
        &["merge", "--quiet", "--no-edit", "change"],
    );
    assert_eq!(fleet.since_deployed(), ["lake/b"]);
}

#[test]
fn anchors_count_by_what_they_mean() {
    let fleet = Fleet::deployed();
    fleet.edit("[a.values.yaml]", "&files [a.values.yaml]");
    assert!(fleet.since_deployed().is_empty());
    fleet.edit("[b.values.yaml]", "*files");
    assert_eq!(fleet.since_deployed(), ["lake/b"]);
    fleet.edit("&files [a.values.yaml]", "&files [common.values.yaml]");
    assert_eq!(fleet.planned("--base HEAD~1"), ["lake/a", "lake/b"]);
}

#[test]
fn versions_that_cannot_be_compared() {
    let fleet = Fleet::deployed();
    let good = fleet.repo.read(LAKE);
    for bad in [
        "name: [\n",
        "- a list\n",
        "hubs: {a: b}\n",
        "hubs: [{domain: x}]\n",
    ] {
        fleet.repo.write(LAKE, bad);
        commit(&fleet.repo, bad);
        fleet.repo.write(LAKE, &good);
        commit(&fleet.repo, "mended");
        assert_eq!(fleet.planned("--base HEAD~1"), of_lake(), "{bad}");
        assert!(fleet.planned("--base HEAD~2").is_empty(), "{bad}");
    }
    assert_eq!(fleet.planned(LAKE), of_lake());
}

#[test]
fn a_cluster_yaml_that_is_a_link() {
    let fleet = Fleet::new();
    let file = fleet.repo.root.join(LAKE);
    fs::rename(&file, fleet.repo.root.join("config/lake.yaml")).unwrap();
    std::os::unix::fs::symlink("../../lake.yaml", &file).unwrap();
    commit(&fleet.repo, "a link");
    assert_eq!(fleet.planned("--base HEAD~1"), of_lake());
    fleet
        .repo
        .edit("config/lake.yaml", "region: r", "region: s");
    commit(&fleet.repo, "where it leads");
    assert_eq!(fleet.planned("--base HEAD~1"), of_lake());
}

#[test]
fn a_root_below_the_top_of_git() {
    let fleet = Fleet::new();
    let all = fleet.repo.root.join("all hubs");
    fs::create_dir(&all).unwrap();
    for folder in ["config", "helm-charts"] {
        fs::rename(fleet.repo.root.join(folder), all.join(folder)).unwrap();
    }
    commit(&fleet.repo, "moved");
    fleet
        .repo
        .edit(&format!("all hubs/{LAKE}"), "domain: a.", "domain: new.");
    commit(&fleet.repo, "an entry");
    let mut command = fleet
        .repo
        .command("generate helm-upgrade-jobs --base HEAD~1 --root");
    let output = command.arg(&all).output().unwrap();
    let plan = String::from_utf8(output.stdout).unwrap();
    assert!(plan.contains("lake          a "), "{plan}");
    assert!(!plan.contains("lake          b "), "{plan}");
}

/// What was deployed of an entry was taken back, and another entry of the same file changed.
#[test]
fn entries_of_a_history_that_was_written_anew() {
    let fleet = Fleet::new();
    git(&fleet.repo.root, &["checkout", "--quiet", "-b", "away"]);
    fleet.edit("domain: a.lake.org", "domain: new.lake.org");
    fleet.run(GREEN, &[]);
    git(&fleet.repo.root, &["checkout", "--quiet", "main"]);
    fleet.edit("domain: b.lake.org", "domain: newer.lake.org");
    assert_eq!(fleet.since_deployed(), ["lake/a", "lake/b"]);
}
