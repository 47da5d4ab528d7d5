//! Submission after login: both sides of it, to the last command.
//!
//! The client's commands are parsed, checked against what is offered, and printed anew towards the backend; the
//! backend's replies are checked and passed on verbatim. What needs no reply of the backend's is answered here, and
//! one ring keeps all answers in the order of their commands (RFC 2920 §3.1).

use core::fmt::Write as _;

use mail::address::Path;
use mail::session::Note;

use crate::body::{Body, BodyEnd, BodyStep, Refusal};
use crate::command::{BdatSize, Command};
use crate::envelope::{BodyKind, EnvelopeError, MailCommand, RcptCommand};
use crate::line::{Lines, Next};
use crate::offer::{Extension, Offer, Writer, smaller_limit};
use crate::reply::{Got, Replies, text};

/// Octets of a command line with its CRLF: 512, and what SIZE, DSN, AUTH and SMTPUTF8 add (RFC 1870 §3, RFC 3461
/// §5, RFC 4954 §3, RFC 6531 §3.4).
const COMMAND_LINE: usize = 1536;
/// Commands whose answers are outstanding.
const RING: usize = 32;

/// Bounds on what one session may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Octets of one message; 0: as many as the offer says. The smaller of both holds.
    pub size: u64,
    /// Recipients of one message; RFC 5321 §4.5.3.1.8 wants at least 100.
    pub recipients: u16,
    /// Bad commands before the session ends. More than before login: this client has an account to lose.
    pub bad_commands: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self { size: 0, recipients: 1000, bad_commands: 20 }
    }
}

/// What the driver must do, in order.
#[derive(Debug)]
pub enum RelayAction<'a> {
    /// Write these octets to the client.
    ToClient(&'a [u8]),
    /// Write these octets to the backend.
    ToBackend(&'a [u8]),
    /// May this session send as this path? Answer with [`Relay::sender`]; nothing is parsed until then.
    Sender(&'a Path),
    /// A message is about to begin. Answer with [`Relay::message`]; nothing is parsed until then.
    Message {
        /// Recipients the backend has accepted.
        recipients: u16,
        /// What MAIL's SIZE said, in octets.
        size: Option<u64>,
    },
    /// The backend has taken responsibility for a message; its 250 follows as the next [`Self::ToClient`].
    Accepted {
        /// Octets of the message.
        octets: u64,
        /// Recipients it goes to.
        recipients: u16,
    },
    /// Something worth a counter; the session goes on.
    Note(Note),
    /// Flush, then drop both connections. Not one octet more may go to the backend: a message under way there must
    /// never be completed.
    Close(RelayEnd),
}

/// Why the session ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RelayEnd {
    /// QUIT.
    ByClient,
    /// Too many bad commands.
    TooManyErrors,
    /// A command line without end.
    TooLong,
    /// Bare CR or LF, in a command or a message.
    BareLineEnd,
    /// NUL in a message.
    Nul,
    /// A message over the limit that did not say so.
    TooLarge,
    /// BDAT whose octets cannot be counted.
    Uncountable,
    /// The backend is gone, or said 421.
    BackendLost,
    /// The backend broke its protocol.
    Violation(&'static str),
    /// [`Relay::end_session`].
    Ended,
}

/// Answers [`RelayAction::Sender`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SenderAnswer {
    /// The path is the account's own, or on its list, or `<>`.
    Allow,
    /// It is not: 550 5.7.1.
    Deny,
}

/// Answers [`RelayAction::Message`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MessageAnswer {
    /// Go on.
    Go,
    /// The account's sending budget is used up: 450 4.7.1, so that nothing is lost.
    OverBudget,
    /// Trouble of our own: 451 4.3.0.
    Unavailable,
}

