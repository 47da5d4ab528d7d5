//! The server's side, octet for octet: RFC examples and the CLIENTID vectors of the reference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests fail by panicking

use mail::clientid::ClientId;
use mail::sasl::Mechanism;
use mail::session::{Action, Answer, Closed, Note, Session as _, Transport};
use proptest::prelude::*;
use smtp::{Offer, Session};

const BACKEND: &[u8] =
    b"PIPELINING\r\nSIZE 10240000\r\nSTARTTLS\r\nAUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER\r\n8BITMIME";

fn offer() -> Offer {
    Offer::from_backend(BACKEND, "mx.example.net", true, None)
}

/// What a session said and asked, in the driver's view.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a test's log")]
enum Event {
    Sent(String),
    Note(Note),
    StartTls,
    Login {
        mechanism: Mechanism,
        user: Vec<u8>,
        authzid: Option<Vec<u8>>,
        secret: Vec<u8>,
        clientid: Option<ClientId>,
        ehlo: String,
    },
    Relay(Vec<u8>),
    Close(Closed),
}

/// Which answers the driver has ready, and what it saw.
struct Driver {
    session: Session,
    offer: Offer,
    /// True: admit; false: fail. Used in order, then failures.
    answers: Vec<bool>,
    events: Vec<Event>,
}

impl Driver {
    fn new(transport: Transport) -> Self {
        let mut driver = Self {
            session: Session::new(transport),
            offer: offer(),
            answers: Vec::new(),
            events: Vec::new(),
        };
        driver.drain();
        driver
    }

    /// Under TLS, greeted, EHLO done, and nothing of it in the events.
    fn ready() -> Self {
        let mut driver = Self::new(Transport::Tls);
        driver.push(b"EHLO laptop\r\n");
        driver.events.clear();
        driver
    }

    fn drain(&mut self) {
        loop {
            let mut login = false;
            let event = match self.session.next(&self.offer) {
                None => return,
                Some(Action::Send(octets)) => Event::Sent(String::from_utf8(octets.to_vec()).unwrap()),
                Some(Action::Note(note)) => Event::Note(note),
                Some(Action::StartTls) => Event::StartTls,
                Some(Action::Close(why)) => Event::Close(why),
                Some(Action::Relay) => Event::Relay(Vec::new()),
                Some(Action::Login(asked)) => {
                    login = true;
                    Event::Login {
                        mechanism: asked.mechanism,
                        user: asked.user.to_vec(),
                        authzid: asked.authzid.map(<[u8]>::to_vec),
                        secret: asked.secret.to_vec(),
                        clientid: asked.clientid.cloned(),
                        ehlo: asked.label.ehlo.as_str().to_owned(),
                    }
                }
            };
            self.events.push(event);
            match self.events.last_mut() {
                Some(Event::Relay(rest)) => *rest = self.session.rest().to_vec(),
                Some(Event::StartTls) => return,
                _ => {}
            }
            if login {
                assert!(self.session.next(&self.offer).is_none(), "nothing happens while a login is decided");
                let admit = if self.answers.is_empty() { false } else { self.answers.remove(0) };
                let answer =
                    if admit { Answer::Admitted { untagged: b"", text: b"" } } else { Answer::Failed };
                self.session.answer(answer);
            }
        }
    }

    fn push(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            if let Some(Event::Relay(left)) = self.events.last_mut() {
                left.extend_from_slice(rest);
                return;
            }
            let taken = self.session.push(rest);
            rest = &rest[taken..];
            let before = self.events.len();
            self.drain();
            assert!(taken > 0 || before < self.events.len(), "stuck");
        }
    }

    /// All that was sent for `line`.
    fn say(&mut self, line: &str) -> String {
        self.events.clear();
        self.push(line.as_bytes());
        self.push(b"\r\n");
        self.events
            .iter()
            .filter_map(|event| if let Event::Sent(text) = event { Some(text.as_str()) } else { None })
            .collect()
    }

    fn closed(&self) -> Option<Closed> {
        self.events.iter().find_map(|event| if let Event::Close(why) = event { Some(*why) } else { None })
    }

    fn token(&self) -> Option<(String, Vec<u8>)> {
        self.events.iter().find_map(|event| match event {
            Event::Login { clientid, .. } => {
                clientid.as_ref().map(|id| (id.kind.as_str().to_owned(), id.token.expose().to_vec()))
            }
            _ => None,
        })
    }
}

