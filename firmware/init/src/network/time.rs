//! The box's time: where the clock starts, whom it believes, and how it is set right.
//!
//! - It never starts before the release was made, nor before what it last knew ([`start`]).
//! - The first answer steps the clock, later ones slew it. With two servers or more, two must agree.
//! - No answer sets it before the release was made. Certificates of that time would be valid again.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use settings::TimeServer;

use super::clock::{Clock, SLEW};
use super::judge::{Judgement, judge};
use super::names::{Progress, Query};
use super::report::Report;
use super::resolv::replace;
use super::sntp::{Exchange, Outcome, PORT, Sample};

/// Keeps the clock right.
pub(super) struct Keeper<C> {
    clock: C,
    /// Seconds since 1970 before which nothing is believed.
    floor: u64,
    saved: Option<PathBuf>,
    peers: Vec<Peer>,
    resolvers: Vec<SocketAddr>,
    next: Option<Instant>,
    asking: bool,
    synced: bool,
    /// The pause before the next question, as a power of two of seconds.
    pause: u32,
    /// The last offset that was too large to be slewed, and how often it was seen.
    jump: Option<(i64, u32)>,
    kept: Option<Instant>,
    /// Where the servers listen.
    port: u16,
}

/// A server and what goes on with it.
struct Peer {
    server: TimeServer,
    found: Vec<IpAddr>,
    state: State,
    sample: Option<Sample>,
    not_before: Option<Instant>,
}

enum State {
    Idle,
    Finding(Query),
    Asking(Exchange),
}

/// Pauses between questions: while nothing is known, and then by how steady the clock is.
const UNSYNCED: (u32, u32) = (2, 6);
const SYNCED: (u32, u32) = (6, 10);
/// What a first answer may leave to be slewed.
const NEAR: i64 = 10_000;
/// Whoever does not want to be asked is left alone so long.
const BANISHED: Duration = Duration::from_hours(24);
/// How often the time is kept for the next start.
const KEEP: Duration = Duration::from_hours(1);

impl<C: Clock> Keeper<C> {
    /// Begins: moves a clock that is before `release` (seconds since 1970), or before what was saved, up to that, and
    /// tells where the time is from.
    pub(super) fn start(mut clock: C, release: u64, saved: Option<PathBuf>, report: &mut Report) -> Self {
        let last = saved.as_deref().and_then(|path| read(path).ok()).unwrap_or(0);
        let start = release.max(last);
        let now = clock.now();
        let short = Duration::from_secs(start).saturating_sub(now);
        if short.is_zero() {
            report.stage("time source=rtc");
        } else {
            let offset = i64::try_from(short.as_micros()).unwrap_or(i64::MAX);
            match clock.step(offset) {
                Ok(()) => report.stage("time source=floor"),
                Err(error) => {
                    report.stage("time source=unset");
                    report.status(format!("the clock is before the release, and cannot be set: {error}"));
                }
            }
        }
        Self {
            clock,
            floor: release,
            saved,
            peers: Vec::new(),
            resolvers: Vec::new(),
            next: None,
            asking: false,
            synced: false,
            pause: UNSYNCED.0,
            jump: None,
            kept: None,
            port: PORT,
        }
    }

    /// Says whom to ask, and who finds their names. Asks at once if this is news and there is a network.
    pub(super) fn servers(&mut self, servers: &[TimeServer], resolvers: Vec<SocketAddr>, now: Instant) {
        let same = servers.iter().eq(self.peers.iter().map(|peer| &peer.server));
        let names = servers.iter().any(|server| matches!(server, TimeServer::Name(_)));
        if same && (!names || resolvers == self.resolvers) {
            return;
        }
        self.resolvers = resolvers;
        if !same {
            self.peers = servers.iter().cloned().map(Peer::new).collect();
        }
        self.hurry(now);
    }

