//! One question to a time server and its answer (RFC 4330), checked by `sntpc`.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use sntpc::{Error, KissOfDeathCode, NtpContext, NtpTimestampGenerator, NtpUdpSocket, SendRequestResult};

use super::clock::Clock;

/// What a server says of our clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Sample {
    /// Who said it.
    pub(super) server: IpAddr,
    /// What to add to the clock, in microseconds.
    pub(super) offset: i64,
    /// How wrong that may be: half of the way there and back, and what the server knows of its own way.
    pub(super) error: i64,
}

/// A question under way.
pub(super) struct Exchange {
    server: SocketAddr,
    socket: UdpSocket,
    request: SendRequestResult,
    until: Instant,
}

/// What became of it so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// Wait on.
    Wait,
    /// An answer.
    Sample(Sample),
    /// No answer, or none that counts.
    Nothing,
    /// It answered that it does not want to be asked so often.
    Slower,
    /// It answered that it does not want to be asked at all.
    Forbidden,
}

const PATIENCE: Duration = Duration::from_secs(3);
/// Where time servers listen.
pub(super) const PORT: u16 = 123;

impl Exchange {
    /// Asks a server.
    pub(super) fn start(server: SocketAddr, clock: &dyn Clock, now: Instant) -> io::Result<Self> {
        let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        // Connected: the kernel lets answers from nobody else through.
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        let request =
            at_once(sntpc::sntp_send_request(server, &Wire { socket: &socket, answer: &[] }, stamp(clock)))
                .and_then(Result::ok)
                .ok_or(io::ErrorKind::NetworkUnreachable)?;
        Ok(Self { server, socket, request, until: now + PATIENCE })
    }

    /// Takes an answer.
    pub(super) fn step(&mut self, clock: &dyn Clock, now: Instant) -> Outcome {
        loop {
            // What a longer answer has behind this, extensions or a signature, is cut off.
            let mut answer = [0; 48];
            match self.socket.recv(&mut answer) {
                Ok(length) => {
                    let outcome = self.read(answer.get(..length).unwrap_or_default(), clock);
                    if outcome != Outcome::Wait {
                        return outcome;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return if now >= self.until { Outcome::Nothing } else { Outcome::Wait };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Outcome::Nothing, // nobody listens there
            }
        }
    }

    /// Reads an answer. What does not match the question may be forged: the true one may still come.
    fn read(&self, answer: &[u8], clock: &dyn Clock) -> Outcome {
        let wire = Wire { socket: &self.socket, answer };
        let result = at_once(sntpc::sntp_process_response(self.server, &wire, stamp(clock), self.request));
        match result {
            Some(Ok(result)) => {
                // Root delay and dispersion are in 1/65536 seconds.
                let root = i64::from(result.root_delay / 2) + i64::from(result.root_dispersion);
                let way = i64::try_from(result.roundtrip / 2).unwrap_or(i64::MAX);
                let error = way.saturating_add(root * 1_000_000 / 65_536);
                Outcome::Sample(Sample { server: self.server.ip(), offset: result.offset, error })
            }
            Some(Err(Error::KissOfDeath(KissOfDeathCode::Rate))) => Outcome::Slower,
            Some(Err(Error::KissOfDeath(KissOfDeathCode::Deny | KissOfDeathCode::Rstr))) => {
                Outcome::Forbidden
            }
            Some(Err(Error::UnsynchronizedClock | Error::KissOfDeath(_) | Error::ExcessiveRootDistance)) => {
                Outcome::Nothing
            }
            _ => Outcome::Wait,
        }
    }

    /// When to call [`Exchange::step`], if nothing comes in before.
    pub(super) fn next(&self) -> Instant {
        self.until
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The library's socket: what is sent goes out, and what is received has come in already, so that it never waits.
struct Wire<'a> {
    socket: &'a UdpSocket,
    answer: &'a [u8],
}

impl NtpUdpSocket for Wire<'_> {
    async fn send_to(&self, message: &[u8], _: SocketAddr) -> sntpc::Result<usize> {
        self.socket.send(message).map_err(|_| Error::Network)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> sntpc::Result<(usize, SocketAddr)> {
        let length = self.answer.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(self.answer) {
            *to = *from;
        }
        let from = self.socket.peer_addr().map_err(|_| Error::Network)?;
        Ok((length, from))
    }
}

/// Runs a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// The clock's time, once: the library asks for its parts one after the other.
#[derive(Clone, Copy)]
struct Stamp(Duration);

impl NtpTimestampGenerator for Stamp {
    fn init(&mut self) {}

    fn timestamp_sec(&self) -> u64 {
        self.0.as_secs()
    }

    fn timestamp_subsec_micros(&self) -> u32 {
        self.0.subsec_micros()
    }
}

fn stamp(clock: &dyn Clock) -> NtpContext<Stamp> {
    NtpContext::new(Stamp(clock.now()))
}
