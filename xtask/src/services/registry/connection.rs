//! Requests to registries, each with what its registry wants from those who ask.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use serde_json::Value;
use ureq::{
    Agent, Body, ResponseExt,
    http::{Request, Response, StatusCode, request::Builder},
};

use crate::{
    machine::once::Once,
    secrets::Secret,
    services::{
        http,
        registry::{
            address::{Host, Repository},
            challenge::{Challenge, Realm},
            unanswered::Unanswered,
        },
    },
};

/// How long to wait for a connection, and for the beginning of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a token lasts whose server does not say it: <https://distribution.github.io/distribution/spec/auth/token/>.
const USUAL_LIFE: Duration = Duration::from_secs(60);

/// How long we believe that a token lasts, whatever its server says.
const LONGEST_LIFE: Duration = Duration::from_secs(60 * 60);

/// How long before its end a token is not used any more.
const MARGIN: Duration = Duration::from_secs(10);

/// A user's name and password for each registry, by its host's name as in an image's name.
pub(crate) type Logins = BTreeMap<String, (String, Secret)>;

/// The connections of one command to all registries.
pub(crate) struct Connections {
    agent: Agent,
    logins: Logins,
    /// What each registry wants.
    challenges: Once<Host, Result<Challenge, Unanswered>>,
    tokens: Mutex<BTreeMap<(Host, Realm), KnownToken>>,
    /// Registries that are asked no more, and why.
    given_up: Mutex<BTreeMap<Host, Unanswered>>,
}

/// The token that is known now. Who locks it may ask for a new one meanwhile.
type KnownToken = Arc<Mutex<Option<Token>>>;

#[derive(Clone)]
struct Token {
    text: Arc<Secret>,
    until: Instant,
}

/// A request about a repository.
pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    /// Below the repository's address, such as `manifests/latest`.
    pub(crate) path: &'a str,
    pub(crate) accept: &'a str,
}

impl Connections {
    pub(crate) fn new(logins: Logins) -> Connections {
        Connections {
            agent: http::agent_within(PATIENCE),
            logins,
            challenges: Once::default(),
            tokens: Mutex::default(),
            given_up: Mutex::default(),
        }
    }

    /// A registry's answer if it is a success; `None` if there is nothing of that name.
    pub(crate) fn ask(
        &self,
        repository: &Repository,
        question: &Question,
    ) -> Result<Option<Response<Body>>, Unanswered> {
        let host = &repository.host;
        let expected = self.challenge(host)?.for_pulling(&repository.path);
        let url = format!("{}/v2/{}/{}", host.url, repository.path, question.path);
        let mut answer = self.send(host, question, &url, &expected)?;
        if let Some(challenge) = refusal(host, &answer)
            && challenge != expected
        {
            answer = self.send(host, question, &url, &challenge)?;
        }
        match answer.status() {
            status if status.is_success() => Ok(Some(answer)),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED if expected == Challenge::Basic => {
                Err(self.login_refused(host))
            }
            status => Err(self.refused(host, status)),
        }
    }

    /// What a registry wants. Only the first who wants to know asks it.
    fn challenge(&self, host: &Host) -> Result<Challenge, Unanswered> {
        self.challenges.get(host, || {
            let name = &host.name;
            let url = format!("{}/v2/", host.url);
            let answer = self.patiently(host, name, || Request::get(&url))?;
            match answer.status() {
                StatusCode::UNAUTHORIZED => refusal(host, &answer).ok_or_else(|| {
                    Unanswered::new(format!("{name} wants an unknown kind of login"))
                }),
                StatusCode::NOT_FOUND => Err(Unanswered::new(format!(
                    "{name} is no registry: it has no `/v2/`"
                ))),
                status if status.is_server_error() => {
                    Err(Unanswered::new(format!("{name} answers {status}")))
                }
                _ => Ok(Challenge::Open),
            }
        })
    }

    fn send(
        &self,
        host: &Host,
        question: &Question,
        url: &str,
        challenge: &Challenge,
    ) -> Result<Response<Body>, Unanswered> {
        let authorization = self.authorization(host, challenge)?;
        self.patiently(host, &host.name, || {
            let request = Request::builder()
                .method(question.method)
                .uri(url)
                .header("accept", question.accept);
            match &authorization {
                Some(it) => request.header("authorization", it.exposed()),
                None => request,
            }
        })
    }

    /// The value of the header that meets a challenge, if there is one.
    fn authorization(
        &self,
        host: &Host,
        challenge: &Challenge,
    ) -> Result<Option<Secret>, Unanswered> {
        match challenge {
            Challenge::Open => Ok(None),
            Challenge::Basic => self.basic(host, &host.url),
            Challenge::Bearer(realm) => {
                let token = self.token(host, realm)?;
                Ok(Some(Secret::new(format!("Bearer {}", token.exposed()))))
            }
        }
    }

