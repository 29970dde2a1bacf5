//! A login that changes releases: what all of them need while it lasts.

use std::{
    io::{BufRead, IsTerminal, Write},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use xshell::Shell;

use crate::{
    api::Api,
    cluster::{Cluster, Nodes},
    credentials::{self, Login, PrivateFolder},
    history,
    lease::Leases,
    process,
    record::Record,
    secrets::{InMemory, Mask},
};

pub(crate) struct Session {
    pub(crate) api: Arc<Api>,
    pub(crate) leases: Leases,
    pub(crate) record: Record,
    /// What the pods run on, if it's a rehearsal cluster.
    pub(crate) rehearsal: Option<Nodes>,
    /// What is read and written while the login is used.
    _login: (Vec<InMemory>, PrivateFolder),
}

impl Session {
    pub(crate) fn start(login: Login, record: Record) -> Result<Session> {
        let Login {
            sh,
            keys,
            rehearsal,
            folder,
            ..
        } = login;
        let api = Arc::new(Api::start(&sh)?);
        let leases = Leases::new(api.clone(), &record)?;
        Ok(Session {
            api,
            leases,
            record,
            rehearsal,
            _login: (keys, folder),
        })
    }

    /// Logs in to change releases without their charts and values; with what of the login must not show.
    pub(crate) fn open(
        sh: &Shell,
        root: &Path,
        cluster: &Cluster,
    ) -> Result<(Shell, Mask, Session)> {
        let login = credentials::open(sh, root, cluster)?;

        let (sh, mask) = (login.sh.clone(), login.mask());
        process::end_in_order();
        let session = Session::start(login, Record::new(&sh, root))?;
        Ok((sh, mask, session))
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

/// Goes on only if `--yes` was given, or a person at a terminal says so.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    ensure!(
        can_ask(),
        "{question}: nobody can be asked here\nhint: `--yes` answers"
    );
    match ask(&format!("{question}? [y/N]"))?.to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was done"),
    }
}

/// Whether a person is at a terminal.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// What the person at the terminal says to a question.
pub(crate) fn ask(question: &str) -> Result<String> {
    let _ = write!(std::io::stderr(), "{question} ");
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("no answer")?;
    Ok(answer.trim().to_owned())
}
