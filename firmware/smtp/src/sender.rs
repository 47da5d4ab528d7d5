//! Sends one message of our own: alerts, through the ISP's own server.

use core::fmt::Write as _;

use mail::address::Path;
use mail::sasl;
use mail::secret::Secret;
use zeroize::Zeroize;

use crate::offer::Writer;
use crate::reply::{Got, Replies};

/// What to send and how.
pub struct Delivery<'a> {
    /// Our own name for EHLO.
    pub hostname: &'a str,
    /// STARTTLS first; refused without it.
    pub starttls: bool,
    /// User name and password for AUTH PLAIN, under TLS.
    pub login: Option<(&'a [u8], &'a [u8])>,
    /// Envelope sender; `<>` for alerts, so that nothing answers them.
    pub from: &'a Path,
    /// The one recipient.
    pub to: &'a Path,
}

/// One message to one recipient: EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA.
#[expect(clippy::struct_excessive_bools, reason = "two of the server's words, two of the line being written")]
pub struct Sender {
    replies: Replies,
    state: State,
    starttls: bool,
    auth_plain: bool,
    tls: bool,
    text: heapless::String<200>,
    line_start: bool,
    cr: bool,
    /// Wiped as soon as it was sent.
    out: heapless::Vec<u8, 1400>,
    sent: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Greeting,
    Ehlo,
    StartTls,
    /// Yielded or not.
    Handshake(bool),
    Secured,
    Auth,
    Mail,
    Rcpt,
    Data,
    Body,
    /// The end mark was sent.
    End,
    Over(End),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Accepted,
    Refused,
    Away(&'static str),
}

/// What to do next.
#[derive(Debug, Eq, PartialEq)]
pub enum SenderStep<'a> {
    /// Write this. May hold a credential: never log it.
    Send(&'a [u8]),
    /// Do the TLS handshake, then call [`Sender::tls_established`].
    StartTls,
    /// Write the message: its octets through [`Sender::stuff`], then [`Sender::finish`].
    Body,
    /// Over: close.
    Done(Sent<'a>),
}

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sent<'a> {
    /// The server has it.
    Accepted,
    /// The server will never take it; its words, cut at 200 octets.
    Refused {
        /// Code and text.
        text: &'a str,
    },
    /// Try again later; the word says at which step.
    Away(&'static str),
}

/// The pieces of a stretch of message, in order, as they go on the wire.
#[derive(Debug)]
pub struct Stuffed<'s, 'c> {
    sender: &'s mut Sender,
    rest: &'c [u8],
}

impl core::fmt::Debug for Sender {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sender").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Sender {
    /// A fresh connection; `tls`: it is under TLS already.
    pub const fn new(tls: bool) -> Self {
        Self {
            replies: Replies::new(),
            state: State::Greeting,
            starttls: false,
            auth_plain: false,
            tls,
            text: heapless::String::new(),
            line_start: true,
            cr: false,
            out: heapless::Vec::new(),
            sent: false,
        }
    }

    /// Takes what fits.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        if !bytes.is_empty() && matches!(self.state, State::Handshake(_)) {
            self.end(End::Away("octets behind STARTTLS"));
        }
        self.replies.push(bytes)
    }

    /// The handshake is done: what was learnt in clear is forgotten.
    pub fn tls_established(&mut self) {
        if self.state == State::Handshake(true) {
            self.replies.clear();
            self.tls = true;
            self.state = State::Secured;
        }
    }

    /// The next thing to do; `delivery` is the same at every call.
    pub fn next(&mut self, delivery: &Delivery<'_>) -> Option<SenderStep<'_>> {
        loop {
            if core::mem::take(&mut self.sent) {
                self.out.as_mut_slice().zeroize();
                self.out.clear();
            }
            if !self.out.is_empty() {
                self.sent = true;
                return Some(SenderStep::Send(&self.out));
            }
            match self.state {
                State::Handshake(told) => {
                    self.state = State::Handshake(true);
                    return if told { None } else { Some(SenderStep::StartTls) };
                }
                State::Secured => self.ehlo(delivery),
                State::Body => return Some(SenderStep::Body),
                State::Over(end) => {
                    return Some(SenderStep::Done(match end {
                        End::Accepted => Sent::Accepted,
                        End::Refused => Sent::Refused { text: &self.text },
                        End::Away(step) => Sent::Away(step),
                    }));
                }
                _ => match self.replies.advance() {
                    Got::Wait => return None,
                    Got::Broken(what) => self.end(End::Away(what)),
                    Got::Line { code, first, last } => {
                        self.keep(code, first);
                        if last {
                            self.reply(code, delivery);
                        }
                    }
                },
            }
        }
    }

    /// Turns `chunk`, any stretch of the message, into what goes on the wire: line ends of any kind become CRLF
    /// and lines that begin with a dot get another (RFC 5321 §4.5.2).
    pub const fn stuff<'s, 'c>(&'s mut self, chunk: &'c [u8]) -> Stuffed<'s, 'c> {
        Stuffed { sender: self, rest: chunk }
    }

    /// The message is complete: write this, then go on with [`Sender::next`].
    pub fn finish(&mut self) -> &'static [u8] {
        if self.state != State::Body {
            return b"";
        }
        self.state = State::End;
        match (self.line_start, self.cr) {
            (true, _) => b".\r\n",
            (false, true) => b"\n.\r\n",
            (false, false) => b"\r\n.\r\n",
        }
    }

