//! Our side towards the ISP's submission server, up to login.

use core::fmt::Write as _;

use mail::sasl::{self, Mechanism};
use mail::secret::Secret;
use mail::session::{Backend, Job, Outcome, Peer, Step, Task};
use zeroize::Zeroize;

use crate::offer::Writer;
use crate::reply::{Got, Replies, without_enhanced};
use crate::xclient::{Attributes, Part};

/// Octets of an AUTH command with its initial response; longer ones wait for the challenge (RFC 4954 §4).
const AUTH_LINE: usize = 510;
/// Octets of credentials encoded at a time; a multiple of 3, so that the pieces join.
const PIECE: usize = 480;

/// A login at, or a probe of, an ISP's submission server (RFC 6409), with XCLIENT where it is offered.
pub struct Client {
    replies: Replies,
    state: State,
    found: Found,
    /// The text of the current reply; of EHLO, its keyword lines.
    text: heapless::Vec<u8, 2048>,
    /// Wiped as soon as it was sent.
    out: heapless::Vec<u8, 1024>,
    sent: bool,
    tls: bool,
    /// The first of two XCLIENT commands was taken.
    introduced: bool,
    believed: Option<bool>,
}

/// What an EHLO reply said.
#[derive(Clone, Copy, Default)]
struct Found {
    starttls: bool,
    auth: Auth,
    xclient: Attributes,
}

/// Mechanisms of the backend that we can use there.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set of four")]
struct Auth {
    plain: bool,
    login: bool,
    xoauth2: bool,
    oauthbearer: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Greeting,
    Ehlo,
    /// STARTTLS was sent.
    StartTls,
    /// 220 came, and TLS is to be started (yielded or not).
    Handshake(bool),
    /// TLS is up: EHLO again (RFC 3207 §4.2).
    Secured,
    XClient(Part),
    /// AUTH was sent with the response, or the response was.
    Final(Mechanism),
    /// AUTH was sent without.
    Challenge(Mechanism),
    /// AUTH LOGIN's name was sent.
    Name,
    /// Credentials are being sent, from this octet of theirs on.
    Sending(Mechanism, Words, usize),
    /// An OAuth error was acknowledged: whatever comes is a refusal.
    Acknowledged,
    /// The outcome is known, and yielded once.
    Over(End),
    /// It was yielded. True: the credentials were accepted.
    Gone(bool),
}

