//! Sets a value in the file that sets it already, of which all else stays as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use similar::TextDiff;
use xshell::Shell;

use crate::{
    charts::{fetch, values::EnabledChart},
    machine::{
        paths,
        terminal::{self, list},
        tree::Tree,
    },
    repository::{
        cluster_yaml,
        fleet::Fleet,
        problem::{EVERYTHING, Level, Problem, once, text},
        release_config::ReleaseConfig,
        release_values::paths_of_key,
        rules,
        values_file::{ValuesContent, ValuesFile, is_jsonnet},
    },
    yaml::{
        self, Data, KeyPath, Node, Place, Step,
        edit::{self, NewValue},
    },
};

/// Set a value of hubs in the values file that sets it, and keep all else in that file as it is
///
/// A value that no values file sets yet is added to the hub's own file. The new values are checked as by `validate` before
/// anything is written; for several hubs all files are written, or none.
///
/// A file that other hubs list as well is changed only with `--file`, or if all of them are named. Encrypted files and
/// jsonnet are for an editor: `sops edit`.
#[derive(clap::Args)]
#[command(
    override_usage = "cargo xtask config set [OPTIONS] CLUSTER/HUB… KEY VALUE",
    after_help = "\
Examples:\n\
\x20 cargo xtask config set lake/prod jupyterhub.singleuser.image.tag 2026.1\n\
\x20 cargo xtask config set lake/staging lake/prod jupyterhub.singleuser.memory.limit 2G\n\
\x20 cargo xtask config set lake jupyterhub.cull.timeout 7200 --dry-run     hubs of lake whose files set it\n\
\x20 cargo xtask config set all jupyterhub.cull.enabled true                hubs of all clusters whose files set it\n\
\x20 cargo xtask config set lake/prod jupyterhub.hub.config.Authenticator.admin_users[2] alice\n\
\x20 cargo xtask config set lake/prod jupyterhub.cull.timeout 7200 --file common.values.yaml\n\n\
KEY is written as for helm's `--set`: `list[0]` is an item, the one after the last adds one, and `\\.` is a dot that is part\n\
of a key. VALUE is YAML: `'\"1.10\"'` is a text, `[a, b]` a list. What replaces a text stays one. A VALUE that begins with\n\
`-` follows ` -- `."
)]
pub struct Set {
    /// Hubs, or `support`, each after its cluster; a cluster or `all` stands for those whose files set KEY. Then KEY and
    /// VALUE
    #[arg(
        value_name = "CLUSTER/HUB… KEY VALUE",
        num_args = 3..,
        required = true,
        allow_negative_numbers = true
    )]
    releases: Vec<String>,
    /// Set it in this file of the hubs, whoever else lists it: a path from the root, or a name as in cluster.yaml
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print what would change in files, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is to be set.
struct Wish<'a> {
    key: KeyPath,
    value: Node,
    /// As it was typed.
    spelt: &'a str,
    /// What `--file` names.
    file: Option<&'a Path>,
}

/// Where a release gets a value from, or will.
struct Target {
    path: KeyPath,
    /// As cluster.yaml lists it, from the root.
    file: PathBuf,
    /// What counts now: that of a values file, or of a chart.
    old: Option<Node>,
}

/// A file with its new text.
struct Change {
    /// As the file is listed.
    file: PathBuf,
    /// Where it is, without links.
    real: PathBuf,
    text: String,
    /// The values in it, each with the releases that it is for.
    values: BTreeMap<KeyPath, NewInFile>,
}

struct NewInFile {
    value: NewValue,
    old: Option<Node>,
    releases: Vec<String>,
}

