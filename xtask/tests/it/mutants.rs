//! Made-up input, in one process: whatever a file says, reading it ends, in time and in memory, and writes nothing outside
//! of the cache.
//!
//! Each mutant follows from a seed and its number. To run more of them:
//! `MUTANTS=20000 MUTANTS_SEED=7 cargo test --release --test it -- mutants::`; `MUTANTS_FROM=123 MUTANTS=1` runs one again.

#![allow(clippy::print_stdout, reason = "a run by hand tells what came of it")]

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use xshell::Shell;
use xtask::{
    commands::validate,
    machine::{programs, tree::Tree},
};

use crate::{
    repo::{Repo, tool_path},
    upstream::Server,
};

/// How many mutants of each kind the suite runs, and what they follow from.
const COUNT: usize = 300;
const SEED: usize = 19;

/// More than this, one mutant must not take. One that takes twelve times as long by the clock hangs.
const MOST_TIME: Duration = Duration::from_secs(10);
const MOST_MEMORY: usize = 1 << 30;

/// Says to the test's own process that it runs the mutants, in this folder.
const CHILD: &str = "XTASK_MUTANTS_IN";

#[test]
fn chart_yaml() {
    run("chart_yaml", |bench, dice| {
        let file = bench.root().join("helm-charts/pond/Chart.yaml");
        fs::write(file, text(CHART.as_bytes(), dice)).unwrap();
    });
}

#[test]
fn cluster_yaml() {
    run("cluster_yaml", |bench, dice| {
        let seed = fs::read(bench.seeds.join("cluster.yaml")).unwrap();
        let file = bench.root().join("config/clusters/lake/cluster.yaml");
        fs::write(file, text(&seed, dice)).unwrap();
    });
}

#[test]
fn sops_block() {
    run("sops_block", |bench, dice| {
        let seed = fs::read(bench.seeds.join("enc.secret.values.yaml")).unwrap();
        let file = bench.root().join(ENCRYPTED);
        // What lies before the block is values.
        let block = seed.windows(5).position(|it| it == b"sops:").unwrap();
        let (values, block) = seed.split_at(block);
        fs::write(file, [values, &text(block, dice)].concat()).unwrap();
    });
}

#[test]
fn index_yaml() {
    run("index_yaml", |bench, dice| {
        let seed = fs::read(bench.seeds.join("index.yaml")).unwrap();
        fs::write(bench.published.join("index.yaml"), text(&seed, dice)).unwrap();
        let _ = fs::remove_dir_all(bench.cache().join("dependencies"));
    });
}

#[test]
fn archive() {
    run("archive", |bench, dice| {
        let file = bench
            .root()
            .join("helm-charts/pond/charts/pebble-0.1.0.tgz");
        fs::write(file, packed(dice)).unwrap();
    });
}

const ENCRYPTED: &str = "config/clusters/lake/enc-staging.secret.values.yaml";

/// Of every kind of dependency: in a folder, in charts/, in a chart repository.
const CHART: &str = "apiVersion: v2
name: pond
version: 0.1.0
appVersion: \"1.0\"
dependencies:
  - name: stone
    version: 0.1.0
    repository: file://../stone
  - name: pebble
    alias: gravel
    version: 0.1.0
    repository: https://charts.example.org
    condition: gravel.enabled
    tags: [small]
    import-values: [data, {child: default, parent: note}]
";
const FROM_REPOSITORY: &str = "  - name: sand
    version: 0.1.0
    repository: http://ADDRESS
";

/// Where mutants are tried: a repository with a chart of every kind of dependency.
struct Bench {
    base: PathBuf,
    seeds: PathBuf,
    published: PathBuf,
}

impl Bench {
    fn at(base: &Path) -> Bench {
        Bench {
            base: base.to_owned(),
            seeds: base.join("home/seeds"),
            published: base.join("home/published"),
        }
    }

    fn root(&self) -> PathBuf {
        self.base.join("repo")
    }

    fn cache(&self) -> PathBuf {
        self.base.join("cache/xtask")
    }

