//! Promise: killed at any instant, the box comes back with every approval it acknowledged, and no message that it
//! acknowledged is lost.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::gateway::Gateway;
use hil_tests::random;
use hil_tests::session::{Protocol, Session};

/// Kills, at random instants.
const KILLS: usize = 200;

/// What the operator asked for one device, and which of it was acknowledged.
struct Ledger {
    alias: String,
    /// The last state that `postern` said is in force.
    acknowledged: &'static str,
    /// The state asked for and not answered: the kill came between.
    pending: Option<&'static str>,
}

#[test]
fn nothing_acknowledged_is_lost() -> Result<()> {
    let backends = Backends::start()?;
    // Twenty messages a second for minutes are more than a person sends.
    let mut gateway =
        Gateway::with(&backends, "[submission]\nmessages-per-hour = 1000000\nrecipients-per-hour = 1000000")?;
    let (ada, ben) = (backends.ada().clone(), backends.ben().clone());
    let mut ledgers = Vec::new();
    for _ in 0..4 {
        let alias = gateway.enrol(&ada, &random::uuid())?;
        ledgers.push(Ledger { alias, acknowledged: "approved", pending: None });
    }
    let acknowledged_mail: Mutex<Vec<String>> = Mutex::default();
    let sent = AtomicUsize::new(0);
    let mut changes = 0;
    for round in 0..KILLS {
        let over = AtomicBool::new(false);
        let instant = Duration::from_millis(20 + random::below(280));
        let ledger = &mut ledgers[round % 4];
        changes += thread::scope(|scope| -> Result<usize> {
            let sender = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // A message that failed was not acknowledged: the client would try again.
                    let _ = send_until_killed(&gateway, &backends, &sent, &acknowledged_mail);
                }
            });
            let operator = scope.spawn(|| change_until_killed(&gateway, &ada.user, ledger, &over));
            thread::sleep(instant);
            gateway.signal(nix::sys::signal::Signal::SIGKILL)?;
            over.store(true, Ordering::Relaxed);
            sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
            operator.join().map_err(|_| anyhow::anyhow!("the operator panicked"))
        })?;
        gateway.kill();
        gateway.resume().with_context(|| format!("it did not start after kill {round}"))?;
        let devices = gateway.devices(&ada)?;
        for ledger in &mut ledgers {
            let device =
                devices.iter().find(|device| device.alias == ledger.alias).context("a device is gone")?;
            let is = ["approved", "revoked"]
                .into_iter()
                .find(|state| *state == device.standing)
                .context("odd standing")?;
            ensure!(
                is == ledger.acknowledged || Some(is) == ledger.pending,
                "after kill {round} a device is {is}; acknowledged was {}, asked for {:?}",
                ledger.acknowledged,
                ledger.pending
            );
            ledger.acknowledged = is;
            ledger.pending = None;
        }
    }
    let acknowledged_mail = acknowledged_mail.into_inner()?;
    eprintln!(
        "{KILLS} kills, {changes} acknowledged changes, {} acknowledged messages",
        acknowledged_mail.len()
    );
    ensure!(changes > KILLS && acknowledged_mail.len() > KILLS, "there was no load to speak of");
    let start = Instant::now();
    loop {
        let inbox = backends.inbox(&ben)?;
        let arrived: HashSet<&str> = inbox.iter().filter_map(|message| message.lines().last()).collect();
        let missing: Vec<_> =
            acknowledged_mail.iter().filter(|mark| !arrived.contains(mark.as_str())).collect();
        if missing.is_empty() {
            return Ok(());
        }
        ensure!(
            start.elapsed() < Duration::from_secs(30),
            "{} acknowledged messages are lost: {missing:?}",
            missing.len()
        );
        thread::sleep(Duration::from_secs(1));
    }
}

fn send_until_killed(
    gateway: &Gateway,
    backends: &Backends,
    sent: &AtomicUsize,
    acknowledged: &Mutex<Vec<String>>,
) -> Result<()> {
    let (ada, ben) = (backends.ada(), backends.ben());
    let mut session = Session::open(gateway, Protocol::Submission)?;
    session.enter(&ada.user, &ada.password)?;
    loop {
        let mark = format!("<mark {}>", sent.fetch_add(1, Ordering::Relaxed));
        let client = &mut session.client;
        client.raw(format!("MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n", ada.user, ben.user).as_bytes())?;
        for _ in 0..3 {
            ensure!(client.smtp_reply()?.starts_with(['2', '3']));
        }
        if client.smtp(&format!("Subject: under load\r\n\r\n{mark}\r\n."))?.starts_with("250 ") {
            acknowledged.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push(mark);
        }
    }
}

/// Approves and revokes in turn; gives how many changes were acknowledged.
fn change_until_killed(gateway: &Gateway, user: &str, ledger: &mut Ledger, over: &AtomicBool) -> usize {
    let mut acknowledged = 0;
    while !over.load(Ordering::Relaxed) {
        let (verb, next) =
            if ledger.acknowledged == "approved" { ("revoke", "revoked") } else { ("approve", "approved") };
        ledger.pending = Some(next);
        if gateway.postern(&["devices", verb, user, &ledger.alias]).is_err() {
            break; // killed under way: either state may be in force
        }
        ledger.acknowledged = next;
        ledger.pending = None;
        acknowledged += 1;
    }
    acknowledged
}
