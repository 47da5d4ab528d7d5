//! Dialogues: the examples of the RFCs that come before login, and what hostile clients do.
#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../../mail/tests/talk/mod.rs"]
mod talk;

use mail::session::Transport::{self, Clear, Tls};
use mail::session::{Action, Answer, Session as _};
use pop3::{Offer, Session};
use proptest::prelude::*;

fn offer() -> Offer {
    Offer::from_backend(
        b"TOP\r\nUIDL\r\nRESP-CODES\r\nSTLS\r\nUSER\r\nSASL PLAIN XOAUTH2 OAUTHBEARER SCRAM-SHA-1",
        "box",
    )
}

fn run(transport: Transport, input: &[u8], pieces: &[usize]) -> Vec<String> {
    talk::run(Session::new(transport), &offer(), input, pieces)
}

#[track_caller]
fn play(transport: Transport, dialogue: &str) {
    talk::play(Session::new(transport), &offer(), &format!("S: +OK box ready\n{dialogue}"));
}

/// RFC 2595 §4, RFC 2449 §5, RFC 1939 §7 and §10.
#[test]
fn stls_then_login() {
    play(
        Clear,
        "
        C: CAPA
        S: +OK
        S: TOP
        S: UIDL
        S: RESP-CODES
        S: STLS
        S: .
        C: STLS
        S: +OK Begin TLS negotiation
        ! tls
        [TLS]
        C: CAPA
        S: +OK
        S: TOP
        S: UIDL
        S: RESP-CODES
        S: USER
        S: SASL PLAIN XOAUTH2 OAUTHBEARER
        S: .
        C: STLS
        ! note Malformed
        S: -ERR TLS is active already.
        C: USER mrose
        S: +OK
        C: PASS secret
        ! login PLAIN mrose secret
        S: -ERR [AUTH] Authentication failed.
        C: PASS secret
        ! note Malformed
        S: -ERR USER comes first.
        C: user away
        S: +OK
        C: pass  se cret
        ! login PLAIN away  se cret
        S: -ERR [SYS/TEMP] Temporary authentication failure.
        C: USER bob
        S: +OK
        C: PASS x
        ! login PLAIN bob x
        S: +OK Logged in.
        ! relay
    ",
    );
}

#[test]
fn quits() {
    play(
        Tls,
        "
        C: quit
        S: +OK Logging out.
        ! close ByClient
    ",
    );
}

/// RFC 5034 §6: with and without an initial response, cancelled; and RFC 4616's messages.
#[test]
fn auth() {
    play(
        Tls,
        r"
        C: AUTH PLAIN dGVzdAB0ZXN0AHRlc3Q=
        ! login PLAIN test test
        S: -ERR [AUTH] Authentication failed.
        C: auth plain
        S: +
        C: dGVzdAB0ZXN0AHRlc3Q=
        ! login PLAIN test test
        S: -ERR [AUTH] Authentication failed.
        C: AUTH PLAIN
        S: +
        C: *
        S: -ERR Authentication cancelled.
        C: AUTH LOGIN
        S: + VXNlcm5hbWU6
        C: dGVzdA==
        S: + UGFzc3dvcmQ6
        C: czNjcmV0
        ! login LOGIN test s3cret
        S: -ERR [AUTH] Authentication failed.
        C: AUTH XOAUTH2 dXNlcj1hbm4BYXV0aD1CZWFyZXIgdAEB
        ! login XOAUTH2 ann user=ann\x01auth=Bearer t\x01\x01
        S: +OK [CAPABILITY IMAP4rev1 clientid MOVE] Logged in CLIENTID
        ! relay
    ",
    );
    play(
        Tls,
        "
        C: AUTH
        S: +OK
        S: PLAIN
        S: XOAUTH2
        S: OAUTHBEARER
        S: .
        C: AUTH CRAM-MD5
        ! note Malformed
        S: -ERR Unsupported authentication mechanism.
        C: AUTH PLAIN =
        ! note Malformed
        S: -ERR Invalid SASL response.
        C: AUTH PLAIN x y
        ! note Malformed
        S: -ERR Invalid SASL response.
        C: AUTH PLAIN
        S: +
        C: QUIT
        ! note Malformed
        S: -ERR Invalid SASL response.
    ",
    );
}

