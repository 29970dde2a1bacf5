//! What a deploy of unchanged hubs costs beside the programs that it runs: `cargo bench --bench deploy` in the repository,
//! with the two hubs of this checkout's rehearsal cluster, and then with 24 and 104 side by side on one of their own. Ours and
//! the bare programs take turns; the ratio of the medians is what counts, since machines are noisy.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    reason = "it measures programs as a person runs them"
)]

mod measure;

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use measure::{median, run};

const ROUNDS: usize = 15;
const HUBS: [&str; 2] = ["staging", "demo"];

/// How many hubs on a cluster of their own, each with how many rounds, and how many hubs at once. A rehearsal cluster has
/// addresses for 254 Services, and these hubs have three each.
const MANY: [(usize, usize); 2] = [(24, 5), (104, 1)];
const JOBS: usize = 8;

fn main() {
    two_hubs();
    for (hubs, rounds) in MANY {
        many_hubs(hubs, rounds);
    }
}

fn two_hubs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let xtask = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(args).current_dir(root);
        command
    };
    run(&mut xtask(&["deploy", "local"]));
    let kubeconfig = kubeconfig(xtask);
    let path = path(xtask);
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-euc", script])
            .current_dir(root)
            .env("PATH", &path)
            .env("KUBECONFIG", &kubeconfig);
        command.env(
            "SOPS_AGE_KEY_FILE",
            root.join("config/clusters/local/demo.age.key"),
        );
        command
    };
    // Decrypted once and outside what is measured: the bare programs get the easier work.
    let values = tempdir();
    let folder = values.display();
    for hub in HUBS {
        run(&mut shell(&format!(
            "sops decrypt config/clusters/local/enc-{hub}.secret.values.yaml > {folder}/{hub}.yaml"
        )));
    }
    let bare: String = HUBS
        .iter()
        .map(|hub| {
            format!(
                "helm upgrade --install --create-namespace --namespace {hub} {hub} helm-charts/minihub \
                 --values config/clusters/local/common.values.yaml --values config/clusters/local/{hub}.values.yaml \
                 --values {folder}/{hub}.yaml\n\
                 kubectl rollout status -n {hub} deployment/hub\nkubectl rollout status -n {hub} deployment/proxy\n"
            )
        })
        .collect();
    let (mut ours, mut theirs, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(run(&mut xtask(&["deploy", "local"])));
        theirs.push(run(&mut shell(&bare)));
        starts.push(run(&mut xtask(&["--help"])));
    }
    std::fs::remove_dir_all(&values).unwrap();
    let (ours, theirs) = (median(ours), median(theirs));
    println!("deploy local, two unchanged hubs  {ours:?}");
    println!("bare helm and rollout status      {theirs:?}");
    println!(
        "ratio                             {:.2}",
        ours.as_secs_f64() / theirs.as_secs_f64()
    );
    println!("--help                            {:?}", median(starts));
}

fn many_hubs(many: usize, rounds: usize) {
    let repo = tempdir();
    let folder = repo.join("config/clusters/many");
    std::fs::create_dir_all(&folder).unwrap();
    let charts = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("helm-charts");
    // A link to them would lead out of the repository.
    let mut copy = Command::new("cp");
    run(copy.arg("-r").arg(&charts).arg(repo.join("helm-charts")));
    let hubs = (1..=many).map(|hub| {
        format!("- {{name: hub-{hub}, domain: {hub}.example.org, helm_chart: minihub, helm_chart_values_files: []}}\n")
    });
    let yaml = format!(
        "name: many\nprovider: local\nhubs:\n{}",
        hubs.collect::<String>()
    );
    std::fs::write(folder.join("cluster.yaml"), yaml).unwrap();
    let xtask = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("--root").arg(&repo).args(args);
        command
    };
    let deploy = ["deploy", "many", "--jobs", &JOBS.to_string()];
    run(&mut xtask(&deploy));
    let skip = [&deploy[..], &["--skip-unchanged"]].concat();
    let kubeconfig = kubeconfig(xtask);
    let path = path(xtask);
    let one = format!(
        "helm upgrade --install --namespace hub-_ hub-_ {}/minihub && \
         for it in hub proxy; do kubectl rollout status -n hub-_ deployment/$it; done",
        charts.display()
    );
    let shell = |jobs: usize| {
        let mut command = Command::new("sh");
        let script = format!("seq {many} | xargs -P{jobs} -I_ sh -euc '{one}'");
        command
            .args(["-euc", &script])
            .env("PATH", &path)
            .env("KUBECONFIG", &kubeconfig);
        command
    };
    let (mut ours, mut theirs, mut most) = (Vec::new(), Vec::new(), 0);
    let mut skipping = Vec::new();
    for _ in 0..rounds {
        let started = Instant::now();
        let mut child = xtask(&deploy)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while child.try_wait().unwrap().is_none() {
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let peak = status
                .lines()
                .find_map(|it| it.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
            most = most.max(peak.and_then(|it| it.parse::<u64>().ok()).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(child.wait().unwrap().success());
        ours.push(started.elapsed());
        // Before the others, of whose revisions it knows nothing.
        skipping.push(run(&mut xtask(&skip)));
        theirs.push(run(&mut shell(JOBS)));
    }
    // That takes its time, too.
    let alone = (rounds > 1).then(|| run(&mut shell(1)));
    run(&mut xtask(&["local", "down"]));
    std::fs::remove_dir_all(&repo).unwrap();
    let (ours, theirs, skipping) = (median(ours), median(theirs), median(skipping));
    println!("deploy of {many} unchanged hubs, --jobs {JOBS}  {ours:?}, at most {most} kB");
    println!("with --skip-unchanged                {skipping:?}");
    println!("xargs -P{JOBS} helm and rollout status    {theirs:?}");
    if let Some(alone) = alone {
        println!("the same one after another           {alone:?}");
    }
    for (what, time) in [("", ours), ("with --skip-unchanged", skipping)] {
        let ratio = time.as_secs_f64() / theirs.as_secs_f64();
        println!("ratio to xargs {what:<21} {ratio:.2}");
    }
}

/// The kubeconfig of the one rehearsal cluster, which is up.
fn kubeconfig(xtask: impl Fn(&[&str]) -> Command) -> String {
    let status = stdout(&mut xtask(&["local", "status"]));
    let (_, kubeconfig) = status.trim().split_once("KUBECONFIG=").expect("it is up");
    kubeconfig.to_owned()
}

/// PATH with the programs that `setup` built.
fn path(xtask: impl Fn(&[&str]) -> Command) -> String {
    let built = stdout(&mut xtask(&["setup", "--print-path"]));
    format!("{}:{}", built.trim(), env::var("PATH").unwrap())
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

fn tempdir() -> std::path::PathBuf {
    let dir = Path::new("/dev/shm").join(format!("xtask-bench-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    dir
}
