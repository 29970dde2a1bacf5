//! A login that changes releases: what all of them need while it lasts.

use std::sync::Arc;

use anyhow::{Context, Result};
use xshell::Shell;

use crate::{
    kubernetes::{
        api::Api,
        credentials::{self, login::Login},
        history,
        lease::Leases,
        record::Record,
    },
    machine::{private::PrivateFolder, process, tree::Tree},
    repository::cluster::{Cluster, Nodes},
    secrets::{InMemory, Mask},
};

/// A login with what is needed to change releases.
pub(crate) struct Session {
    pub(crate) api: Arc<Api>,
    pub(crate) leases: Leases,
    pub(crate) record: Record,
    /// What the pods run on, if it's a rehearsal cluster.
    pub(crate) rehearsal: Option<Nodes>,
    /// What of the login must not show, and is read while it is used.
    keys: Vec<InMemory>,
    /// What programs write while the login is used.
    _folder: PrivateFolder,
}

impl Session {
    pub(crate) fn start(login: Login, record: Record) -> Result<Session> {
        let api = Arc::new(Api::start(&login.sh)?);
        let leases = Leases::new(api.clone(), &record)?;
        Ok(Session {
            api,
            leases,
            record,
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
        let record = Record::new(&sh, tree.root());
        Ok((sh, Session::start(login, record)?))
    }

    /// Hides what of the login must not show.
    pub(crate) fn mask(&self) -> Mask {
        Mask::new(&self.keys)
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
