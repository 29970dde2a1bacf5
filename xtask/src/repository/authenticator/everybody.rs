//! Whether a hub lets everybody in, by what the code of its authenticator does with its settings. Where that depends on
//! what isn't in the values (who has an account at a university's own provider, or the code of an unknown class), nothing
//! is said.

use crate::{
    repository::authenticator::config::AuthenticatorConfig,
    yaml::{Data, Node, Place},
};

/// Why a hub lets everybody in.
pub(crate) struct Open {
    /// The rest of a sentence.
    pub(crate) why: String,
    /// Where it's said, unless it is the class itself.
    pub(crate) at: Option<Place>,
}

/// A class of oauthenticator whose provider gives an account to everybody who wants one.
struct Provider {
    class: &'static str,
    name: &'static str,
    /// Settings that keep others out, or lead to another provider, and the variables that set them as well.
    restrictions: &'static [&'static str],
    variables: &'static [&'static str],
}

const PROVIDERS: &[Provider] = &[
    Provider {
        class: "bitbucket",
        name: "Bitbucket",
        restrictions: &[],
        variables: &[],
    },
    Provider {
        class: "github",
        name: "GitHub",
        restrictions: &["github_url"],
        variables: &["GITHUB_URL", "GITHUB_HOST"],
    },
    Provider {
        class: "gitlab",
        name: "GitLab",
        restrictions: &["gitlab_url"],
        variables: &["GITLAB_URL", "GITLAB_HOST"],
    },
    Provider {
        class: "globus",
        name: "Globus",
        restrictions: &["identity_provider"],
        variables: &["IDENTITY_PROVIDER"],
    },
    Provider {
        class: "google",
        name: "Google",
        restrictions: &["hosted_domain"],
        variables: &["HOSTED_DOMAIN"],
    },
    Provider {
        class: "mediawiki",
        name: "Wikimedia",
        restrictions: &["mw_index_url"],
        variables: &["MW_INDEX_URL"],
    },
];

/// Hosts of providers that give an account to everybody who wants one, with their names.
const PUBLIC_HOSTS: &[(&str, &str)] = &[
    ("accounts.google.com", "Google"),
    ("auth.globus.org", "Globus"),
    ("bitbucket.org", "Bitbucket"),
    ("github.com", "GitHub"),
    ("gitlab.com", "GitLab"),
    ("google.com", "Google"),
    ("login.microsoftonline.com", "Microsoft"),
    ("meta.wikimedia.org", "Wikimedia"),
    ("orcid.org", "ORCID"),
];

/// What stands for no tenant in particular at Microsoft.
const ANY_TENANT: &[&str] = &["common", "consumers", "organizations"];

/// Why this hub lets everybody in, if it does.
pub(crate) fn everybody(config: &AuthenticatorConfig) -> Option<Open> {
    match config.class.as_str() {
        "tmp" => without_login(config),
        "dummy" => with_any_name(config),
        "firstuse" => with_a_new_name(config),
        "native" => after_signing_up(config),
        "cilogon" => by_institutions(config),
        _ => by_account(config),
    }
}

fn without_login(config: &AuthenticatorConfig) -> Option<Open> {
    // Before JupyterHub 5 nobody needed to be allowed.
    let is_before_5 = config.chart_version.is_some_and(|it| it < 4);
    let all = allow_all(config);
    (all.is_some() || is_before_5).then(|| Open {
        why: ", and asks for no login".to_owned(),
        at: all.and_then(|it| it.at),
    })
}

fn with_any_name(config: &AuthenticatorConfig) -> Option<Open> {
    let is_open = !config.has_password() && takes_all_unless_named(config);
    is_open.then(|| Open {
        why: format!(
            " under any name: its dummy authenticator{} has no `password`",
            config.whose_default()
        ),
        at: None,
    })
}

fn with_a_new_name(config: &AuthenticatorConfig) -> Option<Open> {
    let is_closed = config.is_off("create_users") || config.programs.may_set("create_users");
    let is_open = !is_closed && takes_all_unless_named(config);
    is_open.then(|| Open {
        why: ": whoever is the first to use a name chooses its password".to_owned(),
        at: None,
    })
}

fn after_signing_up(config: &AuthenticatorConfig) -> Option<Open> {
    let sign_up = config.set_by_values("open_signup")?;
    let is_closed = config.is_off("enable_signup") || config.programs.may_set("enable_signup");
    let is_open = !is_closed && allow_all(config).is_some();
    is_open.then(|| Open {
        why: " who signs up: with `open_signup`, no admin is asked".to_owned(),
        at: sign_up.at,
    })
}

