//! Which commits were deployed last, as a service that runs the deploys tells it.

use std::collections::BTreeMap;

/// The commits that were deployed last.
#[derive(Default)]
pub(crate) struct LastDeployed {
    /// The newest one of which nothing was left out: it counts for every release without a newer one of its own.
    pub(crate) whole: Option<String>,
    /// Those of single releases, by their names.
    own: BTreeMap<String, String>,
    /// The one of these that was added last.
    oldest: Option<String>,
    /// What was looked through, if there is more that is older.
    pub(crate) only: Option<&'static str>,
}

/// A hub or a support chart.
#[derive(Clone, Copy)]
pub(crate) struct ReleaseName<'a> {
    pub(crate) cluster: &'a str,
    /// The hub's name, or `support`.
    pub(crate) release: &'a str,
    /// Whether it is deployed before production.
    pub(crate) is_first: bool,
}

impl ReleaseName<'_> {
    /// As jobs and environments are called.
    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.cluster, self.release)
    }
}

impl LastDeployed {
    /// Adds the commit of a release, named `CLUSTER/HUB` or `CLUSTER/support`; `CLUSTER/` are the support chart and all
    /// staging hubs. Newer ones are added before older ones.
    pub(crate) fn add(&mut self, release: &str, commit: &str) {
        if !self.own.contains_key(release) {
            self.own.insert(release.to_owned(), commit.to_owned());
            self.oldest = Some(commit.to_owned());
        }
    }

    /// The oldest commit that is of some release.
    pub(crate) fn oldest(&self) -> Option<&str> {
        self.whole.as_deref().or(self.oldest.as_deref())
    }

    /// The commit of a release, if one is known.
    pub(crate) fn of(&self, release: ReleaseName) -> Option<&str> {
        let first = format!("{}/", release.cluster);
        let together = self.own.get(&first).filter(|_| release.is_first);
        let own = self.own.get(&release.shown());
        own.or(together).or(self.whole.as_ref()).map(String::as_str)
    }
}