/// Which words of a login one response has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Words {
    /// `NUL user NUL password`.
    Both,
    User,
    Secret,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Capabilities,
    Accepted,
    Rejected,
    Away(&'static str),
    Violation(&'static str),
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A fresh connection, on which the backend speaks first.
    pub const fn new() -> Self {
        Self {
            replies: Replies::new(),
            state: State::Greeting,
            found: Found {
                starttls: false,
                auth: Auth { plain: false, login: false, xoauth2: false, oauthbearer: false },
                xclient: Attributes::NONE,
            },
            text: heapless::Vec::new(),
            out: heapless::Vec::new(),
            sent: false,
            tls: false,
            introduced: false,
            believed: None,
        }
    }

    /// Whether the backend took our word for who the client is (XCLIENT); `None`: it was not asked.
    pub const fn believed(&self) -> Option<bool> {
        self.believed
    }

    fn end(&mut self, end: End) {
        self.state = State::Over(end);
    }

    fn put(&mut self, text: &str) {
        // Only commands of known length come here.
        let _ = self.out.extend_from_slice(text.as_bytes());
    }

    fn ehlo(&mut self, job: &Job<'_>, as_client: bool) {
        let name = match job.peer {
            Some(peer) if as_client && is_name(peer.helo) => peer.helo,
            _ => job.hostname,
        };
        let _ = write!(Writer(&mut self.out), "EHLO {name}\r\n");
        self.state = State::Ehlo;
    }

    /// Reads on until something is to be sent or said; `false` if more octets are needed.
    fn read(&mut self, job: &Job<'_>) -> bool {
        match self.replies.advance() {
            Got::Wait => return false,
            Got::Broken(what) => self.end(End::Violation(what)),
            Got::Line { code, first, last } => {
                if first {
                    self.text.clear();
                }
                if self.state != State::Ehlo || code != 250 {
                    self.text.clear();
                    // A line of a reply is shorter than this buffer.
                    let _ = self.text.extend_from_slice(self.replies.text());
                } else if first {
                    self.found = Found::default();
                } else if !self.keyword() {
                    self.end(End::Violation("EHLO reply too long"));
                    return true;
                }
                if last {
                    self.reply(code, job);
                }
            }
        }
        true
    }

    /// One line of an EHLO reply behind the first; `false` if there are too many.
    fn keyword(&mut self) -> bool {
        let line = self.replies.text();
        let mut words = line.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
        let keyword = words.next().unwrap_or_default();
        if keyword.eq_ignore_ascii_case(b"STARTTLS") {
            self.found.starttls = true;
        } else if keyword.eq_ignore_ascii_case(b"XCLIENT") {
            self.found.xclient = Attributes::read(words);
        } else if keyword.eq_ignore_ascii_case(b"AUTH") {
            for word in words {
                match Mechanism::parse(word) {
                    Some(Mechanism::Plain) => self.found.auth.plain = true,
                    Some(Mechanism::Login) => self.found.auth.login = true,
                    Some(Mechanism::XOAuth2) => self.found.auth.xoauth2 = true,
                    Some(Mechanism::OAuthBearer) => self.found.auth.oauthbearer = true,
                    None => {}
                }
            }
        }
        let separator: &[u8] = if self.text.is_empty() { b"" } else { b"\r\n" };
        self.text.extend_from_slice(separator).is_ok() && self.text.extend_from_slice(line).is_ok()
    }

    /// A whole reply: the protocol's table.
    fn reply(&mut self, code: u16, job: &Job<'_>) {
        match (self.state, code) {
            (State::Greeting, 220) | (State::XClient(Part::First), 220 | 250) => self.ehlo(job, false),
            (State::Greeting, _) => self.end(End::Away("greeting")),
            (State::Ehlo, 250) => self.greeted(job),
            (State::Ehlo, _) => self.end(End::Away("EHLO")),
            (State::StartTls, 220) if self.replies.behind().is_empty() => {
                self.state = State::Handshake(false);
            }
            (State::StartTls, 220) => self.end(End::Violation("octets behind STARTTLS")),
            (State::StartTls, _) => self.end(End::Away("STARTTLS")),
            (State::XClient(_), 220 | 250) => {
                self.believed = Some(true);
                self.ehlo(job, true);
            }
            (State::XClient(_), 421) => self.end(End::Away("XCLIENT")),
            (State::XClient(_), _) => {
                self.believed = Some(false);
                self.go_on(job);
            }
            (State::Final(_), 235) => self.end(End::Accepted),
            (State::Final(mechanism), 334) if !mechanism.is_password() => {
                // The challenge is an error message, and must be answered before the refusal comes: with an empty
                // line for XOAUTH2, with a lone ^A for OAUTHBEARER (RFC 7628 §3.2.3).
                self.put(if mechanism == Mechanism::OAuthBearer { "AQ==\r\n" } else { "\r\n" });
                self.state = State::Acknowledged;
            }
            (State::Challenge(Mechanism::Login), 334) => {
                self.state = State::Sending(Mechanism::Login, Words::User, 0);
            }
            (State::Challenge(mechanism), 334) => self.state = State::Sending(mechanism, Words::Both, 0),
            (State::Name, 334) => self.state = State::Sending(Mechanism::Login, Words::Secret, 0),
            // Sequence, syntax and encryption are our trouble or the backend's, never a wrong password.
            (_, 400..=499 | 500 | 502..=504 | 530 | 538) => self.end(End::Away("AUTH")),
            (_, 500..=599) => self.end(End::Rejected),
            _ => self.end(End::Violation("unexpected reply to AUTH")),
        }
    }

    /// After an EHLO reply.
    fn greeted(&mut self, job: &Job<'_>) {
        if job.starttls && !self.tls {
            if self.found.starttls {
                self.put("STARTTLS\r\n");
                self.state = State::StartTls;
            } else {
                // It was asked for because it is there: somebody took it out on the way.
                self.end(End::Violation("STARTTLS not offered"));
            }
            return;
        }
        match (&job.task, job.peer) {
            (_, Some(peer)) if self.believed.is_none() => self.introduce(peer, job),
            _ => self.go_on(job),
        }
    }

    /// What comes once the backend knows, or need not know, who the client is.
    fn go_on(&mut self, job: &Job<'_>) {
        match job.task {
            Task::Probe => {
                self.put("QUIT\r\n");
                self.end(End::Capabilities);
            }
            Task::Login { .. } => self.authenticate(job),
        }
    }

    fn introduce(&mut self, peer: &Peer<'_>, job: &Job<'_>) {
        if !self.found.xclient.any() {
            self.believed = Some(false);
            return self.go_on(job);
        }
        let part = if self.introduced { Part::Last } else { self.found.xclient.first_part(peer) };
        if self.found.xclient.write(peer, part, &mut self.out) {
            self.introduced = part == Part::First;
            self.state = State::XClient(part);
        } else {
            // Not even in two commands: the backend will see our address, which is what it says then.
            self.out.clear();
            self.believed = Some(false);
            self.go_on(job);
        }
    }

    fn authenticate(&mut self, job: &Job<'_>) {
        let Task::Login { mechanism, user, secret } = &job.task else {
            return self.end(End::Violation("no login asked for"));
        };
        let auth = self.found.auth;
        let chosen = match mechanism {
            Mechanism::Plain | Mechanism::Login if auth.plain => Mechanism::Plain,
            Mechanism::Plain | Mechanism::Login if auth.login => Mechanism::Login,
            Mechanism::XOAuth2 if auth.xoauth2 => Mechanism::XOAuth2,
            Mechanism::OAuthBearer if auth.oauthbearer => Mechanism::OAuthBearer,
            _ => return self.end(End::Away("mechanism")),
        };
        self.put("AUTH ");
        self.put(chosen.name());
        let mut response = Secret::<AUTH_LINE>::new();
        let whole = match chosen {
            Mechanism::Login => false,
            Mechanism::Plain => sasl::encode_plain(user, secret, &mut response),
            _ => sasl::encode(&[secret], &mut response),
        };
        self.state = State::Challenge(chosen);
        if whole && self.out.len() + 1 + response.expose().len() <= AUTH_LINE {
            self.put(" ");
            let _ = self.out.extend_from_slice(response.expose());
            self.state = State::Final(chosen);
        }
        self.put("\r\n");
    }

    /// The next piece of credentials.
    fn send_piece(&mut self, mechanism: Mechanism, words: Words, from: usize, job: &Job<'_>) {
        let Task::Login { user, secret, .. } = &job.task else {
            return self.end(End::Violation("no login asked for"));
        };
        let parts: [&[u8]; 4] = match (mechanism, words) {
            (Mechanism::Plain, _) => [b"\0", user, b"\0", secret],
            (_, Words::User) => [user, b"", b"", b""],
            _ => [secret, b"", b"", b""],
        };
        let mut raw = Secret::<PIECE>::new();
        for octet in parts.into_iter().flatten().skip(from).take(PIECE) {
            let _ = raw.push(*octet);
        }
        let mut piece = Secret::<{ PIECE / 3 * 4 }>::new();
        let _ = sasl::encode(&[raw.expose()], &mut piece);
        let _ = self.out.extend_from_slice(piece.expose());
        let sent = from + raw.expose().len();
        if sent < parts.iter().map(|part| part.len()).sum() {
            self.state = State::Sending(mechanism, words, sent);
            return;
        }
        self.put("\r\n");
        self.state = if words == Words::User { State::Name } else { State::Final(mechanism) };
    }
}

/// A host name or address literal that may stand in EHLO.
fn is_name(helo: &str) -> bool {
    let good =
        |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !helo.is_empty() && helo.bytes().all(good)
}

impl Backend for Client {
    fn push(&mut self, bytes: &[u8]) -> usize {
        if !bytes.is_empty() && matches!(self.state, State::Handshake(_)) {
            self.end(End::Violation("octets behind STARTTLS"));
        }
        self.replies.push(bytes)
    }

    fn next(&mut self, job: &Job<'_>) -> Option<Step<'_>> {
        loop {
            if core::mem::take(&mut self.sent) {
                self.out.as_mut_slice().zeroize();
                self.out.clear();
            }
            if !self.out.is_empty() {
                self.sent = true;
                return Some(Step::Send(&self.out));
            }
            match self.state {
                State::Handshake(told) => {
                    self.state = State::Handshake(true);
                    return if told { None } else { Some(Step::StartTls) };
                }
                State::Secured => self.ehlo(job, false),
                State::Sending(mechanism, words, from) => self.send_piece(mechanism, words, from, job),
                State::Gone(_) => return None,
                State::Over(end) => {
                    self.state = State::Gone(matches!(end, End::Accepted));
                    return Some(Step::Done(match end {
                        End::Capabilities => Outcome::Capabilities(&self.text),
                        End::Accepted => {
                            Outcome::Accepted { untagged: b"", text: without_enhanced(&self.text) }
                        }
                        End::Rejected => Outcome::Rejected,
                        End::Away(step) => Outcome::Away(step),
                        End::Violation(what) => Outcome::Violation(what),
                    }));
                }
                _ => {
                    if !self.read(job) {
                        return None;
                    }
                }
            }
        }
    }

    fn tls_established(&mut self) {
        if self.state != State::Handshake(true) {
            return;
        }
        self.replies.clear();
        self.found = Found::default();
        self.tls = true;
        self.state = State::Secured;
    }

    fn rest(&self) -> &[u8] {
        if self.state == State::Gone(true) { self.replies.behind() } else { &[] }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.out.as_mut_slice().zeroize();
    }
}