/// With these classes everybody is allowed in unless some users are named.
fn takes_all_unless_named(config: &AuthenticatorConfig) -> bool {
    let settings = ["allow_all", "allowed_users"];
    let is_known = !settings.iter().any(|it| config.programs.may_set(it));
    let names_users = config.is_off("allow_all") || config.setting("allowed_users").is_some();
    is_known && (allow_all(config).is_some() || !names_users)
}

/// Where everybody with an account is allowed in.
fn allow_all<'a>(config: &AuthenticatorConfig<'a>) -> Option<&'a Node> {
    config.set_by_values("allow_all").filter(|it| is_true(it))
}

fn is_true(node: &Node) -> bool {
    matches!(node.data, Data::Bool(true))
}

/// CILogon's users come from the institutions that are listed, some of which anybody can join.
fn by_institutions(config: &AuthenticatorConfig) -> Option<Open> {
    let settings = ["allow_all", "idps", "allowed_idps"];
    if settings.iter().any(|it| config.programs.may_set(it)) {
        return None;
    }
    let all = allow_all(config);
    let listed = config
        .setting("idps")
        .or_else(|| config.setting("allowed_idps"))?;
    let mut open = Vec::new();
    for (id, institution) in listed.as_map()? {
        let own = institution.get(&["allow_all"]).filter(|it| is_true(it));
        if let Some(name) = public_name(id)
            && let Some(set) = all.or(own)
        {
            open.push((name, set.at));
        }
    }
    let (_, at) = *open.first()?;
    let names: Vec<_> = open.into_iter().map(|(name, _)| name).collect();
    let why = with_account(&names.join(" or "));
    Some(Open { why, at })
}

/// Everybody who has an account at a provider.
fn by_account(config: &AuthenticatorConfig) -> Option<Open> {
    let mut why = with_account(public_provider(config)?);
    let others = config.other_ways_in();
    if config.is_old() {
        let is_restricted = config.setting("allowed_users").is_some() || !others.is_empty();
        let is_open = !is_restricted && !config.programs.are_about_authenticators();
        return is_open.then_some(Open { why, at: None });
    }
    let all = allow_all(config)?;
    if let Some(other) = others.first() {
        why += &format!(": beside `allow_all`, `{other}` keeps nobody out");
        if config.class == "google" {
            why += ", and `hosted_domain` would";
        }
    }
    Some(Open { why, at: all.at })
}

fn with_account(provider: &str) -> String {
    format!(" who has an account at {provider}")
}

/// The name of a hub's provider, if everybody can have an account there.
fn public_provider(config: &AuthenticatorConfig) -> Option<&'static str> {
    let provider = PROVIDERS.iter().find(|it| it.class == config.class);
    if provider.is_some_and(|it| it.is_restricted(config)) {
        return None;
    }
    let is_known = provider.is_some() || ["azuread", "generic"].contains(&&*config.class);
    if !is_known || config.programs.may_set("authorize_url") {
        return None;
    }
    if let Some(url) = config.setting("authorize_url") {
        return public_name(url.as_text()?);
    }
    match config.class.as_str() {
        "azuread" => {
            let tenant = config.set_by_values("tenant_id")?.as_text()?;
            ANY_TENANT.contains(&tenant).then_some("Microsoft")
        }
        "generic" => public_name(config.variable("OAUTH2_AUTHORIZE_URL")?.as_text()?),
        _ => Some(provider?.name),
    }
}

impl Provider {
    fn is_restricted(&self, config: &AuthenticatorConfig) -> bool {
        let mut settings = self.restrictions.iter();
        let mut variables = self.variables.iter();
        settings.any(|it| config.setting(it).is_some_and(restricts) || config.programs.may_set(it))
            || variables.any(|it| config.variable(it).is_some())
    }
}

/// Whether a setting is anything but the address of a provider for everybody.
fn restricts(set: &Node) -> bool {
    set.as_text().and_then(public_name).is_none()
}

/// The name of the provider at an address, if it gives an account to everybody who wants one.
fn public_name(url: &str) -> Option<&'static str> {
    let (_, address) = url.split_once("://")?;
    let mut steps = address.split('/');
    let host = steps.next()?.trim_start_matches("www.");
    let (_, name) = PUBLIC_HOSTS.iter().find(|(it, _)| *it == host)?;
    let is_for_all = *name != "Microsoft" || ANY_TENANT.contains(&steps.next()?);
    is_for_all.then_some(name)
}
