//! The server's side of POP3 up to login.
use core::mem;
use core::ops::Range;

use mail::Secret;
use mail::input::{Input, Line};
use mail::outbox::{Outbox, Then, Waiting};
use mail::sasl::{self, Exchange, Mechanism, Progress, Proof, SaslError, USER};
use mail::session::{Action, Answer, Closed, Label, Login, Note, Session as Contract, Transport};

use crate::offer::Offer;

/// Octets of a line before its CRLF: a whole SASL response (RFC 5034 §4) behind `AUTH` and a mechanism.
const LINE: usize = sasl::LINE + 32;
/// Octets of a reply: CAPA's, or the backend's text behind +OK.
const REPLY: usize = 2048;
/// Octets of the backend's text that are passed on; its line is 512 by RFC 2449 §4.
const PASSED: usize = 1024;
/// Malformed, unknown and refused commands on one connection; the last one ends it.
const ERRORS: u8 = 10;
/// Octets of a password.
const PASSWORD: usize = 4096;

/// One POP3 session, up to login (RFC 1939 §4, RFC 5034).
///
/// Octets in, actions out, in fixed memory, under 20 KiB. However the input is split, the same octets give the same
/// actions. While a login is being decided, later input waits and is not parsed.
#[derive(Debug)]
pub struct Session {
    input: Input<{ LINE + 2 }>,
    reply: Outbox<REPLY>,
    transport: Transport,
    /// POP3 clients say nothing of themselves; the contract wants a label all the same.
    label: Label,
    errors: u8,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing was said yet.
    Connected,
    /// A command is awaited.
    Ready,
    /// USER was given: PASS is awaited, and any other command forgets the name.
    Named { user: Secret<USER> },
    /// AUTH: a response line is awaited.
    Responding { exchange: Exchange },
    /// The driver decides. The command is the first `length` octets of the input, `proof` speaks of those from `base`.
    Deciding { proof: Proof, base: usize, length: usize },
    /// STLS was accepted.
    Handshake,
    /// Input belongs to the backend.
    Relaying,
    /// Over. Also what `mem::take` leaves behind: a state that gets lost is a session that is over.
    #[default]
    Done,
}

impl Session {
    /// A new session, whose first action is its greeting. Under implicit TLS the handshake comes before it.
    pub const fn new(transport: Transport) -> Self {
        Self {
            input: Input::new(),
            reply: Outbox::new(),
            transport,
            label: Label {
                name: heapless::String::new(),
                version: heapless::String::new(),
                vendor: heapless::String::new(),
                os: heapless::String::new(),
                ehlo: heapless::String::new(),
            },
            errors: 0,
            state: State::Connected,
        }
    }
}

impl Contract for Session {
    type Offer = Offer;

    fn push(&mut self, bytes: &[u8]) -> usize {
        match self.state {
            State::Handshake => {
                if !bytes.is_empty() {
                    // Octets in clear before the handshake: not even the go-ahead is sent, if it is still here.
                    self.reply.recall();
                    self.state = self.close(b"", Closed::Injection);
                }
                bytes.len()
            }
            State::Done => bytes.len(),
            _ => self.input.push(bytes),
        }
    }

    fn next(&mut self, offer: &Offer) -> Option<Action<'_>> {
        loop {
            match self.reply.take() {
                Some(Waiting::Note(note)) => return Some(Action::Note(note)),
                Some(Waiting::Text) => return Some(Action::Send(self.reply.text())),
                Some(Waiting::Then(Then::StartTls)) => return Some(Action::StartTls),
                Some(Waiting::Then(Then::Relay)) => return Some(Action::Relay),
                Some(Waiting::Then(Then::Close(closed))) => return Some(Action::Close(closed)),
                Some(Waiting::Then(Then::Login)) => return self.login(),
                None => {}
            }
            if !self.step(offer) {
                return None;
            }
        }
    }

    fn tls_established(&mut self) {
        if matches!(self.state, State::Handshake) {
            self.input.clear();
            self.transport = Transport::Tls;
            self.state = State::Ready;
        }
    }

    fn answer(&mut self, answer: Answer<'_>) {
        self.state = match mem::take(&mut self.state) {
            State::Deciding { length, .. } => {
                self.input.consume(length);
                self.reply.recall();
                self.decided(&answer)
            }
            other => other,
        };
    }

    fn rest(&self) -> &[u8] {
        if matches!(self.state, State::Relaying) { self.input.octets() } else { &[] }
    }
}

impl Session {
    fn step(&mut self, offer: &Offer) -> bool {
        let state = match &self.state {
            State::Connected => {
                self.reply.say(&[b"+OK ", offer.hostname().as_bytes(), b" ready\r\n"]);
                State::Ready
            }
            State::Ready | State::Named { .. } | State::Responding { .. } => {
                let limit = if matches!(self.state, State::Responding { .. }) { sasl::LINE } else { LINE };
                match self.input.line(0, limit) {
                    Line::Partial => return false,
                    Line::Until(end) => match mem::take(&mut self.state) {
                        State::Responding { exchange } => self.respond(exchange, 0..end),
                        State::Named { user } => self.command(end, offer, Some(user)),
                        _ => self.command(end, offer, None),
                    },
                    Line::TooLong => self.close(b"-ERR Line too long.\r\n", Closed::TooLong),
                    Line::Bare => self.close(b"-ERR Lines end with CRLF.\r\n", Closed::BareLineEnd),
                }
            }
            State::Deciding { .. } | State::Handshake | State::Relaying | State::Done => return false,
        };
        self.state = state;
        true
    }