/// A submission session after login.
///
/// The driver loops: [`Relay::from_client`] (or, while [`Relay::in_body`], [`Relay::body`]) and
/// [`Relay::from_backend`] with what arrived, then [`Relay::next`] until it gives `None`; what was not taken is
/// offered again after that. A return of 0 from both is back-pressure: read no more from that side until the other
/// has moved.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about one line or reply")]
pub struct Relay {
    limits: Limits,
    commands: Lines<COMMAND_LINE>,
    /// A line end was taken, and the line not looked at: what follows stays with the driver, for it may be a message.
    line_taken: bool,
    /// The current line of `commands` waits for the answers before it.
    line_waits: bool,
    /// Nothing is parsed until all answers are in: NOOP ends a group (RFC 2920 §3.1), and so does a message here.
    barrier: bool,
    replies: Replies,
    ring: heapless::Deque<Pending, RING>,
    to_client: heapless::Vec<u8, 768>,
    to_backend: heapless::Vec<u8, 1280>,
    yielded: Yielded,
    phase: Phase,
    sender: Option<Path>,
    envelope: Envelope,
    /// The message in transfer or between two chunks.
    body: Option<Body>,
    /// Octets of a refused chunk to read over, and what to say then.
    discard: Option<(u64, &'static [u8])>,
    bad_commands: u8,
    note: Option<Note>,
    /// What `Accepted` has to say before the current reply line goes to the client.
    accepted: Option<(u64, u16)>,
    /// The chunk in transfer is its message's last.
    last_chunk: bool,
    /// The current reply line is to go to the client.
    line_passes: bool,
    /// Of a reply of several lines, some went to the client and some are to come.
    half_passed: bool,
    /// Octets of a reply came before the message was complete.
    early: bool,
    /// Nothing is sent to the backend any more.
    backend_gone: Option<RelayEnd>,
    ending: bool,
    /// Follows the last answer in the ring.
    closing: Option<RelayEnd>,
    over: bool,
}

/// What the last action lent out, to be let go at the next call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Yielded {
    Nothing,
    ToClient,
    ToBackend,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Commands are read.
    Command,
    /// [`RelayAction::Sender`] is asked (yielded or not).
    AskSender(bool),
    /// [`RelayAction::Message`] is asked (yielded or not), for DATA or for a first chunk.
    AskMessage(bool, Option<BdatSize>),
    /// DATA was sent.
    Await354,
    /// The client's octets are a message.
    Body,
}

/// The transaction (RFC 5321 §4.1.4).
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "hopes and facts of one transaction, of which many hold at once"
)]
struct Envelope {
    /// The backend has accepted MAIL.
    open: bool,
    /// MAIL was forwarded, and no reply has said otherwise: true ahead of `open` while commands are pipelined.
    hoped: bool,
    /// RCPTs forwarded.
    asked: u16,
    /// RCPTs the backend has accepted.
    recipients: u16,
    size: Option<u64>,
    utf8: bool,
    binary: bool,
    /// Chunks were sent: only BDAT or RSET may follow (RFC 3030 §2).
    chunks: bool,
    /// A chunk was refused: only RSET helps.
    spoilt: bool,
}

