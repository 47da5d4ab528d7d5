use std::collections::VecDeque;
use std::fs::File;

use smoltcp::phy::{Checksum, DeviceCapabilities, Medium, RxToken, TxToken};

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
// RFC 2132 §9.6
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// A cable whose other end is the test's.
struct Cable {
    to_box: VecDeque<Vec<u8>>,
    from_box: Vec<Vec<u8>>,
    sent: u32,
    nothing: File,
}

impl AsFd for Cable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.nothing.as_fd()
    }
}

impl Wire for Cable {
    fn sent(&self) -> u32 {
        self.sent
    }

    fn pause(&self, _: Instant) -> Duration {
        Duration::ZERO
    }
}

struct In(Vec<u8>);

impl RxToken for In {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Out<'a>(&'a mut Vec<Vec<u8>>, &'a mut u32);

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push(frame);
        *self.1 += 1;
        result
    }
}

impl Device for Cable {
    type RxToken<'a> = In;
    type TxToken<'a> = Out<'a>;

    fn receive(&mut self, _: Moment) -> Option<(In, Out<'_>)> {
        let frame = self.to_box.pop_front()?;
        Some((In(frame), Out(&mut self.from_box, &mut self.sent)))
    }

    fn transmit(&mut self, _: Moment) -> Option<Out<'_>> {
        Some(Out(&mut self.from_box, &mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities.checksum.udp = Checksum::Tx;
        capabilities
    }
}

/// A client, and a server that says what the test wants, in a time of their own.
struct Bench {
    client: Client<Cable>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let nothing = File::open("/dev/null").unwrap();
        let cable = Cable { to_box: VecDeque::new(), from_box: Vec::new(), sent: 0, nothing };
        let now = Instant::now();
        let mut bench = Self { client: Client::new(cable, MAC, now), now };
        assert_eq!(bench.client.poll(now), None);
        bench
    }

    fn wait(&mut self, seconds: u64) -> Option<Change> {
        self.now += Duration::from_secs(seconds);
        self.client.poll(self.now)
    }

    /// The last DHCP message of the box: its kind and transaction.
    fn asked(&self) -> Option<(u8, [u8; 4])> {
        let frames = self.client.port.from_box.iter().rev();
        let message = frames.filter(|frame| frame[12..14] == [8, 0]).map(|frame| &frame[42..]).next()?;
        assert!(message.len() >= 300, "{}", message.len());
        let kind =
            DhcpPacket::new_checked(message).unwrap().options().find(|option| option.kind == 53)?.data[0];
        Some((kind, message[4..8].try_into().unwrap()))
    }

    fn answer(&mut self, kind: u8, address: [u8; 4], options: &[u8]) -> Option<Change> {
        let (_, transaction) = self.asked().unwrap();
        self.client.port.to_box.push_back(message(kind, transaction, address, options));
        self.client.poll(self.now)
    }

    /// Offer, request, acknowledgement.
    fn grant(&mut self, address: [u8; 4], options: &[u8]) -> Option<Change> {
        assert_eq!(self.asked().unwrap().0, DISCOVER);
        assert_eq!(self.answer(OFFER, address, options), None);
        assert_eq!(self.asked().unwrap().0, REQUEST);
        self.answer(ACK, address, options)
    }
}

/// From 192.0.2.1 to the box, as servers send it: Ethernet, IPv4, UDP without checksum, DHCP (RFC 2131 §2).
fn message(kind: u8, transaction: [u8; 4], address: [u8; 4], options: &[u8]) -> Vec<u8> {
    let mut dhcp = vec![2, 1, 6, 0];
    dhcp.extend(transaction);
    dhcp.resize(16, 0);
    dhcp.extend(address);
    dhcp.extend([192, 0, 2, 1, 0, 0, 0, 0]);
    dhcp.extend(MAC);
    dhcp.resize(236, 0);
    dhcp.extend([99, 130, 83, 99, 53, 1, kind, 54, 4, 192, 0, 2, 1]);
    dhcp.extend(options);
    dhcp.push(255);
    let udp = u16::try_from(dhcp.len() + 8).unwrap();
    let mut ip = vec![0x45, 0];
    ip.extend((udp + 20).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 255, 255, 255, 255]);
    let sum = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend(ip);
    frame.extend([0, 67, 0, 68]);
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(dhcp);
    frame
}

/// A /24, two routers, two name servers (one of them nonsense), a time server, ten minutes.
const USUAL: &[u8] = &[
    1, 4, 255, 255, 255, 0, 3, 8, 192, 0, 2, 1, 192, 0, 2, 2, 6, 8, 192, 0, 2, 53, 0, 0, 0, 0, 42, 4, 192, 0,
    2, 123, 51, 4, 0, 0, 2, 88,
];
const OURS: [u8; 4] = [192, 0, 2, 100];

fn usual() -> Lease {
    Lease {
        address: "192.0.2.100/24".parse().unwrap(),
        router: Some(Ipv4Addr::new(192, 0, 2, 1)),
        dns: vec![Ipv4Addr::new(192, 0, 2, 53)],
        ntp: vec![Ipv4Addr::new(192, 0, 2, 123)],
        seconds: 600,
    }
}

