//! Dialogues: clientid.md §6.2, the examples of the RFCs that come before login, and what hostile clients do.
#![allow(clippy::unwrap_used, clippy::needless_raw_string_hashes)] // a test fails by panicking; dialogues are quoted alike

#[path = "../../mail/tests/talk/mod.rs"]
mod talk;

use imap::{Offer, Session};
use mail::session::Transport::{Clear, Tls};
use mail::session::{Action, Answer, Session as _, Transport};

const DOVECOT: &[u8] =
    b"IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ STARTTLS LOGINDISABLED AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER";

fn offer() -> Offer {
    Offer::from_backend(DOVECOT, "box", true)
}

fn run(transport: Transport, offer: &Offer, input: &[u8], pieces: &[usize]) -> Vec<String> {
    talk::run(Session::new(transport), offer, input, pieces)
}

#[track_caller]
fn play(transport: Transport, offer: &Offer, dialogue: &str) {
    talk::play(Session::new(transport), offer, dialogue);
}

/// RFC 9051 §6.1.1, §6.2.1, §6.2.3 and §6.1.3, through STARTTLS.
#[test]
fn starttls_then_login() {
    play(
        Clear,
        &offer(),
        r#"
        S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ STARTTLS LOGINDISABLED] box ready
        C: a001 CAPABILITY
        S: * CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ STARTTLS LOGINDISABLED
        S: a001 OK CAPABILITY completed.
        C: a002 STARTTLS
        S: a002 OK Begin TLS negotiation now.
        ! tls
        [TLS]
        C: a003 CAPABILITY
        S: * CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER CLIENTID
        S: a003 OK CAPABILITY completed.
        C: a004 LOGIN SMITH SESAME
        ! login PLAIN SMITH SESAME
        S: a004 NO [AUTHENTICATIONFAILED] Authentication failed.
        C: a005 NOOP
        S: a005 OK NOOP completed.
        C: a006 LOGOUT
        S: * BYE Logging out.
        S: a006 OK LOGOUT completed.
        ! close ByClient
    "#,
    );
}

const GREETING: &str = "S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER CLIENTID] box ready\n";

#[track_caller]
fn tls(dialogue: &str) {
    play(Tls, &offer(), &format!("{GREETING}{dialogue}"));
}

