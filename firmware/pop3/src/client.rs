//! Our side of a POP3 connection to the backend, up to login.
use core::fmt::Write as _;

use mail::Secret;
use mail::input::{Input, Line};
use mail::sasl::{self, Mechanism};
use mail::session::{Backend, Job, Outcome, Peer, Step, Task};

/// Octets of one line from the backend: 512 by RFC 2449 §4, and room for those who do not count.
const LINE: usize = 2048;
/// Octets of one command of ours: the longest SASL response with `AUTH` and a mechanism.
const COMMAND: usize = sasl::LINE + 32;
/// Octets kept of capabilities, and of the text behind the login's +OK.
const KEPT: usize = 2048;
/// Lines of CAPA's reply.
const CAPABILITIES: u8 = 64;
/// Octets of an AUTH command with an initial response; longer ones wait for leave (RFC 5034 §4).
const INITIAL: usize = 255;

/// One backend connection (RFC 1939), from its greeting to a login's reply.
pub struct Client {
    input: Input<{ LINE + 2 }>,
    talk: Talk,
}

/// All but the input, so that a line can be read where it lies.
struct Talk {
    command: Secret<COMMAND>,
    command_taken: bool,
    then: Option<Then>,
    state: State,
    /// The greeting has `[XCLIENT]`: the backend will hear who the client is.
    xclient: bool,
    capabilities: heapless::Vec<u8, KEPT>,
    text: heapless::Vec<u8, KEPT>,
    lines: u8,
    believed: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// The greeting is awaited.
    Connected,
    /// The reply to STLS is awaited.
    Securing,
    /// TLS is being set up.
    Handshake,
    /// TLS is up and nothing is known.
    Secured,
    /// The first line of CAPA's reply is awaited.
    Asking,
    /// The lines of CAPA's reply are awaited, up to the dot.
    Listening,
    /// The reply to XCLIENT is awaited.
    Naming,
    /// The reply to a login is awaited, or leave to go on with it.
    LoggingIn(Part),
    /// Input belongs to the client.
    Relaying,
    /// Over.
    #[default]
    Done,
}

/// What comes next in a login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    /// At `+OK`: PASS.
    Pass,
    /// At `+`: the whole SASL message.
    Message(Mechanism),
    /// At `+`, LOGIN: the name, then the password.
    Name,
    Password,
    /// Everything is said. OAuth backends send an error as a challenge and want an empty answer before `-ERR`.
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

/// A line that answers a command.
enum Reply<'a> {
    Ok(&'a [u8]),
    Err(&'a [u8]),
    Continue,
    Other,
}

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
            talk: Talk {
                command: Secret::new(),
                command_taken: false,
                then: None,
                state: State::Connected,
                xclient: false,
                capabilities: heapless::Vec::new(),
                text: heapless::Vec::new(),
                lines: 0,
                believed: None,
            },
        }
    }

    /// Whether the backend believes who we say the client is: its greeting had `[XCLIENT]` and it took ours. `None` if
    /// nothing was to be said. Untrusted senders get `+OK You are not from trusted IP - ignoring` (clientid.md §5.2).
    pub const fn believed(&self) -> Option<bool> {
        self.talk.believed
    }

    fn step(&mut self, job: &Job<'_>) -> bool {
        match self.talk.state {
            State::Handshake | State::Relaying | State::Done => false,
            State::Secured => self.talk.ask(),
            State::Connected
            | State::Securing
            | State::Asking
            | State::Listening
            | State::Naming
            | State::LoggingIn(_) => match self.input.line(0, LINE) {
                Line::Partial => false,
                Line::Until(end) => {
                    let line = self.input.octets().get(..end).unwrap_or_default();
                    self.talk.read(job, line, self.input.len() > end + 2);
                    self.input.consume(end + 2);
                    true
                }
                Line::TooLong => self.talk.finish(End::Violation("endless line")),
                Line::Bare => self.talk.finish(End::Violation("bare CR or LF")),
            },
        }
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
            self.talk.state = State::Secured;
        }
    }

    fn rest(&self) -> &[u8] {
        if self.talk.state == State::Relaying { self.input.octets() } else { &[] }
    }
}

