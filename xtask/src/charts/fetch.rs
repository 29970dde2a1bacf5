//! Charts and manifests from where they are published, or from a mirror of that.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::{self, Display, Formatter},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use ureq::Agent;
use xshell::{Shell, cmd};

use crate::{
    charts::{
        archive, files,
        metadata::Metadata,
        version::{Version, satisfies},
    },
    machine::{name::Name, paths, process},
    schema::Retriever,
    services::http::{self, PATIENCE},
    settings::Settings,
    yaml,
};

/// The last line of an error about something that cannot be fetched.
pub(crate) const HINT: &str =
    "hint: `chart_mirrors` in config/xtask.yaml can name another address for it";

/// How long to wait for an answer with a schema. Many networks let nothing out but what they know.
const SCHEMA_PATIENCE: Duration = Duration::from_secs(5);

/// How long a schema that could not be had is not asked for where there is something to do without it.
const LATELY: Duration = Duration::from_secs(60 * 60);

/// Why schemas could not be had in this run, by the addresses that were asked.
static UNAVAILABLE: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Far more than the largest index.yaml has.
const MAX_SIZE: u64 = 200 * 1024 * 1024;

/// One version of a published chart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Remote {
    pub(crate) name: Name,
    /// One version, of which the repository may have another spelling.
    pub(crate) version: String,
    /// The public address of a chart repository, or of a folder in an OCI registry.
    pub(crate) repository: String,
}

/// Why a chart cannot be had from a repository that answers: it does not have the version, or not even the chart.
#[derive(Debug)]
pub(crate) struct NotPublished(pub(crate) String);

impl Error for NotPublished {}

impl Display for NotPublished {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The index.yaml of a chart repository.
#[derive(Deserialize)]
struct Index {
    entries: BTreeMap<String, Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    version: String,
    /// Whole addresses, or relative to the repository or its host.
    #[serde(default)]
    urls: Vec<String>,
    /// The archive's sha256 in hexadecimal digits.
    digest: Option<String>,
}

impl Remote {
    /// The archive in the cache, fetched if it is not there. The error names the chart, its address, and the mirror; the
    /// caller adds `HINT`.
    pub(crate) fn fetch(&self, sh: &Shell, settings: &Settings) -> Result<PathBuf> {
        let archive = self.archive()?;
        let dir = archive.parent().expect("it lies in a folder");
        let chart = format!("the chart `{}` {}", self.name, self.version);
        let work = format!("gets {chart}");
        if dir.is_dir() && !self.is_cached() {
            paths::remove_unless(dir, &work, || self.is_cached())?;
        }
        paths::made_once(dir, &work, |part| {
            say!("getting {chart}");
            let address = settings.mirrored(&self.repository);
            let fetched = self.fetch_from(sh, settings, &address, part);
            let checked = fetched.and_then(|fetched| {
                self.check(&fetched)?;
                Ok(fs::rename(&fetched, part.join(self.file_name()))?)
            });
            checked.map_err(|err| unavailable(&chart, &self.repository, &address, &err))
        })?;
        Ok(archive)
    }

    /// Whether the cache has a whole archive of it.
    pub(crate) fn is_cached(&self) -> bool {
        self.archive().is_ok_and(|it| archive::files(&it).is_ok())
    }

    /// The path of the archive in the cache, whether it is there or not.
    pub(crate) fn archive(&self) -> Result<PathBuf> {
        let origin = paths::hex(&Sha256::digest(&self.repository)[..8]);
        let dir = format!("dependencies/{}-{}-{origin}", self.name, self.version);
        Ok(paths::cache()?.join(dir).join(self.file_name()))
    }

    fn file_name(&self) -> String {
        format!("{}-{}.tgz", self.name, self.version)
    }

    /// Refuses an archive that is another chart.
    fn check(&self, archive: &Path) -> Result<()> {
        let found = Metadata::of(archive)?;
        ensure!(
            found.name == self.name && satisfies(&found.version, &self.version)?,
            "got `{}` {} in its place",
            found.name,
            found.version
        );
        Ok(())
    }

