//! A live cluster: how to log in, its API, and the releases in it.

pub(crate) mod after;
pub(crate) mod api;
pub(crate) mod certificates;
pub(crate) mod commits;
pub(crate) mod credentials;
pub(crate) mod diff;
pub(crate) mod healing;
pub(crate) mod helm;
pub(crate) mod history;
pub(crate) mod lease;
pub(crate) mod losses;
pub(crate) mod manifests;
pub(crate) mod migrations;
pub(crate) mod objects;
pub(crate) mod ownership;
pub(crate) mod record;
pub(crate) mod rehearsal;
pub(crate) mod release;
pub(crate) mod resources;
pub(crate) mod rollback;
pub(crate) mod rollout;
pub(crate) mod servers;
pub(crate) mod session;
pub(crate) mod volumes;
pub(crate) mod way_back;
