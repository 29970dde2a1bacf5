//! Makes what is derived from other files: jobs of a CI workflow, and a table in the deployer's sources.

mod changed;
pub mod from_hubploy;
mod health_check_jobs;
pub mod helm_upgrade_jobs;
mod jobs;
mod kubernetes_kinds;

use std::process::ExitCode;

use anyhow::Result;
use xshell::Shell;

use crate::machine::tree::Tree;

/// Turn a change into CI jobs
#[derive(clap::Subcommand)]
#[allow(missing_docs, reason = "clap takes the help of what each one holds")]
pub enum Generate {
    HelmUpgradeJobs(helm_upgrade_jobs::HelmUpgradeJobs),
    HealthCheckJobs(health_check_jobs::HealthCheckJobs),
    FromHubploy(from_hubploy::FromHubploy),
    #[command(hide = true)]
    KubernetesKinds(kubernetes_kinds::KubernetesKinds),
}

/// Prints the jobs that a change makes.
pub fn generate(sh: &Shell, tree: &Tree, command: &Generate) -> Result<ExitCode> {
    match command {
        Generate::HelmUpgradeJobs(args) => helm_upgrade_jobs::helm_upgrade_jobs(sh, tree, args),
        Generate::HealthCheckJobs(args) => health_check_jobs::health_check_jobs(sh, tree, args),
        Generate::FromHubploy(args) => from_hubploy::from_hubploy(tree, args),
        Generate::KubernetesKinds(_) => {
            kubernetes_kinds::kubernetes_kinds(sh, tree)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
