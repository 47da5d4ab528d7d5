//! The DHCP client: smoltcp's state machine (RFC 2131), fed with the frames of one interface.
//!
//! It never gives up: without a server it asks again after 4, 8, 16, 32 and then every 64 seconds. A lease is renewed at
//! half its time, asked of any server at seven eighths, and given up when it ends.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::phy::Device;
use smoltcp::socket::dhcpv4;
use smoltcp::time::{Duration as Span, Instant as Moment};
use smoltcp::wire::{DhcpOption, DhcpPacket, EthernetAddress, IpCidr};

use super::link::is_host;
use super::random;

/// What a server granted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Lease {
    /// Our address and its network.
    pub(super) address: Ipv4Net,
    /// The router to everywhere else.
    pub(super) router: Option<Ipv4Addr>,
    /// Name servers.
    pub(super) dns: Vec<Ipv4Addr>,
    /// Time servers.
    pub(super) ntp: Vec<Ipv4Addr>,
    /// For how long, from now on.
    pub(super) seconds: u32,
}

/// What became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// There is a lease: the first one, a renewed one, another one.
    Leased(Lease),
    /// There is none any more.
    Lost,
}

/// Where a client's frames go, and come from.
pub(super) trait Wire: Device + AsFd {
    /// How many frames were sent so far.
    fn sent(&self) -> u32;

    /// How long nothing may be sent, because too much was.
    fn pause(&self, now: Instant) -> Duration;
}

/// A client on one interface.
pub(super) struct Client<W> {
    port: W,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    epoch: Instant,
    leased: bool,
    /// Frames sent when the last question began, and how long to wait for its answer.
    asked: u32,
    patience: u64,
}

/// Subnet mask, router, name servers, time servers (RFC 2132); no domain, no MTU, no routes: nothing of this would use
/// them.
const WANTED: &[u8] = &[1, 3, 6, 42];
/// Two octets of padding each (RFC 2132 §3.1), which make the shortest message 300 octets long: relays may drop what is
/// shorter than BOOTP had it (RFC 1542 §2.1), and smoltcp sends 263.
const PADDING: &[DhcpOption<'static>] = &[DhcpOption { kind: 0, data: &[] }; 19];
const SHORTEST: u64 = 4;
const LONGEST: u64 = 64;

impl<W: Wire> Client<W> {
    pub(super) fn new(mut port: W, mac: [u8; 6], now: Instant) -> Self {
        let mut config = Config::new(EthernetAddress(mac).into());
        config.random_seed = random();
        let interface = Interface::new(config, &mut port, Moment::ZERO);
        let mut socket = dhcpv4::Socket::new();
        socket.set_parameter_request_list(WANTED);
        socket.set_outgoing_options(PADDING);
        // Kept for ever: smoltcp wants to borrow it, and an interface of a board does not come and go often. It holds the
        // largest answer that fits a frame.
        socket.set_receive_packet_buffer(Box::leak(Box::new([0; 1500])));
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        let (asked, patience) = (port.sent(), SHORTEST);
        Self { port, interface, sockets, handle, epoch: now, leased: false, asked, patience }
    }

    /// Does what the frames that came in and the time that passed ask for.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Change> {
        /// Frames in one go: a flood must not starve everything else in this process.
        const FRAMES: usize = 64;
        let moment = self.moment(now);
        for _ in 0..FRAMES {
            let result = self.interface.poll_ingress_single(moment, &mut self.port, &mut self.sockets);
            if let Some(change) = self.change() {
                return Some(change);
            }
            if matches!(result, PollIngressSingleResult::None) {
                break;
            }
        }
        self.be_patient();
        self.interface.poll_egress(moment, &mut self.port, &mut self.sockets);
        self.change()
    }

    /// When to call [`Client::poll`] next, if no frame comes in before.
    pub(super) fn next(&mut self, now: Instant) -> Option<Duration> {
        let moment = self.moment(now);
        let delay = self.interface.poll_delay(moment, &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()).max(self.port.pause(now)))
    }

    /// Begins anew: the cable leads elsewhere now. Says whether a lease is given up by that.
    pub(super) fn restart(&mut self) -> bool {
        self.patience = SHORTEST;
        self.socket().reset();
        self.change().is_some()
    }

    /// How long to wait for an offer: longer each time, and not for every box of a building that has power again alike.
    fn be_patient(&mut self) {
        if self.port.sent() != self.asked && !self.leased {
            self.patience = (self.patience * 2).min(LONGEST);
        }
        self.asked = self.port.sent();
        let jitter = random() % 2000; // milliseconds, about RFC 2131's one second either way
        let patience = Span::from_millis(self.patience * 1000 + jitter - 1000);
        let socket = self.socket();
        let mut retry = socket.get_retry_config();
        retry.discover_timeout = patience;
        socket.set_retry_config(retry);
    }

    fn change(&mut self) -> Option<Change> {
        let event = self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.handle).poll()?;
        let dhcpv4::Event::Configured(config) = event else {
            self.interface.update_ip_addrs(|addresses| addresses.truncate(0));
            self.interface.routes_mut().remove_default_ipv4_route();
            return std::mem::take(&mut self.leased).then_some(Change::Lost);
        };
        let options = config.packet.as_ref();
        let (address, router) = (config.address, config.router);
        let router = options.and_then(|packet| addresses(packet, ROUTER, 1).first().copied()).or(router);
        let seconds = options.map_or(DEFAULT_SECONDS, seconds);
        let list = |kind| options.map(|packet| addresses(packet, kind, MOST)).unwrap_or_default();
        let (dns, ntp) = (list(NAME_SERVERS), list(TIME_SERVERS));
        let net = Ipv4Net::new(address.address(), address.prefix_len()).ok().filter(|net| sound(*net));
        let Some(net) = net else {
            // Such a lease would do harm; asking again is as good as anything, and the port keeps it slow.
            self.socket().reset();
            return self.change();
        };
        let router = router.filter(|router| is_host(IpAddr::V4(*router)) && *router != net.addr());
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // Holds at least one.
            let _ = addresses.push(IpCidr::Ipv4(address));
        });
        self.interface.routes_mut().remove_default_ipv4_route();
        if let Some(router) = router {
            // Holds at least one.
            let _ = self.interface.routes_mut().add_default_ipv4_route(router);
        }
        (self.leased, self.patience) = (true, SHORTEST);
        Some(Change::Leased(Lease { address: net, router, dns, ntp, seconds }))
    }

    fn socket(&mut self) -> &mut dhcpv4::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn moment(&self, now: Instant) -> Moment {
        let since = now.saturating_duration_since(self.epoch).as_micros();
        Moment::from_micros(i64::try_from(since).unwrap_or(i64::MAX))
    }
}

