//! Promise: while the ISP's server is away every login hears a temporary error, never "wrong password", and nobody's answer
//! tells an approved device from a refused one; when it is back, so is the mail.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::gateway::Gateway;
use hil_tests::random;
use hil_tests::session::{Protocol, Session};

#[test]
fn everybody_hears_the_same_temporary_error() -> Result<()> {
    let mut backends = Backends::start()?;
    let gateway =
        Gateway::with(&backends, "[abuse]\nfailure-deadline = \"300ms\"\nfailure-deadline-max = \"300ms\"")?;
    let ada = backends.ada().clone();
    let token = random::uuid();
    gateway.enrol(&ada, &token)?;
    gateway.lock(&ada)?;

    backends.dovecot.pause();
    backends.postfix.pause();
    sleep(Duration::from_secs(3)); // health probes run once a second here
    for protocol in Protocol::ALL {
        let mut replies = Vec::new();
        for (user, password, token) in [
            (ada.user.as_str(), ada.password.as_str(), token.as_str()),
            (&ada.user, &ada.password, &random::uuid()),
            (&ada.user, "wrong", &random::uuid()),
            ("nobody@example.test", "wrong", &random::uuid()),
        ] {
            let mut session = Session::open(&gateway, protocol)?;
            session.identify(token)?;
            replies.push(session.login(user, password)?);
        }
        ensure!(replies.iter().all(|reply| *reply == replies[0]), "{protocol:?}: {replies:?}");
        ensure!(replies[0].starts_with(protocol.unavailable()), "{protocol:?}: {}", replies[0]);
    }

    backends.dovecot.resume()?;
    backends.postfix.resume()?;
    for protocol in Protocol::WITH_CLIENTID {
        let start = Instant::now();
        loop {
            let mut session = Session::open(&gateway, protocol)?;
            session.identify(&token)?;
            let reply = session.login(&ada.user, &ada.password)?;
            if protocol.is_success(&reply) {
                break;
            }
            ensure!(reply.starts_with(protocol.unavailable()), "{reply}");
            ensure!(
                start.elapsed() < Duration::from_secs(10),
                "the server is back, and Postern does not see it"
            );
            sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

/// A server that goes away under a session ends it; the session is not left hanging.
#[test]
fn a_session_ends_with_its_server() -> Result<()> {
    let mut backends = Backends::start()?;
    let gateway = Gateway::start(&backends)?;
    let ada = backends.ada().clone();
    let mut imap = Session::open(&gateway, Protocol::Imap)?;
    imap.enter(&ada.user, &ada.password)?;
    backends.dovecot.pause();
    ensure!(imap.client.is_closed_within(Duration::from_secs(5))?);
    Ok(())
}
