//! What the repository says of clusters and hubs. Nothing here needs credentials or a network.

pub(crate) mod authenticator;
pub(crate) mod cluster;
pub(crate) mod cluster_yaml;
mod coordinates;
mod domains;
pub(crate) mod encrypted;
mod encrypted_values;
pub(crate) mod fleet;
pub(crate) mod freezes;
mod gates;
pub(crate) mod hub_traits;
mod images;
mod ingress;
pub(crate) mod jsonnet;
pub(crate) mod keys;
pub(crate) mod kubernetes_version;
mod pauses;
mod plain_secrets;
pub(crate) mod problem;
mod quotes;
pub(crate) mod recipients;
pub(crate) mod release_config;
pub(crate) mod release_values;
mod retired_keys;
pub(crate) mod rules;
pub(crate) mod values_file;
mod values_rules;
