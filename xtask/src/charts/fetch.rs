//! Charts and manifests from where they are published, or from a mirror of that.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::{
    charts::{files, metadata::metadata, version::satisfies},
    machine::{paths, process},
    schema::Retriever,
    services::http::{self, PATIENCE},
    settings::Settings,
};

/// The last line of an error of what couldn't be had.
pub(crate) const HINT: &str =
    "hint: `chart_mirrors` in config/xtask.yaml can name another address for it";

/// Far more than the largest index.yaml has.
const MAX_SIZE: u64 = 200 * 1024 * 1024;

/// One version of a published chart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Remote {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The public address of a chart repository, or of a folder in an OCI registry.
    pub(crate) repository: String,
}

/// The index.yaml of a chart repository.
#[derive(Deserialize)]
struct Index {
    entries: BTreeMap<String, Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    version: String,
    /// Relative to the repository, or whole addresses.
    #[serde(default)]
    urls: Vec<String>,
    /// The archive's sha256 in hexadecimal digits.
    digest: Option<String>,
}

impl Remote {
    /// The archive in the cache, fetched if it isn't there. The error names the chart, its address, and
    /// the mirror, and wants to be followed by `HINT`.
    pub(crate) fn fetch(&self, sh: &Shell, settings: &Settings) -> Result<PathBuf> {
        let Remote {
            name,
            version,
            repository,
        } = self;
        let archive = self.archive()?;
        let dir = archive.parent().expect("it lies in a folder");
        let dependencies = dir.parent().expect("that lies in the cache");
        let from = self.origin();
        let _lock = paths::lock(
            &dependencies.join(format!("locks/{name}-{version}-{from}")),
            &format!("gets the chart `{name}` {version}"),
        )?;
        if archive.is_file() {
            return Ok(archive);
        }
        say!("getting the chart `{name}` {version}");
        let part = dependencies.join(format!(".{name}-{version}-{from}.part"));
        paths::remove_dir(&part)?;
        fs::create_dir_all(&part)?;
        let address = settings.mirrored(repository);
        let fetched = self
            .fetch_from(sh, settings, &address, &part)
            .and_then(|fetched| {
                let found = metadata(&fetched)?;
                ensure!(
                    found.name == *name && satisfies(&found.version, version)?,
                    "got `{}` {} in its place",
                    found.name,
                    found.version
                );
                fs::rename(
                    &fetched,
                    part.join(archive.file_name().expect("it is a file")),
                )?;
                paths::remove_dir(dir)?;
                Ok(fs::rename(&part, dir)?)
            });
        if let Err(err) = fetched {
            paths::remove_dir(&part)?;
            bail!(unavailable(
                &format!("the chart `{name}` {version}"),
                repository,
                &address,
                &err
            ));
        }
        Ok(archive)
    }

    /// Where the archive is in the cache, or would be.
    pub(crate) fn archive(&self) -> Result<PathBuf> {
        let Remote { name, version, .. } = self;
        let dir = format!("dependencies/{name}-{version}-{}", self.origin());
        Ok(paths::cache()?
            .join(dir)
            .join(format!("{name}-{version}.tgz")))
    }

    /// Stands for the repository.
    fn origin(&self) -> String {
        paths::hex(&Sha256::digest(&self.repository)[..8])
    }

    fn fetch_from(
        &self,
        sh: &Shell,
        settings: &Settings,
        address: &str,
        to: &Path,
    ) -> Result<PathBuf> {
        let Remote { name, version, .. } = self;
        if address.starts_with("oci://") {
            // helm knows how to log in to a registry, and compares what it gets with the digests in the manifest.
            let chart = format!("{}/{name}", address.trim_end_matches('/'));
            let plain = is_loopback(address).then_some("--plain-http");
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
            return files::children(to)?.pop().context("helm pulled nothing");
        }
        let repository = address.trim_end_matches('/');
        let index = get(&format!("{repository}/index.yaml"))?;
        let index: Index = serde_yaml::from_slice(&index)
            .context("index.yaml there isn't the index of a chart repository")?;
        let versions = index
            .entries
            .get(name)
            .context("index.yaml there doesn't have the chart")?;
        let entry = versions
            .iter()
            .find(|it| satisfies(&it.version, version).unwrap_or(false));
        let entry = entry.with_context(|| {
            let known: Vec<_> = versions
                .iter()
                .take(5)
                .map(|it| it.version.as_str())
                .collect();
            format!(
                "index.yaml there doesn't have this version; the newest are: {}",
                known.join(", ")
            )
        })?;
        let url = entry
            .urls
            .first()
            .context("index.yaml there has no address for it")?;
        let url = match url.strip_prefix('/') {
            _ if url.contains("://") => settings.mirrored(url),
            Some(from_host) => {
                let host: Vec<_> = repository.splitn(4, '/').take(3).collect();
                format!("{}/{from_host}", host.join("/"))
            }
            None => format!("{repository}/{url}"),
        };
        let archive = get(&url)?;
        if let Some(wanted) = &entry.digest {
            let wanted = wanted.trim_start_matches("sha256:");
            let got = paths::hex(&Sha256::digest(&archive));
            ensure!(
                got.eq_ignore_ascii_case(wanted),
                "{url} isn't the archive in index.yaml: its sha256 is {got} ({} bytes), and {wanted} is wanted",
                archive.len()
            );
        }
        let file = to.join("fetched.tgz");
        fs::write(&file, archive).with_context(|| format!("cannot write `{}`", file.display()))?;
        Ok(file)
    }
}