    /// The login to a registry, as it is given to the server at `url`.
    fn basic(&self, host: &Host, url: &str) -> Result<Option<Secret>, Unanswered> {
        let Some((user, password)) = self.logins.get(&host.name) else {
            return Ok(None);
        };
        if !url.starts_with("https://") && !http::is_loopback(url) {
            return Err(Unanswered::new(format!(
                "{} wants our login over plain HTTP, where others could read it",
                host.name
            )));
        }
        let both = http::basic(user, password);
        Ok(Some(Secret::new(format!("Basic {both}"))))
    }

    /// A token of this realm: the one that is known, as long as it lasts.
    fn token(&self, host: &Host, realm: &Realm) -> Result<Arc<Secret>, Unanswered> {
        let key = (host.clone(), realm.clone());
        let of_realm = lock(&self.tokens).entry(key).or_default().clone();
        let mut known = lock(&of_realm);
        if let Some(token) = known.as_ref().filter(|it| Instant::now() < it.until) {
            return Ok(token.text.clone());
        }
        let token = self.new_token(host, realm)?;
        *known = Some(token.clone());
        Ok(token.text)
    }

    fn new_token(&self, host: &Host, realm: &Realm) -> Result<Token, Unanswered> {
        let url = realm.address();
        let server = format!("{}'s token server {}", host.name, realm.server());
        let login = self.basic(host, &url)?;
        let mut answer = self.patiently(host, &server, || {
            let request = Request::get(&url);
            match &login {
                Some(it) => request.header("authorization", it.exposed()),
                None => request,
            }
        })?;
        match answer.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self.login_refused(host));
            }
            status => return Err(Unanswered::new(format!("{server} answers {status}"))),
        }
        http::json(&mut answer, &server)
            .ok()
            .and_then(|it| token_in(&it))
            .ok_or_else(|| Unanswered::new(format!("{server} gives no token")))
    }

    /// The answer to a request, also one that is no success. Once `server` cannot be reached, or does not answer for a
    /// while, nothing is asked of this registry any more.
    fn patiently(
        &self,
        host: &Host,
        server: &str,
        request: impl Fn() -> Builder,
    ) -> Result<Response<Body>, Unanswered> {
        if let Some(known) = lock(&self.given_up).get(host) {
            return Err(known.clone());
        }
        let answer = http::answer_patiently(|| {
            let request = request().body(()).map_err(ureq::Error::Http)?;
            self.agent.run(request)
        });
        let why = match answer {
            Ok(answer) if !is_for_all(answer.status()) => return Ok(answer),
            Ok(answer) => format!("{server} answers {}", answer.status()),
            Err(err) => format!("cannot reach {server}: {}", reason(err)),
        };
        let why = Unanswered::new(why);
        lock(&self.given_up).insert(host.clone(), why.clone());
        Err(why)
    }

    /// Why nothing is said about an image: those who may not pull it are not told whether it is there.
    fn refused(&self, host: &Host, status: StatusCode) -> Unanswered {
        let name = &host.name;
        if ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
            return Unanswered::new(format!("{name} answers {status}"));
        }
        if self.logins.contains_key(name) {
            let why = format!("{name} has no such image, or our login may not pull it");
            return Unanswered::new(why);
        }
        Connections::login_wanted(host)
    }

    fn login_refused(&self, host: &Host) -> Unanswered {
        if self.logins.contains_key(&host.name) {
            return Unanswered::new(format!("{} refuses our login", host.name));
        }
        Connections::login_wanted(host)
    }

    fn login_wanted(host: &Host) -> Unanswered {
        Unanswered {
            why: format!("{} has no such image, or wants a login for it", host.name),
            wants_login: true,
        }
    }
}

/// Why there is no answer, as people say it.
fn reason(err: ureq::Error) -> String {
    match err {
        ureq::Error::Io(err) => err.to_string(),
        ureq::Error::Timeout(_) => format!("no answer in {} s", PATIENCE.as_secs()),
        err => err.to_string(),
    }
}

/// What an answer says is wanted of us, if it is the registry's own: a server that it leads to gets no login.
fn refusal(host: &Host, answer: &Response<Body>) -> Option<Challenge> {
    let uri = answer.get_uri();
    let server = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
    let is_refused = answer.status() == StatusCode::UNAUTHORIZED;
    (is_refused && server == host.url)
        .then(|| Challenge::of(answer))
        .flatten()
}

/// Whether a registry would answer the same to whatever it is asked now.
fn is_for_all(status: StatusCode) -> bool {
    [429, 502, 503, 504].contains(&status.as_u16())
}

fn token_in(json: &Value) -> Option<Token> {
    let mut fields = ["token", "access_token"].into_iter();
    let text = fields.find_map(|it| json[it].as_str())?;
    let life = json["expires_in"].as_u64().map(Duration::from_secs);
    let life = life.unwrap_or(USUAL_LIFE).min(LONGEST_LIFE);
    Some(Token {
        text: Arc::new(Secret::new(text.to_owned())),
        until: Instant::now() + life.saturating_sub(MARGIN),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}
