//! What is checked, read once: clusters, the values files that they list, and the charts of their hubs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    charts::{
        Loader,
        values::{self, Chart, EnabledChart},
    },
    machine::{
        paths::is_called_secret,
        terminal::{self, number_of},
    },
    repository::{
        authenticator,
        cluster::{self, Cluster, Hub, Support},
        encrypted,
        problem::{self, Problem, Problems, What},
        values_file::ValuesFile,
    },
    schema::Retriever,
    yaml::{Data, Files, Finding, Map, Node, Place},
};

/// The clusters of a repository, and those of their releases that are checked.
pub(crate) struct Fleet {
    pub(crate) root: PathBuf,
    what: Vec<What>,
    /// Every cluster whose cluster.yaml is right, sorted.
    pub(crate) clusters: Vec<Cluster>,
    /// Names of folders.
    selected: BTreeSet<String>,
    /// Nothing for all of them.
    hubs: Vec<String>,
    /// Of the selected clusters' releases, by their paths from the root.
    pub(crate) values: BTreeMap<PathBuf, ValuesFile>,
    /// What is called secret or values in the selected clusters' folders, and that no list in cluster.yaml has.
    beside: BTreeMap<PathBuf, ValuesFile>,
    /// By their paths from the root.
    pub(crate) charts: BTreeMap<PathBuf, Result<Chart>>,
    pub(crate) recipients: Vec<encrypted::Rule>,
    pub(crate) files: Files,
    /// What came up while reading: file, finding, and whose it is.
    pub(crate) findings: Vec<(u32, Finding, Option<String>)>,
}

/// A hub, or what a cluster's hubs share.
pub(crate) struct ReleaseConfig<'a> {
    pub(crate) cluster: &'a Cluster,
    /// None for the chart `support`.
    pub(crate) hub: Option<&'a Hub>,
    pub(crate) chart: PathBuf,
    /// Values files by their paths from the root, each with where cluster.yaml lists it; the last one wins.
    pub(crate) listed: Vec<(PathBuf, Option<Place>)>,
    /// What else it needs.
    pub(crate) domain_override: Option<(PathBuf, Option<Place>)>,
    /// Where cluster.yaml describes it.
    pub(crate) at: Place,
}

/// What a hub's merged values say of what is there to use.
pub(crate) struct HubTraits {
    /// Whether dask-gateway is among its charts, and enabled.
    pub(crate) has_dask: bool,
    /// Whether people log in to it; they don't to most of BinderHub's.
    pub(crate) has_login: bool,
    /// The path that JupyterHub is below, without a slash at its end.
    pub(crate) base: String,
    /// Where JupyterHub is, if BinderHub has the domain.
    hub_url: Option<String>,
}

impl HubTraits {
    /// Where JupyterHub answers for a hub of this domain.
    pub(crate) fn address(&self, domain: &str) -> String {
        self.hub_url
            .clone()
            .unwrap_or_else(|| format!("https://{domain}{}", self.base))
    }

    /// Where a browser finds the first page of a hub of this domain.
    pub(crate) fn page(&self, domain: &str) -> String {
        let base = if self.hub_url.is_some() {
            ""
        } else {
            &self.base
        };
        format!("https://{domain}{base}")
    }
}

impl ReleaseConfig<'_> {
    pub(crate) fn name(&self) -> &str {
        self.hub.map_or("support", |it| &it.name)
    }

    /// For messages.
    pub(crate) fn shown(&self) -> String {
        self.hub
            .map_or_else(|| "`support`".to_owned(), |it| format!("hub `{}`", it.name))
    }
}

