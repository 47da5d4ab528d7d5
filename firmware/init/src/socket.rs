//! The listening sockets: opened here, where ports below 1024 may be, and passed to the gateway.

use core::fmt::{self, Display};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{IpFreebind, Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, listen, setsockopt, socket,
};

use crate::console::say;

/// More listeners than six kinds at a handful of addresses are a mistake; they are named and left out.
pub(crate) const MOST: usize = 32;

/// Connections that wait to be accepted. What the kernel allows at most (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// What is to be listened on: a key of `[listen]` and an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wanted {
    /// `imaps`, `pop3s` …
    pub(crate) key: &'static str,
    /// Where; `[::]` takes IPv4 too.
    pub(crate) address: SocketAddr,
}

/// An open listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) wanted: Wanted,
    socket: OwnedFd,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listener {
    /// Opens one. An address that the box does not have yet is no error: the network may bring it later.
    pub(crate) fn open(wanted: Wanted) -> Result<Self, Errno> {
        let family = if wanted.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        // Connections that linger from before must not keep the port.
        setsockopt(&socket, ReuseAddr, &true)?;
        if wanted.address.is_ipv6() {
            setsockopt(&socket, Ipv6V6Only, &!wanted.address.ip().is_unspecified())?;
        }
        setsockopt(&socket, IpFreebind, &true)?;
        match wanted.address {
            SocketAddr::V4(four) => bind(socket.as_raw_fd(), &SockaddrIn::from(four))?,
            SocketAddr::V6(six) => bind(socket.as_raw_fd(), &SockaddrIn6::from(six))?,
        }
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(Self { wanted, socket })
    }
}

/// All that are open.
#[derive(Debug, Default)]
pub(crate) struct Listeners(heapless::Vec<Listener, MOST>);

impl Listeners {
    /// Brings the open sockets to what is wanted: keeps, closes, opens. What cannot be opened is said and left out.
    /// True: something changed.
    pub(crate) fn adjust(&mut self, wanted: &[Wanted]) -> bool {
        let before = self.0.len();
        self.0.retain(|listener| wanted.contains(&listener.wanted));
        let mut changed = self.0.len() != before;
        for wanted in wanted {
            if self.0.iter().any(|listener| listener.wanted == *wanted) {
                continue;
            }
            match Listener::open(*wanted) {
                Ok(listener) => {
                    changed = true;
                    if self.0.push(listener).is_err() {
                        say!("[listen] {} {} is one too many; {MOST} are opened", wanted.key, wanted.address);
                    }
                }
                Err(error) => {
                    say!("[listen] {} {} cannot be opened: {}", wanted.key, wanted.address, error.desc());
                }
            }
        }
        changed
    }

    /// In the order in which they are passed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.0.iter()
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// `993,995,465`.
impl Display for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, listener) in self.0.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { "," }, listener.wanted.address.port())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn wanted(address: &str) -> Wanted {
        Wanted { key: "imaps", address: address.parse().unwrap() }
    }

    #[test]
    fn keeps_closes_and_opens() {
        let mut listeners = Listeners::default();
        // The kernel picks the ports: the first pass finds free ones.
        assert!(listeners.adjust(&[wanted("127.0.0.1:0")]));
        let bound = |listener: &Listener| {
            let address: SockaddrIn = nix::sys::socket::getsockname(listener.as_fd().as_raw_fd()).unwrap();
            std::net::SocketAddrV4::from(address)
        };
        let first = bound(listeners.iter().next().unwrap());
        assert!(TcpStream::connect(first).is_ok());
        assert!(!listeners.adjust(&[wanted("127.0.0.1:0")]));
        assert_eq!(bound(listeners.iter().next().unwrap()), first);
        assert!(listeners.adjust(&[]));
        assert_eq!(listeners.len(), 0);
        assert!(TcpStream::connect(first).is_err());
    }

    #[test]
    fn a_port_that_is_taken_is_left_out_and_the_others_open() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = wanted(&holder.local_addr().unwrap().to_string());
        let mut listeners = Listeners::default();
        assert!(listeners.adjust(&[taken, wanted("127.0.0.1:0")]));
        assert_eq!(
            listeners.iter().map(|listener| listener.wanted).collect::<Vec<_>>(),
            [wanted("127.0.0.1:0")]
        );
    }

    #[test]
    fn an_address_that_is_not_there_yet_can_be_listened_on() {
        assert!(Listeners::default().adjust(&[wanted("192.0.2.7:0"), wanted("[2001:db8::7]:0")]));
    }

    #[test]
    fn the_ports_are_listed() {
        assert_eq!(Listeners::default().to_string(), "");
    }
}
