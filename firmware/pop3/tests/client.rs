//! Our side against scripted backends: honest ones, odd ones, hostile ones.
#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../../mail/tests/talk/mod.rs"]
mod talk;

use std::net::SocketAddr;

use mail::sasl::Mechanism;
use mail::session::{Backend as _, Job, Peer, Task};
use pop3::Client;
use proptest::prelude::*;
use talk::steps;

const PROBE: Job<'static> =
    Job { task: Task::Probe, starttls: false, peer: None, hostname: "edge.example.net" };

fn login<'a>(mechanism: Mechanism, user: &'a [u8], secret: &'a [u8]) -> Job<'a> {
    Job { task: Task::Login { mechanism, user, secret }, ..PROBE }
}

fn ann() -> Job<'static> {
    login(Mechanism::Plain, b"ann", b"s3 cret")
}

fn peer() -> Peer<'static> {
    Peer {
        client: "[2001:db8::7]:50123".parse::<SocketAddr>().unwrap(),
        local: "192.0.2.10:995".parse::<SocketAddr>().unwrap(),
        session: "abc",
        tls: true,
        sni: Some("pop.example.net"),
        device: Some("7f3k9q"),
        helo: "",
    }
}

#[track_caller]
fn play(job: &Job<'_>, dialogue: &str) -> Client {
    talk::play_backend(Client::new(), job, dialogue)
}

#[test]
fn probes() {
    play(
        &PROBE,
        r"
        S: +OK Dovecot ready.
        C: CAPA
        S: +OK
        S: TOP
        S: ..odd
        S: SASL PLAIN
        S: .
        C: QUIT
        ! capabilities TOP\r\n.odd\r\nSASL PLAIN
    ",
    );
    play(
        &PROBE,
        "
        S: +OK ready
        C: CAPA
        S: -ERR what
        C: QUIT
        ! capabilities
    ",
    );
}

#[test]
fn stls() {
    let job = Job { starttls: true, ..PROBE };
    play(
        &job,
        "
        S: +OK ready
        C: STLS
        S: +OK go
        ! tls
        [TLS]
        C: CAPA
        S: +OK
        S: USER
        S: .
        C: QUIT
        ! capabilities USER
    ",
    );
    play(
        &job,
        r"
        S: +OK ready
        C: STLS
        s: +OK go\r\n+OK\r\nFORGED\r\n.\r\n
        ! violation octets behind STLS
    ",
    );
    play(
        &job,
        "
        S: +OK ready
        C: STLS
        S: -ERR no
        ! away STLS
    ",
    );
    let (mut client, mut seen) = (Client::new(), Vec::new());
    for octets in [&b"+OK ready\r\n"[..], b"+OK go\r\n", b"+"] {
        assert_eq!(client.push(octets), octets.len());
        steps(&mut client, &job, &mut seen);
    }
    assert_eq!(seen, ["C: STLS", "! tls", "! violation octets behind STLS"]);
}

