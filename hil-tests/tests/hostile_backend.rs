//! Promise: a backend that breaks its protocol, or somebody on the way to it, gets a closed session and an event; the client
//! hears a temporary error and never a success. A backend that dies in the middle loses no mail.

use std::time::Duration;

use anyhow::{Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::devices::items;
use hil_tests::gateway::Gateway;
use hil_tests::script::{self, Line, Script};
use hil_tests::session::{Protocol, Session};

/// A gateway whose IMAP backend is the script.
fn before_imap(backends: &Backends, script: &Script, tls: &str) -> Result<Gateway> {
    let changes = format!(
        "[backends.isp]\nimap = {{ address = \"{}\", tls = \"{tls}\", timeout = \"2s\", health-interval = \"1s\" }}\n\
         [abuse]\nfailure-deadline = \"300ms\"\nfailure-deadline-max = \"300ms\"",
        script.address
    );
    Gateway::with(backends, &changes)
}

/// Logs in; whatever happens, it must not be a success, and it must not take for ever.
fn never_succeeds(gateway: &Gateway, backends: &Backends, what: &str) -> Result<()> {
    let ada = backends.ada();
    let Ok(mut session) = Session::open(gateway, Protocol::Imap) else { return Ok(()) };
    session.client.set_patience(Duration::from_secs(15))?;
    match session.login(&ada.user, &ada.password) {
        Ok(reply) => ensure!(reply.starts_with(Protocol::Imap.unavailable()), "{what} was answered {reply}"),
        Err(error) => ensure!(format!("{error:#}").contains("closed"), "{what}: {error:#}"),
    }
    ensure!(!session.client.heard().contains("evil"), "{what}: the backend's words reached the client");
    Ok(())
}

#[test]
fn a_backend_that_breaks_its_protocol_is_no_backend() -> Result<()> {
    type Play = fn(&mut Line) -> Result<()>;
    let plays: [(&str, &str, Play); 6] = [
        ("PREAUTH", "none", |line| {
            line.say("* PREAUTH evil already in\r\n")?;
            loop {
                let (tag, _) = script::imap(line, "IMAP4rev1 AUTH=PLAIN")?;
                line.say(&format!("{tag} OK evil\r\n"))?;
            }
        }),
        ("response injection before TLS", "starttls", |line| {
            line.say("* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n")?;
            let (tag, _) = script::imap(line, "IMAP4rev1 STARTTLS LOGINDISABLED")?;
            line.say(&format!("{tag} OK begin\r\n* OK evil\r\n"))?;
            line.hear().map(drop)
        }),
        ("an endless line", "none", |line| {
            loop {
                line.say(&"evil".repeat(4_096))?;
            }
        }),
        ("a bare line feed inside a reply", "none", |line| {
            line.say("* OK ready\r\n")?;
            let (tag, _) = script::imap(line, "IMAP4rev1 AUTH=PLAIN SASL-IR")?;
            line.say(&format!("* OK evil\n{tag} OK evil\r\n"))?;
            line.hear().map(drop)
        }),
        ("a wrong tag", "none", |line| {
            line.say("* OK ready\r\n")?;
            script::imap(line, "IMAP4rev1 AUTH=PLAIN SASL-IR")?;
            line.say("evil OK in\r\n")?;
            line.hear().map(drop)
        }),
        ("silence", "none", |line| line.hear().map(drop)),
    ];
    for (what, tls, play) in plays {
        let backends = Backends::start()?;
        let script = Script::start(play)?;
        let gateway = before_imap(&backends, &script, tls)?;
        never_succeeds(&gateway, &backends, what)?;
        let events = gateway.postern(&["events"])?;
        ensure!(items(&events).is_some_and(|events| !events.is_empty()), "{what} left no event: {events}");
        // The other protocols go on.
        Session::open(&gateway, Protocol::Pop3)?.enter(&backends.ada().user, &backends.ada().password)?;
    }
    Ok(())
}

/// The reply to the end of a message is the backend's, and when that never comes it is 451: the client keeps its mail.
#[test]
fn a_backend_that_dies_after_the_end_mark_is_a_451() -> Result<()> {
    let backends = Backends::start()?;
    let script = Script::start(|line| {
        line.say("220 script.example.test ESMTP\r\n")?;
        loop {
            let command = script::smtp(line, &["PIPELINING", "AUTH PLAIN LOGIN", "8BITMIME"])?;
            match command.split([' ', ':']).next().unwrap_or_default() {
                "AUTH" => line.say("235 2.7.0 in\r\n")?,
                "MAIL" => line.say("250 2.1.0 Ok\r\n")?,
                "RCPT" if command.contains("full") => line.say("452 4.2.2 Mailbox full\r\n")?,
                "RCPT" => line.say("250 2.1.5 Ok\r\n")?,
                "DATA" => {
                    line.say("354 go\r\n")?;
                    while line.hear()? != "." {}
                    return Ok(()); // and it is gone
                }
                _ => line.say("500 5.5.2 What?\r\n")?,
            }
        }
    })?;
    let gateway = Gateway::with(
        &backends,
        &format!(
            "[backends.isp]\nsubmission = {{ address = \"{}\", tls = \"none\", health-interval = \"1s\" }}",
            script.address
        ),
    )?;
    let ada = backends.ada();
    let mut session = Session::open(&gateway, Protocol::Submission)?;
    session.enter(&ada.user, &ada.password)?;
    ensure!(session.client.smtp(&format!("MAIL FROM:<{}>", ada.user))?.starts_with("250 "));
    let reply = session.client.smtp("RCPT TO:<full@example.test>")?;
    ensure!(reply == "452 4.2.2 Mailbox full", "the backend's own words are the reply: {reply}");
    ensure!(session.client.smtp("RCPT TO:<ben@example.test>")?.starts_with("250 "));
    ensure!(session.client.smtp("DATA")?.starts_with("354 "));
    let reply = session.client.smtp("Subject: lost?\r\n\r\nno\r\n.")?;
    ensure!(reply.starts_with("451 "), "{reply}");
    Ok(())
}

/// XOAUTH2 and OAUTHBEARER go to a backend that offers them, as they are.
#[test]
fn oauth_passes_through_as_it_is() -> Result<()> {
    let backends = Backends::start()?;
    let script = Script::start(|line| {
        line.say("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER] ready\r\n")?;
        let (tag, rest) = script::imap(line, "IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER")?;
        if rest.split(' ').count() < 3 {
            line.say("+ \r\n")?;
            line.hear()?;
        }
        line.say(&format!("{tag} OK [CAPABILITY IMAP4rev1 IDLE] welcome\r\n"))?;
        let (tag, _) = script::imap(line, "IMAP4rev1 IDLE")?;
        line.say(&format!("{tag} OK relayed\r\n"))?;
        line.hear().map(drop)
    })?;
    let gateway = before_imap(&backends, &script, "none")?;
    // "user=ada@example.test^Aauth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg^A^A"
    let xoauth2 = "dXNlcj1hZGFAZXhhbXBsZS50ZXN0AWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2cBAQ==";
    // "n,a=ada@example.test,^Ahost=mail.example.test^Aport=993^Aauth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg^A^A"
    let bearer = "bixhPWFkYUBleGFtcGxlLnRlc3QsAWhvc3Q9bWFpbC5leGFtcGxlLnRlc3QBcG9ydD05OTMBYXV0aD1CZWFyZXIgdkY5ZGZ0NHFtVGMyTnZiM1JsY2tCaGJIUmhkbWx6ZEdFdVkyOXRDZwEB";
    for (mechanism, secret) in [("XOAUTH2", xoauth2), ("OAUTHBEARER", bearer)] {
        gateway.keep_secret(secret);
        let mut session = Session::open(&gateway, Protocol::Imap)?;
        session.client.send(&format!("a AUTHENTICATE {mechanism} {secret}"))?;
        let reply = session.client.until("a ")?.pop().unwrap_or_default();
        ensure!(reply.starts_with("a OK"), "{mechanism}: {reply}");
        let heard = script.heard();
        ensure!(
            heard.iter().any(|line| line.contains(secret)),
            "{mechanism} did not arrive as it was: {heard:?}"
        );
        session.client.send("b SELECT INBOX")?;
        ensure!(session.client.until("b ")?.pop().is_some_and(|reply| reply == "b OK relayed"));
    }
    Ok(())
}
