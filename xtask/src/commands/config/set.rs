//! Sets a value in the file that sets it already, of which all else stays as it is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail};
use xshell::Shell;

use self::{
    change::{Change, NewInFile, has_effect},
    place::{AllValues, Targets},
};
use crate::{
    charts::fetch,
    machine::{terminal, tree::Tree},
    repository::{
        cluster_yaml, edited, fleet::Fleet, problem::EVERYTHING, readers::Readers,
        release_config::ReleaseConfig, values_file::ValuesFile,
    },
    yaml::{
        self, Data, KeyPath, Node, Step,
        edit::{self, NewValue},
    },
};

mod change;
mod place;

/// Change a value of hubs in the values file that sets it
///
/// All else in that file stays as it is. A value that no values file sets yet is added to the hub's own file. The new values
/// are checked as by `validate` before anything is written; for several hubs all files are written, or none unless it
/// is killed meanwhile.
///
/// A file that other hubs list as well is changed only if all of them are named, or with `--file`. What is encrypted is for
/// `sops edit`, and jsonnet for an editor.
#[derive(clap::Args)]
#[command(
    override_usage = "cargo xtask config set [OPTIONS] CLUSTER/HUB… KEY VALUE",
    after_help = "\
Examples:\n\
\x20 cargo xtask config set lake/prod jupyterhub.singleuser.image.tag 2026.1\n\
\x20 cargo xtask config set lake/staging lake/prod jupyterhub.singleuser.memory.limit 2G\n\
\x20 cargo xtask config set lake/prod jupyterhub.cull.timeout 7200 --file common.values.yaml\n\n\
A cluster, or `all`, stands for those of its hubs whose files set KEY already:\n\
\x20 cargo xtask config set lake jupyterhub.cull.timeout 7200 --dry-run\n\n\
KEY is written as for helm's `--set`: `admin_users[0]` is an item of a list, the one after the\n\
last is added, and `\\.` is a dot that is part of a key. VALUE is YAML: `'\"1.10\"'` is a text, and\n\
`[a, b]` a list. What takes the place of a text is a text. Before a VALUE like `-x` write `--`."
)]
pub struct Set {
    /// Hubs, or `support`, each after its cluster, and then KEY and VALUE
    #[arg(
        value_names = ["CLUSTER/HUB", "KEY", "VALUE"],
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

/// Sets a value, or shows what that would change.
pub(crate) fn set(sh: &Shell, tree: &Tree, args: &Set) -> Result<ExitCode> {
    let [names @ .., key, spelt] = &args.releases[..] else {
        unreachable!("there are three words at least")
    };
    let wish = Wish::read(key, spelt, args.file.as_deref())?;
    let mut fleet =
        Fleet::load(sh, tree, &EVERYTHING, None, &[])?.with_charts(fetch::cached_schemas());
    edited::warn_of_unknown_clusters(&fleet)?;
    let changes = wish.changes(&fleet, names)?;
    let changed: Vec<_> = changes
        .into_iter()
        .filter(|it| it.edited.differs())
        .collect();
    if changed.is_empty() {
        say!(
            "nothing is to be done: `{}` is {} already",
            wish.key,
            wish.spelt
        );
        return Ok(ExitCode::SUCCESS);
    }
    let files: Vec<_> = changed.iter().map(|it| &it.edited).collect();
    edited::check(sh, &mut fleet, &files)?;
    has_effect(&fleet, &changed)?;
    if args.dry_run {
        terminal::print_diff(&edited::diffs(&files))?;
        return Ok(ExitCode::SUCCESS);
    }
    edited::write(tree, &files)?;
    for change in &changed {
        terminal::print(&terminal::only_text(&change.told(&fleet)))?;
    }
    let values = changed.iter().flat_map(|it| it.values.values());
    let releases = values.flat_map(|it| &it.releases).map(String::as_str);
    say!(
        "commit it, or see what a deploy would change: {}",
        edited::next(releases)
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
    let is_plain = !spelt
        .trim_start()
        .starts_with(['"', '\'', '[', '{', '|', '>', '!']);
    if is_plain && (spelt.starts_with('#') || spelt.contains(" #")) {
        bail!("`{spelt}` has a comment, which is no part of the value\n{hint}");
    }
    if is_plain && node.as_text().is_some_and(|it| it != spelt.trim()) {
        bail!("YAML reads `{spelt}` as {}\n{hint}", node.to_json());
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
        let readers = Readers::find(fleet, &releases);
        let selected = self.select(fleet, &releases, names)?;
        let named: Vec<_> = selected.iter().map(|it| it.path()).collect();
        let targets = Targets {
            fleet,
            readers: &readers,
            named: &named,
            key: &self.key,
            file: self.file,
        };
        let mut changes: BTreeMap<PathBuf, Change> = BTreeMap::new();
        for release in selected {
            let target = targets.of(release);
            let target = target.with_context(|| format!("`{}`", release.path()))?;
            let real = readers.real(&target.file);
            let change = changes
                .entry(real.clone())
                .or_insert_with(|| Change::new(fleet, &readers, &target.file));
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
        let all = AllValues::of(fleet, release);
        let is_set = all.and_then(|all| Ok(all.path(&self.key)?.find(&all.set).is_some()));
        is_set.with_context(|| format!("`{}`", release.path()))
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
