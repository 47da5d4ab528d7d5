//! Runs a session or a client by a written dialogue, and by bytes in any split. The tests of `imap` and `pop3` include it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its part, and a test fails by panicking

use std::fmt::Write as _;

use mail::session::{Action, Answer, Backend, Job, Label, Login, Outcome, Session, Step};

pub fn text(octets: &[u8]) -> String {
    octets.escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

pub fn describe(login: &Login<'_>) -> String {
    let mut line = format!("{} {} {}", login.mechanism.name(), text(login.user), text(login.secret));
    if let Some(authzid) = login.authzid {
        let _ = write!(line, " as {}", text(authzid));
    }
    if let Some(id) = login.clientid {
        let _ = write!(line, " on {} {}", id.kind, text(id.token.expose()));
    }
    if *login.label != Label::default() {
        let label = login.label;
        let _ = write!(line, " with {}/{}/{}/{}", label.name, label.version, label.vendor, label.os);
    }
    line
}

/// The answer every test here gives: by the name.
pub fn answer(user: &[u8]) -> Answer<'static> {
    match user {
        b"ann" => Answer::Admitted {
            untagged: b"* OK hello\r\n* CAPABILITY IMAP4rev1 CLIENTID IDLE\r\n",
            text: b"[CAPABILITY IMAP4rev1 clientid MOVE] Logged in CLIENTID",
        },
        b"bob" => Answer::Admitted { untagged: b"", text: b"" },
        b"away" => Answer::Unavailable,
        b"last" => Answer::FailedLast,
        _ => Answer::Failed,
    }
}

/// Does all that waits.
pub fn drain<S: Session>(session: &mut S, offer: &S::Offer, seen: &mut Vec<String>, sent: &mut Vec<u8>) {
    while let Some(action) = session.next(offer) {
        if let Action::Send(octets) = action {
            assert!(octets.ends_with(b"\r\n"), "{}", text(octets));
            sent.extend_from_slice(octets);
            continue;
        }
        flush(seen, sent);
        match action {
            Action::Send(_) => {}
            Action::Note(note) => seen.push(format!("! note {note:?}")),
            Action::Close(closed) => seen.push(format!("! close {closed:?}")),
            Action::StartTls => seen.push("! tls".into()),
            Action::Relay => seen.push("! relay".into()),
            Action::Login(login) => {
                seen.push(format!("! login {}", describe(&login)));
                let user = login.user.to_vec();
                session.answer(answer(&user));
            }
        }
    }
}

pub fn flush(seen: &mut Vec<String>, sent: &mut Vec<u8>) {
    for line in sent.split_inclusive(|&octet| octet == b'\n') {
        seen.push(format!("S: {}", text(line.strip_suffix(b"\r\n").unwrap())).trim_end().into());
    }
    sent.clear();
}

/// Feeds `input` in pieces of the given sizes (the last one repeats) and tells everything that happened; adjacent
/// Sends are joined. TLS is granted at once, unless octets in clear are left: then it is the injection that
/// the session itself sees when they come in one piece.
pub fn run<S: Session>(mut session: S, offer: &S::Offer, input: &[u8], pieces: &[usize]) -> Vec<String> {
    let (mut seen, mut sent) = (Vec::new(), Vec::new());
    drain(&mut session, offer, &mut seen, &mut sent);
    let (mut left, mut pieces) = (input, pieces.iter().copied().chain(std::iter::repeat(7)));
    while !left.is_empty() && !over(&seen) {
        let size = pieces.next().unwrap().clamp(1, left.len());
        let mut piece = &left[..size];
        left = &left[size..];
        while !piece.is_empty() && !over(&seen) {
            let taken = session.push(piece);
            piece = &piece[taken..];
            let before = seen.len();
            drain(&mut session, offer, &mut seen, &mut sent);
            assert!(taken > 0 || seen.len() > before, "stuck");
            if seen.last().is_some_and(|last| last == "! tls") {
                if !left.is_empty() || !piece.is_empty() {
                    seen.truncate(seen.len() - 2);
                    seen.push("! close Injection".into());
                } else {
                    session.tls_established();
                }
            }
        }
        if seen.last().is_some_and(|last| last == "! relay") {
            let rest = [session.rest(), piece, left].concat();
            seen.push(format!("! rest {}", text(&rest)));
        }
    }
    if seen.last().is_some_and(|last| last == "! relay") {
        seen.push(format!("! rest {}", text(session.rest())));
    }
    flush(&mut seen, &mut sent);
    seen
}

