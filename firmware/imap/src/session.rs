//! The server's side of IMAP up to login.
use core::mem;
use core::ops::Range;

use mail::input::{Input, Line};
use mail::outbox::{Outbox, Then, Waiting};
use mail::sasl::{self, Exchange, Mechanism, Progress, Proof, SaslError, USER};
use mail::session::{Action, Answer, Closed, Label, Login, Note, Session as Contract, Transport};
use mail::{ClientId, Secret};

use crate::command::{Arguments, Bare, Head, Malformed, Tag, Verb};
use crate::id::{Id, Read};
use crate::line::{COMMAND, LINE, LITERAL, Literal, SWALLOW};
use crate::offer::{Offer, carries_after_login};

/// Octets of one reply: what the backend says at login is most of it, and is cut to [`PASSED`] twice.
const REPLY: usize = 2 * PASSED + 512;
/// Octets of untagged lines, and of text, passed on from the backend at login.
const PASSED: usize = 2048;
/// Malformed, unknown and refused commands on one connection; the last one ends it.
const ERRORS: u8 = 10;
/// Malformed CLIENTIDs on one connection; the last one ends it (clientid.md Q13).
const CLIENTID_ERRORS: u8 = 3;
/// Octets of a literal in CLIENTID (Q10).
const CLIENTID_LITERAL: usize = 128;

/// One IMAP session, up to login (RFC 9051, RFC 3501).
///
/// Octets in, actions out, in fixed memory, under 20 KiB. However the input is split, the same octets give the same
/// actions. While a login is being decided, later input waits and is not parsed.
#[derive(Debug)]
pub struct Session {
    input: Input<COMMAND>,
    reply: Outbox<REPLY>,
    security: Security,
    label: Label,
    errors: u8,
    clientid_errors: u8,
    state: State,
}

/// What protects the connection, and what may only be said under it.
#[derive(Debug)]
enum Security {
    Clear,
    Tls { clientid: Option<ClientId> },
}

#[derive(Debug, Default)]
enum State {
    /// Nothing was said yet.
    Connected,
    /// A command's first line is awaited.
    Ready,
    /// LOGIN or CLIENTID goes on behind a literal: the next line begins at `from`.
    Gathering { head: Head, from: usize, literals: u8 },
    /// Arguments of ID.
    Identifying { tag: Tag, id: Id },
    /// Refused literal octets to drop, then the rest of their line, which may announce more.
    Dropping { left: usize, budget: usize },
    /// AUTHENTICATE: a response line is awaited.
    Responding { tag: Tag, exchange: Exchange },
    /// The driver decides. The command is the first `length` octets of the input, `proof` speaks of those from `base`.
    Deciding { tag: Tag, proof: Proof, base: usize, length: usize },
    /// STARTTLS was accepted.
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
            security: match transport {
                Transport::Clear => Security::Clear,
                Transport::Tls => Security::Tls { clientid: None },
            },
            label: Label {
                name: heapless::String::new(),
                version: heapless::String::new(),
                vendor: heapless::String::new(),
                os: heapless::String::new(),
                ehlo: heapless::String::new(),
            },
            errors: 0,
            clientid_errors: 0,
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
                    self.injected();
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
            self.label = Label::default();
            self.security = Security::Tls { clientid: None };
            self.state = State::Ready;
        }
    }

    fn answer(&mut self, answer: Answer<'_>) {
        self.state = match mem::take(&mut self.state) {
            State::Deciding { tag, length, .. } => {
                self.input.consume(length);
                self.reply.recall();
                self.decided(&tag, &answer)
            }
            other => other,
        };
    }

    fn rest(&self) -> &[u8] {
        if matches!(self.state, State::Relaying) { self.input.octets() } else { &[] }
    }
}

