//! Our side of an IMAP connection to the backend, up to login.
use core::fmt::Write as _;

use mail::Secret;
use mail::input::{Input, Line};
use mail::sasl::{self, Mechanism};
use mail::session::{Backend, Job, Outcome, Peer, Step, Task};

use crate::line::Literal;
use crate::response::{OurTag, Response, Status, code, is_temporary};

/// Octets of one line from the backend. Capability lists are the longest there are before login.
const LINE: usize = 4096;
/// Octets of one command of ours: the longest SASL response with a tag, `AUTHENTICATE` and a mechanism.
const COMMAND: usize = sasl::LINE + 128;
/// Octets kept of capabilities, of untagged lines at login, and of the text behind its OK.
const KEPT: usize = 2048;
/// Lines that may come between two commands of ours; a greeting and its kin are two or three.
const UNTAGGED: u8 = 64;

/// One backend connection (RFC 9051, RFC 3501), from its greeting to a login's reply.
pub struct Client {
    input: Input<{ LINE + 2 }>,
    /// The next line goes on with untagged data behind a literal.
    continued: bool,
    talk: Talk,
}

/// All but the input, so that a line can be read where it lies.
struct Talk {
    command: Secret<COMMAND>,
    command_taken: bool,
    then: Option<Then>,
    state: State,
    capabilities: heapless::Vec<u8, KEPT>,
    untagged: heapless::Vec<u8, KEPT>,
    text: heapless::Vec<u8, KEPT>,
    /// Lines read since our last command.
    lines: u8,
    believed: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// The greeting is awaited.
    Connected,
    /// The reply to STARTTLS is awaited.
    Securing,
    /// TLS is being set up.
    Handshake,
    /// TLS is up and nothing is known.
    Secured,
    /// The reply to CAPABILITY is awaited.
    Asking,
    /// The reply to ID is awaited.
    Naming,
    /// The reply to a login is awaited, or leave to go on with it.
    LoggingIn(Part),
    /// Input belongs to the client.
    Relaying,
    /// Over.
    #[default]
    Done,
}

/// What a `+` during login is answered with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    /// The whole SASL message.
    Message(Mechanism),
    /// LOGIN (mechanism): the name, then the password.
    Name,
    Password,
    /// LOGIN (command): the name's octets and the announcement of the password's, then those.
    NameLiteral,
    PasswordLiteral,
    /// Everything is said. OAuth backends send an error this way and want an empty answer before they say NO.
    Said(Mechanism),
    /// That answer is given.
    Acknowledged,
}

#[derive(Debug)]
enum Then {
    StartTls,
    Done(End),
}

/// An [`Outcome`] that borrows nothing.
#[derive(Clone, Copy, Debug)]
enum End {
    Capabilities,
    Accepted,
    Rejected,
    Away(&'static str),
    Violation(&'static str),
}

const STARTTLS: OurTag = OurTag(0);
const CAPABILITY: OurTag = OurTag(1);
const ID: OurTag = OurTag(2);
const LOGIN: OurTag = OurTag(3);

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A new connection, whose greeting is awaited. Under implicit TLS the handshake comes before it.
    pub const fn new() -> Self {
        Self {
            input: Input::new(),
            continued: false,
            talk: Talk {
                command: Secret::new(),
                command_taken: false,
                then: None,
                state: State::Connected,
                capabilities: heapless::Vec::new(),
                untagged: heapless::Vec::new(),
                text: heapless::Vec::new(),
                lines: 0,
                believed: None,
            },
        }
    }

    /// Whether the backend believes who we say the client is: `Some(true)` if it said so (Dovecot 2.4 to those on its
    /// trust list), `Some(false)` if it has no ID or refused ours, `None` if nothing was said to it, or it cannot be
    /// told (Dovecot 2.3 says the same to all).
    pub const fn believed(&self) -> Option<bool> {
        self.talk.believed
    }

    fn step(&mut self, job: &Job<'_>) -> bool {
        match self.talk.state {
            State::Handshake | State::Relaying | State::Done => false,
            State::Secured => self.talk.ask(),
            State::Connected | State::Securing | State::Asking | State::Naming | State::LoggingIn(_) => {
                match self.input.line(0, LINE) {
                    Line::Partial => false,
                    Line::Until(end) => self.read(job, end),
                    Line::TooLong => self.talk.finish(End::Violation("endless line")),
                    Line::Bare => self.talk.finish(End::Violation("bare CR or LF")),
                }
            }
        }
    }

    /// A line is here, up to `end`; `false` if its literal is not.
    fn read(&mut self, job: &Job<'_>, end: usize) -> bool {
        let line = self.input.octets().get(..end).unwrap_or_default();
        if line.contains(&0) {
            return self.talk.finish(End::Violation("NUL"));
        }
        let response =
            if self.continued { Response::Data } else { Response::parse(line, self.talk.state.awaited()) };
        let literal = Literal::at_end_of(line).filter(|_| response == Response::Data);
        let mut used = end + 2;
        if let Some(literal) = literal {
            match literal.within(LINE - end) {
                Some(size) => used += size,
                None => return self.talk.finish(End::Violation("literal too large")),
            }
            if self.input.len() < used {
                return false;
            }
        }
        self.continued = literal.is_some();
        self.talk.lines += 1;
        if self.talk.lines > UNTAGGED {
            return self.talk.finish(End::Violation("too many lines"));
        }
        self.talk.read(job, line, &response, self.input.len() > used);
        self.input.consume(used);
        true
    }
}

impl Backend for Client {
    fn push(&mut self, bytes: &[u8]) -> usize {
        match self.talk.state {
            State::Handshake => {
                if !bytes.is_empty() {
                    self.talk.finish(INJECTED);
                }
                bytes.len()
            }
            State::Done => bytes.len(),
            _ => self.input.push(bytes),
        }
    }