/// The manifest at a public address.
pub(crate) fn manifest(settings: &Settings, url: &str) -> Result<String> {
    document(settings, "the manifest", url, |text| {
        let first = serde_yaml::Deserializer::from_str(text)
            .next()
            .context("it is empty")?;
        let first = serde_yaml::Value::deserialize(first)?;
        ensure!(
            first.get("kind").is_some(),
            "it isn't a manifest of Kubernetes"
        );
        Ok(text.to_owned())
    })
}

/// The JSON schema at a public address.
pub(crate) fn schema(settings: &Settings, url: &str) -> Result<Value> {
    document(settings, "the schema", url, |text| {
        Ok(serde_json::from_str(text)?)
    })
}

/// The same if the cache has it.
pub(crate) fn cached_schema(url: &str) -> Result<Option<Value>> {
    match fs::read(cached_document(url)?) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => Ok(Some(serde_json::from_slice(&read?)?)),
    }
}

fn cached_document(url: &str) -> Result<PathBuf> {
    Ok(paths::cache()?
        .join("documents")
        .join(paths::hex(&Sha256::digest(url)[..16])))
}

/// What is at a public address, kept in the cache: what the address of a version gives doesn't change. What doesn't
/// parse isn't kept.
fn document<T>(
    settings: &Settings,
    what: &str,
    url: &str,
    parse: impl Fn(&str) -> Result<T>,
) -> Result<T> {
    let file = cached_document(url)?;
    if file.is_file() {
        let text = fs::read_to_string(&file)
            .with_context(|| format!("cannot read `{}`", file.display()))?;
        return parse(&text);
    }
    say!("getting {url}");
    let address = settings.mirrored(url);
    let fetched = get(&address).and_then(|it| {
        let text = String::from_utf8(it)?;
        Ok((parse(&text)?, text))
    });
    let (parsed, text) =
        fetched.map_err(|err| anyhow!("{}\n{HINT}", unavailable(what, url, &address, &err)))?;
    paths::write_whole(&file, text.as_bytes())?;
    Ok(parsed)
}

/// Everything that one needs to know who didn't get something.
fn unavailable(what: &str, public: &str, address: &str, err: &anyhow::Error) -> String {
    let from = if public == address {
        public.to_owned()
    } else {
        format!("{public} by its mirror {address}")
    };
    format!("cannot get {what} from {from}: {err:#}")
}

fn get(url: &str) -> Result<Vec<u8>> {
    ensure!(
        ["https://", "http://"].iter().any(|it| url.starts_with(it)),
        "`{url}` isn't an address"
    );
    let answer = http::agent()
        .get(url)
        .call()
        .and_then(|mut it| match it.status() {
            status if status.is_success() => {
                it.body_mut().with_config().limit(MAX_SIZE).read_to_vec()
            }
            status => Err(ureq::Error::StatusCode(status.as_u16())),
        });
    answer.with_context(|| format!("GET {url}"))
}

/// What docker and others talk to without TLS, too.
fn is_loopback(address: &str) -> bool {
    let host = address.split("://").nth(1).unwrap_or_default();
    ["localhost:", "localhost/", "127.", "[::1]"]
        .iter()
        .any(|it| host.starts_with(it))
}

/// Gets the schemas that others refer to, into the cache if they aren't there.
pub(crate) fn schemas(settings: &Settings) -> Retriever {
    let settings = settings.clone();
    Arc::new(move |url| schema(&settings, url).ok())
}

/// Gets the schemas that others refer to from the cache alone.
pub(crate) fn cached_schemas() -> Retriever {
    Arc::new(|url| cached_schema(url).ok().flatten())
}