    fn fill(&self, repo: &Repo) {
        fs::create_dir_all(&self.seeds).unwrap();
        fs::create_dir_all(&self.published).unwrap();
        repo.write("helm-charts/pond/Chart.yaml", CHART);
        fs::create_dir(self.root().join("helm-charts/pond/charts")).unwrap();
        let pebble = pack(&chart_entries("pebble"));
        fs::write(
            self.root().join("helm-charts/pond/charts/pebble-0.1.0.tgz"),
            pebble,
        )
        .unwrap();
        let sand = pack(&chart_entries("sand"));
        fs::write(self.published.join("sand-0.1.0.tgz"), &sand).unwrap();
        let index = "apiVersion: v1\nentries:\n  sand:\n    - apiVersion: v2\n      name: sand\n      version: 0.1.0\n      \
                     created: 2024-01-02T03:04:05Z\n      urls: [sand-0.1.0.tgz]\n      \
                     digest: null\n    - name: sand\n      version: 0.0.9\n      urls:\n        - /sand-0.0.9.tgz\n\
                     generated: 2024-01-02T03:04:05Z\n";
        fs::write(self.seeds.join("index.yaml"), index).unwrap();
        fs::write(self.published.join("index.yaml"), index).unwrap();
        repo.edit(
            "config/clusters/lake/cluster.yaml",
            "[common.values.yaml, staging.values.yaml]",
            "[common.values.yaml, staging.values.yaml, enc-staging.secret.values.yaml]",
        );
        let cluster = repo.read("config/clusters/lake/cluster.yaml");
        fs::write(self.seeds.join("cluster.yaml"), cluster).unwrap();
        // Encrypted once and for all: sops writes another text each time.
        let encrypted =
            include_str!("../../../config/clusters/local/enc-staging.secret.values.yaml");
        repo.write(ENCRYPTED, encrypted);
        let rules = "creation_rules: [{age: age1xf3r2zrlx8f06vhq4hnx8nvk3xqldtr7knnsd77zyg8mel6sjs2qcyhn9y}]\n";
        repo.write(".sops.yaml", rules);
        fs::write(self.seeds.join("enc.secret.values.yaml"), encrypted).unwrap();
    }
}

/// Runs the mutants that `make` writes, in a process of their own, and checks what they leave behind.
fn run(name: &str, make: impl Fn(&Bench, &mut Dice)) {
    if let Some(base) = env::var_os(CHILD) {
        return run_here(&Bench::at(Path::new(&base)), name, make);
    }
    let repo = Repo::new();
    let base = repo.root.parent().unwrap();
    let bench = Bench::at(base);
    bench.fill(&repo);
    let before = outside_of_the_cache(base);
    let output = apart(&repo, base, name);
    let said = String::from_utf8_lossy(&output.stdout);
    for line in said.lines().filter(|it| it.starts_with(name)) {
        println!("{line}");
    }
    let at = fs::read_to_string(repo.home().join("at")).unwrap_or_default();
    let stderr = fs::read(repo.home().join("stderr")).unwrap();
    let end = &stderr[stderr.len().saturating_sub(3000)..];
    assert!(
        output.status.success(),
        "{name}, mutant {at}: {said}{}",
        String::from_utf8_lossy(end)
    );
    assert_eq!(outside_of_the_cache(base), before);
    nothing_strange_in_the_cache(&bench);
}

/// Runs this test again in a process of its own: a mutant may end it, and its memory is measured.
fn apart(repo: &Repo, base: &Path, name: &str) -> Output {
    let helm = tool_path("helm");
    let path = format!("{}:/usr/bin:/bin", helm.parent().unwrap().display());
    let stderr = fs::File::create(repo.home().join("stderr")).unwrap();
    Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("mutants::{name}"), "--nocapture"])
        .current_dir(&repo.root)
        .env_clear()
        .env("PATH", path)
        .env("HOME", repo.home())
        .env("XDG_CACHE_HOME", repo.cache())
        // Nothing but this machine is reached, whatever address a mutant names.
        .envs(["HTTP_PROXY", "HTTPS_PROXY"].map(|it| (it, "http://127.0.0.1:1")))
        .env("NO_PROXY", "127.0.0.1")
        .env(CHILD, base)
        .envs(env::vars().filter(|(name, _)| name.starts_with("MUTANTS")))
        .stdin(Stdio::null())
        .stderr(Stdio::from(stderr))
        .output()
        .unwrap()
}

/// What became of the mutants.
#[derive(Default)]
struct Outcome {
    accepted: usize,
    refused: usize,
    panicked: Vec<usize>,
    slowest: Duration,
}

