//! What the kernel tells unasked: interfaces and carriers, addresses, and options of router advertisements.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::link::{Address, DATAGRAM, Link, parts};
use super::ndisc::{self, Servers};

/// Something changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// An interface came, or changed.
    Link(Link),
    /// An interface went.
    Gone(u32),
    /// An address came, or changed.
    Address(Address),
    /// An address went.
    Removed(Address),
    /// A router named name servers.
    Servers(Servers),
    /// So much happened that the kernel forgot some of it: ask for everything anew.
    Missed,
}

/// A socket that hears it.
pub(super) struct Watch {
    socket: Socket,
}

// Multicast groups as bits (linux/rtnetlink.h); the last is group RTNLGRP_ND_USEROPT, 20.
const LINK: u32 = 0x1;
const IPV4_ADDRESS: u32 = 0x10;
const IPV6_ADDRESS: u32 = 0x100;
const ROUTER_OPTIONS: u32 = 1 << 19;

impl Watch {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, LINK | IPV4_ADDRESS | IPV6_ADDRESS | ROUTER_OPTIONS))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// What happened since the last call.
    pub(super) fn events(&self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            let mut datagram = Vec::with_capacity(DATAGRAM);
            match self.socket.recv_from(&mut datagram, 0) {
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok(_) => events.extend(parts(&datagram).filter_map(event)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => events.push(Event::Missed),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The library knows no `RTM_NEWNDUSEROPT`, so that is read here.
const NEW_ROUTER_OPTION: u16 = 68;

fn event(part: &[u8]) -> Option<Event> {
    let (header, body) = part.split_at_checked(16)?;
    if header.get(4..6) == Some(&NEW_ROUTER_OPTION.to_ne_bytes()) {
        return ndisc::servers(body).map(Event::Servers);
    }
    match NetlinkMessage::<Message>::deserialize(part).ok()?.payload {
        NetlinkPayload::InnerMessage(Message::NewLink(link)) => Link::of(&link).map(Event::Link),
        NetlinkPayload::InnerMessage(Message::DelLink(link)) => Some(Event::Gone(link.header.index)),
        NetlinkPayload::InnerMessage(Message::NewAddress(address)) => {
            Address::of(&address).map(Event::Address)
        }
        NetlinkPayload::InnerMessage(Message::DelAddress(address)) => {
            Address::of(&address).map(Event::Removed)
        }
        _ => None,
    }
}