/// One answer the client is owed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pending {
    /// Ours.
    Local(Local),
    /// The backend's.
    Remote(Asked),
    /// The backend's, and the client does not hear it.
    Silent,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    Mail,
    Rcpt,
    Rset,
    Noop,
    Data,
    Chunk,
    /// After an end mark or a last chunk.
    Message,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Local {
    Ehlo,
    Helo,
    Fixed(&'static [u8]),
}

/// What [`Relay::step`] found to do; the action borrows from the relay and is made last.
enum Do {
    ToClient,
    ToBackend,
    Line,
    Sender,
    Message(u16, Option<u64>),
    Accepted(u64, u16),
    Note(Note),
    Close(RelayEnd),
}

impl Relay {
    /// A session that has just logged in, over a backend connection that has as well.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            commands: Lines::new(),
            line_taken: false,
            line_waits: false,
            barrier: false,
            replies: Replies::new(),
            ring: heapless::Deque::new(),
            to_client: heapless::Vec::new(),
            to_backend: heapless::Vec::new(),
            yielded: Yielded::Nothing,
            phase: Phase::Command,
            sender: None,
            envelope: Envelope {
                open: false,
                hoped: false,
                asked: 0,
                recipients: 0,
                size: None,
                utf8: false,
                binary: false,
                chunks: false,
                spoilt: false,
            },
            body: None,
            discard: None,
            bad_commands: 0,
            note: None,
            accepted: None,
            last_chunk: false,
            line_passes: false,
            half_passed: false,
            early: false,
            backend_gone: None,
            ending: false,
            closing: None,
            over: false,
        }
    }

    /// Takes octets of commands, one line at most, and says how many. 0 while a line, an answer or a message is
    /// dealt with: offer them again after [`Relay::next`].
    #[must_use]
    pub fn from_client(&mut self, bytes: &[u8]) -> usize {
        if self.over || self.closing.is_some() {
            return bytes.len();
        }
        if self.line_taken || self.line_waits || self.phase != Phase::Command {
            return 0;
        }
        if let Some((left, reply)) = self.discard {
            let dropped = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let left = left - dropped as u64;
            self.discard = Some((left, reply)).filter(|_| left > 0);
            if left == 0 {
                self.say(reply);
            }
            return dropped;
        }
        let taken = self.commands.push_line(bytes);
        self.line_taken = taken.checked_sub(1).and_then(|last| bytes.get(last)) == Some(&b'\n');
        taken
    }

    /// Takes what fits of the backend's octets.
    #[must_use]
    pub fn from_backend(&mut self, bytes: &[u8]) -> usize {
        if self.over {
            return bytes.len();
        }
        let taken = self.replies.push(bytes);
        if self.phase == Phase::Body && taken > 0 {
            self.early = true;
        }
        taken
    }

    /// Whether the client's octets now go to [`Relay::body`].
    ///
    /// Not before [`Relay::next`] has given `None`: a BDAT command must go ahead of its octets.
    pub fn in_body(&self) -> bool {
        self.phase == Phase::Body && self.to_backend.is_empty() && !self.line_passes && !self.over
    }

    /// Looks at octets of a message. The driver writes `held`, then `chunk[..forward]` to the backend (from its own
    /// buffer, uncopied), drops `chunk[..consumed]`, and unless `end` is [`BodyEnd::More`] calls [`Relay::next`].
    ///
    /// After the first octet that makes the message unacceptable nothing is forwarded any more, and its end mark
    /// never is; the client is told only at the true end, since to stop earlier would let the rest of the message
    /// be read as commands.
    pub fn body(&mut self, chunk: &[u8]) -> BodyStep {
        if !self.in_body() {
            return BodyStep { held: b"", forward: 0, consumed: 0, end: BodyEnd::More };
        }
        self.body_step(chunk)
    }

    /// Answers [`RelayAction::Sender`].
    pub fn sender(&mut self, answer: SenderAnswer) {
        if !matches!(self.phase, Phase::AskSender(_)) {
            return;
        }
        self.phase = Phase::Command;
        self.sender = None;
        match answer {
            SenderAnswer::Allow => {
                self.envelope.hoped = true;
                self.owe(Pending::Remote(Asked::Mail));
            }
            SenderAnswer::Deny => {
                self.to_backend.clear();
                self.envelope = Envelope::default();
                self.say(b"550 5.7.1 Sender address not allowed for this account");
            }
        }
    }

    /// Answers [`RelayAction::Message`].
    pub fn message(&mut self, answer: MessageAnswer) {
        let Phase::AskMessage(_, chunk) = self.phase else { return };
        self.phase = Phase::Command;
        let refusal: &'static [u8] = match answer {
            MessageAnswer::Go => {
                match chunk {
                    None => {
                        self.put_backend(format_args!("DATA\r\n"));
                        self.owe(Pending::Remote(Asked::Data));
                        self.phase = Phase::Await354;
                    }
                    Some(size) => self.start_chunk(size),
                }
                return;
            }
            MessageAnswer::OverBudget => b"450 4.7.1 Sending limit reached, try again later",
            MessageAnswer::Unavailable => b"451 4.3.0 Temporary server error, try again later",
        };
        match chunk {
            None => self.say(refusal),
            Some(size) => self.refuse_chunk(size, refusal),
        }
    }

    /// The backend's connection is gone, and all its octets were taken by [`Relay::from_backend`]. A message under
    /// way gets 451, any other command 421: never a false accept.
    pub fn backend_lost(&mut self) {
        self.lose(RelayEnd::BackendLost);
    }

    /// The device was revoked, or the box shuts down: 421 at the next command boundary. A message that is being
    /// transferred is finished first.
    pub fn end_session(&mut self) {
        self.ending = true;
    }

    /// The next thing to do, or `None` until octets or an answer arrive. `offer` is the same at every call.
    pub fn next(&mut self, offer: &Offer) -> Option<RelayAction<'_>> {
        Some(match self.step(offer)? {
            Do::ToClient => RelayAction::ToClient(&self.to_client),
            Do::ToBackend => RelayAction::ToBackend(&self.to_backend),
            Do::Line => RelayAction::ToClient(self.replies.raw()),
            Do::Sender => RelayAction::Sender(self.sender.as_ref()?),
            Do::Message(recipients, size) => RelayAction::Message { recipients, size },
            Do::Accepted(octets, recipients) => RelayAction::Accepted { octets, recipients },
            Do::Note(note) => RelayAction::Note(note),
            Do::Close(why) => RelayAction::Close(why),
        })
    }

    fn step(&mut self, offer: &Offer) -> Option<Do> {
        match core::mem::replace(&mut self.yielded, Yielded::Nothing) {
            Yielded::ToClient => self.to_client.clear(),
            Yielded::ToBackend => self.to_backend.clear(),
            Yielded::Nothing => {}
        }
        loop {
            if self.over {
                return None;
            }
            if let Some(note) = self.note.take() {
                return Some(Do::Note(note));
            }
            if self.backend_gone.is_some() {
                self.to_backend.clear();
            }
            if !self.to_backend.is_empty() && !matches!(self.phase, Phase::AskSender(_)) {
                self.yielded = Yielded::ToBackend;
                return Some(Do::ToBackend);
            }
            if let Some((octets, recipients)) = self.accepted.take() {
                return Some(Do::Accepted(octets, recipients));
            }
            if core::mem::take(&mut self.line_passes) {
                return Some(Do::Line);
            }
            if let Some(Pending::Local(local)) = self.ring.front().copied() {
                self.ring.pop_front();
                self.write(local, offer);
                self.yielded = Yielded::ToClient;
                return Some(Do::ToClient);
            }
            if self.ring.is_empty()
                && let Some(why) = self.closing
            {
                self.over = true;
                return Some(Do::Close(why));
            }
            // During a message the backend has nothing to say; what it says is looked at behind its end.
            if self.phase != Phase::Body && self.read_reply() {
                continue;
            }
            if self.settle_loss() {
                continue;
            }
            if self.closing.is_some() {
                return None;
            }
            if self.ending && self.ring.is_empty() && self.at_boundary() {
                self.end_now();
                continue;
            }
            match &mut self.phase {
                Phase::AskSender(told) if !*told => {
                    *told = true;
                    return Some(Do::Sender);
                }
                Phase::AskMessage(told, _) if !*told => {
                    *told = true;
                    return Some(Do::Message(self.envelope.recipients, self.envelope.size));
                }
                Phase::Command => {
                    if !self.read_command(offer) {
                        return None;
                    }
                }
                _ => return None,
            }
        }
    }

    fn at_boundary(&self) -> bool {
        self.discard.is_none() && !matches!(self.phase, Phase::Await354 | Phase::Body)
    }

    fn end_now(&mut self) {
        self.phase = Phase::Command;
        self.to_backend.clear();
        self.put_backend(format_args!("QUIT\r\n"));
        self.say(b"421 4.3.2 Session ended by the server");
        self.closing = Some(RelayEnd::Ended);
    }

    /// Adds an answer to the ring. [`Relay::read_command`] leaves room for all that one command can owe.
    fn owe(&mut self, pending: Pending) {
        let _ = self.ring.push_back(pending);
    }

    fn say(&mut self, line: &'static [u8]) {
        self.owe(Pending::Local(Local::Fixed(line)));
    }

    fn close(&mut self, why: RelayEnd) {
        self.closing = self.closing.or(Some(why));
    }

    /// A mistake of the client's.
    fn bad(&mut self, line: &'static [u8]) {
        self.say(line);
        self.bad_commands = self.bad_commands.saturating_add(1);
        if self.bad_commands >= self.limits.bad_commands {
            self.say(text::TOO_MANY);
            self.close(RelayEnd::TooManyErrors);
        }
    }

    /// Replaces what waits for the backend; `false` if it does not fit.
    fn put_backend(&mut self, line: core::fmt::Arguments<'_>) -> bool {
        self.to_backend.clear();
        Writer(&mut self.to_backend).write_fmt(line).is_ok()
    }

    fn write(&mut self, local: Local, offer: &Offer) {
        self.to_client.clear();
        let mut reply = Writer(&mut self.to_client);
        // Constant lines, a host name, an EHLO reply: all of known size, below the buffer's.
        match local {
            Local::Ehlo => offer.write_ehlo(true, &mut self.to_client),
            Local::Helo => {
                let _ = write!(reply, "250 {}\r\n", offer.hostname());
            }
            Local::Fixed(line) => {
                let _ = reply.0.extend_from_slice(line);
                let _ = reply.0.extend_from_slice(b"\r\n");
            }
        }
    }

    /// The transaction is over (RFC 5321 §4.1.4).
    fn reset(&mut self) {
        self.envelope = Envelope::default();
        self.body = None;
    }
}

