//! The server's side of a submission session, up to login.

use mail::clientid::ClientId;
use mail::sasl::{self, Exchange, Mechanism, Progress, Proof, SaslError};
use mail::session::{Action, Answer, Closed, Label, Login, Note, Transport};

use crate::command::Command;
use crate::line::{Lines, Next};
use crate::offer::Offer;
use crate::reply::{text, without_enhanced};

/// `AUTH OAUTHBEARER ` and a line of base64 (RFC 4954 §4), with CRLF.
const BUFFER: usize = sasl::LINE + 64;
/// Octets of any other command line without its CRLF (RFC 5321 §4.5.3.1.4).
const COMMAND_LINE: usize = 510;
/// Bad commands after which the connection ends. A client that works has none.
const BAD_COMMANDS: u8 = 10;
/// Malformed CLIENTIDs after which the connection ends (clientid.md Q13).
const BAD_CLIENTIDS: u8 = 3;

/// One submission session (RFC 5321 §4.1.4, RFC 4954 §4, draft-storey-smtp-client-id-12), up to login.
///
/// Octets in, actions out, in fixed memory. However the input is split, the same octets give the same actions.
/// While a login is being decided, later input stays in the buffer and is not parsed.
pub struct Session {
    lines: Lines<BUFFER>,
    state: State,
    transport: Transport,
    hello: Option<Hello>,
    label: Label,
    clientid: Option<ClientId>,
    /// An AUTH command came: CLIENTID may not any more (draft §3, since -07).
    auth_seen: bool,
    bad_commands: u8,
    bad_clientids: u8,
    /// The driver holds octets that did not fit.
    more_outside: bool,
    /// Octets of a refused BDAT still to be read over, so that message text is never taken for commands.
    discard: u64,
    /// Where on the current line the credentials of the pending login begin.
    login_from: usize,
    note: Option<Note>,
    out: heapless::Vec<u8, 1024>,
    /// `out` was yielded: the next call clears it.
    sent: bool,
    /// Follows `out`.
    then: Option<Then>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hello {
    Ehlo,
    /// Without extensions: no AUTH, no CLIENTID.
    Helo,
}

#[derive(Debug)]
enum State {
    /// The greeting is to be sent.
    Fresh,
    /// Between commands.
    Command,
    /// A line of a SASL exchange is expected; the challenge was sent.
    Exchange(Exchange),
    /// 220 was sent; any octet now came in clear.
    Handshake,
    /// A login is to be decided; it was yielded or not.
    Deciding(Proof, bool),
    /// Login is done.
    Relaying,
    /// Nothing is read and nothing said.
    Over,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    StartTls,
    Relay,
    Close(Closed),
}

/// What [`Session::step`] found to do; [`Action`] borrows from the session and is made last.
enum Do {
    Note(Note),
    Send,
    Login,
    Then(Then),
}

impl Session {
    /// A new connection; `transport` says whether TLS came first (port 465).
    pub fn new(transport: Transport) -> Self {
        Self {
            lines: Lines::new(),
            state: State::Fresh,
            transport,
            hello: None,
            label: Label::default(),
            clientid: None,
            auth_seen: false,
            bad_commands: 0,
            bad_clientids: 0,
            more_outside: false,
            discard: 0,
            login_from: 0,
            note: None,
            out: heapless::Vec::new(),
            sent: false,
            then: None,
        }
    }

    fn step(&mut self, offer: &Offer) -> Option<Do> {
        loop {
            if let Some(note) = self.note.take() {
                return Some(Do::Note(note));
            }
            if core::mem::take(&mut self.sent) {
                self.out.clear();
            }
            if !self.out.is_empty() {
                self.sent = true;
                return Some(Do::Send);
            }
            if let Some(then) = self.then.take() {
                if let Then::Close(_) = then {
                    self.state = State::Over;
                    self.lines.clear();
                }
                return Some(Do::Then(then));
            }
            match &mut self.state {
                State::Fresh => {
                    self.state = State::Command;
                    self.put(b"220 ");
                    self.put(offer.hostname().as_bytes());
                    self.reply(b" ESMTP");
                }
                State::Command | State::Exchange(_) => {
                    if !self.read(offer) {
                        return None;
                    }
                }
                State::Handshake if self.more_outside => self.close(Closed::Injection),
                State::Deciding(_, told) if !*told => {
                    *told = true;
                    return Some(Do::Login);
                }
                State::Handshake | State::Deciding(..) | State::Relaying | State::Over => return None,
            }
        }
    }

