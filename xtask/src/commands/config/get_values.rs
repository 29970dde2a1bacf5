//! The values of releases as helm would have them, each with the place where it is set.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::ExitCode,
};

use anyhow::{Result, anyhow, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use xshell::Shell;

use crate::{
    charts::{fetch, values::EnabledChart},
    machine::{
        parallel,
        terminal::{self, Format, hint_of_name, list, nearest},
        tree::Tree,
    },
    repository::{
        cluster_yaml,
        fleet::Fleet,
        jsonnet,
        problem::What,
        release_config::ReleaseConfig,
        release_values::paths_of_key,
        values_file::{ValuesContent, ValuesFile},
    },
    yaml::{Data, KeyPath, Node, Place, Step},
};

/// Print the merged values of hubs, each with the file and line that sets it
///
/// Without KEY these are all values that values files set, as in `helm get values`. With KEY it is that value, or all below
/// it, and the defaults of charts count as well. A hub that has nothing there is asked for the same key of its subcharts: so
/// `singleuser.image.tag` finds `jupyterhub.singleuser.image.tag` and `basehub.jupyterhub.singleuser.image.tag`.
///
/// Nothing is decrypted: an encrypted value is `***`. The exit status is 1 if a hub's values cannot be read; those of the
/// others are printed.
#[derive(clap::Args)]
#[command(
    override_usage = "cargo xtask config get-values [OPTIONS] [CLUSTER [HUB]] [KEY]",
    after_help = "\
Examples:\n\
\x20 cargo xtask config get-values lake prod                        what a hub's files set\n\
\x20 cargo xtask config get-values lake jupyterhub.singleuser       all below a key, in a cluster\n\
\x20 cargo xtask config get-values singleuser.image.tag             which hub has which image\n\
\x20 cargo xtask config get-values hub.config.Authenticator.admin_users | grep alice\n\
\x20 cargo xtask config get-values lake support --all --format json\n\n\
A single argument is a cluster if there is one of that name, and else a KEY. KEY is written as for\n\
helm's `--set`: `list[0]` is an item, and `\\.` a dot that is part of a key."
)]
pub struct GetValues {
    /// Cluster, by its folder in config/clusters/ [default: all of them]
    cluster: Option<String>,
    /// Hub of the cluster, or `support` [default: all of them]
    release: Option<String>,
    /// Keys that lead to a value, as in `jupyterhub.singleuser.memory.limit`
    key: Option<String>,
    /// Without KEY, also print the defaults of charts
    #[arg(long)]
    all: bool,
    /// How to print values: a line for each, or as JSON
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// What the arguments ask for.
struct Question {
    cluster: Option<String>,
    release: Option<String>,
    key: Option<KeyPath>,
    has_defaults: bool,
}

/// The values of a release.
struct ReleaseValues<'a> {
    release: &'a ReleaseConfig<'a>,
    values: Node,
    enabled: Option<EnabledChart<'a>>,
    /// Those that are asked for.
    paths: Vec<KeyPath>,
}

/// A value that has none below it, as it is printed.
#[derive(Serialize)]
struct Row<'a> {
    cluster: &'a str,
    hub: &'a str,
    key: String,
    value: Value,
    #[serde(skip_serializing_if = "is_false")]
    encrypted: bool,
    /// From the root. None for what helm adds by itself.
    file: Option<String>,
    line: Option<u32>,
    /// The folder that an own image is built from, if the value is part of its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    built_from: Option<String>,
}

fn is_false(it: &bool) -> bool {
    !it
}

/// Prints the values that are asked for.
pub(crate) fn get_values(sh: &Shell, tree: &Tree, args: &GetValues) -> Result<ExitCode> {
    let question = Question::read(tree, args)?;
    let fleet = question.load(sh, tree)?;
    let releases = fleet.releases();
    let all: Vec<_> = releases.iter().collect();
    let looked = parallel::side_by_side(&(), &all, |(), it| question.look(&fleet, it));
    let mut problems = broken_clusters(&fleet, question.cluster.is_some())?;
    let mut found = Vec::new();
    for (release, values) in releases.iter().zip(looked) {
        match values {
            Ok(values) => found.push(values),
            Err(err) => problems.add(release, &err.to_string()),
        }
    }
    let rows: Vec<_> = found.iter().flat_map(|it| it.rows(&fleet)).collect();
    print(&rows, args.format)?;
    question.say_what_is_unknown(&fleet, &found);
    problems.say();
    if rows.is_empty()
        && let Some(key) = &question.key
    {
        bail!(question.nothing_found(key, &found, tree));
    }
    Ok(problems.exit_code())
}

