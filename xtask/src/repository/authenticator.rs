//! Who gets into a hub, by its merged values: `hub.config` of JupyterHub's chart, wherever in the values that is.

use crate::{
    repository::problem::Problems,
    yaml::{Data, Node, Place},
};

type Rule = fn(&AuthenticatorConfig, &mut Problems);

pub(crate) const RULES: &[Rule] = &[
    no_users_beside_organizations,
    no_admins_without_password,
    not_open_to_all,
    health_check_user_is_blocked,
];

/// The user that the health check starts servers for.
const HEALTH_CHECK_USER: &str = "deployment-service-check";

/// Settings of JupyterHub by class and name.
pub(crate) struct AuthenticatorConfig<'a> {
    config: &'a Node,
    hub: &'a str,
    /// The class of its authenticator, without module and `Authenticator`: `github`, `dummy`, `cilogon`.
    class: String,
    /// The class as `hub.config` may have settings for it.
    class_names: Vec<&'a str>,
    /// Where people set it, if they did.
    class_at: Option<Place>,
}

/// The setting that says how people log in.
const CLASS: &[&str] = &["JupyterHub", "authenticator_class"];

/// `hub.config`, wherever among the charts that people build on JupyterHub's.
fn hub_config(values: &Node) -> Option<&Node> {
    let charts: [&[&str]; 4] = [
        &[],
        &["jupyterhub"],
        &["basehub", "jupyterhub"],
        &["binderhub", "jupyterhub"],
    ];
    let configs = charts
        .iter()
        .filter_map(|path| values.get(path)?.get(&["hub", "config"]));
    configs
        .into_iter()
        .find(|config| config.get(CLASS).is_some())
}

impl<'a> AuthenticatorConfig<'a> {
    /// None where the values say nothing of who gets in.
    pub(crate) fn find(
        values: &'a Node,
        hub: &'a str,
        is_set: impl Fn(&Place) -> bool,
    ) -> Option<AuthenticatorConfig<'a>> {
        let config = hub_config(values)?;
        let class = config.get(CLASS)?;
        let class_at = class.at.filter(is_set);
        let class = short(class.as_text()?);
        let mut class_names = Vec::new();
        for name in config.as_map()?.keys() {
            // Every authenticator is an `Authenticator`, and most are an `OAuthenticator`.
            if [class.as_str(), ""].contains(&short(name).as_str()) {
                class_names.push(&**name);
            }
        }
        Some(AuthenticatorConfig {
            config,
            hub,
            class,
            class_names,
            class_at,
        })
    }

    /// Whether there's somebody who can log in.
    pub(crate) fn has_login(&self) -> bool {
        self.class != "null"
    }

    /// What is set under this name for any of the authenticator's classes.
    fn settings(&self, name: &str) -> impl Iterator<Item = &'a Node> {
        self.class_names
            .iter()
            .filter_map(move |it| self.config.get(&[it, name]))
            .filter(|it| !is_empty(it))
    }

    fn names(&self, setting: &str, user: &str) -> bool {
        self.settings(setting).any(|it| {
            it.as_list()
                .unwrap_or_default()
                .iter()
                .any(|it| it.as_text() == Some(user))
        })
    }

    fn allows_all(&self) -> bool {
        self.settings("allow_all")
            .any(|it| matches!(it.data, Data::Bool(true)))
    }

    fn has_password(&self) -> bool {
        ["password", "user_password"]
            .into_iter()
            .any(|it| self.settings(it).next().is_some())
    }

    /// Whether anything but `allowed_users` lets people in.
    fn lets_others_in(&self) -> bool {
        let classes = self.class_names.iter();
        let mut settings = classes
            .filter_map(|it| self.config.get(&[it])?.as_map())
            .flatten();
        settings.any(|(name, value)| is_other_way_in(name) && !is_empty(value))
    }

    fn is_open(&self) -> bool {
        match self.class.as_str() {
            "null" => false,
            "tmp" => true,
            "dummy" => {
                !self.has_password()
                    && (self.allows_all() || self.settings("allowed_users").next().is_none())
            }
            "sharedpassword" | "pam" | "ldap" => false,
            _ => self.allows_all(),
        }
    }
}

/// `github` for `GitHubOAuthenticator`, `oauthenticator.github.LocalGitHubOAuthenticator` and the entry point `github`.
fn short(class: &str) -> String {
    let name = class
        .rsplit(['.', ':'])
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
        .replace(['-', '_'], "");
    let name = name
        .strip_suffix("authenticator")
        .map_or(&*name, |it| it.strip_suffix('o').unwrap_or(it));
    let name = name.strip_suffix("oauth").unwrap_or(name);
    name.strip_prefix("local").unwrap_or(name).to_owned()
}

fn is_other_way_in(setting: &str) -> bool {
    let by_group = setting.starts_with("allowed_") && setting != "allowed_users";
    by_group || ["allow_all", "allow_existing_users"].contains(&setting)
}

fn is_empty(node: &Node) -> bool {
    match &node.data {
        Data::Null | Data::Bool(false) => true,
        Data::Text(text) => text.is_empty(),
        Data::List(items) => items.is_empty(),
        Data::Map(map) => map.is_empty(),
        _ => false,
    }
}

/// With OAuthenticator either of them lets somebody in; who names users as well means to keep others out.
fn no_users_beside_organizations(config: &AuthenticatorConfig, problems: &mut Problems) {
    if config.class != "github" || config.settings("allowed_organizations").next().is_none() {
        return;
    }
    if let Some(users) = config.settings("allowed_users").next() {
        problems.problem(
            "github-allowed-users",
            users.at,
            format!("hub `{}` has both `allowed_users` and `allowed_organizations`, and either lets people in: name one", config.hub),
        );
    }
}

fn no_admins_without_password(config: &AuthenticatorConfig, problems: &mut Problems) {
    if config.class == "dummy"
        && !config.has_password()
        && let Some(admins) = config.settings("admin_users").next()
    {
        problems.problem(
            "dummy-password",
            admins.at,
            format!("anybody can be an admin of hub `{}`: its dummy authenticator has `admin_users` and no `password`", config.hub),
        );
    }
}

fn not_open_to_all(config: &AuthenticatorConfig, problems: &mut Problems) {
    if config.is_open() {
        problems.warning(
            "open-hub",
            config.class_at,
            format!("hub `{}` lets everybody in", config.hub),
        );
    }
}

fn health_check_user_is_blocked(config: &AuthenticatorConfig, problems: &mut Problems) {
    if !config.has_login() || config.names("blocked_users", HEALTH_CHECK_USER) {
        return;
    }
    let named = ["allowed_users", "admin_users"];
    let is_named = named.iter().any(|it| config.names(it, HEALTH_CHECK_USER));
    let only_by_name =
        config.settings("allowed_users").next().is_some() && !config.lets_others_in();
    if is_named || !only_by_name {
        let message = format!(
            "somebody could log in to hub `{}` as `{HEALTH_CHECK_USER}`, the health check's user: \
             name it in `Authenticator.blocked_users`",
            config.hub
        );
        problems.warning("health-check-user", config.class_at, message);
    }
}
