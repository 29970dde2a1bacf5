//! Where the image of a name is asked for.

use crate::{
    services::{http, registry::reference::Reference},
    settings::Settings,
};

/// The registry that answers for the names of docker.io.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// A registry, as it is asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host {
    /// As names of images have it: `docker.io`, `quay.io`, `127.0.0.1:5000`.
    pub(crate) name: String,
    /// `https://` and the server.
    pub(crate) url: String,
}

/// Where a registry has the images of a name.
pub(crate) struct Repository {
    pub(crate) host: Host,
    /// The name without the registry.
    pub(crate) path: String,
}

impl Repository {
    /// The repository of an image, or that of its mirror.
    pub(crate) fn of(settings: &Settings, image: &Reference) -> Repository {
        let address = settings.mirrored_image(&image.full_name());
        let (scheme, rest) = match address.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, address.as_str()),
        };
        let (server, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A mirror may come with a user and password.
        let name = server.rsplit('@').next().unwrap_or(server);
        let server = if name == "docker.io" {
            DOCKER_HUB
        } else {
            server
        };
        let usual = if http::is_loopback(server) {
            "http"
        } else {
            "https"
        };
        let scheme = scheme.unwrap_or(usual);
        Repository {
            host: Host {
                name: name.to_owned(),
                url: format!("{scheme}://{server}"),
            },
            path: path.to_owned(),
        }
    }
}
