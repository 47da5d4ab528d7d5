//! Submission after login: drives `smtp::Relay` between a client and its backend, streaming messages uncopied.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use policy::abuse::Budget;
use smtp::{BodyEnd, Limits, MessageAnswer, Offer, Relay, RelayAction, RelayEnd, SenderAnswer};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::admit::Seat;
use crate::event::{Kind, Subject};
use crate::gateway::Gateway;
use crate::relay::{Ended, Kill};
use crate::sessions::Octets;
use crate::stream::{Read, Stream};

/// A revoked device's message under way may take this long to end; then it is cut, and was never accepted.
const REVOKED: Duration = Duration::from_millis(800);

/// Everything of one session that is not the sockets.
struct Session<'g> {
    gateway: &'g Gateway,
    seat: &'g Seat,
    machine: Box<Relay>,
    /// Octets of the client that the machine has not taken.
    up: Vec<u8>,
    /// Octets of the backend that the machine has not taken.
    down: Vec<u8>,
    /// Answers gathered for one write.
    to_client: Vec<u8>,
    /// Commands gathered for one write.
    to_backend: Vec<u8>,
    moved: &'g Octets,
}

/// What the sockets brought.
enum Brought {
    Client(Read),
    Backend(Read),
}

/// Runs the session to its end. `up`: octets of the client that came behind its login.
pub async fn run(
    gateway: &Gateway,
    seat: &Seat,
    client: &mut Stream,
    backend: &mut Stream,
    up: Vec<u8>,
    kill: &mut oneshot::Receiver<Kill>,
    moved: &Octets,
) -> Ended {
    let idle = gateway.current().settings.limits.idle(seat.protocol);
    let offer = gateway.upstreams().smtp_offer();
    let machine = Box::new(Relay::new(Limits {
        size: gateway.current().settings.submission.size_limit,
        ..Limits::default()
    }));
    let (down, to_client, to_backend) = (Vec::new(), Vec::new(), Vec::new());
    let mut session = Session { gateway, seat, machine, up, down, to_client, to_backend, moved };
    session.serve(&offer, client, backend, kill, idle).await
}

