//! What `validate` costs: `cargo bench --bench validate -- FLEET` for a whole fleet in a folder of that name, time and
//! memory, and without the name only `validate --render` of a hundred hubs of minihub, cold and warm, beside
//! `xargs -P2 helm template`. Ours and the bare program take turns; the ratio of the medians is what counts.
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
};

use measure::{median, run};

const ROUNDS: usize = 7;
const HUBS: usize = 100;

fn main() {
    // cargo adds an argument of its own.
    if let Some(fleet) = env::args().skip(1).find(|it| !it.starts_with("--")) {
        let mut command = Command::new("/usr/bin/time");
        command.args([
            "-f",
            "%M",
            env!("CARGO_BIN_EXE_xtask"),
            "--root",
            &fleet,
            "validate",
        ]);
        let times = (0..ROUNDS).map(|_| run(&mut command)).collect();
        let said = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .unwrap()
            .stderr;
        let most = String::from_utf8_lossy(&said)
            .split_whitespace()
            .last()
            .unwrap_or_default()
            .to_owned();
        println!(
            "validate of the fleet             {:?}, at most {most} KB",
            median(times)
        );
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
    fs::remove_dir_all(&dir).unwrap();
    let (cold, theirs) = (median(cold), median(theirs));
    println!("--render of {HUBS} hubs, cold        {cold:?}");
    println!("the same, warm                    {:?}", median(warm));
    println!("xargs -P2 helm template           {theirs:?}");
    println!(
        "ratio                             {:.2}",
        cold.as_secs_f64() / theirs.as_secs_f64()
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
    std::os::unix::fs::symlink(charts, repo.join("helm-charts")).unwrap();
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
