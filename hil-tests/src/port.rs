//! Free TCP ports for daemons that cannot choose one themselves.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Result, bail};

/// Handed out before: a port is free until its daemon binds it, so it must not be given to a second one meanwhile.
static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A port of 127.0.0.1 that nobody holds now.
///
/// It lies below the range the kernel takes for outgoing connections, so no client of another test gets it between
/// now and the daemon's own bind.
pub fn free() -> Result<u16> {
    for _ in 0..200 {
        let port = 20_000 + u16::try_from(crate::random::below(12_000))?;
        let fresh = GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        if fresh && TcpListener::bind(loopback(port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1")
}

/// 127.0.0.1 with a port.
pub const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