impl Fleet {
    /// Without charts yet.
    pub(crate) fn load(
        root: &Path,
        what: &[What],
        cluster: Option<&str>,
        hubs: &[String],
    ) -> Result<Fleet> {
        let mut files = Files::default();
        let mut findings = Vec::new();
        let mut clusters = Vec::new();
        let mut names = BTreeSet::new();
        for file in cluster::files(root)? {
            let number = files.add(&file);
            let name = cluster::folder_name(&file);
            names.insert(name.to_owned());
            let (parsed, found) = cluster::read(root, &file, number);
            if cluster.is_none_or(|it| it == name) && what.contains(&What::Clusters)
                || parsed.is_none()
            {
                findings.extend(
                    found
                        .into_iter()
                        .map(|it| (number, it, Some(name.to_owned()))),
                );
            }
            clusters.extend(parsed);
        }
        let selected = match cluster {
            None => names,
            Some(name) if names.contains(name) => [name.to_owned()].into(),
            Some(name) => bail!(
                "there is no cluster `{name}` in `config/clusters/`; there are: {}",
                terminal::list(names)
            ),
        };
        findings.retain(|(_, _, name)| name.as_ref().is_some_and(|it| selected.contains(it)));
        if let Some(cluster) = clusters.iter().find(|it| Some(it.name.as_str()) == cluster)
            && !hubs.is_empty()
        {
            cluster.select_hubs(hubs)?;
        }
        let mut fleet = Fleet {
            root: root.to_owned(),
            what: what.to_vec(),
            clusters,
            selected,
            hubs: hubs.to_vec(),
            values: BTreeMap::new(),
            beside: BTreeMap::new(),
            charts: BTreeMap::new(),
            recipients: Vec::new(),
            files,
            findings,
        };
        let (rules, problem) = encrypted::rules(root, &mut fleet.files);
        fleet.recipients = rules;
        fleet
            .findings
            .extend(problem.map(|(number, finding)| (number, finding, None)));
        let releases = fleet.releases();
        let listed: BTreeSet<PathBuf> = releases
            .iter()
            .flat_map(|it| it.listed.iter().chain(&it.domain_override))
            .map(|(path, _)| path.clone())
            .collect();
        for path in listed {
            let number = fleet.files.add(&path);
            fleet
                .values
                .insert(path.clone(), ValuesFile::read(root, &path, number));
        }
        let beside: Vec<_> = fleet
            .selected_clusters()
            .flat_map(|it| unlisted(root, it))
            .collect();
        for path in beside {
            let number = fleet.files.add(&path);
            fleet
                .beside
                .insert(path.clone(), ValuesFile::read(root, &path, number));
        }
        Ok(fleet)
    }

    /// The folders of the releases' charts that are there, from the root.
    pub(crate) fn charts_wanted(&self) -> BTreeSet<PathBuf> {
        let charts = self.releases().into_iter().map(|it| it.chart);
        charts
            .filter(|it| self.root.join(it).join("Chart.yaml").is_file())
            .collect()
    }

    /// Reads the charts; `retrieve` has what their schemas refer to.
    pub(crate) fn with_charts(mut self, retrieve: Retriever) -> Fleet {
        let wanted = self.charts_wanted();
        let mut loader = Loader::new(&self.root, retrieve, &mut self.files);
        self.charts = wanted
            .into_iter()
            .map(|it| (it.clone(), loader.load(&it)))
            .collect();
        let problems = loader.problems;
        self.findings.extend(
            problems
                .into_iter()
                .map(|(number, finding)| (number, finding, None)),
        );
        for (chart, err) in self
            .charts
            .iter()
            .filter_map(|(chart, it)| Some((chart, it.as_ref().err()?)))
        {
            let number = self.files.add(&chart.join("Chart.yaml"));
            self.findings.push((
                number,
                Finding::problem("chart", None, format!("{err:#}")),
                None,
            ));
        }
        self
    }

    pub(crate) fn wants(&self, what: What) -> bool {
        self.what.contains(&what)
    }

    /// Whether all hubs of the selected clusters are checked.
    pub(crate) fn is_whole(&self) -> bool {
        self.hubs.is_empty()
    }

    pub(crate) fn selected_clusters(&self) -> impl Iterator<Item = &Cluster> {
        self.clusters
            .iter()
            .filter(|it| self.selected.contains(&it.name))
    }