const PLAIN: &str = "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm";
const FAILED: &str = "535 5.7.8 Authentication credentials invalid\r\n";

#[test]
fn greeting_and_ehlo() {
    let mut driver = Driver::new(Transport::Tls);
    assert_eq!(driver.events, [Event::Sent("220 mx.example.net ESMTP\r\n".into())]);
    assert_eq!(
        driver.say("EHLO laptop"),
        "250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-8BITMIME\r\n\
         250-AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER\r\n250 CLIENTID\r\n"
    );
    assert!(driver.say("EHLO again").contains("\r\n250 CLIENTID\r\n"), "in every EHLO reply");
    assert_eq!(driver.say("HELO old"), "250 mx.example.net\r\n");
    let mut clear = Driver::new(Transport::Clear);
    let reply = clear.say("EHLO laptop");
    assert!(
        reply.ends_with("250 STARTTLS\r\n") && !reply.contains("AUTH") && !reply.contains("CLIENTID"),
        "{reply}"
    );
}

/// RFC 4954 §4.1, the example with an initial response; §6 for the codes.
#[test]
fn auth_plain_of_rfc_4954() {
    let mut driver = Driver::ready();
    driver.answers = vec![true];
    driver.push(b"AUTH PLAIN dGVzdAB0ZXN0ADEyMzQ=\r\n");
    assert_eq!(
        driver.events,
        [
            Event::Login {
                mechanism: Mechanism::Plain,
                user: b"test".to_vec(),
                authzid: None,
                secret: b"1234".to_vec(),
                clientid: None,
                ehlo: "laptop".into(),
            },
            Event::Sent("235 2.7.0 Authentication successful\r\n".into()),
            Event::Relay(Vec::new()),
        ]
    );
}

/// RFC 4954 §4.1, the example without an initial response.
#[test]
fn auth_plain_with_challenge() {
    let mut driver = Driver::ready();
    assert_eq!(driver.say("AUTH PLAIN"), "334 \r\n");
    assert_eq!(driver.say("dGVzdAB0ZXN0ADEyMzQ="), FAILED);
    assert_eq!(driver.say("AUTH LOGIN"), "334 VXNlcm5hbWU6\r\n");
    assert_eq!(driver.say("dGVzdA=="), "334 UGFzc3dvcmQ6\r\n");
    assert_eq!(driver.say("MTIzNA=="), FAILED);
    assert!(matches!(&driver.events[0], Event::Login { mechanism: Mechanism::Login, user, secret, .. }
        if user == b"test" && secret == b"1234"));
    assert_eq!(driver.say("AUTH LOGIN dGVzdA=="), "334 UGFzc3dvcmQ6\r\n");
    assert_eq!(driver.say("*"), "501 5.7.0 Authentication cancelled\r\n");
}

#[test]
fn oauth_goes_as_is() {
    let mut driver = Driver::ready();
    // "user=a@b.net^Aauth=Bearer tok^A^A"
    assert_eq!(driver.say("AUTH XOAUTH2 dXNlcj1hQGIubmV0AWF1dGg9QmVhcmVyIHRvawEB"), FAILED);
    assert!(matches!(&driver.events[0], Event::Login { mechanism: Mechanism::XOAuth2, user, secret, .. }
        if user == b"a@b.net" && secret == b"user=a@b.net\x01auth=Bearer tok\x01\x01"));
    // "n,a=a@b.net,^Aauth=Bearer tok^A^A"
    assert_eq!(driver.say("AUTH OAUTHBEARER bixhPWFAYi5uZXQsAWF1dGg9QmVhcmVyIHRvawEB"), FAILED);
    assert!(
        matches!(&driver.events[0], Event::Login { mechanism: Mechanism::OAuthBearer, user, .. } if user == b"a@b.net")
    );
}