/// Sets a value, or shows what that would change.
pub(crate) fn set(sh: &Shell, tree: &Tree, args: &Set) -> Result<ExitCode> {
    let [names @ .., key, spelt] = &args.releases[..] else {
        unreachable!("there are three words at least")
    };
    let wish = Wish::read(key, spelt, args.file.as_deref())?;
    let mut fleet =
        Fleet::load(sh, tree, &EVERYTHING, None, &[])?.with_charts(fetch::cached_schemas());
    let changes = wish.changes(&fleet, names)?;
    let changed: Vec<_> = changes
        .into_iter()
        .filter(|it| it.differs(&fleet))
        .collect();
    if changed.is_empty() {
        say!(
            "nothing is to be done: `{}` is {} already",
            wish.key,
            wish.spelt
        );
        return Ok(ExitCode::SUCCESS);
    }
    let diffs: String = changed.iter().map(|it| it.diff(&fleet)).collect();
    let files = with_old_content(&fleet, &changed);
    check(sh, &mut fleet, &changed)?;
    if args.dry_run {
        terminal::print_diff(&diffs)?;
        return Ok(ExitCode::SUCCESS);
    }
    write(tree, &changed, &files)?;
    for change in &changed {
        terminal::print(&terminal::only_text(&change.told(&fleet)))?;
    }
    say!(
        "commit it, or see what a deploy would change: {}",
        next(&changed)
    );
    Ok(ExitCode::SUCCESS)
}

/// The text of a values file with another value, for tests that try many in their own process.
#[doc(hidden)]
pub fn set_in(content: &str, key: &str, spelt: &str) -> Result<String> {
    let wish = Wish::read(key, spelt, None)?;
    let file = ValuesFile::of(Path::new("values.yaml"), content.into(), 0);
    let old = file.plain().and_then(|it| wish.key.find(it));
    let value = NewValue {
        node: wish.typed_as(old),
        spelt: wish.spelt.to_owned(),
    };
    edit::set(content, &wish.key, &value)
}

/// What was typed as a value.
fn read_value(spelt: &str) -> Result<Node> {
    let quoted = serde_json::Value::from(spelt).to_string();
    let hint = format!("hint: as a text it is '{quoted}'");
    if spelt.is_empty() {
        return Ok(Node::nowhere(Data::Text("".into())));
    }
    let node = yaml::read_value(spelt)
        .map_err(|it| anyhow!("`{spelt}` is not YAML: {}\n{hint}", it.message))?;
    let may_have_comment = !spelt
        .trim_start()
        .starts_with(['"', '\'', '[', '{', '|', '>']);
    if may_have_comment && (spelt.starts_with('#') || spelt.contains(" #")) {
        bail!("`{spelt}` has a comment, which is no part of the value\n{hint}");
    }
    Ok(node)
}

impl<'a> Wish<'a> {
    fn read(key: &str, spelt: &'a str, file: Option<&'a Path>) -> Result<Wish<'a>> {
        Ok(Wish {
            key: KeyPath::parse(key)?,
            value: read_value(spelt)?,
            spelt: spelt.trim(),
            file,
        })
    }
}

