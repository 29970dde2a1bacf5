//! Logging in to the registries of own images. What docker, podman and buildah read of it is in a private folder: nothing of
//! the person's own logins changes.

use anyhow::{Result, bail};

use crate::{
    machine::tree::Tree,
    repository::cluster::{Cluster, OwnImage},
    secrets::Decrypter,
    services::registry::Logins,
};

/// The users and passwords for the registries of these images of a cluster: by the `registry` in cluster.yaml, or else those of
/// the person's own docker or podman.
pub(crate) fn logins<'a>(
    _decrypter: &Decrypter,
    _tree: &Tree,
    _cluster: &Cluster,
    _images: impl IntoIterator<Item = &'a OwnImage>,
) -> Result<Logins> {
    bail!("not built yet")
}
