//! Mail of our own, and the test whether a backend relays for strangers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests fail by panicking

use mail::address::{Charset, Mailbox, Path};
use mail::session::Peer;
use proptest::prelude::*;
use smtp::{Delivery, RelayTest, RelayTestStep, RelayVerdict, Sender, SenderStep, Sent};

fn path(text: &str) -> Path {
    Path::parse(text.as_bytes(), Charset::Ascii).unwrap()
}

/// Runs `sender` against `replies`, one for each thing sent; gives all that was sent and the end.
fn deliver(
    login: Option<(&[u8], &[u8])>,
    starttls: bool,
    message: &[&[u8]],
    replies: &[&str],
) -> (String, String) {
    let (from, to) = (Path::Null, path("<owner@b.net>"));
    let delivery = Delivery { hostname: "box", starttls, login, from: &from, to: &to };
    let (mut sender, mut sent) = (Sender::new(false), Vec::new());
    let mut replies = replies.iter();
    loop {
        match sender.next(&delivery) {
            Some(SenderStep::Send(octets)) => sent.extend_from_slice(octets),
            Some(SenderStep::StartTls) => {
                sent.extend_from_slice(b"(TLS)");
                sender.tls_established();
            }
            Some(SenderStep::Body) => {
                for chunk in message {
                    for piece in sender.stuff(chunk) {
                        sent.extend_from_slice(piece);
                    }
                }
                sent.extend_from_slice(sender.finish());
            }
            Some(SenderStep::Done(end)) => {
                let end = match end {
                    Sent::Accepted => "accepted".to_owned(),
                    Sent::Refused { text } => format!("refused {text}"),
                    Sent::Away(step) => format!("away {step}"),
                };
                return (String::from_utf8(sent).unwrap(), end);
            }
            None => {
                let Some(reply) = replies.next() else {
                    return (String::from_utf8(sent).unwrap(), "waits".into());
                };
                assert_eq!(sender.push(reply.as_bytes()), reply.len());
            }
        }
    }
}

#[test]
fn an_alert_goes_out() {
    let replies = [
        "220 x\r\n",
        "250-mx\r\n250 8BITMIME\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "354 go\r\n",
        "250 queued\r\n",
    ];
    let (sent, end) = deliver(None, false, &[b"Subject: x\r\n\r\n.hidden", b"\r\nend"], &replies);
    assert_eq!(end, "accepted");
    assert_eq!(
        sent,
        "EHLO box\r\nMAIL FROM:<>\r\nRCPT TO:<owner@b.net>\r\nDATA\r\n\
         Subject: x\r\n\r\n..hidden\r\nend\r\n.\r\nQUIT\r\n"
    );
}

#[test]
fn it_logs_in_under_tls_only() {
    let login = Some((&b"tim"[..], &b"tanstaaftanstaaf"[..]));
    let replies = [
        "220 x\r\n",
        "250-mx\r\n250 STARTTLS\r\n",
        "220 go\r\n",
        "250-mx\r\n250 AUTH PLAIN\r\n",
        "235 ok\r\n",
    ];
    let (sent, _) = deliver(login, true, &[], &replies);
    assert!(
        sent.starts_with(
            "EHLO box\r\nSTARTTLS\r\n(TLS)EHLO box\r\nAUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\nMAIL"
        ),
        "{sent}"
    );
    let replies = ["220 x\r\n", "250-mx\r\n250 AUTH PLAIN\r\n"];
    assert_eq!(deliver(login, true, &[], &replies).1, "away STARTTLS not offered");
    assert_eq!(deliver(login, false, &[], &replies).1, "away AUTH", "never in clear");
    let replies = ["220 x\r\n", "250-mx\r\n250 STARTTLS\r\n", "220 go\r\n250 evil\r\n"];
    assert_eq!(deliver(login, true, &[], &replies).1, "away STARTTLS");
}

