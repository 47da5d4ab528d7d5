//! Promise: what a user sends arrives octet for octet, is acknowledged only when the ISP's server has it, and cannot carry
//! commands or other people's names.

#![allow(clippy::format_collect, reason = "the loop is harder to read")]

use std::time::Duration;

use anyhow::{Result, ensure};
use hil_tests::backends::{Account, Backends, Options};
use hil_tests::gateway::Gateway;
use hil_tests::session::{Protocol, Session};

const PATIENCE: Duration = Duration::from_secs(10);

fn enter(gateway: &Gateway, account: &Account) -> Result<Session> {
    let mut session = Session::open(gateway, Protocol::Submission)?;
    session.enter(&account.user, &account.password)?;
    Ok(session)
}

fn envelope(session: &mut Session, from: &Account, to: &Account) -> Result<()> {
    let reply = session.client.smtp(&format!("MAIL FROM:<{}>", from.user))?;
    ensure!(reply.starts_with("250 "), "{reply}");
    let reply = session.client.smtp(&format!("RCPT TO:<{}>", to.user))?;
    ensure!(reply.starts_with("250 "), "{reply}");
    Ok(())
}

#[test]
fn dots_and_octets_arrive_as_they_were_sent() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let (ada, ben) = (backends.ada(), backends.ben());
    let mut session = enter(&gateway, ada)?;
    // Stuffed on the wire (RFC 5321 §4.5.2); long enough to cross every buffer, split where it hurts.
    let body: String =
        (0..20_000).map(|line| format!("{}line {line}\n", [".", "..", "", ".\t"][line % 4])).collect();
    let wire: String = body
        .lines()
        .map(|line| format!("{}{line}\r\n", if line.starts_with('.') { "." } else { "" }))
        .collect();
    envelope(&mut session, ada, ben)?;
    ensure!(session.client.smtp("DATA")?.starts_with("354 "));
    let wire = format!("Subject: octets\r\n\r\n{wire}end of octets\r\n.\r\n");
    let (first, second) = wire.as_bytes().split_at(wire.len() - 3);
    for piece in first.chunks(7_919) {
        session.client.raw(piece)?;
    }
    std::thread::sleep(Duration::from_millis(50));
    session.client.raw(second)?;
    ensure!(session.client.smtp_reply()?.starts_with("250 "));
    let got = backends.wait_for_mail(ben, "end of octets", PATIENCE)?;
    ensure!(got.ends_with(&format!("\n\n{body}end of octets\n")), "the body changed");
    // The session goes on for a second message.
    envelope(&mut session, ada, ben)?;
    ensure!(session.client.smtp("DATA")?.starts_with("354 "));
    ensure!(session.client.smtp("Subject: second\r\n\r\nsecond message\r\n.")?.starts_with("250 "));
    backends.wait_for_mail(ben, "second message", PATIENCE)?;
    Ok(())
}

/// Pipelining (RFC 2920), up to DATA and past QUIT.
#[test]
fn pipelined_commands_are_answered_in_order() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let (ada, ben) = (backends.ada(), backends.ben());
    let mut session = enter(&gateway, ada)?;
    session
        .client
        .raw(format!("MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n", ada.user, ben.user).as_bytes())?;
    for code in ["250 ", "250 ", "354 "] {
        ensure!(session.client.smtp_reply()?.starts_with(code));
    }
    session.client.raw(b"Subject: piped\r\n\r\nthrough a pipe\r\n.\r\nNOOP\r\nQUIT\r\n")?;
    for code in ["250 ", "250 ", "221 "] {
        ensure!(session.client.smtp_reply()?.starts_with(code));
    }
    ensure!(session.client.is_closed_within(PATIENCE)?);
    backends.wait_for_mail(ben, "through a pipe", PATIENCE)?;
    Ok(())
}

/// CVE-2023-51764 and its family: only CRLF . CRLF ends a message; what others take for an end is refused whole.
#[test]
fn no_message_is_smuggled() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let (ada, ben) = (backends.ada(), backends.ben());
    for (number, end) in
        ["\n.\n", "\r\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r\r\n.\r\r\n"].iter().enumerate()
    {
        let mut session = enter(&gateway, ada)?;
        envelope(&mut session, ada, ben)?;
        ensure!(session.client.smtp("DATA")?.starts_with("354 "));
        let inner = format!(
            "MAIL FROM:<ceo@example.test>\r\nRCPT TO:<{}>\r\nDATA\r\nSubject: smuggled\r\n\r\nsmuggled {number}",
            ben.user
        );
        session
            .client
            .raw(format!("Subject: carrier\r\n\r\ncarrier {number}{end}{inner}\r\n.\r\n").as_bytes())?;
        let reply = session.client.smtp_reply()?;
        ensure!(reply.starts_with('5'), "{end:?} was answered {reply}");
    }
    // A message after them proves that the queue is empty of theirs.
    let mut session = enter(&gateway, ada)?;
    envelope(&mut session, ada, ben)?;
    ensure!(session.client.smtp("DATA")?.starts_with("354 "));
    ensure!(session.client.smtp("Subject: last\r\n\r\nthe last one\r\n.")?.starts_with("250 "));
    backends.wait_for_mail(ben, "the last one", PATIENCE)?;
    ensure!(backends.inbox(ben)?.len() == 1, "something was smuggled");
    Ok(())
}

