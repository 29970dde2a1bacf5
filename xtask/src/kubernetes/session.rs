//! A login that changes releases: what all of them need while it lasts.

use std::sync::Arc;

use anyhow::{Context, Result};
use xshell::Shell;

use crate::{
    kubernetes::{
        api::Api,
        credentials::{
            self,
            login::{Login, Place},
        },
        history::{self, Outcome, Revision},
        lease::Leases,
        losses::ChartTexts,
        record::Record,
    },
    machine::{private::PrivateFolder, process, tree::Tree},
    repository::cluster::{Cluster, Nodes},
    secrets::{InMemory, Mask},
};

/// The cluster that we are logged in to.
pub(crate) struct Target {
    /// Its name in the repository.
    pub(crate) cluster: String,
    pub(crate) place: Place,
}

/// A login with what is needed to change releases.
pub(crate) struct Session {
    pub(crate) target: Target,
    pub(crate) api: Arc<Api>,
    pub(crate) leases: Leases,
    pub(crate) record: Record,
    pub(crate) chart_texts: ChartTexts,
    /// What the pods run on, if it's a rehearsal cluster.
    pub(crate) rehearsal: Option<Nodes>,
    /// What of the login must not show, and is read while it is used.
    keys: Vec<InMemory>,
    /// What programs write while the login is used.
    _folder: PrivateFolder,
}

impl Session {
    /// Starts a session on the cluster of this name.
    pub(crate) fn start(login: Login, record: Record, cluster: &str) -> Result<Session> {
        let api = Arc::new(Api::start(&login.sh)?);
        let leases = Leases::new(api.clone(), &record)?;
        Ok(Session {
            target: Target {
                cluster: cluster.to_owned(),
                place: login.place()?,
            },
            api,
            leases,
            record,
            chart_texts: ChartTexts::default(),
            rehearsal: login.rehearsal,
            keys: login.keys,
            _folder: login.folder,
        })
    }

    /// Logs in to change releases without their charts and values. Returns also a `Shell` whose helm and kubectl talk to
    /// the cluster.
    pub(crate) fn open(sh: &Shell, tree: &Tree, cluster: &Cluster) -> Result<(Shell, Session)> {
        let login = credentials::open(sh, tree, cluster)?;
        let sh = login.sh.clone();
        let record = Record::new(&sh, tree)?;
        Ok((sh, Session::start(login, record, &cluster.name)?))
    }

    /// What of the login must not show.
    pub(crate) fn keys(&self) -> &[InMemory] {
        &self.keys
    }

    /// Hides what of the login must not show.
    pub(crate) fn mask(&self) -> Mask {
        Mask::new(&self.keys)
    }

    /// Records how a revision of a release went.
    pub(crate) fn mark(&self, release: &str, revision: &Revision, outcome: &Outcome) -> Result<()> {
        self.record_outcome(release, revision, outcome, None)
    }

    /// Records that we begin to uninstall a revision of a release.
    pub(crate) fn mark_retiring(&self, release: &str, revision: &Revision) -> Result<()> {
        let number = revision.number.to_string();
        self.record_outcome(
            release,
            revision,
            &revision.outcome,
            Some(("retiring", number)),
        )
    }

    /// Records that helm would make the same as this revision of what has this digest.
    pub(crate) fn mark_given(
        &self,
        release: &str,
        revision: &Revision,
        digest: &str,
    ) -> Result<()> {
        let given = history::given_label(digest, revision.number);
        self.record_outcome(release, revision, &revision.outcome, Some(("given", given)))
    }

    fn record_outcome(
        &self,
        release: &str,
        revision: &Revision,
        outcome: &Outcome,
        more: Option<(&'static str, String)>,
    ) -> Result<()> {
        let (cluster, actor) = (&self.target.cluster, self.record.actor());
        history::mark(&self.api, release, revision, cluster, actor, outcome, more)
    }

    /// What was done to a release, with the state that it's left in if a signal cut that off.
    pub(crate) fn unless_stopped<T>(&self, release: &str, result: Result<T>) -> Result<T> {
        if process::check_stopped().is_ok() {
            return result;
        }
        result.with_context(|| match history::revisions(&self.api, release).as_deref() {
            Ok([.., last]) => format!("it is at revision {} ({})", last.number, last.status),
            Ok([]) => "nothing of it is in the cluster".to_owned(),
            Err(_) => "what state it is in can't be told".to_owned(),
        })
    }
}
