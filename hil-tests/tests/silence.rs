//! Promise: no reply, code, text, timing or connection fate tells a wrong password, an unknown user, a refused device and a
//! locked mailbox apart; and what a refused device tried never reaches the ISP's server before the reply.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hil_tests::backends::{Backends, Options};
use hil_tests::gateway::Gateway;
use hil_tests::random;
use hil_tests::session::{Origin, Protocol, Session};
use hil_tests::statistics::{percentile, same};

/// What a stranger may try against a locked mailbox.
#[derive(Clone, Copy, Debug)]
enum Case {
    UnknownUser,
    WrongPassword,
    UnknownDevice,
    RevokedDevice,
}

const CASES: [Case; 4] = [Case::UnknownUser, Case::WrongPassword, Case::UnknownDevice, Case::RevokedDevice];

/// Samples of each case and protocol.
const SAMPLES: usize = 500;

/// Attempts under way at once: enough to end in minutes, few enough that two cores are not the measure.
const WORKERS: usize = 40;

/// The network that the known devices live in; a device without a token is known by it.
const HOME: [u8; 3] = [203, 0, 113];

struct Bench {
    backends: Backends,
    gateway: Gateway,
    token: String,
    revoked: String,
}

/// ada has an approved and a revoked device, with and without a token, and her mailbox is locked.
fn bench() -> Result<Bench> {
    let backends = Backends::with(&Options::quick_to_refuse())?;
    let gateway = Gateway::with(
        &backends,
        "[listen.proxy-protocol]
         from = [\"127.0.0.1\"]
         [policy]
         weak-identity = true
         [abuse] # Dovecot says no after half a second here, however little it is told to wait
         failure-deadline = \"900ms\"
         failure-deadline-max = \"900ms\"
         source = { burst = 1000000, refill = \"1s\" }
         network = { burst = 1000000, refill = \"1s\" }
         neighbourhood = { burst = 1000000, refill = \"1s\" }
         account = { burst = 1000000, refill = \"1s\" }",
    )?;
    let ada = backends.ada().clone();
    let (token, revoked) = (random::uuid(), random::uuid());
    let trust = gateway.trust()?;
    let enter = |protocol, token: &str, source: [u8; 4]| -> Result<String> {
        gateway.keep_secret(token);
        let mut session = Session::open_from(&gateway, protocol, behind(source), &trust)?;
        session.identify(token)?;
        session.enter(&ada.user, &ada.password)?;
        gateway.wait_for_device(&ada, "pending")
    };
    let alias = enter(Protocol::Imap, &token, home(1))?;
    gateway.approve(&ada, &alias)?;
    for (protocol, token) in [(Protocol::Imap, &revoked), (Protocol::Pop3, &revoked)] {
        let alias = enter(protocol, token, home(2))?;
        gateway.revoke(&ada, &alias)?;
    }
    gateway.lock(&ada)?;
    Ok(Bench { backends, gateway, token, revoked })
}

/// One attempt: everything the server said, and how long the answer to the last line took.
fn attempt(bench: &Bench, protocol: Protocol, case: Case, number: usize) -> Result<(String, Duration)> {
    let ada = bench.backends.ada();
    let [high, low] = u16::try_from(number)?.to_be_bytes();
    let away = [10, u8::try_from(protocol as usize * 4 + case as usize)?, high, low];
    let (user, password, token, source) = match case {
        Case::UnknownUser => ("nobody@example.test", ada.password.as_str(), random::uuid(), away),
        Case::WrongPassword => (ada.user.as_str(), "not-the-password", random::uuid(), away),
        Case::UnknownDevice => (ada.user.as_str(), ada.password.as_str(), random::uuid(), away),
        Case::RevokedDevice => (ada.user.as_str(), ada.password.as_str(), bench.revoked.clone(), home(low)),
    };
    let mut session = Session::open_from(&bench.gateway, protocol, behind(source), &bench.gateway.trust()?)?;
    session.identify(&token)?;
    let pending = session.begin_login(user, password)?;
    let start = Instant::now();
    pending.finish()?;
    let time = start.elapsed();
    // What happens afterwards must not tell either.
    session.nothing()?;
    Ok((session.client.heard(), time))
}

#[test]
fn four_refusals_are_byte_identical_and_reach_no_server() -> Result<()> {
    let bench = bench()?;
    let log = bench.backends.log().from_now();
    for protocol in Protocol::ALL {
        let heard = CASES
            .map(|case| attempt(&bench, protocol, case, 1).with_context(|| format!("{protocol:?} {case:?}")));
        let [first, others @ ..] = heard;
        let (first, _) = first?;
        ensure!(first.contains(protocol.failure()), "{first}");
        for (other, case) in others.into_iter().zip(&CASES[1..]) {
            let (other, _) = other?;
            ensure!(other == first, "{protocol:?}: {case:?} heard\n{other}\nand an unknown user\n{first}");
        }
    }
    let ada = bench.backends.ada();
    for daemon in ["auth: ", "-login: ", "/smtpd"] {
        let lines = log.lines(&[&ada.user, daemon]);
        ensure!(lines.is_empty(), "a refused login reached the server: {lines:?}");
    }
    // The device that is approved still gets in, so the refusals were about devices.
    let mut session =
        Session::open_from(&bench.gateway, Protocol::Imap, behind(home(1)), &bench.gateway.trust()?)?;
    session.identify(&bench.token)?;
    session.enter(&ada.user, &ada.password)?;
    Ok(())
}

/// A whole connection of failures ends alike too.
#[test]
fn a_connection_ends_alike_after_five_failures() -> Result<()> {
    let bench = bench()?;
    let ada = bench.backends.ada();
    for protocol in Protocol::ALL {
        let run = |user: &str, password: &str, source| -> Result<String> {
            let mut session =
                Session::open_from(&bench.gateway, protocol, behind(source), &bench.gateway.trust()?)?;
            let mut failures = 0;
            while session.login(user, password).is_ok() {
                failures += 1;
                ensure!(failures <= 5, "{failures} failures on one connection");
            }
            Ok(session.client.heard())
        };
        let stranger = run("nobody@example.test", "x", [10, 200, 0, 1])?;
        let guesser = run(&ada.user, "x", [10, 200, 0, 2])?;
        let thief = run(&ada.user, &ada.password, [10, 200, 0, 3])?;
        ensure!(stranger == guesser && guesser == thief, "{protocol:?}:\n{stranger}\n{guesser}\n{thief}");
    }
    Ok(())
}

#[test]
fn reply_times_cannot_be_told_apart() -> Result<()> {
    let bench = bench()?;
    for protocol in Protocol::ALL {
        let next = AtomicUsize::new(0);
        let times: [Mutex<Vec<Duration>>; 4] = Default::default();
        let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    loop {
                        let job = next.fetch_add(1, Ordering::Relaxed);
                        // The cases take turns, so that the machine's moods fall on all of them.
                        let (case, number) = (job % CASES.len(), job / CASES.len());
                        if number >= SAMPLES || failed.lock().is_ok_and(|failed| failed.is_some()) {
                            return;
                        }
                        match (
                            attempt(&bench, protocol, CASES[case], number),
                            times[case].lock(),
                            failed.lock(),
                        ) {
                            (Ok((_, time)), Ok(mut times), _) => times.push(time),
                            (Err(error), _, Ok(mut failed)) => *failed = Some(error),
                            _ => return,
                        }
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner()? {
            return Err(error);
        }
        let times = times.map(|times| times.into_inner().unwrap_or_default());
        for (case, times) in CASES.iter().zip(&times) {
            eprintln!(
                "{protocol:?} {case:?}: {:?}, {:?}, {:?}",
                percentile(times, 5),
                percentile(times, 50),
                percentile(times, 95)
            );
            ensure!(times.len() == SAMPLES);
            ensure!(
                times.iter().all(|time| *time >= Duration::from_millis(900)),
                "a refusal came before the deadline"
            );
        }
        for (a, first) in CASES.iter().zip(&times) {
            for (b, second) in CASES.iter().zip(&times) {
                // Eighteen comparisons, so one run in 5,000 fails by chance.
                let likely = same(first, second);
                ensure!(
                    likely > 1e-5,
                    "{protocol:?}: {a:?} and {b:?} can be told apart by time (p = {likely:.1e})"
                );
            }
        }
    }
    Ok(())
}

fn home(host: u8) -> [u8; 4] {
    let [a, b, c] = HOME;
    [a, b, c, host]
}

fn behind(source: [u8; 4]) -> Origin {
    Origin::Behind(SocketAddr::new(IpAddr::from(source), 40_000))
}
