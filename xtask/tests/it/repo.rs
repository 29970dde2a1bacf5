//! A temporary repository, and the program run in it.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A repository with a home and a cache of its own, removed at the end.
pub(crate) struct Repo {
    pub(crate) root: PathBuf,
    base: PathBuf,
    pub(crate) env: Vec<(String, String)>,
    /// Whether a rehearsal cluster of this repository may be up.
    pub(crate) local: bool,
}

pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Repo {
    /// A copy of tests/repo.
    pub(crate) fn new() -> Repo {
        let repo = Repo::empty();
        copy(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/repo"),
            &repo.root,
        );
        repo
    }

    /// A copy of this repository's own rehearsal cluster and charts.
    pub(crate) fn own() -> Repo {
        let mut repo = Repo::empty();
        for folder in ["config/clusters/local", "helm-charts"] {
            copy(&workspace().join(folder), &repo.root.join(folder));
        }
        repo.local = true;
        repo
    }

    fn empty() -> Repo {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let root = base.join("repo");
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(base.join("home")).unwrap();
        fs::create_dir_all(base.join("cache/xtask")).unwrap();
        std::os::unix::fs::symlink(tools(), base.join("cache/xtask/tools")).unwrap();
        Repo {
            root,
            base,
            env: Vec::new(),
            local: false,
        }
    }

    /// One on a cluster, whose hub has a second values file that is encrypted: `enc-HUB.secret.values.yaml`. It has the key.
    pub(crate) fn with_secret_file(cluster: &Shared, hub: &str) -> (Repo, Key) {
        let mut repo = Repo::on(cluster, &[hub]);
        let key = Key::new();
        repo.has_key(&key);
        repo.edit(
            "config/clusters/lake/cluster.yaml",
            &format!("{hub}.values.yaml]"),
            &format!("{hub}.values.yaml, enc-{hub}.secret.values.yaml]"),
        );
        (repo, key)
    }

    /// With the cluster `lake` on the rehearsal cluster that the tests share, and hubs of these names.
    pub(crate) fn on(cluster: &Shared, hubs: &[&str]) -> Repo {
        let repo = Repo::new();
        fs::copy(
            &cluster.kubeconfig,
            repo.root.join("config/clusters/lake/kubeconfig.yaml"),
        )
        .unwrap();
        let mut yaml =
            "name: lake\nprovider: kubeconfig\nkubeconfig: {file: kubeconfig.yaml}\nhubs:\n"
                .to_owned();
        for hub in hubs {
            yaml += &format!(
                "- name: {hub}\n  domain: {hub}.example.org\n  helm_chart: pond\n  \
                 helm_chart_values_files: [common.values.yaml, {hub}.values.yaml]\n"
            );
            repo.write(&format!("config/clusters/lake/{hub}.values.yaml"), "{}\n");
        }
        repo.write("config/clusters/lake/cluster.yaml", &yaml);
        repo
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let file = self.root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap()
    }

    pub(crate) fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "{path} doesn't have {from:?}");
        self.write(path, &text.replace(from, to));
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.base.join("home")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.base.join("cache")
    }

    /// Gives the repository a cache without the programs that `setup` built.
    pub(crate) fn without_tools(&self) {
        fs::remove_file(self.base.join("cache/xtask/tools")).unwrap();
    }

    /// A program of these lines at the front of PATH.
    pub(crate) fn script(&mut self, name: &str, lines: &str) {
        let bin = self.base.join("bin");
        fs::create_dir_all(&bin).unwrap();
        executable(&bin.join(name), lines);
        let path = env::var("PATH").unwrap();
        self.env.retain(|(it, _)| it != "PATH");
        self.env
            .push(("PATH".into(), format!("{}:{path}", bin.display())));
    }

    /// The program, not yet started, with no environment but what a person's shell needs.
    pub(crate) fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(args.split_whitespace())
            .current_dir(&self.root)
            .env_clear();
        command.env("PATH", env::var_os("PATH").unwrap());
        command
            .env("HOME", self.home())
            .env("XDG_CACHE_HOME", self.cache())
            .env("TERM", "dumb");
        // The checkout that the tests are in isn't theirs.
        command.env("GIT_CEILING_DIRECTORIES", env!("CARGO_TARGET_TMPDIR"));
        command.envs(self.env.iter().cloned());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, args: &str) -> Child {
        self.command(args).spawn().unwrap()
    }

    pub(crate) fn run(&self, args: &str) -> Ran {
        self.start(args).into()
    }

    /// Runs the program, which must succeed.
    pub(crate) fn ok(&self, args: &str) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args}\n{}{}", ran.stdout, ran.stderr);
        ran
    }

    /// Runs the program, which must fail, and returns what it said.
    pub(crate) fn fails(&self, args: &str) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(1), "{args}\n{}{}", ran.stdout, ran.stderr);
        ran.stdout + &ran.stderr
    }

    /// Encrypts a file in its place for `key`, as a person would.
    pub(crate) fn encrypt(&self, path: &str, key: &Key) {
        self.encrypt_by(path, key, "");
    }

    /// The same with a rule of what is encrypted, as .sops.yaml has it; empty for all.
    pub(crate) fn encrypt_by(&self, path: &str, key: &Key, rule: &str) {
        self.write(
            ".sops.yaml",
            &format!("creation_rules: [{{age: {}, {rule}}}]\n", key.public),
        );
        let output = tool("sops")
            .args(["encrypt", "--in-place", path])
            .current_dir(&self.root)
            .output()
            .unwrap();
        assert_succeeded(&output);
    }

    /// Lets sops find the key.
    pub(crate) fn has_key(&mut self, key: &Key) {
        let file = self.base.join("key.txt");
        fs::write(&file, &key.private).unwrap();
        self.env
            .push(("SOPS_AGE_KEY_FILE".into(), file.display().to_string()));
    }
}