/// Runs the mutants in this process.
fn run_here(bench: &Bench, name: &str, make: impl Fn(&Bench, &mut Dice)) {
    let number = |name: &str, default| env::var(name).map_or(default, |it| it.parse().unwrap());
    let seed = number("MUTANTS_SEED", SEED);
    let from = number("MUTANTS_FROM", 0);
    let count = number("MUTANTS", COUNT);
    let server = Server::serving(&bench.published);
    if name == "index_yaml" {
        let chart = CHART.to_owned() + &FROM_REPOSITORY.replace("http://ADDRESS", &server.address);
        fs::write(bench.root().join("helm-charts/pond/Chart.yaml"), chart).unwrap();
    }
    let mut outcome = Outcome::default();
    outcome.run_all(bench, from..from + count, |number| {
        make(bench, &mut Dice::new(seed, number));
    });
    println!(
        "\n{name}: seed {seed}, {count} mutants: {} accepted, {} refused, {} panics, slowest {:?}, {} MB",
        outcome.accepted,
        outcome.refused,
        outcome.panicked.len(),
        outcome.slowest,
        memory() >> 20
    );
    let panicked = &outcome.panicked;
    assert!(panicked.is_empty(), "{panicked:?} panicked");
    assert!(outcome.slowest < MOST_TIME);
    restore(bench);
}

impl Outcome {
    fn run_all(&mut self, bench: &Bench, numbers: Range<usize>, make: impl Fn(usize)) {
        let sh = Shell::new().unwrap();
        sh.change_dir(bench.root());
        programs::leave_relative_path(&sh).unwrap();
        let report = || validate::report(&sh, &Tree::work_tree(&bench.root())?);
        let unchanged = report().unwrap();
        let watch = Watch::start();
        for number in numbers {
            watch.begins(number);
            fs::write(bench.base.join("home/at"), number.to_string()).unwrap();
            make(number);
            let started = processor_time();
            match catch_unwind(AssertUnwindSafe(report)) {
                Ok(Ok(report)) if report == unchanged => self.accepted += 1,
                Ok(_) => self.refused += 1,
                Err(_) => self.panicked.push(number),
            }
            self.slowest = self.slowest.max(processor_time() - started);
            assert!(memory() < MOST_MEMORY, "mutant {number} takes too much");
            if number % 50 == 0 {
                // What was prepared from earlier ones.
                let _ = fs::remove_dir_all(bench.cache().join("charts"));
            }
        }
    }
}

/// Puts the files back that mutants replaced.
fn restore(bench: &Bench) {
    let root = bench.root();
    let seed = |name: &str| fs::read(bench.seeds.join(name)).unwrap();
    fs::write(root.join("helm-charts/pond/Chart.yaml"), CHART).unwrap();
    fs::write(
        root.join("config/clusters/lake/cluster.yaml"),
        seed("cluster.yaml"),
    )
    .unwrap();
    fs::write(root.join(ENCRYPTED), seed("enc.secret.values.yaml")).unwrap();
    fs::write(bench.published.join("index.yaml"), seed("index.yaml")).unwrap();
    let pebble = pack(&chart_entries("pebble"));
    fs::write(
        root.join("helm-charts/pond/charts/pebble-0.1.0.tgz"),
        pebble,
    )
    .unwrap();
}

/// Ends this process when a mutant takes too long.
struct Watch(Arc<(AtomicUsize, Mutex<Instant>)>);

impl Watch {
    fn start() -> Watch {
        let watch = Arc::new((AtomicUsize::new(0), Mutex::new(Instant::now())));
        let watched = watch.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(500));
                if watched.1.lock().unwrap().elapsed() > 12 * MOST_TIME {
                    let number = watched.0.load(Ordering::SeqCst);
                    println!("\nmutant {number} does not come to an end");
                    std::process::exit(1);
                }
            }
        });
        Watch(watch)
    }

    fn begins(&self, number: usize) {
        self.0.0.store(number, Ordering::SeqCst);
        *self.0.1.lock().unwrap() = Instant::now();
    }
}

/// How long this process has been at work, whatever else the machine does: the 14th and 15th field of its `stat`, in
/// hundredths of a second.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|it| it.parse::<u64>().ok())
        .sum();
    Duration::from_millis(10 * ticks)
}

