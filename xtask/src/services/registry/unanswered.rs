//! Why a registry does not say what it is asked.

use std::{
    error::Error,
    fmt::{self, Display, Formatter},
};

/// Why we don't know. The words are the same for all images of a registry that it is the reason for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unanswered {
    pub(crate) why: String,
    /// Whether a login might help, and we have none for this registry.
    pub(crate) wants_login: bool,
}

impl Unanswered {
    pub(crate) fn new(why: String) -> Unanswered {
        Unanswered {
            why,
            wants_login: false,
        }
    }
}

impl Display for Unanswered {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Error for Unanswered {}