    /// What is checked, in the order of the files.
    pub(crate) fn releases(&self) -> Vec<ReleaseConfig<'_>> {
        let mut releases = Vec::new();
        for cluster in self.selected_clusters() {
            if self.wants(What::Support) && self.is_whole() {
                releases.extend(self.support(cluster));
            }
            if self.wants(What::Hubs) || self.wants(What::Authenticators) {
                let hubs = cluster.hubs.iter().enumerate();
                let hubs =
                    hubs.filter(|(_, hub)| self.hubs.is_empty() || self.hubs.contains(&hub.name));
                releases.extend(hubs.map(|(index, hub)| release_of(cluster, hub, index)));
            }
        }
        releases
    }

    fn support<'a>(&self, cluster: &'a Cluster) -> Option<ReleaseConfig<'a>> {
        let support = cluster.support.as_ref()?;
        let shared = Support::shared_values(&self.root).map(|it| (it, None));
        let own = listed(cluster, &["support"], &support.helm_chart_values_files);
        let at = cluster.yaml.get(&["support"]).and_then(|it| it.at);
        Some(ReleaseConfig {
            cluster,
            hub: None,
            chart: PathBuf::from("helm-charts/support"),
            listed: shared.into_iter().chain(own).collect(),
            domain_override: None,
            at: at.unwrap_or_else(|| cluster.at()),
        })
    }

    pub(crate) fn problems_of<'a>(&'a self, release: &'a ReleaseConfig) -> Problems<'a> {
        let mut problems = self.problems(Some(release.cluster), release.at);
        problems.hub = release.hub.map(|it| it.name.as_str());
        problems
    }

    pub(crate) fn problems<'a>(&'a self, cluster: Option<&'a Cluster>, at: Place) -> Problems<'a> {
        let cluster = cluster.map(|it| it.name.as_str());
        Problems {
            files: &self.files,
            cluster,
            hub: None,
            at,
            found: Vec::new(),
        }
    }

    /// All files that a release lists, with where it lists them.
    pub(crate) fn files_of<'a>(
        &'a self,
        release: &'a ReleaseConfig,
    ) -> impl Iterator<Item = (&'a Path, Option<Place>, &'a ValuesFile)> {
        let listed = release.listed.iter().chain(&release.domain_override);
        listed.map(|(path, at)| (path.as_path(), *at, &self.values[path]))
    }

    /// Whether a value of a release is set in one of its files, and no default of its chart.
    pub(crate) fn is_set(&self, release: &ReleaseConfig, at: Place) -> bool {
        self.files_of(release)
            .any(|(_, _, file)| file.number == at.file)
    }

    /// Files in a cluster's folder that are called secret or values, and that nothing lists.
    pub(crate) fn unlisted(
        &self,
        cluster: &Cluster,
    ) -> impl Iterator<Item = (&PathBuf, &ValuesFile)> {
        self.beside
            .iter()
            .filter(move |(path, _)| path.parent() == Some(&cluster.dir))
    }

    /// Values that people set, all of a release's files together that can be read.
    pub(crate) fn set(&self, release: &ReleaseConfig) -> Map {
        let mut set = Map::new();
        for values in release
            .listed
            .iter()
            .filter_map(|(path, _)| self.values[path].values())
        {
            crate::yaml::merge(&mut set, values.clone());
        }
        set
    }

    /// Whether all of a release's values are known.
    pub(crate) fn is_readable(&self, release: &ReleaseConfig) -> bool {
        release
            .listed
            .iter()
            .all(|(path, _)| self.values[path].values().is_some())
    }

    /// An error means that the chart can't be read, lacks what it depends on, or doesn't take the values.
    pub(crate) fn kind(&self, hub: &Hub) -> Result<HubTraits> {
        let releases = self.releases();
        let release = releases
            .iter()
            .find(|it| it.hub.is_some_and(|it| it.name == hub.name));
        let release = release.context("the hub isn't among those checked")?;
        let chart = match self.charts.get(&release.chart) {
            Some(Ok(chart)) => chart,
            Some(Err(err)) => bail!("`{}`: {err:#}", hub.name),
            None => bail!(
                "`{}` has the chart `{}`, which doesn't exist",
                hub.name,
                release.chart.display()
            ),
        };
        let (values, whole) = values::compute(chart, &self.set(release)).map_err(|it| {
            anyhow!(
                "`{}`: `{it}` holds the values of a subchart, and must be a map",
                hub.name
            )
        })?;
        if let Some(Chart { name, version, .. }) = missing(&whole) {
            bail!(
                "`{}`: the chart `{name}` {version} isn't in the cache any more, and so its values aren't known\n\
                 hint: try again",
                hub.name
            );
        }
        let values = Node::nowhere(Data::Map(values));
        let config = authenticator::AuthenticatorConfig::find(&values, &hub.name, |_| false);
        let base = text_at(&values, &whole, &["hub", "baseUrl"])
            .unwrap_or_default()
            .trim_matches('/');
        let hub_url = text_at(&values, &whole, &["config", "BinderHub", "hub_url"]);
        let hub_url = hub_url.filter(|it| it.starts_with("http"));
        Ok(HubTraits {
            has_dask: has(&whole, "dask-gateway"),
            has_login: config.is_none_or(|it| it.has_login()),
            base: if base.is_empty() {
                String::new()
            } else {
                format!("/{base}")
            },
            hub_url: hub_url.map(|it| it.trim_end_matches('/').to_owned()),
        })
    }

    /// What of a release's values anybody may see: those of its plain files, and its charts' defaults.
    pub(crate) fn plain(&self, name: &str) -> Plain {
        let mut plain = Plain::new();
        for release in self.releases().iter().filter(|it| it.name() == name) {
            if let Some(Ok(chart)) = self.charts.get(&release.chart)
                && let Ok((values, _)) = values::compute(chart, &self.set(release))
            {
                add_plain("", &Node::nowhere(Data::Map(values)), &mut plain);
            }
        }
        plain
    }

    /// The files that releases list, from the root, and whether they are encrypted.
    pub(crate) fn listed(&self) -> Vec<(PathBuf, bool)> {
        self.values
            .iter()
            .map(|(path, it)| (path.clone(), it.is_encrypted()))
            .collect()
    }

    /// Says why what a chart depends on couldn't be fetched.
    pub(crate) fn not_prepared(&self, chart: &Path, err: &anyhow::Error, found: &mut Vec<Problem>) {
        let Some(Ok(loaded)) = self.charts.get(chart) else {
            return;
        };
        let mut problems = self.problems(None, loaded.at);
        problems.warning(problem::NOT_CHECKED, None, format!("{err:#}"));
        found.append(&mut problems.found);
    }

    /// "26 clusters, 104 hubs".
    pub(crate) fn size(&self) -> String {
        let hubs = self.selected_clusters().flat_map(|it| &it.hubs);
        let hubs = hubs
            .filter(|it| self.hubs.is_empty() || self.hubs.contains(&it.name))
            .count();
        format!(
            "{}, {}",
            number_of(self.selected.len(), "cluster"),
            number_of(hubs, "hub")
        )
    }
}

