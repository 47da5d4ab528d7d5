//! Whether a backend relays for strangers (clientid.md §5.4, end): with this box's address in `mynetworks`, a
//! Postfix takes mail for anywhere from anyone who reaches us.
//!
//! Run it twice when a backend is set up: once as ourselves, once with XCLIENT as an outside client. The caller does
//! TLS, if any, before; no message is ever sent.

use core::fmt::Write as _;

use mail::address::Mailbox;
use mail::session::Peer;

use crate::offer::Writer;
use crate::reply::{Got, Replies};
use crate::xclient::{Attributes, Part};

/// EHLO, perhaps XCLIENT and EHLO, MAIL, RCPT, RSET, QUIT, without AUTH.
pub struct RelayTest {
    replies: Replies,
    state: State,
    xclient: Attributes,
    /// The XCLIENT command that was taken last.
    introduced: Option<Part>,
    text: heapless::String<200>,
    verdict: Option<Known>,
    out: heapless::Vec<u8, 600>,
    sent: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Greeting,
    Ehlo,
    XClient(Part),
    Mail,
    Rcpt,
    Over,
}

#[derive(Clone, Copy, Debug)]
enum Known {
    Open,
    Refused,
    Away(&'static str),
}

/// What to do next.
#[derive(Debug, Eq, PartialEq)]
pub enum RelayTestStep<'a> {
    /// Write this to the backend.
    Send(&'a [u8]),
    /// The test is over: close.
    Done(RelayVerdict<'a>),
}

/// What came out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RelayVerdict<'a> {
    /// It took a recipient of no concern of its own, from a client that did not log in.
    Open,
    /// It did not; its words, cut at 200 octets.
    Refused {
        /// Code and text of the refusal.
        text: &'a str,
    },
    /// It could not be asked; the word says at which step.
    Away(&'static str),
}

impl Default for RelayTest {
    fn default() -> Self {
        Self::new()
    }
}

impl RelayTest {
    /// A fresh connection.
    pub const fn new() -> Self {
        Self {
            replies: Replies::new(),
            state: State::Greeting,
            xclient: Attributes::NONE,
            introduced: None,
            text: heapless::String::new(),
            verdict: None,
            out: heapless::Vec::new(),
            sent: false,
        }
    }

    /// Takes what fits.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        self.replies.push(bytes)
    }

    /// The next thing to do; the arguments are the same at every call. `recipient` is at an outside domain, best
    /// under `.invalid`; `outsider` is the client to pretend to be, or `None` to ask as ourselves.
    pub fn next(
        &mut self,
        hostname: &str,
        outsider: Option<&Peer<'_>>,
        recipient: &Mailbox,
    ) -> Option<RelayTestStep<'_>> {
        loop {
            if core::mem::take(&mut self.sent) {
                self.out.clear();
            }
            if !self.out.is_empty() {
                self.sent = true;
                return Some(RelayTestStep::Send(&self.out));
            }
            if let Some(known) = self.verdict {
                return Some(RelayTestStep::Done(match known {
                    Known::Open => RelayVerdict::Open,
                    Known::Refused => RelayVerdict::Refused { text: &self.text },
                    Known::Away(step) => RelayVerdict::Away(step),
                }));
            }
            match self.replies.advance() {
                Got::Wait => return None,
                Got::Broken(_) => self.verdict = Some(Known::Away("protocol")),
                Got::Line { code, last, .. } => {
                    self.keep(code);
                    if last {
                        self.reply(code, hostname, outsider, recipient);
                    }
                }
            }
        }
    }

    /// Remembers what the current line says.
    fn keep(&mut self, code: u16) {
        let line = self.replies.text();
        let mut words = line.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
        if self.state == State::Ehlo && words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"XCLIENT"))
        {
            self.xclient = Attributes::read(words);
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

    fn reply(&mut self, code: u16, hostname: &str, outsider: Option<&Peer<'_>>, recipient: &Mailbox) {
        let mut line = Writer(&mut self.out);
        // Every line written here fits: host names have 255 octets, addresses 254 and their quoting.
        let _ = match (self.state, code) {
            (State::Greeting, 220) | (State::XClient(Part::First), 220 | 250) => {
                let part = if self.state == State::Greeting { None } else { Some(Part::First) };
                self.introduced = part.or(self.introduced);
                self.state = State::Ehlo;
                write!(line, "EHLO {hostname}\r\n")
            }
            (State::XClient(_), 220 | 250) => {
                self.introduced = Some(Part::Last);
                self.state = State::Ehlo;
                write!(line, "EHLO {hostname}\r\n")
            }
            (State::Ehlo, 250) => match (outsider, self.introduced) {
                (None, _) | (_, Some(Part::Whole | Part::Last)) => {
                    self.state = State::Mail;
                    write!(line, "MAIL FROM:<>\r\n")
                }
                (Some(peer), introduced) => {
                    let part = introduced.map_or_else(|| self.xclient.first_part(peer), |_| Part::Last);
                    self.state = State::XClient(part);
                    if self.xclient.any() && self.xclient.write(peer, part, &mut self.out) {
                        return;
                    }
                    // Without XCLIENT there is no pretending: the backend will always see our own address.
                    self.out.clear();
                    return self.leave(Known::Away("XCLIENT"));
                }
            },
            (State::Mail, 250) => {
                self.state = State::Rcpt;
                write!(line, "RCPT TO:<{recipient}>\r\n")
            }
            (State::Rcpt, 250..=259) => return self.leave(Known::Open),
            (State::Mail | State::Rcpt, 500..=599) => return self.leave(Known::Refused),
            // Postfix defers with 4xx what it would refuse, when asked to be soft; that is no open relay either, but
            // not proven.
            (State::Greeting, _) => return self.leave(Known::Away("greeting")),
            (State::Ehlo, _) => return self.leave(Known::Away("EHLO")),
            (State::XClient(_), _) => return self.leave(Known::Away("XCLIENT")),
            (State::Mail | State::Rcpt, _) => return self.leave(Known::Away("RCPT")),
            (State::Over, _) => Ok(()),
        };
    }

    /// RSET ahead of QUIT, though nothing was sent: nobody shall wonder what became of the transaction.
    fn leave(&mut self, known: Known) {
        let line: &[u8] =
            if matches!(self.state, State::Mail | State::Rcpt) { b"RSET\r\nQUIT\r\n" } else { b"QUIT\r\n" };
        let _ = self.out.extend_from_slice(line);
        self.state = State::Over;
        self.verdict = Some(known);
    }
}