#[test]
fn nothing_secret_in_clear() {
    play(
        Clear,
        "
        C: USER ann
        ! note LoginInClear
        S: -ERR [AUTH] Use TLS first.
        C: PASS s3cret
        ! note LoginInClear
        S: -ERR [AUTH] Use TLS first.
        C: AUTH PLAIN AGFubgBzM2NyZXQ=
        ! note LoginInClear
        S: -ERR [AUTH] Use TLS first.
        C: AUTH
        ! note LoginInClear
        S: -ERR [AUTH] Use TLS first.
    ",
    );
}

#[test]
fn injection() {
    assert_eq!(run(Clear, b"STLS\r\nUSER ann\r\n", &[100])[1..], ["! close Injection"]);
    let (mut session, offer) = (Session::new(Clear), offer());
    let _ = session.push(b"STLS\r\n");
    while !matches!(session.next(&offer), Some(Action::StartTls)) {}
    assert_eq!(session.push(b"b"), 1);
    assert!(matches!(session.next(&offer), Some(Action::Close(mail::session::Closed::Injection))));
    assert!(session.next(&offer).is_none());
}

#[test]
fn refuses() {
    play(
        Tls,
        r"
        C: NOOP
        ! note Malformed
        S: -ERR Unknown command.
        C: APOP mrose c4c9334bac560ecc979e58001b3e22fb
        ! note Malformed
        S: -ERR Unknown command.
        C: USER
        ! note Malformed
        S: -ERR Invalid arguments.
        C: USER a\0b
        ! note Malformed
        S: -ERR Invalid arguments.
        C: USER a\xffb
        ! note Malformed
        S: -ERR Invalid arguments.
        C: CAPA x
        ! note Malformed
        S: -ERR Invalid arguments.
        C: USER joe
        S: +OK
        C: PASS a\0b
        ! note Malformed
        S: -ERR Invalid arguments.
        C: CLIENTID UUID x
        ! note Malformed
        S: -ERR Unknown command.
        C: UTF8
        ! note Malformed
        S: -ERR Unknown command.
        C: STAT
        ! note Malformed
        S: -ERR [AUTH] Too many errors.
        ! close TooManyErrors
    ",
    );
    play(
        Tls,
        "
        C: USER last
        S: +OK
        C: PASS x
        ! login PLAIN last x
        S: -ERR [AUTH] Authentication failed.
        S: -ERR [AUTH] Too many errors.
        ! close TooManyErrors
    ",
    );
    let oauth = Offer::from_backend(b"SASL XOAUTH2", "box");
    talk::play(
        Session::new(Tls),
        &oauth,
        "
        S: +OK box ready
        C: USER joe
        ! note Malformed
        S: -ERR Passwords are not taken.
        C: AUTH PLAIN
        ! note Malformed
        S: -ERR Unsupported authentication mechanism.
    ",
    );
}

/// Another command between USER and PASS forgets the name: nobody's password is tried for somebody else.
#[test]
fn the_name_is_forgotten() {
    play(
        Tls,
        "
        C: USER joe
        S: +OK
        C: USER away
        S: +OK
        C: PASS x
        ! login PLAIN away x
        S: -ERR [SYS/TEMP] Temporary authentication failure.
        C: USER joe
        S: +OK
        C: NOOP
        ! note Malformed
        S: -ERR Unknown command.
        C: PASS x
        ! note Malformed
        S: -ERR USER comes first.
    ",
    );
}