/// The steps: each reads something, or says that it cannot.
impl Session {
    fn step(&mut self, offer: &Offer) -> bool {
        let (state, moved) = match mem::take(&mut self.state) {
            State::Connected => {
                let list = offer.capabilities(self.security.transport());
                self.reply.say(&[
                    b"* OK [CAPABILITY ",
                    list.as_bytes(),
                    b"] ",
                    offer.hostname().as_bytes(),
                    b" ready\r\n",
                ]);
                (State::Ready, true)
            }
            State::Ready => match Head::of_id(self.input.octets()) {
                Some((tag, length)) => {
                    self.input.consume(length);
                    self.label = Label::default();
                    (State::Identifying { tag, id: Id::new() }, true)
                }
                None => match self.line(0, LINE) {
                    Ok(Some(end)) => (self.command(end, offer), true),
                    Ok(None) => (State::Ready, false),
                    Err(closed) => self.breach(closed),
                },
            },
            State::Gathering { head, from, literals } => match self.line(from, LINE.saturating_sub(from)) {
                Ok(Some(end)) => (self.gathered(head, from, end, literals), true),
                Ok(None) => (State::Gathering { head, from, literals }, false),
                Err(closed) => self.breach(closed),
            },
            State::Identifying { tag, id } => self.identify(tag, id),
            State::Dropping { left, budget } => self.drop_refused(left, budget),
            State::Responding { tag, exchange } => match self.line(0, sasl::LINE) {
                Ok(Some(end)) => (self.respond(tag, exchange, 0..end), true),
                Ok(None) => (State::Responding { tag, exchange }, false),
                Err(closed) => self.breach(closed),
            },
            waiting @ (State::Deciding { .. } | State::Handshake | State::Relaying | State::Done) => {
                (waiting, false)
            }
        };
        self.state = state;
        moved
    }

    /// The end of the line that begins at `from`, `None` if it is not here yet, or how it breaches the limits.
    fn line(&mut self, from: usize, limit: usize) -> Result<Option<usize>, Closed> {
        match self.input.line(from, limit) {
            Line::Until(end) => Ok(Some(end)),
            Line::Partial => Ok(None),
            Line::TooLong => Err(Closed::TooLong),
            Line::Bare => Err(Closed::BareLineEnd),
        }
    }

    fn breach(&mut self, closed: Closed) -> (State, bool) {
        let text: &[u8] = match closed {
            Closed::BareLineEnd => b"* BAD Lines end with CRLF.\r\n",
            _ => b"* BAD Line too long.\r\n",
        };
        (self.close(text, closed), true)
    }

    /// A command's first line is here, up to `end`.
    fn command(&mut self, end: usize, offer: &Offer) -> State {
        let line = self.input.octets().get(..end).unwrap_or_default();
        let literal = Literal::at_end_of(line);
        let Some(head) = Head::parse(line) else {
            return self.refuse_untagged(end, literal);
        };
        let tls = matches!(self.security, Security::Tls { .. });
        match (head.verb, head.arguments) {
            (Verb::Capability, None) => {
                let list = offer.capabilities(self.security.transport());
                self.reply.say(&[b"* CAPABILITY ", list.as_bytes(), b"\r\n"]);
                self.done(&head.tag, b"OK CAPABILITY completed.", end)
            }
            (Verb::Noop, None) => self.done(&head.tag, b"OK NOOP completed.", end),
            (Verb::Logout, None) => {
                self.reply.say(&[b"* BYE Logging out.\r\n", &head.tag, b" OK LOGOUT completed.\r\n"]);
                self.close(b"", Closed::ByClient)
            }
            (Verb::StartTls, None) if !tls => self.start_tls(&head.tag, end),
            (Verb::ClientId, _) if !tls => {
                self.reply.note(Note::ClientIdInClear);
                self.refuse(&head.tag, UNKNOWN, end, literal)
            }
            (Verb::Login | Verb::Authenticate, _) if !tls => {
                self.reply.note(Note::LoginInClear);
                self.refuse(&head.tag, b"NO [PRIVACYREQUIRED] Use TLS first.", end, literal)
            }
            (Verb::Login, Some(_)) if !offer.mechanisms().takes(Mechanism::Plain) => {
                self.refuse(&head.tag, b"NO LOGIN is disabled.", end, literal)
            }
            (Verb::ClientId, _) if !offer.clientid() => self.refuse(&head.tag, UNKNOWN, end, literal),
            (Verb::ClientId, _) if self.clientid().is_some() => {
                self.refuse(&head.tag, b"BAD CLIENTID was given already.", end, literal)
            }
            (Verb::Login | Verb::ClientId, Some(_)) => self.gathered(head, 0, end, 0),
            (Verb::ClientId, None) => self.refuse_clientid(&head.tag, end, literal),
            (Verb::Authenticate, Some(at)) => self.authenticate(head.tag, at, end, literal, offer),
            (Verb::Unknown, _) => self.refuse(&head.tag, UNKNOWN, end, literal),
            (Verb::StartTls, None) => self.refuse(&head.tag, b"BAD TLS is active already.", end, literal),
            // ID's arguments are read as they come, so its line never gets here with them.
            (Verb::Capability | Verb::Noop | Verb::Logout | Verb::StartTls | Verb::Id, Some(_))
            | (Verb::Id | Verb::Login | Verb::Authenticate, None) => {
                self.refuse(&head.tag, ARGUMENTS, end, literal)
            }
        }
    }

