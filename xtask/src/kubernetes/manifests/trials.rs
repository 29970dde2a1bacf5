//! Renderings of a release with placeholders for its secrets, by `helm template`, which asks no cluster.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Result, bail};
use serde::Deserialize;
use xshell::Shell;

use crate::{
    charts::{self, words_of},
    kubernetes::{
        api::Api,
        helm::{self, Release},
        history,
    },
    machine::{parallel, process},
    repository::kubernetes_version::Kubernetes,
    secrets::Mask,
};

/// How long helm may take for one of them.
const LIMIT: Duration = Duration::from_secs(300);

/// A release with each of two sets of placeholders for its secrets.
pub(crate) struct Disguised<'a> {
    pub(crate) releases: [Release<'a>; 2],
    /// Calls the files by their names, and hides how the placeholders look.
    pub(crate) mask: Mask,
}

/// What the manifests that are shown are compared with.
pub(crate) enum Trials {
    /// Nothing of the release is encrypted.
    Unneeded,
    Rendered([String; 2]),
    /// The chart doesn't take the placeholders.
    Refused {
        why: String,
        /// The words of its files and of the release's values files: keys and names that are made of others come from a
        /// secret, perhaps.
        words: BTreeSet<String>,
    },
}

/// The API versions of a group, as far as helm tells charts of them.
#[derive(Deserialize)]
struct Group {
    metadata: GroupName,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct GroupName {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    response_kind: Option<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

/// Renders a release with each set of placeholders. `api` is that of the cluster which the manifests to compare with are
/// made for; without one, they are made for this Kubernetes.
pub(crate) fn render(
    sh: &Shell,
    disguised: Option<&Disguised>,
    api: Option<&Api>,
    kubernetes: Kubernetes,
) -> Trials {
    let Some(disguised) = disguised else {
        return Trials::Unneeded;
    };
    match render_both(sh, disguised, api, kubernetes) {
        Ok(rendered) => Trials::Rendered(rendered),
        Err(err) => Trials::Refused {
            why: reason(&format!("{err:#}")),
            words: words(&disguised.releases[0]),
        },
    }
}

/// The words of a chart and of values files; none if the chart can't be read.
fn words(release: &Release) -> BTreeSet<String> {
    let mut words = charts::words(release.chart).unwrap_or_default();
    words.extend(words_of(release.name).map(str::to_owned));
    for file in &release.values {
        let text = fs::read_to_string(file).unwrap_or_default();
        words.extend(words_of(&text).map(str::to_owned));
    }
    words
}

/// Why there are no renderings, on one line.
fn reason(message: &str) -> String {
    let words: Vec<_> = message.split_whitespace().collect();
    format!(
        "the chart can't be rendered with placeholders for its secrets: {}",
        words.join(" ")
    )
}

fn render_both(
    sh: &Shell,
    disguised: &Disguised,
    api: Option<&Api>,
    kubernetes: Kubernetes,
) -> Result<[String; 2]> {
    let name = disguised.releases[0].name;
    let (kubernetes, flags) = match api {
        Some(api) => like_cluster(api, name)?,
        None => (kubernetes.to_string(), Vec::new()),
    };
    let mut flags = flags;
    // A placeholder has the right type, but perhaps not what else a schema wants.
    flags.push("--skip-schema-validation".to_owned());
    let rendered = parallel::side_by_side(sh, &disguised.releases, |sh, release| {
        let template = helm::template(sh, release, &kubernetes, &flags);
        let output = process::run_within(sh, template, LIMIT)?;
        if !output.success {
            let message = String::from_utf8_lossy(&output.stderr);
            bail!("{}", disguised.mask.hide(message.trim()));
        }
        Ok(String::from_utf8(output.stdout)?)
    });
    let rendered: Vec<_> = rendered.into_iter().collect::<Result<_>>()?;
    Ok(rendered.try_into().expect("there are two"))
}

/// The version of a cluster's Kubernetes, and the flags by which `helm template` tells a chart what an upgrade in this
/// cluster would tell it.
fn like_cluster(api: &Api, release: &str) -> Result<(String, Vec<String>)> {
    let version = api.get("/version")?;
    let mut flags = Vec::new();
    if !history::revisions(api, release)?.is_empty() {
        flags.push("--is-upgrade".to_owned());
    }
    for served in served(api)? {
        flags.extend(["--api-versions".to_owned(), served]);
    }
    let version = version["gitVersion"].as_str().unwrap_or_default();
    Ok((version.to_owned(), flags))
}

/// The API versions that a cluster has, with the kinds of each one.
pub(crate) fn served(api: &Api) -> Result<BTreeSet<String>> {
    let mut served = BTreeSet::new();
    for group in api.discover::<Group>()? {
        let name = &group.metadata.name;
        for version in group.versions {
            let version_name = match name.as_str() {
                "" => version.version,
                name => format!("{name}/{}", version.version),
            };
            let kinds = version.resources.into_iter();
            let kinds = kinds.filter_map(|it| Some(it.response_kind?.kind));
            served.extend(kinds.map(|kind| format!("{version_name}/{kind}")));
            served.insert(version_name);
        }
    }
    Ok(served)
}