#[test]
fn a_lease_is_taken_renewed_and_given_up_at_its_end() {
    let mut bench = Bench::new();
    assert_eq!(bench.grant(OURS, USUAL), Some(Change::Leased(usual())));
    // Half of ten minutes; the server's hardware address is asked for first.
    assert_eq!(bench.wait(299), None);
    assert_eq!(bench.asked().unwrap().0, REQUEST);
    let before = bench.asked().unwrap().1;
    assert_eq!(bench.wait(230), None);
    assert_ne!(bench.asked().unwrap().1, before, "asked of everybody at seven eighths");
    let renewed = bench.answer(ACK, OURS, USUAL);
    assert_eq!(renewed, Some(Change::Leased(usual())));
    let mut lost = None;
    for _ in 0..60 {
        lost = lost.or(bench.wait(10));
    }
    assert_eq!(lost, Some(Change::Lost));
    bench.wait(1);
    assert_eq!(bench.asked().unwrap().0, DISCOVER);
    assert_eq!(bench.grant(OURS, USUAL), Some(Change::Leased(usual())));
}

#[test]
fn it_asks_for_ever_and_ever_more_seldom() {
    let mut bench = Bench::new();
    let mut asked = Vec::new();
    for second in 0..1000 {
        let before = bench.client.port.sent;
        bench.wait(1);
        if bench.client.port.sent != before {
            asked.push(second);
        }
    }
    // 4 + 8 + 16 + 32, then every 64 seconds, a second more or less.
    assert!((16..=20).contains(&asked.len()), "{asked:?}");
    assert!(asked.windows(2).skip(5).all(|pair| (62..=67).contains(&(pair[1] - pair[0]))), "{asked:?}");
    assert_eq!(bench.grant(OURS, USUAL), Some(Change::Leased(usual())));
}

#[test]
fn a_refusal_begins_anew_and_a_pulled_cable_gives_up() {
    let mut bench = Bench::new();
    assert!(bench.grant(OURS, USUAL).is_some());
    bench.wait(530);
    assert_eq!(bench.answer(NAK, OURS, &[]), Some(Change::Lost));
    bench.wait(1);
    assert!(bench.grant(OURS, USUAL).is_some());
    assert!(bench.client.restart());
    assert!(!bench.client.restart());
}

/// What would make the box unreachable, or send it to itself, is not taken.
#[test]
fn leases_that_no_box_can_live_under_are_not_taken() {
    let mask = |octets: [u8; 4]| [&[1, 4], &octets[..], &[51, 4, 0, 0, 2, 88]].concat();
    let nets = [
        ([127, 0, 0, 1], [255, 255, 255, 0]),
        ([224, 0, 0, 1], [255, 255, 255, 0]),
        ([0, 0, 0, 7], [255, 255, 255, 0]),
        ([192, 0, 2, 0], [255, 255, 255, 0]),
        ([192, 0, 2, 255], [255, 255, 255, 0]),
        ([192, 0, 2, 100], [0, 0, 0, 0]),
        ([192, 0, 2, 100], [128, 0, 0, 0]),
        ([192, 0, 2, 100], [255, 0, 255, 0]),
    ];
    for (address, netmask) in nets {
        let mut bench = Bench::new();
        assert_eq!(bench.answer(OFFER, address, &mask(netmask)), None);
        assert_eq!(bench.answer(ACK, address, &mask(netmask)), None, "{address:?} {netmask:?}");
        for _ in 0..100 {
            assert_eq!(bench.wait(1), None);
        }
    }
    // A router that is the box itself is none; a lone address with a router elsewhere is what some hosters give.
    let mut bench = Bench::new();
    let own = [1, 4, 255, 255, 255, 0, 3, 4, 192, 0, 2, 100];
    let Some(Change::Leased(lease)) = bench.grant(OURS, &own) else { panic!() };
    assert_eq!((lease.router, lease.seconds), (None, 120));
    let mut bench = Bench::new();
    let lone = [1, 4, 255, 255, 255, 255, 3, 4, 10, 0, 0, 1];
    let Some(Change::Leased(lease)) = bench.grant(OURS, &lone) else { panic!() };
    assert_eq!((lease.address.prefix_len(), lease.router), (32, Some(Ipv4Addr::new(10, 0, 0, 1))));
}

/// Every octet of a good answer changed, every length cut: whatever comes of it, there is no panic.
#[test]
fn broken_answers_do_no_harm() {
    let length = message(ACK, [0; 4], OURS, USUAL).len();
    for at in 0..length {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bench = Bench::new();
            for kind in [OFFER, ACK] {
                let (_, transaction) = bench.asked().unwrap();
                let mut broken = message(kind, transaction, OURS, USUAL);
                broken[at] = value;
                bench.client.port.to_box.push_back(broken[..at].to_vec());
                bench.client.port.to_box.push_back(broken);
                bench.client.poll(bench.now);
            }
            bench.wait(1);
        }
    }
}

/// Three hundred answers at once: the other things this process does get their turn in between.
#[test]
fn a_flood_is_taken_in_parts() {
    let mut bench = Bench::new();
    let (_, transaction) = bench.asked().unwrap();
    for _ in 0..300 {
        bench.client.port.to_box.push_back(message(NAK, transaction, OURS, &[]));
    }
    bench.client.poll(bench.now);
    assert!(bench.client.port.to_box.len() >= 200);
}