/// clientid.md §5.2: only where the greeting says so, and the text tells whether it was believed.
#[test]
fn names_the_client() {
    let peer = peer();
    let job = Job { peer: Some(&peer), ..ann() };
    let dialogue = |answer: &str| {
        format!("
        S: +OK [XCLIENT] Dovecot ready.
        C: CAPA
        S: +OK
        S: SASL PLAIN
        S: .
        C: XCLIENT ADDR=2001:db8::7 PORT=50123 DESTADDR=192.0.2.10 DESTPORT=995 SESSION=abc TTL=6 CLIENT-TRANSPORT=TLS DESTNAME=pop.example.net FORWARD=ZWRnZWRldj03ZjNrOXE=
        S: {answer}
        C: AUTH PLAIN AGFubgBzMyBjcmV0
        S: +OK Logged in.
        ! accepted  | Logged in.
    ")
    };
    assert_eq!(play(&job, &dialogue("+OK Updated")).believed(), Some(true));
    assert_eq!(play(&job, &dialogue("+OK You are not from trusted IP - ignoring")).believed(), Some(false));
    assert_eq!(play(&job, &dialogue("-ERR Invalid parameters")).believed(), Some(false));
    let silent = play(
        &job,
        "
        S: +OK Dovecot ready.
        C: CAPA
        S: +OK
        S: SASL PLAIN
        S: .
        C: AUTH PLAIN AGFubgBzMyBjcmV0
        S: +OK
        ! accepted  |
    ",
    );
    assert_eq!(silent.believed(), Some(false));
    assert_eq!(Client::new().believed(), None);
    let odd = Peer { session: "a b\r\nc", sni: None, device: None, tls: false, ..peer };
    play(&Job { peer: Some(&odd), ..PROBE }, "
        S: +OK [XCLIENT] ready
        C: CAPA
        S: -ERR
        C: XCLIENT ADDR=2001:db8::7 PORT=50123 DESTADDR=192.0.2.10 DESTPORT=995 SESSION=abc TTL=6 CLIENT-TRANSPORT=insecure
        S: +OK Updated
        C: QUIT
        ! capabilities
    ");
}

#[test]
fn every_way_to_say_a_password() {
    play(
        &ann(),
        "
        S: +OK ready
        C: CAPA
        S: -ERR
        C: USER ann
        S: +OK
        C: PASS s3 cret
        S: +OK Logged in.
        ! accepted  | Logged in.
    ",
    );
    play(
        &ann(),
        "
        S: +OK ready
        C: CAPA
        S: +OK
        S: SASL LOGIN
        S: .
        C: AUTH LOGIN
        S: + VXNlcm5hbWU6
        C: YW5u
        S: + UGFzc3dvcmQ6
        C: czMgY3JldA==
        S: -ERR [AUTH] no
        ! rejected
    ",
    );
    let long = "x".repeat(200);
    let capa = "
        S: +OK ready
        C: CAPA
        S: +OK
        S: SASL PLAIN
        S: .";
    let mut blob = mail::Secret::<1000>::new();
    assert!(mail::sasl::encode_plain(b"ann", long.as_bytes(), &mut blob));
    play(
        &login(Mechanism::Login, b"ann", long.as_bytes()),
        &format!(
            "{capa}
        C: AUTH PLAIN
        S: +
        C: {}
        S: +OK
        ! accepted  |",
            talk::text(blob.expose())
        ),
    );
    for (capabilities, end) in [("SASL SCRAM-SHA-1", "! away no password mechanism"), ("USER", "! rejected")]
    {
        play(
            &login(Mechanism::Plain, b"ann", b"a\r\nQUIT"),
            &format!(
                "
            S: +OK ready
            C: CAPA
            S: +OK
            S: {capabilities}
            S: .
            {end}
        "
            ),
        );
    }
}

/// RFC 7628 §3.2.3, over POP3.
#[test]
fn oauth() {
    let job = login(Mechanism::OAuthBearer, b"u", b"n,a=u,\x01auth=Bearer t\x01\x01");
    play(
        &job,
        "
        S: +OK ready
        C: CAPA
        S: +OK
        S: SASL PLAIN OAUTHBEARER
        S: .
        C: AUTH OAUTHBEARER bixhPXUsAWF1dGg9QmVhcmVyIHQBAQ==
        S: + eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=
        C: AQ==
        S: -ERR [AUTH] no
        ! rejected
    ",
    );
    play(
        &job,
        "
        S: +OK ready
        C: CAPA
        S: +OK
        S: SASL PLAIN
        S: .
        ! away no such mechanism
    ",
    );
}

#[test]
fn rejected_or_away() {
    for (answer, end) in [
        ("-ERR [AUTH] Authentication failed.", "! rejected"),
        ("-ERR", "! rejected"),
        ("-ERR [SYS/TEMP] later", "! away login"),
        ("-ERR [SYS/PERM] broken", "! away login"),
        ("-ERR [IN-USE] locked", "! away login"),
        ("-ERR [login-delay] wait", "! away login"),
    ] {
        play(
            &ann(),
            &format!(
                "
            S: +OK ready
            C: CAPA
            S: -ERR
            C: USER ann
            S: +OK
            C: PASS s3 cret
            S: {answer}
            {end}
        "
            ),
        );
        play(
            &ann(),
            &format!(
                "
            S: +OK ready
            C: CAPA
            S: -ERR
            C: USER ann
            S: {answer}
            {end}
        "
            ),
        );
    }
}

#[test]
fn hostile_backends() {
    for (line, end) in [
        ("-ERR busy", "! away greeting"),
        ("* OK IMAP4rev1", "! violation not a reply"),
        ("220 ESMTP", "! violation not a reply"),
        ("+ ", "! violation go-ahead for nothing"),
        (r"+OK a\0b", "! violation NUL"),
        (r"+OK a\rb", "! violation bare CR or LF"),
        (r"+OK a\nb", "! violation bare CR or LF"),
    ] {
        play(&ann(), &format!("\nS: {}\n{end}", line.trim_end()));
    }
    play(
        &ann(),
        "
        S: +OK ready
        C: CAPA
        S: +OK
        S: SASL LOGIN
        S: .
        C: AUTH LOGIN
        S: +OK Logged in.
        ! violation accepted nothing
    ",
    );
    let (mut client, mut seen) = (Client::new(), Vec::new());
    let _ = client.push(&[b"+OK ".as_slice(), &[b'x'; 10_000]].concat());
    steps(&mut client, &ann(), &mut seen);
    assert_eq!(seen, ["! violation endless line"]);
    let (mut client, mut seen) = (Client::new(), Vec::new());
    for octets in [b"+OK\r\n+OK\r\n".to_vec(), b"X-MORE\r\n".repeat(100)] {
        let _ = client.push(&octets);
        steps(&mut client, &ann(), &mut seen);
    }
    assert_eq!(seen.last().unwrap(), "! violation too many lines");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However the backend's octets are split, the same steps.
    #[test]
    fn any_split(
        lines in proptest::collection::vec(prop::sample::select(vec![
            "+OK [XCLIENT] x\r\n", "+OK x\r\n", "-ERR x\r\n", "-ERR [SYS/TEMP] x\r\n", "SASL PLAIN\r\n", "SASL LOGIN XOAUTH2\r\n", "USER\r\n",
            ".\r\n", "+ \r\n", "\r\n", "x", "\r", "\n",
        ]), 0..12),
        pieces in proptest::collection::vec(1..20usize, 1..20),
        known in any::<bool>(),
    ) {
        let (peer, input) = (peer(), lines.concat());
        let job = Job { peer: known.then_some(&peer), ..ann() };
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
