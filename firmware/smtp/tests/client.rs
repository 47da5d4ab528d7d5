//! Our side towards the backend, against scripted servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests fail by panicking

use mail::sasl::Mechanism;
use mail::session::{Backend as _, Job, Outcome, Peer, Step, Task};
use proptest::prelude::*;
use smtp::Client;

/// What happened, in order; the last is the outcome.
fn run(job: &Job<'_>, script: &[(&str, &str)], cut: usize) -> (Client, Vec<String>) {
    let (mut client, mut log) = (Client::new(), Vec::new());
    let mut script = script.iter();
    let mut wire: Vec<u8> = script.next().map(|(_, reply)| reply.as_bytes().to_vec()).unwrap_or_default();
    let mut sent = Vec::new();
    loop {
        match client.next(job) {
            Some(Step::Send(octets)) => sent.extend_from_slice(octets),
            Some(Step::StartTls) => {
                log.push("(TLS)".into());
                if !wire.is_empty() {
                    let _ = client.push(&wire);
                    wire.clear();
                    continue;
                }
                client.tls_established();
            }
            Some(Step::Done(outcome)) => {
                if !sent.is_empty() {
                    log.push(String::from_utf8_lossy(&sent).into_owned());
                }
                log.push(match outcome {
                    Outcome::Capabilities(lines) => {
                        format!("capabilities {}", String::from_utf8_lossy(lines))
                    }
                    Outcome::Accepted { text, .. } => format!("accepted {}", String::from_utf8_lossy(text)),
                    other => format!("{other:?}"),
                });
                return (client, log);
            }
            None => {
                if wire.is_empty() {
                    let line = String::from_utf8_lossy(&sent).into_owned();
                    sent.clear();
                    if !line.is_empty() {
                        log.push(line.clone());
                    }
                    let Some((expected, reply)) = script.next() else {
                        log.push("waits".into());
                        return (client, log);
                    };
                    assert!(line.starts_with(expected), "{line:?} where {expected:?} was due");
                    wire.extend_from_slice(reply.as_bytes());
                }
                let taken = client.push(&wire[..cut.min(wire.len())]);
                wire.drain(..taken);
            }
        }
    }
}

fn login(mechanism: Mechanism) -> Task<'static> {
    Task::Login { mechanism, user: b"tim", secret: b"tanstaaftanstaaf" }
}

