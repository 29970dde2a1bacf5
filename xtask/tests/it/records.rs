//! What is known of revisions: which were ready, whose they are, and what to go back to.

use std::{fs, process::Command, sync::Arc, time::Instant};

use crate::{
    repo::{Key, Ran, Repo, Shared, assert_succeeded, tool, tool_path, wait_until},
    stop::{leases, signal},
    terminal::Terminal,
};

/// A hub of the cluster that tests share.
pub(crate) struct Hub {
    pub(crate) cluster: Arc<Shared>,
    pub(crate) repo: Repo,
    pub(crate) name: &'static str,
}

impl Hub {
    pub(crate) fn new(name: &'static str) -> Hub {
        let cluster = Shared::cluster();
        let repo = Repo::on(&cluster, &[name]);
        Hub {
            cluster,
            repo,
            name,
        }
    }

    pub(crate) fn write(&self, values: &str) {
        let path = format!("config/clusters/lake/{}.values.yaml", self.name);
        self.repo.write(&path, values);
    }

    fn good(&self, values: &str) {
        self.write(values);
        self.repo.ok("deploy lake");
    }

    fn bad(&self, note: &str) {
        self.write(&format!("note: {note}\nfate: pull\n"));
        self.repo.fails("deploy lake");
    }

    fn note(&self) -> String {
        let name = self.name;
        self.cluster.kubectl(&format!(
            "get configmap pond -n {name} -o jsonpath={{.data.note}}"
        ))
    }