    /// The way to the servers may be another one now: asks soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        if !self.synced {
            self.pause = UNSYNCED.0;
        }
        for peer in &mut self.peers {
            (peer.state, peer.sample) = (State::Idle, None);
        }
        self.asking = false;
        self.next = (!self.peers.is_empty()).then_some(now);
    }

    /// Goes on: asks, takes answers, sets the clock.
    pub(super) fn step(&mut self, now: Instant, report: &mut Report) {
        if !self.asking && self.next.is_some_and(|next| now >= next) {
            self.asking = true;
            for peer in &mut self.peers {
                peer.begin(&self.resolvers, self.port, &self.clock, now);
            }
        }
        if self.asking {
            for peer in &mut self.peers {
                peer.step(self.port, &self.clock, now, report);
            }
            if self.peers.iter().all(|peer| matches!(peer.state, State::Idle)) {
                self.asking = false;
                self.conclude(report);
                self.next = Some(now + Duration::from_secs(1 << self.pause));
            }
        }
        if self.synced && self.kept.is_none_or(|kept| now.saturating_duration_since(kept) >= KEEP) {
            self.kept = Some(now);
            self.keep(report);
        }
    }

    /// When to call [`Keeper::step`], if nothing comes in before.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = |peer: &Peer| match &peer.state {
            State::Idle => None,
            State::Finding(query) => query.next(),
            State::Asking(exchange) => Some(exchange.next()),
        };
        if self.asking { self.peers.iter().filter_map(due).min() } else { self.next }
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.peers.iter().filter_map(|peer| match &peer.state {
            State::Idle => None,
            State::Finding(query) => query.fd(),
            State::Asking(exchange) => Some(exchange.fd()),
        })
    }

    /// Writes down what time it is, if that is known.
    pub(super) fn keep(&self, report: &mut Report) {
        let Some(path) = self.saved.as_deref().filter(|_| self.synced) else { return };
        if let Err(error) = replace(path, format!("{}\n", self.clock.now().as_secs()).as_bytes(), 0o644) {
            report.status(format!("the time cannot be kept in {}: {error}", path.display()));
        }
    }

    /// All were asked: sets the clock by what they said.
    fn conclude(&mut self, report: &mut Report) {
        let samples = self.peers.iter().filter_map(|peer| peer.sample).collect::<Vec<_>>();
        let (least, most) = if self.synced { SYNCED } else { UNSYNCED };
        let sample = match judge(&samples, self.peers.len(), self.floor, self.clock.now()) {
            Judgement::Believe(sample) => sample,
            Judgement::Silence => {
                self.pause = (self.pause + 1).clamp(least, most);
                return;
            }
            judgement => {
                self.pause = (self.pause + 1).clamp(least, most);
                report.status(format!("time: {judgement}"));
                return;
            }
        };
        if let Err(error) = self.set(sample, report) {
            self.pause = most;
            let (seconds, server) = (sample.offset / 1_000_000, sample.server);
            report.status(format!("time: {server} is {seconds} s off, and the clock cannot be set: {error}"));
        }
    }

    fn set(&mut self, sample: Sample, report: &mut Report) -> io::Result<()> {
        let offset = sample.offset;
        let near = if self.synced { SLEW } else { NEAR };
        if offset.abs() <= near {
            self.jump = None;
            self.pause = match offset.abs() {
                _ if !self.synced => SYNCED.0,
                0..5_000 => self.pause + 1,
                5_000..20_000 => self.pause,
                _ => self.pause.saturating_sub(1),
            };
            self.pause = self.pause.clamp(SYNCED.0, SYNCED.1);
            self.clock.slew(offset, Duration::from_secs(1 << self.pause))?;
        } else if !self.synced || self.is_certain(offset) {
            self.clock.step(offset)?;
            (self.jump, self.pause) = (None, SYNCED.0);
            report.status(format!("time: stepped by {} ms", offset / 1000));
        } else {
            self.pause = UNSYNCED.0 + 2;
            report.status(format!("time: {} says {} ms off; asking again", sample.server, offset / 1000));
            return Ok(());
        }
        let first = !std::mem::replace(&mut self.synced, true);
        if first {
            report.stage(format!("time source=sntp server={} offset_ms={}", sample.server, offset / 1000));
        }
        Ok(())
    }

    /// Whether a large offset was seen three times: a clock that was right does not leap, and who says so may lie once.
    fn is_certain(&mut self, offset: i64) -> bool {
        const TIMES: u32 = 3;
        const ALIKE: i64 = 1_000_000;
        let seen = match self.jump {
            Some((before, seen)) if before.abs_diff(offset) <= ALIKE.unsigned_abs() => seen + 1,
            _ => 1,
        };
        self.jump = Some((offset, seen));
        seen >= TIMES
    }
}

impl Peer {
    fn new(server: TimeServer) -> Self {
        Self { server, found: Vec::new(), state: State::Idle, sample: None, not_before: None }
    }

    fn begin(&mut self, resolvers: &[SocketAddr], port: u16, clock: &dyn Clock, now: Instant) {
        self.sample = None;
        if self.not_before.is_some_and(|until| now < until) {
            return;
        }
        match &self.server {
            TimeServer::Address(address) => self.ask(SocketAddr::new(*address, port), clock, now),
            TimeServer::Name(name) => match self.found.first().copied() {
                Some(address) => self.ask(SocketAddr::new(address, port), clock, now),
                None => self.state = State::Finding(Query::new(name, resolvers.to_vec())),
            },
        }
    }

    fn ask(&mut self, server: SocketAddr, clock: &dyn Clock, now: Instant) {
        if let Ok(exchange) = Exchange::start(server, clock, now) {
            self.state = State::Asking(exchange);
        } else {
            self.failed(); // no route to it
        }
    }

    fn step(&mut self, port: u16, clock: &dyn Clock, now: Instant, report: &mut Report) {
        if let State::Finding(query) = &mut self.state {
            match query.step(now) {
                Progress::Wait => return,
                Progress::Done(found) => {
                    self.found = found;
                    self.state = State::Idle;
                    if let Some(address) = self.found.first().copied() {
                        self.ask(SocketAddr::new(address, port), clock, now);
                    } else if let TimeServer::Name(name) = &self.server {
                        report.status(format!("time: no address of {name} is known"));
                    }
                }
            }
        }
        let State::Asking(exchange) = &mut self.state else { return };
        match exchange.step(clock, now) {
            Outcome::Wait => return,
            Outcome::Sample(sample) => self.sample = Some(sample),
            Outcome::Nothing => self.failed(),
            Outcome::Slower => self.not_before = Some(now + Duration::from_secs(1 << SYNCED.1)),
            Outcome::Forbidden => {
                self.not_before = Some(now + BANISHED);
                self.failed();
            }
        }
        self.state = State::Idle;
    }

    /// The next address that the name had is tried next, and the name is asked for anew behind the last.
    fn failed(&mut self) {
        if !self.found.is_empty() {
            self.found.remove(0);
        }
    }
}

/// The time that was kept, in seconds since 1970.
fn read(path: &std::path::Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests;
