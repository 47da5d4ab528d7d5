//! The test whether a backend relays for strangers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests fail by panicking

use mail::address::{Charset, Mailbox};
use mail::session::Peer;
use smtp::{RelayTest, RelayTestStep, RelayVerdict};

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
fn it_has_its_size() {
    assert!(size_of::<RelayTest>() <= 3 * 1024, "{}", size_of::<RelayTest>());
}
