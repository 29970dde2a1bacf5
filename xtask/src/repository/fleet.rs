//! A repository, read once: its clusters, the values files that they list, and the charts of their hubs.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::{Path, PathBuf},
};

use anyhow::{Error, Result, anyhow, bail};
use xshell::Shell;

use crate::{
    charts::{
        ChartPath, Loader,
        fetch::NotPublished,
        values::{self, Chart, EnabledChart},
    },
    machine::{
        paths::is_called_secret,
        programs::{self, JSONNET},
        terminal::number_of,
        tree::Tree,
    },
    repository::{
        cluster::{Cluster, RegistryLogin},
        cluster_yaml, freezes,
        image_values::{self, Around, ImageTags, ImageValues},
        jsonnet::{self, MadeFiles, MadeKey},
        keys::KeyFile,
        own_images,
        problem::{self, Problem, Problems, What},
        recipients::Recipients,
        release_config::{ListedFile, ReleaseConfig},
        values_file::{ValuesContent, ValuesFile, is_jsonnet},
    },
    schema::Retriever,
    secrets::git_crypt,
    settings::{self, Settings},
    yaml::{self, Data, Files, Finding, Map, Node, Place},
};

/// The clusters of a repository, and those of their releases that a command is about.
#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) tree: Tree,
    what: Vec<What>,
    /// Every cluster whose cluster.yaml is right, sorted.
    pub(crate) clusters: Vec<Cluster>,
    /// All cluster.yaml files, from the root.
    cluster_files: Vec<PathBuf>,
    /// The folders' names of those that the command is about.
    selected: BTreeSet<String>,
    /// The hubs that the command is about; none for all of them.
    hubs: Vec<String>,
    /// The files of the selected releases, by their paths from the root.
    pub(crate) values: BTreeMap<PathBuf, ValuesFile>,
    /// What jsonnet made for the selected releases.
    pub(crate) made: MadeFiles,
    /// Files in the selected clusters' folders that are called secret or values, and that no list in cluster.yaml has.
    beside: BTreeMap<PathBuf, ValuesFile>,
    pub(crate) charts: BTreeMap<ChartPath, Result<Chart>>,
    pub(crate) recipients: Recipients,
    /// The files among these, and the keys that clusters are logged in with, that git-crypt encrypts.
    pub(crate) git_crypt: BTreeSet<PathBuf>,
    /// The tags of own images; none unless they are asked for.
    pub(crate) image_tags: ImageTags,
    pub(crate) files: Files,
    /// What came up while reading.
    pub(crate) findings: Vec<ReadFinding>,
}

/// What came up while a file was read.
pub(crate) struct ReadFinding {
    /// The file's number.
    pub(crate) file: u32,
    pub(crate) finding: Finding,
    /// The cluster whose file it is.
    pub(crate) cluster: Option<String>,
}

impl Fleet {
    /// Reads all cluster.yaml files, and the values files of what is selected: each once. Those in jsonnet are evaluated.
    /// Charts are read later.
    pub(crate) fn load(
        sh: &Shell,
        tree: &Tree,
        what: &[What],
        cluster: Option<&str>,
        hubs: &[String],
    ) -> Result<Fleet> {
        Fleet::read(sh, tree, what, cluster, hubs)?.evaluated(sh)
    }

    /// The same as far as nothing is evaluated.
    fn read(
        sh: &Shell,
        tree: &Tree,
        what: &[What],
        cluster: Option<&str>,
        hubs: &[String],
    ) -> Result<Fleet> {
        let fleet = Fleet::of_clusters(tree, what, cluster)?;
        fleet.with_files_of(sh, hubs.to_vec())
    }

    /// The hubs of a cluster that are selected when its cluster.yaml is known; empty for all. None if that selects nothing.
    pub(crate) fn load_selected(
        sh: &Shell,
        tree: &Tree,
        what: &[What],
        cluster: &str,
        select: impl FnOnce(&Cluster) -> Option<Vec<String>>,
    ) -> Result<Option<Fleet>> {
        let fleet = Fleet::of_clusters(tree, what, Some(cluster))?;
        let Some(hubs) = select(fleet.cluster(cluster)?) else {
            return Ok(None);
        };
        fleet.with_files_of(sh, hubs)?.evaluated(sh).map(Some)
    }

