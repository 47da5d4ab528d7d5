//! Promise: a thousand hostile connections cost less than 64 MiB together, and good logins stay within twice their quiet 99th
//! percentile meanwhile.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hil_tests::backends::{Account, Backends};
use hil_tests::client::{Client, Trust, client};
use hil_tests::gateway::Gateway;
use hil_tests::session::{Protocol, Session};
use hil_tests::statistics::percentile;

const CONNECTIONS: usize = 1_000;

/// KiB that they may cost, all together.
const BUDGET: u64 = 64 * 1024;

/// Good logins for each of the two measurements.
const LOGINS: usize = 200;

/// Below this a percentile is the scheduler's mood, not ours.
const FLOOR: Duration = Duration::from_millis(10);

#[test]
fn a_thousand_hostile_connections_are_cheap() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let ada = backends.ada();
    good_logins(&gateway, ada, 50)?; // what a first login allocates once is not the strangers' doing
    let quiet = percentile(&good_logins(&gateway, ada, LOGINS)?, 99);
    let before = gateway.memory()?;

    let mut peak = before;
    let mut held = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        held.push(hostile(&gateway, number));
        if number % 50 == 0 {
            peak = peak.max(gateway.memory()?);
        }
    }
    let opened = held.iter().flatten().count();
    ensure!(opened > CONNECTIONS * 9 / 10, "only {opened} connections were taken at all");
    // They stay and go on, an octet now and then, while good users come and go.
    let (busy, after) = thread::scope(|scope| -> Result<_> {
        let dripping = scope.spawn(|| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(5) {
                for client in held.iter_mut().flatten() {
                    let _ = client.raw(b"x"); // many are closed by now, as they should be
                }
                thread::sleep(Duration::from_millis(200));
            }
        });
        let busy = percentile(&good_logins(&gateway, ada, LOGINS)?, 99);
        let after = gateway.memory()?;
        dripping.join().map_err(|_| anyhow::anyhow!("the dripping thread panicked"))?;
        Ok((busy, after))
    })?;
    peak = peak.max(after);
    let cost = peak.saturating_sub(before);
    eprintln!(
        "{opened} hostile connections cost {cost} KiB over {before} KiB; good logins' p99 {quiet:?} quiet, {busy:?} busy"
    );
    ensure!(cost < BUDGET, "{CONNECTIONS} hostile connections cost {cost} KiB");
    ensure!(busy <= 2 * quiet.max(FLOOR), "good logins took {busy:?} instead of {quiet:?} (99th percentile)");
    Ok(())
}

/// Times of logins to IMAP, connection and TLS included.
fn good_logins(gateway: &Gateway, account: &Account, count: usize) -> Result<Vec<Duration>> {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            let mut session = Session::open(gateway, Protocol::Imap)?;
            session.enter(&account.user, &account.password)?;
            let time = start.elapsed();
            session.client.send("z LOGOUT")?;
            session.client.until("z OK")?;
            Ok(time)
        })
        .collect()
}

/// One connection of the kind `number` says, from one of ten addresses; `None` once it was refused.
fn hostile(gateway: &Gateway, number: usize) -> Option<Client> {
    let source = Some(client(u8::try_from(10 + number % 10).ok()?));
    let trust = gateway.trust().ok()?;
    let listeners = &gateway.listeners;
    let tls = |address: SocketAddr, trust: &Trust| -> Option<Client> {
        let mut client = Client::tls_from(address, trust, source).ok()?;
        client.smtp_reply().ok()?;
        Some(client)
    };
    let megabyte = || vec![b'x'; 1 << 20];
    match number / 10 % 10 {
        // Never says a word.
        0 => Client::clear_from(listeners.imaps, source).ok(),
        // Half a ClientHello: a record of 16 KiB is announced, and then comes nothing.
        1 => {
            let mut client = Client::clear_from(listeners.imaps, source).ok()?;
            client.raw(&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3]).ok()?;
            client.raw(&[7; 8_000]).ok()?;
            Some(client)
        }
        // Nested lists (CVE-2026-27857).
        2 => {
            let mut client = tls(listeners.imaps, &trust)?;
            client.raw(b"a NOOP ").ok()?;
            let _ = client.raw(&vec![b'('; 1 << 20]);
            Some(client)
        }
        // An endless line.
        3 => {
            let mut client = tls(listeners.imaps, &trust)?;
            let _ = client.raw(&megabyte());
            Some(client)
        }
        // A literal of 4 GiB, and one that does not wait to be asked for.
        4 => {
            let mut client = tls(listeners.imaps, &trust)?;
            let _ = client.send("a LOGIN {4294967295}");
            let _ = client.send("b LOGIN ada {1000000+}");
            let _ = client.raw(&megabyte());
            Some(client)
        }
        // A megabyte of base64.
        5 => {
            let mut client = tls(listeners.imaps, &trust)?;
            client.ask("a AUTHENTICATE PLAIN").ok()?;
            let _ = client.raw(&vec![b'A'; 1 << 20]);
            Some(client)
        }
        // One octet a minute.
        6 => {
            let mut client = tls(listeners.imaps, &trust)?;
            client.raw(b"a").ok()?;
            Some(client)
        }
        // The largest ID that RFC 2971 allows, which must be taken, and then another without an end.
        7 => {
            let mut client = tls(listeners.imaps, &trust)?;
            let pairs: Vec<String> =
                (0..30).map(|key| format!("\"{key:030}\" \"{}\"", "v".repeat(1_024))).collect();
            client.send(&format!("a ID ({})", pairs.join(" "))).ok()?;
            let reply = client.until("a ").ok()?.pop()?;
            assert!(reply.starts_with("a OK"), "the largest ID was answered {reply}");
            let _ = client.raw(format!("b ID (\"{}", "k".repeat(1 << 18)).as_bytes());
            Some(client)
        }
        // Submission: a long pipeline before login, and a line without an end.
        8 => {
            let mut client = tls(listeners.submissions, &trust)?;
            let _ = client.raw("NOOP\r\n".repeat(2_000).as_bytes());
            let _ = client.raw(&megabyte());
            Some(client)
        }
        // POP3: the same.
        _ => {
            let mut client = tls(listeners.pop3s, &trust)?;
            let _ = client.raw("USER x\r\n".repeat(2_000).as_bytes());
            let _ = client.raw(&megabyte());
            Some(client)
        }
    }
}

/// The same number of strangers cannot keep others out: limits hold for a network, not for everybody.
#[test]
fn one_network_cannot_take_all_connections() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::with(&backends, "[limits]\nconnections-per-network = 50\nconnections = 100")?;
    let held: Vec<_> =
        (0..200).map(|_| Client::clear_from(gateway.listeners.imaps, Some(client(66)))).collect();
    ensure!(held.iter().flatten().count() > 0);
    let ada = backends.ada();
    Session::open(&gateway, Protocol::Imap)?.enter(&ada.user, &ada.password)
}
