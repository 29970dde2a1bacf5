//! What programs inherit from the person who runs the deployer: settings, and limits.

use std::{
    env, fs,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    generate::git,
    repo::{Key, Ran, Repo, Shared, copy, executable, kubeconfig, kubectl, run_by, tool_path},
};

/// The settings that the sources of helm 4.3.1, kubectl 1.34.4, sops 3.13.3, etcd 3.6, kwok 0.8 and git 2.47 name, without
/// those that reach them.
const SETTINGS: &str = "
    HELM_BIN HELM_BURST_LIMIT HELM_CACHE_HOME HELM_COLOR HELM_CONFIG_HOME HELM_CONTENT_CACHE HELM_DATA_HOME HELM_DEBUG
    HELM_DRIVER HELM_DRIVER_SQL_CONNECTION_STRING HELM_EXPERIMENTAL_FEATURE HELM_KUBEAPISERVER HELM_KUBEASGROUPS
    HELM_KUBEASUSER HELM_KUBECAFILE HELM_KUBECONTEXT HELM_KUBEINSECURE_SKIP_TLS_VERIFY HELM_KUBETLS_SERVER_NAME
    HELM_KUBETOKEN HELM_MAX_HISTORY HELM_MEMORY_DRIVER_DATA HELM_NAMESPACE HELM_NO_PLUGINS HELM_PLUGINS HELM_PLUGIN_DIR
    HELM_PLUGIN_NAME HELM_PLUGIN_PASSWORD HELM_PLUGIN_PASS_CREDENTIALS_ALL HELM_PLUGIN_USERNAME HELM_PPROF_CPU_PROFILE
    HELM_PPROF_MEM_PROFILE HELM_QPS HELM_REGISTRY_CONFIG HELM_REPOSITORY_CACHE HELM_REPOSITORY_CONFIG

    KUBECACHEDIR KUBECONFIG KUBECTL_APPLYSET KUBECTL_COMMAND_HEADERS KUBECTL_EXTERNAL_DIFF KUBECTL_KUBERC KUBECTL_KYAML
    KUBECTL_OPENAPIV3_PATCH KUBECTL_PORT_FORWARD_WEBSOCKETS KUBECTL_REMOTE_COMMAND_WEBSOCKETS KUBERC KUBERNETES_EXEC_INFO
    KUBERNETES_MASTER KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBE_CACHE_MUTATION_DETECTOR
    KUBE_CLIENT_BACKOFF_BASE KUBE_CLIENT_BACKOFF_DURATION KUBE_EDITOR KUBE_FEATURE_ClientsAllowCBOR
    KUBE_FEATURE_WatchListClient KUBE_PATCH_CONVERSION_DETECTOR KUBE_WATCHLIST_INCONSISTENCY_DETECTOR

    SOPS_AGE_RECIPIENT SOPS_AGE_RECIPIENTS SOPS_AZURE_KEYVAULT_URLS SOPS_CONFIG SOPS_DISABLE_VERSION_CHECK SOPS_EDITOR
    SOPS_GCP_KMS_IDS SOPS_HUAWEICLOUD_KMS_IDS SOPS_KMS_ARN SOPS_PGP_FP SOPS_VAULT_URIS

    GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_ATTR_SOURCE GIT_COMMON_DIR GIT_CONFIG GIT_CONFIG_COUNT GIT_CONFIG_GLOBAL
    GIT_CONFIG_NOSYSTEM GIT_CONFIG_PARAMETERS GIT_CONFIG_SYSTEM GIT_DEFAULT_HASH GIT_DIFF_OPTS GIT_DIR GIT_EDITOR
    GIT_EXEC_PATH GIT_EXTERNAL_DIFF GIT_GLOB_PATHSPECS GIT_GRAFT_FILE GIT_ICASE_PATHSPECS GIT_IMPLICIT_WORK_TREE
    GIT_INDEX_FILE GIT_INDEX_VERSION GIT_LITERAL_PATHSPECS GIT_NAMESPACE GIT_NOGLOB_PATHSPECS GIT_NO_REPLACE_OBJECTS
    GIT_OBJECT_DIRECTORY GIT_OPTIONAL_LOCKS GIT_PAGER GIT_PREFIX GIT_PROXY_COMMAND GIT_QUARANTINE_PATH
    GIT_REDIRECT_STDERR GIT_REF_PARANOIA GIT_REPLACE_REF_BASE GIT_SHALLOW_FILE GIT_SSH GIT_SSH_COMMAND GIT_SSL_CAINFO
    GIT_SSL_NO_VERIFY GIT_TEMPLATE_DIR GIT_TRACE GIT_TRACE2 GIT_TRACE_SETUP GIT_WORK_TREE";

