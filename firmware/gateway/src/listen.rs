//! Accepting connections: bound early, counted against limits, backed off when the system runs out.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use settings::Listener;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{error, warn};

use crate::admit::Client;

/// Connections waiting in the kernel while we are busy.
const BACKLOG: u32 = 1024;
/// First pause after a failed accept, and the longest (descriptors run out, memory runs out).
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A bound listener.
pub struct Bound {
    /// What the settings said, with the real address where the port was 0.
    pub listener: Listener,
    socket: TcpListener,
}

/// Binds one listener.
///
/// # Errors
/// The address is taken, or the port is privileged; the message names it.
pub fn bind(listener: Listener) -> io::Result<Bound> {
    let bound = (|| {
        let socket = if listener.address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        // A restart must not wait for the last connections' TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(listener.address)?;
        socket.listen(BACKLOG)
    })();
    let socket = bound.map_err(|error: io::Error| {
        let mend = match error.kind() {
            io::ErrorKind::AddrInUse => ": another program listens there; stop it or change [listen]",
            io::ErrorKind::PermissionDenied => ": ports below 1024 need root or CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
            _ => "",
        };
        let (what, where_) = (listener.protocol.name(), listener.address);
        io::Error::new(error.kind(), format!("cannot listen for {what} on {where_}: {error}{mend}"))
    })?;
    let address = socket.local_addr()?;
    Ok(Bound { listener: Listener { address, ..listener }, socket })
}

/// Takes over a listening socket that whoever started us has opened.
///
/// # Errors
/// The runtime does not take it.
pub fn adopt(listener: Listener, socket: std::net::TcpListener) -> io::Result<Bound> {
    socket.set_nonblocking(true)?;
    Ok(Bound { listener, socket: TcpListener::from_std(socket)? })
}

/// How many connections there may be, in all and from one network.
pub struct Permits {
    all: Arc<Semaphore>,
    size: u32,
    networks: Mutex<HashMap<IpAddr, u32>>,
}

/// The right to hold one connection; dropping it gives it back.
pub struct Permit {
    permits: Arc<Permits>,
    _one: OwnedSemaphorePermit,
    network: Mutex<Option<IpAddr>>,
    limit: u32,
    exempt: bool,
}

impl Permits {
    /// At most `size` connections at once.
    pub fn new(size: u32) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(usize::MAX))),
            size,
            networks: Mutex::new(HashMap::new()),
        })
    }

    /// The limit it was made with.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Connections open now.
    pub fn held(&self) -> u32 {
        self.size.saturating_sub(u32::try_from(self.all.available_permits()).unwrap_or(u32::MAX))
    }

    /// A permit, or `None` when all are taken. `limit` is what one network may hold, unless it is `exempt`.
    pub fn take(self: &Arc<Self>, limit: u32, exempt: bool) -> Option<Permit> {
        let one = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Permit { permits: Arc::clone(self), _one: one, network: Mutex::new(None), limit, exempt })
    }
}

/// What counts as one network: an IPv4 address, an IPv6 /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Permit {
    /// Counts the connection to its client's network, once that is known (a load balancer's header may come first).
    /// `false`: the network has its fill.
    pub fn network(&self, client: &Client) -> bool {
        if self.exempt {
            return true;
        }
        let key = network(client.address.ip());
        let mut networks = self.permits.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let count = networks.entry(key).or_insert(0);
        if *count >= self.limit {
            return false;
        }
        *count += 1;
        *self.network.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(key) = self.network.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let mut networks = self.permits.networks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = networks.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                networks.remove(&key);
            }
        }
    }
}

impl Bound {
    /// Accepts until `stop` turns true, handing each connection to `serve`.
    pub async fn run(
        self,
        mut stop: watch::Receiver<bool>,
        mut serve: impl FnMut(TcpStream, SocketAddr, Listener),
    ) {
        let mut pause = PAUSE.0;
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((socket, remote)) => {
                    pause = PAUSE.0;
                    serve(socket, remote, self.listener);
                    // What was accepted gets its turn first: under a flood it is what gives permits back.
                    tokio::task::yield_now().await;
                }
                Err(error) if is_one_connections(&error) => {}
                Err(error) => {
                    warn!(%error, "accept failed; waiting");
                    if pause >= PAUSE.1 {
                        error!(%error, "accept keeps failing: raise the descriptor limit or lower [limits] connections");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }
}

/// Whether a failed accept says something of one connection only.
fn is_one_connections(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::session::Protocol;

    fn client(address: &str) -> Client {
        let address = SocketAddr::new(address.parse().unwrap(), 1);
        Client::new("id".into(), Protocol::Imap, address, address)
    }

    #[test]
    fn one_network_cannot_take_every_permit() {
        let permits = Permits::new(10);
        let (a, b, c) = (
            permits.take(2, false).unwrap(),
            permits.take(2, false).unwrap(),
            permits.take(2, false).unwrap(),
        );
        assert!(a.network(&client("2001:db8::1")));
        assert!(b.network(&client("2001:db8::2")), "one /64 counts as one");
        assert!(!c.network(&client("2001:db8::3")));
        assert!(c.network(&client("2001:db8:0:1::3")));
        drop(a);
        assert!(permits.take(2, false).unwrap().network(&client("2001:db8::9")));
    }

    #[test]
    fn all_taken_is_none() {
        let permits = Permits::new(1);
        let one = permits.take(1, false);
        assert!(permits.take(1, false).is_none());
        drop(one);
        assert!(permits.take(1, false).is_some());
    }
}
