//! Our side against scripted backends: honest ones, odd ones, hostile ones.
#![allow(clippy::unwrap_used, clippy::needless_raw_string_hashes)] // a test fails by panicking; dialogues are quoted alike

#[path = "../../mail/tests/talk/mod.rs"]
mod talk;

use std::net::SocketAddr;

use imap::Client;
use mail::sasl::Mechanism;
use mail::session::{Backend as _, Job, Peer, Step, Task};
use proptest::prelude::*;
use talk::steps;

#[track_caller]
fn play_backend(job: &Job<'_>, dialogue: &str) -> Client {
    talk::play_backend(Client::new(), job, dialogue)
}

const PROBE: Job<'static> =
    Job { task: Task::Probe, starttls: false, peer: None, hostname: "edge.example.net" };

fn login<'a>(mechanism: Mechanism, user: &'a [u8], secret: &'a [u8]) -> Job<'a> {
    Job { task: Task::Login { mechanism, user, secret }, ..PROBE }
}

fn ann() -> Job<'static> {
    login(Mechanism::Plain, b"ann", b"s3cret")
}

fn peer() -> Peer<'static> {
    Peer {
        client: "[2001:db8::7]:50123".parse::<SocketAddr>().unwrap(),
        local: "[::ffff:192.0.2.10]:993".parse::<SocketAddr>().unwrap(),
        session: "c1",
        tls: true,
        sni: Some("imap.example.net"),
        device: Some("7f3k9q"),
        helo: "",
    }
}

#[test]
fn probes() {
    play_backend(
        &PROBE,
        "
        S: * OK [CAPABILITY IMAP4rev1  SASL-IR ID] ready
        C: P4 LOGOUT
        ! capabilities IMAP4rev1 SASL-IR ID
    ",
    );
    play_backend(
        &PROBE,
        "
        S: * OK ready
        C: P1 CAPABILITY
        S: * CAPABILITY IMAP4rev1 ID
        S: * OK still here
        S: P1 OK done
        C: P4 LOGOUT
        ! capabilities IMAP4rev1 ID
    ",
    );
}

/// What was said before TLS does not count.
#[test]
fn starttls() {
    play_backend(
        &Job { starttls: true, ..PROBE },
        "
        S: * OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=FORGED] ready
        C: P0 STARTTLS
        S: * CAPABILITY AUTH=FORGED2
        S: P0 OK go
        ! tls
        [TLS]
        C: P1 CAPABILITY
        S: * CAPABILITY IMAP4rev1 AUTH=PLAIN
        S: P1 OK done
        C: P4 LOGOUT
        ! capabilities IMAP4rev1 AUTH=PLAIN
    ",
    );
    for reply in ["NO not now", "BAD what"] {
        play_backend(
            &Job { starttls: true, ..PROBE },
            &format!(
                "
            S: * OK ready
            C: P0 STARTTLS
            S: P0 {reply}
            ! away STARTTLS
        "
            ),
        );
    }
}

#[test]
fn starttls_injection() {
    play_backend(
        &Job { starttls: true, ..PROBE },
        r"
        S: * OK ready
        C: P0 STARTTLS
        s: P0 OK go\r\n* CAPABILITY AUTH=FORGED\r\n
        ! violation octets behind STARTTLS
    ",
    );
    let (mut client, mut seen, job) = (Client::new(), Vec::new(), Job { starttls: true, ..PROBE });
    let _ = client.push(b"* OK ready\r\n");
    steps(&mut client, &job, &mut seen);
    let _ = client.push(b"P0 OK go\r\n");
    steps(&mut client, &job, &mut seen);
    assert_eq!(client.push(b"*"), 1);
    steps(&mut client, &job, &mut seen);
    assert_eq!(seen, ["C: P0 STARTTLS", "! tls", "! violation octets behind STARTTLS"]);
}