    /// LOGIN or CLIENTID has its line from `from` to `end`: either a literal follows, or it is complete.
    fn gathered(&mut self, head: Head, from: usize, end: usize, literals: u8) -> State {
        let line = self.input.octets().get(from..end).unwrap_or_default();
        let Some(literal) = Literal::at_end_of(line) else {
            return match head.verb {
                Verb::ClientId => self.identify_device(&head, end),
                _ => self.login_command(head, end),
            };
        };
        let limit = if head.verb == Verb::ClientId { CLIENTID_LITERAL } else { LITERAL };
        // Both commands have two arguments. The size is looked at before a single octet of it is taken.
        match literal.within(limit) {
            Some(size) if literals < 2 && end + 2 + size < LINE => {
                if literal.waits {
                    self.reply.say(&[b"+ Ready for literal data\r\n"]);
                }
                State::Gathering { head, from: end + 2 + size, literals: literals + 1 }
            }
            _ if head.verb == Verb::ClientId => self.refuse_clientid(&head.tag, end, Some(literal)),
            _ => self.refuse(&head.tag, b"BAD Literal too large.", end, Some(literal)),
        }
    }

    fn login_command(&mut self, head: Head, end: usize) -> State {
        let at = head.arguments.unwrap_or(end);
        let words = self.input.octets_mut().get_mut(..end).unwrap_or_default();
        match login_words(&mut Arguments::new(words, at)) {
            Ok((user, secret)) => {
                self.decide(head.tag, Proof::words(Mechanism::Plain, user, secret), 0, end + 2)
            }
            Err(Malformed) => self.refuse(&head.tag, ARGUMENTS, end, None),
        }
    }

    /// CLIENTID (draft-yu-imap-client-id-07 §3): well-formed means OK, for every device alike; policy speaks at login.
    fn identify_device(&mut self, head: &Head, end: usize) -> State {
        let at = head.arguments.unwrap_or(end);
        let words = self.input.octets_mut().get_mut(..end).unwrap_or_default();
        let Some((id, underscore)) = clientid_words(&mut Arguments::new(words, at)) else {
            return self.refuse_clientid(&head.tag, end, None);
        };
        if underscore {
            self.reply.note(Note::ClientIdUnderscore);
        }
        self.security = Security::Tls { clientid: Some(id) };
        self.done(&head.tag, b"OK CLIENTID completed", end)
    }

    /// AUTHENTICATE mechanism, perhaps with an initial response (RFC 4959, in the base of RFC 9051).
    fn authenticate(
        &mut self,
        tag: Tag,
        at: usize,
        end: usize,
        literal: Option<Literal>,
        offer: &Offer,
    ) -> State {
        let words = self.input.octets_mut().get_mut(..end).unwrap_or_default();
        let mut arguments = Arguments::new(words, at);
        let name = arguments.bare(Bare::Astring);
        let mechanism = name.ok().and_then(|name| Mechanism::parse(arguments.get(&name)));
        let (alone, spaced, rest) = (arguments.end().is_ok(), arguments.space().is_ok(), arguments.rest());
        match mechanism.filter(|&mechanism| offer.mechanisms().takes(mechanism)) {
            None => self.refuse(&tag, b"NO Unsupported authentication mechanism.", end, literal),
            Some(mechanism) if alone => {
                self.input.consume(end + 2);
                self.challenge(tag, Exchange::start(mechanism))
            }
            Some(mechanism) if spaced && !rest.is_empty() && literal.is_none() => {
                self.respond(tag, Exchange::start(mechanism), rest)
            }
            Some(_) => self.refuse(&tag, ARGUMENTS, end, literal),
        }
    }

