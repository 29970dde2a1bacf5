//! The steps of our GitHub workflows that use GitHub's API.

mod comment_plan;
mod filter_jobs;
mod notify;

use std::process::ExitCode;

use anyhow::Result;

/// Run a step of this repository's GitHub workflows
#[derive(clap::Subcommand)]
pub enum Github {
    /// Post the plan in `PLAN_FOLDER`, of a pull request's workflow run (`RUN_ID`), as its one comment, or update that comment
    CommentPlan,
    /// Set the output `jobs` to the jobs in `JOBS` of clusters whose job for support and staging succeeded
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