#[test]
fn auth_errors() {
    for (line, reply) in [
        ("AUTH CRAM-MD5", "504 5.5.4 Unrecognized authentication type\r\n"),
        ("AUTH", "504 5.5.4 Unrecognized authentication type\r\n"),
        ("AUTH PLAIN not*base64", "501 5.5.2 Cannot decode response\r\n"),
        ("AUTH PLAIN *", "501 5.7.0 Authentication cancelled\r\n"),
        ("AUTH PLAIN =", "501 5.5.2 Malformed authentication response\r\n"),
        ("AUTH PLAIN dGVzdA==", "501 5.5.2 Malformed authentication response\r\n"),
    ] {
        assert_eq!(Driver::ready().say(line), reply, "{line}");
    }
    let mut fresh = Driver::new(Transport::Tls);
    assert_eq!(fresh.say(PLAIN), "503 5.5.1 Send EHLO first\r\n");
    // RFC 4954 §4: lines of 12288 octets are taken, longer ones are 500 5.5.6.
    let mut driver = Driver::ready();
    assert_eq!(
        driver.say(&format!("AUTH PLAIN {}", "A".repeat(12_276))),
        "501 5.5.2 Malformed authentication response\r\n"
    );
    let long = "A".repeat(13_000);
    assert_eq!(
        driver.say(&format!("AUTH PLAIN {long}")),
        "500 5.5.6 Authentication exchange line is too long\r\n"
    );
    assert_eq!(driver.say("AUTH PLAIN"), "334 \r\n");
    assert_eq!(driver.say(&long), "500 5.5.6 Authentication exchange line is too long\r\n");
    assert_eq!(driver.say("NOOP"), "250 2.0.0 OK\r\n");
    assert_eq!(driver.say(&long), "500 5.5.2 Line too long\r\n");
}

#[test]
fn in_clear_nothing_is_looked_at() {
    for line in [PLAIN, "AUTH PLAIN !", "AUTH NOSUCH", "AUTH"] {
        let mut driver = Driver::new(Transport::Clear);
        driver.say("EHLO laptop");
        assert_eq!(driver.say(line), "538 5.7.11 Encryption required\r\n", "{line}");
        assert_eq!(driver.events[0], Event::Note(Note::LoginInClear));
    }
    let mut driver = Driver::new(Transport::Clear);
    let clientid = driver.say("CLIENTID UUID 23bf83be-aad7-46aa-9e0f-39191ccf402f");
    assert_eq!(driver.events[0], Event::Note(Note::ClientIdInClear));
    assert_eq!(clientid, driver.say("FOOBARID UUID x"), "the same octets as for any unknown verb");
    assert_eq!(clientid, "500 5.5.1 Command unrecognized\r\n");
    let long = "x".repeat(600);
    assert_eq!(driver.say(&format!("CLIENTID UUID {long}")), driver.say(&format!("FOOBARID UUID {long}")));
    assert_eq!(driver.say("MAIL FROM:<a@b.net>"), "530 5.7.0 Must issue a STARTTLS command first\r\n");
}

/// RFC 3207 §5's example, and §4.2: what was learnt in clear is forgotten.
#[test]
fn starttls_forgets() {
    let mut driver = Driver::new(Transport::Clear);
    driver.say("EHLO spy");
    assert_eq!(driver.say("STARTTLS now"), "501 5.5.4 No argument expected\r\n");
    driver.events.clear();
    driver.push(b"STARTTLS\r\n");
    assert_eq!(driver.events, [Event::Sent("220 2.0.0 Ready to start TLS\r\n".into()), Event::StartTls]);
    driver.session.tls_established();
    assert_eq!(driver.say(PLAIN), "503 5.5.1 Send EHLO first\r\n");
    assert_eq!(driver.say("STARTTLS"), "503 5.5.1 TLS is already active\r\n");
    driver.say("EHLO laptop");
    assert_eq!(driver.say(PLAIN), FAILED);
    assert!(matches!(&driver.events[0], Event::Login { ehlo, .. } if ehlo == "laptop"));
}

