//! Registries of images: whether an image is there, and which tags there are.
//!
//! The protocol: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>.

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use ureq::{Body, http::Response};

use crate::{
    machine::once::Once,
    services::{
        http,
        registry::{
            address::Repository,
            connection::{Connections, Question},
            platforms::MANIFESTS,
            reference::{Reference, is_digest},
            unanswered::Unanswered,
        },
    },
    settings::Settings,
};

mod address;
mod challenge;
mod connection;
mod platforms;
pub(crate) mod reference;
pub(crate) mod unanswered;

pub(crate) use self::{connection::Logins, platforms::digest_of};

/// How many tags a page may have. Registries refuse more, or have less.
const PAGE: u32 = 1000;

/// How many pages of tags are read.
const MOST_PAGES: usize = 100;

/// All registries, as one command asks them: what was asked once is known, side by side too.
pub(crate) struct Registries<'a> {
    settings: &'a Settings,
    connections: Connections,
    answers: Once<String, Answer>,
    architectures: Once<String, Result<Vec<String>, String>>,
    tags: Once<String, Result<Vec<String>, String>>,
}

/// What a registry says of an image.
#[derive(Clone)]
pub(crate) enum Answer {
    /// The digest of its manifest or index, as `sha256:…`.
    There { digest: String },
    /// The registry knows no such tag, or no image of that name.
    Missing,
    /// It did not answer, or does not tell us; why.
    Unknown(Unanswered),
}

impl<'a> Registries<'a> {
    pub(crate) fn new(settings: &'a Settings, logins: Logins) -> Registries<'a> {
        Registries {
            settings,
            connections: Connections::new(logins),
            answers: Once::default(),
            architectures: Once::default(),
            tags: Once::default(),
        }
    }

    /// The registry that is asked for an image, which may be a mirror.
    pub(crate) fn host_of(&self, image: &Reference) -> String {
        Repository::of(self.settings, image).host.name
    }

    /// Whether an image is there: one `HEAD`.
    pub(crate) fn look(&self, image: &Reference) -> Answer {
        let key = format!("{} {}", image.full_name(), image.version());
        self.answers.get(&key, || {
            let answer = self.look_up(image);
            answer.unwrap_or_else(Answer::Unknown)
        })
    }

    fn look_up(&self, image: &Reference) -> Result<Answer, Unanswered> {
        let repository = Repository::of(self.settings, image);
        let path = format!("manifests/{}", image.version());
        let mut question = Question {
            method: "HEAD",
            path: &path,
            accept: MANIFESTS,
        };
        let Some(answer) = self.connections.ask(&repository, &question)? else {
            return Ok(Answer::Missing);
        };
        if let Some(digest) = image.digest.clone().or_else(|| digest_in(&answer)) {
            return Ok(Answer::There { digest });
        }
        question.method = "GET";
        let Some(mut answer) = self.connections.ask(&repository, &question)? else {
            return Ok(Answer::Missing);
        };
        let content = answer.body_mut().read_to_vec().unwrap_or_default();
        let manifest: Value = serde_json::from_slice(&content).unwrap_or_default();
        if !manifest.is_object() {
            let why = format!("{} gives something else for an image", repository.host.name);
            return Err(Unanswered::new(why));
        }
        let digest = digest_of(&content);
        Ok(Answer::There { digest })
    }

    /// The architectures that an image is there for, such as `amd64`; none if it does not say.
    pub(crate) fn architectures(&self, image: &Reference) -> Result<Vec<String>> {
        let digest = match self.look(image) {
            Answer::There { digest } => digest,
            Answer::Missing => bail!("`{image}` does not exist"),
            Answer::Unknown(why) => return Err(why.into()),
        };
        let found = self.architectures.get(&digest, || {
            let repository = Repository::of(self.settings, image);
            platforms::architectures(&self.connections, &repository, &digest)
                .map_err(|err| format!("{err:#}"))
        });
        found.map_err(|err| anyhow!(err))
    }

    /// All tags of the image of this name, in the registry's order, through all pages.
    pub(crate) fn tags(&self, image: &Reference) -> Result<Vec<String>> {
        let repository = Repository::of(self.settings, image);
        let found = self.tags.get(&image.full_name(), || {
            self.all_tags(&repository).map_err(|err| format!("{err:#}"))
        });
        found.map_err(|err| anyhow!(err))
    }

    fn all_tags(&self, repository: &Repository) -> Result<Vec<String>> {
        let mut tags = Vec::new();
        let mut next = Some(format!("tags/list?n={PAGE}"));
        let mut pages = 0;
        while let Some(path) = next {
            ensure!(pages < MOST_PAGES, "too many tags");
            let question = Question {
                method: "GET",
                path: &path,
                accept: "application/json",
            };
            let host = &repository.host.name;
            let Some(mut answer) = self.connections.ask(repository, &question)? else {
                bail!("{host} has no image of the name `{}`", repository.path);
            };
            next = http::next_page(&answer)
                .map(|it| below(repository, &it))
                .transpose()?;
            let json = http::json(&mut answer, host)?;
            let page = json["tags"].as_array().into_iter().flatten();
            tags.extend(page.filter_map(Value::as_str).map(str::to_owned));
            pages += 1;
        }
        Ok(tags)
    }
}

/// The digest that a registry names for what it answers with.
fn digest_in(answer: &Response<Body>) -> Option<String> {
    let digest = answer.headers().get("docker-content-digest")?;
    let digest = digest.to_str().ok().filter(|it| is_digest(it))?;
    Some(digest.to_owned())
}

/// The address of a next page, from its repository's own: another server is not asked.
fn below(repository: &Repository, link: &str) -> Result<String> {
    let (_, query) = link
        .split_once("/tags/list?")
        .with_context(|| format!("the next tags of `{}` are nowhere", repository.path))?;
    Ok(format!("tags/list?{query}"))
}
