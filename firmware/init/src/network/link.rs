//! The kernel's view of the network: interfaces, addresses and routes, asked for and set over netlink.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// An interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Link {
    /// The kernel's number for it.
    pub(super) index: u32,
    /// Such as `eth0`.
    pub(super) name: String,
    /// Its hardware address, if it is Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    /// Whether it is the loopback interface.
    pub(super) loopback: bool,
    /// Whether it is switched on and the other end of its cable answers.
    pub(super) carrier: bool,
}

/// An address of an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Address {
    /// The interface's number.
    pub(super) index: u32,
    /// The address with its prefix length.
    pub(super) net: IpNet,
    /// Whether others can be spoken to from it: not link-local, not waiting for duplicate address detection.
    pub(super) usable: bool,
    /// Whether it is good beyond the link.
    pub(super) global: bool,
}

/// How long an address is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lifetime {
    /// Until it is taken away.
    Forever,
    /// So many seconds from now; then the kernel removes it, even if this process is no more.
    Seconds(u32),
}

/// A connection to the kernel: one request at a time, each answered before the next.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// Larger than what the kernel puts into one datagram (`NLMSG_GOODSIZE`, and 32 KiB for dumps).
pub(super) const DATAGRAM: usize = 65_536;

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All interfaces.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.request(Message::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        let link = |message| match message {
            Message::NewLink(link) => Link::of(&link),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(link).collect())
    }

    /// Switches an interface on; the kernel begins to look for a carrier.
    pub(super) fn up(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.request(Message::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// The addresses of an interface.
    pub(super) fn addresses(&mut self, index: u32) -> io::Result<Vec<Address>> {
        let answers = self.request(Message::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let address = |message| match message {
            Message::NewAddress(address) => Address::of(&address),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(address).filter(|address| address.index == index).collect())
    }

    /// Gives an interface an address, or an address that it has a new lifetime.
    pub(super) fn add(&mut self, index: u32, address: IpNet, lifetime: Lifetime) -> io::Result<()> {
        let mut message = bare(index, address);
        if let IpNet::V4(address) = address
            && address.prefix_len() < 31
        {
            message.attributes.push(AddressAttribute::Broadcast(address.broadcast()));
        }
        let seconds = match lifetime {
            Lifetime::Forever => u32::MAX, // INFINITY_LIFE_TIME
            Lifetime::Seconds(seconds) => seconds.max(1),
        };
        let mut info = CacheInfo::default();
        (info.ifa_preferred, info.ifa_valid) = (seconds, seconds);
        message.attributes.push(AddressAttribute::CacheInfo(info));
        self.request(Message::NewAddress(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).map(drop)
    }

    /// Takes an address away; that it is not there is no error.
    pub(super) fn remove(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        gone_is_fine(self.request(Message::DelAddress(bare(index, address)), NLM_F_ACK))
    }

    /// Sends what is for nowhere else to `gateway`, which need not be of the interface's own network.
    pub(super) fn route(&mut self, index: u32, gateway: IpAddr, learnt: bool) -> io::Result<()> {
        let mut message = default_route(index, gateway);
        message.header.protocol = if learnt { RouteProtocol::Dhcp } else { RouteProtocol::Static };
        message.header.flags = RouteFlags::Onlink;
        self.request(Message::NewRoute(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).map(drop)
    }

    /// Undoes [`Netlink::route`]; that there is no such route is no error.
    pub(super) fn unroute(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let mut message = default_route(index, gateway);
        message.header.scope = RouteScope::NoWhere; // any
        gone_is_fine(self.request(Message::DelRoute(message), NLM_F_ACK))
    }

    /// Sends a request and gathers its answers.
    fn request(&mut self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        let mut answers = Vec::new();
        loop {
            let mut datagram = Vec::with_capacity(DATAGRAM);
            let (_, sender) = self.socket.recv_from(&mut datagram, 0)?;
            if sender.port_number() != 0 {
                continue; // another process of this machine, not the kernel
            }
            for part in parts(&datagram) {
                let Ok(answer) = NetlinkMessage::<Message>::deserialize(part) else {
                    continue; // an interface of a kind that the library does not know
                };
                if answer.header.sequence_number != self.sequence {
                    continue; // of an earlier request that failed half-way
                }
                match answer.payload {
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(answers),
                            Some(_) => Err(error.to_io()),
                        };
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of one datagram (netlink(7): each begins with its length and is padded to four octets).
pub(super) fn parts(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk::<4>()?)).ok()?;
        let part = rest.get(..length).filter(|part| part.len() >= 16)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(part)
    })
}

impl Link {
    pub(super) fn of(message: &LinkMessage) -> Option<Self> {
        let header = &message.header;
        let name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
        let mac = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(address) => address.as_slice().try_into().ok(),
            _ => None,
        });
        Some(Self {
            index: header.index,
            name,
            mac: mac.filter(|_| header.link_layer_type == LinkLayerType::Ether),
            loopback: header.flags.contains(LinkFlags::Loopback),
            carrier: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        })
    }
}

impl Address {
    pub(super) fn of(message: &AddressMessage) -> Option<Self> {
        let header = &message.header;
        // For IPv4 `Address` is the other end of a point-to-point link, and `Local` is ours.
        let find = |local: bool| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            })
        };
        let net = IpNet::new(find(true).or_else(|| find(false))?, header.prefix_len).ok()?;
        let waits = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
        let optimistic = message.attributes.iter().any(|attribute| {
            matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Optimistic))
        });
        let global = header.scope == AddressScope::Universe;
        let usable = global && (optimistic || !header.flags.intersects(waits));
        Some(Self { index: header.index, net, usable, global })
    }
}