/// The backend's replies.
impl Relay {
    /// Deals with one reply line and says whether there was one.
    fn read_reply(&mut self) -> bool {
        if matches!(self.backend_gone, Some(RelayEnd::Violation(_))) {
            return false;
        }
        let (code, last) = match self.replies.advance() {
            Got::Wait => return false,
            Got::Broken(what) => {
                self.lose(RelayEnd::Violation(what));
                return true;
            }
            Got::Line { code, last, .. } => (code, last),
        };
        match self.ring.front().copied() {
            // Timeouts and shutdowns come unasked, and the client should hear why.
            None if code == 421 => {
                self.line_passes = true;
                if last {
                    self.lose(RelayEnd::BackendLost);
                    self.close(RelayEnd::BackendLost);
                }
            }
            None => self.lose(RelayEnd::Violation("reply without a command")),
            // A RSET of ours: if it fails, nobody knows what the backend would do with the next message.
            Some(Pending::Silent) if code >= 300 => self.lose(RelayEnd::Violation("RSET refused")),
            Some(Pending::Silent) => {
                if last {
                    self.ring.pop_front();
                }
            }
            // Ours are written before a reply is read.
            Some(Pending::Local(_)) => {}
            Some(Pending::Remote(asked)) => self.replied(asked, code, last),
        }
        true
    }