impl Question {
    /// Tells clusters, hubs and keys apart.
    fn read(tree: &Tree, args: &GetValues) -> Result<Question> {
        let words = [&args.cluster, &args.release, &args.key];
        let mut words: Vec<_> = words.into_iter().flatten().map(String::as_str).collect();
        let mut question = Question {
            cluster: None,
            release: None,
            key: None,
            has_defaults: args.all,
        };
        if let Some((cluster, release)) = words.first().and_then(|it| it.split_once('/'))
            && is_cluster(tree, cluster)
        {
            words.splice(..1, [cluster, release]);
        }
        ensure!(words.len() <= 3, "one cluster, one hub and one key at most");
        if words.len() > 1 || words.first().is_some_and(|it| is_cluster(tree, it)) {
            let cluster = words.remove(0);
            cluster_yaml::only_file(&cluster_yaml::files(tree)?, cluster)?;
            question.cluster = Some(cluster.to_owned());
            let (_, known) = cluster_yaml::names_of_releases(tree, cluster);
            let is_release = words
                .first()
                .is_some_and(|it| known.iter().any(|known| known == it));
            if words.len() > 1 || is_release {
                question.release = Some(words.remove(0).to_owned());
            }
        }
        if let [key] = words[..] {
            question.key = Some(KeyPath::parse(key)?);
        }
        question.has_defaults |= question.key.is_some();
        Ok(question)
    }

    fn load(&self, sh: &Shell, tree: &Tree) -> Result<Fleet> {
        let cluster = self.cluster.as_deref();
        let release = self.release.as_deref();
        let hubs: Vec<_> = release
            .filter(|it| *it != "support")
            .map(str::to_owned)
            .into_iter()
            .collect();
        let what: &[What] = match release {
            Some("support") => &[What::Support],
            Some(_) => &[What::Hubs],
            None => &[What::Support, What::Hubs],
        };
        let fleet = Fleet::load(sh, tree, what, cluster, &hubs)?;
        if let Some(cluster) = cluster {
            let cluster = fleet.cluster(cluster)?;
            if release == Some("support") && cluster.support.is_none() {
                bail!(
                    "cluster `{}` has no `support` in its cluster.yaml",
                    cluster.name
                );
            }
        }
        let fleet = fleet.with_image_tags(sh);
        // Where an own image is set depends on the chart.
        if self.has_defaults || !fleet.image_tags.is_empty() {
            return Ok(fleet.with_charts(fetch::cached_schemas()));
        }
        Ok(fleet)
    }