    fn next(&mut self, job: &Job<'_>) -> Option<Step<'_>> {
        loop {
            if !self.talk.command.is_empty() && !self.talk.command_taken {
                self.talk.command_taken = true;
                return Some(Step::Send(self.talk.command.expose()));
            }
            self.talk.command.wipe();
            self.talk.command_taken = false;
            match self.talk.then.take() {
                Some(Then::StartTls) => return Some(Step::StartTls),
                Some(Then::Done(end)) => return Some(Step::Done(self.talk.outcome(end))),
                None => {}
            }
            if self.talk.state == State::Done {
                self.input.clear();
            }
            if !self.step(job) {
                return None;
            }
        }
    }

    fn tls_established(&mut self) {
        if self.talk.state == State::Handshake {
            self.input.clear();
            self.talk.capabilities.clear();
            self.talk.state = State::Secured;
        }
    }

    fn rest(&self) -> &[u8] {
        if self.talk.state == State::Relaying { self.input.octets() } else { &[] }
    }
}

impl State {
    /// The tag of the command whose reply is awaited.
    const fn awaited(self) -> OurTag {
        match self {
            Self::Securing => STARTTLS,
            Self::Naming => ID,
            Self::LoggingIn(_) => LOGIN,
            _ => CAPABILITY,
        }
    }
}

impl Talk {
    /// What one line means. `behind`: whether octets stand behind it.
    fn read(&mut self, job: &Job<'_>, line: &[u8], response: &Response<'_>, behind: bool) {
        match (self.state, response) {
            (_, Response::Bye) => self.finish(End::Away("goodbye")),
            (_, Response::PreAuth) => self.finish(End::Violation("PREAUTH")),
            (_, Response::Foreign) => self.finish(End::Violation("not a reply to us")),
            (State::Connected, Response::Untagged(Status::Ok(text))) => self.greeted(job, text),
            (State::Connected, Response::Untagged(_)) => self.finish(End::Away("greeting")),
            (State::Connected, _) => self.finish(End::Violation("greeting")),
            (State::Securing, Response::Tagged(Status::Ok(_))) if behind => self.finish(INJECTED),
            (State::Securing, Response::Tagged(Status::Ok(_))) => {
                self.then = Some(Then::StartTls);
                self.state = State::Handshake;
                true
            }
            (State::Securing, Response::Tagged(_)) => self.finish(End::Away("STARTTLS")),
            (State::Asking, Response::Capability(list)) => self.learn(list),
            (State::Asking, Response::Tagged(Status::Ok(_))) => self.known(job),
            (State::Asking, Response::Tagged(_)) => self.finish(End::Away("CAPABILITY")),
            (State::Naming, Response::Tagged(status)) => {
                self.believed = match status {
                    Status::Ok(text) if text.starts_with(b"Trusted ") => Some(true),
                    Status::Ok(_) => None,
                    Status::No(_) | Status::Bad => Some(false),
                };
                self.log_in(job)
            }
            (State::LoggingIn(_), Response::Tagged(status)) => self.logged_in(*status),
            (State::LoggingIn(part), Response::Continue) => self.go_on(job, part),
            (
                State::LoggingIn(_),
                Response::Capability(_) | Response::Untagged(Status::Ok(_) | Status::No(_)),
            ) => self.pass_on(line),
            (_, Response::Continue) => self.finish(End::Violation("go-ahead for nothing")),
            // Untagged data may come at any time (RFC 9051 §7); none of it concerns us.
            _ => true,
        };
    }