#[test]
fn octets_behind_starttls_are_an_injection() {
    // Together with it, in the buffer.
    let mut driver = Driver::new(Transport::Clear);
    driver.events.clear();
    driver.push(b"STARTTLS\r\nEHLO evil\r\n");
    assert_eq!(driver.events, [Event::Close(Closed::Injection)]);
    // Between the reply and the handshake.
    let mut driver = Driver::new(Transport::Clear);
    driver.push(b"STARTTLS\r\n");
    driver.push(b"X");
    assert_eq!(driver.closed(), Some(Closed::Injection));
    driver.session.tls_established();
    assert!(driver.session.next(&driver.offer).is_none(), "it stays closed");
    // Beyond what the buffer holds: the machine saw that not all was taken.
    let mut session = Session::new(Transport::Clear);
    let offer = offer();
    let flood = [&b"NOOP\r\n".repeat(2056)[..], b"STARTTLS\r\n"].concat();
    let flood = [&flood[..], &b"EHLO evil\r\n".repeat(2000)].concat();
    let taken = session.push(&flood);
    assert!(
        taken < flood.len() && taken > 2056 * 6 + 10,
        "the case is that STARTTLS is inside and more is outside"
    );
    let mut last = String::new();
    while let Some(action) = session.next(&offer) {
        last = format!("{action:?}");
        assert!(!matches!(action, Action::StartTls));
    }
    assert_eq!(last, "Close(Injection)");
}

/// clientid.md §6.2, the whole SMTP column.
#[test]
fn clientid_vectors() {
    let ok = "250 2.0.0 OK\r\n";
    let syntax = "501 5.5.4 Syntax: CLIENTID type token\r\n";
    let uuid = "23bf83be-aad7-46aa-9e0f-39191ccf402f";
    let tilde = "~".repeat(128);
    for (line, kind, token) in [
        (format!("CLIENTID UUID {uuid}"), "UUID", uuid),
        (format!("clientid uuid {}", uuid.to_uppercase()), "UUID", uuid),
        ("CLIENTID TB-UUID x".into(), "TB-UUID", "x"),
        ("CLIENTID MAC 08:9e:01:70:f6:46".into(), "MAC", "08:9e:01:70:f6:46"),
        ("CLIENTID MAC \"08:9e:01:70:f6:46\"".into(), "MAC", "\"08:9e:01:70:f6:46\""),
        ("CLIENTID DEVICE_ID abc".into(), "DEVICE-ID", "abc"),
        (format!("CLIENTID X {tilde}"), "X", &tilde),
        (format!("CLIENTID UUID {uuid} "), "UUID", uuid),
        (format!("CLIENTID UUID {{{uuid}}}"), "UUID", uuid),
    ] {
        let mut driver = Driver::ready();
        assert_eq!(driver.say(&line), ok, "{line}");
        assert_eq!(driver.events.contains(&Event::Note(Note::ClientIdUnderscore)), line.contains('_'));
        driver.say(PLAIN);
        assert_eq!(driver.token(), Some((kind.into(), token.as_bytes().to_vec())), "{line}");
    }
    for line in [
        "CLIENTID UUID".to_owned(),
        "CLIENTID".into(),
        "CLIENTID ".into(),
        "CLIENTID A B C".into(),
        "CLIENTID UUID x  ".into(),
        format!("CLIENTID {} x", "T".repeat(17)),
        format!("CLIENTID UUID {}", "x".repeat(129)),
        format!("CLIENTID UUID {}", "x".repeat(600)),
        "CLIENTID UUID \u{e9}".into(),
        "CLIENTID UUID a\tb".into(),
    ] {
        let mut driver = Driver::ready();
        assert_eq!(driver.say(&line), syntax, "{line}");
        assert_eq!(driver.say("CLIENTID UUID x"), ok, "another try is allowed");
    }
    let again = "503 5.5.1 Bad sequence of commands\r\n";
    let mut driver = Driver::ready();
    driver.say("CLIENTID UUID x");
    assert_eq!(driver.say("CLIENTID UUID x"), again);
    let mut driver = Driver::ready();
    assert_eq!(driver.say(PLAIN), FAILED);
    assert_eq!(driver.say("CLIENTID UUID x"), again, "after a failed AUTH");
    let mut driver = Driver::ready();
    driver.say("AUTH NOSUCH");
    assert_eq!(driver.say("CLIENTID UUID x"), again, "after any AUTH");
}

