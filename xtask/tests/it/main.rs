//! Tests of the program as people and workflows use it: a command line in, text, files and clusters out.
//! They need what `cargo xtask setup` provides, and no network.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test starts programs as a person does"
)]

mod a_real_node;
mod browser;
mod by_hand;
mod cases;
mod chart_files;
mod charts;
mod claims;
mod completion;
mod config;
mod config_set;
mod deploy;
mod deploy_images;
mod deployer_image;
mod diff;
mod differential;
mod encrypted;
mod exec;
mod expressions;
mod faults;
mod filter_jobs;
mod first_hour;
mod fleet;
mod freeze;
mod from_hubploy;
mod generate;
mod git_crypt;
mod gitlab;
mod health;
mod homes;
mod hooks;
mod hub;
mod image_build;
mod image_bump;
mod image_jobs;
mod images;
mod inherits;
mod installed;
mod jsonnet;
mod jsonnet_attacks;
mod jsonnet_table;
mod jupyterhub;
mod kubernetes;
mod last_deployed;
mod leaks;
mod local;
mod login;
mod lost_lease;
mod manifests;
mod migrations;
mod mutants;
mod names;
mod older;
mod overrides;
mod ranges;
mod reading;
mod recipients;
mod records;
mod registry;
mod registry_logins;
mod repo;
mod report;
mod requirements;
mod rollout;
mod secrets;
mod setup;
mod shells;
mod shown;
mod sops_forms;
mod staged;
mod status;
mod status_of_a_hub;
mod stop;
mod support;
mod terminal;
mod tidy;
mod unchanged;
mod upstream;
mod validate;
mod workflows;
