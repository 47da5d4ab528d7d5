//! Finds a time server's address by its name: one question to one name server after the other, over UDP.
//!
//! The system's own way, getaddrinfo, loads libraries that a static executable does not have, and blocks.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData, DnsRepr,
};

use super::random;

/// A look-up under way.
pub(super) struct Query {
    /// The name as DNS has it: labels behind their lengths.
    name: Vec<u8>,
    servers: Vec<SocketAddr>,
    /// Which question is asked: IPv4, then IPv6, of each server in turn.
    turn: usize,
    asking: Option<Asking>,
    found: Vec<IpAddr>,
}

struct Asking {
    socket: UdpSocket,
    id: u16,
    until: Instant,
}

/// What became of it so far.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// Wait on.
    Wait,
    /// These; empty: nobody knows.
    Done(Vec<IpAddr>),
}

const PATIENCE: Duration = Duration::from_secs(2);
const KINDS: [DnsQueryType; 2] = [DnsQueryType::A, DnsQueryType::Aaaa];
/// Addresses of one name that are kept.
const MOST: usize = 8;

impl Query {
    /// Asks for `name`.
    pub(super) fn new(name: &str, servers: Vec<SocketAddr>) -> Self {
        Self { name: wire_name(name), servers, turn: 0, asking: None, found: Vec::new() }
    }

    /// Goes on: sends the next question, takes an answer.
    pub(super) fn step(&mut self, now: Instant) -> Progress {
        loop {
            if self.asking.is_none() {
                // Having found something of either kind, the next server could add nothing.
                let round_over = self.turn.is_multiple_of(KINDS.len()) && !self.found.is_empty();
                let Some(server) = self.servers.get(self.turn / KINDS.len()).filter(|_| !round_over) else {
                    return Progress::Done(std::mem::take(&mut self.found));
                };
                match ask(*server, &self.name, self.kind(), now) {
                    Ok(asking) => self.asking = Some(asking),
                    Err(_) => self.turn += 1, // no route to it
                }
                continue;
            }
            match self.receive(now) {
                Some(addresses) => {
                    let room = MOST.saturating_sub(self.found.len());
                    self.found.extend(addresses.into_iter().take(room));
                    (self.asking, self.turn) = (None, self.turn + 1);
                }
                None => return Progress::Wait,
            }
        }
    }

    /// When to call [`Query::step`], if nothing comes in before.
    pub(super) fn next(&self) -> Option<Instant> {
        self.asking.as_ref().map(|asking| asking.until)
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.asking.as_ref().map(|asking| asking.socket.as_fd())
    }

    fn kind(&self) -> DnsQueryType {
        if self.turn.is_multiple_of(2) { DnsQueryType::A } else { DnsQueryType::Aaaa }
    }

    /// The answer to the question that is asked; nothing in it if the server failed or the time is over.
    fn receive(&self, now: Instant) -> Option<Vec<IpAddr>> {
        let asking = self.asking.as_ref()?;
        loop {
            let mut answer = [0; 1500];
            match asking.socket.recv(&mut answer) {
                Ok(length) => {
                    let read = read(answer.get(..length)?, asking.id, &self.name, self.kind());
                    if let Some(addresses) = read {
                        return Some(addresses);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return (now >= asking.until).then(Vec::new);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Some(Vec::new()), // nobody listens there
            }
        }
    }
}

/// The name must be one, of at most 253 octets; the settings made sure of that.
fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| (1..64).contains(&label.len())) {
        wire.push(u8::try_from(label.len()).unwrap_or(0));
        wire.extend(label.bytes());
    }
    wire.push(0);
    wire
}

fn ask(server: SocketAddr, name: &[u8], kind: DnsQueryType, now: Instant) -> io::Result<Asking> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    // Connected: the kernel lets answers from nobody else through. It also picks the port, at random.
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    let [first, second, ..] = random().to_ne_bytes();
    let id = u16::from_ne_bytes([first, second]);
    let question = DnsRepr {
        transaction_id: id,
        opcode: DnsOpcode::Query,
        flags: DnsFlags::RECURSION_DESIRED,
        question: DnsQuestion { name, type_: kind },
    };
    let mut message = vec![0; question.buffer_len()];
    question.emit(&mut DnsPacket::new_unchecked(message.as_mut_slice()));
    socket.send(&message)?;
    Ok(Asking { socket, id, until: now + PATIENCE })
}