    fn of_clusters(tree: &Tree, what: &[What], cluster: Option<&str>) -> Result<Fleet> {
        let mut fleet = Fleet {
            tree: tree.clone(),
            what: what.to_vec(),
            cluster_files: cluster_yaml::files(tree)?,
            ..Fleet::default()
        };
        fleet.select(cluster)?;
        fleet.read_clusters();
        Ok(fleet)
    }

    fn with_files_of(mut self, sh: &Shell, hubs: Vec<String>) -> Result<Fleet> {
        self.hubs = hubs;
        if let Some(cluster) = self.selected_clusters().next()
            && !self.hubs.is_empty()
        {
            cluster.select_hubs(&self.hubs)?;
        }
        self.read_values_files(sh)?;
        self.read_recipients();
        if self.wants(What::Clusters) {
            self.read_freezes()?;
        }
        Ok(self)
    }

    /// What belongs to one release of a cluster: a hub, or `support`. An error if that needs a program that is missing:
    /// who asks what is live, or returns to an earlier revision, does not wait until it is built.
    pub(crate) fn of_release(sh: &Shell, tree: &Tree, cluster: &str, name: &str) -> Result<Fleet> {
        let fleet = match name {
            "support" => Fleet::read(sh, tree, &[What::Support], Some(cluster), &[]),
            _ => Fleet::read(sh, tree, &[What::Hubs], Some(cluster), &[name.to_owned()]),
        }?;
        if fleet.values.keys().any(|it| is_jsonnet(it)) {
            programs::provide(sh, &[JSONNET], false)?;
        }
        fleet.evaluated(sh)
    }

    /// Selects the cluster of this name, or all of them.
    fn select(&mut self, cluster: Option<&str>) -> Result<()> {
        let names = self
            .cluster_files
            .iter()
            .map(|it| cluster_yaml::folder_name(it));
        self.selected = names
            .filter(|name| cluster.is_none_or(|wanted| wanted == *name))
            .map(str::to_owned)
            .collect();
        if let Some(cluster) = cluster
            && self.selected.is_empty()
        {
            cluster_yaml::only_file(&self.cluster_files, cluster)?;
        }
        Ok(())
    }

    fn read_clusters(&mut self) {
        for file in &self.cluster_files {
            let number = self.files.add(file);
            let name = cluster_yaml::folder_name(file);
            let (cluster, findings) = cluster_yaml::read(&self.tree, file, number);
            let is_told = self.what.contains(&What::Clusters) || cluster.is_none();
            if is_told && self.selected.contains(name) {
                self.findings
                    .extend(findings.into_iter().map(|finding| ReadFinding {
                        file: number,
                        finding,
                        cluster: Some(name.to_owned()),
                    }));
            }
            self.clusters.extend(cluster);
        }
    }

    fn read_recipients(&mut self) {
        let files = self.values.iter().chain(&self.beside);
        let encrypted = files.filter(|(_, file)| file.sops().is_some());
        let encrypted = encrypted.map(|(path, _)| path.as_path());
        let clusters = self.clusters.iter();
        let clusters = clusters.filter(|it| self.selected.contains(&it.name));
        let keys = clusters.filter_map(|it| Some(KeyFile::of(it)?.path));
        let (recipients, findings) =
            Recipients::read(&self.tree, encrypted.chain(keys), &mut self.files);
        self.recipients = recipients;
        self.add_findings(findings);
    }

    /// Adds what came up while files were read that belong to no cluster, by the numbers of the files.
    fn add_findings(&mut self, findings: impl IntoIterator<Item = (u32, Finding)>) {
        let findings = findings.into_iter();
        self.findings
            .extend(findings.map(|(file, finding)| ReadFinding {
                file,
                finding,
                cluster: None,
            }));
    }