/// The settings with which sops finds a person's keys, but for SOPS_AGE_KEY_FILE.
const KEYS: &[(&str, &str)] = &[
    ("SOPS_AGE_KEY", ""),
    ("SOPS_DECRYPTION_ORDER", "age,pgp"),
    ("SOPS_ENABLE_LOCAL_KEYSERVICE", "true"),
    ("SOPS_GCP_KMS_CLIENT_TYPE", "rest"),
    ("SOPS_GPG_EXEC", "/usr/bin/gpg"),
    ("SOPS_HC_VAULT_ALLOWLIST", "none"),
];

fn has_settings(repo: &mut Repo) {
    for name in SETTINGS.split_whitespace() {
        let value = match name {
            // Values that are heeded, and lead elsewhere.
            "HELM_DRIVER" => "configmap",
            "HELM_MAX_HISTORY" | "GIT_CONFIG_COUNT" => "1",
            _ => "/theirs",
        };
        repo.env.push((name.into(), value.into()));
    }
}

/// Has programs note their environment in a file, which this returns, before they do their work.
fn noted(repo: &mut Repo, programs: &[(&str, &str)]) -> PathBuf {
    let file = repo.home().join("noted");
    for (name, path) in programs {
        let lines = format!("env >> {}\nexec {path} \"$@\"", file.display());
        repo.script(name, &lines);
    }
    file
}

#[test]
fn a_persons_settings_do_not_reach_our_programs() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["inherits"]);
    let key = Key::new();
    repo.has_key(&key);
    let values = "config/clusters/lake/inherits.values.yaml";
    repo.write(values, "note: a note that is secret\n");
    repo.encrypt(values, &key);
    git(&repo.root, &["init", "--quiet"]);
    git(&repo.root, &["add", "--all"]);
    git(&repo.root, &["commit", "--quiet", "--message", "first"]);
    let tools = ["helm", "kubectl", "sops"].map(|it| (it, tool_path(it).display().to_string()));
    let mut programs: Vec<_> = tools.iter().map(|(name, path)| (*name, &**path)).collect();
    programs.push(("git", "/usr/bin/git"));
    let noted = noted(&mut repo, &programs);
    has_settings(&mut repo);
    for (name, value) in KEYS {
        repo.env.push(((*name).into(), (*value).into()));
    }

    repo.ok("deploy lake inherits");
    let releases = "get secrets,configmaps -n inherits -l owner=helm -o name";
    assert_eq!(
        cluster.kubectl(releases),
        "secret/sh.helm.release.v1.inherits.v1\n"
    );
    let commit = git(&repo.root, &["rev-parse", "--short=12", "HEAD"]);
    let status = repo.ok("status lake").stdout;
    assert!(status.contains(&commit), "{status}");
    repo.ok("deploy lake inherits --dry-run --diff");
    repo.ok("deploy lake inherits");
    repo.ok("rollback lake inherits 1 --yes");
    assert_eq!(cluster.kubectl(releases).lines().count(), 3);
    repo.ok("generate helm-upgrade-jobs --base HEAD");
    repo.ok("validate --render");

    let noted = fs::read_to_string(noted).unwrap();
    let settings: Vec<_> = SETTINGS.split_whitespace().collect();
    let leaked: Vec<_> = noted
        .lines()
        .filter_map(|it| it.split_once('='))
        .filter(|(name, value)| settings.contains(name) && ["/theirs", "configmap"].contains(value))
        .collect();
    assert_eq!(leaked, []);
    for (name, value) in KEYS.iter().filter(|(_, value)| !value.is_empty()) {
        assert!(noted.contains(&format!("\n{name}={value}\n")), "{name}");
    }
}

/// But for those that would lead it to another cluster.
#[test]
fn a_persons_own_command_has_their_settings() {
    let cluster = Shared::cluster();
    let mut repo = Repo::on(&cluster, &["inherits"]);
    has_settings(&mut repo);
    let env = repo.ok("use-cluster-credentials lake env").stdout;
    let has = |line: &str| env.lines().any(|it| it == line);
    for kept in [
        "HELM_DRIVER=configmap",
        "GIT_DIR=/theirs",
        "SOPS_CONFIG=/theirs",
        "KUBE_EDITOR=/theirs",
    ] {
        assert!(has(kept), "{kept}: {env}");
    }
    for name in [
        "KUBECONFIG",
        "HELM_KUBECONTEXT",
        "HELM_KUBECAFILE",
        "HELM_KUBETLS_SERVER_NAME",
    ] {
        assert!(!has(&format!("{name}=/theirs")), "{name}: {env}");
    }
}

