//! One client connection: PROXY header, TLS, the session machine up to its login, then the relay.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::session::{Action, Answer, Closed, Login, Note, Protocol, Session, Transport};
use preface::client_hello::{self, ClientHello};
use preface::proxy_protocol;
use settings::Listener;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Instrument, debug, info};

use crate::admit::{self, Attempt, Client, Live, Outcome};
use crate::event::{Event, Kind};
use crate::gateway::Gateway;
use crate::listen::Permit;
use crate::relay::{Ended, Kill, relay};
use crate::stream::{Read, Stream};
use crate::submission;

/// A PROXY header comes in the first segment of a connection, or never.
const PROXY_HEADER: Duration = Duration::from_secs(5);
/// The longest farewell to a peer that no longer reads.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a connection ended before a login, for the log.
#[derive(Debug)]
enum Gone {
    /// The peer went away, or the socket failed.
    Peer(io::Error),
    /// A deadline passed; the word says in which state.
    Late(&'static str),
    /// The session machine closed it.
    Closed(Closed),
    /// The peer did not speak what it should.
    Not(&'static str),
}

impl From<io::Error> for Gone {
    fn from(error: io::Error) -> Self {
        Self::Peer(error)
    }
}

/// Serves one accepted connection to its end.
pub async fn serve(gateway: Arc<Gateway>, socket: TcpStream, listener: Listener, permit: Permit) {
    let Ok(remote) = socket.peer_addr() else { return };
    let Ok(local) = socket.local_addr() else { return };
    let id = connection_id();
    let span = tracing::info_span!("connection", id = %id, protocol = listener.protocol.name(), client = tracing::field::Empty);
    let client = Client::new(id, listener.protocol, canonical(remote), canonical(local));
    run(gateway, Stream::clear(socket), listener, client, permit).instrument(span).await;
}

/// IPv4 clients of an IPv6 listener show their IPv4 address everywhere.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn run(gateway: Arc<Gateway>, stream: Stream, listener: Listener, client: Client, permit: Permit) {
    // Boxed, and gone before the relay begins: a parked session does not pay for its login.
    let connection =
        Connection { gateway: &gateway, stream, inbox: Vec::new(), client, listener, failures: 0 };
    let live = match Box::pin(connection.until_login(permit)).await {
        Ok(live) => live,
        Err(gone) => {
            gateway.metrics.closed_before_login(listener.protocol);
            match gone {
                Gone::Peer(error) => debug!(%error, "client went away before login"),
                Gone::Late(state) => info!(state, "closed: deadline passed"),
                Gone::Closed(Closed::ByClient) => debug!("closed by the client before login"),
                Gone::Closed(why) => info!(?why, "closed: hostile or broken client"),
                Gone::Not(what) => info!(what, "closed: not what this port speaks"),
            }
            return;
        }
    };
    after_login(&gateway, live).await;
}

async fn after_login(gateway: &Gateway, live: Box<Live>) {
    let Live { client, mut backend, up, seat, mut kill, moved, permit: _permit, listed: _listed, .. } = *live;
    let Some(mut client) = client else { return };
    let protocol = seat.protocol;
    let idle = gateway.current().settings.limits.idle(protocol);
    client.relaying();
    backend.relaying();
    let ended = if protocol == Protocol::Submission {
        submission::run(gateway, &seat, &mut client, &mut backend, up, &mut kill, &moved).await
    } else {
        match backend.send(&up).await {
            Ok(()) => {
                drop(up);
                relay(&mut client, &mut backend, &mut kill, idle, &moved).await
            }
            Err(error) => Ended::Backend(error),
        }
    };
    let (up, down) = (moved.up(), moved.down());
    gateway.metrics.relayed(protocol, up, down);
    let farewell = match (&ended, protocol) {
        (Ended::Killed { why, at_line: true }, Protocol::Imap) => Some(match why {
            Kill::Revoked => &b"* BYE Session ended.\r\n"[..],
            Kill::Drain => b"* BYE Server shutting down.\r\n",
        }),
        (Ended::Idle, Protocol::Imap) => Some(&b"* BYE Idle for too long.\r\n"[..]),
        // A backend that dies mid-session must not look like a clean logout.
        (Ended::Backend(_), Protocol::Imap) => Some(&b"* BYE Temporary server failure.\r\n"[..]),
        // POP3 has no unsolicited replies (RFC 1939 §3), and submission says its own 421.
        _ => None,
    };
    if let Some(farewell) = farewell {
        let _ = timeout(FAREWELL, client.send(farewell)).await;
    }
    client.close_write();
    let _ = timeout(FAREWELL, client.flush()).await;
    match ended {
        Ended::Done => debug!(up, down, "session over"),
        Ended::Idle => info!(up, down, "session over: idle"),
        Ended::Killed { why, .. } => info!(up, down, ?why, "session ended from outside"),
        Ended::Client(error) => debug!(up, down, %error, "client went away"),
        Ended::Backend(error) => {
            info!(up, down, %error, "backend went away");
        }
    }
}

struct Connection<'g> {
    gateway: &'g Arc<Gateway>,
    stream: Stream,
    /// Plaintext that the machine has not taken yet; at most one read's worth.
    inbox: Vec<u8>,
    client: Client,
    listener: Listener,
    failures: u32,
}