    /// Takes one line and says whether there was one.
    fn read(&mut self, offer: &Offer) -> bool {
        if self.discard > 0 {
            self.lines.release();
            let dropped = self.lines.discard(self.discard);
            self.discard -= dropped;
            if self.discard > 0 {
                return false;
            }
        }
        let exchange = matches!(self.state, State::Exchange(_));
        match self.lines.advance(if exchange { sasl::LINE } else { BUFFER }) {
            Next::Wait => return false,
            Next::Endless => self.fatal(text::LINE_TOO_LONG, Closed::TooLong),
            Next::Bare => self.fatal(text::BARE, Closed::BareLineEnd),
            Next::TooLong => self.too_long(exchange || self.lines.head().eq_ignore_ascii_case(b"AUTH ")),
            Next::Line => {
                if let State::Exchange(exchange) = core::mem::replace(&mut self.state, State::Command) {
                    self.respond(exchange, 0);
                } else {
                    self.command(offer);
                }
            }
        }
        true
    }

    fn too_long(&mut self, auth: bool) {
        self.state = State::Command;
        match (auth, self.transport) {
            (true, Transport::Clear) => self.login_in_clear(),
            (true, Transport::Tls) => {
                self.auth_seen = true;
                self.bad(b"500 5.5.6 Authentication exchange line is too long");
            }
            (false, _) => self.bad(text::LINE_TOO_LONG),
        }
    }

    /// The protocol, whole.
    fn command(&mut self, offer: &Offer) {
        let (clear, line) = (self.transport == Transport::Clear, self.lines.line());
        let command = Command::parse(line);
        let long = match command {
            Command::Auth(_) => false,
            // In clear it must look like any unknown verb; under TLS it is malformed, not too long.
            Command::ClientId(_) => clear && line.len() > COMMAND_LINE,
            _ => line.len() > COMMAND_LINE,
        };
        if long {
            return self.bad(text::LINE_TOO_LONG);
        }
        match command {
            Command::Ehlo(name) => {
                print_label(name, &mut self.label.ehlo);
                self.hello = Some(Hello::Ehlo);
                offer.write_ehlo(!clear, &mut self.out);
            }
            Command::Helo(name) => {
                print_label(name, &mut self.label.ehlo);
                self.hello = Some(Hello::Helo);
                self.put(b"250 ");
                self.reply(offer.hostname().as_bytes());
            }
            Command::StartTls if clear => {
                if self.lines.behind().is_empty() && !self.more_outside {
                    self.reply(b"220 2.0.0 Ready to start TLS");
                    self.then = Some(Then::StartTls);
                    self.state = State::Handshake;
                } else {
                    self.close(Closed::Injection);
                }
            }
            Command::StartTls => self.bad(b"503 5.5.1 TLS is already active"),
            Command::ClientId(_) if clear => {
                self.note = Some(Note::ClientIdInClear);
                self.bad(text::UNKNOWN);
            }
            Command::ClientId(arguments) => match self.hello {
                None | Some(Hello::Helo) => self.bad(text::EHLO_FIRST),
                Some(Hello::Ehlo) if self.auth_seen || self.clientid.is_some() => self.bad(text::SEQUENCE),
                Some(Hello::Ehlo) => {
                    let read = arguments.map(ClientId::parse_arguments);
                    self.clientid(read.and_then(Result::ok));
                }
            },
            Command::Auth(_) if clear => self.login_in_clear(),
            Command::Auth(arguments) => {
                let name = arguments.split(|octet| *octet == b' ').next().unwrap_or_default();
                let mechanism = Mechanism::parse(name);
                let response = "AUTH ".len() + name.len() + 1;
                let more = arguments.len() > name.len();
                self.auth_seen = true;
                match mechanism.filter(|mechanism| offer.mechanisms().takes(*mechanism)) {
                    _ if self.hello != Some(Hello::Ehlo) => self.bad(text::EHLO_FIRST),
                    None => self.bad(b"504 5.5.4 Unrecognized authentication type"),
                    Some(mechanism) if more => self.respond(Exchange::start(mechanism), response),
                    Some(mechanism) => self.challenge(Exchange::start(mechanism)),
                }
            }
            Command::Mail(_) | Command::Rcpt(_) | Command::Data => self.not_yet(clear),
            Command::Bdat(size) => {
                self.not_yet(clear);
                match size {
                    Some(size) => self.discard = size.octets,
                    None => self.then = Some(Then::Close(Closed::TooManyErrors)),
                }
            }
            Command::Rset | Command::Noop => self.reply(text::OK),
            Command::Vrfy => self.reply(text::VRFY),
            Command::Expn => self.reply(text::EXPN),
            Command::Help => self.reply(text::HELP),
            Command::Quit => self.fatal(text::BYE, Closed::ByClient),
            Command::Bad(reply) => self.bad(reply),
            Command::Unknown => self.bad(text::UNKNOWN),
            Command::Malformed => {
                self.note = Some(Note::Malformed);
                self.bad(text::SYNTAX);
            }
        }
    }