#[test]
fn a_rehearsal_cluster_heeds_no_settings_of_a_person() {
    let mut repo = Repo::own();
    let settings = [
        ("ETCD_NAME", "theirs"),
        ("ETCD_QUOTA_BACKEND_BYTES", "1"),
        ("KUBE_FEATURE_WatchListClient", "false"),
        ("KWOK_KUBE_VERSION", "v1.2.3"),
        ("KWOK_RUNTIME", "theirs"),
        ("KWOK_KUBE_APISERVER_CERT_SANS", "theirs"),
    ];
    for (name, value) in settings {
        repo.env.push((name.into(), value.into()));
    }
    let up = kubeconfig(&repo.ok("local up").stdout);
    assert_eq!(kubectl(&up, "get --raw /readyz"), "ok");
    let ran: Ran = repo.ok("local down");
    assert_eq!(ran.stdout, "local: down\n");
}

/// Gives the repository a kubeconfig that is complete in itself, but for its key in a file beside it.
fn write_kubeconfig(repo: &Repo, cluster: &Shared) {
    let flat = cluster.kubectl("config view --raw --flatten");
    let (before, rest) = flat.split_once("client-key-data: ").unwrap();
    let (key, after) = rest.split_once('\n').unwrap_or((rest, ""));
    let key = String::from_utf8(BASE64_STANDARD.decode(key).unwrap()).unwrap();
    repo.write("config/clusters/lake/client.key", &key);
    repo.write(
        "config/clusters/lake/kubeconfig.yaml",
        &format!("{before}client-key: client.key\n{after}"),
    );
}

/// An ordinary user with a repository, and our program, in a folder that they can open.
struct Ordinary {
    base: PathBuf,
    uid: u32,
}

impl Ordinary {
    fn new(repo: &Repo, name: &str) -> Ordinary {
        let uid = match rustix::process::getuid().as_raw() {
            0 => 47_110,
            own => own,
        };
        let base = env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        copy(&repo.root, &base.join("repo"));
        fs::create_dir_all(base.join("bin")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_xtask"), base.join("bin/xtask")).unwrap();
        fs::copy(tool_path("kubectl"), base.join("bin/real-kubectl")).unwrap();
        executable(&base.join("bin/helm"), "echo v4.3.1");
        executable(&base.join("bin/sops"), "echo sops 3.13.3");
        let owned = ["", "repo", "repo/config/clusters/lake/kubeconfig.yaml"];
        for path in owned {
            chown(base.join(path), Some(uid), Some(uid)).unwrap();
        }
        Ordinary { base, uid }
    }

    /// Runs a line of shell, whose core dumps may be as large as the system allows.
    fn sh(&self, line: &str) -> Ran {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -S -c $(ulimit -H -c); {line}")])
            .current_dir(self.base.join("repo"))
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.base.join("bin").display()),
            )
            .env("HOME", &self.base)
            .uid(self.uid)
            .gid(self.uid)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap().into()
    }
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
        if self.uid == 47_110 {
            let _ = fs::remove_dir_all("/dev/shm/xtask-47110");
        }
    }
}

