//! What a hub's merged values say of what is there to use.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{
    charts::values::{Chart, EnabledChart},
    repository::{
        authenticator::{config::has_login, own::hub_values},
        fleet::Fleet,
        jsonnet,
        release_config::ReleaseConfig,
    },
    yaml::{Data, Map, Node, unquoted},
};

/// What kind of hub a release is.
pub(crate) struct HubTraits {
    /// Whether dask-gateway is among its charts, and enabled.
    pub(crate) has_dask: bool,
    /// Whether people log in to it; they don't to most of BinderHub's.
    pub(crate) has_login: bool,
    /// The path that JupyterHub is below, without a slash at its end.
    pub(crate) base: String,
    /// Where JupyterHub is, if BinderHub has the domain.
    hub_url: Option<String>,
    /// What stands in that for a domain that is encrypted.
    placeholder: Option<String>,
}

impl HubTraits {
    /// Reads them from the values of a hub. An error means that its chart cannot be read, lacks what it depends on, or
    /// doesn't take the values.
    pub(crate) fn find(fleet: &Fleet, release: &ReleaseConfig) -> Result<HubTraits> {
        let (values, enabled) = fleet.compute(release, &fleet.set(release))?;
        let name = release.name();
        if let Some(missing) = missing(&enabled) {
            bail!(
                "`{name}`: the chart `{}` {} isn't in the cache any more, and so its values aren't known\n\
                 hint: try again",
                missing.name,
                missing.version
            );
        }
        let base = text_at(&values, &enabled, &["hub", "baseUrl"]).unwrap_or_default();
        let hub_url = text_at(&values, &enabled, &["config", "BinderHub", "hub_url"]);
        Ok(HubTraits {
            has_dask: has(&enabled, "dask-gateway"),
            has_login: has_login(&values),
            base: match base.trim_matches('/') {
                "" => String::new(),
                base => format!("/{base}"),
            },
            hub_url: hub_url
                .filter(|url| url.starts_with("http"))
                .map(|url| url.trim_end_matches('/').to_owned()),
            placeholder: release
                .hub
                .map(|hub| jsonnet::placeholder(release.cluster, hub)),
        })
    }

    /// Where JupyterHub answers for a hub of this domain.
    pub(crate) fn address(&self, domain: &str) -> String {
        match (&self.hub_url, &self.placeholder) {
            (Some(url), Some(placeholder)) => url.replace(placeholder, domain),
            (Some(url), None) => url.clone(),
            (None, _) => format!("https://{domain}{}", self.base),
        }
    }

    /// Where a browser finds the first page of a hub of this domain.
    pub(crate) fn page(&self, domain: &str) -> String {
        match &self.hub_url {
            Some(_) => format!("https://{domain}"),
            None => format!("https://{domain}{}", self.base),
        }
    }
}

/// Why nobody can check a hub's health, as far as the repository says.
pub(crate) fn why_unchecked(fleet: &Fleet, release: &ReleaseConfig) -> Option<&'static str> {
    if release.hub?.health_check == Some(false) {
        return Some("cluster.yaml has `health_check: false`");
    }
    let (values, _) = fleet.compute(release, &fleet.set(release)).ok()?;
    let lacks_service = hub_values(values.as_map()?)?
        .get(&["services", "hub-health"])
        .is_none();
    (lacks_service && has_login(&values)).then_some("its values have no service `hub-health`")
}

/// Whether a chart is this one, or has it among its enabled subcharts.
pub(crate) fn has(enabled: &EnabledChart, chart: &str) -> bool {
    enabled.chart.name == chart || enabled.parts.iter().any(|it| has(it, chart))
}

/// An enabled chart that isn't there.
fn missing<'a>(enabled: &EnabledChart<'a>) -> Option<&'a Chart> {
    if enabled.chart.is_missing {
        Some(enabled.chart)
    } else {
        enabled.parts.iter().find_map(missing)
    }
}

/// The text at this path in a chart's values, wherever among its subcharts.
pub(crate) fn text_at<'a>(
    values: &'a Node,
    enabled: &EnabledChart,
    path: &[&str],
) -> Option<&'a str> {
    if let Some(text) = values.text(path) {
        return Some(text);
    }
    enabled
        .parts
        .iter()
        .find_map(|part| text_at(values.get(&[part.name])?, part, path))
}

/// What of a release's values anybody may see: what is in plain values files and charts' defaults.
#[derive(Default)]
pub(crate) struct PlainValues {
    /// The last keys and texts of values.
    texts: BTreeSet<(String, String)>,
    keys: BTreeSet<String>,
    defaults: Option<Node>,
    /// Each file's values.
    files: Vec<Node>,
}

impl PlainValues {
    /// Whether a text is set somewhere under this key.
    pub(crate) fn contains(&self, key: &str, text: &str) -> bool {
        self.texts.contains(&(key.to_owned(), text.to_owned()))
    }

    /// Whether some values have all these keys, be it for something secret.
    pub(crate) fn has_keys<'a>(&self, mut keys: impl Iterator<Item = &'a String>) -> bool {
        keys.all(|it| self.keys.contains(it))
    }

    /// Whether a file or the defaults have this value at a path.
    pub(crate) fn has_at(&self, path: &[&str], value: &Value) -> bool {
        let sources = self.files.iter().chain(&self.defaults);
        let found = sources.filter_map(|it| it.get(path));
        let mut plain = found.filter(|it| !matches!(it.data, Data::Encrypted(_)));
        plain.any(|it| it.to_json() == *value)
    }

    /// Whether a file sets something at a path, and no file has something encrypted there.
    pub(crate) fn sets(&self, path: &[&str]) -> bool {
        let mut found = self.files.iter().filter_map(|it| it.get(path)).peekable();
        found.peek().is_some() && found.all(|it| !matches!(it.data, Data::Encrypted(_)))
    }

    /// Whether a file has something encrypted at a path.
    pub(crate) fn has_encrypted(&self, path: &[&str]) -> bool {
        let mut found = self.files.iter().filter_map(|it| it.get(path));
        found.any(|it| matches!(it.data, Data::Encrypted(_)))
    }

    /// Adds all that is below a value, apart from what is encrypted.
    fn add(&mut self, key: &str, node: &Node) {
        match &node.data {
            Data::Map(map) => {
                for (key, node) in map {
                    self.keys.insert(key.to_string());
                    self.add(key, node);
                }
            }
            Data::List(items) => items.iter().for_each(|it| self.add(key, it)),
            Data::Encrypted(_) => {}
            _ => {
                _ = self
                    .texts
                    .insert((key.to_owned(), unquoted(&node.to_json())))
            }
        }
    }
}

/// What of a release's values anybody may see. None is known of a release whose chart cannot be read.
pub(crate) fn plain_values(fleet: &Fleet, release: &ReleaseConfig) -> PlainValues {
    let mut plain = PlainValues::default();
    if let Ok((values, _)) = fleet.compute(release, &fleet.set(release)) {
        plain.add("", &values);
    }
    if let Ok((defaults, _)) = fleet.compute(release, &Map::new()) {
        plain.defaults = Some(defaults);
    }
    for path in release.values_files() {
        let values = fleet.file(release, path).values().cloned();
        plain
            .files
            .extend(values.map(|it| Node::nowhere(Data::Map(it))));
    }
    let by_images = fleet.image_values(release, &fleet.set_by_files(release));
    plain.files.push(Node::nowhere(Data::Map(by_images.values)));
    plain
}