impl Drop for Repo {
    fn drop(&mut self) {
        if self.local {
            self.env.clear();
            self.run("local down");
        }
        let _ = fs::remove_dir_all(&self.base);
    }
}

impl From<Child> for Ran {
    fn from(child: Child) -> Ran {
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Has a program, which this command starts, run another command in its folder and environment.
pub(crate) fn run_by(mut outer: Command, inner: &Command) -> Command {
    let variables = inner
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    outer
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(inner.get_current_dir().expect("it has one"))
        .env_clear()
        .envs(variables);
    outer
}

/// A new age key.
pub(crate) struct Key {
    pub(crate) public: String,
    pub(crate) private: String,
}

impl Key {
    pub(crate) fn new() -> Key {
        let private = String::from_utf8(tool("age-keygen").output().unwrap().stdout).unwrap();
        let public = private
            .lines()
            .find_map(|it| it.strip_prefix("# public key: "))
            .unwrap()
            .to_owned();
        Key { public, private }
    }
}

/// What tests share, as long as one of them has it.
pub(crate) fn shared<T>(up: &Mutex<Weak<T>>, start: impl FnOnce() -> T) -> Arc<T> {
    let mut up = up.lock().unwrap_or_else(|it| it.into_inner());
    if let Some(shared) = up.upgrade() {
        return shared;
    }
    let shared = Arc::new(start());
    *up = Arc::downgrade(&shared);
    shared
}

/// The rehearsal cluster that tests share: up as long as one of them has it.
pub(crate) struct Shared {
    _repo: Repo,
    pub(crate) kubeconfig: PathBuf,
}

impl Shared {
    pub(crate) fn cluster() -> Arc<Shared> {
        static UP: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
        shared(&UP, Shared::start)
    }

    /// One more.
    pub(crate) fn another() -> Arc<Shared> {
        Arc::new(Shared::start())
    }

    pub(crate) fn start() -> Shared {
        let mut repo = Repo::empty();
        repo.local = true;
        repo.write(
            "config/clusters/shared/cluster.yaml",
            "name: shared\nprovider: local\n",
        );
        let kubeconfig = kubeconfig(&repo.ok("local up").stdout);
        let shared = Shared {
            _repo: repo,
            kubeconfig,
        };
        shared.kubectl_apply(include_str!("stages.yaml"));
        shared
    }

    /// The output of a kubectl that must succeed.
    pub(crate) fn kubectl(&self, args: &str) -> String {
        kubectl(&self.kubeconfig, args)
    }

    /// What `helm history` tells of a hub.
    pub(crate) fn history(&self, hub: &str) -> String {
        let mut command = tool("helm");
        command
            .args(["history", hub, "--namespace", hub])
            .env("KUBECONFIG", &self.kubeconfig);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    pub(crate) fn kubectl_apply(&self, yaml: &str) {
        kubectl_apply(&self.kubeconfig, yaml);
    }
}

pub(crate) fn kubectl_apply(kubeconfig: &Path, yaml: &str) {
    let mut child = tool("kubectl")
        .args(["apply", "-f", "-"])
        .env("KUBECONFIG", kubeconfig)
        .env(
            "KUBECACHEDIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("kube"),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(yaml.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

/// The path that `local up` and `local status` print.
pub(crate) fn kubeconfig(printed: &str) -> PathBuf {
    printed
        .trim()
        .split_once("KUBECONFIG=")
        .unwrap_or_else(|| panic!("no path in {printed:?}"))
        .1
        .into()
}

pub(crate) fn kubectl(kubeconfig: &Path, args: &str) -> String {
    let output = tool("kubectl")
        .args(args.split_whitespace())
        .env("KUBECONFIG", kubeconfig)
        .env(
            "KUBECACHEDIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("kube"),
        )
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "kubectl {args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A program must have succeeded; what it wrote to stderr says why it did not.
#[track_caller]
pub(crate) fn assert_succeeded(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A program that `setup` provides, or one on PATH, without the settings of the person who runs the tests.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new(tool_path(name));
    command
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap())
        .env("HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("home"))
        .stdin(Stdio::null());
    command
}

pub(crate) fn tool_path(name: &str) -> PathBuf {
    static CHECKED: OnceLock<String> = OnceLock::new();
    let table = CHECKED.get_or_init(|| {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["setup", "--check"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "run `cargo xtask setup` before the tests"
        );
        String::from_utf8(output.stdout).unwrap()
    });
    let row = table
        .lines()
        .find(|it| it.split_whitespace().next() == Some(name))
        .unwrap();
    PathBuf::from(row.split_whitespace().last().unwrap())
}

/// Where `setup` built the programs.
fn tools() -> PathBuf {
    persons_cache().join("xtask/tools")
}

/// The cache of the person who runs the tests.
pub(crate) fn persons_cache() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    cache.unwrap_or_else(|| env::home_dir().unwrap().join(".cache"))
}

pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub(crate) fn executable(file: &Path, lines: &str) {
    use std::os::unix::fs::PermissionsExt;
    // Written elsewhere and renamed: a process that another test forks meanwhile would keep it open ("text file busy").
    let part = file.with_extension("part");
    fs::write(&part, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(part, file).unwrap();
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// All running programs, with their arguments.
pub(crate) fn command_lines() -> Vec<(u32, String)> {
    let found = fs::read_dir("/proc").unwrap().filter_map(|it| {
        let it = it.ok()?;
        let pid = it.file_name().to_str()?.parse().ok()?;
        Some((
            pid,
            String::from_utf8_lossy(&fs::read(it.path().join("cmdline")).ok()?).replace('\0', " "),
        ))
    });
    found.collect()
}

/// Whether a process was started by another one, or by one that it started.
pub(crate) fn is_below(pid: u32, ancestor: u32) -> bool {
    let mut pid = Some(pid);
    while let Some(child) = pid {
        if child == ancestor {
            return true;
        }
        pid = parent(child);
    }
    false
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|it| *it != 0)
}

pub(crate) fn kill_9(pid: u32) {
    let killed = Command::new("sh")
        .args(["-c", &format!("kill -9 {pid}")])
        .status()
        .unwrap();
    assert!(killed.success());
    wait_until("its end", || {
        !command_lines().iter().any(|(it, _)| *it == pid)
    });
}

/// Waits until the condition holds, two minutes at most: rehearsal clusters are made one at a time.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    use std::time::{Duration, Instant};
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{what} didn't come"
        );
        // Many ask with a program, and others want the processors.
        let pause =
            (start.elapsed() / 10).clamp(Duration::from_millis(20), Duration::from_millis(250));
        std::thread::sleep(pause);
    }
}