impl Wish<'_> {
    /// The files that are to be changed for the releases of these names.
    fn changes(&self, fleet: &Fleet, names: &[String]) -> Result<Vec<Change>> {
        let releases = fleet.releases();
        let named = self.select(fleet, &releases, names)?;
        let mut targets = Vec::new();
        for release in &named {
            let target = self.target(fleet, &releases, &named, release);
            targets.push((
                *release,
                target.with_context(|| format!("`{}`", release.path()))?,
            ));
        }
        let mut changes: BTreeMap<PathBuf, Change> = BTreeMap::new();
        for (release, target) in targets {
            let real = real_path(fleet, &target.file);
            let change = changes
                .entry(real.clone())
                .or_insert_with(|| Change::new(fleet, &target.file, real));
            let new = change
                .values
                .entry(target.path)
                .or_insert_with(|| NewInFile {
                    value: NewValue {
                        node: self.typed_as(target.old.as_ref()),
                        spelt: self.spelt.to_owned(),
                    },
                    old: target.old,
                    releases: Vec::new(),
                });
            new.releases.push(release.path());
        }
        let mut changes: Vec<_> = changes.into_values().collect();
        for change in &mut changes {
            change.edit()?;
        }
        Ok(changes)
    }

    /// The releases of these names.
    fn select<'a>(
        &self,
        fleet: &Fleet,
        releases: &'a [ReleaseConfig<'a>],
        names: &[String],
    ) -> Result<Vec<&'a ReleaseConfig<'a>>> {
        let mut selected: BTreeMap<usize, &ReleaseConfig> = BTreeMap::new();
        for name in names {
            let (cluster, hub) = match name.split_once('/') {
                Some((cluster, hub)) => (cluster, Some(hub)),
                None => (name.as_str(), None),
            };
            let of_all = name == "all" && !cluster_yaml::names(&fleet.tree).contains(name);
            if !of_all {
                let cluster = fleet.cluster(cluster)?;
                let known = hub.is_none_or(|it| it == "support" && cluster.support.is_some());
                if !known {
                    cluster.select_hubs(&[hub.unwrap_or_default().to_owned()])?;
                }
            }
            let before = selected.len();
            for (index, release) in releases.iter().enumerate() {
                let is_of_cluster = of_all || release.cluster.name == cluster;
                let is_named = is_of_cluster && hub.is_none_or(|it| it == release.name());
                if is_named && (hub.is_some() || self.is_set(fleet, release)?) {
                    selected.insert(index, release);
                }
            }
            if selected.len() == before && hub.is_none() {
                bail!(
                    "no values file of `{name}` sets `{}`\nhint: name hubs, as in `lake/prod`, to add it",
                    self.key
                );
            }
        }
        Ok(selected.into_values().collect())
    }

    /// Whether a values file of a release sets the key.
    fn is_set(&self, fleet: &Fleet, release: &ReleaseConfig) -> Result<bool> {
        let all = AllValues::of(fleet, release)?;
        Ok(self.path(release, &all)?.find(&all.set).is_some())
    }

    /// Where the key leads among the values of a release, as far as it leads anywhere.
    fn path(&self, release: &ReleaseConfig, all: &AllValues) -> Result<KeyPath> {
        for count in (1..=self.key.0.len()).rev() {
            let known = self.key.first(count);
            if known.find(&all.set).is_some() {
                return Ok(self.key.clone());
            }
            match &paths_of_key(&known, &all.computed, &all.enabled)[..] {
                [] => {}
                [path] => return Ok(KeyPath([&path.0, &self.key.0[count..]].concat())),
                several => bail!(
                    "`{}` is there more than once: {}",
                    release.path(),
                    list(several)
                ),
            }
        }
        Ok(self.key.clone())
    }

    /// Where the value of a release is to be set.
    fn target(
        &self,
        fleet: &Fleet,
        releases: &[ReleaseConfig],
        named: &[&ReleaseConfig],
        release: &ReleaseConfig,
    ) -> Result<Target> {
        for (path, _, file) in fleet.files_of(release) {
            file.refuse_unreadable(path)?;
        }
        let all = AllValues::of(fleet, release)?;
        let path = self.path(release, &all)?;
        let setter = setter(fleet, &path, &all)?;
        let old = path.find(&all.set).or(path.find(&all.computed)).cloned();
        let file = match (self.file, setter) {
            (Some(file), _) => file_named(fleet, release, file)?,
            (None, Some(at)) => {
                let own = own_file(fleet, releases, named, release).ok();
                editable(fleet, releases, named, at, own)?
            }
            (None, None) => {
                let own = own_file(fleet, releases, named, release)?;
                if let Some(at) = old.as_ref().and_then(|it| it.at) {
                    refuse_default_of_ours(fleet, release, at, &own)?;
                }
                own
            }
        };
        Ok(Target { path, file, old })
    }

    /// The value, as a text if it takes the place of one and was typed without quotes.
    fn typed_as(&self, old: Option<&Node>) -> Node {
        let is_text = match old.filter(|it| !it.is_null()) {
            Some(old) => old.as_text().is_some(),
            None => matches!(self.key.0.last(), Some(Step::Key(key)) if yaml::is_of_version(key)),
        };
        if is_text && matches!(self.value.data, Data::Number(_) | Data::Bool(_)) {
            return Node::nowhere(Data::Text(self.spelt.into()));
        }
        self.value.clone()
    }
}

/// The values of a release.
struct AllValues<'a> {
    /// What values files set.
    set: Node,
    computed: Node,
    enabled: EnabledChart<'a>,
}

