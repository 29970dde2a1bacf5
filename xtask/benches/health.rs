//! How long a health check takes, and what of it is the hub's: `cargo bench --bench health` in the repository, with the
//! rehearsal cluster up on a real node.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    reason = "it measures programs as a person runs them"
)]

mod measure;

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use measure::{median, output, run};
use serde_json::Value;

const ROUNDS: usize = 10;

/// Waiting for pods to come and to go.
const THE_HUBS: [&str; 2] = ["server", "end"];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut times: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let xtask = |args: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(args.split(' ')).current_dir(root);
        command
    };
    run(&mut xtask("deploy local staging"));
    for _ in 0..ROUNDS {
        let check = "run-hub-health-check local staging --attempts 1 --format json";
        let (whole, report) = output(&mut xtask(check));
        let report: Value = serde_json::from_slice(&report).unwrap();
        let mut ours = whole;
        for phase in report["attempts"][0]["phases"].as_array().unwrap() {
            let name = phase["name"].as_str().unwrap();
            let time = Duration::from_secs_f64(phase["seconds"].as_f64().unwrap());
            if THE_HUBS.contains(&name) {
                ours -= time;
            }
            times.entry(name.to_owned()).or_default().push(time);
        }
        times.entry("all".to_owned()).or_default().push(whole);
        times
            .entry(format!("all but {}", THE_HUBS.join(" and ")))
            .or_default()
            .push(ours);
    }
    for (name, times) in times {
        println!("{name:<24} {:.2?}", median(times));
    }
}