impl Session<'_> {
    async fn serve(
        &mut self,
        offer: &Offer,
        client: &mut Stream,
        backend: &mut Stream,
        kill: &mut oneshot::Receiver<Kill>,
        idle: Duration,
    ) -> Ended {
        let mut backend_open = true;
        let mut killed = None;
        let timer = tokio::time::sleep(idle);
        tokio::pin!(timer);
        let mut seen = self.moved.up() + self.moved.down();
        loop {
            match self.work(offer, client, backend) {
                Ok(None) => {}
                Ok(Some(end)) => return self.close(end, killed, client).await,
                Err(Side::Client(error)) => return Ended::Client(error),
                Err(Side::Backend(error)) => {
                    debug!(%error, "backend went away");
                    backend_open = false;
                    self.machine.backend_lost();
                    continue;
                }
            }
            let brought = tokio::select! {
                biased;
                why = &mut *kill, if killed.is_none() => {
                    let why = why.unwrap_or(Kill::Drain);
                    killed = Some(why);
                    self.machine.end_session();
                    if why == Kill::Revoked {
                        timer.as_mut().reset(Instant::now() + REVOKED);
                    }
                    continue;
                }
                brought = poll_fn(|cx| self.poll(client, backend, backend_open, cx)) => brought,
                () = &mut timer => {
                    if let Some(why @ Kill::Revoked) = killed {
                        return Ended::Killed { why, at_line: false };
                    }
                    if self.moved.up() + self.moved.down() == seen {
                        if !self.machine.in_body() {
                            let _ = client.try_send(b"421 4.4.2 Idle for too long\r\n");
                        }
                        return Ended::Idle;
                    }
                    seen = self.moved.up() + self.moved.down();
                    timer.as_mut().reset(Instant::now() + idle);
                    continue;
                }
            };
            match brought {
                Ok(Brought::Client(Read::Data) | Brought::Backend(Read::Data)) => {}
                // Mid-message, too: the backend is dropped without the end mark, so it keeps nothing.
                Ok(Brought::Client(Read::End)) => return Ended::Done,
                Ok(Brought::Backend(Read::End)) => {
                    backend_open = false;
                    if let Err(Side::Client(error)) = self.work(offer, client, backend).map(|_| ()) {
                        return Ended::Client(error);
                    }
                    self.machine.backend_lost();
                }
                Err(Side::Client(error)) => return Ended::Client(error),
                Err(Side::Backend(error)) => {
                    debug!(%error, "backend went away");
                    backend_open = false;
                    self.machine.backend_lost();
                }
            }
        }
    }

    /// Feeds the machine what is here and does what it says, until neither moves.
    fn work(
        &mut self,
        offer: &Offer,
        client: &mut Stream,
        backend: &mut Stream,
    ) -> Result<Option<RelayEnd>, Side> {
        loop {
            let mut progress = false;
            if !self.up.is_empty() {
                let taken = if self.machine.in_body() {
                    // Commands that lead to this body go first.
                    self.flush_backend(backend)?;
                    body(&mut self.machine, &self.up, backend).map_err(Side::Backend)?
                } else {
                    self.machine.from_client(&self.up)
                };
                self.up.drain(..taken);
                progress |= taken > 0;
            }
            if !self.down.is_empty() {
                let taken = self.machine.from_backend(&self.down);
                self.down.drain(..taken);
                progress |= taken > 0;
            }
            while let Some(action) = self.machine.next(offer) {
                progress = true;
                match action {
                    RelayAction::ToClient(bytes) => self.to_client.extend_from_slice(bytes),
                    RelayAction::ToBackend(bytes) => self.to_backend.extend_from_slice(bytes),
                    RelayAction::Sender(path) => {
                        let settings = &self.gateway.current().settings;
                        // As it goes on the wire, without its angle brackets; the null path is empty.
                        let mailbox = path.mailbox().map(ToString::to_string).unwrap_or_default();
                        let allowed = settings.may_send(&self.seat.account, mailbox.as_bytes());
                        if !allowed {
                            info!(
                                account = self.seat.account.as_str(),
                                "MAIL FROM refused: not an address of the account"
                            );
                        }
                        self.machine.sender(if allowed { SenderAnswer::Allow } else { SenderAnswer::Deny });
                    }
                    RelayAction::Message { recipients, .. } => {
                        let answer = self.budget(recipients.into());
                        self.machine.message(answer);
                    }
                    RelayAction::Accepted { octets, recipients } => {
                        self.gateway.metrics.message_accepted();
                        info!(
                            account = self.seat.account.as_str(),
                            octets, recipients, "message accepted by the backend"
                        );
                    }
                    RelayAction::Note(note) => debug!(?note, "submission"),
                    RelayAction::Close(end) => {
                        self.flush_client(client)?;
                        return Ok(Some(end));
                    }
                }
            }
            if !progress {
                break;
            }
        }
        self.flush_backend(backend)?;
        self.flush_client(client)?;
        Ok(None)
    }

    fn flush_backend(&mut self, backend: &mut Stream) -> Result<(), Side> {
        if !self.to_backend.is_empty() {
            let sent = backend.try_send(&self.to_backend);
            self.to_backend.clear();
            sent.map_err(Side::Backend)?;
        }
        Ok(())
    }

    fn flush_client(&mut self, client: &mut Stream) -> Result<(), Side> {
        if !self.to_client.is_empty() {
            self.moved.add_down(self.to_client.len());
            let sent = client.try_send(&self.to_client);
            self.to_client.clear();
            sent.map_err(Side::Client)?;
        }
        Ok(())
    }

    fn budget(&self, recipients: u32) -> MessageAnswer {
        let account = self.seat.account.as_str();
        match self.gateway.may_send(account, recipients) {
            Budget::Ok => MessageAnswer::Go,
            Budget::Exhausted { .. } => {
                warn!(account, "sending budget used up: submissions are put off");
                self.gateway.sending_stopped(self.seat);
                MessageAnswer::OverBudget
            }
        }
    }

    fn poll(
        &mut self,
        client: &mut Stream,
        backend: &mut Stream,
        backend_open: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Brought, Side>> {
        if let Poll::Ready(Err(error)) = client.poll_flush(cx) {
            return Poll::Ready(Err(Side::Client(error)));
        }
        if backend_open && let Poll::Ready(Err(error)) = backend.poll_flush(cx) {
            return Poll::Ready(Err(Side::Backend(error)));
        }
        // Whoever does not take what it is sent is not read from either: that is the back-pressure.
        if backend_open && self.down.is_empty() && !client.has_unsent() {
            let down = &mut self.down;
            if let Poll::Ready(read) = backend.poll_read(cx, &mut |bytes| down.extend_from_slice(bytes)) {
                return Poll::Ready(read.map(Brought::Backend).map_err(Side::Backend));
            }
        }
        if self.up.is_empty() && !client.has_unsent() && !backend.has_unsent() {
            let Self { machine, up, moved, .. } = self;
            let mut failed = None;
            let read = client.poll_read(cx, &mut |bytes| {
                moved.add_up(bytes.len());
                // A message goes from the decrypted record to the backend without a stop in between.
                let mut rest = bytes;
                if up.is_empty() && failed.is_none() && machine.in_body() && backend_open {
                    match body(machine, bytes, backend) {
                        Ok(taken) => rest = bytes.get(taken..).unwrap_or_default(),
                        Err(error) => failed = Some(error),
                    }
                }
                up.extend_from_slice(rest);
            });
            if let Some(error) = failed {
                return Poll::Ready(Err(Side::Backend(error)));
            }
            if let Poll::Ready(read) = read {
                return Poll::Ready(read.map(Brought::Client).map_err(Side::Client));
            }
        }
        Poll::Pending
    }

    async fn close(&mut self, end: RelayEnd, killed: Option<Kill>, client: &mut Stream) -> Ended {
        // The last words; a client that does not read them has had its time.
        let _ = tokio::time::timeout(Duration::from_secs(2), client.flush()).await;
        let account = self.seat.account.as_str();
        match end {
            RelayEnd::ByClient => Ended::Done,
            RelayEnd::Ended => Ended::Killed { why: killed.unwrap_or(Kill::Drain), at_line: true },
            RelayEnd::BackendLost => Ended::Backend(io::ErrorKind::ConnectionAborted.into()),
            RelayEnd::Violation(what) => {
                warn!(what, "the backend broke its protocol");
                let kind = Kind::BackendViolation { backend: "submission".into(), what: what.into() };
                self.gateway.record(kind, Subject::account(account));
                Ended::Backend(io::Error::new(io::ErrorKind::InvalidData, what))
            }
            hostile => {
                info!(account, why = ?hostile, "session closed for what the client sent");
                let what = format!("{hostile:?}");
                let kind = Kind::HostileClose { what: what.as_str().into() };
                self.gateway.record(
                    kind,
                    Subject::client(&self.seat.connection, self.seat.protocol, self.seat.address.ip()),
                );
                self.gateway.metrics.hostile(self.seat.protocol);
                Ended::Done
            }
        }
    }
}

/// Whose connection failed.
enum Side {
    Client(io::Error),
    Backend(io::Error),
}

/// Gives octets of a message to the machine and what it lets through to the backend; returns how many are done with.
fn body(machine: &mut Relay, chunk: &[u8], backend: &mut Stream) -> io::Result<usize> {
    let mut done = 0;
    while machine.in_body() {
        let rest = chunk.get(done..).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        let step = machine.body(rest);
        backend.try_send(step.held)?;
        backend.try_send(rest.get(..step.forward).unwrap_or_default())?;
        done += step.consumed;
        if step.end != BodyEnd::More || step.consumed == 0 {
            break;
        }
    }
    Ok(done)
}
