//! What our workflows ask GitHub itself.

mod comment_plan;
mod filter_jobs;
mod notify;

use std::process::ExitCode;

use anyhow::Result;

/// What our workflows ask for
#[derive(clap::Subcommand)]
pub enum Github {
    /// Post the plan in `PLAN_FOLDER` of a pull request's workflow run (`RUN_ID`) as its one comment, or update that
    CommentPlan,
    /// Keep of the jobs in `JOBS` those of clusters whose job for support and staging went well: the output `jobs`
    FilterJobs,
    /// Tell the webhook in `WEBHOOK_URL` which jobs of this run failed
    Notify,
}

/// Does what a step of our workflows asks for.
pub fn github(command: &Github) -> Result<ExitCode> {
    match command {
        Github::CommentPlan => comment_plan::comment_plan(),
        Github::FilterJobs => filter_jobs::filter_jobs(),
        Github::Notify => notify::notify(),
    }?;
    Ok(ExitCode::SUCCESS)
}