impl Connection<'_> {
    async fn until_login(mut self, permit: Permit) -> Result<Box<Live>, Gone> {
        let limits = self.gateway.current().settings.limits.clone();
        let start = Instant::now();
        self.proxy_header().await?;
        if !permit.network(&self.client) {
            return Err(Gone::Not("too many connections from this network"));
        }
        if self.listener.transport == Transport::Tls {
            timeout_at(start + limits.handshake_timeout, self.handshake())
                .await
                .map_err(|_| Gone::Late("TLS handshake"))??;
        }
        let deadline = start + limits.login_timeout;
        let transport = self.listener.transport;
        let gateway = Arc::clone(self.gateway);
        let mut live = match self.listener.protocol {
            Protocol::Imap => {
                let offer = gateway.upstreams().imap_offer();
                self.drive(Box::new(imap::Session::new(transport)), &offer, deadline).await?
            }
            Protocol::Pop3 => {
                let offer = gateway.upstreams().pop3_offer();
                self.drive(Box::new(pop3::Session::new(transport)), &offer, deadline).await?
            }
            Protocol::Submission => {
                let offer = gateway.upstreams().smtp_offer();
                self.drive(Box::new(smtp::Session::new(transport)), &offer, deadline).await?
            }
        };
        live.client = Some(self.stream);
        live.permit = Some(permit);
        Ok(live)
    }

    /// Takes the client's address from a load balancer that is listed, and only from one.
    async fn proxy_header(&mut self) -> Result<(), Gone> {
        let current = self.gateway.current();
        let balancers = &current.settings.listen.proxy_protocol;
        let show = |address: std::net::IpAddr| {
            tracing::Span::current().record("client", tracing::field::display(address));
        };
        if !balancers.iter().any(|network| network.contains(&self.client.address.ip())) {
            show(self.client.address.ip());
            return Ok(());
        }
        let deadline = Instant::now() + PROXY_HEADER;
        loop {
            match proxy_protocol::decode(&self.inbox) {
                Ok(Some(header)) => {
                    if let Some(ends) = header.ends {
                        self.client.address = canonical(ends.source);
                        self.client.local = canonical(ends.destination);
                    }
                    show(self.client.address.ip());
                    self.inbox.drain(..header.consumed);
                    return Ok(());
                }
                Ok(None) => {
                    let read = timeout_at(deadline, self.stream.read_raw(&mut self.inbox)).await;
                    if read.map_err(|_| Gone::Late("PROXY header"))?? == 0 {
                        return Err(Gone::Not("a load balancer closed before its PROXY header"));
                    }
                }
                Err(_) => return Err(Gone::Not("no PROXY header from a listed load balancer")),
            }
        }
    }

    /// Reads the ClientHello for its name and fingerprint, then hands it to rustls.
    async fn handshake(&mut self) -> Result<(), Gone> {
        let mut raw = std::mem::take(&mut self.inbox);
        let mut scanner = client_hello::Scanner::new();
        let hello = loop {
            match scanner.advance(&raw) {
                client_hello::Progress::Hello(hello) => break Some(hello),
                // rustls says what is wrong by an alert of its own.
                client_hello::Progress::NotTls(_) => break None,
                client_hello::Progress::NeedMore => {}
            }
            if self.stream.read_raw(&mut raw).await? == 0 {
                return Err(Gone::Peer(io::ErrorKind::UnexpectedEof.into()));
            }
        };
        let config = self.gateway.current().tls();
        let started = Instant::now();
        match self.stream.accept_tls(config, raw).await {
            Ok(early) => self.inbox = early,
            Err(error) => {
                self.gateway.metrics.handshake_failed(self.listener.protocol);
                debug!(%error, "TLS handshake failed");
                return Err(Gone::Peer(error));
            }
        }
        let resumed = self.stream.resumed().unwrap_or(false);
        self.gateway.metrics.handshake(self.listener.protocol, resumed, started.elapsed());
        if let Some(hello) = hello {
            self.know(*hello);
        }
        Ok(())
    }

    fn know(&mut self, hello: ClientHello) {
        debug!(ja4 = %hello.ja4, tls = self.stream.tls_name(), resumed = self.stream.resumed(), "TLS");
        self.client.tls = true;
        self.client.sni = hello.sni;
        self.client.ja4 = hello.ja4_stable;
    }

    async fn drive<S: Session>(
        &mut self,
        mut machine: Box<S>,
        offer: &S::Offer,
        deadline: Instant,
    ) -> Result<Box<Live>, Gone> {
        // A dialogue's answer goes out in one write, however many pieces it is made of.
        let mut out = Vec::new();
        loop {
            let taken = machine.push(&self.inbox);
            self.inbox.drain(..taken);
            let mut progress = taken > 0;
            let mut attempt = None;
            while let Some(action) = machine.next(offer) {
                match action {
                    Action::Send(bytes) => out.extend_from_slice(bytes),
                    Action::Login(login) => {
                        attempt = Some(Attempt::of(&login));
                        break;
                    }
                    Action::StartTls => {
                        if !self.inbox.is_empty() {
                            return Err(Gone::Closed(Closed::Injection));
                        }
                        self.say(&mut out, deadline).await?;
                        timeout_at(deadline, self.handshake())
                            .await
                            .map_err(|_| Gone::Late("TLS handshake"))??;
                        machine.tls_established();
                        progress = true;
                    }
                    Action::Note(note) => self.note(note),
                    Action::Relay => return Err(Gone::Not("a relay without a login")),
                    Action::Close(why) => {
                        self.say(&mut out, deadline).await?;
                        self.stream.close_write();
                        let _ = timeout(FAREWELL, self.stream.flush()).await;
                        if why != Closed::ByClient {
                            self.gateway.metrics.hostile(self.listener.protocol);
                        }
                        return Err(Gone::Closed(why));
                    }
                }
            }
            self.say(&mut out, deadline).await?;
            if let Some(attempt) = attempt {
                if let Some(live) = self.decide(machine.as_mut(), offer, attempt, &mut out).await? {
                    return Ok(live);
                }
                continue;
            }
            if !self.inbox.is_empty() {
                if progress {
                    continue;
                }
                return Err(Gone::Closed(Closed::TooLong));
            }
            if progress && taken == 0 {
                continue;
            }
            let inbox = &mut self.inbox;
            let mut keep = |bytes: &[u8]| inbox.extend_from_slice(bytes);
            match timeout_at(deadline, self.stream.read(&mut keep)).await {
                Ok(Ok(Read::Data)) => {}
                Ok(Ok(Read::End)) => return Err(Gone::Peer(io::ErrorKind::UnexpectedEof.into())),
                Ok(Err(error)) => return Err(Gone::Peer(error)),
                Err(_) => return Err(Gone::Late("login")),
            }
        }
    }

    async fn say(&mut self, out: &mut Vec<u8>, deadline: Instant) -> Result<(), Gone> {
        if !out.is_empty() {
            timeout_at(deadline, self.stream.send(out)).await.map_err(|_| Gone::Late("reply"))??;
            out.clear();
        }
        Ok(())
    }

    /// Lets a login be decided and tells the machine. `Some`: logged in, and the client has its answer.
    async fn decide<S: Session>(
        &mut self,
        machine: &mut S,
        offer: &S::Offer,
        attempt: Attempt,
        out: &mut Vec<u8>,
    ) -> Result<Option<Box<Live>>, Gone> {
        let outcome = admit::admit(self.gateway, &self.client, attempt).await;
        let mut live = match outcome {
            Outcome::In(live) => {
                machine.answer(Answer::Admitted { untagged: &live.untagged, text: &live.text });
                live
            }
            Outcome::Failed => {
                self.failures += 1;
                let last = self.failures >= self.gateway.current().settings.abuse.failures_per_connection;
                machine.answer(if last { Answer::FailedLast } else { Answer::Failed });
                return Ok(None);
            }
            Outcome::Unavailable => {
                machine.answer(Answer::Unavailable);
                return Ok(None);
            }
        };
        while let Some(action) = machine.next(offer) {
            match action {
                Action::Send(bytes) => out.extend_from_slice(bytes),
                Action::Relay => break,
                Action::Note(note) => self.note(note),
                Action::Close(why) => return Err(Gone::Closed(why)),
                Action::StartTls | Action::Login(_) => return Err(Gone::Not("an action behind a login")),
            }
        }
        live.up.extend_from_slice(machine.rest());
        live.up.append(&mut self.inbox);
        out.append(&mut live.down);
        timeout(FAREWELL * 5, self.stream.send(out)).await.map_err(|_| Gone::Late("reply"))??;
        Ok(Some(live))
    }

    fn note(&self, note: Note) {
        match note {
            Note::ClientIdInClear => {
                info!("CLIENTID in clear: refused as unknown and wiped");
                self.gateway.events.record(Event::new(Kind::ClientIdInClear, self.client.subject()));
            }
            Note::LoginInClear => {
                info!("login in clear: refused before its credentials were looked at");
                self.gateway.events.record(Event::new(Kind::LoginInClear, self.client.subject()));
            }
            Note::ClientIdUnderscore => debug!("CLIENTID type with _ taken as -"),
            Note::Malformed => debug!("malformed command"),
        }
    }
}

/// 64 random bits in lower-case base32: unique among what one log holds, and an XCLIENT SESSION as it is.
fn connection_id() -> String {
    use ring::rand::SecureRandom;
    let mut bytes = [0u8; 8];
    // Without randomness TLS would not work either; an id of zeros harms nothing.
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    let mut bits = u64::from_be_bytes(bytes);
    let mut id = String::with_capacity(13);
    for _ in 0..13 {
        let digit = usize::try_from(bits & 31).unwrap_or(0);
        id.push(char::from(*b"abcdefghijklmnopqrstuvwxyz234567".get(digit).unwrap_or(&b'a')));
        bits >>= 5;
    }
    id
}

/// So that `Login` need not be named elsewhere.
impl Attempt {
    fn of(login: &Login<'_>) -> Self {
        Self {
            mechanism: login.mechanism,
            user: login.user.to_vec(),
            authzid: login.authzid.map(<[u8]>::to_vec),
            secret: zeroize::Zeroizing::new(login.secret.to_vec()),
            clientid: login.clientid.cloned(),
            label: Box::new(login.label.clone()),
        }
    }
}