    /// The protocol, whole: what this table does not list is an unknown command. NOOP is for after login
    /// (RFC 1939 §5), like the rest.
    fn command(&mut self, end: usize, offer: &Offer, user: Option<Secret<USER>>) -> State {
        let line = self.input.octets().get(..end).unwrap_or_default();
        let (verb, argument) = match line.iter().position(|&octet| octet == b' ') {
            Some(at) => (line.get(..at).unwrap_or_default(), Some(at + 1..end)),
            None => (line, None),
        };
        let tls = self.transport == Transport::Tls;
        let password = offer.mechanisms().takes(Mechanism::Plain);
        match (Verb::parse(verb), argument) {
            (Verb::Capa, None) => {
                let list = offer.capabilities(self.transport);
                self.reply.say(&[b"+OK\r\n", list.as_bytes(), b".\r\n"]);
                self.done(end)
            }
            (Verb::Quit, None) => self.close(b"+OK Logging out.\r\n", Closed::ByClient),
            (Verb::Stls, None) if tls => self.refuse(b"-ERR TLS is active already.\r\n", end),
            (Verb::Stls, None) => self.start_tls(end),
            (Verb::User | Verb::Pass | Verb::Auth, _) if !tls => {
                self.reply.note(Note::LoginInClear);
                self.refuse(b"-ERR [AUTH] Use TLS first.\r\n", end)
            }
            (Verb::User, Some(argument)) if password => self.user(argument),
            (Verb::Pass, Some(argument)) if password => self.pass(user, argument),
            (Verb::Auth, argument) => self.auth(argument, end, offer),
            (Verb::Unknown, _) => self.refuse(b"-ERR Unknown command.\r\n", end),
            (Verb::User | Verb::Pass, Some(_)) => self.refuse(b"-ERR Passwords are not taken.\r\n", end),
            (Verb::Capa | Verb::Quit | Verb::Stls, Some(_)) | (Verb::User | Verb::Pass, None) => {
                self.refuse(b"-ERR Invalid arguments.\r\n", end)
            }
        }
    }

    /// USER: the name is the rest of the line. Whoever it is, the answer is the same (RFC 1939 §13).
    fn user(&mut self, argument: Range<usize>) -> State {
        let end = argument.end;
        let name = self.input.octets().get(argument).unwrap_or_default();
        let printable = core::str::from_utf8(name).is_ok_and(|name| !name.chars().any(char::is_control));
        match Secret::copy_from(name).filter(|user| printable && !user.is_empty()) {
            Some(user) => {
                self.reply.say(&[b"+OK\r\n"]);
                self.input.consume(end + 2);
                State::Named { user }
            }
            None => self.refuse(b"-ERR Invalid arguments.\r\n", end),
        }
    }

    /// PASS: the password is the rest of the line, spaces and all (RFC 1939 §7). Octets outside ASCII are in no POP3
    /// grammar but in people's passwords, and servers have always taken them; NUL can be in none.
    fn pass(&mut self, user: Option<Secret<USER>>, argument: Range<usize>) -> State {
        let end = argument.end;
        let password = self.input.octets().get(argument.clone()).unwrap_or_default();
        let valid = (1..=PASSWORD).contains(&password.len()) && !password.contains(&0);
        match user {
            Some(user) if valid => self.decide(Proof::words(Mechanism::Plain, user, argument), 0, end + 2),
            Some(_) => self.refuse(b"-ERR Invalid arguments.\r\n", end),
            None => self.refuse(b"-ERR USER comes first.\r\n", end),
        }
    }

    /// AUTH mechanism, perhaps with an initial response (RFC 5034 §4). Alone it asks for the list, as clients older than
    /// RFC 5034 do.
    fn auth(&mut self, argument: Option<Range<usize>>, end: usize, offer: &Offer) -> State {
        let Some(argument) = argument else {
            self.reply.say(&[b"+OK\r\n"]);
            for mechanism in offer.mechanisms().offered() {
                self.reply.say(&[mechanism.name().as_bytes(), b"\r\n"]);
            }
            self.reply.say(&[b".\r\n"]);
            return self.done(end);
        };
        let text = self.input.octets().get(argument.clone()).unwrap_or_default();
        let gap = text.iter().position(|&octet| octet == b' ');
        let name = text.get(..gap.unwrap_or(text.len())).unwrap_or_default();
        match (Mechanism::parse(name).filter(|&mechanism| offer.mechanisms().takes(mechanism)), gap) {
            (None, _) => self.refuse(b"-ERR Unsupported authentication mechanism.\r\n", end),
            (Some(mechanism), None) => {
                self.input.consume(end + 2);
                self.challenge(Exchange::start(mechanism))
            }
            (Some(mechanism), Some(gap)) => {
                self.respond(Exchange::start(mechanism), argument.start + gap + 1..end)
            }
        }
    }