    fn end(&mut self, end: End) {
        self.state = State::Over(end);
    }

    fn ehlo(&mut self, delivery: &Delivery<'_>) {
        let _ = write!(Writer(&mut self.out), "EHLO {}\r\n", delivery.hostname);
        (self.starttls, self.auth_plain) = (false, false);
        self.state = State::Ehlo;
    }

    fn keep(&mut self, code: u16, first: bool) {
        let line = self.replies.text();
        let mut words = line.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
        if self.state == State::Ehlo && !first {
            match words.next() {
                Some(word) if word.eq_ignore_ascii_case(b"STARTTLS") => self.starttls = true,
                Some(word) if word.eq_ignore_ascii_case(b"AUTH") => {
                    self.auth_plain |= words.any(|word| word.eq_ignore_ascii_case(b"PLAIN"));
                }
                _ => {}
            }
        }
        self.text.clear();
        let _ = write!(self.text, "{code} ");
        for octet in line {
            let character = if matches!(octet, 0x20..=0x7e) { char::from(*octet) } else { '?' };
            if self.text.push(character).is_err() {
                return;
            }
        }
    }

    fn reply(&mut self, code: u16, delivery: &Delivery<'_>) {
        match (self.state, code) {
            (State::Greeting, 220) => self.ehlo(delivery),
            (State::Ehlo, 250) => self.greeted(delivery),
            (State::StartTls, 220) if self.replies.behind().is_empty() => {
                self.state = State::Handshake(false);
            }
            (State::StartTls, _) => self.end(End::Away("STARTTLS")),
            (State::Auth, 235) => self.mail(delivery),
            // A password of our own that is refused is a setting to mend, not a message to give up.
            (State::Auth, _) => self.end(End::Away("AUTH")),
            (State::Mail, 250) => {
                let _ = write!(Writer(&mut self.out), "RCPT TO:{}\r\n", delivery.to);
                self.state = State::Rcpt;
            }
            (State::Rcpt, 250..=259) => {
                let _ = self.out.extend_from_slice(b"DATA\r\n");
                self.state = State::Data;
            }
            (State::Data, 354) => self.state = State::Body,
            (State::End, 250..=259) => {
                let _ = self.out.extend_from_slice(b"QUIT\r\n");
                self.end(End::Accepted);
            }
            (State::Mail | State::Rcpt | State::Data | State::End, 500..=599) => {
                let _ = self.out.extend_from_slice(b"QUIT\r\n");
                self.end(End::Refused);
            }
            (State::Greeting | State::Ehlo, _) => self.end(End::Away("greeting")),
            _ => self.end(End::Away("MAIL")),
        }
    }

    fn greeted(&mut self, delivery: &Delivery<'_>) {
        if delivery.starttls && !self.tls {
            if !self.starttls {
                return self.end(End::Away("STARTTLS not offered"));
            }
            let _ = self.out.extend_from_slice(b"STARTTLS\r\n");
            self.state = State::StartTls;
            return;
        }
        let Some((user, password)) = delivery.login else { return self.mail(delivery) };
        let mut response = Secret::<1024>::new();
        if !self.tls || !self.auth_plain || !sasl::encode_plain(user, password, &mut response) {
            return self.end(End::Away("AUTH"));
        }
        let _ = self.out.extend_from_slice(b"AUTH PLAIN ");
        let _ = self.out.extend_from_slice(response.expose());
        let _ = self.out.extend_from_slice(b"\r\n");
        self.state = State::Auth;
    }

    fn mail(&mut self, delivery: &Delivery<'_>) {
        let _ = write!(Writer(&mut self.out), "MAIL FROM:{}\r\n", delivery.from);
        self.state = State::Mail;
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.out.as_mut_slice().zeroize();
    }
}

impl<'c> Iterator for Stuffed<'_, 'c> {
    type Item = &'c [u8];

    fn next(&mut self) -> Option<&'c [u8]> {
        let first = *self.rest.first()?;
        let sender = &mut *self.sender;
        if core::mem::take(&mut sender.cr) {
            // The CR is on the wire; whatever follows, its LF must.
            sender.line_start = true;
            if first == b'\n' {
                self.rest = self.rest.get(1..).unwrap_or_default();
            }
            return Some(b"\n");
        }
        if sender.line_start && first == b'.' {
            sender.line_start = false;
            return Some(b".");
        }
        if first == b'\n' {
            self.rest = self.rest.get(1..).unwrap_or_default();
            sender.line_start = true;
            return Some(b"\r\n");
        }
        if first == b'\r' {
            self.rest = self.rest.get(1..).unwrap_or_default();
            (sender.cr, sender.line_start) = (true, false);
            return Some(b"\r");
        }
        sender.line_start = false;
        let end = memchr::memchr2(b'\r', b'\n', self.rest).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(text)
    }
}
