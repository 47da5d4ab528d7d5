//! Endings that one server takes for the end of a message and another does not (CVE-2023-51764, -51765, -51766). Each
//! stands inside a message, followed by a second one that must never come out at the backend, however lenient it is
//! and however the octets arrive.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests fail by panicking

mod bench;

use bench::{Bench, EndMarks, OFFER, Server};
use smtp::RelayEnd;

/// What a backend may be lenient enough to take. It also drops NULs, and ends commands at a bare LF.
const LENIENT: EndMarks =
    &[b"\r\n.\r\n", b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n"];

const ENDINGS: [&[u8]; 24] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\0\n",
    b"\r\0\n.\r\n",
    b"\n\n.\n\n",
    b"\r\n.\n\n",
    b"\n\r\n.\n\r\n",
    b"\n..\n",
    b"\r\n\n.\n",
    b"\r\n\r.\r\n",
    b"\n.\n\r\n",
    b"\r\n.\r\r\n",
    b"x\r.\r\n",
    b"\r\n.\r.\r\n",
    b"\0\n.\n",
];

const HEAD: &str = "MAIL FROM:<me@b.net>\r\nRCPT TO:<c@d.net>\r\nDATA\r\n";
const SMUGGLED: &[u8] = b"MAIL FROM:<ceo@b.net>\r\nRCPT TO:<victim@d.net>\r\nDATA\r\nevil\r\n.\r\nQUIT\r\n";

/// Sends `octets` cut at `cuts` into a fresh session behind 354.
fn send(octets: &[u8], cuts: &[usize]) -> (Bench, String) {
    let mut bench = Bench::new(OFFER, Server::lenient(LENIENT));
    bench.say(HEAD);
    let mut heard = String::new();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([octets.len()]) {
        heard.push_str(&bench.say_octets(&octets[from..cut]));
        from = cut;
    }
    (bench, heard)
}

#[test]
fn no_second_message_at_any_split() {
    for ending in ENDINGS {
        for start in [&b"text"[..], b"", b"text\r\n", b"a."] {
            let attack = [start, ending, SMUGGLED].concat();
            let last = start.len() + ending.len() + 12;
            let whole = send(&attack, &[]);
            let mut cuts: Vec<Vec<usize>> = (0..last).map(|cut| vec![cut]).collect();
            cuts.extend(
                (0..last).flat_map(|one| (one..last.min(one + 6)).map(move |other| vec![one, other])),
            );
            cuts.push((0..attack.len()).collect());
            for cut in cuts {
                let (bench, heard) = send(&attack, &cut);
                let what = format!("{start:?} {ending:?} at {cut:?}: {heard:?}");
                // Nothing at all was accepted, not by the client's ears and not by the backend's.
                assert!(heard.starts_with("550 5."), "{what}");
                assert!(bench.server.messages.is_empty(), "{what} {:?}", bench.server.messages);
                assert!(bench.accepted.is_empty(), "{what}");
                assert!(!bench.server.commands.iter().any(|line| line.contains("ceo")), "{what}");
                assert!(matches!(bench.closed, Some(RelayEnd::BareLineEnd | RelayEnd::Nul)), "{what}");
                assert_eq!((&heard, bench.closed), (&whole.1, whole.0.closed), "{what}");
            }
        }
    }
}

/// The table tests something: the same server, spoken to directly, is fooled.
#[test]
fn the_lenient_backend_is_fooled_by_itself() {
    let mut fooled = 0;
    for ending in ENDINGS {
        let mut server = Server::lenient(LENIENT);
        server.hear(HEAD.as_bytes());
        server.hear(&[b"text", ending, SMUGGLED].concat());
        fooled += usize::from(server.commands.iter().any(|line| line.contains("ceo")));
    }
    assert!(fooled > 15, "{fooled} of {}", ENDINGS.len());
}

/// What only looks dangerous goes through unchanged, and ends where it says.
#[test]
fn honest_messages_go_through() {
    for (sent, message) in [
        (&b"text\r\n.\r\n"[..], &b"text\r\n"[..]),
        (b".\r\n", b""),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n"),
        (b"a\r\n.b\r\n.\r\n", b"a\r\nb\r\n"),
        (b"a.\r\n.\r\n", b"a.\r\n"),
        (b"a\r\n\r\n.\r\n", b"a\r\n\r\n"),
    ] {
        for cut in 0..sent.len() {
            let (bench, heard) = send(sent, &[cut]);
            assert_eq!(heard, "250 2.0.0 Ok: queued\r\n", "{sent:?} at {cut}");
            assert_eq!(bench.server.messages, [message], "{sent:?} at {cut}");
            assert_eq!(bench.closed, None);
        }
    }
}

/// Chunks are counted, so an end mark in one is text, and only text.
#[test]
fn chunks_cannot_smuggle() {
    let text = [b"text\r\n.\r\n", SMUGGLED].concat();
    let mut bench = Bench::new(OFFER, Server::lenient(LENIENT));
    bench.say("MAIL FROM:<me@b.net>\r\nRCPT TO:<c@d.net>\r\n");
    let chunk = [format!("BDAT {} LAST\r\n", text.len()).as_bytes(), &text].concat();
    assert_eq!(bench.say_octets(&chunk), "250 2.0.0 Ok: queued\r\n");
    assert_eq!(bench.server.messages, [text]);
    assert!(!bench.server.commands.iter().any(|line| line.contains("ceo")));
}
