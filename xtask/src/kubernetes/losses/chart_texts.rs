//! Whether charts may make hooks of claims, told from their templates without rendering them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};

use crate::{
    charts,
    kubernetes::{helm::Release, volumes::CLAIM},
};

const HOOK: &str = "helm.sh/hook";

/// What charts' templates say of hooks and claims. Each chart is read once, whichever releases have it.
#[derive(Default)]
pub(crate) struct ChartTexts {
    known: Mutex<BTreeMap<PathBuf, Arc<ChartText>>>,
}

/// What the templates and default values of a chart say.
struct ChartText {
    /// Whether they may make hooks of claims by themselves.
    may_have_hooks: bool,
    has_claims: bool,
    /// The names, in quotes, of helpers that may make a hook of what includes them.
    helpers: Vec<String>,
}

impl ChartTexts {
    /// Whether a chart or the values of a release may make hooks of claims.
    pub(crate) fn may_have_hooks(&self, release: &Release) -> Result<bool> {
        let chart = self.chart(release.chart)?;
        let mut may_have_hooks = chart.may_have_hooks;
        for values in &release.values {
            let content = fs::read(values)
                .with_context(|| format!("cannot read the values of `{}`", release.name))?;
            may_have_hooks |= chart.may_have_hooks_with(&String::from_utf8_lossy(&content));
        }
        Ok(may_have_hooks)
    }

    fn chart(&self, path: &Path) -> Result<Arc<ChartText>> {
        let mut known = self.known.lock().expect("nobody panics with it");
        if let Some(chart) = known.get(path) {
            return Ok(chart.clone());
        }
        let chart = Arc::new(ChartText::read(path)?);
        known.insert(path.to_owned(), chart.clone());
        Ok(chart)
    }
}

impl ChartText {
    fn read(path: &Path) -> Result<ChartText> {
        let contents = charts::cached_texts(path)?;
        let texts: Vec<_> = contents
            .iter()
            .map(|it| String::from_utf8_lossy(it))
            .collect();
        // A template may have its hook from a helper in another file.
        let with_hooks = texts.iter().filter(|it| it.contains(HOOK));
        let helpers = with_hooks.flat_map(|it| helpers_in(it));
        let mut chart = ChartText {
            may_have_hooks: false,
            has_claims: texts.iter().any(|it| names_claims(it)),
            helpers: helpers.map(str::to_owned).collect(),
        };
        chart.may_have_hooks = texts.iter().any(|it| chart.makes_hooks(it));
        Ok(chart)
    }

    fn makes_hooks(&self, text: &str) -> bool {
        let has_hook = || text.contains(HOOK) || self.helpers.iter().any(|it| text.contains(it));
        text.contains("volumeClaimTemplates") || names_claims(text) && has_hook()
    }

    /// The same with these values: templates may take annotations from there.
    fn may_have_hooks_with(&self, values: &str) -> bool {
        self.makes_hooks(values) || self.has_claims && values.contains(HOOK)
    }
}

fn names_claims(text: &str) -> bool {
    text.contains(CLAIM) || has_kind(text, "Namespace")
}

/// The names, in quotes, of the helpers that a template defines.
fn helpers_in(text: &str) -> impl Iterator<Item = &str> {
    let definitions = text.split("define ").skip(1);
    definitions.filter_map(|it| {
        let end = it.trim_start().strip_prefix('"')?.find('"')?;
        it.trim_start().get(..end + 2)
    })
}

/// Whether there is an object of a kind in a text, in quotes or not.
fn has_kind(text: &str, kind: &str) -> bool {
    text.match_indices(kind).any(|(at, _)| {
        let before = text[..at].trim_end_matches(['"', '\'', '\\', ' ', '\t']);
        before.ends_with(':')
    })
}
