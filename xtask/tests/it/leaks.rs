//! A marker in an encrypted file, and the search for it everywhere.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use crate::repo::{Key, Repo, Shared, executable, tool_path, wait_until};

/// Each test looks for a marker of its own, since they run side by side, and so may whole runs on a machine.
fn marker(hub: &str) -> String {
    format!("wandering-albatross-of-{hub}-{}", std::process::id())
}
const MULTILINE: &str =
    "-----BEGIN NOTHING-----\\nc3VyZWx5IG5vdCBhIGtleQ==\\n\\\"quoted\\\"<>&'and-so-on'\\n";

/// A deploy with the marker that stops before its helm, until the file `go` is there.
fn held(cluster: &Shared, hub: &str) -> (Repo, PathBuf, PathBuf) {
    let mut repo = Repo::on(cluster, &[hub]);
    let key = Key::new();
    repo.has_key(&key);
    let values = format!("config/clusters/lake/{hub}.values.yaml");
    repo.write(
        &values,
        &format!("note: {}\ntoken: \"{MULTILINE}\"\n", marker(hub)),
    );
    repo.encrypt(&values, &key);
    assert!(!repo.read(&values).contains(&marker(hub)));
    let (at, go) = (repo.home().join("at"), repo.home().join("go"));
    repo.script(
        "helm",
        &format!(
            "case \"$1\" in upgrade) touch {}; until [ -e {} ]; do sleep 0.05; done ;; esac\nexec {} \"$@\"",
            at.display(),
            go.display(),
            tool_path("helm").display()
        ),
    );
    (repo, at, go)
}

/// Files changed since `start` that hold the marker, on every file system but /proc and /sys; the rehearsal clusters'
/// data may hold it.
pub(crate) fn on_disk(marker: &str, start: SystemTime) -> Vec<PathBuf> {
    let devices: Vec<_> = [
        "/",
        "/dev/shm",
        "/tmp",
        "/run",
        "/var/tmp",
        env!("CARGO_TARGET_TMPDIR"),
    ]
    .iter()
    .filter(|it| Path::new(it).is_dir())
    .collect();
    let since = start
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        - 1;
    let output = Command::new("find")
        .args(devices)
        .args(["-xdev", "-type", "f", "-newermt"])
        .arg(format!("@{since}"))
        .output()
        .unwrap();
    let uid = fs::metadata("/proc/self").unwrap().uid();
    let rehearsals = format!("/dev/shm/xtask-{uid}/");
    let found = String::from_utf8_lossy(&output.stdout);
    // One folder may be below another.
    let files: BTreeSet<_> = found
        .lines()
        .map(PathBuf::from)
        .filter(|it| !it.starts_with(&rehearsals))
        .collect();
    let files: Vec<_> = files.into_iter().collect();
    files
        .chunks(500)
        .flat_map(|some| holding(marker, some))
        .collect()
}

/// Those of these files that hold the marker. By grep, since others on the machine may write much meanwhile; it's told the
/// marker by its stdin, and not in an argument.
fn holding(marker: &str, files: &[PathBuf]) -> Vec<PathBuf> {
    let mut grep = Command::new("grep")
        .args(["--fixed-strings", "--text", "--files-with-matches"])
        .args(["--no-messages", "--devices=skip", "--file=-", "--"])
        .args(files)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = grep.stdin.take().unwrap();
    stdin.write_all(marker.as_bytes()).unwrap();
    drop(stdin);
    let found = String::from_utf8(grep.wait_with_output().unwrap().stdout).unwrap();
    found.lines().map(PathBuf::from).collect()
}

fn contains(bytes: &[u8], marker: &str) -> bool {
    bytes
        .windows(marker.len())
        .any(|it| it == marker.as_bytes())
}

pub(crate) fn in_arguments(marker: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().map(|it| it.unwrap().path());
    let lines = processes.filter_map(|it| fs::read(it.join("cmdline")).ok());
    lines
        .filter(|it| contains(it, marker))
        .map(|it| String::from_utf8_lossy(&it).into_owned())
        .collect()
}

#[test]
fn the_search_finds_what_lies_around() {
    let repo = Repo::new();
    let marker = marker("a-decoy");
    let start = SystemTime::now();
    let decoy = repo.home().join("decoy");
    fs::write(&decoy, format!("some text {marker} around it")).unwrap();
    assert_eq!(on_disk(&marker, start), std::slice::from_ref(&decoy));
}