fn bare(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes =
        vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    message
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    let gateway = match gateway {
        IpAddr::V4(gateway) => RouteAddress::Inet(gateway),
        IpAddr::V6(gateway) => RouteAddress::Inet6(gateway),
    };
    message.attributes = vec![RouteAttribute::Gateway(gateway), RouteAttribute::Oif(index)];
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn gone_is_fine<T>(result: io::Result<T>) -> io::Result<()> {
    let gone = [libc::EADDRNOTAVAIL, libc::ESRCH, libc::ENODEV];
    match result {
        Err(error) if !error.raw_os_error().is_some_and(|code| gone.contains(&code)) => Err(error),
        _ => Ok(()),
    }
}

/// Whether an address may be a host's on a network: what strangers name as server or router is checked by this.
pub(super) fn is_host(address: IpAddr) -> bool {
    let reserved = match address {
        // 0.0.0.0/8 and 240.0.0.0/4 (RFC 1122 §3.2.1.3, RFC 1112 §4), the latter with broadcast.
        IpAddr::V4(address) => address.octets()[0] == 0 || address.octets()[0] >= 240,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some() || address == Ipv6Addr::UNSPECIFIED,
    };
    !(reserved || address.is_loopback() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_comes_apart_and_a_broken_one_ends() {
        let mut datagram = vec![0; 20];
        datagram[..4].copy_from_slice(&18_u32.to_ne_bytes());
        datagram.extend([0; 16]);
        datagram[20..24].copy_from_slice(&16_u32.to_ne_bytes());
        assert_eq!(parts(&datagram).map(<[u8]>::len).collect::<Vec<_>>(), [18, 16]);
        for length in [0_u32, 3, 15, 37, u32::MAX] {
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(parts(&datagram).count(), 0, "{length}");
        }
        assert_eq!(parts(&[]).count(), 0);
    }

    #[test]
    fn the_kernel_tells_of_the_loopback_interface() {
        let mut netlink = Netlink::open().unwrap();
        let links = netlink.links().unwrap();
        let loopback = links.iter().find(|link| link.loopback).unwrap();
        assert_eq!((loopback.name.as_str(), loopback.mac), ("lo", None));
        let one = netlink.addresses(loopback.index).unwrap();
        assert!(one.iter().all(|address| address.index == loopback.index));
    }

    #[test]
    fn only_hosts_are_believed_to_be_servers() {
        for bad in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"]
        {
            assert!(!is_host(bad.parse().unwrap()), "{bad}");
        }
        for good in ["192.0.2.1", "10.0.0.1", "169.254.1.1", "fe80::1", "2001:db8::1"] {
            assert!(is_host(good.parse().unwrap()), "{good}");
        }
    }
}