impl<'a> Reply<'a> {
    fn parse(line: &'a [u8]) -> Self {
        let end = line.iter().position(|&octet| octet == b' ').unwrap_or(line.len());
        let text = line.get(end + 1..).unwrap_or_default();
        match line.get(..end).unwrap_or_default() {
            word if word.eq_ignore_ascii_case(b"+OK") => Self::Ok(text),
            word if word.eq_ignore_ascii_case(b"-ERR") => Self::Err(text),
            b"+" => Self::Continue,
            _ => Self::Other,
        }
    }
}

impl Talk {
    /// What one line means. `behind`: whether octets stand behind it.
    fn read(&mut self, job: &Job<'_>, line: &[u8], behind: bool) -> bool {
        if line.contains(&0) {
            return self.finish(End::Violation("NUL"));
        }
        if self.state == State::Listening {
            return self.listen(job, line);
        }
        match (self.state, Reply::parse(line)) {
            (_, Reply::Other) => self.finish(End::Violation("not a reply")),
            (State::Connected, Reply::Ok(text)) => {
                self.xclient = text.starts_with(b"[XCLIENT]");
                if job.starttls {
                    self.state = State::Securing;
                    self.send(&[b"STLS"])
                } else {
                    self.ask()
                }
            }
            (State::Connected, Reply::Err(_)) => self.finish(End::Away("greeting")),
            (State::Securing, Reply::Ok(_)) if behind => self.finish(INJECTED),
            (State::Securing, Reply::Ok(_)) => {
                self.then = Some(Then::StartTls);
                self.state = State::Handshake;
                true
            }
            (State::Securing, Reply::Err(_)) => self.finish(End::Away("STLS")),
            (State::Asking, Reply::Ok(_)) => {
                self.state = State::Listening;
                true
            }
            // A server without CAPA has what RFC 1939 has.
            (State::Asking, Reply::Err(_)) => self.known(job),
            (State::Naming, Reply::Ok(text)) => {
                self.believed = Some(!is_distrust(text));
                self.log_in(job)
            }
            (State::Naming, Reply::Err(_)) => {
                self.believed = Some(false);
                self.log_in(job)
            }
            (State::LoggingIn(Part::Pass), Reply::Ok(_)) => self.say_password(job),
            (State::LoggingIn(_), Reply::Ok(text)) => self.logged_in(text),
            (State::LoggingIn(_), Reply::Err(text)) if is_temporary(text) => self.finish(End::Away("login")),
            (State::LoggingIn(_), Reply::Err(_)) => self.finish(End::Rejected),
            (State::LoggingIn(part), Reply::Continue) => self.go_on(job, part),
            _ => self.finish(End::Violation("go-ahead for nothing")),
        }
    }

    fn ask(&mut self) -> bool {
        self.capabilities.clear();
        self.lines = 0;
        self.state = State::Asking;
        self.send(&[b"CAPA"])
    }

    /// One line of CAPA's list. What no longer fits is dropped whole.
    fn listen(&mut self, job: &Job<'_>, line: &[u8]) -> bool {
        if line == b"." {
            return self.known(job);
        }
        self.lines += 1;
        if self.lines > CAPABILITIES {
            return self.finish(End::Violation("too many lines"));
        }
        let line = line.strip_prefix(b".").unwrap_or(line); // dot-stuffing (RFC 1939 §3)
        let gap: &[u8] = if self.capabilities.is_empty() { b"" } else { b"\r\n" };
        if self.capabilities.len() + gap.len() + line.len() <= KEPT {
            let _ = self.capabilities.extend_from_slice(gap);
            let _ = self.capabilities.extend_from_slice(line);
        }
        true
    }

