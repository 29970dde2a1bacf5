//! Services that answer over HTTP.

pub(crate) mod deployments;
pub(crate) mod dns;
pub(crate) mod github;
pub(crate) mod gitlab;
pub(crate) mod http;
pub(crate) mod registry;
pub(crate) mod workflow_runs;