    /// Mail before login: RFC 6409 §4.3, RFC 3207 §4.
    fn not_yet(&mut self, clear: bool) {
        self.bad(if clear {
            b"530 5.7.0 Must issue a STARTTLS command first"
        } else {
            b"530 5.7.0 Authentication required"
        });
    }

    /// Before anything of the credentials is looked at (clientid.md §8.19).
    fn login_in_clear(&mut self) {
        self.note = Some(Note::LoginInClear);
        self.bad(b"538 5.7.11 Encryption required");
    }

    fn clientid(&mut self, read: Option<(ClientId, bool)>) {
        if let Some((clientid, underscore)) = read {
            self.clientid = Some(clientid);
            self.note = underscore.then_some(Note::ClientIdUnderscore);
            self.reply(text::OK);
            return;
        }
        self.note = Some(Note::Malformed);
        self.bad(b"501 5.5.4 Syntax: CLIENTID type token");
        self.bad_clientids += 1;
        if self.bad_clientids >= BAD_CLIENTIDS && self.then.is_none() {
            self.fatal(text::TOO_MANY, Closed::TooManyErrors);
        }
    }

    fn challenge(&mut self, exchange: Exchange) {
        self.put(b"334 ");
        self.reply(exchange.challenge().as_bytes());
        self.state = State::Exchange(exchange);
    }

    /// Takes the response that begins at octet `from` of the current line.
    fn respond(&mut self, exchange: Exchange, from: usize) {
        let line = self.lines.line_mut().get_mut(from..).unwrap_or_default();
        let progress = if from > 0 && line != b"*" {
            // RFC 4954 §4: an empty response is `=` in the command.
            if line.is_empty() { Err(SaslError::Base64) } else { exchange.respond(sasl::initial(line)) }
        } else {
            exchange.respond(line)
        };
        match progress {
            Ok(Progress::Continue(exchange)) => self.challenge(exchange),
            Ok(Progress::Complete(proof)) => {
                // The octets stay where they are: `from` says where, once `next` asks for them.
                self.login_from = from;
                self.state = State::Deciding(proof, false);
            }
            Err(SaslError::Cancelled) => self.bad(b"501 5.7.0 Authentication cancelled"),
            Err(SaslError::Base64) => self.bad(b"501 5.5.2 Cannot decode response"),
            Err(SaslError::Malformed) => self.bad(b"501 5.5.2 Malformed authentication response"),
        }
    }