fn over(seen: &[String]) -> bool {
    seen.last()
        .is_some_and(|last| last.starts_with("! close") || last.starts_with("! rest") || last == "! relay")
}

/// Plays the client's lines (`C: line`, or `c: octets` without CRLF; `\r`, `\n`, `\0`, `\xff` are escapes) of
/// `dialogue` and compares all that comes back with its other lines.
#[track_caller]
pub fn play<S: Session>(mut session: S, offer: &S::Offer, dialogue: &str) {
    let (mut seen, mut sent) = (Vec::new(), Vec::new());
    drain(&mut session, offer, &mut seen, &mut sent);
    flush(&mut seen, &mut sent);
    for line in dialogue.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let octets = match line.get(..3) {
            Some("C: ") => [unescape(&line[3..]), b"\r\n".to_vec()].concat(),
            Some("c: ") => unescape(&line[3..]),
            _ if line == "[TLS]" => {
                seen.push(line.into());
                session.tls_established();
                drain(&mut session, offer, &mut seen, &mut sent);
                flush(&mut seen, &mut sent);
                continue;
            }
            _ => continue,
        };
        seen.push(line.into());
        assert_eq!(session.push(&octets), octets.len());
        drain(&mut session, offer, &mut seen, &mut sent);
        flush(&mut seen, &mut sent);
    }
    let expected: Vec<&str> = dialogue.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(seen.join("\n"), expected.join("\n"));
}

/// Like [`play`] for our side: the backend's lines (`S:`, `s:`) are played, ours are compared. The backend's side of
/// TLS is `[TLS]`.
#[track_caller]
pub fn play_backend<B: Backend>(mut client: B, job: &Job<'_>, dialogue: &str) -> B {
    let mut seen = Vec::new();
    steps(&mut client, job, &mut seen);
    for line in dialogue.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let octets = match line.get(..3) {
            Some("S: ") => [unescape(&line[3..]), b"\r\n".to_vec()].concat(),
            Some("s: ") => unescape(&line[3..]),
            _ if line == "[TLS]" => {
                seen.push(line.into());
                client.tls_established();
                steps(&mut client, job, &mut seen);
                continue;
            }
            _ => continue,
        };
        seen.push(line.into());
        assert_eq!(client.push(&octets), octets.len());
        steps(&mut client, job, &mut seen);
    }
    let expected: Vec<&str> = dialogue.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(seen.join("\n"), expected.join("\n"));
    client
}

/// Does all that waits of our side.
pub fn steps(client: &mut impl Backend, job: &Job<'_>, seen: &mut Vec<String>) {
    loop {
        let line = match client.next(job) {
            None => return,
            Some(Step::Send(octets)) => {
                for line in octets.split_inclusive(|&octet| octet == b'\n') {
                    seen.push(match line.strip_suffix(b"\r\n") {
                        Some(line) => format!("C: {}", text(line)).trim_end().into(),
                        None => format!("c: {}", text(line)),
                    });
                }
                continue;
            }
            Some(Step::StartTls) => String::from("! tls"),
            Some(Step::Done(Outcome::Capabilities(list))) => format!("! capabilities {}", text(list)),
            Some(Step::Done(Outcome::Accepted { untagged, text: words })) => {
                format!("! accepted {} | {}", text(untagged), text(words))
            }
            Some(Step::Done(Outcome::Rejected)) => "! rejected".into(),
            Some(Step::Done(Outcome::Away(step))) => format!("! away {step}"),
            Some(Step::Done(Outcome::Violation(what))) => format!("! violation {what}"),
        };
        seen.push(line.trim_end().into());
    }
}

pub fn unescape(line: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            octets.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match characters.next() {
            Some('r') => octets.push(b'\r'),
            Some('n') => octets.push(b'\n'),
            Some('t') => octets.push(b'\t'),
            Some('0') => octets.push(0),
            Some('x') => {
                let digits: String = characters.by_ref().take(2).collect();
                octets.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            Some(other) => octets.push(other as u8),
            None => octets.push(b'\\'),
        }
    }
    octets
}