/// RFC 9051 §6.2.2 has PLAIN without an initial response (as Thunderbird does it) and with one; RFC 4959 §3, §7.
#[test]
fn authenticate_plain() {
    tls("
        C: C01 authenticate PLAIN
        S: + 
        C: dGVzdAB0ZXN0AHRlc3Q=
        ! login PLAIN test test
        S: C01 NO [AUTHENTICATIONFAILED] Authentication failed.
        C: C02 AUTHENTICATE plain dGVzdAB0ZXN0AHRlc3Q=
        ! login PLAIN test test
        S: C02 NO [AUTHENTICATIONFAILED] Authentication failed.
        C: C03 AUTHENTICATE PLAIN VXJzZWwAS3VydAB4aXBqM3BsbXE=
        ! login PLAIN Kurt xipj3plmq as Ursel
        S: C03 NO [AUTHENTICATIONFAILED] Authentication failed.
    ");
}

#[test]
fn authenticate_login() {
    tls("
        C: a AUTHENTICATE LOGIN
        S: + VXNlcm5hbWU6
        C: YXdheQ==
        S: + UGFzc3dvcmQ6
        C: czNjcmV0
        ! login LOGIN away s3cret
        S: a NO [UNAVAILABLE] Temporary authentication failure.
        C: b AUTHENTICATE LOGIN YXdheQ==
        S: + UGFzc3dvcmQ6
        C: *
        S: b BAD Authentication cancelled.
        C: c NOOP
        S: c OK NOOP completed.
    ");
}

/// RFC 7628 §4.1 with and without SASL-IR.
#[test]
fn authenticate_oauth() {
    tls(r"
        C: t1 AUTHENTICATE OAUTHBEARER bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB
        ! login OAUTHBEARER user@example.com n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01
        S: t1 NO [AUTHENTICATIONFAILED] Authentication failed.
        C: t2 AUTHENTICATE XOAUTH2
        S: + 
        C: dXNlcj1hbm4BYXV0aD1CZWFyZXIgdAEB
        ! login XOAUTH2 ann user=ann\x01auth=Bearer t\x01\x01
        S: * OK hello
        S: * CAPABILITY IMAP4rev1 IDLE
        S: t2 OK [CAPABILITY IMAP4rev1 MOVE] Logged in CLIENTID
        ! relay
    ");
}

#[test]
fn authenticate_refuses() {
    tls("
        C: a AUTHENTICATE CRAM-MD5
        ! note Malformed
        S: a NO Unsupported authentication mechanism.
        C: b AUTHENTICATE PLAIN =
        ! note Malformed
        S: b BAD Invalid SASL response.
        C: c AUTHENTICATE PLAIN !!!!
        ! note Malformed
        S: c BAD Invalid SASL response.
        C: d AUTHENTICATE PLAIN AGFubgBzM2NyZXQ= x
        ! note Malformed
        S: d BAD Invalid SASL response.
        C: e AUTHENTICATE
        ! note Malformed
        S: e BAD Invalid arguments.
        C: f AUTHENTICATE \"PLAIN\"
        ! note Malformed
        S: f NO Unsupported authentication mechanism.
        C: g AUTHENTICATE PLAIN {16+}
        ! note Malformed
        S: g BAD Invalid arguments.
        C: AGFubgBzM2NyZXQ=
        C: h NOOP
        S: h OK NOOP completed.
    ");
}

/// RFC 9051 §4.3 and §6.2.3, RFC 7888 §4: every form of both words.
#[test]
fn login_strings() {
    tls(r#"
        C: A001 LOGIN {11}
        S: + Ready for literal data
        C: FRED FOOBAR {7}
        S: + Ready for literal data
        C: fat man
        ! login PLAIN FRED FOOBAR fat man
        S: A001 NO [AUTHENTICATIONFAILED] Authentication failed.
        C: A002 LOGIN {11+}
        C: FRED FOOBAR {7+}
        C: fat man
        ! login PLAIN FRED FOOBAR fat man
        S: A002 NO [AUTHENTICATIONFAILED] Authentication failed.
        C: A003 login "joe \\"x\\\\y\\"" {3-}
        C: a\r\n
        ! login PLAIN joe "x\\y" a\r\n
        S: A003 NO [AUTHENTICATIONFAILED] Authentication failed.
        C: A004 LOGIN joe@example.com] "{3}"
        ! login PLAIN joe@example.com] {3}
        S: A004 NO [AUTHENTICATIONFAILED] Authentication failed.
    "#);
}

#[test]
fn login_refuses() {
    tls(r#"
        C: a LOGIN ann
        ! note Malformed
        S: a BAD Invalid arguments.
        C: b LOGIN ann s3cret x
        ! note Malformed
        S: b BAD Invalid arguments.
        C: c LOGIN ann "s\x00"
        ! note Malformed
        S: c BAD Invalid arguments.
        C: d LOGIN "" x
        ! note Malformed
        S: d BAD Invalid arguments.
        C: e LOGIN {3+}
        C: a\0n {1+}
        C: x
        ! note Malformed
        S: e BAD Invalid arguments.
        C: f LOGIN {4294967295}
        ! note Malformed
        S: f BAD Literal too large.
        C: g LOGIN {18446744073709551616}
        ! note Malformed
        S: g BAD Literal too large.
        C: h LOGIN {4097+}
        ! note Malformed
        S: h BAD Literal too large.
    "#);
}

/// A literal too large to take is read and dropped where that is cheap, so that the next command is found.
#[test]
fn in_step_after_refused_literals() {
    let big = "x".repeat(5000);
    let seen =
        run(Tls, &offer(), format!("a LOGIN {{5000+}}\r\n{big} {{3+}}\r\nfoo\r\nb NOOP\r\n").as_bytes(), &[]);
    assert_eq!(seen[1..], ["! note Malformed", "S: a BAD Literal too large.", "S: b OK NOOP completed."]);
    let seen = run(Tls, &offer(), b"a APPEND x {5+}\r\nb NOO\r\nc NOOP\r\n", &[]);
    assert_eq!(seen[1..], ["! note Malformed", "S: a BAD Unknown command.", "S: c OK NOOP completed."]);
    // A client that waits never sends it: the next line is a command.
    let seen = run(Tls, &offer(), b"a APPEND x {5}\r\nb NOOP\r\n", &[]);
    assert_eq!(seen[1..], ["! note Malformed", "S: a BAD Unknown command.", "S: b OK NOOP completed."]);
    for size in ["65537", "4294967296", "18446744073709551615", "99999999999999999999999"] {
        let seen = run(Tls, &offer(), format!("a APPEND x {{{size}+}}\r\nb NOOP\r\n").as_bytes(), &[]);
        assert_eq!(
            seen[2..],
            ["S: a BAD Unknown command.", "S: * BYE Literal too large.", "! close TooLong"]
        );
    }
    // Many small ones share one budget.
    let mut many = b"a APPEND".to_vec();
    for _ in 0..20 {
        many.extend_from_slice(b" {4000+}\r\n");
        many.extend(std::iter::repeat_n(b'x', 4000));
    }
    assert_eq!(run(Tls, &offer(), &many, &[9999]).last().unwrap(), "! close TooLong");
}

#[test]
fn nothing_secret_in_clear() {
    let greeting =
        "S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ STARTTLS LOGINDISABLED] box ready\n";
    play(
        Clear,
        &offer(),
        &format!(
            "{greeting}
        C: a LOGIN ann s3cret
        ! note LoginInClear
        S: a NO [PRIVACYREQUIRED] Use TLS first.
        C: b LOGIN {{3}}
        ! note LoginInClear
        S: b NO [PRIVACYREQUIRED] Use TLS first.
        C: c LOGIN {{3+}}
        ! note LoginInClear
        S: c NO [PRIVACYREQUIRED] Use TLS first.
        C: ann s3cret
        C: d AUTHENTICATE PLAIN
        ! note LoginInClear
        S: d NO [PRIVACYREQUIRED] Use TLS first.
        C: e AUTHENTICATE PLAIN AGFubgBzM2NyZXQ=
        ! note LoginInClear
        S: e NO [PRIVACYREQUIRED] Use TLS first.
        C: f CLIENTID UUID 23bf83be-aad7-46aa-9e0f-39191ccf402f
        ! note ClientIdInClear
        S: f BAD Unknown command.
        C: g FOO UUID 23bf83be-aad7-46aa-9e0f-39191ccf402f
        ! note Malformed
        S: g BAD Unknown command.
    "
        ),
    );
}

/// Octets behind STARTTLS are an attack, whether they come with it or before the handshake.
#[test]
fn injection() {
    let seen = run(Clear, &offer(), b"a STARTTLS\r\nb LOGIN ann s3cret\r\n", &[1000]);
    assert_eq!(seen[1..], ["! close Injection"]);
    let mut session = Session::new(Clear);
    let offer = offer();
    let _ = session.push(b"a STARTTLS\r\n");
    while !matches!(session.next(&offer), Some(Action::StartTls)) {}
    assert_eq!(session.push(b"b"), 1);
    assert!(matches!(session.next(&offer), Some(Action::Close(mail::session::Closed::Injection))));
    assert!(session.next(&offer).is_none());
}

/// What was learnt in clear is forgotten.
#[test]
fn starttls_forgets() {
    let greeting =
        "S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ STARTTLS LOGINDISABLED] box ready\n";
    play(
        Clear,
        &offer(),
        &format!(
            "{greeting}
        C: a ID (\"name\" \"sodr\")
        S: * ID (\"name\" \"Postern\")
        S: a OK ID completed.
        C: b STARTTLS
        S: b OK Begin TLS negotiation now.
        ! tls
        [TLS]
        C: c STARTTLS
        ! note Malformed
        S: c BAD TLS is active already.
        C: d LOGIN joe x
        ! login PLAIN joe x
        S: d NO [AUTHENTICATIONFAILED] Authentication failed.
    "
        ),
    );
}

/// RFC 2971 §3.1 and §3.2.
#[test]
fn id() {
    tls(r#"
        C: a023 ID ("name" "sodr" "version" "19.34" "vendor" "Pink Floyd Music Limited")
        S: * ID ("name" "Postern")
        S: a023 OK ID completed.
        C: a1 LOGIN joe x
        ! login PLAIN joe x with sodr/19.34/Pink Floyd Music Limited/
        S: a1 NO [AUTHENTICATIONFAILED] Authentication failed.
        C: a042 ID NIL
        S: * ID ("name" "Postern")
        S: a042 OK ID completed.
        C: a2 ID ({4}
        S: + Ready for literal data
        C: name {2+}
        C: me "os" NIL)
        S: * ID ("name" "Postern")
        S: a2 OK ID completed.
        C: a3 LOGIN joe x
        ! login PLAIN joe x with me///
        S: a3 NO [AUTHENTICATIONFAILED] Authentication failed.
        C: a4 ID ("name" x)
        ! note Malformed
        S: a4 BAD Invalid arguments.
        C: a5 ID ("name" {2000+}
        ! note Malformed
        S: a5 BAD Invalid arguments.
    "#);
    tls(r#"
        C: a ID ("name" {9999}
        ! note Malformed
        S: a BAD Invalid arguments.
        C: b ID ("name" {5+}
        C: no\0oo)
        ! note Malformed
        S: b BAD Invalid arguments.
        C: c ID
        ! note Malformed
        S: c BAD Invalid arguments.
        C: d NOOP
        S: d OK NOOP completed.
    "#);
}

/// The table of clientid.md §6.2, each on its own connection.
#[test]
fn clientid_vectors() {
    let (max, over) = ("~".repeat(128), "~".repeat(129));
    let ok = |command: &str, kind: &str, token: &str| {
        let seen = run(Tls, &offer(), format!("a {command}\r\nb LOGIN joe x\r\n").as_bytes(), &[]);
        assert_eq!(seen[1], "S: a OK CLIENTID completed", "{command}");
        assert_eq!(seen[2], format!("! login PLAIN joe x on {kind} {token}"), "{command}");
    };
    ok("CLIENTID UUID 23bf83be-aad7-46aa-9e0f-39191ccf402f", "UUID", "23bf83be-aad7-46aa-9e0f-39191ccf402f");
    ok("clientid uuid 23BF83BE-AAD7-46AA-9E0F-39191CCF402F", "UUID", "23bf83be-aad7-46aa-9e0f-39191ccf402f");
    ok("CLIENTID TB-UUID x", "TB-UUID", "x");
    ok("CLIENTID MAC 08:9e:01:70:f6:46", "MAC", "08:9e:01:70:f6:46");
    ok("CLIENTID MAC \"08:9e:01:70:f6:46\"", "MAC", "08:9e:01:70:f6:46");
    ok("CLIENTID MAC {17+}\r\n08:9e:01:70:f6:46", "MAC", "08:9e:01:70:f6:46");
    ok("CLIENTID MAC {17-}\r\n08:9e:01:70:f6:46", "MAC", "08:9e:01:70:f6:46");
    ok("CLIENTID \"MAC\" {3+}\r\na\"b", "MAC", "a\"b");
    ok(&format!("CLIENTID X {max}"), "X", &max);
    ok(&format!("CLIENTID X {{128+}}\r\n{max}"), "X", &max);
    ok("CLIENTID X x ", "X", "x");
    let seen = run(Tls, &offer(), b"a CLIENTID DEVICE_ID abc\r\n", &[]);
    assert_eq!(seen[1..], ["! note ClientIdUnderscore", "S: a OK CLIENTID completed"]);

    let bad = |arguments: &[u8]| {
        let seen = run(Tls, &offer(), &[b"a CLIENTID", arguments, b"\r\nb NOOP\r\n"].concat(), &[]);
        assert_eq!(
            seen[1..],
            ["! note Malformed", "S: a BAD Syntax: CLIENTID type token", "S: b OK NOOP completed."],
            "{}",
            arguments.escape_ascii()
        );
    };
    for arguments in [
        "",
        " UUID",
        " A B C",
        " ABCDEFGHIJKLMNOPQ x",
        " UUID a\tb",
        " UUID \"a b\"",
        " UUID \"\"",
        "  UUID x",
        " UUID  x",
        " UUID x  ",
        " UU:ID x",
        " {3+}\r\nABC",
    ] {
        bad(arguments.as_bytes());
    }
    bad(format!(" X {over}").as_bytes());
    bad(format!(" X {{129+}}\r\n{over}").as_bytes());
    bad(b" UUID a\xffb");
    bad(b" UUID {3+}\r\na\xffb");
    bad(b" UUID {1+}\r\nx {1+}\r\ny");
    bad(b" {1+}\r\nx {1+}\r\ny {1+}\r\nz");
    bad(b" UUID {129}");
    bad(b" UUID {18446744073709551615}");
}

#[test]
fn clientid_sequence() {
    tls("
        C: a CLIENTID UUID {3}
        S: + Ready for literal data
        C: one
        S: a OK CLIENTID completed
        C: b CLIENTID UUID two
        ! note Malformed
        S: b BAD CLIENTID was given already.
        C: c LOGIN joe x
        ! login PLAIN joe x on UUID one
        S: c NO [AUTHENTICATIONFAILED] Authentication failed.
    ");
    tls("
        C: a LOGIN joe x
        ! login PLAIN joe x
        S: a NO [AUTHENTICATIONFAILED] Authentication failed.
        C: b CLIENTID UUID two
        S: b OK CLIENTID completed
        C: c AUTHENTICATE PLAIN AGpvZQB4
        ! login PLAIN joe x on UUID two
        S: c NO [AUTHENTICATIONFAILED] Authentication failed.
    ");
    tls("
        C: a CLIENTID
        ! note Malformed
        S: a BAD Syntax: CLIENTID type token
        C: b CLIENTID x
        ! note Malformed
        S: b BAD Syntax: CLIENTID type token
        C: c CLIENTID x y z
        ! note Malformed
        S: c BAD Syntax: CLIENTID type token
        S: * BYE Too many errors.
        ! close TooManyErrors
    ");
    let without = Offer::from_backend(b"IMAP4rev1", "box", false);
    play(
        Tls,
        &without,
        "
        S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] box ready
        C: a CLIENTID UUID x
        ! note Malformed
        S: a BAD Unknown command.
    ",
    );
}

/// Thunderbird's dialogue (clientid.md §3.3).
#[test]
fn thunderbird() {
    tls("
        C: 1 capability
        S: * CAPABILITY IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER CLIENTID
        S: 1 OK CAPABILITY completed.
        C: 2 CLIENTID UUID 23bf83be-aad7-46aa-9e0f-39191ccf402f
        S: 2 OK CLIENTID completed
        C: 3 authenticate PLAIN
        S: + 
        C: AGFubgBzM2NyZXQ=
        ! login PLAIN ann s3cret on UUID 23bf83be-aad7-46aa-9e0f-39191ccf402f
        S: * OK hello
        S: * CAPABILITY IMAP4rev1 IDLE
        S: 3 OK [CAPABILITY IMAP4rev1 MOVE] Logged in CLIENTID
        ! relay
    ");
}

/// The shape of Dovecot's denial of service by `NOOP (((…`: nesting costs nothing, since nothing nests here.
#[test]
fn nested_lists() {
    let deep = "(".repeat(12_000);
    let seen = run(Tls, &offer(), format!("a NOOP {deep}\r\nb NOOP\r\n").as_bytes(), &[]);
    assert_eq!(seen[1..], ["! note Malformed", "S: a BAD Invalid arguments.", "S: b OK NOOP completed."]);
    let seen = run(Tls, &offer(), format!("a NOOP {deep}{deep}").as_bytes(), &[]);
    assert_eq!(seen[1..], ["S: * BAD Line too long.", "! close TooLong"]);
}

#[test]
fn too_many_errors() {
    let seen = run(Tls, &offer(), b"a SELECT INBOX\r\n".repeat(12).as_slice(), &[]);
    assert_eq!(seen.iter().filter(|line| line.as_str() == "S: a BAD Unknown command.").count(), 10);
    assert_eq!(seen[seen.len() - 2..], ["S: * BYE Too many errors.", "! close TooManyErrors"]);
    tls("
        C: a LOGIN last x
        ! login PLAIN last x
        S: a NO [AUTHENTICATIONFAILED] Authentication failed.
        S: * BYE Too many errors.
        ! close TooManyErrors
    ");
}

#[test]
fn lines() {
    for (input, last) in [
        (&b"a NOOP\n"[..], "! close BareLineEnd"),
        (b"a NOOP\rx", "! close BareLineEnd"),
        (b"a LOGIN {3+}\r\nann x\n", "! close BareLineEnd"),
        (b"* NOOP\r\n", "S: * BAD Invalid tag."),
        (b"\r\n", "S: * BAD Invalid tag."),
        (b"a\r\n", "S: * BAD Invalid tag."),
        (b"a\0 NOOP\r\n", "S: * BAD Invalid tag."),
        (b"\xc3\xa9 NOOP\r\n", "S: * BAD Invalid tag."),
        (b"a NO\0OP\r\n", "S: a BAD Unknown command."),
    ] {
        assert_eq!(run(Tls, &offer(), input, &[]).last().unwrap(), last, "{}", input.escape_ascii());
    }
    let endless = vec![b'x'; 100_000];
    assert_eq!(run(Tls, &offer(), &endless, &[100_000]).last().unwrap(), "! close TooLong");
    let line = [b"a AUTHENTICATE PLAIN\r\n", &endless[..]].concat();
    assert_eq!(run(Tls, &offer(), &line, &[1]).last().unwrap(), "! close TooLong");
}

/// The longest SASL responses of RFC 4954 §4, on a line of their own and in the command.
#[test]
fn long_sasl_responses() {
    let blob = [b"user=joe\x01auth=Bearer ".as_slice(), &vec![b't'; 9193], b"\x01\x01"].concat();
    let mut out = mail::Secret::<13_000>::new();
    assert!(mail::sasl::encode(&[&blob], &mut out));
    let base64 = String::from_utf8(out.expose().to_vec()).unwrap();
    assert_eq!(base64.len(), 12_288);
    let expected = format!("! login XOAUTH2 joe {}", talk::text(&blob));
    for input in [
        format!("a AUTHENTICATE XOAUTH2 {base64}\r\n"),
        format!("a AUTHENTICATE XOAUTH2\r\n{base64}\r\n"),
        format!("{} AUTHENTICATE XOAUTH2 {base64}\r\n", "a".repeat(64)),
    ] {
        let seen = run(Tls, &offer(), input.as_bytes(), &[13_000]);
        assert!(seen.contains(&expected), "{:?}", seen.last());
    }
    let seen = run(Tls, &offer(), format!("a AUTHENTICATE XOAUTH2\r\n{base64}AAAA\r\n").as_bytes(), &[]);
    assert_eq!(seen.last().unwrap(), "! close TooLong");
}

/// Nothing is parsed while a login is decided, and what came with it goes to the backend.
#[test]
fn pipelining() {
    let mut session = Session::new(Tls);
    let offer = offer();
    let input = b"a LOGIN joe x\r\nb LOGIN ann s3cret\r\nc SELECT INBOX\r\n";
    assert_eq!(session.push(input), input.len());
    assert!(matches!(session.next(&offer), Some(Action::Send(_))));
    assert!(matches!(session.next(&offer), Some(Action::Login(login)) if login.user == b"joe"));
    assert!(session.next(&offer).is_none());
    assert_eq!(session.push(b"d NOOP\r\n"), 8);
    assert!(session.next(&offer).is_none() && session.rest().is_empty());
    session.answer(Answer::Failed);
    assert!(matches!(session.next(&offer), Some(Action::Send(text)) if text.starts_with(b"a NO ")));
    assert!(matches!(session.next(&offer), Some(Action::Login(login)) if login.secret == b"s3cret"));
    session.answer(Answer::Admitted { untagged: b"", text: b"welcome" });
    assert!(matches!(session.next(&offer), Some(Action::Send(b"b OK welcome\r\n"))));
    assert!(matches!(session.next(&offer), Some(Action::Relay)));
    assert_eq!(session.rest(), b"c SELECT INBOX\r\nd NOOP\r\n");
    assert!(session.next(&offer).is_none());
}

/// A hostile backend's words cannot write lines of their own.
#[test]
fn the_backends_words_are_one_line() {
    let offer = offer();
    let said = |untagged: &[u8], text: &[u8]| {
        let mut session = Session::new(Tls);
        let _ = session.push(b"a LOGIN joe x\r\n");
        while !matches!(session.next(&offer), Some(Action::Login(_))) {}
        session.answer(Answer::Admitted { untagged, text });
        match session.next(&offer) {
            Some(Action::Send(text)) => talk::text(text),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(said(b"", b"x\r\n* BYE"), r"a OK Logged in.\r\n");
    assert_eq!(said(b"* OK x\0\r\nb OK y\r\n* OK unfinished", b""), r"a OK Logged in.\r\n");
    assert_eq!(
        said(b"", b"[CAPABILITY CLIENTID IMAP4rev1 UNAUTHENTICATE] hi"),
        r"a OK [CAPABILITY IMAP4rev1] hi\r\n"
    );
    let long = said(&b"* OK 0123456789\r\n".repeat(500), &[b'x'; 5000]);
    assert!(long.len() < 5000 && long.ends_with("xxx\\r\\n"), "{long}");
}

#[test]
fn memory() {
    assert!(size_of::<Session>() <= 20 * 1024, "{}", size_of::<Session>());
    println!("imap::Session {} octets, imap::Client {}", size_of::<Session>(), size_of::<imap::Client>());
}
