//! Ethernet frames for the DHCP client: a packet socket that lets nothing through but what the client must see.

use std::io::{self, Read as _};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as Moment;
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};

use super::dhcp::Wire;

/// A frame without VLAN tag and check sequence.
const FRAME: usize = 1514;

/// One interface's frames.
pub(super) struct Port {
    socket: Socket,
    frame: Box<[u8; FRAME]>,
    budget: Budget,
}

impl Port {
    /// Opens the interface with this number.
    pub(super) fn open(index: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        // Without a protocol nothing comes in before the filter is there and the interface is bound.
        socket.attach_filter(&FILTER)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address(index)?)?;
        Ok(Self { socket, frame: Box::new([0; FRAME]), budget: Budget::new(Instant::now()) })
    }
}

impl Wire for Port {
    fn sent(&self) -> u32 {
        self.budget.spent
    }

    fn pause(&self, now: Instant) -> Duration {
        self.budget.pause(now)
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Every frame of the interface (packet(7)).
#[allow(unsafe_code, clippy::cast_possible_truncation)] // the kernel's own constants and sizes are small
fn address(index: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let init = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        let storage = storage.cast::<libc::sockaddr_ll>();
        // SAFETY: both pointers are valid for writing; the storage is zeroed, aligned for any address, and larger than a
        // sockaddr_ll, whose fields are plain numbers.
        unsafe {
            (*storage).sll_family = libc::AF_PACKET as u16;
            (*storage).sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            (*storage).sll_ifindex = index;
            *length = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        }
        Ok(())
    };
    // SAFETY: `init` writes a whole sockaddr_ll and says its length.
    unsafe { SockAddr::try_init(init) }.map(|((), address)| address)
}

/// A classic BPF program (socket(7), `SO_ATTACH_FILTER`): received, untagged, and either a whole IPv4 UDP datagram from
/// port 67 to 68, or an ARP reply, which smoltcp needs to renew a lease by unicast.
const FILTER: [SockFilter; 20] = {
    // linux/filter.h
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_HALF_BEHIND: u16 = 0x48; // what the register X holds
    const LOAD_HEADER_LENGTH: u16 = 0xb1; // of IPv4, into X
    const EQUAL: u16 = 0x15;
    const ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const EXTRA: u32 = 0xffff_f000; // SKF_AD_OFF: not in the frame, but about it
    const PACKET_TYPE: u32 = EXTRA + 4;
    const VLAN_TAG_PRESENT: u32 = EXTRA + 48;
    const OUTGOING: u32 = 4;
    // A jump counts the instructions it passes over: its target, less the number of the one behind it.
    const TAKE: u8 = 18;
    const REFUSE: u8 = 19;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, VLAN_TAG_PRESENT),
        SockFilter::new(EQUAL, 0, REFUSE - 2, 0),
        SockFilter::new(LOAD_BYTE, 0, 0, PACKET_TYPE),
        SockFilter::new(EQUAL, REFUSE - 4, 0, OUTGOING),
        SockFilter::new(LOAD_HALF, 0, 0, 12), // EtherType
        SockFilter::new(EQUAL, 0, 2, 0x0806), // ARP
        SockFilter::new(LOAD_HALF, 0, 0, 20),
        SockFilter::new(EQUAL, TAKE - 8, REFUSE - 8, 2), // a reply
        SockFilter::new(EQUAL, 0, REFUSE - 9, 0x0800),   // IPv4
        SockFilter::new(LOAD_BYTE, 0, 0, 23),
        SockFilter::new(EQUAL, 0, REFUSE - 11, 17), // UDP
        SockFilter::new(LOAD_HALF, 0, 0, 20),
        SockFilter::new(ANY_BIT, REFUSE - 13, 0, 0x3fff), // a fragment
        SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 14),
        SockFilter::new(LOAD_HALF_BEHIND, 0, 0, 14),
        SockFilter::new(EQUAL, 0, REFUSE - 16, 67), // from a server
        SockFilter::new(LOAD_HALF_BEHIND, 0, 0, 16),
        SockFilter::new(EQUAL, TAKE - 18, REFUSE - 18, 68), // to a client
        SockFilter::new(RETURN, 0, 0, 0xffff),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
};

/// A bucket of frames: what a server answers, or refuses, may not make a flood of questions.
#[derive(Debug)]
struct Budget {
    left: u32,
    filled: Instant,
    spent: u32,
}