#[test]
fn refusals_keep_their_words() {
    let replies = ["220 x\r\n", "250 mx\r\n", "250 ok\r\n", "550 5.1.1 No\r\n"];
    assert_eq!(deliver(None, false, &[], &replies).1, "refused 550 5.1.1 No");
    let replies = ["220 x\r\n", "250 mx\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "452 full\r\n"];
    assert_eq!(deliver(None, false, &[b"x"], &replies).1, "away MAIL");
}

fn stuffed(message: &[u8], cut: usize) -> Vec<u8> {
    let (from, to) = (Path::Null, path("<owner@b.net>"));
    let delivery = Delivery { hostname: "box", starttls: false, login: None, from: &from, to: &to };
    let mut sender = Sender::new(false);
    for reply in ["220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n", "354 x\r\n"] {
        assert_eq!(sender.push(reply.as_bytes()), reply.len());
        while let Some(SenderStep::Send(_)) = sender.next(&delivery) {}
    }
    let mut wire = Vec::new();
    for chunk in message.chunks(cut) {
        sender.stuff(chunk).for_each(|piece| wire.extend_from_slice(piece));
    }
    wire.extend_from_slice(sender.finish());
    wire
}

proptest! {
    /// Any text becomes lines that end in CRLF, and its end mark is the only one.
    #[test]
    fn stuffing_is_strict(message in "[a.\r\n]{0,30}", cut in 1..5usize) {
        let wire = stuffed(message.as_bytes(), cut);
        prop_assert_eq!(&wire, &stuffed(message.as_bytes(), 1000));
        let framed = [b"\r\n", &wire[..]].concat();
        let marks = framed.windows(5).filter(|window| window == b"\r\n.\r\n").count();
        prop_assert_eq!(marks, 1, "{:?}", wire);
        prop_assert!(framed.ends_with(b"\r\n.\r\n"));
        for (at, octet) in wire.iter().enumerate() {
            prop_assert!(*octet != b'\n' || wire[at - 1] == b'\r');
            prop_assert!(*octet != b'\r' || wire[at + 1] == b'\n');
        }
        // Taking the dots off gives the message with its line ends made good.
        let lines: Vec<_> = wire.split(|octet| *octet == b'\n').map(|line| line.strip_prefix(b".").unwrap_or(line)).collect();
        let text: String = String::from_utf8(lines.concat()).unwrap().replace('\r', "");
        prop_assert_eq!(text, message.replace(['\r', '\n'], ""));
    }
}

fn relay_test(outsider: bool, replies: &[&str]) -> (String, String) {
    let recipient = Mailbox::parse(b"postern-test@relay-test.invalid", Charset::Ascii).unwrap();
    let peer = Peer {
        client: "198.51.100.7:50123".parse().unwrap(),
        local: "192.0.2.10:465".parse().unwrap(),
        session: "test",
        tls: true,
        sni: None,
        device: None,
        helo: "outside.invalid",
    };
    let (mut test, mut sent, mut replies) = (RelayTest::new(), Vec::new(), replies.iter());
    loop {
        match test.next("box", outsider.then_some(&peer), &recipient) {
            Some(RelayTestStep::Send(octets)) => sent.extend_from_slice(octets),
            Some(RelayTestStep::Done(verdict)) => {
                let verdict = match verdict {
                    RelayVerdict::Open => "open".to_owned(),
                    RelayVerdict::Refused { text } => format!("refused {text}"),
                    RelayVerdict::Away(step) => format!("away {step}"),
                };
                return (String::from_utf8(sent).unwrap(), verdict);
            }
            None => {
                let reply = replies.next().expect("a reply");
                assert_eq!(test.push(reply.as_bytes()), reply.len());
            }
        }
    }
}

#[test]
fn tells_open_relays() {
    let (sent, verdict) =
        relay_test(false, &["220 x\r\n", "250-mx\r\n250 XCLIENT ADDR\r\n", "250 ok\r\n", "250 ok\r\n"]);
    assert_eq!(verdict, "open");
    assert_eq!(
        sent,
        "EHLO box\r\nMAIL FROM:<>\r\nRCPT TO:<postern-test@relay-test.invalid>\r\nRSET\r\nQUIT\r\n"
    );
    let denied = "554 5.7.1 Relay access denied\r\n";
    let (sent, verdict) = relay_test(
        true,
        &[
            "220 x\r\n",
            "250-mx\r\n250 XCLIENT ADDR PROTO\r\n",
            "220 x\r\n",
            "250 mx\r\n",
            "250 ok\r\n",
            denied,
        ],
    );
    assert_eq!(verdict, "refused 554 5.7.1 Relay access denied");
    assert!(
        sent.starts_with("EHLO box\r\nXCLIENT PROTO=ESMTP ADDR=198.51.100.7\r\nEHLO box\r\nMAIL FROM:<>\r\n"),
        "{sent}"
    );
    assert!(!sent.contains("DATA"));
}

#[test]
fn says_when_it_cannot_tell() {
    assert_eq!(relay_test(false, &["421 busy\r\n"]).1, "away greeting");
    assert_eq!(relay_test(true, &["220 x\r\n", "250 mx\r\n"]).1, "away XCLIENT");
    assert_eq!(
        relay_test(true, &["220 x\r\n", "250-mx\r\n250 XCLIENT ADDR\r\n", "550 no\r\n"]).1,
        "away XCLIENT"
    );
    assert_eq!(relay_test(false, &["220 x\r\n", "250 mx\r\n", "250 ok\r\n", "451 later\r\n"]).1, "away RCPT");
    assert_eq!(
        relay_test(false, &["220 x\r\n", "250 mx\r\n", "530 5.7.0 first log in\r\n"]).1,
        "refused 530 5.7.0 first log in"
    );
}

#[test]
fn they_have_their_sizes() {
    assert!(size_of::<Sender>() <= 3 * 1024, "{}", size_of::<Sender>());
    assert!(size_of::<RelayTest>() <= 3 * 1024, "{}", size_of::<RelayTest>());
}
