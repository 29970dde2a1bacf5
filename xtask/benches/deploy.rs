//! What a warm `deploy local` of two unchanged hubs costs beside the programs that it runs: `cargo bench --bench deploy`
//! in the repository, with the rehearsal cluster of this checkout. Ours and the bare programs take turns; the ratio of
//! the medians is what counts, since machines are noisy.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    reason = "it measures programs as a person runs them"
)]

mod measure;

use std::{env, path::Path, process::Command};

use measure::{median, run};

const ROUNDS: usize = 15;
const HUBS: [&str; 2] = ["staging", "demo"];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let xtask = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(args).current_dir(root);
        command
    };
    let text = |command: &mut Command| String::from_utf8(command.output().unwrap().stdout).unwrap();
    run(&mut xtask(&["deploy", "local"]));
    let status = text(&mut xtask(&["local", "status"]));
    let kubeconfig = status.trim().split_once("KUBECONFIG=").expect("it is up").1.to_owned();
    let path =
        format!("{}:{}", text(&mut xtask(&["setup", "--print-path"])).trim(), env::var("PATH").unwrap());
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-euc", script]).current_dir(root).env("PATH", &path).env("KUBECONFIG", &kubeconfig);
        command.env("SOPS_AGE_KEY_FILE", root.join("config/clusters/local/demo.age.key"));
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
    println!("ratio                             {:.2}", ours.as_secs_f64() / theirs.as_secs_f64());
    println!("--help                            {:?}", median(starts));
}

fn tempdir() -> std::path::PathBuf {
    let dir = Path::new("/dev/shm").join(format!("xtask-bench-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    dir
}