/// Nor of the programs that work for it; they can still read decrypted files, and a person's own command has the person's
/// limit.
#[test]
fn a_crash_leaves_no_core_dump() {
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["cores"]);
    // The rehearsal cluster's files are not for others.
    write_kubeconfig(&repo, &cluster);
    let person = Ordinary::new(&repo, "cores");
    let noted = person.base.join("noted");
    let kubectl = person.base.join("bin/kubectl");
    let lines = format!(
        "case $1 in get) grep core /proc/self/limits; wc -l < \"$KUBECONFIG\" ;; esac >> {}\n",
        noted.display()
    );
    let real = format!(
        "{lines}exec {}/bin/real-kubectl \"$@\"",
        person.base.display()
    );
    executable(&kubectl, &real);
    let ran = person
        .sh("xtask use-cluster-credentials lake sh -c 'ulimit -S -c; kubectl get --raw /readyz'");
    let hard = person.sh("ulimit -H -c").stdout;
    assert_eq!(ran.stdout, format!("{hard}ok"), "{}", ran.stderr);
    let noted = fs::read_to_string(noted).unwrap();
    let limits: Vec<_> = noted.split_whitespace().skip(4).take(2).collect();
    assert_eq!(limits, ["1", hard.trim()], "{noted}");

    // Both of them crash, the deployer with a kubeconfig in its memory.
    executable(
        &kubectl,
        "case $1 in get) kill -SEGV $PPID; kill -SEGV $$ ;; esac\necho v1.34.4",
    );
    person.sh("xtask use-cluster-credentials lake true; true");
    let dumps: Vec<_> = fs::read_dir(person.base.join("repo"))
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .filter(|it| it.to_string_lossy().starts_with("core"))
        .collect();
    assert!(dumps.is_empty(), "{dumps:?}");
}

/// As root, who can have mounts of their own. Another folder is found then, by the next process too.
#[test]
fn somebody_elses_folder_in_memory_is_in_nobodys_way() {
    if cfg!(not(target_os = "linux")) || !rustix::process::geteuid().is_root() {
        return;
    }
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["squatted"]);
    write_kubeconfig(&repo, &cluster);
    let ours = "/dev/shm/xtask-0";
    for taken in [
        format!("mkdir -m 700 {ours} && chown 65534 {ours}"),
        format!("mkdir -m 700 {ours}-else && ln -s {ours}-else {ours}"),
        format!("mkdir -m 755 {ours}"),
        format!("touch {ours} && mkdir {ours}-2 && chown 65534 {ours}-2"),
    ] {
        let script = format!(
            "mount -t tmpfs tmpfs /dev/shm && {taken} && \"$0\" \"$@\" && exec \"$0\" \"$@\""
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let mut command = run_by(
            command,
            &repo.command("use-cluster-credentials lake sh -c env"),
        );
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let ran: Ran = command.spawn().unwrap().into();
        assert_eq!(ran.code, Some(0), "{taken}: {}", ran.stderr);
        let folders = ran.stdout.lines().filter_map(|it| {
            let path = it.strip_prefix("KUBECONFIG=")?;
            path.split_once("/login-").map(|(folder, _)| folder)
        });
        let folders: Vec<_> = folders.collect();
        assert_eq!(folders.len(), 2, "{taken}: {}", ran.stdout);
        assert_eq!(folders[0], folders[1], "{taken}");
        assert!(
            folders[0].starts_with(&format!("{ours}-")),
            "{taken}: {folders:?}"
        );
    }
}

/// As root, who can have mounts of their own.
#[test]
fn without_a_folder_in_memory_nothing_is_decrypted() {
    if cfg!(not(target_os = "linux")) || !rustix::process::geteuid().is_root() {
        return;
    }
    let cluster = Shared::cluster();
    let repo = Repo::on(&cluster, &["disk"]);
    write_kubeconfig(&repo, &cluster);
    let [disk, memory] = ["disk", "memory"].map(|it| repo.home().join(it));
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&memory).unwrap();
    let mounts = format!(
        "mount --bind {} /dev/shm && mount -t tmpfs tmpfs {} && exec",
        disk.display(),
        memory.display()
    );
    let run = |args: &str, runtime: Option<&PathBuf>| -> Ran {
        let xtask = repo.command(args);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &format!("{mounts} \"$0\" \"$@\"")]);
        let mut command = run_by(command, &xtask);
        command
            .envs(runtime.map(|it| ("XDG_RUNTIME_DIR", it)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap().into()
    };
    for args in ["deploy lake", "use-cluster-credentials lake true"] {
        let ran = run(args, None);
        assert_eq!(ran.code, Some(1), "{args}: {}", ran.stdout);
        let said = "neither `/dev/shm` nor `XDG_RUNTIME_DIR` is a folder in memory (tmpfs)";
        assert!(
            ran.stdout.contains(said) || ran.stderr.contains(said),
            "{args}: {}",
            ran.stderr
        );
    }
    assert_eq!(run("validate", None).code, Some(0));
    let ran = run("use-cluster-credentials lake sh -c env", Some(&memory));
    let kubeconfig = format!("KUBECONFIG={}/xtask-0/login-", memory.display());
    assert!(
        ran.stdout.contains(&kubeconfig),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    let ran = run("deploy lake", Some(&memory));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 0);
}