#[test]
fn nobody_sends_in_anothers_name_or_without_a_login() -> Result<()> {
    let backends = Backends::start()?;
    let settings = "[accounts.\"ada@example.test\"]\nsenders = [\"office@example.test\"]";
    let gateway = Gateway::with(&backends, settings)?;
    let (ada, ben) = (backends.ada(), backends.ben());
    let mut stranger = Session::open(&gateway, Protocol::Submission)?;
    let reply = stranger.client.smtp(&format!("MAIL FROM:<{}>", ada.user))?;
    ensure!(reply.starts_with("530 "), "{reply}");

    let mut session = enter(&gateway, ada)?;
    for (path, taken) in [
        ("ben@example.test", false),
        ("ceo@elsewhere.example", false),
        ("office@example.test", true),
        ("ADA@Example.Test", true),
        ("", true), // a read receipt (RFC 8098)
    ] {
        let reply = session.client.smtp(&format!("MAIL FROM:<{path}>"))?;
        ensure!(reply.starts_with(if taken { "250 " } else { "55" }), "{path:?}: {reply}");
        if taken {
            ensure!(session.client.smtp(&format!("RCPT TO:<{}>", ben.user))?.starts_with("250 "));
            ensure!(session.client.smtp("RSET")?.starts_with("250 "));
        }
    }
    Ok(())
}

/// A message that is too large is refused before its octets are taken (RFC 1870), by the smaller of both limits.
#[test]
fn size_is_refused_before_the_octets() -> Result<()> {
    let backends = Backends::with(&Options { message_size: 200_000, ..Options::default() })?;
    let gateway = Gateway::start(&backends)?;
    let (ada, ben) = (backends.ada(), backends.ben());
    let mut session = enter(&gateway, ada)?;
    let hello = session.client.smtp("EHLO [192.0.2.4]")?;
    ensure!(hello.lines().any(|line| line.ends_with("SIZE 200000")), "{hello}");
    let reply = session.client.smtp(&format!("MAIL FROM:<{}> SIZE=300000", ada.user))?;
    ensure!(reply.starts_with("552 "), "{reply}");
    // One that says nothing of its size is refused at its true end, and none of it is sent.
    envelope(&mut session, ada, ben)?;
    ensure!(session.client.smtp("DATA")?.starts_with("354 "));
    session.client.raw(b"Subject: big\r\n\r\n")?;
    for _ in 0..300 {
        session.client.raw(format!("{}\r\n", "x".repeat(998)).as_bytes())?;
    }
    let reply = session.client.smtp(".")?;
    ensure!(reply.starts_with("552 "), "{reply}");
    let mut session = enter(&gateway, ada)?;
    envelope(&mut session, ada, ben)?;
    ensure!(session.client.smtp("DATA")?.starts_with("354 "));
    ensure!(session.client.smtp("Subject: small\r\n\r\na small message\r\n.")?.starts_with("250 "));
    backends.wait_for_mail(ben, "a small message", PATIENCE)?;
    ensure!(backends.inbox(ben)?.len() == 1, "a message that was refused arrived");
    Ok(())
}

/// A hijacked account is stopped by its budget, temporarily, so that no real message is lost.
#[test]
fn sending_has_a_budget() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::with(&backends, "[submission]\nmessages-per-hour = 3\nrecipients-per-hour = 5")?;
    let (ada, ben) = (backends.ada(), backends.ben());
    let mut session = enter(&gateway, ada)?;
    for number in 0..3 {
        envelope(&mut session, ada, ben)?;
        ensure!(session.client.smtp("DATA")?.starts_with("354 "));
        ensure!(
            session
                .client
                .smtp(&format!("Subject: {number}\r\n\r\nwithin the budget\r\n."))
                .is_ok_and(|reply| reply.starts_with("250 "))
        );
    }
    let mut reply = String::new();
    for command in [format!("MAIL FROM:<{}>", ada.user), format!("RCPT TO:<{}>", ben.user), "DATA".into()] {
        reply = session.client.smtp(&command)?;
        if !reply.starts_with("250 ") {
            break;
        }
    }
    ensure!(reply.starts_with('4'), "a fourth message was answered {reply}");
    // Others are not concerned.
    let mut other = enter(&gateway, ben)?;
    envelope(&mut other, ben, ada)
}

/// Both ways of saying goodbye in the middle leave no message behind.
#[test]
fn an_unfinished_message_is_not_sent() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let (ada, ben) = (backends.ada(), backends.ben());
    for half_close in [false, true] {
        let mut session = enter(&gateway, ada)?;
        envelope(&mut session, ada, ben)?;
        ensure!(session.client.smtp("DATA")?.starts_with("354 "));
        session.client.raw(b"Subject: torn\r\n\r\nhalf a mess")?;
        if half_close {
            session.client.half_close()?;
        }
    }
    let mut session = enter(&gateway, ada)?;
    envelope(&mut session, ada, ben)?;
    ensure!(session.client.smtp("DATA")?.starts_with("354 "));
    ensure!(session.client.smtp("Subject: whole\r\n\r\na whole message\r\n.")?.starts_with("250 "));
    backends.wait_for_mail(ben, "a whole message", PATIENCE)?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(backends.inbox(ben)?.len() == 1, "half a message arrived");
    Ok(())
}