    fn replied(&mut self, asked: Asked, code: u16, last: bool) {
        let good = match asked {
            Asked::Data => code == 354,
            Asked::Mail | Asked::Rcpt | Asked::Rset | Asked::Noop => (200..300).contains(&code),
            // What came before the message was complete cannot accept it, only refuse it.
            Asked::Chunk | Asked::Message => (200..300).contains(&code) && !self.early,
        };
        if !good && code < 400 {
            return self.lose(RelayEnd::Violation("reply does not fit its command"));
        }
        self.line_passes = true;
        self.half_passed = !last;
        if !last {
            return;
        }
        self.ring.pop_front();
        match asked {
            Asked::Mail => (self.envelope.open, self.envelope.hoped) = (good, good),
            Asked::Rcpt => {
                self.envelope.recipients = self.envelope.recipients.saturating_add(u16::from(good));
            }
            Asked::Rset | Asked::Noop => {}
            Asked::Data => {
                self.phase = if good { Phase::Body } else { Phase::Command };
                self.early = !self.replies.behind().is_empty();
            }
            Asked::Chunk => self.envelope.spoilt |= !good,
            Asked::Message => {
                if good {
                    let octets = self.body.as_ref().map_or(0, Body::octets);
                    self.accepted = Some((octets, self.envelope.recipients));
                }
                self.reset();
            }
        }
        if code == 421 {
            self.ring.clear();
            self.lose(RelayEnd::BackendLost);
            self.close(RelayEnd::BackendLost);
        }
    }