/// Whether a chart is this one, or has it among its enabled parts.
fn has(part: &EnabledChart, chart: &str) -> bool {
    part.chart.name == chart || part.parts.iter().any(|it| has(it, chart))
}

/// An enabled part of a chart that isn't there.
fn missing<'a>(part: &EnabledChart<'a>) -> Option<&'a Chart> {
    if part.chart.is_missing {
        Some(part.chart)
    } else {
        part.parts.iter().find_map(missing)
    }
}

/// What is at this path in a chart's values, wherever among its parts.
fn text_at<'a>(values: &'a Node, part: &EnabledChart, path: &[&str]) -> Option<&'a str> {
    let own = values.get(path).and_then(Node::as_text);
    own.or_else(|| {
        part.parts
            .iter()
            .find_map(|it| text_at(values.get(&[it.name])?, it, path))
    })
}

fn unlisted(root: &Path, cluster: &Cluster) -> Vec<PathBuf> {
    let hubs = cluster.hubs.iter().flat_map(|it| {
        it.helm_chart_values_files
            .iter()
            .chain(&it.domain_override_file)
    });
    let support = cluster
        .support
        .iter()
        .flat_map(|it| &it.helm_chart_values_files);
    let listed: BTreeSet<PathBuf> = hubs.chain(support).map(|it| cluster.dir.join(it)).collect();
    let entries = fs::read_dir(root.join(&cluster.dir))
        .into_iter()
        .flatten()
        .flatten();
    let files = entries
        .filter(|it| it.path().is_file())
        .map(|it| cluster.dir.join(it.file_name()));
    let is_of_interest = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let is_values = name.contains("values")
            && [".yaml", ".yml", ".json"]
                .iter()
                .any(|it| name.ends_with(it));
        (is_values || is_called_secret(path)) && !listed.contains(path)
    };
    files.filter(is_of_interest).collect()
}

fn release_of<'a>(cluster: &'a Cluster, hub: &'a Hub, index: usize) -> ReleaseConfig<'a> {
    let path = ["hubs", &index.to_string()];
    let at = cluster.yaml.get(&path).and_then(|it| it.get(&["name"])?.at);
    let domain_override = hub.domain_override_file.as_ref().map(|it| {
        let at = cluster
            .yaml
            .get(&path)
            .and_then(|it| it.get(&["domain_override_file"])?.at);
        (cluster.dir.join(it), at)
    });
    ReleaseConfig {
        cluster,
        hub: Some(hub),
        chart: hub.chart(),
        listed: listed(cluster, &path, &hub.helm_chart_values_files),
        domain_override,
        at: at.unwrap_or_else(|| cluster.at()),
    }
}

fn listed(cluster: &Cluster, path: &[&str], files: &[PathBuf]) -> Vec<(PathBuf, Option<Place>)> {
    let list = cluster
        .yaml
        .get(path)
        .and_then(|it| it.get(&["helm_chart_values_files"])?.as_list());
    let places = list.unwrap_or_default().iter().map(|it| it.at);
    files
        .iter()
        .map(|it| cluster.dir.join(it))
        .zip(places)
        .collect()
}

/// The last keys and texts of values that anybody may see: from plain values files and charts' defaults.
pub(crate) type Plain = BTreeSet<(String, String)>;

/// Adds the last keys and texts of all that is below a value, apart from what is encrypted.
pub(crate) fn add_plain(key: &str, node: &Node, plain: &mut Plain) {
    match &node.data {
        Data::Map(map) => map.iter().for_each(|(key, it)| add_plain(key, it, plain)),
        Data::List(items) => items.iter().for_each(|it| add_plain(key, it, plain)),
        Data::Encrypted(_) => {}
        _ => _ = plain.insert((key.to_owned(), scalar(node))),
    }
}

/// A value that is neither a map nor a list, as text.
fn scalar(node: &Node) -> String {
    let json = node.to_json();
    json.as_str()
        .map_or_else(|| json.to_string(), str::to_owned)
}