    /// `* OK`. What it says of capabilities counts only where no handshake follows.
    fn greeted(&mut self, job: &Job<'_>, text: &[u8]) -> bool {
        if job.starttls {
            self.state = State::Securing;
            return self.send(STARTTLS, &[b"STARTTLS"]);
        }
        match code(text) {
            Some((atom, list)) if atom.eq_ignore_ascii_case(b"CAPABILITY") => {
                self.learn(list);
                self.known(job)
            }
            _ => self.ask(),
        }
    }

    fn ask(&mut self) -> bool {
        self.state = State::Asking;
        self.send(CAPABILITY, &[b"CAPABILITY"])
    }

    /// Keeps capabilities with one space between; a list that is too long loses its tail.
    fn learn(&mut self, list: &[u8]) -> bool {
        self.capabilities.clear();
        for atom in list.split(|&octet| octet == b' ').filter(|atom| !atom.is_empty()) {
            let gap: &[u8] = if self.capabilities.is_empty() { b"" } else { b" " };
            if self.capabilities.len() + gap.len() + atom.len() <= KEPT {
                let _ = self.capabilities.extend_from_slice(gap);
                let _ = self.capabilities.extend_from_slice(atom);
            }
        }
        true
    }

    fn has(&self, capability: &[u8]) -> bool {
        self.capabilities.split(|&octet| octet == b' ').any(|atom| atom.eq_ignore_ascii_case(capability))
    }

    /// Capabilities are known.
    fn known(&mut self, job: &Job<'_>) -> bool {
        match (&job.task, job.peer) {
            (Task::Probe, None) => self.leave(),
            (_, Some(peer)) if self.has(b"ID") => {
                self.state = State::Naming;
                let mut line = heapless::String::<1536>::new();
                if write_id(&mut line, peer).is_err() {
                    return self.finish(End::Violation("our ID does not fit"));
                }
                self.send(ID, &[line.as_bytes()])
            }
            (_, peer) => {
                self.believed = peer.map(|_| false);
                self.log_in(job)
            }
        }
    }

    fn leave(&mut self) -> bool {
        self.send(OurTag(4), &[b"LOGOUT"]);
        self.finish(End::Capabilities)
    }

    fn log_in(&mut self, job: &Job<'_>) -> bool {
        let Task::Login { mechanism, user, secret } = job.task else { return self.leave() };
        if user.is_empty() || user.contains(&0) || (mechanism.is_password() && secret.contains(&0)) {
            return self.finish(End::Rejected); // no mechanism can carry it
        }
        if !mechanism.is_password() {
            let capability: &[u8] =
                if mechanism == Mechanism::XOAuth2 { b"AUTH=XOAUTH2" } else { b"AUTH=OAUTHBEARER" };
            return if self.has(capability) {
                self.authenticate(mechanism, job)
            } else {
                self.finish(End::Away("no such mechanism"))
            };
        }
        if self.has(b"AUTH=PLAIN") {
            self.authenticate(Mechanism::Plain, job)
        } else if !self.has(b"LOGINDISABLED") {
            self.login_command(user, secret)
        } else if self.has(b"AUTH=LOGIN") {
            self.state = State::LoggingIn(Part::Name);
            self.send(LOGIN, &[b"AUTHENTICATE LOGIN"])
        } else {
            self.finish(End::Away("no password mechanism"))
        }
    }

    /// With the message in the command where the backend takes it (RFC 4959; in the base of RFC 9051).
    fn authenticate(&mut self, mechanism: Mechanism, job: &Job<'_>) -> bool {
        if !self.has(b"SASL-IR") && !self.has(b"IMAP4rev2") {
            self.state = State::LoggingIn(Part::Message(mechanism));
            return self.send(LOGIN, &[b"AUTHENTICATE ", mechanism.name().as_bytes()]);
        }
        self.state = State::LoggingIn(Part::Said(mechanism));
        let tag = LOGIN.octets();
        let fits = [&tag[..], b" AUTHENTICATE ", mechanism.name().as_bytes(), b" "]
            .iter()
            .all(|part| self.command.extend(part));
        if fits { self.say_message(mechanism, job) } else { self.finish(End::Rejected) }
    }