    fn lose(&mut self, why: RelayEnd) {
        self.backend_gone = self.backend_gone.or(Some(why));
        if self.phase == Phase::Body
            && let Some(body) = &mut self.body
        {
            body.refuse(Refusal::BackendLost);
        }
    }

    /// Answers what a lost backend owes, once all that it said was read. Says whether there was anything.
    fn settle_loss(&mut self) -> bool {
        let (Some(why), Some(owed)) = (self.backend_gone, self.ring.front().copied()) else {
            return false;
        };
        if self.half_passed {
            // No line of ours can end a reply of theirs.
            self.ring.clear();
            self.close(why);
            return true;
        }
        self.ring.pop_front();
        match owed {
            Pending::Silent => {}
            Pending::Local(_) => return false,
            Pending::Remote(Asked::Data | Asked::Chunk | Asked::Message) => {
                self.phase = Phase::Command;
                self.reset();
                let _ = self.ring.push_front(Pending::Local(Local::Fixed(MESSAGE_LOST)));
            }
            Pending::Remote(_) => {
                self.ring.clear();
                self.say(BACKEND_LOST);
                self.close(why);
            }
        }
        true
    }
}

/// The client's commands.
impl Relay {
    /// Deals with one command line, or finds that it must wait; says whether there was one to deal with.
    fn read_command(&mut self, offer: &Offer) -> bool {
        if self.discard.is_some() || self.ring.len() + 4 > RING {
            return false;
        }
        let pipelining = offer.extensions().has(Extension::Pipelining);
        if !self.ring.is_empty() && (self.barrier || !pipelining) {
            return false;
        }
        self.barrier = false;
        if !self.line_waits {
            self.line_taken = false;
            match self.commands.advance(COMMAND_LINE) {
                Next::Wait => return false,
                Next::Line => {}
                Next::TooLong => {
                    self.bad(text::LINE_TOO_LONG);
                    return true;
                }
                Next::Endless => {
                    self.say(text::LINE_TOO_LONG);
                    self.close(RelayEnd::TooLong);
                    return true;
                }
                Next::Bare => {
                    self.say(text::BARE);
                    self.close(RelayEnd::BareLineEnd);
                    return true;
                }
            }
        }
        self.line_waits = !self.command(offer);
        if self.line_waits {
            return false;
        }
        self.commands.release();
        true
    }

    /// The protocol, whole. `false`: this command must wait until all answers before it are in.
    fn command(&mut self, offer: &Offer) -> bool {
        let drained = self.ring.is_empty();
        let command = Command::parse(self.commands.line());
        let extended = matches!(command, Command::Ehlo(_));
        if let Some(why) = self.backend_gone
            && command != Command::Quit
        {
            self.say(BACKEND_LOST);
            self.close(why);
            return true;
        }
        match command {
            // Only these, RCPT and what is answered at once may be sent ahead of answers (RFC 2920 §3.1); RSET too,
            // but then late answers to RCPT would be counted for the next message.
            Command::Mail(_) if self.envelope.hoped && !drained => return false,
            Command::Ehlo(_) | Command::Helo(_) | Command::Rset | Command::Data | Command::Bdat(Some(_))
                if !drained =>
            {
                return false;
            }
            Command::Ehlo(_) | Command::Helo(_) => {
                if self.envelope.hoped {
                    self.put_backend(format_args!("RSET\r\n"));
                    self.owe(Pending::Silent);
                }
                self.reset();
                self.owe(Pending::Local(if extended { Local::Ehlo } else { Local::Helo }));
            }
            Command::Mail(_) => self.mail(offer),
            Command::Rcpt(_) => self.rcpt(offer),
            Command::Data => self.data(offer),
            Command::Bdat(Some(size)) => self.bdat(size, offer),
            Command::Bdat(None) => {
                self.say(b"501 5.5.4 Syntax: BDAT size [LAST]");
                self.close(RelayEnd::Uncountable);
            }
            Command::Rset => {
                self.reset();
                self.put_backend(format_args!("RSET\r\n"));
                self.owe(Pending::Remote(Asked::Rset));
            }
            // Forwarded, so that the backend does not think us idle.
            Command::Noop => {
                self.put_backend(format_args!("NOOP\r\n"));
                self.owe(Pending::Remote(Asked::Noop));
                self.barrier = true;
            }
            Command::Quit => {
                self.put_backend(format_args!("QUIT\r\n"));
                self.say(text::BYE);
                self.close(RelayEnd::ByClient);
            }
            Command::Vrfy => self.say(text::VRFY),
            Command::Help => self.say(text::HELP),
            Command::Expn => self.say(text::EXPN),
            Command::Auth(_) => self.bad(b"503 5.5.1 Already authenticated"),
            Command::ClientId(_) => self.bad(text::SEQUENCE),
            Command::StartTls => self.bad(b"503 5.5.1 TLS is already active"),
            Command::Bad(reply) => self.bad(reply),
            Command::Unknown => self.bad(text::UNKNOWN),
            Command::Malformed => {
                self.note = Some(Note::Malformed);
                self.bad(text::SYNTAX);
            }
        }
        true
    }

