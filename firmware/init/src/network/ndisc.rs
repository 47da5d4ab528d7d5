//! Name servers of router advertisements (RFC 8106), as the kernel hands their options on, and the question for them.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::link::is_host;

/// What one RDNSS option says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Servers {
    /// The interface that it came in by.
    pub(super) index: u32,
    /// How long the servers may be asked; zero: no longer.
    pub(super) lifetime: Duration,
    /// The servers.
    pub(super) addresses: Vec<Ipv6Addr>,
}

/// Reads the body of `RTM_NEWNDUSEROPT` (`struct nduseroptmsg` of linux/rtnetlink.h): family, padding, length of the
/// option, interface, type and code of the message, padding, then the option. `None` if it names no name servers.
pub(super) fn servers(body: &[u8]) -> Option<Servers> {
    /// The type of a router advertisement (RFC 4861 §4.2).
    const ADVERTISEMENT: u8 = 134;
    /// Type of the option (RFC 8106 §5.1).
    const RDNSS: u8 = 25;
    /// More than any network has; the option's length would let 127 be.
    const MOST: usize = 8;
    let (header, rest) = body.split_at_checked(16)?;
    let length = usize::from(u16::from_ne_bytes(*header.get(2..)?.first_chunk()?));
    let index = u32::try_from(i32::from_ne_bytes(*header.get(4..)?.first_chunk()?)).ok()?;
    let option = rest.get(..length)?;
    let ([RDNSS, units, _, _, a, b, c, d], addresses) = option.split_first_chunk::<8>()? else { return None };
    if i32::from(*header.first()?) != libc::AF_INET6 || *header.get(8)? != ADVERTISEMENT {
        return None;
    }
    // The length counts units of eight octets, the option's head included.
    let addresses = addresses.get(..usize::from(*units).checked_mul(8)?.checked_sub(8)?)?;
    let addresses = addresses.chunks_exact(16).filter_map(|octets| octets.try_into().ok());
    let addresses = addresses.map(<[u8; 16]>::into).filter(|server: &Ipv6Addr| is_host((*server).into()));
    let addresses = addresses.take(MOST).collect::<Vec<_>>();
    let lifetime = Duration::from_secs(u32::from_be_bytes([*a, *b, *c, *d]).into());
    (!addresses.is_empty()).then_some(Servers { index, lifetime, addresses })
}

/// The servers heard of, until their lifetimes end.
#[derive(Debug, Default)]
pub(super) struct Heard {
    servers: Vec<(Ipv6Addr, Instant)>,
}

impl Heard {
    /// Takes an option in.
    pub(super) fn hear(&mut self, heard: &Servers, now: Instant) {
        /// Routers are strangers, too: what they send fills no more than this.
        const MOST: usize = 8;
        /// An endless lifetime is asked for again each day.
        const LONGEST: Duration = Duration::from_hours(24);
        for server in &heard.addresses {
            self.servers.retain(|(known, _)| known != server);
            if !heard.lifetime.is_zero() && self.servers.len() < MOST {
                self.servers.push((*server, now + heard.lifetime.min(LONGEST)));
            }
        }
    }

    /// Forgets what has ended, and says whether there was such.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.servers.len();
        self.servers.retain(|(_, until)| *until > now);
        before != self.servers.len()
    }

    /// Forgets all: the cable leads elsewhere now.
    pub(super) fn clear(&mut self) {
        self.servers.clear();
    }

    /// When the next one ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.servers.iter().map(|(_, until)| *until).min()
    }

    /// Those that may be asked, in a stable order.
    pub(super) fn servers(&self) -> Vec<Ipv6Addr> {
        let mut servers = self.servers.iter().map(|(server, _)| *server).collect::<Vec<_>>();
        servers.sort();
        servers
    }
}

/// Asks the routers of a link to advertise now (RFC 4861 §4.1). The kernel asks when an interface is switched on, but
/// not when a cable was changed, nor when this process starts anew and has forgotten what it heard.
pub(super) fn solicit(name: &str, index: u32) -> io::Result<()> {
    const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_if_v6(index)?;
    // Type 133, code 0, checksum by the kernel (RFC 3542 §3.1), four octets reserved; no option.
    let message = [133, 0, 0, 0, 0, 0, 0, 0];
    socket.send_to(&message, &SocketAddrV6::new(ALL_ROUTERS, 0, 0, index).into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel sent it for `dhcp-option=option6:dns-server,[2001:db8::53]` of a dnsmasq.
    fn recorded() -> Vec<u8> {
        let mut body = vec![10, 0, 24, 0, 3, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0];
        body.extend([25, 3, 0, 0, 0, 0, 2, 88]);
        body.extend("2001:db8::53".parse::<Ipv6Addr>().unwrap().octets());
        // NDUSEROPT_SRCADDR
        body.extend([20, 0, 1, 0]);
        body.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        body
    }

    #[test]
    fn a_router_names_a_name_server() {
        let heard = servers(&recorded()).unwrap();
        assert_eq!((heard.index, heard.lifetime), (3, Duration::from_mins(10)));
        assert_eq!(heard.addresses, ["2001:db8::53".parse::<Ipv6Addr>().unwrap()]);
    }

    /// Whatever is cut off or changed in one octet: an answer, and never more than the option holds.
    #[test]
    fn broken_options_are_passed_over() {
        let whole = recorded();
        for length in 0..40 {
            assert_eq!(servers(&whole[..length]), None, "{length}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 2, 127, 255] {
                let mut broken = whole.clone();
                broken[at] = value;
                assert!(servers(&broken).is_none_or(|heard| heard.addresses.len() == 1));
            }
        }
    }

    #[test]
    fn servers_are_forgotten_when_their_time_ends() {
        let now = Instant::now();
        let mut heard = Heard::default();
        let server = servers(&recorded()).unwrap();
        heard.hear(&server, now);
        heard.hear(&server, now);
        assert_eq!((heard.servers().len(), heard.next()), (1, Some(now + Duration::from_mins(10))));
        assert!(!heard.expire(now + Duration::from_secs(599)));
        assert!(heard.expire(now + Duration::from_mins(10)));
        heard.hear(&server, now);
        heard.hear(&Servers { lifetime: Duration::ZERO, ..server.clone() }, now);
        assert!(heard.servers().is_empty());
        for number in 0..100 {
            heard
                .hear(&Servers { addresses: vec![Ipv6Addr::from(1 << 120 | number)], ..server.clone() }, now);
        }
        assert_eq!(heard.servers().len(), 8);
    }
}