    /// The mechanism's message in base64 and the line's end.
    fn say_message(&mut self, mechanism: Mechanism, job: &Job<'_>) -> bool {
        let Task::Login { user, secret, .. } = job.task else { return self.finish(End::Rejected) };
        let fits = if mechanism.is_password() {
            sasl::encode_plain(user, secret, &mut self.command)
        } else {
            sasl::encode(&[secret], &mut self.command)
        };
        self.state = State::LoggingIn(Part::Said(mechanism));
        if fits && self.command.extend(b"\r\n") { true } else { self.finish(End::Rejected) }
    }

    fn login_command(&mut self, user: &[u8], secret: &[u8]) -> bool {
        let quotable =
            |word: &[u8]| word.len() <= 1000 && word.iter().all(|octet| matches!(octet, b' '..=b'~'));
        if quotable(user) && quotable(secret) {
            self.state = State::LoggingIn(Part::Said(Mechanism::Login));
            let tag = LOGIN.octets();
            let fits = self.command.extend(&tag)
                && self.command.extend(b" LOGIN ")
                && quote(&mut self.command, user)
                && self.command.extend(b" ")
                && quote(&mut self.command, secret)
                && self.command.extend(b"\r\n");
            return fits || self.finish(End::Rejected);
        }
        let small = user.len().max(secret.len()) <= 4096; // LITERAL- (RFC 7888 §5)
        if self.has(b"LITERAL+") || (small && (self.has(b"LITERAL-") || self.has(b"IMAP4rev2"))) {
            self.state = State::LoggingIn(Part::Said(Mechanism::Login));
            let (first, second) = (Announced::new(user, "+"), Announced::new(secret, "+"));
            return self.send(LOGIN, &[b"LOGIN ", first.octets(), user, b" ", second.octets(), secret]);
        }
        self.state = State::LoggingIn(Part::NameLiteral);
        let announced = Announced::new(user, "");
        // The line's end is part of the announcement.
        self.send(LOGIN, &[b"LOGIN ", announced.octets().trim_ascii_end()])
    }

    /// `+` during login.
    fn go_on(&mut self, job: &Job<'_>, part: Part) -> bool {
        let Task::Login { user, secret, .. } = job.task else { return self.finish(End::Rejected) };
        let (next, fits) = match part {
            Part::Message(mechanism) => return self.say_message(mechanism, job),
            Part::Name => (Part::Password, sasl::encode(&[user], &mut self.command)),
            Part::Password => (Part::Said(Mechanism::Login), sasl::encode(&[secret], &mut self.command)),
            Part::NameLiteral => {
                let announced = Announced::new(secret, "");
                let fits = self.command.extend(user)
                    && self.command.extend(b" ")
                    && self.command.extend(announced.octets().trim_ascii_end());
                (Part::PasswordLiteral, fits)
            }
            Part::PasswordLiteral => (Part::Said(Mechanism::Login), self.command.extend(secret)),
            // RFC 7628 §3.2.3: a dummy response of ^A; XOAUTH2 wants an empty one.
            Part::Said(Mechanism::OAuthBearer) => (Part::Acknowledged, self.command.extend(b"AQ==")),
            Part::Said(Mechanism::XOAuth2) => (Part::Acknowledged, true),
            Part::Said(_) | Part::Acknowledged => return self.finish(End::Violation("go-ahead for nothing")),
        };
        self.state = State::LoggingIn(next);
        self.lines = 0;
        (fits && self.command.extend(b"\r\n")) || self.finish(End::Rejected)
    }

    fn logged_in(&mut self, status: Status<'_>) -> bool {
        match status {
            // A yes to what was not said yet is not the backend's opinion of it.
            Status::Ok(_) if !matches!(self.state, State::LoggingIn(Part::Said(_))) => {
                self.finish(End::Violation("accepted nothing"))
            }
            Status::Ok(text) => {
                let text = text.get(..text.len().min(KEPT)).unwrap_or_default();
                let _ = self.text.extend_from_slice(text);
                self.then = Some(Then::Done(End::Accepted));
                self.state = State::Relaying;
                true
            }
            Status::No(text) if is_temporary(text) => self.finish(End::Away("login")),
            Status::No(_) => self.finish(End::Rejected),
            // Not about the credentials: we asked in a way it does not have.
            Status::Bad => self.finish(End::Away("login syntax")),
        }
    }

