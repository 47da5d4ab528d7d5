//! Submission after login, between a client that says anything and two backends: one that says anything, and one that
//! is honest but lenient about line ends. Neither split nor leniency may turn one message into two.
#![no_main]
#![allow(clippy::panic)] // that is how a target reports

use fuzz::{Input, assert_same};
use libfuzzer_sys::fuzz_target;
use smtp::{Limits, MessageAnswer, Offer, Relay, RelayAction, SenderAnswer};

/// Words of the client that lead to each state.
const STATES: [&[u8]; 6] = [
    b"",
    b"MAIL FROM:<a@b.net>\r\n",
    b"MAIL FROM:<a@b.net>\r\nRCPT TO:<c@d.net>\r\n",
    b"MAIL FROM:<a@b.net>\r\nRCPT TO:<c@d.net>\r\nDATA\r\n",
    b"MAIL FROM:<a@b.net>\r\nRCPT TO:<c@d.net>\r\nBDAT 9\r\n",
    b"MAIL FROM:<a@b.net> BODY=BINARYMIME\r\nRCPT TO:<c@d.net>\r\nBDAT 9\r\n",
];

const OFFER: &[u8] =
    b"PIPELINING\r\n8BITMIME\r\nCHUNKING\r\nBINARYMIME\r\nSIZE\r\nDSN\r\nSMTPUTF8\r\nDELIVERBY";

/// What any lenient server takes for the end of a message, NULs dropped.
const ENDS: [&[u8]; 9] =
    [b"\r\n.\r\n", b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n"];

/// An honest server: it knows commands from text, and counts the messages it would accept.
#[derive(Default)]
struct Server {
    line: Vec<u8>,
    text: Option<Vec<u8>>,
    chunk: Option<(u64, bool)>,
    replies: Vec<u8>,
    messages: u32,
    /// The last message ended with a CR; an LF behind it belongs to it.
    ended_in_cr: bool,
}

impl Server {
    fn hear(&mut self, octets: &[u8]) {
        for octet in octets {
            if std::mem::take(&mut self.ended_in_cr) && *octet == b'\n' {
                continue;
            }
            if let Some((left, last)) = self.chunk {
                self.chunk = Some((left - 1, last));
                self.chunk_end();
            } else if let Some(text) = &mut self.text {
                if *octet != 0 {
                    text.push(*octet);
                }
                if ENDS.iter().any(|end| text.ends_with(end)) {
                    self.text = None;
                    self.ended_in_cr = *octet == b'\r';
                    self.messages += 1;
                    self.replies.extend_from_slice(b"250 ok\r\n");
                }
            } else {
                self.line.push(*octet);
                if *octet == b'\n' {
                    self.command();
                }
            }
        }
    }

    fn command(&mut self) {
        let line = std::mem::take(&mut self.line);
        // What reaches a backend was printed by us: one line of printable octets, no more.
        assert!(line.ends_with(b"\r\n"), "{}", line.escape_ascii());
        let text = line.strip_suffix(b"\r\n").unwrap_or_default();
        assert!(!text.iter().any(|octet| *octet < 0x20 || *octet == 0x7f), "{}", text.escape_ascii());
        let words: Vec<&[u8]> = text.split(|octet| *octet == b' ').collect();
        match words.as_slice() {
            [b"DATA"] => {
                self.text = Some(b"\r\n".to_vec());
                self.replies.extend_from_slice(b"354 go\r\n");
            }
            [b"BDAT", octets, rest @ ..] => {
                let octets = std::str::from_utf8(octets).ok().and_then(|octets| octets.parse().ok());
                self.chunk = octets.map(|octets| (octets, !rest.is_empty()));
                self.chunk_end();
            }
            [b"MAIL" | b"RCPT", ..] | [b"RSET" | b"NOOP"] => {
                self.replies.extend_from_slice(b"250 ok\r\n");
            }
            [b"QUIT"] => {}
            _ => panic!("{}", text.escape_ascii()),
        }
    }

    fn chunk_end(&mut self) {
        if let Some((0, last)) = self.chunk {
            self.chunk = None;
            self.messages += u32::from(last);
            self.replies.extend_from_slice(b"250 ok\r\n");
        }
    }
}

/// Runs a session in pieces of `piece`. `script`: what a dishonest backend says instead.
fn run(octets: &[u8], script: Option<&[u8]>, piece: usize) -> Vec<u8> {
    let offer = Offer::from_backend(OFFER, "box", true, Some(200));
    let (mut relay, mut server, mut told) = (Relay::new(Limits::default()), Server::default(), Vec::new());
    let (mut left, mut said) = (octets, script.unwrap_or_default());
    let (mut accepted, mut closed) = (0, false);
    loop {
        let mut moved = false;
        while let Some(action) = relay.next(&offer) {
            moved = true;
            assert!(!closed, "something after the end");
            match action {
                RelayAction::ToClient(octets) => told.extend_from_slice(octets),
                RelayAction::ToBackend(octets) => server.hear(octets),
                RelayAction::Sender(path) => {
                    let allow = path.mailbox().is_none_or(|mailbox| !mailbox.local().starts_with('n'));
                    relay.sender(if allow { SenderAnswer::Allow } else { SenderAnswer::Deny });
                }
                RelayAction::Message { recipients, size } => {
                    assert!(recipients > 0, "a message for nobody");
                    relay.message(if size == Some(7) {
                        MessageAnswer::OverBudget
                    } else {
                        MessageAnswer::Go
                    });
                }
                RelayAction::Accepted { octets, recipients } => {
                    accepted += 1;
                    told.extend_from_slice(format!("[{octets} {recipients}]").as_bytes());
                    assert!(octets <= 200, "over the limit");
                }
                RelayAction::Note(_) => {}
                RelayAction::Close(why) => {
                    closed = true;
                    told.extend_from_slice(format!("[{why:?}]").as_bytes());
                }
            }
        }
        if closed {
            break;
        }
        let head = left.get(..piece.min(left.len())).unwrap_or_default();
        if relay.in_body() {
            let step = relay.body(head);
            server.hear(step.held);
            server.hear(head.get(..step.forward).unwrap_or_default());
            left = left.get(step.consumed..).unwrap_or_default();
            moved |= step.consumed > 0;
        } else {
            let taken = relay.from_client(head);
            left = left.get(taken..).unwrap_or_default();
            moved |= taken > 0;
        }
        if script.is_some() {
            let taken = relay.from_backend(said.get(..piece.min(said.len())).unwrap_or_default());
            said = said.get(taken..).unwrap_or_default();
            moved |= taken > 0;
        } else {
            let piece = piece.min(server.replies.len());
            let taken = relay.from_backend(server.replies.get(..piece).unwrap_or_default());
            server.replies.drain(..taken);
            moved |= taken > 0;
        }
        if !moved {
            break;
        }
    }
    if script.is_none() {
        // What the most lenient backend has taken is what the strict rule and the client were told.
        assert_eq!(server.messages, accepted, "{}", told.escape_ascii());
    }
    told
}

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::read(data) else { return };
    let octets = input.behind(&STATES);
    let whole = run(&octets, None, octets.len().max(1));
    let cut = run(&octets, None, usize::from(input.cut) + 1);
    assert_same(&whole, &cut);
    // The second half as a backend's words: anything may come of it but a panic or a second life.
    let half = input.octets.len() / 2;
    if let Some((client, backend)) = input.octets.split_at_checked(half) {
        let client = Input { octets: client, ..input }.behind(&STATES);
        run(&client, Some(backend), usize::from(input.cut) + 1);
    }
});