    fn read_freezes(&mut self) -> Result<()> {
        let freezes = Settings::load(&self.tree)?.freeze;
        let file = Path::new(settings::FILE);
        let content = self.tree.read_if_there(file)?.unwrap_or_default();
        let number = self.files.add(file);
        let Ok((yaml, _)) = yaml::read(&content, number) else {
            return Ok(());
        };
        let clusters = self.cluster_files.iter();
        let clusters: Vec<_> = clusters.map(|it| cluster_yaml::folder_name(it)).collect();
        let findings = freezes::findings(&freezes, &yaml, &clusters);
        self.add_findings(findings.into_iter().map(|it| (number, it)));
        Ok(())
    }

    fn read_values_files(&mut self, sh: &Shell) -> Result<()> {
        let releases = self.releases();
        let listed = releases.iter().flat_map(files_of_release);
        let listed: BTreeSet<_> = listed.map(|(path, _)| path.clone()).collect();
        let beside = self.selected_clusters();
        let beside: Vec<_> = beside.flat_map(|it| unlisted(&self.tree, it)).collect();
        let keys = self.selected_clusters().flat_map(keys);
        let all: Vec<_> = listed.iter().chain(&beside).cloned().chain(keys).collect();
        let all = all.iter().map(PathBuf::as_path);
        self.git_crypt = git_crypt::marked(sh, &self.tree, all)?;
        for path in listed {
            let file = self.read_values_file(&path);
            self.values.insert(path, file);
        }
        for path in beside {
            let file = self.read_values_file(&path);
            self.beside.insert(path, file);
        }
        Ok(())
    }

    fn read_values_file(&mut self, path: &Path) -> ValuesFile {
        let number = self.files.add(path);
        ValuesFile::read_kept(&self.tree, path, number, &self.git_crypt)
    }

    fn evaluated(mut self, sh: &Shell) -> Result<Fleet> {
        let mut files = mem::take(&mut self.files);
        self.made = jsonnet::make(sh, &self.tree, &mut files, &self.releases())?;
        self.files = files;
        Ok(self)
    }

    /// The cluster of this name. The error has all that is wrong in its cluster.yaml.
    pub(crate) fn cluster(&self, name: &str) -> Result<&Cluster> {
        let file = cluster_yaml::only_file(&self.cluster_files, name)?;
        if let Some(cluster) = self.clusters.iter().find(|it| it.file() == file) {
            return Ok(cluster);
        }
        let findings = self.findings.iter();
        let own = findings.filter(|it| self.files.path(it.file) == file);
        let own: Vec<_> = own.map(|it| it.finding.clone()).collect();
        bail!(cluster_yaml::unusable(file, &own))
    }

    /// The releases' charts that are there.
    pub(crate) fn charts_wanted(&self) -> BTreeSet<ChartPath> {
        let charts = self.releases().into_iter().map(|it| it.chart);
        charts.filter(|it| it.is_there(&self.tree)).collect()
    }

    /// Reads the charts; `retrieve` has what their schemas refer to.
    pub(crate) fn with_charts(mut self, retrieve: Retriever) -> Fleet {
        let wanted = self.charts_wanted();
        let mut loader = Loader::new(&self.tree, retrieve, &mut self.files);
        let mut broken = Vec::new();
        for chart in wanted {
            let loaded = loader.load(&chart);
            if let Err(err) = &loaded {
                let own = ChartPath::of(&chart.folder);
                // What is wrong without an override is no matter of it.
                let is_of_override = chart != own && loader.load(&own).is_ok();
                let blamed = if is_of_override { &chart } else { &own };
                broken.push((blamed.described_in(), format!("{err:#}")));
            }
            self.charts.insert(chart, loaded);
        }
        let mut findings = loader.problems;
        for (file, message) in broken {
            let finding = Finding::problem("chart", None, message);
            findings.push((self.files.add(&file), finding));
        }
        self.add_findings(findings);
        self
    }