    fn challenge(&mut self, tag: Tag, exchange: Exchange) -> State {
        self.reply.say(&[b"+ ", exchange.challenge().as_bytes(), b"\r\n"]);
        State::Responding { tag, exchange }
    }

    /// A response is here; its line ends where `range` does.
    fn respond(&mut self, tag: Tag, exchange: Exchange, range: Range<usize>) -> State {
        let (base, end) = (range.start, range.end);
        let response = self.input.octets_mut().get_mut(range).unwrap_or_default();
        // A lone `=` is an empty response in the command, and plain nonsense on a line of its own.
        let response = if base == 0 { response } else { sasl::initial(response) };
        match exchange.respond(response) {
            Ok(Progress::Complete(proof)) => self.decide(tag, proof, base, end + 2),
            Ok(Progress::Continue(exchange)) => {
                self.input.consume(end + 2);
                self.challenge(tag, exchange)
            }
            Err(SaslError::Cancelled) => self.done(&tag, b"BAD Authentication cancelled.", end),
            Err(SaslError::Base64 | SaslError::Malformed) => {
                self.refuse(&tag, b"BAD Invalid SASL response.", end, None)
            }
        }
    }

    fn identify(&mut self, tag: Tag, mut id: Id) -> (State, bool) {
        let mut used = 0;
        for &octet in self.input.octets() {
            let read = id.read(octet, &mut self.label);
            used += usize::from(!matches!(read, Read::Malformed { .. }));
            let refused = match read {
                Read::More => continue,
                Read::Wanted => {
                    self.input.consume(used);
                    self.reply.say(&[b"+ Ready for literal data\r\n"]);
                    return (State::Identifying { tag, id }, true);
                }
                Read::Complete => {
                    self.input.consume(used);
                    self.reply.say(&[b"* ID (\"name\" \"Postern\")\r\n", &tag, b" OK ID completed.\r\n"]);
                    return (State::Ready, true);
                }
                Read::Malformed { left } => Some(left),
                Read::TooLarge { waits: true, .. } => None,
                Read::TooLarge { size, waits: false } => Some(size),
            };
            self.input.consume(used);
            self.label = Label::default();
            return (self.refuse_behind(&tag, ARGUMENTS, refused), true);
        }
        self.input.consume(used);
        (State::Identifying { tag, id }, false)
    }

    fn drop_refused(&mut self, left: usize, budget: usize) -> (State, bool) {
        if left > 0 {
            let here = left.min(self.input.len());
            self.input.consume(here);
            return (State::Dropping { left: left - here, budget }, left == here);
        }
        match self.line(0, LINE) {
            Ok(None) => (State::Dropping { left, budget }, false),
            Err(closed) => self.breach(closed),
            Ok(Some(end)) => {
                let literal = Literal::at_end_of(self.input.octets().get(..end).unwrap_or_default());
                self.input.consume(end + 2);
                (self.drop_literal(literal, budget), true)
            }
        }
    }
}

/// What a client gets whose command is not one, in clear for CLIENTID too.
const UNKNOWN: &[u8] = b"BAD Unknown command.";
const ARGUMENTS: &[u8] = b"BAD Invalid arguments.";

/// How steps end.
impl Session {
    /// The command that ends at `end` has its reply, and another may come.
    fn done(&mut self, tag: &Tag, text: &[u8], end: usize) -> State {
        self.input.consume(end + 2);
        self.reply.say(&[tag, b" ", text, b"\r\n"]);
        State::Ready
    }