    /// The numbers of the revisions that are kept.
    fn revisions(&self) -> Vec<u32> {
        let name = self.name;
        let found = self.cluster.kubectl(&format!(
            "get secrets -n {name} -l owner=helm -o jsonpath={{.items[*].metadata.labels.version}}"
        ));
        let mut numbers: Vec<u32> = found.split(' ').map(|it| it.parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The chart with its dependencies.
    fn prepared_chart(&self) -> String {
        let charts = fs::read_dir(self.repo.cache().join("xtask/charts")).unwrap();
        let paths = charts.map(|it| it.unwrap().path().display().to_string());
        let mut pond = paths.filter(|it| it.contains("/pond-"));
        pond.next().unwrap()
    }

    /// Somebody's own helm.
    fn helm(&self, args: &str) -> Command {
        let mut command = tool("helm");
        let args = args.replace("CHART", &self.prepared_chart());
        command
            .args(args.split_whitespace())
            .args(["--namespace", self.name])
            .current_dir(&self.repo.root)
            .env("KUBECONFIG", &self.cluster.kubeconfig);
        command
    }
}

/// Back is to what was ready, however many bad ones came after it, and never forward again.
#[test]
fn back_is_to_what_was_ready() {
    let hub = Hub::new("record-back");
    hub.good("note: oldest\n");
    hub.good("note: good\n");
    hub.bad("bad");
    hub.bad("worse");
    let ran = hub.repo.ok("rollback lake record-back --yes");
    assert_eq!(hub.note(), "good");
    for part in [
        "revisions that never became ready: `3`, `4`\n",
        "secrets that go back to an earlier value",
    ] {
        let has = ran.stderr.contains(part);
        assert_eq!(has, part.starts_with("revisions"), "{}", ran.stderr);
    }
    assert!(
        ran.stdout
            .contains("is as in revision 2, and ready\nThe repository still has another version"),
        "{}",
        ran.stdout
    );
    hub.repo.ok("rollback lake record-back --yes");
    assert_eq!(hub.note(), "oldest");
    let said = hub.repo.fails("rollback lake record-back --yes");
    assert!(
        said.contains("was ready and differs from what is live"),
        "{said}"
    );

    // helm itself would have forgotten it.
    hub.good("note: good again\n");
    for round in 0..12 {
        hub.bad(&format!("bad {round}"));
    }
    assert!(hub.revisions().len() <= 12, "{:?}", hub.revisions());
    let said = hub.repo.fails("deploy lake --rollback-on-failure");
    assert!(
        said.contains("rolled back to revision 7, which is ready again"),
        "{said}"
    );
    assert_eq!(hub.note(), "good again");
}

/// helm copies our labels to revisions that others make.
#[test]
fn revisions_of_others_are_not_ours() {
    let hub = Hub::new("record-others");
    hub.good("note: ours\n");
    hub.write("note: theirs\nfate: pull\n");
    let upgrade = "upgrade record-others CHART --reuse-values --set note=theirs --set fate=pull";
    assert_succeeded(&hub.helm(upgrade).output().unwrap());
    assert_eq!(hub.note(), "theirs");
    let said = hub.repo.fails("deploy lake --rollback-on-failure");
    assert!(
        said.contains("rolled back to revision 1, which is ready again"),
        "{said}"
    );
    assert_eq!(hub.note(), "ours");
}

/// Secrets that a rollback changes back are named, not shown. Of what no file sets now, nobody knows whether it is one.
#[test]
fn a_rollback_names_secrets() {
    let mut hub = Hub::new("record-named");
    let key = Key::new();
    hub.repo.has_key(&key);
    let common = "helm_chart_values_files: [common.values.yaml, ";
    let with_secrets = format!("{common}enc.secret.values.yaml, ");
    let yaml = "config/clusters/lake/cluster.yaml";
    hub.repo.edit(yaml, common, &with_secrets);
    let enc = "config/clusters/lake/enc.secret.values.yaml";
    for bird in ["old-heron", "new-heron"] {
        hub.repo.write(enc, &format!("token: {bird}\n"));
        hub.repo.encrypt(enc, &key);
        hub.good(&format!("note: {bird}\ngreeting: {bird}\n"));
    }
    hub.write("greeting: other\n");
    let ran = hub.repo.ok("rollback lake record-named --yes");
    for named in [
        "secrets that go back to an earlier value: `token`\n",
        "values that go back to an earlier value, and that no file sets now, secrets perhaps: `note`\n",
    ] {
        assert!(ran.stderr.contains(named), "{}", ran.stderr);
    }
    assert!(!ran.stderr.contains("heron"), "{}", ran.stderr);
}

/// Ctrl-C at a question ends the command, and somebody else's changes meanwhile end it after the answer.
#[test]
fn questions_that_are_not_answered_at_once() {
    let hub = Hub::new("record-asked");
    hub.good("note: good\n");
    hub.good("note: newer\n");
    for command in ["retire lake record-asked", "rollback lake record-asked"] {
        let terminal = Terminal::start(
            &hub.repo,
            &format!("trap : INT\nxtask {command}\necho exit $?"),
        );
        terminal.shows("https://127.0.0.1:");
        assert_ne!(leases(&hub.cluster, "record-asked"), "");
        terminal.types(&["C-c"]);
        terminal.shows("nothing was done: stopped");
        terminal.shows("exit 1");
        assert_eq!(leases(&hub.cluster, "record-asked"), "", "{command}");
    }
    let terminal = Terminal::start(&hub.repo, "xtask rollback lake record-asked\necho exit $?");
    terminal.shows("https://127.0.0.1:");
    // Its newest revision has the same number then.
    for args in [
        "uninstall record-asked",
        "install record-asked CHART --set note=theirs",
        "upgrade record-asked CHART --set note=theirs",
    ] {
        assert_succeeded(&hub.helm(args).output().unwrap());
    }
    terminal.types(&["y", "Enter"]);
    terminal.shows("somebody has changed it meanwhile: nothing was done");
    assert_eq!(hub.note(), "theirs");
}

/// What is known of a revision is known when its uninstallation was killed before it began, too.
#[test]
fn a_retirement_that_did_not_begin() {
    let mut hub = Hub::new("record-kept");
    hub.good("note: ours\n");
    hub.repo.ok("retire lake record-kept --yes");
    let install = hub.helm("install record-kept CHART --set note=theirs");
    assert_succeeded(&{ install }.output().unwrap());
    let helm = tool_path("helm").display().to_string();
    let begins = hub.repo.home().join("begins");
    let script = format!(
        "case $1 in uninstall) touch {}; sleep 60 ;; upgrade) kill -9 $$ ;; esac\nexec {helm} \"$@\"",
        begins.display()
    );
    hub.repo.script("helm", &script);
    let mut child = hub.repo.start("retire lake record-kept --yes");
    wait_until("its begin", || begins.exists());
    signal(&child, "KILL");
    child.wait().unwrap();
    let said = hub.repo.fails("deploy lake");
    assert!(said.contains("`helm` was ended by SIGKILL\n"), "{said}");
    hub.repo.script("helm", &format!("exec {helm} \"$@\""));
    hub.write("note: bad\nfate: pull\n");
    let said = hub.repo.fails("deploy lake --rollback-on-failure");
    assert!(said.contains("rolled back to revision 1"), "{said}");
    assert_eq!(hub.note(), "theirs");
}

/// An unchanged hub costs few requests.
#[test]
fn requests_of_a_deploy() {
    let mut hub = Hub::new("record-asking");
    let log = hub.repo.home().join("requests");
    let kubectl = tool_path("kubectl").display().to_string();
    let script = format!(
        "case $1 in proxy) exec {kubectl} \"$@\" -v=8 2>>{} ;; esac\nexec {kubectl} \"$@\"",
        log.display()
    );
    hub.good("claim: true\n");
    hub.repo.script("kubectl", &script);
    let started = Instant::now();
    hub.good("claim: true\n");
    let seconds = started.elapsed().as_secs() as usize;
    let log = fs::read_to_string(log).unwrap();
    let count = |verb: &str, path: &str| {
        let verb = format!("\"Request\" verb=\"{verb}\"");
        let lines = log.lines();
        lines
            .filter(|it| it.contains(&verb) && it.contains(path))
            .count()
    };
    // While helm is at work, its record is read once a second.
    let lists = count("GET", "/secrets?labelSelector=");
    assert!((3..=4 + seconds).contains(&lists), "{lists}: {log}");
    assert_eq!(count("PATCH", "/persistentvolumeclaims"), 0, "{log}");
    assert_eq!(count("PATCH", ""), 1, "{log}");
}

#[test]
fn a_rollback_over_fields_of_others() {
    let hub = Hub::new("record-conflict");
    hub.good("note: good\n");
    hub.good("note: newer\n");
    hub.cluster
        .kubectl("set image deployment/pond pond=other -n record-conflict");
    let said = hub.repo.fails("rollback lake record-conflict --yes");
    let hint = "hint: somebody set these fields by other means; `--force-conflicts`";
    assert!(said.contains(hint), "{said}");
    hub.repo
        .ok("rollback lake record-conflict --yes --force-conflicts");
    assert_eq!(hub.note(), "good");
}

/// A helm that somebody has started is waited for, and not rolled back under them.
#[test]
fn a_helm_of_others_at_work() {
    let hub = Hub::new("record-busy");
    hub.good("note: ours\n");
    let upgrade = "upgrade record-busy CHART --reuse-values --set hook=true --timeout 300s";
    let mut theirs = hub.helm(upgrade).spawn().unwrap();
    let hook = || {
        let jobs = hub.cluster.kubectl("get jobs -n record-busy -o name");
        jobs.contains("hook")
    };
    wait_until("their hook", hook);
    let said = hub.repo.fails("deploy lake");
    for part in [
        "somebody's helm has been at work for ",
        " (revision 2, pending-upgrade)\n\n\
         hint: if it is dead, `deploy --heal` repairs the release, and `retire --heal` removes it",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(hook() && theirs.try_wait().unwrap().is_none());
    theirs.kill().unwrap();
    theirs.wait().unwrap();
    let ran = hub.repo.ok("deploy lake --heal");
    let healed = "revision 2 was cut off (pending-upgrade): rolling back to revision 1\n";
    assert!(ran.stderr.contains(healed), "{}", ran.stderr);
    hub.cluster.kubectl(
        "label secret sh.helm.release.v1.record-busy.v4 -n record-busy --overwrite xtask- status=pending-upgrade",
    );
    hub.repo.ok("retire lake record-busy --yes --heal");
}

/// An uninstallation that was cut off is healed by the next deploy.
#[test]
fn a_retirement_that_was_cut_off() {
    let hub = Hub::new("record-retired");
    // It cannot be deleted as long as it has this finalizer.
    let keep = |finalizers: &str| {
        hub.cluster.kubectl(&format!(
            "patch configmap pond -n record-retired --type merge -p {{\"metadata\":{{\"finalizers\":{finalizers}}}}}"
        ));
    };
    hub.good("note: ours\n");
    keep("[\"example.org/stay\"]");
    let child = hub.repo.start("retire lake record-retired --yes");
    wait_until("its begin", || {
        hub.cluster
            .history("record-retired")
            .contains("uninstalling")
    });
    signal(&child, "QUIT");
    let said = Ran::from(child).stderr;
    let left = "record-retired: some of it may be gone; the same command removes the rest\n";
    assert!(said.contains(left), "{said}");
    keep("[]");
    let ran = hub.repo.ok("deploy lake");
    let healed = "revision 1 was cut off (uninstalling): rolling back to revision 1\n";
    assert!(ran.stderr.contains(healed), "{}", ran.stderr);
    hub.repo.ok("retire lake record-retired --yes");
}

/// What fails although it is the same as what was ready isn't helped by anything older.
#[test]
fn a_revision_that_is_the_same_as_a_ready_one() {
    let hub = Hub::new("record-same");
    hub.good("note: oldest\n");
    hub.good("note: good\n");
    hub.cluster
        .kubectl("create quota none --hard=pods=0 -n record-same");
    hub.cluster
        .kubectl("delete pods --all -n record-same --wait=false");
    let said = hub.repo.fails("deploy lake --rollback-on-failure");
    let same = "it was not rolled back: it is the same as revision 2, which was ready";
    assert!(said.contains(same), "{said}");
    assert_eq!(hub.note(), "good");
}
