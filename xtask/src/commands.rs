//! The commands, each in a file or folder of its own. None of them uses another one.

pub mod by_hand;
pub mod ci;
pub mod completion;
pub mod config;
pub mod decrypt_age;
pub mod deploy;
pub mod exec;
pub mod generate;
pub mod github;
pub mod image;
pub mod local;
pub mod retire;
pub mod rollback;
pub mod run_hub_health_check;
pub mod setup;
pub mod status;
pub mod use_cluster_credentials;
pub mod validate;