    /// Fetches the archive to a file in the folder `to`.
    fn fetch_from(
        &self,
        sh: &Shell,
        settings: &Settings,
        address: &str,
        to: &Path,
    ) -> Result<PathBuf> {
        if address.starts_with("oci://") {
            return self.pull(sh, address, to);
        }
        let repository = address.trim_end_matches('/');
        let index = Index::get(repository)?;
        let entry = index.find(&self.name, &self.version)?;
        let url = entry.url(settings, repository)?;
        let archive = get(&http::agent(), &url)?;
        entry.check(&url, &archive)?;
        let file = to.join("fetched.tgz");
        fs::write(&file, archive).with_context(|| format!("cannot write `{}`", file.display()))?;
        Ok(file)
    }

    /// helm knows how to log in to a registry, and compares what it gets with the digests in the manifest.
    fn pull(&self, sh: &Shell, address: &str, to: &Path) -> Result<PathBuf> {
        let chart = format!("{}/{}", address.trim_end_matches('/'), self.name);
        let version = &self.version;
        let plain = http::is_loopback(address).then_some("--plain-http");
        let cmd = cmd!(
            sh,
            "helm pull {chart} --version {version} --destination {to} {plain...}"
        );
        let output = process::run_within(sh, cmd, PATIENCE)?;
        ensure!(
            output.success,
            "{}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        files::children(to)?.pop().context("helm pulled nothing")
    }
}

impl Index {
    /// The index.yaml of the chart repository at an address. Like helm, this reads JSON first: it is faster, and has
    /// escapes that YAML does not know.
    fn get(repository: &str) -> Result<Index> {
        let index = get(&http::agent(), &format!("{repository}/index.yaml"))?;
        serde_json::from_slice(&index)
            .or_else(|_| yaml::parse(&index))
            .context("index.yaml there is not the index of a chart repository")
    }

    fn find(&self, name: &str, version: &str) -> Result<&Entry> {
        let versions = self
            .entries
            .get(name)
            .ok_or_else(|| NotPublished("index.yaml there does not have the chart".to_owned()))?;
        let same = versions.iter().find(|it| it.version == version);
        let entry = same.or_else(|| equal(versions, version));
        let entry = entry.ok_or_else(|| {
            let newest = versions.iter().take(5).map(|it| it.version.as_str());
            NotPublished(format!(
                "index.yaml there does not have this version; the newest are: {}",
                newest.collect::<Vec<_>>().join(", ")
            ))
        })?;
        Ok(entry)
    }
}

/// A version that is written in another way, such as `v1.2.3` for `1.2.3`.
fn equal<'a>(versions: &'a [Entry], wanted: &str) -> Option<&'a Entry> {
    let wanted = Version::parse(wanted)?;
    versions.iter().find(|it| {
        let version = Version::parse(&it.version);
        version.is_some_and(|it| it.compare(&wanted).is_eq())
    })
}

impl Entry {
    /// The whole address of the archive.
    fn url(&self, settings: &Settings, repository: &str) -> Result<String> {
        let url = self
            .urls
            .first()
            .context("index.yaml there has no address for it")?;
        if url.contains("://") {
            return Ok(settings.mirrored(url));
        }
        let Some(from_host) = url.strip_prefix('/') else {
            return Ok(format!("{repository}/{url}"));
        };
        let host: Vec<_> = repository.splitn(4, '/').take(3).collect();
        Ok(format!("{}/{from_host}", host.join("/")))
    }

    /// Refuses an archive that the index has another digest for.
    fn check(&self, url: &str, archive: &[u8]) -> Result<()> {
        let Some(wanted) = &self.digest else {
            return Ok(());
        };
        let wanted = wanted.trim_start_matches("sha256:");
        let got = paths::hex(&Sha256::digest(archive));
        ensure!(
            got.eq_ignore_ascii_case(wanted),
            "{} is not the archive in index.yaml: its sha256 is {got} ({} bytes), and {wanted} is wanted",
            http::without_password(url),
            archive.len()
        );
        Ok(())
    }
}

/// The manifest at a public address.
pub(crate) fn manifest(settings: &Settings, url: &str) -> Result<String> {
    document(settings, &http::agent(), "the manifest", url, |text| {
        let first: Value = yaml::parse(text.as_bytes())?;
        ensure!(
            first.get("kind").is_some(),
            "it is not a manifest of Kubernetes"
        );
        Ok(text.to_owned())
    })
}