impl<'a> AllValues<'a> {
    fn of(fleet: &'a Fleet, release: &ReleaseConfig) -> Result<AllValues<'a>> {
        let set = fleet.set(release);
        let (computed, enabled) = fleet.compute(release, &set)?;
        Ok(AllValues {
            set: Node::nowhere(Data::Map(set)),
            computed,
            enabled,
        })
    }
}

/// Where a values file sets a value, or the list that gets it as a new item. None if nothing sets it.
fn setter(fleet: &Fleet, path: &KeyPath, all: &AllValues) -> Result<Option<Place>> {
    for count in (0..=path.0.len()).rev() {
        let above = path.first(count);
        if let Some(node) = above.find(&all.set) {
            let is_whole = count == path.0.len();
            return match node.data {
                Data::Map(_) if !is_whole => Ok(None),
                Data::List(_) => Ok(node.at),
                _ if is_whole => Ok(node.at),
                _ => bail!(
                    "{} sets `{above}`, which is not a map",
                    node.at.map_or_else(String::new, |at| shown(fleet, at))
                ),
            };
        }
        let default = above.find(&all.computed).filter(|_| count < path.0.len());
        if let Some(list) = default.filter(|it| it.as_list().is_some_and(|it| !it.is_empty())) {
            bail!(
                "`{above}` is a default of a chart, {}, and a list replaces another one as a whole: set all of it",
                list.at.map_or_else(String::new, |at| shown(fleet, at))
            );
        }
    }
    Ok(None)
}

fn shown(fleet: &Fleet, at: Place) -> String {
    format!("{}:{}", fleet.files.path(at.file).display(), at.line)
}

/// The file that sets a value, if it may be changed.
fn editable(
    fleet: &Fleet,
    releases: &[ReleaseConfig],
    named: &[&ReleaseConfig],
    at: Place,
    own: Option<PathBuf>,
) -> Result<PathBuf> {
    let path = fleet.files.path(at.file);
    let place = shown(fleet, at);
    let own = own.map_or_else(String::new, |it| {
        format!("; `--file {}` sets it for this hub alone", it.display())
    });
    let Some(file) = fleet.values.get(path).filter(|_| !is_jsonnet(path)) else {
        bail!("{place} makes it in jsonnet\nhint: change it there{own}");
    };
    if file.is_encrypted() {
        bail!(
            "{place} sets it, and is encrypted\n\
             hint: `sops edit {}` changes it there",
            path.display()
        );
    }
    let others = others(fleet, releases, named, path);
    if !others.is_empty() {
        bail!(
            "{place} sets it, also for {}\n\
             hint: name these as well; `--file {}` changes it for all of them{own}",
            list(others),
            path.display()
        );
    }
    Ok(path.to_owned())
}

/// The releases beyond those named that a file is for.
fn others(
    fleet: &Fleet,
    releases: &[ReleaseConfig],
    named: &[&ReleaseConfig],
    path: &Path,
) -> Vec<String> {
    let mut others: Vec<_> = readers(fleet, releases, path)
        .iter()
        .map(|it| it.path())
        .collect();
    let named: Vec<_> = named.iter().map(|it| it.path()).collect();
    others.retain(|it| !named.contains(it));
    others
}

/// The releases that list a file, or import it in jsonnet.
fn readers<'a>(
    fleet: &Fleet,
    releases: &'a [ReleaseConfig<'a>],
    path: &Path,
) -> Vec<&'a ReleaseConfig<'a>> {
    let real = real_path(fleet, path);
    let reads = |release: &ReleaseConfig| {
        let mut listed = fleet.files_of(release).map(|(path, _, _)| path);
        listed.any(|it| real_path(fleet, it) == real) || fleet.imports(release, path)
    };
    releases.iter().filter(|it| reads(it)).collect()
}

fn real_path(fleet: &Fleet, path: &Path) -> PathBuf {
    let found = fleet.tree.find(path).ok().flatten();
    found.map_or_else(|| path.to_owned(), |it| it.path)
}

/// Refuses to set over a default that all hubs of a chart of ours have: it may be meant to change for all of them.
fn refuse_default_of_ours(
    fleet: &Fleet,
    release: &ReleaseConfig,
    at: Place,
    own: &Path,
) -> Result<()> {
    let path = fleet.files.path(at.file);
    if path != release.chart.folder.join("values.yaml") {
        return Ok(());
    }
    bail!(
        "{} sets it for all hubs of this chart\n\
         hint: `--file {}` sets it for this hub alone",
        shown(fleet, at),
        own.display()
    )
}