    /// Asks git for the tags of all own images of the releases, of each folder once.
    pub(crate) fn with_image_tags(mut self, sh: &Shell) -> Fleet {
        let mut tags = ImageTags::new();
        for image in self.releases().iter().flat_map(ReleaseConfig::images) {
            let folder = &image.image.path;
            if !tags.contains_key(folder) {
                let tag = own_images::tag(sh, &self.tree, folder);
                tags.insert(folder.clone(), tag.map_err(|err| format!("{err:#}")));
            }
        }
        self.image_tags = tags;
        self
    }

    pub(crate) fn wants(&self, what: What) -> bool {
        self.what.contains(&what)
    }

    /// Whether the values of a release are what the command is about, and not only who gets in by them.
    pub(crate) fn wants_config_of(&self, release: &ReleaseConfig) -> bool {
        self.wants(match release.hub {
            Some(_) => What::Hubs,
            None => What::Support,
        })
    }

    /// Whether all hubs of the selected clusters are meant.
    pub(crate) fn is_whole(&self) -> bool {
        self.hubs.is_empty()
    }

    fn wants_hub(&self, name: &str) -> bool {
        self.hubs.is_empty() || self.hubs.iter().any(|it| it == name)
    }

    pub(crate) fn selected_clusters(&self) -> impl Iterator<Item = &Cluster> {
        self.clusters.iter().filter(|it| self.is_selected(it))
    }

    pub(crate) fn is_selected(&self, cluster: &Cluster) -> bool {
        self.selected.contains(&cluster.name)
    }