    /// Whether the capability's line has this among its arguments; `None` asks for the capability alone.
    fn has(&self, capability: &[u8], argument: Option<&[u8]>) -> bool {
        self.capabilities.split(|&octet| octet == b'\n').any(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let mut words = line.split(|&octet| octet == b' ');
            words.next().is_some_and(|word| word.eq_ignore_ascii_case(capability))
                && argument.is_none_or(|argument| words.any(|word| word.eq_ignore_ascii_case(argument)))
        })
    }

    /// Capabilities are known.
    fn known(&mut self, job: &Job<'_>) -> bool {
        match job.peer {
            Some(peer) if self.xclient => {
                self.state = State::Naming;
                let mut line = heapless::String::<1022>::new();
                if write_xclient(&mut line, peer).is_err() {
                    return self.finish(End::Violation("our XCLIENT does not fit"));
                }
                self.send(&[line.as_bytes()])
            }
            peer => {
                self.believed = peer.map(|_| false);
                self.log_in(job)
            }
        }
    }

    fn log_in(&mut self, job: &Job<'_>) -> bool {
        let Task::Login { mechanism, user, secret } = job.task else {
            self.send(&[b"QUIT"]);
            return self.finish(End::Capabilities);
        };
        if user.is_empty() || user.contains(&0) || (mechanism.is_password() && secret.contains(&0)) {
            return self.finish(End::Rejected); // no mechanism can carry it
        }
        let sasl = |mechanism: Mechanism| self.has(b"SASL", Some(mechanism.name().as_bytes()));
        let is_line = |word: &[u8]| !word.iter().any(|octet| matches!(octet, b'\r' | b'\n'));
        if !mechanism.is_password() {
            return if sasl(mechanism) {
                self.authenticate(mechanism, job)
            } else {
                self.finish(End::Away("no such mechanism"))
            };
        }
        if sasl(Mechanism::Plain) {
            self.authenticate(Mechanism::Plain, job)
        } else if self.has(b"USER", None) || self.capabilities.is_empty() {
            if !is_line(user) || !is_line(secret) {
                return self.finish(End::Rejected);
            }
            self.state = State::LoggingIn(Part::Pass);
            self.send(&[b"USER ", user])
        } else if sasl(Mechanism::Login) {
            self.state = State::LoggingIn(Part::Name);
            self.send(&[b"AUTH LOGIN"])
        } else {
            self.finish(End::Away("no password mechanism"))
        }
    }

    /// With the message in the command if that stays short (RFC 5034 §4).
    fn authenticate(&mut self, mechanism: Mechanism, job: &Job<'_>) -> bool {
        let Task::Login { user, secret, .. } = job.task else { return self.finish(End::Rejected) };
        let octets = if mechanism.is_password() { user.len() + secret.len() + 2 } else { secret.len() };
        let name = mechanism.name().as_bytes();
        if octets.div_ceil(3) * 4 + name.len() + 8 > INITIAL {
            self.state = State::LoggingIn(Part::Message(mechanism));
            return self.send(&[b"AUTH ", name]);
        }
        let fits = [b"AUTH ", name, b" "].iter().all(|part| self.command.extend(part));
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
        (fits && self.command.extend(b"\r\n")) || self.finish(End::Rejected)
    }

    fn say_password(&mut self, job: &Job<'_>) -> bool {
        let Task::Login { secret, .. } = job.task else { return self.finish(End::Rejected) };
        self.state = State::LoggingIn(Part::Said(Mechanism::Plain));
        self.send(&[b"PASS ", secret])
    }

    /// `+` during login.
    fn go_on(&mut self, job: &Job<'_>, part: Part) -> bool {
        let Task::Login { user, secret, .. } = job.task else { return self.finish(End::Rejected) };
        let (next, fits) = match part {
            Part::Message(mechanism) => return self.say_message(mechanism, job),
            Part::Name => (Part::Password, sasl::encode(&[user], &mut self.command)),
            Part::Password => (Part::Said(Mechanism::Login), sasl::encode(&[secret], &mut self.command)),
            // RFC 7628 §3.2.3: a dummy response of ^A; XOAUTH2 wants an empty one.
            Part::Said(Mechanism::OAuthBearer) => (Part::Acknowledged, self.command.extend(b"AQ==")),
            Part::Said(Mechanism::XOAuth2) => (Part::Acknowledged, true),
            Part::Pass | Part::Said(_) | Part::Acknowledged => {
                return self.finish(End::Violation("go-ahead for nothing"));
            }
        };
        self.state = State::LoggingIn(next);
        (fits && self.command.extend(b"\r\n")) || self.finish(End::Rejected)
    }

    fn logged_in(&mut self, text: &[u8]) -> bool {
        if !matches!(self.state, State::LoggingIn(Part::Said(_))) {
            // Before the password was said, a yes is not the backend's opinion of it.
            return self.finish(End::Violation("accepted nothing"));
        }
        let _ = self.text.extend_from_slice(text.get(..text.len().min(KEPT)).unwrap_or_default());
        self.then = Some(Then::Done(End::Accepted));
        self.state = State::Relaying;
        true
    }

    fn send(&mut self, parts: &[&[u8]]) -> bool {
        let fits = parts.iter().all(|part| self.command.extend(part)) && self.command.extend(b"\r\n");
        fits || self.finish(End::Rejected)
    }

    /// The task is over; only QUIT is still sent.
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
            End::Accepted => Outcome::Accepted { untagged: &[], text: &self.text },
            End::Rejected => Outcome::Rejected,
            End::Away(step) => Outcome::Away(step),
            End::Violation(what) => Outcome::Violation(what),
        }
    }
}

