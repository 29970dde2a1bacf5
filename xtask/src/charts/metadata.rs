//! Chart.yaml and Chart.lock, and requirements.yaml and requirements.lock, where charts of Helm 2 have their dependencies,
//! as helm 4 loads them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::{
    charts::{archive::Content, files::cached_files, ignore::Ignore, version::Version},
    machine::{name::Name, tree::Tree},
    yaml::{
        Shape::{self, Anything, Bool, List, Map, Struct, Text, Time},
        parse_over,
    },
};

const CHART_YAML: &str = "Chart.yaml";
const REQUIREMENTS_YAML: &str = "requirements.yaml";
const CHART_LOCK: &str = "Chart.lock";
const REQUIREMENTS_LOCK: &str = "requirements.lock";

/// helm's `Metadata`.
const METADATA: Shape = Struct(&[
    ("name", Text),
    ("home", Text),
    ("sources", List(&Text)),
    ("version", Text),
    ("description", Text),
    ("keywords", List(&Text)),
    ("maintainers", List(&MAINTAINER)),
    ("icon", Text),
    ("apiVersion", Text),
    ("condition", Text),
    ("tags", Text),
    ("appVersion", Text),
    ("deprecated", Bool),
    ("annotations", Map(&Text)),
    ("kubeVersion", Text),
    ("dependencies", List(&DEPENDENCY)),
    ("type", Text),
]);

const MAINTAINER: Shape = Struct(&[("name", Text), ("email", Text), ("url", Text)]);

const DEPENDENCY: Shape = Struct(&[
    ("name", Text),
    ("version", Text),
    ("repository", Text),
    ("condition", Text),
    ("tags", List(&Text)),
    ("enabled", Bool),
    ("import-values", List(&Anything)),
    ("alias", Text),
]);

/// helm's `Lock`.
const LOCK: Shape = Struct(&[
    ("generated", Time),
    ("digest", Text),
    ("dependencies", List(&DEPENDENCY)),
]);

/// What a chart says about itself.
pub(crate) struct Metadata {
    pub(crate) name: Name,
    pub(crate) version: String,
    pub(crate) dependencies: Option<Vec<Dependency>>,
    /// Its makers say that nobody should use it any more.
    pub(crate) deprecated: bool,
    /// The file in the chart that lists the dependencies.
    pub(crate) listed_in: &'static str,
    /// As Chart.yaml has it.
    api_version: String,
    kind: String,
}

pub(crate) struct Lock {
    /// The file that they are in, or would be in.
    pub(crate) file: &'static str,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency of a chart, where the version may be a range, or in a lock, where it is exact.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) repository: String,
    pub(crate) alias: String,
    pub(crate) condition: String,
    pub(crate) tags: Vec<String>,
    #[serde(rename = "import-values")]
    pub(crate) import_values: Vec<Value>,
}

/// What helm looks at, before it says whether this may be so.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Unchecked {
    name: String,
    version: String,
    #[serde(rename = "type")]
    kind: String,
    deprecated: Option<bool>,
    maintainers: Vec<Option<IgnoredAny>>,
    dependencies: Option<Vec<Option<Dependency>>>,
}

impl Metadata {
    /// The chart in a folder or an archive in the cache.
    pub(crate) fn of(chart: &Path) -> Result<Metadata> {
        Metadata::of_files(&cached_files(chart)?).with_context(|| format!("`{}`", chart.display()))
    }

    /// The chart in a folder in the repository.
    pub(crate) fn of_folder(tree: &Tree, chart: &Path) -> Result<Metadata> {
        let files = loaded(tree, chart, [CHART_YAML, REQUIREMENTS_YAML])?;
        Metadata::of_files(&files).with_context(|| format!("the chart `{}`", chart.display()))
    }

    /// The chart of these files.
    pub(crate) fn of_files(files: &Content) -> Result<Metadata> {
        let content = files.get(Path::new(CHART_YAML));
        let content = content.context("there is no Chart.yaml")?;
        let mut read = Value::Null;
        parse_over(content, &METADATA, &mut read).context(CHART_YAML)?;
        let api_version = read["apiVersion"].as_str().unwrap_or_default().to_owned();
        let mut listed_in = CHART_YAML;
        if let Some(content) = files.get(Path::new(REQUIREMENTS_YAML)) {
            let before = read["dependencies"].clone();
            parse_over(content, &METADATA, &mut read).context(REQUIREMENTS_YAML)?;
            if read["dependencies"] != before {
                listed_in = REQUIREMENTS_YAML;
            }
        }
        // helm reads the locks, too, though it needs none of a chart that is part of another one.
        Lock::of_files(files)?;
        let read = serde_json::from_value::<Option<Unchecked>>(read)?.unwrap_or_default();
        read.check().context(CHART_YAML)?;
        let dependencies = read.dependencies.map(check_dependencies).transpose();
        Ok(Metadata {
            name: Name::new(&printable(&read.name)).context(CHART_YAML)?,
            version: read.version,
            dependencies: dependencies.with_context(|| format!("{listed_in}: `dependencies`"))?,
            deprecated: read.deprecated == Some(true),
            listed_in,
            api_version,
            kind: read.kind,
        })
    }

