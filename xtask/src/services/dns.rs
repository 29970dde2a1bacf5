//! Names of hosts, as this machine looks them up.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// The addresses of a host. An error if it has none, or if nobody says so in this time: the system's own limit is
/// longer.
pub(crate) fn look_up(host: &str, limit: Duration) -> Result<BTreeSet<IpAddr>> {
    let (sender, found) = mpsc::channel();
    let port = (host.to_owned(), 443);
    thread::spawn(move || {
        let addresses: io::Result<BTreeSet<IpAddr>> = port
            .to_socket_addrs()
            .map(|found| found.map(|it| it.ip()).collect());
        let _ = sender.send(addresses);
    });
    let found = found.recv_timeout(limit);
    Ok(found.context("no answer in time")??)
}
