//! What `validate` costs: `cargo bench --bench validate -- FLEET` for a whole fleet in a folder of that name, time and
//! memory, and without the name only for a hundred hubs of minihub, cold and warm: `--render` beside
//! `xargs -P2 helm template`, and values in jsonnet beside `xargs -P2 jsonnet`, which has to be on PATH. Ours and the bare
//! program take turns; the ratio of the medians is what counts.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    reason = "it measures programs as a person runs them"
)]

mod measure;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use measure::{median, run};

const ROUNDS: usize = 7;
const HUBS: usize = 100;

fn main() {
    // cargo adds an argument of its own.
    if let Some(fleet) = env::args().skip(1).find(|it| !it.starts_with("--")) {
        measure_fleet(&fleet);
    }
    let dir = Path::new("/dev/shm").join(format!("xtask-bench-{}", std::process::id()));
    let (repo, cache) = (repository(&dir), dir.join("cache"));
    let text = |command: &mut Command| String::from_utf8(command.output().unwrap().stdout).unwrap();
    let tools = text(Command::new(env!("CARGO_BIN_EXE_xtask")).args(["setup", "--print-path"]));
    let path = format!("{}:{}", tools.trim(), env::var("PATH").unwrap());
    let ours = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args([
            "--root".as_ref(),
            repo.as_os_str(),
            "validate".as_ref(),
            "--render".as_ref(),
        ]);
        command.env("PATH", &path).env("XDG_CACHE_HOME", &cache);
        command
    };
    run(&mut ours());
    let chart = fs::read_dir(cache.join("xtask/charts"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .find(|it| it.join("Chart.yaml").is_file())
        .unwrap();
    let script = format!(
        "seq {HUBS} | xargs -P2 -I_ helm template hub-_ {} --namespace hub-_ --values {}/config/clusters/lake/_.values.yaml",
        chart.display(),
        repo.display()
    );
    let (mut cold, mut warm, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        fs::remove_dir_all(&cache).unwrap();
        cold.push(run(&mut ours()));
        warm.push(run(&mut ours()));
        theirs.push(run(Command::new("sh")
            .args(["-euc", &script])
            .env("PATH", &path)));
    }
    print(
        &format!("--render of {HUBS} hubs"),
        cold,
        warm,
        "helm template",
        theirs,
    );
    measure_jsonnet(&repo, &cache, &path);
    fs::remove_dir_all(&dir).unwrap();
}

fn print(what: &str, cold: Vec<Duration>, warm: Vec<Duration>, bare: &str, theirs: Vec<Duration>) {
    let (cold, theirs) = (median(cold), median(theirs));
    println!("{:34}{cold:?}", format!("{what}, cold"));
    println!("{:34}{:?}", "the same, warm", median(warm));
    println!("{:34}{theirs:?}", format!("xargs -P2 {bare}"));
    let ratio = cold.as_secs_f64() / theirs.as_secs_f64();
    println!("{:34}{ratio:.2}", "ratio");
}

/// Measures a fleet twice: with what jsonnet made in the cache, and without.
fn measure_fleet(fleet: &str) {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(&env::var("HOME").unwrap()).join(".cache"));
    let made = cache.join("xtask/jsonnet");
    let validate = || {
        let mut command = Command::new("/usr/bin/time");
        let xtask = env!("CARGO_BIN_EXE_xtask");
        command.args(["-f", "%M", xtask, "--root", fleet, "validate"]);
        command
    };
    let measure = || {
        let started = Instant::now();
        let said = validate().stdout(Stdio::null()).output().unwrap().stderr;
        let took = started.elapsed();
        let said = String::from_utf8(said).unwrap();
        let most: u64 = said.split_whitespace().last().unwrap().parse().unwrap();
        (took, most)
    };
    let mut cold = Vec::new();
    let mut warm = Vec::new();
    let mut most = 0;
    for _ in 0..ROUNDS {
        let _ = fs::remove_dir_all(&made);
        cold.push(measure().0);
        let (took, memory) = measure();
        warm.push(took);
        most = memory.max(most);
    }
    println!("{:34}{:?}", "validate of the fleet, cold", median(cold));
    let warm = median(warm);
    println!("{:34}{warm:?}, at most {most} KB", "the same, warm");
}

/// The hundred hubs with values in jsonnet of the same text.
fn measure_jsonnet(repo: &Path, cache: &Path, path: &str) {
    let lake = repo.join("config/clusters/lake");
    let yaml = fs::read_to_string(lake.join("cluster.yaml")).unwrap();
    fs::write(
        lake.join("cluster.yaml"),
        yaml.replace(".values.yaml]", ".jsonnet]"),
    )
    .unwrap();
    for hub in 1..=HUBS {
        let text = "{ cull: { timeout: 1000 + std.length(std.extVar('XTASK_HUB_NAME')) } }\n";
        fs::write(lake.join(format!("{hub}.jsonnet")), text).unwrap();
    }
    let made = cache.join("xtask/jsonnet");
    let ours = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("--root").arg(repo).arg("validate");
        command.env("PATH", path).env("XDG_CACHE_HOME", cache);
        command
    };
    let script = format!(
        "seq {HUBS} | xargs -P2 -I{{}} jsonnet --ext-str XTASK_HUB_NAME=hub-{{}} --jpath {lake} {lake}/{{}}.jsonnet",
        lake = lake.display()
    );
    let mut cold = Vec::new();
    let mut warm = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..ROUNDS {
        let _ = fs::remove_dir_all(&made);
        cold.push(run(&mut ours()));
        warm.push(run(&mut ours()));
        let mut bare = Command::new("sh");
        theirs.push(run(bare.args(["-euc", &script]).env("PATH", path)));
    }
    print(
        &format!("jsonnet of {HUBS} hubs"),
        cold,
        warm,
        "jsonnet",
        theirs,
    );
}

/// A cluster of so many hubs of minihub, each with values of its own.
fn repository(dir: &Path) -> PathBuf {
    let repo = dir.join("repo");
    let lake = repo.join("config/clusters/lake");
    fs::create_dir_all(&lake).unwrap();
    let charts = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("helm-charts");
    // A link to them would lead out of the repository.
    let mut copy = Command::new("cp");
    run(copy.arg("-r").arg(charts).arg(repo.join("helm-charts")));
    let mut yaml =
        "name: lake\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs:\n".to_owned();
    for hub in 1..=HUBS {
        yaml += &format!(
            "- {{name: hub-{hub}, domain: {hub}.example.org, helm_chart: minihub, \
             helm_chart_values_files: [{hub}.values.yaml]}}\n"
        );
        fs::write(
            lake.join(format!("{hub}.values.yaml")),
            format!("cull: {{timeout: {}}}\n", 1000 + hub),
        )
        .unwrap();
    }
    fs::write(lake.join("cluster.yaml"), yaml).unwrap();
    repo
}