#[test]
fn clientid_needs_ehlo_and_outlives_rset() {
    let mut driver = Driver::new(Transport::Tls);
    assert_eq!(driver.say("CLIENTID UUID x"), "503 5.5.1 Send EHLO first\r\n");
    driver.say("HELO old");
    assert_eq!(driver.say("CLIENTID UUID x"), "503 5.5.1 Send EHLO first\r\n");
    driver.say("EHLO laptop");
    assert_eq!(driver.say("CLIENTID UUID x"), "250 2.0.0 OK\r\n");
    for line in ["RSET", "NOOP", "EHLO laptop", "RSET"] {
        driver.say(line);
    }
    driver.say(PLAIN);
    assert_eq!(driver.token(), Some(("UUID".into(), b"x".to_vec())), "Q8");
}

#[test]
fn the_third_malformed_clientid_ends_it() {
    let mut driver = Driver::ready();
    driver.say("CLIENTID");
    driver.say("CLIENTID");
    assert_eq!(driver.closed(), None);
    assert_eq!(
        driver.say("CLIENTID"),
        "501 5.5.4 Syntax: CLIENTID type token\r\n421 4.7.0 Too many errors\r\n"
    );
    assert_eq!(driver.closed(), Some(Closed::TooManyErrors));
}

#[test]
fn clientid_is_discarded_by_starttls() {
    let mut driver = Driver::new(Transport::Clear);
    driver.say("EHLO laptop");
    driver.say("CLIENTID UUID x");
    driver.push(b"STARTTLS\r\n");
    driver.session.tls_established();
    driver.say("EHLO laptop");
    assert_eq!(driver.say("CLIENTID UUID y"), "250 2.0.0 OK\r\n");
    driver.say(PLAIN);
    assert_eq!(driver.token(), Some(("UUID".into(), b"y".to_vec())));
}

#[test]
fn other_commands_before_login() {
    let mut driver = Driver::ready();
    for (line, code) in [
        ("MAIL FROM:<a@b.net>", "530 5.7.0 "),
        ("RCPT TO:<a@b.net>", "530 5.7.0 "),
        ("DATA", "530 5.7.0 "),
        ("NOOP", "250 2.0.0 "),
        ("RSET", "250 2.0.0 "),
        ("VRFY alice", "252 2.0.0 "),
        ("HELP", "214 2.0.0 "),
        ("EXPN staff", "502 5.5.1 "),
        ("EHLO", "501 5.5.4 "),
        ("XCLIENT ADDR=192.0.2.1", "500 5.5.1 "),
        ("ETRN example.net", "500 5.5.1 "),
        ("\u{1}", "500 5.5.2 "),
        ("QUIT", "221 2.0.0 "),
    ] {
        assert!(driver.say(line).starts_with(code), "{line}");
    }
    assert_eq!(driver.closed(), Some(Closed::ByClient));
}

#[test]
fn refused_chunks_are_not_commands() {
    let mut driver = Driver::ready();
    driver.push(b"BDAT 19 LAST\r\nAUTH NO\r\nMAIL FROM");
    assert_eq!(driver.say("NOOP").lines().count(), 1);
    let mut driver = Driver::ready();
    driver.push(b"BDAT x\r\nNOOP\r\n");
    assert_eq!(driver.closed(), Some(Closed::TooManyErrors), "nobody knows where its octets end");
}

#[test]
fn ten_bad_commands_end_it() {
    let mut driver = Driver::ready();
    for _ in 0..9 {
        assert_eq!(driver.say("FOO"), "500 5.5.1 Command unrecognized\r\n");
    }
    assert_eq!(driver.say("FOO"), "500 5.5.1 Command unrecognized\r\n421 4.7.0 Too many errors\r\n");
    assert_eq!(driver.closed(), Some(Closed::TooManyErrors));
}

#[test]
fn only_crlf_ends_a_line() {
    for line in [&b"NOOP\n"[..], b"NOOP\rQUIT\r\n", b"NOOP\n\r\n", b"\nNOOP\r\n"] {
        let mut driver = Driver::ready();
        driver.push(line);
        assert_eq!(
            driver.events,
            [Event::Sent("500 5.5.2 Lines end with CR LF\r\n".into()), Event::Close(Closed::BareLineEnd)]
        );
    }
    let mut driver = Driver::ready();
    driver.push(b"AUTH PLAIN\r\nAHRpbQB0\rYW5z\r\n");
    assert_eq!(driver.closed(), Some(Closed::BareLineEnd));
    let mut driver = Driver::ready();
    driver.push(&b"x".repeat(70_000));
    assert_eq!(driver.closed(), Some(Closed::TooLong));
}

