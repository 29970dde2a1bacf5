//! Settings of a hub's authenticator, and the programs that may change them.

use crate::{
    charts::version,
    repository::authenticator::{
        own::{JupyterHubChart, hub_values},
        programs::Programs,
    },
    yaml::{Data, Map, Node, Place},
};

/// The class in the values of JupyterHub's chart, since its version 1.
const DEFAULT_CLASS: &str = "dummy";

/// The packages that a class without another module may come from, and whose code is known here.
const PACKAGES: &[&str] = &[
    "dummyauthenticator",
    "firstuseauthenticator",
    "jupyterhub",
    "nativeauthenticator",
    "nullauthenticator",
    "oauthenticator",
    "tmpauthenticator",
];

/// Classes that let everybody in who logs in, unless some users are named. Others did so before JupyterHub 5.
const ALLOWING_ALL: &[&str] = &["dummy", "firstuse", "native"];

/// Settings of JupyterHub by class and name.
pub(crate) struct AuthenticatorConfig<'a> {
    /// The `hub` values of JupyterHub's chart.
    pub(crate) values: &'a Node,
    pub(crate) hub: &'a str,
    /// The class of its authenticator, without module and `Authenticator`: `github`, `dummy`, `cilogon`. One from
    /// elsewhere has its whole name.
    pub(crate) class: String,
    /// The classes in `hub.config` that have settings for it; the first one that has a setting decides.
    pub(crate) sections: Vec<&'a Node>,
    pub(crate) class_at: Option<Place>,
    /// Whether that is a default of JupyterHub's chart.
    pub(crate) is_default: bool,
    pub(crate) programs: Programs,
    /// The first number of the version of JupyterHub's chart, if the hub's image is the chart's.
    pub(crate) chart_version: Option<u64>,
}

/// Whether there's somebody who can log in to a hub of these values, as far as they say.
pub(crate) fn has_login(values: &Node) -> bool {
    let Some(hub) = values.as_map().and_then(hub_values) else {
        return true;
    };
    let class = hub.text(&["config", "JupyterHub", "authenticator_class"]);
    class.is_none_or(|it| short(it) != "null") || Programs::in_values(hub).set_class()
}

impl<'a> AuthenticatorConfig<'a> {
    /// None where nothing in the repository says how people log in to the hub, or where a program may.
    pub(crate) fn find(
        values: &'a Node,
        hub: &'a str,
        chart: Option<JupyterHubChart>,
        programs: Programs,
    ) -> Option<AuthenticatorConfig<'a>> {
        if programs.may_set_class() {
            return None;
        }
        let config = values.get(&["config"])?;
        let class = config.get(&["JupyterHub", "authenticator_class"]);
        let is_default = class.is_none();
        let class_at = match class {
            Some(class) => class.at,
            None => Some(chart.as_ref().filter(|it| it.has_own_class)?.at),
        };
        let class = match class {
            Some(class) => class_of(class.as_text()?),
            None => DEFAULT_CLASS.to_owned(),
        };
        Some(AuthenticatorConfig {
            values,
            hub,
            sections: sections(config.as_map()?, &class),
            class,
            class_at,
            is_default,
            programs,
            chart_version: chart
                .filter(|_| values.get(&["image"]).is_none())
                .and_then(|it| version::major_of_release(it.version)),
        })
    }

    /// What is set under this name, unless it is nothing.
    pub(crate) fn setting(&self, name: &str) -> Option<&'a Node> {
        let set = self.sections.iter().find_map(|it| it.get(&[name]));
        set.filter(|it| !it.is_falsy())
    }

    /// What values set under this name, if no program may change that.
    pub(crate) fn set_by_values(&self, name: &str) -> Option<&'a Node> {
        let set = self.setting(name);
        set.filter(|_| !self.programs.may_set(name))
    }

    /// The value of a variable in the hub's environment, or where it comes from.
    pub(crate) fn variable(&self, name: &str) -> Option<&'a Node> {
        let variables = self.values.get(&["extraEnv"])?;
        let mut listed = variables.as_list().into_iter().flatten();
        let listed = listed.find(|it| it.text(&["name"]) == Some(name));
        let variable = listed.or_else(|| variables.get(&[name]))?;
        Some(variable.get(&["value"]).unwrap_or(variable))
    }

    /// Whether this is set to false, and not only unset.
    pub(crate) fn is_off(&self, name: &str) -> bool {
        let set = self.sections.iter().find_map(|it| it.get(&[name]));
        set.is_some_and(|it| matches!(it.data, Data::Bool(false)))
    }

    pub(crate) fn names(&self, setting: &str, user: &str) -> bool {
        let users = self.setting(setting).and_then(Node::as_list);
        let mut users = users.into_iter().flatten();
        users.any(|it| it.as_text() == Some(user))
    }

    /// Says who chose the class where it is a default.
    pub(crate) fn whose_default(&self) -> &'static str {
        if self.is_default {
            " (nothing sets `JupyterHub.authenticator_class`, and this is what JupyterHub's chart has)"
        } else {
            ""
        }
    }

    pub(crate) fn has_password(&self) -> bool {
        self.setting("password").is_some() || self.programs.may_set("password")
    }

    /// The names of what lets people in beside `allowed_users` and `allow_all`.
    pub(crate) fn other_ways_in(&self) -> Vec<&'a str> {
        let sections = self.sections.iter().filter_map(|it| it.as_map());
        let mut names: Vec<_> = sections
            .flat_map(|it| it.keys())
            .map(|name| &**name)
            .filter(|name| is_other_way_in(name))
            .filter(|name| self.setting(name).is_some())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether anybody gets in who isn't named.
    pub(crate) fn lets_others_in(&self) -> bool {
        let ways = ["allow_all", "allow_existing_users"];
        let is_for_all = self.is_old() || ALLOWING_ALL.contains(&&*self.class);
        ways.iter().any(|it| self.setting(it).is_some())
            || !self.other_ways_in().is_empty()
            || is_for_all && self.setting("allowed_users").is_none()
    }

    /// Whether the hub has an oauthenticator before 16, which has no `allow_all`: it lets in everybody whom no setting
    /// keeps out.
    pub(crate) fn is_old(&self) -> bool {
        self.chart_version.is_some_and(|it| it < 3)
    }
}

fn is_other_way_in(setting: &str) -> bool {
    let by_group = setting.starts_with("allowed_") && setting != "allowed_users";
    by_group || setting.ends_with("whitelist")
}

/// The class that a value of `authenticator_class` stands for.
fn class_of(name: &str) -> String {
    let package = name.split(['.', ':']).next().unwrap_or_default();
    if package == name || PACKAGES.contains(&package) {
        short(name)
    } else {
        name.to_owned()
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
    match name.strip_prefix("local").unwrap_or(name) {
        "mw" => "mediawiki".to_owned(),
        name => name.to_owned(),
    }
}

/// The settings of a class and of those that it is made from, the nearest first.
fn sections<'a>(config: &'a Map, class: &str) -> Vec<&'a Node> {
    let own = config.iter().filter(|(name, _)| short(name) == class);
    let mut sections: Vec<_> = own.map(|(_, it)| it).collect();
    for base in ["OAuthenticator", "LocalAuthenticator", "Authenticator"] {
        sections.extend(config.get(base));
    }
    sections
}
