//! The steps of our GitHub workflows that use GitHub's API.

mod comment_plan;
mod filter_jobs;
mod notify;

use std::process::ExitCode;

use anyhow::Result;

/// Run a step of this repository's GitHub workflows
#[derive(clap::Subcommand)]
pub enum Github {
    /// Post the plan of a pull request as a comment, or update that comment
    ///
    /// The plan is in the folder `PLAN_FOLDER`, and comes from the pull request's workflow run `RUN_ID`. It is taken for text:
    /// nobody is mentioned in it, and nothing is linked.
    CommentPlan,
    /// Keep only the jobs whose needs went well in this run
    ///
    /// Sets the output `jobs` to what is left of the list in `JOBS`, and `held` to the releases of the others and those in
    /// `HELD`. Asks for `PATIENCE` seconds, 300 by default, if GitHub does not know yet how a needed job ended.
    FilterJobs,
    /// Tell the webhook in `WEBHOOK_URL` which jobs of this run failed
    Notify,
}

/// Runs the step.
pub fn github(command: &Github) -> Result<ExitCode> {
    match command {
        Github::CommentPlan => comment_plan::comment_plan(),
        Github::FilterJobs => filter_jobs::filter_jobs(),
        Github::Notify => notify::notify(),
    }?;
    Ok(ExitCode::SUCCESS)
}