#[test]
fn lines() {
    for (input, last) in [(&b"CAPA\n"[..], "! close BareLineEnd"), (b"CAPA\rx", "! close BareLineEnd")] {
        assert_eq!(run(Tls, input, &[]).last().unwrap(), last);
    }
    let endless = vec![b'x'; 100_000];
    assert_eq!(run(Tls, &endless, &[100_000])[1..], ["S: -ERR Line too long.", "! close TooLong"]);
    assert_eq!(
        run(Tls, &[b"AUTH PLAIN\r\n", &endless[..]].concat(), &[1]).last().unwrap(),
        "! close TooLong"
    );
    let long = format!("USER {}\r\n", "u".repeat(385));
    assert_eq!(run(Tls, long.as_bytes(), &[]).last().unwrap(), "S: -ERR Invalid arguments.");
}

/// The longest SASL response of RFC 5034 §4, on a line of its own and in the command.
#[test]
fn long_sasl_responses() {
    let blob = [b"user=joe\x01auth=Bearer ".as_slice(), &vec![b't'; 9193], b"\x01\x01"].concat();
    let mut out = mail::Secret::<13_000>::new();
    assert!(mail::sasl::encode(&[&blob], &mut out));
    let base64 = String::from_utf8(out.expose().to_vec()).unwrap();
    let expected = format!("! login XOAUTH2 joe {}", talk::text(&blob));
    for input in [format!("AUTH XOAUTH2 {base64}\r\n"), format!("AUTH XOAUTH2\r\n{base64}\r\n")] {
        assert!(run(Tls, input.as_bytes(), &[13_000]).contains(&expected));
    }
}

/// Nothing is parsed while a login is decided, and what came with it goes to the backend.
#[test]
fn pipelining() {
    let (mut session, offer) = (Session::new(Tls), offer());
    let _ = session.push(b"USER joe\r\nPASS x\r\nSTAT\r\n");
    while !matches!(session.next(&offer), Some(Action::Login(_))) {}
    assert!(session.next(&offer).is_none() && session.rest().is_empty());
    let _ = session.push(b"LIST\r\n");
    session.answer(Answer::Admitted { untagged: b"", text: b"hi\r\nthere" });
    assert!(matches!(session.next(&offer), Some(Action::Send(b"+OK Logged in.\r\n"))));
    assert!(matches!(session.next(&offer), Some(Action::Relay)));
    assert_eq!(session.rest(), b"STAT\r\nLIST\r\n");
}

#[test]
fn memory() {
    assert!(size_of::<Session>() <= 20 * 1024, "{}", size_of::<Session>());
    println!("pop3::Session {} octets, pop3::Client {}", size_of::<Session>(), size_of::<pop3::Client>());
}

/// Pieces of dialogues, whole and broken, in an order nobody would choose.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "CAPA\r\n",
        "STLS\r\n",
        "USER joe\r\n",
        "USER bob\r\n",
        "USER last\r\n",
        "PASS x\r\n",
        "PASS  s3cret \r\n",
        "AUTH PLAIN\r\n",
        "AUTH\r\n",
        "AUTH LOGIN am9l\r\n",
        "AUTH LOGIN\r\n",
        "AGpvZQB4\r\n",
        "am9l\r\n",
        "*\r\n",
        "AUTH PLAIN AGpvZQB4\r\n",
        "AUTH PLAIN =\r\n",
        "QUIT\r\n",
        "NOOP\r\n",
        "\r\n",
        "\r",
        "\n",
        " ",
        "\0",
        "\u{e9}",
    ]);
    let chunk = prop_oneof![
        20 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..20),
        1 => (1..14_000usize).prop_map(|size| vec![b'x'; size]),
    ];
    prop::collection::vec(chunk, 0..14).prop_map(|chunks| chunks.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    /// However the input is split, the same octets give the same actions.
    #[test]
    fn any_split(octets in octets(), pieces in prop::collection::vec(prop_oneof![4 => 1..30usize, 1 => 1..9000usize], 1..40), clear in any::<bool>()) {
        let transport = if clear { Clear } else { Tls };
        let whole = run(transport, &octets, &[octets.len().max(1)]);
        prop_assert_eq!(&run(transport, &octets, &pieces), &whole);
        prop_assert_eq!(&run(transport, &octets, &vec![1; octets.len()]), &whole);
    }
}