/// The JSON schema at a public address, which is asked at most once.
pub(crate) fn schema(settings: &Settings, url: &str) -> Result<Value> {
    let mut unavailable = UNAVAILABLE.lock().expect("nobody panics with it");
    let address = settings.mirrored(url);
    if let Some(why) = unavailable.get(&address) {
        bail!("{why}");
    }
    let agent = http::agent_within(SCHEMA_PATIENCE);
    let schema = document(settings, &agent, "the schema", url, |text| {
        Ok(serde_json::from_str(text)?)
    });
    if let Err(err) = &schema {
        paths::write_whole(&mark_of(&address)?, b"")?;
        unavailable.insert(address, format!("{err:#}"));
    }
    schema
}

/// The file in the cache whose age says when an address was last asked for a schema in vain.
fn mark_of(address: &str) -> Result<PathBuf> {
    Ok(cached_document(address)?.with_extension("unavailable"))
}

fn was_unavailable_lately(address: &str) -> bool {
    let marked = mark_of(address).and_then(|it| Ok(fs::metadata(it)?.modified()?.elapsed()?));
    marked.is_ok_and(|it| it < LATELY)
}

/// The JSON schema at a public address, if the cache has it.
fn cached_schema(url: &str) -> Result<Option<Value>> {
    match fs::read(cached_document(url)?) {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
        read => Ok(Some(serde_json::from_slice(&read?)?)),
    }
}

fn cached_document(url: &str) -> Result<PathBuf> {
    Ok(paths::cache()?
        .join("documents")
        .join(paths::hex(&Sha256::digest(url)[..16])))
}

/// The document at a public address. The cache keeps it, because what the address of a version gives does not change. A
/// document that `parse` refuses is not kept.
fn document<T>(
    settings: &Settings,
    agent: &Agent,
    what: &str,
    url: &str,
    parse: impl Fn(&str) -> Result<T>,
) -> Result<T> {
    let file = cached_document(url)?;
    // One that cannot be read is fetched again.
    if let Ok(text) = fs::read_to_string(&file)
        && let Ok(parsed) = parse(&text)
    {
        return Ok(parsed);
    }
    say!("getting {}", http::without_password(url));
    let address = settings.mirrored(url);
    let (parsed, text) = get_parsed(agent, &address, parse).map_err(|err| {
        let err = unavailable(what, url, &address, &err);
        anyhow!("{err}\n{HINT}")
    })?;
    paths::write_whole(&file, text.as_bytes())?;
    Ok(parsed)
}

/// The document at an address, parsed and as it is.
fn get_parsed<T>(
    agent: &Agent,
    address: &str,
    parse: impl Fn(&str) -> Result<T>,
) -> Result<(T, String)> {
    let text = String::from_utf8(get(agent, address)?)?;
    Ok((parse(&text)?, text))
}

/// An error with the public address and that of the mirror.
fn unavailable(what: &str, public: &str, address: &str, err: &anyhow::Error) -> anyhow::Error {
    let shown = http::without_password(address);
    let from = if public == address {
        shown.clone()
    } else {
        format!("{} by its mirror {shown}", http::without_password(public))
    };
    let is_published = !err.is::<NotPublished>();
    let err = format!("{err:#}").replace(address, &shown);
    let message = format!("cannot get {what} from {from}: {err}");
    if is_published {
        anyhow!(message)
    } else {
        NotPublished(message).into()
    }
}

fn get(agent: &Agent, url: &str) -> Result<Vec<u8>> {
    ensure!(
        ["https://", "http://"].iter().any(|it| url.starts_with(it)),
        "`{}` is not an address",
        http::without_password(url)
    );
    let answer = agent.get(url).call();
    let content = answer.and_then(|mut answer| {
        let status = answer.status();
        if !status.is_success() {
            return Err(ureq::Error::StatusCode(status.as_u16()));
        }
        let body = answer.body_mut().with_config();
        body.limit(MAX_SIZE).read_to_vec()
    });
    content.with_context(|| format!("GET {}", http::without_password(url)))
}

/// Gets the schemas that others refer to; those that are not in the cache are fetched, unless that failed lately.
pub(crate) fn schemas(settings: &Settings) -> Retriever {
    let settings = settings.clone();
    let cached = cached_schemas();
    Arc::new(move |url| {
        if was_unavailable_lately(&settings.mirrored(url)) {
            return cached(url);
        }
        schema(&settings, url).ok()
    })
}

/// Gets the schemas that others refer to from the cache alone.
pub(crate) fn cached_schemas() -> Retriever {
    Arc::new(|url| cached_schema(url).ok().flatten())
}
