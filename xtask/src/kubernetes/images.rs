//! Building the images of hubs that come from folders of the repository.

pub(crate) mod builds;
mod engine;
mod range;
pub(crate) mod to_build;