/// The file of a release that `--file` names.
fn file_named(fleet: &Fleet, release: &ReleaseConfig, named: &Path) -> Result<PathBuf> {
    let from_root = named.strip_prefix(fleet.tree.root()).unwrap_or(named);
    let candidates =
        [from_root.to_owned(), release.cluster.dir.join(named)].map(|it| paths::lexical(&it));
    let mut listed = release.values_files();
    let Some(path) = listed.find(|it| candidates.iter().any(|named| named == it)) else {
        bail!(
            "no values file `{}` is listed for it; these are: {}",
            named.display(),
            list(release.values_files().map(Path::display))
        );
    };
    match fleet.values[path].state {
        ValuesContent::Plain(..) => Ok(path.to_owned()),
        ValuesContent::Encrypted(..) => {
            bail!(
                "`{}` is encrypted\nhint: `sops edit` changes it",
                path.display()
            )
        }
        _ => bail!("`{}` is not a file of plain values", path.display()),
    }
}

/// The last plain values file that no other release lists, or that no other one beyond those named does.
fn own_file(
    fleet: &Fleet,
    releases: &[ReleaseConfig],
    named: &[&ReleaseConfig],
    release: &ReleaseConfig,
) -> Result<PathBuf> {
    let plain = || {
        let listed = release.listed.iter().rev().filter(|(_, at)| at.is_some());
        let paths = listed.map(|(path, _)| path);
        paths.filter(|it| fleet.values[*it].plain().is_some() && !is_jsonnet(it))
    };
    let own = plain().find(|it| others(fleet, releases, &[release], it).is_empty());
    let own = own.or_else(|| plain().find(|it| others(fleet, releases, named, it).is_empty()));
    own.cloned().with_context(|| {
        format!(
            "nothing sets it, and no values file is its own: it has {}\nhint: name one with `--file`",
            list(release.values_files().map(Path::display))
        )
    })
}

impl Change {
    fn new(fleet: &Fleet, file: &Path, real: PathBuf) -> Change {
        Change {
            file: file.to_owned(),
            real,
            text: old_text(fleet, file),
            values: BTreeMap::new(),
        }
    }

    /// Writes the values into the text.
    fn edit(&mut self) -> Result<()> {
        for (path, new) in &self.values {
            self.text = edit::set(&self.text, path, &new.value)
                .with_context(|| format!("{}: `{path}`", self.file.display()))?;
        }
        Ok(())
    }

    fn differs(&self, fleet: &Fleet) -> bool {
        self.text != old_text(fleet, &self.file)
    }

    fn diff(&self, fleet: &Fleet) -> String {
        let path = self.file.display();
        TextDiff::from_lines(&old_text(fleet, &self.file), &self.text)
            .unified_diff()
            .header(&format!("a/{path}"), &format!("b/{path}"))
            .to_string()
    }

    /// What was written where; the fleet has it already.
    fn told(&self, fleet: &Fleet) -> String {
        let mut lines = String::new();
        for (path, new) in &self.values {
            let now = fleet.values[&self.file]
                .plain()
                .and_then(|it| path.find(it));
            let line = now.and_then(|it| it.at).map_or(1, |it| it.line);
            let old = new
                .old
                .as_ref()
                .map_or_else(|| "nothing".to_owned(), |it| it.to_json().to_string());
            let value = new.value.node.to_json();
            let releases = new.releases.join(", ");
            lines += &format!(
                "{}:{line}: `{path}` is {value} for {releases} (was {old})\n",
                self.file.display()
            );
        }
        lines
    }
}

fn old_text(fleet: &Fleet, file: &Path) -> String {
    String::from_utf8_lossy(&fleet.values[file].content).into_owned()
}

/// What the files had when they were read.
fn with_old_content(fleet: &Fleet, changed: &[Change]) -> Vec<Vec<u8>> {
    let files = changed.iter();
    files
        .map(|it| fleet.values[&it.file].content.clone())
        .collect()
}

