//! Root where there is none: Postfix gives each of its daemons another user, which only root may do. An ordinary user gets
//! a user namespace (`unshare`), in which he is root over a range of ids of his own and over nothing else.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::geteuid;

/// Whether this is the machine's root, and not a namespace's.
pub fn is_real() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    geteuid().is_root() && map.split_whitespace().take(2).eq(["0", "0"])
}

/// Returns at once as root of any kind; otherwise starts this command anew, with its arguments, as root of a namespace.
///
/// # Errors
/// If the machine does not let users make namespaces.
pub fn ensure() -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let error = Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "--"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("cannot make a user namespace; run this as root instead")
}
