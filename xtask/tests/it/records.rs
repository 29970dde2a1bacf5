//! What is known of revisions: which were ready, whose they are, and what to go back to.

use std::{fs, process::Command, sync::Arc};

use crate::repo::{Repo, Shared, assert_succeeded, tool, wait_until};

struct Hub {
    cluster: Arc<Shared>,
    repo: Repo,
    name: &'static str,
}

impl Hub {
    fn new(name: &'static str) -> Hub {
        let cluster = Shared::cluster();
        let repo = Repo::on(&cluster, &[name]);
        Hub {
            cluster,
            repo,
            name,
        }
    }

    fn write(&self, values: &str) {
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

/// Secrets that a rollback changes back are named, not shown.
#[test]
fn a_rollback_names_secrets() {
    let hub = Hub::new("record-named");
    hub.good("token: old-heron\nnote: plain\n");
    hub.good("token: new-heron\nnote: other\n");
    hub.write("note: other\n");
    let ran = hub.repo.ok("rollback lake record-named --yes");
    let named = "secrets that go back to an earlier value: `token`\n";
    assert!(ran.stderr.contains(named), "{}", ran.stderr);
    assert!(!ran.stderr.contains("heron"), "{}", ran.stderr);
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
        " (revision 2, pending-upgrade)\n\nhint: `deploy --heal` goes on, if it is dead",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(hook() && theirs.try_wait().unwrap().is_none());
    theirs.kill().unwrap();
    theirs.wait().unwrap();
    let ran = hub.repo.ok("deploy lake --heal");
    let healed = "revision 2 was cut off (pending-upgrade): rolling back to revision 1\n";
    assert!(ran.stderr.contains(healed), "{}", ran.stderr);
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
    let mut child = hub.repo.start("retire lake record-retired --yes");
    wait_until("its begin", || {
        hub.cluster
            .history("record-retired")
            .contains("uninstalling")
    });
    crate::stop::signal(&child, "KILL");
    child.wait().unwrap();
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