/// The addresses in an answer; `None`: this is not the answer to our question.
fn read(message: &[u8], id: u16, name: &[u8], kind: DnsQueryType) -> Option<Vec<IpAddr>> {
    let packet = DnsPacket::new_checked(message).ok()?;
    let ours = packet.transaction_id() == id
        && packet.flags().contains(DnsFlags::RESPONSE)
        && packet.opcode() == DnsOpcode::Query
        && packet.question_count() == 1;
    let (mut rest, question) = DnsQuestion::parse(packet.payload()).ok()?;
    if !ours || question.type_ != kind || !question.name.eq_ignore_ascii_case(name) {
        return None;
    }
    let mut found = Vec::new();
    if packet.rcode() != DnsRcode::NoError {
        return Some(found);
    }
    for _ in 0..packet.answer_record_count() {
        // A record that is broken ends the answer. Aliases before the addresses are passed over: the server that was
        // asked followed them, and if it lies, it can lie in one record as well as in two.
        let Ok((behind, record)) = DnsRecord::parse(rest) else { break };
        rest = behind;
        match record.data {
            DnsRecordData::A(address) => found.push(IpAddr::V4(address)),
            DnsRecordData::Aaaa(address) => found.push(IpAddr::V6(address)),
            _ => {}
        }
        if found.len() == MOST {
            break;
        }
    }
    found.retain(|address| super::link::is_host(*address));
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u16 = 0x1234;

    fn name() -> Vec<u8> {
        wire_name("ntp.example.net")
    }

    /// An alias and two addresses, as dnsmasq answered.
    fn recorded() -> Vec<u8> {
        let mut answer = vec![0x12, 0x34, 0x85, 0x80, 0, 1, 0, 3, 0, 0, 0, 0];
        answer.extend(name());
        answer.extend([0, 1, 0, 1]);
        answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'a', 0xc0, 16]);
        answer.extend([0xc0, 0x2d, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 123]);
        answer.extend([0xc0, 0x2d, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 124]);
        answer
    }

    #[test]
    fn an_answer_is_read_through_its_alias() {
        let found = read(&recorded(), ID, &name(), DnsQueryType::A).unwrap();
        assert_eq!(found, ["192.0.2.123", "192.0.2.124"].map(|text| text.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn only_the_answer_to_our_question_counts() {
        assert_eq!(read(&recorded(), ID + 1, &name(), DnsQueryType::A), None);
        assert_eq!(read(&recorded(), ID, &name(), DnsQueryType::Aaaa), None);
        assert_eq!(read(&recorded(), ID, &wire_name("other.example.net"), DnsQueryType::A), None);
        let mut question = recorded();
        question[2] = 0x01;
        assert_eq!(read(&question, ID, &name(), DnsQueryType::A), None);
        let mut unknown = recorded();
        unknown[3] = 0x83; // NXDOMAIN
        assert_eq!(read(&unknown, ID, &name(), DnsQueryType::A), Some(Vec::new()));
    }

    #[test]
    fn whatever_comes_there_is_no_panic() {
        let whole = recorded();
        for at in 0..whole.len() {
            let _ = read(&whole[..at], ID, &name(), DnsQueryType::A);
            for value in [0, 1, 0x3f, 0xc0, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                let found = read(&broken, ID, &name(), DnsQueryType::A).unwrap_or_default();
                assert!(found.len() <= MOST);
            }
        }
    }

    /// Runs a look-up to its end.
    fn look_up(servers: Vec<SocketAddr>) -> Vec<IpAddr> {
        let mut query = Query::new("ntp.example.net", servers);
        loop {
            if let Progress::Done(found) = query.step(Instant::now()) {
                return found;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_second_server_is_asked_when_the_first_is_not_there() {
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let second = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            for _ in KINDS {
                let mut question = [0; 512];
                let (length, from) = server.recv_from(&mut question).unwrap();
                let mut answer = question[..length].to_vec();
                answer[2] |= 0x80;
                if answer[length - 3] == 1 {
                    answer[7] = 1;
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 123]);
                }
                server.send_to(&answer, from).unwrap();
            }
        });
        assert_eq!(look_up(vec![nobody, second]), ["192.0.2.123".parse::<IpAddr>().unwrap()]);
        answering.join().unwrap();
        assert!(look_up(vec![nobody]).is_empty());
        assert!(look_up(Vec::new()).is_empty());
    }
}
