//! What a registry wants before it answers: <https://distribution.github.io/distribution/spec/auth/token/>.

use std::collections::BTreeMap;

use ureq::{Body, http::Response};

use crate::services::http;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Challenge {
    /// Nothing.
    Open,
    /// A user's name and password.
    Basic,
    /// A token of another server.
    Bearer(Realm),
}

/// Where tokens are had, and what for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Realm {
    pub(crate) url: String,
    pub(crate) service: Option<String>,
    pub(crate) scope: Option<String>,
}

impl Challenge {
    /// The first challenge of an answer that we can meet.
    pub(crate) fn of(answer: &Response<Body>) -> Option<Challenge> {
        let headers = answer.headers().get_all("www-authenticate");
        let texts = headers.iter().filter_map(|it| it.to_str().ok());
        texts.flat_map(challenges).find_map(|(scheme, mut fields)| {
            match scheme.to_ascii_lowercase().as_str() {
                "basic" => Some(Challenge::Basic),
                "bearer" => Some(Challenge::Bearer(Realm {
                    url: fields.remove("realm")?,
                    service: fields.remove("service"),
                    scope: fields.remove("scope"),
                })),
                _ => None,
            }
        })
    }

    /// The challenge as it is for who wants to pull from a repository.
    pub(crate) fn for_pulling(self, repository: &str) -> Challenge {
        match self {
            Challenge::Bearer(realm) => Challenge::Bearer(Realm {
                scope: Some(format!("repository:{repository}:pull")),
                ..realm
            }),
            challenge => challenge,
        }
    }
}

impl Realm {
    /// Where a token is asked for.
    pub(crate) fn address(&self) -> String {
        let service = self.service.iter().map(|it| ("service", it.as_str()));
        let scopes = self.scope.iter().flat_map(|it| it.split(' '));
        let mut address = self.url.clone();
        for (name, value) in service.chain(scopes.map(|it| ("scope", it))) {
            address.push(if address.contains('?') { '&' } else { '?' });
            address += &format!("{name}={}", http::percent_encoded(value));
        }
        address
    }

    /// Its server, for messages.
    pub(crate) fn server(&self) -> &str {
        let (_, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        rest.split(['/', '?']).next().unwrap_or_default()
    }
}

/// The challenges in a header, each with its fields: <https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1>.
fn challenges(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        rest = rest[end..].trim_start();
        if let Some(after) = rest.strip_prefix('=') {
            let (value, after) = value(after.trim_start());
            rest = after;
            if let Some((_, fields)) = found.last_mut() {
                fields.insert(word.to_ascii_lowercase(), value);
            }
        } else if !word.is_empty() {
            found.push((word, BTreeMap::new()));
        }
        rest = rest.trim_start_matches([' ', ',']);
    }
    found
}

/// The value that a text begins with, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((index, char)) = chars.next() {
        match char {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(chars.next().map(|(_, it)| it)),
            char => value.push(char),
        }
    }
    (value, "")
}