    /// Refuses a chart that helm can load, and not install.
    pub(crate) fn refuse_uninstallable(&self) -> Result<()> {
        let api_version = &self.api_version;
        ensure!(
            ["", "v1", "v2"].contains(&api_version.as_str()),
            "Chart.yaml: `apiVersion` is `{api_version}`, and helm installs charts of `v1` and `v2`"
        );
        ensure!(
            self.kind != "library",
            "Chart.yaml: `type` is `library`, and helm installs no charts that are only parts of others"
        );
        Ok(())
    }

    pub(crate) fn dependencies(&self) -> &[Dependency] {
        self.dependencies.as_deref().unwrap_or_default()
    }
}

impl Unchecked {
    /// Refuses what helm's `Validate` refuses, but for names and dependencies.
    fn check(&self) -> Result<()> {
        let version = &self.version;
        ensure!(!version.is_empty(), "`version` is missing");
        ensure!(
            Version::parse(version).is_some(),
            "`version`: `{version}` is not a version"
        );
        ensure!(
            ["", "application", "library"].contains(&self.kind.as_str()),
            "`type` is `{}`, and must be `application` or `library`",
            self.kind
        );
        ensure!(
            self.maintainers.iter().all(Option::is_some),
            "`maintainers` has an empty entry"
        );
        Ok(())
    }
}

fn check_dependencies(listed: Vec<Option<Dependency>>) -> Result<Vec<Dependency>> {
    let mut checked = Vec::new();
    let mut known = BTreeSet::new();
    for dependency in listed {
        let dependency = dependency.context("an entry is empty")?.printable();
        Name::new(&dependency.name)?;
        dependency.check_alias()?;
        let name = dependency.known_as();
        ensure!(
            known.insert(name.to_owned()),
            "`{name}` is there twice\nhint: `alias` gives one of them another name"
        );
        checked.push(dependency);
    }
    Ok(checked)
}

impl Dependency {
    /// What its values are called in those of the chart.
    fn known_as(&self) -> &str {
        if self.alias.is_empty() {
            &self.name
        } else {
            &self.alias
        }
    }

    fn check_alias(&self) -> Result<()> {
        let is_plain = |it: char| it.is_ascii_alphanumeric() || "_-".contains(it);
        ensure!(
            self.alias.chars().all(is_plain),
            "the alias `{}` may have letters, digits, `_` and `-`",
            self.alias
        );
        Ok(())
    }

    fn printable(self) -> Dependency {
        Dependency {
            name: printable(&self.name),
            version: printable(&self.version),
            repository: printable(&self.repository),
            condition: printable(&self.condition),
            tags: self.tags.iter().map(|it| printable(it)).collect(),
            ..self
        }
    }
}

/// What helm makes of a text: blanks for all white space, and nothing that cannot be seen (`sanitizeString`).
fn printable(text: &str) -> String {
    static INVISIBLE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\p{C}").expect("a pattern"));
    let blank = |it: char| if it.is_whitespace() { ' ' } else { it };
    let text: String = text.chars().map(blank).collect();
    INVISIBLE.replace_all(&text, "").into_owned()
}

impl Default for Lock {
    /// Of a chart without one.
    fn default() -> Lock {
        Lock {
            file: CHART_LOCK,
            dependencies: Vec::new(),
        }
    }
}

impl Lock {
    /// The lock in a chart's folder. Without one it lists nothing.
    pub(crate) fn of_folder(tree: &Tree, chart: &Path, metadata: &Metadata) -> Result<Lock> {
        let files = loaded(tree, chart, [CHART_LOCK, REQUIREMENTS_LOCK])?;
        let lock = Lock::of_files(&files);
        let lock = lock.with_context(|| format!("the chart `{}`", chart.display()))?;
        let is_first_version = ["", "v1"].contains(&metadata.api_version.as_str());
        Ok(lock.unwrap_or(Lock {
            file: if is_first_version {
                REQUIREMENTS_LOCK
            } else {
                CHART_LOCK
            },
            dependencies: Vec::new(),
        }))
    }

    /// Of two locks, helm takes the one that it reads last.
    fn of_files(files: &Content) -> Result<Option<Lock>> {
        let mut lock = None;
        for file in [CHART_LOCK, REQUIREMENTS_LOCK] {
            if let Some(content) = files.get(Path::new(file)) {
                lock = Some(Lock::parse(file, content).context(file)?);
            }
        }
        Ok(lock)
    }

    fn parse(file: &'static str, content: &[u8]) -> Result<Lock> {
        let mut read = Value::Null;
        parse_over(content, &LOCK, &mut read)?;
        let listed: Option<Vec<Option<_>>> = serde_json::from_value(read["dependencies"].take())?;
        Ok(Lock {
            file,
            dependencies: listed.into_iter().flatten().flatten().collect(),
        })
    }
}

/// Those of a chart's files in the repository that are there, and that .helmignore does not keep from helm.
fn loaded<const N: usize>(tree: &Tree, chart: &Path, names: [&'static str; N]) -> Result<Content> {
    let ignore = Ignore::of(tree, chart)?;
    let mut files = Content::new();
    for name in names
        .into_iter()
        .filter(|it| !ignore.ignores(Path::new(it)))
    {
        let file = chart.join(name);
        let content = tree.read_if_there(&file);
        let content = content.with_context(|| format!("cannot read `{}`", file.display()))?;
        files.extend(content.map(|it| (PathBuf::from(name), it)));
    }
    Ok(files)
}
