//! Whether somebody wants this process to stop.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

/// Set by the first signal in a command that ends in order.
static IS_STOPPED: AtomicBool = AtomicBool::new(false);

/// Has this process stop. Returns whether it was to do so already.
pub(crate) fn stop() -> bool {
    IS_STOPPED.swap(true, Ordering::SeqCst)
}

/// An error once somebody wants us to stop.
pub(crate) fn check() -> Result<()> {
    if IS_STOPPED.load(Ordering::SeqCst) {
        bail!("stopped");
    }
    Ok(())
}