    /// What the command is about, in the order of the files.
    pub(crate) fn releases(&self) -> Vec<ReleaseConfig<'_>> {
        let mut releases = Vec::new();
        for cluster in self.selected_clusters() {
            if self.wants(What::Support) && self.is_whole() {
                releases.extend(ReleaseConfig::of_support(&self.tree, cluster));
            }
            if self.wants(What::Hubs) || self.wants(What::Authenticators) {
                for hub in &cluster.hubs {
                    if self.wants_hub(&hub.name) {
                        releases.push(ReleaseConfig::of_hub(&self.tree, cluster, hub));
                    }
                }
            }
        }
        releases
    }

    /// A place for what is wrong with a release.
    pub(crate) fn problems_of<'a>(&'a self, release: &'a ReleaseConfig) -> Problems<'a> {
        let mut problems = self.problems(Some(release.cluster), release.at);
        problems.hub = release.hub.map(|it| it.name.as_str());
        problems
    }

    /// A place for what is wrong with a cluster, or with what belongs to none.
    pub(crate) fn problems<'a>(&'a self, cluster: Option<&'a Cluster>, at: Place) -> Problems<'a> {
        Problems {
            files: &self.files,
            cluster: cluster.map(|it| it.name.as_str()),
            hub: None,
            at,
            found: Vec::new(),
        }
    }

    /// A file that a release lists: what jsonnet makes of it for this release, if it is in jsonnet.
    pub(crate) fn file(&self, release: &ReleaseConfig, path: &Path) -> &ValuesFile {
        let file = &self.values[path];
        let made = self.made.get(&MadeKey::new(release, path));
        // What was made of an encrypted file are no values.
        let is_jsonnet = matches!(file.state, ValuesContent::Jsonnet);
        made.filter(|_| is_jsonnet).map_or(file, |it| &it.file)
    }

    /// All files that a release lists, with where it lists them.
    pub(crate) fn files_of<'a>(
        &'a self,
        release: &'a ReleaseConfig,
    ) -> impl Iterator<Item = (&'a Path, Option<Place>, &'a ValuesFile)> {
        files_of_release(release).map(|(path, at)| (path.as_path(), *at, self.file(release, path)))
    }

    /// Whether a value of a release is set in one of its files, or by an own image, and no default of its chart.
    pub(crate) fn is_set(&self, release: &ReleaseConfig, at: Place) -> bool {
        let mut listed = self.files_of(release);
        listed.any(|(_, _, file)| file.number == at.file)
            || self.is_made(release, at)
            || at.file == release.cluster.at().file
    }

    /// Whether a value of a release is one that jsonnet makes for it.
    pub(crate) fn is_made(&self, release: &ReleaseConfig, at: Place) -> bool {
        let mut sources = jsonnet::sources(&self.made, release.cluster, release.hub);
        sources.any(|it| it == self.files.path(at.file))
    }

    /// A place for messages: "config/clusters/lake/prod.values.yaml:3".
    pub(crate) fn shown(&self, at: Place) -> String {
        format!("{}:{}", self.files.path(at.file).display(), at.line)
    }

    /// Where a release would set a value: in the last of its plain files that sets something around it. None if it has no
    /// plain file.
    pub(crate) fn place_for(&self, release: &ReleaseConfig, path: &[&str]) -> Option<Place> {
        let files = release
            .listed
            .iter()
            .rev()
            .map(|(path, _)| &self.values[path]);
        let plain: Vec<_> = files
            .filter_map(|it| Some((it.number, it.plain()?)))
            .collect();
        for end in (1..=path.len()).rev() {
            let mut around = plain.iter().filter_map(|(_, it)| it.get(&path[..end])?.at);
            if let Some(at) = around.next() {
                return Some(at);
            }
        }
        plain.first().map(|(number, _)| Place::start_of(*number))
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

    /// Whether a file in jsonnet imports this one.
    pub(crate) fn is_imported(&self, path: &Path) -> bool {
        self.made.values().any(|it| it.sources.contains_key(path))
    }

    /// All that the values of a release are made from in jsonnet.
    pub(crate) fn imported_by(&self, release: &ReleaseConfig) -> impl Iterator<Item = &PathBuf> {
        jsonnet::sources(&self.made, release.cluster, release.hub)
    }

    /// Values that people set: all of a release's files together that can be read, and its own images.
    pub(crate) fn set(&self, release: &ReleaseConfig) -> Map {
        let mut set = self.set_by_files(release);
        let by_images = self.image_values(release, &set);
        yaml::merge(&mut set, by_images.values);
        set
    }

    /// What own images of a release set over these values, which its files set.
    pub(crate) fn image_values<'a>(
        &self,
        release: &ReleaseConfig<'a>,
        set: &Map,
    ) -> ImageValues<'a> {
        if release.images().next().is_none() {
            return ImageValues::default();
        }
        let (values, enabled) = match self.compute(release, set) {
            Ok((values, enabled)) => (values, Some(enabled)),
            Err(_) => (Node::nowhere(Data::Map(set.clone())), None),
        };
        let around = Around { values, enabled };
        image_values::find(release, &self.image_tags, around)
    }

    /// Values that all of a release's files together set which can be read.
    pub(crate) fn set_by_files(&self, release: &ReleaseConfig) -> Map {
        let mut set = Map::new();
        for path in release.values_files() {
            if let Some(values) = self.file(release, path).values() {
                yaml::merge(&mut set, values.clone());
            }
        }
        set
    }

    /// Whether all values files of a release can be read.
    pub(crate) fn is_readable(&self, release: &ReleaseConfig) -> bool {
        release
            .values_files()
            .all(|path| self.file(release, path).values().is_some())
    }

    /// Whether all values of a release are known, with the defaults of its charts: what is not among them is not set.
    pub(crate) fn knows_all_of(&self, release: &ReleaseConfig) -> bool {
        let chart = self.charts.get(&release.chart);
        self.is_readable(release)
            && chart.is_none_or(|it| it.as_ref().is_ok_and(Chart::has_all_defaults))
    }

    /// The chart of a release. The error says why it cannot be read.
    pub(crate) fn chart(&self, release: &ReleaseConfig) -> Result<&Chart> {
        let name = release.name();
        match self.charts.get(&release.chart) {
            Some(Ok(chart)) => Ok(chart),
            Some(Err(err)) => bail!("`{name}`: {err:#}"),
            None => {
                let chart = &release.chart;
                let has_folder = self.tree.is_file(&chart.chart_yaml());
                let replaced = chart.chart_override.as_ref().filter(|_| has_folder);
                let missing = replaced.unwrap_or(&chart.folder).display();
                bail!("`{name}` has the chart `{missing}`, which doesn't exist")
            }
        }
    }

    /// The values of a release with what is `set` over its chart's defaults, as helm computes them, and the charts that
    /// they enable.
    pub(crate) fn compute<'a>(
        &'a self,
        release: &ReleaseConfig,
        set: &Map,
    ) -> Result<(Node, EnabledChart<'a>)> {
        let (values, enabled) = values::compute(self.chart(release)?, set)
            .map_err(|subchart| takes_no_values(release, &subchart))?;
        Ok((Node::nowhere(Data::Map(values)), enabled))
    }

    /// Says why what a chart depends on could not be fetched.
    pub(crate) fn not_prepared(&self, chart: &ChartPath, err: &Error, found: &mut Vec<Problem>) {
        let Some(Ok(loaded)) = self.charts.get(chart) else {
            return;
        };
        let mut problems = self.problems(None, loaded.at);
        let message = format!("{err:#}");
        if err.is::<NotPublished>() {
            problems.problem("chart", None, message);
        } else {
            problems.warning(problem::NOT_CHECKED, None, message);
        }
        found.append(&mut problems.found);
    }

    /// "26 clusters, 104 hubs".
    pub(crate) fn size(&self) -> String {
        let hubs = self.selected_clusters().flat_map(|it| &it.hubs);
        let hubs = hubs.filter(|hub| self.wants_hub(&hub.name)).count();
        let clusters = number_of(self.selected.len(), "cluster");
        format!("{clusters}, {}", number_of(hubs, "hub"))
    }
}