/// Puts the new texts into the fleet, and refuses them if they make a problem, or have no effect.
fn check(sh: &Shell, fleet: &mut Fleet, changed: &[Change]) -> Result<()> {
    let before: BTreeSet<_> = problems(sh, fleet, changed).iter().map(essence).collect();
    for change in changed {
        let same: Vec<_> = fleet
            .values
            .keys()
            .filter(|it| real_path(fleet, it) == change.real)
            .cloned()
            .collect();
        for path in same {
            let number = fleet.values[&path].number;
            let content = change.text.clone().into_bytes();
            fleet
                .values
                .insert(path.clone(), ValuesFile::of(&path, content, number));
        }
    }
    let mut new = problems(sh, fleet, changed);
    new.retain(|it| !before.contains(&essence(it)) && it.level != Level::Suggestion);
    let new = once(new, false);
    let is_problem = new.iter().any(|it| it.level == Level::Problem);
    ensure!(
        !is_problem,
        "nothing was written, for `validate` would say:\n{}",
        text(&new).trim_end()
    );
    for warning in new {
        say!("warning: {}", warning.message);
    }
    has_effect(fleet, changed)
}

/// The problems of all releases that read one of these files.
fn problems(sh: &Shell, fleet: &Fleet, changed: &[Change]) -> Vec<Problem> {
    let releases = fleet.releases();
    let mut affected = BTreeSet::new();
    for change in changed {
        affected.extend(
            readers(fleet, &releases, &change.file)
                .iter()
                .map(|it| it.path()),
        );
    }
    let mut releases = fleet.releases();
    releases.retain(|it| affected.contains(&it.path()));
    rules::problems_of_releases(fleet, sh, &releases)
}

/// What makes a problem the same one, wherever it is now.
fn essence(problem: &Problem) -> (Option<String>, Option<String>, String) {
    (
        problem.cluster.clone(),
        problem.hub.clone(),
        problem.message.clone(),
    )
}

/// Refuses what another file sets again.
fn has_effect(fleet: &Fleet, changed: &[Change]) -> Result<()> {
    for release in fleet.releases() {
        let set = Node::nowhere(Data::Map(fleet.set(&release)));
        for change in changed {
            for (path, new) in &change.values {
                if !new.releases.contains(&release.path()) {
                    continue;
                }
                let now = path.find(&set);
                if now.is_none_or(|it| it.to_json() != new.value.node.to_json()) {
                    let place = now.and_then(|it| it.at).map(|it| shown(fleet, it));
                    bail!(
                        "`{}`: nothing was written, for it would change nothing: {} sets `{path}` after `{}`",
                        release.path(),
                        place.unwrap_or_else(|| "another file".to_owned()),
                        change.file.display()
                    );
                }
            }
        }
    }
    Ok(())
}

/// Writes the files, if they are still as they were read.
fn write(tree: &Tree, changed: &[Change], before: &[Vec<u8>]) -> Result<()> {
    let mut files = Vec::new();
    for (change, before) in changed.iter().zip(before) {
        let now = tree
            .read(&change.real)
            .with_context(|| format!("`{}`", change.file.display()))?;
        ensure!(
            now == *before,
            "`{}` was changed meanwhile: nothing was written",
            change.file.display()
        );
        files.push((tree.root().join(&change.real), change.text.as_bytes()));
    }
    paths::replace_all(&files)
}

/// The command that shows what a deploy would change in one cluster.
fn next(changed: &[Change]) -> String {
    let values = changed.iter().flat_map(|it| it.values.values());
    let mut releases: Vec<_> = values
        .flat_map(|it| &it.releases)
        .filter_map(|it| it.split_once('/'))
        .collect();
    releases.sort_unstable();
    releases.dedup();
    let (cluster, first) = releases[0];
    let hubs = releases
        .iter()
        .filter(|it| it.0 == cluster && it.1 != "support");
    let hubs: Vec<_> = hubs.map(|it| it.1).collect();
    if first == "support" && hubs.is_empty() {
        return format!("`cargo xtask deploy-support {cluster} --diff --dry-run`");
    }
    format!(
        "`cargo xtask deploy {cluster} {} --diff --dry-run`",
        hubs.join(" ")
    )
}