    /// The command whose line ends at `end` is refused and counted, and its literal, if it comes, dropped.
    fn refuse(&mut self, tag: &Tag, text: &[u8], end: usize, literal: Option<Literal>) -> State {
        self.input.consume(end + 2);
        // A client that waits sees the refusal instead of a go-ahead, and its command is over.
        let coming = literal.filter(|literal| !literal.waits).map(|literal| literal.size);
        self.refuse_behind(tag, text, coming)
    }

    /// Refuses and counts; `behind`: octets of a literal on their way, then the rest of the command's line.
    fn refuse_behind(&mut self, tag: &Tag, text: &[u8], behind: Option<u64>) -> State {
        self.reply.say(&[tag, b" ", text, b"\r\n"]);
        self.count(behind)
    }

    fn refuse_untagged(&mut self, end: usize, literal: Option<Literal>) -> State {
        self.input.consume(end + 2);
        self.reply.say(&[b"* BAD Invalid tag.\r\n"]);
        self.count(literal.filter(|literal| !literal.waits).map(|literal| literal.size))
    }

    fn refuse_clientid(&mut self, tag: &Tag, end: usize, literal: Option<Literal>) -> State {
        self.clientid_errors += 1;
        if self.clientid_errors >= CLIENTID_ERRORS {
            self.errors = ERRORS;
        }
        self.refuse(tag, b"BAD Syntax: CLIENTID type token", end, literal)
    }

    fn count(&mut self, behind: Option<u64>) -> State {
        self.reply.note(Note::Malformed);
        self.errors = self.errors.saturating_add(1);
        if self.errors >= ERRORS {
            return self.close(b"* BYE Too many errors.\r\n", Closed::TooManyErrors);
        }
        match behind {
            None => State::Ready,
            Some(size) => self.drop_literal(Some(Literal { size, waits: false }), SWALLOW),
        }
    }

    /// Goes on dropping if `literal` is on its way.
    fn drop_literal(&mut self, literal: Option<Literal>, budget: usize) -> State {
        match literal {
            None | Some(Literal { waits: true, .. }) => State::Ready,
            Some(literal) => match literal.within(budget) {
                Some(size) => State::Dropping { left: size, budget: budget - size },
                None => self.close(b"* BYE Literal too large.\r\n", Closed::TooLong),
            },
        }
    }

    fn start_tls(&mut self, tag: &Tag, end: usize) -> State {
        self.input.consume(end + 2);
        if !self.input.is_empty() {
            return self.close(b"", Closed::Injection);
        }
        self.reply.say(&[tag, b" OK Begin TLS negotiation now.\r\n"]);
        self.reply.then(Then::StartTls);
        State::Handshake
    }

    /// Octets in clear came behind STARTTLS before the handshake (RFC 3207 §6 has it for all): not even the go-ahead
    /// is sent, if it is still here.
    fn injected(&mut self) {
        self.reply.recall();
        self.state = self.close(b"", Closed::Injection);
    }

    fn decide(&mut self, tag: Tag, proof: Proof, base: usize, length: usize) -> State {
        self.reply.then(Then::Login);
        State::Deciding { tag, proof, base, length }
    }

    fn login(&self) -> Option<Action<'_>> {
        let State::Deciding { proof, base, length, .. } = &self.state else { return None };
        let credentials = proof.credentials(self.input.octets().get(*base..*length)?).ok()?;
        Some(Action::Login(Login {
            mechanism: proof.mechanism(),
            user: credentials.user,
            authzid: credentials.authzid,
            secret: credentials.secret,
            clientid: self.clientid(),
            label: &self.label,
        }))
    }

    fn decided(&mut self, tag: &Tag, answer: &Answer<'_>) -> State {
        match answer {
            Answer::Admitted { untagged, text } => {
                pass_lines(&mut self.reply, untagged);
                self.reply.say(&[tag, b" OK "]);
                pass_text(&mut self.reply, text);
                self.reply.then(Then::Relay);
                return State::Relaying;
            }
            Answer::Failed | Answer::FailedLast => {
                self.reply.say(&[tag, b" NO [AUTHENTICATIONFAILED] Authentication failed.\r\n"]);
            }
            Answer::Unavailable => {
                self.reply.say(&[tag, b" NO [UNAVAILABLE] Temporary authentication failure.\r\n"]);
            }
        }
        if matches!(answer, Answer::FailedLast) {
            return self.close(b"* BYE Too many errors.\r\n", Closed::TooManyErrors);
        }
        State::Ready
    }

    fn close(&mut self, text: &[u8], closed: Closed) -> State {
        self.input.clear();
        self.reply.say(&[text]);
        self.reply.then(Then::Close(closed));
        State::Done
    }

    const fn clientid(&self) -> Option<&ClientId> {
        match &self.security {
            Security::Tls { clientid } => clientid.as_ref(),
            Security::Clear => None,
        }
    }
}