fn takes_no_values(release: &ReleaseConfig, subchart: &str) -> Error {
    anyhow!(
        "`{}`: `{subchart}` holds the values of a subchart, and must be a map",
        release.name()
    )
}

/// The files that log in to a cluster, and to the registries of its images.
fn keys(cluster: &Cluster) -> Vec<PathBuf> {
    let own = KeyFile::of(cluster).map(|it| it.path);
    let images = cluster.hubs.iter().flat_map(|it| &it.images);
    let logins = images.filter_map(|it| it.registry.as_ref());
    let of_registries = logins
        .chain(&cluster.registry)
        .filter_map(RegistryLogin::file);
    own.into_iter()
        .chain(of_registries.map(PathBuf::as_path))
        .map(Path::to_owned)
        .collect()
}

/// All files that a release lists.
fn files_of_release<'a>(release: &'a ReleaseConfig) -> impl Iterator<Item = &'a ListedFile> {
    release.listed.iter().chain(&release.domain_override)
}

/// Files in a cluster's folder that may matter, and that its cluster.yaml does not list.
fn unlisted(tree: &Tree, cluster: &Cluster) -> Vec<PathBuf> {
    let listed = listed_files(cluster);
    let names = tree.children(&cluster.dir).unwrap_or_default();
    names
        .into_iter()
        .map(|name| cluster.dir.join(name))
        .filter(|file| (is_called_secret(file) || is_called_values(file)) && !listed.contains(file))
        .filter(|file| !tree.is_folder(file))
        .collect()
}

/// All files that a cluster.yaml lists for its releases and their charts, from the root.
fn listed_files(cluster: &Cluster) -> BTreeSet<PathBuf> {
    let mut listed = Vec::new();
    for hub in &cluster.hubs {
        listed.extend(&hub.helm_chart_values_files);
        listed.extend(&hub.domain_override_file);
    }
    let overrides = cluster.hubs.iter();
    let overrides = overrides.filter_map(|it| cluster.chart(it).chart_override);
    let support = cluster.support.iter();
    listed.extend(support.flat_map(|it| &it.helm_chart_values_files));
    listed.into_iter().cloned().chain(overrides).collect()
}

fn is_called_values(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let endings = [".yaml", ".yml", ".json", ".jsonnet"];
    name.contains("values") && endings.iter().any(|ending| name.ends_with(ending))
}
