//! What `generate helm-upgrade-jobs` costs for one changed file: `cargo bench --bench generate -- FLEET` for the fleet in a
//! folder of that name, with cargo's own start and without, and for one that is forty times as large.
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
    process::Command,
};

use measure::{median, output, run};

const ROUNDS: usize = 15;
const TIMES: usize = 40;

fn main() {
    // cargo adds an argument of its own.
    let fleet = env::args()
        .skip(1)
        .find(|it| !it.starts_with("--"))
        .expect("the fleet's folder");
    let fleet = Path::new(&fleet).canonicalize().unwrap();
    let clusters = fleet.join("config/clusters");
    let values = fs::read_dir(&clusters)
        .unwrap()
        .map(|it| it.unwrap().path().join("common.values.yaml"));
    let changed = values
        .filter(|it| it.is_file())
        .min()
        .expect("a cluster with common.values.yaml");
    let changed = changed.strip_prefix(&fleet).unwrap();
    let large = many(&clusters);
    let args = |mut command: Command, root: &Path| {
        command
            .arg("--root")
            .arg(root)
            .args(["generate", "helm-upgrade-jobs"])
            .arg(changed);
        command
    };
    let measured = |root: &Path| {
        let mut command = Command::new("/usr/bin/time");
        let file = large.join("memory");
        command
            .args(["-f", "%M", "-o"])
            .arg(&file)
            .arg(env!("CARGO_BIN_EXE_xtask"));
        let mut command = args(command, root);
        let times = (0..ROUNDS).map(|_| run(&mut command)).collect();
        format!(
            "{:?}, at most {} KB",
            median(times),
            fs::read_to_string(&file).unwrap().trim()
        )
    };
    let mut cargo = Command::new("cargo");
    cargo
        .arg("xtask")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
    let mut cargo = args(cargo, &fleet);
    let (_, jobs) = output(&mut cargo);
    assert!(
        String::from_utf8(jobs)
            .unwrap()
            .contains("common.values.yaml")
    );
    println!(
        "cargo xtask           {:?}",
        median((0..ROUNDS).map(|_| run(&mut cargo)).collect())
    );
    println!("the program           {}", measured(&fleet));
    println!("{TIMES} such fleets        {}", measured(&large));
    fs::remove_dir_all(&large).unwrap();
}

/// A repository that has each of these clusters so many times.
fn many(clusters: &Path) -> PathBuf {
    let dir = Path::new("/dev/shm").join(format!("xtask-bench-{}", std::process::id()));
    let to = dir.join("config/clusters");
    fs::create_dir_all(&to).unwrap();
    for copy in 1..=TIMES {
        let script = format!(
            "cd {} && for it in *; do [ ! -d $it ] || cp -r $it {}/$it-{copy}; done",
            clusters.display(),
            to.display()
        );
        run(Command::new("sh").args(["-euc", &script]));
    }
    run(Command::new("sh").args([
        "-euc",
        &format!(
            "cp -r {} {}",
            clusters.display(),
            dir.join("config").display()
        ),
    ]));
    let charts = clusters
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("helm-charts");
    // A link to them would lead out of the repository.
    let mut copy = Command::new("cp");
    run(copy.arg("-r").arg(charts).arg(dir.join("helm-charts")));
    dir
}
