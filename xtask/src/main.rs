//! The deployer of this repository's JupyterHubs: run it as `cargo xtask COMMAND`, or as the program `xtask` in any
//! repository that has `config/clusters/`.

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::{Error, Result};
use clap::{CommandFactory, Parser, error::ErrorKind};
use xshell::Shell;
use xtask::{
    commands::{
        by_hand, ci,
        completion::{self, Complete, Completion},
        config, decrypt_age, deploy, exec,
        generate::{self, helm_upgrade_jobs},
        github, image, local, retire, rollback, run_hub_health_check, secrets, setup, status,
        use_cluster_credentials, validate,
    },
    machine::{paths, process, programs, terminal, tree::Tree},
};

/// Deploy JupyterHubs to Kubernetes clusters
///
/// Each cluster is a folder in config/clusters/. Its cluster.yaml lists the hubs of the cluster and their Helm values files.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version = concat!(env!("CARGO_PKG_VERSION"), env!("XTASK_COMMIT")),
    arg_required_else_help = true
)]
struct Cli {
    /// Root of the repository [default: XTASK_ROOT, or the nearest folder at or above the current one that has
    /// config/clusters/]
    #[arg(long, global = true, display_order = 100, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Show each program that is run
    #[arg(long, global = true, display_order = 100)]
    verbose: bool,
    #[command(flatten)]
    completion: Completion,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    Setup(setup::Setup),
    #[command(subcommand)]
    Local(local::Local),
    Deploy(deploy::options::Deploy),
    DeploySupport(deploy::support::DeploySupport),
    Status(status::Status),
    Rollback(rollback::Rollback),
    Retire(retire::Retire),
    Validate(validate::Validate),
    RunHubHealthCheck(run_hub_health_check::RunHubHealthCheck),

    UseClusterCredentials(use_cluster_credentials::UseClusterCredentials),
    DecryptAge(decrypt_age::DecryptAge),
    #[command(subcommand)]
    Exec(exec::Exec),
    #[command(subcommand)]
    Config(config::Config),
    #[command(subcommand)]
    Secrets(secrets::Secrets),
    #[command(subcommand)]
    Generate(generate::Generate),
    #[command(subcommand)]
    Image(image::Image),
    #[command(hide = true)]
    Build(image::HubploysBuild),
    #[command(subcommand, hide = true)]
    Github(github::Github),
    #[command(hide = true)]
    GenerateHelmUpgradeJobs(helm_upgrade_jobs::GenerateHelmUpgradeJobs),
    /// Check the deployer's own code: formatting, lints, docs and all tests
    Ci,
    #[command(hide = true)]
    ByHand(by_hand::ByHand),
    #[command(hide = true)]
    Complete(Complete),
}

fn main() -> ExitCode {
    process::prevent_core_dumps();
    // A signal must not end us before decrypted files are removed. On Linux they are in memory, and end with us.
    #[cfg(not(target_os = "linux"))]
    process::on_signals();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) if err.use_stderr() => {
            terminal::say(format_args!("{}", err.to_string().trim_end()));
            return ExitCode::from(2);
        }
        // Help, or the version.
        Err(err) => err.exit(),
    };
    match run(&cli) {
        Ok(code) => code,
        Err(err) if is_broken_pipe(&err) => ExitCode::SUCCESS,
        Err(err) => {
            let text = terminal::with_hints_apart(&format!("{err:#}"));
            terminal::say(format_args!("error: {text}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether the program that reads our output has seen enough and ended, as in `xtask status | head -1`.
fn is_broken_pipe(err: &Error) -> bool {
    let cause: Option<&io::Error> = err.downcast_ref();
    cause.is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe)
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let sh = &Shell::new()?;
    programs::leave_relative_path(sh)?;
    if let Some(done) = completion::completion(&cli.completion)? {
        return Ok(done);
    }
    let Some(command) = &cli.command else {
        no_command();
    };
    if let Command::Complete(args) = command {
        return completion::complete(Cli::command(), args);
    }
    if cli.verbose {
        sh.set_var(process::VERBOSE, "1");
    }
    let root = &paths::root(cli.root.as_deref())?;
    sh.change_dir(root);
    let tree = &Tree::work_tree(root)?;
    run_in(sh, tree, command)
}

/// Runs a command in a repository.
fn run_in(sh: &Shell, tree: &Tree, command: &Command) -> Result<ExitCode> {
    match command {
        Command::Setup(args) => setup::setup(sh, args),
        Command::Local(command) => local::local(sh, tree, command),
        Command::Deploy(args) => deploy::deploy(sh, tree, args),
        Command::DeploySupport(args) => deploy::support::deploy_support(sh, tree, args),
        Command::Status(args) => status::status(sh, tree, args),
        Command::Config(command) => config::config(sh, tree, command),
        Command::Secrets(command) => secrets::secrets(sh, tree, command),
        Command::Generate(command) => generate::generate(sh, tree, command),
        Command::Image(command) => image::image(sh, tree, command),
        Command::Build(args) => image::hubploys_build(tree, args),
        Command::Github(command) => github::github(command),
        Command::GenerateHelmUpgradeJobs(args) => {
            helm_upgrade_jobs::generate_helm_upgrade_jobs(sh, tree, args)
        }
        Command::Rollback(args) => rollback::rollback(sh, tree, args),
        Command::Retire(args) => retire::retire(sh, tree, args),
        Command::Validate(args) => validate::validate(sh, tree, args),
        Command::Exec(command) => exec::exec(sh, tree, command),
        Command::DecryptAge(args) => decrypt_age::decrypt_age(sh, tree, args),
        Command::RunHubHealthCheck(args) => {
            run_hub_health_check::run_hub_health_check(sh, tree, args)
        }
        Command::UseClusterCredentials(args) => {
            use_cluster_credentials::use_cluster_credentials(sh, tree, args)
        }
        Command::ByHand(args) => by_hand::by_hand(sh, tree, args),
        Command::Ci => ci::ci(sh),
        Command::Complete(_) => unreachable!("it needs no repository"),
    }
}

fn no_command() -> ! {
    Cli::command()
        .error(ErrorKind::MissingSubcommand, "a command is required")
        .exit()
}
