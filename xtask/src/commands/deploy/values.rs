//! The values files of a run's releases, as helm gets them: from memory, decrypted where they are encrypted, and made where
//! they are in jsonnet.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Error, Result, anyhow, bail};

use crate::{
    health::address::domain_in,
    machine::parallel,
    repository::{
        fleet::Fleet,
        jsonnet::{self, MadeKey},
        release_config::ReleaseConfig,
        values_file::{ValuesContent, is_jsonnet},
    },
    secrets::{self, Decrypter, InMemory},
    yaml::{self, Data, Map, Node},
};

/// What the releases of a run list.
pub(crate) struct OpenedFiles {
    /// By the paths from the root.
    listed: BTreeMap<PathBuf, Result<InMemory>>,
    /// What jsonnet made.
    made: BTreeMap<MadeKey, Result<InMemory>>,
    /// What own images set, by the paths of their releases, with "lake/prod" for a hub.
    by_images: BTreeMap<String, Result<InMemory>>,
    /// Two others, with placeholders, for each one that depends on a secret, by the path that helm is given.
    placeholders: BTreeMap<PathBuf, [InMemory; 2]>,
    /// What jsonnet made of other files for an encrypted domain than for the placeholder of that.
    made_of_more: BTreeSet<MadeKey>,
}

impl OpenedFiles {
    /// Opens all files that these releases list.
    pub(crate) fn open(
        decrypter: &Decrypter,
        fleet: &Fleet,
        releases: &[ReleaseConfig],
    ) -> Result<OpenedFiles> {
        let listed = releases.iter().flat_map(ReleaseConfig::all_files);
        let listed: BTreeSet<_> = listed.collect();
        let files = fleet.values.iter();
        let files = files.filter(|(path, file)| {
            listed.contains(path) && !matches!(file.state, ValuesContent::Jsonnet)
        });
        let files: Vec<_> = files.collect();
        let opened = parallel::side_by_side(decrypter, &files, |decrypter, (path, file)| {
            file.open(decrypter, path)
        });
        let paths = files.iter().map(|(path, _)| (*path).clone());
        let listed: BTreeMap<_, _> = paths.zip(opened).collect();
        let placeholders = secrets::placeholders(listed.values().flatten())?;
        let mut opened = OpenedFiles {
            listed,
            made: BTreeMap::new(),
            by_images: BTreeMap::new(),
            placeholders,
            made_of_more: BTreeSet::new(),
        };
        for release in releases {
            opened.add_made(decrypter, fleet, release);
            opened.add_by_images(fleet, release);
        }
        Ok(opened)
    }

    /// Adds what jsonnet makes for a release. Where the domain is encrypted, that has not been made yet.
    fn add_made(&mut self, decrypter: &Decrypter, fleet: &Fleet, release: &ReleaseConfig) {
        for path in release.values_files().filter(|it| is_jsonnet(it)) {
            let made = if release.domain_override.is_some() {
                self.make_with_domain(decrypter, fleet, release, path)
            } else {
                fleet.file(release, path).open(decrypter, path)
            };
            self.made.insert(MadeKey::new(release, path), made);
        }
    }

    fn make_with_domain(
        &mut self,
        decrypter: &Decrypter,
        fleet: &Fleet,
        release: &ReleaseConfig,
        path: &Path,
    ) -> Result<InMemory> {
        let domain = self.domain(release)?.context("it has no domain")?;
        let [alike, different] = secrets::of_domain(&domain);
        let domains = [&*domain, &*alike, &*different];
        let made =
            jsonnet::make_with_domains(decrypter.sh(), &fleet.tree, release, path, &domains)?;
        let made_key = MadeKey::new(release, path);
        let for_placeholder = fleet.made.get(&made_key);
        if for_placeholder.is_none_or(|it| !it.has_all_sources_of(&made[0])) {
            self.made_of_more.insert(made_key);
        }
        let [made, with_alike, with_different] = made.map(|it| it.json);
        let made = made.map_err(|_| not_made(path, &with_alike, &alike))?;
        let given = InMemory::plain(path, made.as_bytes())?;
        let placeholder = |made_with: Result<String>, placeholder: String| {
            // A file that refuses a placeholder may hold the domain in any form: nothing of it is shown.
            let made_with = made_with.unwrap_or_else(|_| "{}".to_owned());
            let file = InMemory::plain(path, made_with.as_bytes())?;
            anyhow::Ok(file.hiding(vec![placeholder]))
        };
        let placeholders = [
            placeholder(with_alike, alike)?,
            placeholder(with_different, different)?,
        ];
        let key = given.file.path().to_owned();
        self.placeholders.insert(key, placeholders);
        Ok(given.hiding(vec![domain]))
    }