    /// Keeps an untagged line that belongs to the login's reply; what no longer fits is dropped whole.
    fn pass_on(&mut self, line: &[u8]) -> bool {
        if self.untagged.len() + line.len() + 2 <= KEPT {
            let _ = self.untagged.extend_from_slice(line);
            let _ = self.untagged.extend_from_slice(b"\r\n");
        }
        true
    }

    fn send(&mut self, tag: OurTag, parts: &[&[u8]]) -> bool {
        self.lines = 0;
        let fits = self.command.extend(&tag.octets())
            && self.command.extend(b" ")
            && parts.iter().all(|part| self.command.extend(part))
            && self.command.extend(b"\r\n");
        fits || self.finish(End::Rejected)
    }

    /// The task is over; only LOGOUT is still sent.
    fn finish(&mut self, end: End) -> bool {
        if !matches!(end, End::Capabilities) {
            self.command.wipe();
            self.command_taken = false;
        }
        self.state = State::Done;
        self.then = Some(Then::Done(end));
        true
    }

    fn outcome(&self, end: End) -> Outcome<'_> {
        match end {
            End::Capabilities => Outcome::Capabilities(&self.capabilities),
            End::Accepted => Outcome::Accepted { untagged: &self.untagged, text: &self.text },
            End::Rejected => Outcome::Rejected,
            End::Away(step) => Outcome::Away(step),
            End::Violation(what) => Outcome::Violation(what),
        }
    }
}

const INJECTED: End = End::Violation("octets behind STARTTLS");

/// ID as Dovecot's own proxy sends it (clientid.md §5.1). Every value is a number, an address, or of our own making,
/// but for the server name, which is a valid host name.
fn write_id<const N: usize>(line: &mut heapless::String<N>, peer: &Peer<'_>) -> core::fmt::Result {
    let (client, local) = (peer.client, peer.local);
    line.push_str("ID (").map_err(|_| core::fmt::Error)?;
    write_pair(line, "x-session-id", cut(peer.session, 64))?;
    write!(line, " \"x-originating-ip\" \"{}\"", client.ip().to_canonical())?;
    write!(line, " \"x-originating-port\" \"{}\"", client.port())?;
    write!(line, " \"x-connected-ip\" \"{}\"", local.ip().to_canonical())?;
    write!(line, " \"x-connected-port\" \"{}\"", local.port())?;
    line.write_str(" \"x-proxy-ttl\" \"6\" ")?;
    write_pair(line, "x-client-transport", if peer.tls { "TLS" } else { "insecure" })?;
    if let Some(name) = peer.sni {
        line.write_str(" ")?;
        write_pair(line, "x-connected-name", cut(name, 255))?;
    }
    if let Some(alias) = peer.device {
        line.write_str(" ")?;
        write_pair(line, "x-forward-edgedev", cut(alias, 64))?;
    }
    line.write_str(")")
}

/// A quoted key and value; octets that would end a quoted string or the line are left out of the value.
fn write_pair<const N: usize>(line: &mut heapless::String<N>, key: &str, value: &str) -> core::fmt::Result {
    write!(line, "\"{key}\" \"")?;
    value
        .chars()
        .filter(|&shown| (shown.is_ascii_graphic() || shown == ' ') && !matches!(shown, '"' | '\\'))
        .try_for_each(|shown| line.write_char(shown))?;
    line.write_char('"')
}

fn cut(text: &str, octets: usize) -> &str {
    text.get(..text.floor_char_boundary(octets)).unwrap_or_default()
}

/// `{n}` CRLF before a literal of `octets`.
struct Announced(heapless::String<32>);

impl Announced {
    fn new(octets: &[u8], mode: &str) -> Self {
        let mut text = heapless::String::new();
        // 20 digits at most.
        let _ = write!(text, "{{{}{mode}}}\r\n", octets.len());
        Self(text)
    }

    fn octets(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A quoted string of printable 7-bit octets.
fn quote<const N: usize>(out: &mut Secret<N>, word: &[u8]) -> bool {
    out.extend(b"\"")
        && word.iter().all(|&octet| (!matches!(octet, b'"' | b'\\') || out.push(b'\\')) && out.push(octet))
        && out.extend(b"\"")
}