impl<W: Wire> AsFd for Client<W> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}

// RFC 2132 §3.5, §3.8, §8.3, §9.2.
const ROUTER: u8 = 3;
const NAME_SERVERS: u8 = 6;
const TIME_SERVERS: u8 = 42;
const LEASE_TIME: u8 = 51;
/// Servers of a kind that are kept.
const MOST: usize = 4;
/// What smoltcp takes when a server does not say.
const DEFAULT_SECONDS: u32 = 120;

/// The hosts of an option that is a list of addresses. smoltcp reads a router only if there is one, and no time servers.
fn addresses(packet: &DhcpPacket<&[u8]>, kind: u8, most: usize) -> Vec<Ipv4Addr> {
    let mut options = packet.options().filter(|option| option.kind == kind);
    let data = options.next().map(|option| option.data).unwrap_or_default();
    let addresses = data.chunks_exact(4).filter_map(|octets| <[u8; 4]>::try_from(octets).ok());
    addresses.map(Ipv4Addr::from).filter(|address| is_host(IpAddr::V4(*address))).take(most).collect()
}

fn seconds(packet: &DhcpPacket<&[u8]>) -> u32 {
    let mut options = packet.options().filter(|option| option.kind == LEASE_TIME);
    let data = options.next().and_then(|option| <[u8; 4]>::try_from(option.data).ok());
    data.map_or(DEFAULT_SECONDS, u32::from_be_bytes)
}

/// Whether a box can live under such an address.
fn sound(net: Ipv4Net) -> bool {
    let edge = net.prefix_len() < 31 && (net.addr() == net.network() || net.addr() == net.broadcast());
    is_host(IpAddr::V4(net.addr())) && net.prefix_len() >= 8 && !edge
}

#[cfg(test)]
mod tests;