    /// Adds what a release's own images set. A list among that has all that is in it, also what was encrypted.
    fn add_by_images(&mut self, fleet: &Fleet, release: &ReleaseConfig) {
        if release.images().next().is_some() {
            let made = self.make_by_images(fleet, release);
            self.by_images.insert(release.path(), made);
        }
    }

    fn make_by_images(&mut self, fleet: &Fleet, release: &ReleaseConfig) -> Result<InMemory> {
        for image in release.images() {
            let tag = &fleet.image_tags[&image.image.path];
            tag.as_ref().map_err(|why| anyhow!("{why}"))?;
        }
        let source = release.cluster.file();
        let json = self.json_by_images(fleet, release, None)?;
        let given = InMemory::plain(&source, json.as_bytes())?;
        let trials = [
            self.json_by_images(fleet, release, Some(0))?,
            self.json_by_images(fleet, release, Some(1))?,
        ];
        if trials.iter().any(|it| *it != json) {
            let [first, second] = trials.map(|it| InMemory::plain(&source, it.as_bytes()));
            let key = given.file.path().to_owned();
            self.placeholders.insert(key, [first?, second?]);
        }
        Ok(given)
    }

    /// What own images set over a release's files, or over what one of the sets of placeholders makes of those, as JSON.
    fn json_by_images(
        &self,
        fleet: &Fleet,
        release: &ReleaseConfig,
        trial: Option<usize>,
    ) -> Result<String> {
        let mut set = Map::new();
        for path in release.values_files() {
            let given = self.of(release, path)?;
            let placeholders = self.placeholders(given.file.path());
            let file = trial.and_then(|trial| Some(&placeholders?[trial]));
            if let Data::Map(values) = file.unwrap_or(given).values()?.data {
                yaml::merge(&mut set, values);
            }
        }
        let by_images = fleet.image_values(release, &set);
        if let Some(refused) = by_images.refused.first() {
            bail!("an own image cannot be set: {refused}");
        }
        let values = Node::nowhere(Data::Map(by_images.values));
        Ok(values.to_json().to_string())
    }

    /// What the own images of a release set, if it has any.
    pub(crate) fn by_images(&self, release: &ReleaseConfig) -> Result<Option<&InMemory>> {
        self.by_images.get(&release.path()).map(opened).transpose()
    }

    /// The domain in a hub's `domain_override_file`, if it has one.
    pub(crate) fn domain(&self, release: &ReleaseConfig) -> Result<Option<String>> {
        let Some((path, _)) = &release.domain_override else {
            return Ok(None);
        };
        domain_in(opened(&self.listed[path])?).map(Some)
    }

    /// A file that a release lists.
    pub(crate) fn of(&self, release: &ReleaseConfig, path: &Path) -> Result<&InMemory> {
        let made = self.made.get(&MadeKey::new(release, path));
        opened(made.unwrap_or_else(|| &self.listed[path]))
    }

    /// Whether what jsonnet made for a release depends on no file that the placeholder of its domain leaves out.
    pub(crate) fn are_of_known_sources(&self, release: &ReleaseConfig) -> bool {
        let mut files = release.values_files();
        files.all(|it| !self.made_of_more.contains(&MadeKey::new(release, it)))
    }

    /// All that could be opened.
    pub(crate) fn all(&self) -> impl Iterator<Item = &InMemory> {
        let listed = self.listed.values().flatten();
        let made = self.made.values().flatten();
        listed.chain(made).chain(self.by_images.values().flatten())
    }

    /// The placeholders for a file that depends on a secret, by the path that helm is given.
    pub(crate) fn placeholders(&self, given: &Path) -> Option<&[InMemory; 2]> {
        self.placeholders.get(given)
    }
}

/// Why a file makes no values for an encrypted domain: what it says of a placeholder. Of the domain it may say anything, in
/// any form, and so that is not shown.
fn not_made(path: &Path, with_placeholder: &Result<String>, placeholder: &str) -> Error {
    let shown = path.display();
    match with_placeholder {
        Err(err) => anyhow!("{}", format!("{err:#}").replace(placeholder, "***")),
        Ok(_) => anyhow!(
            "`{shown}` cannot be evaluated with the hub's encrypted domain, and with other domains it can; what it says is \
             not shown, since that may quote the domain"
        ),
    }
}

fn opened(file: &Result<InMemory>) -> Result<&InMemory> {
    file.as_ref().map_err(|err| anyhow!("{err:#}"))
}