    fn mail(&mut self, offer: &Offer) {
        if self.envelope.hoped {
            return self.bad(b"503 5.5.1 Nested MAIL command");
        }
        let Command::Mail(arguments) = Command::parse(self.commands.line()) else { return };
        let limit = smaller_limit(self.limits.size, offer.size());
        match MailCommand::parse(arguments, offer.extensions()) {
            Err(error) => self.bad(refusal(error, b"501 5.1.7 Bad sender address syntax")),
            Ok(mail) if limit > 0 && mail.size.is_some_and(|size| size > limit) => self.say(TOO_LARGE),
            Ok(mail) => {
                self.to_backend.clear();
                if write!(Writer(&mut self.to_backend), "{mail}").is_err() {
                    self.to_backend.clear();
                    return self.bad(text::LINE_TOO_LONG);
                }
                self.envelope = Envelope {
                    size: mail.size,
                    utf8: mail.utf8,
                    binary: mail.body == Some(BodyKind::BinaryMime),
                    ..Envelope::default()
                };
                self.sender = Some(mail.sender);
                self.phase = Phase::AskSender(false);
            }
        }
    }

    fn rcpt(&mut self, offer: &Offer) {
        if !self.envelope.hoped || self.envelope.chunks {
            return self.bad(b"503 5.5.1 Send MAIL first");
        }
        if self.envelope.asked >= self.limits.recipients {
            return self.say(b"452 4.5.3 Too many recipients");
        }
        let Command::Rcpt(arguments) = Command::parse(self.commands.line()) else { return };
        match RcptCommand::parse(arguments, offer.extensions(), self.envelope.utf8) {
            Err(error) => self.bad(refusal(error, b"501 5.1.3 Bad recipient address syntax")),
            Ok(rcpt) => {
                self.to_backend.clear();
                if write!(Writer(&mut self.to_backend), "{rcpt}").is_err() {
                    self.to_backend.clear();
                    return self.bad(text::LINE_TOO_LONG);
                }
                self.envelope.asked += 1;
                self.owe(Pending::Remote(Asked::Rcpt));
            }
        }
    }