/// The most memory that this process has had.
fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let kilobytes = most.and_then(|it| it.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kilobytes.unwrap_or_default() << 10
}

/// All files but those of the cache, with their length and content, and what lies beside the folder.
fn outside_of_the_cache(base: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["repo", "home"] {
        add_files(&base.join(folder), &mut found);
    }
    for folder in [base, &base.join("cache"), Path::new("/tmp"), Path::new("/")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if folder.starts_with(base) || path.to_string_lossy().contains("escaped") {
                found.insert(path, Vec::new());
            }
        }
    }
    found
}

fn add_files(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type().unwrap().is_dir() {
            add_files(&path, found);
        } else if name != "at" && name != "stderr" {
            found.insert(path.clone(), fs::read(path).unwrap_or_default());
        }
    }
}

/// No links, and no file in a place that a mutant chose.
fn nothing_strange_in_the_cache(bench: &Bench) {
    for entry in fs::read_dir(bench.cache()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let known = ["charts", "dependencies", "documents", "tools"];
        assert!(known.contains(&&*name), "{name} in the cache");
        if name != "tools" {
            no_links(&entry.path());
        }
    }
}

fn no_links(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        assert!(
            kind.is_dir() || kind.is_file(),
            "{}",
            entry.path().display()
        );
        if kind.is_dir() {
            no_links(&entry.path());
        }
    }
}

/// Numbers that follow from a seed: splitmix64.
struct Dice(u64);

