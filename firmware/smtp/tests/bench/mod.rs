//! A relay between a scripted client and a small submission server.
#![allow(dead_code, unreachable_pub)] // each test file uses its part of it

use mail::session::Note;
use smtp::{BodyEnd, Limits, MessageAnswer, Offer, Relay, RelayAction, RelayEnd, SenderAnswer};

/// What the backend said in its EHLO reply.
pub const OFFER: &str = "PIPELINING\r\n8BITMIME\r\nCHUNKING\r\nBINARYMIME\r\nSIZE\r\nDSN\r\nSMTPUTF8";

/// A driver of [`Relay`] with everything it saw.
pub struct Bench {
    pub relay: Relay,
    offer: Offer,
    pub server: Server,
    /// The client's octets that the relay has not taken.
    input: Vec<u8>,
    heard: Vec<u8>,
    pub accepted: Vec<(u64, u16)>,
    pub senders: Vec<String>,
    pub asked: Vec<(u16, Option<u64>)>,
    pub notes: Vec<Note>,
    pub closed: Option<RelayEnd>,
    pub sender: fn(&str) -> SenderAnswer,
    pub message: MessageAnswer,
    /// The backend's octets arrive in pieces of this.
    pub backend_piece: usize,
}

impl Bench {
    pub fn new(ehlo: &str, server: Server) -> Self {
        Self::with_limits(ehlo, server, Limits::default())
    }

    pub fn with_limits(ehlo: &str, server: Server, limits: Limits) -> Self {
        Self {
            relay: Relay::new(limits),
            offer: Offer::from_backend(ehlo.as_bytes(), "mx.example.net", true, None),
            server,
            input: Vec::new(),
            heard: Vec::new(),
            accepted: Vec::new(),
            senders: Vec::new(),
            asked: Vec::new(),
            notes: Vec::new(),
            closed: None,
            sender: |_| SenderAnswer::Allow,
            message: MessageAnswer::Go,
            backend_piece: usize::MAX,
        }
    }

    pub fn unread(&self) -> usize {
        self.input.len()
    }

    /// What the client hears when it sends `text`.
    pub fn say(&mut self, text: &str) -> String {
        self.say_octets(text.as_bytes())
    }

    pub fn say_octets(&mut self, octets: &[u8]) -> String {
        self.input.extend_from_slice(octets);
        self.turn();
        String::from_utf8_lossy(&std::mem::take(&mut self.heard)).into_owned()
    }

    /// The backend says this, whatever was asked.
    pub fn backend_says(&mut self, octets: &[u8]) {
        self.server.output.extend_from_slice(octets);
        self.turn();
    }

    pub fn lose(&mut self) {
        self.turn();
        self.relay.backend_lost();
        self.server.gone = true;
        self.turn();
    }

    /// The driver's loop, until nothing moves.
    fn turn(&mut self) {
        loop {
            let mut moved = self.act();
            if self.relay.in_body() && !self.input.is_empty() {
                let step = self.relay.body(&self.input);
                if !self.server.gone {
                    self.server.hear(step.held);
                    self.server.hear(&self.input[..step.forward]);
                }
                self.input.drain(..step.consumed);
                moved |= step.consumed > 0 || step.end != BodyEnd::More;
            } else if !self.input.is_empty() {
                let taken = self.relay.from_client(&self.input);
                self.input.drain(..taken);
                moved |= taken > 0;
            }
            moved |= self.act();
            if !self.server.output.is_empty() {
                let piece = self.backend_piece.min(self.server.output.len());
                let taken = self.relay.from_backend(&self.server.output[..piece]);
                self.server.output.drain(..taken);
                moved |= taken > 0;
            }
            if !moved {
                return;
            }
        }
    }

    fn act(&mut self) -> bool {
        let mut moved = false;
        loop {
            match self.relay.next(&self.offer) {
                None => return moved,
                Some(RelayAction::ToClient(octets)) => self.heard.extend_from_slice(octets),
                Some(RelayAction::ToBackend(octets)) => self.server.hear(octets),
                Some(RelayAction::Sender(path)) => {
                    self.senders.push(path.to_string());
                    let answer = (self.sender)(&path.to_string());
                    self.relay.sender(answer);
                }
                Some(RelayAction::Message { recipients, size }) => {
                    self.asked.push((recipients, size));
                    self.relay.message(self.message);
                }
                Some(RelayAction::Accepted { octets, recipients }) => {
                    self.accepted.push((octets, recipients));
                }
                Some(RelayAction::Note(note)) => self.notes.push(note),
                Some(RelayAction::Close(why)) => {
                    assert_eq!(self.closed, None, "closes once");
                    self.closed = Some(why);
                    self.server.gone = true;
                }
            }
            moved = true;
        }
    }
}