    /// The values of a release. An error if they are not all known, for then none is sure to be what helm has.
    fn look<'a>(
        &self,
        fleet: &'a Fleet,
        release: &'a ReleaseConfig<'a>,
    ) -> Result<ReleaseValues<'a>> {
        for (path, _, file) in fleet.files_of(release) {
            file.refuse_unreadable(path)?;
        }
        for image in release.images() {
            let tag = &fleet.image_tags[&image.image.path];
            tag.as_ref().map_err(|why| anyhow!("{why}"))?;
        }
        let mut looked = ReleaseValues {
            release,
            values: Node::nowhere(Data::Map(fleet.set(release))),
            enabled: None,
            paths: vec![KeyPath::default()],
        };
        if self.has_defaults {
            let set = looked.values.as_map().expect("it is one");
            let (values, enabled) = fleet.compute(release, set)?;
            looked.values = values;
            if let Some(key) = &self.key {
                looked.paths = paths_of_key(key, &looked.values, &enabled);
            }
            looked.enabled = Some(enabled);
        }
        Ok(looked)
    }

    /// Why nothing is printed for a key.
    fn nothing_found(&self, key: &KeyPath, found: &[ReleaseValues], tree: &Tree) -> String {
        let mut known = BTreeSet::new();
        for it in found {
            add_keys(&KeyPath::default(), &it.values, &mut known);
            if let Some(enabled) = &it.enabled {
                add_keys_of_subcharts(enabled, &it.values, &mut known);
            }
        }
        let shown = key.to_string();
        let longer: Vec<_> = known
            .iter()
            .filter(|it| it.ends_with(&format!(".{shown}")))
            .take(5)
            .collect();
        let hint = if longer.is_empty() {
            let mut names = known.clone();
            if self.release.is_none() {
                names.extend(self.names(tree));
            }
            hint_of_name(nearest(&shown, names.iter().map(String::as_str)))
        } else {
            format!("\nhint: there is {}", list(longer))
        };
        let what = match (&self.cluster, &self.release) {
            (None, _) => format!("there is neither a cluster nor a value `{shown}`"),
            (Some(cluster), None) => {
                format!(
                    "cluster `{cluster}` has neither a hub `{shown}`, nor a hub with a value of that name"
                )
            }
            (Some(cluster), Some(release)) => {
                format!("`{cluster}/{release}` has no value `{shown}`")
            }
        };
        what + &hint
    }

    /// Says which values are not among those that were found, though helm will have them.
    fn say_what_is_unknown(&self, fleet: &Fleet, found: &[ReleaseValues]) {
        let mut encrypted = BTreeSet::new();
        let mut missing = BTreeSet::new();
        let mut broken = BTreeSet::new();
        for it in found.iter().filter(|it| it.is_incomplete()) {
            let listed = fleet.files_of(it.release);
            let listed = listed.filter(|(path, _, _)| is_listed(it.release, path));
            let unknown = listed.filter(|(_, _, file)| file.values().is_none());
            encrypted.extend(unknown.map(|(path, _, _)| path.display().to_string()));
            if let Some(enabled) = &it.enabled {
                add_unknown(enabled, self.key.as_ref(), &mut missing, &mut broken);
            }
        }
        for file in encrypted {
            say!("warning: what `{file}` sets is not known without decrypting it");
        }
        for chart in broken {
            say!("warning: the defaults of the chart `{chart}` cannot be read");
        }
        if !missing.is_empty() {
            say!(
                "warning: the defaults of these charts are not known, for they are missing from the cache: {}\n\
                 hint: `cargo xtask validate --fetch` gets them",
                list(missing)
            );
        }
    }

    /// What the last argument could have been besides a key.
    fn names(&self, tree: &Tree) -> Vec<String> {
        match &self.cluster {
            None => cluster_yaml::names(tree),
            Some(cluster) => cluster_yaml::names_of_releases(tree, cluster).1,
        }
    }
}

impl<'a> ReleaseValues<'a> {
    /// What is to be printed.
    fn rows(&self, fleet: &Fleet) -> Vec<Row<'a>> {
        let doubtful = doubtful_files(fleet, self.release);
        let images = fleet.image_values(self.release, &fleet.set_by_files(self.release));
        let mut rows = Vec::new();
        for path in &self.paths {
            let node = path.find(&self.values).expect("it was found there");
            path.visit_leaves(node, &mut |path, node| {
                // What a release without any values has.
                if !path.0.is_empty() {
                    let built_from = images.folder_of(&path);
                    rows.push(Row {
                        built_from: built_from.map(|it| it.display().to_string()),
                        ..row(fleet, self.release, &doubtful, &path, node)
                    });
                }
            });
        }
        rows
    }

    /// Whether a value may be missing since a chart is.
    fn is_incomplete(&self) -> bool {
        let found = self.paths.iter().filter_map(|it| it.find(&self.values));
        self.paths.is_empty() || found.into_iter().any(|it| it.as_map().is_some())
    }
}

/// Whether a cluster has this name.
fn is_cluster(tree: &Tree, name: &str) -> bool {
    cluster_yaml::files(tree)
        .is_ok_and(|files| files.iter().any(|it| cluster_yaml::folder_name(it) == name))
}

fn row<'a>(
    fleet: &Fleet,
    release: &ReleaseConfig<'a>,
    doubtful: &BTreeSet<u32>,
    key: &KeyPath,
    node: &Node,
) -> Row<'a> {
    let is_doubtful = node.at.is_some_and(|at| doubtful.contains(&at.file));
    let encrypted = is_doubtful || is_secret(release, node);
    let file = |at: Place| fleet.files.path(at.file).display().to_string();
    Row {
        cluster: &release.cluster.name,
        hub: release.name(),
        key: key.to_string(),
        value: if encrypted {
            "***".into()
        } else {
            node.to_json()
        },
        encrypted,
        file: node.at.map(file),
        line: node.at.map(|it| it.line),
        built_from: None,
    }
}

/// The encrypted files in which not all is encrypted that should be.
fn doubtful_files(fleet: &Fleet, release: &ReleaseConfig) -> BTreeSet<u32> {
    let files = fleet.files_of(release).map(|(_, _, file)| file);
    files
        .filter(|it| is_doubtful(it))
        .map(|it| it.number)
        .collect()
}