fn job(task: Task<'static>) -> Job<'static> {
    Job { task, starttls: false, peer: None, hostname: "edge.example.net" }
}

const PLAIN: &str = "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n";

#[test]
fn logs_in_with_plain() {
    let script = [
        ("", "220-mx.example.net\r\n220 ESMTP\r\n"),
        ("EHLO edge.example.net\r\n", "250-mx\r\n250 AUTH PLAIN LOGIN\r\n"),
        (PLAIN, "235 2.7.0 Authentication successful\r\n"),
    ];
    let (client, log) = run(&job(login(Mechanism::Login)), &script, 99);
    assert_eq!(log.last().unwrap(), "accepted Authentication successful");
    assert_eq!(client.believed(), None);
    assert!(client.rest().is_empty());
}

#[test]
fn logs_in_with_login_where_that_is_all() {
    let script = [
        ("", "220 x\r\n"),
        ("EHLO", "250-mx\r\n250 AUTH LOGIN\r\n"),
        ("AUTH LOGIN\r\n", "334 VXNlcm5hbWU6\r\n"),
        ("dGlt\r\n", "334 UGFzc3dvcmQ6\r\n"),
        ("dGFuc3RhYWZ0YW5zdGFhZg==\r\n", "235 ok\r\n"),
    ];
    assert_eq!(run(&job(login(Mechanism::Plain)), &script, 99).1.last().unwrap(), "accepted ok");
}

/// RFC 4954 §4: a response that does not fit the command waits for the challenge. It goes out in pieces that join.
#[test]
fn long_credentials_wait_for_the_challenge() {
    let secret = vec![b'x'; 2000];
    let job = Job {
        task: Task::Login { mechanism: Mechanism::Plain, user: b"tim", secret: &secret },
        starttls: false,
        peer: None,
        hostname: "edge",
    };
    let script = [
        ("", "220 x\r\n"),
        ("EHLO", "250-mx\r\n250 AUTH PLAIN\r\n"),
        ("AUTH PLAIN\r\n", "334 \r\n"),
        ("AHRpbQB4", "235 ok\r\n"),
    ];
    let (_, log) = run(&job, &script, 99);
    let line = log[2].strip_suffix("\r\n").unwrap();
    assert_eq!(line.len(), (5 + 2000_usize).div_ceil(3) * 4);
    let mut line = line.as_bytes().to_vec();
    let expected = [&b"\0tim\0"[..], &secret].concat();
    assert_eq!(mail::sasl::decode(&mut line).unwrap(), &expected[..]);
}

#[test]
fn oauth_errors_are_acknowledged() {
    for (mechanism, answer) in [(Mechanism::XOAuth2, "\r\n"), (Mechanism::OAuthBearer, "AQ==\r\n")] {
        let greeting = format!("250-mx\r\n250 AUTH {}\r\n", mechanism.name());
        let script = [
            ("", "220 x\r\n"),
            ("EHLO", greeting.as_str()),
            ("AUTH ", "334 eyJzdGF0dXMiOiI0MDEifQ==\r\n"),
            (answer, "535 5.7.8 no\r\n"),
        ];
        let (_, log) = run(&job(login(mechanism)), &script, 99);
        assert_eq!(log[2..], [answer.to_owned(), "Rejected".into()]);
    }
}

#[test]
fn failures_are_told_apart() {
    for (reply, outcome) in [
        ("535 5.7.8 bad password\r\n", "Rejected"),
        ("554 5.7.0 no\r\n", "Rejected"),
        ("454 4.7.0 later\r\n", "Away(\"AUTH\")"),
        ("432 4.7.12 change it\r\n", "Away(\"AUTH\")"),
        ("421 4.3.2 bye\r\n", "Away(\"AUTH\")"),
        ("530 5.7.0 Must issue a STARTTLS command first\r\n", "Away(\"AUTH\")"),
        ("250 what\r\n", "Violation(\"unexpected reply to AUTH\")"),
        ("235-a\r\n250 b\r\n", "Violation(\"codes of one reply differ\")"),
        ("235 ok\n", "Violation(\"bare CR or LF in a reply\")"),
        ("what?\r\n", "Violation(\"malformed reply\")"),
    ] {
        let script = [("", "220 x\r\n"), ("EHLO", "250-mx\r\n250 AUTH PLAIN\r\n"), (PLAIN, reply)];
        assert_eq!(run(&job(login(Mechanism::Plain)), &script, 99).1.last().unwrap(), outcome, "{reply:?}");
    }
    for (greeting, ehlo, outcome) in [
        ("421 busy\r\n", "", "Away(\"greeting\")"),
        ("554 go away\r\n", "", "Away(\"greeting\")"),
        ("220 x\r\n", "502 what\r\n", "Away(\"EHLO\")"),
        ("220 x\r\n", "250 mx\r\n", "Away(\"mechanism\")"),
        ("220 x\r\n", "250 AUTH PLAIN\r\n", "Away(\"mechanism\")"),
    ] {
        let script = [("", greeting), ("EHLO", ehlo)];
        assert_eq!(
            run(&job(login(Mechanism::Plain)), &script, 99).1.last().unwrap(),
            outcome,
            "{greeting}{ehlo}"
        );
    }
    let endless = format!("220 {}", "x".repeat(3000));
    let script = [("", endless.as_str())];
    assert!(run(&job(Task::Probe), &script, 99).1.last().unwrap().contains("too long"));
    let lines = "250-x\r\n".repeat(200);
    let script = [("", "220 x\r\n"), ("EHLO", lines.as_str())];
    assert!(run(&job(Task::Probe), &script, 99).1.last().unwrap().contains("too many lines"));
}

#[test]
fn probes_behind_starttls() {
    let job = Job { starttls: true, ..job(Task::Probe) };
    let script = [
        ("", "220 x\r\n"),
        ("EHLO", "250-mx\r\n250-AUTH LYING\r\n250 STARTTLS\r\n"),
        ("STARTTLS\r\n", "220 go\r\n"),
        ("EHLO edge.example.net\r\n", "250-mx\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n"),
    ];
    let (_, log) = run(&job, &script, 99);
    assert_eq!(log[3..], ["EHLO edge.example.net\r\n", "QUIT\r\n", "capabilities AUTH PLAIN\r\n8BITMIME"]);
    // Not there though asked for; octets behind the go-ahead; refused for now.
    let plain = [("", "220 x\r\n"), ("EHLO", "250 mx\r\n")];
    assert_eq!(run(&job, &plain, 99).1.last().unwrap(), "Violation(\"STARTTLS not offered\")");
    let injected =
        [("", "220 x\r\n"), ("EHLO", "250-mx\r\n250 STARTTLS\r\n"), ("STARTTLS", "220 go\r\n250 evil\r\n")];
    for cut in [99, 8, 1] {
        assert_eq!(
            run(&job, &injected, cut).1.last().unwrap(),
            "Violation(\"octets behind STARTTLS\")",
            "{cut}"
        );
    }
    let busy = [("", "220 x\r\n"), ("EHLO", "250-mx\r\n250 STARTTLS\r\n"), ("STARTTLS", "454 busy\r\n")];
    assert_eq!(run(&job, &busy, 99).1.last().unwrap(), "Away(\"STARTTLS\")");
}

const XCLIENT: &str = "250-mx\r\n250-AUTH PLAIN\r\n\
    250 XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT\r\n";

fn peer(helo: &str) -> Peer<'_> {
    Peer {
        client: "[2001:db8::7]:50123".parse().unwrap(),
        local: "192.0.2.10:465".parse().unwrap(),
        session: "abc",
        tls: true,
        sni: None,
        device: None,
        helo,
    }
}

