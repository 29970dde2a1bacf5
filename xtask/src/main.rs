//! The deployer of this repository's JupyterHubs: `cargo xtask COMMAND`, or the program alone in any repository that
//! has `config/clusters/`.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::Parser;
use xshell::Shell;

/// A line for the person at the terminal, on stderr. Work goes on when nobody reads it.
macro_rules! say {
    ($($arg:tt)*) => {
        crate::progress::say(format_args!($($arg)*))
    };
}

mod api;
mod charts;
mod ci;
mod cluster;
mod config;
mod credentials;
mod decrypt_age;

mod deploy;
mod diff;
mod exec;
mod generate;
mod github;
mod gitlab;
mod health;

mod history;
mod http;

mod lease;
mod local;
mod paths;
mod process;
mod progress;
mod record;
mod release;
mod retire;
mod rollback;
mod rollout;
mod secrets;
mod session;
mod settings;
mod setup;
mod shell;

mod status;
mod use_credentials;

mod validate;
mod values;
mod yaml;

/// Deploys JupyterHubs to Kubernetes clusters
///
/// A cluster is a folder in config/clusters/ with a cluster.yaml, which lists its hubs and their values files.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Cli {
    /// The repository, if not the nearest folder at or above the current one that has config/clusters/
    #[arg(
        long,
        global = true,
        display_order = 100,
        env = "XTASK_ROOT",
        value_name = "DIR"
    )]
    root: Option<PathBuf>,
    /// Show each program that is run
    #[arg(long, global = true, display_order = 100)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Setup(setup::Setup),
    #[command(subcommand)]
    Local(local::Local),
    Deploy(deploy::Deploy),
    DeploySupport(deploy::support::DeploySupport),
    Status(status::Status),
    Rollback(rollback::Rollback),
    Retire(retire::Retire),
    Validate(validate::Validate),
    RunHubHealthCheck(health::RunHubHealthCheck),

    UseClusterCredentials(use_credentials::UseClusterCredentials),
    DecryptAge(decrypt_age::DecryptAge),
    #[command(subcommand)]
    Exec(exec::Exec),
    #[command(subcommand)]
    Config(config::Config),
    #[command(subcommand)]
    Generate(generate::Generate),
    #[command(subcommand, hide = true)]
    Github(github::Github),
    #[command(hide = true)]
    GenerateHelmUpgradeJobs(generate::GenerateHelmUpgradeJobs),
    /// Check this repository's own code as its CI does: formatting, lints, docs and all tests
    Ci,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(err)
            if err
                .downcast_ref()
                .is_some_and(|it: &io::Error| it.kind() == io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(err) => {
            say!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let sh = &Shell::new()?;
    if cli.verbose {
        sh.set_var(process::VERBOSE, "1");
    }
    let root = &paths::root(cli.root.as_deref())?;
    sh.change_dir(root);
    match &cli.command {
        Command::Setup(args) => print(&setup::setup(sh, args)?),
        Command::Local(command) => print(&local::local(sh, root, command)?),
        Command::Deploy(args) => return deploy::deploy(sh, root, args),
        Command::DeploySupport(args) => return deploy::support::deploy_support(sh, root, args),
        Command::Status(args) => status::status(sh, root, args),
        Command::Config(command) => print(&config::config(root, command)?),
        Command::Generate(command) => generate::generate(sh, root, command),
        Command::Github(command) => github::github(command),
        Command::GenerateHelmUpgradeJobs(args) => generate::generate_helm_upgrade_jobs(root, args),
        Command::Rollback(args) => rollback::rollback(sh, root, args),
        Command::Retire(args) => retire::retire(sh, root, args),
        Command::Validate(args) => return validate::validate(sh, root, args),
        Command::Exec(command) => return exec::exec(sh, root, command),
        Command::DecryptAge(args) => print(&decrypt_age::decrypt_age(sh, root, args)?),
        Command::RunHubHealthCheck(args) => return health::run_hub_health_check(sh, root, args),
        Command::UseClusterCredentials(args) => {
            return use_credentials::use_credentials(sh, root, args);
        }
        Command::Ci => ci::ci(sh),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Data, on stdout. All else goes to stderr.
fn print(data: &(impl AsRef<[u8]> + ?Sized)) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data.as_ref())?;
    Ok(stdout.flush()?)
}
