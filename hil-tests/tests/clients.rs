//! Promise: mail programs that people use read and send mail through Postern, unmodified, and the ISP's servers see the
//! user's address, not Postern's.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hil_tests::backends::{Account, Backends, Options};
use hil_tests::balancer::Balancer;
use hil_tests::gateway::Gateway;
use hil_tests::mailer::{IMAP, POP3, SUBMISSION, Server, Tls};

/// The bench proves itself: the same programs against the servers without Postern between them.
#[test]
fn every_program_works_with_the_servers_themselves() -> Result<()> {
    let backends = Backends::with(&Options { starttls: true, ..Options::default() })?;
    let server = |address: SocketAddr| Server {
        port: address.port(),
        tls: Tls::Start,
        ca: &backends.certificate.ca,
        account: backends.ada(),
        workshop: backends.workshop(),
    };
    every_program(&backends, |protocol, _| {
        Ok(server(match protocol {
            "imap" => backends.dovecot.imap,
            "pop3" => backends.dovecot.pop3,
            _ => backends.postfix.submission,
        }))
    })
}

/// TLS from the first octet, through a load balancer that tells each program's address.
#[test]
fn every_program_works_through_postern() -> Result<()> {
    through_postern(Tls::Implicit)
}

/// STARTTLS on the older ports.
#[test]
fn every_program_works_through_postern_with_starttls() -> Result<()> {
    through_postern(Tls::Start)
}

fn through_postern(tls: Tls) -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::with(&backends, "[listen.proxy-protocol]\nfrom = [\"127.0.0.1\"]")?;
    let log = backends.log();
    let mut addresses = Vec::new();
    every_program(&backends, |protocol, number| {
        let source: SocketAddr = format!("203.0.113.{number}:40{number:03}").parse()?;
        let listeners = &gateway.listeners;
        let target = match (protocol, tls) {
            ("imap", Tls::Implicit) => listeners.imaps,
            ("imap", Tls::Start) => listeners.imap,
            ("pop3", Tls::Implicit) => listeners.pop3s,
            ("pop3", Tls::Start) => listeners.pop3,
            (_, Tls::Implicit) => listeners.submissions,
            (_, Tls::Start) => listeners.submission,
        };
        addresses.push((protocol, source.ip()));
        let port = Balancer::start(target, source)?.address.port();
        Ok(Server {
            port,
            tls,
            ca: &gateway.certificate.ca,
            account: backends.ada(),
            workshop: backends.workshop(),
        })
    })?;
    for (protocol, address) in addresses {
        let user = &backends.ada().user;
        let line = match protocol {
            "imap" => {
                log.wait(&["imap-login", "Login:", user, &format!("rip={address},")], Duration::from_secs(5))
            }
            "pop3" => {
                log.wait(&["pop3-login", "Login:", user, &format!("rip={address},")], Duration::from_secs(5))
            }
            _ => log.wait(
                &["client=", &format!("[{address}]"), &format!("sasl_username={user}")],
                Duration::from_secs(5),
            ),
        };
        line.context("the server does not know who its client was")?;
    }
    ensure!(log.lines(&["Login:", "rip=127.0.0.1,"]).is_empty(), "a login was taken for Postern's own");
    Ok(())
}

/// Lets every program read a message that is there, and send one that arrives.
fn every_program<'a>(
    backends: &Backends,
    mut server: impl FnMut(&'static str, u8) -> Result<Server<'a>>,
) -> Result<()> {
    let mut number = 0;
    let mut next = |protocol| {
        number += 1;
        server(protocol, number)
    };
    backends.deliver(
        backends.ada(),
        "From: ben@example.test\nTo: ada@example.test\nSubject: waiting\n\nsomething to read\n.\n..end\n",
    )?;
    for (protocol, readers) in [("imap", &IMAP[..]), ("pop3", &POP3[..])] {
        for (name, read) in readers {
            let got = read(&next(protocol)?).with_context(|| format!("{name} by {protocol}"))?;
            ensure!(
                got.replace("\r\n", "\n").contains("something to read\n.\n..end\n"),
                "{name} by {protocol} got {got:?}"
            );
        }
    }
    for (name, send) in SUBMISSION {
        let words = format!("sent by {name}");
        let message = message(backends.ada(), backends.ben(), &words);
        send(&next("submission")?, &backends.ben().user, &message)
            .with_context(|| format!("{name} by submission"))?;
        let got = backends.wait_for_mail(backends.ben(), &words, Duration::from_secs(20))?;
        ensure!(got.contains(&format!("{words}\n.\n..end\n")), "{name} delivered {got:?}");
    }
    Ok(())
}

fn message(from: &Account, to: &Account, words: &str) -> String {
    format!("From: {}\nTo: {}\nSubject: bench\n\n{words}\n.\n..end\n", from.user, to.user)
}
