//! Who gets into a hub, by its merged values: `hub.config` of JupyterHub's chart, wherever in the values that is.
//!
//! What a rule says doesn't depend on which charts are in the cache: only values count that a file of the repository
//! sets. What a program sets isn't known, and so no rule goes by a setting that a program may change.

pub(crate) mod config;
mod everybody;
pub(crate) mod own;
pub(crate) mod programs;

use crate::repository::{
    authenticator::{config::AuthenticatorConfig, everybody::everybody},
    problem::Problems,
};

type Rule = fn(&AuthenticatorConfig, &mut Problems);

pub(crate) const RULES: &[Rule] = &[
    users_of_organizations,
    no_admins_without_password,
    not_open_to_all,
    health_check_user_is_blocked,
];

/// The user that the health check starts servers for.
const HEALTH_CHECK_USER: &str = "deployment-service-check";

/// Since oauthenticator 16 either of them lets somebody in, and before that only both.
fn users_of_organizations(config: &AuthenticatorConfig, problems: &mut Problems) {
    let is_old = config.class == "github" && config.is_old();
    if let Some(users) = config.setting("allowed_users")
        && is_old
        && config.setting("allowed_organizations").is_some()
    {
        problems.warning(
            "github-allowed-users",
            users.at,
            format!(
                "hub `{}` lets in only who is in both `allowed_users` and `allowed_organizations`: either is enough from \
                 version 3 of JupyterHub's chart on, which has oauthenticator 16",
                config.hub
            ),
        );
    }
}

fn no_admins_without_password(config: &AuthenticatorConfig, problems: &mut Problems) {
    if config.class == "dummy"
        && !config.has_password()
        && let Some(admins) = config.setting("admin_users")
    {
        problems.problem(
            "dummy-password",
            admins.at,
            format!(
                "anybody can be an admin of hub `{}`: its dummy authenticator{} has `admin_users` and no `password`",
                config.hub,
                config.whose_default()
            ),
        );
    }
}

fn not_open_to_all(config: &AuthenticatorConfig, problems: &mut Problems) {
    if let Some(open) = everybody(config) {
        let message = format!("hub `{}` lets everybody in{}", config.hub, open.why);
        problems.warning("open-hub", open.at.or(config.class_at), message);
    }
}

/// Classes whose users choose their names themselves.
const OWN_NAMES: &[&str] = &[
    "bitbucket",
    "dummy",
    "firstuse",
    "github",
    "gitlab",
    "mediawiki",
    "native",
    "sharedpassword",
];

fn health_check_user_is_blocked(config: &AuthenticatorConfig, problems: &mut Problems) {
    let is_blocked = config.names("blocked_users", HEALTH_CHECK_USER)
        || config.programs.may_set("blocked_users");
    if is_blocked || !OWN_NAMES.contains(&&*config.class) {
        return;
    }
    let named = ["allowed_users", "admin_users"];
    let is_named = named.iter().any(|it| config.names(it, HEALTH_CHECK_USER));
    if is_named || config.lets_others_in() {
        let message = format!(
            "somebody could log in to hub `{}` as `{HEALTH_CHECK_USER}`, the health check's user: \
             name it in `Authenticator.blocked_users`",
            config.hub
        );
        problems.warning("health-check-user", config.class_at, message);
    }
}
