//! Which part of the releases a branch deploys, where groups promote by pull requests between branches.

/// What the jobs are made of.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Part {
    Everything,
    SupportAndStaging,
    Production,
}

impl Part {
    /// What a push to a branch deploys.
    pub(crate) fn of_branch(branch: Option<&str>) -> Part {
        match branch {
            Some("staging") => Part::SupportAndStaging,
            Some("production") => Part::Production,
            _ => Part::Everything,
        }
    }

    /// Whether it has support charts and staging hubs, or else production hubs.
    pub(crate) fn has(self, is_first: bool) -> bool {
        match self {
            Part::Everything => true,
            Part::SupportAndStaging => is_first,
            Part::Production => !is_first,
        }
    }
}