impl Dice {
    fn new(seed: usize, number: usize) -> Dice {
        let mut dice = Dice(seed as u64 ^ (number as u64).wrapping_mul(0xd134_2543_de82_ef95));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A part of something of this length.
    fn range(&mut self, length: usize) -> Range<usize> {
        let start = self.below(length);
        let end = start + self.below((length - start).min(80)) + 1;
        start..end.min(length)
    }
}

/// Scalars and names that mean something elsewhere.
const TOKENS: &[&str] = &[
    "..",
    "../escaped",
    "../../../../escaped",
    "/tmp/escaped",
    "/escaped",
    "/etc/passwd",
    "-escaped",
    "--help",
    ".",
    "",
    "~",
    "null",
    "true",
    "[]",
    "{}",
    "''",
    "1e999999999",
    "-0x8000000000000000",
    "99999999999999999999999999",
    "0o777",
    ".inf",
    ".nan",
    "9223372036854775808",
    "2001-99-99T99:99:99Z",
    "0001-01-01",
    "!!binary aGk=",
    "!!python/object:x {}",
    "!!map []",
    "&a [*a]",
    "*nobody",
    "<<: {a: b}",
    "? [a]: b",
    "- - - -",
    "--- ",
    "...",
    "%YAML 9.9",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "\0",
    "\u{1b}]0;escaped\u{7}",
    "\r",
    "\t",
    "\"\\ud800\"",
    "\"\\x00\"",
    "|9",
    ">-",
    "file:///etc",
    "file://..",
    "file://",
    "file://../pond",
    "file://.",
    "oci://",
    "oci://127.0.0.1:1/x",
    "http://127.0.0.1:1/escaped",
    "https://",
    "://",
    "%00",
    "${HOME}",
    "$(touch escaped)",
    "`escaped`",
    "{{ .Values }}",
    ">=0.0.0-0 <99999999999999999999",
    "^^1",
    "*",
    "v1",
    "1.2.3+/..",
    "1.2.3-../../../escaped",
    "0.1.0\u{202e}",
    "ENC[AES256_GCM,data:,iv:,tag:,type:str]",
    "ENC[",
    "a\u{301}\u{301}\u{301}",
    "sops:",
    "name:",
    "dependencies:",
    "hubs:",
    "entries:",
    "version:",
    "recipient: age1",
    "path_regex: '('",
];

/// A text with one to four changes.
fn text(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut text = seed.to_vec();
    for _ in 0..=dice.below(4) {
        change(&mut text, dice);
    }
    text
}

fn change(text: &mut Vec<u8>, dice: &mut Dice) {
    let part = dice.range(text.len());
    let token = *dice.one(TOKENS);
    match dice.below(16) {
        0 => _ = text.drain(part),
        1 => {
            let again = text[part.clone()].to_vec();
            text.splice(part.end..part.end, again);
        }
        2 => {
            if let Some(byte) = text.get_mut(part.start) {
                *byte ^= 1 << dice.below(8);
            }
        }
        3 => _ = text.splice(part.start..part.start, token.bytes()),
        4 => _ = text.splice(part, token.bytes()),
        5 => text.truncate(part.start),
        6 => lines(text, dice, |lines, dice| {
            let (a, b) = (dice.below(lines.len()), dice.below(lines.len()));
            lines.swap(a, b);
        }),
        7 => lines(text, dice, |lines, dice| {
            _ = lines.remove(dice.below(lines.len()))
        }),
        8 => lines(text, dice, |lines, dice| {
            let line = lines[dice.below(lines.len())].clone();
            lines.insert(dice.below(lines.len()), line);
        }),
        9 => lines(text, dice, |lines, dice| {
            let width = dice.below(12);
            let number = dice.below(lines.len());
            let line = &mut lines[number];
            let start = line.iter().position(|it| *it != b' ').unwrap_or(0);
            line.splice(..start, vec![b' '; width]);
        }),
        10..=12 => value(text, token.as_bytes(), dice),
        13 => value(text, &monster(dice), dice),
        14 => text.extend(monster(dice)),
        _ => _ = text.splice(part.start..part.start, monster(dice)),
    }
}

fn lines(text: &mut Vec<u8>, dice: &mut Dice, edit: impl Fn(&mut Vec<Vec<u8>>, &mut Dice)) {
    let mut lines: Vec<_> = text.split(|it| *it == b'\n').map(<[u8]>::to_vec).collect();
    edit(&mut lines, dice);
    *text = lines.join(&b'\n');
}

/// Replaces what one line has after its first colon.
fn value(text: &mut Vec<u8>, value: &[u8], dice: &mut Dice) {
    lines(text, dice, |lines, dice| {
        let number = dice.below(lines.len());
        let line = &mut lines[number];
        if let Some(colon) = line.iter().position(|it| *it == b':') {
            line.truncate(colon + 1);
            line.push(b' ');
            line.extend(value);
        }
    });
}

/// What is small in one form and large in another, or never ends.
fn monster(dice: &mut Dice) -> Vec<u8> {
    let many = 10_usize.pow(1 + dice.below(4) as u32);
    let text = match dice.below(9) {
        0 => "[".repeat(many),
        1 => format!("{}x{}", "[".repeat(many), "]".repeat(many)),
        2 => "{a: ".repeat(many),
        3 => format!("\n{}", "- ".repeat(many)),
        4 => bomb(many.min(30)),
        5 => format!(
            "\nbase: &a {{x: &b [*a], y: *b, <<: [*a, *a]}}\n{}",
            "<<: *a\n".repeat(many)
        ),
        6 => "x".repeat(many * 10),
        7 => format!(
            "\n{}",
            (0..many)
                .map(|it| format!("k{it}: {it}\n"))
                .collect::<String>()
        ),
        _ => "9".repeat(many),
    };
    text.into_bytes()
}

/// A billion laughs.
fn bomb(depth: usize) -> String {
    let mut text = String::from("\na0: &a0 [lol, lol, lol]\n");
    for level in 1..depth {
        let before = level - 1;
        text += &format!("a{level}: &a{level} [*a{before}, *a{before}, *a{before}, *a{before}]\n");
    }
    text
}

/// An entry of an archive, as its header says and as it is.
#[derive(Clone)]
struct Entry {
    path: Vec<u8>,
    kind: u8,
    link: Vec<u8>,
    /// What the header says, if that is not the content's.
    size: Option<Vec<u8>>,
    content: Vec<u8>,
}

fn entry(path: &str, content: &str) -> Entry {
    Entry {
        path: path.into(),
        kind: b'0',
        link: Vec::new(),
        size: None,
        content: content.into(),
    }
}

fn chart_entries(name: &str) -> Vec<Entry> {
    let chart = format!("apiVersion: v2\nname: {name}\nversion: 0.1.0\n");
    let dependency = "apiVersion: v1\nname: grain\nversion: 0.1.0\n";
    vec![
        entry(&format!("{name}/Chart.yaml"), &chart),
        entry(
            &format!("{name}/values.yaml"),
            "enabled: true\nexports: {data: {x: 1}}\n",
        ),
        entry(
            &format!("{name}/values.schema.json"),
            "{\"type\": \"object\", \"$ref\": \"#/$defs/a\", \"$defs\": {\"a\": {}}}",
        ),
        entry(&format!("{name}/templates/a.yaml"), "a: {{ .Values.x }}\n"),
        entry(&format!("{name}/charts/grain/Chart.yaml"), dependency),
        entry(
            &format!("{name}/requirements.yaml"),
            "dependencies: [{name: grain, version: 0.1.0}]\n",
        ),
    ]
}

/// An archive with changes in its files, its headers or its bytes.
fn packed(dice: &mut Dice) -> Vec<u8> {
    let mut entries = chart_entries("pebble");
    for _ in 0..=dice.below(3) {
        change_entries(&mut entries, dice);
    }
    let mut tar = tar(&entries);
    if dice.below(4) == 0 {
        let header = 512 * dice.below(tar.len() / 512);
        for _ in 0..=dice.below(6) {
            let at = header + dice.below(512);
            if let Some(byte) = tar.get_mut(at) {
                *byte = dice.next() as u8;
            }
        }
    }
    let mut gz = gzip(&tar);
    match dice.below(12) {
        0 => gz.truncate(dice.below(gz.len())),
        1 => {
            let at = dice.below(gz.len());
            gz[at] ^= 1 << dice.below(8);
        }
        2 => gz.extend(gz.clone()),
        3 => gz = tar,
        4 => gz.extend(b"trailing"),
        5 => gz = gzip(&gz),
        _ => {}
    }
    gz
}

fn change_entries(entries: &mut Vec<Entry>, dice: &mut Dice) {
    let at = dice.below(entries.len());
    let token = *dice.one(TOKENS);
    let again = entries[at].clone();
    let is_small = entries.iter().all(|it| it.content.len() < TOO_LARGE);
    let is_only_one = entries.len() == 1;
    let entry = &mut entries[at];
    match dice.below(12) {
        0 => entry.path = [b"pebble/", token.as_bytes()].concat(),
        1 => entry.path = token.into(),
        2 => entry.path.extend(b"/../../../../escaped"),
        3 | 4 => {
            // Links, devices, folders, pipes, long names and what only extended headers have.
            entry.kind = *dice.one(b"1234567DKLMNSVXgx\0 ");
            entry.link = token.into();
        }
        5 => entry.size = Some(dice.one(SIZES).to_vec()),
        6 => entry.content = text(&entry.content, dice),
        7 => entry.content = monster(dice),
        8 if !is_only_one => _ = entries.remove(at),
        8 | 9 => entries.push(again),
        10 if dice.below(8) == 0 && is_small => entry.content = vec![0; TOO_LARGE],
        10 if is_small => entries.extend(vec![again; 200]),
        _ => {
            let long = "long/".repeat(100);
            entry.path = [b"pebble/", long.as_bytes()].concat();
        }
    }
}

/// More than helm takes, in a few packed bytes.
const TOO_LARGE: usize = 101 << 20;

const SIZES: &[&[u8]] = &[
    b"77777777777",
    b"00000000000",
    b"-0000000001",
    b"99999999999",
    b"           ",
    b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"00000000007",
];

fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        let mut header = [0_u8; 512];
        let put = |header: &mut [u8; 512], at: usize, most: usize, bytes: &[u8]| {
            let length = bytes.len().min(most);
            header[at..at + length].copy_from_slice(&bytes[..length]);
        };
        put(&mut header, 0, 100, &entry.path);
        put(&mut header, 100, 8, b"0000644\0");
        let size = format!("{:011o}", entry.content.len()).into_bytes();
        put(&mut header, 124, 12, entry.size.as_ref().unwrap_or(&size));
        put(&mut header, 136, 12, b"00000000000\0");
        header[156] = entry.kind;
        put(&mut header, 157, 100, &entry.link);
        put(&mut header, 257, 8, b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|it| u32::from(*it)).sum();
        put(&mut header, 148, 8, format!("{sum:06o}\0 ").as_bytes());
        tar.extend(header);
        tar.extend(&entry.content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn pack(entries: &[Entry]) -> Vec<u8> {
    gzip(&tar(entries))
}