const INJECTED: End = End::Violation("octets behind STLS");

/// Whether a refusal speaks of the backend's or the mailbox's state and not of the credentials (RFC 3206 §4, RFC 2449 §8).
fn is_temporary(text: &[u8]) -> bool {
    const CODES: [&[u8]; 4] = [b"[SYS/TEMP]", b"[SYS/PERM]", b"[IN-USE]", b"[LOGIN-DELAY]"];
    CODES.iter().any(|code| text.get(..code.len()).is_some_and(|start| start.eq_ignore_ascii_case(code)))
}

fn is_distrust(text: &[u8]) -> bool {
    text.starts_with(b"You are not from trusted")
}

/// XCLIENT as Dovecot reads it (clientid.md §5.2); fields it does not know are skipped there. Every value is a number, an
/// address, or of our own making, but for the server name, which is a valid host name.
fn write_xclient<const N: usize>(line: &mut heapless::String<N>, peer: &Peer<'_>) -> core::fmt::Result {
    let (client, local) = (peer.client, peer.local);
    write!(line, "XCLIENT ADDR={} PORT={}", client.ip().to_canonical(), client.port())?;
    write!(line, " DESTADDR={} DESTPORT={}", local.ip().to_canonical(), local.port())?;
    line.write_str(" SESSION=")?;
    write_word(line, peer.session, 64)?;
    line.write_str(" TTL=6 CLIENT-TRANSPORT=")?;
    line.write_str(if peer.tls { "TLS" } else { "insecure" })?;
    if let Some(name) = peer.sni {
        line.write_str(" DESTNAME=")?;
        write_word(line, name, 255)?;
    }
    if let Some(alias) = peer.device {
        let mut plain = heapless::String::<80>::new();
        plain.write_str("edgedev=")?;
        write_word(&mut plain, alias, 64)?;
        let mut forward = Secret::<112>::new();
        if !sasl::encode(&[plain.as_bytes()], &mut forward) {
            return Err(core::fmt::Error);
        }
        line.write_str(" FORWARD=")?;
        line.write_str(core::str::from_utf8(forward.expose()).map_err(|_| core::fmt::Error)?)?;
    }
    Ok(())
}

/// At most `octets` of a word; what would end it is left out.
fn write_word<const N: usize>(
    line: &mut heapless::String<N>,
    word: &str,
    octets: usize,
) -> core::fmt::Result {
    word.chars().filter(char::is_ascii_graphic).take(octets).try_for_each(|shown| line.write_char(shown))
}