#[test]
fn no_secret_on_a_disk_or_a_command_line() {
    let cluster = Shared::cluster();
    let (repo, at, go) = held(&cluster, "leaks");
    let marker = marker("leaks");
    let start = SystemTime::now();
    let mut child = repo.start("deploy lake --debug");
    wait_until("helm", || at.exists());
    assert_eq!(
        (on_disk(&marker, start), in_arguments(&marker)),
        (vec![], vec![]),
        "while at work"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        on_disk(&marker, start),
        Vec::<PathBuf>::new(),
        "after kill -9"
    );

    fs::write(go, "").unwrap();
    let ran = repo.ok("deploy lake --debug");
    assert!(ran.stderr.contains("level=DEBUG"), "{}", ran.stderr);
    assert_eq!(
        cluster.kubectl("get configmap pond -n leaks -o jsonpath={.data.note}"),
        marker
    );
    assert_eq!(
        on_disk(&marker, start),
        Vec::<PathBuf>::new(),
        "after the deploy"
    );
}

#[test]
fn no_secret_in_any_output() {
    let cluster = Shared::cluster();
    let (repo, _, go) = held(&cluster, "silence");
    let marker = marker("silence");
    fs::write(go, "").unwrap();
    let encoded = |before: &str| {
        let output = Command::new("sh")
            .args(["-c", &format!("printf %s '{before}{marker}' | base64 -w0")])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()[4..28].to_owned()
    };
    let check = |args: &str| {
        let ran = repo.run(args);
        let all = ran.stdout + &ran.stderr;
        let forms = [
            marker.clone(),
            encoded(""),
            encoded("x"),
            encoded("xx"),
            "c3VyZWx5IG5vdCBhIGtleQ".into(),
            "quoted".into(),
            "/proc/".into(),
        ];
        for form in forms {
            assert!(!all.contains(&form), "{args} shows {form}:\n{all}");
        }
        all
    };
    for args in [
        "deploy lake --dry-run",
        "deploy lake --dry-run --debug",
        "deploy lake",
        "deploy lake --debug",
    ] {
        let all = check(args);
        assert!(
            !args.contains("--dry-run") || all.contains("note: '***'"),
            "{all}"
        );
    }
    // helm quotes a value in the message of a failing template, and of a schema.
    repo.edit(
        "helm-charts/pond/templates/all.yaml",
        ".Values.fail",
        ".Values.note",
    );
    let all = check("deploy lake");
    assert!(all.contains("the pond is dry: ***"), "{all}");
    repo.edit(
        "helm-charts/pond/values.schema.yaml",
        "note: {type: string}",
        "note: {enum: [other]}",
    );
    let all = check("deploy lake");
    assert!(all.contains("/note"), "{all}");
}

#[test]
fn a_helm_that_prints_all_it_reads() {
    let cluster = Shared::cluster();
    let (repo, ..) = held(&cluster, "prints");
    executable(
        &repo.home().parent().unwrap().join("bin/helm"),
        "[ \"$1\" = version ] && exec echo v4.3.1\n\
         for it in \"$@\"; do case $it in /proc/*) echo \"reading $it\" >&2; cat \"$it\" >&2 ;; esac; done\nexit 1",
    );
    let said = repo.fails("deploy lake");
    assert!(
        said.contains("reading config/clusters/lake/prints.values.yaml\n"),
        "{said}"
    );
    assert!(said.contains("note: ***"), "{said}");
    assert!(
        !said.contains(&marker("prints")) && !said.contains("c3VyZWx5"),
        "{said}"
    );
}

/// It gets its time and half a minute more, and is killed when it doesn't end by itself.
#[test]
fn a_helm_that_hangs() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["hangs", "goes-on"]);
    let key = Key::new();
    repo.has_key(&key);
    let values = "config/clusters/lake/hangs.values.yaml";
    repo.write(values, &format!("note: {}\n", marker("hangs")));
    repo.encrypt(values, &key);
    repo.script(
        "helm",
        &format!(
            "case \"$*\" in *'--namespace hangs'*) for it in \"$@\"; do case $it in /proc/*) cat $it >&2 ;; esac; done\n\
             trap '' TERM; while :; do sleep 0.1; done ;; esac\nexec {} \"$@\"",
            tool_path("helm").display()
        ),
    );
    let ran = repo.run("deploy lake --timeout 10s --jobs 2");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .contains("`hangs` failed: `helm`: did not end within 40 s"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stdout.contains("goes-on              deployed"),
        "{}",
        ran.stdout
    );
    assert!(!(ran.stdout + &ran.stderr).contains(&marker("hangs")));
}