fn is_doubtful(file: &ValuesFile) -> bool {
    matches!(&file.state, ValuesContent::Encrypted(it) if !it.findings.is_empty())
}

/// Whether a value is encrypted, or made from the hub's encrypted domain.
fn is_secret(release: &ReleaseConfig, node: &Node) -> bool {
    match &node.data {
        Data::Encrypted(_) => true,
        Data::Text(text) => release.hub.is_some_and(|hub| {
            release.domain_override.is_some()
                && text.contains(&jsonnet::placeholder(release.cluster, hub))
        }),
        _ => false,
    }
}

/// Adds the paths of all that is below a value.
fn add_keys(path: &KeyPath, node: &Node, keys: &mut BTreeSet<String>) {
    for (key, value) in node.as_map().into_iter().flatten() {
        let path = path.join(Step::Key(key.to_string()));
        keys.insert(path.to_string());
        add_keys(&path, value, keys);
    }
}

/// Adds them as they are among a subchart's own values, which a key may be, too.
fn add_keys_of_subcharts(enabled: &EnabledChart, values: &Node, keys: &mut BTreeSet<String>) {
    for part in &enabled.parts {
        if let Some(below) = values.get(&[part.name]) {
            add_keys(&KeyPath::default(), below, keys);
            add_keys_of_subcharts(part, below, keys);
        }
    }
}

/// Why releases are missing in what is printed.
#[derive(Default)]
struct Missing(BTreeMap<String, Vec<String>>);

impl Missing {
    fn add(&mut self, release: &ReleaseConfig, why: &str) {
        self.0
            .entry(why.to_owned())
            .or_default()
            .push(release.path());
    }

    fn say(&self) {
        for (why, releases) in &self.0 {
            if releases.is_empty() {
                say!("error: {why}");
            } else {
                say!("error: {why}\n  not shown: {}", releases.join(", "));
            }
        }
    }

    fn exit_code(&self) -> ExitCode {
        if self.0.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// The clusters whose cluster.yaml cannot be read, where all are asked for.
fn broken_clusters(fleet: &Fleet, is_one: bool) -> Result<Missing> {
    let mut missing = Missing::default();
    if is_one {
        return Ok(missing);
    }
    let files = cluster_yaml::files(&fleet.tree)?;
    for name in files.iter().map(|it| cluster_yaml::folder_name(it)) {
        if let Err(err) = fleet.cluster(name) {
            missing.0.insert(format!("{err:#}"), Vec::new());
        }
    }
    Ok(missing)
}

/// Whether a file has values for helm.
fn is_listed(release: &ReleaseConfig, path: &Path) -> bool {
    release.values_files().any(|it| it == path)
}

/// Adds the charts whose defaults are not known, among those that the key leads into.
fn add_unknown(
    enabled: &EnabledChart,
    key: Option<&KeyPath>,
    missing: &mut BTreeSet<String>,
    broken: &mut BTreeSet<String>,
) {
    let chart = enabled.chart;
    let step = Step::Key(enabled.name.to_owned());
    let key = key.filter(|it| !it.0.contains(&step));
    if key.is_none() && chart.is_missing {
        missing.insert(format!("{} {}", chart.name, chart.version));
    } else if key.is_none() && chart.lacks_defaults {
        broken.insert(chart.name.clone());
    }
    for part in &enabled.parts {
        add_unknown(part, key, missing, broken);
    }
}

fn print(rows: &[Row], format: Format) -> Result<()> {
    match format {
        Format::Json => terminal::print(&(serde_json::to_string_pretty(rows)? + "\n")),
        Format::Text => terminal::print(&terminal::only_text(&table(rows))),
    }
}

/// How wide the column of values is at most: one that is longer moves only its own place.
const WIDEST: usize = 40;

fn table(rows: &[Row]) -> String {
    let values = rows.iter().map(|it| it.shown_value().chars().count());
    let width = values.filter(|it| *it <= WIDEST).max().unwrap_or(0);
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let value = format!("{:<width$}  {}", row.shown_value(), row.place());
            vec![
                format!("{}/{}", row.cluster, row.hub),
                row.key.clone(),
                value,
            ]
        })
        .collect();
    terminal::table(&cells)
}

impl Row<'_> {
    fn shown_value(&self) -> String {
        if self.encrypted {
            "***".to_owned()
        } else {
            self.value.to_string()
        }
    }

    fn place(&self) -> String {
        let place = match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            _ => "-".to_owned(),
        };
        match &self.built_from {
            Some(folder) => format!("{place} (built from {folder})"),
            None => place,
        }
    }
}