/// clientid.md §5.4.
#[test]
fn introduces_the_client_to_postfix() {
    let peer = peer("laptop");
    let job = Job { peer: Some(&peer), ..job(login(Mechanism::Plain)) };
    let told = "XCLIENT NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] PORT=50123 DESTADDR=192.0.2.10 DESTPORT=465 \
        PROTO=ESMTP HELO=laptop ADDR=IPV6:2001:db8::7\r\n";
    let script = [
        ("", "220 x\r\n"),
        ("EHLO edge.example.net\r\n", XCLIENT),
        (told, "220 x\r\n"),
        ("EHLO laptop\r\n", XCLIENT),
        (PLAIN, "235 ok\r\n"),
    ];
    let (client, log) = run(&job, &script, 99);
    assert_eq!((log.last().unwrap().as_str(), client.believed()), ("accepted ok", Some(true)));
    // Not trusted: it goes on, and says so.
    let script = [
        ("", "220 x\r\n"),
        ("EHLO", XCLIENT),
        ("XCLIENT", "550 5.7.0 Error: insufficient authorization\r\n"),
        (PLAIN, "235 ok\r\n"),
    ];
    let (client, log) = run(&job, &script, 99);
    assert_eq!((log.last().unwrap().as_str(), client.believed()), ("accepted ok", Some(false)));
    // Not offered.
    let script = [("", "220 x\r\n"), ("EHLO", "250-mx\r\n250 AUTH PLAIN\r\n"), (PLAIN, "235 ok\r\n")];
    assert_eq!(run(&job, &script, 99).0.believed(), Some(false));
}

#[test]
fn what_does_not_fit_goes_in_two_commands() {
    let (helo, sni) = ("h".repeat(250), "s".repeat(250));
    let peer = Peer { sni: Some(&sni), ..peer(&helo) };
    let job = Job { peer: Some(&peer), ..job(login(Mechanism::Plain)) };
    let offer = "250-mx\r\n250-AUTH PLAIN\r\n250 XCLIENT ADDR PROTO HELO PORT DESTNAME\r\n";
    let last = format!("EHLO {helo}\r\n");
    let script = [
        ("", "220 x\r\n"),
        ("EHLO edge", offer),
        ("XCLIENT PORT=50123 DESTNAME=sss", "220 x\r\n"),
        ("EHLO edge", offer),
        ("XCLIENT PROTO=ESMTP HELO=hhh", "220 x\r\n"),
        (last.as_str(), offer),
        (PLAIN, "235 ok\r\n"),
    ];
    let (client, log) = run(&job, &script, 99);
    assert_eq!((log.last().unwrap().as_str(), client.believed()), ("accepted ok", Some(true)));
    assert!(log.iter().all(|line| line.len() <= 512));
}

#[test]
fn a_strange_name_is_not_repeated() {
    let peer = peer("a b\r\nMAIL");
    let job = Job { peer: Some(&peer), ..job(login(Mechanism::Plain)) };
    let script = [
        ("", "220 x\r\n"),
        ("EHLO", XCLIENT),
        ("XCLIENT", "220 x\r\n"),
        ("EHLO edge.example.net\r\n", XCLIENT),
    ];
    let (_, log) = run(&job, &script, 99);
    assert!(log.iter().any(|line| line.contains("HELO=a+20b+0D+0AMAIL ")), "{log:?}");
}

#[test]
fn it_has_its_size() {
    assert!(size_of::<Client>() <= 6 * 1024, "{}", size_of::<Client>());
}

proptest! {
    #[test]
    fn splits_do_not_matter(cut in 1..40usize, reply in "(2[0-9]{2}[- ][a-z]{0,5}\r?\n){1,3}") {
        let peer = peer("laptop");
        let job = Job { starttls: true, peer: Some(&peer), ..job(login(Mechanism::Plain)) };
        let tls = [XCLIENT, "250 STARTTLS\r\n"].concat().replace("250 XCLIENT", "250-XCLIENT");
        let script = [
            ("", "220-mx\r\n220 x\r\n"), ("EHLO", &tls), ("STARTTLS", "220 go\r\n"), ("EHLO", XCLIENT),
            ("XCLIENT", "220 x\r\n"), ("EHLO", XCLIENT), (PLAIN, &reply),
        ];
        prop_assert_eq!(run(&job, &script, 1000).1, run(&job, &script, cut).1);
    }

    #[test]
    fn never_panics(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut client = Client::new();
        let job = job(login(Mechanism::Plain));
        let _ = client.push(b"220 x\r\n250 x\r\n");
        let _ = client.push(&octets);
        for _ in 0..50 {
            let _ = client.next(&job);
        }
    }
}