/// clientid.md §5.1, the line as Dovecot's own proxy sends it, and its answer on a trust list.
#[test]
fn names_the_client() {
    let peer = peer();
    let dialogue = |answer: &str| {
        format!("
        S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN] ready
        C: P2 ID (\"x-session-id\" \"c1\" \"x-originating-ip\" \"2001:db8::7\" \"x-originating-port\" \"50123\" \"x-connected-ip\" \"192.0.2.10\" \"x-connected-port\" \"993\" \"x-proxy-ttl\" \"6\" \"x-client-transport\" \"TLS\" \"x-connected-name\" \"imap.example.net\" \"x-forward-edgedev\" \"7f3k9q\")
        S: * ID (\"name\" \"Dovecot\")
        S: P2 {answer}
        C: P3 AUTHENTICATE PLAIN AGFubgBzM2NyZXQ=
        S: * CAPABILITY IMAP4rev1 IDLE
        S: P3 OK Logged in
        ! accepted * CAPABILITY IMAP4rev1 IDLE\\r\\n | Logged in
    ")
    };
    let job = Job { peer: Some(&peer), ..ann() };
    assert_eq!(play_backend(&job, &dialogue("OK Trusted ID completed.")).believed(), Some(true));
    assert_eq!(play_backend(&job, &dialogue("OK ID completed.")).believed(), None);
    assert_eq!(play_backend(&job, &dialogue("BAD what")).believed(), Some(false));
    assert_eq!(Client::new().believed(), None);
    let odd = Peer { session: "a\"b\\c\r\n", tls: false, sni: None, device: None, ..peer };
    play_backend(&Job { peer: Some(&odd), ..PROBE }, "
        S: * OK [CAPABILITY IMAP4rev1 ID] ready
        C: P2 ID (\"x-session-id\" \"abc\" \"x-originating-ip\" \"2001:db8::7\" \"x-originating-port\" \"50123\" \"x-connected-ip\" \"192.0.2.10\" \"x-connected-port\" \"993\" \"x-proxy-ttl\" \"6\" \"x-client-transport\" \"insecure\")
        S: P2 OK Trusted ID completed.
        C: P4 LOGOUT
        ! capabilities IMAP4rev1 ID
    ");
    let without = play_backend(
        &Job { peer: Some(&odd), ..PROBE },
        "
        S: * OK [CAPABILITY IMAP4rev1] ready
        C: P4 LOGOUT
        ! capabilities IMAP4rev1
    ",
    );
    assert_eq!(without.believed(), Some(false));
}

/// An ID reply may hold literals; they are passed over.
#[test]
fn literals_in_data() {
    let peer = peer();
    let (mut client, mut seen) = (Client::new(), Vec::new());
    let job = Job { peer: Some(&peer), ..ann() };
    for octet in b"* OK [CAPABILITY IMAP4rev1 ID AUTH=PLAIN SASL-IR] x\r\n* ID ({4}\r\nname {9}\r\nP2 NO x\r\n)\r\nP2 OK ID completed.\r\nP3 OK hi\r\nrest" {
        assert_eq!(client.push(&[*octet]), 1);
        steps(&mut client, &job, &mut seen);
    }
    assert_eq!(seen[1..], ["C: P3 AUTHENTICATE PLAIN AGFubgBzM2NyZXQ=", "! accepted  | hi"]);
    assert_eq!(client.rest(), b"rest");
    play_backend(
        &PROBE,
        "
        S: * OK x
        C: P1 CAPABILITY
        S: * ID ({9999999}
        ! violation literal too large
    ",
    );
}

#[test]
fn every_way_to_say_a_password() {
    play_backend(
        &login(Mechanism::Login, b"ann", b"s3cret"),
        "
        S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready
        C: P3 AUTHENTICATE PLAIN
        S: +
        C: AGFubgBzM2NyZXQ=
        S: P3 NO [AUTHENTICATIONFAILED] no
        ! rejected
    ",
    );
    play_backend(
        &ann(),
        "
        S: * OK [CAPABILITY IMAP4rev2 AUTH=PLAIN] ready
        C: P3 AUTHENTICATE PLAIN AGFubgBzM2NyZXQ=
        S: P3 OK [CAPABILITY IMAP4rev2] in
        ! accepted  | [CAPABILITY IMAP4rev2] in
    ",
    );
    play_backend(
        &ann(),
        "
        S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=LOGIN] ready
        C: P3 AUTHENTICATE LOGIN
        S: + VXNlcm5hbWU6
        C: YW5u
        S: + UGFzc3dvcmQ6
        C: czNjcmV0
        S: P3 NO no
        ! rejected
    ",
    );
    play_backend(
        &login(Mechanism::Plain, b"ann", b"s3 \"c\\ret"),
        r#"
        S: * OK [CAPABILITY IMAP4rev1] ready
        C: P3 LOGIN "ann" "s3 \\"c\\\\ret"
        S: P3 OK
        ! accepted  | 
    "#,
    );
    play_backend(
        &login(Mechanism::Plain, b"ann", "gar\u{e7}on".as_bytes()),
        r"
        S: * OK [CAPABILITY IMAP4rev1 LITERAL+] ready
        C: P3 LOGIN {3+}
        C: ann {7+}
        C: gar\xc3\xa7on
        S: P3 NO no
        ! rejected
    ",
    );
    play_backend(
        &login(Mechanism::Plain, b"ann", b"a\r\nb LOGOUT"),
        r"
        S: * OK [CAPABILITY IMAP4rev1] ready
        C: P3 LOGIN {3}
        S: + go
        C: ann {11}
        S: + go
        C: a
        C: b LOGOUT
        S: P3 NO no
        ! rejected
    ",
    );
    play_backend(
        &ann(),
        "
        S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=SCRAM-SHA-1] ready
        ! away no password mechanism
    ",
    );
    play_backend(
        &login(Mechanism::Plain, b"ann", b"x\0y"),
        "
        S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready
        ! rejected
    ",
    );
}

/// RFC 7628 §4.3: the error in a challenge, its dummy answer, and NO.
#[test]
fn oauth() {
    let bearer = b"n,a=user@example.com,\x01auth=Bearer t\x01\x01";
    play_backend(
        &login(Mechanism::OAuthBearer, b"user@example.com", bearer),
        "
        S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=OAUTHBEARER] ready
        C: P3 AUTHENTICATE OAUTHBEARER bixhPXVzZXJAZXhhbXBsZS5jb20sAWF1dGg9QmVhcmVyIHQBAQ==
        S: + eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=
        C: AQ==
        S: P3 NO SASL authentication failed
        ! rejected
    ",
    );
    play_backend(
        &login(Mechanism::XOAuth2, b"u", b"user=u\x01auth=Bearer t\x01\x01"),
        "
        S: * OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] ready
        C: P3 AUTHENTICATE XOAUTH2
        S: +
        C: dXNlcj11AWF1dGg9QmVhcmVyIHQBAQ==
        S: + eyJzdGF0dXMiOiI0MDEifQ==
        C:
        S: P3 NO SASL authentication failed
        ! rejected
    ",
    );
    play_backend(
        &login(Mechanism::XOAuth2, b"u", b"user=u\x01auth=Bearer t\x01\x01"),
        "
        S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready
        ! away no such mechanism
    ",
    );
}

#[test]
fn rejected_or_away() {
    let reply = |reply: &str, end: &str| {
        play_backend(
            &ann(),
            &format!(
                "
            S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready
            C: P3 AUTHENTICATE PLAIN AGFubgBzM2NyZXQ=
            S: {reply}
            ! {end}
        "
            ),
        );
    };
    reply("P3 NO [AUTHENTICATIONFAILED] Authentication failed.", "rejected");
    reply("P3 NO [AUTHORIZATIONFAILED] no", "rejected");
    reply("P3 NO", "rejected");
    for code in
        ["UNAVAILABLE", "unavailable", "INUSE", "LIMIT", "SERVERBUG", "CONTACTADMIN", "PRIVACYREQUIRED"]
    {
        reply(&format!("P3 NO [{code}] later"), "away login");
    }
    reply("P3 BAD what", "away login syntax");
    reply("* BYE shutting down", "away goodbye");
}

#[test]
fn hostile_backends() {
    let first = |line: &str, end: &str| {
        play_backend(&ann(), &format!("\nS: {line}\n! {end}"));
    };
    first("* PREAUTH welcome", "violation PREAUTH");
    first("* BYE no", "away goodbye");
    first("* NO no", "away greeting");
    first("220 mail ESMTP", "violation not a reply to us");
    first("+OK POP3 ready", "violation not a reply to us");
    first("* CAPABILITY IMAP4rev1", "violation greeting");
    first("P3 OK Logged in", "violation not a reply to us");
    first(r"* OK a\0b", "violation NUL");
    first(r"* OK a\rb", "violation bare CR or LF");
    first(r"* OK a\nb", "violation bare CR or LF");
    let later = |line: &str, end: &str| {
        play_backend(
            &ann(),
            &format!(
                "
            S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready
            C: P3 AUTHENTICATE PLAIN AGFubgBzM2NyZXQ=
            S: {line}
            ! {end}
        "
            ),
        );
    };
    later("+", "violation go-ahead for nothing");
    later("P2 OK Logged in", "violation not a reply to us");
    later("* PREAUTH", "violation PREAUTH");
    later(r"P3 OK x\ry", "violation bare CR or LF");

    play_backend(
        &ann(),
        "
        S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready
        C: P3 AUTHENTICATE PLAIN
        S: P3 OK Logged in
        ! violation accepted nothing
    ",
    );

    let (mut client, mut seen, job) = (Client::new(), Vec::new(), ann());
    let endless = [b"* OK ".as_slice(), &[b'x'; 10_000]].concat();
    assert!(client.push(&endless) < 5000);
    steps(&mut client, &job, &mut seen);
    assert_eq!(seen, ["! violation endless line"]);

    let (mut client, mut seen) = (Client::new(), Vec::new());
    for _ in 0..100 {
        let _ = client.push(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\r\n");
        steps(&mut client, &job, &mut seen);
    }
    assert_eq!(seen.last().unwrap(), "! violation too many lines");
}

/// What is passed on is bounded, in whole lines.
#[test]
fn passed_lines_are_bounded() {
    let (mut client, job) = (Client::new(), ann());
    let _ = client.push(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\r\n");
    steps(&mut client, &job, &mut Vec::new());
    let line = [b"* OK ".as_slice(), &[b'x'; 500], b"\r\n"].concat();
    for _ in 0..20 {
        assert_eq!(client.push(&line), line.len());
        steps(&mut client, &job, &mut Vec::new());
    }
    let _ = client.push(&[b"P3 OK ".as_slice(), &[b'y'; 3000], b"\r\n"].concat());
    let Some(Step::Done(mail::session::Outcome::Accepted { untagged, text })) = client.next(&job) else {
        panic!()
    };
    assert_eq!((untagged.len(), text.len()), (line.len() * 4, 2048));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes, any split: the same steps. And honest octets come out the same octet by octet.
    #[test]
    fn any_split(
        lines in proptest::collection::vec(prop_oneof![
            Just("* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN] x\r\n"), Just("* OK x\r\n"), Just("P0 OK x\r\n"),
            Just("* CAPABILITY IMAP4rev1\r\n"), Just("P1 OK x\r\n"), Just("P2 OK Trusted ID completed.\r\n"), Just("+ \r\n"),
            Just("P3 OK [CAPABILITY IMAP4rev1] in\r\n"), Just("P3 NO x\r\n"), Just("* ID ({3}\r\na\r\n)\r\n"), Just("* 1 EXISTS\r\n"),
            Just("* BYE\r\n"), Just("\r\n"), Just("x"), Just("\n"), Just("\r"),
        ], 0..8),
        pieces in proptest::collection::vec(1..40usize, 1..20),
        oauth in any::<bool>(),
        known in any::<bool>(),
    ) {
        let (peer, input) = (peer(), lines.concat());
        let job = Job { peer: known.then_some(&peer), ..if oauth { login(Mechanism::XOAuth2, b"u", b"user=u\x01auth=Bearer t\x01\x01") } else { ann() } };
        let run = |pieces: &[usize]| {
            let (mut client, mut seen, mut left) = (Client::new(), Vec::new(), input.as_bytes());
            let mut pieces = pieces.iter().copied().chain(std::iter::repeat(1000));
            while !left.is_empty() {
                let size = pieces.next().unwrap().min(left.len());
                let taken = client.push(&left[..size]);
                left = &left[taken..];
                steps(&mut client, &job, &mut seen);
                if seen.last().is_some_and(|last| last.starts_with("! accepted")) {
                    seen.push(format!("rest {}", talk::text(&[client.rest(), left].concat())));
                    break;
                }
            }
            seen
        };
        prop_assert_eq!(run(&pieces), run(&[]));
    }
}