/// What a server takes for the end of a message. The strict one is RFC 5321's; the others are those of CVE-2023-51764
/// to -51766 and their kin.
pub type EndMarks = &'static [&'static [u8]];

/// A small submission server, logged in.
#[allow(clippy::struct_excessive_bools)] // a test's switches
pub struct Server {
    marks: EndMarks,
    /// It answers.
    speaks: bool,
    /// It does not answer any more.
    pub deaf: bool,
    pub gone: bool,
    input: Vec<u8>,
    pub output: Vec<u8>,
    pub commands: Vec<String>,
    pub messages: Vec<Vec<u8>>,
    body: Option<Vec<u8>>,
    chunk: Option<(usize, bool)>,
    chunks: Vec<u8>,
    /// The last message ended with a CR; an LF behind it belongs to it.
    ended_in_cr: bool,
}

impl Server {
    pub fn friendly() -> Self {
        Self::lenient(&[b"\r\n.\r\n"])
    }

    /// Takes any of `marks` for the end of a message.
    pub fn lenient(marks: EndMarks) -> Self {
        Self {
            marks,
            speaks: true,
            deaf: false,
            gone: false,
            input: Vec::new(),
            output: Vec::new(),
            commands: Vec::new(),
            messages: Vec::new(),
            body: None,
            chunk: None,
            chunks: Vec::new(),
            ended_in_cr: false,
        }
    }

    pub fn silent() -> Self {
        Self { speaks: false, ..Self::friendly() }
    }

    fn say(&mut self, line: &str) {
        if self.speaks && !self.deaf {
            self.output.extend_from_slice(line.as_bytes());
            self.output.extend_from_slice(b"\r\n");
        }
    }

    pub fn hear(&mut self, octets: &[u8]) {
        assert!(!self.gone || octets.is_empty(), "not one octet more after the end");
        for octet in octets {
            self.octet(*octet);
        }
    }

    fn octet(&mut self, octet: u8) {
        if std::mem::take(&mut self.ended_in_cr) && octet == b'\n' {
            return;
        }
        if let Some((left, last)) = self.chunk {
            self.chunks.push(octet);
            self.chunk = Some((left - 1, last));
            return self.chunk_end();
        }
        if let Some(body) = &mut self.body {
            body.push(octet);
            // The message begins as if behind CRLF.
            let text = [b"\r\n", &body[..]].concat();
            let lenient_text =
                if self.marks.len() > 1 { text.iter().copied().filter(|o| *o != 0).collect() } else { text };
            if let Some(mark) = self.marks.iter().find(|mark| lenient_text.ends_with(mark)) {
                let end = lenient_text.len() - mark.len();
                let message = lenient_text.get(2..end).unwrap_or_default();
                let mut message = message.to_vec();
                if !message.is_empty() {
                    message.extend_from_slice(b"\r\n");
                }
                self.messages.push(unstuff(&message));
                self.body = None;
                self.ended_in_cr = octet == b'\r';
                self.say("250 2.0.0 Ok: queued");
            }
            return;
        }
        self.input.push(octet);
        // A lenient one takes a bare LF for a line end here as well.
        if octet != b'\n' || (self.marks.len() == 1 && !self.input.ends_with(b"\r\n")) {
            return;
        }
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.input)).trim_end().to_owned();
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "MAIL" => self.say("250 2.1.0 Ok"),
            "RCPT" if line.contains("@unknown") => self.say("550 5.1.1 No such user here"),
            "RCPT" => self.say("250 2.1.5 Ok"),
            "DATA" => {
                if self.speaks {
                    self.body = Some(Vec::new());
                }
                self.say("354 End data with <CR><LF>.<CR><LF>");
            }
            "BDAT" => {
                let mut words = line.split(' ').skip(1);
                let octets = words.next().and_then(|word| word.parse().ok()).unwrap();
                self.chunk = Some((octets, words.next().is_some()));
            }
            "QUIT" => {}
            _ => self.say("250 2.0.0 Ok"),
        }
        self.commands.push(line);
        self.chunk_end();
    }

    fn chunk_end(&mut self) {
        let Some((0, last)) = self.chunk else { return };
        self.chunk = None;
        if last {
            self.messages.push(std::mem::take(&mut self.chunks));
            self.say("250 2.0.0 Ok: queued");
        } else {
            self.say("250 2.0.0 chunk");
        }
    }
}

/// RFC 5321 §4.5.2, as a receiver does it.
fn unstuff(message: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        plain.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    plain
}