impl Security {
    const fn transport(&self) -> Transport {
        match self {
            Self::Clear => Transport::Clear,
            Self::Tls { .. } => Transport::Tls,
        }
    }
}

/// The backend's untagged lines, whole ones only, up to [`PASSED`] octets of them.
fn pass_lines(reply: &mut Outbox<REPLY>, lines: &[u8]) {
    for line in lines.split_inclusive(|&octet| octet == b'\n') {
        let Some(content) = line.strip_suffix(b"\r\n") else { continue };
        let fits = reply.text().len() + line.len() <= PASSED;
        if !fits || !content.starts_with(b"* ") || !is_text(content) {
            continue;
        }
        match split_prefix(content, b"* CAPABILITY ") {
            Some((prefix, list)) => {
                reply.say(&[prefix]);
                pass_capabilities(reply, list);
                reply.say(&[b"\r\n"]);
            }
            None => reply.say(&[line]),
        }
    }
}

/// The backend's words behind its OK, or ours; and the line's end.
fn pass_text(reply: &mut Outbox<REPLY>, text: &[u8]) {
    let text = text.get(..text.len().min(PASSED)).unwrap_or_default();
    if text.is_empty() || !is_text(text) {
        return reply.say(&[b"Logged in.\r\n"]);
    }
    let list = split_prefix(text, b"[CAPABILITY ").and_then(|(prefix, rest)| {
        let end = rest.iter().position(|&octet| octet == b']')?;
        let (list, behind) = rest.split_at_checked(end)?;
        Some((prefix, list, behind))
    });
    match list {
        Some((prefix, list, behind)) => {
            reply.say(&[prefix]);
            pass_capabilities(reply, list);
            reply.say(&[behind, b"\r\n"]);
        }
        None => reply.say(&[text, b"\r\n"]),
    }
}

fn pass_capabilities(reply: &mut Outbox<REPLY>, list: &[u8]) {
    let kept = list.split(|&octet| octet == b' ').filter(|atom| carries_after_login(atom));
    for (at, atom) in kept.enumerate() {
        reply.say(&[if at == 0 { b"" } else { b" " }, atom]);
    }
}

/// No line end and no NUL: a backend must not write lines of its own choosing into ours.
fn is_text(text: &[u8]) -> bool {
    !text.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n'))
}

fn split_prefix<'a>(text: &'a [u8], prefix: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some((start, rest))
}

/// `userid SP password` (RFC 9051 §6.2.3); neither may be empty: there is nobody, or nothing, to check.
fn login_words(arguments: &mut Arguments<'_>) -> Result<(Secret<USER>, Range<usize>), Malformed> {
    let user = arguments.word(Bare::Astring)?;
    arguments.space()?;
    let secret = arguments.word(Bare::Astring)?;
    arguments.end()?;
    let user = Secret::copy_from(arguments.get(&user)).ok_or(Malformed)?;
    if user.is_empty() || secret.is_empty() || secret.len() > LITERAL {
        Err(Malformed)
    } else {
        Ok((user, secret))
    }
}

fn clientid_words(arguments: &mut Arguments<'_>) -> Option<(ClientId, bool)> {
    let kind = arguments.word(Bare::Raw).ok()?;
    arguments.space().ok()?;
    let token = arguments.word(Bare::Raw).ok()?;
    arguments.end_or_space().ok()?;
    ClientId::parse(arguments.get(&kind), arguments.get(&token)).ok()
}
