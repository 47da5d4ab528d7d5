//! Promise: guessing is slowed down, and nobody can lock the owner out by guessing in her name.

use anyhow::{Result, ensure};
use hil_tests::backends::{Backends, Options};
use hil_tests::gateway::Gateway;
use hil_tests::random;
use hil_tests::session::{Origin, Protocol, Session};
use std::net::SocketAddr;
use std::thread;

const SETTINGS: &str = "
[listen.proxy-protocol]
from = [\"127.0.0.1\"]
[abuse]
failure-deadline = \"200ms\"
failure-deadline-max = \"200ms\"
source = { burst = 5, refill = \"1h\" }
network = { burst = 20, refill = \"1h\" }
";

fn from(address: &str) -> Result<Origin> {
    Ok(Origin::Behind(SocketAddr::new(address.parse()?, 40_000)))
}

#[test]
fn an_attacker_cannot_lock_the_owner_out() -> Result<()> {
    let backends = Backends::with(&Options::quick_to_refuse())?;
    let gateway = Gateway::with(&backends, SETTINGS)?;
    let ada = backends.ada();
    let trust = gateway.trust()?;
    thread::scope(|scope| {
        for host in 1..=40 {
            let (gateway, trust) = (&gateway, &trust);
            scope.spawn(move || -> Result<()> {
                let origin = from(&format!("198.51.100.{host}"))?;
                let mut session = Session::open_from(gateway, Protocol::Imap, origin, trust)?;
                for guess in 0..4 {
                    session.login(&ada.user, &format!("guess {host} {guess}"))?;
                }
                Ok(())
            });
        }
    });
    let mut owner = Session::open_from(&gateway, Protocol::Imap, from("203.0.113.5")?, &trust)?;
    owner.enter(&ada.user, &ada.password)
}

/// One stale phone in an office does not shut out its colleagues behind the same address.
#[test]
fn one_stale_phone_does_not_lock_its_office_out() -> Result<()> {
    let backends = Backends::with(&Options::quick_to_refuse())?;
    let gateway = Gateway::with(&backends, SETTINGS)?;
    let (ada, ben) = (backends.ada(), backends.ben());
    let trust = gateway.trust()?;
    let (office, stale, fresh) = (from("203.0.113.80")?, random::uuid(), random::uuid());
    for _ in 0..100 {
        // The same wrong password again and again is one mistake, not a hundred.
        let mut session = Session::open_from(&gateway, Protocol::Imap, office, &trust)?;
        session.identify(&stale)?;
        ensure!(session.login(&ada.user, "last year's password")? == Protocol::Imap.failure());
    }
    let mut laptop = Session::open_from(&gateway, Protocol::Imap, office, &trust)?;
    laptop.identify(&fresh)?;
    laptop.enter(&ada.user, &ada.password)?;
    Session::open_from(&gateway, Protocol::Pop3, office, &trust)?.enter(&ben.user, &ben.password)
}

/// A network that guesses is refused in the end, even with the right password, without the server being asked; its
/// neighbours are not.
#[test]
fn a_guessing_network_runs_out_of_budget() -> Result<()> {
    let backends = Backends::with(&Options::quick_to_refuse())?;
    let gateway = Gateway::with(&backends, SETTINGS)?;
    let ada = backends.ada();
    let trust = gateway.trust()?;
    // One /64 of IPv6 is one network, however many addresses it has.
    for host in 1..=60 {
        let mut session = Session::open_from(
            &gateway,
            Protocol::Submission,
            from(&format!("2001:db8:5:6::{host:x}"))?,
            &trust,
        )?;
        session.login(&ada.user, &format!("guess {host}"))?;
    }
    let log = backends.log().from_now();
    let mut session =
        Session::open_from(&gateway, Protocol::Submission, from("2001:db8:5:6::ffff")?, &trust)?;
    ensure!(session.login(&ada.user, &ada.password)? == Protocol::Submission.failure());
    ensure!(log.lines(&[&ada.user]).is_empty(), "the server was asked:\n{}", log.text());
    let mut neighbour = Session::open_from(&gateway, Protocol::Submission, from("2001:db8:5:7::1")?, &trust)?;
    neighbour.enter(&ada.user, &ada.password)
}

/// The allow-list always wins.
#[test]
fn an_allowed_network_is_never_limited() -> Result<()> {
    let backends = Backends::with(&Options::quick_to_refuse())?;
    let gateway = Gateway::with(&backends, &format!("{SETTINGS}\nallow = [\"192.0.2.0/24\"]\n"))?;
    let ada = backends.ada();
    let trust = gateway.trust()?;
    for guess in 0..60 {
        let mut session = Session::open_from(&gateway, Protocol::Pop3, from("192.0.2.9")?, &trust)?;
        session.login(&ada.user, &format!("guess {guess}"))?;
    }
    Session::open_from(&gateway, Protocol::Pop3, from("192.0.2.9")?, &trust)?.enter(&ada.user, &ada.password)
}
