//! Names of images: `quay.io/jupyterhub/k8s-hub:4.4.0@sha256:…`.

use std::fmt;

use anyhow::{Result, ensure};

/// The registry of names that have none: <https://pkg.go.dev/github.com/distribution/reference#pkg-variables>.
const DOCKER_HUB: &str = "docker.io";

/// How many characters a name may have.
const LONGEST: usize = 255;

/// What an image is called. `Display` writes it as people do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// As it was written, without tag and digest.
    pub(crate) name: String,
    pub(crate) tag: Option<String>,
    /// `sha256:…`
    pub(crate) digest: Option<String>,
}

impl Reference {
    /// Reads a name with its tag and digest, if it has them: <https://pkg.go.dev/github.com/distribution/reference>.
    pub(crate) fn parse(text: &str) -> Result<Reference> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let last_step = rest.rfind('/').map_or(0, |it| it + 1);
        let (name, tag) = match rest[last_step..].find(':') {
            Some(colon) => {
                let (name, tag) = rest.split_at(last_step + colon);
                (name, Some(&tag[1..]))
            }
            None => (rest, None),
        };
        ensure!(is_name(name), "`{text}` is no image's name");
        ensure!(
            tag.is_none_or(is_tag),
            "`{text}`: a tag has letters, digits, `_`, `.` and `-`, at most 128"
        );
        ensure!(
            digest.is_none_or(is_digest),
            "`{text}`: `sha256:` and 64 digits of hex follow an `@`"
        );
        Ok(Reference {
            name: name.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// What a registry is asked for below the name: the digest, which is what is pulled where there is one, or the tag.
    pub(crate) fn version(&self) -> &str {
        let version = self.digest.as_deref().or(self.tag.as_deref());
        version.unwrap_or("latest")
    }

    /// The registry that it is in.
    pub(crate) fn registry(&self) -> String {
        let name = self.full_name();
        name.split('/').next().unwrap_or_default().to_owned()
    }

    /// The name as registries are asked for it: with its registry, and the folder that docker.io's own images are in.
    pub(crate) fn full_name(&self) -> String {
        match self.name.split_once('/') {
            Some((host, rest)) if is_host(host) => {
                let host = if host == "index.docker.io" {
                    DOCKER_HUB
                } else {
                    host
                };
                if host == DOCKER_HUB && !rest.contains('/') {
                    return format!("{host}/library/{rest}");
                }
                format!("{host}/{rest}")
            }
            Some(_) => format!("{DOCKER_HUB}/{}", self.name),
            None => format!("{DOCKER_HUB}/library/{}", self.name),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether the first step of a name is a registry's.
fn is_host(step: &str) -> bool {
    step.contains(['.', ':']) || step == "localhost"
}

fn is_name(name: &str) -> bool {
    let path = match name.split_once('/') {
        Some((host, path)) if is_host(host) => {
            let (host, port) = host.split_once(':').unwrap_or((host, "80"));
            let is_of_host = |it: char| it.is_ascii_alphanumeric() || "-.".contains(it);
            if !host.chars().all(is_of_host) || port.parse::<u16>().is_err() {
                return false;
            }
            path
        }
        _ => name,
    };
    name.len() <= LONGEST && path.split('/').all(is_step)
}

/// A part of a name between slashes: words of lower case and digits, with separators between them.
fn is_step(step: &str) -> bool {
    let is_plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    let separators = step.split(is_plain).filter(|it| !it.is_empty());
    step.starts_with(is_plain)
        && step.ends_with(is_plain)
        && separators.into_iter().all(is_separator)
}

/// A dot, one or two underscores, or any number of hyphens.
fn is_separator(text: &str) -> bool {
    [".", "_", "__"].contains(&text) || text.chars().all(|it| it == '-')
}

fn is_tag(tag: &str) -> bool {
    let is_of_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
    tag.len() <= 128
        && tag.starts_with(is_of_word)
        && tag.chars().all(|it| is_of_word(it) || ".-".contains(it))
}

/// Whether this is a digest as images have them, which is also the name of a file.
pub(crate) fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .chars()
                .all(|it| it.is_ascii_digit() || ('a'..='f').contains(&it))
    })
}
