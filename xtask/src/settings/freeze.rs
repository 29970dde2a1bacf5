//! Times in which production is left as it is.

use anyhow::{Error, Result, ensure};
use serde::Deserialize;

use crate::machine::date::{self, Date};

#[derive(Clone, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) struct Freeze {
    from: Date,
    pub(crate) until: Date,
    pub(crate) reason: String,
    /// None for all of them.
    clusters: Option<Vec<String>>,
}

/// A freeze as it is in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    from: Date,
    until: Date,
    reason: String,
    clusters: Option<Vec<String>>,
}

impl TryFrom<Written> for Freeze {
    type Error = Error;

    fn try_from(written: Written) -> Result<Freeze> {
        let Written { from, until, .. } = &written;
        ensure!(
            !until.is_before(from),
            "`until: {until}` is before `from: {from}`"
        );
        ensure!(!written.reason.trim().is_empty(), "`reason` is empty");
        ensure!(
            written.clusters.as_ref().is_none_or(|it| !it.is_empty()),
            "`clusters` is empty: leave it out for all clusters"
        );
        Ok(Freeze {
            from: written.from,
            until: written.until,
            reason: written.reason,
            clusters: written.clusters,
        })
    }
}

impl Freeze {
    /// Whether it has begun, and is not over.
    pub(crate) fn is_now(&self) -> bool {
        self.from.has_begun() && !self.until.is_over()
    }

    /// Whether it holds this cluster's production now.
    pub(crate) fn holds(&self, cluster: &str) -> bool {
        let clusters = self.clusters.as_ref();
        self.is_now() && clusters.is_none_or(|it| it.iter().any(|name| name == cluster))
    }

    /// "frozen until 2026-12-01: exams"
    pub(crate) fn shown(&self) -> String {
        date::until("frozen", &self.until, &self.reason)
    }

    /// The names of the clusters that it is for, if it is not for all.
    pub(crate) fn clusters(&self) -> &[String] {
        self.clusters.as_deref().unwrap_or_default()
    }
}
