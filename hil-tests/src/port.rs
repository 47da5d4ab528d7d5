//! Free TCP ports for daemons that cannot choose one themselves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// A port of 127.0.0.1 that nobody holds now.
///
/// It lies below the range the kernel takes for outgoing connections, so no client of another test gets it between
/// now and the daemon's own bind.
pub fn free() -> Result<u16> {
    for _ in 0..200 {
        let port = 20_000 + u16::try_from(crate::random::below(12_000))?;
        if TcpListener::bind(loopback(port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1")
}

/// 127.0.0.1 with a port.
pub const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