impl Budget {
    const BURST: u32 = 12;
    const REFILL: Duration = Duration::from_secs(2);

    fn new(now: Instant) -> Self {
        Self { left: Self::BURST, filled: now, spent: 0 }
    }

    fn may_spend(&mut self, now: Instant) -> bool {
        while self.left < Self::BURST && now.duration_since(self.filled) >= Self::REFILL {
            self.left += 1;
            self.filled += Self::REFILL;
        }
        if self.left == Self::BURST {
            self.filled = now;
        }
        self.left > 0
    }

    fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.spent = self.spent.wrapping_add(1);
    }

    fn pause(&self, now: Instant) -> Duration {
        if self.left > 0 {
            Duration::ZERO
        } else {
            (self.filled + Self::REFILL).saturating_duration_since(now)
        }
    }
}

impl Device for Port {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Moment) -> Option<(Received<'_>, Sending<'_>)> {
        // Any error but "nothing there" is told by the next send, or by the interface that went.
        let length = (&self.socket).read(&mut self.frame[..]).ok()?;
        let frame = self.frame.get(..length)?;
        Some((Received(frame), Sending { socket: &self.socket, budget: &mut self.budget }))
    }

    fn transmit(&mut self, _: Moment) -> Option<Sending<'_>> {
        if !self.budget.may_spend(Instant::now()) {
            return None;
        }
        Some(Sending { socket: &self.socket, budget: &mut self.budget })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        // A server on this very machine or its hypervisor leaves the sum to a network card that there is not; the frame's
        // own check sequence has been looked at by the card.
        capabilities.checksum.udp = Checksum::Tx;
        capabilities
    }
}

/// A frame that came in.
pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

/// Leave to send a frame.
pub(super) struct Sending<'a> {
    socket: &'a Socket,
    budget: &'a mut Budget,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = [0; FRAME];
        let length = length.min(FRAME);
        let result = write(frame.get_mut(..length).unwrap_or_default());
        self.budget.spend();
        // A frame that is lost here is as one lost on the wire: it is sent again after its timeout.
        drop(self.socket.send(frame.get(..length).unwrap_or_default()));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The filter does not know whose socket it is attached to, so a pair without privileges shows what it lets through.
    #[test]
    fn only_answers_of_servers_and_arp_replies_come_in() {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        ours.attach_filter(&FILTER).unwrap();
        ours.set_nonblocking(true).unwrap();
        let comes = |frame: &[u8]| {
            // A datagram that the filter drops is told to the sender of this kind of socket.
            let _ = theirs.send(frame);
            (&ours).read(&mut [0; FRAME]).is_ok()
        };
        let mut answer = [0_u8; 300];
        answer[12..14].copy_from_slice(&[0x08, 0x00]);
        answer[14] = 0x45;
        answer[23] = 17;
        answer[34..38].copy_from_slice(&[0, 67, 0, 68]);
        assert!(comes(&answer));
        for (at, value) in [(13, 0xdd), (23, 6), (35, 68), (37, 67), (20, 0x20), (21, 1), (14, 0x46)] {
            let mut other = answer;
            other[at] = value;
            assert!(!comes(&other), "octet {at}");
        }
        // Header options move the ports.
        let mut options = answer;
        options[14] = 0x46;
        options.copy_within(34..38, 38);
        assert!(comes(&options));
        assert!(!comes(&answer[..36]) && !comes(&[]) && !comes(&[0; 14]));
        let mut arp = [0_u8; 42];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        arp[21] = 2;
        assert!(comes(&arp));
        arp[21] = 1;
        assert!(!comes(&arp), "the kernel answers those itself");
    }

    #[test]
    fn a_flood_is_slowed_to_a_trickle() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut sent = 0;
        for millisecond in 0..60_000 {
            if budget.may_spend(start + Duration::from_millis(millisecond)) {
                budget.spend();
                sent += 1;
            }
        }
        assert!((40..=42).contains(&sent), "{sent}");
        let end = start + Duration::from_secs(59);
        assert!(budget.pause(end) <= Budget::REFILL && !budget.pause(end).is_zero());
        assert!(budget.may_spend(end + Duration::from_hours(1)));
        assert_eq!(budget.left, Budget::BURST);
    }
}