    /// A reply to a mistake, and the last one to too many of them.
    fn bad(&mut self, line: &[u8]) {
        self.reply(line);
        self.bad_commands += 1;
        if self.bad_commands >= BAD_COMMANDS {
            self.fatal(text::TOO_MANY, Closed::TooManyErrors);
        }
    }

    fn fatal(&mut self, line: &[u8], why: Closed) {
        self.reply(line);
        self.then = Some(Then::Close(why));
    }

    fn close(&mut self, why: Closed) {
        self.then = Some(Then::Close(why));
    }

    fn put(&mut self, octets: &[u8]) {
        // Every reply here is far shorter than the buffer, an admitted backend's text is cut to fit.
        let _ = self.out.extend_from_slice(octets);
    }

    fn reply(&mut self, line: &[u8]) {
        self.put(line);
        self.put(b"\r\n");
    }
}

/// Printable ASCII as it is, anything else as `?`, cut to fit.
fn print_label<const N: usize>(name: &[u8], label: &mut heapless::String<N>) {
    label.clear();
    for octet in name {
        let character = if octet.is_ascii_graphic() { char::from(*octet) } else { '?' };
        if label.push(character).is_err() {
            return;
        }
    }
}

impl mail::session::Session for Session {
    type Offer = Offer;

    fn push(&mut self, bytes: &[u8]) -> usize {
        match self.state {
            State::Over => bytes.len(),
            State::Handshake => {
                self.more_outside |= !bytes.is_empty();
                bytes.len()
            }
            _ => {
                let taken = self.lines.push(bytes);
                self.more_outside = taken < bytes.len();
                taken
            }
        }
    }

    fn next(&mut self, offer: &Offer) -> Option<Action<'_>> {
        Some(match self.step(offer)? {
            Do::Note(note) => Action::Note(note),
            Do::Send => Action::Send(&self.out),
            Do::Then(Then::StartTls) => Action::StartTls,
            Do::Then(Then::Relay) => Action::Relay,
            Do::Then(Then::Close(why)) => Action::Close(why),
            Do::Login => {
                let State::Deciding(proof, _) = &self.state else { return None };
                let line = self.lines.line().get(self.login_from..).unwrap_or_default();
                let credentials = proof.credentials(line).ok()?;
                Action::Login(Login {
                    mechanism: proof.mechanism(),
                    user: credentials.user,
                    authzid: credentials.authzid,
                    secret: credentials.secret,
                    clientid: self.clientid.as_ref(),
                    label: &self.label,
                })
            }
        })
    }

    fn tls_established(&mut self) {
        if !matches!(self.state, State::Handshake) || self.more_outside {
            return;
        }
        self.lines.clear();
        self.transport = Transport::Tls;
        self.state = State::Command;
        self.hello = None;
        self.label = Label::default();
        self.clientid = None;
        self.auth_seen = false;
        self.bad_clientids = 0;
    }

    fn answer(&mut self, answer: Answer<'_>) {
        if !matches!(self.state, State::Deciding(..)) {
            return;
        }
        self.state = State::Command;
        self.lines.release();
        match answer {
            Answer::Admitted { text, .. } => {
                let text = without_enhanced(text.trim_ascii());
                let clean = !text.is_empty()
                    && text.len() <= 500
                    && text.iter().all(|octet| matches!(octet, 0x20..=0x7e | 0x80..));
                self.put(b"235 2.7.0 ");
                self.reply(if clean { text } else { b"Authentication successful" });
                self.then = Some(Then::Relay);
                self.state = State::Relaying;
            }
            Answer::Failed => self.reply(FAILED),
            Answer::FailedLast => {
                self.reply(FAILED);
                self.fatal(text::TOO_MANY, Closed::TooManyErrors);
            }
            Answer::Unavailable => self.reply(b"454 4.7.0 Temporary authentication failure"),
        }
    }

    fn rest(&self) -> &[u8] {
        if matches!(self.state, State::Relaying) { self.lines.behind() } else { &[] }
    }
}

/// The same octets for every cause (clientid.md Q1).
const FAILED: &[u8] = b"535 5.7.8 Authentication credentials invalid";