    /// Why no message may begin now.
    fn not_ready(&self) -> Option<&'static [u8]> {
        match self.envelope {
            Envelope { open: false, .. } => Some(b"503 5.5.1 Send MAIL first"),
            Envelope { spoilt: true, .. } => Some(b"503 5.5.1 Send RSET first"),
            Envelope { recipients: 0, .. } => Some(b"554 5.5.1 No valid recipients"),
            _ => None,
        }
    }

    fn data(&mut self, offer: &Offer) {
        if let Some(reply) = self.not_ready() {
            return self.bad(reply);
        }
        if self.envelope.chunks || self.envelope.binary {
            // RFC 3030 §2, §3: BDAT cannot be mixed with DATA, and binary octets have no end mark.
            return self.bad(b"503 5.5.1 Use BDAT for this message");
        }
        self.body = Some(Body::data(smaller_limit(self.limits.size, offer.size())));
        self.phase = Phase::AskMessage(false, None);
    }

    fn bdat(&mut self, size: BdatSize, offer: &Offer) {
        if !offer.extensions().has(Extension::Chunking) {
            return self.refuse_chunk(size, b"502 5.5.1 CHUNKING not offered");
        }
        if let Some(reply) = self.not_ready() {
            return self.refuse_chunk(size, reply);
        }
        let limit = smaller_limit(self.limits.size, offer.size());
        let octets = self.body.as_ref().filter(|_| self.envelope.chunks).map_or(0, Body::octets);
        if limit > 0 && octets.saturating_add(size.octets) > limit {
            return self.refuse_chunk(size, TOO_LARGE);
        }
        if self.envelope.chunks {
            self.start_chunk(size);
        } else {
            self.body = Some(Body::chunk(0, false, self.envelope.binary, limit));
            self.phase = Phase::AskMessage(false, Some(size));
        }
    }

    /// Reads over a chunk's octets, then refuses it: they must never be taken for commands (RFC 3030 §2). The
    /// transaction is spoilt until RSET, which the client sends.
    fn refuse_chunk(&mut self, size: BdatSize, reply: &'static [u8]) {
        self.envelope.spoilt = true;
        if size.octets == 0 {
            self.bad(reply);
        } else {
            self.discard = Some((size.octets, reply));
        }
    }

    fn start_chunk(&mut self, size: BdatSize) {
        let Some(body) = &mut self.body else { return };
        body.next_chunk(size.octets, size.last, self.envelope.binary);
        self.envelope.chunks = true;
        self.last_chunk = size.last;
        self.phase = Phase::Body;
        self.early = !self.replies.behind().is_empty();
        if size.octets == 0 && self.body_step(b"").end == BodyEnd::Refused {
            return;
        }
        let last = if size.last { " LAST" } else { "" };
        self.put_backend(format_args!("BDAT {}{last}\r\n", size.octets));
    }

    fn body_step(&mut self, chunk: &[u8]) -> BodyStep {
        let Some(body) = &mut self.body else {
            return BodyStep { held: b"", forward: 0, consumed: 0, end: BodyEnd::More };
        };
        let step = body.step(chunk);
        if step.end == BodyEnd::More {
            return step;
        }
        self.phase = Phase::Command;
        // What follows belongs to the next transaction, which does not begin before this one's answer ends it.
        self.barrier = true;
        match body.refused() {
            None => {
                let last = !self.envelope.chunks || self.last_chunk;
                self.owe(Pending::Remote(if last { Asked::Message } else { Asked::Chunk }));
            }
            // It may have said why before it went; else `settle_loss` says 451.
            Some(Refusal::BackendLost) => self.owe(Pending::Remote(Asked::Message)),
            Some(Refusal::BareLineEnd) => self.refuse(BARE_LINE_END, RelayEnd::BareLineEnd),
            Some(Refusal::Nul) => self.refuse(NUL, RelayEnd::Nul),
            Some(Refusal::TooLarge) => self.refuse(TOO_LARGE, RelayEnd::TooLarge),
        }
        step
    }

    fn refuse(&mut self, reply: &'static [u8], why: RelayEnd) {
        self.backend_gone = self.backend_gone.or(Some(why));
        self.say(reply);
        self.close(why);
    }
}

const MESSAGE_LOST: &[u8] = b"451 4.3.0 Mail server lost, message not accepted, try again later";
const BACKEND_LOST: &[u8] = b"421 4.3.0 Mail server lost, try again later";
const TOO_LARGE: &[u8] = b"552 5.3.4 Message too large";
const BARE_LINE_END: &[u8] = b"550 5.5.2 Message refused: bare line end, lines end with CR LF";
const NUL: &[u8] = b"550 5.6.0 Message refused: NUL octet";

const fn refusal(error: EnvelopeError, path: &'static [u8]) -> &'static [u8] {
    match error {
        EnvelopeError::Path => path,
        EnvelopeError::NotAscii => b"553 5.6.7 Address needs SMTPUTF8",
        EnvelopeError::Value => b"501 5.5.4 Bad parameter value",
        EnvelopeError::Unknown => b"555 5.5.4 Parameter not recognized",
    }
}