#[test]
fn pipelined_octets_belong_to_the_relay() {
    let mut driver = Driver::ready();
    driver.answers = vec![false, true];
    driver.push(format!("NOOP\r\n{PLAIN}\r\n{PLAIN}\r\nMAIL FROM:<a@b.net>\r\nRCPT TO").as_bytes());
    assert_eq!(driver.events.last(), Some(&Event::Relay(b"MAIL FROM:<a@b.net>\r\nRCPT TO".to_vec())));
    let sent: Vec<_> = driver.events.iter().filter(|event| matches!(event, Event::Sent(_))).collect();
    assert_eq!(sent.len(), 3, "NOOP, the failure, the success");
}

#[test]
fn answers_are_constant_lines() {
    for (answer, lines) in [
        (Answer::Failed, FAILED.to_owned()),
        (Answer::FailedLast, format!("{FAILED}421 4.7.0 Too many errors\r\n")),
        (Answer::Unavailable, "454 4.7.0 Temporary authentication failure\r\n".into()),
        (Answer::Admitted { untagged: b"", text: b"2.7.0 Welcome" }, "235 2.7.0 Welcome\r\n".into()),
        (
            Answer::Admitted { untagged: b"", text: b"a\r\n250 b" },
            "235 2.7.0 Authentication successful\r\n".into(),
        ),
    ] {
        let (mut session, offer) = (Session::new(Transport::Tls), offer());
        let input = format!("EHLO x\r\n{PLAIN}\r\n");
        assert_eq!(session.push(input.as_bytes()), input.len());
        while !matches!(session.next(&offer), Some(Action::Login(_))) {}
        session.answer(answer);
        let Some(Action::Send(sent)) = session.next(&offer) else { panic!("no reply") };
        assert_eq!(String::from_utf8_lossy(sent), lines);
    }
}

#[test]
fn it_has_its_size() {
    assert!(size_of::<Session>() <= 20 * 1024, "{}", size_of::<Session>());
}

fn script() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("EHLO laptop\r\n".to_owned()),
        Just("HELO laptop\r\n".to_owned()),
        Just("NOOP\r\n".to_owned()),
        Just(format!("{PLAIN}\r\n")),
        Just("AUTH LOGIN\r\ndGVzdA==\r\nMTIzNA==\r\n".to_owned()),
        Just("AUTH PLAIN\r\n*\r\n".to_owned()),
        Just("CLIENTID UUID x\r\n".to_owned()),
        Just("CLIENTID\r\n".to_owned()),
        Just("BDAT 3\r\nabc".to_owned()),
        Just("QUIT\r\n".to_owned()),
        Just(format!("FOO {}\r\n", "x".repeat(600))),
        Just(format!("AUTH PLAIN {}\r\n", "A".repeat(13_000))),
        "[ -~]{0,20}\r\n",
        "[A-Z\r\n ]{0,6}",
    ];
    proptest::collection::vec(line, 0..12).prop_map(|lines| lines.concat().into_bytes())
}

proptest! {
    /// However the input is split, the same octets give the same actions.
    #[test]
    fn splits_do_not_matter(input in script(), cuts in proptest::collection::vec(1..200usize, 1..30)) {
        let mut whole = Driver::new(Transport::Tls);
        whole.answers = vec![false, true];
        whole.push(&input);
        let mut parts = Driver::new(Transport::Tls);
        parts.answers = vec![false, true];
        let mut rest = &input[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            parts.push(head);
            rest = tail;
        }
        prop_assert_eq!(whole.events, parts.events);
    }

    #[test]
    fn never_panics(input in proptest::collection::vec(any::<u8>(), 0..400), tls in any::<bool>()) {
        Driver::new(if tls { Transport::Tls } else { Transport::Clear }).push(&input);
    }
}