    fn challenge(&mut self, exchange: Exchange) -> State {
        self.reply.say(&[b"+ ", exchange.challenge().as_bytes(), b"\r\n"]);
        State::Responding { exchange }
    }

    /// A response is here; its line ends where `range` does.
    fn respond(&mut self, exchange: Exchange, range: Range<usize>) -> State {
        let (base, end) = (range.start, range.end);
        let response = self.input.octets_mut().get_mut(range).unwrap_or_default();
        // A lone `=` is an empty response in the command, and plain nonsense on a line of its own.
        let response = if base == 0 { response } else { sasl::initial(response) };
        match exchange.respond(response) {
            Ok(Progress::Complete(proof)) => self.decide(proof, base, end + 2),
            Ok(Progress::Continue(exchange)) => {
                self.input.consume(end + 2);
                self.challenge(exchange)
            }
            Err(SaslError::Cancelled) => {
                self.reply.say(&[b"-ERR Authentication cancelled.\r\n"]);
                self.done(end)
            }
            Err(SaslError::Base64 | SaslError::Malformed) => {
                self.refuse(b"-ERR Invalid SASL response.\r\n", end)
            }
        }
    }

    fn decide(&mut self, proof: Proof, base: usize, length: usize) -> State {
        self.reply.then(Then::Login);
        State::Deciding { proof, base, length }
    }

    fn login(&self) -> Option<Action<'_>> {
        let State::Deciding { proof, base, length } = &self.state else { return None };
        let credentials = proof.credentials(self.input.octets().get(*base..*length)?).ok()?;
        Some(Action::Login(Login {
            mechanism: proof.mechanism(),
            user: credentials.user,
            authzid: credentials.authzid,
            secret: credentials.secret,
            clientid: None,
            label: &self.label,
        }))
    }

    fn decided(&mut self, answer: &Answer<'_>) -> State {
        match answer {
            Answer::Admitted { text, .. } => {
                let text = text.get(..text.len().min(PASSED)).unwrap_or_default();
                // A backend must not write lines of its own choosing into ours.
                let odd = text.is_empty() || text.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n'));
                self.reply.say(&[b"+OK ", if odd { b"Logged in." } else { text }, b"\r\n"]);
                self.reply.then(Then::Relay);
                State::Relaying
            }
            Answer::Failed => {
                self.reply.say(&[FAILED]);
                State::Ready
            }
            Answer::FailedLast => {
                self.reply.say(&[FAILED]);
                self.close(TOO_MANY, Closed::TooManyErrors)
            }
            Answer::Unavailable => {
                self.reply.say(&[b"-ERR [SYS/TEMP] Temporary authentication failure.\r\n"]);
                State::Ready
            }
        }
    }

    fn start_tls(&mut self, end: usize) -> State {
        self.input.consume(end + 2);
        if !self.input.is_empty() {
            return self.close(b"", Closed::Injection);
        }
        self.reply.say(&[b"+OK Begin TLS negotiation\r\n"]);
        self.reply.then(Then::StartTls);
        State::Handshake
    }

    /// The command that ends at `end` has its reply, and another may come.
    fn done(&mut self, end: usize) -> State {
        self.input.consume(end + 2);
        State::Ready
    }

    /// Refuses and counts. The one that is too many gets another text, since POP3 has one reply a command.
    fn refuse(&mut self, text: &[u8], end: usize) -> State {
        self.reply.note(Note::Malformed);
        self.errors = self.errors.saturating_add(1);
        if self.errors >= ERRORS {
            return self.close(TOO_MANY, Closed::TooManyErrors);
        }
        self.reply.say(&[text]);
        self.done(end)
    }

    fn close(&mut self, text: &[u8], closed: Closed) -> State {
        self.input.clear();
        self.reply.say(&[text]);
        self.reply.then(Then::Close(closed));
        State::Done
    }
}

const FAILED: &[u8] = b"-ERR [AUTH] Authentication failed.\r\n";
const TOO_MANY: &[u8] = b"-ERR [AUTH] Too many errors.\r\n";

/// A command's keyword.
#[derive(Clone, Copy)]
enum Verb {
    Capa,
    Stls,
    User,
    Pass,
    Auth,
    Quit,
    /// Anything else, whether POP3 has it after login or not at all.
    Unknown,
}

impl Verb {
    fn parse(word: &[u8]) -> Self {
        const VERBS: [(&[u8], Verb); 6] = [
            (b"CAPA", Verb::Capa),
            (b"STLS", Verb::Stls),
            (b"USER", Verb::User),
            (b"PASS", Verb::Pass),
            (b"AUTH", Verb::Auth),
            (b"QUIT", Verb::Quit),
        ];
        VERBS
            .into_iter()
            .find(|(name, _)| word.eq_ignore_ascii_case(name))
            .map_or(Self::Unknown, |(_, verb)| verb)
    }
}
